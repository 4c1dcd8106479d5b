//! A gateway in memory: a worker's switch, forwarding table, flow cache, links and tunnels as `vng run`
//! has them, between devices that take what is sent and forget it.
//!
//! 10,000 routes (9,000 of a circuit with two QinQ links, 1,000 of a site) and 100 policy rules that the
//! traffic does not match. It is held to the rates of the largest tier and the largest tunnel, by a clock
//! that moves on as fast as packets conform: [`PACE`] for each.

use super::Failure;
use super::traffic::{Form, Net, Size, Words, packets};
use crate::sku::traffic::Packet;
use crypto::key::PrivateKey;
use crypto::limiter::{HandshakeLimits, Limiter};
use crypto::tunnel::Peer;
use crypto::wireguard::Endpoint;
use gateway::device::SendError;
use gateway::device::event::Waker;
use gateway::device::offload::Offload;
use gateway::device::sink::{Devices, FrameSink, PacketSink, TrainSink};
use gateway::device::udp::{PeerPath, SendOutcome, TrainPlace};
use gateway::device::vlan::Tags;
use gateway::pipeline::fragment::FragmentPolicy;
use gateway::pipeline::process::{Forwarding, Side};
use gateway::pipeline::shape::{self, Limit, Rates};
use gateway::sku::{self, Edition};
use gateway::telemetry::hits::Hits;
use gateway::telemetry::ledger::{Ledger, Port, Totals};
use gateway::worker::bell::Bell;
use gateway::worker::control_port::{ControlPort, NeighborWord};
use gateway::worker::ethernet::Framing;
use gateway::worker::lane::Lanes;
use gateway::worker::link::{LinkPort, LinkRecipe};
use gateway::worker::packet::Round;
use gateway::worker::run::{ALIGNMENT, BYTES, PACKETS};
use gateway::worker::switch::{Exchange, KnownFlows, OwnHost, Ports, Switch};
use gateway::worker::tunnels::{Tunnels, Underlay};
use gateway::worker::vnet::VnetPort;
use gateway::worker::ways::{Way, Ways};
use ipnet::{IpNet, Ipv4Net};
use routing::cache::FlowCache;
use routing::health::Usability;
use routing::path::Ingress;
use routing::path::{PathId, PathKind};
use routing::policy::Match;
use routing::rib::{Candidate, NextHop, OwnerId, RouteSource};
use routing::snapshot::{Action, Builder, Owner, Path, Rule};
use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// MTU of a link and of the virtual network, bytes.
pub const MTU: u16 = 1_500;
/// MTU of a tunnel, bytes.
pub const TUNNEL_MTU: u16 = 1_420;
/// The virtual network's hosts: 10.1.0.0/20.
pub const VNET: Net = Net {
    first: 0x0a01_0000,
    count: 4_096,
};
/// Routes of the circuit, learned by BGP.
pub const CIRCUIT_ROUTES: usize = 9_000;
/// Routes of the site; Azure allows as many prefixes in one local network gateway.
pub const SITE_ROUTES: usize = 1_000;
/// Policy rules, none of which matches.
pub const RULES: usize = 100;

/// The tags of both links: QinQ.
const TAGS: [u16; 2] = [100, 10];
/// The link's outer tag, which the kernel takes off, as it says so.
pub const OUTER_TAG: (u16, u16) = (0x8100, TAGS[0]);
/// MAC address of the gateway, and of the other end of its links.
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
/// The tunnel's place among the paths, behind the links.
const TUNNEL: u16 = 2;
/// Flows whose decision a worker remembers, as `vng run` has it.
const REMEMBERED: usize = 65_536;

/// What the gateway's clock moves on by for each packet: longer than the slowest limit takes for one.
pub const PACE: Duration = Duration::from_micros(10);

/// The circuit's prefixes: /24 in 100.0.0.0/8 and up, in no order.
pub fn circuit_nets() -> Vec<Net> {
    let mut words = Words::new();
    let mut places: Vec<u32> = (0..CIRCUIT_ROUTES as u32 * 4).collect();
    // A quarter of the places, drawn without repeating one.
    for place in 0..CIRCUIT_ROUTES {
        let other = place + words.next() as usize % (places.len() - place);
        places.swap(place, other);
    }
    let nets = places.into_iter().take(CIRCUIT_ROUTES);
    nets.map(|place| Net {
        first: 0x6400_0000 + (place << 8),
        count: 256,
    })
    .collect()
}

