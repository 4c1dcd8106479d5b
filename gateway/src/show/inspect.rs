//! What the running gateway looks like to a person: the views of `vng show` that need the state of its
//! paths. What the plan alone says is in [`crate::show::describe`].

mod connection;

pub use connection::bgp;
pub(crate) use connection::{circuits, clients, neighbors, session, tunnels};

use crate::config::schema::Config;
use crate::config::value::POINT_TO_SITE;
use crate::control::published::{self, PathView};
use crate::kernel::presence::PresenceView;
use crate::pipeline::shape::Rates;
use crate::plan::limit;
use crate::plan::{Origin, PathPlan, Plan};
use crate::show::health::PathHealth;
use crate::show::view::{
    Event, GatewayStatus, HostProblem, HostStatus, MemberHealth, PathStatus, ProbeStatus, Status,
};
use crate::telemetry::ledger::{Sum, Totals};
use routing::health::{Reason, Usability};
use routing::path::{PathId, PathKind};
use std::collections::BTreeMap;
use std::time::Duration;

/// The kernel's side of the TUN device.
pub fn host(view: PresenceView) -> HostStatus {
    let problems = view.problems.into_iter().map(|problem| HostProblem {
        reason: problem.reason.to_owned(),
        detail: problem.detail,
    });
    let problems: Vec<_> = problems.collect();
    let state = if problems.is_empty() {
        "up"
    } else {
        "degraded"
    };
    HostStatus {
        state: state.to_owned(),
        device: view.device,
        routes: view.routes as u64,
        problems,
    }
}

/// A path's change of state.
pub fn event(event: &published::PathEvent) -> Event {
    Event {
        detected_unix_ms: event.detected_unix_ms,
        switched_unix_ms: event.switched_unix_ms,
        path: event.path.clone(),
        from: event.from.to_owned(),
        to: event.to.to_owned(),
        reason: event.reason.map(str::to_owned),
    }
}

/// What passed a port in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Packets a second, received at the port.
    pub packets_in: f64,
    /// Bits a second, received at the port.
    pub bits_in: f64,
    /// Packets a second, sent at the port.
    pub packets_out: f64,
    /// Bits a second, sent at the port.
    pub bits_out: f64,
}

/// Rates by port between two looks at the ledger.
pub fn rates(before: &Totals, after: &Totals, seconds: f64) -> BTreeMap<String, Rate> {
    let since = |then: &BTreeMap<String, Sum>, now: &BTreeMap<String, Sum>, port: &str| {
        let (then, now) = (
            then.get(port).copied().unwrap_or_default(),
            now.get(port).copied().unwrap_or_default(),
        );
        let packets = now.packets.saturating_sub(then.packets) as f64 / seconds;
        (
            packets,
            now.bytes.saturating_sub(then.bytes) as f64 * 8.0 / seconds,
        )
    };
    let ports = after.received.keys();
    let rate = |port: &String| {
        let (packets_in, bits_in) = since(&before.received, &after.received, port);
        let (packets_out, bits_out) = since(&before.sent, &after.sent, port);
        (
            port.clone(),
            Rate {
                packets_in,
                bits_in,
                packets_out,
                bits_out,
            },
        )
    };
    ports.map(rate).collect()
}

fn kind_name(kind: PathKind) -> &'static str {
    match kind {
        PathKind::ExpressRoute => "ExpressRoute",
        PathKind::Vpn => "Vpn",
    }
}

fn view_of<'a>(views: &'a [PathView], path: &PathPlan) -> Option<&'a PathView> {
    views.iter().find(|view| view.name == path.name)
}

fn state_of(views: &[PathView], path: &PathPlan) -> (String, Option<String>) {
    let Some(view) = view_of(views, path) else {
        return ("starting".to_owned(), None);
    };
    let reason = view.state.reason().map(|reason| reason.name().to_owned());
    (view.state.name().to_owned(), reason)
}

