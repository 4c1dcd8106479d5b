//! Packets to measure with.

use gateway::device::offload::{Gso, GsoKind, Offload, PartialChecksum};
use gateway::pipeline::checksum::{Sum, pseudo_header};
use routing::packet::Headers;
use routing::reason::DropReason;

/// Length of an IPv4 and a TCP header with timestamps, bytes.
pub const TCP_HEADERS: usize = 52;

/// A TCP super-packet over IPv4 as a TUN device gives it: `payload` bytes, to be cut into segments of
/// `size`, its checksum partial. `port` tells flows apart.
///
/// # Errors
/// `payload` does not fit an IPv4 packet.
pub fn tcp_super_packet(
    port: u16,
    payload: u16,
    size: u16,
) -> Result<(Vec<u8>, Headers, Offload), DropReason> {
    let len = payload
        .checked_add(TCP_HEADERS as u16)
        .ok_or(DropReason::TooBig)?;
    let mut packet = vec![0x45, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 1, 0, 4, 10, 2, 0, 4]);
    if let Some(field) = packet.get(..20).map(|header| Sum::of(header).checksum()) {
        packet.splice(10..12, field);
    }
    packet.extend(port.to_be_bytes());
    packet.extend([
        0x14, 0x51, 1, 2, 3, 4, 5, 6, 7, 8, 0x80, 0x10, 1, 0xf5, 0, 0, 0, 0,
    ]);
    packet.extend([1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
    packet.extend(
        (0..u32::from(payload)).map(|index| (index.wrapping_mul(2_654_435_761) >> 15) as u8),
    );

    let headers = Headers::parse(&packet)?;
    packet.splice(
        36..38,
        pseudo_header(&headers.key, u32::from(len) - 20).folded(),
    );
    let offload = Offload {
        checksum: Some(PartialChecksum {
            start: 20,
            offset: 16,
        }),
        gso: Some(Gso {
            kind: GsoKind::Tcp4,
            size,
            ecn: false,
        }),
        checksum_valid: false,
    };
    Ok((packet, headers, offload))
}
