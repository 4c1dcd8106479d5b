//! Rules of `[vpn]`: SKU, sites, point-to-site clients.

use super::{Rules, Words, edition_help, found, joined, overlap};
use crate::config::read::DEFAULT_ASN;
use crate::config::rule::prefixes;
use crate::config::schema::{Action, Client, Config, PolicyRule, Site, SiteKind, Vpn};
use crate::config::value::nearest;
use crate::sku::{self, Edition, UnknownVpnSku};
use ipnet::IpNet;
use std::collections::HashMap;
use std::net::IpAddr;

pub(super) fn check(rules: &mut Rules) {
    let Some(vpn) = &rules.config.vpn else {
        return;
    };
    sku(rules, vpn);
    names(rules, vpn);
    keys(rules, vpn);
    bound(rules, vpn);
    for (index, of) in vpn.sites.iter().enumerate() {
        site(rules, vpn, &format!("vpn.site[{index}]"), of);
    }
    same_prefixes(rules, vpn);
    transit(rules);
    workers(rules, vpn);
}

/// Workers beyond the tunnels' owners only read packets that then cross over.
fn workers(rules: &mut Rules, vpn: &Vpn) {
    let config = rules.config;
    let workers = usize::from(config.control.workers);
    let is_served = vpn.sites.len() >= workers || vpn.sites.iter().any(|site| site.lanes > 1);
    let others = config.expressroute.is_some() || vpn.point_to_site.is_some();
    if is_served || vpn.sites.is_empty() || others {
        return;
    }
    let words = found(format!(
        "{workers} workers for {} tunnels of one lane each",
        vpn.sites.len()
    ))
    .help(
        "a tunnel of one lane belongs to one worker, and what another reads crosses over to it: one TCP flow \
         moved 8.1 Gbps with one worker and 5.8 with two; where the far end is vng give its site as many \
         lanes as there are workers, else leave workers at the number of sites",
    );
    rules.warning("control.workers", "is more than the tunnels can use", words);
}

fn sku(rules: &mut Rules, vpn: &Vpn) {
    if !rules.sound("vpn.sku") || !rules.sound("vpn.generation") {
        return;
    }
    let limits = match vpn.limits() {
        Ok(limits) => limits,
        Err(UnknownVpnSku::Name) => {
            let words = unknown(vpn.edition, &vpn.sku);
            rules.error("vpn.sku", "is unknown", words);
            return;
        }
        Err(there @ UnknownVpnSku::Generation(_)) => {
            let words = found(format!("generation {}", vpn.generation))
                .allowed(there.to_string())
                .also("vpn.sku", "of this SKU");
            rules.error("vpn.generation", "does not have the SKU", words);
            return;
        }
    };
    if !limits.coexists && rules.config.expressroute.is_some() {
        let words = found(format!("{} beside an ExpressRoute gateway", limits.name))
            .allowed(match vpn.edition {
                Edition::Current => "VpnGw1 or larger, or \"Unlimited\"",
                Edition::Of2016 => "Standard or larger, or \"Unlimited\"",
            })
            .also("expressroute", "the ExpressRoute gateway");
        rules.error("vpn.sku", "cannot coexist with ExpressRoute", words);
    }
    let count = |n: Option<u32>| n.map(|n| n as usize);
    let (sites, tunnels) = (vpn.sites.len(), count(limits.tunnels));
    rules.within("vpn.site", "tunnels", sites, tunnels, limits.name);
    if let Some(point_to_site) = &vpn.point_to_site {
        rules.within(
            "vpn.point_to_site.client",
            "clients",
            point_to_site.clients.len(),
            count(limits.clients),
            limits.name,
        );
    }
    for (index, site) in vpn.sites.iter().enumerate() {
        rules.within(
            &format!("vpn.site[{index}].prefixes"),
            "prefixes of one site",
            site.prefixes.len(),
            limits.prefixes_per_site,
            limits.name,
        );
    }
}

/// What to say of a SKU that its edition does not have.
fn unknown(edition: Edition, name: &str) -> Words {
    let names = sku::vpn_names(edition);
    let words = found(format!("found {name:?}")).allowed(names.join(", "));
    let is_of = |edition| {
        sku::vpn_names(edition)
            .iter()
            .any(|n| n.eq_ignore_ascii_case(name))
    };
    if is_of(edition.other()) {
        return words.help(edition_help(edition));
    }
    if [edition, edition.other()]
        .iter()
        .any(|&e| sku::expressroute(e, name).is_some())
    {
        return words.help("this is the SKU of an ExpressRoute gateway");
    }
    match nearest(name, names) {
        Some(near) => words.help(format!("did you mean \"{near}\"?")),
        None => words,
    }
}

