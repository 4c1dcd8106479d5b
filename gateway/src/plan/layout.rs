//! A configuration's circuits and sites with their places: owners, paths, routes and policy as `routing` takes them.

use crate::config::rule;
use crate::config::schema::{
    Action, Circuit, Config, From, Link, NextHop, PointToSite, PolicyRule, Site, UserRoute,
};
use crate::config::value::POINT_TO_SITE;
use crate::plan::Origin;
use crate::plan::PathPlan;
use crate::plan::PlanError;
use ipnet::IpNet;
use routing::path::{Ingress, PathId, PathKind};
use routing::rib::{self, ApplianceId, Candidate, OwnerId, RouteSource};
use routing::snapshot::{self, Builder, Owner};
use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;

/// Circuits and sites with their places.
pub(super) struct Layout<'a> {
    circuits: &'a [Circuit],
    sites: &'a [Site],
    clients: Option<&'a PointToSite>,
    pub(super) paths: Vec<PathPlan>,
}

impl<'a> Layout<'a> {
    pub(super) fn new(config: &'a Config, places: &[PathPlan]) -> Self {
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
    pub(super) fn builder(
        &self,
        config: &Config,
        generation: NonZeroU32,
    ) -> Result<Builder, PlanError> {
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
    pub(super) fn underlays(&self) -> Vec<OwnerId> {
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
