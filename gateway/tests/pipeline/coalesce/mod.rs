//! What is merged and what is kept apart: case by case here, by chance in [`random`], and where a checksum is still to
//! be made in [`unfinished`].

mod random;
mod unfinished;

use crate::packets::{CWR, ECE, FIN, PSH, Spec, parse};
use crate::split::by_segments;
use gateway::device::offload::Offload;
use gateway::pipeline::coalesce::{Coalescer, MAX_FLOWS, MAX_PIECES, SuperPacket};
use routing::packet::Headers;

/// A super-packet put together.
#[derive(Debug, PartialEq)]
struct Out {
    packet: Vec<u8>,
    offload: Offload,
    segments: usize,
}

impl Out {
    fn of(packet: &SuperPacket<'_>) -> Self {
        let slices: Vec<&[u8]> = packet.slices().collect();
        let whole = slices.concat();
        assert_eq!(packet.len, whole.len());
        let header = packet.header.len() * (packet.segments - 1);
        assert_eq!(packet.wire_len(), whole.len() + header);
        Self {
            packet: whole,
            offload: packet.offload,
            segments: packet.segments,
        }
    }
}

fn coalesce(packets: &[Vec<u8>], udp: bool) -> Vec<Out> {
    let mut coalescer = Coalescer::new(udp);
    coalesce_by(&mut coalescer, packets)
}

fn coalesce_by(coalescer: &mut Coalescer, packets: &[Vec<u8>]) -> Vec<Out> {
    // Sixteen bytes of tunnel header before each packet, padding and tag behind it.
    let mut batch = Vec::new();
    let mut starts = Vec::new();
    for packet in packets {
        batch.extend([0xaa; 16]);
        starts.push(batch.len());
        batch.extend(packet);
        batch.extend([0xbb; 19]);
    }
    let mut out = Vec::new();
    let mut emit = |packet: SuperPacket<'_>| out.push(Out::of(&packet));
    for &start in &starts {
        if let Ok(headers) = Headers::parse(&batch[start..]) {
            coalescer.push(&batch, start, &headers, &Offload::default(), &mut emit);
        }
    }
    coalescer.flush(&batch, &mut emit);
    assert!(coalescer.is_empty());
    out
}

/// What the wire would carry of it all.
fn cut(out: &[Out]) -> Vec<Vec<u8>> {
    out.iter()
        .flat_map(|out| {
            let segments = by_segments(&out.packet, &out.offload);
            assert_eq!(segments.len(), out.segments);
            segments
        })
        .collect()
}

fn counts(out: &[Out]) -> Vec<usize> {
    out.iter().map(|out| out.segments).collect()
}

fn source_of(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 4 {
        packet[15]
    } else {
        packet[23]
    }
}

/// Three packets of one flow; the second is changed.
fn with_second(change: impl Fn(&mut Spec)) -> Vec<usize> {
    let specs: Vec<Spec> = (0..3u16)
        .map(|index| {
            let mut spec = Spec::tcp(1000);
            spec.traffic_class = 0x02;
            spec.id += index;
            spec.dont_fragment = false;
            spec.sequence = spec.sequence.wrapping_add(u32::from(index) * 1000);
            if index == 1 {
                change(&mut spec);
            }
            spec
        })
        .collect();
    counts(&coalesce(
        &specs.iter().map(Spec::build).collect::<Vec<_>>(),
        true,
    ))
}

#[test]
fn what_gro_keeps_apart_is_kept_apart() {
    assert_eq!(with_second(|_| {}), [3]);
    assert_eq!(with_second(|spec| spec.traffic_class = 0x03), [1, 1, 1]);
    assert_eq!(with_second(|spec| spec.hop_limit -= 1), [1, 1, 1]);
    assert_eq!(with_second(|spec| spec.dont_fragment = true), [1, 1, 1]);
    assert_eq!(with_second(|spec| spec.id += 1), [1, 1, 1]);
    assert_eq!(with_second(|spec| spec.acknowledgement += 1), [1, 1, 1]);
    assert_eq!(with_second(|spec| spec.window += 1), [1, 1, 1]);
    assert_eq!(with_second(|spec| spec.urgent += 1), [1, 1, 1]);
    assert_eq!(with_second(|spec| spec.options[11] += 1), [1, 1, 1]);
    assert_eq!(with_second(|spec| spec.flags |= ECE), [1, 1, 1]);
    assert_eq!(with_second(|spec| spec.flags |= CWR), [1, 1, 1]);
    assert_eq!(with_second(|spec| spec.sequence ^= 1), [1, 1, 1]);
    assert_eq!(with_second(|spec| spec.payload.push(0)), [1, 1, 1]);
    // What ends a run belongs to it.
    assert_eq!(with_second(|spec| spec.flags |= PSH), [2, 1]);
    assert_eq!(with_second(|spec| spec.flags |= FIN), [2, 1]);
    assert_eq!(with_second(|spec| spec.payload.truncate(999)), [2, 1]);
}

#[test]
fn ids_of_atomic_datagrams_do_not_matter() {
    let mut specs = vec![Spec::tcp(1000); 3];
    for (index, spec) in specs.iter_mut().enumerate() {
        spec.id = 0;
        spec.sequence = spec.sequence.wrapping_add(index as u32 * 1000);
    }
    let packets: Vec<_> = specs.iter().map(Spec::build).collect();
    assert_eq!(counts(&coalesce(&packets, true)), [3]);
}

