//! One BFD session in asynchronous mode (RFC 5880, section 6).
//!
//! ```text
//!                              +--+
//!                              |  | UP, ADMIN DOWN, TIMER
//!                              |  V
//!                      DOWN  +------+  INIT
//!               +------------|      |------------+
//!               |            | DOWN |            |
//!               |  +-------->|      |<--------+  |
//!               |  |         +------+         |  |
//!               |  | ADMIN DOWN,   ADMIN DOWN,|  |
//!               |  | TIMER               DOWN,|  |
//!               V  |                    TIMER |  V
//!             +------+                      +------+
//!        +----|      |                      |      |----+
//!    DOWN|    | INIT |--------------------->|  UP  |    |INIT, UP
//!        +--->|      | INIT, UP             |      |<---+
//!             +------+                      +------+
//! ```
//! (RFC 5880, section 6.2: what the far side says, or the expiry of the detection time.)
//!
//! The driver's part:
//! 1. hand in what comes: [`BfdSession::receive`], which says at once if the state has changed
//! 2. at [`BfdSession::deadline`] at the latest: [`BfdSession::advance`], then [`BfdSession::transmit`] until it has
//!    nothing more
//! 3. look at the deadline again after every call
//!
//! The detection time is computed anew with every packet, from what that packet says. Before the session is up,
//! packets go out once a second at most (section 6.8.3); changed intervals are announced by a poll sequence, and an
//! interval that the far side must know first is used only after its answer.

use super::authentication::{Authentication, Key};
use super::packet::{Diagnostic, Packet, Section, State};
use std::num::{NonZeroU8, NonZeroU32};
use std::time::{Duration, Instant};

/// The shortest transmit interval of a session that is not up (RFC 5880, section 6.8.3).
pub const SLOW: Duration = Duration::from_secs(1);
/// TTL and hop limit of packets between neighbours (RFC 5881, section 5).
pub const NEIGHBOR_TTL: u8 = 255;

/// How a session is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How often packets are to be sent while the session is up.
    pub desired_min_tx: Duration,
    /// How often packets can be taken.
    pub required_min_rx: Duration,
    /// After how many missing packets the far side gives up.
    pub detect_multiplier: NonZeroU8,
    /// Whether nothing is sent until the far side has spoken (RFC 5880, section 6.1).
    pub passive: bool,
    /// The lowest TTL that is taken: [`NEIGHBOR_TTL`] between neighbours, so that nobody further away can
    /// speak for one; 0 over several hops (RFC 5883).
    pub least_ttl: u8,
}

/// The session has another state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Before.
    pub from: State,
    /// Now.
    pub to: State,
    /// Why, where it was not for the better.
    pub diagnostic: Diagnostic,
}

/// Why a packet is not for this session, or not to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It came from further away than the settings allow.
    TimeToLive,
    /// It names another session.
    Discriminator,
    /// It is not signed as agreed, or not new.
    Authentication,
}

/// What is known of the far side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its number for the session; zero: not known.
    pub discriminator: u32,
    /// Its state.
    pub state: State,
    /// Why its session last left the state up.
    pub diagnostic: Diagnostic,
    /// How often it wants to send.
    pub desired_min_tx: Duration,
    /// How often it can take packets.
    pub required_min_rx: Duration,
    /// After how many missing packets we give up.
    pub detect_multiplier: u8,
    /// Whether it wants no periodic packets while both are up.
    pub demand: bool,
}

impl Remote {
    /// RFC 5880, section 6.8.1: before anything was heard.
    const UNKNOWN: Self = Self {
        discriminator: 0,
        state: State::Down,
        diagnostic: Diagnostic::NONE,
        desired_min_tx: Duration::ZERO,
        required_min_rx: Duration::from_micros(1),
        detect_multiplier: 0,
        demand: false,
    };
}

/// A poll sequence (RFC 5880, section 6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poll {
    Idle,
    /// Packets ask for an answer.
    Active,
    /// The intervals have changed once more since it began: its answer may be about the former ones.
    Outdated,
}

/// One session.
#[derive(Clone, Debug)]
pub struct BfdSession {
    settings: Settings,
    discriminator: NonZeroU32,
    state: State,
    diagnostic: Diagnostic,
    remote: Remote,
    authentication: Option<Authentication>,
    poll: Poll,
    /// The interval that paces our packets; behind the announced one while a poll sequence runs.
    tx_in_force: Duration,
    /// The interval in the detection time; likewise.
    rx_in_force: Duration,
    /// The far side waits for an answer to its poll.
    owes_final: bool,
    /// The next packet says something new: it does not wait for its turn.
    has_news: bool,
    /// When the last periodic packet was sent, and how much of the interval is to pass, in 1/65,536.
    sent: Option<(Instant, u32)>,
    received: Option<Instant>,
}