/// The site's prefixes: 1,000 times /24 from 10.4.0.0 on.
pub fn site_nets() -> Vec<Net> {
    let nets = 0..SITE_ROUTES as u32;
    nets.map(|place| Net {
        first: 0x0a04_0000 + (place << 8),
        count: 256,
    })
    .collect()
}

/// Devices that are memory.
#[derive(Debug)]
pub struct Memory;

impl Devices for Memory {
    type Vnet = Discard;
    type Link = Discard;
    type Underlay = Wire;
}

/// Takes packets as a TUN queue and frames as a packet socket does, but for the system call.
#[derive(Debug)]
pub struct Discard;

impl PacketSink for Discard {
    #[inline]
    fn write(
        &self,
        offload: &Offload,
        hdr_len: u16,
        parts: &[IoSlice<'_>],
    ) -> Result<(), SendError> {
        black_box((offload.encode(hdr_len, 0), parts));
        Ok(())
    }
}

impl FrameSink for Discard {
    #[inline]
    fn send(
        &self,
        offload: &Offload,
        hdr_len: u16,
        layer2: &[u8],
        parts: &[IoSlice<'_>],
    ) -> Result<(), SendError> {
        black_box((offload.encode(hdr_len, layer2.len() as u16), layer2, parts));
        Ok(())
    }
}

/// What lies on the wire between two gateways.
#[derive(Debug, Default)]
pub struct Laid {
    /// The datagrams, one train behind another.
    pub bytes: Vec<u8>,
    /// The trains.
    pub trains: Vec<TrainPlace>,
}

/// Takes trains as a UDP socket does, and keeps them while it is asked to.
#[derive(Debug)]
pub struct Wire {
    source: SocketAddr,
    keeps: Cell<bool>,
    laid: RefCell<Laid>,
}

impl Wire {
    fn from(source: SocketAddr) -> Self {
        Self {
            source,
            keeps: Cell::new(false),
            laid: RefCell::default(),
        }
    }
}

impl TrainSink for Wire {
    #[inline]
    fn send_train_by(
        &self,
        _: &PeerPath,
        _: &SocketAddr,
        bytes: &[u8],
        stride: usize,
        traffic_class: u8,
    ) -> SendOutcome {
        if self.keeps.get() {
            let mut laid = self.laid.borrow_mut();
            let at = laid.bytes.len();
            laid.bytes.extend_from_slice(bytes);
            laid.trains.push(TrainPlace {
                source: self.source,
                local: None,
                traffic_class,
                stride,
                at,
                len: bytes.len(),
            });
        }
        SendOutcome {
            sent: black_box(bytes).len().div_ceil(stride.max(1)),
            ..SendOutcome::default()
        }
    }
}

/// One gateway.
pub struct Gateway {
    switch: Switch<Endpoint, Memory>,
    forwarding: Forwarding,
    now: Instant,
}

impl Gateway {
    /// Does one round of a worker's; `work` says how many packets it handled.
    #[inline]
    pub fn round(&mut self, work: impl FnOnce(&mut Switch<Endpoint, Memory>, Round<'_>) -> u64) {
        let round = Round {
            now: self.now,
            forwarding: &self.forwarding,
        };
        self.switch.ledger().begin();
        self.switch.begin(round);
        let packets = work(&mut self.switch, round);
        self.switch.send_shaped(self.now);
        self.switch.ports.tunnels.base_mut().flush(self.now);
        self.switch.ledger().end();
        self.now += PACE * packets as u32;
    }

    /// Begins or ends to keep what goes out through tunnels.
    pub fn keep(&self, keeps: bool) {
        if let [Some(wire), _] = self.switch.ports.tunnels.base().sockets() {
            wire.keeps.set(keeps);
        }
    }

    /// Takes what has been kept, into `laid`.
    pub fn take(&self, laid: &mut Laid) {
        laid.bytes.clear();
        laid.trains.clear();
        if let [Some(wire), _] = self.switch.ports.tunnels.base().sockets() {
            std::mem::swap(laid, &mut wire.laid.borrow_mut());
        }
    }

    /// Its books so far.
    pub fn totals(&self) -> Totals {
        let names = ["vnet", "local", "underlay", "primary", "secondary", "site"];
        Totals::of([self.switch.ledger()], &names.map(str::to_owned))
    }

    /// Decisions that the flow cache had, and that it had not.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        self.switch.hits_and_misses()
    }
}

/// A gateway of the virtual network, and the site's: between them a tunnel that stands.
///
/// # Errors
/// In words: the routes give no snapshot, a SKU or the tags are none, the peer's key is refused, the system has
/// no `eventfd` or no random bytes, or no packet has come through the tunnel once the handshake is quiet.
pub fn pair() -> Result<[Gateway; 2], Failure> {
    let now = Instant::now();
    let [near_key, far_key] = [[1; 32], [2; 32]].map(PrivateKey::from_bytes);
    let [near_at, far_at] = [([192, 0, 2, 1], 1), ([192, 0, 2, 2], 2)].map(SocketAddr::from);
    let peer = |key: &PrivateKey, at| Peer {
        public_key: key.public_key().0,
        preshared_key: zeroize::Zeroizing::default(),
        endpoint: Some(at),
        keepalive: None,
        retry: None,
        mtu: TUNNEL_MTU,
    };
    let site: Vec<IpNet> = prefixes(&site_nets()).collect();
    let vnet = prefixes(&[VNET]).collect::<Vec<_>>();
    let near = builder(
        vnet.clone(),
        prefixes(&circuit_nets()).collect(),
        site.clone(),
    )?;
    let far = builder(site, Vec::new(), vnet)?;
    let near = gateway(now, near, (&near_key, near_at), &peer(&far_key, far_at))?;
    let far = gateway(now, far, (&far_key, far_at), &peer(&near_key, near_at))?;
    let mut pair = [near, far];
    shake_hands(&mut pair)?;
    Ok(pair)
}

fn prefixes(nets: &[Net]) -> impl Iterator<Item = IpNet> {
    let prefix = |net: &Net| {
        let length = 32 - net.count.ilog2() as u8;
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from_bits(net.first), length))
    };
    nets.iter().map(prefix)
}

