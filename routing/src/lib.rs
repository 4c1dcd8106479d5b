//! What the gateway knows about routes, as pure functions: no sockets, no clock, no unsafe code.
//!
//! In the order in which a packet meets them:
//! - [`packet`]: one checked view of an IP packet and its flow key; martians.
//! - [`cache`]: a worker's memory of what was decided about a flow.
//! - [`decide`]: what becomes of a packet; the steps of the decision.
//! - [`policy`]: the policy route table.
//! - [`fib`]: longest-prefix match.
//! - [`group`], [`path`]: groups of paths, and the atomic word that holds a group's usable members.
//! - [`explain`]: the same decision as a story, with the alternatives that lost.
//! - [`what_if`]: the same decision under other circumstances: what would change it.
//!
//! What they stand on:
//! - [`snapshot`]: the immutable forwarding state, and what it is built from.
//! - [`rib`]: all routes, which of them count, and why the others lost.
//! - [`learned`]: what BGP sessions bring, and the limits on it.
//! - [`prefix`]: sets of prefixes.
//! - [`reason`]: why a packet was dropped; the index of the drop counters.
//!
//! What keeps the words right:
//! - [`probe`]: when to ask a path's far side for an echo, and what its silence means.
//! - [`bfd`]: whether the far side still forwards, asked in milliseconds.
//! - [`health`]: what all that watches a path says together: up, degraded, down.
//!
//! Control builds a [`snapshot::Snapshot`] aside and hands it to the workers, which only read it; each
//! worker owns its [`cache::FlowCache`].

pub mod bfd;
pub mod cache;
pub mod decide;
pub mod explain;
pub mod fib;
pub mod group;
pub mod health;
pub mod learned;
pub mod packet;
pub mod path;
pub mod policy;
pub mod prefix;
pub mod probe;
pub mod reason;
pub mod rib;
pub mod snapshot;
mod sync;
pub mod what_if;
