//! Tunnels over a circuit: encryption over the private path.
//!
//! Such a tunnel's datagrams are no business of the kernel's UDP socket. They are packets of the gateway's own
//! address, and leave and come in by the links of one circuit:
//!
//! 1. [`Outlet`]: a sealed train gets an IP and a UDP header in front and becomes one UDP super-packet
//! 2. [`Switch::run_privates`]: at the end of the round each takes an active link of its circuit, held to the
//!    rates of the ExpressRoute gateway as the packet inside was held to the VPN gateway's
//! 3. [`Switch::open_private`]: what comes in by the circuit for the tunnels' port is opened where it lies, and
//!    what is inside goes its way as out of any tunnel
//!
//! Each circuit has an engine of its own: a site that is to be reached over the circuit is known nowhere else,
//! so nobody can draw it to another path by calling from there.
//!
//! Books: the tunnel's port counts packets inside, as always. What is around them is made here: it is received
//! at port `local` and sent at the link's, or received at the link's and sent to `local`.

use crate::device::SendError;
use crate::device::offload::{Gso, GsoKind, Offload, PartialChecksum};
use crate::device::sink::{Devices, TrainSink};
use crate::device::udp::{PeerPath, SendOutcome};
use crate::pipeline::checksum::{Sum, pseudo_header};
use crate::pipeline::egress::Egress;
use crate::pipeline::{ecn, forward};
use crate::telemetry::ledger::Port;
use crate::worker::crossing::Cargo;
use crate::worker::link::{MAX_SEGMENT, Tally};
use crate::worker::switch::{Packet, Round, Switch};
use crate::worker::tunnels::{Arrival, Tunnels};
use crypto::tunnel::Endpoint;
use crypto::wireguard::{receiver_index, worker_of};
use routing::decide::flow_hash;
use routing::packet::{Fragment, Headers, Version, address_bits, protocol};
use routing::path::{Ingress, PathId, pick_member};
use routing::reason::DropReason;
use routing::rib::OwnerId;
use routing::snapshot::Snapshot;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Trains of one family that wait for the end of the round. A round has less: a few from each device.
const MAX_READY: usize = 256;
/// TTL and hop limit of the outer header.
const HOP_LIMIT: u8 = 64;
/// Length of a UDP header.
const UDP_HEADER: usize = 8;
/// Where UDP has its checksum.
const UDP_CHECKSUM: u16 = 6;

/// A train on its way into a circuit: an IP packet, or a super-packet of them.
#[derive(Debug)]
struct Outer {
    bytes: Vec<u8>,
    offload: Offload,
}

impl Outer {
    /// Room for the longest packet at once, so that it never grows.
    #[cold]
    fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(MAX_SEGMENT),
            offload: Offload::default(),
        }
    }
}

#[derive(Debug)]
struct Queue {
    ready: VecDeque<Outer>,
    /// To be used again: nothing is allocated once there have been as many as there will be.
    spare: Vec<Outer>,
    /// IPv4 identification of the next datagram: what may be cut must be told apart (RFC 6864, 4).
    id: u16,
}

/// Takes the trains of one family, in place of a UDP socket.
#[derive(Debug)]
pub struct Outlet {
    /// The gateway's address and the tunnels' port.
    own: SocketAddr,
    queue: RefCell<Queue>,
}

impl Outlet {
    /// Trains will come from this address and port.
    pub fn new(own: SocketAddr) -> Self {
        Self {
            own,
            queue: RefCell::new(Queue {
                ready: VecDeque::with_capacity(MAX_READY),
                spare: Vec::with_capacity(MAX_READY),
                id: 0,
            }),
        }
    }

    fn take(&self) -> Option<Outer> {
        self.queue.borrow_mut().ready.pop_front()
    }

    fn give_back(&self, outer: Outer) {
        self.queue.borrow_mut().spare.push(outer);
    }
}

