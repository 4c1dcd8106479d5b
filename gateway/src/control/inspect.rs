//! What a plan and the state of its paths look like to a person: the views of `vng show` and `vng explain`.
//! Pure functions; the running gateway and the offline command line share them.

use crate::config::schema::{
    Action, Circuit, Config, ConnectionModel, From, Match, NextHop, PolicyRule, Site, SiteKind,
};
use crate::control::api::Refusal;
use crate::control::assembly::Parts;
use crate::control::board::{self, HealthView, PathView};
use crate::control::plan::{Origin, PathPlan, Plan};
use crate::control::view::{
    Alternative, BgpView, CircuitView, Event, ExplainedRoute, Explanation, GatewayStatus, LinkView,
    NeighborView, PathStatus, PolicyView, ProbeStatus, Query, Rejected, RouteView, Status,
    TunnelView,
};
use crate::sku;
use crate::telemetry::ledger::{Sum, Totals};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ipnet::IpNet;
use routing::explain;
use routing::health::Reachability;
use routing::packet::{FlowKey, Fragment, Headers, Version, address_bits};
use routing::path::{GroupId, Ingress, PathId, PathKind};
use routing::policy::RuleId;
use routing::rib;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

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

fn mac_text(mac: [u8; 6]) -> String {
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
        for path in plan.paths.iter().filter(|path| path.kind == kind) {
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
        if let Some(sku) = sku::expressroute(&expressroute.sku) {
            status.limit_bits_per_second = sku.bits_per_second;
            status.limit_packets_per_second = sku.packets_per_second;
            status.limit_flows = sku.flows;
        }
        gateways.push(status);
    }
    if let Some(vpn) = &config.vpn {
        let mut status = gateway(PathKind::Vpn);
        status.sku.clone_from(&vpn.sku);
        if let Ok(sku) = sku::vpn(&vpn.sku, vpn.generation) {
            status.limit_bits_per_second = sku.bits_per_second;
        }
        gateways.push(status);
    }
    Status {
        name: config.vnet.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        device: config.vnet.device.clone(),
        address: config.vnet.address.clone(),
        gateways,
        paths: plan
            .paths
            .iter()
            .map(|path| path_status(plan, path, views))
            .collect(),
        ..Status::default()
    }
}

