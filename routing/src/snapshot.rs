//! The forwarding state: immutable, built aside by control, loaded by workers once per batch.
//!
//! Only one thing in it moves: each group's word of active members, so that a failover is one store.
//!
//! Where only routes change, [`Snapshot::with_routes`] makes the next one out of this one: they share what
//! has not changed, path groups and their words among it.

mod build;

pub use build::Builder;
pub(crate) use build::at_most;
mod change;

use crate::fib::Fib;
use crate::group::{Group, Groups};
use crate::health::Usability;
use crate::packet::{FlowKey, Version};
use crate::path::{GroupId, PathId, PathKind};
use crate::policy::{Match, Policy, RuleId};
use crate::prefix::PrefixSet;
use crate::rib::{ApplianceId, Candidate, NextHop, OwnerId, Ranked, Rib, RouteId, Standing};
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

/// The most paths that a gateway has: the flow cache keeps a path in 15 bits.
pub const MAX_PATHS: usize = 16_384;

/// A circuit or a site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Its name, as policies and routes say it.
    pub name: String,
    /// Sources that packets out of its tunnels may have; not looked at for ExpressRoute.
    pub allowed_sources: PrefixSet,
    /// Whether there are many far ends behind its paths, told apart by address: then transit leads from one
    /// to another.
    pub is_many: bool,
}

/// A link or a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Its name in output.
    pub name: String,
    /// What kind of way out it is.
    pub kind: PathKind,
    /// The circuit or site it belongs to.
    pub owner: OwnerId,
    /// Its own subnets, connected routes; none for a tunnel.
    pub subnets: Vec<IpNet>,
    /// Whether it carries IPv4: a link needs a neighbour of that family.
    pub v4: bool,
    /// Whether it carries IPv6.
    pub v6: bool,
    /// The circuit that carries it, where one carries a tunnel: it works no better than that.
    pub over: Option<OwnerId>,
}

impl Path {
    /// Whether it carries packets of this version.
    pub fn carries(&self, version: Version) -> bool {
        match version {
            Version::V4 => self.v4,
            Version::V6 => self.v6,
        }
    }
}

/// What a policy rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Goes on to the route table.
    Route,
    /// Takes the first of these circuits and sites that is usable.
    Via(Vec<OwnerId>),
    /// Drops silently.
    Drop,
    /// Drops and tells the sender.
    Reject,
}

/// A rule of the policy route table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name in output.
    pub name: String,
    /// Which packets.
    pub matches: Match,
    /// What becomes of them.
    pub action: Action,
    /// The DSCP (6 bits) that they leave with, wherever they go; `None`: their own.
    pub set_dscp: Option<u8>,
}

/// Why there is no snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// More of `what` than `limit`.
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        limit: usize,
        /// How many there are.
        found: usize,
    },
    /// A path, route or rule names a circuit, site or path that is not there.
    Unknown {
        /// Who names it.
        by: String,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { what, limit, found } => {
                write!(f, "{found} {what}, but at most {limit} are possible")
            }
            Self::Unknown { by } => {
                write!(f, "{by} leads to a circuit, site or path that is not there")
            }
        }
    }
}

impl std::error::Error for BuildError {}

/// Where the forwarding table leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Hop {
    Nowhere,
    Vnet,
    Internet,
    None,
    Group(GroupId),
}

/// What a rule does, compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleAction {
    Route,
    /// The group for each IP version: not every link carries both.
    Via {
        v4: GroupId,
        v6: GroupId,
    },
    Drop,
    Reject,
}

/// A rule but for its match.
#[derive(Clone, Debug)]
struct RuleFacts {
    name: String,
    action: RuleAction,
    set_dscp: Option<u8>,
}

/// What the decision needs to know about a path.
#[derive(Clone, Debug)]
struct PathFacts {
    path: Path,
    subnets: PrefixSet,
    /// The links of the circuit that carries it; none for what no circuit carries.
    carriers: Box<[PathId]>,
}

