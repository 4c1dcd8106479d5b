//! One ExpressRoute link as control sees it: the interface as netlink tells of it, the control socket
//! with its ARP and neighbour discovery, and what the workers are told of both.
//!
//! 1. [`ControlLink::interface_is`]: the interface came, went, lost its carrier or got it back
//! 2. [`ControlLink::receive`]: what neighbours say
//! 3. [`ControlLink::send_due`]: what is to be said to them
//! 4. [`ControlLink::publish`]: next hops' MAC addresses, for the workers

use crate::control::neighbor::adjacency::{Adjacency, LinkNews};
use crate::control::neighbor::discovery::solicited_node;
use crate::control::neighbor::discovery::{Frame, multicast_mac};
use crate::control::neighbor::entry::Mac;
use crate::control::path::mistagged::{Mistagged, Seen};
use crate::device::event::Poller;
use crate::device::filter;
use crate::device::link::{LinkOptions, LinkSocket};
use crate::device::netlink::LinkState;
use crate::device::offload::Offload;
use crate::device::vlan::Tags;
use crate::device::{DeviceError, ReceiveError};
use crate::worker::control_port::{LinkFacts, LinkWord, NeighborWord};
use crate::worker::ethernet::Framing;
use ipnet::IpNet;
use routing::health::{Interface, Reachability};
use std::io::IoSlice;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When a control socket that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Frames taken from one link before others get their turn.
const FRAMES: usize = 64;

/// The longest frame of ARP or neighbour discovery: what an Ethernet link may carry.
pub(crate) const MAX_FRAME: usize = 2048;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What control must know of a link.
#[derive(Clone, Debug)]
pub struct LinkSetup {
    /// Interface name.
    pub interface: String,
    /// Its VLAN tags.
    pub tags: Tags,
    /// The MAC address in use; `None`: the interface's, whatever it is.
    pub mac: Option<Mac>,
    /// Own addresses with their prefix lengths.
    pub address: Vec<IpNet>,
    /// Next hops, each with the word that tells the workers its MAC address.
    pub neighbors: Vec<(IpAddr, Arc<NeighborWord>)>,
    /// The MAC addresses of next hops that are given, in their order; the rest is asked for.
    pub neighbor_mac: Vec<Option<Mac>>,
    /// Tells the workers of the interface.
    pub word: Arc<LinkWord>,
}

impl LinkSetup {
    /// Own addresses.
    pub fn own(&self) -> Vec<IpAddr> {
        self.address.iter().map(IpNet::addr).collect()
    }

    /// Next hops.
    pub fn next_hops(&self) -> Vec<IpAddr> {
        self.neighbors.iter().map(|(address, _)| *address).collect()
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let words = |setup: &Self| -> Vec<_> {
            let words = setup.neighbors.iter();
            words.map(|(a, word)| (*a, Arc::as_ptr(word))).collect()
        };
        (&self.interface, self.tags, self.mac, &self.address)
            == (&other.interface, other.tags, other.mac, &other.address)
            && self.neighbor_mac == other.neighbor_mac
            && words(self) == words(other)
            && Arc::ptr_eq(&self.word, &other.word)
    }
}

/// A link.
pub struct ControlLink {
    setup: LinkSetup,
    facts: LinkFacts,
    /// MAC address of the interface itself; `None` until netlink has told of it.
    interface_mac: Option<Mac>,
    /// `None` until netlink has told of it.
    interface: Option<Interface>,
    adjacency: Adjacency,
    socket: Option<(LinkSocket, Framing)>,
    mistagged: Option<Mistagged>,
    seen: Seen,
    /// A socket could not be opened: when it is tried again, and what netlink has said of the interface.
    retry: Option<(Instant, LinkState)>,
    /// Token of the socket in the poller.
    token: u64,
}

impl ControlLink {
    /// A link of whose interface nothing is known yet; its socket will be waited for under `token`.
    pub fn new(now: Instant, setup: LinkSetup, token: u64) -> Self {
        let mac = setup.mac.unwrap_or_default();
        let fixed = setup
            .neighbor_mac
            .iter()
            .copied()
            .chain(std::iter::repeat(None));
        let hops: Vec<_> = setup.next_hops().into_iter().zip(fixed).collect();
        Self {
            adjacency: Adjacency::with_fixed(now, mac, setup.own(), hops),
            facts: setup.word.read(),
            setup,
            interface_mac: None,
            interface: None,
            socket: None,
            mistagged: None,
            seen: Seen::default(),
            retry: None,
            token,
        }
    }

