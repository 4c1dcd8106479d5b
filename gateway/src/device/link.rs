//! An ExpressRoute link's interface as a packet socket: whole Ethernet frames with the virtio-net header,
//! so that super-packets pass in both directions without being cut.
//!
//! 1. `LinkSocket::open`: the socket takes nothing until its filter, its options and its fanout group
//!    stand; only then is its real filter set, so no stray frame ever waits in it.
//! 2. `LinkSocket::receive`: one frame, its header, and the VLAN tag that the kernel took out.
//! 3. `LinkSocket::send`: virtio-net header, layer 2 header and the pieces of an IP packet in one call.
//!
//! The socket is a tap: the kernel's own stack sees the frames too. A MAC address of the gateway's own
//! keeps it from taking them (it drops them as PACKET_OTHERHOST, which this socket does not mind).

use super::error::{DeviceError, ReceiveError, SendError};
use super::filter::{self, Instruction};
use super::interface::Interface;
use super::offload::{HEADER_LEN, Offload};
use super::socket::{
    ControlRoom, ancillary, check, control_of, set_buffers, set_option, write_parts,
};
use super::steering::FlowProgram;
use super::vlan::CUSTOMER_TAG;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::ffi::c_int;
use std::io::IoSlice;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A buffer for [`LinkSocket::receive`] should have this length: a layer 2 header with one tag left in band
/// and the longest super-packet, bytes.
pub const MAX_FRAME: usize = 18 + 65_536;

/// The default of both socket buffers: room for 64 super-packets as the kernel counts them, bytes.
pub const DEFAULT_BUFFER: usize = 8 << 20;

/// How a link's socket is opened.
#[derive(Clone, Copy, Debug)]
pub struct LinkOptions<'a> {
    /// Interface name.
    pub interface: &'a str,
    /// Which frames it takes, see [`filter`].
    pub filter: &'a [Instruction],
    /// Whether super-packets and partial checksums may be sent. They are received in any case: what
    /// arrives is as the interface below made it.
    pub offload: bool,
    /// Shares the link's frames out over all sockets with this id in this network namespace, by flow: as
    /// the program says, the sockets numbered in the order in which they were opened; without one by the
    /// kernel's hash.
    pub fanout: Option<(u16, Option<&'a FlowProgram>)>,
    /// A MAC address of the gateway's own that the interface shall accept (PACKET_MR_UNICAST). A NIC
    /// needs it; veth and the interface's own address do not.
    pub mac: Option<[u8; 6]>,
    /// Multicast MAC addresses that the interface shall accept (PACKET_MR_MULTICAST), for neighbour discovery.
    pub groups: &'a [[u8; 6]],
    /// Makes the interface accept every frame (PACKET_MR_PROMISC). A link with tags needs it on a NIC that
    /// drops tags which no VLAN interface of the kernel has registered (`rx-vlan-filter` in `ethtool -k`).
    pub promiscuous: bool,
    /// Receive buffer, bytes; 0 for the system's default.
    pub receive_buffer: usize,
    /// Send buffer, bytes; 0 for the system's default.
    pub send_buffer: usize,
}

impl<'a> LinkOptions<'a> {
    /// All offloads on, large buffers, no fanout, the interface's own address.
    pub fn new(interface: &'a str, filter: &'a [Instruction]) -> Self {
        Self {
            interface,
            filter,
            offload: true,
            fanout: None,
            mac: None,
            groups: &[],
            promiscuous: false,
            receive_buffer: DEFAULT_BUFFER,
            send_buffer: DEFAULT_BUFFER,
        }
    }
}

/// What came with a received frame, besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Length in the buffer, bytes, from the destination MAC address on.
    pub len: usize,
    /// The virtio-net header; its offsets count from the start of the frame in the buffer.
    pub header: [u8; HEADER_LEN],
    /// Whom it was for, PACKET_HOST (0) to PACKET_OTHERHOST (3), as seen by the kernel: with a MAC address
    /// of the gateway's own, 3 is the rule.
    pub packet_type: u8,
    /// Type and control word of the outermost VLAN tag, which the kernel has taken out of the frame.
    pub stripped_tag: Option<(u16, u16)>,
}

