//! What the control socket answers: plain values that serialise to the JSON of `vng show ... --json`
//! and `vng explain --json`, and that the command line makes tables of.
//!
//! A name ends with its unit: `_seconds`, `_ms`, `_bps` (bits/s), `_pps` (packets/s), `_unix_ms` for a point in
//! time; sizes are bytes of IP packets. docs/json.md has every key. Words are Azure's (azure.md
//! section 8) and WireGuard's. Fields may be added; those of interface.md keep their shape.

use crate::control::path::mistagged::Seen;
use crate::telemetry::ledger::{Sum, Totals};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

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

/// Which routes to show; by default all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteFilter {
    /// Routes of this prefix, of those inside it and of those around it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<IpNet>,
    /// Routes of this source, as [`RouteView`] names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Routes over this circuit, link or site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// One row of the effective-route table (`vng show routes`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteView {
    /// `Active`, or `Invalid` for a route that lost.
    pub state: String,
    /// Where it comes from: `connected`, `user_defined`, `static`, `site`, `bgp` or `system`.
    pub source: String,
    /// Destination.
    pub prefix: IpNet,
    /// Azure's next-hop type: `VirtualNetworkGateway`, `VnetLocal`, `VirtualAppliance`, `Internet`, `None`.
    pub next_hop_type: String,
    /// The circuit, link, site or appliance it leads to, where it leads to one.
    pub next_hop: Option<String>,
    /// Weight of its connection; larger is better.
    #[serde(default)]
    pub weight: u32,
    /// Length of its AS path; shorter is better. 0 for what is not BGP.
    #[serde(default)]
    pub as_path_length: u32,
    /// The paths that carry it now, of those that it may use.
    pub paths: Vec<String>,
    /// Whether it takes over when the active one fails.
    pub standby: bool,
    /// Why it lost.
    pub why: Option<String>,
}

/// One policy rule (`vng show policy`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    /// Its place in the table, from 1: the first rule that matches decides.
    #[serde(default)]
    pub order: usize,
    /// Name.
    pub name: String,
    /// What it matches, as the configuration writes it.
    #[serde(rename = "match")]
    pub matches: String,
    /// What it does.
    pub action: String,
    /// The DSCP that packets leave with, by name or number; `null`: their own.
    #[serde(default)]
    pub set_dscp: Option<String>,
    /// The paths that it leads to now; none where it leads to none.
    pub paths: Vec<String>,
    /// Packets that it decided about, and their bytes, as the wire carries them; `null` where nothing runs.
    pub hits: Option<Sum>,
    /// Why no packet can reach it, where that is so.
    #[serde(default)]
    pub out_of_reach: Option<String>,
}

/// One circuit (`vng show circuits`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CircuitView {
    /// Name.
    pub name: String,
    /// Connection model, as the configuration writes it.
    pub model: String,
    /// Connection model, as Azure calls it.
    #[serde(default)]
    pub model_name: String,
    /// What that means on the wire: layer, tags, and who runs them.
    #[serde(default)]
    pub wire: String,
    /// Static prefixes.
    pub prefixes: Vec<IpNet>,
    /// Links.
    pub links: Vec<LinkView>,
}

/// One link of a circuit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkView {
    /// `primary` or `secondary`.
    pub name: String,
    /// Linux interface.
    pub interface: String,
    /// VLAN ids, outer first.
    pub vlan: Vec<u16>,
    /// The gateway's MAC address on it.
    pub mac: Option<String>,
    /// Its addresses.
    pub address: Vec<IpNet>,
    /// Next hops.
    pub neighbor: Vec<IpAddr>,
    /// State, as in [`PathStatus`].
    pub state: String,
    /// Why, where it is not up.
    pub reason: Option<String>,
    /// Azure's ArpAvailability now: whether a next hop answers ARP or neighbour discovery.
    pub arp_available: bool,
    /// From the link.
    pub received: Sum,
    /// To the link.
    pub sent: Sum,
    /// Frames that were meant for it and had other VLAN tags than its own, in the ledger dropped as `vlan_tag`; `null`:
    /// none.
    #[serde(default)]
    pub mistagged: Option<Seen>,
}

