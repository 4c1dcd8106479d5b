//! The routing table: every route that is known, which of them count, and why the others lost.
//!
//! Longest prefix match is the forwarding table's business. Here, for each prefix (docs/azure.md, section 2):
//! 1. Inside the virtual network's own address space nothing learned through the gateway counts, be it
//!    ever so specific; a user-defined route does.
//! 2. Connected > user-defined > learned through the gateway (BGP, static, site) > system.
//! 3. Among learned ones ExpressRoute wins and VPN is the lower tier of the group. Within each of the
//!    two, connection weight comes before AS-path length, and equal ones share the load. What loses by
//!    these is a lower tier still: it takes over when all above it are down.
//!
//! The table is kept in chunks, in the order of their prefixes, that a table shares with the one it was made
//! from: a changed route costs the copy of one chunk and of the list of chunks, whatever the number of routes.

mod candidate;

pub use candidate::{ApplianceId, Candidate, NextHop, OwnerId, Ranked, RouteSource, Standing};

use crate::packet::{Version, address_bits};
use crate::path::PathKind;
use crate::prefix::PrefixSet;
pub(crate) use candidate::Ranking;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::sync::Arc;

/// Candidates in a chunk; more where one prefix has more. Copying so many costs some microseconds, and so
/// does copying the list of the chunks of a million routes.
const CHUNK: usize = 1_024;

/// A prefix with an active candidate in one table: a later table may have it elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId {
    chunk: u32,
    /// The place of its first candidate in the chunk.
    place: u32,
}

/// A change of one route. Routes are told apart by prefix, source and next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteChange {
    /// The route comes, or takes the place of the same one with other attributes.
    Announce(Candidate),
    /// The route goes.
    Withdraw {
        /// Destination, host bits zero.
        prefix: IpNet,
        /// Where it came from.
        source: RouteSource,
        /// Where it led to.
        next_hop: NextHop,
    },
}

impl RouteChange {
    /// The prefix that it is about.
    pub fn prefix(&self) -> IpNet {
        match self {
            Self::Announce(candidate) => candidate.prefix,
            Self::Withdraw { prefix, .. } => *prefix,
        }
    }

    /// Whether it is about this candidate.
    fn is_about(&self, one: &Candidate) -> bool {
        let (source, next_hop) = match self {
            Self::Announce(candidate) => (candidate.source, candidate.next_hop),
            Self::Withdraw {
                source, next_hop, ..
            } => (*source, *next_hop),
        };
        (one.prefix, one.source, one.next_hop) == (self.prefix(), source, next_hop)
    }
}

/// A set of prefix lengths, 0 to 128.
#[derive(Clone, Copy, Debug, Default)]
struct Lengths([u64; 3]);

impl Lengths {
    fn add(&mut self, prefix: IpNet) {
        let length = usize::from(prefix.prefix_len());
        if let Some(word) = self.0.get_mut(length / 64) {
            *word |= 1 << (length % 64);
        }
    }

    fn has(&self, prefix: IpNet) -> bool {
        let length = usize::from(prefix.prefix_len());
        let word = self.0.get(length / 64);
        word.is_some_and(|word| word >> (length % 64) & 1 != 0)
    }
}

/// All candidates, sorted by prefix and within it by preference, and what became of each.
#[derive(Clone, Debug, Default)]
pub struct Rib {
    /// Chunks in order, none of them empty; the candidates of one prefix are in one chunk.
    chunks: Vec<Arc<[Ranked]>>,
    /// The lengths that prefixes have, of both families together; one that none has any more may stay.
    lengths: Lengths,
}

