//! The flow cache: a worker's memory of what was decided about a flow.
//!
//! 1. Everything that the decision depends on goes into five words: addresses, ports, protocol, ingress,
//!    whether a fragment, and the DSCP if any rule looks at it.
//! 2. A seeded hash of them names a set of four entries; no stranger can aim at a set.
//! 3. An entry counts if it is of the snapshot in use and its path is still an active member of its group
//!    (one atomic load). So a flow stays on its path while that lives, also when better balance would be
//!    had elsewhere; a failover moves it with its next packet.
//! 4. Otherwise the snapshot decides, and the entry is written over.
//!
//! The table is allocated once. An entry is one cache line.

use crate::decide::{Decision, Verdict, fold};
use crate::packet::{Fragment, Headers, Version};
use crate::path::{GroupId, Ingress, PathId};
use crate::policy::RuleId;
use crate::reason::DropReason;
use crate::rib::RouteId;
use crate::snapshot::Snapshot;

/// Entries of a set: one cache line each.
const WAYS: usize = 4;
/// Stands for "none" in the packed fields of an entry.
const NO_GROUP: u16 = u16::MAX;
const NO_RULE: u16 = u16::MAX;
const NO_ROUTE: u32 = u32::MAX;
const NO_MEMBER: u8 = u8::MAX;

/// Everything about a packet that a decision may depend on.
type Key = [u64; 5];

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Entry {
    key: Key,
    /// Of the snapshot that decided; 0: empty.
    generation: u32,
    route: u32,
    verdict: Verdict,
    rule: u16,
    group: u16,
    member: u8,
}

const _: () = assert!(size_of::<Entry>() == 64);

impl Entry {
    const EMPTY: Self = Self {
        key: [0; 5],
        generation: 0,
        route: NO_ROUTE,
        verdict: Verdict::Drop(DropReason::NoRoute),
        rule: NO_RULE,
        group: NO_GROUP,
        member: NO_MEMBER,
    };

    fn new(key: Key, generation: u32, decision: &Decision) -> Self {
        Self {
            key,
            generation,
            route: decision.route.map_or(NO_ROUTE, |route| route.0),
            verdict: decision.verdict,
            rule: decision.rule.map_or(NO_RULE, |rule| rule.0),
            group: decision.group.map_or(NO_GROUP, |group| group.0),
            member: decision.member.unwrap_or(NO_MEMBER),
        }
    }

    #[inline]
    fn decision(&self) -> Decision {
        Decision {
            verdict: self.verdict,
            rule: (self.rule != NO_RULE).then_some(RuleId(self.rule)),
            route: (self.route != NO_ROUTE).then_some(RouteId(self.route)),
            group: (self.group != NO_GROUP).then_some(GroupId(self.group)),
            member: (self.member != NO_MEMBER).then_some(self.member),
        }
    }

    /// Whether the decision still holds.
    #[inline]
    fn holds(&self, snapshot: &Snapshot) -> bool {
        if self.generation != snapshot.generation().get() {
            return false;
        }
        if self.group == NO_GROUP {
            return true;
        }
        let Some(group) = snapshot.group(GroupId(self.group)) else {
            return false;
        };
        let mask = group.active().load();
        if self.member == NO_MEMBER {
            mask == 0
        } else {
            mask >> (self.member & 63) & 1 != 0
        }
    }

    fn path(&self) -> Option<PathId> {
        match self.verdict {
            Verdict::Path(path) => Some(path),
            Verdict::Vnet | Verdict::Local | Verdict::Drop(_) => None,
        }
    }
}

/// A worker's memory of flows: see the module.
#[derive(Debug)]
pub struct FlowCache {
    sets: Box<[[Entry; WAYS]]>,
    seed: [u64; 6],
    /// Which entry of a full set goes next.
    victim: usize,
    hits: u64,
    misses: u64,
}

