//! Two gateways without control, each in a namespace of its own with the host that it serves:
//!
//! ```text
//! host 10.1.0.4 -- vng0 [gateway 1] ===== wire ===== [gateway 2] vng0 -- host 10.2.0.4
//! ```
//! The workers are those of `vng run`, over real devices; what control would find out (the next hops' MAC
//! addresses) is told to them once, so that nothing but packets moves while a test looks.

// Not every test program uses all of it.
#![allow(dead_code)]

use crypto::wireguard::Endpoint;
use gateway::build::data_path::DataPath;
use gateway::config::{self, KeyFiles};
use gateway::device::event::Waker;
use gateway::device::interface::Interface;
use gateway::device::namespace::Namespace;
use gateway::device::netlink::{Netlink, VethEnd};
use gateway::plan::Plan;
use gateway::telemetry::ledger::Totals;
use gateway::worker::handle::WorkerHandle;
use gateway::worker::switch::Switch;
use routing::health::Usability;
use routing::path::PathId;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take before a test gives up; nothing is measured by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What lies between the two gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Road {
    /// An ExpressRoute link without tags.
    Link,
    /// One with two tags, the outer of type 0x88a8.
    QinQ,
    /// A tunnel over IPv4.
    Tunnel4,
    /// A tunnel over IPv6.
    Tunnel6,
    /// A tunnel over IPv4 that an ExpressRoute link carries.
    Circuit4,
    /// The same over IPv6.
    Circuit6,
}

impl Road {
    pub(crate) fn has_tunnel(self) -> bool {
        !matches!(self, Self::Link | Self::QinQ)
    }

    pub(crate) fn has_link(self) -> bool {
        !matches!(self, Self::Tunnel4 | Self::Tunnel6)
    }
}

/// What the TUN devices do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vnet {
    /// TCP and UDP super-packets.
    Whole,
    /// A kernel without USO (before Linux 6.2).
    WithoutUso,
    /// Partial checksums, and no super-packets from the device.
    WithoutTso,
    /// `vnet.offload = false`: no virtio-net header.
    Off,
    /// Every super-packet and partial checksum is refused with EINVAL.
    Refused,
}

/// What the links' or tunnels' sockets do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Super-packets, trains.
    Whole,
    /// `offload = false`.
    Off,
    /// Every super-packet is refused with EINVAL, every train with EIO.
    Refused,
}

/// How both gateways are configured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) road: Road,
    /// Workers of each gateway. A tunnel belongs to the first.
    pub(crate) workers: usize,
    pub(crate) vnet: Vnet,
    pub(crate) way: Way,
    /// Whether both are of an Azure SKU that holds traffic to a rate, not `Unlimited`.
    pub(crate) shaped: bool,
    /// Sessions of the tunnel.
    pub(crate) lanes: u8,
}

impl Settings {
    /// One worker, all offloads on.
    pub(crate) fn new(road: Road) -> Self {
        Self {
            road,
            workers: 1,
            vnet: Vnet::Whole,
            way: Way::Whole,
            shaped: false,
            lanes: 1,
        }
    }
}

