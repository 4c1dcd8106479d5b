//! The life of a gateway, from its start to its end.
//!
//! - [`supervisor`]: builds it, runs it, takes it down again, or makes it anew
//! - [`running`]: the running gateway as the control socket sees it, and how it is changed
//! - [`thread`]: a thread whose end ends the gateway
//! - [`resize`]: another SKU; [`descriptors`]: how many open files it needs; [`notify`]: what systemd is told

mod descriptors;
mod notify;
pub(crate) mod resize;
mod running;
pub mod supervisor;
mod thread;
