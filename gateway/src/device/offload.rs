//! What a packet still needs done to it before it is on a wire: the virtio-net header, as values.

/// Length of `struct virtio_net_hdr` as TUN (IFF_VNET_HDR) and packet sockets (PACKET_VNET_HDR) use it.
pub const HEADER_LEN: usize = 10;

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
    /// Packets on the wire that an IP packet with `payload` bytes behind its transport header stands for.
    #[inline]
    pub fn segments(&self, payload: usize) -> u64 {
        self.gso.map_or(1, |gso| {
            payload.div_ceil(usize::from(gso.size).max(1)).max(1) as u64
        })
    }
}
