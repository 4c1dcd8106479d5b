//! The decision, step by step: parsing, the forwarding table, policy, the flow cache, and all of it.
//!
//! Tables look like the Internet's: 60 % of the IPv4 prefixes are /24, half of the IPv6 ones /48, drawn
//! by a fixed generator. Packets go to destinations inside them, more of them than a CPU's caches hold
//! where the name says so.

// A bench that cannot be set up has nothing to say: it stops with the reason.
#![allow(missing_docs, clippy::expect_used)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use routing::cache::FlowCache;
use routing::fib::Fib;
use routing::health::Usability;
use routing::packet::{FlowKey, Fragment, Headers, Version};
use routing::path::{Ingress, PathKind};
use routing::policy::{Match, Policy};
use routing::rib::{Candidate, NextHop, OwnerId, RouteSource};
use routing::snapshot::{Builder, Owner, Path, Snapshot};
use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::Duration;

/// A fixed sequence of words (xorshift64).
struct Words(u64);

impl Words {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// IPv4 prefixes outside of 10.0.0.0/8, where the virtual network is.
fn v4_prefixes(count: usize) -> Vec<IpNet> {
    let mut words = Words(0x9E37_79B9_7F4A_7C15);
    let prefix = |_| {
        let word = words.next();
        let length = match word % 100 {
            0..60 => 24,
            60..70 => 22,
            70..80 => 23,
            80..95 => 19 + (word >> 8) as u8 % 3,
            95..99 => 16,
            _ => 12,
        };
        let address = 0x0b00_0000 + (words.next() as u32) % 0xd000_0000;
        IpNet::V4(Ipv4Net::new_assert(address.into(), length).trunc())
    };
    (0..count).map(prefix).collect()
}

/// IPv6 prefixes of 2000::/3.
fn v6_prefixes(count: usize) -> Vec<IpNet> {
    let mut words = Words(0xD6E8_FEB8_6659_FD93);
    let prefix = |_| {
        let word = words.next();
        let length = match word % 100 {
            0..50 => 48,
            50..70 => 32,
            70..80 => 44,
            80..90 => 40,
            _ => 36,
        };
        let registry = [0x2001_u128, 0x2400, 0x2600, 0x2a00, 0x2800][(word >> 20) as usize % 5];
        let high = (registry + u128::from(word >> 40) % 16) << 112;
        let address = high | u128::from(words.next() >> 16) << 64;
        IpNet::V6(Ipv6Net::new_assert(address.into(), length).trunc())
    };
    (0..count).map(prefix).collect()
}

/// One circuit of two links and one site behind it, and this many BGP routes over the circuit.
fn snapshot(v4: usize, v6: usize) -> Snapshot {
    let mut builder = Builder::new(NonZeroU32::MIN);
    let net = |text: &str| text.parse::<IpNet>().expect("a prefix");
    builder.address_space = vec![net("10.1.0.0/16"), net("fd00:1::/48")];
    builder.own_addresses = vec![net("10.1.255.4/32").addr()];
    builder.owners = vec![
        Owner {
            name: "circuit".to_owned(),
            ..Owner::default()
        },
        Owner {
            name: "site".to_owned(),
            allowed_sources: [net("10.2.0.0/16")].into_iter().collect(),
        },
    ];
    let path = |name: &str, kind, owner| Path {
        name: name.to_owned(),
        kind,
        owner: OwnerId(owner),
        subnets: Vec::new(),
        v4: true,
        v6: true,
    };
    builder.paths = vec![
        path("primary", PathKind::ExpressRoute, 0),
        path("secondary", PathKind::ExpressRoute, 0),
        path("site", PathKind::Vpn, 1),
    ];
    let prefixes = v4_prefixes(v4).into_iter().chain(v6_prefixes(v6));
    builder.routes = prefixes
        .map(|prefix| Candidate::new(prefix, RouteSource::Bgp, NextHop::Owner(OwnerId(0))))
        .collect();
    builder.build(|_| Usability::Full).expect("a snapshot")
}

/// This many flows from the virtual network to addresses inside these prefixes.
fn flows(prefixes: &[IpNet], count: usize) -> Vec<Headers> {
    let mut words = Words(0x2545_F491_4F6C_DD1D);
    let flow = |_| {
        let word = words.next();
        let prefix = prefixes[word as usize % prefixes.len()];
        let (version, source, destination) = match prefix {
            IpNet::V4(net) => {
                let host = (word >> 32) as u32 & net.hostmask().to_bits();
                (
                    Version::V4,
                    0x0a01_0004,
                    u128::from(net.network().to_bits() | host),
                )
            }
            IpNet::V6(net) => {
                let host = u128::from(words.next()) & net.hostmask().to_bits();
                (
                    Version::V6,
                    0xfd00_0001 << 96 | 4,
                    net.network().to_bits() | host,
                )
            }
        };
        Headers {
            key: FlowKey {
                source,
                destination,
                source_port: (word >> 16) as u16,
                destination_port: 443,
                protocol: 6,
                version,
            },
            transport: 20,
            payload: 40,
            total_len: 1500,
            traffic_class: 0,
            hop_limit: 64,
            fragment: Fragment::Whole,
            dont_fragment: true,
            tcp_flags: 0x10,
        }
    };
    (0..count).map(flow).collect()
}

/// Calls `step` with the packets in turn, for ever.
fn in_turn<'a>(packets: &'a [Headers], mut step: impl FnMut(&'a Headers)) -> impl FnMut() {
    let mut packets = packets.iter().cycle();
    move || {
        if let Some(packet) = packets.next() {
            step(packet);
        }
    }
}

fn parse(c: &mut Criterion) {
    let mut v4 = vec![
        0x45, 0, 0x05, 0xdc, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 1, 0, 4, 10, 2, 0, 1,
    ];
    let sum: u32 = v4
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    v4[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut v6 = vec![0x60, 0, 0, 0, 0x05, 0xb4, 6, 64];
    v6.extend([0xfd; 32]);
    let mut group = c.benchmark_group("parse");
    for (name, mut packet) in [("v4_tcp", v4), ("v6_tcp", v6)] {
        packet.extend([0x9c, 0x40, 1, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10]);
        packet.resize(1500, 0);
        Headers::parse(&packet).expect("a right packet");
        group.bench_function(name, |b| b.iter(|| Headers::parse(black_box(&packet))));
    }
    group.finish();
}

fn forwarding_table(c: &mut Criterion) {
    let mut group = c.benchmark_group("fib");
    for count in [1_000, 100_000, 1_000_000] {
        for (family, prefixes) in [("v4", v4_prefixes(count)), ("v6", v6_prefixes(count / 5))] {
            let entries = (0_u64..).zip(&prefixes).map(|(value, &net)| (net, value));
            let fib = Fib::new(entries, 0);
            for hot in [1_024, 262_144] {
                let packets = flows(&prefixes, hot);
                let name = format!("{family}_to_{hot}_addresses");
                group.bench_function(BenchmarkId::new(name, prefixes.len()), |b| {
                    let step = in_turn(&packets, |packet| {
                        black_box(fib.lookup(&packet.key));
                    });
                    b.iter(step);
                });
            }
        }
    }
    group.finish();
}

fn policy(c: &mut Criterion) {
    let mut group = c.benchmark_group("policy");
    let prefixes = v4_prefixes(1_000);
    let packets = flows(&prefixes, 1_024);
    for count in [10, 100, 1_000] {
        // No packet matches: every rule is looked at.
        let rule = |(port, &prefix): (u16, &IpNet)| Match {
            destination: vec![prefix],
            protocol: vec![6],
            destination_port: vec![(port, port)],
            ..Match::default()
        };
        let rules: Vec<Match> = (1_000..).zip(&prefixes).take(count).map(rule).collect();
        let policy = Policy::new(&rules);
        group.bench_function(BenchmarkId::new("no_match", count), |b| {
            let step = in_turn(&packets, |packet| {
                black_box(policy.first_match(Ingress::Vnet, packet));
            });
            b.iter(step);
        });
    }
    group.finish();
}

fn decide(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide");
    group.throughput(Throughput::Elements(1));
    for count in [1_000, 100_000, 1_000_000] {
        let snapshot = snapshot(count, count / 5);
        let prefixes = v4_prefixes(count);
        for hot in [1_024, 32_768] {
            let packets = flows(&prefixes, hot);
            group.bench_function(BenchmarkId::new(format!("miss_{hot}_flows"), count), |b| {
                let step = in_turn(&packets, |packet| {
                    black_box(snapshot.decide(Ingress::Vnet, packet));
                });
                b.iter(step);
            });
            let mut cache = FlowCache::new(65_536, 7);
            for packet in &packets {
                cache.decide(&snapshot, Ingress::Vnet, packet);
            }
            group.bench_function(BenchmarkId::new(format!("hit_{hot}_flows"), count), |b| {
                let step = in_turn(&packets, |packet| {
                    black_box(cache.decide(&snapshot, Ingress::Vnet, packet));
                });
                b.iter(step);
            });
        }
    }
    group.finish();
}

fn build(c: &mut Criterion) {
    let mut group = c.benchmark_group("build");
    group.sample_size(10);
    group.bench_function("fib_1000000_v4_200000_v6", |b| {
        let prefixes: Vec<IpNet> = v4_prefixes(1_000_000)
            .into_iter()
            .chain(v6_prefixes(200_000))
            .collect();
        b.iter(|| {
            Fib::new(
                (0_u64..).zip(&prefixes).map(|(value, &net)| (net, value)),
                0,
            )
        });
    });
    group.bench_function("snapshot_1000000_v4_200000_v6", |b| {
        b.iter(|| snapshot(1_000_000, 200_000));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = parse, forwarding_table, policy, decide, build
}
criterion_main!(benches);
