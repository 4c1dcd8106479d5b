//! What would become of a packet, and why.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

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
    /// As in [`PathStatus`](super::PathStatus); offline `assumed up`, `assumed down`, or `down` with a reason that
    /// follows from what was assumed.
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
