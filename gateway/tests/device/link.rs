//! Packet sockets on the two ends of a veth pair.

use crate::lab::{alone, ready, up, veth};
use crate::packet::{Packet, finished, packet, pattern};
use gateway::device::event::readable;
use gateway::device::filter;
use gateway::device::interface::Interface;
use gateway::device::link::{Frame, LinkOptions, LinkSocket, MAX_FRAME};
use gateway::device::offload::{GsoKind, Offload};
use gateway::device::vlan::{CUSTOMER_TAG, SERVICE_TAG, Tags};
use gateway::device::{DeviceError, ReceiveError, SendError};
use gateway::worker::ethernet::{Framing, usable_mtu};
use routing::packet::Version;
use std::collections::HashMap;
use std::io::IoSlice;
use std::process::Command;

const NEAR: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const FAR: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

fn all_tags() -> [Tags; 4] {
    [
        (&[][..], CUSTOMER_TAG),
        (&[100], CUSTOMER_TAG),
        (&[100, 10], CUSTOMER_TAG),
        (&[100, 10], SERVICE_TAG),
    ]
    .map(|(ids, kind)| Tags::new(ids, kind).unwrap())
}

fn data_socket(interface: &str, tags: Tags, mac: [u8; 6]) -> LinkSocket {
    LinkSocket::open(&LinkOptions::new(interface, &filter::data(tags, mac))).unwrap()
}

fn send(
    socket: &LinkSocket,
    link: &Framing,
    to: [u8; 6],
    packet: &Packet,
) -> Result<(), SendError> {
    let version = match packet.bytes[0] >> 4 {
        4 => Version::V4,
        _ => Version::V6,
    };
    // In three pieces, as a coalesced packet would lie.
    let (headers, payload) = packet.bytes.split_at(usize::from(packet.hdr_len));
    let (one, two) = payload.split_at(payload.len() / 3);
    let parts = [headers, one, two].map(IoSlice::new);
    let prefix = link.ip_prefix(to, version);
    socket.send(&packet.offload, packet.hdr_len, prefix.bytes(), &parts)
}

fn receive(socket: &LinkSocket, buffer: &mut [u8]) -> Frame {
    ready(socket);
    socket.receive(buffer).unwrap().expect("it is readable")
}

#[test]
fn packets_and_super_packets_cross_each_kind_of_link_as_they_are() {
    alone(|| {
        veth(1508);
        let mut buffer = vec![0; MAX_FRAME];
        for tags in all_tags() {
            let (near, far) = (Framing::new(tags, NEAR), Framing::new(tags, FAR));
            let sender = data_socket("a", tags, NEAR);
            let receiver = data_socket("b", tags, FAR);
            let long = pattern(62_000);
            for sent in [
                finished(GsoKind::Udp, false, b"ping"),
                finished(GsoKind::Tcp6, true, &long[..1400]),
                packet(GsoKind::Udp, true, &long[..700], 0),
                packet(GsoKind::Tcp4, false, b"", 0),
                packet(GsoKind::Tcp4, false, &long, 1448),
                packet(GsoKind::Tcp6, true, &long, 1428),
                packet(GsoKind::Udp, false, &long[..50_000], 1200),
                packet(GsoKind::Udp, true, &long[..1300], 1200),
            ] {
                send(&sender, &near, FAR, &sent).unwrap();
                let frame = receive(&receiver, &mut buffer);
                assert_eq!(frame.stripped_tag, tags.outer(), "{tags}");
                assert_eq!(frame.packet_type, 3, "the kernel's stack leaves it alone");
                let ip = far.ip(&frame, &buffer).unwrap();
                let offload = Offload {
                    checksum_valid: false,
                    ..ip.offload
                };
                assert_eq!(offload, sent.offload, "{tags}");
                assert!(buffer[ip.range] == sent.bytes, "other bytes on {tags}");
            }
            assert_eq!(receiver.receive(&mut buffer), Ok(None));
            assert_eq!(sender.receive(&mut buffer), Ok(None), "what it sent itself");
            assert_eq!(receiver.kernel_drops(), 0);
        }
    });
}

