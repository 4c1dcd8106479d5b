//! WireGuard on boringtun 0.7.1's `Tunn`, as a second engine behind the same seam: a peer for tests in
//! memory, and what our own engine is measured against (docs/wireguard-engines.md).
//!
//! Sealing a train:
//! 1. without a session ask for a handshake and leave the train alone, because `Tunn` would keep copies
//!    of the packets in a queue of its own
//! 2. copy a slot's padded plaintext to the scratch, because `Tunn` wants source and destination apart
//! 3. `encapsulate` from the scratch into the slot
//!
//! Receiving a datagram:
//! 1. find the peer: by the upper 24 bits of the receiver index, or by the public key in an initiation
//! 2. copy it to the scratch and open it from there into the datagram's own bytes
//! 3. answer, and move the peer's endpoint
//!
//! `Tunn` has no clock argument: it reads the system's boot clock in [`tunnel::Endpoint::poll`] and in
//! handshakes, and stamps everything between two polls with the time of the first. `now` only dates
//! [`Status`]. It knows no limit on the messages of one session and its replay window is 1,024 packets.

use crate::key::PrivateKey;
use crate::train::MAX_TRAIN;
use crate::tunnel::{self, Call, Peer, PeerId, Received, Refusal, SealError, Status, Transmit};
use crate::wireguard::{DATA_HEADER_LEN, DATA_OVERHEAD, DataMessage, TAG_LEN, Train};
use ::boringtun::noise::errors::WireGuardError;
use ::boringtun::noise::handshake::parse_handshake_anon;
use ::boringtun::noise::rate_limiter::RateLimiter;
use ::boringtun::noise::{Packet, Tunn, TunnResult};
use ::boringtun::x25519::{PublicKey, StaticSecret};
use ring::rand::{SecureRandom, SystemRandom};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Handshake messages a second, of all sources together, before cookies are asked for.
const HANDSHAKES_PER_SECOND: u64 = 100;
/// `Tunn` moves its timers only when called; its own program calls it as often.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How long an initiation waits for its response (WireGuard whitepaper, 6.1).
const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Length of a cookie reply (WireGuard whitepaper, 5.4.7).
const COOKIE_REPLY: usize = 64;
/// Type of a cookie reply.
const COOKIE_TYPE: u8 = 3;
/// What `Tunn` may hold in its queue, and so the most answers to one datagram.
const MAX_ANSWERS: usize = 256;

/// All tunnels of one worker on boringtun.
pub struct Endpoint {
    private: StaticSecret,
    public: PublicKey,
    /// Shared by all peers, so that a flood under one key counts for all.
    rate: Arc<RateLimiter>,
    /// By [`PeerId`]; a removed peer leaves its place empty.
    peers: Vec<Option<Tunnel>>,
    by_key: HashMap<[u8; 32], PeerId>,
    /// Upper 24 bits of the receiver indices of a peer; `Tunn` counts its sessions in the lower 8.
    by_index: HashMap<u32, PeerId>,
    /// When `Tunn`'s timers are to be moved on.
    due: Option<Instant>,
    scratch: Box<[u8]>,
}

/// One far end.
struct Tunnel {
    tunn: Tunn,
    key: [u8; 32],
    index: u32,
    status: Status,
    /// Receiver index of the session we answered for; it counts once the peer has used it.
    unconfirmed: Option<u32>,
    /// When a handshake was last asked for by [`tunnel::Endpoint::seal`].
    asked: Option<Instant>,
}

impl Endpoint {
    /// An endpoint without peers for this X25519 private key.
    pub fn new(private_key: &[u8; 32]) -> Self {
        let private = StaticSecret::from(*private_key);
        let public = PublicKey::from(&private);
        Self {
            // Each initiation passes the limiter twice: here, before its key is known, and in `Tunn`.
            rate: Arc::new(RateLimiter::new(&public, 2 * HANDSHAKES_PER_SECOND)),
            private,
            public,
            peers: Vec::new(),
            by_key: HashMap::new(),
            by_index: HashMap::new(),
            due: None,
            scratch: vec![0; MAX_TRAIN + TAG_LEN].into_boxed_slice(),
        }
    }

