//! A sequence lock of one writer: readers see whole rounds without ever making the writer wait.
//!
//! The writer pays two plain stores a round; a reader that meets a round under way tries again. What is
//! guarded are relaxed atomics, so a torn read is a wrong sum and not undefined. (`tests/loom` tries every
//! order.)

use crate::sync::atomic::{AtomicU64, Ordering, fence};
use crate::sync::yield_now;

/// Reads that a reader tries before it takes whatever it sees.
const TRIES: usize = 10_000;

/// Counts rounds; odd while one is under way.
#[derive(Debug, Default)]
pub struct Sequence(AtomicU64);

impl Sequence {
    /// Writer: begins a round.
    #[inline]
    pub fn begin(&self) {
        let round = self.0.load(Ordering::Relaxed);
        self.0.store(round | 1, Ordering::Relaxed);
        fence(Ordering::Release);
    }

    /// Writer: has ended its round.
    #[inline]
    pub fn end(&self) {
        let round = self.0.load(Ordering::Relaxed);
        self.0.store((round | 1).wrapping_add(1), Ordering::Release);
    }

    /// Reader: runs `read` until no round began or was under way meanwhile; after many tries, whatever it saw.
    pub fn consistently<T>(&self, read: impl Fn() -> T) -> T {
        for _ in 0..TRIES {
            let before = self.0.load(Ordering::Acquire);
            if before & 1 == 0 {
                let seen = read();
                fence(Ordering::Acquire);
                if self.0.load(Ordering::Relaxed) == before {
                    return seen;
                }
            }
            yield_now();
        }
        read()
    }
}
