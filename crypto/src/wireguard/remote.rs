//! One far end: its keys, its address, its sessions, and the handshake under way with it.

use super::handshake::{Call, Initiator, Responder, TransportKeys};
use super::keyring::{Gone, Keyring, Waiting};
use super::local::Local;
use super::mac::MacKeys;
use super::message::Train;
use super::message::{self, DATA_OVERHEAD};
use super::noise::{Agreed, Known};
use super::schedule::Scheduled;
use super::session::{Agreement, Session};
use super::timer::{
    CALL_INTERVAL, CONFIRM_TIMEOUT, COOKIE_USE_TIME, REKEY_TIMEOUT, Timers, earlier, is_due,
};
use super::timestamp::{TIMESTAMP_LEN, Timestamp};
use crate::key::{KEY_LEN, PublicKey};
use crate::limiter::Cookie;
use crate::tunnel::{Peer, PeerId, Refusal, SealError, Status, Transmit};
use std::net::SocketAddr;
use std::time::Instant;
use zeroize::Zeroizing;

/// See the module.
pub(super) struct Remote {
    id: PeerId,
    pub(super) public_key: PublicKey,
    preshared_key: Zeroizing<[u8; KEY_LEN]>,
    /// What both static keys agree on; known from the first initiation on.
    agreed: Option<Agreed>,
    /// What we write into our handshake messages, and open its cookies with.
    macs: MacKeys,
    endpoint: Option<SocketAddr>,
    keyring: Keyring,
    /// Our initiation that waits for its response.
    pending: Option<Pending>,
    /// When the last initiation went out, answered or not.
    last_initiation: Option<Instant>,
    /// mac1 of our last handshake message: a cookie is bound to it.
    last_mac1: Option<[u8; 16]>,
    cookie: Option<(Cookie, Instant)>,
    /// The newest timestamp of its initiations: older ones are replays.
    newest_call: Timestamp,
    last_call: Option<Instant>,
    timers: Timers,
    /// When [`Remote::poll`] is called next.
    pub(super) scheduled: Scheduled,
    handshakes: u64,
    last_received: Option<Instant>,
}

struct Pending {
    local_index: u32,
    initiator: Initiator,
}

/// Why an initiation is to be sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// There is something to say: the time for vain attempts starts anew.
    Traffic,
    /// The one before was not answered.
    Retry,
}

/// What a data message turned out to be.
pub(super) enum Opened<'a> {
    Packet(&'a mut [u8]),
    Keepalive,
}

impl Remote {
    pub(super) fn new(now: Instant, id: PeerId, peer: &Peer) -> Self {
        let public_key = PublicKey(peer.public_key);
        Self {
            id,
            public_key,
            preshared_key: peer.preshared_key.clone(),
            agreed: None,
            macs: MacKeys::of(&public_key),
            endpoint: peer.endpoint,
            keyring: Keyring::default(),
            pending: None,
            last_initiation: None,
            last_mac1: None,
            cookie: None,
            newest_call: [0; TIMESTAMP_LEN],
            last_call: None,
            timers: Timers::new(now, peer.keepalive, peer.retry),
            scheduled: Scheduled::default(),
            handshakes: 0,
            last_received: None,
        }
    }

    pub(super) fn status(&self) -> Status {
        Status {
            endpoint: self.endpoint,
            last_handshake: self.keyring.current_since(),
            last_received: self.last_received,
            handshaking: self.timers.unanswered_since,
            called: self.keyring.next_since(),
            has_session: self.keyring.current_since().is_some(),
            handshakes: self.handshakes,
        }
    }

    /// Where the peer is from now on, as somebody else has found out.
    pub(super) fn set_endpoint(&mut self, endpoint: SocketAddr) {
        self.endpoint = Some(endpoint);
    }

    /// The next moment at which [`Remote::poll`] has work.
    pub(super) fn deadline(&self) -> Option<Instant> {
        earlier(self.timers.earliest(), self.keyring.first_expiry())
    }

    /// Gives back all indices; the rest goes with the value.
    pub(super) fn dissolve(mut self, local: &mut Local) {
        release(local, self.keyring.take_all());
        self.drop_pending(local);
    }

