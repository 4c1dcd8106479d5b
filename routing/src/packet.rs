//! One checked view of an IP packet: parsed once at the ingress, used by everything after it.
//!
//! 1. Version, header length and the packet's own length against the bytes at hand.
//! 2. IPv4: header checksum, options. IPv6: extension headers, at most [`MAX_EXTENSIONS`].
//! 3. Fragment fields, with the checks that keep a fragment from hiding its ports (RFC 1858, RFC 3128,
//!    RFC 7112): a first fragment has its whole transport header, and no later one overlaps it.
//! 4. Transport: ports, TCP data offset and flags, ICMP type, code and identifier.
//!
//! A super-packet is one packet with a large length field. Lengths beyond the field (jumbograms, Linux's
//! "BIG TCP") are not turned on on any device of the gateway; such a packet fails the length check.

use crate::reason::DropReason;
use std::net::IpAddr;

/// Protocol numbers (IANA) that the parser looks into.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
}

/// The most IPv6 extension headers that are walked. Each kind may stand once, destination options twice
/// (RFC 8200, 4.1); two more are allowed for kinds to come.
pub const MAX_EXTENSIONS: usize = 8;

/// IP version of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// IPv4 (RFC 791).
    V4,
    /// IPv6 (RFC 8200).
    V6,
}

/// What a flow is told apart by. Addresses are 128 bits wide; IPv4 stands in the low 32 bits, told
/// apart from IPv6 by `version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Source address.
    pub source: u128,
    /// Destination address.
    pub destination: u128,
    /// Source port of TCP and UDP; identifier of ICMP echo; 0 where there is none (later fragments too).
    pub source_port: u16,
    /// Destination port of TCP and UDP; ICMP type in the high byte and code in the low one.
    pub destination_port: u16,
    /// The transport protocol's number (for IPv6, after the extension headers).
    pub protocol: u8,
    /// IP version.
    pub version: Version,
}

impl FlowKey {
    /// The source address.
    pub fn source_address(&self) -> IpAddr {
        address(self.version, self.source)
    }

    /// The destination address.
    pub fn destination_address(&self) -> IpAddr {
        address(self.version, self.destination)
    }

    /// Whether the protocol is the version's ICMP, so that `destination_port` holds type and code.
    #[inline]
    pub fn is_icmp(&self) -> bool {
        match self.version {
            Version::V4 => self.protocol == protocol::ICMP,
            Version::V6 => self.protocol == protocol::ICMPV6,
        }
    }
}

fn address(version: Version, bits: u128) -> IpAddr {
    match version {
        Version::V4 => IpAddr::from((bits as u32).to_be_bytes()),
        Version::V6 => IpAddr::from(bits.to_be_bytes()),
    }
}

/// An address as a flow key holds it: version and 128 bits.
pub fn address_bits(address: IpAddr) -> (Version, u128) {
    match address {
        IpAddr::V4(v4) => (Version::V4, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (Version::V6, v6.to_bits()),
    }
}

/// Whether a packet is a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// A whole packet.
    Whole,
    /// The first of several: it has the transport header.
    First,
    /// A later one: no transport header.
    Later,
}

/// What the parser found. Offsets are in bytes from the start of the IP header and lie inside the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The flow.
    pub key: FlowKey,
    /// Where the transport header begins.
    pub transport: u16,
    /// Where the transport payload begins; equal to `transport` where the transport is not TCP or UDP.
    pub payload: u16,
    /// Length of the IP packet by its own length field; what lies behind it is link padding.
    pub total_len: u32,
    /// DSCP in the upper six bits, ECN in the lower two.
    pub traffic_class: u8,
    /// TTL (IPv4) or hop limit (IPv6).
    pub hop_limit: u8,
    /// Fragment or not.
    pub fragment: Fragment,
    /// IPv4 don't-fragment; always true for IPv6.
    pub dont_fragment: bool,
    /// TCP flags (RFC 9293 byte 13), 0 for other protocols.
    pub tcp_flags: u8,
}

