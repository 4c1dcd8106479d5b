//! What the running gateway looks like to a person: the views of `vng show` that need the state of its
//! paths. What the plan alone says is in [`super::describe`].

use crate::config::schema::{Circuit, Client, Config, ExpressRoute, Site, Vpn};
use crate::config::value::POINT_TO_SITE;
use crate::control::assembly::Parts;
use crate::control::board::{self, HealthView, PathView};
use crate::control::clients::Session;
use crate::control::describe::PathHealth;
use crate::control::kernel::presence::PresenceView;
use crate::control::limit;
use crate::control::plan::{Origin, PathPlan, Plan};
use crate::control::tunnels::TunnelSet;
use crate::control::view::{
    BgpView, CircuitView, ClientView, Event, GatewayStatus, HostProblem, HostStatus, LaneView,
    LinkView, MemberHealth, NeighborView, PathStatus, ProbeStatus, Status, TunnelView,
};
use crate::pipeline::shape::Rates;
use crate::telemetry::ledger::{Sum, Totals};
use crate::worker::handover::TunnelWord;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ipnet::IpNet;
use routing::health::{Reachability, Reason, Usability};
use routing::path::{PathId, PathKind};
use routing::rib::OwnerId;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The kernel's side of the TUN device.
pub fn host(view: PresenceView) -> HostStatus {
    let problems = view.problems.into_iter().map(|problem| HostProblem {
        reason: problem.reason.to_owned(),
        detail: problem.detail,
    });
    let problems: Vec<_> = problems.collect();
    let state = if problems.is_empty() {
        "up"
    } else {
        "degraded"
    };
    HostStatus {
        state: state.to_owned(),
        device: view.device,
        routes: view.routes as u64,
        problems,
    }
}

/// A path's change of state.
pub fn event(event: &board::Event) -> Event {
    Event {
        detected_unix_ms: event.detected_unix_ms,
        switched_unix_ms: event.switched_unix_ms,
        path: event.path.clone(),
        from: event.from.to_owned(),
        to: event.to.to_owned(),
        reason: event.reason.map(str::to_owned),
    }
}

/// What passed a port in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Packets a second, received at the port.
    pub packets_in: f64,
    /// Bits a second, received at the port.
    pub bits_in: f64,
    /// Packets a second, sent at the port.
    pub packets_out: f64,
    /// Bits a second, sent at the port.
    pub bits_out: f64,
}

/// Rates by port between two looks at the ledger.
pub fn rates(before: &Totals, after: &Totals, seconds: f64) -> BTreeMap<String, Rate> {
    let since = |then: &BTreeMap<String, Sum>, now: &BTreeMap<String, Sum>, port: &str| {
        let (then, now) = (
            then.get(port).copied().unwrap_or_default(),
            now.get(port).copied().unwrap_or_default(),
        );
        let packets = now.packets.saturating_sub(then.packets) as f64 / seconds;
        (
            packets,
            now.bytes.saturating_sub(then.bytes) as f64 * 8.0 / seconds,
        )
    };
    let ports = after.received.keys();
    let rate = |port: &String| {
        let (packets_in, bits_in) = since(&before.received, &after.received, port);
        let (packets_out, bits_out) = since(&before.sent, &after.sent, port);
        (
            port.clone(),
            Rate {
                packets_in,
                bits_in,
                packets_out,
                bits_out,
            },
        )
    };
    ports.map(rate).collect()
}

fn circuits_of(config: &Config) -> &[Circuit] {
    config
        .expressroute
        .as_ref()
        .map_or(&[], |gateway| &gateway.circuits)
}

fn sites_of(config: &Config) -> &[Site] {
    config.vpn.as_ref().map_or(&[], |gateway| &gateway.sites)
}

fn clients_of(config: &Config) -> &[Client] {
    let clients = config.vpn.as_ref().and_then(|v| v.point_to_site.as_ref());
    clients.map_or(&[], |clients| &clients.clients)
}

fn pools_of(config: &Config) -> &[IpNet] {
    let clients = config.vpn.as_ref().and_then(|v| v.point_to_site.as_ref());
    clients.map_or(&[], |clients| &clients.address_pool)
}

