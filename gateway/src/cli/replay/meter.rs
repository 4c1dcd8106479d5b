//! What a capture's traffic asks of a gateway, second by second, and which limit of a SKU that meets first.
//!
//! Seconds are the capture's: the first begins with its first packet. As the shaper counts: bits of IP
//! packets, packets of the wire, both directions together; of a gateway whatever comes in or goes out by one
//! of its paths, of a tunnel its own. As the flow table counts: a flow is a 5-tuple with its answers, which
//! lasts until 4 minutes after its last packet; ICMP and fragments after the first are none.

use super::decisions::Measured;
use crate::config::schema::Config;
use crate::pipeline::flow;
use crate::plan::Plan;
use crate::sku::{self, Edition};
use routing::packet::{FlowKey, Fragment};
use routing::path::{PathId, PathKind};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// After so many seconds without a packet a flow is over.
const IDLE: u64 = flow::IDLE.as_secs();
/// So many seconds apart flows are looked through for such that are over.
const SWEEP: u64 = 5;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum Measure {
    #[serde(rename = "bits/s")]
    Bits,
    #[serde(rename = "packets/s")]
    Packets,
    #[serde(rename = "flows")]
    Flows,
    #[serde(rename = "new flows/s")]
    NewFlows,
}

impl Measure {
    /// In words.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bits => "bits/s",
            Self::Packets => "packets/s",
            Self::Flows => "flows",
            Self::NewFlows => "new flows/s",
        }
    }
}

/// One second of traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Second {
    bits: u64,
    packets: u64,
    flows: u64,
    new_flows: u64,
}

impl Second {
    fn of(&self, measure: Measure) -> u64 {
        match measure {
            Measure::Bits => self.bits,
            Measure::Packets => self.packets,
            Measure::Flows => self.flows,
            Measure::NewFlows => self.new_flows,
        }
    }
}

/// What one gateway or tunnel carries.
#[derive(Debug, Default)]
struct Use {
    seconds: BTreeMap<u64, Second>,
    /// When each flow was last seen.
    flows: HashMap<FlowKey, u64>,
    swept: u64,
}

impl Use {
    fn add(&mut self, second: u64, measured: &Measured<'_>) {
        if second >= self.swept + SWEEP {
            self.swept = second;
            self.flows.retain(|_, seen| *seen + IDLE > second);
        }
        let headers = measured.headers;
        let is_flow = !headers.key.is_icmp() && headers.fragment != Fragment::Later;
        let is_new = is_flow && {
            let seen = self.flows.insert(both_ways(headers.key), second);
            seen.is_none_or(|seen| seen + IDLE <= second)
        };
        let entry = self.seconds.entry(second).or_default();
        entry.bits = entry
            .bits
            .saturating_add(measured.sum.bytes.saturating_mul(8));
        entry.packets = entry.packets.saturating_add(measured.sum.packets);
        entry.flows = entry.flows.max(self.flows.len() as u64);
        entry.new_flows += u64::from(is_new);
    }
}

/// The same key for a flow and its answers.
fn both_ways(key: FlowKey) -> FlowKey {
    if (key.source, key.source_port) <= (key.destination, key.destination_port) {
        return key;
    }
    FlowKey {
        source: key.destination,
        destination: key.source,
        source_port: key.destination_port,
        destination_port: key.source_port,
        ..key
    }
}

/// Measures what goes through.
#[derive(Debug, Default)]
pub(super) struct Meter {
    first: Option<Duration>,
    /// The clock never goes back, whatever a merged capture says.
    now: Duration,
    expressroute: Use,
    vpn: Use,
    tunnels: BTreeMap<PathId, Use>,
}

impl Meter {
    /// Time passes to that of a record.
    pub(super) fn tick(&mut self, at: Duration) {
        let first = *self.first.get_or_insert(at);
        self.now = self.now.max(at.saturating_sub(first));
    }

    /// From the first record to the last.
    pub(super) fn span(&self) -> Duration {
        self.now
    }

