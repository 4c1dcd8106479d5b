//! The rules, compiled: which of them a packet matches, without looking at them one by one.
//!
//! 1. Rules stand in blocks of 1,024. In a block, a set of rules is a *row* of 1,024 bits.
//! 2. For each field that any rule of the block gives, a value's row holds the rules that accept it. Of
//!    all values only those differ that some rule's range begins or ends at, so a field has at most two
//!    rows more than twice its ranges. Numbers find their row in a table of two levels, addresses by
//!    binary search among the places where the row changes.
//! 3. A row's *summary* has one bit for each of its 16 words: whether the word has any rule in it. The
//!    summaries of all fields together leave few words, often none, of which the first that is not zero
//!    when all rows are put together holds the first rule that matches.
//!
//! (Lakshman and Stiliadis, "High-speed policy-based packet forwarding using efficient multi-dimensional
//! range matching", SIGCOMM 1998; Baboescu and Varghese, "Scalable packet classification", SIGCOMM 2001.)
//!
//! One set of rows for all rules would grow with their square; blocks keep memory linear: in each field
//! at most 300 bytes for each of its prefixes or ranges, and 72 KB for each 1,024 rules.

use super::{Addresses, Fields, Match, NUMBERS, Number, Ranges, RuleId, Subject};
use crate::packet::Version;
use std::collections::HashMap;
use std::hash::Hash;

/// Words of a row.
const WORDS: usize = 16;
/// Rules of a block.
const RULES: usize = WORDS * u64::BITS as usize;
/// Fields of a rule: the two addresses, and what is a number.
const FIELDS: usize = 2 + NUMBERS;
/// Values of a page of a [`Numbers`] table.
const PAGE: usize = 256;

/// A set of the rules of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(align(64))]
struct Row([u64; WORDS]);

/// The row of a field that no rule gives. It has one place, by which it is known.
static ALL: Row = Row([u64::MAX; WORDS]);

impl Row {
    const NONE: Self = Self([0; WORDS]);

    fn insert(&mut self, rule: usize) {
        if let Some(word) = self.0.get_mut(rule / u64::BITS as usize) {
            *word |= 1 << (rule % u64::BITS as usize);
        }
    }

    fn add(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(other.0) {
            *word |= other;
        }
    }

    fn remove(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(other.0) {
            *word &= !other;
        }
    }

    /// The rules that are in every row.
    #[inline]
    fn common(rows: &[&Self]) -> Self {
        let mut common = Self([u64::MAX; WORDS]);
        for &row in rows {
            if !std::ptr::eq(row, &raw const ALL) {
                for (word, other) in common.0.iter_mut().zip(&row.0) {
                    *word &= other;
                }
            }
        }
        common
    }

    /// Which words have any rule in them.
    #[inline]
    fn summary(&self) -> u16 {
        let mut summary = 0;
        for (index, &word) in self.0.iter().enumerate() {
            summary |= u16::from(word != 0) << index;
        }
        summary
    }
}

/// Rules, compiled: see the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Classifier {
    blocks: Box<[Block]>,
    rules: usize,
}

impl Classifier {
    pub(super) fn new(matches: &[Match]) -> Self {
        Self {
            blocks: matches.chunks(RULES).map(Block::new).collect(),
            rules: matches.len(),
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.rules
    }

    /// The first rule that matches.
    #[inline]
    pub(super) fn first(&self, subject: &Subject) -> Option<RuleId> {
        let mut start = 0;
        for block in &self.blocks {
            if let Some(rule) = block.matching(subject).next() {
                return Some(RuleId((start + rule) as u16));
            }
            start += RULES;
        }
        None
    }

    /// Every rule that matches, in order.
    pub(super) fn all(&self, subject: &Subject) -> impl Iterator<Item = usize> {
        (0..)
            .step_by(RULES)
            .zip(&self.blocks)
            .flat_map(move |(start, block): (usize, &Block)| {
                block.matching(subject).map(move |rule| start + rule)
            })
    }

    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.blocks) + self.blocks.iter().map(Block::memory).sum::<usize>()
    }
}

/// Up to 1,024 rules. A field that none of them gives is not there.
#[derive(Clone, Debug)]
struct Block {
    numbers: [Option<Numbers>; NUMBERS],
    source: Option<AddressRows>,
    destination: Option<AddressRows>,
}

impl Block {
    fn new(matches: &[Match]) -> Self {
        let fields: Vec<Fields> = matches.iter().map(Fields::of).collect();
        let address = |of: fn(&Fields) -> &Option<Addresses>| {
            AddressRows::new(fields.iter().map(|fields| of(fields).as_ref()))
        };
        Self {
            numbers: std::array::from_fn(|number| {
                let of = |fields: &'_ Fields| fields.numbers.get(number).cloned().flatten();
                Numbers::new(fields.iter().map(of))
            }),
            source: address(|fields| &fields.source),
            destination: address(|fields| &fields.destination),
        }
    }

