use super::*;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

/// An IPv4 packet with these options (a multiple of four bytes) and a right checksum.
fn v4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    fragment: u16,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let header_len = 20 + options.len();
    let mut packet = vec![0x40 | (header_len / 4) as u8, 0xb8];
    packet.extend(((header_len + payload.len()) as u16).to_be_bytes());
    packet.extend([0, 7]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([63, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(options);
    set_checksum(&mut packet);
    packet.extend(payload);
    packet
}

fn set_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum: u32 = header
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    header[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
}

fn v6(next: u8, source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x6b, 0x80, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 63]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

fn tcp(source_port: u16, destination_port: u16, flags: u8, options: usize, data: usize) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(source_port.to_be_bytes());
    segment.extend(destination_port.to_be_bytes());
    segment.extend([0; 8]);
    segment.extend([((20 + options) / 4) as u8 * 16, flags]);
    segment.resize(20 + options + data, 1);
    segment
}

fn udp(source_port: u16, destination_port: u16, data: usize) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(source_port.to_be_bytes());
    datagram.extend(destination_port.to_be_bytes());
    datagram.extend(((8 + data) as u16).to_be_bytes());
    datagram.resize(8 + data, 0);
    datagram
}

const A4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 4);
const B4: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
const A6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 4);
const B6: Ipv6Addr = Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 1);

#[test]
fn a_packet_with_a_wrong_header_checksum_is_refused() {
    let good = v4(A4, B4, 17, 0, &[], &udp(1, 2, 0));
    assert!(Headers::parse(&good).is_ok());
    for byte in 0..20 {
        let mut bad = good.clone();
        bad[byte] ^= 1;
        assert!(Headers::parse(&bad).is_err(), "byte {byte}");
    }
    let mut bad = good;
    bad[8] ^= 1;
    assert_eq!(Headers::parse(&bad), Err(DropReason::HeaderChecksum));
}

#[test]
fn source_routes_are_refused_and_router_alert_passes() {
    let with = |options: &[u8]| Headers::parse(&v4(A4, B4, 17, 0, options, &udp(1, 2, 4)));
    assert_eq!(with(&[131, 3, 4, 0]), Err(DropReason::IpOption));
    assert_eq!(with(&[1, 137, 3, 4]), Err(DropReason::IpOption));
    assert_eq!(with(&[148, 4, 0, 0]).unwrap().transport, 24);
    assert_eq!(with(&[148, 5, 0, 0]), Err(DropReason::Malformed));
    assert_eq!(with(&[148, 1, 0, 0]), Err(DropReason::Malformed));
    assert_eq!(with(&[1, 1, 1, 7]), Err(DropReason::Malformed));
    // What stands behind the end of the list is padding.
    assert!(with(&[0, 131, 3, 4]).is_ok());
}

#[test]
fn link_padding_is_outside_the_packet() {
    let mut packet = v4(A4, B4, 17, 0, &[], &udp(1, 2, 3));
    packet.resize(46, 0xee);
    let headers = Headers::parse(&packet).unwrap();
    assert_eq!(headers.total_len, 31);
    assert_eq!(headers.payload, 28);
}

#[test]
fn a_length_beyond_the_bytes_is_malformed() {
    let packet = v4(A4, B4, 6, 0, &[], &tcp(1, 2, 2, 0, 9));
    for cut in 0..packet.len() {
        assert_eq!(Headers::parse(&packet[..cut]), Err(DropReason::Malformed));
    }
    let packet = v6(6, A6, B6, &tcp(1, 2, 2, 0, 9));
    for cut in 0..packet.len() {
        assert_eq!(Headers::parse(&packet[..cut]), Err(DropReason::Malformed));
    }
}

#[test]
fn a_tcp_data_offset_outside_the_packet_is_malformed() {
    let mut segment = tcp(1, 2, 2, 0, 0);
    segment[12] = 0x60;
    assert_eq!(
        Headers::parse(&v4(A4, B4, 6, 0, &[], &segment)),
        Err(DropReason::Malformed)
    );
    segment[12] = 0x40;
    assert_eq!(
        Headers::parse(&v4(A4, B4, 6, 0, &[], &segment)),
        Err(DropReason::Malformed)
    );
}

#[test]
fn a_first_fragment_shows_its_ports_and_a_later_one_has_none() {
    let headers = Headers::parse(&v4(A4, B4, 6, 0x2000, &[], &tcp(5, 23, 2, 0, 4))).unwrap();
    assert_eq!(headers.fragment, Fragment::First);
    assert_eq!(headers.key.destination_port, 23);
    let headers = Headers::parse(&v4(A4, B4, 6, 3, &[], &[0; 7])).unwrap();
    assert_eq!(headers.fragment, Fragment::Later);
    assert_eq!(
        (headers.key.source_port, headers.key.destination_port),
        (0, 0)
    );
    assert_eq!(headers.payload, headers.transport);
}

