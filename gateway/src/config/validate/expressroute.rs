//! Rules of `[expressroute]`: SKU, circuits, links.

use super::{Rules, Words, edition_help, found, joined};
use crate::config::schema::{Circuit, ConnectionModel, Link};
use crate::config::value::nearest;
use crate::sku::{self, Edition};
use ipnet::IpNet;
use routing::learned::{CIRCUIT_PREFIXES_V4, CIRCUIT_PREFIXES_V4_PREMIUM, CIRCUIT_PREFIXES_V6};
use std::net::IpAddr;

pub(super) fn check(rules: &mut Rules) {
    let Some(gateway) = &rules.config.expressroute else {
        return;
    };
    sku(rules);
    if gateway.circuits.is_empty() {
        let words = found("the gateway has no circuit").help("add [[expressroute.circuit]]");
        rules.warning("expressroute", "leads nowhere", words);
    }
    let names = |(index, circuit): (usize, &Circuit)| {
        let key = format!("expressroute.circuit[{index}].name");
        (key, circuit.name.clone(), format!("{:?}", circuit.name))
    };
    let names: Vec<_> = gateway.circuits.iter().enumerate().map(names).collect();
    rules.unique("is taken", names);
    tags(rules);
    for (index, of) in gateway.circuits.iter().enumerate() {
        circuit(rules, &format!("expressroute.circuit[{index}]"), of);
    }
}

fn sku(rules: &mut Rules) {
    let Some(gateway) = &rules.config.expressroute else {
        return;
    };
    if !rules.sound("expressroute.sku") {
        return;
    }
    let Some(limits) = gateway.limits() else {
        let words = unknown(gateway.edition, &gateway.sku);
        rules.error("expressroute.sku", "is unknown", words);
        return;
    };
    if !limits.coexists && rules.config.vpn.is_some() {
        let words = found(format!("{} beside a VPN gateway", limits.name))
            .allowed("Standard or larger, or \"Unlimited\"")
            .also("vpn", "the VPN gateway");
        rules.error(
            "expressroute.sku",
            "cannot coexist with a VPN gateway",
            words,
        );
    }
    rules.within(
        "expressroute.circuit",
        "circuits",
        gateway.circuits.len(),
        limits.circuits.map(|n| n as usize),
        &limits.name,
    );
    let routes = gateway
        .circuits
        .iter()
        .map(|c| c.prefixes.len())
        .sum::<usize>();
    // Where there are too many for the gateway, that is said, and no circuit is blamed for it.
    if limits
        .routes_learned
        .is_some_and(|most| routes <= most as usize)
    {
        prefixes_of_circuits(rules);
    }
    rules.within(
        "vnet.address_space",
        "prefixes to advertise",
        rules.config.vnet.address_space.len(),
        limits.routes_advertised.map(|n| n as usize),
        &limits.name,
    );
    rules.within(
        "expressroute.circuit",
        "prefixes in all",
        routes,
        limits.routes_learned.map(|n| n as usize),
        &limits.name,
    );
}

/// What to say of a SKU that its edition does not have.
fn unknown(edition: Edition, name: &str) -> Words {
    let names = sku::expressroute_names(edition);
    if edition == Edition::Current
        && let Some(units) = sku::scale_units_of(name)
    {
        let (least, most) = (sku::SCALE_UNITS.start(), sku::SCALE_UNITS.end());
        return found(format!("found {units:?} scale units"))
            .allowed(format!("{least} to {most} units, such as \"ErGwScale:4\""));
    }
    let scale = match edition {
        Edition::Current => "; ErGwScale takes 1 to 40 units, such as \"ErGwScale:4\"",
        Edition::Of2016 => "",
    };
    let words = found(format!("found {name:?}")).allowed(names.join(", ") + scale);
    if sku::expressroute(edition.other(), name).is_some() {
        return words.help(edition_help(edition));
    }
    let of_vpn = [edition, edition.other()].map(sku::vpn_names);
    if of_vpn.iter().any(|names| names.contains(&name)) {
        return words.help("this is the SKU of a VPN gateway");
    }
    match nearest(name, names) {
        Some(near) => words.help(format!("did you mean \"{near}\"?")),
        None => words,
    }
}

