//! The health of one path: what its carrier, neighbours, tunnel, probes and sessions say together.
//!
//! ```text
//!              first good evidence                  bad evidence (at once)
//!   Starting ----------------------> Up, Degraded, ------------------------> Down(reason)
//!      |                             Idle                                     |      ^
//!      |  bad evidence                 ^                       good evidence  |      | bad evidence
//!      +------------> Down             +---- hold_down passed ---- Holding <--+      | (at once)
//!                                                                     +--------------+
//! ```
//!
//! Going down is at once; coming back waits until the evidence has been good for `hold_down` without a
//! break, so that a link that flaps does not drag its flows along. The first time a path comes up it
//! need not wait: nothing has moved away from it yet.
//!
//! [`Health`] has no clock: evidence comes in with [`Health::update`], and [`Health::deadline`] says when
//! the same evidence will mean something else.

use crate::path::PathId;
use crate::probe::Verdict;
use std::time::{Duration, Instant};

/// How long a handshake may go unanswered while packets want the tunnel, until the tunnel is down: three
/// initiations, which go out 5 s apart (REKEY_TIMEOUT in the WireGuard whitepaper, section 6.1).
pub const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(15);

/// How long a peer whose address is not known may take from its call to its first packet: as long as it waits
/// for our answer (REKEY_TIMEOUT).
pub const CALL_PATIENCE: Duration = Duration::from_secs(5);

/// How old a session may be (REJECT_AFTER_TIME, WireGuard whitepaper, section 6.1).
pub const SESSION_LIFETIME: Duration = Duration::from_mins(3);

/// Why a path is in its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The interface does not exist.
    InterfaceGone,
    /// The interface is set down.
    InterfaceDown,
    /// The interface has no carrier.
    NoCarrier,
    /// No next hop of the link answers ARP or neighbour discovery.
    NeighborFailed,
    /// The next hop of one IP version answers, that of the other does not.
    NeighborPartial,
    /// No next hop of the link is resolved yet.
    NeighborPending,
    /// Every link of the circuit that carries the tunnel is down.
    CircuitDown,
    /// The peer's address is not known, and it has not called.
    NoEndpoint,
    /// The peer does not answer handshakes.
    HandshakeFailed,
    /// The probe's target does not answer.
    ProbeFailed,
    /// Some probes are lost, not enough in a row for `ProbeFailed`.
    ProbeLoss,
    /// Probes go unanswered, and the last answers came back over another path that is in doubt itself:
    /// which of the two is at fault cannot be told.
    AnswersElsewhere,
    /// No probe has been answered yet.
    ProbePending,
    /// The BFD session is down.
    BfdDown,
    /// The BFD session is not up yet.
    BfdPending,
    /// The BGP session is down.
    BgpDown,
    /// The BGP session is not up yet.
    BgpPending,
}

impl Reason {
    /// The reason in words, for output: lower case with underscores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InterfaceGone => "interface_gone",
            Self::InterfaceDown => "interface_down",
            Self::NoCarrier => "no_carrier",
            Self::NeighborFailed => "neighbor_failed",
            Self::NeighborPartial => "neighbor_partial",
            Self::NeighborPending => "neighbor_pending",
            Self::CircuitDown => "circuit_down",
            Self::NoEndpoint => "no_endpoint",
            Self::HandshakeFailed => "handshake_failed",
            Self::ProbeFailed => "probe_failed",
            Self::ProbeLoss => "probe_loss",
            Self::AnswersElsewhere => "answers_elsewhere",
            Self::ProbePending => "probe_pending",
            Self::BfdDown => "bfd_down",
            Self::BfdPending => "bfd_pending",
            Self::BgpDown => "bgp_down",
            Self::BgpPending => "bgp_pending",
        }
    }
}

/// The state of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Nothing speaks against it, and not everything has spoken for it yet.
    Starting,
    /// Everything that watches it says it works.
    Up,
    /// A tunnel without a session that nobody has needed yet: the next packet starts the handshake.
    Idle,
    /// It works, with a flaw.
    Degraded(Reason),
    /// It works again and waits out the hold-down.
    Holding,
    /// It does not work.
    Down(Reason),
}

