//! The one token bucket of the gateway. A bucket is a stretch of time, kept as one number: until when its time has
//! been given out, nanoseconds since its owner's epoch. A token is the time that the rate takes for it, so a bucket
//! fills by one nanosecond a nanosecond, whatever its rate; what lies further back than the depth is forfeit. (The
//! generic cell rate algorithm of ITU-T I.371, told from the other end.)
//!
//! | who | bucket | a token |
//! |---|---|---|
//! | [`shape`](super::shape): bits and packets of a SKU | [`Shared`], by shares ([`Shared::take_some`]) | a share of a worker's, from which packets are paid |
//! | [`flow`](super::flow): new flows of a SKU | [`Shared`] | a flow |
//! | [`rate`](super::rate): ICMP errors; the own host's echoes and resets | [`Bucket`], a worker's or control's own | a packet |
//!
//! One stays apart: `crypto::limiter`, where the buckets of 8,192 sources are half of a word each, the other half
//! says whose it is, and which to forget for another's sake is decided by how full they are. It is a crate that knows
//! nothing of gateways, and its time is in milliseconds to fit the half.

use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU64, Ordering};

/// The next `amount` of time of a bucket from which all `until` then has been given out, as `(from, to)`; it may lie
/// ahead of `now`.
#[inline]
const fn next(until: u64, now: u64, depth: u64, amount: u64) -> (u64, u64) {
    let floor = now.saturating_sub(depth);
    let from = if until > floor { until } else { floor };
    (from, from.saturating_add(amount))
}

/// A bucket with one owner. [`Bucket::default`] was empty at the epoch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    until: u64,
}

impl Bucket {
    /// Whether `price` is there, in a bucket that holds `depth`.
    #[inline]
    pub(super) const fn has(self, now: u64, depth: u64, price: u64) -> bool {
        next(self.until, now, depth, price).1 <= now
    }

    /// Takes `price`, which is there.
    #[inline]
    pub(super) const fn take(&mut self, now: u64, depth: u64, price: u64) {
        self.until = next(self.until, now, depth, price).1;
    }
}

/// A bucket that workers share without a lock: one atomic word. Nothing else is published with it, so it needs no
/// order with other memory.
#[derive(Debug, Default)]
pub(super) struct Shared {
    until: CachePadded<AtomicU64>,
}

impl Shared {
    /// Takes `price` if it is there.
    pub(super) fn take(&self, now: u64, depth: u64, price: u64) -> bool {
        let taken = |until| Some(next(until, now, depth, price).1).filter(|&to| to <= now);
        let order = Ordering::Relaxed;
        self.until.fetch_update(order, order, taken).is_ok()
    }

    /// Gives out the next `amount` nanoseconds as the stretch `(from, to)`, or only what of it has passed
    /// by `limit`. What lies further back than `depth` before `now` is forfeit; what lies ahead of `now`
    /// is not to be used before its time.
    pub(super) fn take_some(&self, now: u64, depth: u64, amount: u64, limit: u64) -> (u64, u64) {
        let mut until = self.until.load(Ordering::Relaxed);
        loop {
            let (from, to) = next(until, now, depth, amount);
            let to = to.min(limit);
            if to <= from {
                return (from, from);
            }
            let swapped =
                self.until
                    .compare_exchange_weak(until, to, Ordering::Relaxed, Ordering::Relaxed);
            match swapped {
                Ok(_) => return (from, to),
                Err(found) => until = found,
            }
        }
    }

    /// Takes back `amount` nanoseconds that were given out and not used.
    pub(super) fn give_back(&self, amount: u64) {
        if amount > 0 {
            self.until.fetch_sub(amount, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_bucket_holds_its_depth_and_fills_with_time() {
        let (depth, price) = (300, 100);
        let mut bucket = Bucket::default();
        assert!(!bucket.has(99, depth, price), "empty at the epoch");
        assert!(bucket.has(100, depth, price));
        // However long nobody came, no more than the depth is there.
        for _ in 0..3 {
            assert!(bucket.has(10_000, depth, price));
            bucket.take(10_000, depth, price);
        }
        assert!(!bucket.has(10_099, depth, price));
        assert!(bucket.has(10_100, depth, price));
    }

    proptest! {
        /// Whoever asks when: in no stretch of time does a bucket give more than the stretch and its depth, and the
        /// bucket of one owner gives what the shared one gives.
        #[test]
        fn it_never_gives_more_than_time_and_depth(
            depth in 1_u64..1_000,
            price in 1_u64..200,
            pauses in prop::collection::vec(0_u64..300, 1..200),
        ) {
            let (mut own, shared) = (Bucket::default(), Shared::default());
            let (mut now, mut taken) = (5_000, Vec::new());
            for pause in pauses {
                now += pause;
                let has = own.has(now, depth, price);
                prop_assert_eq!(has, shared.take(now, depth, price));
                if has {
                    own.take(now, depth, price);
                    taken.push(now);
                }
            }
            for (index, &begin) in taken.iter().enumerate() {
                for (count, &end) in taken[index..].iter().enumerate() {
                    prop_assert!((count as u64 + 1) * price <= end - begin + depth);
                }
            }
        }
    }

    /// Real threads at one bucket: what they take is disjoint, so its sum is bounded by the last moment.
    #[test]
    fn threads_never_get_the_same_stretch() {
        const TAKES: u64 = 20_000;
        let (shared, go) = (Shared::default(), AtomicBool::new(false));
        let mut stretches: Vec<(u64, u64)> = std::thread::scope(|scope| {
            let take = || {
                while !go.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                }
                (0..TAKES)
                    .map(|at| shared.take_some(at, u64::MAX, 7, u64::MAX))
                    .collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            go.store(true, Ordering::Release);
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        stretches.sort_unstable();
        assert_eq!(stretches.len() as u64, 4 * TAKES);
        for pair in stretches.windows(2) {
            assert_eq!(pair[0].1, pair[1].0);
        }
    }
}
