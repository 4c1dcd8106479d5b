//! The control thread: it watches every path and moves the groups to those that work.
//!
//! 1. sleep until netlink, a link, a worker, an order or a timer has something
//! 2. interfaces first, judged one event at a time: a lost carrier is a failover within microseconds
//! 3. what neighbours say, and the gateway's own packets: answers to probes before any silence is counted
//! 4. what is due: ARP, neighbour discovery, probes
//! 5. judge every path; if the usability of one has changed, the groups' words are stored at once, and
//!    only then is it logged and shown
//!
//! # Books
//! Control has a ledger of its own. A packet that a worker puts into `to_host` has been booked there as
//! received and held (`hold(1)`); control books `release(1)`, and `sent(LOCAL)` or a drop. A packet that
//! control puts into `from_host` it books as `received(LOCAL)` and `hold(1)`; the worker that takes it
//! books `release(1)`, and what becomes of it. If the queue is full control books `received(LOCAL)` and
//! a drop for `LocalQueueFull`.

mod interface;
mod told;

use crate::control::force::Judge;
use crate::control::handle::Order;
pub use crate::control::handle::{ControlError, ControlHandle, ControlSetup, Effects, WatchSetup};
use crate::control::host::Host;
use crate::control::host::echo;
use crate::control::path::carrier::Carrier;
use crate::control::path::link::MAX_FRAME;
use crate::control::path::prober::Secret;
use crate::control::path::watch::PathWatch;
use crate::device::event::Poller;
use crate::device::netlink::{Monitor, Netlink};
use crate::telemetry::ledger::{Ledger, Port};
use crate::worker::control_port::{ControlPort, FromHost, HOST_QUEUE};
use ring::rand::{SecureRandom, SystemRandom};
use routing::health::{StateChange, Usability};
use routing::path::{Ingress, PathId};
use routing::reason::DropReason;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const TOKEN_WAKER: u64 = 0;
const TOKEN_MONITOR: u64 = 1;
/// The token of the first path's control socket.
const TOKEN_PATHS: u64 = 16;

/// How often counts and round trips are shown anew.
const SHOW: Duration = Duration::from_secs(1);
/// Nice value of the thread, if it may be raised: a busy core must not make paths look silent.
const NICE: i32 = -10;

/// Runs control on this thread, in its network namespace, until [`ControlHandle::stop`].
///
/// # Errors
/// What cannot be done without: netlink and epoll. A link that fails is a path that is down.
pub fn run(setup: ControlSetup) -> Result<(), ControlError> {
    Prepared::new(setup)?.run()
}

/// Control with everything open that it needs, in the network namespace of the thread that made it.
pub struct Prepared {
    control: Control,
    /// For the thread that asks about carriers.
    netlink: Netlink,
}

impl Prepared {
    /// Opens what control needs, and looks at every interface.
    ///
    /// # Errors
    /// As [`run`].
    pub fn new(setup: ControlSetup) -> Result<Self, ControlError> {
        let carrier = Arc::new(Carrier::new()?);
        let netlink = Netlink::open()?;
        let control = Control::new(Instant::now(), setup, carrier)?;
        Ok(Self { control, netlink })
    }

    /// Runs control on this thread.
    ///
    /// # Errors
    /// As [`run`].
    pub fn run(self) -> Result<(), ControlError> {
        let Self {
            mut control,
            netlink,
        } = self;
        // Without the capability it runs at the usual priority.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
        let carrier = Arc::clone(&control.carrier);
        thread::scope(|scope| {
            let asking = thread::Builder::new()
                .name("carrier".into())
                .spawn_scoped(scope, || carrier.ask(netlink))?;
            let result = control.run();
            carrier.stop();
            // It ends by itself only if it cannot wait; then carrier changes are told a second late at worst.
            if let Ok(Err(error)) = asking.join() {
                tracing::warn!(%error, "carrier changes were not asked about");
            }
            result
        })
    }
}

struct Control {
    carrier: Arc<Carrier>,
    started: Instant,
    paths: Vec<PathWatch>,
    hold_down: Duration,
    host: Host,
    ports: Vec<Arc<ControlPort>>,
    ledger: Arc<Ledger>,
    effects: Box<dyn Effects>,
    handle: Arc<ControlHandle>,
    poller: Poller,
    monitor: Monitor,
    /// Identifier of a path's probes, less its token.
    identifier: u16,
    secret: Secret,
    /// Token of the next new path; none is given twice.
    next_token: u64,
    shown: Option<Instant>,
    stopped: bool,
}

