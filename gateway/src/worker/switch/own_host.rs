//! The gateway's own host, which is control, as a worker sees it.

use crate::device::event::Waker;
use crate::worker::bell::Bell;
use crate::worker::change::Order;
use crate::worker::control_port::{ControlPort, FromHost, ToHost};
use routing::path::Ingress;
use std::sync::Arc;

/// The queues to and from control, and what wakes it.
pub struct OwnHost {
    port: Arc<ControlPort>,
    control: Arc<Waker>,
}

impl OwnHost {
    /// By way of these queues.
    pub fn new(port: Arc<ControlPort>, control: Arc<Waker>) -> Self {
        Self { port, control }
    }

    /// Wakes control.
    #[inline]
    pub(in crate::worker) fn wake(&self) {
        self.control.wake();
    }

    /// The worker's own bell, which control and other workers ring.
    #[inline]
    pub(in crate::worker) fn bell(&self) -> &Bell {
        &self.port.bell
    }

    /// Whether there is room for a packet to the host; an answer to a probe finds it longer.
    pub(super) fn has_room(&self, is_echo_reply: bool) -> bool {
        self.port.has_room(is_echo_reply)
    }

    /// Hands a packet to the host, with a copy; false if there is no room.
    pub(super) fn deliver(&self, ingress: Ingress, packet: &[u8]) -> bool {
        let packet = ToHost {
            ingress,
            packet: packet.into(),
        };
        self.port.to_host.push(packet).is_ok()
    }

    /// Whether the host has nothing to send.
    #[inline]
    pub(in crate::worker) fn is_quiet(&self) -> bool {
        self.port.from_host.is_empty()
    }

    /// The next packet that the host sends.
    #[inline]
    pub(super) fn take(&self) -> Option<FromHost> {
        self.port.from_host.pop()
    }

    /// Whether control has orders.
    #[inline]
    pub(super) fn has_orders(&self) -> bool {
        !self.port.orders.is_empty()
    }

    /// The next order.
    pub(super) fn take_order(&self) -> Option<Order> {
        self.port.orders.pop()
    }
}
