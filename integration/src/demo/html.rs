//! `report.html`: one page that needs nothing else, with its pictures inside it.

use super::chart::{Chart, Line, Mark, Scale, escape, number};
use super::outcome::{Latency, Outcome, Timeline};
use crate::lab::{CIRCUIT, SITE};
use std::fmt::{self, Write as _};

/// The whole page.
pub(super) fn page(outcome: &Outcome) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = Page {
        outcome,
        to: &mut page,
    }
    .write();
    page
}

struct Page<'a> {
    outcome: &'a Outcome,
    to: &'a mut String,
}

impl Page<'_> {
    fn write(&mut self) -> fmt::Result {
        writeln!(
            self.to,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">"
        )?;
        writeln!(
            self.to,
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
        )?;
        writeln!(self.to, "<title>vng: ExpressRoute failover to VPN</title>")?;
        writeln!(
            self.to,
            "<style>\n{}</style>\n</head>\n<body>",
            include_str!("style.css")
        )?;
        self.header()?;
        self.figures()?;
        if !self.outcome.series.delivered.is_empty() {
            self.timelines()?;
            self.delivered()?;
            self.paths()?;
            self.latency()?;
        }
        self.checks()?;
        self.events()?;
        self.packets()?;
        self.ledgers()?;
        self.reach()?;
        self.setup()?;
        writeln!(self.to, "</body>\n</html>")
    }

    fn header(&mut self) -> fmt::Result {
        let o = self.outcome;
        let (class, word) = if o.ok {
            ("good", "all checks hold")
        } else {
            ("bad", "a check failed")
        };
        writeln!(
            self.to,
            "<header><h1>ExpressRoute failover to VPN <span class=\"badge {class}\">{word}</span></h1>"
        )?;
        let s = &o.setup;
        writeln!(
            self.to,
            "<p class=\"soft\">{} numbered packets a second in each direction between two hosts; fault: {}. \
             Paths are probed every {} ms and are down after {} losses; ExpressRoute must be up for {} s \
             before flows return.</p></header>",
            number(f64::from(s.packets_per_second)),
            escape(if o.failover.fault.is_empty() {
                "none yet"
            } else {
                &o.failover.fault
            }),
            s.probe_interval_ms,
            s.probe_fail,
            number(s.hold_down_ms as f64 / 1e3),
        )?;
        if let Some(error) = &o.error {
            writeln!(
                self.to,
                "<div class=\"error\"><b>Ended early.</b> {}</div>",
                escape(error)
            )?;
        }
        Ok(())
    }

    fn figures(&mut self) -> fmt::Result {
        let o = self.outcome;
        let (out, back) = (&o.failover, &o.failback);
        let detected = out
            .timeline_ms
            .detected
            .max(out.onprem_timeline_ms.detected);
        let percent = |part: u64, whole: u64| {
            if whole == 0 {
                0.0
            } else {
                part as f64 / whole as f64 * 100.0
            }
        };
        let books: u64 = o
            .ledgers
            .values()
            .flat_map(|books| books.totals.received.values())
            .map(|sum| sum.packets)
            .sum();
        let (balanced, ledger) = if o.ledger_balanced {
            ("good", "balanced")
        } else {
            ("bad", "off")
        };
        let figures = [
            (
                "Outage, vnet → onprem",
                ms(out.outage_ms.vnet_to_onprem),
                "last packet before to first after".to_owned(),
            ),
            (
                "Outage, onprem → vnet",
                ms(out.outage_ms.onprem_to_vnet),
                "last packet before to first after".to_owned(),
            ),
            (
                "Detected after",
                ms(detected),
                "by the slower of the two ends".to_owned(),
            ),
            (
                "Lost in the failover",
                number(out.lost as f64),
                format!(
                    "of {} ({:.1} %), {} doubled",
                    number(out.sent as f64),
                    percent(out.lost, out.sent),
                    out.duplicated
                ),
            ),
            (
                "Lost on the way back",
                number(back.lost as f64),
                format!(
                    "of {}, {} doubled",
                    number(back.sent as f64),
                    back.duplicated
                ),
            ),
            (
                "TCP over ExpressRoute",
                format!("{:.2} <small>Gbps</small>", o.throughput.expressroute_gbps),
                format!(
                    "{:.2} CPU-s/GB in the sending gateway",
                    o.throughput.expressroute_cpu_s_per_gb
                ),
            ),
            (
                "TCP over the VPN",
                format!("{:.2} <small>Gbps</small>", o.throughput.vpn_gbps),
                format!(
                    "{:.2} CPU-s/GB in the sending gateway",
                    o.throughput.vpn_cpu_s_per_gb
                ),
            ),
            (
                "Packet ledgers",
                format!("<span class=\"{balanced}\" style=\"font-size:inherit\">{ledger}</span>"),
                format!(
                    "{} packets at {} gateways",
                    number(books as f64),
                    o.ledgers.len()
                ),
            ),
        ];
        writeln!(self.to, "<div class=\"figures\">")?;
        for (what, value, more) in figures {
            writeln!(
                self.to,
                "<div class=\"figure\"><span class=\"what\">{what}</span><b>{value}</b><span>{more}</span></div>"
            )?;
        }
        writeln!(self.to, "</div>")
    }

    fn timelines(&mut self) -> fmt::Result {
        writeln!(
            self.to,
            "<h2>From the fault to the first packet over the VPN</h2>"
        )?;
        writeln!(
            self.to,
            "<p class=\"soft\">Each end decides for the direction it sends in. Detection is nearly all of \
             it: once a path is judged down, every route moves with one store.</p>"
        )?;
        let f = &self.outcome.failover;
        let ends = [
            ("gateway, vnet → onprem", f.timeline_ms),
            ("onprem-edge, onprem → vnet", f.onprem_timeline_ms),
        ];
        let svg = bars(&ends);
        writeln!(self.to, "{svg}")
    }

    fn delivered(&mut self) -> fmt::Result {
        let s = &self.outcome.series;
        writeln!(self.to, "<h2>Packets delivered</h2>")?;
        writeln!(
            self.to,
            "<p class=\"soft\">Per second, counted where they arrive, in bins of 20 ms. Shaded: ExpressRoute \
             is cut.</p>"
        )?;
        let lines = directions(&s.delivered);
        let highest = highest(&lines);
        let svg = Chart {
            label: "Packets delivered per second over time, by direction",
            x: self.whole(),
            y: Scale::from_zero(highest),
            x_unit: "seconds from the fault on",
            y_unit: "packets/s",
            lines,
            marks: self.marks(),
            shade: Some((0.0, s.healed_s)),
        }
        .svg();
        writeln!(self.to, "{svg}")?;
        let t = self.outcome.failover.timeline_ms.first_packet;
        let t = t.max(self.outcome.failover.onprem_timeline_ms.first_packet) / 1e3;
        let (from, until) = (-0.25 * t.max(0.2), t.max(0.2) * 1.5);
        let near = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
            points
                .iter()
                .copied()
                .filter(|(x, _)| (from..until).contains(x))
                .collect()
        };
        let near: Vec<_> = ["vnet_to_onprem", "onprem_to_vnet"]
            .map(|d| {
                s.delivered
                    .get(d)
                    .map(|points| near(points))
                    .unwrap_or_default()
            })
            .into();
        let lines: Vec<_> = near
            .iter()
            .zip(DIRECTION_LINES)
            .map(|(points, (_, name, class))| Line {
                name,
                class,
                points,
            })
            .collect();
        let svg = Chart {
            label: "The same around the fault",
            x: Scale::Linear(from, until),
            y: Scale::from_zero(highest),
            x_unit: "seconds from the fault on",
            y_unit: "packets/s, around the fault",
            lines,
            marks: self.fault_marks(),
            shade: Some((0.0, until)),
        }
        .svg();
        writeln!(self.to, "{svg}")
    }

    fn paths(&mut self) -> fmt::Result {
        let s = &self.outcome.series;
        writeln!(self.to, "<h2>Packets by path</h2>")?;
        writeln!(
            self.to,
            "<p class=\"soft\">What the gateway in the virtual network sends, per second, from its own \
             counters. Flows are spread over the circuit's two links by hash.</p>"
        )?;
        let primary = format!("{CIRCUIT}/primary");
        let secondary = format!("{CIRCUIT}/secondary");
        let lines: Vec<_> = [
            (primary.as_str(), "ExpressRoute primary", "blue"),
            (secondary.as_str(), "ExpressRoute secondary", "teal dashed"),
            (SITE, "VPN", "orange"),
        ]
        .into_iter()
        .filter_map(|(port, name, class)| {
            Some(Line {
                name,
                class,
                points: s.sent_by_path.get(port)?,
            })
        })
        .collect();
        let svg = Chart {
            label: "Packets per second sent by the gateway over time, by path",
            x: self.whole(),
            y: Scale::from_zero(highest(&lines)),
            x_unit: "seconds from the fault on",
            y_unit: "packets/s",
            lines,
            marks: self.marks(),
            shade: Some((0.0, s.healed_s)),
        }
        .svg();
        writeln!(self.to, "{svg}")
    }

    fn latency(&mut self) -> fmt::Result {
        let o = self.outcome;
        writeln!(self.to, "<h2>One-way latency</h2>")?;
        writeln!(
            self.to,
            "<p class=\"soft\">Median of the packets that arrive in each 20 ms, then the whole distribution. \
             Sender, receiver, two gateways and the provider share {} processors.</p>",
            o.setup.processors
        )?;
        let lines = directions(&o.series.latency_us);
        let top = decade_above(highest(&lines));
        let svg = Chart {
            label: "Median one-way latency over time, by direction",
            x: self.whole(),
            y: Scale::Log(10.0, top),
            x_unit: "seconds from the fault on",
            y_unit: "µs, median of 20 ms",
            lines,
            marks: self.marks(),
            shade: Some((0.0, o.series.healed_s)),
        }
        .svg();
        writeln!(self.to, "{svg}")?;
        let shown = o
            .latency
            .iter()
            .filter(|latency| latency.direction == "vnet_to_onprem");
        let curve = |l: &Latency| {
            l.percentiles_us
                .iter()
                .map(|&(p, v)| (nines(p), v))
                .collect()
        };
        let curves: Vec<(String, Vec<_>)> = shown.map(|l| (phase_name(l), curve(l))).collect();
        let lines: Vec<_> = curves
            .iter()
            .zip(["blue", "orange", "teal dashed"])
            .map(|((name, points), class)| Line {
                name,
                class,
                points,
            })
            .collect();
        let top = decade_above(highest(&lines));
        let ticks = Latency::PERCENTILES.map(|p| {
            let text = if p >= 100.0 {
                "max".to_owned()
            } else {
                format!("{p} %")
            };
            (nines(p), text)
        });
        let svg = Chart {
            label: "Percentiles of one-way latency before, during and after the fault",
            x: Scale::Named(nines(50.0), nines(100.0), ticks.into()),
            y: Scale::Log(10.0, top),
            x_unit: "share of packets that were faster, vnet → onprem",
            y_unit: "µs",
            lines,
            marks: Vec::new(),
            shade: None,
        }
        .svg();
        writeln!(self.to, "{svg}")?;
        let rows: Vec<_> = o
            .latency
            .iter()
            .map(|l| {
                let mut row = vec![
                    phase_name(l),
                    l.direction.replace('_', " ").replace("to", "→"),
                ];
                row.push(number(l.packets as f64));
                row.extend([50.0, 90.0, 99.0, 99.9, 100.0].map(|p| number(l.at(p))));
                row
            })
            .collect();
        let head = [
            "",
            "direction",
            "packets",
            "50 %",
            "90 %",
            "99 %",
            "99.9 %",
            "max, µs",
        ];
        self.table(&head, 2, &rows)
    }

    fn checks(&mut self) -> fmt::Result {
        writeln!(self.to, "<h2>Checks</h2>")?;
        writeln!(self.to, "<div class=\"table\"><table>")?;
        for check in &self.outcome.checks {
            let (class, sign) = if check.passed {
                ("good", "✓")
            } else {
                ("bad", "✗")
            };
            let (name, found) = (escape(&check.name), escape(&check.found));
            writeln!(
                self.to,
                "<tr><td class=\"{class}\">{sign}</td><td>{name}</td><td class=\"soft\">{found}</td></tr>"
            )?;
        }
        writeln!(self.to, "</table></div>")
    }

    fn events(&mut self) -> fmt::Result {
        if self.outcome.events.is_empty() {
            return Ok(());
        }
        writeln!(self.to, "<h2>What the gateways noticed</h2>")?;
        let row = |e: &super::outcome::Event| {
            vec![
                e.gateway.clone(),
                e.path.clone(),
                format!("{} → {}", e.from, e.to),
                e.reason.clone().unwrap_or_default().replace('_', " "),
                format!("{:.1}", e.at_ms),
                e.switched_ms.map_or(String::new(), |ms| format!("{ms:.1}")),
            ]
        };
        let rows: Vec<_> = self.outcome.events.iter().map(row).collect();
        let head = [
            "gateway",
            "path",
            "state",
            "reason",
            "ms after the fault",
            "packets moved, ms",
        ];
        self.table(&head, 4, &rows)
    }

    fn packets(&mut self) -> fmt::Result {
        let (out, back) = (&self.outcome.failover, &self.outcome.failback);
        writeln!(self.to, "<h2>Numbered packets</h2>")?;
        let row = |name: &str, counts: [u64; 4], outage: super::outcome::ByDirection| {
            let mut row = vec![name.to_owned()];
            row.extend(counts.map(|n| number(n as f64)));
            row.extend([outage.vnet_to_onprem, outage.onprem_to_vnet].map(|ms| format!("{ms:.1}")));
            row
        };
        let rows = [
            row(
                "failover: 1 s before the fault until the repair",
                [out.sent, out.lost, out.duplicated, out.reordered],
                out.outage_ms,
            ),
            row(
                "failback: from the repair on",
                [back.sent, back.lost, back.duplicated, back.reordered],
                back.outage_ms,
            ),
        ];
        let head = [
            "",
            "sent",
            "lost",
            "doubled",
            "out of order",
            "outage vnet → onprem, ms",
            "onprem → vnet, ms",
        ];
        self.table(&head, 1, &rows)
    }

    fn ledgers(&mut self) -> fmt::Result {
        if self.outcome.ledgers.is_empty() {
            return Ok(());
        }
        writeln!(self.to, "<h2>Ledgers</h2>")?;
        writeln!(
            self.to,
            "<p class=\"soft\">Packets as the wire carries them, since each gateway started: received = sent \
             + dropped + held.</p>"
        )?;
        let mut rows = Vec::new();
        for (gateway, books) in &self.outcome.ledgers {
            let totals = &books.totals;
            let mut ports: Vec<_> = totals.received.keys().chain(totals.sent.keys()).collect();
            ports.sort();
            ports.dedup();
            for port in ports {
                let of = |sums: &std::collections::BTreeMap<
                    String,
                    gateway::telemetry::ledger::Sum,
                >| { sums.get(port).map_or(0, |sum| sum.packets) };
                let (received, sent) = (of(&totals.received), of(&totals.sent));
                rows.push(vec![
                    gateway.clone(),
                    port.clone(),
                    number(received as f64),
                    number(sent as f64),
                    String::new(),
                ]);
            }
            for (reason, sum) in &totals.dropped {
                let reason = format!("dropped: {}", reason.replace('_', " "));
                rows.push(vec![
                    gateway.clone(),
                    reason,
                    String::new(),
                    String::new(),
                    number(sum.packets as f64),
                ]);
            }
            rows.push(vec![
                gateway.clone(),
                format!("held {}, difference {}", totals.held, books.difference),
                String::new(),
                String::new(),
                String::new(),
            ]);
        }
        self.table(
            &["gateway", "port", "received", "sent", "dropped"],
            2,
            &rows,
        )
    }

    fn reach(&mut self) -> fmt::Result {
        let o = self.outcome;
        writeln!(self.to, "<h2>Ping and traceroute</h2>")?;
        let rows: Vec<_> = o
            .ping
            .iter()
            .map(|p| {
                let median = format!("{:.0}", p.median_us);
                vec![
                    p.name.clone(),
                    p.target.clone(),
                    format!("{} of {}", p.received, p.sent),
                    median,
                ]
            })
            .collect();
        self.table(
            &[
                "ping from vnet over",
                "target",
                "answered",
                "median round trip, µs",
            ],
            2,
            &rows,
        )?;
        let hop =
            |hop: &crate::traffic::icmp::Hop| hop.address.map_or("*".into(), |a| a.to_string());
        let rows: Vec<_> = o
            .trace
            .iter()
            .map(|t| {
                vec![
                    t.name.clone(),
                    t.hops.iter().map(hop).collect::<Vec<_>>().join(" → "),
                ]
            })
            .collect();
        self.table(&["traceroute from vnet over", "hops"], 2, &rows)
    }

    fn setup(&mut self) -> fmt::Result {
        let s = &self.outcome.setup;
        writeln!(
            self.to,
            "<footer>vng {}, Linux {}, {} processors for the whole lab; ExpressRoute links {}; gateway SKU {}; \
             {} flows each way, {} bytes of UDP payload. The demo took {:.0} s.</footer>",
            escape(&s.version),
            escape(&s.kernel),
            s.processors,
            escape(&s.links),
            escape(&s.sku),
            s.flows,
            s.payload,
            self.outcome.duration_s,
        )
    }

    /// A table; columns from `numbers` on are aligned right.
    fn table(&mut self, head: &[&str], numbers: usize, rows: &[Vec<String>]) -> fmt::Result {
        let class = |column: usize| {
            if column >= numbers {
                " class=\"n\""
            } else {
                ""
            }
        };
        write!(self.to, "<div class=\"table\"><table><tr>")?;
        for (column, name) in head.iter().enumerate() {
            write!(self.to, "<th{}>{}</th>", class(column), escape(name))?;
        }
        writeln!(self.to, "</tr>")?;
        for row in rows {
            write!(self.to, "<tr>")?;
            for (column, cell) in row.iter().enumerate() {
                write!(self.to, "<td{}>{}</td>", class(column), escape(cell))?;
            }
            writeln!(self.to, "</tr>")?;
        }
        writeln!(self.to, "</table></div>")
    }

    /// The whole run.
    fn whole(&self) -> Scale {
        let points = self
            .outcome
            .series
            .delivered
            .values()
            .flatten()
            .map(|(x, _)| *x);
        let (from, until) = points.fold((0.0_f64, 1.0_f64), |(low, high), x| {
            (low.min(x), high.max(x))
        });
        Scale::Linear(from, until)
    }

    fn marks(&self) -> Vec<Mark> {
        let s = &self.outcome.series;
        let first = self.outcome.failover.timeline_ms.first_packet / 1e3;
        vec![
            Mark {
                x: 0.0,
                text: "fault",
            },
            Mark {
                x: first,
                text: "over the VPN",
            },
            Mark {
                x: s.healed_s,
                text: "repaired",
            },
            Mark {
                x: s.returned_s,
                text: "back on ExpressRoute",
            },
        ]
    }

    fn fault_marks(&self) -> Vec<Mark> {
        let t = self.outcome.failover.timeline_ms;
        vec![
            Mark {
                x: 0.0,
                text: "fault",
            },
            Mark {
                x: t.detected / 1e3,
                text: "detected by the gateway",
            },
            Mark {
                x: t.first_packet / 1e3,
                text: "first packet at onprem",
            },
        ]
    }
}

