//! Several rounds as one figure, and figures of two contestants as one ratio.

use super::metric::Better;
use serde::Serialize;

/// A figure over the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Statistic {
    /// The middle one; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
    /// Of so many rounds.
    pub rounds: usize,
}

impl Statistic {
    /// Of these values; `None` of none. What is no number is left out.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let median = match middle.checked_sub(1).and_then(|below| sorted.get(below)) {
            Some(lower) if sorted.len().is_multiple_of(2) => f64::midpoint(*lower, upper),
            _ => upper,
        };
        Some(Self {
            median,
            min: *sorted.first()?,
            max: *sorted.last()?,
            rounds: sorted.len(),
        })
    }
}

/// How many times better `ours` is than `theirs`; `None` where one of them is nothing to divide by.
pub(super) fn times_better(better: Better, ours: f64, theirs: f64) -> Option<f64> {
    let (above, below) = match better {
        Better::More => (ours, theirs),
        Better::Less => (theirs, ours),
    };
    (above > 0.0 && below > 0.0).then(|| above / below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_and_the_range_around_it() {
        let three = Statistic::of([3.0, 1.0, 2.5]).unwrap();
        assert_eq!(
            three,
            Statistic {
                median: 2.5,
                min: 1.0,
                max: 3.0,
                rounds: 3
            }
        );
        let even = Statistic::of([4.0, 1.0, f64::NAN, 2.0, 3.0]).unwrap();
        assert_eq!(
            even,
            Statistic {
                median: 2.5,
                min: 1.0,
                max: 4.0,
                rounds: 4
            }
        );
        assert_eq!(Statistic::of([]), None);
        assert_eq!(Statistic::of([f64::INFINITY]), None);
    }

    #[test]
    fn above_one_is_better_whichever_way_the_figure_goes() {
        assert_eq!(times_better(Better::More, 5.0, 2.0), Some(2.5));
        assert_eq!(times_better(Better::Less, 2.0, 5.0), Some(2.5));
        assert_eq!(times_better(Better::Less, 0.0, 5.0), None);
        assert_eq!(times_better(Better::More, 1.0, 0.0), None);
    }
}
