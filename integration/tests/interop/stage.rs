//! Where a test happens: gateways by number, each with its virtual network on its own host, and what
//! `vng` says about them.
//!
//! ```text
//!   near: gateway 1                                          far: gateway 2, or a peer
//!   vng0: 10.1.0.4, fd00:1::4                                vng0: 10.2.0.4, fd00:2::4
//!   vng: 10.1.255.4, fd00:1:0:ff::4                          vng: 10.2.255.4, fd00:2:0:ff::4
//!   underlay eth0: 192.0.2.1, 2001:db8::1  ----- veth -----  192.0.2.2, 2001:db8::2
//!   link eth1: 172.16.0.1, fd00:16::1      ----- veth -----  172.16.0.2, fd00:16::2
//! ```

use crypto::key::{PresharedKey, PrivateKey, PublicKey};
use gateway::device::vlan::Tags;
use integration::config::Tagging;
use integration::gateway::Gateway;
use integration::host::{Host, connect};
use integration::process::Nursery;
use integration::scratch::Scratch;
use serde_json::Value;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long anything may take that is only waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// One test at a time: they share two cores, and lost packets would tell of that only.
static TURN: Mutex<()> = Mutex::new(());

/// What the gateways of a test share. It goes last.
pub(crate) struct Stage {
    pub(crate) nursery: Arc<Nursery>,
    pub(crate) scratch: Scratch,
    /// More lines of `[control]` of every gateway.
    pub(crate) control: &'static str,
    vng: PathBuf,
    _turn: Option<MutexGuard<'static, ()>>,
}

/// How the two sides are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A tunnel over this family.
    Tunnel(Family),
    /// An ExpressRoute link with these tags, over interfaces of this MTU more than the tags need in all.
    Link(Tagging, u32),
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The one of a pair of texts, IPv4 first.
    pub(crate) fn of<T: Copy>(self, pair: [T; 2]) -> T {
        let [v4, v6] = pair;
        match self {
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }
}

/// The address of the virtual network's host on side `n`.
pub(crate) fn host_address(n: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => format!("10.{n}.0.4").parse().unwrap(),
        Family::V6 => format!("fd00:{n}::4").parse().unwrap(),
    }
}

/// The address of the gateway's underlay on side `n`.
pub(crate) fn underlay(n: u8, family: Family) -> String {
    match family {
        Family::V4 => format!("192.0.2.{n}"),
        Family::V6 => format!("[2001:db8::{n}]"),
    }
}

