//! What the gateways use of their SKUs' limits: `used / limit` for `vng show status` and `vng show flows`, and the
//! event when a limit of flows is met.

use crate::config::schema::Config;
use crate::pipeline::flow::{Flow, FlowLimits, Usage};
use crate::plan::Plan;
use crate::show::view::{FlowCount, FlowView, Flows, GatewayStatus, LimitUse, Status};
use crate::worker::handle::WorkerHandle;
use routing::path::{PathId, PathKind};
use routing::reason::DropReason;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often at most the same limit is an event.
const EVENT_PAUSE: Duration = Duration::from_mins(1);
/// How long workers may take to show their flows.
const PATIENCE: Duration = Duration::from_millis(250);

const KINDS: [PathKind; 2] = [PathKind::ExpressRoute, PathKind::Vpn];

fn name(kind: PathKind) -> &'static str {
    match kind {
        PathKind::ExpressRoute => "ExpressRoute",
        PathKind::Vpn => "Vpn",
    }
}

/// A limit that refused flows since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Met {
    /// The gateway.
    pub(crate) gateway: &'static str,
    /// Which of its limits.
    pub(crate) reason: DropReason,
}

/// One gateway's flows over time.
#[derive(Clone, Copy, Debug, Default)]
struct Gauge {
    before: Usage,
    new_per_second: f64,
    told: [Option<Instant>; 2],
}

/// Looks at the counts of flows once a second.
#[derive(Debug, Default)]
pub(crate) struct Meter([Gauge; 2]);

impl Meter {
    /// Works out rates over the `seconds` since the last look; gives the limits that were met, each once a
    /// minute at most.
    pub(crate) fn sample(
        &mut self,
        limits: Option<&FlowLimits>,
        seconds: f64,
        now: Instant,
    ) -> Vec<Met> {
        let mut met = Vec::new();
        for (gauge, kind) in self.0.iter_mut().zip(KINDS) {
            let usage = limits.map(|limits| limits.usage(kind)).unwrap_or_default();
            let before = std::mem::replace(&mut gauge.before, usage);
            gauge.new_per_second = usage.opened.saturating_sub(before.opened) as f64 / seconds;
            let refused = [
                (
                    before.refused_flows,
                    usage.refused_flows,
                    DropReason::GatewayFlows,
                ),
                (
                    before.refused_rate,
                    usage.refused_rate,
                    DropReason::GatewayFlowRate,
                ),
            ];
            for ((before, after, reason), told) in refused.into_iter().zip(&mut gauge.told) {
                let pauses = told.is_some_and(|at| now < at + EVENT_PAUSE);
                if after > before && !pauses {
                    *told = Some(now);
                    let gateway = name(kind);
                    met.push(Met { gateway, reason });
                }
            }
        }
        met
    }

    fn of(&self, kind: PathKind) -> &Gauge {
        let [expressroute, vpn] = &self.0;
        match kind {
            PathKind::ExpressRoute => expressroute,
            PathKind::Vpn => vpn,
        }
    }
}

/// Writes what is used of every limit into a status whose rates are there.
pub(crate) fn fill(
    status: &mut Status,
    config: &Config,
    limits: Option<&FlowLimits>,
    meter: &Meter,
) {
    for gateway in &mut status.gateways {
        let kind = KINDS.into_iter().find(|&kind| name(kind) == gateway.kind);
        let Some(kind) = kind else { continue };
        let flows = limits.map(|limits| limits.usage(kind)).unwrap_or_default();
        gateway.active_flows = flows.flows;
        let new = meter.of(kind).new_per_second;
        match kind {
            PathKind::ExpressRoute => expressroute(gateway, config, flows.flows, new),
            PathKind::Vpn => vpn(gateway, config, flows.flows, new),
        }
    }
}

fn used(name: &str, used: u64, limit: Option<u64>) -> LimitUse {
    LimitUse {
        name: name.to_owned(),
        used,
        limit,
    }
}

fn bits(status: &GatewayStatus) -> u64 {
    (status.bits_in_per_second + status.bits_out_per_second) as u64
}

