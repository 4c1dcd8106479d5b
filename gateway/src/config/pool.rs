//! Addresses of point-to-site clients: what a pool has to give, and who gets which.
//!
//! A client that the file gives no address has the next free one of each IP version that the pools have, in the
//! order of the file. `vng p2s add` writes the address down, so that it stays whoever comes and goes.

use super::schema::{Config, PointToSite};
use ipnet::IpNet;
use std::collections::HashSet;
use std::net::IpAddr;

/// Why no client can have an address of its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// The pool's own: no host has it (in IPv6 it is every router's, RFC 4291, 2.6.1).
    Network,
    /// It is everybody's in the pool.
    Broadcast,
}

impl Reserved {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Network => "the network's own address",
            Self::Broadcast => "the broadcast address",
        }
    }
}

/// Whether an address is one that no client of the pool can have. The smallest pools have no such (RFC 3021,
/// RFC 6164).
pub fn reserved(pool: &IpNet, address: IpAddr) -> Option<Reserved> {
    if pool.prefix_len() + 1 >= pool.max_prefix_len() {
        return None;
    }
    if address == pool.network() {
        return Some(Reserved::Network);
    }
    (address.is_ipv4() && address == pool.broadcast()).then_some(Reserved::Broadcast)
}

/// The gateway's own addresses, and those of the virtual network's host.
fn own(config: &Config) -> impl Iterator<Item = IpAddr> {
    let vnet = config.vnet.address.iter().chain(&config.vnet.host_address);
    let circuits = config.circuits().iter();
    let links = circuits.flat_map(|circuit| &circuit.links);
    let of_links = links.clone().flat_map(|link| &link.address);
    let neighbors = links.flat_map(|link| link.neighbor.iter().copied());
    vnet.chain(of_links).map(IpNet::addr).chain(neighbors)
}

/// Free addresses, each handed out once.
#[derive(Debug)]
pub struct Free<'c> {
    pools: &'c [IpNet],
    taken: HashSet<IpAddr>,
    /// Where to look next: all before it, of this IP version, are taken. IPv4, IPv6.
    next: [(usize, u128); 2],
}

impl<'c> Free<'c> {
    /// What the clients that have addresses leave free.
    pub fn of(config: &Config, point_to_site: &'c PointToSite) -> Self {
        let clients = &point_to_site.clients;
        let fixed = clients.iter().flat_map(|client| &client.address).copied();
        Self {
            pools: &point_to_site.address_pool,
            taken: own(config).chain(fixed).collect(),
            next: [(0, 0); 2],
        }
    }

    /// The next free address of a version; `None` when all are taken, or the pools have no such.
    pub fn take(&mut self, v4: bool) -> Option<IpAddr> {
        let next = if v4 {
            &mut self.next[0]
        } else {
            &mut self.next[1]
        };
        while let Some(pool) = self.pools.get(next.0) {
            let bits = u32::from(pool.max_prefix_len() - pool.prefix_len());
            let is_over = bits < 128 && next.1 >> bits != 0;
            if pool.addr().is_ipv4() != v4 || is_over {
                *next = (next.0 + 1, 0);
                continue;
            }
            let address = nth(pool, next.1);
            *next = next
                .1
                .checked_add(1)
                .map_or((next.0 + 1, 0), |offset| (next.0, offset));
            if reserved(pool, address).is_none() && self.taken.insert(address) {
                return Some(address);
            }
        }
        None
    }

    /// One address of each version that the pools have; `None` when one of them is exhausted.
    pub fn take_each(&mut self) -> Option<Vec<IpAddr>> {
        let has = |v4: bool| self.pools.iter().any(|pool| pool.addr().is_ipv4() == v4);
        let wanted = [true, false].into_iter().filter(|&v4| has(v4));
        let wanted: Vec<bool> = wanted.collect();
        wanted.into_iter().map(|v4| self.take(v4)).collect()
    }
}

/// The address this far behind the network's own.
fn nth(pool: &IpNet, offset: u128) -> IpAddr {
    match pool.network() {
        IpAddr::V4(first) => {
            IpAddr::from(first.to_bits().wrapping_add(offset as u32).to_be_bytes())
        }
        IpAddr::V6(first) => IpAddr::from(first.to_bits().wrapping_add(offset).to_be_bytes()),
    }
}

