//! `vng replay`: decisions, their hash, and which limit of a SKU binds first.

// The builders and drivers below the tests unwrap as well.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use ring::digest::{SHA256, digest};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const EXAMPLE: &str = "../docs/examples/coexist.toml";

struct Lab(tempfile::TempDir);

/// A packet to be captured: microseconds, source, destination, destination port, bytes of payload.
type Shot = (u64, [u8; 4], [u8; 4], u16, usize);

const VNET: [u8; 4] = [10, 1, 0, 4];
const ONPREM: [u8; 4] = [10, 2, 0, 9];
const SITE_ONLY: [u8; 4] = [10, 3, 0, 9];

impl Lab {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn capture(&self, name: &str, shots: &[Shot]) -> PathBuf {
        self.raw(
            name,
            &shots
                .iter()
                .map(|&(at, from, to, port, len)| (at, udp(from, to, port, len)))
                .collect::<Vec<_>>(),
        )
    }

    fn raw(&self, name: &str, packets: &[(u64, Vec<u8>)]) -> PathBuf {
        let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
        file.extend([0; 8]);
        file.extend(65_535_u32.to_le_bytes());
        file.extend(101_u32.to_le_bytes());
        for (at, packet) in packets {
            let length = packet.len() as u32;
            for word in [
                1_000 + (at / 1_000_000) as u32,
                (at % 1_000_000) as u32,
                length,
                length,
            ] {
                file.extend(word.to_le_bytes());
            }
            file.extend(packet);
        }
        let path = self.path(name);
        fs::write(&path, file).unwrap();
        path
    }

    fn config(&self, change: impl FnOnce(String) -> String) -> PathBuf {
        let path = self.path("changed.toml");
        fs::write(&path, change(fs::read_to_string(EXAMPLE).unwrap())).unwrap();
        path
    }
}

