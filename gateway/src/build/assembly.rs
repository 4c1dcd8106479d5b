//! From configuration and plan to the parts of a running gateway: devices, sockets, words, a worker.
//!
//! 1. [`Parts::new`]: the words that control and workers share, one set a path
//! 2. [`Parts::forwarding`]: what workers read
//! 3. [`vnet_ports`], [`tunnels`], [`Parts::switch`]: the ports of a worker; its tunnels come as after a reload
//! 4. [`Parts::watch`]: what control watches

use crate::build::slots::WorkerSlot;
use crate::config::schema::{Config, LinkMac, Vpn};
use crate::control::path::link::LinkSetup;
use crate::control::path::watch::{PathSetup, ProbeSetup};
use crate::control::run::WatchSetup;
use crate::device::DeviceError;
use crate::device::event::Waker;
use crate::device::interface::Interface;
use crate::device::steering::{FlowProgram, NetworkAt};
use crate::device::tun::{Tun, TunQueue};
use crate::device::udp::{InterfaceName, UdpOptions, UdpSocket};
use crate::device::vlan::Tags;
use crate::error::{RunError, SystemError};
use crate::kernel::presence::{Presence, Wanted};
use crate::kernel::settings::LinkNeeds;
use crate::pipeline::process::Forwarding;
use crate::plan::forwarding::{SkuLimits, forwarding};
use crate::plan::{Origin, PathPlan, Plan};
use crate::telemetry::hits::Hits;
use crate::tunnels::keys::Keys;
use crate::tunnels::{Place, Steps, TunnelSet};
use crate::worker::bell::Bell;
use crate::worker::change::Change;
use crate::worker::control_port::{LinkFacts, LinkWord, NeighborWord, TunnelWord};
use crate::worker::ethernet::{own_mac, usable_mtu};
use crate::worker::lane;
use crate::worker::link::{Fanout, LinkPort, LinkRecipe};
use crate::worker::private::Private;
use crate::worker::switch::{self, Exchange, KnownFlows, OwnHost, Switch, TunnelPorts};
use crate::worker::tunnels::{Tunnels, Underlay};
use crate::worker::vnet::VnetPort;
use crate::worker::ways::{Way, Ways};
use crypto::key::{KeyError, PrivateKey};
use crypto::limiter::{HandshakeLimits, Limiter};
use crypto::wireguard::Endpoint;
use ipnet::IpNet;
use routing::cache::FlowCache;
use routing::path::PathId;
use routing::probe::ProbeSettings;
use routing::rib::OwnerId;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

mod private;

/// Flows that a worker remembers the decision of; more only cost a decision each.
const FLOWS: usize = 65_536;
/// MTU of a link whose interface is not there, until it is.
const ETHERNET_MTU: u32 = 1_500;

/// What a link's parts share.
#[derive(Clone, Debug)]
pub(crate) struct LinkParts {
    pub(crate) word: Arc<LinkWord>,
    pub(crate) neighbors: Vec<(IpAddr, Arc<NeighborWord>)>,
    /// Their MAC addresses where they are given, in the same order.
    pub(crate) neighbor_mac: Vec<Option<[u8; 6]>>,
    pub(crate) recipe: LinkRecipe,
    pub(crate) address: Vec<IpNet>,
}

/// The words of every path.
#[derive(Debug)]
pub(crate) struct Parts {
    /// By [`PathId`]: links come first.
    links: Vec<LinkParts>,
    pub(crate) tunnels: TunnelSet,
    /// The most lanes that a site can have: those that workers have ports for.
    pub(crate) most_lanes: u8,
    /// Circuits that can carry tunnels: workers have an engine for each, in this order.
    pub(crate) underlays: Vec<OwnerId>,
}

/// The most lanes that a site of the configuration has.
fn most_lanes(config: &Config) -> u8 {
    let sites = config.sites().iter();
    sites.map(|site| site.lanes).max().unwrap_or(1)
}

/// The circuits that carry tunnels, each once.
fn underlays(plan: &Plan) -> Vec<OwnerId> {
    let mut underlays = Vec::new();
    for circuit in plan.paths.iter().filter_map(|path| path.over) {
        if !underlays.contains(&circuit) {
            underlays.push(circuit);
        }
    }
    underlays
}

