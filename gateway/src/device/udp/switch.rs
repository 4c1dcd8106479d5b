//! Remembers whether the kernel takes trains.

use std::sync::atomic::{AtomicU32, Ordering};

/// Whether trains are sent as such. A refusal stops that for 64 trains, another right after for 128, and so
/// on to 65,536, so that a kernel that never takes them costs no failing call each time, and one that only
/// stumbled is asked again. A socket has one, and so has the path to each peer.
#[derive(Debug, Default)]
pub struct TrainSwitch {
    /// Trains to send split until the next try.
    rest: AtomicU32,
    /// How many that were after the last refusal.
    pause: AtomicU32,
}

impl TrainSwitch {
    const FIRST_PAUSE: u32 = 64;
    const LAST_PAUSE: u32 = 65_536;

    /// Whether the next train goes as such; asked once for each train.
    #[inline]
    pub(super) fn ask(&self) -> bool {
        let rest = self.rest.load(Ordering::Relaxed);
        if rest > 0 {
            self.rest.store(rest - 1, Ordering::Relaxed);
        }
        rest == 0
    }

    /// The kernel has refused a train, and taken its datagrams.
    pub(super) fn refused(&self) {
        let pause = self
            .pause
            .load(Ordering::Relaxed)
            .saturating_mul(2)
            .clamp(Self::FIRST_PAUSE, Self::LAST_PAUSE);
        self.pause.store(pause, Ordering::Relaxed);
        self.rest.store(pause, Ordering::Relaxed);
    }

    /// The kernel has taken a train.
    #[inline]
    pub(super) fn taken(&self) {
        if self.pause.load(Ordering::Relaxed) != 0 {
            self.pause.store(0, Ordering::Relaxed);
        }
    }

    /// Nothing has been refused.
    pub(super) fn reset(&self) {
        self.pause.store(0, Ordering::Relaxed);
        self.rest.store(0, Ordering::Relaxed);
    }

    /// Whether trains are being sent split now, because the kernel has refused one.
    pub fn is_off(&self) -> bool {
        self.rest.load(Ordering::Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Trains until the next one goes as such.
    fn pause(switch: &TrainSwitch) -> u32 {
        let mut count = 0;
        while !switch.ask() {
            count += 1;
        }
        count
    }

    #[test]
    fn the_pause_doubles_with_each_refusal_and_ends_with_success() {
        let switch = TrainSwitch::default();
        assert_eq!(pause(&switch), 0);
        let mut wanted = TrainSwitch::FIRST_PAUSE;
        for _ in 0..12 {
            switch.refused();
            assert!(switch.is_off());
            assert_eq!(pause(&switch), wanted);
            wanted = (wanted * 2).min(TrainSwitch::LAST_PAUSE);
        }
        switch.taken();
        assert!(!switch.is_off());
        switch.refused();
        assert_eq!(pause(&switch), TrainSwitch::FIRST_PAUSE);
    }
}
