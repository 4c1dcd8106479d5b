//! The plan: what a configuration means for the data path, before any device is opened.
//!
//! 1. Circuits, then sites, become owners; links, then tunnels, become paths and ledger ports.
//! 2. Prefixes and user-defined routes become route candidates, the policy table its rules.
//! 3. The snapshot is built with the paths' health as it is, so that a reload never shows a wrong word.

pub(crate) mod difference;
pub(crate) mod limit;

use crate::config::rule;
use crate::config::schema::{
    Action, Circuit, Config, From, Link, NextHop, PointToSite, PolicyRule, Site, UserRoute,
};
use crate::config::value::POINT_TO_SITE;
use crate::plan::difference::Difference;
use ipnet::IpNet;
use routing::health::Usability;
use routing::path::{Ingress, PathId, PathKind};
use routing::rib::{self, ApplianceId, Candidate, Change, OwnerId, RouteSource};
use routing::snapshot::{self, BuildError, Builder, Owner, Snapshot};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::mem;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

/// Which entry of the configuration a path comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A link of an ExpressRoute circuit.
    Link {
        /// Place of the circuit in `expressroute.circuits`.
        circuit: usize,
        /// Place of the link in the circuit's `links`.
        link: usize,
    },
    /// The tunnel to a site.
    Site {
        /// Place of the site in `vpn.sites`.
        site: usize,
    },
    /// The tunnels of all point-to-site clients: which one is told by the address.
    PointToSite,
    /// A site or pool that a reload has taken away. It keeps its place, so that the others keep theirs, and
    /// gets it back if its name comes back.
    Gone,
}

/// A path of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPlan {
    /// Its index: the same as its place in [`Plan::paths`].
    pub id: PathId,
    /// `circuit/link`, the site's name, or `point-to-site`. It stays the same across a reload, where `id` may not.
    pub name: String,
    /// What kind of way out it is.
    pub kind: PathKind,
    /// The circuit or site that it belongs to.
    pub owner: OwnerId,
    /// Where it stands in the configuration.
    pub origin: Origin,
    /// The circuit that carries it, where one carries a tunnel.
    pub over: Option<OwnerId>,
}

/// What a configuration means for the data path.
#[derive(Clone, Debug)]
pub struct Plan {
    /// ExpressRoute links in file order, then sites in file order, then the clients' path. What reloads have
    /// added comes behind that.
    pub paths: Vec<PathPlan>,
    /// Names of the ledger's ports: `vnet`, `local`, `underlay`, then the paths.
    pub ports: Vec<String>,
    /// The forwarding state.
    pub snapshot: Arc<Snapshot>,
    /// Prefixes that kernel routes through the device are wanted for: those whose active route leads to
    /// a path, without the links' own subnets. Empty without `vnet.host_routes`.
    pub host_routes: Vec<IpNet>,
}

/// Why there is no plan. A validated configuration does not get here by its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// A rule or route names a circuit or site that the file does not have.
    UnknownPath {
        /// The rule or route.
        by: String,
        /// The name that it gives.
        name: String,
    },
    /// A route has a next hop that says too little.
    NextHop {
        /// The route.
        by: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// More of something than the forwarding state holds.
    Build(BuildError),
}

