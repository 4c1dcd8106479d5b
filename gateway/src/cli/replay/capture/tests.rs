use super::*;
use proptest::prelude::*;

/// The start of an IPv4 packet of 40 bytes.
const IP: [u8; 8] = [0x45, 0, 0, 40, 0, 0, 0x40, 0];

fn pcap(magic: [u8; 4], link: u32, records: &[(u32, u32, u32, &[u8])]) -> Vec<u8> {
    let mut file = magic.to_vec();
    file.extend([2, 0, 4, 0]);
    file.extend([0; 8]);
    file.extend(65_535_u32.to_le_bytes());
    file.extend(link.to_le_bytes());
    for &(seconds, fraction, original, data) in records {
        for word in [seconds, fraction, data.len() as u32, original] {
            file.extend(word.to_le_bytes());
        }
        file.extend(data);
    }
    file
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let length = (body.len() as u32 + 12).to_le_bytes();
    [&kind.to_le_bytes(), &length[..], &body, &length].concat()
}

fn section() -> Vec<u8> {
    let mut body = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
    body.extend([1, 0, 0, 0]);
    body.extend([0xff; 8]);
    block(0x0a0d_0d0a, &body)
}

fn interface(link: u16, resolution: Option<u8>) -> Vec<u8> {
    let mut body = link.to_le_bytes().to_vec();
    body.extend([0; 2]);
    body.extend(0_u32.to_le_bytes());
    if let Some(resolution) = resolution {
        body.extend([9, 0, 1, 0, resolution, 0, 0, 0, 0, 0, 0, 0]);
    }
    block(1, &body)
}

fn enhanced(interface: u32, stamp: u64, original: u32, data: &[u8]) -> Vec<u8> {
    let words = [
        interface,
        (stamp >> 32) as u32,
        stamp as u32,
        data.len() as u32,
        original,
    ];
    let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    body.extend(data);
    block(6, &body)
}

fn read(file: &[u8]) -> (Vec<Record>, Option<CaptureError>) {
    let mut records = Vec::new();
    let mut capture = match Capture::new(file) {
        Ok(capture) => capture,
        Err(error) => return (records, Some(error)),
    };
    loop {
        match capture.next() {
            Ok(Some(record)) => records.push(record),
            Ok(None) => return (records, None),
            Err(error) => return (records, Some(error)),
        }
    }
}

fn packet(captured: &[u8], length: usize) -> Content {
    let mut bytes = captured.to_vec();
    bytes.resize(length, 0);
    Content::Ip {
        bytes,
        captured: captured.len(),
        merged: None,
    }
}

#[test]
fn both_resolutions_of_pcap_are_read_and_what_was_cut_off_is_put_back() {
    for (magic, unit) in [
        ([0xd4, 0xc3, 0xb2, 0xa1], 1_000),
        ([0x4d, 0x3c, 0xb2, 0xa1], 1),
    ] {
        let file = pcap(magic, 101, &[(7, 5, 40, &IP), (8, 0, 8, &IP)]);
        let (records, error) = read(&file);
        assert_eq!(error, None);
        assert_eq!(records[0].at, Duration::new(7, 5 * unit));
        assert_eq!(records[0].content, packet(&IP, 40));
        assert_eq!(records[1].content, packet(&IP, 8), "not cut by the capture");
    }
}

#[test]
fn every_link_type_gives_the_packet_behind_its_header() {
    let sll = [&[0; 14][..], &[8, 0], &IP].concat();
    let sll2 = [&[8, 0][..], &[0; 18], &IP].concat();
    let plain = [&[0; 12][..], &[8, 0], &IP].concat();
    let tagged = [
        &[0; 12][..],
        &[0x88, 0xa8, 0, 100, 0x81, 0, 0, 10, 8, 0],
        &IP,
    ]
    .concat();
    let arp = [&[0; 12][..], &[8, 6], &IP].concat();
    for (link, frame, expected) in [
        (101, IP.to_vec(), packet(&IP, 8)),
        (228, IP.to_vec(), packet(&IP, 8)),
        (113, sll, packet(&IP, 8)),
        (276, sll2, packet(&IP, 8)),
        (1, plain, packet(&IP, 8)),
        (1, tagged, packet(&IP, 8)),
        (1, arp, Content::NotIp),
        (1, vec![0; 5], Content::NotIp),
    ] {
        let file = pcap(
            [0xd4, 0xc3, 0xb2, 0xa1],
            link,
            &[(0, 0, frame.len() as u32, &frame)],
        );
        let (records, error) = read(&file);
        assert_eq!((records[0].content.clone(), error), (expected, None));
    }
    let (_, error) = read(&pcap([0xd4, 0xc3, 0xb2, 0xa1], 127, &[]));
    assert_eq!(error, Some(CaptureError::Link(127)));
}

