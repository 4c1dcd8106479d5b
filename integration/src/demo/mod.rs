//! The demo: builds the lab, moves traffic, cuts ExpressRoute, measures, restores, reports, removes all.
//!
//! 1. Lab and gateways come up; ping and traceroute go across, IPv4 and IPv6.
//! 2. TCP in bulk over ExpressRoute, then over the VPN.
//! 3. Numbered packets in both directions; ExpressRoute is cut under them, and made whole again. Which
//!    path is in use is asked from the gateways, what the packets lived through is read from the record.
//! 4. Every gateway's ledger must balance, and every gateway must end cleanly.
//!
//! Whatever fails, what was found until then is reported and the lab is taken down.

mod html;
mod judge;
pub mod outcome;
mod picture;
mod sampler;
mod terminal;
pub mod wires;

use crate::config::{Probing, Tagging};
use crate::error::Error;
use crate::host::parse as address;
use crate::interrupt;
use crate::lab::{BRANCH_HOST, Fault, Lab, LabOptions, ONPREM_HOST, VNET_HOST};
use crate::process::cpu_seconds;
use crate::report;
use crate::report::chart::number;
use crate::report::terminal::Progress;
use crate::traffic::bulk;
use crate::traffic::numbered::{Load, Run};
use gateway::show::view::Explanation;
use outcome::{Books, Check, Outcome, Ping, Setup, Trace};
use sampler::Sampler;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wires::Counts;

pub(crate) use terminal::table;

/// What the demo does.
#[derive(Clone, Debug, Default)]
pub struct DemoOptions {
    /// Shorter measurements.
    pub quick: bool,
    /// How paths are watched.
    pub probing: Probing,
    /// Tags on the gateway's ExpressRoute links.
    pub links: Tagging,
    /// How ExpressRoute is cut.
    pub fault: Option<Fault>,
}

/// How long a path may take to come up when everything is whole.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often the gateways are asked which path they use, while it is about to change.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How often counters are read.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// How often a ledger is read until it balances: probes go on while it is read.
const READINGS: u32 = 20;

/// Runs the demo. Who wants to stop ([`interrupt`]) ends it early, cleanly.
pub fn run(options: &DemoOptions) -> Outcome {
    let started = Instant::now();
    let mut demo = Demo {
        options,
        progress: Progress::new(),
        outcome: Outcome::default(),
    };
    let result = demo.play();
    // What the lab's programs fail by once they have been ended is no news.
    let result = interrupt::check().and(result);
    if let Err(error) = &result {
        demo.progress.end(false, &error.to_string());
    }
    let mut outcome = demo.outcome;
    outcome.error = result.err().map(|error| error.to_string());
    outcome.ok = outcome.error.is_none() && outcome.checks.iter().all(|check| check.passed);
    outcome.duration_s = started.elapsed().as_secs_f64();
    outcome
}

/// Writes `report.json` and `report.html` into `directory`, which is made if it is not there.
///
/// # Errors
/// [`Error::System`] where `directory` cannot be made or one of the two files not written,
/// [`Error::Unexpected`] where the outcome cannot be put into JSON: the command has printed its table by then,
/// and ends with status 1.
pub fn write_report(outcome: &Outcome, directory: &Path) -> Result<(), Error> {
    report::write(outcome, &html::page(outcome), directory)
}

/// The table for people.
pub fn summary(outcome: &Outcome) -> String {
    table(outcome)
}

struct Demo<'a> {
    options: &'a DemoOptions,
    progress: Progress,
    outcome: Outcome,
}

