//! Packets whose checksum a device is still to make.

use super::{Out, cut};
use crate::packets::{Spec, UDP};
use gateway::device::offload::{Offload, PartialChecksum};
use gateway::pipeline::checksum::{finish, pseudo_header, verify};
use gateway::pipeline::coalesce::{Coalescer, SuperPacket};
use routing::packet::Headers;

/// The packet as a kernel hands it to a device that makes checksums, and what is left to do for it.
fn unfinished(packet: &[u8]) -> (Vec<u8>, Offload) {
    let headers = Headers::parse(packet).unwrap();
    let offset = if headers.key.protocol == UDP { 6 } else { 16 };
    let (start, mut packet) = (headers.transport, packet.to_vec());
    let length = packet.len() - usize::from(start);
    let sum = pseudo_header(&headers.key, length as u32).folded();
    let field = usize::from(start) + offset;
    packet[field..field + 2].copy_from_slice(&sum);
    let offload = Offload {
        checksum: Some(PartialChecksum {
            start,
            offset: offset as u16,
        }),
        ..Offload::default()
    };
    (packet, offload)
}

/// What becomes of packets that lie one behind the other.
fn merge(packets: &[(Vec<u8>, Offload)]) -> Vec<Out> {
    let (mut batch, mut places) = (Vec::new(), Vec::new());
    for (packet, offload) in packets {
        places.push((batch.len(), offload));
        batch.extend(packet);
    }
    let (mut coalescer, mut out) = (Coalescer::new(true), Vec::new());
    let mut emit = |packet: SuperPacket<'_>| out.push(Out::of(&packet));
    for (at, offload) in places {
        let headers = Headers::parse(&batch[at..]).unwrap();
        coalescer.push(&batch, at, &headers, offload, &mut emit);
    }
    coalescer.flush(&batch, &mut emit);
    out
}

#[test]
fn packets_without_a_checksum_yet_are_merged_and_a_lone_one_keeps_its_task() {
    for spec in [Spec::tcp(2_500), Spec::udp(2_500)] {
        let whole: Vec<_> = spec
            .segments(1_000)
            .iter()
            .map(|one| unfinished(one))
            .collect();
        let (packet, offload) = spec.build_partial(1_000);
        let segments = 3;
        assert_eq!(
            merge(&whole),
            [Out {
                packet,
                offload,
                segments
            }]
        );
        let (packet, offload) = whole[1].clone();
        let segments = 1;
        assert_eq!(
            merge(&whole[1..2]),
            [Out {
                packet,
                offload,
                segments
            }]
        );
    }
}

/// VXLAN as a Linux host sends it where its device makes checksums: that of the packet inside is left to the
/// device, and the outer one is complete and right once the inner one has been made (net/core: `lco_csum`).
fn vxlan(inner: &Spec, id: u16) -> (Vec<u8>, Offload) {
    let (inner_packet, inner_offload) = unfinished(&inner.build());
    let mut payload = vec![0x08, 0, 0, 0, 0, 0, 42, 0];
    payload.extend([2; 12]);
    payload.extend([0x08, 0x00]);
    let inside = payload.len();
    payload.extend(inner_packet);
    let mut finished = payload.clone();
    let inner_partial = inner_offload.checksum.unwrap();
    let of_payload = |partial: PartialChecksum| PartialChecksum {
        start: partial.start + inside as u16,
        ..partial
    };
    finish(&mut finished, of_payload(inner_partial)).unwrap();
    let outer = |payload| Spec {
        id,
        payload,
        ..Spec::udp(0)
    };
    // The outer checksum is over the packet inside as it will be.
    let (mut packet, right) = (outer(payload).build(), outer(finished).build());
    let header = outer(Vec::new()).header_len();
    packet[..header].copy_from_slice(&right[..header]);
    let checksum = Some(PartialChecksum {
        start: inner_partial.start + (header + inside) as u16,
        ..inner_partial
    });
    let offload = Offload {
        checksum,
        ..Offload::default()
    };
    (packet, offload)
}

#[test]
fn a_checksum_that_is_to_be_made_inside_of_a_tunnel_is_made_there_and_nowhere_else() {
    for inner in [Spec::tcp(700), Spec::udp(700)] {
        let sent: Vec<_> = (0..3).map(|n| vxlan(&inner, n)).collect();
        // What a Linux router puts on the wire: each packet with the one checksum finished that was asked for.
        let finished = |(packet, offload): &(Vec<u8>, Offload)| {
            let mut packet = packet.clone();
            finish(&mut packet, offload.checksum.unwrap()).unwrap();
            let headers = Headers::parse(&packet).unwrap();
            assert!(verify(&packet, &headers), "the outer checksum");
            packet
        };
        let expected: Vec<_> = sent.iter().map(finished).collect();
        assert_eq!(cut(&merge(&sent)), expected);
    }
}
