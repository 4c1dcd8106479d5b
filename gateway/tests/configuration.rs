//! The configuration file: examples that must pass, broken files that must be told what is wrong.
//!
//! Every file in `broken/` ends with what must be found in it, one line each, in order:
//! `#! LINE:COLUMN SEVERITY: TITLE | FOUND | part of what is allowed | part of the help`
#![allow(clippy::unwrap_used)] // a helper of tests that fails is a test that fails

use gateway::config::{self, KeyFiles, LoadError, Report};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

fn toml_files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut files: Vec<PathBuf> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    files
}

/// What a file must be told, as its foot says.
struct Expected<'a> {
    place_and_title: &'a str,
    found: &'a str,
    allowed: &'a str,
    help: &'a str,
}

fn expectations(source: &str) -> Vec<Expected<'_>> {
    let lines = source.lines().filter_map(|line| line.strip_prefix("#! "));
    lines
        .map(|line| {
            let mut fields = line.split(" | ");
            let mut field = || fields.next().unwrap_or_default().trim();
            Expected {
                place_and_title: field(),
                found: field(),
                allowed: field(),
                help: field(),
            }
        })
        .collect()
}

/// The findings of a report in the same form.
fn told(report: &Report) -> String {
    let mut text = String::new();
    for view in report.views() {
        let severity = match view.severity {
            config::Severity::Error => "error",
            config::Severity::Warning => "warning",
        };
        let (line, column, message, found) = (view.line, view.column, view.message, view.found);
        let found = found.replace('\n', " ");
        let (allowed, help) = (view.allowed.unwrap_or(""), view.help.unwrap_or(""));
        let place = format!("#! {line}:{column} {severity}: {message}");
        writeln!(text, "{place} | {found} | {allowed} | {help}").unwrap();
    }
    text
}

