use super::*;
use crate::config::schema::{NextHop, UserRoute};
use crate::config::{self, KeyFiles};
use crate::telemetry::ledger::Port;
use routing::decide::Verdict;
use routing::packet::{FlowKey, Fragment, Headers, address_bits};
use routing::path::Ingress;
use routing::path::PathKind;
use routing::rib::OwnerId;
use std::path::Path;

fn example() -> Config {
    let text = include_str!("../../../docs/examples/coexist.toml").to_owned();
    config::parse(
        Path::new("coexist.toml"),
        text,
        Path::new(""),
        KeyFiles::Skipped,
    )
    .map_err(|report| report.render(false))
    .unwrap()
    .config
}

fn plan(config: &Config, usability: impl Fn(&PathPlan) -> Usability) -> Plan {
    Plan::new(config, NonZeroU32::MIN, usability).unwrap()
}

fn packet(source: &str, destination: &str, port: u16, dscp: u8) -> Headers {
    let (version, source) = address_bits(source.parse().unwrap());
    let (_, destination) = address_bits(destination.parse().unwrap());
    Headers {
        key: FlowKey {
            source,
            destination,
            source_port: 40_000,
            destination_port: port,
            protocol: 6,
            version,
        },
        transport: 20,
        payload: 40,
        total_len: 40,
        traffic_class: dscp << 2,
        hop_limit: 64,
        fragment: Fragment::Whole,
        dont_fragment: true,
        tcp_flags: 2,
    }
}

fn member(plan: &Plan, headers: &Headers) -> String {
    match plan.snapshot.decide(Ingress::Vnet, headers).verdict {
        Verdict::Path(path) => plan.paths[usize::from(path.0)].name.clone(),
        other => format!("{other:?}"),
    }
}

#[test]
fn paths_and_ports_stand_in_file_order_with_links_first() {
    let plan = plan(&example(), |_| Usability::Full);
    let names: Vec<&str> = plan.paths.iter().map(|path| path.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "er-sydney/primary",
            "er-sydney/secondary",
            "onprem",
            "point-to-site"
        ]
    );
    assert_eq!(
        plan.ports[..4],
        ["vnet", "local", "underlay", "er-sydney/primary"]
    );
    for path in &plan.paths {
        assert_eq!(plan.ports[usize::from(Port::path(path.id).0)], path.name);
    }
    assert_eq!(plan.path_named("onprem").unwrap().kind, PathKind::Vpn);
}

#[test]
fn the_example_fails_over_from_expressroute_to_vpn() {
    let config = example();
    let to_onprem = packet("10.1.0.4", "10.2.0.1", 80, 0);
    let up = plan(&config, |_| Usability::Full);
    assert!(member(&up, &to_onprem).starts_with("er-sydney/"));
    let only_vpn = |path: &PathPlan| match path.kind {
        PathKind::Vpn => Usability::Full,
        PathKind::ExpressRoute => Usability::None,
    };
    let down = plan(&config, only_vpn);
    assert_eq!(member(&down, &to_onprem), "onprem");
    let words = up.words(|id| only_vpn(&up.paths[usize::from(id.0)]));
    let built: Vec<u64> = down
        .snapshot
        .groups()
        .iter()
        .map(|group| group.active().load())
        .collect();
    assert_eq!(words, built);
}

#[test]
fn ipv6_takes_the_link_that_has_an_ipv6_neighbor() {
    let plan = plan(&example(), |_| Usability::Full);
    for port in 80..112 {
        let headers = packet("fd00:1::4", "fd00:2::1", port, 0);
        assert_eq!(member(&plan, &headers), "er-sydney/primary");
    }
}

#[test]
fn the_examples_policy_holds() {
    let plan = plan(&example(), |_| Usability::Full);
    assert_eq!(
        member(&plan, &packet("10.1.0.4", "10.2.0.1", 23, 0)),
        "Drop(Policy)"
    );
    let backup = packet("10.1.4.9", "10.2.8.9", 80, 8);
    assert_eq!(member(&plan, &backup), "onprem");
    let plain = packet("10.1.4.9", "10.2.8.9", 80, 0);
    assert!(member(&plan, &plain).starts_with("er-sydney/"));
    assert_eq!(
        member(&plan, &packet("10.1.0.4", "10.9.0.1", 80, 0)),
        "Drop(RouteNone)"
    );
}

#[test]
fn kernel_routes_are_wanted_for_what_paths_reach_and_nothing_else() {
    let mut config = example();
    let wanted: Vec<String> = plan(&config, |_| Usability::None)
        .host_routes
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        wanted,
        ["10.2.0.0/16", "10.3.0.0/16", "172.31.0.0/24", "fd00:2::/48"]
    );
    config.vnet.host_routes = false;
    assert!(plan(&config, |_| Usability::Full).host_routes.is_empty());
}

