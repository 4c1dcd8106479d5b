//! A lab that runs, and questions to it that are asked until the answer is the expected one.

use gateway::api::Request;
use gateway::device::event::Poller;
use gateway::show::view::{Explanation, Query, Status};
use gateway::telemetry::ledger::Sum;
use integration::config::Probing;
use integration::gateway::Gateway;
use integration::host::Host;
use integration::lab::{Lab, LabOptions, ONPREM_HOST, VNET_HOST};
pub(crate) use integration::stage::{PATIENCE, balanced, replace, until};
use integration::stage::{Turn, wait_for_members};
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, ipproto, recvfrom, socket_with,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Protocol number of UDP.
const UDP: u8 = 17;

/// A lab whose gateways run and use ExpressRoute.
pub(crate) struct World {
    pub(crate) lab: Lab,
    _turn: Turn,
}

/// A lab that probes at this pace.
pub(crate) fn options(interval: Duration) -> LabOptions {
    LabOptions {
        program: Some(PathBuf::from(env!("CARGO_BIN_EXE_vng-lab"))),
        probing: Probing {
            interval,
            ..Probing::default()
        },
        hold_down: Duration::from_millis(500),
        ..LabOptions::default()
    }
}

/// A pace that a busy machine does not take for a fault.
pub(crate) fn calm() -> LabOptions {
    options(Duration::from_millis(300))
}

impl World {
    /// Starts it once `change` has been made to the lab: to configuration files, addresses, routes.
    pub(crate) fn start(options: &LabOptions, change: impl FnOnce(&Lab)) -> Self {
        let turn = Turn::take();
        let mut lab = Lab::new(options).unwrap();
        change(&lab);
        lab.start().unwrap();
        let world = Self { lab, _turn: turn };
        world.wait_for_members("er-", "er-");
        for target in ONPREM_HOST {
            let target = address(target);
            assert!(world.host("vnet").reaches(target, PATIENCE).unwrap());
        }
        world.wait_until_whole();
        world
    }

    pub(crate) fn host(&self, name: &str) -> &Host {
        self.lab.host(name).unwrap()
    }

    /// Waits until every path of gateway and edge is in use or could be: none waits out its hold-down
    /// because a busy machine was late with its probes. All of them have probes, so none that is idle has
    /// shown yet that it carries anything.
    pub(crate) fn wait_until_whole(&self) {
        until("both links and both tunnels are up", || {
            let paths = [&self.lab.gateway, &self.lab.edge].map(|gateway| status(gateway).paths);
            let is_whole = |state: &str| matches!(state, "up" | "degraded");
            let all = paths.iter().flatten().all(|path| is_whole(&path.state));
            all.then_some(()).ok_or(paths)
        });
    }

    /// Waits until gateway and edge send over members whose names begin so.
    pub(crate) fn wait_for_members(&self, near: &str, far: &str) {
        wait_for_members(&self.lab, near, far);
    }

    /// Asserts that every gateway's books balance to the packet. Probes go on while they are read, so
    /// they are read until no packet is on its way between two threads.
    pub(crate) fn assert_balance(&self) {
        for gateway in self.lab.gateways() {
            balanced(gateway);
        }
    }

    /// Stops the gateways, all of which must end cleanly.
    pub(crate) fn stop(mut self) {
        self.assert_balance();
        self.lab.stop().unwrap();
    }
}

/// The hosts that talk: in the virtual network, and on premises.
pub(crate) fn ends() -> (IpAddr, IpAddr) {
    (address(VNET_HOST[0]), address(ONPREM_HOST[0]))
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn status(gateway: &Gateway) -> Status {
    gateway.control().status().unwrap()
}

/// A port or a drop reason of a ledger; what has not been counted is zero.
pub(crate) fn of(sums: &BTreeMap<String, Sum>, name: &str) -> Sum {
    sums.get(name).copied().unwrap_or_default()
}

/// Packets that a gateway has dropped for a reason.
pub(crate) fn dropped(gateway: &Gateway, reason: &str) -> u64 {
    of(&balanced(gateway).totals.dropped, reason).packets
}

/// A UDP packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagram {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    /// Bytes of payload.
    pub(crate) payload: usize,
}

