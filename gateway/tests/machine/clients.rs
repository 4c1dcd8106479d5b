//! What `vng explain` says of point-to-site clients, beside what the data path does with the same packets.

use crate::place::{PATIENCE, Place, VNG, VPN};
use gateway::api::What;
use serde_json::Value;
use std::net::UdpSocket;
use std::time::Instant;

const CLIENTS: &str = r#"
[vpn.point_to_site]
address_pool = ["172.31.0.0/24"]

  [[vpn.point_to_site.client]]
  name       = "laptop"
  public_key = "8JvTuMkXkC4yKZlUBTiAX6vCmU4EKcaq6R7ZSiJwVQY="
  address    = "172.31.0.2"
"#;

fn explain(place: &Place, more: &[&str]) -> Value {
    let mut arguments = vec!["explain", "--json", "--protocol", "udp", "--dport", "9"];
    arguments.extend(more);
    let ended = place.command(VNG, &arguments).output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    serde_json::from_slice(&ended.stdout).unwrap()
}

fn dropped(counters: &Value, reason: &str) -> u64 {
    counters["dropped"][reason]["packets"].as_u64().unwrap_or(0)
}

/// `explain` used to say "forward" of packets that nobody ever got.
#[test]
fn explain_says_of_clients_what_the_data_path_does() {
    let place = Place::new(&format!("{VPN}{CLIENTS}"), "");
    let mut running = place.shell("exec $VNG run -c vng.toml");
    running.wait_until_ready();
    let routed = place.shell("ip route add 172.31.0.0/24 dev vng0").end();
    assert_eq!(routed.0, Some(0), "{routed:?}");
    let socket = place.socket();
    let socket = socket.to_str().unwrap();
    for (to, reason) in [
        ("172.31.0.2", "tunnel_no_session"),
        ("172.31.0.77", "no_client"),
    ] {
        let told = explain(&place, &["-s", socket, "--src", "10.1.0.4", "--dst", to]);
        let before = dropped(&place.ask(What::Counters).unwrap(), reason);
        let sent = place.space.run(|| {
            let from = UdpSocket::bind("10.1.0.4:0").unwrap();
            (0..5).all(|_| from.send_to(b"anybody?", (to, 9)).is_ok())
        });
        assert!(sent.unwrap());
        let until = Instant::now() + PATIENCE;
        place.wait_for(What::Counters, |counters| {
            assert!(Instant::now() < until, "{to}: {counters}");
            dropped(counters, reason) == before + 5
        });
        assert_eq!(
            (&told["verdict"], &told["reason"]),
            (&"drop".into(), &reason.into()),
            "{to}: {told}"
        );
        assert_eq!(told["member"], Value::Null, "{told}");
    }
    let (status, _, said) = running.stop();
    assert_eq!(status, Some(0), "{said}");

    // Offline every client is taken for connected, and it is said what if it is not.
    let offline = |to: &str| {
        explain(
            &place,
            &["-c", "vng.toml", "--src", "10.1.0.4", "--dst", to],
        )
    };
    let nobody = offline("172.31.0.77");
    assert_eq!(
        (&nobody["verdict"], &nobody["reason"]),
        (&"drop".into(), &"no_client".into())
    );
    let laptop = offline("172.31.0.2");
    assert_eq!(laptop["verdict"], "forward");
    let otherwise = laptop["would_change"].as_array().unwrap();
    let otherwise = otherwise
        .iter()
        .find(|one| one["if"] == "laptop has not called")
        .unwrap();
    assert_eq!(otherwise["reason"], "tunnel_no_session");

    // From the pool, with an address that no client has, and as a client with another's.
    for (from, source, reason) in [
        ("point-to-site", "172.31.0.77", "spoofed_source"),
        ("laptop", "172.31.0.3", "spoofed_source"),
        ("laptop", "172.31.0.2", "route"),
    ] {
        let told = explain(
            &place,
            &[
                "-c", "vng.toml", "--from", from, "--src", source, "--dst", "10.1.0.4",
            ],
        );
        assert_eq!(told["reason"], reason, "{from} {source}: {told}");
    }
}