impl Headers {
    /// Reads the headers of the IP packet in `bytes`; nothing behind the packet's own length counts.
    ///
    /// # Errors
    /// The reason why such a packet is dropped: `Malformed`, `NotIp`, `HeaderChecksum`, `IpOption`.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, DropReason> {
        match bytes.first().map(|byte| byte >> 4) {
            Some(4) => parse_v4(bytes),
            Some(6) => parse_v6(bytes),
            Some(_) => Err(DropReason::NotIp),
            None => Err(DropReason::Malformed),
        }
    }
}

#[inline]
fn parse_v4(bytes: &[u8]) -> Result<Headers, DropReason> {
    let Some(fixed) = bytes.first_chunk::<20>() else {
        return Err(DropReason::Malformed);
    };
    let &[
        first,
        traffic_class,
        l0,
        l1,
        _,
        _,
        f0,
        f1,
        hop_limit,
        protocol,
        _,
        _,
        s0,
        s1,
        s2,
        s3,
        d0,
        d1,
        d2,
        d3,
    ] = fixed;
    let header_len = usize::from(first & 0x0f) * 4;
    let total_len = u16::from_be_bytes([l0, l1]);
    let Some(packet) = bytes.get(..usize::from(total_len)) else {
        return Err(DropReason::Malformed);
    };
    let mut sum = sum_words(fixed);
    if header_len != 20 {
        // A header length under 20 and a header that is longer than the packet both end here.
        let Some(options) = packet.get(20..header_len) else {
            return Err(DropReason::Malformed);
        };
        sum += sum_words(options);
        check_options(options)?;
    } else if packet.len() < 20 {
        return Err(DropReason::Malformed);
    }
    if fold(sum) != 0xffff {
        return Err(DropReason::HeaderChecksum);
    }

    let flags_and_offset = u16::from_be_bytes([f0, f1]);
    let offset = usize::from(flags_and_offset & 0x1fff) * 8;
    let more = flags_and_offset & 0x2000 != 0;
    let fragment = fragment(offset, more, packet.len() - header_len, protocol)?;
    let transport = Transport::read(packet, header_len, protocol, fragment, protocol::ICMP)?;
    Ok(Headers {
        key: FlowKey {
            source: u128::from(u32::from_be_bytes([s0, s1, s2, s3])),
            destination: u128::from(u32::from_be_bytes([d0, d1, d2, d3])),
            source_port: transport.source_port,
            destination_port: transport.destination_port,
            protocol,
            version: Version::V4,
        },
        transport: header_len as u16,
        payload: transport.payload,
        total_len: u32::from(total_len),
        traffic_class,
        hop_limit,
        fragment,
        dont_fragment: flags_and_offset & 0x4000 != 0,
        tcp_flags: transport.tcp_flags,
    })
}

/// The one's complement sum of RFC 1071, unfolded, in the machine's byte order (the folded sum of a
/// header whose checksum holds is 0xffff in either). At most 15 words: no overflow.
#[inline]
fn sum_words(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks::<4>();
    words
        .iter()
        .map(|&word| u64::from(u32::from_ne_bytes(word)))
        .sum()
}

#[inline]
fn fold(sum: u64) -> u16 {
    // Sixteen words of 32 bits stay under 2^36: three folds of the halves end below 2^16.
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Walks IPv4 options: source routes are refused (RFC 7126, 4.3 and 4.4), a length that does not hold
/// is malformed, all others pass.
#[cold]
fn check_options(mut options: &[u8]) -> Result<(), DropReason> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    while let Some((&kind, rest)) = options.split_first() {
        options = match kind {
            END => return Ok(()),
            NO_OPERATION => rest,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Err(DropReason::IpOption),
            _ => match rest.split_first() {
                // The option's length counts its kind and itself.
                Some((&length, _)) if length >= 2 => options
                    .get(usize::from(length)..)
                    .ok_or(DropReason::Malformed)?,
                _ => return Err(DropReason::Malformed),
            },
        };
    }
    Ok(())
}

