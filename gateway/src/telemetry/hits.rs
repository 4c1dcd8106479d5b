//! Packets and bytes that each policy rule decided, counted by each worker for itself.
//!
//! A worker has a counter of its own for every rule, so that counting is two plain additions. A reload makes
//! counters for the rules that are new and hands on those of the rules that stay: workers may still count
//! by the old table while they take the new one, and nothing of that is lost.

use super::ledger::{Count, Sum};
use std::sync::Arc;

/// One worker's counter of one rule. Counters that were made together lie together, apart from every other
/// worker's.
#[derive(Clone, Debug)]
struct Counter {
    block: Arc<[Count]>,
    place: usize,
}

/// Counters of every worker and rule.
#[derive(Debug, Default)]
pub struct Hits {
    /// By worker, then by rule.
    workers: Box<[Box<[Counter]>]>,
}

impl Hits {
    /// Counters at zero.
    pub fn new(workers: usize, rules: usize) -> Self {
        Self::build(workers, &vec![None; rules], |_, _| None)
    }

    /// Counters for another rule table: `kept` has for each of its rules the place that it had in this one,
    /// or `None` for a new rule, which begins at zero.
    #[must_use]
    pub fn following(&self, kept: &[Option<usize>]) -> Self {
        Self::build(self.workers.len(), kept, |worker, rule| {
            self.workers.get(worker)?.get(rule).cloned()
        })
    }

    fn build(
        workers: usize,
        kept: &[Option<usize>],
        old: impl Fn(usize, usize) -> Option<Counter>,
    ) -> Self {
        let of_worker = |worker: usize| {
            let found: Vec<Option<Counter>> = kept
                .iter()
                .map(|kept| kept.and_then(|rule| old(worker, rule)))
                .collect();
            let fresh = found.iter().filter(|counter| counter.is_none()).count();
            let block: Arc<[Count]> = (0..fresh).map(|_| Count::default()).collect();
            let mut next = 0..fresh;
            let counter = |found: Option<Counter>| {
                found.unwrap_or_else(|| Counter {
                    block: Arc::clone(&block),
                    place: next.next().unwrap_or(fresh),
                })
            };
            found.into_iter().map(counter).collect()
        };
        Self {
            workers: (0..workers).map(of_worker).collect(),
        }
    }

    /// Counts packets that this rule decided. Only the worker of this number may call it.
    #[inline]
    pub fn add(&self, worker: usize, rule: usize, hits: Sum) {
        if let Some(counter) = self.workers.get(worker).and_then(|rules| rules.get(rule))
            && let Some(count) = counter.block.get(counter.place)
        {
            count.add(hits.packets, hits.bytes);
        }
    }

    /// What each rule has decided so far, all workers together.
    pub fn read(&self) -> Vec<Sum> {
        let rules = self.workers.first().map_or(0, |rules| rules.len());
        let mut sums = vec![Sum::default(); rules];
        for worker in &self.workers {
            for (sum, counter) in sums.iter_mut().zip(worker) {
                *sum += counter
                    .block
                    .get(counter.place)
                    .map_or_else(Sum::default, Count::read);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(packets: u64, bytes: u64) -> Sum {
        Sum { packets, bytes }
    }

    #[test]
    fn a_rule_that_stays_keeps_its_counters_wherever_it_moves_to() {
        let old = Hits::new(2, 3);
        old.add(0, 0, sum(1, 100));
        old.add(1, 0, sum(2, 200));
        old.add(1, 2, sum(5, 500));
        let new = old.following(&[Some(2), None, Some(0)]);
        assert_eq!(new.read(), [sum(5, 500), sum(0, 0), sum(3, 300)]);
        // A worker that has not taken the new table yet still counts for both.
        old.add(0, 2, sum(1, 1));
        new.add(1, 0, sum(1, 1));
        new.add(0, 1, sum(7, 70));
        assert_eq!(new.read(), [sum(7, 502), sum(7, 70), sum(3, 300)]);
        assert_eq!(old.read(), [sum(3, 300), sum(0, 0), sum(7, 502)]);
    }

    #[test]
    fn a_rule_or_worker_that_is_not_there_counts_nothing() {
        let hits = Hits::new(1, 1);
        hits.add(0, 1, sum(1, 1));
        hits.add(1, 0, sum(1, 1));
        assert_eq!(hits.read(), [sum(0, 0)]);
        assert_eq!(Hits::default().read(), []);
    }
}