/// docs/azure.md, section 5: so many prefixes may come from one circuit; above them its sessions would drop.
fn prefixes_of_circuits(rules: &mut Rules) {
    let circuits = rules.config.expressroute.iter();
    for (index, circuit) in circuits.flat_map(|e| e.circuits.iter().enumerate()) {
        let key = format!("expressroute.circuit[{index}].prefixes");
        let v4 = circuit.prefixes.iter().filter(|p| p.addr().is_ipv4());
        let v4 = v4.count();
        let most_v4 = if circuit.premium {
            CIRCUIT_PREFIXES_V4_PREMIUM
        } else {
            CIRCUIT_PREFIXES_V4
        };
        let families = [
            ("IPv4", v4, most_v4),
            ("IPv6", circuit.prefixes.len() - v4, CIRCUIT_PREFIXES_V6),
        ];
        for (family, count, most) in families {
            if count > most {
                let words = found(format!("{count} {family} prefixes"))
                    .allowed(format!("at most {most} from one circuit"));
                let words = match (family, circuit.premium) {
                    ("IPv4", false) => words.help("summarise them, or set premium = true"),
                    _ => words.help("summarise them"),
                };
                rules.error(&key, "are more than a circuit may bring", words);
            }
        }
    }
}

/// Two links of one interface need different tags: a frame belongs to one of them.
fn tags(rules: &mut Rules) {
    let mut tags = Vec::new();
    let circuits = rules
        .config
        .expressroute
        .iter()
        .flat_map(|e| e.circuits.iter());
    for (c, circuit) in circuits.enumerate() {
        for (l, link) in circuit.links.iter().enumerate() {
            let key = format!("expressroute.circuit[{c}].link[{l}]");
            if !rules.sound(&format!("{key}.vlan")) || !rules.sound(&format!("{key}.interface")) {
                continue;
            }
            let outer = (link.vlan.len() == 2).then_some(link.vlan_type);
            let shown = match link.vlan.as_slice() {
                [] => format!("{} untagged", link.interface),
                ids => format!("{} with VLAN {}", link.interface, joined(ids)),
            };
            let value = (link.interface.clone(), link.vlan.clone(), outer);
            tags.push((format!("{key}.interface"), value, shown));
        }
    }
    rules.unique("and its tags are taken", tags);
}

fn circuit(rules: &mut Rules, key: &str, circuit: &Circuit) {
    if circuit.links.is_empty() || circuit.links.len() > 2 {
        let words = found(match circuit.links.len() {
            0 => "no link".to_owned(),
            n => format!("{n} links"),
        })
        .allowed("one or two [[expressroute.circuit.link]]: primary and secondary");
        rules.error(
            &format!("{key}.link"),
            "has the wrong number of links",
            words,
        );
    }
    let list = format!("{key}.prefixes");
    if rules.sound(&list) {
        rules.unique_prefixes("is listed twice", &list, &circuit.prefixes);
        if circuit.prefixes.is_empty() {
            let words = found("no static prefix")
                .help("this version does not learn routes by BGP; list the prefixes");
            rules.warning(&format!("{key}.prefixes"), "is empty", words);
        }
    }
    let names = |(index, link): (usize, &Link)| {
        let key = format!("{key}.link[{index}].name");
        (key, link.name.clone(), format!("{:?}", link.name))
    };
    let names: Vec<_> = circuit.links.iter().enumerate().map(names).collect();
    rules.unique("is taken", names);
    if let [primary, secondary] = circuit.links.as_slice()
        && primary.vlan != secondary.vlan
        && rules.sound(&format!("{key}.link"))
    {
        let words = found(match secondary.vlan.as_slice() {
            [] => "the secondary link is untagged".to_owned(),
            ids => format!("the secondary link has {}", joined(ids)),
        })
        .help("ExpressRoute uses the same VLAN ids on both links of a circuit")
        .also(format!("{key}.link[0].vlan"), "the primary's");
        rules.warning(&format!("{key}.link[1].vlan"), "differs", words);
    }
    for (index, of) in circuit.links.iter().enumerate() {
        link(rules, &format!("{key}.link[{index}]"), of);
    }
    model(rules, key, circuit);
    probe(rules, key, circuit);
}

/// docs/azure.md, section 5: the provider of an IP VPN hands over layer 3. Customer tags inside of its own are
/// layer 2's.
fn model(rules: &mut Rules, key: &str, circuit: &Circuit) {
    if circuit.model != ConnectionModel::AnyToAny || !rules.sound(&format!("{key}.model")) {
        return;
    }
    for (index, link) in circuit.links.iter().enumerate() {
        if link.vlan.len() != 2 {
            continue;
        }
        let words = found(format!("QinQ: {}", joined(&link.vlan)))
            .allowed("none or one: the provider manages layer 3 and hands it over")
            .help("model \"colocated\" or \"point-to-point\" is layer 2, with tags of your own")
            .also(format!("{key}.model"), "the connection model");
        let key = format!("{key}.link[{index}].vlan");
        rules.error(&key, "does not fit the connection model", words);
    }
}

