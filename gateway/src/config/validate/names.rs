//! Names that policies and routes may use.

use super::{Rules, found, joined};
use crate::config::value::{POINT_TO_SITE, nearest};
use crate::config::walk::without_indices;

/// Names that policies and routes may use.
pub(super) struct Names {
    /// Circuits and sites; and `point-to-site`, all clients together.
    pub(super) paths: Vec<String>,
    /// Point-to-site clients: neither policies nor routes name them.
    clients: Vec<String>,
    /// Whether all names could be read; if not, an unknown one may be the unreadable one.
    pub(super) complete: bool,
}

impl Names {
    pub(super) fn of(rules: &Rules) -> Self {
        let config = rules.config;
        let circuits = config.circuits().iter();
        let sites = config.sites().iter();
        let circuits = circuits.map(|circuit| circuit.name.clone());
        let pool = config.point_to_site();
        let paths: Vec<String> = circuits
            .chain(sites.map(|site| site.name.clone()))
            .chain(pool.map(|_| POINT_TO_SITE.to_owned()))
            .collect();
        let clients = config.point_to_site().into_iter();
        let clients = clients.flat_map(|p| p.clients.iter().map(|client| client.name.clone()));
        let clients: Vec<String> = clients.collect();
        let unread = |key: &str| match without_indices(key).as_str() {
            "expressroute.circuit"
            | "expressroute.circuit.name"
            | "vpn.site"
            | "vpn.site.name"
            | "vpn.point_to_site"
            | "vpn.point_to_site.client"
            | "vpn.point_to_site.client.name" => true,
            "vnet" | "prefix_set" | "policy" | "route" | "failover" | "control" => false,
            other => !other.contains('.'),
        };
        Self {
            complete: !rules.places.any_wrong(unread),
            paths,
            clients,
        }
    }
}

/// An error at `key` unless `name` is a circuit or a site. Where `vnet` may stand, the message says so.
pub(super) fn known_name(rules: &mut Rules, known: &Names, key: &str, name: &str, vnet_too: bool) {
    let is = |names: &[String], name: &str| names.iter().any(|known| known == name);
    if !known.complete || is(&known.paths, name) {
        return;
    }
    let vnet = vnet_too.then_some("vnet");
    let allowed: Vec<&str> = known.paths.iter().map(String::as_str).chain(vnet).collect();
    let mut words = found(format!("found {name:?}")).allowed(if allowed.is_empty() {
        "the name of a circuit or site; the file has none".to_owned()
    } else {
        joined(&allowed)
    });
    let circuit = name.split_once('/').map(|(circuit, _)| circuit);
    if circuit.is_some_and(|circuit| is(&known.paths, circuit)) {
        words = words.help("name the circuit; its links share the flows");
    } else if is(&known.clients, name) {
        words =
            words.help("this is a client; match its address, or name \"point-to-site\" for all");
    } else if let Some(near) = nearest(name, allowed) {
        words = words.help(format!("did you mean \"{near}\"?"));
    }
    rules.error(key, "is the name of nothing in this file", words);
}
