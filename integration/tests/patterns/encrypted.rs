//! A tunnel that a circuit carries: `encrypted-expressroute.toml`.

use crate::place::{ONPREM, Place};
use crate::stage::{PATIENCE, Stage, World, balanced};
use crate::traffic::{LENGTH, Packet, assert_arrives, listen, taken};
use crypto::key::{PrivateKey, PublicKey};
use integration::host::{Host, connect};
use integration::traffic::bulk;
use std::sync::Arc;
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

/// One of two gateways that face each other over one link, each with its tunnel over it, IPv6 outside.
fn facing(n: u8, key_file: &str, other: &PublicKey, socket: &str) -> String {
    let m = 3 - n;
    format!(
        r#"[vnet]
name          = "vnet-{n}"
address_space = ["10.{n}.0.0/16", "fd00:{n}::/48"]
address       = ["10.{n}.255.4/27", "fd00:{n}:0:ff::4/64"]
host_address  = ["10.{n}.0.4/16", "fd00:{n}::4/48"]
host_routes   = true

[expressroute]
sku = "Unlimited"

[[expressroute.circuit]]
name     = "er"
model    = "any-to-any"
prefixes = ["fd00:{m}:0:ff::/64"]
probe    = {{ interval = "100ms" }}

  [[expressroute.circuit.link]]
  interface = "eth1"
  address   = "fd00:16::{n}/126"
  neighbor  = "fd00:16::{m}"

[vpn]
sku              = "Unlimited"
private_key_file = "{key_file}"

[[vpn.site]]
name       = "site-{m}"
over       = "er"
public_key = "{other}"
endpoint   = "[fd00:{m}:0:ff::4]:51820"
prefixes   = ["10.{m}.0.0/16", "fd00:{m}::/48"]

[control]
workers = 2
socket  = "{socket}"
"#
    )
}

#[test]
fn both_ends_may_reach_each_other_over_a_circuit_and_over_ipv6() {
    let stage = Stage::new();
    let hosts = ["near", "far"].map(|name| Arc::new(Host::new(name).unwrap()));
    let [near, far] = &hosts;
    connect((near, "eth1"), (far, "eth1")).unwrap();
    let keys = [(); 2].map(|()| PrivateKey::generate().unwrap());
    let publics = keys.each_ref().map(PrivateKey::public_key);
    let mut gateways = [1, 2].map(|n: u8| {
        let at = usize::from(n) - 1;
        // Nobody but the gateway lives there.
        hosts[at].set("ipv6/conf/eth1/disable_ipv6", "1").unwrap();
        hosts[at]
            .configure(|netlink| netlink.set_up("eth1", true))
            .unwrap();
        let name = format!("facing-{n}");
        let (file, socket) = (stage.key_path(&name, &keys[at]), stage.socket(&name));
        let text = facing(n, &file, &publics[1 - at], &socket.display().to_string());
        stage.gateway_on(&hosts[at], &name, &text)
    });
    for gateway in &mut gateways {
        gateway.start().unwrap();
    }
    for (host, m) in hosts.iter().zip([2, 1]) {
        for target in [format!("10.{m}.0.4"), format!("fd00:{m}::4")] {
            let reached = host.reaches(target.parse().unwrap(), PATIENCE).unwrap();
            let told = gateways.each_ref().map(|gateway| {
                ["status", "counters", "neighbors"]
                    .map(|what| stage.vng(gateway, &["show", what]))
                    .join("\n")
            });
            assert!(reached, "{target}: {}\n{}", told[0], told[1]);
        }
    }
    let before = balanced(&gateways[0]);
    for (from, to, target) in [(near, far, "10.2.0.4"), (far, near, "fd00:1::4")] {
        let bulk = bulk::send(
            from,
            to,
            target.parse().unwrap(),
            Duration::from_millis(300),
        );
        let bulk = bulk.unwrap();
        println!("to {target}: {bulk:?}");
        assert!(bulk.bytes > 1_000_000, "{bulk:?}");
    }
    let after = balanced(&gateways[0]);
    let grown = |port: &str| after.totals.sent[port].bytes - before.totals.sent[port].bytes;
    let (inside, around) = (grown("site-2"), grown("er/primary"));
    assert!(
        inside > 1_000_000 && around > inside,
        "{around} around {inside}"
    );
    for gateway in &mut gateways {
        balanced(gateway);
        gateway.stop().unwrap();
    }
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
