//! What a gateway costs that has nothing to do.

use crate::stage::{Stage, wait_for};
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// How often each thread of a process has gone to sleep so far, by name.
fn sleeps(pid: u32) -> BTreeMap<String, u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let word = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().to_owned())
        };
        Some((
            word("Name:")?,
            word("voluntary_ctxt_switches:")?.parse().ok()?,
        ))
    };
    tasks.flatten().filter_map(of).collect()
}

/// Netlink tells of every change: a link at rest is not asked about.
#[test]
fn an_idle_gateway_wakes_for_its_probes_only() {
    let stage = Stage::new();
    let circuit = r#"[expressroute]
sku = "Unlimited"

[[expressroute.circuit]]
name     = "er"
prefixes = ["10.2.0.0/16"]
probe    = { interval = "1s", fail = 3, pass = 1 }

  [[expressroute.circuit.link]]
  name      = "primary"
  interface = "eth1"
  address   = ["172.16.0.1/30"]
  neighbor  = ["172.16.0.2"]
"#;
    let mut gateway = stage.gateway("first", "vng0", circuit);
    gateway.start().unwrap();
    wait_for(
        "the path is up",
        || gateway.log(),
        || stage.show(&gateway, "status")["paths"][0]["state"] == "up",
    );
    // The links of other tests, in other namespaces, have the kernel hold back this one's changes too, but
    // nothing is heard of them here.
    let pid = gateway.pid().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let before = sleeps(pid);
    let seconds = 4;
    std::thread::sleep(Duration::from_secs(seconds));
    let after = sleeps(pid);
    let woken = |name: &str| after[name] - before[name];
    eprintln!(
        "woken in {seconds} s: {:?}",
        after.keys().map(|n| (n, woken(n))).collect::<Vec<_>>()
    );
    // 50 times a second, once.
    assert!(
        woken("carrier") <= 2 * seconds,
        "{} times",
        woken("carrier")
    );
    assert!(woken("keeper") <= 2 * seconds, "{} times", woken("keeper"));
    gateway.stop().unwrap();
}
