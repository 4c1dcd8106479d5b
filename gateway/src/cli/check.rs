//! `vng check`: validates a file and prints what the gateway would set up.

use super::output::{
    Style, bandwidth_limit, heading, limit, list, or_dash, print, print_json, table,
};
use super::{Failure, show};
use crate::config::schema::{Config, Link, LinkMac, Probe};
use crate::config::value::POINT_TO_SITE;
use crate::config::value::written;
use crate::config::{self, KeyFiles, LoadError, Report};
use crate::device::DeviceError;
use crate::device::interface::Interface;
use crate::plan::Plan;
use crate::show::describe;
use crate::show::effective::{self, Wanted};
use crate::show::view::{PolicyView, RouteView};
use crate::telemetry::log::complain;
use clap::Args;
use ipnet::IpNet;
use routing::health::Usability;
use serde::Serialize;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct Check {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = crate::config::DEFAULT_FILE)]
    config: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show every column, however wide that is
    #[arg(long)]
    wide: bool,
    /// Do not look at the key files: the configuration is for another host
    #[arg(long)]
    skip_key_files: bool,
}

/// Validates, then prints warnings and the plan.
pub(super) fn run(arguments: &Check) -> Result<(), Failure> {
    let key_files = if arguments.skip_key_files {
        KeyFiles::Skipped
    } else {
        KeyFiles::Checked
    };
    let loaded = match config::load(&arguments.config, key_files) {
        Ok(loaded) => loaded,
        Err(LoadError::Wrong(report)) if arguments.json => {
            print_json(&Checked::new(&report, None))?;
            return Err(Failure::Said(2));
        }
        Err(error) => return Err(error.into()),
    };
    let plan = Plan::new(&loaded.config, NonZeroU32::MIN, |_| Usability::Full)
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let mut summary = Summary::of(&loaded.config, &plan);
    if !arguments.skip_key_files {
        summary.missing_interfaces = missing_interfaces(&loaded.config);
    }
    if arguments.json {
        return print_json(&Checked::new(&loaded.report, Some(summary)));
    }
    complain(&loaded.report.render(Style::of_stderr().colour));
    for name in &summary.missing_interfaces {
        let warning = Style::of_stderr().bold("warning:");
        complain(&format!(
            "{warning} there is no interface {name} on this machine; its path is down until there is one\n"
        ));
    }
    let style = Style::of_stdout().wide(arguments.wide);
    print(&summary.text(style))?;
    let file = arguments.config.display();
    let warned = match loaded.report.warnings() + summary.missing_interfaces.len() {
        0 => String::new(),
        1 => ", with 1 warning above".to_owned(),
        count => format!(", with {count} warnings above"),
    };
    print(&format!("{} {file} is valid{warned}\n", style.green("ok:")))
}

/// What `--json` prints.
#[derive(Serialize)]
struct Checked<'a> {
    ok: bool,
    findings: Vec<config::diagnostic::FindingView<'a>>,
    #[serde(flatten)]
    summary: Option<Summary>,
}

impl<'a> Checked<'a> {
    fn new(report: &'a Report, summary: Option<Summary>) -> Self {
        Self {
            ok: report.errors() == 0,
            findings: report.views(),
            summary,
        }
    }
}

/// The plan: what the gateway would set up.
#[derive(Serialize)]
struct Summary {
    interfaces: Vec<InterfaceRow>,
    paths: Vec<PathRow>,
    /// With every path up.
    routes: Vec<RouteView>,
    policy: Vec<PolicyView>,
    limits: Vec<LimitRow>,
    /// Interfaces of links that this machine does not have now.
    missing_interfaces: Vec<String>,
}

