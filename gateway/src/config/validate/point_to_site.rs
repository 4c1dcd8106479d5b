//! Rules of `[vpn.point_to_site]`: pools, and the addresses of clients.

use super::{Rules, found, joined, overlap};
use crate::config::pool;
use crate::config::schema::{PointToSite, Vpn};
use ipnet::IpNet;
use std::net::IpAddr;

const POOLS: &str = "vpn.point_to_site.address_pool";

pub(super) fn check(rules: &mut Rules) {
    let Some(vpn) = &rules.config.vpn else {
        return;
    };
    let Some(point_to_site) = &vpn.point_to_site else {
        return;
    };
    if rules.sound(POOLS) {
        for (index, of) in point_to_site.address_pool.iter().enumerate() {
            pool(rules, vpn, &format!("{POOLS}[{index}]"), index, of);
        }
    }
    addresses(rules, point_to_site);
    exhausted(rules, point_to_site);
}

fn addresses(rules: &mut Rules, point_to_site: &PointToSite) {
    let mut addresses = Vec::new();
    for (index, client) in point_to_site.clients.iter().enumerate() {
        let key = format!("vpn.point_to_site.client[{index}].address");
        if !rules.sound(&key) {
            continue;
        }
        rules.one_of_each_family(&key, &client.address);
        for (which, address) in client.address.iter().enumerate() {
            let key = format!("{key}[{which}]");
            self::address(rules, &key, *address, &point_to_site.address_pool);
            addresses.push((key, *address, address.to_string()));
        }
    }
    rules.unique("is in use already", addresses);
}

/// One address that the file gives a client.
fn address(rules: &mut Rules, key: &str, address: IpAddr, pools: &[IpNet]) {
    if !rules.sound(POOLS) {
        return;
    }
    let Some(pool) = pools.iter().find(|pool| pool.contains(&address)) else {
        let words = found(format!("{address} is in no pool"))
            .allowed(format!("an address in {}", joined(pools)))
            .also(POOLS, "the pool");
        rules.error(key, "is outside the address pool", words);
        return;
    };
    if let Some(reserved) = pool::reserved(pool, address) {
        let words = found(format!("{address} is {} of {pool}", reserved.name()))
            .allowed("another address of the pool; without the key, the next that is free")
            .also(POOLS, "the pool");
        rules.error(key, "cannot be a client's", words);
    }
}

/// Clients without an address that nothing is left for. Where addresses are wrong, what is left is not known.
fn exhausted(rules: &mut Rules, point_to_site: &PointToSite) {
    let key = |index: usize| format!("vpn.point_to_site.client[{index}]");
    let all = point_to_site.clients.iter().enumerate();
    let mut fixed = all.clone().filter(|(_, client)| !client.address.is_empty());
    if !rules.sound("vpn.point_to_site.client")
        || !rules.sound(POOLS)
        || fixed.any(|(index, _)| !rules.sound(&format!("{}.address", key(index))))
    {
        return;
    }
    for (index, address) in pool::assignments(rules.config, point_to_site) {
        let (None, Some(client)) = (address, point_to_site.clients.get(index)) else {
            continue;
        };
        if !rules.sound(&format!("{}.address", key(index))) {
            continue;
        }
        let pools = &point_to_site.address_pool;
        let words = found(format!(
            "{} has no address left for {:?}",
            joined(pools),
            client.name
        ))
        .allowed("as many clients as the pool has addresses")
        .help("add a prefix to address_pool, or take away clients that are no more")
        .also(POOLS, "the pool");
        rules.error(&key(index), "finds the pool exhausted", words);
    }
}

/// docs/azure.md, section 4: a client pool overlaps neither the virtual network nor what lies behind it.
fn pool(rules: &mut Rules, vpn: &Vpn, key: &str, index: usize, pool: &IpNet) {
    let others = vpn.point_to_site.iter().flat_map(|p| p.address_pool.iter());
    let pools = others.take(index).enumerate();
    let pools = pools.map(|(n, p)| (format!("vpn.point_to_site.address_pool[{n}]"), *p));
    let space = rules.config.vnet.address_space.iter().enumerate();
    let space = space.map(|(n, p)| (format!("vnet.address_space[{n}]"), *p));
    // A default route over a site takes nothing away from the pool: the pool is more specific.
    let overlaps = |prefix: &IpNet| prefix.prefix_len() > 0 && overlap(prefix, pool);
    let far = super::vnet::far_prefixes(rules)
        .into_iter()
        .filter_map(|list| {
            let place = list.prefixes.iter().position(overlaps)?;
            Some((list.element(place), *list.prefixes.get(place)?))
        });
    let mut taken = pools.chain(space).chain(far);
    if let Some((other, prefix)) = taken.find(|(_, prefix)| overlap(prefix, pool)) {
        let words = found(format!("{pool} and {prefix} have addresses in common"))
            .allowed("a pool apart from the address space and from what lies behind the gateway")
            .also(other, "the other");
        rules.error(key, "overlaps", words);
    }
}
