//! `vng show status`.

use crate::cli::output::{
    Style, bandwidth, bandwidth_limit, limit, list, or_dash, sentence, span, state, table,
    thousands,
};
use crate::show::view::{Event, GatewayStatus, PathStatus, Status};
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) fn status(style: Style, status: &Status) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}, vng {}, up {}, configuration {}",
        style.bold(&status.name),
        status.version,
        span(status.uptime_seconds),
        status.config,
    );
    let _ = writeln!(
        text,
        "device {}, address {}, {} worker{}, ledger {}\n",
        status.device,
        list(&status.address),
        status.workers,
        if status.workers == 1 { "" } else { "s" },
        if status.ledger_balanced {
            style.green("balanced")
        } else {
            style.red("NOT balanced")
        },
    );
    for problem in &status.host.problems {
        let told = format!("degraded: {}", problem.detail);
        text.push_str(&sentence(style, &told).replacen("degraded:", &style.red("degraded:"), 1));
    }
    if !status.host.problems.is_empty() {
        text.push('\n');
    }
    for key in status
        .gateways
        .iter()
        .filter_map(|one| one.public_key.as_ref())
    {
        let _ = writeln!(text, "public key of the VPN gateway: {key}\n");
    }
    for (port, on) in &status.offloads {
        let on = if on.is_empty() {
            "none".to_owned()
        } else {
            on.join(", ")
        };
        let _ = writeln!(text, "offloads of {port}: {on}");
    }
    if !status.offloads.is_empty() {
        text.push('\n');
    }
    let header = [
        "gateway",
        "SKU",
        "in",
        "out",
        "of",
        "+packets/s",
        "+of",
        "in use",
        "+flows",
        "+of",
    ];
    let gateway = |gateway: &GatewayStatus| {
        [
            gateway.kind.clone(),
            gateway.sku.clone(),
            bandwidth(gateway.bits_in_per_second),
            bandwidth(gateway.bits_out_per_second),
            bandwidth_limit(gateway.limit_bits_per_second),
            thousands(gateway.packets_per_second as u64),
            limit(gateway.limit_packets_per_second),
            gateway
                .limit_used
                .map_or_else(|| "-".to_owned(), |used| format!("{:.0} %", used * 100.0)),
            thousands(gateway.active_flows),
            limit(gateway.limit_flows),
        ]
    };
    text += &table(style, &header, status.gateways.iter().map(gateway));
    text.push('\n');
    let rows = status.gateways.iter().flat_map(limits_used);
    text += &table(style, &["gateway", "limit", "used", "of"], rows);
    text.push('\n');
    let header = [
        "path",
        "+type",
        "state",
        "for",
        "in use",
        "+probe",
        "round trip",
    ];
    text += &table(style, &header, status.paths.iter().map(path));
    for path in &status.paths {
        if let Some(by) = path
            .probe
            .as_ref()
            .and_then(|probe| probe.returned_by.as_ref())
        {
            let _ = writeln!(
                text,
                "{}: answers to its probes come back over {by}:\n  they say nothing of its own way back; \
                 docs/far-end.md says what cures it",
                path.name
            );
        }
    }
    if !status.events.is_empty() {
        text.push('\n');
        let header = ["when", "path", "from", "to", "reason", "+flows moved after"];
        // The newest first; the rest is in the JSON.
        let newest = status.events.iter().rev().take(10);
        text += &table(style, &header, newest.map(event));
    }
    text
}

/// Every limit of a gateway that there is.
fn limits_used(gateway: &GatewayStatus) -> impl Iterator<Item = [String; 4]> + '_ {
    let limits = gateway.limits.iter().filter(|one| one.limit.is_some());
    limits.map(|one| {
        let bits = one.name == "BitsPerSecond";
        [
            gateway.kind.clone(),
            one.name.clone(),
            if bits {
                bandwidth(one.used as f64)
            } else {
                thousands(one.used)
            },
            if bits {
                bandwidth_limit(one.limit)
            } else {
                limit(one.limit)
            },
        ]
    })
}

fn event(event: &Event) -> [String; 6] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs_f64();
    let switched = event.switched_unix_ms;
    [
        format!("{} ago", span(now - event.detected_unix_ms / 1e3)),
        event.path.clone(),
        event.from.clone(),
        event.to.clone(),
        or_dash(event.reason.as_ref()),
        switched.map_or_else(
            || "-".to_owned(),
            |at| format!("{:.2} ms", at - event.detected_unix_ms),
        ),
    ]
}

/// A kind of connection, as Azure writes it.
pub(super) fn connection(kind: &str) -> &str {
    match kind {
        "site-to-site" => "Site-to-Site",
        "vnet-to-vnet" => "VNet-to-VNet",
        "point-to-site" => "Point-to-Site",
        other => other,
    }
}

fn path(path: &PathStatus) -> [String; 7] {
    let probe = path.probe.as_ref();
    let answered =
        |p: &crate::show::view::ProbeStatus| format!("{}/{} from {}", p.answered, p.sent, p.target);
    let round_trip = probe.and_then(|probe| probe.round_trip_ms);
    [
        path.name.clone(),
        match &path.connection {
            Some(kind) => format!("{}, {}", path.kind, connection(kind)),
            None => path.kind.clone(),
        },
        state(&path.state, path.reason.as_deref()),
        span(path.since_seconds),
        if path.in_use { "yes" } else { "no" }.to_owned(),
        probe.map_or_else(|| "off".to_owned(), answered),
        round_trip.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.2} ms")),
    ]
}
