//! What goes over a circuit inside a tunnel: sealed trains out by its links, datagrams in from them.

use super::Switch;
use crate::device::offload::Offload;
use crate::device::sink::Devices;
use crate::pipeline::ecn;
use crate::pipeline::egress::Egress;
use crate::pipeline::forward::{largest_segment, on_the_wire};
use crate::telemetry::ledger::{Port, Sum};
use crate::worker::handoff::Cargo;
use crate::worker::packet::{Packet, Round};
use crate::worker::private::{Outer, Private, source_of};
use crate::worker::tunnels::Arrival;
use crypto::tunnel::Endpoint;
use crypto::wireguard::{receiver_index, worker_of};
use routing::packet::{Fragment, Headers, protocol};
use routing::path::{Ingress, PathId};
use routing::reason::DropReason;
use std::net::SocketAddr;
use std::time::Instant;

impl<E: Endpoint, D: Devices> Switch<E, D> {
    /// Ends the round of the tunnels over circuits: sends what is sealed, runs what is due. When they want to be
    /// called at the latest.
    #[inline]
    pub fn run_privates(&mut self, round: Round<'_>) -> Option<Instant> {
        let mut deadline = None;
        for place in 0..self.ports.privates.len() {
            let Some(private) = self.ports.privates.get_mut(place) else {
                break;
            };
            private.tunnels.flush(round.now);
            private.tunnels.poll(round.now);
            deadline = [deadline, private.tunnels.deadline()]
                .into_iter()
                .flatten()
                .min();
            while let Some((outlet, outer)) = self.ports.privates.get(place).and_then(Private::take)
            {
                self.send_outer(round, place, &outer);
                if let Some(private) = self.ports.privates.get(place) {
                    private.give_back(outlet, outer);
                }
            }
        }
        deadline
    }

    fn send_outer(&mut self, round: Round<'_>, place: usize, outer: &Outer) {
        let Ok(headers) = Headers::parse(&outer.bytes) else {
            return;
        };
        let Sum { packets, bytes } = on_the_wire(&headers, &outer.offload);
        self.ledger.received(Port::LOCAL, packets, bytes);
        let snapshot = &round.forwarding.snapshot;
        let private = self.ports.privates.get(place);
        let Some(link) = private.and_then(|private| private.link(snapshot, &headers)) else {
            self.ledger.dropped(DropReason::NoPath, packets, bytes);
            return;
        };
        let packet = Packet {
            bytes: &outer.bytes,
            headers: &headers,
            offload: &outer.offload,
        };
        // As if it came from the virtual network, which what is inside has: it is held to the circuit's rates.
        let (ingress, to) = (Ingress::Vnet, Egress::Path(link));
        let mtu = round.forwarding.side(Some(link)).mtu();
        if mtu > 0 && largest_segment(&headers, &outer.offload) > usize::from(mtu) {
            self.fragment(round.now, ingress, to, packet, mtu);
        } else {
            self.emit(round.now, ingress, to, packet);
        }
    }

    /// The place of the tunnels that a packet for the gateway itself is for, if it is for any over the circuit
    /// that it came in by.
    #[inline]
    pub(super) fn private_place(
        &self,
        round: Round<'_>,
        path: PathId,
        headers: &Headers,
    ) -> Option<usize> {
        if headers.key.protocol != protocol::UDP || headers.fragment != Fragment::Whole {
            return None;
        }
        let circuit = round.forwarding.snapshot.path(path)?.owner;
        let port = headers.key.destination_port;
        let is_for = |private: &Private<E>| private.circuit == circuit && private.port == port;
        self.ports.privates.iter().position(is_for)
    }

