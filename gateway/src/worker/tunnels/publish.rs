//! What others are told of the tunnels: every 100 ms, and at the end of a round in which something changed.

use super::Tunnels;
use super::site::Site;
use crate::device::sink::TrainSink;
use crate::pipeline::field::length;
use crypto::tunnel::{Endpoint, PeerId};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl<E: Endpoint, U: TrainSink> Tunnels<E, U> {
    /// Whether something has been published since the last call that paths are judged by: control is to be woken,
    /// which sleeps until it hears of something.
    #[inline]
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Looks at every tunnel, and writes its [`TunnelWord`](crate::worker::words::TunnelWord).
    pub fn publish(&mut self, now: Instant) {
        self.tell_at = None;
        self.publish_some(now, |_| true);
    }

    /// Clients may be thousands, and nothing waits for their words: they are told of every 100 ms only.
    pub(super) fn publish_some(&mut self, now: Instant, wanted: impl Fn(&Site<E::Layout>) -> bool) {
        let started = self.started;
        let since_start = |at: Option<Instant>| {
            at.map_or(0, |at| {
                at.saturating_duration_since(started).as_millis() as u64 + 1
            })
        };
        for (peer, site) in self.sites.iter_mut().enumerate() {
            let Some(site) = site.as_mut().filter(|site| wanted(site)) else {
                continue;
            };
            let Some(status) = self.endpoint.status(PeerId(peer as u16)) else {
                continue;
            };
            site.liveness.observe(now, &status);
            let word = &site.word;
            // What a path is judged by; what has merely grown is read with it.
            let judged = [
                (&word.last_handshake, since_start(status.last_handshake)),
                (&word.handshaking, since_start(status.handshaking)),
                (&word.called, since_start(status.called)),
            ];
            let mut news = word.has_session.load(Ordering::Relaxed) != status.has_session;
            for (known, is) in judged {
                news |= known.load(Ordering::Relaxed) != is;
                known.store(is, Ordering::Relaxed);
            }
            word.last_received
                .store(since_start(status.last_received), Ordering::Relaxed);
            word.handshakes.store(status.handshakes, Ordering::Relaxed);
            word.has_session
                .store(status.has_session, Ordering::Relaxed);
            word.packets_in.store(site.packets_in, Ordering::Relaxed);
            word.packets_out.store(site.packets_out, Ordering::Relaxed);
            word.bytes_in.store(site.bytes_in, Ordering::Relaxed);
            word.bytes_out.store(site.bytes_out, Ordering::Relaxed);
            word.fragmented.store(site.fragmented, Ordering::Relaxed);
            if word.endpoint.load().as_deref().copied() != status.endpoint {
                word.endpoint.store(status.endpoint.map(Arc::new));
                news = true;
            }
            // No path stands or falls with one client.
            self.news |= news && site.client.is_none();
            let path_mtu = word.path_mtu.load(Ordering::Relaxed);
            if path_mtu != site.path_mtu {
                site.path_mtu = path_mtu;
                let around = match status.endpoint {
                    Some(SocketAddr::V6(_)) => length::V6 + length::UDP,
                    _ => length::V4 + length::UDP,
                };
                site.way.set_longest(match path_mtu {
                    0 => usize::MAX,
                    mtu => (mtu as usize).saturating_sub(around),
                });
            }
            let local = site.way.local();
            if word.local.load().as_deref().copied() != local {
                word.local.store(local.map(Arc::new));
            }
        }
    }
}