/// One tunnel, of a site or of a client (`vng show tunnels`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TunnelView {
    /// The site's or client's name.
    pub name: String,
    /// `site-to-site`, `vnet-to-vnet` or `point-to-site`.
    #[serde(rename = "connection")]
    pub kind: String,
    /// Its lanes, from 0, on neighbouring ports.
    #[serde(default)]
    pub lanes: Vec<LaneView>,
    /// The far end's public key, base64.
    pub public_key: String,
    /// This gateway's own public key, base64: what the far end must have.
    #[serde(default)]
    pub gateway_public_key: String,
    /// Where its datagrams go now; this and what follows is lane 0's.
    pub endpoint: Option<SocketAddr>,
    /// The address of this machine that they leave from: where the far end's datagrams come to. `null`: none has
    /// come, and the route says.
    #[serde(default)]
    pub local: Option<IpAddr>,
    /// The circuit that carries the tunnel; `null`: the host's own network does.
    #[serde(default)]
    pub over: Option<String>,
    /// The largest packet that the tunnel takes now, bytes; `null`: not known.
    #[serde(default, rename = "mtu_bytes")]
    pub mtu: Option<u16>,
    /// The largest packet that the route to the far end takes, bytes, as far as the kernel knows; `null`: not
    /// known.
    #[serde(default, rename = "path_mtu_bytes")]
    pub path_mtu: Option<u32>,
    /// Datagrams of all lanes that were longer than the route takes, and went in fragments.
    #[serde(default)]
    pub fragmented_packets: u64,
    /// Seconds since the last handshake; `null`: none yet.
    pub last_handshake_seconds: Option<f64>,
    /// Handshakes completed.
    pub handshakes: u64,
    /// State, as in [`PathStatus`].
    pub state: String,
    /// Why, where it is not up.
    pub reason: Option<String>,
    /// What is behind it.
    pub prefixes: Vec<IpNet>,
    /// Limit of both directions together, bits/s; `null`: none of its own.
    #[serde(rename = "limit_bps", default)]
    pub limit_bits_per_second: Option<u64>,
    /// Limit of both directions together, packets/s; `null`: none of its own.
    #[serde(rename = "limit_pps", default)]
    pub limit_packets_per_second: Option<u64>,
    /// TunnelAverageBandwidth: bits/s of both directions together, over the last second.
    #[serde(rename = "bps", default)]
    pub bits_per_second: f64,
    /// Packets/s of both directions together, over the last second.
    #[serde(rename = "pps", default)]
    pub packets_per_second: f64,
    /// TunnelIngressPackets and TunnelIngressBytes.
    #[serde(rename = "received")]
    pub ingress: Sum,
    /// TunnelEgressPackets and TunnelEgressBytes.
    #[serde(rename = "sent")]
    pub egress: Sum,
}

/// A point-to-site client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientView {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub address: Vec<IpAddr>,
    /// Its public key, base64.
    pub public_key: String,
    /// Whether it has a session; `null`: the gateway does not run.
    pub connected: Option<bool>,
    /// Where its datagrams come from.
    pub endpoint: Option<SocketAddr>,
    /// Seconds since the last handshake; `null`: none yet.
    pub last_handshake_seconds: Option<f64>,
    /// Handshakes completed.
    pub handshakes: u64,
    /// IP packets from it.
    #[serde(rename = "received")]
    pub ingress: Sum,
    /// IP packets to it.
    #[serde(rename = "sent")]
    pub egress: Sum,
}

/// One lane of a tunnel: a session of its own on a port of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaneView {
    /// UDP port on this side.
    pub port: u16,
    /// Where its datagrams go now.
    pub endpoint: Option<SocketAddr>,
    /// Whether it has a session.
    pub has_session: bool,
    /// Handshakes completed.
    pub handshakes: u64,
    /// Seconds since the last handshake; `null`: none yet.
    pub last_handshake_seconds: Option<f64>,
    /// IP packets that came in through it.
    #[serde(rename = "received_packets")]
    pub packets_in: u64,
    /// IP packets that went out through it.
    #[serde(rename = "sent_packets")]
    pub packets_out: u64,
}

/// One next hop (`vng show neighbors`): Azure's ARP table of a path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NeighborView {
    /// `circuit/link`.
    pub path: String,
    /// Linux interface.
    pub interface: String,
    /// `gateway` for the gateway's own side, `provider` for the other.
    pub side: String,
    /// IP address.
    pub address: IpAddr,
    /// MAC address; `null` while it is not resolved.
    pub mac: Option<String>,
    /// `incomplete`, `reachable`, `probe`, `failed` or `static`; `own` for the gateway's side.
    pub state: String,
    /// Seconds since it was last confirmed.
    pub age_seconds: Option<f64>,
    /// The MAC address before, for five minutes after a change.
    #[serde(default)]
    pub previous_mac: Option<String>,
    /// Seconds since that change.
    #[serde(default)]
    pub changed_seconds: Option<f64>,
    /// Another MAC address that answers for this address as well, or claims the gateway's own.
    #[serde(default)]
    pub conflict_mac: Option<String>,
}

