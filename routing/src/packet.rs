//! One checked view of an IP packet: parsed once at the ingress, used by everything after it.

use crate::reason::DropReason;
use std::net::IpAddr;

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
    /// Source port of TCP and UDP; identifier of ICMP echo; 0 where there is none (fragments too).
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
}

fn address(version: Version, bits: u128) -> IpAddr {
    match version {
        Version::V4 => IpAddr::from((bits as u32).to_be_bytes()),
        Version::V6 => IpAddr::from(bits.to_be_bytes()),
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
    /// Length of the IP packet by its own length field; what lies behind it is link padding. For a
    /// super-packet, whose length field may not hold (IPv6 jumbo), the length that the device gave.
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
    pub fn parse(bytes: &[u8]) -> Result<Self, DropReason> {
        let _ = bytes;
        Err(DropReason::Malformed)
    }
}
