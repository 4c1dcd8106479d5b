//! The patterns of `docs/patterns.md`: each example file of `docs/examples` runs as it is written, in
//! namespaces with the interfaces and addresses that it names, and traffic shows which path each packet
//! takes. Only keys and the control socket are replaced ([`stage`]). Needs root.
//!
//! What is asserted is read from the ledger, which counts packets and bytes by port, from the sockets that
//! packets arrive at, and from `vng explain`; at the end of every test all ledgers balance.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper that fails fails its test"
)]

mod clients;
mod ecmp;
mod encrypted;
mod failover;
mod place;
mod prefixes;
mod stage;
mod traffic;
mod transit;
mod vnet_to_vnet;
