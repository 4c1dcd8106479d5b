//! What can go wrong with a device: while it is opened (one line for a person, with the remedy), and
//! while packets move (a value that the packet path decides by).

use routing::reason::DropReason;
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities};
use std::fmt;
use std::io;

/// Why a device could not be opened. `Display` is one line that names the remedy.
#[derive(Debug)]
pub enum DeviceError {
    /// `/dev/net/tun` does not exist.
    NoTunDriver,
    /// The system does not permit it (EPERM, EACCES).
    Permission {
        /// What was attempted, such as "create TUN device vng0".
        attempt: String,
        /// What the kernel said.
        error: Errno,
        /// What it takes.
        needs: Privilege,
        /// Which of these the process lacks. With all of them it is another thing that forbids it.
        lacking: Vec<&'static str>,
    },
    /// The name is that of a device in use (EBUSY).
    NameInUse {
        /// Name of the device.
        name: String,
    },
    /// The kernel would not take the name: 1 to 15 bytes, no `/`, `:`, `%` or white space.
    BadName {
        /// The name found.
        name: String,
    },
    /// No interface has this name.
    NoInterface {
        /// The name sought.
        name: String,
    },
    /// The address or port is taken (EADDRINUSE), or not this machine's (EADDRNOTAVAIL).
    Address {
        /// The address and port.
        address: std::net::SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// Any other refusal.
    Kernel {
        /// What was attempted.
        attempt: String,
        /// What the kernel said.
        error: io::Error,
    },
}

/// Capabilities that something takes (capabilities(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// Making and changing links, and packet sockets.
    Devices,
    /// A port below 1024 (`ip_unprivileged_port_start`).
    LowPort,
    /// An eBPF program (Linux 5.8; before that CAP_SYS_ADMIN).
    Programs,
}

