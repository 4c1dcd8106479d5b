//! Why something that was asked for was not done.

use serde::{Deserialize, Serialize};

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Exit status of the command line: 1 the work failed, 2 bad request or configuration.
    pub status: u8,
    /// What was wrong, one or more lines.
    pub message: String,
}

impl Refusal {
    /// Bad request or configuration.
    pub fn bad(message: impl Into<String>) -> Self {
        Self {
            status: 2,
            message: message.into(),
        }
    }

    /// The work failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            status: 1,
            message: message.into(),
        }
    }
}