    /// Takes the interface's state; `None`: it does not exist. Opens and closes the control socket with
    /// it, and publishes the facts. True if they have changed.
    ///
    /// # Errors
    /// The control socket could not be opened; the link counts as gone, and it is tried again in a second, or with
    /// the next event ([`ControlLink::to_retry`]).
    pub fn interface_is(
        &mut self,
        now: Instant,
        state: Option<&LinkState>,
        poller: &Poller,
    ) -> Result<bool, DeviceError> {
        let before = (self.facts, self.interface);
        let mac = state.and_then(|state| state.mac).unwrap_or_default();
        let index = state.map_or(0, |state| state.index);
        // What workers have opened at the start is not opened again for being told of for the first time.
        let other_mac = self.interface_mac.is_some_and(|known| known != mac);
        let other = index != self.facts.index || other_mac;
        self.interface_mac = Some(mac);
        self.facts = LinkFacts {
            generation: self.facts.generation.wrapping_add(u32::from(other)),
            index,
            mtu: state.map_or(0, |state| state.mtu),
            up: state.is_some_and(LinkState::is_running),
        };
        self.interface = Some(match state {
            None => Interface::Gone,
            Some(state) if !state.admin_up => Interface::Down,
            Some(state) if !state.carrier => Interface::NoCarrier,
            Some(_) => Interface::Up,
        });
        let mac = self.setup.mac.unwrap_or(mac);
        let mut opened = Ok(());
        self.retry = None;
        if index == 0 {
            self.close(poller);
        } else if other || self.socket.is_none() {
            self.close(poller);
            opened = self.open(mac, poller);
            if opened.is_err() {
                self.interface = Some(Interface::Gone);
                self.retry = state.map(|state| (now + RETRY, state.clone()));
            }
        }
        if self.is_up() && (before.1 != Some(Interface::Up) || other) {
            self.adjacency.restart(now, mac);
        }
        let changed = self.facts != before.0;
        if changed {
            self.setup.word.publish(self.facts);
        }
        opened.map(|()| changed)
    }

    fn open(&mut self, mac: Mac, poller: &Poller) -> Result<(), DeviceError> {
        let program = filter::control(self.setup.tags, mac);
        // A NIC hears only the groups that somebody asked for.
        let mut groups = vec![multicast_mac(ALL_NODES)];
        groups.extend(
            self.setup
                .address
                .iter()
                .filter_map(|net| match net.addr() {
                    IpAddr::V6(own) => Some(multicast_mac(solicited_node(own))),
                    IpAddr::V4(_) => None,
                }),
        );
        groups.dedup();
        let socket = LinkSocket::open(&LinkOptions {
            offload: false,
            mac: self.setup.mac,
            groups: &groups,
            receive_buffer: 0,
            send_buffer: 0,
            ..LinkOptions::new(&self.setup.interface, &program)
        })?;
        poller
            .add(&socket, self.token)
            .map_err(|error| DeviceError::of("wait for a packet socket", error))?;
        self.socket = Some((socket, Framing::new(self.setup.tags, mac)));
        let (setup, own) = (&self.setup, self.setup.own());
        let mistagged = Mistagged::open(&setup.interface, setup.tags, setup.mac, &own);
        self.mistagged = mistagged
            .map_err(|error| tracing::debug!(%error, "frames with other tags go unseen"))
            .ok();
        Ok(())
    }

    /// What netlink has said of an interface on which a socket could not be opened, if that is to be tried again now.
    pub fn to_retry(&mut self, now: Instant) -> Option<LinkState> {
        let (_, state) = self.retry.take_if(|(at, _)| *at <= now)?;
        Some(state)
    }

    /// Looks which frames have come with other tags than the link's; how many since the last look, and whether they
    /// are the first of all.
    pub fn look_at_tags(&mut self) -> (u64, bool) {
        let is_first = self.seen.frames == 0;
        let new = self
            .mistagged
            .as_ref()
            .map_or(0, |socket| socket.look(&mut self.seen));
        (new, is_first)
    }

    /// What has come with other tags than the link's; `None`: nothing.
    pub fn mistagged(&self) -> Option<&Seen> {
        (self.seen.frames > 0).then_some(&self.seen)
    }

