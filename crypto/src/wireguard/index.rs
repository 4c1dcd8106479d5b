//! Receiver indices: 32 bits that say which session a datagram belongs to, and which worker owns it.
//!
//! ```text
//! | worker: 8 bits | random: 24 bits |       in a data message: byte 7      bytes 4, 5, 6
//! ```
//! Little endian on the wire: so a BPF program steers by one byte of the datagram, byte 7 of messages 3
//! and 4 and byte 11 of message 2; an initiation has none and goes to any worker.
//!
//! The low bits of an index are its place in the table: one array access finds its peer, whatever others
//! send. They are random all the same: an index is drawn until its place is free, and the table is kept
//! so large that less than a third of it is taken.

use super::keyring::MOST_SESSIONS;
use crate::tunnel::PeerId;
use ring::rand::{SecureRandom, SystemRandom};

const RANDOM_BITS: u32 = 24;
const RANDOM_MASK: u32 = (1 << RANDOM_BITS) - 1;
/// Most indices of one peer: its sessions, and our handshake under way.
const MOST_OF_PEER: usize = MOST_SESSIONS + 1;
/// Places in the table for each peer. 65,536 peers have 2^21 places, below 2^24.
const PLACES_OF_PEER: usize = 32;
const _: () = assert!(3 * MOST_OF_PEER < PLACES_OF_PEER);
/// Draws before giving up: at a third taken, all of them fail once in 10^30 times.
const DRAWS: usize = 64;

/// The worker that owns the session of a receiver index.
#[inline]
pub const fn worker_of(index: u32) -> u8 {
    (index >> RANDOM_BITS) as u8
}

/// All indices of one endpoint.
#[derive(Debug)]
pub(super) struct Indices {
    worker: u8,
    /// By the low bits of the index; the length is a power of two.
    places: Vec<Option<Place>>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    index: u32,
    peer: PeerId,
}

impl Indices {
    pub(super) fn new(worker: u8) -> Self {
        Self {
            worker,
            places: vec![None; PLACES_OF_PEER],
        }
    }

    /// Makes room for this many peers.
    pub(super) fn grow(&mut self, peers: usize) {
        let length = peers.saturating_mul(PLACES_OF_PEER).next_power_of_two();
        if length <= self.places.len() {
            return;
        }
        let old = std::mem::replace(&mut self.places, vec![None; length]);
        // Indices that differ in few low bits differ in more of them too: no two meet.
        for place in old.into_iter().flatten() {
            if let Some(room) = self.place_mut(place.index) {
                *room = Some(place);
            }
        }
    }

    /// Whose index this is.
    #[inline]
    pub(super) fn peer(&self, index: u32) -> Option<PeerId> {
        let place = (*self.places.get(index as usize & (self.places.len() - 1))?)?;
        (place.index == index).then_some(place.peer)
    }

    /// A new index for `peer`. `None` if there are no random bytes, or in 64 draws no free place.
    pub(super) fn claim(&mut self, random: &SystemRandom, peer: PeerId) -> Option<u32> {
        let worker = u32::from(self.worker) << RANDOM_BITS;
        for _ in 0..DRAWS {
            let mut drawn = [0; 4];
            random.fill(&mut drawn).ok()?;
            let index = worker | (u32::from_le_bytes(drawn) & RANDOM_MASK);
            let place = self.place_mut(index)?;
            if place.is_none() {
                *place = Some(Place { index, peer });
                return Some(index);
            }
        }
        None
    }

    /// Gives an index back.
    pub(super) fn release(&mut self, index: u32) {
        if let Some(place) = self.place_mut(index) {
            place.take_if(|place| place.index == index);
        }
    }

    fn place_mut(&mut self, index: u32) -> Option<&mut Option<Place>> {
        let mask = self.places.len() - 1;
        self.places.get_mut(index as usize & mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn every_index_finds_its_peer_while_the_table_grows() {
        let mut indices = Indices::new(0xa7);
        let random = SystemRandom::new();
        let mut known = HashMap::new();
        for peer in 0..300_u16 {
            indices.grow(peer as usize + 1);
            for _ in 0..MOST_OF_PEER {
                let index = indices.claim(&random, PeerId(peer)).unwrap();
                assert_eq!(worker_of(index), 0xa7);
                assert_eq!(known.insert(index, PeerId(peer)), None);
            }
        }
        for (index, peer) in &known {
            assert_eq!(indices.peer(*index), Some(*peer));
            assert_eq!(indices.peer(index ^ 0x0080_0000), None);
            assert_eq!(indices.peer(index ^ 0x0100_0000), None);
        }
        for index in known.keys() {
            indices.release(*index);
            assert_eq!(indices.peer(*index), None);
        }
    }

    #[test]
    fn another_index_with_the_same_place_releases_nothing() {
        let mut indices = Indices::new(0);
        let index = indices.claim(&SystemRandom::new(), PeerId(3)).unwrap();
        indices.release(index ^ 0x0040_0000);
        assert_eq!(indices.peer(index), Some(PeerId(3)));
    }
}
