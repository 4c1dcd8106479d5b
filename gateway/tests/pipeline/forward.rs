use crate::packets::{ACK, SYN, Spec, any_header, noise, parse};
use gateway::device::offload::Offload;
use gateway::pipeline::checksum::verify;
use gateway::pipeline::ecn::combine;
use gateway::pipeline::forward::{
    clamp_mss, decrement_hop_limit, largest_segment, set_traffic_class,
};
use proptest::prelude::*;
use routing::packet::Headers;
use routing::reason::DropReason;

proptest! {
    #[test]
    fn a_hop_takes_one_off(header in any_header(0xff), len in 0..100usize) {
        let spec = Spec { payload: noise(len), ..header };
        let mut packet = spec.build();
        let before = packet.clone();
        let headers = parse(&packet);
        let forwarded = decrement_hop_limit(&mut packet, &headers);
        prop_assert_eq!(forwarded, spec.hop_limit > 1);
        let expected = Spec { hop_limit: spec.hop_limit - 1, ..spec };
        prop_assert_eq!(packet, if forwarded { expected.build() } else { before });
    }

    #[test]
    fn a_traffic_class_is_set_and_nothing_else(header in any_header(0xff), traffic_class in any::<u8>()) {
        let mut packet = header.build();
        let headers = parse(&packet);
        prop_assert!(set_traffic_class(&mut packet, &headers, traffic_class));
        prop_assert_eq!(packet, Spec { traffic_class, ..header }.build());
    }

    #[test]
    fn the_mss_option_is_lowered_wherever_it_stands(
        v6 in any::<bool>(), before in 0..17usize, mss in any::<u16>(), max in any::<u16>(),
        acknowledges in any::<bool>(), partial in any::<bool>(),
    ) {
        let with = |mss: u16| {
            let mut options = vec![1; before];
            options.extend([2, 4]);
            options.extend(mss.to_be_bytes());
            options.resize(options.len().next_multiple_of(4), 0);
            let flags = if acknowledges { SYN | ACK } else { SYN };
            let spec = Spec { v6, flags, options, ..Spec::tcp(0) };
            if partial { spec.build_partial(0).0 } else { spec.build() }
        };
        let mut packet = with(mss);
        let headers = parse(&packet);
        prop_assert_eq!(clamp_mss(&mut packet, &headers, max, partial), mss > max);
        prop_assert_eq!(packet, with(mss.min(max)));
    }

    #[test]
    fn options_that_lie_are_left_alone(
        mut options in prop::collection::vec(any::<u8>(), 0..40), small in any::<bool>(),
    ) {
        options.truncate(options.len() / 4 * 4);
        if small {
            for byte in &mut options {
                *byte %= 6;
            }
        }
        let mut packet = Spec { options, flags: SYN, ..Spec::tcp(0) }.build();
        let headers = parse(&packet);
        let before = packet.clone();
        let lowered = clamp_mss(&mut packet, &headers, 1, false);
        prop_assert!(verify(&packet, &headers));
        prop_assert_eq!(lowered, packet != before);
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut packet in prop::collection::vec(any::<u8>(), 0..100), v6 in any::<bool>()) {
        let headers = Headers::parse(&packet).unwrap_or(parse(&Spec { v6, flags: SYN, ..Spec::tcp(0) }.build()));
        decrement_hop_limit(&mut packet, &headers);
        set_traffic_class(&mut packet, &headers, 3);
        clamp_mss(&mut packet, &headers, 3, false);
    }
}

#[test]
fn only_a_syn_is_clamped() {
    let mut packet = Spec {
        options: vec![2, 4, 5, 180],
        ..Spec::tcp(0)
    }
    .build();
    let headers = parse(&packet);
    assert!(!clamp_mss(&mut packet, &headers, 1000, false));
}

#[test]
fn the_largest_segment_of_a_super_packet_is_a_whole_one() {
    let (packet, offload) = Spec::tcp(5000).build_partial(1368);
    let headers = parse(&packet);
    assert_eq!(largest_segment(&headers, &offload), 1420);
    assert_eq!(largest_segment(&headers, &Offload::default()), 5052);
    let (packet, offload) = Spec::tcp(100).build_partial(1368);
    assert_eq!(largest_segment(&parse(&packet), &offload), 152);
}

#[test]
fn a_congestion_mark_of_the_outer_header_gets_into_the_packet() {
    for v6 in [false, true] {
        let marked = |traffic_class| {
            Spec {
                v6,
                traffic_class,
                ..Spec::tcp(100)
            }
            .build()
        };
        let mut packet = marked(0xb8 | 2);
        assert_eq!(combine(&mut packet, 0x03), Ok(()));
        assert_eq!(packet, marked(0xb8 | 3));
        let mut packet = marked(0xb8);
        assert_eq!(combine(&mut packet, 0x02), Ok(()));
        assert_eq!(packet, marked(0xb8));
        assert_eq!(combine(&mut packet, 0x03), Err(DropReason::EcnIllegal));
    }
}