fn expressroute(status: &mut GatewayStatus, config: &Config, flows: u64, new: f64) {
    let Some(gateway) = &config.expressroute else {
        return;
    };
    let Some(sku) = gateway.limits() else { return };
    let circuits = gateway.circuits.len() as u64;
    // What is configured stands for what a peer would announce.
    let learned = gateway
        .circuits
        .iter()
        .map(|circuit| circuit.prefixes.len() as u64);
    let packets = status.packets_per_second as u64;
    gateway.edition.name().clone_into(&mut status.edition);
    status.limit_flows = sku.flows;
    status.limits = vec![
        used("BitsPerSecond", bits(status), sku.bits_per_second),
        used("PacketsPerSecond", packets, sku.packets_per_second),
        used("ActiveFlows", flows, sku.flows),
        used("MaxFlowsCreationRate", new as u64, sku.flows_per_second),
        used(
            "CountOfRoutesLearnedFromPeer",
            learned.sum(),
            sku.routes_learned.map(u64::from),
        ),
        used(
            "CountOfRoutesAdvertisedToPeer",
            0,
            sku.routes_advertised.map(u64::from),
        ),
        used("Circuits", circuits, sku.circuits.map(u64::from)),
    ];
}

fn vpn(status: &mut GatewayStatus, config: &Config, flows: u64, new: f64) {
    let Some(gateway) = &config.vpn else { return };
    let Ok(sku) = gateway.limits() else { return };
    let clients = gateway
        .point_to_site
        .as_ref()
        .map_or(0, |p| p.clients.len());
    let packets = status.packets_per_second as u64;
    gateway.edition.name().clone_into(&mut status.edition);
    status.generation = (sku.generation > 0).then_some(sku.generation);
    status.limit_flows = sku.flows;
    status.limits = vec![
        used("BitsPerSecond", bits(status), sku.bits_per_second),
        used("PacketsPerSecond", packets, None),
        used("ActiveFlows", flows, sku.flows),
        used("MaxFlowsCreationRate", new as u64, None),
        used("CountOfRoutesLearnedFromPeer", 0, sku.routes.map(u64::from)),
        used(
            "Tunnels",
            gateway.sites.len() as u64,
            sku.tunnels.map(u64::from),
        ),
        used("Clients", clients as u64, sku.clients.map(u64::from)),
    ];
}

/// The flow table: counts, and the newest flows of all workers.
pub(crate) fn flows(
    workers: &[WorkerHandle],
    plan: &Plan,
    limits: Option<&FlowLimits>,
    meter: &Meter,
) -> Flows {
    let Some(limits) = limits else {
        return Flows::default();
    };
    let gateways: Vec<FlowCount> = KINDS
        .into_iter()
        .filter(|&kind| plan.paths.iter().any(|path| path.kind == kind))
        .map(|kind| {
            let (usage, held) = (limits.usage(kind), limits.limits(kind));
            FlowCount {
                kind: name(kind).to_owned(),
                active: usage.flows,
                limit: held.flows,
                new_per_second: meter.of(kind).new_per_second,
                limit_new_per_second: held.flows_per_second,
                opened: usage.opened,
                refused: usage.refused_flows + usage.refused_rate,
            }
        })
        .collect();
    let mut newest = ask(workers);
    newest.sort_by_key(|flow| flow.age);
    let place = |path: Option<PathId>| {
        let path = path.map(|path| plan.paths.get(usize::from(path.0)));
        path.map_or_else(
            || "vnet".to_owned(),
            |path| path.map_or_else(|| "gone".to_owned(), |path| path.name.clone()),
        )
    };
    let view = |flow: &Flow| FlowView {
        protocol: match flow.key.protocol {
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            number => number.to_string(),
        },
        source: flow.key.source_address(),
        source_port: flow.key.source_port,
        destination: flow.key.destination_address(),
        destination_port: flow.key.destination_port,
        from: place(flow.from),
        path: place(flow.to),
        idle_seconds: Some(flow.idle.as_secs_f64()),
        age_seconds: Some(flow.age.as_secs_f64()),
    };
    Flows {
        active: gateways.iter().map(|gateway| gateway.active).sum(),
        limit: gateways.iter().map(|gateway| gateway.limit).sum(),
        gateways,
        flows: newest.iter().map(view).collect(),
    }
}

