//! Which worker the kernel gives a packet to.

use crate::lab::{alone, ready, veth};
use crate::packet::finished;
use gateway::device::filter;
use gateway::device::link::{LinkOptions, LinkSocket, MAX_FRAME};
use gateway::device::netlink::{Netlink, Route, Via};
use gateway::device::offload::{GsoKind, Offload};
use gateway::device::steering::{FlowProgram, NetworkAt};
use gateway::device::tun::{MAX_PACKET, Tun};
use gateway::device::udp::{ReceiveBatch, UdpOptions, UdpSocket};
use gateway::device::vlan::Tags;
use gateway::worker::ethernet::Framing;
use routing::packet::Version;
use std::io::IoSlice;
use std::net::UdpSocket as KernelSocket;
use std::time::Duration;

const WORKERS: u16 = 4;
const NEAR: [u8; 6] = [2, 0, 0, 0, 0, 1];
const FAR: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The packet's answer: addresses and ports the other way round, its checksums still right.
fn answer(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let v6 = bytes[0] >> 4 == 6;
    let (addresses, length, ports) = if v6 { (8, 16, 40) } else { (12, 4, 20) };
    bytes[addresses..addresses + 2 * length].rotate_left(length);
    bytes[ports..ports + 4].rotate_left(2);
    bytes
}

#[test]
fn both_directions_of_a_flow_are_given_to_one_worker() {
    alone(|| {
        veth(1500);
        let tun = Tun::create("t", 1500, usize::from(WORKERS), true).unwrap();
        let program = FlowProgram::load(WORKERS, NetworkAt::Start).unwrap();
        tun.steer(&program).unwrap();
        let mut netlink = Netlink::open().unwrap();
        netlink
            .add_address("t", "10.1.0.4/16".parse().unwrap())
            .unwrap();
        netlink
            .add_route(&Route::new("10.2.0.0/16".parse().unwrap(), Via::Link("t")))
            .unwrap();

        // The kernel's packets, as the TUN device gives them out.
        let mut worker_of_flow = Vec::new();
        let mut buffer = vec![0; MAX_PACKET];
        for flow in 0..64_u16 {
            let socket = KernelSocket::bind(("10.1.0.4", 20_000 + flow)).unwrap();
            let far = std::net::Ipv4Addr::new(10, 2, 0, flow as u8);
            socket.send_to(b"there", (far, 4_000)).unwrap();
            let read = |queue: &gateway::device::tun::TunQueue, buffer: &mut [u8]| {
                queue.read(buffer).unwrap().map(|(_, length)| length)
            };
            let (worker, length) = loop {
                // Router solicitations may stand in front.
                let found = (tun.queues.iter().enumerate())
                    .find_map(|(at, queue)| Some((at, read(queue, &mut buffer)?)));
                match found {
                    Some((worker, length)) if buffer[0] >> 4 == 4 => break (worker, length),
                    _ => {}
                }
            };
            worker_of_flow.push((worker, answer(&buffer[..length])));
        }
        for worker in 0..usize::from(WORKERS) {
            let flows = worker_of_flow.iter().filter(|(w, _)| *w == worker).count();
            assert!(flows > 4, "worker {worker} has {flows} of 64 flows");
        }

        // Their answers, as a link's packet sockets give them out.
        let filter_program = filter::data(Tags::NONE, FAR);
        let mut options = LinkOptions::new("b", &filter_program);
        options.fanout = Some((7, Some(&program)));
        let group: Vec<_> = (0..WORKERS)
            .map(|_| LinkSocket::open(&options).unwrap())
            .collect();
        let sender_program = filter::data(Tags::NONE, NEAR);
        let sender = LinkSocket::open(&LinkOptions::new("a", &sender_program)).unwrap();
        let framing = Framing::new(Tags::NONE, NEAR);
        let mut frame = vec![0; MAX_FRAME];
        for (worker, bytes) in worker_of_flow {
            let prefix = framing.ip_prefix(FAR, Version::V4);
            let parts = [IoSlice::new(&bytes)];
            sender
                .send(&Offload::default(), 0, prefix.bytes(), &parts)
                .unwrap();
            ready(&group[worker]);
            assert!(group[worker].receive(&mut frame).unwrap().is_some());
        }
    });
}

