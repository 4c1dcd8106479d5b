//! One super-packet being built: which packets may go on it, and what its header says in the end.
//!
//! The rules are those of Linux' GRO (`inet_gro_receive`, `ipv6_gro_receive`, `tcp_gro_receive`,
//! `udp_gro_receive_segment`, 6.18), stricter where a split could not restore what was merged.

use super::checksum::{self, Sum};
use super::field::{self, at, flag, length};
use crate::device::offload::{Gso, GsoKind, Offload, PartialChecksum};
use routing::packet::{FlowKey, Headers, Version, protocol};

/// The most packets in a super-packet, as UDP_MAX_SEGMENTS before Linux 6.9; 47 of 1,368 bytes fill one.
pub const MAX_PIECES: usize = 64;
/// The longest super-packet, bytes: what the 16-bit length of IPv4 says.
const MAX_LEN: usize = 65_535;
/// IPv6 header and the longest TCP header.
const MAX_HEADER: usize = length::V6 + length::TCP_MOST;

/// One packet or super-packet on its way out.
#[derive(Clone, Copy, Debug)]
pub struct SuperPacket<'a> {
    /// IP and transport header; of a packet that was not merged, all of it.
    pub header: &'a [u8],
    /// What the device has to do. Merged: GSO, and a partial checksum.
    pub offload: Offload,
    /// Packets on the wire that this stands for.
    pub segments: usize,
    /// Length with headers, bytes.
    pub len: usize,
    batch: &'a [u8],
    pieces: &'a [Piece],
}

impl<'a> SuperPacket<'a> {
    /// A packet that goes out as it came in.
    #[inline]
    pub(super) fn single(packet: &'a [u8], offload: Offload) -> Self {
        Self {
            header: packet,
            offload,
            segments: 1,
            len: packet.len(),
            batch: &[],
            pieces: &[],
        }
    }

    /// The packet in order, without a copy: the header, then at most [`MAX_PIECES`] pieces of payload.
    #[inline]
    pub fn slices(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        let batch = self.batch;
        let pieces = self.pieces.iter().map(move |piece| piece.of(batch));
        std::iter::once(self.header).chain(pieces)
    }

    /// Length of all the packets that this stands for, bytes: the header counts for each.
    #[inline]
    pub fn wire_len(&self) -> usize {
        self.len + self.header.len() * (self.segments - 1)
    }
}

/// Payload of one packet: a range of the batch.
#[derive(Clone, Copy, Debug, Default)]
struct Piece {
    at: u32,
    len: u32,
}

impl Piece {
    #[inline]
    fn of(self, batch: &[u8]) -> &[u8] {
        let at = self.at as usize;
        batch.get(at..at + self.len as usize).unwrap_or_default()
    }
}

/// A packet that may be merged: its checksum has been verified, or is still to be made.
pub(super) struct Candidate {
    /// Where it begins in the batch.
    at: u32,
    /// Its payload in the batch; not empty.
    piece: Piece,
    /// IPv4 id.
    id: u16,
    tcp: Option<Segment>,
    /// Whether nothing may follow it in its super-packet, whatever its length.
    pub(super) closes: bool,
    /// What is left to do for it if it goes out alone.
    pub(super) offload: Offload,
}

/// What of a TCP header is looked at while merging.
struct Segment {
    sequence: u32,
    flags: u8,
}

impl Candidate {
    #[inline]
    pub(super) fn of(
        packet: &[u8],
        at: usize,
        headers: &Headers,
        offload: &Offload,
        udp: bool,
    ) -> Option<Self> {
        // A super-packet is merged already.
        offload.gso.is_none().then_some(())?;
        let payload = usize::from(headers.payload);
        let piece = Piece {
            at: u32::try_from(at + payload).ok()?,
            len: packet.len().checked_sub(payload).filter(|&len| len > 0)? as u32,
        };
        // IPv4 options and IPv6 extension headers are never merged.
        let id = match headers.key.version {
            Version::V4 => {
                let [id0, id1, fragment0, fragment1] = field::read(packet, at::V4_ID)?;
                let fragment = u16::from_be_bytes([fragment0, fragment1]) & !DONT_FRAGMENT;
                (usize::from(headers.transport) == length::V4 && fragment == 0).then_some(())?;
                u16::from_be_bytes([id0, id1])
            }
            Version::V6 => {
                (usize::from(headers.transport) == length::V6).then_some(())?;
                0
            }
        };
        let transport = packet.get(usize::from(headers.transport)..)?;
        if let Some(partial) = offload.checksum {
            // What is merged gets a checksum of its own transport header, in place of any that was to be made. One
            // further in, of what a tunnel carries (VXLAN), must be made as the sender has asked.
            let field_at = match headers.key.protocol {
                protocol::TCP => at::TCP_CHECKSUM,
                _ => at::UDP_CHECKSUM,
            };
            let is_own =
                partial.start == headers.transport && usize::from(partial.offset) == field_at;
            is_own.then_some(())?;
        }
        let tcp = match headers.key.protocol {
            protocol::TCP => {
                const DATA: u8 = flag::ACK | flag::PSH | flag::FIN | flag::ECE;
                let flags = headers.tcp_flags;
                (flags & !DATA == 0 && flags & flag::ACK != 0).then_some(())?;
                let sequence = u32::from_be_bytes(field::read(transport, at::TCP_SEQUENCE)?);
                Some(Segment { sequence, flags })
            }
            protocol::UDP if udp => {
                // Without a checksum it could not be told apart from a corrupt one.
                let [l0, l1, c0, c1] = field::read(transport, at::UDP_LENGTH)?;
                let fits = usize::from(u16::from_be_bytes([l0, l1])) == transport.len();
                (fits && [c0, c1] != [0, 0]).then_some(())?;
                None
            }
            _ => return None,
        };
        // One that the sender's own kernel has left to a device is made, not carried: nothing can be corrupt.
        if offload.checksum.is_none() && !offload.checksum_valid {
            let pseudo_header = checksum::pseudo_header(&headers.key, transport.len() as u32);
            (pseudo_header + Sum::of(transport)).holds().then_some(())?;
        }
        let offload = Offload {
            checksum_valid: offload.checksum.is_none(),
            ..*offload
        };
        let closes = tcp
            .as_ref()
            .is_some_and(|segment| segment.flags & (flag::FIN | flag::PSH) != 0);
        Some(Self {
            at: at as u32,
            piece,
            id,
            tcp,
            closes,
            offload,
        })
    }
}

