//! Fixed-width fields of a packet at an offset, checked: outside the packet is `None`, never a panic.

/// The `N` bytes at `at`; `None` if they do not lie inside `packet`.
#[inline]
pub(super) fn read<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
    packet.get(at..)?.first_chunk().copied()
}

/// The `N` bytes at `at`, to be changed; `None` if they do not lie inside `packet`.
#[inline]
pub(super) fn edit<const N: usize>(packet: &mut [u8], at: usize) -> Option<&mut [u8; N]> {
    packet.get_mut(at..)?.first_chunk_mut()
}

/// Offsets of the fields that the data path edits, bytes from the start of the header that has them.
pub(super) mod at {
    /// IPv4 type of service (RFC 791).
    pub(crate) const V4_TOS: usize = 1;
    /// IPv4 total length, 16 bits.
    pub(crate) const V4_LENGTH: usize = 2;
    /// IPv4 identification, 16 bits.
    pub(crate) const V4_ID: usize = 4;
    /// IPv4 flags and fragment offset, 16 bits.
    pub(crate) const V4_FRAGMENT: usize = 6;
    /// IPv4 time to live; the protocol follows it.
    pub(crate) const V4_TTL: usize = 8;
    /// IPv4 header checksum, 16 bits.
    pub(crate) const V4_CHECKSUM: usize = 10;
    /// IPv6 payload length, 16 bits (RFC 8200).
    pub(crate) const V6_LENGTH: usize = 4;
    /// IPv6 hop limit.
    pub(crate) const V6_HOP_LIMIT: usize = 7;
    /// TCP sequence number, 32 bits (RFC 9293).
    pub(crate) const TCP_SEQUENCE: usize = 4;
    /// TCP data offset (upper four bits); the flags follow it.
    pub(crate) const TCP_DATA_OFFSET: usize = 12;
    /// TCP flags.
    pub(crate) const TCP_FLAGS: usize = 13;
    /// TCP checksum, 16 bits.
    pub(crate) const TCP_CHECKSUM: usize = 16;
    /// TCP urgent pointer, 16 bits; the options follow it.
    pub(crate) const TCP_URGENT: usize = 18;
    /// UDP length, 16 bits (RFC 768).
    pub(crate) const UDP_LENGTH: usize = 4;
    /// UDP checksum, 16 bits.
    pub(crate) const UDP_CHECKSUM: usize = 6;
    /// ICMP and ICMPv6 checksum, 16 bits.
    pub(crate) const ICMP_CHECKSUM: usize = 2;
}

/// TCP flags (RFC 9293, 3.1; RFC 3168).
pub(super) mod flag {
    /// No more data.
    pub(crate) const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub(crate) const SYN: u8 = 0x02;
    /// Push.
    pub(crate) const PSH: u8 = 0x08;
    /// The acknowledgement field counts.
    pub(crate) const ACK: u8 = 0x10;
    /// Congestion was experienced (and in a SYN: ECN is understood).
    pub(crate) const ECE: u8 = 0x40;
    /// Congestion window reduced.
    pub(crate) const CWR: u8 = 0x80;
}
