//! What is well written and can never work: prefixes that no gateway forwards, endpoints that nobody has, an IP
//! version that is carried without an address of our own, and a file without a gateway.

use super::vnet::far_prefixes;
use super::{Rules, found, joined};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub(super) fn check(rules: &mut Rules) {
    gateways(rules);
    prefixes(rules);
    endpoints(rules);
    families(rules);
}

/// A virtual network needs a gateway, and a VPN gateway somebody to join it to.
fn gateways(rules: &mut Rules) {
    let config = rules.config;
    // A section that could not be read has been told of.
    let has = |key: &str| rules.places.has(key);
    if !has("expressroute") && !has("vpn") && has("vnet") {
        let words = found("neither [expressroute] nor [vpn]: nothing leads out of the network")
            .allowed("one of them or both")
            .help(
                "vng init DIR writes a file with a VPN gateway; docs/examples has one of each kind",
            );
        rules.warning("vnet", "has no gateway", words);
    }
    if let Some(vpn) = &config.vpn
        && vpn.sites.is_empty()
        && vpn.point_to_site.is_none()
        && !has("vpn.site")
    {
        let words = found("the gateway has neither a site nor clients")
            .help("add [[vpn.site]] or [vpn.point_to_site]");
        rules.warning("vpn", "leads nowhere", words);
    }
}

// ---- prefixes -----------------------------------------------------------------------------------

/// A block of addresses that no gateway forwards, as routing::packet::is_martian drops them.
struct Martian {
    block: IpNet,
    what: &'static str,
}

const fn v4(octets: [u8; 4], length: u8, what: &'static str) -> Martian {
    let [a, b, c, d] = octets;
    Martian {
        block: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)),
        what,
    }
}

const fn v6(high: u16, sixth: u16, length: u8, what: &'static str) -> Martian {
    let address = Ipv6Addr::new(high, 0, 0, 0, 0, sixth, 0, 0);
    Martian {
        block: IpNet::V6(Ipv6Net::new_assert(address, length)),
        what,
    }
}

const MARTIANS: [Martian; 9] = [
    v4([0, 0, 0, 0], 8, "\"this network\" (RFC 1122)"),
    v4([127, 0, 0, 0], 8, "loopback (RFC 1122)"),
    v4([169, 254, 0, 0], 16, "link-local (RFC 3927)"),
    v4([224, 0, 0, 0], 4, "multicast (RFC 5771)"),
    v4([240, 0, 0, 0], 4, "reserved (RFC 1112)"),
    v6(
        0,
        0,
        96,
        "the unspecified and the loopback address (RFC 4291)",
    ),
    v6(0, 0xffff, 96, "IPv4-mapped (RFC 4291)"),
    v6(0xfe80, 0, 10, "link-local (RFC 4291)"),
    v6(0xff00, 0, 8, "multicast (RFC 4291)"),
];

/// Azure's addresses for BGP inside tunnels, 169.254.21.0 to 169.254.22.255: what is written about them
/// stands.
const APIPA: [Ipv4Net; 2] = [
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 21, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 22, 0), 24),
];

fn martian(prefix: &IpNet) -> Option<&'static Martian> {
    if let IpNet::V4(v4) = prefix
        && APIPA.iter().any(|apipa| apipa.contains(v4))
    {
        return None;
    }
    // The default route, which a shorter block would be part of, is none: the block is part of it.
    let mut blocks = MARTIANS.iter();
    blocks.find(|martian| prefix.prefix_len() > 0 && martian.block.contains(prefix))
}

fn prefixes(rules: &mut Rules) {
    let config = rules.config;
    // Keys of those only that are wrong: there may be a million.
    let mut wrong = Vec::new();
    let mut add = |prefixes: &[IpNet], key: &dyn Fn(usize) -> String| {
        for (index, prefix) in prefixes.iter().enumerate() {
            if let Some(martian) = martian(prefix) {
                wrong.push((key(index), *prefix, martian));
            }
        }
    };
    for list in far_prefixes(rules) {
        add(list.prefixes, &|index| list.element(index));
    }
    let clients = config
        .vpn
        .as_ref()
        .and_then(|vpn| vpn.point_to_site.as_ref());
    let pools = clients.map_or(&[][..], |clients| &clients.address_pool);
    for (list, prefixes) in [
        ("vnet.address_space", config.vnet.address_space.as_slice()),
        ("vpn.point_to_site.address_pool", pools),
    ] {
        if rules.sound(list) {
            add(prefixes, &|index| format!("{list}[{index}]"));
        }
    }
    for (index, route) in config.route.iter().enumerate() {
        add(&[route.prefix], &|_| format!("route[{index}].prefix"));
    }
    for (key, prefix, martian) in wrong {
        let words = found(format!("{prefix} is {}", martian.what))
            .allowed("a prefix of addresses that are forwarded: private, shared or global ones")
            .help(format!(
                "packets from and to {} are dropped as martian",
                martian.block
            ));
        rules.error(&key, "is never forwarded", words);
    }
}

// ---- endpoints ----------------------------------------------------------------------------------

