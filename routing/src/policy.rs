//! The policy route table: ordered rules, of which the first that matches decides, before the route table.
//!
//! A rule matches if every field that it gives holds; within a field any entry will do, and a negated
//! field holds for what none of its entries holds. Ports are there only for TCP and UDP, ICMP types only
//! for ICMP, and neither for a later fragment, which shows none; a field that a packet does not have is
//! not held by any list, negated or not, so that a fragment cannot pass for "any port but 23".

mod classifier;
mod shadow;

use crate::packet::{Fragment, Headers, Version, protocol};
use crate::path::Ingress;
use classifier::Classifier;
use ipnet::IpNet;
pub use shadow::{Shadow, shadowed};

/// Index of a rule in the policy route table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u16);

/// What a rule matches. An empty list: anything, negated or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Where the packet came in.
    pub from: Vec<Ingress>,
    /// Source prefixes.
    pub source: Vec<IpNet>,
    /// Destination prefixes.
    pub destination: Vec<IpNet>,
    /// Protocol numbers.
    pub protocol: Vec<u8>,
    /// Source port ranges, both ends included.
    pub source_port: Vec<(u16, u16)>,
    /// Destination port ranges, both ends included.
    pub destination_port: Vec<(u16, u16)>,
    /// DSCP values, 6 bits.
    pub dscp: Vec<u8>,
    /// ICMP and ICMPv6 types.
    pub icmp_type: Vec<u8>,
    /// Fragments only (true), or whole packets only (false).
    pub fragment: Option<bool>,
    /// Which of the lists hold for all but their entries.
    pub negated: Negated,
}

/// Which lists of a [`Match`] are negated: they hold for what none of their entries holds.
///
/// A negated list of IPv4 prefixes holds for every IPv6 address too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Negated {
    /// Where the packet came in.
    pub from: bool,
    /// Source prefixes.
    pub source: bool,
    /// Destination prefixes.
    pub destination: bool,
    /// Protocol numbers.
    pub protocol: bool,
    /// Source port ranges.
    pub source_port: bool,
    /// Destination port ranges.
    pub destination_port: bool,
    /// DSCP values.
    pub dscp: bool,
    /// ICMP and ICMPv6 types.
    pub icmp_type: bool,
}

/// The rules' matches, compiled.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    classifier: Classifier,
    uses_dscp: bool,
}

impl Policy {
    /// Compiles matches, in order. Rules behind the 65,535th are not reachable by a [`RuleId`]; whoever
    /// builds a policy refuses that many.
    pub fn new(matches: &[Match]) -> Self {
        Self {
            classifier: Classifier::new(matches),
            uses_dscp: matches.iter().any(|one| !one.dscp.is_empty()),
        }
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.classifier.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.classifier.len() == 0
    }

    /// Whether any rule looks at the DSCP, so that it tells flows apart.
    #[inline]
    pub fn uses_dscp(&self) -> bool {
        self.uses_dscp
    }

    /// The first rule that matches.
    #[inline]
    pub fn first_match(&self, ingress: Ingress, headers: &Headers) -> Option<RuleId> {
        if self.is_empty() {
            return None;
        }
        self.classifier.first(&Subject::new(ingress, headers))
    }

    /// The first rule behind `rule` that matches: what would decide without it.
    pub fn next_match(&self, rule: RuleId, ingress: Ingress, headers: &Headers) -> Option<RuleId> {
        let subject = Subject::new(ingress, headers);
        let mut matching = self.classifier.all(&subject);
        let next = matching.find(|&place| place > usize::from(rule.0))?;
        u16::try_from(next).ok().map(RuleId)
    }

    /// Memory in use, bytes.
    pub fn memory(&self) -> usize {
        self.classifier.memory()
    }
}

/// The fields of a packet that are small numbers, in the order of [`Subject::numbers`].
const NUMBERS: usize = 7;

/// A packet as rules see it.
#[derive(Clone, Copy, Debug)]
struct Subject {
    version: Version,
    source: u128,
    destination: u128,
    /// Ingress, protocol, fragment, DSCP, ICMP type, source port, destination port.
    numbers: [Option<u16>; NUMBERS],
}

