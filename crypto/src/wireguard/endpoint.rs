//! All tunnels of one worker: finds the peer of a datagram, guards the costly part, runs the timers.
//!
//! A datagram's way in:
//! 1. its kind, by type and exact length.
//! 2. data: receiver index -> peer -> session; window, tag, window; the session's turn; the endpoint.
//! 3. handshake: mac1, before anything else. A response must be waited for.
//! 4. the limiter: admitted, asked for a cookie, or dropped. So far it is cheap, and the rest can wait.
//! 5. the key agreement. A key that no peer has gets no answer here: whoever has the peer goes on from there.
//! 6. the peer answers the initiation, or uses the new session.

use super::handshake::{self, Pattern, Responder};
use super::local::Local;
use super::mac::mac2_holds;
use super::message::{self, COOKIE_NONCE_LEN, Kind, MAC_LEN, Macs};
use super::message::{DataMessage, Train};
use super::noise::Known;
use super::remote::{Opened, Remote};
use super::schedule::Schedule;
use super::timestamp::WallClock;
use crate::key::{PrivateKey, PublicKey};
use crate::limiter::{Admission, Limiter};
use crate::tunnel::{self, Call, Peer, PeerId, Received, Refusal, SealError, Status, Transmit};
use ring::rand::SecureRandom;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// WireGuard for all peers of one worker. It reads no clock: `now` must only move forward, and after a
/// batch of calls [`poll`](tunnel::Endpoint::poll) costs nothing while nothing is due, whatever the number of
/// peers.
///
/// An initiation of nobody who is known here comes back as [`Received::Foreign`], and can be offered to the next
/// worker, which may know the peer: it goes on with what this one has paid for.
pub struct Endpoint {
    local: Local,
    /// By [`PeerId`]; a removed peer leaves its place empty.
    remotes: Vec<Option<Box<Remote>>>,
    /// Empty places. Their indices went with their sessions, so nobody finds a new peer by an old one's.
    free: Vec<PeerId>,
    by_key: HashMap<PublicKey, PeerId>,
    schedule: Schedule,
}

