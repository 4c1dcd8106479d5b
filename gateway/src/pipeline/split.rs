//! Super-packets into the packets that the wire carries, each copied once and summed on the way.
//!
//! 1. check that packet, headers and offload belong together ([`Cutter::new`]); sum what all segments share
//! 2. per segment: copy the headers, copy and sum its piece of the payload
//! 3. set lengths, IPv4 id, sequence number and flags; write both checksums
//!
//! [`split_into`] lays the segments straight into the slots of a train; [`Segments`] writes them one by
//! one into a buffer, where a device refuses super-packets. A plain packet is a super-packet of one
//! segment whose checksum may be partial.

use super::checksum::{self, Sum};
use super::field::{self, at, flag, length};
use crate::device::offload::{Gso, GsoKind, Offload, PartialChecksum};
use crypto::train::{Layout, Train};
use routing::packet::{Fragment, Headers, Version, protocol};
use routing::reason::DropReason;

/// How far a packet got into a train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// All of it is in.
    Done,
    /// The train takes no more (or none, if it was not empty): seal it and go on with `next_segment` in
    /// an empty one.
    Full {
        /// The first segment that is not in yet.
        next_segment: usize,
    },
}

/// Lays a packet into `train`, from its segment `from_segment` on (0 at first), each segment finished:
/// lengths, id, sequence number, flags, checksums.
///
/// # Errors
/// `Malformed` if packet, headers and offload do not belong together; `TooBig` if a segment does not
/// even fit an empty train. The train is as it was then.
#[inline]
pub fn split_into<L: Layout>(
    packet: &[u8],
    headers: &Headers,
    offload: &Offload,
    train: &mut Train<L>,
    from_segment: usize,
) -> Result<Split, DropReason> {
    let cutter = Cutter::new(packet, headers, offload)?;
    for segment in from_segment..cutter.segments {
        let Some(slot) = train.push(cutter.segment_len(segment)) else {
            if train.is_empty() {
                return Err(DropReason::TooBig);
            }
            return Ok(Split::Full {
                next_segment: segment,
            });
        };
        cutter.write(segment, slot);
    }
    Ok(Split::Done)
}

/// The segments of a packet, one after the other, in a buffer of the caller's.
#[derive(Debug)]
pub struct Segments<'a> {
    cutter: Cutter<'a>,
    next: usize,
}

impl<'a> Segments<'a> {
    /// The segments of this packet.
    ///
    /// # Errors
    /// `Malformed` if packet, headers and offload do not belong together.
    pub fn new(packet: &'a [u8], headers: &Headers, offload: &Offload) -> Result<Self, DropReason> {
        Ok(Self {
            cutter: Cutter::new(packet, headers, offload)?,
            next: 0,
        })
    }

    /// How many are still to come.
    pub fn remaining(&self) -> usize {
        self.cutter.segments.saturating_sub(self.next)
    }

    /// Writes the next segment to the front of `buffer` and gives its length in bytes; `None` after the
    /// last. A segment that is longer than `buffer` is `TooBig` and skipped; 65,575 bytes hold any.
    pub fn next_into(&mut self, buffer: &mut [u8]) -> Option<Result<usize, DropReason>> {
        if self.next >= self.cutter.segments {
            return None;
        }
        let len = self.cutter.segment_len(self.next);
        let written = buffer
            .get_mut(..len)
            .ok_or(DropReason::TooBig)
            .map(|segment| {
                self.cutter.write(self.next, segment);
                len
            });
        self.next += 1;
        Some(written)
    }
}

/// What is cut, and the sums that all segments share.
#[derive(Debug)]
pub(super) struct Cutter<'a> {
    /// IP and transport header.
    header: &'a [u8],
    /// What is behind it.
    payload: &'a [u8],
    /// Payload of each segment but the last, bytes; never 0.
    size: usize,
    /// How many segments there are; never 0.
    pub(super) segments: usize,
    cut: Cut,
}

