//! The entries of a configuration, whether or not it has the section that they stand in.

use crate::config::schema::{Circuit, Client, Config, PointToSite, Site};
use ipnet::IpNet;

impl Config {
    /// ExpressRoute circuits in file order; none without an ExpressRoute gateway.
    pub fn circuits(&self) -> &[Circuit] {
        match &self.expressroute {
            Some(gateway) => &gateway.circuits,
            None => &[],
        }
    }

    /// Sites in file order; none without a VPN gateway.
    pub fn sites(&self) -> &[Site] {
        match &self.vpn {
            Some(gateway) => &gateway.sites,
            None => &[],
        }
    }

    /// What point-to-site clients have in common, if there is a pool for them.
    pub fn point_to_site(&self) -> Option<&PointToSite> {
        self.vpn.as_ref()?.point_to_site.as_ref()
    }

    /// Point-to-site clients in file order.
    pub fn clients(&self) -> &[Client] {
        match self.point_to_site() {
            Some(clients) => &clients.clients,
            None => &[],
        }
    }

    /// Prefixes that point-to-site clients get their addresses from.
    pub fn client_pools(&self) -> &[IpNet] {
        match self.point_to_site() {
            Some(clients) => &clients.address_pool,
            None => &[],
        }
    }
}
