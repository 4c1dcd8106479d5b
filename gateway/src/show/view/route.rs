//! Effective routes and the policy table.

use crate::telemetry::ledger::Sum;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

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
