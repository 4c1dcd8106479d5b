//! What watches one path.
//!
//! - [`watch`]: all evidence of a path, and the health that follows from it
//! - [`link`]: the interface of an ExpressRoute link, its neighbours and its control socket
//! - [`carrier`]: has the kernel tell of a lost carrier at once
//! - [`mistagged`]: frames with the VLAN tags of no link
//! - [`prober`]: echo requests by way of a path, and their replies

pub(crate) mod carrier;
pub mod link;
pub mod mistagged;
pub mod prober;
pub mod watch;
