//! Two virtual networks: `vnet-to-vnet-sydney.toml` and `vnet-to-vnet-melbourne.toml`, both as they are.

use crate::stage::{PATIENCE, Stage, balanced};
use crate::traffic::{Packet, assert_arrives, listen, taken};
use crypto::key::PrivateKey;
use integration::host::{Host, connect};
use std::sync::Arc;

#[test]
fn two_virtual_networks_reach_each_other_over_the_lanes_of_one_tunnel() {
    let stage = Stage::new();
    let keys = [(); 2].map(|()| PrivateKey::generate().unwrap());
    let hosts = ["sydney", "melbourne"].map(|name| Arc::new(Host::new(name).unwrap()));
    let [sydney, melbourne] = &hosts;
    connect((sydney, "eth0"), (melbourne, "eth0")).unwrap();
    sydney.address("eth0", &["203.0.113.4/24"]).unwrap();
    melbourne.address("eth0", &["203.0.113.10/24"]).unwrap();
    let start = |at: usize, name: &str, other: &str| {
        let text = stage.example(name, &keys[at], &[(other, &keys[1 - at])]);
        let mut gateway = stage.gateway_on(&hosts[at], name, &text);
        gateway.start().unwrap();
        gateway
    };
    let mut gateways = [
        start(0, "vnet-to-vnet-sydney", "vnet-melbourne"),
        start(1, "vnet-to-vnet-melbourne", "vnet-sydney"),
    ];
    for (host, there) in hosts.iter().zip(["10.8.0.4", "10.1.0.4"]) {
        assert!(
            host.reaches(there.parse().unwrap(), PATIENCE).unwrap(),
            "{there}"
        );
    }
    let ends = ["10.1.0.4", "10.8.0.4"];
    for (from, site) in [(0, "vnet-melbourne"), (1, "vnet-sydney")] {
        let packet = Packet::between(ends[from], ends[1 - from], 40_000);
        let inlet = listen(&hosts[1 - from], ends[1 - from]);
        let before = balanced(&gateways[from]);
        packet.send(&hosts[from]);
        assert_arrives(&inlet, &packet);
        let taken = taken(&before, &balanced(&gateways[from]));
        assert_eq!(
            taken.into_iter().collect::<Vec<_>>(),
            [(site.to_owned(), 1)]
        );
    }
    stage.print_routes("vnet-to-vnet-sydney", &gateways[0]);
    println!("{}", stage.vng(&gateways[0], &["show", "tunnels"]));
    for gateway in &mut gateways {
        balanced(gateway);
        gateway.stop().unwrap();
    }
}
