//! ExpressRoute links with every kind of tags: two gateways face to face.

use crate::capture::{self, Capture};
use crate::program::{self, present};
use crate::stage::{Family, Pair, Stage, Way, host_address, lay_link};
use crate::traffic::{assert_all_arrived, assert_carries, assert_pings, numbered, wait_until};
use integration::config::Tagging;
use integration::host::Host;
use integration::traffic::bulk;
use integration::traffic::numbered::Load;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn an_untagged_link_carries_everything() {
    carries(Tagging::Untagged);
}

#[test]
fn an_802_1q_link_carries_everything() {
    carries(Tagging::Dot1q);
}

#[test]
fn a_qinq_link_with_outer_type_88a8_carries_everything() {
    carries(Tagging::QinQ);
}

#[test]
fn a_qinq_link_with_outer_type_8100_carries_everything() {
    carries(Tagging::QinQ8100);
}

#[test]
fn an_untagged_link_tells_of_its_mtu() {
    tells_mtu(Tagging::Untagged, 1_408, 1_408);
}

#[test]
fn an_802_1q_link_tells_of_its_mtu() {
    tells_mtu(Tagging::Dot1q, 1_404, 1_408);
}

#[test]
fn a_qinq_link_with_outer_type_88a8_tells_of_its_mtu() {
    tells_mtu(Tagging::QinQ, 1_400, 1_400);
}

#[test]
fn a_qinq_link_with_outer_type_8100_tells_of_its_mtu() {
    tells_mtu(Tagging::QinQ8100, 1_400, 1_404);
}

#[test]
fn all_workers_follow_an_interface_that_is_replaced() {
    let mut stage = Stage::new();
    stage.control = "workers = 2";
    let pair = stage.pair(Way::Link(Tagging::Untagged, 1_500), ["", ""]);
    for _ in 0..3 {
        let gone = pair.hosts[0].configure(|netlink| netlink.delete_link("eth1"));
        gone.unwrap();
        lay_link(&pair.hosts, 1_500);
        pair.assert_reaches();
        // Of so many flows both workers have some, in both directions.
        let load = Load {
            rate: 2_000,
            flows: 32,
            ..Load::default()
        };
        let run = numbered(&pair.hosts, Family::V4, load);
        wait_until(&run, Duration::from_millis(300));
        assert_all_arrived(run, 100);
    }
    let expected = [
        "interface_down",
        "neighbor_unresolved",
        "hairpin",
        "no_path",
    ];
    pair.finish(&stage, &expected);
}

#[test]
fn frames_with_other_tags_are_counted_and_said() {
    let stage = Stage::new();
    let hosts = crate::stage::hosts();
    lay_link(&hosts, 1_504);
    let mut gateways = [(1, Tagging::Dot1q), (2, Tagging::Untagged)].map(|(n, tagging)| {
        let host = &hosts[usize::from(n) - 1];
        stage.gateway(host, n, "", &crate::stage::circuit(n, tagging))
    });
    for gateway in &mut gateways {
        gateway.start().unwrap();
    }
    // Each asks for the other's address with tags that the other does not have.
    let deadline = std::time::Instant::now() + crate::stage::PATIENCE;
    for (gateway, tags) in gateways.iter().zip(["untagged", "VLAN 10"]) {
        let seen = loop {
            let circuits = stage.show(gateway, "circuits");
            let seen = circuits[0]["links"][0]["mistagged"].clone();
            if !seen.is_null() || std::time::Instant::now() > deadline {
                break seen;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        assert_eq!(seen["tags"], tags, "{seen}\n{}", gateway.log());
        let counters = stage.show(gateway, "counters");
        let counted = counters["dropped"]["vlan_tag"]["packets"].as_u64();
        assert!(counted > Some(0), "{counters:#}");
    }
    for gateway in &mut gateways {
        stage.assert_books(gateway, &["vlan_tag", "no_path"]);
        gateway.stop().unwrap();
    }
}

fn carries(tagging: Tagging) {
    let stage = Stage::new();
    let pair = stage.pair(Way::Link(tagging, 1_500), ["", ""]);
    assert_pings(&pair.hosts);
    for family in Family::BOTH {
        let echoes = pair.hosts[0].ping(
            host_address(2, family),
            3,
            family.of([1_472, 1_452]),
            Duration::from_secs(5),
        );
        assert_eq!(echoes.unwrap().received, 3, "packets of 1,500 bytes");
        assert_hops(&pair.hosts[0], family);
        assert_carries(&pair.hosts, family, 1_000);
    }
    pair.finish(&stage, &["ttl_expired"]);
}

/// Near gateway, far gateway by its address on the link, host.
fn assert_hops(host: &Host, family: Family) {
    let hops = host
        .trace(host_address(2, family), Duration::from_secs(5))
        .unwrap();
    let found: Vec<_> = hops.iter().filter_map(|hop| hop.address).collect();
    let [near, far] = [
        family.of(["10.1.255.4", "fd00:1:0:ff::4"]),
        family.of(["172.16.0.2", "fd00:16::2"]),
    ];
    let parse = |text: &str| text.parse::<IpAddr>().unwrap();
    assert_eq!(
        found,
        [parse(near), parse(far), host_address(2, family)],
        "{hops:?}"
    );
}

/// Over interfaces of this MTU more than the tags' own length in `room`, packets of `usable` bytes pass.
fn tells_mtu(tagging: Tagging, room: u32, usable: u32) {
    if !present(&[&["ping"][..], &capture::PROGRAMS].concat()) {
        return;
    }
    let stage = Stage::new();
    let pair = stage.pair(Way::Link(tagging, room), ["", ""]);
    for family in Family::BOTH {
        assert_too_big_is_told(&stage, &pair.hosts[0], family, usable);
        let clamped = segment_size_seen(&stage, &pair, family);
        assert_eq!(clamped, usable - family.of([40, 60]), "segment size");
    }
    pair.finish(&stage, &["too_big"]);
}

/// A packet one byte too long comes back with the MTU; one that fits is answered.
fn assert_too_big_is_told(stage: &Stage, host: &Arc<Host>, family: Family, usable: u32) {
    let target = host_address(2, family).to_string();
    let headers = family.of([28, 48]);
    let ping = |length: u32| {
        let payload = (length - headers).to_string();
        let words = [
            "ping", "-n", "-c", "1", "-W", "5", "-M", "do", "-s", &payload, &target,
        ];
        program::run(stage, host, Duration::from_secs(10), &words)
    };
    let long = ping(usable + 1);
    let (from, said) = match family {
        Family::V4 => ("From 10.1.255.4", format!("(mtu = {usable})")),
        Family::V6 => ("From fd00:1:0:ff::4", format!("mtu={usable}")),
    };
    assert!(
        !long.success && long.out.contains(from) && long.out.contains(&said),
        "{long:?}"
    );
    let fits = ping(usable);
    assert!(fits.success, "{fits:?}");
}

/// The segment size in the SYN that reaches the far host.
fn segment_size_seen(stage: &Stage, pair: &Pair, family: Family) -> u32 {
    let filter = family.of([
        "ip and tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn",
        "ip6 and ip6[6] == 6 and ip6[53] & 0x12 == 2",
    ]);
    let capture = Capture::start(stage, &pair.hosts[1], "vng0", 1, 256, filter);
    let target = host_address(2, family);
    let length = Duration::from_millis(300);
    let through = bulk::send(&pair.hosts[0], &pair.hosts[1], target, length).unwrap();
    assert!(through.bytes > 100_000, "{through:?}");
    let seen = capture.finish().fields("tcp", "tcp.options.mss_val");
    seen[0].parse().unwrap()
}
