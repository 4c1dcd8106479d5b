//! Handshakes, behind data: screened as they come, and read a few at the end of each round.

use super::{Outbox, Tunnels, reason_of};
use crate::device::sink::TrainSink;
use crypto::tunnel::{Call, Endpoint, Received};
use crypto::wireguard::INITIATION_LEN;
use routing::reason::DropReason;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Messages of handshakes that wait for the end of a round.
const MAX_HANDSHAKES: usize = 64;
/// How many of them a round has time for: half a millisecond.
const HANDSHAKES: usize = 2;
/// How many messages of handshakes are looked at in a round; and how many of them while more comes in than is
/// read, so that what is too much is thrown away at the least cost.
const SCREENED: usize = 64;
const SCREENED_BEHIND: usize = 4;
/// A handshake that waits for the end of the round.
enum Handshake {
    /// A message that has been let in.
    Message {
        source: SocketAddr,
        /// The address of this machine that it was sent to.
        local: Option<IpAddr>,
        bytes: [u8; INITIATION_LEN],
        length: usize,
    },
    /// A call that another worker has read.
    Call {
        call: Call,
        local: Option<IpAddr>,
        length: u64,
    },
}

impl Handshake {
    fn local(&self) -> Option<IpAddr> {
        match self {
            Self::Message { local, .. } | Self::Call { local, .. } => *local,
        }
    }
}

/// Those that wait, and how many more are looked at.
pub(super) struct Handshakes {
    waiting: VecDeque<Handshake>,
    /// Since when there has been one.
    since: Option<Instant>,
    /// Messages that may still be looked at in this round.
    screens: usize,
    /// More has come in than was read, for some rounds now.
    behind: bool,
    /// Calls for other workers, with the address that they were sent to and the length of their datagrams.
    foreign: VecDeque<(Call, Option<IpAddr>, u64)>,
}

impl Default for Handshakes {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            since: None,
            screens: SCREENED,
            behind: false,
            foreign: VecDeque::new(),
        }
    }
}

impl Handshakes {
    /// When the end of a round is wanted: at once, if some wait.
    #[inline]
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    fn keep(&mut self, now: Instant, handshake: Handshake) -> Result<(), DropReason> {
        if self.waiting.len() >= MAX_HANDSHAKES {
            return Err(DropReason::TunnelHandshakeRate);
        }
        self.waiting.push_back(handshake);
        self.since.get_or_insert(now);
        Ok(())
    }
}

impl<E: Endpoint, U: TrainSink> Tunnels<E, U> {
    /// Says whether more comes in than is read. Data that waits in the socket behind a flood of handshakes is
    /// reached the sooner the less each of them costs.
    #[inline]
    pub fn set_behind(&mut self, behind: bool) {
        self.handshakes.behind = behind;
    }

    /// Does what is cheap about a message of a handshake, and keeps it for the end of the round if it is let in.
    pub(super) fn screen(
        &mut self,
        now: Instant,
        (source, local): (SocketAddr, Option<IpAddr>),
        datagram: &[u8],
    ) {
        let Some(left) = self.handshakes.screens.checked_sub(1) else {
            self.refuse(DropReason::TunnelHandshakeRate, datagram.len() as u64);
            return;
        };
        self.handshakes.screens = left;
        let Self {
            endpoint,
            underlay,
            sites,
            ledger,
            ..
        } = self;
        let mut out = Outbox {
            underlay,
            sites,
            ledger,
            local,
        };
        let mut bytes = [0; INITIATION_LEN];
        let length = datagram.len();
        let kept = match endpoint.screen(now, source, datagram, &mut out) {
            Err(refusal) => Err(reason_of(refusal)),
            Ok(()) => match bytes.get_mut(..length) {
                None => Err(DropReason::TunnelMalformed),
                Some(room) => {
                    room.copy_from_slice(datagram);
                    let message = Handshake::Message {
                        source,
                        local,
                        bytes,
                        length,
                    };
                    self.handshakes.keep(now, message)
                }
            },
        };
        if let Err(reason) = kept {
            self.refuse(reason, length as u64);
        }
    }

    /// Takes a call that another worker has read; false if there are too many.
    pub fn take_call(
        &mut self,
        now: Instant,
        call: Call,
        local: Option<IpAddr>,
        length: u64,
    ) -> bool {
        let call = Handshake::Call {
            call,
            local,
            length,
        };
        self.handshakes.keep(now, call).is_ok()
    }

