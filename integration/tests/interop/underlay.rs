//! The underlay is not ours: narrower than it should be, with several addresses. Each script runs with vng on the
//! near side, and with wireguard-go in its place.
//!
//! ```text
//!   near 192.0.2.1, 2001:db8::1 -- eth0 ---- eth0 -- router -- eth1 ---- eth0 -- far 198.51.100.2, 2001:db8:2::2
//! ```

use crate::peer::Kind;
use crate::program::{Background, present};
use crate::stage::{Family, PATIENCE, Stage, host_address};
use crypto::key::PrivateKey;
use gateway::device::udp::{UdpOptions, UdpSocket as TrainSocket};
use integration::gateway::Gateway;
use integration::host::{Host, connect};
use integration::peer::{self, End};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of each transfer: many windows.
const BYTES: usize = 300_000;
/// How long a transfer may stand still before it has failed.
const STALL: Duration = Duration::from_secs(8);

/// Who is on the near side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Near {
    Vng,
    Reference,
}

/// Where it is narrow.
#[derive(Clone, Copy, Debug)]
struct Narrow {
    what: &'static str,
    over: Family,
    /// MTU between near and router, and between router and far.
    links: [u32; 2],
}

const NARROW: [Narrow; 4] = [
    Narrow {
        what: "a link of 1479",
        over: Family::V4,
        links: [1_479, 1_500],
    },
    Narrow {
        what: "a router of 1400 in the middle",
        over: Family::V4,
        links: [1_500, 1_400],
    },
    Narrow {
        what: "an IPv6 endpoint over 1492",
        over: Family::V6,
        links: [1_492, 1_500],
    },
    Narrow {
        what: "an IPv6 router of 1400 in the middle",
        over: Family::V6,
        links: [1_500, 1_400],
    },
];

/// Near, router and far.
struct Underlay {
    hosts: [Arc<Host>; 3],
}

impl Underlay {
    fn new(links: [u32; 2]) -> Self {
        let hosts = ["near", "router", "far"].map(|name| Arc::new(Host::new(name).unwrap()));
        let [near, router, far] = &hosts;
        connect((near, "eth0"), (router, "eth0")).unwrap();
        connect((router, "eth1"), (far, "eth0")).unwrap();
        router.forward().unwrap();
        for (host, link, mtu) in [
            (near, "eth0", links[0]),
            (router, "eth0", links[0]),
            (router, "eth1", links[1]),
            (far, "eth0", links[1]),
        ] {
            host.configure(|netlink| netlink.set_mtu(link, mtu))
                .unwrap();
        }
        for (host, link, addresses) in [
            (near, "eth0", ["192.0.2.1/24", "2001:db8::1/64"]),
            (router, "eth0", ["192.0.2.254/24", "2001:db8::fe/64"]),
            (router, "eth1", ["198.51.100.254/24", "2001:db8:2::fe/64"]),
            (far, "eth0", ["198.51.100.2/24", "2001:db8:2::2/64"]),
        ] {
            host.address(link, &addresses).unwrap();
        }
        near.route("198.51.100.0/24", "192.0.2.254").unwrap();
        near.route("2001:db8:2::/64", "2001:db8::fe").unwrap();
        far.route("192.0.2.0/24", "198.51.100.254").unwrap();
        far.route("2001:db8::/64", "2001:db8:2::fe").unwrap();
        for there in ["198.51.100.2", "2001:db8:2::2"] {
            assert!(near.reaches(there.parse().unwrap(), PATIENCE).unwrap());
        }
        Self { hosts }
    }

    fn near(&self) -> &Arc<Host> {
        &self.hosts[0]
    }

    fn far(&self) -> &Arc<Host> {
        &self.hosts[2]
    }
}

/// Both ends of a tunnel through an underlay; the far one is wireguard-go.
struct Ends {
    gateway: Option<Gateway>,
    _near: Option<Background>,
    far: Background,
}

