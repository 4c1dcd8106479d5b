//! Lanes: several sessions of one site side by side, each on a port of its own and each with an owner of its
//! own, so that one connection uses all cores.
//!
//! | lane | port, here and there | sockets | owner |
//! |---|---|---|---|
//! | 0 | the base port | all workers', steered by the receiver index | the first worker; of a site with one lane any |
//! | 1 and more | that many above | its own | worker `lane` modulo the number of workers |
//!
//! The kernel has shared flows out over the workers; each sends on a lane that it owns itself, so nothing
//! crosses over and a flow keeps its order. A worker without a lane of a site hands its packets to one that has
//! one. A lane that carries nothing ([`Liveness`]) has its packets handed to lane 0 until it does.

use crypto::tunnel::Status;
use std::time::{Duration, Instant};

/// The worker that owns lane 0 of every site with several lanes.
pub const FIRST_OWNER: usize = 0;

/// How long a lane's handshake may go unanswered before its packets go elsewhere: one attempt
/// (REKEY_TIMEOUT is 5 s) and a bit.
const UNANSWERED: Duration = Duration::from_secs(6);

/// The lanes of one site that one worker owns: places in its row of ports, place 0 being the base port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lanes {
    /// The first place.
    pub first: u8,
    /// How many places there are, side by side.
    pub count: u8,
}

impl Lanes {
    /// Of a site that has one lane only, for its owner.
    pub const ONE: Self = Self { first: 0, count: 1 };

    /// The place of a flow. `hash` is asked only if there is a choice.
    #[inline]
    pub fn place(self, hash: impl FnOnce() -> u64) -> usize {
        let further = if self.count > 1 {
            // The upper half: the members of a path group are told apart by all of it, evenly.
            (hash() >> 32) % u64::from(self.count)
        } else {
            0
        };
        usize::from(self.first) + further as usize
    }
}

/// The lanes above 0 that this worker owns, of sites with at most `most` lanes, in the order of their ports.
pub fn owned(worker: usize, workers: usize, most: u8) -> impl Iterator<Item = u8> {
    (1..most).filter(move |lane| usize::from(*lane) % workers.max(1) == worker)
}

/// Whether a lane carries packets, by what its engine says of it now and then.
#[derive(Clone, Copy, Debug, Default)]
pub struct Liveness {
    beats: bool,
}

impl Liveness {
    /// Whether the lane carries packets.
    #[inline]
    pub fn is_alive(&self) -> bool {
        self.beats
    }

    /// Looks at the engine's word. If handshakes have gone unanswered for too long, whatever session there still
    /// is leads nowhere; the next one that is completed ends that.
    pub fn observe(&mut self, now: Instant, status: &Status) {
        let is_lost = status
            .handshaking
            .is_some_and(|since| now.saturating_duration_since(since) >= UNANSWERED);
        self.beats = status.has_session && !is_lost;
    }
}

/// The worker that owns the tunnel of the site that has this place among the tunnels' paths; with several lanes,
/// lane 0.
pub(crate) fn owner(place: usize, lanes: usize, workers: usize) -> usize {
    if lanes > 1 {
        FIRST_OWNER
    } else {
        place % workers.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_that_is_not_answered_is_lost_until_the_next_handshake() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut status = Status::default();
        let mut liveness = Liveness::default();
        liveness.observe(start, &status);
        assert!(!liveness.is_alive(), "no session yet");
        (status.has_session, status.handshakes) = (true, 1);
        liveness.observe(at(1), &status);
        assert!(liveness.is_alive());
        status.handshaking = Some(at(20));
        for seconds in 20..26 {
            liveness.observe(at(seconds), &status);
            assert!(liveness.is_alive(), "{seconds}");
        }
        liveness.observe(at(26), &status);
        assert!(!liveness.is_alive());
        // The engine has given up; its session is as dead as before.
        liveness.observe(at(110), &status);
        assert!(!liveness.is_alive());
        (status.handshakes, status.handshaking) = (2, None);
        liveness.observe(at(111), &status);
        assert!(liveness.is_alive());
    }
}
