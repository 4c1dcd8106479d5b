//! A circuit as the underlay, with a narrow link.

use super::{BYTES, Near, transfer};
use crate::peer::{Kind, start_end};
use crate::program::present;
use crate::stage::{self, Family, PATIENCE, Stage, host_address};
use crypto::key::PrivateKey;
use integration::host::Host;
use integration::pair;
use integration::peer::End;
use serde_json::Value;
use std::fmt::Write as _;
use std::sync::Arc;

/// A tunnel over a circuit whose link has this MTU; the far side is wireguard-go on a plain host.
fn over_a_circuit(stage: &Stage, mtu: u32, near: Near) -> ([usize; 2], Option<Value>) {
    let hosts = ["near", "far"].map(|name| Arc::new(Host::new(name).unwrap()));
    stage::lay_link(&hosts, mtu);
    let [here, there] = &hosts;
    there.address("eth1", &["172.16.0.2/30"]).unwrap();
    there.address("lo", &["198.51.100.2/32"]).unwrap();
    there.route("10.1.255.4/32", "172.16.0.1").unwrap();
    let [ours, theirs] = [(); 2].map(|()| PrivateKey::generate().unwrap());
    let (mut gateway, mut reference) = (None, None);
    match near {
        Near::Vng => {
            let mut text = String::from(
                r#"[expressroute]
sku = "Unlimited"

[[expressroute.circuit]]
name     = "circuit-2"
model    = "point-to-point"
prefixes = ["198.51.100.0/24"]

  [[expressroute.circuit.link]]
  name      = "primary"
  interface = "eth1"
  address   = ["172.16.0.1/30"]
  neighbor  = ["172.16.0.2"]

"#,
            );
            text += &stage.vpn_table(1, &ours, "");
            text += &pair::site(2, &theirs.public_key());
            writeln!(text, "over = \"circuit-2\"").unwrap();
            writeln!(text, "endpoint = \"198.51.100.2:51820\"").unwrap();
            let mut vng = stage.gateway(here, 1, "", &text);
            vng.start().unwrap();
            gateway = Some(vng);
        }
        Near::Reference => {
            here.address("eth1", &["172.16.0.1/30"]).unwrap();
            here.address("lo", &["10.1.255.4/32"]).unwrap();
            here.route("198.51.100.2/32", "172.16.0.2").unwrap();
            let public = theirs.public_key();
            let end = pair::end(1, &ours, &public, "198.51.100.2:51820");
            reference = Some(start_end(stage, here, Kind::WireguardGo, &end));
        }
    }
    let endpoint = match near {
        Near::Vng => "10.1.255.4:51820",
        Near::Reference => "172.16.0.1:51820",
    };
    let public = ours.public_key();
    let end = End {
        // Not the gateway's own address, which the tunnel itself leads to.
        prefixes: ["10.1.0.0/24", "fd00:1::/64"],
        ..pair::end(2, &theirs, &public, endpoint)
    };
    let _far = start_end(stage, there, Kind::WireguardGo, &end);
    let [a, b] = [1, 2].map(|n| host_address(n, Family::V4));
    assert!(here.reaches(b, PATIENCE).unwrap(), "{b} is not reached");
    let passed = [transfer(here, there, b), transfer(there, here, a)];
    let shown = gateway.map(|vng| {
        let log = vng.log();
        assert!(log.contains("has a narrow link"), "{log}");
        stage.show(&vng, "tunnels")
    });
    drop(reference);
    (passed, shown)
}

#[test]
fn a_tunnel_over_a_narrow_circuit_carries_what_wireguard_go_carries_there() {
    if !present(&Kind::WireguardGo.programs()) {
        return;
    }
    let stage = Stage::new();
    let stage = &stage;
    std::thread::scope(|scope| {
        for (mtu, near, inner) in [(1_460, Near::Vng, 1_392), (1_460, Near::Reference, 0)] {
            scope.spawn(move || {
                let stage = stage.beside();
                let (passed, shown) = over_a_circuit(&stage, mtu, near);
                println!("over a link of {mtu}, {near:?}: {passed:?}");
                assert_eq!(passed, [BYTES; 2], "{mtu}, {near:?}: {shown:#?}");
                if let Some(tunnels) = shown {
                    assert_eq!(tunnels[0]["mtu_bytes"], Value::from(inner));
                }
            });
        }
    });
}
