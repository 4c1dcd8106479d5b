//! When a worker that has found nothing looks again at once, and when it sleeps.
//!
//! A sleep costs latency and time on both sides: the sender's wake-up, the interrupt between cores, the
//! switch to the thread; measured, a ping through two gateways takes 3 to 4 times as long. A look costs a
//! system call that gives a waiting thread its turn. So an adaptive worker looks on as long as packets come
//! close behind each other, and sleeps as soon as they do not.

use crate::config::schema::Polling;
use std::time::{Duration, Instant};

/// How long an adaptive worker looks on after the last packet, and how far apart packets may be for it to do
/// so at all: about what a sleep and the wake-up after it would take.
const PATIENCE: Duration = Duration::from_micros(100);
/// The weight of the newest gap in the average is one in this.
const WEIGHT: u32 = 8;
/// A longer gap counts as this one, so that an average forgets an idle hour within a few packets.
const LONGEST_GAP: Duration = Duration::from_millis(1);

/// The judgement of one worker.
#[derive(Debug)]
pub struct Patience {
    polling: Polling,
    last_work: Instant,
    gap: Duration,
}

impl Patience {
    /// Of a worker that has had nothing to do yet.
    pub fn new(polling: Polling, now: Instant) -> Self {
        Self {
            polling,
            last_work: now,
            gap: LONGEST_GAP,
        }
    }

    /// After each round, which found packets or did not: whether to look again at once.
    #[inline]
    pub fn looks_on(&mut self, now: Instant, worked: bool) -> bool {
        match self.polling {
            Polling::Sleep => false,
            Polling::Spin => true,
            Polling::Adaptive => {
                let since = now.saturating_duration_since(self.last_work);
                if worked {
                    let newest = since.min(LONGEST_GAP);
                    self.gap = self.gap / WEIGHT * (WEIGHT - 1) + newest / WEIGHT;
                    self.last_work = now;
                    return self.gap < PATIENCE;
                }
                self.gap < PATIENCE && since < PATIENCE
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets this far apart: how many rounds ended with another look, of 100 rounds with a packet.
    fn looks(patience: &mut Patience, now: &mut Instant, gap: Duration) -> usize {
        (0..100)
            .filter(|_| {
                *now += gap;
                patience.looks_on(*now, true)
            })
            .count()
    }

    #[test]
    fn it_looks_on_under_traffic_and_sleeps_when_that_ends() {
        let mut now = Instant::now();
        let mut patience = Patience::new(Polling::Adaptive, now);
        assert_eq!(looks(&mut patience, &mut now, Duration::from_secs(1)), 0);
        assert!(looks(&mut patience, &mut now, Duration::from_micros(20)) > 70);
        assert!(patience.looks_on(now + PATIENCE / 2, false));
        assert!(!patience.looks_on(now + PATIENCE, false));
        assert!(looks(&mut patience, &mut now, Duration::from_millis(1)) < 3);
        assert!(!patience.looks_on(now, false));
    }

    #[test]
    fn the_other_two_do_as_they_are_told() {
        let now = Instant::now();
        assert!(!Patience::new(Polling::Sleep, now).looks_on(now, true));
        let mut spin = Patience::new(Polling::Spin, now);
        assert!(spin.looks_on(now + Duration::from_secs(9), false));
    }
}
