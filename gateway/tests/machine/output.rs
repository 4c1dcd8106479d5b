//! Outputs that nobody reads, or that take nothing: no reason for a gateway to end, nor to stop.

use crate::place::{Place, VNG, VPN};
use gateway::api::What;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::fs::{self, File};
use std::io::{PipeReader, Write as _, pipe};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn full() -> Stdio {
    File::options()
        .write(true)
        .open("/dev/full")
        .unwrap()
        .into()
}

/// A pipe that has no room any more, and its reader, which does not read.
fn stuffed() -> (Stdio, PipeReader) {
    let (reader, mut writer) = pipe().unwrap();
    // The size of a pipe (pipe(7)).
    writer.write_all(&vec![b'.'; 65_536]).unwrap();
    (writer.into(), reader)
}

/// A pipe without a reader.
fn closed() -> Stdio {
    pipe().unwrap().1.into()
}

/// The gateway logs a good deal, is asked a question, and ends when it is told to.
fn lives_on(place: &Place, pid: Pid) {
    place.wait_until_served();
    let good = fs::read_to_string(place.file("vng.toml")).unwrap();
    fs::write(place.file("vng.toml"), "[vnet]\nnonsense = 1\n").unwrap();
    for _ in 0..5 {
        kill_process(pid, Signal::HUP).unwrap();
        // Asked twice: what came before is done, or was seen to block it.
        assert!(place.ask(What::Status).is_some());
        assert!(place.ask(What::Counters).is_some());
    }
    fs::write(place.file("vng.toml"), good).unwrap();
}

fn runs_on(name: &str, out: Stdio, err: Stdio) {
    let place = Place::new(VPN, "");
    let mut command = place.command(VNG, &["run", "-c", "vng.toml"]);
    command.stdout(out).stderr(err);
    let running = place.start(command);
    lives_on(&place, running.pid());
    let (status, ..) = running.stop();
    assert_eq!(status, Some(0), "{name}");
}

#[test]
fn a_gateway_lives_on_whatever_becomes_of_its_output() {
    std::thread::scope(|scope| {
        scope.spawn(|| runs_on("a full disk", full(), full()));
        scope.spawn(|| runs_on("no reader", closed(), closed()));
        scope.spawn(|| {
            let ((out, _out), (err, _err)) = (stuffed(), stuffed());
            runs_on("a reader that does not read", out, err);
        });
        scope.spawn(too_long_a_file);
        scope.spawn(no_terminal);
        scope.spawn(a_reader_that_comes_back);
    });
}

/// `ulimit -f`: the kernel sends SIGXFSZ to who writes more.
fn too_long_a_file() {
    let place = Place::new(VPN, "");
    let running = place.shell("ulimit -f 0; exec $VNG run -c vng.toml > out 2> err");
    lives_on(&place, running.pid());
    let (status, ..) = running.stop();
    assert_eq!(status, Some(0), "a file that may not grow");
}

/// The terminal is closed; that it sends SIGHUP is a reload, as is documented.
fn no_terminal() {
    let place = Place::new(VPN, "");
    let mut command = place.command(
        "script",
        &["-qec", "exec $VNG run -c vng.toml", "/dev/null"],
    );
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut terminal = place.start(command);
    place.wait_until_served();
    let stream = UnixStream::connect(place.socket()).unwrap();
    let pid = rustix::net::sockopt::socket_peercred(&stream).unwrap().pid;
    terminal.child.kill().unwrap();
    terminal.child.wait().unwrap();
    lives_on(&place, pid);
    kill_process(pid, Signal::TERM).unwrap();
    let until = Instant::now() + crate::place::PATIENCE;
    while test_kill_process(pid).is_ok() && place.socket().exists() {
        assert!(Instant::now() < until, "it does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What waited meanwhile is written.
fn a_reader_that_comes_back() {
    let place = Place::new(VPN, "");
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(&vec![b'.'; 65_536]).unwrap();
    let mut command = place.command(VNG, &["run", "-c", "vng.toml"]);
    command.stdout(Stdio::null()).stderr(writer);
    let running = place.start(command);
    lives_on(&place, running.pid());
    let read = std::thread::spawn(move || std::io::read_to_string(reader).unwrap());
    let (status, ..) = running.stop();
    let text = read.join().unwrap();
    assert_eq!(status, Some(0));
    assert!(text.contains("reload refused"), "{}", text.len());
    assert!(text.trim_end().ends_with("held=0"), "{}", text.len());
}

/// A log on a terminal has colours, unless it was asked for none.
#[test]
fn the_log_has_colours_only_where_they_are_wanted() {
    // A link whose interface is not there is a line in the log.
    let place = Place::new(&(VPN.to_owned() + crate::start::LINK), "");
    let run = |environment: &[(&str, &str)]| {
        let mut command = place.command(
            "script",
            &["-qec", "$VNG run -c vng.toml 2>&1", "/dev/null"],
        );
        command.env_remove("NO_COLOR").env("TERM", "xterm");
        command.envs(environment.iter().copied());
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let running = place.start(command);
        place.wait_until_served();
        let stream = UnixStream::connect(place.socket()).unwrap();
        let pid = rustix::net::sockopt::socket_peercred(&stream).unwrap().pid;
        drop(stream);
        kill_process(pid, Signal::TERM).unwrap();
        let (_, out, _) = running.end();
        assert!(out.contains("ended"), "{out}");
        out.contains('\x1b')
    };
    assert!(run(&[]));
    assert!(!run(&[("NO_COLOR", "1")]));
    assert!(!run(&[("TERM", "dumb")]));
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}

/// Commands that do their work once: with status 1 and one line where the output takes nothing, quietly where
/// nobody reads it, and never with a panic.
#[test]
fn a_command_says_in_one_line_that_its_output_takes_nothing() {
    let place = Place::new(VPN, "");
    let check = ["check", "-c", "vng.toml", "--skip-key-files"];
    let json = ["check", "-c", "vng.toml", "--skip-key-files", "--json"];
    let routes = ["show", "routes", "-c", "vng.toml"];
    let explain = [
        "explain",
        "-c",
        "vng.toml",
        "--src",
        "10.1.0.4",
        "--dst",
        "192.168.20.1",
    ];
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["show", "--help"],
        &["pubkey", "vpn.key"],
        &check,
        &json,
        &routes,
        &explain,
    ] {
        let ended = output(
            place
                .command(VNG, arguments)
                .stdout(full())
                .stderr(Stdio::piped()),
        );
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {said}");
        let lines: Vec<_> = said
            .lines()
            .filter(|l| l.contains("standard output"))
            .collect();
        assert_eq!(lines.len(), 1, "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");

        let ended = output(
            place
                .command(VNG, arguments)
                .stdout(closed())
                .stderr(Stdio::piped()),
        );
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {said}");
        assert!(
            !said.contains("panicked") && !said.contains("error"),
            "{said}"
        );
    }
    // Nor is an error that nobody can read another error.
    fs::write(place.file("wrong.toml"), "nonsense = 1\n").unwrap();
    for arguments in [
        &["check", "-c", "wrong.toml"][..],
        &["check", "-c", "missing.toml"],
        &["no-such-command"],
        &["run", "-c", "wrong.toml"],
    ] {
        for err in [full(), closed()] {
            let ended = place.command(VNG, arguments).stderr(err).status().unwrap();
            assert_eq!(ended.code(), Some(2), "{arguments:?}");
        }
    }
}
