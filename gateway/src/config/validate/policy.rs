//! Rules of `[[policy]]`: names known, rules that can match.

use super::names::{Names, known_name};
use super::{Rules, found};
use crate::config::rule::{numbered, out_of_reach};
use crate::config::schema::{Action, From, Match, PolicyRule};
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
