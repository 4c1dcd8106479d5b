//! The limits in force: what control makes of SKUs, and workers read. A reload replaces them as a whole;
//! the pools of a limit that stays are kept, so that a reload is no second burst.

use super::bounds::{Bounds, MAX_PACKET};
use super::bucket::{Division, Pool, Price};
use crate::pipeline::egress::Egress;
use routing::path::{Ingress, PathId};
use routing::reason::DropReason;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a packet waits at most for its own limit: what a queue holds at the limit's rate.
pub const QUEUE: Duration = Duration::from_millis(5);
/// What a queue holds at least, bytes: two of the longest super-packets, of which 100 Mbps take 10 ms.
const QUEUE_BYTES: u64 = 2 * MAX_PACKET as u64;
/// What a queue holds at least, packets: two super-packets of 536 bytes a segment, RFC 9293's smallest.
const QUEUE_PACKETS: u64 = 256;

/// Rates of a limit; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Bits of IP packets per second.
    pub bits_per_second: Option<u64>,
    /// Packets per second, as the wire carries them.
    pub packets_per_second: Option<u64>,
}

impl Rates {
    /// Whether there is nothing to hold packets to.
    pub fn is_unlimited(&self) -> bool {
        self.bits_per_second.is_none() && self.packets_per_second.is_none()
    }

    fn bounds(&self) -> Bounds {
        let in_queue = |rate: u64| (u128::from(rate) * QUEUE.as_millis() / 1_000) as u64;
        let bytes = self.bits_per_second.map(|bits| in_queue(bits / 8));
        let packets = self.packets_per_second.map(in_queue);
        let bytes = bytes.unwrap_or(0).max(QUEUE_BYTES);
        Bounds {
            bytes,
            packets: packets.map_or(bytes, |packets| packets.max(QUEUE_PACKETS)),
        }
    }
}

/// What a limit is of, which names the drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A gateway: all its paths together.
    Gateway,
    /// One tunnel.
    Tunnel,
}

/// One limit, as control describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// A name that stays the same across reloads and that no other limit has.
    pub name: String,
    /// What it is of.
    pub scope: Scope,
    /// Its rates, of both directions together.
    pub rates: Rates,
}

/// A limit with its buckets.
#[derive(Debug)]
pub(super) struct Class {
    limit: Limit,
    pools: Arc<[Pool; 2]>,
    pub(super) byte: Price,
    pub(super) packet: Price,
}

impl Class {
    pub(super) fn bits_pool(&self) -> &Pool {
        let [bits, _] = &*self.pools;
        bits
    }

    pub(super) fn packets_pool(&self) -> &Pool {
        let [_, packets] = &*self.pools;
        packets
    }

    /// The reasons of drops for want of bits and of packets.
    pub(super) fn reasons(&self) -> [DropReason; 2] {
        match self.limit.scope {
            Scope::Gateway => [DropReason::GatewayBandwidth, DropReason::GatewayPacketRate],
            Scope::Tunnel => [DropReason::TunnelBandwidth, DropReason::TunnelPacketRate],
        }
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.limit.rates.bounds()
    }
}

/// RateLimits of one packet: at most two gateways and two tunnels.
pub(super) const MOST: usize = 4;

/// The limits that a packet is held to, by their places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Classes {
    count: u16,
    places: [u16; MOST],
}

impl Classes {
    pub(super) fn iter(self) -> impl Iterator<Item = usize> + Clone {
        let places = self.places.into_iter().take(usize::from(self.count));
        places.map(usize::from)
    }

    fn add(&mut self, place: usize) {
        if self.iter().all(|known| known != place)
            && let Some(slot) = self.places.get_mut(usize::from(self.count))
        {
            *slot = place as u16;
            self.count += 1;
        }
    }
}

/// Where a packet is held to its limits, and where it waits for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allotment {
    pub(super) classes: Classes,
    /// The queue: of the narrowest limit, each direction its own.
    pub(super) queue: usize,
}

/// All limits of a gateway.
#[derive(Debug)]
pub struct RateLimits {
    epoch: Instant,
    workers: usize,
    pub(super) division: Division,
    pub(super) classes: Box<[Class]>,
    /// By path.
    allotments: Box<[Option<Allotment>]>,
}

