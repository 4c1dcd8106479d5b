//! The demo: builds the lab, moves traffic, cuts ExpressRoute, measures, restores, reports, removes all.
//!
//! 1. Lab and gateways come up; ping and traceroute go across, IPv4 and IPv6.
//! 2. TCP in bulk over ExpressRoute, then over the VPN.
//! 3. Numbered packets in both directions; ExpressRoute is cut under them, and made whole again. Which
//!    path is in use is asked from the gateways, what the packets lived through is read from the record.
//! 4. Every gateway's ledger must balance, and every gateway must end cleanly.
//!
//! Whatever fails, what was found until then is reported and the lab is taken down.

mod chart;
mod html;
pub mod outcome;
mod sampler;
mod terminal;

use crate::config::{Probing, Tagging};
use crate::error::Error;
use crate::gateway::{Control, Gateway};
use crate::lab::{BRANCH_HOST, CIRCUIT, Fault, Lab, LabOptions, ONPREM_HOST, VNET_HOST};
use crate::traffic::bulk;
use crate::traffic::numbered::{Judgement, Load, Record, Run};
use gateway::control::api::{Request, What};
use gateway::control::view::Explanation;
use gateway::device::event::Poller;
use gateway::device::signal::Signals;
use outcome::{Books, ByDirection, Check, Event, Latency, Outcome, Ping, Setup, Timeline, Trace};
use sampler::Sampler;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use terminal::Progress;

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
/// Width of the bins that arrivals are counted in.
const BIN: Duration = Duration::from_millis(20);
/// How often a ledger is read until it balances: probes go on while it is read.
const READINGS: u32 = 20;
/// The directions, as in the report.
const DIRECTIONS: [&str; 2] = ["vnet_to_onprem", "onprem_to_vnet"];

/// Runs the demo. `signals`: SIGINT and SIGTERM end it early, cleanly.
pub fn run(options: &DemoOptions, signals: &Signals) -> Outcome {
    let started = Instant::now();
    let mut demo = Demo {
        options,
        signals,
        progress: Progress::new(),
        outcome: Outcome::default(),
    };
    let result = demo.play();
    let mut outcome = demo.outcome;
    outcome.error = result.err().map(|error| error.to_string());
    outcome.ok = outcome.error.is_none() && outcome.checks.iter().all(|check| check.passed);
    outcome.duration_s = started.elapsed().as_secs_f64();
    outcome
}

/// Writes `report.json` and `report.html` into `directory`, which is made if it is not there.
pub fn write_report(outcome: &Outcome, directory: &Path) -> Result<(), Error> {
    let action = || Error::system(format!("write the report into {}", directory.display()));
    fs::create_dir_all(directory).map_err(action())?;
    let json = serde_json::to_string_pretty(outcome)
        .map_err(|error| Error::unexpected("a report", error.to_string()))?;
    fs::write(directory.join("report.json"), json + "\n").map_err(action())?;
    fs::write(directory.join("report.html"), html::page(outcome)).map_err(action())
}

/// The table for people.
pub fn summary(outcome: &Outcome) -> String {
    table(outcome)
}