/// The far end of a tunnel, for a gateway's configuration.
pub(crate) struct Site<'a> {
    pub(crate) key: &'a PublicKey,
    pub(crate) preshared: Option<&'a PresharedKey>,
    pub(crate) over: Family,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let scratch = Scratch::new().unwrap();
        let vng = scratch.path().join("vng");
        symlink(env!("CARGO_BIN_EXE_vng-lab"), &vng).unwrap();
        Self {
            nursery: Arc::new(Nursery::new().unwrap()),
            scratch,
            control: "",
            vng,
            _turn: Some(turn),
        }
    }

    /// Another one that runs beside this one, for scripts of one test that wait more than they compute.
    pub(crate) fn beside(&self) -> Self {
        let scratch = Scratch::new().unwrap();
        Self {
            nursery: Arc::new(Nursery::new().unwrap()),
            scratch,
            control: self.control,
            vng: self.vng.clone(),
            _turn: None,
        }
    }

    /// Gateway `n` on `host` with this configuration behind `[vnet]`; it does not run yet.
    pub(crate) fn gateway(&self, host: &Arc<Host>, n: u8, vnet: &str, rest: &str) -> Gateway {
        self.named_gateway(host, n, &n.to_string(), vnet, rest)
    }

    /// The same with a name for its files, where a test has several with the same number.
    pub(crate) fn named_gateway(
        &self,
        host: &Arc<Host>,
        n: u8,
        name: &str,
        vnet: &str,
        rest: &str,
    ) -> Gateway {
        let socket = self.scratch.path().join(format!("{name}.sock"));
        let text = format!(
            r#"[vnet]
name          = "vnet-{n}"
address_space = ["10.{n}.0.0/16", "fd00:{n}::/48"]
device        = "vng0"
address       = ["10.{n}.255.4/27", "fd00:{n}:0:ff::4/64"]
host_address  = ["10.{n}.0.4/16", "fd00:{n}::4/48"]
host_routes   = true
{vnet}

{rest}

[failover]
hold_down = "1s"

[control]
socket = "{}"
{}
"#,
            socket.display(),
            self.control
        );
        let config = self.scratch.write(&format!("{name}.toml"), &text).unwrap();
        Gateway::new(
            Arc::clone(host),
            Arc::clone(&self.nursery),
            self.vng.clone(),
            config,
            socket,
        )
    }

    /// The `[vpn]` table of gateway `n`, whose site is the other side.
    pub(crate) fn vpn(&self, n: u8, key: &PrivateKey, site: &Site<'_>) -> String {
        let file = |name: &str, content: &str| self.scratch.write(name, content).unwrap();
        let mut text = self.vpn_table(n, key, "");
        let other = 3 - n;
        writeln!(text, "[[vpn.site]]\nname = \"site-{other}\"").unwrap();
        writeln!(text, "public_key = \"{}\"", site.key).unwrap();
        writeln!(text, "endpoint = \"{}:51820\"", underlay(other, site.over)).unwrap();
        writeln!(
            text,
            "prefixes = [\"10.{other}.0.0/16\", \"fd00:{other}::/48\"]"
        )
        .unwrap();
        if let Some(preshared) = site.preshared {
            let file = file(&format!("{n}.psk"), &preshared.to_base64());
            writeln!(text, "preshared_key_file = \"{}\"", file.display()).unwrap();
        }
        text
    }

    /// The `[vpn]` table of gateway `n` without sites, with more lines.
    pub(crate) fn vpn_table(&self, n: u8, key: &PrivateKey, more: &str) -> String {
        let name = format!("{n}.key");
        let key = self.scratch.write(&name, &key.to_base64()).unwrap();
        let port = if more.contains("listen_port") {
            ""
        } else {
            "listen_port = 51820\n"
        };
        format!(
            "[vpn]\nsku = \"Unlimited\"\nprivate_key_file = \"{}\"\n{port}{more}\n",
            key.display()
        )
    }

    /// Two gateways face to face, running, and reaching each other. `vnet`: more lines of `[vnet]` of each.
    pub(crate) fn pair(&self, way: Way, vnet: [&str; 2]) -> Pair {
        let hosts = hosts();
        let keys = [(); 2].map(|()| PrivateKey::generate().unwrap());
        let publics = keys.each_ref().map(PrivateKey::public_key);
        if let Way::Link(tagging, mtu) = way {
            lay_link(&hosts, mtu + tags_need(tagging));
        }
        let side = |n: u8| {
            let at = usize::from(n) - 1;
            let rest = match way {
                Way::Tunnel(over) => {
                    let key = &publics[1 - at];
                    let preshared = None;
                    self.vpn(
                        n,
                        &keys[at],
                        &Site {
                            key,
                            preshared,
                            over,
                        },
                    )
                }
                Way::Link(tagging, _) => circuit(n, tagging),
            };
            self.gateway(&hosts[at], n, vnet[at], &rest)
        };
        let mut pair = Pair {
            way,
            gateways: [side(1), side(2)],
            hosts,
        };
        for gateway in &mut pair.gateways {
            gateway.start().unwrap();
        }
        pair.assert_reaches();
        pair
    }

    /// Runs `vng` with these arguments and the gateway's socket; its standard output.
    pub(crate) fn vng(&self, gateway: &Gateway, arguments: &[&str]) -> String {
        let output = Command::new(&self.vng)
            .args(arguments)
            .arg("--socket")
            .arg(gateway.socket())
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "vng {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// `vng show WHAT --json`.
    pub(crate) fn show(&self, gateway: &Gateway, what: &str) -> Value {
        serde_json::from_str(&self.vng(gateway, &["show", what, "--json"])).unwrap()
    }

    /// The ledger balances, and nothing was dropped but for `expected` reasons. Multicast of the host's
    /// own kernel (MLD, router solicitations) always is, and a sender in bulk may be told to slow down.
    pub(crate) fn assert_books(&self, gateway: &Gateway, expected: &[&str]) {
        // The ledgers of two threads are read one after the other: a packet between them is waited for.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let counters = self.show(gateway, "counters");
            let sum = |column: &str| {
                let sums = counters[column].as_object().unwrap().values();
                sums.map(|sum| sum["packets"].as_i64().unwrap())
                    .sum::<i64>()
            };
            let held = counters["held"].as_i64().unwrap();
            let left = sum("received") - sum("sent") - sum("dropped") - held;
            if left != 0 && Instant::now() < deadline {
                std::thread::yield_now();
                continue;
            }
            assert_eq!(left, 0, "the ledger does not balance: {counters:#}");
            let dropped = counters["dropped"].as_object().unwrap();
            let surprises: Vec<_> = dropped
                .keys()
                .filter(|reason| !["martian", "queue_delay"].contains(&reason.as_str()))
                .filter(|reason| !expected.contains(&reason.as_str()))
                .collect();
            assert!(
                surprises.is_empty(),
                "dropped for {surprises:?}: {counters:#}\n{}",
                gateway.log()
            );
            return;
        }
    }
}