/// The forwarding state.
#[derive(Clone, Debug)]
pub struct Snapshot {
    generation: NonZeroU32,
    own_v4: Arc<[u32]>,
    own_v6: Arc<[u128]>,
    vnet: PrefixSet,
    vnet_sources: PrefixSet,
    owners: Arc<[Owner]>,
    paths: Arc<[PathFacts]>,
    pub(crate) policy: Arc<Policy>,
    rules: Arc<[RuleFacts]>,
    /// Says only where packets go, not by which route: routes are many and places few, so the table
    /// stays small. [`Rib::longest`] says by which.
    pub(crate) fib: Fib<Hop>,
    rib: Rib,
    /// The groups by what they hold: where each route leads to.
    index: Arc<Groups>,
    groups: Arc<[Group]>,
    appliances: Arc<[IpAddr]>,
    branch_transit: bool,
    /// For each circuit that carries tunnels, the groups of its links: IPv4, IPv6.
    underlays: Box<[(OwnerId, [GroupId; 2])]>,
}

impl Snapshot {
    /// Tells this snapshot from others.
    #[inline]
    pub fn generation(&self) -> NonZeroU32 {
        self.generation
    }

    /// Whether packets may go from one circuit or site to another.
    #[inline]
    pub fn branch_transit(&self) -> bool {
        self.branch_transit
    }

    /// The virtual network's address space.
    pub fn vnet(&self) -> &PrefixSet {
        &self.vnet
    }

    /// Whether the address, as a flow key holds it, is one of the gateway's own.
    #[inline]
    pub fn is_own(&self, version: Version, address: u128) -> bool {
        match version {
            Version::V4 => self.own_v4.contains(&(address as u32)),
            Version::V6 => self.own_v6.contains(&address),
        }
    }

    /// Whether the source is one that the virtual network may use.
    #[inline]
    pub(crate) fn is_vnet_source(&self, key: &FlowKey) -> bool {
        self.vnet_sources.contains(key.version, key.source)
    }

    /// A path.
    #[inline]
    pub fn path(&self, id: PathId) -> Option<&Path> {
        self.paths.get(usize::from(id.0)).map(|facts| &facts.path)
    }

    /// Every path, in the order of their ids.
    pub fn paths(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.paths.iter().map(|facts| &facts.path)
    }

    /// Whether the address lies in a subnet of the path itself.
    pub(crate) fn is_on_link(&self, id: PathId, version: Version, address: u128) -> bool {
        self.paths
            .get(usize::from(id.0))
            .is_some_and(|facts| facts.subnets.contains(version, address))
    }

    /// A circuit or site.
    #[inline]
    pub fn owner(&self, id: OwnerId) -> Option<&Owner> {
        self.owners.get(usize::from(id.0))
    }

    /// A virtual appliance's address.
    pub fn appliance(&self, id: ApplianceId) -> Option<IpAddr> {
        self.appliances.get(usize::from(id.0)).copied()
    }

