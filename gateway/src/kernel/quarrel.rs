//! How often the same thing is put back, before another program that takes it away each time is left alone.

use std::time::{Duration, Instant};

/// How often something may be put back within [`PERIOD`]. More is a quarrel with another program.
const REPAIRS: u32 = 12;
const PERIOD: Duration = Duration::from_mins(1);

/// How long a quarrel rests until it is tried again; it doubles from the first to the second.
const REST: [Duration; 2] = [Duration::from_mins(1), Duration::from_mins(10)];

/// Bounds how often the same thing is put back.
#[derive(Debug, Default)]
pub(super) struct Quarrel {
    begun: Option<Instant>,
    repairs: u32,
    rest: Duration,
    /// Nothing is put back until then.
    pub(super) until: Option<Instant>,
}

impl Quarrel {
    /// Whether something may be put back now.
    pub(super) fn allows(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }

    /// Something was put back. True if that was once too often.
    pub(super) fn repaired(&mut self, now: Instant) -> bool {
        if self
            .begun
            .is_none_or(|begun| now.saturating_duration_since(begun) > PERIOD)
        {
            (self.begun, self.repairs) = (Some(now), 0);
        }
        self.repairs += 1;
        let rested = self.until.take().is_some();
        if !rested && self.repairs < REPAIRS {
            return false;
        }
        let [first, longest] = REST;
        self.rest = if rested {
            (self.rest * 2).min(longest)
        } else {
            first
        };
        self.until = Some(now + self.rest);
        (self.begun, self.repairs) = (None, 0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarrel_ends_in_longer_and_longer_rests() {
        let mut quarrel = Quarrel::default();
        let mut now = Instant::now();
        let repairs = (0..100).take_while(|_| !quarrel.repaired(now)).count();
        assert_eq!(repairs as u32 + 1, REPAIRS);
        let mut rests = Vec::new();
        for _ in 0..6 {
            assert!(!quarrel.allows(now));
            let until = quarrel.until.unwrap();
            rests.push((until - now).as_secs());
            now = until;
            assert!(quarrel.allows(now));
            assert!(quarrel.repaired(now), "it goes on at once");
        }
        assert_eq!(rests, [60, 120, 240, 480, 600, 600]);
    }

    #[test]
    fn what_is_put_back_now_and_then_is_no_quarrel() {
        let mut quarrel = Quarrel::default();
        let now = Instant::now();
        for minute in 0..100 {
            assert!(!quarrel.repaired(now + PERIOD * 2 * minute));
        }
    }
}
