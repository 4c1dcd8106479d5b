//! Control: the thread that watches every path and moves traffic to those that work, and what belongs to it.
//!
//! - [`run`]: the control thread itself; [`handle`]: how the rest of the gateway speaks to it; [`published`]: what it shows
//! - [`force`]: where a change of the gateway and its judgement meet
//! - [`path`]: what watches one path; [`neighbor`]: ARP and neighbour discovery
//! - [`host`]: the gateway's own host, which answers ping
//! - [`keeper`]: a thread that puts back what others change of the device, its addresses and routes

pub(crate) mod force;
pub mod handle;
pub mod host;
pub(crate) mod keeper;
pub mod neighbor;
pub mod path;
pub mod published;
pub mod run;
