//! The ICMP error that tells a sender why its packet was not forwarded (RFC 792, 1122, 1812; RFC 4443).
//!
//! 1. whether the packet may be answered at all ([`may_answer`])
//! 2. whether the rate of errors allows one more ([`RateLimit`](super::rate::RateLimit))
//! 3. the error, around as much of the packet as it may quote ([`build`])

use super::checksum::{self, Sum};
use super::field::{self, at, length};
use super::split::Cutter;
use crate::device::offload::Offload;
use routing::packet::{FlowKey, Fragment, Headers, Version, protocol};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// TTL or hop limit ran out on the way.
    TimeExceeded,
    /// No route to the destination.
    NoRoute,
    /// The destination cannot be reached though there is a route.
    Unreachable,
    /// Nothing listens on the port.
    PortUnreachable,
    /// Policy forbids it.
    Prohibited,
    /// Larger than the next hop takes and not to be fragmented.
    TooBig {
        /// What the next hop takes, bytes.
        mtu: u16,
    },
}

/// The longest error over IPv4 (RFC 1812, 4.3.2.3), bytes with its IP header.
const MAX_V4: usize = 576;
/// The longest error over IPv6 (RFC 4443, 2.4 c): the least MTU of IPv6.
const MAX_V6: usize = 1280;
/// The longest error: a buffer of as many bytes holds any.
pub const MAX_ERROR: usize = MAX_V6;
/// CS6, internetwork control (RFC 1812, 4.3.2.5).
const TRAFFIC_CLASS: u8 = 0xc0;
const HOP_LIMIT: u8 = 64;

impl Complaint {
    /// Type, code and the four bytes behind the checksum (RFC 792, RFC 1191, RFC 1812 5.2.7.1).
    const fn v4(self) -> (u8, u8, [u8; 4]) {
        match self {
            Self::TimeExceeded => (11, 0, [0; 4]),
            Self::NoRoute => (3, 0, [0; 4]),
            Self::Unreachable => (3, 1, [0; 4]),
            Self::PortUnreachable => (3, 3, [0; 4]),
            Self::Prohibited => (3, 13, [0; 4]),
            Self::TooBig { mtu } => (3, 4, (mtu as u32).to_be_bytes()),
        }
    }

    /// The same of RFC 4443, 3.
    const fn v6(self) -> (u8, u8, [u8; 4]) {
        match self {
            Self::TimeExceeded => (3, 0, [0; 4]),
            Self::NoRoute => (1, 0, [0; 4]),
            Self::Unreachable => (1, 3, [0; 4]),
            Self::PortUnreachable => (1, 4, [0; 4]),
            Self::Prohibited => (1, 1, [0; 4]),
            Self::TooBig { mtu } => (2, 0, (mtu as u32).to_be_bytes()),
        }
    }
}

/// Whether an error may be sent about a packet (RFC 1122, 3.2.2; RFC 1812, 4.3.2.7; RFC 4443, 2.4 e):
/// not about an ICMP error or a redirect, not about a later fragment, not if it was for many, and not to
/// a source that is no single host. What came as a link-layer broadcast the caller leaves out.
pub fn may_answer(headers: &Headers) -> bool {
    let key = &headers.key;
    let kind = (key.destination_port >> 8) as u8;
    let is_error = match (key.protocol, key.version) {
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        (protocol::ICMP, Version::V4) => matches!(kind, 3 | 4 | 5 | 11 | 12),
        // All types below 128, and redirect.
        (protocol::ICMPV6, Version::V6) => kind < 128 || kind == 137,
        _ => false,
    };
    !is_error
        && headers.fragment != Fragment::Later
        && is_one_host(key.source_address())
        && is_one_host(key.destination_address())
}

/// Whether an address can be one host's, as seen from elsewhere. Class E holds the limited broadcast.
fn is_one_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            first != 0 && first < 224 && !address.is_loopback()
        }
        IpAddr::V6(address) => {
            !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
        }
    }
}