#[inline]
fn parse_v6(bytes: &[u8]) -> Result<Headers, DropReason> {
    let Some(
        &[
            first,
            class_flow,
            _,
            _,
            l0,
            l1,
            next,
            hop_limit,
            addresses @ ..,
        ],
    ) = bytes.first_chunk::<40>()
    else {
        return Err(DropReason::Malformed);
    };
    let (source, destination) = halves(&addresses);
    let total_len = 40 + usize::from(u16::from_be_bytes([l0, l1]));
    let Some(packet) = bytes.get(..total_len) else {
        return Err(DropReason::Malformed);
    };
    let upper = match next {
        protocol::TCP | protocol::UDP | protocol::ICMPV6 => Upper {
            protocol: next,
            at: 40,
            fragment: Fragment::Whole,
        },
        _ => walk_extensions(packet, next)?,
    };
    let transport = Transport::read(
        packet,
        upper.at,
        upper.protocol,
        upper.fragment,
        protocol::ICMPV6,
    )?;
    Ok(Headers {
        key: FlowKey {
            source,
            destination,
            source_port: transport.source_port,
            destination_port: transport.destination_port,
            protocol: upper.protocol,
            version: Version::V6,
        },
        transport: upper.at as u16,
        payload: transport.payload,
        total_len: total_len as u32,
        traffic_class: (first << 4) | (class_flow >> 4),
        hop_limit,
        fragment: upper.fragment,
        dont_fragment: true,
        tcp_flags: transport.tcp_flags,
    })
}

/// Splits 32 bytes into two addresses.
#[inline]
fn halves(bytes: &[u8; 32]) -> (u128, u128) {
    let (pair, _) = bytes.as_chunks::<16>();
    match pair {
        [source, destination] => (
            u128::from_be_bytes(*source),
            u128::from_be_bytes(*destination),
        ),
        _ => (0, 0),
    }
}

/// What stands behind the extension headers.
struct Upper {
    protocol: u8,
    at: usize,
    fragment: Fragment,
}

/// Walks the extension headers of an IPv6 packet from its fixed header's `next` on.
fn walk_extensions(packet: &[u8], next: u8) -> Result<Upper, DropReason> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION_OPTIONS: u8 = 60;

    let mut upper = Upper {
        protocol: next,
        at: 40,
        fragment: Fragment::Whole,
    };
    let mut has_fragment_header = false;
    for step in 0..=MAX_EXTENSIONS {
        let kind = upper.protocol;
        if !matches!(
            kind,
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS
        ) {
            return Ok(upper);
        }
        // Every extension header is at least eight bytes long.
        let header = packet
            .get(upper.at..)
            .and_then(<[u8]>::first_chunk::<8>)
            .ok_or(DropReason::Malformed)?;
        let &[next, length, third, fourth, ..] = header;
        let length = match kind {
            // RFC 8200, 4.3: only ever the first.
            HOP_BY_HOP if step != 0 => return Err(DropReason::Malformed),
            // RFC 5095: routing type 0 is gone.
            ROUTING if third == 0 => return Err(DropReason::IpOption),
            FRAGMENT => {
                if has_fragment_header {
                    return Err(DropReason::Malformed);
                }
                has_fragment_header = true;
                let offset_and_more = u16::from_be_bytes([third, fourth]);
                upper.fragment = fragment(
                    usize::from(offset_and_more & !7),
                    offset_and_more & 1 != 0,
                    packet.len() - upper.at - 8,
                    next,
                )?;
                8
            }
            // RFC 4302, 2.2: in words of four bytes, minus two.
            AUTHENTICATION => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        upper.protocol = next;
        upper.at += length;
        if upper.at > packet.len() {
            return Err(DropReason::Malformed);
        }
        // What follows in a later fragment is not a header chain.
        if upper.fragment == Fragment::Later {
            return Ok(upper);
        }
    }
    Err(DropReason::Malformed)
}

/// Judges fragment fields: `offset` and `length` in bytes, of the fragment's part of the payload.
#[inline]
fn fragment(
    offset: usize,
    more: bool,
    length: usize,
    protocol: u8,
) -> Result<Fragment, DropReason> {
    if offset == 0 && !more {
        // RFC 6946: an IPv6 "atomic fragment" is a whole packet too.
        return Ok(Fragment::Whole);
    }
    let overlong = offset + length > 65_535;
    // RFC 791, 3.2 and RFC 8200, 4.5: all but the last are multiples of eight bytes.
    let uneven = more && !length.is_multiple_of(8);
    // RFC 3128: such a fragment would overwrite the TCP flags of the first.
    let overlaps_tcp = offset == 8 && protocol == protocol::TCP;
    if overlong || uneven || overlaps_tcp || length == 0 {
        return Err(DropReason::Malformed);
    }
    Ok(if offset == 0 {
        Fragment::First
    } else {
        Fragment::Later
    })
}

