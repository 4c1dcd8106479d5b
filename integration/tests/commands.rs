//! `vng-lab` as its users treat it: they press Ctrl-C, close its output, fill its disk, start it twice and
//! kill it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use integration::process::{descendants, stat};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Ending takes a second where nothing else runs.
const SOON: Duration = Duration::from_secs(4);

fn lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vng-lab"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// The same with a place of its own for the standing lab's files.
fn standing(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = lab(arguments);
    command.env("VNG_LAB_STATE", directory);
    command
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .concat()
}

/// Waits until none of these is there; a zombie that nobody has taken yet is none.
fn wait_until_gone(pids: &[u32]) {
    let deadline = Instant::now() + SOON;
    for pid in pids {
        while let Some(stat) = stat(*pid).filter(|stat| stat[0] != "Z") {
            assert!(
                Instant::now() < deadline,
                "process {pid} is still there: {stat:?}"
            );
            std::thread::yield_now();
        }
    }
}

/// Waits until standard error says this, and goes on reading it in the background.
fn wait_for(child: &mut Child, text: &str) {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut all = Vec::new();
    loop {
        match lines.next() {
            Some(Ok(line)) if line.contains(text) => break,
            Some(Ok(line)) => all.push(line),
            _ => panic!("{text:?} never came: {all:#?}"),
        }
    }
    std::thread::spawn(move || lines.for_each(drop));
}

