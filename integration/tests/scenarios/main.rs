//! What a gateway does to real packets, in the lab with real `vng run` processes: faults under traffic
//! ([`faults`]), and every rule that decides about a packet ([`rules`]). Needs root.
//!
//! No test asserts a time: outages are printed (`cargo test -- --nocapture`), paths, losses and ledgers
//! are asserted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper that fails fails its test"
)]

mod faults;
mod harness;
mod rules;