#[test]
fn a_program_looks_behind_an_inner_tag_and_at_both_versions() {
    alone(|| {
        veth(1600);
        let tags = [
            (Tags::NONE, NetworkAt::Start),
            (Tags::new(&[10], 0x8100).unwrap(), NetworkAt::Start),
            (
                Tags::new(&[100, 10], 0x88a8).unwrap(),
                NetworkAt::BehindInnerTag,
            ),
        ];
        let mut seen: Vec<Vec<usize>> = Vec::new();
        for (number, (tags, network)) in tags.into_iter().enumerate() {
            let program = FlowProgram::load(WORKERS, network).unwrap();
            let receiving = filter::data(tags, FAR);
            let mut options = LinkOptions::new("b", &receiving);
            options.fanout = Some((20 + number as u16, Some(&program)));
            let group: Vec<_> = (0..WORKERS)
                .map(|_| LinkSocket::open(&options).unwrap())
                .collect();
            let sending = filter::data(tags, NEAR);
            let sender = LinkSocket::open(&LinkOptions::new("a", &sending)).unwrap();
            let framing = Framing::new(tags, NEAR);
            let mut frame = vec![0; MAX_FRAME];
            let mut workers = Vec::new();
            for port in 0..32_u8 {
                for v6 in [false, true] {
                    let kind = if port % 2 == 0 {
                        GsoKind::Udp
                    } else {
                        kind_of(v6)
                    };
                    let mut sent = finished(kind, v6, b"which");
                    let ports = if v6 { 40 } else { 20 };
                    sent.bytes[ports + 1] = port;
                    let version = if v6 { Version::V6 } else { Version::V4 };
                    let prefix = framing.ip_prefix(FAR, version);
                    for bytes in [sent.bytes.clone(), answer(&sent.bytes)] {
                        let parts = [IoSlice::new(&bytes)];
                        sender
                            .send(&Offload::default(), 0, prefix.bytes(), &parts)
                            .unwrap();
                        let mut poller = gateway::device::event::Poller::new().unwrap();
                        for (token, socket) in group.iter().enumerate() {
                            poller.add(socket, token as u64).unwrap();
                        }
                        let ready: Vec<_> = poller
                            .wait(Some(Duration::from_secs(10)))
                            .unwrap()
                            .collect();
                        assert_eq!(ready.len(), 1, "{ready:?}");
                        let worker = ready[0] as usize;
                        assert!(group[worker].receive(&mut frame).unwrap().is_some());
                        workers.push(worker);
                    }
                }
            }
            for both in workers.chunks(2) {
                assert_eq!(both[0], both[1], "a flow and its answers");
            }
            for worker in 0..usize::from(WORKERS) {
                assert!(workers.contains(&worker), "{workers:?}");
            }
            seen.push(workers);
        }
        assert_eq!(seen[0], seen[1], "tags make no difference");
        assert_eq!(seen[0], seen[2], "tags make no difference");
    });
}

fn kind_of(v6: bool) -> GsoKind {
    if v6 { GsoKind::Tcp6 } else { GsoKind::Tcp4 }
}

#[test]
fn a_datagram_goes_to_the_worker_in_its_receiver_index() {
    alone(|| {
        let options = UdpOptions {
            reuse_port: true,
            ..UdpOptions::default()
        };
        let first = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), options).unwrap();
        first.steer_by_receiver_index().unwrap();
        let address = first.local_address().unwrap();
        let mut workers = vec![first];
        while workers.len() < usize::from(WORKERS) {
            workers.push(UdpSocket::bind(address, options).unwrap());
        }
        let sender = KernelSocket::bind("127.0.0.1:0").unwrap();
        let mut batch = ReceiveBatch::new(1);
        for (kind, at, length) in [
            (1_u8, None, 148),
            (2, Some(11), 92),
            (3, Some(7), 64),
            (4, Some(7), 32),
        ] {
            for worker in 0..WORKERS as u8 {
                let mut datagram = vec![0xee; length];
                datagram[..4].copy_from_slice(&[kind, 0, 0, 0]);
                let expected = at.map_or(0, |at: usize| {
                    datagram[at] = worker;
                    worker
                });
                sender.send_to(&datagram, address).unwrap();
                let socket = &workers[usize::from(expected)];
                ready(socket);
                assert_eq!(socket.receive(&mut batch).unwrap(), 1, "type {kind}");
            }
        }
    });
}
