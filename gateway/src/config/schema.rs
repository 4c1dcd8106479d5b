//! The configuration as the rest of the gateway sees it: plain values, already checked.
//! `read` makes them out of TOML, `validate` holds them against the rules of Azure and of the wire.

use crate::pipeline::fragment::FragmentPolicy;
use crate::sku::resize::Choice;
use crate::sku::{self, Edition, ExpressRouteSku, UnknownVpnSku, VpnSku};
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// A whole configuration file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The virtual network.
    pub vnet: Vnet,
    /// The ExpressRoute gateway, at most one.
    pub expressroute: Option<ExpressRoute>,
    /// The VPN gateway, at most one.
    pub vpn: Option<Vpn>,
    /// Named prefix sets, which policies use.
    pub prefix_sets: Vec<PrefixSet>,
    /// The policy route table, in file order.
    pub policy: Vec<PolicyRule>,
    /// User-defined routes.
    pub route: Vec<UserRoute>,
    /// What happens when a path fails and returns.
    pub failover: Failover,
    /// How to talk to the running gateway.
    pub control: Control,
}

/// `[vnet]`
#[derive(Clone, Debug, PartialEq)]
pub struct Vnet {
    /// Name, for output.
    pub name: String,
    /// The network's prefixes.
    pub address_space: Vec<IpNet>,
    /// Name of the TUN device.
    pub device: String,
    /// The gateway's own addresses with the gateway subnet's prefix length.
    pub address: Vec<IpNet>,
    /// MTU of the device, bytes.
    pub mtu: u16,
    /// What the kernel's side of the device gets; empty: nothing.
    pub host_address: Vec<IpNet>,
    /// Whether kernel routes to the reachable prefixes are set through the device.
    pub host_routes: bool,
    /// Metric of those routes: the machine's own to the same prefix with a better one stay in force.
    pub host_route_metric: u32,
    /// Virtio-net header, TSO and USO on the device; a switch for kernels that have them broken.
    pub offload: bool,
}

/// `[expressroute]`
#[derive(Clone, Debug, PartialEq)]
pub struct ExpressRoute {
    /// The tables that the SKU's name is looked up in.
    pub edition: Edition,
    /// SKU name as written, known to [`crate::sku`]; `Unlimited` for none.
    pub sku: String,
    /// The gateway's AS number.
    pub asn: u32,
    /// Circuits, in file order.
    pub circuits: Vec<Circuit>,
}

impl ExpressRoute {
    /// What the SKU can do; `None` if its edition has no such name.
    pub fn limits(&self) -> Option<ExpressRouteSku> {
        sku::expressroute(self.edition, &self.sku)
    }

    /// The SKU, to be held against another.
    pub fn choice(&self) -> Choice {
        Choice {
            edition: self.edition,
            name: self.sku.clone(),
            generation: 0,
        }
    }
}

/// How a circuit reaches the provider (docs/azure.md, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionModel {
    /// Layer 2 cross-connect at a cloud exchange.
    Colocated,
    /// Point-to-point Ethernet.
    PointToPoint,
    /// Managed layer 3 (IPVPN).
    AnyToAny,
}

impl ConnectionModel {
    /// As the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Colocated => "colocated",
            Self::PointToPoint => "point-to-point",
            Self::AnyToAny => "any-to-any",
        }
    }

    /// As Azure calls it (docs/azure.md, section 5).
    pub fn azure_name(self) -> &'static str {
        match self {
            Self::Colocated => "Cloud exchange co-location",
            Self::PointToPoint => "Point-to-point Ethernet",
            Self::AnyToAny => "Any-to-any (IPVPN)",
        }
    }

    /// What it means on the wire of a link with so many VLAN tags: who runs tags and layer 3.
    pub fn wire(self, tags: usize) -> &'static str {
        match (self, tags) {
            (Self::AnyToAny, 0) => "managed layer 3, untagged, the provider's router",
            (Self::AnyToAny, _) => "managed layer 3, 802.1Q, the provider's router",
            (Self::Colocated | Self::PointToPoint, 0) => "untagged: layer 3, or a port of its own",
            (Self::Colocated | Self::PointToPoint, 1) => "layer 2, 802.1Q, own tags and ARP",
            (Self::Colocated | Self::PointToPoint, _) => "layer 2, QinQ, own tags and ARP",
        }
    }
}

