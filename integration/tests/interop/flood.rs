//! Handshakes in numbers: data does not wait behind them.
//!
//! Both ends and the flood share the machine's cores, so what is measured on a busy one is who gets them. It is for a
//! person to start: `cargo test -p integration --test interop flood -- --ignored --nocapture`. What must hold on any
//! machine is tested where handshakes wait, in `worker/tunnels/handshakes.rs`.

use crate::peer::{self, Kind};
use crate::program::{announce, present};
use crate::stage::{self, Family, Site, Stage, host_address, underlay};
use crypto::key::{PrivateKey, PublicKey};
use crypto::limiter::{HandshakeLimits, Limiter};
use crypto::tunnel::{Endpoint as _, Peer};
use crypto::wireguard::Endpoint;
use crypto::wireguard::Train;
use integration::host::Host;
use integration::pair;
use integration::traffic::icmp::Echoes;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use zeroize::Zeroizing;

/// How long one ping series takes, without the flood and with it.
const LENGTH: Duration = Duration::from_secs(3);
/// Initiations per millisecond.
const RATE: u64 = 50;

#[test]
#[ignore = "it measures: a quiet machine of two cores or more"]
fn data_does_not_wait_behind_a_flood_of_initiations() {
    if !present(&Kind::WireguardGo.programs()) {
        return;
    }
    let stage = Stage::new();
    let theirs = {
        let hosts = stage::hosts();
        let keys = [(); 2].map(|()| PrivateKey::generate().unwrap());
        let _far = far_end(&stage, &hosts[1], &keys);
        let (other, endpoint) = (keys[1].public_key(), underlay(2, Family::V4) + ":51820");
        let end = pair::end(1, &keys[0], &other, &endpoint);
        let _near = peer::start_end(&stage, &hosts[0], Kind::WireguardGo, &end);
        measure("wireguard-go", &hosts, &keys[0].public_key())
    };
    let hosts = stage::hosts();
    let keys = [(); 2].map(|()| PrivateKey::generate().unwrap());
    let site = Site {
        key: &keys[1].public_key(),
        preshared: None,
        over: Family::V4,
    };
    let vpn = stage.vpn(1, &keys[0], &site);
    let mut gateway = stage.gateway(&hosts[0], 1, "", &vpn);
    gateway.start().unwrap();
    let _far = far_end(&stage, &hosts[1], &keys);
    let ours = measure("vng", &hosts, &keys[0].public_key());
    stage.assert_books(
        &gateway,
        &[
            "tunnel_handshake_rate",
            "tunnel_unknown_peer",
            "tunnel_handshake",
        ],
    );
    gateway.stop().unwrap();

    let [quiet, flooded] = ours;
    let reference = theirs[1].median_us().unwrap_or(f64::INFINITY);
    let median = flooded.median_us().unwrap_or(f64::INFINITY);
    let before = quiet.median_us().unwrap_or(f64::INFINITY);
    assert!(
        median < (3.0 * before).max(3.0 * reference) + 10_000.0,
        "{median} us, {before} without, {reference} beside"
    );
    let lost = flooded.sent - flooded.received;
    assert!(lost * 50 <= flooded.sent, "{lost} of {}", flooded.sent);
}

fn far_end(stage: &Stage, host: &Arc<Host>, keys: &[PrivateKey; 2]) -> crate::program::Background {
    let vng = keys[0].public_key();
    peer::start(
        stage,
        host,
        Kind::WireguardGo,
        &keys[1],
        &vng,
        None,
        Family::V4,
    )
}

/// Round trips through the tunnel without the flood and with it.
fn measure(name: &str, hosts: &[Arc<Host>; 2], near: &PublicKey) -> [Echoes; 2] {
    let there = host_address(2, Family::V4);
    assert!(hosts[0].reaches(there, stage::PATIENCE).unwrap());
    let ping = || {
        let pace = Duration::from_millis(10);
        hosts[0].ping_for(there, LENGTH, pace).unwrap()
    };
    let quiet = ping();
    let stop = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    let flooded = std::thread::scope(|scope| {
        scope.spawn(|| flood(&hosts[1], near, &stop, &sent));
        let flooded = ping();
        stop.store(true, Ordering::Relaxed);
        flooded
    });
    let describe = |echoes: &Echoes| {
        let quantile = |share| echoes.quantile_us(share).unwrap_or(f64::NAN) / 1000.0;
        format!(
            "{:.2} ms, 99 % {:.2}, {} of {} lost",
            quantile(0.5),
            quantile(0.99),
            echoes.sent - echoes.received,
            echoes.sent
        )
    };
    announce(&format!(
        "{name}: {}; with {:.0} initiations/s {}",
        describe(&quiet),
        sent.load(Ordering::Relaxed) as f64 / LENGTH.as_secs_f64(),
        describe(&flooded)
    ));
    [quiet, flooded]
}

/// Sends the same initiation of a stranger, whose mac1 holds, until it is to stop, 10 s at most.
fn flood(host: &Host, near: &PublicKey, stop: &AtomicBool, sent: &AtomicU64) {
    let initiation = initiation(near);
    let socket = host.run(|| {
        let socket = UdpSocket::bind("192.0.2.2:0")?;
        socket.connect("192.0.2.1:51820")?;
        Ok::<_, std::io::Error>(socket)
    });
    let socket = socket.unwrap().unwrap();
    let began = Instant::now();
    while !stop.load(Ordering::Relaxed) && began.elapsed() < Duration::from_secs(10) {
        let due = began.elapsed().as_millis() as u64 * RATE;
        while sent.load(Ordering::Relaxed) < due && !stop.load(Ordering::Relaxed) {
            // An error is a full queue, or the ICMP message of a program that has ended.
            let _ = socket.send(&initiation);
            sent.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn initiation(near: &PublicKey) -> Vec<u8> {
    let now = Instant::now();
    let limiter = Arc::new(Limiter::new(now, HandshakeLimits::default()).unwrap());
    let key = PrivateKey::generate().unwrap();
    let mut stranger = Endpoint::new(key, limiter, 0, Arc::new(SystemTime::now));
    let peer = Peer {
        public_key: near.0,
        preshared_key: Zeroizing::default(),
        endpoint: Some("192.0.2.1:51820".parse().unwrap()),
        keepalive: None,
        retry: None,
        mtu: 1420,
    };
    let id = stranger.add_peer(now, &peer).unwrap();
    let mut out = Vec::new();
    let mut train = Train::new(1420);
    let mut sent = |_, _, datagram: &[u8]| out = datagram.to_vec();
    assert!(stranger.seal(now, id, &mut train, &mut sent).is_err());
    out
}
