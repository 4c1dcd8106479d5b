//! What workers and control hand each other: whole packets through bounded queues, and single facts
//! through atomic words. No lock on either side.

use crate::device::event::Waker;
use arc_swap::ArcSwapOption;
use crossbeam::queue::ArrayQueue;
use routing::path::{Ingress, PathId};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The most packets that wait between a worker and the gateway's own host, each way.
pub const HOST_QUEUE: usize = 1024;

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

/// The port between one worker and control: two bounded queues and two wakers. A packet that finds its
/// queue full is dropped and counted by whoever brought it.
#[derive(Debug)]
pub struct HostPort {
    /// Worker to control.
    pub to_host: ArrayQueue<ToHost>,
    /// Control to worker.
    pub from_host: ArrayQueue<FromHost>,
    /// Wakes the worker.
    pub worker: Waker,
}

impl HostPort {
    /// Empty queues.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            to_host: ArrayQueue::new(HOST_QUEUE),
            from_host: ArrayQueue::new(HOST_QUEUE),
            worker: Waker::new()?,
        })
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

/// What the owner of a tunnel tells others about it; written every 100 ms at most, never per packet.
/// Times are milliseconds since the gateway started, plus 1; 0 means never.
#[derive(Debug, Default)]
pub struct TunnelWord {
    /// When the session in use was established.
    pub last_handshake: AtomicU64,
    /// When an authenticated message last came in.
    pub last_received: AtomicU64,
    /// Handshakes completed.
    pub handshakes: AtomicU64,
    /// Whether packets can be sealed now.
    pub has_session: AtomicBool,
    /// Where the peer is reached.
    pub endpoint: ArcSwapOption<SocketAddr>,
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
