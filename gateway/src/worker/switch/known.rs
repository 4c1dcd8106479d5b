//! The flows that a worker knows: what was decided about them, and what they count for.

use crate::pipeline::flow::{Flow, FlowLimits, FlowTable};
use routing::cache::FlowCache;
use std::sync::Arc;
use std::time::Instant;

/// The flow cache, and the flow table while there are limits of flows. The cache forgets when the table says so: a flow
/// that the table has dropped is not remembered either.
pub struct KnownFlows {
    /// Decisions of known flows.
    cache: FlowCache,
    /// Holds flows to the limits of the SKU; `None` without such.
    table: Option<Box<FlowTable>>,
    /// Random and secret: what the table's hash begins with.
    seed: u64,
}

impl KnownFlows {
    /// None yet. `seed` is random and secret.
    pub fn new(cache: FlowCache, seed: u64) -> Self {
        Self {
            cache,
            table: None,
            seed,
        }
    }

    /// For the pipeline.
    #[inline]
    pub(super) fn parts(&mut self) -> (&mut FlowCache, Option<&mut FlowTable>) {
        (&mut self.cache, self.table.as_deref_mut())
    }

    /// Begins a round, in which these limits are in force.
    #[inline]
    pub(super) fn begin(&mut self, now: Instant, limits: Option<&Arc<FlowLimits>>) {
        match (&mut self.table, limits) {
            (None, None) => {}
            (Some(table), Some(limits)) => {
                if table.begin(now, limits) {
                    self.cache.forget();
                }
            }
            (table, limits) => {
                let packets_before = self.cache.hits_and_misses() != (0, 0);
                if let Some(old) = table.take() {
                    old.put_away();
                }
                *table = limits.map(|limits| {
                    let limits = Arc::clone(limits);
                    Box::new(FlowTable::new(now, limits, self.seed, packets_before))
                });
            }
        }
    }

    /// Forgets flows that are over; at the end of a round.
    #[inline]
    pub(super) fn sweep(&mut self) {
        if let Some(table) = &mut self.table {
            table.sweep();
        }
    }

    /// When the table wants to be swept.
    #[inline]
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.table.as_ref()?.deadline()
    }

    /// The newest flows, for people.
    pub(super) fn newest(&self) -> Vec<Flow> {
        let table = self.table.as_ref();
        table.map(|table| table.newest()).unwrap_or_default()
    }

    /// Decisions that the cache had, and that it had not.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        self.cache.hits_and_misses()
    }
}
