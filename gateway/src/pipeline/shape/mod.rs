//! The shaper: holds packets to the rates of the gateway's SKU and of its tunnel, between the decision
//! and the way out. One for each worker; what they share is in [`RateLimits`].
//!
//! 1. [`Shaper::admit`]: a packet whose tokens are there, and that nobody waits before, goes on its way
//! 2. [`Shaper::wait`]: any other is laid into the queue of its narrowest limit and direction; what there
//!    is no room for is dropped for the limit that holds the queue up
//! 3. [`Shaper::drain`], at the end of a round: queues send in turn what tokens have come for. A
//!    super-packet is cut where they end: the front goes as a super-packet, the rest waits. A queue that stands has
//!    one packet marked or lost now and then (`queue_delay`)
//! 4. with nothing waiting, the tokens that the worker has left go back to the pool
//!
//! Both directions of a limit share its tokens and have a queue each, served in turn, so a download does
//! not push out what asks for it. A flow has one queue, so it keeps its order.

mod bounds;
mod bucket;
mod delay;
mod divide;
mod limits;
mod queue;

pub use bucket::BURST;
pub use limits::{Allotment, Limit, QUEUE, RateLimits, Rates, Scope};
pub use queue::Release;

use crate::device::offload::Offload;
use crate::pipeline::egress::Egress;
use crate::telemetry::ledger::{Ledger, Sum};
use bounds::MAX_PACKET;
use bucket::{Lease, Price};
use limits::{Class, Classes};
use queue::{Arrival, Queue};
use routing::packet::Headers;
use routing::path::Ingress;
use routing::reason::DropReason;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// Bytes that a queue sends before it is another's turn: the longest super-packet with a header for each
/// segment.
const TURN: u64 = 2 * MAX_PACKET as u64;
/// Bytes that all queues send in one round, as the worker's loop bounds what it reads.
const ROUND: u64 = 8 * MAX_PACKET as u64;

/// A worker's shares of one limit.
#[derive(Clone, Copy, Debug, Default)]
struct Leases {
    bits: Lease,
    packets: Lease,
    /// What a queue waits for here since it was last looked at: nobody passes it.
    lacking: Option<DropReason>,
    /// Whether something may have to go back.
    used: bool,
}

/// The shaper of one worker.
#[derive(Debug)]
pub struct Shaper {
    limits: Arc<RateLimits>,
    /// The round's clock, nanoseconds since the epoch of the limits.
    now: u64,
    leases: Box<[Leases]>,
    /// RateLimits whose shares have been used since all were given back.
    used: Vec<usize>,
    /// Two for each limit: towards the path, from it.
    queues: Box<[Queue]>,
    /// Queues with packets, in the order of their turns.
    waiting: VecDeque<usize>,
    /// When tokens will have come, nanoseconds since the epoch.
    deadline: Option<u64>,
}

/// How far a queue got.
enum Served {
    /// It is empty.
    Empty,
    /// Its turn is over.
    TurnOver,
    /// Its head lacks tokens.
    Blocked,
    /// The round is.
    RoundOver,
}

impl Shaper {
    /// A shaper for one worker, in a round with this clock.
    pub fn new(now: Instant, limits: Arc<RateLimits>) -> Self {
        let count = limits.classes.len();
        let bounds = |place: usize| limits.classes.get(place / 2).map(Class::bounds);
        let queues = (0..count * 2).map(|place| Queue::new(bounds(place).unwrap_or_default()));
        Self {
            now: limits.nanoseconds(now),
            leases: vec![Leases::default(); count].into_boxed_slice(),
            used: Vec::with_capacity(count),
            queues: queues.collect(),
            waiting: VecDeque::with_capacity(count * 2),
            deadline: None,
            limits,
        }
    }

    /// Begins a round: its clock, and the limits in force now. True if they are others that this shaper
    /// cannot go on with: then [`Shaper::release`] all and make a new one.
    #[inline]
    pub fn begin(&mut self, now: Instant, limits: Option<&Arc<RateLimits>>) -> bool {
        self.now = self.limits.nanoseconds(now);
        match limits {
            Some(limits) if Arc::ptr_eq(limits, &self.limits) => false,
            Some(limits) if limits.is_like(&self.limits) => {
                self.adopt(limits);
                false
            }
            _ => true,
        }
    }

