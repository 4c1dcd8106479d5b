//! What a demo found, as `report.json` and `--json` give it. The first fields are the contract that
//! scripts rely on; the rest is for people who want to know more.

use super::wires::Wires;
use crate::report::chart::number;
use crate::traffic::icmp::Hop;
use crate::traffic::numbered::Judgement;
use gateway::telemetry::ledger::Totals;
use serde::Serialize;
use std::collections::BTreeMap;

/// Everything.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// Whether every check held.
    pub ok: bool,
    /// Which kind of path traffic to the site took.
    pub paths: Paths,
    /// When ExpressRoute was cut.
    pub failover: Failover,
    /// When ExpressRoute came back.
    pub failback: Failback,
    /// TCP payload, one connection.
    pub throughput: Rates,
    /// Whether every gateway's ledger balanced.
    pub ledger_balanced: bool,
    /// What was checked, in order.
    pub checks: Vec<Check>,
    /// Why the demo ended early, if it did.
    pub error: Option<String>,
    /// How it was set up.
    pub setup: Setup,
    /// Round trips.
    pub ping: Vec<Ping>,
    /// Routes.
    pub trace: Vec<Trace>,
    /// One-way latency by phase and direction.
    pub latency: Vec<Latency>,
    /// What the lab's own wires did while ExpressRoute carried the numbered packets.
    pub wires: Wires,
    /// Why the VPN is quicker than ExpressRoute in this lab, where it is: from what was measured.
    pub why_vpn_is_quicker: Option<String>,
    /// What the gateways noticed, with times from the fault on.
    pub events: Vec<Event>,
    /// Each gateway's packets.
    pub ledgers: BTreeMap<String, Books>,
    /// Packets dropped outside of the gateways while numbered packets were on their way, by place: queues
    /// of the kernel that were full, wires that did not keep up.
    pub drops_outside: BTreeMap<String, u64>,
    /// What is drawn.
    pub series: Series,
    /// How long the demo took, seconds.
    pub duration_s: f64,
}

/// `expressroute`, `vpn`, or what the gateway said instead.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Paths {
    /// Before the fault.
    pub before: String,
    /// While ExpressRoute was cut.
    pub during: String,
    /// After it came back.
    pub after: String,
}

/// A time for each direction, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ByDirection {
    /// From the virtual network to the site.
    pub vnet_to_onprem: f64,
    /// From the site to the virtual network.
    pub onprem_to_vnet: f64,
}

/// What the fault did to numbered packets.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Failover {
    /// The fault in words.
    pub fault: String,
    /// From the last packet that arrived before to the first after, in the flow hit worst.
    pub outage_ms: ByDirection,
    /// Packets sent in both directions from one second before the fault until the repair.
    pub sent: u64,
    /// Of those, never arrived.
    pub lost: u64,
    /// Of those, arrived more than once.
    pub duplicated: u64,
    /// Of those, arrived behind a later one of their flow.
    pub reordered: u64,
    /// Milliseconds from the fault on; as the gateway in the virtual network lived it.
    pub timeline_ms: Timeline,
    /// The same for the edge on premises, which decides for the other direction.
    pub onprem_timeline_ms: Timeline,
}

/// Milliseconds from the fault on.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Timeline {
    /// The fault itself.
    pub fault: f64,
    /// The last ExpressRoute link was judged down.
    pub detected: f64,
    /// New packets took the tunnel.
    pub switched: f64,
    /// The first packet arrived over the tunnel.
    pub first_packet: f64,
}

/// What the way back did to numbered packets.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Failback {
    /// As in the failover; 0 if nothing was lost.
    pub outage_ms: ByDirection,
    /// Packets sent in both directions from the repair until the end.
    pub sent: u64,
    /// Of those, never arrived.
    pub lost: u64,
    /// Of those, arrived more than once.
    pub duplicated: u64,
    /// Of those, arrived behind a later one of their flow.
    pub reordered: u64,
    /// From the repair until flows took ExpressRoute again, milliseconds; the hold-down is part of it.
    pub returned_after_ms: f64,
    /// The longest time between two arrivals of one flow, lost packets or not.
    pub largest_gap_ms: ByDirection,
}

