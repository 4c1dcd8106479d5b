//! The place of one contestant: two hosts, and what joins them. It goes when it is dropped.
//!
//! ```text
//!   tunnel:        near 10.1.0.4 [device] (gateway) 192.0.2.1 --- veth --- 192.0.2.2 (gateway) [device] 10.2.0.4 far
//!   ExpressRoute:  near 10.1.0.4 [device] (gateway) 172.16.0.1 --- veth --- 172.16.0.2 (gateway) [device] 10.2.0.4 far
//!   kernel:        near 10.1.0.4 --- veth --- router --- veth --- router --- veth --- 10.2.0.4 far
//! ```
//! Traffic, gateway and its device share a host: what a tunnel costs is not hidden behind another hop.

use super::contestant::{Contestant, Way};
use crate::config::new_key;
use crate::error::Error;
use crate::gateway::Gateway;
use crate::host::{Host, connect};
use crate::pair;
use crate::peer;
use crate::process::Spawner;
use crate::program::{self, Background};
use crate::scratch::Scratch;
use crypto::key::PrivateKey;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// MTU of the link between the hosts, bytes, beyond what tags need.
pub(super) const LINK_MTU: u32 = 1500;
/// The congestion control of both hosts. BBR paces by timers that run TCP in whatever happens to run, and
/// so charges its work to the gateways.
pub(super) const CONGESTION_CONTROL: &str = "reno";
/// Where traffic goes.
pub(super) const TARGET: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 2, 0, 4));
/// How long the far host may take to answer for the first time.
const PATIENCE: Duration = Duration::from_secs(15);

/// The program that is vng.
#[derive(Clone, Debug)]
pub(super) struct Vng {
    pub(super) program: PathBuf,
    /// Whether it is `vng` itself, rather than this program.
    pub(super) plain: bool,
}

/// Two hosts that reach each other.
#[derive(Debug)]
pub(super) struct Arena {
    gateways: Vec<Gateway>,
    peers: Vec<Background>,
    _routers: Vec<Host>,
    pub(super) hosts: [Arc<Host>; 2],
    pub(super) spawner: Arc<Spawner>,
    scratch: Scratch,
}

impl Arena {
    /// Builds it for `contestant`, and waits until its hosts reach each other.
    pub(super) fn raise(contestant: &Contestant, vng: &Vng) -> Result<Self, Error> {
        let near = Arc::new(Host::new("near")?);
        let far = Arc::new(Host::new("far")?);
        let hosts = [near, far];
        for host in &hosts {
            host.set("ipv4/tcp_congestion_control", CONGESTION_CONTROL)?;
        }
        let routers = match contestant.way {
            Way::Kernel => lay_routers(&hosts)?.into(),
            _ => Vec::new(),
        };
        let spawner = Spawner::new().map_err(Error::system("start a thread"))?;
        let mut arena = Self {
            gateways: Vec::new(),
            peers: Vec::new(),
            _routers: routers,
            hosts,
            spawner: Arc::new(spawner),
            scratch: Scratch::new()?,
        };
        match &contestant.way {
            Way::Vng { udp_segmentation } => {
                arena.lay_underlay()?;
                if !udp_segmentation {
                    arena.refuse_udp_segmentation()?;
                }
                arena.start_tunnels(contestant, vng)?;
            }
            Way::Peer { command } => {
                arena.lay_underlay()?;
                arena.start_peers(command)?;
            }
            Way::Link(tagging) => {
                pair::lay_link(&arena.hosts, LINK_MTU + tagging.tags().len() as u32)?;
                for (n, rest) in [1, 2].map(|n| (n, pair::circuit(n, *tagging, ""))) {
                    arena.start_gateway(n, &rest, contestant, vng)?;
                }
            }
            Way::Kernel => {}
        }
        let [near, _] = &arena.hosts;
        if near.reaches(TARGET, PATIENCE)? {
            return Ok(arena);
        }
        let wrote: Vec<_> = arena.gateways.iter().map(Gateway::log).collect();
        let said: Vec<_> = arena.peers.iter().map(Background::said).collect();
        Err(Error::Gateway {
            name: contestant.name.clone(),
            found: format!("no answer from {TARGET} within {PATIENCE:?}"),
            log: [wrote, said].concat().join("\n"),
        })
    }

    /// The processes that move the packets: the sending one, the receiving one. The kernel is none.
    pub(super) fn processes(&self) -> [Option<u32>; 2] {
        [0, 1].map(|side: usize| {
            let gateway = self.gateways.get(side).and_then(Gateway::pid);
            gateway.or_else(|| self.peers.get(side).map(Background::pid))
        })
    }

    /// Ends it; an error if one of the gateways did not end cleanly.
    pub(super) fn stop(mut self) -> Result<(), Error> {
        self.gateways.iter_mut().try_for_each(Gateway::stop)
    }