impl Datagram {
    pub(crate) fn new(source: (&str, u16), destination: (&str, u16)) -> Self {
        let end = |(text, port)| SocketAddr::new(address(text), port);
        Self {
            source: end(source),
            destination: end(destination),
            payload: 32,
        }
    }

    /// Bytes with the IP header.
    pub(crate) fn len(&self) -> u64 {
        let headers = if self.source.is_ipv4() { 28 } else { 48 };
        headers + self.payload as u64
    }

    pub(crate) fn send(&self, host: &Host) {
        let sent = host.run(|| {
            UdpSocket::bind(self.source)?.send_to(&vec![0x5a; self.payload], self.destination)
        });
        assert_eq!(sent.unwrap().unwrap(), self.payload, "{self:?}");
    }

    /// What `vng explain --json` prints about it.
    pub(crate) fn explain_by_command(&self, gateway: &Gateway, from: &str) -> Explanation {
        let [source, destination] = [self.source, self.destination];
        let mut command = Command::new(env!("CARGO_BIN_EXE_vng-lab"));
        command
            .arg0("vng")
            .args(["explain", "--json", "--from", from]);
        command.arg("--socket").arg(gateway.socket());
        command.args(["--src", &source.ip().to_string()]);
        command.args(["--dst", &destination.ip().to_string()]);
        command.args(["--protocol", "udp", "--sport", &source.port().to_string()]);
        command.args(["--dport", &destination.port().to_string()]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {said}", output.status);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What the gateway says it would do with it, asked without a process of its own.
    pub(crate) fn explain(&self, gateway: &Gateway, from: &str) -> Explanation {
        let query = Query {
            from: from.into(),
            source: self.source.ip(),
            destination: self.destination.ip(),
            protocol: UDP,
            source_port: self.source.port(),
            destination_port: self.destination.port(),
            icmp_type: None,
            dscp: 0,
        };
        let request = Request::Explain { query };
        gateway.control().ask(&request).unwrap()
    }
}

/// An ICMP error about a UDP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IcmpError {
    pub(crate) source: IpAddr,
    pub(crate) kind: u8,
    pub(crate) code: u8,
}

/// What ICMP tells a host.
pub(crate) struct IcmpListener {
    socket: OwnedFd,
    poller: Poller,
    v4: bool,
}

impl IcmpListener {
    pub(crate) fn new(host: &Host, v4: bool) -> Self {
        let (family, protocol) = if v4 {
            (AddressFamily::INET, ipproto::ICMP)
        } else {
            (AddressFamily::INET6, ipproto::ICMPV6)
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let open = || socket_with(family, SocketType::RAW, flags, Some(protocol));
        let socket = host.run(open).unwrap().unwrap();
        let poller = Poller::new().unwrap();
        poller.add(&socket, 0).unwrap();
        Self { socket, poller, v4 }
    }

    /// The next error that quotes this packet; what comes before it is skipped.
    pub(crate) fn error_about(&mut self, packet: &Datagram) -> IcmpError {
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = [0; 2048];
        loop {
            match recvfrom(&self.socket, &mut buffer, RecvFlags::empty()) {
                Ok((length, _, source)) => {
                    let source = SocketAddr::try_from(source.unwrap()).unwrap().ip();
                    if let Some(error) = self.read(source, &buffer[..length], packet) {
                        return error;
                    }
                }
                Err(rustix::io::Errno::AGAIN) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    assert!(!left.is_zero(), "no ICMP error about {packet:?}");
                    self.poller.wait(Some(left)).unwrap().for_each(drop);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// A raw IPv4 socket gives the outer IP header too (raw(7)), an IPv6 one does not. Behind eight bytes
    /// of ICMP stands the packet in question, whose headers here have no options.
    fn read(&self, source: IpAddr, bytes: &[u8], packet: &Datagram) -> Option<IcmpError> {
        let (outer, inner) = if self.v4 { (20, 20) } else { (0, 40) };
        let message = bytes.get(outer..)?;
        let ports = message.get(8 + inner..8 + inner + 4)?;
        let sent = [
            packet.source.port().to_be_bytes(),
            packet.destination.port().to_be_bytes(),
        ];
        (ports == sent.as_flattened()).then_some(IcmpError {
            source,
            kind: message[0],
            code: message[1],
        })
    }
}
