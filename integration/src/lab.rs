//! The lab: hosts, wires and gateways, put together.
//!
//! ```text
//!  vnet 10.1.0.10                                                       onprem 10.2.0.10
//!    | eth0                                                                   | eth0
//!    | lan0 10.1.0.1                                                10.2.0.1 lan0 |
//! +--+----------+                                                     +-------+-----+
//! |   gateway   | eth1 ==== wire ==== pe1 -------------------- eth1   | onprem-edge |
//! |  vng, vng0  |  172.16.0.0/30         172.16.1.0/30                |  vng, vng0  |
//! | 10.1.255.4  | eth2 ==== wire ==== pe2 -------------------- eth2   | 10.2.255.4  |
//! |             |  172.16.0.4/30         172.16.1.4/30                |             |
//! +--+----------+                                                     +-------+-----+
//!    | eth0 203.0.113.4                                    198.51.100.10 eth0 |
//!    +------------------------------- internet -------------------------------+
//!                                        |
//!                                        | eth0 192.0.2.10
//!                                 +------+------+
//!                                 | branch-edge |  vng, vng0, 10.3.255.4: [vpn] alone
//!                                 +------+------+
//!                                        | lan0 10.3.0.1
//!                                        | eth0
//!                                  branch 10.3.0.10
//! ```
//! Each name is a network namespace. `==== wire ====` is where tags are put on and taken off and faults
//! are injected ([`crate::wire`]); pe1 and pe2 are kernel routers, `internet` is one too. In a gateway's
//! namespace the kernel forwards between lan0 and vng0, and `vng run` does the rest. IPv6 stands beside
//! every IPv4 address: fd00:1::, fd00:2::, fd00:3:: for 10.1, 10.2, 10.3; fd00:16:: for 172.16.

use crate::config::{KeyPair, Plan, Probing, Tagging};
use crate::error::Error;
use crate::fault::Direction;
use crate::gateway::Gateway;
use crate::host::{Host, connect, parse};
use crate::plan::{Keys, branch_plan, edge_plan, gateway_plan};
use crate::process::Spawner;
use crate::scratch::Scratch;
use crate::wire::Wire;
use ::gateway::show::view::{Counters, Explanation};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Address of the host in the virtual network.
pub const VNET_HOST: [&str; 2] = ["10.1.0.10", "fd00:1::10"];
/// Address of the host on premises.
pub const ONPREM_HOST: [&str; 2] = ["10.2.0.10", "fd00:2::10"];
/// Address of the host in the branch, which only the VPN reaches.
pub const BRANCH_HOST: [&str; 2] = ["10.3.0.10", "fd00:3::10"];
/// Name of the gateway's circuit.
pub const CIRCUIT: &str = "er-sydney";
/// Name of the gateway's site that is the circuit's failover path.
pub const SITE: &str = "onprem";

/// What the lab shall be like; `LabOptions::default()` is what the demo uses.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// Tags on the gateway's ExpressRoute links.
    pub links: Tagging,
    /// How paths are watched.
    pub probing: Probing,
    /// How long ExpressRoute must be up again before flows go back to it.
    pub hold_down: Duration,
    /// SKU of all gateways.
    pub sku: String,
    /// The program that becomes `vng` when [`crate::process::run_as_gateway`] runs in it; `None`: this one.
    pub program: Option<PathBuf>,
    /// More tables for the gateway's configuration: policies, routes.
    pub policy: String,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            links: Tagging::default(),
            probing: Probing::default(),
            hold_down: Duration::from_secs(3),
            sku: "Unlimited".into(),
            program: None,
            policy: String::new(),
        }
    }
}

/// How ExpressRoute is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Both links fall silent in both directions; every carrier stays up.
    Silent,
    /// Both links lose their carrier.
    Carrier,
}

impl Fault {
    /// In words, for reports.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Silent => "both ExpressRoute links silent in both directions, carrier up",
            Self::Carrier => "both ExpressRoute links without carrier",
        }
    }
}

/// The lab. Dropping it ends the gateways and removes everything.
#[derive(Debug)]
pub struct Lab {
    /// The gateway under test: ExpressRoute and VPN.
    pub gateway: Gateway,
    /// The edge on premises, a second gateway with the roles reversed.
    pub edge: Gateway,
    /// The branch's device: VPN alone.
    pub branch: Gateway,
    /// The provider's wires: primary, secondary.
    pub wires: [Wire; 2],
    hosts: BTreeMap<&'static str, Arc<Host>>,
    scratch: Scratch,
}

