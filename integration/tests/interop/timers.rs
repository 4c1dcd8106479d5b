//! WireGuard's timers (whitepaper, section 6) through the whole program: what they are armed by must reach the
//! worker that sleeps on them. Each scenario runs twice against the same far end, a wireguard-go: once with vng
//! at the near end, and once with wireguard-go there. All run at the same time, since they mostly wait. What a
//! site's tunnel does, those of point-to-site clients, over circuits and with lanes ([`lanes`]) do as well: they are
//! held to the same reference.

mod lanes;

use crate::peer::{Kind as Program, start_end};
use crate::program::{self, Background, announce, present, word};
use crate::stage::{self, Stage, host_address};
use crate::tap::{Kind, Tap};
use crypto::key::PrivateKey;
use integration::gateway::Gateway;
use integration::host::Host;
use integration::pair;
use integration::peer::End;
use integration::process::cpu_time;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::Permissions;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
const NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The same of a tunnel over a circuit: the gateway's address in the virtual network, and one behind the circuit.
const NEAR_WITHIN: Ipv4Addr = Ipv4Addr::new(10, 1, 255, 4);
const FAR_WITHIN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// Where the far end is reached.
const AT: &str = "192.0.2.2:51820";
/// Every timer that a handshake and its first packets arm has passed after that.
const QUIET: Duration = Duration::from_secs(20);

/// Who stands at the near end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Vng,
    /// vng, and the far end is a point-to-site client.
    VngOfClient,
    /// vng, with the tunnel over a circuit.
    VngOverCircuit,
    /// The reference.
    WireguardGo,
}

impl Subject {
    /// Outer addresses of the near and the far end.
    fn outer(self) -> [Ipv4Addr; 2] {
        match self {
            Self::VngOverCircuit => [NEAR_WITHIN, FAR_WITHIN],
            _ => [NEAR, FAR],
        }
    }
}

/// A near end and a far end that know each other.
struct Case<'a> {
    stage: &'a Stage,
    name: String,
    subject: Subject,
    hosts: [Arc<Host>; 2],
    keys: [PrivateKey; 2],
    /// It runs until it is dropped.
    near: Option<Near>,
    far: Option<Background>,
}

enum Near {
    Vng(Gateway),
    Other { _process: Background },
}

impl<'a> Case<'a> {
    /// The near end, which knows this address of the far end or none. `more`: lines of vng's `[[vpn.site]]`.
    fn new(stage: &'a Stage, name: &str, subject: Subject, far: &str, more: &str) -> Self {
        let keys = [(); 2].map(|()| PrivateKey::generate().unwrap());
        let mut case = Self {
            stage,
            name: format!("{name}-{subject:?}"),
            subject,
            hosts: stage::hosts(),
            keys,
            near: None,
            far: None,
        };
        case.near = Some(match subject {
            Subject::Vng => Near::Vng(case.gateway("", &case.site(far, more))),
            Subject::VngOfClient => Near::Vng(case.gateway("", &case.client())),
            Subject::VngOverCircuit => {
                case.lay_circuit();
                let far = format!("{FAR_WITHIN}:51820");
                let site = case.site(&far, "over = \"circuit-2\"\n");
                Near::Vng(case.gateway(CIRCUIT, &site))
            }
            Subject::WireguardGo => Near::Other {
                _process: case.wireguard_go(1, far),
            },
        });
        case
    }

    /// vng with these tables in front of `[vpn]` and behind it.
    fn gateway(&self, front: &str, behind: &str) -> Gateway {
        let key = self.stage.key_file(&self.name, &self.keys[0]);
        let text = format!("{front}{}{behind}", pair::vpn(&key, ""));
        let near = &self.hosts[0];
        let mut gateway = self.stage.named_gateway(near, 1, &self.name, "", &text);
        gateway.start().unwrap();
        gateway
    }

    /// The far end as a site at this address or at none, with more lines.
    fn site(&self, far: &str, more: &str) -> String {
        let endpoint = match far {
            "" => String::new(),
            far => format!("endpoint = \"{far}\"\n"),
        };
        format!(
            "[[vpn.site]]\nname = \"far\"\npublic_key = \"{}\"\n{endpoint}\
             prefixes = [\"10.2.0.0/16\", \"fd00:2::/48\"]\n{more}",
            self.keys[1].public_key()
        )
    }

