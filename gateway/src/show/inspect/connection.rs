//! Circuits, tunnels, clients, neighbours and BGP sessions of the running gateway.

use crate::build::assembly::Parts;
use crate::config::schema::{Circuit, Client, Config};
use crate::control::neighbor::entry::mac_text;
use crate::control::published::{HealthView, PathView};
use crate::plan::limit;
use crate::plan::{Origin, PathPlan, Plan};
use crate::show::clients::ClientSession;
use crate::show::inspect::state_of;
use crate::show::inspect::sums;
use crate::show::inspect::view_of;
use crate::show::view::{
    BgpView, CircuitView, ClientView, LaneView, LinkView, NeighborView, TunnelView,
};
use crate::telemetry::ledger::{Sum, Totals};
use crate::tunnels::TunnelSet;
use crate::worker::control_port::TunnelWord;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use routing::health::Reachability;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The circuits with their links.
pub(crate) fn circuits(
    config: &Config,
    plan: &Plan,
    parts: &Parts,
    views: &[PathView],
    totals: &Totals,
) -> Vec<CircuitView> {
    let circuit = |(index, circuit): (usize, &Circuit)| {
        let of_circuit = plan.paths.iter().filter_map(|path| match path.origin {
            Origin::Link { circuit, link } if circuit == index => Some((path, link)),
            _ => None,
        });
        let links = of_circuit.filter_map(|(path, link)| {
            let link = circuit.links.get(link)?;
            let (state, reason) = state_of(views, path);
            let (received, sent) = sums(totals, &path.name);
            let view = view_of(views, path);
            Some(LinkView {
                name: link.name.clone(),
                interface: link.interface.clone(),
                vlan: link.vlan.clone(),
                mac: parts
                    .link(path.id)
                    .and_then(|parts| parts.recipe.mac)
                    .map(mac_text),
                address: link.address.clone(),
                neighbor: link.neighbor.clone(),
                state,
                reason,
                arp_available: view
                    .is_some_and(|view| view.neighbor == Some(Reachability::Resolved)),
                received,
                sent,
                mistagged: view.and_then(|view| view.mistagged.clone()),
            })
        });
        let tags = circuit.links.iter().map(|link| link.vlan.len()).max();
        let tags = tags.unwrap_or(0);
        CircuitView {
            name: circuit.name.clone(),
            model: circuit.model.name().to_owned(),
            model_name: circuit.model.azure_name().to_owned(),
            wire: circuit.model.wire(tags).to_owned(),
            prefixes: circuit.prefixes.clone(),
            links: links.collect(),
        }
    };
    config.circuits().iter().enumerate().map(circuit).collect()
}

/// The tunnels.
pub(crate) fn tunnels(
    config: &Config,
    plan: &Plan,
    parts: &Parts,
    views: &[PathView],
    totals: &Totals,
    (mtus, started): (&[u16], Instant),
) -> Vec<TunnelView> {
    let (_, rates) = limit::vpn(config);
    let port = config.vpn.as_ref().map_or(0, |vpn| vpn.listen_port);
    let lane = |(lane, word): (u16, &Arc<TunnelWord>)| LaneView {
        port: port.saturating_add(lane),
        endpoint: word.endpoint.load().as_deref().copied(),
        has_session: word.has_session.load(Ordering::Relaxed),
        handshakes: word.handshakes.load(Ordering::Relaxed),
        last_handshake_seconds: handshake_age(word, started),
        packets_in: word.packets_in.load(Ordering::Relaxed),
        packets_out: word.packets_out.load(Ordering::Relaxed),
    };
    let tunnel = |path: &PathPlan| {
        let Origin::Site { site } = path.origin else {
            return None;
        };
        let site = config.sites().get(site)?;
        let word = parts.tunnel(path.id)?;
        let (state, reason) = state_of(views, path);
        let (ingress, egress) = sums(totals, &path.name);
        Some(TunnelView {
            name: site.name.clone(),
            kind: site.kind.name().to_owned(),
            lanes: (0..).zip(parts.lanes(path.id)).map(lane).collect(),
            public_key: BASE64.encode(site.public_key),
            gateway_public_key: String::new(),
            endpoint: word.endpoint.load().as_deref().copied(),
            local: word.local.load().as_deref().copied(),
            over: site.over.clone(),
            mtu: mtus.get(usize::from(path.id.0)).copied(),
            path_mtu: Some(word.path_mtu.load(Ordering::Relaxed)).filter(|&mtu| mtu > 0),
            fragmented_packets: fragmented(parts.lanes(path.id)),
            last_handshake_seconds: handshake_age(word, started),
            handshakes: word.handshakes.load(Ordering::Relaxed),
            state,
            reason,
            prefixes: site.prefixes.clone(),
            limit_bits_per_second: rates.bits_per_second,
            limit_packets_per_second: rates.packets_per_second,
            bits_per_second: 0.0,
            packets_per_second: 0.0,
            ingress,
            egress,
        })
    };
    plan.live().filter_map(tunnel).collect()
}

