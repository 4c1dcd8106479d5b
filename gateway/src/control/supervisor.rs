//! The running gateway: builds everything that a configuration asks for, and takes it down again.

use crate::config::LoadError;
use std::path::Path;

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

/// Runs the gateway of the configuration file at `path` until it is told to end.
///
/// # Errors
/// See [`RunError`].
pub fn run(path: &Path) -> Result<(), RunError> {
    let loaded = crate::config::load(path, crate::config::KeyFiles::Checked)
        .map_err(RunError::Configuration)?;
    let name = loaded.config.vnet.name;
    Err(RunError::Failed(format!(
        "{name}: there is no data path yet"
    )))
}