/// "Don't fragment" among the IPv4 flags.
const DONT_FRAGMENT: u16 = 0x4000;

/// One open super-packet. Its header stays where it came in: it is that of the first packet.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) key: FlowKey,
    /// Where the first packet begins in the batch.
    at: u32,
    transport: u16,
    /// Length of IP and transport header.
    header: u16,
    /// Payload of each packet but the last.
    size: u32,
    /// Payload of all.
    payload: u32,
    /// Sequence number that comes next.
    sequence: u32,
    /// IPv4 id that comes next.
    id: u16,
    /// FIN and PSH of the last packet.
    flags: u8,
    count: u8,
    /// What is left to do for the first packet if it stays alone.
    offload: Offload,
    pieces: [Piece; MAX_PIECES],
}

impl Flow {
    pub(super) const EMPTY: Self = Self {
        key: FlowKey {
            source: 0,
            destination: 0,
            source_port: 0,
            destination_port: 0,
            protocol: 0,
            version: Version::V4,
        },
        at: 0,
        transport: 0,
        header: 0,
        size: 0,
        payload: 0,
        sequence: 0,
        id: 0,
        flags: 0,
        count: 0,
        offload: Offload {
            checksum: None,
            gso: None,
            checksum_valid: false,
        },
        pieces: [Piece { at: 0, len: 0 }; MAX_PIECES],
    };

    #[inline]
    pub(super) fn begin(&mut self, headers: &Headers, candidate: &Candidate) {
        self.key = headers.key;
        self.at = candidate.at;
        self.transport = headers.transport;
        self.header = headers.payload;
        self.size = candidate.piece.len;
        self.payload = 0;
        self.flags = 0;
        self.count = 0;
        self.offload = candidate.offload;
        self.append(candidate);
    }

