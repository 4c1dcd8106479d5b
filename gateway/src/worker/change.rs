//! How the tunnels of a running worker change: orders of control, carried out between two rounds, so that no packet
//! meets a lock or half a change.
//!
//! 1. control puts an [`Order`] of a few changes into the worker's queue and rings its bell
//! 2. at the beginning of its next round the worker makes them, in order ([`Switch::take_orders`](crate::worker::switch::Switch::take_orders))
//! 3. it answers which of them it could not make; control waits for that before it goes on
//!
//! The tunnels that a gateway starts with come the same way, before the worker runs.

use crate::worker::clients::ClientId;
use crate::worker::ways::Way;
use crate::worker::words::TunnelWord;
use crypto::key::PrivateKey;
use crypto::tunnel::Peer;
use routing::path::PathId;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

/// Changes in one order. Each new peer costs a key agreement, some 50 us: a worker that makes so many in a round
/// is away from its packets for less than 2 ms, which its sockets hold.
pub const MOST_CHANGES: usize = 32;

/// Which of a worker's ports a tunnel is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortPlace {
    /// A UDP port: 0 is the base port, then the worker's lanes.
    Socket(usize),
    /// The tunnels over a circuit at this place.
    Private(usize),
}

/// One change of a worker's tunnels.
pub enum Change {
    /// The path is this to the worker from now on.
    Way {
        /// Which path.
        path: PathId,
        /// What it is.
        way: Way,
    },
    /// The gateway has another private key: its far ends have been taken away, and come again behind this.
    Identity {
        /// The key.
        private_key: PrivateKey,
    },
    /// A site has a tunnel on a port.
    AddSite {
        /// Which.
        port: PortPlace,
        /// The site's path.
        path: PathId,
        /// Its keys and where it is.
        peer: Peer,
        /// Where the worker says how the tunnel is.
        word: Arc<TunnelWord>,
    },
    /// A site that has a tunnel on a port is somewhere else.
    MoveSite {
        /// Which.
        port: PortPlace,
        /// The site's path.
        path: PathId,
        /// Where it is.
        endpoint: SocketAddr,
    },
    /// A site has no tunnel any more, on no port.
    RemoveSite {
        /// Its path.
        path: PathId,
    },
    /// A client may connect.
    AddClient {
        /// Which.
        id: ClientId,
        /// Its addresses.
        addresses: Vec<IpAddr>,
        /// The worker that has its tunnel.
        owner: usize,
        /// The clients' path.
        path: PathId,
        /// For the owner: its keys, and where the worker says how the tunnel is.
        tunnel: Option<(Peer, Arc<TunnelWord>)>,
    },
    /// A client may not connect any more: its session is dead.
    RemoveClient {
        /// Which.
        id: ClientId,
        /// Its addresses.
        addresses: Vec<IpAddr>,
    },
}

/// Changes for one worker.
pub struct Order {
    /// At most [`MOST_CHANGES`].
    pub changes: Vec<Change>,
    /// Where the worker says that it has made them, and the places of those that it could not make.
    pub done: SyncSender<Vec<usize>>,
}
