//! The data path of a gateway, complete and not yet running: devices, words and workers, out of a
//! configuration and its plan. The supervisor runs it beside control; tests run it alone.

use crate::build::assembly::{self, Parts};
use crate::build::slots;
use crate::config::schema::Config;
use crate::device::event::Waker;
use crate::error::{RunError, SystemError};
use crate::kernel::presence::Presence;
use crate::pipeline::flow::Window;
use crate::pipeline::process::Forwarding;
use crate::plan::Plan;
use crate::plan::limit;
use crate::telemetry::hits::Hits;
use crate::tunnels::keys::Keys;
use crate::tunnels::{ChangeError, TunnelSet};
use crate::worker::control_port::NeighborWord;
use crate::worker::handle::WorkerHandle;
use crate::worker::run::{Shared, Worker};
use crate::worker::switch::Switch;
use arc_swap::ArcSwap;
use crypto::wireguard::Endpoint;
use routing::path::PathId;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

/// Devices, words and workers of one gateway.
pub struct DataPath {
    /// The workers, each to be run on a thread of its own.
    pub workers: Vec<Worker<Endpoint>>,
    /// The other end of each.
    pub handles: Vec<WorkerHandle>,
    /// What kernel and devices do for the packets of each port, in words, as it was found at the start.
    pub offloads: BTreeMap<String, Vec<String>>,
    /// The forwarding state, which all of them read.
    pub forwarding: Arc<ArcSwap<Forwarding>>,
    /// The kernel's side of the TUN device: [`Presence::establish`] sets it up.
    pub presence: Arc<Presence>,
    pub(crate) parts: Arc<Parts>,
    pub(crate) keys: Keys,
}

impl DataPath {
    /// Opens all devices in the calling thread's network namespace, and changes nothing else of the machine. `started` is time zero of what tunnels
    /// tell of themselves; workers wake `control` for what only it can do.
    ///
    /// # Errors
    /// What the system lacks, with its remedy.
    pub fn assemble(
        config: &Config,
        plan: &Plan,
        started: Instant,
        control: &Arc<Waker>,
    ) -> Result<Self, RunError> {
        Self::assemble_with(config, plan, started, control, |_| {})
    }

    /// The same, with `alter` run on the ports of each worker before it takes them: the way of faults into
    /// tests.
    ///
    /// # Errors
    /// [`RunError::System`]: a key file gives no key, or the kernel refuses a device, a socket or an `eventfd`;
    /// with the remedy.
    pub fn assemble_with(
        config: &Config,
        plan: &Plan,
        started: Instant,
        control: &Arc<Waker>,
        alter: impl Fn(&mut Switch<Endpoint>),
    ) -> Result<Self, RunError> {
        let bells = slots::bells(usize::from(config.control.workers))?;
        let keys = Keys::read(config).map_err(RunError::needed)?;
        let parts = Arc::new(Parts::new(config, plan, &keys, &bells)?);
        let limits = limit::limits(config, plan, bells.len(), None);
        let flows = limit::flows(config, None);
        let hits = Hits::new(bells.len(), config.policy.len());
        let forwarding = parts.forwarding(config, plan, (limits, flows), hits);
        let forwarding = Arc::new(ArcSwap::from_pointee(forwarding));
        let limiter = assembly::limiter(started)?;
        let (vnets, presence) = assembly::vnet_ports(config, plan)?;
        keys.agree(config, |_| false).map_err(RunError::needed)?;
        let steps = parts.steps(&TunnelSet::default(), config, None, bells.len());
        let mut steps = steps.into_iter();
        let (mut handles, mut workers, mut offloads) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (slot, vnet) in slots::slots(&bells, ledger_ports(plan))
            .into_iter()
            .zip(vnets)
        {
            let handle = WorkerHandle {
                shared: Arc::new(Shared {
                    forwarding: Arc::clone(&forwarding),
                    newest_flows: Window::default(),
                    kernel_drops: plan.ports.iter().map(|_| AtomicU64::new(0)).collect(),
                    stop: AtomicBool::new(false),
                }),
                host: Arc::clone(&slot.host),
                ledger: Arc::clone(&slot.ledger),
            };
            let tunnels = assembly::tunnels(config, &parts, &slot, (&keys, &limiter), started)?;
            let mut switch = parts.switch(plan, slot, vnet, tunnels, control)?;
            for change in steps.next().into_iter().flat_map(|steps| steps.before) {
                if !switch.change(started, change) {
                    return Err(RunError::needed(ChangeError::Refused(1)));
                }
            }
            alter(&mut switch);
            if offloads.is_empty() {
                offloads = offloads_of(&switch, plan);
            }
            let shared = Arc::clone(&handle.shared);
            let worker = Worker::new(switch, shared, config.control.polling, started)
                .map_err(SystemError::kernel("wait for the devices"))?;
            workers.push(worker);
            handles.push(handle);
        }
        Ok(Self {
            workers,
            handles,
            offloads,
            forwarding,
            presence: Arc::new(presence),
            parts,
            keys,
        })
    }

    /// The word of a next hop, which control writes once it has resolved the address.
    pub fn neighbor(&self, path: PathId, next_hop: IpAddr) -> Option<&Arc<NeighborWord>> {
        let neighbors = &self.parts.link(path)?.neighbors;
        let found = neighbors.iter().find(|(address, _)| *address == next_hop);
        found.map(|(_, word)| word)
    }

    /// The MAC address that a link answers with; `None`: the interface's, whatever it is.
    pub fn mac(&self, path: PathId) -> Option<[u8; 6]> {
        self.parts.link(path)?.recipe.mac
    }
}

/// Paths that reloads may add beyond those of the start. Each is 32 bytes in each ledger.
pub const SPARE_PATHS: usize = 1_024;

/// Ports of a ledger: those of the plan, and of paths to come.
pub(crate) fn ledger_ports(plan: &Plan) -> usize {
    plan.ports.len() + SPARE_PATHS
}

/// What is on, by port: the first worker's, which all have alike.
fn offloads_of(switch: &Switch<Endpoint>, plan: &Plan) -> BTreeMap<String, Vec<String>> {
    let words = |words: &[(&str, bool)]| {
        let on = words.iter().filter(|(_, on)| *on);
        on.map(|(word, _)| (*word).to_owned()).collect::<Vec<_>>()
    };
    let mut all = BTreeMap::new();
    let vnet = &switch.ports.vnet;
    let of_vnet = [
        ("checksum", vnet.offload),
        ("TSO", vnet.offload),
        ("USO", vnet.uso),
    ];
    all.insert("vnet".to_owned(), words(&of_vnet));
    for link in &switch.ports.links {
        if let Some(path) = plan.paths.get(usize::from(link.path().0)) {
            let on = link.merges();
            all.insert(path.name.clone(), words(&[("checksum", on), ("GSO", on)]));
        }
    }
    let mut sockets = switch.ports.tunnels.base().sockets().into_iter().flatten();
    if let Some(socket) = sockets.next() {
        let (send, receive) = (socket.sends_trains(), socket.receives_trains());
        let on = words(&[("UDP_SEGMENT", send), ("UDP_GRO", receive)]);
        all.insert("underlay".to_owned(), on);
    }
    all
}
