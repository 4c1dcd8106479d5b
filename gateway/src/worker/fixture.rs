//! A worker's switch for tests, over devices of theirs: a virtual network (10.1.0.0/16) and a site (10.2.0.0/16), whose
//! path is [`SITE`].

use crate::device::event::Waker;
use crate::device::sink::Devices;
use crate::pipeline::checksum::{Sum, pseudo_header};
use crate::pipeline::fragment::FragmentPolicy;
use crate::pipeline::process::{Forwarding, Side};
use crate::telemetry::hits::Hits;
use crate::telemetry::ledger::{Ledger, Port};
use crate::worker::bell::Bell;
use crate::worker::control_port::ControlPort;
use crate::worker::lane::Lanes;
use crate::worker::switch::{Exchange, KnownFlows, OwnHost, Ports, Switch};
use crate::worker::tunnels::{Tunnels, Underlay};
use crate::worker::vnet::VnetPort;
use crate::worker::ways::{Way, Ways};
use crypto::key::PrivateKey;
use crypto::limiter::{HandshakeLimits, Limiter};
use crypto::wireguard::Endpoint;
use ipnet::IpNet;
use routing::cache::FlowCache;
use routing::health::Usability;
use routing::packet::Headers;
use routing::path::{PathId, PathKind};
use routing::rib::{Candidate, NextHop, OwnerId, RouteSource};
use routing::snapshot::{Builder, Owner, Path};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// The site's path.
pub(crate) const SITE: PathId = PathId(0);

/// Routes between the two.
pub(crate) fn forwarding() -> Forwarding {
    let [vnet, site]: [IpNet; 2] =
        ["10.1.0.0/16", "10.2.0.0/16"].map(|prefix| prefix.parse().unwrap());
    let mut builder = Builder::new(NonZeroU32::MIN);
    builder.address_space = vec![vnet];
    builder.owners = vec![Owner {
        name: "site".to_owned(),
        allowed_sources: [site].into_iter().collect(),
        ..Owner::default()
    }];
    builder.paths = vec![Path {
        name: "site".to_owned(),
        kind: PathKind::Vpn,
        owner: OwnerId(0),
        subnets: Vec::new(),
        v4: true,
        v6: false,
        over: None,
    }];
    let next = NextHop::Owner(OwnerId(0));
    builder.routes = vec![Candidate::new(site, RouteSource::Site, next)];
    let side = || Side {
        mtu: 1_500.into(),
        fragments: FragmentPolicy::Forward,
        v4: None,
        v6: None,
    };
    Forwarding {
        snapshot: Arc::new(builder.build(|_| Usability::Full).unwrap()),
        vnet: side(),
        paths: [side()].into(),
        carried: Box::default(),
        limits: None,
        flows: None,
        hits: Hits::new(1, 0),
    }
}

/// A switch that knows the site, but no key of it.
pub(crate) fn switch<D: Devices>(
    vnet: VnetPort<D::Vnet>,
    underlay: Underlay<D::Underlay>,
) -> Switch<Endpoint, D> {
    let now = Instant::now();
    let ledger = Arc::new(Ledger::new(usize::from(Port::FIRST_PATH) + 1));
    let limiter = Limiter::new(now, HandshakeLimits::default()).unwrap();
    let key = PrivateKey::from_bytes([1; 32]);
    let endpoint = Endpoint::new(key, Arc::new(limiter), 0, Arc::new(SystemTime::now));
    let tunnels = Tunnels::new(endpoint, underlay, Arc::clone(&ledger), now, true);
    let mut ways = Ways::default();
    ways.set(SITE, Way::Tunnel(Lanes::ONE));
    let ports = Ports {
        vnet,
        links: Vec::new(),
        tunnels: tunnels.into(),
        privates: Vec::new(),
        ways,
    };
    let port = ControlPort::new(Arc::new(Bell::new().unwrap()));
    let host = OwnHost::new(Arc::new(port), Arc::new(Waker::new().unwrap()));
    let known = KnownFlows::new(FlowCache::new(64, 7), 7);
    Switch::new(ports, Exchange::default(), host, known, ledger)
}

/// A TCP segment from 10.`from`.0.4 to 10.`to`.0.4 that begins at `sequence`, with whole checksums.
pub(crate) fn tcp(from: u8, to: u8, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let length = (40 + payload.len()) as u16;
    let mut packet = vec![0; 40];
    (packet[0], packet[8], packet[9]) = (0x45, 64, 6);
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[6] = 0x40;
    packet[12..16].copy_from_slice(&[10, from, 0, 4]);
    packet[16..20].copy_from_slice(&[10, to, 0, 4]);
    let sum = Sum::of(&packet[..20]).checksum();
    packet[10..12].copy_from_slice(&sum);
    packet[20..24].copy_from_slice(&[0x13, 0x88, 0x13, 0x89]);
    packet[24..28].copy_from_slice(&sequence.to_be_bytes());
    // Five words of header, ACK, a window.
    packet[32..36].copy_from_slice(&[0x50, 0x10, 0xff, 0xff]);
    packet.extend_from_slice(payload);
    let headers = Headers::parse(&packet).unwrap();
    let pseudo_header = pseudo_header(&headers.key, u32::from(length) - 20);
    let sum = (pseudo_header + Sum::of(&packet[20..])).checksum();
    packet[36..38].copy_from_slice(&sum);
    packet
}
