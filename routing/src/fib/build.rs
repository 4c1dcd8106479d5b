//! Nodes out of sorted entries.

use super::{Address, LEAF, Listed, STRIDE};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// The link to what the default route leads to.
pub(super) const DEFAULT: u32 = LEAF;

/// A prefix and what it leads to.
#[derive(Clone, Copy)]
pub(super) struct Entry<A, V> {
    pub(super) address: A,
    pub(super) length: u8,
    pub(super) value: V,
}

impl<A, V> Entry<A, V> {
    fn length(&self) -> u32 {
        u32::from(self.length)
    }
}

/// Sorted entries, none of length 0.
type Entries<'a, A, V> = &'a [Entry<A, V>];

/// Appends nodes and lists.
pub(super) struct Builder<A, V> {
    /// Words in front of the first of `words`.
    pub(super) words_before: Arc<[u32]>,
    pub(super) words: Vec<u32>,
    pub(super) values: Vec<V>,
    /// The numbers of the values, but for the default's.
    pub(super) numbers: HashMap<V, u32>,
    /// Listed prefixes in front of the first of `lists`.
    pub(super) lists_before: usize,
    pub(super) lists: Vec<Listed<A, V>>,
}

impl<A: Address, V: Copy + Eq + Hash> Builder<A, V> {
    /// A builder for a new table.
    pub(super) fn new(default: V) -> Self {
        Self {
            words_before: Arc::default(),
            words: Vec::new(),
            values: vec![default],
            numbers: HashMap::new(),
            lists_before: 0,
            lists: Vec::new(),
        }
    }

    /// The link to a value.
    pub(super) fn leaf(&mut self, value: V) -> u32 {
        let number = *self.numbers.entry(value).or_insert_with(|| {
            self.values.push(value);
            self.values.len() as u32 - 1
        });
        LEAF | number
    }

    /// Lays what these entries say of the `width` bits from `offset` on over the links, one for each value
    /// of those bits.
    pub(super) fn fill(
        &mut self,
        links: &mut [u32],
        entries: Entries<'_, A, V>,
        offset: u32,
        width: u32,
    ) {
        let mut rest = entries;
        while let Some((entry, behind)) = rest.split_first() {
            let slot = entry.address.bits(offset, width);
            if entry.length() <= offset + width {
                let link = self.leaf(entry.value);
                let span = 1 << (offset + width - entry.length());
                if let Some(slots) = links.get_mut(slot..slot + span) {
                    slots.fill(link);
                }
                rest = behind;
            } else {
                let (inside, behind) = split_at_slot(rest, offset, width);
                if let Some(link) = links.get_mut(slot) {
                    *link = self.node(inside, offset + width, *link);
                }
                rest = behind;
            }
        }
    }

    /// The link to what these entries, one or more, say of the bits from `offset` on; where they say
    /// nothing, the link to `default` holds. At most 20 nodes stand above one another.
    pub(super) fn node(&mut self, entries: Entries<'_, A, V>, offset: u32, default: u32) -> u32 {
        if entries.len() <= A::LIST {
            return self.list(entries, default);
        }
        let mut links = [default; 64];
        self.fill(&mut links, entries, offset, STRIDE);
        self.join(&links)
    }

    /// The link to a node with these links; where all of them are one leaf, that leaf.
    pub(super) fn join(&mut self, links: &[u32; 64]) -> u32 {
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
        self.words
            .push((self.lists_before + self.lists.len()) as u32);
        // Inner prefixes stand behind outer ones, and later ones count.
        let inside = entries.iter().rev().map(|entry| Listed {
            prefix: entry.address,
            mask: A::mask(entry.length),
            value: Some(entry.value),
        });
        self.lists.extend(inside);
        if let Some(entry) = entries.first() {
            let value = self.values.get((default & !LEAF) as usize);
            self.lists.push(Listed {
                prefix: entry.address,
                mask: A::mask(0),
                value: value.copied().filter(|_| default != DEFAULT),
            });
        }
        place
    }

    /// Begins a node; its place.
    fn head(&mut self, children: u64, runs: u64) -> u32 {
        let place = (self.words_before.len() + self.words.len()) as u32;
        let halves = |bits: u64| [bits as u32, (bits >> 32) as u32];
        self.words.extend(halves(children));
        self.words.extend(halves(runs));
        place
    }
}

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
