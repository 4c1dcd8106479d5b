//! The memory of flows: open addressing with a seeded hash, in segments.
//!
//! A slot is one cache line. A segment is asked of the system at once, and touched by whoever makes it
//! ([`room`]): control, or a worker before it runs. The first touch of a large page takes the kernel 0.1 ms and more,
//! and a sweep would touch one page after the other while packets wait. A larger limit adds a segment, so nothing
//! that is there moves.
//! A removed entry leaves no mark: those behind it that it kept from their places move up.

use routing::decide::fold;
use routing::packet::{FlowKey, Version};

/// 64-bit words of a slot.
const WORDS: usize = 8;
/// Words of it that hold the key.
const KEY: usize = 5;
/// In the key's last word, above ports and protocol: the slot is in use.
const IN_USE: u64 = 1 << 40;
const IS_V6: u64 = 1 << 41;

type Slot = [u64; WORDS];

/// Empty slots whose memory is there.
pub(super) type Room = Box<[Slot]>;

/// Slots in the smallest page.
const PAGE: usize = 4096 / size_of::<Slot>();

/// Makes so many empty slots and touches each page of them: not to be done where packets wait.
pub(super) fn room(slots: usize) -> Room {
    let mut room: Room = vec![[0; WORDS]; slots].into();
    for slot in room.iter_mut().step_by(PAGE) {
        // A zero that the compiler does not know for one: it would leave the store out.
        *slot = std::hint::black_box([0; WORDS]);
    }
    room
}

/// Slots that a table of so many needs more for this many flows; 0: none.
pub(super) fn growth(slots: usize, flows: usize) -> usize {
    let missing = flows.saturating_sub(slots / 4 * 3);
    if missing == 0 && slots > 0 {
        return 0;
    }
    (missing.saturating_mul(4) / 3 + 4).next_power_of_two()
}

/// What a flow is known by: the same for both of its directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key([u64; KEY]);

impl Key {
    /// An empty slot's.
    pub(super) const NONE: Self = Self([0; KEY]);

    /// The key, and which of its two directions this is.
    pub(super) fn of(flow: &FlowKey) -> (Self, usize) {
        let a = (flow.source, flow.source_port);
        let b = (flow.destination, flow.destination_port);
        let (first, second, direction) = if a <= b { (a, b, 0) } else { (b, a, 1) };
        let version = match flow.version {
            Version::V4 => 0,
            Version::V6 => IS_V6,
        };
        let rest = u64::from(first.1)
            | u64::from(second.1) << 16
            | u64::from(flow.protocol) << 32
            | IN_USE
            | version;
        let half = |bits: u128| [bits as u64, (bits >> 64) as u64];
        let ([a, b], [c, d]) = (half(first.0), half(second.0));
        (Self([a, b, c, d, rest]), direction)
    }

    /// The flow in this direction.
    pub(super) fn flow(&self, direction: usize) -> FlowKey {
        let [a, b, c, d, rest] = self.0;
        let whole = |low: u64, high: u64| u128::from(low) | u128::from(high) << 64;
        let first = (whole(a, b), rest as u16);
        let second = (whole(c, d), (rest >> 16) as u16);
        let (from, to) = if direction == 0 {
            (first, second)
        } else {
            (second, first)
        };
        FlowKey {
            source: from.0,
            destination: to.0,
            source_port: from.1,
            destination_port: to.1,
            protocol: (rest >> 32) as u8,
            version: if rest & IS_V6 == 0 {
                Version::V4
            } else {
                Version::V6
            },
        }
    }
}

/// What is known of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Key,
    /// When it came and when it was last looked up, ticks.
    pub(super) opened: u32,
    pub(super) touched: u32,
    /// By direction, which sides of gateways its packets pass; 0: none has come that way.
    pub(super) sides: [u8; 2],
    /// By direction, a bit: its sender has ended it.
    pub(super) ended: u8,
    /// The direction of the first packet.
    pub(super) opener: u8,
    /// Where packets of that direction come in and go out.
    pub(super) from: u16,
    pub(super) to: u16,
}

impl Entry {
    fn pack(&self) -> Slot {
        let [a, b, c, d, rest] = self.key.0;
        let [one, other] = self.sides;
        let times = u64::from(self.opened) | u64::from(self.touched) << 32;
        let state = u64::from_le_bytes([one, other, self.ended, self.opener, 0, 0, 0, 0]);
        let places = u64::from(self.from) << 32 | u64::from(self.to) << 48;
        [a, b, c, d, rest, times, state | places, 0]
    }

    fn unpack(slot: &Slot) -> Self {
        let [a, b, c, d, rest, times, state, _] = *slot;
        let [one, other, ended, opener, ..] = state.to_le_bytes();
        Self {
            key: Key([a, b, c, d, rest]),
            opened: times as u32,
            touched: (times >> 32) as u32,
            sides: [one, other],
            ended,
            opener,
            from: (state >> 32) as u16,
            to: (state >> 48) as u16,
        }
    }
}

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    segment: usize,
    slot: usize,
}

/// A power of two of slots, at most three quarters of them in use.
#[derive(Debug)]
struct Segment {
    slots: Box<[Slot]>,
    used: usize,
}

impl Segment {
    fn has_room(&self) -> bool {
        self.used < self.slots.len() / 4 * 3
    }

    /// The slots from a hash's own on, once around.
    fn from(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let mask = self.slots.len() - 1;
        let home = hash as usize & mask;
        (0..=mask).map(move |step| (home + step) & mask)
    }

