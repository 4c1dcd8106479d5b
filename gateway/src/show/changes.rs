//! What differs between two configurations: what can be changed while the gateway runs, and what cannot.

use crate::config::schema::{Circuit, Config, ExpressRoute, Site, Vpn};
use crate::plan::difference::Difference;
use crate::plan::limit;
use ipnet::IpNet;
use routing::rib::OwnerId;
use std::collections::{HashMap, HashSet};

/// What differs between two configurations and cannot be changed while the gateway runs, whose workers have
/// ports for so many lanes of a site, and tunnels over these circuits.
pub(crate) fn needs_restart(
    old: &Config,
    new: &Config,
    (most_lanes, underlays): (u8, &[OwnerId]),
) -> Vec<String> {
    let mut lines = Vec::new();
    let mut check = |what: &str, same: bool| {
        if !same {
            lines.push(what.to_owned());
        }
    };
    let (a, b) = (&old.vnet, &new.vnet);
    check("vnet.device", a.device == b.device);
    check("vnet.mtu", a.mtu == b.mtu);
    check("vnet.host_address", a.host_address == b.host_address);
    check("vnet.offload", a.offload == b.offload);
    check(
        "control.metrics",
        old.control.metrics == new.control.metrics,
    );
    check("control.socket", old.control.socket == new.control.socket);
    check(
        "control.workers",
        old.control.workers == new.control.workers,
    );
    check(
        "control.polling",
        old.control.polling == new.control.polling,
    );
    let links = |config: &Config| -> Vec<_> {
        let links = config.circuits().iter().flat_map(|circuit| {
            circuit
                .links
                .iter()
                .map(|link| (circuit.name.clone(), link.clone()))
        });
        links.collect()
    };
    check("the circuits' links", links(old) == links(new));
    for site in new.sites() {
        check(
            &format!("more than {most_lanes} lanes, of site {}", site.name),
            site.lanes <= most_lanes,
        );
        let circuits = new.circuits().iter().enumerate();
        let mut over = circuits.filter(|(_, circuit)| Some(&circuit.name) == site.over.as_ref());
        check(
            &format!("the first tunnel over a circuit, of site {}", site.name),
            over.all(|(place, _)| underlays.contains(&OwnerId(place as u16))),
        );
    }
    let vpns = (old.vpn.as_ref(), new.vpn.as_ref());
    check("a VPN gateway", vpns.0.is_some() == vpns.1.is_some());
    if let (Some(old), Some(new)) = vpns {
        check("vpn.listen_port", old.listen_port == new.listen_port);
        check("vpn.mtu", old.mtu == new.mtu);
        check("vpn.offload", old.offload == new.offload);
        check("vpn.bind_address", old.bind_address == new.bind_address);
        check("vpn.interface", old.interface == new.interface);
        check("vpn.fwmark", old.fwmark == new.fwmark);
        check(
            "vpn.path_mtu_discovery",
            old.path_mtu_discovery == new.path_mtu_discovery,
        );
    }
    lines
}

/// Prefixes of one list that are named, each way; of more the number is said.
const NAMED: usize = 20;

/// A line for each prefix that is gone and each that is new.
fn prefixes(lines: &mut Vec<String>, name: &str, old: &[IpNet], new: &[IpNet]) {
    if old == new {
        return;
    }
    // No prefix stands in a list twice: one that is the same before or behind what differs is in neither rest.
    let Difference { old, new, .. } = Difference::between(old, new);
    let (before, now): (HashSet<_>, HashSet<_>) = (old.iter().collect(), new.iter().collect());
    let mut tell = |from: &[IpNet], other: &HashSet<&IpNet>, what: &str| {
        let mut all = from.iter().filter(|prefix| !other.contains(prefix));
        lines.extend(
            all.by_ref()
                .take(NAMED)
                .map(|prefix| format!("{name}: {prefix} {what}")),
        );
        let more = all.count();
        if more > 0 {
            lines.push(format!("{name}: {more} more {what}"));
        }
    };
    tell(old, &now, "taken away");
    tell(new, &before, "added");
    if before == now {
        lines.push(format!("{name}: the order of the prefixes changed"));
    }
}