impl FlowCache {
    /// A cache for this many flows, rounded up to a power of two, 64 bytes each. `seed` is random and
    /// secret.
    pub fn new(flows: usize, seed: u64) -> Self {
        let sets = flows.div_ceil(WAYS).next_power_of_two();
        let mut state = seed;
        Self {
            sets: vec![[Entry::EMPTY; WAYS]; sets].into(),
            seed: std::array::from_fn(|_| split_mix(&mut state)),
            victim: 0,
            hits: 0,
            misses: 0,
        }
    }

    /// Decides about one packet, from memory if it can.
    #[inline]
    pub fn decide(&mut self, snapshot: &Snapshot, ingress: Ingress, headers: &Headers) -> Decision {
        let key = key(snapshot, ingress, headers);
        let hash = self.hash(&key);
        let index = hash as usize & (self.sets.len() - 1);
        let Some(set) = self.sets.get_mut(index) else {
            return snapshot.decide(ingress, headers);
        };
        let found = set
            .iter()
            .position(|entry| entry.key == key && entry.generation != 0);
        if let Some(entry) = found.and_then(|way| set.get(way))
            && entry.holds(snapshot)
        {
            self.hits = self.hits.wrapping_add(1);
            return entry.decision();
        }
        self.learn(snapshot, ingress, headers, index, &key, found)
    }

    /// Packets whose decision was remembered, and packets whose was not.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits, self.misses)
    }

    #[cold]
    fn learn(
        &mut self,
        snapshot: &Snapshot,
        ingress: Ingress,
        headers: &Headers,
        index: usize,
        key: &Key,
        found: Option<usize>,
    ) -> Decision {
        self.misses = self.misses.wrapping_add(1);
        let generation = snapshot.generation().get();
        let Some(set) = self.sets.get_mut(index) else {
            return snapshot.decide(ingress, headers);
        };
        let keep = found.and_then(|way| set.get(way)).and_then(Entry::path);
        let decision = snapshot.decide_keeping(ingress, headers, keep);
        let way = found
            .or_else(|| set.iter().position(|entry| entry.generation != generation))
            .unwrap_or_else(|| {
                self.victim = self.victim.wrapping_add(1);
                self.victim % WAYS
            });
        if let Some(entry) = set.get_mut(way) {
            *entry = Entry::new(*key, generation, &decision);
        }
        decision
    }

    #[inline]
    fn hash(&self, key: &Key) -> u64 {
        let seed = &self.seed;
        let source = fold(key[0] ^ seed[0], key[1] ^ seed[1]);
        let destination = fold(key[2] ^ seed[2], key[3] ^ seed[3]);
        fold(source ^ destination ^ seed[4], key[4] ^ seed[5])
    }
}

/// Ports in the low 32 bits, then protocol (8), version (1), fragment (2), DSCP (6), ingress (15).
#[inline]
fn key(snapshot: &Snapshot, ingress: Ingress, headers: &Headers) -> Key {
    let flow = &headers.key;
    let version = match flow.version {
        Version::V4 => 0,
        Version::V6 => 1_u64,
    };
    let fragment = match headers.fragment {
        Fragment::Whole => 0,
        Fragment::First => 1,
        Fragment::Later => 2_u64,
    };
    let dscp = if snapshot.policy.uses_dscp() {
        u64::from(headers.traffic_class >> 2)
    } else {
        0
    };
    // A snapshot has fewer than 2^14 paths.
    let ingress = match ingress {
        Ingress::Vnet => 0,
        Ingress::Local => 1,
        Ingress::Path(path) => 2 + u64::from(path.0),
    };
    [
        (flow.source >> 64) as u64,
        flow.source as u64,
        (flow.destination >> 64) as u64,
        flow.destination as u64,
        u64::from(flow.source_port)
            | u64::from(flow.destination_port) << 16
            | u64::from(flow.protocol) << 32
            | version << 40
            | fragment << 41
            | dscp << 43
            | ingress << 49,
    ]
}

/// Sebastiano Vigna's SplitMix64: makes several words out of one seed.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests;
