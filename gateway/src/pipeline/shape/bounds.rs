//! How much may wait in a queue.

/// The longest packet that a device gives, bytes: 64 KB of IPv6 payload and its headers.
pub(super) const MAX_PACKET: usize = 65_575;
/// A small packet: a queue has an entry for each of this many bytes that it may hold.
const SMALL_PACKET: u64 = 64;

/// How much may wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Bytes of packets as the wire carries them.
    pub(super) bytes: u64,
    /// Packets as the wire carries them.
    pub(super) packets: u64,
}

impl Bounds {
    /// The most packets that a queue has entries for.
    pub(super) fn entries(self) -> usize {
        self.packets.min(self.bytes / SMALL_PACKET) as usize
    }
}