impl Privilege {
    fn needed(self) -> &'static [(CapabilitySet, &'static str)] {
        match self {
            Self::Devices => &[
                (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
                (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
            ],
            Self::LowPort => &[(CapabilitySet::NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE")],
            Self::Programs => &[
                (CapabilitySet::BPF, "CAP_BPF"),
                (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
            ],
        }
    }

    fn names(self) -> String {
        let names: Vec<_> = self.needed().iter().map(|(_, name)| *name).collect();
        names.join(" and ")
    }

    /// Which of them this thread does not have.
    fn lacking(self) -> Vec<&'static str> {
        let has = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
        let lacks = self.needed().iter().filter(|(one, _)| !has.contains(*one));
        lacks.map(|(_, name)| *name).collect()
    }
}

impl DeviceError {
    /// What `error` means for `attempt`, an infinitive such as "create TUN device vng0".
    pub(crate) fn of(attempt: impl Into<String>, error: impl Into<io::Error>) -> Self {
        Self::needing(Privilege::Devices, attempt, error)
    }

    /// The same for what takes other capabilities.
    pub(crate) fn needing(
        needs: Privilege,
        attempt: impl Into<String>,
        error: impl Into<io::Error>,
    ) -> Self {
        let (attempt, error) = (attempt.into(), error.into());
        match Errno::from_io_error(&error) {
            Some(error @ (Errno::PERM | Errno::ACCESS)) => Self::Permission {
                attempt,
                error,
                needs,
                lacking: needs.lacking(),
            },
            _ => Self::Kernel { attempt, error },
        }
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTunDriver => f.write_str(
                "/dev/net/tun does not exist: load the driver (modprobe tun) or give the container the device",
            ),
            Self::Permission {
                attempt,
                error,
                needs,
                lacking,
            } if lacking.is_empty() => write!(
                f,
                "not permitted to {attempt} ({error}), though this process has {}: look at the device rules of the \
                 container, at SELinux or AppArmor, and at the user namespace, which counts for its own things only",
                needs.names()
            ),
            Self::Permission {
                attempt,
                needs,
                lacking,
                ..
            } => write!(
                f,
                "not permitted to {attempt}: run as root, or with {} ({} {} lacking)",
                needs.names(),
                lacking.join(" and "),
                if lacking.len() == 1 { "is" } else { "are" },
            ),
            Self::NameInUse { name } => write!(
                f,
                "device {name} is in use: stop the program that holds it, or choose another name"
            ),
            Self::BadName { name } => write!(
                f,
                "{name:?} is no interface name: 1 to 15 characters, none of them '/', ':', '%' or white space"
            ),
            Self::NoInterface { name } => write!(
                f,
                "no interface {name}: `ip -brief link` lists those that exist"
            ),
            Self::Address { address, error } => {
                let remedy = match Errno::from_io_error(error) {
                    Some(Errno::ADDRINUSE) => "another program listens there; choose another port",
                    Some(Errno::ADDRNOTAVAIL) => "the address is not this machine's",
                    Some(Errno::AFNOSUPPORT) => "the kernel has no such address family",
                    _ => "check the address",
                };
                write!(f, "cannot listen on {address} ({error}): {remedy}")
            }
            Self::Kernel { attempt, error } => write!(f, "cannot {attempt}: {error}"),
        }
    }
}

impl std::error::Error for DeviceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Address { error, .. } | Self::Kernel { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Why the kernel did not take a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// No room now: EAGAIN, ENOBUFS, ENOMEM. A later packet may pass.
    NoRoom,
    /// It would not take the super-packet or the train as such (EIO, EINVAL, EMSGSIZE, EOPNOTSUPP), or the
    /// device has no offload: send it again segment by segment, each with its checksum complete.
    GsoRefused,
    /// The interface is down or gone: ENETDOWN, ENXIO, ENODEV, EBADFD, EBADF.
    Down,
    /// One packet longer than the interface's MTU (EMSGSIZE).
    TooBig,
    /// Another errno.
    Other(i32),
}

impl SendError {
    /// Sorts an errno; `offloaded`: whether the packet was a super-packet, a train, or had a checksum to
    /// be finished by the device.
    pub(super) fn of(error: Errno, offloaded: bool) -> Self {
        match error {
            Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM => Self::NoRoom,
            Errno::NETDOWN | Errno::NXIO | Errno::NODEV | Errno::BADFD | Errno::BADF => Self::Down,
            Errno::IO | Errno::INVAL | Errno::MSGSIZE | Errno::OPNOTSUPP if offloaded => {
                Self::GsoRefused
            }
            Errno::MSGSIZE => Self::TooBig,
            error => Self::Other(error.raw_os_error()),
        }
    }
}

impl SendError {
    /// Why a packet that met this error was dropped.
    pub fn reason(self) -> DropReason {
        match self {
            Self::NoRoom => DropReason::TransmitQueueFull,
            Self::Down => DropReason::InterfaceDown,
            Self::TooBig => DropReason::TooBig,
            Self::GsoRefused | Self::Other(_) => DropReason::TransmitError,
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom => f.write_str("no room in the transmit queue"),
            Self::GsoRefused => f.write_str("segmentation offload refused"),
            Self::Down => f.write_str("interface down or gone"),
            Self::TooBig => f.write_str("longer than the interface's MTU"),
            Self::Other(errno) => io::Error::from_raw_os_error(*errno).fmt(f),
        }
    }
}

impl std::error::Error for SendError {}

/// Why a read gave no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveError {
    /// One packet was taken and cannot be used: truncated, or its virtio-net header cannot be trusted.
    /// Count it as malformed and read on.
    Malformed,
    /// The interface is down or gone. A packet socket says so once each time; a TUN queue once it was deleted,
    /// for ever.
    Down,
    /// Another errno.
    Other(i32),
}

impl ReceiveError {
    /// Sorts an errno.
    pub(super) fn of(error: Errno) -> Self {
        match error {
            Errno::NETDOWN
            | Errno::NXIO
            | Errno::NODEV
            | Errno::BADFD
            | Errno::BADF
            | Errno::IO => Self::Down,
            error => Self::Other(error.raw_os_error()),
        }
    }
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("truncated, or offload header not usable"),
            Self::Down => f.write_str("interface down or gone"),
            Self::Other(errno) => io::Error::from_raw_os_error(*errno).fmt(f),
        }
    }
}

impl std::error::Error for ReceiveError {}

impl From<ReceiveError> for io::Error {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Malformed => Self::new(io::ErrorKind::InvalidData, error),
            ReceiveError::Down => Self::from(Errno::NETDOWN),
            ReceiveError::Other(errno) => Self::from_raw_os_error(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_means_refusal_only_for_what_was_offloaded() {
        assert_eq!(SendError::of(Errno::MSGSIZE, true), SendError::GsoRefused);
        assert_eq!(SendError::of(Errno::MSGSIZE, false), SendError::TooBig);
        assert_eq!(
            SendError::of(Errno::INVAL, false),
            SendError::Other(Errno::INVAL.raw_os_error())
        );
        assert_eq!(SendError::of(Errno::NOBUFS, true), SendError::NoRoom);
        assert_eq!(SendError::of(Errno::NETDOWN, true), SendError::Down);
    }

    #[test]
    fn every_message_is_one_line() {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 51820));
        for error in [
            DeviceError::NoTunDriver,
            DeviceError::of("create TUN device vng0", Errno::PERM),
            DeviceError::Permission {
                attempt: "create TUN device vng0".into(),
                error: Errno::ACCESS,
                needs: Privilege::Devices,
                lacking: Vec::new(),
            },
            DeviceError::of("create TUN device vng0", Errno::NOSPC),
            DeviceError::BadName {
                name: "a\nb".into(),
            },
            DeviceError::Address {
                address,
                error: Errno::ADDRINUSE.into(),
            },
        ] {
            let text = error.to_string();
            assert!(text.len() > 20 && !text.contains('\n'), "{text}");
        }
        assert!(matches!(
            DeviceError::of("x", Errno::ACCESS),
            DeviceError::Permission { .. }
        ));
    }
}
