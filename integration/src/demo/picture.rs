//! The pictures of the report, each with the words above it.

use super::html::Page;
use super::outcome::{Latency, Timeline};
use crate::lab::{CIRCUIT, SITE};
use crate::report::chart::{Chart, Line, Mark, Scale, escape, number};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

impl Page<'_> {
    /// How long each end took, as bars.
    pub(super) fn timelines(&mut self) -> fmt::Result {
        writeln!(
            self.to,
            "<h2>From the fault to the first packet over the VPN</h2>"
        )?;
        writeln!(
            self.to,
            "<p class=\"soft\">Each end decides for the direction it sends in. Once a path is judged down, \
             every route moves with one store.</p>"
        )?;
        let f = &self.outcome.failover;
        let ends = [
            ("gateway, vnet → onprem", f.timeline_ms),
            ("onprem-edge, onprem → vnet", f.onprem_timeline_ms),
        ];
        let longest = ends
            .iter()
            .map(|(_, t)| t.first_packet.max(t.switched))
            .fold(1.0, f64::max);
        for (name, timeline) in ends {
            self.timeline(name, timeline, longest)?;
        }
        Ok(())
    }

    /// One end's time as a bar, and as a second one what is too short to be seen in the first.
    fn timeline(&mut self, name: &str, t: Timeline, longest: f64) -> fmt::Result {
        let parts = [
            ("wait", t.detected),
            ("switch", (t.switched - t.detected).max(0.0)),
            ("first", (t.first_packet - t.switched).max(0.0)),
        ];
        let bar = |to: &mut String, parts: &[(&str, f64)], whole: f64| {
            write!(to, "<div class=\"track\">")?;
            for (class, ms) in parts {
                let percent = ms / whole.max(f64::MIN_POSITIVE) * 100.0;
                write!(
                    to,
                    "<i class=\"part {class}\" style=\"width:{percent:.3}%\"></i>"
                )?;
            }
            writeln!(to, "</div>")
        };
        let name = escape(name);
        writeln!(
            self.to,
            "<div class=\"timeline\"><b>{name}</b>: {:.1} ms",
            parts.iter().map(|(_, ms)| ms).sum::<f64>()
        )?;
        bar(self.to, &parts, longest)?;
        let [(_, detected), (_, switched), (_, first)] = parts;
        if switched + first > 0.0 && switched + first < detected / 4.0 {
            let rest = switched + first;
            writeln!(
                self.to,
                "<div class=\"lens\">the last {rest:.2} ms of it, magnified {} times:</div>",
                number((longest / rest).round())
            )?;
            let [_, short @ ..] = parts;
            bar(self.to, &short, rest)?;
        }
        writeln!(
            self.to,
            "<ul class=\"parts\"><li><i class=\"part wait\"></i>{detected:.1} ms until the fault was \
             detected</li><li><i class=\"part switch\"></i>{switched:.2} ms until packets took the \
             tunnel</li><li><i class=\"part first\"></i>{first:.2} ms until the first one \
             arrived</li></ul></div>"
        )
    }

    /// What arrived, over time, and closer around the fault.
    pub(super) fn delivered(&mut self) -> fmt::Result {
        let s = &self.outcome.series;
        writeln!(self.to, "<h2>Packets delivered</h2>")?;
        writeln!(
            self.to,
            "<p class=\"soft\">Per second, counted where they arrive, in bins of 50 ms, then of 10 ms around the fault. \
             Shaded: ExpressRoute is cut.</p>"
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
        let lines = directions(&s.delivered_near_fault);
        let ends = lines.iter().flat_map(|line| line.points).map(|(x, _)| *x);
        let (from, until) = ends.fold((-0.05, 0.2), |(low, high), x| (x.min(low), x.max(high)));
        let highest = self::highest(&lines);
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

    /// What went which way, over time.
    pub(super) fn paths(&mut self) -> fmt::Result {
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
                joined: BRIDGED,
                columns: None,
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

    /// How long packets took, over time and as percentiles.
    pub(super) fn latency(&mut self) -> fmt::Result {
        let o = self.outcome;
        writeln!(self.to, "<h2>One-way latency</h2>")?;
        writeln!(
            self.to,
            "<p class=\"soft\">Median of the packets that arrive in each 50 ms, then the whole distribution. \
             Sender, receiver, two gateways and the provider share {} processors.</p>",
            o.setup.processors
        )?;
        if let Some(why) = &o.why_vpn_is_quicker {
            writeln!(self.to, "<p>{}</p>", escape(why))?;
        }
        let lines = directions(&o.series.latency_us);
        let (bottom, top) = decades(&lines);
        let svg = Chart {
            label: "Median one-way latency over time, by direction",
            x: self.whole(),
            y: Scale::Log(bottom, top),
            x_unit: "seconds from the fault on",
            y_unit: "µs, median of 50 ms",
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
                joined: f64::INFINITY,
                columns: None,
            })
            .collect();
        let (bottom, top) = decades(&lines);
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
            y: Scale::Log(bottom, top),
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

/// Seconds that a line may go without a point: samples may be late, an outage is longer.
const BRIDGED: f64 = 0.25;

/// Direction, name, colour.
const DIRECTION_LINES: [(&str, &str, &str); 2] = [
    ("vnet_to_onprem", "vnet → onprem", "blue"),
    ("onprem_to_vnet", "onprem → vnet", "violet dashed"),
];

fn directions(series: &BTreeMap<String, Vec<(f64, f64)>>) -> Vec<Line<'_>> {
    DIRECTION_LINES
        .into_iter()
        .filter_map(|(key, name, class)| {
            Some(Line {
                name,
                class,
                points: series.get(key)?,
                joined: BRIDGED,
                columns: None,
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

/// The powers of ten around all values.
fn decades(lines: &[Line<'_>]) -> (f64, f64) {
    let values = || {
        lines
            .iter()
            .flat_map(|line| line.points)
            .map(|(_, y)| y.max(1.0))
    };
    let (low, high) = (
        values().fold(f64::MAX, f64::min),
        values().fold(10.0, f64::max),
    );
    let low = low.min(high);
    let bottom = 10_f64.powf(low.log10().floor());
    (bottom, 10_f64.powf(high.log10().ceil()).max(bottom * 10.0))
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