    /// A packet that goes through now.
    pub(super) fn add(&mut self, plan: &Plan, measured: &Measured<'_>) {
        let second = self.now.as_secs();
        let mut kinds = Vec::new();
        for path in measured.paths.into_iter().flatten() {
            let Some(known) = plan.paths.get(usize::from(path.0)) else {
                continue;
            };
            if known.kind == PathKind::Vpn {
                let tunnel = self.tunnels.entry(path).or_default();
                tunnel.add(second, measured);
            }
            // From branch to branch of one gateway a packet is shaped once.
            if !kinds.contains(&known.kind) {
                kinds.push(known.kind);
            }
        }
        for kind in kinds {
            match kind {
                PathKind::ExpressRoute => self.expressroute.add(second, measured),
                PathKind::Vpn => self.vpn.add(second, measured),
            }
        }
    }
}

/// One limit of a SKU beside what the capture asks of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Limit {
    /// What is limited.
    #[serde(rename = "limit")]
    pub(super) measure: Measure,
    /// Of what: `gateway`, or `tunnel NAME`.
    pub(super) of: String,
    /// How much there may be.
    pub(super) allowed: u64,
    /// The most that there was in a second.
    pub(super) peak: u64,
    /// In which second of the capture, from 0.
    pub(super) at_second: u64,
    /// Peak by limit: above 1 it binds.
    pub(super) ratio: f64,
    /// Seconds with more than there may be.
    pub(super) seconds_over: u64,
    /// What is beyond the limit, over all seconds: bits, packets, flows.
    pub(super) beyond: u64,
}

/// A SKU beside the capture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct WhatIf {
    /// The SKU as it was asked for.
    pub(super) sku: String,
    /// `ExpressRoute` or `Vpn`.
    pub(super) gateway: &'static str,
    /// The limit that binds first, or comes nearest; `null` without any limit.
    pub(super) first: Option<Measure>,
    /// Whether any is gone over.
    pub(super) exceeded: bool,
    /// All of them, the tightest first.
    pub(super) limits: Vec<Limit>,
}

/// The limits of a SKU: of its gateway, and of each tunnel.
struct SkuRates {
    sku: String,
    kind: PathKind,
    gateway: Vec<(Measure, u64)>,
    tunnel: Vec<(Measure, u64)>,
}

/// What the SKUs of this name make of the traffic: a name that both gateways have, of both.
///
/// # Errors
/// Nobody has the name; which there are.
pub(super) fn what_if(
    name: &str,
    config: &Config,
    plan: &Plan,
    meter: &Meter,
) -> Result<Vec<WhatIf>, String> {
    let found = limits(name, config);
    if found.is_empty() {
        let edition = |edition| {
            let mut names = sku::expressroute_names(edition);
            for name in sku::vpn_names(edition) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            names.join(", ")
        };
        return Err(format!(
            "--sku {name}: no SKU has this name; there are {}; of the 2016 edition, written 2016:NAME, {}; a \
             VPN SKU takes its generation behind a colon (VpnGw2:2), ErGwScale its units",
            edition(Edition::Current),
            edition(Edition::Of2016)
        ));
    }
    Ok(found
        .into_iter()
        .map(|limits| limits.beside(plan, meter))
        .collect())
}

