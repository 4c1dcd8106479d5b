//! The model: a random world, its configuration's text, and what becomes of a packet in it.

use crate::packets::{fold, slow_sum};
use gateway::show::view::Query;
use ipnet::IpNet;
use routing::path::{Ingress, PathId};
use std::fmt::Write as _;
use std::net::IpAddr;

pub(super) const PREFIXES: [&str; 7] = [
    "10.2.0.0/16",
    "10.2.8.0/24",
    "10.3.0.0/16",
    "10.4.0.0/16",
    "0.0.0.0/0",
    "fd00:2::/48",
    "fd00:2:0:8::/64",
];
pub(super) const MATCHED: [&str; 6] = [
    "10.1.4.0/24",
    "10.2.8.0/24",
    "10.2.0.0/15",
    "0.0.0.0/0",
    "fd00:2::/32",
    "@set",
];
pub(super) const SET: [&str; 3] = ["10.3.0.0/16", "10.1.0.0/25", "fd00:1::/64"];
pub(super) const OWNERS: [&str; 4] = ["er-a", "er-b", "site-a", "site-b"];
/// Every path with its owner: links, then sites. The second circuit has one link, without IPv6.
pub(super) const PATHS: [(&str, usize); 5] = [
    ("er-a/primary", 0),
    ("er-a/secondary", 0),
    ("er-b/primary", 1),
    ("site-a", 2),
    ("site-b", 3),
];

/// Fields of a rule: what is given, and what is taken out of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    pub(super) from: Vec<&'static str>,
    pub(super) source: Vec<&'static str>,
    pub(super) destination: Vec<&'static str>,
    pub(super) protocol: Vec<u8>,
    pub(super) port: Vec<(u16, u16)>,
    pub(super) dscp: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) given: Fields,
    pub(super) not: Fields,
    /// 0 route, 1 drop, 2 reject, 3 via.
    pub(super) action: u8,
    pub(super) via: Vec<usize>,
    pub(super) set_dscp: Option<u8>,
}

