//! The policy route table: ordered rules, of which the first that matches decides, before the route table.
//!
//! A rule matches if every field that it gives holds; within a field any entry will do. Ports hold only
//! for TCP and UDP, ICMP types only for ICMP, and neither for a later fragment, which shows none.

use crate::packet::{Fragment, Headers, Version, protocol};
use crate::path::Ingress;
use crate::prefix::PrefixSet;
use ipnet::IpNet;

/// Index of a rule in the policy route table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u16);

/// What a rule matches. An empty list: anything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    /// Where the packet came in.
    pub from: Vec<Ingress>,
    /// Source prefixes.
    pub source: Vec<IpNet>,
    /// Destination prefixes.
    pub destination: Vec<IpNet>,
    /// Protocol numbers.
    pub protocol: Vec<u8>,
    /// Source port ranges, both ends included.
    pub source_port: Vec<(u16, u16)>,
    /// Destination port ranges, both ends included.
    pub destination_port: Vec<(u16, u16)>,
    /// DSCP values, 6 bits.
    pub dscp: Vec<u8>,
    /// ICMP and ICMPv6 types.
    pub icmp_type: Vec<u8>,
    /// Fragments only (true), or whole packets only (false).
    pub fragment: Option<bool>,
}

/// The rules' matches, compiled.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    rules: Box<[Compiled]>,
    uses_dscp: bool,
}

impl Policy {
    /// Compiles matches, in order. Rules behind the 65,535th are not reachable by a [`RuleId`]; whoever
    /// builds a policy refuses that many.
    pub fn new(matches: &[Match]) -> Self {
        Self {
            rules: matches.iter().map(Compiled::new).collect(),
            uses_dscp: matches.iter().any(|one| !one.dscp.is_empty()),
        }
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether any rule looks at the DSCP, so that it tells flows apart.
    #[inline]
    pub fn uses_dscp(&self) -> bool {
        self.uses_dscp
    }

    /// The first rule that matches.
    #[inline]
    pub fn first_match(&self, ingress: Ingress, headers: &Headers) -> Option<RuleId> {
        let subject = Subject::new(ingress, headers);
        self.rules
            .iter()
            .position(|rule| rule.matches(&subject))
            .map(|index| RuleId(index as u16))
    }
}

/// A packet as rules see it.
struct Subject {
    ingress: Ingress,
    source: u128,
    destination: u128,
    version: Version,
    protocol: u8,
    /// Source and destination port, where there are any.
    ports: Option<(u16, u16)>,
    icmp_type: Option<u8>,
    dscp: u8,
    is_fragment: bool,
}

impl Subject {
    #[inline]
    fn new(ingress: Ingress, headers: &Headers) -> Self {
        let key = &headers.key;
        let has_transport = headers.fragment != Fragment::Later;
        let has_ports = has_transport && matches!(key.protocol, protocol::TCP | protocol::UDP);
        Self {
            ingress,
            source: key.source,
            destination: key.destination,
            version: key.version,
            protocol: key.protocol,
            ports: has_ports.then_some((key.source_port, key.destination_port)),
            icmp_type: (has_transport && key.is_icmp())
                .then_some((key.destination_port >> 8) as u8),
            dscp: headers.traffic_class >> 2,
            is_fragment: headers.fragment != Fragment::Whole,
        }
    }
}

/// A set of numbers from 0 to 255; `None` of a field means any.
#[derive(Clone, Copy, Debug)]
struct ByteSet([u64; 4]);

impl ByteSet {
    fn new(values: &[u8]) -> Option<Self> {
        let mut words = [0_u64; 4];
        for &value in values {
            if let Some(word) = words.get_mut(usize::from(value >> 6)) {
                *word |= 1 << (value & 63);
            }
        }
        (!values.is_empty()).then_some(Self(words))
    }

