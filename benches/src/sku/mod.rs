//! What one core moves through the whole pipeline in memory, beside what every SKU of Azure's allows.
//!
//! 1. [`traffic`]: the packets, of 10,000 flows, in the sizes that the table has
//! 2. [`gateway`]: a worker's own code between devices that are memory; no system call moves a packet
//! 3. [`rate`]: each way through it, measured in CPU time
//! 4. [`tier`]: the SKUs' limits, and what a rate means beside one
//! 5. [`report`]: text, JSON and pictures

pub mod gateway;
pub mod rate;
pub mod report;
pub mod tier;
pub mod traffic;

/// What went wrong while a benchmark was set up or written down.
pub type Failure = Box<dyn std::error::Error>;