    // Data

    /// Seals a train. Gives where to send it, and the deadline that was armed if one was.
    #[inline]
    pub(super) fn seal(
        &mut self,
        local: &mut Local,
        now: Instant,
        train: &mut Train,
        out: &mut dyn Transmit,
    ) -> (Result<SocketAddr, SealError>, Option<Instant>) {
        let usable = self
            .keyring
            .current()
            .filter(|session| session.can_seal(now, train.len()));
        let (Some(session), Some(endpoint)) = (usable, self.endpoint) else {
            self.initiate(local, now, Reason::Traffic, out);
            return (Err(SealError::NoSession), self.deadline());
        };
        session.seal_train(train);
        let renew = session.wants_renewal_after_sending(now);
        let mut armed = self.timers.data_sent(now);
        if renew {
            self.initiate(local, now, Reason::Traffic, out);
            armed = self.deadline();
        }
        (Ok(endpoint), armed)
    }

    /// Opens a data message: window, tag, window again, then the session's turn, then the endpoint.
    /// Gives the deadline that was armed, if one was.
    #[inline]
    pub(super) fn open<'a>(
        &mut self,
        local: &mut Local,
        now: Instant,
        source: SocketAddr,
        (index, counter, sealed): (u32, u64, &'a mut [u8]),
        out: &mut dyn Transmit,
    ) -> Result<(Opened<'a>, Option<Instant>), Refusal> {
        let session = self
            .keyring
            .find(index)
            .filter(|session| !session.is_expired(now))
            .ok_or(Refusal::UnknownIndex)?;
        let packet = session.open(counter, sealed)?;
        let mut armed = None;
        if self.keyring.is_next(index) {
            self.confirm(local);
            armed = self.deadline();
        }
        self.endpoint = Some(source);
        self.last_received = Some(now);
        let opened = if packet.is_empty() {
            self.timers.own_received(now);
            Opened::Keepalive
        } else {
            armed = earlier(armed, self.timers.data_received(now));
            Opened::Packet(packet)
        };
        let renew = self
            .keyring
            .current()
            .is_some_and(|session| session.wants_renewal_after_receiving(now));
        if renew {
            self.initiate(local, now, Reason::Traffic, out);
            armed = self.deadline();
        }
        Ok((opened, armed))
    }

    /// The initiator has shown that it has the keys: what waited is in use. An initiation of our own is not
    /// repeated now, but its response is still read: handshakes are read after data, so it may be here already.
    fn confirm(&mut self, local: &mut Local) {
        release(local, [self.keyring.confirm()]);
        self.handshakes += 1;
        self.timers.session_in_use();
    }

    // Handshakes

    /// Sends an initiation, if one may be sent; else sees to it that one is sent when it may.
    fn initiate(
        &mut self,
        local: &mut Local,
        now: Instant,
        reason: Reason,
        out: &mut dyn Transmit,
    ) {
        let Some(endpoint) = self.endpoint else {
            return;
        };
        if reason == Reason::Traffic {
            self.timers.trying_since = Some(now);
        }
        // Not twice within REKEY_TIMEOUT; and not while the peer's own handshake is about to end: one is
        // enough. But that is waited for once only, or whoever plays old initiations could keep us from ours.
        let last = self.last_initiation.map(|last| last + REKEY_TIMEOUT);
        let answered = self.keyring.next_since().map(|at| at + CONFIRM_TIMEOUT);
        let wait_until = [last, answered.filter(|_| reason == Reason::Traffic)]
            .into_iter()
            .flatten()
            .filter(|allowed| *allowed > now)
            .max();
        if let Some(allowed) = wait_until {
            self.timers.start_handshake_at(allowed);
            return;
        }
        self.last_initiation = Some(now);
        self.timers.initiated(now, local.jitter());
        // No random bytes or no index: the timer tries again.
        let Some(message) = self.write_initiation(local, now) else {
            return;
        };
        self.timers.own_sent(now);
        out.transmit(Some(self.id), endpoint, &message);
    }