impl Control {
    fn new(now: Instant, setup: ControlSetup, carrier: Arc<Carrier>) -> Result<Self, ControlError> {
        let mut random = [0; 10];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| ControlError::Random)?;
        let [a, b, secret @ ..] = random;
        let poller = Poller::new()?;
        let monitor = Monitor::open()?;
        poller.add(&monitor, TOKEN_MONITOR)?;
        poller.add(&*setup.handle.waker, TOKEN_WAKER)?;
        let mut control = Self {
            carrier,
            started: setup.started,
            paths: Vec::new(),
            hold_down: Duration::ZERO,
            host: Host::new(now, []),
            ports: setup.ports,
            ledger: setup.ledger,
            effects: setup.effects,
            handle: setup.handle,
            poller,
            monitor,
            identifier: u16::from_be_bytes([a, b]),
            secret: Secret(secret),
            next_token: TOKEN_PATHS,
            shown: None,
            stopped: false,
        };
        control.watch(now, setup.watch)?;
        Ok(control)
    }

    fn run(&mut self) -> Result<(), ControlError> {
        let mut buffer = vec![0; MAX_FRAME];
        let mut ready = Vec::new();
        while !self.stopped {
            // 1. sleep
            let timeout = self.timeout(Instant::now());
            ready.clear();
            ready.extend(self.poller.wait(Some(timeout))?);
            self.ledger.begin();
            let now = Instant::now();
            // 2. interfaces
            if ready.contains(&TOKEN_MONITOR) {
                self.hear_interfaces(now)?;
            }
            self.retry_interfaces(now);
            // 3. neighbours, own packets
            for token in ready.iter().filter(|&&token| token >= TOKEN_PATHS) {
                self.hear_link(now, *token, &mut buffer);
            }
            if ready.contains(&TOKEN_WAKER) {
                self.take_orders(now)?;
            }
            self.take_packets(now);
            // 4. what is due
            self.send_due(now);
            // 5. judge
            self.judge(now);
            if self.is_to_show(now) {
                self.look_at_tags();
            }
            self.ledger.end();
            self.show_sometimes(now);
        }
        self.ledger.begin();
        self.shut_down();
        self.ledger.end();
        Ok(())
    }

    fn timeout(&self, now: Instant) -> Duration {
        let paths = self.paths.iter().filter_map(PathWatch::deadline);
        let next = paths.chain(self.shown.map(|shown| shown + SHOW)).min();
        next.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    // ---- interfaces ---------------------------------------------------------------------------

    /// Takes what workers have for the gateway itself: answers to probes, and what the host answers.
    fn take_packets(&mut self, now: Instant) {
        for index in 0..self.ports.len() {
            let Some(port) = self.ports.get(index).map(Arc::clone) else {
                return;
            };
            let mut spoke = false;
            for _ in 0..HOST_QUEUE {
                let Some(taken) = port.to_host.pop() else {
                    break;
                };
                let length = taken.packet.len() as u64;
                self.ledger.release(1);
                if let Some((reply, payload)) = echo::reply(&taken.packet) {
                    self.ledger.sent(Port::LOCAL, 1, length);
                    for path in &mut self.paths {
                        let Some(probe) = &mut path.probe else {
                            continue;
                        };
                        if probe.answered(now, taken.ingress, &reply, payload) {
                            if let Some(link) = &mut path.link {
                                link.confirmed(now, reply.source);
                            }
                            break;
                        }
                    }
                    continue;
                }
                match self.host.handle(now, &taken.packet) {
                    Ok(reply) => {
                        self.ledger.sent(Port::LOCAL, 1, length);
                        if let Some(packet) = reply {
                            // Back the way it came, up or down: two gateways that probe each other
                            // would otherwise never find their only path up, each withholding the
                            // answer that the other waits for.
                            let via = match taken.ingress {
                                Ingress::Path(path) => Some(path),
                                Ingress::Vnet | Ingress::Local => None,
                            };
                            give(&self.ledger, &port, via, packet.into());
                            spoke = true;
                        }
                    }
                    Err(reason) => self.ledger.dropped(reason, 1, length),
                }
            }
            if spoke {
                port.bell.ring();
            }
        }
    }

    // ---- what is due --------------------------------------------------------------------------

    fn send_due(&mut self, now: Instant) {
        let (mut resolved, mut lost) = (false, false);
        for path in &mut self.paths {
            if let Some(link) = &mut path.link {
                link.take_wanted(now);
                link.send_due(now);
                resolved |= link.publish();
            }
            path.hurry(now);
            if let Some(packet) = path.poll_probe(now)
                && let Some(port) = self.ports.get(path.setup.worker)
            {
                give(&self.ledger, port, Some(path.setup.path), packet);
                port.bell.ring();
            }
            lost |= path.take_lost();
        }
        if lost {
            // A lost carrier that the kernel has not told of yet would look the same.
            self.carrier.nudge();
        }
        if resolved {
            // Packets may wait for the address.
            for port in &self.ports {
                port.bell.ring();
            }
        }
    }

    // ---- judging ------------------------------------------------------------------------------

    fn changes(&mut self, now: Instant) -> Vec<StateChange> {
        let in_doubt: Vec<_> = self
            .paths
            .iter()
            .filter(|path| path.is_in_doubt())
            .map(|path| path.setup.path)
            .collect();
        let mut changes = Vec::new();
        for index in 0..self.paths.len() {
            // Links come before the tunnels that they carry, so what is judged of them is of now.
            let (judged, rest) = self.paths.split_at_mut(index);
            let of_link = |id| {
                let link = judged.iter().find(|path| path.setup.path == id);
                link.map_or(Usability::None, PathWatch::usability)
            };
            let path = rest.first_mut();
            let doubted = |other| in_doubt.contains(&other);
            changes.extend(path.and_then(|path| path.judge(now, doubted, of_link)));
        }
        changes
    }

    fn usability(&self) -> Vec<Usability> {
        let mut all = Vec::new();
        for path in &self.paths {
            let place = usize::from(path.setup.path.0);
            if all.len() <= place {
                all.resize(place + 1, Usability::None);
            }
            if let Some(slot) = all.get_mut(place) {
                *slot = path.usability();
            }
        }
        all
    }

    fn take_orders(&mut self, now: Instant) -> Result<(), ControlError> {
        let handle = Arc::clone(&self.handle);
        handle.orders.take_each(|order| {
            match order {
                Order::Watch(setup) => self.watch(now, *setup)?,
                Order::Stop => self.stopped = true,
            }
            Ok(())
        })
    }

    /// Watches these paths from now on; those that are watched already in the same way go on.
    fn watch(&mut self, now: Instant, setup: WatchSetup) -> Result<(), ControlError> {
        let links = setup.paths.iter().filter_map(|path| path.link.as_ref());
        let own = links.flat_map(crate::control::path::link::LinkSetup::own);
        self.host
            .set_addresses(own.chain(setup.addresses.iter().copied()));
        self.hold_down = setup.hold_down;
        let mut old: Vec<_> = self.paths.drain(..).collect();
        for path in setup.paths {
            let same = old.iter().position(|o| o.setup.is_same(&path));
            if let Some(index) = same {
                let mut kept = old.swap_remove(index);
                kept.go_on(path, setup.hold_down);
                self.paths.push(kept);
            } else {
                let token = self.next_token;
                self.next_token += 1;
                let identifier = self.identifier.wrapping_add(token as u16);
                self.paths.push(PathWatch::new(
                    now,
                    path,
                    setup.hold_down,
                    &setup.addresses,
                    (identifier, self.secret),
                    (self.started, token),
                ));
            }
        }
        for link in old.iter_mut().filter_map(|gone| gone.link.as_mut()) {
            link.close(&self.poller);
        }
        let links = self.paths.iter().filter_map(|path| path.link.as_ref());
        let names = links.map(|link| link.setup().interface.clone());
        self.carrier.watch(names.collect());
        self.read_interfaces(now)?;
        self.follow(now);
        Ok(())
    }

    /// Nothing stays in the books: what no one will take is dropped.
    fn shut_down(&mut self) {
        for link in self.paths.iter_mut().filter_map(|path| path.link.as_mut()) {
            link.close(&self.poller);
        }
        for port in &self.ports {
            while let Some(taken) = port.to_host.pop() {
                let length = taken.packet.len() as u64;
                self.ledger.release(1);
                self.ledger.dropped(DropReason::Shutdown, 1, length);
            }
            // The worker has ended before: what control has given it since is nobody else's to count.
            while let Some(FromHost { packet, .. }) = port.from_host.pop() {
                let length = packet.len() as u64;
                self.ledger.release(1);
                self.ledger.dropped(DropReason::Shutdown, 1, length);
            }
        }
    }
}