/// What is different from a plain tunnel.
#[derive(Clone, Copy, Default)]
struct Setup<'a> {
    /// More lines of `[vpn]` of the near side.
    vpn: &'a str,
    /// Where the far side finds the near one.
    called: Option<&'a str>,
    /// Where the near side is told that the far one is.
    named: Option<&'a str>,
    /// The far side calls: the near one does not know where it is.
    waits: bool,
}

fn start(stage: &Stage, underlay: &Underlay, near: Near, over: Family, setup: Setup<'_>) -> Ends {
    let [ours, theirs] = [(); 2].map(|()| PrivateKey::generate().unwrap());
    let far_at = over.of(["198.51.100.2:51820", "[2001:db8:2::2]:51820"]);
    let near_at = setup
        .called
        .unwrap_or_else(|| over.of(["192.0.2.1:51820", "[2001:db8::1]:51820"]));
    let (mut gateway, mut reference) = (None, None);
    match near {
        Near::Vng => {
            let mut text = stage.vpn_table(1, &ours, setup.vpn);
            writeln!(text, "[[vpn.site]]\nname = \"site-2\"").unwrap();
            writeln!(text, "public_key = \"{}\"", theirs.public_key()).unwrap();
            if !setup.waits {
                let far_at = setup.named.unwrap_or(far_at);
                writeln!(text, "endpoint = \"{far_at}\"").unwrap();
            }
            writeln!(text, "prefixes = [\"10.2.0.0/16\", \"fd00:2::/48\"]").unwrap();
            let mut vng = stage.gateway(underlay.near(), 1, "", &text);
            vng.start().unwrap();
            gateway = Some(vng);
        }
        Near::Reference => {
            let end = End {
                name: "near",
                key: &ours,
                other: &theirs.public_key(),
                preshared: None,
                endpoint: far_at,
                addresses: ["10.1.0.4/16", "fd00:1::4/48"],
                prefixes: ["10.2.0.0/16", "fd00:2::/48"],
            };
            let host = underlay.near();
            let command = peer::WIREGUARD_GO;
            reference =
                Some(peer::start(&stage.nursery, host, &stage.scratch, command, &end).unwrap());
        }
    }
    let end = End {
        name: "far",
        key: &theirs,
        other: &ours.public_key(),
        preshared: None,
        endpoint: near_at,
        addresses: ["10.2.0.4/16", "fd00:2::4/48"],
        prefixes: ["10.1.0.0/16", "fd00:1::/48"],
    };
    let far = underlay.far();
    let far = peer::start(
        &stage.nursery,
        far,
        &stage.scratch,
        peer::WIREGUARD_GO,
        &end,
    )
    .unwrap();
    Ends {
        gateway,
        _near: reference,
        far,
    }
}

/// Sends bytes over TCP; how many arrived before the transfer was over or stood still.
fn transfer(from: &Host, to: &Host, at: IpAddr) -> usize {
    let listener = to.run(|| TcpListener::bind((at, 0)).unwrap()).unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let sent = from.run(|| {
                let mut stream = TcpStream::connect_timeout(&at, STALL)?;
                stream.set_write_timeout(Some(STALL))?;
                stream.write_all(&vec![7; BYTES])
            });
            let _ = sent.unwrap();
        });
        listener.set_nonblocking(true).unwrap();
        let begun = Instant::now();
        let mut stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(_) if begun.elapsed() > STALL => return 0,
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(STALL)).unwrap();
        let (mut arrived, mut buffer) = (0, vec![0; 65_536]);
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            arrived += length;
        }
        arrived
    })
}

/// What passes through a tunnel: bytes of TCP each way, and answers to pings as long as the tunnel takes.
fn passes(near: &Host, far: &Host) -> [usize; 3] {
    let [a, b] = [1, 2].map(|n| host_address(n, Family::V4));
    assert!(near.reaches(b, PATIENCE).unwrap(), "{b} is not reached");
    let pings = near.ping(b, 5, 1_420 - 28, PATIENCE).unwrap();
    [
        transfer(near, far, b),
        transfer(far, near, a),
        pings.received as usize,
    ]
}

