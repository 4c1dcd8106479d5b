//! The flow cache: a worker's memory of what was decided about a flow.
//!
//! 1. Everything that the decision depends on goes into a key: addresses, ports, protocol, ingress, whether
//!    a fragment, and the DSCP if any rule looks at it. That is two words for IPv4, five for IPv6, so each
//!    has a table of its own.
//! 2. A seeded hash of them names a set of four entries; no stranger can aim at a set. The four are
//!    compared without a branch: which of them it is cannot be foreseen, and a branch that was foreseen
//!    wrongly would have waited for memory before the next packet could begin to.
//! 3. An entry counts if it is of the snapshot in use and its path is still an active member of its group
//!    (one atomic load). So a flow stays on its path while that lives, also when better balance would be
//!    had elsewhere; a failover moves it with its next packet.
//! 4. Otherwise the snapshot decides, and the entry is written over.
//!
//! The tables are allocated once. A set of IPv4 is two cache lines side by side, one of IPv6 four.

use crate::decide::{Decision, Verdict, fold};
use crate::packet::{Fragment, Headers, Version};
use crate::path::{GroupId, Ingress, PathId};
use crate::policy::RuleId;
use crate::reason::DropReason;
use crate::snapshot::Snapshot;

/// Entries of a set.
const WAYS: usize = 4;
/// Words of a key.
const KEY_V4: usize = 2;
const KEY_V6: usize = 5;
/// Stands for "none" in the packed fields of an entry.
const NO_GROUP: u16 = u16::MAX;
const NO_RULE: u16 = u16::MAX;
const NO_MEMBER: u8 = u8::MAX;
const NO_DSCP: u8 = u8::MAX;
/// Epochs of entries that are of no snapshot in use; others follow.
const EMPTY: u16 = 0;
const STALE: u16 = 1;

#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Entry<const WORDS: usize> {
    /// Everything about a packet that a decision may depend on.
    key: [u64; WORDS],
    verdict: Verdict,
    /// When it was decided: an epoch is the time that one snapshot is in use.
    epoch: u16,
    rule: u16,
    group: u16,
    member: u8,
    is_routed: bool,
    dscp: u8,
}

const _: () = assert!(size_of::<Entry<KEY_V4>>() == 32);
const _: () = assert!(size_of::<Entry<KEY_V6>>() == 64);

impl<const WORDS: usize> Entry<WORDS> {
    const EMPTY: Self = Self {
        // No packet's: the highest bit of the last word is not used.
        key: [u64::MAX; WORDS],
        verdict: Verdict::Drop(DropReason::NoRoute),
        epoch: EMPTY,
        rule: NO_RULE,
        group: NO_GROUP,
        member: NO_MEMBER,
        is_routed: false,
        dscp: NO_DSCP,
    };

    fn new(key: [u64; WORDS], epoch: u16, decision: &Decision) -> Self {
        Self {
            key,
            epoch,
            verdict: decision.verdict,
            rule: decision.rule.map_or(NO_RULE, |rule| rule.0),
            group: decision.group.map_or(NO_GROUP, |group| group.0),
            member: decision.member.unwrap_or(NO_MEMBER),
            is_routed: decision.is_routed,
            dscp: decision.set_dscp.unwrap_or(NO_DSCP),
        }
    }

    #[inline]
    fn decision(&self) -> Decision {
        Decision {
            verdict: self.verdict,
            rule: (self.rule != NO_RULE).then_some(RuleId(self.rule)),
            is_routed: self.is_routed,
            group: (self.group != NO_GROUP).then_some(GroupId(self.group)),
            member: (self.member != NO_MEMBER).then_some(self.member),
            set_dscp: (self.dscp != NO_DSCP).then_some(self.dscp),
        }
    }

