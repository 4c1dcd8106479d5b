//! `vng replay`: a capture through the pipeline of a configuration, offline: what becomes of each packet, a
//! hash of all decisions, and which limit of a SKU its traffic would meet first.

mod capture;
mod decisions;
mod meter;

use super::Failure;
use super::explain::offline_plan;
use super::output::{Style, bandwidth, heading, or_dash, print, print_json, table, thousands};
use crate::config::{self, KeyFiles};
use crate::plan::forwarding;
use crate::show::describe;
use crate::telemetry::ledger::Sum;
use capture::Capture;
use clap::Args;
use decisions::{Decisions, Fate};
use meter::{Limit, Measure, Meter, WhatIf};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(super) struct Replay {
    /// The capture: pcap or pcapng, of link type RAW, IPV4, IPV6, ETHERNET, LINUX_SLL, LINUX_SLL2, NULL or
    /// LOOP; - for standard input
    #[arg(value_name = "CAPTURE")]
    capture: PathBuf,
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = crate::config::DEFAULT_FILE)]
    config: PathBuf,
    /// Where all packets come in: vnet, a circuit, a link (circuit/link) or a site; without it each packet's
    /// source says
    #[arg(long, value_name = "NAME")]
    from: Option<String>,
    /// Take this circuit, link or site for down (may be repeated)
    #[arg(long, value_name = "PATH")]
    down: Vec<String>,
    /// Name the limit of these SKUs that the traffic meets first (VpnGw2:2 for generation 2,
    /// 2016:Standard for the edition of 2016)
    #[arg(long, value_name = "SKU", value_delimiter = ',')]
    sku: Vec<String>,
    /// Stop after this many packets
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print the decision about each packet: the lines that the hash is of
    #[arg(short, long, conflicts_with = "json")]
    verbose: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Everything that a replay finds.
#[derive(Debug, Serialize)]
struct Report {
    capture: PathBuf,
    /// Packets and bytes; a super-packet counts its segments.
    packets: u64,
    bytes: u64,
    /// From the first packet to the last.
    seconds: f64,
    /// Packets of which the capture has only the beginning.
    cut: u64,
    /// Super-packets that an offload merged before the capture.
    super_packets: u64,
    /// Frames of links that are not read, by link type (LINKTYPE_ value).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unread_link_types: BTreeMap<u16, u64>,
    decisions: Vec<Row>,
    hash: Hash,
    /// Why the capture could not be read to its end.
    damaged: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    what_if: Vec<WhatIf>,
}

#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    fate: Fate,
    #[serde(flatten)]
    sum: Sum,
}

#[derive(Debug, Serialize)]
struct Hash {
    algorithm: &'static str,
    value: String,
}

/// Replays the capture.
pub(super) fn run(arguments: &Replay) -> Result<(), Failure> {
    let config = config::load(&arguments.config, KeyFiles::Skipped)?.config;
    let plan = offline_plan(&config, &arguments.down)?;
    let from = arguments.from.as_ref().map(|from| {
        describe::ingress(&plan, from).map_err(|refusal| Failure::Usage(refusal.message))
    });
    let name = arguments.capture.display();
    let source: Box<dyn Read> = if arguments.capture == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(&arguments.capture)
            .map_err(|error| Failure::Usage(format!("{name}: {error}")))?;
        Box::new(file)
    };
    let mut capture = Capture::new(BufReader::new(source))
        .map_err(|error| Failure::Usage(format!("{name}: {error}")))?;
    let forwarding = forwarding::offline(&config, &plan);
    let mut decisions = Decisions::new(&config, &plan, forwarding, from.transpose()?);
    let mut meter = Meter::default();
    // A name that nobody has is said before the work, not after it.
    for sku in &arguments.sku {
        meter::what_if(sku, &config, &plan, &meter).map_err(Failure::Usage)?;
    }
    let (mut lines, mut damaged) = (String::new(), None);
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    while left > 0 {
        left -= 1;
        let record = match capture.next() {
            Ok(Some(record)) => record,
            Ok(None) => break,
            Err(error) => {
                damaged = Some(error.to_string());
                break;
            }
        };
        meter.tick(record.at);
        let line = decisions.decide(record, |measured| meter.add(&plan, measured));
        if arguments.verbose {
            lines += &line;
            if lines.len() > 1 << 16 {
                print(&lines)?;
                lines.clear();
            }
        }
    }
    if arguments.verbose {
        print(&lines)?;
    } else {
        let mut what_if = Vec::new();
        for sku in &arguments.sku {
            what_if.extend(meter::what_if(sku, &config, &plan, &meter).map_err(Failure::Usage)?);
        }
        let report = report(arguments, &decisions, &meter, damaged.clone(), what_if);
        if arguments.json {
            print_json(&report)?;
        } else {
            print(&text(Style::of_stdout(), &report))?;
        }
    }
    match damaged {
        None => Ok(()),
        Some(why) => {
            let read: u64 = decisions.fates.values().map(|sum| sum.packets).sum();
            Err(Failure::Work(format!(
                "{name}: {why}; what stands above is of the {} packets before that",
                thousands(read)
            )))
        }
    }
}