#[test]
fn what_passes_a_narrow_underlay_with_wireguard_go_passes_with_vng() {
    if !present(&Kind::WireguardGo.programs()) {
        return;
    }
    let stage = Stage::new();
    let stage = &stage;
    let mut found = Vec::new();
    // All wait for each other's timers more than they compute.
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        for narrow in NARROW {
            for near in [Near::Vng, Near::Reference] {
                running.push(scope.spawn(move || {
                    let stage = stage.beside();
                    let underlay = Underlay::new(narrow.links);
                    let setup = Setup::default();
                    let ends = start(&stage, &underlay, near, narrow.over, setup);
                    let passed = passes(underlay.near(), underlay.far());
                    let shown = ends.gateway.as_ref().map(|vng| {
                        // What a router cuts is not known here, nor need it be.
                        let is_known = narrow.links[0] < 1_500 || narrow.over == Family::V6;
                        let counted = !is_known || counts_fragments(&stage, vng, underlay.near());
                        (counted, vng.log())
                    });
                    (narrow, near, passed, shown)
                }));
            }
        }
        found.extend(running.into_iter().map(|run| run.join().unwrap()));
    });
    for (narrow, near, passed, _) in &found {
        println!("{}, {near:?}: {passed:?}", narrow.what);
    }
    for (narrow, near, passed, shown) in found {
        let of = format!("{}, {near:?}: {shown:#?}", narrow.what);
        // wireguard-go on the far side learns of its path by losing an answer.
        let [there, back, pings] = passed;
        assert!(there == BYTES && back == BYTES && pings >= 4, "{of}");
        assert!(
            shown.is_none_or(|(counted, _)| counted),
            "no fragment is counted"
        );
    }
}

/// Whether the gateway comes to show that datagrams go in fragments, while there are some.
fn counts_fragments(stage: &Stage, vng: &Gateway, near: &Host) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let pinged = near.ping(host_address(2, Family::V4), 1, 1_420 - 28, PATIENCE);
        pinged.unwrap();
        let shown = stage.show(vng, "tunnels");
        if shown[0]["fragmented_packets"].as_u64() > Some(0) {
            assert!(
                shown[0]["path_mtu_bytes"].as_u64() < Some(1_500),
                "{shown:#}"
            );
            return true;
        }
    }
    false
}

/// An address that the machine has beside its first, which is the one that is called.
#[test]
fn answers_leave_from_the_address_that_was_called() {
    if !present(&Kind::WireguardGo.programs()) {
        return;
    }
    let stage = Stage::new();
    let stage = &stage;
    let cases = [
        ("a second address", Family::V4, "eth0", "192.0.2.77/24"),
        ("an address on lo", Family::V4, "lo", "192.0.2.78/32"),
        (
            "a second IPv6 address",
            Family::V6,
            "eth0",
            "2001:db8::77/64",
        ),
    ];
    std::thread::scope(|scope| {
        for (what, over, link, address) in cases {
            for near in [Near::Vng, Near::Reference] {
                scope.spawn(move || {
                    let stage = stage.beside();
                    let underlay = Underlay::new([1_500; 2]);
                    underlay.near().address(link, &[address]).unwrap();
                    let called = address.split('/').next().unwrap();
                    // The router, which is asked who has it on the link, is told.
                    if link == "lo" {
                        let router = &underlay.hosts[1];
                        router.route(address, "192.0.2.1").unwrap();
                    }
                    let at = match over {
                        Family::V4 => format!("{called}:51820"),
                        Family::V6 => format!("[{called}]:51820"),
                    };
                    let setup = Setup {
                        called: Some(&at),
                        waits: near == Near::Vng,
                        ..Setup::default()
                    };
                    let ends = start(&stage, &underlay, near, over, setup);
                    let (near_host, far) = (underlay.near(), underlay.far());
                    // The far side calls. A stateful firewall would let in only what comes from where it called.
                    let there = host_address(1, Family::V4);
                    assert!(far.reaches(there, PATIENCE).unwrap(), "{what}, {near:?}");
                    let pings = near_host.ping(host_address(2, Family::V4), 3, 56, PATIENCE);
                    assert_eq!(pings.unwrap().received, 3, "{what}, {near:?}");
                    // wireguard-go roams to where an answer came from: it shows what that was.
                    let endpoint = far_endpoint(&stage, &ends, far);
                    assert_eq!(endpoint, at, "{what}, {near:?}");
                    if let Some(vng) = &ends.gateway {
                        let deadline = Instant::now() + PATIENCE;
                        let shown = || stage.show(vng, "tunnels");
                        let is_there = |t: &Value| t[0]["local"] == called;
                        while !is_there(&shown()) && Instant::now() < deadline {
                            std::thread::sleep(Duration::from_millis(50));
                        }
                        let tunnels = shown();
                        assert!(is_there(&tunnels), "{tunnels:#}");
                    }
                });
            }
        }
    });
}

