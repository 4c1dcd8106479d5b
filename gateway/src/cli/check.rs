//! `vng check`: validates a file and prints what the gateway would set up.

use super::output::{
    Style, bandwidth_limit, heading, limit, list, or_dash, print, print_json, table,
};
use super::{Failure, show, show_routes};
use crate::config::schema::{Config, Link, LinkMac, Probe};
use crate::config::value::POINT_TO_SITE;
use crate::config::value::written;
use crate::config::{self, KeyFiles, LoadError, Report};
use crate::control::describe;
use crate::control::effective::{self, Wanted};
use crate::control::plan::Plan;
use crate::control::view::{PolicyView, RouteView};
use clap::Args;
use ipnet::IpNet;
use routing::health::Usability;
use serde::Serialize;
use std::num::NonZeroU32;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Check {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
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
    let summary = Summary::of(&loaded.config, &plan);
    if arguments.json {
        return print_json(&Checked::new(&loaded.report, Some(summary)));
    }
    eprint!("{}", loaded.report.render(Style::of_stderr().colour));
    let style = Style::of_stdout();
    print(&summary.text(style))?;
    let file = arguments.config.display();
    print(&format!("{} {file} is valid\n", style.green("ok:")))
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
}

/// One attachment of the gateway.
#[derive(Serialize)]
struct InterfaceRow {
    name: String,
    kind: &'static str,
    mtu: Option<u16>,
    vlan: Vec<u16>,
    mac: Option<String>,
    /// Whether the kernel and the device may work on packets for the gateway.
    offload: bool,
    address: Vec<IpNet>,
    purpose: String,
}

/// One way out.
#[derive(Serialize)]
struct PathRow {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    next_hop: String,
    probe: Option<String>,
    prefixes: Vec<IpNet>,
}

/// One limit of a SKU.
#[derive(Serialize)]
struct LimitRow {
    gateway: &'static str,
    sku: String,
    bits_per_second: Option<u64>,
    packets_per_second: Option<u64>,
    flows: Option<u64>,
    tunnel_bits_per_second: Option<u64>,
    tunnel_packets_per_second: Option<u64>,
    count: String,
}

impl Summary {
    fn of(config: &Config, plan: &Plan) -> Self {
        Self {
            interfaces: interfaces(config),
            paths: paths(config),
            routes: effective::routes(plan, &Wanted::default()),
            policy: describe::policy(config, plan, &[]),
            limits: limits(config),
        }
    }

    fn text(&self, style: Style) -> String {
        let mut text = heading(style, "Interfaces");
        let header = [
            "name", "kind", "VLAN", "MTU", "MAC", "offload", "address", "for",
        ];
        let row = |row: &InterfaceRow| {
            [
                row.name.clone(),
                row.kind.to_owned(),
                list(&row.vlan),
                or_dash(row.mtu.as_ref()),
                or_dash(row.mac.as_ref()),
                if row.offload { "on" } else { "off" }.to_owned(),
                list(&row.address),
                row.purpose.clone(),
            ]
        };
        text += &table(style, &header, self.interfaces.iter().map(row));
        text += "\n";
        text += &heading(style, "Paths");
        let header = ["path", "type", "next hop", "probe", "prefixes"];
        let row = |row: &PathRow| {
            [
                row.name.clone(),
                row.kind.to_owned(),
                row.next_hop.clone(),
                row.probe.clone().unwrap_or_else(|| "off".to_owned()),
                list(&row.prefixes),
            ]
        };
        text += &table(style, &header, self.paths.iter().map(row));
        text += "\n";
        text += &heading(style, "Routes, with every path up");
        text += &show_routes::text(style, &self.routes);
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
            "flows",
            "of one tunnel",
            "in use",
        ];
        let row = |row: &LimitRow| {
            let tunnel = match (row.tunnel_bits_per_second, row.tunnel_packets_per_second) {
                (None, None) => "-".to_owned(),
                (bits, packets) => format!("{}, {}/s", bandwidth_limit(bits), limit(packets)),
            };
            [
                row.gateway.to_owned(),
                row.sku.clone(),
                bandwidth_limit(row.bits_per_second),
                limit(row.packets_per_second),
                limit(row.flows),
                tunnel,
                row.count.clone(),
            ]
        };
        text += &table(style, &header, self.limits.iter().map(row));
        text += "\n";
        text
    }
}

