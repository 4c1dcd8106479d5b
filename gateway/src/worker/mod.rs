//! The data path's threads.

pub mod ethernet;
pub mod handover;