fn path_status(plan: &Plan, path: &PathPlan, views: &[PathView]) -> PathStatus {
    let view = view_of(views, path);
    let (state, reason) = state_of(views, path);
    let groups = plan.snapshot.groups().iter();
    let in_use = groups.into_iter().any(|group| {
        let place = group.members().iter().position(|&member| member == path.id);
        place.is_some_and(|bit| group.active().load() >> bit & 1 != 0)
    });
    PathStatus {
        name: path.name.clone(),
        kind: kind_name(path.kind).to_owned(),
        state,
        reason,
        since_seconds: view.map_or(0.0, |view| view.since.elapsed().as_secs_f64()),
        in_use,
        probe: view.and_then(|view| view.probe).map(|probe| ProbeStatus {
            target: probe.target,
            sent: probe.count.sent,
            answered: probe.count.answered,
            lost: probe.count.lost,
            round_trip_ms: probe.round_trip.map(milliseconds),
        }),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The effective routes.
pub fn routes(plan: &Plan) -> Vec<RouteView> {
    let snapshot = &plan.snapshot;
    let active_paths = |group: Option<GroupId>| -> Vec<String> {
        let Some(group) = group.and_then(|group| snapshot.group(group)) else {
            return Vec::new();
        };
        let word = group.active().load();
        let members = group.members().iter().enumerate();
        let active = members.filter(|(bit, _)| word >> bit & 1 != 0);
        active
            .filter_map(|(_, &path)| path_name(plan, path))
            .collect()
    };
    let mut views = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for (id, ranked) in snapshot.rib().routes() {
        let prefix = ranked.first().map(|first| first.candidate.prefix);
        seen.extend(prefix);
        for one in ranked {
            let active = one.standing.why().is_none();
            let group = if active {
                snapshot.route_group(id)
            } else {
                None
            };
            views.push(route_view(plan, one, active_paths(group)));
        }
    }
    // Prefixes of which no candidate is in force.
    for one in snapshot.rib().candidates() {
        if !seen.contains(&one.candidate.prefix) {
            views.push(route_view(plan, one, Vec::new()));
        }
    }
    views
}

fn route_view(plan: &Plan, one: &rib::Ranked, paths: Vec<String>) -> RouteView {
    let (next_hop_type, next_hop) = match one.candidate.next_hop {
        rib::NextHop::Vnet => ("VnetLocal", None),
        rib::NextHop::Internet => ("Internet", None),
        rib::NextHop::None => ("None", None),
        rib::NextHop::Owner(owner) => {
            let path = plan.paths.iter().find(|path| path.owner == owner);
            (
                "VirtualNetworkGateway",
                path.map(|path| owner_name(path).to_owned()),
            )
        }
        rib::NextHop::Path(path) => ("VirtualNetworkGateway", path_name(plan, path)),
    };
    RouteView {
        state: one.standing.state().to_owned(),
        source: one.candidate.source.name().to_owned(),
        prefix: one.candidate.prefix,
        next_hop_type: next_hop_type.to_owned(),
        next_hop,
        paths,
        standby: one.standing.is_standby(),
        why: one.standing.why(),
    }
}

/// The circuit of a link, or the site of a tunnel.
fn owner_name(path: &PathPlan) -> &str {
    match path.kind {
        PathKind::ExpressRoute => path
            .name
            .split_once('/')
            .map_or(&*path.name, |(circuit, _)| circuit),
        PathKind::Vpn => &path.name,
    }
}

fn path_name(plan: &Plan, path: PathId) -> Option<String> {
    plan.paths
        .get(usize::from(path.0))
        .map(|path| path.name.clone())
}

/// The policy route table.
pub fn policy(config: &Config, plan: &Plan) -> Vec<PolicyView> {
    let view = |(index, rule): (usize, &PolicyRule)| {
        let rule_group = |version| plan.snapshot.rule_group(RuleId(index as u16), version);
        let group = rule_group(Version::V4).or_else(|| rule_group(Version::V6));
        let path = group.and_then(|group| {
            let group = plan.snapshot.group(group)?;
            let word = group.active().load();
            let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
            path_name(plan, *group.members().get(bit)?)
        });
        PolicyView {
            name: rule.name.clone(),
            matches: match_text(&rule.matches),
            action: match &rule.action {
                Action::Route => "route".to_owned(),
                Action::Via(paths) => format!("via {}", paths.join(", ")),
                Action::Drop => "drop".to_owned(),
                Action::Reject => "reject".to_owned(),
            },
            path,
            hits: None,
        }
    };
    config.policy.iter().enumerate().map(view).collect()
}

fn match_text(matches: &Match) -> String {
    fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
        items
            .into_iter()
            .map(|item| item.to_string())
            .collect::<Vec<_>>()
            .join(",")
    }
    let ports = |ranges: &[(u16, u16)]| {
        list(ranges.iter().map(|&(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        }))
    };
    let from = matches.from.iter().map(|from| match from {
        From::Vnet => "vnet",
        From::Path(name) => name.as_str(),
    });
    let fields = [
        ("from", list(from)),
        ("source", list(&matches.source)),
        ("destination", list(&matches.destination)),
        (
            "protocol",
            list(
                matches
                    .protocol
                    .iter()
                    .map(|&p| crate::config::matches::protocol_name(p)),
            ),
        ),
        ("source_port", ports(&matches.source_port)),
        ("destination_port", ports(&matches.destination_port)),
        (
            "dscp",
            list(
                matches
                    .dscp
                    .iter()
                    .map(|&d| crate::config::matches::dscp_name(d)),
            ),
        ),
        ("icmp_type", list(&matches.icmp_type)),
        (
            "fragment",
            matches
                .fragment
                .map_or_else(String::new, |fragment| fragment.to_string()),
        ),
    ];
    let given = fields.iter().filter(|(_, value)| !value.is_empty());
    let text = given
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(" ");
    if text.is_empty() {
        "any".to_owned()
    } else {
        text
    }
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
            })
        });
        CircuitView {
            name: circuit.name.clone(),
            model: match circuit.model {
                ConnectionModel::Colocated => "colocated",
                ConnectionModel::PointToPoint => "point-to-point",
                ConnectionModel::AnyToAny => "any-to-any",
            }
            .to_owned(),
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
    started: Instant,
) -> Vec<TunnelView> {
    let tunnel = |path: &PathPlan| {
        let Origin::Site { site } = path.origin else {
            return None;
        };
        let site = sites_of(config).get(site)?;
        let word = parts.tunnel(path.id)?;
        let (state, reason) = state_of(views, path);
        let (ingress, egress) = sums(totals, &path.name);
        let handshake = word.last_handshake.load(Ordering::Relaxed);
        Some(TunnelView {
            name: site.name.clone(),
            kind: match site.kind {
                SiteKind::SiteToSite => "site-to-site",
                SiteKind::VnetToVnet => "vnet-to-vnet",
            }
            .to_owned(),
            lane: 0,
            public_key: BASE64.encode(site.public_key),
            endpoint: word.endpoint.load().as_deref().copied(),
            last_handshake_seconds: (handshake != 0).then(|| {
                let at = Duration::from_millis(handshake - 1);
                started.elapsed().saturating_sub(at).as_secs_f64()
            }),
            handshakes: word.handshakes.load(Ordering::Relaxed),
            state,
            reason,
            prefixes: site.prefixes.clone(),
            ingress,
            egress,
        })
    };
    plan.paths.iter().filter_map(tunnel).collect()
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
        }));
        views.extend(link.address.iter().map(|address| NeighborView {
            path: path.name.clone(),
            interface: link.recipe.interface.clone(),
            side: "gateway".to_owned(),
            address: address.addr(),
            mac: link.recipe.mac.map(mac_text),
            state: "own".to_owned(),
            age_seconds: None,
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

/// What would become of a packet now.
///
/// # Errors
/// A name that is not known, or addresses of two IP versions.
pub fn explain(
    config: &Config,
    plan: &Plan,
    query: &Query,
    views: &[PathView],
) -> Result<Explanation, Refusal> {
    let ingress = ingress_named(plan, &query.from)?;
    let ((version, source), (other, destination)) =
        (address_bits(query.source), address_bits(query.destination));
    if version != other {
        let message = format!(
            "{} and {} are of two IP versions",
            query.source, query.destination
        );
        return Err(Refusal::bad(message));
    }
    let icmp = matches!(query.protocol, 1 | 58);
    let echo = if query.protocol == 58 { 128 } else { 8 };
    let headers = Headers {
        key: FlowKey {
            source,
            destination,
            source_port: query.source_port,
            destination_port: if icmp {
                u16::from(query.icmp_type.unwrap_or(echo)) << 8
            } else {
                query.destination_port
            },
            protocol: query.protocol,
            version,
        },
        transport: 40,
        payload: 60,
        total_len: 1000,
        traffic_class: query.dscp << 2,
        hop_limit: 64,
        fragment: Fragment::Whole,
        dont_fragment: true,
        tcp_flags: 0,
    };
    let told = plan.snapshot.explain(ingress, &headers);
    let member = told
        .member
        .as_deref()
        .and_then(|name| plan.path_named(name));
    Ok(Explanation {
        verdict: told.verdict.to_owned(),
        reason: told.reason.to_owned(),
        policy: told.policy,
        route: told.route.map(|route| ExplainedRoute {
            prefix: route.prefix,
            source: route.source.to_owned(),
        }),
        path: told.path,
        health: member.map(|path| {
            let (state, reason) = state_of(views, path);
            let since = view_of(views, path).map_or_else(String::new, |view| {
                format!(" for {:.0} s", view.since.elapsed().as_secs_f64())
            });
            format!(
                "{state}{}{since}",
                reason.map_or_else(String::new, |why| format!(" ({why})"))
            )
        }),
        shaper: member.map_or_else(Vec::new, |path| shaper(config, path.kind)),
        member: told.member,
        rejected: told.rejected.into_iter().map(rejected).collect(),
        story: told.story,
    })
}

fn rejected(one: explain::Rejected) -> Rejected {
    match one {
        explain::Rejected::Route { route, why } => Rejected {
            what: Alternative::Route(route),
            why,
        },
        explain::Rejected::Path { path, why } => Rejected {
            what: Alternative::Path(path),
            why,
        },
    }
}

fn ingress_named(plan: &Plan, name: &str) -> Result<Ingress, Refusal> {
    if name == "vnet" {
        return Ok(Ingress::Vnet);
    }
    let named = |path: &&PathPlan| path.name == name || owner_name(path) == name;
    let path = plan.paths.iter().find(named);
    path.map(|path| Ingress::Path(path.id)).ok_or_else(|| {
        let known: Vec<&str> = plan.paths.iter().map(|path| &*path.name).collect();
        Refusal::bad(format!(
            "from {name:?}: known are vnet, {}",
            known.join(", ")
        ))
    })
}

/// The limits of the gateway that a path belongs to. They are told; this version does not enforce them.
fn shaper(config: &Config, kind: PathKind) -> Vec<String> {
    let name = match kind {
        PathKind::ExpressRoute => config.expressroute.as_ref().map(|gateway| &gateway.sku),
        PathKind::Vpn => config.vpn.as_ref().map(|gateway| &gateway.sku),
    };
    let kind = kind_name(kind);
    name.map(|sku| format!("{kind} gateway SKU {sku}: limits not enforced by this version"))
        .into_iter()
        .collect()
}

/// What differs between two configurations and cannot be changed while the gateway runs.
pub fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
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
    check("control.socket", old.control.socket == new.control.socket);
    check(
        "control.workers",
        old.control.workers == new.control.workers,
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
    let sites = |config: &Config| -> Vec<_> {
        let tunnel = |site: &Site| {
            let key = (site.public_key, site.preshared_key_file.clone());
            (
                site.name.clone(),
                key,
                site.endpoint,
                site.keepalive,
                site.lanes,
            )
        };
        sites_of(config).iter().map(tunnel).collect()
    };
    check("the sites or their tunnels", sites(old) == sites(new));
    let vpn = |config: &Config| {
        let vpn = config.vpn.as_ref();
        vpn.map(|vpn| {
            (
                vpn.private_key_file.clone(),
                vpn.listen_port,
                vpn.mtu,
                vpn.offload,
            )
        })
    };
    check(
        "vpn.private_key_file, listen_port, mtu or offload",
        vpn(old) == vpn(new),
    );
    lines
}

/// What differs between two configurations and can be changed while the gateway runs, one line each.
pub fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    let mut prefixes = |name: &str, old: &[IpNet], new: &[IpNet]| {
        for gone in old.iter().filter(|prefix| !new.contains(prefix)) {
            lines.push(format!("{name}: {gone} taken away"));
        }
        for added in new.iter().filter(|prefix| !old.contains(prefix)) {
            lines.push(format!("{name}: {added} added"));
        }
    };
    prefixes(
        "vnet.address_space",
        &old.vnet.address_space,
        &new.vnet.address_space,
    );
    prefixes("vnet.address", &old.vnet.address, &new.vnet.address);
    for (a, b) in circuits_of(old).iter().zip(circuits_of(new)) {
        prefixes(&format!("circuit {}", b.name), &a.prefixes, &b.prefixes);
    }
    for (a, b) in sites_of(old).iter().zip(sites_of(new)) {
        prefixes(&format!("site {}", b.name), &a.prefixes, &b.prefixes);
    }
    let mut changed = |what: &str, same: bool| {
        if !same {
            lines.push(format!("{what} changed"));
        }
    };
    changed("policy", old.policy == new.policy);
    let hops = |config: &Config| -> Vec<(IpNet, NextHop)> {
        config
            .route
            .iter()
            .map(|route| (route.prefix, route.next_hop.clone()))
            .collect()
    };
    changed("user-defined routes", hops(old) == hops(new));
    changed("failover", old.failover == new.failover);
    changed(
        "vnet.host_routes",
        old.vnet.host_routes == new.vnet.host_routes,
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
    lines
}
