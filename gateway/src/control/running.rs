//! The running gateway as the control socket sees it: what it shows, and reload.

use crate::config::schema::Config;
use crate::config::{self, KeyFiles, Loaded, rule};
use crate::control::api::{Gateway, Refusal};
use crate::control::assembly::{self, Parts};
use crate::control::board::{self, PathView};
use crate::control::data_path::{SPARE_PATHS, WorkerHandle, ledger_ports};
use crate::control::describe;
use crate::control::effective::{self, Wanted};
use crate::control::inspect;
use crate::control::limit;
use crate::control::plan::{Origin, PathPlan, Plan};
use crate::control::resize;
use crate::control::run::ControlHandle;
use crate::control::tunnels;
use crate::control::underlay::{Terms, Watched};
use crate::control::usage;
use crate::control::view::{
    BgpView, CircuitView, ClientView, Counters, Explanation, Flows, Loss, NeighborView, PolicyView,
    Query, Recreated, ReloadReport, Resize, ResizeReport, RouteFilter, RouteView, Status,
    TunnelView,
};
use crate::device::event::Waker;
use crate::device::netlink::Netlink;
use crate::device::udp::{InterfaceName, RouteOptions};
use crate::pipeline::process::{Forwarding, Side};
use crate::telemetry::ledger::{Ledger, Totals};
use arc_swap::ArcSwap;
use routing::health::Usability;
use routing::path::PathId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

/// What is in force; a reload replaces it.
struct Current {
    config: Config,
    plan: Plan,
    parts: Arc<Parts>,
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
    current: Mutex<Current>,
    offloads: BTreeMap<String, Vec<String>>,
    /// Ports that every ledger has room for.
    ledger_ports: usize,
    forwarding: Arc<ArcSwap<Forwarding>>,
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
        (path, started): (&Path, Instant),
        (config, plan, parts, offloads): (Config, Plan, Arc<Parts>, BTreeMap<String, Vec<String>>),
        forwarding: Arc<ArcSwap<Forwarding>>,
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
            current: Mutex::new(Current {
                config,
                plan,
                parts,
                generation,
            }),
            offloads,
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
        let view = self.control.board.view();
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

