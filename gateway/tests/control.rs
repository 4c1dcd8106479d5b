//! The control thread over a real wire: `near` has the gateway's end of a veth, `far` the neighbour,
//! which is the kernel's own stack, or where frames are tagged another gateway.
//!
//! ```text
//!   near                                       far
//!   control thread, small worker               kernel, or control thread and small worker
//!   172.16.0.2, fd00:16::2  a0 ---------- b0  172.16.0.1, fd00:16::1
//! ```
//! Needs CAP_SYS_ADMIN and CAP_NET_ADMIN for the namespaces.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use gateway::control::neighbor::entry::NeighborState;
use gateway::control::path::link::LinkSetup;
use gateway::control::path::watch::{PathSetup, ProbeSetup};
use gateway::control::published::{HealthView, PathEvent};
use gateway::control::run::{ControlHandle, ControlSetup, Effects, WatchSetup, run};
use gateway::device::event::Poller;
use gateway::device::filter;
use gateway::device::link::{LinkOptions, LinkSocket, MAX_FRAME};
use gateway::device::namespace::Namespace;
use gateway::device::netlink::{Netlink, VethEnd};
use gateway::device::offload::Offload;
use gateway::device::vlan::{SERVICE_TAG, Tags};
use gateway::pipeline::checksum;
use gateway::telemetry::ledger::{Ledger, Port, Totals};
use gateway::worker::bell::Bell;
use gateway::worker::control_port::{ControlPort, LinkFacts, LinkWord, NeighborWord, ToHost};
use gateway::worker::ethernet::Framing;
use ipnet::IpNet;
use routing::health::{Interface, Usability};
use routing::packet::Version;
use routing::path::{Ingress, PathId, PathKind};
use routing::probe::ProbeSettings;
use routing::reason::DropReason;
use std::fs;
use std::io::{ErrorKind, IoSlice};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const PATH: PathId = PathId(0);
const NEAR: [&str; 2] = ["172.16.0.2/30", "fd00:16::2/126"];
const FAR: [&str; 2] = ["172.16.0.1/30", "fd00:16::1/126"];
/// No event takes so long unless it never comes.
const PATIENCE: Duration = Duration::from_secs(20);

fn nets(texts: [&str; 2]) -> [IpNet; 2] {
    texts.map(|text| text.parse().unwrap())
}

/// One end of the wire as a gateway.
struct End<'a> {
    space: &'a Namespace,
    interface: &'static str,
    mac: [u8; 6],
    own: [&'static str; 2],
    neighbors: [&'static str; 2],
    tags: Tags,
}

/// The two namespaces and the wire between them.
struct Lab {
    near: Namespace,
    far: Namespace,
    near_link: Netlink,
    far_link: Netlink,
}

impl Lab {
    fn new() -> Self {
        let (near, far) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        far.run(|| {
            // Addresses are good at once, and stay through a link that is down.
            for (name, value) in [("accept_dad", "0"), ("keep_addr_on_down", "1")] {
                let path = format!("/proc/sys/net/ipv6/conf/default/{name}");
                fs::write(path, value).unwrap();
            }
        })
        .unwrap();
        let mut lab = Self {
            near_link: near.run(Netlink::open).unwrap().unwrap(),
            far_link: far.run(Netlink::open).unwrap().unwrap(),
            near,
            far,
        };
        lab.plug();
        lab
    }

    /// Lays the wire and gives the far end its addresses.
    fn plug(&mut self) {
        let ends = (VethEnd::here("a0"), VethEnd::within("b0", self.far.as_fd()));
        self.near_link.add_veth(ends.0, ends.1).unwrap();
        self.far_link.set_up("b0", true).unwrap();
        for net in nets(FAR) {
            self.far_link.add_address("b0", net).unwrap();
        }
        self.near_link.set_up("a0", true).unwrap();
    }

    fn near_end(&self, tags: Tags) -> End<'_> {
        End {
            space: &self.near,
            interface: "a0",
            mac: [2, 0, 0, 0, 0, 0x16],
            own: NEAR,
            neighbors: FAR,
            tags,
        }
    }

    fn far_end(&self, tags: Tags) -> End<'_> {
        End {
            space: &self.far,
            interface: "b0",
            mac: [2, 0, 0, 0, 0, 0x17],
            own: FAR,
            neighbors: NEAR,
            tags,
        }
    }

    /// What the far host hears from a closed UDP port and a closed TCP port at `address`.
    fn knock(&self, address: IpAddr) -> [ErrorKind; 2] {
        let to = SocketAddr::new(address, 9);
        self.far
            .run(|| {
                let any = if address.is_ipv4() {
                    "0.0.0.0:0"
                } else {
                    "[::]:0"
                };
                let udp = UdpSocket::bind(any).unwrap();
                udp.set_read_timeout(Some(PATIENCE)).unwrap();
                udp.connect(to).unwrap();
                udp.send(b"anybody?").unwrap();
                let refused = udp.recv(&mut [0; 8]).unwrap_err().kind();
                let reset = TcpStream::connect_timeout(&to, PATIENCE);
                [refused, reset.unwrap_err().kind()]
            })
            .unwrap()
    }
}

