//! A table from the one before it, for a few changed prefixes.
//!
//! 1. A prefix of the first table's bits or fewer: its span of the first table is filled anew.
//! 2. A longer one: down from the first table, each node on the way is copied with one link changed, to the
//!    node in which the prefix ends; of that the prefix's span is filled anew.
//! 3. What leads nowhere on the way, a leaf or a list, is built anew from the few routes inside it.
//! 4. The default route is the first of the values.
//!
//! To fill a span anew: what the longest prefix around it leads to, and over that the routes inside it.

use super::build::{Builder, DEFAULT, Entry};
use super::{Address, HEAD, LEAF, Routes, STRIDE, Trie, head_at};
use ipnet::IpNet;
use std::hash::Hash;
use std::sync::Arc;

/// So many words may come later than those of the last whole build, as a share of those (one in eight) and
/// at least. All later ones are copied with each change, and what leads to nothing any more is among them.
const ROOM: (usize, usize) = (8, 1 << 16);

/// Words that a small change adds at most: room for them spares a second copy.
const FEW: usize = 4_096;

impl<A: Address, V: Copy + Eq + Hash> Trie<A, V> {
    /// The table after the routes of these prefixes have changed; `None` if it is to be built anew.
    pub(super) fn patched(&self, changed: &[(A, u8)], routes: &impl Routes<V>) -> Option<Self> {
        if changed.is_empty() {
            return Some(self.clone());
        }
        let (share, least) = ROOM;
        let room = (self.words.len() / share).max(least);
        let mut builder = self.builder();
        let (mut first, mut default) = (Arc::clone(&self.first), self.default);
        for &(address, length) in changed {
            let prefix = address.prefix(length)?;
            if length == 0 {
                let route = routes.covering(prefix);
                default = route.map_or(self.nothing, |(_, value)| value);
                if let Some(first) = builder.values.first_mut() {
                    *first = default;
                }
                continue;
            }
            let around = prefix.supernet()?;
            let change = Change {
                address,
                length: u32::from(length),
                inside: entries(routes.inside(prefix), 0),
                around: link(&mut builder, routes.covering(around)),
            };
            let slots = Arc::make_mut(&mut first);
            let slot = address.bits(0, A::FIRST);
            if change.length <= A::FIRST {
                let span = 1 << (A::FIRST - change.length);
                slots.get_mut(slot..slot + span)?.fill(change.around);
                builder.fill(slots, &change.inside, 0, A::FIRST);
            } else {
                let link = slots.get_mut(slot)?;
                *link = change.apply(&mut builder, *link, A::FIRST, routes)?;
            }
            if builder.words.len() > room {
                return None;
            }
        }
        Some(Self {
            first,
            words: Arc::clone(&self.words),
            later_words: Arc::new(builder.words),
            values: builder.values.into(),
            lists: Arc::clone(&self.lists),
            later_lists: Arc::new(builder.lists),
            default,
            nothing: self.nothing,
        })
    }

    /// A builder that goes on behind what is there.
    fn builder(&self) -> Builder<A, V> {
        let numbers = (0..).zip(self.values.iter()).skip(1);
        let mut words = Vec::with_capacity(self.later_words.len() + FEW);
        words.extend_from_slice(&self.later_words);
        Builder {
            words_before: Arc::clone(&self.words),
            words,
            values: self.values.to_vec(),
            numbers: numbers.map(|(number, &value)| (value, number)).collect(),
            lists_before: self.lists.len(),
            lists: self.later_lists.to_vec(),
        }
    }
}

/// A changed prefix longer than 0.
struct Change<A, V> {
    address: A,
    length: u32,
    /// The routes inside it.
    inside: Vec<Entry<A, V>>,
    /// The link to what leads on where they say nothing.
    around: u32,
}

impl<A: Address, V: Copy + Eq + Hash> Change<A, V> {
    /// The link that takes the place of `link`, which stands for the bits from `offset` on.
    fn apply(
        &self,
        builder: &mut Builder<A, V>,
        old: u32,
        offset: u32,
        routes: &impl Routes<V>,
    ) -> Option<u32> {
        let Some(mut links) = builder.links(old) else {
            let region = self.address.prefix(offset as u8)?;
            let default = link(builder, routes.covering(region));
            let inside = entries(routes.inside(region), offset as u8);
            return Some(match inside.as_slice() {
                [] => default,
                inside => builder.node(inside, offset, default),
            });
        };
        let slot = self.address.bits(offset, STRIDE);
        if self.length <= offset + STRIDE {
            let span = 1 << (offset + STRIDE - self.length);
            links.get_mut(slot..slot + span)?.fill(self.around);
            builder.fill(&mut links, &self.inside, offset, STRIDE);
        } else {
            let link = links.get_mut(slot)?;
            *link = self.apply(builder, *link, offset + STRIDE, routes)?;
        }
        Some(builder.join(&links))
    }
}

impl<A: Address, V: Copy + Eq + Hash> Builder<A, V> {
    /// The 64 links of a node; `None` for a leaf and for a list.
    fn links(&self, link: u32) -> Option<[u32; 64]> {
        if link & LEAF != 0 {
            return None;
        }
        let (words, place) = match (link as usize).checked_sub(self.words_before.len()) {
            Some(place) => (self.words.as_slice(), place),
            None => (&*self.words_before, link as usize),
        };
        let (children, runs) = head_at(words, place).filter(|(c, r)| c | r != 0)?;
        let (mut links, mut leaf) = ([DEFAULT; 64], DEFAULT);
        let (mut child, mut run) = (place.wrapping_sub(1), place + HEAD);
        for (slot, link) in links.iter_mut().enumerate() {
            if children >> slot & 1 != 0 {
                *link = *words.get(child)?;
                child = child.wrapping_sub(1);
                continue;
            }
            if runs >> slot & 1 != 0 {
                leaf = *words.get(run)?;
                run += 1;
            }
            *link = leaf;
        }
        Some(links)
    }
}

/// The link to what a route leads to, where there is one longer than the default route.
fn link<A: Address, V: Copy + Eq + Hash>(
    builder: &mut Builder<A, V>,
    route: Option<(IpNet, V)>,
) -> u32 {
    match route {
        Some((prefix, value)) if prefix.prefix_len() > 0 => builder.leaf(value),
        _ => DEFAULT,
    }
}

/// The routes of this family that are longer than `longer`.
fn entries<A: Address, V>(
    routes: impl Iterator<Item = (IpNet, V)>,
    longer: u8,
) -> Vec<Entry<A, V>> {
    let entry = |(prefix, value)| {
        let (address, length) = A::of(prefix)?;
        (length > longer).then_some(Entry {
            address,
            length,
            value,
        })
    };
    routes.filter_map(entry).collect()
}
