//! What one `recvmmsg` gives: trains of datagrams, each with its source.

use super::message::{INT_SPACE, LOCAL_SPACE, local_v4, local_v6};
use crate::device::socket::{ControlRoom, ancillary, check, control_of, int};
use rustix::io::Errno;
use std::ffi::c_int;
use std::fmt;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Length of each buffer of a [`ReceiveBatch`], bytes: no UDP payload is longer.
pub const BUFFER_LEN: usize = 65_536;
/// The most buffers of a [`ReceiveBatch`].
pub const MAX_BATCH: usize = 16;

/// Room for the traffic class, the segment size, the drop count and the local address.
const RECEIVE_CONTROL: usize = 3 * INT_SPACE + LOCAL_SPACE;

/// Buffers for what [`UdpSocket::receive`](super::UdpSocket::receive) takes, and what it took last.
pub struct ReceiveBatch {
    buffers: Box<[u8]>,
    entries: Box<[Entry]>,
    /// How many entries the next call fills at most.
    limit: usize,
    /// How many entries the last call filled.
    filled: usize,
    /// The socket's drop count, if the last call told one.
    drops: Option<u32>,
}

#[derive(Clone, Copy)]
struct Entry {
    name: NameRoom,
    control: ControlRoom<RECEIVE_CONTROL>,
    len: usize,
    stride: usize,
    traffic_class: u8,
    local: Option<IpAddr>,
}

/// Datagrams from one peer that came in together.
#[derive(Debug)]
pub struct ReceivedTrain<'a> {
    /// The peer.
    pub source: SocketAddr,
    /// The address of this machine that it was sent to, and that an answer should leave from; `None`: the kernel
    /// has not said, or it is none that can be answered from.
    pub local: Option<IpAddr>,
    /// DSCP in the upper six bits, ECN in the lower two; the same for all of them.
    pub traffic_class: u8,
    /// Length of each datagram but the last, which may be shorter, bytes; never 0, so that
    /// `bytes.chunks_mut(stride)` gives the datagrams. An empty datagram gives none: whoever counts looks for it.
    pub stride: usize,
    /// The datagrams, back to back.
    pub bytes: &'a mut [u8],
}

/// Where a [`ReceivedTrain`] lies.
#[derive(Clone, Copy, Debug)]
pub struct TrainPlace {
    /// The peer.
    pub source: SocketAddr,
    /// The address of this machine that it was sent to, and that an answer should leave from; `None`: the kernel
    /// has not said, or it is none that can be answered from.
    pub local: Option<IpAddr>,
    /// DSCP in the upper six bits, ECN in the lower two.
    pub traffic_class: u8,
    /// Length of each datagram but the last, bytes; never 0.
    pub stride: usize,
    /// Where the first datagram begins in the batch's buffer.
    pub at: usize,
    /// Length of all of them, bytes.
    pub len: usize,
}

impl fmt::Debug for ReceiveBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveBatch")
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}

impl ReceiveBatch {
    /// A batch of `size` buffers of 64 KB, at least 1 and at most [`MAX_BATCH`].
    pub fn new(size: usize) -> Self {
        let size = size.clamp(1, MAX_BATCH);
        let entry = Entry {
            name: NameRoom([0; 28]),
            control: ControlRoom([0; RECEIVE_CONTROL]),
            len: 0,
            stride: 0,
            traffic_class: 0,
            local: None,
        };
        Self {
            buffers: vec![0; size * BUFFER_LEN].into_boxed_slice(),
            entries: vec![entry; size].into_boxed_slice(),
            limit: size,
            filled: 0,
            drops: None,
        }
    }

    /// Lets the next calls take at most so many trains, at least 1 and at most what the batch has room for.
    pub fn limit(&mut self, trains: usize) {
        self.limit = trains.clamp(1, self.entries.len());
    }

    /// How many trains the next call takes at most.
    pub fn limited_to(&self) -> usize {
        self.limit
    }

