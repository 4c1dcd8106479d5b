//! What changes a gateway, and what came of it.

use serde::{Deserialize, Serialize};

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
