//! Route messages read where they lie. A dump of a machine's table may be a million of them, and a
//! notification comes for each that changes: only what is asked for here is looked at.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Lengths of `struct nlmsghdr` and `struct rtmsg`, bytes.
const MESSAGE_HEADER: usize = 16;
const ROUTE_HEADER: usize = 12;

/// Messages that are no answers (linux/netlink.h).
pub(super) const ERROR: u16 = 2;
pub(super) const DONE: u16 = 3;
pub(super) const OVERRUN: u16 = 4;

/// Attributes of a route (linux/rtnetlink.h).
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_PRIORITY: u16 = 6;
const RTA_TABLE: u16 = 15;

const FAMILY_V4: u8 = 2;
const FAMILY_V6: u8 = 10;

/// A message of a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw<'a> {
    /// `RTM_NEWROUTE` and the like.
    pub(super) kind: u16,
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

/// The messages of one datagram; `None` in place of the first that cannot be read, which is the last.
pub(super) fn messages(bytes: &[u8]) -> impl Iterator<Item = Option<Raw<'_>>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((message, after)) = split(rest) else {
            rest = &[];
            return Some(None);
        };
        rest = after;
        Some(Some(message))
    })
}

fn split(bytes: &[u8]) -> Option<(Raw<'_>, &[u8])> {
    let length = word(bytes, 0)? as usize;
    let message = Raw {
        kind: half(bytes, 4)?,
        sequence: word(bytes, 8)?,
        payload: bytes.get(MESSAGE_HEADER..length)?,
    };
    // Messages are aligned to 4 bytes (NLMSG_ALIGN); the last one may lack the padding.
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((message, after))
}

/// A route as the kernel tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableRoute {
    /// Destination.
    pub destination: IpNet,
    /// The table it stands in; 254 is the main one.
    pub table: u32,
    /// Who has set it (`/etc/iproute2/rt_protos`).
    pub protocol: u8,
    /// What it does with packets (RTN_UNICAST and the like).
    pub kind: u8,
    /// Metric; 0 where IPv4 says none.
    pub metric: u32,
    /// Index of the interface; 0 for one without (a blackhole, several next hops).
    pub interface: u32,
}

/// Reads the payload of a route message; `None`: neither IPv4 nor IPv6, or cut off.
pub(super) fn route(payload: &[u8]) -> Option<TableRoute> {
    let header = payload.get(..ROUTE_HEADER)?;
    let &[family, length, _, _, table, protocol, _, kind, ..] = header else {
        return None;
    };
    let destination = match family {
        FAMILY_V4 => Ipv4Net::new(Ipv4Addr::UNSPECIFIED, length).ok()?.into(),
        FAMILY_V6 => Ipv6Net::new(Ipv6Addr::UNSPECIFIED, length).ok()?.into(),
        _ => return None,
    };
    let mut route = TableRoute {
        destination,
        table: u32::from(table),
        protocol,
        kind,
        metric: 0,
        interface: 0,
    };
    let mut rest = payload.get(ROUTE_HEADER..)?;
    while !rest.is_empty() {
        let (long, name) = (usize::from(half(rest, 0)?), half(rest, 2)?);
        let value = rest.get(4..long)?;
        match name {
            RTA_DST => {
                route.destination = match <[u8; 4]>::try_from(value) {
                    Ok(v4) if family == FAMILY_V4 => Ipv4Net::new(v4.into(), length).ok()?.into(),
                    _ => {
                        let v6 = <[u8; 16]>::try_from(value).ok()?;
                        Ipv6Net::new(v6.into(), length).ok()?.into()
                    }
                }
            }
            RTA_OIF => route.interface = word(value, 0)?,
            RTA_PRIORITY => route.metric = word(value, 0)?,
            RTA_TABLE => route.table = word(value, 0)?,
            _ => {}
        }
        rest = rest.get(long.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(route)
}

/// Table and protocol of a route message, without looking at its attributes. A table over 255 shows as 252
/// (RT_TABLE_COMPAT).
pub(super) fn table_and_protocol(payload: &[u8]) -> Option<(u8, u8)> {
    match payload {
        [_, _, _, _, table, protocol, ..] => Some((*table, *protocol)),
        _ => None,
    }
}

/// The kernel's refusal in an acknowledgement; `None`: done.
pub(super) fn refusal(payload: &[u8]) -> Option<std::io::Error> {
    let code = word(payload, 0)?.cast_signed();
    (code != 0).then(|| std::io::Error::from_raw_os_error(code.wrapping_neg()))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

/// Four bytes in the machine's order.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_always_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let found = messages(&bytes).take(100).count();
            prop_assert!(found < 100);
            let _ = route(&bytes);
        }
    }
}
