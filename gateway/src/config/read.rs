//! TOML to [`Config`]: one function a section. A value that does not fit is a finding, and a neutral
//! value takes its place, so that the rest of the file is read and checked too; a file with findings of
//! severity error never becomes a running configuration.

mod policy;
mod vpn;

use super::schema::{
    Bfd, Bgp, Circuit, Config, ConnectionModel, Control, ExpressRoute, Failover, Link, LinkMac,
    Polling, Probe, Vnet,
};
use super::value::{
    Address, Endpoint, File, Interface, InterfaceAddress, Kind, Mac, Name, Network, OneOf,
    PathName, StationMac, Switch, Text, Time, Whole, Wrong, described,
};
use super::walk::{Section, Walk};
use crate::pipeline::fragment::FragmentPolicy;
use crate::sku::{self, Edition};
use policy::{policy, prefix_set, route};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeValue;
use vpn::vpn;

/// Metric of kernel routes: better than what DHCP and router advertisements give (100 to 1024), worse than
/// what people and the kernel set for IPv4 (0).
pub const HOST_ROUTE_METRIC: u32 = 20;

/// Default socket of the control API.
pub const DEFAULT_SOCKET: &str = "/run/vng/vng.sock";
/// Default AS number of both gateways (docs/azure.md, section 1).
pub const DEFAULT_ASN: u32 = 65_515;
/// Default UDP port of the tunnels.
pub const DEFAULT_LISTEN_PORT: u16 = 51_820;
/// Default MTU of the tunnels: 1,500 less 40 (IPv6), 8 (UDP), 32 (WireGuard's header and tag).
pub const DEFAULT_TUNNEL_MTU: u16 = 1_420;

const MTU: Whole = Whole(576, 9_216);
const ASN: Whole = Whole(1, 4_294_967_294);
/// Azure's range of a connection's routing weight.
const WEIGHT: Whole = Whole(0, 32_000);

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Reads a whole document. `directory` is where relative paths of files begin.
pub(super) fn config(walk: &mut Walk, root: Section, directory: &Path) -> Config {
    let vnet = root
        .section(walk, "vnet")
        .map(|section| vnet(walk, section));
    if vnet.is_none() && walk.places.sound("vnet") {
        root.missing(walk, "vnet", "a table [vnet]".to_owned());
    }
    let expressroute = root
        .section(walk, "expressroute")
        .map(|section| expressroute(walk, section));
    let vpn = root
        .section(walk, "vpn")
        .map(|section| vpn(walk, section, directory));
    let prefix_sets = root
        .sections(walk, "prefix_set")
        .into_iter()
        .map(|section| prefix_set(walk, section))
        .collect();
    let policy = root
        .sections(walk, "policy")
        .into_iter()
        .map(|section| policy(walk, section))
        .collect();
    let mut routes = Vec::new();
    for section in root.sections(walk, "route") {
        routes.push(route(walk, section));
    }
    let failover = root.section(walk, "failover");
    let failover = failover.map_or_else(Failover::default, |section| failover_of(walk, section));
    let control = root.section(walk, "control");
    let control = control.map_or_else(Control::default, |section| {
        control_of(walk, section, directory)
    });
    root.finish(walk);
    Config {
        vnet: vnet.unwrap_or_else(Vnet::neutral),
        expressroute,
        vpn,
        prefix_sets,
        policy,
        route: routes,
        failover,
        control,
    }
}

impl Vnet {
    /// Stands for a `[vnet]` that could not be read.
    fn neutral() -> Self {
        Self {
            name: String::new(),
            address_space: Vec::new(),
            device: String::new(),
            address: Vec::new(),
            mtu: 1_500,
            host_address: Vec::new(),
            host_routes: false,
            host_route_metric: HOST_ROUTE_METRIC,
            offload: true,
        }
    }
}

impl Default for Failover {
    fn default() -> Self {
        Self {
            hold_down: seconds(5),
            branch_transit: false,
        }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self {
            socket: PathBuf::from(DEFAULT_SOCKET),
            metrics: None,
            workers: 1,
            polling: Polling::default(),
        }
    }
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            target: None,
            interval: seconds(1),
            fail: 3,
            pass: 3,
        }
    }
}