impl Lab {
    /// Builds it; no gateway runs yet.
    ///
    /// # Errors
    /// [`Error::System`] where the kernel allows no namespaces (exit status 3 where that is for want of
    /// privilege), no thread or no scratch directory, or does not tell this program's path; [`Error::Netlink`]
    /// where it refuses a link, an address or a route; [`Error::Device`] where a wire's end cannot be opened;
    /// [`Error::Unexpected`] where there are no random bytes for a key.
    pub fn new(options: &LabOptions) -> Result<Self, Error> {
        let hosts: BTreeMap<_, _> = HOSTS
            .into_iter()
            .map(|name| Ok((name, Arc::new(Host::new(name)?))))
            .collect::<Result<_, Error>>()?;
        let network = Network { hosts: &hosts };
        network.local_networks()?;
        network.internet()?;
        let wires = network.provider(options.links)?;

        let scratch = Scratch::new()?;
        let program = match &options.program {
            Some(program) => program.clone(),
            None => std::env::current_exe().map_err(Error::system("find this program"))?,
        };
        let spawner = Arc::new(Spawner::new().map_err(Error::system("start a thread"))?);
        let keys = Keys {
            gateway: KeyPair::generate(&scratch, "gateway")?,
            edge: KeyPair::generate(&scratch, "onprem-edge")?,
            branch: KeyPair::generate(&scratch, "branch-edge")?,
        };
        let make = |name: &'static str, plan: &Plan<'_>| {
            let config = scratch.write(&format!("{name}.toml"), &plan.toml())?;
            let host = Arc::clone(network.host(name)?);
            let socket = plan.socket.clone();
            Ok::<_, Error>(Gateway::new(
                host,
                Arc::clone(&spawner),
                program.clone(),
                config,
                socket,
            ))
        };
        let socket = |name: &str| scratch.path().join(format!("{name}.sock"));
        let gateway = make("gateway", &gateway_plan(options, &keys, socket("gateway")))?;
        let edge = make(
            "onprem-edge",
            &edge_plan(options, &keys, socket("onprem-edge")),
        )?;
        let branch = make(
            "branch-edge",
            &branch_plan(options, &keys, socket("branch-edge")),
        )?;
        Ok(Self {
            gateway,
            edge,
            branch,
            wires,
            hosts,
            scratch,
        })
    }

    /// Starts all gateways.
    ///
    /// # Errors
    /// As of [`Gateway::start`] of the first gateway that does not start; the others are not started then.
    pub fn start(&mut self) -> Result<(), Error> {
        self.edge.start()?;
        self.branch.start()?;
        self.gateway.start()
    }

    /// Stops all gateways; the first failure counts, but all are stopped.
    ///
    /// # Errors
    /// As of [`Gateway::stop`] of the first gateway that did not end cleanly.
    pub fn stop(&mut self) -> Result<(), Error> {
        let results = [self.gateway.stop(), self.edge.stop(), self.branch.stop()];
        results.into_iter().collect()
    }

    /// A host by the name that it has in the drawing.
    ///
    /// # Errors
    /// [`Error::Unexpected`], which lists the names, for one that is not in the drawing.
    pub fn host(&self, name: &str) -> Result<&Arc<Host>, Error> {
        self.hosts.get(name).ok_or_else(|| {
            let names: Vec<_> = self.hosts.keys().copied().collect();
            Error::unexpected(format!("a host: one of {}", names.join(", ")), name)
        })
    }