fn limits(name: &str, config: &Config) -> Vec<SkuRates> {
    let given = |measures: &[(Measure, Option<u64>)]| {
        measures
            .iter()
            .filter_map(|&(measure, limit)| Some((measure, limit?)))
            .collect()
    };
    // The edition that is asked for, or else each gateway's own.
    let (asked, name) = match name.split_once(':') {
        Some(("2016", rest)) => (Some(Edition::Of2016), rest),
        Some(("current", rest)) => (Some(Edition::Current), rest),
        _ => (None, name),
    };
    let own = config.expressroute.as_ref().map(|gateway| gateway.edition);
    let edition = asked.or(own).unwrap_or_default();
    let title = |edition: Edition, name: &str| match edition {
        Edition::Current => name.to_owned(),
        Edition::Of2016 => format!("2016:{name}"),
    };
    let mut found = Vec::new();
    if let Some(sku) = sku::expressroute(edition, name) {
        found.push(SkuRates {
            sku: title(edition, name),
            kind: PathKind::ExpressRoute,
            gateway: given(&[
                (Measure::Bits, sku.bits_per_second),
                (Measure::Packets, sku.packets_per_second),
                (Measure::Flows, sku.flows),
                (Measure::NewFlows, sku.flows_per_second),
            ]),
            tunnel: Vec::new(),
        });
    }
    let (family, generation) = match name.split_once(':') {
        Some((family, generation)) => (family, generation.parse().ok()),
        None => (name, None),
    };
    let own = config.vpn.as_ref().map(|gateway| gateway.edition);
    let edition = asked.or(own).unwrap_or_default();
    let there = sku::vpn_generations(edition, family);
    // The configuration's generation, or the first that has the SKU.
    let own = config.vpn.as_ref().map(|vpn| vpn.generation);
    let own = own.filter(|own| there.contains(own));
    let generation = generation.or(own).or(there.first().copied()).unwrap_or(1);
    if let Ok(sku) = sku::vpn(edition, family, generation) {
        found.push(SkuRates {
            sku: match there.len() {
                0 | 1 => title(edition, family),
                _ => title(edition, &format!("{family}:{generation}")),
            },
            kind: PathKind::Vpn,
            gateway: given(&[
                (Measure::Bits, sku.bits_per_second),
                (Measure::Flows, sku.flows),
            ]),
            tunnel: given(&[
                (Measure::Bits, sku.tunnel_bits_per_second),
                (Measure::Packets, sku.tunnel_packets_per_second),
            ]),
        });
    }
    found
}

impl SkuRates {
    fn beside(self, plan: &Plan, meter: &Meter) -> WhatIf {
        let (gateway, total) = match self.kind {
            PathKind::ExpressRoute => ("ExpressRoute", &meter.expressroute),
            PathKind::Vpn => ("Vpn", &meter.vpn),
        };
        let mut limits: Vec<Limit> = self
            .gateway
            .iter()
            .map(|&limit| beside(limit, "gateway".to_owned(), total))
            .collect();
        for (path, tunnel) in &meter.tunnels {
            let path = plan.paths.get(usize::from(path.0));
            let name = path.map_or("", |path| path.name.as_str());
            let of = |&limit| beside(limit, format!("tunnel {name}"), tunnel);
            limits.extend(self.tunnel.iter().map(of));
        }
        limits.sort_by(|a, b| {
            b.ratio
                .total_cmp(&a.ratio)
                .then_with(|| (a.measure, &a.of).cmp(&(b.measure, &b.of)))
        });
        WhatIf {
            sku: self.sku,
            gateway,
            first: limits.first().map(|limit| limit.measure),
            exceeded: limits.iter().any(|limit| limit.peak > limit.allowed),
            limits,
        }
    }
}

fn beside((measure, allowed): (Measure, u64), of: String, used: &Use) -> Limit {
    let mut result = Limit {
        measure,
        of,
        allowed,
        peak: 0,
        at_second: 0,
        ratio: 0.0,
        seconds_over: 0,
        beyond: 0,
    };
    for (&second, traffic) in &used.seconds {
        let amount = traffic.of(measure);
        if amount > result.peak {
            (result.peak, result.at_second) = (amount, second);
        }
        let over = amount.saturating_sub(allowed);
        result.seconds_over += u64::from(over > 0);
        // Flows stand beside each other: the most of them at a time that are too many.
        result.beyond = match measure {
            Measure::Flows => result.beyond.max(over),
            _ => result.beyond.saturating_add(over),
        };
    }
    result.ratio = result.peak as f64 / allowed.max(1) as f64;
    result
}
