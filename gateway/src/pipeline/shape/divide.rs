//! A super-packet into two, where it lies: the front goes now, the rest waits, and both are still
//! super-packets, so that the device that takes them has its offload.
//!
//! 1. [`can_divide`]: whether packet and offload belong together
//! 2. [`front`]: the header is edited to stand for the first segments, whose payload follows it already
//! 3. [`rest`]: once they have gone, the header moves to the front of the payload that is left, over
//!    payload that is not needed any more, and is edited to stand for that
//!
//! No payload is copied. Checksums become, or stay, partial: the field holds the pseudo-header's sum.

use crate::device::offload::{Gso, GsoKind, Offload, PartialChecksum};
use crate::pipeline::checksum::{self, Sum};
use crate::pipeline::field::{self, at, flag, length};
use routing::packet::{Fragment, Headers, Version, protocol};

/// Whether the packet is a super-packet that [`front`] and [`rest`] can cut.
pub(super) fn can_divide(packet: &[u8], headers: &Headers, offload: &Offload) -> bool {
    let Some(gso) = offload.gso else {
        return false;
    };
    let (version, tcp) = match gso.kind {
        GsoKind::Tcp4 => (Version::V4, true),
        GsoKind::Tcp6 => (Version::V6, true),
        GsoKind::Udp => (headers.key.version, false),
    };
    let (number, header) = if tcp {
        (protocol::TCP, length::TCP)
    } else {
        (protocol::UDP, length::UDP)
    };
    let (transport, payload) = (headers.transport, headers.payload);
    headers.key.version == version
        && headers.key.protocol == number
        && headers.fragment == Fragment::Whole
        && gso.size > 0
        && headers.total_len as usize == packet.len()
        && usize::from(payload) <= packet.len()
        && usize::from(payload) >= usize::from(transport) + header
        && offload
            .checksum
            .is_none_or(|partial| partial.start == transport && partial.offset == checksum_at(gso))
}

const fn checksum_at(gso: Gso) -> u16 {
    match gso.kind {
        GsoKind::Tcp4 | GsoKind::Tcp6 => at::TCP_CHECKSUM as u16,
        GsoKind::Udp => at::UDP_CHECKSUM as u16,
    }
}

/// Makes the header at the beginning of `packet` stand for the first `segments`, fewer than there are,
/// and gives what they are then. `None` if the packet cannot be cut so: nothing useful is in it then.
pub(super) fn front(
    packet: &mut [u8],
    headers: &Headers,
    offload: &Offload,
    segments: usize,
) -> Option<(Headers, Offload)> {
    let gso = offload.gso?;
    let payload = segments.checked_mul(usize::from(gso.size))?;
    let edit = Edit {
        payload,
        flags: headers.tcp_flags & !(flag::FIN | flag::PSH),
        skipped: 0,
        segments,
    };
    edit.apply(packet, headers, offload)
}

/// What is behind the first `segments` of a super-packet: after [`front`] of as many, makes a header for
/// it. `headers` and `offload` are those of the whole. Gives where it begins in `packet`.
pub(super) fn rest(
    packet: &mut [u8],
    headers: &Headers,
    offload: &Offload,
    segments: usize,
) -> Option<(usize, Headers, Offload)> {
    let mut gso = offload.gso?;
    let header = usize::from(headers.payload);
    let from = segments.checked_mul(usize::from(gso.size))?;
    let payload = (headers.total_len as usize).checked_sub(header + from)?;
    if payload == 0 || header > packet.len() {
        return None;
    }
    packet.copy_within(..header, from);
    // CWR is on the first segment only (RFC 3168, 6.1.2: once per window).
    gso.ecn = false;
    let whole = Offload {
        gso: Some(gso),
        // `front` has made it partial.
        checksum: Some(PartialChecksum {
            start: headers.transport,
            offset: checksum_at(gso),
        }),
        ..*offload
    };
    let before = Headers {
        total_len: (header + from) as u32,
        ..*headers
    };
    let edit = Edit {
        payload,
        flags: headers.tcp_flags & !flag::CWR,
        skipped: from,
        segments,
    };
    let (headers, offload) = edit.apply(packet.get_mut(from..)?, &before, &whole)?;
    Some((from, headers, offload))
}

/// What a header is to say.
struct Edit {
    /// Bytes of payload behind it.
    payload: usize,
    flags: u8,
    /// Bytes of payload before it that the header stood in front of: 0 for the front, which is there.
    skipped: usize,
    /// Segments before it, if any were skipped.
    segments: usize,
}

impl Edit {
    fn apply(
        &self,
        packet: &mut [u8],
        headers: &Headers,
        offload: &Offload,
    ) -> Option<(Headers, Offload)> {
        let gso = offload.gso?;
        let (start, header) = (usize::from(headers.transport), usize::from(headers.payload));
        let total = header + self.payload;
        let packet = packet.get_mut(..total)?;
        self.write_ip(packet, headers, total)?;

        let transport = packet.get_mut(start..)?;
        let old_length = headers
            .total_len
            .checked_sub(u32::from(headers.transport))?;
        let length = (total - start) as u32;
        if gso.kind == GsoKind::Udp {
            *field::edit(transport, at::UDP_LENGTH)? = (length as u16).to_be_bytes();
        } else {
            let sequence = u32::from_be_bytes(field::read(transport, at::TCP_SEQUENCE)?);
            let sequence = sequence.wrapping_add(self.skipped as u32);
            *field::edit(transport, at::TCP_SEQUENCE)? = sequence.to_be_bytes();
            *field::edit(transport, at::TCP_FLAGS)? = [self.flags];
        }
        let offset = checksum_at(gso);
        let sum = match offload.checksum {
            // From the field: behind a routing header the addresses at hand are not those it is over.
            Some(_) => {
                Sum::bytes(field::read(transport, usize::from(offset))?)
                    + Sum::without_long(old_length)
                    + Sum::long(length)
            }
            None => checksum::pseudo_header(&headers.key, length),
        };
        *field::edit(transport, usize::from(offset))? = sum.folded();

        let one = self.payload <= usize::from(gso.size);
        let offload = Offload {
            checksum: Some(PartialChecksum {
                start: headers.transport,
                offset,
            }),
            gso: (!one).then_some(gso),
            ..*offload
        };
        let headers = Headers {
            total_len: total as u32,
            tcp_flags: if gso.kind == GsoKind::Udp {
                headers.tcp_flags
            } else {
                self.flags
            },
            ..*headers
        };
        Some((headers, offload))
    }

    fn write_ip(&self, packet: &mut [u8], headers: &Headers, total: usize) -> Option<()> {
        if headers.key.version == Version::V6 {
            let length = total.checked_sub(length::V6)? as u16;
            *field::edit(packet, at::V6_LENGTH)? = length.to_be_bytes();
            return Some(());
        }
        *field::edit(packet, at::V4_LENGTH)? = (total as u16).to_be_bytes();
        if self.skipped > 0 {
            // Each segment has an id of its own, counted up as the kernel does.
            let id = u16::from_be_bytes(field::read(packet, at::V4_ID)?);
            let id = id.wrapping_add(self.segments as u16);
            *field::edit(packet, at::V4_ID)? = id.to_be_bytes();
        }
        let checksum: &mut [u8; 2] = field::edit(packet, at::V4_CHECKSUM)?;
        *checksum = [0; 2];
        let sum = Sum::of(packet.get(..usize::from(headers.transport))?).checksum();
        *field::edit(packet, at::V4_CHECKSUM)? = sum;
        Some(())
    }
}