#[test]
fn every_broken_file_is_told_everything_that_is_wrong_with_it() {
    let files = toml_files("tests/broken");
    assert!(files.len() >= 20, "{}", files.len());
    let mut failures = String::new();
    for path in files {
        let source = fs::read_to_string(&path).unwrap();
        let expected = expectations(&source);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let report = match config::load(&path, KeyFiles::Skipped) {
            Err(LoadError::Wrong(report)) => report,
            other => panic!("{name}: {other:?}"),
        };
        let views = report.views();
        let same = views.len() == expected.len()
            && views.iter().zip(&expected).all(|(view, expected)| {
                let severity = match view.severity {
                    config::Severity::Error => "error",
                    config::Severity::Warning => "warning",
                };
                let title = format!("{}:{} {severity}: {}", view.line, view.column, view.message);
                title == expected.place_and_title
                    && view.found == expected.found
                    && view.allowed.unwrap_or("").contains(expected.allowed)
                    && view.help.unwrap_or("").contains(expected.help)
            });
        if !same {
            write!(failures, "== {name} was told:\n{}", told(&report)).unwrap();
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

/// A directory with a private key that the examples and the key rules use.
fn with_key() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vpn.key");
    let key = crypto::key::PrivateKey::generate().unwrap();
    fs::write(&path, key.to_base64().as_bytes()).unwrap();
    set_mode(&path, 0o600);
    (directory, path)
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn every_example_is_valid() {
    let (directory, key) = with_key();
    let files = toml_files("../docs/examples");
    assert!(files.len() >= 5);
    for path in files {
        let source = fs::read_to_string(&path).unwrap();
        let source = source.replace("/etc/vng/vpn.key", key.to_str().unwrap());
        let name = path.file_name().unwrap().to_str().unwrap();
        match config::parse(&path, source, directory.path(), KeyFiles::Checked) {
            Ok(loaded) => {
                let expected = |f: &config::Finding| {
                    f.title.ends_with("has no effect yet")
                        || name == "transit.toml" && f.title.ends_with("goes beyond Azure")
                };
                assert!(
                    loaded.report.findings.iter().all(expected),
                    "{}",
                    loaded.report.render(false)
                );
            }
            Err(report) => panic!("{}", report.render(false)),
        }
    }
}

/// The smallest VPN gateway; its key file is `vpn.key` beside the configuration.
const SMALL: &str = r#"
[vnet]
name          = "lab"
address_space = ["10.1.0.0/16"]
address       = ["10.1.255.4/27"]

[vpn]
sku              = "VpnGw1"
private_key_file = "vpn.key"

[[vpn.site]]
name       = "onprem"
public_key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
prefixes   = ["10.2.0.0/16"]
probe      = { target = "10.2.0.1" }
"#;

fn check(directory: &Path, source: &str) -> Result<config::Loaded, Report> {
    let name = directory.join("vng.toml");
    config::parse(&name, source.to_owned(), directory, KeyFiles::Checked)
}

#[test]
fn key_files_must_be_there_private_and_hold_a_key() {
    let (directory, key) = with_key();
    let title = || match check(directory.path(), SMALL) {
        Ok(_) => "valid".to_owned(),
        Err(report) => {
            assert_eq!(report.errors(), 1, "{}", report.render(false));
            report.findings[0].title.clone()
        }
    };
    assert_eq!(title(), "valid");
    set_mode(&key, 0o640);
    assert_eq!(title(), "`vpn.private_key_file` is open to others");
    set_mode(&key, 0o600);
    fs::write(&key, "not a key").unwrap();
    assert_eq!(title(), "`vpn.private_key_file` does not hold a key");
    fs::remove_file(&key).unwrap();
    assert_eq!(title(), "`vpn.private_key_file` cannot be read");
    fs::create_dir(&key).unwrap();
    assert_eq!(title(), "`vpn.private_key_file` is not a key file");
}

#[test]
fn the_remedy_for_an_open_key_file_is_its_chmod() {
    let (directory, key) = with_key();
    set_mode(&key, 0o644);
    let report = check(directory.path(), SMALL).unwrap_err();
    let help = report.findings[0].help.as_deref().unwrap();
    assert_eq!(help, format!("chmod 600 {}", key.display()));
}

#[test]
fn a_preshared_key_file_is_held_to_the_same_rules() {
    let (directory, key) = with_key();
    let other = directory.path().join("shared.key");
    fs::copy(&key, &other).unwrap();
    let source = format!("{SMALL}preshared_key_file = \"shared.key\"\n");
    set_mode(&other, 0o600);
    let loaded = check(directory.path(), &source).unwrap();
    let site = &loaded.config.vpn.unwrap().sites[0];
    assert_eq!(site.preshared_key_file.as_deref(), Some(other.as_path()));
    set_mode(&other, 0o604);
    let report = check(directory.path(), &source).unwrap_err();
    assert_eq!(
        report.findings[0].title,
        "`vpn.site.preshared_key_file` is open to others"
    );
}

#[test]
fn our_own_public_key_is_no_site() {
    let (directory, key) = with_key();
    let private: crypto::key::PrivateKey = fs::read_to_string(key).unwrap().parse().unwrap();
    let other = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
    let source = SMALL.replace(other, &private.public_key().to_string());
    let report = check(directory.path(), &source).unwrap_err();
    assert_eq!(report.findings[0].title, "`vpn.site.public_key` is our own");
}

#[test]
fn defaults_are_the_documented_ones() {
    let (directory, _) = with_key();
    let config = check(directory.path(), SMALL).unwrap().config;
    let vpn = config.vpn.unwrap();
    assert_eq!(
        (config.vnet.device.as_str(), config.vnet.mtu),
        ("vng0", 1_500)
    );
    assert!(config.vnet.offload && vpn.offload && !config.vnet.host_routes);
    assert_eq!(
        (vpn.generation, vpn.listen_port, vpn.mtu),
        (1, 51_820, 1_420)
    );
    assert_eq!(vpn.sites[0].keepalive, None);
    assert_eq!(vpn.sites[0].lanes, 1);
    let probe = vpn.sites[0].probe.clone().unwrap();
    assert_eq!(
        (probe.interval.as_millis(), probe.fail, probe.pass),
        (1_000, 3, 3)
    );
    assert_eq!(config.failover.hold_down.as_secs(), 5);
    assert!(!config.failover.branch_transit);
    assert_eq!(config.control.socket, Path::new("/run/vng/vng.sock"));
    assert_eq!((config.control.metrics, config.control.workers), (None, 1));
}

#[test]
fn circuits_probe_their_neighbor_unless_told_otherwise() {
    use gateway::config::schema::{LinkMac, Probe};
    use gateway::pipeline::fragment::FragmentPolicy;
    let circuit = |extra: &str| {
        let source = format!(
            "[vnet]\nname = \"lab\"\naddress_space = \"10.1.0.0/16\"\naddress = \"10.1.0.4/27\"\n\
             [expressroute]\nsku = \"Unlimited\"\n\
             [[expressroute.circuit]]\nname = \"er\"\nprefixes = \"10.2.0.0/16\"\n{extra}\n\
             [[expressroute.circuit.link]]\ninterface = \"eth1\"\n\
             address = \"172.16.0.2/30\"\nneighbor = \"172.16.0.1\"\n"
        );
        let loaded =
            check(Path::new("/"), &source).unwrap_or_else(|r| panic!("{}", r.render(false)));
        loaded.config.expressroute.unwrap().circuits.remove(0)
    };
    let default = circuit("");
    assert_eq!(default.probe, Some(Probe::default()));
    assert_eq!(default.fragments, FragmentPolicy::Drop);
    assert_eq!(default.links[0].name, "primary");
    assert_eq!(
        (default.links[0].mac, default.links[0].vlan_type),
        (LinkMac::Own, 0x88A8)
    );
    assert_eq!(circuit("probe = true").probe, Some(Probe::default()));
    assert_eq!(circuit("probe = false").probe, None);
    let fast = circuit("probe = { interval = \"20ms\" }").probe.unwrap();
    assert_eq!((fast.interval.as_millis(), fast.target), (20, None));
}

#[test]
fn the_generation_is_the_one_that_has_the_sku() {
    let (directory, _) = with_key();
    let source = SMALL.replace("VpnGw1", "VpnGw5");
    let vpn = check(directory.path(), &source)
        .unwrap()
        .config
        .vpn
        .unwrap();
    assert_eq!(vpn.generation, 2);
}

#[test]
fn ports_without_a_protocol_mean_tcp_and_udp() {
    let (directory, _) = with_key();
    let rule = |matches: &str| {
        let policy = "[[policy]]\nname = \"r\"\naction = \"drop\"\n";
        let source = format!("{SMALL}{policy}match = {matches}\n");
        check(directory.path(), &source)
            .unwrap()
            .config
            .policy
            .remove(0)
            .matches
    };
    assert_eq!(rule("{ destination_port = 53 }").protocol, [6, 17]);
    assert_eq!(rule("{ icmp_type = 8 }").protocol, [1, 58]);
    assert_eq!(
        rule("{ protocol = \"udp\", source_port = \"1-9\" }").source_port,
        [(1, 9)]
    );
    assert_eq!(rule("{ dscp = [\"ef\", 8] }").dscp, [46, 8]);
}

#[test]
fn a_default_route_over_a_site_is_no_conflict() {
    let (directory, _) = with_key();
    let source = SMALL.replace("\"10.2.0.0/16\"", "\"0.0.0.0/0\"");
    let loaded = check(directory.path(), &source);
    assert!(loaded.is_ok(), "{}", loaded.unwrap_err().render(false));
}

proptest::proptest! {
    /// Whatever a file holds, it is a configuration or a report; never a panic, and every finding has a
    /// place inside the file.
    #[test]
    fn any_text_is_read_without_a_panic(cut in 0_usize..3_500, insert in ".{0,12}", example in 0_usize..5) {
        let files = toml_files("../docs/examples");
        let mut source = fs::read_to_string(&files[example % files.len()]).unwrap();
        let at = source.floor_char_boundary(cut.min(source.len()));
        source.insert_str(at, &insert);
        let length = source.len();
        if let Err(report) = config::parse(Path::new("f"), source, Path::new("/"), KeyFiles::Skipped) {
            proptest::prop_assert!(report.errors() > 0);
            for finding in &report.findings {
                proptest::prop_assert!(finding.span.start <= finding.span.end && finding.span.start <= length);
            }
            proptest::prop_assert!(!report.render(true).is_empty());
        }
    }
}

/// The policy of [`SMALL`] with these rules and sets.
fn policy_of(text: &str) -> config::schema::Config {
    let (directory, _) = with_key();
    let loaded = check(directory.path(), &format!("{SMALL}{text}"));
    loaded
        .unwrap_or_else(|report| panic!("{}", report.render(false)))
        .config
}

#[test]
fn sets_negation_and_rewriting_mean_what_the_reference_says() {
    use gateway::plan::Plan;
    use routing::health::Usability;
    use routing::packet::{FlowKey, Fragment, Headers, address_bits};
    use routing::path::Ingress;
    let config = policy_of(
        "[[prefix_set]]\nname = \"inner\"\nprefixes = [\"10.2.9.0/24\", \"@rest\"]\n\
         [[prefix_set]]\nname = \"rest\"\nprefixes = \"10.2.10.0/24\"\n\
         [[policy]]\nname = \"set\"\nmatch = { destination = [\"@inner\", \"10.2.11.0/24\"], not = { destination = \"10.2.9.128/25\" } }\naction = { set_dscp = \"af21\" }\n\
         [[policy]]\nname = \"not-tcp\"\nmatch = { not = { protocol = \"tcp\", source = [\"10.1.7.0/24\"] } }\naction = \"drop\"\n\
         [[policy]]\nname = \"ports\"\nmatch = { destination_port = \"1-100\", not = { destination_port = [\"20-29\", 80] } }\naction = \"reject\"\n\
         [[policy]]\nname = \"not-vnet\"\nmatch = { not = { from = \"vnet\", fragment = true, dscp = [0, 8], source_port = 9 } }\naction = { via = \"onprem\", set_dscp = 10 }\n",
    );
    assert_eq!(config.policy[0].set_dscp, Some(18));
    assert_eq!(config.policy[3].matches.fragment, Some(false));
    let plan = Plan::new(&config, std::num::NonZeroU32::MIN, |_| Usability::Full).unwrap();
    let site = Ingress::Path(plan.path_named("onprem").unwrap().id);
    let rule = |ingress, source: &str, destination: &str, protocol, port, dscp: u8| {
        let (version, source) = address_bits(source.parse().unwrap());
        let (_, destination) = address_bits(destination.parse().unwrap());
        let headers = Headers {
            key: FlowKey {
                source,
                destination,
                source_port: 40_000,
                destination_port: port,
                protocol,
                version,
            },
            transport: 20,
            payload: 40,
            total_len: 40,
            traffic_class: dscp << 2,
            hop_limit: 64,
            fragment: Fragment::Whole,
            dont_fragment: true,
            tcp_flags: 0,
        };
        let rule = plan.snapshot.decide(ingress, &headers).rule;
        rule.and_then(|rule| plan.snapshot.rule_name(rule))
    };
    let vnet = |destination, protocol, port| {
        rule(Ingress::Vnet, "10.1.0.4", destination, protocol, port, 0)
    };
    assert_eq!(vnet("10.2.9.1", 6, 80), Some("set"));
    assert_eq!(vnet("10.2.10.1", 6, 80), Some("set"));
    assert_eq!(vnet("10.2.11.1", 6, 80), Some("set"));
    assert_eq!(vnet("10.2.9.128", 6, 80), None);
    assert_eq!(vnet("10.2.12.1", 17, 80), Some("not-tcp"));
    assert_eq!(
        rule(Ingress::Vnet, "10.1.7.1", "10.2.12.1", 17, 80, 0),
        None,
        "both fields of `not` must hold"
    );
    assert_eq!(vnet("10.2.12.1", 6, 19), Some("ports"));
    assert_eq!(vnet("10.2.12.1", 6, 20), None);
    assert_eq!(vnet("10.2.12.1", 6, 80), None);
    assert_eq!(vnet("10.2.12.1", 6, 100), Some("ports"));
    let from_site = |dscp| rule(site, "10.2.12.1", "10.1.0.4", 6, 443, dscp);
    assert_eq!(from_site(46), Some("not-vnet"));
    assert_eq!(from_site(8), None);
    assert_eq!(
        rule(Ingress::Vnet, "10.1.0.4", "10.2.12.1", 6, 443, 46),
        None
    );
}

#[test]
fn a_far_end_has_an_address_a_name_or_a_zone() {
    let (directory, _key) = with_key();
    let with = |endpoint: &str| {
        let line = format!("[[vpn.site]]\nendpoint = {endpoint:?}");
        check(directory.path(), &SMALL.replace("[[vpn.site]]", &line))
    };
    for (written, is_name) in [
        ("203.0.113.10:51820", false),
        ("[2001:db8::1]:51820", false),
        ("[fe80::1%2]:51820", false),
        ("[fe80::1%eth0]:51820", true),
        ("vpn.example.net:51820", true),
        ("localhost:51820", true),
    ] {
        let loaded = with(written).unwrap_or_else(|e| panic!("{}", e.render(false)));
        let site = &loaded.config.vpn.as_ref().unwrap().sites[0];
        assert_eq!(site.endpoint_host.is_some(), is_name, "{written}");
        assert_eq!(site.place().as_deref(), Some(written));
    }
    for wrong in [
        "vpn.example.net",
        "vpn.example.net:0",
        "vpn_example:51820",
        "203.0.113.10",
        "203.0.113.300:51820",
        "[2001:db8::1%eth0]:51820",
        "[fe80::1%et/0]:51820",
        "[fe80::1%eth0]:0",
        ":51820",
    ] {
        let report = with(wrong).expect_err(wrong);
        let text = report.render(false);
        assert!(text.contains("is not an address and a port"), "{text}");
    }
}

#[test]
fn tunnels_are_bound_to_what_can_be() {
    let (directory, _key) = with_key();
    let with = |lines: &str, endpoint: &str| {
        let site = format!("{lines}\n[[vpn.site]]\nendpoint = {endpoint:?}");
        check(directory.path(), &SMALL.replace("[[vpn.site]]", &site))
    };
    let there = "203.0.113.10:51820";
    let right = "bind_address = [\"192.0.2.1\", \"2001:db8::1\"]\ninterface = \"eth0\"\n\
                 fwmark = 0xca6c\npath_mtu_discovery = true\n";
    let loaded = with(right, there).unwrap_or_else(|e| panic!("{}", e.render(false)));
    let vpn = loaded.config.vpn.unwrap();
    assert_eq!((vpn.bind_address.len(), vpn.fwmark), (2, 0xca6c));
    assert!(vpn.path_mtu_discovery && vpn.interface.as_deref() == Some("eth0"));
    for (lines, endpoint, title) in [
        (
            "bind_address = [\"192.0.2.1\", \"192.0.2.2\"]",
            there,
            "is one too many",
        ),
        ("bind_address = \"2001:db8::1\"", there, "cannot be reached"),
        (
            "bind_address = \"fe80::1\"",
            "[fe80::2%eth0]:51820",
            "has no zone",
        ),
        (
            "bind_address = \"0.0.0.0\"",
            there,
            "cannot be a host's address",
        ),
        ("interface = \"eth0:1\"", there, "is not an interface name"),
        ("fwmark = -1", there, "is out of range"),
        ("listen_port = 65536", there, "is out of range"),
    ] {
        let report = with(lines, endpoint).expect_err(lines);
        assert!(
            report.findings[0].title.contains(title),
            "{}",
            report.render(false)
        );
    }
    // The kernel's choice is one port: lanes need several that the far end knows.
    let lanes = SMALL.replace("[[vpn.site]]", "listen_port = 0\n[[vpn.site]]\nlanes = 2");
    let report = check(directory.path(), &lanes).expect_err("lanes");
    assert!(
        report.findings[0].title.contains("has no ports"),
        "{}",
        report.render(false)
    );
}
