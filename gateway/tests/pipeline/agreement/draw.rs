//! Random worlds and packets.

use super::model::{Fields, MATCHED, PREFIXES, Packet, Rule, World};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

pub(super) fn fields() -> impl Strategy<Value = Fields> {
    // Most fields are empty: a rule that asks for everything matches nothing.
    let some = |most: usize| 0..=most;
    let from = subsequence(vec!["vnet", "er-a", "er-b", "site-a", "site-b"], some(2));
    let addresses = || subsequence(MATCHED.to_vec(), some(2));
    let ports = subsequence(vec![(1, 100), (53, 80), (443, 443), (0, 65_535)], some(1));
    (
        (from, 0..3),
        (addresses(), 0..2),
        (addresses(), 0..2),
        (subsequence(vec![6_u8, 17], some(2)), 0..2),
        (ports, 0..3),
        (subsequence(vec![0_u8, 8, 46], some(2)), 0..4),
    )
        .prop_map(|(from, source, destination, protocol, port, dscp)| {
            fn keep<T>((list, chance): (Vec<T>, i32)) -> Vec<T> {
                if chance == 0 { list } else { Vec::new() }
            }
            Fields {
                from: keep(from),
                source: keep(source),
                destination: keep(destination),
                protocol: keep(protocol),
                port: keep(port),
                dscp: keep(dscp),
            }
        })
}

pub(super) fn rule() -> impl Strategy<Value = Rule> {
    let via = subsequence(vec![0_usize, 1, 2, 3], 1..=3).prop_shuffle();
    (fields(), fields(), 0..4_u8, via, prop::option::of(0..64_u8)).prop_map(
        |(given, not, action, via, set_dscp)| Rule {
            given,
            not,
            action,
            via,
            set_dscp,
        },
    )
}

pub(super) fn world() -> impl Strategy<Value = World> {
    let prefixes = || subsequence(PREFIXES.to_vec(), 1..=4);
    // Two sites may not have the same prefix: each is one's or the other's or nobody's.
    let sites = prop::collection::vec(0..3_u8, PREFIXES.len());
    let routes = subsequence(
        vec![
            "10.2.8.0/24",
            "10.1.4.0/24",
            "10.3.0.0/16",
            "fd00:2::/48",
            "10.5.0.0/16",
        ],
        0..=3,
    );
    (
        prefixes(),
        prefixes(),
        sites,
        (routes, prop::collection::vec(0..6_usize, 3)),
        prop::collection::vec(rule(), 0..5),
        any::<bool>(),
    )
        .prop_map(|(a, b, sites, (routes, hops), rules, transit)| {
            let of_site = |site: u8, own: &'static str| {
                let mut list: Vec<&str> = PREFIXES
                    .iter()
                    .zip(&sites)
                    .filter(|(_, of)| **of == site)
                    .map(|(prefix, _)| *prefix)
                    .collect();
                list.push(own);
                list
            };
            World {
                prefixes: [a, b, of_site(1, "10.21.0.0/16"), of_site(2, "10.22.0.0/16")],
                routes: routes.into_iter().zip(hops).collect(),
                rules,
                transit,
            }
        })
}

pub(super) fn packet() -> impl Strategy<Value = Packet> {
    let v4 = || {
        select(vec![
            "10.1.0.4",
            "10.1.4.9",
            "10.2.0.1",
            "10.2.8.1",
            "10.3.0.1",
            "10.4.0.1",
            "10.5.0.1",
            "10.21.0.1",
            "8.8.8.8",
            "10.1.255.4",
            "172.16.0.1",
            "172.16.1.2",
            "127.0.0.1",
            "192.168.1.1",
        ])
    };
    let v6 = || {
        select(vec![
            "fd00:1::4",
            "fd00:2::1",
            "fd00:2:0:8::1",
            "fd00:16:1::1",
            "2001:db8::1",
        ])
    };
    // Sources that the way in may mostly use, so that most packets get as far as the rules.
    let likely = |v6: bool, from: usize| match (v6, from) {
        (false, 0) => vec!["10.1.0.4", "10.1.4.9"],
        (false, 4) => vec!["10.21.0.1"],
        (false, 5) => vec!["10.22.0.1"],
        (false, _) => vec!["10.2.0.1", "8.8.4.4"],
        (true, 0) => vec!["fd00:1::4"],
        (true, _) => vec!["fd00:2::7"],
    };
    (select(vec![0, 0, 0, 1, 2, 3, 4, 5]), any::<bool>(), 0..5_u8)
        .prop_flat_map(move |(from, is_v6, odd)| {
            let any = if is_v6 { v6().boxed() } else { v4().boxed() };
            let source = if odd == 0 {
                any.clone()
            } else {
                select(likely(is_v6, from)).boxed()
            };
            let ports = select(vec![22_u16, 53, 80, 443, 8080]);
            let protocol = select(vec![6_u8, 17, if is_v6 { 58 } else { 1 }]);
            (
                Just(from),
                source,
                any,
                protocol,
                ports,
                select(vec![0_u8, 8, 46, 10]),
            )
        })
        .prop_map(|(from, source, destination, protocol, port, dscp)| Packet {
            from,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol,
            port: if matches!(protocol, 6 | 17) { port } else { 0 },
            dscp,
        })
}