impl RateLimits {
    /// RateLimits with these rates, shared by `workers`. `paths` has for each path the places in `limits` of
    /// those that it is held to, the widest first: its gateway, its tunnel. Unlimited ones are left out.
    /// `None` if nothing is limited. `old` are those in force until now.
    pub fn new(
        workers: usize,
        limits: &[Limit],
        paths: &[Vec<usize>],
        now: Instant,
        old: Option<&Arc<Self>>,
    ) -> Option<Arc<Self>> {
        let mut classes = Vec::new();
        let mut places = Vec::new();
        for limit in limits {
            let limited = !limit.rates.is_unlimited();
            places.push(limited.then_some(classes.len()));
            if limited {
                classes.push(Class::new(limit, old.map(|old| &**old)));
            }
        }
        if classes.is_empty() {
            return None;
        }
        let allotment = |of_path: &Vec<usize>| {
            let mut allotment = Allotment {
                classes: Classes::default(),
                queue: 0,
            };
            for place in of_path.iter().filter_map(|&p| places.get(p).copied()?) {
                allotment.classes.add(place);
                allotment.queue = place * 2;
            }
            (allotment.classes.count > 0).then_some(allotment)
        };
        let new = Self {
            epoch: old.map_or(now, |old| old.epoch),
            workers,
            division: Division::among(workers),
            allotments: paths.iter().map(allotment).collect(),
            classes: classes.into_boxed_slice(),
        };
        // The same limits are the same value: workers see nothing to adopt.
        match old {
            Some(old) if old.is_like(&new) && old.has_rates_of(&new) => Some(Arc::clone(old)),
            _ => Some(Arc::new(new)),
        }
    }

    /// Whether allotments and queues of the two are the same, whatever the rates.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let names = |limits: &Self| -> Vec<String> {
            let classes = limits.classes.iter();
            classes.map(|class| class.limit.name.clone()).collect()
        };
        self.workers == other.workers
            && self.allotments == other.allotments
            && names(self) == names(other)
    }

    fn has_rates_of(&self, other: &Self) -> bool {
        let pairs = self.classes.iter().zip(&other.classes);
        self.classes.len() == other.classes.len()
            && pairs.into_iter().all(|(a, b)| a.limit == b.limit)
    }

    /// Nanoseconds since the epoch that all workers count from.
    pub(super) fn nanoseconds(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    /// The moment of so many nanoseconds since the epoch.
    pub(super) fn instant(&self, nanoseconds: u64) -> Instant {
        self.epoch + Duration::from_nanos(nanoseconds)
    }

    /// Where a packet is held to limits; `None`: nowhere. What the gateway itself sends and takes is
    /// never held up: handshakes, probes, ICMP errors keep the paths alive.
    #[inline]
    pub(super) fn allotment(&self, ingress: Ingress, to: Egress) -> Option<Allotment> {
        match (ingress, to) {
            (Ingress::Vnet, Egress::Path(path)) => self.of_path(path),
            (Ingress::Path(path), Egress::Vnet) => self.of_path(path).map(|allotment| Allotment {
                queue: allotment.queue + 1,
                ..allotment
            }),
            (Ingress::Path(from), Egress::Path(to)) => self.transit(from, to),
            (Ingress::Vnet, Egress::Vnet) | (Ingress::Local, _) | (_, Egress::Local) => None,
        }
    }

    #[inline]
    fn of_path(&self, path: PathId) -> Option<Allotment> {
        self.allotments.get(usize::from(path.0)).copied().flatten()
    }

    /// From branch to branch: the limits of both paths, each once; it waits with what came in by the first.
    fn transit(&self, from: PathId, to: PathId) -> Option<Allotment> {
        let (from, to) = (self.of_path(from), self.of_path(to));
        let (Some(mut allotment), Some(other)) = (from, to) else {
            return from.or(to).map(|allotment| Allotment {
                queue: allotment.queue + 1,
                ..allotment
            });
        };
        other
            .classes
            .iter()
            .for_each(|place| allotment.classes.add(place));
        allotment.queue += 1;
        Some(allotment)
    }
}

impl Class {
    fn new(limit: &Limit, old: Option<&RateLimits>) -> Self {
        let same = old.and_then(|old| {
            let mut classes = old.classes.iter();
            classes.find(|class| class.limit.name == limit.name)
        });
        Self {
            limit: limit.clone(),
            pools: same.map_or_else(Arc::default, |class| Arc::clone(&class.pools)),
            byte: Price::per_second(limit.rates.bits_per_second, 8),
            packet: Price::per_second(limit.rates.packets_per_second, 1),
        }
    }
}
