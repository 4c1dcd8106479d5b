//! Every tier of Azure's tables, within two percent.

use super::{Sample, Worker, limits};
use gateway::pipeline::process::Egress;
use gateway::pipeline::shape::{BURST, Rates};
use gateway::sku::{self, Edition};
use gateway::telemetry::ledger::Sum;
use routing::path::{Ingress, PathId};
use std::time::{Duration, Instant};

/// Cheap numbers that look random.
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

/// What is offered, to whom.
struct Load<'a> {
    gateway: Rates,
    tunnel: Rates,
    tunnels: usize,
    packet: &'a Sample,
    /// How the load is divided among the workers.
    weights: &'a [u64],
    /// The rate that should come of it, bits/s.
    expected: f64,
    seed: u64,
}

/// How far a worker's round may come late, nanoseconds.
const LATE: u64 = 120_000;
const MEASURED: Duration = Duration::from_millis(60);

/// Offers 1.5 times the expected rate for a while, and gives the rate that got through, over the expected
/// one. Asserts that it was never more than rate and burst, and that the books balance.
fn run(load: &Load<'_>) -> f64 {
    let workers = load.weights.len();
    let limits = limits(workers, load.gateway, load.tunnel, load.tunnels);
    let begin = Instant::now() + Duration::from_secs(1);
    let mut all: Vec<Worker> = (0..workers).map(|_| Worker::new(begin, &limits)).collect();
    let mut noise = Noise(load.seed);
    let bits = load.packet.tally.bytes as f64 * 8.0;
    let weight = load.weights.iter().sum::<u64>() as f64;
    // When each worker wakes for its own next packet, and how far apart those are, nanoseconds.
    let gaps: Vec<f64> = load
        .weights
        .iter()
        .map(|&of| bits * 1e9 / (load.expected * 1.5 * of as f64 / weight))
        .collect();
    let mut next: Vec<f64> = gaps
        .iter()
        .map(|gap| noise.below(1 + *gap as u64) as f64)
        .collect();
    let mut wake: Vec<u64> = next.iter().map(|&at| at as u64).collect();
    let mut turns = vec![0_usize; workers];

    let mut level = Levels::new(load);
    // The burst of the beginning is no part of the rate.
    let (warm, end) = (BURST * 2, BURST * 2 + MEASURED);
    let mut through = 0_u64;
    while let Some((worker, &at)) = wake.iter().enumerate().min_by_key(|(_, at)| **at)
        && at < end.as_nanos() as u64
    {
        let now = begin + Duration::from_nanos(at);
        let mut count = |tally: Sum| {
            level.add(at, tally, workers);
            if at >= warm.as_nanos() as u64 {
                through += tally.bytes * 8;
            }
        };
        let one = &mut all[worker];
        assert!(!one.shaper.begin(now, Some(&limits)));
        while next[worker] <= at as f64 {
            next[worker] += gaps[worker];
            turns[worker] += 1;
            let path = PathId((turns[worker] / 2 % load.tunnels) as u16);
            let (ingress, to) = if turns[worker].is_multiple_of(2) {
                (Ingress::Vnet, Egress::Path(path))
            } else {
                (Ingress::Path(path), Egress::Vnet)
            };
            if one.offer(ingress, to, load.packet) {
                count(load.packet.tally);
            }
        }
        one.drain(|release| count(release.tally));
        assert_eq!(one.totals().imbalance(), 0);
        let due = one.shaper.deadline().map_or(u64::MAX, |due| {
            due.saturating_duration_since(begin).as_nanos() as u64
        });
        wake[worker] = due.min(next[worker] as u64).max(at) + 1 + noise.below(LATE);
    }
    through as f64 / MEASURED.as_secs_f64() / load.expected
}

/// What would be in buckets that leak at the limits' rates.
struct Levels {
    at: u64,
    bits: f64,
    packets: f64,
    rates: [f64; 2],
    largest: Sum,
}

impl Levels {
    fn new(load: &Load<'_>) -> Self {
        let rate = |of: fn(Rates) -> Option<u64>| {
            let tunnels =
                of(load.tunnel).map_or(f64::MAX, |rate| (rate * load.tunnels as u64) as f64);
            of(load.gateway).map_or(tunnels, |rate| tunnels.min(rate as f64))
        };
        Self {
            at: 0,
            bits: 0.0,
            packets: 0.0,
            rates: [rate(|r| r.bits_per_second), rate(|r| r.packets_per_second)],
            largest: Sum {
                packets: 1,
                bytes: load.packet.tally.bytes.min(1_500),
            },
        }
    }

