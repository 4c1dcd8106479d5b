//! Two endpoints in memory, joined by queues.

use super::*;
use crate::tunnel::Endpoint as _;
use zeroize::Zeroizing;

const MTU: u16 = 1420;

struct Side {
    endpoint: Endpoint,
    peer: PeerId,
    address: SocketAddr,
    sent: Vec<Vec<u8>>,
}

fn sides() -> (Side, Side) {
    let keys = [[1; 32], [2; 32]];
    let addresses = ["192.0.2.1:1000", "192.0.2.2:2000"].map(|text| text.parse().unwrap());
    let side = |mine: usize, theirs: usize, knows: bool| {
        let mut endpoint = Endpoint::new(&keys[mine]);
        let peer = Peer {
            public_key: *PublicKey::from(&StaticSecret::from(keys[theirs])).as_bytes(),
            preshared_key: Zeroizing::new([7; 32]),
            endpoint: knows.then_some(addresses[theirs]),
            keepalive: None,
            retry: None,
            mtu: MTU,
        };
        let peer = endpoint.add_peer(Instant::now(), &peer).unwrap();
        Side {
            endpoint,
            peer,
            address: addresses[mine],
            sent: Vec::new(),
        }
    };
    (side(0, 1, true), side(1, 0, false))
}

/// An IPv4 packet of this length; its total length field is right, so boringtun lets it pass.
fn packet(length: usize) -> Vec<u8> {
    let mut bytes = vec![0xa5; length];
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    bytes
}

fn train(packets: &[Vec<u8>]) -> Train {
    let mut train = Train::new(usize::from(MTU));
    for packet in packets {
        train.push(packet.len()).unwrap().copy_from_slice(packet);
    }
    train
}

impl Side {
    fn seal(&mut self, train: &mut Train) -> Result<SocketAddr, SealError> {
        let sent = &mut self.sent;
        let mut out = |_: Option<PeerId>, _: SocketAddr, bytes: &[u8]| sent.push(bytes.to_vec());
        self.endpoint
            .seal(Instant::now(), self.peer, train, &mut out)
    }

    /// Takes one datagram of `from`; a refusal, or the packet in it.
    fn take(&mut self, from: SocketAddr, datagram: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        let mut datagram = datagram.to_vec();
        let sent = &mut self.sent;
        let mut out = |_: Option<PeerId>, _: SocketAddr, bytes: &[u8]| sent.push(bytes.to_vec());
        match self
            .endpoint
            .receive(Instant::now(), from, &mut datagram, &mut out)
        {
            Received::Packet { plaintext, .. } => Ok(Some(plaintext.to_vec())),
            Received::Refused(refusal) => Err(refusal),
            Received::Keepalive { .. } | Received::Control { .. } => Ok(None),
            Received::Foreign(_) => Err(Refusal::UnknownPeer),
        }
    }

    fn status(&self) -> Status {
        self.endpoint.status(self.peer).unwrap()
    }
}

/// Carries the engines' own messages to and fro until nothing is left to say.
fn settle(a: &mut Side, b: &mut Side) {
    while !(a.sent.is_empty() && b.sent.is_empty()) {
        for datagram in std::mem::take(&mut a.sent) {
            b.take(a.address, &datagram).unwrap();
        }
        for datagram in std::mem::take(&mut b.sent) {
            a.take(b.address, &datagram).unwrap();
        }
    }
}

fn connected() -> (Side, Side) {
    let (mut a, mut b) = sides();
    assert_eq!(
        a.seal(&mut train(&[packet(100)])),
        Err(SealError::NoSession)
    );
    settle(&mut a, &mut b);
    (a, b)
}

#[test]
fn without_a_session_the_train_is_untouched_and_one_handshake_starts() {
    let (mut a, _) = sides();
    let mut first = train(&[packet(100), packet(100)]);
    let before = first.bytes().to_vec();
    assert_eq!(a.seal(&mut first), Err(SealError::NoSession));
    assert_eq!(a.seal(&mut first), Err(SealError::NoSession));
    assert_eq!(first.bytes(), before);
    assert_eq!(a.sent.iter().map(Vec::len).collect::<Vec<_>>(), [148]);
}

#[test]
fn a_handshake_gives_both_sides_a_session() {
    let (a, b) = connected();
    for (side, other) in [(&a, &b), (&b, &a)] {
        let status = side.status();
        assert!(status.has_session && status.last_handshake.is_some());
        assert_eq!(
            (status.handshakes, status.endpoint),
            (1, Some(other.address))
        );
    }
}

#[test]
fn two_that_start_at_once_need_no_retry() {
    let (mut a, mut b) = sides();
    let no_session = Err(SealError::NoSession);
    for tunnel in b.endpoint.peers.iter_mut().flatten() {
        tunnel.status.endpoint = Some(a.address);
    }
    assert_eq!(a.seal(&mut train(&[packet(100)])), no_session);
    assert_eq!(b.seal(&mut train(&[packet(100)])), no_session);
    let (of_a, of_b) = (a.sent.remove(0), b.sent.remove(0));
    a.take(b.address, &of_b).unwrap();
    b.take(a.address, &of_a).unwrap();
    assert_eq!(a.seal(&mut train(&[packet(100)])), no_session);
    assert_eq!(b.seal(&mut train(&[packet(100)])), no_session);
    settle(&mut a, &mut b);
    assert!(a.status().has_session && b.status().has_session);
    let mut sealed = train(&[packet(100)]);
    a.seal(&mut sealed).unwrap();
    assert!(b.take(a.address, sealed.bytes()).unwrap().is_some());
    let mut sealed = train(&[packet(100)]);
    b.seal(&mut sealed).unwrap();
    assert!(a.take(b.address, sealed.bytes()).unwrap().is_some());
}