fn link(rules: &mut Rules, key: &str, link: &Link) {
    if link.vlan.len() > 2 && rules.sound(&format!("{key}.vlan")) {
        let words = found(format!("{} VLAN ids", link.vlan.len()))
            .allowed("none, one (802.1Q), or two (QinQ: outer, inner)");
        rules.error(&format!("{key}.vlan"), "has too many tags", words);
    }
    let vlan_type = format!("{key}.vlan_type");
    if link.vlan.len() < 2 && rules.places.has(&vlan_type) && rules.sound(&format!("{key}.vlan")) {
        let words = found(format!("the link has {} VLAN ids", link.vlan.len()))
            .allowed("only with two VLAN ids: it is the outer tag's");
        rules.error(&vlan_type, "has no outer tag to stand for", words);
    }
    let (addresses, neighbors) = (format!("{key}.address"), format!("{key}.neighbor"));
    if rules.sound(&addresses) && rules.sound(&neighbors) {
        let own: Vec<IpAddr> = link.address.iter().map(IpNet::addr).collect();
        rules.one_of_each_family(&addresses, &own);
        rules.one_of_each_family(&neighbors, &link.neighbor);
        for (index, neighbor) in link.neighbor.iter().enumerate() {
            self::neighbor(rules, key, link, index, *neighbor);
        }
        neighbor_mac(rules, key, link);
        for (index, address) in link.address.iter().enumerate() {
            let family = address.addr().is_ipv4();
            if !link.neighbor.iter().any(|n| n.is_ipv4() == family) {
                let words = found(format!("no neighbor for {address}"))
                    .help("packets of this IP version cannot leave by this link");
                rules.warning(&format!("{addresses}[{index}]"), "has no neighbor", words);
            }
        }
    }
}

/// Given MAC addresses: one for each next hop, or one for all of them.
fn neighbor_mac(rules: &mut Rules, key: &str, link: &Link) {
    let macs = format!("{key}.neighbor_mac");
    let (given, hops) = (link.neighbor_mac.len(), link.neighbor.len());
    if given > 1 && given != hops && rules.sound(&macs) {
        let words = found(format!("{given} MAC addresses for {hops} neighbors"))
            .allowed("one for each neighbor, in their order, or one for all");
        rules.error(&macs, "does not fit the neighbors", words);
    }
}

fn neighbor(rules: &mut Rules, key: &str, link: &Link, index: usize, neighbor: IpAddr) {
    let subnets: Vec<String> = link
        .address
        .iter()
        .filter(|own| own.addr().is_ipv4() == neighbor.is_ipv4())
        .map(|own| own.trunc().to_string())
        .collect();
    let inside = link.address.iter().any(|own| own.contains(&neighbor));
    if inside {
        return;
    }
    let words = if subnets.is_empty() {
        found("the link has no address of this IP version")
            .allowed("a neighbor in the subnet of one of the link's addresses")
    } else {
        found(format!("{neighbor} is not in {}", joined(&subnets)))
            .allowed("an address in the link's subnet")
    };
    rules.error(
        &format!("{key}.neighbor[{index}]"),
        "is not on the link",
        words.also(format!("{key}.address"), "the link's addresses"),
    );
}

fn probe(rules: &mut Rules, key: &str, circuit: &Circuit) {
    let Some(target) = circuit.probe.as_ref().and_then(|probe| probe.target) else {
        return;
    };
    let probe = format!("{key}.probe.target");
    if !rules.sound(&format!("{key}.link")) {
        return;
    }
    let without = |link: &&Link| {
        !link
            .address
            .iter()
            .any(|own| own.addr().is_ipv4() == target.is_ipv4())
    };
    if let Some(link) = circuit.links.iter().find(without) {
        let words = found(format!("{target}"))
            .allowed("a target of an IP version that every link of the circuit has")
            .help(format!("link {:?} has no such address", link.name));
        rules.error(&probe, "cannot be asked over every link", words);
        return;
    }
    let behind = circuit
        .prefixes
        .iter()
        .any(|prefix| prefix.contains(&target));
    let neighbor = circuit
        .links
        .iter()
        .all(|link| link.neighbor.contains(&target));
    if !behind && !neighbor && rules.sound(&format!("{key}.prefixes")) {
        let words = found(format!("{target} is in none of the circuit's prefixes"))
            .allowed("an address behind the circuit, or no target: each link asks its neighbor");
        rules.error(&probe, "is not behind the circuit", words);
    }
}