fn vnet(walk: &mut Walk, section: Section) -> Vnet {
    let vnet = Vnet {
        name: section.required(walk, "name", &Name).unwrap_or_default(),
        address_space: section.required_list(walk, "address_space", &Network),
        device: section
            .optional(walk, "device", &Interface)
            .unwrap_or_else(|| "vng0".to_owned()),
        address: section.required_list(walk, "address", &InterfaceAddress),
        mtu: section
            .optional(walk, "mtu", &MTU)
            .map_or(1_500, |mtu| mtu as u16),
        host_address: section.list(walk, "host_address", &InterfaceAddress),
        host_routes: section
            .optional(walk, "host_routes", &Switch)
            .unwrap_or(false),
        // IPv6 takes 0 for "the default", which is 1024.
        host_route_metric: section
            .optional(walk, "host_route_metric", &Whole(1, 0xFFFF_FFFE))
            .map_or(HOST_ROUTE_METRIC, |metric| metric as u32),
        offload: section.optional(walk, "offload", &Switch).unwrap_or(true),
    };
    section.finish(walk);
    vnet
}

fn expressroute(walk: &mut Walk, section: Section) -> ExpressRoute {
    let edition = edition(walk, &section);
    let kind = Sku {
        names: sku::expressroute_names(edition),
    };
    let gateway = ExpressRoute {
        edition,
        sku: section.required(walk, "sku", &kind).unwrap_or_default(),
        asn: section
            .optional(walk, "asn", &ASN)
            .map_or(DEFAULT_ASN, |asn| asn as u32),
        circuits: section
            .sections(walk, "circuit")
            .into_iter()
            .map(|section| circuit(walk, section))
            .collect(),
    };
    section.finish(walk);
    gateway
}

const EDITIONS: OneOf<Edition> = OneOf(&[("current", Edition::Current), ("2016", Edition::Of2016)]);

fn edition(walk: &mut Walk, section: &Section) -> Edition {
    let edition = section.optional(walk, "edition", &EDITIONS);
    edition.unwrap_or_default()
}

/// The name of a SKU; whether it exists is a rule's matter, because it depends on the generation.
struct Sku {
    names: Vec<&'static str>,
}

impl Kind for Sku {
    type Value = String;

    fn allowed(&self) -> String {
        self.names.join(", ")
    }

    fn parse(&self, value: &DeValue) -> Result<String, Wrong> {
        Text.parse(value)
    }
}

const MODELS: OneOf<ConnectionModel> = OneOf(&[
    ("colocated", ConnectionModel::Colocated),
    ("point-to-point", ConnectionModel::PointToPoint),
    ("any-to-any", ConnectionModel::AnyToAny),
]);

const FRAGMENTS: OneOf<FragmentPolicy> = OneOf(&[
    ("drop", FragmentPolicy::Drop),
    ("forward", FragmentPolicy::Forward),
]);

fn circuit(walk: &mut Walk, section: Section) -> Circuit {
    let mut circuit = Circuit {
        name: section
            .required(walk, "name", &PathName)
            .unwrap_or_default(),
        model: section
            .optional(walk, "model", &MODELS)
            .unwrap_or(ConnectionModel::Colocated),
        prefixes: section.list(walk, "prefixes", &Network),
        premium: section.optional(walk, "premium", &Switch).unwrap_or(false),
        weight: weight(walk, &section),
        probe: probe(walk, &section, Some(Probe::default())),
        fragments: section
            .optional(walk, "fragments", &FRAGMENTS)
            .unwrap_or(FragmentPolicy::Drop),
        links: Vec::new(),
    };
    for (index, section) in section.sections(walk, "link").into_iter().enumerate() {
        circuit.links.push(link(walk, section, index));
    }
    section.finish(walk);
    circuit
}

fn weight(walk: &mut Walk, section: &Section) -> u32 {
    section
        .optional(walk, "weight", &WEIGHT)
        .map_or(0, |weight| weight as u32)
}

/// `probe = { ... }`, `probe = true` or `probe = false`; absent: `default`. Only a circuit has a
/// default, and only a circuit's probe has a default target.
fn probe(walk: &mut Walk, section: &Section, default: Option<Probe>) -> Option<Probe> {
    let neighbor_is_target = default.is_some();
    let Some(value) = section.value(walk, "probe") else {
        return default;
    };
    if let DeValue::Boolean(on) = value.get_ref() {
        if *on && !neighbor_is_target {
            let found = "found no target to ask".to_owned();
            let help = "name a host of the site that answers pings: \
                        probe = { target = \"10.2.0.1\" }"
                .to_owned();
            walk.error(
                &section.path("probe.target"),
                value.span(),
                "is missing",
                found,
                Some(Address.allowed()),
                Some(help),
            );
        }
        return on.then(Probe::default);
    }
    let section = section.section(walk, "probe")?;
    let target = if neighbor_is_target {
        section.optional(walk, "target", &Address)
    } else {
        section.required(walk, "target", &Address)
    };
    let mut probe = Probe {
        target,
        ..Probe::default()
    };
    let interval = Time(Duration::from_millis(10), seconds(60));
    if let Some(interval) = section.optional(walk, "interval", &interval) {
        probe.interval = interval;
    }
    if let Some(fail) = section.optional(walk, "fail", &Whole(1, 100)) {
        probe.fail = fail as u32;
    }
    if let Some(pass) = section.optional(walk, "pass", &Whole(1, 100)) {
        probe.pass = pass as u32;
    }
    section.finish(walk);
    Some(probe)
}

