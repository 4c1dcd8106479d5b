use super::*;
use crate::packet::FlowKey;
use crate::path::PathId;
use proptest::prelude::*;
use std::net::IpAddr;

/// The rule's words, one by one.
fn naive(given: &Match, ingress: Ingress, headers: &Headers) -> bool {
    let key = &headers.key;
    let later = headers.fragment == Fragment::Later;
    // A field that is not there holds only if nothing is said of it.
    let holds = |is_empty: bool, negated: bool, is_there: bool, inside: bool| {
        is_empty || is_there && inside != negated
    };
    let in_nets = |nets: &[IpNet], address: IpAddr| nets.iter().any(|n| n.contains(&address));
    let in_ports =
        |ranges: &[(u16, u16)], port: u16| ranges.iter().any(|r| r.0 <= port && port <= r.1);
    let ports = !later && [6, 17].contains(&key.protocol);
    let icmp = !later && key.protocol == if key.version == Version::V4 { 1 } else { 58 };
    let icmp_type = key.destination_port.to_be_bytes()[0];
    let dscp = headers.traffic_class / 4;
    let not = given.negated;
    holds(
        given.from.is_empty(),
        not.from,
        true,
        given.from.contains(&ingress),
    ) && holds(
        given.source.is_empty(),
        not.source,
        true,
        in_nets(&given.source, key.source_address()),
    ) && holds(
        given.destination.is_empty(),
        not.destination,
        true,
        in_nets(&given.destination, key.destination_address()),
    ) && holds(
        given.protocol.is_empty(),
        not.protocol,
        true,
        given.protocol.contains(&key.protocol),
    ) && holds(
        given.source_port.is_empty(),
        not.source_port,
        ports,
        in_ports(&given.source_port, key.source_port),
    ) && holds(
        given.destination_port.is_empty(),
        not.destination_port,
        ports,
        in_ports(&given.destination_port, key.destination_port),
    ) && holds(
        given.dscp.is_empty(),
        not.dscp,
        true,
        given.dscp.contains(&dscp),
    ) && holds(
        given.icmp_type.is_empty(),
        not.icmp_type,
        icmp,
        given.icmp_type.contains(&icmp_type),
    ) && given
        .fragment
        .is_none_or(|want| want == (headers.fragment != Fragment::Whole))
}

fn some<T: Clone + std::fmt::Debug>(
    one: impl Strategy<Value = T>,
) -> impl Strategy<Value = Vec<T>> {
    proptest::collection::vec(one, 0..3)
}

fn ingress() -> impl Strategy<Value = Ingress> {
    prop_oneof![
        Just(Ingress::Vnet),
        (0..3_u16).prop_map(|p| Ingress::Path(PathId(p)))
    ]
}

fn address() -> impl Strategy<Value = IpAddr> {
    let low = || (0..4_u8, 0..4_u8);
    prop_oneof![
        low().prop_map(|(a, b)| IpAddr::from([10, a, 0, b])),
        low().prop_map(|(a, b)| IpAddr::from([0xfd00, a.into(), 0, 0, 0, 0, 0, b.into()])),
    ]
}

fn net() -> impl Strategy<Value = IpNet> {
    (address(), 0..5_u8).prop_map(|(address, cut)| {
        let cut = cut * 6;
        let length = if address.is_ipv4() { 32 } else { 128 } - cut;
        IpNet::new(address, length).unwrap()
    })
}

fn range() -> impl Strategy<Value = (u16, u16)> {
    (0..6_u16, 0..3_u16).prop_map(|(first, more)| (first, first + more))
}

fn negated(bits: u8) -> Negated {
    let bit = |place: u8| bits >> place & 1 != 0;
    Negated {
        from: bit(0),
        source: bit(1),
        destination: bit(2),
        protocol: bit(3),
        source_port: bit(4),
        destination_port: bit(5),
        dscp: bit(6),
        icmp_type: bit(7),
    }
}

prop_compose! {
    fn a_match()(
        from in some(ingress()),
        source in some(net()),
        destination in some(net()),
        protocol in some(prop::sample::select(vec![1_u8, 6, 17, 47, 58])),
        source_port in some(range()),
        destination_port in some(range()),
        dscp in some(0..3_u8),
        icmp_type in some(0..3_u8),
        fragment in any::<Option<bool>>(),
        // Most fields are not given, so that rules match now and then.
        given in any::<u16>(),
        given_too in any::<u16>(),
        not in any::<u8>(),
        not_too in any::<u8>(),
    ) -> Match {
        let given = given & given_too;
        let mut rule = Match { from, source, destination, protocol, source_port, destination_port, dscp, icmp_type, fragment, negated: negated(not & not_too) };
        if given & 1 == 0 { rule.from.clear(); }
        if given & 2 == 0 { rule.source.clear(); }
        if given & 4 == 0 { rule.destination.clear(); }
        if given & 8 == 0 { rule.protocol.clear(); }
        if given & 16 == 0 { rule.source_port.clear(); }
        if given & 32 == 0 { rule.destination_port.clear(); }
        if given & 64 == 0 { rule.dscp.clear(); }
        if given & 128 == 0 { rule.icmp_type.clear(); }
        if given & 256 == 0 { rule.fragment = None; }
        rule
    }
}

