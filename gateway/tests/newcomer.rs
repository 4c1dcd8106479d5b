//! What somebody meets who has never used vng: the commands of README's "Run it", one after the other on a machine
//! that has nothing, and the hints that errors give. As root, in a network and a mount namespace of its own, so
//! that neither /etc/vng nor /run/vng of this machine is touched.
#![allow(clippy::unwrap_used)] // a helper of tests that fails is a test that fails

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn vng(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vng"))
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The commands of the code block below a heading of README.md, without what is said beside them.
fn commands(heading: &str) -> Vec<String> {
    let readme = fs::read_to_string(home().join("README.md")).unwrap();
    let (_, section) = readme.split_once(heading).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let lines = section.lines().map(|line| line.strip_prefix("    "));
    let block = lines.skip_while(Option::is_none).map_while(|line| line);
    block
        .map(|line| line.split("  #").next().unwrap().trim().to_owned())
        .collect()
}

/// Runs a script as root where this machine's network, /etc and /run are not.
fn on_a_bare_machine(script: &str) -> Output {
    let binary = Path::new(env!("CARGO_BIN_EXE_vng")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let prepare =
        "mount -t tmpfs none /etc && mount -t tmpfs none /run && ip link set lo up || exit 99\n";
    Command::new("timeout")
        .args([
            "120",
            "unshare",
            "--net",
            "--mount",
            "--propagation",
            "private",
        ])
        .args(["sh", "-c", &format!("{prepare}{script}")])
        .env("PATH", format!("{}:{path}", binary.display()))
        .current_dir(home())
        .output()
        .unwrap()
}

#[test]
fn the_commands_of_the_readme_run_one_after_the_other_on_a_bare_machine() {
    let commands = commands("## Run it");
    let install = commands.first().unwrap();
    assert!(
        install.starts_with("cargo install --locked --path gateway"),
        "{install}"
    );
    let mut script = String::new();
    for command in &commands[1..] {
        assert!(command.starts_with("vng "), "{command}");
        if command == "vng run" {
            // The descriptor stays open, so that later lines have a reader.
            script += "mkfifo /run/said\nvng run >/run/said & gateway=$!\nexec 3</run/said\n\
                       read -r ready <&3\n[ \"$ready\" = ready ] || exit 98\n";
        } else {
            writeln!(
                script,
                "{command} || {{ echo \"status $?: {command}\" >&2; exit 97; }}"
            )
            .unwrap();
        }
    }
    script += "kill $gateway; wait $gateway || { echo \"the gateway: status $?\" >&2; exit 96; }\n";
    // The key that vng init has made is what every example needs.
    script += "for example in docs/examples/*.toml; do vng check -c $example >/dev/null || exit 95; done\n";
    let done = on_a_bare_machine(&script);
    let (out, err) = (text(&done.stdout), text(&done.stderr));
    assert_eq!(done.status.code(), Some(0), "{script}\n{out}\n{err}");
    for said in [
        "made /etc/vng/vpn.key",
        "ok: /etc/vng/vng.toml is valid",
        "the running gateway knows it",
        "drop: tunnel_no_session",
        "drop: no_path",
    ] {
        assert!(out.contains(said), "{said} is not in:\n{out}");
    }
    assert!(commands.len() >= 10, "{commands:?}");
}

#[test]
fn init_makes_what_is_missing_and_overwrites_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let made = vng(directory.path(), &["init", "new/vng"]);
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    let new = directory.path().join("new/vng");
    assert_eq!(mode(&new), 0o755 & !umask());
    assert_eq!(mode(&new.join("vpn.key")), 0o600);
    assert_eq!(mode(&new.join("vng.toml")), 0o644 & !umask());
    let key = fs::read(new.join("vpn.key")).unwrap();
    let public = text(&vng(&new, &["pubkey", "vpn.key"]).stdout);
    assert!(text(&made.stdout).contains(public.trim_end()));
    let checked = vng(directory.path(), &["check", "-c", "new/vng/vng.toml"]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    assert_eq!(text(&checked.stderr), "", "the first file has warnings");

    // What is there stays as it is, and what is missing comes.
    fs::write(new.join("vng.toml"), "mine").unwrap();
    let again = vng(directory.path(), &["init", "new/vng"]);
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
    assert_eq!(fs::read_to_string(new.join("vng.toml")).unwrap(), "mine");
    assert_eq!(fs::read(new.join("vpn.key")).unwrap(), key);
    assert!(text(&again.stdout).contains("kept new/vng/vng.toml"));
    fs::remove_file(new.join("vng.toml")).unwrap();
    let json = vng(directory.path(), &["init", "new/vng", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["made"], serde_json::json!(["new/vng/vng.toml"]));
    assert_eq!(json["public_key"], public.trim_end());
}

fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    u32::from_str_radix(line.unwrap().trim(), 8).unwrap()
}

/// What an error advises does what it says.
#[test]
fn the_hints_of_errors_work_as_they_are_written() {
    let script = "
        vng check 2>/run/said; [ $? = 2 ] || exit 90
        grep -q '/etc/vng/vng.toml is not there: vng init makes a first one' /run/said || exit 91
        vng check -c docs/examples/vpn-only.toml 2>/run/said; [ $? = 2 ] || exit 92
        hint=$(sed -n 's/.*make one: //p' /run/said)
        [ \"$hint\" = 'vng keygen -o /etc/vng/vpn.key' ] || exit 93
        $hint || exit 94
        vng check -c docs/examples/vpn-only.toml || exit 95
        vng pubkey /etc/vng/none 2>/run/said; [ $? = 2 ] || exit 96
        grep -q '/etc/vng/none is not there: vng keygen -o /etc/vng/none' /run/said || exit 97
        vng init || exit 98
        vng p2s add laptop -o /run/laptop.conf 2>/run/said; [ $? = 2 ] || exit 89
        hint=$(sed -n 's/.* Say it with \\(--endpoint [^ ,]*\\).*/\\1/p' /run/said)
        vng p2s add laptop -o /run/laptop.conf $hint || exit 88
        vng show status 2>/run/said; [ $? = 3 ] || exit 87
        grep -q 'vng run,' /run/said || exit 86
    ";
    let done = on_a_bare_machine(script);
    let (out, err) = (text(&done.stdout), text(&done.stderr));
    assert_eq!(done.status.code(), Some(0), "{out}\n{err}");
}
