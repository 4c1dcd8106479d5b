//! The health of a path, for explanations.

use crate::show::view::MemberHealth;
use routing::health::Usability;

/// The health of a path, for explanations.
#[derive(Clone, Debug, PartialEq)]
pub struct PathHealth {
    /// What is told of it.
    pub told: MemberHealth,
    /// What flows might do with it for all that is known of it by itself, whatever carries it.
    pub usability: Usability,
}
