//! Tunnels over a circuit: encryption over the private path.
//!
//! Such a tunnel's datagrams are no business of the kernel's UDP socket. They are packets of the gateway's own
//! address, and leave and come in by the links of one circuit:
//!
//! 1. [`Outlet`]: a sealed train gets an IP and a UDP header in front and becomes one UDP super-packet
//! 2. [`Switch::run_privates`](crate::worker::switch::Switch::run_privates): at the end of the round each takes an active link of its circuit, held to the
//!    rates of the ExpressRoute gateway as the packet inside was held to the VPN gateway's
//! 3. `Switch::open_private`: what comes in by the circuit for the tunnels' port is opened where it lies, and
//!    what is inside goes its way as out of any tunnel
//!
//! Each circuit has an engine of its own: a site that is to be reached over the circuit is known nowhere else,
//! so nobody can draw it to another path by calling from there.
//!
//! Books: the tunnel's port counts packets inside, as always. What is around them is made here: it is received
//! at port `local` and sent at the link's, or received at the link's and sent to `local`.

use crate::device::SendError;
use crate::device::offload::{Gso, GsoKind, Offload, PartialChecksum};
use crate::device::sink::TrainSink;
use crate::device::udp::{PeerPath, SendOutcome};
use crate::pipeline::checksum::{Sum, pseudo_header};
use crate::pipeline::field::{at, length};
use crate::worker::packet::MAX_SEGMENT;
use crate::worker::tunnels::Tunnels;
use crypto::tunnel::Endpoint;
use routing::decide::flow_hash;
use routing::packet::{Headers, Version, address_bits, protocol};
use routing::path::{PathId, pick_member};
use routing::rib::OwnerId;
use routing::snapshot::Snapshot;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

/// Trains of one family that wait for the end of the round. A round has less: a few from each device.
const MAX_READY: usize = 256;
/// TTL and hop limit of the outer header.
const HOP_LIMIT: u8 = 64;

/// A train on its way into a circuit: an IP packet, or a super-packet of them.
#[derive(Debug)]
pub(super) struct Outer {
    pub(super) bytes: Vec<u8>,
    pub(super) offload: Offload,
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
///
/// The headers are written by hand. A train may be one small packet, and smoltcp's `emit`, which serves where errors
/// are made (`pipeline::icmp`), takes 10 ns for that of IPv4 with what has to be changed in it, and this 4.
fn lay(
    outer: &mut Outer,
    (from, to): (SocketAddr, SocketAddr),
    (train, stride): (&[u8], usize),
    (class, id): (u8, u16),
) -> Option<()> {
    let udp = u16::try_from(train.len() + length::UDP).ok()?;
    let bytes = &mut outer.bytes;
    bytes.clear();
    match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let [high, low] = udp.checked_add(length::V4 as u16)?.to_be_bytes();
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
    let field = usize::from(start) + at::UDP_CHECKSUM;
    bytes.get_mut(field..field + 2)?.copy_from_slice(&partial);
    let gso = (train.len() > stride).then_some(Gso {
        kind: GsoKind::Udp,
        size: u16::try_from(stride).ok()?,
        ecn: false,
    });
    outer.offload = Offload {
        checksum: Some(PartialChecksum {
            start,
            offset: at::UDP_CHECKSUM as u16,
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
    pub(super) fn take(&self) -> Option<(usize, Outer)> {
        take_of(self.tunnels.sockets())
    }

    /// Gives a train's room back to the outlet that it came from: the other family's would only collect it.
    pub(super) fn give_back(&self, place: usize, outer: Outer) {
        give_back_to(self.tunnels.sockets(), place, outer);
    }

    /// The link that a flow takes now; `None`: the circuit is down.
    pub(super) fn link(&self, snapshot: &Snapshot, headers: &Headers) -> Option<PathId> {
        let group = snapshot.underlay_group(self.circuit, headers.key.version)?;
        let group = snapshot.group(group)?;
        let member = pick_member(group.active().load(), flow_hash(headers))?;
        group.members().get(usize::from(member)).copied()
    }
}

/// Where a UDP packet came from.
pub(super) fn source_of(headers: &Headers) -> SocketAddr {
    let key = &headers.key;
    let address: IpAddr = match key.version {
        Version::V4 => std::net::Ipv4Addr::from_bits(key.source as u32).into(),
        Version::V6 => std::net::Ipv6Addr::from_bits(key.source).into(),
    };
    debug_assert_eq!(address_bits(address).1, key.source);
    SocketAddr::new(address, key.source_port)
}

#[cfg(test)]
mod tests;
