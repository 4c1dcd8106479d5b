use super::*;
use crate::health::Usability;
use crate::packet::{Version, address_bits};
use crate::policy::Match;
use crate::rib::{Candidate, NextHop, OwnerId, RouteSource};
use crate::snapshot::{Action, BuildError, Builder, Owner, Path, Rule};
use ipnet::IpNet;
use std::net::IpAddr;
use std::num::NonZeroU32;

pub(crate) const PRIMARY: PathId = PathId(0);
pub(crate) const SECONDARY: PathId = PathId(1);
pub(crate) const OTHER_CIRCUIT: PathId = PathId(2);
pub(crate) const ONPREM: PathId = PathId(3);
pub(crate) const BRANCH: PathId = PathId(4);

const CIRCUIT: NextHop = NextHop::Owner(OwnerId(0));
const SITE: NextHop = NextHop::Owner(OwnerId(2));

/// Full health or none.
pub(crate) fn full(up: bool) -> Usability {
    if up { Usability::Full } else { Usability::None }
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn nets(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|text| net(text)).collect()
}

/// The network of docs/examples/coexist.toml with a second circuit (10.4/16) and a second site (10.5/16).
pub(crate) fn builder() -> Builder {
    let mut builder = Builder::new(NonZeroU32::MIN);
    builder.own_addresses = ["10.1.255.4", "fd00:1:0:ff::4", "172.16.0.2", "172.16.0.6"]
        .map(|text| text.parse().unwrap())
        .to_vec();
    builder.address_space = nets(&["10.1.0.0/16", "fd00:1::/48"]);
    let site = |name: &str, prefixes: &[&str]| Owner {
        name: name.to_owned(),
        allowed_sources: nets(prefixes).into_iter().collect(),
        ..Owner::default()
    };
    builder.owners = vec![
        site("er-sydney", &[]),
        site("er-perth", &[]),
        site("onprem", &["10.2.0.0/16", "10.3.0.0/16", "fd00:2::/48"]),
        site("branch", &["10.5.0.0/16"]),
    ];
    let path = |name: &str, owner, subnets: &[&str]| Path {
        name: name.to_owned(),
        kind: if owner < 2 {
            PathKind::ExpressRoute
        } else {
            PathKind::Vpn
        },
        owner: OwnerId(owner),
        subnets: nets(subnets),
        v4: true,
        v6: true,
        over: None,
    };
    builder.paths = vec![
        path("er-sydney/primary", 0, &["172.16.0.0/30", "fe80::/64"]),
        path("er-sydney/secondary", 0, &["172.16.0.4/30"]),
        path("er-perth/primary", 1, &["172.16.1.0/30"]),
        path("onprem", 2, &[]),
        path("branch", 3, &[]),
    ];
    let route =
        |prefix, source, owner| Candidate::new(net(prefix), source, NextHop::Owner(OwnerId(owner)));
    builder.routes = vec![
        route("10.2.0.0/16", RouteSource::Static, 0),
        route("fd00:2::/48", RouteSource::Static, 0),
        route("10.4.0.0/16", RouteSource::Static, 1),
        route("10.2.0.0/16", RouteSource::Site, 2),
        route("10.3.0.0/16", RouteSource::Site, 2),
        route("fd00:2::/48", RouteSource::Site, 2),
        route("10.5.0.0/16", RouteSource::Site, 3),
    ];
    builder
}

pub(crate) fn snapshot() -> Snapshot {
    builder().build(|_| full(true)).unwrap()
}

