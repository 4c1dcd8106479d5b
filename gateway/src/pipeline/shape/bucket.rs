//! How workers share the buckets of a limit ([`bucket`](crate::pipeline::bucket)) without a lock.
//!
//! 1. Tokens are nanoseconds: a packet costs the time that the rate takes for it, and a new rate is a new
//!    price ([`Price`]).
//! 2. [`Pool`]: the time that is shared. Taking a share of it is one compare-and-swap. A share may lie ahead of the
//!    clock, which queues the workers fairly: each gets its turn in the order of asking.
//! 3. [`Lease`]: a worker's share. It ripens with the clock; packets are paid from it with plain
//!    arithmetic. What is left when the worker has nothing to send goes back to the pool.
//!
//! All shares together are never more than the time that has passed and the burst, so neither is what is
//! sent for them.

pub(super) use crate::pipeline::bucket::Shared as Pool;
use std::time::Duration;

/// How much of its rate a limit lets through at once after a pause. A worker that is woken late by less
/// than this loses nothing of the rate.
pub const BURST: Duration = Duration::from_millis(4);
/// The share that a worker takes at a time, nanoseconds: seldom enough to cost nothing, short enough
/// that another worker does not wait for long.
const SHARE: u64 = 200_000;
/// Picoseconds in a nanosecond: packets are priced in the former, for 10 Gbps is 0.8 ns a byte.
const PICO: u64 = 1_000;

/// How a burst is divided between the pool and the shares that workers may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Division {
    /// What the pool keeps at most, nanoseconds.
    pub(super) depth: u64,
    /// What a worker takes at a time, nanoseconds.
    pub(super) share: u64,
}

impl Division {
    /// For this many workers. Shares take at most half of the burst; pool and shares together are the
    /// whole of it.
    pub(super) fn among(workers: usize) -> Self {
        let burst = BURST.as_nanos() as u64;
        let workers = (workers as u64).max(1);
        let share = SHARE.min(burst / 2 / workers).max(1);
        Self {
            depth: burst.saturating_sub(share * workers),
            share,
        }
    }
}

/// What one unit (a byte, a packet) costs, picoseconds; 0 where nothing is limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Price(u64);

impl Price {
    /// The price at `rate` units a second, rounded up: 25 millionths off at worst (650 Mbps).
    pub(super) fn per_second(rate: Option<u64>, units_per_count: u64) -> Self {
        let second = 1_000_000_000_000_u64.saturating_mul(units_per_count);
        Self(rate.map_or(0, |rate| second.div_ceil(rate.max(1))))
    }

    /// What `units` cost, picoseconds.
    #[inline]
    pub(super) const fn of(self, units: u64) -> u64 {
        self.0.saturating_mul(units)
    }

    /// How many of what costs `each` are paid with `credit`.
    #[inline]
    pub(super) const fn affordable(credit: u64, each: u64) -> u64 {
        match credit.checked_div(each) {
            Some(count) => count,
            None => u64::MAX,
        }
    }
}

/// A worker's share of a [`Pool`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lease {
    /// What can be spent, picoseconds.
    credit: u64,
    /// The stretch that has been taken and has not ripened: it can be spent as the clock passes it.
    from: u64,
    to: u64,
}

impl Lease {
    /// Whether `need` picoseconds can be spent, after taking what the pool has by now if there are too
    /// few.
    #[inline]
    pub(super) fn has(&mut self, pool: &Pool, division: Division, now: u64, need: u64) -> bool {
        self.credit >= need || self.top_up(pool, division, (now, now), need)
    }

    /// As [`Lease::has`]; if there are too few, the next share of the pool's time is this worker's.
    #[inline]
    pub(super) fn reserve(&mut self, pool: &Pool, division: Division, now: u64, need: u64) -> bool {
        self.credit >= need || self.top_up(pool, division, (now, u64::MAX), need)
    }

    #[inline(never)]
    fn top_up(
        &mut self,
        pool: &Pool,
        division: Division,
        (now, limit): (u64, u64),
        need: u64,
    ) -> bool {
        self.ripen(now);
        if self.credit < need && self.from == self.to {
            let missing = (need - self.credit).div_ceil(PICO);
            let amount = missing.max(division.share);
            (self.from, self.to) = pool.take_some(now, division.depth, amount, limit);
            self.ripen(now);
        }
        self.credit >= need
    }

    fn ripen(&mut self, now: u64) {
        let ripe = now.min(self.to).saturating_sub(self.from);
        self.credit += ripe * PICO;
        self.from += ripe;
    }

    /// Spends; the caller has asked whether it may.
    #[inline]
    pub(super) fn spend(&mut self, cost: u64) {
        debug_assert!(self.credit >= cost, "asked before");
        self.credit = self.credit.saturating_sub(cost);
    }

    /// What can be spent, picoseconds.
    #[inline]
    pub(super) fn credit(&self) -> u64 {
        self.credit
    }

