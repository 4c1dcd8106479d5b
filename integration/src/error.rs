//! What can go wrong in the lab.

use gateway::device::{DeviceError, netlink};
use std::fmt;
use std::io;

/// Why the lab could not do something.
#[derive(Debug)]
pub enum Error {
    /// The kernel refused something.
    System {
        /// What was tried, as in "cannot ...".
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A link, an address or a route could not be set.
    Netlink {
        /// The host on which.
        host: String,
        /// What the kernel said.
        source: netlink::Error,
    },
    /// A packet socket could not be opened.
    Device(DeviceError),
    /// A gateway did not do what it was told.
    Gateway {
        /// Which.
        name: String,
        /// What it did instead.
        found: String,
        /// The last lines it wrote.
        log: String,
    },
    /// Something was not as expected.
    Unexpected {
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// Something that the user asked for cannot be.
    Usage(String),
    /// No lab stands.
    NoLab,
    /// What the keeper of a lab said before it ended.
    Told {
        /// Its exit status.
        status: u8,
        /// Why it ended.
        said: String,
    },
    /// The user asked to stop.
    Interrupted,
}

impl Error {
    /// For `map_err` on I/O: `action` as in "cannot ...".
    pub(crate) fn system<E: Into<io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> Self {
        let action = action.into();
        move |source| Self::System {
            action,
            source: source.into(),
        }
    }

    /// Something was not as expected.
    pub(crate) fn unexpected(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Unexpected {
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// The exit status of a command that fails by it: 1 the work failed, 2 bad usage, 3 the system lacks what
    /// is needed.
    pub fn status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::NoLab => 3,
            Self::Told { status, .. } => *status,
            _ if self.is_lack() => 3,
            _ => 1,
        }
    }

    /// Whether the system lacks what the lab needs (exit status 3), rather than the lab having failed.
    pub fn is_lack(&self) -> bool {
        let lacking = [io::ErrorKind::PermissionDenied, io::ErrorKind::Unsupported];
        match self {
            Self::System { source, .. } => lacking.contains(&source.kind()),
            Self::Device(error) => matches!(
                error,
                DeviceError::NoTunDriver | DeviceError::Permission { .. }
            ),
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System { action, source } => write!(f, "cannot {action}: {source}"),
            Self::Netlink { host, source } => write!(f, "host {host}: {source}"),
            Self::Device(error) => error.fmt(f),
            Self::Gateway { name, found, log } if log.is_empty() => {
                write!(f, "gateway {name}: {found}")
            }
            Self::Gateway { name, found, log } => {
                write!(f, "gateway {name}: {found}; it wrote last:\n{log}")
            }
            Self::Unexpected { expected, found } => write!(f, "expected {expected}, found {found}"),
            Self::Usage(said) | Self::Told { said, .. } => f.write_str(said),
            Self::NoLab => f.write_str("no lab stands: `vng-lab up` makes one"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System { source, .. } => Some(source),
            Self::Netlink { source, .. } => Some(source),
            Self::Device(error) => Some(error),
            _ => None,
        }
    }
}

impl From<DeviceError> for Error {
    fn from(error: DeviceError) -> Self {
        Self::Device(error)
    }
}
