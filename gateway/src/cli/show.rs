//! `vng show`: one table for each view.

use super::explain::offline_plan;
use super::output::{
    Style, bandwidth, bandwidth_limit, host, json, limit, list, or_dash, print, print_json,
    sentence, span, state, table, thousands,
};
use super::{Failure, Show, show_routes, socket};
use crate::api::client::Client;
use crate::api::{Request, What};
use crate::config::schema::Config;
use crate::config::{self, KeyFiles};
use crate::show::describe;
use crate::show::inspect;
use crate::show::view::{
    BgpView, CircuitView, ClientView, Counters, Event, FlowCount, Flows, GatewayStatus,
    NeighborView, PathStatus, PolicyView, Status, TunnelView,
};
use crate::telemetry::ledger::Sum;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What `vng show` shows.
#[derive(Debug, Subcommand)]
pub(super) enum View {
    /// The gateway at a glance: gateways, limits, paths and their health
    Status(At),
    /// The effective routes, with the losers and why; of a file, offline, with -c
    Routes(show_routes::Options),
    /// The policy route table; of a file, offline, with -c
    Policy(Offline),
    /// ExpressRoute circuits and their links
    Circuits(At),
    /// VPN tunnels
    Tunnels(At),
    /// Point-to-site clients; of a file, offline, with -c
    Clients(File),
    /// Next hops and their MAC addresses
    Neighbors(At),
    /// BGP sessions; of a file, offline, with -c
    Bgp(File),
    /// The flow table
    Flows(At),
    /// The packet ledger
    Counters(At),
}

/// The file of the gateway that is asked, where only a running one can answer.
#[derive(Debug, Args)]
pub(super) struct At {
    /// The gateway's configuration file, which names its control socket
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A file to answer from, and what to assume of its paths.
#[derive(Debug, Args)]
pub(super) struct Offline {
    #[command(flatten)]
    file: File,
    /// Offline: assume that this circuit, link or site is down (may be repeated)
    #[arg(long, value_name = "PATH", requires = "config")]
    down: Vec<String>,
}

/// A file to answer from.
#[derive(Debug, Args)]
pub(super) struct File {
    /// Answer from this file, offline, with every path up [default without FILE: /etc/vng/vng.toml]
    #[arg(short, long, value_name = "FILE", num_args = 0..=1,
          default_missing_value = crate::config::DEFAULT_FILE)]
    config: Option<PathBuf>,
}

impl View {
    fn what(&self) -> What {
        match self {
            Self::Status(_) => What::Status,
            Self::Routes(_) => What::Routes,
            Self::Policy(_) => What::Policy,
            Self::Circuits(_) => What::Circuits,
            Self::Tunnels(_) => What::Tunnels,
            Self::Clients(_) => What::Clients,
            Self::Neighbors(_) => What::Neighbors,
            Self::Bgp(_) => What::Bgp,
            Self::Flows(_) => What::Flows,
            Self::Counters(_) => What::Counters,
        }
    }

    /// The file that is to answer instead of the running gateway.
    fn file(&self) -> Option<&Path> {
        let file = match self {
            Self::Routes(options) => &options.offline.file,
            Self::Policy(offline) => &offline.file,
            Self::Clients(file) | Self::Bgp(file) => file,
            _ => return None,
        };
        file.config.as_deref()
    }

    /// The file of the gateway that is asked.
    fn at(&self) -> Option<&PathBuf> {
        match self {
            Self::Status(at)
            | Self::Circuits(at)
            | Self::Tunnels(at)
            | Self::Neighbors(at)
            | Self::Flows(at)
            | Self::Counters(at) => at.config.as_ref(),
            Self::Routes(_) | Self::Policy(_) | Self::Clients(_) | Self::Bgp(_) => None,
        }
    }