/// Datagrams of a tunnel that went in fragments, so far.
fn fragmented(lanes: &[Arc<TunnelWord>]) -> u64 {
    let of = |word: &Arc<TunnelWord>| word.fragmented.load(Ordering::Relaxed);
    lanes.iter().map(of).sum()
}

/// The point-to-site clients, by name.
pub(crate) fn clients(config: &Config, tunnels: &TunnelSet, started: Instant) -> Vec<ClientView> {
    let view = |client: &Client| {
        let mut view = ClientView {
            name: client.name.clone(),
            address: client.address.clone(),
            public_key: BASE64.encode(client.public_key),
            ..ClientView::default()
        };
        if let Some(word) = tunnels.client(&client.name).map(|tunnel| &tunnel.word) {
            let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
            view.connected = Some(word.has_session.load(Ordering::Relaxed));
            view.endpoint = word.endpoint.load().as_deref().copied();
            view.last_handshake_seconds = handshake_age(word, started);
            view.handshakes = read(&word.handshakes);
            view.ingress = Sum {
                packets: read(&word.packets_in),
                bytes: read(&word.bytes_in),
            };
            view.egress = Sum {
                packets: read(&word.packets_out),
                bytes: read(&word.bytes_out),
            };
        }
        view
    };
    let mut views: Vec<ClientView> = config.clients().iter().map(view).collect();
    views.sort_by(|a, b| a.name.cmp(&b.name));
    views
}

/// What is known of a client's session.
pub(crate) fn session(tunnels: &TunnelSet, name: &str) -> ClientSession {
    let word = tunnels.client(name).map(|tunnel| &tunnel.word);
    match word {
        Some(word) if word.has_session.load(Ordering::Relaxed) => ClientSession::Up,
        Some(word) if word.endpoint.load().is_some() => ClientSession::Over,
        Some(_) | None => ClientSession::Never,
    }
}

/// Seconds since the session in use was established.
fn handshake_age(word: &TunnelWord, started: Instant) -> Option<f64> {
    let at = word.last_handshake.load(Ordering::Relaxed).checked_sub(1)?;
    let age = started.elapsed().saturating_sub(Duration::from_millis(at));
    Some(age.as_secs_f64())
}

/// The next hops of every link, with the gateway's own side.
pub(crate) fn neighbors(plan: &Plan, parts: &Parts, view: &HealthView) -> Vec<NeighborView> {
    let mut views = Vec::new();
    for path in &plan.paths {
        let Some(link) = parts.link(path.id) else {
            continue;
        };
        let of_link = view
            .neighbors
            .iter()
            .filter(|neighbor| neighbor.name == path.name);
        views.extend(of_link.map(|neighbor| NeighborView {
            path: path.name.clone(),
            interface: neighbor.interface.clone(),
            side: "provider".to_owned(),
            address: neighbor.address,
            mac: neighbor.mac.map(mac_text),
            state: neighbor.state.name().to_owned(),
            age_seconds: neighbor.confirmed.map(|at| at.elapsed().as_secs_f64()),
            previous_mac: neighbor.previous.map(|(mac, _)| mac_text(mac)),
            changed_seconds: neighbor.previous.map(|(_, at)| at.elapsed().as_secs_f64()),
            conflict_mac: neighbor.conflict.map(mac_text),
        }));
        views.extend(link.address.iter().map(|address| {
            NeighborView {
                path: path.name.clone(),
                interface: link.recipe.interface.clone(),
                side: "gateway".to_owned(),
                address: address.addr(),
                mac: link.recipe.mac.map(mac_text),
                state: "own".to_owned(),
                age_seconds: None,
                previous_mac: None,
                changed_seconds: None,
                conflict_mac: view
                    .claims
                    .iter()
                    .find(|claim| (&claim.name, claim.address) == (&path.name, address.addr()))
                    .map(|claim| mac_text(claim.mac)),
            }
        }));
    }
    views
}

/// BGP sessions: the configuration is kept, the sessions are not run yet.
pub fn bgp(config: &Config) -> Vec<BgpView> {
    let mut views = Vec::new();
    for circuit in config.circuits() {
        for link in &circuit.links {
            let (Some(bgp), Some(&neighbor)) = (&link.bgp, link.neighbor.first()) else {
                continue;
            };
            views.push(BgpView {
                path: format!("{}/{}", circuit.name, link.name),
                neighbor,
                asn: bgp.neighbor_asn,
                state: "not run".to_owned(),
                routes_learned: 0,
                routes_advertised: 0,
            });
        }
    }
    views
}
