//! All tunnels of one worker: finds the peer of a datagram, guards the costly part, runs the timers.
//!
//! A datagram's way in:
//! 1. its kind, by type and exact length.
//! 2. data: receiver index -> peer -> session; window, tag, window; the session's turn; the endpoint.
//! 3. handshake: mac1, before anything else. A response must be waited for.
//! 4. the limiter: admitted, asked for a cookie, or dropped.
//! 5. the key agreement; a key that no peer has gets no answer.
//! 6. the peer answers the initiation, or uses the new session.

use super::handshake::{Pattern, Responder};
use super::local::Local;
use super::mac::mac2_holds;
use super::message::{self, COOKIE_NONCE_LEN, Kind, MAC_LEN, Macs};
use super::remote::{Opened, Remote};
use super::timer::earlier;
use super::timestamp::Epoch;
use crate::key::{PrivateKey, PublicKey};
use crate::limiter::{Admission, Limiter};
use crate::train::Train;
use crate::tunnel::{self, Peer, PeerId, Received, Refusal, SealError, Status, Transmit};
use ring::rand::SecureRandom;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Polls that go through all peers are this far apart at least: with 10,000 busy peers some deadline
/// comes every half millisecond, and none minds being 10 ms late.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// WireGuard for all peers of one worker. It reads no clock: `now` must only move forward, and after a
/// batch of calls [`poll`](tunnel::Endpoint::poll) costs nothing while nothing is due.
///
/// A handshake message is left as it was: an initiation that is refused with
/// [`Refusal::UnknownPeer`] can be offered to the next worker, which may know the peer.
pub struct Endpoint {
    local: Local,
    /// By [`PeerId`]; a removed peer leaves its place empty.
    remotes: Vec<Option<Box<Remote>>>,
    by_key: HashMap<PublicKey, PeerId>,
    /// Not later than the first deadline of any peer.
    wake: Option<Instant>,
}

impl Endpoint {
    /// An endpoint without peers. `limiter` is shared by all workers of a gateway, `worker` is the number
    /// of this one: it stands in every receiver index ([`worker_of`](super::worker_of)). Timestamps of
    /// initiations count from `epoch`.
    pub fn new(private_key: PrivateKey, limiter: Arc<Limiter>, worker: u8, epoch: Epoch) -> Self {
        Self {
            local: Local::new(private_key, limiter, worker, epoch),
            remotes: Vec::new(),
            by_key: HashMap::new(),
            wake: None,
        }
    }

    /// The same for this lane of its peers, which has a port of its own at both ends. The first one, 0, is
    /// WireGuard's; the handshakes of the others differ by their prologue, so that only the same lane of
    /// another `vng` takes them, and none can be played on another lane.
    #[must_use]
    pub fn on_lane(mut self, lane: u8) -> Self {
        self.local.pattern = Pattern::new(lane);
        self
    }

    /// Our public key.
    pub fn public_key(&self) -> PublicKey {
        self.local.public_key
    }

    fn receive_data<'a>(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &'a mut [u8],
        out: &mut dyn Transmit,
    ) -> Received<'a> {
        let Some((index, counter, sealed)) = message::split_data(datagram) else {
            return Received::Refused(Refusal::Malformed);
        };
        let Some((peer, remote)) = remote_of(&self.local, &mut self.remotes, index) else {
            return Received::Refused(Refusal::UnknownIndex);
        };
        match remote.open(&mut self.local, now, source, (index, counter, sealed), out) {
            Ok((opened, armed)) => {
                self.wake = earlier(self.wake, armed);
                match opened {
                    Opened::Packet(plaintext) => Received::Packet { peer, plaintext },
                    Opened::Keepalive => Received::Keepalive { peer },
                }
            }
            Err(refusal) => Received::Refused(refusal),
        }
    }

    fn receive_handshake(
        &mut self,
        now: Instant,
        source: SocketAddr,
        kind: Kind,
        datagram: &[u8],
        out: &mut dyn Transmit,
    ) -> Result<PeerId, Refusal> {
        let macs = message::macs(datagram).ok_or(Refusal::Malformed)?;
        if !self.local.macs.mac1_holds(&macs) {
            return Err(Refusal::Handshake);
        }
        if kind == Kind::Response {
            let index = message::receiver_index(datagram).ok_or(Refusal::Malformed)?;
            let (peer, remote) = remote_of(&self.local, &mut self.remotes, index)
                .filter(|(_, remote)| remote.awaits(index))
                .ok_or(Refusal::UnknownIndex)?;
            admit(&self.local, now, source, datagram, &macs, out)?;
            remote.read_response(&mut self.local, now, source, datagram, out)?;
            self.wake = earlier(self.wake, remote.deadline());
            return Ok(peer);
        }
        admit(&self.local, now, source, datagram, &macs, out)?;
        let (Some(noise), Some(remote_index)) = (
            message::noise_of_initiation(datagram),
            message::sender_index(datagram),
        ) else {
            return Err(Refusal::Malformed);
        };
        let local = &mut self.local;
        let (responder, call) =
            Responder::read_initiation(&local.pattern, &local.private_key, noise)
                .map_err(|_| Refusal::Handshake)?;
        let peer = *self.by_key.get(&call.from).ok_or(Refusal::UnknownPeer)?;
        let remote = place(&mut self.remotes, peer).ok_or(Refusal::UnknownPeer)?;
        remote.answer(local, now, source, (remote_index, responder, call), out)?;
        self.wake = earlier(self.wake, remote.deadline());
        Ok(peer)
    }

    fn receive_cookie(&mut self, now: Instant, datagram: &[u8]) -> Result<PeerId, Refusal> {
        let index = message::receiver_index(datagram).ok_or(Refusal::Malformed)?;
        let (peer, remote) =
            remote_of(&self.local, &mut self.remotes, index).ok_or(Refusal::UnknownIndex)?;
        remote.read_cookie(now, datagram)?;
        Ok(peer)
    }
}

