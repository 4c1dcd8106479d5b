use super::*;

const CIRCUIT: NextHop = NextHop::Owner(OwnerId(0));
const SECOND_CIRCUIT: NextHop = NextHop::Owner(OwnerId(1));
const SITE: NextHop = NextHop::Owner(OwnerId(2));

fn kind(next_hop: NextHop) -> Option<PathKind> {
    match next_hop {
        CIRCUIT | SECOND_CIRCUIT => Some(PathKind::ExpressRoute),
        SITE => Some(PathKind::Vpn),
        _ => None,
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn rib(candidates: &[Candidate]) -> Rib {
    let vnet = PrefixSet::from_iter([net("10.1.0.0/16")]);
    Rib::new(candidates.to_vec(), &vnet, kind)
}

fn route(prefix: &str, source: RouteSource, next_hop: NextHop) -> Candidate {
    Candidate::new(net(prefix), source, next_hop)
}

fn standings(rib: &Rib, prefix: &str) -> Vec<(NextHop, Standing, u8)> {
    rib.prefix(net(prefix))
        .iter()
        .map(|one| (one.candidate.next_hop, one.standing, one.tier))
        .collect()
}

#[test]
fn a_user_defined_route_beats_bgp_and_bgp_beats_system() {
    let rib = rib(&[
        route("10.2.0.0/16", RouteSource::System, NextHop::Internet),
        route("10.2.0.0/16", RouteSource::Bgp, CIRCUIT),
        route("10.2.0.0/16", RouteSource::UserDefined, NextHop::None),
        route("10.3.0.0/16", RouteSource::System, NextHop::Internet),
        route("10.3.0.0/16", RouteSource::Bgp, CIRCUIT),
    ]);
    assert_eq!(
        standings(&rib, "10.2.0.0/16"),
        [
            (NextHop::None, Standing::Active, 0),
            (CIRCUIT, Standing::Source(RouteSource::UserDefined), 0),
            (
                NextHop::Internet,
                Standing::Source(RouteSource::UserDefined),
                0
            ),
        ]
    );
    assert_eq!(
        standings(&rib, "10.3.0.0/16"),
        [
            (CIRCUIT, Standing::Active, 0),
            (NextHop::Internet, Standing::Source(RouteSource::Bgp), 0),
        ]
    );
}

#[test]
fn the_vnets_own_space_beats_more_specific_bgp_but_not_a_user_defined_route() {
    let rib = rib(&[
        route("10.1.0.0/16", RouteSource::System, NextHop::Vnet),
        route("10.1.0.0/16", RouteSource::Bgp, CIRCUIT),
        route("10.1.7.0/24", RouteSource::Bgp, CIRCUIT),
        route("10.1.8.0/24", RouteSource::UserDefined, SITE),
        route("10.0.0.0/8", RouteSource::Bgp, CIRCUIT),
    ]);
    assert_eq!(
        standings(&rib, "10.1.0.0/16"),
        [
            (NextHop::Vnet, Standing::Active, 0),
            (CIRCUIT, Standing::InsideVnet, 0)
        ]
    );
    assert_eq!(
        standings(&rib, "10.1.7.0/24"),
        [(CIRCUIT, Standing::InsideVnet, 0)]
    );
    let routes: Vec<_> = rib.routes().map(|same| same[0].candidate.prefix).collect();
    assert_eq!(
        routes,
        [net("10.0.0.0/8"), net("10.1.0.0/16"), net("10.1.8.0/24")]
    );
}

#[test]
fn expressroute_beats_vpn_for_the_same_prefix_and_vpn_stands_by() {
    let rib = rib(&[
        route("10.2.0.0/16", RouteSource::Site, SITE),
        route("10.2.0.0/16", RouteSource::Static, CIRCUIT),
    ]);
    assert_eq!(
        standings(&rib, "10.2.0.0/16"),
        [
            (CIRCUIT, Standing::Active, 0),
            (SITE, Standing::ExpressRouteFirst, 1)
        ]
    );
    assert!(Standing::ExpressRouteFirst.is_standby());
    assert_eq!(Standing::ExpressRouteFirst.state(), "Invalid");
}

#[test]
fn weight_is_compared_before_as_path_length() {
    let heavy = Candidate {
        weight: 10,
        as_path_length: 5,
        ..route("10.2.0.0/16", RouteSource::Bgp, SECOND_CIRCUIT)
    };
    let short = Candidate {
        as_path_length: 1,
        ..route("10.2.0.0/16", RouteSource::Bgp, CIRCUIT)
    };
    let rib = rib(&[short, heavy]);
    assert_eq!(
        standings(&rib, "10.2.0.0/16"),
        [
            (SECOND_CIRCUIT, Standing::Active, 0),
            (CIRCUIT, Standing::Weight, 1)
        ]
    );
}

#[test]
fn a_shorter_as_path_wins_and_equal_paths_share_the_load() {
    let bgp = |next_hop, as_path_length| Candidate {
        as_path_length,
        ..route("10.2.0.0/16", RouteSource::Bgp, next_hop)
    };
    let longer = rib(&[bgp(CIRCUIT, 3), bgp(SECOND_CIRCUIT, 2)]);
    assert_eq!(
        standings(&longer, "10.2.0.0/16"),
        [
            (SECOND_CIRCUIT, Standing::Active, 0),
            (CIRCUIT, Standing::AsPath, 1)
        ]
    );
    let equal = rib(&[bgp(CIRCUIT, 2), bgp(SECOND_CIRCUIT, 2), bgp(SITE, 1)]);
    assert_eq!(
        standings(&equal, "10.2.0.0/16"),
        [
            (CIRCUIT, Standing::Active, 0),
            (SECOND_CIRCUIT, Standing::Active, 0),
            (SITE, Standing::ExpressRouteFirst, 1)
        ]
    );
}

#[test]
fn the_longest_route_is_that_of_the_longest_active_prefix() {
    let rib = rib(&[
        route("0.0.0.0/0", RouteSource::System, NextHop::Internet),
        route("10.0.0.0/8", RouteSource::Bgp, CIRCUIT),
        route("10.1.0.0/16", RouteSource::System, NextHop::Vnet),
        route("10.1.7.0/24", RouteSource::Bgp, CIRCUIT),
        route("fd00::/8", RouteSource::Static, SITE),
    ]);
    let longest = |address: &str| {
        let (version, bits) = address_bits(address.parse().unwrap());
        let route = rib.longest(version, bits)?;
        Some(rib.route(route)?.first()?.candidate.prefix)
    };
    assert_eq!(longest("10.2.0.1"), Some(net("10.0.0.0/8")));
    // Inside the virtual network BGP does not count.
    assert_eq!(longest("10.1.7.1"), Some(net("10.1.0.0/16")));
    assert_eq!(longest("192.0.2.1"), Some(net("0.0.0.0/0")));
    assert_eq!(longest("fd00::1"), Some(net("fd00::/8")));
    assert_eq!(longest("2001:db8::1"), None);
}

#[test]
fn the_same_route_twice_is_one_route() {
    let twice = route("10.2.0.0/16", RouteSource::Static, CIRCUIT);
    assert_eq!(
        standings(&rib(&[twice, twice]), "10.2.0.0/16"),
        [
            (CIRCUIT, Standing::Active, 0),
            (CIRCUIT, Standing::Duplicate, 0)
        ]
    );
}
