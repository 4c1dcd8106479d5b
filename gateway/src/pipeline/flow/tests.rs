use super::*;
use crate::config::{self, KeyFiles};
use crate::plan::Plan;
use proptest::prelude::*;
use routing::health::Usability;
use routing::packet::{Version, protocol};
use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;

const LINK: PathId = PathId(0);
const TUNNEL: PathId = PathId(2);

/// The network of docs/examples/coexist.toml: two links of a circuit, and a tunnel.
fn snapshot() -> Arc<Snapshot> {
    let text = include_str!("../../../../docs/examples/coexist.toml").to_owned();
    let name = std::path::Path::new("f");
    let loaded = config::parse(name, text, std::path::Path::new(""), KeyFiles::Skipped);
    let plan = Plan::new(&loaded.unwrap().config, NonZeroU32::MIN, |_| {
        Usability::Full
    })
    .unwrap();
    let kind = |path| plan.snapshot.path(path).unwrap().kind;
    assert_eq!(
        (kind(LINK), kind(TUNNEL)),
        (PathKind::ExpressRoute, PathKind::Vpn)
    );
    plan.snapshot
}

fn limits(expressroute: u64, vpn: u64, per_second: Option<u64>) -> Arc<FlowLimits> {
    let expressroute = GatewayFlows {
        flows: Some(expressroute),
        flows_per_second: per_second,
    };
    let vpn = GatewayFlows {
        flows: Some(vpn),
        flows_per_second: None,
    };
    FlowLimits::new(expressroute, vpn, Instant::now(), None).unwrap()
}

fn headers(number: u32, protocol: u8, tcp_flags: u8) -> Headers {
    Headers {
        key: FlowKey {
            source: u128::from(0x0A01_0000 + (number >> 8)),
            destination: 0x0A02_0001,
            source_port: number as u16 & 0xFF | 0x4000,
            destination_port: 443,
            protocol,
            version: Version::V4,
        },
        transport: 20,
        payload: 40,
        total_len: 100,
        traffic_class: 0,
        hop_limit: 64,
        fragment: Fragment::Whole,
        dont_fragment: true,
        tcp_flags,
    }
}

fn answer(headers: &Headers) -> Headers {
    let mut answer = *headers;
    let key = &mut answer.key;
    std::mem::swap(&mut key.source, &mut key.destination);
    std::mem::swap(&mut key.source_port, &mut key.destination_port);
    answer
}

/// A table with a clock of its own.
struct Bench {
    snapshot: Arc<Snapshot>,
    limits: Arc<FlowLimits>,
    table: FlowTable,
    now: Instant,
}

impl Bench {
    fn new(limits: Arc<FlowLimits>) -> Self {
        let now = limits.epoch_for_tests() + Duration::from_secs(1);
        Self {
            snapshot: snapshot(),
            table: FlowTable::new(now, Arc::clone(&limits), 7, false),
            limits,
            now,
        }
    }

    fn out(&mut self, headers: &Headers, path: PathId) -> Result<(), DropReason> {
        let verdict = Verdict::Path(path);
        self.table
            .admit(&self.snapshot, Ingress::Vnet, headers, verdict)
    }

    fn back(&mut self, headers: &Headers, path: PathId) -> Result<(), DropReason> {
        let (from, answer) = (Ingress::Path(path), answer(headers));
        self.table
            .admit(&self.snapshot, from, &answer, Verdict::Vnet)
    }

    /// Rounds as a worker's, one each tenth of a second.
    fn pass(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / 100 {
            self.now += Duration::from_millis(100);
            self.table.begin(self.now, &Arc::clone(&self.limits));
            self.table.sweep();
        }
    }

    fn active(&self, kind: PathKind) -> u64 {
        self.limits.usage(kind).flows
    }
}

fn tcp(number: u32) -> Headers {
    headers(number, protocol::TCP, flag::ACK)
}

