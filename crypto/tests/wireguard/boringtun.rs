//! Against boringtun 0.7.1. It reads the real clock, so its timers never fire here; ours run on our own,
//! and it is we who renew.

use crate::network::{
    COOKIE, DATA, INITIATION, MILLISECOND, MTU, RESPONSE, SECOND, collect, endpoint, kind, peer,
};
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use crypto::key::PrivateKey;
use crypto::limiter::HandshakeLimits;
use crypto::tunnel::{Endpoint as _, Peer, PeerId, Received, Refusal};
use crypto::wireguard::Endpoint;
use crypto::wireguard::Train;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use zeroize::Zeroizing;

struct Pair {
    now: Instant,
    ours: Endpoint,
    peer: PeerId,
    theirs: Tunn,
    /// What arrived at each end: (ours, theirs).
    arrived: (Vec<Vec<u8>>, Vec<Vec<u8>>),
}

/// More handshakes than a test makes in a second.
const MANY: u64 = 1000;
const THEIR_ADDRESS: &str = "192.0.2.2:1002";

impl Pair {
    fn new(preshared_key: Option<[u8; 32]>) -> Self {
        Self::with([preshared_key; 2], MANY, HandshakeLimits::default())
    }

    /// `handshakes` is what boringtun takes in a second before it asks for cookies.
    fn with(
        preshared_keys: [Option<[u8; 32]>; 2],
        handshakes: u64,
        limits: HandshakeLimits,
    ) -> Self {
        let now = Instant::now();
        let (our_key, their_key) = (
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
        );
        let mut ours = endpoint(now, &our_key, limits);
        let far = Peer {
            preshared_key: Zeroizing::new(preshared_keys[0].unwrap_or_default()),
            ..peer(&their_key, Some(THEIR_ADDRESS.parse().unwrap()))
        };
        let peer = ours.add_peer(now, &far).unwrap();
        let their_public = x25519::PublicKey::from(their_key.public_key().0);
        let theirs = Tunn::new(
            x25519::StaticSecret::from(*their_key.as_bytes()),
            x25519::PublicKey::from(our_key.public_key().0),
            preshared_keys[1],
            None,
            77,
            Some(Arc::new(RateLimiter::new(&their_public, handshakes))),
        );
        Self {
            now,
            ours,
            peer,
            theirs,
            arrived: (Vec::new(), Vec::new()),
        }
    }

    /// Seals one packet of ours; gives the datagrams that go out, data or handshake.
    fn seal(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        let mut train = Train::new(usize::from(MTU));
        train.push(packet.len()).unwrap().copy_from_slice(packet);
        let mut out = Vec::new();
        let mut datagrams = Vec::new();
        if self
            .ours
            .seal(self.now, self.peer, &mut train, &mut collect(&mut out))
            .is_ok()
        {
            datagrams.push(train.bytes().to_vec());
        }
        datagrams.extend(out.into_iter().map(|(_, datagram)| datagram));
        datagrams
    }

