//! Commands beside a gateway that runs: how they find it, what they say of what they have done, and what becomes of
//! a client's files.
#![allow(clippy::unwrap_used)] // a helper of tests that fails is a test that fails

mod pretend;

use pretend::Lab;
use std::fs;
use std::io::pipe;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const VNG: &str = env!("CARGO_BIN_EXE_vng");

/// A gateway of fixed answers, and a file that names its socket.
fn lab() -> Lab {
    let lab = Lab::new();
    let directory = lab.directory.path();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/coexist.toml");
    let text = fs::read_to_string(example).unwrap();
    let text = text.replace("/etc/vng/vpn.key", "vpn.key");
    let text = text.replace("/run/vng/vng.sock", "vng.sock");
    assert!(text.contains("\"vng.sock\""));
    fs::write(directory.join("vng.toml"), text).unwrap();
    let made = Command::new(VNG)
        .args(["keygen", "-o", "vpn.key"])
        .current_dir(directory)
        .output();
    assert!(made.unwrap().status.success());
    lab
}

/// A command that finds no gateway but by the file.
fn vng(lab: &Lab, arguments: &[&str]) -> Command {
    let mut command = Command::new(VNG);
    command
        .args(arguments)
        .current_dir(lab.directory.path())
        .env("VNG_SOCKET", "/nonexistent/vng.sock")
        .stdin(Stdio::null());
    command
}

fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn run(lab: &Lab, arguments: &[&str]) -> (Option<i32>, String, String) {
    told(&vng(lab, arguments).output().unwrap())
}

#[test]
fn every_command_finds_the_gateway_by_the_file_that_is_named() {
    let lab = lab();
    for command in [
        &["reload"][..],
        &["resize", "vpn", "VpnGw3"],
        &["show", "status"],
        &["show", "circuits"],
        &["show", "tunnels"],
        &["show", "neighbors"],
        &["show", "flows"],
        &["show", "counters"],
        &["p2s", "list"],
    ] {
        let named = run(&lab, &[command, &["-c", "vng.toml"]].concat());
        assert_eq!(named.0, Some(0), "{command:?}: {named:?}");
        let missing = run(&lab, &[command, &["-c", "missing.toml"]].concat());
        assert_eq!(missing.0, Some(2), "{command:?}: {missing:?}");
        assert!(
            missing.2.contains("missing.toml is not there"),
            "{missing:?}"
        );
        // A socket that is named is the one.
        let other = run(
            &lab,
            &[command, &["-c", "vng.toml", "-s", "other.sock"]].concat(),
        );
        if command != ["p2s", "list"] {
            assert_eq!(other.0, Some(3), "{command:?}: {other:?}");
        }
        let neither = run(&lab, command);
        assert_eq!(neither.0, Some(3), "{command:?}: {neither:?}");
    }
    // Mistakes elsewhere in the file keep nobody from asking.
    fs::write(
        lab.directory.path().join("wrong.toml"),
        "nonsense = 1\n[control]\nsocket = \"vng.sock\"\n",
    )
    .unwrap();
    let asked = run(&lab, &["show", "status", "-c", "wrong.toml"]);
    assert_eq!(asked.0, Some(0), "{asked:?}");
    fs::write(lab.directory.path().join("wrong.toml"), "nonsense").unwrap();
    let asked = run(&lab, &["show", "status", "-c", "wrong.toml"]);
    assert_eq!(asked.0, Some(2), "{asked:?}");
}

/// A standard output that takes nothing, in three ways.
fn deaf(lab: &Lab, way: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = vng(lab, arguments);
    match way {
        "full" => command.stdout(
            fs::OpenOptions::new()
                .write(true)
                .open("/dev/full")
                .unwrap(),
        ),
        "nobody reads" => command.stdout(pipe().unwrap().1),
        _ => {
            let mut shell = Command::new("sh");
            shell
                .args(["-c", "exec \"$0\" \"$@\" >&-", VNG])
                .args(arguments)
                .current_dir(lab.directory.path())
                .env("VNG_SOCKET", "/nonexistent/vng.sock");
            command = shell;
            command.stdout(Stdio::null())
        }
    };
    told(&command.stderr(Stdio::piped()).output().unwrap())
}

#[test]
fn what_was_done_is_said_also_where_standard_output_takes_nothing() {
    for way in ["full", "nobody reads", "closed"] {
        let lab = lab();
        let endpoint = ["--endpoint", "vpn.example.net:51820"];
        for (command, done) in [
            (&["init", "new"][..], "made new/vpn.key: the private key"),
            (
                &["keygen", "-o", "another.key"],
                "another.key has a new private key; its public key is ",
            ),
            (
                &[&["p2s", "add", "phone", "-c", "vng.toml"], &endpoint[..]].concat(),
                "phone: 172.31.0.1; the running gateway knows it",
            ),
            (
                &["p2s", "revoke", "phone", "-c", "vng.toml", "--json"],
                "phone is revoked; its session is dead",
            ),
            (
                &["reload", "-c", "vng.toml"],
                "changed: route 10.9.0.0/16 added",
            ),
            (
                &["resize", "vpn", "VpnGw3", "-c", "vng.toml", "--json"],
                "vpn: VpnGw2 to VpnGw3 in place",
            ),
        ] {
            let (status, _, said) = deaf(&lab, way, command);
            assert_eq!(status, Some(1), "{way}: {command:?}: {said}");
            assert!(
                said.contains("error: standard output"),
                "{way}: {command:?}: {said}"
            );
            assert!(said.contains(done), "{way}: {command:?}: {said}");
        }
        let text = fs::read_to_string(lab.directory.path().join("vng.toml")).unwrap();
        assert!(!text.contains("phone"));
    }
    // Who only wants to see something has nothing if it is not shown; only a reader that went away is no failure.
    let lab = lab();
    for command in [
        &["show", "status", "-c", "vng.toml"][..],
        &["--help"],
        &["--version"],
        &["check", "-c", "vng.toml"],
    ] {
        let (status, _, said) = deaf(&lab, "closed", command);
        assert_eq!(status, Some(1), "{command:?}: {said}");
        assert!(said.contains("error: standard output is closed"), "{said}");
    }
}