/// Sites, clients and circuits share one name space: policies and routes name them alike.
fn names(rules: &mut Rules, vpn: &Vpn) {
    let mut names = Vec::new();
    let mut add = |key: String, name: &str| {
        names.push((key, name.to_owned(), format!("{name:?}")));
    };
    let gateway = rules.config.expressroute.as_ref();
    for (index, circuit) in gateway.iter().flat_map(|e| e.circuits.iter().enumerate()) {
        // Two circuits of one name are an error already; here each name counts once.
        if !gateway.is_some_and(|e| {
            e.circuits
                .iter()
                .take(index)
                .any(|c| c.name == circuit.name)
        }) {
            add(format!("expressroute.circuit[{index}].name"), &circuit.name);
        }
    }
    for (index, site) in vpn.sites.iter().enumerate() {
        add(format!("vpn.site[{index}].name"), &site.name);
    }
    for (index, client) in clients_of(vpn).iter().enumerate() {
        add(
            format!("vpn.point_to_site.client[{index}].name"),
            &client.name,
        );
    }
    rules.unique("is taken", names);
}

fn clients_of(vpn: &Vpn) -> &[Client] {
    vpn.point_to_site.as_ref().map_or(&[], |p| &p.clients)
}

/// A key tells the far ends apart, so each has its own.
fn keys(rules: &mut Rules, vpn: &Vpn) {
    let mut keys = Vec::new();
    for (index, site) in vpn.sites.iter().enumerate() {
        let key = format!("vpn.site[{index}].public_key");
        keys.push((key, site.public_key, "this key".to_owned()));
    }
    for (index, client) in clients_of(vpn).iter().enumerate() {
        let key = format!("vpn.point_to_site.client[{index}].public_key");
        keys.push((key, client.public_key, "this key".to_owned()));
    }
    rules.unique("is in use already", keys);
}

/// What the tunnels' sockets are bound to.
fn bound(rules: &mut Rules, vpn: &Vpn) {
    for v4 in [true, false] {
        let own = vpn.bind_address.iter().enumerate();
        let mut of_family = own.filter(|(_, address)| address.is_ipv4() == v4);
        if let (Some((first, _)), Some((second, address))) = (of_family.next(), of_family.next()) {
            let words = found(format!("{address} is another of the same IP version"))
                .allowed("one IPv4 and one IPv6 address, or none for all of this machine")
                .also(format!("vpn.bind_address[{first}]"), "the first");
            rules.error(
                &format!("vpn.bind_address[{second}]"),
                "is one too many",
                words,
            );
        }
    }
    for (index, address) in vpn.bind_address.iter().enumerate() {
        let is_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if is_local && vpn.interface.is_none() {
            let words = found(format!("{address} may be on every link"))
                .allowed("a link-local address together with vpn.interface");
            rules.error(&format!("vpn.bind_address[{index}]"), "has no zone", words);
        }
    }
    for (index, site) in vpn.sites.iter().enumerate() {
        let Some(endpoint) = site.endpoint.filter(|_| site.over.is_none()) else {
            continue;
        };
        let is_bound = |own: &IpAddr| own.is_ipv4() == endpoint.is_ipv4();
        if !vpn.bind_address.is_empty() && !vpn.bind_address.iter().any(is_bound) {
            let words = found(format!(
                "{endpoint}, while the tunnels use {} alone",
                joined(&vpn.bind_address)
            ))
            .allowed("an endpoint of an IP version that vpn.bind_address has")
            .also("vpn.bind_address", "the tunnels' own addresses");
            let key = format!("vpn.site[{index}].endpoint");
            rules.error(&key, "cannot be reached", words);
        }
    }
    if vpn.listen_port == 0 && !clients_of(vpn).is_empty() {
        let words = found("0: another port after each start")
            .help("clients are given a port once, in their files; write one, such as 51820");
        rules.warning("vpn.listen_port", "is not known to clients", words);
    }
}

