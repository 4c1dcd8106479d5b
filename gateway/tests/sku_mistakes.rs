//! Mistakes about SKUs and their limits, each with the message that it gets: title, found, allowed, help.
#![allow(clippy::unwrap_used)] // a helper of tests that fails is a test that fails

use gateway::config::{self, KeyFiles};
use std::fmt::Write as _;
use std::path::Path;

/// What a configuration is made of here.
#[derive(Clone)]
struct File {
    /// Lines of `[expressroute]`; empty: no such gateway.
    expressroute: &'static str,
    circuits: usize,
    /// Static prefixes of each circuit.
    prefixes: usize,
    /// Lines of `[vpn]`; empty: no such gateway.
    vpn: &'static str,
    sites: usize,
    /// Prefixes of each site.
    site_prefixes: usize,
    clients: usize,
}

const NONE: File = File {
    expressroute: "",
    circuits: 1,
    prefixes: 1,
    vpn: "",
    sites: 1,
    site_prefixes: 1,
    clients: 0,
};

impl File {
    fn text(&self) -> String {
        let mut text = "[vnet]\nname = \"lab\"\naddress_space = [\"10.1.0.0/16\"]\n\
                        address = [\"10.1.255.4/27\"]\n"
            .to_owned();
        if !self.expressroute.is_empty() {
            writeln!(text, "[expressroute]\n{}", self.expressroute).unwrap();
            for circuit in 0..self.circuits {
                let prefixes = (0..self.prefixes).map(|n| prefix(100 + circuit as u32, n));
                writeln!(
                    text,
                    "[[expressroute.circuit]]\nname = \"er-{circuit}\"\nprefixes = [{}]\n\
                     [[expressroute.circuit.link]]\ninterface = \"eth{circuit}\"\n\
                     address = \"172.16.{circuit}.2/30\"\nneighbor = \"172.16.{circuit}.1\"",
                    prefixes.collect::<Vec<_>>().join(", ")
                )
                .unwrap();
            }
        }
        if !self.vpn.is_empty() {
            writeln!(text, "[vpn]\n{}\nprivate_key_file = \"vpn.key\"", self.vpn).unwrap();
            for site in 0..self.sites {
                let prefixes = (0..self.site_prefixes).map(|n| prefix(20 + site as u32, n));
                writeln!(
                    text,
                    "[[vpn.site]]\nname = \"site-{site}\"\npublic_key = \"{}\"\nprobe = false\n\
                     prefixes = [{}]",
                    key(site),
                    prefixes.collect::<Vec<_>>().join(", ")
                )
                .unwrap();
            }
            if self.clients > 0 {
                text += "[vpn.point_to_site]\naddress_pool = [\"172.31.0.0/16\"]\n";
            }
            for client in 0..self.clients {
                let (high, low) = (client / 250, client % 250 + 2);
                writeln!(
                    text,
                    "[[vpn.point_to_site.client]]\nname = \"client-{client}\"\n\
                     public_key = \"{}\"\naddress = \"172.31.{high}.{low}\"",
                    key(10_000 + client)
                )
                .unwrap();
            }
        }
        text
    }
}

/// The `n`th /24 of a network of so many.
fn prefix(first: u32, n: usize) -> String {
    let address = std::net::Ipv4Addr::from((first << 24) + ((n as u32) << 8));
    format!("\"{address}/24\"")
}

/// A key of its own for each number.
fn key(number: usize) -> String {
    use base64::Engine as _;
    let mut key = [7; 32];
    key[..8].copy_from_slice(&(number as u64).to_le_bytes());
    base64::engine::general_purpose::STANDARD.encode(key)
}

/// The errors of a file, one line each.
fn errors(file: &File) -> Vec<String> {
    let parsed = config::parse(
        Path::new("f"),
        file.text(),
        Path::new(""),
        KeyFiles::Skipped,
    );
    let Err(report) = parsed else {
        return Vec::new();
    };
    let views = report.views().into_iter();
    views
        .filter(|view| view.severity == config::Severity::Error)
        .map(|view| {
            let (allowed, help) = (view.allowed.unwrap_or(""), view.help.unwrap_or(""));
            format!("{} | {} | {allowed} | {help}", view.message, view.found)
        })
        .collect()
}

const LARGER: &str = "take a larger SKU, or \"Unlimited\"";
const NAMES: &str = "Standard, ErGw1Az, HighPerformance, ErGw2Az, UltraPerformance, ErGw3Az, ErGwScale, \
                     Unlimited; ErGwScale takes 1 to 40 units, such as \"ErGwScale:4\"";
const NAMES_2016: &str = "Basic, Standard, HighPerformance, UltraPerformance, Unlimited";
const VPN_NAMES: &str = "Basic, VpnGw1, VpnGw1AZ, VpnGw2, VpnGw2AZ, VpnGw3, VpnGw3AZ, VpnGw4, VpnGw4AZ, \
                         VpnGw5, VpnGw5AZ, Unlimited";

