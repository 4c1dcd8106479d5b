//! The tunnels of one worker on one port: split into trains, sealed in place, sent; received, opened in place.
//!
//! Outbound:
//! 1. a packet (or super-packet) is laid, segment by segment, into the open train of its peer
//! 2. the train leaves when it is full, when the next packet is for another peer or class, and at the
//!    end of the round: sealed in place, one system call
//! 3. without a session the train waits, bounded in number and time, while the handshake runs
//!
//! Inbound: [`Tunnels::receive`] opens one datagram in place; what is inside goes back to the caller.
//!
//! Handshakes: each costs as much as hundreds of packets, and data must not wait behind them. So what is cheap
//! about them is done as they come, and those that are let in wait, a bounded number, for the end of the round,
//! which has time for a few ([`Tunnels::poll`]). One from somebody who is not known here may be for another
//! worker's tunnel ([`Tunnels::take_foreign`]).

mod handshakes;

use crate::device::SendError;
use crate::device::offload::Offload;
use crate::device::sink::TrainSink;
use crate::device::udp::{PeerPath, SendOutcome, UdpSocket};
use crate::pipeline::ecn;
use crate::pipeline::split::{self, Split};
use crate::telemetry::ledger::{Ledger, Port};
use crate::worker::clients::{Address, ByAddress, ClientId, Sources};
use crate::worker::handover::TunnelWord;
use crate::worker::lane::Pulse;
use crate::worker::link::Tally;
use crypto::key::PrivateKey;
use crypto::train::{Layout, Train};
use crypto::tunnel::{
    Endpoint, Peer, PeerId, Received, Refusal, SealError, Transmit, is_handshake,
};
use crypto::wireguard::receiver_index;
use handshakes::Handshakes;
use routing::packet::Headers;
use routing::path::PathId;
use routing::reason::DropReason;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Trains that wait for one peer's handshake: 4 x 64 KB.
const MAX_WAITING: usize = 4;
/// Trains that wait in all, before clients' trains wait no more: 4 MB.
const MAX_WAITING_ALL: usize = 64;
/// How long a train waits: one handshake attempt (REKEY_TIMEOUT is 5 s) and a bit.
const MAX_WAIT: Duration = Duration::from_secs(6);
/// How old what the others know of a client may become once it has changed.
const TELL: Duration = Duration::from_millis(100);
/// How often a lane that carries nothing is asked for a handshake, while there are packets for it.
const ASK: Duration = Duration::from_secs(1);

/// The UDP sockets that tunnels are carried over, one per family that is there.
#[derive(Debug)]
pub struct Underlay<U = UdpSocket> {
    /// IPv4.
    pub v4: Option<U>,
    /// IPv6.
    pub v6: Option<U>,
}

impl<U> Default for Underlay<U> {
    fn default() -> Self {
        Self { v4: None, v6: None }
    }
}

impl<U: TrainSink> Underlay<U> {
    fn send(
        &self,
        (path, to): (&PeerPath, SocketAddr),
        bytes: &[u8],
        stride: usize,
        class: u8,
    ) -> SendOutcome {
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        match socket {
            Some(socket) => socket.send_train_by(path, &to, bytes, stride, class),
            None => SendOutcome {
                error: Some(SendError::Down),
                ..SendOutcome::default()
            },
        }
    }
}

/// What the tunnel side tells its owner about one site.
struct Site<L> {
    path: PathId,
    mtu: usize,
    waiting: VecDeque<Waiting<L>>,
    word: Arc<TunnelWord>,
    pulse: Pulse,
    /// When [`Tunnels::carries`] has last asked for a handshake.
    asked: Option<Instant>,
    packets_in: u64,
    bytes_in: u64,
    packets_out: u64,
    bytes_out: u64,
    /// The way to it through the underlay, and how many datagrams were too long for it and went in fragments.
    way: PeerPath,
    fragmented: u64,
    /// What control has last said that the route to it takes, bytes.
    path_mtu: u32,
    /// For a client: who it is, and what it may send.
    client: Option<(ClientId, Sources)>,
}

/// What a path is here.
#[derive(Clone, Copy)]
enum FarEnd {
    /// A site.
    Site(PeerId),
    /// Clients: the destination says which.
    Clients,
}

/// What has come in from the underlay.
#[derive(Debug)]
pub enum Arrival<'a> {
    /// A packet of that path, still with its padding and not yet booked.
    Packet(PathId, &'a mut [u8]),
    /// The tunnel's own business, or refused; booked, or waiting for the end of the round.
    Done,
}

/// A train without a session to seal it.
struct Waiting<L> {
    train: Train<L>,
    class: u8,
    bytes: u64,
    since: Instant,
}

