//! Where packets change sides: the one place that knows all ports of a worker.
//!
//! 1. [`Switch::handle`]: the pipeline decides about a packet and edits it
//! 2. book what came in
//! 3. shape: what is beyond the SKU's rates waits until [`Switch::send_shaped`]
//! 4. hand it to its way out: virtual network, own host, link, tunnel, or the worker that owns the tunnel
//! 5. or drop it for its reason, with an ICMP error where one is due

mod crossing;
mod merged;
mod trouble;

use crate::device::event::Waker;
use crate::device::link::Frame;
use crate::device::offload::Offload;
use crate::device::sink::{Devices, Kernel};
use crate::device::tun::TunQueue;
use crate::device::udp::TrainPlace;
use crate::pipeline::coalesce::Coalescer;
use crate::pipeline::ecn;
use crate::pipeline::flow::FlowTable;
use crate::pipeline::process::{Egress, Forwarding, Outcome, process_counted};
use crate::pipeline::rate::RateLimit;
use crate::pipeline::shape::{Release, Shaper};
use crate::telemetry::ledger::{Ledger, Port, Sum};
use crate::worker::clients::{Address, ByAddress};
use crate::worker::crossing::{Entrance, Exit};
use crate::worker::handover::{FromHost, HostPort, ToHost};
use crate::worker::lane::{FIRST_OWNER, Lanes};
use crate::worker::link::{LinkPort, Tally, each_segment};
use crate::worker::private::Private;
use crate::worker::tunnels::{Arrival, Tunnels};
use crypto::tunnel::Endpoint;
use routing::cache::FlowCache;
use routing::decide::flow_hash;
use routing::packet::Headers;
use routing::path::{Ingress, PathId};
use routing::reason::DropReason;
use std::sync::Arc;
use std::time::Instant;

/// What a path is in this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The link at this index.
    Link(usize),
    /// A tunnel, with these lanes of this worker.
    Tunnel(Lanes),
    /// A tunnel of this worker over a circuit: the place of its [`Private`].
    Private(usize),
    /// A tunnel of which this worker has no lane, and the worker of this number has.
    Owner(usize),
    /// Clients, whose tunnels several workers have.
    Clients,
    /// Not known here.
    Nowhere,
}

/// The TUN queue with what it can take.
pub struct VnetPort<V = TunQueue> {
    /// The queue.
    pub queue: V,
    /// Whether it has a virtio-net header: TCP super-packets and partial checksums.
    pub offload: bool,
    /// Whether it takes UDP super-packets too (USO, Linux 6.2).
    pub uso: bool,
}

/// What is the same for all packets of a round.
#[derive(Clone, Copy)]
pub struct Round<'a> {
    /// The clock, read once.
    pub now: Instant,
    /// The forwarding state, loaded once.
    pub forwarding: &'a Forwarding,
}

/// A packet that has been parsed and is as long as it says.
#[derive(Clone, Copy)]
pub(super) struct Packet<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) headers: &'a Headers,
    pub(super) offload: &'a Offload,
}

impl Packet<'_> {
    fn tally(&self) -> Tally {
        Tally::of(self.headers, self.offload)
    }

    fn sum(&self) -> Sum {
        let Tally { packets, bytes } = self.tally();
        Sum { packets, bytes }
    }
}

