//! What strangers send: forgeries, replays, floods.

use crate::network::{
    A, B, COOKIE, DATA, INITIATION, LATENCY, MILLISECOND, Network, RESPONSE, SECOND, collect,
    endpoint, kind, peer,
};
use crypto::key::PrivateKey;
use crypto::limiter::{COOKIE_RATE, HandshakeLimits};
use crypto::tunnel::{Endpoint as _, Peer, Received, Refusal};
use crypto::wireguard::{Endpoint, INITIATION_LEN};
use proptest::prelude::*;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

/// The datagrams that `hand` handed over, each as it was received by its receiver in a state in which it
/// is welcome: an initiation, a response, a data message.
fn welcome(wanted: u8) -> (Network, usize) {
    let mut net = Network::new();
    net.send(A, b"knock");
    let mut receiver = B;
    while kind(&net.flying.front().unwrap().datagram) != wanted {
        net.now += LATENCY;
        let flying = net.flying.pop_front().unwrap();
        net.deliver(&flying);
        receiver = 1 - receiver;
    }
    assert_eq!(net.flying.len(), 1);
    (net, receiver)
}

#[test]
fn every_bit_of_every_message_counts() {
    for wanted in [INITIATION, RESPONSE, DATA] {
        let (mut net, receiver) = welcome(wanted);
        let genuine = net.flying.pop_front().unwrap();
        let before = net.hosts[receiver]
            .endpoint
            .status(net.hosts[receiver].peer);
        for bit in 0..genuine.datagram.len() * 8 {
            // mac2 is looked at under load only.
            if wanted != DATA && bit / 8 >= genuine.datagram.len() - 16 {
                continue;
            }
            let mut forged = genuine.clone();
            forged.datagram[bit / 8] ^= 1 << (bit % 8);
            net.deliver(&forged);
            assert_eq!(
                net.hosts[receiver].refused.len(),
                1,
                "message {wanted}, bit {bit}"
            );
            net.hosts[receiver].refused.clear();
            assert!(
                net.flying.is_empty(),
                "message {wanted}, bit {bit} was answered"
            );
        }
        let after = net.hosts[receiver]
            .endpoint
            .status(net.hosts[receiver].peer);
        assert_eq!(after, before, "message {wanted}");
        net.deliver(&genuine);
        assert!(net.hosts[receiver].refused.is_empty(), "message {wanted}");
    }
}

#[test]
fn every_message_is_taken_once() {
    for wanted in [INITIATION, RESPONSE, DATA] {
        let (mut net, receiver) = welcome(wanted);
        let genuine = net.flying.pop_front().unwrap();
        net.deliver(&genuine);
        net.run(SECOND);
        assert!(net.hosts[receiver].refused.is_empty());
        net.deliver(&genuine);
        let expected = match wanted {
            INITIATION => Refusal::Handshake,
            RESPONSE => Refusal::UnknownIndex,
            _ => Refusal::Replay,
        };
        assert_eq!(net.hosts[receiver].refused, [expected], "message {wanted}");
        assert!(net.flying.is_empty(), "message {wanted} was answered twice");
    }
}

#[test]
fn an_old_initiation_does_not_work_after_a_newer_one() {
    let mut net = Network::new();
    net.lose = Box::new(|_, _| true);
    net.send(A, b"knock");
    net.lose = Box::new(|_, _| false);
    // Kept by whoever listens on the path.
    let mut kept = Vec::new();
    net.run(6 * SECOND);
    let host = &mut net.hosts[A];
    host.endpoint.poll(net.now, &mut collect(&mut kept));
    net.run(6 * SECOND);
    assert_eq!(net.handshakes(A), 1);
    net.run(130 * SECOND);
    net.send(A, b"renews");
    let initiation = net
        .flying
        .iter()
        .find(|flying| kind(&flying.datagram) == INITIATION)
        .unwrap()
        .clone();
    net.run(SECOND);
    assert_eq!(net.handshakes(B), 2);
    let answered = net.sent(B, RESPONSE);
    net.hosts[B].refused.clear();
    net.deliver(&initiation);
    assert_eq!(net.hosts[B].refused, [Refusal::Handshake]);
    assert_eq!(net.sent(B, RESPONSE), answered);
}

/// A stranger who knows the gateway's public key: his initiations have a valid mac1.
struct Stranger {
    endpoint: Endpoint,
    now: Instant,
}

