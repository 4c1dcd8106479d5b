//! What a tunnel engine costs: trains of 64, 512 and 1,420 byte packets sealed and opened by each engine
//! behind the seam, beside ring's cipher alone on the same bytes, which is the floor.
//!
//! `cargo bench -p benches --bench engines`. The figure is CPU time of the thread per train, because wall
//! time on a shared machine measures the neighbours too; elements are its packets.

#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot set itself up should stop"
)]

use benches::cpu_time::CpuTime;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crypto::key::PrivateKey;
use crypto::limiter::{HandshakeLimits, Limiter};
use crypto::tunnel::{Endpoint, Peer, PeerId, Received};
use crypto::wireguard;
use crypto::wireguard::{DATA_HEADER_LEN, DataMessage, TAG_LEN, Train};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use std::cell::RefCell;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use zeroize::Zeroizing;

const MTU: usize = 1420;
/// Trains laid out before a measurement starts, so that reading the clock weighs nothing.
const BATCH: BatchSize = BatchSize::NumIterations(16);
const SIZES: [usize; 3] = [64, 512, 1420];

fn engines(criterion: &mut Criterion<CpuTime>) {
    for size in SIZES {
        cipher_alone(criterion, size);
        engine(
            criterion,
            "boringtun",
            size,
            crypto::boringtun::Endpoint::new,
        );
        engine(criterion, "vng", size, own_engine);
    }
}

/// ring's ChaCha20-Poly1305 over a train's slots: no header, counter check, session or copy.
fn cipher_alone(criterion: &mut Criterion<CpuTime>, size: usize) {
    let mut train = train(size);
    let key = UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]).map(LessSafeKey::new);
    let key = key.expect("a key of 32 bytes");
    let nonce = || Nonce::assume_unique_for_key([0; 12]);
    let seal = |slot: &mut [u8]| {
        let end = slot.len() - TAG_LEN;
        let tag =
            key.seal_in_place_separate_tag(nonce(), Aad::empty(), &mut slot[DATA_HEADER_LEN..end]);
        slot[end..].copy_from_slice(tag.expect("the length is far from its limit").as_ref());
    };
    let mut group = criterion.benchmark_group("seal");
    group.throughput(Throughput::Elements(train.len() as u64));
    group.bench_function(BenchmarkId::new("ring alone", size), |bencher| {
        bencher.iter(|| train.slots_mut().for_each(seal));
    });
    group.finish();

    let mut group = criterion.benchmark_group("open");
    group.throughput(Throughput::Elements(train.len() as u64));
    train.slots_mut().for_each(seal);
    group.bench_function(BenchmarkId::new("ring alone", size), |bencher| {
        bencher.iter_batched_ref(
            || train.bytes().to_vec(),
            |bytes| {
                for slot in bytes.chunks_mut(train.stride()) {
                    let sealed = &mut slot[DATA_HEADER_LEN..];
                    black_box(key.open_in_place(nonce(), Aad::empty(), sealed))
                        .expect("sealed above");
                }
            },
            BATCH,
        );
    });
    group.finish();
}

/// One engine, both ends in memory.
fn engine<E: Endpoint<Layout = DataMessage>>(
    criterion: &mut Criterion<CpuTime>,
    name: &str,
    size: usize,
    new: impl Fn(&[u8; 32]) -> E,
) {
    let [mut near, far] = connected(new);
    let mut plain = train(size);
    let now = Instant::now();
    let mut group = criterion.benchmark_group("seal");
    group.throughput(Throughput::Elements(plain.len() as u64));
    group.bench_function(BenchmarkId::new(name, size), |bencher| {
        // Sealing what is sealed costs as much as sealing a packet.
        bencher.iter(|| near.engine.seal(now, near.peer, &mut plain, &mut silent));
    });
    group.finish();

    let mut group = criterion.benchmark_group("open");
    group.throughput(Throughput::Elements(plain.len() as u64));
    let (near, mut far) = (RefCell::new(near), far);
    group.bench_function(BenchmarkId::new(name, size), |bencher| {
        bencher.iter_batched_ref(
            || {
                let mut near = near.borrow_mut();
                let peer = near.peer;
                let mut sealed = train(size);
                near.engine
                    .seal(now, peer, &mut sealed, &mut silent)
                    .expect("a session");
                (sealed.bytes().to_vec(), sealed.stride())
            },
            |(bytes, stride)| {
                for datagram in bytes.chunks_mut(*stride) {
                    let received = far.engine.receive(now, far.other, datagram, &mut silent);
                    assert!(matches!(black_box(received), Received::Packet { .. }));
                }
            },
            BATCH,
        );
    });
    group.finish();
}

/// The project's own engine, as the only worker.
fn own_engine(private_key: &[u8; 32]) -> wireguard::Endpoint {
    let now = Instant::now();
    let limiter = Limiter::new(now, HandshakeLimits::default()).expect("random bytes");
    let private_key = PrivateKey::from_bytes(*private_key);
    wireguard::Endpoint::new(private_key, Arc::new(limiter), 0, Arc::new(SystemTime::now))
}

/// One end of a tunnel.
struct End<E> {
    engine: E,
    peer: PeerId,
    other: SocketAddr,
}

/// Two ends that have shaken hands.
fn connected<E: Endpoint<Layout = DataMessage>>(new: impl Fn(&[u8; 32]) -> E) -> [End<E>; 2] {
    let now = Instant::now();
    let keys = [[1; 32], [2; 32]].map(PrivateKey::from_bytes);
    let addresses = [
        SocketAddr::from(([192, 0, 2, 1], 1)),
        SocketAddr::from(([192, 0, 2, 2], 2)),
    ];
    let mut ends = [0, 1].map(|mine| {
        let mut engine = new(keys[mine].as_bytes());
        let other = addresses[1 - mine];
        let peer = Peer {
            public_key: keys[1 - mine].public_key().0,
            preshared_key: Zeroizing::new([0; 32]),
            endpoint: Some(other),
            keepalive: None,
            retry: None,
            mtu: MTU as u16,
        };
        let peer = engine.add_peer(now, &peer).expect("a valid key");
        End {
            engine,
            peer,
            other,
        }
    });
    let mut messages = Vec::new();
    let [near, _] = &mut ends;
    let mut keep = |_: Option<PeerId>, _: SocketAddr, bytes: &[u8]| messages.push(bytes.to_vec());
    near.engine
        .seal(now, near.peer, &mut train(64), &mut keep)
        .expect_err("no session yet");
    let mut to = 1;
    while !messages.is_empty() {
        let end = &mut ends[to];
        for mut message in std::mem::take(&mut messages) {
            let mut keep =
                |_: Option<PeerId>, _: SocketAddr, bytes: &[u8]| messages.push(bytes.to_vec());
            end.engine.receive(now, end.other, &mut message, &mut keep);
        }
        to = 1 - to;
    }
    ends
}

/// As long a train as fits, of IPv4 packets of `size` bytes; only the length in their header is true.
fn train(size: usize) -> Train {
    let mut train = Train::new(MTU);
    while let Some(packet) = train.push(size) {
        packet.fill(0xa5);
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&(size as u16).to_be_bytes());
    }
    train
}

/// Nothing but data is expected once the session stands.
fn silent(_: Option<PeerId>, _: SocketAddr, _: &[u8]) {}

criterion_group! {
    name = group;
    config = Criterion::default()
        .with_measurement(CpuTime)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30);
    targets = engines
}
criterion_main!(group);