fn interfaces(config: &Config) -> Vec<InterfaceRow> {
    let vnet = &config.vnet;
    let mut rows = vec![InterfaceRow {
        name: vnet.device.clone(),
        kind: "TUN",
        mtu: Some(vnet.mtu),
        vlan: Vec::new(),
        mac: None,
        offload: vnet.offload,
        address: vnet.address.clone(),
        purpose: format!("virtual network {}", vnet.name),
    }];
    for circuit in config.expressroute.iter().flat_map(|e| &e.circuits) {
        for link in &circuit.links {
            rows.push(InterfaceRow {
                name: link.interface.clone(),
                kind: "Ethernet",
                mtu: None,
                vlan: link.vlan.clone(),
                mac: Some(mac(link)),
                offload: link.offload,
                address: link.address.clone(),
                purpose: format!("{}/{}", circuit.name, link.name),
            });
        }
    }
    if let Some(vpn) = &config.vpn {
        rows.push(InterfaceRow {
            name: match vpn.listen_port {
                0 => "UDP port of the kernel's choice".to_owned(),
                port => format!("UDP port {port}"),
            },
            kind: "WireGuard",
            mtu: Some(vpn.mtu),
            vlan: Vec::new(),
            mac: None,
            offload: vpn.offload,
            address: vpn.bind_address.iter().copied().map(IpNet::from).collect(),
            purpose: match &vpn.interface {
                Some(interface) => format!("tunnels by {interface}"),
                None => "tunnels".to_owned(),
            },
        });
    }
    rows
}

fn mac(link: &Link) -> String {
    match link.mac {
        LinkMac::Own => "own".to_owned(),
        LinkMac::Interface => "interface's".to_owned(),
        LinkMac::Fixed(octets) => {
            let octets: Vec<String> = octets.iter().map(|o| format!("{o:02x}")).collect();
            octets.join(":")
        }
    }
}

fn paths(config: &Config) -> Vec<PathRow> {
    let probe_text = |probe: &Probe, target: String| {
        let interval = written(probe.interval);
        format!(
            "{target} every {interval}, down after {}, up after {}",
            probe.fail, probe.pass
        )
    };
    let mut rows = Vec::new();
    for circuit in config.expressroute.iter().flat_map(|e| &e.circuits) {
        for link in &circuit.links {
            rows.push(PathRow {
                name: format!("{}/{}", circuit.name, link.name),
                kind: "ExpressRoute",
                next_hop: list(&link.neighbor),
                probe: circuit.probe.as_ref().map(|probe| {
                    let target = probe.target.map(|target| target.to_string());
                    probe_text(probe, target.unwrap_or_else(|| "the neighbor".to_owned()))
                }),
                prefixes: circuit.prefixes.clone(),
            });
        }
    }
    for site in config.vpn.iter().flat_map(|vpn| &vpn.sites) {
        let endpoint = site.place();
        rows.push(PathRow {
            name: site.name.clone(),
            kind: "Vpn",
            next_hop: match (endpoint, &site.over) {
                (Some(endpoint), Some(over)) => format!("{endpoint} over {over}"),
                (None, Some(over)) => format!("calls us over {over}"),
                (endpoint, None) => endpoint.unwrap_or_else(|| "calls us".to_owned()),
            },
            probe: site.probe.as_ref().and_then(|probe| {
                let target = probe.target?;
                Some(probe_text(probe, target.to_string()))
            }),
            prefixes: site.prefixes.clone(),
        });
    }
    let vpn = config.vpn.as_ref();
    if let Some(clients) = vpn.and_then(|vpn| vpn.point_to_site.as_ref()) {
        rows.push(PathRow {
            name: POINT_TO_SITE.to_owned(),
            kind: "Vpn",
            next_hop: match clients.clients.len() {
                1 => "1 client calls us".to_owned(),
                count => format!("{count} clients call us"),
            },
            probe: None,
            prefixes: clients.address_pool.clone(),
        });
    }
    rows
}

fn limits(config: &Config) -> Vec<LimitRow> {
    let of = |used: usize, limit: Option<u32>, what: &str| match limit {
        Some(limit) => format!("{what} {used} of {limit}"),
        None => format!("{what} {used}"),
    };
    let mut rows = Vec::new();
    if let Some(gateway) = &config.expressroute
        && let Some(sku) = gateway.limits()
    {
        rows.push(LimitRow {
            gateway: "ExpressRoute",
            sku: sku.name,
            bits_per_second: sku.bits_per_second,
            packets_per_second: sku.packets_per_second,
            flows: sku.flows,
            tunnel_bits_per_second: None,
            tunnel_packets_per_second: None,
            count: of(gateway.circuits.len(), sku.circuits, "circuits"),
        });
    }
    if let Some(vpn) = &config.vpn
        && let Ok(sku) = vpn.limits()
    {
        let clients = vpn.point_to_site.as_ref().map_or(0, |p| p.clients.len());
        let generation = match sku.generation {
            0 => String::new(),
            generation => format!(" generation {generation}"),
        };
        rows.push(LimitRow {
            gateway: "Vpn",
            sku: format!("{}{generation}", sku.name),
            bits_per_second: sku.bits_per_second,
            packets_per_second: None,
            flows: sku.flows,
            tunnel_bits_per_second: sku.tunnel_bits_per_second,
            tunnel_packets_per_second: sku.tunnel_packets_per_second,
            count: format!(
                "{}, {}",
                of(vpn.sites.len(), sku.tunnels, "tunnels"),
                of(clients, sku.clients, "clients")
            ),
        });
    }
    rows
}
