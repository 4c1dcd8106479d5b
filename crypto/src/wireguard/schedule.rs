//! Who has something due, without asking every peer: the deadlines of all peers in one heap.
//!
//! A packet moves deadlines all the time, and mostly puts them off. So the heap is lazy: a deadline that is
//! put off stays where it is, and whoever comes up too early is asked again when it comes up. A peer is pushed
//! anew only when it wants to be called earlier than it would be. So a packet costs a comparison, and
//! 10,000 busy peers cost as many calls as they have deadlines.

use crate::tunnel::PeerId;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// Deadlines are served this far apart at least: with 10,000 busy peers some deadline comes every half
/// millisecond, and none minds being 10 ms late.
const INTERVAL: Duration = Duration::from_millis(10);

/// When a peer is called next: its newest place in the heap. Older ones are passed over.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scheduled(Option<Instant>);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    heap: BinaryHeap<Reverse<(Instant, PeerId)>>,
    /// When deadlines were last served.
    served: Option<Instant>,
}

impl Schedule {
    /// When somebody is to be called at the latest.
    #[inline]
    pub(super) fn deadline(&self) -> Option<Instant> {
        let Reverse((first, _)) = *self.heap.peek()?;
        Some(
            self.served
                .map_or(first, |served| first.max(served + INTERVAL)),
        )
    }

    /// Sees to it that `peer` is called at `at` at the latest.
    #[inline]
    pub(super) fn arm(&mut self, peer: PeerId, scheduled: &mut Scheduled, at: Option<Instant>) {
        if let Some(at) = at
            && scheduled.0.is_none_or(|known| at < known)
        {
            *scheduled = Scheduled(Some(at));
            self.heap.push(Reverse((at, peer)));
        }
    }

    /// Whether somebody is due; then [`Schedule::next`] says who.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let is_due = self.deadline().is_some_and(|at| at <= now);
        if is_due {
            self.served = Some(now);
        }
        is_due
    }

    /// The next one that may be due, and when it was to be called.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Instant, PeerId)> {
        let Reverse(first) = *self.heap.peek()?;
        if first.0 > now {
            return None;
        }
        self.heap.pop();
        Some(first)
    }

    /// Arms one that has been called, never so that it comes up again in the same round.
    pub(super) fn arm_again(
        &mut self,
        now: Instant,
        peer: PeerId,
        scheduled: &mut Scheduled,
        at: Option<Instant>,
    ) {
        self.arm(peer, scheduled, at.map(|at| at.max(now + INTERVAL)));
    }
}

impl Scheduled {
    /// Whether a place in the heap is the peer's newest; then it is free to be armed again.
    pub(super) fn take(&mut self, at: Instant) -> bool {
        let is_newest = self.0 == Some(at);
        if is_newest {
            self.0 = None;
        }
        is_newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_is_called_at_its_earliest_deadline_and_once() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        let mut known = [Scheduled::default(); 2];
        let at = |seconds: u32| Some(start + SECOND * seconds);
        schedule.arm(PeerId(0), &mut known[0], at(30));
        schedule.arm(PeerId(1), &mut known[1], at(20));
        schedule.arm(PeerId(0), &mut known[0], at(10));
        schedule.arm(PeerId(0), &mut known[0], at(15));
        assert_eq!(schedule.deadline(), at(10));
        let mut called = Vec::new();
        for second in 0..40 {
            let now = start + SECOND * second;
            if !schedule.begin(now) {
                continue;
            }
            while let Some((at, peer)) = schedule.next(now) {
                if known[usize::from(peer.0)].take(at) {
                    called.push((second, peer.0));
                }
            }
        }
        assert_eq!(called, [(10, 0), (20, 1)]);
        assert_eq!(schedule.deadline(), None);
    }

    #[test]
    fn deadlines_that_are_put_off_do_not_fill_the_heap() {
        let mut now = Instant::now();
        let mut schedule = Schedule::default();
        let mut scheduled = Scheduled::default();
        for _ in 0..100_000 {
            now += Duration::from_millis(1);
            schedule.arm(PeerId(0), &mut scheduled, Some(now + 10 * SECOND));
            schedule.begin(now);
            while let Some((at, peer)) = schedule.next(now) {
                if scheduled.take(at) {
                    schedule.arm_again(now, peer, &mut scheduled, Some(now + 10 * SECOND));
                }
            }
            assert!(schedule.heap.len() <= 2, "{}", schedule.heap.len());
        }
    }
}
