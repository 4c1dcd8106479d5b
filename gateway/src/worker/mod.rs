//! The data path's threads. One worker a core; each owns its devices and runs every packet to completion.
//!
//! - [`run`]: the loop: who is read when, and how much in one round
//! - [`packet`]: a packet on its way; [`ways`]: where it goes
//! - [`switch`]: where packets change sides
//! - [`vnet`]: the virtual network's device
//! - [`link`], [`ethernet`]: ExpressRoute links, tags, next hops
//! - [`tunnels`]: trains sealed and opened in place; [`lane`]: several sessions of one site side by side
//! - [`private`]: tunnels over a circuit, encryption over the private path
//! - [`clients`]: which client a packet is for, and which sources each may use
//! - [`change`]: tunnels that come and go while the worker runs
//! - [`handoff`]: packets on their way to the worker that owns their tunnel
//! - [`handle`]: a worker as the rest of the gateway knows it; [`control_port`]: what workers and control hand each other, and [`words`] between them
//! - [`interface`]: who opens a link's sockets when
//! - [`backlog`]: when a queue stands, and senders are told to slow down
//! - `buffer`: memory that packets are read into; [`bell`], [`polling`]: how a worker is told of something, and when it sleeps

pub mod backlog;
pub mod bell;
mod buffer;
pub mod change;
pub mod clients;
pub mod control_port;
pub mod ethernet;
#[cfg(test)]
pub(crate) mod fixture;
pub mod handle;
pub mod handoff;
pub mod interface;
pub mod lane;
pub mod link;
pub mod packet;
pub mod polling;
pub mod private;
pub mod run;
pub mod switch;
pub mod tunnels;
pub mod vnet;
pub mod ways;
pub mod words;
