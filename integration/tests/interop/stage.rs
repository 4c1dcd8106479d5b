//! Where a test happens: the hosts of [`integration::pair`], near and far, with gateway 1 on the near one, and
//! gateway 2 or a peer on the far one.

use crypto::key::{PresharedKey, PrivateKey, PublicKey};
use integration::config::Tagging;
use integration::gateway::Gateway;
use integration::host::Host;
pub(crate) use integration::stage::PATIENCE;
use integration::stage::{Turn, settled};
use integration::{pair, stage};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

/// What the gateways of a test share. It goes last.
pub(crate) struct Stage {
    /// More lines of `[control]` of every gateway.
    pub(crate) control: &'static str,
    shared: stage::Stage,
    _turn: Option<Turn>,
}

impl Deref for Stage {
    type Target = stage::Stage;

    fn deref(&self) -> &stage::Stage {
        &self.shared
    }
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
        let turn = Turn::take();
        Self {
            control: "",
            shared: stage::Stage::new(env!("CARGO_BIN_EXE_vng-lab")),
            _turn: Some(turn),
        }
    }

    /// Another one that runs beside this one, for scripts of one test that wait more than they compute.
    pub(crate) fn beside(&self) -> Self {
        Self {
            control: self.control,
            shared: self.shared.beside(),
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
        let text = format!(
            "{}\n{rest}\n\n[failover]\nhold_down = \"1s\"\n\n{}{}\n",
            pair::vnet(n, "vng0", vnet),
            self.shared.control(name),
            self.control
        );
        self.gateway_on(host, name, &text)
    }

    /// The `[vpn]` table of gateway `n`, whose site is the other side.
    pub(crate) fn vpn(&self, n: u8, key: &PrivateKey, site: &Site<'_>) -> String {
        let other = 3 - n;
        let mut text = self.vpn_table(n, key, "") + &pair::site(other, site.key);
        writeln!(text, "endpoint = \"{}:51820\"", underlay(other, site.over)).unwrap();
        if let Some(preshared) = site.preshared {
            let file = self
                .scratch
                .write(&format!("{n}.psk"), &preshared.to_base64());
            let file = file.unwrap().display().to_string();
            writeln!(text, "preshared_key_file = {file:?}").unwrap();
        }
        text
    }

    /// The `[vpn]` table of gateway `n` without sites, with more lines.
    pub(crate) fn vpn_table(&self, n: u8, key: &PrivateKey, more: &str) -> String {
        pair::vpn(&self.key_file(&n.to_string(), key), more)
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

    /// The ledger balances, and nothing was dropped but for `expected` reasons. Multicast of the host's
    /// own kernel (MLD, router solicitations) always is, and a sender in bulk may be told to slow down.
    pub(crate) fn assert_books(&self, gateway: &Gateway, expected: &[&str]) {
        let read = || serde_json::from_value(self.show(gateway, "counters")).unwrap();
        let counters = settled(read);
        let surprises: Vec<_> = counters
            .totals
            .dropped
            .keys()
            .filter(|reason| !["martian", "queue_delay"].contains(&reason.as_str()))
            .filter(|reason| !expected.contains(&reason.as_str()))
            .collect();
        assert!(
            surprises.is_empty(),
            "dropped for {surprises:?}: {counters:#?}\n{}",
            gateway.log()
        );
    }
}

/// Two hosts that reach each other over their underlay.
pub(crate) fn hosts() -> [Arc<Host>; 2] {
    let hosts = pair::hosts().unwrap();
    // The kernel tells IPv6 of a new carrier up to a second late: until then it has no way there.
    for family in Family::BOTH {
        let there = family.of(["192.0.2.2", "2001:db8::2"]).parse().unwrap();
        assert!(hosts[0].reaches(there, PATIENCE).unwrap(), "{there}");
    }
    hosts
}

/// Lays the link of a circuit between two hosts.
pub(crate) fn lay_link(hosts: &[Arc<Host>; 2], mtu: u32) {
    pair::lay_link(hosts, mtu).unwrap();
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
    tagging.tags().len() as u32
}

/// The `[expressroute]` table of gateway `n`, whose circuit leads to the other side.
pub(crate) fn circuit(n: u8, tagging: Tagging) -> String {
    let probe = "probe    = { interval = \"100ms\", fail = 5, pass = 1 }\n";
    pair::circuit(n, tagging, probe)
}
