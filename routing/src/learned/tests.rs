use super::*;
use crate::decide::tests::{full, snapshot};
use crate::snapshot::Snapshot;
use proptest::prelude::*;
use std::collections::HashSet;
use std::num::NonZeroU32;

const FIRST: SessionId = SessionId(0);
const SECOND: SessionId = SessionId(1);

fn session(path: u16) -> LearnedSession {
    LearnedSession {
        path: PathId(path),
        gateway: PathKind::ExpressRoute,
        weight: 0,
        prefixes_v4: Some(CIRCUIT_PREFIXES_V4),
        prefixes_v6: Some(CIRCUIT_PREFIXES_V6),
    }
}

fn v4(index: u32) -> IpNet {
    IpNet::new((0x0b00_0000 | index << 8).to_be_bytes().into(), 24).unwrap()
}

fn v6(index: u128) -> IpNet {
    IpNet::new((0x2001 << 112 | index << 80).to_be_bytes().into(), 48).unwrap()
}

fn withdrawn(changes: &[RouteChange]) -> usize {
    let is = |change: &&RouteChange| matches!(change, RouteChange::Withdraw { .. });
    changes.iter().filter(is).count()
}

#[test]
fn the_session_that_goes_over_its_prefixes_drops_and_returns_when_the_count_falls() {
    let mut learned = LearnedRoutes::new();
    learned.open(FIRST, session(0));
    learned.open(SECOND, session(1));
    learned.announce(SECOND, v4(0), 1);
    for index in 0..4_000 {
        learned.announce(FIRST, v4(index), 1);
    }
    assert_eq!(learned.take_events(), []);
    assert_eq!(learned.take_changes().len(), 4_001);
    learned.announce(FIRST, v4(4_000), 1);
    let over = Over {
        limit: Limit::PrefixesV4,
        found: 4_001,
        allowed: 4_000,
    };
    assert_eq!(learned.take_events(), [SessionEvent::Dropped(FIRST, over)]);
    assert_eq!(
        over.to_string(),
        "4001 IPv4 prefixes of the session, at most 4000"
    );
    assert_eq!(withdrawn(&learned.take_changes()), 4_001);
    // The other link's session goes on.
    assert_eq!(learned.candidates().count(), 1);
    learned.announce(FIRST, v4(5_000), 1);
    learned.withdraw(FIRST, v4(7));
    assert_eq!(learned.take_events(), []);
    learned.withdraw(FIRST, v4(8));
    assert_eq!(learned.take_events(), [SessionEvent::Returned(FIRST)]);
    assert_eq!(learned.take_changes().len(), 4_000);
    assert_eq!(learned.candidates().count(), 4_001);
}

#[test]
fn ipv6_prefixes_have_a_limit_of_their_own_and_premium_a_larger_one() {
    let mut learned = LearnedRoutes::new();
    let premium = LearnedSession {
        prefixes_v4: Some(CIRCUIT_PREFIXES_V4_PREMIUM),
        ..session(0)
    };
    learned.open(FIRST, premium);
    for index in 0..10_000 {
        learned.announce(FIRST, v4(index), 1);
    }
    for index in 0..100 {
        learned.announce(FIRST, v6(index), 1);
    }
    assert_eq!(learned.take_events(), []);
    learned.announce(FIRST, v6(100), 1);
    let dropped = learned.sessions().next().unwrap().1;
    assert_eq!(dropped.announced, [10_000, 101]);
    assert_eq!(dropped.dropped.unwrap().limit, Limit::PrefixesV6);
}

#[test]
fn a_gateway_learns_a_prefix_of_two_links_once_and_drops_who_goes_over() {
    let mut learned = LearnedRoutes::new();
    learned.set_limits(PathKind::ExpressRoute, Some(3), Some(1_000));
    learned.open(FIRST, session(0));
    learned.open(SECOND, session(1));
    for id in [FIRST, SECOND] {
        for index in 0..3 {
            learned.announce(id, v4(index), 2);
        }
    }
    assert_eq!(learned.learned(PathKind::ExpressRoute), 3);
    assert_eq!(learned.take_events(), []);
    learned.announce(SECOND, v4(3), 2);
    assert!(matches!(
        learned.take_events()[..],
        [SessionEvent::Dropped(
            SECOND,
            Over {
                limit: Limit::Learned,
                found: 4,
                allowed: 3
            }
        )]
    ));
    // A larger SKU lets it return.
    learned.set_limits(PathKind::ExpressRoute, Some(4), Some(1_000));
    assert_eq!(learned.take_events(), [SessionEvent::Returned(SECOND)]);
    // A smaller one drops the latest.
    learned.set_limits(PathKind::ExpressRoute, Some(3), Some(1_000));
    assert!(matches!(
        learned.take_events()[..],
        [SessionEvent::Dropped(SECOND, _)]
    ));
    learned.close(FIRST);
    assert_eq!(learned.take_events(), []);
    learned.withdraw(SECOND, v4(0));
    assert_eq!(learned.take_events(), [SessionEvent::Returned(SECOND)]);
}