fn kind_name(kind: PathKind) -> &'static str {
    match kind {
        PathKind::ExpressRoute => "ExpressRoute",
        PathKind::Vpn => "Vpn",
    }
}

fn view_of<'a>(views: &'a [PathView], path: &PathPlan) -> Option<&'a PathView> {
    views.iter().find(|view| view.name == path.name)
}

fn state_of(views: &[PathView], path: &PathPlan) -> (String, Option<String>) {
    let Some(view) = view_of(views, path) else {
        return ("starting".to_owned(), None);
    };
    let reason = view.state.reason().map(|reason| reason.name().to_owned());
    (view.state.name().to_owned(), reason)
}

pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The gateway at a glance.
pub fn status(
    config: &Config,
    plan: &Plan,
    views: &[PathView],
    rates: &BTreeMap<String, Rate>,
) -> Status {
    let gateway = |kind: PathKind| {
        let mut status = GatewayStatus {
            kind: kind_name(kind).to_owned(),
            ..GatewayStatus::default()
        };
        for path in plan.live().filter(|path| path.kind == kind) {
            let rate = rates.get(&path.name).copied().unwrap_or_default();
            status.bits_in_per_second += rate.bits_in;
            status.bits_out_per_second += rate.bits_out;
            status.packets_per_second += rate.packets_in + rate.packets_out;
        }
        status
    };
    let mut gateways = Vec::new();
    if let Some(expressroute) = &config.expressroute {
        let mut status = gateway(PathKind::ExpressRoute);
        status.sku.clone_from(&expressroute.sku);
        set_limit(&mut status, limit::expressroute(config));
        gateways.push(status);
    }
    if let Some(vpn) = &config.vpn {
        let mut status = gateway(PathKind::Vpn);
        status.sku.clone_from(&vpn.sku);
        set_limit(&mut status, limit::vpn(config).0);
        gateways.push(status);
    }
    Status {
        name: config.vnet.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        device: config.vnet.device.clone(),
        address: config.vnet.address.clone(),
        gateways,
        paths: plan
            .live()
            .map(|path| path_status(config, plan, path, views))
            .collect(),
        ..Status::default()
    }
}

/// What is there to use, and how much of it is.
fn set_limit(status: &mut GatewayStatus, rates: Rates) {
    let bits = status.bits_in_per_second + status.bits_out_per_second;
    let used = |rate: f64, limit: Option<u64>| limit.map(|limit| rate / limit.max(1) as f64);
    let used = [
        used(bits, rates.bits_per_second),
        used(status.packets_per_second, rates.packets_per_second),
    ];
    status.limit_used = used.into_iter().flatten().reduce(f64::max);
    status.limit_bits_per_second = rates.bits_per_second;
    status.limit_packets_per_second = rates.packets_per_second;
}