#[derive(Clone, Debug)]
pub(super) struct World {
    /// Prefixes of each owner.
    pub(super) prefixes: [Vec<&'static str>; 4],
    /// Prefix, and next hop: 0 None, 1 VnetLocal, else an owner.
    pub(super) routes: Vec<(&'static str, usize)>,
    pub(super) rules: Vec<Rule>,
    pub(super) transit: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Packet {
    /// 0 the virtual network, else a path.
    pub(super) from: usize,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    pub(super) port: u16,
    pub(super) dscp: u8,
}

impl Packet {
    pub(super) fn ingress(&self) -> Ingress {
        match self.from {
            0 => Ingress::Vnet,
            path => Ingress::Path(PathId(path as u16 - 1)),
        }
    }

    pub(super) fn from(&self) -> &'static str {
        match self.from {
            0 => "vnet",
            path => PATHS[path - 1].0,
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut transport = vec![0; if self.protocol == 6 { 20 } else { 8 }];
        match self.protocol {
            6 | 17 => {
                transport[..2].copy_from_slice(&40_000_u16.to_be_bytes());
                transport[2..4].copy_from_slice(&self.port.to_be_bytes());
            }
            1 => transport[0] = 8,
            _ => transport[0] = 128,
        }
        match self.protocol {
            6 => (transport[12], transport[13]) = (5 << 4, 0x10),
            17 => transport[5] = 8,
            _ => {}
        }
        let class = self.dscp << 2 | 1;
        let mut packet = Vec::new();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                packet.extend([0x45, class, 0, 20 + transport.len() as u8]);
                packet.extend([0, 0, 0x40, 0, 64, self.protocol, 0, 0]);
                packet.extend(source.octets());
                packet.extend(destination.octets());
                let sum = !fold(slow_sum(&packet));
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                packet.extend([0x60 | class >> 4, class << 4, 0, 0]);
                packet.extend([0, transport.len() as u8, self.protocol, 64]);
                packet.extend(source.octets());
                packet.extend(destination.octets());
            }
            _ => panic!("two versions"),
        }
        packet.extend(transport);
        packet
    }

    pub(super) fn query(&self) -> Query {
        Query {
            from: self.from().to_owned(),
            source: self.source,
            destination: self.destination,
            protocol: self.protocol,
            source_port: 40_000,
            destination_port: self.port,
            icmp_type: None,
            dscp: self.dscp,
        }
    }
}

/// What the model says becomes of a packet.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fate {
    Local,
    Vnet(Option<u8>),
    /// Any of these paths.
    Paths(Vec<usize>, Option<u8>),
    Drop(&'static str),
    /// Any of these reasons or paths: the hash picks a path, and the path says whether it may be taken.
    HairpinOrTransit(Vec<usize>, Option<u8>),
}

impl World {
    pub(super) fn text(&self) -> String {
        let quoted = |list: &[&str]| {
            let quoted: Vec<String> = list.iter().map(|one| format!("\"{one}\"")).collect();
            quoted.join(", ")
        };
        let mut text =
            "[vnet]\nname = \"lab\"\naddress_space = [\"10.1.0.0/16\", \"fd00:1::/48\"]\n\
             address = [\"10.1.255.4/27\", \"fd00:1:0:ff::4/64\"]\n\
             [expressroute]\nsku = \"Unlimited\"\n\
             [vpn]\nsku = \"Unlimited\"\nprivate_key_file = \"vpn.key\"\n"
                .to_owned();
        let link = |name: &str, net: u8, v6: bool| {
            let (own, next) = if v6 {
                (
                    format!(", \"fd00:16:{net}::2/126\""),
                    format!(", \"fd00:16:{net}::1\""),
                )
            } else {
                (String::new(), String::new())
            };
            format!(
                "[[expressroute.circuit.link]]\nname = \"{name}\"\ninterface = \"eth{net}\"\n\
                 address = [\"172.16.{net}.2/30\"{own}]\nneighbor = [\"172.16.{net}.1\"{next}]\n"
            )
        };
        for (place, name) in OWNERS.iter().enumerate() {
            let prefixes = quoted(&self.prefixes[place]);
            if place < 2 {
                writeln!(
                    text,
                    "[[expressroute.circuit]]\nname = \"{name}\"\nprefixes = [{prefixes}]"
                )
                .unwrap();
                if place == 0 {
                    text += &(link("primary", 0, true) + &link("secondary", 1, true));
                } else {
                    text += &link("primary", 2, false);
                }
            } else {
                let key = if place == 2 {
                    "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
                } else {
                    "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="
                };
                writeln!(
                    text,
                    "[[vpn.site]]\nname = \"{name}\"\npublic_key = \"{key}\"\nprefixes = [{prefixes}]"
                )
                .unwrap();
            }
        }
        writeln!(
            text,
            "[[prefix_set]]\nname = \"set\"\nprefixes = [{}]",
            quoted(&SET)
        )
        .unwrap();
        for (prefix, hop) in &self.routes {
            let hop = match hop {
                0 => "None",
                1 => "VnetLocal",
                owner => OWNERS[owner - 2],
            };
            writeln!(
                text,
                "[[route]]\nprefix = \"{prefix}\"\nnext_hop = \"{hop}\""
            )
            .unwrap();
        }
        for (place, rule) in self.rules.iter().enumerate() {
            let fields = |of: &Fields| {
                let mut keys = Vec::new();
                let mut key = |name: &str, values: String| {
                    if !values.is_empty() {
                        keys.push(format!("{name} = [{values}]"));
                    }
                };
                key("from", quoted(&of.from));
                key("source", quoted(&of.source));
                key("destination", quoted(&of.destination));
                let numbers = |list: &[u8]| {
                    list.iter()
                        .map(u8::to_string)
                        .collect::<Vec<_>>()
                        .join(", ")
                };
                key("protocol", numbers(&of.protocol));
                let ports: Vec<String> = of
                    .port
                    .iter()
                    .map(|(a, b)| format!("\"{a}-{b}\""))
                    .collect();
                key("destination_port", ports.join(", "));
                key("dscp", numbers(&of.dscp));
                keys
            };
            let mut keys = fields(&rule.given);
            let not = fields(&rule.not);
            if !not.is_empty() {
                keys.push(format!("not = {{ {} }}", not.join(", ")));
            }
            let mut action = Vec::new();
            if rule.action == 3 {
                let via: Vec<&str> = rule.via.iter().map(|&owner| OWNERS[owner]).collect();
                action.push(format!("via = [{}]", quoted(&via)));
            }
            if let (Some(dscp), 0 | 3) = (rule.set_dscp, rule.action) {
                action.push(format!("set_dscp = {dscp}"));
            }
            let action = match (rule.action, action.is_empty()) {
                (1, _) => "\"drop\"".to_owned(),
                (2, _) => "\"reject\"".to_owned(),
                (_, true) => "\"route\"".to_owned(),
                (_, false) => format!("{{ {} }}", action.join(", ")),
            };
            writeln!(
                text,
                "[[policy]]\nname = \"rule-{place}\"\nmatch = {{ {} }}\naction = {action}",
                keys.join(", ")
            )
            .unwrap();
        }
        writeln!(text, "[failover]\nbranch_transit = {}", self.transit).unwrap();
        text
    }

