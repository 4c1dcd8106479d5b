//! What a packet still needs done to it before it is on a wire: the virtio-net header, as values.
//!
//! The header (virtio 1.2, 5.1.6; `linux/virtio_net.h`), native byte order as TUN and packet sockets use it:
//! ```text
//! 0     1         2        4         6           8            10
//! | flags | gso_type | hdr_len | gso_size | csum_start | csum_offset |
//! ```
//! `csum_start` counts only with NEEDS_CSUM, `hdr_len` and `gso_size` only with a `gso_type`. Offsets in
//! the header count from the layer 2 header, those in [`Offload`] from the IP header: towards the wire
//! `csum_start` and `hdr_len` grow by the layer 2 length, on receive `csum_start` shrinks by it. `hdr_len`
//! as received is only a hint (it can be the whole linear part), so nothing is parsed by it.

/// Length of `struct virtio_net_hdr` as TUN (IFF_VNET_HDR) and packet sockets (PACKET_VNET_HDR) use it.
pub const HEADER_LEN: usize = 10;

/// `flags`: the checksum is partial (VIRTIO_NET_HDR_F_NEEDS_CSUM).
const NEEDS_CSUM: u8 = 1;
/// `flags`: the checksum has been verified (VIRTIO_NET_HDR_F_DATA_VALID).
const DATA_VALID: u8 = 2;
/// `gso_type` values. 3 (UFO, fragments) is never switched on and so never taken.
const GSO_NONE: u8 = 0;
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;
const GSO_UDP: u8 = 5;
/// Flag beside a `gso_type`.
const GSO_ECN: u8 = 0x80;

/// A checksum that is not complete: the field holds the folded, uncomplemented pseudo-header sum.
/// Offsets in bytes from the start of the packet that the value belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Where the sum begins (the transport header).
    pub start: u16,
    /// Where the 16-bit field is, counted from `start`.
    pub offset: u16,
}

/// How a super-packet is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP, either version (VIRTIO_NET_HDR_GSO_UDP_L4).
    Udp,
}

impl GsoKind {
    /// Where the checksum field is in the transport header, bytes.
    const fn checksum_offset(self) -> u16 {
        match self {
            Self::Tcp4 | Self::Tcp6 => 16,
            Self::Udp => 6,
        }
    }
}

/// A super-packet: many segments under one header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// How it is cut.
    pub kind: GsoKind,
    /// Transport payload of each segment but the last, bytes; never 0.
    pub size: u16,
    /// TCP super-packet with CWR on its first segment only (VIRTIO_NET_HDR_GSO_ECN).
    pub ecn: bool,
}

/// The most packets that a super-packet may stand for. Linux makes no more: 64 KB of TCP in the shortest segments that
/// it sends (`TCP_MIN_SND_MSS`, 48 bytes with 12 of timestamps) are 1,820, and a datagram socket gives 128 at a time
/// (`UDP_MAX_SEGMENTS`; 64 before Linux 6.9). But whoever writes the header, a guest, may say any size, and 65,000
/// datagrams out of one packet would keep all others of a round waiting.
pub const MAX_SEGMENTS: u64 = 2_048;

/// What is left to do for a packet; the default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Checksum to finish.
    pub checksum: Option<PartialChecksum>,
    /// Segmentation to do.
    pub gso: Option<Gso>,
    /// The device has verified the transport checksum already (VIRTIO_NET_HDR_F_DATA_VALID).
    pub checksum_valid: bool,
}

impl Offload {
    /// Reads the header of a packet that has `l2_len` bytes of layer 2 header in the buffer (0 from TUN; a
    /// tag that the kernel took out does not count). `None` if it cannot be trusted: an unknown type, a
    /// segment size of 0, a checksum that begins in front of the IP packet or is not where the type's
    /// transport has it. Whether the checksum's place lies inside the packet only its length can tell:
    /// that is for whoever finishes it to check.
    #[inline]
    pub fn decode(header: &[u8; HEADER_LEN], l2_len: u16) -> Option<Self> {
        let [flags, gso_type, _, _, s0, s1, c0, c1, o0, o1] = *header;
        let checksum = if flags & NEEDS_CSUM == 0 {
            None
        } else {
            Some(PartialChecksum {
                start: u16::from_ne_bytes([c0, c1]).checked_sub(l2_len)?,
                offset: u16::from_ne_bytes([o0, o1]),
            })
        };
        let kind = match gso_type & !GSO_ECN {
            GSO_NONE => None,
            GSO_TCP4 => Some(GsoKind::Tcp4),
            GSO_TCP6 => Some(GsoKind::Tcp6),
            GSO_UDP => Some(GsoKind::Udp),
            _ => return None,
        };
        let size = u16::from_ne_bytes([s0, s1]);
        let gso = match kind {
            Some(kind) => {
                if size == 0 || checksum.is_some_and(|c| c.offset != kind.checksum_offset()) {
                    return None;
                }
                let ecn = gso_type & GSO_ECN != 0;
                Some(Gso { kind, size, ecn })
            }
            None => None,
        };
        Some(Self {
            checksum,
            gso,
            checksum_valid: flags & DATA_VALID != 0,
        })
    }

