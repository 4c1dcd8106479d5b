//! Point-to-site clients: standard WireGuard programs with the file that `vng p2s add` writes.
//!
//! ```text
//!   gateway 1: 192.0.2.1   ----- veth -----  192.0.2.2    one client, wg0
//!              198.51.100.1 ---- veth -----  198.51.100.2  another
//! ```

use crate::peer::{Kind, start_client};
use crate::program::{Background, present};
use crate::stage::{self, Family, PATIENCE, Stage, host_address};
use crate::traffic::{assert_all_arrived, judge, wait_until};
use crypto::key::PrivateKey;
use integration::gateway::Gateway;
use integration::host::{Host, connect};
use integration::stage::wait_for;
use integration::traffic::iperf::Iperf;
use integration::traffic::numbered::{Load, Run};
use serde_json::Value;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const LOAD: Load = Load {
    rate: 2_000,
    flows: 4,
    payload: 200,
};

/// A gateway with a pool, and two places for clients.
struct Scene {
    stage: Stage,
    gateway: Gateway,
    near: Arc<Host>,
    far: [Arc<Host>; 2],
}

impl Scene {
    fn new(control: &'static str, more: &str) -> Self {
        let mut stage = Stage::new();
        stage.control = control;
        let [near, far] = stage::hosts();
        let other = Arc::new(Host::new("other").unwrap());
        connect((&near, "eth2"), (&other, "eth0")).unwrap();
        near.address("eth2", &["198.51.100.1/24"]).unwrap();
        other.address("eth0", &["198.51.100.2/24"]).unwrap();
        let key = PrivateKey::generate().unwrap().to_base64();
        let key = stage.scratch.write("1.key", &key).unwrap();
        let vpn = format!(
            r#"[vpn]
sku              = "Unlimited"   # not changed by who edits the file
private_key_file = "{}"
listen_port      = 51820
public_endpoint  = "192.0.2.1:51820"

[vpn.point_to_site]
address_pool = ["172.31.0.0/24", "fd00:31::/64"]
{more}"#,
            key.display()
        );
        let mut gateway = stage.gateway(&near, 1, "", &vpn);
        gateway.start().unwrap();
        Self {
            stage,
            gateway,
            near,
            far: [far, other],
        }
    }

    fn p2s(&self, words: &[&str]) -> String {
        let config = self.gateway.config().to_str().unwrap();
        let words = [&["p2s"], words, &["--config", config]].concat();
        self.stage.vng(&self.gateway, &words)
    }

    /// Adds a client; its file.
    fn add(&self, name: &str, more: &[&str]) -> (Value, PathBuf) {
        let file = self.stage.scratch.path().join(format!("{name}.conf"));
        let output = file.to_str().unwrap();
        let words = [&["add", name, "--json", "--output", output], more].concat();
        (serde_json::from_str(&self.p2s(&words)).unwrap(), file)
    }

    fn connect(&self, place: usize, kind: Kind, file: &Path) -> Background {
        start_client(&self.stage, &self.far[place], kind, file)
    }

    fn listed(&self, name: &str) -> Value {
        let all: Value = serde_json::from_str(&self.p2s(&["list", "--json"])).unwrap();
        let mut clients = all.as_array().unwrap().iter();
        clients
            .find(|client| client["name"] == *name)
            .cloned()
            .unwrap_or_default()
    }

    fn dropped(&self, reason: &str) -> u64 {
        let counters = self.stage.show(&self.gateway, "counters");
        counters["dropped"][reason]["packets"].as_u64().unwrap_or(0)
    }

    /// Numbered packets between the virtual network and a client.
    fn run(&self, place: usize, client: &str) -> Run {
        let vnet = host_address(1, Family::V4);
        let client: IpAddr = client.parse().unwrap();
        Run::start((&self.near, vnet), (&self.far[place], client), LOAD).unwrap()
    }

