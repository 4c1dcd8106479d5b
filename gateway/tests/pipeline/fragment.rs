use crate::packets::{Spec, fold, noise, parse, slow_sum};
use gateway::pipeline::fragment::Fragments;
use proptest::prelude::*;
use routing::packet::Headers;
use routing::reason::DropReason;

/// A UDP datagram that may be fragmented, with these IPv4 options.
fn datagram(payload: usize, options: &[u8]) -> Vec<u8> {
    let packet = Spec {
        dont_fragment: false,
        payload: noise(payload),
        ..Spec::udp(0)
    }
    .build();
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    let mut packet = [&packet[..20], &options, &packet[20..]].concat();
    packet[0] = 0x40 | ((20 + options.len()) / 4) as u8;
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    set_checksum(&mut packet);
    packet
}

fn set_checksum(packet: &mut [u8]) {
    let header = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let sum = !fold(slow_sum(&packet[..header]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn fragments(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let mut fragments = Fragments::new(packet, &parse(packet), mtu).unwrap();
    let mut buffer = vec![0; mtu];
    std::iter::from_fn(|| {
        let len = fragments.next_into(&mut buffer)?.unwrap();
        Some(buffer[..len].to_vec())
    })
    .collect()
}

/// The packet that fragments make: the first one's header over all payload (RFC 791, 3.2).
fn reassemble(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut payload: Vec<u8> = Vec::new();
    for (index, fragment) in fragments.iter().enumerate() {
        let headers = parse(fragment);
        let word = u16::from_be_bytes([fragment[6], fragment[7]]);
        assert_eq!(usize::from(word & 0x1fff) * 8, payload.len());
        assert_eq!(word & 0x2000 != 0, index + 1 < fragments.len());
        assert_eq!(headers.total_len as usize, fragment.len());
        payload.extend(&fragment[usize::from(headers.transport)..]);
    }
    let mut packet = fragments[0][..usize::from(parse(&fragments[0]).transport)].to_vec();
    packet.extend(payload);
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet[6] &= !0x20;
    set_checksum(&mut packet);
    packet
}

proptest! {
    #[test]
    fn fragments_fit_and_make_the_packet_again(
        payload in 0..20_000usize, mtu in 100..2000usize, options in 0..4usize, again in 68..1000usize,
    ) {
        // Record route (not copied), router alert (copied), both.
        let options: &[u8] = [&[][..], &[7, 7, 4, 0, 0, 0, 0], &[148, 4, 0, 0], &[1, 148, 4, 0, 0, 7, 3, 4]][options];
        let packet = datagram(payload, options);
        let pieces = fragments(&packet, mtu);
        prop_assert!(pieces.iter().all(|piece| piece.len() <= mtu));
        prop_assert_eq!(reassemble(&pieces), packet.clone());
        // A fragment on a narrower way is cut again.
        let narrower: Vec<_> = pieces.iter().flat_map(|piece| fragments(piece, again.min(mtu))).collect();
        prop_assert_eq!(reassemble(&narrower), packet);
    }

    #[test]
    fn arbitrary_bytes_never_panic(packet in prop::collection::vec(any::<u8>(), 0..200), mtu in 0..100usize) {
        let headers = Headers::parse(&packet).unwrap_or(parse(&datagram(100, &[])));
        let mut buffer = [0; 100];
        if let Ok(mut fragments) = Fragments::new(&packet, &headers, mtu) {
            while fragments.next_into(&mut buffer).is_some() {}
        }
    }
}

#[test]
fn later_fragments_have_the_copied_options_alone() {
    let pieces = fragments(&datagram(300, &[7, 3, 4, 1, 148, 4, 0, 0]), 128);
    assert_eq!(pieces[0][20..28], [7, 3, 4, 1, 148, 4, 0, 0]);
    assert_eq!(pieces[1][0], 0x46);
    assert_eq!(pieces[1][20..24], [148, 4, 0, 0]);
}

#[test]
fn what_may_not_be_fragmented_is_too_big() {
    let packet = Spec {
        dont_fragment: true,
        ..Spec::udp(2000)
    }
    .build();
    assert_eq!(
        Fragments::new(&packet, &parse(&packet), 1000).err(),
        Some(DropReason::TooBig)
    );
    let packet = Spec {
        v6: true,
        ..Spec::udp(2000)
    }
    .build();
    assert_eq!(
        Fragments::new(&packet, &parse(&packet), 1000).err(),
        Some(DropReason::TooBig)
    );
    let packet = datagram(2000, &[]);
    assert_eq!(
        Fragments::new(&packet, &parse(&packet), 27).err(),
        Some(DropReason::TooBig)
    );
}

#[test]
fn a_buffer_that_is_too_short_ends_it() {
    let packet = datagram(2000, &[]);
    let mut fragments = Fragments::new(&packet, &parse(&packet), 1000).unwrap();
    assert_eq!(
        fragments.next_into(&mut [0; 500]),
        Some(Err(DropReason::TooBig))
    );
    assert_eq!(fragments.next_into(&mut [0; 500]), None);
}
