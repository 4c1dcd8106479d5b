//! What the gateway counts and how it tells.

pub mod ledger;
pub mod sequence;
