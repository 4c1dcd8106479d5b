//! An example file, running, with everything around it that it speaks of.
//!
//! ```text
//!            gateway                                              a place (onprem, branch, ...)
//!   vng run EXAMPLE.toml                                          vng run, the mirror of the example
//!   10.1.0.4 on vng0                                              its hosts' address on vng0
//!   ethN, as the file says  === wire: takes the tags off ===  linkN, untagged
//!   wanN 198.18.N.1         ---------- veth ------------------  wan, the site's endpoint
//! ```
//! The device of a site that is reached over a circuit hangs on the place that the circuit ends at, where the
//! kernel forwards to it.
//!
//! A place is a gateway of its own whose configuration is made out of the example: its circuits are the
//! example's with address and neighbor swapped, its site is the example's gateway.

use crypto::key::{PrivateKey, PublicKey};
use gateway::api::{Request, What};
use gateway::config::schema::{Circuit, Config, Link, Site};
use gateway::config::{self, KeyFiles};
use gateway::device::netlink::{Route, Via};
use gateway::device::vlan::Tags;
use gateway::show::view::{Counters, PathStatus, Status};
use integration::gateway::Gateway;
use integration::host::{Host, connect};
use integration::process::Nursery;
use integration::scratch::Scratch;
use integration::wire::Wire;
use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long anything may take that is only waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
/// Between two questions.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// The key file that the examples name.
const KEY_FILE: &str = "/etc/vng/vpn.key";

/// One test at a time: they share two cores, and lost probes would tell of that only.
static TURN: Mutex<()> = Mutex::new(());

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

