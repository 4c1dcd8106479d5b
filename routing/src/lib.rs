//! What the gateway knows about routes, as pure functions: no sockets, no clock, no unsafe code.
//!
//! In the order in which a packet meets them:
//! - [`packet`]: one checked view of an IP packet and its flow key; martians.
//! - [`reason`]: why a packet was dropped; the index of the drop counters.
//! - [`path`]: paths, groups of paths and the atomic word that holds a group's usable members.
//! - [`probe`]: when to ask a path's far side for an echo, and what its silence means.
//! - [`health`]: what all that watches a path says together: up, degraded, down.

pub mod health;
pub mod packet;
pub mod path;
pub mod probe;
pub mod reason;
