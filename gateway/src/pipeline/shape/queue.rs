//! Packets that wait for tokens: a ring of bytes and a ring of what they are, both of fixed size once the
//! first packet has come.
//!
//! 1. [`Queue::push`] lays a packet down in one piece; what does not fit of a super-packet is cut off
//! 2. [`Queue::head`] is the oldest; the caller pays for it, or for its first segments
//! 3. [`Queue::take`] hands those out where they lie, and leaves the rest of it as the head

use super::bounds::{Bounds, MAX_PACKET};
use super::delay::Delay;
use super::divide;
use super::limits::Classes;
use crate::device::offload::Offload;
use crate::pipeline::egress::Egress;
use crate::pipeline::{ecn, forward};
use crate::telemetry::ledger::Sum;
use routing::packet::{Headers, protocol};
use routing::reason::DropReason;
use std::collections::VecDeque;

/// A packet that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    at: usize,
    len: usize,
    headers: Headers,
    offload: Offload,
    to: Egress,
    /// What it has to pay.
    pub(super) classes: Classes,
    /// What it is on the wire.
    pub(super) tally: Sum,
    /// Bytes of one of its segments on the wire, but for a shorter last one; 0 if it cannot be cut.
    pub(super) segment: u64,
}

/// What leaves a queue: a packet or the front of one, ready to be sent.
#[derive(Debug)]
pub struct Release<'a> {
    /// The IP packet.
    pub bytes: &'a [u8],
    /// Its headers.
    pub headers: Headers,
    /// What is left to do for it.
    pub offload: Offload,
    /// Where it goes.
    pub to: Egress,
    /// Packets and bytes on the wire.
    pub tally: Sum,
}

/// A packet on its way into a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival<'a> {
    /// `None`: to be read from the packet once it lies there in one piece.
    pub(super) headers: Option<&'a Headers>,
    pub(super) offload: &'a Offload,
    pub(super) to: Egress,
    pub(super) classes: Classes,
    pub(super) tally: Sum,
}

/// What there was no room for: nothing, the last segments of a super-packet, or a whole packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) tally: Sum,
    /// `None`: for want of room.
    pub(super) reason: Option<DropReason>,
}

/// A bounded queue, first in, first out.
#[derive(Debug, Default)]
pub(super) struct Queue {
    bounds: Bounds,
    bytes: Box<[u8]>,
    /// Where the next packet is laid, if it fits there.
    tail: usize,
    entries: VecDeque<Entry>,
    held: Bounds,
    /// Bytes that this queue may still send before it is another's turn.
    pub(super) turn: u64,
    /// What its head lacked when it was last looked at.
    pub(super) blocked: Option<DropReason>,
    delay: Delay,
}

