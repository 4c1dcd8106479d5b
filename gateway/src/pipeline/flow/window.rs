//! How a worker's newest flows come to be seen: whoever wants them asks, and the worker lays them out at the end of
//! its round. It looks at one word a round, and takes no lock.

use super::Flow;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The place between one worker and those who ask.
#[derive(Debug, Default)]
pub struct Window {
    asked: AtomicU64,
    answered: AtomicU64,
    flows: ArcSwap<Vec<Flow>>,
}

impl Window {
    /// Asks; gives the number of the question.
    pub fn ask(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The answer to this question or a later one, once there is one.
    pub fn answer(&self, question: u64) -> Option<Arc<Vec<Flow>>> {
        let is_there = self.answered.load(Ordering::Acquire) >= question;
        is_there.then(|| self.flows.load_full())
    }

    /// Worker: whether a question is open.
    #[inline]
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed) != self.answered.load(Ordering::Relaxed)
    }

    /// Worker: answers every question so far.
    #[cold]
    pub fn show(&self, flows: Vec<Flow>) {
        let asked = self.asked.load(Ordering::Relaxed);
        self.flows.store(Arc::new(flows));
        self.answered.store(asked, Ordering::Release);
    }
}