#[test]
fn a_corrupt_packet_is_not_laundered() {
    let mut packets = Spec::tcp(4000).segments(1000);
    packets[1][60] ^= 0x10;
    let out = coalesce(&packets, true);
    assert_eq!(counts(&out), [1, 1, 2]);
    assert_eq!(
        out[1],
        Out {
            packet: packets[1].clone(),
            offload: Offload::default(),
            segments: 1
        }
    );
}

#[test]
fn udp_is_merged_only_for_a_way_out_that_takes_it() {
    let packets = Spec::udp(4000).segments(1000);
    assert_eq!(counts(&coalesce(&packets, true)), [4]);
    assert_eq!(counts(&coalesce(&packets, false)), [1, 1, 1, 1]);
}

#[test]
fn udp_without_a_checksum_stays_alone() {
    let mut packets = Spec::udp(3000).segments(1000);
    for packet in &mut packets {
        packet[26..28].fill(0);
    }
    assert_eq!(counts(&coalesce(&packets, true)), [1, 1, 1]);
}

#[test]
fn flows_that_are_interleaved_come_out_in_the_order_in_which_they_began() {
    let flows: Vec<_> = (1..4)
        .map(|source| {
            Spec {
                source,
                ..Spec::tcp(5000)
            }
            .segments(1000)
        })
        .collect();
    let packets: Vec<_> = (0..5)
        .flat_map(|index| flows.iter().map(move |f| f[index].clone()))
        .collect();
    let out = coalesce(&packets, false);
    assert_eq!(counts(&out), [5, 5, 5]);
    assert_eq!(
        out.iter().map(|o| source_of(&o.packet)).collect::<Vec<_>>(),
        [1, 2, 3]
    );
}

#[test]
fn one_flow_more_than_there_is_room_for_sends_out_the_oldest() {
    let flow = |port: usize| {
        Spec {
            source_port: port as u16,
            ..Spec::tcp(2000)
        }
        .segments(1000)
    };
    let flows: Vec<_> = (0..=MAX_FLOWS).map(flow).collect();
    let packets: Vec<_> = (0..2)
        .flat_map(|index| flows.iter().map(move |f| f[index].clone()))
        .collect();
    let out = coalesce(&packets, false);
    assert_eq!(out[0].packet, flows[0][0]);
    assert_eq!(out.iter().map(|o| o.segments).sum::<usize>(), packets.len());
}

#[test]
fn a_fragment_goes_behind_what_is_open_between_its_hosts() {
    let mut packets = Spec::udp(2000).segments(1000);
    let mut fragment = Spec {
        source_port: 9,
        dont_fragment: false,
        ..Spec::udp(1000)
    }
    .build();
    fragment[6] = 0x20;
    fragment[10..12].fill(0);
    let sum = !crate::packets::fold(crate::packets::slow_sum(&fragment[..20]));
    fragment[10..12].copy_from_slice(&sum.to_be_bytes());
    packets.push(fragment.clone());
    let out = coalesce(&packets, true);
    assert_eq!(counts(&out), [2, 1]);
    assert_eq!(out[1].packet, fragment);
}

#[test]
fn a_super_packet_holds_no_more_than_a_length_field_says() {
    // 46 of 1,400 bytes and a header are 64,452; one more would be 65,852.
    let packets: Vec<_> = (0..60u16)
        .map(|index| {
            let sequence = 1400 * u32::from(index);
            Spec {
                sequence,
                ..Spec::tcp(1400)
            }
            .build()
        })
        .collect();
    assert_eq!(counts(&coalesce(&packets, true)), [46, 14]);
    let whole = Spec::tcp(65_535 - 52);
    assert_eq!(counts(&coalesce(&whole.segments(1400), true)), [47]);
    // As many packets as one may hold, in as few bytes.
    let packets = Spec::tcp(MAX_PIECES * 2 + 20).segments(2);
    assert_eq!(counts(&coalesce(&packets, true)), [MAX_PIECES, 10]);
}

#[test]
fn a_coalescer_is_as_new_after_a_flush() {
    let mut coalescer = Coalescer::new(true);
    let spec = Spec::tcp(5000);
    let first = coalesce_by(&mut coalescer, &spec.segments(1000));
    let again = coalesce_by(&mut coalescer, &spec.segments(1000));
    assert_eq!(first, again);
    assert_eq!(parse(&again[0].packet).total_len, 5052);
}

#[test]
fn what_is_open_of_a_flow_goes_before_a_super_packet_of_it() {
    let spec = Spec::tcp(1_000);
    let (first, other) = (
        spec.segments(1_000).concat(),
        Spec {
            source_port: 9,
            ..spec.clone()
        },
    );
    let second = other.segments(1_000).concat();
    let batch = [first.clone(), second.clone()].concat();
    let (mut coalescer, mut out) = (Coalescer::new(true), Vec::new());
    let mut emit = |packet: SuperPacket<'_>| out.push(Out::of(&packet).packet);
    for at in [0, first.len()] {
        let headers = Headers::parse(&batch[at..]).unwrap();
        coalescer.push(&batch, at, &headers, &Offload::default(), &mut emit);
    }
    let headers = Headers::parse(&second).unwrap();
    coalescer.make_way(&batch, &headers, &mut emit);
    coalescer.make_way(&batch, &headers, &mut emit);
    coalescer.flush(&batch, &mut emit);
    assert_eq!(out, [second, first]);
}
