//! The tunnels' side: UDP sockets that send and receive whole trains of datagrams (UDP_SEGMENT, Linux 4.18;
//! UDP_GRO, Linux 5.0).
//!
//! 1. `UdpSocket::bind`: one for IPv4, one for IPv6, per worker.
//! 2. `UdpSocket::receive` fills a batch by one `recvmmsg`; each entry is a train from one peer.
//! 3. `UdpSocket::send_train` sends many datagrams to one peer by one `sendmsg`; a train that the kernel
//!    refuses as such goes out datagram by datagram, in the same call.
//!
//! quinn-udp has the same calls, but carries the ECN bits only, not the DSCP, and gives back the error of a
//! train that failed without saying what of it was sent; hence this wrapper.
//!
//! A datagram longer than its route goes in fragments, as those of the kernel's WireGuard do: don't-fragment is
//! clear over IPv4 (PMTUDISC_DONT), and over IPv6, where routers never cut, the kernel cuts to what it has
//! learned of the path. Trains are never cut: the kernel refuses one whose datagrams are longer than the
//! route's MTU (EMSGSIZE; EINVAL in older kernels), and they go one by one. [`UdpOptions::path_mtu_discovery`]
//! sets don't-fragment instead, and refuses what is too long.
//!
//! Each datagram is received with the local address that it was sent to, and can be sent from one (IP_PKTINFO,
//! IPV6_PKTINFO): a machine with several addresses answers from the one that was called.

mod batch;
mod message;
mod path;
mod route;
mod switch;

pub use batch::{BUFFER_LEN, MAX_BATCH, ReceiveBatch, ReceivedTrain, TrainPlace};
pub use path::PeerPath;
pub use route::{RouteOptions, route_mtu};
pub use switch::TrainSwitch;

use super::error::{DeviceError, Privilege, SendError};
use super::socket::{ControlRoom, check, set_buffers, set_option};
use super::steering::by_receiver_index;
use message::{INT_SPACE, LOCAL_SPACE, RawAddress, put, put_local};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with};
use std::ffi::c_int;
use std::fmt;
use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

/// The most datagrams of one call (UDP_MAX_SEGMENTS was 64 before Linux 6.9).
pub const MAX_SEGMENTS: usize = 64;
/// The most bytes of one call: the largest UDP payload over IPv4 (65,535 - 20 - 8).
pub const MAX_TRAIN: usize = 65_507;
/// The default of both socket buffers: room for 64 trains as the kernel counts them, bytes.
pub const DEFAULT_BUFFER: usize = 8 << 20;

/// How a socket is opened.
#[derive(Clone, Copy, Debug)]
pub struct UdpOptions {
    /// Lets the other workers' sockets share the port (SO_REUSEPORT).
    pub reuse_port: bool,
    /// UDP_SEGMENT and UDP_GRO.
    pub offload: bool,
    /// An IPv6 socket takes no IPv4 (IPV6_V6ONLY), so that an IPv4 one can have the port too.
    pub only_v6: bool,
    /// Receive buffer, bytes; 0 for the system's default.
    pub receive_buffer: usize,
    /// Send buffer, bytes; 0 for the system's default.
    pub send_buffer: usize,
    /// Sends with don't-fragment and refuses what is longer than the path is known to take.
    pub path_mtu_discovery: bool,
    /// The interface that it is bound to (SO_BINDTODEVICE): nothing comes in or goes out by another.
    pub interface: Option<InterfaceName>,
    /// The mark of what it sends (SO_MARK), for routing rules and firewalls; 0: none.
    pub mark: u32,
    /// A fault for tests: every train is refused with EIO, as by a device without checksum offload, before
    /// the kernel sees it. To run without trains, switch `offload` off instead.
    pub refuse_gso: bool,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            reuse_port: false,
            offload: true,
            only_v6: true,
            receive_buffer: DEFAULT_BUFFER,
            send_buffer: DEFAULT_BUFFER,
            path_mtu_discovery: false,
            interface: None,
            mark: 0,
            refuse_gso: false,
        }
    }
}

