//! Rules that can never match, because an earlier one takes everything that they would.
//!
//! 1. For each rule, one packet that it matches is made up; the classifier says which earlier rules match
//!    that packet. No other rule can cover this one.
//! 2. Of those, the first of which every field holds all that this rule's field holds covers it.
//!
//! Rules are held against one another in pairs: a rule that only several earlier ones cover together is
//! not found. So what is found is true, and more may be true.

use super::{Addresses, Fields, Match, NUMBERS, Number, Policy, Subject};
use crate::packet::{Version, protocol};

/// The places of the fields in [`Subject::numbers`].
const PROTOCOL: usize = 1;
const ICMP_TYPE: usize = 4;
const SOURCE_PORT: usize = 5;
const DESTINATION_PORT: usize = 6;

/// At most so many earlier rules are looked at for one rule, so that 65,535 rules end in seconds.
const CANDIDATES: usize = 1_024;

/// A rule that can never match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// Its place among the matches.
    pub rule: usize,
    /// The earlier rule that matches all that it would; `None` if it contradicts itself (ports of ICMP,
    /// a source and a destination of different IP versions, a range whose end lies before its start).
    pub by: Option<usize>,
}

/// The rules that can never match, in order, each with the first rule that covers it.
pub fn shadowed(matches: &[Match]) -> Vec<Shadow> {
    let policy = Policy::new(matches);
    let fields: Vec<Fields> = matches.iter().map(Fields::of).map(consequences).collect();
    let shadow = |(rule, of): (usize, &Fields)| {
        let Some(witness) = witness(of) else {
            return Some(Shadow { rule, by: None });
        };
        let earlier = policy.classifier.all(&witness);
        let mut earlier = earlier.take_while(|&other| other < rule).take(CANDIDATES);
        let by = earlier.find(|&other| fields.get(other).is_some_and(|other| covers(other, of)))?;
        Some(Shadow { rule, by: Some(by) })
    };
    fields.iter().enumerate().filter_map(shadow).collect()
}

/// Says of the protocol what other fields say of it: ports are of TCP and UDP, types of ICMP.
fn consequences(mut fields: Fields) -> Fields {
    let gives = |field: usize| fields.numbers.get(field).is_some_and(Option::is_some);
    let single = |number: u8| (u16::from(number), u16::from(number));
    let mut implied = Vec::new();
    if gives(SOURCE_PORT) || gives(DESTINATION_PORT) {
        implied.push(vec![single(protocol::TCP), single(protocol::UDP)]);
    }
    if gives(ICMP_TYPE) {
        implied.push(vec![single(protocol::ICMP), single(protocol::ICMPV6)]);
    }
    if let Some(given) = fields.numbers.get_mut(PROTOCOL) {
        for implied in implied {
            *given = Some(match given.take() {
                Some(given) => common(&given, &implied),
                None => implied,
            });
        }
    }
    fields
}

/// A packet that matches; `None` if there is none.
fn witness(fields: &Fields) -> Option<Subject> {
    [Version::V4, Version::V6].into_iter().find_map(|version| {
        let address = |given: &Option<Addresses>| match (given, version) {
            (None, _) => Some(0),
            (Some(given), Version::V4) => given.v4.first().map(|range| u128::from(range.0)),
            (Some(given), Version::V6) => given.v6.first().map(|range| range.0),
        };
        let first = |field: usize| match fields.numbers.get(field)? {
            Some(given) => given.first().map(|range| range.0),
            None => Some(0),
        };
        let gives = |field: usize| fields.numbers.get(field).is_some_and(Option::is_some);
        let has_ports = gives(SOURCE_PORT) || gives(DESTINATION_PORT);
        let mut numbers = [None; NUMBERS];
        for (field, number) in numbers.iter_mut().enumerate() {
            let is_there = match field {
                SOURCE_PORT | DESTINATION_PORT => has_ports,
                ICMP_TYPE => gives(ICMP_TYPE),
                _ => true,
            };
            if is_there {
                *number = Some(first(field)?);
            }
        }
        if gives(ICMP_TYPE) {
            let icmp = match version {
                Version::V4 => protocol::ICMP,
                Version::V6 => protocol::ICMPV6,
            };
            let given = fields.numbers.get(PROTOCOL)?.as_ref()?;
            numbers[PROTOCOL] = common(given, &[(icmp.into(), icmp.into())])
                .first()
                .map(|range| range.0);
            numbers[PROTOCOL]?;
        }
        Some(Subject {
            version,
            source: address(&fields.source)?,
            destination: address(&fields.destination)?,
            numbers,
        })
    })
}

/// Whether `first` matches all that `second` matches.
fn covers(first: &Fields, second: &Fields) -> bool {
    let addresses = |a: &Option<Addresses>, b: &Option<Addresses>| match (a, b) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(a), Some(b)) => holds(&a.v4, &b.v4) && holds(&a.v6, &b.v6),
    };
    let numbers = first.numbers.iter().zip(&second.numbers);
    let mut numbers = numbers.map(|(a, b)| match (a, b) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(a), Some(b)) => holds(a, b),
    });
    numbers.all(|holds| holds)
        && addresses(&first.destination, &second.destination)
        && addresses(&first.source, &second.source)
}

