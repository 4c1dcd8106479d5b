//! What flows cost beyond the flow cache: one that is looked up once an epoch, one that is new, one that there
//! is no room for; in a table with as many flows as a gateway of UltraPerformance may have.

// A benchmark that cannot be set up has nothing to report.
#![allow(missing_docs, clippy::expect_used)]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use gateway::config::{self, KeyFiles};
use gateway::pipeline::flow::{FlowLimits, FlowTable, GatewayFlows};
use gateway::plan::Plan;
use routing::decide::Verdict;
use routing::health::Usability;
use routing::packet::{FlowKey, Fragment, Headers, Version, protocol};
use routing::path::{Ingress, PathId};
use routing::snapshot::Snapshot;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Of UltraPerformance.
const FLOWS: u64 = 1_000_000;
/// Flows of one sample.
const BATCH: u32 = 10_000;

fn snapshot() -> Arc<Snapshot> {
    let text = include_str!("../../docs/examples/coexist.toml").to_owned();
    let loaded = config::parse(Path::new("f"), text, Path::new(""), KeyFiles::Skipped);
    let config = loaded.expect("the example is valid").config;
    let plan = Plan::new(&config, NonZeroU32::MIN, |_| Usability::Full);
    plan.expect("it fits").snapshot
}

fn headers(number: u32) -> Headers {
    Headers {
        key: FlowKey {
            source: u128::from(0x0A01_0000 + (number >> 14)),
            destination: 0x0A02_0001,
            source_port: number as u16 & 0x3FFF,
            destination_port: 443,
            protocol: protocol::UDP,
            version: Version::V4,
        },
        transport: 20,
        payload: 28,
        total_len: 100,
        traffic_class: 0,
        hop_limit: 64,
        fragment: Fragment::Whole,
        dont_fragment: true,
        tcp_flags: 0,
    }
}

fn table() -> FlowTable {
    let expressroute = GatewayFlows {
        flows: Some(FLOWS),
        flows_per_second: None,
    };
    let limits = FlowLimits::new(expressroute, GatewayFlows::default(), Instant::now(), None);
    let limits = limits.expect("there is a limit");
    FlowTable::new(Instant::now(), limits, 7, false)
}

fn flows(criterion: &mut Criterion) {
    let snapshot = snapshot();
    let admit = |table: &mut FlowTable, number: u32| {
        let verdict = Verdict::Path(PathId(0));
        table.admit(
            &snapshot,
            Ingress::Vnet,
            black_box(&headers(number)),
            verdict,
        )
    };
    let mut full = table();
    for number in 0..FLOWS as u32 {
        admit(&mut full, number).expect("there is room");
    }
    let mut group = criterion.benchmark_group("flows/1,000,000");
    let mut next = 0_u32;
    group.bench_function("known", |bencher| {
        bencher.iter(|| {
            next = (next.wrapping_add(0x9E37_79B9)) % FLOWS as u32;
            admit(&mut full, next).is_ok()
        });
    });
    group.bench_function("refused", |bencher| {
        bencher.iter(|| {
            next = next.wrapping_add(1) % FLOWS as u32;
            admit(&mut full, FLOWS as u32 + next).is_err()
        });
    });
    group.finish();
    let mut group = criterion.benchmark_group("flows/new");
    group.throughput(criterion::Throughput::Elements(u64::from(BATCH)));
    group.sample_size(20);
    group.bench_function("into an empty table", |bencher| {
        bencher.iter_batched_ref(
            table,
            |table| {
                (0..BATCH)
                    .filter(|&number| admit(table, number).is_ok())
                    .count()
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, flows);
criterion_main!(benches);
