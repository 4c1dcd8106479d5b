//! Rules of `[[policy]]` and `[[route]]`: names known, rules that can match.

use super::{Rules, found, joined};
use crate::config::schema::{Action, From, Match, NextHop, PolicyRule};
use crate::config::value::nearest;
use crate::config::walk::without_indices;
use ipnet::IpNet;
use routing::path::{Ingress, PathId};
use routing::policy::{Negated, Shadow, shadowed};

pub(super) fn check(rules: &mut Rules) {
    let known = Names::of(rules);
    let policy = &rules.config.policy;
    let name = |(index, rule): (usize, &PolicyRule)| {
        let key = format!("policy[{index}].name");
        (key, rule.name.clone(), format!("{:?}", rule.name))
    };
    let names: Vec<_> = policy.iter().enumerate().map(name).collect();
    rules.unique("is taken", names);
    for (index, of) in policy.iter().enumerate() {
        rule(rules, &known, &format!("policy[{index}]"), of);
    }
    unreachable(rules, policy);
    routes(rules, &known);
}

/// Names that policies and routes may use.
struct Names {
    /// Circuits and sites.
    paths: Vec<String>,
    /// Point-to-site clients: neither policies nor routes name them.
    clients: Vec<String>,
    /// Whether all names could be read; if not, an unknown one may be the unreadable one.
    complete: bool,
}

impl Names {
    fn of(rules: &Rules) -> Self {
        let config = rules.config;
        let circuits = config.expressroute.iter().flat_map(|e| &e.circuits);
        let sites = config.vpn.iter().flat_map(|vpn| &vpn.sites);
        let circuits = circuits.map(|circuit| circuit.name.clone());
        let paths: Vec<String> = circuits
            .chain(sites.map(|site| site.name.clone()))
            .collect();
        let clients = config.vpn.iter().flat_map(|vpn| &vpn.point_to_site);
        let clients = clients.flat_map(|p| p.clients.iter().map(|client| client.name.clone()));
        let clients: Vec<String> = clients.collect();
        let unread = |key: &str| match without_indices(key).as_str() {
            "expressroute.circuit"
            | "expressroute.circuit.name"
            | "vpn.site"
            | "vpn.site.name"
            | "vpn.point_to_site"
            | "vpn.point_to_site.client"
            | "vpn.point_to_site.client.name" => true,
            "vnet" | "policy" | "route" | "failover" | "control" => false,
            other => !other.contains('.'),
        };
        Self {
            complete: !rules.places.any_wrong(unread),
            paths,
            clients,
        }
    }
}

/// An error at `key` unless `name` is a circuit or a site. Where `vnet` may stand, the message says so.
fn known_name(rules: &mut Rules, known: &Names, key: &str, name: &str, vnet_too: bool) {
    let is = |names: &[String], name: &str| names.iter().any(|known| known == name);
    if !known.complete || is(&known.paths, name) {
        return;
    }
    let vnet = vnet_too.then_some("vnet");
    let allowed: Vec<&str> = known.paths.iter().map(String::as_str).chain(vnet).collect();
    let mut words = found(format!("found {name:?}")).allowed(if allowed.is_empty() {
        "the name of a circuit or site; the file has none".to_owned()
    } else {
        joined(&allowed)
    });
    let circuit = name.split_once('/').map(|(circuit, _)| circuit);
    if circuit.is_some_and(|circuit| is(&known.paths, circuit)) {
        words = words.help("name the circuit; its links share the flows");
    } else if is(&known.clients, name) {
        words = words.help("this is a client; match its address instead");
    } else if let Some(near) = nearest(name, allowed) {
        words = words.help(format!("did you mean \"{near}\"?"));
    }
    rules.error(key, "is the name of nothing in this file", words);
}