fn site(rules: &mut Rules, vpn: &Vpn, key: &str, site: &Site) {
    let list = format!("{key}.prefixes");
    if rules.sound(&list) {
        rules.unique_prefixes("is listed twice", &list, &site.prefixes);
    }
    if site.kind == SiteKind::VnetToVnet {
        other_network(rules, &list, &site.prefixes);
    }
    let last_port = u32::from(vpn.listen_port) + u32::from(site.lanes) - 1;
    if last_port > u32::from(u16::MAX) && rules.sound("vpn.listen_port") {
        let words = found(format!("{} lanes", site.lanes))
            .allowed("one port for each lane, counted up from listen_port, to 65535")
            .also("vpn.listen_port", "the first port");
        rules.error(&format!("{key}.lanes"), "runs out of ports", words);
    }
    if vpn.listen_port == 0 && site.lanes > 1 {
        let words = found(format!("{} lanes", site.lanes))
            .allowed("1, or a listen_port that is not 0: the far end must know the ports")
            .also("vpn.listen_port", "the kernel chooses");
        rules.error(&format!("{key}.lanes"), "has no ports", words);
    }
    let host_port = site.endpoint_host.as_ref().map(|host| host.port);
    if let Some(port) = site.endpoint.map(|endpoint| endpoint.port()).or(host_port)
        && u32::from(port) + u32::from(site.lanes) - 1 > u32::from(u16::MAX)
    {
        let words = found(format!("{} lanes from port {port}", site.lanes))
            .allowed("one port for each lane, counted up, to 65535")
            .also(format!("{key}.lanes"), "the lanes");
        rules.error(&format!("{key}.endpoint"), "runs out of ports", words);
    }
    over(rules, key, site);
    let probe = format!("{key}.probe");
    if site.probe.is_none() {
        let words = found("nothing asks through the tunnel").help(
            "the tunnel counts as up while its handshake is fresh, up to 3 minutes after a \
             fault; add probe = { target = \"ADDRESS\" }",
        );
        rules.warning(&probe, "is off", words);
    }
    // Where the target is missing, the reader has said so.
    if let Some(target) = site.probe.as_ref().and_then(|probe| probe.target)
        && rules.sound(&list)
        && !site.prefixes.iter().any(|prefix| prefix.contains(&target))
    {
        let words = found(format!("{target} is in none of the site's prefixes"))
            .allowed(format!(
                "an address in {}: the answers of others are dropped as spoofed",
                joined(&site.prefixes)
            ))
            .also(&list, "the site's prefixes");
        rules.error(&format!("{probe}.target"), "is not behind the site", words);
    }
    if site.place().is_none() && site.keepalive.is_some() {
        let words = found("there is no endpoint to keep the tunnel alive to")
            .help("it takes effect once the site has called; set it on the site's side as well");
        rules.warning(
            &format!("{key}.keepalive"),
            "waits for the site's call",
            words,
        );
    }
}

/// A tunnel over a circuit: its datagrams are packets of the gateway's own address, and leave by the links.
fn over(rules: &mut Rules, key: &str, site: &Site) {
    let Some(name) = &site.over else {
        return;
    };
    let over = format!("{key}.over");
    let circuits = rules.config.circuits().iter();
    let names: Vec<&str> = circuits
        .clone()
        .map(|circuit| circuit.name.as_str())
        .collect();
    let Some(circuit) = circuits.clone().find(|circuit| circuit.name == *name) else {
        let mut words = found(format!("found {name:?}")).allowed(if names.is_empty() {
            "the name of a circuit; the file has none".to_owned()
        } else {
            joined(&names)
        });
        if let Some(near) = nearest(name, names) {
            words = words.help(format!("did you mean \"{near}\"?"));
        }
        rules.error(&over, "is no circuit of this file", words);
        return;
    };
    if site.lanes > 1 {
        let words = found(format!("{} lanes over {name:?}", site.lanes))
            .allowed("1 with `over`: a circuit carries one session of a site");
        rules.error(&format!("{key}.lanes"), "is too many", words);
    }
    if let Some(endpoint) = site.endpoint {
        let v4 = endpoint.is_ipv4();
        let own = rules
            .config
            .vnet
            .address
            .iter()
            .any(|own| own.addr().is_ipv4() == v4);
        let links = circuit.links.iter();
        let carried = links
            .flat_map(|link| &link.neighbor)
            .any(|next| next.is_ipv4() == v4);
        if !own || !carried {
            let words = found(format!("{}", endpoint.ip())).allowed(
                "an address of an IP version that vnet.address and the circuit's links have",
            );
            rules.error(
                &format!("{key}.endpoint"),
                "cannot be reached over the circuit",
                words,
            );
        }
    }
    in_the_clear(rules, key, site, name);
}

