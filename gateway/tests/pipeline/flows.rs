//! The pipeline in memory, driven with more flows than a SKU has, by a clock that the test moves.

use crate::packets::{ACK, FIN, SYN, TCP, UDP, fold, slow_sum};
use gateway::config::{self, KeyFiles};
use gateway::device::offload::Offload;
use gateway::pipeline::flow::{EPOCH, FlowLimits, FlowTable, GatewayFlows, IDLE};
use gateway::pipeline::fragment::FragmentPolicy;
use gateway::pipeline::process::{Forwarding, Outcome, Side, process_counted};
use gateway::plan::Plan;
use gateway::sku::{self, Edition};
use routing::cache::FlowCache;
use routing::health::Usability;
use routing::path::{Ingress, PathId, PathKind};
use routing::reason::DropReason;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Its protocol number.
const ICMP: u8 = 1;

/// A worker's pipeline without devices.
struct Gateway {
    forwarding: Forwarding,
    cache: FlowCache,
    flows: FlowTable,
    limits: Arc<FlowLimits>,
    now: Instant,
}

impl Gateway {
    fn new(expressroute: &str) -> Self {
        let text = include_str!("../../../docs/examples/coexist.toml").to_owned();
        let loaded = config::parse(Path::new("f"), text, Path::new(""), KeyFiles::Skipped);
        let config = loaded.unwrap().config;
        let plan = Plan::new(&config, NonZeroU32::MIN, |_| Usability::Full).unwrap();
        let sku = sku::expressroute(Edition::Current, expressroute).unwrap();
        let expressroute = GatewayFlows {
            flows: sku.flows,
            flows_per_second: sku.flows_per_second,
        };
        let limits =
            FlowLimits::new(expressroute, GatewayFlows::default(), Instant::now(), None).unwrap();
        let side = || Side {
            mtu: 1_500.into(),
            fragments: FragmentPolicy::Drop,
            v4: None,
            v6: None,
        };
        let now = Instant::now() + Duration::from_secs(1);
        Self {
            forwarding: Forwarding {
                snapshot: Arc::clone(&plan.snapshot),
                vnet: side(),
                paths: plan.paths.iter().map(|_| side()).collect(),
                carried: Box::default(),
                hits: gateway::telemetry::hits::Hits::default(),
                limits: None,
                flows: Some(Arc::clone(&limits)),
            },
            // Fewer than there are flows: those that it forgets are looked up again.
            cache: FlowCache::new(4_096, 3),
            flows: FlowTable::new(now, Arc::clone(&limits), 3, false),
            limits,
            now,
        }
    }

    /// One packet of a flow; what it was dropped for.
    fn packet(&mut self, ingress: Ingress, mut packet: Vec<u8>) -> Option<DropReason> {
        let known = (&mut self.cache, Some(&mut self.flows));
        let plain = Offload::default();
        match process_counted(&self.forwarding, known, ingress, &mut packet, &plain) {
            Outcome::Drop { reason, .. } => Some(reason),
            Outcome::Forward { .. } | Outcome::Fragment { .. } => None,
        }
    }

    fn out(&mut self, flow: u32, protocol: u8, flags: u8) -> Option<DropReason> {
        self.packet(Ingress::Vnet, packet(flow, protocol, flags, false))
    }

    fn back(&mut self, flow: u32, protocol: u8, flags: u8) -> Option<DropReason> {
        let link = Ingress::Path(PathId(0));
        self.packet(link, packet(flow, protocol, flags, true))
    }

    /// Rounds as a worker's, a tenth of a second apart.
    fn pass(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / 100 {
            self.now += Duration::from_millis(100);
            if self.flows.begin(self.now, &self.limits) {
                self.cache.forget();
            }
            self.flows.sweep();
        }
    }

    fn active(&self) -> u64 {
        self.limits.usage(PathKind::ExpressRoute).flows
    }
}

