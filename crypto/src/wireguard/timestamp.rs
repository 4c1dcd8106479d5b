//! TAI64N timestamps: what an initiation carries so that an old one cannot be played again
//! (whitepaper, 5.1; <https://cr.yp.to/libtai/tai64.html>).

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// 8 bytes of seconds and 4 of nanoseconds, big endian: their order is the order of time.
pub(super) const TIMESTAMP_LEN: usize = 12;
pub(super) type Timestamp = [u8; TIMESTAMP_LEN];

/// TAI64's label of the second 1970-01-01 00:00:00 TAI, and TAI's lead of 10 s at the Unix epoch.
const TAI64_UNIX_EPOCH: u64 = (1 << 62) + 10;

/// Nanoseconds are cut to multiples of 2^24 (16.8 ms), as Linux does: the fine grain would tell others
/// about this machine's clock and load, and a peer takes 50 initiations a second at most anyway.
const GRAIN: u32 = 1 << 24;

/// What ties the monotonic clock to the calendar: one moment as both tell it. The engine itself reads
/// neither.
#[derive(Clone, Copy, Debug)]
pub struct Epoch {
    /// The moment, on the monotonic clock.
    pub instant: Instant,
    /// The same moment by the calendar.
    pub calendar: SystemTime,
}

/// Gives timestamps that only ever grow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calendar {
    epoch: Epoch,
    /// The last one given, in grains since the Unix epoch.
    last: u64,
}

impl Calendar {
    pub(super) const fn new(epoch: Epoch) -> Self {
        Self { epoch, last: 0 }
    }

    /// The timestamp of `now`, later than all given before.
    pub(super) fn timestamp(&mut self, now: Instant) -> Timestamp {
        let since_epoch = self
            .epoch
            .calendar
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO)
            .saturating_add(now.saturating_duration_since(self.epoch.instant));
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

/// Grains of one second, the last one cut short: ceil(10^9 / 2^24).
const GRAINS: u64 = 1_000_000_000_u64.div_ceil(GRAIN as u64);

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(seconds: u64, nanoseconds: u32) -> Epoch {
        Epoch {
            instant: Instant::now(),
            calendar: UNIX_EPOCH + Duration::new(seconds, nanoseconds),
        }
    }

    #[test]
    fn the_label_is_tai64s_and_the_fine_grain_is_cut() {
        let at = epoch(1_700_000_000, 999_999_999);
        let timestamp = Calendar::new(at).timestamp(at.instant);
        let seconds = u64::from_be_bytes(timestamp[..8].try_into().unwrap());
        assert_eq!(seconds, 0x4000_0000_0000_000a + 1_700_000_000);
        let nanoseconds = u32::from_be_bytes(timestamp[8..].try_into().unwrap());
        assert_eq!(nanoseconds, 0x3b00_0000);
    }

    #[test]
    fn timestamps_grow_even_if_time_stands_still() {
        let at = epoch(1_700_000_000, 990_000_000);
        let mut calendar = Calendar::new(at);
        let mut last = [0; TIMESTAMP_LEN];
        for step in 0..500 {
            let timestamp = calendar.timestamp(at.instant + Duration::from_millis(step / 100));
            assert!(timestamp > last, "step {step}");
            assert!(u32::from_be_bytes(timestamp[8..].try_into().unwrap()) < 1_000_000_000);
            last = timestamp;
        }
        let later = calendar.timestamp(at.instant + Duration::from_mins(1));
        assert_eq!(
            later[..8],
            (0x4000_0000_0000_000a_u64 + 1_700_000_060).to_be_bytes()
        );
    }

    #[test]
    fn a_calendar_before_1970_does_no_harm() {
        let at = Epoch {
            instant: Instant::now(),
            calendar: UNIX_EPOCH - Duration::from_secs(5),
        };
        let timestamp = Calendar::new(at).timestamp(at.instant);
        assert_eq!(timestamp[..8], 0x4000_0000_0000_000a_u64.to_be_bytes());
    }
}
