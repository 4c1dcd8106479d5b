//! In from the underlay: datagrams opened in place, and booked where they are no packets.

use super::outbox::Outbox;
use super::{TELL, Tunnels};
use crate::device::sink::TrainSink;
use crate::telemetry::ledger::Port;
use crypto::tunnel::{Endpoint, Received, Refusal, is_handshake};
use routing::path::PathId;
use routing::reason::DropReason;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// What has come in from the underlay.
#[derive(Debug)]
pub enum Arrival<'a> {
    /// A packet of that path, still with its padding and not yet booked.
    Packet(PathId, &'a mut [u8]),
    /// The tunnel's own business, or refused; booked, or waiting for the end of the round.
    Done,
}

impl<E: Endpoint, U: TrainSink> Tunnels<E, U> {
    /// Opens one datagram in place. `local`: the address that it was sent to, where that is known; once it has
    /// authenticated, what is for the peer leaves from there.
    #[inline]
    pub fn receive<'a>(
        &mut self,
        now: Instant,
        (source, local): (SocketAddr, Option<IpAddr>),
        datagram: &'a mut [u8],
    ) -> Arrival<'a> {
        let length = datagram.len() as u64;
        if is_handshake(datagram) {
            self.screen(now, (source, local), datagram);
            return Arrival::Done;
        }
        let Self {
            endpoint,
            underlay,
            sites,
            ledger,
            ..
        } = self;
        let received = endpoint.receive(
            now,
            source,
            datagram,
            &mut Outbox {
                underlay,
                sites,
                ledger,
                local,
            },
        );
        let (peer, plaintext) = match received {
            Received::Packet { peer, plaintext } => (peer, plaintext),
            other => {
                if let Received::Keepalive { peer } = other
                    && let Some(Some(site)) = sites.get(usize::from(peer.0))
                {
                    site.way.heard_at(local);
                }
                self.settle(now, &other, length);
                return Arrival::Done;
            }
        };
        let Some(Some(site)) = sites.get_mut(usize::from(peer.0)) else {
            return Arrival::Done;
        };
        site.packets_in += 1;
        site.way.heard_at(local);
        let path = site.path;
        if let Some((_, sources)) = &site.client {
            let Some(bytes) = sources.admit(plaintext) else {
                let length = plaintext.len() as u64;
                ledger.received(Port::path(path), 1, length);
                ledger.dropped(DropReason::SpoofedSource, 1, length);
                return Arrival::Done;
            };
            site.bytes_in += bytes;
        }
        // What the others know is never older than this, also when the worker then sleeps.
        self.tell_at.get_or_insert_with(|| now + TELL);
        if self.waiting > 0 {
            self.send_waiting(now, peer);
        }
        Arrival::Packet(path, plaintext)
    }

    /// Books what was no packet, and sends what has waited for it.
    pub(super) fn settle(&mut self, now: Instant, received: &Received<'_>, length: u64) {
        let peer = match received {
            Received::Packet { peer, .. } | Received::Keepalive { peer } => Some(*peer),
            Received::Control { peer } => *peer,
            Received::Foreign(_) => {
                self.refuse(DropReason::TunnelUnknownPeer, length);
                return;
            }
            Received::Refused(refusal) => {
                self.refuse(reason_of(*refusal), length);
                return;
            }
        };
        let site = peer.and_then(|peer| self.sites.get(usize::from(peer.0))?.as_ref());
        self.ledger.received(
            site.map_or(Port::UNDERLAY, |site| Port::path(site.path)),
            1,
            length,
        );
        self.ledger.sent(Port::LOCAL, 1, length);
        self.changed = true;
        if let Some(peer) = peer
            && self.waiting > 0
        {
            self.send_waiting(now, peer);
        }
    }

    pub(super) fn refuse(&self, reason: DropReason, length: u64) {
        self.ledger.received(Port::UNDERLAY, 1, length);
        self.ledger.dropped(reason, 1, length);
    }
}

pub(super) fn reason_of(refusal: Refusal) -> DropReason {
    match refusal {
        Refusal::Malformed => DropReason::TunnelMalformed,
        Refusal::UnknownIndex => DropReason::TunnelUnknownIndex,
        Refusal::Replay => DropReason::TunnelReplay,
        Refusal::Authentication => DropReason::TunnelAuthentication,
        Refusal::Handshake => DropReason::TunnelHandshake,
        Refusal::HandshakeRate => DropReason::TunnelHandshakeRate,
        Refusal::UnknownPeer => DropReason::TunnelUnknownPeer,
    }
}
