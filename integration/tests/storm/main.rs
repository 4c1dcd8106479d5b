//! Storms: a million packets that mean harm or nothing, into each way into a running gateway.
//!
//! ```text
//!                        1. AF_PACKET -> vng0                    4. sealed by the test, as the branch
//!                                 |                                        |
//! 2. AF_PACKET -> customer1 -> eth1  vng run  <- UDP port  <- internet <- branch-edge
//!                                                              |
//!                                                     3. UDP sockets
//! ```
//! After each storm the same process still runs, has not grown, its books balance to the packet, the
//! reasons that must occur have occurred, packets pass again, and it ends with status 0.
//!
//! The packets follow from a seed, which is printed; `VNG_STORM_SEED` sets another, `VNG_STORM_PACKETS`
//! another number. Needs root, for the namespaces.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod packet;
mod peer;
mod storm;

use crypto::wireguard::Train;
use gateway::device::SendError;
use gateway::device::event::Poller;
use gateway::device::filter::{self, Instruction};
use gateway::device::link::{LinkOptions, LinkSocket, MAX_FRAME};
use gateway::device::offload::Offload;
use integration::lab::Lab;
use integration::wire::EVERYTHING;
use packet::{Generator, Parties};
use peer::{Branch, GATEWAY, MTU};
use std::io::IoSlice;
use std::net::UdpSocket;
use std::time::{Duration, Instant};
use storm::Storm;

/// No state takes so long to come unless it never does.
const PATIENCE: Duration = Duration::from_mins(1);

const VNET: (&str, &str) = ("10.1.0.10", "fd00:1::10");
const ONPREM: (&str, &str) = ("10.2.0.10", "fd00:2::10");
const BRANCH: (&str, &str) = ("10.3.0.10", "fd00:3::10");
const OWN: (&str, &str) = ("10.1.255.4", "fd00:1:0:ff::4");

#[test]
fn a_storm_from_the_virtual_network_does_no_harm() {
    let mut storm = Storm::new();
    let parties = Parties {
        from: &[VNET],
        to: &[ONPREM, ONPREM, BRANCH, OWN],
    };
    let mut generator = Generator::new(storm.seed, parties);
    let socket = open(&storm.lab, "gateway", "vng0", &filter::nothing());
    let drops = |storm: &Storm| interface_drops(&storm.lab, "gateway", "vng0");
    let (mut packet, dropped) = (Vec::new(), drops(&storm));
    // The device's own queue takes 500 packets.
    storm.send(200, "vnet", |_| {
        let offload = generator.packet(&mut packet, 1500);
        let headers = 20 + generator.random.below(80) as u16;
        inject(&socket, &offload, headers, &[], &packet)
    });
    let dropped = drops(&storm) - dropped;
    println!("dropped by vng0: {dropped}");
    assert!(dropped <= storm.sent / 2, "{dropped} of {}", storm.sent);
    storm.judge(
        "vnet",
        &[
            "malformed",
            "not_ip",
            "header_checksum",
            "ip_option",
            "martian",
            "spoofed_source",
            "no_route",
            "ttl_expired",
            "too_big",
            "tunnel_no_session",
        ],
    );
}

#[test]
fn a_storm_from_the_expressroute_link_does_no_harm() {
    let mut storm = Storm::new();
    let parties = Parties {
        from: &[ONPREM],
        to: &[VNET, VNET, VNET, OWN],
    };
    let mut generator = Generator::new(storm.seed, parties);
    let socket = open(&storm.lab, "wire", "customer1", &EVERYTHING);
    let station = sender_of_next_frame(&socket);
    drop(socket);
    let socket = open(&storm.lab, "wire", "customer1", &filter::nothing());
    let (mut packet, mut layer2) = (Vec::new(), Vec::new());
    storm.send(1000, "er-sydney/primary", |_| {
        let offload = generator.packet(&mut packet, 1500);
        layer_2(&mut generator, station, &mut packet, &mut layer2);
        let headers = 20 + generator.random.below(80) as u16;
        inject(&socket, &offload, headers, &layer2, &packet)
    });
    storm.judge(
        "er-sydney/primary",
        &[
            "malformed",
            "not_ip",
            "header_checksum",
            "ip_option",
            "martian",
            "spoofed_source",
            "ttl_expired",
            "too_big",
        ],
    );
}