impl Endpoint {
    /// An endpoint without peers. `limiter` is shared by all workers of a gateway, `worker` is the number
    /// of this one: it stands in every receiver index ([`worker_of`](super::worker_of)). `clock` is asked for
    /// the timestamp of each initiation.
    pub fn new(
        private_key: PrivateKey,
        limiter: Arc<Limiter>,
        worker: u8,
        clock: WallClock,
    ) -> Self {
        Self {
            local: Local::new(private_key, limiter, worker, clock),
            remotes: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            schedule: Schedule::default(),
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
                self.schedule.arm(peer, &mut remote.scheduled, armed);
                match opened {
                    Opened::Packet(plaintext) => Received::Packet { peer, plaintext },
                    Opened::Keepalive => Received::Keepalive { peer },
                }
            }
            Err(refusal) => Received::Refused(refusal),
        }
    }

    fn screen_handshake(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &[u8],
        out: &mut dyn Transmit,
    ) -> Result<(), Refusal> {
        let kind = message::kind(datagram).ok_or(Refusal::Malformed)?;
        let macs = message::macs(datagram).ok_or(Refusal::Malformed)?;
        if !self.local.macs.mac1_holds(&macs) {
            return Err(Refusal::Handshake);
        }
        if kind == Kind::Response {
            let index = message::receiver_index(datagram).ok_or(Refusal::Malformed)?;
            remote_of(&self.local, &mut self.remotes, index)
                .filter(|(_, remote)| remote.awaits(index))
                .ok_or(Refusal::UnknownIndex)?;
        }
        admit(&self.local, now, source, datagram, &macs, out)
    }

    fn read_response(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &[u8],
        out: &mut dyn Transmit,
    ) -> Result<PeerId, Refusal> {
        let index = message::receiver_index(datagram).ok_or(Refusal::Malformed)?;
        let (peer, remote) =
            remote_of(&self.local, &mut self.remotes, index).ok_or(Refusal::UnknownIndex)?;
        remote.read_response(&mut self.local, now, source, datagram, out)?;
        let deadline = remote.deadline();
        self.schedule.arm(peer, &mut remote.scheduled, deadline);
        Ok(peer)
    }

    fn read_initiation(&mut self, source: SocketAddr, datagram: &[u8]) -> Result<Call, Refusal> {
        let (Some(noise), Some(remote_index)) = (
            message::noise_of_initiation(datagram),
            message::sender_index(datagram),
        ) else {
            return Err(Refusal::Malformed);
        };
        let local = &self.local;
        let known = Known {
            public: local.public_key.0,
            agreed: None,
        };
        let own = (&local.private_key, Some(known));
        let (responder, call) = Responder::read_initiation(&local.pattern, own, noise)
            .map_err(|_| Refusal::Handshake)?;
        let state = Box::new(Heard {
            remote_index,
            responder,
            call,
        });
        Ok(Call { source, state })
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
    type Layout = DataMessage;

    fn add_peer(&mut self, now: Instant, peer: &Peer) -> Option<PeerId> {
        let public_key = PublicKey(peer.public_key);
        if public_key == self.local.public_key
            || self.by_key.contains_key(&public_key)
            || !self.local.private_key.agrees_with(&public_key)
        {
            return None;
        }
        let id = match self.free.last() {
            Some(&free) => free,
            None => PeerId(u16::try_from(self.remotes.len()).ok()?),
        };
        let mut remote = Box::new(Remote::new(now, id, peer));
        let deadline = remote.deadline();
        self.schedule.arm(id, &mut remote.scheduled, deadline);
        match place_of(&mut self.remotes, id) {
            Some(free) => {
                *free = Some(remote);
                self.free.pop();
            }
            None => self.remotes.push(Some(remote)),
        }
        self.by_key.insert(public_key, id);
        self.local.indices.grow(self.remotes.len());
        Some(id)
    }

    fn set_private_key(&mut self, private_key: &PrivateKey) {
        self.local.set_private_key(private_key.clone());
    }

    fn remove_peer(&mut self, peer: PeerId) {
        if let Some(remote) = self
            .remotes
            .get_mut(usize::from(peer.0))
            .and_then(Option::take)
        {
            self.by_key.remove(&remote.public_key);
            self.free.push(peer);
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
        match message::kind(datagram) {
            None => Received::Refused(Refusal::Malformed),
            Some(Kind::Data) => self.receive_data(now, source, datagram, out),
            Some(Kind::CookieReply) => control(self.receive_cookie(now, datagram)),
            Some(Kind::Initiation | Kind::Response) => {
                match self.screen_handshake(now, source, datagram, out) {
                    Ok(()) => self.shake_hands(now, source, datagram, out),
                    Err(refusal) => Received::Refused(refusal),
                }
            }
        }
    }

    fn screen(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &[u8],
        out: &mut dyn Transmit,
    ) -> Result<(), Refusal> {
        self.screen_handshake(now, source, datagram, out)
    }

    fn shake_hands<'a>(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &'a mut [u8],
        out: &mut dyn Transmit,
    ) -> Received<'a> {
        match message::kind(datagram) {
            Some(Kind::Initiation) => match self.read_initiation(source, datagram) {
                Ok(call) => self.answer(now, call, out),
                Err(refusal) => Received::Refused(refusal),
            },
            Some(Kind::Response) => control(self.read_response(now, source, datagram, out)),
            _ => Received::Refused(Refusal::Malformed),
        }
    }

    fn answer(&mut self, now: Instant, call: Call, out: &mut dyn Transmit) -> Received<'static> {
        let Call { source, state } = call;
        let Ok(heard) = state.downcast::<Heard>() else {
            return Received::Refused(Refusal::Malformed);
        };
        let Some(&peer) = self.by_key.get(&heard.call.from) else {
            return Received::Foreign(Call {
                source,
                state: heard,
            });
        };
        let Some(remote) = place(&mut self.remotes, peer) else {
            return Received::Refused(Refusal::UnknownPeer);
        };
        let Heard {
            remote_index,
            responder,
            call,
        } = *heard;
        let heard = (remote_index, responder, call);
        let answered = remote.answer(&mut self.local, now, source, heard, out);
        let deadline = remote.deadline();
        self.schedule.arm(peer, &mut remote.scheduled, deadline);
        control(answered.map(|()| peer))
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
        self.schedule.arm(peer, &mut remote.scheduled, armed);
        sealed
    }

    fn poll(&mut self, now: Instant, out: &mut dyn Transmit) -> Option<Instant> {
        if self.schedule.begin(now) {
            while let Some((at, peer)) = self.schedule.next(now) {
                // Who has been called already, or has gone, is passed over.
                let Some(remote) = place(&mut self.remotes, peer) else {
                    continue;
                };
                if !remote.scheduled.take(at) {
                    continue;
                }
                remote.poll(&mut self.local, now, out);
                let deadline = remote.deadline();
                self.schedule
                    .arm_again(now, peer, &mut remote.scheduled, deadline);
            }
        }
        self.schedule.deadline()
    }

    #[inline]
    fn deadline(&self) -> Option<Instant> {
        self.schedule.deadline()
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

/// An initiation that has been read.
struct Heard {
    remote_index: u32,
    responder: Responder,
    call: handshake::Call,
}

fn control(handled: Result<PeerId, Refusal>) -> Received<'static> {
    match handled {
        Ok(peer) => Received::Control { peer: Some(peer) },
        Err(refusal) => Received::Refused(refusal),
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

fn place_of(remotes: &mut [Option<Box<Remote>>], peer: PeerId) -> Option<&mut Option<Box<Remote>>> {
    remotes.get_mut(usize::from(peer.0))
}

#[inline]
fn place(remotes: &mut [Option<Box<Remote>>], peer: PeerId) -> Option<&mut Remote> {
    remotes.get_mut(usize::from(peer.0))?.as_deref_mut()
}
