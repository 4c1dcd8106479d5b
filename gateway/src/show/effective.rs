//! The effective-route table: every candidate with its source, state, next hop, the paths that carry it, and
//! why it lost; all of them, or those that a filter wants.

use crate::plan::Plan;
use crate::show::describe::active;
use crate::show::refusal::Refusal;
use crate::show::view::{RouteFilter, RouteView};
use ipnet::IpNet;
use routing::group::Group;
use routing::path::PathId;
use routing::rib::{Candidate, NextHop, Ranked, RouteSource, Standing};

/// The routes that are wanted; by default all of them.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    prefix: Option<IpNet>,
    source: Option<RouteSource>,
    paths: Option<Vec<PathId>>,
}

impl Wanted {
    /// What a filter asks for, of this plan.
    ///
    /// # Errors
    /// A source or a path that is not there, with those that are.
    pub fn new(plan: &Plan, filter: &RouteFilter) -> Result<Self, Refusal> {
        let source = filter.source.as_deref().map(|name| {
            let known = RouteSource::ALL.into_iter().find(|s| s.name() == name);
            known.ok_or_else(|| {
                let names = RouteSource::ALL.map(RouteSource::name).join(", ");
                Refusal::bad(format!(
                    "no route has the source {name:?}; there are {names}"
                ))
            })
        });
        let paths = filter.path.as_deref().map(|name| {
            let is = |path: &str| {
                path == name
                    || path
                        .split_once('/')
                        .is_some_and(|(circuit, _)| circuit == name)
            };
            let of_name = plan.paths.iter().filter(|path| is(&path.name));
            let ids: Vec<PathId> = of_name.map(|path| path.id).collect();
            if ids.is_empty() {
                let names: Vec<&str> = plan.paths.iter().map(|path| path.name.as_str()).collect();
                return Err(Refusal::bad(format!(
                    "no circuit, link or site is named {name:?}; there are {}",
                    names.join(", ")
                )));
            }
            Ok(ids)
        });
        Ok(Self {
            prefix: filter.prefix,
            source: source.transpose()?,
            paths: paths.transpose()?,
        })
    }

    /// Whether it asks for this prefix: the one that it names, those inside it and those around it.
    fn wants_prefix(&self, prefix: &IpNet) -> bool {
        let of = self.prefix.as_ref();
        of.is_none_or(|of| of.contains(prefix) || prefix.contains(of))
    }

    fn wants(&self, plan: &Plan, candidate: &Candidate) -> bool {
        let over = |ids: &Vec<PathId>| match candidate.next_hop {
            NextHop::Owner(owner) => {
                let mut paths = plan.paths.iter().filter(|path| path.owner == owner);
                paths.any(|path| ids.contains(&path.id))
            }
            NextHop::Path(path) => ids.contains(&path),
            NextHop::Vnet | NextHop::Internet | NextHop::None | NextHop::Appliance(_) => false,
        };
        self.source.is_none_or(|source| source == candidate.source)
            && self.paths.as_ref().is_none_or(over)
    }
}

/// The effective routes by prefix, and within it by preference, with the paths that carry them now by the
/// groups' words.
pub fn routes(plan: &Plan, wanted: &Wanted) -> Vec<RouteView> {
    let snapshot = &plan.snapshot;
    let mut views = Vec::new();
    for same in snapshot.rib().prefixes() {
        let prefix = same.first().map(|one| one.candidate.prefix);
        if !prefix.is_some_and(|prefix| wanted.wants_prefix(&prefix)) {
            continue;
        }
        let group = snapshot.group_of(same);
        let group = group.and_then(|id| snapshot.group(id));
        let of_prefix = same.iter().filter(|one| wanted.wants(plan, &one.candidate));
        views.extend(of_prefix.map(|one| view(plan, group, one)));
    }
    views
}

fn view(plan: &Plan, group: Option<&Group>, ranked: &Ranked) -> RouteView {
    let candidate = &ranked.candidate;
    let in_group = ranked.standing == Standing::Active || ranked.standing.is_standby();
    let paths = match group.filter(|_| in_group) {
        Some(group) => carriers(plan, group, candidate.next_hop),
        None => Vec::new(),
    };
    let (kind, leads) = match candidate.next_hop {
        NextHop::Vnet => ("VnetLocal", false),
        NextHop::Internet => ("Internet", false),
        NextHop::None => ("None", false),
        NextHop::Appliance(_) => ("VirtualAppliance", true),
        NextHop::Owner(_) | NextHop::Path(_) => ("VirtualNetworkGateway", true),
    };
    RouteView {
        state: ranked.standing.state().to_owned(),
        source: candidate.source.name().to_owned(),
        prefix: candidate.prefix,
        next_hop_type: kind.to_owned(),
        next_hop: leads.then(|| plan.snapshot.next_hop_name(candidate.next_hop)),
        weight: candidate.weight,
        as_path_length: candidate.as_path_length,
        paths,
        standby: ranked.standing.is_standby(),
        why: ranked.standing.why(),
    }
}

