//! What stands around the bytes of a datagram: its addresses and its ancillary messages, as the kernel takes them.

use crate::device::socket::ControlRoom;
use std::ffi::c_int;
use std::mem::size_of;
use std::net::{IpAddr, SocketAddr};

/// The room that an ancillary message with so many bytes of data takes (CMSG_SPACE).
pub(super) const fn space(data: usize) -> usize {
    (size_of::<libc::cmsghdr>() + data).next_multiple_of(size_of::<usize>())
}

/// The room for an `int`, or less.
pub(super) const INT_SPACE: usize = space(size_of::<c_int>());
/// The room for the local address of either family; IPv6's is the longer one.
pub(super) const LOCAL_SPACE: usize = space(size_of::<libc::in6_pktinfo>());

/// Puts one ancillary message behind those that use the first `used` bytes.
pub(super) fn put<const N: usize>(
    control: &mut ControlRoom<N>,
    used: &mut usize,
    (level, kind): (c_int, c_int),
    data: &[u8],
) {
    let len = size_of::<libc::cmsghdr>() + data.len();
    let message = control.0.iter_mut().skip(*used);
    let header = len.to_ne_bytes().into_iter();
    let header = header.chain(level.to_ne_bytes()).chain(kind.to_ne_bytes());
    for (to, from) in message.zip(header.chain(data.iter().copied())) {
        *to = from;
    }
    *used += space(data.len());
}

/// Puts the address that a datagram leaves from. The interface stays the route's (index 0): a rule that looks at
/// the source then chooses the uplink, as it does for every other program.
pub(super) fn put_local<const N: usize>(
    control: &mut ControlRoom<N>,
    used: &mut usize,
    local: IpAddr,
) {
    match local {
        IpAddr::V4(address) => {
            // struct in_pktinfo { int ipi_ifindex; struct in_addr ipi_spec_dst, ipi_addr; }
            let mut info = [0; size_of::<libc::in_pktinfo>()];
            if let Some(source) = info.get_mut(4..8) {
                source.copy_from_slice(&address.octets());
            }
            put(control, used, (libc::IPPROTO_IP, libc::IP_PKTINFO), &info);
        }
        IpAddr::V6(address) => {
            // struct in6_pktinfo { struct in6_addr ipi6_addr; unsigned int ipi6_ifindex; }
            let mut info = [0; size_of::<libc::in6_pktinfo>()];
            if let Some(source) = info.get_mut(..16) {
                source.copy_from_slice(&address.octets());
            }
            let kind = (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO);
            put(control, used, kind, &info);
        }
    }
}

/// The local address in an `in_pktinfo`. Not where the datagram was sent to (a broadcast, perhaps), but the
/// address that an answer would leave from.
#[inline]
pub(super) fn local_v4(info: &[u8]) -> Option<IpAddr> {
    let octets: [u8; 4] = *info.get(4..)?.first_chunk()?;
    (octets != [0; 4]).then_some(octets.into())
}

/// The address that an `in6_pktinfo` says a datagram was sent to, if an answer can leave from there.
#[inline]
pub(super) fn local_v6(info: &[u8]) -> Option<IpAddr> {
    let octets: [u8; 16] = *info.first_chunk()?;
    let [first, ..] = octets;
    // ff00::/8 is multicast, and no source.
    (first != 0xff).then_some(octets.into())
}

/// A socket address as the kernel takes it.
pub(super) enum RawAddress {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl RawAddress {
    #[inline]
    pub(super) fn new(address: &SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => Self::V4(libc::sockaddr_in {
                sin_family: libc::AF_INET as _,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.ip().octets()),
                },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(v6) => Self::V6(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as _,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            }),
        }
    }

    pub(super) fn pointer(&self) -> (*mut libc::c_void, libc::socklen_t) {
        match self {
            Self::V4(v4) => (
                std::ptr::from_ref(v4).cast_mut().cast(),
                size_of::<libc::sockaddr_in>() as _,
            ),
            Self::V6(v6) => (
                std::ptr::from_ref(v6).cast_mut().cast(),
                size_of::<libc::sockaddr_in6>() as _,
            ),
        }
    }
}