impl Judge for Control {
    type News = Vec<StateChange>;

    fn look(&mut self, now: Instant) -> Option<(Vec<StateChange>, bool)> {
        let changes = self.changes(now);
        let moves = changes
            .iter()
            .any(|change| change.from.usability() != change.to.usability());
        (!changes.is_empty()).then_some((changes, moves))
    }

    fn switch(&mut self) -> usize {
        let usability = self.usability();
        self.effects.usability(&usability)
    }

    fn fit(&mut self) {
        for path in &self.paths {
            if let Some(link) = &path.link {
                self.effects.link(path.setup.path, link.facts());
            }
        }
    }

    fn show(&mut self, now: Instant, news: Option<(Vec<StateChange>, bool)>) {
        if let Some((changes, switched)) = news {
            for change in changes {
                self.record(now, &change, switched);
            }
        }
        self.show_state(now);
    }
}

/// Puts a packet of the gateway's own into a worker's queue, and into the books.
fn give(ledger: &Ledger, port: &ControlPort, via: Option<PathId>, packet: Box<[u8]>) {
    let length = packet.len() as u64;
    ledger.received(Port::LOCAL, 1, length);
    // Held before it is there: the worker may take it at once.
    ledger.hold(1);
    if port.from_host.push(FromHost { via, packet }).is_err() {
        ledger.release(1);
        ledger.dropped(DropReason::LocalQueueFull, 1, length);
    }
}