/// Name of a network interface, as the kernel takes it: at most 15 bytes and a zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceName([u8; libc::IFNAMSIZ]);

impl InterfaceName {
    /// `None`: longer than any interface's, or empty.
    pub fn new(name: &str) -> Option<Self> {
        let mut bytes = [0; libc::IFNAMSIZ];
        let room = bytes.get_mut(..name.len())?;
        room.copy_from_slice(name.as_bytes());
        (!name.is_empty() && name.len() < libc::IFNAMSIZ).then_some(Self(bytes))
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.iter().position(|byte| *byte == 0);
        let name = self.0.get(..end.unwrap_or_default()).unwrap_or_default();
        f.write_str(&String::from_utf8_lossy(name))
    }
}

/// What became of a train.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendOutcome {
    /// Datagrams that the kernel took; always those in front, unless `error` is `TooBig` or `Other`,
    /// which befall single ones.
    pub sent: usize,
    /// Why the others were not; the last reason if there were several.
    pub error: Option<SendError>,
    /// Some of it went out datagram by datagram.
    pub split: bool,
    /// The kernel has refused a train just now and taken its datagrams singly: worth counting.
    pub refused: bool,
    /// Datagrams among `sent` that are known to be longer than the route takes, and so go in fragments.
    pub cut: usize,
}

/// A UDP socket of one address family.
#[derive(Debug)]
pub struct UdpSocket {
    fd: OwnedFd,
    v4: bool,
    gso: bool,
    gro: bool,
    refuse_gso: bool,
    interface: Option<InterfaceName>,
    switch: TrainSwitch,
    /// The kernel's drop counter when last asked, and as last seen.
    drops_told: AtomicU32,
    drops_seen: AtomicU32,
}

impl UdpSocket {
    /// Opens a socket on `address`, nonblocking; its family is the address's.
    ///
    /// # Errors
    /// `Address` (in use, not this machine's, family unknown), or what the kernel said.
    pub fn bind(address: SocketAddr, options: UdpOptions) -> Result<Self, DeviceError> {
        Self::prepare(address, options).map_err(|error| match error {
            Errno::ADDRINUSE | Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT => DeviceError::Address {
                address,
                error: error.into(),
            },
            Errno::NODEV if options.interface.is_some() => DeviceError::NoInterface {
                name: options
                    .interface
                    .map(|name| name.to_string())
                    .unwrap_or_default(),
            },
            error => DeviceError::needing(
                Privilege::LowPort,
                format!("open UDP socket {address}"),
                error,
            ),
        })
    }