    /// Opens a packet or super-packet of a tunnel where it lies, at `at` of `batch`. True if what was inside is
    /// being merged, so that it has to stay there.
    pub(super) fn open_private(
        &mut self,
        round: Round<'_>,
        (place, path): (usize, PathId),
        batch: &mut [u8],
        at: usize,
        headers: &Headers,
        offload: &Offload,
    ) -> bool {
        let Sum { packets, bytes } = on_the_wire(headers, offload);
        self.ledger.received(Port::path(path), packets, bytes);
        self.ledger.sent(Port::LOCAL, packets, bytes);
        let source = source_of(headers);
        let end = at + headers.total_len as usize;
        let begin = at + usize::from(headers.payload);
        let stride = offload.gso.map_or(usize::MAX, |gso| usize::from(gso.size));
        let (mut next, mut stays) = (begin, false);
        if begin >= end {
            self.drop_empty();
        }
        while next < end {
            let datagram = next..end.min(next.saturating_add(stride));
            next = datagram.end;
            let Some(bytes) = batch.get_mut(datagram.clone()) else {
                break;
            };
            let outer = (place, source, headers.traffic_class);
            if self.hand_over(outer, bytes) {
                continue;
            }
            if let Some((path, place)) = self.open_outer(round, outer, bytes) {
                let (ingress, plain) = (Ingress::Path(path), Offload::default());
                let inside = (datagram.start + place.0, place.1);
                stays |= self.handle_batched(round, ingress, batch, inside, &plain);
            }
        }
        stays
    }

    /// Hands a datagram to the worker that can open it; false if that is this one. The link's sockets share
    /// flows out, not sessions: the receiver index says whose session it is. A handshake's first message has none,
    /// and goes to the first worker, which hands it on once it has read it and does not know the caller.
    #[inline]
    fn hand_over(&mut self, outer: (usize, SocketAddr, u8), datagram: &[u8]) -> bool {
        let owner = receiver_index(datagram).map_or(0, |index| usize::from(worker_of(index)));
        let is_other = self.exchange.is_other(owner);
        if is_other {
            self.cross_outer(owner, outer, datagram);
        }
        is_other
    }

    fn cross_outer(
        &mut self,
        worker: usize,
        (place, source, class): (usize, SocketAddr, u8),
        datagram: &[u8],
    ) {
        let cargo = Cargo::Outer {
            place: place as u8,
            source,
            class,
        };
        if !self.exchange.lay(worker, datagram, cargo) {
            self.lose(datagram.len());
        }
    }

    /// Opens one datagram. The path that the packet inside came by, and where in the datagram it lies.
    fn open_outer(
        &mut self,
        round: Round<'_>,
        (place, source, class): (usize, SocketAddr, u8),
        datagram: &mut [u8],
    ) -> Option<(PathId, (usize, usize))> {
        let begin = datagram.as_ptr().addr();
        let private = self.ports.privates.get_mut(place)?;
        match private.tunnels.receive(round.now, (source, None), datagram) {
            Arrival::Packet(path, plaintext) => {
                let inside = (plaintext.as_ptr().addr() - begin, plaintext.len());
                if class & ecn::ECN != 0
                    && let Err(reason) = ecn::combine(plaintext, class)
                {
                    self.ledger.received(Port::path(path), 1, inside.1 as u64);
                    self.ledger.dropped(reason, 1, inside.1 as u64);
                    return None;
                }
                Some((path, inside))
            }
            Arrival::Done => None,
        }
    }

    /// A datagram that another worker handed over, in its place of a batch. What is inside may be merged, and
    /// stays where it lies until then.
    pub(super) fn take_outer(
        &mut self,
        round: Round<'_>,
        outer: (usize, SocketAddr, u8),
        batch: &mut [u8],
        (at, length): (usize, usize),
    ) {
        let Some(datagram) = batch.get_mut(at..at + length) else {
            return;
        };
        if let Some((path, inside)) = self.open_outer(round, outer, datagram) {
            let (ingress, plain) = (Ingress::Path(path), Offload::default());
            let inside = (at + inside.0, inside.1);
            self.handle_batched(round, ingress, batch, inside, &plain);
        }
    }

    /// Books a datagram that could not be handed over.
    #[cold]
    fn lose(&self, length: usize) {
        self.ledger.received(Port::UNDERLAY, 1, length as u64);
        self.ledger
            .dropped(DropReason::HandoverFull, 1, length as u64);
    }
}
