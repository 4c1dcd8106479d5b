//! The table that a demo ends with.

use super::outcome::{Outcome, Timeline};
use crate::report::terminal::{new_table, shows_colour};
use comfy_table::{Attribute, Cell, Color};
use std::fmt::Write as _;

/// The table at the end.
pub(crate) fn table(outcome: &Outcome) -> String {
    let colour = shows_colour();
    let measured = !outcome.latency.is_empty();
    let results = if measured {
        results(outcome, colour)
    } else {
        String::new()
    };
    results + &checks(outcome, colour)
}

fn results(outcome: &Outcome, colour: bool) -> String {
    let mut table = new_table(colour);
    table.set_header(["", "vnet → onprem", "onprem → vnet"]);
    let (failover, failback) = (&outcome.failover, &outcome.failback);
    let ms = |value: f64| format!("{value:.0} ms");
    let both = |name: &str, a: String, b: String| vec![name.to_owned(), a, b];
    let time = |pick: fn(&Timeline) -> f64| {
        (
            ms(pick(&failover.timeline_ms)),
            ms(pick(&failover.onprem_timeline_ms)),
        )
    };
    let latency = |phase: &str| {
        let of = |direction: &str| {
            let found = outcome
                .latency
                .iter()
                .find(|l| l.phase == phase && l.direction == direction);
            found.map_or("–".into(), |l| {
                format!("{:.0} / {:.0} µs", l.at(50.0), l.at(99.0))
            })
        };
        (of("vnet_to_onprem"), of("onprem_to_vnet"))
    };
    let (detected, switched, first) = (
        time(|t| t.detected),
        time(|t| t.switched),
        time(|t| t.first_packet),
    );
    let (before, during) = (latency("before"), latency("during"));
    let outage = failover.outage_ms;
    let back = failback.outage_ms;
    for row in [
        both("fault detected after", detected.0, detected.1),
        both("packets switched after", switched.0, switched.1),
        both("first packet over the VPN after", first.0, first.1),
        both(
            "outage",
            ms(outage.vnet_to_onprem),
            ms(outage.onprem_to_vnet),
        ),
        both(
            "outage on the way back",
            ms(back.vnet_to_onprem),
            ms(back.onprem_to_vnet),
        ),
        both("latency on ExpressRoute, median / p99", before.0, before.1),
        both("latency on the VPN, median / p99", during.0, during.1),
    ] {
        table.add_row(row);
    }
    let mut text = format!("{table}\n\n");
    let packets = |sent, lost, doubled, disordered| {
        format!("{sent} packets sent, {lost} lost, {doubled} doubled, {disordered} out of order")
    };
    for (name, value) in [
        ("fault", failover.fault.clone()),
        (
            "paths",
            format!(
                "{} → {} → {}",
                outcome.paths.before, outcome.paths.during, outcome.paths.after
            ),
        ),
        (
            "failover",
            packets(
                failover.sent,
                failover.lost,
                failover.duplicated,
                failover.reordered,
            ),
        ),
        (
            "failback",
            packets(
                failback.sent,
                failback.lost,
                failback.duplicated,
                failback.reordered,
            ),
        ),
        (
            "TCP, one connection",
            format!(
                "{:.2} Gbps over ExpressRoute, {:.2} Gbps over the VPN",
                outcome.throughput.expressroute_gbps, outcome.throughput.vpn_gbps
            ),
        ),
    ] {
        let _ = writeln!(text, "  {name:<20}  {value}");
    }
    if let Some(why) = &outcome.why_vpn_is_quicker {
        let _ = writeln!(text, "\n  {why}");
    }
    text.push('\n');
    text
}

fn checks(outcome: &Outcome, colour: bool) -> String {
    let mut table = new_table(colour);
    table.set_header(["", "check", "found"]);
    for check in &outcome.checks {
        let (sign, shade) = if check.passed {
            ("✓", Color::Green)
        } else {
            ("✗", Color::Red)
        };
        let mut cell = Cell::new(sign);
        if colour {
            cell = cell.fg(shade).add_attribute(Attribute::Bold);
        }
        table.add_row([cell, Cell::new(&check.name), Cell::new(&check.found)]);
    }
    let mut text = format!("{table}\n");
    if let Some(error) = &outcome.error {
        let _ = writeln!(text, "\nended early: {error}");
    }
    text
}
