//! The running gateway as the control socket sees it: what it shows. How it is changed: [`change`].

mod change;

use crate::api::Gateway;
use crate::build::assembly::Parts;
use crate::build::data_path::ledger_ports;
use crate::config::schema::Config;
use crate::control::force::InForce;
use crate::control::published::{self, PathView};
use crate::control::run::ControlHandle;
use crate::device::event::Waker;
use crate::device::netlink::Netlink;
use crate::device::udp::{InterfaceName, RouteOptions};
use crate::kernel::presence::Presence;
use crate::pipeline::process::{Forwarding, Side};
use crate::plan::{Origin, PathPlan, Plan};
use crate::show::describe;
use crate::show::effective::{self, Wanted};
use crate::show::inspect;
use crate::show::refusal::Refusal;
use crate::show::usage;
use crate::show::view::{
    BgpView, CircuitView, ClientView, Counters, Explanation, Flows, Loss, NeighborView, PolicyView,
    Query, Recreated, ReloadReport, Resize, ResizeReport, RouteFilter, RouteView, Status,
    TunnelView,
};
use crate::telemetry::ledger::{Ledger, Totals};
use crate::tunnels;
use crate::tunnels::keys::Keys;
use crate::tunnels::underlay::{Sites, Terms, Watched};
use crate::worker::handle::WorkerHandle;
use routing::health::Usability;
use routing::path::PathId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

/// What is in force; a reload replaces it as a whole.
struct Current {
    config: Config,
    plan: Plan,
    parts: Arc<Parts>,
    keys: Keys,
    generation: NonZeroU32,
}

/// The counters a moment ago, for rates.
struct Sample {
    at: Instant,
    totals: Totals,
    rates: BTreeMap<String, inspect::Rate>,
    flows: usage::Meter,
}

/// The running gateway.
pub(crate) struct Running {
    path: PathBuf,
    started: Instant,
    /// Held for as long as it takes to copy or to replace the reference: what is shown waits for no reload.
    current: Mutex<Arc<Current>>,
    /// Whoever changes the gateway has this for the whole of it: reloads, resizes and revocations come one
    /// after the other, wherever they were asked for.
    changing: Mutex<()>,
    /// A reload that a signal asked for waits for its turn: another signal asks for nothing more.
    reload_waits: AtomicBool,
    /// Nothing is to be changed any more.
    ending: AtomicBool,
    offloads: BTreeMap<String, Vec<String>>,
    /// The kernel's side of the TUN device.
    presence: Arc<Presence>,
    /// Ports that every ledger has room for.
    ledger_ports: usize,
    forwarding: InForce<Forwarding>,
    control: Arc<ControlHandle>,
    workers: Vec<WorkerHandle>,
    control_ledger: Arc<Ledger>,
    sample: Mutex<Sample>,
    /// How often the process has made the gateway anew, and how it did last.
    incarnation: u32,
    recreated: Option<Recreated>,
    /// What is lost by the gateway that has to be made anew.
    leaving: OnceLock<Loss>,
    /// Ends the gateway.
    ended: Arc<Waker>,
    /// Forwarding states that workers may still read. Who lets go last frees it all, which for a million
    /// routes takes milliseconds: that shall be no worker.
    retired: Mutex<Vec<Arc<Forwarding>>>,
}

impl Running {
    pub(crate) fn new(
        (path, started, offloads, presence): (
            &Path,
            Instant,
            BTreeMap<String, Vec<String>>,
            Arc<Presence>,
        ),
        (config, plan, parts, keys): (Config, Plan, Arc<Parts>, Keys),
        forwarding: InForce<Forwarding>,
        control: Arc<ControlHandle>,
        workers: Vec<WorkerHandle>,
        control_ledger: Arc<Ledger>,
        (incarnation, recreated, ended): (u32, Option<Recreated>, Arc<Waker>),
    ) -> Self {
        let generation = NonZeroU32::MIN;
        let ledger_ports = ledger_ports(&plan);
        Self {
            path: path.to_owned(),
            started,
            current: Mutex::new(Arc::new(Current {
                config,
                plan,
                parts,
                keys,
                generation,
            })),
            changing: Mutex::new(()),
            reload_waits: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            offloads,
            presence,
            ledger_ports,
            forwarding,
            control,
            workers,
            control_ledger,
            sample: Mutex::new(Sample {
                at: started,
                totals: Totals::default(),
                rates: BTreeMap::new(),
                flows: usage::Meter::default(),
            }),
            incarnation,
            recreated,
            leaving: OnceLock::new(),
            ended,
            retired: Mutex::default(),
        }
    }