fn endpoints(rules: &mut Rules) {
    let config = rules.config;
    let sites = config.sites().iter();
    for (index, site) in sites.enumerate() {
        let key = format!("vpn.site[{index}].endpoint");
        let Some(endpoint) = site.endpoint.filter(|_| rules.sound(&key)) else {
            continue;
        };
        let address = endpoint.ip();
        if let Some((kind, help)) = nobody_has(&endpoint) {
            let words = found(format!("{address} is {kind}"));
            rules.error(
                &key,
                "cannot be reached",
                words.allowed("the address of one host").help(help),
            );
            continue;
        }
        if let Some((key_of, label)) = own(rules, address) {
            let words = found(format!("{address} is this gateway's own"))
                .allowed("the address of the site's gateway")
                .also(key_of, label);
            rules.error(&key, "is our own", words);
            continue;
        }
        let space = config.vnet.address_space.iter();
        if let Some(own) = space.clone().position(|space| space.contains(&address)) {
            let words = found(format!(
                "{address} is in {}",
                joined(&config.vnet.address_space)
            ))
            .allowed("an address outside of the virtual network, which tunnels lead out of")
            .also(format!("vnet.address_space[{own}]"), "the virtual network");
            rules.error(&key, "is inside the virtual network", words);
        }
    }
}

/// Why no far end has this address, and what helps. Loopback is none of these: programs that carry tunnels
/// elsewhere listen there.
fn nobody_has(endpoint: &SocketAddr) -> Option<(&'static str, String)> {
    let help = || "leave endpoint out where the site calls this gateway".to_owned();
    match endpoint.ip() {
        IpAddr::V4(v4) => match v4.octets() {
            [0, ..] => Some(("the unspecified address or in its block", help())),
            [224..=239, ..] => Some(("a multicast address", help())),
            [255, 255, 255, 255] => Some(("the broadcast address", help())),
            [240..=255, ..] => Some(("a reserved address", help())),
            _ => None,
        },
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => {
                let help = format!("write it as \"{v4}:{}\"", endpoint.port());
                Some(("an IPv4 address inside an IPv6 one", help))
            }
            None if v6.is_unspecified() => Some(("the unspecified address", help())),
            None if v6.is_multicast() => Some(("a multicast address", help())),
            None if v6.is_unicast_link_local() && has_no_zone(endpoint) => Some((
                "a link-local address without the interface that it is on",
                format!(
                    "write the interface behind it: \"[{v6}%eth0]:{}\"",
                    endpoint.port()
                ),
            )),
            None => None,
        },
    }
}

fn has_no_zone(endpoint: &SocketAddr) -> bool {
    matches!(endpoint, SocketAddr::V6(v6) if v6.scope_id() == 0)
}

/// The key of an address that is this gateway's or its machine's, and what it is.
fn own(rules: &Rules, address: IpAddr) -> Option<(String, &'static str)> {
    let config = rules.config;
    let among = |list: &[IpNet]| list.iter().position(|own| own.addr() == address);
    let of_vnet =
        among(&config.vnet.address).map(|n| (format!("vnet.address[{n}]"), "the gateway's"));
    let of_host = || {
        let place = among(&config.vnet.host_address)?;
        Some((format!("vnet.host_address[{place}]"), "this machine's"))
    };
    let of_link = || {
        let circuits = config
            .expressroute
            .iter()
            .flat_map(|e| e.circuits.iter().enumerate());
        let mut links = circuits.flat_map(|(c, circuit)| {
            let links = circuit.links.iter().enumerate();
            links.map(move |(l, link)| {
                (format!("expressroute.circuit[{c}].link[{l}].address"), link)
            })
        });
        links
            .find_map(|(key, link)| Some((format!("{key}[{}]", among(&link.address)?), "a link's")))
    };
    of_vnet.or_else(of_host).or_else(of_link)
}

// ---- IP versions --------------------------------------------------------------------------------

/// ICMP errors come from the gateway's own address of the packet's IP version: without one a sender is never told
/// that a packet was too big or died on its way.
fn families(rules: &mut Rules) {
    let config = rules.config;
    let lists = ["vnet.address", "vnet.address_space"];
    if !lists.iter().all(|key| rules.sound(key)) {
        return;
    }
    let pools = config.point_to_site().into_iter();
    let pools = pools.flat_map(|clients| &clients.address_pool);
    let carried: Vec<IpNet> = far_prefixes(rules)
        .into_iter()
        .flat_map(|list| list.prefixes)
        .chain(pools)
        .copied()
        .collect();
    for (ipv4, name, length) in [(true, "IPv4", 27), (false, "IPv6", 64)] {
        let is_of = |prefix: &&IpNet| prefix.addr().is_ipv4() == ipv4;
        let own = config.vnet.address.iter().find(is_of);
        let Some(prefix) = carried.iter().find(is_of).filter(|_| own.is_none()) else {
            continue;
        };
        let words = found(format!(
            "{prefix} is carried, and the gateway has no {name} address"
        ))
        .allowed(format!(
            "an address of each IP version that is carried, with its /{length} or shorter"
        ))
        .help(
            "without one it sends no ICMP errors: path MTU discovery ends in a black hole, and \
                 traceroute shows *",
        );
        rules.warning("vnet.address", &format!("has no {name} address"), words);
    }
}
