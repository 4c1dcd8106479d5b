//! The tables that a comparison ends with: a row for each figure, a column for each contestant.

use super::contestant::Kind;
use super::metric::{METRICS, Metric};
use super::report::{Entry, Held, Report};
use super::statistic::Statistic;
use crate::report::chart::number;
use crate::report::terminal::{new_table, shows_colour};
use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table};
use std::fmt::Write as _;

/// Kinds of paths, and what a table of them is called.
pub(super) const KINDS: [(Kind, &str); 2] = [
    (Kind::Tunnel, "Tunnel over one link"),
    (
        Kind::ExpressRoute,
        "ExpressRoute link, two gateways in a row",
    ),
];

/// Everything for people: medians with their ranges, then how many times better vng is.
pub(super) fn text(report: &Report) -> String {
    let colour = shows_colour();
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut text, report, colour);
    text
}

fn write(to: &mut String, report: &Report, colour: bool) -> std::fmt::Result {
    for (kind, title) in KINDS {
        let entries = report.of(kind);
        if entries.iter().all(|entry| entry.summary.is_empty()) {
            continue;
        }
        writeln!(to, "{title}\n{}\n", figures(&entries, colour))?;
        for ours in entries.iter().filter(|entry| entry.ours) {
            if let Some(table) = ratios(report, ours, colour) {
                writeln!(to, "{} is so many times better than\n{table}\n", ours.name)?;
            }
        }
    }
    for line in remarks(report) {
        writeln!(to, "  {line}")?;
    }
    Ok(())
}

/// What must be said beside the figures.
pub(super) fn remarks(report: &Report) -> Vec<String> {
    let s = &report.setup;
    let mut lines = Vec::new();
    if s.build != "release" {
        lines.push("DEVELOPMENT BUILD of vng-lab: figures say nothing about vng".into());
    }
    for missing in &report.missing {
        lines.push(format!(
            "NOT COMPARED: {}: {}",
            missing.name, missing.reason
        ));
    }
    for entry in &report.contestants {
        for found in &entry.rounds {
            if let Some(error) = &found.error {
                lines.push(format!(
                    "FAILED: {}, round {}: {error}",
                    entry.name, found.round
                ));
            }
        }
    }
    if let Some(error) = &report.error {
        lines.push(format!("ended early: {error}"));
    }
    if !report.without_ratio.is_empty() {
        lines.push(
            "sender's limit: all that could be offered arrived; the peer could carry more, and there is no ratio"
                .into(),
        );
    }
    lines.push(format!(
        "{}; {} × {}; Linux {}; load before: {}",
        s.started,
        s.processors,
        s.processor,
        s.kernel,
        number(s.load_before)
    ));
    lines.push(format!(
        "median of the rounds (least to most); {} rounds, {} s each measurement; TCP by {}",
        s.rounds,
        number(s.seconds),
        s.tcp_generator
    ));
    lines
}

fn figures(entries: &[&Entry], colour: bool) -> Table {
    let mut table = plain_table(colour);
    let names = entries.iter().map(|entry| entry.name.as_str());
    table.set_header(["", ""].into_iter().chain(names));
    for (metric, label) in rows(entries) {
        let cells = entries
            .iter()
            .map(|entry| figure(metric, entry.summary.get(metric.key)))
            .map(|text| Cell::new(text).set_alignment(CellAlignment::Right));
        let names = [label.as_str(), metric.unit].map(Cell::new);
        table.add_row(names.into_iter().chain(cells));
    }
    table
}

fn ratios(report: &Report, ours: &Entry, colour: bool) -> Option<Table> {
    let peers = report.of(ours.kind);
    let held = |peer: &&&Entry| !peer.ours && report.compares(&ours.name, &peer.name);
    let peers: Vec<&str> = peers
        .iter()
        .filter(held)
        .map(|peer| peer.name.as_str())
        .collect();
    if peers.is_empty() {
        return None;
    }
    let mut table = plain_table(colour);
    table.set_header(std::iter::once("").chain(peers.iter().copied()));
    for metric in METRICS.iter().filter(|metric| metric.better.is_some()) {
        let cells: Vec<_> = peers
            .iter()
            .map(|peer| report.held(&ours.name, peer, metric.key))
            .collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let cells = cells.into_iter().map(|held| {
            let cell = Cell::new(times(held.as_ref())).set_alignment(CellAlignment::Right);
            match held {
                Some(Held::Ratio(ratio)) if colour && ratio.times_better.median >= 1.0 => {
                    cell.fg(Color::Green)
                }
                Some(Held::Ratio(_)) if colour => cell.fg(Color::Red),
                _ => cell,
            }
        });
        let name = Cell::new(format!("{}, {}", full_label(metric), metric.unit));
        table.add_row(std::iter::once(name).chain(cells));
    }
    Some(table)
}

/// How many times better, as a cell says it.
pub(super) fn times(held: Option<&Held<'_>>) -> String {
    match held {
        None => "–".into(),
        Some(Held::SendersLimit) => "sender's limit".into(),
        Some(Held::Ratio(ratio)) => {
            let bound = if ratio.at_least { "≥ " } else { "" };
            let spread = spread(&ratio.times_better, 2);
            let (median, range) = spread.split_once(' ').unwrap_or((&spread, ""));
            let space = if range.is_empty() { "" } else { " " };
            format!("{bound}{median}×{space}{range}")
        }
    }
}

