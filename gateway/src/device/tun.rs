//! The virtual network's side: a TUN device with the virtio-net header, read and written in whole
//! super-packets.
//!
//! 1. `Tun::create` opens the queues, switches the offloads on, sets the MTU and takes the device up.
//! 2. `TunQueue::read` takes one packet of up to 64 KB and what is left to do for it.
//! 3. `TunQueue::write` gives one back, from as many pieces as it lies in, without copying.
//!
//! The device goes when the last queue is closed; nothing of it stays behind.

use super::error::{DeviceError, ReceiveError, SendError};
use super::interface::{Interface, request};
use super::netlink::Netlink;
use super::offload::{HEADER_LEN, Offload};
use super::socket::{check, write_parts};
use super::steering::FlowProgram;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use std::ffi::{c_int, c_short, c_uint};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A buffer for [`TunQueue::read`] should have this length: the longest super-packet, bytes
/// (GSO_LEGACY_MAX_SIZE, the default `gso_max_size` of a TUN device).
pub const MAX_PACKET: usize = 65_536;

/// Packets that may wait to be read. The kernel's 500 are 50 ms of 10,000 packets/s, which a worker that
/// was not scheduled for so long would lose.
const QUEUE_LENGTH: u32 = 2_000;

/// What TUNSETOFFLOAD knows: checksums and TCP super-packets; UDP's (Linux 6.2).
const TSO: c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
const USO: c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// A TUN device, up.
#[derive(Debug)]
pub struct Tun {
    /// Name.
    pub name: String,
    /// Interface index.
    pub index: u32,
    /// One per worker. Unless a program steers them ([`Tun::steer`]), the kernel spreads flows over them by
    /// hash, and moves a flow to the queue that has last written its other direction.
    pub queues: Vec<TunQueue>,
    /// It was there before and stays when its queues are closed.
    pub persistent: bool,
    /// Whether packets carry the virtio-net header, so that super-packets and partial checksums pass.
    pub vnet_header: bool,
    /// Whether TCP super-packets are on.
    pub tso: bool,
    /// Whether UDP super-packets are on (Linux 6.2).
    pub uso: bool,
}

/// One queue of a TUN device.
#[derive(Debug)]
pub struct TunQueue {
    fd: OwnedFd,
    vnet_header: bool,
    refuse_gso: bool,
}

impl Tun {
    /// Makes the device `name` with this MTU (bytes) and number of queues, or takes over a persistent one
    /// that nobody holds, and takes it up. With `offload` it tries TSO and USO, then TSO alone, then
    /// checksums alone, then goes without the virtio-net header; what came of it stands in the fields.
    ///
    /// # Errors
    /// `NoTunDriver`, `Permission`, `NameInUse`, `BadName`, or what the kernel said.
    pub fn create(name: &str, mtu: u16, queues: usize, offload: bool) -> Result<Self, DeviceError> {
        let queues = queues.max(1);
        let persistent = Interface::query(name).is_ok();
        let multi = queues > 1;
        // A second program could join the queues of a multi-queue device: such a one must be new.
        let exclusive = if multi { libc::IFF_TUN_EXCL } else { 0 };
        let first = match TunQueue::open(name, multi, offload, exclusive) {
            Err(DeviceError::Kernel { error, .. })
                if Errno::from_io_error(&error) == Some(Errno::INVAL) =>
            {
                // EINVAL: the name is that of another kind of interface, or there is no IFF_VNET_HDR.
                if Interface::query(name).is_ok() {
                    let name = name.to_owned();
                    return Err(DeviceError::NameInUse { name });
                }
                TunQueue::open(name, multi, false, exclusive)?
            }
            result => result?,
        };
        let vnet_header = first.vnet_header;
        let (tso, uso) = if vnet_header {
            first.enable_offloads()
        } else {
            // The offloads are the device's, not the queue's: a persistent one may still have those that
            // an earlier holder has set, and would hand super-packets over without saying so.
            first.set_offloads(0);
            (false, false)
        };
        let mut all = vec![first];
        while all.len() < queues {
            all.push(TunQueue::open(name, multi, vnet_header, 0)?);
        }
        Interface::set_mtu(name, u32::from(mtu))?;
        // The kernel's own length loses packets only where a worker is held up: no reason not to start.
        let length =
            Netlink::open().and_then(|mut netlink| netlink.set_queue_length(name, QUEUE_LENGTH));
        if let Err(error) = length {
            tracing::warn!(device = name, "the queue has the kernel's length: {error}");
        }
        Interface::set_up(name, true)?;
        Ok(Self {
            name: name.to_owned(),
            index: Interface::query(name)?.index,
            queues: all,
            persistent,
            vnet_header,
            tso,
            uso,
        })
    }

    /// Lets `program` choose the queue of each packet that the kernel sends (TUNSETSTEERINGEBPF, Linux 4.16).
    ///
    /// # Errors
    /// What the kernel said; its own rule then holds.
    pub fn steer(&self, program: &FlowProgram) -> Result<(), DeviceError> {
        let Some(queue) = self.queues.first() else {
            return Ok(());
        };
        let descriptor: c_int = program.as_fd().as_raw_fd();
        // SAFETY: TUNSETSTEERINGEBPF reads one int, which lives through the call.
        let result = unsafe {
            libc::ioctl(
                queue.fd.as_raw_fd(),
                libc::TUNSETSTEERINGEBPF,
                std::ptr::from_ref(&descriptor),
            )
        };
        check(result as isize)
            .map(drop)
            .map_err(|error| DeviceError::of(format!("steer the queues of {}", self.name), error))
    }
}

