//! What they know of its control.

#[path = "../../src/control/force.rs"]
pub(crate) mod force;