fn udp(from: [u8; 4], to: [u8; 4], port: u16, payload: usize) -> Vec<u8> {
    let length = 28 + payload;
    let said = length as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(said.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend(from);
    packet.extend(to);
    let sum: u32 = packet
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(40_000_u16.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend(said.wrapping_sub(20).to_be_bytes());
    packet.resize(length, 0);
    packet
}

fn replay(capture: &Path, config: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vng"))
        .arg("replay")
        .arg(capture)
        .arg("-c")
        .arg(config)
        .args(more)
        .output()
        .unwrap()
}

fn json(capture: &Path, config: &Path, more: &[&str]) -> Value {
    let output = replay(capture, config, &[more, &["--json"]].concat());
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn some() -> Vec<Shot> {
    vec![
        (0, VNET, ONPREM, 443, 100),
        (10, ONPREM, VNET, 443, 100),
        (20, VNET, SITE_ONLY, 443, 100),
        (30, SITE_ONLY, VNET, 443, 100),
        (40, VNET, [10, 9, 0, 1], 443, 100),
        (50, [198, 51, 100, 1], VNET, 443, 100),
        (60, VNET, [10, 1, 255, 4], 443, 100),
        (2_000_060, VNET, ONPREM, 443, 1_000),
    ]
}

#[test]
fn decisions_are_shown_and_their_hash_is_that_of_the_lines() {
    let lab = Lab::new();
    let capture = lab.capture("some.pcap", &some());
    let example = Path::new(EXAMPLE);
    let report = json(&capture, example, &[]);
    assert_eq!(
        (report["packets"].as_u64(), report["seconds"].as_f64()),
        (Some(8), Some(2.0))
    );
    let row = |verdict: &str, path: Value, reason: &str| {
        let rows = report["decisions"].as_array().unwrap();
        let found: u64 = rows
            .iter()
            .filter(|row| {
                row["verdict"] == verdict && row["path"] == path && row["reason"] == reason
            })
            .map(|row| row["packets"].as_u64().unwrap())
            .sum();
        found
    };
    let links: u64 = ["er-sydney/primary", "er-sydney/secondary"]
        .iter()
        .map(|link| row("forward", Value::from(*link), "route"))
        .sum();
    assert_eq!(links, 2);
    assert_eq!(row("forward", "onprem".into(), "route"), 1);
    assert_eq!(row("forward", "vnet".into(), "route"), 2);
    assert_eq!(row("drop", Value::Null, "route_none"), 1);
    assert_eq!(row("skipped", Value::Null, "no_ingress"), 1);
    assert_eq!(row("local", "local".into(), "own_address"), 1);

    // The lines are what is hashed: anybody can hash them again.
    let lines = replay(&capture, example, &["--verbose"]);
    let text = String::from_utf8(lines.stdout).unwrap();
    assert_eq!(text.lines().count(), 8);
    let again = digest(&SHA256, text.as_bytes());
    let again: Vec<String> = again
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(report["hash"]["value"], Value::from(again.concat()));
}

/// One interface of 802.11, one of bare packets; a packet of TCP that is longer than its header can say.
#[test]
fn standard_input_is_read_unknown_links_are_counted_and_big_packets_are_their_segments() {
    let block = |kind: u32, body: &[u8]| {
        let length = (body.len() as u32 + 12).to_le_bytes();
        [&kind.to_le_bytes(), &length[..], body, &length].concat()
    };
    let packet = |interface: u32, data: &[u8]| {
        let length = data.len() as u32;
        let words = [interface, 0, 1, length, length];
        let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        body.extend(data);
        body.resize(body.len().next_multiple_of(4), 0);
        block(6, &body)
    };
    let mut big = udp(VNET, ONPREM, 443, 100_000 - 28);
    big[2..4].copy_from_slice(&[0, 0]);
    big[9] = 6;
    // A TCP header of 20 bytes, of which the ports are there.
    big[32] = 0x50;
    let mut section = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
    section.extend([1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    let file = [
        block(0x0a0d_0d0a, &section),
        block(1, &[105, 0, 0, 0, 0, 0, 0, 0]),
        block(1, &[12, 0, 0, 0, 0, 0, 0, 0]),
        packet(0, &[1, 2, 3, 4]),
        packet(1, &udp(VNET, ONPREM, 443, 100)),
        packet(1, &big),
        packet(0, &[1, 2, 3, 4]),
    ]
    .concat();
    let mut child = Command::new(env!("CARGO_BIN_EXE_vng"))
        .args(["replay", "-", "-c", EXAMPLE, "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, &file).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["unread_link_types"], serde_json::json!({ "105": 2 }));
    assert_eq!(report["super_packets"], 1);
    // 99,960 bytes of payload in segments of 1,460, or less where the way in has a smaller MTU.
    let segments = report["packets"].as_u64().unwrap() - 3;
    assert!((69..=75).contains(&segments), "{report:#}");
}

/// The route table leads to the clients' pool; which addresses of it are somebody's the workers know.
#[test]
fn addresses_of_the_pool_that_no_client_has_are_dropped() {
    let lab = Lab::new();
    let shots = [
        (0, VNET, [172, 31, 0, 2], 443, 100),
        (10, VNET, [172, 31, 0, 77], 443, 100),
        (20, [172, 31, 0, 2], VNET, 443, 100),
        (30, [172, 31, 0, 77], VNET, 443, 100),
    ];
    let report = json(&lab.capture("pool.pcap", &shots), Path::new(EXAMPLE), &[]);
    let rows = report["decisions"].as_array().unwrap().iter();
    let mut fates: Vec<(&str, &str)> = rows
        .map(|row| {
            (
                row["path"].as_str().unwrap_or("-"),
                row["reason"].as_str().unwrap(),
            )
        })
        .collect();
    fates.sort_unstable();
    let wanted = [
        ("-", "spoofed_source"),
        ("point-to-site", "no_client"),
        ("point-to-site", "route"),
        ("vnet", "route"),
    ];
    assert_eq!(fates, wanted, "{report}");
}

#[test]
fn the_same_input_has_the_same_hash_and_another_decision_another() {
    let lab = Lab::new();
    let capture = lab.capture("some.pcap", &some());
    let example = Path::new(EXAMPLE);
    let hash = |config: &Path, more: &[&str]| json(&capture, config, more)["hash"]["value"].clone();
    let first = hash(example, &[]);
    for _ in 0..3 {
        assert_eq!(hash(example, &[]), first);
    }
    assert_ne!(hash(example, &["--down", "er-sydney"]), first);
    assert_ne!(hash(example, &["--limit", "7"]), first);
    let dropped = lab.config(|text| {
        text + "\n[[policy]]\nname = \"no-web\"\nmatch = { destination_port = 443, destination = \"10.3.0.0/16\" }\naction = \"drop\"\n"
    });
    assert_ne!(hash(&dropped, &[]), first);
    let renamed = lab.config(|text| text.replace("no-telnet", "never-telnet"));
    assert_eq!(
        hash(&renamed, &[]),
        first,
        "a rule that no packet meets plays no part"
    );
}

#[test]
fn a_policy_its_dscp_and_the_way_in_that_was_asked_for_are_shown() {
    let lab = Lab::new();
    let capture = lab.capture(
        "some.pcap",
        &[(0, VNET, ONPREM, 443, 10), (1, ONPREM, VNET, 443, 10)],
    );
    let config = lab.config(|text| {
        text + "\n[[policy]]\nname = \"mark\"\nmatch = { destination_port = 443, from = \"vnet\" }\naction = { via = \"onprem\", set_dscp = \"af21\" }\n"
    });
    let report = json(&capture, &config, &["--limit", "1"]);
    let row = &report["decisions"][0];
    assert_eq!(
        (&row["policy"], &row["set_dscp"], &row["path"]),
        (&"mark".into(), &"af21".into(), &"onprem".into())
    );
    let report = json(&capture, &config, &["--from", "onprem"]);
    let rows = report["decisions"].as_array().unwrap();
    assert!(
        rows.iter().any(|row| row["reason"] == "spoofed_source"),
        "{rows:?}"
    );
    let wrong = replay(&capture, &config, &["--from", "nobody"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("er-sydney/primary"));
}

#[test]
fn the_limit_that_binds_first_is_named_with_how_much() {
    let lab = Lab::new();
    // In the second second: 300 packets of 1,028 bytes to the site, of which 150 flows are new.
    let mut shots: Vec<Shot> = vec![(0, VNET, SITE_ONLY, 1, 1_000)];
    shots.extend((0..300).map(|n| (1_000_000 + n, VNET, SITE_ONLY, 1 + (n % 151) as u16, 1_000)));
    shots.push((1_000_400, VNET, ONPREM, 1, 1_000));
    let capture = lab.capture("peak.pcap", &shots);
    let report = json(
        &capture,
        Path::new(EXAMPLE),
        &["--sku", "VpnGw1,ErGw1Az,Unlimited"],
    );
    let what_if = report["what_if"].as_array().unwrap();
    let of = |sku: &str, gateway: &str| {
        what_if
            .iter()
            .find(|one| one["sku"] == sku && one["gateway"] == gateway)
            .unwrap_or_else(|| panic!("{sku} of {gateway} in {what_if:?}"))
    };
    let limit = |one: &Value, limit: &str, of: &str| {
        let limits = one["limits"].as_array().unwrap();
        limits
            .iter()
            .find(|one| one["limit"] == limit && one["of"] == of)
            .unwrap()
            .clone()
    };
    let vpn = of("VpnGw1", "Vpn");
    assert_eq!(
        (&vpn["exceeded"], &vpn["first"]),
        (&false.into(), &"packets/s".into())
    );
    let tunnel = limit(vpn, "packets/s", "tunnel onprem");
    assert_eq!(
        (&tunnel["allowed"], &tunnel["peak"], &tunnel["at_second"]),
        (&62_000.into(), &300.into(), &1.into())
    );
    let bits = limit(vpn, "bits/s", "gateway");
    assert_eq!(
        (&bits["allowed"], &bits["peak"]),
        (&650_000_000.into(), &(300 * 1_028 * 8).into())
    );
    assert_eq!(limit(vpn, "flows", "gateway")["peak"], 151);
    let expressroute = of("ErGw1Az", "ExpressRoute");
    assert_eq!(limit(expressroute, "new flows/s", "gateway")["peak"], 1);
    assert!(
        of("Unlimited", "Vpn")["limits"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert_eq!(of("Unlimited", "ExpressRoute")["first"], Value::Null);

    // A burst beyond what the smallest tunnel takes: it binds, and says for how long and by how much.
    let burst: Vec<Shot> = (0..70_000).map(|n| (n, VNET, SITE_ONLY, 9, 0)).collect();
    let capture = lab.capture("burst.pcap", &burst);
    let report = json(&capture, Path::new(EXAMPLE), &["--sku", "VpnGw1"]);
    let vpn = &report["what_if"][0];
    assert_eq!(
        (&vpn["exceeded"], &vpn["first"]),
        (&true.into(), &"packets/s".into())
    );
    let tunnel = limit(vpn, "packets/s", "tunnel onprem");
    assert_eq!(
        (&tunnel["seconds_over"], &tunnel["beyond"]),
        (&1.into(), &8_000.into())
    );
    let text = replay(&capture, Path::new(EXAMPLE), &["--sku", "VpnGw1"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(
        text.contains("binds first: packets/s of tunnel onprem: 70,000 of 62,000 (112.9 %)"),
        "{text}"
    );

    let unknown = replay(&capture, Path::new(EXAMPLE), &["--sku", "VpnGw9"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("VpnGw5"));
}

#[test]
fn garbage_is_counted_and_a_damaged_file_is_told_behind_its_results() {
    let lab = Lab::new();
    let garbage = vec![
        (0, udp(VNET, ONPREM, 443, 10)),
        (1, vec![0x45; 7]),
        (2, vec![]),
        (3, vec![0xff; 60]),
    ];
    let capture = lab.raw("garbage.pcap", &garbage);
    let report = json(&capture, Path::new(EXAMPLE), &[]);
    assert_eq!(report["packets"], 4);
    let rows = report["decisions"].as_array().unwrap();
    let dropped: u64 = rows
        .iter()
        .filter(|row| row["verdict"] == "drop")
        .map(|row| row["packets"].as_u64().unwrap())
        .sum();
    assert_eq!(dropped, 3, "{rows:?}");

    let whole = fs::read(&capture).unwrap();
    let short = lab.path("short.pcap");
    fs::write(&short, &whole[..24 + 16 + 38 + 5]).unwrap();
    let output = replay(&short, Path::new(EXAMPLE), &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["packets"], 1);
    assert!(
        report["damaged"]
            .as_str()
            .unwrap()
            .contains("middle of a record")
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("middle of a record"));

    for (name, bytes) in [("empty", &b""[..]), ("text", b"hello world")] {
        let path = lab.path(name);
        fs::write(&path, bytes).unwrap();
        assert_eq!(
            replay(&path, Path::new(EXAMPLE), &[]).status.code(),
            Some(2),
            "{name}"
        );
    }
    assert_eq!(
        replay(&lab.path("missing"), Path::new(EXAMPLE), &[])
            .status
            .code(),
        Some(2)
    );
}