/// `[[expressroute.circuit]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Circuit {
    /// Name; with a link's name, `circuit/link`, it names a path.
    pub name: String,
    /// Connection model.
    pub model: ConnectionModel,
    /// Static prefixes behind the circuit.
    pub prefixes: Vec<IpNet>,
    /// Whether it has the Premium add-on: more prefixes may come from it.
    pub premium: bool,
    /// Weight of its connection, compared before AS-path length; larger is better. Default 0.
    pub weight: u32,
    /// In-path probe of each link; `None`: probing is off (`probe = false`).
    pub probe: Option<Probe>,
    /// What to do with fragments.
    pub fragments: FragmentPolicy,
    /// Links: primary and secondary.
    pub links: Vec<Link>,
}

/// Which MAC address a link uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkMac {
    /// One of the gateway's own, derived from interface and address, so that the kernel's own stack
    /// does not also take the frames (the default).
    Own,
    /// The interface's; vng then sees to it that the kernel does not answer as well.
    Interface,
    /// This one.
    Fixed([u8; 6]),
}

/// `[[expressroute.circuit.link]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Name within the circuit.
    pub name: String,
    /// Linux interface.
    pub interface: String,
    /// VLAN ids: none, one (802.1Q) or two (QinQ: outer, inner).
    pub vlan: Vec<u16>,
    /// Ethertype of the outer tag of two: 0x88a8 or 0x8100.
    pub vlan_type: u16,
    /// Own addresses with prefix length, at most one of each family.
    pub address: Vec<IpNet>,
    /// Next hops, at most one of each family.
    pub neighbor: Vec<IpAddr>,
    /// MAC addresses of the next hops, never asked for: one for each, or one for all; empty: they are asked for.
    pub neighbor_mac: Vec<[u8; 6]>,
    /// MAC address in use.
    pub mac: LinkMac,
    /// GSO and checksum offload over the packet socket.
    pub offload: bool,
    /// BGP session, for the routing issue to come: kept, not yet run.
    pub bgp: Option<Bgp>,
    /// BFD session, kept, not yet run.
    pub bfd: Option<Bfd>,
}

impl Link {
    /// The given MAC address of each next hop, in their order.
    pub fn neighbor_macs(&self) -> Vec<Option<[u8; 6]>> {
        let of = |place: usize| match self.neighbor_mac.as_slice() {
            [one] => Some(*one),
            each => each.get(place).copied(),
        };
        (0..self.neighbor.len()).map(of).collect()
    }
}

/// `bgp = { ... }` of a link.
#[derive(Clone, Debug, PartialEq)]
pub struct Bgp {
    /// AS number of the neighbor.
    pub neighbor_asn: u32,
    /// Hold time offered.
    pub hold_time: Duration,
}

/// `bfd = { ... }` of a link.
#[derive(Clone, Debug, PartialEq)]
pub struct Bfd {
    /// Transmit and receive interval.
    pub interval: Duration,
    /// Missed packets until down.
    pub multiplier: u8,
}

/// `probe = { ... }`: echo requests through the path itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// Whom to ask; `None`: the link's neighbor (ExpressRoute only).
    pub target: Option<IpAddr>,
    /// Time between requests. Default 1 s.
    pub interval: Duration,
    /// Requests lost in a row until the path is down. Default 3.
    pub fail: u32,
    /// Answers in a row until the path is up. Default 3.
    pub pass: u32,
}

/// `[vpn]`
#[derive(Clone, Debug, PartialEq)]
pub struct Vpn {
    /// The tables that the SKU's name is looked up in.
    pub edition: Edition,
    /// SKU name as written; `Unlimited` for none.
    pub sku: String,
    /// SKU generation, 1 or 2; of no matter in the 2016 edition.
    pub generation: u8,
    /// File with the private key, base64.
    pub private_key_file: PathBuf,
    /// UDP port; 0: the kernel chooses one at start.
    pub listen_port: u16,
    /// The addresses of this machine that tunnels use, one a family at most, and no family that has none; empty:
    /// all.
    pub bind_address: Vec<IpAddr>,
    /// The interface that they use (SO_BINDTODEVICE); `None`: any.
    pub interface: Option<String>,
    /// The mark of their datagrams (SO_MARK), for routing rules and firewalls; 0: none.
    pub fwmark: u32,
    /// Whether datagrams are sent with don't-fragment, and the tunnels' MTU follows what the path takes. Default
    /// off: what is too long goes in fragments.
    pub path_mtu_discovery: bool,
    /// MTU of the tunnels, bytes of the inner packet. Default 1420.
    pub mtu: u16,
    /// UDP GSO and GRO on the tunnel sockets.
    pub offload: bool,
    /// Where clients reach the gateway, `host:port`, for the files that `vng p2s add` writes; the gateway
    /// itself does not use it.
    pub public_endpoint: Option<String>,
    /// Sites, in file order.
    pub sites: Vec<Site>,
    /// Point-to-site clients.
    pub point_to_site: Option<PointToSite>,
}

