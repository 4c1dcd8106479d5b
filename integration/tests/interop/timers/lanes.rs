//! The same of a tunnel with lanes, each of which has its session, its timers and its owner among the workers. Both
//! ends are vng, since nobody else has lanes; the far one does not know where the near one is.

use super::{FAR, NEAR, QUIET, SECOND};
use crate::lanes;
use crate::stage::{self, Family, PATIENCE, Stage, host_address};
use crate::tap::{Kind, Tap};
use crypto::key::PrivateKey;
use integration::gateway::Gateway;
use integration::host::Host;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Lanes of the tunnel, and workers of each gateway.
pub(super) const LANES: usize = 2;
/// Flows, enough that each lane has some.
const FLOWS: usize = 16;
/// Discard.
const PORT: u16 = 9;

/// Two gateways, and sockets of many flows on the host of each.
struct Case {
    stage: Stage,
    hosts: [Arc<Host>; 2],
    gateways: [Gateway; 2],
    /// Those that send from the near host.
    flows: Vec<UdpSocket>,
    _sinks: [UdpSocket; 2],
}

impl Case {
    /// Sessions of both lanes that the near end began; then nothing happens for a while.
    fn new(stage: &Stage) -> Self {
        let mut stage = stage.beside();
        stage.control = "workers = 2";
        let hosts = stage::hosts();
        let keys = [(); 2].map(|()| PrivateKey::generate().unwrap());
        let side = |n: u8| {
            let at = usize::from(n) - 1;
            let vpn = lanes::table(&stage, n, &keys, Family::V4, LANES, n == 2);
            let mut gateway = stage.gateway(&hosts[at], n, "", &vpn);
            gateway.start().unwrap();
            gateway
        };
        let gateways = [side(1), side(2)];
        // Or the hosts would answer that nobody listens. The far device comes and goes: any address.
        let sinks = [0, 1].map(|at| socket(&hosts[at], PORT));
        let flows = (0..FLOWS).map(|_| socket(&hosts[0], 0)).collect();
        let case = Self {
            stage,
            hosts,
            gateways,
            flows,
            _sinks: sinks,
        };
        let deadline = Instant::now() + 2 * PATIENCE;
        while !case.lanes().iter().all(|lane| lane["has_session"] == true) {
            case.send();
            assert!(Instant::now() < deadline, "{:#?}", case.lanes());
            std::thread::sleep(SECOND / 5);
        }
        std::thread::sleep(QUIET);
        case
    }

    fn lanes(&self) -> Vec<Value> {
        let tunnels = self.stage.show(&self.gateways[0], "tunnels");
        tunnels[0]["lanes"].as_array().unwrap().clone()
    }

    /// A datagram of each flow of the near host.
    fn send(&self) {
        let to = SocketAddr::new(host_address(2, Family::V4), PORT);
        for flow in &self.flows {
            flow.send_to(b"a flow", to).unwrap();
        }
    }
}

fn socket(host: &Host, port: u16) -> UdpSocket {
    let bind = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port));
    let socket = host.run(bind).unwrap().unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Of each lane: when these came for it at a host, counted from its first data there.
fn of_each_lane(began: Instant, data: &Tap, events: &Tap, kind: Kind) -> [Vec<f64>; LANES] {
    [0, 1].map(|lane| {
        let port = |port| port == 51_820 + lane;
        let first = data.since_for(began, Kind::Data, port);
        let first = first
            .first()
            .unwrap_or_else(|| panic!("lane {lane} is not in use"));
        let times = events.since_for(began, kind, port);
        times.iter().map(|time| time - first).collect()
    })
}

/// The far end is another program all of a sudden: of each lane, seconds until data come out that the near end has
/// sent by it.
pub(super) fn restarted(stage: &Stage) -> [f64; LANES] {
    let mut case = Case::new(stage);
    case.gateways[1].stop().unwrap();
    case.gateways[1].start().unwrap();
    let began = Instant::now();
    let before = counts(&case);
    let mut open = [f64::INFINITY; LANES];
    while open.contains(&f64::INFINITY) && began.elapsed() < 60 * SECOND {
        case.send();
        std::thread::sleep(SECOND / 5);
        for (lane, (now, before)) in counts(&case).iter().zip(before).enumerate() {
            if open[lane].is_infinite() && *now > before {
                open[lane] = began.elapsed().as_secs_f64();
            }
        }
    }
    open
}

/// Packets that have come out of each lane at the far end.
fn counts(case: &Case) -> [u64; LANES] {
    let tunnels = case.stage.show(&case.gateways[1], "tunnels");
    [0, 1].map(|lane| {
        tunnels[0]["lanes"][lane]["received_packets"]
            .as_u64()
            .unwrap()
    })
}

/// The far end falls silent: when the near end sends initiations by each lane, counted from the first data of it.
pub(super) fn silent(stage: &Stage) -> [Vec<f64>; LANES] {
    let case = Case::new(stage);
    let pid = case.gateways[1].pid().unwrap();
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let tap = Tap::start(&case.hosts[1], NEAR);
    let began = Instant::now();
    // Once: more would wake the workers, whatever timers they know of.
    case.send();
    std::thread::sleep(27 * SECOND);
    let times = of_each_lane(began, &tap, &tap, Kind::Initiation);
    kill_process(pid, Signal::CONT).unwrap();
    times
}

/// Only the far end sends, a datagram a second of each flow: when the near end says that it hears, by each lane.
pub(super) fn one_way(stage: &Stage) -> [Vec<f64>; LANES] {
    let case = Case::new(stage);
    let flows: Vec<_> = (0..FLOWS).map(|_| socket(&case.hosts[1], 0)).collect();
    let to = SocketAddr::new(host_address(1, Family::V4), PORT);
    let taps = [
        Tap::start(&case.hosts[0], FAR),
        Tap::start(&case.hosts[1], NEAR),
    ];
    let began = Instant::now();
    for _ in 0..32 {
        for flow in &flows {
            flow.send_to(b"one way", to).unwrap();
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    let [near, far] = &taps;
    assert!(near.since(began, Kind::Initiation).is_empty());
    assert!(far.since(began, Kind::Initiation).is_empty());
    of_each_lane(began, near, far, Kind::Keepalive)
}