fn path_status(config: &Config, plan: &Plan, path: &PathPlan, views: &[PathView]) -> PathStatus {
    let view = view_of(views, path);
    let (state, reason) = state_of(views, path);
    let groups = plan.snapshot.groups().iter();
    // A link's own subnet leads over it always, so that it can be found up again: that is no use of it.
    let alive = view.is_some_and(|view| view.usability != Usability::None);
    let in_use = alive
        && groups.into_iter().any(|group| {
            let place = group.members().iter().position(|&member| member == path.id);
            place.is_some_and(|bit| group.active().load() >> bit & 1 != 0)
        });
    PathStatus {
        name: path.name.clone(),
        kind: kind_name(path.kind).to_owned(),
        connection: match path.origin {
            Origin::Site { site } => sites_of(config).get(site).map(|site| site.kind.name()),
            Origin::PointToSite => Some(POINT_TO_SITE),
            Origin::Link { .. } | Origin::Gone => None,
        }
        .map(str::to_owned),
        state,
        reason,
        since_seconds: view.map_or(0.0, |view| view.since.elapsed().as_secs_f64()),
        in_use,
        probe: view.and_then(|view| view.probe).map(|probe| ProbeStatus {
            target: probe.target,
            sent: probe.count.sent,
            answered: probe.count.answered,
            lost: probe.count.lost,
            returned_by: {
                let other = probe.returned_by.filter(|&by| by != path.id);
                let other = other.and_then(|by| plan.paths.get(usize::from(by.0)));
                other.map(|other| other.name.clone())
            },
            round_trip_ms: probe.round_trip.map(milliseconds),
        }),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn sums(totals: &Totals, name: &str) -> (Sum, Sum) {
    let of = |sums: &BTreeMap<String, Sum>| sums.get(name).copied().unwrap_or_default();
    (of(&totals.received), of(&totals.sent))
}

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
    circuits_of(config)
        .iter()
        .enumerate()
        .map(circuit)
        .collect()
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
        let site = sites_of(config).get(site)?;
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
    let mut views: Vec<ClientView> = clients_of(config).iter().map(view).collect();
    views.sort_by(|a, b| a.name.cmp(&b.name));
    views
}

/// What is known of a client's session.
pub(crate) fn session(tunnels: &TunnelSet, name: &str) -> Session {
    let word = tunnels.client(name).map(|tunnel| &tunnel.word);
    match word {
        Some(word) if word.has_session.load(Ordering::Relaxed) => Session::Up,
        Some(word) if word.endpoint.load().is_some() => Session::Over,
        Some(_) | None => Session::Never,
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
    for circuit in circuits_of(config) {
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

/// The health of a path, for `vng explain`.
pub fn health(plan: &Plan, views: &[PathView], id: PathId) -> Option<PathHealth> {
    let path = plan.paths.get(usize::from(id.0))?;
    let view = view_of(views, path)?;
    Some(PathHealth {
        told: MemberHealth {
            state: view.state.name().to_owned(),
            reason: view.state.reason().map(|reason| reason.name().to_owned()),
            since_seconds: Some(view.since.elapsed().as_secs_f64()),
        },
        usability: match view.state.reason() {
            Some(Reason::CircuitDown) => Usability::Full,
            _ => view.usability,
        },
    })
}

/// What differs between two configurations and cannot be changed while the gateway runs, whose workers have
/// ports for so many lanes of a site, and tunnels over these circuits.
pub fn needs_restart(
    old: &Config,
    new: &Config,
    (most_lanes, underlays): (u8, &[OwnerId]),
) -> Vec<String> {
    let mut lines = Vec::new();
    let mut check = |what: &str, same: bool| {
        if !same {
            lines.push(what.to_owned());
        }
    };
    let (a, b) = (&old.vnet, &new.vnet);
    check("vnet.device", a.device == b.device);
    check("vnet.mtu", a.mtu == b.mtu);
    check("vnet.host_address", a.host_address == b.host_address);
    check("vnet.offload", a.offload == b.offload);
    check(
        "control.metrics",
        old.control.metrics == new.control.metrics,
    );
    check("control.socket", old.control.socket == new.control.socket);
    check(
        "control.workers",
        old.control.workers == new.control.workers,
    );
    check(
        "control.polling",
        old.control.polling == new.control.polling,
    );
    let links = |config: &Config| -> Vec<_> {
        let links = circuits_of(config).iter().flat_map(|circuit| {
            circuit
                .links
                .iter()
                .map(|link| (circuit.name.clone(), link.clone()))
        });
        links.collect()
    };
    check("the circuits' links", links(old) == links(new));
    for site in sites_of(new) {
        check(
            &format!("more than {most_lanes} lanes, of site {}", site.name),
            site.lanes <= most_lanes,
        );
        let circuits = circuits_of(new).iter().enumerate();
        let mut over = circuits.filter(|(_, circuit)| Some(&circuit.name) == site.over.as_ref());
        check(
            &format!("the first tunnel over a circuit, of site {}", site.name),
            over.all(|(place, _)| underlays.contains(&OwnerId(place as u16))),
        );
    }
    let vpns = (old.vpn.as_ref(), new.vpn.as_ref());
    check("a VPN gateway", vpns.0.is_some() == vpns.1.is_some());
    if let (Some(old), Some(new)) = vpns {
        check("vpn.listen_port", old.listen_port == new.listen_port);
        check("vpn.mtu", old.mtu == new.mtu);
        check("vpn.offload", old.offload == new.offload);
        check("vpn.bind_address", old.bind_address == new.bind_address);
        check("vpn.interface", old.interface == new.interface);
        check("vpn.fwmark", old.fwmark == new.fwmark);
        check(
            "vpn.path_mtu_discovery",
            old.path_mtu_discovery == new.path_mtu_discovery,
        );
    }
    lines
}

/// Prefixes of one list that are named, each way; of more the number is said.
const NAMED: usize = 20;

/// A line for each prefix that is gone and each that is new.
fn prefixes(lines: &mut Vec<String>, name: &str, old: &[IpNet], new: &[IpNet]) {
    if old == new {
        return;
    }
    let (before, now): (HashSet<_>, HashSet<_>) = (old.iter().collect(), new.iter().collect());
    let mut tell = |from: &[IpNet], other: &HashSet<&IpNet>, what: &str| {
        let mut all = from.iter().filter(|prefix| !other.contains(prefix));
        lines.extend(
            all.by_ref()
                .take(NAMED)
                .map(|prefix| format!("{name}: {prefix} {what}")),
        );
        let more = all.count();
        if more > 0 {
            lines.push(format!("{name}: {more} more {what}"));
        }
    };
    tell(old, &now, "taken away");
    tell(new, &before, "added");
    if before == now {
        lines.push(format!("{name}: the order of the prefixes changed"));
    }
}

/// What differs between two configurations and can be changed while the gateway runs, one line each; what
/// becomes of tunnels is told apart, [`TunnelSet::changes`].
pub fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    prefixes(
        &mut lines,
        "vnet.address_space",
        &old.vnet.address_space,
        &new.vnet.address_space,
    );
    prefixes(
        &mut lines,
        "vnet.address",
        &old.vnet.address,
        &new.vnet.address,
    );
    for (a, b) in circuits_of(old).iter().zip(circuits_of(new)) {
        let name = format!("circuit {}", b.name);
        prefixes(&mut lines, &name, &a.prefixes, &b.prefixes);
    }
    let before: HashMap<&str, &Site> = sites_of(old)
        .iter()
        .map(|site| (site.name.as_str(), site))
        .collect();
    for b in sites_of(new) {
        if let Some(a) = before.get(b.name.as_str()) {
            prefixes(
                &mut lines,
                &format!("site {}", b.name),
                &a.prefixes,
                &b.prefixes,
            );
        }
    }
    prefixes(&mut lines, "point-to-site", pools_of(old), pools_of(new));
    let mut changed = |what: &str, same: bool| {
        if !same {
            lines.push(format!("{what} changed"));
        }
    };
    changed("vnet.name", old.vnet.name == new.vnet.name);
    changed(
        "policy",
        old.policy == new.policy && old.prefix_sets == new.prefix_sets,
    );
    changed("user-defined routes", old.route == new.route);
    let weights = |config: &Config| -> Vec<u32> {
        let circuits = circuits_of(config).iter().map(|circuit| circuit.weight);
        circuits
            .chain(sites_of(config).iter().map(|site| site.weight))
            .collect()
    };
    changed("the weights of connections", weights(old) == weights(new));
    changed("failover", old.failover == new.failover);
    let sku = |config: &Config| {
        let (expressroute, vpn) = (config.expressroute.as_ref(), config.vpn.as_ref());
        (expressroute.map(ExpressRoute::choice), vpn.map(Vpn::choice))
    };
    changed("the SKUs", sku(old) == sku(new));
    let rates = |config: &Config| (limit::expressroute(config), limit::vpn(config));
    changed("the rates of the SKUs", rates(old) == rates(new));
    changed(
        "vnet.host_routes",
        old.vnet.host_routes == new.vnet.host_routes,
    );
    changed(
        "vnet.host_route_metric",
        old.vnet.host_route_metric == new.vnet.host_route_metric,
    );
    let probes = |config: &Config| -> Vec<_> {
        let circuits = circuits_of(config)
            .iter()
            .map(|circuit| circuit.probe.clone());
        circuits
            .chain(sites_of(config).iter().map(|site| site.probe.clone()))
            .collect()
    };
    changed("probes", probes(old) == probes(new));
    let circuits = |config: &Config| -> Vec<_> {
        let facts = |circuit: &Circuit| (circuit.model, circuit.premium, circuit.fragments);
        circuits_of(config).iter().map(facts).collect()
    };
    changed(
        "model, premium or fragments of circuits",
        circuits(old) == circuits(new),
    );
    let asn = |config: &Config| config.expressroute.as_ref().map(|gateway| gateway.asn);
    changed("expressroute.asn", asn(old) == asn(new));
    let kinds = |config: &Config| -> Vec<_> {
        let sites = sites_of(config).iter();
        sites.map(|site| (site.name.clone(), site.kind)).collect()
    };
    changed(
        "the sites, their order or their kinds",
        kinds(old) == kinds(new),
    );
    let endpoint = |config: &Config| config.vpn.as_ref().map(|vpn| vpn.public_endpoint.clone());
    changed("vpn.public_endpoint", endpoint(old) == endpoint(new));
    let files = |config: &Config| -> Vec<_> {
        let own = config
            .vpn
            .iter()
            .map(|vpn| Some(vpn.private_key_file.clone()));
        let sites = sites_of(config)
            .iter()
            .map(|site| site.preshared_key_file.clone());
        own.chain(sites).collect()
    };
    changed("the names of key files", files(old) == files(new));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::FragmentPolicy;
    use crate::config::{self, KeyFiles};
    use std::path::Path;

    fn example() -> Config {
        let text = include_str!("../../../docs/examples/coexist.toml").to_owned();
        let loaded = config::parse(Path::new("f"), text, Path::new(""), KeyFiles::Skipped);
        loaded.unwrap().config
    }

    #[test]
    fn prefixes_that_come_and_go_are_named_and_beyond_a_few_counted() {
        let net = |number: u32| IpNet::new((0x0b00_0000 + (number << 8)).to_be_bytes().into(), 24);
        let all: Vec<IpNet> = (0..100).map(|number| net(number).unwrap()).collect();
        let mut lines = Vec::new();
        prefixes(&mut lines, "site a", &all, &all[1..]);
        assert_eq!(lines, ["site a: 11.0.0.0/24 taken away"]);
        lines.clear();
        prefixes(&mut lines, "site a", &[], &all);
        assert_eq!(lines.len(), NAMED + 1);
        assert_eq!(lines[NAMED], "site a: 80 more added");
        lines.clear();
        let turned: Vec<IpNet> = all.iter().rev().copied().collect();
        prefixes(&mut lines, "site a", &all, &turned);
        assert_eq!(lines, ["site a: the order of the prefixes changed"]);
    }

    /// Regression: a reload said "nothing changed" of settings that nobody compared.
    #[test]
    fn a_setting_that_differs_is_said() {
        let old = example();
        assert_eq!(changes(&old, &old), [""; 0]);
        let says = |change: fn(&mut Config), said: &str| {
            let mut new = old.clone();
            change(&mut new);
            assert_eq!(changes(&old, &new), [said]);
        };
        says(|c| c.vnet.name = "other".into(), "vnet.name changed");
        says(
            |c| c.vpn.as_mut().unwrap().public_endpoint = Some("a.example:1".into()),
            "vpn.public_endpoint changed",
        );
        says(
            |c| c.expressroute.as_mut().unwrap().circuits[0].fragments = FragmentPolicy::Forward,
            "model, premium or fragments of circuits changed",
        );
        says(
            |c| c.vpn.as_mut().unwrap().private_key_file = "other".into(),
            "the names of key files changed",
        );
        // A weight is no part of the tunnel, which goes on.
        says(
            |c| c.vpn.as_mut().unwrap().sites[0].weight = 7,
            "the weights of connections changed",
        );
    }
}