    fn assert_reaches(&self, place: usize, addresses: &[&str]) {
        for (family, address) in Family::BOTH.iter().zip(addresses) {
            let (client, vnet) = (&self.far[place], host_address(1, *family));
            assert!(
                client.reaches(vnet, PATIENCE).unwrap(),
                "{vnet}\n{}",
                self.gateway.log()
            );
            let address: IpAddr = address.parse().unwrap();
            for (from, to) in [(client, vnet), (&self.near, address)] {
                for payload in [8, 1_300] {
                    let echoes = from.ping(to, 5, payload, PATIENCE).unwrap();
                    assert_eq!((echoes.sent, echoes.received), (5, 5), "{to} {payload}");
                }
            }
        }
    }
}

#[test]
fn wireguard_go_connects_with_the_file_of_p2s_add_and_is_revoked_under_traffic() {
    from_add_to_revoke(Kind::WireguardGo, "", &[]);
}

#[test]
fn boringtun_connects_with_the_file_of_p2s_add_and_is_revoked_under_traffic() {
    from_add_to_revoke(Kind::Boringtun, "", &["--address", "172.31.0.99"]);
}

#[test]
fn clients_of_three_workers_connect_and_are_revoked() {
    from_add_to_revoke(Kind::WireguardGo, "workers = 3", &[]);
}

fn from_add_to_revoke(kind: Kind, control: &'static str, more: &[&str]) {
    if !present(&[&kind.programs()[..], &["iperf3"]].concat()) {
        return;
    }
    let scene = Scene::new(control, "");
    let before = std::fs::read_to_string(scene.gateway.config()).unwrap();
    // With three workers the third client belongs to the third.
    for name in ["first", "second"] {
        scene.add(name, &[]);
    }
    let psk = scene.stage.scratch.path().join("laptop.psk");
    let secret = ["--preshared-key-file", psk.to_str().unwrap()];
    let (added, file) = scene.add("laptop", &[more, &secret].concat());
    let v4 = more.get(1).copied().unwrap_or("172.31.0.3");
    assert_eq!(
        added["address"],
        serde_json::json!([v4, "fd00:31::3"]),
        "{added:#}"
    );
    assert_eq!(added["gateway"], "reloaded", "{added:#}");
    for secret in [&file, &psk] {
        let mode = std::fs::metadata(secret).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", secret.display());
    }

    let _client = scene.connect(0, kind, &file);
    scene.assert_reaches(0, &[v4, "fd00:31::3"]);
    let server = Iperf::start(&scene.stage.spawner, &scene.near).unwrap();
    for family in Family::BOTH {
        for direction in [&["-t", "2"][..], &["-t", "2", "-R"]] {
            let (from, to) = (&scene.far[0], host_address(1, family));
            let limit = Duration::from_secs(40);
            let end = server
                .run(&scene.stage.spawner, from, to, direction, limit)
                .unwrap();
            let bytes = end["sum_received"]["bytes"].as_u64().unwrap();
            assert!(bytes > 1_000_000, "{family:?} {direction:?}: {end:#}");
        }
    }
    wait_for(
        "the client's bytes are counted",
        || scene.gateway.log(),
        || scene.listed("laptop")["received"]["bytes"].as_u64() > Some(1_000_000),
    );
    let listed = scene.listed("laptop");
    assert_eq!(listed["connected"], true, "{listed:#}");
    assert_eq!(scene.listed("first")["connected"], false);

    let run = scene.run(0, v4);
    wait_until(&run, Duration::from_millis(500));
    scene.p2s(&["revoke", "laptop"]);
    let dead = run.now();
    assert_eq!(scene.listed("laptop"), Value::Null);
    wait_until(&run, Duration::from_millis(1_500));
    let [there, back] = run.finish().unwrap();
    for (record, way) in [(there, "to the client"), (back, "from the client")] {
        // What had passed the gateway before may still be on its way.
        let slack = 50_000_000;
        let (before, after) = (record.judge(0, dead), record.judge(dead + slack, u64::MAX));
        assert!(
            before.received > 0 && after.sent > 0,
            "{way}: {before:?} {after:?}"
        );
        assert_eq!(after.received, 0, "{way}: {after:?}");
    }
    assert!(scene.dropped("no_client") > 0 && scene.dropped("tunnel_unknown_index") > 0);
    // It notices that nobody answers, and calls; nobody answers that either.
    let vnet = host_address(1, Family::V4);
    wait_for(
        "a handshake of the revoked client is refused",
        || scene.gateway.log(),
        || {
            assert_eq!(
                scene.far[0]
                    .ping(vnet, 1, 8, Duration::from_millis(100))
                    .unwrap()
                    .received,
                0
            );
            scene.dropped("tunnel_unknown_peer") > 0
        },
    );
    for name in ["first", "second"] {
        scene.p2s(&["revoke", name]);
    }
    let after = std::fs::read_to_string(scene.gateway.config()).unwrap();
    assert_eq!(after, before, "the file is as it was");
    let mut expected = vec!["no_client", "tunnel_unknown_index", "tunnel_unknown_peer"];
    expected.extend([
        "tunnel_no_session",
        "too_big",
        "handover_full",
        "tunnel_malformed",
    ]);
    scene.stage.assert_books(&scene.gateway, &expected);
    let mut gateway = scene.gateway;
    gateway.stop().unwrap();
}