    /// The answer of a configuration, where no gateway needs to run for it.
    fn offline(&self, config: &Config) -> Result<Value, Failure> {
        match self {
            Self::Routes(options) => {
                json(&options.of(&offline_plan(config, &options.offline.down)?)?)
            }
            Self::Policy(offline) => {
                let plan = offline_plan(config, &offline.down)?;
                json(&describe::policy(config, &plan, &[]))
            }
            Self::Clients(_) => json(&configured_clients(config)),
            Self::Bgp(_) => json(&inspect::bgp(config)),
            _ => Ok(Value::Null),
        }
    }
}

/// The clients of a configuration, by name, without what only a running gateway knows.
pub(super) fn configured_clients(config: &Config) -> Vec<ClientView> {
    let vpn = config.vpn.as_ref();
    let clients = vpn.and_then(|vpn| vpn.point_to_site.as_ref());
    let clients = clients.into_iter().flat_map(|clients| &clients.clients);
    let view = clients.map(|client| ClientView {
        name: client.name.clone(),
        address: client.address.clone(),
        public_key: BASE64.encode(client.public_key),
        ..ClientView::default()
    });
    let mut views: Vec<ClientView> = view.collect();
    views.sort_by(|a, b| a.name.cmp(&b.name));
    views
}

/// Shows once, or again and again until it is interrupted.
pub(super) fn run(arguments: &Show) -> Result<(), Failure> {
    let options = &arguments.options;
    let style = Style::of_stdout().wide(options.wide);
    let what = arguments.what.what();
    if arguments.what.file().is_some() && (options.socket.is_some() || options.watch.is_some()) {
        return Err(Failure::Usage(
            "--config answers from a file; --socket and --watch are of a running gateway"
                .to_owned(),
        ));
    }
    loop {
        let value = ask(arguments)?;
        if options.json {
            match options.watch {
                // One line each, so that a reader can tell where one ends.
                Some(_) => print(&format!("{}\n", json(&value)?))?,
                None => print_json(&value)?,
            }
        } else {
            let text = text(style, what, value)?;
            let clear = options.watch.is_some() && style.terminal;
            print(&if clear {
                format!("\x1b[H\x1b[2J{text}")
            } else {
                text
            })?;
        }
        match options.watch {
            Some(seconds) => thread::sleep(Duration::from_secs(seconds.into())),
            None => return Ok(()),
        }
    }
}

/// The running gateway's answer, or that of a file.
fn ask(arguments: &Show) -> Result<Value, Failure> {
    if let Some(file) = arguments.what.file() {
        let config = config::load(file, KeyFiles::Skipped)?.config;
        return arguments.what.offline(&config);
    }
    let request = match &arguments.what {
        View::Routes(options) => options.request(),
        other => Request::Show { what: other.what() },
    };
    let socket = socket(arguments.options.socket.as_ref(), arguments.what.at())?;
    Ok(Client::new(&socket).ask(&request)?)
}

fn text(style: Style, what: What, value: Value) -> Result<String, Failure> {
    Ok(match what {
        What::Status => status(style, &view(value)?),
        What::Routes => show_routes::text(style, &view::<Vec<_>>(value)?),
        What::Policy => policy(style, &view::<Vec<_>>(value)?),
        What::Circuits => circuits(style, &view::<Vec<_>>(value)?),
        What::Tunnels => tunnels(style, &view::<Vec<_>>(value)?),
        What::Clients => clients(style, &view::<Vec<_>>(value)?),
        What::Neighbors => neighbors(style, &view::<Vec<_>>(value)?),
        What::Bgp => bgp(style, &view::<Vec<_>>(value)?),
        What::Flows => flows(style, &view(value)?),
        What::Counters => counters(style, &view(value)?),
    })
}

fn view<T: DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|_| {
        let said = "the gateway is of another version than this command; restart it";
        Failure::Work(said.to_owned())
    })
}

