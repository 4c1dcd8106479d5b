//! The life of a gateway: build everything that a configuration asks for, run it, take it down again.
//!
//! 1. read and check the file, make the plan
//! 2. signals are blocked before the first thread exists, so that only [`Signals`] sees them
//! 3. devices and sockets; whatever is missing ends the start with one line and its remedy
//! 4. threads: control, workers, the API
//! 5. `ready`; then SIGHUP reloads, SIGTERM and SIGINT end it
//! 6. threads end in the opposite order; devices go with their descriptors
//!
//! A resize that a gateway cannot take as it runs ends it as well, and begins at 1 again in the same process.

use crate::config::{self, KeyFiles, LoadError};
use crate::control::api::Server;
use crate::control::assembly::Parts;
use crate::control::board::unix_ms;
use crate::control::data_path::{DataPath, ledger_ports};
use crate::control::notify::notify;
use crate::control::plan::Plan;
use crate::control::run::{ControlHandle, ControlSetup, Effects};
use crate::control::running::Running;
use crate::control::underlay;
use crate::control::view::{Loss, Recreated};
use crate::device::event::{Poller, Waker};
use crate::device::signal::{Signal, Signals};
use crate::pipeline::process::Forwarding;
use crate::telemetry::ledger::Ledger;
use crate::worker::ethernet::usable_mtu;
use crate::worker::handover::LinkFacts;
use arc_swap::ArcSwap;
use routing::health::Usability;
use routing::path::PathId;
use std::io::{IsTerminal, Write};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// How often rates are worked out for `vng show status`.
const SAMPLE: Duration = Duration::from_secs(1);

/// Why the gateway did not run, or stopped by itself.
#[derive(Debug)]
pub enum RunError {
    /// The configuration has errors: exit status 2.
    Configuration(LoadError),
    /// The system lacks something; what, and the remedy: exit status 3.
    System(String),
    /// It ran and failed: exit status 1.
    Failed(String),
}

/// Runs the gateway of the configuration file at `path` until it is told to end.
///
/// # Errors
/// See [`RunError`].
pub fn run(path: &Path) -> Result<(), RunError> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
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
    if loaded.report.warnings() > 0 {
        eprint!("{}", loaded.report.render(false));
    }
    let mut config = loaded.config;
    underlay::choose_port(&mut config).map_err(RunError::System)?;
    let started = Instant::now();
    // Nothing is known of any path yet, so any is better than a drop, until control says which can be used.
    let plan = Plan::new(&config, NonZeroU32::MIN, |_| Usability::LastResort)
        .map_err(|error| RunError::Failed(error.to_string()))?;

    // 2. signals
    let signals = Signals::new().map_err(|error| system("wait for signals", &error))?;

    // 3. devices
    let control = ControlHandle::new().map_err(|error| system("make an eventfd", &error))?;
    let control = Arc::new(control);
    let DataPath {
        workers,
        handles,
        offloads,
        forwarding,
        parts,
    } = DataPath::assemble(&config, &plan, started, &control.waker)?;
    let _bystander = parts.keep_kernel_out();
    let control_ledger = Arc::new(Ledger::new(ledger_ports(&plan)));
    let server = Server::bind(&config.control.socket)
        .map_err(|error| RunError::System(error.to_string()))?;

    // 4. threads
    let ended = Waker::new().map_err(|error| system("make an eventfd", &error))?;
    let ended = Arc::new(ended);
    let setup = ControlSetup {
        started,
        watch: parts.watch(&config, &plan),
        ports: handles
            .iter()
            .map(|handle| Arc::clone(&handle.host))
            .collect(),
        ledger: Arc::clone(&control_ledger),
        effects: Box::new(DataPlane {
            forwarding: Arc::clone(&forwarding),
            parts: Arc::clone(&parts),
        }),
        handle: Arc::clone(&control),
    };
    let control_thread = spawn("control", &ended, move || {
        crate::control::run::run(setup).map_err(|error| error.to_string())
    })?;
    let mut worker_threads = Vec::new();
    for (number, worker) in workers.into_iter().enumerate() {
        worker_threads.push(spawn(&format!("worker-{number}"), &ended, move || {
            worker.run().map_err(|error| error.to_string())
        })?);
    }
    let incarnation = last.map_or(0, |last| last.incarnation + 1);
    let recreated = last.map(Departed::followed);
    let running = Arc::new(Running::new(
        (path, started),
        (config, plan, parts, offloads),
        forwarding,
        Arc::clone(&control),
        handles,
        control_ledger,
        (incarnation, recreated, Arc::clone(&ended)),
    ));
    let serving = server
        .serve(Arc::clone(&running) as _)
        .map_err(|error| system("serve the control socket", &error))?;

    let underlay = running
        .has_sites()
        .then(|| underlay::start(&running))
        .transpose()
        .map_err(|error| system("start a thread", &error))?;

    // 5. ready
    println!("ready");
    let _ = std::io::stdout().flush();
    notify("READY=1");
    wait(&signals, &ended, &running);
    // 6. the end; whoever asked for another gateway gets his answer first
    drop((serving, underlay));
    let departed = running.leaving().map(|lost| Departed {
        incarnation,
        at: Instant::now(),
        lost,
    });
    if departed.is_none() {
        notify("STOPPING=1");
    }
    running.stop_workers();
    let workers: Vec<_> = worker_threads
        .into_iter()
        .map(|thread| join(thread, "a worker"))
        .collect();
    control.stop();
    let control = join(control_thread, "control");
    running.report();
    let all: Result<(), String> = workers.into_iter().chain([control]).collect();
    all.map_err(RunError::Failed)?;
    Ok(departed)
}

