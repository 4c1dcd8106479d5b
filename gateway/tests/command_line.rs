//! The program as people and scripts call it: exit status, files, tables and JSON.
#![allow(clippy::unwrap_used)] // a helper of tests that fails is a test that fails

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

fn vng(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vng"))
        .args(arguments)
        .current_dir(directory)
        .env_remove("NO_COLOR")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// A directory with `vng.toml`, the example of both gateways, and its key.
fn coexist() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let made = vng(directory.path(), &["keygen", "-o", "vpn.key"]);
    assert_eq!(status(&made), 0, "{}", stderr(&made));
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/coexist.toml");
    let source = fs::read_to_string(example).unwrap();
    let source = source.replace("/etc/vng/vpn.key", "vpn.key");
    fs::write(directory.path().join("vng.toml"), source).unwrap();
    directory
}

#[test]
fn keygen_makes_a_private_file_and_prints_the_public_key() {
    let directory = tempfile::tempdir().unwrap();
    let made = vng(directory.path(), &["keygen", "-o", "key"]);
    assert_eq!(status(&made), 0, "{}", stderr(&made));
    let path = directory.path().join("key");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let private = fs::read_to_string(&path).unwrap();
    let private: crypto::key::PrivateKey = private.trim_end().parse().unwrap();
    assert_eq!(stdout(&made).trim_end(), private.public_key().to_string());
    let derived = vng(directory.path(), &["pubkey", "key"]);
    assert_eq!(stdout(&derived), stdout(&made));
}

#[test]
fn keygen_replaces_a_key_only_when_forced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    fs::write(&path, "precious").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = vng(directory.path(), &["keygen", "-o", "key"]);
    assert_eq!(status(&refused), 2);
    assert!(stderr(&refused).contains("--force"), "{}", stderr(&refused));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    let forced = vng(directory.path(), &["keygen", "-o", "key", "--force"]);
    assert_eq!(status(&forced), 0, "{}", stderr(&forced));
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn pubkey_refuses_a_file_that_others_can_read() {
    let directory = coexist();
    let path = directory.path().join("vpn.key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let refused = vng(directory.path(), &["pubkey", "vpn.key"]);
    assert_eq!(status(&refused), 2);
    assert!(
        stderr(&refused).contains("chmod 600 vpn.key"),
        "{}",
        stderr(&refused)
    );
}

#[test]
fn check_prints_the_plan_and_ends_with_0() {
    let directory = coexist();
    let checked = vng(directory.path(), &["check", "-c", "vng.toml"]);
    assert_eq!(status(&checked), 0, "{}", stderr(&checked));
    let plan = stdout(&checked);
    for part in [
        "er-sydney/primary",
        "onprem",
        "ErGw1Az",
        "10.9.0.0/16",
        "ok: vng.toml is valid",
    ] {
        assert!(plan.contains(part), "{part} is not in:\n{plan}");
    }
    assert!(!plan.contains('\x1b'), "colour in a pipe");
    assert!(stderr(&checked).contains("warning:"));
}

#[test]
fn check_of_a_broken_file_ends_with_2_and_shows_the_lines() {
    let directory = coexist();
    let path = directory.path().join("vng.toml");
    let source = fs::read_to_string(&path).unwrap();
    let source = source.replace("mtu           = 1500", "mtu           = 99999");
    fs::write(
        &path,
        source.replace("action = \"drop\"", "action = \"dorp\""),
    )
    .unwrap();
    let checked = vng(directory.path(), &["check", "-c", "vng.toml"]);
    assert_eq!(status(&checked), 2);
    let told = stderr(&checked);
    for part in [
        "--> vng.toml:8:17",
        "mtu           = 99999",
        "^^^^^ found 99999",
        "allowed: a whole number from 576 to 9216",
        "did you mean \"drop\"?",
        "vng.toml: 2 errors, 3 warnings",
    ] {
        assert!(told.contains(part), "{part} is not in:\n{told}");
    }
    assert_eq!(stdout(&checked), "");
    assert!(!told.contains('\x1b'), "colour in a pipe");
}

#[test]
fn check_gives_findings_and_plan_as_json() {
    let directory = coexist();
    let checked = vng(directory.path(), &["check", "-c", "vng.toml", "--json"]);
    assert_eq!(status(&checked), 0, "{}", stderr(&checked));
    let json: Value = serde_json::from_str(&stdout(&checked)).unwrap();
    assert_eq!(json["ok"], true);
    assert_eq!(json["findings"][0]["severity"], "warning");
    assert_eq!(json["paths"][2]["name"], "onprem");
    assert_eq!(json["limits"][0]["limit_bps"], 1_000_000_000);
    assert_eq!(json["limits"][0]["circuits"]["used"], 1);
    assert_eq!(json["paths"][0]["probe"]["interval_ms"], 1_000);

    fs::write(directory.path().join("bad.toml"), "[vnet]\nmtu = 1\n").unwrap();
    let checked = vng(directory.path(), &["check", "-c", "bad.toml", "--json"]);
    assert_eq!(status(&checked), 2);
    let json: Value = serde_json::from_str(&stdout(&checked)).unwrap();
    assert_eq!(json["ok"], false);
    let mtu = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|f| f["key"] == "vnet.mtu")
        .unwrap();
    assert_eq!((&mtu["line"], &mtu["column"]), (&2.into(), &7.into()));
    assert_eq!(mtu["found"], "found 1");
}