/// Two links of a circuit and a tunnel to a site, with these prefixes.
fn builder(vnet: Vec<IpNet>, circuit: Vec<IpNet>, site: Vec<IpNet>) -> Result<Builder, Failure> {
    let mut builder = Builder::new(NonZeroU32::MIN);
    builder.address_space = vnet;
    builder.own_addresses = vec!["192.0.2.254".parse()?];
    builder.owners = vec![
        Owner {
            name: "circuit".to_owned(),
            ..Owner::default()
        },
        Owner {
            name: "site".to_owned(),
            allowed_sources: site.iter().copied().collect(),
            ..Owner::default()
        },
    ];
    let path = |name: &str, kind, owner| Path {
        name: name.to_owned(),
        kind,
        owner: OwnerId(owner),
        subnets: Vec::new(),
        v4: true,
        v6: false,
        over: None,
    };
    builder.paths = vec![
        path("primary", PathKind::ExpressRoute, 0),
        path("secondary", PathKind::ExpressRoute, 0),
        path("site", PathKind::Vpn, 1),
    ];
    let route = |source, owner| {
        move |prefix| Candidate::new(prefix, source, NextHop::Owner(OwnerId(owner)))
    };
    builder.routes = circuit
        .into_iter()
        .map(route(RouteSource::Bgp, 0))
        .collect();
    builder
        .routes
        .extend(site.into_iter().map(route(RouteSource::Site, 1)));
    let rule = |number: u16| -> Result<Rule, Failure> {
        Ok(Rule {
            name: format!("rule-{number}"),
            matches: Match {
                destination: vec![format!("172.16.{number}.0/24").parse()?],
                protocol: vec![6],
                destination_port: vec![(1_000 + number, 1_000 + number)],
                ..Match::default()
            },
            action: Action::Drop,
            set_dscp: None,
        })
    };
    builder.policy = (0..RULES as u16).map(rule).collect::<Result<_, _>>()?;
    Ok(builder)
}