/// When Ctrl-C is pressed.
#[derive(Clone, Copy)]
enum When {
    /// A step of this name has ended.
    After(&'static str),
    /// A program runs whose command line has this.
    During(&'static str),
}

/// Waits until the command line of a descendant has this, reading what is said in the background.
fn wait_for_program(child: &mut Child, name: &str) {
    let errors = BufReader::new(child.stderr.take().unwrap());
    std::thread::spawn(move || errors.lines().for_each(drop));
    let deadline = Instant::now() + Duration::from_mins(1);
    let is_it = |pid: &u32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace(['\0', '/'], " ");
        words.contains(name)
    };
    while !descendants(child.id()).iter().any(is_it) {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none() && Instant::now() < deadline, "{ended:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Presses Ctrl-C, as a terminal does: for the whole foreground process group.
fn interrupt(arguments: &[&str], file: &str, when: When) {
    let directory = tempfile::tempdir().unwrap();
    let mut child = lab(arguments)
        .arg(file)
        .arg(directory.path())
        .arg("--json")
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    match when {
        When::After(step) => wait_for(&mut child, step),
        When::During(program) => wait_for_program(&mut child, program),
    }
    let children = descendants(child.id());
    if matches!(when, When::During(_)) {
        assert!(!children.is_empty());
    }
    let pressed = Instant::now();
    kill_process_group(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let took = pressed.elapsed();
    println!(
        "{arguments:?}: ended within {took:?}, {} programs",
        children.len()
    );
    assert!(took < SOON, "{arguments:?}: {took:?}");
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["error"], "interrupted", "{report:#}");
    let written = fs::read(directory.path().join("report.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), report);
    wait_until_gone(&children);
}

/// Its programs shared the terminal's process group, ended first and were the false reason; or nobody looked
/// for the signal: a comparison went on for 18 s.
#[test]
fn ctrl_c_ends_a_demo_and_a_comparison_at_once_whatever_they_do() {
    let compare = |seconds, measure, only| {
        let words = ["compare", "--rounds", "2", "--seconds", seconds];
        [&words[..], &["--measure", measure, "--only", only]].concat()
    };
    let demo = || vec!["demo", "--quick"];
    let mut cases = vec![
        // In the middle of TCP in bulk, and where it waits for paths.
        (demo(), "--report", When::After("traceroute")),
        (demo(), "--report", When::After("start three gateways")),
        // Where no program runs, and where iperf3 does.
        (
            compare("1", "rtt", "vng,kernel-forwarding"),
            "--output",
            When::After("round 1 of 2, vng"),
        ),
    ];
    if integration::program::find("iperf3").is_some() {
        let tcp = compare("30", "tcp", "vng");
        cases.push((tcp, "--output", When::During("iperf3 -J")));
    }
    std::thread::scope(|scope| {
        for (arguments, file, when) in cases {
            scope.spawn(move || interrupt(&arguments, file, when));
        }
    });
}

/// Each printed by `println!`, which ends the program where the output takes nothing: status 101.
#[test]
fn output_that_takes_nothing_is_said_and_ends_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let output = standing(directory.path(), &["down"])
        .stdout(full())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said(&output).contains("standard output"), "{output:?}");
    // Standard error cannot take it either: the status is left.
    let output = standing(directory.path(), &["exec", "vnet", "true"])
        .stderr(full())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    // A reader that has gone.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = standing(directory.path(), &["down"])
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

const SHORT: [&str; 9] = [
    "compare",
    "--only",
    "kernel-forwarding",
    "--measure",
    "rtt",
    "--rounds",
    "1",
    "--seconds",
    "1",
];

/// It was noticed after the work, and then everything was lost.
#[test]
fn a_report_directory_is_tried_before_the_work_and_losing_it_loses_no_figure() {
    for command in ["demo", "compare"] {
        let option = if command == "demo" {
            "--report"
        } else {
            "--output"
        };
        let begun = Instant::now();
        let output = lab(&[command, option, "/proc/nowhere"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(said(&output).contains("/proc/nowhere"), "{output:?}");
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    }
    // It goes while the work is done: what was found is printed.
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("report");
    let mut child = lab(&SHORT)
        .arg("--output")
        .arg(&directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + SOON;
    while !directory.exists() || descendants(child.id()).is_empty() && !has_namespaces(child.id()) {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    fs::remove_dir_all(&directory).unwrap();
    File::create(&directory).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = said(&output);
    assert!(said.contains("round trip, idle, median"), "{said}");
    assert!(said.contains("cannot write the report into"), "{said}");
    // And where the terminal takes nothing, there is the report.
    let directory = place.path().join("other");
    let output = lab(&SHORT)
        .arg("--output")
        .arg(&directory)
        .stdout(File::options().write(true).open("/dev/full").unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(directory.join("report.html").exists());
    // Progress is a line a step, without control characters.
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("round 1 of 1, kernel-forwarding"),
        "{errors}"
    );
    assert!(
        errors.chars().all(|c| c == '\n' || !c.is_control()),
        "{errors:?}"
    );
}

/// Whether it holds network namespaces already: the work has begun.
fn has_namespaces(pid: u32) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors
        .flatten()
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .any(|target| target.to_string_lossy().starts_with("net:"))
}

fn keeper(directory: &Path) -> u32 {
    let state = fs::read(directory.join("vng-lab.json")).unwrap();
    let state: Value = serde_json::from_slice(&state).unwrap();
    state["keeper"].as_u64().unwrap() as u32
}

/// Both had status 0, and the first one's lab stood for ever.
#[test]
fn of_two_labs_that_begin_at_once_one_stands_and_its_commands_work() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path();
    let up = || standing(directory, &["up"]);
    let outputs = std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| up().output().unwrap()));
        both.map(|one| one.join().unwrap())
    });
    let mut codes = outputs.each_ref().map(|output| output.status.code());
    codes.sort();
    assert_eq!(codes, [Some(0), Some(1)], "{outputs:?}");
    let [first, second] = &outputs;
    let refused = if first.status.success() {
        second
    } else {
        first
    };
    let keeper = keeper(directory);
    let names = said(refused).contains(&format!("process {keeper} keeps"));
    assert!(names, "{refused:?}");

    let exec = |words: &[&str]| {
        let output = standing(directory, &["exec"]).args(words).output().unwrap();
        (output.status.code(), said(&output))
    };
    for words in [
        &["gateway", "vng", "show", "status"][..],
        &["gateway", "vng", "check"],
        &["gateway", "vng", "reload"],
        &["gateway", "vng", "resize", "vpn", "VpnGw2AZ"],
        &["branch-edge", "sh", "-c", "vng show tunnels --json"],
        &["vnet", "sh", "-c", "exit 0"],
    ] {
        let (code, said) = exec(words);
        assert_eq!(code, Some(0), "{words:?}: {said}");
    }
    let (code, said_of_clients) = exec(&["gateway", "vng", "p2s", "list"]);
    assert_eq!(code, Some(0), "{said_of_clients}");
    assert_eq!(exec(&["vnet", "sh", "-c", "exit 7"]).0, Some(7));
    assert_eq!(exec(&["nohost", "true"]).0, Some(2));

    // A damaged state hides nothing from anybody.
    fs::write(directory.join("vng-lab.json"), "{\"keeper").unwrap();
    let (code, said_of_status) = exec(&["gateway", "vng", "show", "status"]);
    assert_eq!(code, Some(0), "{said_of_status}");
    let output = up().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("vng-lab down"), "{output:?}");
    let children = descendants(keeper);
    assert_eq!(children.len(), 3, "three gateways");
    let output = standing(directory, &["down"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(said(&output).contains("The lab is gone."), "{output:?}");
    wait_until_gone(&[&[keeper], &children[..]].concat());
    assert_eq!(fs::read_dir(directory).unwrap().count(), 0);
    let output = standing(directory, &["exec", "vnet", "true"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn a_lab_that_was_killed_leaves_what_the_next_one_removes_and_says() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path();
    // Half a state, of nobody.
    fs::write(directory.join("vng-lab.json"), "{\"keeper").unwrap();
    let output = standing(directory, &["up"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(said(&output).contains("which was damaged"), "{output:?}");
    let keeper = keeper(directory);
    let children = descendants(keeper);
    let pid = Pid::from_raw(keeper.cast_signed()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    wait_until_gone(&[&[keeper], &children[..]].concat());
    let output = standing(directory, &["exec", "vnet", "true"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let output = standing(directory, &["down"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told = said(&output);
    assert!(
        told.contains("No lab stands.") && told.contains("is gone"),
        "{told}"
    );
    assert_eq!(fs::read_dir(directory).unwrap().count(), 0);

    // Who stops `up` before the lab stands has none; and a killed one neither.
    for signal in [Signal::INT, Signal::KILL] {
        let mut child = standing(directory, &["up"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + SOON;
        let children = loop {
            let children = descendants(child.id());
            if children.len() >= 2 {
                break children;
            }
            assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none());
            std::thread::yield_now();
        };
        kill_process(Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        if signal == Signal::INT {
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            assert!(said(&output).contains("interrupted"), "{output:?}");
        } else {
            assert_eq!(output.status.signal(), Some(Signal::KILL.as_raw()));
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        while fs::read_dir(directory).unwrap().count() > 0 {
            assert!(Instant::now() < deadline, "files are left");
            std::thread::yield_now();
        }
        wait_until_gone(&children);
    }
}

/// A test binary as libtest's, of shell: what it prints, and what each test does when it is run alone.
const BINARY: &str = r#"#!/bin/sh
if [ "$2" = --exact ]; then
  echo "$3" >> "$0.again"
  [ "$3" != twice ]
  exit
fi
cat <<END
running 4 tests
test twice ... FAILED
test starved ... a line of a child
FAILED
test books ... FAILED
test good ... ok

failures:

---- twice stdout ----
thread 'twice' (1) panicked at tests/x.rs:1:1:
always

---- starved stdout ----
thread 'starved' (2) panicked at tests/x.rs:2:1:
the generator was late
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace

---- books stdout ----
thread 'books' (3) panicked at tests/x.rs:3:1:
gateway: BOOKS


failures:
    twice
    starved
    books

test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s
END
exit 101
"#;

/// A binary that failed was run up to three times: a defect of one half passed seven times in eight.
#[test]
fn a_test_that_fails_is_run_once_more_and_its_reason_decides() {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().unwrap();
    let run = |text: &str| {
        let binary = place.path().join("binary");
        fs::write(&binary, text).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        let again = place.path().join("binary.again");
        let _ = fs::remove_file(&again);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/run-each");
        let named = format!("lab={}", binary.display());
        let output = Command::new(script).arg(named).output().unwrap();
        let again = fs::read_to_string(again).unwrap_or_default();
        (output.status.success(), said(&output), again)
    };
    let (passed, told, again) = run(BINARY);
    assert!(!passed, "{told}");
    assert_eq!(again, "twice\nstarved\nbooks\n", "once each");
    assert!(told.contains("FAILED:\n  lab: twice"), "{told}");
    // One that passes alone is listed with what it had said, and fails nothing...
    let without = BINARY.replace("    twice\n", "");
    let flaked = without.replace("BOOKS", "no answer");
    let (passed, told, _) = run(&flaked);
    assert!(passed, "{told}");
    let table = told.split("passed when run alone:").nth(1).unwrap();
    assert!(
        table.contains("flaked") && table.contains("the generator was late"),
        "{table}"
    );
    assert!(!table.contains("RUST_BACKTRACE"), "{table}");
    // ... but where the gateway's own books said it.
    let (passed, told, _) = run(&without.replace("BOOKS", "Counters { balanced: false }"));
    assert!(!passed, "{told}");
    assert!(told.contains("FAILED (ledger)"), "{told}");
    // A binary that dies is not run again.
    let (passed, told, again) = run("#!/bin/sh\necho 'test one ... '\nkill -ABRT $$\n");
    assert!(!passed && again.is_empty(), "{told}");
    assert!(run("#!/bin/sh\nexit 0\n").0);
}
