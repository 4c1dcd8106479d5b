//! The kernel's main table: what stands there, and many routes at once.

use super::raw::{self, TableRoute};
use super::socket::{Error, Netlink};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use std::io;
use std::net::IpAddr;

/// Marks the kernel routes that are the gateway's: a number that `/etc/iproute2/rt_protos` gives to nobody.
/// `ip route show proto 118` lists them.
pub const ROUTE_PROTOCOL: u8 = 118;

/// Metric of the routes that the kernel adds with an IPv6 address (IP6_RT_PRIO_ADDRCONF).
const CONNECTED_METRIC: u32 = 256;

/// The main table.
pub const MAIN_TABLE: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// Who set a route, as `ip` names it, for the common ones.
pub fn protocol_name(protocol: u8) -> String {
    let known = match protocol {
        2 => "kernel",
        3 => "boot",
        4 => "static",
        9 => "ra",
        11 => "zebra",
        12 => "bird",
        16 => "dhcp",
        ROUTE_PROTOCOL => "another vng",
        186 => "bgp",
        188 => "ospf",
        other => return other.to_string(),
    };
    known.to_owned()
}

/// A change of one route through a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteOrder {
    /// Sets it; refused (EEXIST) where one to this destination with this metric stands.
    Add,
    /// Takes it away.
    Delete,
}

impl Netlink {
    /// Gives every route of the main table to `each`.
    ///
    /// # Errors
    /// [`Error::Refused`] by RTM_GETROUTE, or the connection's own, as [`Netlink::links`]; `each` may have had some
    /// of the routes by then.
    pub fn main_table(&mut self, each: &mut dyn FnMut(TableRoute)) -> Result<(), Error> {
        let request = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        self.dump_raw(request, "list the routes", &mut |message| {
            let main = raw::table_and_protocol(message.payload)
                .is_some_and(|(table, _)| u32::from(table) == MAIN_TABLE);
            if main && let Some(route) = raw::route(message.payload) {
                each(route);
            }
        })
    }

    /// Adds or deletes routes of the gateway's own through the interface of this index, all in one request.
    /// The answers stand in the order of `prefixes`: `None`, done.
    ///
    /// # Errors
    /// The socket's; what the kernel refuses is in the answers.
    pub fn change_own_routes(
        &mut self,
        order: RouteOrder,
        prefixes: &[IpNet],
        (interface, metric): (u32, u32),
    ) -> Result<Vec<Option<io::Error>>, Error> {
        let messages = prefixes.iter().map(|prefix| {
            let message = own_route(*prefix, interface, metric);
            match order {
                RouteOrder::Add => RouteNetlinkMessage::NewRoute(message),
                RouteOrder::Delete => RouteNetlinkMessage::DelRoute(message),
            }
        });
        let flags = match order {
            RouteOrder::Add => NLM_F_CREATE | NLM_F_EXCL,
            RouteOrder::Delete => 0,
        };
        self.change_all(messages, flags)
    }

    /// Adds the route to an address's network, as the kernel does with the address: who flushes the routes
    /// of an interface takes it away too.
    ///
    /// # Errors
    /// [`Error::Refused`] by RTM_NEWROUTE: the route is there already ([`Error::is_exists`]), there is no such
    /// interface or it is down, or EPERM without CAP_NET_ADMIN; or the connection's own.
    pub fn add_network_at(&mut self, interface: u32, address: IpNet) -> Result<(), Error> {
        let mut message = own_route(address, interface, CONNECTED_METRIC);
        message.header.protocol = RouteProtocol::Kernel;
        if address.addr().is_ipv4() {
            // None (0), and the address as the source.
            message.attributes.pop();
            message
                .attributes
                .push(RouteAttribute::PrefSource(address.addr().into()));
        }
        self.change(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_EXCL,
            || format!("add the route to the network of {address}"),
        )
    }

    /// The addresses of the interface of this index.
    ///
    /// # Errors
    /// As those of [`Netlink::all_addresses`]; an interface that is not there has none.
    pub fn addresses(&mut self, interface: u32) -> Result<Vec<IpNet>, Error> {
        let all = self.all_addresses()?.into_iter();
        Ok(all
            .filter(|(of, _)| *of == interface)
            .map(|(_, address)| address)
            .collect())
    }

