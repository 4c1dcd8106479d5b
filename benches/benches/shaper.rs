//! What a packet that conforms to its limits costs the shaper, and what one costs that has to wait: the
//! clock moves on by what the packet takes at the tier's rate, as it does for a gateway that is just busy.

// A benchmark that cannot be set up has nothing to report.
#![allow(missing_docs, clippy::expect_used)]

use benches::packet::{TCP_HEADERS, tcp_super_packet};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gateway::pipeline::process::Egress;
use gateway::pipeline::shape::{Limit, RateLimits, Rates, Scope, Shaper};
use gateway::telemetry::ledger::{Ledger, Sum};
use routing::path::{Ingress, PathId};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SIZE: u16 = 1368;
const SEGMENTS: u16 = 45;
const TO: (Ingress, Egress) = (Ingress::Vnet, Egress::Path(PathId(0)));

fn limits(tunnel: bool) -> Arc<RateLimits> {
    let limit = |name: &str, scope, bits, packets| Limit {
        name: name.to_owned(),
        scope,
        rates: Rates {
            bits_per_second: Some(bits),
            packets_per_second: packets,
        },
    };
    let (all, of_path) = if tunnel {
        let gateway = limit("Vpn", Scope::Gateway, 10_000_000_000, None);
        let tunnel = limit("tunnel", Scope::Tunnel, 2_300_000_000, Some(220_000));
        (vec![gateway, tunnel], vec![0, 1])
    } else {
        let packets = Some(1_000_000);
        let gateway = limit("ExpressRoute", Scope::Gateway, 10_000_000_000, packets);
        (vec![gateway], vec![0])
    };
    RateLimits::new(1, &all, &[of_path], Instant::now(), None).expect("there are limits")
}

/// A round of as many packets as the loop reads at once, each at the rate's pace.
fn admits(criterion: &mut Criterion) {
    let small = Sum {
        packets: 1,
        bytes: 1_420,
    };
    let large = Sum {
        packets: u64::from(SEGMENTS),
        bytes: u64::from(SEGMENTS) * (u64::from(SIZE) + TCP_HEADERS as u64),
    };
    let mut group = criterion.benchmark_group("shaper/conforming");
    for (way, tunnel, nanoseconds) in [("ExpressRoute", false, 10), ("tunnel", true, 50)] {
        for (what, tally, count) in [("packet", small, 64), ("super-packet", large, 8)] {
            let limits = limits(tunnel);
            let ledger = Ledger::new(4);
            let begin = Instant::now();
            let mut shaper = Shaper::new(begin, Arc::clone(&limits));
            // Twice what the slower bucket takes for it: every packet conforms.
            let pace = Duration::from_nanos(nanoseconds / 10 * tally.bytes * 2);
            let mut now = begin + Duration::from_secs(1);
            group.throughput(Throughput::Elements(count));
            group.bench_function(format!("{way}, {what}"), |bencher| {
                bencher.iter(|| {
                    now += pace * count as u32;
                    shaper.begin(now, Some(&limits));
                    for _ in 0..count {
                        let lane = shaper.admit(TO.0, TO.1, black_box(tally));
                        assert!(lane.is_none());
                    }
                    shaper.drain(&ledger, |_| {});
                });
            });
        }
    }
    group.finish();
}

/// A super-packet at a time that arrives a little faster than its rate: it is laid down, cut, and sent in
/// pieces as tokens come.
fn waits(criterion: &mut Criterion) {
    let (packet, headers, offload) =
        tcp_super_packet(40_000, SIZE * SEGMENTS, SIZE).expect("it fits");
    let tally = Sum {
        packets: u64::from(SEGMENTS),
        bytes: u64::from(SEGMENTS) * (u64::from(SIZE) + TCP_HEADERS as u64),
    };
    let mut group = criterion.benchmark_group("shaper/waiting");
    group.throughput(Throughput::Elements(u64::from(SEGMENTS)));
    let limits = limits(true);
    let ledger = Ledger::new(4);
    let begin = Instant::now();
    let mut shaper = Shaper::new(begin, Arc::clone(&limits));
    let mut now = begin + Duration::from_secs(1);
    group.bench_function("tunnel, super-packet", |bencher| {
        bencher.iter(|| {
            now += Duration::from_micros(200);
            shaper.begin(now, Some(&limits));
            if let Some(lane) = shaper.admit(TO.0, TO.1, tally) {
                let pieces = std::iter::once(&packet[..]);
                let what = (Some(&headers), &offload, tally);
                shaper.wait(lane, TO.1, pieces, what, &ledger);
            }
            shaper.drain(&ledger, |release| {
                black_box(release.bytes);
            });
        });
    });
    group.finish();
}

criterion_group!(shaper, admits, waits);
criterion_main!(shaper);
