//! What workers and control hand each other: whole packets through bounded queues, and single facts
//! through atomic words. No lock on either side.

use crate::worker::bell::Bell;
use crate::worker::change::Order;
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
    /// When the handshake that is now under way was first started: unanswered since then. 0 when none
    /// is under way (also once the tunnel has given up).
    pub handshaking: AtomicU64,
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

/// What control knows of a link's interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkFacts {
    /// Counts up whenever the data socket must be opened anew: another interface has the link's name
    /// now, or has got it for the first time.
    pub generation: u32,
    /// Index of the interface; 0: there is none of that name, nothing can be sent or received.
    pub index: u32,
    /// MTU, bytes of the IP packet with the tags that stand in band; 0: not known.
    pub mtu: u32,
    /// Set up and with carrier.
    pub up: bool,
}

/// A link's interface, published by control to the workers. A worker compares the generation with the
/// one that its socket was opened for once a batch (one relaxed load on the common way), and reads the
/// rest when it is told to look: control wakes every worker after each change.
#[derive(Debug, Default)]
pub struct LinkWord {
    generation: AtomicU32,
    index: AtomicU32,
    mtu: AtomicU32,
    up: AtomicBool,
    /// The generation in the upper half, and in the lower half how many workers have opened their sockets
    /// on it: they do so in order, so that the kernel numbers the sockets as the workers are numbered.
    opened: AtomicU64,
}

impl LinkWord {
    /// Control: publishes what is so now. One writer.
    pub fn publish(&self, facts: LinkFacts) {
        self.index.store(facts.index, Ordering::Relaxed);
        self.mtu.store(facts.mtu, Ordering::Relaxed);
        self.up.store(facts.up, Ordering::Relaxed);
        // Last, and with release: who sees the new generation sees the index that belongs to it.
        self.generation.store(facts.generation, Ordering::Release);
    }

    /// Worker: whether it is its turn to open a socket on this generation.
    pub fn is_turn(&self, generation: u32, worker: usize) -> bool {
        let opened = self.opened.load(Ordering::Acquire);
        let count = if opened >> 32 == u64::from(generation) {
            opened as u32
        } else {
            0
        };
        count as usize == worker
    }

    /// Worker: has opened its socket, or has found that it cannot; the next worker's turn.
    pub fn take_turn(&self, generation: u32, worker: usize) {
        let opened = u64::from(generation) << 32 | (worker as u64 + 1);
        self.opened.store(opened, Ordering::Release);
    }

    /// Worker: what is so now.
    #[inline]
    pub fn read(&self) -> LinkFacts {
        LinkFacts {
            generation: self.generation.load(Ordering::Acquire),
            index: self.index.load(Ordering::Relaxed),
            mtu: self.mtu.load(Ordering::Relaxed),
            up: self.up.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_word_gives_back_its_facts() {
        let word = LinkWord::default();
        assert_eq!(word.read(), LinkFacts::default());
        let facts = LinkFacts {
            generation: 2,
            index: 17,
            mtu: 1508,
            up: true,
        };
        word.publish(facts);
        assert_eq!(word.read(), facts);
    }

    #[test]
    fn workers_open_their_sockets_in_order() {
        let word = LinkWord::default();
        assert!(word.is_turn(1, 0) && !word.is_turn(1, 1));
        word.take_turn(1, 0);
        assert!(word.is_turn(1, 1) && !word.is_turn(1, 0));
        assert!(word.is_turn(2, 0), "a new interface begins anew");
    }

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
