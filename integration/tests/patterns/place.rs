//! What an example reaches: places, each a gateway of its own whose configuration is made out of the example, and
//! what lies between them and the example's gateway.

use gateway::config::schema::{Circuit, Config, Link, Site};
use gateway::device::netlink::{Netlink, Route, Via};
use gateway::device::vlan::Tags;
use integration::host::{Host, connect};
use integration::wire::Wire;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

/// A network that the example reaches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Name of its host.
    pub(crate) name: &'static str,
    /// Its prefixes.
    pub(crate) space: &'static [&'static str],
    /// The address of its own gateway, with the length of its gateway subnet: what the example probes. It
    /// answers over the path that it was asked over, whatever its routes.
    pub(crate) address: &'static str,
    /// The host in it, with the length of its subnet.
    pub(crate) host: &'static str,
    /// Further addresses of that host, anywhere.
    pub(crate) more: &'static [&'static str],
    /// The example's circuits that end here.
    pub(crate) circuits: &'static [&'static str],
    /// The example's sites and clients that are this place.
    pub(crate) sites: &'static [&'static str],
    /// What this place reaches through the example's gateway.
    pub(crate) reaches: &'static [&'static str],
}

/// The main office: 10.2.0.0/16.
pub(crate) const ONPREM: Place = Place {
    name: "onprem",
    space: &["10.2.0.0/16"],
    address: "10.2.0.1/27",
    host: "10.2.0.10/16",
    more: &[],
    circuits: &["er-sydney"],
    sites: &[],
    reaches: &["10.1.0.0/16"],
};

/// A branch that only the VPN reaches: 10.3.0.0/16.
pub(crate) const BRANCH: Place = Place {
    name: "branch",
    space: &["10.3.0.0/16"],
    address: "10.3.0.1/27",
    host: "10.3.0.10/16",
    circuits: &[],
    sites: &["branch"],
    ..ONPREM
};

