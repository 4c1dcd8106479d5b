//! A worker as the rest of the gateway knows it.

use crate::telemetry::ledger::Ledger;
use crate::worker::control_port::ControlPort;
use crate::worker::run::Shared;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What the rest of the gateway holds of a worker.
pub struct WorkerHandle {
    /// The state that it reads, what the kernel dropped, and the word that ends it.
    pub shared: Arc<Shared>,
    /// The port between it and control.
    pub host: Arc<ControlPort>,
    /// Its books.
    pub ledger: Arc<Ledger>,
}

impl WorkerHandle {
    /// Tells the worker to end.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.host.bell.ring();
    }
}
