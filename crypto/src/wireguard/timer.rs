//! When things happen (whitepaper, 6): the constants, and the deadlines of one peer as plain values.
//!
//! A deadline is armed by what was sent or received, and run by `poll`. Whoever arms one learns its time,
//! so that the endpoint knows the earliest of all without asking every peer.

#![expect(
    clippy::duration_suboptimal_units,
    reason = "the whitepaper gives all times in seconds"
)]

use std::time::{Duration, Instant};

/// An initiator renews a session of this age when it sends.
pub const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
/// No packet is sealed or opened with a session of this age.
pub const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
/// After so many packets a session is renewed.
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// No counter reaches this: the window must never wrap.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// How long an initiation waits for its response; never are two sent sooner after one another.
pub const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a session that the peer asked for may wait for its first packet, which follows within a round trip,
/// before we begin a handshake of our own.
pub(super) const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);
/// How long initiations are repeated.
pub const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
/// How long after data came in there is an answer, if only an empty one.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Up to this much is added to [`REKEY_TIMEOUT`], so that two ends do not stay in step.
pub const MAX_JITTER: Duration = Duration::from_millis(333);
/// An initiator renews a session of this age when it receives: the last moment at which there is time
/// for one keepalive and one handshake before the session dies.
pub const REKEY_ON_RECEIVE_TIME: Duration = Duration::from_secs(180 - 10 - 5);
/// A responder renews a session of this age where it cannot be sure that there is an initiator: later than
/// any initiator, and with time enough for one handshake.
pub(super) const REKEY_BEFORE_THE_END: Duration = Duration::from_secs(180 - 5);
/// Data sent and nothing heard for so long: the session is deaf.
pub const DEAF_TIMEOUT: Duration = Duration::from_secs(10 + 5);
/// A received cookie is used for so long: its lifetime less 5 s on the way.
pub const COOKIE_USE_TIME: Duration = Duration::from_secs(120 - 5);
/// A peer's initiations are taken this far apart at least, as Linux does (50 a second).
pub const CALL_INTERVAL: Duration = Duration::from_millis(20);

/// The deadlines of one peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timers {
    /// Interval of the persistent keepalive.
    interval: Option<Duration>,
    /// Drawn anew with every handshake.
    pub(super) jitter: Duration,
    /// Send an initiation, the first or one more.
    pub(super) handshake: Option<Instant>,
    /// Since when there has been something to say, and initiations are sent for it in vain: whoever sends
    /// more gives them [`REKEY_ATTEMPT_TIME`] anew.
    pub(super) trying_since: Option<Instant>,
    /// When the first initiation was sent that nobody has answered, whatever has been sent since.
    pub(super) unanswered_since: Option<Instant>,
    /// How often to try again after [`REKEY_ATTEMPT_TIME`].
    retry: Option<Duration>,
    /// Data was sent: by then something must have come back.
    pub(super) deaf: Option<Instant>,
    /// Data was received: by then something must have been sent.
    pub(super) passive: Option<Instant>,
    /// More data came while `passive` was armed.
    passive_again: bool,
    /// Nothing passed either way: keep the path's state (NAT, firewall) alive.
    pub(super) persistent: Option<Instant>,
}

impl Timers {
    /// With a persistent keepalive the first is due at once: it starts the first handshake.
    pub(super) fn new(now: Instant, keepalive: Option<Duration>, retry: Option<Duration>) -> Self {
        let interval = keepalive
            .filter(|interval| !interval.is_zero())
            .map(|interval| interval.max(Duration::from_secs(1)));
        Self {
            interval,
            jitter: Duration::ZERO,
            handshake: None,
            trying_since: None,
            unanswered_since: None,
            retry,
            deaf: None,
            passive: None,
            passive_again: false,
            persistent: interval.map(|_| now),
        }
    }

    /// A train of data was sent. Gives the deadline that is armed by it, if one is.
    #[inline]
    pub(super) fn data_sent(&mut self, now: Instant) -> Option<Instant> {
        self.own_sent(now);
        if self.deaf.is_some() {
            return None;
        }
        self.deaf = Some(now + DEAF_TIMEOUT + self.jitter);
        self.deaf
    }

    /// A handshake message or a keepalive was sent.
    #[inline]
    pub(super) fn own_sent(&mut self, now: Instant) {
        self.passive = None;
        self.traversed(now);
    }