    /// Whether the decision still holds.
    #[inline]
    fn holds(&self, snapshot: &Snapshot, epoch: u16) -> bool {
        if self.epoch != epoch {
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

/// A set on two cache lines (IPv4), or four: the processor fetches them in pairs.
#[derive(Clone, Copy, Debug)]
#[repr(align(128))]
struct Set<const WORDS: usize>([Entry<WORDS>; WAYS]);

impl<const WORDS: usize> Set<WORDS> {
    /// Which entry has the key.
    #[inline]
    fn find(&self, key: &[u64; WORDS]) -> Option<usize> {
        let mut equal = 0_u32;
        for (way, entry) in self.0.iter().enumerate() {
            let mut differ = 0;
            for (a, b) in entry.key.iter().zip(key) {
                differ |= a ^ b;
            }
            equal |= u32::from(differ == 0) << way;
        }
        (equal != 0).then(|| equal.trailing_zeros() as usize)
    }
}

/// A worker's memory of flows: see the module.
#[derive(Debug)]
pub struct FlowCache {
    v4: Box<[Set<KEY_V4>]>,
    v6: Box<[Set<KEY_V6>]>,
    state: State,
    /// Whose memory it is.
    worker: usize,
}

/// What both tables have in common.
#[derive(Debug)]
struct State {
    seed: [u64; 6],
    /// Of the snapshot in use.
    generation: u32,
    epoch: u16,
    /// Which entry of a full set goes next.
    victim: usize,
    hits: u64,
    misses: u64,
}

impl FlowCache {
    /// A cache for this many IPv4 flows and half as many of IPv6, rounded up to a power of two. It has
    /// twice as many entries, so that few sets are too small: 128 bytes for each flow. `seed` is random
    /// and secret.
    pub fn new(flows: usize, seed: u64) -> Self {
        let sets = (flows.saturating_mul(2) / WAYS).next_power_of_two();
        let mut state = seed;
        Self {
            v4: vec![Set([Entry::EMPTY; WAYS]); sets].into(),
            v6: vec![Set([Entry::EMPTY; WAYS]); sets.div_ceil(2)].into(),
            state: State {
                seed: std::array::from_fn(|_| split_mix(&mut state)),
                generation: 0,
                epoch: STALE,
                victim: 0,
                hits: 0,
                misses: 0,
            },
            worker: 0,
        }
    }

    /// The same as the memory of the worker of this number; without it, the first's.
    #[must_use]
    pub fn of_worker(self, worker: usize) -> Self {
        Self { worker, ..self }
    }

    /// The number of the worker whose memory it is.
    #[inline]
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// Decides about one packet, from memory if it can.
    #[inline]
    pub fn decide(&mut self, snapshot: &Snapshot, ingress: Ingress, headers: &Headers) -> Decision {
        self.decide_if(snapshot, ingress, headers, |_| Ok(()))
    }

    /// The same; what is not remembered is put to `admit`. A packet that it refuses is dropped for that
    /// reason, and the next one of the flow is put to it again.
    #[inline]
    pub fn decide_if(
        &mut self,
        snapshot: &Snapshot,
        ingress: Ingress,
        headers: &Headers,
        admit: impl FnOnce(Verdict) -> Result<(), DropReason>,
    ) -> Decision {
        if self.state.generation != snapshot.generation().get() {
            self.state.generation = snapshot.generation().get();
            self.forget();
        }
        let flow = &headers.key;
        let rest = rest(snapshot, ingress, headers);
        let seed = &self.state.seed;
        match flow.version {
            Version::V4 => {
                let addresses = flow.source as u64 | (flow.destination as u64) << 32;
                let hash = fold(addresses ^ seed[0], rest ^ seed[1]);
                let hash = fold(hash ^ seed[2], seed[3]);
                let index = hash as usize & (self.v4.len() - 1);
                let set = self.v4.get_mut(index);
                decide_in(
                    set,
                    &[addresses, rest],
                    &mut self.state,
                    snapshot,
                    ingress,
                    headers,
                    admit,
                )
            }
            Version::V6 => {
                let key = [
                    (flow.source >> 64) as u64,
                    flow.source as u64,
                    (flow.destination >> 64) as u64,
                    flow.destination as u64,
                    rest,
                ];
                let source = fold(key[0] ^ seed[0], key[1] ^ seed[1]);
                let destination = fold(key[2] ^ seed[2], key[3] ^ seed[3]);
                let hash = fold(source ^ destination ^ seed[4], rest ^ seed[5]);
                let index = hash as usize & (self.v6.len() - 1);
                let set = self.v6.get_mut(index);
                decide_in(
                    set,
                    &key,
                    &mut self.state,
                    snapshot,
                    ingress,
                    headers,
                    admit,
                )
            }
        }
    }

    /// Packets whose decision was remembered, and packets whose was not.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.state.hits, self.state.misses)
    }

    /// Forgets what has been decided: every flow's next packet is decided anew, but stays on its path while
    /// that lives.
    #[cold]
    pub fn forget(&mut self) {
        let state = &mut self.state;
        state.epoch = state.epoch.checked_add(1).unwrap_or_else(|| {
            // The numbers are used up; they begin again once no entry has one of them.
            let age = |epoch: &mut u16| *epoch = (*epoch).min(STALE);
            let v4 = self.v4.iter_mut().flat_map(|set| &mut set.0);
            v4.for_each(|entry| age(&mut entry.epoch));
            let v6 = self.v6.iter_mut().flat_map(|set| &mut set.0);
            v6.for_each(|entry| age(&mut entry.epoch));
            STALE + 1
        });
    }
}

#[inline]
fn decide_in<const WORDS: usize>(
    set: Option<&mut Set<WORDS>>,
    key: &[u64; WORDS],
    state: &mut State,
    snapshot: &Snapshot,
    ingress: Ingress,
    headers: &Headers,
    admit: impl FnOnce(Verdict) -> Result<(), DropReason>,
) -> Decision {
    let Some(set) = set else {
        return snapshot.decide(ingress, headers);
    };
    let found = set.find(key);
    if let Some(entry) = found.and_then(|way| set.0.get(way))
        && entry.holds(snapshot, state.epoch)
    {
        state.hits = state.hits.wrapping_add(1);
        return entry.decision();
    }
    learn(set, found, key, state, snapshot, (ingress, headers), admit)
}

#[cold]
fn learn<const WORDS: usize>(
    set: &mut Set<WORDS>,
    found: Option<usize>,
    key: &[u64; WORDS],
    state: &mut State,
    snapshot: &Snapshot,
    (ingress, headers): (Ingress, &Headers),
    admit: impl FnOnce(Verdict) -> Result<(), DropReason>,
) -> Decision {
    state.misses = state.misses.wrapping_add(1);
    let keep = found.and_then(|way| set.0.get(way)).and_then(Entry::path);
    let decision = snapshot.decide_keeping(ingress, headers, keep);
    if let Err(reason) = admit(decision.verdict) {
        return Decision {
            verdict: Verdict::Drop(reason),
            ..decision
        };
    }
    let is_old = |entry: &Entry<WORDS>| entry.epoch != state.epoch;
    let way = found.or_else(|| set.0.iter().position(is_old));
    let way = way.unwrap_or_else(|| {
        state.victim = state.victim.wrapping_add(1);
        state.victim % WAYS
    });
    if let Some(entry) = set.0.get_mut(way) {
        *entry = Entry::new(*key, state.epoch, &decision);
    }
    decision
}

/// The key without addresses: ports in the low 32 bits, then protocol (8), fragment (2), DSCP (6), ingress
/// (15). The highest bit is zero.
#[inline]
fn rest(snapshot: &Snapshot, ingress: Ingress, headers: &Headers) -> u64 {
    let flow = &headers.key;
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
    // A snapshot has fewer than 2^15 - 2 paths.
    let ingress = match ingress {
        Ingress::Vnet => 0,
        Ingress::Local => 1,
        Ingress::Path(path) => 2 + u64::from(path.0),
    };
    u64::from(flow.source_port)
        | u64::from(flow.destination_port) << 16
        | u64::from(flow.protocol) << 32
        | fragment << 40
        | dscp << 42
        | ingress << 48
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
