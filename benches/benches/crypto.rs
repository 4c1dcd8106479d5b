//! What our WireGuard engine costs, in CPU time: trains of 64, 512 and 1,420 byte packets sealed and
//! opened, beside ring's cipher alone on the same bytes, which is the floor; and what a datagram costs
//! that is no packet: a handshake, and each way to refuse one.
//!
//! `cargo bench -p benches --bench crypto`. Elements are packets.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot set itself up should stop"
)]

use benches::cpu_time::CpuTime;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crypto::key::PrivateKey;
use crypto::limiter::{HandshakeLimits, Limiter};
use crypto::tunnel::{Endpoint as _, Peer, PeerId, Received};
use crypto::wireguard::Endpoint;
use crypto::wireguard::{DATA_HEADER_LEN, TAG_LEN, Train};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use zeroize::Zeroizing;

const MTU: usize = 1420;
const SIZES: [usize; 3] = [64, 512, 1420];
/// Trains laid out before a measurement starts, so that reading the clock weighs nothing.
const BATCH: BatchSize = BatchSize::NumIterations(16);

fn trains(criterion: &mut Criterion<CpuTime>) {
    for size in SIZES {
        seal(criterion, size);
        open(criterion, size);
    }
}

fn seal(criterion: &mut Criterion<CpuTime>, size: usize) {
    let now = Instant::now();
    let [mut near, _] = connected(now);
    let mut train = train(size);
    let key = key();
    let mut group = criterion.benchmark_group("seal");
    group.throughput(Throughput::Elements(train.len() as u64));
    group.bench_function(BenchmarkId::new("ring alone", size), |bencher| {
        bencher.iter(|| train.slots_mut().for_each(|slot| seal_alone(&key, slot)));
    });
    group.bench_function(BenchmarkId::new("wireguard", size), |bencher| {
        bencher.iter(|| near.endpoint.seal(now, near.peer, &mut train, &mut silent));
    });
    group.finish();
}

fn open(criterion: &mut Criterion<CpuTime>, size: usize) {
    let now = Instant::now();
    let [mut near, mut far] = connected(now);
    let plain = train(size);
    let stride = plain.stride();
    let key = key();
    let mut group = criterion.benchmark_group("open");
    group.throughput(Throughput::Elements(plain.len() as u64));
    group.bench_function(BenchmarkId::new("ring alone", size), |bencher| {
        bencher.iter_batched_ref(
            || {
                let mut train = train(size);
                train.slots_mut().for_each(|slot| seal_alone(&key, slot));
                train.bytes().to_vec()
            },
            |bytes| {
                for slot in bytes.chunks_mut(stride) {
                    let opened =
                        key.open_in_place(nonce(), Aad::empty(), &mut slot[DATA_HEADER_LEN..]);
                    black_box(opened).expect("sealed above");
                }
            },
            BATCH,
        );
    });
    group.bench_function(BenchmarkId::new("wireguard", size), |bencher| {
        bencher.iter_batched_ref(
            || {
                let mut train = train(size);
                near.endpoint
                    .seal(now, near.peer, &mut train, &mut silent)
                    .expect("a session");
                train.bytes().to_vec()
            },
            |bytes| {
                for datagram in bytes.chunks_mut(stride) {
                    let received = far.endpoint.receive(now, far.other, datagram, &mut silent);
                    assert!(matches!(black_box(received), Received::Packet { .. }));
                }
            },
            BATCH,
        );
    });
    group.finish();
}

/// What others can make us do with one datagram.
fn strangers(criterion: &mut Criterion<CpuTime>) {
    let now = Instant::now();
    let mut group = criterion.benchmark_group("datagram");
    // The whole handshake, both ends and the confirmation: renewed by time, so that none is a replay.
    group.bench_function("handshake of both ends", |bencher| {
        let mut ends = connected(now);
        let mut now = now;
        bencher.iter(|| {
            now += Duration::from_secs(121);
            shake_hands(&mut ends, now);
        });
    });

    let [mut near, mut far] = ends(now, HandshakeLimits::default());
    let mut initiation = Vec::new();
    near.endpoint
        .seal(
            now,
            near.peer,
            &mut train(64),
            &mut |_: Option<PeerId>, _: SocketAddr, bytes: &[u8]| {
                initiation = bytes.to_vec();
            },
        )
        .expect_err("no session yet");
    let mut forged = initiation.clone();
    forged[20] ^= 1;
    group.bench_function("initiation refused by mac1", |bencher| {
        bencher.iter(|| {
            black_box(
                far.endpoint
                    .receive(now, far.other, &mut forged, &mut silent),
            )
            .kind()
        });
    });
    // Its source's budget ends at once: then each is answered with a cookie.
    group.bench_function("initiation answered with a cookie", |bencher| {
        bencher.iter(|| {
            black_box(
                far.endpoint
                    .receive(now, far.other, &mut initiation, &mut silent),
            )
            .kind()
        });
    });
    let mut unknown = [4; 64];
    unknown[1..4].fill(0);
    group.bench_function("data for no session", |bencher| {
        bencher.iter(|| {
            black_box(
                far.endpoint
                    .receive(now, far.other, &mut unknown, &mut silent),
            )
            .kind()
        });
    });
    group.finish();
}

