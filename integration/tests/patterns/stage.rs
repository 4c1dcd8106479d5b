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

use crate::place::{Builder, Place};
use crypto::key::{PrivateKey, PublicKey};
use gateway::config::schema::Config;
use gateway::config::{self, KeyFiles};
use gateway::show::view::{Counters, PathStatus};
use integration::gateway::Gateway;
use integration::host::Host;
use integration::stage::{self, Turn};
pub(crate) use integration::stage::{PATIENCE, example, until};
use integration::wire::Wire;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

/// The key file that the examples name.
const KEY_FILE: &str = "/etc/vng/vpn.key";

/// Key pairs, files and processes of one test.
pub(crate) struct Stage {
    shared: stage::Stage,
    _turn: Turn,
}

impl Deref for Stage {
    type Target = stage::Stage;

    fn deref(&self) -> &stage::Stage {
        &self.shared
    }
}

impl Stage {
    pub(crate) fn new() -> Self {
        let turn = Turn::take();
        Self {
            shared: stage::Stage::new(env!("CARGO_BIN_EXE_vng-lab")),
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
        text = text.replace(KEY_FILE, &self.key_path(name, key));
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
        let socket = self.control(name);
        if text.contains("[control]\n") {
            text.replace("[control]\n", &socket)
        } else {
            format!("{text}\n{socket}")
        }
    }

    /// Writes a private key to a file of its own; the file's path.
    pub(crate) fn key_path(&self, name: &str, key: &PrivateKey) -> String {
        self.key_file(name, key).display().to_string()
    }

    /// Prints the example's effective routes, for docs/patterns.md.
    pub(crate) fn print_routes(&self, name: &str, gateway: &Gateway) {
        println!(
            "== routes {name}\n{}==",
            self.vng(gateway, &["show", "routes"])
        );
    }
}

/// What the text of an example says.
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
        let mut builder = Builder::new(&config);
        let mut gateways = BTreeMap::new();
        for (number, (place, own)) in places.iter().zip(&keys).enumerate() {
            let host = Arc::new(Host::new(place.name).unwrap());
            let keys = (
                stage.key_path(place.name, own),
                key.public_key().to_string(),
            );
            let text = builder.place(place, number, &host, &keys);
            let gateway = stage.gateway_on(&host, place.name, &(text + &stage.control(place.name)));
            gateways.insert(place.name, gateway);
        }
        let Builder { gateway, wires, .. } = builder;
        let mut world = Self {
            name: name.to_owned(),
            gateway: stage.gateway_on(&gateway, name, &text),
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
                .flat_map(|gateway| gateway.control().status().unwrap().paths)
                .map(|path| (is_whole(&path), path.name, path.state))
                .collect();
            let all = states.iter().all(|(whole, ..)| *whole);
            all.then_some(()).ok_or(states)
        });
    }

    /// Waits until a path of the example's gateway is down, or up and used again.
    pub(crate) fn wait_for(&self, path: &str, up: bool) {
        until(&format!("{path} is up: {up}"), || {
            let paths = self.gateway.control().status().unwrap().paths;
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

/// The counters, once the ledger balances and no packet waits.
pub(crate) fn balanced(gateway: &Gateway) -> Counters {
    until("no packet waits", || {
        let counters = stage::balanced(gateway);
        if counters.totals.held == 0 {
            Ok(counters)
        } else {
            Err(Box::new(counters))
        }
    })
}
