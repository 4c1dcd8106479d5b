//! What holds packets up on their way out: those of one flow are merged for a device that takes super-packets, and what
//! is beyond the rates of the SKU waits.

use super::ports::Ports;
use crate::device::sink::Devices;
use crate::pipeline::coalesce::{Coalescer, SuperPacket};
use crate::pipeline::egress::Egress;
use crate::pipeline::shape::{RateLimits, Shaper};
use crate::telemetry::ledger::{Ledger, Sum};
use crate::worker::link::LinkPort;
use crate::worker::packet::Packet;
use crate::worker::vnet::VnetPort;
use crate::worker::ways::Way;
use crypto::tunnel::Endpoint;
use routing::path::{Ingress, PathId};
use std::sync::Arc;
use std::time::Instant;

/// The mergers of a worker's ports and its shaper. While packets are shaped, the merger of the virtual network has
/// packets of one path at a time: what it lets out is held to the rates of one.
pub(super) struct Outflow {
    /// Packets on their way into the virtual network.
    vnet: Coalescer,
    /// The path that they came in by.
    from: PathId,
    /// Packets on their way from the virtual network to each link.
    links: Vec<Coalescer>,
    /// Holds packets to the rates of the SKU; `None` without such.
    shaper: Option<Box<Shaper>>,
}

/// Where packets that do not wait any more are booked, and cut if they must be.
pub(super) type Counter<'a> = (&'a Ledger, &'a mut [u8]);

impl Outflow {
    /// For a virtual network whose device takes UDP super-packets or not, and so many links.
    pub(super) fn new(uso: bool, links: usize) -> Self {
        Self {
            vnet: Coalescer::new(uso),
            from: PathId(0),
            links: (0..links).map(|_| Coalescer::new(true)).collect(),
            shaper: None,
        }
    }

    /// The device of the virtual network takes no UDP super-packets, whatever was said before.
    pub(super) fn lack_uso(&mut self) {
        self.vnet = Coalescer::new(false);
    }

    /// Whether these limits are those that the shaper goes on with. If not, it is to be replaced.
    #[inline]
    pub(super) fn goes_on(&mut self, now: Instant, limits: Option<&Arc<RateLimits>>) -> bool {
        match &mut self.shaper {
            None => limits.is_none(),
            Some(shaper) => !shaper.begin(now, limits),
        }
    }

    /// Takes the shaper out, to let packets go that may come here again; to be put back.
    #[inline]
    pub(super) fn take_shaper(&mut self) -> Option<Box<Shaper>> {
        self.shaper.take()
    }

    /// Puts it back, or another.
    #[inline]
    pub(super) fn put_shaper(&mut self, shaper: Option<Box<Shaper>>) {
        self.shaper = shaper;
    }

    /// Whether packets are held to rates.
    #[inline]
    pub(super) fn is_shaped(&self) -> bool {
        self.shaper.is_some()
    }