impl Vpn {
    /// What the SKU can do.
    ///
    /// # Errors
    /// That its edition has no such name, or its generation has not.
    pub fn limits(&self) -> Result<VpnSku, UnknownVpnSku> {
        sku::vpn(self.edition, &self.sku, self.generation)
    }

    /// The SKU, to be held against another.
    pub fn choice(&self) -> Choice {
        Choice {
            edition: self.edition,
            name: self.sku.clone(),
            generation: self.generation,
        }
    }
}

/// A host by name, or by an address with the name of its zone, and a UDP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The name as the system's resolver takes it, such as `vpn.example.net` or `fe80::1%eth0`.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

/// Kind of a site's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SiteKind {
    /// To a branch.
    SiteToSite,
    /// To another virtual network.
    VnetToVnet,
}

impl SiteKind {
    /// As the configuration names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SiteToSite => "site-to-site",
            Self::VnetToVnet => "vnet-to-vnet",
        }
    }
}

/// `[[vpn.site]]`: a local network gateway and its connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    /// Name; it names the path too.
    pub name: String,
    /// Kind.
    pub kind: SiteKind,
    /// X25519 public key.
    pub public_key: [u8; 32],
    /// File with the preshared key, base64.
    pub preshared_key_file: Option<PathBuf>,
    /// Where the site's device is; `None`: it calls, or has a name.
    pub endpoint: Option<SocketAddr>,
    /// The name of where it is, which is resolved while the gateway runs.
    pub endpoint_host: Option<HostPort>,
    /// Prefixes behind the site: routes to it, and the sources that it may use.
    pub prefixes: Vec<IpNet>,
    /// Weight of its connection, compared before AS-path length; larger is better. Default 0.
    pub weight: u32,
    /// Persistent keepalive.
    pub keepalive: Option<Duration>,
    /// Sessions side by side, for vng on both ends. Default 1.
    pub lanes: u8,
    /// In-path probe.
    pub probe: Option<Probe>,
    /// The circuit whose links carry the tunnel, by name; `None`: the host's own network does.
    pub over: Option<String>,
    /// MTU of this tunnel, bytes of the inner packet; `None`: that of all tunnels.
    pub mtu: Option<u16>,
}

impl Site {
    /// Where it is, as the file says; `None`: it calls.
    pub fn place(&self) -> Option<String> {
        let address = self.endpoint.map(|endpoint| endpoint.to_string());
        address.or_else(|| self.endpoint_host.as_ref().map(HostPort::to_string))
    }
}

impl Vpn {
    /// What a tunnel to `endpoint` puts around each packet, bytes: IP, UDP, and WireGuard's header and tag.
    pub fn overhead(&self, endpoint: SocketAddr) -> u32 {
        if endpoint.is_ipv4() {
            20 + 8 + 32
        } else {
            40 + 8 + 32
        }
    }

    /// MTU of a site's tunnel, bytes of the inner packet.
    pub fn mtu_of(&self, site: &Site) -> u16 {
        site.mtu.unwrap_or(self.mtu)
    }
}

/// `[vpn.point_to_site]`
#[derive(Clone, Debug, PartialEq)]
pub struct PointToSite {
    /// Pools that clients' addresses come from.
    pub address_pool: Vec<IpNet>,
    /// Clients.
    pub clients: Vec<Client>,
}

