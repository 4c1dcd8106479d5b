//! One ExpressRoute link as a worker sees it: packet socket, framing, next hops, and the bounded queue
//! of packets that wait for a next hop's MAC address.
//!
//! 1. [`LinkPort::send`]: next hop of the packet's family -> MAC address from its atomic word
//! 2. known: layer 2 header, one write; what the kernel or the link cannot cut is cut here
//! 3. not known: the packet waits, control is asked to resolve; [`LinkPort::poll`] sends or drops it

use crate::device::event::Waker;
use crate::device::filter;
use crate::device::interface::Interface;
use crate::device::link::{LinkOptions, LinkSocket};
use crate::device::offload::Offload;
use crate::device::sink::FrameSink;
use crate::device::steering::FlowProgram;
use crate::device::vlan::Tags;
use crate::device::{DeviceError, MAX_PARTS, SendError};
use crate::pipeline::coalesce::SuperPacket;
use crate::pipeline::forward::on_the_wire;
use crate::telemetry::ledger::{Ledger, Port};
use crate::worker::bell::Bell;
use crate::worker::ethernet::Framing;
use crate::worker::interface::{LinkWord, Opened, Opening};
use crate::worker::packet::{MAX_SEGMENT, Packet};
use crate::worker::words::NeighborWord;
use routing::packet::{Headers, Version};
use routing::path::PathId;
use routing::reason::DropReason;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Packets that wait for one link's next hops. RFC 1122 2.3.2.2 asks for at least one.
const MAX_WAITING: usize = 64;
/// How long a packet waits: three tries a second apart (RFC 4861: MAX_MULTICAST_SOLICIT x RETRANS_TIMER).
const MAX_WAIT: Duration = Duration::from_secs(3);

struct Waiting {
    packet: Box<[u8]>,
    headers: Headers,
    offload: Offload,
    since: Instant,
}

/// How the packet socket of a link is opened, now and whenever its interface returns.
#[derive(Clone, Debug)]
pub struct LinkRecipe {
    /// Linux interface.
    pub interface: String,
    /// VLAN tags.
    pub tags: Tags,
    /// The MAC address in use; `None`: the interface's, whatever it is.
    pub mac: Option<[u8; 6]>,
    /// Whether super-packets and partial checksums may be sent.
    pub offload: bool,
    /// Shares the link's frames out over the sockets of all workers.
    pub fanout: Option<Fanout>,
}

/// How several workers share one link.
#[derive(Clone, Debug)]
pub struct Fanout {
    /// Tells the link's group of sockets from others in this network namespace.
    pub group: u16,
    /// Names the worker of each flow; without it the kernel's hash does.
    pub program: Option<Arc<FlowProgram>>,
    /// The bells of all workers.
    pub bells: Arc<[Arc<Bell>]>,
}

impl LinkRecipe {
    fn open(&self) -> Result<(LinkSocket, Framing), DeviceError> {
        let mac = match self.mac {
            Some(mac) => mac,
            None => Interface::query(&self.interface)?.mac,
        };
        let filter = filter::data(self.tags, mac);
        let mut options = LinkOptions::new(&self.interface, &filter);
        options.offload = self.offload;
        let fanout = self.fanout.as_ref();
        options.fanout = fanout.map(|fanout| (fanout.group, fanout.program.as_deref()));
        options.mac = self.mac;
        // A NIC's VLAN filter knows the kernel's own VLANs only.
        options.promiscuous = !self.tags.is_empty();
        Ok((LinkSocket::open(&options)?, Framing::new(self.tags, mac)))
    }
}

/// One link of one worker.
pub struct LinkPort<L = LinkSocket> {
    path: PathId,
    recipe: LinkRecipe,
    /// Interface facts, published by control.
    word: Arc<LinkWord>,
    /// Whether `socket` is that of the interface that is there now, and whose turn it is to open one.
    opening: Opening,
    /// The packet socket and how its frames look; `None` while the interface is gone.
    socket: Option<(L, Framing)>,
    /// Next hops: IPv4, IPv6.
    neighbors: [Option<Arc<NeighborWord>>; 2],
    waiting: VecDeque<Waiting>,
    /// How many of them for each next hop.
    waits: [usize; 2],
    control: Arc<Waker>,
    ledger: Arc<Ledger>,
    scratch: Box<[u8]>,
    /// Room for a merged packet in one piece.
    whole: Box<[u8]>,
    /// A fault for tests, passed on to each socket that is opened.
    refuse_gso: bool,
}

impl LinkPort {
    /// Opens the socket anew if another interface has the link's name now, or closes it if none has.
    /// True if the socket changed. One load on the common way.
    #[inline]
    pub fn refresh(&mut self, now: Instant) -> bool {
        self.opening.is_behind(&self.word) && self.reopen(now)
    }

