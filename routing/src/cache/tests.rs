use super::*;
use crate::decide::tests::{ONPREM, PRIMARY, SECONDARY, builder, full, headers, net, snapshot};
use crate::policy::Match;
use crate::rib::{Candidate, NextHop, OwnerId, RouteSource};
use crate::snapshot::{Action, Rule};
use proptest::prelude::*;
use std::collections::HashMap;
use std::num::NonZeroU32;

#[test]
fn a_remembered_flow_is_a_hit() {
    let snapshot = snapshot();
    let mut cache = FlowCache::new(1024, 7);
    let packet = headers("10.1.0.4", "10.3.0.1", 80);
    for _ in 0..3 {
        let decision = cache.decide(&snapshot, Ingress::Vnet, &packet);
        assert_eq!(decision, snapshot.decide(Ingress::Vnet, &packet));
        assert_eq!(decision.verdict, Verdict::Path(ONPREM));
    }
    assert_eq!(cache.hits_and_misses(), (2, 1));
}

#[test]
fn a_flow_stays_on_its_path_while_that_lives_and_moves_when_it_does_not() {
    let snapshot = snapshot();
    let mut cache = FlowCache::new(4096, 7);
    let mut on = |port: u16| {
        let packet = headers("10.1.0.4", "10.2.0.1", port);
        cache.decide(&snapshot, Ingress::Vnet, &packet).verdict
    };
    snapshot.update(|path| full(path != PRIMARY));
    for port in 0..64 {
        assert_eq!(on(port), Verdict::Path(SECONDARY));
    }
    // The primary is back: old flows stay, new ones use both.
    snapshot.update(|_| full(true));
    for port in 0..64 {
        assert_eq!(on(port), Verdict::Path(SECONDARY));
    }
    assert!((64..128).any(|port| on(port) == Verdict::Path(PRIMARY)));
    snapshot.update(|path| full(path != SECONDARY));
    for port in 0..128 {
        assert_eq!(on(port), Verdict::Path(PRIMARY));
    }
    // A lower tier is left when the upper one is back.
    snapshot.update(|path| full(path == ONPREM));
    assert_eq!(on(1), Verdict::Path(ONPREM));
    snapshot.update(|path| full(path != PRIMARY));
    assert_eq!(on(1), Verdict::Path(SECONDARY));
}

#[test]
fn a_new_snapshot_is_asked_again() {
    let old = snapshot();
    let mut cache = FlowCache::new(64, 1);
    let packet = headers("10.1.0.4", "10.3.0.1", 80);
    cache.decide(&old, Ingress::Vnet, &packet);
    let mut builder = builder();
    builder.generation = NonZeroU32::new(2).unwrap();
    builder.routes.push(Candidate::new(
        net("10.3.0.0/24"),
        RouteSource::UserDefined,
        NextHop::None,
    ));
    let new = builder.build(|_| full(true)).unwrap();
    assert_eq!(
        cache.decide(&new, Ingress::Vnet, &packet).verdict,
        Verdict::Drop(DropReason::RouteNone)
    );
}

#[test]
fn a_flow_without_a_path_finds_one_when_there_is_one() {
    let snapshot = snapshot();
    snapshot.update(|_| full(false));
    let mut cache = FlowCache::new(64, 1);
    let packet = headers("10.1.0.4", "10.3.0.1", 80);
    let mut verdict = || cache.decide(&snapshot, Ingress::Vnet, &packet).verdict;
    assert_eq!(verdict(), Verdict::Drop(DropReason::NoPath));
    assert_eq!(verdict(), Verdict::Drop(DropReason::NoPath));
    snapshot.update(|_| full(true));
    assert_eq!(verdict(), Verdict::Path(ONPREM));
}

