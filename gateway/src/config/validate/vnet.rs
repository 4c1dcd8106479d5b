//! Rules of `[vnet]`, and of addresses and prefixes across the whole file.

use super::{Rules, found, joined, overlap};
use ipnet::IpNet;
use routing::packet::address_bits;
use routing::prefix::PrefixSet;
use std::net::IpAddr;

pub(super) fn check(rules: &mut Rules) {
    let vnet = &rules.config.vnet;
    gateway_subnet(rules);
    let addresses: Vec<IpAddr> = vnet.address.iter().map(IpNet::addr).collect();
    if rules.sound("vnet.address") {
        rules.one_of_each_family("vnet.address", &addresses);
    }
    host_address(rules);
    mtu(rules);
    address_space(rules);
    own_addresses(rules);
    tunnels_go_around_the_device(rules);
}

/// docs/azure.md, section 1: /27 or shorter, inside the address space; IPv6 subnets are /64.
fn gateway_subnet(rules: &mut Rules) {
    let vnet = &rules.config.vnet;
    if !rules.sound("vnet.address") {
        return;
    }
    for (index, address) in vnet.address.iter().enumerate() {
        let key = format!("vnet.address[{index}]");
        let longest = if address.addr().is_ipv4() { 27 } else { 64 };
        if address.prefix_len() > longest {
            let words = found(format!("the gateway subnet is a /{}", address.prefix_len()))
                .allowed(format!("/{longest} or shorter"));
            rules.error(&key, "has a gateway subnet that is too small", words);
        } else if rules.sound("vnet.address_space")
            && !vnet
                .address_space
                .iter()
                .any(|s| s.contains(&address.trunc()))
        {
            let words = found(format!("the gateway subnet is {}", address.trunc()))
                .allowed(format!("a subnet of {}", joined(&vnet.address_space)))
                .also("vnet.address_space", "the address space");
            rules.error(&key, "is outside the address space", words);
        }
    }
}

fn host_address(rules: &mut Rules) {
    let vnet = &rules.config.vnet;
    if !rules.sound("vnet.address_space") {
        return;
    }
    for (index, address) in vnet.host_address.iter().enumerate() {
        let key = format!("vnet.host_address[{index}]");
        if !vnet
            .address_space
            .iter()
            .any(|s| s.contains(&address.addr()))
        {
            let words = found(format!("{} is no address of the network", address.addr()))
                .allowed(format!("an address in {}", joined(&vnet.address_space)));
            rules.error(&key, "is outside the address space", words);
        }
    }
}

/// RFC 8200, section 5: every link that carries IPv6 has an MTU of 1,280 or more.
fn mtu(rules: &mut Rules) {
    let config = rules.config;
    let has_ipv6 = |prefixes: &[IpNet]| prefixes.iter().any(|prefix| prefix.addr().is_ipv6());
    let words = |mtu| {
        found(format!("found {mtu}"))
            .allowed("1280 or more where there is IPv6 (RFC 8200, section 5)")
    };
    if config.vnet.mtu < 1_280 && has_ipv6(&config.vnet.address_space) {
        rules.error("vnet.mtu", "is too small for IPv6", words(config.vnet.mtu));
    }
    if let Some(vpn) = &config.vpn {
        if vpn.mtu < 1_280 && vpn.sites.iter().any(|site| has_ipv6(&site.prefixes)) {
            rules.error("vpn.mtu", "is too small for IPv6", words(vpn.mtu));
        }
        for (index, site) in vpn.sites.iter().enumerate() {
            if let Some(mtu) = site
                .mtu
                .filter(|mtu| *mtu < 1_280 && has_ipv6(&site.prefixes))
            {
                let key = format!("vpn.site[{index}].mtu");
                rules.error(&key, "is too small for IPv6", words(mtu));
            }
        }
    }
}

/// The address space's own system routes win over every other route to it (docs/azure.md, section 2), so a
/// prefix inside it that something else claims would never be used.
fn address_space(rules: &mut Rules) {
    let config = rules.config;
    let space = &config.vnet.address_space;
    if !rules.sound("vnet.address_space") {
        return;
    }
    for (index, prefix) in space.iter().enumerate() {
        for (earlier, other) in space.iter().enumerate().take(index) {
            if overlap(prefix, other) {
                let words = found(format!("{prefix} and {other} have addresses in common"))
                    .also(format!("vnet.address_space[{earlier}]"), "the other");
                rules.error(&format!("vnet.address_space[{index}]"), "overlaps", words);
            }
        }
    }
    for list in far_prefixes(rules) {
        for (index, prefix) in list.prefixes.iter().enumerate() {
            if let Some(own) = space.iter().position(|own| own.contains(prefix)) {
                let words = found(format!("{prefix} is part of the virtual network itself"))
                    .allowed("a prefix outside the address space, or a shorter one around it")
                    .also(format!("vnet.address_space[{own}]"), "the virtual network");
                rules.error(&list.element(index), "is inside the address space", words);
            }
        }
    }
}

