//! `host_routes`: what the machine had before it has during and after, whatever way the gateway ends.

use crate::stage::{PATIENCE, Stage, ip, routes, wait_for};
use integration::gateway::Gateway;
use rustix::process::Signal;
use std::time::Duration;

/// What the machine has of its own: a default route, a blackhole, other programs' routes.
const OWN: [&str; 6] = [
    "-4 route add default via 192.0.2.2",
    "-4 route add blackhole 10.66.0.0/16",
    "-4 route add 10.77.0.0/16 via 192.0.2.2 proto bird",
    "-4 route add 10.88.0.0/16 via 192.0.2.2 metric 500",
    "-6 route add default via 2001:db8::2",
    "-6 route add blackhole fd00:66::/48",
];

const PREFIXES: [&str; 9] = [
    "0.0.0.0/0",
    "10.2.0.0/16",
    "10.66.0.0/16",
    "10.77.0.0/16",
    "10.88.0.0/16",
    "192.0.2.0/24",
    "fd00:2::/48",
    "fd00:66::/48",
    "2001:db8::/64",
];

/// The routes that are not through the device.
fn foreign(lines: &[String]) -> Vec<String> {
    let mut lines = lines.to_vec();
    lines.retain(|line| !line.contains("dev vng"));
    lines
}

fn has_route(lines: &[String], family: &str, prefix: &str) -> bool {
    let start = format!("{family} {prefix} dev vng0");
    lines.iter().any(|line| line.starts_with(&start))
}

#[test]
fn the_machines_own_routes_stay_whatever_way_the_gateway_ends() {
    let stage = Stage::new();
    for route in OWN {
        ip(&stage.near, route);
    }
    let before = routes(&stage.near);
    let mut gateway = stage.gateway("first", "vng0", &stage.vpn(51820, &PREFIXES));
    for kill in [false, true] {
        gateway.start().unwrap();
        let during = routes(&stage.near);
        assert_eq!(
            foreign(&during),
            before,
            "a route of the machine's own is gone"
        );
        assert!(has_route(&during, "-4", "10.2.0.0/16"), "{during:#?}");
        assert!(has_route(&during, "-6", "fd00:2::/48"), "{during:#?}");
        // Ours beside one of a worse metric, which is there again afterwards.
        assert!(has_route(&during, "-4", "10.88.0.0/16"), "{during:#?}");
        // The endpoint is not led into the device, and the machine's network is not either.
        let towards = ip(&stage.near, "-4 route get 192.0.2.2");
        assert!(towards.contains("dev eth0"), "{towards}");
        assert_conflicts_are_said(&stage, &gateway);
        end(&mut gateway, kill);
        wait_for("the device is there", String::new, || {
            routes(&stage.near) == before
        });
    }
}

fn assert_conflicts_are_said(stage: &Stage, gateway: &Gateway) {
    let status = stage.show(gateway, "status");
    let text = status["host"].to_string();
    for prefix in ["0.0.0.0/0", "10.66.0.0/16", "10.77.0.0/16", "192.0.2.0/24"] {
        assert!(text.contains(prefix), "{prefix} is not in {text}");
        assert!(gateway.log().contains(prefix), "{}", gateway.log());
    }
}

fn end(gateway: &mut Gateway, kill: bool) {
    if kill {
        gateway.signal(Signal::KILL).unwrap();
        gateway.wait().unwrap();
    } else {
        gateway.stop().unwrap();
    }
}

/// The second has the first one's port: it fails after it has made its device.
#[test]
fn a_second_instance_that_fails_to_start_leaves_the_first_ones_routes() {
    let stage = Stage::new();
    let vpn = stage.vpn(51820, &["10.2.0.0/16", "fd00:2::/48"]);
    let mut first = stage.gateway("first", "vng0", &vpn);
    first.start().unwrap();
    let before = routes(&stage.near);
    let mut second = stage.gateway("second", "vng9", &vpn);
    let refusal = second.start().unwrap_err().to_string();
    assert!(refusal.contains("51820"), "{refusal}");
    assert_eq!(routes(&stage.near), before);
    let towards = ip(&stage.near, "-4 route get 10.2.0.9");
    assert!(towards.contains("dev vng0"), "{towards}");
    first.stop().unwrap();
}

