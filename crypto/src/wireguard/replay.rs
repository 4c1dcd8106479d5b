//! The window of counters that a session has seen (RFC 6479): a ring of bits in which the newest counter
//! moves forward block by block, so that nothing is ever shifted.

/// Bits of the ring. Data that overtakes itself by fewer than [`WINDOW`] packets is still taken.
const BITS: u64 = 8192;
/// Bits of one block.
const BLOCK: u64 = u64::BITS as u64;
/// Blocks of the ring.
const BLOCKS: usize = (BITS / BLOCK) as usize;
/// How far behind the newest counter one may be: one block is always being refilled.
pub(super) const WINDOW: u64 = BITS - BLOCK;

/// Which counters have been seen.
#[derive(Clone, Debug)]
pub(super) struct Replay {
    /// The greatest counter seen; 0 at first.
    newest: u64,
    ring: [u64; BLOCKS],
}

impl Replay {
    pub(super) const fn new() -> Self {
        Self {
            newest: 0,
            ring: [0; BLOCKS],
        }
    }

    /// Whether `counter` is new and not too old. Says nothing about authenticity: ask before opening,
    /// [`Replay::mark`] after.
    #[inline]
    pub(super) fn accepts(&self, counter: u64) -> bool {
        if counter > self.newest {
            return true;
        }
        self.newest - counter < WINDOW && self.block(counter) & bit(counter) == 0
    }

    /// Marks an authenticated counter that [`Replay::accepts`] has accepted.
    #[inline]
    pub(super) fn mark(&mut self, counter: u64) {
        if counter > self.newest {
            let (from, to) = (self.newest / BLOCK, counter / BLOCK);
            // A leap beyond the ring clears each block once.
            for step in 1..=(to - from).min(BLOCKS as u64) {
                *self.block_mut((from + step) * BLOCK) = 0;
            }
            self.newest = counter;
        }
        *self.block_mut(counter) |= bit(counter);
    }

    #[inline]
    fn block(&self, counter: u64) -> u64 {
        self.ring[position(counter)]
    }

    #[inline]
    fn block_mut(&mut self, counter: u64) -> &mut u64 {
        &mut self.ring[position(counter)]
    }
}

/// The block of a counter; below [`BLOCKS`], whatever the counter.
#[inline]
const fn position(counter: u64) -> usize {
    (counter / BLOCK) as usize % BLOCKS
}

#[inline]
const fn bit(counter: u64) -> u64 {
    1 << (counter % BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn take(replay: &mut Replay, counter: u64) -> bool {
        let accepted = replay.accepts(counter);
        if accepted {
            replay.mark(counter);
        }
        accepted
    }

    #[test]
    fn each_counter_is_taken_once() {
        let mut replay = Replay::new();
        for counter in 0..2 * BITS {
            assert!(take(&mut replay, counter));
            assert!(!take(&mut replay, counter));
        }
        assert!(!take(&mut replay, 0));
    }

    #[test]
    fn the_window_reaches_back_8128() {
        let mut replay = Replay::new();
        assert!(take(&mut replay, 100_000));
        assert!(take(&mut replay, 100_000 - WINDOW + 1));
        assert!(!take(&mut replay, 100_000 - WINDOW));
        for counter in (100_000 - WINDOW + 2..100_000).rev() {
            assert!(take(&mut replay, counter), "{counter}");
        }
        for counter in 100_000 - WINDOW..=100_000 {
            assert!(!take(&mut replay, counter), "{counter}");
        }
    }

    #[test]
    fn a_leap_forgets_the_old_ring() {
        let mut replay = Replay::new();
        for counter in 0..BITS {
            assert!(take(&mut replay, counter));
        }
        assert!(take(&mut replay, 10 * BITS));
        for counter in 10 * BITS - WINDOW + 1..10 * BITS {
            assert!(take(&mut replay, counter), "{counter}");
        }
        assert!(take(&mut replay, u64::MAX - 1));
        assert!(!take(&mut replay, u64::MAX - 1));
        assert!(take(&mut replay, u64::MAX));
    }

    proptest! {
        /// Against a set that remembers everything.
        #[test]
        fn it_agrees_with_a_set(steps in prop::collection::vec((0..3_u8, 0..20_000_u64), 1..400)) {
            let mut replay = Replay::new();
            let mut seen = HashSet::new();
            let mut newest = 0_u64;
            for (how, by) in steps {
                let counter = match how {
                    0 => newest + by,
                    1 => newest.saturating_sub(by),
                    _ => newest.saturating_sub(by % 70),
                };
                let expected = !seen.contains(&counter)
                    && (counter > newest || newest - counter < WINDOW);
                prop_assert_eq!(take(&mut replay, counter), expected, "counter {}", counter);
                if expected {
                    seen.insert(counter);
                    newest = newest.max(counter);
                }
            }
        }
    }
}
