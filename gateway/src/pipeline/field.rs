//! Fixed-width fields of a packet at an offset, checked: outside the packet is `None`, never a panic. And the one
//! list of the offsets, lengths and flags that the data path knows.

/// The `N` bytes at `at`; `None` if they do not lie inside `packet`.
#[inline]
pub(crate) fn read<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
    packet.get(at..)?.first_chunk().copied()
}

/// The `N` bytes at `at`, to be changed; `None` if they do not lie inside `packet`.
#[inline]
pub(crate) fn edit<const N: usize>(packet: &mut [u8], at: usize) -> Option<&mut [u8; N]> {
    packet.get_mut(at..)?.first_chunk_mut()
}

/// Offsets of the fields that the data path edits, bytes from the start of the header that has them.
pub(crate) mod at {
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

/// Lengths of headers, bytes.
pub(crate) mod length {
    use routing::packet::Version;

    /// IPv4 without options (RFC 791).
    pub(crate) const V4: usize = 20;
    /// IPv4 with as many options as there can be.
    pub(crate) const V4_MOST: usize = 60;
    /// IPv6 without extension headers (RFC 8200), which is what its payload length leaves out.
    pub(crate) const V6: usize = 40;
    /// TCP without options (RFC 9293).
    pub(crate) const TCP: usize = 20;
    /// TCP with as many options as there can be.
    pub(crate) const TCP_MOST: usize = 60;
    /// UDP (RFC 768).
    pub(crate) const UDP: usize = 8;
    /// ICMP and ICMPv6: type, code, checksum and four bytes whose meaning depends on the type.
    pub(crate) const ICMP: usize = 8;

    /// IP without options or extension headers.
    pub(crate) const fn ip(version: Version) -> usize {
        match version {
            Version::V4 => V4,
            Version::V6 => V6,
        }
    }
}

/// TCP flags (RFC 9293, 3.1; RFC 3168).
pub(crate) mod flag {
    /// No more data.
    pub(crate) const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub(crate) const SYN: u8 = 0x02;
    /// The connection is reset.
    pub(crate) const RST: u8 = 0x04;
    /// Push.
    pub(crate) const PSH: u8 = 0x08;
    /// The acknowledgement field counts.
    pub(crate) const ACK: u8 = 0x10;
    /// Congestion was experienced (and in a SYN: ECN is understood).
    pub(crate) const ECE: u8 = 0x40;
    /// Congestion window reduced.
    pub(crate) const CWR: u8 = 0x80;
}
