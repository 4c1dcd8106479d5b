//! Rules that decide about single packets: policy, routes to nowhere, transit, spoofed sources. Every
//! packet's fate is read from the ledger, from the host it was for, and from what ICMP told its sender.

use crate::harness::{
    Datagram, IcmpError, IcmpListener, World, address, balanced, calm, dropped, of, replace, until,
};
use gateway::show::view::Counters;
use integration::gateway::Gateway;
use integration::host::Host;
use integration::lab::{CIRCUIT, Lab, LabOptions, SITE};
use std::net::UdpSocket;

/// Ports that the rules below tell apart.
const DROPPED: u16 = 6_001;
const REJECTED: u16 = 6_002;
const OVER_VPN: u16 = 6_003;
const FREE: u16 = 6_004;

const RULES: &str = r#"
[[policy]]
name   = "quiet"
match  = { from = "vnet", protocol = "udp", destination_port = "6001" }
action = "drop"

[[policy]]
name   = "refused"
match  = { from = "vnet", protocol = "udp", destination_port = "6002" }
action = "reject"

[[policy]]
name   = "over-vpn"
match  = { from = "vnet", protocol = "udp", destination_port = "6003" }
action = { via = ["onprem", "er-sydney"] }

[[route]]
prefix   = "10.2.9.0/24"
next_hop = "None"

[[route]]
prefix   = "fd00:2:0:9::/64"
next_hop = "None"
"#;

fn with_rules() -> LabOptions {
    LabOptions {
        policy: RULES.into(),
        ..calm()
    }
}

/// A socket that packets may arrive at.
fn listen(host: &Host, at: (&str, u16)) -> UdpSocket {
    let bind = || UdpSocket::bind((address(at.0), at.1)).unwrap();
    let socket = host.run(bind).unwrap();
    socket
        .set_read_timeout(Some(crate::harness::PATIENCE))
        .unwrap();
    socket
}

fn assert_arrives(socket: &UdpSocket, packet: &Datagram) {
    let (length, source) = socket.recv_from(&mut [0; 2048]).unwrap();
    assert_eq!((length, source), (packet.payload, packet.source));
}

