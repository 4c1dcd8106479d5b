//! The data path's threads.

pub mod handover;