#[test]
fn when_epochs_are_used_up_flows_are_asked_again_and_stay_where_they_were() {
    let snapshots = [1, 2].map(|generation| {
        let mut builder = builder();
        builder.generation = NonZeroU32::new(generation).unwrap();
        builder.build(|path| full(path != PRIMARY)).unwrap()
    });
    let mut cache = FlowCache::new(1024, 1);
    let packets: Vec<Headers> = (0..64)
        .map(|port| headers("10.1.0.4", "10.2.0.1", port))
        .collect();
    for packet in &packets {
        cache.decide(&snapshots[0], Ingress::Vnet, packet);
    }
    for snapshot in &snapshots {
        snapshot.update(|_| full(true));
    }
    let other = headers("10.1.0.4", "10.3.0.1", 80);
    for turn in 1..=usize::from(u16::MAX) {
        cache.decide(&snapshots[turn % 2], Ingress::Vnet, &other);
    }
    assert_eq!(cache.hits_and_misses().0, 0);
    for packet in &packets {
        let decision = cache.decide(&snapshots[1], Ingress::Vnet, packet);
        assert_eq!(decision.verdict, Verdict::Path(SECONDARY));
    }
    assert_eq!(cache.hits_and_misses().0, 0);
}

#[test]
fn as_many_flows_as_the_cache_is_for_are_nearly_all_remembered() {
    let snapshot = snapshot();
    let mut cache = FlowCache::new(4096, 3);
    for round in 0..3 {
        let (_, before) = cache.hits_and_misses();
        for port in 0..4096 {
            let packet = headers("10.1.0.4", "10.3.0.1", port);
            cache.decide(&snapshot, Ingress::Vnet, &packet);
        }
        let misses = cache.hits_and_misses().1 - before;
        assert!(round == 0 || misses < 4096 / 10, "{misses}");
    }
}

proptest! {
    // A cache of 16 entries for 60 flows, so that they push each other out.
    #[test]
    fn the_cache_decides_as_the_snapshot_does_or_keeps_a_living_path(
        uses_dscp in any::<bool>(),
        steps in proptest::collection::vec((0..8_u8, 0..60_u16, any::<u8>(), 0..3_u8), 1..200),
    ) {
        let build = |generation: u32, health: u8| {
            let mut builder = builder();
            builder.generation = NonZeroU32::new(generation).unwrap();
            builder.branch_transit = generation.is_multiple_of(2);
            let odd = generation.is_multiple_of(3);
            let matches = Match {
                dscp: if uses_dscp { vec![1] } else { Vec::new() },
                destination_port: vec![(1, 7)],
                ..Match::default()
            };
            let via = Action::Via(vec![OwnerId(2), OwnerId(0)]);
            let set_dscp = odd.then_some(9);
            let action = if odd { Action::Drop } else { via };
            builder.policy = vec![Rule { name: "rule".to_owned(), matches, action, set_dscp }];
            builder.build(|path| full(health >> path.0 & 1 != 0)).unwrap()
        };
        let (mut generation, mut current) = (1, build(1, 0xff));
        let mut cache = FlowCache::new(8, 5);
        let mut last = HashMap::new();
        for (what, flow, health, dscp) in steps {
            match what {
                0 => {
                    generation += 1;
                    current = build(generation, health);
                }
                1 => { current.update(|path| full(health >> path.0 & 1 != 0)); }
                _ => {}
            }
            let (ingress, source) = match flow % 3 {
                0 => (Ingress::Vnet, "10.1.0.4"),
                1 => (Ingress::Path(PRIMARY), "10.2.0.1"),
                _ => (Ingress::Path(ONPREM), "10.3.0.1"),
            };
            let destination = ["10.2.0.1", "10.4.0.1", "10.5.0.1", "10.1.0.7", "10.1.255.4"][usize::from(flow % 5)];
            let mut packet = headers(source, destination, flow % 12);
            packet.traffic_class = dscp << 2;
            let cached = cache.decide(&current, ingress, &packet);
            let fresh = current.decide(ingress, &packet);
            prop_assert_eq!((cached.group, cached.rule, cached.is_routed), (fresh.group, fresh.rule, fresh.is_routed));
            prop_assert_eq!(cached.set_dscp, fresh.set_dscp);
            if cached.verdict != fresh.verdict {
                // Only another member, and only the one that the flow was on before.
                let before = last.get(&(flow, if uses_dscp { dscp } else { 0 }));
                prop_assert_eq!(Some(&cached.verdict), before);
            }
            if let (Some(group), Some(member)) = (cached.group, cached.member) {
                let group = current.group(group).unwrap();
                prop_assert!(group.active().load() >> member & 1 != 0);
                if let Verdict::Path(path) = cached.verdict {
                    prop_assert_eq!(path, group.members()[usize::from(member)]);
                }
            }
            last.insert((flow, if uses_dscp { dscp } else { 0 }), cached.verdict);
        }
    }
}
