//! Devices, sockets and workers out of a configuration and its plan.
//!
//! - [`data_path`]: the whole data path, complete and not yet running; [`assembly`]: its parts
//! - [`slots`]: the workers before they run: their numbers and the queues between them

pub(crate) mod assembly;
pub mod data_path;
pub(crate) mod slots;
