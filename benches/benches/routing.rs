//! The decision, step by step: parsing, the forwarding table, policy, the flow cache, and all of it.
//!
//! Tables look like the Internet's: 60 % of the IPv4 prefixes are /24, half of the IPv6 ones /48, drawn
//! by a fixed generator. Packets go to destinations inside them, more of them than a CPU's caches hold
//! where the name says so.

// A bench that cannot be set up has nothing to say: it stops with the reason.
#![allow(missing_docs, clippy::expect_used)]

use arc_swap::ArcSwap;
use benches::sku::traffic::Words;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use routing::cache::FlowCache;
use routing::fib::Fib;
use routing::health::Usability;
use routing::packet::{FlowKey, Fragment, Headers, Version};
use routing::path::{Ingress, PathKind};
use routing::policy::{Match, Negated, Policy, shadowed};
use routing::rib::{Candidate, NextHop, OwnerId, RouteChange, RouteSource};
use routing::snapshot::{Action, Builder, Owner, Path, Rule, Snapshot};
use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// As in the program: what is large lies in large pages.
#[global_allocator]
static ALLOCATOR: gateway::device::pages::LargePages = gateway::device::pages::LargePages;

/// As many places as routes lead to: a gateway has few, however many routes.
const PLACES: u64 = 16;

