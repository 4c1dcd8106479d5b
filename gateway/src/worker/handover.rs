//! What workers and control hand each other: whole packets through bounded queues, and single facts
//! through atomic words. No lock on either side.

use crate::worker::bell::Bell;
use crate::worker::change::Order;
pub use crate::worker::interface::{LinkFacts, LinkWord};
use arc_swap::ArcSwapOption;
use crossbeam::queue::ArrayQueue;
use routing::path::{Ingress, PathId};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// The most packets that wait between a worker and the gateway's own host, each way.
pub const HOST_QUEUE: usize = 1024;

/// Places of the queue to control that only answers to probes may take: a flood of pings must not make
/// the gateway believe that its paths are silent.
const RESERVED: usize = HOST_QUEUE / 4;

/// A packet for the gateway itself, on its way from a worker to control.
#[derive(Debug)]
pub struct ToHost {
    /// Where it came in.
    pub ingress: Ingress,
    /// One whole IP packet, checksums complete.
    pub packet: Box<[u8]>,
}

/// A packet that the gateway itself sends, on its way from control to a worker.
#[derive(Debug)]
pub struct FromHost {
    /// The path that it must take, up or down (probes); `None`: as the route table says.
    pub via: Option<PathId>,
    /// One whole IP packet, checksums complete.
    pub packet: Box<[u8]>,
}

/// The port between one worker and control: two bounded queues and the worker's bell. A packet that finds its
/// queue full is dropped and counted by whoever brought it.
#[derive(Debug)]
pub struct HostPort {
    /// Worker to control.
    pub to_host: ArrayQueue<ToHost>,
    /// Control to worker.
    pub from_host: ArrayQueue<FromHost>,
    /// Control to worker: tunnels that come and go.
    pub orders: ArrayQueue<Order>,
    /// Tells the worker that something is there for it.
    pub bell: Arc<Bell>,
}

impl HostPort {
    /// Empty queues of the worker that has this bell.
    pub fn new(bell: Arc<Bell>) -> Self {
        Self {
            to_host: ArrayQueue::new(HOST_QUEUE),
            from_host: ArrayQueue::new(HOST_QUEUE),
            // Control waits for each to be obeyed.
            orders: ArrayQueue::new(2),
            bell,
        }
    }

    /// Worker: whether there is room to control for a packet; an echo reply may be a probe's answer, and
    /// finds room longer than anything else.
    #[inline]
    pub fn has_room(&self, is_echo_reply: bool) -> bool {
        let reserved = if is_echo_reply { 0 } else { RESERVED };
        self.to_host.len() + reserved < HOST_QUEUE
    }
}

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
    fn a_flood_leaves_room_for_echo_replies() {
        let port = HostPort::new(Arc::new(Bell::new().unwrap()));
        let packet = || ToHost {
            ingress: Ingress::Vnet,
            packet: Box::default(),
        };
        while port.has_room(false) {
            port.to_host.push(packet()).unwrap();
        }
        assert_eq!(port.to_host.len(), HOST_QUEUE - RESERVED);
        while port.has_room(true) {
            port.to_host.push(packet()).unwrap();
        }
        assert!(port.to_host.is_full());
    }

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