/// Two hosts with an underlay between them.
pub(crate) fn hosts() -> [Arc<Host>; 2] {
    let hosts = ["near", "far"].map(|name| Arc::new(Host::new(name).unwrap()));
    let [near, far] = &hosts;
    connect((near, "eth0"), (far, "eth0")).unwrap();
    for (host, n) in hosts.iter().zip(1..) {
        let addresses = [format!("192.0.2.{n}/24"), format!("2001:db8::{n}/64")];
        host.address("eth0", &addresses.each_ref().map(String::as_str))
            .unwrap();
    }
    // The kernel tells IPv6 of a new carrier up to a second late: until then it has no way there.
    for family in Family::BOTH {
        let there = family.of(["192.0.2.2", "2001:db8::2"]).parse().unwrap();
        assert!(near.reaches(there, PATIENCE).unwrap(), "{there}");
    }
    hosts
}

/// Lays the link of a circuit between two hosts.
pub(crate) fn lay_link(hosts: &[Arc<Host>; 2], mtu: u32) {
    let [near, far] = hosts;
    connect((near, "eth1"), (far, "eth1")).unwrap();
    for host in hosts {
        // Nobody but the gateway lives there.
        host.set("ipv6/conf/eth1/disable_ipv6", "1").unwrap();
        host.configure(|netlink| {
            netlink.set_mtu("eth1", mtu)?;
            netlink.set_up("eth1", true)
        })
        .unwrap();
    }
}

/// Two gateways that reach each other.
pub(crate) struct Pair {
    pub(crate) way: Way,
    pub(crate) gateways: [Gateway; 2],
    pub(crate) hosts: [Arc<Host>; 2],
}

impl Pair {
    /// The end of both: their books balance, nothing was dropped but for `expected` reasons, and they end
    /// cleanly.
    pub(crate) fn finish(mut self, stage: &Stage, expected: &[&str]) {
        // A link has no path until its neighbour has answered for the first time.
        let starting: &[&str] = match self.way {
            Way::Tunnel(_) => &[],
            Way::Link(..) => &["no_path"],
        };
        for gateway in &mut self.gateways {
            stage.assert_books(gateway, &[starting, expected].concat());
            gateway.stop().unwrap();
            let log = gateway.log();
            let last = log.lines().rfind(|line| line.contains(" ended "));
            assert!(last.is_some_and(|line| line.contains(" held=0")), "{log}");
        }
    }

    /// Waits until the hosts of both virtual networks reach each other, both families.
    pub(crate) fn assert_reaches(&self) {
        for family in Family::BOTH {
            for (host, other) in self.hosts.iter().zip([2, 1]) {
                let target = host_address(other, family);
                assert!(
                    host.reaches(target, PATIENCE).unwrap(),
                    "{target} is not reached; gateway 1:\n{}\ngateway 2:\n{}",
                    self.gateways[0].log(),
                    self.gateways[1].log()
                );
            }
        }
    }
}

/// Bytes of MTU that tags need beyond the packet's.
pub(crate) fn tags_need(tagging: Tagging) -> u32 {
    let tags: Tags = tagging.tags();
    tags.len() as u32
}

/// The `[expressroute]` table of gateway `n`, whose circuit leads to the other side.
pub(crate) fn circuit(n: u8, tagging: Tagging) -> String {
    let other = 3 - n;
    format!(
        r#"[expressroute]
sku = "Unlimited"

[[expressroute.circuit]]
name     = "circuit-{other}"
model    = "point-to-point"
prefixes = ["10.{other}.0.0/16", "fd00:{other}::/48"]
probe    = {{ interval = "100ms", fail = 5, pass = 1 }}

  [[expressroute.circuit.link]]
  name      = "primary"
  interface = "eth1"
{}  address   = ["172.16.0.{n}/30", "fd00:16::{n}/126"]
  neighbor  = ["172.16.0.{other}", "fd00:16::{other}"]
"#,
        tagging.lines()
    )
}