    fn lay_underlay(&self) -> Result<(), Error> {
        let [near, far] = &self.hosts;
        connect((near, "eth0"), (far, "eth0"))?;
        near.address("eth0", &["192.0.2.1/24"])?;
        far.address("eth0", &["192.0.2.2/24"])?;
        let there = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
        if near.reaches(there, PATIENCE)? {
            Ok(())
        } else {
            Err(Error::unexpected(
                format!("an answer from {there}"),
                format!("none within {PATIENCE:?}"),
            ))
        }
    }

    fn refuse_udp_segmentation(&self) -> Result<(), Error> {
        for host in &self.hosts {
            let words = ["ethtool", "-K", "eth0", "tx-udp-segmentation", "off"];
            let done = program::run(&self.spawner, host, Duration::from_secs(10), &words)?;
            if !done.success {
                return Err(Error::unexpected("ethtool to switch it off", done.err));
            }
        }
        Ok(())
    }

    fn start_tunnels(&mut self, contestant: &Contestant, vng: &Vng) -> Result<(), Error> {
        let keys = [new_key()?, new_key()?];
        let [first, second] = &keys;
        for (n, own, other) in [(1, first, second), (2, second, first)] {
            let name = format!("{n}.key");
            let file = self.scratch.write(&name, &own.to_base64())?;
            let there = 3 - n;
            let site = pair::site(there, &other.public_key());
            let endpoint = format!("endpoint = \"192.0.2.{there}:51820\"\n");
            let rest = pair::vpn(&file, "") + &site + &endpoint;
            self.start_gateway(n, &rest, contestant, vng)?;
        }
        Ok(())
    }

    fn start_gateway(
        &mut self,
        n: u8,
        rest: &str,
        contestant: &Contestant,
        vng: &Vng,
    ) -> Result<(), Error> {
        let socket = self.scratch.path().join(format!("{n}.sock"));
        let text = configuration(n, rest, &socket, contestant)?;
        let config = self.scratch.write(&format!("{n}.toml"), &text)?;
        let [near, far] = &self.hosts;
        let host = if n == 1 { near } else { far };
        let (host, spawner) = (Arc::clone(host), Arc::clone(&self.spawner));
        let gateway = Gateway::new(host, spawner, vng.program.clone(), config, socket);
        let mut gateway = if vng.plain { gateway.plain() } else { gateway };
        gateway.start()?;
        self.gateways.push(gateway);
        Ok(())
    }

    fn start_peers(&mut self, command: &str) -> Result<(), Error> {
        let keys = [new_key()?, new_key()?];
        let publics = keys.each_ref().map(PrivateKey::public_key);
        let ([first, second], [first_public, second_public]) = (&keys, &publics);
        for (host, n, key, other) in [(0, 1, first, second_public), (1, 2, second, first_public)]
            .into_iter()
            .filter_map(|(at, n, key, other): (usize, u8, _, _)| {
                Some((self.hosts.get(at)?, n, key, other))
            })
        {
            let there = 3 - n;
            let endpoint = format!("192.0.2.{there}:51820");
            let end = pair::end(n, key, other, &endpoint);
            let peer = peer::start(&self.spawner, host, &self.scratch, command, &end)?;
            self.peers.push(peer);
        }
        Ok(())
    }
}

fn lay_routers(hosts: &[Arc<Host>; 2]) -> Result<[Host; 2], Error> {
    let routers = [Host::new("near-router")?, Host::new("far-router")?];
    let [first, second] = &routers;
    for ((host, router), n) in hosts.iter().zip(&routers).zip(1..) {
        router.forward()?;
        connect((host, "eth0"), (router, "lan0"))?;
        host.address("eth0", &[&format!("10.{n}.0.4/16")])?;
        router.address("lan0", &[&format!("10.{n}.0.1/16")])?;
        host.route("0.0.0.0/0", &format!("10.{n}.0.1"))?;
    }
    connect((first, "eth1"), (second, "eth1"))?;
    first.address("eth1", &["172.16.0.1/30"])?;
    second.address("eth1", &["172.16.0.2/30"])?;
    first.route("10.2.0.0/16", "172.16.0.2")?;
    second.route("10.1.0.0/16", "172.16.0.1")?;
    Ok(routers)
}

/// The configuration file of gateway `n`: what both kinds share, `rest`, and the contestant's settings.
fn configuration(
    n: u8,
    rest: &str,
    socket: &Path,
    contestant: &Contestant,
) -> Result<String, Error> {
    let text = format!(
        "{}{rest}\n[control]\nsocket = \"{}\"\n",
        pair::vnet(n, "vng0", ""),
        socket.display()
    );
    let wrong = |what: String| Error::unexpected("a configuration", what);
    let mut table: toml::Table = text.parse().map_err(|e| wrong(format!("{e}: {text}")))?;
    for setting in &contestant.settings {
        setting.apply(&mut table).map_err(wrong)?;
    }
    toml::to_string(&table).map_err(|error| wrong(error.to_string()))
}
