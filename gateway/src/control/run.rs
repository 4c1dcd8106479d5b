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

use crate::control::board::{Event, HealthView, unix_ms};
use crate::control::force::Judge;
use crate::control::handle::Order;
pub use crate::control::handle::{ControlError, ControlHandle, ControlSetup, Effects, WatchSetup};
use crate::control::host::Host;
use crate::control::host::echo;
use crate::control::neighbor::adjacency::LinkNews;
use crate::control::neighbor::entry::News;
use crate::control::neighbor::entry::mac_text;
use crate::control::path::carrier::Carrier;
use crate::control::path::link::{ControlLink, MAX_FRAME};
use crate::control::path::prober::Secret;
use crate::control::path::watch::PathWatch;
use crate::device::event::Poller;
use crate::device::netlink::{self, LinkChange, LinkEvent, LinkState, Monitor, Netlink};
use crate::telemetry::ledger::{Ledger, Port};
use crate::worker::handover::{FromHost, HOST_QUEUE, HostPort};
use ring::rand::{SecureRandom, SystemRandom};
use routing::health::{Change, Reason, Usability};
use routing::path::{Ingress, PathId};
use routing::reason::DropReason;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

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
    ports: Vec<Arc<HostPort>>,
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
                self.obey(now)?;
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

    fn hear_interfaces(&mut self, now: Instant) -> Result<(), ControlError> {
        match self.monitor.events() {
            Ok(events) => {
                for event in &events {
                    self.hear_interface(now, event);
                }
                if !events.is_empty() {
                    self.carrier.hurry(now);
                }
            }
            Err(netlink::Error::Overrun) => self.read_interfaces(now)?,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn hear_interface(&mut self, now: Instant, event: &LinkEvent) {
        for index in 0..self.paths.len() {
            let Some(link) = self.paths.get(index).and_then(|path| path.link.as_ref()) else {
                continue;
            };
            let is_its_name = link.setup().interface == event.name;
            let is_its_index = link.facts().index == event.index;
            match &event.kind {
                LinkChange::Changed(state) if is_its_name => {
                    self.interface_is(now, index, Some(state));
                }
                // Renamed: no interface has the link's name now.
                LinkChange::Changed(_) | LinkChange::Removed if is_its_index => {
                    self.interface_is(now, index, None);
                }
                LinkChange::Changed(_) | LinkChange::Removed => {}
            }
        }
    }

    /// Reads every link's interface anew: at start, after a reload, and when notifications were lost.
    fn read_interfaces(&mut self, now: Instant) -> Result<(), ControlError> {
        for index in 0..self.paths.len() {
            let link = self.paths.get(index).and_then(|path| path.link.as_ref());
            let Some(name) = link.map(|link| link.setup().interface.clone()) else {
                continue;
            };
            let state = self.monitor.link(&name)?;
            self.interface_is(now, index, state.as_ref());
        }
        Ok(())
    }

    /// Tries again what could not be opened.
    fn retry_interfaces(&mut self, now: Instant) {
        for index in 0..self.paths.len() {
            let link = self
                .paths
                .get_mut(index)
                .and_then(|path| path.link.as_mut());
            if let Some(state) = link.and_then(|link| link.to_retry(now)) {
                self.interface_is(now, index, Some(&state));
            }
        }
    }

    fn interface_is(&mut self, now: Instant, index: usize, state: Option<&LinkState>) {
        let Some(path) = self.paths.get_mut(index) else {
            return;
        };
        let Some(link) = &mut path.link else { return };
        let changed = link.interface_is(now, state, &self.poller);
        let facts = link.facts();
        let id = path.setup.path;
        // The failover first.
        self.judge(now);
        if !matches!(changed, Ok(false)) {
            for port in &self.ports {
                port.bell.ring();
            }
            self.effects.link(id, facts);
        }
        if let Err(error) = changed {
            let name = self.paths.get(index).map(|path| path.setup.name.as_str());
            tracing::error!(path = name, "{error}");
        }
    }

    // ---- neighbours ---------------------------------------------------------------------------

    fn hear_link(&mut self, now: Instant, token: u64, buffer: &mut [u8]) {
        let links = self.paths.iter_mut().filter_map(|path| path.link.as_mut());
        for link in links {
            if link.token() == token {
                link.receive(now, buffer);
            }
        }
        self.tell_news();
    }

    /// Addresses that have changed or that two claim: a line in the log each.
    fn tell_news(&mut self) {
        for path in &mut self.paths {
            let (name, link) = (&path.setup.name, path.link.as_mut());
            for news in link.into_iter().flat_map(ControlLink::take_news) {
                match news {
                    LinkNews::Neighbor(address, News::Changed { from, to }) => tracing::warn!(
                        path = name,
                        neighbor = %address,
                        from = mac_text(from),
                        to = mac_text(to),
                        "the neighbor's MAC address has changed"
                    ),
                    LinkNews::Neighbor(address, News::Conflict { used, other }) => tracing::warn!(
                        path = name,
                        neighbor = %address,
                        used = mac_text(used),
                        other = mac_text(other),
                        "two stations answer for the neighbor's address; neighbor_mac says which is the right one"
                    ),
                    LinkNews::Claimed(address, mac) => tracing::warn!(
                        path = name,
                        address = %address,
                        by = mac_text(mac),
                        "another station claims an address of the gateway's own"
                    ),
                }
            }
        }
    }

    // ---- the gateway's own packets ------------------------------------------------------------

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

    fn changes(&mut self, now: Instant) -> Vec<Change> {
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

    fn record(&self, now: Instant, change: &Change, switched: bool) {
        let path = self.paths.iter().find(|p| p.setup.path == change.path);
        let name = path.map(|p| p.setup.name.clone()).unwrap_or_default();
        let wall = SystemTime::now();
        // The judgement came at `now`, the words were stored since.
        let detected = wall.checked_sub(now.elapsed()).unwrap_or(wall);
        let event = Event {
            detected_unix_ms: unix_ms(detected),
            switched_unix_ms: switched.then(|| unix_ms(wall)),
            path: name,
            from: change.from.name(),
            to: change.to.name(),
            reason: change.to.reason().map(Reason::name),
        };
        let (path, from, to) = (&event.path, event.from, event.to);
        if from == to {
            // The same state for another reason: worth a line, and no change.
            let before = change.from.reason().map(Reason::name);
            tracing::info!(
                path,
                state = to,
                before,
                reason = event.reason,
                "another reason for its state"
            );
        } else if change.to.usability() == Usability::None {
            tracing::warn!(path, from, to, reason = event.reason, "path is down");
        } else {
            tracing::info!(path, from, to, reason = event.reason, "path has changed");
        }
        self.handle.board.record(event);
    }

    fn is_to_show(&self, now: Instant) -> bool {
        self.shown.is_none_or(|shown| now >= shown + SHOW)
    }

    fn show_sometimes(&mut self, now: Instant) {
        if self.is_to_show(now) {
            self.show(now, None);
        }
    }

    /// Books frames that came with other tags than their link's: of their packets nothing is known.
    fn look_at_tags(&mut self) {
        for path in &mut self.paths {
            let Some(link) = &mut path.link else { continue };
            let (frames, is_first) = link.look_at_tags();
            if frames == 0 {
                continue;
            }
            self.ledger.received(Port::path(path.setup.path), frames, 0);
            self.ledger.dropped(DropReason::VlanTag, frames, 0);
            if let Some(seen) = link.mistagged().filter(|_| is_first) {
                let (path, own) = (&path.setup.name, link.setup().tags);
                let tags = &seen.tags;
                tracing::warn!(path, tags, "frames for it do not have its tags, {own}");
            }
        }
    }

    fn show_state(&mut self, now: Instant) {
        self.shown = Some(now);
        self.handle.board.show(HealthView {
            paths: self.paths.iter().map(PathWatch::view).collect(),
            neighbors: self
                .paths
                .iter()
                .flat_map(|path| path.neighbor_views(now))
                .collect(),
            claims: self
                .paths
                .iter()
                .flat_map(|path| path.claims(now))
                .collect(),
        });
    }

    // ---- orders -------------------------------------------------------------------------------

    fn obey(&mut self, now: Instant) -> Result<(), ControlError> {
        let handle = Arc::clone(&self.handle);
        handle.orders.obey(|order| {
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
    type News = Vec<Change>;

    fn look(&mut self, now: Instant) -> Option<(Vec<Change>, bool)> {
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

    fn show(&mut self, now: Instant, news: Option<(Vec<Change>, bool)>) {
        if let Some((changes, switched)) = news {
            for change in changes {
                self.record(now, &change, switched);
            }
        }
        self.show_state(now);
    }
}

/// Puts a packet of the gateway's own into a worker's queue, and into the books.
fn give(ledger: &Ledger, port: &HostPort, via: Option<PathId>, packet: Box<[u8]>) {
    let length = packet.len() as u64;
    ledger.received(Port::LOCAL, 1, length);
    // Held before it is there: the worker may take it at once.
    ledger.hold(1);
    if port.from_host.push(FromHost { via, packet }).is_err() {
        ledger.release(1);
        ledger.dropped(DropReason::LocalQueueFull, 1, length);
    }
}