#[test]
fn over_the_limit_known_flows_go_on_and_new_ones_wait_for_room() {
    let mut bench = Bench::new(limits(3, 10, None));
    for number in 0..3 {
        assert_eq!(bench.out(&tcp(number), LINK), Ok(()));
        assert_eq!(bench.back(&tcp(number), LINK), Ok(()), "counted once");
    }
    assert_eq!(bench.active(PathKind::ExpressRoute), 3);
    assert_eq!(bench.out(&tcp(3), LINK), Err(DropReason::GatewayFlows));
    assert_eq!(bench.back(&tcp(3), LINK), Err(DropReason::GatewayFlows));
    assert_eq!(bench.out(&tcp(3), TUNNEL), Ok(()), "another gateway's");
    assert_eq!(bench.limits.usage(PathKind::ExpressRoute).refused_flows, 2);
    // Two stay alive, one falls silent and makes room.
    for _ in 0..60 {
        bench.pass(EPOCH);
        assert_eq!(bench.out(&tcp(0), LINK), Ok(()));
        assert_eq!(bench.back(&tcp(1), LINK), Ok(()));
    }
    assert_eq!(bench.active(PathKind::ExpressRoute), 2);
    assert_eq!(bench.out(&tcp(4), LINK), Ok(()));
    assert_eq!(bench.out(&tcp(5), LINK), Err(DropReason::GatewayFlows));
    assert_eq!(bench.active(PathKind::Vpn), 0);
}

#[test]
fn new_flows_come_at_the_skus_rate() {
    let mut bench = Bench::new(limits(1_000_000, 10, Some(7_000)));
    let mut number = 0;
    let mut come = |bench: &mut Bench, count: u32| {
        let first = number;
        number += count;
        let (mut came, mut refused) = (0, 0);
        for number in first..number {
            match bench.out(&tcp(number), LINK) {
                Ok(()) => came += 1,
                Err(reason) => {
                    assert_eq!(reason, DropReason::GatewayFlowRate);
                    refused += 1;
                }
            }
        }
        (came, refused)
    };
    // A tenth of a second's worth at once, then as many as time brings.
    assert_eq!(come(&mut bench, 2_000), (699, 1_301));
    for _ in 0..10 {
        bench.pass(Duration::from_millis(100));
        let (came, _) = come(&mut bench, 2_000);
        assert!((699..=701).contains(&came), "{came}");
    }
    let usage = bench.limits.usage(PathKind::ExpressRoute);
    assert!((7_680..=7_710).contains(&usage.opened), "{usage:?}");
    assert_eq!(usage.opened, usage.flows);
    assert_eq!(usage.opened + usage.refused_rate, 22_000);
    assert_eq!(bench.out(&tcp(0), LINK), Ok(()), "known");
}

#[test]
fn what_is_no_flow_of_users_is_never_refused() {
    let mut bench = Bench::new(limits(0, 0, Some(1)));
    assert_eq!(bench.out(&tcp(1), LINK), Err(DropReason::GatewayFlows));
    let ping = headers(1, protocol::ICMP, 0);
    assert_eq!(bench.out(&ping, LINK), Ok(()));
    let mut later = headers(1, protocol::UDP, 0);
    later.fragment = Fragment::Later;
    assert_eq!(bench.out(&later, LINK), Ok(()));
    let (local, to) = (Ingress::Local, Verdict::Path(LINK));
    let own = bench.table.admit(&bench.snapshot, local, &tcp(1), to);
    assert_eq!(own, Ok(()));
    let asked = Ingress::Path(LINK);
    let to_host = bench
        .table
        .admit(&bench.snapshot, asked, &tcp(1), Verdict::Local);
    assert_eq!((to_host, bench.table.len()), (Ok(()), 0));
}

#[test]
fn a_failover_takes_flows_to_the_other_gateway_even_beyond_its_limit() {
    let mut bench = Bench::new(limits(10, 2, None));
    for number in 0..5 {
        bench.out(&tcp(number), LINK).unwrap();
        bench.back(&tcp(number), LINK).unwrap();
    }
    for number in 0..5 {
        assert_eq!(bench.out(&tcp(number), TUNNEL), Ok(()));
    }
    // Outward over the tunnel, inward still over the link: of both gateways.
    assert_eq!(bench.active(PathKind::ExpressRoute), 5);
    assert_eq!(bench.active(PathKind::Vpn), 5);
    for number in 0..5 {
        assert_eq!(bench.back(&tcp(number), TUNNEL), Ok(()));
    }
    assert_eq!(bench.active(PathKind::ExpressRoute), 0);
    assert_eq!(bench.active(PathKind::Vpn), 5);
    assert_eq!(bench.out(&tcp(9), TUNNEL), Err(DropReason::GatewayFlows));
    for number in 0..5 {
        bench.out(&tcp(number), LINK).unwrap();
        bench.back(&tcp(number), LINK).unwrap();
    }
    assert_eq!(
        (
            bench.active(PathKind::ExpressRoute),
            bench.active(PathKind::Vpn)
        ),
        (5, 0)
    );
}

