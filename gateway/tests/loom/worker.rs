//! What they know of its workers.

#[path = "../../src/worker/bell.rs"]
pub(crate) mod bell;
#[path = "../../src/worker/crossing.rs"]
pub(crate) mod crossing;

pub(crate) use gateway::worker::backlog;