#[test]
fn a_train_arrives_whole_and_padded_to_16() {
    let (mut a, mut b) = connected();
    let packets = [packet(101), packet(101), packet(33)];
    let mut sealed = train(&packets);
    assert_eq!(a.seal(&mut sealed), Ok(b.address));
    let datagrams: Vec<_> = sealed.bytes().chunks(sealed.stride()).collect();
    assert_eq!(
        datagrams.iter().map(|d| d.len() - 32).collect::<Vec<_>>(),
        [112, 112, 48]
    );
    for (datagram, packet) in datagrams.iter().zip(&packets) {
        assert_eq!(
            b.take(a.address, datagram).unwrap().as_deref(),
            Some(&packet[..])
        );
    }
}

#[test]
fn every_length_up_to_the_longest_train_seals_without_panic() {
    let (mut a, mut b) = connected();
    for length in (20..=1420).step_by(7).chain([65_000]) {
        let mut sealed = train(&[packet(length)]);
        assert_eq!(a.seal(&mut sealed), Ok(b.address));
        assert_eq!(
            b.take(a.address, sealed.bytes()).unwrap().map(|p| p.len()),
            Some(length)
        );
    }
}

#[test]
fn replays_forgeries_and_strangers_are_refused_by_name() {
    let (mut a, mut b) = connected();
    let mut sealed = train(&[packet(100)]);
    a.seal(&mut sealed).unwrap();
    let datagram = sealed.bytes().to_vec();
    let flip = |at: usize| {
        let mut copy = datagram.clone();
        copy[at] ^= 0x40;
        copy
    };
    assert_eq!(b.take(a.address, &flip(20)), Err(Refusal::Authentication));
    assert_eq!(b.take(a.address, &flip(7)), Err(Refusal::UnknownIndex));
    assert_eq!(b.take(a.address, &flip(1)), Err(Refusal::Malformed));
    assert!(b.take(a.address, &datagram).unwrap().is_some());
    assert_eq!(b.take(a.address, &datagram), Err(Refusal::Replay));
    for length in 0..datagram.len() {
        assert!(b.take(a.address, &datagram[..length]).is_err());
    }
}

#[test]
fn an_initiation_of_an_unknown_key_is_told_from_a_forged_one() {
    let (mut a, mut b) = sides();
    b.endpoint.remove_peer(b.peer);
    a.seal(&mut train(&[packet(100)])).unwrap_err();
    let initiation = a.sent.remove(0);
    assert_eq!(b.take(a.address, &initiation), Err(Refusal::UnknownPeer));
    let mut forged = initiation;
    forged[130] ^= 1;
    assert_eq!(b.take(a.address, &forged), Err(Refusal::Handshake));
    assert!(b.endpoint.status(b.peer).is_none());
}

#[test]
fn the_endpoint_moves_only_with_an_authentic_message() {
    let (mut a, mut b) = connected();
    let elsewhere: SocketAddr = "198.51.100.9:9".parse().unwrap();
    let mut sealed = train(&[packet(100)]);
    a.seal(&mut sealed).unwrap();
    let mut forged = sealed.bytes().to_vec();
    forged[40] ^= 1;
    b.take(elsewhere, &forged).unwrap_err();
    assert_eq!(b.status().endpoint, Some(a.address));
    b.take(elsewhere, sealed.bytes()).unwrap();
    assert_eq!(b.status().endpoint, Some(elsewhere));
}

#[test]
fn a_flood_of_initiations_is_answered_by_cookies() {
    let (mut a, mut b) = sides();
    a.seal(&mut train(&[packet(100)])).unwrap_err();
    let initiation = a.sent.remove(0);
    let refused = (0..=HANDSHAKES_PER_SECOND * 2)
        .filter(|_| b.take(a.address, &initiation) == Err(Refusal::HandshakeRate))
        .count();
    let cookies = b.sent.iter().filter(|m| m.len() == COOKIE_REPLY).count();
    assert!(refused > 0);
    assert_eq!(refused, cookies);
}

#[test]
fn bad_and_known_keys_are_no_peers() {
    let (mut a, _) = sides();
    let mut peer = Peer {
        public_key: [0; 32],
        preshared_key: Zeroizing::new([0; 32]),
        endpoint: None,
        keepalive: None,
        retry: None,
        mtu: MTU,
    };
    assert_eq!(a.endpoint.add_peer(Instant::now(), &peer), None);
    peer.public_key = *PublicKey::from(&StaticSecret::from([2; 32])).as_bytes();
    assert_eq!(a.endpoint.add_peer(Instant::now(), &peer), None);
    peer.public_key = *PublicKey::from(&StaticSecret::from([3; 32])).as_bytes();
    assert_eq!(a.endpoint.add_peer(Instant::now(), &peer), Some(PeerId(1)));
}
