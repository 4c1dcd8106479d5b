//! A session's key lives for 120 s (WireGuard's REKEY_AFTER_TIME): packets pass the change unharmed.

use crate::peer::{self, Kind};
use crate::program::{announce, present};
use crate::stage::{self, Family, Site, Stage};
use crate::traffic::{assert_pings, judge, numbered, overflown, wait_until};
use crypto::key::PrivateKey;
use integration::traffic::numbered::Load;
use std::time::Duration;

/// Long enough for one change of keys after 120 s.
const LENGTH: Duration = Duration::from_secs(150);
/// What counts as at the change, before and after it.
const AROUND: Duration = Duration::from_secs(5);

#[test]
fn no_packet_is_lost_when_keys_change_beside_wireguard_go() {
    if std::env::var_os("VNG_QUICK").is_some_and(|value| value != "0") {
        announce("SKIPPED the change of keys beside wireguard-go (150 s): VNG_QUICK is set");
        return;
    }
    if !present(&Kind::WireguardGo.programs()) {
        return;
    }
    let stage = Stage::new();
    let hosts = stage::hosts();
    let [ours, theirs] = [(); 2].map(|()| PrivateKey::generate().unwrap());
    let site = Site {
        key: &theirs.public_key(),
        preshared: None,
        over: Family::V4,
    };
    let vpn = stage.vpn(1, &ours, &site);
    let mut gateway = stage.gateway(&hosts[0], 1, "", &vpn);
    gateway.start().unwrap();
    let _peer = peer::start(
        &stage,
        &hosts[1],
        Kind::WireguardGo,
        &theirs,
        &ours.public_key(),
        None,
        Family::V4,
    );
    assert_pings(&hosts);

    // What both ends and this machine hold for some seconds without any loss.
    let load = |rate| Load {
        rate,
        ..Load::default()
    };
    let rates = [10_000, 5_000, 2_000, 1_000, 500];
    let holds = |rate: &u32| {
        let run = numbered(&hosts, Family::V4, load(*rate));
        wait_until(&run, Duration::from_secs(4));
        judge(run).iter().all(|direction| direction.lost == 0)
    };
    let rate = rates.into_iter().find(holds).unwrap();

    let handshakes = || {
        let tunnels = stage.show(&gateway, "tunnels");
        let handshakes = tunnels[0]["handshakes"].as_u64().unwrap();
        let age = tunnels[0]["last_handshake_seconds"].as_f64().unwrap();
        (handshakes, Duration::from_secs_f64(age))
    };
    let (before, _) = handshakes();
    let full = || hosts.iter().map(overflown).sum::<u64>();
    let full_before = full();
    let run = numbered(&hosts, Family::V4, load(rate));
    wait_until(&run, LENGTH);
    let (after, age) = handshakes();
    let changed = run.epoch().elapsed().saturating_sub(age);
    let records = run.finish().unwrap();
    announce(&format!(
        "{} packets found a queue of the kernel's full",
        full() - full_before
    ));
    assert!(after > before, "no change of keys in {LENGTH:?}");
    let window = [changed.saturating_sub(AROUND), changed + AROUND].map(|at| at.as_nanos() as u64);
    for record in &records {
        let (all, there) = (
            record.judge(0, u64::MAX),
            record.judge(window[0], window[1]),
        );
        announce(&format!(
            "{rate} packets/s over a change of keys at {:.1} s: {} of {} lost in all, {} of {} around it",
            changed.as_secs_f64(),
            all.lost,
            all.sent,
            there.lost,
            there.sent
        ));
        assert!(there.sent > 0, "nothing was sent around the change of keys");
        assert_eq!((there.lost, there.duplicated), (0, 0), "{there:?}");
    }
    stage.assert_books(&gateway, &[]);
    gateway.stop().unwrap();
}