    /// The first slot from the hash's own on that is the key's, or empty.
    fn look(&self, hash: u64, key: &Key) -> Result<usize, usize> {
        for index in self.from(hash) {
            match self.slots.get(index) {
                Some([a, b, c, d, rest, ..]) if [*a, *b, *c, *d, *rest] == key.0 => {
                    return Ok(index);
                }
                Some([_, _, _, _, 0, ..]) | None => return Err(index),
                Some(_) => {}
            }
        }
        Err(0)
    }
}

/// The flows of one worker.
#[derive(Debug)]
pub(super) struct Table {
    segments: Vec<Segment>,
    seed: [u64; 3],
    /// The slot that is swept next.
    cursor: Place,
}

impl Table {
    /// A table for so many flows, in this room if it is large enough. `seed` is random and secret, so that no stranger
    /// can aim at a slot.
    pub(super) fn new(flows: usize, seed: u64, prepared: Option<Room>) -> Self {
        let mut table = Self {
            segments: Vec::new(),
            seed: [1, 2, 3].map(|n: u64| fold(seed ^ n, 0x9E37_79B9_7F4A_7C15)),
            cursor: Place {
                segment: 0,
                slot: 0,
            },
        };
        table.grow(flows, prepared);
        table
    }

    /// Makes room for so many flows in all, out of what has been prepared; it never has less.
    #[cold]
    pub(super) fn grow(&mut self, flows: usize, prepared: Option<Room>) {
        if let Some(slots) = prepared.filter(|room| room.len().is_power_of_two()) {
            self.segments.push(Segment { slots, used: 0 });
        }
        let missing = growth(self.slots(), flows);
        if missing > 0 {
            let slots = room(missing);
            self.segments.push(Segment { slots, used: 0 });
        }
    }

    /// The memory of the table.
    pub(super) fn into_rooms(self) -> impl Iterator<Item = Room> {
        self.segments.into_iter().map(|segment| segment.slots)
    }

    /// Slots, used or not.
    pub(super) fn slots(&self) -> usize {
        self.segments
            .iter()
            .map(|segment| segment.slots.len())
            .sum()
    }

    /// Flows.
    pub(super) fn len(&self) -> usize {
        self.segments.iter().map(|segment| segment.used).sum()
    }

    /// The flow of this key.
    pub(super) fn find(&self, key: &Key) -> Option<(Place, Entry)> {
        let hash = hash(&self.seed, key);
        self.segments
            .iter()
            .enumerate()
            .find_map(|(place, segment)| {
                let slot = segment.look(hash, key).ok()?;
                let entry = Entry::unpack(segment.slots.get(slot)?);
                let segment = place;
                Some((Place { segment, slot }, entry))
            })
    }

    /// Writes what [`Table::find`] has found.
    pub(super) fn set(&mut self, place: Place, entry: &Entry) {
        let segment = self.segments.get_mut(place.segment);
        if let Some(slot) = segment.and_then(|segment| segment.slots.get_mut(place.slot)) {
            *slot = entry.pack();
        }
    }

    /// Adds a flow that is not there; false if there is no room.
    pub(super) fn insert(&mut self, entry: &Entry) -> bool {
        let hash = hash(&self.seed, &entry.key);
        let Some(segment) = self.segments.iter_mut().find(|segment| segment.has_room()) else {
            return false;
        };
        let Err(slot) = segment.look(hash, &entry.key) else {
            return false;
        };
        if let Some(slot) = segment.slots.get_mut(slot) {
            *slot = entry.pack();
            segment.used += 1;
        }
        true
    }

    /// Looks at the next so many slots and removes the flows that are `gone`.
    pub(super) fn sweep(&mut self, slots: usize, mut gone: impl FnMut(&Entry) -> bool) {
        for _ in 0..slots {
            let Place { segment, slot } = self.cursor;
            let Some(found) = self
                .segments
                .get(segment)
                .and_then(|segment| segment.slots.get(slot))
            else {
                let segment = (segment + 1) % self.segments.len().max(1);
                self.cursor = Place { segment, slot: 0 };
                continue;
            };
            let [_, _, _, _, rest, ..] = *found;
            if rest != 0 && gone(&Entry::unpack(found)) {
                // What moves up into this slot is looked at next.
                self.remove(self.cursor);
            } else {
                self.cursor.slot += 1;
            }
        }
    }

    /// Empties a slot and moves up what it kept from its place (Knuth, The Art of Computer Programming,
    /// volume 3, 6.4, algorithm R).
    fn remove(&mut self, place: Place) {
        let Some(segment) = self.segments.get_mut(place.segment) else {
            return;
        };
        let mask = segment.slots.len() - 1;
        let (mut hole, mut next) = (place.slot, place.slot);
        loop {
            next = (next + 1) & mask;
            let Some(slot) = segment.slots.get(next).copied() else {
                break;
            };
            let [a, b, c, d, rest, ..] = slot;
            if rest == 0 || next == place.slot {
                break;
            }
            let home = hash(&self.seed, &Key([a, b, c, d, rest])) as usize & mask;
            // It may move if its home is not between the hole and where it is.
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(hole) & mask) {
                if let Some(empty) = segment.slots.get_mut(hole) {
                    *empty = slot;
                }
                hole = next;
            }
        }
        if let Some(slot) = segment.slots.get_mut(hole) {
            *slot = [0; WORDS];
            segment.used -= 1;
        }
    }
}

fn hash(seed: &[u64; 3], key: &Key) -> u64 {
    let ([a, b, c, d, rest], [first, second, third]) = (key.0, *seed);
    let addresses = fold(a ^ first, b ^ second) ^ fold(c ^ second, d ^ third);
    fold(addresses, rest ^ first)
}
