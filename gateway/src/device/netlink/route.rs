//! Addresses of links, and routes.

use super::socket::{Error, Netlink};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::fmt;
use std::net::IpAddr;

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via<'a> {
    /// To a router on a link.
    Gateway(IpAddr),
    /// Straight onto the link of this name.
    Link(&'a str),
    /// To a router reached through the link of this name.
    GatewayOn(IpAddr, &'a str),
}

/// A unicast route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<'a> {
    /// Destination; host bits do not count.
    pub destination: IpNet,
    /// Where it leads.
    pub via: Via<'a>,
    /// Preference among routes of one destination, lower first; `None`: the kernel's default
    /// (0 for IPv4, 1024 for IPv6).
    pub metric: Option<u32>,
}

impl<'a> Route<'a> {
    /// A route with the default metric.
    pub fn new(destination: IpNet, via: Via<'a>) -> Self {
        Self {
            destination,
            via,
            metric: None,
        }
    }

    /// The same with this metric.
    #[must_use]
    pub fn metric(self, metric: u32) -> Self {
        Self {
            metric: Some(metric),
            ..self
        }
    }
}

impl fmt::Display for Route<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination.trunc())?;
        match self.via {
            Via::Gateway(gateway) => write!(f, " via {gateway}"),
            Via::Link(link) => write!(f, " dev {link}"),
            Via::GatewayOn(gateway, link) => write!(f, " via {gateway} dev {link}"),
        }?;
        self.metric
            .map_or(Ok(()), |metric| write!(f, " metric {metric}"))
    }
}

impl Netlink {
    /// Gives a link an address; the kernel adds the route to its prefix once the link is up. IPv6 goes
    /// without duplicate detection (RFC 4862, 5.4), so that the address can be used at once: on the links
    /// this is for, a TUN device or a pair of veth, there is nobody to be a duplicate of.
    ///
    /// # Errors
    /// As those of [`Netlink::index`] and [`Netlink::add_address_at`].
    pub fn add_address(&mut self, link: &str, address: IpNet) -> Result<(), Error> {
        let message = self.address(link, address)?;
        self.change(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_EXCL,
            || format!("add address {address} to {link}"),
        )
    }

    /// The same for the link of this index.
    ///
    /// # Errors
    /// [`Error::Refused`] by RTM_NEWADDR: the link has it already ([`Error::is_exists`]), there is no such link
    /// ([`Error::is_absent`]), or EPERM without CAP_NET_ADMIN; or the connection's own.
    pub fn add_address_at(&mut self, index: u32, address: IpNet) -> Result<(), Error> {
        self.change(
            RouteNetlinkMessage::NewAddress(address_message(index, address)),
            NLM_F_CREATE | NLM_F_EXCL,
            || format!("add address {address} to interface {index}"),
        )
    }

    /// Takes an address from the link of this index.
    ///
    /// # Errors
    /// [`Error::Refused`] by RTM_DELADDR: the link has no such address or is not there itself ([`Error::is_absent`]),
    /// or EPERM without CAP_NET_ADMIN; or the connection's own.
    pub fn delete_address_at(&mut self, index: u32, address: IpNet) -> Result<(), Error> {
        let message = RouteNetlinkMessage::DelAddress(address_message(index, address));
        self.change(message, 0, || {
            format!("delete address {address} from interface {index}")
        })
    }

    /// Takes an address from a link.
    ///
    /// # Errors
    /// As those of [`Netlink::index`] and [`Netlink::delete_address_at`].
    pub fn delete_address(&mut self, link: &str, address: IpNet) -> Result<(), Error> {
        let message = self.address(link, address)?;
        self.change(RouteNetlinkMessage::DelAddress(message), 0, || {
            format!("delete address {address} from {link}")
        })
    }

    /// Adds a route; refused if there is one to this destination with this metric.
    ///
    /// # Errors
    /// As those of [`Netlink::index`] for the link that it names; [`Error::Refused`] by RTM_NEWROUTE: there is one
    /// ([`Error::is_exists`]), no link leads to the router (ENETUNREACH, EHOSTUNREACH), the link is down (ENETDOWN),
    /// or EPERM without CAP_NET_ADMIN; or the connection's own.
    pub fn add_route(&mut self, route: &Route<'_>) -> Result<(), Error> {
        let message = self.route(route)?;
        self.change(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_EXCL,
            || format!("add route {route}"),
        )
    }

    /// Adds a route, in place of the one to this destination with this metric.
    ///
    /// # Errors
    /// As those of [`Netlink::add_route`], but for a route that stands there already.
    pub fn replace_route(&mut self, route: &Route<'_>) -> Result<(), Error> {
        let message = self.route(route)?;
        self.change(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            || format!("set route {route}"),
        )
    }

