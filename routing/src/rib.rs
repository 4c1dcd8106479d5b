//! The routing table: every route that is known, which of them count, and why the others lost.
//!
//! Longest prefix match is the forwarding table's business. Here, for each prefix (azure.md section 2):
//! 1. Inside the virtual network's own address space nothing learned through the gateway counts, be it
//!    ever so specific; a user-defined route does.
//! 2. Connected > user-defined > learned through the gateway (BGP, static, site) > system.
//! 3. Among learned ones ExpressRoute wins and VPN is the lower tier of the group. Within each of the
//!    two, connection weight comes before AS-path length, and equal ones share the load. What loses by
//!    these is a lower tier still: it takes over when all above it are down.

use crate::packet::Version;
use crate::path::{PathId, PathKind};
use crate::prefix::PrefixSet;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
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
    const fn rank(self) -> u8 {
        match self {
            Self::Connected => 0,
            Self::UserDefined => 1,
            Self::Static | Self::Site | Self::Bgp => 2,
            Self::System => 3,
        }
    }

    const fn is_learned(self) -> bool {
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

/// Index of a prefix with at least one active candidate, in prefix order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u32);

/// All candidates, sorted by prefix and within it by preference, and the routes chosen from them.
#[derive(Clone, Debug, Default)]
pub struct Rib {
    ranked: Box<[Ranked]>,
    /// For each route the place of its first candidate; it is active.
    routes: Box<[u32]>,
}

impl Rib {
    /// Ranks `candidates`. `vnet` is the virtual network's address space, `kind` says what an owner or
    /// a single path of a next hop is.
    pub fn new(
        candidates: Vec<Candidate>,
        vnet: &PrefixSet,
        kind: impl Fn(NextHop) -> Option<PathKind>,
    ) -> Self {
        let mut ranked: Vec<Ranked> = candidates
            .into_iter()
            .map(|candidate| Ranked {
                candidate,
                standing: Standing::Active,
                tier: 0,
            })
            .collect();
        for one in &mut ranked {
            if one.candidate.source.is_learned() && is_inside(one.candidate.prefix, vnet) {
                one.standing = Standing::InsideVnet;
            }
        }
        let vpn_last = |candidate: &Candidate| kind(candidate.next_hop) == Some(PathKind::Vpn);
        // By prefix; within one by preference, then by what only keeps equal ones in a fixed order.
        let preference = |one: &Ranked| {
            let candidate = &one.candidate;
            (
                one.standing == Standing::InsideVnet,
                candidate.source.rank(),
                vpn_last(candidate),
                Reverse(candidate.weight),
                candidate.as_path_length,
                candidate.next_hop,
                candidate.source,
            )
        };
        ranked.sort_unstable_by(|a, b| {
            prefix_key(a.candidate.prefix)
                .cmp(&prefix_key(b.candidate.prefix))
                .then_with(|| preference(a).cmp(&preference(b)))
        });
        let mut routes = Vec::new();
        let mut start = 0;
        for same in ranked.chunk_by_mut(|a, b| a.candidate.prefix == b.candidate.prefix) {
            if rank(same, vpn_last) {
                routes.push(start as u32);
            }
            start += same.len();
        }
        Self {
            ranked: ranked.into(),
            routes: routes.into(),
        }
    }

    /// Every candidate, by prefix and within it by preference.
    pub fn candidates(&self) -> &[Ranked] {
        &self.ranked
    }

    /// The prefixes that have an active candidate, each with its candidates in order of preference.
    pub fn routes(&self) -> impl Iterator<Item = (RouteId, &[Ranked])> {
        (0..self.routes.len() as u32)
            .map(RouteId)
            .filter_map(|id| Some((id, self.route(id)?)))
    }

    /// The candidates of a route's prefix, in order of preference; the first is active.
    pub fn route(&self, id: RouteId) -> Option<&[Ranked]> {
        let start = *self.routes.get(id.0 as usize)? as usize;
        self.same_prefix(start)
    }

    /// The candidates of exactly this prefix, in order of preference.
    pub fn prefix(&self, prefix: IpNet) -> &[Ranked] {
        let key = prefix_key(prefix);
        let start = self
            .ranked
            .partition_point(|one| prefix_key(one.candidate.prefix) < key);
        match self.same_prefix(start) {
            Some(same) if same.first().map(|one| one.candidate.prefix) == Some(prefix) => same,
            _ => &[],
        }
    }

    /// The longest prefix with an active candidate that holds the address, as the forwarding table finds
    /// it: for whoever asks for the route itself. One search for each length.
    pub fn longest(&self, version: Version, address: u128) -> Option<RouteId> {
        prefixes_of(version, address).find_map(|prefix| {
            let key = prefix_key(prefix);
            let place = self
                .routes
                .partition_point(|&start| self.key(start) < Some(key));
            let start = *self.routes.get(place)?;
            (self.key(start) == Some(key)).then_some(RouteId(place as u32))
        })
    }

    /// The prefix of the candidate at this place, as it is sorted.
    fn key(&self, place: u32) -> Option<(bool, u128, u8)> {
        let one = self.ranked.get(place as usize)?;
        Some(prefix_key(one.candidate.prefix))
    }

    /// The candidates from `start` on that have one prefix.
    fn same_prefix(&self, start: usize) -> Option<&[Ranked]> {
        let rest = self.ranked.get(start..)?;
        let prefix = rest.first()?.candidate.prefix;
        let count = rest
            .iter()
            .take_while(|one| one.candidate.prefix == prefix)
            .count();
        rest.get(..count)
    }
}

/// Sets standing and tier of the candidates of one prefix, sorted by preference. Whether any is active.
fn rank(same: &mut [Ranked], is_vpn: impl Fn(&Candidate) -> bool) -> bool {
    let Some(&Ranked {
        candidate: best,
        standing: Standing::Active,
        ..
    }) = same.first()
    else {
        return false;
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
        one.standing = if is_vpn(&candidate) != is_vpn(&best) {
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
            let equal = is_vpn(&above) == is_vpn(&candidate)
                && above.weight == candidate.weight
                && above.as_path_length == candidate.as_path_length;
            one.tier = previous.tier.saturating_add(u8::from(!equal));
            if candidate == above {
                one.standing = Standing::Duplicate;
            }
        }
        previous = Some(*one);
    }
    true
}

/// Sorts prefixes as the forwarding table wants them: by family, address, length.
fn prefix_key(prefix: IpNet) -> (bool, u128, u8) {
    match prefix {
        IpNet::V4(net) => (false, u128::from(net.network().to_bits()), net.prefix_len()),
        IpNet::V6(net) => (true, net.network().to_bits(), net.prefix_len()),
    }
}

/// Every prefix that holds the address, the longest first.
pub(crate) fn prefixes_of(version: Version, address: u128) -> impl Iterator<Item = IpNet> {
    let bits = match version {
        Version::V4 => 32,
        Version::V6 => 128,
    };
    (0..=bits).rev().filter_map(move |length| match version {
        Version::V4 => Ipv4Net::new((address as u32).into(), length)
            .ok()
            .map(|net| IpNet::V4(net.trunc())),
        Version::V6 => Ipv6Net::new(address.into(), length)
            .ok()
            .map(|net| IpNet::V6(net.trunc())),
    })
}

fn is_inside(prefix: IpNet, set: &PrefixSet) -> bool {
    let (version, first) = crate::packet::address_bits(prefix.network());
    let (_, last) = crate::packet::address_bits(prefix.broadcast());
    set.contains_range(version, first, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CIRCUIT: NextHop = NextHop::Owner(OwnerId(0));
    const SECOND_CIRCUIT: NextHop = NextHop::Owner(OwnerId(1));
    const SITE: NextHop = NextHop::Owner(OwnerId(2));

    fn kind(next_hop: NextHop) -> Option<PathKind> {
        match next_hop {
            CIRCUIT | SECOND_CIRCUIT => Some(PathKind::ExpressRoute),
            SITE => Some(PathKind::Vpn),
            _ => None,
        }
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn rib(candidates: &[Candidate]) -> Rib {
        let vnet = PrefixSet::from_iter([net("10.1.0.0/16")]);
        Rib::new(candidates.to_vec(), &vnet, kind)
    }

    fn route(prefix: &str, source: RouteSource, next_hop: NextHop) -> Candidate {
        Candidate::new(net(prefix), source, next_hop)
    }

    fn standings(rib: &Rib, prefix: &str) -> Vec<(NextHop, Standing, u8)> {
        rib.prefix(net(prefix))
            .iter()
            .map(|one| (one.candidate.next_hop, one.standing, one.tier))
            .collect()
    }

    #[test]
    fn a_user_defined_route_beats_bgp_and_bgp_beats_system() {
        let rib = rib(&[
            route("10.2.0.0/16", RouteSource::System, NextHop::Internet),
            route("10.2.0.0/16", RouteSource::Bgp, CIRCUIT),
            route("10.2.0.0/16", RouteSource::UserDefined, NextHop::None),
            route("10.3.0.0/16", RouteSource::System, NextHop::Internet),
            route("10.3.0.0/16", RouteSource::Bgp, CIRCUIT),
        ]);
        assert_eq!(
            standings(&rib, "10.2.0.0/16"),
            [
                (NextHop::None, Standing::Active, 0),
                (CIRCUIT, Standing::Source(RouteSource::UserDefined), 0),
                (
                    NextHop::Internet,
                    Standing::Source(RouteSource::UserDefined),
                    0
                ),
            ]
        );
        assert_eq!(
            standings(&rib, "10.3.0.0/16"),
            [
                (CIRCUIT, Standing::Active, 0),
                (NextHop::Internet, Standing::Source(RouteSource::Bgp), 0),
            ]
        );
    }

    #[test]
    fn the_vnets_own_space_beats_more_specific_bgp_but_not_a_user_defined_route() {
        let rib = rib(&[
            route("10.1.0.0/16", RouteSource::System, NextHop::Vnet),
            route("10.1.0.0/16", RouteSource::Bgp, CIRCUIT),
            route("10.1.7.0/24", RouteSource::Bgp, CIRCUIT),
            route("10.1.8.0/24", RouteSource::UserDefined, SITE),
            route("10.0.0.0/8", RouteSource::Bgp, CIRCUIT),
        ]);
        assert_eq!(
            standings(&rib, "10.1.0.0/16"),
            [
                (NextHop::Vnet, Standing::Active, 0),
                (CIRCUIT, Standing::InsideVnet, 0)
            ]
        );
        assert_eq!(
            standings(&rib, "10.1.7.0/24"),
            [(CIRCUIT, Standing::InsideVnet, 0)]
        );
        let routes: Vec<_> = rib
            .routes()
            .map(|(_, same)| same[0].candidate.prefix)
            .collect();
        assert_eq!(
            routes,
            [net("10.0.0.0/8"), net("10.1.0.0/16"), net("10.1.8.0/24")]
        );
    }

    #[test]
    fn expressroute_beats_vpn_for_the_same_prefix_and_vpn_stands_by() {
        let rib = rib(&[
            route("10.2.0.0/16", RouteSource::Site, SITE),
            route("10.2.0.0/16", RouteSource::Static, CIRCUIT),
        ]);
        assert_eq!(
            standings(&rib, "10.2.0.0/16"),
            [
                (CIRCUIT, Standing::Active, 0),
                (SITE, Standing::ExpressRouteFirst, 1)
            ]
        );
        assert!(Standing::ExpressRouteFirst.is_standby());
        assert_eq!(Standing::ExpressRouteFirst.state(), "Invalid");
    }

    #[test]
    fn weight_is_compared_before_as_path_length() {
        let heavy = Candidate {
            weight: 10,
            as_path_length: 5,
            ..route("10.2.0.0/16", RouteSource::Bgp, SECOND_CIRCUIT)
        };
        let short = Candidate {
            as_path_length: 1,
            ..route("10.2.0.0/16", RouteSource::Bgp, CIRCUIT)
        };
        let rib = rib(&[short, heavy]);
        assert_eq!(
            standings(&rib, "10.2.0.0/16"),
            [
                (SECOND_CIRCUIT, Standing::Active, 0),
                (CIRCUIT, Standing::Weight, 1)
            ]
        );
    }

    #[test]
    fn a_shorter_as_path_wins_and_equal_paths_share_the_load() {
        let bgp = |next_hop, as_path_length| Candidate {
            as_path_length,
            ..route("10.2.0.0/16", RouteSource::Bgp, next_hop)
        };
        let longer = rib(&[bgp(CIRCUIT, 3), bgp(SECOND_CIRCUIT, 2)]);
        assert_eq!(
            standings(&longer, "10.2.0.0/16"),
            [
                (SECOND_CIRCUIT, Standing::Active, 0),
                (CIRCUIT, Standing::AsPath, 1)
            ]
        );
        let equal = rib(&[bgp(CIRCUIT, 2), bgp(SECOND_CIRCUIT, 2), bgp(SITE, 1)]);
        assert_eq!(
            standings(&equal, "10.2.0.0/16"),
            [
                (CIRCUIT, Standing::Active, 0),
                (SECOND_CIRCUIT, Standing::Active, 0),
                (SITE, Standing::ExpressRouteFirst, 1)
            ]
        );
    }

    #[test]
    fn the_longest_route_is_that_of_the_longest_active_prefix() {
        let rib = rib(&[
            route("0.0.0.0/0", RouteSource::System, NextHop::Internet),
            route("10.0.0.0/8", RouteSource::Bgp, CIRCUIT),
            route("10.1.0.0/16", RouteSource::System, NextHop::Vnet),
            route("10.1.7.0/24", RouteSource::Bgp, CIRCUIT),
            route("fd00::/8", RouteSource::Static, SITE),
        ]);
        let longest = |address: &str| {
            let (version, bits) = crate::packet::address_bits(address.parse().unwrap());
            let route = rib.longest(version, bits)?;
            Some(rib.route(route)?.first()?.candidate.prefix)
        };
        assert_eq!(longest("10.2.0.1"), Some(net("10.0.0.0/8")));
        // Inside the virtual network BGP does not count.
        assert_eq!(longest("10.1.7.1"), Some(net("10.1.0.0/16")));
        assert_eq!(longest("192.0.2.1"), Some(net("0.0.0.0/0")));
        assert_eq!(longest("fd00::1"), Some(net("fd00::/8")));
        assert_eq!(longest("2001:db8::1"), None);
    }

    #[test]
    fn the_same_route_twice_is_one_route() {
        let twice = route("10.2.0.0/16", RouteSource::Static, CIRCUIT);
        assert_eq!(
            standings(&rib(&[twice, twice]), "10.2.0.0/16"),
            [
                (CIRCUIT, Standing::Active, 0),
                (CIRCUIT, Standing::Duplicate, 0)
            ]
        );
    }
}
