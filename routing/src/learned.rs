//! Routes that BGP sessions bring, before they are candidates of the routing table, and the limits on them.
//!
//! Whoever runs the sessions says what comes in: [`LearnedRoutes::open`], [`announce`], [`withdraw`],
//! [`close`]. What comes out is a list of [`RouteChange`]s for [`Snapshot::with_routes`], gathered until somebody
//! takes them, and events.
//!
//! Limits (docs/azure.md, sections 3, 4 and 5), and what going over them does:
//! - **Prefixes of a session**: 4,000 IPv4 from a circuit (10,000 with Premium), 100 IPv6.
//! - **Routes that a gateway learns**, by its SKU, a prefix that several sessions bring counting once. It is
//!   the session whose prefix goes over it that is meant.
//! - **Routes that a gateway advertises**: 1,000. All of its sessions are meant.
//!
//! The session drops: all of its routes leave the table. It returns by itself when it fits again: while it is
//! kept open, what its far end announces and withdraws goes on being noted. Whoever closes it instead (RFC
//! 4486, "maximum number of prefixes reached") may open it again, and all is counted anew.
//!
//! [`announce`]: LearnedRoutes::announce
//! [`withdraw`]: LearnedRoutes::withdraw
//! [`close`]: LearnedRoutes::close
//! [`Snapshot::with_routes`]: crate::snapshot::Snapshot::with_routes

use crate::path::{PathId, PathKind};
use crate::rib::{Candidate, NextHop, RouteChange, RouteSource};
use ipnet::IpNet;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// IPv4 prefixes that may come from one circuit.
pub const CIRCUIT_PREFIXES_V4: usize = 4_000;
/// IPv4 prefixes that may come from one circuit with the Premium add-on.
pub const CIRCUIT_PREFIXES_V4_PREMIUM: usize = 10_000;
/// IPv6 prefixes that may come from one circuit.
pub const CIRCUIT_PREFIXES_V6: usize = 100;

/// A session: any number that its owner tells it from others by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u32);

/// What a session is over, and how much it may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnedSession {
    /// The path that its routes lead to.
    pub path: PathId,
    /// The gateway that it belongs to.
    pub gateway: PathKind,
    /// The weight of its connection.
    pub weight: u32,
    /// IPv4 prefixes that it may bring; `None`: any number.
    pub prefixes_v4: Option<usize>,
    /// IPv6 prefixes that it may bring; `None`: any number.
    pub prefixes_v6: Option<usize>,
}

/// A limit on routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// IPv4 prefixes of a session.
    PrefixesV4,
    /// IPv6 prefixes of a session.
    PrefixesV6,
    /// Routes that the gateway learns.
    Learned,
    /// Routes that the gateway advertises.
    Advertised,
}

impl Limit {
    /// The limit in words, for output: lower case with underscores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PrefixesV4 => "prefixes_v4",
            Self::PrefixesV6 => "prefixes_v6",
            Self::Learned => "routes_learned",
            Self::Advertised => "routes_advertised",
        }
    }
}

/// A limit that would be gone over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// Which one.
    pub limit: Limit,
    /// How many there would be.
    pub found: usize,
    /// How many may be.
    pub allowed: usize,
}

impl Over {
    fn of(limit: Limit, found: usize, allowed: Option<usize>) -> Option<Self> {
        let allowed = allowed.filter(|&allowed| found > allowed)?;
        Some(Self {
            limit,
            found,
            allowed,
        })
    }
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.limit {
            Limit::PrefixesV4 => "IPv4 prefixes of the session",
            Limit::PrefixesV6 => "IPv6 prefixes of the session",
            Limit::Learned => "routes that the gateway learns",
            Limit::Advertised => "routes that the gateway advertises",
        };
        write!(f, "{} {what}, at most {}", self.found, self.allowed)
    }
}

/// Something that happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// It went over a limit; its routes have left the table.
    Dropped(SessionId, Over),
    /// It fits again; its routes are back.
    Returned(SessionId),
}

/// How a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The session.
    pub session: LearnedSession,
    /// Prefixes that its far end announces, IPv4 and IPv6.
    pub announced: [usize; 2],
    /// Why none of them counts; `None`: they do.
    pub dropped: Option<Over>,
}

/// The routes of all sessions.
#[derive(Clone, Debug, Default)]
pub struct LearnedRoutes {
    sessions: BTreeMap<SessionId, Known>,
    gateways: [Gateway; 2],
    changes: Vec<RouteChange>,
    events: Vec<SessionEvent>,
}

/// What is known of a session.
#[derive(Clone, Debug)]
struct Known {
    session: LearnedSession,
    /// Prefixes with the length of their AS paths.
    routes: BTreeMap<IpNet, u32>,
    /// Of `routes`, how many are IPv4.
    v4: usize,
    dropped: Option<Over>,
}