impl Demo<'_> {
    fn play(&mut self) -> Result<(), Error> {
        let lab_options = LabOptions {
            links: self.options.links,
            probing: self.options.probing,
            ..LabOptions::default()
        };
        let load = Load::default();
        self.outcome.setup = setup(&lab_options, load);
        let mut lab = self.step("build the lab", |_| {
            Ok((Lab::new(&lab_options)?, String::new()))
        })?;
        self.step("start three gateways", |_| {
            lab.start()?;
            Ok(((), "ready".into()))
        })?;
        let result = self.measure(&lab, load, lab_options.hold_down);
        self.progress.begin("stop the gateways and remove the lab");
        let stopped = lab.stop();
        interrupt::check()?;
        let found = stopped
            .as_ref()
            .map_or_else(ToString::to_string, |()| "all ended cleanly".into());
        self.check("every gateway ends cleanly", stopped.is_ok(), found);
        result
    }

    fn measure(&mut self, lab: &Lab, load: Load, hold_down: Duration) -> Result<(), Error> {
        self.reach(lab)?;
        self.ping(lab)?;
        self.trace(lab)?;
        self.bulk(lab)?;
        self.fail_over_and_back(lab, load, hold_down)?;
        self.ledgers(lab)
    }

    /// Waits until everything that should reach each other does, and ExpressRoute is in use.
    fn reach(&mut self, lab: &Lab) -> Result<(), Error> {
        self.step("wait for the paths", |_| {
            let vnet = lab.host("vnet")?;
            for target in [ONPREM_HOST, BRANCH_HOST].into_iter().flatten() {
                if !vnet.reaches(address(target)?, PATIENCE)? {
                    return Err(Error::unexpected(
                        format!("an answer from {target}"),
                        format!("none within {PATIENCE:?}"),
                    ));
                }
            }
            wait_for_path(lab, "expressroute", PATIENCE)?;
            Ok(((), "ExpressRoute and VPN are up".into()))
        })
    }

    fn ping(&mut self, lab: &Lab) -> Result<(), Error> {
        self.progress.begin("ping");
        let vnet = lab.host("vnet")?;
        let count = if self.options.quick { 10 } else { 50 };
        let mut found = Vec::new();
        for (name, targets) in [("ExpressRoute", ONPREM_HOST), ("VPN", BRANCH_HOST)] {
            for (version, target) in ["IPv4", "IPv6"].into_iter().zip(targets) {
                interrupt::check()?;
                let echoes = vnet.ping(address(target)?, count, 56, Duration::from_secs(1))?;
                let median_us = echoes.median_us().unwrap_or(0.0);
                if version == "IPv4" {
                    found.push(format!("{median_us:.0} µs over {name}"));
                }
                self.outcome.ping.push(Ping {
                    name: format!("{name}, {version}"),
                    target: target.into(),
                    sent: echoes.sent,
                    received: echoes.received,
                    median_us,
                });
            }
        }
        let all = self
            .outcome
            .ping
            .iter()
            .all(|ping| ping.received == ping.sent);
        self.check(
            "every ping is answered, IPv4 and IPv6",
            all,
            found.join(", "),
        );
        Ok(())
    }

    fn trace(&mut self, lab: &Lab) -> Result<(), Error> {
        self.progress.begin("traceroute");
        let vnet = lab.host("vnet")?;
        for (name, target) in [
            ("ExpressRoute, IPv4", ONPREM_HOST[0]),
            ("ExpressRoute, IPv6", ONPREM_HOST[1]),
            ("VPN, IPv4", BRANCH_HOST[0]),
        ] {
            interrupt::check()?;
            let hops = vnet.trace(address(target)?, Duration::from_millis(300))?;
            self.outcome.trace.push(Trace {
                name: name.into(),
                target: target.into(),
                hops,
            });
        }
        let reached = |trace: &Trace| trace.hops.last().is_some_and(|hop| hop.target);
        let all = self.outcome.trace.iter().all(reached);
        let hops: Vec<_> = self
            .outcome
            .trace
            .iter()
            .map(|t| t.hops.len().to_string())
            .collect();
        self.check(
            "every route ends at its target",
            all,
            format!("{} hops", hops.join(", ")),
        );
        Ok(())
    }

    fn bulk(&mut self, lab: &Lab) -> Result<(), Error> {
        let duration = Duration::from_millis(if self.options.quick { 1_000 } else { 3_000 });
        let (vnet, onprem, branch) = (lab.host("vnet")?, lab.host("onprem")?, lab.host("branch")?);
        for (name, to, target) in [
            ("ExpressRoute", onprem, ONPREM_HOST[0]),
            ("VPN", branch, BRANCH_HOST[0]),
        ] {
            interrupt::check()?;
            self.progress.begin(&format!("TCP over {name}"));
            let pid = lab.gateway.pid();
            let before = cpu_seconds(pid);
            let through = bulk::send(vnet, to, address(target)?, duration)?;
            let cpu = cpu_seconds(pid) - before;
            let (gbps, per_gb) = (through.gbps(), cpu / (through.bytes as f64 / 1e9));
            let rates = &mut self.outcome.throughput;
            if name == "VPN" {
                (rates.vpn_gbps, rates.vpn_cpu_s_per_gb) = (gbps, per_gb);
            } else {
                (rates.expressroute_gbps, rates.expressroute_cpu_s_per_gb) = (gbps, per_gb);
            }
            let found = format!("{gbps:.2} Gbps, {per_gb:.2} CPU-s/GB in the sending gateway");
            self.check(&format!("TCP goes through over {name}"), gbps > 0.0, found);
        }
        Ok(())
    }

    fn fail_over_and_back(
        &mut self,
        lab: &Lab,
        load: Load,
        hold_down: Duration,
    ) -> Result<(), Error> {
        let fault = self.options.fault.unwrap_or(Fault::Silent);
        let calm = Duration::from_millis(if self.options.quick { 1_500 } else { 3_000 });
        let ends = (address(VNET_HOST[0])?, address(ONPREM_HOST[0])?);
        let probing = self.options.probing;
        let detection = probing.interval * probing.fail + PATIENCE;

        self.progress.begin("numbered packets over ExpressRoute");
        let run = Run::start(
            (lab.host("vnet")?, ends.0),
            (lab.host("onprem")?, ends.1),
            load,
        )?;
        let dropped_before = lab.drops()?;
        let wires = Counts::now(lab);
        let sampler = Sampler::start(lab.gateway.control(), run.epoch(), SAMPLE_EVERY)?;
        interrupt::wait(calm)?;
        self.outcome.wires = Counts::now(lab).since(wires);
        self.outcome.paths.before = path_of(&lab.ways()?[0]);
        self.progress.end(true, &self.outcome.paths.before);

        self.progress.begin(&format!("cut: {}", fault.describe()));
        let cut = Moment::now(&run);
        lab.fault(fault)?;
        let switched = wait_for_path(lab, "vpn", detection);
        interrupt::wait(calm)?;
        self.outcome.paths.during = path_of(&lab.ways()?[0]);
        self.progress
            .end(switched.is_ok(), &self.outcome.paths.during);

        self.progress.begin("restore ExpressRoute");
        let healed = Moment::now(&run);
        lab.heal(fault)?;
        let up_again = hold_down + probing.interval * probing.pass + PATIENCE;
        let returned = wait_for_path(lab, "expressroute", up_again);
        interrupt::wait(calm)?;
        self.outcome.paths.after = path_of(&lab.ways()?[0]);
        self.progress
            .end(returned.is_ok(), &self.outcome.paths.after);

        self.progress.begin("judge the record");
        self.outcome.series.sent_by_path = sampler.finish(cut.at as f64 / 1e9);
        let records = run.finish()?;
        self.outcome.drops_outside = lab.drops()?;
        for (place, before) in dropped_before {
            self.outcome
                .drops_outside
                .entry(place)
                .and_modify(|packets| *packets -= before);
        }
        self.outcome.drops_outside.retain(|_, packets| *packets > 0);
        for gateway in [&lab.gateway, &lab.edge] {
            let events = judge::events(gateway, cut.unix_ms)?;
            self.outcome.events.extend(events);
        }
        self.outcome
            .events
            .sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
        self.outcome.failover.fault = fault.describe().into();
        self.judge(&records, cut.at, healed.at);
        Ok(())
    }

    fn ledgers(&mut self, lab: &Lab) -> Result<(), Error> {
        self.progress.begin("balance the ledgers");
        for gateway in lab.gateways() {
            let mut counters = gateway.counters()?;
            for _ in 1..READINGS {
                if counters.balanced {
                    break;
                }
                interrupt::wait(Duration::from_millis(20))?;
                counters = gateway.counters()?;
            }
            let books = Books {
                difference: counters.totals.imbalance(),
                totals: counters.totals,
                kernel_drops: counters.kernel_drops,
            };
            self.outcome
                .ledgers
                .insert(gateway.host().name().into(), books);
        }
        let books = &self.outcome.ledgers;
        let balanced = books.values().all(|books| books.difference == 0);
        let packets = |books: &Books| {
            books
                .totals
                .received
                .values()
                .map(|sum| sum.packets)
                .sum::<u64>()
        };
        let all: u64 = books.values().map(packets).sum();
        let found = if balanced {
            format!(
                "{} packets received by three gateways, every one accounted for",
                number(all as f64)
            )
        } else {
            let off = books.iter().filter(|(_, books)| books.difference != 0);
            off.map(|(name, books)| format!("{name} is off by {}", books.difference))
                .collect::<Vec<_>>()
                .join(", ")
        };
        self.outcome.ledger_balanced = balanced;
        self.check(
            "received = sent + dropped + held at every gateway",
            balanced,
            found,
        );
        Ok(())
    }

    /// Runs one step with its line of progress.
    fn step<T>(
        &mut self,
        name: &str,
        work: impl FnOnce(&mut Self) -> Result<(T, String), Error>,
    ) -> Result<T, Error> {
        interrupt::check()?;
        self.progress.begin(name);
        let result = work(self);
        match &result {
            Ok((_, found)) => self.progress.end(true, found),
            Err(error) => self.progress.end(false, &error.to_string()),
        }
        result.map(|(value, _)| value)
    }

    /// Notes a check, and ends the line of progress.
    fn check(&mut self, name: &str, passed: bool, found: String) {
        self.progress.end(passed, &found);
        self.outcome.checks.push(Check {
            name: name.into(),
            passed,
            found,
        });
    }
}

