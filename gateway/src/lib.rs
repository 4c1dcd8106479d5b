//! vng, the virtual network gateway. All I/O, threads and unsafe code of the project live here.
//!
//! The rooms, from the ground up; a room imports from those before it, never from those after it
//! (`gateway/tests/rooms.rs` holds this list to the imports):
//!
//! 1. [`sync`]: atomics, which loom replaces; [`telemetry`]: what is counted and logged; [`sku`]: Azure's figures
//! 2. [`device`]: everything that asks the kernel
//! 3. [`pipeline`]: what is done to a packet, without a system call
//! 4. [`config`]: the file, read and checked; [`error`]: why a gateway does not run
//! 5. [`worker`]: the threads that packets move on
//! 6. [`plan`]: the configuration as numbers: paths, groups, routes, policy, limits; offline too
//! 7. [`tunnels`]: tunnels and clients that come and go while workers run
//! 8. [`kernel`]: what is set in the machine's kernel
//! 9. [`control`]: the control thread: what watches paths and neighbours, the gateway's own host
//! 10. [`build`]: devices, sockets and workers out of a plan
//! 11. [`show`]: what is told to people
//! 12. [`api`]: the control socket, both ends
//! 13. [`life`]: a gateway from its start to its end: supervisor, reload, resize
//! 14. [`cli`]: the command line

// They panic where the output takes nothing: `cli::output` and `telemetry::log` do not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod api;
pub mod build;
pub mod cli;
pub mod config;
pub mod control;
pub mod device;
pub mod error;
pub mod kernel;
pub mod life;
pub mod pipeline;
pub mod plan;
pub mod show;
pub mod sku;
mod sync;
pub mod telemetry;
pub mod tunnels;
pub mod worker;
