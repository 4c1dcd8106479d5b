//! Streams made by chance: nothing is lost, changed or reordered.

use super::{Out, coalesce, cut, source_of};
use crate::packets::{ACK, CWR, ECE, FIN, PSH, RST, SYN, Spec, UDP, any_header, noise};
use gateway::pipeline::coalesce::MAX_PIECES;
use proptest::prelude::*;

/// Without what means nothing: the id of an IPv4 packet that says "don't fragment".
fn normalised(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] == 0x45 && packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
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