    /// What the gateway that is to be made anew loses; `None` if it is to end for good.
    pub(crate) fn leaving(&self) -> Option<Loss> {
        self.leaving.get().copied()
    }

    /// Has the gateway end and be made anew.
    fn end_for(&self, lost: Loss) {
        let _ = self.leaving.set(lost);
        self.ended.wake();
    }

    /// What would be lost now.
    fn loss(&self, current: &Current) -> Loss {
        let lanes = current.parts.tunnels.words();
        let sessions = lanes.filter(|lane| lane.has_session.load(Ordering::Relaxed));
        let limits = self.forwarding.load().flows.clone();
        let view = self.control.published.view();
        Loss {
            sessions: sessions.count() as u64,
            flows: limits.map_or(0, |limits| limits.flows()),
            neighbors: view.neighbors.iter().filter(|n| n.mac.is_some()).count() as u64,
            // Until there is BGP, every route is the file's.
            routes: 0,
        }
    }

    fn retired(&self) -> MutexGuard<'_, Vec<Arc<Forwarding>>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Arc<Current> {
        // Cold path only: the API's threads and the signal loop.
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }

    fn totals(&self, ports: &[String]) -> Totals {
        let workers = self.workers.iter().map(|worker| &*worker.ledger);
        Totals::of(workers.chain([&*self.control_ledger]), ports)
    }

    /// What the kernel has dropped before a worker could read it: the sockets count for the workers, and the TUN device
    /// for itself.
    fn kernel_drops(&self, device: &str, ports: &[String]) -> BTreeMap<String, u64> {
        let mut drops = BTreeMap::new();
        let of_device = Netlink::open().and_then(|mut netlink| netlink.tx_dropped(device));
        match of_device {
            Ok(Some(count)) if count > 0 => {
                drops.insert("vnet".to_owned(), count);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "drops of {device} are not known"),
        }
        for worker in &self.workers {
            for (name, count) in ports.iter().zip(&worker.shared.kernel_drops) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    *drops.entry(name.clone()).or_default() += count;
                }
            }
        }
        drops
    }

    /// Works out the rates since the last call.
    pub(crate) fn sample(&self, now: Instant) {
        let totals = self.totals(&self.current().plan.ports);
        let mut sample = self.sample.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = now.saturating_duration_since(sample.at).as_secs_f64();
        if seconds > 0.0 {
            sample.rates = inspect::rates(&sample.totals, &totals, seconds);
            (sample.at, sample.totals) = (now, totals);
            let limits = self.forwarding.load().flows.clone();
            for met in sample.flows.sample(limits.as_deref(), seconds, now) {
                self.tell_met(met);
            }
        }
        self.retired().retain(|state| Arc::strong_count(state) > 1);
    }

    /// A limit refuses flows: an event, and a line in the log.
    fn tell_met(&self, met: usage::Met) {
        let (gateway, reason) = (met.gateway, met.reason.name());
        tracing::warn!(gateway, reason, "new flows are refused: a limit of the SKU");
        self.control.published.record(published::PathEvent {
            detected_unix_ms: published::unix_ms(SystemTime::now()),
            switched_unix_ms: None,
            path: gateway.to_owned(),
            from: "within_limits",
            to: "at_limit",
            reason: Some(reason),
        });
    }

    /// Nothing is to be changed from here on: a change that has not come into force yet does not.
    pub(crate) fn ends(&self) {
        self.ending.store(true, Ordering::Release);
    }

    /// Whether there are or can be sites.
    pub(crate) fn has_sites(&self) -> bool {
        self.current().config.vpn.is_some()
    }

    /// Tells every worker to end.
    pub(crate) fn stop_workers(&self) {
        for worker in &self.workers {
            worker.stop();
        }
    }

    /// The last line of the books.
    pub(crate) fn report(&self) {
        let totals = self.totals(&self.current().plan.ports);
        let sum = |sums: &BTreeMap<String, crate::telemetry::ledger::Sum>| {
            sums.values().map(|sum| sum.packets).sum::<u64>()
        };
        tracing::info!(
            received = sum(&totals.received),
            sent = sum(&totals.sent),
            dropped = sum(&totals.dropped),
            held = totals.held,
            "ended"
        );
    }

    fn views(&self) -> Vec<PathView> {
        self.control.published.view().paths.clone()
    }

    /// What flows may do with a path now, by its name: it stays the same across a reload.
    fn usability(&self) -> impl Fn(&PathPlan) -> Usability + use<> {
        let views = self.views();
        move |path| {
            let view = views.iter().find(|view| view.name == path.name);
            view.map_or(Usability::None, |view| view.usability)
        }
    }
}

