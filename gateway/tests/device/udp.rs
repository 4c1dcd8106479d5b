//! Trains over loopback and veth.

use crate::lab::{alone, ready, veth};
use crate::packet::pattern;
use gateway::device::netlink::Netlink;
use gateway::device::udp::{
    MAX_SEGMENTS, PeerPath, ReceiveBatch, SendOutcome, UdpOptions, UdpSocket,
};
use gateway::device::{DeviceError, SendError};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// How long anything may take that is only waited for.
const PATIENCE: Duration = Duration::from_secs(10);

const V4: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const V6: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 0);

fn pair(address: SocketAddr, options: UdpOptions) -> (UdpSocket, UdpSocket, SocketAddr) {
    let receiver = UdpSocket::bind(address, UdpOptions::default()).unwrap();
    let sender = UdpSocket::bind(address, options).unwrap();
    let to = receiver.local_address().unwrap();
    (sender, receiver, to)
}

/// Takes trains until `count` datagrams are there: them with their traffic class, and the number of trains.
fn collect(socket: &UdpSocket, count: usize) -> (Vec<(Vec<u8>, u8)>, usize) {
    let mut batch = ReceiveBatch::new(4);
    let (mut datagrams, mut trains) = (Vec::new(), 0);
    while datagrams.len() < count {
        ready(socket);
        socket.receive(&mut batch).unwrap();
        for train in batch.trains() {
            trains += 1;
            for datagram in train.bytes.chunks_mut(train.stride) {
                datagrams.push((datagram.to_vec(), train.traffic_class));
            }
        }
    }
    (datagrams, trains)
}

fn cut(bytes: &[u8], stride: usize, class: u8) -> Vec<(Vec<u8>, u8)> {
    bytes.chunks(stride).map(|d| (d.to_vec(), class)).collect()
}

#[test]
fn a_train_arrives_whole_with_its_traffic_class() {
    alone(|| {
        for address in [V4, V6] {
            let (sender, receiver, to) = pair(address, UdpOptions::default());
            assert!(sender.sends_trains() && receiver.receives_trains());
            let from = sender.local_address().unwrap();
            // EF with ECT(0); none; a last datagram that is shorter, and one alone.
            for (len, class) in [(14_000, 0xba), (13_501, 0), (300, 0x03)] {
                let bytes = pattern(len);
                let outcome = sender.send_train(&to, &bytes, 1400, class);
                let count = len.div_ceil(1400);
                let wanted = SendOutcome {
                    sent: count,
                    ..SendOutcome::default()
                };
                assert_eq!(outcome, wanted);
                ready(&receiver);
                let mut batch = ReceiveBatch::new(1);
                assert_eq!(receiver.receive(&mut batch).unwrap(), 1);
                let train = batch.trains().next().unwrap();
                assert_eq!((train.source, train.traffic_class), (from, class));
                assert_eq!(train.stride, len.min(1400));
                assert!(train.bytes == bytes);
                assert_eq!(receiver.receive(&mut batch).unwrap(), 0);
                assert_eq!(batch.trains().count(), 0);
            }
        }
    });
}

#[test]
fn a_train_beyond_one_call_takes_several() {
    alone(|| {
        let (sender, receiver, to) = pair(V4, UdpOptions::default());
        // Bound by the number of segments, and by the length.
        for (count, stride) in [(3 * MAX_SEGMENTS + 5, 100), (100, 1452)] {
            let bytes = pattern(count * stride - 7);
            let outcome = sender.send_train(&to, &bytes, stride, 0x28);
            assert_eq!(
                (outcome.sent, outcome.error, outcome.split),
                (count, None, false)
            );
            assert!(collect(&receiver, count).0 == cut(&bytes, stride, 0x28));
        }
    });
}

#[test]
fn a_refused_train_arrives_datagram_by_datagram_and_is_asked_for_again_later() {
    alone(|| {
        for address in [V4, V6] {
            let options = UdpOptions {
                refuse_gso: true,
                ..UdpOptions::default()
            };
            let (sender, receiver, to) = pair(address, options);
            let bytes = pattern(5 * 1200 + 77);
            let mut refused = Vec::new();
            for number in 0..70 {
                let outcome = sender.send_train(&to, &bytes, 1200, 0x88);
                assert_eq!(
                    (outcome.sent, outcome.error, outcome.split),
                    (6, None, true)
                );
                if outcome.refused {
                    refused.push(number);
                }
                assert!(collect(&receiver, 6).0 == cut(&bytes, 1200, 0x88));
            }
            assert_eq!(refused, [0, 65], "after a pause of 64 it is asked again");
            assert!(!sender.sends_trains());
        }
    });
}