/// What differs between two configurations and can be changed while the gateway runs, one line each; what
/// becomes of tunnels is told apart, [`TunnelSet::changes`](crate::tunnels::TunnelSet::changes).
pub(crate) fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    prefixes(
        &mut lines,
        "vnet.address_space",
        &old.vnet.address_space,
        &new.vnet.address_space,
    );
    prefixes(
        &mut lines,
        "vnet.address",
        &old.vnet.address,
        &new.vnet.address,
    );
    for (a, b) in old.circuits().iter().zip(new.circuits()) {
        let name = format!("circuit {}", b.name);
        prefixes(&mut lines, &name, &a.prefixes, &b.prefixes);
    }
    let before: HashMap<&str, &Site> = old
        .sites()
        .iter()
        .map(|site| (site.name.as_str(), site))
        .collect();
    for b in new.sites() {
        if let Some(a) = before.get(b.name.as_str()) {
            prefixes(
                &mut lines,
                &format!("site {}", b.name),
                &a.prefixes,
                &b.prefixes,
            );
        }
    }
    prefixes(
        &mut lines,
        "point-to-site",
        old.client_pools(),
        new.client_pools(),
    );
    let mut changed = |what: &str, same: bool| {
        if !same {
            lines.push(format!("{what} changed"));
        }
    };
    changed("vnet.name", old.vnet.name == new.vnet.name);
    changed(
        "policy",
        old.policy == new.policy && old.prefix_sets == new.prefix_sets,
    );
    changed("user-defined routes", old.route == new.route);
    let weights = |config: &Config| -> Vec<u32> {
        let circuits = config.circuits().iter().map(|circuit| circuit.weight);
        circuits
            .chain(config.sites().iter().map(|site| site.weight))
            .collect()
    };
    changed("the weights of connections", weights(old) == weights(new));
    changed("failover", old.failover == new.failover);
    let sku = |config: &Config| {
        let (expressroute, vpn) = (config.expressroute.as_ref(), config.vpn.as_ref());
        (expressroute.map(ExpressRoute::choice), vpn.map(Vpn::choice))
    };
    changed("the SKUs", sku(old) == sku(new));
    let rates = |config: &Config| (limit::expressroute(config), limit::vpn(config));
    changed("the rates of the SKUs", rates(old) == rates(new));
    changed(
        "vnet.host_routes",
        old.vnet.host_routes == new.vnet.host_routes,
    );
    changed(
        "vnet.host_route_metric",
        old.vnet.host_route_metric == new.vnet.host_route_metric,
    );
    let probes = |config: &Config| -> Vec<_> {
        let circuits = config
            .circuits()
            .iter()
            .map(|circuit| circuit.probe.clone());
        circuits
            .chain(config.sites().iter().map(|site| site.probe.clone()))
            .collect()
    };
    changed("probes", probes(old) == probes(new));
    let circuits = |config: &Config| -> Vec<_> {
        let facts = |circuit: &Circuit| (circuit.model, circuit.premium, circuit.fragments);
        config.circuits().iter().map(facts).collect()
    };
    changed(
        "model, premium or fragments of circuits",
        circuits(old) == circuits(new),
    );
    let asn = |config: &Config| config.expressroute.as_ref().map(|gateway| gateway.asn);
    changed("expressroute.asn", asn(old) == asn(new));
    let kinds = |config: &Config| -> Vec<_> {
        let sites = config.sites().iter();
        sites.map(|site| (site.name.clone(), site.kind)).collect()
    };
    changed(
        "the sites, their order or their kinds",
        kinds(old) == kinds(new),
    );
    let endpoint = |config: &Config| config.vpn.as_ref().map(|vpn| vpn.public_endpoint.clone());
    changed("vpn.public_endpoint", endpoint(old) == endpoint(new));
    let files = |config: &Config| -> Vec<_> {
        let own = config
            .vpn
            .iter()
            .map(|vpn| Some(vpn.private_key_file.clone()));
        let sites = config
            .sites()
            .iter()
            .map(|site| site.preshared_key_file.clone());
        own.chain(sites).collect()
    };
    changed("the names of key files", files(old) == files(new));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, KeyFiles};
    use crate::pipeline::fragment::FragmentPolicy;
    use std::path::Path;

    fn example() -> Config {
        let text = include_str!("../../../docs/examples/coexist.toml").to_owned();
        let loaded = config::parse(Path::new("f"), text, Path::new(""), KeyFiles::Skipped);
        loaded.unwrap().config
    }

    #[test]
    fn prefixes_that_come_and_go_are_named_and_beyond_a_few_counted() {
        let net = |number: u32| IpNet::new((0x0b00_0000 + (number << 8)).to_be_bytes().into(), 24);
        let all: Vec<IpNet> = (0..100).map(|number| net(number).unwrap()).collect();
        let mut lines = Vec::new();
        prefixes(&mut lines, "site a", &all, &all[1..]);
        assert_eq!(lines, ["site a: 11.0.0.0/24 taken away"]);
        lines.clear();
        prefixes(&mut lines, "site a", &[], &all);
        assert_eq!(lines.len(), NAMED + 1);
        assert_eq!(lines[NAMED], "site a: 80 more added");
        lines.clear();
        let turned: Vec<IpNet> = all.iter().rev().copied().collect();
        prefixes(&mut lines, "site a", &all, &turned);
        assert_eq!(lines, ["site a: the order of the prefixes changed"]);
    }

    /// Regression: a reload said "nothing changed" of settings that nobody compared.
    #[test]
    fn a_setting_that_differs_is_said() {
        let old = example();
        assert_eq!(changes(&old, &old), [""; 0]);
        let says = |change: fn(&mut Config), said: &str| {
            let mut new = old.clone();
            change(&mut new);
            assert_eq!(changes(&old, &new), [said]);
        };
        says(|c| c.vnet.name = "other".into(), "vnet.name changed");
        says(
            |c| c.vpn.as_mut().unwrap().public_endpoint = Some("a.example:1".into()),
            "vpn.public_endpoint changed",
        );
        says(
            |c| c.expressroute.as_mut().unwrap().circuits[0].fragments = FragmentPolicy::Forward,
            "model, premium or fragments of circuits changed",
        );
        says(
            |c| c.vpn.as_mut().unwrap().private_key_file = "other".into(),
            "the names of key files changed",
        );
        // A weight is no part of the tunnel, which goes on.
        says(
            |c| c.vpn.as_mut().unwrap().sites[0].weight = 7,
            "the weights of connections changed",
        );
    }
}
