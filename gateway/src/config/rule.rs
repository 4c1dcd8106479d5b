//! A policy rule's match as the data path compiles it: prefix sets looked up, `not` worked in.
//!
//! A field that has both values and `not` holds for the values without those of `not`; one that has only
//! `not` is a negated list.

use super::schema::{Addresses, Config, From, Match, PolicyRule, PrefixSet};
use ipnet::IpNet;
use routing::path::{Ingress, PathId};
use routing::policy::{self, Negated, Shadow, shadowed};
use std::collections::HashMap;
use std::convert::Infallible;

/// The match as the data path has it. `ingress` says which ways in a `from` stands for.
pub(crate) fn compiled<E>(
    config: &Config,
    given: &Match,
    mut ingress: impl FnMut(&From) -> Result<Vec<Ingress>, E>,
) -> Result<policy::Match, E> {
    let none = Match::default();
    let not = given.not.as_deref().unwrap_or(&none);
    let mut origins = |from: &[From]| -> Result<Vec<Ingress>, E> {
        let lists = from
            .iter()
            .map(&mut ingress)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(lists.concat())
    };
    let (from, not_from) = (origins(&given.from)?, origins(&not.from)?);
    let addresses = |given: &[Addresses]| prefixes(config, given);
    // Names that stand for nothing leave an empty list, which would hold for everything.
    let mut never = from.is_empty() && !given.from.is_empty()
        || [&given.source, &given.destination]
            .into_iter()
            .any(|given| !given.is_empty() && addresses(given).is_empty());
    let mut negated = Negated::default();
    let mut field = Field { never: &mut never };
    let mut matches = policy::Match {
        from: field.of(from, not_from, &mut negated.from, without_values),
        source: field.of(
            addresses(&given.source),
            addresses(&not.source),
            &mut negated.source,
            without_prefixes,
        ),
        destination: field.of(
            addresses(&given.destination),
            addresses(&not.destination),
            &mut negated.destination,
            without_prefixes,
        ),
        protocol: field.of(
            given.protocol.clone(),
            not.protocol.clone(),
            &mut negated.protocol,
            without_values,
        ),
        source_port: field.of(
            given.source_port.clone(),
            not.source_port.clone(),
            &mut negated.source_port,
            without_ranges,
        ),
        destination_port: field.of(
            given.destination_port.clone(),
            not.destination_port.clone(),
            &mut negated.destination_port,
            without_ranges,
        ),
        dscp: field.of(
            given.dscp.clone(),
            not.dscp.clone(),
            &mut negated.dscp,
            without_values,
        ),
        icmp_type: field.of(
            given.icmp_type.clone(),
            not.icmp_type.clone(),
            &mut negated.icmp_type,
            without_values,
        ),
        fragment: given.fragment,
        negated: Negated::default(),
    };
    if never {
        // Nothing is left of a field: no packet has a source in none of all prefixes.
        matches.source = vec![
            IpNet::V4(ipnet::Ipv4Net::default()),
            IpNet::V6(ipnet::Ipv6Net::default()),
        ];
        negated.source = true;
    }
    matches.negated = negated;
    Ok(matches)
}

/// A rule's match with a number for each name in `from`: which paths a circuit has makes no difference
/// to what rules take from one another.
pub(crate) fn numbered(config: &Config, rule: &PolicyRule) -> policy::Match {
    let circuits = config.circuits().iter();
    let sites = config.sites().iter();
    let names: Vec<&String> = circuits
        .map(|circuit| &circuit.name)
        .chain(sites.map(|site| &site.name))
        .collect();
    let ingress = |from: &From| -> Result<_, Infallible> {
        Ok(match from {
            From::Vnet => vec![Ingress::Vnet],
            From::Path(name) => {
                let place = names.iter().position(|known| *known == name);
                let path = place.and_then(|place| u16::try_from(place).ok());
                vec![Ingress::Path(PathId(path.unwrap_or(u16::MAX)))]
            }
        })
    };
    match compiled(config, &rule.matches, ingress) {
        Ok(matches) => matches,
        Err(never) => match never {},
    }
}