fn status(style: Style, status: &Status) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}, vng {}, up {}, configuration {}",
        style.bold(&status.name),
        status.version,
        span(status.uptime_seconds),
        status.config,
    );
    let _ = writeln!(
        text,
        "device {}, address {}, {} worker{}, ledger {}\n",
        status.device,
        list(&status.address),
        status.workers,
        if status.workers == 1 { "" } else { "s" },
        if status.ledger_balanced {
            style.green("balanced")
        } else {
            style.red("NOT balanced")
        },
    );
    for problem in &status.host.problems {
        let told = format!("degraded: {}", problem.detail);
        text.push_str(&sentence(style, &told).replacen("degraded:", &style.red("degraded:"), 1));
    }
    if !status.host.problems.is_empty() {
        text.push('\n');
    }
    for key in status
        .gateways
        .iter()
        .filter_map(|one| one.public_key.as_ref())
    {
        let _ = writeln!(text, "public key of the VPN gateway: {key}\n");
    }
    for (port, on) in &status.offloads {
        let on = if on.is_empty() {
            "none".to_owned()
        } else {
            on.join(", ")
        };
        let _ = writeln!(text, "offloads of {port}: {on}");
    }
    if !status.offloads.is_empty() {
        text.push('\n');
    }
    let header = [
        "gateway",
        "SKU",
        "in",
        "out",
        "of",
        "+packets/s",
        "+of",
        "in use",
        "+flows",
        "+of",
    ];
    let gateway = |gateway: &GatewayStatus| {
        [
            gateway.kind.clone(),
            gateway.sku.clone(),
            bandwidth(gateway.bits_in_per_second),
            bandwidth(gateway.bits_out_per_second),
            bandwidth_limit(gateway.limit_bits_per_second),
            thousands(gateway.packets_per_second as u64),
            limit(gateway.limit_packets_per_second),
            gateway
                .limit_used
                .map_or_else(|| "-".to_owned(), |used| format!("{:.0} %", used * 100.0)),
            thousands(gateway.active_flows),
            limit(gateway.limit_flows),
        ]
    };
    text += &table(style, &header, status.gateways.iter().map(gateway));
    text.push('\n');
    let rows = status.gateways.iter().flat_map(limits_used);
    text += &table(style, &["gateway", "limit", "used", "of"], rows);
    text.push('\n');
    let header = [
        "path",
        "+type",
        "state",
        "for",
        "in use",
        "+probe",
        "round trip",
    ];
    text += &table(style, &header, status.paths.iter().map(path));
    for path in &status.paths {
        if let Some(by) = path
            .probe
            .as_ref()
            .and_then(|probe| probe.returned_by.as_ref())
        {
            let _ = writeln!(
                text,
                "{}: answers to its probes come back over {by}:\n  they say nothing of its own way back; \
                 docs/far-end.md says what cures it",
                path.name
            );
        }
    }
    if !status.events.is_empty() {
        text.push('\n');
        let header = ["when", "path", "from", "to", "reason", "+flows moved after"];
        // The newest first; the rest is in the JSON.
        let newest = status.events.iter().rev().take(10);
        text += &table(style, &header, newest.map(event));
    }
    text
}

/// Every limit of a gateway that there is.
fn limits_used(gateway: &GatewayStatus) -> impl Iterator<Item = [String; 4]> + '_ {
    let limits = gateway.limits.iter().filter(|one| one.limit.is_some());
    limits.map(|one| {
        let bits = one.name == "BitsPerSecond";
        [
            gateway.kind.clone(),
            one.name.clone(),
            if bits {
                bandwidth(one.used as f64)
            } else {
                thousands(one.used)
            },
            if bits {
                bandwidth_limit(one.limit)
            } else {
                limit(one.limit)
            },
        ]
    })
}

fn event(event: &Event) -> [String; 6] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs_f64();
    let switched = event.switched_unix_ms;
    [
        format!("{} ago", span(now - event.detected_unix_ms / 1e3)),
        event.path.clone(),
        event.from.clone(),
        event.to.clone(),
        or_dash(event.reason.as_ref()),
        switched.map_or_else(
            || "-".to_owned(),
            |at| format!("{:.2} ms", at - event.detected_unix_ms),
        ),
    ]
}