    /// A random free value for the upper 24 bits of a peer's receiver indices.
    fn free_index(&self) -> Option<u32> {
        let random = SystemRandom::new();
        (0..64).find_map(|_| {
            let mut bytes = [0; 4];
            random.fill(&mut bytes).ok()?;
            let index = u32::from_le_bytes(bytes) >> 8;
            (!self.by_index.contains_key(&index)).then_some(index)
        })
    }

    /// The peer that an initiation names, once its first MAC and the load allow to look.
    fn initiator(
        &self,
        source: SocketAddr,
        datagram: &[u8],
        out: &mut dyn Transmit,
    ) -> Result<PeerId, Refusal> {
        let mut cookie = [0; COOKIE_REPLY];
        let half = match self
            .rate
            .verify_packet(Some(source.ip()), datagram, &mut cookie)
        {
            Ok(Packet::HandshakeInit(initiation)) => {
                parse_handshake_anon(&self.private, &self.public, &initiation)
                    .map_err(|_| Refusal::Handshake)?
            }
            Ok(_) => return Err(Refusal::Malformed),
            Err(TunnResult::WriteToNetwork(reply)) => {
                out.transmit(None, source, reply);
                return Err(Refusal::HandshakeRate);
            }
            Err(TunnResult::Err(error)) => return Err(refusal(&error)),
            Err(_) => return Err(Refusal::Handshake),
        };
        let peer = self.by_key.get(&half.peer_static_public);
        peer.copied().ok_or(Refusal::UnknownPeer)
    }
}

impl tunnel::Endpoint for Endpoint {
    type Layout = DataMessage;

    fn add_peer(&mut self, now: Instant, peer: &Peer) -> Option<PeerId> {
        let public = PublicKey::from(peer.public_key);
        let valid = self.private.diffie_hellman(&public).was_contributory();
        if !valid || public == self.public || self.by_key.contains_key(&peer.public_key) {
            return None;
        }
        let id = PeerId(u16::try_from(self.peers.len()).ok()?);
        let index = self.free_index()?;
        let keepalive = peer
            .keepalive
            .map(|every| u16::try_from(every.as_secs().max(1)).unwrap_or(u16::MAX));
        let tunn = Tunn::new(
            self.private.clone(),
            public,
            Some(*peer.preshared_key),
            keepalive,
            index,
            Some(Arc::clone(&self.rate)),
        );
        self.peers.push(Some(Tunnel {
            tunn,
            key: peer.public_key,
            index,
            status: Status {
                endpoint: peer.endpoint,
                ..Status::default()
            },
            unconfirmed: None,
            asked: None,
        }));
        self.by_key.insert(peer.public_key, id);
        self.due = Some(now);
        self.by_index.insert(index, id);
        Some(id)
    }

    fn set_private_key(&mut self, private_key: &PrivateKey) {
        self.private = StaticSecret::from(*private_key.as_bytes());
        self.public = PublicKey::from(&self.private);
        self.rate = Arc::new(RateLimiter::new(&self.public, 2 * HANDSHAKES_PER_SECOND));
    }

    fn remove_peer(&mut self, peer: PeerId) {
        if let Some(tunnel) = self
            .peers
            .get_mut(usize::from(peer.0))
            .and_then(Option::take)
        {
            self.by_key.remove(&tunnel.key);
            self.by_index.remove(&tunnel.index);
        }
    }

