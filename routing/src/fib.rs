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
//! The table is immutable and built in one go from a list: 0.16 s and 35 MB for 1,000,000 IPv4 and 200,000
//! IPv6 routes to 16 places. The crate poptrie 0.2.1 has the same shape, but inserts one by one and moves
//! all nodes each time: 30,000 sorted routes took 1.6 s, growing with the square. prefix-trie 0.10.1 builds
//! as fast, but looked up random addresses in 164 and 495 ns at 100,000 and 1,000,000 routes.
//! docs/benchmarks.md has this table's figures.

use crate::packet::{FlowKey, Version};
use ipnet::IpNet;
use std::collections::HashMap;
use std::hash::Hash;

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
}

#[derive(Clone, Copy)]
struct Entry<A, V> {
    address: A,
    length: u8,
    value: V,
}

impl<A, V> Entry<A, V> {
    fn length(&self) -> u32 {
        u32::from(self.length)
    }
}

/// A prefix in a list, with what it leads to.
#[derive(Clone, Copy, Debug)]
struct Listed<A, V> {
    prefix: A,
    mask: A,
    value: V,
}

/// Where lookups lead: a *link* is the place of a node among the words, or [`LEAF`] and a value's number.
#[derive(Clone, Debug)]
struct Trie<A, V> {
    first: Box<[u32]>,
    /// Nodes of 64 slots for the next six bits, each in one piece, so that it is in one or two lines of
    /// memory. A node's place is that of its head: two words of bits for the slots that lead to a child,
    /// two for those, of the others, where a run of equal leaves begins. Links to the children stand
    /// before it, the first one nearest; the numbers of the runs' values behind it. A node with neither
    /// children nor runs is a list: behind its head stands the place among the listed prefixes, and the
    /// list ends with a prefix of length 0.
    words: Box<[u32]>,
    /// The different values.
    values: Box<[V]>,
    lists: Box<[Listed<A, V>]>,
    nothing: V,
}

impl<A: Address, V: Copy + Eq + Hash> Trie<A, V> {
    #[inline]
    fn find(&self, address: A) -> V {
        let Some(&(mut link)) = self.first.get(address.bits(0, A::FIRST)) else {
            return self.nothing;
        };
        let mut offset = A::FIRST;
        while link & LEAF == 0 {
            let place = link as usize;
            let head = self.words.get(place..).and_then(<[u32]>::first_chunk);
            let Some(&[child_low, child_high, run_low, run_high]) = head else {
                return self.nothing;
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
                return self.nothing;
            };
            link = next;
            offset += STRIDE;
        }
        let value = self.values.get((link & !LEAF) as usize);
        value.copied().unwrap_or(self.nothing)
    }

    #[inline]
    fn find_in_list(&self, start: u32, address: A) -> V {
        self.lists
            .get(start as usize..)
            .and_then(|list| {
                list.iter()
                    .find(|listed| address.is_inside(listed.prefix, listed.mask))
            })
            .map_or(self.nothing, |listed| listed.value)
    }

    fn memory(&self) -> usize {
        size_of_val(&*self.first)
            + size_of_val(&*self.words)
            + size_of_val(&*self.values)
            + size_of_val(&*self.lists)
    }

    fn new(mut entries: Vec<Entry<A, V>>, nothing: V) -> Self {
        // A prefix comes before those inside it; of equal ones the last one stays last (stable sort).
        if !entries.is_sorted_by_key(|e| (e.address, e.length)) {
            entries.sort_by_key(|e| (e.address, e.length));
        }
        let mut builder = Builder {
            words: Vec::new(),
            values: Vec::new(),
            numbers: HashMap::new(),
            lists: Vec::new(),
        };
        let mut first = vec![builder.leaf(nothing); 1 << A::FIRST];
        let mut rest = entries.as_slice();
        while let Some((entry, behind)) = rest.split_first() {
            let slot = entry.address.bits(0, A::FIRST);
            if entry.length() <= A::FIRST {
                let link = builder.leaf(entry.value);
                let span = 1 << (A::FIRST - entry.length());
                if let Some(slots) = first.get_mut(slot..slot + span) {
                    slots.fill(link);
                }
                rest = behind;
            } else {
                let (inside, behind) = split_at_slot(rest, 0, A::FIRST);
                if let Some(link) = first.get_mut(slot) {
                    *link = builder.node(inside, A::FIRST, *link);
                }
                rest = behind;
            }
        }
        Self {
            first: first.into(),
            words: builder.words.into(),
            values: builder.values.into(),
            lists: builder.lists.into(),
            nothing,
        }
    }
}

