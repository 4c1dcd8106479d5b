//! The shaper over a clock that the tests turn: what gets through at every tier of Azure's tables, by one
//! worker and by several that share the limits, and what becomes of the packets that wait.

use crate::packets::{Spec, any_header, noise, parse};
use crate::split::by_segments;
use gateway::device::offload::Offload;
use gateway::pipeline::process::Egress;
use gateway::pipeline::shape::{BURST, Limit, Limits, QUEUE, Rates, Release, Scope, Shaper};
use gateway::sku::{self, Edition};
use gateway::telemetry::ledger::{Ledger, Port, Sum, Totals};
use proptest::prelude::*;
use routing::packet::Headers;
use routing::path::{Ingress, PathId};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A packet to send, with what it is on the wire.
#[derive(Clone)]
struct Sample {
    bytes: Vec<u8>,
    headers: Headers,
    offload: Offload,
    tally: Sum,
}

impl Sample {
    fn new(bytes: Vec<u8>, offload: Offload) -> Self {
        let headers = parse(&bytes);
        let header = usize::from(headers.payload);
        let packets = offload.segments(bytes.len() - header);
        let tally = Sum {
            packets,
            bytes: bytes.len() as u64 + (packets - 1) * header as u64,
        };
        Self {
            bytes,
            headers,
            offload,
            tally,
        }
    }

    /// A UDP packet of so many bytes.
    fn plain(len: usize) -> Self {
        Self::new(Spec::udp(len - 28).build(), Offload::default())
    }

    /// 64 KB of TCP in segments of 1,368 bytes.
    fn super_packet() -> Self {
        let (bytes, offload) = Spec::tcp(64_000).build_partial(1_368);
        Self::new(bytes, offload)
    }
}

fn limit(name: &str, scope: Scope, rates: Rates) -> Limit {
    Limit {
        name: name.into(),
        scope,
        rates,
    }
}

fn rates(mbps: u64, packets: Option<u64>) -> Rates {
    Rates {
        bits_per_second: Some(mbps * 1_000_000),
        packets_per_second: packets,
    }
}

/// One gateway with a path for each tunnel, or one path if tunnels have no limit of their own.
fn limits(workers: usize, gateway: Rates, tunnel: Rates, tunnels: usize) -> Arc<Limits> {
    let mut all = vec![limit("gateway", Scope::Gateway, gateway)];
    let mut paths = Vec::new();
    for index in 0..tunnels {
        paths.push(vec![0, all.len()]);
        all.push(limit(&format!("tunnel {index}"), Scope::Tunnel, tunnel));
    }
    Limits::new(workers, &all, &paths, Instant::now(), None).unwrap()
}

/// A worker as far as the shaper sees it.
struct Worker {
    shaper: Shaper,
    ledger: Ledger,
}

impl Worker {
    fn new(now: Instant, limits: &Arc<Limits>) -> Self {
        Self {
            shaper: Shaper::new(now, Arc::clone(limits)),
            ledger: Ledger::new(3),
        }
    }

    /// One packet; true if it went at once.
    fn offer(&mut self, ingress: Ingress, to: Egress, packet: &Sample) -> bool {
        let Sum { packets, bytes } = packet.tally;
        self.ledger.received(Port::VNET, packets, bytes);
        let Some(lane) = self.shaper.admit(ingress, to, packet.tally) else {
            self.ledger.sent(Port::LOCAL, packets, bytes);
            return true;
        };
        let what = (Some(&packet.headers), &packet.offload, packet.tally);
        let pieces = std::iter::once(&packet.bytes[..]);
        self.shaper.wait(lane, to, pieces, what, &self.ledger);
        false
    }

