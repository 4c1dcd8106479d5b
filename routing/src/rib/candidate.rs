//! Candidates for the routing table, and which of one prefix's candidates count.

use super::is_inside;
use crate::path::{PathId, PathKind};
use crate::prefix::PrefixSet;
use ipnet::IpNet;
use serde::Serialize;
use std::cmp::Reverse;

/// Where a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteSource {
    /// The subnet of a link of the gateway.
    Connected,
    /// `[[route]]` of the configuration.
    UserDefined,
    /// A circuit's prefix in the configuration.
    Static,
    /// A site's prefix in the configuration.
    Site,
    /// BGP.
    Bgp,
    /// The virtual network's address space and Azure's default routes.
    System,
}

impl RouteSource {
    /// Every source, the best first.
    pub const ALL: [Self; 6] = [
        Self::Connected,
        Self::UserDefined,
        Self::Static,
        Self::Site,
        Self::Bgp,
        Self::System,
    ];

    /// The name in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::UserDefined => "user_defined",
            Self::Static => "static",
            Self::Site => "site",
            Self::Bgp => "bgp",
            Self::System => "system",
        }
    }

    /// Smaller is better.
    pub(super) const fn rank(self) -> u8 {
        match self {
            Self::Connected => 0,
            Self::UserDefined => 1,
            Self::Static | Self::Site | Self::Bgp => 2,
            Self::System => 3,
        }
    }

    pub(super) const fn is_learned(self) -> bool {
        self.rank() == 2
    }
}

/// Index of an owner of paths: a circuit or a site; circuits first, in file order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerId(pub u16);

/// Index of a virtual appliance's address among those of the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApplianceId(pub u16);

/// Where a route leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NextHop {
    /// The virtual network (VnetLocal).
    Vnet,
    /// The Internet, where the gateway has no way: such packets are dropped.
    Internet,
    /// Dropped (None).
    None,
    /// A host of the virtual network (VirtualAppliance): the packet is handed to the virtual network.
    Appliance(ApplianceId),
    /// All paths of a circuit or a site.
    Owner(OwnerId),
    /// One path.
    Path(PathId),
}

/// A route that might count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Destination, host bits zero.
    pub prefix: IpNet,
    /// Where it comes from.
    pub source: RouteSource,
    /// Where it leads to.
    pub next_hop: NextHop,
    /// Weight of the connection; larger is better. 0 by default.
    pub weight: u32,
    /// Length of the AS path; shorter is better. 0 for what is not BGP.
    pub as_path_length: u32,
}

impl Candidate {
    /// A route of weight 0 and without an AS path.
    pub fn new(prefix: IpNet, source: RouteSource, next_hop: NextHop) -> Self {
        Self {
            prefix: prefix.trunc(),
            source,
            next_hop,
            weight: 0,
            as_path_length: 0,
        }
    }
}

/// What became of a candidate. Azure shows all but `Active` as `Invalid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// In use.
    Active,
    /// Inside the virtual network's address space, which system routes keep.
    InsideVnet,
    /// A route of a better source has the same prefix.
    Source(RouteSource),
    /// ExpressRoute has the same prefix; this VPN route stands by in a lower tier.
    ExpressRouteFirst,
    /// A connection of more weight has the same prefix; this one stands by in a lower tier.
    Weight,
    /// A shorter AS path has the same prefix; this one stands by in a lower tier.
    AsPath,
    /// The same route from the same source a second time.
    Duplicate,
}

impl Standing {
    /// `Active` or `Invalid`, as Azure's effective-route table says.
    pub const fn state(self) -> &'static str {
        match self {
            Self::Active => "Active",
            _ => "Invalid",
        }
    }

    /// Whether it takes over when what is above it is down.
    pub const fn is_standby(self) -> bool {
        matches!(self, Self::ExpressRouteFirst | Self::Weight | Self::AsPath)
    }

    /// Why it lost; `None` for an active route.
    pub fn why(self) -> Option<String> {
        let why = match self {
            Self::Active => return None,
            Self::InsideVnet => {
                "the system route of the VNet's own address space wins, even over a more specific one"
            }
            Self::Source(source) => {
                return Some(format!("a {} route has the same prefix", source.name()));
            }
            Self::ExpressRouteFirst => {
                "ExpressRoute has the same prefix and wins; stands by as its failover"
            }
            Self::Weight => "a connection of more weight has the same prefix; stands by",
            Self::AsPath => "a shorter AS path has the same prefix; stands by",
            Self::Duplicate => "the same route is there already",
        };
        Some(why.to_owned())
    }
}

