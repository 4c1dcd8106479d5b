//! What workers read, out of a plan: everything that a packet's way depends on.

use crate::config::read::DEFAULT_TUNNEL_MTU;
use crate::config::schema::Config;
use crate::pipeline::flow::FlowLimits;
use crate::pipeline::fragment::FragmentPolicy;
use crate::pipeline::process::{Carried, Forwarding, Side};
use crate::pipeline::shape;
use crate::plan::{Origin, PathPlan, Plan};
use crate::telemetry::hits::Hits;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;

/// MTU of a link whose interface is not there to be asked: ExpressRoute's
/// (<https://learn.microsoft.com/azure/expressroute/expressroute-faqs>).
const LINK_MTU: u16 = 1_500;

/// What the SKUs let through: rates, then flows; `None` where nothing is limited.
pub(crate) type SkuLimits = (Option<Arc<shape::RateLimits>>, Option<Arc<FlowLimits>>);

/// The forwarding state with links as wide as `link_mtu` says, bytes of an IP packet; what it does not know is as wide
/// as ExpressRoute is.
pub(crate) fn forwarding(
    config: &Config,
    plan: &Plan,
    link_mtu: impl Fn(&PathPlan) -> Option<u16>,
    (limits, flows): SkuLimits,
    hits: Hits,
) -> Forwarding {
    let path = |path: &PathPlan| -> Side {
        let Some((_, link, _)) = path.link(config) else {
            return side(tunnel_mtu(config, path), FragmentPolicy::Forward, &[]);
        };
        let circuit = match path.origin {
            Origin::Link { circuit, .. } => config.circuits().get(circuit),
            Origin::Site { .. } | Origin::PointToSite | Origin::Gone => None,
        };
        let fragments = circuit.map_or(FragmentPolicy::Drop, |circuit| circuit.fragments);
        let mtu = link_mtu(path).unwrap_or(LINK_MTU);
        side(mtu, fragments, &link.address)
    };
    let vnet = &config.vnet;
    let forwarding = Forwarding {
        snapshot: Arc::clone(&plan.snapshot),
        vnet: side(vnet.mtu, FragmentPolicy::Forward, &vnet.address),
        paths: plan.paths.iter().map(path).collect(),
        carried: carried(config, plan),
        limits,
        flows,
        hits,
    };
    forwarding.fit_carried();
    forwarding
}

/// The forwarding state of a configuration without its devices, with nothing held to a rate: what replay and tests put
/// packets through, as one worker.
pub fn offline(config: &Config, plan: &Plan) -> Forwarding {
    let hits = Hits::new(1, config.policy.len());
    forwarding(config, plan, |_| None, (None, None), hits)
}

fn side(mtu: u16, fragments: FragmentPolicy, addresses: &[IpNet]) -> Side {
    let v4 = addresses.iter().find_map(|net| match net.addr() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    let v6 = addresses.iter().find_map(|net| match net.addr() {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    });
    Side {
        mtu: AtomicU16::new(mtu),
        fragments,
        v4,
        v6,
    }
}

/// The tunnels over circuits, with the links of those.
fn carried(config: &Config, plan: &Plan) -> Box<[Carried]> {
    let own_v6 = config.vnet.address.iter().any(|own| own.addr().is_ipv6());
    let carried = plan.live().filter_map(|path| {
        let over = path.over?;
        let links = plan.live().filter(|link| {
            let owner = plan.snapshot.path(link.id).map(|known| known.owner);
            matches!(link.origin, Origin::Link { .. }) && owner == Some(over)
        });
        // Who only calls may call by either family.
        let endpoint = path.site(config)?.endpoint;
        let v6 = endpoint.map_or(own_v6, |to| to.is_ipv6());
        Some(Carried {
            path: path.id,
            links: links.map(|link| link.id).collect(),
            mtu: tunnel_mtu(config, path),
            overhead: if v6 { 80 } else { 60 },
        })
    });
    carried.collect()
}

/// MTU of the tunnel of a path, bytes of the inner packet.
fn tunnel_mtu(config: &Config, path: &PathPlan) -> u16 {
    match (&config.vpn, path.site(config)) {
        (Some(vpn), Some(site)) => vpn.mtu_of(site),
        (Some(vpn), None) => vpn.mtu,
        (None, _) => DEFAULT_TUNNEL_MTU,
    }
}