    #[cold]
    fn reopen(&mut self, now: Instant) -> bool {
        let (recipe, refuse_gso) = (&self.recipe, self.refuse_gso);
        let open = || {
            let (mut socket, framing) = recipe.open()?;
            if refuse_gso {
                socket.refuse_gso();
            }
            Ok::<_, DeviceError>((socket, framing))
        };
        let interface = &self.recipe.interface;
        match self
            .opening
            .refresh(&self.word, now, &mut self.socket, open)
        {
            Opened::Same => false,
            Opened::Closed => true,
            Opened::Done { at_last } => {
                if at_last {
                    tracing::info!(interface, "link opened");
                }
                true
            }
            Opened::Failed(error) => {
                tracing::warn!(interface, %error, "link not opened, to be tried again");
                true
            }
        }
    }

    /// When a socket that could not be opened is tried again.
    #[inline]
    pub fn retry(&self) -> Option<Instant> {
        self.opening.retry()
    }
}

impl<L: FrameSink> LinkPort<L> {
    /// A link without a socket yet: [`LinkPort::refresh`] opens it.
    pub fn new(
        (path, worker): (PathId, usize),
        recipe: LinkRecipe,
        word: Arc<LinkWord>,
        neighbors: [Option<Arc<NeighborWord>>; 2],
        control: Arc<Waker>,
        ledger: Arc<Ledger>,
    ) -> Self {
        Self {
            path,
            opening: Opening::new(
                worker,
                recipe
                    .fanout
                    .as_ref()
                    .map(|fanout| Arc::clone(&fanout.bells)),
            ),
            recipe,
            word,
            socket: None,
            neighbors,
            waiting: VecDeque::with_capacity(MAX_WAITING),
            waits: [0; 2],
            control,
            ledger,
            scratch: vec![0; MAX_SEGMENT].into_boxed_slice(),
            whole: vec![0; MAX_SEGMENT].into_boxed_slice(),
            refuse_gso: false,
        }
    }

    /// The fault of [`LinkSocket::refuse_gso`], from the next socket on.
    pub fn refuse_gso(&mut self) {
        self.refuse_gso = true;
    }

    /// The path that this link is.
    pub fn path(&self) -> PathId {
        self.path
    }

    /// The packet socket, while the interface is there.
    pub fn socket(&self) -> Option<&(L, Framing)> {
        self.socket.as_ref()
    }

    /// Gives it a socket that is open already.
    pub fn attach(&mut self, socket: L, framing: Framing) {
        self.socket = Some((socket, framing));
    }

    /// Sends one IP packet to the next hop of its family.
    #[inline]
    pub fn send(&mut self, now: Instant, packet: &[u8], headers: &Headers, offload: &Offload) {
        let family = usize::from(headers.key.version == Version::V6);
        let Some(Some(neighbor)) = self.neighbors.get(family) else {
            let tally = on_the_wire(headers, offload);
            self.ledger
                .dropped(DropReason::NeighborUnresolved, tally.packets, tally.bytes);
            return;
        };
        if let Some(mac) = neighbor.mac() {
            self.send_waiting(now, family);
            self.transmit(mac, packet, headers, offload);
        } else {
            if neighbor.want() {
                self.control.wake();
            }
            self.hold(now, packet, headers, offload);
        }
    }

    /// Sends what waits for a next hop that is known by now: nothing may overtake it.
    #[inline]
    fn send_waiting(&mut self, now: Instant, family: usize) {
        if self.waits.get(family).is_some_and(|&waits| waits > 0) {
            self.poll(now);
        }
    }

    /// Whether packets for this link are worth merging: whether it takes super-packets.
    #[inline]
    pub fn merges(&self) -> bool {
        self.recipe.offload
    }

    /// Sends a merged packet: as [`LinkPort::send`], from the pieces in which it lies.
    #[inline]
    pub fn send_merged(&mut self, now: Instant, merged: &SuperPacket<'_>) {
        let version = match merged.header.first() {
            Some(first) if first >> 4 == 6 => Version::V6,
            _ => Version::V4,
        };
        let family = usize::from(version == Version::V6);
        let neighbor = self.neighbors.get(family).and_then(Option::as_ref);
        let mac = neighbor.and_then(|neighbor| neighbor.mac());
        if mac.is_some() {
            self.send_waiting(now, family);
        }
        if let (Some(mac), Some((socket, framing))) = (mac, &self.socket) {
            let mut parts = [IoSlice::new(&[]); MAX_PARTS];
            let mut count = 0;
            for (part, slice) in parts.iter_mut().zip(merged.slices()) {
                *part = IoSlice::new(slice);
                count += 1;
            }
            let parts = parts.get(..count).unwrap_or_default();
            let prefix = framing.ip_prefix(mac, version);
            let header_len = merged.header.len() as u16;
            let (packets, bytes) = (merged.segments as u64, merged.wire_len() as u64);
            match socket.send(&merged.offload, header_len, prefix.bytes(), parts) {
                Ok(()) => {
                    self.ledger.sent(Port::path(self.path), packets, bytes);
                    return;
                }
                Err(SendError::GsoRefused) => {}
                Err(error) => {
                    self.ledger.dropped(error.reason(), packets, bytes);
                    return;
                }
            }
        }
        self.send_laid_out(now, merged);
    }