/// `[[vpn.point_to_site.client]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    /// Name.
    pub name: String,
    /// X25519 public key.
    pub public_key: [u8; 32],
    /// File with the preshared key, base64.
    pub preshared_key_file: Option<PathBuf>,
    /// Its addresses: the sources that it may use. One that the file gives none has the next free ones of the
    /// pools ([`super::pool`]); in a loaded configuration every client has some.
    pub address: Vec<IpAddr>,
}

/// Addresses in a policy rule or a prefix set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// A prefix.
    Prefix(IpNet),
    /// All prefixes of the set of this name, written `@NAME`.
    Set(String),
}

/// `[[prefix_set]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixSet {
    /// Its name; policies and other sets write `@NAME`.
    pub name: String,
    /// Prefixes and other sets.
    pub prefixes: Vec<Addresses>,
}

/// Where a policy rule wants a packet to have come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// The virtual network.
    Vnet,
    /// Any link of this circuit, or this site.
    Path(String),
}

/// What a policy rule matches: every field that is given must hold; within a field, any entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    /// Ingress.
    pub from: Vec<From>,
    /// Source prefixes and sets; empty: any.
    pub source: Vec<Addresses>,
    /// Destination prefixes and sets; empty: any.
    pub destination: Vec<Addresses>,
    /// Protocol numbers; empty: any.
    pub protocol: Vec<u8>,
    /// Source port ranges, both ends included; empty: any.
    pub source_port: Vec<(u16, u16)>,
    /// Destination port ranges, both ends included; empty: any.
    pub destination_port: Vec<(u16, u16)>,
    /// DSCP values (6 bits); empty: any.
    pub dscp: Vec<u8>,
    /// ICMP (and ICMPv6) types; empty: any.
    pub icmp_type: Vec<u8>,
    /// Fragments only, or whole packets only.
    pub fragment: Option<bool>,
    /// What is taken out of each field: values that must not hold. Its `fragment` and its own `not` are
    /// never set. Read as a rule sees it: [`super::rule::compiled`].
    pub not: Option<Box<Match>>,
}

/// What a policy rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Goes on to the route table.
    Route,
    /// Takes the first usable of these paths (circuits or sites), in order.
    Via(Vec<String>),
    /// Drops silently.
    Drop,
    /// Drops and tells the sender "administratively prohibited".
    Reject,
}

/// `[[policy]]`
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyRule {
    /// Name.
    pub name: String,
    /// Which packets.
    pub matches: Match,
    /// What becomes of them.
    pub action: Action,
    /// The DSCP (6 bits) that packets leave with; `None`: their own.
    pub set_dscp: Option<u8>,
}

/// Next hop of a user-defined route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// Drops (`"None"`).
    None,
    /// The virtual network (`"VnetLocal"`).
    VnetLocal,
    /// The Internet (`"Internet"`), where the gateway has no way: dropped.
    Internet,
    /// A host of the virtual network (`"VirtualAppliance"` with `next_hop_ip`); `None`: not given, which
    /// is an error.
    VirtualAppliance(Option<IpAddr>),
    /// The one connection of the one gateway (`"VirtualNetworkGateway"`).
    VirtualNetworkGateway,
    /// A circuit or a site by name.
    Path(String),
}

/// `[[route]]`
#[derive(Clone, Debug, PartialEq)]
pub struct UserRoute {
    /// Destination.
    pub prefix: IpNet,
    /// Next hop.
    pub next_hop: NextHop,
}

/// `[failover]`
#[derive(Clone, Debug, PartialEq)]
pub struct Failover {
    /// How long a path must stay up before flows go back to it. Default 5 s.
    pub hold_down: Duration,
    /// ExpressRoute to VPN and VPN to VPN. Default off.
    pub branch_transit: bool,
}

/// How a worker waits for packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Polling {
    /// It sleeps whenever there is nothing: the least processor time.
    Sleep,
    /// It looks on while packets come close behind each other.
    #[default]
    Adaptive,
    /// It never sleeps: the least latency, for one core.
    Spin,
}

impl Polling {
    /// As the configuration names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sleep => "sleep",
            Self::Adaptive => "adaptive",
            Self::Spin => "spin",
        }
    }
}

/// `[control]`
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// Unix socket of the control API. Default `/run/vng/vng.sock`.
    pub socket: PathBuf,
    /// Where metrics are served; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Data workers. Default 1.
    pub workers: u16,
    /// How workers wait for packets. Default adaptive.
    pub polling: Polling,
}