/// All ports of one worker and the state of its pipeline.
pub struct Switch<E: Endpoint, D: Devices = Kernel> {
    /// The virtual network.
    pub vnet: VnetPort<D::Vnet>,
    /// ExpressRoute links.
    pub links: Vec<LinkPort<D::Link>>,
    /// Tunnels of the base port.
    pub tunnels: Tunnels<E, D::Underlay>,
    /// Tunnels of the ports of this worker's lanes above 0, in the order of the ports.
    pub lanes: Vec<Tunnels<E, D::Underlay>>,
    /// Tunnels over circuits, by circuit.
    pub privates: Vec<Private<E>>,
    /// What each [`PathId`] is.
    pub ways: Vec<Way>,
    /// The worker that has the tunnel of each client, by the client's addresses.
    pub client_owners: ByAddress<usize>,
    /// The ways to the other workers, by number; none to itself.
    pub exits: Vec<Option<Exit>>,
    /// What the other workers have for this one.
    pub entrances: Vec<Entrance>,
    /// Who is asked about handshakes of nobody who is known here.
    pub next: Option<usize>,
    /// The gateway's own host.
    pub host: Arc<HostPort>,
    /// Wakes control, which is the host.
    pub control: Arc<Waker>,
    /// Packets on their way into the virtual network.
    pub merge: Coalescer,
    /// Packets on their way from the virtual network to each link.
    pub link_merges: Vec<Coalescer>,
    /// The path that they came in by: while packets are shaped, only those of one are merged at a time.
    pub merging: PathId,
    /// Holds packets to the rates of the SKU; `None` without such.
    pub shaper: Option<Box<Shaper>>,
    /// Decisions of known flows.
    pub cache: FlowCache,
    /// Holds flows to the limits of the SKU; `None` without such.
    pub flows: Option<Box<FlowTable>>,
    /// Random and secret: what its hash begins with.
    pub flow_seed: u64,
    /// ICMP errors per second.
    pub complaints: RateLimit,
    /// The books.
    pub ledger: Arc<Ledger>,
    /// The next packet that is forwarded shall tell its sender to slow down.
    pub tell: bool,
    /// Whether the next packet for some other worker shall.
    pub exit_tells: bool,
    /// One packet that the switch makes itself: ICMP errors.
    pub message: Box<[u8]>,
    /// Room for a whole packet, and behind it for one cut out of another: segments, fragments.
    pub piece: Box<[u8]>,
}