/// One gateway and the host behind it.
pub(crate) struct End {
    pub(crate) space: Namespace,
    handles: Vec<WorkerHandle>,
    ports: Vec<String>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl End {
    /// The books of all its workers.
    pub(crate) fn totals(&self) -> Totals {
        Totals::of(
            self.handles.iter().map(|handle| &*handle.ledger),
            &self.ports,
        )
    }

    /// The books of one worker.
    pub(crate) fn totals_of(&self, worker: usize) -> Totals {
        Totals::of([&*self.handles[worker].ledger], &self.ports)
    }

    /// The name of the port that leads to the other gateway.
    pub(crate) fn road(&self) -> &str {
        self.ports.last().expect("there is one path")
    }
}

/// The two gateways, running until they are dropped.
pub(crate) struct Pair {
    pub(crate) ends: [End; 2],
    _files: TempDir,
}

/// The host behind a gateway (0 or 1).
pub(crate) fn host(end: usize, v6: bool, port: u16) -> SocketAddr {
    let n = end + 1;
    let text = if v6 {
        format!("fd00:{n}::4")
    } else {
        format!("10.{n}.0.4")
    };
    SocketAddr::new(text.parse().unwrap(), port)
}

impl Pair {
    /// Starts both; `None`, with a word on standard error, where namespaces cannot be made.
    pub(crate) fn start(settings: Settings) -> Option<Self> {
        let spaces = match [Namespace::new(), Namespace::new()] {
            [Ok(one), Ok(two)] => [one, two],
            [one, two] => {
                let error = one.err().or(two.err()).unwrap();
                eprintln!("SKIPPED: cannot make a network namespace ({error}): run as root");
                return None;
            }
        };
        let files = tempfile::tempdir().unwrap();
        let keys = [(); 2].map(|()| crypto::key::PrivateKey::generate().unwrap());
        for (n, key) in keys.iter().enumerate() {
            let file = files.path().join(format!("{n}.key"));
            let mut options = fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(file)
                .unwrap();
            io::Write::write_all(&mut file, key.to_base64().as_bytes()).unwrap();
        }
        for space in &spaces {
            space.run(prepare).unwrap();
        }
        wire(&spaces);
        let ends = [0, 1].map(|n| {
            let key = keys[1 - n].public_key().to_string();
            let text = text(n, settings, &key);
            spaces[n]
                .run(|| assemble(&text, files.path(), settings))
                .unwrap()
        });
        // Each tells the other where it is.
        if settings.road.has_link() {
            for n in [0, 1] {
                let mac = ends[1 - n].0.mac(PathId(0)).expect("a MAC of its own");
                for far in [format!("172.16.0.{}", 2 - n), format!("fd16::{}", 2 - n)] {
                    let far: IpAddr = far.parse().unwrap();
                    let word = ends[n].0.neighbor(PathId(0), far).expect("its next hop");
                    word.publish(Some(mac));
                }
            }
        }
        let mut ends = ends.into_iter().zip(spaces).map(|((path, ports), space)| {
            let threads = space
                .run(|| {
                    let start = |worker: gateway::worker::run::Worker<_>| {
                        std::thread::spawn(|| worker.run())
                    };
                    path.workers.into_iter().map(start).collect()
                })
                .unwrap();
            End {
                space,
                handles: path.handles,
                ports,
                threads,
            }
        });
        let ends = [ends.next().unwrap(), ends.next().unwrap()];
        Some(Self {
            ends,
            _files: files,
        })
    }
}

impl std::fmt::Display for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for end in &self.ends {
            let drops = end.handles.iter().map(|handle| &handle.shared.kernel_drops);
            writeln!(
                f,
                "{:#?}\nthe kernel dropped {:?}",
                end.totals(),
                drops.collect::<Vec<_>>()
            )?;
        }
        Ok(())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for end in &mut self.ends {
            end.handles.iter().for_each(WorkerHandle::stop);
            for thread in end.threads.drain(..) {
                let ended = thread.join();
                if !std::thread::panicking() {
                    ended.expect("no panic").expect("no error");
                }
            }
            if !std::thread::panicking() {
                let totals = end.totals();
                assert_eq!(totals.imbalance(), 0, "{totals:#?}");
                assert_eq!(totals.held, 0, "{totals:#?}");
            }
        }
    }
}

/// Addresses count from the moment that they are set, and routers are not asked for.
fn prepare() {
    for scope in ["all", "default"] {
        for (name, value) in [
            ("accept_dad", "0"),
            ("dad_transmits", "0"),
            ("router_solicitations", "0"),
        ] {
            let file = format!("/proc/sys/net/ipv6/conf/{scope}/{name}");
            fs::write(file, value).unwrap();
        }
    }
    Interface::set_up("lo", true).unwrap();
}

/// The wire: a veth pair between the namespaces, wide enough for two tags.
fn wire(spaces: &[Namespace; 2]) {
    let make = || {
        let mut netlink = Netlink::open().unwrap();
        netlink
            .add_veth(
                VethEnd::here("eth0"),
                VethEnd::within("eth0", spaces[1].as_fd()),
            )
            .unwrap();
    };
    spaces[0].run(make).unwrap();
    for (space, n) in spaces.iter().zip(1..) {
        let set_up = || {
            let mut netlink = Netlink::open().unwrap();
            for address in [format!("192.0.2.{n}/24"), format!("fd99::{n}/64")] {
                netlink
                    .add_address("eth0", address.parse().unwrap())
                    .unwrap();
            }
            Interface::set_mtu("eth0", 1508).unwrap();
            Interface::set_up("eth0", true).unwrap();
        };
        space.run(set_up).unwrap();
    }
}