/// TCP payload, 10^9 bits per second.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Rates {
    /// Virtual network to site over ExpressRoute.
    pub expressroute_gbps: f64,
    /// Virtual network to branch over the VPN.
    pub vpn_gbps: f64,
    /// CPU time of the sending gateway for 10^9 bytes over ExpressRoute, seconds.
    pub expressroute_cpu_s_per_gb: f64,
    /// CPU time of the sending gateway for 10^9 bytes over the VPN, seconds.
    pub vpn_cpu_s_per_gb: f64,
}

/// Something that was checked.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What should hold.
    pub name: String,
    /// Whether it did.
    pub passed: bool,
    /// What was found.
    pub found: String,
}

/// How the demo was set up.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Setup {
    /// Version of this program.
    pub version: String,
    /// Kernel release.
    pub kernel: String,
    /// Processors that all hosts of the lab share.
    pub processors: usize,
    /// Tags on the gateway's ExpressRoute links.
    pub links: String,
    /// Time between probes of a path, milliseconds.
    pub probe_interval_ms: u64,
    /// Probes lost in a row until a path is down.
    pub probe_fail: u32,
    /// Probes answered in a row until a path is up.
    pub probe_pass: u32,
    /// How long ExpressRoute must be up before flows go back, milliseconds.
    pub hold_down_ms: u64,
    /// Numbered packets per second in each direction.
    pub packets_per_second: u32,
    /// Flows in each direction.
    pub flows: u16,
    /// Bytes of UDP payload.
    pub payload: usize,
    /// The gateways' SKU.
    pub sku: String,
}

/// Echo requests and replies.
#[derive(Clone, Debug, Serialize)]
pub struct Ping {
    /// From which host to which, and over what.
    pub name: String,
    /// Address asked.
    pub target: String,
    /// Requests.
    pub sent: u32,
    /// Replies.
    pub received: u32,
    /// Median round trip, microseconds.
    pub median_us: f64,
}

/// A route.
#[derive(Clone, Debug, Serialize)]
pub struct Trace {
    /// From which host to which.
    pub name: String,
    /// Address asked.
    pub target: String,
    /// Hops in order.
    pub hops: Vec<Hop>,
}

/// One-way latency, microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// `before`, `during` or `after`.
    pub phase: String,
    /// Direction.
    pub direction: String,
    /// Path that carried it.
    pub path: String,
    /// Packets.
    pub packets: u64,
    /// Percentile and value.
    pub percentiles_us: Vec<(f64, f64)>,
}

impl Outcome {
    /// Why the VPN's packets are quicker than ExpressRoute's, if they are: only what was measured of both
    /// ways and of the wires.
    pub(super) fn explain_quicker_vpn(&self) -> Option<String> {
        let median = |phase: &str| {
            let of_phase = self.latency.iter().filter(|l| l.phase == phase);
            let all: Vec<f64> = of_phase
                .filter(|l| l.packets > 0)
                .map(|l| l.at(50.0))
                .collect();
            (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
        };
        let (circuit, tunnel) = (median("before")?, median("during")?);
        if tunnel >= circuit {
            return None;
        }
        let mut causes = Vec::new();
        if self.wires.packets > 0 {
            causes.push(format!(
                "each ExpressRoute packet also crosses one of the lab's wires, a thread that stands for the \
                 provider: it was given a processor {} times for {} packets and spent {:.1} µs of it on each",
                number(self.wires.runs as f64),
                number(self.wires.packets as f64),
                self.wires.cpu_us_per_packet
            ));
        }
        let hops = |name: &str| {
            let trace = self.trace.iter().find(|trace| trace.name == name)?;
            let reached = trace.hops.last().is_some_and(|hop| hop.target);
            reached.then_some(trace.hops.len())
        };
        if let (Some(circuit), Some(tunnel)) = (hops("ExpressRoute, IPv4"), hops("VPN, IPv4"))
            && circuit > tunnel
        {
            causes.push(format!("its way has {circuit} hops, the VPN's {tunnel}"));
        }
        if causes.is_empty() {
            causes.push("nothing that was measured says why".into());
        }
        Some(format!(
            "The VPN is quicker here, {tunnel:.0} µs against {circuit:.0} µs in the median: {}. Between two real \
             sites the distance decides, which this lab does not have.",
            causes.join("; ")
        ))
    }
}

impl Latency {
    /// The percentiles that are reported.
    pub const PERCENTILES: [f64; 7] = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 100.0];