#[test]
fn a_storm_of_datagrams_on_the_tunnel_port_does_no_harm() {
    let mut storm = Storm::new();
    let parties = Parties {
        from: &[BRANCH],
        to: &[VNET],
    };
    let mut generator = Generator::new(storm.seed, parties);
    // A live session of the branch, whose messages are replayed and damaged, and calls of strangers.
    let mut branch = Branch::new(&storm.lab);
    branch.connect();
    for length in 0..32 {
        let mut train = Train::new(MTU);
        train.push(length * 32).unwrap().fill(0);
        branch.send(&mut train, 0);
    }
    let mut material = std::mem::take(&mut branch.sent);
    for _ in 0..16 {
        let mut stranger = Branch::stranger(&storm.lab);
        stranger.call();
        material.append(&mut stranger.sent);
    }
    let sockets = ["203.0.113.1:0", "198.51.100.1:0", "192.0.2.1:0"].map(|address| {
        let socket = storm.lab.host("internet").unwrap().run(|| {
            let socket = UdpSocket::bind(address)?;
            socket.connect(GATEWAY)?;
            Ok::<_, std::io::Error>(socket)
        });
        socket.unwrap().unwrap()
    });
    let mut datagram = Vec::new();
    storm.send(500, "underlay", |_| {
        lay_datagram(&mut generator, &material, &mut datagram);
        let socket = &sockets[generator.random.below(sockets.len())];
        socket.send(&datagram).is_ok()
    });
    storm.judge(
        "underlay",
        &[
            "tunnel_malformed",
            "tunnel_unknown_index",
            "tunnel_replay",
            "tunnel_authentication",
            "tunnel_handshake",
            "tunnel_handshake_rate",
            "tunnel_unknown_peer",
        ],
    );
}

#[test]
fn a_storm_inside_a_tunnel_does_no_harm() {
    let mut storm = Storm::new();
    let parties = Parties {
        from: &[BRANCH],
        to: &[VNET, VNET, VNET, OWN],
    };
    let mut generator = Generator::new(storm.seed, parties);
    let mut branch = Branch::new(&storm.lab);
    branch.connect();
    let (mut packet, mut train) = (Vec::new(), Train::new(MTU));
    let mut left = 0_usize;
    let mut flow = false;
    storm.send(512, "branch", |last| {
        if left == 0 {
            left = 1 + generator.random.below(16);
            flow = generator.random.one_in(2);
            train.clear(MTU);
        }
        if flow {
            generator.next_segment(&mut packet, 200);
        } else {
            generator.packet(&mut packet, MTU);
        }
        // The slots of a train are equally long, so what follows the first is cut or filled up to it.
        let mut length = packet.len().min(MTU);
        if !train.is_empty() {
            length = train.stride() - 32;
        }
        let slot = train.push(length).unwrap();
        let common = packet.len().min(length);
        slot[..common].copy_from_slice(&packet[..common]);
        left -= 1;
        if left == 0 || last {
            left = 0;
            let class = if generator.random.one_in(4) {
                generator.random.next() as u8
            } else {
                0
            };
            let deadline = Instant::now() + PATIENCE;
            while !branch.send(&mut train, class) {
                assert!(Instant::now() < deadline, "no session");
                branch.wait();
                branch.listen();
            }
            branch.listen();
        }
        true
    });
    assert!(branch.ask(&echo_request(), |packet| packet.get(20) == Some(&0)));
    storm.judge(
        "branch",
        &[
            "malformed",
            "not_ip",
            "header_checksum",
            "ip_option",
            "martian",
            "spoofed_source",
            "ttl_expired",
            "ecn_illegal",
            "branch_transit",
        ],
    );
}

fn open(lab: &Lab, host: &str, interface: &str, filter: &[Instruction]) -> LinkSocket {
    let open = || LinkSocket::open(&LinkOptions::new(interface, filter)).unwrap();
    lab.host(host).unwrap().run(open).unwrap()
}

/// Sends one frame; false if the kernel does not take one like it. Some frames are "no room" whenever they
/// are tried: a veth says so of a frame that its other end refuses.
fn inject(
    socket: &LinkSocket,
    offload: &Offload,
    headers: u16,
    layer2: &[u8],
    packet: &[u8],
) -> bool {
    const TRIES: usize = 8;
    for _ in 0..TRIES {
        match socket.send(offload, headers, layer2, &[IoSlice::new(packet)]) {
            Err(SendError::NoRoom) => std::thread::yield_now(),
            result => return result.is_ok(),
        }
    }
    false
}

