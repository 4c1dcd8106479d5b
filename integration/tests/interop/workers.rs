//! Several data workers: a flow stays in order, a tunnel has one owner, and whoever calls is answered.

use crate::peer::{self, Kind};
use crate::program::present;
use crate::stage::{self, Family, PATIENCE, Site, Stage, Way, host_address};
use crate::traffic::{Iperf, assert_all_arrived, assert_pings, numbered, wait_until};
use crypto::key::PrivateKey;
use integration::config::Tagging;
use integration::traffic::numbered::Load;
use std::time::Duration;

const THREE: &str = "workers = 3";

#[test]
fn three_workers_keep_the_order_of_every_flow_over_a_tunnel() {
    in_order(Way::Tunnel(Family::V4));
}

#[test]
fn three_workers_keep_the_order_of_every_flow_over_an_untagged_link() {
    in_order(Way::Link(Tagging::Untagged, 1_500));
}

#[test]
fn three_workers_keep_the_order_of_every_flow_over_a_qinq_link() {
    in_order(Way::Link(Tagging::QinQ, 1_500));
}

fn in_order(way: Way) {
    if !present(&["iperf3"]) {
        return;
    }
    let mut stage = Stage::new();
    stage.control = THREE;
    let pair = stage.pair(way, ["", ""]);
    assert_eq!(stage.show(&pair.gateways[0], "status")["workers"], 3);
    let load = Load {
        rate: 4_000,
        flows: 32,
        ..Load::default()
    };
    for family in Family::BOTH {
        let run = numbered(&pair.hosts, family, load);
        wait_until(&run, Duration::from_millis(1_500));
        assert_all_arrived(run, 500);
    }
    let iperf = Iperf::new(&stage, &pair.hosts, &pair.gateways);
    for family in Family::BOTH {
        iperf.assert_tcp(family, &["-P", "4"]);
        iperf.assert_tcp(family, &["-P", "4", "-R"]);
    }
    // With three workers and the two processes of the load on two cores, an owner may be behind for once.
    pair.finish(&stage, &["too_big", "handover_full"]);
}

#[test]
fn a_peer_that_calls_reaches_the_worker_that_knows_it() {
    if !present(&[&Kind::WireguardGo.programs()[..], &["iperf3"]].concat()) {
        return;
    }
    let mut stage = Stage::new();
    stage.control = THREE;
    let hosts = stage::hosts();
    let [ours, theirs, somebody] = [(); 3].map(|()| PrivateKey::generate().unwrap());
    let site = Site {
        key: &theirs.public_key(),
        preshared: None,
        over: Family::V4,
    };
    // Two other sites first, so that the peer's tunnel is the last worker's. Without an endpoint: it calls.
    let vpn = stage.vpn(1, &ours, &site);
    let (head, own) = vpn.split_once("[[vpn.site]]").unwrap();
    let strangers = [7, 8].map(|n| {
        let key = PrivateKey::generate().unwrap().public_key();
        format!(
            "[[vpn.site]]\nname = \"site-{n}\"\npublic_key = \"{key}\"\nprefixes = [\"10.{n}.0.0/16\"]\n"
        )
    });
    let own = own
        .lines()
        .filter(|line| !line.starts_with("endpoint"))
        .collect::<Vec<_>>()
        .join("\n");
    let vpn = format!("{head}{}[[vpn.site]]{own}\n", strangers.concat());
    let mut gateway = stage.gateway(&hosts[0], 1, "", &vpn);
    gateway.start().unwrap();
    let peer = |key| {
        let ours = ours.public_key();
        peer::start(
            &stage,
            &hosts[1],
            Kind::WireguardGo,
            key,
            &ours,
            None,
            Family::V4,
        )
    };

    // Nobody knows this one: the last worker says so, and counts it.
    let stranger = peer(&somebody);
    let target = host_address(1, Family::V4);
    assert!(!hosts[1].reaches(target, Duration::from_secs(2)).unwrap());
    let counters = stage.show(&gateway, "counters");
    let unknown = &counters["dropped"]["tunnel_unknown_peer"]["packets"];
    assert!(unknown.as_u64() >= Some(1), "{counters:#}");
    drop(stranger);

    let _peer = peer(&theirs);
    assert!(
        hosts[1].reaches(target, PATIENCE).unwrap(),
        "{}",
        gateway.log()
    );
    assert_pings(&hosts);
    let iperf = Iperf::new(&stage, &hosts, std::slice::from_ref(&gateway));
    iperf.assert_tcp(Family::V4, &[]);
    iperf.assert_tcp(Family::V6, &["-R"]);
    // Until the peer has called, there is no way to it.
    let expected = ["tunnel_unknown_peer", "handover_full", "no_path"];
    stage.assert_books(&gateway, &expected);
    gateway.stop().unwrap();
}