fn assert_nothing(socket: &UdpSocket) {
    socket.set_nonblocking(true).unwrap();
    let error = socket.recv_from(&mut [0; 64]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    socket.set_nonblocking(false).unwrap();
}

/// Waits until a gateway has dropped one packet more for this reason, which then is all it has dropped
/// for it.
fn assert_dropped(gateway: &Gateway, reason: &str, before: u64) {
    until(&format!("one more {reason}"), || {
        let now = dropped(gateway, reason);
        assert!(now <= before + 1, "{now} {reason}, not {before} and one");
        (now == before + 1).then_some(()).ok_or(now)
    });
}

#[test]
fn policy_and_routes_act_on_packets_and_icmp_tells_why() {
    let world = World::start(&with_rules(), |_| ());
    let gateway = &world.lab.gateway;
    let (vnet, onprem) = (world.host("vnet"), world.host("onprem"));
    let families = [
        // Administratively prohibited; no route (network unreachable), in both families' codes.
        (
            ["10.1.0.10", "10.2.0.10", "10.2.9.1", "10.1.255.4"],
            [(3, 13), (3, 0)],
        ),
        (
            [
                "fd00:1::10",
                "fd00:2::10",
                "fd00:2:0:9::1",
                "fd00:1:0:ff::4",
            ],
            [(1, 1), (1, 0)],
        ),
    ];
    for ([from, to, nowhere, own], [prohibited, no_route]) in families {
        let mut icmp = IcmpListener::new(vnet, address(from).is_ipv4());
        let tells = |(kind, code)| IcmpError {
            source: address(own),
            kind,
            code,
        };
        let silent = listen(onprem, (to, DROPPED));
        let packet = Datagram::new((from, 41_001), (to, DROPPED));
        let before = dropped(gateway, "policy");
        packet.send(vnet);
        assert_dropped(gateway, "policy", before);
        assert_nothing(&silent);

        let packet = Datagram::new((from, 41_002), (to, REJECTED));
        let before = dropped(gateway, "policy_reject");
        packet.send(vnet);
        assert_eq!(icmp.error_about(&packet), tells(prohibited));
        assert_dropped(gateway, "policy_reject", before);

        let packet = Datagram::new((from, 41_003), (nowhere, FREE));
        let before = dropped(gateway, "route_none");
        packet.send(vnet);
        assert_eq!(icmp.error_about(&packet), tells(no_route));
        assert_dropped(gateway, "route_none", before);

        // The rule's path, in place of the route's; a large packet, unlike any probe.
        let inlet = listen(onprem, (to, OVER_VPN));
        let packet = Datagram {
            payload: 1_200,
            ..Datagram::new((from, 41_004), (to, OVER_VPN))
        };
        let before = balanced(gateway);
        packet.send(vnet);
        assert_arrives(&inlet, &packet);
        assert_eq!(taken(&before, &balanced(gateway), packet.len()), [SITE]);
    }
    world.stop();
}

/// Paths that carried, and reasons that took, at least one packet of `bytes` between two readings.
fn taken(before: &Counters, after: &Counters, bytes: u64) -> Vec<String> {
    let (old, new) = (&before.totals, &after.totals);
    let columns = [(&old.sent, &new.sent), (&old.dropped, &new.dropped)];
    let grown = columns.into_iter().flat_map(|(old, new)| {
        new.iter()
            .filter(move |(name, sum)| sum.bytes - of(old, name).bytes >= bytes)
            .map(|(name, _)| name.clone())
    });
    grown.collect()
}

#[test]
fn explain_says_what_the_data_path_does() {
    let world = World::start(&with_rules(), |lab| {
        let host = lab.host("vnet").unwrap();
        host.address("eth0", &["10.9.9.9/32", "fd00:9::9/128"])
            .unwrap();
    });
    let gateway = &world.lab.gateway;
    let vnet = world.host("vnet");
    for target in ["10.3.0.10", "fd00:3::10"] {
        assert!(
            vnet.reaches(address(target), crate::harness::PATIENCE)
                .unwrap()
        );
    }
    // Someone listens, so that no host answers with an ICMP error as long as the packet.
    let _inlets = [
        ("onprem", ["10.2.0.10", "fd00:2::10"]),
        ("branch", ["10.3.0.10", "fd00:3::10"]),
    ]
    .map(|(host, at)| {
        at.map(|at| [FREE, OVER_VPN].map(|port| listen(world.host(host), (at, port))))
    });
    let mut flows = Vec::new();
    for port in 0..16 {
        flows.push((("10.1.0.10", 42_000 + port), ("10.2.0.10", FREE)));
        flows.push((("fd00:1::10", 42_000 + port), ("fd00:2::10", FREE)));
    }
    for (here, there, branch, nowhere, stranger) in [
        (
            "10.1.0.10",
            "10.2.0.10",
            "10.3.0.10",
            "10.2.9.1",
            "10.9.9.9",
        ),
        (
            "fd00:1::10",
            "fd00:2::10",
            "fd00:3::10",
            "fd00:2:0:9::1",
            "fd00:9::9",
        ),
    ] {
        flows.extend([
            ((here, 42_100), (there, DROPPED)),
            ((here, 42_101), (there, REJECTED)),
            ((here, 42_102), (there, OVER_VPN)),
            ((here, 42_103), (branch, OVER_VPN)),
            ((here, 42_104), (branch, FREE)),
            ((here, 42_105), (nowhere, FREE)),
            ((here, 42_106), (nowhere, OVER_VPN)),
            ((stranger, 42_107), (there, FREE)),
        ]);
    }
    let mut seen = std::collections::BTreeMap::new();
    for (source, destination) in flows {
        // Longer than all that probes and ICMP errors add up to while it is looked at.
        let datagram = Datagram::new(source, destination);
        let payload = 1_400 - (datagram.len() as usize - datagram.payload);
        let packet = Datagram {
            payload,
            ..datagram
        };
        let told = packet.explain_by_command(gateway, "vnet");
        let predicted = match told.verdict.as_str() {
            "forward" => told.member.clone().or(told.path.clone()).unwrap(),
            _ => told.reason.clone(),
        };
        let before = balanced(gateway);
        packet.send(vnet);
        let after = until("the packet is through", || {
            let now = balanced(gateway);
            let vnet = |counters: &Counters| of(&counters.totals.received, "vnet").bytes;
            let in_all = vnet(&now) - vnet(&before);
            (in_all >= packet.len() && now.totals.held == 0)
                .then_some(now)
                .ok_or(in_all)
        });
        let found = taken(&before, &after, packet.len());
        assert_eq!(
            found,
            std::slice::from_ref(&predicted),
            "{packet:?}: {told:?}"
        );
        *seen.entry(predicted).or_insert(0) += 1;
    }
    println!("{seen:?}");
    let names: Vec<_> = seen.keys().map(String::as_str).collect();
    let (primary, secondary) = (format!("{CIRCUIT}/primary"), format!("{CIRCUIT}/secondary"));
    let expected = [
        "branch",
        primary.as_str(),
        secondary.as_str(),
        SITE,
        "policy",
        "policy_reject",
        "route_none",
        "spoofed_source",
    ];
    assert_eq!(names, expected);
    world.stop();
}

#[test]
fn spoofed_sources_are_dropped_from_every_side() {
    let world = World::start(&calm(), |lab| {
        let add = |host: &str, link: &str, addresses: &[&str]| {
            lab.host(host).unwrap().address(link, addresses).unwrap();
        };
        add("vnet", "eth0", &["10.9.9.9/32", "fd00:9::9/128"]);
        // A source of the virtual network's own, from outside of it.
        add("pe1", "lo", &["10.1.0.77/32", "fd00:1::77/128"]);
        // The branch's own gateway would stop it, were its address space what the other has agreed to.
        let space = r#"address_space = ["10.3.0.0/16", "fd00:3::/48""#;
        replace(
            &lab.branch,
            space,
            &format!(r#"{space}, "10.9.0.0/16", "fd00:9::/48""#),
        );
        add("branch", "eth0", &["10.9.9.9/32", "fd00:9::9/128"]);
    });
    let gateway = &world.lab.gateway;
    let (vnet, branch) = (world.host("vnet"), world.host("branch"));
    assert!(
        branch
            .reaches(address("10.1.0.10"), crate::harness::PATIENCE)
            .unwrap()
    );
    let inlets = ["10.1.0.10", "fd00:1::10"].map(|to| listen(vnet, (to, FREE)));
    for (from, source, destination) in [
        ("vnet", "10.9.9.9", "10.2.0.10"),
        ("vnet", "fd00:9::9", "fd00:2::10"),
        ("pe1", "10.1.0.77", "10.1.0.10"),
        ("pe1", "fd00:1::77", "fd00:1::10"),
        ("branch", "10.9.9.9", "10.1.0.10"),
        ("branch", "fd00:9::9", "fd00:1::10"),
    ] {
        let before = dropped(gateway, "spoofed_source");
        Datagram::new((source, 43_000), (destination, FREE)).send(world.host(from));
        assert_dropped(gateway, "spoofed_source", before);
    }
    // The same way with an honest source goes through.
    for (inlet, source, destination) in [
        (&inlets[0], "10.3.0.10", "10.1.0.10"),
        (&inlets[1], "fd00:3::10", "fd00:1::10"),
    ] {
        let packet = Datagram::new((source, 43_001), (destination, FREE));
        packet.send(branch);
        assert_arrives(inlet, &packet);
    }
    inlets.iter().for_each(assert_nothing);
    world.stop();
}

/// Everyone else knows a way between branch and premises; the gateway decides.
fn join_branches(lab: &Lab) {
    let premises = r#""10.1.0.0/16", "fd00:1::/48""#;
    for (gateway, more) in [(&lab.branch, "10.2.0.0/16"), (&lab.edge, "10.3.0.0/16")] {
        replace(
            gateway,
            &format!("prefixes   = [{premises}"),
            &format!(r#"prefixes   = [{premises}, "{more}""#),
        );
    }
    replace(
        &lab.edge,
        &format!("prefixes = [{premises}"),
        &format!(r#"prefixes = [{premises}, "10.3.0.0/16""#),
    );
    for (router, gateway) in [("pe1", "172.16.0.2"), ("pe2", "172.16.0.6")] {
        lab.host(router)
            .unwrap()
            .route("10.3.0.0/16", gateway)
            .unwrap();
    }
}

#[test]
fn branches_reach_each_other_only_with_transit() {
    let ends = [("branch", "10.3.0.10"), ("onprem", "10.2.0.10")];
    let ways = [(ends[0], ends[1]), (ends[1], ends[0])];

    let world = World::start(&calm(), join_branches);
    assert!(
        world
            .host("branch")
            .reaches(address("10.1.0.10"), crate::harness::PATIENCE)
            .unwrap()
    );
    for ((from, source), (to, destination)) in ways {
        let inlet = listen(world.host(to), (destination, FREE));
        let mut icmp = IcmpListener::new(world.host(from), true);
        let packet = Datagram::new((source, 44_000), (destination, FREE));
        let before = dropped(&world.lab.gateway, "branch_transit");
        packet.send(world.host(from));
        let told = icmp.error_about(&packet);
        assert_eq!((told.kind, told.code), (3, 13), "{told:?}");
        println!("{from} is told by {}", told.source);
        assert_dropped(&world.lab.gateway, "branch_transit", before);
        assert_nothing(&inlet);
    }
    world.stop();

    let world = World::start(&calm(), |lab| {
        join_branches(lab);
        replace(
            &lab.gateway,
            "[failover]",
            "[failover]\nbranch_transit = true",
        );
    });
    for ((from, source), (to, destination)) in ways {
        let reached = world
            .host(from)
            .reaches(address(destination), crate::harness::PATIENCE);
        assert!(reached.unwrap(), "{from} to {to}");
        let inlet = listen(world.host(to), (destination, FREE));
        let packet = Datagram::new((source, 44_000), (destination, FREE));
        packet.send(world.host(from));
        assert_arrives(&inlet, &packet);
    }
    assert_eq!(dropped(&world.lab.gateway, "branch_transit"), 0);
    world.stop();
}