impl Parts {
    /// Makes the words of every path of the plan, for workers with these bells. A link whose interface does not
    /// exist is down until control hears of one.
    pub(crate) fn new(
        config: &Config,
        plan: &Plan,
        keys: &Keys,
        bells: &Arc<[Arc<Bell>]>,
    ) -> Result<Self, RunError> {
        let mut links = Vec::new();
        for path in &plan.paths {
            let Some((circuit, link, _)) = path.link(config) else {
                continue;
            };
            let (index, mtu) = match Interface::query(&link.interface) {
                Ok(interface) => (interface.index, interface.mtu),
                Err(error @ DeviceError::NoInterface { .. }) => {
                    let path = &path.name;
                    tracing::warn!(path, "{error}; the path is down until there is one");
                    (0, 0)
                }
                Err(error) => {
                    let path = path.name.clone();
                    return Err(RunError::System(SystemError::Interface { path, error }));
                }
            };
            let tags = Tags::new(&link.vlan, link.vlan_type)
                .ok_or_else(|| RunError::failed(TagsError(path.name.clone())))?;
            let own: Vec<IpAddr> = link.address.iter().map(IpNet::addr).collect();
            let mac = match link.mac {
                LinkMac::Own => Some(own_mac(&link.interface, circuit, &link.name, &own)),
                LinkMac::Fixed(mac) => Some(mac),
                LinkMac::Interface => None,
            };
            let word = Arc::new(LinkWord::default());
            word.publish(LinkFacts {
                generation: 1,
                index,
                mtu,
                up: false,
            });
            links.push(LinkParts {
                word,
                neighbors: link
                    .neighbor
                    .iter()
                    .map(|&next| (next, Arc::default()))
                    .collect(),
                neighbor_mac: link.neighbor_macs(),
                recipe: LinkRecipe {
                    interface: link.interface.clone(),
                    tags,
                    mac,
                    offload: link.offload,
                    fanout: fanout(path.id, tags, bells),
                },
                address: link.address.clone(),
            });
        }
        Ok(Self {
            links,
            tunnels: TunnelSet::new(config, plan, keys),
            most_lanes: most_lanes(config),
            underlays: underlays(plan),
        })
    }

    /// The words after a reload, which changes no link.
    pub(crate) fn after(&self, config: &Config, plan: &Plan, keys: &Keys) -> Self {
        Self {
            links: self.links.clone(),
            tunnels: self.tunnels.after(config, plan, keys),
            most_lanes: self.most_lanes,
            underlays: self.underlays.clone(),
        }
    }

    /// What each worker has to change on the way from the tunnels `old` to these; `identity` is our private key
    /// before and now, where it is another.
    pub(crate) fn steps(
        &self,
        old: &TunnelSet,
        config: &Config,
        identity: Option<(&PrivateKey, &PrivateKey)>,
        workers: usize,
    ) -> Vec<Steps> {
        let steps = |worker| {
            let place = Place {
                worker,
                workers,
                most_lanes: self.most_lanes,
                underlays: &self.underlays,
                identity,
            };
            Steps::between(old, &self.tunnels, config.vpn.as_ref(), place)
        };
        (0..workers).map(steps).collect()
    }

    /// What each worker has to do for a site that is somewhere else.
    pub(crate) fn moved(&self, path: PathId, to: SocketAddr, workers: usize) -> Vec<Vec<Change>> {
        let changes = |worker| {
            let place = Place {
                worker,
                workers,
                most_lanes: self.most_lanes,
                underlays: &self.underlays,
                identity: None,
            };
            self.tunnels.moved(path, to, place)
        };
        (0..workers).map(changes).collect()
    }

    /// What untagged links need of the kernel.
    pub(crate) fn needs(&self) -> Vec<LinkNeeds> {
        let links = self.links.iter().map(|link| &link.recipe);
        let untagged = links.filter(|recipe| recipe.tags.is_empty());
        untagged
            .map(|recipe| LinkNeeds {
                interface: recipe.interface.clone(),
                shares_mac: recipe.mac.is_none(),
            })
            .collect()
    }

    /// The parts of a link.
    pub(crate) fn link(&self, path: PathId) -> Option<&LinkParts> {
        self.links.get(usize::from(path.0))
    }