fn report(
    arguments: &Replay,
    decisions: &Decisions<'_>,
    meter: &Meter,
    damaged: Option<String>,
    what_if: Vec<WhatIf>,
) -> Report {
    let mut total = Sum::default();
    for sum in decisions.fates.values() {
        total += *sum;
    }
    let row = |(fate, sum): (&Fate, &Sum)| Row {
        fate: fate.clone(),
        sum: *sum,
    };
    Report {
        capture: arguments.capture.clone(),
        packets: total.packets,
        bytes: total.bytes,
        seconds: meter.span().as_secs_f64(),
        cut: decisions.cut,
        super_packets: decisions.merged,
        unread_link_types: decisions.unread.clone(),
        decisions: decisions.fates.iter().map(row).collect(),
        hash: Hash {
            algorithm: "SHA-256",
            value: decisions.hash(),
        },
        damaged,
        what_if,
    }
}

fn text(style: Style, report: &Report) -> String {
    let mut text = format!(
        "{}: {} packets, {} bytes, {:.3} s\n",
        report.capture.display(),
        thousands(report.packets),
        thousands(report.bytes),
        report.seconds
    );
    for (count, what) in [
        (report.cut, "captured in part; the headers decide"),
        (
            report.super_packets,
            "merged by an offload; counted as their segments",
        ),
    ] {
        if count > 0 {
            let _ = writeln!(text, "  {} {what}", thousands(count));
        }
    }
    for (link, count) in &report.unread_link_types {
        let _ = writeln!(
            text,
            "  {} of link type {link}, which is not read",
            thousands(*count)
        );
    }
    text.push('\n');
    let header = [
        "verdict", "path", "policy", "DSCP", "reason", "packets", "bytes",
    ];
    let row = |row: &Row| {
        [
            row.fate.verdict.to_owned(),
            or_dash(row.fate.path.as_ref()),
            or_dash(row.fate.policy.as_ref()),
            or_dash(row.fate.set_dscp.as_ref()),
            row.fate.reason.to_owned(),
            thousands(row.sum.packets),
            thousands(row.sum.bytes),
        ]
    };
    text += &table(style, &header, report.decisions.iter().map(row));
    let _ = writeln!(
        text,
        "\n{} of the decisions: {}",
        report.hash.algorithm, report.hash.value
    );
    for what_if in &report.what_if {
        text.push('\n');
        text += &heading(style, &format!("{} ({})", what_if.sku, what_if.gateway));
        text += &said(what_if);
        let header = [
            "limit",
            "of",
            "allowed",
            "peak",
            "used",
            "at second",
            "seconds over",
            "beyond",
        ];
        let row = |limit: &Limit| {
            [
                limit.measure.name().to_owned(),
                limit.of.clone(),
                amount(limit.measure, limit.allowed),
                amount(limit.measure, limit.peak),
                percent(limit.ratio),
                limit.at_second.to_string(),
                limit.seconds_over.to_string(),
                thousands(limit.beyond),
            ]
        };
        if !what_if.limits.is_empty() {
            text += &table(style, &header, what_if.limits.iter().map(row));
        }
    }
    text
}

/// Which limit binds first and by how much, in a sentence.
fn said(what_if: &WhatIf) -> String {
    let Some(first) = what_if.limits.first() else {
        return "nothing is limited\n".to_owned();
    };
    let of = match first.of.as_str() {
        "gateway" => String::new(),
        tunnel => format!(" of {tunnel}"),
    };
    let peak = format!(
        "{}{of}: {} of {} ({})",
        first.measure.name(),
        amount(first.measure, first.peak),
        amount(first.measure, first.allowed),
        percent(first.ratio)
    );
    if first.peak == 0 {
        format!(
            "no packet of the capture goes over the {} gateway\n",
            what_if.gateway
        )
    } else if what_if.exceeded {
        format!(
            "binds first: {peak} in second {}, over it in {} s\n",
            first.at_second, first.seconds_over
        )
    } else {
        format!(
            "no limit binds; nearest is {peak}: room for {:.1} times the traffic\n",
            1.0 / first.ratio
        )
    }
}

fn amount(measure: Measure, amount: u64) -> String {
    match measure {
        Measure::Bits => bandwidth(amount as f64),
        Measure::Packets | Measure::Flows | Measure::NewFlows => thousands(amount),
    }
}

fn percent(ratio: f64) -> String {
    match ratio * 100.0 {
        percent if percent > 0.0 && percent < 0.1 => "<0.1 %".to_owned(),
        percent => format!("{percent:.1} %"),
    }
}