#[test]
fn tcp_that_has_ended_makes_room_sooner() {
    let mut bench = Bench::new(limits(10, 10, None));
    let flags = |number, flags| headers(number, protocol::TCP, flags);
    for number in 0..4 {
        bench.out(&flags(number, flag::SYN), LINK).unwrap();
        bench
            .back(&flags(number, flag::SYN | flag::ACK), LINK)
            .unwrap();
    }
    // 0: ended by both; 1: by one side only; 2: reset; 3: ended, and then the same ports again.
    bench.table.note(&flags(0, flag::FIN));
    bench.table.note(&answer(&flags(0, flag::FIN)));
    bench.table.note(&flags(1, flag::FIN));
    bench.table.note(&answer(&flags(2, flag::RST)));
    bench.table.note(&flags(3, flag::RST));
    bench.table.note(&flags(3, flag::SYN));
    bench.pass(CLOSING);
    assert_eq!(bench.active(PathKind::ExpressRoute), 4);
    bench.pass(2 * EPOCH + Duration::from_secs(1));
    let left: HashSet<_> = bench.table.newest().iter().map(|f| f.key).collect();
    let expected = [1, 3].map(|number| flags(number, 0).key);
    assert_eq!(left, expected.into_iter().collect());
    assert_eq!(bench.active(PathKind::ExpressRoute), 2);
    bench.pass(IDLE + 2 * EPOCH);
    assert!(bench.table.is_empty());
    assert_eq!(bench.table.deadline(), None);
}

#[test]
fn workers_share_the_limit() {
    let limits = limits(100, 100, None);
    let mut one = Bench::new(Arc::clone(&limits));
    let mut other = Bench::new(Arc::clone(&limits));
    let came = (0..200)
        .filter(|&number| {
            let worker = if number % 3 == 0 {
                &mut one
            } else {
                &mut other
            };
            worker.out(&tcp(number), LINK).is_ok()
        })
        .count();
    assert_eq!(came, 100);
    // A tunnel's flow may meet two workers, one each way: it counts once each way.
    for number in 0..50 {
        one.out(&tcp(number), TUNNEL).unwrap();
        other.back(&tcp(number), TUNNEL).unwrap();
    }
    assert_eq!(limits.usage(PathKind::Vpn).flows, 50);
}

#[test]
fn a_larger_sku_finds_the_flows_that_are_there() {
    let mut bench = Bench::new(limits(100, 100, None));
    for number in 0..100 {
        bench.out(&tcp(number), LINK).unwrap();
    }
    let more = GatewayFlows {
        flows: Some(5_000),
        flows_per_second: None,
    };
    bench.limits = FlowLimits::new(more, more, Instant::now(), Some(&bench.limits)).unwrap();
    bench.pass(Duration::from_millis(100));
    let came = (0..6_000).filter(|&number| bench.out(&tcp(number), LINK).is_ok());
    assert_eq!(came.count(), 5_000);
    assert_eq!(bench.active(PathKind::ExpressRoute), 5_000);
}

#[test]
fn flows_that_were_there_before_the_limit_are_taken_over() {
    let limits = limits(10, 10, Some(1));
    let now = limits.epoch_for_tests();
    let mut bench = Bench::new(Arc::clone(&limits));
    bench.table = FlowTable::new(now, limits, 7, true);
    for number in 0..20 {
        assert_eq!(bench.out(&tcp(number), LINK), Ok(()));
    }
    bench.pass(3 * EPOCH);
    assert_eq!(bench.out(&tcp(99), LINK), Err(DropReason::GatewayFlows));
}

