//! Packets to send: TCP and UDP over both IP versions, with partial checksums as a kernel makes them.

use gateway::device::offload::{Gso, GsoKind, Offload, PartialChecksum};

/// An IP packet, what is left to do for it, and the length of its headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) offload: Offload,
    pub(crate) hdr_len: u16,
}

/// Sum of 16-bit words, not folded.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2);
    words
        .map(|w| u64::from(u16::from_be_bytes([w[0], *w.get(1).unwrap_or(&0)])))
        .sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A packet of this kind with `payload`; `size`: segment size, 0 for one packet.
pub(crate) fn packet(kind: GsoKind, v6: bool, payload: &[u8], size: u16) -> Packet {
    let (protocol, transport_len, field) = match kind {
        GsoKind::Udp => (17, 8, 6),
        _ => (6, 20, 16),
    };
    let network_len = if v6 { 40 } else { 20 };
    let len = transport_len + payload.len();
    let mut network = vec![0; network_len];
    let addresses = if v6 { 8..40 } else { 12..20 };
    for (at, byte) in addresses.clone().zip(1_u8..) {
        network[at] = byte;
    }
    if v6 {
        network[0] = 0x60;
        network[4..6].copy_from_slice(&(len as u16).to_be_bytes());
        (network[6], network[7]) = (protocol, 64);
        network[8] = 0xfd;
        network[24] = 0xfd;
    } else {
        network[0] = 0x45;
        network[2..4].copy_from_slice(&((network_len + len) as u16).to_be_bytes());
        (network[6], network[8], network[9]) = (0x40, 64, protocol);
        (network[12], network[16]) = (10, 10);
        let check = !fold(sum(&network));
        network[10..12].copy_from_slice(&check.to_be_bytes());
    }
    let mut transport = vec![0; transport_len];
    transport[..4].copy_from_slice(&[0x9c, 0x40, 0x14, 0x51]);
    if kind == GsoKind::Udp {
        transport[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    } else {
        (transport[12], transport[13]) = (0x50, 0x10);
        transport[14..16].copy_from_slice(&[0xff, 0xff]);
    }
    let pseudo = sum(&network[addresses]) + u64::from(protocol) + len as u64;
    transport[field..field + 2].copy_from_slice(&fold(pseudo).to_be_bytes());
    Packet {
        bytes: [&network[..], &transport, payload].concat(),
        offload: Offload {
            checksum: Some(PartialChecksum {
                start: network_len as u16,
                offset: field as u16,
            }),
            gso: (size > 0).then_some(Gso {
                kind,
                size,
                ecn: false,
            }),
            checksum_valid: false,
        },
        hdr_len: (network_len + transport_len) as u16,
    }
}

/// A packet with nothing left to do: the checksum is complete.
pub(crate) fn finished(kind: GsoKind, v6: bool, payload: &[u8]) -> Packet {
    let mut packet = packet(kind, v6, payload, 0);
    let checksum = packet.offload.checksum.take().unwrap();
    let start = usize::from(checksum.start);
    let check = !fold(sum(&packet.bytes[start..]));
    let field = start + usize::from(checksum.offset);
    packet.bytes[field..field + 2].copy_from_slice(&check.to_be_bytes());
    packet
}

/// `len` bytes that repeat late enough for a mix-up to show.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}
