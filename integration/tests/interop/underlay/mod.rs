//! The underlay is not ours: narrower than it should be ([`narrow`], [`circuit`]), with several addresses
//! ([`address`]), with datagrams that are cut or empty ([`datagram`]). Each script runs with vng on the near side, and
//! most with wireguard-go in its place.
//!
//! ```text
//!   near 192.0.2.1, 2001:db8::1 -- eth0 ---- eth0 -- router -- eth1 ---- eth0 -- far 198.51.100.2, 2001:db8:2::2
//! ```

mod address;
mod circuit;
mod datagram;
mod narrow;

use crate::peer::{Kind, start_end};
use crate::program::Background;
use crate::stage::{Family, PATIENCE, Stage, host_address};
use crypto::key::PrivateKey;
use integration::gateway::Gateway;
use integration::host::{Host, connect};
use integration::pair;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
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
            text += &pair::site(2, &theirs.public_key());
            if !setup.waits {
                let far_at = setup.named.unwrap_or(far_at);
                writeln!(text, "endpoint = \"{far_at}\"").unwrap();
            }
            let mut vng = stage.gateway(underlay.near(), 1, "", &text);
            vng.start().unwrap();
            gateway = Some(vng);
        }
        Near::Reference => {
            let public = theirs.public_key();
            let end = pair::end(1, &ours, &public, far_at);
            let near = start_end(stage, underlay.near(), Kind::WireguardGo, &end);
            reference = Some(near);
        }
    }
    let public = ours.public_key();
    let end = pair::end(2, &theirs, &public, near_at);
    Ends {
        gateway,
        _near: reference,
        far: start_end(stage, underlay.far(), Kind::WireguardGo, &end),
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

/// Waits until the near host reaches the far one through the tunnel.
fn assert_reaches(near: &Host, what: &str, ends: &Ends) {
    let there = host_address(2, Family::V4);
    let log = || ends.gateway.as_ref().map(Gateway::log).unwrap_or_default();
    assert!(near.reaches(there, PATIENCE).unwrap(), "{what}: {}", log());
}