    /// Of one phase and direction.
    pub fn of(phase: &str, direction: &str, path: &str, judgement: &Judgement) -> Self {
        let value = |p: f64| judgement.latency.value_at_quantile(p / 100.0) as f64;
        Self {
            phase: phase.into(),
            direction: direction.into(),
            path: path.into(),
            packets: judgement.latency.len(),
            percentiles_us: Self::PERCENTILES.iter().map(|&p| (p, value(p))).collect(),
        }
    }

    /// A percentile, microseconds.
    pub fn at(&self, percentile: f64) -> f64 {
        let found = self
            .percentiles_us
            .iter()
            .find(|(p, _)| (p - percentile).abs() < 1e-9);
        found.map_or(0.0, |(_, value)| *value)
    }
}

/// Something a gateway noticed.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Milliseconds from the fault on.
    pub at_ms: f64,
    /// When packets took another path because of it.
    pub switched_ms: Option<f64>,
    /// Gateway.
    pub gateway: String,
    /// Path.
    pub path: String,
    /// State before.
    pub from: String,
    /// State after.
    pub to: String,
    /// Why.
    pub reason: Option<String>,
}

/// A gateway's ledger.
#[derive(Clone, Debug, Serialize)]
pub struct Books {
    /// What it counted since it started.
    #[serde(flatten)]
    pub totals: Totals,
    /// Received minus sent, dropped and held.
    pub difference: i64,
    /// What the kernel dropped because a socket of the gateway was full; no part of the ledger.
    pub kernel_drops: BTreeMap<String, u64>,
}

/// What is drawn; times are seconds from the fault on.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Series {
    /// Packets per second that the gateway sent, by path.
    pub sent_by_path: BTreeMap<String, Vec<(f64, f64)>>,
    /// Packets per second that arrived, by direction.
    pub delivered: BTreeMap<String, Vec<(f64, f64)>>,
    /// The same in finer bins, from before the fault until after the failover.
    pub delivered_near_fault: BTreeMap<String, Vec<(f64, f64)>>,
    /// Median one-way latency, microseconds, by direction.
    pub latency_us: BTreeMap<String, Vec<(f64, f64)>>,
    /// When ExpressRoute was whole again.
    pub healed_s: f64,
    /// When flows took it again.
    pub returned_s: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(before: f64, during: f64) -> Outcome {
        let latency = |phase: &str, us: f64| Latency {
            phase: phase.into(),
            direction: "vnet_to_onprem".into(),
            path: String::new(),
            packets: 10,
            percentiles_us: vec![(50.0, us)],
        };
        Outcome {
            latency: vec![latency("before", before), latency("during", during)],
            wires: Wires {
                packets: 20_000,
                runs: 15_000,
                cpu_us_per_packet: 4.25,
            },
            ..Outcome::default()
        }
    }

    #[test]
    fn a_vpn_that_is_quicker_is_explained_by_what_was_measured() {
        assert_eq!(outcome(120.0, 180.0).explain_quicker_vpn(), None);
        let said = outcome(180.0, 120.0).explain_quicker_vpn().unwrap();
        for part in ["120 µs against 180 µs", "15,000 times for 20,000 packets"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(!said.contains("hops"), "no route was measured: {said}");
        let unmeasured = Outcome {
            wires: Wires::default(),
            ..outcome(180.0, 120.0)
        };
        let said = unmeasured.explain_quicker_vpn().unwrap();
        assert!(said.contains("nothing that was measured"), "{said}");
        assert_eq!(Outcome::default().explain_quicker_vpn(), None);
    }
}
