//! How the rest of the gateway and the control thread speak to each other: what it is started with, what
//! it is told while it runs, and what it does.

use crate::control::force::Orders;
use crate::control::path::watch::PathSetup;
use crate::control::published::Published;
use crate::device::event::Waker;
use crate::device::netlink;
use crate::telemetry::ledger::Ledger;
use crate::worker::control_port::{ControlPort, LinkFacts};
use routing::health::Usability;
use routing::path::PathId;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Orders that wait.
const MOST_ORDERS: usize = 16;

/// What control does to the rest of the gateway, on its own thread and at once.
pub trait Effects: Send {
    /// The usability of at least one path has changed; `usability` has all of them, by [`PathId`]. Stores
    /// the groups' words ([`routing::snapshot::Snapshot::update`]). Gives how many groups changed.
    fn usability(&mut self, usability: &[Usability]) -> usize;

    /// A link's interface came, went or changed. The workers have been told by its word; what depends on
    /// the MTU is the supervisor's.
    fn link(&mut self, path: PathId, facts: LinkFacts);
}

/// What control must know of the gateway, and what a reload replaces.
#[derive(Clone, Debug, Default)]
pub struct WatchSetup {
    /// How long a path must stay up before flows go back to it.
    pub hold_down: Duration,
    /// The gateway's own addresses in the virtual network; the first of each IP version is the source of
    /// probes to what is not on a link.
    pub addresses: Vec<IpAddr>,
    /// The paths.
    pub paths: Vec<PathSetup>,
}

/// What the control thread is started with.
pub struct ControlSetup {
    /// When the gateway started: time zero of the tunnel words.
    pub started: Instant,
    /// What is watched.
    pub watch: WatchSetup,
    /// The host port of each worker.
    pub ports: Vec<Arc<ControlPort>>,
    /// Control's own books.
    pub ledger: Arc<Ledger>,
    /// What it does to the rest of the gateway.
    pub effects: Box<dyn Effects>,
    /// How the rest of the gateway speaks to it.
    pub handle: Arc<ControlHandle>,
}

pub(crate) enum Order {
    Watch(Box<WatchSetup>),
    Stop,
}

/// How the rest of the gateway speaks to control.
#[derive(Debug)]
pub struct ControlHandle {
    /// Wakes control: after a packet was put into `to_host`, or a next hop is wanted.
    pub waker: Arc<Waker>,
    /// What control shows.
    pub published: Published,
    pub(crate) orders: Orders<Order>,
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Watch(_) => "Watch",
            Self::Stop => "Stop",
        })
    }
}

impl ControlHandle {
    /// A handle for a control thread to come.
    ///
    /// # Errors
    /// As those of [`Waker::new`].
    pub fn new() -> io::Result<Self> {
        let waker = Arc::new(Waker::new()?);
        Ok(Self {
            orders: Orders::new(MOST_ORDERS, Arc::clone(&waker)),
            waker,
            published: Published::default(),
        })
    }

    /// Has control watch this from now on (reload). A path whose setup is the same, with the very same
    /// words shared with the workers, goes on being watched as it was, its state and timers with it; its
    /// id and its worker may be others. False if too many orders wait.
    pub fn watch(&self, setup: WatchSetup) -> bool {
        self.orders.give(Order::Watch(Box::new(setup)))
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.orders.insist(Order::Stop);
    }
}

/// Why control could not start or go on.
#[derive(Debug)]
pub enum ControlError {
    /// Netlink, which tells of the interfaces.
    Netlink(netlink::Error),
    /// Waiting for events.
    Wait(io::Error),
    /// The system gave no random bytes.
    Random,
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Netlink(error) => write!(f, "cannot watch the interfaces: {error}"),
            Self::Wait(error) => write!(f, "cannot wait for events: {error}"),
            Self::Random => f.write_str("the system gave no random bytes"),
        }
    }
}

impl std::error::Error for ControlError {}

impl From<netlink::Error> for ControlError {
    fn from(error: netlink::Error) -> Self {
        Self::Netlink(error)
    }
}

impl From<io::Error> for ControlError {
    fn from(error: io::Error) -> Self {
        Self::Wait(error)
    }
}
