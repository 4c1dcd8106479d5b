//! Benchmarks live in `benches/`; what they share lives here.

pub mod cpu_time;
pub mod packet;
