//! vng, the virtual network gateway. All I/O, threads and unsafe code of the project live here.

// They panic where the output takes nothing: `cli::output` and `telemetry::log` do not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod cli;
pub mod config;
pub mod control;
pub mod device;
pub mod pipeline;
pub mod sku;
mod sync;
pub mod telemetry;
pub mod worker;