impl Subject {
    #[inline]
    fn new(ingress: Ingress, headers: &Headers) -> Self {
        let key = &headers.key;
        let has_transport = headers.fragment != Fragment::Later;
        let has_ports = has_transport && matches!(key.protocol, protocol::TCP | protocol::UDP);
        let has_type = has_transport && key.is_icmp();
        Self {
            version: key.version,
            source: key.source,
            destination: key.destination,
            numbers: [
                Some(ingress_number(ingress)),
                Some(u16::from(key.protocol)),
                Some(u16::from(headers.fragment != Fragment::Whole)),
                Some(u16::from(headers.traffic_class >> 2)),
                has_type.then_some(key.destination_port >> 8),
                has_ports.then_some(key.source_port),
                has_ports.then_some(key.destination_port),
            ],
        }
    }
}

/// Every ingress has its number: a snapshot has fewer than 2^14 paths.
#[inline]
const fn ingress_number(ingress: Ingress) -> u16 {
    match ingress {
        Ingress::Vnet => 0,
        Ingress::Local => 1,
        Ingress::Path(path) => path.0.saturating_add(2),
    }
}

/// Disjoint ranges in order, both ends included.
type Ranges<A> = Vec<(A, A)>;

/// A rule's fields as ranges; `None`: anything.
struct Fields {
    numbers: [Option<Ranges<u16>>; NUMBERS],
    source: Option<Addresses>,
    destination: Option<Addresses>,
}

/// Ranges of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Addresses {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

impl Fields {
    fn of(given: &Match) -> Self {
        let not = given.negated;
        let single = |values: &[u8], negated| {
            numbers(
                values.iter().map(|&v| (u16::from(v), u16::from(v))),
                negated,
            )
        };
        let ingress = given.from.iter().map(|&one| ingress_number(one));
        let fragment = given.fragment.map(u16::from);
        Self {
            numbers: [
                numbers(ingress.map(|number| (number, number)), not.from),
                single(&given.protocol, not.protocol),
                numbers(fragment.map(|number| (number, number)), false),
                single(&given.dscp, not.dscp),
                single(&given.icmp_type, not.icmp_type),
                numbers(given.source_port.iter().copied(), not.source_port),
                numbers(given.destination_port.iter().copied(), not.destination_port),
            ],
            source: Addresses::of(&given.source, not.source),
            destination: Addresses::of(&given.destination, not.destination),
        }
    }
}

impl Addresses {
    fn of(prefixes: &[IpNet], negated: bool) -> Option<Self> {
        if prefixes.is_empty() {
            return None;
        }
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            match prefix {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Some(Self {
            v4: ranges(v4, negated),
            v6: ranges(v6, negated),
        })
    }
}

fn numbers(given: impl IntoIterator<Item = (u16, u16)>, negated: bool) -> Option<Ranges<u16>> {
    let given: Vec<_> = given.into_iter().collect();
    (!given.is_empty()).then(|| ranges(given, negated))
}

/// A number that has neighbours.
trait Number: Copy + Ord + std::hash::Hash {
    const MIN: Self;
    const MAX: Self;
    fn next(self) -> Option<Self>;
    fn previous(self) -> Option<Self>;
}

macro_rules! number {
    ($($number:ty),*) => {$(
        impl Number for $number {
            const MIN: Self = Self::MIN;
            const MAX: Self = Self::MAX;
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn previous(self) -> Option<Self> {
                self.checked_sub(1)
            }
        }
    )*};
}

number!(u16, u32, u128);

/// Sorts ranges and joins those that meet; a range whose end lies before its start holds nothing.
fn ranges<A: Number>(mut given: Vec<(A, A)>, negated: bool) -> Ranges<A> {
    given.retain(|&(first, last)| first <= last);
    given.sort_unstable();
    let mut joined: Ranges<A> = Vec::with_capacity(given.len());
    for (first, last) in given {
        match joined.last_mut() {
            Some((_, end)) if end.next().is_none_or(|next| first <= next) => {
                *end = (*end).max(last);
            }
            _ => joined.push((first, last)),
        }
    }
    if negated { gaps(&joined) } else { joined }
}

/// What lies between the ranges.
fn gaps<A: Number>(ranges: &[(A, A)]) -> Ranges<A> {
    let mut gaps = Vec::with_capacity(ranges.len() + 1);
    let mut from = Some(A::MIN);
    for &(first, last) in ranges {
        if let (Some(from), Some(end)) = (from, first.previous())
            && from <= end
        {
            gaps.push((from, end));
        }
        from = last.next();
    }
    gaps.extend(from.map(|from| (from, A::MAX)));
    gaps
}

#[cfg(test)]
mod tests;
