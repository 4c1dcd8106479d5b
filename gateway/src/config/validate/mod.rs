//! The rules that one value alone cannot break: Azure's (docs/azure.md, sections 1, 3, 4 and 5), the wire's,
//! and names that must be known or different. A rule leaves alone what the reader already found wrong.

mod expressroute;
mod keys;
mod machine;
mod names;
mod not_yet;
mod point_to_site;
mod policy;
mod prefix_sets;
mod reach;
mod route;
mod underlay;
mod vnet;
mod vpn;

use super::diagnostic::{Finding, Places, Severity};
use super::schema::Config;
use super::walk::title;
use crate::sku::Edition;
use ipnet::IpNet;
use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::net::IpAddr;

/// What the rules look at beyond the file's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFiles {
    /// Key files must exist, be private and hold a key.
    Checked,
    /// Key files are not looked at: for a file that is checked on another host, and offline `explain`.
    Skipped,
}

/// Holds `config` against every rule. `is_here`: routes to the far ends are looked up too.
pub(super) fn check(
    config: &Config,
    places: &Places,
    key_files: KeyFiles,
    is_here: bool,
) -> Vec<Finding> {
    let mut rules = Rules {
        config,
        places,
        findings: Vec::new(),
    };
    vnet::check(&mut rules);
    expressroute::check(&mut rules);
    vpn::check(&mut rules);
    prefix_sets::check(&mut rules);
    point_to_site::check(&mut rules);
    policy::check(&mut rules);
    reach::check(&mut rules);
    not_yet::check(&mut rules);
    if key_files == KeyFiles::Checked {
        keys::check(&mut rules);
    }
    // A file that cannot run needs no more to be said of it.
    let is_wrong = |finding: &Finding| finding.severity == Severity::Error;
    if is_here && !rules.findings.iter().any(is_wrong) {
        machine::check(&mut rules);
        underlay::check(&mut rules);
    }
    rules.findings
}

/// The configuration under the rules, and what they found.
struct Rules<'c> {
    config: &'c Config,
    places: &'c Places,
    findings: Vec<Finding>,
}

/// Text of a finding, in the order in which it is read.
#[derive(Default)]
struct Words {
    found: String,
    allowed: Option<String>,
    help: Option<String>,
    also: Option<(String, String)>,
}

/// What was found, to begin the words of a finding.
fn found(what: impl Into<String>) -> Words {
    Words {
        found: what.into(),
        ..Words::default()
    }
}

impl Words {
    fn allowed(mut self, what: impl Into<String>) -> Self {
        self.allowed = Some(what.into());
        self
    }

    fn help(mut self, what: impl Into<String>) -> Self {
        self.help = Some(what.into());
        self
    }

    /// Another key that plays a part.
    fn also(mut self, key: impl Into<String>, label: impl Into<String>) -> Self {
        self.also = Some((key.into(), label.into()));
        self
    }
}

impl Rules<'_> {
    /// Whether the reader found nothing wrong with `key` or inside it.
    fn sound(&self, key: &str) -> bool {
        self.places.sound(key)
    }

    /// An error at `key`, unless that key is wrong already.
    fn error(&mut self, key: &str, what: &str, words: Words) {
        self.find(Severity::Error, key, what, words);
    }

    /// A warning at `key`.
    fn warning(&mut self, key: &str, what: &str, words: Words) {
        self.find(Severity::Warning, key, what, words);
    }

    fn find(&mut self, severity: Severity, key: &str, what: &str, words: Words) {
        if !self.sound(key) {
            return;
        }
        self.findings.push(Finding {
            severity,
            key: key.to_owned(),
            span: self.places.span(key),
            title: format!("{} {what}", title(key)),
            found: words.found,
            allowed: words.allowed,
            help: words.help,
            also: words
                .also
                .map(|(key, label)| (self.places.span(&key), label)),
        });
    }

    /// An error at each value that an earlier one has already. Each comes with its key and its text.
    fn unique<T: Eq + Hash>(
        &mut self,
        what: &str,
        values: impl IntoIterator<Item = (String, T, String)>,
    ) {
        let mut first: HashMap<T, String> = HashMap::new();
        for (key, value, shown) in values {
            if !self.sound(&key) {
                continue;
            }
            if let Some(earlier) = first.get(&value) {
                let words = found(format!("{shown} again")).also(earlier, "first here");
                self.error(&key, what, words);
            } else {
                first.insert(value, key);
            }
        }
    }

    /// The same for the prefixes of a list, which may be a million.
    fn unique_prefixes(&mut self, what: &str, list: &str, prefixes: &[IpNet]) {
        // Long lists are written by programs, mostly in order.
        if prefixes.is_sorted_by(|a, b| a < b) {
            return;
        }
        let mut sorted: Vec<(IpNet, usize)> = prefixes.iter().copied().zip(0..).collect();
        sorted.sort_unstable();
        let mut again = Vec::new();
        for same in sorted.chunk_by(|(a, _), (b, _)| a == b) {
            if let [(_, first), later @ ..] = same {
                again.extend(later.iter().map(|&(prefix, index)| (index, prefix, *first)));
            }
        }
        again.sort_unstable_by_key(|&(index, ..)| index);
        for (index, prefix, first) in again {
            let words =
                found(format!("{prefix} again")).also(format!("{list}[{first}]"), "first here");
            self.error(&format!("{list}[{index}]"), what, words);
        }
    }

    /// Errors for lists that hold at most one address of each IP version.
    fn one_of_each_family(&mut self, key: &str, addresses: &[IpAddr]) {
        for ipv4 in [true, false] {
            let mut of_family = addresses
                .iter()
                .enumerate()
                .filter(|(_, address)| address.is_ipv4() == ipv4);
            let (Some((first, _)), Some((second, address))) = (of_family.next(), of_family.next())
            else {
                continue;
            };
            let words = found(format!("{address} is the second of its IP version"))
                .allowed("at most one IPv4 and one IPv6 address")
                .also(format!("{key}[{first}]"), "the first");
            self.error(&format!("{key}[{second}]"), "is one too many", words);
        }
    }

    /// An error if there are more than a SKU allows.
    fn within(&mut self, key: &str, what: &str, count: usize, limit: Option<usize>, sku: &str) {
        let Some(limit) = limit.filter(|&limit| count > limit) else {
            return;
        };
        let words = found(format!("{count} {what}"))
            .allowed(format!("at most {limit} with SKU {sku}"))
            .help("take a larger SKU, or \"Unlimited\"");
        self.error(key, "is beyond the SKU's limit", words);
    }
}

/// What helps where a SKU is one of the other edition.
fn edition_help(edition: Edition) -> String {
    let other = edition.other();
    format!("{other} has it: edition = \"{}\"", other.name())
}

/// Whether two prefixes have an address in common.
fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// `10.2.0.0/16, fd00::/48`; of very many the first few, and how many more there are.
fn joined<T: Display>(values: &[T]) -> String {
    const NAMED: usize = 100;
    let mut named: Vec<String> = values.iter().take(NAMED).map(T::to_string).collect();
    if values.len() > NAMED {
        named.push(format!("{} more", values.len() - NAMED));
    }
    named.join(", ")
}