    /// The model's answer, with the place of the rule that matched.
    pub(super) fn fate(&self, packet: &Packet, health: u8) -> (Fate, Option<usize>) {
        let (source, destination) = (packet.source, packet.destination);
        let inside =
            |list: &[&str], address: IpAddr| list.iter().any(|one| net(one).contains(&address));
        let own = [
            "10.1.255.4",
            "fd00:1:0:ff::4",
            "172.16.0.2",
            "172.16.1.2",
            "172.16.2.2",
            "fd00:16:0::2",
            "fd00:16:1::2",
        ]
        .map(|one| one.parse::<IpAddr>().unwrap());
        let martians = ["127.0.0.0/8", "224.0.0.0/4", "ff00::/8"];
        if inside(&martians, source) || inside(&martians, destination) {
            return (Fate::Drop("martian"), None);
        }
        let vnet = ["10.1.0.0/16", "fd00:1::/48"];
        // What is configured for an owner, and what is routed to it.
        let belongs_to = |owner: usize| -> Vec<&str> {
            let over = self.routes.iter().filter(|(_, hop)| *hop == owner + 2);
            let over = over.map(|&(prefix, _)| prefix);
            self.prefixes[owner].iter().copied().chain(over).collect()
        };
        let may = !own.contains(&source)
            && match packet.from {
                0 => inside(&vnet, source),
                // Anything may come from a circuit, but nothing of the virtual network's, and nothing that is another's
                // and not its own too. Who is the way to everything has not everything.
                path if path <= 3 => {
                    let owner = PATHS[path - 1].1;
                    let links = ["172.16.0.0/24", "fd00:16:0::/64"];
                    let links = if owner == 0 { &links[..] } else { &[] };
                    let is_own = inside(&belongs_to(owner), source) || inside(links, source);
                    let others = (0..OWNERS.len()).filter(|&other| other != owner);
                    let others: Vec<&str> = others
                        .flat_map(belongs_to)
                        .filter(|prefix| !prefix.ends_with("/0"))
                        .collect();
                    !inside(&vnet, source) && (is_own || !inside(&others, source))
                }
                // What is routed to a site may come from it, but nothing of the virtual network's.
                path => {
                    let owner = PATHS[path - 1].1;
                    !inside(&vnet, source) && inside(&belongs_to(owner), source)
                }
            };
        if !may {
            return (Fate::Drop("spoofed_source"), None);
        }
        if own.contains(&destination) {
            return (Fate::Local, None);
        }
        let place = self.rules.iter().position(|rule| rule.holds(packet));
        let rule = place.map(|place| &self.rules[place]);
        let dscp = rule.and_then(|rule| rule.set_dscp.filter(|_| matches!(rule.action, 0 | 3)));
        let fate = match rule {
            Some(rule) if rule.action == 1 => Fate::Drop("policy"),
            Some(rule) if rule.action == 2 => Fate::Drop("policy_reject"),
            Some(rule) if rule.action == 3 => {
                let tiers = rule.via.iter().map(|&owner| Self::of_owner(owner, packet));
                self.take(packet, tiers.collect(), health, dscp)
            }
            _ => self.route(packet, health, dscp),
        };
        (fate, place)
    }

    /// The paths of an owner that carry the packet's IP version.
    fn of_owner(owner: usize, packet: &Packet) -> Vec<usize> {
        let carries = |path: usize| packet.destination.is_ipv4() || path != 2;
        (0..PATHS.len())
            .filter(|&path| PATHS[path].1 == owner && carries(path))
            .collect()
    }

