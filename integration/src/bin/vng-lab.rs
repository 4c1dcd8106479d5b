//! The program `vng-lab`: a lab of network namespaces around `vng`, which is part of this program too.

use clap::{Args, Parser, Subcommand, ValueEnum};
use gateway::device::namespace::enter_user_namespace;
use gateway::device::signal::Signals;
use integration::compare::contestant::{Peer, Setting, Variant};
use integration::compare::metric::Measurement;
use integration::compare::{self, CompareOptions};
use integration::config::{Probing, Tagging};
use integration::demo::{self, DemoOptions};
use integration::error::Error;
use integration::lab::{Fault, LabOptions};
use integration::report::terminal::{complain, print};
use integration::{interrupt, process, report, standing};
use serde::Serialize;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// A lab around vng, the virtual network gateway: network namespaces, provider wires, real gateways.
///
/// Needs root, or a kernel that allows user namespaces; no other program.
#[derive(Debug, Parser)]
#[command(name = "vng-lab", version)]
struct Arguments {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Debug, Subcommand)]
enum Commands {
    /// Build the lab, move traffic, cut ExpressRoute, measure, restore, report, remove everything.
    Demo(Demo),
    /// Measure vng beside wireguard-go, boringtun-cli, the kernel's forwarding and others, in turns.
    Compare(Compare),
    /// Build the lab and leave it standing; VNG_LAB_STATE names a directory for its files, in place of /run or
    /// the user's own.
    Up(Shape),
    /// Run a command on a host of the standing lab; `vng` is there without being installed, in shells too, and
    /// speaks to the host's gateway.
    Exec {
        /// Name of the host: vnet, gateway, pe1, pe2, internet, onprem-edge, onprem, branch-edge, branch.
        host: String,
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Remove the standing lab.
    Down,
    /// Hold a lab until told to end.
    #[command(hide = true)]
    Keep(Shape),
}

#[derive(Debug, Args)]
struct Demo {
    #[command(flatten)]
    shape: Shape,
    /// Print the report as JSON in place of the table.
    #[arg(long)]
    json: bool,
    /// Write report.json and report.html into this directory.
    #[arg(long, value_name = "DIR", default_value = "demo-report")]
    report: PathBuf,
    /// Measure for a shorter time.
    #[arg(long)]
    quick: bool,
    /// How ExpressRoute is cut.
    #[arg(long, value_enum, default_value_t = Cut::Silent)]
    fault: Cut,
}

#[derive(Debug, Args)]
struct Compare {
    /// How often each contestant has its turn.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100), default_value_t = 3)]
    rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=60), default_value_t = 5)]
    seconds: u8,
    /// Contestants: vng, vng-no-udp-gso, wireguard-go, boringtun, expressroute, expressroute-qinq,
    /// kernel-forwarding, and names given by --peer and --variant. Default: all of them.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    only: Vec<String>,
    /// What is measured. Default: everything.
    #[arg(long, value_enum, value_name = "WHAT,...", value_delimiter = ',')]
    measure: Vec<Measure>,
    /// Another tunnel: a command that makes a WireGuard device called {device}, stays in the foreground and
    /// is configured by `wg setconf`.
    #[arg(long, value_name = "NAME=COMMAND")]
    peer: Vec<Peer>,
    /// How the workers of every vng wait for packets; short for --vng-config control.polling=MODE.
    #[arg(long, value_name = "MODE", value_parser = ["sleep", "adaptive", "spin"])]
    polling: Option<String>,
    /// Setting of every vng beyond the lab's, a key of its configuration file.
    #[arg(long, value_name = "TABLE.KEY=VALUE")]
    vng_config: Vec<Setting>,
    /// vng with settings of its own as one more tunnel.
    #[arg(long, value_name = "NAME=TABLE.KEY=VALUE,...")]
    variant: Vec<Variant>,
    /// The vng to run, in place of the one that is part of this program.
    #[arg(long, value_name = "PATH")]
    vng: Option<PathBuf>,
    /// Print the report as JSON in place of the tables.
    #[arg(long)]
    json: bool,
    /// Write report.json and report.html into this directory.
    #[arg(long, value_name = "DIR", default_value = "compare-report")]
    output: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Measure {
    /// TCP, 1 and 4 flows: rate, and CPU time for a gigabyte.
    Tcp,
    /// CPU time for a packet at 30,000 a second, small and large.
    Fixed,
    /// Packets a second without loss, at twice that, and flooded, small and large.
    Udp,
    /// Round trips, idle and under TCP.
    Rtt,
}