    /// Other rates for the same limits. What waits stays, in its order.
    #[cold]
    fn adopt(&mut self, limits: &Arc<RateLimits>) {
        self.give_back();
        self.limits = Arc::clone(limits);
        for (place, queue) in self.queues.iter_mut().enumerate() {
            if let Some(class) = limits.classes.get(place / 2) {
                queue.set_bounds(class.bounds());
            }
        }
    }

    /// Whether a packet may go now: `None`, and it is paid for. Else it has to [`Shaper::wait`] in this
    /// allotment.
    #[inline]
    pub fn admit(&mut self, ingress: Ingress, to: Egress, tally: Sum) -> Option<Allotment> {
        let allotment = self.limits.allotment(ingress, to)?;
        let queue = self.queues.get_mut(allotment.queue)?;
        if !queue.is_empty() {
            return Some(allotment);
        }
        match pay(
            &self.limits,
            &mut self.leases,
            &mut self.used,
            self.now,
            allotment.classes,
            tally,
        ) {
            Ok(()) => None,
            Err(reason) => {
                queue.blocked = Some(reason);
                Some(allotment)
            }
        }
    }

    /// Lays a packet into its allotment's queue, given as its pieces in order, and books it as held. Without
    /// `headers` they are read from the packet. What there is no room for is dropped and booked so.
    pub fn wait<'p>(
        &mut self,
        allotment: Allotment,
        to: Egress,
        pieces: impl Iterator<Item = &'p [u8]> + Clone,
        (headers, offload, tally): (Option<&Headers>, &Offload, Sum),
        ledger: &Ledger,
    ) {
        let Some(queue) = self.queues.get_mut(allotment.queue) else {
            return;
        };
        let first = queue.is_empty();
        let arrival = Arrival {
            headers,
            offload,
            to,
            classes: allotment.classes,
            tally,
        };
        let lost = queue.push(pieces, &arrival);
        if first && !queue.is_empty() {
            queue.turn = TURN;
            self.waiting.push_back(allotment.queue);
        }
        ledger.hold(tally.packets.saturating_sub(lost.tally.packets));
        if lost.tally.packets > 0 {
            let full = queue.blocked.unwrap_or(DropReason::GatewayBandwidth);
            let reason = lost.reason.unwrap_or(full);
            ledger.dropped(reason, lost.tally.packets, lost.tally.bytes);
        }
    }

    /// Sends what tokens have come for; at the end of every round.
    #[inline]
    pub fn drain(&mut self, ledger: &Ledger, mut send: impl FnMut(Release<'_>)) {
        self.deadline = None;
        if !self.waiting.is_empty() {
            self.serve_all(ledger, &mut send);
        }
        // A worker with packets that wait keeps its shares: it is about to need them.
        if self.waiting.is_empty() {
            self.give_back();
        }
    }

    #[inline(never)]
    fn serve_all(&mut self, ledger: &Ledger, send: &mut impl FnMut(Release<'_>)) {
        for lease in &mut self.leases {
            lease.lacking = None;
        }
        let mut budget = ROUND;
        // Once every queue in a row is blocked, and so each is in its place again, nothing more can go.
        let mut blocked = 0;
        while let Some(&place) = self.waiting.front() {
            match self.serve(place, &mut budget, ledger, send) {
                Served::Empty => {
                    self.waiting.pop_front();
                    blocked = 0;
                }
                Served::TurnOver => {
                    self.waiting.rotate_left(1);
                    blocked = 0;
                }
                Served::Blocked => {
                    self.waiting.rotate_left(1);
                    blocked += 1;
                    if blocked >= self.waiting.len() {
                        return;
                    }
                }
                Served::RoundOver => {
                    self.deadline = Some(self.now);
                    return;
                }
            }
        }
    }

    /// Sends from one queue until something ends it.
    fn serve(
        &mut self,
        place: usize,
        budget: &mut u64,
        ledger: &Ledger,
        send: &mut impl FnMut(Release<'_>),
    ) -> Served {
        let Self {
            limits,
            now,
            leases,
            used,
            queues,
            deadline,
            ..
        } = self;
        let Some(queue) = queues.get_mut(place) else {
            return Served::Empty;
        };
        loop {
            if *budget == 0 && !queue.is_empty() {
                return Served::RoundOver;
            }
            if queue.is_to_lose(*now) {
                queue.take(1, |release| {
                    let Sum { packets, bytes } = release.tally;
                    ledger.release(packets);
                    ledger.dropped(DropReason::QueueDelay, packets, bytes);
                });
            }
            let Some(head) = queue.head() else {
                queue.has_emptied(*now);
                return Served::Empty;
            };
            if queue.turn == 0 {
                queue.turn = TURN;
                return Served::TurnOver;
            }
            let classes = head.classes;
            for place in classes.iter() {
                let (Some(class), Some(lease)) = (limits.classes.get(place), leases.get_mut(place))
                else {
                    continue;
                };
                note_use(lease, used, place);
                let wanted = Wanted::of(class, head.tally, head.segment, limits);
                if let Err((reason, ready)) = lease.reserve(class, limits, *now, &wanted) {
                    queue.blocked = Some(reason);
                    if let Some(ready) = ready {
                        let ready = ready.max(*now + 1);
                        *deadline = Some(deadline.map_or(ready, |at| at.min(ready)));
                    }
                    return Served::Blocked;
                }
            }
            let mut segments = head.tally.packets;
            for place in classes.iter() {
                if let (Some(class), Some(lease)) =
                    (limits.classes.get(place), leases.get_mut(place))
                {
                    let wanted = Wanted::of(class, head.tally, head.segment, limits);
                    segments = segments.min(lease.affordable(class, limits, *now, &wanted));
                }
            }
            let tally = if segments < head.tally.packets {
                Sum {
                    packets: segments,
                    bytes: segments * head.segment,
                }
            } else {
                head.tally
            };
            for place in classes.iter() {
                if let (Some(class), Some(lease)) =
                    (limits.classes.get(place), leases.get_mut(place))
                {
                    lease.spend(class, tally);
                }
            }
            *budget = budget.saturating_sub(tally.bytes);
            queue.turn = queue.turn.saturating_sub(tally.bytes);
            queue.take(segments, |release| {
                ledger.release(release.tally.packets);
                send(release);
            });
        }
    }

    /// Gives all shares back to their pools.
    #[inline]
    fn give_back(&mut self) {
        for place in self.used.drain(..) {
            let (class, leases) = (self.limits.classes.get(place), self.leases.get_mut(place));
            if let (Some(class), Some(leases)) = (class, leases) {
                leases.bits.give_back(class.bits_pool());
                leases.packets.give_back(class.packets_pool());
                leases.lacking = None;
                leases.used = false;
            }
        }
    }

    /// When [`Shaper::drain`] has something to send, if nothing else happens; `None` if nothing waits.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline.map(|at| self.limits.instant(at))
    }

    /// Hands out everything that waits, whatever the limits: they are gone, or have become others. At
    /// most what the queues hold goes out at once.
    pub fn release(&mut self, ledger: &Ledger, mut send: impl FnMut(Release<'_>)) {
        self.give_back();
        self.deadline = None;
        for place in self.waiting.drain(..) {
            let Some(queue) = self.queues.get_mut(place) else {
                continue;
            };
            while let Some(head) = queue.head() {
                queue.take(head.tally.packets, |release| {
                    ledger.release(release.tally.packets);
                    send(release);
                });
            }
        }
    }

    /// Drops everything that waits, before the worker ends.
    pub fn shut_down(&mut self, ledger: &Ledger) {
        self.release(ledger, |release| {
            let Sum { packets, bytes } = release.tally;
            ledger.dropped(DropReason::Shutdown, packets, bytes);
        });
    }
}

/// Pays for a whole packet at all its limits, or at none.
#[inline]
fn pay(
    limits: &RateLimits,
    leases: &mut [Leases],
    used: &mut Vec<usize>,
    now: u64,
    classes: Classes,
    tally: Sum,
) -> Result<(), DropReason> {
    for place in classes.iter() {
        let (Some(class), Some(lease)) = (limits.classes.get(place), leases.get_mut(place)) else {
            continue;
        };
        note_use(lease, used, place);
        if let Err(reason) = lease.has(class, limits, now, tally) {
            for place in classes.iter() {
                if let (Some(class), Some(lease)) =
                    (limits.classes.get(place), leases.get_mut(place))
                {
                    lease.trim(class, limits);
                }
            }
            return Err(reason);
        }
    }
    for place in classes.iter() {
        if let (Some(class), Some(lease)) = (limits.classes.get(place), leases.get_mut(place)) {
            lease.spend(class, tally);
        }
    }
    Ok(())
}

#[inline]
fn note_use(lease: &mut Leases, used: &mut Vec<usize>, place: usize) {
    if !lease.used {
        lease.used = true;
        // There is room for every limit once.
        used.push(place);
    }
}

/// What the head of a queue wants of one limit, picoseconds.
struct Wanted {
    /// For all of it.
    whole: [u64; 2],
    /// To begin with: all of it, or as much as a share of it where it can be cut, so that a super-packet
    /// leaves in a few large pieces.
    first: [u64; 2],
    /// For one segment.
    segment: [u64; 2],
}

impl Wanted {
    fn of(class: &Class, tally: Sum, segment: u64, limits: &RateLimits) -> Self {
        let whole = [class.byte.of(tally.bytes), class.packet.of(tally.packets)];
        if segment == 0 || tally.packets <= 1 {
            return Self {
                whole,
                first: whole,
                segment: whole,
            };
        }
        let [bits, packets] = whole;
        let [segment_bits, segment_packets] = [class.byte.of(segment), class.packet.of(1)];
        let share = limits.division.share * 1_000;
        Self {
            whole,
            first: [
                bits.min(share.max(segment_bits)),
                packets.min(share.max(segment_packets)),
            ],
            segment: [segment_bits, segment_packets],
        }
    }
}

impl Leases {
    /// Whether a packet can be paid now, or what is lacking.
    #[inline]
    fn has(
        &mut self,
        class: &Class,
        limits: &RateLimits,
        now: u64,
        tally: Sum,
    ) -> Result<(), DropReason> {
        if let Some(reason) = self.lacking {
            return Err(reason);
        }
        let (bits, packets) = (class.byte.of(tally.bytes), class.packet.of(tally.packets));
        let [for_bits, for_packets] = class.reasons();
        let division = limits.division;
        if !self.bits.has(class.bits_pool(), division, now, bits) {
            return Err(for_bits);
        }
        if !self
            .packets
            .has(class.packets_pool(), division, now, packets)
        {
            return Err(for_packets);
        }
        Ok(())
    }

    /// Sees to it that the head of a queue can begin; else says what is lacking, and when it will be
    /// there if this is the queue that it will come for.
    fn reserve(
        &mut self,
        class: &Class,
        limits: &RateLimits,
        now: u64,
        wanted: &Wanted,
    ) -> Result<(), (DropReason, Option<u64>)> {
        if let Some(reason) = self.lacking {
            return Err((reason, None));
        }
        let [bits, packets] = wanted.first;
        let [for_bits, for_packets] = class.reasons();
        let both = [
            (&mut self.bits, class.bits_pool(), bits, for_bits),
            (
                &mut self.packets,
                class.packets_pool(),
                packets,
                for_packets,
            ),
        ];
        for (lease, pool, need, reason) in both {
            if !lease.reserve(pool, limits.division, now, need) {
                self.lacking = Some(reason);
                return Err((reason, Some(lease.ready_at(need))));
            }
        }
        Ok(())
    }

    /// How many segments can be paid, all or some; what is asked for first has been reserved.
    fn affordable(&mut self, class: &Class, limits: &RateLimits, now: u64, wanted: &Wanted) -> u64 {
        let ([bits, packets], [segment_bits, segment_packets]) = (wanted.whole, wanted.segment);
        let both = [
            (&mut self.bits, class.bits_pool(), bits, segment_bits),
            (
                &mut self.packets,
                class.packets_pool(),
                packets,
                segment_packets,
            ),
        ];
        let mut affordable = u64::MAX;
        for (lease, pool, whole, segment) in both {
            if !lease.has(pool, limits.division, now, whole) {
                affordable = affordable.min(Price::affordable(lease.credit(), segment));
            }
        }
        affordable
    }

    /// Gives back what is beyond a share: the packet that it was taken for cannot go yet.
    #[cold]
    fn trim(&mut self, class: &Class, limits: &RateLimits) {
        self.bits.trim(class.bits_pool(), limits.division);
        self.packets.trim(class.packets_pool(), limits.division);
    }

    #[inline]
    fn spend(&mut self, class: &Class, tally: Sum) {
        self.bits.spend(class.byte.of(tally.bytes));
        self.packets.spend(class.packet.of(tally.packets));
    }
}
