//! A control socket that a gateway of fixed answers serves, and `vng` beside it.

// Not every test program uses all of it.
#![allow(dead_code)]

use gateway::api::{Gateway, Server, Serving};
use gateway::control::path::mistagged::Seen;
use gateway::show::refusal::Refusal;
use gateway::show::view::{
    BgpView, CircuitView, ClientView, Counters, Event, ExplainedRoute, Explanation, FlowCount,
    FlowView, Flows, GatewayStatus, HostStatus, LimitUse, LinkView, NeighborView, PathStatus,
    PolicyView, ProbeStatus, Query, ReloadReport, Resize, ResizeReport, RouteFilter, RouteView,
    Status, TunnelView,
};
use gateway::telemetry::ledger::{Sum, Totals};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

/// A gateway that always says the same.
pub(crate) struct Fixed;

const SUM: Sum = Sum {
    packets: 1_234,
    bytes: 5_678_901,
};

impl Gateway for Fixed {
    fn status(&self) -> Status {
        Status {
            name: "vnet-lab".into(),
            version: "0.1.0".into(),
            config: "/etc/vng/vng.toml".into(),
            uptime_seconds: 4_321.0,
            incarnation: 0,
            recreated: None,
            device: "vng0".into(),
            address: vec!["10.1.255.4/27".parse().unwrap()],
            workers: 1,
            offloads: BTreeMap::from([
                ("vnet".into(), vec!["checksum".into(), "TSO".into()]),
                ("er-sydney/primary".into(), Vec::new()),
            ]),
            host: HostStatus::default(),
            gateways: vec![GatewayStatus {
                kind: "ExpressRoute".into(),
                sku: "ErGw1Az".into(),
                limit_bits_per_second: Some(1_000_000_000),
                limit_packets_per_second: Some(100_000),
                limit_flows: Some(200_000),
                bits_in_per_second: 345_600_000.0,
                bits_out_per_second: 12_300.0,
                packets_per_second: 31_000.0,
                limit_used: Some(0.346),
                active_flows: 42,
                edition: "current".into(),
                generation: None,
                public_key: None,
                limits: vec![
                    LimitUse {
                        name: "BitsPerSecond".into(),
                        used: 345_612_300,
                        limit: Some(1_000_000_000),
                    },
                    LimitUse {
                        name: "MaxFlowsCreationRate".into(),
                        used: 17,
                        limit: Some(7_000),
                    },
                ],
            }],
            paths: vec![
                PathStatus {
                    name: "er/primary".into(),
                    kind: "ExpressRoute".into(),
                    connection: None,
                    state: "down".into(),
                    reason: Some("no_carrier".into()),
                    since_seconds: 3.2,
                    in_use: false,
                    probe: Some(ProbeStatus {
                        target: "10.2.0.1".parse().unwrap(),
                        sent: 10,
                        answered: 7,
                        lost: 3,
                        returned_by: None,
                        round_trip_ms: Some(0.412),
                    }),
                },
                PathStatus {
                    name: "onprem".into(),
                    kind: "Vpn".into(),
                    connection: Some("site-to-site".into()),
                    state: "up".into(),
                    since_seconds: 4_000.0,
                    in_use: true,
                    ..PathStatus::default()
                },
            ],
            ledger_balanced: true,
            events: vec![Event {
                detected_unix_ms: 1_000.0,
                switched_unix_ms: Some(1_000.25),
                path: "er/primary".into(),
                from: "up".into(),
                to: "down".into(),
                reason: Some("no_carrier".into()),
            }],
        }
    }

    fn routes(&self, filter: &RouteFilter) -> Result<Vec<RouteView>, Refusal> {
        if filter.source.as_deref() == Some("bgp") {
            return Ok(Vec::new());
        }
        Ok(vec![RouteView {
            state: "Active".into(),
            source: "static".into(),
            prefix: "10.2.0.0/16".parse().unwrap(),
            next_hop_type: "VirtualNetworkGateway".into(),
            next_hop: Some("er".into()),
            weight: 100,
            as_path_length: 0,
            paths: vec!["er/primary".into()],
            standby: false,
            why: None,
        }])
    }

    fn policy(&self) -> Vec<PolicyView> {
        vec![PolicyView {
            order: 1,
            name: "no-telnet".into(),
            matches: "from vnet; protocol tcp; destination port 23".into(),
            action: "drop".into(),
            hits: Some(Sum {
                packets: 7,
                bytes: 4_200,
            }),
            out_of_reach: Some("all takes all that it would match".into()),
            ..PolicyView::default()
        }]
    }

    fn circuits(&self) -> Vec<CircuitView> {
        vec![CircuitView {
            name: "er".into(),
            model: "colocated".into(),
            model_name: "Cloud exchange co-location".into(),
            wire: "layer 2, QinQ, own tags and ARP".into(),
            prefixes: vec!["10.2.0.0/16".parse().unwrap()],
            links: vec![LinkView {
                name: "primary".into(),
                interface: "eth1".into(),
                vlan: vec![100, 10],
                mac: Some("02:00:00:00:00:01".into()),
                state: "down".into(),
                reason: Some("no_carrier".into()),
                received: SUM,
                mistagged: Some(Seen {
                    frames: 1_234,
                    tags: "VLAN 200".into(),
                }),
                ..LinkView::default()
            }],
        }]
    }

