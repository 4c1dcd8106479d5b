//! Queues that stand: TCP fills whatever queue there is, and what passes beside it waits as long. So senders are told to
//! slow down before the queue is full, by a mark or by the loss of one packet, in CoDel's rhythm (RFC 8289): the first
//! once the queue has not been short for an interval, the next ones after `interval / sqrt(count)`, until it has been.
//!
//! CoDel measures how long each packet has waited. Here the queue's length in what its rate takes says the same, and says
//! it also of a super-packet that takes a slow rate longer than the target to send.

use super::bounds::Bounds;

/// How long a queue may stand, nanoseconds; as long as those of devices may (`worker::backlog`).
const INTERVAL: u64 = 10_000_000;
/// A queue that stands again within so many intervals is told of at the rhythm it had come to (RFC 8289, 5.5).
const MEMORY: u64 = 16;
/// The part of its bounds, which are 5 ms of its rate, up to which a queue is short: 1 ms.
const SHORT: u64 = 5;
/// And never less than this: what TCP sends at once where the rate is low (`tcp_tso_autosize`), and small packets.
const LEAST: Bounds = Bounds {
    bytes: 32_768,
    packets: 32,
};

/// One queue's standing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delay {
    /// Since when it has not been short.
    long_since: Option<u64>,
    /// While senders are being told: when the next one is, and how many have been.
    telling: Option<(u64, u32)>,
    /// When telling ended, and at which count.
    told: Option<(u64, u32)>,
}

impl Delay {
    /// Before a packet leaves a queue that holds so much: whether its sender is to be told. `now` in nanoseconds.
    #[inline]
    pub(super) fn is_due(&mut self, now: u64, held: Bounds, bounds: Bounds) -> bool {
        let short = |held: u64, bound: u64, least: u64| held <= (bound / SHORT).max(least);
        if short(held.bytes, bounds.bytes, LEAST.bytes)
            && short(held.packets, bounds.packets, LEAST.packets)
        {
            self.is_short(now);
            return false;
        }
        let since = *self.long_since.get_or_insert(now);
        let next = self.telling.map_or(since + INTERVAL, |(next, _)| next);
        now >= next
    }

    /// A sender has been told.
    #[cold]
    pub(super) fn has_told(&mut self, now: u64) {
        let count = match (self.telling, self.told) {
            (Some((_, count)), _) => count.saturating_add(1),
            (None, Some((at, count))) if now < at + INTERVAL * MEMORY && count > 2 => count - 2,
            (None, _) => 1,
        };
        let pause = INTERVAL as f64 / f64::from(count).sqrt();
        self.telling = Some((now + pause as u64, count));
    }

    /// The queue is short, or empty.
    #[inline]
    pub(super) fn is_short(&mut self, now: u64) {
        if self.long_since.take().is_some()
            && let Some((_, count)) = self.telling.take()
        {
            self.told = Some((now, count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        bytes: 625_000,
        packets: 10_000,
    };

    /// Looks every 100 us for so long at a queue that holds so many bytes; how often a sender was told.
    fn told(delay: &mut Delay, now: &mut u64, milliseconds: u64, bytes: u64) -> usize {
        let mut told = 0;
        for _ in 0..milliseconds * 10 {
            *now += 100_000;
            let held = Bounds { bytes, packets: 1 };
            if delay.is_due(*now, held, BOUNDS) {
                delay.has_told(*now);
                told += 1;
            }
        }
        told
    }

    #[test]
    fn a_queue_is_told_of_once_it_stands_and_more_and_more_often() {
        let (mut delay, mut now) = (Delay::default(), 0);
        assert_eq!(told(&mut delay, &mut now, 1_000, 125_000), 0, "1 ms");
        assert_eq!(told(&mut delay, &mut now, 9, 126_000), 0);
        let first = told(&mut delay, &mut now, 50, 126_000);
        let second = told(&mut delay, &mut now, 50, 126_000);
        assert!((5..30).contains(&first), "{first} in five intervals");
        assert!(second > first, "{second} after {first}");
        // Short for a moment: it begins anew, and soon where it was.
        told(&mut delay, &mut now, 1, 0);
        assert_eq!(told(&mut delay, &mut now, 9, 126_000), 0);
        assert!(told(&mut delay, &mut now, 50, 126_000) > first);
    }

    #[test]
    fn slow_queues_may_hold_what_is_sent_at_once() {
        let (mut delay, mut now) = (Delay::default(), 0);
        let slow = Bounds {
            bytes: 131_000,
            packets: 256,
        };
        for _ in 0..1_000 {
            now += 100_000;
            let held = Bounds {
                bytes: 32_000,
                packets: 22,
            };
            assert!(!delay.is_due(now, held, slow));
        }
    }
}
