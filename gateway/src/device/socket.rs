//! The few socket calls that rustix does not carry: options of packet and UDP sockets, messages with
//! ancillary data, many messages per call.

use rustix::io::Errno;
use std::ffi::c_int;
use std::io::IoSlice;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The most pieces of one packet that a send takes, besides the headers that the device adds: a train of
/// 128 segments (UDP_MAX_SEGMENTS) and the packet's own header. The kernel's own bound is 1,024 (UIO_MAXIOV).
pub const MAX_PARTS: usize = 129;

/// Sets a socket option to `value`.
pub(super) fn set_option<T: Copy>(
    fd: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: &T,
) -> Result<(), Errno> {
    // SAFETY: pointer and length describe `value`, which the kernel only reads during the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    check(result as isize).map(drop)
}

/// The last call's result, or its errno.
pub(super) fn check(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| {
        let error = std::io::Error::last_os_error();
        Errno::from_io_error(&error).unwrap_or(Errno::IO)
    })
}

/// Sets both the receive and the send buffer, past the system's limit where permitted (CAP_NET_ADMIN), else
/// as far as it allows: a smaller buffer is no reason not to run. Bytes; 0 leaves the system's default.
pub(super) fn set_buffers(fd: BorrowedFd<'_>, receive: usize, send: usize) {
    use rustix::net::sockopt as option;
    if receive > 0 && option::set_socket_recv_buffer_size_force(fd, receive).is_err() {
        let _ = option::set_socket_recv_buffer_size(fd, receive);
    }
    if send > 0 && option::set_socket_send_buffer_size_force(fd, send).is_err() {
        let _ = option::set_socket_send_buffer_size(fd, send);
    }
}

/// Writes `first`, `second` (left out if empty) and `parts` by one `writev`. A call that a signal
/// interrupted is made again.
#[inline]
pub(super) fn write_parts(
    fd: BorrowedFd<'_>,
    first: &[u8],
    second: &[u8],
    parts: &[IoSlice<'_>],
) -> Result<usize, Errno> {
    // Most packets come in one or two pieces: only super-packets pay for setting up the long list.
    if parts.len() <= 6 {
        gather::<8>(fd, first, second, parts)
    } else {
        gather::<{ MAX_PARTS + 2 }>(fd, first, second, parts)
    }
}

fn gather<const N: usize>(
    fd: BorrowedFd<'_>,
    first: &[u8],
    second: &[u8],
    parts: &[IoSlice<'_>],
) -> Result<usize, Errno> {
    let mut list = [IoSlice::new(&[]); N];
    let mut used = 0;
    let headers = [IoSlice::new(first), IoSlice::new(second)];
    for part in headers.iter().chain(parts) {
        if !part.is_empty() {
            *list.get_mut(used).ok_or(Errno::INVAL)? = *part;
            used += 1;
        }
    }
    let list = list.get(..used).unwrap_or_default();
    loop {
        match rustix::io::writev(fd, list) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Room for ancillary data, aligned as `cmsghdr` wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct ControlRoom<const N: usize>(pub(super) [u8; N]);

/// What the kernel has written into `room`, by the message that it was given with.
#[inline]
pub(super) fn control_of<'a, const N: usize>(
    room: &'a ControlRoom<N>,
    message: &libc::msghdr,
) -> &'a [u8] {
    #[allow(clippy::unnecessary_cast, reason = "it is a u32 with musl")]
    let len = message.msg_controllen as usize;
    room.0.get(..len).unwrap_or_default()
}

/// Calls `each` with level, type and data of every ancillary message in `control`, as far as they are whole.
#[inline]
pub(super) fn ancillary(control: &[u8], mut each: impl FnMut(c_int, c_int, &[u8])) {
    // struct cmsghdr { size_t cmsg_len; int cmsg_level; int cmsg_type; } and then the data, each message
    // padded to the size of a word (CMSG_ALIGN).
    const WORD: usize = size_of::<usize>();
    const HEADER: usize = size_of::<libc::cmsghdr>();
    let mut rest = control;
    while let (Some(len), Some(level), Some(kind)) = (
        word(rest),
        int(rest.get(WORD..).unwrap_or_default()),
        int(rest.get(WORD + 4..).unwrap_or_default()),
    ) {
        let Some(data) = rest.get(HEADER..len) else {
            return;
        };
        each(level, kind, data);
        rest = rest.get(len.next_multiple_of(WORD)..).unwrap_or_default();
    }
}

/// The native-endian `int` that `bytes` begin with.
#[inline]
pub(super) fn int(bytes: &[u8]) -> Option<c_int> {
    bytes.first_chunk().map(|b| c_int::from_ne_bytes(*b))
}

#[inline]
fn word(bytes: &[u8]) -> Option<usize> {
    bytes.first_chunk().map(|b| usize::from_ne_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(len: usize, level: c_int, kind: c_int, data: &[u8]) -> Vec<u8> {
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn ancillary_messages_are_walked_and_broken_ones_end_the_walk() {
        let mut bytes = message(17, 0, 1, &[7]);
        bytes.extend(message(20, 17, 104, &1432_i32.to_ne_bytes()));
        bytes.extend(message(400, 1, 1, &[]));
        let mut seen = Vec::new();
        ancillary(&bytes, |level, kind, data| {
            seen.push((level, kind, data.to_vec()));
        });
        assert_eq!(
            seen,
            [(0, 1, vec![7]), (17, 104, 1432_i32.to_ne_bytes().to_vec())]
        );
        for len in 0..16 {
            ancillary(&message(len, 1, 1, &[]), |_, _, _| {
                panic!("shorter than its header")
            });
        }
    }
}