#[derive(Debug, Args)]
struct Shape {
    /// Tags on the gateway's ExpressRoute links.
    #[arg(long, value_enum, default_value_t = Links::Qinq)]
    links: Links,
    /// Time between probes of a path; three lost in a row take it down.
    #[arg(long, value_parser = duration, default_value = "300ms")]
    interval: Duration,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Links {
    /// 802.1ad: outer tag of type 0x88a8.
    Qinq,
    /// Two tags, outer tag of type 0x8100.
    #[value(name = "qinq-8100")]
    Qinq8100,
    /// One 802.1Q tag.
    Dot1q,
    /// No tag.
    Untagged,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Cut {
    /// Both links fall silent while their carrier stays up.
    Silent,
    /// Both links lose their carrier.
    Carrier,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = process::run_as_gateway(&arguments) {
        return code;
    }
    let parsed = Arguments::parse_from(&arguments);
    let keeps = matches!(parsed.command, Commands::Keep(_));
    match dispatch(parsed.command, arguments.get(2..).unwrap_or_default()) {
        Ok(code) => code,
        // Its words are for the one that waits for the lab.
        Err(error) if keeps => {
            let _ = print(&format!("{error}\n"));
            ExitCode::from(error.status())
        }
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(error.status())
        }
    }
}

fn dispatch(command: Commands, rest: &[OsString]) -> Result<ExitCode, Error> {
    match command {
        Commands::Demo(demo) => run_demo(&demo),
        Commands::Compare(compare) => run_compare(compare),
        Commands::Up(_) => {
            interrupt::watch()?;
            let keep = std::iter::once("keep".into()).chain(rest.iter().cloned());
            let (state, left) = standing::up(&keep.collect::<Vec<_>>())?;
            let hosts: Vec<_> = state.hosts.keys().map(String::as_str).collect();
            print(&format!(
                "{}The lab stands: {}.\n  vng-lab exec vnet ping 10.2.0.10\n  \
                 vng-lab exec gateway vng show status\n  vng-lab down\n\
                 Configuration files are in {}.\n",
                removed(&left),
                hosts.join(", "),
                state.directory.display()
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        Commands::Exec { host, command } => Err(standing::exec(&host, &command)),
        Commands::Down => {
            let (stood, left) = standing::down()?;
            let said = if stood {
                "The lab is gone."
            } else {
                "No lab stands."
            };
            print(&format!("{}{said}\n", removed(&left)))?;
            Ok(ExitCode::SUCCESS)
        }
        Commands::Keep(shape) => {
            become_root()?;
            standing::keep(&shape.lab(), &signals()?)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What a lab that is gone had left, a line each.
fn removed(left: &[String]) -> String {
    let line = |what: &String| format!("Removed: {what}.\n");
    left.iter().map(line).collect()
}

fn run_demo(demo: &Demo) -> Result<ExitCode, Error> {
    become_root()?;
    interrupt::watch()?;
    report::prepare(&demo.report)?;
    let lab = demo.shape.lab();
    let options = DemoOptions {
        quick: demo.quick,
        probing: lab.probing,
        links: lab.links,
        fault: Some(match demo.fault {
            Cut::Silent => Fault::Silent,
            Cut::Carrier => Fault::Carrier,
        }),
    };
    let outcome = demo::run(&options);
    let written = demo::write_report(&outcome, &demo.report);
    let text = if demo.json {
        json(&outcome)
    } else {
        demo::summary(&outcome)
    };
    Ok(conclude(
        outcome.ok,
        text,
        (&demo.report, demo.json),
        written,
    ))
}

fn run_compare(asked: Compare) -> Result<ExitCode, Error> {
    let mut settings = asked.vng_config;
    settings.extend(
        asked
            .polling
            .map(|mode| Setting::new("control", "polling", mode)),
    );
    let options = CompareOptions {
        rounds: asked.rounds,
        duration: Duration::from_secs(asked.seconds.into()),
        only: asked.only,
        measure: asked
            .measure
            .into_iter()
            .map(Measure::measurement)
            .collect(),
        peers: asked.peer,
        settings,
        variants: asked.variant,
        vng: asked.vng,
        program: None,
        command: std::env::args_os()
            .skip(1)
            .map(|word| word.to_string_lossy().into_owned())
            .collect(),
    };
    let contestants = options.contestants().map_err(Error::Usage)?;
    become_root()?;
    interrupt::watch()?;
    report::prepare(&asked.output)?;
    let report = compare::run(&options, &contestants);
    let written = compare::write_report(&report, &asked.output);
    let text = if asked.json {
        json(&report)
    } else {
        compare::summary(&report)
    };
    Ok(conclude(
        report.ok,
        text,
        (&asked.output, asked.json),
        written,
    ))
}

fn json(report: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(report);
    text.unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}")) + "\n"
}

/// Prints what was found, whether or not its report could be written, and says what went wrong.
fn conclude(
    ok: bool,
    mut text: String,
    (directory, as_json): (&Path, bool),
    written: Result<(), Error>,
) -> ExitCode {
    if written.is_ok() && !as_json {
        let page = directory.join("report.html");
        // Writing to a string does not fail.
        let _ = writeln!(text, "\nreport: {}", page.display());
    }
    let printed = print(&text);
    let mut ok = ok;
    for error in [interrupt::check(), written, printed]
        .into_iter()
        .filter_map(Result::err)
    {
        complain(&error.to_string());
        ok = false;
    }
    if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

impl Measure {
    fn measurement(self) -> Measurement {
        match self {
            Self::Tcp => Measurement::Tcp,
            Self::Fixed => Measurement::Fixed,
            Self::Udp => Measurement::Udp,
            Self::Rtt => Measurement::Rtt,
        }
    }
}

impl Shape {
    fn lab(&self) -> LabOptions {
        LabOptions {
            links: match self.links {
                Links::Qinq => Tagging::QinQ,
                Links::Qinq8100 => Tagging::QinQ8100,
                Links::Dot1q => Tagging::Dot1q,
                Links::Untagged => Tagging::Untagged,
            },
            probing: Probing {
                interval: self.interval,
                ..Probing::default()
            },
            ..LabOptions::default()
        }
    }
}

/// The lab needs privileges in namespaces only: who is not root becomes root of a user namespace.
fn become_root() -> Result<(), Error> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    enter_user_namespace().map_err(|source| Error::System {
        action: "make a user namespace (run as root, or allow them)".into(),
        source,
    })
}

fn signals() -> Result<Signals, Error> {
    Signals::new().map_err(|source| Error::System {
        action: "take signals".into(),
        source,
    })
}

/// `300ms`, `1s`, `1.5s`.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let seconds = number
        .parse::<f64>()
        .map_err(|_| "expected a time such as 300ms or 1s")?
        * unit;
    if (0.01..=60.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("expected 10ms to 60s".into())
    }
}