impl fmt::Display for PlanError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPath { by, name } => {
                write!(
                    formatter,
                    "{by} names {name}, which is neither a circuit nor a site"
                )
            }
            Self::NextHop { by, why } => write!(formatter, "{by} {why}"),
            Self::Build(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for PlanError {}

impl std::convert::From<BuildError> for PlanError {
    fn from(error: BuildError) -> Self {
        Self::Build(error)
    }
}

impl Plan {
    /// Makes the plan of a validated configuration. `generation` tells its snapshot from all before it
    /// in this process; `usability` is what flows may do with each path now.
    ///
    /// # Errors
    /// A name that is not there, or more of something than fits.
    pub fn new(
        config: &Config,
        generation: NonZeroU32,
        usability: impl Fn(&PathPlan) -> Usability,
    ) -> Result<Self, PlanError> {
        Self::with_places(&[], config, generation, usability)
    }

    /// The same after a reload: a path that was there keeps its id, whatever comes before it in the file now.
    ///
    /// # Errors
    /// As there.
    pub fn after(
        &self,
        config: &Config,
        generation: NonZeroU32,
        usability: impl Fn(&PathPlan) -> Usability,
    ) -> Result<Self, PlanError> {
        Self::with_places(&self.paths, config, generation, usability)
    }

    fn with_places(
        places: &[PathPlan],
        config: &Config,
        generation: NonZeroU32,
        usability: impl Fn(&PathPlan) -> Usability,
    ) -> Result<Self, PlanError> {
        let layout = Layout::new(config, places);
        let builder = layout.builder(config, generation)?;
        let paths = layout.paths;
        let snapshot = builder.build(|id| {
            paths
                .get(usize::from(id.0))
                .map_or(Usability::None, &usability)
        })?;
        Ok(Self::of(config, paths, snapshot))
    }

    /// The plan after a change of the configuration from `old`, which this plan is of, to `new`, where only
    /// routes differ; `None` where more does. It shares what stays, and takes milliseconds however many
    /// routes there are.
    ///
    /// # Errors
    /// As of [`Self::new`].
    pub fn with_routes(
        &self,
        (old, new): (&Config, &Config),
        generation: NonZeroU32,
        usability: impl Fn(&PathPlan) -> Usability,
    ) -> Result<Option<Self>, PlanError> {
        let mut before = Layout::new(old, &self.paths).builder(old, generation)?;
        let layout = Layout::new(new, &self.paths);
        let mut after = layout.builder(new, generation)?;
        let changes = changes(
            &mem::take(&mut before.routes),
            &mem::take(&mut after.routes),
        );
        if before != after || self.paths != layout.paths {
            return Ok(None);
        }
        let snapshot = self.snapshot.with_routes(generation, &changes, |id| {
            self.paths
                .get(usize::from(id.0))
                .map_or(Usability::None, &usability)
        })?;
        Ok(Some(Self::of(new, layout.paths, snapshot)))
    }

    fn of(config: &Config, paths: Vec<PathPlan>, snapshot: Snapshot) -> Self {
        let host_routes = if config.vnet.host_routes {
            host_routes(&snapshot)
        } else {
            Vec::new()
        };
        Self {
            ports: port_names(&paths),
            paths,
            snapshot: Arc::new(snapshot),
            host_routes,
        }
    }

    /// The words of the path groups for this health of the paths, in the order of the groups' ids.
    /// [`Snapshot::update`] writes them.
    pub fn words(&self, usability: impl Fn(PathId) -> Usability) -> Vec<u64> {
        let usability = self.snapshot.usability(usability);
        let groups = self.snapshot.groups();
        groups.iter().map(|group| group.word(&usability)).collect()
    }

    /// The path of this name.
    pub fn path_named(&self, name: &str) -> Option<&PathPlan> {
        self.live().find(|path| path.name == name)
    }

    /// The paths of the configuration, without those that are gone.
    pub fn live(&self) -> impl Iterator<Item = &PathPlan> {
        self.paths.iter().filter(|path| path.origin != Origin::Gone)
    }
}

fn port_names(paths: &[PathPlan]) -> Vec<String> {
    let fixed = ["vnet", "local", "underlay"].map(str::to_owned);
    let paths = paths.iter().map(|path| path.name.clone());
    fixed.into_iter().chain(paths).collect()
}

fn host_routes(snapshot: &Snapshot) -> Vec<IpNet> {
    let rib = snapshot.rib();
    let to_paths = rib.routes().filter_map(|same| {
        let candidate = same.first()?.candidate;
        let wanted =
            snapshot.group_of(same).is_some() && candidate.source != RouteSource::Connected;
        wanted.then_some(candidate.prefix)
    });
    to_paths.collect()
}

/// What turns these routes into those. Of a route that stands there twice the later one counts.
fn changes(old: &[Candidate], new: &[Candidate]) -> Vec<Change> {
    let key = |one: &Candidate| (one.prefix, one.source, one.next_hop);
    let Difference {
        before,
        old,
        new,
        behind,
    } = Difference::between(old, new);
    let touched: HashSet<_> = old.iter().chain(new).map(key).collect();
    // One that differs may stand there elsewhere too: then its places decide.
    let front = before.iter().filter(|one| touched.contains(&key(one)));
    let back = behind.iter().filter(|one| touched.contains(&key(one)));
    let (front, back): (Vec<_>, Vec<_>) = (front.copied().collect(), back.copied().collect());
    changes_of(
        &[&front, old, &back].concat(),
        &[&front, new, &back].concat(),
    )
}

fn changes_of(old: &[Candidate], new: &[Candidate]) -> Vec<Change> {
    let key = |one: &Candidate| (one.prefix, one.source, one.next_hop);
    let old: HashMap<_, _> = old.iter().map(|one| (key(one), one)).collect();
    let new: HashMap<_, _> = new.iter().map(|one| (key(one), one)).collect();
    let gone = old.keys().filter(|key| !new.contains_key(key));
    let gone = gone.map(|&(prefix, source, next_hop)| Change::Withdraw {
        prefix,
        source,
        next_hop,
    });
    let come = new.iter().filter(|(key, one)| old.get(key) != Some(one));
    gone.chain(come.map(|(_, one)| Change::Announce(**one)))
        .collect()
}

/// Circuits and sites with their places.
struct Layout<'a> {
    circuits: &'a [Circuit],
    sites: &'a [Site],
    clients: Option<&'a PointToSite>,
    paths: Vec<PathPlan>,
}