    fn tunnels(&self) -> Vec<TunnelView> {
        vec![TunnelView {
            name: "onprem".into(),
            kind: "site-to-site".into(),
            state: "up".into(),
            public_key: "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".into(),
            endpoint: Some("203.0.113.10:51820".parse().unwrap()),
            last_handshake_seconds: Some(61.0),
            handshakes: 3,
            ingress: SUM,
            egress: SUM,
            prefixes: vec!["10.2.0.0/16".parse().unwrap()],
            ..TunnelView::default()
        }]
    }

    fn clients(&self) -> Vec<ClientView> {
        vec![
            ClientView {
                name: "laptop".into(),
                address: vec!["172.31.0.2".parse().unwrap()],
                public_key: "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".into(),
                connected: Some(true),
                endpoint: Some("198.51.100.7:40123".parse().unwrap()),
                last_handshake_seconds: Some(61.0),
                handshakes: 3,
                ingress: SUM,
                egress: SUM,
            },
            ClientView {
                name: "phone".into(),
                address: vec!["172.31.0.3".parse().unwrap()],
                connected: Some(false),
                ..ClientView::default()
            },
        ]
    }

    fn neighbors(&self) -> Vec<NeighborView> {
        vec![NeighborView {
            path: "er/primary".into(),
            interface: "eth1".into(),
            side: "provider".into(),
            address: "172.16.0.1".parse().unwrap(),
            mac: None,
            state: "incomplete".into(),
            age_seconds: None,
            previous_mac: None,
            changed_seconds: None,
            conflict_mac: None,
        }]
    }

    fn bgp(&self) -> Vec<BgpView> {
        vec![BgpView {
            path: "er/primary".into(),
            neighbor: "172.16.0.1".parse().unwrap(),
            asn: 65_020,
            state: "not run".into(),
            routes_learned: 0,
            routes_advertised: 0,
        }]
    }

    fn flows(&self) -> Flows {
        Flows {
            active: 1,
            limit: Some(200_000),
            gateways: vec![FlowCount {
                kind: "ExpressRoute".into(),
                active: 1,
                limit: Some(200_000),
                new_per_second: 12.0,
                limit_new_per_second: Some(7_000),
                opened: 4_321,
                refused: 9,
            }],
            flows: vec![FlowView {
                protocol: "tcp".into(),
                source: "10.1.0.4".parse().unwrap(),
                source_port: 40_000,
                destination: "fd00:2::5".parse().unwrap(),
                destination_port: 443,
                from: "vnet".into(),
                path: "onprem".into(),
                idle_seconds: Some(0.05),
                age_seconds: Some(75.0),
            }],
        }
    }

    fn counters(&self) -> Counters {
        let mut totals = Totals::default();
        totals.received.insert("vnet".into(), SUM);
        totals.sent.insert("onprem".into(), SUM);
        let one = Sum {
            packets: 1,
            bytes: 60,
        };
        totals.dropped.insert("no_route".into(), one);
        totals.offload_refused.insert("onprem".into(), 3);
        Counters::new(totals, BTreeMap::from([("eth1".into(), 9)]))
    }

    fn explain(&self, query: &Query) -> Result<Explanation, Refusal> {
        if query.from != "vnet" {
            return Err(Refusal::bad("nothing has this name"));
        }
        Ok(Explanation {
            verdict: "forward".into(),
            reason: "route".into(),
            route: Some(ExplainedRoute {
                prefix: "10.2.0.0/16".parse().unwrap(),
                source: "static".into(),
            }),
            path: Some("er".into()),
            member: Some("er/primary".into()),
            ..Explanation::default()
        })
    }

    fn reload(&self) -> Result<ReloadReport, Refusal> {
        Ok(ReloadReport {
            changed: vec!["route 10.9.0.0/16 added".into()],
            ..ReloadReport::default()
        })
    }

    fn resize(&self, resize: &Resize) -> Result<ResizeReport, Refusal> {
        if resize.sku != "VpnGw3" {
            return Err(Refusal::failed(format!(
                "{} stays",
                resize.gateway.section()
            )));
        }
        Ok(ResizeReport {
            gateway: resize.gateway.section().into(),
            from: "VpnGw2".into(),
            to: resize.sku.clone(),
            in_place: true,
            ..ResizeReport::default()
        })
    }

    fn revoke(&self, client: &str) -> Result<bool, Refusal> {
        Ok(client == "laptop")
    }
}

pub(crate) struct Lab {
    pub(crate) directory: tempfile::TempDir,
    _serving: Serving,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::bind(&directory.path().join("vng.sock")).unwrap();
        Self {
            directory,
            _serving: server.serve(Arc::new(Fixed)).unwrap(),
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("vng.sock")
    }

    pub(crate) fn vng(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_vng"))
            .args(arguments)
            .arg("-s")
            .arg(self.socket())
            .output()
            .unwrap()
    }

    pub(crate) fn text(&self, arguments: &[&str]) -> String {
        let output = self.vng(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(&[arguments, &["--json"]].concat())).unwrap()
    }
}
