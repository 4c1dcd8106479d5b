//! What splitting, coalescing and their checksums cost, in CPU time. A segment is 1,368 bytes of TCP
//! payload, what a tunnel MTU of 1420 leaves; 45 of them are one train.

// A benchmark that cannot be set up has nothing to report.
#![allow(missing_docs, clippy::expect_used)]

use benches::cpu_time::CpuTime;
use benches::packet::tcp_super_packet;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crypto::wireguard::Train;
use gateway::device::offload::Offload;
use gateway::pipeline::checksum::{Sum, copy_and_sum, verify};
use gateway::pipeline::coalesce::{Coalescer, SuperPacket};
use gateway::pipeline::forward::{clamp_mss, decrement_hop_limit};
use gateway::pipeline::split::{Segments, split_into};
use routing::packet::Headers;
use std::hint::black_box;
use std::time::Duration;

const SIZE: u16 = 1368;
const MTU: usize = 1420;
const SEGMENTS: u16 = 45;

fn checksums(criterion: &mut Criterion<CpuTime>) {
    for size in [64, 512, SIZE] {
        let from: Vec<u8> = (0..size).map(|index| (index * 7) as u8).collect();
        let mut to = vec![0; from.len()];
        let mut group = criterion.benchmark_group(format!("checksum/{size}"));
        group.throughput(Throughput::Bytes(u64::from(size)));
        group.bench_function("copy", |bencher| {
            bencher.iter(|| black_box(&mut to[..]).copy_from_slice(black_box(&from)));
        });
        group.bench_function("sum", |bencher| bencher.iter(|| Sum::of(black_box(&from))));
        group.bench_function("copy and sum", |bencher| {
            bencher.iter(|| copy_and_sum(black_box(&mut to), black_box(&from)));
        });
        group.finish();
    }
}

fn splits(criterion: &mut Criterion<CpuTime>) {
    let (packet, headers, offload) =
        tcp_super_packet(40_000, SIZE * SEGMENTS, SIZE).expect("it fits");
    let mut group = criterion.benchmark_group("split/45 segments");
    group.throughput(Throughput::Elements(u64::from(SEGMENTS)));
    let mut train = Train::new(MTU);
    group.bench_function("into a train", |bencher| {
        bencher.iter(|| {
            train.clear(MTU);
            split_into(black_box(&packet), &headers, &offload, &mut train, 0)
        });
    });
    let mut buffer = [0; 2048];
    group.bench_function("one by one", |bencher| {
        bencher.iter(|| {
            let mut segments =
                Segments::new(black_box(&packet), &headers, &offload).expect("it belongs together");
            while segments.next_into(black_box(&mut buffer)).is_some() {}
        });
    });
    group.finish();

    // Packets that were no super-packet: each is looked at by itself.
    let (packet, headers, mut offload) = tcp_super_packet(40_000, SIZE, SIZE).expect("it fits");
    offload.gso = None;
    let mut group = criterion.benchmark_group("split/45 packets");
    group.throughput(Throughput::Elements(u64::from(SEGMENTS)));
    for (name, checksum) in [("whole", None), ("partial checksum", offload.checksum)] {
        let offload = Offload {
            checksum,
            ..Offload::default()
        };
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                train.clear(MTU);
                for _ in 0..SEGMENTS {
                    let _ = split_into(black_box(&packet), &headers, &offload, &mut train, 0);
                }
            });
        });
    }
    group.finish();
}

/// A batch as it is after opening: each packet between a tunnel's header and tag.
fn batch(flows: u16) -> (Vec<u8>, Vec<(usize, Headers)>) {
    let mut streams = Vec::new();
    for port in 0..flows {
        let (packet, headers, offload) =
            tcp_super_packet(port, SIZE * (SEGMENTS / flows), SIZE).expect("it fits");
        let mut segments = Segments::new(&packet, &headers, &offload).expect("it belongs together");
        let mut buffer = [0; 2048];
        let mut stream = Vec::new();
        while let Some(Ok(len)) = segments.next_into(&mut buffer) {
            stream.push(buffer[..len].to_vec());
        }
        streams.push(stream);
    }
    let (mut bytes, mut packets) = (Vec::new(), Vec::new());
    for index in 0..usize::from(SEGMENTS / flows) {
        for stream in &streams {
            bytes.extend([0; 16]);
            packets.push((
                bytes.len(),
                Headers::parse(&stream[index]).expect("a segment"),
            ));
            bytes.extend(&stream[index]);
            bytes.extend([0; 16]);
        }
    }
    (bytes, packets)
}

fn coalesces(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("coalesce/45 segments");
    group.throughput(Throughput::Elements(u64::from(SEGMENTS)));
    for flows in [1, 5, 15, 45] {
        let (bytes, packets) = batch(flows);
        let mut coalescer = Coalescer::new(true);
        group.bench_function(format!("{flows} flows"), |bencher| {
            bencher.iter(|| {
                let mut emit = |packet: SuperPacket<'_>| {
                    black_box(&packet);
                };
                for (at, headers) in &packets {
                    coalescer.push(
                        black_box(&bytes),
                        *at,
                        headers,
                        &Offload::default(),
                        &mut emit,
                    );
                }
                coalescer.flush(&bytes, &mut emit);
            });
        });
    }
    let (bytes, packets) = batch(1);
    group.bench_function("verifying alone", |bencher| {
        bencher.iter(|| {
            packets
                .iter()
                .filter(|(at, headers)| verify(&bytes[*at..], headers))
                .count()
        });
    });
    group.finish();
}

fn edits(criterion: &mut Criterion<CpuTime>) {
    let (mut packet, headers, _) = tcp_super_packet(40_000, SIZE, SIZE).expect("it fits");
    let mut group = criterion.benchmark_group("edit");
    group.bench_function("hop limit", |bencher| {
        bencher.iter(|| {
            packet[8] = 64;
            decrement_hop_limit(black_box(&mut packet), &headers)
        });
    });
    let mut syn = vec![
        0x45, 0, 0, 44, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 1, 0, 4, 10, 2, 0, 4,
    ];
    let sum = Sum::of(&syn).checksum();
    syn.splice(10..12, sum);
    syn.extend([
        0x9c, 0x40, 1, 187, 0, 0, 0, 0, 0, 0, 0, 0, 0x60, 2, 1, 1, 0, 0, 0, 0, 2, 4, 5, 180,
    ]);
    let headers = Headers::parse(&syn).expect("a SYN");
    group.bench_function("MSS of a SYN", |bencher| {
        bencher.iter(|| {
            syn[42] = 5;
            clamp_mss(black_box(&mut syn), &headers, 1200, false)
        });
    });
    group.finish();
}

criterion_group! {
    name = pipeline;
    config = Criterion::default()
        .with_measurement(CpuTime)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30);
    targets = checksums, splits, coalesces, edits
}
criterion_main!(pipeline);