    /// The header of the first packet.
    #[inline]
    pub(super) fn first<'a>(&self, batch: &'a [u8]) -> Option<&'a [u8]> {
        batch
            .get(self.at as usize..)?
            .get(..usize::from(self.header))
    }

    /// Whether a packet goes on where this super-packet ends.
    #[inline]
    pub(super) fn takes(&self, first: &[u8], packet: &[u8], candidate: &Candidate) -> bool {
        let len = candidate.piece.len;
        let fits = len <= self.size
            && usize::from(self.header) + (self.payload + len) as usize <= MAX_LEN
            && candidate
                .tcp
                .as_ref()
                .is_none_or(|segment| segment.sequence == self.sequence);
        fits && packet
            .get(..first.len())
            .and_then(|header| self.same_headers(first, header, candidate.id))
            == Some(true)
    }

    /// Whether two headers differ in nothing but what a split restores: lengths, checksums, the id, the
    /// sequence number, FIN and PSH.
    #[inline]
    fn same_headers(&self, first: &[u8], header: &[u8], id: u16) -> Option<bool> {
        let (ip, transport) = first.split_at_checked(usize::from(self.transport))?;
        let (its_ip, its_transport) = header.split_at_checked(usize::from(self.transport))?;
        let same_ip = match self.key.version {
            Version::V4 => {
                let of = |ip: &[u8]| -> Option<([u8; 2], [u8; 2], [u8; 2])> {
                    Some((
                        field::read(ip, at::V4_TOS - 1)?,
                        field::read(ip, at::V4_FRAGMENT)?,
                        field::read(ip, at::V4_TTL)?,
                    ))
                };
                let (start, fragment, ttl) = of(ip)?;
                // The id of an atomic datagram means nothing (RFC 6864, 4.1).
                let atomic = u16::from_be_bytes(fragment) & DONT_FRAGMENT != 0;
                of(its_ip)? == (start, fragment, ttl) && (atomic || id == self.id)
            }
            Version::V6 => {
                // Traffic class and flow label, and the hop limit.
                let of = |ip: &[u8]| -> Option<([u8; 4], [u8; 1])> {
                    Some((field::read(ip, 0)?, field::read(ip, at::V6_HOP_LIMIT)?))
                };
                of(ip)? == of(its_ip)?
            }
        };
        if self.key.protocol != protocol::TCP {
            return Some(same_ip);
        }
        // Acknowledgement; data offset, flags and window; options.
        let of = |tcp: &[u8]| -> Option<(u64, u16)> {
            let mut fields: [u8; 8] = field::read(tcp, at::TCP_SEQUENCE + 4)?;
            let [.., flags, _, _] = &mut fields;
            *flags &= !(flag::FIN | flag::PSH);
            Some((
                u64::from_ne_bytes(fields),
                u16::from_ne_bytes(field::read(tcp, at::TCP_URGENT)?),
            ))
        };
        let same_tcp = of(transport)? == of(its_transport)?
            && transport.get(length::TCP..)? == its_transport.get(length::TCP..)?;
        Some(same_ip && same_tcp)
    }

    /// Appends a packet; true if nothing may follow it.
    #[inline]
    pub(super) fn append(&mut self, candidate: &Candidate) -> bool {
        let len = candidate.piece.len;
        if let Some(piece) = self.pieces.get_mut(usize::from(self.count)) {
            *piece = candidate.piece;
            self.count += 1;
        }
        self.payload += len;
        self.id = candidate.id.wrapping_add(1);
        if let Some(segment) = &candidate.tcp {
            self.sequence = segment.sequence.wrapping_add(len);
            self.flags = segment.flags & (flag::FIN | flag::PSH);
        }
        candidate.closes || len < self.size || usize::from(self.count) == MAX_PIECES
    }

    /// Hands the super-packet over.
    #[inline]
    pub(super) fn emit<E>(&self, batch: &[u8], emit: &mut E)
    where
        E: FnMut(SuperPacket<'_>),
    {
        let Some(first) = self.first(batch) else {
            return;
        };
        if self.count == 1 {
            let len = first.len() + self.payload as usize;
            if let Some(packet) = batch
                .get(self.at as usize..)
                .and_then(|rest| rest.get(..len))
            {
                emit(SuperPacket::single(packet, self.offload));
            }
            return;
        }
        let mut header = [0; MAX_HEADER];
        let Some(header) = header.get_mut(..first.len()) else {
            return;
        };
        header.copy_from_slice(first);
        let Some(offload) = self.write_header(header) else {
            return;
        };
        emit(SuperPacket {
            header,
            offload,
            segments: usize::from(self.count),
            len: first.len() + self.payload as usize,
            batch,
            pieces: self
                .pieces
                .get(..usize::from(self.count))
                .unwrap_or_default(),
        });
    }

    /// Makes the first packet's header that of the super-packet: lengths, flags, partial checksum.
    fn write_header(&self, header: &mut [u8]) -> Option<Offload> {
        let total = header.len() + self.payload as usize;
        let (ip, transport) = header.split_at_mut_checked(usize::from(self.transport))?;
        let transport_len = total - ip.len();
        let kind = match self.key.version {
            Version::V4 => {
                let len: &mut [u8; 2] = field::edit(ip, at::V4_LENGTH)?;
                let (old, new) = (*len, (total as u16).to_be_bytes());
                *len = new;
                let sum: &mut [u8; 2] = field::edit(ip, at::V4_CHECKSUM)?;
                *sum = checksum::update(*sum, old, new);
                GsoKind::Tcp4
            }
            Version::V6 => {
                *field::edit(ip, at::V6_LENGTH)? = (transport_len as u16).to_be_bytes();
                GsoKind::Tcp6
            }
        };
        let (kind, field_at) = if self.key.protocol == protocol::TCP {
            let [flags] = field::edit(transport, at::TCP_FLAGS)?;
            *flags |= self.flags;
            (kind, at::TCP_CHECKSUM)
        } else {
            *field::edit(transport, at::UDP_LENGTH)? = (transport_len as u16).to_be_bytes();
            (GsoKind::Udp, at::UDP_CHECKSUM)
        };
        let pseudo_header = checksum::pseudo_header(&self.key, transport_len as u32);
        *field::edit(transport, field_at)? = pseudo_header.folded();
        Some(Offload {
            checksum: Some(PartialChecksum {
                start: self.transport,
                offset: field_at as u16,
            }),
            gso: Some(Gso {
                kind,
                size: self.size as u16,
                ecn: false,
            }),
            checksum_valid: false,
        })
    }
}