/// The MAC address that the gateway uses: the sender of the next frame that comes out of it.
fn sender_of_next_frame(socket: &LinkSocket) -> [u8; 6] {
    let mut poller = Poller::new().unwrap();
    poller.add(socket, 0).unwrap();
    let mut buffer = vec![0; MAX_FRAME];
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        poller.wait(Some(PATIENCE)).unwrap().for_each(drop);
        if let Ok(Some(_)) = socket.receive(&mut buffer) {
            return buffer[6..12].try_into().unwrap();
        }
    }
    panic!("the gateway sends nothing");
}

/// Lays the layer 2 header for `packet`: seven times out of eight one with which the gateway takes it.
/// Now and then the packet becomes ARP instead.
fn layer_2(generator: &mut Generator, station: [u8; 6], packet: &mut Vec<u8>, out: &mut Vec<u8>) {
    let (mut destination, mut ethertype) = (station, 0x0800_u16);
    let mut tags = [[0x88, 0xa8, 0, 100], [0x81, 0, 0, 10]];
    if packet.first().is_some_and(|first| first >> 4 == 6) {
        ethertype = 0x86dd;
    }
    let mut count = 2;
    match generator.random.below(64) {
        0 => destination = [0xff; 6],
        1 => destination = [0x33, 0x33, 0, 0, 0, 1],
        2 => destination[5] ^= 1,
        3 => count = 0,
        4 => count = 1,
        5 => tags.swap(0, 1),
        6 => tags[1][3] = 11,
        7 => tags[0][1] = 0,
        // Priority bits: still the link's tags.
        8 => tags.iter_mut().for_each(|tag| tag[2] |= 0xe0),
        9 => ethertype = generator.random.next() as u16,
        10 => ethertype ^= 0x0800 ^ 0x86dd,
        11 => {
            // RFC 826, for IPv4 over Ethernet; who asks for whom is noise, near the true neighbours.
            ethertype = 0x0806;
            packet.clear();
            packet.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
            let noise = generator.noise(20);
            packet.extend_from_slice(noise);
            packet[7] = 1 + generator.random.below(2) as u8;
            for at in [14, 24] {
                let host = generator.random.below(8) as u8;
                packet.resize(28, 0);
                packet[at..at + 4].copy_from_slice(&[172, 16, 0, host]);
            }
            generator.mutate(packet);
        }
        _ => {}
    }
    out.clear();
    out.extend_from_slice(&destination);
    out.extend_from_slice(&[2, 0, 0, 0, 0, 0x99]);
    tags[..count]
        .iter()
        .for_each(|tag| out.extend_from_slice(tag));
    out.extend_from_slice(&ethertype.to_be_bytes());
    if generator.random.one_in(256) {
        packet.truncate(generator.random.below(4));
        out.truncate(14 + generator.random.below(9));
    }
}

/// Lays one datagram: noise, noise that has the form of a message, or a true message, replayed or damaged.
fn lay_datagram(generator: &mut Generator, material: &[Vec<u8>], out: &mut Vec<u8>) {
    out.clear();
    match generator.random.below(8) {
        0 => {
            let length = generator.random.below(200);
            let noise = generator.noise(length);
            out.extend_from_slice(noise);
        }
        1 | 2 => {
            let kind = 1 + generator.random.below(4);
            let length = match kind {
                1 => 148,
                2 => 92,
                3 => 64,
                _ => 32 + 16 * generator.random.below(90),
            };
            let noise = generator.noise(length);
            out.extend_from_slice(noise);
            out[..4].copy_from_slice(&[kind as u8, 0, 0, 0]);
        }
        choice => {
            let message = &material[generator.random.below(material.len())];
            out.extend_from_slice(message);
            if choice != 3 {
                generator.mutate(out);
            }
            if choice == 4 && out.len() > 40 {
                // Behind index and counter: only the tag can tell.
                let at = 16 + generator.random.below(out.len() - 16);
                out[at] ^= 1;
            }
        }
    }
}

/// An echo request from the branch to the gateway's own address.
fn echo_request() -> Vec<u8> {
    let mut packet = vec![
        0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0, 0, 10, 3, 0, 10, 10, 1, 255, 4,
    ];
    packet.extend_from_slice(&[8, 0, 0, 0, 0, 1, 0, 1]);
    packet::sum_echo(&mut packet);
    packet
}

/// Packets that an interface's own queue has dropped on their way out, from `/proc/net/dev`.
fn interface_drops(lab: &Lab, host: &str, interface: &str) -> u64 {
    let read = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let text = lab.host(host).unwrap().run(read).unwrap();
    let begin = format!("{interface}:");
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(&begin))
        .unwrap();
    // Eight numbers of what it received, then bytes, packets, errors, drops of what it sent.
    line.split_whitespace().nth(11).unwrap().parse().unwrap()
}