    fn write_initiation(
        &mut self,
        local: &mut Local,
        now: Instant,
    ) -> Option<[u8; message::INITIATION_LEN]> {
        self.drop_pending(local);
        let timestamp = local.calendar.timestamp();
        if self.agreed.is_none() {
            self.agreed = Agreed::between(local.private_key.as_bytes(), &self.public_key.0);
        }
        let known = Known {
            public: local.public_key.0,
            agreed: self.agreed.clone(),
        };
        let (initiator, noise) = Initiator::write_initiation(
            &local.pattern,
            (&local.private_key, Some(known)),
            &self.public_key,
            &self.preshared_key,
            &timestamp,
        )
        .ok()?;
        let local_index = local.claim_index(self.id)?;
        self.pending = Some(Pending {
            local_index,
            initiator,
        });
        let mut message = message::initiation(local_index, &noise);
        self.write_macs(now, &mut message);
        Some(message)
    }

    fn write_macs(&mut self, now: Instant, message: &mut [u8]) {
        let cookie = self
            .cookie
            .filter(|(_, received)| now < *received + COOKIE_USE_TIME)
            .map(|(cookie, _)| cookie);
        self.last_mac1 = Some(self.macs.write(message, cookie.as_ref()));
    }

    /// An initiation of this peer has been read: answers it, unless it is a replay or too soon.
    ///
    /// The answer goes to where it came from, and that is all. After a restart of ours nothing tells an old
    /// initiation that somebody plays once more from a new one, so it moves no endpoint and touches no timer. Only
    /// who can read the answer can go on, and [`Remote::open`] sees from where.
    pub(super) fn answer(
        &mut self,
        local: &mut Local,
        now: Instant,
        source: SocketAddr,
        (remote_index, responder, call): (u32, Responder, Call),
        out: &mut dyn Transmit,
    ) -> Result<(), Refusal> {
        if call.timestamp <= self.newest_call {
            return Err(Refusal::Handshake);
        }
        if self
            .last_call
            .is_some_and(|last| now < last + CALL_INTERVAL)
        {
            return Err(Refusal::HandshakeRate);
        }
        self.newest_call = call.timestamp;
        self.timers.jitter = local.jitter();
        self.last_call = Some(now);
        let (keys, noise) = responder
            .write_response(&self.preshared_key)
            .map_err(|_| Refusal::Handshake)?;
        let local_index = local.claim_index(self.id).ok_or(Refusal::Handshake)?;
        let Some(session) = session(now, local_index, remote_index, &keys, false) else {
            local.indices.release(local_index);
            return Err(Refusal::Handshake);
        };
        release(local, [self.keyring.answered(session)]);
        let mut message = message::response(local_index, remote_index, &noise);
        self.write_macs(now, &mut message);
        out.transmit(Some(self.id), source, &message);
        Ok(())
    }

    /// Reads the response to our initiation. The session is in use at once; a keepalive on it tells the
    /// peer so, since packets that wait for the session are not with us.
    pub(super) fn read_response(
        &mut self,
        local: &mut Local,
        now: Instant,
        source: SocketAddr,
        datagram: &[u8],
        out: &mut dyn Transmit,
    ) -> Result<(), Refusal> {
        let (Some(receiver), Some(remote_index), Some(noise)) = (
            message::receiver_index(datagram),
            message::sender_index(datagram),
            message::noise_of_response(datagram),
        ) else {
            return Err(Refusal::Malformed);
        };
        let pending = self
            .pending
            .as_mut()
            .filter(|pending| pending.local_index == receiver)
            .ok_or(Refusal::UnknownIndex)?;
        let keys = pending
            .initiator
            .read_response(noise)
            .map_err(|_| Refusal::Handshake)?;
        let session =
            session(now, receiver, remote_index, &keys, true).ok_or(Refusal::Handshake)?;
        // Its index lives on in the session.
        self.pending = None;
        let waiting = self.waiting(local);
        release(local, self.keyring.begun(session, waiting));
        self.endpoint = Some(source);
        self.last_received = Some(now);
        self.handshakes += 1;
        self.timers.own_received(now);
        self.timers.session_in_use();
        self.send_keepalive(local, now, out);
        Ok(())
    }

