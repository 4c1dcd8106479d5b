//! What the machine says of the way to the far ends: a rule for the file on its own host alone.

use super::{Rules, found};
use crate::config::schema::{Site, Vpn};
use crate::device::interface::Interface;
use crate::device::udp::{InterfaceName, RouteOptions, route_mtu};

pub(super) fn check(rules: &mut Rules) {
    let Some(vpn) = &rules.config.vpn else {
        return;
    };
    for (index, site) in vpn.sites.iter().enumerate() {
        over(rules, vpn, site, index);
        let Some(endpoint) = site.endpoint.filter(|_| site.over.is_none()) else {
            continue;
        };
        let mut own = vpn.bind_address.iter();
        let options = RouteOptions {
            local: own.find(|own| own.is_ipv4() == endpoint.is_ipv4()).copied(),
            interface: vpn.interface.as_deref().and_then(InterfaceName::new),
            mark: vpn.fwmark,
        };
        // Without a route now there may be one later, and what it takes is seen then.
        let Ok(mtu) = route_mtu(&endpoint, options) else {
            continue;
        };
        let (inner, around) = (u32::from(vpn.mtu_of(site)), vpn.overhead(endpoint));
        if mtu >= inner + around {
            continue;
        }
        let room = mtu.saturating_sub(around);
        let words = found(format!(
            "the route to {endpoint} takes packets of {mtu} bytes, and those of the tunnel have up to {}",
            inner + around
        ))
        .help(if vpn.path_mtu_discovery {
            format!("the tunnel will take packets of {room} bytes; mtu = {room} says so from the start")
        } else {
            format!("longer ones go in fragments, which costs throughput and which some networks drop; mtu = {room} avoids it")
        });
        rules.warning(
            &format!("vpn.site[{index}].endpoint"),
            "has a narrow route",
            words,
        );
    }
}

/// A tunnel over a circuit is as wide as the circuit's links let it be.
fn over(rules: &mut Rules, vpn: &Vpn, site: &Site, index: usize) {
    let mut circuits = rules.config.circuits().iter();
    let Some(circuit) = circuits.find(|circuit| Some(&circuit.name) == site.over.as_ref()) else {
        return;
    };
    let known = |name: &String| Some((name.clone(), Interface::query(name).ok()?.mtu));
    let links = circuit.links.iter();
    let narrowest = links
        .filter_map(|link| known(&link.interface))
        .min_by_key(|(_, mtu)| *mtu);
    // Who has no endpoint here calls by IPv4 at least.
    let around = site.endpoint.map_or(60, |endpoint| vpn.overhead(endpoint));
    let whole = u32::from(vpn.mtu_of(site)) + around;
    let Some((name, mtu)) = narrowest.filter(|(_, mtu)| *mtu < whole) else {
        return;
    };
    let words = found(format!(
        "interface {name} takes packets of {mtu} bytes, and those of the tunnel have up to {whole}"
    ))
    .help(format!(
        "the tunnel takes smaller packets while that is so, and senders are told; mtu = {} says so from the start",
        mtu.saturating_sub(around)
    ));
    rules.warning(
        &format!("vpn.site[{index}].over"),
        "has a narrow link",
        words,
    );
}