/// One BGP session (`vng show bgp`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BgpView {
    /// `circuit/link`.
    pub path: String,
    /// The neighbor's address.
    pub neighbor: IpAddr,
    /// Its AS number.
    pub asn: u32,
    /// Session state; `not run` while this version keeps the configuration only.
    pub state: String,
    /// Azure's CountOfRoutesLearnedFromPeer.
    pub routes_learned: u64,
    /// Azure's CountOfRoutesAdvertisedToPeer.
    pub routes_advertised: u64,
}

/// The flow table (`vng show flows`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Flows {
    /// Flows in the table: Azure's ActiveFlows of both gateways.
    #[serde(rename = "active_flows")]
    pub active: u64,
    /// The SKUs' limits together; `null`: none.
    #[serde(rename = "limit_flows")]
    pub limit: Option<u64>,
    /// The same for each gateway; empty: nothing is limited, so nothing is counted.
    #[serde(default)]
    pub gateways: Vec<FlowCount>,
    /// Some of them, the newest first.
    pub flows: Vec<FlowView>,
}

/// The flows of one gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowCount {
    /// `ExpressRoute` or `Vpn`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Flows now; a VPN gateway's are the more of those in and out.
    #[serde(rename = "active_flows")]
    pub active: u64,
    /// Limit; `null`: none. A VPN gateway's is each way.
    #[serde(rename = "limit_flows")]
    pub limit: Option<u64>,
    /// New flows in the last second.
    #[serde(rename = "new_flows_per_second")]
    pub new_per_second: f64,
    /// Limit; `null`: none.
    #[serde(rename = "limit_new_flows_per_second")]
    pub limit_new_per_second: Option<u64>,
    /// Flows let in since the start.
    #[serde(rename = "opened_flows")]
    pub opened: u64,
    /// Packets of flows that were refused.
    #[serde(rename = "refused_packets")]
    pub refused: u64,
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowView {
    /// Name or number.
    pub protocol: String,
    /// Source address.
    pub source: IpAddr,
    /// Source port.
    pub source_port: u16,
    /// Destination address.
    pub destination: IpAddr,
    /// Destination port.
    pub destination_port: u16,
    /// Where it comes in.
    pub from: String,
    /// Where it goes out, or `drop`.
    pub path: String,
    /// Seconds since it was last looked up, which it is every 5 s while packets come.
    pub idle_seconds: Option<f64>,
    /// Seconds since its first packet.
    #[serde(default)]
    pub age_seconds: Option<f64>,
}

/// `vng show counters`: the ledger, and whether it balances.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// `received`, `sent`, `dropped`, `held`.
    #[serde(flatten)]
    pub totals: Totals,
    /// Whether received = sent + dropped + held.
    pub balanced: bool,
    /// What the kernel dropped before the gateway saw it, for want of room: at `vnet` the TUN device, at a link its
    /// packet sockets, at `underlay` the tunnels' UDP sockets. No part of the ledger.
    pub kernel_drops: BTreeMap<String, u64>,
}

impl Counters {
    /// The counters of a ledger.
    pub fn new(totals: Totals, kernel_drops: BTreeMap<String, u64>) -> Self {
        Self {
            balanced: totals.imbalance() == 0,
            totals,
            kernel_drops,
        }
    }
}

/// A packet to explain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// `vnet`, or the name of a circuit, a link (`circuit/link`), a site or a client.
    pub from: String,
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same IP version.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source port, for TCP and UDP.
    #[serde(default)]
    pub source_port: u16,
    /// Destination port, for TCP and UDP.
    #[serde(default)]
    pub destination_port: u16,
    /// ICMP type; echo request if absent.
    #[serde(default)]
    pub icmp_type: Option<u8>,
    /// DSCP, 6 bits.
    #[serde(default)]
    pub dscp: u8,
}