    fn receive<'a>(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &'a mut [u8],
        out: &mut dyn Transmit,
    ) -> Received<'a> {
        let (receiver, is_data) = match Tunn::parse_incoming_packet(datagram) {
            Ok(Packet::PacketData(data)) => (Some(data.receiver_idx), true),
            Ok(Packet::HandshakeResponse(response)) => (Some(response.receiver_idx), false),
            Ok(Packet::PacketCookieReply(cookie)) => (Some(cookie.receiver_idx), false),
            Ok(Packet::HandshakeInit(_)) => (None, false),
            Err(_) => return Received::Refused(Refusal::Malformed),
        };
        let id = match receiver {
            Some(index) => self
                .by_index
                .get(&(index >> 8))
                .copied()
                .ok_or(Refusal::UnknownIndex),
            None => self.initiator(source, datagram, out),
        };
        let id = match id {
            Ok(id) => id,
            Err(refusal) => return Received::Refused(refusal),
        };
        let Some(Some(tunnel)) = self.peers.get_mut(usize::from(id.0)) else {
            return Received::Refused(Refusal::UnknownIndex);
        };
        if is_data {
            tunnel.receive_data(now, id, source, datagram, receiver, &mut self.scratch)
        } else {
            tunnel.receive_handshake(now, id, source, datagram, &mut self.scratch, out)
        }
    }

    /// Nothing is cheap here: `Tunn` does all of it in one call.
    fn screen(
        &mut self,
        _now: Instant,
        _source: SocketAddr,
        _datagram: &[u8],
        _out: &mut dyn Transmit,
    ) -> Result<(), Refusal> {
        Ok(())
    }

    fn shake_hands<'a>(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &'a mut [u8],
        out: &mut dyn Transmit,
    ) -> Received<'a> {
        self.receive(now, source, datagram, out)
    }

    /// `Tunn` cannot hand a handshake on.
    fn answer(&mut self, _now: Instant, _call: Call, _out: &mut dyn Transmit) -> Received<'static> {
        Received::Refused(Refusal::UnknownPeer)
    }

    fn seal(
        &mut self,
        now: Instant,
        peer: PeerId,
        train: &mut Train,
        out: &mut dyn Transmit,
    ) -> Result<SocketAddr, SealError> {
        let Some(Some(tunnel)) = self.peers.get_mut(usize::from(peer.0)) else {
            return Err(SealError::UnknownPeer);
        };
        let to = tunnel.status.endpoint.ok_or(SealError::NoSession)?;
        if !tunnel.status.has_session {
            if tunnel.may_ask(now) {
                let asked = tunnel
                    .tunn
                    .format_handshake_initiation(&mut self.scratch, false);
                if let TunnResult::WriteToNetwork(initiation) = asked {
                    out.transmit(Some(peer), to, initiation);
                }
            }
            return Err(SealError::NoSession);
        }
        for slot in train.slots_mut() {
            // `encapsulate` panics where the destination is shorter than the source and 32 bytes: the
            // source is cut to fit here.
            let Some(length) = slot.len().checked_sub(DATA_OVERHEAD) else {
                continue;
            };
            let plaintext = slot.get(DATA_HEADER_LEN..DATA_HEADER_LEN + length);
            let (Some(plaintext), Some(copy)) = (plaintext, self.scratch.get_mut(..length)) else {
                continue;
            };
            copy.copy_from_slice(plaintext);
            if !matches!(
                tunnel.tunn.encapsulate(copy, slot),
                TunnResult::WriteToNetwork(_)
            ) {
                return Err(SealError::NoSession);
            }
        }
        Ok(to)
    }

    fn poll(&mut self, now: Instant, out: &mut dyn Transmit) -> Option<Instant> {
        self.rate.reset_count();
        let mut next = None;
        for (number, tunnel) in self.peers.iter_mut().enumerate() {
            let Some(tunnel) = tunnel else { continue };
            next = now.checked_add(POLL_INTERVAL);
            // An expired connection is an error of every call; the next packet to seal revives it.
            if let TunnResult::WriteToNetwork(message) =
                tunnel.tunn.update_timers(&mut self.scratch)
                && let Some(to) = tunnel.status.endpoint
            {
                out.transmit(Some(PeerId(number as u16)), to, message);
            }
            tunnel.look_for_session();
        }
        self.due = next;
        next
    }

    fn deadline(&self) -> Option<Instant> {
        self.due
    }

    fn set_endpoint(&mut self, peer: PeerId, endpoint: SocketAddr) {
        if let Some(Some(tunnel)) = self.peers.get_mut(usize::from(peer.0)) {
            tunnel.status.endpoint = Some(endpoint);
        }
    }

    fn status(&self, peer: PeerId) -> Option<Status> {
        let tunnel = self.peers.get(usize::from(peer.0))?.as_ref()?;
        Some(tunnel.status)
    }
}