#[derive(Debug)]
enum Cut {
    /// One packet as it is, but for a partial checksum.
    Plain(Option<PartialChecksum>),
    Tcp(Shared, Tcp),
    Udp(Shared),
}

/// What the segments of a super-packet have in common.
#[derive(Debug)]
struct Shared {
    version: Version,
    /// Where the transport header begins.
    transport: usize,
    /// IPv4 id of the first segment.
    id: u16,
    /// IPv4: sum of the IP header without length, id and checksum.
    ip: Sum,
    /// Sum of pseudo-header and transport header without lengths, checksum, and TCP's sequence number
    /// and flags.
    transport_sum: Sum,
}

#[derive(Debug)]
struct Tcp {
    /// Sequence number of the first segment.
    sequence: u32,
    /// Data offset and reserved bits, which share a word with the flags.
    offset: u8,
    /// Flags of the super-packet.
    flags: u8,
}

/// The largest packet that a 16-bit length field can say.
const MAX_PACKET: usize = 65_535;

impl<'a> Cutter<'a> {
    #[inline]
    pub(super) fn new(
        packet: &'a [u8],
        headers: &Headers,
        offload: &Offload,
    ) -> Result<Self, DropReason> {
        let packet = packet
            .get(..headers.total_len as usize)
            .ok_or(DropReason::Malformed)?;
        let Some(gso) = offload.gso else {
            return Self::plain(packet, offload.checksum);
        };
        Self::super_packet(packet, headers, gso, offload.checksum).ok_or(DropReason::Malformed)
    }

    fn plain(packet: &'a [u8], partial: Option<PartialChecksum>) -> Result<Self, DropReason> {
        if let Some(PartialChecksum { start, offset }) = partial
            && usize::from(start) + usize::from(offset) + 2 > packet.len()
        {
            return Err(DropReason::Malformed);
        }
        Ok(Self {
            header: &[],
            payload: packet,
            size: packet.len(),
            segments: 1,
            cut: Cut::Plain(partial),
        })
    }

    #[inline]
    fn super_packet(
        packet: &'a [u8],
        headers: &Headers,
        gso: Gso,
        partial: Option<PartialChecksum>,
    ) -> Option<Self> {
        let (version, tcp) = match gso.kind {
            GsoKind::Tcp4 => (Version::V4, true),
            GsoKind::Tcp6 => (Version::V6, true),
            GsoKind::Udp => (headers.key.version, false),
        };
        let (number, field_at) = if tcp {
            (protocol::TCP, at::TCP_CHECKSUM)
        } else {
            (protocol::UDP, at::UDP_CHECKSUM)
        };
        let transport = usize::from(headers.transport);
        let belongs = headers.key.version == version
            && headers.key.protocol == number
            && headers.fragment == Fragment::Whole
            && partial.is_none_or(|partial| {
                partial.start == headers.transport && usize::from(partial.offset) == field_at
            });
        let size = usize::from(gso.size);
        let (header, payload) = packet.split_at_checked(usize::from(headers.payload))?;
        let (ip_header, transport_header) = header.split_at_checked(transport)?;
        if !belongs || size == 0 || header.len() + size.min(payload.len()) > MAX_PACKET {
            return None;
        }

        let field: [u8; 2] = field::read(transport_header, field_at)?;
        // The field of a partial checksum has the pseudo-header already, with the length of the whole; it
        // is right behind a routing header too, where the addresses at hand are not the ones it is over.
        let pseudo_header = match partial {
            Some(_) => Sum::bytes(field) + Sum::without_long((packet.len() - transport) as u32),
            None => checksum::pseudo_header(&headers.key, 0),
        };
        let transport_sum = pseudo_header + Sum::of(transport_header) + Sum::without(field);
        let mut shared = Shared {
            version,
            transport,
            id: 0,
            ip: Sum::default(),
            transport_sum,
        };
        if version == Version::V4 {
            let length = field::read(ip_header, at::V4_LENGTH)?;
            let id = field::read(ip_header, at::V4_ID)?;
            let checksum = field::read(ip_header, at::V4_CHECKSUM)?;
            shared.id = u16::from_be_bytes(id);
            shared.ip = Sum::of(ip_header)
                + Sum::without(length)
                + Sum::without(id)
                + Sum::without(checksum);
        }
        let cut = if tcp {
            let sequence: [u8; 4] = field::read(transport_header, at::TCP_SEQUENCE)?;
            let [offset, flags] = field::read(transport_header, at::TCP_DATA_OFFSET)?;
            let [a, b, c, d] = sequence;
            shared.transport_sum = shared.transport_sum
                + Sum::without([a, b])
                + Sum::without([c, d])
                + Sum::without([offset, flags]);
            Cut::Tcp(
                shared,
                Tcp {
                    sequence: u32::from_be_bytes(sequence),
                    offset,
                    flags,
                },
            )
        } else {
            let length = field::read(transport_header, at::UDP_LENGTH)?;
            shared.transport_sum = shared.transport_sum + Sum::without(length);
            Cut::Udp(shared)
        };
        let segments = payload.len().div_ceil(size).max(1);
        Some(Self {
            header,
            payload,
            size,
            segments,
            cut,
        })
    }

