//! A train: datagrams of one size behind one another in one buffer, sealed in place and sent by one
//! `sendmsg` with UDP_SEGMENT.
//!
//! ```text
//! | header | packet, padded | tail | header | packet, padded | tail | ...
//! |<---------- stride ----------->|
//! ```
//! All slots have the same stride; only the last may be shorter. The packet of each slot is laid
//! down by whoever splits a super-packet; the engine writes header, padding and tail around it. How much room it
//! needs for them is its [`Layout`], known when the program is compiled.

use std::marker::PhantomData;

/// The largest UDP payload over IPv4 (65,535 - 20 - 8), and so the longest train.
pub const MAX_TRAIN: usize = 65_507;
/// The most segments that UDP_SEGMENT takes in one call (UDP_MAX_SEGMENTS was 64 before Linux 6.9; 128 since).
pub const MAX_SEGMENTS: usize = 64;

/// The room that an engine needs around each packet.
pub trait Layout {
    /// Bytes in front of the packet: WireGuard's type, receiver index and counter; ESP's SPI, sequence number and IV.
    const HEADER: usize;
    /// Bytes behind what is sealed: the tag (WireGuard), the integrity check value (ESP).
    const TAIL: usize;

    /// Length of what is sealed for a packet of `len` bytes, in a tunnel whose MTU is `mtu` bytes of the packet: the
    /// packet itself, and padding behind it, with all that the engine has to say there (ESP's pad length and next
    /// header). Never less than `len`.
    fn sealed(len: usize, mtu: usize) -> usize;

    /// Length of the whole datagram.
    #[inline]
    fn slot(len: usize, mtu: usize) -> usize {
        Self::HEADER + Self::sealed(len, mtu) + Self::TAIL
    }
}

/// One train under construction. See the module's picture.
#[derive(Debug)]
pub struct Train<L> {
    buffer: Box<[u8]>,
    mtu: usize,
    /// Stride of every slot; 0 while empty.
    stride: usize,
    /// Bytes used so far.
    used: usize,
    slots: usize,
    /// Length of the last slot.
    last: usize,
    layout: PhantomData<L>,
}

impl<L: Layout> Train<L> {
    /// An empty train for packets of a tunnel with this MTU (bytes of the inner packet).
    pub fn new(mtu: usize) -> Self {
        Self {
            buffer: vec![0; MAX_TRAIN].into_boxed_slice(),
            mtu,
            stride: 0,
            used: 0,
            slots: 0,
            last: 0,
            layout: PhantomData,
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
        let slot = L::slot(len, self.mtu);
        if self.slots == 0 {
            return slot <= MAX_TRAIN;
        }
        self.last == self.stride
            && slot <= self.stride
            && self.slots < MAX_SEGMENTS
            && self.used + slot <= MAX_TRAIN
    }

    /// Adds a slot for a packet of `len` bytes and gives its place (exactly `len` bytes, to be
    /// filled by the caller; the padding behind it is zeroed here). `None` if it does not fit
    /// ([`Train::accepts`]).
    #[inline]
    pub fn push(&mut self, len: usize) -> Option<&mut [u8]> {
        if !self.accepts(len) {
            return None;
        }
        let sealed = L::sealed(len, self.mtu);
        let slot = L::slot(len, self.mtu);
        let start = self.used + L::HEADER;
        if self.slots == 0 {
            self.stride = slot;
        }
        self.used += slot;
        self.slots += 1;
        self.last = slot;
        let area = self.buffer.get_mut(start..start + sealed)?;
        let (packet, padding) = area.split_at_mut(len);
        padding.fill(0);
        Some(packet)
    }

    /// Each slot in order: header, padded packet and tail in one slice. For the engine.
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
    use crate::wireguard::Train as WireguardTrain;

    #[test]
    fn a_shorter_slot_closes_the_train() {
        let mut train = WireguardTrain::new(1420);
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
        let mut train = WireguardTrain::new(1420);
        while train.push(1420).is_some() {}
        assert_eq!(train.len(), MAX_TRAIN / 1452);
        train.clear(1420);
        while train.push(20).is_some() {}
        assert_eq!(train.len(), MAX_SEGMENTS);
    }

    /// ESP with AES-GCM (RFC 4303, RFC 4106): padding ends at a multiple of 4 whatever the MTU, with pad length and
    /// next header as its last two bytes.
    struct Esp;

    impl Layout for Esp {
        const HEADER: usize = 4 + 4 + 8;
        const TAIL: usize = 16;

        fn sealed(len: usize, _: usize) -> usize {
            (len + 2).next_multiple_of(4)
        }
    }

    #[test]
    fn another_engine_has_its_own_room() {
        let mut train = Train::<Esp>::new(1400);
        for byte in [0xaa, 0xbb] {
            train.push(1400).unwrap().fill(byte);
        }
        // 1,400 and two are padded to 1,404: beyond the MTU, where WireGuard would stop.
        assert_eq!(train.stride(), 16 + 1404 + 16);
        assert_eq!(train.bytes().len(), 2 * train.stride());
        for (slot, byte) in train.slots_mut().zip([0xaa, 0xbb]) {
            assert!(slot[16..1416].iter().all(|&b| b == byte));
            assert_eq!(slot[1416..1420], [0; 4], "zeros, for the engine to fill");
        }
        // As long with its padding as the others.
        assert!(train.accepts(1399) && !train.accepts(1403));
    }
}