    /// A path group.
    #[inline]
    pub fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(usize::from(id.0))
    }

    /// Every path group, in the order of their ids.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The links of the circuit that carries a tunnel; none for a path that no circuit carries.
    pub fn carriers(&self, id: PathId) -> &[PathId] {
        let facts = self.paths.get(usize::from(id.0));
        facts.map_or(&[], |facts| &facts.carriers)
    }

    /// What flows may do with each path, where `own` says what they might for all that is known of the path
    /// by itself: a tunnel over a circuit works no better than the best link of that circuit.
    pub fn usability<'a>(
        &'a self,
        own: impl Fn(PathId) -> Usability + 'a,
    ) -> impl Fn(PathId) -> Usability + 'a {
        move |id| carried(&self.paths, &own, id)
    }

    /// Writes every group's word for this health of the paths, each by itself; how many words changed.
    pub fn update(&self, usability: impl Fn(PathId) -> Usability) -> usize {
        let usability = self.usability(usability);
        let changed = |group: &&Group| group.update(&usability);
        self.groups.iter().filter(changed).count()
    }

    /// The name of a policy rule.
    pub fn rule_name(&self, id: RuleId) -> Option<&str> {
        self.rules
            .get(usize::from(id.0))
            .map(|rule| rule.name.as_str())
    }

    /// What a policy rule does, and the DSCP that it gives.
    #[inline]
    pub(crate) fn rule_action(&self, id: RuleId) -> (RuleAction, Option<u8>) {
        self.rules
            .get(usize::from(id.0))
            .map_or((RuleAction::Route, None), |rule| {
                (rule.action, rule.set_dscp)
            })
    }

    /// The group that a policy rule sends packets of this version to.
    pub fn rule_group(&self, id: RuleId, version: Version) -> Option<GroupId> {
        match (self.rule_action(id).0, version) {
            (RuleAction::Via { v4, .. }, Version::V4) => Some(v4),
            (RuleAction::Via { v6, .. }, Version::V6) => Some(v6),
            _ => None,
        }
    }

    /// The group that datagrams of tunnels over this circuit take.
    #[inline]
    pub fn underlay_group(&self, circuit: OwnerId, version: Version) -> Option<GroupId> {
        let (_, [v4, v6]) = self.underlays.iter().find(|(owner, _)| *owner == circuit)?;
        Some(match version {
            Version::V4 => *v4,
            Version::V6 => *v6,
        })
    }

    /// Every route with its standing: the effective-route table.
    pub fn rib(&self) -> &Rib {
        &self.rib
    }

    /// The group that packets to this route take; `None` if it leads to no path.
    pub fn route_group(&self, route: RouteId) -> Option<GroupId> {
        self.group_of(self.rib.route(route)?)
    }

    /// The group that packets to the prefix of these candidates take; `None` if none of them is active, or
    /// they lead to no path.
    pub fn group_of(&self, same: &[Ranked]) -> Option<GroupId> {
        same.first()
            .filter(|one| one.standing == Standing::Active)?;
        match self.index.known(same) {
            Some(Hop::Group(group)) => Some(group),
            _ => None,
        }
    }

    /// Memory of the forwarding table and of the routing table, bytes.
    pub fn memory(&self) -> (usize, usize) {
        (self.fib.memory(), self.rib.memory())
    }
}

/// The paths with what the decision needs to know of them.
fn facts(paths: Vec<Path>) -> Arc<[PathFacts]> {
    let of_owner = |owner: OwnerId| {
        let is_its = move |(_, path): &(u16, &Path)| path.owner == owner;
        (0..).zip(&paths).filter(is_its).map(|(id, _)| PathId(id))
    };
    let carriers: Vec<Box<[PathId]>> = paths
        .iter()
        .map(|path| path.over.into_iter().flat_map(of_owner).collect())
        .collect();
    let facts = paths.into_iter().zip(carriers);
    facts
        .map(|(path, carriers)| PathFacts {
            subnets: path.subnets.iter().copied().collect(),
            path,
            carriers,
        })
        .collect()
}

/// What flows may do with a path, given what is known of each by itself.
fn carried(paths: &[PathFacts], own: impl Fn(PathId) -> Usability, id: PathId) -> Usability {
    let facts = paths.get(usize::from(id.0));
    let carriers = facts.map_or(&[][..], |facts| &facts.carriers);
    let circuit = carriers.iter().map(|&link| own(link)).max();
    circuit.map_or_else(|| own(id), |circuit| circuit.min(own(id)))
}

/// Whether the owner, path or appliance that a candidate leads to is among so many.
fn is_there(
    candidate: &Candidate,
    [owners, paths, appliances]: [usize; 3],
) -> Result<(), BuildError> {
    let known = match candidate.next_hop {
        NextHop::Owner(owner) => usize::from(owner.0) < owners,
        NextHop::Path(path) => usize::from(path.0) < paths,
        NextHop::Appliance(id) => usize::from(id.0) < appliances,
        NextHop::Vnet | NextHop::Internet | NextHop::None => true,
    };
    if known {
        return Ok(());
    }
    Err(BuildError::Unknown {
        by: format!("the route to {}", candidate.prefix),
    })
}

#[cfg(test)]
mod tests;
