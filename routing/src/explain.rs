//! The decision about a packet as a story: what was chosen, and why each alternative was not.
//!
//! The verdict is [`Snapshot::decide`]'s own; the story is read off the decision, the routing table and
//! the group's word.

use crate::decide::{Decision, Verdict};
use crate::group::Group;
use crate::packet::{Headers, Version};
use crate::path::{Ingress, PathId};
use crate::reason::DropReason;
use crate::rib::{Candidate, NextHop, Ranked, RouteId, prefixes_of};
use crate::snapshot::Snapshot;
use ipnet::IpNet;
use serde::Serialize;

/// What the gateway does with a packet and why; `vng explain --json` prints it as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// `forward`, `drop` or `local`.
    pub verdict: &'static str,
    /// For a drop the drop reason's name; else what decided: `policy`, `route` or `own_address`.
    pub reason: &'static str,
    /// The policy rule that matched.
    pub policy: Option<String>,
    /// The route that won, unless policy decided.
    pub route: Option<Chosen>,
    /// The circuit or site that the packet takes, or `vnet`.
    pub path: Option<String>,
    /// The link or tunnel that it takes.
    pub member: Option<String>,
    /// Alternatives that lost.
    pub rejected: Vec<Rejected>,
    /// The steps in plain words.
    pub story: Vec<String>,
}

/// The route that won.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chosen {
    /// Its prefix.
    pub prefix: IpNet,
    /// Where it comes from.
    pub source: &'static str,
}

/// An alternative that lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Rejected {
    /// A route.
    Route {
        /// Prefix, source and next hop.
        route: String,
        /// Why it lost.
        why: String,
    },
    /// A link or tunnel.
    Path {
        /// Its name.
        path: String,
        /// Why it was not taken.
        why: String,
    },
}

impl Snapshot {
    /// Explains the decision about one packet.
    pub fn explain(&self, ingress: Ingress, headers: &Headers) -> Explanation {
        self.explain_decision(headers, &self.decide(ingress, headers))
    }

    /// Explains a decision of this snapshot, a worker's for instance.
    pub fn explain_decision(&self, headers: &Headers, decision: &Decision) -> Explanation {
        let policy = decision.rule.and_then(|rule| self.rule_name(rule));
        let by_policy = !decision.is_routed && decision.group.is_some();
        let route = self.route_of(headers, decision);
        let (verdict, reason) = match decision.verdict {
            Verdict::Local => ("local", "own_address"),
            Verdict::Drop(reason) => ("drop", reason.name()),
            Verdict::Vnet | Verdict::Path(_) if by_policy => ("forward", "policy"),
            Verdict::Vnet | Verdict::Path(_) => ("forward", "route"),
        };
        let group = decision.group.and_then(|group| self.group(group));
        let winner = route.and_then(|route| self.rib().route(route)?.first());
        let out = match decision.verdict {
            Verdict::Path(path) => Some(path),
            Verdict::Vnet | Verdict::Local | Verdict::Drop(_) => None,
        };
        let mut rejected = Vec::new();
        if was_routed(decision) {
            self.reject_routes(headers, route, policy, &mut rejected);
        }
        if let Some(group) = group {
            self.reject_members(group, decision, &mut rejected);
        }
        Explanation {
            verdict,
            reason,
            policy: policy.map(str::to_owned),
            route: winner.map(|one| Chosen {
                prefix: one.candidate.prefix,
                source: one.candidate.source.name(),
            }),
            path: match decision.verdict {
                Verdict::Vnet => Some("vnet".to_owned()),
                _ => out.and_then(|path| self.owner_name(path)),
            },
            member: out.map(|path| self.path_name(path)),
            rejected,
            story: self.story(headers, decision, policy, winner),
        }
    }

    /// The route that a decision followed; `None` if policy decided, or nothing holds the destination.
    /// The forwarding table does not keep it, so it is looked up anew.
    pub fn route_of(&self, headers: &Headers, decision: &Decision) -> Option<RouteId> {
        let key = &headers.key;
        let route = || self.rib().longest(key.version, key.destination);
        decision.is_routed.then(route).flatten()
    }

    fn path_name(&self, path: PathId) -> String {
        self.path(path)
            .map_or_else(String::new, |path| path.name.clone())
    }