/// What control did.
enum Did {
    Usability(Vec<Usability>),
    Link(LinkFacts),
}

struct Tell {
    test: Sender<Did>,
}

impl Effects for Tell {
    fn usability(&mut self, usability: &[Usability]) -> usize {
        let _ = self.test.send(Did::Usability(usability.to_vec()));
        1
    }

    fn link(&mut self, _: PathId, facts: LinkFacts) {
        let _ = self.test.send(Did::Link(facts));
    }
}

/// A gateway of one link: the control thread and a worker that does no more than hand packets over.
struct Gateway {
    handle: Arc<ControlHandle>,
    did: Receiver<Did>,
    ledgers: [Arc<Ledger>; 2],
    setup: WatchSetup,
    threads: [JoinHandle<()>; 2],
    port: Arc<ControlPort>,
    stop: Arc<AtomicBool>,
}

impl Gateway {
    fn start(end: &End<'_>, probe: &str) -> Self {
        let handle = Arc::new(ControlHandle::new().unwrap());
        let port = Arc::new(ControlPort::new(Arc::new(Bell::new().unwrap())));
        let ledgers = [(); 2].map(|()| Arc::new(Ledger::new(4)));
        let neighbors =
            nets(end.neighbors).map(|net| (net.addr(), Arc::new(NeighborWord::default())));
        let words = neighbors.clone().map(|(_, word)| word);
        let word = Arc::new(LinkWord::default());
        let setup = WatchSetup {
            hold_down: Duration::from_millis(300),
            addresses: vec!["10.1.255.4".parse().unwrap()],
            paths: vec![PathSetup {
                path: PATH,
                name: "er/primary".into(),
                kind: PathKind::ExpressRoute,
                worker: 0,
                link: Some(LinkSetup {
                    interface: end.interface.into(),
                    tags: end.tags,
                    mac: Some(end.mac),
                    address: nets(end.own).to_vec(),
                    neighbors: neighbors.to_vec(),
                    neighbor_mac: Vec::new(),
                    word: Arc::clone(&word),
                }),
                tunnel: None,
                carriers: Vec::new(),
                probe: Some(ProbeSetup {
                    target: Some(probe.parse().unwrap()),
                    settings: ProbeSettings {
                        interval: Duration::from_millis(100),
                        fail: 5,
                        pass: 2,
                    },
                }),
            }],
        };
        let (tell_test, did) = channel();
        let control = ControlSetup {
            started: Instant::now(),
            watch: setup.clone(),
            ports: vec![Arc::clone(&port)],
            ledger: Arc::clone(&ledgers[0]),
            effects: Box::new(Tell { test: tell_test }),
            handle: Arc::clone(&handle),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            stop: Arc::clone(&stop),
            link: word,
            port: Arc::clone(&port),
            control: Arc::clone(&handle),
            ledger: Arc::clone(&ledgers[1]),
            interface: end.interface,
            framing: Framing::new(end.tags, end.mac),
            words,
        };
        let [for_control, for_worker] = [(); 2].map(|()| end.space.try_clone().unwrap());
        let threads = [
            thread::spawn(move || {
                for_control.enter().unwrap();
                run(control).unwrap();
            }),
            thread::spawn(move || {
                for_worker.enter().unwrap();
                worker.run();
            }),
        ];
        Self {
            handle,
            did,
            ledgers,
            setup,
            threads,
            port,
            stop,
        }
    }

