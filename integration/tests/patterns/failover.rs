//! Two paths to one prefix: `failover-pair.toml`.

use crate::place::{ONPREM, Place};
use crate::stage::World;
use crate::traffic::Packet;

const BOTH_WAYS: Place = Place {
    sites: &["onprem"],
    ..ONPREM
};

#[test]
fn expressroute_carries_equal_prefixes_until_it_fails_and_again_afterwards() {
    let world = World::start("failover-pair", &[BOTH_WAYS], |text| text);
    let packet = |port| Packet::to("10.2.0.10", port);
    for port in 40_000..40_004 {
        assert!(
            world
                .path_of(packet(port), "onprem")
                .starts_with("er-sydney/")
        );
    }

    // One link: its flows move to the other, and none to the tunnel.
    world.wires["er-sydney/primary"].set_silent(true);
    world.wait_for("er-sydney/primary", false);
    for port in 40_000..40_004 {
        assert_eq!(world.path_of(packet(port), "onprem"), "er-sydney/secondary");
    }

    world.set_silent("er-sydney", true);
    world.wait_for("onprem", true);
    for port in 40_000..40_004 {
        assert_eq!(world.path_of(packet(port), "onprem"), "onprem");
    }

    world.set_silent("er-sydney", false);
    world.wait_until_whole();
    world.wait_for("er-sydney/secondary", true);
    for port in 40_000..40_004 {
        assert!(
            world
                .path_of(packet(port), "onprem")
                .starts_with("er-sydney/")
        );
    }
    world.finish();
}