#[test]
fn too_many_advertised_routes_drop_every_session_of_that_gateway() {
    let mut learned = LearnedRoutes::new();
    learned.set_limits(PathKind::ExpressRoute, None, Some(1_000));
    learned.open(FIRST, session(0));
    let vpn = LearnedSession {
        gateway: PathKind::Vpn,
        ..session(1)
    };
    learned.open(SECOND, vpn);
    learned.announce(FIRST, v4(0), 1);
    learned.announce(SECOND, v4(0), 1);
    learned.set_advertised(PathKind::ExpressRoute, 1_001);
    assert_eq!(learned.candidates().count(), 1);
    learned.set_advertised(PathKind::ExpressRoute, 1_000);
    assert_eq!(learned.candidates().count(), 2);
    let events = learned.take_events();
    assert!(matches!(
        events[..],
        [
            SessionEvent::Dropped(FIRST, _),
            SessionEvent::Returned(FIRST)
        ]
    ));
}

#[test]
fn a_session_that_closes_takes_its_routes_along_and_is_not_heard_any_more() {
    let mut learned = LearnedRoutes::new();
    learned.open(FIRST, session(0));
    learned.announce(FIRST, v4(0), 1);
    learned.close(FIRST);
    learned.announce(FIRST, v4(1), 1);
    assert_eq!(learned.candidates().count(), 0);
    let changes = learned.take_changes();
    assert_eq!((changes.len(), withdrawn(&changes)), (2, 1));
}

/// The members of the group that leads to an address.
fn members(snapshot: &Snapshot, prefix: IpNet) -> Vec<PathId> {
    let group = snapshot.group_of(snapshot.rib().prefix(prefix));
    group.map_or_else(Vec::new, |id| {
        snapshot.group(id).unwrap().members().to_vec()
    })
}

#[test]
fn both_links_share_what_both_sessions_bring_until_one_drops() {
    let mut learned = LearnedRoutes::new();
    learned.open(FIRST, session(0));
    let few = LearnedSession {
        prefixes_v4: Some(1),
        ..session(1)
    };
    learned.open(SECOND, few);
    let mut generation = NonZeroU32::MIN;
    let mut snapshot = snapshot();
    let mut apply = |learned: &mut LearnedRoutes| {
        generation = generation.checked_add(1).unwrap();
        let next = snapshot.with_routes(generation, &learned.take_changes(), |_| full(true));
        snapshot = next.unwrap();
        members(&snapshot, v4(0))
    };
    learned.announce(FIRST, v4(0), 2);
    learned.announce(SECOND, v4(0), 2);
    assert_eq!(apply(&mut learned), [PathId(0), PathId(1)]);
    learned.announce(SECOND, v4(1), 2);
    assert_eq!(apply(&mut learned), [PathId(0)]);
    learned.withdraw(SECOND, v4(1));
    assert_eq!(apply(&mut learned), [PathId(0), PathId(1)]);
    learned.close(FIRST);
    learned.close(SECOND);
    assert_eq!(apply(&mut learned), []);
}

proptest! {
    #[test]
    fn the_changes_add_up_to_the_candidates_and_no_limit_is_gone_over(
        inputs in prop::collection::vec((0..4_u32, 0..8_u8, 0..12_u32, 0..3_u32), 0..120),
    ) {
        let mut learned = LearnedRoutes::new();
        let mut limit = Some(8);
        learned.set_limits(PathKind::ExpressRoute, limit, Some(1_000));
        let mut table: Vec<Candidate> = Vec::new();
        let mut down: HashSet<SessionId> = HashSet::new();
        for (id, what, index, length) in inputs {
            let (id, prefix) = (SessionId(id), if index < 9 { v4(index) } else { v6(index.into()) });
            match what {
                0 => learned.open(id, LearnedSession {
                    prefixes_v4: Some(6), prefixes_v6: Some(2), ..session(id.0 as u16)
                }),
                1 => learned.close(id),
                2 | 3 => learned.withdraw(id, prefix),
                4 => {
                    limit = [None, Some(4), Some(8)][length as usize];
                    learned.set_limits(PathKind::ExpressRoute, limit, Some(1_000));
                }
                _ => learned.announce(id, prefix, length),
            }
            for change in learned.take_changes() {
                let key = |one: &Candidate| (one.prefix, one.source, one.next_hop);
                match change {
                    RouteChange::Announce(one) => {
                        table.retain(|other| key(other) != key(&one));
                        table.push(one);
                    }
                    RouteChange::Withdraw { prefix, source, next_hop } => {
                        let there = table.len();
                        table.retain(|other| key(other) != (prefix, source, next_hop));
                        prop_assert_eq!(table.len(), there - 1);
                    }
                }
            }
            let order = |one: &Candidate| (one.prefix, one.next_hop, one.as_path_length);
            let mut candidates: Vec<Candidate> = learned.candidates().collect();
            candidates.sort_by_key(order);
            table.sort_by_key(order);
            prop_assert_eq!(&candidates, &table);
            let distinct: HashSet<IpNet> = table.iter().map(|one| one.prefix).collect();
            prop_assert_eq!(distinct.len(), learned.learned(PathKind::ExpressRoute));
            prop_assert!(limit.is_none_or(|limit| distinct.len() <= limit));
            for event in learned.take_events() {
                match event {
                    SessionEvent::Dropped(id, _) => prop_assert!(down.insert(id)),
                    SessionEvent::Returned(id) => prop_assert!(down.remove(&id)),
                }
            }
            down.retain(|id| learned.sessions().any(|(open, status)| open == *id && status.dropped.is_some()));
            for (id, status) in learned.sessions() {
                prop_assert_eq!(status.dropped.is_some(), down.contains(&id));
                if status.dropped.is_none() {
                    prop_assert!(status.announced[0] <= 6 && status.announced[1] <= 2);
                }
            }
        }
    }
}
