//! `vng show`, `vng explain` and `vng reload` against a control socket that a gateway of fixed answers
//! serves: what people see, and the JSON that scripts parse.
#![allow(clippy::unwrap_used)] // a helper of tests that fails is a test that fails

mod pretend;

use pretend::Lab;
use serde_json::Value;
use std::process::Command;

#[test]
fn every_view_has_a_table_that_names_what_matters() {
    let lab = Lab::new();
    for (what, parts) in [
        (
            "status",
            &[
                "345.6 Mbps",
                "down: no_carrier",
                "7/10 from 10.2.0.1",
                "0.41 ms",
                "0.25 ms",
                "balanced",
                "MaxFlowsCreationRate",
                "7,000",
                "offloads of vnet: checksum, TSO",
                "offloads of er-sydney/primary: none",
            ][..],
        ),
        ("routes", &["Active", "VirtualNetworkGateway", "er/primary"]),
        (
            "policy",
            &[
                "no-telnet",
                "destination port 23",
                "drop",
                "7",
                "4,200",
                "out of reach: all takes",
            ],
        ),
        (
            "circuits",
            &[
                "er/primary",
                "100, 10",
                "1,234 packets",
                "co-location",
                "er/primary: 1,234 frames for it had other tags than its own, the last VLAN 200",
            ],
        ),
        (
            "tunnels",
            &["onprem", "203.0.113.10:51820", "1m 1s ago", "xTIBA5rb"],
        ),
        ("neighbors", &["172.16.0.1", "Incomplete", "provider"]),
        ("bgp", &["65020", "not run"]),
        (
            "flows",
            &[
                "ExpressRoute",
                "4,321",
                "1m 15s",
                "10.1.0.4:40000",
                "[fd00:2::5]:443",
                "50ms",
            ],
        ),
        (
            "counters",
            &[
                "vnet",
                "5,678,901",
                "no_route",
                "is off by -1 packets",
                "dropped by the kernel before the gateway saw them",
                "refused 3 super-packets or trains at onprem",
            ],
        ),
    ] {
        let text = lab.text(&["show", what, "--wide"]);
        for part in parts {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert!(!text.contains('\x1b'), "colour in a pipe:\n{text}");
    }
}

#[test]
fn counters_have_the_published_json() {
    let json = Lab::new().json(&["show", "counters"]);
    assert_eq!(json["received"]["vnet"]["packets"], 1_234);
    assert_eq!(json["sent"]["onprem"]["bytes"], 5_678_901);
    assert_eq!(json["dropped"]["no_route"]["packets"], 1);
    assert_eq!(json["held"], 0);
    assert_eq!(json["balanced"], false);
    assert_eq!(json["kernel_drops"]["eth1"], 9);
    assert_eq!(json["offload_refused"]["onprem"], 3);
}

#[test]
fn every_view_prints_json() {
    let lab = Lab::new();
    for what in [
        "routes",
        "policy",
        "circuits",
        "tunnels",
        "neighbors",
        "bgp",
    ] {
        assert!(lab.json(&["show", what]).is_array(), "{what}");
    }
    assert_eq!(
        lab.json(&["show", "status"])["gateways"][0]["type"],
        "ExpressRoute"
    );
    assert_eq!(lab.json(&["show", "flows"])["active_flows"], 1);
    let reloaded = lab.json(&["reload"]);
    assert_eq!(reloaded["changed"][0], "route 10.9.0.0/16 added");
}

#[test]
fn explain_asks_the_running_gateway() {
    let lab = Lab::new();
    let packet = [
        "explain", "--src", "10.1.0.4", "--dst", "10.2.0.5", "--dport", "443",
    ];
    let json = lab.json(&packet);
    assert_eq!(json["verdict"], "forward");
    assert_eq!(json["policy"], Value::Null);
    assert_eq!(json["route"]["prefix"], "10.2.0.0/16");
    assert_eq!(json["member"], "er/primary");
    assert_eq!(json["rejected"], Value::Array(Vec::new()));
    let refused = lab.vng(&[&packet[..], &["--from", "nobody"]].concat());
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(said, "error: nothing has this name\n");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let lab = Lab::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_vng"))
        .args(["show", "status", "--watch", "1", "--json", "-s"])
        .arg(lab.socket())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
}

#[test]
fn a_filter_of_routes_reaches_the_gateway() {
    let lab = Lab::new();
    assert_eq!(lab.json(&["show", "routes"])[0]["weight"], 100);
    let of_bgp = lab.json(&["show", "routes", "--source", "bgp"]);
    assert_eq!(of_bgp.as_array().unwrap().len(), 0);
}

/// A terminal of 80 columns wraps no row of any view by itself.
#[test]
fn every_view_fits_80_columns_of_a_terminal() {
    let lab = Lab::new();
    for what in [
        "status",
        "routes",
        "policy",
        "circuits",
        "tunnels",
        "clients",
        "neighbors",
        "bgp",
        "flows",
        "counters",
    ] {
        let (vng, socket) = (env!("CARGO_BIN_EXE_vng"), lab.socket());
        let command = format!(
            "stty cols 80; '{vng}' show {what} -s '{}'",
            socket.display()
        );
        let shown = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .env("NO_COLOR", "1")
            .output()
            .unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.lines().count() > 1, "{what}: {shown}");
        for line in shown.lines() {
            let width = line.trim_end().chars().count();
            assert!(width <= 80, "{what}: {width}\n{line}");
        }
    }
}