/// Whether every range of `b` lies in one of `a`'s; those of `a` do not touch one another.
fn holds<A: Number>(a: &[(A, A)], b: &[(A, A)]) -> bool {
    b.iter().all(|&(first, last)| {
        let behind = a.partition_point(|&(start, _)| start <= first);
        behind
            .checked_sub(1)
            .and_then(|place| a.get(place))
            .is_some_and(|&(_, end)| last <= end)
    })
}

/// What lies in both.
fn common<A: Number>(a: &[(A, A)], b: &[(A, A)]) -> Vec<(A, A)> {
    let overlap = |&(x, y): &(A, A)| {
        let parts = b
            .iter()
            .map(move |&(first, last)| (x.max(first), y.min(last)));
        parts.filter(|&(first, last)| first <= last)
    };
    a.iter().flat_map(overlap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::tests::nets;
    use crate::path::{Ingress, PathId};
    use crate::policy::Negated;

    fn shadows(matches: &[Match]) -> Vec<(usize, Option<usize>)> {
        let pair = |shadow: Shadow| (shadow.rule, shadow.by);
        shadowed(matches).into_iter().map(pair).collect()
    }

    #[test]
    fn a_rule_is_named_with_the_first_that_takes_all_of_it() {
        let to = |prefixes: &[&str], ports: &[(u16, u16)]| Match {
            destination: nets(prefixes),
            destination_port: ports.to_vec(),
            ..Match::default()
        };
        let rules = [
            to(&["10.2.0.0/16", "10.3.0.0/16"], &[(1, 1023)]),
            to(&["10.2.8.0/24"], &[(22, 23), (80, 80)]),
            to(&["10.2.8.0/24"], &[(22, 23), (8080, 8080)]),
            to(&["10.2.0.0/15"], &[(80, 80)]),
            to(&["10.4.0.0/16"], &[]),
            to(&["10.4.0.0/16"], &[(80, 80)]),
            Match::default(),
            to(&["10.9.0.0/16"], &[(80, 80)]),
            Match::default(),
        ];
        assert_eq!(
            shadows(&rules),
            [
                (1, Some(0)),
                (3, Some(0)),
                (5, Some(4)),
                (7, Some(6)),
                (8, Some(6))
            ]
        );
    }

    #[test]
    fn ports_say_the_protocol_and_types_do() {
        let tcp_and_udp = Match {
            protocol: vec![6, 17],
            ..Match::default()
        };
        let port = Match {
            source_port: vec![(53, 53)],
            ..Match::default()
        };
        let all_ports = Match {
            source_port: vec![(0, u16::MAX)],
            ..Match::default()
        };
        let icmp = Match {
            protocol: vec![1, 58],
            ..Match::default()
        };
        let echo = Match {
            icmp_type: vec![8],
            ..Match::default()
        };
        assert_eq!(shadows(&[tcp_and_udp.clone(), port]), [(1, Some(0))]);
        // Fragments show no ports.
        assert_eq!(shadows(&[all_ports, tcp_and_udp]), []);
        assert_eq!(shadows(&[icmp, echo]), [(1, Some(0))]);
    }

    #[test]
    fn a_negated_list_covers_what_lies_outside_it() {
        let not = |source: &[&str]| Match {
            source: nets(source),
            negated: Negated {
                source: true,
                ..Negated::default()
            },
            ..Match::default()
        };
        let from = |source: &[&str]| Match {
            source: nets(source),
            ..Match::default()
        };
        let rules = [
            not(&["10.0.0.0/8"]),
            from(&["192.168.0.0/16", "fd00::/8"]),
            from(&["10.1.0.0/16"]),
            not(&["10.0.0.0/7"]),
            not(&["10.1.0.0/16"]),
        ];
        assert_eq!(shadows(&rules), [(1, Some(0)), (3, Some(0))]);
    }

    #[test]
    fn a_rule_that_contradicts_itself_is_named_without_another() {
        let crossed = Match {
            source: nets(&["10.0.0.0/8"]),
            destination: nets(&["fd00::/8"]),
            ..Match::default()
        };
        let icmp_port = Match {
            protocol: vec![1],
            destination_port: vec![(1, 1)],
            ..Match::default()
        };
        let v6_echo_over_v4 = Match {
            protocol: vec![58],
            icmp_type: vec![128],
            source: nets(&["10.0.0.0/8"]),
            ..Match::default()
        };
        assert_eq!(
            shadows(&[crossed, icmp_port, v6_echo_over_v4]),
            [(0, None), (1, None), (2, None)]
        );
    }

    #[test]
    fn ingress_counts() {
        let from = |paths: &[u16]| Match {
            from: paths.iter().map(|&id| Ingress::Path(PathId(id))).collect(),
            ..Match::default()
        };
        assert_eq!(
            shadows(&[from(&[0, 1]), from(&[1]), from(&[2])]),
            [(1, Some(0))]
        );
    }
}