/// A kind of connection, as Azure writes it.
fn connection(kind: &str) -> &str {
    match kind {
        "site-to-site" => "Site-to-Site",
        "vnet-to-vnet" => "VNet-to-VNet",
        "point-to-site" => "Point-to-Site",
        other => other,
    }
}

fn path(path: &PathStatus) -> [String; 7] {
    let probe = path.probe.as_ref();
    let answered =
        |p: &crate::show::view::ProbeStatus| format!("{}/{} from {}", p.answered, p.sent, p.target);
    let round_trip = probe.and_then(|probe| probe.round_trip_ms);
    [
        path.name.clone(),
        match &path.connection {
            Some(kind) => format!("{}, {}", path.kind, connection(kind)),
            None => path.kind.clone(),
        },
        state(&path.state, path.reason.as_deref()),
        span(path.since_seconds),
        if path.in_use { "yes" } else { "no" }.to_owned(),
        probe.map_or_else(|| "off".to_owned(), answered),
        round_trip.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.2} ms")),
    ]
}

/// The policy route table.
pub(super) fn policy(style: Style, rules: &[PolicyView]) -> String {
    if rules.is_empty() {
        return "no policy rules: every packet goes by the route table\n".to_owned();
    }
    let counted = rules.iter().any(|rule| rule.hits.is_some());
    let remarked = rules.iter().any(|rule| rule.out_of_reach.is_some());
    let mut header = vec!["#", "name", "match", "action", "leads to"];
    if counted {
        header.extend(["packets", "+bytes"]);
    }
    if remarked {
        header.push("remark");
    }
    let row = |rule: &PolicyView| {
        let mut row = vec![
            rule.order.to_string(),
            rule.name.clone(),
            rule.matches.clone(),
            rule.action.clone(),
            list(&rule.paths),
        ];
        if counted {
            let hits = rule.hits.unwrap_or_default();
            row.extend([thousands(hits.packets), thousands(hits.bytes)]);
        }
        if remarked {
            let remark = rule.out_of_reach.as_ref();
            row.push(remark.map_or_else(String::new, |why| format!("out of reach: {why}")));
        }
        row
    };
    table(style, &header, rules.iter().map(row))
}

fn circuits(style: Style, circuits: &[CircuitView]) -> String {
    if circuits.is_empty() {
        return "no ExpressRoute circuits\n".to_owned();
    }
    let header = [
        "circuit/link",
        "state",
        "interface",
        "VLAN",
        "+MAC",
        "+address",
        "neighbor",
        "ARP",
        "+received",
        "+sent",
    ];
    let rows = circuits.iter().flat_map(|circuit| {
        circuit.links.iter().map(move |link| {
            [
                format!("{}/{}", circuit.name, link.name),
                state(&link.state, link.reason.as_deref()),
                link.interface.clone(),
                list(&link.vlan),
                or_dash(link.mac.as_ref()),
                list(&link.address),
                list(&link.neighbor),
                if link.arp_available { "yes" } else { "no" }.to_owned(),
                sum(link.received),
                sum(link.sent),
            ]
        })
    });
    let mut text = table(style, &header, rows);
    for circuit in circuits {
        for link in &circuit.links {
            if let Some(seen) = &link.mistagged {
                let told = format!(
                    "{}/{}: {} frames for it had other tags than its own, the last {}: see that both ends have \
                     the same VLAN",
                    circuit.name,
                    link.name,
                    thousands(seen.frames),
                    seen.tags
                );
                text.push_str(&sentence(style, &told));
            }
        }
    }
    text.push('\n');
    let row = |circuit: &CircuitView| {
        [
            circuit.name.clone(),
            circuit.model_name.clone(),
            circuit.wire.clone(),
            list(&circuit.prefixes),
        ]
    };
    text += &table(
        style,
        &["circuit", "+model", "+on the wire", "prefixes"],
        circuits.iter().map(row),
    );
    text
}

fn sum(sum: Sum) -> String {
    format!(
        "{} packets, {} bytes",
        thousands(sum.packets),
        thousands(sum.bytes)
    )
}