    /// All hosts, by name.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.hosts.values()
    }

    /// All gateways.
    pub fn gateways(&self) -> [&Gateway; 3] {
        [&self.gateway, &self.edge, &self.branch]
    }

    /// The packet ledger of the gateway on the host of this name.
    ///
    /// # Errors
    /// [`Error::Unexpected`] for a host that has no gateway, else as of [`Gateway::counters`].
    pub fn counters(&self, name: &str) -> Result<Counters, Error> {
        let found = self
            .gateways()
            .into_iter()
            .find(|gateway| gateway.host().name() == name);
        let expected = "a gateway: gateway, onprem-edge or branch-edge";
        found
            .ok_or_else(|| Error::unexpected(expected, name))?
            .counters()
    }

    /// What the gateway would do with a packet to the host on premises, and the edge with the answer.
    ///
    /// # Errors
    /// As of [`crate::gateway::Control::explain`].
    pub fn ways(&self) -> Result<[Explanation; 2], Error> {
        let [vnet, onprem] = [VNET_HOST, ONPREM_HOST].map(|[v4, _]| parse(v4));
        let (vnet, onprem) = (vnet?, onprem?);
        let there = self.gateway.control().explain(vnet, onprem)?;
        let back = self.edge.control().explain(onprem, vnet)?;
        Ok([there, back])
    }

    /// What was dropped outside of the gateways, where a queue of the kernel was full or a wire did not
    /// keep up: packets by place.
    ///
    /// # Errors
    /// As of [`Host::drops`] of the first host that does not tell.
    pub fn drops(&self) -> Result<BTreeMap<String, u64>, Error> {
        let mut drops = BTreeMap::new();
        for host in self.hosts() {
            for (link, packets) in host.drops()? {
                drops.insert(format!("{} {link}", host.name()), packets);
            }
        }
        for (wire, name) in self.wires.iter().zip(["primary", "secondary"]) {
            let carried = Direction::BOTH.map(|direction| wire.carried(direction));
            let packets = carried.iter().map(|c| c.refused() + c.overflowed()).sum();
            if packets > 0 {
                drops.insert(format!("wire {name}"), packets);
            }
        }
        Ok(drops)
    }

    /// Where configuration files and control sockets are.
    pub fn directory(&self) -> &std::path::Path {
        self.scratch.path()
    }

    /// Breaks ExpressRoute.
    ///
    /// # Errors
    /// [`Error::Netlink`] where [`Fault::Carrier`] cannot set down an end of a wire or a provider edge's port;
    /// [`Fault::Silent`] asks nobody.
    pub fn fault(&self, fault: Fault) -> Result<(), Error> {
        match fault {
            Fault::Silent => self.wires.iter().for_each(|wire| wire.set_silent(true)),
            Fault::Carrier => {
                for (wire, edge) in self.wires.iter().zip(EDGES) {
                    wire.set_carrier(false)?;
                    // Link loss forwarding: the provider edge takes down the port towards the other end.
                    let router = self.host(edge)?;
                    router.configure(|netlink| netlink.set_up("eth1", false))?;
                }
            }
        }
        Ok(())
    }

    /// Makes ExpressRoute whole again.
    ///
    /// # Errors
    /// [`Error::Netlink`] where [`Fault::Carrier`] cannot set up an end of a wire or a provider edge's port
    /// again, or the kernel refuses a route over it; [`Fault::Silent`] asks nobody.
    pub fn heal(&self, fault: Fault) -> Result<(), Error> {
        match fault {
            Fault::Silent => self.wires.iter().for_each(|wire| wire.set_silent(false)),
            Fault::Carrier => {
                for ((wire, edge), far) in self.wires.iter().zip(EDGES).zip([2, 6]) {
                    wire.set_carrier(true)?;
                    let router = self.host(edge)?;
                    router.configure(|netlink| netlink.set_up("eth1", true))?;
                    // The kernel forgets the routes of a port that goes down.
                    routes_on_premises(router, far)?;
                }
            }
        }
        Ok(())
    }
}

/// The provider edges, of the primary and the secondary link.
const EDGES: [&str; 2] = ["pe1", "pe2"];

/// A provider edge's routes to the other end, whose address there ends in `far`.
fn routes_on_premises(router: &Host, far: u32) -> Result<(), Error> {
    router.route("10.2.0.0/16", &format!("172.16.1.{far}"))?;
    router.route("fd00:2::/48", &format!("fd00:16:1::{far:x}"))
}

const HOSTS: [&str; 10] = [
    "vnet",
    "gateway",
    "wire",
    "pe1",
    "pe2",
    "internet",
    "onprem-edge",
    "onprem",
    "branch-edge",
    "branch",
];

/// Links, addresses and routes, while the lab is built.
struct Network<'a> {
    hosts: &'a BTreeMap<&'static str, Arc<Host>>,
}