/// What is counted of a gateway.
#[derive(Clone, Debug, Default)]
struct Gateway {
    learned: Option<usize>,
    advertised: Option<usize>,
    /// How many routes it advertises.
    advertises: usize,
    /// By how many sessions that count each prefix is brought; only kept where there is a limit.
    prefixes: HashMap<IpNet, u32>,
}

impl LearnedRoutes {
    /// No sessions yet; limits are set by [`Self::set_limits`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many routes a gateway may learn and advertise; `None`: any number. Sessions drop and return
    /// by it, the latest first.
    pub fn set_limits(&mut self, of: PathKind, learned: Option<usize>, advertised: Option<usize>) {
        let gateway = self.gateway_mut(of);
        (gateway.learned, gateway.advertised) = (learned, advertised);
        gateway.prefixes.clear();
        if learned.is_some() {
            let counted = self
                .sessions
                .values()
                .filter(|known| known.session.gateway == of && known.dropped.is_none());
            let mut prefixes = HashMap::new();
            for prefix in counted.flat_map(|known| known.routes.keys()) {
                *prefixes.entry(*prefix).or_insert(0) += 1;
            }
            self.gateway_mut(of).prefixes = prefixes;
        }
        let latest_first: Vec<SessionId> = self.sessions.keys().rev().copied().collect();
        for id in latest_first {
            self.drop_if_over(id);
        }
        self.restore(of);
    }

    /// Says how many routes a gateway advertises.
    pub fn set_advertised(&mut self, of: PathKind, routes: usize) {
        self.gateway_mut(of).advertises = routes;
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            self.drop_if_over(id);
        }
        self.restore(of);
    }

    /// A session is established, and brings nothing yet. One of the same number is closed first.
    pub fn open(&mut self, id: SessionId, session: LearnedSession) {
        self.close(id);
        let known = Known {
            session,
            routes: BTreeMap::new(),
            v4: 0,
            dropped: None,
        };
        self.sessions.insert(id, known);
        self.drop_if_over(id);
    }

    /// The far end announces a prefix, or announces it anew. What a session that is not open says is not
    /// heard.
    pub fn announce(&mut self, id: SessionId, prefix: IpNet, as_path_length: u32) {
        let Some(known) = self.sessions.get_mut(&id) else {
            return;
        };
        let prefix = prefix.trunc();
        let before = known.routes.insert(prefix, as_path_length);
        if before.is_none() && prefix.addr().is_ipv4() {
            known.v4 += 1;
        }
        if before == Some(as_path_length) || known.dropped.is_some() {
            return;
        }
        let candidate = known.candidate(prefix, as_path_length);
        let of = known.session.gateway;
        if before.is_none() {
            self.gateway_mut(of).count(prefix);
        }
        self.changes.push(RouteChange::Announce(candidate));
        if self.drop_if_over(id) {
            self.restore(of);
        }
    }

    /// The far end withdraws a prefix.
    pub fn withdraw(&mut self, id: SessionId, prefix: IpNet) {
        let Some(known) = self.sessions.get_mut(&id) else {
            return;
        };
        let prefix = prefix.trunc();
        let Some(as_path_length) = known.routes.remove(&prefix) else {
            return;
        };
        known.v4 -= usize::from(prefix.addr().is_ipv4());
        let of = known.session.gateway;
        if known.dropped.is_none() {
            let change = withdrawal(&known.candidate(prefix, as_path_length));
            self.gateway_mut(of).discount(prefix);
            self.changes.push(change);
        }
        self.restore(of);
    }

    /// The session has ended: all that it brought goes.
    pub fn close(&mut self, id: SessionId) {
        self.take_out(id);
        if let Some(known) = self.sessions.remove(&id) {
            self.restore(known.session.gateway);
        }
    }

    /// What has changed in the table since this was last asked, in order.
    pub fn take_changes(&mut self) -> Vec<RouteChange> {
        std::mem::take(&mut self.changes)
    }

    /// What has happened to sessions since this was last asked, in order.
    pub fn take_events(&mut self) -> Vec<SessionEvent> {
        std::mem::take(&mut self.events)
    }

    /// All routes that count, for a snapshot that is built whole.
    pub fn candidates(&self) -> impl Iterator<Item = Candidate> {
        let counted = self.sessions.values().filter(|k| k.dropped.is_none());
        counted.flat_map(Known::candidates)
    }

    /// How every session is.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, Status)> {
        self.sessions.iter().map(|(&id, known)| {
            let status = Status {
                session: known.session,
                announced: [known.v4, known.routes.len() - known.v4],
                dropped: known.dropped,
            };
            (id, status)
        })
    }

    /// How many different prefixes a gateway has learned from sessions that count.
    pub fn learned(&self, of: PathKind) -> usize {
        let gateway = self.gateway(of);
        if gateway.learned.is_some() {
            return gateway.prefixes.len();
        }
        let counted = self.sessions.values();
        let counted = counted.filter(|k| k.session.gateway == of && k.dropped.is_none());
        let prefixes = counted.flat_map(|known| known.routes.keys());
        prefixes.collect::<std::collections::HashSet<_>>().len()
    }

    fn gateway(&self, of: PathKind) -> &Gateway {
        let [expressroute, vpn] = &self.gateways;
        match of {
            PathKind::ExpressRoute => expressroute,
            PathKind::Vpn => vpn,
        }
    }

    fn gateway_mut(&mut self, of: PathKind) -> &mut Gateway {
        let [expressroute, vpn] = &mut self.gateways;
        match of {
            PathKind::ExpressRoute => expressroute,
            PathKind::Vpn => vpn,
        }
    }

    /// Drops a session that is over a limit; whether it was.
    fn drop_if_over(&mut self, id: SessionId) -> bool {
        let Some(known) = self.sessions.get(&id).filter(|k| k.dropped.is_none()) else {
            return false;
        };
        let gateway = self.gateway(known.session.gateway);
        let Some(over) = known
            .over()
            .or_else(|| gateway.over(gateway.prefixes.len()))
        else {
            return false;
        };
        self.take_out(id);
        if let Some(known) = self.sessions.get_mut(&id) {
            known.dropped = Some(over);
        }
        self.events.push(SessionEvent::Dropped(id, over));
        true
    }

    /// Takes the routes of a session out of the table, if they are there.
    fn take_out(&mut self, id: SessionId) {
        let Some(known) = self.sessions.get(&id).filter(|k| k.dropped.is_none()) else {
            return;
        };
        let candidates: Vec<Candidate> = known.candidates().collect();
        let of = known.session.gateway;
        for candidate in candidates {
            self.gateway_mut(of).discount(candidate.prefix);
            self.changes.push(withdrawal(&candidate));
        }
    }

    /// Brings back the sessions of a gateway that fit again.
    fn restore(&mut self, of: PathKind) {
        let dropped = self.sessions.iter().filter(|(_, known)| {
            known.session.gateway == of && known.dropped.is_some() && known.over().is_none()
        });
        let dropped: Vec<SessionId> = dropped.map(|(&id, _)| id).collect();
        for id in dropped {
            let Some(known) = self.sessions.get(&id) else {
                continue;
            };
            let gateway = self.gateway(of);
            let new = known.routes.keys();
            let new = new.filter(|prefix| !gateway.prefixes.contains_key(prefix));
            if gateway.over(gateway.prefixes.len() + new.count()).is_some() {
                continue;
            }
            let candidates: Vec<Candidate> = known.candidates().collect();
            for candidate in candidates {
                self.gateway_mut(of).count(candidate.prefix);
                self.changes.push(RouteChange::Announce(candidate));
            }
            if let Some(known) = self.sessions.get_mut(&id) {
                known.dropped = None;
            }
            self.events.push(SessionEvent::Returned(id));
        }
    }
}