    fn add(&mut self, at: u64, tally: Sum, workers: usize) {
        let seconds = (at - self.at) as f64 / 1e9;
        self.at = at;
        let [bits, packets] = self.rates;
        self.bits = (self.bits - bits * seconds).max(0.0) + tally.bytes as f64 * 8.0;
        self.packets = (self.packets - packets * seconds).max(0.0) + tally.packets as f64;
        let burst = BURST.as_secs_f64();
        let more = (workers as u64 * self.largest.bytes * 8) as f64;
        assert!(
            self.bits <= bits * burst + more,
            "{} bits at {at}",
            self.bits
        );
        let more = workers as f64;
        assert!(
            self.packets <= packets * burst + more,
            "{} packets at {at}",
            self.packets
        );
    }
}

/// The rate that limits of both kinds leave for packets of this size, bits/s.
fn expected(rates: Rates, packet: &Sample) -> f64 {
    let each = packet.tally.bytes as f64 * 8.0 / packet.tally.packets as f64;
    let bits = rates.bits_per_second.map_or(f64::MAX, |bits| bits as f64);
    let packets = rates
        .packets_per_second
        .map_or(f64::MAX, |n| n as f64 * each);
    bits.min(packets)
}

/// Workers of equal load, of unequal load, and one that is all but idle beside busy ones.
const DIVISIONS: [&[u64]; 5] = [&[1], &[1, 1], &[5, 1], &[3, 2, 1], &[40, 40, 40, 1]];

fn samples() -> [Sample; 4] {
    [
        Sample::plain(64),
        Sample::plain(1_250),
        Sample::plain(1_400),
        Sample::super_packet(),
    ]
}

/// Runs one tier at every size and division; each must be within 2 % of its rate.
fn tier(name: &str, gateway: Rates, tunnel: Rates, tunnels: usize) {
    for packet in &samples() {
        let of_tunnels = expected(tunnel, packet) * tunnels as f64;
        let expected = expected(gateway, packet).min(of_tunnels);
        for (seed, weights) in DIVISIONS.iter().enumerate() {
            let share = run(&Load {
                gateway,
                tunnel,
                tunnels,
                packet,
                weights,
                expected,
                seed: seed as u64,
            });
            let len = packet.bytes.len();
            let mbps = expected / 1e6;
            println!(
                "{name}, {len} B, {weights:?}: {:.2} % of {mbps:.0} Mbps",
                share * 100.0
            );
            assert!(
                (0.98..=1.02).contains(&share),
                "{name}, {len} B, {weights:?}: {share}"
            );
        }
    }
}

#[test]
fn every_expressroute_tier_is_met_within_two_percent() {
    let scale = (1..=10).map(|units| format!("ErGwScale:{units}"));
    let names = ["Standard", "HighPerformance", "UltraPerformance"].map(str::to_owned);
    for name in names.into_iter().chain(scale) {
        let sku = sku::expressroute(Edition::Current, &name).unwrap();
        let gateway = Rates {
            bits_per_second: sku.bits_per_second,
            packets_per_second: sku.packets_per_second,
        };
        tier(&name, gateway, Rates::default(), 2);
    }
}

fn vpn_tiers() -> Vec<(String, Rates, Rates)> {
    let mut tiers = Vec::new();
    for name in ["Basic", "VpnGw1", "VpnGw2", "VpnGw3", "VpnGw4", "VpnGw5"] {
        for generation in sku::vpn_generations(Edition::Current, name) {
            let sku = sku::vpn(Edition::Current, name, generation).unwrap();
            let gateway = Rates {
                bits_per_second: sku.bits_per_second,
                packets_per_second: None,
            };
            let tunnel = Rates {
                bits_per_second: sku.tunnel_bits_per_second,
                packets_per_second: sku.tunnel_packets_per_second,
            };
            tiers.push((format!("{name} {generation}"), gateway, tunnel));
        }
    }
    tiers
}

#[test]
fn every_tunnel_tier_is_met_within_two_percent() {
    for (name, gateway, tunnel) in vpn_tiers() {
        tier(&format!("{name}, one tunnel"), gateway, tunnel, 1);
    }
}

#[test]
fn every_vpn_tier_is_met_within_two_percent_by_all_its_tunnels() {
    for (name, gateway, tunnel) in vpn_tiers() {
        tier(&format!("{name}, 6 tunnels"), gateway, tunnel, 6);
    }
}
