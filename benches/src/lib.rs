//! Benchmarks live in `benches/`; what they share lives here.
//!
//! [`sku`] is the last of them, and more than functions of criterion: the whole pipeline in memory, held
//! against every SKU.

pub mod cpu_time;
pub mod packet;
pub mod sku;
