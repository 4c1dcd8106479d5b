//! The paths of a gateway: where each stands in the configuration.

use crate::config::schema::{Config, Link, Probe, Site};
use routing::path::{PathId, PathKind};
use routing::rib::OwnerId;

/// Which entry of the configuration a path comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A link of an ExpressRoute circuit.
    Link {
        /// Place of the circuit in `expressroute.circuits`.
        circuit: usize,
        /// Place of the link in the circuit's `links`.
        link: usize,
    },
    /// The tunnel to a site.
    Site {
        /// Place of the site in `vpn.sites`.
        site: usize,
    },
    /// The tunnels of all point-to-site clients: which one is told by the address.
    PointToSite,
    /// A site or pool that a reload has taken away. It keeps its place, so that the others keep theirs, and
    /// gets it back if its name comes back.
    Gone,
}

/// A path of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPlan {
    /// Its index: the same as its place in [`Plan::paths`](crate::plan::Plan::paths).
    pub id: PathId,
    /// `circuit/link`, the site's name, or `point-to-site`. It stays the same across a reload, where `id` may not.
    pub name: String,
    /// What kind of way out it is.
    pub kind: PathKind,
    /// The circuit or site that it belongs to.
    pub owner: OwnerId,
    /// Where it stands in the configuration.
    pub origin: Origin,
    /// The circuit that carries it, where one carries a tunnel.
    pub over: Option<OwnerId>,
}

impl PathPlan {
    /// The link that it is, with the circuit's name and probe.
    pub(crate) fn link<'a>(
        &self,
        config: &'a Config,
    ) -> Option<(&'a str, &'a Link, &'a Option<Probe>)> {
        match self.origin {
            Origin::Link { circuit, link } => {
                let circuit = config.circuits().get(circuit)?;
                Some((&circuit.name, circuit.links.get(link)?, &circuit.probe))
            }
            Origin::Site { .. } | Origin::PointToSite | Origin::Gone => None,
        }
    }

    /// The site that its tunnel leads to.
    pub(crate) fn site<'a>(&self, config: &'a Config) -> Option<&'a Site> {
        match self.origin {
            Origin::Site { site } => config.sites().get(site),
            Origin::Link { .. } | Origin::PointToSite | Origin::Gone => None,
        }
    }
}