#[test]
fn the_usable_mtu_is_what_the_kernel_takes() {
    alone(|| {
        veth(1500);
        for tags in all_tags() {
            let link = Framing::new(tags, NEAR);
            let sender = data_socket("a", tags, NEAR);
            let (mtu, _) = usable_mtu(1500, tags);
            let of_len = |len: u16| finished(GsoKind::Udp, false, &pattern(usize::from(len) - 28));
            assert_eq!(send(&sender, &link, FAR, &of_len(mtu)), Ok(()), "{tags}");
            let longer = send(&sender, &link, FAR, &of_len(mtu + 1));
            assert_eq!(longer, Err(SendError::TooBig), "{tags}");
        }
    });
}

#[test]
fn data_and_control_share_the_frames_out() {
    alone(|| {
        veth(1500);
        let mut buffer = vec![0; MAX_FRAME];
        for tags in all_tags() {
            let near = Framing::new(tags, NEAR);
            let far = Framing::new(tags, FAR);
            let sender = data_socket("a", tags, NEAR);
            let data = data_socket("b", tags, FAR);
            let options = filter::control(tags, FAR);
            let control = LinkSocket::open(&LinkOptions::new("b", &options)).unwrap();
            let mut neighbor = vec![0; 64];
            (neighbor[0], neighbor[6], neighbor[40]) = (0x60, 58, 135);
            let mut echo = neighbor.clone();
            echo[40] = 128;
            let broadcast = [0xff; 6];
            let group = [0x33, 0x33, 0xff, 0, 0, 1];
            for (to, ethertype, payload, wanted) in [
                (broadcast, 0x0806, vec![0; 28], (false, true)),
                (FAR, 0x0806, vec![0; 28], (false, true)),
                (group, 0x86dd, neighbor.clone(), (false, true)),
                (FAR, 0x86dd, neighbor, (false, true)),
                (FAR, 0x86dd, echo, (true, false)),
                (FAR, 0x0800, vec![0x45; 40], (true, false)),
                (NEAR, 0x0800, vec![0x45; 40], (false, false)),
                (broadcast, 0x0800, vec![0x45; 40], (false, false)),
                (FAR, 0x88cc, vec![0; 46], (false, false)),
            ] {
                let prefix = near.prefix(to, ethertype);
                let parts = [IoSlice::new(&payload)];
                sender
                    .send(&Offload::default(), 0, prefix.bytes(), &parts)
                    .unwrap();
                // veth hands over within the softirq of the send: what is to come is there.
                let got = (readable(&data), readable(&control));
                assert_eq!(got, wanted, "{to:x?} {ethertype:#x} on {tags}");
                for socket in [&data, &control] {
                    if let Some(frame) = socket.receive(&mut buffer).unwrap() {
                        let found = far.payload(&frame, &buffer).unwrap();
                        assert_eq!((found.ethertype, found.source), (ethertype, NEAR));
                        assert_eq!(found.destination, to);
                        assert!(buffer[found.range].starts_with(&payload));
                    }
                }
            }
            // Frames of other links on the same wire.
            for other in all_tags().into_iter().filter(|other| *other != tags) {
                for (to, ethertype) in [(FAR, 0x0800), (broadcast, 0x0806)] {
                    let prefix = Framing::new(other, NEAR).prefix(to, ethertype);
                    let parts = [IoSlice::new(&[0x45; 46])];
                    sender
                        .send(&Offload::default(), 0, prefix.bytes(), &parts)
                        .unwrap();
                }
            }
            assert!(!readable(&data) && !readable(&control), "{tags}");
        }
    });
}

