//! What the lab's own wires cost the packets that cross them: they are threads, which no provider's circuit is.

use crate::fault::Direction;
use crate::lab::Lab;
use serde::Serialize;
use std::fs;

/// What the threads of both wires did over a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Wires {
    /// Frames that they carried.
    pub packets: u64,
    /// How often they were given a processor.
    pub runs: u64,
    /// Processor time of a frame, microseconds; 0 without frames.
    pub cpu_us_per_packet: f64,
}

/// Counts since the lab began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    packets: u64,
    runs: u64,
    nanoseconds: u64,
}

impl Counts {
    pub(super) fn now(lab: &Lab) -> Self {
        let wires = lab.wires.iter();
        let carried =
            wires.flat_map(|wire| Direction::BOTH.map(|way| wire.carried(way).forwarded()));
        let mut counts = Self {
            packets: carried.sum(),
            ..Self::default()
        };
        let tasks = fs::read_dir("/proc/self/task").into_iter().flatten();
        for task in tasks.flatten() {
            let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            if read("comm").starts_with("wire-") {
                let (nanoseconds, runs) = schedule(&read("schedstat"));
                counts.nanoseconds += nanoseconds;
                counts.runs += runs;
            }
        }
        counts
    }

    /// What was done since then.
    pub(super) fn since(self, before: Self) -> Wires {
        let packets = self.packets.saturating_sub(before.packets);
        let nanoseconds = self.nanoseconds.saturating_sub(before.nanoseconds);
        Wires {
            packets,
            runs: self.runs.saturating_sub(before.runs),
            cpu_us_per_packet: nanoseconds as f64 / 1e3 / packets.max(1) as f64,
        }
    }
}

/// A thread's processor time, nanoseconds, and how often it ran: the first and the third number of
/// `schedstat` (Documentation/scheduler/sched-stats.rst).
fn schedule(text: &str) -> (u64, u64) {
    let mut numbers = text
        .split_ascii_whitespace()
        .map(|word| word.parse().unwrap_or(0));
    let nanoseconds = numbers.next().unwrap_or(0);
    (nanoseconds, numbers.nth(1).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_has_time_and_runs() {
        assert_eq!(schedule("123456 789 42\n"), (123_456, 42));
        assert_eq!(schedule(""), (0, 0));
    }
}
