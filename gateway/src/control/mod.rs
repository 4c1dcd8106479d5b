//! Control: everything of the gateway that is not a packet's way. One thread watches the paths ([`run`]),
//! another answers whoever asks ([`api`]).
//!
//! - [`neighbor`], [`discovery`], [`adjacency`]: the next hops of a link, by ARP and neighbour discovery
//! - [`echo`], [`prober`]: probes of a path
//! - [`host`]: the gateway as a host that can be pinged
//! - [`link`], [`watch`]: all that watches one path, and what it says together
//! - [`run`]: the thread; [`board`]: what it shows
//! - [`plan`]: what a configuration asks for, as paths and routes
//! - [`supervisor`]: starts and ends the threads
//! - [`view`], [`api`], [`client`]: what is told over the control socket, and how it is asked

pub mod adjacency;
pub mod api;
pub mod board;
pub mod client;
pub mod discovery;
pub mod echo;
pub mod host;
pub mod link;
pub mod neighbor;
pub mod plan;
pub mod prober;
pub mod run;
pub mod supervisor;
pub mod view;
pub mod watch;
