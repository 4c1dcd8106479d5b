//! What becomes of packets that wait, and whom they make wait.

use super::{Sample, Worker, limit, limits, rates};
use crate::packets::{Spec, any_header, noise, parse};
use crate::split::by_segments;
use gateway::pipeline::process::Egress;
use gateway::pipeline::shape::{QUEUE, RateLimits, Rates, Scope};
use gateway::telemetry::ledger::Port;
use proptest::prelude::*;
use routing::path::{Ingress, PathId};
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    let of = |mbps, old: Option<&Arc<RateLimits>>| {
        let gateway = limit("gateway", Scope::Gateway, rates(mbps, None));
        RateLimits::new(1, &[gateway], &[vec![0]], Instant::now(), old)
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