    /// The words of a tunnel's lanes; none for a link.
    pub(crate) fn lanes(&self, path: PathId) -> &[Arc<TunnelWord>] {
        self.tunnels.lanes(path)
    }

    /// The word of a tunnel: that of its lane 0, which says how the path is.
    pub(crate) fn tunnel(&self, path: PathId) -> Option<&Arc<TunnelWord>> {
        self.lanes(path).first()
    }

    /// The worker that sends the gateway's own packets of a path: the owner of a tunnel's lane 0, the first
    /// for a link.
    fn owner(&self, path: &PathPlan, workers: usize) -> usize {
        match path.origin {
            Origin::Site { .. } => self.tunnels.owner(path.id, workers),
            Origin::Link { .. } | Origin::PointToSite | Origin::Gone => 0,
        }
    }

    /// What workers read, for this plan and the interfaces' MTUs as they are.
    pub(crate) fn forwarding(
        &self,
        config: &Config,
        plan: &Plan,
        limits: SkuLimits,
        hits: Hits,
    ) -> Forwarding {
        let link_mtu = |path: &PathPlan| {
            let parts = self.link(path.id)?;
            let mtu = match parts.word.read().mtu {
                0 => ETHERNET_MTU,
                mtu => mtu,
            };
            let (mtu, warning) = usable_mtu(mtu, parts.recipe.tags);
            if let Some(warning) = warning.filter(|_| mtu < config.vnet.mtu) {
                tracing::warn!(path = path.name, "{warning}");
            }
            Some(mtu)
        };
        forwarding(config, plan, link_mtu, limits, hits)
    }

    /// All ports of one worker.
    pub(crate) fn switch(
        &self,
        plan: &Plan,
        slot: WorkerSlot,
        vnet: VnetPort,
        (tunnels, lanes, privates): Ports,
        control: &Arc<Waker>,
    ) -> Result<Switch<Endpoint>, RunError> {
        let next = (!slot.is_last()).then_some(slot.number + 1);
        let (mut links, mut ways) = (Vec::new(), Ways::default());
        for path in &plan.paths {
            let Some(parts) = self.link(path.id) else {
                // Its tunnels come next, and with them the ways.
                continue;
            };
            let next = |v4: bool| {
                let of_family = parts
                    .neighbors
                    .iter()
                    .find(|(next, _)| next.is_ipv4() == v4);
                of_family.map(|(_, word)| Arc::clone(word))
            };
            ways.set(path.id, Way::Link(links.len()));
            links.push(LinkPort::new(
                (path.id, slot.number),
                parts.recipe.clone(),
                Arc::clone(&parts.word),
                [next(true), next(false)],
                Arc::clone(control),
                Arc::clone(&slot.ledger),
            ));
        }
        let ports = switch::Ports {
            vnet,
            links,
            tunnels: TunnelPorts::new(tunnels, lanes),
            privates,
            ways,
        };
        let exchange = Exchange::new(slot.exits, slot.entrances, next);
        let host = OwnHost::new(slot.host, Arc::clone(control));
        let cache = FlowCache::new(FLOWS, random()?).of_worker(slot.number);
        let known = KnownFlows::new(cache, random()?);
        Ok(Switch::new(ports, exchange, host, known, slot.ledger))
    }

    /// What control watches.
    pub(crate) fn watch(&self, config: &Config, plan: &Plan) -> WatchSetup {
        let paths = plan.live().map(|path| {
            let link = self.link(path.id).map(|parts| LinkSetup {
                interface: parts.recipe.interface.clone(),
                tags: parts.recipe.tags,
                mac: parts.recipe.mac,
                address: parts.address.clone(),
                neighbors: parts.neighbors.clone(),
                neighbor_mac: parts.neighbor_mac.clone(),
                word: Arc::clone(&parts.word),
            });
            let probe = match (path.link(config), path.site(config)) {
                (Some((_, _, probe)), _) => probe.as_ref(),
                (None, Some(site)) => site.probe.as_ref(),
                (None, None) => None,
            };
            PathSetup {
                path: path.id,
                name: path.name.clone(),
                kind: path.kind,
                worker: self.owner(path, usize::from(config.control.workers)),
                link,
                tunnel: self.tunnel(path.id).cloned(),
                carriers: plan.snapshot.carriers(path.id).to_vec(),
                probe: probe.map(|probe| ProbeSetup {
                    target: probe.target,
                    settings: ProbeSettings {
                        interval: probe.interval,
                        fail: probe.fail,
                        pass: probe.pass,
                    },
                }),
            }
        });
        WatchSetup {
            hold_down: config.failover.hold_down,
            addresses: config.vnet.address.iter().map(IpNet::addr).collect(),
            paths: paths.collect(),
        }
    }
}

