//! Every offload switch off by itself, all of them off, and all of them refused: what comes out at the far host
//! is what went in, byte for byte and in order, over links and tunnels, IPv4 and IPv6. What the kernel refuses
//! is sent packet by packet and counted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that fails fails its test"
)]

#[path = "../pair/mod.rs"]
mod pair;

use gateway::device::udp::UdpOptions;
use pair::{PATIENCE, Pair, Road, Settings, Vnet, Way, host};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// Bytes of one TCP stream.
const STREAM: usize = 2_000_000;
/// Groups of UDP packets, each with all sizes and one super-packet.
const GROUPS: u32 = 20;
/// Bytes of single datagrams; the longest fits a tunnel with IPv6 inside.
const SIZES: [usize; 6] = [4, 5, 64, 577, 1200, 1372];
/// Bytes of the segments of a super-packet, and of the last, shorter one.
const SEGMENT: usize = 1200;
const LAST: usize = 333;
/// Segments of that length.
const SEGMENTS: usize = 12;
/// A packet that takes longer is lost.
const LOST: Duration = Duration::from_millis(200);

#[test]
fn everything_on() {
    over_all_roads(Vnet::Whole, Way::Whole);
}

#[test]
fn a_kernel_without_uso() {
    over_all_roads(Vnet::WithoutUso, Way::Whole);
}

#[test]
fn a_device_with_checksums_alone() {
    over_all_roads(Vnet::WithoutTso, Way::Whole);
}

#[test]
fn a_device_without_virtio_net_header() {
    over_all_roads(Vnet::Off, Way::Whole);
}

#[test]
fn a_device_that_refuses_what_it_has_promised() {
    over_all_roads(Vnet::Refused, Way::Whole);
}

#[test]
fn links_and_tunnels_switched_off() {
    over_all_roads(Vnet::Whole, Way::Off);
}

#[test]
fn links_and_tunnels_that_refuse() {
    over_all_roads(Vnet::Whole, Way::Refused);
}

#[test]
fn everything_off() {
    over_all_roads(Vnet::Off, Way::Off);
}

#[test]
fn everything_refused() {
    over_all_roads(Vnet::Refused, Way::Refused);
}

fn over_all_roads(vnet: Vnet, way: Way) {
    for road in [Road::Link, Road::QinQ, Road::Tunnel4, Road::Tunnel6] {
        let settings = Settings {
            vnet,
            way,
            ..Settings::new(road)
        };
        let Some(pair) = Pair::start(settings) else {
            return;
        };
        for v6 in [false, true] {
            tcp(&pair, v6);
            udp(&pair, v6);
        }
        let [near, far] = &pair.ends;
        let (near, far) = (near.totals().offload_refused, far.totals().offload_refused);
        let port = pair.ends[0].road();
        assert_eq!(near.contains_key(port), way == Way::Refused, "{near:?}");
        let refused = vnet == Vnet::Refused;
        assert_eq!(far.contains_key("vnet"), refused, "{far:?}, {settings:?}");
    }
}

/// `len` bytes that repeat late enough for a mix-up to show.
fn pattern(len: usize, seed: usize) -> Vec<u8> {
    let byte = |i: usize| (i * 7 + i / 251 + seed * 31) as u8;
    (0..len).map(byte).collect()
}

/// One stream each way at once.
fn tcp(pair: &Pair, v6: bool) {
    let [near, far] = &pair.ends;
    let listen = || TcpListener::bind(host(1, v6, 0)).unwrap();
    let listener = far.space.run(listen).unwrap();
    let to = listener.local_addr().unwrap();
    let connect = || TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    let one = near.space.run(connect).unwrap();
    let (two, _) = listener.accept().unwrap();
    std::thread::scope(|scope| {
        for (mut stream, seed) in [(&one, 1), (&two, 2)] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            scope.spawn(move || stream.write_all(&pattern(STREAM, seed)).unwrap());
            scope.spawn(move || {
                let mut received = vec![0; STREAM];
                stream.read_exact(&mut received).unwrap();
                assert!(received == pattern(STREAM, 3 - seed), "other bytes");
            });
        }
    });
}

/// Datagram number `n`.
fn datagram(n: u32, len: usize) -> Vec<u8> {
    let mut bytes = pattern(len, n as usize);
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    bytes
}

/// Numbered datagrams of many sizes, single ones and super-packets between each other.
fn udp(pair: &Pair, v6: bool) {
    let [near, far] = &pair.ends;
    let bind = || {
        let from = host(0, v6, 0);
        gateway::device::udp::UdpSocket::bind(from, UdpOptions::default()).unwrap()
    };
    let sender = near.space.run(bind).unwrap();
    let bind = || UdpSocket::bind(host(1, v6, 0)).unwrap();
    let receiver = far.space.run(bind).unwrap();
    receiver.set_read_timeout(Some(LOST)).unwrap();
    let to = receiver.local_addr().unwrap();

    let (mut sent, mut next, mut missing) = (Vec::new(), 0, 0);
    let mut buffer = [0; 2048];
    for group in 0..GROUPS {
        for size in SIZES {
            let one = datagram(sent.len() as u32, size);
            let outcome = sender.send_train(&to, &one, size, 0);
            assert_eq!((outcome.sent, outcome.error), (1, None));
            sent.push(one);
        }
        let mut train = Vec::new();
        for place in 0..=SEGMENTS {
            let size = if place == SEGMENTS { LAST } else { SEGMENT };
            let one = datagram(sent.len() as u32, size);
            train.extend_from_slice(&one);
            sent.push(one);
        }
        // Some with ECN and DSCP, which must not tear a train or mix with others.
        let class = if group % 4 == 3 { 0xb8 } else { 0 };
        let outcome = sender.send_train(&to, &train, SEGMENT, class);
        assert_eq!((outcome.sent, outcome.error), (SEGMENTS + 1, None));
        while next < sent.len() {
            let len = match receiver.recv(&mut buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            };
            let n = u32::from_be_bytes(buffer[..4].try_into().unwrap()) as usize;
            assert!(n >= next, "{n} came after {}", next - 1);
            assert!(buffer[..len] == sent[n], "other bytes in datagram {n}");
            missing += n - next;
            next = n + 1;
        }
    }
    missing += sent.len() - next;
    // A gateway that is kept from running shortens its queues, and says so.
    let told = pair.ends.iter().map(|end| {
        let dropped = end.totals().dropped;
        dropped.get("queue_delay").map_or(0, |sum| sum.packets)
    });
    let told: u64 = told.sum();
    assert!(missing as u64 <= told, "{missing} are lost\n{pair}");
}
