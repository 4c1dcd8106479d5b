//! The devices against the running kernel, each test in a network namespace of its own. They need root
//! (CAP_NET_ADMIN, CAP_SYS_ADMIN): without, each says so and tests nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that fails fails its test"
)]

mod lab;
mod link;
mod packet;
mod steering;
mod tun;
mod udp;