#[test]
fn fragments_that_hide_their_ports_are_malformed() {
    let malformed = |packet: Vec<u8>| {
        assert_eq!(Headers::parse(&packet), Err(DropReason::Malformed));
    };
    // RFC 1858: too small for the transport header.
    malformed(v4(A4, B4, 6, 0x2000, &[], &tcp(5, 23, 2, 0, 0)[..16]));
    // RFC 3128: the second one begins inside the TCP header.
    malformed(v4(A4, B4, 6, 1, &[], &[0; 24]));
    // Beyond the longest packet.
    malformed(v4(A4, B4, 17, 0x1fff, &[], &[0; 16]));
    // Not a multiple of eight, but more to come.
    malformed(v4(A4, B4, 17, 0x2001, &[], &[0; 15]));
}

#[test]
fn icmp_keys_hold_type_code_and_the_echo_identifier() {
    let key = Headers::parse(&v4(A4, B4, 1, 0, &[], &[8, 0, 0, 0, 0x12, 0x34, 0, 1]))
        .unwrap()
        .key;
    assert_eq!((key.source_port, key.destination_port), (0x1234, 0x0800));
    assert!(key.is_icmp());
    let key = Headers::parse(&v4(A4, B4, 1, 0, &[], &[3, 4, 0, 0, 0x12, 0x34, 0, 1]))
        .unwrap()
        .key;
    assert_eq!((key.source_port, key.destination_port), (0, 0x0304));
    let key = Headers::parse(&v6(58, A6, B6, &[129, 0, 0, 0, 0x12, 0x34, 0, 1]))
        .unwrap()
        .key;
    assert_eq!((key.source_port, key.destination_port), (0x1234, 0x8100));
    // ICMPv6 in IPv4 is just another protocol.
    let key = Headers::parse(&v4(A4, B4, 58, 0, &[], &[8, 0]))
        .unwrap()
        .key;
    assert_eq!(key.destination_port, 0);
}