fn text(n: usize, settings: Settings, peer_key: &str) -> String {
    let (own, far) = (n + 1, 2 - n);
    let Settings {
        road,
        workers,
        vnet,
        way,
        shaped,
        lanes,
    } = settings;
    let [link_sku, tunnel_sku] = if shaped {
        ["ErGw1Az", "VpnGw1"]
    } else {
        ["Unlimited"; 2]
    };
    let (vnet_offload, road_offload) = (vnet != Vnet::Off, way != Way::Off);
    let mut text = format!(
        r#"
[vnet]
name          = "vnet-{own}"
address_space = ["10.{own}.0.0/16", "fd00:{own}::/48"]
device        = "vng0"
address       = ["10.{own}.255.4/24", "fd00:{own}:0:ff::4/64"]
host_address  = ["10.{own}.0.4/16", "fd00:{own}::4/48"]
host_routes   = true
offload       = {vnet_offload}

[control]
socket  = "unused.sock"
workers = {workers}
"#
    );
    let prefixes = format!(r#"["10.{far}.0.0/16", "fd00:{far}::/48"]"#);
    if road.has_link() {
        let tags = match road {
            Road::QinQ => "vlan = [100, 10]\nvlan_type = \"0x88a8\"",
            _ => "",
        };
        // A circuit that carries the tunnel leads to where that ends, and to nothing else.
        let (name, prefixes) = if road.has_tunnel() {
            let outer = format!(r#"["10.{far}.255.0/27", "fd00:{far}:0:ff::/64"]"#);
            ("circuit", outer)
        } else {
            ("far", prefixes.clone())
        };
        let _ = write!(
            text,
            r#"
[expressroute]
sku = "{link_sku}"

[[expressroute.circuit]]
name     = "{name}"
model    = "colocated"
prefixes = {prefixes}
probe    = false

[[expressroute.circuit.link]]
name      = "primary"
interface = "eth0"
{tags}
address   = ["172.16.0.{own}/24", "fd16::{own}/64"]
neighbor  = ["172.16.0.{far}", "fd16::{far}"]
offload   = {road_offload}
"#
        );
    }
    if road.has_tunnel() {
        let (endpoint, over) = match road {
            Road::Tunnel6 => (format!("[fd99::{far}]:51820"), ""),
            Road::Circuit4 => (format!("10.{far}.255.4:51820"), "over = \"circuit\""),
            Road::Circuit6 => (format!("[fd00:{far}:0:ff::4]:51820"), "over = \"circuit\""),
            _ => (format!("192.0.2.{far}:51820"), ""),
        };
        let _ = write!(
            text,
            r#"
[vpn]
sku              = "{tunnel_sku}"
private_key_file = "{n}.key"
listen_port      = 51820
offload          = {road_offload}

[[vpn.site]]
name       = "far"
public_key = "{peer_key}"
endpoint   = "{endpoint}"
prefixes   = {prefixes}
lanes      = {lanes}
probe      = false
{over}
"#
        );
    }
    text
}

/// Puts the faults in that no configuration asks for.
fn alter(settings: Settings, switch: &mut Switch<Endpoint>) {
    match settings.vnet {
        Vnet::WithoutUso | Vnet::WithoutTso => {
            let tso = settings.vnet == Vnet::WithoutUso;
            assert!(
                switch.ports.vnet.queue.lack(tso),
                "the device keeps its offloads"
            );
            switch.lack_uso();
        }
        Vnet::Refused => switch.ports.vnet.queue.refuse_gso(),
        Vnet::Whole | Vnet::Off => {}
    }
    if settings.way == Way::Refused {
        for link in &mut switch.ports.links {
            link.refuse_gso();
        }
        for socket in switch
            .ports
            .tunnels
            .base_mut()
            .sockets_mut()
            .into_iter()
            .flatten()
        {
            socket.refuse_gso();
        }
    }
}

fn assemble(text: &str, directory: &Path, settings: Settings) -> (DataPath, Vec<String>) {
    let name = Path::new("pair.toml");
    let loaded = config::parse(name, text.to_owned(), directory, KeyFiles::Checked);
    let config = match loaded {
        Ok(loaded) => loaded.config,
        Err(report) => panic!("{}", report.render(false)),
    };
    let plan = Plan::new(&config, NonZeroU32::MIN, |_| Usability::Full).unwrap();
    let control = Arc::new(Waker::new().unwrap());
    let now = Instant::now();
    let alter = |switch: &mut Switch<Endpoint>| alter(settings, switch);
    let path = match DataPath::assemble_with(&config, &plan, now, &control, alter) {
        Ok(path) => path,
        Err(error) => panic!("{error:?}"),
    };
    path.presence.establish().unwrap();
    (path, plan.ports)
}