impl Tunnel {
    /// Opens a data message into its own bytes.
    fn receive_data<'a>(
        &mut self,
        now: Instant,
        id: PeerId,
        source: SocketAddr,
        datagram: &'a mut [u8],
        receiver: Option<u32>,
        scratch: &mut [u8],
    ) -> Received<'a> {
        // `decapsulate` panics where the destination is shorter than the ciphertext: here it is the
        // datagram itself, which is longer by the header.
        let Some(copy) = scratch.get_mut(..datagram.len()) else {
            return Received::Refused(Refusal::Malformed);
        };
        copy.copy_from_slice(datagram);
        let received = match self.tunn.decapsulate(Some(source.ip()), copy, datagram) {
            TunnResult::WriteToTunnelV4(plaintext, _)
            | TunnResult::WriteToTunnelV6(plaintext, _) => Received::Packet {
                peer: id,
                plaintext,
            },
            TunnResult::Done => Received::Keepalive { peer: id },
            TunnResult::Err(error) => return Received::Refused(refusal(&error)),
            TunnResult::WriteToNetwork(_) => return Received::Refused(Refusal::Malformed),
        };
        self.heard(now, source);
        if self.unconfirmed.is_some() && self.unconfirmed == receiver {
            self.unconfirmed = None;
            self.established(now);
        }
        received
    }

    /// Handles an initiation, a response or a cookie, and sends what `Tunn` has to say to it.
    fn receive_handshake<'a>(
        &mut self,
        now: Instant,
        id: PeerId,
        source: SocketAddr,
        datagram: &[u8],
        scratch: &mut [u8],
        out: &mut dyn Transmit,
    ) -> Received<'a> {
        let is_cookie = datagram.first() == Some(&COOKIE_TYPE);
        match self.tunn.decapsulate(Some(source.ip()), datagram, scratch) {
            TunnResult::WriteToNetwork(answer) => {
                let kind = answer.first().copied().unwrap_or_default();
                if kind == COOKIE_TYPE {
                    out.transmit(None, source, answer);
                    return Received::Refused(Refusal::HandshakeRate);
                }
                if let Ok(Packet::HandshakeResponse(_)) = Tunn::parse_incoming_packet(answer) {
                    let index = answer.get(4..8).and_then(|bytes| bytes.try_into().ok());
                    self.unconfirmed = index.map(u32::from_le_bytes);
                } else {
                    self.established(now);
                }
                out.transmit(Some(id), source, answer);
            }
            TunnResult::Err(error) => return Received::Refused(refusal(&error)),
            _ => {}
        }
        // The queue holds nothing but keepalives that fell due without a session; empty it all the same.
        for _ in 0..MAX_ANSWERS {
            let TunnResult::WriteToNetwork(more) = self.tunn.decapsulate(None, &[], scratch) else {
                break;
            };
            out.transmit(Some(id), source, more);
        }
        if !is_cookie {
            self.heard(now, source);
        }
        Received::Control { peer: Some(id) }
    }

    /// Whether to ask for a handshake. `Tunn` forgets its own initiation when another one follows, and
    /// takes none for under way once it has answered the peer's: asked again then, two peers that start
    /// at once are deaf until the retry after 5 s.
    fn may_ask(&mut self, now: Instant) -> bool {
        let recent = |asked| now.saturating_duration_since(asked) < REKEY_TIMEOUT;
        let may = !self.asked.is_some_and(recent);
        if may {
            self.asked = Some(now);
        }
        may
    }

    /// An authenticated message came from `source`.
    fn heard(&mut self, now: Instant, source: SocketAddr) {
        self.status.endpoint = Some(source);
        self.status.last_received = Some(now);
        if !self.status.has_session {
            self.look_for_session();
        }
    }

    /// A handshake is complete on both sides.
    fn established(&mut self, now: Instant) {
        self.status.handshakes += 1;
        self.status.last_handshake = Some(now);
        self.asked = None;
        self.look_for_session();
    }

    /// Asks `Tunn` for a session. This reads the clock, so it is asked only when the answer can change.
    fn look_for_session(&mut self) {
        self.status.has_session = self.tunn.time_since_last_handshake().is_some();
    }
}

/// Our word for boringtun's error.
fn refusal(error: &WireGuardError) -> Refusal {
    match error {
        WireGuardError::WrongIndex | WireGuardError::NoCurrentSession => Refusal::UnknownIndex,
        WireGuardError::InvalidCounter | WireGuardError::DuplicateCounter => Refusal::Replay,
        WireGuardError::InvalidAeadTag => Refusal::Authentication,
        WireGuardError::UnderLoad => Refusal::HandshakeRate,
        WireGuardError::InvalidPacket => Refusal::Malformed,
        _ => Refusal::Handshake,
    }
}

impl std::fmt::Debug for Endpoint {
    /// Without the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("peers", &self.by_key.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
