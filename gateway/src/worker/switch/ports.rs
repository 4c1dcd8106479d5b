//! The ports of a worker: what packets come in by and go out of.

use crate::device::sink::{Devices, Kernel, TrainSink};
use crate::worker::lane::Lanes;
use crate::worker::link::LinkPort;
use crate::worker::private::Private;
use crate::worker::tunnels::Tunnels;
use crate::worker::vnet::VnetPort;
use crate::worker::ways::Ways;
use crypto::tunnel::Endpoint;
use routing::decide::flow_hash;
use routing::packet::Headers;
use routing::path::PathId;
use std::time::Instant;

/// All ports of one worker, and what leads to them.
pub struct Ports<E: Endpoint, D: Devices = Kernel> {
    /// The virtual network.
    pub vnet: VnetPort<D::Vnet>,
    /// ExpressRoute links.
    pub links: Vec<LinkPort<D::Link>>,
    /// Tunnels, by UDP port.
    pub tunnels: TunnelPorts<E, D::Underlay>,
    /// Tunnels over circuits, by circuit.
    pub privates: Vec<Private<E>>,
    /// What each path is.
    pub ways: Ways,
}

/// The tunnels of a worker's UDP ports, by their places: the base port, which is always there, then those of its lanes
/// above 0 in the order of the ports.
pub struct TunnelPorts<E: Endpoint, U> {
    base: Tunnels<E, U>,
    lanes: Vec<Tunnels<E, U>>,
}

impl<E: Endpoint, U> From<Tunnels<E, U>> for TunnelPorts<E, U> {
    /// The base port alone.
    fn from(base: Tunnels<E, U>) -> Self {
        Self::new(base, Vec::new())
    }
}

impl<E: Endpoint, U> TunnelPorts<E, U> {
    /// The base port and those of the lanes above 0.
    pub fn new(base: Tunnels<E, U>, lanes: Vec<Tunnels<E, U>>) -> Self {
        Self { base, lanes }
    }

    /// The tunnels of the base port.
    pub fn base(&self) -> &Tunnels<E, U> {
        &self.base
    }

    /// The same.
    #[inline]
    pub fn base_mut(&mut self) -> &mut Tunnels<E, U> {
        &mut self.base
    }

    /// The tunnels of the port at this place.
    #[inline]
    pub fn at(&mut self, place: usize) -> Option<&mut Tunnels<E, U>> {
        match place.checked_sub(1) {
            None => Some(&mut self.base),
            Some(lane) => self.lanes.get_mut(lane),
        }
    }

    /// The tunnels of every port, in the order of their places.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Tunnels<E, U>> {
        std::iter::once(&mut self.base).chain(&mut self.lanes)
    }
}

impl<E: Endpoint, U: TrainSink> TunnelPorts<E, U> {
    /// The tunnels of the lane that a packet takes; `None`: its lane carries nothing now, and lane 0 is
    /// another worker's.
    #[inline]
    pub(super) fn lane(
        &mut self,
        now: Instant,
        path: PathId,
        lanes: Lanes,
        headers: &Headers,
    ) -> Option<&mut Tunnels<E, U>> {
        let place = lanes.place(|| flow_hash(headers));
        if place == 0 || self.lanes.get_mut(place - 1)?.carries(now, path) {
            return self.at(place);
        }
        (lanes.first == 0).then_some(&mut self.base)
    }
}
