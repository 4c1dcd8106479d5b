//! Benchmarks live in `benches/`; what they share lives here.

pub mod packet;
