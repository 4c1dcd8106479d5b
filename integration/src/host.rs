//! A host of the lab: a network namespace that only its descriptor holds.

use crate::error::Error;
use gateway::device::namespace::Namespace;
use gateway::device::netlink::{self, Netlink, Route, VethEnd, Via};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

/// What every host sets before it has links. No reverse-path filter: the two links of a circuit are used
/// unevenly. No duplicate detection: addresses work at once. No limit on ICMP errors: traceroute asks for
/// several within a second.
const SETTINGS: [(&str, &str); 7] = [
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/icmp_ratelimit", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/icmp/ratelimit", "0"),
];

/// A host.
#[derive(Debug)]
pub struct Host {
    name: &'static str,
    namespace: Namespace,
    netlink: Mutex<Netlink>,
}

impl Host {
    /// A host with a loopback link and nothing else.
    ///
    /// # Errors
    /// [`Error::System`] where `unshare` makes no network namespace, `setns` does not enter it, or one of the
    /// kernel parameters cannot be written: EPERM without CAP_SYS_ADMIN, which is exit status 3.
    /// [`Error::Netlink`] where there is no netlink socket or `lo` cannot be set up.
    pub fn new(name: &'static str) -> Result<Self, Error> {
        let namespace = Namespace::new().map_err(Error::system("make a network namespace"))?;
        let netlink = namespace
            .run(Netlink::open)
            .map_err(Error::system("enter a network namespace"))?
            .map_err(|source| Error::Netlink {
                host: name.into(),
                source,
            })?;
        let host = Self {
            name,
            namespace,
            netlink: Mutex::new(netlink),
        };
        for (key, value) in SETTINGS {
            host.set(key, value)?;
        }
        host.configure(|netlink| netlink.set_up("lo", true))?;
        Ok(host)
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Runs `work` on the host: on a thread inside its namespace, waiting for the result.
    ///
    /// # Errors
    /// [`Error::System`] where there is no thread for it or `setns` does not let it in. What `work` itself says
    /// is inside the result.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let action = || format!("enter the namespace of {}", self.name);
        self.namespace
            .run(work)
            .map_err(|e| Error::system(action())(e))
    }

    /// Changes links, addresses or routes of the host.
    ///
    /// # Errors
    /// [`Error::Netlink`] with what `change` ended by: the kernel's answer to a request, or a name that no link
    /// has.
    pub fn configure<T>(
        &self,
        change: impl FnOnce(&mut Netlink) -> Result<T, netlink::Error>,
    ) -> Result<T, Error> {
        // The connection stays usable whatever a panicking holder left undone: answers to an abandoned
        // request are skipped by their sequence number.
        let mut netlink = self.netlink.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut netlink).map_err(|source| Error::Netlink {
            host: self.name.into(),
            source,
        })
    }

    /// Sets a kernel parameter below `/proc/sys/net` (which shows the namespace of whoever opens it).
    ///
    /// # Errors
    /// [`Error::System`] where the file below `/proc/sys/net` is not there or does not take the value, or as of
    /// [`Self::run`].
    pub fn set(&self, key: &str, value: &str) -> Result<(), Error> {
        self.run(|| fs::write(format!("/proc/sys/net/{key}"), value))?
            .map_err(Error::system(format!(
                "set net/{key} to {value} on {}",
                self.name
            )))
    }

    /// Packets that each link has dropped on their way out since it was made, at a TUN device or a veth
    /// because the far side's queue was full; links that have dropped none are left out. Received ones do
    /// not count: the kernel counts as dropped what only a packet socket takes.
    ///
    /// # Errors
    /// [`Error::System`] where `/proc/thread-self/net/dev` cannot be read, or as of [`Self::run`].
    pub fn drops(&self) -> Result<BTreeMap<String, u64>, Error> {
        let table = self
            .run(|| fs::read_to_string("/proc/thread-self/net/dev"))?
            .map_err(Error::system("read /proc/net/dev"))?;
        // Name, then eight columns received and eight sent, of which the fourth is drops.
        let row = |row: &str| {
            let (name, columns) = row.split_once(':')?;
            let drops: u64 = columns.split_ascii_whitespace().nth(11)?.parse().ok()?;
            (drops > 0).then(|| (name.trim().to_owned(), drops))
        };
        Ok(table.lines().filter_map(row).collect())
    }

    /// Lets the kernel forward between the host's links.
    ///
    /// # Errors
    /// [`Error::System`] where one of the three kernel parameters cannot be written, as of [`Self::set`].
    pub fn forward(&self) -> Result<(), Error> {
        self.set("ipv4/ip_forward", "1")?;
        self.set("ipv6/conf/all/forwarding", "1")?;
        self.set("ipv6/conf/default/forwarding", "1")
    }

    /// Gives a link addresses and sets it up.
    ///
    /// # Errors
    /// [`Error::Unexpected`] for a text that is no prefix, before anything is changed; [`Error::Netlink`] where
    /// there is no such link, or the kernel refuses an address or to set the link up.
    pub fn address(&self, link: &str, addresses: &[&str]) -> Result<(), Error> {
        let addresses: Vec<IpNet> = addresses
            .iter()
            .map(|a| parse(a))
            .collect::<Result<_, _>>()?;
        self.configure(|netlink| {
            addresses
                .into_iter()
                .try_for_each(|address| netlink.add_address(link, address))?;
            netlink.set_up(link, true)
        })
    }

    /// Adds a route through a router.
    ///
    /// # Errors
    /// [`Error::Unexpected`] for a text that is no prefix or no address; [`Error::Netlink`] where the kernel
    /// refuses the route, such as one through a router that no link leads to.
    pub fn route(&self, destination: &str, gateway: &str) -> Result<(), Error> {
        let destination: IpNet = parse(destination)?;
        let gateway: IpAddr = parse(gateway)?;
        self.configure(|netlink| netlink.add_route(&Route::new(destination, Via::Gateway(gateway))))
    }
}

/// Joins two hosts by a pair of virtual Ethernet links, both still down.
///
/// # Errors
/// [`Error::Netlink`], with the first host's name, where the kernel makes no veth pair: a link of the name is
/// there already, or the name is none.
pub fn connect((host, link): (&Host, &str), (peer, peer_link): (&Host, &str)) -> Result<(), Error> {
    let there = VethEnd::within(peer_link, peer.namespace.as_fd());
    host.configure(|netlink| netlink.add_veth(VethEnd::here(link), there))
}

/// An address or a prefix out of its text.
pub(crate) fn parse<T: std::str::FromStr>(text: &str) -> Result<T, Error> {
    text.parse()
        .map_err(|_| Error::unexpected("an address or a prefix", text))
}