impl<'a> Layout<'a> {
    fn new(config: &'a Config, places: &[PathPlan]) -> Self {
        let circuits = config.expressroute.as_ref().map(|e| e.circuits.as_slice());
        let vpn = config.vpn.as_ref();
        let mut layout = Self {
            circuits: circuits.unwrap_or_default(),
            sites: vpn.map(|vpn| vpn.sites.as_slice()).unwrap_or_default(),
            clients: vpn.and_then(|vpn| vpn.point_to_site.as_ref()),
            paths: Vec::new(),
        };
        for (circuit, given) in layout.circuits.iter().enumerate() {
            for (link, one) in given.links.iter().enumerate() {
                let name = format!("{}/{}", given.name, one.name);
                layout.add(name, circuit, Origin::Link { circuit, link });
            }
        }
        let mut new: Vec<(&str, Origin)> = Vec::new();
        let sites = layout.sites.iter().enumerate();
        new.extend(sites.map(|(site, given)| (given.name.as_str(), Origin::Site { site })));
        new.extend(layout.clients.map(|_| (POINT_TO_SITE, Origin::PointToSite)));
        let mut known: HashMap<&str, Origin> = new.iter().copied().collect();
        let links = layout.paths.len();
        for place in places.iter().skip(links) {
            let origin = known.remove(place.name.as_str()).unwrap_or(Origin::Gone);
            layout.add(place.name.clone(), layout.owner_of(origin), origin);
        }
        new.retain(|(name, _)| known.contains_key(name));
        for (name, origin) in new {
            layout.add(name.to_owned(), layout.owner_of(origin), origin);
        }
        layout
    }

    /// The circuit that carries the tunnel of a site.
    fn over(&self, origin: Origin) -> Option<OwnerId> {
        let Origin::Site { site } = origin else {
            return None;
        };
        let over = self.sites.get(site)?.over.as_ref()?;
        let place = self
            .circuits
            .iter()
            .position(|circuit| circuit.name == *over);
        place.map(|place| OwnerId(place as u16))
    }

    /// Circuits, then sites, then the clients, then nobody, who owns what is gone.
    fn owner_of(&self, origin: Origin) -> usize {
        match origin {
            Origin::Link { circuit, .. } => circuit,
            Origin::Site { site } => self.circuits.len() + site,
            Origin::PointToSite => self.circuits.len() + self.sites.len(),
            Origin::Gone => {
                self.circuits.len() + self.sites.len() + usize::from(self.clients.is_some())
            }
        }
    }

    fn add(&mut self, name: String, owner: usize, origin: Origin) {
        let over = self.over(origin);
        self.paths.push(PathPlan {
            id: PathId(self.paths.len() as u16),
            name,
            kind: match origin {
                Origin::Link { .. } => PathKind::ExpressRoute,
                Origin::Site { .. } | Origin::PointToSite | Origin::Gone => PathKind::Vpn,
            },
            owner: OwnerId(owner as u16),
            origin,
            over,
        });
    }