impl Queue {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            ..Self::default()
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Puts a packet at the end, given as its pieces in order; says what of it there was no room for.
    pub(super) fn push<'p>(
        &mut self,
        pieces: impl Iterator<Item = &'p [u8]> + Clone,
        arrival: &Arrival<'_>,
    ) -> Lost {
        let whole = arrival.tally;
        let all = |reason| Lost {
            tally: whole,
            reason,
        };
        if self.bytes.is_empty() {
            self.allocate();
        }
        let len: usize = pieces.clone().map(<[u8]>::len).sum();
        let room = self.entries.len() < self.bounds.entries();
        let Some(at) = self.place(len).filter(|_| room) else {
            return all(None);
        };
        let mut to = at;
        for piece in pieces {
            if let Some(place) = self.bytes.get_mut(to..to + piece.len()) {
                place.copy_from_slice(piece);
            }
            to += piece.len();
        }
        let Some(packet) = self.bytes.get_mut(at..at + len) else {
            return all(None);
        };
        let read = arrival
            .headers
            .map_or_else(|| Headers::parse(packet), |headers| Ok(*headers));
        let headers = match read {
            Ok(headers) => headers,
            Err(reason) => return all(Some(reason)),
        };
        let mut entry = Entry {
            at,
            len,
            headers,
            offload: *arrival.offload,
            to: arrival.to,
            classes: arrival.classes,
            tally: whole,
            segment: 0,
        };
        if whole.packets > 1 && divide::can_divide(packet, &headers, arrival.offload) {
            let size = arrival.offload.gso.map_or(0, |gso| gso.size);
            entry.segment = u64::from(headers.payload) + u64::from(size);
        }

        // The bounds say how much may wait; the bytes are there in any case.
        let bytes = self.bounds.bytes.saturating_sub(self.held.bytes);
        let packets = self.bounds.packets.saturating_sub(self.held.packets);
        if whole.bytes > bytes || whole.packets > packets {
            let fit = packets.min(bytes.checked_div(entry.segment).unwrap_or(0));
            let front = (fit > 0)
                .then(|| divide::front(packet, &headers, arrival.offload, fit as usize))
                .flatten();
            let Some((headers, offload)) = front else {
                return all(None);
            };
            (entry.headers, entry.offload) = (headers, offload);
            entry.len = headers.total_len as usize;
            entry.tally = Sum {
                packets: fit,
                bytes: fit * entry.segment,
            };
        }
        self.tail = at + entry.len;
        self.held.bytes += entry.tally.bytes;
        self.held.packets += entry.tally.packets;
        self.entries.push_back(entry);
        Lost {
            tally: less(whole, entry.tally),
            reason: None,
        }
    }

    /// The oldest packet.
    #[inline]
    pub(super) fn head(&self) -> Option<&Entry> {
        self.entries.front()
    }

    /// Before the head leaves: tells its sender to slow down if the queue has stood for too long, with a mark if the
    /// sender knows marks (RFC 3168). True if it does not: then one packet of the head is to be lost.
    #[inline]
    pub(super) fn is_to_lose(&mut self, now: u64) -> bool {
        self.delay.is_due(now, self.held, self.bounds) && self.tell(now)
    }

    #[cold]
    fn tell(&mut self, now: u64) -> bool {
        let Some(head) = self.entries.front_mut() else {
            return false;
        };
        let headers = &mut head.headers;
        let bulk = match headers.key.protocol {
            protocol::TCP => headers.total_len > u32::from(headers.payload),
            protocol::UDP => true,
            _ => false,
        };
        // Of others, and of bare acknowledgements, the next one that has something to slow down.
        if !bulk {
            return false;
        }
        self.delay.has_told(now);
        let Ok(marked) = ecn::inner_traffic_class(headers.traffic_class, ecn::ECN) else {
            return true;
        };
        if let Some(packet) = self.bytes.get_mut(head.at..head.at + head.len) {
            forward::set_traffic_class(packet, headers, marked);
            headers.traffic_class = marked;
        }
        false
    }

    /// The queue has been emptied.
    #[inline]
    pub(super) fn has_emptied(&mut self, now: u64) {
        self.delay.is_short(now);
    }

    /// Takes the first `segments` of the head out: all of it if it has no more, or cannot be cut.
    pub(super) fn take(&mut self, segments: u64, send: impl FnOnce(Release<'_>)) {
        let Some(mut entry) = self.entries.pop_front() else {
            return;
        };
        let Some(packet) = self.bytes.get_mut(entry.at..entry.at + entry.len) else {
            return;
        };
        let whole = entry.tally;
        let mut release = Release {
            bytes: &[],
            headers: entry.headers,
            offload: entry.offload,
            to: entry.to,
            tally: whole,
        };
        if segments < whole.packets
            && entry.segment > 0
            && let Some((headers, offload)) =
                divide::front(packet, &entry.headers, &entry.offload, segments as usize)
        {
            (release.headers, release.offload) = (headers, offload);
            release.tally = Sum {
                packets: segments,
                bytes: segments * entry.segment,
            };
        }
        let sent = release.tally;
        let len = release.headers.total_len as usize;
        release.bytes = packet.get(..len).unwrap_or(packet);
        send(release);
        self.held.bytes = self.held.bytes.saturating_sub(sent.bytes);
        self.held.packets = self.held.packets.saturating_sub(sent.packets);
        if sent == whole {
            return;
        }
        let rest = divide::rest(packet, &entry.headers, &entry.offload, segments as usize);
        // `can_divide` has looked at all that `rest` needs: there is one.
        debug_assert!(rest.is_some());
        if let Some((from, headers, offload)) = rest {
            entry.at += from;
            entry.len -= from;
            (entry.headers, entry.offload) = (headers, offload);
            entry.tally = less(whole, sent);
            self.entries.push_front(entry);
        }
    }

    /// Changes how much may wait. What waits already stays, be it more than that.
    pub(super) fn set_bounds(&mut self, bounds: Bounds) {
        if bounds == self.bounds {
            return;
        }
        let mut old = std::mem::replace(self, Self::new(bounds));
        (self.turn, self.blocked, self.delay) = (old.turn, old.blocked, old.delay);
        if old.is_empty() {
            return;
        }
        let room = old.held.bytes as usize + bounds.bytes as usize + 2 * MAX_PACKET;
        self.bytes = vec![0; room].into_boxed_slice();
        self.entries = VecDeque::with_capacity(bounds.entries() + old.entries.len());
        self.held = old.held;
        for mut entry in old.entries.drain(..) {
            let to = self.tail;
            let from = old.bytes.get(entry.at..entry.at + entry.len);
            let place = self.bytes.get_mut(to..to + entry.len);
            if let (Some(from), Some(place)) = (from, place) {
                place.copy_from_slice(from);
            }
            entry.at = to;
            self.tail = to + entry.len;
            self.entries.push_back(entry);
        }
    }

    /// Room for what the bounds allow, for a packet that is laid down before it is cut to fit, and for
    /// what is lost where a packet does not fit at the end. Zeroed memory costs nothing until it is used.
    #[cold]
    fn allocate(&mut self) {
        let room = self.bounds.bytes as usize + 2 * MAX_PACKET;
        self.bytes = vec![0; room].into_boxed_slice();
        self.entries = VecDeque::with_capacity(self.bounds.entries() + 1);
    }

    /// Where `len` bytes fit in one piece.
    fn place(&mut self, len: usize) -> Option<usize> {
        let Some(head) = self.entries.front().map(|entry| entry.at) else {
            self.tail = 0;
            return (len <= self.bytes.len()).then_some(0);
        };
        if self.tail > head {
            if self.bytes.len() - self.tail >= len {
                return Some(self.tail);
            }
            // Never up to the head itself: a tail at the head means a ring that has come around.
            return (len < head).then_some(0);
        }
        (len < head - self.tail).then_some(self.tail)
    }
}

fn less(whole: Sum, part: Sum) -> Sum {
    Sum {
        packets: whole.packets.saturating_sub(part.packets),
        bytes: whole.bytes.saturating_sub(part.bytes),
    }
}
