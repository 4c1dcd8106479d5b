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

mod arrival;
mod handshakes;
mod outbox;
mod publish;
mod site;
mod trains;
mod underlay;

use crate::device::sink::TrainSink;
use crate::device::udp::UdpSocket;
use crate::telemetry::ledger::Ledger;
use crate::worker::clients::{Address, ByAddress, ClientId, Sources};
use crate::worker::words::TunnelWord;
use crypto::key::PrivateKey;
use crypto::train::Train;
use crypto::tunnel::{Endpoint, Peer, PeerId};
use handshakes::Handshakes;
use outbox::Outbox;
use routing::packet::Headers;
use routing::path::PathId;
use routing::reason::DropReason;
use site::{FarEnd, Site};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use arrival::Arrival;
pub use underlay::Underlay;

/// How old what the others know of a client may become once it has changed.
const TELL: Duration = Duration::from_millis(100);

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
        let mtu = usize::from(peer.mtu);
        *self.sites.get_mut(slot)? = Some(Site::new(path, mtu, word, client));
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

    /// Drops everything that still waits, before the worker ends.
    pub fn shut_down(&mut self, now: Instant) {
        self.flush(now);
        self.drop_handshakes();
        for peer in 0..self.sites.len() {
            self.remove_peer(now, PeerId(peer as u16), DropReason::Shutdown);
        }
    }
}
