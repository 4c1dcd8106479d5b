//! What threads meet at, in one place: the files whose protocols `tests/loom` tries in every order take it
//! from here, and there this module is loom's.

pub(crate) use arc_swap::ArcSwap;
pub(crate) use crossbeam::queue::ArrayQueue;
pub(crate) use std::sync::atomic;
pub(crate) use std::thread::yield_now;