    /// What the snapshot is built from.
    fn builder(&self, config: &Config, generation: NonZeroU32) -> Result<Builder, PlanError> {
        let mut builder = Builder::new(generation);
        builder.own_addresses = config.vnet.address.iter().map(IpNet::addr).collect();
        let links = self.links();
        builder
            .own_addresses
            .extend(links.flat_map(|link| link.address.iter().map(IpNet::addr)));
        builder.address_space.clone_from(&config.vnet.address_space);
        builder.vnet_sources = config
            .vnet
            .host_address
            .iter()
            .map(|address| IpNet::from(address.addr()))
            .collect();
        builder.branch_transit = config.failover.branch_transit;
        builder.owners = self.owners(&config.route);
        builder.underlays = self.underlays();
        builder.paths = self.snapshot_paths();
        (builder.routes, builder.appliances) = self.routes(&config.route)?;
        builder.policy = self.policy(config)?;
        Ok(builder)
    }

    fn links(&self) -> impl Iterator<Item = &'a Link> {
        self.circuits.iter().flat_map(|circuit| &circuit.links)
    }

    fn link(&self, origin: Origin) -> Option<&'a Link> {
        match origin {
            Origin::Link { circuit, link } => self.circuits.get(circuit)?.links.get(link),
            Origin::Site { .. } | Origin::PointToSite | Origin::Gone => None,
        }
    }

    /// Circuits and sites. A user-defined route over a site makes its prefix one that the site answers for.
    fn owners(&self, user: &[UserRoute]) -> Vec<Owner> {
        let leads_to = |route: &&UserRoute, site: &Site| match &route.next_hop {
            NextHop::Path(name) => *name == site.name,
            NextHop::VirtualNetworkGateway => self.circuits.is_empty() && self.sites.len() == 1,
            _ => false,
        };
        let circuits = self.circuits.iter().map(|circuit| Owner {
            name: circuit.name.clone(),
            ..Owner::default()
        });
        let sites = self.sites.iter().map(|site| Owner {
            name: site.name.clone(),
            allowed_sources: {
                let over = user.iter().filter(|route| leads_to(route, site));
                let over = over.map(|route| route.prefix);
                site.prefixes.iter().copied().chain(over).collect()
            },
            ..Owner::default()
        });
        let clients = self.clients.map(|clients| Owner {
            name: POINT_TO_SITE.to_owned(),
            allowed_sources: clients.address_pool.iter().copied().collect(),
            is_many: true,
        });
        let nobody = self.paths.iter().find(|path| path.origin == Origin::Gone);
        let nobody = nobody.map(|_| Owner::default());
        circuits.chain(sites).chain(clients).chain(nobody).collect()
    }

    fn snapshot_paths(&self) -> Vec<snapshot::Path> {
        let path = |plan: &PathPlan| {
            let link = self.link(plan.origin);
            // A tunnel carries both families; a link needs a neighbor of the family.
            let carries = |v4: bool| {
                plan.origin != Origin::Gone
                    && link.is_none_or(|link| link.neighbor.iter().any(|n| n.is_ipv4() == v4))
            };
            snapshot::Path {
                name: plan.name.clone(),
                kind: plan.kind,
                owner: plan.owner,
                subnets: link.map_or_else(Vec::new, |link| {
                    link.address.iter().map(IpNet::trunc).collect()
                }),
                v4: carries(true),
                v6: carries(false),
                over: plan.over,
            }
        };
        self.paths.iter().map(path).collect()
    }

    /// The configuration's routes, and the appliances that some of them lead to.
    fn routes(&self, user: &[UserRoute]) -> Result<(Vec<Candidate>, Vec<IpAddr>), PlanError> {
        let mut routes = Vec::new();
        let mut appliances: Vec<IpAddr> = Vec::new();
        let circuits = self
            .circuits
            .iter()
            .map(|circuit| (&circuit.prefixes, RouteSource::Static, circuit.weight));
        let sites = self
            .sites
            .iter()
            .map(|site| (&site.prefixes, RouteSource::Site, site.weight));
        // A pool is to clients what prefixes are to a site.
        let clients = self
            .clients
            .map(|clients| (&clients.address_pool, RouteSource::Site, 0));
        let all = circuits.chain(sites).chain(clients);
        for (owner, (prefixes, source, weight)) in all.enumerate() {
            let next_hop = rib::NextHop::Owner(OwnerId(owner as u16));
            let candidates = prefixes.iter().map(|&prefix| Candidate {
                weight,
                ..Candidate::new(prefix, source, next_hop)
            });
            routes.extend(candidates);
        }
        for route in user {
            let by = || format!("the route to {}", route.prefix);
            let wrong = |why| PlanError::NextHop { by: by(), why };
            let next_hop = match &route.next_hop {
                NextHop::None => rib::NextHop::None,
                NextHop::VnetLocal => rib::NextHop::Vnet,
                NextHop::Internet => rib::NextHop::Internet,
                NextHop::VirtualAppliance(address) => {
                    let address = address.ok_or_else(|| wrong("has no next_hop_ip"))?;
                    let known = appliances.iter().position(|known| *known == address);
                    let place = known.unwrap_or_else(|| {
                        appliances.push(address);
                        appliances.len() - 1
                    });
                    rib::NextHop::Appliance(ApplianceId(place as u16))
                }
                NextHop::VirtualNetworkGateway => match self.circuits.len() + self.sites.len() {
                    1 => rib::NextHop::Owner(OwnerId(0)),
                    _ => return Err(wrong("does not say which connection it goes over")),
                },
                NextHop::Path(name) => rib::NextHop::Owner(self.owner(name, by)?),
            };
            routes.push(Candidate::new(
                route.prefix,
                RouteSource::UserDefined,
                next_hop,
            ));
        }
        Ok((routes, appliances))
    }

    fn policy(&self, config: &Config) -> Result<Vec<snapshot::Rule>, PlanError> {
        let compiled = |rule: &PolicyRule| {
            let by = || format!("policy {}", rule.name);
            let action = match &rule.action {
                Action::Route => snapshot::Action::Route,
                Action::Drop => snapshot::Action::Drop,
                Action::Reject => snapshot::Action::Reject,
                Action::Via(names) => {
                    let owners = names.iter().map(|name| self.owner(name, by));
                    snapshot::Action::Via(owners.collect::<Result<_, _>>()?)
                }
            };
            Ok(snapshot::Rule {
                name: rule.name.clone(),
                matches: rule::compiled(config, &rule.matches, |from| self.ingress(from, by))?,
                action,
                set_dscp: rule.set_dscp,
            })
        };
        config.policy.iter().map(compiled).collect()
    }

    /// The ways in that a rule's `from` stands for.
    fn ingress(&self, from: &From, by: impl Fn() -> String) -> Result<Vec<Ingress>, PlanError> {
        let name = match from {
            From::Vnet => return Ok(vec![Ingress::Vnet]),
            From::Path(name) => name,
        };
        let owner = self.owner(name, by)?;
        let of_owner = self.paths.iter().filter(|path| path.owner == owner);
        Ok(of_owner.map(|path| Ingress::Path(path.id)).collect())
    }

    /// Circuits that sites are reached over, each once.
    fn underlays(&self) -> Vec<OwnerId> {
        let mut underlays = Vec::new();
        for circuit in self.paths.iter().filter_map(|path| path.over) {
            if !underlays.contains(&circuit) {
                underlays.push(circuit);
            }
        }
        underlays
    }

    fn owner(&self, name: &str, by: impl Fn() -> String) -> Result<OwnerId, PlanError> {
        let circuits = self.circuits.iter().map(|circuit| &circuit.name);
        let sites = self.sites.iter().map(|site| &site.name);
        let names = circuits.chain(sites).map(String::as_str);
        let mut names = names.chain(self.clients.map(|_| POINT_TO_SITE));
        let place = names.position(|known| known == name);
        let unknown = || PlanError::UnknownPath {
            by: by(),
            name: name.to_owned(),
        };
        place.map(|place| OwnerId(place as u16)).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, KeyFiles};
    use crate::telemetry::ledger::Port;
    use routing::decide::Verdict;
    use routing::packet::{FlowKey, Fragment, Headers, address_bits};
    use std::path::Path;

    fn example() -> Config {
        let text = include_str!("../../../docs/examples/coexist.toml").to_owned();
        config::parse(
            Path::new("coexist.toml"),
            text,
            Path::new(""),
            KeyFiles::Skipped,
        )
        .map_err(|report| report.render(false))
        .unwrap()
        .config
    }

    fn plan(config: &Config, usability: impl Fn(&PathPlan) -> Usability) -> Plan {
        Plan::new(config, NonZeroU32::MIN, usability).unwrap()
    }

    fn packet(source: &str, destination: &str, port: u16, dscp: u8) -> Headers {
        let (version, source) = address_bits(source.parse().unwrap());
        let (_, destination) = address_bits(destination.parse().unwrap());
        Headers {
            key: FlowKey {
                source,
                destination,
                source_port: 40_000,
                destination_port: port,
                protocol: 6,
                version,
            },
            transport: 20,
            payload: 40,
            total_len: 40,
            traffic_class: dscp << 2,
            hop_limit: 64,
            fragment: Fragment::Whole,
            dont_fragment: true,
            tcp_flags: 2,
        }
    }

    fn member(plan: &Plan, headers: &Headers) -> String {
        match plan.snapshot.decide(Ingress::Vnet, headers).verdict {
            Verdict::Path(path) => plan.paths[usize::from(path.0)].name.clone(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn paths_and_ports_stand_in_file_order_with_links_first() {
        let plan = plan(&example(), |_| Usability::Full);
        let names: Vec<&str> = plan.paths.iter().map(|path| path.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "er-sydney/primary",
                "er-sydney/secondary",
                "onprem",
                "point-to-site"
            ]
        );
        assert_eq!(
            plan.ports[..4],
            ["vnet", "local", "underlay", "er-sydney/primary"]
        );
        for path in &plan.paths {
            assert_eq!(plan.ports[usize::from(Port::path(path.id).0)], path.name);
        }
        assert_eq!(plan.path_named("onprem").unwrap().kind, PathKind::Vpn);
    }

    #[test]
    fn the_example_fails_over_from_expressroute_to_vpn() {
        let config = example();
        let to_onprem = packet("10.1.0.4", "10.2.0.1", 80, 0);
        let up = plan(&config, |_| Usability::Full);
        assert!(member(&up, &to_onprem).starts_with("er-sydney/"));
        let only_vpn = |path: &PathPlan| match path.kind {
            PathKind::Vpn => Usability::Full,
            PathKind::ExpressRoute => Usability::None,
        };
        let down = plan(&config, only_vpn);
        assert_eq!(member(&down, &to_onprem), "onprem");
        let words = up.words(|id| only_vpn(&up.paths[usize::from(id.0)]));
        let built: Vec<u64> = down
            .snapshot
            .groups()
            .iter()
            .map(|group| group.active().load())
            .collect();
        assert_eq!(words, built);
    }

    #[test]
    fn ipv6_takes_the_link_that_has_an_ipv6_neighbor() {
        let plan = plan(&example(), |_| Usability::Full);
        for port in 80..112 {
            let headers = packet("fd00:1::4", "fd00:2::1", port, 0);
            assert_eq!(member(&plan, &headers), "er-sydney/primary");
        }
    }

    #[test]
    fn the_examples_policy_holds() {
        let plan = plan(&example(), |_| Usability::Full);
        assert_eq!(
            member(&plan, &packet("10.1.0.4", "10.2.0.1", 23, 0)),
            "Drop(Policy)"
        );
        let backup = packet("10.1.4.9", "10.2.8.9", 80, 8);
        assert_eq!(member(&plan, &backup), "onprem");
        let plain = packet("10.1.4.9", "10.2.8.9", 80, 0);
        assert!(member(&plan, &plain).starts_with("er-sydney/"));
        assert_eq!(
            member(&plan, &packet("10.1.0.4", "10.9.0.1", 80, 0)),
            "Drop(RouteNone)"
        );
    }

    #[test]
    fn kernel_routes_are_wanted_for_what_paths_reach_and_nothing_else() {
        let mut config = example();
        let wanted: Vec<String> = plan(&config, |_| Usability::None)
            .host_routes
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            wanted,
            ["10.2.0.0/16", "10.3.0.0/16", "172.31.0.0/24", "fd00:2::/48"]
        );
        config.vnet.host_routes = false;
        assert!(plan(&config, |_| Usability::Full).host_routes.is_empty());
    }

    #[test]
    fn a_user_defined_default_route_over_a_site_takes_the_internets_place_both_ways() {
        let mut config = example();
        let default = |prefix: &str, next_hop| UserRoute {
            prefix: prefix.parse().unwrap(),
            next_hop,
        };
        let onprem = || NextHop::Path("onprem".to_owned());
        config.route.push(default("0.0.0.0/0", onprem()));
        config.route.push(default("::/0", onprem()));
        let plan = plan(&config, |_| Usability::Full);
        let to = |destination: &str| {
            let source = ["10.1.0.4", "fd00:1::4"][usize::from(destination.contains(':'))];
            member(&plan, &packet(source, destination, 80, 0))
        };
        assert_eq!(to("192.0.2.1"), "onprem");
        assert_eq!(to("2600::1"), "onprem");
        assert!(to("10.2.0.1").starts_with("er-sydney/"));
        // The system routes for private addresses stay.
        assert_eq!(to("10.77.0.1"), "Drop(RouteNone)");
        let site = plan.path_named("onprem").unwrap().id;
        let back = |source: &str| {
            let headers = packet(source, "10.1.0.4", 80, 0);
            plan.snapshot.decide(Ingress::Path(site), &headers).verdict
        };
        assert_eq!(back("192.0.2.1"), Verdict::Vnet);
        assert_eq!(
            back("10.1.0.9"),
            Verdict::Drop(routing::reason::DropReason::SpoofedSource)
        );
    }

    #[test]
    fn an_appliance_gets_its_packets_through_the_virtual_network() {
        let mut config = example();
        let firewall = "10.1.0.9".parse().unwrap();
        config.route[0].next_hop = NextHop::VirtualAppliance(Some(firewall));
        let plan = plan(&config, |_| Usability::Full);
        let from_circuit = Ingress::Path(PathId(0));
        let decision = plan
            .snapshot
            .decide(from_circuit, &packet("10.2.0.1", "10.9.0.1", 80, 0));
        assert_eq!(decision.verdict, Verdict::Vnet);
        let same = plan.snapshot.rib().prefix("10.9.0.0/16".parse().unwrap());
        let shown = plan.snapshot.next_hop_name(same[0].candidate.next_hop);
        assert_eq!(shown, "10.1.0.9");
    }

    #[test]
    fn the_heavier_connection_is_used_first_and_the_gateway_type_means_the_only_one() {
        let mut config = example();
        config.vpn.as_mut().unwrap().sites[0].weight = 100;
        config.expressroute.as_mut().unwrap().circuits[0].weight = 50;
        let weighed = plan(&config, |_| Usability::Full);
        let same = weighed
            .snapshot
            .rib()
            .prefix("10.2.0.0/16".parse().unwrap());
        let weights: Vec<u32> = same.iter().map(|one| one.candidate.weight).collect();
        // ExpressRoute first, whatever the weights.
        assert_eq!(weights, [50, 100]);
        config.expressroute = None;
        config.policy.clear();
        config.route[0].next_hop = NextHop::VirtualNetworkGateway;
        let alone = plan(&config, |_| Usability::Full);
        let to_route = packet("10.1.0.4", "10.9.0.1", 80, 0);
        assert_eq!(member(&alone, &to_route), "onprem");
        let example = example();
        config.expressroute = example.expressroute;
        let refused = Plan::new(&config, NonZeroU32::MIN, |_| Usability::Full);
        assert!(refused.is_err());
    }

    #[test]
    fn a_reload_of_routes_alone_shares_the_rest_and_ends_where_a_new_plan_does() {
        let old = example();
        let before = plan(&old, |_| Usability::Full);
        let second = NonZeroU32::new(2).unwrap();
        let changed = |new: &Config| {
            before
                .with_routes((&old, new), second, |_| Usability::Full)
                .unwrap()
        };
        let mut new = old.clone();
        let circuit = &mut new.expressroute.as_mut().unwrap().circuits[0];
        circuit.prefixes = vec![
            "10.2.0.0/16".parse().unwrap(),
            "10.6.0.0/16".parse().unwrap(),
        ];
        circuit.weight = 7;
        new.route.clear();
        let shared = changed(&new).unwrap();
        let built = plan(&new, |_| Usability::Full);
        let candidates =
            |plan: &Plan| -> Vec<_> { plan.snapshot.rib().candidates().copied().collect() };
        assert_eq!(candidates(&shared), candidates(&built));
        assert_eq!(shared.host_routes, built.host_routes);
        for destination in ["10.2.0.1", "10.6.0.1", "10.9.0.1", "10.3.0.1"] {
            let headers = packet("10.1.0.4", destination, 80, 0);
            assert_eq!(member(&shared, &headers), member(&built, &headers));
        }
        assert_eq!(shared.snapshot.generation(), second);
        // A site's prefixes are also the sources that it may use, and a policy is no route.
        let mut new = old.clone();
        new.vpn.as_mut().unwrap().sites[0].prefixes.pop();
        assert!(changed(&new).is_none());
        let mut new = old.clone();
        new.policy.clear();
        assert!(changed(&new).is_none());
    }

    #[test]
    fn paths_keep_their_places_across_reloads_and_get_them_back() {
        let mut config = example();
        let first = plan(&config, |_| Usability::Full);
        let vpn = config.vpn.as_mut().unwrap();
        let mut branch = vpn.sites[0].clone();
        branch.name = "branch".to_owned();
        branch.prefixes = vec!["10.7.0.0/16".parse().unwrap()];
        vpn.sites.insert(0, branch);
        let next = |before: &Plan, config: &Config| {
            before
                .after(config, NonZeroU32::MIN, |_| Usability::Full)
                .unwrap()
        };
        let second = next(&first, &config);
        assert_eq!(
            second.ports,
            [&first.ports[..], &["branch".to_owned()]].concat()
        );
        assert_eq!(
            member(&second, &packet("10.1.0.4", "10.7.0.1", 80, 0)),
            "branch"
        );
        assert_eq!(
            member(&second, &packet("10.1.0.4", "10.3.0.1", 80, 0)),
            "onprem"
        );

        let sites = mem::take(&mut config.vpn.as_mut().unwrap().sites);
        config.policy.clear();
        let third = next(&second, &config);
        assert_eq!(third.ports, second.ports);
        assert!(third.path_named("onprem").is_none());
        assert_eq!(
            member(&third, &packet("10.1.0.4", "10.7.0.1", 80, 0)),
            "Drop(RouteNone)"
        );
        let id = |plan: &Plan, name| plan.path_named(name).unwrap().id;
        config.vpn.as_mut().unwrap().sites = sites;
        let fourth = next(&third, &config);
        for name in ["onprem", "branch", "point-to-site"] {
            assert_eq!(id(&fourth, name), id(&second, name), "{name}");
        }
    }

    #[test]
    fn a_client_reaches_the_virtual_network_always_and_others_with_transit_only() {
        let mut config = example();
        let from_client = |plan: &Plan, destination| {
            let path = plan.path_named("point-to-site").unwrap().id;
            let headers = packet("172.31.0.2", destination, 80, 0);
            plan.snapshot.decide(Ingress::Path(path), &headers).verdict
        };
        let off = plan(&config, |_| Usability::Full);
        assert_eq!(from_client(&off, "10.1.0.4"), Verdict::Vnet);
        for other in ["172.31.0.3", "10.3.0.1"] {
            let refused = Verdict::Drop(routing::reason::DropReason::BranchTransit);
            assert_eq!(from_client(&off, other), refused, "{other}");
        }
        config.failover.branch_transit = true;
        let on = plan(&config, |_| Usability::Full);
        let clients = on.path_named("point-to-site").unwrap().id;
        assert_eq!(from_client(&on, "172.31.0.3"), Verdict::Path(clients));
        assert_eq!(
            from_client(&on, "10.3.0.1"),
            Verdict::Path(on.path_named("onprem").unwrap().id)
        );
        assert_eq!(
            from_client(&on, "172.31.0.2"),
            Verdict::Drop(routing::reason::DropReason::Hairpin)
        );
    }

    #[test]
    fn a_circuit_that_carries_several_sites_stands_once_among_those_that_do() {
        let mut config = example();
        let circuits = &mut config.expressroute.as_mut().unwrap().circuits;
        let mut other = circuits[0].clone();
        other.name = "er-perth".to_owned();
        other.prefixes = vec!["10.8.0.0/16".parse().unwrap()];
        circuits.push(other);
        let sites = &mut config.vpn.as_mut().unwrap().sites;
        for (number, over) in ["er-sydney", "er-perth", "er-sydney"].iter().enumerate() {
            let mut site = sites[0].clone();
            site.name = format!("site-{number}");
            site.over = Some((*over).to_owned());
            sites.push(site);
        }
        let paths = &plan(&config, |_| Usability::Full).paths;
        let inputs = paths.iter().filter_map(|path| path.over);
        assert_eq!(inputs.count(), 3);
        let layout = Layout::new(&config, &[]);
        assert_eq!(layout.underlays(), [OwnerId(0), OwnerId(1)]);
    }

    #[test]
    fn a_name_that_is_not_there_is_an_error() {
        let mut config = example();
        config.route[0].next_hop = NextHop::Path("nowhere".to_owned());
        let error = Plan::new(&config, NonZeroU32::MIN, |_| Usability::Full).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the route to 10.9.0.0/16 names nowhere, which is neither a circuit nor a site"
        );
    }
}