#[test]
fn a_priority_tag_is_taken_on_an_untagged_link_and_wrong_tags_are_taken_note_of() {
    alone(|| {
        veth(1508);
        let mut buffer = vec![0; MAX_FRAME];
        let near = Framing::new(Tags::NONE, NEAR);
        let far = Framing::new(Tags::NONE, FAR);
        let sender = data_socket("a", Tags::NONE, NEAR);
        let receiver = data_socket("b", Tags::NONE, FAR);
        let program = filter::mistagged(Tags::NONE, Some(FAR), &[]);
        let stranger = LinkSocket::open(&LinkOptions {
            receive_buffer: 1 << 14,
            ..LinkOptions::new("b", &program)
        })
        .unwrap();
        let tagged = |control: u16, sent: &Packet| {
            let prefix = near.ip_prefix(FAR, Version::V4);
            let (addresses, ethertype) = prefix.bytes().split_at(12);
            let tag = [CUSTOMER_TAG.to_be_bytes(), control.to_be_bytes()].concat();
            let layer2 = [addresses, &tag, ethertype].concat();
            let parts = [IoSlice::new(&sent.bytes)];
            sender
                .send(&sent.offload, sent.hdr_len, &layer2, &parts)
                .unwrap();
        };
        for sent in [
            finished(GsoKind::Udp, false, b"ping"),
            packet(GsoKind::Tcp4, false, &pattern(62_000), 1448),
        ] {
            tagged(0xa000, &sent);
            let frame = receive(&receiver, &mut buffer);
            assert_eq!(frame.stripped_tag, Some((CUSTOMER_TAG, 0xa000)));
            let ip = far.ip(&frame, &buffer).unwrap();
            assert!(buffer[ip.range] == sent.bytes);
        }
        assert_eq!(stranger.kernel_frames(), 0);
        let sent = finished(GsoKind::Udp, false, &pattern(400));
        for _ in 0..200 {
            tagged(0xa0c8, &sent);
        }
        assert_eq!(receiver.receive(&mut buffer), Ok(None));
        // All are counted, of some the first bytes are kept.
        assert_eq!(stranger.kernel_frames(), 200);
        let frame = receive(&stranger, &mut buffer);
        assert_eq!(frame.len, filter::MISTAGGED_LEN as usize);
        assert_eq!(frame.stripped_tag, Some((CUSTOMER_TAG, 0xa0c8)));
    });
}

#[test]
fn a_removed_interface_is_told_once_and_sending_fails_cleanly() {
    alone(|| {
        let mut netlink = veth(1500);
        let link = Framing::new(Tags::NONE, NEAR);
        let socket = data_socket("a", Tags::NONE, NEAR);
        let mut buffer = vec![0; MAX_FRAME];
        assert_eq!(socket.receive(&mut buffer), Ok(None));
        assert!(!socket.is_gone());
        netlink.delete_link("b").unwrap();
        ready(&socket);
        assert_eq!(socket.receive(&mut buffer), Err(ReceiveError::Down));
        assert_eq!(socket.receive(&mut buffer), Ok(None));
        assert!(socket.is_gone());
        let sent = finished(GsoKind::Udp, false, b"late");
        assert_eq!(send(&socket, &link, FAR, &sent), Err(SendError::Down));
        let sent = packet(GsoKind::Tcp4, false, &pattern(9000), 1448);
        assert_eq!(send(&socket, &link, FAR, &sent), Err(SendError::Down));
    });
}

#[test]
fn an_interface_that_was_down_carries_frames_again() {
    alone(|| {
        veth(1500);
        let link = Framing::new(Tags::NONE, NEAR);
        let sender = data_socket("a", Tags::NONE, NEAR);
        Interface::set_up("b", false).unwrap();
        let receiver = data_socket("b", Tags::NONE, FAR);
        let mut buffer = vec![0; MAX_FRAME];
        assert_eq!(receiver.receive(&mut buffer), Err(ReceiveError::Down));
        assert!(!receiver.is_gone());
        up(&["b", "a"]);
        let sent = finished(GsoKind::Udp, false, b"hello");
        send(&sender, &link, FAR, &sent).unwrap();
        assert_eq!(receive(&receiver, &mut buffer).len, 14 + 33);
    });
}

#[test]
fn a_frame_longer_than_the_buffer_is_told_and_the_next_one_comes() {
    alone(|| {
        veth(1500);
        let link = Framing::new(Tags::NONE, NEAR);
        let sender = data_socket("a", Tags::NONE, NEAR);
        let receiver = data_socket("b", Tags::NONE, FAR);
        let mut buffer = [0; 500];
        let long = finished(GsoKind::Udp, false, &pattern(1000));
        let short = finished(GsoKind::Udp, false, b"short");
        send(&sender, &link, FAR, &long).unwrap();
        send(&sender, &link, FAR, &short).unwrap();
        ready(&receiver);
        assert_eq!(receiver.receive(&mut buffer), Err(ReceiveError::Malformed));
        assert_eq!(receive(&receiver, &mut buffer).len, 14 + 33);
    });
}