    /// The circuit that carries this tunnel, where none of its links can be used.
    pub fn circuit_down(&self, path: PathId) -> Option<&str> {
        let over = self.path(path)?.over?;
        let is_unused = |version| {
            let group = self.underlay_group(over, version);
            let group = group.and_then(|group| self.group(group));
            group.is_none_or(|group| group.active().load() == 0)
        };
        let is_down = is_unused(Version::V4) && is_unused(Version::V6);
        let owner = self.owner(over).filter(|_| is_down)?;
        Some(&owner.name)
    }

    fn owner_name(&self, path: PathId) -> Option<String> {
        let owner = self.path(path)?.owner;
        self.owner(owner).map(|owner| owner.name.clone())
    }

    /// A route in words: prefix, source, next hop.
    pub fn describe(&self, candidate: &Candidate) -> String {
        format!(
            "{} {} via {}",
            candidate.prefix,
            candidate.source.name(),
            self.next_hop_name(candidate.next_hop)
        )
    }

    /// A next hop in words: Azure's types, or the name of a circuit, site or path.
    pub fn next_hop_name(&self, next_hop: NextHop) -> String {
        match next_hop {
            NextHop::Vnet => "VnetLocal".to_owned(),
            NextHop::Internet => "Internet".to_owned(),
            NextHop::None => "None".to_owned(),
            NextHop::Appliance(id) => self
                .appliance(id)
                .map_or_else(String::new, |address| address.to_string()),
            NextHop::Owner(owner) => self
                .owner(owner)
                .map_or_else(String::new, |owner| owner.name.clone()),
            NextHop::Path(path) => self.path_name(path),
        }
    }

    /// Every route that holds the destination and did not win, the longest prefix first.
    fn reject_routes(
        &self,
        headers: &Headers,
        route: Option<RouteId>,
        policy: Option<&str>,
        rejected: &mut Vec<Rejected>,
    ) {
        let winner = route
            .and_then(|route| self.rib().route(route))
            .and_then(<[Ranked]>::first);
        for prefix in prefixes_of(headers.key.version, headers.key.destination) {
            for one in self.rib().prefix(prefix) {
                if winner == Some(one) {
                    continue;
                }
                let why = match (one.standing.why(), winner, policy) {
                    (Some(why), _, _) => why,
                    (None, Some(winner), _) if winner.candidate.prefix == prefix => {
                        "shares the load of its prefix".to_owned()
                    }
                    (None, Some(winner), _) => {
                        format!("{} is longer", winner.candidate.prefix)
                    }
                    (None, None, Some(policy)) => format!("policy {policy} comes first"),
                    (None, None, None) => "not looked up".to_owned(),
                };
                rejected.push(Rejected::Route {
                    route: self.describe(&one.candidate),
                    why,
                });
            }
        }
    }

    /// Every member of the group but the one that the flow takes.
    fn reject_members(&self, group: &Group, decision: &Decision, rejected: &mut Vec<Rejected>) {
        let active = group.active().load();
        let tier_in_use = (active != 0)
            .then(|| group.tier_of(active.trailing_zeros() as u8))
            .flatten();
        for (member, &path) in (0_u8..).zip(group.members()) {
            let is_taken = decision.member == Some(member);
            let why = match decision.verdict {
                Verdict::Drop(reason) if is_taken => drop_in_words(reason).to_owned(),
                _ if is_taken => continue,
                _ if active >> member & 1 != 0 => "other flows take it".to_owned(),
                _ if tier_in_use < group.tier_of(member) && tier_in_use.is_some() => {
                    "stands by: taken when all before it are down".to_owned()
                }
                _ => match self.circuit_down(path) {
                    Some(circuit) => format!("{circuit}, which carries it, is down"),
                    None => "down, or waits out its hold-down".to_owned(),
                },
            };
            rejected.push(Rejected::Path {
                path: self.path_name(path),
                why,
            });
        }
    }

