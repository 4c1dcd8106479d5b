//! The loop of one data worker. It owns its devices and runs every packet to completion:
//!
//! 1. look until a device has something, somebody rings, or a timer is due; sleep if that may take long
//! 2. one clock reading and one look at the forwarding state for the whole round
//! 3. the gateway's own packets first (probes, replies), then tunnels, links, virtual network, each with
//!    a bound, so that none starves another and no queue grows long; then what other workers have laid out
//! 4. send what waited for its rate, the open train and the open batches; then a few handshakes, and the timers

use crate::config::schema::Polling;
use crate::device::ReceiveError;
use crate::device::event::Poller;
use crate::device::link::MAX_FRAME;
use crate::device::udp::{MAX_BATCH, ReceiveBatch};
use crate::pipeline::flow::Window;
use crate::pipeline::process::Forwarding;
use crate::telemetry::ledger::Port;
use crate::worker::backlog::Backlog;
use crate::worker::buffer::Buffer;
use crate::worker::packet::Round;
use crate::worker::polling::Patience;
use crate::worker::switch::Switch;
use arc_swap::ArcSwap;
use crypto::tunnel::Endpoint;
use routing::path::Ingress;
use routing::reason::DropReason;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Super-packets from one device in a round. Few keep everything behind them from waiting: with one TCP flow
/// through two gateways the median round trip was 1.4 ms with 8, and 0.8 ms with 4, at the same rate.
pub const SUPER_PACKETS: usize = 4;
/// Small packets from one device in a round.
pub const PACKETS: usize = 64;
/// Bytes from one device in a round: the bound that super-packets meet first.
pub const BYTES: usize = SUPER_PACKETS * 65_536;
/// Segments of super-packets from one device in a round. Whole ones of TCP have 45 with the usual segments. A virtual
/// machine may say any size, and what is too many for one super-packet is dropped
/// ([`MAX_SEGMENTS`](crate::device::offload::MAX_SEGMENTS)); but with the bytes alone as a bound, 8,192 datagrams could
/// be in a round.
const SEGMENTS: usize = 1_024;
/// Rounds in a row that leave something in a tunnel's socket until it counts as behind.
const BEHIND: u32 = 4;
/// Trains from the underlay that are this long on average, bytes, come few to a round.
const LONG_TRAIN: usize = 4096;
/// Bytes that may wait in a tunnel's socket without the queue being called a standing one: two trains.
const QUEUE_TARGET: usize = 128 << 10;
/// Packets that lie in one buffer begin at multiples of this, bytes: a cache line.
pub const ALIGNMENT: usize = 64;
/// Packets of the gateway's own in a round.
const HOST_PACKETS: usize = 32;
/// How often tunnels tell the others how they are.
const PUBLISH: Duration = Duration::from_millis(100);
/// How often packets that wait for a neighbour are looked at.
const NEIGHBOR_POLL: Duration = Duration::from_millis(5);

const TOKEN_VNET: u64 = 1;
const TOKEN_BELL: u64 = 2;
/// And the link's index.
const TOKEN_LINK: u64 = 16;
/// And twice the place of the port among the worker's, and 1 for IPv6.
const TOKEN_UDP: u64 = 1 << 32;

/// How many trains a worker takes next from the underlay, after as many of so many bytes in all: a round of
/// a few trains is as long as one of many single datagrams.
pub fn next_batch(trains: usize, bytes: usize) -> usize {
    if bytes > trains * LONG_TRAIN {
        SUPER_PACKETS
    } else {
        MAX_BATCH
    }
}

/// What is taken from one device in a round.
#[derive(Clone, Copy, Debug, Default)]
struct Budget {
    bytes: usize,
    segments: usize,
}

impl Budget {
    /// Takes one packet or super-packet of so many bytes into account; false if it was the last of the round.
    #[inline]
    fn spend(&mut self, bytes: usize, gso_size: Option<u16>) -> bool {
        self.bytes += bytes;
        // Its headers are counted too: a segment more.
        if let Some(size) = gso_size {
            self.segments += bytes / usize::from(size).max(1);
        }
        self.bytes < BYTES && self.segments < SEGMENTS
    }
}

/// What a worker shares with the rest of the gateway.
pub struct Shared {
    /// The forwarding state.
    pub forwarding: Arc<ArcSwap<Forwarding>>,
    /// Where the worker shows its newest flows.
    pub newest_flows: Window,
    /// What the kernel dropped for want of room before the worker could read it, by [`Port`]; written
    /// every 100 ms at most.
    pub kernel_drops: Box<[AtomicU64]>,
    /// The worker ends when it is set.
    pub stop: AtomicBool,
}

