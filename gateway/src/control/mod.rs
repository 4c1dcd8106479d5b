//! Control: everything of the gateway that is not a packet's way.

pub mod adjacency;
pub mod discovery;
pub mod neighbor;
