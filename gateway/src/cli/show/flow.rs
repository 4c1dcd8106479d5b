//! Tables of the flow table and of the ledger.

use crate::cli::output::{Style, host, limit, span, table, thousands};
use crate::show::view::{Counters, FlowCount, Flows};
use crate::telemetry::ledger::Sum;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

pub(super) fn flows(style: Style, flows: &Flows) -> String {
    if flows.gateways.is_empty() {
        return "no limit of flows, so none is counted\n".to_owned();
    }
    let header = [
        "gateway",
        "flows",
        "of",
        "new/s",
        "of",
        "+let in",
        "refused packets",
    ];
    let count = |gateway: &FlowCount| {
        [
            gateway.kind.clone(),
            thousands(gateway.active),
            limit(gateway.limit),
            thousands(gateway.new_per_second as u64),
            limit(gateway.limit_new_per_second),
            thousands(gateway.opened),
            thousands(gateway.refused),
        ]
    };
    let mut text = table(style, &header, flows.gateways.iter().map(count));
    if flows.flows.is_empty() {
        return text;
    }
    text.push('\n');
    let header = [
        "protocol",
        "source",
        "destination",
        "+from",
        "to",
        "age",
        "+idle",
    ];
    let row = |flow: &crate::show::view::FlowView| {
        [
            flow.protocol.clone(),
            host(flow.source, flow.source_port),
            host(flow.destination, flow.destination_port),
            flow.from.clone(),
            flow.path.clone(),
            flow.age_seconds.map_or_else(|| "-".to_owned(), span),
            flow.idle_seconds.map_or_else(|| "-".to_owned(), span),
        ]
    };
    text += &table(style, &header, flows.flows.iter().map(row));
    text
}

pub(super) fn counters(style: Style, counters: &Counters) -> String {
    let totals = &counters.totals;
    let ports: BTreeSet<&String> = totals.received.keys().chain(totals.sent.keys()).collect();
    let of = |sums: &BTreeMap<String, Sum>, port| sums.get(port).copied().unwrap_or_default();
    let rows = ports.into_iter().map(|port| {
        let (received, sent) = (of(&totals.received, port), of(&totals.sent, port));
        [
            port.clone(),
            thousands(received.packets),
            thousands(received.bytes),
            thousands(sent.packets),
            thousands(sent.bytes),
        ]
    });
    let header = ["port", "received", "bytes", "sent", "bytes"];
    let mut text = table(style, &header, rows);
    text.push('\n');
    if totals.dropped.is_empty() {
        text += "nothing dropped\n";
    } else {
        let row = |(reason, sum): (&String, &Sum)| {
            [reason.clone(), thousands(sum.packets), thousands(sum.bytes)]
        };
        text += &table(
            style,
            &["dropped", "packets", "bytes"],
            totals.dropped.iter().map(row),
        );
    }
    if !counters.kernel_drops.is_empty() {
        text += "\ndropped by the kernel before the gateway saw them, so in no count above\n";
        let row = |(port, drops): (&String, &u64)| [port.clone(), thousands(*drops)];
        text += &table(
            style,
            &["at", "packets"],
            counters.kernel_drops.iter().map(row),
        );
    }
    for (port, refused) in &totals.offload_refused {
        let _ = writeln!(
            text,
            "the kernel refused {} super-packets or trains at {port}:\n  they were sent packet by packet",
            thousands(*refused)
        );
    }
    let _ = writeln!(
        text,
        "\nheld {}; the ledger {}",
        thousands(totals.held),
        if counters.balanced {
            style.green("balances")
        } else {
            style.red(&format!("is off by {} packets", totals.imbalance()))
        }
    );
    text
}