#[test]
fn without_offload_trains_are_split_and_nothing_is_refused() {
    alone(|| {
        let options = UdpOptions {
            offload: false,
            ..UdpOptions::default()
        };
        let (sender, receiver, to) = pair(V4, options);
        assert!(!sender.sends_trains() && !sender.receives_trains());
        let bytes = pattern(4000);
        let outcome = sender.send_train(&to, &bytes, 1000, 0);
        assert_eq!(
            (outcome.sent, outcome.split, outcome.refused),
            (4, true, false)
        );
        let (datagrams, trains) = collect(&receiver, 4);
        assert!(datagrams == cut(&bytes, 1000, 0));
        assert_eq!(trains, 4);
        // The other way: a train comes cut to a socket without UDP_GRO.
        let back = sender.local_address().unwrap();
        assert_eq!(receiver.send_train(&back, &bytes, 1000, 0).sent, 4);
        assert_eq!(collect(&sender, 4).1, 4);
    });
}

#[test]
fn datagrams_that_do_not_fit_are_too_big_and_not_the_offloads_fault() {
    alone(|| {
        let mut netlink = veth(1500);
        netlink
            .add_address("a", "10.0.0.1/24".parse().unwrap())
            .unwrap();
        let discovery = UdpOptions {
            path_mtu_discovery: true,
            ..UdpOptions::default()
        };
        let socket = UdpSocket::bind(V4_ANY, discovery).unwrap();
        let to = SocketAddr::from(([10, 0, 0, 2], 9));
        let outcome = socket.send_train(&to, &pattern(4 * 1473), 1473, 0);
        assert_eq!(outcome.sent, 0);
        assert_eq!(outcome.error, Some(SendError::TooBig), "never fragmented");
        assert!(!outcome.refused && socket.sends_trains());
        let outcome = socket.send_train(&to, &pattern(4 * 1472), 1472, 0);
        assert_eq!(
            (outcome.sent, outcome.error, outcome.split),
            (4, None, false)
        );
    });
}

const V4_ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
const V6_ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

#[test]
fn icmp_errors_do_not_stop_the_socket() {
    alone(|| {
        for address in [V4, V6] {
            let (sender, receiver, to) = pair(address, UdpOptions::default());
            let closed = UdpSocket::bind(address, UdpOptions::default()).unwrap();
            let nobody = closed.local_address().unwrap();
            drop(closed);
            for _ in 0..3 {
                // Port unreachable comes back before the call returns, loopback being what it is.
                assert_eq!(sender.send_train(&nobody, b"knock", 5, 0).sent, 1);
            }
            assert_eq!(sender.send_train(&to, b"hello", 5, 0).error, None);
            assert_eq!(collect(&receiver, 1).0, [(b"hello".to_vec(), 0)]);
            assert_eq!(sender.receive(&mut ReceiveBatch::new(2)).unwrap(), 0);
            let back = sender.local_address().unwrap();
            assert_eq!(receiver.send_train(&back, b"there", 5, 0).sent, 1);
            assert_eq!(collect(&sender, 1).0, [(b"there".to_vec(), 0)]);
        }
    });
}

#[test]
fn an_address_without_a_route_is_another_error_and_the_next_one_works() {
    alone(|| {
        let (sender, receiver, to) = pair(V4, UdpOptions::default());
        let nowhere = SocketAddr::from(([192, 0, 2, 1], 9));
        let outcome = sender.send_train(&nowhere, &pattern(3000), 1000, 0);
        assert_eq!(outcome.sent, 0);
        assert!(
            matches!(outcome.error, Some(SendError::Other(_))),
            "{outcome:?}"
        );
        assert!(sender.sends_trains());
        assert_eq!(sender.send_train(&to, b"on", 2, 0).sent, 1);
        collect(&receiver, 1);
    });
}

#[test]
fn drops_of_the_kernel_are_counted() {
    alone(|| {
        let options = UdpOptions {
            receive_buffer: 4096,
            ..UdpOptions::default()
        };
        let receiver = UdpSocket::bind(V4, options).unwrap();
        let sender = UdpSocket::bind(V4, UdpOptions::default()).unwrap();
        let to = receiver.local_address().unwrap();
        for _ in 0..100 {
            assert_eq!(sender.send_train(&to, &pattern(1000), 1000, 0).sent, 1);
        }
        let mut batch = ReceiveBatch::new(16);
        let mut taken = 0;
        loop {
            let count = receiver.receive(&mut batch).unwrap();
            if count == 0 {
                break;
            }
            taken += count as u64;
        }
        // The count comes with the next one that is received.
        sender.send_train(&to, b"last", 4, 0);
        collect(&receiver, 1);
        assert!(taken < 100);
        assert_eq!(receiver.kernel_drops(), 100 - taken);
        assert_eq!(receiver.kernel_drops(), 0, "since the last call");
    });
}

#[test]
fn a_port_in_use_is_named_and_may_be_shared_if_both_agree() {
    alone(|| {
        let first = UdpSocket::bind(V4, UdpOptions::default()).unwrap();
        let address = first.local_address().unwrap();
        let error = UdpSocket::bind(address, UdpOptions::default()).unwrap_err();
        assert!(matches!(error, DeviceError::Address { address: a, .. } if a == address));
        drop(first);
        let shared = UdpOptions {
            reuse_port: true,
            ..UdpOptions::default()
        };
        let _both = [(); 2].map(|()| UdpSocket::bind(address, shared).unwrap());
        // IPv4 and IPv6 have the port side by side.
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port()));
        UdpSocket::bind(any, UdpOptions::default()).unwrap();
    });
}