/// One attachment of the gateway.
#[derive(Serialize)]
struct InterfaceRow {
    /// `TUN`, `Ethernet` or `UDP`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The interface; `null` for the tunnels' UDP port.
    name: Option<String>,
    /// That port.
    port: Option<u16>,
    mtu_bytes: Option<u16>,
    vlan: Vec<u16>,
    /// `own`, `interface`, or an address.
    mac: Option<String>,
    /// Whether the kernel and the device may work on packets for the gateway.
    offload: bool,
    address: Vec<IpNet>,
    /// The virtual network or path that it is for; `null`: all tunnels.
    path: Option<String>,
}

/// One way out.
#[derive(Serialize)]
struct PathRow {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    /// A link's next hops.
    neighbor: Vec<IpAddr>,
    /// Where a tunnel's datagrams go; `null`: the far end calls.
    endpoint: Option<String>,
    /// The circuit that carries a tunnel.
    over: Option<String>,
    /// Clients behind the path of all of them.
    clients: Option<usize>,
    probe: Option<ProbeRow>,
    prefixes: Vec<IpNet>,
}

/// A path's probe.
#[derive(Serialize)]
struct ProbeRow {
    /// Whom it asks; `null`: each link its neighbor.
    target: Option<IpAddr>,
    interval_ms: u64,
    /// The path is down after so many lost in a row,
    fail: u32,
    /// and up after so many answered in a row.
    pass: u32,
}

/// The limits of one gateway's SKU; `null`: none.
#[derive(Serialize)]
struct LimitRow {
    #[serde(rename = "type")]
    kind: &'static str,
    sku: String,
    generation: Option<u8>,
    limit_bps: Option<u64>,
    limit_pps: Option<u64>,
    limit_flows: Option<u64>,
    tunnel_limit_bps: Option<u64>,
    tunnel_limit_pps: Option<u64>,
    circuits: Option<Count>,
    tunnels: Option<Count>,
    clients: Option<Count>,
}

/// How many there are, of how many.
#[derive(Serialize)]
struct Count {
    used: usize,
    limit: Option<u32>,
}

impl Count {
    fn words(&self, what: &str) -> String {
        match self.limit {
            Some(limit) => format!("{what} {} of {limit}", self.used),
            None => format!("{what} {}", self.used),
        }
    }
}

impl PathRow {
    /// Where its packets go first, in words.
    fn next_hop(&self) -> String {
        if self.kind == "ExpressRoute" {
            return list(&self.neighbor);
        }
        let to = match (&self.endpoint, self.clients) {
            (Some(endpoint), _) => endpoint.clone(),
            (None, None) => "calls us".to_owned(),
            (None, Some(1)) => "1 client calls us".to_owned(),
            (None, Some(count)) => format!("{count} clients call us"),
        };
        let over = self.over.as_ref();
        over.map_or_else(|| to.clone(), |over| format!("{to} over {over}"))
    }
}

impl ProbeRow {
    fn of(probe: &Probe) -> Self {
        Self {
            target: probe.target,
            interval_ms: u64::try_from(probe.interval.as_millis()).unwrap_or(u64::MAX),
            fail: probe.fail,
            pass: probe.pass,
        }
    }

    fn words(&self) -> String {
        let target = self
            .target
            .map_or_else(|| "the neighbor".to_owned(), |to| to.to_string());
        let interval = written(Duration::from_millis(self.interval_ms));
        let (fail, pass) = (self.fail, self.pass);
        format!("{target} every {interval}, down after {fail}, up after {pass}")
    }
}

impl Summary {
    fn of(config: &Config, plan: &Plan) -> Self {
        Self {
            interfaces: interfaces(config),
            paths: paths(config),
            routes: effective::routes(plan, &Wanted::default()),
            policy: describe::policy(config, plan, &[]),
            limits: limits(config),
            missing_interfaces: Vec::new(),
        }
    }