/// Sends the engine's own messages and books them: the gateway made them, so they come in at its host
/// port and go out at the tunnel's.
struct Outbox<'a, U, L> {
    underlay: &'a Underlay<U>,
    sites: &'a [Option<Site<L>>],
    ledger: &'a Ledger,
    /// Where the datagram that is being answered came to: the answer leaves from there, whether its sender has
    /// authenticated or not. `None`: nothing is answered.
    local: Option<IpAddr>,
}

impl<U: TrainSink, L: Layout> Transmit for Outbox<'_, U, L> {
    fn transmit(&mut self, peer: Option<PeerId>, to: SocketAddr, datagram: &[u8]) {
        let length = datagram.len() as u64;
        let site = peer.and_then(|peer| self.sites.get(usize::from(peer.0))?.as_ref());
        let answer = PeerPath::from(self.local);
        let way = match (self.local, site) {
            (None, Some(site)) => &site.way,
            _ => &answer,
        };
        if receiver_index(datagram).is_none() {
            // A handshake's first message: it has no receiver yet.
            way.asks();
        }
        // Handshakes ask for low latency and must not be remarked: CS6, as kernel WireGuard sends them.
        let way = (way, to);
        let outcome = self.underlay.send(way, datagram, datagram.len(), 0xc0);
        self.ledger.received(Port::LOCAL, 1, length);
        match outcome.error {
            None => {
                let port = site.map_or(Port::UNDERLAY, |site| Port::path(site.path));
                self.ledger.sent(port, 1, length);
            }
            Some(error) => self.ledger.dropped(error.reason(), 1, length),
        }
    }
}

/// All tunnels of one worker on one port: the base port, or that of a lane.
pub struct Tunnels<E: Endpoint, U = UdpSocket> {
    endpoint: E,
    sites: Vec<Option<Site<E::Layout>>>,
    by_path: Vec<Option<FarEnd>>,
    /// Clients by their addresses.
    by_address: ByAddress<PeerId>,
    underlay: Underlay<U>,
    ledger: Arc<Ledger>,
    started: Instant,
    train: Train<E::Layout>,
    /// Whose train is open, its traffic class, and the bytes of IP packets in it.
    open: Option<(PeerId, u8)>,
    open_bytes: u64,
    /// Trains whose wait is over, to be used again.
    spare: Vec<Train<E::Layout>>,
    waiting: usize,
    handshakes: Handshakes,
    /// When the first train has waited too long, or before.
    stale_at: Option<Instant>,
    /// Something may have changed that others are to be told of at the end of the round.
    changed: bool,
    /// Control has something to judge: [`Tunnels::take_news`].
    news: bool,
    /// When the others are to be told of clients, also if the worker would sleep.
    tell_at: Option<Instant>,
    /// Whether there is another worker who may know whom this one does not.
    is_last: bool,
}

impl<E: Endpoint, U: TrainSink> Tunnels<E, U> {
    /// Tunnels over these sockets; `started` is time zero of the [`TunnelWord`]s. `is_last`: no other worker
    /// is behind this one, to be offered what nobody here knows.
    pub fn new(
        endpoint: E,
        underlay: Underlay<U>,
        ledger: Arc<Ledger>,
        started: Instant,
        is_last: bool,
    ) -> Self {
        Self {
            endpoint,
            sites: Vec::new(),
            by_path: Vec::new(),
            by_address: ByAddress::default(),
            underlay,
            ledger,
            started,
            train: Train::new(0),
            open: None,
            open_bytes: 0,
            spare: Vec::new(),
            waiting: 0,
            handshakes: Handshakes::default(),
            stale_at: None,
            changed: false,
            news: false,
            tell_at: None,
            is_last,
        }
    }

    /// Adds a site's peer as `path`. False if the engine refuses the key.
    pub fn add(&mut self, now: Instant, path: PathId, peer: &Peer, word: Arc<TunnelWord>) -> bool {
        let Some(id) = self.add_peer(now, path, peer, word, None) else {
            return false;
        };
        self.lead(path, FarEnd::Site(id));
        true
    }

    /// Adds a client, which has these addresses, to those behind `path`. False if the engine refuses the key.
    pub fn add_client(
        &mut self,
        now: Instant,
        path: PathId,
        (client, addresses): (ClientId, &[IpAddr]),
        peer: &Peer,
        word: Arc<TunnelWord>,
    ) -> bool {
        let client = Some((client, Sources::of(addresses)));
        let Some(id) = self.add_peer(now, path, peer, word, client) else {
            return false;
        };
        for &address in addresses {
            self.by_address.insert(address.into(), id);
        }
        self.lead(path, FarEnd::Clients);
        true
    }