    fn drain(&mut self, mut sent: impl FnMut(&Release<'_>)) {
        let ledger = &self.ledger;
        self.shaper.drain(ledger, |release| {
            ledger.sent(Port::LOCAL, release.tally.packets, release.tally.bytes);
            sent(&release);
        });
    }

    fn totals(&self) -> Totals {
        let names = ["vnet", "local", "underlay"].map(str::to_owned);
        Totals::of([&self.ledger], &names)
    }
}

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

/// A worker that has stopped sending holds nothing that another could use.
#[test]
fn the_rate_of_an_idle_worker_is_the_others() {
    let packet = Sample::plain(1_250);
    let limits = limits(4, rates(1_000, None), Rates::default(), 1);
    let begin = Instant::now() + Duration::from_secs(1);
    let mut workers: Vec<Worker> = (0..4).map(|_| Worker::new(begin, &limits)).collect();
    let (ingress, to) = (Ingress::Vnet, Egress::Path(PathId(0)));
    for worker in &mut workers {
        worker.shaper.begin(begin, Some(&limits));
        assert!(worker.offer(ingress, to, &packet));
        worker.drain(|_| {});
    }
    // What is left of the burst at the same moment: all but a share for each, and the four packets.
    let mut sent = 4;
    while workers[0].offer(ingress, to, &packet) {
        sent += 1;
    }
    let burst = 500_000;
    let shares = 4 * 25_000;
    assert_eq!(sent, (burst - shares) / 1_250);
}

/// What a small packet of the other direction needs does not wait behind a full queue.
#[test]
fn a_flood_one_way_leaves_room_for_the_other() {
    let (flood, small) = (Sample::super_packet(), Sample::plain(64));
    let limits = limits(1, rates(100, None), Rates::default(), 1);
    let begin = Instant::now() + Duration::from_secs(1);
    let mut worker = Worker::new(begin, &limits);
    let path = PathId(0);
    let mut replies = 0;
    for step in 0..200 {
        let now = begin + Duration::from_millis(step);
        worker.shaper.begin(now, Some(&limits));
        for _ in 0..4 {
            worker.offer(Ingress::Vnet, Egress::Path(path), &flood);
        }
        if worker.offer(Ingress::Path(path), Egress::Vnet, &small) {
            replies += 1;
        }
        worker.drain(|release| replies += u64::from(release.to == Egress::Vnet));
    }
    // Each waits for one turn of the flood at most: 131 KB, 10 ms of 100 Mbps.
    assert!(replies >= 180, "{replies} of 200");
    let totals = worker.totals();
    assert!(totals.dropped["gateway_bandwidth"].packets > 0);
    assert_eq!(totals.imbalance(), 0);
}

/// What the gateway itself sends and takes keeps the paths alive: it is never held up.
#[test]
fn what_is_the_gateways_own_is_not_shaped() {
    let packet = Sample::super_packet();
    let limits = limits(1, rates(100, Some(1_000)), Rates::default(), 1);
    let begin = Instant::now() + Duration::from_secs(1);
    let mut worker = Worker::new(begin, &limits);
    worker.shaper.begin(begin, Some(&limits));
    for _ in 0..1_000 {
        assert!(worker.offer(Ingress::Local, Egress::Path(PathId(0)), &packet));
        assert!(worker.offer(Ingress::Path(PathId(0)), Egress::Local, &packet));
    }
}

#[test]
fn drops_say_which_limit_was_short() {
    let small = Sample::plain(64);
    let large = Sample::plain(1_400);
    let none = Rates::default();
    let cases = [
        (rates(100, None), none, &large, "gateway_bandwidth"),
        (
            rates(10_000, Some(1_000)),
            none,
            &small,
            "gateway_packet_rate",
        ),
        (
            rates(10_000, None),
            rates(100, None),
            &large,
            "tunnel_bandwidth",
        ),
        (
            rates(10_000, None),
            rates(1_000, Some(1_000)),
            &small,
            "tunnel_packet_rate",
        ),
    ];
    for (gateway, tunnel, packet, reason) in cases {
        let limits = limits(1, gateway, tunnel, 1);
        let begin = Instant::now() + Duration::from_secs(1);
        let mut worker = Worker::new(begin, &limits);
        worker.shaper.begin(begin, Some(&limits));
        for _ in 0..2_000 {
            worker.offer(Ingress::Vnet, Egress::Path(PathId(0)), packet);
        }
        worker.drain(|_| {});
        let dropped = worker.totals().dropped;
        assert_eq!(dropped.keys().collect::<Vec<_>>(), [reason]);
    }
}

/// Other rates for the same paths: what waits stays, in order, and none of it is lost.
#[test]
fn a_change_of_sku_loses_nothing_that_waits() {
    let packet = Sample::super_packet();
    let of = |mbps, old: Option<&Arc<Limits>>| {
        let gateway = limit("gateway", Scope::Gateway, rates(mbps, None));
        Limits::new(1, &[gateway], &[vec![0]], Instant::now(), old)
    };
    let slow = of(100, None).unwrap();
    let fast = of(10_000, Some(&slow)).unwrap();
    let begin = Instant::now() + Duration::from_secs(1);
    let mut worker = Worker::new(begin, &slow);
    worker.shaper.begin(begin, Some(&slow));
    let mut sent = 0;
    for _ in 0..3 {
        let went = worker.offer(Ingress::Vnet, Egress::Path(PathId(0)), &packet);
        sent += u64::from(went) * packet.tally.packets;
    }
    worker.drain(|release| sent += release.tally.packets);
    let before = worker.totals();
    assert!(before.held > 0);

    assert!(!worker.shaper.begin(begin, Some(&fast)));
    assert_eq!(worker.totals().held, before.held);
    worker
        .shaper
        .begin(begin + Duration::from_millis(1), Some(&fast));
    worker.drain(|release| sent += release.tally.packets);
    let after = worker.totals();
    assert_eq!((after.held, after.imbalance()), (0, 0));
    assert_eq!(after.dropped, before.dropped);

    // Without limits what waits is let out at once.
    worker
        .shaper
        .begin(begin + Duration::from_millis(1), Some(&slow));
    for _ in 0..30 {
        worker.offer(Ingress::Vnet, Egress::Path(PathId(0)), &packet);
    }
    let held = worker.totals().held;
    assert!(held > 0);
    assert!(worker.shaper.begin(begin + Duration::from_millis(1), None));
    let mut released = 0;
    let ledger = &worker.ledger;
    worker.shaper.release(ledger, |release| {
        ledger.sent(Port::LOCAL, release.tally.packets, release.tally.bytes);
        released += release.tally.packets;
    });
    assert_eq!(released, held);
    assert_eq!((worker.totals().held, worker.totals().imbalance()), (0, 0));
}

/// How long the last packet of a full queue waits, at any tier: the time that is documented.
#[test]
fn nothing_waits_longer_than_a_queue_of_its_rate() {
    let packet = Sample::plain(1_250);
    let limits = limits(1, rates(1_000, Some(100_000)), Rates::default(), 1);
    let begin = Instant::now() + Duration::from_secs(1);
    let mut worker = Worker::new(begin, &limits);
    worker.shaper.begin(begin, Some(&limits));
    for _ in 0..10_000 {
        worker.offer(Ingress::Vnet, Egress::Path(PathId(0)), &packet);
    }
    let mut now = begin;
    loop {
        worker.shaper.begin(now, Some(&limits));
        worker.drain(|_| {});
        let Some(next) = worker.shaper.deadline() else {
            break;
        };
        assert!(next > now || worker.totals().held > 0);
        now = next;
    }
    assert_eq!(worker.totals().held, 0);
    assert!(
        now - begin <= QUEUE + Duration::from_millis(1),
        "{:?}",
        now - begin
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Super-packets of several flows through a limit: each flow's segments come out in order, byte by
    /// byte those that a sender without offload would have built, but for marks, and for those that were dropped.
    #[test]
    fn what_is_cut_is_byte_equal_and_in_order(
        headers in prop::collection::vec(any_header(0xff), 1..4),
        payloads in prop::collection::vec((0_usize..4, 1_usize..60_000), 1..12),
        size in 100_u16..9_000,
        mbps in prop::sample::select(vec![100_u64, 650, 1_000]),
        pause in 10_u64..400,
    ) {
        let limits = limits(1, rates(mbps, Some(50_000)), Rates::default(), 1);
        let begin = Instant::now() + Duration::from_secs(1);
        let mut worker = Worker::new(begin, &limits);
        let mut expected: Vec<Vec<Vec<u8>>> = vec![Vec::new(); headers.len()];
        let mut found = expected.clone();
        let (ingress, to) = (Ingress::Vnet, Egress::Path(PathId(0)));
        let flow_of = |packet: &[u8]| usize::from(parse(packet).key.source_port);
        let mut now = begin;
        let mut payloads = payloads.into_iter();
        loop {
            worker.shaper.begin(now, Some(&limits));
            let arrival = payloads.next();
            let ended = arrival.is_none();
            if let Some((flow, len)) = arrival {
                let flow = flow % headers.len();
                let spec = Spec {
                    source_port: flow as u16,
                    payload: noise(len.min(usize::from(size) * 100)),
                    ..headers[flow].clone()
                };
                let (bytes, offload) = spec.build_partial(size);
                expected[flow].extend(by_segments(&bytes, &offload));
                let sample = Sample::new(bytes, offload);
                if worker.offer(ingress, to, &sample) {
                    found[flow].extend(by_segments(&sample.bytes, &sample.offload));
                }
            }
            worker.drain(|release| {
                assert_eq!(parse(release.bytes), release.headers);
                let segments = by_segments(release.bytes, &release.offload);
                assert_eq!(segments.len() as u64, release.tally.packets);
                let bytes: usize = segments.iter().map(Vec::len).sum();
                assert_eq!(bytes as u64, release.tally.bytes);
                found[flow_of(release.bytes)].extend(segments);
            });
            prop_assert_eq!(worker.totals().imbalance(), 0);
            now += Duration::from_micros(pause);
            if let Some(at) = worker.shaper.deadline() {
                now = now.max(at);
            } else if ended {
                break;
            }
        }
        let dropped: u64 = worker.totals().dropped.values().map(|sum| sum.packets).sum();
        let mut missing = 0;
        for (expected, found) in expected.iter().zip(&found) {
            let mut rest = expected.iter();
            for segment in found {
                let is_other = |&e: &&Vec<u8>| unmarked(e) != unmarked(segment);
                missing += rest.by_ref().take_while(is_other).count();
            }
            missing += rest.count();
        }
        prop_assert_eq!(missing as u64, dropped);
    }
}

/// The packet without what a mark changes: ECN and the header's checksum.
fn unmarked(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 {
        packet[1] &= !3;
        packet[10..12].fill(0);
    } else {
        packet[1] &= !0x30;
    }
    packet
}

/// A TCP flow of a long transfer as a shaper sees it: a window that grows by a segment a round trip and shrinks to 0.7
/// of itself when a loss is heard of (RFC 9438, 4.6).
struct Transfer {
    window: f64,
    in_flight: u64,
    /// When what has been delivered or lost is heard of, nanoseconds: bytes, and whether they were lost.
    news: std::collections::BinaryHeap<std::cmp::Reverse<(u64, u64, bool)>>,
    /// Losses of one window are one event.
    deaf_until: u64,
}

const SEGMENT: u64 = 1_368;
/// The round trip without any queue, nanoseconds.
const ROUND_TRIP: u64 = 300_000;

impl Transfer {
    fn hear(&mut self, now: u64) {
        while let Some(std::cmp::Reverse((at, bytes, lost))) = self.news.peek().copied()
            && at <= now
        {
            self.news.pop();
            self.in_flight -= bytes;
            if !lost {
                self.window += (SEGMENT * bytes) as f64 / self.window;
            } else if now >= self.deaf_until {
                self.window = (self.window * 0.7).max(2.0 * SEGMENT as f64);
                // Until what is under way now has come: the round trip, queue and all.
                self.deaf_until = now + 5_300_000;
            }
        }
    }
}

/// Lets a TCP flow fill a gateway of this rate for a second and a half. The share of the rate that got through, and how
/// long packets waited in the median, milliseconds; without the first half second.
fn transfer(mbps: u64) -> (f64, f64) {
    let rate = rates(mbps, None);
    let limits = limits(1, rate, Rates::default(), 1);
    let begin = Instant::now() + Duration::from_secs(1);
    let mut worker = Worker::new(begin, &limits);
    let mut flow = Transfer {
        window: 64_000.0,
        in_flight: 0,
        news: std::collections::BinaryHeap::new(),
        deaf_until: 0,
    };
    let (step, warm, end) = (50_000, 500_000_000, 1_500_000_000);
    let mut samples = std::collections::HashMap::new();
    let mut known = 0;
    let mut waiting = std::collections::VecDeque::new();
    let (mut waits, mut through) = (Vec::new(), 0);
    let dropped = |worker: &Worker| {
        let sums = worker.totals().dropped;
        sums.values().map(|sum| sum.bytes).sum::<u64>()
    };
    let path = PathId(0);
    for now in (0..end).step_by(step) {
        flow.hear(now);
        let at = begin + Duration::from_nanos(now);
        assert!(!worker.shaper.begin(at, Some(&limits)));
        // As TSO: a millisecond of the rate at once, or what the window allows.
        let most = (mbps * 125).clamp(2 * SEGMENT, 62_928) / SEGMENT;
        loop {
            let room = (flow.window as u64).saturating_sub(flow.in_flight) / SEGMENT;
            let segments = room.min(most);
            if segments < most.min(2) {
                break;
            }
            let packet = samples.entry(segments).or_insert_with(|| {
                let spec = Spec::tcp((segments * SEGMENT) as usize);
                let (bytes, offload) = spec.build_partial(SEGMENT as u16);
                Sample::new(bytes, offload)
            });
            let payload = segments * SEGMENT;
            flow.in_flight += payload;
            let went = worker.offer(Ingress::Vnet, Egress::Path(path), packet);
            let each = packet.tally.bytes / segments;
            let now_known = if went { known } else { dropped(&worker) };
            let lost = (now_known - known) / each;
            known = now_known;
            if lost > 0 {
                let heard = now + ROUND_TRIP + 5_000_000;
                flow.news
                    .push(std::cmp::Reverse((heard, lost * SEGMENT, true)));
            }
            if went {
                flow.news
                    .push(std::cmp::Reverse((now + ROUND_TRIP, payload, false)));
                through += if now >= warm { packet.tally.bytes } else { 0 };
                waits.push(0);
            } else if segments > lost {
                waiting.push_back((now, segments - lost));
            }
        }
        let mut sent = 0;
        worker.drain(|release| sent += release.tally.packets);
        let now_known = dropped(&worker);
        let told = (now_known - known).div_ceil(SEGMENT + 100);
        known = now_known;
        if told > 0 {
            flow.news
                .push(std::cmp::Reverse((now + ROUND_TRIP, told * SEGMENT, true)));
        }
        if sent > 0 {
            flow.news
                .push(std::cmp::Reverse((now + ROUND_TRIP, sent * SEGMENT, false)));
            through += if now >= warm {
                sent * (SEGMENT + 52)
            } else {
                0
            };
        }
        let mut left = sent + told;
        while left > 0
            && let Some((since, segments)) = waiting.front_mut()
        {
            let taken = left.min(*segments);
            if now >= warm {
                waits.push(now - *since);
            }
            (left, *segments) = (left - taken, *segments - taken);
            if *segments == 0 {
                waiting.pop_front();
            }
        }
        assert_eq!(left, 0, "as many left as waited");
    }
    waits.sort_unstable();
    let seconds = (end - warm) as f64 / 1e9;
    let share = through as f64 * 8.0 / seconds / (mbps as f64 * 1e6);
    (share, waits[waits.len() / 2] as f64 / 1e6)
}

#[test]
fn tcp_fills_the_rate_and_leaves_the_queue_short() {
    for mbps in [500, 1_000, 2_000] {
        let (share, wait) = transfer(mbps);
        println!(
            "{mbps} Mbps: {:.1} % of it, {wait:.2} ms in the median",
            share * 100.0
        );
        assert!(share >= 0.97, "{mbps} Mbps: {share}");
        assert!(wait < 1.5, "{mbps} Mbps: {wait} ms");
    }
}
