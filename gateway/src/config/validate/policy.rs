//! Rules of `[[policy]]`: names known, rules that can match.

use super::{Rules, found, joined};
use crate::config::rule::{numbered, out_of_reach};
use crate::config::schema::{Action, From, Match, PolicyRule};
use crate::config::value::{POINT_TO_SITE, nearest};
use crate::config::walk::without_indices;
use ipnet::IpNet;
use routing::policy::{self, Shadow};

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
    super::route::check(rules, &known);
}

/// Names that policies and routes may use.
pub(super) struct Names {
    /// Circuits and sites; and `point-to-site`, all clients together.
    pub(super) paths: Vec<String>,
    /// Point-to-site clients: neither policies nor routes name them.
    clients: Vec<String>,
    /// Whether all names could be read; if not, an unknown one may be the unreadable one.
    pub(super) complete: bool,
}

impl Names {
    fn of(rules: &Rules) -> Self {
        let config = rules.config;
        let circuits = config.circuits().iter();
        let sites = config.sites().iter();
        let circuits = circuits.map(|circuit| circuit.name.clone());
        let pool = config.point_to_site();
        let paths: Vec<String> = circuits
            .chain(sites.map(|site| site.name.clone()))
            .chain(pool.map(|_| POINT_TO_SITE.to_owned()))
            .collect();
        let clients = config.point_to_site().into_iter();
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
            "vnet" | "prefix_set" | "policy" | "route" | "failover" | "control" => false,
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
pub(super) fn known_name(rules: &mut Rules, known: &Names, key: &str, name: &str, vnet_too: bool) {
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
        words =
            words.help("this is a client; match its address, or name \"point-to-site\" for all");
    } else if let Some(near) = nearest(name, allowed) {
        words = words.help(format!("did you mean \"{near}\"?"));
    }
    rules.error(key, "is the name of nothing in this file", words);
}

fn rule(rules: &mut Rules, known: &Names, key: &str, rule: &PolicyRule) {
    origins(rules, known, &format!("{key}.match"), &rule.matches);
    if let Some(not) = &rule.matches.not {
        origins(rules, known, &format!("{key}.match.not"), not);
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
    if !one_version(&numbered(rules.config, rule)) && rules.sound(&format!("{key}.match")) {
        let words = found("source and destination are of different IP versions")
            .allowed("prefixes of the same IP version on both sides");
        rules.error(&format!("{key}.match"), "can match no packet", words);
    }
}

/// The names of `from` must be known.
fn origins(rules: &mut Rules, known: &Names, key: &str, matches: &Match) {
    if !rules.sound(&format!("{key}.from")) {
        return;
    }
    for (index, from) in matches.from.iter().enumerate() {
        if let From::Path(name) = from {
            known_name(rules, known, &format!("{key}.from[{index}]"), name, true);
        }
    }
}

/// The first rule that matches wins, so a rule is never used if an earlier one matches all that it does.
fn unreachable(rules: &mut Rules, policy: &[PolicyRule]) {
    if !rules.sound("policy") {
        return;
    }
    for Shadow { rule, by } in out_of_reach(rules.config) {
        let Some(of) = policy.get(rule) else {
            continue;
        };
        if let Some((by, earlier)) = by.and_then(|by| Some((by, policy.get(by)?))) {
            let words = found(format!("{:?} takes all that it would match", earlier.name))
                .also(format!("policy[{by}].match"), "this rule comes first")
                .help("put the narrower rule first, or leave it out");
            rules.warning(&format!("policy[{rule}]"), "is out of reach", words);
        } else if one_version(&numbered(rules.config, of)) {
            let words = found("its fields exclude one another");
            let key = format!("policy[{rule}].match");
            rules.warning(&key, "can match no packet", words);
        }
    }
}

/// Whether source and destination may be of one IP version.
fn one_version(matches: &policy::Match) -> bool {
    let has = |prefixes: &[IpNet], negated: bool, ipv4| {
        let mut versions = prefixes.iter().map(|prefix| prefix.addr().is_ipv4());
        prefixes.is_empty() || negated || versions.any(|version| version == ipv4)
    };
    let not = matches.negated;
    [true, false].into_iter().any(|ipv4| {
        has(&matches.source, not.source, ipv4) && has(&matches.destination, not.destination, ipv4)
    })
}