/// A packet of this flow between 10.1.x.x and 10.2.0.9, or of its answers.
fn packet(flow: u32, protocol: u8, flags: u8, answer: bool) -> Vec<u8> {
    let here = (0x0A01_0000 + (flow >> 12)).to_be_bytes();
    let there = [10, 2, 0, 9];
    let port = (20_000 + (flow & 0xFFF) as u16).to_be_bytes();
    let ((from, from_port), (to, to_port)) = if answer {
        ((there, [1, 187]), (here, port))
    } else {
        ((here, port), (there, [1, 187]))
    };
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    packet.extend([from, to].concat());
    let sum = !fold(slow_sum(&packet));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend([from_port, to_port].concat());
    if protocol == TCP {
        packet.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    } else {
        packet.extend([0, 20]);
        packet.extend([0; 14]);
    }
    packet
}

#[test]
fn a_standard_gateway_has_200_000_flows_and_the_next_finds_no_room() {
    let mut gateway = Gateway::new("Standard");
    let mut next = 0;
    // 7,000 a second: after 29 s there are as many as there may be.
    while next < 200_000 {
        match gateway.out(next, UDP, 0) {
            None => next += 1,
            Some(reason) => {
                assert_eq!(reason, DropReason::GatewayFlowRate);
                gateway.pass(Duration::from_millis(100));
            }
        }
    }
    assert_eq!(gateway.active(), 200_000);
    gateway.pass(Duration::from_secs(1));
    for flow in 200_000..200_100 {
        assert_eq!(gateway.out(flow, UDP, 0), Some(DropReason::GatewayFlows));
        assert_eq!(gateway.back(flow, UDP, 0), Some(DropReason::GatewayFlows));
    }
    // Every one that is there goes on, in both directions, and counts once.
    for flow in 0..200_000 {
        assert_eq!(gateway.out(flow, UDP, 0), None, "{flow}");
        assert_eq!(gateway.back(flow, UDP, 0), None, "{flow}");
    }
    assert_eq!(gateway.active(), 200_000);
    // One in two stays alive; the others make room.
    for _ in 0..5 {
        gateway.pass(Duration::from_mins(1));
        for flow in (0..200_000).step_by(2) {
            assert_eq!(gateway.out(flow, UDP, 0), None);
        }
    }
    assert_eq!(gateway.active(), 100_000);
    assert_eq!(gateway.out(200_000, UDP, 0), None);
}

#[test]
fn connections_that_end_are_no_flows_for_long() {
    let mut gateway = Gateway::new("Standard");
    // 6,000 connections a second for a minute are 360,000: more than there may be at a time.
    for flow in 0..360_000 {
        assert_eq!(gateway.out(flow, TCP, SYN), None, "{flow}");
        assert_eq!(gateway.back(flow, TCP, SYN | ACK), None);
        assert_eq!(gateway.out(flow, TCP, FIN | ACK), None);
        assert_eq!(gateway.back(flow, TCP, FIN | ACK), None);
        if flow % 600 == 599 {
            gateway.pass(Duration::from_millis(100));
        }
    }
    assert!(gateway.active() < 200_000, "{}", gateway.active());
    let usage = gateway.limits.usage(PathKind::ExpressRoute);
    assert_eq!(
        (usage.opened, usage.refused_flows, usage.refused_rate),
        (360_000, 0, 0)
    );
}

#[test]
fn a_pair_of_pings_and_the_gateways_own_packets_are_no_flows() {
    let mut gateway = Gateway::new("Standard");
    for flow in 0..10_000 {
        assert_eq!(gateway.out(flow, ICMP, 0), None);
        let own = packet(flow, UDP, 0, false);
        assert_eq!(gateway.packet(Ingress::Local, own), None);
    }
    assert_eq!(gateway.active(), 0);
}

#[test]
fn a_flow_that_is_remembered_is_not_looked_up() {
    let mut gateway = Gateway::new("Standard");
    assert_eq!(gateway.out(1, UDP, 0), None);
    for _ in 0..1_000 {
        assert_eq!(gateway.out(1, UDP, 0), None);
    }
    assert_eq!(gateway.cache.hits_and_misses(), (1_000, 1));
    // Once an epoch it is, and so it does not grow old.
    let mut misses = 1;
    for _ in 0..IDLE.as_secs() {
        gateway.pass(EPOCH);
        assert_eq!(gateway.out(1, UDP, 0), None);
        assert_eq!(gateway.out(1, UDP, 0), None);
        misses += 1;
        assert_eq!(gateway.cache.hits_and_misses().1, misses);
        assert_eq!(gateway.active(), 1);
    }
}
