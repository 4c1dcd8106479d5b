use super::*;
use crate::decide::tests::{builder, full, net};
use crate::rib::RouteSource;
use crate::rib::{Ranked, RouteChange};
use proptest::prelude::*;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where the candidates of one prefix lead to, without the groups' numbers, which depend on their history.
fn way(snapshot: &Snapshot, same: &[Ranked]) -> Option<(Vec<PathId>, Vec<u64>, u64)> {
    let group = snapshot.group(snapshot.group_of(same)?)?;
    Some((
        group.members().to_vec(),
        group.tiers().to_vec(),
        group.active().load(),
    ))
}

/// Where the forwarding table leads to, in the same words.
fn found(snapshot: &Snapshot, version: Version, address: u128) -> (bool, Option<Vec<PathId>>) {
    match snapshot.fib.find(version, address) {
        Hop::Group(id) => {
            let group = snapshot.group(id).unwrap();
            (true, Some(group.members().to_vec()))
        }
        Hop::Vnet => (true, None),
        Hop::Nowhere | Hop::Internet | Hop::None => (false, None),
    }
}

fn assert_same(changed: &Snapshot, built: &Snapshot, probes: &[IpAddr]) {
    let candidates = |snapshot: &Snapshot| snapshot.rib().candidates().copied().collect::<Vec<_>>();
    assert_eq!(candidates(changed), candidates(built));
    for (ours, theirs) in changed.rib().prefixes().zip(built.rib().prefixes()) {
        assert_eq!(way(changed, ours), way(built, theirs), "{:?}", ours[0]);
    }
    let ends = built.rib().candidates().flat_map(|one| {
        let prefix = one.candidate.prefix;
        [prefix.network(), prefix.broadcast()]
    });
    for address in ends.chain(probes.iter().copied()) {
        let (version, bits) = crate::packet::address_bits(address);
        assert_eq!(
            found(changed, version, bits),
            found(built, version, bits),
            "{address}"
        );
        let longest = |snapshot: &Snapshot| {
            let route = snapshot.rib().longest(version, bits)?;
            Some(snapshot.rib().route(route)?.to_vec())
        };
        assert_eq!(longest(changed), longest(built), "{address}");
    }
}

/// A route of few prefixes that nest, from few sources over few next hops.
fn candidate() -> impl Strategy<Value = Candidate> {
    let v4 = (0..4_u32, any::<u16>(), 0..=32_u8).prop_map(|(high, low, length)| {
        let bits = 0x0a00_0000 | high << 22 | u32::from(low & 0x03ff) << 3;
        IpNet::new(IpAddr::from(bits.to_be_bytes()), length).unwrap()
    });
    let v6 = (0..4_u128, any::<u16>(), 0..=128_u8).prop_map(|(high, low, length)| {
        let bits =
            0xfd00 << 112 | high << 100 | u128::from(low & 0xff) << 76 | u128::from(low >> 8);
        IpNet::new(IpAddr::from(bits.to_be_bytes()), length).unwrap()
    });
    let short = prop::sample::select(vec!["0.0.0.0/0", "::/0", "10.2.0.0/16", "10.1.7.0/24"]);
    let prefix = prop_oneof![4 => v4, 4 => v6, 1 => short.prop_map(net)];
    let source = prop::sample::select(vec![
        RouteSource::UserDefined,
        RouteSource::Static,
        RouteSource::Site,
        RouteSource::Bgp,
        RouteSource::Bgp,
    ]);
    let owner = (0..4_u16).prop_map(|owner| NextHop::Owner(OwnerId(owner)));
    let path = (0..5_u16).prop_map(|path| NextHop::Path(PathId(path)));
    let next_hop = prop_oneof![4 => owner, 2 => path, 1 => Just(NextHop::None)];
    (prefix, source, next_hop, 0..3_u32, 0..3_u32).prop_map(
        |(prefix, source, next_hop, weight, as_path_length)| Candidate {
            weight,
            as_path_length,
            ..Candidate::new(prefix, source, next_hop)
        },
    )
}

fn same_route(a: &Candidate, b: &Candidate) -> bool {
    (a.prefix, a.source, a.next_hop) == (b.prefix, b.source, b.next_hop)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn any_sequence_of_changes_leads_to_what_a_build_from_scratch_does(
        start in prop::collection::vec(candidate(), 0..40),
        steps in prop::collection::vec(
            prop::collection::vec((candidate(), any::<prop::sample::Index>(), 0..4_u8), 1..4), 1..20),
        health in any::<u8>(),
        probes in prop::collection::vec((any::<u32>(), any::<u16>()), 10),
    ) {
        let probes: Vec<IpAddr> = probes
            .iter()
            .flat_map(|&(low, high)| {
                let v4 = 0x0a00_0000 | low & 0x00ff_ffff;
                let v6 = 0xfd00 << 112 | u128::from(high) << 98 | u128::from(low);
                [IpAddr::from(v4.to_be_bytes()), IpAddr::from(v6.to_be_bytes())]
            })
            .collect();
        let usability = |path: PathId| full(health >> path.0 & 1 != 0);
        let mut routes: Vec<Candidate> = Vec::new();
        for one in builder().routes.into_iter().chain(start) {
            routes.retain(|other| !same_route(other, &one));
            routes.push(one);
        }
        let build = |routes: &[Candidate]| {
            let mut builder = builder();
            builder.routes = routes.to_vec();
            builder.build(usability).unwrap()
        };
        let mut current = build(&routes);
        for (number, step) in (2..).zip(&steps) {
            let mut changes = Vec::new();
            for (candidate, index, kind) in step {
                // Half of the changes are about routes that are there.
                let change = match (kind, routes.is_empty()) {
                    (0, false) => {
                        let gone = *index.get(&routes);
                        RouteChange::Withdraw { prefix: gone.prefix, source: gone.source, next_hop: gone.next_hop }
                    }
                    (1, false) => RouteChange::Announce(Candidate {
                        weight: candidate.weight,
                        as_path_length: candidate.as_path_length,
                        ..*index.get(&routes)
                    }),
                    _ => RouteChange::Announce(*candidate),
                };
                routes.retain(|other| match change {
                    RouteChange::Announce(one) => !same_route(other, &one),
                    RouteChange::Withdraw { prefix, source, next_hop } =>
                        (other.prefix, other.source, other.next_hop) != (prefix, source, next_hop),
                });
                if let RouteChange::Announce(one) = change {
                    routes.push(one);
                }
                changes.push(change);
            }
            let generation = NonZeroU32::new(number).unwrap();
            let next = current.with_routes(generation, &changes, usability).unwrap();
            prop_assert_eq!(next.generation(), generation);
            // The groups that were there are the same, with the very same words.
            for (old, new) in current.groups().iter().zip(next.groups()) {
                prop_assert!(Arc::ptr_eq(old.active(), new.active()));
            }
            assert_same(&next, &build(&routes), &probes);
            current = next;
        }
    }
}