/// The active members of a group that belong to one next hop.
fn carriers(plan: &Plan, group: &Group, next_hop: NextHop) -> Vec<String> {
    active(plan, group)
        .filter(|path| match next_hop {
            NextHop::Owner(owner) => path.owner == owner,
            NextHop::Path(id) => path.id == id,
            NextHop::Vnet | NextHop::Internet | NextHop::None | NextHop::Appliance(_) => false,
        })
        .map(|path| path.name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, KeyFiles};
    use routing::health::Usability;
    use std::num::NonZeroU32;
    use std::path::Path;

    fn example(down: &[&str]) -> Plan {
        let text = include_str!("../../../docs/examples/coexist.toml").to_owned();
        let loaded = config::parse(Path::new("f"), text, Path::new(""), KeyFiles::Skipped);
        Plan::new(&loaded.unwrap().config, NonZeroU32::MIN, |path| {
            if down.contains(&path.name.as_str()) {
                Usability::None
            } else {
                Usability::Full
            }
        })
        .unwrap()
    }

    fn wanted(plan: &Plan, filter: &RouteFilter) -> Vec<String> {
        let wanted = Wanted::new(plan, filter).unwrap();
        let shown = |route: RouteView| format!("{} {}", route.prefix, route.source);
        routes(plan, &wanted).into_iter().map(shown).collect()
    }

    #[test]
    fn the_failover_route_is_shown_invalid_and_takes_over_when_expressroute_is_down() {
        let of = |down: &[&str]| {
            let plan = example(down);
            let prefix: IpNet = "10.2.0.0/16".parse().unwrap();
            let routes = routes(&plan, &Wanted::default()).into_iter();
            let same: Vec<RouteView> = routes.filter(|route| route.prefix == prefix).collect();
            same
        };
        let routes = of(&[]);
        assert_eq!(routes.len(), 2);
        assert_eq!(routes[0].state, "Active");
        assert_eq!(
            routes[0].paths,
            ["er-sydney/primary", "er-sydney/secondary"]
        );
        assert_eq!(
            (routes[1].state.as_str(), routes[1].standby),
            ("Invalid", true)
        );
        assert!(routes[1].paths.is_empty());
        assert!(routes[1].why.as_ref().unwrap().contains("ExpressRoute"));
        let routes = of(&["er-sydney/primary", "er-sydney/secondary"]);
        assert!(routes[0].paths.is_empty());
        assert_eq!(routes[1].paths, ["onprem"]);
    }

    #[test]
    fn a_prefix_shows_itself_what_is_inside_it_and_what_is_around_it() {
        let plan = example(&[]);
        let filter = RouteFilter {
            prefix: Some("10.2.8.0/24".parse().unwrap()),
            ..RouteFilter::default()
        };
        assert_eq!(
            wanted(&plan, &filter),
            [
                "0.0.0.0/0 system",
                "10.0.0.0/8 system",
                "10.2.0.0/16 static",
                "10.2.0.0/16 site"
            ]
        );
        let filter = RouteFilter {
            prefix: Some("10.8.0.0/14".parse().unwrap()),
            source: Some("user_defined".to_owned()),
            ..RouteFilter::default()
        };
        assert_eq!(wanted(&plan, &filter), ["10.9.0.0/16 user_defined"]);
    }

    #[test]
    fn a_path_shows_the_routes_over_it_and_a_link_those_of_its_circuit() {
        let plan = example(&[]);
        let over = |path: &str| {
            let filter = RouteFilter {
                path: Some(path.to_owned()),
                ..RouteFilter::default()
            };
            wanted(&plan, &filter)
        };
        let sites = ["10.2.0.0/16 site", "10.3.0.0/16 site", "fd00:2::/48 site"];
        assert_eq!(over("onprem"), sites);
        let link = over("er-sydney/secondary");
        assert_eq!(
            link,
            [
                "10.2.0.0/16 static",
                "172.16.0.4/30 connected",
                "fd00:2::/48 static"
            ]
        );
        assert!(over("er-sydney").contains(&"172.16.0.0/30 connected".to_owned()));
        for filter in [
            RouteFilter {
                path: Some("onperm".to_owned()),
                ..RouteFilter::default()
            },
            RouteFilter {
                source: Some("ospf".to_owned()),
                ..RouteFilter::default()
            },
        ] {
            let refused = Wanted::new(&plan, &filter).unwrap_err();
            assert_eq!(refused.status, 2);
            assert!(refused.message.contains("there are"));
        }
    }
}