/// Writes the error about `packet` (as its sender sent it: before any edit) to the front of `out` and
/// gives its length in bytes. Of a super-packet it quotes the first segment as it would be on the wire.
/// `source` is the address that the gateway answers with.
///
/// `None` if there is to be no error ([`may_answer`]), `source` is of the other family, packet, headers
/// and offload do not belong together, or `out` is too short ([`MAX_ERROR`] bytes never are).
pub fn build(
    complaint: Complaint,
    packet: &[u8],
    headers: &Headers,
    offload: &Offload,
    source: IpAddr,
    out: &mut [u8],
) -> Option<usize> {
    if !may_answer(headers) {
        return None;
    }
    let cutter = Cutter::new(packet, headers, offload).ok()?;
    match (source, headers.key.source_address()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            build_v4(complaint.v4(), &cutter, source, destination, out)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            build_v6(complaint.v6(), &cutter, source, destination, out)
        }
        _ => None,
    }
}

fn build_v4(
    message: (u8, u8, [u8; 4]),
    cutter: &Cutter<'_>,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    out: &mut [u8],
) -> Option<usize> {
    let (ip, icmp) = out.split_at_mut_checked(length::V4)?;
    let len = write_message(message, cutter, icmp, MAX_V4 - length::V4, None)?;

    // Don't-fragment, which it sets, makes it an atomic datagram, whose id means nothing (RFC 6864, 4.1).
    let header = Ipv4Repr {
        src_addr: source,
        dst_addr: destination,
        next_header: IpProtocol::Icmp,
        payload_len: len,
        hop_limit: HOP_LIMIT,
    };
    let mut ip = Ipv4Packet::new_unchecked(ip);
    header.emit(&mut ip, &ChecksumCapabilities::ignored());
    ip.set_dscp(TRAFFIC_CLASS >> 2);
    ip.fill_checksum();
    Some(length::V4 + len)
}

fn build_v6(
    message: (u8, u8, [u8; 4]),
    cutter: &Cutter<'_>,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    out: &mut [u8],
) -> Option<usize> {
    let (ip, icmp) = out.split_at_mut_checked(length::V6)?;
    let pseudo_header = checksum::pseudo_header(
        &FlowKey {
            source: source.to_bits(),
            destination: destination.to_bits(),
            source_port: 0,
            destination_port: 0,
            protocol: protocol::ICMPV6,
            version: Version::V6,
        },
        0,
    );
    let len = write_message(
        message,
        cutter,
        icmp,
        MAX_V6 - length::V6,
        Some(pseudo_header),
    )?;

    let header = Ipv6Repr {
        src_addr: source,
        dst_addr: destination,
        next_header: IpProtocol::Icmpv6,
        payload_len: len,
        hop_limit: HOP_LIMIT,
    };
    let mut ip = Ipv6Packet::new_unchecked(ip);
    header.emit(&mut ip);
    ip.set_traffic_class(TRAFFIC_CLASS);
    Some(length::V6 + len)
}

/// Writes the ICMP message, at most `limit` bytes, and gives its length. `pseudo_header`, which only IPv6
/// has, is the sum of one without its length.
fn write_message(
    (kind, code, rest): (u8, u8, [u8; 4]),
    cutter: &Cutter<'_>,
    out: &mut [u8],
    limit: usize,
    pseudo_header: Option<Sum>,
) -> Option<usize> {
    let limit = limit.min(out.len());
    let (header, quote) = out.get_mut(..limit)?.split_at_mut_checked(length::ICMP)?;
    let [r0, r1, r2, r3] = rest;
    header.copy_from_slice(&[kind, code, 0, 0, r0, r1, r2, r3]);
    let len = length::ICMP + cutter.write_beginning(quote)?;

    let message = out.get_mut(..len)?;
    let mut sum = Sum::of(message);
    if let Some(pseudo_header) = pseudo_header {
        sum = sum + pseudo_header + Sum::long(len as u32);
    }
    *field::edit(message, at::ICMP_CHECKSUM)? = sum.checksum();
    Some(len)
}

/// Errors per second and worker, unless said otherwise.
pub const ERRORS_PER_SECOND: u32 = 1000;
/// Errors in one burst, unless said otherwise.
pub const ERROR_BURST: u32 = 50;
