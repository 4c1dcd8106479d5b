//! Rules of `[[prefix_set]]` and of the `@NAME`s that stand for them: names known, no set inside itself,
//! none that nobody uses.

use super::{Rules, found, joined};
use crate::config::schema::{Addresses, PrefixSet};
use crate::config::value::nearest;
use crate::config::walk::without_indices;

pub(super) fn check(rules: &mut Rules) {
    let sets = &rules.config.prefix_sets;
    let names: Vec<_> = (0..)
        .zip(sets)
        .map(|(index, set): (usize, &PrefixSet)| {
            let key = format!("prefix_set[{index}].name");
            (key, set.name.clone(), format!("{:?}", set.name))
        })
        .collect();
    rules.unique("is taken", names);
    for (key, name) in uses(rules) {
        known_set(rules, &key, &name);
    }
    for index in 0..sets.len() {
        cycle(rules, index);
    }
    unused(rules);
}

/// Every place that names a set, and the name.
fn uses(rules: &Rules) -> Vec<(String, String)> {
    let mut uses = Vec::new();
    let mut list = |key: String, addresses: &[Addresses]| {
        for (index, one) in addresses.iter().enumerate() {
            if let Addresses::Set(name) = one {
                uses.push((format!("{key}[{index}]"), name.clone()));
            }
        }
    };
    for (index, set) in rules.config.prefix_sets.iter().enumerate() {
        list(format!("prefix_set[{index}].prefixes"), &set.prefixes);
    }
    for (index, rule) in rules.config.policy.iter().enumerate() {
        let key = format!("policy[{index}].match");
        let not = rule.matches.not.as_deref();
        let not = not.map(|not| (format!("{key}.not"), not));
        for (key, matches) in [(key, &rule.matches)].into_iter().chain(not) {
            list(format!("{key}.source"), &matches.source);
            list(format!("{key}.destination"), &matches.destination);
        }
    }
    uses
}

/// An error at `key` unless there is a set of this name.
fn known_set(rules: &mut Rules, key: &str, name: &str) {
    let sets = &rules.config.prefix_sets;
    let unread = |key: &str| {
        matches!(
            without_indices(key).as_str(),
            "prefix_set" | "prefix_set.name"
        )
    };
    if sets.iter().any(|set| set.name == name) || rules.places.any_wrong(unread) {
        return;
    }
    // An element that could not be read is not in the list, and moves those behind it: then the list's place.
    let list = key.rsplit_once('[').map_or(key, |(list, _)| list);
    let key = if rules.sound(list) { key } else { list };
    let known: Vec<String> = sets
        .iter()
        .map(|set| format!("\"@{}\"", set.name))
        .collect();
    let near = nearest(name, sets.iter().map(|set| set.name.as_str()));
    let mut words = found(format!("found \"@{name}\"")).allowed(if known.is_empty() {
        "the name of a [[prefix_set]]; the file has none".to_owned()
    } else {
        joined(&known)
    });
    if let Some(near) = near {
        words = words.help(format!("did you mean \"@{near}\"?"));
    }
    rules.error(key, "names no prefix set", words);
}

/// An error if the set at `index` contains itself; of the sets of a circle only the first gets it.
fn cycle(rules: &mut Rules, index: usize) {
    let sets = &rules.config.prefix_sets;
    let Some(start) = sets.get(index) else {
        return;
    };
    let place = |name: &str| sets.iter().position(|set| set.name == name);
    if place(&start.name) != Some(index) {
        return;
    }
    // Depth first, each set once; `way` is how it was reached.
    let mut seen = vec![index];
    let mut open = vec![(index, vec![start.name.as_str()])];
    while let Some((at, way)) = open.pop() {
        for one in sets.get(at).map_or(&[][..], |set| &set.prefixes) {
            let Addresses::Set(name) = one else {
                continue;
            };
            let Some(next) = place(name) else {
                continue;
            };
            if next == index {
                let first = way.iter().filter_map(|name| place(name)).min();
                if first == Some(index) {
                    let circle: Vec<String> = way
                        .iter()
                        .chain([&start.name.as_str()])
                        .map(|name| format!("@{name}"))
                        .collect();
                    let words = found(circle.join(" -> "))
                        .help("take one of them out: a set holds the prefixes of the sets in it");
                    let key = format!("prefix_set[{index}].prefixes");
                    rules.error(&key, "contains itself", words);
                }
                return;
            }
            if !seen.contains(&next) {
                seen.push(next);
                let mut way = way.clone();
                way.push(name);
                open.push((next, way));
            }
        }
    }
}

/// A warning for each set that no rule uses, directly or through another set.
fn unused(rules: &mut Rules) {
    if !rules.sound("policy") || !rules.sound("prefix_set") {
        return;
    }
    let sets = &rules.config.prefix_sets;
    let mut used: Vec<String> = Vec::new();
    let mut open: Vec<String> = uses(rules)
        .into_iter()
        .filter(|(key, _)| key.starts_with("policy"))
        .map(|(_, name)| name)
        .collect();
    while let Some(name) = open.pop() {
        if used.contains(&name) {
            continue;
        }
        let set = sets.iter().find(|set| set.name == name);
        open.extend(
            set.into_iter()
                .flat_map(|set| &set.prefixes)
                .filter_map(|one| match one {
                    Addresses::Set(inner) => Some(inner.clone()),
                    Addresses::Prefix(_) => None,
                }),
        );
        used.push(name);
    }
    for (index, set) in sets.iter().enumerate() {
        if !used.contains(&set.name) {
            let words = found(format!("no rule says \"@{}\"", set.name));
            rules.warning(&format!("prefix_set[{index}]"), "is not used", words);
        }
    }
}