/// Of two routes to one prefix the circuit's wins, and nothing is encrypted.
fn in_the_clear(rules: &mut Rules, key: &str, site: &Site, circuit: &str) {
    let circuits = rules.config.circuits().iter();
    let mut shared = Vec::new();
    for (c, other) in circuits
        .enumerate()
        .filter(|(_, other)| other.name == circuit)
    {
        let mut places = HashMap::with_capacity(other.prefixes.len());
        for (place, prefix) in other.prefixes.iter().enumerate() {
            places.entry(prefix).or_insert(place);
        }
        for (index, prefix) in site.prefixes.iter().enumerate() {
            if let Some(place) = places.get(prefix) {
                let there = format!("expressroute.circuit[{c}].prefixes[{place}]");
                shared.push((format!("{key}.prefixes[{index}]"), there, *prefix));
            }
        }
    }
    for (key, there, prefix) in shared {
        let words = found(format!(
            "{prefix} is the circuit's too, and ExpressRoute wins"
        ))
        .help("let the circuit have only what the tunnel's endpoint lies in, or a shorter prefix")
        .also(there, "the circuit's");
        rules.warning(&key, "goes unencrypted while the circuit is up", words);
    }
}

/// The far end of a VNet-to-VNet connection is a virtual network: what is behind it is its address space, and two
/// networks that are joined have no address in common.
fn other_network(rules: &mut Rules, list: &str, prefixes: &[IpNet]) {
    for (index, prefix) in prefixes.iter().enumerate() {
        let key = format!("{list}[{index}]");
        let space = &rules.config.vnet.address_space;
        if prefix.prefix_len() == 0 {
            let words = found(format!("{prefix} is everything"))
                .allowed("the address space of the other virtual network")
                .help("a way to everything is a site: kind = \"site-to-site\"");
            rules.error(&key, "is no address space", words);
        } else if let Some(own) = space.iter().position(|own| prefix.contains(own)) {
            // One inside the address space is told of with those of all sites.
            let words = found(format!("{prefix} is of this virtual network as well"))
                .allowed("address spaces that have no address in common")
                .also(format!("vnet.address_space[{own}]"), "this network");
            rules.error(&key, "overlaps", words);
        }
    }
}

/// The same prefix at two sites: only a policy rule says which one a packet is meant for.
fn same_prefixes(rules: &mut Rules, vpn: &Vpn) {
    if !rules.sound("vpn.site") || !rules.sound("policy") {
        return;
    }
    if vpn.sites.len() < 2 {
        return;
    }
    let mut conflicts = Vec::new();
    // Where each prefix stands first.
    let mut first: HashMap<&IpNet, (usize, usize)> = HashMap::new();
    for (later, site) in vpn.sites.iter().enumerate() {
        for (index, prefix) in site.prefixes.iter().enumerate() {
            let (place, there) = *first.entry(prefix).or_insert((later, index));
            let Some(other) = vpn.sites.get(place).filter(|_| place != later) else {
                continue;
            };
            let between = [site.name.as_str(), other.name.as_str()];
            if !rules
                .config
                .policy
                .iter()
                .any(|rule| chooses(rules.config, rule, prefix, between))
            {
                conflicts.push((later, index, place, there, *prefix, other.name.clone()));
            }
        }
    }
    for (later, index, place, there, prefix, other) in conflicts {
        let words = found(format!("{prefix} is at site {other:?} too"))
            .allowed("a prefix of one site, or a policy rule that chooses between the two")
            .help(format!(
                "[[policy]] with match = {{ destination = \"{prefix}\" }} and \
                 action = {{ via = [...] }}"
            ))
            .also(format!("vpn.site[{place}].prefixes[{there}]"), "first here");
        let key = format!("vpn.site[{later}].prefixes[{index}]");
        rules.error(&key, "is claimed by two sites", words);
    }
}

/// Whether a rule decides where packets to (some of) `prefix` go, between these sites.
fn chooses(config: &Config, rule: &PolicyRule, prefix: &IpNet, between: [&str; 2]) -> bool {
    let Action::Via(paths) = &rule.action else {
        return false;
    };
    let destination = prefixes(config, &rule.matches.destination);
    (destination.is_empty() || destination.iter().any(|to| overlap(to, prefix)))
        && paths.iter().any(|path| between.contains(&path.as_str()))
}

fn transit(rules: &mut Rules) {
    let Some(gateway) = &rules.config.expressroute else {
        return;
    };
    if !rules.config.failover.branch_transit {
        return;
    }
    let words = found(if gateway.asn == DEFAULT_ASN {
        "ExpressRoute to VPN".to_owned()
    } else {
        format!("ExpressRoute to VPN with ASN {}", gateway.asn)
    })
    .allowed(format!(
        "in Azure: ASN {DEFAULT_ASN} and an active-active VPN gateway"
    ))
    .help("vng has one active VPN gateway, asks for neither, and forwards all the same");
    rules.warning("failover.branch_transit", "goes beyond Azure", words);
}