#[test]
fn a_user_defined_default_route_over_a_site_takes_the_internets_place_both_ways() {
    let mut config = example();
    let default = |prefix: &str, next_hop| UserRoute {
        prefix: prefix.parse().unwrap(),
        next_hop,
    };
    let onprem = || NextHop::Path("onprem".to_owned());
    config.route.push(default("0.0.0.0/0", onprem()));
    config.route.push(default("::/0", onprem()));
    let plan = plan(&config, |_| Usability::Full);
    let to = |destination: &str| {
        let source = ["10.1.0.4", "fd00:1::4"][usize::from(destination.contains(':'))];
        member(&plan, &packet(source, destination, 80, 0))
    };
    assert_eq!(to("192.0.2.1"), "onprem");
    assert_eq!(to("2600::1"), "onprem");
    assert!(to("10.2.0.1").starts_with("er-sydney/"));
    // The system routes for private addresses stay.
    assert_eq!(to("10.77.0.1"), "Drop(RouteNone)");
    let site = plan.path_named("onprem").unwrap().id;
    let back = |source: &str| {
        let headers = packet(source, "10.1.0.4", 80, 0);
        plan.snapshot.decide(Ingress::Path(site), &headers).verdict
    };
    assert_eq!(back("192.0.2.1"), Verdict::Vnet);
    assert_eq!(
        back("10.1.0.9"),
        Verdict::Drop(routing::reason::DropReason::SpoofedSource)
    );
}

#[test]
fn an_appliance_gets_its_packets_through_the_virtual_network() {
    let mut config = example();
    let firewall = "10.1.0.9".parse().unwrap();
    config.route[0].next_hop = NextHop::VirtualAppliance(Some(firewall));
    let plan = plan(&config, |_| Usability::Full);
    let from_circuit = Ingress::Path(PathId(0));
    let decision = plan
        .snapshot
        .decide(from_circuit, &packet("10.2.0.1", "10.9.0.1", 80, 0));
    assert_eq!(decision.verdict, Verdict::Vnet);
    let same = plan.snapshot.rib().prefix("10.9.0.0/16".parse().unwrap());
    let shown = plan.snapshot.next_hop_name(same[0].candidate.next_hop);
    assert_eq!(shown, "10.1.0.9");
}

#[test]
fn the_heavier_connection_is_used_first_and_the_gateway_type_means_the_only_one() {
    let mut config = example();
    config.vpn.as_mut().unwrap().sites[0].weight = 100;
    config.expressroute.as_mut().unwrap().circuits[0].weight = 50;
    let weighed = plan(&config, |_| Usability::Full);
    let same = weighed
        .snapshot
        .rib()
        .prefix("10.2.0.0/16".parse().unwrap());
    let weights: Vec<u32> = same.iter().map(|one| one.candidate.weight).collect();
    // ExpressRoute first, whatever the weights.
    assert_eq!(weights, [50, 100]);
    config.expressroute = None;
    config.policy.clear();
    config.route[0].next_hop = NextHop::VirtualNetworkGateway;
    let alone = plan(&config, |_| Usability::Full);
    let to_route = packet("10.1.0.4", "10.9.0.1", 80, 0);
    assert_eq!(member(&alone, &to_route), "onprem");
    let example = example();
    config.expressroute = example.expressroute;
    let refused = Plan::new(&config, NonZeroU32::MIN, |_| Usability::Full);
    assert!(refused.is_err());
}

#[test]
fn a_reload_of_routes_alone_shares_the_rest_and_ends_where_a_new_plan_does() {
    let old = example();
    let before = plan(&old, |_| Usability::Full);
    let second = NonZeroU32::new(2).unwrap();
    let changed = |new: &Config| {
        before
            .with_routes((&old, new), second, |_| Usability::Full)
            .unwrap()
    };
    let mut new = old.clone();
    let circuit = &mut new.expressroute.as_mut().unwrap().circuits[0];
    circuit.prefixes = vec![
        "10.2.0.0/16".parse().unwrap(),
        "10.6.0.0/16".parse().unwrap(),
    ];
    circuit.weight = 7;
    new.route.clear();
    let shared = changed(&new).unwrap();
    let built = plan(&new, |_| Usability::Full);
    let candidates =
        |plan: &Plan| -> Vec<_> { plan.snapshot.rib().candidates().copied().collect() };
    assert_eq!(candidates(&shared), candidates(&built));
    assert_eq!(shared.host_routes, built.host_routes);
    for destination in ["10.2.0.1", "10.6.0.1", "10.9.0.1", "10.3.0.1"] {
        let headers = packet("10.1.0.4", destination, 80, 0);
        assert_eq!(member(&shared, &headers), member(&built, &headers));
    }
    assert_eq!(shared.snapshot.generation(), second);
    // A site's prefixes are also the sources that it may use, and a policy is no route.
    let mut new = old.clone();
    new.vpn.as_mut().unwrap().sites[0].prefixes.pop();
    assert!(changed(&new).is_none());
    let mut new = old.clone();
    new.policy.clear();
    assert!(changed(&new).is_none());
}