/// Direction, name, colour.
const DIRECTION_LINES: [(&str, &str, &str); 2] = [
    ("vnet_to_onprem", "vnet → onprem", "blue"),
    ("onprem_to_vnet", "onprem → vnet", "violet dashed"),
];

fn directions(series: &std::collections::BTreeMap<String, Vec<(f64, f64)>>) -> Vec<Line<'_>> {
    DIRECTION_LINES
        .into_iter()
        .filter_map(|(key, name, class)| {
            Some(Line {
                name,
                class,
                points: series.get(key)?,
            })
        })
        .collect()
}

fn highest(lines: &[Line<'_>]) -> f64 {
    lines
        .iter()
        .flat_map(|line| line.points)
        .map(|(_, y)| *y)
        .fold(1.0, f64::max)
}

/// The power of ten at or above a value.
fn decade_above(value: f64) -> f64 {
    10_f64.powf(value.max(100.0).log10().ceil())
}

/// Where a percentile stands on an axis that gives each nine the same room; the maximum one behind
/// 99.99 %.
fn nines(percentile: f64) -> f64 {
    if percentile >= 100.0 {
        5.0
    } else {
        -(1.0 - percentile / 100.0).log10()
    }
}

fn phase_name(latency: &Latency) -> String {
    let path = if latency.path == "vpn" {
        "VPN"
    } else {
        "ExpressRoute"
    };
    format!("{}, {path}", latency.phase)
}

fn ms(value: f64) -> String {
    format!("{} <small>ms</small>", number(value.round()))
}

/// Fault, detection, switch and first packet of both ends as bars under one scale.
fn bars(ends: &[(&str, Timeline); 2]) -> String {
    let longest = ends
        .iter()
        .map(|(_, t)| t.first_packet.max(t.switched))
        .fold(1.0, f64::max);
    let (left, width) = (190.0, 690.0);
    let at = |ms: f64| left + ms / longest * width;
    let mut svg = String::from(
        r#"<svg class="chart" viewBox="0 0 960 120" role="img" aria-label="Timeline of the failover">"#,
    );
    for ((name, t), y) in ends.iter().zip([14.0, 70.0]) {
        let name = escape(name);
        let _ = write!(
            svg,
            r#"<text class="legend" x="0" y="{}">{name}</text>"#,
            y + 15.0
        );
        for (class, from, until) in [
            ("wait", 0.0, t.detected),
            ("switch", t.detected, t.switched),
            ("first", t.switched, t.first_packet),
        ] {
            let (x, w) = (at(from), (at(until) - at(from)).max(1.5));
            let _ = write!(
                svg,
                r#"<rect class="bar {class}" x="{x:.1}" y="{y}" width="{w:.1}" height="22" rx="1.5"/>"#
            );
        }
        let _ = write!(
            svg,
            r#"<text x="{left}" y="{:.1}">detected {:.1} ms · packets switched {:.2} ms later · first one arrives after {:.1} ms</text>"#,
            y + 38.0,
            t.detected,
            (t.switched - t.detected).max(0.0),
            t.first_packet,
        );
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_that_failed_early_still_has_a_page() {
        let outcome = Outcome {
            error: Some("no <b>kernel</b>".into()),
            ..Outcome::default()
        };
        let page = page(&outcome);
        assert!(page.contains("no &lt;b&gt;kernel&lt;/b&gt;"));
        assert!(page.trim_end().ends_with("</html>"));
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = page(&Outcome::default());
        for link in ["http:", "https:", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(link), "{link}");
        }
    }
}