/// Waits until both ends send to each other over this kind of path.
fn wait_for_path(lab: &Lab, kind: &str, patience: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + patience;
    loop {
        let [near, far] = lab.ways()?.map(|explained| path_of(&explained));
        if near == kind && far == kind {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let found = format!("{near} and {far} after {patience:?}");
            return Err(Error::unexpected(format!("both ends to use {kind}"), found));
        }
        interrupt::wait(ASK_EVERY)?;
    }
}

/// A moment on both clocks: the record's, and the one that the gateways put under their events.
struct Moment {
    at: u64,
    unix_ms: f64,
}

impl Moment {
    fn now(run: &Run) -> Self {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            at: run.now(),
            unix_ms: unix.as_secs_f64() * 1e3,
        }
    }
}

fn setup(lab: &LabOptions, load: Load) -> Setup {
    Setup {
        version: env!("CARGO_PKG_VERSION").into(),
        kernel: report::kernel(),
        processors: std::thread::available_parallelism().map_or(0, usize::from),
        links: lab.links.tags().to_string(),
        probe_interval_ms: lab.probing.interval.as_millis() as u64,
        probe_fail: lab.probing.fail,
        probe_pass: lab.probing.pass,
        hold_down_ms: lab.hold_down.as_millis() as u64,
        packets_per_second: load.rate,
        flows: load.flows,
        payload: load.payload,
        sku: lab.sku.clone(),
    }
}

/// The kind of path that a gateway sends over: `expressroute`, `vpn`, or what it said.
fn path_of(explained: &Explanation) -> String {
    match (
        explained.verdict.as_str(),
        explained.member.as_ref().or(explained.path.as_ref()),
    ) {
        ("forward", Some(name)) => kind_of_path(name).into(),
        (verdict, _) => format!("{verdict} ({})", explained.reason),
    }
}

/// The lab names its circuits `er-...`.
fn kind_of_path(name: &str) -> &'static str {
    if name.starts_with("er-") {
        "expressroute"
    } else {
        "vpn"
    }
}