#[test]
fn check_for_another_host_needs_no_key_file() {
    let directory = coexist();
    fs::remove_file(directory.path().join("vpn.key")).unwrap();
    let checked = vng(directory.path(), &["check", "-c", "vng.toml"]);
    assert_eq!(status(&checked), 2);
    assert!(
        stderr(&checked).contains("vng keygen -o vpn.key"),
        "{}",
        stderr(&checked)
    );
    let checked = vng(
        directory.path(),
        &["check", "-c", "vng.toml", "--skip-key-files"],
    );
    assert_eq!(status(&checked), 0, "{}", stderr(&checked));
}

#[test]
fn bad_usage_ends_with_2_and_help_with_0() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [
        &["frobnicate"][..],
        &["show", "everything"],
        &["check"],
        &["check", "-c", "not-there.toml"],
        &["explain", "--src", "10.1.0.1", "--dst", "fd00::1"],
        &[
            "explain",
            "--src",
            "10.1.0.1",
            "--dst",
            "10.2.0.1",
            "--protocol",
            "tpc",
        ],
        &[
            "explain",
            "--src",
            "10.1.0.1",
            "--dst",
            "10.2.0.1",
            "--protocol",
            "icmp",
            "--dport",
            "80",
        ],
        &["show", "status", "--watch", "0"],
    ] {
        let output = vng(directory.path(), arguments);
        assert_eq!(status(&output), 2, "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["--version"], &["show", "--help"]] {
        let output = vng(directory.path(), arguments);
        assert_eq!(status(&output), 0, "{arguments:?}");
        assert!(!output.stdout.is_empty());
    }
}

#[test]
fn without_a_gateway_show_ends_with_3_and_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    for command in [
        &["show", "status", "-s", "vng.sock"][..],
        &["reload", "-s", "vng.sock"],
        &[
            "explain", "--src", "10.1.0.1", "--dst", "10.2.0.1", "-s", "vng.sock",
        ],
    ] {
        let output = vng(directory.path(), command);
        assert_eq!(status(&output), 3, "{command:?}");
        let said = stderr(&output);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(
            said.contains("no gateway listens at vng.sock; start one with vng run"),
            "{said}"
        );
    }
}

fn explain(directory: &Path, more: &[&str]) -> Output {
    let packet = [
        "explain", "-c", "vng.toml", "--src", "10.1.0.4", "--dst", "10.2.0.5",
    ];
    vng(directory, &[&packet[..], more].concat())
}