    /// The far end as a client.
    fn client(&self) -> String {
        format!(
            "[vpn.point_to_site]\naddress_pool = [\"10.2.0.0/24\", \"fd00:2::/64\"]\n\n\
             [[vpn.point_to_site.client]]\nname = \"far\"\npublic_key = \"{}\"\n\
             address = [\"10.2.0.4\", \"fd00:2::4\"]\n",
            self.keys[1].public_key()
        )
    }

    /// The link of [`CIRCUIT`], with the far end's kernel behind it.
    fn lay_circuit(&self) {
        stage::lay_link(&self.hosts, 1_500);
        let [_, far] = &self.hosts;
        far.address("eth1", &["172.16.0.2/30"]).unwrap();
        far.address("lo", &[&format!("{FAR_WITHIN}/32")]).unwrap();
        far.route(&format!("{NEAR_WITHIN}/32"), "172.16.0.1")
            .unwrap();
    }

    /// Side 1 or 2.
    fn wireguard_go(&self, side: u8, endpoint: &str) -> Background {
        let (own, other) = (usize::from(side) - 1, 2 - usize::from(side));
        // What is inside the tunnel: not the gateway's own address, where the tunnel itself leads to that.
        let within = self.subject == Subject::VngOverCircuit;
        let narrow = ["10.1.0.0/24", "fd00:1::/64"];
        let public = self.keys[other].public_key();
        let mut end = End {
            name: &format!("{}-{side}", self.name),
            ..pair::end(side, &self.keys[own], &public, endpoint)
        };
        if within {
            end.prefixes = narrow;
        }
        start_end(self.stage, &self.hosts[own], Program::WireguardGo, &end)
    }

    /// Starts the far end, which calls by itself only if it is a client and has something to send.
    fn start_far(&mut self) {
        let endpoint = if self.subject == Subject::VngOfClient {
            "192.0.2.1:51820"
        } else {
            ""
        };
        self.far = Some(self.wireguard_go(2, endpoint));
    }

    /// Starts the far end, and brings a session about that the near end began, or a client; then nothing happens for
    /// a while.
    fn connect(&mut self) {
        self.start_far();
        let [near, far] = &self.hosts;
        let (from, to) = if self.subject == Subject::VngOfClient {
            (far, host_address(1, stage::Family::V4))
        } else {
            (near, there())
        };
        let log = || match &self.near {
            Some(Near::Vng(gateway)) => gateway.log(),
            _ => String::new(),
        };
        assert!(
            from.reaches(to, stage::PATIENCE).unwrap(),
            "{}: {}",
            self.name,
            log()
        );
        std::thread::sleep(QUIET);
    }

    /// One request each `pace` for so long, whether they are answered or not; what the near end sends.
    fn ask(&self, length: Duration, pace: Duration) {
        let end = Instant::now() + length;
        while Instant::now() < end {
            let began = Instant::now();
            let _ = self.hosts[0].ping(there(), 1, 8, pace);
            std::thread::sleep(pace.saturating_sub(began.elapsed()));
        }
    }

    fn tap(&self, at: usize) -> Tap {
        Tap::start(&self.hosts[at], self.subject.outer()[1 - at])
    }

    /// Processor time of vng while `work` runs, as a share of one core.
    fn share(&self, work: impl FnOnce()) -> f64 {
        let Some(Near::Vng(gateway)) = &self.near else {
            work();
            return 0.0;
        };
        let began = Instant::now();
        let spent = || cpu_time(gateway.pid().unwrap()).unwrap();
        let before = spent();
        work();
        let spent = spent().saturating_sub(before);
        spent.as_secs_f64() / began.elapsed().as_secs_f64()
    }
}

/// The circuit of a tunnel that goes over one.
const CIRCUIT: &str = r#"[expressroute]
sku = "Unlimited"