    /// Waits until the path is this usable.
    fn until(&self, wanted: Usability) {
        self.until_did(|did| matches!(did, Did::Usability(all) if all == &[wanted]));
    }

    fn until_did(&self, wanted: impl Fn(&Did) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.did.recv_timeout(left) {
                Ok(did) if wanted(&did) => return,
                Ok(_) => {}
                Err(error) => panic!("{error}: {:#?}", self.handle.published),
            }
        }
    }

    /// Waits until the last event says why the path is down: it is told after the fact.
    fn until_reason(&self, wanted: &str) {
        self.until(Usability::None);
        let end = Instant::now() + PATIENCE;
        while self.handle.published.events().last().and_then(|e| e.reason) != Some(wanted) {
            assert!(Instant::now() < end, "{:#?}", self.handle.published);
            thread::yield_now();
        }
    }

    /// The view once the path is shown up.
    fn view(&self) -> Arc<HealthView> {
        self.until(Usability::Full);
        let end = Instant::now() + PATIENCE;
        loop {
            let view = self.handle.published.view();
            if view
                .paths
                .first()
                .is_some_and(|p| p.usability == Usability::Full)
            {
                return view;
            }
            assert!(Instant::now() < end, "{view:#?}");
            thread::yield_now();
        }
    }

    /// Stops it, and holds its books to account: packets that it has made itself.
    fn stop(self) -> u64 {
        self.handle.stop();
        let [control, worker] = self.threads;
        control.join().unwrap();
        self.stop.store(true, Ordering::Release);
        self.port.bell.ring();
        worker.join().unwrap();
        let names = ["vnet", "local", "underlay", "er"].map(str::to_owned);
        let totals = Totals::of(self.ledgers.iter().map(Arc::as_ref), &names);
        assert_eq!((totals.imbalance(), totals.held), (0, 0), "{totals:?}");
        totals.received["local"].packets
    }
}

struct Worker {
    stop: Arc<AtomicBool>,
    link: Arc<LinkWord>,
    port: Arc<ControlPort>,
    control: Arc<ControlHandle>,
    ledger: Arc<Ledger>,
    interface: &'static str,
    framing: Framing,
    words: [Arc<NeighborWord>; 2],
}

impl Worker {
    fn run(self) {
        let (mut poller, mut socket) = (Poller::new().unwrap(), None);
        let mut generation = 0;
        poller.add(&*self.port.bell, 0).unwrap();
        let mut buffer = vec![0; MAX_FRAME];
        while !self.stop.load(Ordering::Acquire) {
            if self.port.bell.doze() {
                poller.wait(None).unwrap().for_each(drop);
                self.port.bell.clear();
            }
            self.port.bell.begin();
            let facts = self.link.read();
            if facts.generation != generation {
                generation = facts.generation;
                socket = self.open(facts, &poller);
            }
            if let Some(socket) = &socket {
                self.receive(socket, &mut buffer);
            }
            self.send(socket.as_ref());
        }
        self.shut_down();
    }

    fn open(&self, facts: LinkFacts, poller: &Poller) -> Option<LinkSocket> {
        if facts.index == 0 {
            return None;
        }
        let program = filter::data(self.framing.tags(), self.framing.mac());
        let socket = LinkSocket::open(&LinkOptions::new(self.interface, &program)).ok()?;
        poller.add(&socket, 1).unwrap();
        Some(socket)
    }