impl Sites for Running {
    fn watched(&self) -> (Vec<Watched>, Terms) {
        let current = self.current();
        let vpn = current.config.vpn.as_ref();
        let site = |path: &PathPlan| {
            let Origin::Site { site } = path.origin else {
                return None;
            };
            let (vpn, site) = (vpn?, vpn?.sites.get(site)?);
            Some(Watched {
                path: path.id,
                name: site.name.clone(),
                host: site.endpoint_host.clone(),
                lanes: current.parts.lanes(path.id).to_vec(),
                mtu: vpn.mtu_of(site),
                is_routed: path.over.is_none(),
            })
        };
        let own = vpn.map_or_else(Vec::new, |vpn| vpn.bind_address.clone());
        let has = |v4: bool| own.is_empty() || own.iter().any(|own| own.is_ipv4() == v4);
        let interface = vpn.and_then(|vpn| vpn.interface.as_deref());
        let terms = Terms {
            started: self.started,
            discovers: vpn.is_some_and(|vpn| vpn.path_mtu_discovery),
            families: [has(true), has(false)],
            route: RouteOptions {
                local: None,
                interface: interface.and_then(InterfaceName::new),
                mark: vpn.map_or(0, |vpn| vpn.fwmark),
            },
            own,
        };
        (current.plan.live().filter_map(site).collect(), terms)
    }

    fn move_site(&self, path: PathId, name: &str, to: SocketAddr) {
        let current = self.current();
        // A reload may have come in between.
        let same = |known: &PathPlan| known.id == path && known.name == name;
        if !current.plan.live().any(same) {
            return;
        }
        let changes = current.parts.moved(path, to, self.workers.len());
        if let Err(error) = tunnels::carry_out(&self.workers, changes) {
            tracing::warn!(site = name, "the site's new address is not in use: {error}");
        }
    }

    fn set_mtu(&self, path: PathId, mtu: u16) {
        // The route is looked at again and again, so a state that comes meanwhile is fitted the next time.
        let _ = self.forwarding.fit(path, mtu);
    }
}

impl Gateway for Running {
    fn status(&self) -> Status {
        let current = self.current();
        let totals = self.totals(&current.plan.ports);
        let sample = self.sample.lock().unwrap_or_else(PoisonError::into_inner);
        let mut status =
            inspect::status(&current.config, &current.plan, &self.views(), &sample.rates);
        let limits = self.forwarding.load().flows.clone();
        usage::fill(
            &mut status,
            &current.config,
            limits.as_deref(),
            &sample.flows,
        );
        let own = current.keys.public_key().map(|key| key.to_string());
        for gateway in &mut status.gateways {
            gateway.public_key = own.clone().filter(|_| gateway.kind == "Vpn");
        }
        status.config = self.path.display().to_string();
        status.uptime_seconds = self.started.elapsed().as_secs_f64();
        (status.incarnation, status.recreated) = (self.incarnation, self.recreated);
        status.workers = self.workers.len() as u16;
        status.offloads.clone_from(&self.offloads);
        status.host = inspect::host(self.presence.view());
        status.ledger_balanced = totals.imbalance() == 0;
        status.events = self
            .control
            .published
            .events()
            .iter()
            .map(inspect::event)
            .collect();
        status
    }