    /// Data was received and has authenticated. Gives the deadline that is armed by it, if one is.
    #[inline]
    pub(super) fn data_received(&mut self, now: Instant) -> Option<Instant> {
        self.own_received(now);
        if self.passive.is_some() {
            self.passive_again = true;
            return None;
        }
        self.passive = Some(now + KEEPALIVE_TIMEOUT);
        self.passive
    }

    /// A handshake message or a keepalive was received and has authenticated.
    #[inline]
    pub(super) fn own_received(&mut self, now: Instant) {
        self.deaf = None;
        self.traversed(now);
    }

    /// The passive keepalive was sent: the next one is due for the data that came meanwhile.
    pub(super) fn passive_done(&mut self, now: Instant) {
        self.passive = std::mem::take(&mut self.passive_again).then(|| now + KEEPALIVE_TIMEOUT);
    }

    /// A session is in use: what was to lead to one is over.
    pub(super) fn session_in_use(&mut self) {
        self.handshake = None;
        self.trying_since = None;
        self.unanswered_since = None;
    }

    /// An initiation goes out; the next one is due when it is not answered.
    pub(super) fn initiated(&mut self, now: Instant, jitter: Duration) {
        self.jitter = jitter;
        let since = *self.trying_since.get_or_insert(now);
        self.unanswered_since.get_or_insert(now);
        let pause = match self.retry {
            Some(retry) if self.has_given_up(since, now) => retry.max(REKEY_TIMEOUT),
            _ => REKEY_TIMEOUT,
        };
        self.handshake = Some(now + pause + jitter);
    }

    /// Whether initiations have been repeated long enough, and are repeated no more. With a persistent
    /// keepalive there is always something to say.
    fn has_given_up(&self, since: Instant, now: Instant) -> bool {
        self.interval.is_none() && now >= since + REKEY_ATTEMPT_TIME
    }

    /// Whether there is no further initiation until there is traffic.
    pub(super) fn gives_up(&self, now: Instant) -> bool {
        self.retry.is_none()
            && self
                .trying_since
                .is_some_and(|since| self.has_given_up(since, now))
    }

    /// Asks for an initiation at `at`, unless one is due anyway.
    pub(super) fn start_handshake_at(&mut self, at: Instant) {
        self.handshake.get_or_insert(at);
    }

    /// The earliest of all.
    pub(super) fn earliest(&self) -> Option<Instant> {
        [self.handshake, self.deaf, self.passive, self.persistent]
            .into_iter()
            .flatten()
            .min()
    }

    #[inline]
    fn traversed(&mut self, now: Instant) {
        if let Some(interval) = self.interval {
            self.persistent = Some(now + interval);
        }
    }
}

/// Whether a deadline has come.
pub(super) fn is_due(deadline: Option<Instant>, now: Instant) -> bool {
    deadline.is_some_and(|deadline| deadline <= now)
}

/// The earlier of two deadlines.
#[inline]
pub(super) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn data_is_answered_within_ten_seconds_once_for_all() {
        let now = Instant::now();
        let mut timers = Timers::new(now, None, None);
        assert_eq!(timers.data_received(now), Some(now + 10 * SECOND));
        assert_eq!(timers.data_received(now + SECOND), None);
        timers.own_sent(now + 10 * SECOND);
        timers.passive_done(now + 10 * SECOND);
        assert_eq!(timers.passive, Some(now + 20 * SECOND));
        timers.own_sent(now + 20 * SECOND);
        timers.passive_done(now + 20 * SECOND);
        assert_eq!(timers.earliest(), None);
    }

    #[test]
    fn whatever_comes_back_proves_that_the_session_hears() {
        let now = Instant::now();
        let mut timers = Timers::new(now, None, None);
        assert_eq!(timers.data_sent(now), Some(now + 15 * SECOND));
        assert_eq!(timers.data_sent(now + SECOND), None);
        assert_eq!(timers.deaf, Some(now + 15 * SECOND));
        timers.own_received(now + 2 * SECOND);
        assert_eq!(timers.deaf, None);
    }

    #[test]
    fn traffic_puts_the_persistent_keepalive_off() {
        let now = Instant::now();
        let mut timers = Timers::new(now, Some(25 * SECOND), None);
        assert_eq!(timers.earliest(), Some(now));
        timers.own_sent(now);
        assert_eq!(timers.earliest(), Some(now + 25 * SECOND));
        timers.own_received(now + 5 * SECOND);
        assert_eq!(timers.persistent, Some(now + 30 * SECOND));
        let zero = Timers::new(now, Some(Duration::ZERO), None);
        assert_eq!(zero.earliest(), None, "off");
    }
}