    fn receive(&self, socket: &LinkSocket, buffer: &mut [u8]) {
        while let Ok(Some(frame)) = socket.receive(buffer) {
            let Ok(ip) = self.framing.ip(&frame, buffer) else {
                continue;
            };
            let mut packet: Box<[u8]> = buffer[ip.range].into();
            // A veth hands over what its sender left to a device to complete.
            if let Some(partial) = ip.offload.checksum {
                checksum::finish(&mut packet, partial).unwrap();
            }
            let length = packet.len() as u64;
            self.ledger.received(Port::path(PATH), 1, length);
            self.ledger.hold(1);
            let ingress = Ingress::Path(PATH);
            self.port.to_host.push(ToHost { ingress, packet }).unwrap();
        }
        self.control.waker.wake();
    }

    fn send(&self, socket: Option<&LinkSocket>) {
        while let Some(taken) = self.port.from_host.pop() {
            self.ledger.release(1);
            let length = taken.packet.len() as u64;
            let version = if taken.packet[0] >> 4 == 4 {
                Version::V4
            } else {
                Version::V6
            };
            let mac = self.words[usize::from(version == Version::V6)].mac();
            let sent = socket.zip(mac).is_some_and(|(socket, mac)| {
                let prefix = self.framing.ip_prefix(mac, version);
                let parts = [IoSlice::new(&taken.packet)];
                let plain = Offload::default();
                socket.send(&plain, 0, prefix.bytes(), &parts).is_ok()
            });
            if sent {
                self.ledger.sent(Port::path(PATH), 1, length);
            } else {
                self.ledger.dropped(DropReason::InterfaceDown, 1, length);
            }
        }
    }

    fn shut_down(&self) {
        self.send(None);
        while let Some(taken) = self.port.to_host.pop() {
            self.ledger.release(1);
            let length = taken.packet.len() as u64;
            self.ledger.dropped(DropReason::Shutdown, 1, length);
        }
    }
}

#[test]
fn a_link_comes_up_answers_and_follows_its_carrier() {
    let mut lab = Lab::new();
    let gateway = Gateway::start(&lab.near_end(Tags::NONE), "172.16.0.1");
    let view = gateway.view();
    let path = &view.paths[0];
    assert_eq!(path.interface, Some(("a0".into(), Some(Interface::Up))));
    assert!(path.probe.unwrap().round_trip.is_some());
    let far_mac = lab.far_link.link("b0").unwrap().unwrap().mac;
    assert_eq!(view.neighbors[0].mac, far_mac);
    for net in nets(NEAR) {
        let refused = [ErrorKind::ConnectionRefused; 2];
        assert_eq!(lab.knock(net.addr()), refused, "{net}");
    }

    lab.far_link.set_up("b0", false).unwrap();
    gateway.until_reason("no_carrier");
    // The kernel holds this change back, so soon after the one before: found by its silence instead, the
    // path would have gone down for its probes.
    let by_silence = |e: &PathEvent| e.reason == Some("probe_failed");
    assert!(!gateway.handle.published.events().iter().any(by_silence));
    lab.far_link.set_up("b0", true).unwrap();
    gateway.until(Usability::LastResort);
    gateway.until(Usability::Full);

    lab.near_link.set_up("a0", false).unwrap();
    gateway.until_reason("interface_down");
    lab.near_link.set_up("a0", true).unwrap();
    gateway.until(Usability::Full);
    assert!(gateway.stop() >= 4, "at least the answers to the knocks");
}