#[test]
fn clients_and_sites_that_come_and_go_cost_another_client_no_packet() {
    let kind = Kind::WireguardGo;
    if !present(&kind.programs()) {
        return;
    }
    for control in ["", "workers = 2"] {
        let scene = Scene::new(control, "");
        let (_, file) = scene.add("steady", &[]);
        let _steady = scene.connect(0, kind, &file);
        scene.assert_reaches(0, &["172.31.0.1"]);
        let run = scene.run(0, "172.31.0.1");
        wait_until(&run, Duration::from_millis(300));
        let (added, file) = scene.add("guest", &[]);
        assert_eq!(added["address"][0], "172.31.0.2");
        let guest = scene.connect(1, kind, &at_other_address(&scene, &file));
        scene.assert_reaches(1, &["172.31.0.2"]);
        for n in 0..20 {
            scene.add(&format!("more-{n}"), &[]);
        }
        scene.p2s(&["revoke", "guest"]);
        let there = "10.1.0.4".parse().unwrap();
        let echoes = scene.far[1]
            .ping(there, 2, 8, Duration::from_millis(300))
            .unwrap();
        assert_eq!(echoes.received, 0);
        // The address is free again, and goes to the next.
        let (added, _) = scene.add("next", &[]);
        assert_eq!(added["address"][0], "172.31.0.2");
        wait_until(&run, Duration::from_secs(1));
        assert_all_arrived(run, 500);
        drop(guest);
        let expected = ["tunnel_unknown_index", "tunnel_unknown_peer", "no_client"];
        scene.stage.assert_books(&scene.gateway, &expected);
        let Scene { mut gateway, .. } = scene;
        gateway.stop().unwrap();
    }
}

/// The file of a client at the other place, which knows the gateway by its other address.
fn at_other_address(scene: &Scene, file: &Path) -> PathBuf {
    let text = std::fs::read_to_string(file).unwrap();
    let text = text.replace("192.0.2.1:", "198.51.100.1:");
    scene.stage.scratch.write("other.conf", &text).unwrap()
}