impl State {
    /// The state's name in output: lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Idle => "idle",
            Self::Degraded(_) => "degraded",
            Self::Holding => "holding",
            Self::Down(_) => "down",
        }
    }

    /// Why it is degraded or down.
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::Degraded(reason) | Self::Down(reason) => Some(reason),
            Self::Starting | Self::Up | Self::Idle | Self::Holding => None,
        }
    }

    /// What flows may do with a path in this state.
    pub const fn usability(self) -> Usability {
        match self {
            Self::Up | Self::Idle | Self::Degraded(_) => Usability::Full,
            Self::Starting | Self::Holding => Usability::LastResort,
            Self::Down(_) => Usability::None,
        }
    }
}

/// What flows may do with a path now, from less to more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Usability {
    /// Nothing.
    None,
    /// Take it where no path of the group is fully usable: rather that than drop.
    LastResort,
    /// Take it.
    Full,
}

/// The state of a link's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// It carries.
    Up,
    /// Set up, without carrier.
    NoCarrier,
    /// Set down.
    Down,
    /// No interface of that name.
    Gone,
}

/// What ARP and neighbour discovery say of a link's next hops together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reachability {
    /// None is resolved yet, and not every one has failed.
    Unknown,
    /// Every one is resolved, or is about to be confirmed again.
    Resolved,
    /// One is resolved, another has failed.
    Partial,
    /// Every one has failed.
    Failed,
}

/// What a tunnel says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tunnel {
    /// Packets can be sealed now.
    pub has_session: bool,
    /// It is known where the peer is.
    pub has_endpoint: bool,
    /// When the session in use was established.
    pub established: Option<Instant>,
    /// When an authenticated message last came in.
    pub received: Option<Instant>,
    /// Since when handshakes have gone unanswered, also after they were given up; `None`: the last one was
    /// answered, or none was needed.
    pub handshaking: Option<Instant>,
    /// When the peer's own call was answered, while it has not used the session that it asked for.
    pub called: Option<Instant>,
}

/// What the probes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed {
    /// The verdict.
    pub verdict: Verdict,
    /// Passing, with losses ([`crate::probe::Prober::impaired`]).
    pub impaired: bool,
    /// The verdict is failure, and says nothing of this path: the answers came back over another one that is
    /// in doubt itself.
    pub elsewhere: bool,
}

/// The state of a BFD or BGP session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Not up yet since the gateway started.
    Pending,
    /// Up.
    Up,
    /// Was up, and is not.
    Down,
}

/// All that is known of a path. What a path does not have is `None` and has no say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The interface of an ExpressRoute link.
    pub interface: Option<Interface>,
    /// Its next hops.
    pub neighbor: Option<Reachability>,
    /// What flows may do with the best link of the circuit that carries the tunnel.
    pub circuit: Option<Usability>,
    /// The tunnel.
    pub tunnel: Option<Tunnel>,
    /// The in-path probes.
    pub probe: Option<Probed>,
    /// The BFD session.
    pub bfd: Option<SessionState>,
    /// The BGP session.
    pub bgp: Option<SessionState>,
}

/// A path's change of state: one line of the event log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// When.
    pub at: Instant,
    /// Which path.
    pub path: PathId,
    /// From this state.
    pub from: State,
    /// To this one, with its reason.
    pub to: State,
}

/// What one look at the evidence says, before hysteresis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    Good,
    Untried,
    Flawed(Reason),
    Unproven(Reason),
    /// What it was it stays, with a flaw where it was in use.
    Doubted(Reason),
    Bad(Reason),
}

/// The health of one path.
#[derive(Clone, Debug)]
pub struct Health {
    path: PathId,
    hold_down: Duration,
    evidence: Evidence,
    state: State,
    since: Instant,
    /// While `Holding`: when the evidence became good.
    good_since: Instant,
    has_been_up: bool,
    updated: Instant,
}