/// What the gateway would do with a packet, and why (`vng explain`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// `forward`, `drop` or `local`.
    pub verdict: String,
    /// For a drop the name of its counter; else what decided: `policy`, `route` or `own_address`.
    pub reason: String,
    /// The policy rule that matched.
    pub policy: Option<String>,
    /// The route that was taken.
    pub route: Option<ExplainedRoute>,
    /// The circuit or site that it leads to; `vnet` towards the virtual network.
    pub path: Option<String>,
    /// The member of it that this flow takes: `circuit/link` or a tunnel.
    pub member: Option<String>,
    /// The alternatives, and why each lost.
    pub rejected: Vec<Rejected>,
    /// The steps of the decision, in plain words.
    #[serde(default)]
    pub story: Vec<String>,
    /// The sources that packets of this ingress may have, for one that is dropped as `spoofed_source`.
    #[serde(default)]
    pub allowed_sources: Vec<String>,
    /// Health of the member, where it is known.
    #[serde(default)]
    pub health: Option<MemberHealth>,
    /// What shapes the packet: limits of the gateway and of the tunnel, for both directions together.
    #[serde(default)]
    pub shaper: Vec<ShaperLimit>,
    /// Limits of the gateway that a new flow must be within.
    #[serde(default)]
    pub flow_limits: Vec<FlowLimit>,
    /// The DSCP that the packet leaves with, by name or number, where the rule gives one.
    #[serde(default)]
    pub set_dscp: Option<String>,
    /// The members of the path group that rule or route led to, in order of preference.
    #[serde(default)]
    pub group: Vec<MemberView>,
    /// What would change the answer.
    #[serde(default)]
    pub would_change: Vec<WouldChange>,
}

/// A member of an explanation's path group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemberView {
    /// `circuit/link` or a tunnel.
    pub path: String,
    /// Its tier, from 1: a lower tier takes over when all above it are down.
    pub tier: usize,
    /// `taken` by this flow, `in use` by other flows, `stands by`, or `not usable`.
    pub role: String,
    /// Its health, where it is known.
    pub health: Option<MemberHealth>,
}

/// The health of a path in an explanation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemberHealth {
    /// As in [`PathStatus`]; offline `assumed up`, `assumed down`, or `down` with a reason that follows from
    /// what was assumed.
    pub state: String,
    /// Why, where it is degraded or down.
    pub reason: Option<String>,
    /// Seconds since it has been so, where that is known.
    pub since_seconds: Option<f64>,
}

impl MemberHealth {
    /// `down: no_carrier for 12 s`
    pub fn words(&self) -> String {
        let reason = self.reason.as_ref();
        let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
        let since = self.since_seconds;
        let since = since.map_or_else(String::new, |since| format!(" for {since:.0} s"));
        format!("{}{reason}{since}", self.state)
    }
}

/// Rates that a packet is held to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShaperLimit {
    /// `ExpressRoute` or `Vpn` for a gateway, `tunnel`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The gateway's SKU, or the tunnel's name.
    pub name: String,
    /// Limit, bits/s; `null`: none.
    pub limit_bps: Option<u64>,
    /// Limit, packets/s; `null`: none.
    pub limit_pps: Option<u64>,
}

/// Limits that a new flow must be within.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowLimit {
    /// `ExpressRoute` or `Vpn`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The gateway's SKU.
    pub name: String,
    /// Limit of flows; `null`: none.
    pub limit_flows: Option<u64>,
    /// Limit of new flows/s; `null`: none.
    pub limit_new_flows_per_second: Option<u64>,
}

/// A circumstance that would change an explanation's answer, and what the answer would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WouldChange {
    /// What would have to be otherwise, in words.
    #[serde(rename = "if")]
    pub change: String,
    /// `forward`, `drop` or `local`.
    pub verdict: String,
    /// As in an explanation.
    pub reason: String,
    /// As in an explanation.
    pub path: Option<String>,
    /// As in an explanation.
    pub member: Option<String>,
    /// As in an explanation.
    pub set_dscp: Option<String>,
}

/// The route of an explanation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedRoute {
    /// Prefix.
    pub prefix: IpNet,
    /// Where it comes from.
    pub source: String,
}

/// An alternative that lost: a route or a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The alternative, under the key `route` or `path`.
    #[serde(flatten)]
    pub what: Alternative,
    /// Why it lost.
    pub why: String,
}

/// What lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Alternative {
    /// A route: `PREFIX SOURCE to NEXT_HOP`.
    Route(String),
    /// A path.
    Path(String),
}