#[test]
fn paths_keep_their_places_across_reloads_and_get_them_back() {
    let mut config = example();
    let first = plan(&config, |_| Usability::Full);
    let vpn = config.vpn.as_mut().unwrap();
    let mut branch = vpn.sites[0].clone();
    branch.name = "branch".to_owned();
    branch.prefixes = vec!["10.7.0.0/16".parse().unwrap()];
    vpn.sites.insert(0, branch);
    let next = |before: &Plan, config: &Config| {
        before
            .after(config, NonZeroU32::MIN, |_| Usability::Full)
            .unwrap()
    };
    let second = next(&first, &config);
    assert_eq!(
        second.ports,
        [&first.ports[..], &["branch".to_owned()]].concat()
    );
    assert_eq!(
        member(&second, &packet("10.1.0.4", "10.7.0.1", 80, 0)),
        "branch"
    );
    assert_eq!(
        member(&second, &packet("10.1.0.4", "10.3.0.1", 80, 0)),
        "onprem"
    );

    let sites = mem::take(&mut config.vpn.as_mut().unwrap().sites);
    config.policy.clear();
    let third = next(&second, &config);
    assert_eq!(third.ports, second.ports);
    assert!(third.path_named("onprem").is_none());
    assert_eq!(
        member(&third, &packet("10.1.0.4", "10.7.0.1", 80, 0)),
        "Drop(RouteNone)"
    );
    let id = |plan: &Plan, name| plan.path_named(name).unwrap().id;
    config.vpn.as_mut().unwrap().sites = sites;
    let fourth = next(&third, &config);
    for name in ["onprem", "branch", "point-to-site"] {
        assert_eq!(id(&fourth, name), id(&second, name), "{name}");
    }
}

#[test]
fn a_client_reaches_the_virtual_network_always_and_others_with_transit_only() {
    let mut config = example();
    let from_client = |plan: &Plan, destination| {
        let path = plan.path_named("point-to-site").unwrap().id;
        let headers = packet("172.31.0.2", destination, 80, 0);
        plan.snapshot.decide(Ingress::Path(path), &headers).verdict
    };
    let off = plan(&config, |_| Usability::Full);
    assert_eq!(from_client(&off, "10.1.0.4"), Verdict::Vnet);
    for other in ["172.31.0.3", "10.3.0.1"] {
        let refused = Verdict::Drop(routing::reason::DropReason::BranchTransit);
        assert_eq!(from_client(&off, other), refused, "{other}");
    }
    config.failover.branch_transit = true;
    let on = plan(&config, |_| Usability::Full);
    let clients = on.path_named("point-to-site").unwrap().id;
    assert_eq!(from_client(&on, "172.31.0.3"), Verdict::Path(clients));
    assert_eq!(
        from_client(&on, "10.3.0.1"),
        Verdict::Path(on.path_named("onprem").unwrap().id)
    );
    assert_eq!(
        from_client(&on, "172.31.0.2"),
        Verdict::Drop(routing::reason::DropReason::Hairpin)
    );
}

#[test]
fn a_circuit_that_carries_several_sites_stands_once_among_those_that_do() {
    let mut config = example();
    let circuits = &mut config.expressroute.as_mut().unwrap().circuits;
    let mut other = circuits[0].clone();
    other.name = "er-perth".to_owned();
    other.prefixes = vec!["10.8.0.0/16".parse().unwrap()];
    circuits.push(other);
    let sites = &mut config.vpn.as_mut().unwrap().sites;
    for (number, over) in ["er-sydney", "er-perth", "er-sydney"].iter().enumerate() {
        let mut site = sites[0].clone();
        site.name = format!("site-{number}");
        site.over = Some((*over).to_owned());
        sites.push(site);
    }
    let paths = &plan(&config, |_| Usability::Full).paths;
    let inputs = paths.iter().filter_map(|path| path.over);
    assert_eq!(inputs.count(), 3);
    let layout = Layout::new(&config, &[]);
    assert_eq!(layout.underlays(), [OwnerId(0), OwnerId(1)]);
}

#[test]
fn a_name_that_is_not_there_is_an_error() {
    let mut config = example();
    config.route[0].next_hop = NextHop::Path("nowhere".to_owned());
    let error = Plan::new(&config, NonZeroU32::MIN, |_| Usability::Full).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the route to 10.9.0.0/16 names nowhere, which is neither a circuit nor a site"
    );
}
