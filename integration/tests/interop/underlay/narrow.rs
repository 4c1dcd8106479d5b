//! Links and routers that hold less than 1,500 bytes.

use super::{BYTES, Near, Setup, Underlay, assert_reaches, start, transfer};
use crate::peer::Kind;
use crate::program::present;
use crate::stage::{Family, PATIENCE, Stage, host_address};
use integration::gateway::Gateway;
use integration::host::Host;
use serde_json::Value;
use std::time::Instant;

/// Where it is narrow.
#[derive(Clone, Copy, Debug)]
struct Narrow {
    what: &'static str,
    over: Family,
    /// MTU between near and router, and between router and far.
    links: [u32; 2],
}

const NARROW: [Narrow; 4] = [
    Narrow {
        what: "a link of 1479",
        over: Family::V4,
        links: [1_479, 1_500],
    },
    Narrow {
        what: "a router of 1400 in the middle",
        over: Family::V4,
        links: [1_500, 1_400],
    },
    Narrow {
        what: "an IPv6 endpoint over 1492",
        over: Family::V6,
        links: [1_492, 1_500],
    },
    Narrow {
        what: "an IPv6 router of 1400 in the middle",
        over: Family::V6,
        links: [1_500, 1_400],
    },
];

/// What passes through a tunnel: bytes of TCP each way, and answers to pings as long as the tunnel takes.
fn passes(near: &Host, far: &Host) -> [usize; 3] {
    let [a, b] = [1, 2].map(|n| host_address(n, Family::V4));
    assert!(near.reaches(b, PATIENCE).unwrap(), "{b} is not reached");
    let pings = near.ping(b, 5, 1_420 - 28, PATIENCE).unwrap();
    [
        transfer(near, far, b),
        transfer(far, near, a),
        pings.received as usize,
    ]
}

#[test]
fn what_passes_a_narrow_underlay_with_wireguard_go_passes_with_vng() {
    if !present(&Kind::WireguardGo.programs()) {
        return;
    }
    let stage = Stage::new();
    let stage = &stage;
    let mut found = Vec::new();
    // All wait for each other's timers more than they compute.
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        for narrow in NARROW {
            for near in [Near::Vng, Near::Reference] {
                running.push(scope.spawn(move || {
                    let stage = stage.beside();
                    let underlay = Underlay::new(narrow.links);
                    let setup = Setup::default();
                    let ends = start(&stage, &underlay, near, narrow.over, setup);
                    let passed = passes(underlay.near(), underlay.far());
                    let shown = ends.gateway.as_ref().map(|vng| {
                        // What a router cuts is not known here, nor need it be.
                        let is_known = narrow.links[0] < 1_500 || narrow.over == Family::V6;
                        let counted = !is_known || counts_fragments(&stage, vng, underlay.near());
                        (counted, vng.log())
                    });
                    (narrow, near, passed, shown)
                }));
            }
        }
        found.extend(running.into_iter().map(|run| run.join().unwrap()));
    });
    for (narrow, near, passed, _) in &found {
        println!("{}, {near:?}: {passed:?}", narrow.what);
    }
    for (narrow, near, passed, shown) in found {
        let of = format!("{}, {near:?}: {shown:#?}", narrow.what);
        // wireguard-go on the far side learns of its path by losing an answer.
        let [there, back, pings] = passed;
        assert!(there == BYTES && back == BYTES && pings >= 4, "{of}");
        assert!(
            shown.is_none_or(|(counted, _)| counted),
            "no fragment is counted"
        );
    }
}

/// Whether the gateway comes to show that datagrams go in fragments, while there are some.
fn counts_fragments(stage: &Stage, vng: &Gateway, near: &Host) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let pinged = near.ping(host_address(2, Family::V4), 1, 1_420 - 28, PATIENCE);
        pinged.unwrap();
        let shown = stage.show(vng, "tunnels");
        if shown[0]["fragmented_packets"].as_u64() > Some(0) {
            assert!(
                shown[0]["path_mtu_bytes"].as_u64() < Some(1_500),
                "{shown:#}"
            );
            return true;
        }
    }
    false
}

/// Path MTU discovery: the tunnel becomes as wide as a router in the middle, and TCP follows.
#[test]
fn a_tunnel_that_discovers_its_path_becomes_as_wide_as_a_router_in_the_middle() {
    if !present(&Kind::WireguardGo.programs()) {
        return;
    }
    let stage = Stage::new();
    let underlay = Underlay::new([1_500, 1_400]);
    let setup = Setup {
        vpn: "path_mtu_discovery = true\n",
        ..Setup::default()
    };
    let ends = start(&stage, &underlay, Near::Vng, Family::V4, setup);
    assert_reaches(underlay.near(), "discovery", &ends);
    let passed = transfer(underlay.near(), underlay.far(), host_address(2, Family::V4));
    assert_eq!(passed, BYTES);
    let tunnels = stage.show(ends.gateway.as_ref().unwrap(), "tunnels");
    // 1,400 less 60, and padded to 16.
    assert_eq!(tunnels[0]["mtu_bytes"], Value::from(1_328), "{tunnels:#}");
    assert_eq!(tunnels[0]["fragmented_packets"], Value::from(0));
}
