use crate::packets::{Spec, any_header, fold, noise, parse, slow_sum};
use gateway::device::offload::PartialChecksum;
use gateway::pipeline::checksum::{Sum, copy_and_sum, finish, update, verify};
use proptest::prelude::*;
use routing::reason::DropReason;

proptest! {
    #[test]
    fn a_sum_is_that_of_rfc_1071(bytes in prop::collection::vec(any::<u8>(), 0..5000), from in 0..40usize) {
        let bytes = bytes.get(from..).unwrap_or_default();
        prop_assert_eq!(Sum::of(bytes).folded(), fold(slow_sum(bytes)).to_be_bytes());
    }

    #[test]
    fn a_copy_is_the_same_and_so_is_its_sum(
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
        room in 0..3000usize,
    ) {
        let mut to = vec![0xa5; room];
        let sum = copy_and_sum(&mut to, &bytes);
        let copied = room.min(bytes.len());
        prop_assert_eq!(&to[..copied], &bytes[..copied]);
        prop_assert!(to[copied..].iter().all(|&byte| byte == 0xa5));
        prop_assert_eq!(sum.folded(), Sum::of(&bytes[..copied]).folded());
    }

    #[test]
    fn an_updated_checksum_still_holds(
        mut bytes in prop::collection::vec(any::<u8>(), 20..200),
        word in 1..10usize,
        new in any::<[u8; 2]>(),
    ) {
        bytes[0..2].copy_from_slice(&[0, 0]);
        bytes[19] |= 1;
        let sum = Sum::of(&bytes).checksum();
        let old = [bytes[word * 2], bytes[word * 2 + 1]];
        bytes[word * 2..word * 2 + 2].copy_from_slice(&new);
        bytes[0..2].copy_from_slice(&update(sum, old, new));
        prop_assert!(Sum::of(&bytes).holds() || bytes.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_finished_packet_is_one_that_was_whole_from_the_start(
        header in any_header(0xff), len in 0..2000usize,
    ) {
        let spec = Spec { payload: noise(len), ..header };
        let (mut packet, offload) = spec.build_partial(0);
        finish(&mut packet, offload.checksum.unwrap()).unwrap();
        prop_assert!(verify(&packet, &parse(&packet)));
        prop_assert!(verify(&spec.build(), &parse(&packet)));
    }

    #[test]
    fn a_flipped_bit_does_not_verify(len in 1..1500usize, at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let spec = Spec::tcp(len);
        let mut packet = spec.build();
        let headers = parse(&packet);
        let at = 20 + at.index(packet.len() - 20);
        packet[at] ^= 1 << bit;
        prop_assert!(!verify(&packet, &headers));
    }

    #[test]
    fn offsets_outside_of_the_packet_are_refused(
        packet in prop::collection::vec(any::<u8>(), 0..100), start in any::<u16>(), offset in any::<u16>(),
    ) {
        let mut finished = packet.clone();
        let result = finish(&mut finished, PartialChecksum { start, offset });
        let inside = usize::from(start) + usize::from(offset) + 2 <= packet.len();
        prop_assert_eq!(result, if inside { Ok(()) } else { Err(DropReason::Malformed) });
        prop_assert!(inside || finished == packet);
    }
}

#[test]
fn lanes_do_not_overflow_on_the_largest_words() {
    let bytes = vec![0xff; 5 << 20];
    assert_eq!(Sum::of(&bytes).folded(), [0xff, 0xff]);
    let mut copy = vec![0; bytes.len()];
    assert_eq!(copy_and_sum(&mut copy, &bytes).folded(), [0xff, 0xff]);
    assert_eq!(copy, bytes);
    let bytes: Vec<u8> = (0..5 << 20)
        .map(|index| if index % 2 == 0 { 0xff } else { 0xfe })
        .collect();
    assert_eq!(
        Sum::of(&bytes).folded(),
        fold(slow_sum(&bytes)).to_be_bytes()
    );
}

#[test]
fn udp_never_says_that_it_has_no_checksum() {
    // A payload that makes the sum come out as zero.
    let mut spec = Spec::udp(2);
    spec.payload = vec![0, 0];
    let sum = spec.build()[26..28].to_vec();
    spec.payload = sum;
    let (mut packet, offload) = spec.build_partial(0);
    finish(&mut packet, offload.checksum.unwrap()).unwrap();
    assert_eq!(packet[26..28], [0xff, 0xff]);
    assert!(verify(&packet, &parse(&packet)));
}

#[test]
fn udp_without_a_checksum_is_fine_in_ipv4_alone() {
    for v6 in [false, true] {
        let spec = Spec {
            v6,
            ..Spec::udp(100)
        };
        let mut packet = spec.build();
        let at = spec.ip_header_len() + 6;
        packet[at..at + 2].copy_from_slice(&[0, 0]);
        assert_eq!(verify(&packet, &parse(&packet)), !v6);
    }
}