fn gateway(
    now: Instant,
    builder: Builder,
    (key, at): (&PrivateKey, SocketAddr),
    peer: &Peer,
) -> Result<Gateway, Failure> {
    let snapshot = builder
        .build(|_| Usability::Full)
        .map_err(|error| format!("no snapshot: {error:?}"))?;
    let side = |mtu: u16, fragments| Side {
        mtu: mtu.into(),
        fragments,
        v4: Some(Ipv4Addr::new(192, 0, 2, 254)),
        v6: None,
    };
    let forwarding = Forwarding {
        snapshot: Arc::new(snapshot),
        vnet: side(MTU, FragmentPolicy::Forward),
        paths: [MTU, MTU, TUNNEL_MTU]
            .map(|mtu| side(mtu, FragmentPolicy::Drop))
            .into(),
        carried: Box::default(),
        limits: limits()?,
        flows: None,
        hits: Hits::new(1, RULES),
    };
    let ledger = Arc::new(Ledger::new(usize::from(Port::FIRST_PATH + TUNNEL + 1)));
    let control = Arc::new(Waker::new()?);

    let limiter = Limiter::new(now, HandshakeLimits::default()).map_err(|_| "no random bytes")?;
    let endpoint = Endpoint::new(key.clone(), Arc::new(limiter), 0, Arc::new(SystemTime::now));
    let underlay = Underlay {
        v4: Some(Wire::from(at)),
        v6: None,
    };
    let mut tunnels = Tunnels::new(endpoint, underlay, Arc::clone(&ledger), now, true);
    if !tunnels.add(now, PathId(TUNNEL), peer, Arc::default()) {
        return Err("the peer's key is refused".into());
    }

    let tags = Tags::new(&TAGS, OUTER_TAG.0).ok_or("tags out of range")?;
    let [own, other] = MACS;
    let mut links = Vec::new();
    for path in [PathId(0), PathId(1)] {
        let neighbor = NeighborWord::default();
        neighbor.publish(Some(other));
        let recipe = LinkRecipe {
            interface: "memory".to_owned(),
            tags,
            mac: Some(own),
            offload: true,
            fanout: None,
        };
        let neighbors = [Some(Arc::new(neighbor)), None];
        let (control, ledger) = (Arc::clone(&control), Arc::clone(&ledger));
        let mut link = LinkPort::new(
            (path, 0),
            recipe,
            Arc::default(),
            neighbors,
            control,
            ledger,
        );
        link.attach(Discard, Framing::new(tags, own));
        links.push(link);
    }
    let mut ways = Ways::default();
    let all = [Way::Link(0), Way::Link(1), Way::Tunnel(Lanes::ONE)];
    for (path, way) in (0..).zip(all) {
        ways.set(PathId(path), way);
    }
    let ports = Ports {
        vnet: VnetPort {
            queue: Discard,
            offload: true,
            uso: true,
        },
        links,
        tunnels: tunnels.into(),
        privates: Vec::new(),
        ways,
    };
    let host = OwnHost::new(Arc::new(ControlPort::new(Arc::new(Bell::new()?))), control);
    let known = KnownFlows::new(FlowCache::new(REMEMBERED, 7), 7);
    let switch = Switch::new(ports, Exchange::default(), host, known, ledger);
    Ok(Gateway {
        switch,
        forwarding,
        // Behind every bucket's beginning: they are full.
        now: now + Duration::from_secs(1),
    })
}