#[test]
fn without_offload_nothing_unfinished_is_sent() {
    alone(|| {
        veth(1500);
        let link = Framing::new(Tags::NONE, NEAR);
        let program = filter::data(Tags::NONE, NEAR);
        let mut options = LinkOptions::new("a", &program);
        options.offload = false;
        let sender = LinkSocket::open(&options).unwrap();
        let whole = packet(GsoKind::Tcp4, false, &pattern(9000), 1448);
        let partial = packet(GsoKind::Tcp4, false, b"x", 0);
        let done = finished(GsoKind::Tcp4, false, b"x");
        assert_eq!(
            send(&sender, &link, FAR, &whole),
            Err(SendError::GsoRefused)
        );
        assert_eq!(
            send(&sender, &link, FAR, &partial),
            Err(SendError::GsoRefused)
        );
        assert_eq!(send(&sender, &link, FAR, &done), Ok(()));
    });
}

#[test]
fn a_fanout_group_takes_each_frame_once_and_keeps_a_flow_together() {
    alone(|| {
        veth(1500);
        let link = Framing::new(Tags::NONE, NEAR);
        let sender = data_socket("a", Tags::NONE, NEAR);
        let program = filter::data(Tags::NONE, FAR);
        let mut options = LinkOptions::new("b", &program);
        options.fanout = Some((7, None));
        let group = [(); 2].map(|()| LinkSocket::open(&options).unwrap());
        for flow in 0..32_u8 {
            for number in 0..4 {
                let mut sent = finished(GsoKind::Udp, false, &[flow, number]);
                sent.bytes[21] = flow;
                send(&sender, &link, FAR, &sent).unwrap();
            }
        }
        let mut owner = HashMap::new();
        let mut count = [0; 2];
        let mut buffer = vec![0; MAX_FRAME];
        for (which, socket) in group.iter().enumerate() {
            while let Some(frame) = socket.receive(&mut buffer).unwrap() {
                let flow = buffer[14 + 28..frame.len][0];
                assert_eq!(*owner.entry(flow).or_insert(which), which, "flow {flow}");
                count[which] += 1;
            }
        }
        assert_eq!(count[0] + count[1], 128);
        assert!(count[0] > 0 && count[1] > 0, "{count:?}");
    });
}

#[test]
fn an_interface_is_promiscuous_as_long_as_a_socket_asks_for_it() {
    alone(|| {
        veth(1500);
        let promiscuous = || {
            let show = ["-details", "link", "show", "dev", "b"];
            let output = Command::new("ip").args(show).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.contains("promiscuity"), "{text}");
            !text.contains("promiscuity 0")
        };
        let program = filter::data(all_tags()[1], FAR);
        let mut options = LinkOptions::new("b", &program);
        let modest = LinkSocket::open(&options).unwrap();
        assert!(!promiscuous());
        options.promiscuous = true;
        let socket = LinkSocket::open(&options).unwrap();
        assert!(promiscuous());
        drop(socket);
        assert!(!promiscuous());
        drop(modest);
    });
}

#[test]
fn an_interface_accepts_the_addresses_asked_for() {
    alone(|| {
        veth(1500);
        let program = filter::control(Tags::NONE, FAR);
        let mut options = LinkOptions::new("b", &program);
        options.mac = Some(FAR);
        options.groups = &[[0x33, 0x33, 0xff, 0, 0, 1]];
        let socket = LinkSocket::open(&options).unwrap();
        let table = std::fs::read_to_string("/proc/thread-self/net/dev_mcast").unwrap();
        assert!(table.contains("3333ff000001"), "{table}");
        drop(socket);
        let table = std::fs::read_to_string("/proc/thread-self/net/dev_mcast").unwrap();
        assert!(!table.contains("3333ff000001"), "{table}");
    });
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    alone(|| {
        let error = LinkSocket::open(&LinkOptions::new("eth9", &filter::nothing())).unwrap_err();
        assert!(matches!(&error, DeviceError::NoInterface { name } if name == "eth9"));
        assert!(error.to_string().contains("eth9"));
    });
}
