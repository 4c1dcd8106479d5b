//! What the program's files know of the gateway's devices.

pub(crate) mod event;
#[path = "../../src/device/waker.rs"]
pub(crate) mod waker;

pub(crate) use gateway::device::offload;