impl TrainSink for Outlet {
    fn send_train_by(
        &self,
        _: &PeerPath,
        to: &SocketAddr,
        bytes: &[u8],
        stride: usize,
        traffic_class: u8,
    ) -> SendOutcome {
        let datagrams = bytes.len().div_ceil(stride.max(1));
        let mut queue = self.queue.borrow_mut();
        if queue.ready.len() >= MAX_READY {
            return refused(SendError::NoRoom);
        }
        let mut outer = queue.spare.pop().unwrap_or_else(Outer::new);
        let (ends, id) = ((self.own, *to), queue.id);
        if lay(&mut outer, ends, (bytes, stride), (traffic_class, id)).is_none() {
            queue.spare.push(outer);
            return refused(SendError::TooBig);
        }
        queue.id = id.wrapping_add(datagrams as u16);
        queue.ready.push_back(outer);
        SendOutcome {
            sent: datagrams,
            ..SendOutcome::default()
        }
    }
}

fn refused(error: SendError) -> SendOutcome {
    SendOutcome {
        error: Some(error),
        ..SendOutcome::default()
    }
}

/// Lays a train down behind its headers; the UDP checksum is left to whoever cuts it. `None`: the families
/// differ, or it is too long for one IP packet.
fn lay(
    outer: &mut Outer,
    (from, to): (SocketAddr, SocketAddr),
    (train, stride): (&[u8], usize),
    (class, id): (u8, u16),
) -> Option<()> {
    let udp = u16::try_from(train.len() + UDP_HEADER).ok()?;
    let bytes = &mut outer.bytes;
    bytes.clear();
    match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let [high, low] = udp.checked_add(20)?.to_be_bytes();
            let [id_high, id_low] = id.to_be_bytes();
            // Don't-fragment is clear, as it is over UDP sockets: a router in the middle may be narrower, and
            // nobody here would believe it if it said so.
            let mut header = [
                0x45,
                class,
                high,
                low,
                id_high,
                id_low,
                0,
                0,
                HOP_LIMIT,
                protocol::UDP,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
            ];
            header[12..16].copy_from_slice(&source.octets());
            header[16..20].copy_from_slice(&destination.octets());
            let sum = Sum::of(&header).checksum();
            header[10..12].copy_from_slice(&sum);
            bytes.extend_from_slice(&header);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let [high, low] = udp.to_be_bytes();
            let first = [0x60 | class >> 4, class << 4, 0, 0];
            bytes.extend_from_slice(&first);
            bytes.extend_from_slice(&[high, low, protocol::UDP, HOP_LIMIT]);
            bytes.extend_from_slice(&source.octets());
            bytes.extend_from_slice(&destination.octets());
        }
        _ => return None,
    }
    let start = bytes.len() as u16;
    for word in [from.port(), to.port(), udp, 0] {
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    bytes.extend_from_slice(train);
    let headers = Headers::parse(bytes).ok()?;
    let partial = pseudo_header(&headers.key, u32::from(udp)).folded();
    let at = usize::from(start + UDP_CHECKSUM);
    bytes.get_mut(at..at + 2)?.copy_from_slice(&partial);
    let gso = (train.len() > stride).then_some(Gso {
        kind: GsoKind::Udp,
        size: u16::try_from(stride).ok()?,
        ecn: false,
    });
    outer.offload = Offload {
        checksum: Some(PartialChecksum {
            start,
            offset: UDP_CHECKSUM,
        }),
        gso,
        checksum_valid: false,
    };
    Some(())
}

/// The outlets of both families.
type Outlets<'a> = [Option<&'a Outlet>; 2];

fn take_of(outlets: Outlets<'_>) -> Option<(usize, Outer)> {
    outlets
        .into_iter()
        .enumerate()
        .find_map(|(place, outlet)| Some((place, outlet?.take()?)))
}

fn give_back_to(outlets: Outlets<'_>, place: usize, outer: Outer) {
    if let Some(Some(outlet)) = outlets.get(place) {
        outlet.give_back(outer);
    }
}

/// The tunnels of one worker over one circuit.
pub struct Private<E: Endpoint> {
    /// Those tunnels.
    pub tunnels: Tunnels<E, Outlet>,
    /// The circuit.
    pub circuit: OwnerId,
    /// UDP port of the tunnels, at the gateway.
    pub port: u16,
}

