//! A train: datagrams of one size behind one another in one buffer, sealed in place and sent by one
//! `sendmsg` with UDP_SEGMENT.
//!
//! ```text
//! | header room | plaintext, padded | tag room | header room | plaintext, padded | tag room | ...
//! |<------------------ stride ---------------->|
//! ```
//! All slots have the same stride; only the last may be shorter. The plaintext of each slot is laid
//! down by whoever splits a super-packet; the engine writes header, padding and tag around it.

/// Bytes in front of the plaintext: type, receiver index and counter of a WireGuard data message.
pub const HEADER_ROOM: usize = 16;
/// Bytes behind the plaintext: the Poly1305 (or GCM) tag.
pub const TAG_ROOM: usize = 16;
/// Plaintext is padded to a multiple of this (WireGuard whitepaper, 5.4.6), though never beyond the MTU.
pub const PADDING: usize = 16;
/// The largest UDP payload over IPv4 (65,535 - 20 - 8), and so the longest train.
pub const MAX_TRAIN: usize = 65_507;
/// The most segments that UDP_SEGMENT takes in one call (UDP_MAX_SEGMENTS was 64 before Linux 6.9; 128 since).
pub const MAX_SEGMENTS: usize = 64;

/// Length of the plaintext area for a packet of `len` bytes: padded to 16, not beyond `mtu`.
#[inline]
pub const fn padded(len: usize, mtu: usize) -> usize {
    let aligned = len.next_multiple_of(PADDING);
    if aligned <= mtu {
        aligned
    } else if len < mtu {
        mtu
    } else {
        len
    }
}

/// One train under construction. See the module's picture.
#[derive(Debug)]
pub struct Train {
    buffer: Box<[u8]>,
    mtu: usize,
    /// Stride of every slot; 0 while empty.
    stride: usize,
    /// Bytes used so far.
    used: usize,
    slots: usize,
    /// Length of the last slot.
    last: usize,
}

impl Train {
    /// An empty train for packets of a tunnel with this MTU (bytes of the inner packet).
    pub fn new(mtu: usize) -> Self {
        Self {
            buffer: vec![0; MAX_TRAIN].into_boxed_slice(),
            mtu,
            stride: 0,
            used: 0,
            slots: 0,
            last: 0,
        }
    }

    /// Makes the train empty again, for a tunnel with this MTU.
    pub fn clear(&mut self, mtu: usize) {
        (self.mtu, self.stride, self.used, self.slots, self.last) = (mtu, 0, 0, 0, 0);
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.slots == 0
    }

    /// How many datagrams are in it.
    pub fn len(&self) -> usize {
        self.slots
    }

    /// Length of each datagram but the last, as UDP_SEGMENT wants it; bytes.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Whether a packet of `len` bytes can ride in this train: the first slot sets the stride, a shorter
    /// one closes the train.
    #[inline]
    pub fn accepts(&self, len: usize) -> bool {
        let slot = HEADER_ROOM + padded(len, self.mtu) + TAG_ROOM;
        if self.slots == 0 {
            return slot <= MAX_TRAIN;
        }
        self.last == self.stride
            && slot <= self.stride
            && self.slots < MAX_SEGMENTS
            && self.used + slot <= MAX_TRAIN
    }

    /// Adds a slot for a packet of `len` bytes and gives its plaintext area (exactly `len` bytes, to be
    /// filled by the caller; the padding behind it is zeroed here). `None` if it does not fit
    /// ([`Train::accepts`]).
    #[inline]
    pub fn push(&mut self, len: usize) -> Option<&mut [u8]> {
        if !self.accepts(len) {
            return None;
        }
        let plain = padded(len, self.mtu);
        let slot = HEADER_ROOM + plain + TAG_ROOM;
        let start = self.used + HEADER_ROOM;
        if self.slots == 0 {
            self.stride = slot;
        }
        self.used += slot;
        self.slots += 1;
        self.last = slot;
        let area = self.buffer.get_mut(start..start + plain)?;
        let (packet, padding) = area.split_at_mut(len);
        padding.fill(0);
        Some(packet)
    }

    /// Each slot in order: header room, padded plaintext and tag room in one slice. For the engine.
    #[inline]
    pub fn slots_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let stride = self.stride.max(1);
        self.buffer
            .get_mut(..self.used)
            .unwrap_or_default()
            .chunks_mut(stride)
    }

    /// The datagrams, back to back.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.used).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_stops_at_the_mtu() {
        assert_eq!(padded(0, 1420), 0);
        assert_eq!(padded(1, 1420), 16);
        assert_eq!(padded(1408, 1420), 1408);
        assert_eq!(padded(1419, 1420), 1420);
        assert_eq!(padded(1420, 1420), 1420);
        assert_eq!(padded(1500, 1420), 1500);
    }

    #[test]
    fn a_shorter_slot_closes_the_train() {
        let mut train = Train::new(1420);
        assert_eq!(train.push(1408).map(|s| s.len()), Some(1408));
        assert_eq!(train.push(1408).map(|s| s.len()), Some(1408));
        assert_eq!(train.push(100).map(|s| s.len()), Some(100));
        assert!(train.push(1408).is_none());
        assert!(train.push(100).is_none());
        assert_eq!((train.len(), train.stride()), (3, 1440));
        assert_eq!(
            train.slots_mut().map(|s| s.len()).collect::<Vec<_>>(),
            [1440, 1440, 144]
        );
    }

    #[test]
    fn a_train_never_outgrows_a_datagram() {
        let mut train = Train::new(1420);
        while train.push(1420).is_some() {}
        assert_eq!(train.len(), MAX_TRAIN / 1452);
        train.clear(1420);
        while train.push(20).is_some() {}
        assert_eq!(train.len(), MAX_SEGMENTS);
    }
}