    /// Length of a segment with its headers, bytes.
    #[inline]
    pub(super) fn segment_len(&self, segment: usize) -> usize {
        self.header.len() + self.piece(segment).len()
    }

    /// The part of the payload that a segment carries.
    #[inline]
    fn piece(&self, segment: usize) -> &'a [u8] {
        let from = segment.saturating_mul(self.size).min(self.payload.len());
        let rest = self.payload.get(from..).unwrap_or_default();
        rest.get(..self.size).unwrap_or(rest)
    }

    /// Writes a segment; `to` is as long as [`Cutter::segment_len`] says.
    #[inline]
    pub(super) fn write(&self, segment: usize, to: &mut [u8]) {
        let piece = self.piece(segment);
        let written = match self.cut {
            Cut::Plain(partial) => copy_finished(to, piece, partial),
            Cut::Tcp(..) | Cut::Udp(_) => {
                to.split_at_mut_checked(self.header.len())
                    .and_then(|(header, payload)| {
                        let sum = checksum::copy_and_sum(payload, piece);
                        self.write_header(header, segment, piece.len(), sum)
                    })
            }
        };
        debug_assert!(written.is_some(), "Cutter::new has checked every offset");
    }

    /// Writes the beginning of the first segment, as much of it as `to` holds, and gives its length.
    /// `None` if `to` does not even hold the headers.
    pub(super) fn write_beginning(&self, to: &mut [u8]) -> Option<usize> {
        let piece = self.piece(0);
        let (header, payload) = to.split_at_mut_checked(self.header.len())?;
        let len = piece.len().min(payload.len());
        payload.get_mut(..len)?.copy_from_slice(piece.get(..len)?);
        match self.cut {
            Cut::Plain(None) => {}
            Cut::Plain(Some(PartialChecksum { start, offset })) => {
                let sum = Sum::of(piece.get(usize::from(start)..)?);
                // A field behind what is quoted is not quoted.
                if let Some(field) = field::edit(payload, usize::from(start) + usize::from(offset))
                {
                    *field = sum.checksum_not_zero();
                }
            }
            Cut::Tcp(..) | Cut::Udp(_) => {
                self.write_header(header, 0, piece.len(), Sum::of(piece))?;
            }
        }
        Some(header.len() + len)
    }

    /// Writes IP and transport header of a segment whose payload has this length and sum.
    #[inline]
    fn write_header(&self, to: &mut [u8], segment: usize, payload: usize, sum: Sum) -> Option<()> {
        to.copy_from_slice(self.header);
        match &self.cut {
            Cut::Plain(_) => {}
            Cut::Tcp(shared, tcp) => {
                shared.write_ip(to, segment, payload)?;
                let sequence = tcp.sequence.wrapping_add((segment * self.size) as u32);
                let flags = tcp.flags_of(segment == 0, segment + 1 == self.segments);
                shared.write_tcp(to, sequence, [tcp.offset, flags], payload, sum)?;
            }
            Cut::Udp(shared) => {
                shared.write_ip(to, segment, payload)?;
                shared.write_udp(to, payload, sum)?;
            }
        }
        Some(())
    }
}

