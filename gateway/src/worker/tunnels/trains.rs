//! Out to the underlay: packets laid into trains, sealed and sent; trains that wait for a session.

use super::outbox::Outbox;
use super::site::{FarEnd, Waiting};
use super::{TELL, Tunnels};
use crate::device::SendError;
use crate::device::offload::Offload;
use crate::device::sink::TrainSink;
use crate::device::udp::PeerPath;
use crate::pipeline::ecn;
use crate::pipeline::forward::on_the_wire;
use crate::pipeline::split::{self, Split};
use crate::telemetry::ledger::Port;
use crypto::train::Train;
use crypto::tunnel::{Endpoint, PeerId, SealError};
use routing::packet::Headers;
use routing::path::PathId;
use routing::reason::DropReason;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Trains that wait for one peer's handshake: 4 x 64 KB.
const MAX_WAITING: usize = 4;
/// Trains that wait in all, before clients' trains wait no more: 4 MB.
const MAX_WAITING_ALL: usize = 64;
/// How long a train waits: one handshake attempt (REKEY_TIMEOUT is 5 s) and a bit.
const MAX_WAIT: Duration = Duration::from_secs(6);
/// How often a lane that carries nothing is asked for a handshake, while there are packets for it.
const ASK: Duration = Duration::from_secs(1);

impl<E: Endpoint, U: TrainSink> Tunnels<E, U> {
    /// Whether the tunnel of `path` carries packets now, as far as known. Where it does not, it is asked for
    /// a handshake now and then.
    #[inline]
    pub fn carries(&mut self, now: Instant, path: PathId) -> bool {
        let Some(&Some(FarEnd::Site(peer))) = self.by_path.get(usize::from(path.0)) else {
            return false;
        };
        let Some(Some(site)) = self.sites.get_mut(usize::from(peer.0)) else {
            return false;
        };
        if !site.liveness.is_alive() && site.asked.is_none_or(|asked| now >= asked + ASK) {
            site.asked = Some(now);
            self.ask(now, peer);
            return false;
        }
        site.liveness.is_alive()
    }

    /// Has the engine see to a session with `peer`, as if there were packets for it.
    #[cold]
    pub(super) fn ask(&mut self, now: Instant, peer: PeerId) {
        self.flush(now);
        self.train.clear(0);
        // A session that nobody answers on any more is sealed with too: the engine then waits for an answer,
        // and begins a handshake when there is none.
        let _ = self.seal(now, peer);
        self.changed = true;
    }

    /// Lays a packet into its peer's train; `path` must be a tunnel of this worker.
    #[inline]
    pub fn send(
        &mut self,
        now: Instant,
        path: PathId,
        packet: &[u8],
        headers: &Headers,
        offload: &Offload,
    ) {
        self.send_from(now, path, (packet, headers, offload), 0);
    }

    /// The same from this segment on; those before it are not sent, and not booked.
    #[inline]
    pub fn send_from(
        &mut self,
        now: Instant,
        path: PathId,
        (packet, headers, offload): (&[u8], &Headers, &Offload),
        first: usize,
    ) {
        let tally = on_the_wire(headers, offload);
        let peer = match self.peer_of(path, headers) {
            Ok(peer) => peer,
            Err(reason) => {
                let left = tally.packets.saturating_sub(first as u64);
                let bytes = tally.bytes * left / tally.packets.max(1);
                self.ledger.dropped(reason, left, bytes);
                return;
            }
        };
        let class = ecn::outer_traffic_class(headers.traffic_class);
        if self.open != Some((peer, class)) {
            self.flush(now);
            self.reopen(peer, class);
        }
        let mut segment = first;
        loop {
            match split::split_into(packet, headers, offload, &mut self.train, segment) {
                Ok(Split::Done) => {
                    self.open_bytes +=
                        tally.bytes * (tally.packets - segment as u64) / tally.packets;
                    return;
                }
                Ok(Split::Full { next_segment }) => {
                    let laid = next_segment.saturating_sub(segment) as u64;
                    self.open_bytes += tally.bytes * laid / tally.packets;
                    segment = next_segment;
                }
                Err(reason) => {
                    let left = tally.packets - segment as u64;
                    self.ledger
                        .dropped(reason, left, tally.bytes * left / tally.packets);
                    return;
                }
            }
            self.flush(now);
            self.reopen(peer, class);
        }
    }

    fn reopen(&mut self, peer: PeerId, class: u8) {
        let mtu = self
            .sites
            .get(usize::from(peer.0))
            .and_then(Option::as_ref)
            .map_or(0, |site| site.mtu);
        self.train.clear(mtu);
        self.open = Some((peer, class));
        self.open_bytes = 0;
    }

    /// Sends the open train, if there is one. Called at the end of every round.
    #[inline]
    pub fn flush(&mut self, now: Instant) {
        let Some((peer, class)) = self.open.take() else {
            return;
        };
        if self.train.is_empty() {
            return;
        }
        let bytes = self.open_bytes;
        // A peer with packets that wait keeps its order: these join the end of the queue.
        let queued = self
            .sites
            .get(usize::from(peer.0))
            .and_then(Option::as_ref)
            .is_some_and(|site| !site.waiting.is_empty());
        if queued || !self.seal_and_send(now, peer, class, bytes) {
            self.wait(now, peer, class, bytes);
        }
    }

