//! Circuits, tunnels, clients, neighbours and BGP sessions.

use crate::control::path::mistagged::Seen;
use crate::telemetry::ledger::Sum;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

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
    /// State, as in [`PathStatus`](super::PathStatus).
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
    /// State, as in [`PathStatus`](super::PathStatus).
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
