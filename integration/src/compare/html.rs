//! `report.html` of a comparison, with a picture of the figures that matter most.

use super::contestant::Kind;
use super::metric::{Better, METRICS, Metric};
use super::report::{Entry, Report};
use super::terminal::{KINDS, full_label, remarks, rounded, rows, spread, times};
use crate::report::chart::escape;
use crate::report::page;
use std::fmt::{self, Write as _};

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    page::page("vng beside its peers", |to| write(to, report))
}

fn write(to: &mut String, report: &Report) -> fmt::Result {
    writeln!(to, "<header><h1>vng beside its peers</h1>")?;
    writeln!(
        to,
        "<p class=\"soft\">Two hosts on one machine, joined by each contestant in turn, round after round. \
         Gateways, traffic and both hosts' kernels share {} processors. Bars are medians, lines the range \
         over the rounds.</p></header>",
        report.setup.processors
    )?;
    page::early_end(to, report.error.as_deref())?;
    for (kind, title) in KINDS {
        let entries = report.of(kind);
        if entries.iter().all(|entry| entry.summary.is_empty()) {
            continue;
        }
        writeln!(to, "<h2>{title}</h2>")?;
        pictures(to, &entries)?;
        figures(to, &entries)?;
        ratios(to, report, kind)?;
    }
    contestants(to, report)?;
    writeln!(to, "<footer>")?;
    for line in remarks(report) {
        writeln!(to, "<div>{}</div>", escape(&line))?;
    }
    let command: Vec<_> = report.setup.command.iter().map(|w| escape(w)).collect();
    writeln!(
        to,
        "<div>vng {} ({} build), <code>vng-lab {}</code>, {:.0} s</div></footer>",
        escape(&report.setup.version),
        report.setup.build,
        command.join(" "),
        report.duration_s
    )
}

fn figures(to: &mut String, entries: &[&Entry]) -> fmt::Result {
    let head: Vec<_> = ["", ""]
        .into_iter()
        .chain(entries.iter().map(|entry| entry.name.as_str()))
        .collect();
    let row = |(metric, label): (&Metric, String)| {
        let cells = entries.iter().map(|entry| {
            let statistic = entry.summary.get(metric.key);
            statistic.map_or("–".into(), |s| spread(s, metric.digits))
        });
        let names = [label, metric.unit.to_owned()];
        names.into_iter().chain(cells).collect()
    };
    let rows: Vec<_> = rows(entries).into_iter().map(row).collect();
    page::table(to, &head, 2, &rows)
}

/// A table for each of ours, with a column for each peer.
fn ratios(to: &mut String, report: &Report, kind: Kind) -> fmt::Result {
    let entries = report.of(kind);
    let peers: Vec<_> = entries.iter().filter(|entry| !entry.ours).collect();
    for ours in entries.iter().filter(|entry| entry.ours) {
        let row = |metric: &Metric| -> Option<Vec<String>> {
            let cells: Vec<_> = peers
                .iter()
                .map(|peer| report.held(&ours.name, &peer.name, metric.key))
                .collect();
            cells.iter().any(Option::is_some).then(|| {
                let cells = cells.iter().map(|cell| times(cell.as_ref()));
                let names = [full_label(metric), metric.unit.to_owned()];
                names.into_iter().chain(cells).collect()
            })
        };
        let rows: Vec<_> = METRICS.iter().filter_map(row).collect();
        if rows.is_empty() {
            continue;
        }
        writeln!(
            to,
            "<p>{}: so many times better, median of the ratios of the same rounds (above 1: it is better \
             than the peer):</p>",
            escape(&ours.name)
        )?;
        let names = peers.iter().map(|peer| peer.name.as_str());
        let head: Vec<_> = ["", "of"].into_iter().chain(names).collect();
        page::table(to, &head, 2, &rows)?;
    }
    Ok(())
}

fn contestants(to: &mut String, report: &Report) -> fmt::Result {
    writeln!(to, "<h2>Contestants</h2>")?;
    let row = |entry: &Entry| {
        vec![
            entry.name.clone(),
            entry.description.clone(),
            entry
                .version
                .clone()
                .unwrap_or_else(|| "not known: its command is not asked".into()),
        ]
    };
    let rows: Vec<_> = report.contestants.iter().map(row).collect();
    page::table(to, &["name", "what", "version"], 3, &rows)
}

/// How pictures stand on a page.
#[derive(Clone, Copy)]
struct Sheet {
    class: &'static str,
    width: f64,
    /// So many side by side, this wide each.
    columns: usize,
    each: f64,
}

