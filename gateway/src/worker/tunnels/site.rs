//! The far ends of a worker's tunnels.

use crate::device::udp::PeerPath;
use crate::worker::clients::{ClientId, Sources};
use crate::worker::lane::Liveness;
use crate::worker::words::TunnelWord;
use crypto::train::Train;
use crypto::tunnel::PeerId;
use routing::path::PathId;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// What the tunnel side tells its owner about one site.
pub(super) struct Site<L> {
    pub(super) path: PathId,
    pub(super) mtu: usize,
    pub(super) waiting: VecDeque<Waiting<L>>,
    pub(super) word: Arc<TunnelWord>,
    pub(super) liveness: Liveness,
    /// When [`Tunnels::carries`](super::Tunnels::carries) has last asked for a handshake.
    pub(super) asked: Option<Instant>,
    pub(super) packets_in: u64,
    pub(super) bytes_in: u64,
    pub(super) packets_out: u64,
    pub(super) bytes_out: u64,
    /// The way to it through the underlay, and how many datagrams were too long for it and went in fragments.
    pub(super) way: PeerPath,
    pub(super) fragmented: u64,
    /// What control has last said that the route to it takes, bytes.
    pub(super) path_mtu: u32,
    /// For a client: who it is, and what it may send.
    pub(super) client: Option<(ClientId, Sources)>,
}

impl<L> Site<L> {
    /// A far end that nothing has come from yet.
    pub(super) fn new(
        path: PathId,
        mtu: usize,
        word: Arc<TunnelWord>,
        client: Option<(ClientId, Sources)>,
    ) -> Self {
        Self {
            path,
            mtu,
            waiting: VecDeque::new(),
            word,
            liveness: Liveness::default(),
            asked: None,
            packets_in: 0,
            bytes_in: 0,
            packets_out: 0,
            bytes_out: 0,
            way: PeerPath::default(),
            fragmented: 0,
            path_mtu: 0,
            client,
        }
    }
}

/// What a path is here.
#[derive(Clone, Copy)]
pub(super) enum FarEnd {
    /// A site.
    Site(PeerId),
    /// Clients: the destination says which.
    Clients,
}

/// A train without a session to seal it.
pub(super) struct Waiting<L> {
    pub(super) train: Train<L>,
    pub(super) class: u8,
    pub(super) bytes: u64,
    pub(super) since: Instant,
}