/// Sorted entries.
type Entries<'a, A, V> = &'a [Entry<A, V>];

/// Splits sorted entries behind those that share the first one's `width` bits at `offset`.
fn split_at_slot<A: Address, V>(
    entries: Entries<'_, A, V>,
    offset: u32,
    width: u32,
) -> (Entries<'_, A, V>, Entries<'_, A, V>) {
    let slot = entries.first().map(|e| e.address.bits(offset, width));
    let same = entries
        .iter()
        .take_while(|e| Some(e.address.bits(offset, width)) == slot)
        .count();
    entries.split_at(same)
}

struct Builder<A, V> {
    words: Vec<u32>,
    values: Vec<V>,
    /// The numbers of the values.
    numbers: HashMap<V, u32>,
    lists: Vec<Listed<A, V>>,
}

impl<A: Address, V: Copy + Eq + Hash> Builder<A, V> {
    /// The link to a value.
    fn leaf(&mut self, value: V) -> u32 {
        let number = *self.numbers.entry(value).or_insert_with(|| {
            self.values.push(value);
            self.values.len() as u32 - 1
        });
        LEAF | number
    }

    /// The link to what these entries say of the bits from `offset` on; where they say nothing, the link
    /// to `default` holds. At most 20 nodes stand above one another.
    fn node(&mut self, entries: Entries<'_, A, V>, offset: u32, default: u32) -> u32 {
        if entries.len() <= A::LIST {
            return self.list(entries, default);
        }
        let mut links = [default; 64];
        let mut rest = entries;
        while let Some((entry, behind)) = rest.split_first() {
            let slot = entry.address.bits(offset, STRIDE);
            if entry.length() <= offset + STRIDE {
                let link = self.leaf(entry.value);
                let span = 1 << (offset + STRIDE - entry.length());
                if let Some(slots) = links.get_mut(slot..slot + span) {
                    slots.fill(link);
                }
                rest = behind;
            } else {
                let (inside, behind) = split_at_slot(rest, offset, STRIDE);
                if let Some(link) = links.get_mut(slot) {
                    *link = self.node(inside, offset + STRIDE, *link);
                }
                rest = behind;
            }
        }
        let (mut children, mut runs, mut last) = (0_u64, 0_u64, None);
        let mut leaves = Vec::with_capacity(links.len());
        for (slot, &link) in links.iter().enumerate() {
            if link & LEAF == 0 {
                children |= 1 << slot;
            } else if last != Some(link) {
                runs |= 1 << slot;
                last = Some(link);
                leaves.push(link);
            }
        }
        if let (0, [one]) = (children, leaves.as_slice()) {
            return *one;
        }
        let to_children = links.iter().rev().filter(|&link| link & LEAF == 0);
        self.words.extend(to_children);
        let place = self.head(children, runs);
        self.words.extend(leaves);
        place
    }

    /// A list of a few entries.
    fn list(&mut self, entries: Entries<'_, A, V>, default: u32) -> u32 {
        let place = self.head(0, 0);
        self.words.push(self.lists.len() as u32);
        // Inner prefixes stand behind outer ones, and later ones count.
        let inside = entries.iter().rev().map(|entry| Listed {
            prefix: entry.address,
            mask: A::mask(entry.length),
            value: entry.value,
        });
        self.lists.extend(inside);
        if let (Some(entry), Some(&value)) =
            (entries.first(), self.values.get((default & !LEAF) as usize))
        {
            self.lists.push(Listed {
                prefix: entry.address,
                mask: A::mask(0),
                value,
            });
        }
        place
    }

