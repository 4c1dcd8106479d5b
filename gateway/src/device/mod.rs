//! The kernel's devices: TUN, packet sockets, UDP sockets, events, netlink. All unsafe code of the
//! project stands in this module's files, each block with its SAFETY line.
#![allow(unsafe_code)]

pub mod event;
pub mod namespace;
pub mod netlink;
pub mod offload;
