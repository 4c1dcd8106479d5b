//! Addresses, prefixes, and where a far end is.

use crate::config::schema;
use crate::config::schema::Addresses;
use crate::config::value::Kind;
use crate::config::value::Name;
use crate::config::value::Wrong;
use crate::config::value::quoted;
use crate::config::value::text;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use toml::de::DeValue;

/// A network: no host bits.
pub(in crate::config) struct Network;

impl Kind for Network {
    type Value = IpNet;

    fn allowed(&self) -> String {
        "a prefix such as \"10.2.0.0/16\" or \"fd00:2::/48\"".to_owned()
    }

    fn parse(&self, value: &DeValue) -> Result<IpNet, Wrong> {
        let prefix = prefix(text(value)?)?;
        if prefix.addr() != prefix.network() {
            let found = format!("found {prefix}, whose host bits are set");
            let corrected = format!("the network is \"{}\"", prefix.trunc());
            return Err(Wrong::new("is not a network", found).help(corrected));
        }
        Ok(prefix)
    }
}

/// An interface's address with the prefix length of its subnet.
pub(in crate::config) struct InterfaceAddress;

impl Kind for InterfaceAddress {
    type Value = IpNet;

    fn allowed(&self) -> String {
        "an address with the length of its subnet, such as \"172.16.0.2/30\"".to_owned()
    }

    fn parse(&self, value: &DeValue) -> Result<IpNet, Wrong> {
        let prefix = prefix(text(value)?)?;
        let wrong = |found: String| Err(Wrong::new("is not an interface's address", found));
        if let Some(kind) = unusable(prefix.addr()) {
            return wrong(format!("found {}, {kind}", prefix.addr()));
        }
        if let IpNet::V4(v4) = prefix
            && v4.prefix_len() <= 30
        {
            if v4.addr() == v4.network() {
                return wrong(format!("found the network's own address of {}", v4.trunc()));
            }
            if v4.addr() == v4.broadcast() {
                return wrong(format!("found the broadcast address of {}", v4.trunc()));
            }
        }
        Ok(prefix)
    }
}

fn prefix(written: &str) -> Result<IpNet, Wrong> {
    if let Ok(prefix) = written.parse() {
        return Ok(prefix);
    }
    let wrong = Wrong::new("is not a prefix", format!("found {}", quoted(written)));
    Err(match written.split_once('/') {
        None if written.parse::<IpAddr>().is_ok() => wrong.help(format!(
            "the prefix length is missing: \"{written}/LENGTH\""
        )),
        Some((address, length)) => match (address.parse::<IpAddr>(), length.parse::<u32>()) {
            (Ok(IpAddr::V4(_)), _) => wrong.help("the length of an IPv4 prefix is 0 to 32"),
            (Ok(IpAddr::V6(_)), _) => wrong.help("the length of an IPv6 prefix is 0 to 128"),
            (Err(_), _) => wrong.help(format!("{} is not an IP address", quoted(address))),
        },
        None => wrong,
    })
}

/// Why no host can have this address.
fn unusable(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        _ if address.is_unspecified() => Some("the unspecified address"),
        _ if address.is_loopback() => Some("a loopback address"),
        _ if address.is_multicast() => Some("a multicast address"),
        _ => None,
    }
}

/// The address of one host.
pub(in crate::config) struct Address;

impl Kind for Address {
    type Value = IpAddr;

    fn allowed(&self) -> String {
        "an IP address such as \"172.16.0.1\"".to_owned()
    }

    fn parse(&self, value: &DeValue) -> Result<IpAddr, Wrong> {
        let written = text(value)?;
        if let Ok(address) = written.parse() {
            return match unusable(address) {
                None => Ok(address),
                Some(kind) => Err(Wrong::new(
                    "cannot be a host's address",
                    format!("found {kind}"),
                )),
            };
        }
        let wrong = Wrong::new("is not an IP address", format!("found {}", quoted(written)));
        Err(match written.split_once('/') {
            Some((address, _)) if address.parse::<IpAddr>().is_ok() => {
                wrong.help(format!("write it without the length: \"{address}\""))
            }
            _ => wrong,
        })
    }
}

/// A host, by name or address, and a UDP port.
pub(crate) struct HostPort;

impl HostPort {
    /// Whether this is one: a name of letters, digits, dots and hyphens (RFC 1123, 2.1), an IPv4 address, or
    /// an IPv6 address in brackets; then a colon and a port.
    pub(crate) fn holds(written: &str) -> bool {
        if let Ok(address) = written.parse::<SocketAddr>() {
            return address.port() != 0 && unusable(address.ip()).is_none();
        }
        let Some((host, port)) = written.rsplit_once(':') else {
            return false;
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        // What ends in a digit is meant as an address, and was none.
        (1..=253).contains(&host.len())
            && host.chars().all(legal)
            && host.starts_with(|c: char| c.is_ascii_alphanumeric())
            && !host.ends_with(|c: char| !c.is_ascii_alphabetic())
            && port.parse::<u16>().is_ok_and(|port| port != 0)
            && port.chars().all(|c| c.is_ascii_digit())
    }
}

impl Kind for HostPort {
    type Value = String;

    fn allowed(&self) -> String {
        "a host and a port, such as \"vpn.example.net:51820\", \"203.0.113.10:51820\" or \
         \"[2001:db8::1]:51820\""
            .to_owned()
    }

