//! vng, the virtual network gateway. All I/O, threads and unsafe code of the project live here.

pub mod cli;
pub mod config;
pub mod control;
pub mod device;
pub mod pipeline;
pub mod sku;
mod sync;
pub mod telemetry;
pub mod worker;
