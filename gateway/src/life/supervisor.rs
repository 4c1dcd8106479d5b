//! The life of a gateway: build everything that a configuration asks for, run it, take it down again.
//!
//! 1. read and check the file, make the plan
//! 2. signals are blocked before the first thread exists, so that only [`Signals`] sees them
//! 3. devices and sockets; whatever is missing ends the start with one line and its remedy, but for the
//!    interface of a link, whose path is down until there is one
//! 4. threads: control, workers, the API
//! 5. `ready`; then SIGHUP reloads, SIGTERM and SIGINT end it
//! 6. threads end in the opposite order; devices go with their descriptors
//!
//! A resize that a gateway cannot take as it runs ends it as well, and begins at 1 again in the same process.

use crate::api::{Server, Serving};
use crate::build::assembly::Parts;
use crate::build::data_path::{DataPath, ledger_ports};
use crate::config::{self, KeyFiles};
use crate::control::force::{InForce, Steered};
use crate::control::keeper::Keeper;
use crate::control::published::unix_ms;
use crate::control::run::{ControlHandle, ControlSetup, Effects, Prepared};
use crate::device::event::{Poller, Waker};
use crate::device::signal::{Signal, Signals};
use crate::error::{RunError, SystemError};
use crate::kernel::settings::{self, Settings};
use crate::life::descriptors;
use crate::life::notify::notify;
use crate::life::running::Running;
use crate::life::thread::Thread;
use crate::pipeline::process::Forwarding;
use crate::plan::Plan;
use crate::show::view::{Loss, Recreated};
use crate::telemetry::ledger::Ledger;
use crate::telemetry::log;
use crate::tunnels::underlay;
use crate::worker::control_port::LinkFacts;
use crate::worker::ethernet::usable_mtu;
use routing::health::Usability;
use routing::path::PathId;
use std::io;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

/// How often rates are worked out for `vng show status`.
const SAMPLE: Duration = Duration::from_secs(1);

/// Runs the gateway of the configuration file at `path` until it is told to end.
///
/// # Errors
/// See [`RunError`].
pub fn run(path: &Path) -> Result<(), RunError> {
    let mut last = None;
    loop {
        last = Some(match live(path, last.as_ref())? {
            Some(departed) => departed,
            None => return Ok(()),
        });
        tracing::info!("the gateway is made anew");
    }
}

/// A gateway that has ended to be made anew.
struct Departed {
    incarnation: u32,
    /// When its data path ended.
    at: Instant,
    lost: Loss,
}

impl Departed {
    /// Now that the next one's data path is there.
    fn followed(&self) -> Recreated {
        Recreated {
            unix_ms: unix_ms(SystemTime::now()),
            outage_ms: self.at.elapsed().as_secs_f64() * 1e3,
            lost: self.lost,
        }
    }
}

/// One gateway from its beginning to its end; `None`: to the end of the process.
fn live(path: &Path, last: Option<&Departed>) -> Result<Option<Departed>, RunError> {
    // 1. file and plan
    let loaded = config::load(path, KeyFiles::Checked).map_err(RunError::Configuration)?;
    let mut config = loaded.config;
    underlay::choose_port(&mut config).map_err(RunError::needed)?;
    let started = Instant::now();
    // Nothing is known of any path yet, so any is better than a drop, until control says which can be used.
    let plan =
        Plan::new(&config, NonZeroU32::MIN, |_| Usability::LastResort).map_err(RunError::failed)?;

    // 2. signals
    let signals = Signals::new().map_err(SystemError::kernel("wait for signals"))?;
    log::start().map_err(SystemError::kernel("start a thread"))?;
    if loaded.report.warnings() > 0 {
        log::complain(&loaded.report.render(false));
    }

    // 3. devices
    descriptors::allow(&config)?;
    let control = ControlHandle::new().map_err(SystemError::kernel("make an eventfd"))?;
    let control = Arc::new(control);
    let DataPath {
        workers,
        handles,
        offloads,
        forwarding,
        presence,
        parts,
        keys,
    } = DataPath::assemble(&config, &plan, started, &control.waker)?;
    let forwarding = InForce::new(forwarding);
    let control_ledger = Arc::new(Ledger::new(ledger_ports(&plan)));
    let server = Server::bind(&config.control.socket).map_err(RunError::needed)?;

    // 4. threads
    let ended = Waker::new().map_err(SystemError::kernel("make an eventfd"))?;
    let ended = Arc::new(ended);
    let poller = poller(&signals, &ended).map_err(SystemError::kernel("wait for signals"))?;
    let setup = ControlSetup {
        started,
        watch: parts.watch(&config, &plan),
        ports: handles
            .iter()
            .map(|handle| Arc::clone(&handle.host))
            .collect(),
        ledger: Arc::clone(&control_ledger),
        effects: Box::new(DataPlane {
            forwarding: forwarding.clone(),
            parts: Arc::clone(&parts),
        }),
        handle: Arc::clone(&control),
    };
    // What it needs is there before the gateway says that it is ready.
    let prepared = Prepared::new(setup).map_err(RunError::needed)?;
    // Only now is anything of the machine touched: an instance that cannot start disturbs no other.
    let beside = config.control.socket.parent().unwrap_or(Path::new("."));
    settings::recover(beside);
    let settings = Settings::apply(parts.needs(), beside);
    let keeper = Keeper::new(&presence, settings);
    let keeper = keeper.map_err(RunError::needed)?;
    presence.establish().map_err(RunError::needed)?;
    let control_thread = Thread::spawn("control", &ended, move || prepared.run())?;
    let mut worker_threads = Vec::new();
    for (number, worker) in workers.into_iter().enumerate() {
        let name = format!("worker-{number}");
        worker_threads.push(Thread::spawn(&name, &ended, move || worker.run())?);
    }
    let keeper_stop = keeper.handle();
    let keeper_thread = {
        let control = Arc::clone(&control);
        Thread::spawn("keeper", &ended, move || keeper.run(&control.published))?
    };
    let incarnation = last.map_or(0, |last| last.incarnation + 1);
    let recreated = last.map(Departed::followed);
    let running = Arc::new(Running::new(
        (path, started, offloads, presence),
        (config, plan, parts, keys),
        forwarding,
        Arc::clone(&control),
        handles,
        control_ledger,
        (incarnation, recreated, Arc::clone(&ended)),
    ));
    let serving = server
        .serve(Arc::clone(&running) as _)
        .map_err(SystemError::kernel("serve the control socket"))?;

    let underlay = running
        .has_sites()
        .then(|| underlay::start(&running))
        .transpose()
        .map_err(SystemError::kernel("start a thread"))?;

    // 5. ready
    log::announce("ready\n");
    notify("READY=1");
    let waited = wait(poller, &signals, &running, &serving);
    // 6. the end, also of a reload that runs; whoever asked for another gateway gets his answer first
    running.ends();
    drop((serving, underlay));
    let departed = running.leaving().map(|lost| Departed {
        incarnation,
        at: Instant::now(),
        lost,
    });
    if departed.is_none() {
        notify("STOPPING=1");
    }
    // The device goes with the workers: that is nobody else's doing.
    keeper_stop.stop();
    let keeper = keeper_thread.join();
    running.stop_workers();
    let workers: Vec<_> = worker_threads.into_iter().map(Thread::join).collect();
    control.stop();
    let control = control_thread.join();
    running.report();
    let mut ended = workers.into_iter().chain([control, keeper]);
    ended.try_for_each(|ended| ended.map_err(RunError::failed))?;
    waited.map_err(|error| {
        let attempt = "wait for signals";
        RunError::failed(SystemError::Kernel { attempt, error })
    })?;
    Ok(departed)
}