const SHEETS: [Sheet; 2] = [
    Sheet {
        class: "wide",
        width: 960.0,
        columns: 2,
        each: 460.0,
    },
    Sheet {
        class: "narrow",
        width: 350.0,
        columns: 1,
        each: 350.0,
    },
];
const NAME: f64 = 136.0;
const VALUE: f64 = 78.0;
const BAR: f64 = 16.0;
const STEP: f64 = 22.0;
const HEAD: f64 = 42.0;

/// A small picture for each figure that is drawn: a bar for each contestant.
fn pictures(to: &mut String, entries: &[&Entry]) -> fmt::Result {
    let known = |m: &&Metric| m.drawn && entries.iter().any(|e| e.summary.contains_key(m.key));
    let drawn: Vec<_> = METRICS.iter().filter(known).collect();
    let height = HEAD + STEP * entries.len() as f64 + 14.0;
    for sheet in SHEETS {
        let Sheet {
            class,
            width,
            columns,
            each,
        } = sheet;
        let rows = drawn.len().div_ceil(columns) as f64;
        writeln!(
            to,
            r#"<svg class="chart {class}" viewBox="0 0 {width} {:.0}" role="img" aria-label="Figures of each contestant as bars">"#,
            height * rows
        )?;
        for (index, metric) in drawn.iter().enumerate() {
            let x = (width - each) * (index % columns) as f64;
            let y = height * (index / columns) as f64;
            bars(to, metric, entries, (x, y, each))?;
        }
        writeln!(to, "</svg>")?;
    }
    Ok(())
}

fn bars(
    to: &mut String,
    metric: &Metric,
    entries: &[&Entry],
    (x, y, width): (f64, f64, f64),
) -> fmt::Result {
    let direction = match metric.better {
        Some(Better::Less) => ", less is better",
        _ => "",
    };
    let (title, unit) = (escape(&full_label(metric)), escape(metric.unit));
    writeln!(
        to,
        r#"<text class="legend" x="{x}" y="{:.1}">{title}</text>"#,
        y + 18.0
    )?;
    writeln!(
        to,
        r#"<text x="{x}" y="{:.1}">{unit}{direction}</text>"#,
        y + 33.0
    )?;
    let statistics = || entries.iter().filter_map(|e| e.summary.get(metric.key));
    let highest = statistics()
        .map(|s| s.max)
        .fold(f64::MIN_POSITIVE, f64::max);
    let (left, room) = (x + NAME, width - NAME - VALUE);
    let at = |value: f64| left + (value / highest).clamp(0.0, 1.0) * room;
    for (index, entry) in entries.iter().enumerate() {
        let top = y + HEAD + STEP * index as f64;
        let (base, middle) = (top + 12.5, top + BAR / 2.0);
        let name = escape(&entry.name);
        writeln!(to, r#"<text x="{x}" y="{base:.1}">{name}</text>"#)?;
        let Some(statistic) = entry.summary.get(metric.key) else {
            writeln!(to, r#"<text x="{left}" y="{base:.1}">–</text>"#)?;
            continue;
        };
        let class = if entry.ours { "first" } else { "peer" };
        let width = (at(statistic.median) - left).max(1.0);
        writeln!(
            to,
            r#"<rect class="bar {class}" x="{left}" y="{top:.1}" width="{width:.1}" height="{BAR}" rx="1.5"/>"#
        )?;
        let (low, high) = (at(statistic.min), at(statistic.max));
        writeln!(
            to,
            r#"<line class="axis" x1="{low:.1}" y1="{middle:.1}" x2="{high:.1}" y2="{middle:.1}"/>"#
        )?;
        let (value, end) = (rounded(statistic.median, metric.digits), high + 6.0);
        writeln!(
            to,
            r#"<text class="value" x="{end:.1}" y="{base:.1}">{value}</text>"#
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::entry;
    use super::*;

    #[test]
    fn a_page_has_its_bars_its_tables_and_nothing_from_elsewhere() {
        let key = "tcp_1_gbps";
        let mut report = Report {
            contestants: vec![
                entry("vng", true, key, &[Some(4.0), Some(5.0)]),
                entry("peer", false, key, &[Some(1.0), Some(1.0)]),
                entry("<none>", false, key, &[None]),
            ],
            error: Some("a < b".into()),
            ..Report::default()
        };
        report.conclude();
        let page = page(&report);
        // Two contestants with figures, on the wide and on the narrow sheet.
        assert_eq!(page.matches("<rect class=\"bar").count(), 4, "{page}");
        for part in ["4.50 (4.00 to 5.00)", "&lt;none&gt;", "a &lt; b", "</html>"] {
            assert!(page.contains(part), "{part}");
        }
        for link in ["http:", "https:", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(link), "{link}");
        }
    }

    #[test]
    fn a_comparison_that_failed_early_still_has_a_page() {
        let page = page(&Report::default());
        assert!(page.trim_end().ends_with("</html>"));
    }
}
