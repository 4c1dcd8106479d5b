//! Control: everything of the gateway that is not a packet's way.
//!
//! - [`supervisor`]: the life of a gateway; [`assembly`], [`data_path`]: its parts and workers out of
//!   configuration and [`plan`]
//! - [`run`]: the control thread, which watches every path ([`watch`], [`link`], [`prober`]) and is the
//!   gateway's own host ([`host`]); [`neighbor`], [`discovery`], [`adjacency`]: ARP and neighbour discovery;
//!   [`mistagged`]: frames with the VLAN tags of no link
//! - [`board`]: what it shows; [`running`], [`inspect`], [`view`]: how that looks to a person;
//!   [`describe`], [`effective`]: the plan in words, for the running gateway and offline;
//!   [`foresee`]: what would change an answer; [`clients`]: packets for and from point-to-site clients; [`limit`]: the SKUs' rates and flows;
//!   [`usage`]: what is used of them; [`sources`]: who may use which source
//! - [`underlay`]: names of far ends, and how wide the routes to them are
//! - [`keys`]: the secret keys in force; [`resize`]: another SKU; [`tunnels`]: tunnels that come and go with a reload
//! - `kernel`: what is set in the machine's kernel: the device's side, routes, parameters of interfaces
//! - [`api`], [`client`]: the control socket

pub mod adjacency;
pub mod api;
mod assembly;
pub mod board;
mod carrier;
pub mod client;
pub mod clients;
pub(crate) mod crew;
pub mod data_path;
pub mod describe;
mod descriptors;
pub mod discovery;
pub mod echo;
pub mod effective;
mod foresee;
pub mod handle;
pub mod host;
pub mod inspect;
pub mod kernel;
mod keys;
mod limit;
pub mod link;
pub mod mistagged;
pub mod neighbor;
mod notify;
pub mod offline;
pub mod plan;
pub mod prober;
mod resize;
pub mod run;
mod running;
mod sources;
pub mod supervisor;
mod tunnels;
pub(crate) mod underlay;
mod usage;
pub mod view;
pub mod watch;
