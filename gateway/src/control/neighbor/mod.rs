//! Neighbours of a link: ARP (RFC 826) and neighbour discovery (RFC 4861).
//!
//! - [`entry`]: is one next hop there, and at which MAC address
//! - [`discovery`]: the messages of both protocols, read and written
//! - [`adjacency`]: a link's own end of both

pub mod adjacency;
pub mod discovery;
pub mod entry;