    fn prepare(address: SocketAddr, options: UdpOptions) -> Result<Self, Errno> {
        let v4 = address.is_ipv4();
        let family = if v4 {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(family, SocketType::DGRAM, flags, None)?;
        let set = |level, name| set_option(fd.as_fd(), level, name, &1_i32);
        if v4 {
            let discovery = if options.path_mtu_discovery {
                Ipv4PathMtuDiscovery::DO
            } else {
                Ipv4PathMtuDiscovery::DONT
            };
            sockopt::set_ip_mtu_discover(&fd, discovery)?;
            sockopt::set_ip_recvtos(&fd, true)?;
            set(libc::IPPROTO_IP, libc::IP_PKTINFO)?;
        } else {
            let discovery = if options.path_mtu_discovery {
                Ipv6PathMtuDiscovery::DO
            } else {
                Ipv6PathMtuDiscovery::DONT
            };
            sockopt::set_ipv6_v6only(&fd, options.only_v6)?;
            sockopt::set_ipv6_mtu_discover(&fd, discovery)?;
            sockopt::set_ipv6_recvtclass(&fd, true)?;
            set(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)?;
        }
        if let Some(name) = options.interface {
            set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_BINDTODEVICE, &name.0)?;
        }
        if options.mark != 0 {
            let mark = options.mark;
            set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_MARK, &mark)?;
        }
        if options.reuse_port {
            sockopt::set_socket_reuseport(&fd, true)?;
        }
        set_buffers(fd.as_fd(), options.receive_buffer, options.send_buffer);
        // Counts drops on this socket; a kernel without it (before 2.6.33) leaves the count at 0.
        let _ = set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &1_i32);
        // A segment size of 0 changes nothing: it only asks whether the option is known.
        let udp = |name, value: c_int| set_option(fd.as_fd(), libc::SOL_UDP, name, &value).is_ok();
        let gso = options.offload && udp(libc::UDP_SEGMENT, 0);
        let gro = options.offload && udp(libc::UDP_GRO, 1);
        bind(&fd, &address)?;
        Ok(Self {
            fd,
            v4,
            gso,
            gro,
            refuse_gso: options.refuse_gso,
            interface: options.interface,
            switch: TrainSwitch::default(),
            drops_told: AtomicU32::new(0),
            drops_seen: AtomicU32::new(0),
        })
    }

    /// The address and port that it is bound to.
    ///
    /// # Errors
    /// That of `getsockname`: the kernel has no memory for the answer (ENOBUFS).
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::try_from(getsockname(&self.fd)?)?)
    }

    /// Gives each datagram to the socket of the worker that its receiver index names; of the sockets that
    /// share the port, the first bound is the first worker's. Said to one of them, it holds for all
    /// (SO_ATTACH_REUSEPORT_CBPF, Linux 4.5).
    ///
    /// # Errors
    /// What the kernel said.
    pub fn steer_by_receiver_index(&self) -> Result<(), DeviceError> {
        let program = by_receiver_index();
        let program = libc::sock_fprog {
            len: program.len() as u16,
            // The kernel copies the program and does not write to it.
            filter: program.as_ptr().cast_mut(),
        };
        set_option(
            self.fd.as_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            &program,
        )
        .map_err(|error| DeviceError::of("steer datagrams to workers".to_owned(), error))
    }

    /// The fault of [`UdpOptions::refuse_gso`], from now on.
    pub fn refuse_gso(&mut self) {
        self.refuse_gso = true;
    }

    /// Whether trains are sent as such, as far as the kernel has not refused one since.
    pub fn sends_trains(&self) -> bool {
        self.gso && !self.switch.is_off()
    }

    /// Whether the kernel hands trains over whole.
    pub fn receives_trains(&self) -> bool {
        self.gro
    }

    /// Datagrams (with UDP_GRO: trains) dropped for want of room since the last call, as far as known: the
    /// kernel tells the count with the next one received (SO_RXQ_OVFL).
    pub fn kernel_drops(&self) -> u64 {
        let seen = self.drops_seen.load(Ordering::Relaxed);
        let told = self.drops_told.swap(seen, Ordering::Relaxed);
        u64::from(seen.wrapping_sub(told))
    }

    /// Bytes that wait to be received, as the kernel counts them, with its own overhead (SO_MEMINFO, Linux
    /// 4.12); 0 where it does not tell.
    pub fn queued(&self) -> usize {
        /// Words of the answer; the first is SK_MEMINFO_RMEM_ALLOC (linux/sock_diag.h).
        const WORDS: usize = 9;
        let mut words = [0_u32; WORDS];
        let mut len = size_of::<[u32; WORDS]>() as libc::socklen_t;
        // SAFETY: `len` is the length of `words`, and both live through the call.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                std::ptr::from_mut(&mut words).cast(),
                std::ptr::from_mut(&mut len),
            )
        };
        let [queued, ..] = words;
        if result == 0 { queued as usize } else { 0 }
    }

    /// Sends the datagrams in `bytes`, each `stride` bytes long but the last, which may be shorter, to `to`
    /// with this traffic class (DSCP in the upper six bits, ECN in the lower two; 0: the socket's own, which
    /// is 0). Any length and number: it takes as many calls as it needs.
    #[inline]
    pub fn send_train(
        &self,
        to: &SocketAddr,
        bytes: &[u8],
        stride: usize,
        traffic_class: u8,
    ) -> SendOutcome {
        self.send_train_by(&PeerPath::default(), to, bytes, stride, traffic_class)
    }

    /// As [`send_train`](Self::send_train), by the way that is known to this peer; what is learned of it on the
    /// occasion is remembered there.
    pub fn send_train_by(
        &self,
        path: &PeerPath,
        to: &SocketAddr,
        bytes: &[u8],
        stride: usize,
        traffic_class: u8,
    ) -> SendOutcome {
        let mut outcome = SendOutcome::default();
        let to = RawAddress::new(to);
        let stride = stride.max(1);
        let segments = (MAX_TRAIN / stride).clamp(1, MAX_SEGMENTS);
        for train in bytes.chunks(segments.saturating_mul(stride)) {
            let count = train.len().div_ceil(stride);
            let whole = count > 1 && self.gso && path.takes_train(stride) && self.switch.ask();
            if whole {
                self.send_whole((path, &to), train, stride, traffic_class, &mut outcome);
            } else {
                self.send_singly((path, &to), train, stride, traffic_class, &mut outcome);
                outcome.split |= count > 1;
            }
            if matches!(outcome.error, Some(SendError::NoRoom | SendError::Down)) {
                break;
            }
        }
        outcome
    }

    /// Sends a train by one call, or one by one if the kernel would not have it so.
    #[inline]
    fn send_whole(
        &self,
        (path, to): (&PeerPath, &RawAddress),
        train: &[u8],
        stride: usize,
        traffic_class: u8,
        outcome: &mut SendOutcome,
    ) {
        let (local, segment) = (path.local(), Some(stride as u16));
        match self.send_message((local, to), train, segment, traffic_class) {
            Ok(()) => {
                outcome.sent += train.len().div_ceil(stride);
                self.switch.taken();
                path.taken(stride);
            }
            Err(error)
                if SendError::of(error, true) == SendError::GsoRefused
                    || is_of_source(error) && local.is_some() =>
            {
                let cut = outcome.cut;
                let sent = self.send_singly((path, to), train, stride, traffic_class, outcome);
                outcome.split = true;
                // Datagrams that fail singly too were not the train's fault, and neither was it one's that left
                // from an address which is gone.
                if sent > 0 && path.local() == local {
                    outcome.refused = true;
                    if matches!(error, Errno::MSGSIZE | Errno::INVAL) {
                        path.refused(stride);
                        outcome.cut = cut + sent;
                    } else {
                        self.switch.refused();
                    }
                }
            }
            Err(error) => outcome.error = Some(SendError::of(error, true)),
        }
    }

    /// Sends datagrams one by one, until there is no room; how many the kernel took.
    fn send_singly(
        &self,
        (path, to): (&PeerPath, &RawAddress),
        train: &[u8],
        stride: usize,
        traffic_class: u8,
        outcome: &mut SendOutcome,
    ) -> usize {
        let mut sent = 0;
        for datagram in train.chunks(stride) {
            let mut result = self.send_message((path.local(), to), datagram, None, traffic_class);
            if let Err(error) = result
                && self.is_mended(error, path)
            {
                result = self.send_message((path.local(), to), datagram, None, traffic_class);
            }
            match result {
                Ok(()) => {
                    sent += 1;
                    outcome.cut += usize::from(path.is_cut(datagram.len()));
                }
                Err(error) => {
                    let error = SendError::of(error, false);
                    outcome.error = Some(error);
                    if matches!(error, SendError::NoRoom | SendError::Down) {
                        break;
                    }
                }
            }
        }
        outcome.sent += sent;
        sent
    }

    /// Whether a datagram that met this error is worth sending again. The address that it left from may be gone
    /// from this machine, or no route may lead on from it: the route gives another. The interface may have been made anew under its
    /// name, while the socket is bound to the one that was (ENODEV).
    #[cold]
    fn is_mended(&self, error: Errno, path: &PeerPath) -> bool {
        match (error, self.interface) {
            (error, _) if is_of_source(error) && path.local().is_some() => {
                path.forget_local();
                true
            }
            (Errno::NODEV, Some(name)) => set_option(
                self.fd.as_fd(),
                libc::SOL_SOCKET,
                libc::SO_BINDTODEVICE,
                &name.0,
            )
            .is_ok(),
            _ => false,
        }
    }

    #[inline]
    fn send_message(
        &self,
        (local, to): (Option<IpAddr>, &RawAddress),
        bytes: &[u8],
        segment: Option<u16>,
        traffic_class: u8,
    ) -> Result<(), Errno> {
        if segment.is_some() && self.refuse_gso {
            return Err(Errno::IO);
        }
        let mut control = ControlRoom([0; 2 * INT_SPACE + LOCAL_SPACE]);
        let mut used = 0;
        if let Some(size) = segment {
            put(
                &mut control,
                &mut used,
                (libc::SOL_UDP, libc::UDP_SEGMENT),
                &size.to_ne_bytes(),
            );
        }
        if let Some(local) = local.filter(|local| local.is_ipv4() == self.v4) {
            put_local(&mut control, &mut used, local);
        }
        if traffic_class != 0 {
            let kind = if self.v4 {
                (libc::IPPROTO_IP, libc::IP_TOS)
            } else {
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
            };
            put(
                &mut control,
                &mut used,
                kind,
                &c_int::from(traffic_class).to_ne_bytes(),
            );
        }
        let mut piece = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        // SAFETY: all fields of `msghdr` are integers or pointers, for which zeros are a value.
        let mut message: libc::msghdr = unsafe { zeroed() };
        (message.msg_name, message.msg_namelen) = to.pointer();
        message.msg_iov = std::ptr::from_mut(&mut piece);
        message.msg_iovlen = 1;
        if used > 0 {
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = used as _;
        }
        loop {
            // SAFETY: every pointer in `message` leads to memory of the length given beside it, which
            // lives through the call; the kernel only reads it.
            let result = unsafe {
                libc::sendmsg(
                    self.fd.as_raw_fd(),
                    std::ptr::from_ref(&message),
                    libc::MSG_NOSIGNAL,
                )
            };
            match check(result) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Fills `batch` with what has come in, at most one train for each of its buffers, and gives their
    /// number; 0: nothing there. Errors that ICMP has queued on the socket are skipped: they say something
    /// about a datagram sent long ago, and nothing about this socket.
    ///
    /// # Errors
    /// What no retry would mend.
    pub fn receive(&self, batch: &mut ReceiveBatch) -> io::Result<usize> {
        // One queued error may hide another; what then still waits keeps the descriptor readable.
        for _ in 0..8 {
            match batch.fill(self.fd.as_fd()) {
                Ok(count) => {
                    if let Some(drops) = batch.drops() {
                        self.drops_seen.store(drops, Ordering::Relaxed);
                    }
                    return Ok(count);
                }
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => return Ok(0),
                Err(
                    Errno::INTR
                    | Errno::CONNREFUSED
                    | Errno::CONNRESET
                    | Errno::HOSTUNREACH
                    | Errno::HOSTDOWN
                    | Errno::NETUNREACH
                    | Errno::NETDOWN
                    | Errno::MSGSIZE
                    | Errno::NOPROTOOPT
                    | Errno::PROTO
                    | Errno::ACCESS
                    | Errno::PERM,
                ) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(0)
    }
}

/// Whether the address that a datagram was to leave from may be why it did not: it is not this machine's any more
/// (EINVAL; ENETUNREACH in some kernels), or a rule for it leads nowhere.
fn is_of_source(error: Errno) -> bool {
    matches!(
        error,
        Errno::INVAL | Errno::ADDRNOTAVAIL | Errno::NETUNREACH | Errno::HOSTUNREACH
    )
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