/// Enough routes for several chunks and for nodes at every depth.
fn many(count: u32) -> Vec<Candidate> {
    let route = |index: u32| {
        let bits = 0x0b00_0000 | index << 8;
        let prefix = IpNet::new(IpAddr::from(bits.to_be_bytes()), 24).unwrap();
        let owner = OwnerId((index % 2) as u16);
        Candidate::new(prefix, RouteSource::Bgp, NextHop::Owner(owner))
    };
    (0..count).map(route).collect()
}

#[test]
fn chunks_split_and_go_as_routes_come_and_go() {
    let usability = |_| full(true);
    let mut builder = builder();
    builder.routes = many(3_000);
    let before = builder.clone().build(usability).unwrap();
    let more: Vec<Candidate> = many(9_000).split_off(3_000);
    let announce: Vec<RouteChange> = more.iter().copied().map(RouteChange::Announce).collect();
    let second = NonZeroU32::new(2).unwrap();
    let grown = before.with_routes(second, &announce, usability).unwrap();
    let mut all = builder.clone();
    all.routes = many(9_000);
    assert_same(&grown, &all.build(usability).unwrap(), &[]);
    let withdraw: Vec<RouteChange> = more
        .iter()
        .map(|one| RouteChange::Withdraw {
            prefix: one.prefix,
            source: one.source,
            next_hop: one.next_hop,
        })
        .collect();
    let mut shrunk = grown;
    for few in withdraw.chunks(100) {
        shrunk = shrunk.with_routes(second, few, usability).unwrap();
    }
    assert_same(&shrunk, &before, &[]);
}

#[test]
fn a_change_leaves_the_snapshot_before_it_as_it_was() {
    let usability = |_| full(true);
    let before = builder().build(usability).unwrap();
    let address = 0xac1f_0001_u128;
    let here = before.fib.find(Version::V4, address);
    let route = Candidate::new(
        net("172.31.0.0/28"),
        RouteSource::Bgp,
        NextHop::Owner(OwnerId(1)),
    );
    let second = NonZeroU32::new(2).unwrap();
    let after = before
        .with_routes(second, &[RouteChange::Announce(route)], usability)
        .unwrap();
    assert_eq!(before.fib.find(Version::V4, address), here);
    assert_ne!(after.fib.find(Version::V4, address), here);
}

#[test]
fn lookups_go_on_and_are_right_while_routes_change() {
    let usability = |_| full(true);
    let mut builder = builder();
    builder.routes.extend(many(5_000));
    let current = Mutex::new(Arc::new(builder.build(usability).unwrap()));
    let is_done = AtomicBool::new(false);
    // 10.2.0.0/16 stays as it is; 172.31.7.0/24 comes and goes between two circuits and the system route.
    let (stays, moves) = (0x0a02_0001, 0xac1f_0701);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let here = found(&current.lock().unwrap(), Version::V4, stays);
                let mut seen = 0_u64;
                while !is_done.load(Ordering::Acquire) || seen == 0 {
                    let snapshot = Arc::clone(&current.lock().unwrap());
                    assert_eq!(found(&snapshot, Version::V4, stays), here);
                    let (leads, members) = found(&snapshot, Version::V4, moves);
                    assert_eq!(leads, members.is_some());
                    seen += 1;
                }
            });
        }
        for number in 2..400 {
            let route = Candidate::new(
                net("172.31.7.0/24"),
                RouteSource::Bgp,
                NextHop::Owner(OwnerId(number as u16 % 2)),
            );
            let change = match number % 3 {
                0 => RouteChange::Withdraw {
                    prefix: route.prefix,
                    source: route.source,
                    next_hop: route.next_hop,
                },
                _ => RouteChange::Announce(route),
            };
            let before = Arc::clone(&current.lock().unwrap());
            let generation = NonZeroU32::new(number).unwrap();
            let next = before.with_routes(generation, &[change], usability);
            *current.lock().unwrap() = Arc::new(next.unwrap());
        }
        is_done.store(true, Ordering::Release);
    });
}

#[test]
fn a_change_that_leads_to_nothing_is_refused() {
    let before = builder().build(|_| full(true)).unwrap();
    let route = Candidate::new(
        net("10.77.0.0/16"),
        RouteSource::Bgp,
        NextHop::Owner(OwnerId(99)),
    );
    let refused = before.with_routes(NonZeroU32::MIN, &[RouteChange::Announce(route)], |_| {
        full(true)
    });
    assert_eq!(
        refused.unwrap_err(),
        BuildError::Unknown {
            by: "the route to 10.77.0.0/16".to_owned()
        }
    );
}
