//! The plan in words: the policy table, and what would become of a packet. The running
//! gateway and the offline `vng check` and `vng explain` say it with the same functions.

use crate::config::matches::{dscp_name, protocol_name};
use crate::config::rule;
use crate::config::schema::{Action, Addresses, Config, From as Origin, Match, PolicyRule};
use crate::pipeline::shape::Rates;
use crate::plan::limit;
use crate::plan::{self, PathPlan, Plan, PlanError};
use crate::show::clients::{self, ClientSession};
use crate::show::health::PathHealth;
use crate::show::refusal::Refusal;
use crate::show::sources::Sources;
use crate::show::view::{
    Alternative, ExplainedRoute, Explanation, PolicyView, Query, Rejected, ShaperLimit,
};
use crate::show::would_change;
use crate::telemetry::ledger::Sum;
use routing::explain;
use routing::group::Group;
use routing::packet::{FlowKey, Fragment, Headers, Version, address_bits, protocol};
use routing::path::{Ingress, PathId, PathKind};
use routing::policy::RuleId;
use routing::reason::DropReason;
use std::fmt::Display;

/// The members of a group that packets take now.
pub(super) fn active<'a>(
    plan: &'a Plan,
    group: &'a Group,
) -> impl Iterator<Item = &'a PathPlan> + 'a {
    let word = group.active().load();
    let members = (0_u32..).zip(group.members());
    members
        .filter(move |(bit, _)| word.checked_shr(*bit).unwrap_or(0) & 1 != 0)
        .filter_map(|(_, id)| path(plan, *id))
}

fn path(plan: &Plan, id: PathId) -> Option<&PathPlan> {
    plan.paths.get(usize::from(id.0))
}

/// The policy table, with the paths that each rule leads to now, and what it has decided so far; no hits
/// where nothing runs.
pub fn policy(config: &Config, plan: &Plan, hits: &[Sum]) -> Vec<PolicyView> {
    let shadows = rule::out_of_reach(config);
    let name = |place: usize| config.policy.get(place).map(|rule| rule.name.as_str());
    let view = |(index, rule): (usize, &PolicyRule)| {
        let id = RuleId(index as u16);
        let mut paths: Vec<String> = Vec::new();
        for version in [Version::V4, Version::V6] {
            let group = plan.snapshot.rule_group(id, version);
            let group = group.and_then(|group| plan.snapshot.group(group));
            for path in group.into_iter().flat_map(|group| active(plan, group)) {
                if !paths.contains(&path.name) {
                    paths.push(path.name.clone());
                }
            }
        }
        let shadow = shadows.iter().find(|shadow| shadow.rule == index);
        PolicyView {
            order: index + 1,
            name: rule.name.clone(),
            matches: match_text(&rule.matches),
            action: action_text(rule),
            paths,
            set_dscp: rule.set_dscp.map(dscp_name),
            hits: hits.get(index).copied(),
            out_of_reach: shadow.map(|shadow| match shadow.by.and_then(name) {
                Some(earlier) => format!("{earlier} takes all that it would match"),
                None => "its fields exclude one another".to_owned(),
            }),
        }
    };
    config.policy.iter().enumerate().map(view).collect()
}

/// What a rule does in one line.
fn action_text(rule: &PolicyRule) -> String {
    let action = match &rule.action {
        Action::Route => "route".to_owned(),
        Action::Drop => "drop".to_owned(),
        Action::Reject => "reject".to_owned(),
        Action::Via(paths) => format!("via {}", paths.join(", ")),
    };
    match rule.set_dscp {
        Some(dscp) => format!("{action}; DSCP {}", dscp_name(dscp)),
        None => action,
    }
}

/// A rule's match in one line; `any packet` for one that asks nothing.
fn match_text(matches: &Match) -> String {
    let mut parts = field_texts(matches);
    if let Some(not) = &matches.not {
        let not = field_texts(not).into_iter();
        parts.extend(not.map(|part| format!("not {part}")));
    }
    match matches.fragment {
        Some(true) => parts.push("fragments".to_owned()),
        Some(false) => parts.push("whole packets".to_owned()),
        None => {}
    }
    if parts.is_empty() {
        "any packet".to_owned()
    } else {
        parts.join("; ")
    }
}

