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
    assert!(matches!(error, Some(CaptureError::Link(_))), "{error:?}");
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