    fn current(&self) -> MutexGuard<'_, Current> {
        // Cold path only: the API's thread and the signal loop.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn totals(&self, ports: &[String]) -> Totals {
        let workers = self.workers.iter().map(|worker| &*worker.ledger);
        Totals::of(workers.chain([&*self.control_ledger]), ports)
    }

    fn kernel_drops(&self, ports: &[String]) -> BTreeMap<String, u64> {
        let mut drops = BTreeMap::new();
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
        self.control.board.record(board::Event {
            detected_unix_ms: board::unix_ms(SystemTime::now()),
            switched_unix_ms: None,
            path: gateway.to_owned(),
            from: "within_limits",
            to: "at_limit",
            reason: Some(reason),
        });
    }

    /// SIGHUP: nobody waits for an answer, so it goes to the log.
    pub(crate) fn reload_by_signal(&self) {
        match self.reload() {
            Ok(report) => {
                for line in report.changed.iter().chain(&report.needs_restart) {
                    tracing::info!("reload: {line}");
                }
            }
            Err(refusal) => {
                tracing::error!("reload refused, nothing changed:\n{}", refusal.message);
            }
        }
    }

    /// Whether there are or can be sites.
    pub(crate) fn has_sites(&self) -> bool {
        self.current().config.vpn.is_some()
    }

    /// The sites' tunnels, to be looked after in the underlay, and what holds for all of them.
    pub(crate) fn watched(&self) -> (Vec<Watched>, Terms) {
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

    /// Has the workers send what is for a site to this address, where its name has led.
    pub(crate) fn move_site(&self, path: PathId, name: &str, to: SocketAddr) {
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

    /// Makes a tunnel so wide.
    pub(crate) fn set_mtu(&self, path: PathId, mtu: u16) {
        let forwarding = self.forwarding.load();
        if let Some(side) = forwarding.paths.get(usize::from(path.0)) {
            side.mtu.store(mtu, Ordering::Relaxed);
        }
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
        self.control.board.view().paths.clone()
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
        status.config = self.path.display().to_string();
        status.uptime_seconds = self.started.elapsed().as_secs_f64();
        (status.incarnation, status.recreated) = (self.incarnation, self.recreated);
        status.workers = self.workers.len() as u16;
        status.offloads.clone_from(&self.offloads);
        status.ledger_balanced = totals.imbalance() == 0;
        status.events = self
            .control
            .board
            .events()
            .iter()
            .map(inspect::event)
            .collect();
        status
    }

    fn routes(&self, filter: &RouteFilter) -> Result<Vec<RouteView>, Refusal> {
        let plan = &self.current().plan;
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
        for tunnel in &mut tunnels {
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
        inspect::neighbors(&current.plan, &current.parts, &self.control.board.view())
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
        Counters::new(self.totals(ports), self.kernel_drops(ports))
    }

    fn explain(&self, query: &Query) -> Result<Explanation, Refusal> {
        let current = self.current();
        let (plan, views) = (&current.plan, self.views());
        describe::explain(&current.config, plan, query, |id| {
            inspect::health(plan, &views, id)
        })
    }

    fn reload(&self) -> Result<ReloadReport, Refusal> {
        let mut loaded = config::load(&self.path, KeyFiles::Checked)
            .map_err(|error| Refusal::bad(error.to_string()))?;
        let mut current = self.current();
        keep_port(&current, &mut loaded.config);
        allow(&current, &loaded.config)?;
        self.take(&mut current, loaded)
    }

    fn resize(&self, wanted: &Resize) -> Result<ResizeReport, Refusal> {
        let text = std::fs::read_to_string(&self.path)
            .map_err(|error| Refusal::failed(format!("{}: {error}", self.path.display())))?;
        let text = resize::edited(&text, wanted).map_err(Refusal::bad)?;
        let directory = self.path.parent().unwrap_or(Path::new(""));
        let mut loaded = config::parse(&self.path, text.clone(), directory, KeyFiles::Checked)
            .map_err(|report| Refusal::bad(report.render(false)))?;
        let mut current = self.current();
        keep_port(&current, &mut loaded.config);
        let changes = resize::changes(&current.config, &loaded.config);
        let name = wanted.gateway.section();
        let change = changes.iter().find(|change| change.gateway == name);
        let mut report = ResizeReport {
            gateway: name.to_owned(),
            from: change.map_or(wanted.sku.clone(), |change| change.from.clone()),
            to: change.map_or(wanted.sku.clone(), |change| change.to.clone()),
            in_place: true,
            incarnation: self.incarnation,
            ..ResizeReport::default()
        };
        let anew = changes.iter().any(|change| change.obstacle.is_some()) && wanted.recreate;
        if !anew {
            allow(&current, &loaded.config)?;
        }
        resize::write(&self.path, &text)
            .map_err(|error| Refusal::failed(format!("{}: {error}", self.path.display())))?;
        if anew {
            let lost = self.loss(&current);
            report.in_place = false;
            report.lost = Some(lost);
            self.end_for(lost);
            return Ok(report);
        }
        let taken = self.take(&mut current, loaded)?;
        (report.changed, report.warnings) = (taken.changed, taken.warnings);
        Ok(report)
    }

    fn revoke(&self, client: &str) -> Result<bool, Refusal> {
        let mut current = self.current();
        let mut config = current.config.clone();
        let clients = config.vpn.as_mut().and_then(|v| v.point_to_site.as_mut());
        let Some(clients) = clients.map(|clients| &mut clients.clients) else {
            return Ok(false);
        };
        let before = clients.len();
        clients.retain(|one| one.name != client);
        if clients.len() == before {
            return Ok(false);
        }
        // Clients are no part of the forwarding state: the plan stays.
        let parts = Arc::new(current.parts.after(&config, &current.plan));
        let steps = parts.steps(&current.parts.tunnels, &config, self.workers.len());
        let steps = steps.map_err(Refusal::failed)?.into_iter();
        let changes = steps.map(|steps| steps.before).collect();
        tunnels::carry_out(&self.workers, changes).map_err(Refusal::failed)?;
        (current.config, current.parts) = (config, parts);
        Ok(true)
    }
}

/// Where the kernel is to choose the tunnels' port, it has chosen.
fn keep_port(current: &Current, new: &mut Config) {
    if let (Some(old), Some(new)) = (&current.config.vpn, &mut new.vpn)
        && new.listen_port == 0
    {
        new.listen_port = old.listen_port;
    }
}

/// Whether a configuration can come into force while the gateway runs.
fn allow(current: &Current, new: &Config) -> Result<(), Refusal> {
    let old = &current.config;
    let mut changes = resize::changes(old, new).into_iter();
    if let Some(change) = changes.find(|change| change.obstacle.is_some()) {
        return Err(Refusal::failed(change.refusal()));
    }
    let ports = (current.parts.most_lanes, current.parts.underlays.as_slice());
    let needs_restart = inspect::needs_restart(old, new, ports);
    if needs_restart.is_empty() {
        return Ok(());
    }
    let lines = needs_restart.join("\n");
    Err(Refusal::failed(format!(
        "nothing was changed, since this needs a restart:\n{lines}"
    )))
}

impl Running {
    /// Takes a configuration that was allowed into force.
    fn take(&self, current: &mut Current, loaded: Loaded) -> Result<ReloadReport, Refusal> {
        let new = loaded.config;
        let mut report = ReloadReport {
            changed: inspect::changes(&current.config, &new),
            needs_restart: Vec::new(),
            warnings: Vec::new(),
        };
        if loaded.report.warnings() > 0 {
            report.warnings = loaded
                .report
                .render(false)
                .lines()
                .map(str::to_owned)
                .collect();
        }
        let generation = current.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        let routes_only =
            current
                .plan
                .with_routes((&current.config, &new), generation, self.usability())?;
        let plan = match routes_only {
            Some(plan) => plan,
            None => current.plan.after(&new, generation, self.usability())?,
        };
        if plan.ports.len() > self.ledger_ports {
            return Err(Refusal::failed(format!(
                "nothing was changed, since this needs a restart:\n\
                 more than {SPARE_PATHS} sites have been added since the start"
            )));
        }
        let parts = Arc::new(current.parts.after(&new, &plan));
        let useless = tunnels::useless_keys(&new).map_err(Refusal::failed)?;
        if !useless.is_empty() {
            let names = useless.join(", ");
            return Err(Refusal::bad(format!(
                "no handshake can use the public keys of: {names}"
            )));
        }
        let steps = parts.steps(&current.parts.tunnels, &new, self.workers.len());
        let (before, after) = steps
            .map_err(Refusal::failed)?
            .into_iter()
            .map(|steps| (steps.before, steps.after))
            .unzip();
        // Kernel routes to new prefixes last, those that are gone first: the kernel never sends what the
        // forwarding state does not know. New tunnels are there before routes lead to them, and those that
        // are gone stay as long as routes do.
        let mut netlink = Netlink::open().map_err(|error| Refusal::failed(error.to_string()))?;
        tunnels::carry_out(&self.workers, before).map_err(Refusal::failed)?;
        let old = self.forwarding.load_full();
        let limits = limit::limits(&new, &plan, self.workers.len(), old.limits.as_ref());
        let flows = limit::flows(&new, old.flows.as_ref());
        let hits = old.hits.following(&rule::kept(&current.config, &new));
        let forwarding = parts.forwarding(&new, &plan, (limits, flows), hits);
        let replaced = self.forwarding.swap(Arc::new(forwarding));
        self.retired().push(replaced);
        let device = &new.vnet.device;
        let (old, wanted) = (&current.plan.host_routes, &plan.host_routes);
        if let Err(error) = assembly::set_host_routes(&mut netlink, device, old, wanted) {
            report.warnings.push(format!("kernel routes: {error:?}"));
        }
        // Control may have judged a path between the plan and the store: it looks at all of them anew.
        if !self.control.watch(parts.watch(&new, &plan)) {
            report
                .warnings
                .push("control is busy: probes stay as they were".to_owned());
        }
        if let Err(error) = tunnels::carry_out(&self.workers, after) {
            report
                .warnings
                .push(format!("tunnels that are gone: {error}"));
        }
        *current = Current {
            config: new,
            plan,
            parts,
            generation,
        };
        Ok(report)
    }
}