impl Network<'_> {
    fn host(&self, name: &'static str) -> Result<&Arc<Host>, Error> {
        self.hosts
            .get(name)
            .ok_or_else(|| Error::unexpected("a host of the lab", name))
    }

    /// The three networks behind the gateways.
    fn local_networks(&self) -> Result<(), Error> {
        let networks = [
            ("vnet", "gateway", 1),
            ("onprem", "onprem-edge", 2),
            ("branch", "branch-edge", 3),
        ];
        for (host, router, n) in networks {
            let (host, router) = (self.host(host)?, self.host(router)?);
            router.forward()?;
            connect((host, "eth0"), (router, "lan0"))?;
            router.address(
                "lan0",
                &[&format!("10.{n}.0.1/24"), &format!("fd00:{n}::1/64")],
            )?;
            host.address(
                "eth0",
                &[&format!("10.{n}.0.10/24"), &format!("fd00:{n}::10/64")],
            )?;
            host.route("0.0.0.0/0", &format!("10.{n}.0.1"))?;
            host.route("::/0", &format!("fd00:{n}::1"))?;
        }
        Ok(())
    }

    /// The network between the gateways' tunnel endpoints.
    fn internet(&self) -> Result<(), Error> {
        let internet = self.host("internet")?;
        internet.forward()?;
        let edges = [
            ("gateway", "to-gateway", "203.0.113", 4, "2001:db8:1"),
            ("onprem-edge", "to-onprem", "198.51.100", 10, "2001:db8:2"),
            ("branch-edge", "to-branch", "192.0.2", 10, "2001:db8:3"),
        ];
        for (edge, link, v4, number, v6) in edges {
            let edge = self.host(edge)?;
            connect((edge, "eth0"), (internet, link))?;
            internet.address(link, &[&format!("{v4}.1/24"), &format!("{v6}::1/64")])?;
            edge.address(
                "eth0",
                &[&format!("{v4}.{number}/24"), &format!("{v6}::{number}/64")],
            )?;
            edge.route("0.0.0.0/0", &format!("{v4}.1"))?;
            edge.route("::/0", &format!("{v6}::1"))?;
        }
        Ok(())
    }

    /// The provider: two wires, two routers, and their links to the edge on premises. The gateways' own
    /// ends have no kernel addresses: vng answers there.
    fn provider(&self, tagging: Tagging) -> Result<[Wire; 2], Error> {
        let (gateway, wire, edge) = (
            self.host("gateway")?,
            self.host("wire")?,
            self.host("onprem-edge")?,
        );
        // Nobody lives on the wire's own ends.
        wire.set("ipv6/conf/default/disable_ipv6", "1")?;
        let tags = tagging.tags();
        let lay = |n: u32, router: &'static str| {
            let router = self.host(router)?;
            let eth = format!("eth{n}");
            let (customer, provider) = (format!("customer{n}"), format!("provider{n}"));
            router.forward()?;
            connect((gateway, &eth), (wire, &customer))?;
            connect((router, "eth0"), (wire, &provider))?;
            connect((router, "eth1"), (edge, &eth))?;
            // Room for the tags, so that packets of 1,500 bytes fit: a link gives an 802.1Q tag 4 bytes
            // of grace, an 802.1ad one none.
            let mtu = 1500 + tags.len() as u32;
            gateway.configure(|netlink| netlink.set_mtu(&eth, mtu))?;
            wire.configure(|netlink| netlink.set_mtu(&customer, mtu))?;
            let up = |host: &Host, link: &str| host.configure(|netlink| netlink.set_up(link, true));
            up(gateway, &eth)?;
            up(edge, &eth)?;
            up(wire, &customer)?;
            up(wire, &provider)?;
            // The /30s of one link: .0 and .4, the provider's address first.
            let base = (n - 1) * 4;
            let (near, far) = (base + 1, base + 2);
            router.address(
                "eth0",
                &[
                    &format!("172.16.0.{near}/30"),
                    &format!("fd00:16::{near:x}/126"),
                ],
            )?;
            router.address(
                "eth1",
                &[
                    &format!("172.16.1.{near}/30"),
                    &format!("fd00:16:1::{near:x}/126"),
                ],
            )?;
            router.route("10.1.0.0/16", &format!("172.16.0.{far}"))?;
            router.route("fd00:1::/48", &format!("fd00:16::{far:x}"))?;
            // They outlive a loss of the port's carrier; its IPv6 addresses would not.
            router.set("ipv6/conf/eth1/keep_addr_on_down", "1")?;
            routes_on_premises(router, far)?;
            Wire::lay(wire, &customer, &provider, tags)
        };
        Ok([lay(1, "pe1")?, lay(2, "pe2")?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::gateway::config;

    #[test]
    fn every_gateway_gets_a_configuration_that_holds() {
        for links in [
            Tagging::Untagged,
            Tagging::Dot1q,
            Tagging::QinQ,
            Tagging::QinQ8100,
        ] {
            let lab = Lab::new(&LabOptions {
                links,
                ..LabOptions::default()
            })
            .unwrap();
            for gateway in lab.gateways() {
                let loaded = config::load(gateway.config(), config::KeyFiles::Checked);
                assert!(
                    loaded.is_ok(),
                    "{links:?} {}: {}",
                    gateway.host().name(),
                    loaded.err().unwrap()
                );
            }
        }
    }
}