const SIGNAL: u64 = 0;
const ENDED: u64 = 1;

/// What the supervisor waits for.
fn poller(signals: &Signals, ended: &Waker) -> io::Result<Poller> {
    let poller = Poller::new()?;
    poller.add(signals, SIGNAL)?;
    poller.add(ended, ENDED)?;
    Ok(poller)
}

/// Sleeps until a signal ends the gateway or a thread has ended by itself.
fn wait(
    mut poller: Poller,
    signals: &Signals,
    running: &Arc<Running>,
    serving: &Serving,
) -> io::Result<()> {
    loop {
        let mut ready = poller.wait(Some(SAMPLE))?.peekable();
        if ready.peek().is_none() {
            running.sample(Instant::now());
        }
        for token in ready {
            if token == ENDED {
                return Ok(());
            }
            match signals.read() {
                Some(Signal::HangUp) => {
                    serving.look();
                    running.reload_by_signal();
                }
                Some(Signal::Interrupt | Signal::Terminate) => return Ok(()),
                None => {}
            }
        }
    }
}

/// What control does to workers: a store, and a wake where they must look.
struct DataPlane {
    forwarding: InForce<Forwarding>,
    parts: Arc<Parts>,
}

impl Effects for DataPlane {
    fn usability(&mut self, usability: &[Usability]) -> usize {
        self.forwarding.switch(usability)
    }

    fn link(&mut self, path: PathId, facts: LinkFacts) {
        let Some(link) = self.parts.link(path).filter(|_| facts.mtu != 0) else {
            return;
        };
        let (mtu, warning) = usable_mtu(facts.mtu, link.recipe.tags);
        let Some(fitted) = self.forwarding.fit(path, mtu) else {
            return;
        };
        tracing::info!(interface = link.recipe.interface, mtu, "path MTU");
        for (tunnel, mtu) in fitted.tunnels {
            let number = tunnel.0;
            tracing::info!(path = number, mtu, "MTU of a tunnel over this circuit");
        }
        if let Some(warning) = warning.filter(|_| mtu < fitted.vnet) {
            tracing::warn!(interface = link.recipe.interface, "{warning}");
        }
    }
}

/// What another width of a link changes.
pub(crate) struct Fitted {
    /// Tunnels over its circuit, and how wide they are now.
    tunnels: Vec<(PathId, u16)>,
    /// MTU of the virtual network.
    vnet: u16,
}

impl Steered for Forwarding {
    type Fitted = Fitted;

    fn switch(&self, usability: &[Usability]) -> usize {
        let of = |path: PathId| {
            let known = usability.get(usize::from(path.0));
            known.copied().unwrap_or(Usability::None)
        };
        self.snapshot.update(of)
    }

    fn fit(&self, path: PathId, mtu: u16) -> Option<Fitted> {
        let side = self.paths.get(usize::from(path.0))?;
        (side.mtu.swap(mtu, Ordering::Relaxed) != mtu).then(|| Fitted {
            tunnels: self.fit_carried(),
            vnet: self.vnet.mtu(),
        })
    }
}
