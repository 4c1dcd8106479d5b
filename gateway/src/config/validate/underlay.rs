//! What the machine says of the way to the far ends: a rule for the file on its own host alone.

use super::{Rules, found};
use crate::device::udp::{InterfaceName, RouteOptions, route_mtu};

pub(super) fn check(rules: &mut Rules) {
    let Some(vpn) = &rules.config.vpn else {
        return;
    };
    for (index, site) in vpn.sites.iter().enumerate() {
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