#[test]
fn clients_use_no_addresses_but_their_own_and_reach_each_other_with_transit_only() {
    let kind = Kind::WireguardGo;
    if !present(&kind.programs()) {
        return;
    }
    let scene = Scene::new("", "");
    let (_, one) = scene.add("one", &[]);
    let (_, two) = scene.add("two", &[]);
    let text = std::fs::read_to_string(&one).unwrap();
    // Everything into the tunnel, so that it is the gateway that refuses.
    let everything = text.replace("AllowedIPs = ", "AllowedIPs = 172.31.0.0/24, ");
    let one = scene
        .stage
        .scratch
        .write("one-all.conf", &everything)
        .unwrap();
    let _one = scene.connect(0, kind, &one);
    let text = std::fs::read_to_string(&two).unwrap();
    let everything = text.replace("AllowedIPs = ", "AllowedIPs = 172.31.0.0/24, ");
    let two = scene.stage.scratch.write("two.conf", &everything).unwrap();
    let _two = scene.connect(1, kind, &at_other_address(&scene, &two));
    for (place, address) in ["172.31.0.1", "172.31.0.2"].iter().enumerate() {
        scene.assert_reaches(place, &[address]);
    }
    let other: IpAddr = "172.31.0.2".parse().unwrap();
    let ping = || {
        scene.far[0]
            .ping(other, 2, 8, Duration::from_millis(300))
            .unwrap()
            .received
    };
    assert_eq!(ping(), 0);
    assert_eq!(scene.dropped("branch_transit"), 2);

    let text = std::fs::read_to_string(scene.gateway.config()).unwrap();
    let transit = text.replace(
        "hold_down = \"1s\"",
        "hold_down = \"1s\"\nbranch_transit = true",
    );
    assert_ne!(text, transit);
    std::fs::write(scene.gateway.config(), transit).unwrap();
    scene.stage.vng(&scene.gateway, &["reload"]);
    assert_eq!(ping(), 2);

    // An address of the pool that is another client's, and one of the virtual network.
    scene.far[0]
        .address("wg0", &["172.31.0.9/32", "10.1.0.9/32"])
        .unwrap();
    for source in ["172.31.0.9", "10.1.0.9"] {
        let vnet = (host_address(1, Family::V4), 9);
        let sent = scene.far[0].run(|| {
            let socket = std::net::UdpSocket::bind((source, 0)).unwrap();
            (0..3)
                .map(|_| socket.send_to(&[0; 64], vnet).unwrap())
                .sum::<usize>()
        });
        assert_eq!(sent.unwrap(), 3 * 64);
    }
    wait_for(
        "forged sources are dropped",
        || scene.gateway.log(),
        || scene.dropped("spoofed_source") == 6,
    );
    scene
        .stage
        .assert_books(&scene.gateway, &["branch_transit", "spoofed_source"]);
    let routes = scene.stage.show(&scene.gateway, "routes");
    let pool = routes
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["prefix"] == "172.31.0.0/24");
    let pool = pool.unwrap();
    assert_eq!(
        (&pool["state"], &pool["next_hop_type"], &pool["paths"][0]),
        (
            &"Active".into(),
            &"VirtualNetworkGateway".into(),
            &"point-to-site".into()
        ),
        "{routes:#}"
    );
    let Scene { mut gateway, .. } = scene;
    gateway.stop().unwrap();
}

#[test]
fn a_client_roams_and_its_flow_goes_on() {
    let kind = Kind::WireguardGo;
    if !present(&kind.programs()) {
        return;
    }
    let scene = Scene::new("", "");
    let (_, file) = scene.add("laptop", &[]);
    let client = scene.connect(0, kind, &file);
    scene.assert_reaches(0, &["172.31.0.1"]);
    let endpoint = |scene: &Scene| {
        scene.listed("laptop")["endpoint"]
            .as_str()
            .map(str::to_owned)
    };
    wait_for(
        "the endpoint is known",
        || scene.gateway.log(),
        || endpoint(&scene).is_some_and(|at| at.starts_with("192.0.2.2:")),
    );
    drop(client);
    // Another network, another port.
    let _client = scene.connect(1, kind, &at_other_address(&scene, &file));
    scene.assert_reaches(1, &["172.31.0.1"]);
    wait_for(
        "the endpoint has moved",
        || scene.gateway.log(),
        || endpoint(&scene).is_some_and(|at| at.starts_with("198.51.100.2:")),
    );
    let run = scene.run(1, "172.31.0.1");
    wait_until(&run, Duration::from_millis(600));
    let [there, _] = judge(run);
    assert_eq!(there.lost, 0);
    let Scene { mut gateway, .. } = scene;
    gateway.stop().unwrap();
}
