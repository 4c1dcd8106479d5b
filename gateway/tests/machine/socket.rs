//! The control socket: who may connect, and who keeps whom out.

use crate::place::{Place, VPN};
use gateway::api::Server;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Processor time of a process, clock ticks (proc_pid_stat(5)).
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace();
    fields
        .skip(11)
        .take(2)
        .map(|f| f.parse::<u64>().unwrap())
        .sum()
}

/// While the system has no descriptor for a caller, the thread that accepts used to spin.
#[test]
fn a_caller_without_a_descriptor_costs_no_processor_and_is_served_later() {
    let place = Place::new(VPN, "polling = \"sleep\"");
    let mut running = place.shell("exec $VNG run -c vng.toml");
    running.wait_until_ready();
    assert!(place.is_served());
    let open = fs::read_dir(format!("/proc/{}/fd", running.child.id())).unwrap();
    // What the gateway has set its own to.
    let plenty = getrlimit(Resource::Nofile).maximum;
    let few = Rlimit {
        current: Some(open.count() as u64 - 1),
        maximum: plenty,
    };
    prlimit(Some(running.pid()), Resource::Nofile, few).unwrap();
    // Whoever asked before has gone, and left a descriptor: the first takes it, the second finds none.
    let _callers = [(); 3].map(|()| UnixStream::connect(place.socket()).unwrap());
    let (start, used) = (Instant::now(), ticks(running.child.id()));
    std::thread::sleep(Duration::from_secs(1));
    let elapsed = start.elapsed().as_secs_f64();
    let used = (ticks(running.child.id()) - used) as f64;
    let share = used / rustix::param::clock_ticks_per_second() as f64 / elapsed;
    assert!(share < 0.25, "{:.0} % of a core", share * 100.0);
    let plenty = Rlimit {
        current: plenty,
        maximum: plenty,
    };
    prlimit(Some(running.pid()), Resource::Nofile, plenty).unwrap();
    let served = place.is_served();
    let (status, _, said) = running.stop();
    assert_eq!((status, served), (Some(0), true), "{said}");
}

/// Nothing used to reach a gateway any more whose socket somebody had removed.
#[test]
fn a_socket_that_is_removed_comes_back_and_the_log_says_so() {
    let place = Place::new(VPN, "");
    let mut running = place.shell("exec $VNG run -c vng.toml");
    running.wait_until_ready();
    place.wait_until_served();
    fs::remove_file(place.socket()).unwrap();
    let served = place.is_served();
    let (status, _, said) = running.stop();
    assert_eq!((status, served), (Some(0), true), "{said}");
    assert!(
        said.contains("the control socket was removed by somebody else"),
        "{said}"
    );
    assert!(!place.socket().exists());
}

/// Where the kernel tells nothing, as of a file system that is mounted over the directory.
#[test]
fn a_socket_that_is_out_of_reach_comes_back_with_sighup() {
    let place = Place::new(VPN, "");
    // The mount is this shell's alone, and what it starts.
    let script = r#"
        exec unshare --mount sh -c '
            $VNG run -c vng.toml & gateway=$!
            until [ -S "$PWD/vng.sock" ]; do sleep 0.02; done
            # The socket has a while to be served: SIGHUP before that would end the gateway.
            until $VNG show status -s "$PWD/vng.sock" >/dev/null 2>&1; do sleep 0.02; done
            mount -t tmpfs none "$PWD"
            kill -HUP $gateway
            tries=0
            until [ -S "$PWD/vng.sock" ] || [ $tries -gt 400 ]; do sleep 0.02; tries=$((tries + 1)); done
            $VNG show status -s "$PWD/vng.sock" | head -1
            kill $gateway; wait $gateway'
    "#;
    let (status, out, said) = place.shell(script).end();
    assert_eq!(status, Some(0), "{out}{said}");
    assert!(
        said.contains("the control socket was removed by somebody else"),
        "{out}{said}"
    );
    assert!(out.contains("test"), "{out}{said}");
}

/// Run by the test below, in a process with umask 000.
#[test]
#[ignore = "a part of another test"]
fn binds_again_and_again() {
    let directory = PathBuf::from(std::env::var_os("VNG_TEST_DIRECTORY").unwrap());
    for _ in 0..300 {
        let server = Server::bind(&directory.join("run/vng.sock")).unwrap();
        let mode = fs::metadata(directory.join("run")).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o755);
        drop(server);
    }
}

fn open_sockets(directory: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let files = entries.filter_map(|entry| entry.ok()?.metadata().ok());
    let sockets = files.filter(|file| file.file_type().is_socket());
    let modes = sockets.map(|file| file.mode() & 0o777);
    modes.filter(|mode| mode & 0o077 != 0).collect()
}

#[test]
fn there_is_no_moment_in_which_a_stranger_could_open_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let run = directory.path().join("run");
            let mut seen = Vec::new();
            while !done.load(Ordering::Relaxed) && seen.is_empty() {
                seen = open_sockets(&run);
            }
            seen
        });
        let script = "umask 000; exec \"$0\" --exact socket::binds_again_and_again --ignored";
        let ended = std::process::Command::new("sh")
            .args(["-c", script])
            .arg(program)
            .env("VNG_TEST_DIRECTORY", directory.path())
            .output()
            .unwrap();
        done.store(true, Ordering::Relaxed);
        assert!(ended.status.success(), "{ended:?}");
        let seen = watch.join().unwrap();
        assert!(seen.is_empty(), "modes {seen:?}");
    });
}

/// Of gateways that start at once one has the socket, and the others say why they do not.
#[test]
fn of_two_that_start_at_once_one_has_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vng.sock");
    for _ in 0..50 {
        // What a killed one has left behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let start = std::sync::Barrier::new(2);
        let bind = || {
            start.wait();
            Server::bind(&path)
        };
        let bound = std::thread::scope(|scope| {
            let both = [scope.spawn(bind), scope.spawn(bind)];
            both.map(|one| one.join().unwrap())
        });
        assert_eq!(
            bound.iter().filter(|one| one.is_ok()).count(),
            1,
            "{bound:?}"
        );
        assert!(UnixStream::connect(&path).is_ok());
        drop(bound);
        assert!(!path.exists());
    }
}
