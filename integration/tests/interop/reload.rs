//! A new configuration under traffic.

use crate::stage::{Family, Pair, Stage, Way};
use crate::traffic::{assert_all_arrived, numbered, wait_until};
use integration::config::Tagging;
use integration::gateway::Gateway;
use integration::stage::{replace, wait_for};
use integration::traffic::numbered::Load;
use rustix::process::Signal;
use std::time::Duration;

#[test]
fn a_tunnel_loses_nothing_when_its_gateway_reloads() {
    reload(Way::Tunnel(Family::V4));
}

#[test]
fn a_link_loses_nothing_when_its_gateway_reloads() {
    reload(Way::Link(Tagging::QinQ, 1_500));
}

fn reload(way: Way) {
    let stage = Stage::new();
    let pair = stage.pair(way, ["", ""]);
    let load = Load {
        rate: 5_000,
        ..Load::default()
    };
    let run = numbered(&pair.hosts, Family::V4, load);
    wait_until(&run, Duration::from_millis(500));

    let gateway = &pair.gateways[0];
    add_prefix(gateway, "10.22.0.0/16");
    let said = stage.vng(gateway, &["reload"]);
    assert!(said.starts_with("changed"), "{said}");
    assert!(knows(&stage, &pair, "10.22.0.0/16"), "after {said}");

    wait_until(&run, Duration::from_millis(1_500));
    add_prefix(gateway, "10.23.0.0/16");
    gateway.signal(Signal::HUP).unwrap();
    wait_for(
        "the route",
        || gateway.log(),
        || knows(&stage, &pair, "10.23.0.0/16"),
    );
    wait_until(&run, Duration::from_millis(2_500));
    assert_all_arrived(run, 1_000);
    pair.finish(&stage, &[]);
}

/// Adds a prefix behind the circuit or site, in the file.
fn add_prefix(gateway: &Gateway, prefix: &str) {
    let with = format!("\"10.2.0.0/16\", \"{prefix}\",");
    replace(gateway, "\"10.2.0.0/16\",", &with);
}

/// Whether the gateway has an active route to the prefix and the kernel leads to it.
fn knows(stage: &Stage, pair: &Pair, prefix: &str) -> bool {
    let routes = stage.show(&pair.gateways[0], "routes");
    let active =
        |route: &serde_json::Value| route["prefix"] == *prefix && route["state"] == *"Active";
    let known = routes.as_array().unwrap().iter().any(active);
    // /proc/net/route: interface, destination as a little-endian word.
    let [a, b] = [0, 1].map(|at| prefix.split('.').nth(at).unwrap().parse::<u8>().unwrap());
    let row = format!("vng0\t{:08X}", u32::from_le_bytes([a, b, 0, 0]));
    let kernel = pair.hosts[0].run(|| std::fs::read_to_string("/proc/thread-self/net/route"));
    known && kernel.unwrap().unwrap().contains(&row)
}
