//! docs/json.md is what `--json` prints: no key of a command is missing from it, and none stands there that is not
//! printed. Commands that need no gateway are run; of the others the views are laid out with everything in them.
#![allow(clippy::unwrap_used)] // a helper of tests that fails is a test that fails

use gateway::control::path::mistagged::Seen;
use gateway::show::view::{
    BgpView, CircuitView, ClientView, Counters, Event, FlowCount, FlowView, Flows, GatewayStatus,
    HostProblem, HostStatus, LaneView, LimitUse, LinkView, Loss, NeighborView, PathStatus,
    ProbeStatus, Recreated, ReloadReport, ResizeReport, Status, TunnelView,
};
use gateway::telemetry::ledger::{Sum, Totals};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

type Keys = BTreeSet<String>;

/// The keys of each command, as the page has them.
fn documented() -> BTreeMap<String, Keys> {
    let page = fs::read_to_string(docs().join("json.md")).unwrap();
    let mut commands: BTreeMap<String, Keys> = BTreeMap::new();
    let mut command = String::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## `") {
            heading.trim_end_matches('`').clone_into(&mut command);
        } else if let Some(row) = line.strip_prefix("| `") {
            let (key, rest) = row.split_once('`').unwrap();
            let meaning = rest.trim_end_matches(" |").rsplit(" | ").next().unwrap();
            assert!(!meaning.trim().is_empty(), "{command}: {key} says nothing");
            let keys = commands.entry(command.clone()).or_default();
            assert!(keys.insert(key.to_owned()), "{command}: {key} stands twice");
        }
    }
    commands
}

/// The keys of a value, with those inside it. Names of the configuration are written in capitals.
fn flatten(value: &Value, prefix: &str, keys: &mut Keys) {
    let Value::Object(map) = value else { return };
    for (name, inner) in map {
        let of_names = [
            "received",
            "sent",
            "dropped",
            "kernel_drops",
            "offload_refused",
            "offloads",
        ];
        let is_map = |map: &Map<String, Value>| !map.contains_key("packets");
        match inner {
            Value::Object(named) if of_names.contains(&name.as_str()) && is_map(named) => {
                let placeholder = match name.as_str() {
                    "dropped" => "REASON",
                    "kernel_drops" => "SOCKET",
                    _ => "PORT",
                };
                let key = format!("{prefix}{name}.{placeholder}");
                for one in named.values() {
                    keys.insert(key.clone());
                    flatten(one, &format!("{key}."), keys);
                }
            }
            Value::Array(list) if list.iter().any(Value::is_object) => {
                let key = format!("{prefix}{name}[]");
                for one in list {
                    flatten(one, &format!("{key}."), keys);
                }
                keys.insert(key);
            }
            inner => {
                keys.insert(format!("{prefix}{name}"));
                flatten(inner, &format!("{prefix}{name}."), keys);
            }
        }
    }
}

/// What was printed, or is a view of the running gateway; a list stands for what is in it.
#[derive(Default)]
struct Printed(BTreeMap<String, Keys>);

impl Printed {
    fn add(&mut self, command: &str, value: &Value) {
        let keys = self.0.entry(command.to_owned()).or_default();
        match value {
            Value::Array(list) => {
                assert!(!list.is_empty(), "{command}");
                for one in list {
                    flatten(one, "", keys);
                }
            }
            one => flatten(one, "", keys),
        }
    }

    fn view(&mut self, command: &str, value: &impl Serialize) {
        self.add(command, &serde_json::to_value(value).unwrap());
    }

    /// Runs vng; its keys are those of the command, the words of the arguments before the first option.
    fn run(&mut self, directory: &Path, command: &str, more: &[&str]) -> String {
        let words = command.split(' ').skip(1);
        let output = Command::new(env!("CARGO_BIN_EXE_vng"))
            .args(words.chain(more.iter().copied()).chain(["--json"]))
            .current_dir(directory)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{command}: {said}"));
        self.add(command, &value);
        text
    }
}

const SUM: Sum = Sum {
    packets: 1,
    bytes: 60,
};

fn running(printed: &mut Printed) {
    let probe = ProbeStatus {
        target: "10.2.0.1".parse().unwrap(),
        sent: 1,
        answered: 1,
        lost: 0,
        returned_by: None,
        round_trip_ms: None,
    };
    let recreated = Recreated {
        lost: Loss::default(),
        ..Recreated::default()
    };
    printed.view(
        "vng show status",
        &Status {
            recreated: Some(recreated),
            offloads: BTreeMap::from([("vnet".to_owned(), Vec::new())]),
            gateways: vec![GatewayStatus {
                limits: vec![LimitUse::default()],
                ..GatewayStatus::default()
            }],
            paths: vec![PathStatus {
                probe: Some(probe),
                ..PathStatus::default()
            }],
            host: HostStatus {
                problems: vec![HostProblem::default()],
                ..HostStatus::default()
            },
            events: vec![Event::default()],
            ..Status::default()
        },
    );
    printed.view(
        "vng show circuits",
        &[CircuitView {
            links: vec![LinkView {
                mistagged: Some(Seen::default()),
                ..LinkView::default()
            }],
            ..CircuitView::default()
        }],
    );
    let lane = LaneView {
        port: 51_820,
        endpoint: None,
        has_session: true,
        handshakes: 1,
        last_handshake_seconds: None,
        packets_in: 1,
        packets_out: 1,
    };
    printed.view(
        "vng show tunnels",
        &[TunnelView {
            lanes: vec![lane],
            ..TunnelView::default()
        }],
    );
    running_peers(printed);
}