    fn route(&self, packet: &Packet, health: u8, dscp: Option<u8>) -> Fate {
        let to = packet.destination;
        // Rank and prefix; the hop as in `routes`, 9 for the Internet, 10 and more for a link's own subnet.
        let mut candidates: Vec<(u8, IpNet, usize)> = Vec::new();
        for (owner, prefixes) in self.prefixes.iter().enumerate() {
            candidates.extend(prefixes.iter().map(|one| (2, net(one), owner + 2)));
        }
        candidates.extend(
            self.routes
                .iter()
                .map(|&(prefix, hop)| (1, net(prefix), hop)),
        );
        for (prefix, hop) in [
            ("10.1.0.0/16", 1),
            ("fd00:1::/48", 1),
            ("0.0.0.0/0", 9),
            ("::/0", 9),
            ("10.0.0.0/8", 0),
            ("172.16.0.0/12", 0),
            ("192.168.0.0/16", 0),
            ("100.64.0.0/10", 0),
        ] {
            candidates.push((3, net(prefix), hop));
        }
        for (path, subnet) in [
            (0, "172.16.0.0/30"),
            (1, "172.16.1.0/30"),
            (2, "172.16.2.0/30"),
            (0, "fd00:16:0::/126"),
            (1, "fd00:16:1::/126"),
        ] {
            candidates.push((0, net(subnet), 10 + path));
        }
        candidates.retain(|(_, prefix, _)| prefix.contains(&to));
        let Some(longest) = candidates.iter().map(|one| one.1.prefix_len()).max() else {
            return Fate::Drop("no_route");
        };
        candidates.retain(|one| one.1.prefix_len() == longest);
        let best = candidates.iter().map(|one| one.0).min().unwrap();
        candidates.retain(|one| one.0 == best);
        match candidates[0].2 {
            0 => Fate::Drop("route_none"),
            1 if packet.from == 0 => Fate::Drop("hairpin"),
            1 => Fate::Vnet(dscp),
            9 => Fate::Drop("no_route"),
            link if link >= 10 => self.take(packet, vec![vec![link - 10]], 0xff, dscp),
            _ => {
                // ExpressRoute before VPN; equal ones side by side.
                let of = |expressroute: bool| {
                    let owners = candidates.iter().map(|one| one.2 - 2);
                    let mut paths: Vec<usize> = owners
                        .filter(|&owner| (owner < 2) == expressroute)
                        .flat_map(|owner| Self::of_owner(owner, packet))
                        .collect();
                    paths.sort_unstable();
                    paths.dedup();
                    paths
                };
                self.take(packet, vec![of(true), of(false)], health, dscp)
            }
        }
    }

    fn take(&self, packet: &Packet, tiers: Vec<Vec<usize>>, health: u8, dscp: Option<u8>) -> Fate {
        let usable = |tier: Vec<usize>| -> Vec<usize> {
            tier.into_iter()
                .filter(|path| health >> path & 1 != 0)
                .collect()
        };
        let paths = tiers.into_iter().map(usable).find(|tier| !tier.is_empty());
        let Some(paths) = paths else {
            return Fate::Drop("no_path");
        };
        if packet.from == 0 {
            return Fate::Paths(paths, dscp);
        }
        let own = PATHS[packet.from - 1].1;
        let others: Vec<usize> = paths
            .iter()
            .copied()
            .filter(|&path| PATHS[path].1 != own)
            .collect();
        match (others.is_empty(), others.len() == paths.len(), self.transit) {
            (true, _, _) => Fate::Drop("hairpin"),
            (_, true, true) => Fate::Paths(paths, dscp),
            (_, true, false) => Fate::Drop("branch_transit"),
            _ => Fate::HairpinOrTransit(if self.transit { others } else { Vec::new() }, dscp),
        }
    }
}

impl Rule {
    fn holds(&self, packet: &Packet) -> bool {
        let has_port = matches!(packet.protocol, 6 | 17);
        let within = |one: &&str, address: IpAddr| {
            let list: &[&str] = if *one == "@set" {
                &SET
            } else {
                std::slice::from_ref(one)
            };
            list.iter().any(|one| net(one).contains(&address))
        };
        let from = |one: &&str| match packet.from {
            0 => *one == "vnet",
            path => *one == OWNERS[PATHS[path - 1].1],
        };
        let (given, not) = (&self.given, &self.not);
        let some = Some(true);
        field(&given.from, &not.from, some, from)
            && field(&given.source, &not.source, some, |one| {
                within(one, packet.source)
            })
            && field(&given.destination, &not.destination, some, |one| {
                within(one, packet.destination)
            })
            && field(&given.protocol, &not.protocol, some, |&one| {
                one == packet.protocol
            })
            && field(
                &given.port,
                &not.port,
                has_port.then_some(true),
                |&(first, last)| (first..=last).contains(&packet.port),
            )
            && field(&given.dscp, &not.dscp, some, |&one| one == packet.dscp)
    }
}

/// Whether a field holds: given values and such as must not hold; `None` where the packet has no such field.
pub(super) fn field<T>(
    given: &[T],
    not: &[T],
    value: Option<bool>,
    is: impl Fn(&T) -> bool,
) -> bool {
    let there = value.is_some();
    (given.is_empty() || there && given.iter().any(&is))
        && (not.is_empty() || there && !not.iter().any(&is))
}

pub(super) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}
