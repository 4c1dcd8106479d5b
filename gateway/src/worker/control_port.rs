//! What workers and control hand each other: whole packets and orders through bounded queues, and single facts
//! through atomic [`words`](crate::worker::words). No lock on either side.

use crate::worker::bell::Bell;
use crate::worker::change::Order;
pub use crate::worker::interface::{LinkFacts, LinkWord};
pub use crate::worker::words::{NeighborWord, TunnelWord};
use crossbeam::queue::ArrayQueue;
use routing::path::{Ingress, PathId};
use std::sync::Arc;

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
pub struct ControlPort {
    /// Worker to control.
    pub to_host: ArrayQueue<ToHost>,
    /// Control to worker.
    pub from_host: ArrayQueue<FromHost>,
    /// Control to worker: tunnels that come and go.
    pub orders: ArrayQueue<Order>,
    /// Tells the worker that something is there for it.
    pub bell: Arc<Bell>,
}

impl ControlPort {
    /// Empty queues of the worker that has this bell.
    pub fn new(bell: Arc<Bell>) -> Self {
        Self {
            to_host: ArrayQueue::new(HOST_QUEUE),
            from_host: ArrayQueue::new(HOST_QUEUE),
            // Control waits for each to be carried out.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_room_for_echo_replies() {
        let port = ControlPort::new(Arc::new(Bell::new().unwrap()));
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
}