impl Frame {
    /// Payload of each segment, bytes, if it is a super-packet; `gso_type` 0 says that it is none (virtio 1.2, 5.1.6).
    #[inline]
    pub fn gso_size(&self) -> Option<u16> {
        let [_, kind, _, _, low, high, ..] = self.header;
        (kind != 0).then(|| u16::from_ne_bytes([low, high]))
    }
}

/// A packet socket on one interface.
#[derive(Debug)]
pub struct LinkSocket {
    fd: OwnedFd,
    index: u32,
    offload: bool,
    refuse_gso: bool,
}

impl LinkSocket {
    /// Opens it. The interface may be down: then the first [`receive`](Self::receive) says `Down`, and
    /// frames come once it is up.
    ///
    /// # Errors
    /// `NoInterface`, `BadName`, `Permission` (CAP_NET_RAW), or what the kernel said.
    pub fn open(options: &LinkOptions<'_>) -> Result<Self, DeviceError> {
        let name = options.interface;
        let index = Interface::query(name)?.index;
        Self::prepare(options, index)
            .map_err(|error| DeviceError::of(format!("open a packet socket on {name}"), error))
    }

    fn prepare(options: &LinkOptions<'_>, index: u32) -> Result<Self, Errno> {
        // Protocol 0: bound to nothing, it receives nothing (packet(7)).
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
        let socket = Self {
            fd,
            index,
            offload: options.offload,
            refuse_gso: false,
        };
        socket.attach(&filter::nothing())?;
        set_buffers(socket.as_fd(), options.receive_buffer, options.send_buffer);
        socket.set(libc::PACKET_VNET_HDR, &1_i32)?;
        socket.set(libc::PACKET_AUXDATA, &1_i32)?;
        // Linux 4.20; the filter rejects PACKET_OUTGOING too, so an older kernel only works more.
        let _ = socket.set(libc::PACKET_IGNORE_OUTGOING, &1_i32);
        if let Some(mac) = options.mac {
            socket.accept_address(libc::PACKET_MR_UNICAST, mac)?;
        }
        if options.promiscuous {
            socket.accept_address(libc::PACKET_MR_PROMISC, [0; 6])?;
        }
        for &group in options.groups {
            socket.accept_address(libc::PACKET_MR_MULTICAST, group)?;
        }
        socket.bind()?;
        if let Some((id, program)) = options.fanout {
            socket.join_fanout(id, program)?;
        }
        socket.attach(options.filter)?;
        Ok(socket)
    }

    fn set<T: Copy>(&self, name: c_int, value: &T) -> Result<(), Errno> {
        set_option(self.as_fd(), libc::SOL_PACKET, name, value)
    }

    fn attach(&self, program: &[Instruction]) -> Result<(), Errno> {
        let program = libc::sock_fprog {
            len: u16::try_from(program.len()).map_err(|_| Errno::INVAL)?,
            // The kernel copies the program and does not write to it.
            filter: program.as_ptr().cast_mut(),
        };
        set_option(
            self.as_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            &program,
        )
    }

    fn accept_address(&self, kind: c_int, mac: [u8; 6]) -> Result<(), Errno> {
        let mut mr_address = [0; 8];
        for (to, from) in mr_address.iter_mut().zip(mac) {
            *to = from;
        }
        let request = libc::packet_mreq {
            mr_ifindex: self.index.cast_signed(),
            mr_type: kind as u16,
            mr_alen: mac.len() as u16,
            mr_address,
        };
        self.set(libc::PACKET_ADD_MEMBERSHIP, &request)
    }