impl Rib {
    /// Ranks `candidates`. `vnet` is the virtual network's address space, `kind` says what an owner or
    /// a single path of a next hop is.
    pub fn new(
        candidates: Vec<Candidate>,
        vnet: &PrefixSet,
        kind: impl Fn(NextHop) -> Option<PathKind>,
    ) -> Self {
        let ranking = Ranking { vnet, kind };
        let entered = candidates.into_iter().map(|one| ranking.enter(one));
        let mut ranked: Vec<Ranked> = entered.collect();
        ranked.sort_unstable_by(|a, b| {
            prefix_key(a.candidate.prefix)
                .cmp(&prefix_key(b.candidate.prefix))
                .then_with(|| ranking.preference(a).cmp(&ranking.preference(b)))
        });
        for same in ranked.chunk_by_mut(|a, b| a.candidate.prefix == b.candidate.prefix) {
            ranking.rank(same);
        }
        let mut chunks = Vec::with_capacity(ranked.len() / CHUNK + 1);
        cut(&ranked, &mut chunks);
        let mut lengths = Lengths::default();
        for one in &ranked {
            lengths.add(one.candidate.prefix);
        }
        Self { chunks, lengths }
    }

    /// The table after these changes, the later ones of one route counting, and the prefixes whose
    /// candidates are not what they were.
    pub(crate) fn changed<K: Fn(NextHop) -> Option<PathKind>>(
        &self,
        changes: &[RouteChange],
        ranking: &Ranking<'_, K>,
    ) -> (Self, Vec<IpNet>) {
        let mut changes: Vec<&RouteChange> = changes.iter().collect();
        changes.sort_by_key(|change| prefix_key(change.prefix()));
        let mut chunks = Vec::with_capacity(self.chunks.len() + 1);
        let mut touched = Vec::new();
        let (mut next, mut rest) = (0, changes.as_slice());
        while let Some(first) = rest.first() {
            let chunk = self.chunk_for(prefix_key(first.prefix()));
            chunks.extend(
                self.chunks
                    .get(next..chunk)
                    .unwrap_or_default()
                    .iter()
                    .cloned(),
            );
            // What belongs into this chunk ends where the next one begins.
            let end = self
                .chunks
                .get(chunk + 1)
                .and_then(|chunk| first_key(chunk));
            let here = match end {
                Some(end) => rest.partition_point(|change| prefix_key(change.prefix()) < end),
                None => rest.len(),
            };
            let (of_chunk, behind) = rest.split_at_checked(here).unwrap_or((rest, &[]));
            let old = self.chunks.get(chunk).map_or(&[][..], |chunk| chunk);
            let merged = merge(old, of_chunk, ranking, &mut touched);
            if merged.len() <= 2 * CHUNK {
                chunks.extend((!merged.is_empty()).then(|| merged.into()));
            } else {
                cut(&merged, &mut chunks);
            }
            (next, rest) = (chunk + 1, behind);
        }
        chunks.extend(self.chunks.get(next..).unwrap_or_default().iter().cloned());
        let mut lengths = self.lengths;
        for prefix in &touched {
            lengths.add(*prefix);
        }
        (Self { chunks, lengths }, touched)
    }

    /// Every candidate, by prefix and within it by preference.
    pub fn candidates(&self) -> impl Iterator<Item = &Ranked> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// Every prefix with its candidates in order of preference.
    pub fn prefixes(&self) -> impl Iterator<Item = &[Ranked]> {
        let same = |a: &Ranked, b: &Ranked| a.candidate.prefix == b.candidate.prefix;
        self.chunks
            .iter()
            .flat_map(move |chunk| chunk.chunk_by(same))
    }

    /// The prefixes that have an active candidate, each with its candidates in order of preference.
    pub fn routes(&self) -> impl Iterator<Item = &[Ranked]> {
        self.prefixes().filter(|same| is_active(same))
    }

    /// The candidates of a route's prefix, in order of preference; the first is active.
    pub fn route(&self, id: RouteId) -> Option<&[Ranked]> {
        let chunk = self.chunks.get(id.chunk as usize)?;
        same_prefix(chunk.get(id.place as usize..)?)
    }

    /// The candidates of exactly this prefix, in order of preference.
    pub fn prefix(&self, prefix: IpNet) -> &[Ranked] {
        self.find(prefix)
            .and_then(|id| self.route(id))
            .unwrap_or_default()
    }

