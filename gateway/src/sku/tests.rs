use super::Edition::{Current, Of2016};
use super::*;

#[test]
fn aliases_have_the_same_limits() {
    for (old, new) in [
        ("Standard", "ErGw1Az"),
        ("HighPerformance", "ErGw2AZ"),
        ("UltraPerformance", "ergw3az"),
    ] {
        let (old, mut new) = (
            expressroute(Current, old).unwrap(),
            expressroute(Current, new).unwrap(),
        );
        new.name.clone_from(&old.name);
        assert_eq!(old, new);
    }
}

#[test]
fn scale_units_add_up_as_published() {
    let units = |n: u32| expressroute(Current, &format!("ErGwScale:{n}")).unwrap();
    assert_eq!(expressroute(Current, "ErGwScale").unwrap(), units(1));
    assert_eq!((units(1).circuits, units(1).fast_path), (Some(4), false));
    assert_eq!((units(2).circuits, units(9).circuits), (Some(8), Some(8)));
    assert_eq!((units(10).circuits, units(10).fast_path), (Some(16), true));
    assert_eq!(units(10).packets_per_second, Some(1_000_000));
    assert_eq!(units(11).packets_per_second, Some(1_200_000));
    assert_eq!(units(40).bits_per_second, Some(40_000_000_000));
    for unknown in ["ErGwScale:0", "ErGwScale:41", "ErGwScale:x"] {
        assert_eq!(expressroute(Current, unknown), None);
    }
    assert_eq!(expressroute(Of2016, "ErGwScale:1"), None);
}

#[test]
fn a_generation_that_lacks_the_sku_is_told_from_an_unknown_name() {
    assert_eq!(
        vpn(Current, "VpnGw4", 1),
        Err(UnknownVpnSku::Generation(vec![2])),
        "VpnGw4 is of generation 2"
    );
    assert_eq!(
        vpn(Current, "Basic", 2),
        Err(UnknownVpnSku::Generation(vec![1]))
    );
    assert_eq!(vpn(Current, "VpnGw9", 1), Err(UnknownVpnSku::Name));
    assert_eq!(vpn_generations(Current, "VpnGw2"), [1, 2]);
}

#[test]
fn generations_of_one_name_differ_in_their_limits() {
    let (one, two) = (
        vpn(Current, "VpnGw3", 1).unwrap(),
        vpn(Current, "VpnGw3AZ", 2).unwrap(),
    );
    assert_eq!(one.bits_per_second, Some(1_250_000_000));
    assert_eq!(two.bits_per_second, Some(2_500_000_000));
    assert_eq!(two.tunnel_packets_per_second, Some(140_000));
    assert!(!vpn(Current, "Basic", 1).unwrap().coexists);
}

#[test]
fn the_2016_edition_has_its_own_names_and_figures() {
    let megabits = |name| {
        let sku = expressroute(Of2016, name).unwrap();
        (sku.bits_per_second.unwrap() / MBPS, sku.coexists)
    };
    assert_eq!(megabits("Basic"), (500, false));
    assert_eq!(megabits("standard"), (1_000, true));
    assert_eq!(megabits("HighPerformance"), (2_000, true));
    assert_eq!(megabits("UltraPerformance"), (10_000, true));
    let tunnels = |name| {
        let sku = vpn(Of2016, name, 1).unwrap();
        let megabits = sku.bits_per_second.unwrap() / MBPS;
        (megabits, sku.tunnels.unwrap(), sku.coexists)
    };
    assert_eq!(tunnels("Basic"), (100, 10, false));
    assert_eq!(tunnels("Standard"), (100, 10, true));
    assert_eq!(tunnels("HighPerformance"), (200, 30, true));
    assert_eq!(
        vpn(Of2016, "UltraPerformance", 1),
        Err(UnknownVpnSku::Name),
        "it had no VPN gateway"
    );
    assert_eq!(expressroute(Of2016, "ErGw1Az"), None);
    assert_eq!(vpn(Of2016, "VpnGw1", 1), Err(UnknownVpnSku::Name));
}

#[test]
fn what_the_2016_edition_does_not_publish_is_not_limited() {
    let sku = expressroute(Of2016, "Standard").unwrap();
    assert_eq!((sku.packets_per_second, sku.flows), (None, None));
    assert_eq!((sku.circuits, sku.routes_learned), (None, None));
    let sku = vpn(Of2016, "Standard", 1).unwrap();
    assert_eq!((sku.flows, sku.tunnel_bits_per_second), (None, None));
    assert_eq!((sku.clients, sku.generation), (None, 0));
}

#[test]
fn every_listed_name_is_known() {
    for edition in [Current, Of2016] {
        for name in expressroute_names(edition) {
            assert!(expressroute(edition, name).is_some(), "{name}");
        }
        for name in vpn_names(edition) {
            let there = [1, 2].map(|generation| vpn(edition, name, generation).is_ok());
            assert!(there.contains(&true), "{name}");
        }
    }
}
