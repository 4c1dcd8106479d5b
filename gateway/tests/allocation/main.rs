//! No path allocates per packet: a counting allocator watches this whole process, in which two gateways'
//! workers carry packets between two hosts, and nothing else happens. The hosts' side of it uses buffers and
//! sockets that are there before the count begins.
//!
//! No harness on purpose: the count is the process's, so nothing may run beside it, not even who prints that a
//! test takes long.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that fails fails its test"
)]

#[path = "../pair/mod.rs"]
mod pair;

use gateway::device::event::Poller;
use gateway::device::udp::{ReceiveBatch, UdpOptions};
use pair::{PATIENCE, Pair, Road, Settings, Vnet, Way, host};
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery};
use stats_alloc::{INSTRUMENTED_SYSTEM, Stats, StatsAlloc};
use std::alloc::System;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes of a flow before the count begins, and while it runs.
const TCP_WARM_UP: usize = 8 << 20;
const TCP_COUNTED: usize = 48 << 20;
/// Bursts of UDP before the count begins, and while it runs.
const UDP_WARM_UP: usize = 50;
const UDP_COUNTED: usize = 250;
/// Small packets of one flow in a burst; segments of a super-packet.
const BURST: usize = 16;
/// A packet that takes longer is lost: where a gateway is kept from running, a queue that stands too long is
/// shortened, and that is no concern of this test.
const LOST: Duration = Duration::from_millis(50);
/// Bytes of a segment of a UDP super-packet.
const SEGMENT: usize = 1200;

/// Calls of the allocator, of any kind, between two looks at it.
fn calls(before: Stats, after: Stats) -> usize {
    let sum = |stats: Stats| stats.allocations + stats.deallocations + stats.reallocations;
    sum(after) - sum(before)
}

/// Runs `carry` and gives the calls of the allocator meanwhile, and the packets that came out at the far
/// gateway's virtual network.
fn count(pair: &Pair, carry: impl FnOnce()) -> (usize, u64) {
    let arrived = || pair.ends[1].totals().sent["vnet"].packets;
    let packets = arrived();
    let before = ALLOCATOR.stats();
    carry();
    let after = ALLOCATOR.stats();
    (calls(before, after), arrived() - packets)
}

/// One TCP flow at full speed.
fn tcp(pair: &Pair, v6: bool) -> (usize, u64) {
    let [near, far] = &pair.ends;
    let listen = || TcpListener::bind(host(1, v6, 0)).unwrap();
    let listener = far.space.run(listen).unwrap();
    let to = listener.local_addr().unwrap();
    let connect = || TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    let mut sender = near.space.run(connect).unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let buffer = vec![7; 1 << 16];
            while !done.load(Ordering::Relaxed) {
                if sender.write_all(&buffer).is_err() {
                    break;
                }
            }
        });
        let mut buffer = vec![0; 1 << 16];
        let mut read = |bytes: usize| {
            let mut left = bytes;
            while left > 0 {
                let most = left.min(buffer.len());
                match receiver.read(&mut buffer[..most]) {
                    Ok(0) => panic!("the flow has ended"),
                    Ok(read) => left -= read,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => panic!("{error}\n{pair}"),
                }
            }
        };
        read(TCP_WARM_UP);
        let counted = count(pair, || read(TCP_COUNTED));
        done.store(true, Ordering::Relaxed);
        drop(receiver);
        counted
    })
}

/// Several UDP flows of packets of `length` bytes of payload, a burst of each at a time.
fn udp(pair: &Pair, v6: bool, flows: usize, length: usize) -> (usize, u64) {
    let [near, far] = &pair.ends;
    let bind = |end: usize| move || UdpSocket::bind(host(end, v6, 0)).unwrap();
    let sockets: Vec<_> = (0..flows)
        .map(|_| {
            let sender = near.space.run(bind(0)).unwrap();
            let receiver = far.space.run(bind(1)).unwrap();
            if !v6 {
                // Longer packets may be fragmented on their way.
                sockopt::set_ip_mtu_discover(&sender, Ipv4PathMtuDiscovery::DONT).unwrap();
            }
            sender.connect(receiver.local_addr().unwrap()).unwrap();
            receiver.set_read_timeout(Some(LOST)).unwrap();
            (sender, receiver)
        })
        .collect();
    let (packet, mut buffer) = (vec![3; length], vec![0; 2048]);
    let mut burst = || {
        for (sender, _) in &sockets {
            for _ in 0..BURST {
                sender.send(&packet).unwrap();
            }
        }
        for (_, receiver) in &sockets {
            for _ in 0..BURST {
                match receiver.recv(&mut buffer) {
                    Ok(received) => assert_eq!(received, length),
                    // Interrupted: the process was stopped for a while, and goes on.
                    Err(error) => match error.kind() {
                        ErrorKind::WouldBlock | ErrorKind::Interrupted => break,
                        _ => panic!("{error}\n{pair}"),
                    },
                }
            }
        }
    };
    (0..UDP_WARM_UP).for_each(|_| burst());
    count(pair, || (0..UDP_COUNTED).for_each(|_| burst()))
}