#[test]
fn an_interface_that_vanishes_and_returns_is_taken_up_again() {
    let mut lab = Lab::new();
    let gateway = Gateway::start(&lab.near_end(Tags::NONE), "fd00:16::1");
    gateway.until(Usability::Full);
    lab.near_link.delete_link("a0").unwrap();
    gateway.until_reason("interface_gone");
    lab.plug();
    gateway.until_did(|did| matches!(did, Did::Link(facts) if facts.up));
    gateway.until(Usability::Full);
    lab.near_link.set_mtu("a0", 1508).unwrap();
    gateway.until_did(|did| matches!(did, Did::Link(facts) if facts.mtu == 1508 && facts.up));

    // A name that another interface takes away is gone too.
    lab.near_link.set_up("a0", false).unwrap();
    lab.near_link.rename("a0", "a1").unwrap();
    gateway.until_did(|did| matches!(did, Did::Link(facts) if facts.index == 0));
    lab.near_link.rename("a1", "a0").unwrap();
    lab.near_link.set_up("a0", true).unwrap();
    gateway.until(Usability::Full);
    gateway.stop();
}

#[test]
fn a_silent_target_takes_the_path_down_though_the_neighbor_answers() {
    let lab = Lab::new();
    let gateway = Gateway::start(&lab.near_end(Tags::NONE), "10.2.0.77");
    gateway.until_reason("probe_failed");
    // Each lost probe has the neighbor asked anew.
    let state = gateway.handle.published.view().neighbors[0].state;
    assert!(
        matches!(state, NeighborState::Reachable | NeighborState::Probe),
        "{state:?}"
    );
    gateway.stop();
}

#[test]
fn two_gateways_find_each_other_behind_tags() {
    for (ids, kind) in [(&[100_u16][..], 0x8100), (&[100, 10], SERVICE_TAG)] {
        let lab = Lab::new();
        let tags = Tags::new(ids, kind).unwrap();
        let near = Gateway::start(&lab.near_end(tags), "fd00:16::1");
        let far = Gateway::start(&lab.far_end(tags), "172.16.0.2");
        for (gateway, mac) in [(&near, 0x17), (&far, 0x16)] {
            let view = gateway.view();
            assert_eq!(view.neighbors[0].mac, Some([2, 0, 0, 0, 0, mac]));
        }
        near.stop();
        far.stop();
    }
}

#[test]
fn other_tags_are_another_link() {
    let lab = Lab::new();
    let [near, far] = [10, 11].map(|id| Tags::new(&[id], 0x8100).unwrap());
    let near = Gateway::start(&lab.near_end(near), "172.16.0.1");
    let far = Gateway::start(&lab.far_end(far), "172.16.0.2");
    for gateway in [near, far] {
        gateway.until_reason("neighbor_failed");
        assert_eq!(
            gateway.stop(),
            0,
            "no probe leaves for a next hop that is not known"
        );
    }
}

#[test]
fn a_reload_keeps_what_is_the_same_and_begins_what_is_not() {
    let lab = Lab::new();
    let gateway = Gateway::start(&lab.near_end(Tags::NONE), "172.16.0.1");
    gateway.view();
    let mut moved = gateway.setup.clone();
    moved.paths[0].path = PathId(1);
    assert!(gateway.handle.watch(moved));
    let shifted = [Usability::None, Usability::Full];
    gateway.until_did(|did| matches!(did, Did::Usability(all) if all == &shifted));

    assert!(gateway.handle.watch(gateway.setup.clone()));
    gateway.view();
    let begun = |gateway: &Gateway| {
        let events = gateway.handle.published.events();
        events.iter().filter(|e| e.from == "starting").count()
    };
    assert_eq!(begun(&gateway), 1, "{:#?}", gateway.handle.published);

    let mut renamed = gateway.setup.clone();
    renamed.paths[0].name = "er/other".into();
    assert!(gateway.handle.watch(renamed));
    gateway.until(Usability::LastResort);
    assert_eq!(gateway.view().paths[0].name, "er/other");
    assert_eq!(begun(&gateway), 2);

    assert!(gateway.handle.watch(WatchSetup::default()));
    gateway.until_did(|did| matches!(did, Did::Usability(all) if all.is_empty()));
    gateway.stop();
}