/// Where wireguard-go on the far side has last heard the near one.
fn far_endpoint(stage: &Stage, ends: &Ends, far: &Arc<Host>) -> String {
    let mounts = format!("--mount=/proc/{}/ns/mnt", ends.far.pid());
    let words = ["nsenter", &mounts, "wg", "show", "wg0", "endpoints"];
    let shown = crate::program::run(stage, far, PATIENCE, &words);
    let line = shown.out.lines().next().unwrap_or_default();
    line.split_whitespace()
        .nth(1)
        .unwrap_or_default()
        .to_owned()
}

/// Datagrams in one super-packet.
const DATAGRAMS: usize = 10;

/// Sends super-packets of datagrams that fill 1,500 bytes and may be cut; how many datagrams arrive.
fn arrivals(from: &Host, to: &Host, source: IpAddr, target: IpAddr) -> usize {
    let inlet = to.run(|| UdpSocket::bind((target, 0)).unwrap()).unwrap();
    inlet
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let at = inlet.local_addr().unwrap();
    let outlet = from
        .run(|| TrainSocket::bind(SocketAddr::new(source, 0), UdpOptions::default()).unwrap())
        .unwrap();
    let (bytes, mut buffer, mut arrived) = (vec![7; DATAGRAMS * 1_472], [0; 2_000], 0);
    for _ in 0..3 {
        let outcome = outlet.send_train(&at, &bytes, 1_472, 0);
        assert_eq!((outcome.sent, outcome.split), (DATAGRAMS, false));
        for _ in 0..DATAGRAMS {
            arrived += usize::from(matches!(inlet.recv(&mut buffer), Ok(1_472)));
        }
    }
    arrived
}

#[test]
fn super_packets_that_may_be_cut_arrive_as_through_a_linux_router() {
    let stage = Stage::new();
    let underlay = Underlay::new([1_500, 1_420]);
    let (near, far) = (underlay.near(), underlay.far());
    let ends = ["192.0.2.1", "198.51.100.2"].map(|end| end.parse().unwrap());
    let reference = arrivals(near, far, ends[0], ends[1]);

    let pair = stage.pair(crate::stage::Way::Tunnel(Family::V4), ["", ""]);
    let [from, to] = [1, 2].map(|n| host_address(n, Family::V4));
    let found = arrivals(&pair.hosts[0], &pair.hosts[1], from, to);
    println!(
        "a Linux router {reference}, vng {found} of {}",
        3 * DATAGRAMS
    );
    assert_eq!((reference, found), (3 * DATAGRAMS, 3 * DATAGRAMS));
    pair.finish(&stage, &[]);
}