    /// The rules that match, in order. Addresses are the dearest to look up and come last, if rules are
    /// left then.
    #[inline]
    fn matching(&self, subject: &Subject) -> Matching<'_> {
        let mut rows = [&ALL; FIELDS];
        let mut summary = u16::MAX;
        let [source, destination, numbers @ ..] = &mut rows;
        for ((field, number), row) in self.numbers.iter().zip(subject.numbers).zip(numbers) {
            if let Some(field) = field {
                *row = field.rows.narrow(field.class(number), &mut summary);
            }
        }
        for (field, address, row) in [
            (&self.destination, subject.destination, destination),
            (&self.source, subject.source, source),
        ] {
            if let Some(field) = field
                && summary != 0
            {
                let class = field.class(subject.version, address);
                *row = field.rows.narrow(class, &mut summary);
            }
        }
        // Rules that nearly match leave words in which nothing is. All words in one go cost less than
        // four one by one.
        if summary.count_ones() > 3 {
            summary = Row::common(&rows).summary();
        }
        Matching {
            rows,
            summary,
            word: 0,
            start: 0,
        }
    }

    fn memory(&self) -> usize {
        let numbers = self.numbers.iter().flatten().map(Numbers::memory);
        let addresses = [&self.source, &self.destination];
        let addresses = addresses.into_iter().flatten().map(AddressRows::memory);
        numbers.chain(addresses).sum()
    }
}

/// The rules of a block that are in every row.
struct Matching<'a> {
    rows: [&'a Row; FIELDS],
    /// Words that are left to look at.
    summary: u16,
    /// Rules of the word in hand that are left, and the number of its first.
    word: u64,
    start: usize,
}

impl Iterator for Matching<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.word == 0 {
            if self.summary == 0 {
                return None;
            }
            let index = self.summary.trailing_zeros() as usize % WORDS;
            self.summary &= self.summary - 1;
            self.start = index * u64::BITS as usize;
            let mut word = u64::MAX;
            for row in &self.rows {
                word &= row.0[index];
            }
            self.word = word;
        }
        let rule = self.start + self.word.trailing_zeros() as usize;
        self.word &= self.word - 1;
        Some(rule)
    }
}

/// The different rows of a field.
#[derive(Clone, Debug)]
struct Rows {
    rows: Box<[Row]>,
    /// Beside the rows, so that all of them stay in the first cache.
    summaries: Box<[u16]>,
}

impl Rows {
    /// The row of a class; takes the words out of `summary` that it has no rule in.
    #[inline]
    fn narrow(&self, class: u32, summary: &mut u16) -> &Row {
        let class = class as usize;
        let (Some(row), Some(words)) = (self.rows.get(class), self.summaries.get(class)) else {
            return &ALL;
        };
        *summary &= words;
        row
    }

    fn memory(&self) -> usize {
        size_of_val(&*self.rows) + size_of_val(&*self.summaries)
    }
}

/// Collects rows; equal ones are one.
#[derive(Default)]
struct RowSet {
    rows: Vec<Row>,
    classes: HashMap<Row, u32>,
}

impl RowSet {
    fn class(&mut self, row: &Row) -> u32 {
        *self.classes.entry(*row).or_insert_with(|| {
            self.rows.push(*row);
            self.rows.len() as u32 - 1
        })
    }

    fn finish(self) -> Rows {
        Rows {
            summaries: self.rows.iter().map(Row::summary).collect(),
            rows: self.rows.into(),
        }
    }
}

/// What rules give for one field: rules with the same list stand together, those without one in `any`.
struct Lists<L> {
    any: Row,
    lists: Vec<(L, Row)>,
}

impl<L: Eq + Hash + Clone> Lists<L> {
    /// `None` if no rule gives the field.
    fn new(given: impl Iterator<Item = Option<L>>) -> Option<Self> {
        let mut found = Self {
            any: Row::NONE,
            lists: Vec::new(),
        };
        let mut places = HashMap::new();
        for (rule, list) in given.enumerate() {
            let row = match list {
                None => Some(&mut found.any),
                Some(list) => {
                    let place = *places.entry(list.clone()).or_insert(found.lists.len());
                    if place == found.lists.len() {
                        found.lists.push((list, Row::NONE));
                    }
                    found.lists.get_mut(place).map(|(_, row)| row)
                }
            };
            if let Some(row) = row {
                row.insert(rule);
            }
        }
        (!found.lists.is_empty()).then_some(found)
    }

