//! TAI64N timestamps: what an initiation carries so that an old one cannot be played again
//! (whitepaper, 5.1; <https://cr.yp.to/libtai/tai64.html>).

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// 8 bytes of seconds and 4 of nanoseconds, big endian: their order is the order of time.
pub(super) const TIMESTAMP_LEN: usize = 12;
pub(super) type Timestamp = [u8; TIMESTAMP_LEN];

/// TAI64's label of the second 1970-01-01 00:00:00 TAI, and TAI's lead of 10 s at the Unix epoch.
const TAI64_UNIX_EPOCH: u64 = (1 << 62) + 10;

/// Nanoseconds are cut to multiples of 2^24 (16.8 ms), as Linux does: the fine grain would tell others
/// about this machine's clock and load, and a peer takes 50 initiations a second at most anyway.
const GRAIN: u32 = 1 << 24;

/// Tells the time of day, as it stands corrected when it is asked: once for each initiation. A machine may start
/// years off and set its clock later; whoever counted on from the start would be refused everywhere after the
/// peers had heard the right time once. The engine itself reads no clock.
pub type WallClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Gives timestamps that only ever grow, whichever way the clock is set.
#[derive(Clone)]
pub(super) struct Calendar {
    clock: WallClock,
    /// The last one given, in grains since the Unix epoch.
    last: u64,
}

impl Calendar {
    pub(super) const fn new(clock: WallClock) -> Self {
        Self { clock, last: 0 }
    }

    /// The timestamp of this moment, later than all given before.
    pub(super) fn timestamp(&mut self) -> Timestamp {
        let since_epoch = (self.clock)()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        // 60 grains a second (59.6): a timestamp as one number, so that it can be made to grow.
        let grain = u64::from(since_epoch.subsec_nanos() / GRAIN);
        let grains = since_epoch
            .as_secs()
            .saturating_mul(GRAINS)
            .saturating_add(grain);
        self.last = grains.max(self.last.saturating_add(1));
        let seconds = TAI64_UNIX_EPOCH.saturating_add(self.last / GRAINS);
        let nanoseconds = (self.last % GRAINS) as u32 * GRAIN;
        let mut timestamp = [0; TIMESTAMP_LEN];
        let (head, tail) = timestamp.split_at_mut(8);
        head.copy_from_slice(&seconds.to_be_bytes());
        tail.copy_from_slice(&nanoseconds.to_be_bytes());
        timestamp
    }
}

impl fmt::Debug for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calendar")
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

/// Grains of one second, the last one cut short: ceil(10^9 / 2^24).
const GRAINS: u64 = 1_000_000_000_u64.div_ceil(GRAIN as u64);

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Mutex;

    /// A clock that stands still until it is set.
    #[derive(Clone)]
    struct Hands(Arc<Mutex<SystemTime>>);

    impl Hands {
        fn at(seconds: u64, nanoseconds: u32) -> Self {
            let time = UNIX_EPOCH + Duration::new(seconds, nanoseconds);
            Self(Arc::new(Mutex::new(time)))
        }

        fn calendar(&self) -> Calendar {
            let hands = self.clone();
            Calendar::new(Arc::new(move || *hands.0.lock().unwrap()))
        }

        fn set(&self, time: SystemTime) {
            *self.0.lock().unwrap() = time;
        }
    }

    fn seconds(timestamp: Timestamp) -> u64 {
        u64::from_be_bytes(timestamp[..8].try_into().unwrap()) - 0x4000_0000_0000_000a
    }

    #[test]
    fn the_label_is_tai64s_and_the_fine_grain_is_cut() {
        let timestamp = Hands::at(1_700_000_000, 999_999_999).calendar().timestamp();
        let label = u64::from_be_bytes(timestamp[..8].try_into().unwrap());
        assert_eq!(label, 0x4000_0000_0000_000a + 1_700_000_000);
        let nanoseconds = u32::from_be_bytes(timestamp[8..].try_into().unwrap());
        assert_eq!(nanoseconds, 0x3b00_0000);
    }

    #[test]
    fn timestamps_grow_even_if_time_stands_still() {
        let hands = Hands::at(1_700_000_000, 990_000_000);
        let mut calendar = hands.calendar();
        let mut last = [0; TIMESTAMP_LEN];
        for step in 0..500 {
            let timestamp = calendar.timestamp();
            assert!(timestamp > last, "step {step}");
            assert!(u32::from_be_bytes(timestamp[8..].try_into().unwrap()) < 1_000_000_000);
            last = timestamp;
        }
        hands.set(UNIX_EPOCH + Duration::from_secs(1_700_000_060));
        assert_eq!(seconds(calendar.timestamp()), 1_700_000_060);
    }

    #[test]
    fn a_clock_that_is_set_counts_from_the_next_initiation_on_and_never_backwards() {
        const YEARS: u64 = 3 * 365 * 86_400;
        let right = 1_800_000_000;
        let hands = Hands::at(right - YEARS, 0);
        let mut calendar = hands.calendar();
        assert_eq!(seconds(calendar.timestamp()), right - YEARS);
        hands.set(UNIX_EPOCH + Duration::from_secs(right));
        let corrected = calendar.timestamp();
        assert_eq!(seconds(corrected), right);
        // Set back: the peer has heard the later time, and takes nothing older.
        hands.set(UNIX_EPOCH + Duration::from_secs(right - YEARS));
        let mut last = corrected;
        for _ in 0..100 {
            let next = calendar.timestamp();
            assert!(next > last);
            assert!(seconds(next) <= right + 2);
            last = next;
        }
    }

    #[test]
    fn a_calendar_before_1970_does_no_harm() {
        let hands = Hands::at(0, 0);
        hands.set(UNIX_EPOCH - Duration::from_secs(5));
        assert_eq!(seconds(hands.calendar().timestamp()), 0);
    }
}
