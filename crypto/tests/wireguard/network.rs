//! Two of our endpoints with a network and a clock between them, both simulated: nothing waits.

use crypto::key::PrivateKey;
use crypto::limiter::{HandshakeLimits, Limiter};
use crypto::tunnel::{Endpoint as _, Peer, PeerId, Received, Refusal, SealError};
use crypto::wireguard::Train;
use crypto::wireguard::{Endpoint, WallClock};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};
use zeroize::Zeroizing;

pub(crate) const MTU: u16 = 1420;
pub(crate) const LATENCY: Duration = Duration::from_millis(20);
pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// What a datagram is, by its first byte.
pub(crate) fn kind(datagram: &[u8]) -> u8 {
    datagram.first().copied().unwrap_or_default()
}
pub(crate) const INITIATION: u8 = 1;
pub(crate) const RESPONSE: u8 = 2;
pub(crate) const COOKIE: u8 = 3;
pub(crate) const DATA: u8 = 4;

/// A clock that stands still: what it does not tell the engine adds.
pub(crate) fn clock() -> WallClock {
    Arc::new(|| UNIX_EPOCH + Duration::from_secs(1_700_000_000))
}

pub(crate) fn endpoint(now: Instant, key: &PrivateKey, limits: HandshakeLimits) -> Endpoint {
    let limiter = Arc::new(Limiter::new(now, limits).unwrap());
    Endpoint::new(key.clone(), limiter, 0, clock())
}

pub(crate) fn peer(key: &PrivateKey, endpoint: Option<SocketAddr>) -> Peer {
    Peer {
        public_key: key.public_key().0,
        preshared_key: Zeroizing::new([0; 32]),
        endpoint,
        keepalive: None,
        retry: None,
        mtu: MTU,
    }
}

/// A datagram on its way.
#[derive(Clone, Debug)]
pub(crate) struct Flying {
    pub(crate) arrives: Instant,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) datagram: Vec<u8>,
}

/// One end: an endpoint with one peer, its address, and what came in.
pub(crate) struct Host {
    pub(crate) endpoint: Endpoint,
    pub(crate) peer: PeerId,
    pub(crate) address: SocketAddr,
    pub(crate) packets: Vec<Vec<u8>>,
    pub(crate) keepalives: usize,
    pub(crate) refused: Vec<Refusal>,
}

type Loss = dyn FnMut(usize, &[u8]) -> bool;

pub(crate) struct Network {
    pub(crate) now: Instant,
    pub(crate) keys: [PrivateKey; 2],
    pub(crate) hosts: [Host; 2],
    pub(crate) flying: VecDeque<Flying>,
    /// Every datagram that was sent, with its time and whether it was lost.
    pub(crate) log: Vec<(Instant, usize, u8, bool)>,
    /// Whether a datagram of this host gets lost.
    pub(crate) lose: Box<Loss>,
    /// How much later than [`LATENCY`] the next datagram arrives.
    pub(crate) delay: Box<dyn FnMut() -> Duration>,
}

pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;

impl Network {
    pub(crate) fn new() -> Self {
        Self::with(|_| {}, HandshakeLimits::default())
    }

    /// Both ends know each other's address; `adjust` sees each end's peer before it is added.
    pub(crate) fn with(adjust: impl Fn(&mut Peer), limits: HandshakeLimits) -> Self {
        let now = Instant::now();
        let keys = [
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
        ];
        let addresses: [SocketAddr; 2] = [
            "192.0.2.1:1001".parse().unwrap(),
            "192.0.2.2:1002".parse().unwrap(),
        ];
        let hosts = [A, B].map(|at| {
            let mut endpoint = endpoint(now, &keys[at], limits);
            let mut peer = peer(&keys[1 - at], Some(addresses[1 - at]));
            adjust(&mut peer);
            Host {
                peer: endpoint.add_peer(now, &peer).unwrap(),
                endpoint,
                address: addresses[at],
                packets: Vec::new(),
                keepalives: 0,
                refused: Vec::new(),
            }
        });
        Self {
            now,
            keys,
            hosts,
            flying: VecDeque::new(),
            log: Vec::new(),
            lose: Box::new(|_, _| false),
            delay: Box::new(|| Duration::ZERO),
        }
    }

    /// Sends one packet; true if there was a session for it.
    pub(crate) fn send(&mut self, from: usize, packet: &[u8]) -> bool {
        let mut train = Train::new(usize::from(MTU));
        train.push(packet.len()).unwrap().copy_from_slice(packet);
        self.send_train(from, &mut train)
    }

    pub(crate) fn send_train(&mut self, from: usize, train: &mut Train) -> bool {
        let mut out = Vec::new();
        let host = &mut self.hosts[from];
        let sealed = host
            .endpoint
            .seal(self.now, host.peer, train, &mut collect(&mut out));
        let sent = match sealed {
            Ok(to) => {
                for datagram in train.bytes().chunks(train.stride().max(1)) {
                    out.push((to, datagram.to_vec()));
                }
                true
            }
            Err(SealError::NoSession) => false,
            Err(error) => panic!("{error:?}"),
        };
        self.launch(from, out);
        sent
    }

