//! Several lanes between two `vng`: all of them carry, flows stay in order, and one that leads nowhere takes
//! nothing with it.

use crate::program::present;
use crate::stage::{self, Family, PATIENCE, Pair, Site, Stage, Way};
use crate::traffic::{Iperf, assert_all_arrived, judge, numbered, wait_until};
use crypto::key::PrivateKey;
use integration::stage::edit;
use integration::traffic::numbered::Load;
use serde_json::Value;
use std::time::{Duration, Instant};

const LOAD: Load = Load {
    rate: 4_000,
    flows: 32,
    payload: 172,
};
/// With several workers and the two processes of the load on two cores, an owner may be behind for once.
const BEHIND: [&str; 2] = ["too_big", "handover_full"];

#[test]
fn two_lanes_of_two_workers_keep_the_order_of_every_flow() {
    in_order("workers = 2", 2, Family::V4, Callers::Both);
}

#[test]
fn three_lanes_of_three_workers_carry_to_a_site_that_calls() {
    in_order("workers = 3", 3, Family::V6, Callers::Near);
}

#[test]
fn more_workers_than_lanes_share_them() {
    in_order("workers = 3", 2, Family::V6, Callers::Both);
}

#[test]
fn a_worker_with_several_lanes_spreads_its_flows() {
    in_order("workers = 2", 5, Family::V4, Callers::Both);
}

/// Which side knows where the other is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Callers {
    Both,
    Near,
}

fn in_order(workers: &'static str, lanes: usize, over: Family, callers: Callers) {
    if !present(&["iperf3"]) {
        return;
    }
    let mut stage = Stage::new();
    stage.control = workers;
    let pair = pair(&stage, [lanes; 2], over, callers);
    // A lane is opened by its first packet, which does not wait for it: flows change over once.
    wait_for_lanes(&stage, &pair);
    let before = lanes_of(&stage, &pair);
    assert_keeps_order(&pair);
    let iperf = Iperf::new(&stage, &pair.hosts, &pair.gateways);
    for family in Family::BOTH {
        iperf.assert_tcp(family, &["-P", "4"]);
        iperf.assert_tcp(family, &["-P", "4", "-R"]);
    }
    for (before, after) in before.iter().zip(lanes_of(&stage, &pair)) {
        assert_eq!(after.len(), lanes);
        for (lane, (before, after)) in before.iter().zip(&after).enumerate() {
            assert_eq!(after["port"], 51_820 + lane, "{after:#}");
            for direction in ["received_packets", "sent_packets"] {
                let [before, after] = [before, after].map(|lane| lane[direction].as_u64().unwrap());
                assert!(
                    after > before + 100,
                    "lane {lane}, {direction}: {after} after {before}"
                );
            }
        }
    }
    pair.finish(&stage, &[&BEHIND[..], &["no_path"]].concat());
}

#[test]
fn a_lane_that_the_far_side_has_not_leaves_its_packets_to_the_first() {
    let mut stage = Stage::new();
    stage.control = "workers = 2";
    let pair = pair(&stage, [2, 1], Family::V4, Callers::Both);
    assert_keeps_order(&pair);
    let [near, _] = lanes_of(&stage, &pair);
    assert_eq!(near[0]["has_session"], true, "{near:#?}");
    assert_eq!(near[1]["handshakes"], 0, "{near:#?}");
    assert_eq!(near[1]["sent_packets"], 0, "{near:#?}");
    pair.finish(&stage, &BEHIND);
}

#[test]
fn a_lane_that_goes_deaf_leaves_its_packets_to_the_first_until_it_is_back() {
    let mut stage = Stage::new();
    stage.control = "workers = 2";
    let mut pair = pair(&stage, [2, 2], Family::V4, Callers::Both);
    wait_for_lanes(&stage, &pair);

    // The far side comes back with one lane: the near side's second session leads nowhere.
    let two = restart(&mut pair, |text| text.replace("lanes = 2", "lanes = 1"));
    wait_for_all(&pair);
    let [near, _] = lanes_of(&stage, &pair);
    let dead = near[1]["sent_packets"].as_u64().unwrap();

    // And with both again: flows come back to it.
    restart(&mut pair, |_| two.clone());
    let deadline = Instant::now() + 3 * PATIENCE;
    loop {
        let run = numbered(&pair.hosts, Family::V4, LOAD);
        wait_until(&run, Duration::from_millis(500));
        judge(run);
        let [near, far] = lanes_of(&stage, &pair);
        let revived = near[1]["sent_packets"].as_u64().unwrap() > dead + 500
            && far[1]["sent_packets"].as_u64().unwrap() > 500;
        if revived {
            break;
        }
        assert!(Instant::now() < deadline, "{near:#?} {far:#?}");
    }
    wait_for_all(&pair);
}

