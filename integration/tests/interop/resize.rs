//! Another SKU for a running gateway: in place under traffic, or as a new one.

use crate::program::announce;
use crate::stage::{Family, Pair, Stage, Way};
use crate::traffic::{assert_all_arrived, assert_pings, numbered, wait_until};
use integration::config::Tagging;
use integration::gateway::Gateway;
use integration::stage::replace;
use integration::traffic::numbered::Load;
use serde_json::Value;
use std::time::Duration;

const LOAD: Load = Load {
    rate: 4_000,
    flows: 32,
    payload: 172,
};

/// `vng resize` with `--json`: its report, or its exit status and what it said.
fn resize(stage: &Stage, gateway: &Gateway, arguments: &[&str]) -> Result<Value, (i32, String)> {
    let arguments = [&["resize", "--json"], arguments].concat();
    let output = stage.command(gateway, &arguments).output().unwrap();
    if output.status.success() {
        return Ok(serde_json::from_slice(&output.stdout).unwrap());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err((output.status.code().unwrap(), said))
}

/// What a status says of a limit: used, and the limit.
fn limit(stage: &Stage, gateway: &Gateway, name: &str) -> (u64, Option<u64>) {
    let status = stage.show(gateway, "status");
    let limits = status["gateways"][0]["limits"].as_array().unwrap();
    let limit = limits.iter().find(|limit| limit["name"] == name).unwrap();
    (limit["used"].as_u64().unwrap(), limit["limit"].as_u64())
}

#[test]
fn an_expressroute_gateway_grows_in_place_and_loses_nothing() {
    let way = Way::Link(Tagging::QinQ, 1_500);
    let sizes: [&[&str]; 4] = [
        &["expressroute", "ErGw1Az"],
        &["expressroute", "ErGw2Az"],
        &["expressroute", "ErGw3Az"],
        &["expressroute", "ErGwScale:12"],
    ];
    let (stage, pair) = grow(way, &sizes);
    let gateway = &pair.gateways[0];
    assert_eq!(limit(&stage, gateway, "ActiveFlows").1, Some(1_200_000));
    let before = std::fs::read_to_string(gateway.config()).unwrap();
    for (smaller, why) in [
        ("ErGwScale:11", "made smaller only as a new one"),
        ("ErGw3Az", "different families"),
    ] {
        let (status, said) = resize(&stage, gateway, &["expressroute", smaller]).unwrap_err();
        assert_eq!(status, 1, "{said}");
        assert!(said.contains(why), "{said}");
        let remedy = format!("vng resize expressroute {smaller} --recreate");
        assert!(said.contains(&remedy), "{said}");
    }
    let (status, said) = resize(&stage, gateway, &["expressroute", "ErGw9Az"]).unwrap_err();
    assert_eq!((status, said.contains("is unknown")), (2, true), "{said}");
    let after = std::fs::read_to_string(gateway.config()).unwrap();
    assert_eq!(before, after, "a refused resize leaves the file alone");
    pair.finish(&stage, &[]);
}

#[test]
fn a_vpn_gateway_changes_its_size_in_place_and_loses_nothing() {
    let sizes: [&[&str]; 3] = [&["vpn", "VpnGw1"], &["vpn", "VpnGw3"], &["vpn", "VpnGw2"]];
    let (stage, pair) = grow(Way::Tunnel(Family::V4), &sizes);
    assert_eq!(limit(&stage, &pair.gateways[0], "Tunnels"), (1, Some(30)));
    pair.finish(&stage, &[]);
}

/// Resizes the first gateway again and again under traffic that is well within the smallest size.
fn grow(way: Way, sizes: &[&[&str]]) -> (Stage, Pair) {
    let stage = Stage::new();
    let pair = stage.pair(way, ["", ""]);
    let gateway = &pair.gateways[0];
    let run = numbered(&pair.hosts, Family::V4, LOAD);
    let mut at = Duration::from_millis(500);
    for size in sizes {
        wait_until(&run, at);
        let report = resize(&stage, gateway, size).unwrap_or_else(|said| panic!("{said:?}"));
        assert_eq!(report["in_place"], true, "{report:#}");
        assert_eq!(report["to"], size[1], "{report:#}");
        let text = std::fs::read_to_string(gateway.config()).unwrap();
        assert!(text.contains(&format!("\"{}\"", size[1])), "{text}");
        at += Duration::from_millis(500);
    }
    wait_until(&run, at);
    let flows = stage.show(gateway, "flows");
    assert!(flows["active_flows"].as_u64().unwrap() >= 32, "{flows:#}");
    assert!(flows["flows"].as_array().unwrap().len() >= 32, "{flows:#}");
    assert!(limit(&stage, gateway, "ActiveFlows").0 >= 32);
    assert_all_arrived(run, 1_000);
    (stage, pair)
}

#[test]
fn a_gateway_that_is_made_anew_says_what_was_lost_and_works_again() {
    let stage = Stage::new();
    let pair = stage.pair(Way::Tunnel(Family::V4), ["", ""]);
    let gateway = &pair.gateways[0];
    resize(&stage, gateway, &["vpn", "VpnGw2", "--generation", "1"]).unwrap();
    assert_pings(&pair.hosts);

    let other = ["vpn", "VpnGw2", "--generation", "2"];
    let (status, said) = resize(&stage, gateway, &other).unwrap_err();
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("different generations"), "{said}");
    let remedy = "vng resize vpn VpnGw2 --generation 2 --recreate";
    assert!(said.contains(remedy), "{said}");

    let run = numbered(&pair.hosts, Family::V4, LOAD);
    wait_until(&run, Duration::from_millis(500));
    let anew = [&other[..], &["--recreate"]].concat();
    let report = resize(&stage, gateway, &anew).unwrap_or_else(|said| panic!("{said:?}"));
    assert_eq!(
        (&report["in_place"], &report["incarnation"]),
        (&false.into(), &1.into())
    );
    let [took, outage] = ["took_ms", "outage_ms"].map(|of| report[of].as_f64().unwrap());
    assert!(outage > 0.0 && took > outage, "{report:#}");
    let lost = &report["lost"];
    assert_eq!(lost["sessions"], 1, "{report:#}");
    assert!(lost["flows"].as_u64().unwrap() >= 32, "{report:#}");

    wait_until(&run, Duration::from_secs(3));
    let records = run.finish().unwrap();
    let arrived = records.map(|record| {
        let judgement = record.judge(0, u64::MAX);
        let (lost, sent) = (judgement.lost + record.refused, judgement.sent);
        assert!(lost > 0, "nothing was lost of {sent}");
        (lost, judgement.outage.map(|outage| outage.ms()))
    });
    announce(&format!(
        "made anew: ready after {took:.0} ms, {outage:.0} ms without a data path; lost, and longest pause in \
         ms, each way: {arrived:?}"
    ));
    pair.assert_reaches();
    let status = stage.show(gateway, "status");
    assert_eq!(status["recreated"]["lost"]["sessions"], 1, "{status:#}");
    assert_eq!(status["gateways"][0]["generation"], 2, "{status:#}");
    let text = std::fs::read_to_string(gateway.config()).unwrap();
    assert!(text.contains("generation = 2"), "{text}");
    pair.finish(
        &stage,
        &[
            "tunnel_unknown_index",
            "tunnel_no_session",
            "no_path",
            "spoofed_source",
        ],
    );
}

#[test]
fn a_reload_follows_the_same_matrix() {
    let stage = Stage::new();
    let pair = stage.pair(Way::Link(Tagging::Untagged, 1_500), ["", ""]);
    let gateway = &pair.gateways[0];
    resize(&stage, gateway, &["expressroute", "HighPerformance"]).unwrap();
    replace(gateway, "\"HighPerformance\"", "\"Standard\"");
    let output = stage.command(gateway, &["reload"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let remedy = "vng resize expressroute Standard --recreate";
    assert!(said.contains(remedy), "{said}");
    assert_eq!(
        limit(&stage, gateway, "Circuits"),
        (1, Some(8)),
        "as before"
    );
    replace(gateway, "\"Standard\"", "\"UltraPerformance\"");
    stage.vng(gateway, &["reload"]);
    assert_eq!(limit(&stage, gateway, "Circuits"), (1, Some(16)));
    pair.finish(&stage, &[]);
}