/// Regression: only a table that was new was lenient, so a gateway that had been unlimited beside a limited one
/// refused its established flows, as many a second as its new rate did not let in.
#[test]
fn flows_of_a_gateway_that_becomes_limited_beside_a_limited_one_are_taken_over() {
    let limited = GatewayFlows {
        flows: Some(10),
        flows_per_second: Some(10),
    };
    let none = GatewayFlows::default();
    for (first, kind, path, other) in [
        ([none, limited], PathKind::ExpressRoute, LINK, TUNNEL),
        ([limited, none], PathKind::Vpn, TUNNEL, LINK),
    ] {
        let before = FlowLimits::new(first[0], first[1], Instant::now(), None).unwrap();
        let mut bench = Bench::new(Arc::clone(&before));
        bench.pass(2 * EPOCH);
        for number in 0..20 {
            assert_eq!(bench.out(&tcp(number), path), Ok(()));
        }
        bench.limits = FlowLimits::new(limited, limited, Instant::now(), Some(&before)).unwrap();
        bench.pass(Duration::from_millis(100));
        for number in 0..20 {
            assert_eq!(bench.out(&tcp(number), path), Ok(()), "{kind:?} {number}");
        }
        assert_eq!(bench.active(kind), 20, "{kind:?}");
        // The other gateway was limited before: for its flows nothing is new.
        assert_eq!(bench.out(&tcp(30), other), Ok(()));
        let refused = Err(DropReason::GatewayFlowRate);
        assert_eq!(bench.out(&tcp(31), other), refused, "{kind:?}");
        bench.pass(3 * EPOCH);
        assert_eq!(bench.out(&tcp(99), path), Err(DropReason::GatewayFlows));
    }
}

#[test]
fn the_newest_flows_are_shown_with_the_way_they_came() {
    let mut bench = Bench::new(limits(1_000, 1_000, None));
    for number in 0..300 {
        bench.back(&tcp(number), LINK).unwrap();
        bench.pass(Duration::from_millis(100));
    }
    let shown = bench.table.newest();
    assert_eq!(shown.len(), NEWEST);
    let first = shown.first().unwrap();
    assert_eq!(first.key, answer(&tcp(299)).key);
    assert_eq!((first.from, first.to), (Some(LINK), None));
    assert_eq!(first.age, Duration::from_millis(100));
}

#[test]
fn an_unlimited_gateways_flows_are_not_kept() {
    let limited = GatewayFlows {
        flows: Some(1),
        flows_per_second: None,
    };
    let none = GatewayFlows::default();
    assert!(FlowLimits::new(none, none, Instant::now(), None).is_none());
    let mut bench = Bench::new(FlowLimits::new(limited, none, Instant::now(), None).unwrap());
    for number in 0..10_000 {
        assert_eq!(bench.out(&tcp(number), TUNNEL), Ok(()));
    }
    assert!(bench.table.is_empty());
}