/// A persistent device keeps what it was given, and what a killed gateway left on it goes with the next.
#[test]
fn routes_left_on_a_persistent_device_are_taken_away_by_the_next_start() {
    let stage = Stage::new();
    ip(&stage.near, "tuntap add dev vng0 mode tun");
    let before = routes(&stage.near);
    let left = ["10.2.0.0/16", "10.3.0.0/16", "fd00:3::/48"];
    let mut gateway = stage.gateway("first", "vng0", &stage.vpn(51820, &left));
    gateway.start().unwrap();
    end(&mut gateway, true);
    let mut gateway = stage.gateway("first", "vng0", &stage.vpn(51820, &["10.2.0.0/16"]));
    gateway.start().unwrap();
    let during = routes(&stage.near);
    assert!(has_route(&during, "-4", "10.2.0.0/16"), "{during:#?}");
    assert!(
        !during.iter().any(|line| line.contains("10.3.0.0/16")),
        "{during:#?}"
    );
    assert!(
        !during.iter().any(|line| line.contains("fd00:3::")),
        "{during:#?}"
    );
    gateway.stop().unwrap();
    let after = routes(&stage.near);
    let ours: Vec<_> = after.iter().filter(|line| line.contains("10.2.")).collect();
    assert!(ours.is_empty(), "{ours:?} stays behind");
    assert_eq!(foreign(&after), foreign(&before));
}

/// What others do to the device is put back, or said.
#[test]
fn what_others_do_to_the_device_is_put_back_or_said() {
    let stage = Stage::new();
    let near = &stage.near;
    let vpn = stage.vpn(51820, &["10.2.0.0/16", "10.3.0.0/16", "fd00:2::/48"]);
    let mut gateway = stage.gateway("first", "vng0", &vpn);
    gateway.start().unwrap();
    let state = || (routes(near), addresses(&stage));
    let whole = state();
    assert!(whole.1.iter().any(|line| line.contains("fd00:1::4/48")));
    let back = |what: &str| {
        wait_for(
            what,
            || format!("{:#?}\n{}", state(), gateway.log()),
            || state() == whole,
        );
    };
    ip(near, "link set vng0 down");
    let said = |reason: &str| {
        let text = || stage.show(&gateway, "status")["host"].to_string();
        wait_for(reason, text, || {
            let host = text();
            host.contains(reason) && host.contains("degraded")
        });
    };
    said("device_down");
    ip(near, "link set vng0 up");
    back("down and up");
    ip(near, "route flush dev vng0");
    back("routes flushed");
    ip(near, "addr flush dev vng0");
    back("addresses flushed");
    // Nobody is at odds here, however many looks each of these has taken.
    assert!(stage.reload(&gateway).contains("nothing changed"));
    ip(near, "-4 route del 10.3.0.0/16 dev vng0");
    back("one route deleted");
    ip(near, "-6 route del fd00:2::/48 dev vng0");
    back("one route of IPv6 deleted");
    ip(near, "link set vng0 mtu 1200");
    back("an MTU without IPv6");
    assert!(stage.reload(&gateway).contains("nothing changed"));
    let healthy = stage.show(&gateway, "status")["host"]["state"].clone();
    assert_eq!(healthy, "up");

    // Renamed: it goes on by its index, and says so; reload gives it its name back.
    ip(near, "link set vng0 down");
    ip(near, "link set vng0 name other0");
    ip(near, "link set other0 up");
    said("device_renamed");
    wait_for("routes under the other name", String::new, || {
        routes(near)
            .iter()
            .any(|line| line.contains("10.2.0.0/16 dev other0"))
    });
    ip(near, "link set other0 down");
    let told = stage.reload(&gateway);
    assert!(!told.contains("nothing changed"), "{told}");
    assert!(told.contains("vng0"), "{told}");
    back("reload");

    // A program that takes a route away again and again is not fought for ever.
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        wait_or_give_up(near);
        let host = stage.show(&gateway, "status")["host"].clone();
        if host.to_string().contains("contested") {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{host}");
    }
    assert!(
        gateway.log().contains("again and again"),
        "{}",
        gateway.log()
    );
    // And reload ends the quarrel.
    if has_route(&routes(near), "-4", "10.3.0.0/16") {
        ip(near, "-4 route del 10.3.0.0/16 dev vng0");
    }
    let told = stage.reload(&gateway);
    assert!(
        told.contains("10.3.0.0/16") || told.contains("route"),
        "{told}"
    );
    back("reload after a quarrel");
    gateway.stop().unwrap();
}

/// Deletes the route as soon as it is there, or gives it a while to come.
fn wait_or_give_up(host: &integration::host::Host) {
    for _ in 0..25 {
        if routes(host).iter().any(|line| line.contains("10.3.0.0/16")) {
            ip(host, "-4 route del 10.3.0.0/16 dev vng0");
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn addresses(stage: &Stage) -> Vec<String> {
    let text = ip(&stage.near, "-o addr show");
    let device = text.lines().filter(|line| line.contains("vng0"));
    let words = device.map(|line| {
        line.split_ascii_whitespace()
            .skip(2)
            .take(2)
            .collect::<Vec<_>>()
            .join(" ")
    });
    // The kernel makes a link-local address up each time.
    let mut all: Vec<String> = words.filter(|line| !line.contains("fe80")).collect();
    all.sort();
    all
}