    /// The next call of nobody who is known here, the address that it was sent to, and the length of its
    /// datagram, which is not booked: for the next worker.
    #[inline]
    pub fn take_foreign(&mut self) -> Option<(Call, Option<IpAddr>, u64)> {
        self.handshakes.foreign.pop_front()
    }

    /// At the end of a round: a few of the handshakes that wait.
    #[inline]
    pub(super) fn shake_hands(&mut self, now: Instant) {
        self.handshakes.screens = if self.handshakes.behind {
            SCREENED_BEHIND
        } else {
            SCREENED
        };
        if self.handshakes.since.is_some() {
            self.shake_some(now);
        }
    }

    #[cold]
    fn shake_some(&mut self, now: Instant) {
        for _ in 0..HANDSHAKES {
            let Some(handshake) = self.handshakes.waiting.pop_front() else {
                break;
            };
            let Self {
                endpoint,
                underlay,
                sites,
                ledger,
                ..
            } = self;
            let local = handshake.local();
            let mut out = Outbox {
                underlay,
                sites,
                ledger,
                local,
            };
            match handshake {
                Handshake::Message {
                    source,
                    mut bytes,
                    length,
                    ..
                } => {
                    let datagram = bytes.get_mut(..length).unwrap_or_default();
                    let received = endpoint.shake_hands(now, source, datagram, &mut out);
                    self.conclude(now, received, (local, length as u64));
                }
                Handshake::Call { call, length, .. } => {
                    let received = endpoint.answer(now, call, &mut out);
                    self.conclude(now, received, (local, length));
                }
            }
        }
        // What is left has waited for this round already.
        if self.handshakes.waiting.is_empty() {
            self.handshakes.since = None;
        }
    }

    fn conclude(
        &mut self,
        now: Instant,
        received: Received<'_>,
        (local, length): (Option<IpAddr>, u64),
    ) {
        match received {
            Received::Foreign(call) if !self.is_last => {
                self.handshakes.foreign.push_back((call, local, length));
            }
            other => self.settle(now, &other, length),
        }
    }

