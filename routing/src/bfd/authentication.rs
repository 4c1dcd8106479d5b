//! Keyed SHA1 authentication of control packets (RFC 5880, section 6.7.4).
//!
//! The digest is taken over the whole packet with the key in the digest's place. A sequence number says that a
//! packet is new: keyed SHA1 lets it stand still for a while, meticulous keyed SHA1 wants a new one in each packet.

use super::packet::{DIGEST, MAX_LENGTH, Packet, SHA1_DIGEST, Section, Sha1Section};
use subtle::ConstantTimeEq;

/// SHA1 of some bytes; handed in, since this crate has no cryptography.
pub type Sha1 = fn(&[u8]) -> [u8; DIGEST];

/// The key of a session, and its hash function.
#[derive(Clone)]
pub struct Key {
    /// Which key it is.
    pub id: u8,
    /// The key, filled up with zeros.
    pub bytes: [u8; DIGEST],
    /// Whether each packet has a sequence number of its own.
    pub meticulous: bool,
    /// The hash function.
    pub sha1: Sha1,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Key")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What one session knows of its key's use, both ways.
#[derive(Clone, Debug)]
pub struct Authentication {
    key: Key,
    /// The sequence number of the next packet.
    transmit: u32,
    /// The last sequence number that was heard, until nothing has been heard for long.
    received: Option<u32>,
}

impl Authentication {
    /// Authentication with this key; `first` is random (RFC 5880, section 6.8.1, `bfd.XmitAuthSeq`).
    pub fn new(key: Key, first: u32) -> Self {
        Self {
            key,
            transmit: first,
            received: None,
        }
    }

    /// The section of the next packet. Its sequence number is used once: that is allowed also where the key is
    /// not meticulous.
    pub fn next_section(&mut self) -> Sha1Section {
        let sequence = self.transmit;
        self.transmit = self.transmit.wrapping_add(1);
        Sha1Section {
            meticulous: self.key.meticulous,
            key_id: self.key.id,
            sequence,
        }
    }

    /// Writes the digest into a packet that has been emitted with a SHA1 section.
    pub fn sign(&self, packet: &mut [u8]) {
        let digest = self.digest(packet);
        if let Some(place) = place(packet) {
            *place = digest;
        }
    }

    /// Whether the packet is signed with the key and new; its sequence number then counts as heard.
    /// `bytes` is the control packet, as long as it says.
    pub fn admit(&mut self, packet: &Packet, bytes: &[u8]) -> bool {
        let Section::Sha1(section) = packet.section else {
            return false;
        };
        if section.key_id != self.key.id || section.meticulous != self.key.meticulous {
            return false;
        }
        if let Some(last) = self.received {
            // RFC 5880, section 6.7.4: not behind the last one, and not further ahead than three times the
            // multiplier; both in circular order.
            let ahead = section.sequence.wrapping_sub(last);
            let least = u32::from(section.meticulous);
            if !(least..=3 * u32::from(packet.detect_multiplier)).contains(&ahead) {
                return false;
            }
        }
        let Some(found) = bytes.get(SHA1_DIGEST..SHA1_DIGEST + DIGEST) else {
            return false;
        };
        if !bool::from(self.digest(bytes).ct_eq(found)) {
            return false;
        }
        self.received = Some(section.sequence);
        true
    }

    /// Nothing was heard for twice the detection time: any sequence number is taken again (RFC 5880, section
    /// 6.8.1, `bfd.AuthSeqKnown`).
    pub fn forget(&mut self) {
        self.received = None;
    }

    fn digest(&self, packet: &[u8]) -> [u8; DIGEST] {
        let mut keyed = [0; MAX_LENGTH];
        for (slot, byte) in keyed.iter_mut().zip(packet) {
            *slot = *byte;
        }
        if let Some(place) = place(&mut keyed) {
            *place = self.key.bytes;
        }
        (self.key.sha1)(&keyed)
    }
}

fn place(packet: &mut [u8]) -> Option<&mut [u8; DIGEST]> {
    packet.get_mut(SHA1_DIGEST..)?.first_chunk_mut()
}