    /// When `need` can be spent or, if this share will not do, when to ask for another: nanoseconds.
    pub(super) fn ready_at(&self, need: u64) -> u64 {
        let missing = need.saturating_sub(self.credit).div_ceil(PICO);
        self.from.saturating_add(missing).min(self.to)
    }

    /// Gives back what is beyond a share.
    pub(super) fn trim(&mut self, pool: &Pool, division: Division) {
        let beyond = (self.credit / PICO).saturating_sub(division.share);
        pool.give_back(beyond);
        self.credit -= beyond * PICO;
    }

    /// Gives back what has not been spent.
    pub(super) fn give_back(&mut self, pool: &Pool) {
        pool.give_back(self.credit / PICO + (self.to - self.from));
        self.credit %= PICO;
        self.from = self.to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALONE: u64 = 1;

    #[test]
    fn a_price_is_exact_where_the_rate_divides_a_second() {
        let gigabits = |n: u64| Price::per_second(Some(n * 1_000_000_000), 8);
        assert_eq!(
            (gigabits(10), gigabits(1), gigabits(40)),
            (Price(800), Price(8_000), Price(200))
        );
        assert_eq!(Price::per_second(Some(62_000), 1), Price(16_129_033));
        assert_eq!(Price::per_second(None, 8).of(u64::MAX), 0);
        assert_eq!(Price::affordable(5, 0), u64::MAX);
    }

    #[test]
    fn pool_and_shares_are_the_whole_burst_for_any_number_of_workers() {
        for workers in 0..64 {
            let Division { depth, share } = Division::among(workers);
            assert_eq!(
                u128::from(depth + share * (workers as u64).max(1)),
                BURST.as_nanos()
            );
            assert!(depth >= 2_000_000 && share > 0, "{workers}");
        }
    }

    #[test]
    fn what_an_idle_worker_holds_goes_back_to_the_others() {
        let (pool, division) = (Pool::default(), Division::among(2));
        let (mut one, mut other) = (Lease::default(), Lease::default());
        let second = 1_000_000_000;
        assert!(one.has(&pool, division, second, ALONE));
        one.give_back(&pool);
        // The whole depth is there for the other.
        assert!(other.has(&pool, division, second, division.depth * PICO));
        assert!(!other.has(&pool, division, second, division.depth * PICO + 1));
    }

    #[test]
    fn workers_that_wait_get_their_turn_in_the_order_of_asking() {
        let (pool, division) = (Pool::default(), Division::among(2));
        let (mut greedy, mut other) = (Lease::default(), Lease::default());
        let now = 1_000_000_000;
        assert!(greedy.has(&pool, division, now, division.depth * PICO));
        greedy.spend(greedy.credit());
        let need = division.share * PICO;
        assert!(!greedy.reserve(&pool, division, now, need));
        assert!(!other.reserve(&pool, division, now, need));
        let (first, second) = (greedy.ready_at(need), other.ready_at(need));
        assert_eq!(
            (first, second),
            (now + division.share, first + division.share)
        );
        // However often the greedy one asks, the other's turn stays.
        for at in now..now + 1_000 {
            assert!(!greedy.reserve(&pool, division, at, need));
        }
        assert!(greedy.reserve(&pool, division, first, need));
        greedy.spend(need);
        greedy.reserve(&pool, division, first, need);
        assert!(other.reserve(&pool, division, second, need));
    }

    proptest! {
        /// Whatever the workers do and however their clocks differ, in no interval do they spend more
        /// than its length, the burst, and what one of them asked for at once beyond its share.
        #[test]
        fn shares_never_add_up_to_more_than_time_and_burst(
            workers in 1_usize..5,
            steps in prop::collection::vec((0_usize..4, 0_u64..600_000, 1_u64..400_000, 0_u8..8), 1..400),
        ) {
            let (pool, division) = (Pool::default(), Division::among(workers));
            let mut leases = vec![Lease::default(); workers];
            let mut now = 1_000_000_000_u64;
            let mut spent = Vec::new();
            let largest = 400_000;
            for (worker, pause, need, what) in steps {
                now += pause;
                let lease = &mut leases[worker % workers];
                if what == 0 {
                    lease.give_back(&pool);
                    continue;
                }
                let has = if what < 4 { Lease::has } else { Lease::reserve };
                if has(lease, &pool, division, now, need * PICO) {
                    lease.spend(need * PICO);
                    spent.push((now, need));
                }
            }
            let allowance = BURST.as_nanos() as u64 + workers as u64 * largest;
            for (index, &(begin, _)) in spent.iter().enumerate() {
                let mut sum = 0;
                for &(end, need) in &spent[index..] {
                    sum += need;
                    prop_assert!(sum <= end - begin + allowance, "{sum} in {}", end - begin);
                }
            }
        }
    }
}
