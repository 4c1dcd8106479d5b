//! The recipe of docs/far-end.md, run as it is written: a plain Linux router with the kernel's routing, at the far end
//! of two links and a tunnel, and beside it the same router without the recipe. As root, each in namespaces of its
//! own; the tunnel's far end is wireguard-go.
//!
//! ```text
//!   near: vng, vng0 10.1.0.4       provider         far: plain Linux, 10.2.0.1, 10.2.255.1
//!   eth1 172.16.0.2  ------- near1 bridge far1 ---- eth1 172.16.0.1
//!   eth2 172.16.0.6  ------- near2 bridge far2 ---- eth2 172.16.0.5
//!   eth0 192.0.2.1   ------------ veth ------------ eth0 192.0.2.2, wg0
//! ```
#![allow(clippy::unwrap_used)] // a helper of tests that fails is a test that fails

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The code block of the page with these words behind its fence.
fn block(kind: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/far-end.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once(&format!("```{kind}\n")).unwrap();
    rest.split("```").next().unwrap().to_owned()
}

/// A pair of network namespaces in a mount namespace of their own; it ends with its first process.
struct Lab {
    directory: tempfile::TempDir,
    holder: Child,
    others: Vec<Child>,
}

impl Lab {
    fn new() -> Self {
        let script = "mount -t tmpfs none /run && mkdir -p /run/wireguard && ip netns add far && ip netns add provider && echo made && exec sleep 300";
        let mut holder = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                script,
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut made = [0; 5];
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut made).unwrap();
        let lab = Self {
            directory: tempfile::tempdir().unwrap(),
            holder,
            others: Vec::new(),
        };
        lab.near(
            "ip link set lo up; ip link add eth0 type veth peer name eth0 netns far
             ip link set eth0 up; ip address add 192.0.2.1/24 dev eth0
             for n in 1 2; do
               ip link add eth$n type veth peer name near$n netns provider; ip link set eth$n up
               ip -n far link add eth$n type veth peer name far$n netns provider
               ip -n provider link add bridge$n type bridge; ip -n provider link set bridge$n up
               for port in near$n far$n; do ip -n provider link set $port up master bridge$n; done
             done",
        );
        lab.far(
            "for n in lo eth0 eth1 eth2; do ip link set $n up; done
             ip link add lan0 type veth peer name lan1; ip link set lan0 up; ip link set lan1 up
             ip address add 192.0.2.2/24 dev eth0",
        );
        lab
    }

    fn command(&self, far: bool) -> Command {
        let mut command = Command::new("nsenter");
        let binary = Path::new(env!("CARGO_BIN_EXE_vng")).parent().unwrap();
        let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
        command
            // Another mount namespace begins at its root, unless it is told where.
            .arg(format!("--wd={}", self.directory.path().display()))
            .args(["-t", &self.holder.id().to_string(), "--net", "--mount"])
            .args(if far {
                &["ip", "netns", "exec", "far"][..]
            } else {
                &[]
            })
            .env("PATH", path)
            .current_dir(self.directory.path());
        command
    }

    fn run(&self, far: bool, script: &str) -> String {
        let output = self
            .command(far)
            .args(["sh", "-ec", script])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{script}\n{said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn near(&self, script: &str) -> String {
        self.run(false, script)
    }

    fn far(&self, script: &str) -> String {
        self.run(true, script)
    }

    fn spawn(&mut self, far: bool, script: &str) {
        let child = self
            .command(far)
            .args(["sh", "-c", script])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.others.push(child);
    }

    fn ping(&self) -> bool {
        let ping = |lab: &Self| -> Output {
            let mut command = lab.command(false);
            command.args([
                "ping", "-q", "-c", "1", "-W", "1", "-I", "10.1.0.4", "10.2.0.1",
            ]);
            command.output().unwrap()
        };
        ping(self).status.success()
    }

    /// The far end's tunnel, and the gateway with the page's configuration.
    fn start(&mut self, config: &str) {
        self.near("vng init .  >/dev/null; rm vng.toml; vng keygen -o far.key >far.pub");
        self.far("wireguard-go wg0 >/dev/null 2>&1; wg set wg0 listen-port 51820 \
             private-key far.key peer $(vng pubkey vpn.key) allowed-ips 10.1.0.0/16; ip link set wg0 up");
        let public = self.near("cat far.pub");
        let config = config.replace("THE ROUTER'S PUBLIC KEY", public.trim());
        fs::write(self.directory.path().join("vng.toml"), config).unwrap();
        self.spawn(false, "exec vng run -c vng.toml 2>log");
    }

    fn explain(&self, more: &str) -> Value {
        let asked = "vng explain --json --src 10.1.0.4 --dst 10.2.0.1";
        serde_json::from_str(&self.near(&format!("{asked} {more}"))).unwrap()
    }

    fn paths(&self) -> Vec<Value> {
        let status = self
            .command(false)
            .args(["vng", "show", "status", "--json"])
            .output();
        let status: Value = serde_json::from_slice(&status.unwrap().stdout).unwrap_or_default();
        status["paths"].as_array().cloned().unwrap_or_default()
    }

    /// The path of this name, once it is as it should be.
    fn wait(&self, name: &str, what: &str, is_so: impl Fn(&Value) -> bool) {
        let patience = Instant::now() + Duration::from_secs(40);
        loop {
            let paths = self.paths();
            if paths.iter().any(|path| path["name"] == name && is_so(path)) {
                return;
            }
            let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(
                Instant::now() < patience,
                "{name} is not {what}: {paths:#?}\n{log}"
            );
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn wait_for_ping(&self, why: &str) {
        let patience = Instant::now() + Duration::from_secs(40);
        while !self.ping() {
            assert!(Instant::now() < patience, "{why}: {:#?}", self.paths());
        }
    }

    /// The provider passes nothing on any more, either way, and both ends keep their carrier.
    fn silence_the_links(&self) {
        self.near(
            "for n in 1 2; do for port in near$n far$n; do
               ip netns exec provider bridge link set dev $port state 0
             done; done",
        );
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // With its last process the namespaces go, and the programs in them are told before.
        let mut end = self.command(false);
        let end = end.args(["sh", "-c", "kill $(ip netns pids far)"]);
        let _ = end.stderr(Stdio::null()).status();
        for child in self.others.iter_mut().chain([&mut self.holder]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A tunnel over a circuit, which is the only way to the site.
const OVER: &str = r#"
[[vpn.site]]
name       = "onprem"
over       = "er-sydney"
public_key = "THE ROUTER'S PUBLIC KEY"
endpoint   = "10.200.0.2:51820"
prefixes   = ["10.2.0.0/16"]
probe      = false
"#;

/// The running gateway with its circuit cut says what it says offline of a circuit that is assumed down.
#[test]
fn with_the_circuit_cut_the_running_gateway_says_what_it_says_offline() {
    let mut lab = Lab::new();
    let config = block("toml far-end").replace(
        "[\"10.2.0.0/16\"]\nprobe    =",
        "[\"10.200.0.0/16\"]\nprobe    =",
    );
    let (before, site) = config.split_once("[[vpn.site]]").unwrap();
    let (_, after) = site.split_once("[failover]").unwrap();
    lab.far("ip address add 172.16.0.1/30 dev eth1; ip address add 172.16.0.5/30 dev eth2");
    lab.start(&format!("{before}{OVER}\n[failover]{after}"));
    for name in ["er-sydney/primary", "er-sydney/secondary"] {
        lab.wait(name, "up", is("up"));
    }
    lab.wait("onprem", "usable", |path| path["in_use"] == true);
    let said = |explanation: &Value| {
        let of = |key: &str| explanation[key].clone();
        let group = explanation["group"].as_array().unwrap();
        let roles: Vec<_> = group
            .iter()
            .map(|m| (m["path"].clone(), m["role"].clone()))
            .collect();
        let rejected = explanation["rejected"].as_array().unwrap().iter();
        let why: Vec<_> = rejected
            .filter(|one| one.get("path").is_some())
            .cloned()
            .collect();
        let would = explanation["would_change"].as_array().unwrap().iter();
        let would: Vec<_> = would
            .map(|one| (one["if"].clone(), one["member"].clone()))
            .collect();
        (of("verdict"), of("reason"), of("member"), roles, why, would)
    };
    assert_eq!(said(&lab.explain("")), said(&lab.explain("-c vng.toml")));
    assert_eq!(lab.explain("")["member"], "onprem");
    lab.silence_the_links();
    lab.wait("onprem", "down", |path| path["reason"] == "circuit_down");
    let offline = lab.explain("-c vng.toml --down er-sydney");
    assert_eq!(said(&lab.explain("")), said(&offline));
    assert_eq!(offline["reason"], "no_path");
    let routes = |more: &str| -> Value {
        serde_json::from_str(&lab.near(&format!("vng show routes --path onprem --json {more}")))
            .unwrap()
    };
    assert_eq!(routes(""), routes("-c vng.toml --down er-sydney"));
    assert_eq!(routes("")[0]["paths"], serde_json::json!([]));
}

fn is(state: &'static str) -> impl Fn(&Value) -> bool {
    move |path| path["state"] == state
}

#[test]
fn the_recipe_for_plain_linux_keeps_every_probe_on_its_path_and_fails_over_both_ways() {
    let mut lab = Lab::new();
    lab.start(&block("toml far-end"));
    lab.far(&block("sh far-end"));
    lab.spawn(true, &block("sh watch"));
    let names = ["er-sydney/primary", "er-sydney/secondary", "onprem"];
    for name in names {
        lab.wait(name, "up", |path| {
            path["state"] == "up" && path["probe"]["answered"] != 0
        });
    }
    lab.wait_for_ping("before the fault");
    for path in lab.paths() {
        assert_eq!(path["probe"]["returned_by"], Value::Null, "{path:#}");
    }
    lab.silence_the_links();
    for name in &names[..2] {
        lab.wait(name, "down", is("down"));
    }
    // The tunnel is known to work, and both directions have moved to it.
    lab.wait_for_ping("after both links went silent");
    lab.wait("onprem", "up and in use", |path| {
        path["state"] == "up" && path["in_use"] == true
    });
}

#[test]
fn without_the_recipe_a_path_says_that_its_answers_come_back_elsewhere() {
    let mut lab = Lab::new();
    lab.start(&block("toml far-end"));
    let script = block("sh far-end");
    // Metrics and all else, but no rule: the probe's answer takes the better route.
    let script: Vec<&str> = script
        .lines()
        .filter(|line| !line.starts_with("ip rule"))
        .collect();
    lab.far(&script.join("\n"));
    let over_the_circuit = |path: &Value| {
        let by = path["probe"]["returned_by"].as_str();
        by.is_some_and(|by| by.starts_with("er-sydney/"))
    };
    lab.wait("onprem", "answered over the circuit", over_the_circuit);
    let said = lab.near("vng show status");
    let note = "onprem: answers to its probes come back over er-sydney/";
    assert!(said.contains(note), "{said}");
    lab.silence_the_links();
    lab.wait("onprem", "doubted", |path| {
        path["reason"] == "answers_elsewhere"
    });
    let onprem = lab
        .paths()
        .into_iter()
        .find(|path| path["name"] == "onprem")
        .unwrap();
    assert_eq!(onprem["state"], "degraded");
}