#[test]
fn extension_headers_are_walked() {
    let mut payload = vec![60, 0, 5, 2, 0, 0, 1, 0]; // hop-by-hop with router alert
    payload.extend([51, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // destination options, 16
    payload.extend([43, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // authentication, 12 bytes
    payload.extend([6, 0, 4, 0, 0, 0, 0, 0]); // routing, type 4
    payload.extend(tcp(7, 8, 0x12, 4, 3));
    let headers = Headers::parse(&v6(0, A6, B6, &payload)).unwrap();
    assert_eq!(headers.key.protocol, 6);
    assert_eq!(
        (headers.key.source_port, headers.key.destination_port),
        (7, 8)
    );
    assert_eq!(headers.transport, 40 + 8 + 16 + 12 + 8);
    assert_eq!(headers.payload, headers.transport + 24);
    assert_eq!(headers.tcp_flags, 0x12);
}

#[test]
fn routing_type_0_is_refused() {
    let mut payload = vec![17, 0, 0, 1, 0, 0, 0, 0];
    payload.extend(udp(1, 2, 0));
    assert_eq!(
        Headers::parse(&v6(43, A6, B6, &payload)),
        Err(DropReason::IpOption)
    );
}

#[test]
fn a_chain_of_extension_headers_without_end_is_malformed() {
    let mut payload = Vec::new();
    for _ in 0..MAX_EXTENSIONS {
        payload.extend([60, 0, 1, 4, 0, 0, 0, 0]);
    }
    let length = payload.len();
    payload[length - 8] = 17;
    payload.extend(udp(1, 2, 0));
    assert!(Headers::parse(&v6(60, A6, B6, &payload)).is_ok());
    let mut longer = vec![60, 0, 1, 4, 0, 0, 0, 0];
    longer.extend(&payload);
    assert_eq!(
        Headers::parse(&v6(60, A6, B6, &longer)),
        Err(DropReason::Malformed)
    );
    // Hop-by-hop options stand first or not at all.
    let mut payload = vec![0, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0];
    payload.extend(udp(1, 2, 0));
    assert_eq!(
        Headers::parse(&v6(60, A6, B6, &payload)),
        Err(DropReason::Malformed)
    );
}

#[test]
fn an_ipv6_fragment_is_told_from_an_atomic_one() {
    let with = |offset_and_more: u16, data: &[u8]| {
        let mut payload = vec![17, 0];
        payload.extend(offset_and_more.to_be_bytes());
        payload.extend([0, 0, 0, 9]);
        payload.extend(data);
        Headers::parse(&v6(44, A6, B6, &payload))
    };
    let atomic = with(0, &udp(1, 2, 3)).unwrap();
    assert_eq!(
        (atomic.fragment, atomic.key.destination_port),
        (Fragment::Whole, 2)
    );
    let first = with(1, &udp(1, 2, 8)).unwrap();
    assert_eq!(
        (first.fragment, first.key.destination_port),
        (Fragment::First, 2)
    );
    let later = with(16, &udp(1, 2, 3)).unwrap();
    assert_eq!(
        (later.fragment, later.key.destination_port),
        (Fragment::Later, 0)
    );
    assert_eq!((later.transport, later.payload), (48, 48));
    assert_eq!(with(1, &udp(1, 2, 3)), Err(DropReason::Malformed));
}

#[test]
fn a_version_other_than_4_and_6_is_not_ip() {
    assert_eq!(Headers::parse(&[0x50; 60]), Err(DropReason::NotIp));
    assert_eq!(Headers::parse(&[]), Err(DropReason::Malformed));
}

#[test]
fn martians_are_those_of_rfc_1812_and_rfc_6890() {
    let martian = |address: &str| {
        let (version, bits) = address_bits(address.parse().unwrap());
        let ordinary = match version {
            Version::V4 => 0x0a01_0004,
            Version::V6 => A6.to_bits(),
        };
        let key = |source, destination| FlowKey {
            source,
            destination,
            source_port: 0,
            destination_port: 0,
            protocol: 17,
            version,
        };
        assert!(!is_martian(&key(ordinary, ordinary)));
        let (as_source, as_destination) = (
            is_martian(&key(bits, ordinary)),
            is_martian(&key(ordinary, bits)),
        );
        assert_eq!(as_source, as_destination);
        as_source
    };
    for address in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "169.254.3.3",
        "224.0.0.1",
        "239.9.9.9",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::1.2.3.4",
        "::ffff:1.2.3.4",
        "fe80::1",
        "febf::1",
        "ff02::1",
    ] {
        assert!(martian(address), "{address}");
    }
    for address in [
        "1.0.0.1",
        "126.1.1.1",
        "128.0.0.1",
        "169.253.1.1",
        "223.255.255.255",
        "10.0.0.1",
        "2001:db8::1",
        "fd00::1",
        "fec0::1",
        "64:ff9b::1",
    ] {
        assert!(!martian(address), "{address}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_offsets_lie_inside(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        version in prop_oneof![Just(0x45_u8), Just(0x46), Just(0x4f), Just(0x60), any::<u8>()],
        protocol in prop_oneof![Just(0_u8), Just(6), Just(17), Just(43), Just(44), Just(51), Just(58), Just(60), any::<u8>()],
        right_length in any::<bool>(),
        right_checksum in any::<bool>(),
    ) {
        if bytes.len() >= 40 {
            bytes[0] = version;
            let length = bytes.len() as u16;
            if version >> 4 == 6 {
                bytes[6] = protocol;
                if right_length {
                    bytes[4..6].copy_from_slice(&(length - 40).to_be_bytes());
                }
            } else {
                bytes[9] = protocol;
                if right_length {
                    bytes[2..4].copy_from_slice(&length.to_be_bytes());
                }
                let header = usize::from(version & 15) * 4;
                if right_checksum && (20..=bytes.len()).contains(&header) {
                    set_checksum(&mut bytes[..header]);
                }
            }
        }
        if let Ok(headers) = Headers::parse(&bytes) {
            prop_assert!(headers.total_len as usize <= bytes.len());
            prop_assert!(u32::from(headers.payload) <= headers.total_len);
            prop_assert!(headers.transport <= headers.payload);
            prop_assert!(headers.transport >= 20);
        }
    }

    #[test]
    fn a_built_packet_gives_back_what_it_was_built_from(
        six in any::<bool>(),
        is_tcp in any::<bool>(),
        source_port in any::<u16>(),
        destination_port in any::<u16>(),
        flags in any::<u8>(),
        addresses in any::<(u128, u128)>(),
        options in 0..10_usize,
        data in 0..3000_usize,
        padding in 0..64_usize,
    ) {
        let (options, data) = (options * 4, data * 20);
        let (protocol, segment, header) = if is_tcp {
            (6, tcp(source_port, destination_port, flags, options, data), 20 + options)
        } else {
            (17, udp(source_port, destination_port, data), 8)
        };
        let (source, destination) = addresses;
        let (mut packet, start) = if six {
            (v6(protocol, source.into(), destination.into(), &segment), 40)
        } else {
            let (a, b) = ((source as u32).into(), (destination as u32).into());
            (v4(a, b, protocol, 0x4000, &vec![1; options], &segment), 20 + options)
        };
        let length = packet.len();
        packet.resize(length + padding, 0);
        let headers = Headers::parse(&packet).unwrap();
        let mask = if six { u128::MAX } else { u128::from(u32::MAX) };
        prop_assert_eq!(headers, Headers {
            key: FlowKey {
                source: source & mask,
                destination: destination & mask,
                source_port,
                destination_port,
                protocol,
                version: if six { Version::V6 } else { Version::V4 },
            },
            transport: start as u16,
            payload: (start + header) as u16,
            total_len: length as u32,
            traffic_class: 0xb8,
            hop_limit: 63,
            fragment: Fragment::Whole,
            dont_fragment: true,
            tcp_flags: if is_tcp { flags } else { 0 },
        });
    }
}
