//! What a wire does wrong, and what it has carried: words that the orchestrator and the wire's thread share.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the gateway to the provider edge.
    ToProvider,
    /// From the provider edge to the gateway.
    ToCustomer,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::ToProvider, Self::ToCustomer];
}

/// What a wire does wrong in one direction; all of it can be changed at any time.
#[derive(Debug, Default)]
pub struct Faults {
    pub(crate) silent: AtomicBool,
    pub(crate) loss: AtomicU32,
    pub(crate) duplication: AtomicU32,
    pub(crate) delay_us: AtomicU64,
}

impl Faults {
    /// Drops every frame while the carrier stays up.
    pub fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Relaxed);
    }

    /// Drops this share of the frames, 0 to 1; a super-packet is one frame.
    pub fn set_loss(&self, share: f64) {
        self.loss.store(per_2_to_32(share), Relaxed);
    }

    /// Sends this share of the frames twice, 0 to 1.
    pub fn set_duplication(&self, share: f64) {
        self.duplication.store(per_2_to_32(share), Relaxed);
    }

    /// Holds every frame back for so long.
    pub fn set_delay(&self, delay: Duration) {
        self.delay_us.store(delay.as_micros() as u64, Relaxed);
    }

    /// Everything in order again.
    pub fn clear(&self) {
        self.set_silent(false);
        self.set_loss(0.0);
        self.set_duplication(0.0);
        self.set_delay(Duration::ZERO);
    }
}

fn per_2_to_32(share: f64) -> u32 {
    (share.clamp(0.0, 1.0) * f64::from(u32::MAX)) as u32
}

/// Frames of one direction so far; a super-packet is one.
#[derive(Debug, Default)]
pub struct Carried {
    pub(crate) forwarded: AtomicU64,
    pub(crate) silenced: AtomicU64,
    pub(crate) foreign: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) overflowed: AtomicU64,
}

impl Carried {
    /// Written to the other end.
    pub fn forwarded(&self) -> u64 {
        self.forwarded.load(Relaxed)
    }

    /// Dropped by an injected fault.
    pub fn silenced(&self) -> u64 {
        self.silenced.load(Relaxed)
    }

    /// Dropped because their tags were not the circuit's.
    pub fn foreign(&self) -> u64 {
        self.foreign.load(Relaxed)
    }

    /// Dropped by the kernel because the wire did not read them in time.
    pub fn overflowed(&self) -> u64 {
        self.overflowed.load(Relaxed)
    }

    /// Dropped because the other end's interface would not take them.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }
}