/// Key pairs, files and processes of one test.
pub(crate) struct Stage {
    nursery: Arc<Nursery>,
    scratch: Scratch,
    vng: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let scratch = Scratch::new().unwrap();
        let vng = scratch.path().join("vng");
        symlink(env!("CARGO_BIN_EXE_vng-lab"), &vng).unwrap();
        Self {
            nursery: Arc::new(Nursery::new().unwrap()),
            scratch,
            vng,
            _turn: turn,
        }
    }

    /// The text of an example with what a person would change in it: the key file is `key`'s, the public
    /// key of each site and client, all of which are in `sites`, is the one given there, and the socket is the
    /// test's.
    pub(crate) fn example(
        &self,
        name: &str,
        key: &PrivateKey,
        sites: &[(&str, &PrivateKey)],
    ) -> String {
        let mut text = example(name);
        let config = parse(name, &text);
        text = text.replace(KEY_FILE, &self.key_file(name, key));
        let vpn = config.vpn.as_ref();
        let clients = vpn.and_then(|vpn| vpn.point_to_site.as_ref());
        let clients = clients.into_iter().flat_map(|clients| &clients.clients);
        let clients = clients.map(|client| (&client.name, client.public_key));
        let all = vpn.into_iter().flat_map(|vpn| &vpn.sites);
        for (far, key) in all.map(|site| (&site.name, site.public_key)).chain(clients) {
            let (_, theirs) = sites.iter().find(|(name, _)| name == far).unwrap();
            let written = PublicKey(key).to_string();
            assert!(text.contains(&written), "{name}: {written}");
            text = text.replace(&written, &theirs.public_key().to_string());
        }
        let socket = format!("[control]\nsocket = \"{}\"\n", self.socket(name).display());
        if text.contains("[control]\n") {
            text.replace("[control]\n", &socket)
        } else {
            format!("{text}\n{socket}")
        }
    }

    /// Writes a private key to a file of its own; the file's path.
    pub(crate) fn key_file(&self, name: &str, key: &PrivateKey) -> String {
        let file = self.scratch.write(&format!("{name}.key"), &key.to_base64());
        file.unwrap().display().to_string()
    }

    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.scratch.path().join(format!("{name}.sock"))
    }

    /// A gateway on `host` with this configuration, not running.
    pub(crate) fn gateway(&self, name: &str, host: &Arc<Host>, text: &str) -> Gateway {
        Gateway::new(
            Arc::clone(host),
            Arc::clone(&self.nursery),
            self.vng.clone(),
            self.scratch.write(&format!("{name}.toml"), text).unwrap(),
            self.socket(name),
        )
    }

    /// Prints the example's effective routes, for docs/patterns.md.
    pub(crate) fn print_routes(&self, name: &str, gateway: &Gateway) {
        println!(
            "== routes {name}\n{}==",
            self.vng(gateway, &["show", "routes"])
        );
    }

    /// What `vng` prints, asked about `gateway`.
    pub(crate) fn vng(&self, gateway: &Gateway, arguments: &[&str]) -> String {
        let mut command = Command::new(&self.vng);
        command
            .args(arguments)
            .arg("--socket")
            .arg(gateway.socket());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "vng {arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The text of an example.
pub(crate) fn example(name: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
    std::fs::read_to_string(directory.join(format!("{name}.toml"))).unwrap()
}

/// What it says.
pub(crate) fn parse(name: &str, text: &str) -> Config {
    let loaded = config::parse(
        Path::new(name),
        text.into(),
        Path::new("/"),
        KeyFiles::Skipped,
    );
    let loaded = loaded.unwrap_or_else(|report| panic!("{}", report.render(false)));
    loaded.config
}

/// An example that runs, and the places around it.
pub(crate) struct World {
    /// The example's name.
    name: String,
    pub(crate) gateway: Gateway,
    /// By the name of their place.
    pub(crate) places: BTreeMap<&'static str, Gateway>,
    /// By the name of their path, `circuit/link`.
    pub(crate) wires: BTreeMap<String, Wire>,
    pub(crate) stage: Stage,
}

impl World {
    /// Starts the example `name`, once `change` has been made to its text, and waits until every path is up.
    pub(crate) fn start(
        name: &str,
        places: &[Place],
        change: impl FnOnce(String) -> String,
    ) -> Self {
        let stage = Stage::new();
        let key = PrivateKey::generate().unwrap();
        let keys: Vec<PrivateKey> = places
            .iter()
            .map(|_| PrivateKey::generate().unwrap())
            .collect();
        let sites: Vec<(&str, &PrivateKey)> = places
            .iter()
            .zip(&keys)
            .flat_map(|(place, key)| place.sites.iter().map(move |site| (*site, key)))
            .collect();
        let text = change(stage.example(name, &key, &sites));
        let config = parse(name, &text);
        let mut builder = Builder {
            config: &config,
            gateway: Arc::new(Host::new("gateway").unwrap()),
            wire: Arc::new(Host::new("wire").unwrap()),
            wires: BTreeMap::new(),
            links: 0,
            ends: BTreeMap::new(),
        };
        // Nobody lives on the wires' own ends.
        builder
            .wire
            .set("ipv6/conf/default/disable_ipv6", "1")
            .unwrap();
        let mut gateways = BTreeMap::new();
        for (number, (place, own)) in places.iter().zip(&keys).enumerate() {
            let host = Arc::new(Host::new(place.name).unwrap());
            let keys = (
                stage.key_file(place.name, own),
                key.public_key().to_string(),
            );
            let text = builder.place(place, number, &host, &keys);
            let socket = format!(
                "[control]\nsocket = \"{}\"\n",
                stage.socket(place.name).display()
            );
            let gateway = stage.gateway(place.name, &host, &(text + &socket));
            gateways.insert(place.name, gateway);
        }
        let Builder { gateway, wires, .. } = builder;
        let mut world = Self {
            name: name.to_owned(),
            gateway: stage.gateway(name, &gateway, &text),
            places: gateways,
            wires,
            stage,
        };
        for place in world.places.values_mut() {
            place.start().unwrap();
        }
        world.gateway.start().unwrap();
        world.wait_until_whole();
        world
    }

    pub(crate) fn host(&self, name: &str) -> &Arc<Host> {
        match name {
            "gateway" => self.gateway.host(),
            name => self.places[name].host(),
        }
    }

    /// Every gateway.
    pub(crate) fn gateways(&self) -> impl Iterator<Item = &Gateway> {
        std::iter::once(&self.gateway).chain(self.places.values())
    }

    /// Waits until every path of every gateway is in use or could be.
    pub(crate) fn wait_until_whole(&self) {
        until("every path is up", || {
            let states: Vec<_> = self
                .gateways()
                .flat_map(|gateway| status(gateway).paths)
                .map(|path| (is_whole(&path), path.name, path.state))
                .collect();
            let all = states.iter().all(|(whole, ..)| *whole);
            all.then_some(()).ok_or(states)
        });
    }

    /// Waits until a path of the example's gateway is down, or up and used again.
    pub(crate) fn wait_for(&self, path: &str, up: bool) {
        until(&format!("{path} is up: {up}"), || {
            let paths = status(&self.gateway).paths;
            let found = paths.iter().find(|one| one.name == path).unwrap();
            let there = is_whole(found) == up && found.in_use == up;
            there.then_some(()).ok_or(paths)
        });
    }

    /// Silences the links of a circuit, or lets them speak again.
    pub(crate) fn set_silent(&self, circuit: &str, silent: bool) {
        let of_circuit = |name: &&String| name.split_once('/').unwrap().0 == circuit;
        let wires = self.wires.iter().filter(|(name, _)| of_circuit(name));
        wires.for_each(|(_, wire)| wire.set_silent(silent));
    }

    /// The end of a test: all books balance, and all gateways end cleanly.
    pub(crate) fn finish(mut self) {
        self.stage.print_routes(&self.name, &self.gateway);
        for gateway in self.gateways() {
            balanced(gateway);
        }
        self.gateway.stop().unwrap();
        for place in self.places.values_mut() {
            place.stop().unwrap();
        }
    }
}

/// Whether a path carries packets, or could: an idle tunnel counts where nobody asks it. One with a probe that
/// is idle has not shown it yet.
fn is_whole(path: &PathStatus) -> bool {
    match path.state.as_str() {
        "up" | "degraded" => true,
        "idle" => path.probe.is_none(),
        _ => false,
    }
}

/// Asks until the answer is the expected one, and fails with the last one that was not.
pub(crate) fn until<T, E: Debug>(what: &str, mut ask: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(found) => assert!(
                Instant::now() < deadline,
                "not so: {what}; found {found:#?}"
            ),
        }
        std::thread::sleep(ASK_EVERY);
    }
}

pub(crate) fn status(gateway: &Gateway) -> Status {
    let request = Request::Show { what: What::Status };
    gateway.control().ask(&request).unwrap()
}

/// The counters, once the ledger balances: packets of the gateway's own go on while it is read.
pub(crate) fn balanced(gateway: &Gateway) -> Counters {
    until("the ledger balances", || {
        let counters = gateway.counters().unwrap();
        if counters.balanced && counters.totals.held == 0 {
            return Ok(counters);
        }
        Err(Box::new(counters))
    })
}

/// Lays the links of an example and writes the configuration of the places at their other ends.
struct Builder<'a> {
    config: &'a Config,
    gateway: Arc<Host>,
    wire: Arc<Host>,
    wires: BTreeMap<String, Wire>,
    /// Links laid so far.
    links: usize,
    /// Where each circuit ends.
    ends: BTreeMap<String, Arc<Host>>,
}

impl Builder<'_> {
    /// `keys`: the file with the place's own key, and the public key of the example's gateway.
    fn place(
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
            let set = |netlink: &mut gateway::device::netlink::Netlink| {
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
