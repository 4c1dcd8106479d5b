//! The program on a machine that is not as it should be: outputs that nobody reads, devices that are not
//! there or go away, few descriptors, no privileges. Each test runs `vng` itself, in a network namespace of
//! its own. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clients;
mod output;
mod own;
mod place;
mod privilege;
mod socket;
mod start;