/// The figures that one of these has, each with its label: a full one where the row that it leans on is not
/// there.
pub(super) fn rows(entries: &[&Entry]) -> Vec<(&'static Metric, String)> {
    let known = |metric: &Metric| entries.iter().any(|e| e.summary.contains_key(metric.key));
    let mut led = false;
    let mut rows = Vec::new();
    for metric in &METRICS {
        let leads = !metric.label.starts_with('…');
        led = if leads { known(metric) } else { led };
        if known(metric) {
            let label = if led {
                metric.label.into()
            } else {
                full_label(metric)
            };
            rows.push((metric, label));
        }
    }
    rows
}

/// The label of a metric where the row above, which it may lean on, can be missing.
pub(super) fn full_label(metric: &Metric) -> String {
    let Some(rest) = metric.label.strip_prefix("… ") else {
        return metric.label.into();
    };
    let at = METRICS.iter().position(|other| other.key == metric.key);
    let before = METRICS.get(..at.unwrap_or(0)).unwrap_or_default();
    let head = before.iter().rev().find(|m| !m.label.starts_with('…'));
    let head = head.map_or("", |metric| metric.label);
    // "30,000 pps of 64 B: CPU, sending gateway" and "round trip, idle, median" lead others too.
    let head = head.split_once(": ").map_or(head, |(head, _)| head);
    let head = head.strip_suffix(", median").unwrap_or(head);
    format!("{head}, {rest}")
}

fn figure(metric: &Metric, statistic: Option<&Statistic>) -> String {
    statistic.map_or("–".into(), |s| spread(s, metric.digits))
}

/// `5.05 (4.90 to 5.20)`; without the range if there is but one round.
pub(super) fn spread(statistic: &Statistic, digits: usize) -> String {
    let shown = |value: f64| rounded(value, digits);
    let median = shown(statistic.median);
    if statistic.rounds < 2 {
        return median;
    }
    format!(
        "{median} ({} to {})",
        shown(statistic.min),
        shown(statistic.max)
    )
}

/// A number with this many digits behind the point, thousands apart.
pub(super) fn rounded(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
    let whole = number(whole.parse().unwrap_or(value));
    let point = if rest.is_empty() { "" } else { "." };
    format!("{whole}{point}{rest}")
}

/// A table that is as wide as it needs to be: figures are not broken over lines.
fn plain_table(colour: bool) -> Table {
    let mut table = new_table(colour);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::entry;
    use super::*;

    #[test]
    fn numbers_keep_their_digits_and_their_thousands_apart() {
        let cases = [
            (5.0, 2, "5.00"),
            (1_234.567, 1, "1,234.6"),
            (0.996, 2, "1.00"),
            (73_800.4, 0, "73,800"),
        ];
        for (value, digits, text) in cases {
            assert_eq!(rounded(value, digits), text);
        }
    }

    #[test]
    fn a_label_stands_alone_where_it_must() {
        let full = |key: &str| {
            let metric = METRICS.iter().find(|metric| metric.key == key);
            full_label(metric.unwrap())
        };
        for (key, label) in [
            (
                "tcp_1_cpu_s_per_gb_sender",
                "TCP, 1 flow, CPU, sending gateway",
            ),
            (
                "fixed_64_cpu_us_receiver",
                "30,000 pps of 64 B, CPU, receiving gateway",
            ),
            ("rtt_loaded_p99_us", "round trip under one TCP flow, p99"),
            ("udp_64_zero_loss_pps", "64 B, less than 0.1 % lost"),
        ] {
            assert_eq!(full(key), label);
        }
    }

    #[test]
    fn a_row_without_the_one_above_has_its_full_label() {
        let mut report = Report {
            contestants: vec![entry(
                "kernel",
                false,
                "fixed_64_loss_percent",
                &[Some(0.0)],
            )],
            ..Report::default()
        };
        report.conclude();
        let rows = rows(&report.of(Kind::Tunnel));
        let labels: Vec<_> = rows.iter().map(|(_, label)| label.as_str()).collect();
        assert_eq!(labels, ["30,000 pps of 64 B, lost"]);
    }

    #[test]
    fn tables_have_figures_ratios_and_what_is_missing() {
        let key = "tcp_1_gbps";
        let mut report = Report {
            contestants: vec![
                entry("vng", true, key, &[Some(4.0), Some(5.0)]),
                entry("peer", false, key, &[Some(1.0), None]),
            ],
            missing: vec![super::super::report::Missing {
                name: "boringtun".into(),
                reason: "not installed: boringtun-cli".into(),
            }],
            ..Report::default()
        };
        report.conclude();
        let text = text(&report);
        for part in [
            "4.50 (4.00 to 5.00)",
            "TCP, 1 flow, Gbps",
            "4.00×",
            "vng is so many times better than",
            "NOT COMPARED: boringtun",
            "FAILED: peer, round 2",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
    }
}