/// The prefixes of a circuit or a site. They may be a million: a key is made of those only that something is
/// said of.
pub(super) struct FarPrefixes<'c> {
    /// The list's key.
    key: String,
    pub(super) prefixes: &'c [IpNet],
}

impl FarPrefixes<'_> {
    /// The key of one of them.
    pub(super) fn element(&self, index: usize) -> String {
        format!("{}[{index}]", self.key)
    }
}

/// The prefixes of circuits and sites, where they could be read.
pub(super) fn far_prefixes<'c>(rules: &Rules<'c>) -> Vec<FarPrefixes<'c>> {
    let config = rules.config;
    let circuits = config
        .expressroute
        .iter()
        .flat_map(|gateway| &gateway.circuits);
    let circuits = circuits.enumerate().map(|(index, circuit)| FarPrefixes {
        key: format!("expressroute.circuit[{index}].prefixes"),
        prefixes: &circuit.prefixes,
    });
    let sites = config.sites().iter();
    let sites = sites.enumerate().map(|(index, site)| FarPrefixes {
        key: format!("vpn.site[{index}].prefixes"),
        prefixes: &site.prefixes,
    });
    let all = circuits.chain(sites);
    all.filter(|list| rules.sound(&list.key)).collect()
}

/// Every address that the gateway or its host answers for is given once.
fn own_addresses(rules: &mut Rules) {
    let config = rules.config;
    let mut addresses = Vec::new();
    let mut add = |key: String, list: Vec<IpAddr>| {
        for (index, address) in list.into_iter().enumerate() {
            addresses.push((format!("{key}[{index}]"), address, address.to_string()));
        }
    };
    let hosts = |prefixes: &[IpNet]| prefixes.iter().map(IpNet::addr).collect::<Vec<_>>();
    add("vnet.address".to_owned(), hosts(&config.vnet.address));
    add(
        "vnet.host_address".to_owned(),
        hosts(&config.vnet.host_address),
    );
    for (c, circuit) in config
        .expressroute
        .iter()
        .flat_map(|e| e.circuits.iter().enumerate())
    {
        for (l, link) in circuit.links.iter().enumerate() {
            let key = format!("expressroute.circuit[{c}].link[{l}]");
            add(format!("{key}.address"), hosts(&link.address));
            add(format!("{key}.neighbor"), link.neighbor.clone());
        }
    }
    let sound = |key: &str| {
        key.rsplit_once('[')
            .is_none_or(|(list, _)| rules.sound(list))
    };
    addresses.retain(|(key, ..)| sound(key));
    rules.unique("is in use already", addresses);
}

/// With kernel routes into the device, a tunnel's own datagrams must not be routed into it too.
fn tunnels_go_around_the_device(rules: &mut Rules) {
    let config = rules.config;
    let Some(vpn) = config.vpn.as_ref().filter(|_| config.vnet.host_routes) else {
        return;
    };
    let lists = far_prefixes(rules);
    let all = lists.iter().flat_map(|list| list.prefixes).copied();
    let all: PrefixSet = all.collect();
    for (index, site) in vpn.sites.iter().enumerate() {
        // The kernel has nothing to do with a tunnel over a circuit.
        let Some(endpoint) = site.endpoint.filter(|_| site.over.is_none()) else {
            continue;
        };
        let (version, address) = address_bits(endpoint.ip());
        if !all.contains(version, address) {
            continue;
        }
        let around = lists.iter().find_map(|list| {
            let mut prefixes = list.prefixes.iter();
            let place = prefixes.position(|prefix| prefix.contains(&endpoint.ip()))?;
            Some((list.element(place), list.prefixes.get(place)?))
        });
        if let Some((key, prefix)) = around {
            let words = found(format!("{} is inside {prefix}", endpoint.ip()))
                .help(
                    "host_routes sets no route to that prefix unless the machine has a more specific \
                     one to the endpoint: ip route add ENDPOINT via GATEWAY dev INTERFACE",
                )
                .also(key, "reached through the gateway");
            rules.warning(
                &format!("vpn.site[{index}].endpoint"),
                "may be led back into the gateway",
                words,
            );
        }
    }
}