#[test]
fn each_mistake_about_a_sku_gets_its_message() {
    let er = |expressroute| File {
        expressroute,
        ..NONE
    };
    let vpn = |vpn| File { vpn, ..NONE };
    #[rustfmt::skip]
    let mistakes: Vec<(File, Vec<String>)> = vec![
        (er("sku = \"ErGw4Az\""), vec![format!(
            "`expressroute.sku` is unknown | found \"ErGw4Az\" | {NAMES} | did you mean \"ErGw1Az\"?")]),
        (er("sku = \"Basic\""), vec![format!(
            "`expressroute.sku` is unknown | found \"Basic\" | {NAMES} | the 2016 edition has it: edition = \"2016\"")]),
        (er("sku = \"ErGw1Az\"\nedition = \"2016\""), vec![format!(
            "`expressroute.sku` is unknown | found \"ErGw1Az\" | {NAMES_2016} | the current edition has it: edition = \"current\"")]),
        (er("sku = \"Standard\"\nedition = \"2015\""), vec![
            "`expressroute.edition` is unknown | found \"2015\" | \"current\", \"2016\" | did you mean \"2016\"?".into()]),
        (er("sku = \"ErGwScale:41\""), vec![
            "`expressroute.sku` is unknown | found \"41\" scale units | 1 to 40 units, such as \"ErGwScale:4\" | ".into()]),
        (er("sku = \"ErGwScale:many\""), vec![
            "`expressroute.sku` is unknown | found \"many\" scale units | 1 to 40 units, such as \"ErGwScale:4\" | ".into()]),
        (er("sku = \"VpnGw1\""), vec![format!(
            "`expressroute.sku` is unknown | found \"VpnGw1\" | {NAMES} | this is the SKU of a VPN gateway")]),
        (vpn("sku = \"Standard\""), vec![format!(
            "`vpn.sku` is unknown | found \"Standard\" | {VPN_NAMES} | the 2016 edition has it: edition = \"2016\"")]),
        (vpn("sku = \"VpnGw1\"\nedition = \"2016\""), vec![
            "`vpn.sku` is unknown | found \"VpnGw1\" | Basic, Standard, HighPerformance, Unlimited | \
             the current edition has it: edition = \"current\"".into()]),
        (vpn("sku = \"UltraPerformance\"\nedition = \"2016\""), vec![
            "`vpn.sku` is unknown | found \"UltraPerformance\" | Basic, Standard, HighPerformance, Unlimited | \
             this is the SKU of an ExpressRoute gateway".into()]),
        (vpn("sku = \"Standard\"\nedition = \"2016\"\ngeneration = 1"), vec![
            "`vpn.generation` is of another edition | generation 1 in the 2016 edition, which has none |  | \
             leave it out, or take edition = \"current\"".into()]),
        (vpn("sku = \"VpnGw5\"\ngeneration = 1"), vec![
            "`vpn.generation` does not have the SKU | generation 1 | the SKU exists in generation 2 only | ".into()]),
        (File { vpn: "sku = \"Basic\"", ..er("sku = \"ErGw1Az\"") }, vec![
            "`vpn.sku` cannot coexist with ExpressRoute | Basic beside an ExpressRoute gateway | \
             VpnGw1 or larger, or \"Unlimited\" | ".into()]),
        (File { vpn: "sku = \"Standard\"\nedition = \"2016\"", ..er("sku = \"Basic\"\nedition = \"2016\"") }, vec![
            "`expressroute.sku` cannot coexist with a VPN gateway | Basic beside a VPN gateway | \
             Standard or larger, or \"Unlimited\" | ".into()]),
        (File { vpn: "sku = \"Basic\"\nedition = \"2016\"", ..er("sku = \"Standard\"\nedition = \"2016\"") }, vec![
            "`vpn.sku` cannot coexist with ExpressRoute | Basic beside an ExpressRoute gateway | \
             Standard or larger, or \"Unlimited\" | ".into()]),
        (File { circuits: 5, ..er("sku = \"ErGwScale:1\"") }, vec![format!(
            "`expressroute.circuit` is beyond the SKU's limit | 5 circuits | at most 4 with SKU ErGwScale:1 | {LARGER}")]),
        (File { prefixes: 4_001, ..er("sku = \"Standard\"") }, vec![format!(
            "`expressroute.circuit` is beyond the SKU's limit | 4001 prefixes in all | at most 4000 with SKU Standard | {LARGER}")]),
        (File { sites: 31, ..vpn("sku = \"VpnGw3\"") }, vec![format!(
            "`vpn.site` is beyond the SKU's limit | 31 tunnels | at most 30 with SKU VpnGw3 | {LARGER}")]),
        (File { sites: 11, ..vpn("sku = \"Standard\"\nedition = \"2016\"") }, vec![format!(
            "`vpn.site` is beyond the SKU's limit | 11 tunnels | at most 10 with SKU Standard | {LARGER}")]),
        (File { clients: 251, ..vpn("sku = \"VpnGw1\"") }, vec![format!(
            "`vpn.point_to_site.client` is beyond the SKU's limit | 251 clients | at most 250 with SKU VpnGw1 | {LARGER}")]),
        (File { site_prefixes: 1_001, ..vpn("sku = \"VpnGw1\"") }, vec![format!(
            "`vpn.site.prefixes` is beyond the SKU's limit | 1001 prefixes of one site | at most 1000 with SKU VpnGw1 | {LARGER}")]),
    ];
    let mut wrong = String::new();
    for (file, expected) in mistakes {
        let told = errors(&file);
        if told != expected {
            writeln!(wrong, "expected {expected:#?}\ntold {told:#?}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn what_is_within_the_limits_is_no_mistake() {
    let whole = File {
        expressroute: "sku = \"standard\"\nedition = \"2016\"",
        circuits: 5,
        vpn: "sku = \"HighPerformance\"\nedition = \"2016\"",
        sites: 30,
        ..NONE
    };
    assert_eq!(errors(&whole), [""; 0]);
    let scaled = File {
        expressroute: "sku = \"ergwscale:10\"",
        circuits: 16,
        vpn: "sku = \"VpnGw4AZ\"",
        sites: 100,
        clients: 300,
        ..NONE
    };
    assert_eq!(errors(&scaled), [""; 0]);
}