/// IPv4 prefixes outside of 10.0.0.0/8, where the virtual network is.
fn v4_prefixes(count: usize) -> Vec<IpNet> {
    let mut words = Words::from_seed(0x9E37_79B9_7F4A_7C15);
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
    let mut words = Words::from_seed(0xD6E8_FEB8_6659_FD93);
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

/// Eight circuits of two links each, this many BGP routes, each over one of them drawn by lot, and this many
/// policy rules that no packet matches.
fn snapshot(v4: usize, v6: usize, policy: usize) -> Snapshot {
    let mut builder = Builder::new(NonZeroU32::MIN);
    let net = |text: &str| text.parse::<IpNet>().expect("a prefix");
    builder.address_space = vec![net("10.1.0.0/16"), net("fd00:1::/48")];
    builder.own_addresses = vec![net("10.1.255.4/32").addr()];
    let circuits = 0..8_u16;
    let owner = |name: String| Owner {
        name,
        ..Owner::default()
    };
    builder.owners = circuits
        .clone()
        .map(|c| owner(format!("circuit{c}")))
        .collect();
    let path = |circuit: u16, link: &str| Path {
        name: format!("circuit{circuit}/{link}"),
        kind: PathKind::ExpressRoute,
        owner: OwnerId(circuit),
        subnets: Vec::new(),
        v4: true,
        v6: true,
        over: None,
    };
    builder.paths = circuits
        .flat_map(|c| [path(c, "primary"), path(c, "secondary")])
        .collect();
    let mut words = Words::from_seed(0x1357_9BDF_0246_8ACE);
    let prefixes = v4_prefixes(v4).into_iter().chain(v6_prefixes(v6));
    builder.routes = prefixes
        .map(|prefix| {
            let circuit = NextHop::Owner(OwnerId(words.next() as u16 % 8));
            Candidate::new(prefix, RouteSource::Bgp, circuit)
        })
        .collect();
    builder.policy = rules(Shape::Friendly, policy)
        .into_iter()
        .map(|matches| Rule {
            name: String::new(),
            matches,
            action: Action::Drop,
            set_dscp: None,
        })
        .collect();
    builder.build(|_| Usability::Full).expect("a snapshot")
}

/// This many flows from the virtual network to addresses inside these prefixes.
fn flows(prefixes: &[IpNet], count: usize) -> Vec<Headers> {
    let mut words = Words::from_seed(0x2545_F491_4F6C_DD1D);
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
            let entries = (0_u64..).zip(&prefixes);
            let fib = Fib::new(entries.map(|(value, &net)| (net, value % PLACES)), 0);
            eprintln!("fib/{family}/{count}: {} KB", fib.memory() / 1024);
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

/// Rule sets by what they ask of the classifier. `friendly` is what people write; the others are made to
/// hurt: a field in which every rule differs costs rows, and rules that nearly match cost words.
#[derive(Clone, Copy)]
enum Shape {
    /// One destination prefix, TCP, one port.
    Friendly,
    /// Its own pair of prefixes, both nested in others, and nothing else.
    Pairs,
    /// Ranges in both ports, overlapping, and nested prefixes on both sides.
    Ranged,
    /// Every rule has its own source, destination and ports; half of them negated.
    Distinct,
    /// Nothing but an ingress, so that the addresses say nothing; no packet matches.
    Wildcards,
    /// Every field alone is held by every second rule, all of them together by none.
    NearMiss,
}

const SHAPES: [(&str, Shape); 6] = [
    ("friendly", Shape::Friendly),
    ("pairs", Shape::Pairs),
    ("ranged", Shape::Ranged),
    ("distinct", Shape::Distinct),
    ("wildcards", Shape::Wildcards),
    ("near_miss", Shape::NearMiss),
];

/// This many rules that none of [`flows`]'s packets matches, so that no rule ends the search early.
fn rules(shape: Shape, count: usize) -> Vec<Match> {
    let mut words = Words::from_seed(0x0123_4567_89AB_CDEF);
    let prefixes = v4_prefixes(count);
    let source = |word: u64, length: u8| {
        // Packets come from 10.1.0.4, which is in none of these if they are /17 or longer.
        let address = 0x0a01_8000 | (word as u32 & 0x7fff);
        IpNet::V4(Ipv4Net::new_assert(address.into(), length).trunc())
    };
    let rule = |(index, &prefix): (usize, &IpNet)| {
        let word = words.next();
        let number = index as u16;
        // Packets go to port 443.
        let port = 1_000 + number % 60_000;
        match shape {
            Shape::Friendly => Match {
                destination: vec![prefix],
                protocol: vec![6],
                destination_port: vec![(port, port)],
                ..Match::default()
            },
            Shape::Pairs => Match {
                source: vec![source(word, 17 + (word >> 16) as u8 % 16)],
                destination: vec![prefix],
                ..Match::default()
            },
            Shape::Ranged => {
                let first = (word >> 32) as u16;
                Match {
                    source: vec![source(word, 17 + (word >> 16) as u8 % 16)],
                    destination: vec![prefix],
                    source_port: vec![(first, first.saturating_add((word >> 48) as u16))],
                    destination_port: vec![(number % 400, 443 + number)],
                    ..Match::default()
                }
            }
            Shape::Distinct => Match {
                source: vec![source(index as u64 * 61, 32)],
                destination: vec![prefix],
                source_port: vec![(number, number)],
                destination_port: vec![(port, port)],
                negated: Negated {
                    source: index % 2 == 0,
                    source_port: index % 2 == 0,
                    ..Negated::default()
                },
                ..Match::default()
            },
            Shape::Wildcards => Match {
                from: vec![Ingress::Local],
                ..Match::default()
            },
            Shape::NearMiss => {
                let even = index % 2 == 0;
                Match {
                    source: vec![source(word, if even { 8 } else { 32 })],
                    destination: vec![IpNet::V4(Ipv4Net::new_assert(
                        if even { [255; 4] } else { [0; 4] }.into(),
                        if even { 32 } else { 0 },
                    ))],
                    destination_port: vec![(443, 443 + number)],
                    ..Match::default()
                }
            }
        }
    };
    prefixes.iter().enumerate().map(rule).collect()
}

fn policy(c: &mut Criterion) {
    let mut group = c.benchmark_group("policy");
    for (name, shape) in SHAPES {
        for (count, hot) in [
            (10, 1_024),
            (100, 1_024),
            (1_000, 1_024),
            (1_000, 262_144),
            (65_535, 1_024),
        ] {
            let packets = flows(&v4_prefixes(1_000), hot);
            let policy = Policy::new(&rules(shape, count));
            let matched = packets
                .iter()
                .any(|p| policy.first_match(Ingress::Vnet, p).is_some());
            assert!(!matched, "{name}");
            eprintln!("policy/{name}/{count}: {} KB", policy.memory() / 1024);
            group.bench_function(
                BenchmarkId::new(format!("{name}_{hot}_flows"), count),
                |b| {
                    let step = in_turn(&packets, |packet| {
                        black_box(policy.first_match(Ingress::Vnet, packet));
                    });
                    b.iter(step);
                },
            );
        }
    }
    group.finish();
}

/// What a decision costs. A hit is a flow that the cache knows; a miss is one that it does not, so that
/// it costs the search of the cache, the whole decision, and writing down what was found. Packets come in
/// turn, each flow once in a round, so that `N_flows` says how many flows' entries are in use at a time:
/// 1,024 stay in the second cache, 65,536 do not. A miss is a round of four times as many flows as the
/// cache has room for. `uncached` is the decision alone.
fn decide(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide");
    group.throughput(Throughput::Elements(1));
    for routes in [1_000, 10_000, 100_000, 1_000_000] {
        let prefixes = v4_prefixes(routes);
        let few = flows(&prefixes, 1_024);
        let full = flows(&prefixes, 65_536);
        let many = flows(&prefixes, 4 * 65_536);
        for rules in [0, 10, 100, 1_000] {
            let snapshot = snapshot(routes, routes / 5, rules);
            let name = format!("{routes}_routes/{rules}_rules");
            for (hot, packets) in [(1_024, &few), (32_768, &full), (65_536, &full)] {
                let mut cache = FlowCache::new(65_536, 7);
                let packets = packets.get(..hot).expect("as many flows");
                for packet in packets {
                    cache.decide(&snapshot, Ingress::Vnet, packet);
                }
                group.bench_function(format!("{name}/hit_{hot}_flows"), |b| {
                    let step = in_turn(packets, |packet| {
                        black_box(cache.decide(&snapshot, Ingress::Vnet, packet));
                    });
                    b.iter(step);
                });
            }
            group.bench_function(format!("{name}/miss"), |b| {
                let mut cache = FlowCache::new(65_536, 7);
                // Each round's flows are new ones: none is a hit by chance.
                let mut left = many.len();
                let mut round = 0;
                let step = in_turn(&many, |packet| {
                    let mut packet = *packet;
                    packet.key.source_port ^= round;
                    black_box(cache.decide(&snapshot, Ingress::Vnet, &packet));
                    left -= 1;
                    if left == 0 {
                        (left, round) = (many.len(), round.wrapping_add(1));
                    }
                });
                b.iter(step);
            });
            for (hot, packets) in [(1_024, &few), (262_144, &many)] {
                group.bench_function(format!("{name}/uncached_{hot}_flows"), |b| {
                    let step = in_turn(packets, |packet| {
                        black_box(snapshot.decide(Ingress::Vnet, packet));
                    });
                    b.iter(step);
                });
            }
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
                (0_u64..)
                    .zip(&prefixes)
                    .map(|(value, &net)| (net, value % PLACES)),
                0,
            )
        });
    });
    group.bench_function("snapshot_1000000_v4_200000_v6", |b| {
        b.iter(|| snapshot(1_000_000, 200_000, 0));
    });
    for (name, shape) in SHAPES {
        for count in [1_000, 65_535] {
            let rules = rules(shape, count);
            group.bench_function(format!("policy_{name}_{count}"), |b| {
                b.iter(|| Policy::new(&rules));
            });
            group.bench_function(format!("shadowed_{name}_{count}"), |b| {
                b.iter(|| shadowed(&rules));
            });
        }
    }
    group.finish();
}