impl tunnel::Endpoint for Endpoint {
    fn add_peer(&mut self, now: Instant, peer: &Peer) -> Option<PeerId> {
        let public_key = PublicKey(peer.public_key);
        if public_key == self.local.public_key
            || self.by_key.contains_key(&public_key)
            || !self.local.private_key.agrees_with(&public_key)
        {
            return None;
        }
        let id = PeerId(u16::try_from(self.remotes.len()).ok()?);
        let remote = Box::new(Remote::new(now, id, peer));
        self.wake = earlier(self.wake, remote.deadline());
        self.remotes.push(Some(remote));
        self.by_key.insert(public_key, id);
        self.local.indices.grow(self.remotes.len());
        Some(id)
    }

    fn remove_peer(&mut self, peer: PeerId) {
        if let Some(remote) = self
            .remotes
            .get_mut(usize::from(peer.0))
            .and_then(Option::take)
        {
            self.by_key.remove(&remote.public_key);
            remote.dissolve(&mut self.local);
        }
    }

    fn receive<'a>(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &'a mut [u8],
        out: &mut dyn Transmit,
    ) -> Received<'a> {
        let handled = match message::kind(datagram) {
            None => Err(Refusal::Malformed),
            Some(Kind::Data) => return self.receive_data(now, source, datagram, out),
            Some(Kind::CookieReply) => self.receive_cookie(now, datagram),
            Some(kind) => self.receive_handshake(now, source, kind, datagram, out),
        };
        match handled {
            Ok(peer) => Received::Control { peer: Some(peer) },
            Err(refusal) => Received::Refused(refusal),
        }
    }

    fn seal(
        &mut self,
        now: Instant,
        peer: PeerId,
        train: &mut Train,
        out: &mut dyn Transmit,
    ) -> Result<SocketAddr, SealError> {
        let remote = place(&mut self.remotes, peer).ok_or(SealError::UnknownPeer)?;
        let (sealed, armed) = remote.seal(&mut self.local, now, train, out);
        self.wake = earlier(self.wake, armed);
        sealed
    }

    fn poll(&mut self, now: Instant, out: &mut dyn Transmit) -> Option<Instant> {
        if self.wake.is_none_or(|wake| now < wake) {
            return self.wake;
        }
        let mut wake = None;
        for remote in self.remotes.iter_mut().flatten() {
            remote.poll(&mut self.local, now, out);
            wake = earlier(wake, remote.deadline());
        }
        self.wake = wake.map(|wake| wake.max(now + POLL_INTERVAL));
        self.wake
    }

    fn set_endpoint(&mut self, peer: PeerId, endpoint: SocketAddr) {
        if let Some(Some(remote)) = self.remotes.get_mut(usize::from(peer.0)) {
            remote.set_endpoint(endpoint);
        }
    }

    fn status(&self, peer: PeerId) -> Option<Status> {
        let remote = self.remotes.get(usize::from(peer.0))?.as_ref()?;
        Some(remote.status())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("public_key", &self.local.public_key)
            .field("peers", &self.by_key.len())
            .finish_non_exhaustive()
    }
}

/// Asks the limiter; who has to show a cookie first gets one.
fn admit(
    local: &Local,
    now: Instant,
    source: SocketAddr,
    datagram: &[u8],
    macs: &Macs<'_>,
    out: &mut dyn Transmit,
) -> Result<(), Refusal> {
    let limiter = &local.limiter;
    let proven = *macs.mac2 != [0; MAC_LEN]
        && limiter.shows_cookie(now, source, |cookie| mac2_holds(macs, cookie));
    match limiter.admit(now, source.ip(), proven) {
        Admission::Admit => return Ok(()),
        Admission::Drop => {}
        Admission::Challenge => {
            let mut nonce = [0; COOKIE_NONCE_LEN];
            let cookie = limiter.cookie(now, source);
            if let (Some(receiver), Ok(())) = (
                message::sender_index(datagram),
                local.random.fill(&mut nonce),
            ) && let Some(reply) = local
                .macs
                .cookie_reply(receiver, &nonce, macs.mac1, &cookie)
            {
                out.transmit(None, source, &reply);
            }
        }
    }
    Err(Refusal::HandshakeRate)
}

#[inline]
fn remote_of<'a>(
    local: &Local,
    remotes: &'a mut [Option<Box<Remote>>],
    index: u32,
) -> Option<(PeerId, &'a mut Remote)> {
    let peer = local.indices.peer(index)?;
    Some((peer, place(remotes, peer)?))
}

#[inline]
fn place(remotes: &mut [Option<Box<Remote>>], peer: PeerId) -> Option<&mut Remote> {
    remotes.get_mut(usize::from(peer.0))?.as_deref_mut()
}