    /// Writes the header of a packet whose IP and transport headers are `hdr_len` bytes, behind `l2_len`
    /// bytes of layer 2 header (0 into TUN). `checksum_valid` is left out: the kernel reads it from
    /// neither device. An offset beyond 65,535 saturates, and the kernel refuses it.
    #[inline]
    pub fn encode(&self, hdr_len: u16, l2_len: u16) -> [u8; HEADER_LEN] {
        let (mut flags, mut start, mut offset) = (0, 0, 0);
        if let Some(checksum) = self.checksum {
            flags = NEEDS_CSUM;
            start = checksum.start.saturating_add(l2_len);
            offset = checksum.offset;
        }
        let (mut gso_type, mut headers, mut size) = (GSO_NONE, 0, 0);
        if let Some(gso) = self.gso {
            gso_type = match gso.kind {
                GsoKind::Tcp4 => GSO_TCP4,
                GsoKind::Tcp6 => GSO_TCP6,
                GsoKind::Udp => GSO_UDP,
            };
            if gso.ecn {
                gso_type |= GSO_ECN;
            }
            headers = hdr_len.saturating_add(l2_len);
            size = gso.size;
        }
        let [h0, h1] = headers.to_ne_bytes();
        let [s0, s1] = size.to_ne_bytes();
        let [c0, c1] = start.to_ne_bytes();
        let [o0, o1] = offset.to_ne_bytes();
        [flags, gso_type, h0, h1, s0, s1, c0, c1, o0, o1]
    }

    /// Whether a device has to do something for the packet: segment it or finish its checksum.
    #[inline]
    pub fn needs_device(&self) -> bool {
        self.gso.is_some() || self.checksum.is_some()
    }

    /// Packets on the wire that an IP packet with `payload` bytes behind its transport header stands for.
    #[inline]
    pub fn segments(&self, payload: usize) -> u64 {
        self.gso.map_or(1, |gso| {
            payload.div_ceil(usize::from(gso.size).max(1)).max(1) as u64
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tcp(start: u16) -> Offload {
        Offload {
            checksum: Some(PartialChecksum { start, offset: 16 }),
            gso: Some(Gso {
                kind: GsoKind::Tcp4,
                size: 1448,
                ecn: true,
            }),
            checksum_valid: false,
        }
    }

    #[test]
    fn offsets_grow_towards_the_wire_and_shrink_back() {
        let wire = tcp(20).encode(52, 22);
        let field = |i: usize| u16::from_ne_bytes([wire[i], wire[i + 1]]);
        assert_eq!(wire[..2], [NEEDS_CSUM, GSO_TCP4 | GSO_ECN]);
        assert_eq!([field(2), field(4), field(6), field(8)], [74, 1448, 42, 16]);
        // The receiver has the outer tag taken out: 4 bytes less of layer 2 header, and of csum_start.
        assert_eq!(Offload::decode(&wire, 22), Some(tcp(20)));
        assert_eq!(
            Offload::decode(&wire, 18).unwrap().checksum.unwrap().start,
            24
        );
    }

    #[test]
    fn headers_that_cannot_be_trusted_are_refused() {
        let good = tcp(20).encode(40, 0);
        let with = |at: usize, value: u8| {
            let mut header = good;
            header[at] = value;
            header
        };
        assert!(
            Offload::decode(&good, 21).is_none(),
            "begins in front of the packet"
        );
        assert!(Offload::decode(&with(1, 3), 0).is_none(), "UFO");
        assert!(Offload::decode(&with(1, 2), 0).is_none(), "unknown type");
        assert!(
            Offload::decode(&with(8, 6), 0).is_none(),
            "UDP's place in a TCP packet"
        );
        let mut zero = good;
        zero[4..6].fill(0);
        assert!(Offload::decode(&zero, 0).is_none(), "segment size 0");
    }

    #[test]
    fn fields_without_their_flag_do_not_count() {
        let mut header = [0xff; HEADER_LEN];
        (header[0], header[1]) = (0, 0);
        assert_eq!(Offload::decode(&header, 14), Some(Offload::default()));
        assert_eq!(Offload::default().encode(40, 14), [0; HEADER_LEN]);
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_to_the_same_meaning(header: [u8; HEADER_LEN], l2_len in 0_u16..23) {
            if let Some(offload) = Offload::decode(&header, l2_len) {
                let again = Offload::decode(&offload.encode(40, l2_len), l2_len).unwrap();
                prop_assert_eq!(again.checksum, offload.checksum);
                prop_assert_eq!(again.gso, offload.gso);
            }
        }
    }
}