    fn bind(&self) -> Result<(), Errno> {
        let mut address = empty_address();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = self.index.cast_signed();
        // SAFETY: pointer and length describe `address`, which the kernel only reads during the call.
        let result = unsafe {
            libc::bind(
                self.fd.as_raw_fd(),
                std::ptr::from_ref(&address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        check(result as isize).map(drop)
    }

    fn join_fanout(&self, id: u16, program: Option<&FlowProgram>) -> Result<(), Errno> {
        // The group has a tap of its own, which PACKET_IGNORE_OUTGOING of its members does not reach; hence
        // the flag (PACKET_FANOUT_FLAG_IGNORE_OUTGOING, Linux 5.17), or without it the filter alone.
        const IGNORE_OUTGOING: u32 = 0x4000;
        let kind = match program {
            Some(_) => libc::PACKET_FANOUT_EBPF,
            None => libc::PACKET_FANOUT_HASH,
        };
        let argument = |flags: u32| (u32::from(id) | (kind | flags) << 16).cast_signed();
        self.set(libc::PACKET_FANOUT, &argument(IGNORE_OUTGOING))
            .or_else(|_| self.set(libc::PACKET_FANOUT, &argument(0)))?;
        if let Some(program) = program {
            // The group's, not the socket's: setting it again changes nothing.
            let descriptor: c_int = program.as_fd().as_raw_fd();
            self.set(libc::PACKET_FANOUT_DATA, &descriptor)?;
        }
        Ok(())
    }

    /// Takes one frame: it begins at the start of `buffer` ([`MAX_FRAME`] bytes are enough for any).
    /// `None`: nothing there.
    ///
    /// # Errors
    /// `Malformed`: one frame was longer than `buffer` and is lost. `Down`: once each time that the
    /// interface goes down or away; see [`is_gone`](Self::is_gone).
    #[inline]
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Option<Frame>, ReceiveError> {
        let mut header = [0; HEADER_LEN];
        let mut address = empty_address();
        let mut control = ControlRoom([0; CONTROL_LEN]);
        let mut pieces = [
            libc::iovec {
                iov_base: header.as_mut_ptr().cast(),
                iov_len: HEADER_LEN,
            },
            libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: buffer.len(),
            },
        ];
        // SAFETY: all fields of `msghdr` are integers or pointers, for which zeros are a value.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_name = std::ptr::from_mut(&mut address).cast();
        message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        message.msg_iov = pieces.as_mut_ptr();
        message.msg_iovlen = pieces.len() as _;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_LEN as _;
        // SAFETY: every pointer in `message` leads to memory of the length given beside it, which lives
        // through the call and which nothing else uses meanwhile.
        let result =
            unsafe { libc::recvmsg(self.fd.as_raw_fd(), std::ptr::from_mut(&mut message), 0) };
        let len = match check(result) {
            Ok(len) => len,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(error) => return Err(ReceiveError::of(error)),
        };
        if message.msg_flags & libc::MSG_TRUNC != 0 {
            return Err(ReceiveError::Malformed);
        }
        Ok(Some(Frame {
            len: len.checked_sub(HEADER_LEN).ok_or(ReceiveError::Malformed)?,
            header,
            packet_type: address.sll_pkttype,
            stripped_tag: stripped_tag(control_of(&control, &message)),
        }))
    }

    /// Sends one frame: `layer2` (addresses, tags in band, ethertype) in front of the IP packet that lies
    /// in `parts`, at most [`super::MAX_PARTS`] of them, in order. `hdr_len`: length of the packet's IP and
    /// transport headers, bytes; counts for super-packets only.
    ///
    /// # Errors
    /// `GsoRefused`: send it segment by segment with complete checksums; that is also the answer to a
    /// super-packet or partial checksum where the link's offload is switched off. `TooBig`: the frame is
    /// longer than the interface's MTU allows (`worker::ethernet::usable_mtu`). See [`SendError`].
    #[inline]
    pub fn send(
        &self,
        offload: &Offload,
        hdr_len: u16,
        layer2: &[u8],
        parts: &[IoSlice<'_>],
    ) -> Result<(), SendError> {
        let offloaded = offload.needs_device();
        if offloaded && !self.offload {
            return Err(SendError::GsoRefused);
        }
        if offloaded && self.refuse_gso {
            return Err(SendError::of(Errno::INVAL, true));
        }
        let header = offload.encode(hdr_len, layer2.len() as u16);
        write_parts(self.fd.as_fd(), &header, layer2, parts)
            .map(drop)
            .map_err(|error| SendError::of(error, offloaded))
    }

    /// A fault for tests: every super-packet and partial checksum is refused with EINVAL before the kernel sees
    /// it. To run without them, switch `offload` off instead.
    pub fn refuse_gso(&mut self) {
        self.refuse_gso = true;
    }

    /// Index of the interface that the socket was opened on.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether the interface has been removed (not just taken down): the socket will never receive again,
    /// and must be opened anew when an interface of that name returns.
    pub fn is_gone(&self) -> bool {
        let mut address = empty_address();
        let mut len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: `len` is the length of `address`, and both live through the call.
        let result = unsafe {
            libc::getsockname(
                self.fd.as_raw_fd(),
                std::ptr::from_mut(&mut address).cast(),
                std::ptr::from_mut(&mut len),
            )
        };
        // packet_notifier sets the index to -1 on NETDEV_UNREGISTER.
        result != 0 || address.sll_ifindex < 0
    }

    /// Frames that the kernel dropped for want of room since the last call to this or to
    /// [`kernel_frames`](Self::kernel_frames).
    pub fn kernel_drops(&self) -> u64 {
        self.statistics()
            .map_or(0, |statistics| u64::from(statistics.tp_drops))
    }

    /// Frames that the filter has let through since then, those for which there was no room among them.
    pub fn kernel_frames(&self) -> u64 {
        // `packet_getsockopt` adds the drops.
        self.statistics()
            .map_or(0, |statistics| u64::from(statistics.tp_packets))
    }

    /// PACKET_STATISTICS, which begin anew with each call.
    fn statistics(&self) -> Option<libc::tpacket_stats> {
        // SAFETY: all fields of `tpacket_stats` are integers, for which zeros are a value.
        let mut statistics: libc::tpacket_stats = unsafe { zeroed() };
        let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: `len` is the length of `statistics`, and both live through the call.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                std::ptr::from_mut(&mut statistics).cast(),
                std::ptr::from_mut(&mut len),
            )
        };
        (result == 0).then_some(statistics)
    }
}

impl AsFd for LinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Room for one `tpacket_auxdata` (20 bytes) behind its header, bytes.
const CONTROL_LEN: usize = 40;

/// The tag in the auxiliary data: `struct tpacket_auxdata { u32 status, len, snaplen; u16 mac, net,
/// vlan_tci, vlan_tpid; }` (linux/if_packet.h).
fn stripped_tag(control: &[u8]) -> Option<(u16, u16)> {
    /// TP_STATUS_VLAN_VALID: there was a tag.
    const VALID: u8 = 0x10;
    /// TP_STATUS_VLAN_TPID_VALID: its type is known (Linux 3.14); else it is 0x8100.
    const TYPE_VALID: u8 = 0x40;
    let mut tag = None;
    ancillary(control, |level, kind, data| {
        if level != libc::SOL_PACKET || kind != libc::PACKET_AUXDATA {
            return;
        }
        let half = |at: usize| {
            let bytes = data.get(at..)?.first_chunk()?;
            Some(u16::from_ne_bytes(*bytes))
        };
        let status = data
            .first_chunk()
            .map_or(0, |bytes| u32::from_ne_bytes(*bytes)) as u8;
        if let (true, Some(control), Some(kind)) = (status & VALID != 0, half(16), half(18)) {
            let known = status & TYPE_VALID != 0;
            tag = Some((if known { kind } else { CUSTOMER_TAG }, control));
        }
    });
    tag
}

fn empty_address() -> libc::sockaddr_ll {
    // SAFETY: all fields of `sockaddr_ll` are integers, for which zeros are a value.
    unsafe { zeroed() }
}
