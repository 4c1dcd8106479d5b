use crate::packets::{ACK, CWR, ECE, FIN, PSH, RST, SYN, Spec, UDP, any_header, noise, parse};
use crate::split::by_segments;
use gateway::device::offload::{Offload, PartialChecksum};
use gateway::pipeline::checksum::{finish, pseudo_header, verify};
use gateway::pipeline::coalesce::{Coalescer, MAX_FLOWS, MAX_PIECES, SuperPacket};
use proptest::prelude::*;
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

/// Without what means nothing: the id of an IPv4 packet that says "don't fragment".
fn normalised(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] == 0x45 && packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

fn counts(out: &[Out]) -> Vec<usize> {
    out.iter().map(|out| out.segments).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_was_split_comes_together_again(
        header in any_header(FIN | PSH | ECE), size in 1..9000usize, len in 2..65_000usize,
    ) {
        let len = len.min(size * MAX_PIECES).min(65_535 - header.header_len());
        let size = size.min(len - 1);
        let spec = Spec { payload: noise(len), ..header };
        prop_assume!(len.div_ceil(size) <= MAX_PIECES);
        let (packet, offload) = spec.build_partial(size as u16);
        let out = coalesce(&spec.segments(size), true);
        prop_assert_eq!(out, vec![Out { packet, offload, segments: len.div_ceil(size) }]);
    }

    #[test]
    fn no_flow_is_reordered_and_no_packet_changed(
        steps in prop::collection::vec((0..4u8, 0..40u8, 1..4usize), 1..150), udp in any::<bool>(),
    ) {
        let packets = stream(&steps);
        let out = coalesce(&packets, udp);
        let after = cut(&out);
        prop_assert_eq!(after.len(), packets.len());
        for flow in 0..4 {
            let of_flow = |packets: &[Vec<u8>]| -> Vec<Vec<u8>> {
                packets.iter().filter(|p| source_of(p) == flow).map(|p| normalised(p)).collect()
            };
            prop_assert_eq!(of_flow(&after), of_flow(&packets));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..20),
        ip in prop::collection::vec(0..2u8, 20),
    ) {
        let packets: Vec<_> = packets
            .into_iter()
            .zip(ip)
            .map(|(bytes, kind)| if kind == 0 { bytes } else { Spec { payload: bytes, ..Spec::udp(0) }.build() })
            .collect();
        coalesce(&packets, true);
    }
}

fn source_of(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 4 {
        packet[15]
    } else {
        packet[23]
    }
}

/// Packets of four flows, most of which go on where their flow was; some differ in what forbids a merge.
fn stream(steps: &[(u8, u8, usize)]) -> Vec<Vec<u8>> {
    let mut flows: Vec<Spec> = (0..4u8)
        .map(|source| Spec {
            source,
            v6: source % 2 == 1,
            protocol: if source < 2 { 6 } else { UDP },
            dont_fragment: source == 0,
            traffic_class: 0x02,
            ..Spec::tcp(0)
        })
        .collect();
    steps
        .iter()
        .map(|&(flow, what, size)| {
            let flow = &mut flows[usize::from(flow)];
            let mut spec = Spec {
                payload: noise(size * 100),
                ..flow.clone()
            };
            let mut corrupt = false;
            match what {
                0 => spec.hop_limit = 63,
                1 => spec.traffic_class = 0x03,
                2 => spec.flow_label = 1,
                3 => spec.dont_fragment = !spec.dont_fragment,
                4 => spec.acknowledgement += 1,
                5 => spec.window += 1,
                6 => spec.options[11] += 1,
                7 => spec.options.extend([1; 4]),
                8 => spec.flags |= PSH,
                9 => spec.flags |= FIN,
                10 => spec.flags |= CWR,
                11 => spec.flags |= ECE,
                12 => spec.flags |= SYN,
                13 => spec.flags |= RST,
                14 => spec.flags &= !ACK,
                15 => spec.payload.clear(),
                16 => spec.sequence = spec.sequence.wrapping_add(1),
                17 => spec.id = spec.id.wrapping_add(5),
                18 => spec.payload.truncate(50),
                19 => corrupt = true,
                20 => spec.id = spec.id.wrapping_sub(1),
                _ => {}
            }
            flow.sequence = spec.sequence.wrapping_add(spec.payload.len() as u32);
            flow.id = flow.id.wrapping_add(1);
            let mut packet = spec.build();
            if corrupt {
                *packet.last_mut().unwrap() ^= 1;
            }
            packet
        })
        .collect()
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

#[test]
fn packets_without_a_checksum_yet_are_merged_and_a_lone_one_keeps_its_task() {
    for spec in [Spec::tcp(2_500), Spec::udp(2_500)] {
        let whole: Vec<_> = spec
            .segments(1_000)
            .iter()
            .map(|one| unfinished(one))
            .collect();
        let (packet, offload) = spec.build_partial(1_000);
        let mut batch = Vec::new();
        let mut places = Vec::new();
        for (packet, offload) in &whole {
            places.push((batch.len(), *offload));
            batch.extend(packet);
        }
        let run = |places: &[(usize, Offload)]| {
            let (mut coalescer, mut out) = (Coalescer::new(true), Vec::new());
            let mut emit = |packet: SuperPacket<'_>| out.push(Out::of(&packet));
            for (at, offload) in places {
                let headers = Headers::parse(&batch[*at..]).unwrap();
                coalescer.push(&batch, *at, &headers, offload, &mut emit);
            }
            coalescer.flush(&batch, &mut emit);
            out
        };
        let segments = 3;
        assert_eq!(
            run(&places),
            [Out {
                packet,
                offload,
                segments
            }]
        );
        let (packet, offload) = whole[1].clone();
        let segments = 1;
        assert_eq!(
            run(&places[1..2]),
            [Out {
                packet,
                offload,
                segments
            }]
        );
    }
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
        let (mut batch, mut places) = (Vec::new(), Vec::new());
        for (packet, offload) in &sent {
            places.push((batch.len(), *offload));
            batch.extend(packet);
        }
        let (mut coalescer, mut out) = (Coalescer::new(true), Vec::new());
        let mut emit = |packet: SuperPacket<'_>| out.push(Out::of(&packet));
        for (at, offload) in &places {
            let headers = Headers::parse(&batch[*at..]).unwrap();
            coalescer.push(&batch, *at, &headers, offload, &mut emit);
        }
        coalescer.flush(&batch, &mut emit);
        // What a Linux router puts on the wire: each packet with the one checksum finished that was asked for.
        let finished = |(packet, offload): &(Vec<u8>, Offload)| {
            let mut packet = packet.clone();
            finish(&mut packet, offload.checksum.unwrap()).unwrap();
            let headers = Headers::parse(&packet).unwrap();
            assert!(verify(&packet, &headers), "the outer checksum");
            packet
        };
        let expected: Vec<_> = sent.iter().map(finished).collect();
        assert_eq!(cut(&out), expected);
    }
}
