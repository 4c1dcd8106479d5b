//! Edits of a packet on its way through, in place, each with its checksum: the packet stays what
//! [`Headers`] say but for the field that changes.

use super::checksum;
use super::field::{self, at, flag, length};
use crate::device::offload::Offload;
use crate::telemetry::ledger::Sum;
use routing::packet::{Fragment, Headers, Version, protocol};

/// Length of the largest packet on the wire that this packet or super-packet stands for, bytes.
#[inline]
pub fn largest_segment(headers: &Headers, offload: &Offload) -> usize {
    let len = headers.total_len as usize;
    match offload.gso {
        Some(gso) => len.min(usize::from(headers.payload) + usize::from(gso.size)),
        None => len,
    }
}

/// What a packet is on the wire: packets and bytes. A super-packet counts each segment with its headers.
#[inline]
pub fn on_the_wire(headers: &Headers, offload: &Offload) -> Sum {
    let (total, payload) = (headers.total_len as usize, usize::from(headers.payload));
    let packets = offload.segments(total.saturating_sub(payload));
    Sum {
        packets,
        bytes: total as u64 + (packets - 1) * payload as u64,
    }
}

/// Takes one off TTL or hop limit (RFC 1812, 5.3.1; RFC 8200, 3). False, and nothing changed, if that
/// leaves none: the packet is not to be forwarded.
#[inline]
pub fn decrement_hop_limit(packet: &mut [u8], headers: &Headers) -> bool {
    decrement(packet, headers.key.version).is_some()
}

#[inline]
fn decrement(packet: &mut [u8], version: Version) -> Option<()> {
    match version {
        Version::V4 => {
            let [ttl, protocol] = field::read(packet, at::V4_TTL)?;
            let less = ttl.checked_sub(1).filter(|&left| left > 0)?;
            edit_v4(packet, at::V4_TTL, [ttl, protocol], [less, protocol])
        }
        Version::V6 => {
            let [hop_limit] = field::edit(packet, at::V6_HOP_LIMIT)?;
            *hop_limit = hop_limit.checked_sub(1).filter(|&left| left > 0)?;
            Some(())
        }
    }
}

/// Changes a 16-bit word of an IPv4 header and the header's checksum with it.
#[inline]
fn edit_v4(packet: &mut [u8], word_at: usize, old: [u8; 2], new: [u8; 2]) -> Option<()> {
    let sum: &mut [u8; 2] = field::edit(packet, at::V4_CHECKSUM)?;
    *sum = checksum::update(*sum, old, new);
    *field::edit(packet, word_at)? = new;
    Some(())
}

/// Sets DSCP (upper six bits) and ECN (lower two). False if the packet is shorter than its header.
#[inline]
pub fn set_traffic_class(packet: &mut [u8], headers: &Headers, traffic_class: u8) -> bool {
    let set = |packet: &mut [u8]| match headers.key.version {
        Version::V4 => {
            let [first, old] = field::read(packet, at::V4_TOS - 1)?;
            edit_v4(packet, at::V4_TOS - 1, [first, old], [first, traffic_class])
        }
        Version::V6 => {
            let [version, flow] = field::edit(packet, 0)?;
            *version = *version & 0xf0 | traffic_class >> 4;
            *flow = traffic_class << 4 | *flow & 0x0f;
            Some(())
        }
    };
    set(packet).is_some()
}

/// Lowers the maximum segment size option of a SYN or SYN-ACK to `max_mss` bytes if it says more, and
/// fixes the checksum, unless that is `partial`: then its field has only the pseudo-header, of which the
/// option is no part. True if the option was lowered. Options are walked as RFC 9293, 3.2 lays them out;
/// where they are malformed the packet stays as it is.
#[inline]
pub fn clamp_mss(packet: &mut [u8], headers: &Headers, max_mss: u16, partial: bool) -> bool {
    if headers.key.protocol != protocol::TCP
        || headers.tcp_flags & flag::SYN == 0
        || headers.fragment == Fragment::Later
    {
        return false;
    }
    packet
        .get_mut(usize::from(headers.transport)..usize::from(headers.payload))
        .and_then(|header| clamp_option(header, max_mss, partial))
        .is_some()
}

/// Option kinds (RFC 9293, 3.2).
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;

fn clamp_option(header: &mut [u8], max_mss: u16, partial: bool) -> Option<()> {
    let mut option_at = length::TCP;
    loop {
        let kind = *header.get(option_at)?;
        match kind {
            END_OF_OPTIONS => return None,
            NO_OPERATION => option_at += 1,
            _ => {
                let len = usize::from(*header.get(option_at + 1)?);
                if kind == MAXIMUM_SEGMENT_SIZE && len == 4 {
                    return lower(header, option_at + 2, max_mss, partial);
                }
                // A length under 2 would not even cover kind and length, and never end.
                option_at += (len >= 2).then_some(len)?;
            }
        }
    }
}

fn lower(header: &mut [u8], value_at: usize, max_mss: u16, partial: bool) -> Option<()> {
    let value: &mut [u8; 2] = field::edit(header, value_at)?;
    let (mut old, mut new) = (*value, max_mss.to_be_bytes());
    if u16::from_be_bytes(old) <= max_mss {
        return None;
    }
    *value = new;
    if !partial {
        // At an odd offset its bytes belong to two words, the other way round: so does the difference.
        if value_at % 2 == 1 {
            old.reverse();
            new.reverse();
        }
        let sum: &mut [u8; 2] = field::edit(header, at::TCP_CHECKSUM)?;
        *sum = checksum::update(*sum, old, new);
    }
    Some(())
}
