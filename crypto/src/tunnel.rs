//! The seam between the gateway and a tunnel engine. The gateway owns sockets, packets and the clock;
//! the engine owns keys, sessions, counters and timers.
//!
//! An [`Endpoint`] is all tunnels of one worker: one value, one owner, `&mut self`, no lock. A data
//! packet costs no allocation and no clock read; handshakes may allocate.

use crate::key::PrivateKey;
use crate::train::{Layout, Train};
use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Index of a peer in its endpoint. That of a peer that has gone may be another's later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u16);

/// One far end.
#[derive(Clone, Debug)]
pub struct Peer {
    /// X25519 public key.
    pub public_key: [u8; 32],
    /// Symmetric key mixed into the handshake; zeros where there is none.
    pub preshared_key: Zeroizing<[u8; 32]>,
    /// Where to send before the peer has been heard; `None` waits for it to call.
    pub endpoint: Option<SocketAddr>,
    /// Persistent keepalive; `None`: off.
    pub keepalive: Option<Duration>,
    /// How often a handshake is tried again once it has been given up (REKEY_ATTEMPT_TIME), for whoever takes
    /// its traffic elsewhere meanwhile and wants to know when it is back. `None`: not before there is traffic.
    pub retry: Option<Duration>,
    /// MTU of the tunnel in bytes of the inner packet; padding stops there.
    pub mtu: u16,
}

/// Why a datagram from the underlay was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// None of the protocol's messages.
    Malformed,
    /// A receiver index that no session has.
    UnknownIndex,
    /// Seen before or older than the window.
    Replay,
    /// The tag does not hold.
    Authentication,
    /// A handshake message whose MAC, key, order or timestamp does not hold.
    Handshake,
    /// Beyond what its source may send; a cookie was asked for, or nothing said.
    HandshakeRate,
    /// A valid key that no peer has.
    UnknownPeer,
}

/// What became of a datagram from the underlay.
#[derive(Debug)]
pub enum Received<'a> {
    /// A data message of `peer`, opened in place: the inner packet with its padding.
    Packet {
        /// Who sent it.
        peer: PeerId,
        /// IP packet and padding, inside the datagram's own bytes.
        plaintext: &'a mut [u8],
    },
    /// A keepalive of `peer`.
    Keepalive {
        /// Who sent it.
        peer: PeerId,
    },
    /// A handshake or cookie message, handled; `peer` where it is known by now.
    Control {
        /// Who sent it.
        peer: Option<PeerId>,
    },
    /// An initiation of nobody who is known here, with all its costs paid: for the endpoint that knows the
    /// caller, to be continued by [`Endpoint::answer`].
    Foreign(Call),
    /// Dropped.
    Refused(Refusal),
}

/// An initiation that has been read and is still to be answered.
pub struct Call {
    /// Who sent it, by the datagram's source.
    pub source: SocketAddr,
    /// What the engine needs to go on.
    pub(crate) state: Box<dyn Any + Send>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// Whether a datagram may be one of the two messages of a handshake: these are costly to read, and can wait
/// behind data.
#[inline]
pub fn is_handshake(datagram: &[u8]) -> bool {
    matches!(datagram, [1 | 2, ..])
}

/// Why a train could not be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// No session: a handshake is under way (or has been asked for); keep the packets and come back.
    NoSession,
    /// The peer is not known to the engine.
    UnknownPeer,
}

/// What a tunnel looks like from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Where datagrams of the peer are sent; changes only after one authenticated from there.
    pub endpoint: Option<SocketAddr>,
    /// When the session in use was established.
    pub last_handshake: Option<Instant>,
    /// When an authenticated message last came in.
    pub last_received: Option<Instant>,
    /// Since when handshakes have gone unanswered, also after they have been given up; `None` once one has
    /// been completed, and while nobody has asked for any.
    pub handshaking: Option<Instant>,
    /// When an initiation of the peer was answered, while nothing has come yet on the session that it asked for.
    /// The peer is about to use it, or somebody has played an old initiation once more.
    pub called: Option<Instant>,
    /// Whether packets can be sealed now.
    pub has_session: bool,
    /// Handshakes completed since the peer was added.
    pub handshakes: u64,
}