    /// The longest prefix with an active candidate that holds the address, as the forwarding table finds
    /// it: for whoever asks for the route itself. One search for each length.
    pub fn longest(&self, version: Version, address: u128) -> Option<RouteId> {
        prefixes_of(version, address).find_map(|prefix| self.active(prefix))
    }

    /// Every prefix that holds the address, active or not, the longest first, with its candidates. One search for each
    /// length that any prefix has.
    pub(crate) fn holding(
        &self,
        version: Version,
        address: u128,
    ) -> impl Iterator<Item = &[Ranked]> {
        prefixes_of(version, address)
            .filter(|prefix| self.lengths.has(*prefix))
            .map(|prefix| self.prefix(prefix))
            .filter(|same| !same.is_empty())
    }

    /// The candidates of exactly this prefix, if one of them is active.
    pub(crate) fn active_prefix(&self, prefix: IpNet) -> Option<&[Ranked]> {
        self.route(self.active(prefix)?)
    }

    /// The longest prefix with an active candidate that holds all of `prefix`, itself included, with its
    /// candidates.
    pub(crate) fn covering(&self, prefix: IpNet) -> Option<&[Ranked]> {
        let (version, address) = address_bits(prefix.network());
        let id = prefixes_of(version, address)
            .filter(|around| around.prefix_len() <= prefix.prefix_len())
            .find_map(|around| self.active(around))?;
        self.route(id)
    }

    /// The prefixes with an active candidate that are in `prefix`, itself included, in order, with their
    /// candidates.
    pub(crate) fn inside(&self, prefix: IpNet) -> impl Iterator<Item = &[Ranked]> {
        let key = prefix_key(prefix);
        let chunk = self.chunk_for(key);
        let of_chunk = self.chunks.get(chunk).map_or(&[][..], |chunk| chunk);
        let start = of_chunk.partition_point(|one| prefix_key(one.candidate.prefix) < key);
        let same = |a: &Ranked, b: &Ranked| a.candidate.prefix == b.candidate.prefix;
        let first = of_chunk.get(start..).unwrap_or_default();
        let others = self.chunks.get(chunk + 1..).unwrap_or_default();
        std::iter::once(first)
            .chain(others.iter().map(|chunk| &chunk[..]))
            .flat_map(move |chunk| chunk.chunk_by(same))
            .take_while(move |same| {
                same.first()
                    .is_some_and(|one| prefix.contains(&one.candidate.prefix))
            })
            .filter(|same| is_active(same))
    }

    /// Memory in use, bytes.
    pub fn memory(&self) -> usize {
        // Each chunk has two counters of references in front.
        let of_chunk = |chunk: &Arc<[Ranked]>| size_of_val(&**chunk) + 2 * size_of::<usize>();
        size_of_val(&*self.chunks) + self.chunks.iter().map(of_chunk).sum::<usize>()
    }

    /// The place of a prefix that has an active candidate.
    fn active(&self, prefix: IpNet) -> Option<RouteId> {
        let id = self.find(prefix)?;
        is_active(self.route(id)?).then_some(id)
    }

    /// The place of a prefix.
    fn find(&self, prefix: IpNet) -> Option<RouteId> {
        let key = prefix_key(prefix);
        let chunk = self.chunk_for(key);
        let of_chunk = self.chunks.get(chunk)?;
        let place = of_chunk.partition_point(|one| prefix_key(one.candidate.prefix) < key);
        let id = RouteId {
            chunk: chunk as u32,
            place: place as u32,
        };
        (of_chunk.get(place)?.candidate.prefix == prefix).then_some(id)
    }

    /// The chunk that a prefix belongs into: the last one that does not begin behind it, or the first.
    fn chunk_for(&self, key: Key) -> usize {
        let begins_before =
            |chunk: &Arc<[Ranked]>| first_key(chunk).is_some_and(|first| first <= key);
        self.chunks.partition_point(begins_before).saturating_sub(1)
    }
}