fn tunnels(style: Style, tunnels: &[TunnelView]) -> String {
    if tunnels.is_empty() {
        return "no VPN tunnels\n".to_owned();
    }
    let header = [
        "tunnel",
        "+kind",
        "state",
        "endpoint",
        "handshake",
        "+used of limit",
        "+received",
        "+sent",
        "prefixes",
        "+public key",
    ];
    let row = |tunnel: &TunnelView| {
        let carrying = tunnel.lanes.iter().filter(|lane| lane.has_session);
        let lanes = match tunnel.lanes.len() {
            0 | 1 => String::new(),
            all => format!(" ({} of {all} lanes)", carrying.count()),
        };
        let ago = tunnel.last_handshake_seconds;
        [
            format!("{}{lanes}", tunnel.name),
            connection(&tunnel.kind).to_owned(),
            state(&tunnel.state, tunnel.reason.as_deref()),
            match (&tunnel.endpoint, &tunnel.over) {
                (Some(endpoint), Some(over)) => format!("{endpoint} over {over}"),
                (endpoint, _) => or_dash(endpoint.as_ref()),
            },
            ago.map_or_else(|| "never".to_owned(), |ago| format!("{} ago", span(ago))),
            match (
                tunnel.limit_bits_per_second,
                tunnel.limit_packets_per_second,
            ) {
                (None, None) => "-".to_owned(),
                (bits, packets) => format!(
                    "{} of {}, {} of {}/s",
                    bandwidth(tunnel.bits_per_second),
                    bandwidth_limit(bits),
                    thousands(tunnel.packets_per_second as u64),
                    limit(packets)
                ),
            },
            sum(tunnel.ingress),
            sum(tunnel.egress),
            list(&tunnel.prefixes),
            tunnel.public_key.clone(),
        ]
    };
    let own = tunnels.first().map_or("", |one| &one.gateway_public_key);
    let own = match own {
        "" => String::new(),
        key => format!("public key of this gateway: {key}\n\n"),
    };
    own + &table(style, &header, tunnels.iter().map(row))
}

/// Also what `vng p2s list` prints.
pub(super) fn clients(style: Style, clients: &[ClientView]) -> String {
    if clients.is_empty() {
        return "no point-to-site clients\n".to_owned();
    }
    let header = [
        "client",
        "address",
        "connected",
        "endpoint",
        "handshake",
        "+received",
        "+sent",
        "+public key",
    ];
    let row = |client: &ClientView| {
        let ago = client.last_handshake_seconds;
        [
            client.name.clone(),
            list(&client.address),
            match client.connected {
                Some(true) => "yes".to_owned(),
                Some(false) => "no".to_owned(),
                None => "-".to_owned(),
            },
            or_dash(client.endpoint.as_ref()),
            match (ago, client.connected) {
                (Some(ago), _) => format!("{} ago", span(ago)),
                (None, Some(_)) => "never".to_owned(),
                (None, None) => "-".to_owned(),
            },
            sum(client.ingress),
            sum(client.egress),
            client.public_key.clone(),
        ]
    };
    table(style, &header, clients.iter().map(row))
}

fn neighbors(style: Style, neighbors: &[NeighborView]) -> String {
    if neighbors.is_empty() {
        return "no neighbors: no ExpressRoute links\n".to_owned();
    }
    let header = [
        "age",
        "link",
        "+interface",
        "+side",
        "IP address",
        "MAC address",
        "state",
    ];
    let row = |neighbor: &NeighborView| {
        let mac = neighbor.mac.clone();
        let state = match (&neighbor.conflict_mac, &neighbor.previous_mac) {
            (Some(other), _) => format!("{}, conflict: {other} claims it too", neighbor.state),
            (None, Some(before)) => format!("{}, was {before}", neighbor.state),
            (None, None) => neighbor.state.clone(),
        };
        [
            neighbor.age_seconds.map_or_else(|| "-".to_owned(), span),
            neighbor.path.clone(),
            neighbor.interface.clone(),
            neighbor.side.clone(),
            neighbor.address.to_string(),
            mac.unwrap_or_else(|| "Incomplete".to_owned()),
            state,
        ]
    };
    table(style, &header, neighbors.iter().map(row))
}

