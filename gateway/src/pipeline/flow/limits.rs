//! The limits of flows in force, and what of them is used: what control makes of SKUs, and workers read. A
//! reload replaces the limits; the counts stay, so flows that go on are counted on.

use super::table::{self, Room};
use crate::pipeline::bucket::Shared;
use crossbeam::queue::SegQueue;
use crossbeam::utils::CachePadded;
use routing::path::PathKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How much of a second's new flows may come at once after a pause.
pub const BURST: Duration = Duration::from_millis(100);

/// Limits of one gateway; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GatewayFlows {
    /// Flows at a time: Azure's limit of ActiveFlows.
    pub flows: Option<u64>,
    /// New flows per second: Azure's limit of MaxFlowsCreationRate.
    pub flows_per_second: Option<u64>,
}

impl GatewayFlows {
    fn is_unlimited(&self) -> bool {
        self.flows.is_none() && self.flows_per_second.is_none()
    }
}

fn most(expressroute: GatewayFlows, vpn: GatewayFlows) -> usize {
    let flows = |limits: GatewayFlows| limits.flows.unwrap_or(0) as usize;
    flows(expressroute).saturating_add(flows(vpn))
}

/// What a gateway uses of its limits, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Flows now.
    pub flows: u64,
    /// New flows since the start.
    pub opened: u64,
    /// Packets of flows that there was no room for.
    pub refused_flows: u64,
    /// Packets of flows that came too fast.
    pub refused_rate: u64,
}

/// What one gateway uses, counted by all workers.
#[derive(Debug, Default)]
pub(super) struct Count {
    /// By [`Charge`]: an ExpressRoute gateway's flows in the first, a VPN gateway's each way.
    flows: [CachePadded<AtomicU64>; 2],
    /// The time for new flows.
    time: Shared,
    opened: AtomicU64,
    refused_flows: AtomicU64,
    refused_rate: AtomicU64,
}

/// What a flow is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charge {
    /// A flow of the ExpressRoute gateway, whichever way its packets go.
    ExpressRoute,
    /// A flow that comes in through a tunnel: the limit is one each way.
    VpnIn,
    /// A flow that goes out through a tunnel.
    VpnOut,
}

impl Charge {
    pub(super) const ALL: [Self; 3] = [Self::ExpressRoute, Self::VpnIn, Self::VpnOut];

    pub(super) fn kind(self) -> PathKind {
        match self {
            Self::ExpressRoute => PathKind::ExpressRoute,
            Self::VpnIn | Self::VpnOut => PathKind::Vpn,
        }
    }

    fn place(self) -> usize {
        usize::from(self == Self::VpnOut)
    }
}

/// The limits of both gateways and the counts that workers share.
#[derive(Debug)]
pub struct FlowLimits {
    epoch: Instant,
    expressroute: (GatewayFlows, Arc<Count>),
    vpn: (GatewayFlows, Arc<Count>),
    /// Slots of each worker's table under these limits, and how many of them come with these.
    slots: usize,
    growth: usize,
    /// What workers take for that: memory that has been touched.
    rooms: SegQueue<Room>,
    /// What they have no use for any more. It goes with the limits, which control lets go of last: to give back a
    /// hundred megabytes takes a worker longer than its queues last.
    retired: SegQueue<Room>,
}

impl FlowLimits {
    /// These limits, with `now` as time zero of what is counted; `None` if there are none. `old` are those in force
    /// until now, whose time zero stays.
    pub fn new(
        expressroute: GatewayFlows,
        vpn: GatewayFlows,
        now: Instant,
        old: Option<&Arc<Self>>,
    ) -> Option<Arc<Self>> {
        if expressroute.is_unlimited() && vpn.is_unlimited() {
            return None;
        }
        let same = |old: &&Arc<Self>| (old.expressroute.0, old.vpn.0) == (expressroute, vpn);
        // The same limits are the same value: workers see nothing to adopt.
        if let Some(old) = old.filter(same) {
            return Some(Arc::clone(old));
        }
        let (epoch, counts, slots) = match old {
            None => (now, Default::default(), 0),
            Some(old) => {
                let counts = (Arc::clone(&old.expressroute.1), Arc::clone(&old.vpn.1));
                (old.epoch, counts, old.slots)
            }
        };
        let growth = table::growth(slots, most(expressroute, vpn));
        Some(Arc::new(Self {
            epoch,
            expressroute: (expressroute, counts.0),
            vpn: (vpn, counts.1),
            slots: slots + growth,
            growth,
            rooms: SegQueue::new(),
            retired: SegQueue::new(),
        }))
    }

