//! The atomics of a group's word. The gateway's `tests/loom` compiles [`crate::path`] with loom's instead.

pub(crate) use std::sync::atomic;