    /// Which of two sessions stays if the peer's initiation and ours crossed: the one that the end with the
    /// smaller public key began. One that was answered before we began has been given up instead.
    fn waiting(&self, local: &Local) -> Waiting {
        let crossed = self.keyring.next_since() >= self.last_initiation;
        if crossed && self.public_key < local.public_key {
            Waiting::Stays
        } else {
            Waiting::Retires
        }
    }

    /// Whether a response with this receiver index is waited for.
    pub(super) fn awaits(&self, index: u32) -> bool {
        self.pending
            .as_ref()
            .is_some_and(|pending| pending.local_index == index)
    }

    /// Takes a cookie for our next handshake messages. It is not answered at once: [`REKEY_TIMEOUT`] holds.
    pub(super) fn read_cookie(&mut self, now: Instant, datagram: &[u8]) -> Result<(), Refusal> {
        let mac1 = self.last_mac1.ok_or(Refusal::Handshake)?;
        let cookie = self
            .macs
            .open_cookie_reply(datagram, &mac1)
            .ok_or(Refusal::Handshake)?;
        self.cookie = Some((cookie, now));
        // One cookie for one message: the same reply again is a replay.
        self.last_mac1 = None;
        Ok(())
    }

    fn drop_pending(&mut self, local: &mut Local) {
        if let Some(pending) = self.pending.take() {
            local.indices.release(pending.local_index);
        }
    }

    // Time

    /// Runs what is due.
    pub(super) fn poll(&mut self, local: &mut Local, now: Instant, out: &mut dyn Transmit) {
        release(local, self.keyring.expired(now));
        if is_due(self.timers.handshake, now) {
            self.timers.handshake = None;
            self.try_again(local, now, out);
        }
        if is_due(self.timers.deaf, now) {
            self.timers.deaf = None;
            self.initiate(local, now, Reason::Traffic, out);
        }
        if is_due(self.timers.passive, now) {
            self.timers.passive = None;
            self.send_keepalive(local, now, out);
            self.timers.passive_done(now);
        }
        if is_due(self.timers.persistent, now) {
            self.timers.own_sent(now);
            if !self.send_keepalive(local, now, out) {
                self.initiate(local, now, Reason::Traffic, out);
            }
        }
    }

    /// One more initiation; or none after REKEY_ATTEMPT_TIME, until there is traffic.
    fn try_again(&mut self, local: &mut Local, now: Instant, out: &mut dyn Transmit) {
        if self.timers.gives_up(now) {
            self.drop_pending(local);
            self.timers.trying_since = None;
            return;
        }
        self.initiate(local, now, Reason::Retry, out);
    }

    /// Sends an empty packet. False if there is no session or no address to send it to.
    fn send_keepalive(&mut self, local: &mut Local, now: Instant, out: &mut dyn Transmit) -> bool {
        let usable = self
            .keyring
            .current()
            .filter(|session| session.can_seal(now, 1));
        let (Some(session), Some(endpoint)) = (usable, self.endpoint) else {
            return false;
        };
        let mut datagram = [0; DATA_OVERHEAD];
        session.seal(&mut datagram);
        let renew = session.wants_renewal_after_sending(now);
        self.timers.own_sent(now);
        out.transmit(Some(self.id), endpoint, &datagram);
        if renew {
            self.initiate(local, now, Reason::Traffic, out);
        }
        true
    }
}

fn session(
    now: Instant,
    local_index: u32,
    remote_index: u32,
    keys: &TransportKeys,
    initiator: bool,
) -> Option<Box<Session>> {
    let (to, from) = (&keys.initiator_to_responder, &keys.responder_to_initiator);
    let (sending, receiving) = if initiator { (to, from) } else { (from, to) };
    Session::new(
        now,
        &Agreement {
            local_index,
            remote_index,
            sending,
            receiving,
            initiator,
        },
    )
}

fn release<const N: usize>(local: &mut Local, gone: [Gone; N]) {
    for session in gone.into_iter().flatten() {
        local.indices.release(session.local_index);
    }
}