/// Copies a plain packet, finishing its checksum.
#[inline]
fn copy_finished(to: &mut [u8], packet: &[u8], partial: Option<PartialChecksum>) -> Option<()> {
    let Some(PartialChecksum { start, offset }) = partial else {
        to.get_mut(..packet.len())?.copy_from_slice(packet);
        return Some(());
    };
    let (head, covered) = packet.split_at_checked(usize::from(start))?;
    let (to_head, to_covered) = to.split_at_mut_checked(usize::from(start))?;
    to_head.copy_from_slice(head);
    let sum = checksum::copy_and_sum(to_covered, covered);
    *field::edit(to_covered, usize::from(offset))? = sum.checksum_not_zero();
    Some(())
}

impl Tcp {
    /// FIN and PSH belong to the last segment, CWR to the first (RFC 3168, 6.1.2: once per window).
    #[inline]
    fn flags_of(&self, first: bool, last: bool) -> u8 {
        let not_first = if first { 0 } else { flag::CWR };
        let not_last = if last { 0 } else { flag::FIN | flag::PSH };
        self.flags & !not_first & !not_last
    }
}

impl Shared {
    /// Length, IPv4 id and header checksum of a segment with `payload` bytes.
    #[inline]
    fn write_ip(&self, header: &mut [u8], segment: usize, payload: usize) -> Option<()> {
        let len = header.len() + payload;
        match self.version {
            Version::V4 => {
                let id = self.id.wrapping_add(segment as u16);
                let sum = self.ip + Sum::word(len as u16) + Sum::word(id);
                *field::edit(header, at::V4_LENGTH)? = (len as u16).to_be_bytes();
                *field::edit(header, at::V4_ID)? = id.to_be_bytes();
                *field::edit(header, at::V4_CHECKSUM)? = sum.checksum();
            }
            Version::V6 => {
                let len = (len - length::V6) as u16;
                *field::edit(header, at::V6_LENGTH)? = len.to_be_bytes();
            }
        }
        Some(())
    }

    /// Sequence number, flags and checksum.
    #[inline]
    fn write_tcp(
        &self,
        header: &mut [u8],
        sequence: u32,
        offset_and_flags: [u8; 2],
        payload: usize,
        sum: Sum,
    ) -> Option<()> {
        let header = header.get_mut(self.transport..)?;
        let sum = self.transport_sum
            + Sum::long((header.len() + payload) as u32)
            + Sum::long(sequence)
            + Sum::bytes(offset_and_flags)
            + sum;
        *field::edit(header, at::TCP_SEQUENCE)? = sequence.to_be_bytes();
        *field::edit(header, at::TCP_DATA_OFFSET)? = offset_and_flags;
        *field::edit(header, at::TCP_CHECKSUM)? = sum.checksum();
        Some(())
    }

    /// Length and checksum.
    #[inline]
    fn write_udp(&self, header: &mut [u8], payload: usize, sum: Sum) -> Option<()> {
        let header = header.get_mut(self.transport..)?;
        let len = (header.len() + payload) as u16;
        // Once in the pseudo-header and once in the header.
        let sum = self.transport_sum + Sum::word(len) + Sum::word(len) + sum;
        *field::edit(header, at::UDP_LENGTH)? = len.to_be_bytes();
        *field::edit(header, at::UDP_CHECKSUM)? = sum.checksum_not_zero();
        Some(())
    }
}