impl<E: Endpoint, D: Devices> Switch<E, D> {
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
        let known = (&mut self.cache, self.flows.as_deref_mut());
        let mut outcome = process_counted(round.forwarding, known, ingress, bytes, offload);
        if (self.tell || self.exit_tells)
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
        let Some(link) = self.links.get(index) else {
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
                let Some(tunnels) = self.tunnels_at(place) else {
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
        let known = (&mut self.cache, self.flows.as_deref_mut());
        let mut outcome = process_counted(round.forwarding, known, ingress, bytes, offload);
        if (self.tell || self.exit_tells)
            && let Outcome::Forward { to, headers } = &mut outcome
            && self.tell_sender(round, Some(port), (*to, headers), bytes, offload)
        {
            return false;
        }
        if let Outcome::Forward { to, headers } | Outcome::Fragment { to, headers, .. } = &outcome
            && let Some((merge, mut way)) = self.merged_way(round.now, ingress, *to, batch)
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
                let unread = Tally {
                    packets: 1,
                    bytes: bytes.len() as u64,
                };
                let tally = headers.map_or(unread, |headers| Tally::of(&headers, offload));
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
    fn book(&self, port: Option<Port>, tally: Tally) {
        if let Some(port) = port {
            self.ledger.received(port, tally.packets, tally.bytes);
        }
    }

    /// Begins a round: the limits in force now. A shaper that comes or goes lets out what waits.
    #[inline]
    pub fn begin(&mut self, round: Round<'_>) {
        match (&mut self.flows, &round.forwarding.flows) {
            (None, None) => {}
            (Some(flows), Some(limits)) => {
                if flows.begin(round.now, limits) {
                    self.cache.forget();
                }
            }
            (flows, limits) => {
                let packets_before = self.cache.hits_and_misses() != (0, 0);
                if let Some(old) = flows.take() {
                    old.put_away();
                }
                *flows = limits.as_ref().map(|limits| {
                    let limits = Arc::clone(limits);
                    let seed = self.flow_seed;
                    Box::new(FlowTable::new(round.now, limits, seed, packets_before))
                });
            }
        }
        let limits = round.forwarding.limits.as_ref();
        let stays = match &mut self.shaper {
            None => limits.is_none(),
            Some(shaper) => !shaper.begin(round.now, limits),
        };
        if stays {
            return;
        }
        if let Some(mut old) = self.shaper.take() {
            let ledger = Arc::clone(&self.ledger);
            old.release(&ledger, |release| self.send_released(round.now, &release));
        }
        self.shaper = limits.map(|limits| Box::new(Shaper::new(round.now, Arc::clone(limits))));
    }

    /// Sends what waited for its rate and may go now, and forgets flows that are over; at the end of every
    /// round.
    #[inline]
    pub fn send_shaped(&mut self, now: Instant) {
        if let Some(flows) = &mut self.flows {
            flows.sweep();
        }
        if let Some(mut shaper) = self.shaper.take() {
            let ledger = Arc::clone(&self.ledger);
            shaper.drain(&ledger, |release| self.send_released(now, &release));
            self.shaper = Some(shaper);
        }
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
        if let Some(shaper) = &mut self.shaper {
            let tally = packet.sum();
            if let Some(lane) = shaper.admit(ingress, to, tally) {
                let what = (Some(packet.headers), packet.offload, tally);
                shaper.wait(lane, to, std::iter::once(packet.bytes), what, &self.ledger);
                return;
            }
        }
        self.send(now, ingress, to, packet);
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
            Egress::Vnet => self.write_vnet(packet),
            Egress::Local => self.deliver(ingress, packet),
            Egress::Path(path) => match self.ways.get(usize::from(path.0)) {
                Some(&Way::Link(link)) => match self.links.get_mut(link) {
                    Some(link) => link.send(now, bytes, headers, offload),
                    None => self.drop(DropReason::NoPath, packet),
                },
                Some(&Way::Tunnel(lanes)) => self.send_by_lane(now, path, lanes, packet),
                Some(&Way::Owner(worker)) => self.cross(worker, path, packet),
                Some(&Way::Private(place)) => self.send_private(now, place, path, packet),
                Some(Way::Clients) => self.send_to_client(now, path, packet),
                Some(Way::Nowhere) | None => self.drop(DropReason::NoPath, packet),
            },
        }
    }

    #[inline]
    fn send_private(&mut self, now: Instant, place: usize, path: PathId, packet: Packet<'_>) {
        match self.privates.get_mut(place) {
            Some(Private { tunnels, .. }) => {
                tunnels.send(now, path, packet.bytes, packet.headers, packet.offload);
            }
            None => self.drop(DropReason::NoPath, packet),
        }
    }

    /// Sends a packet by one of this worker's lanes, or hands it to the owner of lane 0.
    #[inline]
    fn send_by_lane(&mut self, now: Instant, path: PathId, lanes: Lanes, packet: Packet<'_>) {
        let place = self.place(now, path, lanes, packet.headers);
        let tunnels = place.and_then(|place| tunnels_at(&mut self.tunnels, &mut self.lanes, place));
        match tunnels {
            Some(tunnels) => tunnels.send(now, path, packet.bytes, packet.headers, packet.offload),
            None => self.cross(FIRST_OWNER, path, packet),
        }
    }

    /// Sends a packet to the client that has its destination, or hands it to the worker that has the client.
    #[inline]
    fn send_to_client(&mut self, now: Instant, path: PathId, packet: Packet<'_>) {
        let destination = Address::destination(&packet.headers.key);
        match self.client_owners.get(&destination) {
            // There is no way from a worker to itself: the client is this one's.
            Some(&owner) if self.exits.get(owner).is_some_and(Option::is_some) => {
                self.cross(owner, path, packet);
            }
            Some(_) => {
                self.tunnels
                    .send(now, path, packet.bytes, packet.headers, packet.offload);
            }
            None => self.drop(DropReason::NoClient, packet),
        }
    }

    /// The place of the lane that a packet takes; `None`: its lane carries nothing now, and lane 0 is
    /// another worker's.
    #[inline]
    fn place(
        &mut self,
        now: Instant,
        path: PathId,
        lanes: Lanes,
        headers: &Headers,
    ) -> Option<usize> {
        let place = lanes.place(|| flow_hash(headers));
        if place == 0 || self.lanes.get_mut(place - 1)?.carries(now, path) {
            return Some(place);
        }
        (lanes.first == 0).then_some(0)
    }

    /// The tunnels of the port at this place: the base port, then those of this worker's lanes.
    #[inline]
    pub fn tunnels_at(&mut self, place: usize) -> Option<&mut Tunnels<E, D::Underlay>> {
        tunnels_at(&mut self.tunnels, &mut self.lanes, place)
    }

    /// The tunnels of every port, in the order of their places.
    pub fn all_tunnels(&mut self) -> impl Iterator<Item = &mut Tunnels<E, D::Underlay>> {
        std::iter::once(&mut self.tunnels).chain(&mut self.lanes)
    }

    #[cold]
    fn drop(&self, reason: DropReason, packet: Packet<'_>) {
        let tally = packet.tally();
        self.ledger.dropped(reason, tally.packets, tally.bytes);
    }

    /// Hands a packet for one of the gateway's own addresses to control. Not the fast path: it copies.
    fn deliver(&mut self, ingress: Ingress, packet: Packet<'_>) {
        let (host, ledger, piece) = (&self.host, &self.ledger, &mut self.piece);
        let key = &packet.headers.key;
        let echo_reply = key.is_icmp() && matches!(key.destination_port >> 8, 0 | 129);
        let Packet {
            bytes,
            headers,
            offload,
        } = packet;
        each_segment(bytes, headers, offload, piece, ledger, |segment| {
            // Looked at first: a flood of the gateway's own address must not cost a copy each.
            if !host.has_room(echo_reply) {
                ledger.dropped(DropReason::LocalQueueFull, 1, segment.len() as u64);
                return;
            }
            let packet = ToHost {
                ingress,
                packet: segment.into(),
            };
            ledger.hold(1);
            if host.to_host.push(packet).is_err() {
                ledger.release(1);
                ledger.dropped(DropReason::LocalQueueFull, 1, segment.len() as u64);
            }
        });
        self.control.wake();
    }

    /// Sends what the gateway's own host has for the network, at most `budget` packets; true if there was
    /// something.
    pub fn drain_host(&mut self, round: Round<'_>, budget: usize) -> bool {
        for taken in 0..budget {
            let Some(FromHost { via, mut packet }) = self.host.from_host.pop() else {
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

    /// Drops everything that is still held, before the worker ends.
    pub fn shut_down(&mut self, now: Instant) {
        if let Some(shaper) = &mut self.shaper {
            shaper.shut_down(&self.ledger);
        }
        self.all_tunnels()
            .for_each(|tunnels| tunnels.shut_down(now));
        for private in &mut self.privates {
            private.tunnels.shut_down(now);
        }
        for link in &mut self.links {
            link.shut_down();
        }
        // What still lies between two workers is dropped by its taker, or by its giver if that ended first.
        for index in 0..self.entrances.len() {
            while let Some(mut parcel) = self.entrances.get(index).and_then(Entrance::take) {
                self.drop_parcel(&mut parcel);
            }
            while let Some(call) = self.entrances.get(index).and_then(Entrance::take_call) {
                self.drop_call(DropReason::Shutdown, call.length);
            }
        }
        for index in 0..self.exits.len() {
            while let Some(mut parcel) = self
                .exits
                .get_mut(index)
                .and_then(|exit| exit.as_mut()?.recall())
            {
                self.drop_parcel(&mut parcel);
            }
            while let Some(call) = self
                .exits
                .get(index)
                .and_then(|exit| exit.as_ref()?.recall_call())
            {
                self.drop_call(DropReason::Shutdown, call.length);
            }
        }
        while let Some(FromHost { packet, .. }) = self.host.from_host.pop() {
            self.ledger.release(1);
            self.ledger
                .dropped(DropReason::Shutdown, 1, packet.len() as u64);
        }
    }
}

impl<V> VnetPort<V> {
    fn takes(&self, offload: &Offload) -> bool {
        use crate::device::offload::GsoKind;
        self.offload && (self.uso || offload.gso.is_none_or(|gso| gso.kind != GsoKind::Udp))
    }
}

#[inline]
fn tunnels_at<'a, E: Endpoint, U>(
    base: &'a mut Tunnels<E, U>,
    lanes: &'a mut [Tunnels<E, U>],
    place: usize,
) -> Option<&'a mut Tunnels<E, U>> {
    match place.checked_sub(1) {
        None => Some(base),
        Some(lane) => lanes.get_mut(lane),
    }
}