    fn parse(&self, value: &DeValue) -> Result<String, Wrong> {
        let written = text(value)?;
        if Self::holds(written) {
            return Ok(written.to_owned());
        }
        Err(Wrong::new(
            "is not a host and a port",
            format!("found {}", quoted(written)),
        ))
    }
}

/// An address and a UDP or TCP port.
pub(in crate::config) struct Endpoint;

impl Kind for Endpoint {
    type Value = SocketAddr;

    fn allowed(&self) -> String {
        "an IP address and a port, such as \"203.0.113.10:51820\" or \"[2001:db8::1]:51820\""
            .to_owned()
    }

    fn parse(&self, value: &DeValue) -> Result<SocketAddr, Wrong> {
        let written = text(value)?;
        let wrong = Wrong::new(
            "is not an address and a port",
            format!("found {}", quoted(written)),
        );
        match written.parse::<SocketAddr>() {
            Ok(endpoint) if endpoint.port() != 0 => Ok(endpoint),
            Ok(_) => Err(wrong.help("port 0 cannot be reached")),
            Err(_) if written.parse::<IpAddr>().is_ok() => Err(wrong.help("the port is missing")),
            Err(_)
                if written
                    .contains(|c: char| c.is_ascii_alphabetic() && !c.is_ascii_hexdigit()) =>
            {
                Err(wrong.help("names are not resolved; write the address"))
            }
            Err(_) => Err(wrong),
        }
    }
}

/// An address of this machine that something is bound to.
pub(in crate::config) struct Own;

impl Kind for Own {
    type Value = IpAddr;

    fn allowed(&self) -> String {
        "an address of this machine, such as \"192.0.2.1\"".to_owned()
    }

    fn parse(&self, value: &DeValue) -> Result<IpAddr, Wrong> {
        match text(value)?.parse::<IpAddr>() {
            // A relay on this machine is reached over loopback.
            Ok(address) if address.is_loopback() => Ok(address),
            _ => Address.parse(value),
        }
    }
}

/// Where a far end is.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::config) enum Placed {
    /// An address and a port.
    Address(SocketAddr),
    /// A name to be resolved, and a port.
    Host(schema::HostPort),
}

/// Where a far end is: an address, a name, or a link-local address with the name of its interface, and a UDP port.
pub(in crate::config) struct Place;

impl Kind for Place {
    type Value = Placed;

    fn allowed(&self) -> String {
        "a host and a port, such as \"203.0.113.10:51820\", \"[2001:db8::1]:51820\", \
         \"[fe80::1%eth0]:51820\" or \"vpn.example.net:51820\""
            .to_owned()
    }

    fn parse(&self, value: &DeValue) -> Result<Placed, Wrong> {
        let written = text(value)?;
        if let Some(host) = zoned(written) {
            return Ok(Placed::Host(host));
        }
        let is_name = HostPort::holds(written) && written.parse::<SocketAddr>().is_err();
        if let (true, Some((host, port))) = (is_name, written.rsplit_once(':'))
            && let Ok(port) = port.parse()
        {
            let host = host.to_owned();
            return Ok(Placed::Host(schema::HostPort { host, port }));
        }
        let wrong = Wrong::new(
            "is not an address and a port",
            format!("found {}", quoted(written)),
        );
        match written.parse::<SocketAddr>() {
            Ok(endpoint) if endpoint.port() != 0 => Ok(Placed::Address(endpoint)),
            Ok(_) => Err(wrong.help("port 0 cannot be reached")),
            Err(_) if written.contains('%') => {
                Err(wrong.help("a zone is the name of an interface, behind a link-local address"))
            }
            Err(_) if written.parse::<IpAddr>().is_ok() || !written.contains(':') => {
                Err(wrong.help("the port is missing"))
            }
            Err(_) if written.contains(|c: char| c.is_ascii_alphabetic()) => {
                Err(wrong
                    .help("a name has letters, digits, hyphens and dots, and a port behind it"))
            }
            Err(_) => Err(wrong),
        }
    }
}

/// `[fe80::1%eth0]:51820`: the zone is the name of an interface, which has its number only while it is there.
fn zoned(written: &str) -> Option<schema::HostPort> {
    let (address, port) = written.strip_prefix('[')?.rsplit_once("]:")?;
    let (ip, zone) = address.split_once('%')?;
    let ip: Ipv6Addr = ip.parse().ok()?;
    let port: u16 = port.parse().ok()?;
    let name = zone
        .chars()
        .all(|c| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '%'));
    let named = name && (1..=15).contains(&zone.len()) && zone.parse::<u32>().is_err();
    (named && port != 0 && ip.is_unicast_link_local()).then(|| schema::HostPort {
        host: address.to_owned(),
        port,
    })
}

/// A prefix, or `@NAME`: all prefixes of a set. No prefix begins so, and no name does.
pub(in crate::config) struct PrefixOrSet;

impl Kind for PrefixOrSet {
    type Value = Addresses;

    fn allowed(&self) -> String {
        format!("{}, or \"@NAME\" for a [[prefix_set]]", Network.allowed())
    }

    fn parse(&self, value: &DeValue) -> Result<Addresses, Wrong> {
        let Some(name) = value.as_str().and_then(|written| written.strip_prefix('@')) else {
            return match Network.parse(value) {
                Ok(prefix) => Ok(Addresses::Prefix(prefix)),
                Err(mut wrong) => {
                    if wrong.help.is_none()
                        && let Ok(name) = Name.parse(value)
                        && !name.starts_with(|c: char| c.is_ascii_digit())
                    {
                        wrong.help = Some(format!("a prefix set is written \"@{name}\""));
                    }
                    Err(wrong)
                }
            };
        };
        let name = DeValue::String(name.into());
        Name.parse(&name).map(Addresses::Set)
    }
}