impl Known {
    /// The limit of its own that it is over.
    fn over(&self) -> Option<Over> {
        let v6 = self.routes.len() - self.v4;
        Over::of(Limit::PrefixesV4, self.v4, self.session.prefixes_v4)
            .or_else(|| Over::of(Limit::PrefixesV6, v6, self.session.prefixes_v6))
    }

    fn candidate(&self, prefix: IpNet, as_path_length: u32) -> Candidate {
        Candidate {
            weight: self.session.weight,
            as_path_length,
            ..Candidate::new(prefix, RouteSource::Bgp, NextHop::Path(self.session.path))
        }
    }

    fn candidates(&self) -> impl Iterator<Item = Candidate> {
        let routes = self.routes.iter();
        routes.map(|(&prefix, &length)| self.candidate(prefix, length))
    }
}

impl Gateway {
    /// The limit that it would be over with so many prefixes.
    fn over(&self, learned: usize) -> Option<Over> {
        Over::of(Limit::Advertised, self.advertises, self.advertised)
            .or_else(|| Over::of(Limit::Learned, learned, self.learned))
    }

    fn count(&mut self, prefix: IpNet) {
        if self.learned.is_some() {
            *self.prefixes.entry(prefix).or_insert(0) += 1;
        }
    }

    fn discount(&mut self, prefix: IpNet) {
        if let Some(count) = self.prefixes.get_mut(&prefix) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.prefixes.remove(&prefix);
            }
        }
    }
}

fn withdrawal(candidate: &Candidate) -> RouteChange {
    RouteChange::Withdraw {
        prefix: candidate.prefix,
        source: candidate.source,
        next_hop: candidate.next_hop,
    }
}

#[cfg(test)]
mod tests;