fn add(lab: &Lab, more: &[&str]) -> (Option<i32>, String, String) {
    let command = [
        "p2s",
        "add",
        "phone",
        "-c",
        "vng.toml",
        "--endpoint",
        "vpn.example.net:51820",
    ];
    run(lab, &[&command, more].concat())
}

fn file(lab: &Lab, name: &str) -> PathBuf {
    lab.directory.path().join(name)
}

#[test]
fn a_client_that_is_revoked_can_be_added_again() {
    let lab = lab();
    let revoke = || run(&lab, &["p2s", "revoke", "phone", "-c", "vng.toml"]);
    for _ in 0..2 {
        let added = add(&lab, &["--preshared-key-file", "phone.psk"]);
        assert_eq!(added.0, Some(0), "{added:?}");
        assert!(file(&lab, "phone.conf").exists() && file(&lab, "phone.psk").exists());
        let revoked = revoke();
        assert_eq!(revoked.0, Some(0), "{revoked:?}");
        assert!(
            revoked.1.contains("removed its file phone.conf"),
            "{revoked:?}"
        );
        assert!(!file(&lab, "phone.conf").exists() && !file(&lab, "phone.psk").exists());
    }

    // A file elsewhere is not known; what is not this client's is not touched.
    let added = add(
        &lab,
        &["-o", "elsewhere.conf", "--preshared-key-file", "phone.psk"],
    );
    assert_eq!(added.0, Some(0), "{added:?}");
    fs::write(
        file(&lab, "phone.conf"),
        "[Interface]\nPrivateKey = somebody's\n",
    )
    .unwrap();
    let revoked = revoke();
    assert!(
        revoked
            .1
            .contains("its file, wherever it is, is worth nothing now: remove it"),
        "{revoked:?}"
    );
    let psk = file(&lab, "phone.psk");
    assert!(
        revoked.1.contains(&format!("{} is left", psk.display())),
        "{revoked:?}"
    );
    assert!(
        psk.exists() && file(&lab, "elsewhere.conf").exists() && file(&lab, "phone.conf").exists()
    );

    // What is in the way is named.
    let again = add(&lab, &[]);
    assert_eq!(again.0, Some(2), "{again:?}");
    assert!(
        again
            .2
            .contains("phone.conf is there already; name another file with -o, or remove it"),
        "{again:?}"
    );
    let again = add(
        &lab,
        &["-o", "new.conf", "--preshared-key-file", "phone.psk"],
    );
    assert!(
        again
            .2
            .contains(&format!("{} is there already; ", psk.display())),
        "{again:?}"
    );
    assert!(again.2.contains("--preshared-key-file"), "{again:?}");
    let again = add(&lab, &["-o", "new.conf"]);
    assert_eq!(again.0, Some(0), "{again:?}");
}

/// What an administrator needs to know whose disk is full, or whose file has a mistake, while a client must go.
#[test]
fn revoking_ends_the_session_whatever_becomes_of_the_file() {
    let lab = lab();
    let good = fs::read_to_string(file(&lab, "vng.toml")).unwrap();
    let revoke = ["p2s", "revoke", "laptop", "-c", "vng.toml"];
    let left = "laptop's session is dead, but the file still has laptop";

    fs::write(file(&lab, "vng.toml"), format!("nonsense = 1\n{good}")).unwrap();
    let (status, out, said) = run(&lab, &revoke);
    assert_eq!((status, out.as_str()), (Some(2), ""), "{said}");
    assert!(said.contains(left) && said.contains("nonsense"), "{said}");

    // As on a full disk, no file takes a byte more.
    fs::write(file(&lab, "vng.toml"), &good).unwrap();
    let full = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\"", VNG])
        .args(revoke)
        .current_dir(lab.directory.path())
        .output();
    let (status, out, said) = told(&full.unwrap());
    assert_eq!((status, out.as_str()), (Some(1), ""), "{said}");
    assert!(
        said.contains(left) && said.contains("File too large"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(file(&lab, "vng.toml")).unwrap(), good);
    let names = fs::read_dir(lab.directory.path()).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "nothing half written is left: {names:?}");

    let (status, out, said) = run(&lab, &revoke);
    assert_eq!(status, Some(0), "{said}");
    assert!(
        out.starts_with("laptop is revoked; its session is dead\n"),
        "{out}"
    );
}