    /// Begins a node; its place.
    fn head(&mut self, children: u64, runs: u64) -> u32 {
        let place = self.words.len() as u32;
        let halves = |bits: u64| [bits as u32, (bits >> 32) as u32];
        self.words.extend(halves(children));
        self.words.extend(halves(runs));
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn scan(entries: &[(IpNet, u32)], address: IpAddr) -> u32 {
        entries
            .iter()
            .filter(|(net, _)| net.contains(&address))
            .max_by_key(|(net, _)| net.prefix_len())
            .map_or(0, |&(_, value)| value)
    }

    fn check(entries: &[(IpNet, u32)], probes: impl Iterator<Item = IpAddr>) {
        let fib = Fib::new(entries.iter().copied(), 0);
        let ends = entries.iter().flat_map(|(n, _)| {
            let step = |address: IpAddr, up: bool| match address {
                IpAddr::V4(a) if up => IpAddr::from(a.to_bits().wrapping_add(1).to_be_bytes()),
                IpAddr::V4(a) => IpAddr::from(a.to_bits().wrapping_sub(1).to_be_bytes()),
                IpAddr::V6(a) if up => IpAddr::from(a.to_bits().wrapping_add(1).to_be_bytes()),
                IpAddr::V6(a) => IpAddr::from(a.to_bits().wrapping_sub(1).to_be_bytes()),
            };
            let (first, last) = (n.network(), n.broadcast());
            [first, last, step(first, false), step(last, true)]
        });
        for address in ends.chain(probes) {
            let (version, bits) = crate::packet::address_bits(address);
            assert_eq!(fib.find(version, bits), scan(entries, address), "{address}");
        }
    }

    #[test]
    fn an_empty_table_leads_to_nothing() {
        let fib = Fib::new([], 7);
        assert_eq!(fib.find(Version::V4, 0x0a00_0001), 7);
        assert_eq!(fib.find(Version::V6, u128::MAX), 7);
    }

    #[test]
    fn of_two_entries_for_one_prefix_the_later_one_counts() {
        let net: IpNet = "10.0.0.0/8".parse().unwrap();
        let fib = Fib::new([(net, 1), (net, 2)], 0);
        assert_eq!(fib.find(Version::V4, 0x0a01_0203), 2);
    }

    #[test]
    fn every_length_of_one_address_is_found() {
        for (address, bits) in [("10.77.200.13", 32), ("2001:db8:1:2:3:4:5:6", 128)] {
            let address: IpAddr = address.parse().unwrap();
            let entries: Vec<_> = (0..=bits)
                .map(|l| (IpNet::new(address, l).unwrap().trunc(), u32::from(l) + 1))
                .collect();
            check(&entries, std::iter::once(address));
        }
    }

    fn unique(mut entries: Vec<(IpNet, u32)>) -> Vec<(IpNet, u32)> {
        entries.sort_by_key(|e| e.0);
        entries.dedup_by_key(|e| e.0);
        entries
    }

    proptest! {
        // Few distinct high bits, so that prefixes nest.
        #[test]
        fn a_v4_lookup_agrees_with_a_linear_scan(
            list in proptest::collection::vec((0..4_u32, any::<u32>(), 0..=32_u8, 1..6_u32), 0..80),
            probes in proptest::collection::vec((0..4_u32, any::<u32>()), 50),
        ) {
            let address = |high: u32, low: u32| IpAddr::from(((high << 30) | (low & 0x03ff)| ((low & 0xf000) << 8)).to_be_bytes());
            let entries = list
                .iter()
                .map(|&(h, l, len, v)| (IpNet::new(address(h, l), len).unwrap().trunc(), v))
                .collect();
            check(&unique(entries), probes.iter().map(|&(h, l)| address(h, l)));
        }

        #[test]
        fn a_v6_lookup_agrees_with_a_linear_scan(
            list in proptest::collection::vec((0..4_u128, any::<u16>(), 0..=128_u8, 1..6_u32), 0..80),
            probes in proptest::collection::vec((0..4_u128, any::<u16>()), 50),
        ) {
            let address = |high: u128, low: u16| IpAddr::from(((high << 125) | (u128::from(low & 0xff) << 76) | u128::from(low >> 8)).to_be_bytes());
            let entries = list
                .iter()
                .map(|&(h, l, len, v)| (IpNet::new(address(h, l), len).unwrap().trunc(), v))
                .collect();
            check(&unique(entries), probes.iter().map(|&(h, l)| address(h, l)));
        }
    }
}