/// The largest ExpressRoute tier for both links, the largest VPN gateway and one of its tunnels.
fn limits() -> Result<Option<Arc<shape::RateLimits>>, Failure> {
    let expressroute =
        sku::expressroute(Edition::Current, "UltraPerformance").ok_or("no such SKU")?;
    let vpn = sku::vpn(Edition::Current, "VpnGw5", 2).map_err(|error| error.to_string())?;
    let limit = |name: &str, scope, bits_per_second, packets_per_second| Limit {
        name: name.to_owned(),
        scope,
        rates: Rates {
            bits_per_second,
            packets_per_second,
        },
    };
    let gateway = shape::Scope::Gateway;
    let (bits, packets) = (
        expressroute.bits_per_second,
        expressroute.packets_per_second,
    );
    let (tunnel_bits, tunnel_packets) = (vpn.tunnel_bits_per_second, vpn.tunnel_packets_per_second);
    let limits = [
        limit("ExpressRoute", gateway, bits, packets),
        limit("Vpn", gateway, vpn.bits_per_second, None),
        limit("site", shape::Scope::Tunnel, tunnel_bits, tunnel_packets),
    ];
    let of_paths = [vec![0], vec![0], vec![1, 2]];
    Ok(shape::RateLimits::new(
        1,
        &limits,
        &of_paths,
        Instant::now(),
        None,
    ))
}

/// The layer 2 header of a frame that comes in: the outer tag has been taken off.
pub fn received_layer2() -> Vec<u8> {
    let [own, other] = MACS;
    let mut header = own.to_vec();
    header.extend(other);
    header.extend(OUTER_TAG.0.to_be_bytes());
    header.extend(TAGS[1].to_be_bytes());
    header.extend([8, 0]);
    header
}

/// Packets and their bytes, as the wire carries them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl Moved {
    pub(super) fn add(&mut self, packet: &Packet) {
        self.packets += packet.segments;
        self.bytes += packet.bytes;
    }
}

/// One round of packets from the virtual network.
pub(super) fn from_vnet<'a>(
    gateway: &mut Gateway,
    stream: &mut impl Iterator<Item = &'a Packet>,
    buffer: &mut [u8],
    moved: &mut Moved,
) {
    gateway.round(|switch, round| {
        let (before, mut read, mut at) = (moved.packets, 0, 0);
        for packet in stream.take(PACKETS) {
            packet.lay(buffer.get_mut(at..).unwrap_or_default());
            let length = usize::from(packet.len);
            let Some(offload) = Offload::decode(&packet.virtio, 0) else {
                break;
            };
            let place = (at, length);
            if switch.handle_batched(round, Ingress::Vnet, buffer, place, &offload) {
                at += length.next_multiple_of(ALIGNMENT);
            }
            moved.add(packet);
            read += length;
            if read >= BYTES {
                break;
            }
        }
        switch.write_merged(round.now, buffer);
        moved.packets - before
    });
}

/// The site's gateway knocks, and every datagram is carried to and fro until none is left.
fn shake_hands([near, far]: &mut [Gateway; 2]) -> Result<(), Failure> {
    let ends = [&site_nets()[..], &[VNET]];
    let knock = packets(ends, Size::Small, Form::Single, TUNNEL_MTU, 0);
    let mut buffer = vec![0; usize::from(MTU)];
    near.keep(true);
    far.keep(true);
    let mut knocks = knock.iter().take(1);
    from_vnet(far, &mut knocks, &mut buffer, &mut Moved::default());
    let mut laid = Laid::default();
    let mut to = [near, far];
    let mut quiet = 0;
    while quiet < 2 {
        let [here, there] = &mut to;
        there.take(&mut laid);
        quiet = if laid.trains.is_empty() { quiet + 1 } else { 0 };
        let Laid { bytes, trains } = &mut laid;
        here.round(|switch, round| {
            switch.handle_trains(round, 0, bytes, trains.drain(..));
            // Handshakes wait for the end of a round.
            switch.ports.tunnels.base_mut().poll(round.now);
            1
        });
        to.reverse();
    }
    let [near, far] = to;
    near.keep(false);
    far.keep(false);
    // The packet that knocked has come through, whichever of the two stands first now.
    let through = |gateway: &Gateway| {
        gateway
            .totals()
            .sent
            .get("vnet")
            .is_some_and(|sum| sum.packets > 0)
    };
    if through(near) || through(far) {
        Ok(())
    } else {
        Err("no tunnel between the two gateways".into())
    }
}