/// Ethertype of the outer tag of two; the number is as good as the string.
struct VlanType;

impl Kind for VlanType {
    type Value = u16;

    fn allowed(&self) -> String {
        "\"0x88a8\" (802.1ad) or \"0x8100\" (802.1Q)".to_owned()
    }

    fn parse(&self, value: &DeValue) -> Result<u16, Wrong> {
        let number = match value {
            DeValue::String(written) => written
                .strip_prefix("0x")
                .and_then(|digits| u64::from_str_radix(digits, 16).ok()),
            _ => Whole(0, 0xFFFF).parse(value).ok(),
        };
        match number {
            Some(number @ (0x88A8 | 0x8100)) => Ok(number as u16),
            _ => Err(Wrong {
                what: "is not the ethertype of a tag",
                found: format!("found {}", described(value)),
                help: None,
            }),
        }
    }
}

fn link(walk: &mut Walk, section: Section, index: usize) -> Link {
    // Azure's names; a third link is an error of its own.
    let name = match section.optional(walk, "name", &Name) {
        Some(name) => name,
        None if index == 0 => "primary".to_owned(),
        None => "secondary".to_owned(),
    };
    let link = Link {
        name,
        interface: section
            .required(walk, "interface", &Interface)
            .unwrap_or_default(),
        vlan: section
            .list(walk, "vlan", &Whole(1, 4_094))
            .into_iter()
            .map(|id| id as u16)
            .collect(),
        vlan_type: section
            .optional(walk, "vlan_type", &VlanType)
            .unwrap_or(0x88A8),
        address: section.required_list(walk, "address", &InterfaceAddress),
        neighbor: section.required_list(walk, "neighbor", &Address),
        neighbor_mac: section.list(walk, "neighbor_mac", &StationMac),
        mac: section.optional(walk, "mac", &Mac).unwrap_or(LinkMac::Own),
        offload: section.optional(walk, "offload", &Switch).unwrap_or(true),
        bgp: section
            .section(walk, "bgp")
            .map(|section| bgp(walk, section)),
        bfd: section
            .section(walk, "bfd")
            .map(|section| bfd(walk, section)),
    };
    section.finish(walk);
    link
}

fn bgp(walk: &mut Walk, section: Section) -> Bgp {
    // 10 s is the least that Azure negotiates (docs/azure.md, section 5), 65,535 s what the field holds.
    let hold_time = Time(seconds(10), seconds(65_535));
    let bgp = Bgp {
        neighbor_asn: section
            .required(walk, "neighbor_asn", &ASN)
            .unwrap_or_default() as u32,
        hold_time: section
            .optional(walk, "hold_time", &hold_time)
            .unwrap_or(seconds(180)),
    };
    section.finish(walk);
    bgp
}

fn bfd(walk: &mut Walk, section: Section) -> Bfd {
    let interval = Time(Duration::from_millis(10), seconds(60));
    let bfd = Bfd {
        interval: section
            .optional(walk, "interval", &interval)
            .unwrap_or(Duration::from_millis(300)),
        multiplier: section
            .optional(walk, "multiplier", &Whole(1, 255))
            .map_or(3, |multiplier| multiplier as u8),
    };
    section.finish(walk);
    bfd
}

fn failover_of(walk: &mut Walk, section: Section) -> Failover {
    let mut failover = Failover::default();
    let hold_down = Time(Duration::ZERO, seconds(3_600));
    if let Some(hold_down) = section.optional(walk, "hold_down", &hold_down) {
        failover.hold_down = hold_down;
    }
    if let Some(transit) = section.optional(walk, "branch_transit", &Switch) {
        failover.branch_transit = transit;
    }
    section.finish(walk);
    failover
}

fn control_of(walk: &mut Walk, section: Section, directory: &Path) -> Control {
    let mut control = Control::default();
    if let Some(socket) = section.optional(walk, "socket", &File) {
        control.socket = directory.join(socket);
    }
    control.metrics = section.optional(walk, "metrics", &Endpoint);
    if let Some(workers) = section.optional(walk, "workers", &Whole(1, 64)) {
        control.workers = workers as u16;
    }
    let polling = OneOf(&[
        ("sleep", Polling::Sleep),
        ("adaptive", Polling::Adaptive),
        ("spin", Polling::Spin),
    ]);
    if let Some(polling) = section.optional(walk, "polling", &polling) {
        control.polling = polling;
    }
    section.finish(walk);
    control
}
