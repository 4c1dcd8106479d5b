//! `report.html`: one page that needs nothing else, with its pictures inside it.

use super::outcome::Outcome;
use crate::report::chart::{escape, number};
use crate::report::page;
use std::fmt::{self, Write as _};

/// The whole page.
pub(super) fn page(outcome: &Outcome) -> String {
    page::page("vng: ExpressRoute failover to VPN", |to| {
        Page { outcome, to }.write()
    })
}

/// The page under construction; its pictures are in `picture`.
pub(super) struct Page<'a> {
    pub(super) outcome: &'a Outcome,
    pub(super) to: &'a mut String,
}

impl Page<'_> {
    fn write(&mut self) -> fmt::Result {
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
        self.setup()
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
        page::early_end(self.to, o.error.as_deref())
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
                format!("<span class=\"{balanced}\">{ledger}</span>"),
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
                format!(
                    "held {}, difference {}, dropped by the kernel at full sockets {}",
                    totals.held,
                    books.difference,
                    books.kernel_drops.values().sum::<u64>()
                ),
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
    pub(super) fn table(
        &mut self,
        head: &[&str],
        numbers: usize,
        rows: &[Vec<String>],
    ) -> fmt::Result {
        page::table(self.to, head, numbers, rows)
    }
}

fn ms(value: f64) -> String {
    format!("{} <small>ms</small>", number(value.round()))
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
