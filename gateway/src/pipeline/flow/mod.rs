//! The flow table: holds a gateway to the SKU's flows and new flows per second. One for each worker, which
//! share the counts in [`FlowLimits`].
//!
//! 1. [`FlowTable::begin`], once a round: its clock. Every [`EPOCH`] the flow cache is told to forget what it
//!    has decided, so every flow that lives is looked up here at most once an epoch and direction
//! 2. [`FlowTable::admit`], when the cache does not know a packet's flow: a known flow is touched, a new one
//!    counted, or refused. What is refused is not remembered: the next packet asks again
//! 3. [`FlowTable::note`], for the packets of TCP that begin and end a flow
//! 4. [`FlowTable::sweep`], at the end of a round: some slots are looked at, all of them once an epoch; flows
//!    that have been silent for [`IDLE`], or [`CLOSING`] once they have ended, are forgotten
//!
//! A flow has one entry for both directions. Which gateways it counts for depends on where its packets come in
//! and go out: an ExpressRoute gateway counts it once, a VPN gateway once each way, as their limits are
//! published. So with several workers, where the two directions of a tunnel's flow may meet two workers, it is
//! counted no more often. A flow that moves to the other gateway is counted there even beyond the limit:
//! established flows are never refused.
//!
//! Not counted: flows of a gateway without limits, ICMP, fragments after the first, and whatever the gateway itself sends and takes.

mod limits;
mod table;
mod window;

pub use limits::{BURST, FlowLimits, GatewayFlows, Usage};
pub use window::Window;

use crate::pipeline::field::flag;
use limits::Charge;
use routing::decide::Verdict;
use routing::packet::{FlowKey, Fragment, Headers};
use routing::path::{Ingress, PathId, PathKind};
use routing::reason::DropReason;
use routing::snapshot::Snapshot;
use std::sync::Arc;
use std::time::{Duration, Instant};
use table::{Entry, Key, Table};

/// How long the flow cache answers for a flow before it is looked up again.
pub const EPOCH: Duration = Duration::from_secs(5);
/// How long a flow is silent until it is forgotten: Azure's idle timeout of TCP. At most two epochs longer.
pub const IDLE: Duration = Duration::from_mins(4);
/// The same for TCP that has been ended in every direction, or reset.
pub const CLOSING: Duration = Duration::from_secs(10);
/// Flows that are shown, the newest.
pub const NEWEST: usize = 256;

/// The unit of an entry's times, nanoseconds: 32 bits of them are 13 years.
const TICK: u64 = 100_000_000;
/// How often a worker that sleeps wakes to sweep, nanoseconds.
const SWEEP: u64 = 100_000_000;
/// Slots that are looked at in one round at most: 1 MB of memory.
const SWEEP_SLOTS: u64 = 16_384;

/// The TCP flags that [`FlowTable::note`] wants to see.
pub(super) const NOTED: u8 = flag::FIN | flag::SYN | flag::RST;

/// Sides of the gateways that a direction's packets pass: in and out.
const EXPRESSROUTE_IN: u8 = 1;
const EXPRESSROUTE_OUT: u8 = 2;
const VPN_IN: u8 = 4;
const VPN_OUT: u8 = 8;

/// Stands for the virtual network in an entry's places; no path has this number.
const VNET: u16 = u16::MAX;

/// One flow, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Its first packet's addresses and ports.
    pub key: FlowKey,
    /// Where that came in; `None`: from the virtual network.
    pub from: Option<PathId>,
    /// Where it went out; `None`: to the virtual network.
    pub to: Option<PathId>,
    /// How long it has been known.
    pub age: Duration,
    /// How long ago it was last looked up: up to [`EPOCH`] more than its silence.
    pub idle: Duration,
}

/// A moment for each gateway, nanoseconds since the epoch of the limits; 0: never.
#[derive(Clone, Copy, Debug, Default)]
struct Lenient {
    expressroute: u64,
    vpn: u64,
}