[[expressroute.circuit]]
name     = "circuit-2"
model    = "point-to-point"
prefixes = ["198.51.100.0/24"]
probe    = false   # each would wake the worker

  [[expressroute.circuit.link]]
  name      = "primary"
  interface = "eth1"
  address   = ["172.16.0.1/30"]
  neighbor  = ["172.16.0.2"]

"#;

fn there() -> IpAddr {
    host_address(2, stage::Family::V4)
}

/// The far end is another program all of a sudden, which knows no session and no address to call: seconds until
/// pings are answered again.
fn restarted(stage: &Stage, subject: Subject) -> f64 {
    let mut case = Case::new(stage, "restarted", subject, AT, "");
    case.connect();
    case.far = None;
    case.start_far();
    let began = Instant::now();
    while case.hosts[0].ping(there(), 1, 8, SECOND).unwrap().received == 0 {
        if began.elapsed() > 60 * SECOND {
            return f64::INFINITY;
        }
    }
    began.elapsed().as_secs_f64()
}

/// The far end falls silent: when the near end sends initiations, counted from its first data; and how much of a
/// core vng takes meanwhile.
fn silent(stage: &Stage, subject: Subject) -> (Vec<f64>, f64) {
    let mut case = Case::new(stage, "silent", subject, AT, "");
    case.connect();
    let pid = case.far.as_ref().unwrap().pid();
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let tap = case.tap(1);
    let began = Instant::now();
    // What comes wakes the worker too, and does what a timer that it does not know of should have done: so it is one
    // packet, but where its processor time is measured.
    let pace = match subject {
        Subject::Vng | Subject::WireguardGo => SECOND / 5,
        Subject::VngOfClient | Subject::VngOverCircuit => 27 * SECOND,
    };
    let share = case.share(|| case.ask(27 * SECOND, pace));
    let first = tap.since(began, Kind::Data)[0];
    let times = tap.since(began, Kind::Initiation).into_iter();
    (times.map(|time| time - first).collect(), share)
}

/// Only the far end sends, a datagram a second: when the near end says that it hears, counted from the first of
/// them; and how many handshakes either end began meanwhile.
fn one_way(stage: &Stage, subject: Subject) -> (Vec<f64>, usize) {
    let mut case = Case::new(stage, "one-way", subject, AT, "");
    let [_, far] = &case.hosts.clone();
    let here = host_address(1, stage::Family::V4);
    // Or the near host would answer that nobody listens.
    let bind = || UdpSocket::bind((here, 9));
    case.connect();
    let _sink = case.hosts[0].run(bind).unwrap().unwrap();
    let source = far.run(|| UdpSocket::bind((there(), 0))).unwrap().unwrap();
    let taps = [case.tap(0), case.tap(1)];
    let began = Instant::now();
    for _ in 0..32 {
        source.send_to(b"one way", (here, 9)).unwrap();
        std::thread::sleep(SECOND);
    }
    let first = taps[0].since(began, Kind::Data)[0];
    let times = taps[1].since(began, Kind::Keepalive).into_iter();
    let times = times.map(|time| time - first).collect();
    let handshakes = taps
        .iter()
        .map(|tap| tap.since(began, Kind::Initiation).len());
    (times, handshakes.sum())
}

/// There is no far end, and packets for it all the time, with or without probes: how much of a core vng takes, and
/// what it says of the path in the end.
fn dead(stage: &Stage, probe: &str) -> (f64, String) {
    let name = if probe.is_empty() { "dead" } else { "probed" };
    let case = Case::new(stage, name, Subject::Vng, AT, probe);
    let share = case.share(|| case.ask(20 * SECOND, SECOND / 5));
    let Some(Near::Vng(gateway)) = &case.near else {
        unreachable!("that is the subject");
    };
    let path = &stage.show(gateway, "status")["paths"][0];
    (share, format!("{} {}", path["state"], path["reason"]))
}

/// A program that tells every other one the wall clock with an error, in seconds, that stands in a file.
const WRONG_CLOCK: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *time) {
    int failed = syscall(SYS_clock_gettime, id, time);
    const char *name = getenv("CLOCK_ERROR");
    FILE *file = !failed && id == CLOCK_REALTIME && name ? fopen(name, "r") : NULL;
    long error = 0;
    if (file) {
        if (fscanf(file, "%ld", &error) == 1) time->tv_sec += error;
        fclose(file);
    }
    return failed;
}
"#;

