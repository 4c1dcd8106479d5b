//! The forwarding table: longest-prefix match for both IP versions.
//!
//! 1. The first bits of the address index a table: 18 for IPv4, so that a /24 ends in the node behind
//!    it, 12 for IPv6, so that a /48 does.
//! 2. An entry is a leaf, or a node of 64 slots for the next six bits, and so on. A node holds two
//!    bitmaps: which slots have a child, and where runs of equal leaves begin; a population count gives
//!    the place (Asai and Ohara, "Poptrie", SIGCOMM 2015). Shorter prefixes are pushed down into leaves,
//!    so a lookup never goes back.
//! 3. IPv6 tables are sparse: where at most four prefixes are left, they stand in a list, longest first,
//!    instead of a chain of nodes with one child each.
//! 4. A node is one piece of memory with its links and the numbers of its leaves' values. A gateway has a
//!    million routes but few places to send packets to, so the values themselves stay in the first cache:
//!    a lookup waits for memory once for the first table and once for each node, mostly one.
//!
//! 5. What no prefix contains, and what only the default route does, leads to value 0: a changed default
//!    route is one changed value.
//!
//! The table is immutable and built in one go from a list: 0.16 s and 35 MB for 1,000,000 IPv4 and 200,000
//! IPv6 routes to 16 places. The crate poptrie 0.2.1 has the same shape, but inserts one by one and moves
//! all nodes each time: 30,000 sorted routes took 1.6 s, growing with the square. prefix-trie 0.10.1 builds
//! as fast, but looked up random addresses in 164 and 495 ns at 100,000 and 1,000,000 routes.
//! docs/benchmarks.md has this table's figures.
//!
//! A changed prefix makes a new table that shares the old one's nodes ([`mod@patch`]): nodes on the way to it
//! are copied, those inside it are built anew, behind all others; only the first table is copied whole. What
//! nobody leads to any more stays, until it is too much and the table is built anew.

mod build;
mod patch;

use crate::packet::{FlowKey, Version};
use build::{Builder, DEFAULT, Entry};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::hash::Hash;
use std::sync::Arc;

/// Bits that a node consumes: one per slot of a 64-bit map.
const STRIDE: u32 = 6;
/// Marks a link as the number of a value.
const LEAF: u32 = 1 << 31;
/// Words of a node's head.
const HEAD: usize = 4;

/// Longest-prefix match for both IP versions. `V` is what a prefix leads to: a small value, copied out.
#[derive(Clone, Debug)]
pub struct Fib<V> {
    v4: Trie<u32, V>,
    v6: Trie<u128, V>,
}

/// The routes behind a table, as a changed table is made from them.
pub trait Routes<V> {
    /// The prefixes inside `prefix`, itself included, in order of address and length, with their values.
    fn inside(&self, prefix: IpNet) -> impl Iterator<Item = (IpNet, V)>;
    /// The longest prefix that holds all of `prefix`, itself included, with its value.
    fn covering(&self, prefix: IpNet) -> Option<(IpNet, V)>;
}

impl<V: Copy + Eq + Hash> Fib<V> {
    /// Builds the table; of two entries for one prefix the later one counts. What no prefix contains
    /// leads to `nothing`.
    pub fn new(entries: impl IntoIterator<Item = (IpNet, V)>, nothing: V) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (prefix, value) in entries {
            match prefix {
                IpNet::V4(net) => v4.push(Entry {
                    address: net.network().to_bits(),
                    length: net.prefix_len(),
                    value,
                }),
                IpNet::V6(net) => v6.push(Entry {
                    address: net.network().to_bits(),
                    length: net.prefix_len(),
                    value,
                }),
            }
        }
        Self {
            v4: Trie::new(v4, nothing),
            v6: Trie::new(v6, nothing),
        }
    }

    /// The table after the routes of these prefixes have changed; `routes` are those that hold now. `None`
    /// if the table is to be built anew: most of it has changed, or too much of it is left over.
    pub fn patched(&self, changed: &[IpNet], routes: &impl Routes<V>) -> Option<Self> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in changed {
            match prefix {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.prefix_len())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.prefix_len())),
            }
        }
        Some(Self {
            v4: self.v4.patched(&v4, routes)?,
            v6: self.v6.patched(&v6, routes)?,
        })
    }

    /// Where packets of this flow lead to.
    #[inline]
    pub fn lookup(&self, key: &FlowKey) -> V {
        self.find(key.version, key.destination)
    }

    /// What the longest prefix that contains `address` leads to.
    #[inline]
    pub fn find(&self, version: Version, address: u128) -> V {
        match version {
            Version::V4 => self.v4.find(address as u32),
            Version::V6 => self.v6.find(address),
        }
    }

    /// Memory in use, bytes.
    pub fn memory(&self) -> usize {
        self.v4.memory() + self.v6.memory()
    }
}