/// The rules that can never match, each with the earlier rule that takes everything from it.
pub(crate) fn out_of_reach(config: &Config) -> Vec<Shadow> {
    let numbered = |rule| numbered(config, rule);
    let matches: Vec<_> = config.policy.iter().map(numbered).collect();
    shadowed(&matches)
}

/// For each rule of `new` the place that it had in `old`, if it was there by the same name with the same
/// content: what its prefix sets hold is part of that.
pub(crate) fn kept(old: &Config, new: &Config) -> Vec<Option<usize>> {
    let sets = |config, rule: &PolicyRule| {
        let not = rule.matches.not.as_deref();
        let lists = [Some(&rule.matches), not].into_iter().flatten();
        let lists = lists.flat_map(|matches| [&matches.source, &matches.destination]);
        lists
            .map(|addresses| prefixes(config, addresses))
            .collect::<Vec<_>>()
    };
    let places: HashMap<&str, usize> = old
        .policy
        .iter()
        .enumerate()
        .map(|(place, rule)| (rule.name.as_str(), place))
        .collect();
    let place = |rule: &PolicyRule| {
        let place = *places.get(rule.name.as_str())?;
        let before = old.policy.get(place)?;
        (before == rule && sets(old, before) == sets(new, rule)).then_some(place)
    };
    new.policy.iter().map(place).collect()
}

/// All prefixes that the addresses stand for. Unknown sets, and a set inside itself, add nothing: a
/// validated file has neither.
pub(crate) fn prefixes(config: &Config, addresses: &[Addresses]) -> Vec<IpNet> {
    let mut prefixes = Vec::new();
    if addresses
        .iter()
        .all(|one| matches!(one, Addresses::Prefix(_)))
    {
        prefixes.extend(addresses.iter().filter_map(|one| match one {
            Addresses::Prefix(prefix) => Some(*prefix),
            Addresses::Set(_) => None,
        }));
        return prefixes;
    }
    let mut by_name: HashMap<&str, &PrefixSet> = HashMap::new();
    for set in &config.prefix_sets {
        by_name.entry(&set.name).or_insert(set);
    }
    // A set may lead to thousands of others: what is still to be looked at waits here, not on the stack.
    let mut open = vec![addresses.iter()];
    while let Some(mut rest) = open.pop() {
        while let Some(one) = rest.next() {
            match one {
                Addresses::Prefix(prefix) => prefixes.push(*prefix),
                Addresses::Set(name) => {
                    // Once is enough, wherever it stands: this is a union.
                    if let Some(set) = by_name.remove(name.as_str()) {
                        open.push(rest);
                        rest = set.prefixes.iter();
                    }
                }
            }
        }
    }
    prefixes
}

/// Puts a field's values and what is taken out of them together.
struct Field<'a> {
    /// Set once nothing is left of a field.
    never: &'a mut bool,
}

impl Field<'_> {
    fn of<T>(
        &mut self,
        given: Vec<T>,
        not: Vec<T>,
        negated: &mut bool,
        without: impl Fn(Vec<T>, &[T]) -> Vec<T>,
    ) -> Vec<T> {
        if not.is_empty() || *self.never {
            return given;
        }
        if given.is_empty() {
            *negated = true;
            return not;
        }
        let left = without(given, &not);
        *self.never |= left.is_empty();
        left
    }
}

fn without_values<T: PartialEq>(mut given: Vec<T>, not: &[T]) -> Vec<T> {
    given.retain(|value| !not.contains(value));
    given
}

fn without_ranges(given: Vec<(u16, u16)>, not: &[(u16, u16)]) -> Vec<(u16, u16)> {
    let mut left = given;
    for &(first, last) in not {
        let cut = |(from, to): (u16, u16)| {
            if last < from || to < first {
                return vec![(from, to)];
            }
            let below = first.checked_sub(1).filter(|&end| from <= end);
            let above = last.checked_add(1).filter(|&start| start <= to);
            let below = below.map(|end| (from, end));
            below
                .into_iter()
                .chain(above.map(|start| (start, to)))
                .collect()
        };
        left = left.into_iter().flat_map(cut).collect();
    }
    left
}