fn field_texts(matches: &Match) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = |name: &str, values: Vec<String>| {
        if !values.is_empty() {
            parts.push(format!("{name} {}", values.join(", ")));
        }
    };
    let origin = |from: &Origin| match from {
        Origin::Vnet => "vnet".to_owned(),
        Origin::Path(name) => name.clone(),
    };
    let addresses = |addresses: &[Addresses]| {
        let text = |one: &Addresses| match one {
            Addresses::Prefix(prefix) => prefix.to_string(),
            Addresses::Set(name) => format!("@{name}"),
        };
        addresses.iter().map(text).collect()
    };
    let ports = |ports: &[(u16, u16)]| -> Vec<String> {
        let range = |&(first, last): &(u16, u16)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        };
        ports.iter().map(range).collect()
    };
    part("from", matches.from.iter().map(origin).collect());
    part("source", addresses(&matches.source));
    part("destination", addresses(&matches.destination));
    let protocols = matches.protocol.iter().map(|&n| protocol_name(n));
    part("protocol", protocols.collect());
    part("source port", ports(&matches.source_port));
    part("destination port", ports(&matches.destination_port));
    part("ICMP type", texts(&matches.icmp_type));
    let dscps = matches.dscp.iter().map(|&n| dscp_name(n));
    part("DSCP", dscps.collect());
    parts
}

fn texts<T: Display>(values: &[T]) -> Vec<String> {
    values.iter().map(T::to_string).collect()
}

/// What would become of a packet. `health` says the state of a path, where it is known, `session` that of a client.
///
/// # Errors
/// Addresses of two IP versions, or a name that is no ingress.
pub fn explain(
    config: &Config,
    plan: &Plan,
    query: &Query,
    health: impl Fn(PathId) -> Option<PathHealth>,
    session: impl Fn(&str) -> ClientSession,
) -> Result<Explanation, Refusal> {
    let (ingress, client) = match clients::named(config, plan, &query.from) {
        Some((ingress, client)) => (ingress, Some(client)),
        None => (ingress(plan, &query.from)?, None),
    };
    let headers = headers(query)?;
    let decision = plan.snapshot.decide(ingress, &headers);
    let told = plan.snapshot.explain_decision(&headers, &decision);
    let out = told
        .member
        .as_deref()
        .and_then(|name| plan.path_named(name));
    let from = match ingress {
        Ingress::Path(id) => path(plan, id),
        Ingress::Vnet | Ingress::Local => None,
    };
    if let Some(refused) = clients::refused(config, from, client, query.source) {
        return Ok(refused);
    }
    // From branch to branch a packet is held to the limits of both, to those they share once.
    let mut limits: Vec<ShaperLimit> = Vec::new();
    let mut flow_limits = Vec::new();
    if told.verdict == "forward" {
        flow_limits = would_change::flow_limits(config, [from, out]);
        for line in [from, out]
            .into_iter()
            .flatten()
            .flat_map(|p| shaper(config, p))
        {
            if !limits.contains(&line) {
                limits.push(line);
            }
        }
    }
    let mut explanation = Explanation::from(told);
    if explanation.reason == DropReason::SpoofedSource.name() {
        let sources = Sources::of(config, plan, ingress);
        explanation.story.pop();
        explanation
            .story
            .push(sources.why(&query.from, query.source));
        explanation.allowed_sources = sources.listed();
    }
    let mut explanation = Explanation {
        health: out
            .and_then(|path| health(path.id))
            .map(|health| health.told),
        shaper: limits,
        flow_limits,
        set_dscp: would_change::dscp_of(&decision),
        group: would_change::members(plan, &decision, &health),
        would_change: would_change::would_change(plan, ingress, &headers, &health),
        ..explanation
    };
    clients::arrive(&mut explanation, config, out, query.destination, session);
    Ok(explanation)
}

impl From<explain::Explanation> for Explanation {
    fn from(told: explain::Explanation) -> Self {
        let rejected = |one: explain::Rejected| match one {
            explain::Rejected::Route { route, why } => Rejected {
                what: Alternative::Route(route),
                why,
            },
            explain::Rejected::Path { path, why } => Rejected {
                what: Alternative::Path(path),
                why,
            },
        };
        Self {
            verdict: told.verdict.to_owned(),
            reason: told.reason.to_owned(),
            policy: told.policy,
            route: told.route.map(|route| ExplainedRoute {
                prefix: route.prefix,
                source: route.source.to_owned(),
            }),
            path: told.path,
            member: told.member,
            rejected: told.rejected.into_iter().map(rejected).collect(),
            story: told.story,
            allowed_sources: Vec::new(),
            health: None,
            shaper: Vec::new(),
            flow_limits: Vec::new(),
            set_dscp: None,
            group: Vec::new(),
            would_change: Vec::new(),
        }
    }
}