    /// Where the row changes, and to which; the first place is the smallest number.
    fn sweep<A: Number>(&self, ranges: impl Fn(&L) -> &Ranges<A>, rows: &mut RowSet) -> Changes<A> {
        // At one place a range ends before the next begins.
        let mut events = Vec::new();
        for (list, row) in &self.lists {
            for &(first, last) in ranges(list) {
                events.push((first, true, row));
                events.extend(last.next().map(|behind| (behind, false, row)));
            }
        }
        events.sort_unstable_by_key(|&(place, begins, _)| (place, begins));
        let mut row = self.any;
        let mut changes = Changes {
            places: Vec::new(),
            classes: Vec::new(),
        };
        if events.first().is_none_or(|&(place, ..)| place != A::MIN) {
            changes.push(A::MIN, rows.class(&row));
        }
        for at_once in events.chunk_by(|a, b| a.0 == b.0) {
            for &(_, begins, of) in at_once {
                if begins {
                    row.add(of);
                } else {
                    row.remove(of);
                }
            }
            if let Some(&(place, ..)) = at_once.first() {
                changes.push(place, rows.class(&row));
            }
        }
        changes
    }
}

/// Places in order, and the class of what lies between each and the next.
#[derive(Clone, Debug)]
struct Changes<A> {
    places: Vec<A>,
    classes: Vec<u32>,
}

impl<A: Number> Changes<A> {
    fn push(&mut self, place: A, class: u32) {
        if self.classes.last() != Some(&class) {
            self.places.push(place);
            self.classes.push(class);
        }
    }

    #[inline]
    fn class(&self, number: A) -> u32 {
        let behind = self.places.partition_point(|&place| place <= number);
        let found = self.classes.get(behind.wrapping_sub(1));
        found.copied().unwrap_or_default()
    }

    fn memory(&self) -> usize {
        size_of_val(&*self.places) + size_of_val(&*self.classes)
    }
}

/// The rows of a field that is a number of 16 bits, or not there.
#[derive(Clone, Debug)]
struct Numbers {
    rows: Rows,
    /// The row of a packet without the field.
    absent: u32,
    /// For each high byte its page.
    first: Box<[u8; PAGE]>,
    /// For each low byte the class. Equal pages are one.
    pages: Box<[[u32; PAGE]]>,
}

impl Numbers {
    fn new(given: impl Iterator<Item = Option<Ranges<u16>>>) -> Option<Self> {
        let lists = Lists::new(given)?;
        let mut rows = RowSet::default();
        let absent = rows.class(&lists.any);
        let changes = lists.sweep(|list| list, &mut rows);
        let mut places = HashMap::new();
        let mut pages = Vec::new();
        let mut first = Box::new([0; PAGE]);
        for (high, entry) in (0..=u8::MAX).zip(first.iter_mut()) {
            let mut page = [0; PAGE];
            for (low, class) in (0..=u8::MAX).zip(&mut page) {
                *class = changes.class(u16::from_be_bytes([high, low]));
            }
            *entry = *places.entry(page).or_insert_with(|| {
                pages.push(page);
                (pages.len() - 1) as u8
            });
        }
        Some(Self {
            rows: rows.finish(),
            absent,
            first,
            pages: pages.into(),
        })
    }

    #[inline]
    fn class(&self, number: Option<u16>) -> u32 {
        let Some(number) = number else {
            return self.absent;
        };
        let [high, low] = number.to_be_bytes();
        let page = self.first[usize::from(high)];
        self.pages
            .get(usize::from(page))
            .map_or(self.absent, |page| page[usize::from(low)])
    }

    fn memory(&self) -> usize {
        self.rows.memory() + size_of_val(&*self.first) + size_of_val(&*self.pages)
    }
}

/// The rows of a field that is an address.
#[derive(Clone, Debug)]
struct AddressRows {
    rows: Rows,
    v4: Changes<u32>,
    v6: Changes<u128>,
}

impl AddressRows {
    fn new<'a>(given: impl Iterator<Item = Option<&'a Addresses>>) -> Option<Self> {
        let lists = Lists::new(given)?;
        let mut rows = RowSet::default();
        Some(Self {
            v4: lists.sweep(|list| &list.v4, &mut rows),
            v6: lists.sweep(|list| &list.v6, &mut rows),
            rows: rows.finish(),
        })
    }

    #[inline]
    fn class(&self, version: Version, address: u128) -> u32 {
        match version {
            Version::V4 => self.v4.class(address as u32),
            Version::V6 => self.v6.class(address),
        }
    }

    fn memory(&self) -> usize {
        self.rows.memory() + self.v4.memory() + self.v6.memory()
    }
}