    /// What the last [`UdpSocket::receive`](super::UdpSocket::receive) took, in the order of arrival.
    pub fn trains(&mut self) -> impl Iterator<Item = ReceivedTrain<'_>> {
        let entries = self.entries.iter().take(self.filled);
        let buffers = self.buffers.chunks_mut(BUFFER_LEN);
        entries.zip(buffers).filter_map(|(entry, buffer)| {
            Some(ReceivedTrain {
                source: entry.name.address()?,
                local: entry.local,
                traffic_class: entry.traffic_class,
                stride: entry.stride,
                bytes: buffer.get_mut(..entry.len)?,
            })
        })
    }

    /// The same, as places in the one buffer that all of them lie in: for a receiver that refers to
    /// packets of the whole batch while it opens the next one in place.
    pub fn split(&mut self) -> (&mut [u8], impl Iterator<Item = TrainPlace> + '_) {
        let entries = self.entries.iter().take(self.filled).enumerate();
        let places = entries.filter_map(|(index, entry)| {
            Some(TrainPlace {
                source: entry.name.address()?,
                local: entry.local,
                traffic_class: entry.traffic_class,
                stride: entry.stride,
                at: index * BUFFER_LEN,
                len: entry.len.min(BUFFER_LEN),
            })
        });
        (&mut self.buffers, places)
    }

    /// The socket's drop count (SO_RXQ_OVFL), if the last call told one.
    pub(super) fn drops(&self) -> Option<u32> {
        self.drops
    }

    /// Takes what `fd` has, and gives the number of trains.
    pub(super) fn fill(&mut self, fd: BorrowedFd<'_>) -> Result<usize, Errno> {
        (self.filled, self.drops) = (0, None);
        // SAFETY: all fields of `mmsghdr` and `iovec` are integers or pointers, for which zeros are a value.
        let mut messages: [libc::mmsghdr; MAX_BATCH] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut pieces: [libc::iovec; MAX_BATCH] = unsafe { zeroed() };
        let slots = messages.iter_mut().zip(&mut pieces);
        let rooms = self
            .entries
            .iter_mut()
            .zip(self.buffers.chunks_mut(BUFFER_LEN));
        for ((message, piece), (entry, buffer)) in slots.zip(rooms) {
            piece.iov_base = buffer.as_mut_ptr().cast();
            piece.iov_len = buffer.len();
            let header = &mut message.msg_hdr;
            header.msg_name = entry.name.0.as_mut_ptr().cast();
            header.msg_namelen = size_of::<NameRoom>() as _;
            header.msg_iov = std::ptr::from_mut(piece);
            header.msg_iovlen = 1;
            header.msg_control = entry.control.0.as_mut_ptr().cast();
            header.msg_controllen = RECEIVE_CONTROL as _;
        }
        // SAFETY: the first `limit` messages (at most `entries.len()`, at most MAX_BATCH) have been set up above;
        // their pointers lead to memory of the lengths beside them, which lives through the call and which
        // nothing else uses meanwhile. No time limit is given.
        let result = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                messages.as_mut_ptr(),
                self.limit as _,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        self.filled = check(result as isize)?;
        for (entry, message) in self.entries.iter_mut().zip(&messages).take(self.filled) {
            let (drops, header) = (&mut self.drops, &message.msg_hdr);
            entry.len = message.msg_len as usize;
            entry.stride = entry.len.max(1);
            (entry.traffic_class, entry.local) = (0, None);
            let control = control_of(&entry.control, header);
            ancillary(control, |level, kind, data| {
                match (level, kind) {
                    (libc::SOL_UDP, libc::UDP_GRO) => {
                        let size = int(data).and_then(|size| usize::try_from(size).ok());
                        if let Some(size) = size.filter(|&size| size > 0) {
                            entry.stride = size;
                        }
                    }
                    // One byte over IPv4, an int over IPv6; the low byte of a native int need not be first.
                    (libc::IPPROTO_IP, libc::IP_TOS) => {
                        entry.traffic_class = data.first().copied().unwrap_or(0);
                    }
                    (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                        entry.traffic_class = int(data).unwrap_or(0) as u8;
                    }
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) => entry.local = local_v4(data),
                    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => entry.local = local_v6(data),
                    (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                        *drops = int(data).map(c_int::cast_unsigned);
                    }
                    _ => {}
                }
            });
        }
        Ok(self.filled)
    }
}

/// Room for `sockaddr_in6`, the longer of the two.
#[derive(Clone, Copy)]
#[repr(C, align(4))]
struct NameRoom([u8; 28]);

impl NameRoom {
    /// The address that the kernel has written, if it is one of IP.
    fn address(&self) -> Option<SocketAddr> {
        let family = c_int::from(u16::from_ne_bytes(*self.0.first_chunk()?));
        let port = u16::from_be_bytes(*self.0.get(2..)?.first_chunk()?);
        match family {
            libc::AF_INET => {
                let ip: [u8; 4] = *self.0.get(4..)?.first_chunk()?;
                Some(SocketAddrV4::new(Ipv4Addr::from(ip), port).into())
            }
            libc::AF_INET6 => {
                let flow = u32::from_ne_bytes(*self.0.get(4..)?.first_chunk()?);
                let ip: [u8; 16] = *self.0.get(8..)?.first_chunk()?;
                let scope = u32::from_ne_bytes(*self.0.get(24..)?.first_chunk()?);
                Some(SocketAddrV6::new(Ipv6Addr::from(ip), port, flow, scope).into())
            }
            _ => None,
        }
    }
}
