//! Rules of `[[route]]`: next hops that exist, in Azure's types (docs/azure.md, section 2).

use super::names::{Names, known_name};
use super::{Rules, found, joined};
use crate::config::schema::{NextHop, UserRoute};
use std::net::IpAddr;

pub(super) fn check(rules: &mut Rules, known: &Names) {
    let routes = &rules.config.route;
    let mut prefixes = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        let key = format!("route[{index}]");
        prefixes.push((
            format!("{key}.prefix"),
            route.prefix,
            route.prefix.to_string(),
        ));
        next_hop(rules, known, &key, route);
    }
    rules.unique("has a route already", prefixes);
}

fn next_hop(rules: &mut Rules, known: &Names, key: &str, route: &UserRoute) {
    let next_hop = format!("{key}.next_hop");
    if !rules.sound(&next_hop) {
        return;
    }
    match &route.next_hop {
        NextHop::Path(name) => known_name(rules, known, &next_hop, name, false),
        NextHop::VirtualNetworkGateway => gateway(rules, known, &next_hop),
        NextHop::VirtualAppliance(address) => appliance(rules, key, route, *address),
        NextHop::None | NextHop::VnetLocal | NextHop::Internet => {}
    }
    let address = format!("{key}.next_hop_ip");
    if !matches!(route.next_hop, NextHop::VirtualAppliance(_)) && rules.places.has(&address) {
        let words = found("the route leads to no appliance")
            .allowed("only with next_hop = \"VirtualAppliance\"")
            .also(next_hop, "the next hop");
        rules.error(&address, "has no appliance to stand for", words);
    }
}

/// `VirtualNetworkGateway` says which connection is meant only where there is one.
fn gateway(rules: &mut Rules, known: &Names, key: &str) {
    let config = rules.config;
    if config.expressroute.is_some() && config.vpn.is_some() {
        let words = found("an ExpressRoute and a VPN gateway coexist")
            .allowed(names_of(known))
            .help(
                "Azure allows no user-defined route of this type while both gateways stand: it \
                 would not say which of them is meant; name the circuit or the site instead",
            );
        rules.error(key, "does not say which gateway", words);
        return;
    }
    if !known.complete {
        return;
    }
    match known.paths.as_slice() {
        [_] => {}
        [] => {
            let words = found("no circuit and no site").help("add the connection first");
            rules.error(key, "leads to a gateway without connections", words);
        }
        several => {
            let words = found(format!("the gateway has {} connections", several.len()))
                .allowed(names_of(known))
                .help("name the circuit or the site that the route goes to");
            rules.error(key, "does not say which connection", words);
        }
    }
}

fn names_of(known: &Names) -> String {
    if known.paths.is_empty() {
        "the name of a circuit or site".to_owned()
    } else {
        joined(&known.paths)
    }
}

/// An appliance is a host of the virtual network: there a packet is handed over, and nowhere else.
fn appliance(rules: &mut Rules, key: &str, route: &UserRoute, address: Option<IpAddr>) {
    let vnet = &rules.config.vnet;
    let at = format!("{key}.next_hop_ip");
    let Some(address) = address else {
        // One that is wrong has been told of already.
        if !rules.places.has(&at) {
            let words = found("no next_hop_ip")
                .allowed(format!("an address in {}", joined(&vnet.address_space)))
                .help("add next_hop_ip = \"ADDRESS\", the appliance's address");
            rules.error(&format!("{key}.next_hop"), "needs an address", words);
        }
        return;
    };
    if rules.sound("vnet.address_space")
        && !vnet.address_space.iter().any(|own| own.contains(&address))
    {
        let words = found(format!("{address} is no address of the network"))
            .allowed(format!("an address in {}", joined(&vnet.address_space)))
            .also("vnet.address_space", "the address space");
        rules.error(&at, "is outside the virtual network", words);
    } else if vnet.address.iter().any(|own| own.addr() == address) {
        let words = found(format!("{address} is the gateway itself"))
            .allowed("the address of another host of the virtual network");
        rules.error(&at, "leads back to the gateway", words);
    } else if rules.sound(&format!("{key}.prefix"))
        && route.prefix.addr().is_ipv4() != address.is_ipv4()
    {
        let words = found(format!("{address} for {}", route.prefix))
            .allowed("an address of the prefix's IP version")
            .also(format!("{key}.prefix"), "the prefix");
        rules.error(&at, "is of another IP version", words);
    }
}
