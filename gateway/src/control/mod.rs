//! Control: everything of the gateway that is not a packet's way.

pub mod adjacency;
pub mod api;
pub mod client;
pub mod discovery;
pub mod neighbor;
pub mod supervisor;
pub mod view;
pub mod plan;
