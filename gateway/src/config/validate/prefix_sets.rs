//! Rules of `[[prefix_set]]` and of the `@NAME`s that stand for them: names known, no set inside itself,
//! none that nobody uses.

use super::{Rules, found, joined};
use crate::config::schema::{Addresses, PrefixSet};
use crate::config::value::nearest;
use crate::config::walk::without_indices;
use std::collections::{HashMap, HashSet, VecDeque};

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
    let places = places(sets);
    let unread = |key: &str| {
        matches!(
            without_indices(key).as_str(),
            "prefix_set" | "prefix_set.name"
        )
    };
    if !rules.places.any_wrong(unread) {
        for (key, name) in uses(rules) {
            if !places.contains_key(name.as_str()) {
                unknown_set(rules, &key, &name);
            }
        }
    }
    circles(rules, &places);
    unused(rules, &places);
}

/// The place of each set by its name; of two of a name the first.
fn places(sets: &[PrefixSet]) -> HashMap<&str, usize> {
    let mut places = HashMap::with_capacity(sets.len());
    for (index, set) in sets.iter().enumerate() {
        places.entry(set.name.as_str()).or_insert(index);
    }
    places
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

/// An error at `key`: there is no set of this name.
fn unknown_set(rules: &mut Rules, key: &str, name: &str) {
    let sets = &rules.config.prefix_sets;
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

/// An error for each circle of sets that contain one another, at the first of them; one for all circles that
/// have a set in common. Each set is looked at once (Tarjan, "Depth-First Search and Linear Graph Algorithms",
/// SIAM Journal on Computing 1, 1972), without recursion: a chain may be as long as the file.
fn circles(rules: &mut Rules, places: &HashMap<&str, usize>) {
    let sets = &rules.config.prefix_sets;
    let inner: Vec<Vec<usize>> = sets
        .iter()
        .enumerate()
        .map(|(index, set)| {
            // Of two sets of a name only the first is ever meant.
            let is_meant = places.get(set.name.as_str()) == Some(&index);
            let names = set.prefixes.iter().filter_map(|one| match one {
                Addresses::Set(name) if is_meant => places.get(name.as_str()).copied(),
                _ => None,
            });
            names.collect()
        })
        .collect();
    for circle in strongly_connected(&inner) {
        let Some(&first) = circle.iter().min() else {
            continue;
        };
        let Some(way) = way_back(&inner, &circle, first) else {
            continue;
        };
        let mut names: Vec<String> = way
            .iter()
            .filter_map(|&set| sets.get(set))
            .map(|set| format!("@{}", set.name))
            .collect();
        if names.len() > NAMED {
            let more = names.len() - NAMED;
            names.splice(
                NAMED / 2..names.len() - NAMED / 2,
                [format!("({more} more)")],
            );
        }
        let words = found(names.join(" -> "))
            .help("take one of them out: a set holds the prefixes of the sets in it");
        let key = format!("prefix_set[{first}].prefixes");
        rules.error(&key, "contains itself", words);
    }
}

/// Sets of a circle that are named.
const NAMED: usize = 16;

/// The strongly connected components of the graph in which `inner` has the successors of each node.
fn strongly_connected(inner: &[Vec<usize>]) -> Vec<Vec<usize>> {
    const NONE: usize = usize::MAX;
    let (mut order, mut low) = (vec![NONE; inner.len()], vec![NONE; inner.len()]);
    let mut waits = vec![false; inner.len()];
    let (mut next, mut stack, mut components) = (0, Vec::new(), Vec::new());
    let at = |of: &[usize], node: usize| of.get(node).copied().unwrap_or(NONE);
    for start in 0..inner.len() {
        if at(&order, start) != NONE {
            continue;
        }
        // Each node with how many of its successors have been looked at.
        let mut open = vec![(start, 0)];
        while let Some((node, looked)) = open.pop() {
            if looked == 0 {
                set(&mut order, node, next);
                set(&mut low, node, next);
                next += 1;
                stack.push(node);
                set(&mut waits, node, true);
            }
            let Some(&successor) = inner.get(node).and_then(|all| all.get(looked)) else {
                let lowest = at(&low, node);
                if let Some(&(above, _)) = open.last() {
                    let least = at(&low, above).min(lowest);
                    set(&mut low, above, least);
                }
                if lowest == at(&order, node) {
                    let begin = stack.iter().rposition(|&one| one == node).unwrap_or(0);
                    let component = stack.split_off(begin);
                    for &one in &component {
                        set(&mut waits, one, false);
                    }
                    components.push(component);
                }
                continue;
            };
            open.push((node, looked + 1));
            if at(&order, successor) == NONE {
                open.push((successor, 0));
            } else if waits.get(successor) == Some(&true) {
                let least = at(&low, node).min(at(&order, successor));
                set(&mut low, node, least);
            }
        }
    }
    components
}

fn set<T>(of: &mut [T], place: usize, value: T) {
    if let Some(slot) = of.get_mut(place) {
        *slot = value;
    }
}

/// The shortest way from a node back to itself inside its component, both ends included; `None`: there is none.
fn way_back(inner: &[Vec<usize>], component: &[usize], start: usize) -> Option<Vec<usize>> {
    let inside: HashSet<usize> = component.iter().copied().collect();
    let mut from: HashMap<usize, usize> = HashMap::new();
    let mut open = VecDeque::from([start]);
    while let Some(node) = open.pop_front() {
        for &successor in inner.get(node).into_iter().flatten() {
            if !inside.contains(&successor) || from.contains_key(&successor) {
                continue;
            }
            from.insert(successor, node);
            if successor == start {
                let mut way = vec![start];
                let mut at = node;
                while at != start {
                    way.push(at);
                    at = *from.get(&at)?;
                }
                way.push(start);
                way.reverse();
                return Some(way);
            }
            open.push_back(successor);
        }
    }
    None
}

/// A warning for each set that no rule uses, directly or through another set.
fn unused(rules: &mut Rules, places: &HashMap<&str, usize>) {
    if !rules.sound("policy") || !rules.sound("prefix_set") {
        return;
    }
    let sets = &rules.config.prefix_sets;
    let place = |name: &str| places.get(name).copied();
    let mut used: HashSet<usize> = HashSet::new();
    let mut open: Vec<usize> = uses(rules)
        .into_iter()
        .filter(|(key, _)| key.starts_with("policy"))
        .filter_map(|(_, name)| place(&name))
        .collect();
    while let Some(index) = open.pop() {
        if !used.insert(index) {
            continue;
        }
        let prefixes = sets.get(index).map_or(&[][..], |set| &set.prefixes);
        open.extend(prefixes.iter().filter_map(|one| match one {
            Addresses::Set(inner) => place(inner),
            Addresses::Prefix(_) => None,
        }));
    }
    for (index, set) in sets.iter().enumerate() {
        if !places
            .get(set.name.as_str())
            .is_some_and(|first| used.contains(first))
        {
            let words = found(format!("no rule says \"@{}\"", set.name));
            rules.warning(&format!("prefix_set[{index}]"), "is not used", words);
        }
    }
}
