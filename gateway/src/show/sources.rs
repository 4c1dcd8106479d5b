//! Which sources packets of an ingress may have, for the explanation of a drop as `spoofed_source`. The decision
//! itself is `routing::decide`'s; this says what it went by.

use crate::config::schema::{Config, NextHop};
use crate::plan::{Origin, Plan};
use ipnet::IpNet;
use routing::path::Ingress;
use std::net::IpAddr;

/// The prefixes that sources must be in (`None`: any), and those that they must not be in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sources {
    allowed: Option<Vec<IpNet>>,
    forbidden: Vec<IpNet>,
}

impl Sources {
    /// Of packets that come in there.
    pub(super) fn of(config: &Config, plan: &Plan, ingress: Ingress) -> Self {
        let host = |address: IpAddr| IpNet::from(address);
        let own = config.vnet.address.iter().map(|own| host(own.addr()));
        let space = || config.vnet.address_space.iter().copied();
        let path = match ingress {
            Ingress::Path(id) => plan.paths.get(usize::from(id.0)),
            Ingress::Vnet | Ingress::Local => None,
        };
        let Some(path) = path else {
            let kernel = config.vnet.host_address.iter();
            return Self {
                allowed: Some(space().chain(kernel.map(|of| host(of.addr()))).collect()),
                forbidden: own.collect(),
            };
        };
        let vpn = config.vpn.as_ref();
        let allowed: Option<Vec<IpNet>> = match path.origin {
            Origin::Link { .. } => None,
            Origin::Site { site } => {
                let site = vpn.and_then(|vpn| vpn.sites.get(site));
                let prefixes = site.iter().flat_map(|site| site.prefixes.iter().copied());
                // A user-defined route over a site makes its prefix one that the site answers for.
                let over = config.route.iter().filter(|route| match &route.next_hop {
                    NextHop::Path(name) => *name == path.name,
                    _ => false,
                });
                Some(prefixes.chain(over.map(|route| route.prefix)).collect())
            }
            Origin::PointToSite => {
                let clients = vpn.and_then(|vpn| vpn.point_to_site.as_ref());
                Some(clients.map_or_else(Vec::new, |clients| clients.address_pool.clone()))
            }
            Origin::Gone => Some(Vec::new()),
        };
        Self {
            allowed,
            forbidden: space().chain(own).collect(),
        }
    }

    /// The prefixes that sources must be in, or what they must not be in: `10.2.0.0/16`, `not 10.1.0.0/16`.
    pub(super) fn listed(&self) -> Vec<String> {
        match &self.allowed {
            Some(allowed) => allowed.iter().map(IpNet::to_string).collect(),
            None => self
                .forbidden
                .iter()
                .map(|not| format!("not {not}"))
                .collect(),
        }
    }

    /// Why this source is refused, in words.
    pub(super) fn why(&self, from: &str, source: IpAddr) -> String {
        if let Some(not) = self.forbidden.iter().find(|not| not.contains(&source)) {
            let whose = if not.prefix_len() == not.max_prefix_len() {
                "the gateway's own address"
            } else {
                "of the virtual network"
            };
            return format!("dropped: {from} may not use {source}, which is {whose} ({not})");
        }
        let allowed = self.listed().join(", ");
        format!("dropped: {from} may use sources in {allowed}, and {source} is in none of them")
    }
}