/// Where the engine's own messages go: handshakes, cookies, keepalives.
pub trait Transmit {
    /// One datagram of the engine's own, for `peer` where it belongs to one, to `to`.
    fn transmit(&mut self, peer: Option<PeerId>, to: SocketAddr, datagram: &[u8]);
}

impl<F: FnMut(Option<PeerId>, SocketAddr, &[u8])> Transmit for F {
    fn transmit(&mut self, peer: Option<PeerId>, to: SocketAddr, datagram: &[u8]) {
        self(peer, to, datagram);
    }
}

/// All tunnels of one worker behind one UDP port. `now` only moves forward.
pub trait Endpoint {
    /// What it puts around each packet; trains are laid out for it.
    type Layout: Layout;

    /// Adds a far end. Its index says nothing about it to others. `None`: the key is known already, is
    /// not a valid one, or there are too many.
    fn add_peer(&mut self, now: Instant, peer: &Peer) -> Option<PeerId>;

    /// Takes another private key. Far ends must be added anew for it: what they have agreed on was for the old
    /// one, and so is what they would answer.
    fn set_private_key(&mut self, private_key: &PrivateKey);

    /// Forgets a far end and wipes its keys. Its [`PeerId`] may be given to one that is added later; nothing
    /// that was sent to the old one reaches the new one.
    fn remove_peer(&mut self, peer: PeerId);

    /// Handles one datagram from `source`, in place, whatever it is: a message of a handshake as by
    /// [`Endpoint::screen`] and [`Endpoint::shake_hands`]. Answers go to `out`. A data message moves the
    /// peer's endpoint to `source` once it has authenticated.
    fn receive<'a>(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &'a mut [u8],
        out: &mut dyn Transmit,
    ) -> Received<'a>;

    /// The cheap part of receiving a message of a handshake ([`is_handshake`]): its form, its mac1, and what its
    /// source may spend. `Ok`: it is worth [`Endpoint::shake_hands`], now or a little later.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] unless it is an initiation or a response, [`Refusal::Handshake`] if its mac1 does not
    /// hold, [`Refusal::UnknownIndex`] for a response that nobody waits for, [`Refusal::HandshakeRate`] beyond what
    /// its source may spend, whether or not a cookie went out to it.
    fn screen(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &[u8],
        out: &mut dyn Transmit,
    ) -> Result<(), Refusal>;

    /// The costly part, for a message that [`Endpoint::screen`] has let pass.
    fn shake_hands<'a>(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &'a mut [u8],
        out: &mut dyn Transmit,
    ) -> Received<'a>;

    /// Answers a call that another endpoint with the same key has read. It is given back if nobody here knows
    /// the caller either.
    fn answer(&mut self, now: Instant, call: Call, out: &mut dyn Transmit) -> Received<'static>;

    /// Seals every slot of `train` for `peer`, in place and in order, and says where to send it.
    /// On `NoSession` the train is untouched and a handshake is started through `out` if none is under way.
    ///
    /// # Errors
    /// [`SealError::NoSession`], also while it is not known where the peer is; [`SealError::UnknownPeer`].
    fn seal(
        &mut self,
        now: Instant,
        peer: PeerId,
        train: &mut Train<Self::Layout>,
        out: &mut dyn Transmit,
    ) -> Result<SocketAddr, SealError>;

    /// Runs what is due: handshakes, their retries, keepalives, expiry. Returns [`Endpoint::deadline`];
    /// calling earlier is harmless.
    fn poll(&mut self, now: Instant, out: &mut dyn Transmit) -> Option<Instant>;

    /// When to call [`Endpoint::poll`] at the latest. Every call may bring it forward: what was sent or
    /// received arms timers. So it is to be read after the last call before a sleep, and never kept.
    fn deadline(&self) -> Option<Instant>;

    /// Sends what is for `peer` to this address from now on, until it is heard from another.
    fn set_endpoint(&mut self, peer: PeerId, endpoint: SocketAddr);

    /// What `peer` looks like now.
    fn status(&self, peer: PeerId) -> Option<Status>;
}