/// The transport header's part of the view.
struct Transport {
    source_port: u16,
    destination_port: u16,
    payload: u16,
    tcp_flags: u8,
}

impl Transport {
    /// Reads the header of `protocol` at offset `at` (not beyond the packet's end).
    #[inline]
    fn read(
        packet: &[u8],
        at: usize,
        protocol: u8,
        fragment: Fragment,
        icmp: u8,
    ) -> Result<Self, DropReason> {
        let none = Self {
            source_port: 0,
            destination_port: 0,
            payload: at as u16,
            tcp_flags: 0,
        };
        if fragment == Fragment::Later {
            return Ok(none);
        }
        let Some(bytes) = packet.get(at..) else {
            return Err(DropReason::Malformed);
        };
        match protocol {
            protocol::TCP => {
                let Some(&[s0, s1, d0, d1, _, _, _, _, _, _, _, _, offset, flags, ..]) =
                    bytes.first_chunk::<20>()
                else {
                    return Err(DropReason::Malformed);
                };
                let header_len = usize::from(offset >> 4) * 4;
                if header_len < 20 || header_len > bytes.len() {
                    return Err(DropReason::Malformed);
                }
                Ok(Self {
                    source_port: u16::from_be_bytes([s0, s1]),
                    destination_port: u16::from_be_bytes([d0, d1]),
                    payload: (at + header_len) as u16,
                    tcp_flags: flags,
                })
            }
            protocol::UDP => {
                let Some(&[s0, s1, d0, d1, ..]) = bytes.first_chunk::<8>() else {
                    return Err(DropReason::Malformed);
                };
                Ok(Self {
                    source_port: u16::from_be_bytes([s0, s1]),
                    destination_port: u16::from_be_bytes([d0, d1]),
                    payload: (at + 8) as u16,
                    tcp_flags: 0,
                })
            }
            _ if protocol == icmp => {
                // RFC 792 and RFC 4443: type, code, checksum and four bytes more in every message.
                let Some(&[kind, code, _, _, i0, i1, ..]) = bytes.first_chunk::<8>() else {
                    return Err(DropReason::Malformed);
                };
                let echo = match icmp {
                    protocol::ICMP => matches!(kind, 0 | 8),
                    _ => matches!(kind, 128 | 129),
                };
                Ok(Self {
                    source_port: if echo {
                        u16::from_be_bytes([i0, i1])
                    } else {
                        0
                    },
                    destination_port: u16::from_be_bytes([kind, code]),
                    ..none
                })
            }
            _ => Ok(none),
        }
    }
}

/// Whether source or destination must never be forwarded (RFC 1812, 5.3.7; RFC 6890): unspecified,
/// loopback, link-local, multicast, class E with the limited broadcast; for IPv6 also IPv4-mapped.
#[inline]
pub fn is_martian(key: &FlowKey) -> bool {
    match key.version {
        Version::V4 => is_martian_v4(key.source as u32) || is_martian_v4(key.destination as u32),
        Version::V6 => is_martian_v6(key.source) || is_martian_v6(key.destination),
    }
}

#[inline]
fn is_martian_v4(address: u32) -> bool {
    let high = address >> 24;
    // 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/4 and 240.0.0.0/4, 169.254.0.0/16
    high == 0 || high == 127 || high >= 224 || address >> 16 == 0xa9fe
}

#[inline]
fn is_martian_v6(address: u128) -> bool {
    let high = (address >> 112) as u16;
    // ff00::/8, fe80::/10, and ::/96 with ::ffff:0:0/96: unspecified, loopback, IPv4 inside.
    high >= 0xff00 || high & 0xffc0 == 0xfe80 || (high == 0 && matches!(address >> 32, 0 | 0xffff))
}

#[cfg(test)]
mod tests;
