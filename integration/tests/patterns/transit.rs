//! From branch to branch: `transit.toml`, as it is and with transit off.

use crate::place::{BRANCH, ONPREM, Place};
use crate::stage::{World, balanced};
use crate::traffic::{Packet, assert_arrives, listen, taken};

const PREMISES: Place = Place {
    reaches: &["10.1.0.0/16", "10.3.0.0/16"],
    ..ONPREM
};
const BEHIND_VPN: Place = Place {
    reaches: &["10.1.0.0/16", "10.2.0.0/16"],
    ..BRANCH
};

/// From, to, and the way out of the gateway.
const WAYS: [(&str, &str, &str, &str, &str); 2] = [
    ("onprem", "10.2.0.10", "branch", "10.3.0.10", "branch"),
    ("branch", "10.3.0.10", "onprem", "10.2.0.10", "er-sydney/"),
];

#[test]
fn branches_reach_each_other_with_transit() {
    let world = World::start("transit", &[PREMISES, BEHIND_VPN], |text| text);
    for (from, source, to, destination, way) in WAYS {
        let packet = Packet::between(source, destination, 40_000);
        let inlet = listen(world.host(to), destination);
        let before = balanced(&world.gateway);
        packet.send(world.host(from));
        assert_arrives(&inlet, &packet);
        let taken = taken(&before, &balanced(&world.gateway));
        let paths: Vec<_> = taken.keys().collect();
        assert!(paths.len() == 1 && paths[0].starts_with(way), "{taken:?}");
    }
    world.finish();
}

#[test]
fn without_transit_the_gateway_drops_what_goes_from_branch_to_branch() {
    let off = |text: String| text.replace("branch_transit = true", "branch_transit = false");
    let world = World::start("transit", &[PREMISES, BEHIND_VPN], off);
    for (from, source, _, destination, _) in WAYS {
        let packet = Packet::between(source, destination, 40_000);
        assert_eq!(world.fate_of(packet, from), "branch_transit");
    }
    // Both still reach the virtual network.
    for (from, source, ..) in WAYS {
        let packet = Packet::between(source, "10.1.0.4", 40_001);
        let inlet = listen(world.host("gateway"), "10.1.0.4");
        packet.send(world.host(from));
        assert_arrives(&inlet, &packet);
    }
    world.finish();
}