pub(crate) fn headers(source: &str, destination: &str, destination_port: u16) -> Headers {
    let (version, source) = address_bits(source.parse::<IpAddr>().unwrap());
    let (_, destination) = address_bits(destination.parse::<IpAddr>().unwrap());
    Headers {
        key: FlowKey {
            source,
            destination,
            source_port: 40_000,
            destination_port,
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
}

fn verdict(snapshot: &Snapshot, ingress: Ingress, source: &str, destination: &str) -> Verdict {
    snapshot
        .decide(ingress, &headers(source, destination, 80))
        .verdict
}

/// From the virtual network's first host.
fn from_vnet(snapshot: &Snapshot, destination: &str) -> Verdict {
    let source = if destination.contains(':') {
        "fd00:1::4"
    } else {
        "10.1.0.4"
    };
    verdict(snapshot, Ingress::Vnet, source, destination)
}

fn is_on(verdict: Verdict, paths: &[PathId]) -> bool {
    matches!(verdict, Verdict::Path(path) if paths.contains(&path))
}

const fn dropped(reason: DropReason) -> Verdict {
    Verdict::Drop(reason)
}

#[test]
fn the_longest_prefix_wins_even_if_it_is_a_vpn_prefix() {
    let mut builder = builder();
    builder
        .routes
        .push(Candidate::new(net("10.2.8.0/24"), RouteSource::Site, SITE));
    let snapshot = builder.build(|_| full(true)).unwrap();
    assert!(is_on(
        from_vnet(&snapshot, "10.2.7.1"),
        &[PRIMARY, SECONDARY]
    ));
    assert_eq!(from_vnet(&snapshot, "10.2.8.1"), Verdict::Path(ONPREM));
}

#[test]
fn expressroute_carries_a_prefix_that_both_have_until_it_is_down() {
    let snapshot = snapshot();
    for destination in ["10.2.0.1", "fd00:2::1"] {
        snapshot.update(|_| full(true));
        assert!(is_on(
            from_vnet(&snapshot, destination),
            &[PRIMARY, SECONDARY]
        ));
        snapshot.update(|path| full(path != PRIMARY));
        assert_eq!(from_vnet(&snapshot, destination), Verdict::Path(SECONDARY));
        snapshot.update(|path| full(path == ONPREM));
        assert_eq!(from_vnet(&snapshot, destination), Verdict::Path(ONPREM));
        snapshot.update(|_| full(false));
        assert_eq!(
            from_vnet(&snapshot, destination),
            dropped(DropReason::NoPath)
        );
    }
}

#[test]
fn a_snapshot_starts_with_the_words_of_the_health_it_was_built_with() {
    let snapshot = builder().build(|path| full(path == ONPREM)).unwrap();
    assert_eq!(from_vnet(&snapshot, "10.2.0.1"), Verdict::Path(ONPREM));
    assert_eq!(snapshot.update(|path| full(path == ONPREM)), 0);
    assert!(snapshot.update(|_| full(true)) > 0);
}

#[test]
fn a_path_of_last_resort_carries_flows_only_if_no_path_is_fully_usable() {
    let snapshot = snapshot();
    let last_resort_but = |full: PathId| {
        move |path| {
            if path == full {
                Usability::Full
            } else {
                Usability::LastResort
            }
        }
    };
    snapshot.update(last_resort_but(ONPREM));
    assert_eq!(from_vnet(&snapshot, "10.2.0.1"), Verdict::Path(ONPREM));
    snapshot.update(last_resort_but(BRANCH));
    assert!(is_on(
        from_vnet(&snapshot, "10.2.0.1"),
        &[PRIMARY, SECONDARY]
    ));
}

#[test]
fn losing_one_link_moves_about_half_of_the_flows() {
    let snapshot = snapshot();
    let flows = |snapshot: &Snapshot| -> Vec<Verdict> {
        (0..2000)
            .map(|port| {
                snapshot
                    .decide(Ingress::Vnet, &headers("10.1.0.4", "10.2.0.1", port))
                    .verdict
            })
            .collect()
    };
    let before = flows(&snapshot);
    snapshot.update(|path| full(path != PRIMARY));
    let after = flows(&snapshot);
    let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    assert!((800..1200).contains(&moved), "{moved}");
    assert!(after.iter().all(|&one| one == Verdict::Path(SECONDARY)));
}

#[test]
fn a_user_defined_route_beats_all_others_of_its_prefix() {
    let mut builder = builder();
    let udr = |prefix, next_hop| Candidate::new(net(prefix), RouteSource::UserDefined, next_hop);
    builder.routes.push(udr("10.2.0.0/16", SITE));
    builder.routes.push(udr("10.9.0.0/16", NextHop::None));
    let snapshot = builder.build(|_| full(true)).unwrap();
    assert_eq!(from_vnet(&snapshot, "10.2.0.1"), Verdict::Path(ONPREM));
    assert_eq!(
        from_vnet(&snapshot, "10.9.0.1"),
        dropped(DropReason::RouteNone)
    );
}

#[test]
fn bgp_inside_the_vnets_own_space_does_not_count() {
    let mut builder = builder();
    builder.routes.push(Candidate::new(
        net("10.1.7.0/24"),
        RouteSource::Bgp,
        CIRCUIT,
    ));
    let snapshot = builder.build(|_| full(true)).unwrap();
    assert_eq!(
        verdict(&snapshot, Ingress::Path(PRIMARY), "10.2.0.1", "10.1.7.1"),
        Verdict::Vnet
    );
}

#[test]
fn azures_default_routes_drop_private_space_and_know_no_internet() {
    let snapshot = snapshot();
    for destination in ["10.200.0.1", "172.20.0.1", "192.168.1.1", "100.100.0.1"] {
        assert_eq!(
            from_vnet(&snapshot, destination),
            dropped(DropReason::RouteNone)
        );
    }
    assert_eq!(
        from_vnet(&snapshot, "8.8.8.8"),
        dropped(DropReason::NoRoute)
    );
    assert_eq!(
        from_vnet(&snapshot, "2001:db8::1"),
        dropped(DropReason::NoRoute)
    );
}

#[test]
fn the_vnet_may_only_use_its_own_sources() {
    let mut builder = builder();
    builder.vnet_sources = nets(&["192.0.2.9/32"]);
    let snapshot = builder.build(|_| full(true)).unwrap();
    let from = |source| verdict(&snapshot, Ingress::Vnet, source, "10.3.0.1");
    assert_eq!(from("10.1.3.3"), Verdict::Path(ONPREM));
    assert_eq!(from("192.0.2.9"), Verdict::Path(ONPREM));
    assert_eq!(from("192.0.2.10"), dropped(DropReason::SpoofedSource));
    // The gateway's own address, although it lies in the address space.
    assert_eq!(from("10.1.255.4"), dropped(DropReason::SpoofedSource));
}

#[test]
fn a_site_may_only_use_its_own_prefixes() {
    let snapshot = snapshot();
    let from = |path, source| verdict(&snapshot, Ingress::Path(path), source, "10.1.0.4");
    assert_eq!(from(ONPREM, "10.2.0.1"), Verdict::Vnet);
    assert_eq!(from(ONPREM, "10.5.0.1"), dropped(DropReason::SpoofedSource));
    assert_eq!(from(BRANCH, "10.5.0.1"), Verdict::Vnet);
    assert_eq!(from(BRANCH, "10.1.0.9"), dropped(DropReason::SpoofedSource));
    assert_eq!(
        from(PathId(99), "10.5.0.1"),
        dropped(DropReason::SpoofedSource)
    );
}

#[test]
fn expressroute_may_not_use_the_vnets_sources() {
    let snapshot = snapshot();
    let from = |source| verdict(&snapshot, Ingress::Path(PRIMARY), source, "10.1.0.4");
    assert_eq!(from("10.2.0.1"), Verdict::Vnet);
    assert_eq!(from("203.0.113.1"), Verdict::Vnet);
    assert_eq!(from("10.1.0.9"), dropped(DropReason::SpoofedSource));
    assert_eq!(from("172.16.0.2"), dropped(DropReason::SpoofedSource));
}

#[test]
fn expressroute_may_not_use_the_sources_of_another_branch() {
    let mut builder = builder();
    let route = |prefix, source, next_hop| Candidate::new(net(prefix), source, next_hop);
    builder.routes.extend([
        // More of a site's, inside of what the circuit has too.
        route("10.2.8.0/24", RouteSource::Site, SITE),
        // A site is the way to everything, and a circuit has told of something.
        route("0.0.0.0/0", RouteSource::Site, SITE),
        route("10.6.0.0/16", RouteSource::Bgp, NextHop::Owner(OwnerId(1))),
        route("10.7.0.0/16", RouteSource::UserDefined, SITE),
    ]);
    for up in [true, false] {
        let snapshot = builder.clone().build(|_| full(up)).unwrap();
        let from = |path, source| verdict(&snapshot, Ingress::Path(path), source, "10.1.0.4");
        let spoofed = dropped(DropReason::SpoofedSource);
        for link in [PRIMARY, SECONDARY] {
            for (source, expected) in [
                ("10.2.0.1", Verdict::Vnet),
                ("10.2.8.1", Verdict::Vnet),
                ("10.3.0.1", spoofed),
                ("10.4.0.1", spoofed),
                ("10.5.0.1", spoofed),
                ("10.6.0.1", Verdict::Vnet),
                ("10.7.0.1", spoofed),
                ("10.77.0.1", Verdict::Vnet),
                ("203.0.113.1", Verdict::Vnet),
                ("172.16.0.1", Verdict::Vnet),
                ("172.16.1.1", Verdict::Vnet),
            ] {
                assert_eq!(from(link, source), expected, "{source} at {link:?}, {up}");
            }
        }
        assert_eq!(from(OTHER_CIRCUIT, "10.4.0.1"), Verdict::Vnet);
        assert_eq!(from(OTHER_CIRCUIT, "10.2.0.1"), spoofed);
    }
}

#[test]
fn martians_are_dropped_on_every_ingress() {
    let snapshot = snapshot();
    for ingress in [Ingress::Vnet, Ingress::Path(PRIMARY), Ingress::Local] {
        for (source, destination) in [
            ("127.0.0.1", "10.1.0.4"),
            ("10.2.0.1", "224.0.0.5"),
            ("255.255.255.255", "10.1.0.4"),
            ("10.2.0.1", "255.255.255.255"),
            ("169.254.1.1", "10.1.0.4"),
            ("fd00:2::1", "ff02::1"),
        ] {
            assert_eq!(
                verdict(&snapshot, ingress, source, destination),
                dropped(DropReason::Martian)
            );
        }
    }
}

#[test]
fn own_addresses_are_local_from_everywhere() {
    let snapshot = snapshot();
    assert_eq!(from_vnet(&snapshot, "10.1.255.4"), Verdict::Local);
    assert_eq!(from_vnet(&snapshot, "fd00:1:0:ff::4"), Verdict::Local);
    assert_eq!(
        verdict(
            &snapshot,
            Ingress::Path(PRIMARY),
            "172.16.0.1",
            "172.16.0.2"
        ),
        Verdict::Local
    );
    assert_eq!(
        verdict(&snapshot, Ingress::Path(ONPREM), "10.2.0.1", "10.1.255.4"),
        Verdict::Local
    );
    assert_eq!(
        verdict(&snapshot, Ingress::Local, "10.1.255.4", "172.16.0.2"),
        dropped(DropReason::Hairpin)
    );
}

#[test]
fn the_gateway_answers_a_neighbor_on_its_own_link_only() {
    let snapshot = snapshot();
    let to = |source, destination| verdict(&snapshot, Ingress::Local, source, destination);
    assert_eq!(to("172.16.0.2", "172.16.0.1"), Verdict::Path(PRIMARY));
    assert_eq!(to("172.16.0.6", "172.16.0.5"), Verdict::Path(SECONDARY));
    // Also while the link is down: otherwise nothing could find it up again.
    snapshot.update(|path| full(path != PRIMARY));
    assert_eq!(to("172.16.0.2", "172.16.0.1"), Verdict::Path(PRIMARY));
    assert_eq!(to("10.1.255.4", "10.1.0.4"), Verdict::Vnet);
    assert_eq!(to("10.1.255.4", "10.3.0.1"), Verdict::Path(ONPREM));
}

#[test]
fn link_local_link_addresses_reach_the_gateway_and_nothing_else() {
    let mut builder = builder();
    builder.paths[0].subnets.push(net("169.254.21.0/30"));
    builder.own_addresses.push("169.254.21.2".parse().unwrap());
    builder.own_addresses.push("fe80::2".parse().unwrap());
    let snapshot = builder.build(|_| full(true)).unwrap();
    let from =
        |path, source, destination| verdict(&snapshot, Ingress::Path(path), source, destination);
    assert_eq!(
        from(PRIMARY, "169.254.21.1", "169.254.21.2"),
        Verdict::Local
    );
    assert_eq!(from(PRIMARY, "fe80::1", "fe80::2"), Verdict::Local);
    assert_eq!(
        from(SECONDARY, "169.254.21.1", "169.254.21.2"),
        dropped(DropReason::Martian)
    );
    assert_eq!(
        from(PRIMARY, "169.254.21.1", "10.1.0.4"),
        dropped(DropReason::Martian)
    );
    assert_eq!(
        verdict(&snapshot, Ingress::Local, "169.254.21.2", "169.254.21.1"),
        Verdict::Path(PRIMARY)
    );
    assert_eq!(
        verdict(&snapshot, Ingress::Vnet, "10.1.0.4", "169.254.21.1"),
        dropped(DropReason::Martian)
    );
}

#[test]
fn branches_reach_each_other_only_with_transit() {
    let cases = [
        (PRIMARY, "10.2.0.1", "10.3.0.1", ONPREM),
        (ONPREM, "10.3.0.1", "10.4.0.1", OTHER_CIRCUIT),
        (ONPREM, "10.3.0.1", "10.5.0.1", BRANCH),
    ];
    for transit in [false, true] {
        let mut builder = builder();
        builder.branch_transit = transit;
        let snapshot = builder.build(|_| full(true)).unwrap();
        for (from, source, destination, to) in cases {
            let expected = if transit {
                Verdict::Path(to)
            } else {
                dropped(DropReason::BranchTransit)
            };
            assert_eq!(
                verdict(&snapshot, Ingress::Path(from), source, destination),
                expected
            );
        }
    }
}

#[test]
fn nothing_goes_back_to_where_it_came_from() {
    let mut builder = builder();
    builder.branch_transit = true;
    let snapshot = builder.build(|_| full(true)).unwrap();
    let hairpin = dropped(DropReason::Hairpin);
    assert_eq!(from_vnet(&snapshot, "10.1.0.9"), hairpin);
    assert_eq!(
        verdict(&snapshot, Ingress::Path(ONPREM), "10.2.0.1", "10.3.0.1"),
        hairpin
    );
    // Also not out of the other link of the same circuit.
    for port in 0..32 {
        for link in [PRIMARY, SECONDARY] {
            let decision =
                snapshot.decide(Ingress::Path(link), &headers("10.2.0.1", "10.2.9.1", port));
            assert_eq!(decision.verdict, hairpin);
        }
    }
}

fn rule(name: &str, matches: Match, action: Action) -> Rule {
    Rule {
        name: name.to_owned(),
        matches,
        action,
        set_dscp: None,
    }
}

#[test]
fn policy_comes_before_the_route_table_and_its_first_match_decides() {
    let mut builder = builder();
    let telnet = Match {
        from: vec![Ingress::Vnet],
        protocol: vec![6],
        destination_port: vec![(23, 23)],
        ..Match::default()
    };
    let to_onprem = Match {
        destination: nets(&["10.2.8.0/24"]),
        ..Match::default()
    };
    let via = Action::Via(vec![OwnerId(3), OwnerId(0)]);
    builder.policy = vec![
        rule("no-telnet", telnet.clone(), Action::Drop),
        rule("unreached", telnet, Action::Route),
        rule("over-vpn", to_onprem, via),
        rule(
            "no-ssh",
            Match {
                destination_port: vec![(22, 22)],
                ..Match::default()
            },
            Action::Reject,
        ),
    ];
    let snapshot = builder.build(|_| full(true)).unwrap();
    let decide =
        |destination, port| snapshot.decide(Ingress::Vnet, &headers("10.1.0.4", destination, port));
    let telnet = decide("10.2.0.1", 23);
    assert_eq!(telnet.verdict, dropped(DropReason::Policy));
    assert_eq!(
        telnet.rule.and_then(|id| snapshot.rule_name(id)),
        Some("no-telnet")
    );
    assert_eq!(
        decide("10.2.0.1", 22).verdict,
        dropped(DropReason::PolicyReject)
    );
    assert_eq!(decide("10.2.8.1", 80).verdict, Verdict::Path(BRANCH));
    snapshot.update(|path| full(path != BRANCH));
    assert!(is_on(decide("10.2.8.1", 80).verdict, &[PRIMARY, SECONDARY]));
    // A policy's paths are all that it may take: the route table is not asked.
    snapshot.update(|path| full(path == ONPREM));
    assert_eq!(decide("10.2.8.1", 80).verdict, dropped(DropReason::NoPath));
    assert_eq!(decide("10.2.9.1", 80).verdict, Verdict::Path(ONPREM));
    // The gateway's own packets are not subject to it.
    assert_eq!(
        snapshot
            .decide(Ingress::Local, &headers("10.1.255.4", "10.3.0.1", 23))
            .verdict,
        Verdict::Path(ONPREM)
    );
}

#[test]
fn a_link_without_an_ipv6_neighbor_carries_no_ipv6() {
    let mut builder = builder();
    builder.paths[1].v6 = false;
    let via = Action::Via(vec![OwnerId(0)]);
    builder.policy = vec![rule(
        "over-er",
        Match {
            destination: nets(&["10.3.1.0/24", "fd00:2:0:1::/64"]),
            ..Match::default()
        },
        via,
    )];
    let snapshot = builder.build(|_| full(true)).unwrap();
    let paths = |source, destination| {
        let taken = |port| {
            snapshot
                .decide(Ingress::Vnet, &headers(source, destination, port))
                .verdict
        };
        let mut seen: Vec<Verdict> = (0..64).map(taken).collect();
        seen.sort_by_key(|one| format!("{one:?}"));
        seen.dedup();
        seen
    };
    let both = [PRIMARY, SECONDARY].map(Verdict::Path);
    let primary = [Verdict::Path(PRIMARY)];
    assert_eq!(paths("10.1.0.4", "10.2.0.1"), both);
    assert_eq!(paths("10.1.0.4", "10.3.1.1"), both);
    assert_eq!(paths("fd00:1::4", "fd00:2::1"), primary);
    assert_eq!(paths("fd00:1::4", "fd00:2:0:1::1"), primary);
}

#[test]
fn fragments_of_one_packet_take_one_path() {
    let snapshot = snapshot();
    for port in 0..64 {
        let mut first = headers("10.1.0.4", "10.2.0.1", port);
        first.fragment = Fragment::First;
        let mut later = headers("10.1.0.4", "10.2.0.1", 0);
        later.key.source_port = 0;
        later.fragment = Fragment::Later;
        assert_eq!(
            snapshot.decide(Ingress::Vnet, &first).verdict,
            snapshot.decide(Ingress::Vnet, &later).verdict
        );
    }
}

#[test]
fn what_names_an_unknown_circuit_site_or_path_is_refused() {
    let mut wrong_route = builder();
    wrong_route.routes.push(Candidate::new(
        net("10.8.0.0/16"),
        RouteSource::Static,
        NextHop::Owner(OwnerId(9)),
    ));
    let unknown = |by: &str| BuildError::Unknown { by: by.to_owned() };
    assert_eq!(
        wrong_route.build(|_| full(true)).err(),
        Some(unknown("the route to 10.8.0.0/16"))
    );
    let mut wrong_rule = builder();
    let via = Action::Via(vec![OwnerId(4)]);
    wrong_rule.policy = vec![rule("astray", Match::default(), via)];
    assert_eq!(
        wrong_rule.build(|_| full(true)).err(),
        Some(unknown("astray"))
    );
    let mut wrong_path = builder();
    wrong_path.paths[3].owner = OwnerId(4);
    assert_eq!(
        wrong_path.build(|_| full(true)).err(),
        Some(unknown("onprem"))
    );
}

#[test]
fn equal_groups_are_one_and_a_route_knows_its_group() {
    let snapshot = snapshot();
    let groups: Vec<_> = snapshot
        .rib()
        .routes()
        .filter(|same| {
            ["10.2.0.0/16", "fd00:2::/48"]
                .map(net)
                .contains(&same[0].candidate.prefix)
        })
        .map(|same| snapshot.group_of(same).unwrap())
        .collect();
    assert_eq!(groups.len(), 2);
    assert_eq!(groups[0], groups[1]);
    let group = snapshot.group(groups[0]).unwrap();
    assert_eq!(group.members(), [PRIMARY, SECONDARY, ONPREM]);
    assert_eq!(group.tiers(), [0b011, 0b100]);
    assert_eq!(group.tier_of(2), Some(1));
    assert_eq!(
        snapshot.fib.find(Version::V4, 0x0a02_0001),
        Hop::Group(groups[0])
    );
}

#[test]
fn the_rule_that_matches_gives_the_dscp_wherever_the_packet_goes() {
    let mut builder = builder();
    let to_port = |port| Match {
        destination_port: vec![(port, port)],
        ..Match::default()
    };
    let marked = |name, port, action, dscp| Rule {
        set_dscp: Some(dscp),
        ..rule(name, to_port(port), action)
    };
    builder.policy = vec![
        marked("routed", 80, Action::Route, 18),
        marked("via", 81, Action::Via(vec![OwnerId(2)]), 46),
        rule("plain", to_port(82), Action::Route),
        marked("hidden", 82, Action::Route, 8),
        marked("too-large", 83, Action::Route, 0xFF),
    ];
    let snapshot = builder.build(|_| full(true)).unwrap();
    let decide = |ingress, source, destination, port| {
        snapshot.decide(ingress, &headers(source, destination, port))
    };
    let out = |port| decide(Ingress::Vnet, "10.1.0.4", "10.2.0.1", port);
    assert_eq!(out(80).set_dscp, Some(18));
    assert_eq!(
        (out(81).set_dscp, out(81).verdict),
        (Some(46), Verdict::Path(ONPREM))
    );
    assert_eq!(out(82).set_dscp, None);
    assert_eq!(out(83).set_dscp, Some(0x3F));
    assert_eq!(out(84).set_dscp, None);
    let inward = decide(Ingress::Path(ONPREM), "10.2.0.1", "10.1.0.4", 80);
    assert_eq!((inward.set_dscp, inward.verdict), (Some(18), Verdict::Vnet));
    let own = decide(Ingress::Local, "10.1.255.4", "10.2.0.1", 80);
    assert_eq!(own.set_dscp, None);
}