/// Sleeps until a signal ends the gateway or a thread has ended by itself.
fn wait(signals: &Signals, ended: &Waker, running: &Running) {
    const SIGNAL: u64 = 0;
    const ENDED: u64 = 1;
    let Ok(mut poller) = Poller::new() else {
        return;
    };
    if poller.add(signals, SIGNAL).is_err() || poller.add(ended, ENDED).is_err() {
        return;
    }
    loop {
        let Ok(ready) = poller.wait(Some(SAMPLE)) else {
            return;
        };
        let mut ready = ready.peekable();
        if ready.peek().is_none() {
            running.sample(Instant::now());
        }
        for token in ready {
            if token == ENDED {
                return;
            }
            match signals.read() {
                Some(Signal::HangUp) => running.reload_by_signal(),
                Some(Signal::Interrupt | Signal::Terminate) => return,
                None => {}
            }
        }
    }
}

type Thread = JoinHandle<Result<(), String>>;

fn spawn(
    name: &str,
    ended: &Arc<Waker>,
    body: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Result<Thread, RunError> {
    let ended = Arc::clone(ended);
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let result = body();
            ended.wake();
            result
        });
    thread.map_err(|error| system("start a thread", &error))
}

fn join(thread: Thread, name: &str) -> Result<(), String> {
    match thread.join() {
        Ok(result) => result.map_err(|error| format!("{name}: {error}")),
        Err(_) => Err(format!("{name} has panicked")),
    }
}

fn system(attempt: &str, error: &std::io::Error) -> RunError {
    RunError::System(format!("cannot {attempt}: {error}"))
}

/// What control does to workers: a store, and a wake where they must look.
struct DataPlane {
    forwarding: Arc<ArcSwap<Forwarding>>,
    parts: Arc<Parts>,
}

impl Effects for DataPlane {
    fn usability(&mut self, usability: &[Usability]) -> usize {
        let of = |path: PathId| {
            let known = usability.get(usize::from(path.0));
            known.copied().unwrap_or(Usability::None)
        };
        self.forwarding.load().snapshot.update(of)
    }

    fn link(&mut self, path: PathId, facts: LinkFacts) {
        let Some(link) = self.parts.link(path) else {
            return;
        };
        if facts.mtu != 0 {
            let (mtu, warning) = usable_mtu(facts.mtu, link.recipe.tags);
            let forwarding = self.forwarding.load();
            if let Some(side) = forwarding.paths.get(usize::from(path.0))
                && side.mtu.swap(mtu, Ordering::Relaxed) != mtu
            {
                tracing::info!(interface = link.recipe.interface, mtu, "path MTU");
                for (tunnel, mtu) in forwarding.fit_carried() {
                    let number = tunnel.0;
                    tracing::info!(path = number, mtu, "MTU of a tunnel over this circuit");
                }
                if let Some(warning) =
                    warning.filter(|_| mtu < forwarding.vnet.mtu.load(Ordering::Relaxed))
                {
                    tracing::warn!(interface = link.recipe.interface, "{warning}");
                }
            }
        }
    }
}
