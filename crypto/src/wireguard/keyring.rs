//! The sessions of one peer, and how they take turns (whitepaper, 6.3 and 6.4).
//!
//! ```text
//! we answered:  next ---- first packet on it ----+
//!                                                +--> current ----> retired (two)
//! we began:     response ------------------------+
//! ```
//! Packets are sealed with `current` only, and opened with all of them. An answered session waits in
//! `next`: not before a packet arrives on it does the initiator have its keys for sure. A retired one
//! opens what is still on its way, until it expires: so a renewal loses nothing. Two are retired because
//! both ends may renew at the same moment.

use super::session::Session;
use std::time::Instant;

/// Most sessions of one peer at the same time.
pub(super) const MOST_SESSIONS: usize = 4;

/// See the module.
#[derive(Default)]
pub(super) struct Keyring {
    current: Option<Box<Session>>,
    next: Option<Box<Session>>,
    /// The younger one first.
    retired: [Option<Box<Session>>; 2],
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
        let [young, old] = &mut self.retired;
        [&mut self.current, &mut self.next, young, old]
            .into_iter()
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
        let next = self.next.take()?;
        let gone = self.retire_current();
        self.current = Some(next);
        gone
    }

    /// The response to our initiation came: its session is in use at once.
    pub(super) fn begun(&mut self, session: Box<Session>) -> [Gone; 2] {
        let gone = self.retire_current();
        // Both ends began at the same moment. The peer may use the session that we answered.
        let next = self.next.take();
        let waiting = if next.is_some() {
            self.retire(next)
        } else {
            None
        };
        self.current = Some(session);
        [gone, waiting]
    }

    /// We answered an initiation: the session waits for its first packet. One that waited in vain goes.
    pub(super) fn answered(&mut self, session: Box<Session>) -> Gone {
        self.next.replace(session)
    }

    /// Takes out the sessions that have expired.
    pub(super) fn expired(&mut self, now: Instant) -> [Gone; MOST_SESSIONS] {
        let [young, old] = &mut self.retired;
        [&mut self.current, &mut self.next, young, old]
            .map(|place| place.take_if(|session| session.is_expired(now)))
    }

    /// Takes out all.
    pub(super) fn take_all(&mut self) -> [Gone; MOST_SESSIONS] {
        let Self {
            current,
            next,
            retired: [young, old],
        } = std::mem::take(self);
        [current, next, young, old]
    }

    /// When the first of them expires.
    pub(super) fn first_expiry(&self) -> Option<Instant> {
        let [young, old] = &self.retired;
        [&self.current, &self.next, young, old]
            .into_iter()
            .flatten()
            .map(|session| session.expiry)
            .min()
    }

    fn retire_current(&mut self) -> Gone {
        let current = self.current.take();
        if current.is_some() {
            self.retire(current)
        } else {
            None
        }
    }

    fn retire(&mut self, session: Option<Box<Session>>) -> Gone {
        let [young, old] = &mut self.retired;
        std::mem::replace(old, std::mem::replace(young, session))
    }
}