/// The gateway at a glance.
pub fn status(
    config: &Config,
    plan: &Plan,
    views: &[PathView],
    rates: &BTreeMap<String, Rate>,
) -> Status {
    let gateway = |kind: PathKind| {
        let mut status = GatewayStatus {
            kind: kind_name(kind).to_owned(),
            ..GatewayStatus::default()
        };
        for path in plan.live().filter(|path| path.kind == kind) {
            let rate = rates.get(&path.name).copied().unwrap_or_default();
            status.bits_in_per_second += rate.bits_in;
            status.bits_out_per_second += rate.bits_out;
            status.packets_per_second += rate.packets_in + rate.packets_out;
        }
        status
    };
    let mut gateways = Vec::new();
    if let Some(expressroute) = &config.expressroute {
        let mut status = gateway(PathKind::ExpressRoute);
        status.sku.clone_from(&expressroute.sku);
        set_limit(&mut status, limit::expressroute(config));
        gateways.push(status);
    }
    if let Some(vpn) = &config.vpn {
        let mut status = gateway(PathKind::Vpn);
        status.sku.clone_from(&vpn.sku);
        set_limit(&mut status, limit::vpn(config).0);
        gateways.push(status);
    }
    Status {
        name: config.vnet.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        device: config.vnet.device.clone(),
        address: config.vnet.address.clone(),
        gateways,
        paths: plan
            .live()
            .map(|path| path_status(config, plan, path, views))
            .collect(),
        ..Status::default()
    }
}

/// What is there to use, and how much of it is.
fn set_limit(status: &mut GatewayStatus, rates: Rates) {
    let bits = status.bits_in_per_second + status.bits_out_per_second;
    let used = |rate: f64, limit: Option<u64>| limit.map(|limit| rate / limit.max(1) as f64);
    let used = [
        used(bits, rates.bits_per_second),
        used(status.packets_per_second, rates.packets_per_second),
    ];
    status.limit_used = used.into_iter().flatten().reduce(f64::max);
    status.limit_bits_per_second = rates.bits_per_second;
    status.limit_packets_per_second = rates.packets_per_second;
}

fn path_status(config: &Config, plan: &Plan, path: &PathPlan, views: &[PathView]) -> PathStatus {
    let view = view_of(views, path);
    let (state, reason) = state_of(views, path);
    let groups = plan.snapshot.groups().iter();
    // A link's own subnet leads over it always, so that it can be found up again: that is no use of it.
    let alive = view.is_some_and(|view| view.usability != Usability::None);
    let in_use = alive
        && groups.into_iter().any(|group| {
            let place = group.members().iter().position(|&member| member == path.id);
            place.is_some_and(|bit| group.active().load() >> bit & 1 != 0)
        });
    PathStatus {
        name: path.name.clone(),
        kind: kind_name(path.kind).to_owned(),
        connection: match path.origin {
            Origin::Site { site } => config.sites().get(site).map(|site| site.kind.name()),
            Origin::PointToSite => Some(POINT_TO_SITE),
            Origin::Link { .. } | Origin::Gone => None,
        }
        .map(str::to_owned),
        state,
        reason,
        since_seconds: view.map_or(0.0, |view| view.since.elapsed().as_secs_f64()),
        in_use,
        probe: view.and_then(|view| view.probe).map(|probe| ProbeStatus {
            target: probe.target,
            sent: probe.count.sent,
            answered: probe.count.answered,
            lost: probe.count.lost,
            returned_by: {
                let other = probe.returned_by.filter(|&by| by != path.id);
                let other = other.and_then(|by| plan.paths.get(usize::from(by.0)));
                other.map(|other| other.name.clone())
            },
            round_trip_ms: probe.round_trip.map(milliseconds),
        }),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn sums(totals: &Totals, name: &str) -> (Sum, Sum) {
    let of = |sums: &BTreeMap<String, Sum>| sums.get(name).copied().unwrap_or_default();
    (of(&totals.received), of(&totals.sent))
}

/// The health of a path, for `vng explain`.
pub fn health(plan: &Plan, views: &[PathView], id: PathId) -> Option<PathHealth> {
    let path = plan.paths.get(usize::from(id.0))?;
    let view = view_of(views, path)?;
    Some(PathHealth {
        told: MemberHealth {
            state: view.state.name().to_owned(),
            reason: view.state.reason().map(|reason| reason.name().to_owned()),
            since_seconds: Some(view.since.elapsed().as_secs_f64()),
        },
        usability: match view.state.reason() {
            Some(Reason::CircuitDown) => Usability::Full,
            _ => view.usability,
        },
    })
}
