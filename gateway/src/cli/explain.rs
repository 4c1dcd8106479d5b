//! `vng explain`: what the gateway would do with a packet, and why.

use super::output::{Style, bandwidth, host, print, print_json, thousands};
use super::{Failure, socket};
use crate::api::Request;
use crate::api::client::Client;
use crate::config::matches::{dscp_name, protocol_name};
use crate::config::schema::Config;
use crate::config::{self, KeyFiles, matches};
use crate::plan::{PathPlan, Plan};
use crate::show::clients::ClientSession;
use crate::show::describe;
use crate::show::health::PathHealth;
use crate::show::view::{Alternative, Explanation, MemberHealth, Query};
use clap::Args;
use routing::health::{Reason, Usability};
use routing::path::PathId;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

const TCP: u8 = 6;
const UDP: u8 = 17;

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// Where the packet comes in: vnet, a circuit, a link (circuit/link), a site, point-to-site or a client
    #[arg(long, value_name = "NAME", default_value = "vnet")]
    from: String,
    /// Source address
    #[arg(long, value_name = "ADDRESS")]
    src: IpAddr,
    /// Destination address
    #[arg(long, value_name = "ADDRESS")]
    dst: IpAddr,
    /// Protocol, by name or number; tcp if a port is given, else icmp
    #[arg(long, value_name = "NAME", value_parser = protocol)]
    protocol: Option<u8>,
    /// Source port
    #[arg(long, value_name = "PORT")]
    sport: Option<u16>,
    /// Destination port
    #[arg(long, value_name = "PORT")]
    dport: Option<u16>,
    /// ICMP type
    #[arg(long, value_name = "TYPE")]
    icmp_type: Option<u8>,
    /// DSCP, by name or number
    #[arg(long, value_name = "DSCP", value_parser = dscp, default_value = "0")]
    dscp: u8,
    /// Explain by this file, offline, instead of asking the running gateway
    #[arg(short, long, value_name = "FILE", conflicts_with = "socket", num_args = 0..=1,
          default_missing_value = crate::config::DEFAULT_FILE)]
    config: Option<PathBuf>,
    /// Offline: take this circuit, link or site for down (may be repeated)
    #[arg(long, value_name = "PATH", requires = "config")]
    down: Vec<String>,
    /// The gateway's control socket [default: $VNG_SOCKET, else /etc/vng/vng.toml's, else /run/vng/vng.sock]
    #[arg(short, long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn protocol(written: &str) -> Result<u8, String> {
    matches::protocol(written)
        .ok_or_else(|| "a protocol is a number from 0 to 255 or a name".into())
}

fn dscp(written: &str) -> Result<u8, String> {
    matches::dscp(written).ok_or_else(|| "a DSCP is a number from 0 to 63 or a name".into())
}

/// Asks the running gateway, or works it out of the file.
pub(super) fn run(arguments: &Explain) -> Result<(), Failure> {
    let query = query(arguments)?;
    let explanation = if let Some(file) = &arguments.config {
        offline(file, &query, &arguments.down)?
    } else {
        let query = query.clone();
        Client::new(&socket(arguments.socket.as_ref(), None)?).view(&Request::Explain { query })?
    };
    if arguments.json {
        return print_json(&explanation);
    }
    print(&text(Style::of_stdout(), &query, &explanation))
}

/// The packet that the options describe.
fn query(arguments: &Explain) -> Result<Query, Failure> {
    if arguments.src.is_ipv4() != arguments.dst.is_ipv4() {
        return Err(Failure::Usage(format!(
            "--src {} and --dst {} are of different IP versions",
            arguments.src, arguments.dst
        )));
    }
    let icmp = if arguments.src.is_ipv4() { 1 } else { 58 };
    let ports = arguments.sport.is_some() || arguments.dport.is_some();
    let protocol = arguments.protocol.unwrap_or(if ports { TCP } else { icmp });
    if ports && protocol != TCP && protocol != UDP {
        return Err(Failure::Usage(format!(
            "--sport and --dport are of tcp and udp; the protocol is {}",
            protocol_name(protocol)
        )));
    }
    if arguments.icmp_type.is_some() && protocol != icmp {
        return Err(Failure::Usage(format!(
            "--icmp-type is of {}; the protocol is {}",
            protocol_name(icmp),
            protocol_name(protocol)
        )));
    }
    Ok(Query {
        from: arguments.from.clone(),
        source: arguments.src,
        destination: arguments.dst,
        protocol,
        source_port: arguments.sport.unwrap_or(0),
        destination_port: arguments.dport.unwrap_or(0),
        icmp_type: arguments.icmp_type,
        dscp: arguments.dscp,
    })
}

/// Every path is taken for up, but those that are named.
fn offline(file: &Path, query: &Query, down: &[String]) -> Result<Explanation, Failure> {
    let config = config::load(file, KeyFiles::Skipped)?.config;
    let plan = offline_plan(&config, down)?;
    let own = |id: PathId| {
        let path = plan.paths.get(usize::from(id.0));
        path.map_or(Usability::None, |path| usability(path, down))
    };
    let effective = plan.snapshot.usability(own);
    let health = |id: PathId| {
        let usability = effective(id);
        // What carries a tunnel may be assumed down, and the tunnel not: then it follows.
        let follows = usability == Usability::None && own(id) != Usability::None;
        let (state, reason) = match usability {
            Usability::None if follows => ("down", Some(Reason::CircuitDown.name())),
            Usability::None => ("assumed down", None),
            Usability::LastResort | Usability::Full => ("assumed up", None),
        };
        Some(PathHealth {
            told: MemberHealth {
                state: state.to_owned(),
                reason: reason.map(str::to_owned),
                since_seconds: None,
            },
            usability: own(id),
        })
    };
    describe::explain(&config, &plan, query, health, |_| ClientSession::Assumed)
        .map_err(|refusal| Failure::Usage(refusal.message))
}

