//! Where packets change sides: the one place that knows all ports of a worker.
//!
//! 1. [`Switch::handle`]: the pipeline decides about a packet and edits it
//! 2. book what came in
//! 3. shape: what is beyond the SKU's rates waits until [`Switch::send_shaped`]
//! 4. hand it to its way out: virtual network, own host, link, tunnel, or the worker that owns the tunnel
//! 5. or drop it for its reason, with an ICMP error where one is due
//!
//! It is made of: [`Ports`], what packets come in by and go out of; `Outflow`, what holds them up on the way out, for
//! more of their flow or for their rate; [`KnownFlows`], what is remembered of flows; [`Exchange`], the other workers;
//! [`OwnHost`], control; and scratch room. Here is what needs several of them: `trouble` what does not simply go on,
//! `handoff` what comes from and goes to other workers, `carried` tunnels over circuits, `orders` those of
//! control, `local` packets to and from the own host.

mod carried;
mod exchange;
mod handoff;
mod known;
mod local;
mod orders;
mod outflow;
mod own_host;
mod ports;
mod scratch;
mod trouble;

pub use exchange::Exchange;
pub use known::KnownFlows;
pub use own_host::OwnHost;
pub use ports::{Ports, TunnelPorts};

use crate::device::link::Frame;
use crate::device::offload::Offload;
use crate::device::sink::{Devices, Kernel};
use crate::device::udp::TrainPlace;
use crate::pipeline::ecn;
use crate::pipeline::egress::Egress;
use crate::pipeline::flow::Flow;
use crate::pipeline::forward::on_the_wire;
use crate::pipeline::icmp::{ERROR_BURST, ERRORS_PER_SECOND};
use crate::pipeline::process::{Outcome, process_counted};
use crate::pipeline::rate::RateLimit;
use crate::pipeline::shape::{Release, Shaper};
use crate::telemetry::ledger::{Ledger, Port, Sum};
use crate::worker::control_port::FromHost;
use crate::worker::lane::{FIRST_OWNER, Lanes};
use crate::worker::packet::{Packet, Round};
use crate::worker::private::Private;
use crate::worker::tunnels::Arrival;
use crate::worker::ways::Way;
use crypto::tunnel::Endpoint;
use outflow::Outflow;
use routing::packet::Headers;
use routing::path::{Ingress, PathId};
use routing::reason::DropReason;
use scratch::Scratch;
use std::sync::Arc;
use std::time::Instant;

/// All ports of one worker and the state of its pipeline.
pub struct Switch<E: Endpoint, D: Devices = Kernel> {
    /// What packets come in by and go out of.
    pub ports: Ports<E, D>,
    /// What holds them up on the way out.
    outflow: Outflow,
    /// The flows that they belong to.
    known: KnownFlows,
    /// The other workers.
    exchange: Exchange,
    /// The gateway's own host.
    pub(super) host: OwnHost,
    /// ICMP errors per second.
    complaints: RateLimit,
    /// The books.
    pub(super) ledger: Arc<Ledger>,
    /// The next packet that is forwarded shall tell its sender to slow down.
    pub(super) tell: bool,
    scratch: Scratch,
}

impl<E: Endpoint, D: Devices> Switch<E, D> {
    /// A switch between these ports, with nothing on its way.
    pub fn new(
        ports: Ports<E, D>,
        exchange: Exchange,
        host: OwnHost,
        known: KnownFlows,
        ledger: Arc<Ledger>,
    ) -> Self {
        Self {
            outflow: Outflow::new(ports.vnet.uso, ports.links.len()),
            ports,
            known,
            exchange,
            host,
            complaints: RateLimit::new(ERRORS_PER_SECOND, ERROR_BURST),
            ledger,
            tell: false,
            scratch: Scratch::default(),
        }
    }

    /// The device of the virtual network takes no UDP super-packets, whatever was said before: a fault for tests, before
    /// the worker runs.
    pub fn lack_uso(&mut self) {
        self.ports.vnet.uso = false;
        self.outflow.lack_uso();
    }

