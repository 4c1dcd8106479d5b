//! Why a gateway does not run.

use crate::config::LoadError;

/// Why the gateway did not run, or stopped by itself.
#[derive(Debug)]
pub enum RunError {
    /// The configuration has errors: exit status 2.
    Configuration(LoadError),
    /// The system lacks something; what, and the remedy: exit status 3.
    System(String),
    /// It ran and failed: exit status 1.
    Failed(String),
}

impl std::fmt::Display for RunError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Configuration(error) => error.fmt(formatter),
            Self::System(said) | Self::Failed(said) => formatter.write_str(said),
        }
    }
}