/// An address that a trie takes apart from its high end.
trait Address: Copy + Ord {
    /// Bits that the first table consumes.
    const FIRST: u32;
    /// At most so many prefixes stand in a list instead of a node.
    const LIST: usize;
    /// The `width` bits behind the first `offset` ones; zeros behind the address's end.
    fn bits(self, offset: u32, width: u32) -> usize;
    /// The high `length` bits set.
    fn mask(length: u8) -> Self;
    /// Whether it equals `prefix` under `mask`.
    fn is_inside(self, prefix: Self, mask: Self) -> bool;
    /// The prefix of its first `length` bits.
    fn prefix(self, length: u8) -> Option<IpNet>;
    /// The address and length of a prefix of this family.
    fn of(prefix: IpNet) -> Option<(Self, u8)>;
}

impl Address for u32 {
    const FIRST: u32 = 18;
    const LIST: usize = 0;
    #[inline]
    fn mask(length: u8) -> Self {
        Self::MAX
            .checked_shl(Self::BITS - u32::from(length))
            .unwrap_or(0)
    }
    #[inline]
    fn is_inside(self, prefix: Self, mask: Self) -> bool {
        (self ^ prefix) & mask == 0
    }
    #[inline]
    fn bits(self, offset: u32, width: u32) -> usize {
        ((self << offset) >> (Self::BITS - width)) as usize
    }
    fn prefix(self, length: u8) -> Option<IpNet> {
        let net = Ipv4Net::new(self.into(), length).ok()?;
        Some(IpNet::V4(net.trunc()))
    }
    fn of(prefix: IpNet) -> Option<(Self, u8)> {
        match prefix {
            IpNet::V4(net) => Some((net.network().to_bits(), net.prefix_len())),
            IpNet::V6(_) => None,
        }
    }
}

impl Address for u128 {
    const FIRST: u32 = 12;
    const LIST: usize = 4;
    #[inline]
    fn mask(length: u8) -> Self {
        Self::MAX
            .checked_shl(Self::BITS - u32::from(length))
            .unwrap_or(0)
    }
    #[inline]
    fn is_inside(self, prefix: Self, mask: Self) -> bool {
        (self ^ prefix) & mask == 0
    }
    #[inline]
    fn bits(self, offset: u32, width: u32) -> usize {
        // Most prefixes end in the upper half, and shifts of 64 bits are cheaper.
        if offset + width <= u64::BITS {
            return ((((self >> 64) as u64) << offset) >> (u64::BITS - width)) as usize;
        }
        ((self << offset) >> (Self::BITS - width)) as usize
    }
    fn prefix(self, length: u8) -> Option<IpNet> {
        let net = Ipv6Net::new(self.into(), length).ok()?;
        Some(IpNet::V6(net.trunc()))
    }
    fn of(prefix: IpNet) -> Option<(Self, u8)> {
        match prefix {
            IpNet::V6(net) => Some((net.network().to_bits(), net.prefix_len())),
            IpNet::V4(_) => None,
        }
    }
}

/// A prefix in a list, with what it leads to; `None`: what the default route leads to.
#[derive(Clone, Copy, Debug)]
struct Listed<A, V> {
    prefix: A,
    mask: A,
    value: Option<V>,
}

/// Where lookups lead: a *link* is the place of a node among the words, or [`LEAF`] and a value's number.
#[derive(Clone, Debug)]
struct Trie<A, V> {
    first: Arc<[u32]>,
    /// Nodes of 64 slots for the next six bits, each in one piece, so that it is in one or two lines of
    /// memory. A node's place is that of its head: two words of bits for the slots that lead to a child,
    /// two for those, of the others, where a run of equal leaves begins. Links to the children stand
    /// before it, the first one nearest; the numbers of the runs' values behind it. A node with neither
    /// children nor runs is a list: behind its head stands the place among the listed prefixes, and the
    /// list ends with a prefix of length 0.
    words: Arc<[u32]>,
    /// Nodes that came later; their places go on behind the last of `words`.
    later_words: Arc<Vec<u32>>,
    /// The different values; the first is what the default route leads to.
    values: Arc<[V]>,
    lists: Arc<[Listed<A, V>]>,
    /// Listed prefixes that came later; their places go on behind the last of `lists`.
    later_lists: Arc<Vec<Listed<A, V>>>,
    /// What the default route leads to.
    default: V,
    /// The same where there is no default route.
    nothing: V,
}

