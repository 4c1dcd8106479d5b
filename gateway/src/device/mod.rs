//! The kernel's devices: TUN, packet sockets, UDP sockets, events, signals, netlink. All unsafe code of
//! the project stands in this module's files, each block with its SAFETY line.
//!
//! `tun` is the virtual network's side, `link` (with `filter` and `vlan`) an ExpressRoute link's, `udp`
//! the tunnels'; `steering` shares packets out over workers; `offload` is the virtio-net header
//! that the first two share; `sink` is all three as traits; `pages` is memory; `standard` looks at standard
//! output; `error` says what can go wrong with any of them.
#![allow(unsafe_code)]

pub mod error;
pub mod event;
pub mod filter;
pub mod interface;
pub mod link;
pub mod namespace;
pub mod netlink;
pub mod offload;
pub mod pages;
pub mod signal;
pub mod sink;
pub mod standard;
pub mod steering;
pub mod tun;
pub mod udp;
pub mod vlan;
pub mod waker;

mod socket;

pub use error::{DeviceError, Privilege, ReceiveError, SendError};
pub use socket::MAX_PARTS;