/// One data worker.
pub struct Worker<E: Endpoint> {
    switch: Switch<E>,
    shared: Arc<Shared>,
    poller: Poller,
    forwarding: arc_swap::Cache<Arc<ArcSwap<Forwarding>>, Arc<Forwarding>>,
    buffer: Buffer,
    batch: ReceiveBatch,
    patience: Patience,
    published: Instant,
    /// How many rounds there have been.
    rounds: u64,
    vnet_backlog: Backlog,
    /// As [`TOKEN_UDP`] counts.
    tunnel_backlogs: Vec<Backlog>,
    /// How many rounds in a row have left something in each socket, in the same order.
    full_rounds: Vec<u32>,
    link_backlogs: Vec<Backlog>,
    /// The device of the virtual network was deleted: the worker ends.
    vnet_lost: Option<ReceiveError>,
}

impl<E: Endpoint> Worker<E> {
    /// A worker over these ports; its sockets are registered here.
    ///
    /// # Errors
    /// Those of [`Poller::new`] and [`Poller::add`], which a worker cannot do without. A link whose socket cannot be
    /// opened is no error: it is tried again.
    pub fn new(
        mut switch: Switch<E>,
        shared: Arc<Shared>,
        polling: Polling,
        now: Instant,
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(&switch.ports.vnet.queue, TOKEN_VNET)?;
        poller.add(switch.host.bell(), TOKEN_BELL)?;
        let mut tunnel_backlogs = Vec::new();
        for tunnels in switch.ports.tunnels.iter_mut() {
            for socket in tunnels.sockets() {
                if let Some(socket) = socket {
                    poller.add(socket, TOKEN_UDP + tunnel_backlogs.len() as u64)?;
                }
                tunnel_backlogs.push(Backlog::default());
            }
            // Control looks before the worker runs: a configured endpoint must be there to be seen.
            tunnels.publish(now);
        }
        for private in &mut switch.ports.privates {
            private.tunnels.publish(now);
        }
        let forwarding = arc_swap::Cache::new(Arc::clone(&shared.forwarding));
        let link_backlogs = switch
            .ports
            .links
            .iter()
            .map(|_| Backlog::default())
            .collect();
        let full_rounds = vec![0; tunnel_backlogs.len()];
        let mut worker = Self {
            switch,
            shared,
            poller,
            forwarding,
            buffer: Buffer::new(BYTES + MAX_FRAME),
            batch: ReceiveBatch::new(MAX_BATCH),
            patience: Patience::new(polling, now),
            published: now,
            rounds: 0,
            vnet_backlog: Backlog::default(),
            tunnel_backlogs,
            full_rounds,
            link_backlogs,
            vnet_lost: None,
        };
        // What the limits in force need is made now, not with the first packet.
        let forwarding = Arc::clone(worker.forwarding.load());
        worker.switch.begin(Round {
            now,
            forwarding: &forwarding,
        });
        // Workers are made in order, which is the order in which a link's sockets must be opened; and all are
        // open before the gateway says that it is ready.
        worker.refresh_links(now);
        Ok(worker)
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// Those of epoll itself, and the TUN device that was deleted under it; any other device that fails is a counted
    /// drop or an event, never the end of the worker.
    pub fn run(mut self) -> io::Result<()> {
        let mut timeout = Some(Duration::ZERO);
        let mut ready = [0_u64; 64];
        while !self.shared.stop.load(Ordering::Acquire) {
            // 1. look, or sleep
            let mut count = 0;
            for (slot, token) in ready.iter_mut().zip(self.poller.wait(timeout)?) {
                *slot = token;
                count += 1;
            }
            // 2. once a round
            self.switch.host.bell().begin();
            self.switch.ledger.begin();
            let now = Instant::now();
            self.rounds += 1;
            let forwarding = Arc::clone(self.forwarding.load());
            let round = Round {
                now,
                forwarding: &forwarding,
            };
            self.switch.take_orders(now);
            self.switch.begin(round);
            self.refresh_links(now);
            // 3. every device that has something
            let mut worked = count > 0;
            for &token in ready.iter().take(count) {
                match token {
                    TOKEN_BELL => self.switch.host.bell().clear(),
                    TOKEN_VNET => self.receive_vnet(round),
                    udp if udp >= TOKEN_UDP => {
                        self.receive_tunnels(round, (udp - TOKEN_UDP) as usize);
                    }
                    link => self.receive_link(round, (link - TOKEN_LINK) as usize),
                }
                self.switch.drain_host(round, HOST_PACKETS);
            }
            worked |= self.switch.drain_host(round, HOST_PACKETS);
            worked |= self.switch.take_parcels(round);
            // 4. nothing stays behind but what waits for its rate
            self.switch.send_shaped(now);
            self.switch
                .ports
                .tunnels
                .iter_mut()
                .for_each(|t| t.flush(now));
            self.switch.send_parcels(self.rounds, now);
            let private = self.switch.run_privates(round);
            self.show_flows();
            let due = self.run_timers(now, private);
            self.switch.ledger.end();
            if self.vnet_lost.is_some() {
                break;
            }
            timeout = if self.patience.looks_on(now, worked) {
                if !worked {
                    // Whoever else wants this processor comes first.
                    std::thread::yield_now();
                }
                Some(Duration::ZERO)
            } else if self.switch.host.is_quiet() && self.switch.host.bell().doze() {
                due
            } else {
                Some(Duration::ZERO)
            };
        }
        self.switch.ledger.begin();
        self.switch.shut_down(Instant::now());
        self.switch.ledger.end();
        self.vnet_lost.map_or(Ok(()), |error| {
            Err(io::Error::other(format!(
                "the TUN device of the virtual network is gone ({error}): it was deleted while the gateway ran"
            )))
        })
    }

    /// From the virtual network: one super-packet or packet a read.
    fn receive_vnet(&mut self, round: Round<'_>) {
        self.switch.tell = self.vnet_backlog.is_due(self.rounds, round.now);
        let emptied = self.read_vnet(round);
        self.switch.tell = false;
        self.vnet_backlog.seen(self.rounds, round.now, emptied);
    }

    /// True if there is nothing left.
    fn read_vnet(&mut self, round: Round<'_>) -> bool {
        let (mut budget, mut at, mut emptied) = (Budget::default(), 0, false);
        for _ in 0..PACKETS {
            // What is being merged stays where it lies until the end of the round.
            let Some(room) = self.buffer.get_mut(at..at + MAX_FRAME) else {
                break;
            };
            let (offload, length) = match self.switch.ports.vnet.queue.read(room) {
                Ok(Some(read)) => read,
                Err(ReceiveError::Malformed) => {
                    self.switch.ledger.received(Port::VNET, 1, 0);
                    self.switch.ledger.dropped(DropReason::Malformed, 1, 0);
                    continue;
                }
                Ok(None) => {
                    emptied = true;
                    break;
                }
                // A device that was deleted (EBADFD) does not come back, and is ready for ever (EPOLLERR). One
                // that is down reads as empty.
                Err(error) => {
                    self.vnet_lost = Some(error);
                    emptied = true;
                    break;
                }
            };
            let place = (at, length);
            let (ingress, buffer) = (Ingress::Vnet, &mut self.buffer);
            if self
                .switch
                .handle_batched(round, ingress, buffer, place, &offload)
            {
                at += length.next_multiple_of(ALIGNMENT);
            }
            if !budget.spend(length, offload.gso.map(|gso| gso.size)) {
                break;
            }
        }
        self.switch.write_merged(round.now, &self.buffer);
        emptied
    }

    /// From one link: frames with their virtio header and the tag that the kernel took off.
    fn receive_link(&mut self, round: Round<'_>, index: usize) {
        if let Some(backlog) = self.link_backlogs.get_mut(index) {
            self.switch.tell = backlog.is_due(self.rounds, round.now);
        }
        let emptied = self.read_link(round, index);
        self.switch.tell = false;
        if let Some(backlog) = self.link_backlogs.get_mut(index) {
            backlog.seen(self.rounds, round.now, emptied);
        }
    }

    /// True if there is nothing left.
    fn read_link(&mut self, round: Round<'_>, index: usize) -> bool {
        let (mut budget, mut at, mut emptied) = (Budget::default(), 0, false);
        for _ in 0..PACKETS {
            let Some(link) = self.switch.ports.links.get(index) else {
                return true;
            };
            let path = link.path();
            let Some((socket, _)) = link.socket() else {
                emptied = true;
                break;
            };
            let (port, ledger) = (Port::path(path), &self.switch.ledger);
            // What is being merged stays where it lies until the end of the round.
            let Some(room) = self.buffer.get_mut(at..at + MAX_FRAME) else {
                break;
            };
            let frame = match socket.receive(room) {
                Ok(Some(frame)) => frame,
                Err(ReceiveError::Malformed) => {
                    ledger.received(port, 1, 0);
                    ledger.dropped(DropReason::Malformed, 1, 0);
                    continue;
                }
                // Down: control watches the interface and will say when it is back.
                Ok(None) | Err(_) => {
                    emptied = true;
                    break;
                }
            };
            if self
                .switch
                .handle_frame(round, index, &frame, &mut self.buffer, at)
            {
                at += frame.len.next_multiple_of(ALIGNMENT);
            }
            if !budget.spend(frame.len, frame.gso_size()) {
                break;
            }
        }
        self.switch.write_merged(round.now, &self.buffer);
        emptied
    }

    /// From the tunnels: one batch of trains, opened in place, merged over the whole batch.
    fn receive_tunnels(&mut self, round: Round<'_>, index: usize) {
        let place = index / 2;
        let sockets = self.switch.ports.tunnels.at(place).map(|t| t.sockets());
        let [v4, v6] = sockets.unwrap_or_default();
        let (Some(socket), Some(backlog)) = (
            if index.is_multiple_of(2) { v4 } else { v6 },
            self.tunnel_backlogs.get_mut(index),
        ) else {
            return;
        };
        // An error here is an ICMP message about something sent before; it is consumed by being read.
        let received = socket.receive(&mut self.batch).unwrap_or(0);
        if received == 0 {
            // Whoever is to be told comes with the next packets of this socket, and not with another's.
            backlog.seen(self.rounds, round.now, true);
            return;
        }
        let tell = backlog.is_due(self.rounds, round.now);
        let is_full = received >= self.batch.limited_to();
        let emptied = !is_full || socket.queued() < QUEUE_TARGET;
        backlog.seen(self.rounds, round.now, emptied);
        self.switch.tell = tell;
        if let Some(rounds) = self.full_rounds.get_mut(index) {
            *rounds = if is_full { rounds.saturating_add(1) } else { 0 };
            let both = self.full_rounds.get(place * 2..place * 2 + 2);
            let behind = both.is_some_and(|both| both.iter().any(|rounds| *rounds >= BEHIND));
            if let Some(tunnels) = self.switch.ports.tunnels.at(place) {
                tunnels.set_behind(behind);
            }
        }
        let (buffer, trains) = self.batch.split();
        let mut bytes = 0;
        let trains = trains.inspect(|train| bytes += train.len);
        self.switch.handle_trains(round, place, buffer, trains);
        self.switch.tell = false;
        self.batch.limit(next_batch(received, bytes));
    }

    /// Shows the newest flows to whoever has asked.
    #[inline]
    fn show_flows(&mut self) {
        let window = &self.shared.newest_flows;
        if window.is_asked() {
            window.show(self.switch.newest_flows());
        }
    }

    /// Opens the sockets of links whose interface has come, or come back.
    fn refresh_links(&mut self, now: Instant) {
        for (index, link) in self.switch.ports.links.iter_mut().enumerate() {
            // A closed socket leaves the poller by itself.
            if link.refresh(now)
                && let Some((socket, _)) = link.socket()
                && let Err(error) = self.poller.add(socket, TOKEN_LINK + index as u64)
            {
                tracing::error!(%error, "a packet socket cannot be waited for");
            }
        }
    }

    /// Runs what is due and says how long the worker may sleep.
    fn run_timers(&mut self, now: Instant, soonest: Option<Instant>) -> Option<Duration> {
        let mut next = soonest;
        for tunnels in self.switch.ports.tunnels.iter_mut() {
            tunnels.poll(now);
            next = [next, tunnels.deadline()].into_iter().flatten().min();
        }
        let mut sooner = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        for link in &mut self.switch.ports.links {
            if link.has_waiting() {
                link.poll(now);
                sooner(now + NEIGHBOR_POLL);
            }
            if let Some(at) = link.retry() {
                sooner(at);
            }
        }
        if let Some(at) = self.switch.deadline() {
            sooner(at);
        }
        if now >= self.published + PUBLISH {
            self.switch
                .ports
                .tunnels
                .iter_mut()
                .for_each(|t| t.publish(now));
            let privates = self.switch.ports.privates.iter_mut();
            privates.for_each(|private| private.tunnels.publish(now));
            self.publish_kernel_drops();
            self.published = now;
        }
        self.switch.hand_calls_on();
        let mut news = false;
        for tunnels in self.switch.ports.tunnels.iter_mut() {
            news |= tunnels.take_news();
        }
        for private in &mut self.switch.ports.privates {
            news |= private.tunnels.take_news();
        }
        if news {
            self.switch.host.wake();
        }
        next.map(|next| next.saturating_duration_since(now))
    }

    /// Adds what the kernel has dropped since the last look.
    fn publish_kernel_drops(&mut self) {
        let drops = &self.shared.kernel_drops;
        let add = |port: Port, new: u64| {
            if let Some(sum) = drops.get(usize::from(port.0))
                && new > 0
            {
                sum.fetch_add(new, Ordering::Relaxed);
            }
        };
        for link in &self.switch.ports.links {
            let new = link.socket().map_or(0, |(socket, _)| socket.kernel_drops());
            add(Port::path(link.path()), new);
        }
        for tunnels in self.switch.ports.tunnels.iter_mut() {
            for socket in tunnels.sockets().into_iter().flatten() {
                add(Port::UNDERLAY, socket.kernel_drops());
            }
        }
    }
}

#[cfg(test)]
mod tests;