    /// When tokens will have come for what waits.
    #[inline]
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.shaper.as_ref()?.deadline()
    }

    /// Drops what waits, before the worker ends.
    pub(super) fn shut_down(&mut self, ledger: &Ledger) {
        if let Some(shaper) = &mut self.shaper {
            shaper.shut_down(ledger);
        }
    }

    /// Whether a packet has to wait for its rate: then it has been laid where it waits.
    #[inline]
    pub(super) fn holds(
        &mut self,
        ingress: Ingress,
        to: Egress,
        packet: Packet<'_>,
        ledger: &Ledger,
    ) -> bool {
        let Some(shaper) = &mut self.shaper else {
            return false;
        };
        let tally = packet.tally();
        let Some(lane) = shaper.admit(ingress, to, tally) else {
            return false;
        };
        let what = (Some(packet.headers), packet.offload, tally);
        shaper.wait(lane, to, std::iter::once(packet.bytes), what, ledger);
        true
    }

    /// The merger of what goes from here to there, and the way of what it has merged; `None` where nothing
    /// is merged, since it could not go out so. A merger that is shaped has packets of one path at a time: others go
    /// out first.
    #[inline]
    pub(super) fn merger<'a, E: Endpoint, D: Devices>(
        &'a mut self,
        ports: &'a mut Ports<E, D>,
        (ledger, piece): Counter<'a>,
        now: Instant,
        (ingress, to): (Ingress, Egress),
        batch: &[u8],
    ) -> Option<(&'a mut Coalescer, MergedWay<'a, D>)> {
        let ((Ingress::Path(path), Egress::Vnet) | (Ingress::Vnet, Egress::Path(path))) =
            (ingress, to)
        else {
            return None;
        };
        if to == Egress::Vnet {
            // What it cannot take merged would only be laid down and cut again.
            if !ports.vnet.offload {
                return None;
            }
            if self.from != path && self.shaper.is_some() {
                self.write(ports, (ledger, &mut *piece), now, batch);
                self.from = path;
            }
            let way = MergedWay::<D> {
                target: Target::Vnet(&ports.vnet),
                ledger,
                piece,
                shaper: self.shaper.as_deref_mut(),
                path,
            };
            return Some((&mut self.vnet, way));
        }
        let Way::Link(index) = ports.ways.of(path) else {
            return None;
        };
        let (link, merge) = (ports.links.get_mut(index)?, self.links.get_mut(index)?);
        if !link.merges() {
            return None;
        }
        let way = MergedWay::<D> {
            target: Target::Link(link, now),
            ledger,
            piece,
            shaper: self.shaper.as_deref_mut(),
            path,
        };
        Some((merge, way))
    }

    /// Writes everything of `batch` that is still being merged.
    #[inline]
    pub(super) fn write<E: Endpoint, D: Devices>(
        &mut self,
        ports: &mut Ports<E, D>,
        (ledger, piece): Counter<'_>,
        now: Instant,
        batch: &[u8],
    ) {
        let mut way = MergedWay::<D> {
            target: Target::Vnet(&ports.vnet),
            ledger,
            piece: &mut *piece,
            shaper: self.shaper.as_deref_mut(),
            path: self.from,
        };
        self.vnet.flush(batch, &mut |merged| way.send(&merged));
        for (link, merge) in ports.links.iter_mut().zip(&mut self.links) {
            if !merge.is_empty() {
                let mut way = MergedWay::<D> {
                    path: link.path(),
                    target: Target::Link(link, now),
                    ledger,
                    piece: &mut *piece,
                    shaper: self.shaper.as_deref_mut(),
                };
                merge.flush(batch, &mut |merged| way.send(&merged));
            }
        }
    }
}

/// Where merged packets go.
enum Target<'a, D: Devices> {
    Vnet(&'a VnetPort<D::Vnet>),
    Link(&'a mut LinkPort<D::Link>, Instant),
}

/// The way of merged packets.
pub(super) struct MergedWay<'a, D: Devices> {
    target: Target<'a, D>,
    pub(super) ledger: &'a Ledger,
    piece: &'a mut [u8],
    shaper: Option<&'a mut Shaper>,
    /// The path that they came in by, or go out by.
    path: PathId,
}

impl<D: Devices> MergedWay<'_, D> {
    #[inline]
    pub(super) fn send(&mut self, merged: &SuperPacket<'_>) {
        if let Some(shaper) = &mut self.shaper {
            let tally = Sum {
                packets: merged.segments as u64,
                bytes: merged.wire_len() as u64,
            };
            let (from, to) = match self.target {
                Target::Vnet(_) => (Ingress::Path(self.path), Egress::Vnet),
                Target::Link(..) => (Ingress::Vnet, Egress::Path(self.path)),
            };
            if let Some(lane) = shaper.admit(from, to, tally) {
                let what = (None, &merged.offload, tally);
                shaper.wait(lane, to, merged.slices(), what, self.ledger);
                return;
            }
        }
        match &mut self.target {
            Target::Vnet(vnet) => vnet.write_merged(merged, self.ledger, self.piece),
            Target::Link(link, now) => link.send_merged(*now, merged),
        }
    }
}
