//! The limits of the SKUs, as the shaper takes them and as `vng explain` and `vng show` say them.

use crate::config::schema::{Config, ExpressRoute};
use crate::pipeline::flow::{FlowLimits, GatewayFlows};
use crate::pipeline::shape::{Limit, RateLimits, Rates, Scope};
use crate::plan::{Origin, PathPlan, Plan};
use std::sync::Arc;
use std::time::Instant;

/// What the ExpressRoute gateway lets through, both directions and all links together.
pub(crate) fn expressroute(config: &Config) -> Rates {
    let gateway = config.expressroute.as_ref();
    let sku = gateway.and_then(ExpressRoute::limits);
    sku.map_or_else(Rates::default, |sku| Rates {
        bits_per_second: sku.bits_per_second,
        packets_per_second: sku.packets_per_second,
    })
}

/// What the VPN gateway lets through, both directions and all tunnels together; and one tunnel.
pub(crate) fn vpn(config: &Config) -> (Rates, Rates) {
    let vpn = config.vpn.as_ref();
    let sku = vpn.and_then(|vpn| vpn.limits().ok());
    sku.map_or_else(Default::default, |sku| {
        let gateway = Rates {
            bits_per_second: sku.bits_per_second,
            packets_per_second: None,
        };
        let tunnel = Rates {
            bits_per_second: sku.tunnel_bits_per_second,
            packets_per_second: sku.tunnel_packets_per_second,
        };
        (gateway, tunnel)
    })
}

/// The flows that the ExpressRoute gateway lets in.
pub(crate) fn expressroute_flows(config: &Config) -> GatewayFlows {
    let sku = config.expressroute.as_ref().and_then(ExpressRoute::limits);
    sku.map_or_else(GatewayFlows::default, |sku| GatewayFlows {
        flows: sku.flows,
        flows_per_second: sku.flows_per_second,
    })
}

/// The flows that the VPN gateway lets in, each way.
pub(crate) fn vpn_flows(config: &Config) -> GatewayFlows {
    let sku = config.vpn.as_ref().and_then(|vpn| vpn.limits().ok());
    sku.map_or_else(GatewayFlows::default, |sku| GatewayFlows {
        flows: sku.flows,
        flows_per_second: None,
    })
}

/// The flows that workers hold to, with the memory that they need for it; `None` if nothing is limited. `old` are those
/// in force.
pub(crate) fn flows(config: &Config, old: Option<&Arc<FlowLimits>>) -> Option<Arc<FlowLimits>> {
    let limits = FlowLimits::new(
        expressroute_flows(config),
        vpn_flows(config),
        Instant::now(),
        old,
    )?;
    let is_same = old.is_some_and(|old| Arc::ptr_eq(old, &limits));
    let workers = usize::from(config.control.workers);
    Some(if is_same {
        limits
    } else {
        limits.prepared(workers)
    })
}

/// The limits that this many workers share; `None` if nothing is limited. `old` are those in force.
pub(crate) fn limits(
    config: &Config,
    plan: &Plan,
    workers: usize,
    old: Option<&Arc<RateLimits>>,
) -> Option<Arc<RateLimits>> {
    let (gateway, tunnel) = vpn(config);
    let limit = |name: String, scope, rates| Limit { name, scope, rates };
    let mut limits = vec![
        limit("ExpressRoute".into(), Scope::Gateway, expressroute(config)),
        limit("Vpn".into(), Scope::Gateway, gateway),
    ];
    let of_path = |path: &PathPlan| match path.origin {
        Origin::Link { .. } => vec![0],
        // Clients share the gateway's rate with the sites; the tunnel's rate is of sites.
        Origin::PointToSite => vec![1],
        Origin::Gone => Vec::new(),
        Origin::Site { .. } => {
            limits.push(limit(
                format!("tunnel {}", path.name),
                Scope::Tunnel,
                tunnel,
            ));
            vec![1, limits.len() - 1]
        }
    };
    let paths: Vec<_> = plan.paths.iter().map(of_path).collect();
    RateLimits::new(workers, &limits, &paths, Instant::now(), old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, KeyFiles};
    use routing::health::Usability;
    use std::num::NonZeroU32;
    use std::path::Path;

    fn example(change: impl FnOnce(&mut Config)) -> (Config, Plan) {
        let text = include_str!("../../../docs/examples/coexist.toml").to_owned();
        let loaded = config::parse(Path::new("f"), text, Path::new(""), KeyFiles::Skipped);
        let mut config = loaded.unwrap().config;
        change(&mut config);
        let plan = Plan::new(&config, NonZeroU32::MIN, |_| Usability::Full).unwrap();
        (config, plan)
    }

    #[test]
    fn flows_are_held_to_the_skus_and_counts_outlive_a_reload() {
        let (config, _) = example(|_| {});
        assert_eq!(expressroute_flows(&config).flows, Some(200_000));
        assert_eq!(expressroute_flows(&config).flows_per_second, Some(7_000));
        assert_eq!(vpn_flows(&config).flows, Some(500_000));
        let old = flows(&config, None);
        let same = flows(&config, old.as_ref());
        assert!(Arc::ptr_eq(old.as_ref().unwrap(), &same.unwrap()));
        let (config, _) = example(unlimited);
        assert!(flows(&config, old.as_ref()).is_none());
        let (config, _) = example(|config| {
            config.expressroute.as_mut().unwrap().edition = crate::sku::Edition::Of2016;
            config.expressroute.as_mut().unwrap().sku = "Standard".into();
            config.vpn.as_mut().unwrap().sku = "Unlimited".into();
        });
        assert!(flows(&config, None).is_none(), "2016 published none");
    }

    fn unlimited(config: &mut Config) {
        config.expressroute.as_mut().unwrap().sku = "Unlimited".into();
        config.vpn.as_mut().unwrap().sku = "Unlimited".into();
    }

    #[test]
    fn unlimited_is_no_limit_at_all() {
        let (config, plan) = example(unlimited);
        assert!(limits(&config, &plan, 1, None).is_none());
    }

    #[test]
    fn a_reload_that_changes_no_rate_leaves_the_limits_in_force() {
        let (config, plan) = example(|_| {});
        let old = limits(&config, &plan, 2, None);
        assert!(old.is_some());
        let same = limits(&config, &plan, 2, old.as_ref());
        assert!(Arc::ptr_eq(&old.clone().unwrap(), &same.unwrap()));
        let (config, plan) = example(|config| {
            config.expressroute.as_mut().unwrap().sku = "ErGw2Az".into();
        });
        let new = limits(&config, &plan, 2, old.as_ref());
        assert!(!Arc::ptr_eq(&old.unwrap(), &new.unwrap()));
    }

    #[test]
    fn a_tunnel_has_its_own_rate_below_the_gateways() {
        let (config, _) = example(|_| {});
        let (gateway, tunnel) = vpn(&config);
        assert_eq!(gateway.bits_per_second, Some(1_000_000_000));
        assert_eq!(
            (tunnel.bits_per_second, tunnel.packets_per_second),
            (Some(1_200_000_000), Some(100_000))
        );
        assert_eq!(expressroute(&config).packets_per_second, Some(100_000));
    }
}