/// Sends numbered packets of 32 flows: each arrives once, in the order of its flow.
fn assert_keeps_order(pair: &Pair) {
    for family in Family::BOTH {
        // On a busy machine the sender itself is late: then it takes more than one round.
        let mut left: u64 = 2_000;
        while left > 0 {
            let run = numbered(&pair.hosts, family, LOAD);
            wait_until(&run, Duration::from_secs(1));
            left = left.saturating_sub(assert_all_arrived(run, 1));
        }
    }
}

/// Ends the far gateway and starts it with a changed configuration; the one before.
fn restart(pair: &mut Pair, change: impl FnOnce(&str) -> String) -> String {
    let far = &mut pair.gateways[1];
    far.stop().unwrap();
    let before = std::fs::read_to_string(far.config()).unwrap();
    edit(far, change);
    far.start().unwrap();
    before
}

/// Waits until every packet of 32 flows arrives.
fn wait_for_all(pair: &Pair) {
    let deadline = Instant::now() + 3 * PATIENCE;
    loop {
        let run = numbered(&pair.hosts, Family::V4, LOAD);
        wait_until(&run, Duration::from_millis(500));
        let lost = judge(run).map(|judgement| judgement.lost);
        if lost == [0, 0] {
            return;
        }
        assert!(Instant::now() < deadline, "lost each way: {lost:?}");
    }
}

/// Two gateways face to face, each with so many lanes, running, and reaching each other.
fn pair(stage: &Stage, lanes: [usize; 2], over: Family, callers: Callers) -> Pair {
    let hosts = stage::hosts();
    let keys = [(); 2].map(|()| PrivateKey::generate().unwrap());
    let side = |n: u8| {
        let at = usize::from(n) - 1;
        let waits = callers == Callers::Near && n == 2;
        let vpn = table(stage, n, &keys, over, lanes[at], waits);
        stage.gateway(&hosts[at], n, "", &vpn)
    };
    let mut pair = Pair {
        way: Way::Tunnel(over),
        gateways: [side(1), side(2)],
        hosts,
    };
    for gateway in &mut pair.gateways {
        gateway.start().unwrap();
    }
    pair.assert_reaches();
    pair
}

/// The `[vpn]` table of gateway `n` with so many lanes to the other. One that `waits` does not know where that is.
pub(crate) fn table(
    stage: &Stage,
    n: u8,
    keys: &[PrivateKey; 2],
    over: Family,
    lanes: usize,
    waits: bool,
) -> String {
    let at = usize::from(n) - 1;
    let site = Site {
        key: &keys[1 - at].public_key(),
        preshared: None,
        over,
    };
    let vpn = stage.vpn(n, &keys[at], &site);
    let known = |line: &&str| !waits || !line.starts_with("endpoint");
    let vpn: Vec<&str> = vpn.lines().filter(known).collect();
    format!("{}\nlanes = {lanes}\n", vpn.join("\n"))
}

/// What each gateway shows of its lanes.
fn lanes_of(stage: &Stage, pair: &Pair) -> [Vec<Value>; 2] {
    pair.gateways.each_ref().map(|gateway| {
        let tunnels = stage.show(gateway, "tunnels");
        tunnels[0]["lanes"].as_array().unwrap().clone()
    })
}

/// Sends packets of many flows until every lane has a session.
fn wait_for_lanes(stage: &Stage, pair: &Pair) {
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        let run = numbered(&pair.hosts, Family::V4, LOAD);
        wait_until(&run, Duration::from_millis(500));
        judge(run);
        let lanes = lanes_of(stage, pair);
        let open = |lane: &Value| lane["has_session"] == true;
        if lanes.iter().flatten().all(open) {
            return;
        }
        assert!(Instant::now() < deadline, "{lanes:#?}");
    }
}
