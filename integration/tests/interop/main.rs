//! `vng run` beside real peers and in front of real programs: wireguard-go, boringtun-cli, iperf3, ping,
//! tshark. Every test makes namespaces of its own and leaves nothing behind, whatever way it ends.
//!
//! - [`program`]: other programs, in a namespace. [`stage`]: gateways, and questions to them.
//!   [`peer`]: a WireGuard implementation that is not ours. [`traffic`]: what every way must carry.
//!   [`capture`]: what a wire has carried, read by tshark. [`tap`]: when a tunnel's datagrams came.
//! - [`tunnel`], [`changed`], [`clients`], [`sites`], [`rekey`], [`timers`], [`flood`], [`link`], [`bulk`], [`reload`], [`resize`], [`shaping`],
//!   [`trouble`], [`underlay`]: the tests.
//!
//! A test whose programs are missing says so on standard error and passes; `./test` installs them.
//! `VNG_QUICK=1` leaves out the one that takes minutes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bulk;
mod capture;
mod changed;
mod clients;
mod flood;
mod lanes;
mod link;
mod peer;
mod program;
mod rekey;
mod reload;
mod resize;
mod shaping;
mod sites;
mod stage;
mod tap;
mod timers;
mod traffic;
mod trouble;
mod tunnel;
mod underlay;
mod workers;