impl Stranger {
    fn new(now: Instant, gateway: &PrivateKey) -> Self {
        let key = PrivateKey::generate().unwrap();
        let mut endpoint = endpoint(now, &key, HandshakeLimits::default());
        let target = Peer {
            keepalive: Some(SECOND),
            ..peer(gateway, Some("203.0.113.1:1".parse().unwrap()))
        };
        endpoint.add_peer(now, &target).unwrap();
        Self { endpoint, now }
    }

    /// One more initiation, with a new ephemeral key.
    fn initiation(&mut self) -> Vec<u8> {
        loop {
            let mut out = Vec::new();
            let due = self.endpoint.poll(self.now, &mut collect(&mut out));
            if let Some((_, initiation)) = out.pop() {
                assert_eq!(initiation.len(), INITIATION_LEN);
                return initiation;
            }
            self.now = due.unwrap();
        }
    }
}

/// What `at` answers to one datagram.
fn answers(
    net: &mut Network,
    at: usize,
    source: SocketAddr,
    datagram: &[u8],
) -> (Option<Refusal>, Vec<Vec<u8>>) {
    let mut out = Vec::new();
    let mut datagram = datagram.to_vec();
    let received =
        net.hosts[at]
            .endpoint
            .receive(net.now, source, &mut datagram, &mut collect(&mut out));
    let refusal = match received {
        Received::Refused(refusal) => Some(refusal),
        Received::Foreign(_) => Some(Refusal::UnknownPeer),
        _ => None,
    };
    (
        refusal,
        out.into_iter().map(|(_, datagram)| datagram).collect(),
    )
}

fn v4(number: u32) -> SocketAddr {
    (Ipv4Addr::from_bits(0xc612_0000 + number), 4500).into()
}

#[test]
fn a_stranger_gets_no_answer() {
    let mut net = Network::new();
    let mut stranger = Stranger::new(net.now, &net.keys[B]);
    let initiation = stranger.initiation();
    let (refusal, out) = answers(&mut net, B, v4(1), &initiation);
    assert_eq!(refusal, Some(Refusal::UnknownPeer));
    assert!(out.is_empty());
}

#[test]
fn without_a_valid_mac1_there_is_not_even_a_cookie() {
    let mut net = Network::with(
        |_| {},
        HandshakeLimits {
            source_burst: 1,
            source_rate: 1,
            ..HandshakeLimits::default()
        },
    );
    let mut stranger = Stranger::new(net.now, &net.keys[B]);
    for number in 0..50 {
        let mut initiation = stranger.initiation();
        initiation[120] ^= 1;
        let (refusal, out) = answers(&mut net, B, v4(number % 2), &initiation);
        assert_eq!(refusal, Some(Refusal::Handshake));
        assert!(out.is_empty());
    }
    // Nor did they use up anybody's budget.
    let (refusal, _) = answers(&mut net, B, v4(0), &stranger.initiation());
    assert_eq!(refusal, Some(Refusal::UnknownPeer));
}

