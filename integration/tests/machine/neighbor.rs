//! A neighbour whose MAC address has changed without a word: how long until it is found again, beside the
//! kernel's own neighbour cache in the gateway's place; what is told of it, and of two that claim one.

use crate::stage::{PATIENCE, Stage, ip, send, wait_for};
use integration::host::Host;
use std::process::Command;
use std::time::{Duration, Instant};

fn circuit(more: &str) -> String {
    format!(
        r#"[expressroute]
sku = "Unlimited"

[[expressroute.circuit]]
name     = "er"
prefixes = ["10.2.0.0/16", "fd00:2::/48"]
probe    = {{ interval = "1s", fail = 3, pass = 1 }}

  [[expressroute.circuit.link]]
  name      = "primary"
  interface = "eth1"
  address   = ["172.16.0.1/30", "fd00:16::1/126"]
  neighbor  = ["172.16.0.2", "fd00:16::2"]
{more}
"#
    )
}

/// Gives the far end another MAC address, as equipment that is exchanged has one. The kernel does not
/// announce it (arp_notify is 0).
fn exchange(stage: &Stage, mac: &str) {
    ip(&stage.far, &format!("link set eth1 address {mac}"));
}

fn pings(host: &Host, target: &str) -> bool {
    let status = host.run(|| {
        let arguments = ["-c", "1", "-W", "1", target];
        Command::new("ping").args(arguments).output()
    });
    status.unwrap().unwrap().status.success()
}

/// How long the kernel's cache takes in the gateway's place, with traffic all the time; it is not waited for
/// longer than [`PATIENCE`]. It takes 30 to 60 s.
fn kernels_time() -> Duration {
    let stage = Stage::new();
    stage
        .near
        .address("eth1", &["172.16.0.1/30", "fd00:16::1/126"])
        .unwrap();
    wait_for("the far end", String::new, || {
        pings(&stage.near, "172.16.0.2")
    });
    exchange(&stage, "02:00:00:00:00:77");
    let begun = Instant::now();
    while !pings(&stage.near, "172.16.0.2") && begun.elapsed() < PATIENCE {}
    begun.elapsed()
}

fn provider(stage: &Stage, gateway: &integration::gateway::Gateway) -> Vec<serde_json::Value> {
    let all = stage.show(gateway, "neighbors");
    let mut all = all.as_array().unwrap().clone();
    all.retain(|one| one["side"] == "provider");
    all
}

#[test]
fn a_neighbor_with_another_mac_address_is_found_again_within_seconds() {
    let reference = std::thread::spawn(kernels_time);
    let stage = Stage::new();
    let mut gateway = stage.gateway("first", "vng0", &circuit(""));
    gateway.start().unwrap();
    let state = || stage.show(&gateway, "status")["paths"][0]["state"].clone();
    wait_for("the path is up", || gateway.log(), || state() == "up");
    wait_for(
        "both next hops",
        || gateway.log(),
        || {
            provider(&stage, &gateway)
                .iter()
                .all(|one| one["state"] == "reachable")
        },
    );
    // An answer of the last second would be no reason to ask again.
    std::thread::sleep(Duration::from_millis(1100));
    exchange(&stage, "02:00:00:00:00:77");
    let begun = Instant::now();
    wait_for(
        "the new MAC address",
        || gateway.log(),
        || {
            let all = provider(&stage, &gateway);
            all.iter().all(|one| one["mac"] == "02:00:00:00:00:77")
        },
    );
    let took = begun.elapsed();
    wait_for("the path is up again", || gateway.log(), || state() == "up");
    let reference = reference.join().unwrap();
    eprintln!("a changed MAC address: vng {took:?}, the kernel's cache {reference:?}");
    // A probe each second: at most one until it is lost, a quarter to find that out, and then 100 ms.
    assert!(
        took < Duration::from_secs(5),
        "{took:?}, the kernel {reference:?}"
    );
    assert!(
        gateway.log().contains("MAC address has changed"),
        "{}",
        gateway.log()
    );
    for one in provider(&stage, &gateway) {
        assert!(one["previous_mac"].is_string(), "{one}");
        assert!(one["conflict_mac"].is_null(), "{one}");
    }
    gateway.stop().unwrap();
}

/// An ARP reply or announcement of `address` at `mac`, to everybody.
fn arp(mac: [u8; 6], address: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(address);
    frame.extend([0; 6]);
    frame.extend(address);
    frame
}

#[test]
fn two_that_claim_an_address_are_shown_and_a_static_one_holds() {
    let evil = [2, 0, 0, 0, 0, 0x66];
    let stage = Stage::new();
    exchange(&stage, "02:00:00:00:00:77");
    let fixed = "  neighbor_mac = \"02:00:00:00:00:77\"\n";
    for (more, state) in [("", "reachable"), (fixed, "static")] {
        let mut gateway = stage.gateway("first", "vng0", &circuit(more));
        gateway.start().unwrap();
        let up = || stage.show(&gateway, "status")["paths"][0]["state"] == "up";
        wait_for("the path is up", || gateway.log(), up);
        // The neighbour's address, and the gateway's own.
        send(&stage.far, &arp(evil, [172, 16, 0, 2]));
        send(&stage.far, &arp(evil, [172, 16, 0, 1]));
        wait_for(
            "the conflict",
            || stage.show(&gateway, "neighbors").to_string(),
            || {
                // Without a static address it is followed, asked, found silent, and the old one answers.
                let all = stage.show(&gateway, "neighbors");
                let of = |address: &str| {
                    let all = all.as_array().unwrap();
                    all.iter()
                        .find(|one| one["address"] == address)
                        .unwrap()
                        .clone()
                };
                let (far, own) = (of("172.16.0.2"), of("172.16.0.1"));
                far["mac"] == "02:00:00:00:00:77"
                    && far["conflict_mac"] == "02:00:00:00:00:66"
                    && far["state"] == state
                    && own["conflict_mac"] == "02:00:00:00:00:66"
            },
        );
        assert!(
            gateway.log().contains("claims an address"),
            "{}",
            gateway.log()
        );
        wait_for("the path is up", || gateway.log(), up);
        gateway.stop().unwrap();
    }
}
