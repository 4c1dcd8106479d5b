//! The flow table and the ledger.

use crate::telemetry::ledger::Totals;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

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