/// Lays the links of an example and writes the configuration of the places at their other ends.
pub(crate) struct Builder<'a> {
    config: &'a Config,
    /// The host of the example's gateway.
    pub(crate) gateway: Arc<Host>,
    wire: Arc<Host>,
    /// By the name of their path, `circuit/link`.
    pub(crate) wires: BTreeMap<String, Wire>,
    /// Links laid so far.
    links: usize,
    /// Where each circuit ends.
    ends: BTreeMap<String, Arc<Host>>,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(config: &'a Config) -> Self {
        let wire = Arc::new(Host::new("wire").unwrap());
        // Nobody lives on the wires' own ends.
        wire.set("ipv6/conf/default/disable_ipv6", "1").unwrap();
        Self {
            config,
            gateway: Arc::new(Host::new("gateway").unwrap()),
            wire,
            wires: BTreeMap::new(),
            links: 0,
            ends: BTreeMap::new(),
        }
    }

    /// `keys`: the file with the place's own key, and the public key of the example's gateway.
    pub(crate) fn place(
        &mut self,
        place: &Place,
        number: usize,
        host: &Arc<Host>,
        keys: &(String, String),
    ) -> String {
        if !place.more.is_empty() {
            host.address("lo", place.more).unwrap();
        }
        let Place {
            name,
            space,
            address,
            host: own,
            ..
        } = place;
        let mut text = format!(
            "[vnet]\nname = {name:?}\naddress_space = {space:?}\naddress = [{address:?}]\n\
             host_address = [{own:?}]\nhost_routes = true\n"
        );
        let circuits = self.config.expressroute.iter().flat_map(|e| &e.circuits);
        let circuits: Vec<&Circuit> = circuits
            .filter(|c| place.circuits.contains(&&*c.name))
            .collect();
        if !circuits.is_empty() {
            text.push_str("[expressroute]\nsku = \"Unlimited\"\n");
        }
        for circuit in circuits {
            self.ends.insert(circuit.name.clone(), Arc::clone(host));
            writeln!(text, "[[expressroute.circuit]]\nname = {:?}", circuit.name).unwrap();
            writeln!(text, "prefixes = {:?}\n{}", place.reaches, self.probe()).unwrap();
            for link in &circuit.links {
                text += &self.link(circuit, link, host);
            }
        }
        let sites = self.config.vpn.iter().flat_map(|vpn| &vpn.sites);
        let sites: Vec<&Site> = sites.filter(|s| place.sites.contains(&&*s.name)).collect();
        if let [site] = sites.as_slice() {
            text += &self.tunnel(site, place, number, host, keys);
        } else if !place.sites.is_empty() {
            text += &self.client(place, number, host, keys);
        }
        text += "[failover]\nhold_down = \"1s\"\n";
        text
    }

    /// Everyone probes the example's gateway.
    fn probe(&self) -> String {
        let target = self.config.vnet.address[0].addr();
        format!("probe = {{ target = \"{target}\", interval = \"300ms\", fail = 3, pass = 3 }}")
    }

    fn link(&mut self, circuit: &Circuit, link: &Link, host: &Arc<Host>) -> String {
        let n = self.links;
        self.links += 1;
        let tags = Tags::new(&link.vlan, link.vlan_type).unwrap();
        let (customer, provider, far) = (format!("c{n}"), format!("p{n}"), format!("link{n}"));
        connect((&self.gateway, &link.interface), (&self.wire, &customer)).unwrap();
        connect((host, &far), (&self.wire, &provider)).unwrap();
        // Room for the tags, so that packets of 1,500 bytes fit.
        let mtu = 1500 + tags.len() as u32;
        for (host, end, mtu) in [
            (&self.gateway, &link.interface, mtu),
            (&self.wire, &customer, mtu),
            (&self.wire, &provider, 1500),
            (host, &far, 1500),
        ] {
            host.set(&format!("ipv6/conf/{end}/disable_ipv6"), "1")
                .unwrap();
            let set = |netlink: &mut Netlink| {
                netlink.set_mtu(end, mtu)?;
                netlink.set_up(end, true)
            };
            host.configure(set).unwrap();
        }
        let wire = Wire::lay(&self.wire, &customer, &provider, tags).unwrap();
        self.wires
            .insert(format!("{}/{}", circuit.name, link.name), wire);
        let (own, neighbor) = (link.address[0], link.neighbor[0]);
        let length = own.prefix_len();
        format!(
            "  [[expressroute.circuit.link]]\n  name = {:?}\n  interface = {far:?}\n  \
             address = \"{neighbor}/{length}\"\n  neighbor = \"{}\"\n",
            link.name,
            own.addr()
        )
    }

    fn tunnel(
        &mut self,
        site: &Site,
        place: &Place,
        number: usize,
        host: &Arc<Host>,
        (key_file, public_key): &(String, String),
    ) -> String {
        let endpoint = site.endpoint.unwrap();
        let port = self.config.vpn.as_ref().unwrap().listen_port;
        let here = match &site.over {
            Some(circuit) => self.behind(circuit, number, host, endpoint.ip()),
            None => self.internet(number, host, endpoint.ip()),
        };
        format!(
            "[vpn]\nsku = \"Unlimited\"\nprivate_key_file = \"{}\"\nlisten_port = {}\n\
             [[vpn.site]]\nname = \"azure\"\npublic_key = {public_key:?}\nendpoint = \"{here}:{port}\"\n\
             prefixes = {:?}\n{}\n",
            key_file,
            endpoint.port(),
            place.reaches,
            self.probe()
        )
    }

    /// The tunnel of a client: it calls, from anywhere, and asks nothing of its own address, which is none of the
    /// client's.
    fn client(
        &self,
        place: &Place,
        number: usize,
        host: &Arc<Host>,
        (key_file, public_key): &(String, String),
    ) -> String {
        let anywhere: IpAddr = format!("198.18.{number}.2").parse().unwrap();
        let here = self.internet(number, host, anywhere);
        let port = self.config.vpn.as_ref().unwrap().listen_port;
        format!(
            "[vpn]\nsku = \"Unlimited\"\nprivate_key_file = \"{key_file}\"\n\
             [[vpn.site]]\nname = \"azure\"\npublic_key = {public_key:?}\n\
             endpoint = \"{here}:{port}\"\nprefixes = {:?}\n",
            place.reaches,
        )
    }

    /// Joins a device to the host that a circuit ends at; the address of the example's gateway, as it sees it.
    fn behind(&self, circuit: &str, number: usize, host: &Arc<Host>, endpoint: IpAddr) -> IpAddr {
        let (edge, router) = (&self.ends[circuit], format!("198.18.{number}.1"));
        let here = self.config.vnet.address[0].addr();
        edge.forward().unwrap();
        connect((edge, "lan"), (host, "wan")).unwrap();
        edge.address("lan", &[&format!("{router}/32")]).unwrap();
        host.address("wan", &[&format!("{endpoint}/32")]).unwrap();
        let router: IpAddr = router.parse().unwrap();
        for (host, to, via) in [
            (edge, endpoint, Via::Link("lan")),
            (host, router, Via::Link("wan")),
            (host, here, Via::Gateway(router)),
        ] {
            let route = Route::new(to.into(), via);
            host.configure(|netlink| netlink.add_route(&route)).unwrap();
        }
        here
    }

    /// Joins gateway and place by a link that stands for the Internet; the gateway's address there.
    fn internet(&self, number: usize, host: &Arc<Host>, endpoint: IpAddr) -> IpAddr {
        let (near, here) = (format!("wan{number}"), format!("198.18.{number}.1"));
        connect((&self.gateway, &near), (host, "wan")).unwrap();
        self.gateway
            .address(&near, &[&format!("{here}/32")])
            .unwrap();
        host.address("wan", &[&format!("{endpoint}/32")]).unwrap();
        let here: IpAddr = here.parse().unwrap();
        for (host, to, link) in [
            (&self.gateway, endpoint, near.as_str()),
            (host, here, "wan"),
        ] {
            let route = Route::new(to.into(), Via::Link(link));
            host.configure(|netlink| netlink.add_route(&route)).unwrap();
        }
        here
    }
}