impl From<PlanError> for Refusal {
    fn from(error: PlanError) -> Self {
        Self::bad(error.to_string())
    }
}

/// `vnet`, a path, or a circuit, which stands for its first link.
pub(crate) fn ingress(plan: &Plan, from: &str) -> Result<Ingress, Refusal> {
    if from == "vnet" {
        return Ok(Ingress::Vnet);
    }
    let of_circuit = |name: &str| name.split_once('/').is_some_and(|(c, _)| c == from);
    let found = plan
        .path_named(from)
        .or_else(|| plan.live().find(|path| of_circuit(&path.name)));
    found.map(|path| Ingress::Path(path.id)).ok_or_else(|| {
        let names: Vec<&str> = plan.live().map(|path| path.name.as_str()).collect();
        Refusal::bad(format!(
            "nothing is named {from:?}; there are vnet, {}",
            names.join(", ")
        ))
    })
}

/// The headers of the packet that a query describes: whole, without payload, TTL 64.
fn headers(query: &Query) -> Result<Headers, Refusal> {
    let (version, source) = address_bits(query.source);
    let (other, destination) = address_bits(query.destination);
    if version != other {
        return Err(Refusal::bad(format!(
            "{} and {} are of different IP versions",
            query.source, query.destination
        )));
    }
    let (header, icmp, echo) = match version {
        Version::V4 => (20, 1, 8),
        Version::V6 => (40, protocol::ICMPV6, 128),
    };
    let is_icmp = query.protocol == icmp;
    let has_ports = matches!(query.protocol, protocol::TCP | protocol::UDP);
    let icmp_type = query.icmp_type.unwrap_or(echo);
    let transport = match query.protocol {
        protocol::TCP => 20,
        protocol::UDP => 8,
        _ => 0,
    };
    Ok(Headers {
        key: FlowKey {
            source,
            destination,
            source_port: if has_ports { query.source_port } else { 0 },
            destination_port: match (has_ports, is_icmp) {
                (true, _) => query.destination_port,
                (false, true) => u16::from(icmp_type) << 8,
                (false, false) => 0,
            },
            protocol: query.protocol,
            version,
        },
        transport: header,
        payload: header + transport,
        total_len: u32::from(header + transport),
        traffic_class: (query.dscp & 0x3F) << 2,
        hop_limit: 64,
        fragment: Fragment::Whole,
        dont_fragment: true,
        tcp_flags: 0,
    })
}