impl<A: Address, V: Copy + Eq + Hash> Trie<A, V> {
    #[inline]
    fn find(&self, address: A) -> V {
        let Some(&(mut link)) = self.first.get(address.bits(0, A::FIRST)) else {
            return self.default;
        };
        let mut offset = A::FIRST;
        while link & LEAF == 0 {
            let place = link as usize;
            let head = self.words.get(place..).and_then(<[u32]>::first_chunk);
            let Some(&[child_low, child_high, run_low, run_high]) = head else {
                return self.find_later(link, offset, address);
            };
            let children = u64::from(child_low) | u64::from(child_high) << 32;
            let runs = u64::from(run_low) | u64::from(run_high) << 32;
            let slot = 1_u64 << address.bits(offset, STRIDE);
            let below = slot - 1;
            let next = if children & slot != 0 {
                place.wrapping_sub(1 + (children & below).count_ones() as usize)
            } else if A::LIST != 0 && children | runs == 0 {
                let list = self.words.get(place + HEAD).copied();
                return self.find_in_list(list.unwrap_or(u32::MAX), address);
            } else {
                place + HEAD - 1 + (runs & (slot | below)).count_ones() as usize
            };
            let Some(&next) = self.words.get(next) else {
                return self.default;
            };
            link = next;
            offset += STRIDE;
        }
        self.value(link)
    }

    #[inline]
    fn value(&self, link: u32) -> V {
        let value = self.values.get((link & !LEAF) as usize);
        value.copied().unwrap_or(self.default)
    }

    /// The same walk from a node that came later. Few lookups get here, so it stands apart: they alone look
    /// at each node for which of the two pieces it is in.
    #[inline(never)]
    fn find_later(&self, mut link: u32, mut offset: u32, address: A) -> V {
        while link & LEAF == 0 {
            let (words, place) = self.words_at(link);
            let Some((children, runs)) = head_at(words, place) else {
                return self.default;
            };
            let slot = 1_u64 << address.bits(offset, STRIDE);
            let below = slot - 1;
            let next = if children & slot != 0 {
                place.wrapping_sub(1 + (children & below).count_ones() as usize)
            } else if children | runs == 0 {
                let list = words.get(place + HEAD).copied();
                return self.find_in_list(list.unwrap_or(u32::MAX), address);
            } else {
                place + HEAD - 1 + (runs & (slot | below)).count_ones() as usize
            };
            let Some(&next) = words.get(next) else {
                return self.default;
            };
            link = next;
            offset += STRIDE;
        }
        self.value(link)
    }

    /// The words that a node is among, and its place there.
    fn words_at(&self, link: u32) -> (&[u32], usize) {
        match (link as usize).checked_sub(self.words.len()) {
            Some(place) => (&self.later_words, place),
            None => (&self.words, link as usize),
        }
    }

    #[inline]
    fn find_in_list(&self, start: u32, address: A) -> V {
        let start = start as usize;
        let list = match self.lists.get(start..) {
            Some(list) if !list.is_empty() => list,
            _ => {
                let later = start.wrapping_sub(self.lists.len());
                self.later_lists.get(later..).unwrap_or_default()
            }
        };
        list.iter()
            .find(|listed| address.is_inside(listed.prefix, listed.mask))
            .and_then(|listed| listed.value)
            .unwrap_or(self.default)
    }

    fn memory(&self) -> usize {
        size_of_val(&*self.first)
            + size_of_val(&*self.words)
            + size_of_val(self.later_words.as_slice())
            + size_of_val(&*self.values)
            + size_of_val(&*self.lists)
            + size_of_val(self.later_lists.as_slice())
    }

    fn new(mut entries: Vec<Entry<A, V>>, nothing: V) -> Self {
        // A prefix comes before those inside it; of equal ones the last one stays last (stable sort).
        if !entries.is_sorted_by_key(|e| (e.address, e.length)) {
            entries.sort_by_key(|e| (e.address, e.length));
        }
        let defaults = entries.iter().filter(|entry| entry.length == 0);
        let default = defaults.last().map_or(nothing, |entry| entry.value);
        entries.retain(|entry| entry.length > 0);
        let mut builder = Builder::new(default);
        let mut first = vec![DEFAULT; 1 << A::FIRST];
        builder.fill(&mut first, &entries, 0, A::FIRST);
        Self {
            first: first.into(),
            words: builder.words.into(),
            later_words: Arc::default(),
            values: builder.values.into(),
            lists: builder.lists.into(),
            later_lists: Arc::default(),
            default,
            nothing,
        }
    }
}

/// Which slots of a node lead to a child, and where runs of leaves begin among the others.
fn head_at(words: &[u32], place: usize) -> Option<(u64, u64)> {
    let &[child_low, child_high, run_low, run_high] =
        words.get(place..).and_then(<[u32]>::first_chunk)?;
    let whole = |low, high| u64::from(low) | u64::from(high) << 32;
    Some((whole(child_low, child_high), whole(run_low, run_high)))
}

#[cfg(test)]
mod tests;