proptest! {
    /// Against a model that remembers when each flow was let in or touched: no flow that is known is refused,
    /// none is let in beyond the limit, and none is refused while there is room.
    #[test]
    fn admission_agrees_with_a_model(
        steps in prop::collection::vec((0_u32..12, any::<bool>(), 0_u64..80), 1..300),
    ) {
        const MOST: usize = 5;
        let mut bench = Bench::new(limits(MOST as u64, 10, None));
        let mut known: HashMap<u32, Instant> = HashMap::new();
        for (number, outward, pause) in steps {
            bench.pass(Duration::from_secs(pause));
            // Surely there, and perhaps there still.
            let silent = |at: &Instant| bench.now - *at;
            let there = known.values().filter(|at| silent(at) <= IDLE).count();
            known.retain(|_, at| bench.now - *at <= IDLE + 2 * EPOCH + Duration::from_secs(1));
            let perhaps = known.len();
            let result = if outward { bench.out(&tcp(number), LINK) } else { bench.back(&tcp(number), LINK) };
            let was = known.get(&number).map(|at| bench.now - *at);
            if result.is_ok() {
                prop_assert!(was.is_some() || there < MOST);
                known.insert(number, bench.now);
            } else {
                prop_assert_eq!(result, Err(DropReason::GatewayFlows));
                prop_assert!(was.is_none_or(|silent| silent > IDLE));
                prop_assert!(perhaps >= MOST);
            }
            let active = bench.active(PathKind::ExpressRoute) as usize;
            prop_assert!(active <= MOST && active == bench.table.len());
        }
    }

    /// The table itself against a map: insertion, growth, and removal that leaves no gap in any chain.
    #[test]
    fn the_table_is_a_map(
        steps in prop::collection::vec((0_u32..200, 0_u8..8), 1..600), seed in any::<u64>(),
    ) {
        let mut table = Table::new(20, seed, None);
        let mut model: HashMap<u32, Entry> = HashMap::new();
        for (number, what) in steps {
            let key = Key::of(&tcp(number).key).0;
            match what {
                0 => {
                    let gone = |entry: &Entry| entry.touched % 7 == number % 7;
                    // Entries move up while it goes round: it may take a second time.
                    for _ in 0..2 {
                        table.sweep(2 * table.slots(), gone);
                    }
                    model.retain(|_, entry| !gone(entry));
                }
                1 => table.grow(model.len() + 10, None),
                _ if !model.contains_key(&number) => {
                    let entry = Entry {
                        key, opened: number, touched: number + 1, sides: [what, 1], ended: 2, opener: 1,
                        from: number as u16, to: 9,
                    };
                    if table.insert(&entry) {
                        model.insert(number, entry);
                    } else {
                        prop_assert!(model.len() >= table.slots() / 4 * 3);
                    }
                }
                _ => {}
            }
            prop_assert_eq!(table.len(), model.len());
            for (number, entry) in &model {
                let found = table.find(&Key::of(&tcp(*number).key).0).map(|found| found.1);
                prop_assert_eq!(found, Some(*entry));
            }
        }
    }

    #[test]
    fn a_key_is_the_same_both_ways_and_gives_the_flow_back(
        source in any::<u128>(), destination in any::<u128>(), ports in any::<(u16, u16)>(),
        protocol in any::<u8>(), v6 in any::<bool>(),
    ) {
        let bits = if v6 { u128::MAX } else { u128::from(u32::MAX) };
        let mut whole = headers(0, protocol, 0);
        whole.key = FlowKey {
            source: source & bits,
            destination: destination & bits,
            source_port: ports.0,
            destination_port: ports.1,
            protocol,
            version: if v6 { Version::V6 } else { Version::V4 },
        };
        let (there, back) = (whole.key, answer(&whole).key);
        let ((one, a), (other, b)) = (Key::of(&there), Key::of(&back));
        prop_assert_eq!(one, other);
        prop_assert!(a != b || there == back);
        prop_assert_eq!(one.flow(a), there);
        prop_assert_eq!(other.flow(b), back);
    }
}

/// Pages that the kernel has had to give this thread so far (proc(5): `minflt`).
fn page_faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().nth(7).unwrap().parse().unwrap()
}

#[test]
fn a_table_that_control_has_prepared_costs_its_worker_no_page() {
    let flows = |flows| GatewayFlows {
        flows: Some(flows),
        flows_per_second: None,
    };
    let none = GatewayFlows::default();
    let small = FlowLimits::new(flows(500_000), none, Instant::now(), None).unwrap();
    let large = FlowLimits::new(
        flows(1_000_000),
        flows(500_000),
        Instant::now(),
        Some(&small),
    )
    .unwrap();
    let prepare = |limits: Arc<FlowLimits>| std::thread::spawn(|| limits.prepared(2));
    let [small, large] = [small, large].map(|limits| prepare(limits).join().unwrap());
    let now = small.epoch_for_tests();
    for worker in 0..2 {
        let before = page_faults();
        let mut table = FlowTable::new(now, Arc::clone(&small), 7, false);
        let slots = table.table.slots();
        table.table.sweep(slots, |_| false);
        table.begin(now, &large);
        assert!(table.table.slots() > slots);
        table.table.sweep(2 * table.table.slots(), |_| false);
        // 240 MB are 60,000 pages, or 120 large ones. The ring of the newest flows has a few.
        let faults = page_faults() - before;
        assert!(faults < 30, "worker {worker}: {faults} pages");
        table.put_away();
    }
    assert!(large.room().is_none(), "each has taken its own");
}
