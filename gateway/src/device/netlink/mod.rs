//! The kernel's links, addresses and routes over rtnetlink (RFC 3549, `man 7 rtnetlink`), one request
//! and its acknowledgement at a time.
//!
//! - [`Netlink`]: asks and changes; works on the network namespace in which it was opened, whichever
//!   thread uses it later.
//! - [`Monitor`]: tells of links that change: administratively, by carrier, by removal.

mod link;
mod monitor;
mod route;
mod socket;

pub use link::{LinkState, VethEnd};
pub use monitor::{LinkChange, LinkEvent, Monitor};
pub use route::{Route, Via};
pub use socket::{Error, Netlink};
