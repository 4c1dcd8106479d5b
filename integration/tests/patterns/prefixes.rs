//! Which prefix leads where: `vpn-one-site.toml`, `more-specific-vpn.toml`, `forced-tunnelling.toml`,
//! `any-to-any.toml`.

use crate::place::{BRANCH, ONPREM, Place};
use crate::stage::World;
use crate::traffic::Packet;

#[test]
fn one_site_is_reached_over_vpn_and_the_rest_over_expressroute() {
    let premises = Place {
        space: &["10.2.0.0/16", "10.4.0.0/16"],
        more: &["10.4.0.1/32"],
        ..ONPREM
    };
    let world = World::start("vpn-one-site", &[premises, BRANCH], |text| text);
    for target in ["10.2.0.10", "10.4.0.1"] {
        let path = world.path_of(Packet::to(target, 40_000), "onprem");
        assert!(path.starts_with("er-sydney/"), "{target}: {path}");
    }
    assert_eq!(
        world.path_of(Packet::to("10.3.0.10", 40_000), "branch"),
        "branch"
    );

    // Disjoint prefixes stand in for nobody.
    world.set_silent("er-sydney", true);
    world.wait_for("er-sydney/primary", false);
    world.wait_for("er-sydney/secondary", false);
    assert_eq!(
        world.fate_of(Packet::to("10.2.0.10", 40_001), "gateway"),
        "no_path"
    );
    assert_eq!(
        world.path_of(Packet::to("10.3.0.10", 40_001), "branch"),
        "branch"
    );
    world.finish();
}

#[test]
fn a_more_specific_prefix_over_vpn_wins_and_falls_back_only_where_a_policy_says_so() {
    let records = Place {
        name: "records",
        space: &["10.2.8.0/23"],
        address: "10.2.8.1/27",
        host: "10.2.8.10/23",
        more: &["10.2.9.1/32"],
        sites: &["records"],
        ..BRANCH
    };
    let premises = Place {
        more: &["10.2.8.10/32", "10.2.9.1/32"],
        ..ONPREM
    };
    let mut world = World::start("more-specific-vpn", &[premises, records], |text| text);
    let path = world.path_of(Packet::to("10.2.0.10", 40_000), "onprem");
    assert!(path.starts_with("er-sydney/"), "{path}");
    for target in ["10.2.8.10", "10.2.9.1"] {
        let path = world.path_of(Packet::to(target, 40_000), "records");
        assert_eq!(path, "records", "{target}");
    }

    world.places.get_mut("records").unwrap().stop().unwrap();
    world.wait_for("records", false);
    assert_eq!(
        world.fate_of(Packet::to("10.2.8.10", 40_001), "gateway"),
        "no_path"
    );
    let path = world.path_of(Packet::to("10.2.9.1", 40_001), "onprem");
    assert!(path.starts_with("er-sydney/"), "{path}");
    world.places.remove("records");
    world.finish();
}

#[test]
fn forced_tunnelling_takes_the_internet_on_premises_but_not_azures_private_space() {
    let premises = Place {
        more: &["93.184.215.14/32", "172.20.0.1/32"],
        space: &["10.2.0.0/16", "93.184.215.0/24", "172.20.0.0/16"],
        ..ONPREM
    };
    let world = World::start("forced-tunnelling", &[premises], |text| text);
    for target in ["10.2.0.10", "93.184.215.14", "172.20.0.1"] {
        let path = world.path_of(Packet::to(target, 40_000), "onprem");
        assert!(path.starts_with("er-sydney/"), "{target}: {path}");
    }
    for target in ["192.168.7.1", "10.77.0.1", "198.51.100.9"] {
        let fate = world.fate_of(Packet::to(target, 40_000), "gateway");
        assert_eq!(fate, "route_none", "{target}");
    }
    world.finish();
}

#[test]
fn a_managed_layer_3_circuit_carries_untagged_frames_to_the_providers_router() {
    let premises = Place {
        circuits: &["er-ipvpn"],
        more: &["10.5.0.1/32"],
        space: &["10.2.0.0/16", "10.5.0.0/16"],
        ..ONPREM
    };
    let world = World::start("any-to-any", &[premises], |text| text);
    for target in ["10.2.0.10", "10.5.0.1"] {
        let path = world.path_of(Packet::to(target, 40_000), "onprem");
        assert!(path.starts_with("er-ipvpn/"), "{target}: {path}");
    }
    world.finish();
}