    /// The books.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Decisions of known flows that were at hand, and that were not.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        self.known.hits_and_misses()
    }

    /// When a round is wanted for what waits for its rate, or for flows that are over.
    #[inline]
    pub(super) fn deadline(&self) -> Option<Instant> {
        let deadlines = [self.outflow.deadline(), self.known.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// The newest flows, for people.
    pub(super) fn newest_flows(&self) -> Vec<Flow> {
        self.known.newest()
    }

    /// Handles one packet from `ingress`. `port`: where it is booked as received; `None` if that was done
    /// (by control).
    #[inline]
    pub fn handle(
        &mut self,
        round: Round<'_>,
        ingress: Ingress,
        port: Option<Port>,
        bytes: &mut [u8],
        offload: &Offload,
    ) {
        let known = self.known.parts();
        let mut outcome = process_counted(round.forwarding, known, ingress, bytes, offload);
        if (self.tell || self.exchange.tells())
            && let Outcome::Forward { to, headers } = &mut outcome
            && self.tell_sender(round, port, (*to, headers), bytes, offload)
        {
            return;
        }
        self.follow(round, ingress, port, bytes, offload, outcome);
    }

    /// Handles one frame of the link at `index`; it begins at `at` of `batch`. As
    /// [`Switch::handle_batched`].
    #[inline]
    pub fn handle_frame(
        &mut self,
        round: Round<'_>,
        index: usize,
        frame: &Frame,
        batch: &mut [u8],
        at: usize,
    ) -> bool {
        let Some(link) = self.ports.links.get(index) else {
            return false;
        };
        let (path, Some((_, framing))) = (link.path(), link.socket()) else {
            return false;
        };
        match framing.ip(frame, batch.get(at..).unwrap_or_default()) {
            Ok(ip) => {
                let place = (at + ip.range.start, ip.range.len());
                self.handle_batched(round, Ingress::Path(path), batch, place, &ip.offload)
            }
            Err(reason) => {
                let port = Port::path(path);
                self.ledger.received(port, 1, frame.len as u64);
                self.ledger.dropped(reason, 1, frame.len as u64);
                false
            }
        }
    }

    /// Opens one batch of trains from the port at this place where they lie, and merges over the whole batch what is
    /// for the virtual network.
    #[inline]
    pub fn handle_trains(
        &mut self,
        round: Round<'_>,
        place: usize,
        buffer: &mut [u8],
        trains: impl Iterator<Item = TrainPlace>,
    ) {
        for train in trains {
            if train.len == 0 {
                self.drop_empty();
                continue;
            }
            let ends = (train.source, train.local);
            let end = train.at + train.len;
            for at in (train.at..end).step_by(train.stride) {
                let Some(datagram) = buffer.get_mut(at..end.min(at + train.stride)) else {
                    break;
                };
                let begin = datagram.as_ptr().addr();
                let Some(tunnels) = self.ports.tunnels.at(place) else {
                    return;
                };
                let arrival = tunnels.receive(round.now, ends, datagram);
                let (path, plaintext) = match arrival {
                    Arrival::Packet(path, plaintext) => (path, plaintext),
                    Arrival::Done => continue,
                };
                let at = at + (plaintext.as_ptr().addr() - begin);
                let length = plaintext.len();
                if train.traffic_class & ecn::ECN != 0
                    && let Err(reason) = ecn::combine(plaintext, train.traffic_class)
                {
                    self.ledger.received(Port::path(path), 1, length as u64);
                    self.ledger.dropped(reason, 1, length as u64);
                    continue;
                }
                let (ingress, plain) = (Ingress::Path(path), Offload::default());
                self.handle_batched(round, ingress, buffer, (at, length), &plain);
            }
        }
        self.write_merged(round.now, buffer);
    }

    /// Handles one packet of a batch: `length` bytes at `at`. Packets for the virtual network, and from there
    /// for a link, are merged until [`Switch::write_merged`]; true if this one is, so that it has to stay
    /// where it lies.
    #[inline]
    pub fn handle_batched(
        &mut self,
        round: Round<'_>,
        ingress: Ingress,
        batch: &mut [u8],
        (at, length): (usize, usize),
        offload: &Offload,
    ) -> bool {
        let port = match ingress {
            Ingress::Path(path) => Port::path(path),
            Ingress::Vnet => Port::VNET,
            Ingress::Local => Port::LOCAL,
        };
        let Some(bytes) = batch.get_mut(at..at + length) else {
            return false;
        };
        let known = self.known.parts();
        let mut outcome = process_counted(round.forwarding, known, ingress, bytes, offload);
        if (self.tell || self.exchange.tells())
            && let Outcome::Forward { to, headers } = &mut outcome
            && self.tell_sender(round, Some(port), (*to, headers), bytes, offload)
        {
            return false;
        }
        if let Outcome::Forward { to, headers } | Outcome::Fragment { to, headers, .. } = &outcome
            && let Some((merge, mut way)) = self.outflow.merger(
                &mut self.ports,
                (&self.ledger, &mut self.scratch.piece),
                round.now,
                (ingress, *to),
                batch,
            )
        {
            if offload.gso.is_none() && matches!(outcome, Outcome::Forward { .. }) {
                way.ledger.received(port, 1, u64::from(headers.total_len));
                merge.push(batch, at, headers, offload, &mut |merged| way.send(&merged));
                return true;
            }
            merge.make_way(batch, headers, &mut |merged| way.send(&merged));
        }
        if let Outcome::Forward {
            to: Egress::Local,
            headers,
        } = &outcome
            && let Ingress::Path(path) = ingress
            && let Some(place) = self.private_place(round, path, headers)
        {
            return self.open_private(round, (place, path), batch, at, headers, offload);
        }
        let bytes = batch.get(at..at + length).unwrap_or_default();
        self.follow(round, ingress, Some(port), bytes, offload, outcome);
        false
    }

    /// Books a packet and does with it what the pipeline has decided.
    #[inline]
    fn follow(
        &mut self,
        round: Round<'_>,
        ingress: Ingress,
        port: Option<Port>,
        bytes: &[u8],
        offload: &Offload,
        outcome: Outcome,
    ) {
        let whole = |headers: &Headers| bytes.get(..headers.total_len as usize).unwrap_or(bytes);
        match outcome {
            Outcome::Forward { to, headers } => {
                let packet = Packet {
                    bytes: whole(&headers),
                    headers: &headers,
                    offload,
                };
                self.book(port, packet.tally());
                self.emit(round.now, ingress, to, packet);
            }
            Outcome::Fragment { to, headers, mtu } => {
                let packet = Packet {
                    bytes: whole(&headers),
                    headers: &headers,
                    offload,
                };
                self.book(port, packet.tally());
                self.fragment(round.now, ingress, to, packet, mtu);
            }
            Outcome::Drop {
                reason,
                complaint,
                headers,
            } => {
                let unread = Sum {
                    packets: 1,
                    bytes: bytes.len() as u64,
                };
                let tally = headers.map_or(unread, |headers| on_the_wire(&headers, offload));
                self.book(port, tally);
                self.ledger.dropped(reason, tally.packets, tally.bytes);
                if let (Some(complaint), Some(headers)) = (complaint, headers) {
                    let packet = Packet {
                        bytes,
                        headers: &headers,
                        offload,
                    };
                    self.complain(round, ingress, packet, complaint);
                }
            }
        }
    }

    #[inline]
    fn book(&self, port: Option<Port>, tally: Sum) {
        if let Some(port) = port {
            self.ledger.received(port, tally.packets, tally.bytes);
        }
    }

    /// Begins a round: the limits in force now. A shaper that comes or goes lets out what waits.
    #[inline]
    pub fn begin(&mut self, round: Round<'_>) {
        let forwarding = round.forwarding;
        self.known.begin(round.now, forwarding.flows.as_ref());
        let limits = forwarding.limits.as_ref();
        if self.outflow.goes_on(round.now, limits) {
            return;
        }
        if let Some(mut old) = self.outflow.take_shaper() {
            let ledger = Arc::clone(&self.ledger);
            old.release(&ledger, |release| self.send_released(round.now, &release));
        }
        let shaper = limits.map(|limits| Box::new(Shaper::new(round.now, Arc::clone(limits))));
        self.outflow.put_shaper(shaper);
    }

    /// Sends what waited for its rate and may go now, and forgets flows that are over; at the end of every
    /// round.
    #[inline]
    pub fn send_shaped(&mut self, now: Instant) {
        self.known.sweep();
        if let Some(mut shaper) = self.outflow.take_shaper() {
            let ledger = Arc::clone(&self.ledger);
            shaper.drain(&ledger, |release| self.send_released(now, &release));
            self.outflow.put_shaper(Some(shaper));
        }
    }

    /// Writes everything of `batch` that is still being merged.
    #[inline]
    pub fn write_merged(&mut self, now: Instant, batch: &[u8]) {
        let counter = (&*self.ledger, &mut *self.scratch.piece);
        self.outflow.write(&mut self.ports, counter, now, batch);
    }

    fn send_released(&mut self, now: Instant, release: &Release<'_>) {
        let packet = Packet {
            bytes: release.bytes,
            headers: &release.headers,
            offload: &release.offload,
        };
        // Only what goes to the virtual network or a path ever waits: no host asks where it came from.
        self.send(now, Ingress::Vnet, release.to, packet);
    }

    /// Sends a packet that is ready, unless its rate makes it wait.
    #[inline]
    pub(super) fn emit(&mut self, now: Instant, ingress: Ingress, to: Egress, packet: Packet<'_>) {
        if !self.outflow.holds(ingress, to, packet, &self.ledger) {
            self.send(now, ingress, to, packet);
        }
    }

    /// Hands a packet that is ready to its way out.
    #[inline]
    fn send(&mut self, now: Instant, ingress: Ingress, to: Egress, packet: Packet<'_>) {
        let Packet {
            bytes,
            headers,
            offload,
        } = packet;
        match to {
            Egress::Vnet => {
                let (ledger, piece) = (&self.ledger, &mut self.scratch.piece);
                self.ports.vnet.write(packet, ledger, piece);
            }
            Egress::Local => self.deliver(ingress, packet),
            Egress::Path(path) => match self.ports.ways.of(path) {
                Way::Link(link) => match self.ports.links.get_mut(link) {
                    Some(link) => link.send(now, bytes, headers, offload),
                    None => self.drop(DropReason::NoPath, packet),
                },
                Way::Tunnel(lanes) => self.send_by_lane(now, path, lanes, packet),
                Way::Owner(worker) => self.cross(worker, path, packet),
                Way::Private(place) => self.send_private(now, place, path, packet),
                Way::Clients => self.send_to_client(now, path, packet),
                Way::Nowhere => self.drop(DropReason::NoPath, packet),
            },
        }
    }

    #[inline]
    fn send_private(&mut self, now: Instant, place: usize, path: PathId, packet: Packet<'_>) {
        match self.ports.privates.get_mut(place) {
            Some(Private { tunnels, .. }) => {
                tunnels.send(now, path, packet.bytes, packet.headers, packet.offload);
            }
            None => self.drop(DropReason::NoPath, packet),
        }
    }

    /// Sends a packet by one of this worker's lanes, or hands it to the owner of lane 0.
    #[inline]
    fn send_by_lane(&mut self, now: Instant, path: PathId, lanes: Lanes, packet: Packet<'_>) {
        match self.ports.tunnels.lane(now, path, lanes, packet.headers) {
            Some(tunnels) => tunnels.send(now, path, packet.bytes, packet.headers, packet.offload),
            None => self.cross(FIRST_OWNER, path, packet),
        }
    }

    /// Sends a packet to the client that has its destination, or hands it to the worker that has the client.
    #[inline]
    fn send_to_client(&mut self, now: Instant, path: PathId, packet: Packet<'_>) {
        match self.ports.ways.client_owner(&packet.headers.key) {
            Some(owner) if self.exchange.is_other(owner) => self.cross(owner, path, packet),
            Some(_) => {
                let tunnels = self.ports.tunnels.base_mut();
                tunnels.send(now, path, packet.bytes, packet.headers, packet.offload);
            }
            None => self.drop(DropReason::NoClient, packet),
        }
    }

    #[cold]
    fn drop(&self, reason: DropReason, packet: Packet<'_>) {
        let tally = packet.tally();
        self.ledger.dropped(reason, tally.packets, tally.bytes);
    }

    /// Drops everything that is still held, before the worker ends.
    pub fn shut_down(&mut self, now: Instant) {
        self.outflow.shut_down(&self.ledger);
        let ports = &mut self.ports;
        ports.tunnels.iter_mut().for_each(|t| t.shut_down(now));
        for private in &mut ports.privates {
            private.tunnels.shut_down(now);
        }
        for link in &mut ports.links {
            link.shut_down();
        }
        // What still lies between two workers is dropped by its taker, or by its giver if that ended first.
        while let Some(mut batch) = self.exchange.recall() {
            self.drop_parcel(&mut batch);
        }
        while let Some(call) = self.exchange.recall_call() {
            self.drop_call(DropReason::Shutdown, call.length);
        }
        while let Some(FromHost { packet, .. }) = self.host.take() {
            self.ledger.release(1);
            self.ledger
                .dropped(DropReason::Shutdown, 1, packet.len() as u64);
        }
    }
}

#[cfg(test)]
mod tests;
