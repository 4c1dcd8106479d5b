//! `vng-lab compare`, as a user starts it. Figures are not judged here: only that there are all of them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use integration::compare::metric::METRICS;
use integration::process::descendants;
use integration::program;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn compare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vng-lab"));
    command.args(["compare", "--rounds", "1", "--json"]);
    command
}

#[test]
fn a_comparison_has_every_figure_of_every_contestant() {
    let installed = |name: &&str| program::find(name).is_some();
    let peers = ["wireguard-go", "wg"].iter().all(installed);
    let all = std::env::var_os("VNG_ALL_TESTS").is_some();
    assert!(peers || !all, "wireguard-go is not installed");
    if !peers {
        let line = "\nwireguard-go is not installed: it must be among the missing";
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    let directory = tempfile::tempdir().unwrap();
    let output = compare()
        .args(["--seconds", "1", "--only", "vng,wireguard-go", "--output"])
        .arg(directory.path())
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report:#}\n{errors}");
    assert_eq!(report["ok"], true, "{report:#}");

    let contestants = report["contestants"].as_array().unwrap();
    let missing = report["missing"].as_array().unwrap();
    assert_eq!(
        (contestants.len(), missing.len()),
        [(1, 1), (2, 0)][usize::from(peers)]
    );
    let without_iperf = program::find("iperf3").is_none();
    for contestant in contestants {
        let figures = &contestant["rounds"][0]["figures"];
        for metric in &METRICS {
            if without_iperf && metric.key.ends_with("retransmits") {
                continue;
            }
            let value = figures[metric.key].as_f64();
            let (key, name) = (metric.key, &contestant["name"]);
            let value = value.unwrap_or_else(|| panic!("{name} has no {key}: {report:#}"));
            // What can be better is never nothing; a loss or a retransmission may be.
            let least = if metric.better.is_some() {
                f64::MIN_POSITIVE
            } else {
                0.0
            };
            assert!(
                value >= least && value.is_finite(),
                "{name}: {key} = {value}"
            );
            let median = &contestant["summary"][metric.key]["median"];
            assert_eq!(median.as_f64(), Some(value), "{name}: {key}");
        }
        let version = contestant["version"].as_str().unwrap_or_default();
        assert!(version.contains(char::is_numeric), "{contestant:#}");
    }
    let better = METRICS.iter().filter(|metric| metric.better.is_some());
    let length = |key: &str| report[key].as_array().unwrap().len();
    // Where a sender was the peer's limit there is none, and that is said.
    let ratios = length("ratios") + length("without_ratio");
    assert_eq!(ratios, if peers { better.count() } else { 0 });

    let written = fs::read_to_string(directory.path().join("report.json")).unwrap();
    let written: Value = serde_json::from_str(&written).unwrap();
    assert_eq!(written, report, "the file is what was printed");
    let page = fs::read_to_string(directory.path().join("report.html")).unwrap();
    assert!(page.contains("<rect class=\"bar"));
}

#[test]
fn a_comparison_that_is_interrupted_reports_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = compare()
        .args(["--seconds", "5", "--only", "kernel-forwarding,vng"])
        .args(["--measure", "udp", "--output"])
        .arg(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    let children = loop {
        let children = descendants(child.id());
        if children.len() >= 2 {
            break children;
        }
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none() && Instant::now() < deadline, "{ended:?}");
        std::thread::yield_now();
    };
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["ok"], &report["error"]),
        (&false.into(), &"interrupted".into())
    );
    for pid in children {
        let status = fs::read_to_string(format!("/proc/{pid}/stat"));
        assert!(status.is_err(), "process {pid} is still there: {status:?}");
    }
}

#[test]
fn a_name_that_nobody_has_is_bad_usage() {
    let output = compare().args(["--only", "vmg"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("\"vmg\"") && said.contains("wireguard-go"),
        "{said}"
    );
}