    /// Drops those that still wait.
    pub(super) fn drop_handshakes(&mut self) {
        for handshake in std::mem::take(&mut self.handshakes.waiting) {
            let length = match handshake {
                Handshake::Message { length, .. } => length as u64,
                Handshake::Call { length, .. } => length,
            };
            self.refuse(DropReason::Shutdown, length);
        }
        for (_, _, length) in std::mem::take(&mut self.handshakes.foreign) {
            self.refuse(DropReason::Shutdown, length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Arrival, Underlay};
    use super::*;
    use crate::device::udp::{PeerPath, SendOutcome};
    use crate::telemetry::ledger::{Ledger, Totals};
    use crypto::key::{PrivateKey, PublicKey};
    use crypto::limiter::{Limiter, Limits};
    use crypto::tunnel::{Peer, PeerId};
    use crypto::wireguard;
    use crypto::wireguard::Train;
    use routing::path::PathId;
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::time::SystemTime;
    use zeroize::Zeroizing;

    /// Keeps what is sent.
    #[derive(Clone, Debug, Default)]
    struct Sent(Rc<RefCell<Vec<Vec<u8>>>>);

    impl TrainSink for Sent {
        fn send_train_by(
            &self,
            _: &PeerPath,
            _: &SocketAddr,
            bytes: &[u8],
            _: usize,
            _: u8,
        ) -> SendOutcome {
            self.0.borrow_mut().push(bytes.to_vec());
            SendOutcome {
                sent: 1,
                ..SendOutcome::default()
            }
        }
    }

    /// Somebody with a key of its own who wants to talk to `near`.
    fn caller(now: Instant, key: PrivateKey, near: PublicKey) -> (wireguard::Endpoint, PeerId) {
        let limiter = Arc::new(Limiter::new(now, Limits::default()).unwrap());
        let mut caller = wireguard::Endpoint::new(key, limiter, 0, Arc::new(SystemTime::now));
        let id = caller.add_peer(now, &peer(near, Some(address(1)))).unwrap();
        (caller, id)
    }

    fn peer(key: PublicKey, endpoint: Option<SocketAddr>) -> Peer {
        Peer {
            public_key: key.0,
            preshared_key: Zeroizing::default(),
            endpoint,
            keepalive: None,
            retry: None,
            mtu: 1420,
        }
    }

    fn address(n: u32) -> SocketAddr {
        (std::net::Ipv4Addr::from_bits(0xC612_0000 + n), 4500).into()
    }

    /// What a caller sends for a packet of this length, 0 for none.
    fn call(
        now: Instant,
        (caller, id): &mut (wireguard::Endpoint, PeerId),
        length: usize,
    ) -> Vec<u8> {
        let mut train = Train::new(1420);
        if length > 0 {
            train.push(length).unwrap().fill(0x45);
        }
        let mut out = Vec::new();
        let mut own = |_: Option<PeerId>, _: SocketAddr, bytes: &[u8]| out = bytes.to_vec();
        match caller.seal(now, *id, &mut train, &mut own) {
            Ok(_) => train.bytes().to_vec(),
            Err(_) => out,
        }
    }

    #[test]
    fn data_comes_before_handshakes_and_a_round_reads_few_of_them() {
        let now = Instant::now();
        let [near, far] = [(); 2].map(|()| PrivateKey::generate().unwrap());
        let near_key = near.public_key();
        let limits = Limits {
            total_rate: 1000,
            total_burst: 1000,
            ..Limits::default()
        };
        let limiter = Arc::new(Limiter::new(now, limits).unwrap());
        let engine = wireguard::Endpoint::new(near, limiter, 0, Arc::new(SystemTime::now));
        let sent = Sent::default();
        let underlay = Underlay {
            v4: Some(sent.clone()),
            v6: None,
        };
        let ledger = Arc::new(Ledger::new(8));
        let mut tunnels = Tunnels::new(engine, underlay, Arc::clone(&ledger), now, true);
        let site = peer(far.public_key(), None);
        assert!(tunnels.add(now, PathId(0), &site, Arc::default()));
        let mut far = caller(now, far, near_key);
        let mut initiation = call(now, &mut far, 0);
        tunnels.receive(now, (address(0), None), &mut initiation);
        tunnels.poll(now);
        let mut response = sent.0.borrow_mut().pop().unwrap();
        let mut confirmation = Vec::new();
        far.0.receive(
            now,
            address(1),
            &mut response,
            &mut |_: Option<PeerId>, _: SocketAddr, bytes: &[u8]| confirmation = bytes.to_vec(),
        );
        tunnels.receive(now, (address(0), None), &mut confirmation);
        tunnels.poll(now);

        // A stranger calls from many addresses, and what the site sends comes after that.
        let mut stranger = caller(now, PrivateKey::generate().unwrap(), near_key);
        let initiation = call(now, &mut stranger, 0);
        let flood = |tunnels: &mut Tunnels<wireguard::Endpoint, Sent>, from: u32, count: u32| {
            for n in from..from + count {
                tunnels.receive(now, (address(n), None), &mut initiation.clone());
            }
        };
        flood(&mut tunnels, 100, 200);
        let mut data = call(now, &mut far, 64);
        let arrival = tunnels.receive(now, (address(0), None), &mut data);
        assert!(
            matches!(arrival, Arrival::Packet(PathId(0), _)),
            "{arrival:?}"
        );
        let names = ["vnet", "local", "underlay", "site"].map(str::to_owned);
        let dropped = |reason: &str| {
            let totals = Totals::of([&*ledger], &names);
            totals.dropped.get(reason).map_or(0, |sum| sum.packets)
        };
        let too_many = 200 - SCREENED.min(MAX_HANDSHAKES) as u64;
        assert_eq!(dropped("tunnel_handshake_rate"), too_many);
        assert_eq!(dropped("tunnel_unknown_peer"), 0, "none was read so far");
        // Each round reads some of them, and wants another one.
        let mut rounds = 0;
        while tunnels.deadline().is_some_and(|at| at <= now) {
            tunnels.poll(now);
            rounds += 1;
            assert_eq!(dropped("tunnel_unknown_peer"), rounds * HANDSHAKES as u64);
        }
        assert_eq!(rounds, (MAX_HANDSHAKES / HANDSHAKES) as u64);

        // Where more comes in than is read, most is thrown away unread.
        tunnels.set_behind(true);
        tunnels.poll(now);
        flood(&mut tunnels, 1000, 50);
        let more = 50 - SCREENED_BEHIND as u64;
        assert_eq!(dropped("tunnel_handshake_rate"), too_many + more);
    }
}