    fn add_peer(
        &mut self,
        now: Instant,
        path: PathId,
        peer: &Peer,
        word: Arc<TunnelWord>,
        client: Option<(ClientId, Sources)>,
    ) -> Option<PeerId> {
        let id = self.endpoint.add_peer(now, peer)?;
        let slot = usize::from(id.0);
        if self.sites.len() <= slot {
            self.sites.resize_with(slot + 1, || None);
        }
        *self.sites.get_mut(slot)? = Some(Site {
            path,
            mtu: usize::from(peer.mtu),
            waiting: VecDeque::new(),
            word,
            pulse: Pulse::default(),
            asked: None,
            packets_in: 0,
            bytes_in: 0,
            packets_out: 0,
            bytes_out: 0,
            way: PeerPath::default(),
            fragmented: 0,
            path_mtu: 0,
            client,
        });
        self.changed = true;
        Some(id)
    }

    fn lead(&mut self, path: PathId, to: FarEnd) {
        let place = usize::from(path.0);
        if self.by_path.len() <= place {
            self.by_path.resize(place + 1, None);
        }
        if let Some(slot) = self.by_path.get_mut(place) {
            *slot = Some(to);
        }
    }

    /// Takes another private key; see [`Endpoint::set_private_key`].
    pub fn set_private_key(&mut self, private_key: &PrivateKey) {
        self.endpoint.set_private_key(private_key);
    }

    /// A site is at this address now; it is asked for a session there.
    pub fn move_site(&mut self, now: Instant, path: PathId, endpoint: SocketAddr) {
        let far_end = self.by_path.get(usize::from(path.0));
        let Some(&Some(FarEnd::Site(id))) = far_end else {
            return;
        };
        if let Some(Some(site)) = self.sites.get(usize::from(id.0)) {
            site.way.forget();
        }
        self.endpoint.set_endpoint(id, endpoint);
        self.ask(now, id);
    }

    /// Takes a site away; what waits for it is dropped.
    pub fn remove(&mut self, now: Instant, path: PathId) {
        let far_end = self.by_path.get_mut(usize::from(path.0));
        if let Some(FarEnd::Site(id)) = far_end.and_then(Option::take) {
            self.remove_peer(now, id, DropReason::NoPath);
        }
    }

    /// Takes a client away, if its tunnel is here: its session is dead.
    pub fn remove_client(&mut self, now: Instant, client: ClientId) {
        let is_it = |site: &Option<Site<E::Layout>>| {
            let known = site.as_ref().and_then(|site| site.client);
            known.is_some_and(|(id, _)| id == client)
        };
        if let Some(slot) = self.sites.iter().position(is_it) {
            let id = PeerId(slot as u16);
            self.by_address.retain(|_, peer| *peer != id);
            self.remove_peer(now, id, DropReason::NoClient);
        }
    }

    fn remove_peer(&mut self, now: Instant, id: PeerId, reason: DropReason) {
        self.flush(now);
        self.endpoint.remove_peer(id);
        if let Some(site) = self.sites.get_mut(usize::from(id.0)).and_then(Option::take) {
            self.waiting -= site.waiting.len();
            for waiting in site.waiting {
                let packets = waiting.train.len() as u64;
                self.ledger.release(packets);
                self.ledger.dropped(reason, packets, waiting.bytes);
            }
        }
    }

    /// The peer that a packet for `path` is for; `Err` says why there is none.
    #[inline]
    fn peer_of(&self, path: PathId, headers: &Headers) -> Result<PeerId, DropReason> {
        match self.by_path.get(usize::from(path.0)) {
            Some(&Some(FarEnd::Site(peer))) => Ok(peer),
            Some(Some(FarEnd::Clients)) => {
                let peer = self.by_address.get(&Address::destination(&headers.key));
                peer.copied().ok_or(DropReason::NoClient)
            }
            Some(None) | None => Err(DropReason::NoPath),
        }
    }

    /// The same sockets, to be changed before the worker runs.
    pub fn sockets_mut(&mut self) -> [Option<&mut U>; 2] {
        [self.underlay.v4.as_mut(), self.underlay.v6.as_mut()]
    }