#[test]
fn a_datagram_of_length_zero_is_counted() {
    let stage = Stage::new();
    let pair = stage.pair(crate::stage::Way::Tunnel(Family::V4), ["", ""]);
    let send = || {
        let socket = UdpSocket::bind("192.0.2.2:0").unwrap();
        for _ in 0..5 {
            socket.send_to(&[], "192.0.2.1:51820").unwrap();
        }
    };
    let malformed = || {
        let counters = stage.show(&pair.gateways[0], "counters");
        counters["dropped"]["tunnel_malformed"]["packets"]
            .as_u64()
            .unwrap_or(0)
    };
    let before = malformed();
    pair.hosts[1].run(send).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while malformed() < before + 5 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(malformed(), before + 5);
    pair.finish(&stage, &["tunnel_malformed"]);
}

/// Waits until the near host reaches the far one through the tunnel.
fn assert_reaches(near: &Host, what: &str, ends: &Ends) {
    let there = host_address(2, Family::V4);
    let log = || ends.gateway.as_ref().map(Gateway::log).unwrap_or_default();
    assert!(near.reaches(there, PATIENCE).unwrap(), "{what}: {}", log());
}

#[test]
fn tunnels_are_bound_marked_and_named_as_the_configuration_says() {
    if !present(&Kind::WireguardGo.programs()) {
        return;
    }
    let stage = Stage::new();
    let stage = &stage;
    std::thread::scope(|scope| {
        // A bound address: nothing leaves from or is taken at another.
        scope.spawn(move || {
            let stage = stage.beside();
            let underlay = Underlay::new([1_500; 2]);
            underlay.near().address("eth0", &["192.0.2.77/24"]).unwrap();
            let setup = Setup {
                vpn: "bind_address = \"192.0.2.77\"\ninterface = \"eth0\"\nfwmark = 7\n",
                called: Some("192.0.2.77:51820"),
                ..Setup::default()
            };
            let ends = start(&stage, &underlay, Near::Vng, Family::V4, setup);
            assert_reaches(underlay.near(), "bound", &ends);
            assert_eq!(
                far_endpoint(&stage, &ends, underlay.far()),
                "192.0.2.77:51820"
            );
        });
        // The kernel chooses the port, and `show` says which.
        scope.spawn(move || {
            let stage = stage.beside();
            let underlay = Underlay::new([1_500; 2]);
            let setup = Setup {
                vpn: "listen_port = 0\n",
                ..Setup::default()
            };
            let ends = start(&stage, &underlay, Near::Vng, Family::V4, setup);
            assert_reaches(underlay.near(), "a chosen port", &ends);
            let gateway = ends.gateway.as_ref().unwrap();
            let port = stage.show(gateway, "tunnels")[0]["lanes"][0]["port"].clone();
            let endpoint = far_endpoint(&stage, &ends, underlay.far());
            assert_eq!(endpoint, format!("192.0.2.1:{port}"));
            assert_ne!(port, Value::from(51_820));
            // It stays with a reload.
            stage.vng(gateway, &["reload"]);
            assert_eq!(stage.show(gateway, "tunnels")[0]["lanes"][0]["port"], port);
        });
        // A name: `localhost` needs no server. A relay on this machine leads on from there.
        scope.spawn(move || {
            let stage = stage.beside();
            let underlay = Underlay::new([1_500; 2]);
            let relay = underlay
                .near()
                .run(|| Relay::start("198.51.100.2:51820"))
                .unwrap();
            let at = format!("localhost:{}", relay.port);
            let setup = Setup {
                named: Some(&at),
                ..Setup::default()
            };
            let ends = start(&stage, &underlay, Near::Vng, Family::V4, setup);
            assert_reaches(underlay.near(), "a name", &ends);
        });
        // A link-local address in the zone of an interface.
        scope.spawn(move || {
            let stage = stage.beside();
            let hosts = ["near", "far"].map(|name| Arc::new(Host::new(name).unwrap()));
            let [near, far] = &hosts;
            connect((near, "eth0"), (far, "eth0")).unwrap();
            near.address("eth0", &["fe80::1/64"]).unwrap();
            far.address("eth0", &["fe80::2/64"]).unwrap();
            let underlay = Underlay {
                hosts: [Arc::clone(near), Arc::clone(far), Arc::clone(far)],
            };
            let setup = Setup {
                named: Some("[fe80::2%eth0]:51820"),
                called: Some("[fe80::1%eth0]:51820"),
                ..Setup::default()
            };
            let ends = start(&stage, &underlay, Near::Vng, Family::V6, setup);
            assert_reaches(near, "a zone", &ends);
        });
        // Path MTU discovery: the tunnel becomes as wide as a router in the middle, and TCP follows.
        scope.spawn(move || {
            let stage = stage.beside();
            let underlay = Underlay::new([1_500, 1_400]);
            let setup = Setup {
                vpn: "path_mtu_discovery = true\n",
                ..Setup::default()
            };
            let ends = start(&stage, &underlay, Near::Vng, Family::V4, setup);
            assert_reaches(underlay.near(), "discovery", &ends);
            let passed = transfer(underlay.near(), underlay.far(), host_address(2, Family::V4));
            assert_eq!(passed, BYTES);
            let tunnels = stage.show(ends.gateway.as_ref().unwrap(), "tunnels");
            // 1,400 less 60, and padded to 16.
            assert_eq!(tunnels[0]["mtu_bytes"], Value::from(1_328), "{tunnels:#}");
            assert_eq!(tunnels[0]["fragmented_packets"], Value::from(0));
        });
    });
}