/// Cuts sorted candidates into chunks, never inside a prefix.
fn cut(ranked: &[Ranked], chunks: &mut Vec<Arc<[Ranked]>>) {
    let mut rest = ranked;
    while let Some(last) = rest.get(..CHUNK).unwrap_or(rest).last() {
        let behind = rest.get(CHUNK..).unwrap_or_default();
        let same = behind
            .iter()
            .take_while(|one| one.candidate.prefix == last.candidate.prefix);
        let end = rest.len().min(CHUNK) + same.count();
        let (chunk, behind) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        chunks.push(chunk.into());
        rest = behind;
    }
}

/// The candidates of a chunk after changes, both sorted by prefix.
fn merge<K: Fn(NextHop) -> Option<PathKind>>(
    old: &[Ranked],
    changes: &[&RouteChange],
    ranking: &Ranking<'_, K>,
    touched: &mut Vec<IpNet>,
) -> Vec<Ranked> {
    let mut merged = Vec::with_capacity(old.len() + changes.len());
    let mut rest = old;
    for of_prefix in changes.chunk_by(|a, b| a.prefix() == b.prefix()) {
        let Some(prefix) = of_prefix.first().map(|change| change.prefix()) else {
            continue;
        };
        let key = prefix_key(prefix);
        let start = rest.partition_point(|one| prefix_key(one.candidate.prefix) < key);
        let (before, from) = rest.split_at_checked(start).unwrap_or((rest, &[]));
        let count = from
            .iter()
            .take_while(|one| one.candidate.prefix == prefix)
            .count();
        let (same, behind) = from.split_at_checked(count).unwrap_or((from, &[]));
        merged.extend_from_slice(before);
        let mut candidates: Vec<Candidate> = same.iter().map(|one| one.candidate).collect();
        for change in of_prefix {
            candidates.retain(|one| !change.is_about(one));
            if let RouteChange::Announce(candidate) = change {
                candidates.push(*candidate);
            }
        }
        let now = ranking.ranked(candidates.into_iter());
        if now != same {
            touched.push(prefix);
        }
        merged.extend(now);
        rest = behind;
    }
    merged.extend_from_slice(rest);
    merged
}

/// The candidates at the beginning that have one prefix.
fn same_prefix(from: &[Ranked]) -> Option<&[Ranked]> {
    let prefix = from.first()?.candidate.prefix;
    let others = from.iter().take_while(|one| one.candidate.prefix == prefix);
    from.get(..others.count())
}

/// Whether the prefix of these candidates has a route.
fn is_active(same: &[Ranked]) -> bool {
    same.first()
        .is_some_and(|one| one.standing == Standing::Active)
}

/// How prefixes are sorted: by family, address, length, as the forwarding table wants them.
type Key = (bool, u128, u8);

fn prefix_key(prefix: IpNet) -> Key {
    match prefix {
        IpNet::V4(net) => (false, u128::from(net.network().to_bits()), net.prefix_len()),
        IpNet::V6(net) => (true, net.network().to_bits(), net.prefix_len()),
    }
}

fn first_key(chunk: &[Ranked]) -> Option<Key> {
    Some(prefix_key(chunk.first()?.candidate.prefix))
}

/// Every prefix that holds the address, the longest first.
pub(crate) fn prefixes_of(version: Version, address: u128) -> impl Iterator<Item = IpNet> {
    let bits = match version {
        Version::V4 => 32,
        Version::V6 => 128,
    };
    (0..=bits).rev().filter_map(move |length| match version {
        Version::V4 => Ipv4Net::new((address as u32).into(), length)
            .ok()
            .map(|net| IpNet::V4(net.trunc())),
        Version::V6 => Ipv6Net::new(address.into(), length)
            .ok()
            .map(|net| IpNet::V6(net.trunc())),
    })
}

fn is_inside(prefix: IpNet, set: &PrefixSet) -> bool {
    let (version, first) = address_bits(prefix.network());
    let (_, last) = address_bits(prefix.broadcast());
    set.contains_range(version, first, last)
}

#[cfg(test)]
mod tests;