impl Health {
    /// A path of which nothing is known yet.
    pub fn new(now: Instant, path: PathId, hold_down: Duration) -> Self {
        Self {
            path,
            hold_down,
            evidence: Evidence::default(),
            state: State::Starting,
            since: now,
            good_since: now,
            has_been_up: false,
            updated: now,
        }
    }

    /// Takes what is known of the path now. Call it with every new piece of evidence and at every
    /// [`Health::deadline`]. Gives the change of state, if there is one.
    pub fn update(&mut self, now: Instant, evidence: Evidence) -> Option<StateChange> {
        (self.evidence, self.updated) = (evidence, now);
        let to = self.next_state(now, judge(now, &evidence));
        if to == self.state {
            return None;
        }
        let from = std::mem::replace(&mut self.state, to);
        // Another reason for being down does not make the outage shorter, nor does another flaw.
        if std::mem::discriminant(&from) != std::mem::discriminant(&to) {
            self.since = now;
        }
        self.has_been_up |= to.usability() == Usability::Full;
        Some(StateChange {
            at: now,
            path: self.path,
            from,
            to,
        })
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Since when the path has been in it (whatever the reason).
    pub fn since(&self) -> Instant {
        self.since
    }

    /// What flows may do with the path.
    pub fn usability(&self) -> Usability {
        self.state.usability()
    }

    /// What was known at the last update.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Goes on under another id and with another hold-down (reload); a wait under way is measured
    /// against the new one.
    pub fn go_on(&mut self, path: PathId, hold_down: Duration) {
        (self.path, self.hold_down) = (path, hold_down);
    }

    /// When the same evidence will mean something else; `None`: never. Always later than the last
    /// update, whatever the evidence says of times.
    pub fn deadline(&self) -> Option<Instant> {
        let tunnel = self.evidence.tunnel.unwrap_or_default();
        let overdue = tunnel.handshaking.map(|at| {
            let heard = tunnel.received.filter(|_| tunnel.has_session);
            [
                at + HANDSHAKE_PATIENCE,
                heard.unwrap_or(at) + HANDSHAKE_PATIENCE,
            ]
        });
        let expired = tunnel.established.map(|at| at + SESSION_LIFETIME);
        let called = tunnel.called.map(|at| at + CALL_PATIENCE);
        let held = (self.state == State::Holding).then(|| self.good_since + self.hold_down);
        overdue
            .into_iter()
            .flatten()
            .chain(expired)
            .chain(called)
            .chain(held)
            .filter(|&at| at > self.updated)
            .min()
    }

    fn next_state(&mut self, now: Instant, judgement: Judgement) -> State {
        let target = match judgement {
            Judgement::Bad(reason) => return State::Down(reason),
            Judgement::Unproven(reason) => {
                return match self.state {
                    // It calls, or has just called, for the first time: nothing has failed yet. What is sent
                    // to it waits for the session.
                    State::Down(Reason::NoEndpoint) if !self.has_been_up => State::Starting,
                    // What was known of it came from before the fault.
                    State::Down(_) => State::Down(reason),
                    State::Starting | State::Holding => {
                        self.good_since = now;
                        self.state
                    }
                    State::Up | State::Idle | State::Degraded(_) => self.state,
                };
            }
            Judgement::Doubted(reason) => {
                return match self.state {
                    State::Up | State::Idle | State::Degraded(_) => State::Degraded(reason),
                    State::Down(_) => State::Down(reason),
                    State::Starting | State::Holding => {
                        self.good_since = now;
                        self.state
                    }
                };
            }
            Judgement::Good => State::Up,
            Judgement::Untried => State::Idle,
            Judgement::Flawed(reason) => State::Degraded(reason),
        };
        match self.state {
            State::Starting | State::Up | State::Idle | State::Degraded(_) => target,
            State::Down(_) if !self.has_been_up || self.hold_down.is_zero() => target,
            State::Down(_) => {
                self.good_since = now;
                State::Holding
            }
            State::Holding => {
                // A path that loses probes has not stayed up; a next hop that was never there for one
                // of the IP versions says nothing about that.
                if target == State::Degraded(Reason::ProbeLoss) {
                    self.good_since = now;
                }
                if now.saturating_duration_since(self.good_since) >= self.hold_down {
                    target
                } else {
                    State::Holding
                }
            }
        }
    }
}

/// The first thing that speaks against the path, from the wire upwards: a lower floor's fault explains
/// those above it.
fn judge(now: Instant, evidence: &Evidence) -> Judgement {
    let findings = [
        evidence.interface.map(|interface| match interface {
            Interface::Up => Judgement::Good,
            Interface::NoCarrier => Judgement::Bad(Reason::NoCarrier),
            Interface::Down => Judgement::Bad(Reason::InterfaceDown),
            Interface::Gone => Judgement::Bad(Reason::InterfaceGone),
        }),
        evidence.neighbor.map(|neighbor| match neighbor {
            Reachability::Resolved => Judgement::Good,
            Reachability::Partial => Judgement::Flawed(Reason::NeighborPartial),
            Reachability::Unknown => Judgement::Unproven(Reason::NeighborPending),
            Reachability::Failed => Judgement::Bad(Reason::NeighborFailed),
        }),
        evidence.bfd.map(|session| match session {
            SessionState::Up => Judgement::Good,
            SessionState::Pending => Judgement::Unproven(Reason::BfdPending),
            SessionState::Down => Judgement::Bad(Reason::BfdDown),
        }),
        evidence.circuit.map(|circuit| match circuit {
            Usability::None => Judgement::Bad(Reason::CircuitDown),
            Usability::LastResort | Usability::Full => Judgement::Good,
        }),
        evidence
            .tunnel
            .map(|tunnel| judge_tunnel(now, &tunnel, evidence.probe)),
        evidence.probe.map(|probe| match probe.verdict {
            Verdict::Fail if probe.elsewhere => Judgement::Doubted(Reason::AnswersElsewhere),
            Verdict::Pass if probe.impaired => Judgement::Flawed(Reason::ProbeLoss),
            Verdict::Pass => Judgement::Good,
            Verdict::Unknown => Judgement::Unproven(Reason::ProbePending),
            Verdict::Fail => Judgement::Bad(Reason::ProbeFailed),
        }),
        evidence.bgp.map(|session| match session {
            SessionState::Up => Judgement::Good,
            SessionState::Pending => Judgement::Unproven(Reason::BgpPending),
            SessionState::Down => Judgement::Bad(Reason::BgpDown),
        }),
    ];
    let severity = |judgement: &Judgement| match judgement {
        Judgement::Good => 0,
        Judgement::Flawed(_) => 1,
        Judgement::Untried => 2,
        Judgement::Unproven(_) | Judgement::Doubted(_) => 3,
        Judgement::Bad(_) => 4,
    };
    // `max_by_key` gives the last of equals, so from the top floor down to the wire.
    findings
        .into_iter()
        .flatten()
        .rev()
        .max_by_key(severity)
        .unwrap_or(Judgement::Good)
}

fn judge_tunnel(now: Instant, tunnel: &Tunnel, probe: Option<Probed>) -> Judgement {
    let age = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
    let session =
        tunnel.has_session && age(tunnel.established).is_some_and(|a| a < SESSION_LIFETIME);
    if !session && !tunnel.has_endpoint {
        // Whoever has sent an initiation is heard again within a round trip, or it was an old one.
        let calls = age(tunnel.called).is_some_and(|age| age < CALL_PATIENCE);
        return if calls {
            Judgement::Unproven(Reason::NoEndpoint)
        } else {
            Judgement::Bad(Reason::NoEndpoint)
        };
    }
    if age(tunnel.handshaking).is_some_and(|age| age >= HANDSHAKE_PATIENCE) {
        let heard = age(tunnel.received).is_some_and(|age| age < HANDSHAKE_PATIENCE);
        return if session && heard {
            Judgement::Flawed(Reason::HandshakeFailed)
        } else {
            Judgement::Bad(Reason::HandshakeFailed)
        };
    }
    // Where there are probes they make the traffic that an idle tunnel waits for: they have the say.
    if session || probe.is_some() {
        Judgement::Good
    } else {
        Judgement::Untried
    }
}

#[cfg(test)]
mod tests;
