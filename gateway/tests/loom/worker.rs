//! What they know of its workers.

#[path = "../../src/worker/bell.rs"]
pub(crate) mod bell;
#[path = "../../src/worker/handoff.rs"]
pub(crate) mod handoff;
#[path = "../../src/worker/interface.rs"]
pub(crate) mod interface;

pub(crate) use gateway::worker::backlog;
