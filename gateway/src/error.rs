//! Why a gateway does not run.

use crate::config::LoadError;
use crate::device::DeviceError;
use std::error::Error;
use std::fmt;
use std::io;

/// Why the gateway did not run, or stopped by itself.
#[derive(Debug)]
pub enum RunError {
    /// The configuration has errors: exit status 2.
    Configuration(LoadError),
    /// The system lacks something; what, and the remedy: exit status 3.
    System(SystemError),
    /// It ran and failed: exit status 1.
    Failed(Cause),
}

/// An error of the room that knows it best, which says what was expected, what was found and what helps.
pub type Cause = Box<dyn Error + Send + Sync>;

/// What the system lacks, or does not permit.
#[derive(Debug)]
pub enum SystemError {
    /// A device, an interface or a socket.
    Device(DeviceError),
    /// The interface of a path.
    Interface {
        /// Name of the path.
        path: String,
        /// What is wrong with it.
        error: DeviceError,
    },
    /// Anything else that the kernel was asked for.
    Kernel {
        /// What was attempted, such as "make an eventfd".
        attempt: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// What keys, netlink, control or the control socket need.
    Needed(Cause),
}

impl SystemError {
    /// The kernel's answer to an attempt, as a reason not to run.
    pub(crate) fn kernel(attempt: &'static str) -> impl Fn(io::Error) -> RunError {
        move |error| RunError::System(Self::Kernel { attempt, error })
    }
}

impl RunError {
    /// The system lacks what this says.
    pub(crate) fn needed(error: impl Error + Send + Sync + 'static) -> Self {
        Self::System(SystemError::Needed(Box::new(error)))
    }

    /// The gateway failed for this.
    pub(crate) fn failed(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Failed(Box::new(error))
    }
}

impl From<DeviceError> for RunError {
    fn from(error: DeviceError) -> Self {
        Self::System(SystemError::Device(error))
    }
}

impl fmt::Display for SystemError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => error.fmt(formatter),
            Self::Interface { path, error } => write!(formatter, "{path}: {error}"),
            Self::Kernel { attempt, error } => write!(formatter, "cannot {attempt}: {error}"),
            Self::Needed(error) => error.fmt(formatter),
        }
    }
}

impl Error for SystemError {}

impl fmt::Display for RunError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(error) => error.fmt(formatter),
            Self::System(error) => error.fmt(formatter),
            Self::Failed(error) => error.fmt(formatter),
        }
    }
}

impl Error for RunError {}