    fn text(&self, style: Style) -> String {
        let mut text = heading(style, "Interfaces");
        let header = [
            "name", "+kind", "VLAN", "MTU", "+MAC", "+offload", "address", "for",
        ];
        let row = |row: &InterfaceRow| {
            let port = || {
                row.port
                    .map_or_else(String::new, |port| format!("UDP port {port}"))
            };
            [
                row.name.clone().unwrap_or_else(port),
                row.kind.to_owned(),
                list(&row.vlan),
                or_dash(row.mtu_bytes.as_ref()),
                or_dash(row.mac.as_ref()),
                if row.offload { "on" } else { "off" }.to_owned(),
                list(&row.address),
                row.path.clone().unwrap_or_else(|| "tunnels".to_owned()),
            ]
        };
        text += &table(style, &header, self.interfaces.iter().map(row));
        text += "\n";
        text += &heading(style, "Paths");
        let header = ["path", "+type", "next hop", "probe", "prefixes"];
        let row = |row: &PathRow| {
            [
                row.name.clone(),
                row.kind.to_owned(),
                row.next_hop(),
                row.probe
                    .as_ref()
                    .map_or_else(|| "off".to_owned(), ProbeRow::words),
                list(&row.prefixes),
            ]
        };
        text += &table(style, &header, self.paths.iter().map(row));
        text += "\n";
        text += &heading(style, "Routes, with every path up");
        text += &show::routes::text(style, &self.routes);
        text += "\n";
        if !self.policy.is_empty() {
            text += &heading(style, "Policy, before the routes");
            text += &show::policy(style, &self.policy);
            text += "\n";
        }
        text += &heading(
            style,
            "Limits of the SKU, rates for both directions together",
        );
        let header = [
            "gateway",
            "SKU",
            "bandwidth",
            "packets/s",
            "+flows",
            "+of one tunnel",
            "in use",
        ];
        let row = |row: &LimitRow| {
            let tunnel = match (row.tunnel_limit_bps, row.tunnel_limit_pps) {
                (None, None) => "-".to_owned(),
                (bps, pps) => format!("{}, {}/s", bandwidth_limit(bps), limit(pps)),
            };
            let generation = row.generation;
            let generation = generation.map_or_else(String::new, |g| format!(" generation {g}"));
            let counts = [
                (&row.circuits, "circuits"),
                (&row.tunnels, "tunnels"),
                (&row.clients, "clients"),
            ];
            let counts = counts
                .into_iter()
                .filter_map(|(count, what)| Some(count.as_ref()?.words(what)));
            [
                row.kind.to_owned(),
                format!("{}{generation}", row.sku),
                bandwidth_limit(row.limit_bps),
                limit(row.limit_pps),
                limit(row.limit_flows),
                tunnel,
                counts.collect::<Vec<_>>().join(", "),
            ]
        };
        text += &table(style, &header, self.limits.iter().map(row));
        text += "\n";
        text
    }
}

/// The interfaces of links that this machine does not have, each once.
fn missing_interfaces(config: &Config) -> Vec<String> {
    let circuits = config.circuits().iter();
    let names: BTreeSet<&String> = circuits
        .flat_map(|circuit| circuit.links.iter().map(|link| &link.interface))
        .collect();
    let missing =
        |name: &&String| matches!(Interface::query(name), Err(DeviceError::NoInterface { .. }));
    names.into_iter().filter(missing).cloned().collect()
}

fn interfaces(config: &Config) -> Vec<InterfaceRow> {
    let vnet = &config.vnet;
    let mut rows = vec![InterfaceRow {
        kind: "TUN",
        name: Some(vnet.device.clone()),
        port: None,
        mtu_bytes: Some(vnet.mtu),
        vlan: Vec::new(),
        mac: None,
        offload: vnet.offload,
        address: vnet.address.clone(),
        path: Some(vnet.name.clone()),
    }];
    for circuit in config.circuits() {
        for link in &circuit.links {
            rows.push(InterfaceRow {
                kind: "Ethernet",
                name: Some(link.interface.clone()),
                port: None,
                mtu_bytes: None,
                vlan: link.vlan.clone(),
                mac: Some(mac(link)),
                offload: link.offload,
                address: link.address.clone(),
                path: Some(format!("{}/{}", circuit.name, link.name)),
            });
        }
    }
    if let Some(vpn) = &config.vpn {
        rows.push(InterfaceRow {
            kind: "UDP",
            name: None,
            port: Some(vpn.listen_port),
            mtu_bytes: Some(vpn.mtu),
            vlan: Vec::new(),
            mac: None,
            offload: vpn.offload,
            address: vpn.bind_address.iter().copied().map(IpNet::from).collect(),
            path: None,
        });
    }
    rows
}