/// The gateway's machine comes up three years behind, after the far end has heard the right time; then the clock is
/// set: seconds until pings are answered.
fn clock_set(stage: &Stage) -> f64 {
    let mut case = Case::new(stage, "clock", Subject::Vng, AT, "");
    let scratch = &stage.scratch;
    let source = scratch.write("clock.c", WRONG_CLOCK).unwrap();
    let (library, error) = (
        scratch.path().join("clock.so"),
        scratch.path().join("clock.error"),
    );
    let words = [
        "cc",
        "-shared",
        "-fPIC",
        "-o",
        word(&library),
        word(&source),
    ];
    let built = program::run(stage, &case.hosts[0], 60 * SECOND, &words);
    assert!(built.success, "{built:?}");
    // And the far end has nothing to say that it would call for.
    case.connect();
    let near = Arc::clone(&case.hosts[0]);
    let Some(Near::Vng(mut gateway)) = case.near.take() else {
        unreachable!("that is the subject");
    };
    gateway.stop().unwrap();

    let set = |seconds: i64| scratch.write("clock.error", &seconds.to_string()).unwrap();
    set(-3 * 365 * 86_400);
    let script = format!(
        "#!/bin/sh\nLD_PRELOAD={} CLOCK_ERROR={} exec {} \"$@\"\n",
        word(&library),
        word(&error),
        env!("CARGO_BIN_EXE_vng-lab"),
    );
    let script = scratch.write("clock.sh", &script).unwrap();
    std::fs::set_permissions(&script, Permissions::from_mode(0o700)).unwrap();
    gateway = gateway.started_by(script);
    gateway.start().unwrap();
    let patience = 7 * SECOND;
    assert!(
        !near.reaches(there(), patience).unwrap(),
        "an old time was taken"
    );
    set(0);
    let began = Instant::now();
    if near.reaches(there(), 30 * SECOND).unwrap() {
        began.elapsed().as_secs_f64()
    } else {
        f64::INFINITY
    }
}

/// The near end does not know where the far end is, which calls: seconds until its first TCP connection is open. If
/// the answer to the first segment found no path, it would be sent again after a second.
fn called(stage: &Stage, subject: Subject) -> f64 {
    let mut case = Case::new(stage, "called", subject, "", "");
    let here = SocketAddr::new(host_address(1, stage::Family::V4), 7);
    let listen = || TcpListener::bind(here);
    let _listener = case.hosts[0].run(listen).unwrap().unwrap();
    case.far = Some(case.wireguard_go(2, "192.0.2.1:51820"));
    let connect = || {
        let began = Instant::now();
        TcpStream::connect_timeout(&here, 10 * SECOND).map(|_| began.elapsed().as_secs_f64())
    };
    case.hosts[1].run(connect).unwrap().unwrap()
}