/// Another SKU for one of the gateways (`vng resize`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resize {
    /// Which gateway.
    pub gateway: GatewayKind,
    /// Its new SKU.
    pub sku: String,
    /// Generation of a VPN gateway's SKU; absent: the file's.
    #[serde(default)]
    pub generation: Option<u8>,
    /// Whether the gateway may be made anew where it cannot take the SKU as it runs.
    #[serde(default)]
    pub recreate: bool,
}

/// What a resize did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResizeReport {
    /// `expressroute` or `vpn`.
    pub gateway: String,
    /// SKU before.
    pub from: String,
    /// SKU now.
    pub to: String,
    /// Whether the gateway went on: no packet was lost for it. Else it was made anew.
    pub in_place: bool,
    /// Which of the process's gateways answers: one more each time that it is made anew.
    pub incarnation: u32,
    /// How long it took until the gateway was ready, milliseconds.
    pub took_ms: f64,
    /// For how long there was no data path, milliseconds.
    pub outage_ms: f64,
    /// What was lost; `null`: nothing.
    pub lost: Option<Loss>,
    /// Changes of the file that came into force, one line each.
    pub changed: Vec<String>,
    /// Warnings, one line each.
    pub warnings: Vec<String>,
}

/// What is lost with a gateway that is made anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Sessions with tunnels' far ends.
    pub sessions: u64,
    /// Flows that were counted.
    pub flows: u64,
    /// Next hops whose MAC address was known.
    pub neighbors: u64,
    /// Routes that were learned.
    pub routes: u64,
}

/// How a gateway came to be made anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recreated {
    /// When its data path went on, milliseconds since 1970.
    #[serde(rename = "at_unix_ms")]
    pub unix_ms: f64,
    /// For how long there was none, milliseconds.
    pub outage_ms: f64,
    /// What was lost.
    pub lost: Loss,
}

/// What a reload changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Changes in force now, one line each; empty: the file says what is in force already.
    pub changed: Vec<String>,
    /// Changes that need a restart, one line each.
    pub needs_restart: Vec<String>,
    /// Warnings about the file, one line each.
    pub warnings: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn counters_have_the_published_shape() {
        let one = Sum {
            packets: 1,
            bytes: 60,
        };
        let mut totals = Totals::default();
        totals.received.insert("vnet".into(), one);
        totals.dropped.insert("no_route".into(), one);
        let json = serde_json::to_value(Counters::new(totals, BTreeMap::new())).unwrap();
        assert_eq!(json["received"]["vnet"], json!({"packets": 1, "bytes": 60}));
        assert_eq!(json["dropped"]["no_route"]["packets"], 1);
        assert_eq!(json["sent"], json!({}));
        assert_eq!(json["held"], 0);
        assert_eq!(json["balanced"], true);
    }

    #[test]
    fn an_explanation_has_the_published_shape() {
        let explanation = Explanation {
            verdict: "forward".into(),
            route: Some(ExplainedRoute {
                prefix: "10.2.0.0/16".parse().unwrap(),
                source: "static".into(),
            }),
            rejected: vec![
                Rejected {
                    what: Alternative::Route("10.2.0.0/16 vpn".into()),
                    why: "ExpressRoute wins".into(),
                },
                Rejected {
                    what: Alternative::Path("onprem".into()),
                    why: "down".into(),
                },
            ],
            ..Explanation::default()
        };
        let json = serde_json::to_value(&explanation).unwrap();
        assert_eq!(json["policy"], Value::Null);
        assert_eq!(json["member"], Value::Null);
        assert_eq!(
            json["route"],
            json!({"prefix": "10.2.0.0/16", "source": "static"})
        );
        assert_eq!(
            json["rejected"],
            json!([{"route": "10.2.0.0/16 vpn", "why": "ExpressRoute wins"},
                   {"path": "onprem", "why": "down"}])
        );
        assert_eq!(
            serde_json::from_value::<Explanation>(json).unwrap(),
            explanation
        );
    }
}

/// One of the two gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum GatewayKind {
    /// The ExpressRoute gateway
    Expressroute,
    /// The VPN gateway
    Vpn,
}

impl GatewayKind {
    /// Its section in the configuration, which is its name on the command line too.
    pub fn section(self) -> &'static str {
        match self {
            Self::Expressroute => "expressroute",
            Self::Vpn => "vpn",
        }
    }
}