/// A candidate and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranked {
    /// The candidate.
    pub candidate: Candidate,
    /// What became of it.
    pub standing: Standing,
    /// Its tier in the path group: 0 is used first. Only for active and standby candidates.
    pub tier: u8,
}

/// In the order of preference, the best first.
type Preference = (bool, u8, bool, Reverse<u32>, u32, NextHop, RouteSource);

/// What ranks candidates: the virtual network's address space, and what kind of way a next hop is.
pub(crate) struct Ranking<'a, K> {
    /// The virtual network's address space.
    pub(crate) vnet: &'a PrefixSet,
    /// What an owner or a single path of a next hop is.
    pub(crate) kind: K,
}

impl<K: Fn(NextHop) -> Option<PathKind>> Ranking<'_, K> {
    /// A candidate before it is compared with others of its prefix.
    pub(super) fn enter(&self, candidate: Candidate) -> Ranked {
        let is_lost = candidate.source.is_learned() && is_inside(candidate.prefix, self.vnet);
        Ranked {
            candidate,
            standing: if is_lost {
                Standing::InsideVnet
            } else {
                Standing::Active
            },
            tier: 0,
        }
    }

    fn is_vpn(&self, candidate: &Candidate) -> bool {
        (self.kind)(candidate.next_hop) == Some(PathKind::Vpn)
    }

    /// Sorts candidates of one prefix: by preference, then by what only keeps equal ones in a fixed order.
    pub(super) fn preference(&self, one: &Ranked) -> Preference {
        let candidate = &one.candidate;
        (
            one.standing == Standing::InsideVnet,
            candidate.source.rank(),
            self.is_vpn(candidate),
            Reverse(candidate.weight),
            candidate.as_path_length,
            candidate.next_hop,
            candidate.source,
        )
    }

    /// Sets standing and tier of the candidates of one prefix, sorted by preference.
    pub(super) fn rank(&self, same: &mut [Ranked]) {
        let Some(&Ranked {
            candidate: best,
            standing: Standing::Active,
            ..
        }) = same.first()
        else {
            return;
        };
        let mut previous: Option<Ranked> = None;
        for one in same.iter_mut() {
            if one.standing == Standing::InsideVnet {
                continue;
            }
            let candidate = one.candidate;
            if candidate.source.rank() != best.source.rank() {
                one.standing = Standing::Source(best.source);
                continue;
            }
            one.standing = if self.is_vpn(&candidate) != self.is_vpn(&best) {
                Standing::ExpressRouteFirst
            } else if candidate.weight != best.weight {
                Standing::Weight
            } else if candidate.as_path_length != best.as_path_length {
                Standing::AsPath
            } else {
                Standing::Active
            };
            // A new tier begins where the preference falls; equal ones share the load.
            if let Some(previous) = previous {
                let above = previous.candidate;
                let equal = self.is_vpn(&above) == self.is_vpn(&candidate)
                    && above.weight == candidate.weight
                    && above.as_path_length == candidate.as_path_length;
                one.tier = previous.tier.saturating_add(u8::from(!equal));
                if candidate == above {
                    one.standing = Standing::Duplicate;
                }
            }
            previous = Some(*one);
        }
    }

    /// Ranks the candidates of one prefix, in any order.
    pub(super) fn ranked(&self, candidates: impl Iterator<Item = Candidate>) -> Vec<Ranked> {
        let mut same: Vec<Ranked> = candidates.map(|one| self.enter(one)).collect();
        same.sort_by_key(|one| self.preference(one));
        self.rank(&mut same);
        same
    }
}