/// How workers with these bells share a link; `None`: there is one only.
fn fanout(path: PathId, tags: Tags, bells: &Arc<[Arc<Bell>]>) -> Option<Fanout> {
    if bells.len() < 2 {
        return None;
    }
    let network = if tags.inner().is_some() {
        NetworkAt::BehindInnerTag
    } else {
        NetworkAt::Start
    };
    // Another gateway in this network namespace has another process number.
    let group = (std::process::id().wrapping_mul(31) as u16).wrapping_add(path.0);
    Some(Fanout {
        group,
        program: flow_program(bells.len(), network).map(Arc::new),
        bells: Arc::clone(bells),
    })
}

/// Without it the kernel's own rules hold, which keep a flow on one worker in each direction.
fn flow_program(workers: usize, network: NetworkAt) -> Option<FlowProgram> {
    match FlowProgram::load(workers as u16, network) {
        Ok(program) => Some(program),
        Err(error) => {
            tracing::warn!("the kernel shares flows out over workers by rules of its own: {error}");
            None
        }
    }
}

/// A link's VLAN tags are none, although the configuration was checked.
#[derive(Debug)]
struct TagsError(String);

impl fmt::Display for TagsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: no link has such VLAN tags", self.0)
    }
}

impl std::error::Error for TagsError {}

/// Eight random bytes, so that outsiders cannot aim flows at one place of the flow cache.
fn random() -> Result<u64, RunError> {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut seed = [0; 8];
    SystemRandom::new()
        .fill(&mut seed)
        .map_err(|_| RunError::needed(KeyError::Random))?;
    Ok(u64::from_ne_bytes(seed))
}

/// Makes the TUN device, one queue a worker, and its kernel's side, on which nothing is set yet.
pub(crate) fn vnet_ports(
    config: &Config,
    plan: &Plan,
) -> Result<(Vec<VnetPort>, Presence), RunError> {
    let workers = usize::from(config.control.workers);
    let vnet = &config.vnet;
    let tun = Tun::create(&vnet.device, vnet.mtu, workers, vnet.offload)?;
    if workers > 1
        && let Some(program) = flow_program(workers, NetworkAt::Start)
        && let Err(error) = tun.steer(&program)
    {
        tracing::warn!("the kernel shares flows out over workers by rules of its own: {error}");
    }
    let presence = Presence::new(&tun.name, tun.index, tun.persistent, wanted(config, plan))
        .map_err(RunError::needed)?;
    let port = |queue: TunQueue| VnetPort {
        queue,
        offload: tun.vnet_header,
        uso: tun.uso,
    };
    Ok((tun.queues.into_iter().map(port).collect(), presence))
}

/// What the kernel's side of the device is to be.
pub(crate) fn wanted(config: &Config, plan: &Plan) -> Wanted {
    // The kernel has nothing to do with a tunnel over a circuit.
    let sites = config.sites().iter();
    let by_kernel = sites.filter(|site| site.over.is_none());
    let mut endpoints: Vec<_> = by_kernel
        .filter_map(|site| site.endpoint.map(|endpoint| endpoint.ip()))
        .collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    Wanted {
        mtu: config.vnet.mtu,
        addresses: config.vnet.host_address.clone(),
        routes: plan.host_routes.clone(),
        metric: config.vnet.host_route_metric,
        endpoints,
    }
}

/// One worker's tunnels on the base port, on the port of each lane that it owns, and over each circuit that
/// carries some.
type Ports = (
    Tunnels<Endpoint>,
    Vec<Tunnels<Endpoint>>,
    Vec<Private<Endpoint>>,
);