    fn routes(&self, filter: &RouteFilter) -> Result<Vec<RouteView>, Refusal> {
        let current = self.current();
        let plan = &current.plan;
        let wanted = Wanted::new(plan, filter)?;
        Ok(effective::routes(plan, &wanted))
    }

    fn policy(&self) -> Vec<PolicyView> {
        let current = self.current();
        let hits = self.forwarding.load().hits.read();
        describe::policy(&current.config, &current.plan, &hits)
    }

    fn circuits(&self) -> Vec<CircuitView> {
        let current = self.current();
        let totals = self.totals(&current.plan.ports);
        inspect::circuits(
            &current.config,
            &current.plan,
            &current.parts,
            &self.views(),
            &totals,
        )
    }

    fn tunnels(&self) -> Vec<TunnelView> {
        let current = self.current();
        let totals = self.totals(&current.plan.ports);
        let (views, started) = (self.views(), self.started);
        let forwarding = self.forwarding.load();
        let mtus: Vec<u16> = forwarding.paths.iter().map(Side::mtu).collect();
        let mut tunnels = inspect::tunnels(
            &current.config,
            &current.plan,
            &current.parts,
            &views,
            &totals,
            (&mtus, started),
        );
        let sample = self.sample.lock().unwrap_or_else(PoisonError::into_inner);
        let own = current.keys.public_key().map(|key| key.to_string());
        for tunnel in &mut tunnels {
            tunnel.gateway_public_key = own.clone().unwrap_or_default();
            if let Some(rate) = sample.rates.get(&tunnel.name) {
                tunnel.bits_per_second = rate.bits_in + rate.bits_out;
                tunnel.packets_per_second = rate.packets_in + rate.packets_out;
            }
        }
        tunnels
    }

    fn clients(&self) -> Vec<ClientView> {
        let current = self.current();
        inspect::clients(&current.config, &current.parts.tunnels, self.started)
    }

    fn neighbors(&self) -> Vec<NeighborView> {
        let current = self.current();
        inspect::neighbors(
            &current.plan,
            &current.parts,
            &self.control.published.view(),
        )
    }

    fn bgp(&self) -> Vec<BgpView> {
        inspect::bgp(&self.current().config)
    }

    fn flows(&self) -> Flows {
        let current = self.current();
        let limits = self.forwarding.load().flows.clone();
        let sample = self.sample.lock().unwrap_or_else(PoisonError::into_inner);
        usage::flows(
            &self.workers,
            &current.plan,
            limits.as_deref(),
            &sample.flows,
        )
    }

    fn counters(&self) -> Counters {
        let current = self.current();
        let ports = &current.plan.ports;
        let device = &current.config.vnet.device;
        Counters::new(self.totals(ports), self.kernel_drops(device, ports))
    }

    fn explain(&self, query: &Query) -> Result<Explanation, Refusal> {
        let current = self.current();
        let (plan, views) = (&current.plan, self.views());
        let health = |id| inspect::health(plan, &views, id);
        let session = |name: &str| inspect::session(&current.parts.tunnels, name);
        describe::explain(&current.config, plan, query, health, session)
    }

    fn reload(&self) -> Result<ReloadReport, Refusal> {
        self.reload_for("socket")
    }

    fn resize(&self, wanted: &Resize) -> Result<ResizeReport, Refusal> {
        self.resize_for("socket", wanted)
    }

    fn revoke(&self, client: &str) -> Result<bool, Refusal> {
        self.revoke_for("socket", client)
    }
}
