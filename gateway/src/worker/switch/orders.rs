//! Orders of control, carried out between two rounds.

use super::Switch;
use crate::device::sink::Devices;
use crate::worker::change::{Change, Order, PortPlace};
use crypto::tunnel::Endpoint;
use std::time::Instant;

impl<E: Endpoint, D: Devices> Switch<E, D> {
    /// Obeys what orders there are; at the beginning of a round.
    #[inline]
    pub fn take_orders(&mut self, now: Instant) {
        if self.host.has_orders() {
            self.obey_all(now);
        }
    }

    #[cold]
    fn obey_all(&mut self, now: Instant) {
        while let Some(Order { changes, done }) = self.host.take_order() {
            let changes = changes.into_iter().enumerate();
            let refused = changes.filter_map(|(place, change)| {
                let made = self.change(now, change);
                (!made).then_some(place)
            });
            // Control may have given up waiting.
            let _ = done.try_send(refused.collect());
        }
    }

    /// Makes one change; false if the engine refuses a key, because it is none or is known already.
    pub fn change(&mut self, now: Instant, change: Change) -> bool {
        match change {
            Change::Way { path, way } => {
                self.ports.ways.set(path, way);
                true
            }
            Change::Identity { private_key } => {
                for tunnels in self.ports.tunnels.iter_mut() {
                    tunnels.set_private_key(&private_key);
                }
                for private in &mut self.ports.privates {
                    private.tunnels.set_private_key(&private_key);
                }
                true
            }
            Change::AddSite {
                port: PortPlace::Socket(place),
                path,
                peer,
                word,
            } => self
                .ports
                .tunnels
                .at(place)
                .is_some_and(|tunnels| tunnels.add(now, path, &peer, word)),
            Change::AddSite {
                port: PortPlace::Private(place),
                path,
                peer,
                word,
            } => self
                .ports
                .privates
                .get_mut(place)
                .is_some_and(|private| private.tunnels.add(now, path, &peer, word)),
            Change::MoveSite {
                port,
                path,
                endpoint,
            } => {
                match port {
                    PortPlace::Socket(place) => {
                        if let Some(tunnels) = self.ports.tunnels.at(place) {
                            tunnels.move_site(now, path, endpoint);
                        }
                    }
                    PortPlace::Private(place) => {
                        if let Some(private) = self.ports.privates.get_mut(place) {
                            private.tunnels.move_site(now, path, endpoint);
                        }
                    }
                }
                true
            }
            Change::RemoveSite { path } => {
                for tunnels in self.ports.tunnels.iter_mut() {
                    tunnels.remove(now, path);
                }
                for private in &mut self.ports.privates {
                    private.tunnels.remove(now, path);
                }
                true
            }
            Change::AddClient {
                id,
                addresses,
                owner,
                path,
                tunnel,
            } => {
                if let Some((peer, word)) = tunnel
                    && !self.ports.tunnels.base_mut().add_client(
                        now,
                        path,
                        (id, &addresses),
                        &peer,
                        word,
                    )
                {
                    return false;
                }
                self.ports.ways.add_client(addresses, owner);
                true
            }
            Change::RemoveClient { id, addresses } => {
                self.ports.ways.remove_client(addresses);
                self.ports.tunnels.base_mut().remove_client(now, id);
                true
            }
        }
    }
}