/// The plan of a gateway that does not run, with these circuits, links and sites taken for down.
///
/// # Errors
/// A name that none of them has.
pub(super) fn offline_plan(config: &Config, down: &[String]) -> Result<Plan, Failure> {
    let plan = Plan::new(config, NonZeroU32::MIN, |path| usability(path, down))
        .map_err(|error| Failure::Usage(error.to_string()))?;
    for name in down {
        let of_circuit = |path: &&PathPlan| path.name.starts_with(&format!("{name}/"));
        if plan.path_named(name).is_none() && !plan.paths.iter().any(|path| of_circuit(&path)) {
            let names: Vec<&str> = plan.paths.iter().map(|path| path.name.as_str()).collect();
            return Err(Failure::Usage(format!(
                "--down {name}: no circuit, link or site has this name; there are {}",
                names.join(", ")
            )));
        }
    }
    Ok(plan)
}

/// What flows may do with a path, given the names of what is down.
fn usability(path: &PathPlan, down: &[String]) -> Usability {
    let circuit = path.name.split_once('/').map(|(circuit, _)| circuit);
    let is_down = |down: &String| *down == path.name || Some(down.as_str()) == circuit;
    if down.iter().any(is_down) {
        Usability::None
    } else {
        Usability::Full
    }
}

/// The explanation as a story.
fn text(style: Style, query: &Query, explanation: &Explanation) -> String {
    let mut text = String::new();
    let mut line = |title: &str, said: &str| {
        let _ = writeln!(text, "{} {said}", style.bold(&format!("{title:<9}")));
    };
    line(
        "packet",
        &format!(
            "{} from {} to {}, DSCP {}, comes in from {}",
            protocol_name(query.protocol),
            host(query.source, query.source_port),
            host(query.destination, query.destination_port),
            dscp_name(query.dscp),
            query.from,
        ),
    );
    let out = explanation.member.as_ref().or(explanation.path.as_ref());
    let verdict = match (explanation.verdict.as_str(), out) {
        ("forward", Some(out)) => style.green(&format!("forward to {out}")),
        ("local", _) => style.green("local: the gateway itself takes it"),
        ("drop", _) => style.red(&format!("drop: {}", explanation.reason)),
        (other, _) => other.to_owned(),
    };
    line("verdict", &verdict);
    if let Some(policy) = &explanation.policy {
        line("policy", &format!("rule {policy:?}"));
    }
    if let Some(route) = &explanation.route {
        line("route", &format!("{} ({})", route.prefix, route.source));
    }
    if let Some(path) = &explanation.path {
        let health = explanation.health.as_ref();
        let health = health.map_or_else(String::new, |health| format!(", {}", health.words()));
        line("path", &format!("{path}{health}"));
    }
    for (index, member) in explanation.group.iter().enumerate() {
        let health = member.health.as_ref();
        let health = health.map_or_else(|| "health unknown".to_owned(), MemberHealth::words);
        let title = if index == 0 { "group" } else { "" };
        let said = format!(
            "{}. {}: {}, {health}",
            member.tier, member.path, member.role
        );
        line(title, &said);
    }
    if let Some(dscp) = &explanation.set_dscp {
        line("DSCP", &format!("set to {dscp}"));
    }
    for one in &explanation.shaper {
        let bps = one.limit_bps.map(|bps| bandwidth(bps as f64));
        let pps = one
            .limit_pps
            .map(|pps| format!("{} packets/s", thousands(pps)));
        let rates: Vec<String> = bps.into_iter().chain(pps).collect();
        let rates = rates.join(", ");
        line(
            "shaper",
            &format!("{} {}: {rates}, both directions", one.kind, one.name),
        );
    }
    for one in &explanation.flow_limits {
        let flows = one
            .limit_flows
            .map(|flows| format!("{} flows", thousands(flows)));
        let new = one.limit_new_flows_per_second;
        let new = new.map(|new| format!("{} new flows/s", thousands(new)));
        let limits: Vec<String> = flows.into_iter().chain(new).collect();
        line(
            "flows",
            &format!("{} {}: {}", one.kind, one.name, limits.join(", ")),
        );
    }
    for (index, step) in explanation.story.iter().enumerate() {
        line(if index == 0 { "why" } else { "" }, step);
    }
    for (index, rejected) in explanation.rejected.iter().enumerate() {
        let what = match &rejected.what {
            Alternative::Route(route) => format!("route {route}"),
            Alternative::Path(path) => format!("path {path}"),
        };
        let title = if index == 0 { "rejected" } else { "" };
        line(title, &format!("{what}: {}", rejected.why));
    }
    for (index, other) in explanation.would_change.iter().enumerate() {
        let then = match (other.verdict.as_str(), &other.member, &other.path) {
            ("forward", Some(out), _) | ("forward", None, Some(out)) => out.clone(),
            ("forward", None, None) => other.reason.clone(),
            (verdict, ..) => format!("{verdict}: {}", other.reason),
        };
        let dscp = other.set_dscp.as_ref();
        let dscp = dscp.map_or_else(String::new, |dscp| format!(", DSCP {dscp}"));
        let title = if index == 0 { "otherwise" } else { "" };
        line(title, &format!("if {}: {then}{dscp}", other.change));
    }
    text
}