impl BfdSession {
    /// A session that is down. `discriminator` is unique among those of this system, and random, so that a
    /// stranger cannot guess it. `key`: with it and a random first sequence number packets are authenticated.
    pub fn new(settings: Settings, discriminator: NonZeroU32, key: Option<(Key, u32)>) -> Self {
        Self {
            settings,
            discriminator,
            state: State::Down,
            diagnostic: Diagnostic::NONE,
            remote: Remote::UNKNOWN,
            authentication: key.map(|(key, first)| Authentication::new(key, first)),
            poll: Poll::Idle,
            tx_in_force: settings.desired_min_tx.max(SLOW),
            rx_in_force: settings.required_min_rx,
            owes_final: false,
            has_news: true,
            sent: None,
            received: None,
        }
    }

    /// Our state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Why the session last left the state up.
    pub fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    /// What is known of the far side.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Our number for the session.
    pub fn discriminator(&self) -> NonZeroU32 {
        self.discriminator
    }

    /// How often packets go out now, before jitter; `None`: the far side wants none.
    pub fn transmit_interval(&self) -> Option<Duration> {
        let wants_some = !self.remote.required_min_rx.is_zero();
        wants_some.then(|| self.tx_in_force.max(self.remote.required_min_rx))
    }

    /// After how long a silence the far side is given up (RFC 5880, section 6.8.4); zero before it is heard.
    pub fn detection_time(&self) -> Duration {
        let interval = self.rx_in_force.max(self.remote.desired_min_tx);
        interval * u32::from(self.remote.detect_multiplier)
    }

    /// When [`BfdSession::advance`] and [`BfdSession::transmit`] are to be called at the latest; `None`: not before
    /// something comes in.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        [self.transmit_due(now), self.expiry(), self.oblivion()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Other settings, from now on. Those that the far side must know first come into force with its answer.
    pub fn change(&mut self, settings: Settings) {
        let before = (self.announced_tx(), self.settings.required_min_rx);
        let news = settings != self.settings;
        self.settings = settings;
        self.has_news |= news;
        if before != (self.announced_tx(), settings.required_min_rx) {
            self.announce();
        }
    }

    /// Holds the session down, and tells the far side that this is on purpose.
    pub fn disable(&mut self) -> Option<Transition> {
        self.become_state(State::AdminDown, Diagnostic::ADMIN_DOWN)
    }

    /// Lets a disabled session come up again.
    pub fn enable(&mut self) -> Option<Transition> {
        if self.state != State::AdminDown {
            return None;
        }
        self.become_state(State::Down, Diagnostic::NONE)
    }

    /// Takes a packet that the demultiplexer has given this session: `bytes` is the control packet, as long as it
    /// says, which [`Packet::parse`] has read. A change counts at once; what is to be answered waits in
    /// [`BfdSession::transmit`].
    ///
    /// # Errors
    /// The packet is not to be believed; nothing has changed.
    pub fn receive(
        &mut self,
        now: Instant,
        packet: &Packet,
        bytes: &[u8],
        ttl: u8,
    ) -> Result<Option<Transition>, Refusal> {
        if ttl < self.settings.least_ttl {
            return Err(Refusal::TimeToLive);
        }
        if !matches!(packet.your_discriminator, 0)
            && packet.your_discriminator != self.discriminator.get()
        {
            return Err(Refusal::Discriminator);
        }
        let is_authentic = match &mut self.authentication {
            Some(authentication) => authentication.admit(packet, bytes),
            None => packet.section == Section::None,
        };
        if !is_authentic {
            return Err(Refusal::Authentication);
        }
        self.remote = Remote {
            discriminator: packet.my_discriminator,
            state: packet.state,
            diagnostic: packet.diagnostic,
            desired_min_tx: packet.desired_min_tx,
            required_min_rx: packet.required_min_rx,
            detect_multiplier: packet.detect_multiplier,
            demand: packet.demand,
        };
        if packet.is_final {
            self.polled();
        }
        self.received = Some(now);
        if self.state == State::AdminDown {
            return Ok(None);
        }
        let change = self.follow(packet.state);
        self.owes_final |= packet.poll;
        Ok(change)
    }

