//! A tunnel between vng and another WireGuard implementation.

use crate::peer::{self, Kind};
use crate::program::present;
use crate::stage::{self, Family, Site, Stage};
use crate::traffic::{Iperf, assert_pings};
use crypto::key::{PresharedKey, PrivateKey};
use serde_json::Value;

#[test]
fn vng_and_wireguard_go_over_ipv4() {
    beside(Kind::WireguardGo, Family::V4, false);
}

#[test]
fn vng_and_wireguard_go_over_ipv6_with_a_preshared_key() {
    beside(Kind::WireguardGo, Family::V6, true);
}

#[test]
fn vng_and_boringtun_over_ipv4_with_a_preshared_key() {
    beside(Kind::Boringtun, Family::V4, true);
}

#[test]
fn vng_and_boringtun_over_ipv6() {
    beside(Kind::Boringtun, Family::V6, false);
}

fn beside(kind: Kind, over: Family, with_preshared: bool) {
    if !present(&[&kind.programs()[..], &["iperf3"]].concat()) {
        return;
    }
    let stage = Stage::new();
    let hosts = stage::hosts();
    let [ours, theirs] = [(); 2].map(|()| PrivateKey::generate().unwrap());
    let preshared = with_preshared.then(|| PresharedKey::generate().unwrap());
    let preshared = preshared.as_ref();
    let site = Site {
        key: &theirs.public_key(),
        preshared,
        over,
    };
    let vpn = stage.vpn(1, &ours, &site);
    let mut gateway = stage.gateway(&hosts[0], 1, "", &vpn);
    gateway.start().unwrap();
    let ours = ours.public_key();
    let _peer = peer::start(&stage, &hosts[1], kind, &theirs, &ours, preshared, over);

    assert_pings(&hosts);
    let iperf = Iperf::new(&stage, &hosts, std::slice::from_ref(&gateway));
    for family in Family::BOTH {
        iperf.assert_tcp(family, &[]);
        iperf.assert_tcp(family, &["-R"]);
    }
    iperf.assert_udp(Family::V4, &[]);
    iperf.assert_udp(Family::V4, &["-R"]);

    let tunnels = stage.show(&gateway, "tunnels");
    let tunnel = &tunnels[0];
    assert!(
        tunnel["handshakes"].as_u64() >= Some(1)
            && tunnel["last_handshake_seconds"].as_f64().is_some(),
        "{tunnels:#}"
    );
    assert_ne!(tunnel["endpoint"], Value::Null, "{tunnels:#}");
    stage.assert_books(&gateway, &[]);
    gateway.stop().unwrap();
}