    /// Every address of the machine, with the index of its interface.
    ///
    /// # Errors
    /// [`Error::Refused`] by RTM_GETADDR, or the connection's own, as [`Netlink::links`].
    pub fn all_addresses(&mut self) -> Result<Vec<(u32, IpNet)>, Error> {
        let mut found = Vec::new();
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.dump(request, "list the addresses", &mut |answer| {
            let RouteNetlinkMessage::NewAddress(message) = answer else {
                return;
            };
            let mut own: Option<IpAddr> = None;
            for attribute in &message.attributes {
                match attribute {
                    // For IPv4 this is the address, and ADDRESS the far end's.
                    AddressAttribute::Local(address) => own = Some(*address),
                    AddressAttribute::Address(address) => own = own.or(Some(*address)),
                    _ => {}
                }
            }
            let net = own.and_then(|own| IpNet::new(own, message.header.prefix_len).ok());
            found.extend(net.map(|net| (message.header.index, net)));
        })?;
        Ok(found)
    }
}

fn own_route(prefix: IpNet, interface: u32, metric: u32) -> RouteMessage {
    let destination = prefix.trunc();
    let mut message = RouteMessage::default();
    message.header.address_family = super::route::family(destination.addr());
    message.header.destination_prefix_length = destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(ROUTE_PROTOCOL);
    message.header.kind = RouteType::Unicast;
    message.header.scope = RouteScope::Link;
    message.attributes = vec![
        RouteAttribute::Destination(destination.addr().into()),
        RouteAttribute::Oif(interface),
        RouteAttribute::Priority(metric),
    ];
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::namespace::Namespace;
    use crate::device::netlink::{Route, VethEnd, Via};

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn own_routes_stand_beside_others_and_are_told_apart() {
        let space = Namespace::new().unwrap();
        let mut netlink = space.run(Netlink::open).unwrap().unwrap();
        netlink
            .add_veth(VethEnd::here("d0"), VethEnd::here("d1"))
            .unwrap();
        netlink.set_up("d0", true).unwrap();
        netlink.set_up("d1", true).unwrap();
        netlink.add_address("d0", net("10.9.0.4/16")).unwrap();
        let index = netlink.index("d0").unwrap();
        assert!(
            netlink
                .addresses(index)
                .unwrap()
                .contains(&net("10.9.0.4/16"))
        );
        let theirs = Route::new(net("10.2.0.0/16"), Via::Link("d1")).metric(500);
        netlink.add_route(&theirs).unwrap();
        let ours = [
            net("10.2.0.0/16"),
            net("fd00:2::/48"),
            net("0.0.0.0/0"),
            net("::/0"),
        ];
        let done = netlink.change_own_routes(RouteOrder::Add, &ours, (index, 20));
        assert!(done.unwrap().iter().all(Option::is_none));
        let again = netlink.change_own_routes(RouteOrder::Add, &ours, (index, 20));
        let again = again.unwrap();
        assert!(again.iter().all(|answer| {
            answer
                .as_ref()
                .is_some_and(|e| e.kind() == io::ErrorKind::AlreadyExists)
        }));
        let mut found = Vec::new();
        netlink.main_table(&mut |route| found.push(route)).unwrap();
        for prefix in ours {
            let own = found
                .iter()
                .find(|r| r.destination == prefix && r.interface == index);
            assert_eq!(
                own.map(|r| (r.protocol, r.metric)),
                Some((ROUTE_PROTOCOL, 20))
            );
        }
        let other = found
            .iter()
            .find(|r| r.destination == ours[0] && r.metric == 500);
        assert_eq!(other.map(|r| r.protocol), Some(4));
        let gone = netlink.change_own_routes(RouteOrder::Delete, &ours, (index, 20));
        assert!(gone.unwrap().iter().all(Option::is_none));
        found.clear();
        netlink.main_table(&mut |route| found.push(route)).unwrap();
        assert!(found.iter().all(|route| route.protocol != ROUTE_PROTOCOL));
    }
}