    /// Puts datagrams of a host on their way.
    pub(crate) fn launch(&mut self, from: usize, out: Vec<(SocketAddr, Vec<u8>)>) {
        for (to, datagram) in out {
            let lost = (self.lose)(from, &datagram);
            self.log.push((self.now, from, kind(&datagram), lost));
            if !lost {
                self.flying.push_back(Flying {
                    arrives: self.now + LATENCY + (self.delay)(),
                    from: self.hosts[from].address,
                    to,
                    datagram,
                });
            }
        }
    }

    /// Hands a datagram to whoever has its address.
    pub(crate) fn deliver(&mut self, flying: &Flying) {
        let Some(at) = self.hosts.iter().position(|host| host.address == flying.to) else {
            return;
        };
        let mut out = Vec::new();
        let mut datagram = flying.datagram.clone();
        let host = &mut self.hosts[at];
        match host
            .endpoint
            .receive(self.now, flying.from, &mut datagram, &mut collect(&mut out))
        {
            Received::Packet { plaintext, .. } => host.packets.push(plaintext.to_vec()),
            Received::Keepalive { .. } => host.keepalives += 1,
            Received::Control { .. } => {}
            Received::Foreign(_) => host.refused.push(Refusal::UnknownPeer),
            Received::Refused(refusal) => host.refused.push(refusal),
        }
        self.launch(at, out);
    }

    /// Runs until `end`: deliveries and deadlines, each at its time.
    pub(crate) fn run_until(&mut self, end: Instant) {
        loop {
            let mut next = self.flying.iter().map(|flying| flying.arrives).min();
            for at in [A, B] {
                let mut out = Vec::new();
                let due = self.hosts[at]
                    .endpoint
                    .poll(self.now, &mut collect(&mut out));
                if !out.is_empty() {
                    next = Some(self.now);
                }
                self.launch(at, out);
                next = [next, due].into_iter().flatten().min();
            }
            match next {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => break,
            }
            while let Some(at) = self
                .flying
                .iter()
                .position(|flying| flying.arrives <= self.now)
            {
                let flying = self.flying.remove(at).unwrap();
                self.deliver(&flying);
            }
        }
        self.now = end;
    }

    pub(crate) fn run(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// The program of a host starts anew: same keys, no sessions.
    pub(crate) fn restart(&mut self, at: usize) {
        let mut fresh = endpoint(self.now, &self.keys[at], HandshakeLimits::default());
        let other = peer(&self.keys[1 - at], Some(self.hosts[1 - at].address));
        self.hosts[at].peer = fresh.add_peer(self.now, &other).unwrap();
        self.hosts[at].endpoint = fresh;
    }

    /// A handshake begun by `from`, and its confirmation.
    pub(crate) fn connect(&mut self, from: usize) {
        assert!(!self.send(from, b"knock"));
        self.run(5 * LATENCY);
        for host in &self.hosts {
            assert!(host.endpoint.status(host.peer).unwrap().has_session);
        }
    }

    pub(crate) fn handshakes(&self, at: usize) -> u64 {
        let host = &self.hosts[at];
        host.endpoint.status(host.peer).unwrap().handshakes
    }

    /// How many datagrams of a kind a host has sent.
    pub(crate) fn sent(&self, from: usize, kind: u8) -> usize {
        self.log
            .iter()
            .filter(|sent| sent.1 == from && sent.2 == kind)
            .count()
    }

    /// When a host sent datagrams of a kind, counted from the first.
    pub(crate) fn times(&self, from: usize, kind: u8) -> Vec<Duration> {
        let times: Vec<_> = self
            .log
            .iter()
            .filter(|sent| sent.1 == from && sent.2 == kind)
            .map(|sent| sent.0)
            .collect();
        times.iter().map(|time| *time - times[0]).collect()
    }

    /// A packet there and one back, both padded to 16.
    pub(crate) fn exchange(&mut self) {
        for (from, to) in [(A, B), (B, A)] {
            self.hosts[to].packets.clear();
            let packet = [0x45; 100];
            assert!(self.send(from, &packet), "no session at {from}");
            self.run(2 * LATENCY);
            assert_eq!(self.hosts[to].packets.len(), 1, "from {from}");
            assert_eq!(self.hosts[to].packets[0][..100], packet);
            assert_eq!(self.hosts[to].packets[0].len(), 112);
        }
    }
}

/// Gathers what an endpoint sends.
pub(crate) fn collect(
    out: &mut Vec<(SocketAddr, Vec<u8>)>,
) -> impl FnMut(Option<PeerId>, SocketAddr, &[u8]) {
    |_, to, datagram| out.push((to, datagram.to_vec()))
}