    fn story(
        &self,
        headers: &Headers,
        decision: &Decision,
        policy: Option<&str>,
        winner: Option<&Ranked>,
    ) -> Vec<String> {
        let mut story = Vec::new();
        if let Some(policy) = policy {
            story.push(format!("policy {policy} matches first"));
        } else if was_routed(decision) && !self.policy.is_empty() {
            story.push("no policy matches".to_owned());
        }
        if let Some(winner) = winner {
            story.push(format!(
                "{} is the longest prefix that holds {}",
                self.describe(&winner.candidate),
                headers.key.destination_address()
            ));
        }
        if let Some(group) = decision.group.and_then(|group| self.group(group)) {
            let active = group.active().load();
            let names: Vec<String> = (0_u8..)
                .zip(group.members())
                .filter(|&(member, _)| active >> member & 1 != 0)
                .map(|(_, &path)| self.path_name(path))
                .collect();
            story.push(match names.as_slice() {
                [] => "none of its paths is usable".to_owned(),
                [one] => format!("{one} is the path in use"),
                many => format!("flows are spread over {}", many.join(" and ")),
            });
        }
        story.push(match decision.verdict {
            Verdict::Vnet => "to the virtual network".to_owned(),
            Verdict::Local => format!(
                "{} is the gateway's own address",
                headers.key.destination_address()
            ),
            Verdict::Path(path) => format!("this flow takes {}", self.path_name(path)),
            Verdict::Drop(reason) => format!("dropped: {}", drop_in_words(reason)),
        });
        story
    }
}

/// Whether the decision went as far as policy or the route table.
fn was_routed(decision: &Decision) -> bool {
    decision.rule.is_some() || decision.is_routed || decision.group.is_some()
}