    /// Lays a merged packet down in one piece and sends it as if it had come in so.
    #[cold]
    fn send_laid_out(&mut self, now: Instant, merged: &SuperPacket<'_>) {
        let mut room = std::mem::take(&mut self.whole);
        let whole = lay_down(merged, &mut room);
        match Headers::parse(whole) {
            Ok(headers) => self.send(now, whole, &headers, &merged.offload),
            Err(reason) => {
                let (packets, bytes) = (merged.segments as u64, merged.wire_len() as u64);
                self.ledger.dropped(reason, packets, bytes);
            }
        }
        self.whole = room;
    }

    fn transmit(&mut self, mac: [u8; 6], packet: &[u8], headers: &Headers, offload: &Offload) {
        let tally = on_the_wire(headers, offload);
        let Some((socket, framing)) = &self.socket else {
            self.ledger
                .dropped(DropReason::InterfaceDown, tally.packets, tally.bytes);
            return;
        };
        let prefix = framing.ip_prefix(mac, headers.key.version);
        let layer2 = prefix.bytes();
        let result = socket.send(offload, headers.payload, layer2, &[IoSlice::new(packet)]);
        let port = Port::path(self.path);
        match result {
            Ok(()) => self.ledger.sent(port, tally.packets, tally.bytes),
            Err(SendError::GsoRefused) => {
                if self.recipe.offload {
                    self.ledger.refused(port);
                }
                // Cut here what the kernel will not: every segment is sent, and booked, by itself.
                let whole = Packet {
                    bytes: packet,
                    headers,
                    offload,
                };
                whole.each_segment(&mut self.scratch, &self.ledger, |segment| {
                    let parts = [IoSlice::new(segment)];
                    match socket.send(&Offload::default(), headers.payload, layer2, &parts) {
                        Ok(()) => self.ledger.sent(port, 1, segment.len() as u64),
                        Err(error) => {
                            self.ledger.dropped(error.reason(), 1, segment.len() as u64);
                        }
                    }
                });
            }
            Err(error) => self
                .ledger
                .dropped(error.reason(), tally.packets, tally.bytes),
        }
    }

    fn hold(&mut self, now: Instant, packet: &[u8], headers: &Headers, offload: &Offload) {
        let tally = on_the_wire(headers, offload);
        if self.waiting.len() >= MAX_WAITING {
            self.ledger
                .dropped(DropReason::NeighborQueueFull, tally.packets, tally.bytes);
            return;
        }
        self.ledger.hold(tally.packets);
        self.count(headers, 1);
        let (packet, headers, offload) = (packet.into(), *headers, *offload);
        self.waiting.push_back(Waiting {
            packet,
            headers,
            offload,
            since: now,
        });
    }

    /// Counts packets that wait for the next hop of this family: one more, or one less.
    fn count(&mut self, headers: &Headers, change: isize) {
        let family = usize::from(headers.key.version == Version::V6);
        if let Some(waits) = self.waits.get_mut(family) {
            *waits = waits.saturating_add_signed(change);
        }
    }

    /// Whether packets wait for a next hop: then [`LinkPort::poll`] wants to be called soon.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends what can go by now and drops what has waited too long.
    pub fn poll(&mut self, now: Instant) {
        for _ in 0..self.waiting.len() {
            let Some(waiting) = self.waiting.pop_front() else {
                return;
            };
            let Waiting {
                packet,
                headers,
                offload,
                since,
            } = &waiting;
            let tally = on_the_wire(headers, offload);
            let family = usize::from(headers.key.version == Version::V6);
            let neighbor = self.neighbors.get(family).and_then(Option::as_ref);
            if let Some(mac) = neighbor.and_then(|neighbor| neighbor.mac()) {
                self.ledger.release(tally.packets);
                self.count(headers, -1);
                self.transmit(mac, packet, headers, offload);
            } else if now >= *since + MAX_WAIT {
                self.ledger.release(tally.packets);
                self.count(headers, -1);
                self.ledger
                    .dropped(DropReason::NeighborUnresolved, tally.packets, tally.bytes);
            } else {
                if neighbor.is_some_and(|neighbor| neighbor.want()) {
                    self.control.wake();
                }
                self.waiting.push_back(waiting);
            }
        }
    }

    /// Drops everything that waits, before the worker or the link ends.
    pub fn shut_down(&mut self) {
        self.waits = [0; 2];
        for waiting in self.waiting.drain(..) {
            let tally = on_the_wire(&waiting.headers, &waiting.offload);
            self.ledger.release(tally.packets);
            self.ledger
                .dropped(DropReason::Shutdown, tally.packets, tally.bytes);
        }
    }
}

/// Copies a merged packet to the start of `room`, which is long enough for any.
pub(crate) fn lay_down<'a>(merged: &SuperPacket<'_>, room: &'a mut [u8]) -> &'a [u8] {
    let mut used = 0;
    for slice in merged.slices() {
        let Some(place) = room.get_mut(used..used + slice.len()) else {
            break;
        };
        place.copy_from_slice(slice);
        used += slice.len();
    }
    room.get(..used).unwrap_or_default()
}

#[cfg(test)]
mod tests;