    fn seal(&mut self, now: Instant, peer: PeerId) -> Result<SocketAddr, SealError> {
        let Self {
            endpoint,
            underlay,
            sites,
            ledger,
            train,
            ..
        } = self;
        let mut out = Outbox {
            underlay,
            sites,
            ledger,
            local: None,
        };
        endpoint.seal(now, peer, train, &mut out)
    }

    /// Seals and sends `self.train`; false (and the train untouched) without a session.
    fn seal_and_send(&mut self, now: Instant, peer: PeerId, class: u8, bytes: u64) -> bool {
        let packets = self.train.len() as u64;
        let sealed = self.seal(now, peer);
        let Self {
            underlay,
            sites,
            ledger,
            train,
            ..
        } = self;
        let to = match sealed {
            Ok(to) => to,
            Err(SealError::NoSession) => {
                // A handshake may have begun.
                self.changed = true;
                return false;
            }
            Err(SealError::UnknownPeer) => {
                ledger.dropped(DropReason::NoPath, packets, bytes);
                return true;
            }
        };
        let site = sites.get_mut(usize::from(peer.0)).and_then(Option::as_mut);
        let unknown = PeerPath::default();
        let way = site.as_ref().map_or(&unknown, |site| &site.way);
        let outcome = underlay.send((way, to), train.bytes(), train.stride(), class);
        let sent = (outcome.sent as u64).min(packets);
        let sent_bytes = if sent == packets {
            bytes
        } else {
            bytes * sent / packets
        };
        let port = site.map_or(Port::UNDERLAY, |site| {
            site.packets_out += sent;
            site.bytes_out += sent_bytes;
            site.fragmented += outcome.cut as u64;
            self.tell_at.get_or_insert_with(|| now + TELL);
            Port::path(site.path)
        });
        ledger.sent(port, sent, sent_bytes);
        if outcome.refused {
            ledger.refused(port);
        }
        if sent < packets {
            let reason = outcome
                .error
                .map_or(DropReason::TransmitError, SendError::reason);
            ledger.dropped(reason, packets - sent, bytes - sent_bytes);
        }
        true
    }

    /// Puts `self.train` aside until the peer has a session.
    fn wait(&mut self, now: Instant, peer: PeerId, class: u8, bytes: u64) {
        let packets = self.train.len() as u64;
        let Some(Some(site)) = self.sites.get_mut(usize::from(peer.0)) else {
            self.ledger.dropped(DropReason::NoPath, packets, bytes);
            return;
        };
        // A client that has not called cannot be asked for a session; and there may be thousands.
        let is_deaf = site.client.is_some()
            && (self.waiting >= MAX_WAITING_ALL
                || self
                    .endpoint
                    .status(peer)
                    .is_none_or(|status| status.endpoint.is_none()));
        if site.waiting.len() >= MAX_WAITING || is_deaf {
            self.ledger
                .dropped(DropReason::TunnelNoSession, packets, bytes);
            return;
        }
        let fresh = self.spare.pop().unwrap_or_else(|| Train::new(site.mtu));
        let train = std::mem::replace(&mut self.train, fresh);
        site.waiting.push_back(Waiting {
            train,
            class,
            bytes,
            since: now,
        });
        self.waiting += 1;
        self.stale_at.get_or_insert(now + MAX_WAIT);
        self.ledger.hold(packets);
    }

    /// Sends what waited for `peer`, if it has a session by now.
    pub(super) fn send_waiting(&mut self, now: Instant, peer: PeerId) {
        self.flush(now);
        while let Some(Some(site)) = self.sites.get_mut(usize::from(peer.0)) {
            let Some(waiting) = site.waiting.pop_front() else {
                return;
            };
            let Waiting {
                train,
                class,
                bytes,
                since,
            } = waiting;
            let packets = train.len() as u64;
            let idle = std::mem::replace(&mut self.train, train);
            let sent = self.seal_and_send(now, peer, class, bytes);
            let train = std::mem::replace(&mut self.train, idle);
            if !sent {
                if let Some(Some(site)) = self.sites.get_mut(usize::from(peer.0)) {
                    site.waiting.push_front(Waiting {
                        train,
                        class,
                        bytes,
                        since,
                    });
                }
                return;
            }
            self.ledger.release(packets);
            self.waiting -= 1;
            self.spare.push(train);
        }
    }

    pub(super) fn drop_stale(&mut self, now: Instant) {
        self.stale_at = None;
        for site in self.sites.iter_mut().flatten() {
            while site
                .waiting
                .front()
                .is_some_and(|waiting| now >= waiting.since + MAX_WAIT)
            {
                let Some(waiting) = site.waiting.pop_front() else {
                    break;
                };
                let packets = waiting.train.len() as u64;
                self.ledger.release(packets);
                self.ledger
                    .dropped(DropReason::TunnelNoSession, packets, waiting.bytes);
                self.waiting -= 1;
                self.spare.push(waiting.train);
            }
            let next = site.waiting.front().map(|first| first.since + MAX_WAIT);
            self.stale_at = [self.stale_at, next].into_iter().flatten().min();
        }
    }
}
