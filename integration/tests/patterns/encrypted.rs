//! A tunnel that a circuit carries: `encrypted-expressroute.toml`.

use crate::stage::{ONPREM, Place, World, balanced};
use crate::traffic::{LENGTH, Packet, assert_arrives, listen, taken};
use integration::traffic::bulk;
use std::time::Duration;

/// Where the circuit ends.
const EDGE: Place = Place {
    name: "edge",
    space: &["10.200.0.0/24"],
    address: "10.200.0.1/27",
    host: "10.200.0.254/24",
    ..ONPREM
};
/// The VPN device, a gateway whose tunnel is a plain UDP socket of its kernel.
const DEVICE: Place = Place {
    name: "device",
    address: "10.2.255.4/27",
    circuits: &[],
    sites: &["onprem"],
    ..ONPREM
};
/// Bytes around a packet: IPv4, UDP, WireGuard. A packet of this length needs no padding.
const AROUND: u64 = 20 + 8 + 32;

#[test]
fn a_tunnel_over_a_circuit_leaves_by_its_links_and_nothing_goes_in_the_clear() {
    let change = |text: String| text.replace("sku = \"ErGw1Az\"", "sku = \"UltraPerformance\"");
    let world = World::start("encrypted-expressroute", &[EDGE, DEVICE], change);
    for (port, from, to) in [(40_000, "gateway", "device"), (40_001, "device", "gateway")] {
        assert_eq!(passes(&world, port, from, to).len(), 2);
    }

    // TCP, with its MSS clamped to the tunnel's MTU, in super-packets both in the tunnel and around it.
    let before = balanced(&world.gateway);
    let (here, there) = (world.host("gateway"), world.host("device"));
    let bulk = bulk::send(
        here,
        there,
        "10.2.0.10".parse().unwrap(),
        Duration::from_millis(500),
    );
    println!("{:?}", bulk.unwrap());
    let after = balanced(&world.gateway);
    let sent = |port: &str| {
        let (old, new) = (before.totals.sent[port], after.totals.sent[port]);
        (new.packets - old.packets, new.bytes - old.bytes)
    };
    let (packets, bytes) = sent("onprem");
    assert!(
        packets > 100 && bytes / packets <= 1_290,
        "{packets} packets, {bytes} bytes"
    );
    assert!(bytes / packets > 1_200, "{packets} packets, {bytes} bytes");
    let links = ["er-sydney/primary", "er-sydney/secondary"].map(sent);
    let around: u64 = links.iter().map(|(_, bytes)| bytes).sum();
    assert!(
        around >= bytes + packets * AROUND,
        "{links:?} around {bytes}"
    );

    // One link fails: the tunnel moves to the other, with the same session.
    let used = passes(&world, 40_002, "gateway", "device");
    let primary = used.iter().any(|port| port == "er-sydney/primary");
    let (lost, left) = if primary {
        ("primary", "secondary")
    } else {
        ("secondary", "primary")
    };
    world.wires[&format!("er-sydney/{lost}")].set_silent(true);
    world.wait_for(&format!("er-sydney/{lost}"), false);
    let used = passes(&world, 40_003, "gateway", "device");
    assert_eq!(used, [format!("er-sydney/{left}"), "onprem".to_owned()]);

    // The circuit fails: the site is not reached, by the Internet neither.
    world.set_silent("er-sydney", true);
    world.wait_for("onprem", false);
    let packet = Packet::to("10.2.0.10", 40_004);
    assert_eq!(world.fate_of(packet, "gateway"), "no_path");

    world.set_silent("er-sydney", false);
    world.wait_until_whole();
    world.wait_for("onprem", true);
    assert_eq!(passes(&world, 40_005, "gateway", "device").len(), 2);
    println!("{}", world.stage.vng(&world.gateway, &["show", "tunnels"]));
    world.finish();
}

#[test]
fn a_tunnel_over_a_circuit_finds_its_worker_whichever_reads_the_link() {
    let workers = |text: String| text.replace("[control]\n", "[control]\nworkers = 3\n");
    let world = World::start("encrypted-expressroute", &[EDGE, DEVICE], workers);
    for port in 40_000..40_008 {
        assert_eq!(passes(&world, port, "gateway", "device").len(), 2);
        assert_eq!(passes(&world, port, "device", "gateway").len(), 2);
    }
    for (from, to, target) in [
        ("gateway", "device", "10.2.0.10"),
        ("device", "gateway", "10.1.0.4"),
    ] {
        let (here, there) = (world.host(from), world.host(to));
        let bulk = bulk::send(
            here,
            there,
            target.parse().unwrap(),
            Duration::from_millis(300),
        );
        println!("from {from}: {:?}", bulk.unwrap());
    }
    world.finish();
}

/// Sends a packet through the tunnel; the ports of the gateway that sent it, or what was around it.
fn passes(world: &World, port: u16, from: &str, to: &str) -> Vec<String> {
    let [source, destination] = match from {
        "gateway" => ["10.1.0.4", "10.2.0.10"],
        _ => ["10.2.0.10", "10.1.0.4"],
    };
    let packet = Packet::between(source, destination, port);
    let inlet = listen(world.host(to), destination);
    let before = balanced(&world.gateway);
    packet.send(world.host(from));
    assert_arrives(&inlet, &packet);
    let after = balanced(&world.gateway);
    let sent = taken(&before, &after);
    assert!(sent.values().all(|packets| *packets == 1), "{sent:?}");
    let (link, inside) = if from == "gateway" {
        (&after.totals.sent, &before.totals.sent)
    } else {
        // In by the link, opened by the gateway itself, in again by the tunnel, and out.
        assert_eq!(sent.keys().collect::<Vec<_>>(), ["local", "vnet"]);
        (&after.totals.received, &before.totals.received)
    };
    let grown = |name: &String| link[name].bytes - inside[name].bytes;
    let around = link.keys().filter(|name| name.starts_with("er-sydney/"));
    let most = around.map(grown).max().unwrap();
    assert!(most >= LENGTH as u64 + AROUND, "{most} bytes over the link");
    assert!(grown(&"onprem".to_owned()) >= LENGTH as u64);
    sent.into_keys().collect()
}