/// The limits in force that a packet over this path is held to, one line each; none where nothing is
/// shaped.
fn shaper(config: &Config, path: &PathPlan) -> Vec<ShaperLimit> {
    let limits = match path.kind {
        PathKind::ExpressRoute => {
            let sku = config.expressroute.as_ref().map_or("", |e| e.sku.as_str());
            vec![("ExpressRoute", sku, limit::expressroute(config))]
        }
        PathKind::Vpn => {
            let sku = config.vpn.as_ref().map_or("", |vpn| vpn.sku.as_str());
            let (gateway, tunnel) = limit::vpn(config);
            let mut limits = vec![("Vpn", sku, gateway)];
            if path.origin != plan::Origin::PointToSite {
                limits.push(("tunnel", path.name.as_str(), tunnel));
            }
            limits
        }
    };
    let limit = |(kind, name, rates): (&str, &str, Rates)| ShaperLimit {
        kind: kind.to_owned(),
        name: name.to_owned(),
        limit_bps: rates.bits_per_second,
        limit_pps: rates.packets_per_second,
    };
    let limits = limits.into_iter().map(limit);
    limits
        .filter(|one| one.limit_bps.is_some() || one.limit_pps.is_some())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, KeyFiles};
    use crate::show::view::MemberHealth;
    use routing::health::Usability;
    use std::num::NonZeroU32;
    use std::path::Path;

    fn example(down: &[&str]) -> (Config, Plan) {
        let text = include_str!("../../../docs/examples/coexist.toml").to_owned();
        let loaded = config::parse(Path::new("f"), text, Path::new(""), KeyFiles::Skipped);
        let config = loaded.unwrap().config;
        let plan = Plan::new(&config, NonZeroU32::MIN, |path| {
            if down.contains(&path.name.as_str()) {
                Usability::None
            } else {
                Usability::Full
            }
        });
        (config, plan.unwrap())
    }

    fn query(source: &str, destination: &str) -> Query {
        Query {
            from: "vnet".into(),
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: 6,
            source_port: 40_000,
            destination_port: 443,
            icmp_type: None,
            dscp: 0,
        }
    }

    fn told(down: &[&str], query: &Query) -> Explanation {
        let (config, plan) = example(down);
        explain(
            &config,
            &plan,
            query,
            |id| {
                let is_down = down.contains(&plan.paths[usize::from(id.0)].name.as_str());
                Some(PathHealth {
                    told: MemberHealth {
                        state: if is_down { "down" } else { "up" }.into(),
                        ..MemberHealth::default()
                    },
                    usability: if is_down {
                        Usability::None
                    } else {
                        Usability::Full
                    },
                })
            },
            |_| ClientSession::Assumed,
        )
        .unwrap()
    }

    fn limit(kind: &str, name: &str, mbps: u64, limit_pps: Option<u64>) -> ShaperLimit {
        ShaperLimit {
            kind: kind.into(),
            name: name.into(),
            limit_bps: Some(mbps * 1_000_000),
            limit_pps,
        }
    }

    #[test]
    fn policy_reads_as_it_is_written() {
        let (config, plan) = example(&[]);
        let rules = policy(&config, &plan, &[]);
        assert_eq!(
            rules[0].matches,
            "from vnet; protocol tcp; destination port 23"
        );
        assert_eq!(
            (rules[0].action.as_str(), rules[0].paths.len()),
            ("drop", 0)
        );
        assert_eq!(rules[1].action, "via onprem, er-sydney");
        assert_eq!(rules[1].paths, ["onprem"]);
        assert_eq!(match_text(&Match::default()), "any packet");
    }

    #[test]
    fn an_explanation_names_rule_route_path_and_shaper() {
        let forward = told(&[], &query("10.1.0.4", "10.2.0.5"));
        assert_eq!(
            (forward.verdict.as_str(), forward.reason.as_str()),
            ("forward", "route")
        );
        assert_eq!(forward.path.as_deref(), Some("er-sydney"));
        assert_eq!(forward.health.unwrap().words(), "up");
        assert_eq!(
            forward.shaper,
            [limit("ExpressRoute", "ErGw1Az", 1_000, Some(100_000))]
        );
        let telnet = told(
            &[],
            &Query {
                destination_port: 23,
                ..query("10.1.0.4", "10.2.0.5")
            },
        );
        assert_eq!(
            (telnet.verdict.as_str(), telnet.policy.as_deref()),
            ("drop", Some("no-telnet"))
        );
        let failed = told(
            &["er-sydney/primary", "er-sydney/secondary"],
            &query("10.1.0.4", "10.2.0.5"),
        );
        assert_eq!(failed.member.as_deref(), Some("onprem"));
        assert_eq!(
            failed.shaper,
            [
                limit("Vpn", "VpnGw2", 1_000, None),
                limit("tunnel", "onprem", 1_200, Some(100_000)),
            ]
        );
    }

    #[test]
    fn an_unknown_ingress_is_refused_with_the_names_there_are() {
        let (config, plan) = example(&[]);
        let query = Query {
            from: "onperm".into(),
            ..query("10.2.0.5", "10.1.0.4")
        };
        let refusal =
            explain(&config, &plan, &query, |_| None, |_| ClientSession::Assumed).unwrap_err();
        assert_eq!(refusal.status, 2);
        assert!(
            refusal
                .message
                .contains("er-sydney/primary, er-sydney/secondary, onprem")
        );
        let circuit = Query {
            from: "er-sydney".into(),
            ..query
        };
        let told = explain(
            &config,
            &plan,
            &circuit,
            |_| None,
            |_| ClientSession::Assumed,
        )
        .unwrap();
        assert_eq!(told.path.as_deref(), Some("vnet"));
    }
}
