//! Whether the machine lives in the virtual network itself: a rule for the file on its own host alone. What the kernel
//! reaches by itself never comes to the gateway's device, and answers to it take another way than the question did.

use super::{Rules, found, overlap};
use crate::device::interface::Interface;
use crate::device::netlink::{Netlink, TableRoute};
use ipnet::IpNet;

/// What the kernel sets by itself for an address (RTPROT_KERNEL).
const BY_KERNEL: u8 = 2;
/// A route to somewhere (RTN_UNICAST): not a blackhole, nor to the machine itself.
const UNICAST: u8 = 1;
/// How many are named.
const NAMED: usize = 3;

pub(super) fn check(rules: &mut Rules) {
    // Who may not ask the kernel is told of it where it matters.
    let Ok(mut netlink) = Netlink::open() else {
        return;
    };
    let space = &rules.config.vnet.address_space;
    let device = Interface::query(&rules.config.vnet.device).ok();
    let device = device.map(|device| device.index);
    let meets = |net: &IpNet| space.iter().find(|space| overlap(space, net)).copied();

    let mut addresses = Vec::new();
    for (index, address) in netlink.all_addresses().unwrap_or_default() {
        let within = space.iter().find(|space| space.contains(&address.addr()));
        if let Some(within) = within.filter(|_| Some(index) != device) {
            addresses.push((index, address, *within));
        }
    }
    let mut routes: Vec<(TableRoute, IpNet)> = Vec::new();
    let listed = netlink.main_table(&mut |route| {
        if route.kind != UNICAST || Some(route.interface) == device {
            return;
        }
        let Some(space) = meets(&route.destination) else {
            return;
        };
        // A route that is wider gives way to the device's own, unless the machine is on that network itself.
        let is_wider = route.destination.prefix_len() < space.prefix_len();
        let is_told = |(index, address, _): &(u32, IpNet, IpNet)| {
            route.protocol == BY_KERNEL
                && *index == route.interface
                && address.trunc() == route.destination
        };
        if (is_wider && route.protocol != BY_KERNEL) || addresses.iter().any(is_told) {
            return;
        }
        routes.push((route, space));
    });
    if listed.is_err() {
        routes.clear();
    }
    let name = |index: u32| Interface::name(index).unwrap_or_else(|| format!("interface {index}"));
    let of_addresses: Vec<String> = addresses
        .iter()
        .map(|(index, address, space)| format!("{address} of {} is in {space}", name(*index)))
        .collect();
    let of_routes: Vec<String> = routes
        .iter()
        .map(|(route, _)| {
            let to = match route.interface {
                0 => "elsewhere".to_owned(),
                index => format!("to {}", name(index)),
            };
            format!("the route to {} leads {to}", route.destination)
        })
        .collect();
    if !of_addresses.is_empty() {
        let words = found(listed_in_words(&of_addresses)).help(
            "the machine reaches that network by itself, past the gateway: give the virtual network other prefixes, or \
             the machine an address elsewhere; the gateway's own side of the network is vnet.host_address",
        );
        rules.warning(
            "vnet.address_space",
            "is this machine's own network too",
            words,
        );
    }
    if !of_routes.is_empty() {
        let words = found(listed_in_words(&of_routes)).help(
            "what comes out of the gateway for these addresses leaves there, and what comes from there does not pass the \
             gateway; take the route away unless that is meant",
        );
        rules.warning(
            "vnet.address_space",
            "is behind another interface too",
            words,
        );
    }
}

/// The first of them, and how many more there are.
fn listed_in_words(all: &[String]) -> String {
    let named: Vec<&str> = all.iter().take(NAMED).map(String::as_str).collect();
    match all.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{}, and {more} more", named.join(", ")),
    }
}
