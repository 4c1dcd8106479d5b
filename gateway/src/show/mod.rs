//! What is told to people.
//!
//! - [`view`]: the values that `vng show ... --json` and `vng explain --json` consist of
//! - [`inspect`]: views of the running gateway; [`effective`]: the effective routes; [`usage`]: what is used of limits
//! - [`changes`]: what differs between two configurations
//! - [`clients`]: packets for and from point-to-site clients
//! - [`describe`]: policy and decisions in words; [`would_change`]: what would change an answer; [`sources`]: who may use
//!   which source; [`health`]: the health of a path, for explanations
//! - [`refusal`]: why something was not done

pub(crate) mod changes;
pub mod clients;
pub mod describe;
pub mod effective;
pub mod health;
pub mod inspect;
pub mod refusal;
mod sources;
pub(crate) mod usage;
pub mod view;
mod would_change;