impl Lenient {
    fn both(until: u64) -> Self {
        Self {
            expressroute: until,
            vpn: until,
        }
    }

    fn of(self, kind: PathKind) -> u64 {
        match kind {
            PathKind::ExpressRoute => self.expressroute,
            PathKind::Vpn => self.vpn,
        }
    }

    fn set(&mut self, kind: PathKind, until: u64) {
        match kind {
            PathKind::ExpressRoute => self.expressroute = until,
            PathKind::Vpn => self.vpn = until,
        }
    }
}

/// The flows of one worker.
#[derive(Debug)]
pub struct FlowTable {
    limits: Arc<FlowLimits>,
    table: Table,
    /// The round's clock, nanoseconds since the epoch of the limits.
    now: u64,
    /// When the flow cache is told next.
    next_epoch: u64,
    /// Until when every flow of a gateway is let in: those that were there before it had limits, which were
    /// not counted.
    lenient_until: Lenient,
    swept: u64,
    /// The newest flows, a ring; and how many there have been.
    newest: Box<[Key]>,
    opened: usize,
}

impl FlowTable {
    /// An empty table in a round with this clock. `seed` is random and secret. Where packets were forwarded
    /// before, flows are taken for established for two epochs: they have not been counted.
    pub fn new(now: Instant, limits: Arc<FlowLimits>, seed: u64, packets_before: bool) -> Self {
        let now = limits.nanoseconds(now);
        let epoch = EPOCH.as_nanos() as u64;
        Self {
            table: Table::new(limits.most(), seed, limits.room()),
            now,
            next_epoch: now + epoch,
            lenient_until: if packets_before {
                Lenient::both(now + 2 * epoch)
            } else {
                Lenient::default()
            },
            swept: now,
            newest: vec![Key::NONE; NEWEST].into(),
            opened: 0,
            limits,
        }
    }

    /// Begins a round: its clock, and the limits in force now. True if the flow cache is to forget.
    #[inline]
    pub fn begin(&mut self, now: Instant, limits: &Arc<FlowLimits>) -> bool {
        self.now = self.limits.nanoseconds(now);
        if !Arc::ptr_eq(limits, &self.limits) {
            self.adopt(limits);
        }
        if self.now < self.next_epoch {
            return false;
        }
        self.next_epoch = self.now + EPOCH.as_nanos() as u64;
        true
    }

    #[cold]
    fn adopt(&mut self, limits: &Arc<FlowLimits>) {
        for kind in [PathKind::ExpressRoute, PathKind::Vpn] {
            if limits.holds(kind) && !self.limits.holds(kind) {
                // Its flows were let pass uncounted, so those that live are not known here.
                self.lenient_until
                    .set(kind, self.now + 2 * EPOCH.as_nanos() as u64);
            }
        }
        self.limits = Arc::clone(limits);
        self.table.grow(limits.most(), limits.room());
    }

    /// Ends the table, where nothing is limited any more: its memory is left to control.
    #[cold]
    pub fn put_away(self) {
        let Self { limits, table, .. } = self;
        table.into_rooms().for_each(|room| limits.put_away(room));
    }

    fn ticks(&self) -> u32 {
        (self.now / TICK) as u32
    }

