use crate::packets::{Spec, any_header, noise, parse};
use crypto::train::MAX_SEGMENTS;
use crypto::wireguard::{DATA_HEADER_LEN, Train};
use gateway::device::offload::{Gso, GsoKind, Offload, PartialChecksum};
use gateway::pipeline::split::{Segments, Split, split_into};
use proptest::prelude::*;
use routing::packet::Headers;
use routing::reason::DropReason;

/// The segments by way of [`Segments`].
pub(crate) fn by_segments(packet: &[u8], offload: &Offload) -> Vec<Vec<u8>> {
    let mut segments = Segments::new(packet, &parse(packet), offload).unwrap();
    let mut buffer = vec![0; 65_575];
    let mut all = Vec::new();
    let expected = segments.remaining();
    while let Some(len) = segments.next_into(&mut buffer) {
        all.push(buffer[..len.unwrap()].to_vec());
    }
    assert_eq!(all.len(), expected);
    all
}

/// The plaintexts of as many trains as it takes.
fn by_trains(packet: &[u8], offload: &Offload, mtu: usize) -> Vec<Vec<u8>> {
    let headers = parse(packet);
    let mut train = Train::new(mtu);
    let (mut from, mut all) = (0, Vec::new());
    loop {
        train.clear(mtu);
        let split = split_into(packet, &headers, offload, &mut train, from).unwrap();
        assert!(!train.is_empty() && train.len() <= MAX_SEGMENTS);
        for slot in train.slots_mut() {
            let plaintext = &slot[DATA_HEADER_LEN..];
            let len = parse(plaintext).total_len as usize;
            all.push(plaintext[..len].to_vec());
        }
        match split {
            Split::Done => return all,
            Split::Full { next_segment } => {
                assert!(next_segment > from);
                from = next_segment;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn segments_are_those_that_a_sender_without_offload_would_build(
        header in any_header(0xff), len in 0..65_000usize, size in 1..9000usize,
    ) {
        // Keep the count of the smallest sizes bearable.
        let payload = noise(len.min(size * 300).min(65_535 - header.header_len()));
        let spec = Spec { payload, ..header };
        let (packet, offload) = spec.build_partial(size as u16);
        let expected = spec.segments(size);
        prop_assert_eq!(&by_segments(&packet, &offload), &expected);
        prop_assert_eq!(&by_trains(&packet, &offload, 1420), &expected);
        // Without NEEDS_CSUM the pseudo-header comes from the addresses.
        let whole = Offload { checksum: None, ..offload };
        prop_assert_eq!(&by_segments(&packet, &whole), &expected);
    }

    #[test]
    fn a_plain_packet_is_copied_and_finished(header in any_header(0xff), len in 0..2000usize) {
        let spec = Spec { payload: noise(len), ..header };
        let (packet, offload) = spec.build_partial(0);
        let mut expected = packet.clone();
        gateway::pipeline::checksum::finish(&mut expected, offload.checksum.unwrap()).unwrap();
        prop_assert_eq!(by_trains(&packet, &offload, 1420), vec![expected.clone()]);
        prop_assert_eq!(by_segments(&packet, &offload), vec![expected]);
        let whole = spec.build();
        prop_assert_eq!(by_segments(&whole, &Offload::default()), vec![whole]);
    }

    #[test]
    fn whatever_the_device_says_ends_in_an_error_at_worst(
        packet in prop::collection::vec(any::<u8>(), 0..300),
        spec in any_header(0xff),
        as_spec in any::<bool>(),
        partial in prop::option::of((any::<u16>(), 0..100u16)),
        size in any::<u16>(),
        kind in prop::option::of(0..3u8),
        lies in prop::option::of((any::<u16>(), any::<u16>(), any::<u32>())),
        from in 0..100usize,
    ) {
        let packet = if as_spec { Spec { payload: packet, ..spec.clone() }.build() } else { packet };
        let mut headers = Headers::parse(&packet).unwrap_or(parse(&spec.build()));
        if let Some((transport, payload, total_len)) = lies {
            (headers.transport, headers.payload, headers.total_len) = (transport, payload, total_len);
        }
        let kinds = [GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp];
        let offload = Offload {
            checksum: partial.map(|(start, offset)| PartialChecksum { start: start % 64, offset }),
            gso: kind.map(|kind| Gso { kind: kinds[usize::from(kind)], size, ecn: false }),
            checksum_valid: false,
        };
        let mut train = Train::new(1420);
        let _ = split_into(&packet, &headers, &offload, &mut train, from);
        let mut buffer = [0; 2000];
        if let Ok(mut segments) = Segments::new(&packet, &headers, &offload) {
            while segments.next_into(&mut buffer).is_some() {}
        }
    }
}

#[test]
fn a_train_that_is_not_empty_takes_what_fits_and_no_more() {
    let mut train = Train::new(1420);
    let small = Spec::tcp(10).build();
    let large = Spec::tcp(1000).build();
    let done = split_into(&small, &parse(&small), &Offload::default(), &mut train, 0);
    assert_eq!(done, Ok(Split::Done));
    let full = split_into(&large, &parse(&large), &Offload::default(), &mut train, 0);
    assert_eq!(full, Ok(Split::Full { next_segment: 0 }));
    assert_eq!(train.len(), 1);
}

#[test]
fn a_segment_that_fits_no_train_is_too_big() {
    let (packet, offload) = Spec::udp(65_500).build_partial(0);
    let mut train = Train::new(1420);
    let refused = split_into(&packet, &parse(&packet), &offload, &mut train, 0);
    assert_eq!(refused, Err(DropReason::TooBig));
    assert!(train.is_empty());
}

#[test]
fn link_padding_is_left_behind() {
    let packet = Spec::udp(5).build();
    let padded = [packet.clone(), vec![0xee; 20]].concat();
    assert_eq!(by_segments(&padded, &Offload::default()), [packet]);
}

#[test]
fn a_super_packet_of_another_kind_than_its_headers_is_malformed() {
    let (packet, offload) = Spec::tcp(5000).build_partial(1000);
    let headers = parse(&packet);
    let gso = offload.gso.unwrap();
    let partial = offload.checksum.unwrap();
    for wrong in [
        Offload {
            gso: Some(Gso {
                kind: GsoKind::Udp,
                ..gso
            }),
            ..offload
        },
        Offload {
            gso: Some(Gso {
                kind: GsoKind::Tcp6,
                ..gso
            }),
            ..offload
        },
        Offload {
            gso: Some(Gso { size: 0, ..gso }),
            ..offload
        },
        Offload {
            checksum: Some(PartialChecksum {
                start: 24,
                ..partial
            }),
            ..offload
        },
        Offload {
            checksum: Some(PartialChecksum {
                offset: 6,
                ..partial
            }),
            ..offload
        },
    ] {
        assert_eq!(
            Segments::new(&packet, &headers, &wrong).err(),
            Some(DropReason::Malformed)
        );
    }
}

#[test]
fn a_udp_segment_never_says_that_it_has_no_checksum() {
    // What the checksum is over a payload of zeros makes it come out as zero if it is the payload.
    let sum = Spec {
        payload: vec![0, 0],
        ..Spec::udp(0)
    }
    .build()[26..28]
        .to_vec();
    let spec = Spec {
        payload: [&sum[..], &[1, 2]].concat(),
        ..Spec::udp(0)
    };
    let (packet, offload) = spec.build_partial(2);
    assert_eq!(by_segments(&packet, &offload)[0][26..28], [0xff, 0xff]);
    let alone = Spec {
        payload: sum,
        ..Spec::udp(0)
    };
    let (packet, offload) = alone.build_partial(0);
    assert_eq!(by_trains(&packet, &offload, 1420)[0][26..28], [0xff, 0xff]);
}