fn mac(link: &Link) -> String {
    match link.mac {
        LinkMac::Own => "own".to_owned(),
        LinkMac::Interface => "interface".to_owned(),
        LinkMac::Fixed(octets) => {
            let octets: Vec<String> = octets.iter().map(|o| format!("{o:02x}")).collect();
            octets.join(":")
        }
    }
}

fn paths(config: &Config) -> Vec<PathRow> {
    let mut rows = Vec::new();
    for circuit in config.circuits() {
        for link in &circuit.links {
            rows.push(PathRow {
                name: format!("{}/{}", circuit.name, link.name),
                kind: "ExpressRoute",
                neighbor: link.neighbor.clone(),
                endpoint: None,
                over: None,
                clients: None,
                probe: circuit.probe.as_ref().map(ProbeRow::of),
                prefixes: circuit.prefixes.clone(),
            });
        }
    }
    let vpn = config.vpn.as_ref();
    for site in config.sites() {
        let endpoint = site.place();
        rows.push(PathRow {
            name: site.name.clone(),
            kind: "Vpn",
            neighbor: Vec::new(),
            endpoint,
            over: site.over.clone(),
            clients: None,
            probe: site.probe.as_ref().map(ProbeRow::of),
            prefixes: site.prefixes.clone(),
        });
    }
    if let Some(clients) = vpn.and_then(|vpn| vpn.point_to_site.as_ref()) {
        rows.push(PathRow {
            name: POINT_TO_SITE.to_owned(),
            kind: "Vpn",
            neighbor: Vec::new(),
            endpoint: None,
            over: None,
            clients: Some(clients.clients.len()),
            probe: None,
            prefixes: clients.address_pool.clone(),
        });
    }
    rows
}

fn limits(config: &Config) -> Vec<LimitRow> {
    let mut rows = Vec::new();
    if let Some(gateway) = &config.expressroute
        && let Some(sku) = gateway.limits()
    {
        rows.push(LimitRow {
            kind: "ExpressRoute",
            sku: sku.name,
            generation: None,
            limit_bps: sku.bits_per_second,
            limit_pps: sku.packets_per_second,
            limit_flows: sku.flows,
            tunnel_limit_bps: None,
            tunnel_limit_pps: None,
            circuits: Some(Count {
                used: gateway.circuits.len(),
                limit: sku.circuits,
            }),
            tunnels: None,
            clients: None,
        });
    }
    if let Some(vpn) = &config.vpn
        && let Ok(sku) = vpn.limits()
    {
        let clients = vpn.point_to_site.as_ref().map_or(0, |p| p.clients.len());
        rows.push(LimitRow {
            kind: "Vpn",
            sku: sku.name.to_owned(),
            generation: (sku.generation != 0).then_some(sku.generation),
            limit_bps: sku.bits_per_second,
            limit_pps: None,
            limit_flows: sku.flows,
            tunnel_limit_bps: sku.tunnel_bits_per_second,
            tunnel_limit_pps: sku.tunnel_packets_per_second,
            circuits: None,
            tunnels: Some(Count {
                used: vpn.sites.len(),
                limit: sku.tunnels,
            }),
            clients: Some(Count {
                used: clients,
                limit: sku.clients,
            }),
        });
    }
    rows
}
