//! Flows over several circuits: `two-circuits-ecmp.toml`.

use crate::place::{ONPREM, Place};
use crate::stage::World;
use crate::traffic::Packet;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

const LINKS: [&str; 4] = [
    "er-melbourne/primary",
    "er-melbourne/secondary",
    "er-sydney/primary",
    "er-sydney/secondary",
];
/// Flows, told apart by their source port.
const FLOWS: Range<u16> = 41_000..41_048;
const NEW_FLOWS: Range<u16> = 42_000..42_048;

#[test]
fn flows_spread_over_both_circuits_and_a_lost_circuit_moves_only_its_own() {
    let premises = Place {
        circuits: &["er-sydney", "er-melbourne"],
        ..ONPREM
    };
    let world = World::start("two-circuits-ecmp", &[premises], |text| text);
    let before = send_all(&world, FLOWS);
    assert_eq!(used(&before), LINKS);
    for (port, path) in &before {
        let told = flow(*port).explain(&world.gateway, "vnet");
        assert_eq!(told.member.as_ref(), Some(path), "{told:?}");
    }

    world.set_silent("er-melbourne", true);
    world.wait_for("er-melbourne/primary", false);
    world.wait_for("er-melbourne/secondary", false);
    let during = send_all(&world, FLOWS);
    assert_eq!(used(&during), LINKS[2..]);
    for (port, path) in &before {
        if path.starts_with("er-sydney/") {
            assert_eq!(
                during[port], *path,
                "flow {port} was not on the lost circuit"
            );
        }
    }

    world.set_silent("er-melbourne", false);
    world.wait_until_whole();
    world.wait_for("er-melbourne/primary", true);
    world.wait_for("er-melbourne/secondary", true);
    let after = send_all(&world, FLOWS);
    assert_eq!(after, during, "what is under way stays where it is");
    assert_eq!(used(&send_all(&world, NEW_FLOWS)), LINKS);
    world.finish();
}

fn flow(port: u16) -> Packet {
    Packet::to("10.2.0.10", port)
}

/// Sends one packet of each flow; which path each took, by the ledger.
fn send_all(world: &World, ports: Range<u16>) -> BTreeMap<u16, String> {
    let path = |port| (port, world.path_of(flow(port), "onprem"));
    let paths: BTreeMap<u16, String> = ports.map(path).collect();
    let mut count: BTreeMap<&str, u32> = BTreeMap::new();
    for path in paths.values() {
        *count.entry(path).or_default() += 1;
    }
    println!("flows by path: {count:?}");
    paths
}

/// The paths that were taken.
fn used(paths: &BTreeMap<u16, String>) -> Vec<&str> {
    let used: BTreeSet<&str> = paths.values().map(String::as_str).collect();
    used.into_iter().collect()
}