    /// Whether a packet that was decided so may go: its flow is known, or there is room for it.
    ///
    /// # Errors
    /// [`DropReason::GatewayFlows`] or [`DropReason::GatewayFlowRate`].
    pub fn admit(
        &mut self,
        snapshot: &Snapshot,
        ingress: Ingress,
        headers: &Headers,
        verdict: Verdict,
    ) -> Result<(), DropReason> {
        let to = match (ingress, verdict) {
            (Ingress::Local, _) | (_, Verdict::Local | Verdict::Drop(_)) => return Ok(()),
            (_, Verdict::Vnet) => None,
            (_, Verdict::Path(path)) => Some(path),
        };
        if headers.key.is_icmp() || headers.fragment == Fragment::Later {
            return Ok(());
        }
        let from = match ingress {
            Ingress::Path(path) => Some(path),
            Ingress::Vnet | Ingress::Local => None,
        };
        let side = |path: Option<PathId>, expressroute, vpn| {
            let kind = path
                .and_then(|path| snapshot.path(path))
                .map(|path| path.kind);
            kind.map_or(0, |kind| match kind {
                PathKind::ExpressRoute => expressroute,
                PathKind::Vpn => vpn,
            })
        };
        let sides = side(from, EXPRESSROUTE_IN, VPN_IN) | side(to, EXPRESSROUTE_OUT, VPN_OUT);
        let number = |path: Option<PathId>| path.map_or(VNET, |path| path.0);
        let (key, direction) = Key::of(&headers.key);
        if let Some((place, mut entry)) = self.table.find(&key) {
            entry.touched = self.ticks();
            if usize::from(entry.opener) == direction {
                (entry.from, entry.to) = (number(from), number(to));
            }
            self.pass(&mut entry, direction, sides);
            self.table.set(place, &entry);
            return Ok(());
        }
        if !Charge::ALL
            .into_iter()
            .any(|charge| counts([sides, 0], charge) && self.limits.holds(charge.kind()))
        {
            return Ok(());
        }
        let mut entry = Entry {
            key,
            opened: self.ticks(),
            touched: self.ticks(),
            sides: [0; 2],
            ended: 0,
            opener: direction as u8,
            from: number(from),
            to: number(to),
        };
        if let Some(of) = entry.sides.get_mut(direction) {
            *of = sides;
        }
        self.open(&entry)
    }

    /// An established flow's packets pass these sides now.
    fn pass(&self, entry: &mut Entry, direction: usize, sides: u8) {
        let before = entry.sides;
        if let Some(of) = entry.sides.get_mut(direction) {
            *of = sides;
        }
        if entry.sides == before {
            return;
        }
        for charge in Charge::ALL {
            match (counts(before, charge), counts(entry.sides, charge)) {
                (false, true) => self.limits.take_over(charge),
                (true, false) => self.limits.give_back(charge),
                _ => {}
            }
        }
    }

    /// Takes a new flow in, or refuses it.
    fn open(&mut self, entry: &Entry) -> Result<(), DropReason> {
        let limits = &*self.limits;
        let lenient = |charge: Charge| self.now < self.lenient_until.of(charge.kind());
        let charges = || {
            Charge::ALL
                .into_iter()
                .filter(|&charge| counts(entry.sides, charge))
        };
        for (done, charge) in charges().enumerate() {
            if lenient(charge) {
                limits.take_over(charge);
                continue;
            }
            let has_room = limits.take(charge);
            if has_room && limits.take_time(charge.kind(), self.now) {
                continue;
            }
            let taken = done + usize::from(has_room);
            charges().take(taken).for_each(|c| limits.give_back(c));
            limits.refused(charge.kind(), has_room);
            return Err(if has_room {
                DropReason::GatewayFlowRate
            } else {
                DropReason::GatewayFlows
            });
        }
        if !self.table.insert(entry) {
            charges().for_each(|charge| limits.give_back(charge));
            if charges().any(lenient) {
                // More were established than the limit has room for: they go on uncounted until then.
                return Ok(());
            }
            charges().for_each(|charge| limits.refused(charge.kind(), false));
            return Err(DropReason::GatewayFlows);
        }
        for kind in [PathKind::ExpressRoute, PathKind::Vpn] {
            if charges().any(|charge| charge.kind() == kind) {
                limits.opened(kind);
            }
        }
        if let Some(slot) = self.newest.get_mut(self.opened % NEWEST) {
            *slot = entry.key;
        }
        self.opened = self.opened.wrapping_add(1);
        Ok(())
    }

