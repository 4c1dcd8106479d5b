//! The highest rate at which nothing to speak of is lost.
//!
//! 1. The rate doubles while it passes.
//! 2. Between the last that passed and the first that failed, the interval is halved until it is narrow.
//! 3. A rate fails when it fails twice in a row: on shared processors one pause of a process loses packets
//!    that say nothing of the rate.

/// Less than this share lost is nothing to speak of.
pub(super) const TOLERANCE: f64 = 0.001;
/// The first rate tried, packets per second.
const FIRST: u32 = 10_000;
/// No rate above this is tried.
const HIGHEST: u32 = 8_000_000;
/// Nor one below this.
const LOWEST: u32 = 100;
/// Passed and failed rates this close (their quotient) end the search.
const CLOSE: f64 = 1.05;
/// A sender that offers less than this share of what it was asked for is at its own limit.
const KEPT_UP: f64 = 0.95;

/// What one trial showed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trial {
    /// Packets per second that were really sent.
    pub(super) offered: f64,
    /// The share that was lost, 0 to 1.
    pub(super) loss: f64,
}

/// What the search found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Found {
    /// Packets per second; 0 if even the lowest rate loses some.
    pub(super) rate: f64,
    /// Whether the sender could not send more: then the true rate is higher.
    pub(super) sender_at_limit: bool,
}

/// Searches by `trial`, which sends at a rate, packets per second.
pub(super) fn zero_loss<E>(mut trial: impl FnMut(u32) -> Result<Trial, E>) -> Result<Found, E> {
    let mut found = Found::default();
    let (mut passed, mut failed) = (0, None);
    let mut next = Some(FIRST);
    while let Some(rate) = next {
        let outcome = match trial(rate)? {
            first if first.loss < TOLERANCE => first,
            _ => trial(rate)?,
        };
        let kept_up = outcome.offered >= KEPT_UP * f64::from(rate);
        if outcome.loss < TOLERANCE {
            found.rate = found.rate.max(outcome.offered);
        }
        if outcome.loss < TOLERANCE && kept_up {
            passed = rate;
        } else {
            // A rate that is not reached is the end as well, though nobody lost anything.
            found.sender_at_limit = outcome.loss < TOLERANCE;
            failed = Some(rate);
        }
        next = following(passed, failed);
    }
    Ok(found)
}

/// The rate to try next, if any.
fn following(passed: u32, failed: Option<u32>) -> Option<u32> {
    let Some(failed) = failed else {
        return (passed < HIGHEST).then(|| passed.saturating_mul(2).min(HIGHEST));
    };
    let narrow = f64::from(failed) <= CLOSE * f64::from(passed);
    (!narrow && failed > LOWEST).then(|| u32::midpoint(passed, failed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// A way that carries so many packets a second, and a sender that sends so many.
    fn search(carries: f64, sends: f64) -> (Found, u32) {
        let mut trials = 0;
        let found = zero_loss(|rate| {
            trials += 1;
            let offered = f64::from(rate).min(sends);
            let loss = (1.0 - carries / offered).max(0.0);
            Ok::<_, Infallible>(Trial { offered, loss })
        });
        (found.unwrap(), trials)
    }

    #[test]
    fn the_rate_is_found_within_five_percent_and_few_trials() {
        for carries in [150.0, 3_000.0, 12_345.0, 73_800.0, 129_000.0, 1_900_000.0] {
            let (found, trials) = search(carries, f64::MAX);
            assert!(found.rate <= carries * (1.0 + TOLERANCE), "{found:?}");
            assert!(found.rate >= carries / 1.06, "{carries}: {found:?}");
            assert!(!found.sender_at_limit && trials <= 30, "{found:?} {trials}");
        }
    }

    #[test]
    fn a_sender_at_its_limit_is_told_from_a_loss() {
        let (found, trials) = search(f64::MAX, 500_000.0);
        assert!(found.sender_at_limit && trials <= 30, "{found:?} {trials}");
        assert!((found.rate - 500_000.0).abs() < 1.0, "{found:?}");
    }

    #[test]
    fn nothing_passes_where_everything_is_lost() {
        assert_eq!(search(0.0, f64::MAX).0, Found::default());
    }

    #[test]
    fn one_accident_does_not_fail_a_rate() {
        let mut trials = 0;
        let found = zero_loss(|rate| {
            trials += 1;
            let accident = trials % 2 == 1;
            let loss = if accident || rate > 100_000 { 0.5 } else { 0.0 };
            let offered = f64::from(rate);
            Ok::<_, Infallible>(Trial { offered, loss })
        });
        assert!(found.unwrap().rate > 94_000.0, "{found:?}");
    }

    #[test]
    fn an_error_ends_the_search() {
        assert_eq!(zero_loss(|_| Err::<Trial, _>("broken")), Err("broken"));
    }
}