    /// Deletes a route.
    ///
    /// # Errors
    /// As those of [`Netlink::index`] for the link that it names; [`Error::Refused`] by RTM_DELROUTE: there is none
    /// (ESRCH, [`Error::is_absent`]), or EPERM without CAP_NET_ADMIN; or the connection's own.
    pub fn delete_route(&mut self, route: &Route<'_>) -> Result<(), Error> {
        let message = self.route(route)?;
        self.change(RouteNetlinkMessage::DelRoute(message), 0, || {
            format!("delete route {route}")
        })
    }

    fn address(&mut self, link: &str, address: IpNet) -> Result<AddressMessage, Error> {
        Ok(address_message(self.index(link)?, address))
    }

    fn route(&mut self, route: &Route<'_>) -> Result<RouteMessage, Error> {
        let destination = route.destination.trunc();
        let (gateway, link) = match route.via {
            Via::Gateway(gateway) => (Some(gateway), None),
            Via::Link(link) => (None, Some(link)),
            Via::GatewayOn(gateway, link) => (Some(gateway), Some(link)),
        };
        let mut message = RouteMessage::default();
        message.header.address_family = family(destination.addr());
        message.header.destination_prefix_length = destination.prefix_len();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        // IPv4 wants link scope for what is on the link itself; IPv6 ignores the scope.
        message.header.scope = if gateway.is_some() {
            RouteScope::Universe
        } else {
            RouteScope::Link
        };
        message
            .attributes
            .push(RouteAttribute::Destination(destination.addr().into()));
        if let Some(gateway) = gateway {
            message
                .attributes
                .push(RouteAttribute::Gateway(gateway.into()));
        }
        if let Some(link) = link {
            message
                .attributes
                .push(RouteAttribute::Oif(self.index(link)?));
        }
        if let Some(metric) = route.metric {
            message.attributes.push(RouteAttribute::Priority(metric));
        }
        Ok(message)
    }
}

fn address_message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    if address.addr().is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    // For IPv4, LOCAL is the address and ADDRESS the far end of a point-to-point link, the same here.
    message.attributes = vec![
        AddressAttribute::Local(address.addr()),
        AddressAttribute::Address(address.addr()),
    ];
    message
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::namespace::Namespace;
    use crate::device::netlink::VethEnd;
    use std::net::UdpSocket;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    /// The source address that the kernel would use towards `destination`, if it has a route.
    fn source_towards(namespace: &Namespace, destination: &str) -> Option<IpAddr> {
        let any = if destination.contains('.') {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let target = (destination.parse::<IpAddr>().unwrap(), 9);
        namespace
            .run(move || {
                let socket = UdpSocket::bind(any).ok()?;
                socket.connect(target).ok()?;
                Some(socket.local_addr().ok()?.ip())
            })
            .unwrap()
    }

    #[test]
    fn addresses_and_routes_come_into_force_and_go() {
        let space = Namespace::new().unwrap();
        let mut netlink = space.run(Netlink::open).unwrap().unwrap();
        netlink
            .add_veth(VethEnd::here("d0"), VethEnd::here("d1"))
            .unwrap();
        netlink.set_up("d0", true).unwrap();
        netlink.set_up("d1", true).unwrap();
        netlink.add_address("d0", net("10.1.0.4/16")).unwrap();
        netlink.add_address("d0", net("fd00:1::4/48")).unwrap();
        assert!(
            netlink
                .add_address("d0", net("10.1.0.4/16"))
                .unwrap_err()
                .is_exists()
        );

        assert_eq!(source_towards(&space, "10.2.0.10"), None);
        let routes = [
            Route::new(net("10.2.0.0/16"), Via::Link("d0")),
            Route::new(
                net("10.3.0.0/16"),
                Via::Gateway("10.1.0.9".parse().unwrap()),
            )
            .metric(7),
            Route::new(
                net("fd00:2::/48"),
                Via::GatewayOn("fd00:1::9".parse().unwrap(), "d0"),
            ),
        ];
        for route in &routes {
            netlink.add_route(route).unwrap();
            assert!(netlink.add_route(route).unwrap_err().is_exists(), "{route}");
            netlink.replace_route(route).unwrap();
        }
        assert_eq!(
            source_towards(&space, "10.2.0.10"),
            Some("10.1.0.4".parse().unwrap())
        );
        assert_eq!(
            source_towards(&space, "10.3.0.10"),
            Some("10.1.0.4".parse().unwrap())
        );
        assert_eq!(
            source_towards(&space, "fd00:2::10"),
            Some("fd00:1::4".parse().unwrap())
        );
        for route in &routes {
            netlink.delete_route(route).unwrap();
            assert!(
                netlink.delete_route(route).unwrap_err().is_absent(),
                "{route}"
            );
        }
        assert_eq!(source_towards(&space, "10.2.0.10"), None);
        netlink.delete_address("d0", net("10.1.0.4/16")).unwrap();
        assert!(
            netlink
                .delete_address("d0", net("10.1.0.4/16"))
                .unwrap_err()
                .is_absent()
        );
    }
}