    /// Sees a TCP packet with SYN, FIN or RST on its way out.
    #[inline(never)]
    pub fn note(&mut self, headers: &Headers) {
        let (key, direction) = Key::of(&headers.key);
        let Some((place, mut entry)) = self.table.find(&key) else {
            return;
        };
        let before = entry.ended;
        if headers.tcp_flags & flag::RST != 0 {
            entry.ended = 0b11;
        } else if headers.tcp_flags & flag::FIN != 0 {
            entry.ended |= 1 << direction;
        } else {
            // The same ports again.
            entry.ended = 0;
        }
        if entry.ended != before {
            entry.touched = self.ticks();
            self.table.set(place, &entry);
        }
    }

    /// Forgets flows that are over; to be called at the end of every round.
    #[inline]
    pub fn sweep(&mut self) {
        let elapsed = self.now.saturating_sub(self.swept);
        // A busy worker has a round every few microseconds.
        if elapsed < SWEEP / 16 {
            return;
        }
        self.sweep_slots(elapsed);
    }

    #[inline(never)]
    fn sweep_slots(&mut self, elapsed: u64) {
        self.swept = self.now;
        if self.table.len() == 0 {
            return;
        }
        let slots = self.table.slots() as u128 * u128::from(elapsed) / EPOCH.as_nanos();
        let slots = slots.min(u128::from(SWEEP_SLOTS)) as usize + 1;
        let (ticks, limits) = (self.ticks(), &self.limits);
        self.table.sweep(slots, |entry| {
            let over = is_over(entry, ticks);
            if over {
                let charges = Charge::ALL.into_iter();
                charges
                    .filter(|&charge| counts(entry.sides, charge))
                    .for_each(|charge| limits.give_back(charge));
            }
            over
        });
    }

    /// When [`FlowTable::sweep`] has something to do, if nothing else happens; `None` without flows.
    pub fn deadline(&self) -> Option<Instant> {
        (self.table.len() > 0).then(|| self.limits.instant(self.swept + SWEEP))
    }

    /// Flows in this table.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The newest flows that are still there, the newest first; at most [`NEWEST`].
    pub fn newest(&self) -> Vec<Flow> {
        let ring = self.newest.len();
        let all = (1..=ring.min(self.opened)).filter_map(|back| {
            let key = self.newest.get(self.opened.wrapping_sub(back) % ring)?;
            Some(self.table.find(key)?.1)
        });
        let mut flows: Vec<Flow> = Vec::new();
        for entry in all {
            let flow = self.shown(&entry);
            // One that came, went and came again stands in the ring twice.
            if !flows.iter().any(|known| known.key == flow.key) {
                flows.push(flow);
            }
        }
        flows
    }

    fn shown(&self, entry: &Entry) -> Flow {
        let since = |then: u32| {
            let ticks = u64::from(self.ticks().wrapping_sub(then));
            Duration::from_nanos(ticks * TICK)
        };
        let path = |number: u16| (number != VNET).then_some(PathId(number));
        Flow {
            key: entry.key.flow(usize::from(entry.opener)),
            from: path(entry.from),
            to: path(entry.to),
            age: since(entry.opened),
            idle: since(entry.touched),
        }
    }
}

/// Whether a flow that passes these sides, by direction, is counted as this.
fn counts(sides: [u8; 2], charge: Charge) -> bool {
    let [one, other] = sides;
    let of = match charge {
        Charge::ExpressRoute => EXPRESSROUTE_IN | EXPRESSROUTE_OUT,
        Charge::VpnIn => VPN_IN,
        Charge::VpnOut => VPN_OUT,
    };
    (one | other) & of != 0
}

/// Whether a flow has been silent for long enough. It was touched up to an epoch before its last packet.
fn is_over(entry: &Entry, ticks: u32) -> bool {
    let [one, other] = entry.sides.map(|sides| sides != 0);
    let seen = u8::from(one) | u8::from(other) << 1;
    let patience = if seen & !entry.ended == 0 {
        CLOSING
    } else {
        IDLE
    };
    let patience = (patience + EPOCH).as_nanos() as u64 / TICK;
    u64::from(ticks.wrapping_sub(entry.touched)) > patience
}

#[cfg(test)]
mod tests;