fn without_prefixes(given: Vec<IpNet>, not: &[IpNet]) -> Vec<IpNet> {
    let mut left = Vec::new();
    for prefix in given {
        subtract(prefix, not, &mut left);
    }
    left
}

/// What is left of `prefix`: itself, nothing, or the same of its two halves. At most one step for each bit
/// and each prefix of `not` that lies inside it.
fn subtract(prefix: IpNet, not: &[IpNet], left: &mut Vec<IpNet>) {
    let same_family = |other: &&IpNet| other.addr().is_ipv4() == prefix.addr().is_ipv4();
    if not
        .iter()
        .filter(same_family)
        .any(|other| other.contains(&prefix))
    {
        return;
    }
    let inside: Vec<IpNet> = not
        .iter()
        .filter(same_family)
        .filter(|other| prefix.contains(*other))
        .copied()
        .collect();
    if inside.is_empty() {
        left.push(prefix);
        return;
    }
    let halves = prefix.subnets(prefix.prefix_len().saturating_add(1));
    for half in halves.into_iter().flatten() {
        subtract(half, &inside, left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_left_of_a_prefix_is_the_rest_and_nothing_twice() {
        let left = without_prefixes(
            vec![net("10.0.0.0/8"), net("fd00::/16")],
            &[
                net("10.128.0.0/10"),
                net("10.192.0.0/10"),
                net("192.168.0.0/16"),
            ],
        );
        assert_eq!(left, [net("10.0.0.0/9"), net("fd00::/16")]);
        let left = without_prefixes(vec![net("10.0.0.0/30")], &[net("10.0.0.1/32")]);
        assert_eq!(left, [net("10.0.0.0/32"), net("10.0.0.2/31")]);
        assert!(without_prefixes(vec![net("10.1.0.0/16")], &[net("10.0.0.0/8")]).is_empty());
    }

    #[test]
    fn ranges_are_cut_at_both_ends_of_what_is_taken_out() {
        assert_eq!(
            without_ranges(vec![(0, 65_535)], &[(0, 0), (23, 23), (65_535, 65_535)]),
            [(1, 22), (24, 65_534)]
        );
        assert!(without_ranges(vec![(5, 9)], &[(5, 6), (6, 9)]).is_empty());
        assert_eq!(without_ranges(vec![(5, 9)], &[(10, 20)]), [(5, 9)]);
    }

    #[test]
    fn a_rule_keeps_its_place_in_the_counters_by_name_content_and_what_its_sets_hold() {
        use crate::config::{self, KeyFiles};
        let config = |rules: &str, set: &str| {
            let text = format!(
                "[vnet]\nname = \"lab\"\naddress_space = \"10.1.0.0/16\"\naddress = \"10.1.0.4/27\"\n\
                 [[prefix_set]]\nname = \"inner\"\nprefixes = \"{set}\"\n\
                 [[prefix_set]]\nname = \"set\"\nprefixes = \"@inner\"\n{rules}"
            );
            let path = std::path::Path::new("f");
            let loaded = config::parse(path, text, path, KeyFiles::Skipped);
            loaded
                .unwrap_or_else(|report| panic!("{}", report.render(false)))
                .config
        };
        let rule = |name: &str, matches: &str| {
            format!("[[policy]]\nname = \"{name}\"\nmatch = {{ {matches} }}\naction = \"drop\"\n")
        };
        let plain = rule("plain", "protocol = 6");
        let by_set = rule("set", "protocol = 17, not = { source = \"@set\" }");
        let old = config(&(plain.clone() + &by_set), "10.2.0.0/16");
        let moved = rule("new", "protocol = 1") + &by_set + &plain;
        let kept = |rules: &str, set: &str| kept(&old, &config(rules, set));
        assert_eq!(kept(&moved, "10.2.0.0/16"), [None, Some(1), Some(0)]);
        assert_eq!(kept(&moved, "10.3.0.0/16"), [None, None, Some(0)]);
        let changed = rule("plain", "protocol = [6, 1]") + &by_set;
        assert_eq!(kept(&changed, "10.2.0.0/16"), [None, Some(1)]);
        let renamed = rule("other", "protocol = 6") + &by_set;
        assert_eq!(kept(&renamed, "10.2.0.0/16"), [None, Some(1)]);
    }
}