/// One route more, and the same route gone again, on top of a full table: until workers load what it made.
/// Every change begins with the table of the one before, as in a running gateway, so whole builds that come
/// every so often are among them.
fn change(c: &mut Criterion) {
    const V4: usize = 1_000_000;
    const V6: usize = 200_000;
    let first = snapshot(V4, V6, 0);
    let (fib, rib) = first.memory();
    let routes = first.rib().candidates().count();
    eprintln!(
        "snapshot: {routes} routes; forwarding table {} KB, routing table {} KB; {:.1} + {:.1} bytes a route",
        fib / 1024,
        rib / 1024,
        fib as f64 / routes as f64,
        rib as f64 / routes as f64,
    );
    let state = ArcSwap::from_pointee(first);
    let mut group = c.benchmark_group("change");
    group.sample_size(20);
    let mut generation = NonZeroU32::MIN;
    let mut words = Words::from_seed(0x0F1E_2D3C_4B5A_6978);
    // Beside the table's own prefixes, and some of them.
    let v4: Vec<IpNet> = v4_prefixes(V4 + 1_000)
        .into_iter()
        .skip(V4 - 1_000)
        .collect();
    let v6: Vec<IpNet> = v6_prefixes(V6 + 1_000)
        .into_iter()
        .skip(V6 - 1_000)
        .collect();
    let of = |text: &str| vec![text.parse::<IpNet>().expect("a prefix")];
    let kinds = [
        ("v4", v4),
        ("v6", v6),
        ("default_v4", of("0.0.0.0/0")),
        ("default_v6", of("::/0")),
        ("v4_of_8_bits", of("52.0.0.0/8")),
        ("v6_of_20_bits", of("2a00::/20")),
    ];
    let mut slowest = Vec::new();
    for (name, prefixes) in kinds {
        let (mut longest, mut count) = (Duration::ZERO, 0_u32);
        let mut times = Vec::new();
        group.bench_function(name, |b| {
            b.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let prefix = prefixes[words.next() as usize % prefixes.len()];
                    let circuit = NextHop::Owner(OwnerId(words.next() as u16 % 8));
                    let route = Candidate::new(prefix, RouteSource::Bgp, circuit);
                    let change = if words.next().is_multiple_of(2) {
                        RouteChange::Announce(route)
                    } else {
                        RouteChange::Withdraw {
                            prefix,
                            source: route.source,
                            next_hop: circuit,
                        }
                    };
                    generation = generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
                    let begin = Instant::now();
                    let next = state
                        .load()
                        .with_routes(generation, &[change], |_| Usability::Full);
                    let old = state.swap(Arc::new(next.expect("a snapshot")));
                    let took = begin.elapsed();
                    drop(old);
                    spent += took;
                    longest = longest.max(took);
                    count += 1;
                    times.push(took);
                }
                spent
            });
        });
        times.sort_unstable();
        let late = times
            .get(times.len() * 999 / 1_000)
            .copied()
            .unwrap_or_default();
        slowest.push(format!(
            "change/{name}: {count} changes, 99.9 % within {late:?}, the longest {longest:?}"
        ));
    }
    group.finish();
    for line in slowest {
        eprintln!("{line}");
    }
    let (fib, _) = state.load().memory();
    eprintln!("forwarding table after all of them: {} KB", fib / 1024);
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = parse, forwarding_table, policy, decide, build, change
}
criterion_main!(benches);
