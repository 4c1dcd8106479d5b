//! Packets to and from the gateway's own host.

use super::Switch;
use crate::device::offload::Offload;
use crate::device::sink::Devices;
use crate::pipeline::egress::Egress;
use crate::worker::control_port::FromHost;
use crate::worker::packet::{Packet, Round};
use crypto::tunnel::Endpoint;
use routing::packet::Headers;
use routing::path::Ingress;
use routing::reason::DropReason;

impl<E: Endpoint, D: Devices> Switch<E, D> {
    /// Hands a packet for one of the gateway's own addresses to control. Not the fast path: it copies.
    pub(super) fn deliver(&mut self, ingress: Ingress, packet: Packet<'_>) {
        let (host, ledger, piece) = (&self.host, &self.ledger, &mut self.scratch.piece);
        let key = &packet.headers.key;
        let echo_reply = key.is_icmp() && matches!(key.destination_port >> 8, 0 | 129);
        packet.each_segment(piece, ledger, |segment| {
            // Looked at first: a flood of the gateway's own address must not cost a copy each.
            if !host.has_room(echo_reply) {
                ledger.dropped(DropReason::LocalQueueFull, 1, segment.len() as u64);
                return;
            }
            ledger.hold(1);
            if !host.deliver(ingress, segment) {
                ledger.release(1);
                ledger.dropped(DropReason::LocalQueueFull, 1, segment.len() as u64);
            }
        });
        host.wake();
    }

    /// Sends what the gateway's own host has for the network, at most `budget` packets; true if there was
    /// something.
    pub fn drain_host(&mut self, round: Round<'_>, budget: usize) -> bool {
        for taken in 0..budget {
            let Some(FromHost { via, mut packet }) = self.host.take() else {
                return taken > 0;
            };
            self.ledger.release(1);
            let plain = Offload::default();
            let Some(path) = via else {
                self.handle(round, Ingress::Local, None, &mut packet, &plain);
                continue;
            };
            match Headers::parse(&packet) {
                Ok(headers) => {
                    let packet = Packet {
                        bytes: &packet,
                        headers: &headers,
                        offload: &plain,
                    };
                    self.emit(round.now, Ingress::Local, Egress::Path(path), packet);
                }
                Err(reason) => self.ledger.dropped(reason, 1, packet.len() as u64),
            }
        }
        true
    }
}