/// Which clients without an address get which, by their place in the file; `None` for those that there is
/// nothing left for.
pub fn assignments(
    config: &Config,
    point_to_site: &PointToSite,
) -> Vec<(usize, Option<Vec<IpAddr>>)> {
    let mut free = Free::of(config, point_to_site);
    let clients = point_to_site.clients.iter().enumerate();
    let without = clients.filter(|(_, client)| client.address.is_empty());
    without
        .map(|(place, _)| (place, free.take_each()))
        .collect()
}

/// Gives an address to each client that the file gives none.
pub(super) fn assign(config: &mut Config) {
    let Some(point_to_site) = config.point_to_site() else {
        return;
    };
    let given = assignments(config, point_to_site);
    let point_to_site = config.vpn.as_mut().and_then(|v| v.point_to_site.as_mut());
    let Some(clients) = point_to_site.map(|p| &mut p.clients) else {
        return;
    };
    for (place, address) in given {
        if let (Some(client), Some(address)) = (clients.get_mut(place), address) {
            client.address = address;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, KeyFiles};
    use std::path::Path;

    fn config(pools: &str, clients: &[&str]) -> Result<Config, String> {
        use std::fmt::Write as _;
        let mut text = format!(
            r#"
[vnet]
name = "v"
address_space = ["10.1.0.0/16"]
address = ["10.1.255.4/27"]
[vpn]
sku = "VpnGw5"
private_key_file = "key"
[vpn.point_to_site]
address_pool = [{pools}]
"#
        );
        for (n, address) in clients.iter().enumerate() {
            let mut key = [0; 32];
            key[..2].copy_from_slice(&(n as u16 + 9).to_le_bytes());
            let key = crypto::key::PublicKey(key);
            let _ = writeln!(
                text,
                "[[vpn.point_to_site.client]]\nname = \"c{n}\"\npublic_key = \"{key}\"\n{address}"
            );
        }
        let loaded = config::parse(Path::new("f"), text, Path::new(""), KeyFiles::Skipped);
        loaded
            .map(|loaded| loaded.config)
            .map_err(|report| report.render(false))
    }

    fn addresses(config: &Config) -> Vec<Vec<String>> {
        let point_to_site = config.vpn.as_ref().unwrap().point_to_site.as_ref().unwrap();
        let of = |client: &config::schema::Client| {
            client.address.iter().map(ToString::to_string).collect()
        };
        point_to_site.clients.iter().map(of).collect()
    }

    #[test]
    fn a_client_without_an_address_has_the_next_free_one_of_each_version() {
        let config = config(
            r#""172.31.0.0/29", "fd00:31::/64""#,
            &["", "address = \"172.31.0.2\"", "", ""],
        )
        .unwrap();
        assert_eq!(
            addresses(&config),
            [
                vec!["172.31.0.1", "fd00:31::1"],
                vec!["172.31.0.2"],
                vec!["172.31.0.3", "fd00:31::2"],
                vec!["172.31.0.4", "fd00:31::3"],
            ]
        );
    }

    #[test]
    fn a_pool_gives_all_but_its_first_and_last_address_and_then_the_next_pool_does() {
        let (first, second) = ("172.31.0.0/30", "172.31.0.8/30");
        let config = config(&format!("\"{first}\", \"{second}\""), &[""; 4]).unwrap();
        assert_eq!(
            addresses(&config).concat(),
            ["172.31.0.1", "172.31.0.2", "172.31.0.9", "172.31.0.10"]
        );
        assert_eq!(
            reserved(&first.parse().unwrap(), "172.31.0.3".parse().unwrap()),
            Some(Reserved::Broadcast)
        );
        assert_eq!(
            reserved(
                &"172.31.0.0/31".parse().unwrap(),
                "172.31.0.0".parse().unwrap()
            ),
            None
        );
    }

    #[test]
    fn an_exhausted_pool_is_an_error_at_the_client_that_finds_it_so() {
        let error = config("\"172.31.0.0/30\"", &[""; 3]).unwrap_err();
        assert!(
            error.contains("172.31.0.0/30 has no address left for \"c2\""),
            "{error}"
        );
        assert!(!error.contains("\"c1\""), "{error}");
    }

    #[test]
    fn the_last_pool_of_all_addresses_does_not_overflow() {
        let pools = ["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        let mut free = Free {
            pools: &pools,
            taken: HashSet::new(),
            next: [(0, u128::from(u32::MAX)), (1, u128::MAX - 1)],
        };
        assert_eq!(free.take(true), None, "255.255.255.255 is the broadcast");
        assert!(free.take(false).is_some());
    }
}
