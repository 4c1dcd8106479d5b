//! Our WireGuard engine under a simulated clock and network, and against boringtun.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod abuse;
mod boringtun;
mod handshake;
mod network;
mod rekey;