#[test]
fn a_flood_from_one_source_is_asked_for_cookies_and_locks_nobody_out() {
    let mut net = Network::new();
    let mut stranger = Stranger::new(net.now, &net.keys[B]);
    let mut cookies = 0;
    for _ in 0..2000 {
        let (refusal, out) = answers(&mut net, B, v4(1), &stranger.initiation());
        match refusal {
            Some(Refusal::UnknownPeer) => assert!(out.is_empty()),
            Some(Refusal::HandshakeRate) => {
                assert!(out.iter().all(|answer| kind(answer) == COOKIE));
                cookies += out.len() as u32;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(cookies, COOKIE_RATE, "not one for each");
    net.connect(A);
    net.exchange();
    assert_eq!(net.sent(B, COOKIE), 0);
}

#[test]
fn under_a_flood_of_forged_addresses_a_peer_gets_in_with_a_cookie() {
    let mut net = Network::new();
    let mut stranger = Stranger::new(net.now, &net.keys[B]);
    let mut flood = |net: &mut Network| {
        for number in 0..300 {
            let (_, out) = answers(net, B, v4(number), &stranger.initiation());
            assert!(out.iter().all(|datagram| kind(datagram) == COOKIE));
        }
        // Also in the name of the peer.
        let address = net.hosts[A].address;
        for _ in 0..30 {
            answers(net, B, address, &stranger.initiation());
        }
    };
    flood(&mut net);
    assert!(!net.send(A, b"knock"));
    for _ in 0..14 {
        net.run(500 * MILLISECOND);
        flood(&mut net);
    }
    assert!(net.sent(B, COOKIE) > 0);
    assert_eq!(
        net.handshakes(A),
        1,
        "with the second initiation, which shows the cookie"
    );
    assert_eq!(net.sent(A, INITIATION), 2);
    net.exchange();
}

#[test]
fn a_cookie_of_another_address_is_worth_nothing() {
    let limits = HandshakeLimits {
        source_rate: 1,
        source_burst: 1,
        ..HandshakeLimits::default()
    };
    let mut net = Network::with(|_| {}, limits);
    // The first takes the only token; the second is asked for a cookie, the third shows it elsewhere.
    let address = net.hosts[A].address;
    net.lose = Box::new(|from, datagram| from == B && kind(datagram) == RESPONSE);
    let mut stranger = Stranger::new(net.now, &net.keys[B]);
    for _ in 0..20 {
        answers(&mut net, B, address, &stranger.initiation());
    }
    net.send(A, b"knock");
    net.run(LATENCY + LATENCY);
    assert_eq!(net.sent(B, COOKIE), 1);
    net.hosts[A].address = "192.0.2.99:1001".parse().unwrap();
    let elsewhere = net.hosts[A].address;
    for _ in 0..20 {
        answers(&mut net, B, elsewhere, &stranger.initiation());
    }
    net.hosts[B].refused.clear();
    let mut again = Vec::new();
    let retry = net.now + 6 * SECOND;
    net.hosts[A].endpoint.poll(retry, &mut collect(&mut again));
    let (_, initiation) = again.pop().unwrap();
    assert_ne!(
        initiation[INITIATION_LEN - 16..],
        [0; 16],
        "it shows the cookie"
    );
    let (refusal, out) = answers(&mut net, B, elsewhere, &initiation);
    assert_eq!(refusal, Some(Refusal::HandshakeRate));
    assert_eq!(kind(&out[0]), COOKIE);
    let (refusal, out) = answers(&mut net, B, address, &initiation);
    assert_eq!(refusal, None);
    assert_eq!(kind(&out[0]), RESPONSE);
}

#[test]
fn a_cookie_reply_counts_only_for_the_message_that_asked() {
    let mut net = Network::with(
        |_| {},
        HandshakeLimits {
            source_rate: 1,
            source_burst: 1,
            ..HandshakeLimits::default()
        },
    );
    let address = net.hosts[A].address;
    let mut stranger = Stranger::new(net.now, &net.keys[B]);
    for _ in 0..5 {
        answers(&mut net, B, address, &stranger.initiation());
    }
    net.send(A, b"knock");
    let initiation = net.flying.pop_front().unwrap();
    let (_, out) = answers(&mut net, B, address, &initiation.datagram);
    let gateway = net.hosts[B].address;
    let reply = out[0].clone();
    for bit in 0..reply.len() * 8 {
        let mut forged = reply.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        let (refusal, _) = answers(&mut net, A, gateway, &forged);
        assert!(refusal.is_some(), "bit {bit}");
    }
    assert_eq!(answers(&mut net, A, gateway, &reply).0, None);
    assert!(
        answers(&mut net, A, gateway, &reply).0.is_some(),
        "a second time"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever comes, in whatever state, nothing panics and nothing is believed.
    #[test]
    fn arbitrary_datagrams_do_no_harm(
        first in 0..6_u8,
        body in prop::collection::vec(any::<u8>(), 0..200),
        exact in prop::option::of(0..4_usize),
        index in any::<bool>(),
    ) {
        let (mut net, receiver) = welcome(DATA);
        let known = net.flying.front().unwrap().datagram[4..8].to_vec();
        let mut datagram = [&[first, 0, 0, 0], body.as_slice()].concat();
        if let Some(which) = exact {
            datagram.resize([148, 92, 64, 48][which], 7);
        }
        if index && datagram.len() >= 12 {
            let at = if first == 2 { 8 } else { 4 };
            datagram[at..at + 4].copy_from_slice(&known);
        }
        let (refusal, out) = answers(&mut net, receiver, v4(3), &datagram);
        prop_assert!(refusal.is_some());
        prop_assert!(out.is_empty());
    }

    /// Datagrams cut short or grown.
    #[test]
    fn genuine_messages_of_another_length_are_refused(
        wanted in 1..4_usize,
        length in 0..400_usize,
    ) {
        let wanted = [INITIATION, RESPONSE, DATA][wanted - 1];
        let (mut net, receiver) = welcome(wanted);
        let mut datagram = net.flying.front().unwrap().datagram.clone();
        prop_assume!(datagram.len() != length);
        datagram.resize(length, 0);
        let (refusal, out) = answers(&mut net, receiver, v4(3), &datagram);
        prop_assert!(refusal.is_some());
        prop_assert!(out.is_empty());
    }
}
