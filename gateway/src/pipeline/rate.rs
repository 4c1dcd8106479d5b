//! How often those who ask are answered: by ICMP errors of a worker's (RFC 1812, 4.3.2.8; RFC 4443, 2.4 f), and by the
//! gateway's own host.

use super::bucket::Bucket;
use routing::packet::FlowKey;
use std::time::Instant;

/// An asker gets at most one of so many parts of the rate and of the burst, so that one scanner does
/// not use up what others need to find their path MTU.
const SHARES: u32 = 8;
/// Askers are told apart by six bits of a hash; two that share a bucket share their part.
const ASKERS: usize = 64;

/// So many a second, and at once.
#[derive(Clone, Copy, Debug)]
struct Rate {
    /// Nanoseconds of one token.
    price: u64,
    /// Nanoseconds of a full bucket.
    depth: u64,
}

impl Rate {
    fn new(per_second: u32, burst: u32) -> Self {
        let price = 1_000_000_000 / u64::from(per_second.max(1));
        Self {
            price,
            depth: price * u64::from(burst.max(1)),
        }
    }
}

/// A token bucket for all, and one for each group of askers.
#[derive(Clone, Debug)]
pub struct RateLimit {
    of_all: Rate,
    of_each: Rate,
    all: Bucket,
    each: [Bucket; ASKERS],
    /// When it was first asked.
    began: Option<Instant>,
}

impl RateLimit {
    /// Full buckets: this many answers per second, this many at once. A zero counts as one.
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self {
            of_all: Rate::new(per_second, burst),
            of_each: Rate::new(per_second / SHARES, burst / SHARES),
            all: Bucket::default(),
            each: [Bucket::default(); ASKERS],
            began: None,
        }
    }

    /// Takes one token of all and one of the asker's, the source address of the packet that is
    /// answered; false, and none taken, if there is none. `now` only moves forward.
    pub fn allow(&mut self, now: Instant, key: &FlowKey) -> bool {
        // Fibonacci hashing; the high bits are the well mixed ones.
        let folded = (key.source ^ key.source >> 64) as u64;
        let bucket = (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize;
        let Some(asker) = self.each.get_mut(bucket) else {
            return false;
        };
        let began = *self.began.get_or_insert(now);
        // The epoch is long before: buckets begin full.
        let passed = now.saturating_duration_since(began).as_nanos() as u64;
        let now = passed.saturating_add(self.of_all.depth.max(self.of_each.depth));
        let (Rate { price, depth }, each) = (self.of_all, self.of_each);
        asker.has(now, each.depth, each.price) && self.all.has(now, depth, price) && {
            asker.take(now, each.depth, each.price);
            self.all.take(now, depth, price);
            true
        }
    }
}
