//! What the gateway counts and how it tells.

pub mod hits;
pub mod ledger;
pub mod log;
pub mod sequence;
