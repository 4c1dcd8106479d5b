//! The forwarding state of a configuration without its devices: what replay and tests put packets through.

use crate::build::assembly::{carried, side, tunnel_mtu};
use crate::config::schema::{Config, FragmentPolicy};
use crate::pipeline::process::{Forwarding, Side};
use crate::plan::{Origin, PathPlan, Plan};
use crate::telemetry::hits::Hits;
use std::sync::Arc;

/// MTU of a link whose interface is not there to be asked: that of ExpressRoute (azure.md section 5).
const LINK_MTU: u16 = 1_500;

/// What one worker reads, with every link as wide as ExpressRoute is and nothing held to a rate.
pub fn forwarding(config: &Config, plan: &Plan) -> Forwarding {
    let path = |path: &PathPlan| -> Side {
        let Origin::Link { circuit, link } = path.origin else {
            return side(tunnel_mtu(config, path), FragmentPolicy::Forward, &[]);
        };
        let circuit = config.circuits().get(circuit);
        let link = circuit.and_then(|circuit| circuit.links.get(link));
        let fragments = circuit.map_or(FragmentPolicy::Drop, |circuit| circuit.fragments);
        side(
            LINK_MTU,
            fragments,
            link.map_or(&[], |link| link.address.as_slice()),
        )
    };
    let forwarding = Forwarding {
        snapshot: Arc::clone(&plan.snapshot),
        vnet: side(
            config.vnet.mtu,
            FragmentPolicy::Forward,
            &config.vnet.address,
        ),
        paths: plan.paths.iter().map(path).collect(),
        carried: carried(config, plan),
        limits: None,
        flows: None,
        hits: Hits::new(1, config.policy.len()),
    };
    forwarding.fit_carried();
    forwarding
}