/// Passes datagrams on, from a port of loopback to somewhere and back, until it is dropped.
struct Relay {
    port: u16,
    inlet: UdpSocket,
}

impl Relay {
    fn start(to: &'static str) -> Self {
        let inlet = UdpSocket::bind("127.0.0.1:0").unwrap();
        let outlet = UdpSocket::bind("0.0.0.0:0").unwrap();
        outlet.connect(to).unwrap();
        let relay = Self {
            port: inlet.local_addr().unwrap().port(),
            inlet: inlet.try_clone().unwrap(),
        };
        let (back, forth) = (inlet.try_clone().unwrap(), outlet.try_clone().unwrap());
        for socket in [&inlet, &outlet] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        let caller = Arc::new(std::sync::Mutex::new(None));
        let called = Arc::clone(&caller);
        std::thread::spawn(move || {
            let mut buffer = [0; 2_000];
            while let Ok((length @ 1.., from)) = inlet.recv_from(&mut buffer) {
                *caller.lock().unwrap() = Some(from);
                let _ = forth.send(&buffer[..length]);
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 2_000];
            loop {
                match outlet.recv(&mut buffer) {
                    Ok(length) => {
                        if let Some(to) = *called.lock().unwrap() {
                            let _ = back.send_to(&buffer[..length], to);
                        }
                    }
                    // The far end is not there yet.
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                    Err(_) => break,
                }
            }
        });
        relay
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let at = self.inlet.local_addr().unwrap();
        let _ = self.inlet.send_to(&[], at);
    }
}

