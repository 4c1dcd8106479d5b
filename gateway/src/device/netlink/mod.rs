//! The kernel's links, addresses and routes over rtnetlink (RFC 3549, `man 7 rtnetlink`), one request
//! and its acknowledgement at a time.
//!
//! - [`Netlink`]: asks and changes; works on the network namespace in which it was opened, whichever
//!   thread uses it later.
//! - [`Monitor`]: tells of links that change: administratively, by carrier, by removal.
//! - [`HostMonitor`]: of addresses and routes as well; [`TableRoute`]: the main table as it stands.

mod link;
mod monitor;
mod raw;
mod route;
mod socket;
mod table;
mod witness;

pub use link::{LinkState, VethEnd};
pub use monitor::{LinkChange, LinkEvent, Monitor};
pub use raw::TableRoute;
pub use route::{Route, Via};
pub use socket::{Error, Netlink};
pub use table::{MAIN_TABLE, ROUTE_PROTOCOL, RouteOrder, protocol_name};
pub use witness::{HostChange, HostMonitor};
