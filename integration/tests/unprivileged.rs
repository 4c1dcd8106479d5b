//! `vng-lab demo` as a user without privileges: root of a user namespace alone, which README promises. Needs
//! root to become that user, with a `/dev/net/tun` that is open to all, as udev makes it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

/// Nobody in particular.
const USER: u32 = 65_534;

#[test]
fn the_demo_runs_as_an_unprivileged_user() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("vng-lab");
    fs::copy(env!("CARGO_BIN_EXE_vng-lab"), &program).unwrap();
    let report = directory.path().join("report");
    fs::create_dir(&report).unwrap();
    chown(&report, Some(USER), Some(USER)).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let script = "
        mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200
        exec setpriv --reuid 65534 --regid 65534 --clear-groups \
            timeout -k 5 180 ./vng-lab demo --quick --json --report report";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-ec", script])
        .current_dir(directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let outcome: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    // What is to be shown is that all of it runs. Whether a busy machine let a queue stand for 10 ms meanwhile, so that
    // a sender was told to slow down (`queue_delay`), is the failover tests' matter.
    let is_loss = |name: &Value| name == "the way back loses nothing";
    let checks = outcome["checks"].as_array().unwrap();
    let mut failed = checks.iter().filter(|check| check["passed"] != true);
    assert!(
        failed.all(|check| is_loss(&check["name"])),
        "{outcome:#}\n{said}"
    );
    let count = |key: &str| outcome["failback"][key].as_u64().unwrap();
    assert!(count("lost") * 1_000 < count("sent"), "{outcome:#}\n{said}");
    assert_eq!(outcome["ledger_balanced"], true, "{outcome:#}\n{said}");
    assert_eq!(
        output.status.code(),
        Some(i32::from(outcome["ok"] != true)),
        "{said}"
    );
    let page = fs::metadata(report.join("report.html")).unwrap();
    assert!(page.len() > 0);
}