impl TunQueue {
    /// One without a virtio-net header that is not the kernel's: what reads and writes here is the other end of `fd`.
    #[cfg(test)]
    pub(crate) fn of(fd: OwnedFd) -> Self {
        Self {
            fd,
            vnet_header: false,
            refuse_gso: false,
        }
    }

    fn open(name: &str, multi: bool, vnet_header: bool, more: c_int) -> Result<Self, DeviceError> {
        let mut request = request(name)?;
        let attempt = || format!("create TUN device {name}");
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = open("/dev/net/tun", flags, Mode::empty()).map_err(|error| match error {
            Errno::NOENT | Errno::NODEV | Errno::NXIO => DeviceError::NoTunDriver,
            error => DeviceError::of("open /dev/net/tun", error),
        })?;
        let mut kind = libc::IFF_TUN | libc::IFF_NO_PI | more;
        if multi {
            kind |= libc::IFF_MULTI_QUEUE;
        }
        if vnet_header {
            kind |= libc::IFF_VNET_HDR;
        }
        request.ifr_ifru.ifru_flags = kind as c_short;
        // SAFETY: TUNSETIFF takes a pointer to one `ifreq`, which lives through the call.
        let result = unsafe {
            libc::ioctl(
                fd.as_raw_fd(),
                libc::TUNSETIFF,
                std::ptr::from_mut(&mut request),
            )
        };
        check(result as isize).map_err(|error| match error {
            Errno::BUSY | Errno::EXIST => DeviceError::NameInUse {
                name: name.to_owned(),
            },
            error => DeviceError::of(attempt(), error),
        })?;
        Ok(Self {
            fd,
            vnet_header,
            refuse_gso: false,
        })
    }

    /// Switches on as much as the kernel has; the answer is (TSO, USO).
    fn enable_offloads(&self) -> (bool, bool) {
        for (features, tso, uso) in [
            (TSO | USO, true, true),
            (TSO, true, false),
            (libc::TUN_F_CSUM, false, false),
            (0, false, false),
        ] {
            if self.set_offloads(features) {
                return (tso, uso);
            }
        }
        (false, false)
    }

    /// Switches off what this device hands over whole, as on a kernel that never had it: UDP super-packets, and
    /// unless `tso` TCP's too. For tests: [`Tun::create`] finds out what the kernel has.
    pub fn lack(&self, tso: bool) -> bool {
        self.set_offloads(if tso { TSO } else { libc::TUN_F_CSUM })
    }

    /// A fault for tests: every super-packet and partial checksum is refused with EINVAL, as Linux 6.6.44 does
    /// to some, before the kernel sees it. To run without them, switch `offload` off instead.
    pub fn refuse_gso(&mut self) {
        self.refuse_gso = true;
    }

    fn set_offloads(&self, features: c_uint) -> bool {
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        let result = unsafe {
            libc::ioctl(
                self.fd.as_raw_fd(),
                libc::TUNSETOFFLOAD,
                libc::c_ulong::from(features),
            )
        };
        result == 0
    }

    /// Takes one packet: it begins at the start of `buffer`, and the answer has its length and what is
    /// left to do for it. `None`: nothing there. A packet longer than `buffer` comes cut off and without a
    /// mark ([`MAX_PACKET`] is enough); its own length field then tells.
    ///
    /// # Errors
    /// `Malformed` if its header cannot be trusted, `Down` when the device has been removed.
    #[inline]
    pub fn read(&self, buffer: &mut [u8]) -> Result<Option<(Offload, usize)>, ReceiveError> {
        let mut header = [0; HEADER_LEN];
        let result = if self.vnet_header {
            let mut list = [IoSliceMut::new(&mut header), IoSliceMut::new(buffer)];
            rustix::io::readv(&self.fd, &mut list)
        } else {
            rustix::io::read(&self.fd, buffer).map(|len| len + HEADER_LEN)
        };
        let len = match result {
            Ok(len) => len,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(error) => return Err(ReceiveError::of(error)),
        };
        let len = len.checked_sub(HEADER_LEN).ok_or(ReceiveError::Malformed)?;
        let offload = Offload::decode(&header, 0).ok_or(ReceiveError::Malformed)?;
        Ok(Some((offload, len)))
    }

    /// Writes one IP packet that lies in `parts`, at most [`super::MAX_PARTS`] of them, in order.
    /// `hdr_len`: length of its IP and transport headers, bytes; counts for super-packets only.
    ///
    /// # Errors
    /// `GsoRefused`: send it segment by segment with complete checksums; that is also the answer to a
    /// super-packet or partial checksum on a device without the virtio-net header. `Down` when the
    /// device is down or removed. See [`SendError`].
    #[inline]
    pub fn write(
        &self,
        offload: &Offload,
        hdr_len: u16,
        parts: &[IoSlice<'_>],
    ) -> Result<(), SendError> {
        let offloaded = offload.needs_device();
        let result = if self.refuse_gso && offloaded {
            Err(Errno::INVAL)
        } else if self.vnet_header {
            let header = offload.encode(hdr_len, 0);
            write_parts(self.fd.as_fd(), &header, &[], parts)
        } else if offloaded {
            return Err(SendError::GsoRefused);
        } else {
            write_parts(self.fd.as_fd(), &[], &[], parts)
        };
        match result {
            Ok(_) => Ok(()),
            // tun_get_user: EIO is also what a device that is down says.
            Err(Errno::IO) if !offloaded => Err(SendError::Down),
            Err(error) => Err(SendError::of(error, offloaded)),
        }
    }
}

impl AsFd for TunQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