fn running_peers(printed: &mut Printed) {
    printed.view("vng show clients", &[ClientView::default()]);
    printed.view(
        "vng show neighbors",
        &[NeighborView {
            path: String::new(),
            interface: String::new(),
            side: String::new(),
            address: "172.16.0.1".parse().unwrap(),
            mac: None,
            state: String::new(),
            age_seconds: None,
            previous_mac: None,
            changed_seconds: None,
            conflict_mac: None,
        }],
    );
    printed.view(
        "vng show bgp",
        &[BgpView {
            path: String::new(),
            neighbor: "172.16.0.1".parse().unwrap(),
            asn: 65_020,
            state: String::new(),
            routes_learned: 0,
            routes_advertised: 0,
        }],
    );
    printed.view(
        "vng show flows",
        &Flows {
            gateways: vec![FlowCount::default()],
            flows: vec![FlowView {
                protocol: String::new(),
                source: "10.1.0.4".parse().unwrap(),
                source_port: 1,
                destination: "10.2.0.4".parse().unwrap(),
                destination_port: 1,
                from: String::new(),
                path: String::new(),
                idle_seconds: None,
                age_seconds: None,
            }],
            ..Flows::default()
        },
    );
    let mut totals = Totals::default();
    totals.received.insert("vnet".into(), SUM);
    totals.sent.insert("onprem".into(), SUM);
    totals.dropped.insert("no_route".into(), SUM);
    totals.offload_refused.insert("onprem".into(), 3);
    let drops = BTreeMap::from([("eth1".to_owned(), 9)]);
    printed.view("vng show counters", &Counters::new(totals, drops));
    printed.view("vng reload", &ReloadReport::default());
    printed.view(
        "vng resize",
        &ResizeReport {
            lost: Some(Loss::default()),
            ..ResizeReport::default()
        },
    );
}

fn offline(printed: &mut Printed) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let mut texts = vec![printed.run(here, "vng init", &["."])];
    let example = fs::read_to_string(docs().join("examples/coexist.toml")).unwrap();
    let example = example.replace("/etc/vng/vpn.key", "vpn.key");
    let example = example.replace("/run/vng/vng.sock", "none.sock");
    fs::write(here.join("vng.toml"), example).unwrap();
    let file = ["-c", "vng.toml"];
    for command in [
        "vng check",
        "vng show routes",
        "vng show policy",
        "vng show clients",
        "vng show bgp",
        "vng p2s list",
    ] {
        texts.push(printed.run(here, command, &file));
    }
    for (source, destination) in [
        ("10.1.0.4", "10.2.0.4"),
        ("10.1.0.4", "10.9.0.4"),
        ("9.9.9.9", "10.2.0.4"),
    ] {
        let packet = ["--src", source, "--dst", destination];
        texts.push(printed.run(here, "vng explain", &[&file[..], &packet].concat()));
    }
    let add = ["phone", "-e", "vpn.example.net:51820"];
    printed.run(here, "vng p2s add", &[&add[..], &file].concat());
    printed.run(here, "vng p2s revoke", &[&["phone"], &file[..]].concat());
    texts
}

#[test]
fn the_page_has_every_key_that_is_printed_and_no_other() {
    let mut printed = Printed::default();
    running(&mut printed);
    let texts = offline(&mut printed);
    let mut documented = documented();
    // The page says that this is the same list.
    let clients = documented.get("vng show clients").cloned().unwrap();
    documented.insert("vng p2s list".to_owned(), clients);
    for (command, keys) in &printed.0 {
        let page = documented.get(command).cloned().unwrap_or_default();
        // An empty list does not show what would be in it.
        let is_empty_list = |key: &String| page.contains(&format!("{key}[]"));
        let keys: &Keys = &keys
            .iter()
            .filter(|key| !is_empty_list(key))
            .cloned()
            .collect();
        // Hits are counted where something runs; what a list has nothing of shows no keys.
        let silent = |key: &&String| {
            key.starts_with("hits.") || key.contains(".hits.") || key.starts_with("policy[].hits")
        };
        let missing: Vec<_> = keys.difference(&page).collect();
        let stale: Vec<_> = page.difference(keys).filter(|key| !silent(key)).collect();
        assert_eq!(
            missing,
            Vec::<&String>::new(),
            "{command}: not in docs/json.md"
        );
        assert_eq!(
            stale,
            Vec::<&String>::new(),
            "{command}: in docs/json.md alone"
        );
    }
    assert_eq!(
        printed.0.keys().collect::<Vec<_>>(),
        documented.keys().collect::<Vec<_>>()
    );
    for text in texts {
        in_order(&serde_json::from_str(&text).unwrap(), &text);
    }
}

/// Keys stand in alphabetical order, at every depth.
fn in_order(value: &Value, text: &str) {
    // serde_json reads them into a sorted map: what is written again must be what was printed.
    assert_eq!(
        serde_json::to_string_pretty(value).unwrap(),
        text.trim_end()
    );
}