/// UDP super-packets, as one program sends them with UDP_SEGMENT.
fn udp_trains(pair: &Pair, v6: bool) -> (usize, u64) {
    use gateway::device::udp::UdpSocket;
    let bind =
        |end: usize| move || UdpSocket::bind(host(end, v6, 4000), UdpOptions::default()).unwrap();
    let sender = pair.ends[0].space.run(bind(0)).unwrap();
    let receiver = pair.ends[1].space.run(bind(1)).unwrap();
    let mut poller = Poller::new().unwrap();
    poller.add(&receiver, 0).unwrap();
    let (train, mut batch) = (vec![5; BURST * SEGMENT], ReceiveBatch::new(8));
    let to = host(1, v6, 4000);
    let mut burst = || {
        let outcome = sender.send_train(&to, &train, SEGMENT, 0);
        assert_eq!((outcome.sent, outcome.error), (BURST, None));
        let mut left = train.len();
        while left > 0 {
            if poller.wait(Some(LOST)).unwrap().count() == 0 {
                break;
            }
            receiver.receive(&mut batch).unwrap();
            let (_, trains) = batch.split();
            left = left.saturating_sub(trains.map(|train| train.len).sum());
        }
    };
    (0..UDP_WARM_UP).for_each(|_| burst());
    count(pair, || (0..UDP_COUNTED).for_each(|_| burst()))
}

fn main() {
    let with = |road, vnet, way| Settings {
        vnet,
        way,
        ..Settings::new(road)
    };
    let shared = |road| Settings {
        workers: 2,
        ..Settings::new(road)
    };
    let shaped = |settings| Settings {
        shaped: true,
        ..settings
    };
    let all = [
        Settings::new(Road::Link),
        Settings::new(Road::QinQ),
        Settings::new(Road::Tunnel4),
        Settings::new(Road::Tunnel6),
        Settings::new(Road::Circuit4),
        Settings::new(Road::Circuit6),
        with(Road::Link, Vnet::Off, Way::Whole),
        with(Road::Link, Vnet::Whole, Way::Off),
        with(Road::Link, Vnet::Refused, Way::Refused),
        with(Road::Tunnel4, Vnet::Off, Way::Whole),
        with(Road::Tunnel4, Vnet::Whole, Way::Off),
        with(Road::Tunnel4, Vnet::Refused, Way::Refused),
        shared(Road::Tunnel4),
        shared(Road::Link),
        shaped(Settings::new(Road::Link)),
        shaped(Settings::new(Road::Tunnel4)),
        shaped(shared(Road::Link)),
        Settings {
            lanes: 2,
            ..shared(Road::Tunnel4)
        },
    ];
    let mut found = Vec::new();
    for settings in all {
        let Some(pair) = Pair::start(settings) else {
            return;
        };
        let mut note = |what: &str, carry: &dyn Fn() -> (usize, u64)| {
            let (mut calls, mut packets) = carry();
            // A shaper's queue takes its memory with the first packet that waits in it, which may come late: there is one
            // for each limit and direction. A tunnel over a circuit takes the memory of a train more when more of them
            // wait than ever did before, of which there can be few. And where a tunnel's far end is reached, and from
            // which address, is written down for the others up to 100 ms after its first packet.
            let is_late = settings.shaped || settings.road.has_tunnel();
            for _ in 0..4 {
                if calls > 0 && is_late {
                    println!("{calls:>6} calls, and again: {what}, {settings:?}");
                    (calls, packets) = carry();
                }
            }
            println!("{calls:>6} calls, {packets:>6} packets: {what}, {settings:?}");
            let least = (UDP_COUNTED * BURST / 2) as u64;
            assert!(packets >= least, "{packets} packets: {what}\n{pair}");
            if calls > 0 {
                found.push(format!(
                    "{calls} in {packets} packets: {what}, {settings:?}"
                ));
            }
        };
        for v6 in [false, true] {
            let family = if v6 { "IPv6" } else { "IPv4" };
            note(&format!("TCP over {family}"), &|| tcp(&pair, v6));
            note(&format!("UDP, 64 B, over {family}"), &|| {
                udp(&pair, v6, 1, 64)
            });
            note(&format!("UDP super-packets over {family}"), &|| {
                udp_trains(&pair, v6)
            });
        }
        if settings.workers > 1 {
            // Of so many flows some come in at each worker.
            note("16 UDP flows", &|| udp(&pair, false, 16, 64));
        }
        if matches!(settings.road, Road::Tunnel4) {
            note("UDP in fragments", &|| udp(&pair, false, 1, 1450));
        }
        if settings.workers > 1 && matches!(settings.road, Road::Tunnel4) {
            let end = &pair.ends[0];
            // With lanes each worker has a session of its own; without, what it reads crosses over.
            let crossed = end.totals_of(1).received["vnet"].packets;
            assert!(crossed > 0, "nothing crossed over to the tunnel's worker");
            let sent = end.totals_of(1).sent[end.road()].packets;
            assert!(
                (sent == 0) == (settings.lanes == 1),
                "the other worker has sent {sent} packets over {} lanes",
                settings.lanes
            );
        }
    }
    assert!(
        found.is_empty(),
        "the allocator was called per packet:\n{}",
        found.join("\n")
    );
}
