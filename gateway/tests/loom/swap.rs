//! A model of the pointer that control swaps and workers load.

use loom::sync::Mutex;
use std::sync::Arc;

/// A shared pointer as arc-swap's promises to be seen: a load gives what was stored last, with all that was
/// done before the store.
pub(crate) struct Swap<T>(Mutex<Arc<T>>);

impl<T> Swap<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(Arc::new(value)))
    }

    pub(crate) fn load(&self) -> Arc<T> {
        Arc::clone(&self.0.lock().unwrap())
    }

    pub(crate) fn store(&self, value: T) {
        *self.0.lock().unwrap() = Arc::new(value);
    }
}