prop_compose! {
    fn packet()(
        addresses in (address(), address()),
        protocol in prop::sample::select(vec![1_u8, 6, 17, 47, 58]),
        ports in (0..8_u16, prop_oneof![0..8_u16, (0..4_u16).prop_map(|t| t << 8)]),
        traffic_class in 0..16_u8,
        fragment in prop::sample::select(vec![Fragment::Whole, Fragment::First, Fragment::Later]),
    ) -> Headers {
        let (version, source) = crate::packet::address_bits(addresses.0);
        let (_, destination) = crate::packet::address_bits(addresses.1);
        let ports = if fragment == Fragment::Later { (0, 0) } else { ports };
        Headers {
            key: FlowKey { source, destination, source_port: ports.0, destination_port: ports.1, protocol, version },
            transport: 20, payload: 20, total_len: 20, traffic_class, hop_limit: 9,
            fragment, dont_fragment: true, tcp_flags: 0,
        }
    }
}

fn first_by_words(rules: &[Match], ingress: Ingress, headers: &Headers) -> Option<usize> {
    rules.iter().position(|rule| naive(rule, ingress, headers))
}

proptest! {
    #[test]
    fn the_first_match_is_that_of_a_naive_evaluator(
        rules in proptest::collection::vec(a_match(), 0..20),
        // Rules before them that no packet matches move them over the ends of words and blocks.
        before in prop_oneof![Just(0_usize), 0..70_usize, 1_010..1_030_usize],
        packets in proptest::collection::vec((ingress(), packet()), 40),
    ) {
        let never = Match { protocol: vec![250], ..Match::default() };
        let mut all = vec![never; before];
        all.extend(rules);
        let policy = Policy::new(&all);
        prop_assert_eq!(policy.len(), all.len());
        for (ingress, headers) in packets {
            // Source and destination of one family, as the parser makes them.
            let expected = first_by_words(&all, ingress, &headers);
            prop_assert_eq!(
                policy.first_match(ingress, &headers),
                expected.map(|index| RuleId(index as u16))
            );
        }
    }

    #[test]
    fn a_shadowed_rule_matches_nothing_that_its_shadow_does_not(
        rules in proptest::collection::vec(a_match(), 0..20),
        packets in proptest::collection::vec((ingress(), packet()), 60),
    ) {
        for Shadow { rule, by } in shadowed(&rules) {
            prop_assert!(by.is_none_or(|by| by < rule));
            for (ingress, headers) in &packets {
                let reached = naive(&rules[rule], *ingress, headers);
                let taken = by.is_some_and(|by| naive(&rules[by], *ingress, headers));
                prop_assert!(!reached || taken);
            }
        }
    }

    #[test]
    fn ranges_and_gaps_part_all_numbers(
        given in proptest::collection::vec((any::<u16>(), any::<u16>()), 0..6),
        ends in any::<[bool; 2]>(),
    ) {
        let mut given = given;
        given.extend(ends[0].then_some((0, 3)));
        given.extend(ends[1].then_some((65_530, u16::MAX)));
        let (inside, outside) = (ranges(given.clone(), false), ranges(given.clone(), true));
        for number in 0..=u16::MAX {
            let holds = |set: &[(u16, u16)]| set.iter().any(|r| r.0 <= number && number <= r.1);
            prop_assert_eq!(holds(&inside), holds(&given));
            prop_assert_eq!(holds(&outside), !holds(&given));
        }
    }
}

#[test]
fn every_value_of_a_field_may_be_another_rule_s() {
    // As many different pages and rows as there can be.
    let rules: Vec<Match> = (0..=u16::MAX)
        .step_by(64)
        .map(|port| Match {
            destination_port: vec![(port, port)],
            ..Match::default()
        })
        .collect();
    let policy = Policy::new(&rules);
    for port in [0, 1, 64, 65, 255, 256, 65_472, 65_535] {
        let packet = crate::decide::tests::headers("10.1.0.4", "10.2.0.1", port);
        let expected = port.is_multiple_of(64).then_some(RuleId(port / 64));
        assert_eq!(policy.first_match(Ingress::Vnet, &packet), expected);
    }
}

#[test]
fn a_negated_port_is_not_held_by_a_packet_without_ports() {
    let rules = [Match {
        destination_port: vec![(23, 23)],
        negated: Negated {
            destination_port: true,
            ..Negated::default()
        },
        ..Match::default()
    }];
    let policy = Policy::new(&rules);
    let mut packet = crate::decide::tests::headers("10.1.0.4", "10.2.0.1", 80);
    assert_eq!(policy.first_match(Ingress::Vnet, &packet), Some(RuleId(0)));
    packet.fragment = Fragment::Later;
    assert_eq!(policy.first_match(Ingress::Vnet, &packet), None);
}
