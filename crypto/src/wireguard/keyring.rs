//! The sessions of one peer, and how they take turns (whitepaper, 6.3 and 6.4).
//!
//! ```text
//! we answered:  next ---- first packet on it ----+
//!                                                +--> current ----> retired (four)
//! we began:     response ------------------------+
//! ```
//! Packets are sealed with `current` only, and opened with all of them. An answered session waits in
//! `next`: not before a packet arrives on it does the initiator have its keys for sure. A retired one
//! opens what is still on its way, until it expires: so a renewal loses nothing.
//!
//! Both ends may begin at the same moment: then there are two sessions, each end has begun one and answered
//! the other. Each seals with its own at once, and one end yields: it moves to the other's session with the
//! first packet on it. So one of them is the initiator from then on, and only that one renews. A peer that
//! does not know this rule keeps to its own session, and both renew in step, with two new sessions each
//! time. They live 180 s and are renewed after 120 s, so there are four, one of them in `current`: three
//! retired places are needed. The fourth is for one that waited in vain.

use super::session::Session;
use super::timer::REKEY_TIMEOUT;
use std::time::Instant;

const RETIRED: usize = 4;
/// Most sessions of one peer at the same time: in use, waiting, retired.
pub(super) const MOST_SESSIONS: usize = 2 + RETIRED;

/// What to do with an answered session that waits while the response to our own initiation comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// The peer may use it for a while, but ours is the one that stays.
    Retires,
    /// We yield: it is in use as soon as a packet arrives on it.
    Stays,
}

/// See the module.
#[derive(Default)]
pub(super) struct Keyring {
    current: Option<Box<Session>>,
    next: Option<Box<Session>>,
    /// The younger one first.
    retired: [Option<Box<Session>>; RETIRED],
}

/// A session that is no more; its index is to be given back.
pub(super) type Gone = Option<Box<Session>>;

impl Keyring {
    /// The session to seal with.
    #[inline]
    pub(super) fn current(&mut self) -> Option<&mut Session> {
        self.current.as_deref_mut()
    }

    /// When the session in use was established.
    pub(super) fn current_since(&self) -> Option<Instant> {
        self.current.as_ref().map(|session| session.established)
    }

    /// When the session was established that waits for its first packet.
    pub(super) fn next_since(&self) -> Option<Instant> {
        self.next.as_ref().map(|session| session.established)
    }

    /// The session with this index.
    #[inline]
    pub(super) fn find(&mut self, local_index: u32) -> Option<&mut Session> {
        [&mut self.current, &mut self.next]
            .into_iter()
            .chain(&mut self.retired)
            .flatten()
            .find(|session| session.local_index == local_index)
            .map(|session| &mut **session)
    }

    /// Whether the session with this index waits for its first packet.
    #[inline]
    pub(super) fn is_next(&self, local_index: u32) -> bool {
        self.next
            .as_ref()
            .is_some_and(|next| next.local_index == local_index)
    }

    /// The first packet on `next` has authenticated: it is in use from now on.
    pub(super) fn confirm(&mut self) -> Gone {
        let mut next = self.next.take()?;
        // We began one at about the same moment. If datagrams overtook each other, the peer may have moved
        // to that one just now: then neither end is the initiator of what it seals with.
        if self.current.as_ref().is_some_and(|current| {
            let (one, other) = (current.established, next.established);
            current.is_ours() && one.max(other) - one.min(other) < REKEY_TIMEOUT
        }) {
            next.renew_before_the_end();
        }
        let current = self.current.replace(next);
        self.retire(current)
    }

    /// The response to our initiation came: its session is in use at once. One that waits, because both
    /// ends began, is treated as `waiting` says.
    pub(super) fn begun(&mut self, session: Box<Session>, waiting: Waiting) -> [Gone; 2] {
        let current = self.current.replace(session);
        let gone = self.retire(current);
        let waited = match waiting {
            Waiting::Retires => self.next.take(),
            Waiting::Stays => None,
        };
        [gone, self.retire(waited)]
    }

    /// We answered an initiation: the session waits for its first packet. One that waited in vain retires:
    /// the peer may have used it, and the new initiation may have overtaken its packets.
    pub(super) fn answered(&mut self, session: Box<Session>) -> Gone {
        let waited = self.next.replace(session);
        self.retire(waited)
    }

    /// Takes out the sessions that have expired.
    pub(super) fn expired(&mut self, now: Instant) -> [Gone; MOST_SESSIONS] {
        let [first, second, third, fourth] = &mut self.retired;
        [
            &mut self.current,
            &mut self.next,
            first,
            second,
            third,
            fourth,
        ]
        .map(|place| place.take_if(|session| session.is_expired(now)))
    }

    /// Takes out all.
    pub(super) fn take_all(&mut self) -> [Gone; MOST_SESSIONS] {
        let Self {
            current,
            next,
            retired: [first, second, third, fourth],
        } = std::mem::take(self);
        [current, next, first, second, third, fourth]
    }

    /// When the first of them expires.
    pub(super) fn first_expiry(&self) -> Option<Instant> {
        [&self.current, &self.next]
            .into_iter()
            .chain(&self.retired)
            .flatten()
            .map(|session| session.expiry)
            .min()
    }

    /// Makes room by taking out the one that was retired first.
    fn retire(&mut self, session: Option<Box<Session>>) -> Gone {
        session.as_ref()?;
        self.retired.rotate_right(1);
        let [youngest, ..] = &mut self.retired;
        std::mem::replace(youngest, session)
    }
}

#[cfg(test)]
mod tests {
    use super::super::session::Agreement;
    use super::*;
    use crate::key::KEY_LEN;
    use std::time::Duration;

    fn session(now: Instant, local_index: u32, initiator: bool) -> Box<Session> {
        let agreement = Agreement {
            local_index,
            remote_index: 0,
            sending: &[1; KEY_LEN],
            receiving: &[2; KEY_LEN],
            initiator,
        };
        Session::new(now, &agreement).unwrap()
    }

    #[test]
    fn renewals_in_step_dropped_the_session_that_the_peer_sealed_with() {
        let start = Instant::now();
        let mut keyring = Keyring::default();
        for renewal in 0..10 {
            let now = start + Duration::from_secs(121) * renewal;
            let _ = keyring.expired(now);
            // The peer does not yield: it seals with the even ones.
            let (theirs, ours) = (2 * renewal, 2 * renewal + 1);
            let gone = keyring.answered(session(now, theirs, false));
            assert!(gone.is_none(), "renewal {renewal}");
            let gone = keyring.begun(session(now, ours, true), Waiting::Retires);
            assert!(gone.iter().all(Option::is_none), "renewal {renewal}");
            for index in theirs.saturating_sub(2)..=ours {
                assert!(keyring.find(index).is_some(), "{index} is gone");
            }
        }
    }
}