#[test]
fn a_train_longer_than_its_route_goes_in_fragments_and_is_not_tried_each_time() {
    alone(|| {
        Netlink::open().unwrap().set_mtu("lo", 1_400).unwrap();
        for address in [V4, V6] {
            let (sender, receiver, to) = pair(address, UdpOptions::default());
            let (path, bytes) = (PeerPath::default(), pattern(5 * 1_452 + 77));
            let (mut refused, mut fragmented) = (Vec::new(), 0);
            for number in 0..70 {
                let outcome = sender.send_train_by(&path, &to, &bytes, 1_452, 0x88);
                assert_eq!((outcome.sent, outcome.error), (6, None), "{address}");
                if outcome.refused {
                    refused.push(number);
                }
                fragmented += outcome.cut;
                assert!(collect(&receiver, 6).0 == cut(&bytes, 1_452, 0x88));
            }
            assert_eq!(refused, [0, 65], "tried again after a pause of 64");
            // The last of each is short; of a train that was tried, all count.
            assert_eq!(fragmented, 70 * 5 + 2, "{address}");
            // It is this peer's way that is narrow, and only for datagrams of that length.
            assert!(sender.sends_trains());
            assert!(!sender.send_train_by(&path, &to, &bytes, 1_200, 0).split);
            collect(&receiver, 7);

            let discovery = UdpOptions {
                path_mtu_discovery: true,
                ..UdpOptions::default()
            };
            let sender = UdpSocket::bind(address, discovery).unwrap();
            let outcome = sender.send_train(&to, &bytes, 1_452, 0);
            assert_eq!((outcome.sent, outcome.error), (1, Some(SendError::TooBig)));
            collect(&receiver, 1);
        }
    });
}

#[test]
fn an_answer_leaves_from_the_address_that_was_called_as_long_as_that_is_there() {
    alone(|| {
        let mut netlink = Netlink::open().unwrap();
        for [first, second] in [
            ["192.0.2.1/32", "192.0.2.9/32"],
            ["fd00::1/128", "fd00::9/128"],
        ] {
            let nets = [first, second].map(|net| net.parse::<ipnet::IpNet>().unwrap());
            for net in nets {
                netlink.add_address("lo", net).unwrap();
            }
            let [first, second] = nets.map(|net| net.addr());
            let any = if first.is_ipv4() { V4_ANY } else { V6_ANY };
            let deadline = Instant::now() + PATIENCE;
            let bind = |at| loop {
                match UdpSocket::bind(at, UdpOptions::default()) {
                    Ok(socket) => break socket,
                    Err(error) => assert!(Instant::now() < deadline, "{error}"),
                }
            };
            let (gateway, peer) = (bind(any), bind(SocketAddr::new(first, 0)));
            let port = gateway.local_address().unwrap().port();
            let from = peer.local_address().unwrap();

            // An IPv6 address is reached a moment after it was added, also where nothing is to be detected.
            let mut batch = ReceiveBatch::new(1);
            while gateway.receive(&mut batch).unwrap() == 0 {
                assert!(Instant::now() < deadline, "{second} is not reached");
                peer.send_train(&SocketAddr::new(second, port), b"call", 4, 0);
                std::thread::yield_now();
            }
            let called = batch.trains().next().unwrap().local;
            assert_eq!(called, Some(second));

            let path = PeerPath::default();
            path.heard_at(called);
            let bytes = pattern(3_000);
            let source = || {
                let outcome = gateway.send_train_by(&path, &from, &bytes, 1_000, 0xb8);
                assert_eq!((outcome.sent, outcome.error), (3, None));
                assert!(!outcome.refused && gateway.sends_trains());
                ready(&peer);
                let mut batch = ReceiveBatch::new(4);
                let trains = peer.receive(&mut batch).unwrap();
                let source = batch.trains().next().unwrap().source;
                let datagrams = |train: gateway::device::udp::ReceivedTrain<'_>| {
                    train.bytes.len().div_ceil(train.stride)
                };
                let taken: usize = batch.trains().map(datagrams).sum();
                assert!(trains > 0);
                collect(&peer, 3 - taken);
                source.ip()
            };
            assert_eq!(source(), second);
            netlink.delete_address("lo", nets[1]).unwrap();
            assert_eq!(source(), first, "the route's own");
            assert_eq!(path.local(), None);
        }
    });
}

#[test]
fn a_datagram_of_length_zero_is_an_entry_of_length_zero() {
    alone(|| {
        let (sender, receiver, to) = pair(V4, UdpOptions::default());
        let plain = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        plain.send_to(&[], to).unwrap();
        sender.send_train(&to, b"more", 4, 0);
        let mut batch = ReceiveBatch::new(4);
        let mut lengths = Vec::new();
        while lengths.len() < 2 {
            ready(&receiver);
            receiver.receive(&mut batch).unwrap();
            lengths.extend(batch.split().1.map(|train| train.len));
        }
        assert_eq!(lengths, [0, 4]);
    });
}
