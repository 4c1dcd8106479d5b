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
    /// The peer's address is not known, and it has not called.
    NoEndpoint,
    /// The peer does not answer handshakes.
    HandshakeFailed,
    /// The probe's target does not answer.
    ProbeFailed,
    /// Some probes are lost, not enough in a row for `ProbeFailed`.
    ProbeLoss,
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
            Self::NoEndpoint => "no_endpoint",
            Self::HandshakeFailed => "handshake_failed",
            Self::ProbeFailed => "probe_failed",
            Self::ProbeLoss => "probe_loss",
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
    /// Since when handshakes have gone unanswered; `None`: none is under way.
    pub handshaking: Option<Instant>,
}

/// What the probes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed {
    /// The verdict.
    pub verdict: Verdict,
    /// Passing, with losses ([`crate::probe::Prober::impaired`]).
    pub impaired: bool,
}

/// The state of a BFD or BGP session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
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
    /// The tunnel.
    pub tunnel: Option<Tunnel>,
    /// The in-path probes.
    pub probe: Option<Probed>,
    /// The BFD session.
    pub bfd: Option<Session>,
    /// The BGP session.
    pub bgp: Option<Session>,
}

/// A path's change of state: one line of the event log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
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
    pub fn update(&mut self, now: Instant, evidence: Evidence) -> Option<Change> {
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
        Some(Change {
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
        let held = (self.state == State::Holding).then(|| self.good_since + self.hold_down);
        overdue
            .into_iter()
            .flatten()
            .chain(expired)
            .chain(held)
            .filter(|&at| at > self.updated)
            .min()
    }

    fn next_state(&mut self, now: Instant, judgement: Judgement) -> State {
        let target = match judgement {
            Judgement::Bad(reason) => return State::Down(reason),
            Judgement::Unproven(reason) => {
                return match self.state {
                    // What was known of it came from before the fault.
                    State::Down(_) => State::Down(reason),
                    State::Starting | State::Holding => {
                        self.good_since = now;
                        self.state
                    }
                    State::Up | State::Idle | State::Degraded(_) => self.state,
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
            Session::Up => Judgement::Good,
            Session::Pending => Judgement::Unproven(Reason::BfdPending),
            Session::Down => Judgement::Bad(Reason::BfdDown),
        }),
        evidence
            .tunnel
            .map(|tunnel| judge_tunnel(now, &tunnel, evidence.probe)),
        evidence.probe.map(|probe| match probe.verdict {
            Verdict::Pass if probe.impaired => Judgement::Flawed(Reason::ProbeLoss),
            Verdict::Pass => Judgement::Good,
            Verdict::Unknown => Judgement::Unproven(Reason::ProbePending),
            Verdict::Fail => Judgement::Bad(Reason::ProbeFailed),
        }),
        evidence.bgp.map(|session| match session {
            Session::Up => Judgement::Good,
            Session::Pending => Judgement::Unproven(Reason::BgpPending),
            Session::Down => Judgement::Bad(Reason::BgpDown),
        }),
    ];
    let severity = |judgement: &Judgement| match judgement {
        Judgement::Good => 0,
        Judgement::Flawed(_) => 1,
        Judgement::Untried => 2,
        Judgement::Unproven(_) => 3,
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
        return Judgement::Bad(Reason::NoEndpoint);
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: Duration = Duration::from_secs(1);
    const PATH: PathId = PathId(3);

    fn link(interface: Interface, neighbor: Reachability, verdict: Verdict) -> Evidence {
        Evidence {
            interface: Some(interface),
            neighbor: Some(neighbor),
            probe: Some(Probed {
                verdict,
                impaired: false,
            }),
            ..Evidence::default()
        }
    }

    fn good() -> Evidence {
        link(Interface::Up, Reachability::Resolved, Verdict::Pass)
    }

    fn no_carrier() -> Evidence {
        link(Interface::NoCarrier, Reachability::Resolved, Verdict::Pass)
    }

    fn started() -> (Health, Instant) {
        let now = Instant::now();
        (Health::new(now, PATH, S * 5), now)
    }

    fn tunnel(tunnel: Tunnel) -> Evidence {
        Evidence {
            tunnel: Some(tunnel),
            ..Evidence::default()
        }
    }

    #[test]
    fn the_first_up_is_immediate_even_after_a_fault() {
        let (mut health, now) = started();
        assert_eq!(health.usability(), Usability::LastResort);
        let pending = link(Interface::Up, Reachability::Unknown, Verdict::Unknown);
        assert_eq!(health.update(now, pending), None);
        health.update(now, no_carrier());
        assert_eq!(health.usability(), Usability::None);
        let change = health.update(now + S, good()).unwrap();
        assert_eq!(
            change,
            Change {
                at: now + S,
                path: PATH,
                from: State::Down(Reason::NoCarrier),
                to: State::Up
            }
        );
    }

    #[test]
    fn going_down_is_at_once_and_coming_back_waits_the_hold_down() {
        let (mut health, now) = started();
        health.update(now, good());
        assert!(health.update(now + S, no_carrier()).is_some());
        assert_eq!(health.usability(), Usability::None);
        health.update(now + S * 2, good());
        assert_eq!(health.state(), State::Holding);
        assert_eq!(health.usability(), Usability::LastResort);
        assert_eq!(health.deadline(), Some(now + S * 7));
        assert_eq!(health.update(now + S * 6, good()), None);
        assert!(health.update(now + S * 7, good()).is_some());
        assert_eq!(health.state(), State::Up);
        assert_eq!(health.deadline(), None);
    }

    #[test]
    fn a_fault_during_the_hold_down_starts_it_again() {
        let (mut health, now) = started();
        health.update(now, good());
        health.update(now, no_carrier());
        health.update(now + S, good());
        health.update(now + S * 4, no_carrier());
        assert_eq!(health.usability(), Usability::None);
        health.update(now + S * 5, good());
        health.update(now + S * 9, good());
        assert_eq!(health.state(), State::Holding);
        health.update(now + S * 10, good());
        assert_eq!(health.state(), State::Up);
    }

    #[test]
    fn lost_probes_during_the_hold_down_start_it_again() {
        let (mut health, now) = started();
        health.update(now, good());
        health.update(now, no_carrier());
        health.update(now + S, good());
        let mut impaired = good();
        impaired.probe = Some(Probed {
            verdict: Verdict::Pass,
            impaired: true,
        });
        health.update(now + S * 4, impaired);
        health.update(now + S * 6, good());
        assert_eq!(health.state(), State::Holding);
        assert_eq!(health.deadline(), Some(now + S * 9));
    }

    #[test]
    fn the_lowest_fault_is_the_reason() {
        let (mut health, now) = started();
        let all = link(Interface::NoCarrier, Reachability::Failed, Verdict::Fail);
        health.update(now, all);
        assert_eq!(health.state(), State::Down(Reason::NoCarrier));
        health.update(
            now + S,
            link(Interface::Up, Reachability::Failed, Verdict::Fail),
        );
        assert_eq!(health.state(), State::Down(Reason::NeighborFailed));
        assert_eq!(health.since(), now, "the outage began with the first fault");
    }

    #[test]
    fn a_path_that_is_down_stays_down_until_something_speaks_for_it() {
        let (mut health, now) = started();
        health.update(now, good());
        health.update(now, no_carrier());
        let pending = link(Interface::Up, Reachability::Unknown, Verdict::Unknown);
        health.update(now + S, pending);
        assert_eq!(health.state(), State::Down(Reason::NeighborPending));
    }

    #[test]
    fn a_path_that_is_up_outlives_a_question_that_is_asked_again() {
        let (mut health, now) = started();
        health.update(now, good());
        let asking = link(Interface::Up, Reachability::Unknown, Verdict::Pass);
        assert_eq!(health.update(now + S, asking), None);
        assert_eq!(health.state(), State::Up);
    }

    #[test]
    fn one_family_without_neighbor_only_degrades() {
        let (mut health, now) = started();
        health.update(
            now,
            link(Interface::Up, Reachability::Partial, Verdict::Pass),
        );
        assert_eq!(health.state(), State::Degraded(Reason::NeighborPartial));
        assert_eq!(health.usability(), Usability::Full);
    }

    #[test]
    fn a_tunnel_that_nobody_has_needed_is_usable() {
        let (mut health, now) = started();
        let idle = Tunnel {
            has_endpoint: true,
            ..Tunnel::default()
        };
        health.update(now, tunnel(idle));
        assert_eq!(health.state(), State::Idle);
        assert_eq!(health.usability(), Usability::Full);
    }

    #[test]
    fn a_tunnel_whose_peer_never_called_is_down() {
        let (mut health, now) = started();
        health.update(now, tunnel(Tunnel::default()));
        assert_eq!(health.state(), State::Down(Reason::NoEndpoint));
    }

    #[test]
    fn unanswered_handshakes_take_the_tunnel_down_after_fifteen_seconds() {
        let (mut health, now) = started();
        let calling = Tunnel {
            has_endpoint: true,
            handshaking: Some(now),
            ..Tunnel::default()
        };
        health.update(now, tunnel(calling));
        let deadline = health.deadline().unwrap();
        assert_eq!(deadline, now + HANDSHAKE_PATIENCE);
        assert_eq!(health.update(now + S * 14, tunnel(calling)), None);
        health.update(deadline, tunnel(calling));
        assert_eq!(health.state(), State::Down(Reason::HandshakeFailed));
        // WireGuard gives up after 90 s: the next packet may try again.
        let gave_up = Tunnel {
            handshaking: None,
            ..calling
        };
        health.update(deadline + S, tunnel(gave_up));
        assert_eq!(health.usability(), Usability::LastResort);
        health.update(deadline + S * 6, tunnel(gave_up));
        assert_eq!(health.state(), State::Idle);
    }

    #[test]
    fn a_session_that_still_delivers_outlives_a_failing_rekey() {
        let (mut health, now) = started();
        let rekeying = Tunnel {
            has_session: true,
            has_endpoint: true,
            established: Some(now),
            received: Some(now + S * 134),
            handshaking: Some(now + S * 120),
        };
        health.update(now + S * 135, tunnel(rekeying));
        assert_eq!(health.state(), State::Degraded(Reason::HandshakeFailed));
        assert_eq!(health.deadline(), Some(now + S * 149));
        health.update(now + S * 149, tunnel(rekeying));
        assert_eq!(health.state(), State::Down(Reason::HandshakeFailed));
    }

    #[test]
    fn an_old_session_is_none() {
        let (mut health, now) = started();
        let old = Tunnel {
            has_session: true,
            has_endpoint: true,
            established: Some(now),
            ..Tunnel::default()
        };
        health.update(now, tunnel(old));
        assert_eq!(health.state(), State::Up);
        assert_eq!(health.deadline(), Some(now + SESSION_LIFETIME));
        health.update(now + SESSION_LIFETIME, tunnel(old));
        assert_eq!(health.state(), State::Idle);
        assert_eq!(health.deadline(), None, "no deadline in the past");
    }

    #[test]
    fn probes_have_the_say_over_an_idle_tunnel() {
        let (mut health, now) = started();
        let mut evidence = tunnel(Tunnel {
            has_endpoint: true,
            ..Tunnel::default()
        });
        for (verdict, state) in [
            (Verdict::Unknown, State::Starting),
            (Verdict::Fail, State::Down(Reason::ProbeFailed)),
            (Verdict::Pass, State::Up),
        ] {
            evidence.probe = Some(Probed {
                verdict,
                impaired: false,
            });
            health.update(now, evidence);
            assert_eq!(health.state(), state);
        }
    }

    fn any_evidence(now: Instant) -> impl Strategy<Value = Evidence> {
        let interface = prop::sample::select(vec![
            None,
            Some(Interface::Up),
            Some(Interface::NoCarrier),
            Some(Interface::Gone),
        ]);
        let neighbor = prop::sample::select(vec![
            None,
            Some(Reachability::Unknown),
            Some(Reachability::Resolved),
            Some(Reachability::Failed),
        ]);
        let verdict = prop::sample::select(vec![
            None,
            Some(Verdict::Unknown),
            Some(Verdict::Pass),
            Some(Verdict::Fail),
        ]);
        let instant = move || prop::option::of((0_u32..400).prop_map(move |s| now + S * s));
        let tunnel = (any::<[bool; 3]>(), instant(), instant(), instant());
        (interface, neighbor, verdict, any::<bool>(), tunnel).prop_map(
            |(
                interface,
                neighbor,
                verdict,
                impaired,
                (has, established, received, handshaking),
            )| {
                Evidence {
                    interface,
                    neighbor,
                    tunnel: has[0].then_some(Tunnel {
                        has_session: has[1],
                        has_endpoint: has[2],
                        established,
                        received,
                        handshaking,
                    }),
                    probe: verdict.map(|verdict| Probed { verdict, impaired }),
                    bfd: None,
                    bgp: None,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn bad_evidence_is_never_fully_usable_and_a_return_always_waits(
            steps in prop::collection::vec((1_u32..10, any_evidence(Instant::now())), 1..80)
        ) {
            let mut now = Instant::now();
            let mut health = Health::new(now, PATH, S * 5);
            let mut has_been_up = false;
            let mut left: Option<Instant> = None;
            for (wait, evidence) in steps {
                now += S * wait;
                health.update(now, evidence);
                prop_assert!(health.since() <= now);
                prop_assert!(health.deadline().is_none_or(|at| at > now));
                let full = health.usability() == Usability::Full;
                if let Judgement::Bad(reason) = judge(now, &evidence) {
                    prop_assert_eq!(health.state(), State::Down(reason));
                    left = has_been_up.then_some(now);
                } else if full {
                    if let Some(left) = left.take() {
                        prop_assert!(now - left >= S * 5);
                    }
                    has_been_up = true;
                }
            }
        }
    }
}