/// Opens one worker's sockets for tunnels, which are still without any. To be called in the order of the workers:
/// the kernel numbers the sockets of a port as they come.
pub(crate) fn tunnels(
    config: &Config,
    parts: &Parts,
    slot: &WorkerSlot,
    (keys, limiter): (&Keys, &Arc<Limiter>),
    started: Instant,
) -> Result<Ports, RunError> {
    let open = |lane| tunnels_of_port(config, slot, (keys, limiter, started), lane);
    let lanes = lane::owned(slot.number, slot.count, parts.most_lanes).map(open);
    let (base, lanes) = (open(0)?, lanes.collect::<Result<_, _>>()?);
    let privates = private::privates(config, parts, slot, (keys, limiter), started)?;
    Ok((base, lanes, privates))
}

/// The same for one port: the base port, or that of a lane above 0.
fn tunnels_of_port(
    config: &Config,
    slot: &WorkerSlot,
    (keys, limiter, started): (&Keys, &Arc<Limiter>, Instant),
    lane: u8,
) -> Result<Tunnels<Endpoint>, RunError> {
    let underlay = match &config.vpn {
        Some(vpn) => underlay(vpn, slot, lane)?,
        None => Underlay::default(),
    };
    let private_key = private_key(keys)?;
    let number = slot.number as u8;
    let endpoint = Endpoint::new(
        private_key,
        Arc::clone(limiter),
        number,
        Arc::new(SystemTime::now),
    )
    .on_lane(lane);
    let ledger = Arc::clone(&slot.ledger);
    // A lane's port is its owner's alone: nobody else could know who calls there.
    let is_last = lane > 0 || slot.is_last();
    Ok(Tunnels::new(endpoint, underlay, ledger, started, is_last))
}

/// The gateway's private key; without a VPN gateway one that nobody knows.
fn private_key(keys: &Keys) -> Result<PrivateKey, RunError> {
    match keys.private_key() {
        Some(key) => Ok(key.clone()),
        None => PrivateKey::generate().map_err(RunError::needed),
    }
}

/// The limiter that all workers share.
pub(crate) fn limiter(started: Instant) -> Result<Arc<Limiter>, RunError> {
    Limiter::new(started, HandshakeLimits::default())
        .map(Arc::new)
        .map_err(RunError::needed)
}

/// One worker's sockets of a lane's port, one a family. A machine without IPv6 has none of it, unless a site asks for it.
fn underlay(vpn: &Vpn, slot: &WorkerSlot, lane: u8) -> Result<Underlay, RunError> {
    let shared = lane == 0 && slot.count > 1;
    let port = vpn.listen_port.saturating_add(u16::from(lane));
    let interface = vpn.interface.as_deref();
    let options = UdpOptions {
        offload: vpn.offload,
        reuse_port: shared,
        path_mtu_discovery: vpn.path_mtu_discovery,
        interface: interface.and_then(InterfaceName::new),
        mark: vpn.fwmark,
        ..UdpOptions::default()
    };
    let bind = |address: IpAddr| -> Result<UdpSocket, DeviceError> {
        let address = SocketAddr::new(address, port);
        if shared && slot.number == 0 {
            // A port that is shared among workers could be shared with another program too, unnoticed.
            let alone = UdpOptions {
                reuse_port: false,
                ..options
            };
            UdpSocket::bind(address, alone)?;
        }
        let socket = UdpSocket::bind(address, options)?;
        if shared && slot.number == 0 {
            socket.steer_by_receiver_index()?;
        }
        Ok(socket)
    };
    let own = |v4: bool| {
        let mut own = vpn.bind_address.iter();
        own.find(|own| own.is_ipv4() == v4).copied()
    };
    if !vpn.bind_address.is_empty() {
        // Of these addresses each must be there, and a family without one is not used.
        let bind = |address: Option<IpAddr>| address.map(bind).transpose().map_err(RunError::from);
        return Ok(Underlay {
            v4: bind(own(true))?,
            v6: bind(own(false))?,
        });
    }
    let v4 = bind(Ipv4Addr::UNSPECIFIED.into()).map_err(RunError::from)?;
    let v6 = match bind(Ipv6Addr::UNSPECIFIED.into()) {
        Ok(socket) => Some(socket),
        Err(error)
            if vpn
                .sites
                .iter()
                .any(|site| site.endpoint.is_some_and(|to| to.is_ipv6())) =>
        {
            return Err(error.into());
        }
        Err(error) => {
            tracing::warn!(%error, "no tunnels over IPv6");
            None
        }
    };
    Ok(Underlay { v4: Some(v4), v6 })
}