/// The newest flows of every worker; one that does not answer in time is left out.
fn ask(workers: &[WorkerHandle]) -> Vec<Flow> {
    let questions: Vec<u64> = workers
        .iter()
        .map(|worker| {
            let question = worker.shared.newest_flows.ask();
            worker.host.bell.ring();
            question
        })
        .collect();
    let until = Instant::now() + PATIENCE;
    let mut flows = Vec::new();
    for (worker, question) in workers.iter().zip(questions) {
        let answer = loop {
            let answer: Option<Arc<Vec<Flow>>> = worker.shared.newest_flows.answer(question);
            if answer.is_some() || Instant::now() >= until {
                break answer;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        flows.extend(answer.iter().flat_map(|flows| flows.iter()));
    }
    flows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, KeyFiles};
    use crate::plan::limit;

    #[test]
    fn every_limit_of_a_sku_is_shown_with_what_is_used() {
        let text = include_str!("../../../docs/examples/coexist.toml").to_owned();
        let none = std::path::Path::new("");
        let config = config::parse(none, text, none, KeyFiles::Skipped)
            .unwrap()
            .config;
        let gateway = |kind: &str| GatewayStatus {
            kind: kind.to_owned(),
            bits_in_per_second: 1e6,
            bits_out_per_second: 2e6,
            packets_per_second: 300.0,
            ..GatewayStatus::default()
        };
        let mut status = Status {
            gateways: vec![gateway("ExpressRoute"), gateway("Vpn")],
            ..Status::default()
        };
        let limits = limit::flows(&config, None);
        fill(&mut status, &config, limits.as_deref(), &Meter::default());
        let shown = |gateway: &GatewayStatus| -> Vec<String> {
            let limits = gateway.limits.iter();
            limits
                .map(|l| match l.limit {
                    Some(limit) => format!("{} {} / {limit}", l.name, l.used),
                    None => format!("{} {}", l.name, l.used),
                })
                .collect()
        };
        let [expressroute, vpn] = &status.gateways[..] else {
            panic!("two gateways");
        };
        assert_eq!(
            shown(expressroute),
            [
                "BitsPerSecond 3000000 / 1000000000",
                "PacketsPerSecond 300 / 100000",
                "ActiveFlows 0 / 200000",
                "MaxFlowsCreationRate 0 / 7000",
                "CountOfRoutesLearnedFromPeer 2 / 4000",
                "CountOfRoutesAdvertisedToPeer 0 / 1000",
                "Circuits 1 / 4",
            ]
        );
        assert_eq!(
            shown(vpn),
            [
                "BitsPerSecond 3000000 / 1000000000",
                "PacketsPerSecond 300",
                "ActiveFlows 0 / 500000",
                "MaxFlowsCreationRate 0",
                "CountOfRoutesLearnedFromPeer 0 / 4000",
                "Tunnels 1 / 30",
                "Clients 1 / 500",
            ]
        );
        assert_eq!((vpn.generation, &*vpn.edition), (Some(1), "current"));
    }

    #[test]
    fn a_limit_that_is_met_is_told_once_a_minute() {
        let text = include_str!("../../../docs/examples/coexist.toml").to_owned();
        let none = std::path::Path::new("");
        let config = config::parse(none, text, none, KeyFiles::Skipped)
            .unwrap()
            .config;
        let limits = limit::flows(&config, None).unwrap();
        let (mut meter, start) = (Meter::default(), Instant::now());
        let mut look = |after: u64| {
            limits.refuse_for_tests(PathKind::ExpressRoute);
            meter.sample(Some(&limits), 1.0, start + Duration::from_secs(after))
        };
        let met = Met {
            gateway: "ExpressRoute",
            reason: DropReason::GatewayFlows,
        };
        assert_eq!(look(0), [met]);
        assert_eq!(look(1), []);
        assert_eq!(look(59), []);
        assert_eq!(look(60), [met]);
    }
}