    /// The table of RFC 5880, section 6.8.6.
    fn follow(&mut self, remote: State) -> Option<Transition> {
        match (self.state, remote) {
            (State::Down, State::Down) => self.become_state(State::Init, self.diagnostic),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                self.become_state(State::Up, Diagnostic::NONE)
            }
            (State::Init | State::Up, State::AdminDown) | (State::Up, State::Down) => {
                self.become_state(State::Down, Diagnostic::NEIGHBOR_DOWN)
            }
            (State::AdminDown, _)
            | (State::Down, State::AdminDown | State::Up)
            | (State::Init, State::Down)
            | (State::Up, State::Init | State::Up) => None,
        }
    }

    /// Lets time pass: the silence of the far side is noticed.
    pub fn advance(&mut self, now: Instant) -> Option<Transition> {
        if self.oblivion().is_some_and(|at| at <= now) {
            self.received = None;
            if let Some(authentication) = &mut self.authentication {
                authentication.forget();
            }
        }
        if self.expiry().is_none_or(|at| at > now) {
            return None;
        }
        // Its number is forgotten, so that packets go out as before it was ever heard (section 6.8.1,
        // bfd.RemoteDiscr). What it said of its intervals too: it may come back with others.
        let heard = (self.remote.desired_min_tx, self.remote.detect_multiplier);
        self.remote = Remote {
            desired_min_tx: heard.0,
            detect_multiplier: heard.1,
            ..Remote::UNKNOWN
        };
        match self.state {
            State::Init | State::Up => self.become_state(State::Down, Diagnostic::TIME_EXPIRED),
            State::AdminDown | State::Down => None,
        }
    }

    /// Writes the next packet, if one is due, into `room` (of [`super::packet::MAX_LENGTH`] bytes) and gives back
    /// its length. `random` spreads the intervals: packets of many sessions must not keep in step.
    pub fn transmit(&mut self, now: Instant, random: u16, room: &mut [u8]) -> Option<usize> {
        let is_final = std::mem::take(&mut self.owes_final);
        if !is_final && self.transmit_due(now).is_none_or(|at| at > now) {
            return None;
        }
        if !is_final {
            self.has_news = false;
            self.sent = Some((now, self.jitter(random)));
        }
        let packet = Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: self.poll != Poll::Idle && !is_final,
            is_final,
            control_plane_independent: false,
            demand: false,
            detect_multiplier: self.settings.detect_multiplier.get(),
            my_discriminator: self.discriminator.get(),
            your_discriminator: self.remote.discriminator,
            desired_min_tx: self.announced_tx(),
            required_min_rx: self.settings.required_min_rx,
            required_min_echo_rx: Duration::ZERO,
            section: match &mut self.authentication {
                Some(authentication) => Section::Sha1(authentication.next_section()),
                None => Section::None,
            },
        };
        let length = packet.emit(room);
        if let (Some(authentication), Some(packet)) = (&self.authentication, room.get_mut(..length))
        {
            authentication.sign(packet);
        }
        Some(length)
    }

    /// How often we say that we want to send.
    fn announced_tx(&self) -> Duration {
        match self.state {
            State::Up => self.settings.desired_min_tx,
            State::AdminDown | State::Down | State::Init => self.settings.desired_min_tx.max(SLOW),
        }
    }

    fn become_state(&mut self, to: State, diagnostic: Diagnostic) -> Option<Transition> {
        let from = std::mem::replace(&mut self.state, to);
        self.diagnostic = diagnostic;
        if from == to {
            return None;
        }
        self.has_news = true;
        if from == State::Up || to == State::Up {
            self.announce();
        }
        Some(Transition {
            from,
            to,
            diagnostic,
        })
    }

    /// Begins a poll sequence for intervals that have changed. A shorter transmit interval and a longer receive
    /// interval harm nobody and hold at once; the others only when the far side has answered (section 6.8.3).
    fn announce(&mut self) {
        let is_up = self.state == State::Up;
        let (tx, rx) = (self.announced_tx(), self.settings.required_min_rx);
        if !is_up || tx < self.tx_in_force {
            self.tx_in_force = tx;
        }
        if !is_up || rx > self.rx_in_force {
            self.rx_in_force = rx;
        }
        self.poll = match (is_up, self.poll) {
            (false, _) => Poll::Idle,
            (true, Poll::Idle) => Poll::Active,
            (true, Poll::Active | Poll::Outdated) => Poll::Outdated,
        };
    }

    /// The far side has answered our poll.
    fn polled(&mut self) {
        match self.poll {
            Poll::Idle => {}
            Poll::Outdated => self.poll = Poll::Active,
            Poll::Active => {
                self.poll = Poll::Idle;
                self.tx_in_force = self.announced_tx();
                self.rx_in_force = self.settings.required_min_rx;
            }
        }
    }

    /// When the next packet is due.
    fn transmit_due(&self, now: Instant) -> Option<Instant> {
        if self.owes_final {
            return Some(now);
        }
        let waits_for_caller = self.settings.passive && self.remote.discriminator == 0;
        let on_demand = self.remote.demand
            && self.remote.state == State::Up
            && self.state == State::Up
            && self.poll == Poll::Idle;
        if waits_for_caller || on_demand {
            return None;
        }
        let interval = self.transmit_interval()?;
        match self.sent {
            Some((at, share)) if !self.has_news => Some(at + interval * share / 65_536),
            _ => Some(now),
        }
    }

    /// 75 to 100 % of the interval, and at most 90 % where one missing packet is too many (section 6.8.7), in
    /// 1/65,536.
    fn jitter(&self, random: u16) -> u32 {
        let (least, most) = match self.settings.detect_multiplier.get() {
            1 => (49_152, 58_982),
            _ => (49_152, 65_536),
        };
        least + (most - least) * u32::from(random) / 65_536
    }

    /// When the far side has been silent for too long.
    fn expiry(&self) -> Option<Instant> {
        let is_known = self.remote.discriminator != 0;
        self.received
            .filter(|_| is_known)
            .map(|at| at + self.detection_time())
    }

    /// When the far side has been silent for so long that its sequence numbers may begin anew.
    fn oblivion(&self) -> Option<Instant> {
        let is_known = self.remote.discriminator != 0;
        self.received
            .filter(|_| !is_known)
            .map(|at| at + self.detection_time() * 2)
    }
}

#[cfg(test)]
mod tests;