/// Why, for the reasons that a decision can give.
fn drop_in_words(reason: DropReason) -> &'static str {
    match reason {
        DropReason::Martian => "source or destination is never forwarded (RFC 1812, RFC 6890)",
        DropReason::SpoofedSource => "this ingress may not use that source",
        DropReason::Policy => "the policy says drop",
        DropReason::PolicyReject => "the policy says reject; the sender is told",
        DropReason::NoRoute => "no route leads to the destination",
        DropReason::RouteNone => "the route's next hop is None",
        DropReason::NoPath => "every path is down",
        DropReason::BranchTransit => "it came from another branch, and branch transit is off",
        DropReason::Hairpin => "it would go back to where it came from",
        other => other.name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::tests::{ONPREM, PRIMARY, builder, full, headers, net, nets, snapshot};
    use crate::policy::Match;
    use crate::rib::{OwnerId, RouteSource};
    use crate::snapshot::{Action, Rule};
    use proptest::prelude::*;

    fn why<'a>(explanation: &'a Explanation, what: &str) -> &'a str {
        explanation
            .rejected
            .iter()
            .find_map(|one| match one {
                Rejected::Route { route, why } if route == what => Some(why.as_str()),
                Rejected::Path { path, why } if path == what => Some(why.as_str()),
                _ => None,
            })
            .unwrap_or_else(|| panic!("{what} in {:?}", explanation.rejected))
    }

    #[test]
    fn a_failover_route_shows_who_stands_by_and_why() {
        let snapshot = snapshot();
        let packet = headers("10.1.0.4", "10.2.0.1", 80);
        let before = snapshot.explain(Ingress::Vnet, &packet);
        assert_eq!((before.verdict, before.reason), ("forward", "route"));
        assert_eq!(before.path.as_deref(), Some("er-sydney"));
        assert_eq!(
            before.route,
            Some(Chosen {
                prefix: net("10.2.0.0/16"),
                source: "static"
            })
        );
        assert!(why(&before, "onprem").starts_with("stands by"));
        assert!(why(&before, "10.2.0.0/16 site via onprem").starts_with("ExpressRoute"));
        assert_eq!(
            why(&before, "10.0.0.0/8 system via None"),
            "10.2.0.0/16 is longer"
        );
        snapshot.update(|path| full(path == ONPREM));
        let during = snapshot.explain(Ingress::Vnet, &packet);
        assert_eq!(during.member.as_deref(), Some("onprem"));
        assert!(why(&during, "er-sydney/primary").starts_with("down"));
    }

    #[test]
    fn a_policy_that_decides_is_named_and_the_routes_lost_to_it() {
        let mut builder = builder();
        builder.policy = vec![Rule {
            name: "over-vpn".to_owned(),
            matches: Match {
                destination: nets(&["10.2.8.0/24"]),
                ..Match::default()
            },
            action: Action::Via(vec![OwnerId(2)]),
            set_dscp: None,
        }];
        let snapshot = builder.build(|_| full(true)).unwrap();
        let told = snapshot.explain(Ingress::Vnet, &headers("10.1.0.4", "10.2.8.1", 80));
        assert_eq!((told.verdict, told.reason), ("forward", "policy"));
        assert_eq!(told.policy.as_deref(), Some("over-vpn"));
        assert_eq!(told.route, None);
        assert_eq!(
            why(&told, "10.2.0.0/16 static via er-sydney"),
            "policy over-vpn comes first"
        );
    }

    #[test]
    fn a_drop_names_its_reason() {
        let snapshot = snapshot();
        let told = snapshot.explain(Ingress::Path(PRIMARY), &headers("10.2.0.1", "10.5.0.1", 80));
        assert_eq!((told.verdict, told.reason), ("drop", "branch_transit"));
        assert_eq!(told.path, None);
        assert!(why(&told, "branch").contains("branch transit is off"));
        let told = snapshot.explain(Ingress::Vnet, &headers("10.9.9.9", "10.5.0.1", 80));
        assert_eq!((told.verdict, told.reason), ("drop", "spoofed_source"));
        assert_eq!(told.rejected, []);
    }

    #[test]
    fn the_json_has_the_published_keys() {
        let told = snapshot().explain(Ingress::Vnet, &headers("10.1.0.4", "10.2.0.1", 80));
        let json = serde_json::to_value(&told).unwrap();
        for key in [
            "verdict", "reason", "policy", "route", "path", "member", "rejected",
        ] {
            assert!(json.get(key).is_some(), "{key}");
        }
        assert_eq!(json["route"]["prefix"], "10.2.0.0/16");
        assert_eq!(json["route"]["source"], "static");
        assert_eq!(json["rejected"][0]["route"], "10.2.0.0/16 site via onprem");
        assert!(json["rejected"][0]["why"].is_string());
        assert!(json["policy"].is_null());
    }

    proptest! {
        #[test]
        fn the_explanations_verdict_is_the_decisions(
            from in prop::sample::select(vec![Ingress::Vnet, Ingress::Local, Ingress::Path(PRIMARY), Ingress::Path(ONPREM)]),
            source in prop::sample::select(vec!["10.1.0.4", "10.2.0.1", "10.3.0.1", "127.0.0.1", "10.1.255.4"]),
            destination in prop::sample::select(vec!["10.1.0.9", "10.1.255.4", "10.2.0.1", "10.3.0.1", "10.5.0.1", "10.9.0.1", "8.8.8.8", "172.16.0.1", "224.0.0.1"]),
            port in 0..4_u16,
            health in any::<u8>(),
            rule in 0..4_usize,
            branch_transit in any::<bool>(),
        ) {
            let mut builder = builder();
            builder.branch_transit = branch_transit;
            builder.routes.push(Candidate::new(net("10.9.0.0/16"), RouteSource::UserDefined, NextHop::None));
            let action = [Action::Route, Action::Drop, Action::Reject, Action::Via(vec![OwnerId(3), OwnerId(2)])][rule].clone();
            let matches = Match { destination_port: vec![(1, 2)], ..Match::default() };
            builder.policy = vec![Rule { name: "rule".to_owned(), matches, action, set_dscp: None }];
            let snapshot = builder.build(|path| full(health >> path.0 & 1 != 0)).unwrap();
            let packet = headers(source, destination, port);
            let decision = snapshot.decide(from, &packet);
            let told = snapshot.explain(from, &packet);
            let (verdict, member) = match decision.verdict {
                Verdict::Local => ("local", None),
                Verdict::Vnet => ("forward", None),
                Verdict::Path(path) => ("forward", snapshot.path(path).map(|p| p.name.clone())),
                Verdict::Drop(reason) => {
                    prop_assert_eq!(told.reason, reason.name());
                    ("drop", None)
                }
            };
            prop_assert_eq!(told.verdict, verdict);
            prop_assert_eq!(&told.member, &member);
            prop_assert_eq!(told.policy.is_some(), decision.rule.is_some());
            // The route that is named leads to where the forwarding table led.
            if decision.is_routed {
                let route = snapshot.route_of(&packet, &decision);
                prop_assert_eq!(route.and_then(|route| snapshot.route_group(route)), decision.group);
                prop_assert_eq!(told.route.is_some(), route.is_some());
            }
            // Whoever won is not among the losers.
            for one in &told.rejected {
                if let Rejected::Path { path, .. } = one {
                    prop_assert_ne!(Some(path), member.as_ref());
                }
            }
        }
    }
}