fn rule(rules: &mut Rules, known: &Names, key: &str, rule: &PolicyRule) {
    if rules.sound(&format!("{key}.match.from")) {
        for (index, from) in rule.matches.from.iter().enumerate() {
            if let From::Path(name) = from {
                let key = format!("{key}.match.from[{index}]");
                known_name(rules, known, &key, name, true);
            }
        }
    }
    if let Action::Via(paths) = &rule.action {
        let key = format!("{key}.action.via");
        if rules.sound(&key) {
            let mut names = Vec::new();
            for (index, name) in paths.iter().enumerate() {
                let key = format!("{key}[{index}]");
                known_name(rules, known, &key, name, false);
                names.push((key, name.clone(), format!("{name:?}")));
            }
            rules.unique("is listed twice", names);
        }
    }
    if !one_version(&rule.matches) && rules.sound(&format!("{key}.match")) {
        let words = found("source and destination are of different IP versions")
            .allowed("prefixes of the same IP version on both sides");
        rules.error(&format!("{key}.match"), "can match no packet", words);
    }
}

/// The first rule that matches wins, so a rule is never used if an earlier one matches all that it does.
fn unreachable(rules: &mut Rules, policy: &[PolicyRule]) {
    if !rules.sound("policy") {
        return;
    }
    // Names stand for paths here: which paths a circuit has makes no difference.
    let mut names = Vec::new();
    let mut matches = Vec::with_capacity(policy.len());
    for rule in policy {
        matches.push(routed(&rule.matches, &mut names));
    }
    for Shadow { rule, by } in shadowed(&matches) {
        let Some(of) = policy.get(rule) else {
            continue;
        };
        if let Some((by, earlier)) = by.and_then(|by| Some((by, policy.get(by)?))) {
            let words = found(format!("{:?} takes all that it would match", earlier.name))
                .also(format!("policy[{by}].match"), "this rule comes first")
                .help("put the narrower rule first, or leave it out");
            rules.warning(&format!("policy[{rule}]"), "is out of reach", words);
        } else if one_version(&of.matches) {
            let words = found("its fields exclude one another");
            let key = format!("policy[{rule}].match");
            rules.warning(&key, "can match no packet", words);
        }
    }
}

/// A rule's match as the data path has it, with a number for each name in `from`.
fn routed<'a>(given: &'a Match, names: &mut Vec<&'a str>) -> routing::policy::Match {
    let ingress = |from: &'a From| match from {
        From::Vnet => Ingress::Vnet,
        From::Path(name) => {
            let known = names.iter().position(|known| known == name);
            let place = known.unwrap_or_else(|| {
                names.push(name);
                names.len() - 1
            });
            Ingress::Path(PathId(u16::try_from(place).unwrap_or(u16::MAX)))
        }
    };
    routing::policy::Match {
        from: given.from.iter().map(ingress).collect(),
        source: given.source.clone(),
        destination: given.destination.clone(),
        protocol: given.protocol.clone(),
        source_port: given.source_port.clone(),
        destination_port: given.destination_port.clone(),
        dscp: given.dscp.clone(),
        icmp_type: given.icmp_type.clone(),
        fragment: given.fragment,
        negated: Negated::default(),
    }
}

/// Whether source and destination may be of one IP version.
fn one_version(matches: &Match) -> bool {
    let has = |prefixes: &[IpNet], ipv4| {
        let mut versions = prefixes.iter().map(|prefix| prefix.addr().is_ipv4());
        prefixes.is_empty() || versions.any(|version| version == ipv4)
    };
    [true, false]
        .into_iter()
        .any(|ipv4| has(&matches.source, ipv4) && has(&matches.destination, ipv4))
}

fn routes(rules: &mut Rules, known: &Names) {
    let routes = &rules.config.route;
    let mut prefixes = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        let key = format!("route[{index}]");
        prefixes.push((
            format!("{key}.prefix"),
            route.prefix,
            route.prefix.to_string(),
        ));
        if let NextHop::Path(name) = &route.next_hop {
            known_name(rules, known, &format!("{key}.next_hop"), name, false);
        }
    }
    rules.unique("has a route already", prefixes);
}