fn bgp(style: Style, sessions: &[BgpView]) -> String {
    if sessions.is_empty() {
        return "no BGP sessions\n".to_owned();
    }
    let header = ["link", "neighbor", "AS", "state", "learned", "advertised"];
    let row = |session: &BgpView| {
        [
            session.path.clone(),
            session.neighbor.to_string(),
            session.asn.to_string(),
            session.state.clone(),
            thousands(session.routes_learned),
            thousands(session.routes_advertised),
        ]
    };
    table(style, &header, sessions.iter().map(row))
}

fn flows(style: Style, flows: &Flows) -> String {
    if flows.gateways.is_empty() {
        return "no limit of flows, so none is counted\n".to_owned();
    }
    let header = [
        "gateway",
        "flows",
        "of",
        "new/s",
        "of",
        "+let in",
        "refused packets",
    ];
    let count = |gateway: &FlowCount| {
        [
            gateway.kind.clone(),
            thousands(gateway.active),
            limit(gateway.limit),
            thousands(gateway.new_per_second as u64),
            limit(gateway.limit_new_per_second),
            thousands(gateway.opened),
            thousands(gateway.refused),
        ]
    };
    let mut text = table(style, &header, flows.gateways.iter().map(count));
    if flows.flows.is_empty() {
        return text;
    }
    text.push('\n');
    let header = [
        "protocol",
        "source",
        "destination",
        "+from",
        "to",
        "age",
        "+idle",
    ];
    let row = |flow: &crate::show::view::FlowView| {
        [
            flow.protocol.clone(),
            host(flow.source, flow.source_port),
            host(flow.destination, flow.destination_port),
            flow.from.clone(),
            flow.path.clone(),
            flow.age_seconds.map_or_else(|| "-".to_owned(), span),
            flow.idle_seconds.map_or_else(|| "-".to_owned(), span),
        ]
    };
    text += &table(style, &header, flows.flows.iter().map(row));
    text
}

fn counters(style: Style, counters: &Counters) -> String {
    let totals = &counters.totals;
    let ports: BTreeSet<&String> = totals.received.keys().chain(totals.sent.keys()).collect();
    let of = |sums: &BTreeMap<String, Sum>, port| sums.get(port).copied().unwrap_or_default();
    let rows = ports.into_iter().map(|port| {
        let (received, sent) = (of(&totals.received, port), of(&totals.sent, port));
        [
            port.clone(),
            thousands(received.packets),
            thousands(received.bytes),
            thousands(sent.packets),
            thousands(sent.bytes),
        ]
    });
    let header = ["port", "received", "bytes", "sent", "bytes"];
    let mut text = table(style, &header, rows);
    text.push('\n');
    if totals.dropped.is_empty() {
        text += "nothing dropped\n";
    } else {
        let row = |(reason, sum): (&String, &Sum)| {
            [reason.clone(), thousands(sum.packets), thousands(sum.bytes)]
        };
        text += &table(
            style,
            &["dropped", "packets", "bytes"],
            totals.dropped.iter().map(row),
        );
    }
    if !counters.kernel_drops.is_empty() {
        text += "\ndropped by the kernel before the gateway saw them, so in no count above\n";
        let row = |(port, drops): (&String, &u64)| [port.clone(), thousands(*drops)];
        text += &table(
            style,
            &["at", "packets"],
            counters.kernel_drops.iter().map(row),
        );
    }
    for (port, refused) in &totals.offload_refused {
        let _ = writeln!(
            text,
            "the kernel refused {} super-packets or trains at {port}:\n  they were sent packet by packet",
            thousands(*refused)
        );
    }
    let _ = writeln!(
        text,
        "\nheld {}; the ledger {}",
        thousands(totals.held),
        if counters.balanced {
            style.green("balances")
        } else {
            style.red(&format!("is off by {} packets", totals.imbalance()))
        }
    );
    text
}
