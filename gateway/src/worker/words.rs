//! Single facts that workers and control tell each other through atomic words: written by one, read by others
//! whenever they like.

use arc_swap::ArcSwapOption;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// A neighbour's MAC address, published by control to the workers in one atomic word, and the workers'
/// wish that it be resolved.
#[derive(Debug, Default)]
pub struct NeighborWord {
    word: AtomicU64,
    wanted: AtomicBool,
}

/// Set while the low 48 bits hold an address that may be used.
const RESOLVED: u64 = 1 << 63;

impl NeighborWord {
    /// The address to send to; `None` while it is not known.
    #[inline]
    pub fn mac(&self) -> Option<[u8; 6]> {
        let word = self.word.load(Ordering::Relaxed);
        let [_, _, mac @ ..] = word.to_be_bytes();
        (word & RESOLVED != 0).then_some(mac)
    }

    /// Control: publishes the address, or that there is none now.
    pub fn publish(&self, mac: Option<[u8; 6]>) {
        let word = mac.map_or(0, |[a, b, c, d, e, f]| {
            RESOLVED | u64::from_be_bytes([0, 0, a, b, c, d, e, f])
        });
        self.word.store(word, Ordering::Relaxed);
    }

    /// Worker: asks control to resolve the address. True if nobody had asked yet (then wake control).
    pub fn want(&self) -> bool {
        !self.wanted.swap(true, Ordering::AcqRel)
    }

    /// Control: whether a worker has asked since the last call.
    pub fn take_wanted(&self) -> bool {
        self.wanted.swap(false, Ordering::AcqRel)
    }
}

/// What the owner of a tunnel, or of one lane of it, tells others about it; written every 100 ms at most, never per packet.
/// Times are milliseconds since the gateway started, plus 1; 0 means never.
#[derive(Debug, Default)]
pub struct TunnelWord {
    /// When the session in use was established.
    pub last_handshake: AtomicU64,
    /// When an authenticated message last came in.
    pub last_received: AtomicU64,
    /// When the first handshake was started that nobody has answered, also once the tunnel has given up. 0
    /// when the last one was answered, or none was needed.
    pub handshaking: AtomicU64,
    /// When the peer's own initiation was answered, while it has not used the session that it asked for.
    pub called: AtomicU64,
    /// Handshakes completed.
    pub handshakes: AtomicU64,
    /// Whether packets can be sealed now.
    pub has_session: AtomicBool,
    /// Where the peer is reached.
    pub endpoint: ArcSwapOption<SocketAddr>,
    /// Where it is reached from: the address of this machine that its datagrams come to.
    pub local: ArcSwapOption<IpAddr>,
    /// Control: the largest IP packet that the route to it takes, bytes; 0: not known.
    pub path_mtu: AtomicU32,
    /// Datagrams that were too long for the route, and went in fragments.
    pub fragmented: AtomicU64,
    /// IP packets that came in through it.
    pub packets_in: AtomicU64,
    /// Their bytes; of clients only.
    pub bytes_in: AtomicU64,
    /// IP packets that went out through it.
    pub packets_out: AtomicU64,
    /// Their bytes; of clients only.
    pub bytes_out: AtomicU64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbor_word_gives_back_its_address() {
        let word = NeighborWord::default();
        assert_eq!(word.mac(), None);
        assert!(word.want());
        assert!(!word.want());
        assert!(word.take_wanted());
        word.publish(Some([2, 0, 0, 0xaa, 0xbb, 0xcc]));
        assert_eq!(word.mac(), Some([2, 0, 0, 0xaa, 0xbb, 0xcc]));
        word.publish(None);
        assert_eq!(word.mac(), None);
    }
}
