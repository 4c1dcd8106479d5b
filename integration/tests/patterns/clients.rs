//! Single devices beside a circuit: `point-to-site-beside-expressroute.toml`.

use crate::place::{BRANCH, ONPREM, Place};
use crate::stage::World;
use crate::traffic::{Packet, assert_arrives, listen};

/// A client of a pool has one address; those around it are nobody's.
const LAPTOP: Place = Place {
    name: "laptop",
    space: &["172.31.0.0/24"],
    address: "172.31.0.65/27",
    host: "172.31.0.2/24",
    sites: &["laptop"],
    reaches: &["10.1.0.0/16", "10.2.0.0/16"],
    ..BRANCH
};
const PREMISES: Place = Place {
    reaches: &["10.1.0.0/16", "172.31.0.0/24"],
    ..ONPREM
};

#[test]
fn a_client_reaches_the_virtual_network_and_what_is_behind_the_circuit_only_with_transit() {
    let example = "point-to-site-beside-expressroute";
    let world = World::start(example, &[PREMISES, LAPTOP], |text| text);
    // The client calls.
    let inlet = listen(world.host("gateway"), "10.1.0.4");
    let call = Packet::between("172.31.0.2", "10.1.0.4", 40_000);
    call.send(world.host("laptop"));
    assert_arrives(&inlet, &call);
    // Then both ways are open.
    let answer = Packet::to("172.31.0.2", 40_001);
    assert_eq!(world.path_of(answer, "laptop"), "point-to-site");
    let path = world.path_of(Packet::to("10.2.0.10", 40_002), "onprem");
    assert!(path.starts_with("er-sydney/"), "{path}");

    let across = Packet::between("172.31.0.2", "10.2.0.10", 40_003);
    assert_eq!(world.fate_of(across, "laptop"), "branch_transit");
    // An address of the pool that is not the client's.
    world
        .host("laptop")
        .address("lo", &["172.31.0.9/32"])
        .unwrap();
    let stranger = Packet::between("172.31.0.9", "10.1.0.4", 40_004);
    assert_eq!(world.fate_of(stranger, "laptop"), "spoofed_source");
    world.finish();
}