/// DLT_RAW is 12 here and 14 there; NULL and LOOP begin with an address family.
#[test]
fn bare_packets_are_read_under_each_number_that_they_have() {
    let loopback = |family: [u8; 4]| [&family[..], &IP].concat();
    for (link, frame, expected) in [
        (12, IP.to_vec(), packet(&IP, 8)),
        (14, IP.to_vec(), packet(&IP, 8)),
        (0, loopback([2, 0, 0, 0]), packet(&IP, 8)),
        (108, loopback([0, 0, 0, 2]), packet(&IP, 8)),
        (108, vec![0, 0, 0, 7, 1, 2, 3], Content::NotIp),
    ] {
        let file = pcap(
            [0xd4, 0xc3, 0xb2, 0xa1],
            link,
            &[(0, 0, frame.len() as u32, &frame)],
        );
        let (records, error) = read(&file);
        assert_eq!(
            (records[0].content.clone(), error),
            (expected, None),
            "{link}"
        );
    }
}

/// The link type was taken for 0x2400_0001, which nobody knows.
#[test]
fn a_frame_check_sequence_is_told_by_the_file_and_taken_off() {
    let plain = [&[0; 12][..], &[8, 0], &IP].concat();
    let checked = [&plain[..], &[0xfe; 4]].concat();
    let fcs = 2 << 28 | 1 << 26 | 1;
    let (whole, cut) = (checked.len() as u32, 100);
    let file = pcap(
        [0xd4, 0xc3, 0xb2, 0xa1],
        fcs,
        &[(0, 0, whole, &checked), (0, 0, cut, &plain)],
    );
    let (records, error) = read(&file);
    assert_eq!(error, None);
    assert_eq!(records[0].content, packet(&IP, 8));
    assert_eq!(records[1].content, packet(&IP, 40), "cut before it");
    // In pcapng an option of the interface says it: if_fcslen, 13.
    let mut body = vec![1, 0, 0, 0, 0, 0, 0, 0];
    body.extend([13, 0, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
    let file = [section(), block(1, &body), enhanced(0, 0, whole, &checked)].concat();
    assert_eq!(read(&file).0[0].content, packet(&IP, 8));
}

/// A name in Latin-1 was "damaged: a text that is no UTF-8".
#[test]
fn texts_of_any_encoding_are_stepped_over() {
    let mut body = vec![101, 0, 0, 0, 0, 0, 0, 0];
    // if_name, 2, "Büro" in Latin-1; if_tsresol, 9; then an option that claims more than there is.
    body.extend([2, 0, 4, 0, b'B', 0xfc, b'r', b'o']);
    body.extend([9, 0, 1, 0, 9, 0, 0, 0, 3, 0, 0xff, 0xff]);
    let mut commented = enhanced(0, 7, 8, &IP);
    commented.truncate(commented.len() - 4);
    commented.extend([1, 0, 2, 0, 0xff, 0xfe, 0, 0, 0, 0, 0, 0]);
    let length = (commented.len() as u32 + 4).to_le_bytes();
    commented[4..8].copy_from_slice(&length);
    commented.extend(length);
    let file = [section(), block(1, &body), commented].concat();
    let (records, error) = read(&file);
    assert_eq!(error, None);
    assert_eq!(records[0].at, Duration::from_nanos(7));
    assert_eq!(records[0].content, packet(&IP, 8));
}

/// One packet of a monitoring interface ended the whole replay.
#[test]
fn frames_of_a_link_that_is_not_read_are_told_apart_and_the_others_go_on() {
    let file = [
        section(),
        interface(105, None),
        interface(101, None),
        enhanced(0, 0, 8, &[1, 2, 3]),
        enhanced(1, 0, 8, &IP),
        section(),
        interface(101, None),
        block(3, &[&8_u32.to_le_bytes()[..], &IP].concat()),
    ]
    .concat();
    let (records, error) = read(&file);
    assert_eq!(error, None);
    let contents: Vec<_> = records.into_iter().map(|record| record.content).collect();
    let expected = [Content::Link(105), packet(&IP, 8), packet(&IP, 8)];
    assert_eq!(contents, expected);
}

/// Offloads leave the length to the card: Windows writes 0, Linux too where it does not fit into 16 bits.
#[test]
fn a_packet_that_says_no_length_is_as_long_as_its_frame() {
    let mut v4 = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0xaa, 0xaa];
    v4.extend([10, 1, 0, 4, 10, 2, 0, 9]);
    v4.resize(3_000, 7);
    // A TCP header of 20 bytes.
    v4[32] = 0x50;
    let mut v6 = vec![0x60, 0, 0, 0, 0, 0, 6, 64];
    v6.resize(100_040, 7);
    let mut jumbo = vec![0x60, 0, 0, 0, 0, 0, 0, 64];
    jumbo.resize(40, 7);
    jumbo.extend([6, 0, 0xc2, 4, 0, 1, 0x86, 0xa8]);
    jumbo.resize(100_048, 7);
    for (frame, length, said) in [
        (&v4, 3_000, Some((2, 3_000_u16))),
        (&v6, 100_040, Some((4, 65_535))),
        (&jumbo, 100_040, Some((4, 65_535))),
    ] {
        let file = pcap(
            [0xd4, 0xc3, 0xb2, 0xa1],
            101,
            &[(0, 0, frame.len() as u32, frame)],
        );
        let (records, error) = read(&file);
        assert_eq!(error, None);
        let Content::Ip {
            bytes,
            captured,
            merged,
        } = &records[0].content
        else {
            panic!("{records:?}");
        };
        assert_eq!((*merged, *captured), (Some(length), bytes.len()));
        let (at, said) = said.unwrap();
        assert_eq!(bytes[at..at + 2], said.to_be_bytes());
        if at == 2 {
            assert!(
                routing::packet::Headers::parse(bytes).is_ok(),
                "its checksum"
            );
        } else {
            assert_eq!(bytes[6], 6, "the hop-by-hop header is on no wire");
        }
    }
    // An empty IPv6 packet, padded to the shortest Ethernet frame, says its length: none.
    let mut empty = vec![0; 12];
    empty.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 59, 64]);
    empty.resize(60, 0);
    let file = pcap([0xd4, 0xc3, 0xb2, 0xa1], 1, &[(0, 0, 60, &empty)]);
    let content = read(&file).0[0].content.clone();
    assert!(
        matches!(content, Content::Ip { merged: None, .. }),
        "{content:?}"
    );
}