/// Lets a closure return what it saw without keeping the datagram borrowed.
trait Kind {
    fn kind(&self) -> bool;
}

impl Kind for Received<'_> {
    fn kind(&self) -> bool {
        matches!(self, Received::Refused(_) | Received::Foreign(_))
    }
}

/// One end of a tunnel.
struct End {
    endpoint: Endpoint,
    peer: PeerId,
    other: SocketAddr,
}

fn ends(now: Instant, limits: HandshakeLimits) -> [End; 2] {
    let keys = [[1; 32], [2; 32]].map(PrivateKey::from_bytes);
    let addresses = [([192, 0, 2, 1], 1), ([192, 0, 2, 2], 2)].map(SocketAddr::from);
    [0, 1].map(|mine| {
        let limiter = Arc::new(Limiter::new(now, limits).expect("random bytes"));
        let mut endpoint = Endpoint::new(keys[mine].clone(), limiter, 0, Arc::new(SystemTime::now));
        let other = addresses[1 - mine];
        let peer = Peer {
            public_key: keys[1 - mine].public_key().0,
            preshared_key: Zeroizing::new([0; 32]),
            endpoint: Some(other),
            keepalive: None,
            retry: None,
            mtu: MTU as u16,
        };
        let peer = endpoint.add_peer(now, &peer).expect("a valid key");
        End {
            endpoint,
            peer,
            other,
        }
    })
}

fn connected(now: Instant) -> [End; 2] {
    let mut ends = ends(now, HandshakeLimits::default());
    shake_hands(&mut ends, now);
    ends
}

/// The first end sends, which begins a handshake, and all messages are carried to and fro.
fn shake_hands(ends: &mut [End; 2], now: Instant) {
    let mut messages: Vec<Vec<u8>> = Vec::new();
    let [near, far] = ends;
    let before = handshakes(near);
    let mut knock = Train::new(MTU);
    knock.push(64).expect("an empty train").fill(0xa5);
    // Sealed or not: there is no session, or one that is old enough to be renewed.
    let _ = near.endpoint.seal(
        now,
        near.peer,
        &mut knock,
        &mut |_: Option<PeerId>, _: SocketAddr, bytes: &[u8]| messages.push(bytes.to_vec()),
    );
    let mut to = [far, near];
    while !messages.is_empty() {
        for mut message in std::mem::take(&mut messages) {
            let end = &mut *to[0];
            end.endpoint.receive(
                now,
                end.other,
                &mut message,
                &mut |_: Option<PeerId>, _: SocketAddr, bytes: &[u8]| messages.push(bytes.to_vec()),
            );
        }
        to.reverse();
    }
    assert!(ends.iter().all(|end| handshakes(end) > before));
}

fn handshakes(end: &End) -> u64 {
    end.endpoint
        .status(end.peer)
        .map_or(0, |status| status.handshakes)
}

/// As long a train as fits, of packets of `size` bytes.
fn train(size: usize) -> Train {
    let mut train = Train::new(MTU);
    while let Some(packet) = train.push(size) {
        packet.fill(0xa5);
    }
    train
}

fn key() -> LessSafeKey {
    UnboundKey::new(&CHACHA20_POLY1305, &[7; 32])
        .map(LessSafeKey::new)
        .expect("a key of 32 bytes")
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// ring's cipher over one slot: no header, counter or session.
fn seal_alone(key: &LessSafeKey, slot: &mut [u8]) {
    let end = slot.len() - TAG_LEN;
    let tag =
        key.seal_in_place_separate_tag(nonce(), Aad::empty(), &mut slot[DATA_HEADER_LEN..end]);
    slot[end..].copy_from_slice(tag.expect("the length is far from its limit").as_ref());
}

/// Nothing but data is expected, or nobody cares for the answer.
fn silent(_: Option<PeerId>, _: SocketAddr, _: &[u8]) {}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .with_measurement(CpuTime)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30);
    targets = trains, strangers
}
criterion_main!(benches);