    /// Makes the memory of so many workers' tables, before the limits are in force: a worker that had to make it
    /// itself would keep its packets waiting. To be called once.
    #[must_use]
    pub fn prepared(self: Arc<Self>, workers: usize) -> Arc<Self> {
        if self.growth > 0 && self.rooms.is_empty() {
            for _ in 0..workers {
                self.rooms.push(table::room(self.growth));
            }
        }
        self
    }

    /// The room that has been prepared for one worker.
    pub(super) fn room(&self) -> Option<Room> {
        self.rooms.pop()
    }

    /// Takes the memory of a table that is not needed any more.
    pub(super) fn put_away(&self, room: Room) {
        self.retired.push(room);
    }

    fn of(&self, kind: PathKind) -> &(GatewayFlows, Arc<Count>) {
        match kind {
            PathKind::ExpressRoute => &self.expressroute,
            PathKind::Vpn => &self.vpn,
        }
    }

    /// What a gateway is held to.
    pub fn limits(&self, kind: PathKind) -> GatewayFlows {
        self.of(kind).0
    }

    /// Whether flows of this gateway are held to anything.
    pub(super) fn holds(&self, kind: PathKind) -> bool {
        !self.of(kind).0.is_unlimited()
    }

    /// Flows that the limits allow altogether.
    pub(super) fn most(&self) -> usize {
        most(self.expressroute.0, self.vpn.0)
    }

    /// What a gateway uses now.
    pub fn usage(&self, kind: PathKind) -> Usage {
        let count = &self.of(kind).1;
        let [a, b] = &count.flows;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Usage {
            flows: of(a).max(of(b)),
            opened: of(&count.opened),
            refused_flows: of(&count.refused_flows),
            refused_rate: of(&count.refused_rate),
        }
    }

    #[cfg(test)]
    pub(crate) fn refuse_for_tests(&self, kind: PathKind) {
        self.refused(kind, false);
    }

    #[cfg(test)]
    pub(super) fn epoch_for_tests(&self) -> Instant {
        self.epoch
    }

    /// Flows of both gateways now.
    pub fn flows(&self) -> u64 {
        self.usage(PathKind::ExpressRoute).flows + self.usage(PathKind::Vpn).flows
    }

    /// Nanoseconds since the epoch that all workers count from.
    pub(super) fn nanoseconds(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    /// The moment of so many nanoseconds since the epoch.
    pub(super) fn instant(&self, nanoseconds: u64) -> Instant {
        self.epoch + Duration::from_nanos(nanoseconds)
    }

    // Nothing else is published with these words: they need no order with other memory.

    /// Counts one flow more if the limit allows it.
    pub(super) fn take(&self, charge: Charge) -> bool {
        let (limits, count) = self.of(charge.kind());
        let Some(word) = count.flows.get(charge.place()) else {
            return false;
        };
        let limit = limits.flows.unwrap_or(u64::MAX);
        let more = |flows: u64| (flows < limit).then_some(flows + 1);
        word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    /// Counts one flow more, also beyond the limit: it was there before, at the other gateway.
    pub(super) fn take_over(&self, charge: Charge) {
        if let Some(word) = self.of(charge.kind()).1.flows.get(charge.place()) {
            word.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts one flow less.
    pub(super) fn give_back(&self, charge: Charge) {
        if let Some(word) = self.of(charge.kind()).1.flows.get(charge.place()) {
            word.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes the time of one new flow, if it has come.
    pub(super) fn take_time(&self, kind: PathKind, now: u64) -> bool {
        let (limits, count) = self.of(kind);
        let Some(rate) = limits.flows_per_second else {
            return true;
        };
        let price = 1_000_000_000_u64.div_ceil(rate.max(1));
        count.time.take(now, BURST.as_nanos() as u64, price)
    }

    /// Books a new flow of this gateway.
    pub(super) fn opened(&self, kind: PathKind) {
        self.of(kind).1.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// Books a packet whose flow was refused for want of room, or of time.
    pub(super) fn refused(&self, kind: PathKind, for_rate: bool) {
        let count = &self.of(kind).1;
        let word = if for_rate {
            &count.refused_rate
        } else {
            &count.refused_flows
        };
        word.fetch_add(1, Ordering::Relaxed);
    }
}