    #[inline]
    fn contains(&self, value: u8) -> bool {
        self.0
            .get(usize::from(value >> 6))
            .is_some_and(|word| word >> (value & 63) & 1 != 0)
    }
}

#[derive(Clone, Debug)]
struct Compiled {
    protocol: Option<ByteSet>,
    dscp: Option<ByteSet>,
    icmp_type: Option<ByteSet>,
    fragment: Option<bool>,
    from: Box<[Ingress]>,
    destination_port: Box<[(u16, u16)]>,
    source_port: Box<[(u16, u16)]>,
    destination: Option<PrefixSet>,
    source: Option<PrefixSet>,
}

impl Compiled {
    fn new(given: &Match) -> Self {
        let set = |prefixes: &[IpNet]| {
            (!prefixes.is_empty()).then(|| prefixes.iter().copied().collect::<PrefixSet>())
        };
        Self {
            protocol: ByteSet::new(&given.protocol),
            dscp: ByteSet::new(&given.dscp),
            icmp_type: ByteSet::new(&given.icmp_type),
            fragment: given.fragment,
            from: given.from.as_slice().into(),
            destination_port: given.destination_port.as_slice().into(),
            source_port: given.source_port.as_slice().into(),
            destination: set(&given.destination),
            source: set(&given.source),
        }
    }

    /// The cheap tests stand first.
    #[inline]
    fn matches(&self, subject: &Subject) -> bool {
        self.protocol
            .is_none_or(|set| set.contains(subject.protocol))
            && in_ranges(&self.destination_port, subject.ports.map(|ports| ports.1))
            && in_ranges(&self.source_port, subject.ports.map(|ports| ports.0))
            && self
                .icmp_type
                .is_none_or(|set| subject.icmp_type.is_some_and(|kind| set.contains(kind)))
            && self.dscp.is_none_or(|set| set.contains(subject.dscp))
            && self.fragment.is_none_or(|want| want == subject.is_fragment)
            && (self.from.is_empty() || self.from.contains(&subject.ingress))
            && self
                .destination
                .as_ref()
                .is_none_or(|set| set.contains(subject.version, subject.destination))
            && self
                .source
                .as_ref()
                .is_none_or(|set| set.contains(subject.version, subject.source))
    }
}

#[inline]
fn in_ranges(ranges: &[(u16, u16)], port: Option<u16>) -> bool {
    ranges.is_empty()
        || port.is_some_and(|port| {
            ranges
                .iter()
                .any(|&(first, last)| (first..=last).contains(&port))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::FlowKey;
    use crate::path::PathId;
    use proptest::prelude::*;
    use std::net::IpAddr;

    /// The rule's words, one by one.
    fn naive(given: &Match, ingress: Ingress, headers: &Headers) -> bool {
        let key = &headers.key;
        let later = headers.fragment == Fragment::Later;
        let any = |list_empty: bool, holds: bool| list_empty || holds;
        let in_nets = |nets: &[IpNet], address: IpAddr| nets.iter().any(|n| n.contains(&address));
        let in_ports = |ranges: &[(u16, u16)], port: u16| {
            !later
                && [6, 17].contains(&key.protocol)
                && ranges.iter().any(|r| r.0 <= port && port <= r.1)
        };
        let icmp = key.protocol == if key.version == Version::V4 { 1 } else { 58 };
        any(given.from.is_empty(), given.from.contains(&ingress))
            && any(
                given.source.is_empty(),
                in_nets(&given.source, key.source_address()),
            )
            && any(
                given.destination.is_empty(),
                in_nets(&given.destination, key.destination_address()),
            )
            && any(
                given.protocol.is_empty(),
                given.protocol.contains(&key.protocol),
            )
            && any(
                given.source_port.is_empty(),
                in_ports(&given.source_port, key.source_port),
            )
            && any(
                given.destination_port.is_empty(),
                in_ports(&given.destination_port, key.destination_port),
            )
            && any(
                given.dscp.is_empty(),
                given.dscp.contains(&(headers.traffic_class / 4)),
            )
            && any(
                given.icmp_type.is_empty(),
                icmp && !later
                    && given
                        .icmp_type
                        .contains(&key.destination_port.to_be_bytes()[0]),
            )
            && given
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
        ) -> Match {
            let given = given & given_too;
            let mut rule = Match { from, source, destination, protocol, source_port, destination_port, dscp, icmp_type, fragment };
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

    proptest! {
        #[test]
        fn the_first_match_is_that_of_a_naive_evaluator(
            rules in proptest::collection::vec(a_match(), 0..20),
            packets in proptest::collection::vec((ingress(), packet()), 40),
        ) {
            let policy = Policy::new(&rules);
            for (ingress, headers) in packets {
                // Source and destination of one family, as the parser makes them.
                let expected = rules.iter().position(|rule| naive(rule, ingress, &headers));
                prop_assert_eq!(
                    policy.first_match(ingress, &headers),
                    expected.map(|index| RuleId(index as u16))
                );
            }
        }
    }
}
