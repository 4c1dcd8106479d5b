//! The gateway at a glance.

use super::Recreated;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// `vng show status`: the gateway at a glance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the virtual network.
    pub name: String,
    /// Version of vng.
    pub version: String,
    /// The configuration file.
    pub config: String,
    /// Seconds since start.
    pub uptime_seconds: f64,
    /// How often this process has made the gateway anew.
    #[serde(default)]
    pub incarnation: u32,
    /// The last time that it did.
    #[serde(default)]
    pub recreated: Option<Recreated>,
    /// The TUN device.
    pub device: String,
    /// The gateway's own addresses.
    pub address: Vec<IpNet>,
    /// Data workers.
    pub workers: u16,
    /// What kernel and devices do for the packets of each port, as found at the start; empty: nothing. What
    /// they have refused since stands in the counters.
    #[serde(default)]
    pub offloads: BTreeMap<String, Vec<String>>,
    /// The kernel's side of the TUN device.
    #[serde(default)]
    pub host: HostStatus,
    /// The gateways: at most one ExpressRoute, at most one Vpn.
    pub gateways: Vec<GatewayStatus>,
    /// Every path in the gateway's order.
    pub paths: Vec<PathStatus>,
    /// Whether received = sent + dropped + held when it was looked at.
    pub ledger_balanced: bool,
    /// What has happened to the paths, oldest first.
    #[serde(default)]
    pub events: Vec<Event>,
}

/// The kernel's side of the TUN device: whether all that the gateway has set there is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// `up`, or `degraded`: see `problems`.
    pub state: String,
    /// Name of the device now; another than `device` of the whole if it was renamed.
    pub device: String,
    /// Kernel routes that are set.
    pub routes: u64,
    /// What is not as it should be.
    pub problems: Vec<HostProblem>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostProblem {
    /// `device_gone`, `device_down`, `device_renamed`, `contested`, `refused` or `route_conflict`.
    pub reason: String,
    /// What it is and what cures it.
    pub detail: String,
}

/// A path's change of state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When it was detected, milliseconds since 1970.
    pub detected_unix_ms: f64,
    /// When new packets took other paths, milliseconds since 1970; `null` if none had to.
    pub switched_unix_ms: Option<f64>,
    /// The path's name.
    pub path: String,
    /// State before, as in [`PathStatus`].
    pub from: String,
    /// State after.
    pub to: String,
    /// Why it is degraded or down.
    pub reason: Option<String>,
}

/// One of the two gateways, its limits and what passes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// `ExpressRoute` or `Vpn`.
    #[serde(rename = "type")]
    pub kind: String,
    /// SKU.
    pub sku: String,
    /// Limit, bits/s; `null`: none.
    #[serde(rename = "limit_bps")]
    pub limit_bits_per_second: Option<u64>,
    /// Limit, packets/s; `null`: none.
    #[serde(rename = "limit_pps")]
    pub limit_packets_per_second: Option<u64>,
    /// Limit of flows; `null`: none.
    pub limit_flows: Option<u64>,
    /// Azure's BitsInPerSecond: from outside into the virtual network, over the last second.
    #[serde(rename = "received_bps")]
    pub bits_in_per_second: f64,
    /// Azure's BitsOutPerSecond.
    #[serde(rename = "sent_bps")]
    pub bits_out_per_second: f64,
    /// Azure's PacketsPerSecond, both ways.
    #[serde(rename = "pps")]
    pub packets_per_second: f64,
    /// How much of its limit passes it, both directions together, of bits or packets whichever is nearer
    /// to it: 1 is all of it. `null`: no limit.
    #[serde(rename = "limit_used_ratio", default)]
    pub limit_used: Option<f64>,
    /// Azure's ActiveFlows.
    pub active_flows: u64,
    /// The table that the SKU is of: `current` or `2016`.
    #[serde(default)]
    pub edition: String,
    /// Generation of a VPN gateway's SKU, where it has one.
    #[serde(default)]
    pub generation: Option<u8>,
    /// Every limit of the SKU and what is used of it.
    #[serde(default)]
    pub limits: Vec<LimitUse>,
    /// The public key in use, of a VPN gateway: what the far ends of its tunnels have.
    #[serde(default)]
    pub public_key: Option<String>,
}

/// One limit of a gateway, and what is used of it now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitUse {
    /// Azure's name where it has one: `BitsPerSecond` and `PacketsPerSecond` (both directions together, over
    /// the last second), `ActiveFlows`, `MaxFlowsCreationRate` (new flows in the last second),
    /// `CountOfRoutesLearnedFromPeer`, `CountOfRoutesAdvertisedToPeer`; `Circuits`, `Tunnels`, `Clients`.
    pub name: String,
    /// What is used.
    pub used: u64,
    /// The limit; `null`: none.
    pub limit: Option<u64>,
}

/// State of one path: a link of a circuit, or a tunnel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PathStatus {
    /// `circuit/link` or the site's name.
    pub name: String,
    /// `ExpressRoute` or `Vpn`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Kind of a VPN connection: `site-to-site`, `vnet-to-vnet` or `point-to-site`.
    #[serde(default)]
    pub connection: Option<String>,
    /// `up`, `degraded`, `holding`, `starting`, `idle` or `down`.
    pub state: String,
    /// Why, where it is not up.
    pub reason: Option<String>,
    /// Seconds in this state.
    pub since_seconds: f64,
    /// Whether any path group uses it now.
    pub in_use: bool,
    /// The probe, where there is one.
    pub probe: Option<ProbeStatus>,
}

/// A probe's own numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeStatus {
    /// Whom it asks.
    pub target: IpAddr,
    /// Requests sent.
    pub sent: u64,
    /// Answered.
    pub answered: u64,
    /// Lost.
    pub lost: u64,
    /// The path that the last answer came back over, where that is another one; `null`: this one.
    #[serde(default)]
    pub returned_by: Option<String>,
    /// The last round trip, milliseconds.
    pub round_trip_ms: Option<f64>,
}
