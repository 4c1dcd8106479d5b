//! What the engine itself has to say.

use super::site::Site;
use super::underlay::Underlay;
use crate::device::sink::TrainSink;
use crate::device::udp::PeerPath;
use crate::telemetry::ledger::{Ledger, Port};
use crypto::train::Layout;
use crypto::tunnel::{PeerId, Transmit};
use crypto::wireguard::receiver_index;
use std::net::{IpAddr, SocketAddr};

/// Sends the engine's own messages and books them: the gateway made them, so they come in at its host
/// port and go out at the tunnel's.
pub(super) struct Outbox<'a, U, L> {
    pub(super) underlay: &'a Underlay<U>,
    pub(super) sites: &'a [Option<Site<L>>],
    pub(super) ledger: &'a Ledger,
    /// Where the datagram that is being answered came to: the answer leaves from there, whether its sender has
    /// authenticated or not. `None`: nothing is answered.
    pub(super) local: Option<IpAddr>,
}

impl<U: TrainSink, L: Layout> Transmit for Outbox<'_, U, L> {
    fn transmit(&mut self, peer: Option<PeerId>, to: SocketAddr, datagram: &[u8]) {
        let length = datagram.len() as u64;
        let site = peer.and_then(|peer| self.sites.get(usize::from(peer.0))?.as_ref());
        let answer = PeerPath::from(self.local);
        let way = match (self.local, site) {
            (None, Some(site)) => &site.way,
            _ => &answer,
        };
        if receiver_index(datagram).is_none() {
            // A handshake's first message: it has no receiver yet.
            way.asks();
        }
        // Handshakes ask for low latency and must not be remarked: CS6, as kernel WireGuard sends them.
        let way = (way, to);
        let outcome = self.underlay.send(way, datagram, datagram.len(), 0xc0);
        self.ledger.received(Port::LOCAL, 1, length);
        match outcome.error {
            None => {
                let port = site.map_or(Port::UNDERLAY, |site| Port::path(site.path));
                self.ledger.sent(port, 1, length);
            }
            Some(error) => self.ledger.dropped(error.reason(), 1, length),
        }
    }
}