#[test]
fn explain_offline_tells_the_story_of_a_packet() {
    let directory = coexist();
    let told = explain(directory.path(), &["--dport", "443"]);
    assert_eq!(status(&told), 0, "{}", stderr(&told));
    let text = stdout(&told);
    for part in [
        "packet    tcp from 10.1.0.4 to 10.2.0.5:443",
        "verdict   forward to er-sydney/",
        "route     10.2.0.0/16 (static)",
        "ExpressRoute has the same prefix and wins",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    let telnet = explain(directory.path(), &["--protocol", "tcp", "--dport", "23"]);
    assert!(
        stdout(&telnet).contains("verdict   drop: policy"),
        "{}",
        stdout(&telnet)
    );
}

#[test]
fn explain_offline_follows_the_failover_when_paths_are_taken_for_down() {
    let directory = coexist();
    let member = |down: &[&str]| {
        let told = explain(directory.path(), &[down, &["--json"]].concat());
        assert_eq!(status(&told), 0, "{}", stderr(&told));
        let json: Value = serde_json::from_str(&stdout(&told)).unwrap();
        for key in [
            "verdict", "reason", "policy", "route", "path", "member", "rejected",
        ] {
            assert!(json.get(key).is_some(), "{key} is not in {json}");
        }
        assert_eq!(json["route"]["prefix"], "10.2.0.0/16");
        json["member"].as_str().map(str::to_owned)
    };
    assert!(member(&[]).unwrap().starts_with("er-sydney/"));
    let left = member(&["--down", "er-sydney/primary"]);
    assert_eq!(left.as_deref(), Some("er-sydney/secondary"));
    assert_eq!(member(&["--down", "er-sydney"]).as_deref(), Some("onprem"));
    assert_eq!(member(&["--down", "er-sydney", "--down", "onprem"]), None);
}

/// Every command that answers offline knows that a tunnel goes down with the circuit that carries it.
#[test]
fn a_tunnel_over_a_circuit_that_is_down_is_down_offline_as_well() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
    let ask = |arguments: &[&str]| {
        let file = ["-c", "encrypted-expressroute.toml", "--json"];
        let told = vng(&examples, &[arguments, &file].concat());
        assert_eq!(status(&told), 0, "{}", stderr(&told));
        serde_json::from_str::<Value>(&stdout(&told)).unwrap()
    };
    let packet = ["--src", "10.1.0.10", "--dst", "10.2.0.10"];
    let explain = |down: &[&str]| ask(&[&["explain"], &packet[..], down].concat());
    let up = explain(&[]);
    assert_eq!(up["member"], "onprem");
    let foretold = up["would_change"].as_array().unwrap();
    let both = "er-sydney/primary and er-sydney/secondary are down";
    let foretold = foretold.iter().find(|one| one["if"] == both).unwrap();
    assert_eq!(foretold["verdict"], "drop");
    let half = explain(&["--down", "er-sydney/primary"]);
    assert_eq!(half["member"], "onprem");
    let down = explain(&["--down", "er-sydney"]);
    assert_eq!(
        (&down["verdict"], &down["reason"]),
        (&"drop".into(), &"no_path".into())
    );
    assert_eq!(down["group"][0]["role"], "not usable");
    let health = &down["group"][0]["health"];
    assert_eq!(
        (&health["state"], &health["reason"]),
        (&"down".into(), &"circuit_down".into())
    );
    let why = down["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["path"] == "onprem");
    assert_eq!(why.unwrap()["why"], "er-sydney, which carries it, is down");
    let back = down["would_change"].as_array().unwrap();
    assert!(
        back.iter()
            .any(|one| one["if"] == "er-sydney/secondary is up")
    );

    let routes = ["show", "routes", "--path", "onprem"];
    assert_eq!(ask(&routes)[0]["paths"], serde_json::json!(["onprem"]));
    let routes = ask(&[&routes[..], &["--down", "er-sydney"]].concat());
    assert_eq!(routes[0]["paths"], serde_json::json!([]));
}

#[test]
fn explain_says_what_would_change_the_answer_and_who_is_in_the_group() {
    let directory = coexist();
    let config = directory.path().join("vng.toml");
    let rule = "\n[[policy]]\nname = \"mark\"\nmatch = { destination_port = 443 }\n\
                action = { via = [\"er-sydney\", \"onprem\"], set_dscp = \"af21\" }\n";
    let source = fs::read_to_string(&config).unwrap() + rule;
    fs::write(&config, source).unwrap();
    let down = ["--dport", "443", "--down", "er-sydney/primary"];
    let told = explain(directory.path(), &down);
    assert_eq!(status(&told), 0, "{}", stderr(&told));
    let text = stdout(&told);
    for part in [
        "group     1. er-sydney/primary: not usable, assumed down",
        "          1. er-sydney/secondary: taken, assumed up",
        "          2. onprem: stands by, assumed up",
        "DSCP      set to af21",
        "shaper    ExpressRoute ErGw1Az: 1 Gbps, 100,000 packets/s, both directions",
        "flows     ExpressRoute ErGw1Az: 200,000 flows, 7,000 new flows/s",
        "otherwise if er-sydney/secondary goes down: onprem, DSCP af21",
        "          if er-sydney/secondary and onprem are down: drop: no_path",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    let told = explain(directory.path(), &[&down[..], &["--json"]].concat());
    let json: Value = serde_json::from_str(&stdout(&told)).unwrap();
    assert_eq!(json["set_dscp"], "af21");
    assert_eq!(json["group"][1]["role"], "taken");
    let would = json["would_change"].as_array().unwrap();
    let without = would
        .iter()
        .find(|one| one["if"] == "policy mark were not there");
    assert_eq!(without.unwrap()["set_dscp"], Value::Null);
    assert_eq!(without.unwrap()["member"], "er-sydney/secondary");
    for one in would {
        for key in ["if", "verdict", "reason", "path", "member"] {
            assert!(one.get(key).is_some(), "{key} is not in {one}");
        }
    }
}

#[test]
fn explain_refuses_names_that_are_not_in_the_file() {
    let directory = coexist();
    for more in [&["--down", "er-perth"][..], &["--from", "er-perth"]] {
        let told = explain(directory.path(), more);
        assert_eq!(status(&told), 2, "{more:?}");
        assert!(
            stderr(&told).contains("er-sydney/primary"),
            "{}",
            stderr(&told)
        );
    }
}

#[test]
fn show_routes_reads_a_file_and_shows_what_is_asked_for() {
    let directory = coexist();
    let show = |more: &[&str]| {
        let shown = vng(
            directory.path(),
            &[&["show", "routes", "-c", "vng.toml"], more].concat(),
        );
        assert_eq!(status(&shown), 0, "{}", stderr(&shown));
        stdout(&shown)
    };
    let json = |more: &[&str]| -> Value {
        serde_json::from_str(&show(&[more, &["--json"]].concat())).unwrap()
    };
    let all = json(&[]);
    assert!(all.as_array().unwrap().len() > 10, "{all}");
    let of_prefix = json(&["--prefix", "10.2.0.5"]);
    let routes: Vec<(&str, &str, &str)> = of_prefix
        .as_array()
        .unwrap()
        .iter()
        .map(|route| {
            let text = |key: &str| route[key].as_str().unwrap();
            (text("prefix"), text("source"), text("state"))
        })
        .collect();
    assert_eq!(
        routes,
        [
            ("0.0.0.0/0", "system", "Active"),
            ("10.0.0.0/8", "system", "Active"),
            ("10.2.0.0/16", "static", "Active"),
            ("10.2.0.0/16", "site", "Invalid"),
        ]
    );
    let lost = &of_prefix[3];
    assert!(lost["why"].as_str().unwrap().contains("ExpressRoute"));
    assert_eq!(lost["next_hop_type"], "VirtualNetworkGateway");
    let failed_over = json(&[
        "--path",
        "onprem",
        "--source",
        "site",
        "--down",
        "er-sydney",
    ]);
    assert_eq!(failed_over[0]["paths"][0], "onprem");
    let table = show(&["--source", "user_defined"]);
    assert!(
        table.contains("10.9.0.0/16") && table.contains("None"),
        "{table}"
    );
    assert_eq!(show(&["--source", "bgp"]), "no such routes\n");
}

/// Whatever a file alone says is shown without a gateway, by the same options.
#[test]
fn what_a_file_says_is_shown_without_a_gateway() {
    let directory = coexist();
    let show = |more: &[&str]| -> Value {
        let shown = vng(
            directory.path(),
            &[&["show"], more, &["-c", "vng.toml", "--json"]].concat(),
        );
        assert_eq!(status(&shown), 0, "{}", stderr(&shown));
        serde_json::from_str(&stdout(&shown)).unwrap()
    };
    let rule = |more: &[&str]| show(&[&["policy"], more].concat())[1].clone();
    assert_eq!(rule(&[])["paths"], serde_json::json!(["onprem"]));
    let down = rule(&["--down", "onprem"]);
    assert_eq!(down["name"], "backup-over-vpn");
    assert_eq!(
        down["paths"],
        serde_json::json!(["er-sydney/primary", "er-sydney/secondary"])
    );
    assert_eq!(show(&["bgp"])[0]["state"], "not run");
    let client = &show(&["clients"])[0];
    assert_eq!(
        (&client["name"], &client["connected"]),
        (&"laptop".into(), &Value::Null)
    );
    // Options of one view are not those of another.
    let help = |view: &[&str]| {
        stdout(&vng(
            directory.path(),
            &[&["show"], view, &["--help"]].concat(),
        ))
    };
    assert!(!help(&[]).contains("--prefix") && help(&["routes"]).contains("--prefix"));
    assert!(!help(&["counters"]).contains("--down") && help(&["policy"]).contains("--down"));
}

#[test]
fn what_show_routes_cannot_mean_is_bad_usage() {
    let directory = coexist();
    for wrong in [
        &["show", "routes", "-c", "vng.toml", "--path", "onperm"][..],
        &["show", "routes", "-c", "vng.toml", "--source", "ospf"],
        &["show", "routes", "-c", "vng.toml", "--prefix", "10.2"],
        &["show", "routes", "-c", "vng.toml", "--down", "nobody"],
        &["show", "status", "--path", "onprem"],
        &["show", "bgp", "-c", "vng.toml", "--down", "onprem"],
        &["show", "policy", "-c", "vng.toml", "--watch"],
    ] {
        let refused = vng(directory.path(), wrong);
        assert_eq!(status(&refused), 2, "{wrong:?}: {}", stderr(&refused));
    }
}