#[test]
fn timers_that_data_arms_reach_the_worker_as_in_wireguard_go() {
    if !present(&Program::WireguardGo.programs()) {
        return;
    }
    let stage = &Stage::new();
    let both = [Subject::Vng, Subject::WireguardGo];
    let more = [Subject::VngOfClient, Subject::VngOverCircuit];
    std::thread::scope(|scope| {
        let others = more.map(|subject| {
            (
                subject,
                scope.spawn(move || restarted(stage, subject)),
                scope.spawn(move || silent(stage, subject)),
                scope.spawn(move || one_way(stage, subject)),
            )
        });
        let lanes = (
            scope.spawn(|| lanes::restarted(stage)),
            scope.spawn(|| lanes::silent(stage)),
            scope.spawn(|| lanes::one_way(stage)),
        );
        let restarted = both.map(|subject| scope.spawn(move || restarted(stage, subject)));
        let silent = both.map(|subject| scope.spawn(move || silent(stage, subject)));
        let one_way = both.map(|subject| scope.spawn(move || one_way(stage, subject)));
        let called = both.map(|subject| scope.spawn(move || called(stage, subject)));
        let probe = "probe = { target = \"10.2.0.4\", interval = \"300ms\", fail = 3, pass = 1 }\n";
        let dead = ["", probe].map(|probe| scope.spawn(move || dead(stage, probe)));
        let clock = present(&["cc"]).then(|| scope.spawn(move || clock_set(stage)));

        let [ours, theirs] = restarted.map(|case| case.join().unwrap());
        announce(&format!(
            "open after {ours:.1} s, wireguard-go {theirs:.1} s"
        ));
        let [(calls, share), (their_calls, _)] = silent.map(|case| case.join().unwrap());
        announce(&format!(
            "initiations {calls:.1?}, wireguard-go {their_calls:.1?}"
        ));
        let [(answers, handshakes), (their_answers, theirs_made)] =
            one_way.map(|case| case.join().unwrap());
        announce(&format!(
            "keepalives {answers:.1?} and {handshakes} handshakes, \
             wireguard-go {their_answers:.1?} and {theirs_made}"
        ));
        let [connected, theirs_connected] = called.map(|case| case.join().unwrap());
        announce(&format!(
            "connected after {connected:.3} s, wireguard-go {theirs_connected:.3} s"
        ));
        let [(dead, state), (probed, _)] = dead.map(|case| case.join().unwrap());
        announce(&format!(
            "of a core: {:.1} % with a silent far end, {:.1} % with a dead one, {:.1} % with probes; {state}",
            share * 100.0,
            dead * 100.0,
            probed * 100.0
        ));
        if let Some(clock) = clock {
            let open = clock.join().unwrap();
            announce(&format!("open {open:.1} s after the clock was set"));
            assert!(open < 15.0, "{open} s");
        }

        let others = others.map(|(subject, restarted, silent, one_way)| {
            let (open, (calls, _), (answers, made)) = (
                restarted.join().unwrap(),
                silent.join().unwrap(),
                one_way.join().unwrap(),
            );
            announce(&format!(
                "{subject:?}: open after {open:.1} s, initiations {calls:.1?}, keepalives {answers:.1?} and {made} handshakes"
            ));
            (subject, open, calls, answers, made)
        });
        let lanes = (
            lanes.0.join().unwrap(),
            lanes.1.join().unwrap(),
            lanes.2.join().unwrap(),
        );
        announce(&format!(
            "of each lane: open after {:.1?} s, initiations {:.1?}, keepalives {:.1?}",
            lanes.0, lanes.1, lanes.2
        ));
        for (subject, open, calls, answers, made) in &others {
            println!("{subject:?}");
            assert!(*open < 1.5 * theirs + 3.0, "{open} s");
            assert_alike(calls, &their_calls, 3);
            assert_alike(answers, &their_answers, 2);
            assert_eq!(*made, 0);
        }
        for lane in 0..lanes::LANES {
            println!("lane {lane}");
            assert!(lanes.0[lane] < 1.5 * theirs + 3.0, "{} s", lanes.0[lane]);
            assert_alike(&lanes.1[lane], &their_calls, 3);
            assert_alike(&lanes.2[lane], &their_answers, 2);
        }

        assert!(ours < 1.5 * theirs + 3.0, "{ours} s");
        assert!(connected < 0.9 + theirs_connected, "{connected} s");
        assert_alike(&calls, &their_calls, 3);
        assert_alike(&answers, &their_answers, 2);
        assert_eq!((handshakes, theirs_made), (0, 0));
        // 1 % is the promise; the rest is a machine that is busy with other things.
        assert!(share < 0.03, "{share}");
        assert!(dead < 0.03 && probed < 0.03, "{dead} {probed}");
        assert_eq!(state, "\"down\" \"handshake_failed\"");
    });
}

/// At least so many, and each about when the reference's came.
fn assert_alike(ours: &[f64], theirs: &[f64], least: usize) {
    let case = format!("{ours:?} beside {theirs:?}");
    assert!(
        ours.len() >= least && ours.len().abs_diff(theirs.len()) <= 1,
        "{case}"
    );
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert!((ours - theirs).abs() < 2.5, "{case}");
    }
}
