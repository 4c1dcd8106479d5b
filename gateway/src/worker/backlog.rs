//! Queues that stand: when a source of packets is never found empty for long, its senders are told to slow
//! down, so that what passes through a busy gateway does not wait behind megabytes of one bulk flow.
//!
//! The criterion and the rhythm are CoDel's (RFC 8289): a queue that has not been short for an interval is a
//! standing one; then one packet tells its sender (ECN mark, or loss where the sender knows no marks), and the
//! next one after `interval / sqrt(count)`, until the queue has been short. CoDel measures how long packets
//! have waited; these queues are the kernel's and do not say, so "emptied, or known to be short, once within
//! the interval" stands in for "waited less than the target". A burst that is gone within the interval costs
//! nothing.

use std::time::{Duration, Instant};

/// How long a queue may stand: CoDel's interval, of the order of the round trips that are expected (RFC 8289,
/// 4.3). CoDel's 100 ms are for the Internet; this is for ExpressRoute and regional paths. A flow with a
/// longer round trip may hear more than once before it can react, which TCP counts as one event.
pub const INTERVAL: Duration = Duration::from_millis(10);
/// A queue that stands again within so many intervals is told of at the rhythm it had come to (RFC 8289, 5.5).
const MEMORY: u32 = 16;

/// One source's queue as its reader sees it.
#[derive(Debug, Default)]
pub struct Backlog {
    /// The last round that left something in the queue, and since when every round has.
    left: Option<(u64, Instant)>,
    /// While senders are being told: when the next one is, and how many have been.
    telling: Option<(Instant, u32)>,
    /// When telling ended, and at which count.
    told: Option<(Instant, u32)>,
}

impl Backlog {
    /// After the source was read in a round: whether it had still more than the round's share.
    #[inline]
    pub fn seen(&mut self, round: u64, now: Instant, emptied: bool) {
        if emptied {
            if self.left.is_some() {
                self.end(now);
            }
            return;
        }
        self.left = match self.left {
            // A round in which the source had nothing at all stands between.
            Some((last, _)) if last + 1 != round => {
                self.end(now);
                Some((round, now))
            }
            Some((_, since)) => Some((round, since)),
            None => Some((round, now)),
        };
    }

    #[cold]
    fn end(&mut self, now: Instant) {
        self.left = None;
        if let Some((_, count)) = self.telling.take() {
            self.told = Some((now, count));
        }
    }

    /// Before the source is read in a round: whether one packet of it shall tell its sender to slow down.
    #[inline]
    pub fn is_due(&mut self, round: u64, now: Instant) -> bool {
        match self.left {
            Some((last, since)) if last + 1 == round && now >= since + INTERVAL => self.tell(now),
            _ => false,
        }
    }

    #[cold]
    fn tell(&mut self, now: Instant) -> bool {
        let count = match self.telling {
            Some((next, _)) if now < next => return false,
            Some((_, count)) => count + 1,
            None => match self.told {
                Some((at, count)) if now < at + INTERVAL * MEMORY && count > 2 => count - 2,
                _ => 1,
            },
        };
        let pause = INTERVAL.div_f64(f64::from(count).sqrt());
        self.telling = Some((now + pause, count));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of one interval.
    const ROUNDS: usize = 100;
    const ROUND: Duration = INTERVAL.checked_div(ROUNDS as u32).unwrap();

    /// Runs rounds of a hundredth of an interval; `emptied` says for each whether the queue was emptied. How often a
    /// sender was told.
    fn run(
        backlog: &mut Backlog,
        (now, round): (&mut Instant, &mut u64),
        emptied: impl Iterator<Item = bool>,
    ) -> usize {
        let mut told = 0;
        for emptied in emptied {
            *now += ROUND;
            *round += 1;
            told += usize::from(backlog.is_due(*round, *now));
            backlog.seen(*round, *now, emptied);
        }
        told
    }

    #[test]
    fn a_queue_that_is_empty_once_an_interval_is_left_alone() {
        let (mut now, mut round) = (Instant::now(), 0);
        let mut backlog = Backlog::default();
        let rounds = (0..100 * ROUNDS).map(|n| n % (ROUNDS - 1) == 0);
        assert_eq!(run(&mut backlog, (&mut now, &mut round), rounds), 0);
    }

    #[test]
    fn a_standing_queue_is_told_of_more_and_more_often() {
        let (mut now, mut round) = (Instant::now(), 0);
        let mut backlog = Backlog::default();
        let mut stand = |intervals: usize| {
            run(
                &mut backlog,
                (&mut now, &mut round),
                std::iter::repeat_n(false, intervals * ROUNDS),
            )
        };
        assert_eq!(stand(1), 0);
        let first = stand(5);
        let second = stand(5);
        assert!((5..30).contains(&first), "{first} in five intervals");
        assert!(second > first, "{second} after {first}");
    }

    #[test]
    fn a_round_without_anything_ends_it() {
        let now = Instant::now();
        let mut backlog = Backlog::default();
        backlog.seen(1, now, false);
        assert!(
            !backlog.is_due(3, now + 2 * INTERVAL),
            "round 2 had nothing"
        );
        backlog.seen(3, now + 2 * INTERVAL, false);
        assert!(!backlog.is_due(4, now + 2 * INTERVAL + ROUND));
        assert!(backlog.is_due(4, now + 3 * INTERVAL));
    }
}