struct Demo<'a> {
    options: &'a DemoOptions,
    signals: &'a Signals,
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
        self.step("wait for the paths", |demo| {
            let vnet = lab.host("vnet")?;
            for target in [ONPREM_HOST, BRANCH_HOST].into_iter().flatten() {
                if !vnet.reaches(address(target)?, PATIENCE)? {
                    return Err(Error::unexpected(
                        format!("an answer from {target}"),
                        format!("none within {PATIENCE:?}"),
                    ));
                }
            }
            demo.wait_for_path(lab, "expressroute", PATIENCE)?;
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
                self.interrupted()?;
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
            self.interrupted()?;
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
            self.interrupted()?;
            self.progress.begin(&format!("TCP over {name}"));
            let before = cpu_seconds(&lab.gateway);
            let through = bulk::send(vnet, to, address(target)?, duration)?;
            let cpu = cpu_seconds(&lab.gateway) - before;
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
        let sampler = Sampler::start(lab.gateway.control(), run.epoch(), SAMPLE_EVERY)?;
        self.wait(calm)?;
        self.outcome.paths.before = path_of(&lab.gateway.control())?;
        self.progress.end(true, &self.outcome.paths.before);

        self.progress.begin(&format!("cut: {}", fault.describe()));
        let cut = Moment::now(&run);
        lab.fault(fault)?;
        let switched = self.wait_for_path(lab, "vpn", detection);
        self.wait(calm)?;
        self.outcome.paths.during = path_of(&lab.gateway.control())?;
        self.progress
            .end(switched.is_ok(), &self.outcome.paths.during);

        self.progress.begin("restore ExpressRoute");
        let healed = Moment::now(&run);
        lab.heal(fault)?;
        let up_again = hold_down + probing.interval * probing.pass + PATIENCE;
        let returned = self.wait_for_path(lab, "expressroute", up_again);
        self.wait(calm)?;
        self.outcome.paths.after = path_of(&lab.gateway.control())?;
        self.progress
            .end(returned.is_ok(), &self.outcome.paths.after);

        self.progress.begin("judge the record");
        self.outcome.series.sent_by_path = sampler.finish(cut.at as f64 / 1e9);
        let records = run.finish()?;
        for gateway in [&lab.gateway, &lab.edge] {
            let events = events(gateway, cut.unix_ms)?;
            self.outcome.events.extend(events);
        }
        self.outcome
            .events
            .sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
        self.outcome.failover.fault = fault.describe().into();
        self.judge(&records, cut.at, healed.at);
        Ok(())
    }

    /// Fills in what the record says about the fault at `cut` and the repair at `healed`.
    fn judge(&mut self, records: &[Record; 2], cut: u64, healed: u64) {
        const SECOND: u64 = 1_000_000_000;
        let healed_ms = (healed - cut) as f64 / 1e6;
        let out = records
            .each_ref()
            .map(|r| r.judge(cut.saturating_sub(SECOND), healed));
        let back = records.each_ref().map(|r| r.judge(healed, u64::MAX));
        let sum =
            |judged: &[Judgement; 2], pick: fn(&Judgement) -> u64| judged.iter().map(pick).sum();
        let outage = |judged: &[Judgement; 2]| {
            let [there, back] = judged.each_ref().map(|j| j.outage.map_or(0.0, |o| o.ms()));
            ByDirection {
                vnet_to_onprem: there,
                onprem_to_vnet: back,
            }
        };

        let failover = &mut self.outcome.failover;
        failover.outage_ms = outage(&out);
        failover.sent = sum(&out, |j| j.sent);
        failover.lost = sum(&out, |j| j.lost);
        failover.duplicated = sum(&out, |j| j.duplicated);
        failover.reordered = sum(&out, |j| j.reordered);
        let first = out.each_ref().map(|j| {
            j.outage
                .map_or(0.0, |o| (o.until as f64 - cut as f64) / 1e6)
        });
        let events = &self.outcome.events;
        failover.timeline_ms = timeline(events, "gateway", healed_ms, first[0]);
        failover.onprem_timeline_ms = timeline(events, "onprem-edge", healed_ms, first[1]);

        let failback = &mut self.outcome.failback;
        let returned_ms = returned(events, healed_ms);
        failback.outage_ms = outage(&back);
        failback.sent = sum(&back, |j| j.sent);
        failback.lost = sum(&back, |j| j.lost);
        failback.duplicated = sum(&back, |j| j.duplicated);
        failback.reordered = sum(&back, |j| j.reordered);
        failback.returned_after_ms = returned_ms - healed_ms;
        failback.largest_gap_ms = ByDirection {
            vnet_to_onprem: back[0].largest_gap_ms,
            onprem_to_vnet: back[1].largest_gap_ms,
        };

        // Each phase without what happens at its edges.
        let margin = SECOND / 20;
        let resumed = out
            .iter()
            .filter_map(|j| j.outage)
            .map(|o| o.until)
            .max()
            .unwrap_or(cut);
        let returned_at = cut + (returned_ms * 1e6) as u64;
        for (phase, path, from, until) in [
            ("before", "expressroute", SECOND / 2, cut),
            ("during", "vpn", resumed + margin, healed),
            ("after", "expressroute", returned_at + margin, u64::MAX),
        ] {
            for (record, direction) in records.iter().zip(DIRECTIONS) {
                let judged = record.judge(from, until);
                self.outcome
                    .latency
                    .push(Latency::of(phase, direction, path, &judged));
            }
        }
        self.draw(records, cut, healed_ms, returned_ms);
        self.check_failover();
    }

    fn draw(&mut self, records: &[Record; 2], cut: u64, healed_ms: f64, returned_ms: f64) {
        let series = &mut self.outcome.series;
        series.healed_s = healed_ms / 1e3;
        series.returned_s = returned_ms / 1e3;
        for (record, direction) in records.iter().zip(DIRECTIONS) {
            let (width, zero) = (BIN.as_secs_f64(), cut as f64 / 1e9);
            let mut bins = record.bins(BIN);
            // The last bin is not full.
            bins.pop();
            let middle = |index: usize| (index as f64 + 0.5) * width - zero;
            let rates = bins
                .iter()
                .enumerate()
                .map(|(i, &n)| (middle(i), f64::from(n) / width));
            series.delivered.insert(direction.into(), rates.collect());
            series
                .latency_us
                .insert(direction.into(), medians(record, zero));
        }
    }

    fn check_failover(&mut self) {
        let paths = self.outcome.paths.clone();
        let sequence = [&paths.before, &paths.during, &paths.after];
        let expected = sequence == ["expressroute", "vpn", "expressroute"];
        let found = format!("{} → {} → {}", paths.before, paths.during, paths.after);
        self.check(
            "traffic goes over to the VPN and comes back",
            expected,
            found,
        );
        let (failover, failback) = (self.outcome.failover.clone(), self.outcome.failback.clone());
        let outage = failover.outage_ms;
        let worst = outage.vnet_to_onprem.max(outage.onprem_to_vnet);
        let found = format!(
            "{worst:.0} ms of outage, {} of {} lost",
            failover.lost, failover.sent
        );
        let arrived = self.outcome.latency.iter().all(|l| l.packets > 0);
        self.check(
            "packets arrive before, during and after the fault",
            arrived,
            found,
        );
        let doubled = failover.duplicated + failback.duplicated;
        self.check(
            "no packet arrives twice",
            doubled == 0,
            format!("{doubled} did"),
        );
        let found = format!("{} of {} lost", failback.lost, failback.sent);
        self.check("the way back loses nothing", failback.lost == 0, found);
    }

    fn ledgers(&mut self, lab: &Lab) -> Result<(), Error> {
        self.progress.begin("balance the ledgers");
        for gateway in lab.gateways() {
            let mut totals = gateway.counters()?;
            for _ in 1..READINGS {
                if totals.imbalance() == 0 {
                    break;
                }
                self.wait(Duration::from_millis(20))?;
                totals = gateway.counters()?;
            }
            let difference = totals.imbalance();
            self.outcome
                .ledgers
                .insert(gateway.host().name().into(), Books { totals, difference });
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
            format!("{all} packets received by three gateways, every one accounted for")
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
        self.interrupted()?;
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

    /// Waits until both ends send to each other over this kind of path.
    fn wait_for_path(&self, lab: &Lab, kind: &str, patience: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + patience;
        loop {
            let near = path_of(&lab.gateway.control())?;
            let far = path_to_vnet(&lab.edge.control())?;
            if near == kind && far == kind {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let found = format!("{near} and {far} after {patience:?}");
                return Err(Error::unexpected(format!("both ends to use {kind}"), found));
            }
            self.wait(ASK_EVERY)?;
        }
    }

    /// Waits, unless the user wants to stop.
    fn wait(&self, duration: Duration) -> Result<(), Error> {
        let action = || Error::system("wait for signals");
        let mut poller = Poller::new().map_err(action())?;
        poller.add(self.signals, 0).map_err(action())?;
        let deadline = Instant::now() + duration;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            poller.wait(Some(left)).map_err(action())?.for_each(drop);
            self.interrupted()?;
            if left.is_zero() {
                return Ok(());
            }
        }
    }

    fn interrupted(&self) -> Result<(), Error> {
        self.signals
            .read()
            .map_or(Ok(()), |_| Err(Error::Interrupted))
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
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Setup {
        version: env!("CARGO_PKG_VERSION").into(),
        kernel: kernel.trim().into(),
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

/// The kind of path that the gateway sends to the site over: `expressroute`, `vpn`, or what it said.
fn path_of(control: &Control) -> Result<String, Error> {
    Ok(kind(&control.explain(
        address(VNET_HOST[0])?,
        address(ONPREM_HOST[0])?,
    )?))
}

/// The same for the edge on premises, towards the virtual network.
fn path_to_vnet(control: &Control) -> Result<String, Error> {
    Ok(kind(&control.explain(
        address(ONPREM_HOST[0])?,
        address(VNET_HOST[0])?,
    )?))
}

fn kind(explained: &Explanation) -> String {
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

/// What a gateway noticed (`events` of `vng show status --json`), with times from the fault on; what was
/// long before it left out.
fn events(gateway: &Gateway, fault_unix_ms: f64) -> Result<Vec<Event>, Error> {
    let status: Value = gateway
        .control()
        .ask(&Request::Show { what: What::Status })?;
    let list = status.get("events").and_then(Value::as_array);
    let read = |event: &Value| {
        let text = |key: &str| event.get(key).and_then(Value::as_str).map(str::to_owned);
        let after = |key: &str| {
            event
                .get(key)
                .and_then(Value::as_f64)
                .map(|ms| ms - fault_unix_ms)
        };
        Some(Event {
            at_ms: after("detected_unix_ms")?,
            switched_ms: after("switched_unix_ms"),
            gateway: gateway.host().name().into(),
            path: text("path")?,
            from: text("from")?,
            to: text("to")?,
            reason: text("reason"),
        })
    };
    let events = list.into_iter().flatten().filter_map(read);
    Ok(events.filter(|event| event.at_ms >= 0.0).collect())
}

/// A gateway's failover: its last ExpressRoute link that went down before the repair.
fn timeline(events: &[Event], gateway: &str, healed_ms: f64, first_packet: f64) -> Timeline {
    let down = events.iter().rfind(|event| {
        event.gateway == gateway
            && kind_of_path(&event.path) == "expressroute"
            && event.to == "down"
            && event.at_ms <= healed_ms
    });
    let detected = down.map_or(0.0, |event| event.at_ms);
    let switched = down.and_then(|event| event.switched_ms).unwrap_or(detected);
    Timeline {
        fault: 0.0,
        detected,
        switched,
        first_packet,
    }
}

/// When the gateway's flows took ExpressRoute again: its first link that came up after the repair.
fn returned(events: &[Event], healed_ms: f64) -> f64 {
    let up = events.iter().find(|event| {
        event.path.starts_with(CIRCUIT) && event.to == "up" && event.at_ms > healed_ms
    });
    up.map_or(healed_ms, |event| event.switched_ms.unwrap_or(event.at_ms))
}

/// Median one-way latency of what arrived in each bin; seconds from `zero` on, microseconds.
fn medians(record: &Record, zero: f64) -> Vec<(f64, f64)> {
    let width = BIN.as_nanos() as u64;
    let mut bins: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for arrival in &record.arrivals {
        let latency = arrival.at.saturating_sub(arrival.sent);
        bins.entry(arrival.at / width).or_default().push(latency);
    }
    let median = |(bin, mut latencies): (u64, Vec<u64>)| {
        latencies.sort_unstable();
        let middle = latencies.get(latencies.len() / 2).copied().unwrap_or(0);
        (
            (bin as f64 + 0.5) * BIN.as_secs_f64() - zero,
            middle as f64 / 1e3,
        )
    };
    bins.into_iter().map(median).collect()
}

/// CPU time that a gateway has used, seconds: user and system time in `/proc/PID/stat`, whose program
/// name may contain anything and ends with the last parenthesis.
fn cpu_seconds(gateway: &Gateway) -> f64 {
    let read = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", gateway.pid()?)).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
        let user: u64 = fields.next()?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        Some((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64)
    };
    read().unwrap_or(0.0)
}

fn address(text: &str) -> Result<IpAddr, Error> {
    text.parse()
        .map_err(|_| Error::unexpected("an address", text))
}