impl<E: Endpoint> Private<E> {
    /// The next train that waits, and the place of its outlet.
    fn take(&self) -> Option<(usize, Outer)> {
        take_of(self.tunnels.sockets())
    }

    /// Gives a train's room back to the outlet that it came from: the other family's would only collect it.
    fn give_back(&self, place: usize, outer: Outer) {
        give_back_to(self.tunnels.sockets(), place, outer);
    }

    /// The link that a flow takes now; `None`: the circuit is down.
    fn link(&self, snapshot: &Snapshot, headers: &Headers) -> Option<PathId> {
        let group = snapshot.underlay_group(self.circuit, headers.key.version)?;
        let group = snapshot.group(group)?;
        let member = pick_member(group.active().load(), flow_hash(headers))?;
        group.members().get(usize::from(member)).copied()
    }
}

impl<E: Endpoint, D: Devices> Switch<E, D> {
    /// Ends the round of the tunnels over circuits: sends what is sealed, runs what is due. When they want to be
    /// called at the latest.
    #[inline]
    pub fn run_privates(&mut self, round: Round<'_>) -> Option<Instant> {
        let mut deadline = None;
        for place in 0..self.privates.len() {
            let Some(private) = self.privates.get_mut(place) else {
                break;
            };
            private.tunnels.flush(round.now);
            private.tunnels.poll(round.now);
            deadline = [deadline, private.tunnels.deadline()]
                .into_iter()
                .flatten()
                .min();
            while let Some((outlet, outer)) = self.privates.get(place).and_then(Private::take) {
                self.send_outer(round, place, &outer);
                if let Some(private) = self.privates.get(place) {
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
        let Tally { packets, bytes } = Tally::of(&headers, &outer.offload);
        self.ledger.received(Port::LOCAL, packets, bytes);
        let snapshot = &round.forwarding.snapshot;
        let private = self.privates.get(place);
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
        if mtu > 0 && forward::largest_segment(&headers, &outer.offload) > usize::from(mtu) {
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
        self.privates.iter().position(is_for)
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
        let Tally { packets, bytes } = Tally::of(headers, offload);
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
        let is_other = matches!(self.exits.get(owner), Some(Some(_)));
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
        let exit = self.exits.get_mut(worker).and_then(Option::as_mut);
        if !exit.is_some_and(|exit| exit.lay(datagram, cargo)) {
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
        let private = self.privates.get_mut(place)?;
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

    /// A datagram that another worker handed over, in its place of a parcel. What is inside may be merged, and
    /// stays where it lies until then.
    pub(super) fn take_outer(
        &mut self,
        round: Round<'_>,
        outer: (usize, SocketAddr, u8),
        parcel: &mut [u8],
        (at, length): (usize, usize),
    ) {
        let Some(datagram) = parcel.get_mut(at..at + length) else {
            return;
        };
        if let Some((path, inside)) = self.open_outer(round, outer, datagram) {
            let (ingress, plain) = (Ingress::Path(path), Offload::default());
            let inside = (at + inside.0, inside.1);
            self.handle_batched(round, ingress, parcel, inside, &plain);
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

/// Where a UDP packet came from.
fn source_of(headers: &Headers) -> SocketAddr {
    let key = &headers.key;
    let address: IpAddr = match key.version {
        Version::V4 => std::net::Ipv4Addr::from_bits(key.source as u32).into(),
        Version::V6 => std::net::Ipv6Addr::from_bits(key.source).into(),
    };
    debug_assert_eq!(address_bits(address).1, key.source);
    SocketAddr::new(address, key.source_port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::checksum;
    use crate::pipeline::split::Segments;

    #[test]
    fn a_train_becomes_a_super_packet_that_is_cut_into_its_datagrams_again() {
        let train: Vec<u8> = (0..3_000_u16).map(|n| n as u8).collect();
        for (own, to) in [
            ("10.1.255.4:51820", "10.200.0.1:4500"),
            ("[fd00:1::4]:51820", "[fd00:2::1]:4500"),
        ] {
            let (own, to): (SocketAddr, SocketAddr) = (own.parse().unwrap(), to.parse().unwrap());
            let outlet = Outlet::new(own);
            assert_eq!(
                outlet
                    .send_train_by(&PeerPath::default(), &to, &train, 1_452, 0xb8)
                    .sent,
                3
            );
            let outer = outlet.take().unwrap();
            let headers = Headers::parse(&outer.bytes).unwrap();
            assert_eq!((headers.traffic_class, source_of(&headers)), (0xb8, own));
            assert_eq!(headers.key.destination_port, 4_500);
            assert_eq!(outer.offload.gso.unwrap().size, 1_452);
            let mut cut = Segments::new(&outer.bytes, &headers, &outer.offload).unwrap();
            let mut room = vec![0; 2_048];
            let mut datagrams = Vec::new();
            while let Some(length) = cut.next_into(&mut room) {
                let packet = &room[..length.unwrap()];
                let headers = Headers::parse(packet).unwrap();
                assert!(checksum::verify(packet, &headers));
                datagrams.push(packet[usize::from(headers.payload)..].to_vec());
            }
            assert_eq!(
                datagrams.iter().map(Vec::len).collect::<Vec<_>>(),
                [1_452, 1_452, 96]
            );
            assert_eq!(datagrams.concat(), train);
            outlet.give_back(outer);

            // One datagram alone is a plain packet, whose checksum is still to be made.
            outlet.send_train_by(&PeerPath::default(), &to, &train[..148], 148, 0);
            let mut outer = outlet.take().unwrap();
            assert_eq!(outer.offload.gso, None);
            checksum::finish(&mut outer.bytes, outer.offload.checksum.unwrap()).unwrap();
            let headers = Headers::parse(&outer.bytes).unwrap();
            assert!(checksum::verify(&outer.bytes, &headers));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_the_queue_is_bounded() {
        let outlet = Outlet::new("10.1.255.4:51820".parse().unwrap());
        let v6 = "[fd00::1]:1".parse().unwrap();
        assert_eq!(
            outlet
                .send_train_by(&PeerPath::default(), &v6, &[0; 32], 32, 0)
                .error,
            Some(SendError::TooBig)
        );
        let to = "10.200.0.1:51820".parse().unwrap();
        let long = vec![0; 65_508];
        assert_eq!(
            outlet
                .send_train_by(&PeerPath::default(), &to, &long, 1_452, 0)
                .error,
            Some(SendError::TooBig)
        );
        for _ in 0..MAX_READY {
            assert_eq!(
                outlet
                    .send_train_by(&PeerPath::default(), &to, &[0; 32], 32, 0)
                    .sent,
                1
            );
        }
        assert_eq!(
            outlet
                .send_train_by(&PeerPath::default(), &to, &[0; 32], 32, 0)
                .error,
            Some(SendError::NoRoom)
        );
    }

    #[test]
    fn room_goes_back_to_the_outlet_that_it_came_from() {
        let [v4, v6] =
            ["10.1.255.4:51820", "[fd00:1::4]:51820"].map(|own| Outlet::new(own.parse().unwrap()));
        let outlets = [Some(&v4), Some(&v6)];
        let trains = |outlet: &Outlet, to: &str| {
            let to = to.parse().unwrap();
            for _ in 0..1_000 {
                for _ in 0..3 {
                    let sent =
                        outlet.send_train_by(&PeerPath::default(), &to, &[0; 3_000], 1_452, 0);
                    assert_eq!(sent.sent, 3);
                }
                while let Some((place, outer)) = take_of(outlets) {
                    give_back_to(outlets, place, outer);
                }
            }
            [&v4, &v6].map(|outlet| outlet.queue.borrow().spare.len())
        };
        assert_eq!(trains(&v6, "[fd00:2::1]:51820"), [0, 3], "over IPv6");
        assert_eq!(trains(&v4, "10.200.0.1:51820"), [3, 3], "and over IPv4");
    }
}
