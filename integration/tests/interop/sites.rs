//! Sites that come and go while the gateway runs, and two virtual networks.

use crate::stage::{Family, PATIENCE, Stage, Way, host_address};
use crate::traffic::{assert_all_arrived, numbered, wait_until};
use crypto::key::PrivateKey;
use integration::stage::edit;
use integration::traffic::numbered::Load;
use std::time::Duration;

#[test]
fn sites_that_come_and_go_cost_another_site_no_packet() {
    for control in ["", "workers = 2"] {
        let mut stage = Stage::new();
        stage.control = control;
        let pair = stage.pair(Way::Tunnel(Family::V4), ["", ""]);
        let load = Load {
            rate: 4_000,
            ..Load::default()
        };
        let run = numbered(&pair.hosts, Family::V4, load);
        wait_until(&run, Duration::from_millis(300));
        let gateway = &pair.gateways[0];
        let site = |n: u8| {
            let key = PrivateKey::generate().unwrap().public_key();
            format!(
                "[[vpn.site]]\nname = \"branch-{n}\"\npublic_key = \"{key}\"\n\
                 endpoint = \"192.0.2.77:51820\"\nprefixes = [\"10.7{n}.0.0/16\"]\n\n"
            )
        };
        for n in 0..3 {
            // Before the one that carries: its place in the file is another each time.
            edit(&pair.gateways[0], |text| {
                text.replacen("[[vpn.site]]", &format!("{}[[vpn.site]]", site(n)), 1)
            });
            let said = stage.vng(gateway, &["reload"]);
            assert!(said.contains(&format!("site branch-{n}: added")), "{said}");
        }
        let tunnels = stage.show(gateway, "tunnels");
        assert_eq!(tunnels.as_array().unwrap().len(), 4, "{tunnels:#}");
        for n in 0..3 {
            edit(&pair.gateways[0], |text| {
                let at = text
                    .find(&format!("[[vpn.site]]\nname = \"branch-{n}\""))
                    .unwrap();
                let end = text[at..].find("\n\n").unwrap() + at + 2;
                format!("{}{}", &text[..at], &text[end..])
            });
            let said = stage.vng(gateway, &["reload"]);
            assert!(
                said.contains(&format!("site branch-{n}: taken away")),
                "{said}"
            );
        }
        assert_eq!(stage.show(gateway, "tunnels").as_array().unwrap().len(), 1);
        wait_until(&run, Duration::from_secs(1));
        assert_all_arrived(run, 1_000);
        pair.finish(&stage, &["handover_full"]);
    }
}

#[test]
fn a_site_that_is_gone_is_cut_off_and_reached_again_when_it_is_back() {
    let stage = Stage::new();
    let pair = stage.pair(Way::Tunnel(Family::V6), ["", ""]);
    let gateway = &pair.gateways[0];
    let with = std::fs::read_to_string(gateway.config()).unwrap();
    edit(&pair.gateways[0], |text| {
        let at = text.find("[[vpn.site]]").unwrap();
        let end = text.find("[failover]").unwrap();
        format!("{}{}", &text[..at], &text[end..])
    });
    stage.vng(gateway, &["reload"]);
    let [near, far] = &pair.hosts;
    for family in Family::BOTH {
        let (there, back) = (host_address(2, family), host_address(1, family));
        for (host, target) in [(near, there), (far, back)] {
            // The kernel has no route to it any more, or the gateway drops it.
            let echoes = host.ping(target, 2, 8, Duration::from_millis(300));
            assert!(echoes.is_err() || echoes.unwrap().received == 0, "{target}");
        }
    }
    edit(&pair.gateways[0], |_| with.clone());
    stage.vng(gateway, &["reload"]);
    pair.assert_reaches();
    let expected = [
        "tunnel_unknown_index",
        "tunnel_unknown_peer",
        "no_path",
        "tunnel_no_session",
    ];
    pair.finish(
        &stage,
        &[&expected[..], &["no_route", "route_none"]].concat(),
    );
}

#[test]
fn two_virtual_networks_are_joined_and_say_so() {
    let stage = Stage::new();
    let pair = stage.pair(Way::Tunnel(Family::V4), ["", ""]);
    for side in [0, 1] {
        edit(&pair.gateways[side], |text| {
            text.replace("[[vpn.site]]", "[[vpn.site]]\nkind = \"vnet-to-vnet\"")
        });
        let gateway = &pair.gateways[side];
        stage.vng(gateway, &["reload"]);
        let tunnels = stage.show(gateway, "tunnels");
        assert_eq!(tunnels[0]["connection"], "vnet-to-vnet", "{tunnels:#}");
        let status = stage.show(gateway, "status");
        assert_eq!(
            status["paths"][0]["connection"], "vnet-to-vnet",
            "{status:#}"
        );
        let said = stage.vng(gateway, &["show", "tunnels", "--wide"]);
        assert!(said.contains("VNet-to-VNet"), "{said}");
    }
    pair.assert_reaches();
    // The gateway of the other network is one of its addresses.
    let other = "10.2.255.4".parse().unwrap();
    assert!(pair.hosts[0].reaches(other, PATIENCE).unwrap());
    pair.finish(&stage, &[]);
}