/// A tunnel over a circuit whose link has this MTU; the far side is wireguard-go on a plain host.
fn over_a_circuit(stage: &Stage, mtu: u32, near: Near) -> ([usize; 2], Option<Value>) {
    let hosts = ["near", "far"].map(|name| Arc::new(Host::new(name).unwrap()));
    crate::stage::lay_link(&hosts, mtu);
    let [here, there] = &hosts;
    there.address("eth1", &["172.16.0.2/30"]).unwrap();
    there.address("lo", &["198.51.100.2/32"]).unwrap();
    there.route("10.1.255.4/32", "172.16.0.1").unwrap();
    let [ours, theirs] = [(); 2].map(|()| PrivateKey::generate().unwrap());
    let (mut gateway, mut reference) = (None, None);
    match near {
        Near::Vng => {
            let mut text = String::from(
                r#"[expressroute]
sku = "Unlimited"

[[expressroute.circuit]]
name     = "circuit-2"
model    = "point-to-point"
prefixes = ["198.51.100.0/24"]

  [[expressroute.circuit.link]]
  name      = "primary"
  interface = "eth1"
  address   = ["172.16.0.1/30"]
  neighbor  = ["172.16.0.2"]

"#,
            );
            text += &stage.vpn_table(1, &ours, "");
            writeln!(
                text,
                "[[vpn.site]]\nname = \"site-2\"\nover = \"circuit-2\""
            )
            .unwrap();
            writeln!(text, "public_key = \"{}\"", theirs.public_key()).unwrap();
            writeln!(text, "endpoint = \"198.51.100.2:51820\"").unwrap();
            writeln!(text, "prefixes = [\"10.2.0.0/16\", \"fd00:2::/48\"]").unwrap();
            let mut vng = stage.gateway(here, 1, "", &text);
            vng.start().unwrap();
            gateway = Some(vng);
        }
        Near::Reference => {
            here.address("eth1", &["172.16.0.1/30"]).unwrap();
            here.address("lo", &["10.1.255.4/32"]).unwrap();
            here.route("198.51.100.2/32", "172.16.0.2").unwrap();
            let end = End {
                name: "near",
                key: &ours,
                other: &theirs.public_key(),
                preshared: None,
                endpoint: "198.51.100.2:51820",
                addresses: ["10.1.0.4/16", "fd00:1::4/48"],
                prefixes: ["10.2.0.0/16", "fd00:2::/48"],
            };
            let command = peer::WIREGUARD_GO;
            reference =
                Some(peer::start(&stage.nursery, here, &stage.scratch, command, &end).unwrap());
        }
    }
    let end = End {
        name: "far",
        key: &theirs,
        other: &ours.public_key(),
        preshared: None,
        endpoint: match near {
            Near::Vng => "10.1.255.4:51820",
            Near::Reference => "172.16.0.1:51820",
        },
        addresses: ["10.2.0.4/16", "fd00:2::4/48"],
        prefixes: ["10.1.0.0/24", "fd00:1::/64"],
    };
    let command = peer::WIREGUARD_GO;
    let _far = peer::start(&stage.nursery, there, &stage.scratch, command, &end).unwrap();
    let [a, b] = [1, 2].map(|n| host_address(n, Family::V4));
    assert!(here.reaches(b, PATIENCE).unwrap(), "{b} is not reached");
    let passed = [transfer(here, there, b), transfer(there, here, a)];
    let shown = gateway.map(|vng| {
        let log = vng.log();
        assert!(log.contains("has a narrow link"), "{log}");
        stage.show(&vng, "tunnels")
    });
    drop(reference);
    (passed, shown)
}

#[test]
fn a_tunnel_over_a_narrow_circuit_carries_what_wireguard_go_carries_there() {
    if !present(&Kind::WireguardGo.programs()) {
        return;
    }
    let stage = Stage::new();
    let stage = &stage;
    std::thread::scope(|scope| {
        for (mtu, near, inner) in [(1_460, Near::Vng, 1_392), (1_460, Near::Reference, 0)] {
            scope.spawn(move || {
                let stage = stage.beside();
                let (passed, shown) = over_a_circuit(&stage, mtu, near);
                println!("over a link of {mtu}, {near:?}: {passed:?}");
                assert_eq!(passed, [BYTES; 2], "{mtu}, {near:?}: {shown:#?}");
                if let Some(tunnels) = shown {
                    assert_eq!(tunnels[0]["mtu_bytes"], Value::from(inner));
                }
            });
        }
    });
}
