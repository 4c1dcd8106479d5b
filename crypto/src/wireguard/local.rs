//! Our own side, which all peers of an endpoint share.

use super::handshake::Pattern;
use super::index::Indices;
use super::mac::MacKeys;
use super::timer::MAX_JITTER;
use super::timestamp::{Calendar, WallClock};
use crate::key::{PrivateKey, PublicKey};
use crate::limiter::Limiter;
use crate::tunnel::PeerId;
use ring::rand::{SecureRandom, SystemRandom};
use std::sync::Arc;
use std::time::Duration;

/// See the module.
pub(super) struct Local {
    pub(super) private_key: PrivateKey,
    pub(super) public_key: PublicKey,
    /// What others write into their handshake messages to us.
    pub(super) macs: MacKeys,
    pub(super) pattern: Pattern,
    pub(super) calendar: Calendar,
    pub(super) indices: Indices,
    pub(super) limiter: Arc<Limiter>,
    pub(super) random: SystemRandom,
}

impl Local {
    pub(super) fn new(
        private_key: PrivateKey,
        limiter: Arc<Limiter>,
        worker: u8,
        clock: WallClock,
    ) -> Self {
        let public_key = private_key.public_key();
        Self {
            private_key,
            public_key,
            macs: MacKeys::of(&public_key),
            pattern: Pattern::new(0),
            calendar: Calendar::new(clock),
            indices: Indices::new(worker),
            limiter,
            random: SystemRandom::new(),
        }
    }

    /// Another identity from here on.
    pub(super) fn set_private_key(&mut self, private_key: PrivateKey) {
        self.public_key = private_key.public_key();
        self.macs = MacKeys::of(&self.public_key);
        self.private_key = private_key;
    }

    /// A new receiver index for `peer`.
    pub(super) fn claim_index(&mut self, peer: PeerId) -> Option<u32> {
        self.indices.claim(&self.random, peer)
    }

    /// A random part of [`MAX_JITTER`].
    pub(super) fn jitter(&self) -> Duration {
        let mut drawn = [0; 1];
        // Without random bytes there is no jitter; the handshake fails for the same reason anyway.
        let _ = self.random.fill(&mut drawn);
        MAX_JITTER * u32::from(drawn[0]) / u32::from(u8::MAX)
    }
}