    /// The sockets to wait on.
    pub fn sockets(&self) -> [Option<&U>; 2] {
        [self.underlay.v4.as_ref(), self.underlay.v6.as_ref()]
    }

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
        if !site.pulse.beats() && site.asked.is_none_or(|asked| now >= asked + ASK) {
            site.asked = Some(now);
            self.ask(now, peer);
            return false;
        }
        site.pulse.beats()
    }

    /// Has the engine see to a session with `peer`, as if there were packets for it.
    #[cold]
    fn ask(&mut self, now: Instant, peer: PeerId) {
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
        let tally = Tally::of(headers, offload);
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
    fn send_waiting(&mut self, now: Instant, peer: PeerId) {
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
    fn settle(&mut self, now: Instant, received: &Received<'_>, length: u64) {
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

    fn refuse(&self, reason: DropReason, length: u64) {
        self.ledger.received(Port::UNDERLAY, 1, length);
        self.ledger.dropped(reason, 1, length);
    }

    /// When [`Tunnels::poll`] wants to be called at the latest. The engine is asked each time: whatever is
    /// sent or received may arm one of its timers.
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        let engine = self.endpoint.deadline();
        [engine, self.handshakes.since(), self.stale_at, self.tell_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Runs what is due: a few handshakes, the engine's timers, the end of waits; tells the others how the tunnels
    /// are. Called at the end of every round.
    pub fn poll(&mut self, now: Instant) {
        self.shake_hands(now);
        if self.tell_at.is_some_and(|at| at <= now) {
            self.publish(now);
        }
        if self.endpoint.deadline().is_some_and(|at| at <= now) {
            let Self {
                endpoint,
                underlay,
                sites,
                ledger,
                ..
            } = self;
            endpoint.poll(
                now,
                &mut Outbox {
                    underlay,
                    sites,
                    ledger,
                    local: None,
                },
            );
            self.changed = true;
        }
        if self.stale_at.is_some_and(|at| at <= now) {
            self.drop_stale(now);
        }
        if std::mem::take(&mut self.changed) {
            self.publish_some(now, |site| site.client.is_none());
            if !self.by_address.is_empty() {
                self.tell_at.get_or_insert_with(|| now + TELL);
            }
        }
    }

    fn drop_stale(&mut self, now: Instant) {
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

    /// Whether something has been published since the last call that paths are judged by: control is to be woken,
    /// which sleeps until it hears of something.
    #[inline]
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Looks at every tunnel, and writes its [`TunnelWord`].
    pub fn publish(&mut self, now: Instant) {
        self.tell_at = None;
        self.publish_some(now, |_| true);
    }

    /// Clients may be thousands, and nothing waits for their words: they are told of every 100 ms only.
    fn publish_some(&mut self, now: Instant, wanted: impl Fn(&Site<E::Layout>) -> bool) {
        let started = self.started;
        let since_start = |at: Option<Instant>| {
            at.map_or(0, |at| {
                at.saturating_duration_since(started).as_millis() as u64 + 1
            })
        };
        for (peer, site) in self.sites.iter_mut().enumerate() {
            let Some(site) = site.as_mut().filter(|site| wanted(site)) else {
                continue;
            };
            let Some(status) = self.endpoint.status(PeerId(peer as u16)) else {
                continue;
            };
            site.pulse.feel(now, &status);
            let word = &site.word;
            // What a path is judged by; what has merely grown is read with it.
            let judged = [
                (&word.last_handshake, since_start(status.last_handshake)),
                (&word.handshaking, since_start(status.handshaking)),
                (&word.called, since_start(status.called)),
            ];
            let mut news = word.has_session.load(Ordering::Relaxed) != status.has_session;
            for (known, is) in judged {
                news |= known.load(Ordering::Relaxed) != is;
                known.store(is, Ordering::Relaxed);
            }
            word.last_received
                .store(since_start(status.last_received), Ordering::Relaxed);
            word.handshakes.store(status.handshakes, Ordering::Relaxed);
            word.has_session
                .store(status.has_session, Ordering::Relaxed);
            word.packets_in.store(site.packets_in, Ordering::Relaxed);
            word.packets_out.store(site.packets_out, Ordering::Relaxed);
            word.bytes_in.store(site.bytes_in, Ordering::Relaxed);
            word.bytes_out.store(site.bytes_out, Ordering::Relaxed);
            word.fragmented.store(site.fragmented, Ordering::Relaxed);
            if word.endpoint.load().as_deref().copied() != status.endpoint {
                word.endpoint.store(status.endpoint.map(Arc::new));
                news = true;
            }
            // No path stands or falls with one client.
            self.news |= news && site.client.is_none();
            let path_mtu = word.path_mtu.load(Ordering::Relaxed);
            if path_mtu != site.path_mtu {
                site.path_mtu = path_mtu;
                let around = match status.endpoint {
                    Some(SocketAddr::V6(_)) => 48,
                    _ => 28,
                };
                site.way.set_longest(match path_mtu {
                    0 => usize::MAX,
                    mtu => (mtu as usize).saturating_sub(around),
                });
            }
            let local = site.way.local();
            if word.local.load().as_deref().copied() != local {
                word.local.store(local.map(Arc::new));
            }
        }
    }

    /// Drops everything that still waits, before the worker ends.
    pub fn shut_down(&mut self, now: Instant) {
        self.flush(now);
        self.drop_handshakes();
        for peer in 0..self.sites.len() {
            self.remove_peer(now, PeerId(peer as u16), DropReason::Shutdown);
        }
    }
}

fn reason_of(refusal: Refusal) -> DropReason {
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