#[test]
fn pcapng_has_interfaces_with_clocks_of_their_own() {
    let file = [
        section(),
        interface(101, None),
        interface(1, Some(9)),
        interface(101, Some(0x8a)),
        block(0x0bad, &[1, 2, 3]),
        enhanced(0, 7_000_005, 40, &IP),
        enhanced(1, 7_000_000_005, 22, &[&[0; 12][..], &[8, 0], &IP].concat()),
        enhanced(2, 7 << 10 | 512, 8, &IP),
    ]
    .concat();
    let (records, error) = read(&file);
    assert_eq!(error, None);
    assert_eq!(records[0].at, Duration::new(7, 5_000));
    assert_eq!(records[0].content, packet(&IP, 40));
    assert_eq!(records[1].at, Duration::new(7, 5));
    assert_eq!(records[1].content, packet(&IP, 8));
    assert_eq!(records[2].at, Duration::new(7, 500_000_000));
}

#[test]
fn what_is_no_capture_or_ends_too_soon_is_told_so_after_what_can_be_read() {
    assert_eq!(read(&[]).1, Some(CaptureError::Empty));
    assert_eq!(read(b"#!/bin/sh").1, Some(CaptureError::Format));
    let file = pcap(
        [0xd4, 0xc3, 0xb2, 0xa1],
        101,
        &[(0, 0, 8, &IP), (1, 0, 8, &IP)],
    );
    let (records, error) = read(&file[..file.len() - 1]);
    assert_eq!((records.len(), error), (1, Some(CaptureError::CutOff)));
    let file = [section(), interface(101, None), enhanced(3, 0, 8, &IP)].concat();
    assert!(matches!(read(&file).1, Some(CaptureError::Damaged(_))));
}

proptest! {
    #[test]
    fn damage_anywhere_is_an_error_or_other_packets_and_never_a_panic(
        at in any::<prop::sample::Index>(), with in any::<u8>(), end in any::<prop::sample::Index>(), ng in any::<bool>(),
    ) {
        let mut file = if ng {
            [section(), interface(1, Some(9)), enhanced(0, 5, 40, &IP), enhanced(0, 6, 8, &IP)].concat()
        } else {
            pcap([0xd4, 0xc3, 0xb2, 0xa1], 101, &[(0, 0, 40, &IP), (1, 0, 8, &IP)])
        };
        let at = at.index(file.len());
        file[at] = with;
        let end = end.index(file.len() + 1);
        prop_assert!(read(&file[..end]).0.len() <= 2);
    }
}
