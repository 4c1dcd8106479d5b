//! Packets that came out of a tunnel, back into super-packets, without copying a byte of payload.
//!
//! 1. whether the packet may be merged at all ([`Candidate::of`]): TCP or UDP with payload, no fragment,
//!    nothing but data in its flags, and a transport checksum that holds, or that is still to be made or
//!    has been verified by a device. A corrupt packet must not be
//!    laundered into a valid one: the super-packet's checksum is computed anew by whoever splits it
//! 2. find its flow among the open ones; the rules of Linux' GRO (`inet_gro_receive`,
//!    `ipv6_gro_receive`, `tcp_gro_receive`, `udp_gro_receive_segment`, 6.18) say whether it goes on there
//! 3. if so append its payload as a range of the batch; a shorter one, FIN or PSH closes the super-packet
//! 4. if not, the flow's super-packet goes out first: a flow is never reordered
//! 5. at the end of the batch all go out, in the order in which they were begun
//!
//! The packets of a batch lie in one buffer; pieces are ranges of it, so that the next packet may still
//! be opened in place. All tables have fixed sizes.

use super::merge::{Candidate, Flow};
use crate::device::offload::Offload;
use routing::packet::{FlowKey, Fragment, Headers};

pub use super::merge::{MAX_PIECES, SuperPacket};

/// Flows that are open at once; one more sends out the oldest.
pub const MAX_FLOWS: usize = 32;

/// The open super-packets of one way out.
#[derive(Debug)]
pub struct Coalescer {
    flows: Box<[Flow]>,
    /// Indices into `flows`: first the open ones, oldest first, then the free ones.
    order: [u8; MAX_FLOWS],
    /// Of each entry of `order`, some bits of its flow key: most flows are told apart by them.
    tags: [u32; MAX_FLOWS],
    open: usize,
    /// Whether the way out takes UDP super-packets.
    udp: bool,
}

impl Coalescer {
    /// Nothing open; `udp` says whether the way out takes UDP super-packets (USO).
    pub fn new(udp: bool) -> Self {
        let mut order = [0; MAX_FLOWS];
        for (index, entry) in order.iter_mut().enumerate() {
            *entry = index as u8;
        }
        Self {
            flows: (0..MAX_FLOWS).map(|_| Flow::EMPTY).collect(),
            order,
            tags: [0; MAX_FLOWS],
            open: 0,
            udp,
        }
    }

    /// Whether [`Coalescer::flush`] would send out nothing.
    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Takes the packet at `at` of `batch` (its length is in `headers`, what is left to do for it in
    /// `offload`) and sends out what cannot wait: this packet, one that it completes, or one that has to go
    /// before it.
    ///
    /// `batch` is the same buffer from the first packet to the flush; packets that were pushed stay as
    /// they are in it. A packet that does not lie inside it is left out.
    #[inline]
    pub fn push<E>(
        &mut self,
        batch: &[u8],
        at: usize,
        headers: &Headers,
        offload: &Offload,
        emit: &mut E,
    ) where
        E: FnMut(SuperPacket<'_>),
    {
        let Some(packet) = batch
            .get(at..)
            .and_then(|rest| rest.get(..headers.total_len as usize))
        else {
            return;
        };
        let found = self.find(&headers.key);
        let Some(candidate) = Candidate::of(packet, at, headers, offload, self.udp) else {
            self.pass(batch, packet, (headers, offload), found, emit);
            return;
        };
        let Some(place) = found else {
            if candidate.closes {
                emit(SuperPacket::single(packet, candidate.offload));
            } else {
                self.begin(batch, headers, &candidate, emit);
            }
            return;
        };

        let flow = &mut self.flows[usize::from(self.order[place])];
        let goes_on = flow
            .first(batch)
            .is_some_and(|first| flow.takes(first, packet, &candidate));
        if goes_on {
            if flow.append(&candidate) {
                flow.emit(batch, emit);
                self.close(place);
            }
        } else {
            flow.emit(batch, emit);
            self.close(place);
            if candidate.closes {
                emit(SuperPacket::single(packet, candidate.offload));
            } else {
                self.begin(batch, headers, &candidate, emit);
            }
        }
    }

    /// Sends out all that is open, in the order in which it was begun.
    #[inline]
    pub fn flush<E>(&mut self, batch: &[u8], emit: &mut E)
    where
        E: FnMut(SuperPacket<'_>),
    {
        for &index in &self.order[..self.open] {
            self.flows[usize::from(index)].emit(batch, emit);
        }
        self.open = 0;
    }

    /// The place in `order` of an open flow.
    #[inline]
    fn find(&self, key: &FlowKey) -> Option<usize> {
        let tag = tag(key);
        self.tags[..self.open]
            .iter()
            .zip(&self.order)
            .position(|(&found, &index)| found == tag && self.flows[usize::from(index)].key == *key)
    }

    /// Sends out whatever a packet that is not merged must go behind: what is open of its flow; or, since the
    /// ports of a fragment are not known, all that is open between its two hosts.
    #[inline]
    pub fn make_way<E>(&mut self, batch: &[u8], headers: &Headers, emit: &mut E)
    where
        E: FnMut(SuperPacket<'_>),
    {
        if self.open > 0 {
            let found = self.find(&headers.key);
            self.clear_way(batch, headers, found, emit);
        }
    }

    /// Sends out a packet that is not merged.
    #[inline(never)]
    fn pass<E>(
        &mut self,
        batch: &[u8],
        packet: &[u8],
        (headers, offload): (&Headers, &Offload),
        found: Option<usize>,
        emit: &mut E,
    ) where
        E: FnMut(SuperPacket<'_>),
    {
        self.clear_way(batch, headers, found, emit);
        emit(SuperPacket::single(packet, *offload));
    }

    #[inline]
    fn clear_way<E>(&mut self, batch: &[u8], headers: &Headers, found: Option<usize>, emit: &mut E)
    where
        E: FnMut(SuperPacket<'_>),
    {
        if let Some(place) = found {
            self.flows[usize::from(self.order[place])].emit(batch, emit);
            self.close(place);
        }
        if headers.fragment != Fragment::Whole {
            let mut place = 0;
            while place < self.open {
                let flow = &self.flows[usize::from(self.order[place])];
                if flow.key.source == headers.key.source
                    && flow.key.destination == headers.key.destination
                {
                    flow.emit(batch, emit);
                    self.close(place);
                } else {
                    place += 1;
                }
            }
        }
    }

    /// Opens a super-packet with this as its first packet.
    #[inline]
    fn begin<E>(&mut self, batch: &[u8], headers: &Headers, candidate: &Candidate, emit: &mut E)
    where
        E: FnMut(SuperPacket<'_>),
    {
        if self.open == MAX_FLOWS {
            self.flows[usize::from(self.order[0])].emit(batch, emit);
            self.close(0);
        }
        let place = self.open;
        self.open += 1;
        self.tags[place] = tag(&headers.key);
        self.flows[usize::from(self.order[place])].begin(headers, candidate);
    }

    /// Makes the flow at a place of `order` free.
    #[inline]
    fn close(&mut self, place: usize) {
        self.order[place..self.open].rotate_left(1);
        self.tags[place..self.open].rotate_left(1);
        self.open -= 1;
    }
}

/// Flows differ in their ports first of all, then in the low bits of their addresses.
#[inline]
fn tag(key: &FlowKey) -> u32 {
    let ports = u32::from(key.source_port) << 16 | u32::from(key.destination_port);
    ports ^ key.source as u32 ^ (key.destination as u32).rotate_left(16)
}