    /// Stops listening.
    pub fn close(&mut self, poller: &Poller) {
        self.mistagged = None;
        if let Some((socket, _)) = self.socket.take() {
            let _ = poller.remove(&socket);
        }
    }

    /// Takes the frames that wait, up to a bound; `buffer` holds one.
    pub fn receive(&mut self, now: Instant, buffer: &mut [u8]) {
        let Some((socket, framing)) = &self.socket else {
            return;
        };
        for _ in 0..FRAMES {
            let frame = match socket.receive(buffer) {
                Ok(Some(frame)) => frame,
                // Too long for what is spoken here: not ours to understand.
                Err(ReceiveError::Malformed) => continue,
                // Netlink tells of an interface that is down or gone.
                Ok(None) | Err(_) => return,
            };
            if let Ok(payload) = framing.payload(&frame, buffer)
                && let Some(bytes) = buffer.get(payload.range)
            {
                self.adjacency
                    .receive(now, payload.source, payload.ethertype, bytes);
            }
        }
    }

    /// Sends what is due. A frame that the kernel refuses is lost like one on the wire: it is asked again.
    pub fn send_due(&mut self, now: Instant) {
        if !self.is_up() {
            return;
        }
        let Some((socket, framing)) = &self.socket else {
            return;
        };
        while let Some(Frame {
            destination,
            ethertype,
            payload,
        }) = self.adjacency.poll(now)
        {
            let prefix = framing.prefix(destination, ethertype);
            let parts = [IoSlice::new(&payload)];
            let _ = socket.send(&Offload::default(), 0, prefix.bytes(), &parts);
        }
    }

    /// When [`ControlLink::send_due`] or [`ControlLink::to_retry`] has something to do; `None`: not before something is
    /// heard.
    pub fn deadline(&self) -> Option<Instant> {
        let adjacency = self.is_up().then(|| self.adjacency.deadline()).flatten();
        let retry = self.retry.as_ref().map(|(at, _)| *at);
        [adjacency, retry].into_iter().flatten().min()
    }

    /// Tells the workers the next hops' MAC addresses. True if one is known that was not.
    pub fn publish(&self) -> bool {
        let mut resolved = false;
        for ((_, entry), (_, word)) in self.adjacency.entries().zip(&self.setup.neighbors) {
            let (mac, before) = (entry.mac(), word.mac());
            if mac != before {
                word.publish(mac);
                resolved |= before.is_none();
            }
        }
        resolved
    }

    /// Looks which next hops workers wait for.
    pub fn take_wanted(&mut self, now: Instant) {
        for (address, word) in &self.setup.neighbors {
            if word.take_wanted() {
                self.adjacency.wanted(now, *address);
            }
        }
    }

    /// A probe to or beyond the next hop of this IP version was answered: the next hop is there.
    pub fn confirmed(&mut self, now: Instant, version: IpAddr) {
        for (address, _) in &self.setup.neighbors {
            if address.is_ipv4() == version.is_ipv4() {
                self.adjacency.confirmed(now, *address);
            }
        }
    }

    /// A probe went unanswered: the next hops may have other addresses by now.
    pub fn doubted(&mut self, now: Instant) {
        self.adjacency.doubted(now);
    }

    /// What has happened since the last call that somebody should know of.
    pub fn take_news(&mut self) -> Vec<LinkNews> {
        self.adjacency.take_news()
    }

    /// Whether the next hop of this IP version can be sent to.
    pub fn is_resolved(&self, version: IpAddr) -> bool {
        let mut entries = self.adjacency.entries();
        self.is_up()
            && entries.any(|(a, entry)| a.is_ipv4() == version.is_ipv4() && entry.mac().is_some())
    }

    /// Whether the interface is up with its carrier.
    pub fn is_up(&self) -> bool {
        self.interface == Some(Interface::Up)
    }

    /// The interface's state; `None` until netlink has told of it.
    pub fn interface(&self) -> Option<Interface> {
        self.interface
    }

    /// What the rest of the gateway must know of the interface.
    pub fn facts(&self) -> LinkFacts {
        self.facts
    }

    /// What the next hops say together.
    pub fn reachability(&self) -> Option<Reachability> {
        self.adjacency.reachability()
    }

    /// The neighbours.
    pub fn adjacency(&self) -> &Adjacency {
        &self.adjacency
    }

    /// Its socket's token in the poller.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// What it was made from.
    pub fn setup(&self) -> &LinkSetup {
        &self.setup
    }
}
