//! Which address a tunnel has, and who is told of it.

use super::{Ends, Near, Setup, Underlay, assert_reaches, start};
use crate::peer::Kind;
use crate::program::present;
use crate::stage::{Family, PATIENCE, Stage, host_address};
use integration::host::{Host, connect};
use integration::stage::wait_for;
use serde_json::Value;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::Arc;

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
                        let shown = || stage.show(vng, "tunnels");
                        let is_there = || shown()[0]["local"] == called;
                        wait_for("the address is shown", shown, is_there);
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