    /// Seals one packet of theirs.
    fn seal_theirs(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut room = vec![0; 2000];
        match self.theirs.encapsulate(packet, &mut room) {
            TunnResult::WriteToNetwork(datagram) => datagram.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    /// Hands datagrams to boringtun, its answers to us, and so on until nobody has more to say.
    fn hand_to_theirs(&mut self, datagrams: Vec<Vec<u8>>) {
        for datagram in datagrams {
            let mut room = vec![0; 2000];
            let mut answers = Vec::new();
            match self.theirs.decapsulate(None, &datagram, &mut room) {
                TunnResult::Done => {}
                TunnResult::WriteToNetwork(answer) => answers.push(answer.to_vec()),
                TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                    self.arrived.1.push(packet.to_vec());
                }
                TunnResult::Err(error) => panic!("type {}: {error:?}", kind(&datagram)),
            }
            let mut room = vec![0; 2000];
            while let TunnResult::WriteToNetwork(more) =
                self.theirs.decapsulate(None, &[], &mut room)
            {
                answers.push(more.to_vec());
            }
            self.hand_to_ours(answers);
        }
    }

    fn hand_to_ours(&mut self, datagrams: Vec<Vec<u8>>) {
        for mut datagram in datagrams {
            let mut out = Vec::new();
            let source: SocketAddr = THEIR_ADDRESS.parse().unwrap();
            match self
                .ours
                .receive(self.now, source, &mut datagram, &mut collect(&mut out))
            {
                Received::Packet { plaintext, .. } => self.arrived.0.push(plaintext.to_vec()),
                Received::Keepalive { .. } | Received::Control { .. } | Received::Foreign(_) => {}
                Received::Refused(refusal) => panic!("{refusal:?}"),
            }
            self.hand_to_theirs(out.into_iter().map(|(_, datagram)| datagram).collect());
        }
    }

    /// Packets both ways, of all kinds of length.
    fn exchange(&mut self) {
        for length in [20, 21, 64, 500, 1404, 1419, 1420] {
            self.arrived.0.clear();
            self.arrived.1.clear();
            let packet = ipv4(length);
            let datagrams = self.seal(&packet);
            assert_eq!(datagrams.len(), 1);
            self.hand_to_theirs(datagrams);
            // boringtun cuts the padding off by the packet's own length.
            assert_eq!(self.arrived.1, std::slice::from_ref(&packet));
            let datagram = self.seal_theirs(&packet);
            self.hand_to_ours(vec![datagram]);
            assert_eq!(self.arrived.0, [packet]);
        }
    }
}

/// An IPv4 packet as far as boringtun looks: version, total length, addresses.
fn ipv4(length: usize) -> Vec<u8> {
    let mut packet = vec![0xa5; length];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    packet
}

#[test]
fn we_begin_and_data_passes_both_ways() {
    for preshared_key in [None, Some([0x77; 32])] {
        let mut pair = Pair::new(preshared_key);
        let initiation = pair.seal(&ipv4(100));
        assert_eq!(
            initiation.iter().map(|d| kind(d)).collect::<Vec<_>>(),
            [INITIATION]
        );
        pair.hand_to_theirs(initiation);
        assert!(pair.ours.status(pair.peer).unwrap().has_session);
        pair.exchange();
    }
}

#[test]
fn boringtun_begins_and_data_passes_both_ways() {
    for preshared_key in [None, Some([0x77; 32])] {
        let mut pair = Pair::new(preshared_key);
        let packet = ipv4(100);
        let initiation = pair.seal_theirs(&packet);
        assert_eq!(kind(&initiation), INITIATION);
        pair.hand_to_ours(vec![initiation]);
        assert!(pair.ours.status(pair.peer).unwrap().has_session);
        // boringtun kept the packet until there was a session.
        assert_eq!(pair.arrived.0, [packet]);
        pair.exchange();
    }
}

#[test]
fn another_preshared_key_brings_no_session() {
    let mut pair = Pair::with(
        [Some([1; 32]), Some([2; 32])],
        MANY,
        HandshakeLimits::default(),
    );
    let initiation = pair.seal(&ipv4(100));
    let mut room = vec![0; 2000];
    let TunnResult::WriteToNetwork(response) =
        pair.theirs.decapsulate(None, &initiation[0], &mut room)
    else {
        panic!("boringtun learns of it no sooner than we do");
    };
    assert_eq!(kind(response), RESPONSE);
    let mut out = Vec::new();
    let source = THEIR_ADDRESS.parse().unwrap();
    let received = pair
        .ours
        .receive(pair.now, source, response, &mut collect(&mut out));
    assert!(matches!(received, Received::Refused(Refusal::Handshake)));
    assert!(!pair.ours.status(pair.peer).unwrap().has_session);
}

#[test]
fn we_show_boringtuns_cookie() {
    // It asks everyone for a cookie.
    let mut pair = Pair::with([None, None], 0, HandshakeLimits::default());
    let address = Some("192.0.2.1".parse().unwrap());
    let initiation = pair.seal(&ipv4(100)).remove(0);
    let mut room = vec![0; 2000];
    let TunnResult::WriteToNetwork(reply) =
        pair.theirs.decapsulate(address, &initiation, &mut room)
    else {
        panic!("no cookie");
    };
    assert_eq!(kind(reply), COOKIE);
    let reply = reply.to_vec();
    pair.hand_to_ours(vec![reply]);
    // The retry shows it, and is answered.
    pair.now += 6 * SECOND;
    let mut out = Vec::new();
    pair.ours.poll(pair.now, &mut collect(&mut out));
    let mut room = vec![0; 2000];
    let TunnResult::WriteToNetwork(response) =
        pair.theirs.decapsulate(address, &out[0].1, &mut room)
    else {
        panic!("the cookie was not taken");
    };
    assert_eq!(kind(response), RESPONSE);
    let response = response.to_vec();
    pair.hand_to_ours(vec![response]);
    pair.exchange();
}

#[test]
fn boringtun_shows_our_cookie() {
    let limits = HandshakeLimits {
        source_rate: 1,
        source_burst: 1,
        ..HandshakeLimits::default()
    };
    let mut pair = Pair::with([None, None], MANY, limits);
    let mut answers = Vec::new();
    for _ in 0..3 {
        let mut room = vec![0; 2000];
        let TunnResult::WriteToNetwork(initiation) =
            pair.theirs.format_handshake_initiation(&mut room, true)
        else {
            panic!("no initiation");
        };
        let mut out = Vec::new();
        pair.now += 100 * MILLISECOND;
        let source = THEIR_ADDRESS.parse().unwrap();
        pair.ours
            .receive(pair.now, source, initiation, &mut collect(&mut out));
        let answer = out.remove(0).1;
        answers.push(kind(&answer));
        if kind(&answer) == COOKIE {
            let mut room = vec![0; 2000];
            assert!(matches!(
                pair.theirs.decapsulate(None, &answer, &mut room),
                TunnResult::Done
            ));
        }
    }
    // The first is within the budget, the second is not, the third shows the cookie of the second.
    assert_eq!(answers, [RESPONSE, COOKIE, RESPONSE]);
}

#[test]
fn ten_renewals_with_packets_on_their_way_lose_none() {
    let mut pair = Pair::new(None);
    let initiation = pair.seal(&ipv4(100));
    pair.hand_to_theirs(initiation);
    pair.arrived.1.clear();
    let (mut sent, mut received) = ([0; 2], [0; 2]);
    for renewal in 1..=10_u64 {
        pair.now += 121 * SECOND;
        // On their way while the handshake passes: some of ours, some of theirs, all with the old keys.
        let (mut data, mut handshake) = (Vec::new(), Vec::new());
        for _ in 0..100 {
            for datagram in pair.seal(&ipv4(200)) {
                if kind(&datagram) == DATA {
                    data.push(datagram);
                    sent[0] += 1;
                } else {
                    handshake.push(datagram);
                }
            }
        }
        assert_eq!(
            handshake.iter().map(|d| kind(d)).collect::<Vec<_>>(),
            [INITIATION]
        );
        let theirs: Vec<_> = (0..100).map(|_| pair.seal_theirs(&ipv4(300))).collect();
        sent[1] += theirs.len();

        let (early, late) = data.split_at(50);
        pair.hand_to_theirs(early.to_vec());
        pair.hand_to_theirs(handshake);
        assert_eq!(pair.ours.status(pair.peer).unwrap().handshakes, 1 + renewal);
        pair.hand_to_theirs(late.to_vec());
        pair.hand_to_ours(theirs);
        // And with the new keys, in use at once on our side.
        for _ in 0..10 {
            let datagrams = pair.seal(&ipv4(64));
            sent[0] += 1;
            pair.hand_to_theirs(datagrams);
            let datagram = pair.seal_theirs(&ipv4(64));
            sent[1] += 1;
            pair.hand_to_ours(vec![datagram]);
        }
        received[0] += std::mem::take(&mut pair.arrived.1).len();
        received[1] += std::mem::take(&mut pair.arrived.0).len();
    }
    assert_eq!(received, sent);
    assert_eq!(sent, [1100, 1100]);
}

#[test]
fn boringtun_renews_while_our_packets_are_on_their_way() {
    let mut pair = Pair::new(None);
    let initiation = pair.seal_theirs(&ipv4(100));
    pair.hand_to_ours(vec![initiation]);
    for _ in 0..5 {
        pair.arrived = (Vec::new(), Vec::new());
        pair.now += SECOND;
        // Its timestamps come from the real clock and have a fine grain: each is later than the last.
        let ours: Vec<_> = (0..20).flat_map(|_| pair.seal(&ipv4(200))).collect();
        let theirs: Vec<_> = (0..20).map(|_| pair.seal_theirs(&ipv4(300))).collect();
        let mut room = vec![0; 2000];
        let TunnResult::WriteToNetwork(initiation) =
            pair.theirs.format_handshake_initiation(&mut room, true)
        else {
            panic!("no initiation");
        };
        assert_eq!(kind(initiation), INITIATION);
        let initiation = initiation.to_vec();
        pair.hand_to_ours(vec![initiation]);
        pair.hand_to_ours(theirs);
        pair.hand_to_theirs(ours);
        assert_eq!((pair.arrived.0.len(), pair.arrived.1.len()), (20, 20));
        pair.exchange();
    }
}
