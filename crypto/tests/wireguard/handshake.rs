//! Handshakes: the plain case, each message lost in turn, both ends at once, deaf sessions, keepalives.

use crate::network::{
    A, B, DATA, Flying, INITIATION, LATENCY, MILLISECOND, Network, RESPONSE, SECOND, clock,
    collect, kind, peer,
};
use crypto::key::PrivateKey;
use crypto::limiter::{HandshakeLimits, Limiter};
use crypto::tunnel::{Endpoint as _, PeerId, Received, Refusal};
use crypto::wireguard::{Endpoint, receiver_index, worker_of};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

#[test]
fn a_first_packet_brings_a_session_that_carries_both_ways() {
    let mut net = Network::new();
    net.connect(A);
    net.exchange();
    assert_eq!((net.handshakes(A), net.handshakes(B)), (1, 1));
    assert_eq!(
        net.hosts[B].keepalives, 1,
        "the initiator confirms by itself"
    );
    assert!(net.hosts.iter().all(|host| host.refused.is_empty()));
}

#[test]
fn preshared_keys_must_be_the_same() {
    let mut net = Network::with(
        |peer| peer.preshared_key = Zeroizing::new([5; 32]),
        HandshakeLimits::default(),
    );
    net.connect(A);
    net.exchange();

    // An initiation does not depend on it, the response does.
    let mut net = Network::new();
    let host = &mut net.hosts[B];
    host.endpoint.remove_peer(host.peer);
    let mut other = peer(&net.keys[A], None);
    other.preshared_key = Zeroizing::new([6; 32]);
    host.peer = host.endpoint.add_peer(net.now, &other).unwrap();
    net.send(A, b"knock");
    net.run(5 * LATENCY);
    assert_eq!(net.sent(B, RESPONSE), 1);
    assert_eq!(net.hosts[A].refused, [Refusal::Handshake]);
    assert_eq!(net.handshakes(A), 0);
}

#[test]
fn a_lost_message_of_the_handshake_costs_one_retry() {
    for lost in [INITIATION, RESPONSE] {
        let mut net = Network::new();
        let mut once = true;
        net.lose = Box::new(move |_, datagram| kind(datagram) == lost && std::mem::take(&mut once));
        net.send(A, b"knock");
        net.run(4 * SECOND);
        assert_eq!(net.handshakes(A), 0);
        net.run(2 * SECOND);
        assert_eq!(net.handshakes(A), 1, "message {lost}");
        assert_eq!(net.handshakes(B), 1);
        net.exchange();
    }
}

#[test]
fn a_lost_confirmation_is_made_good_by_the_first_packet() {
    let mut net = Network::new();
    let mut once = true;
    net.lose = Box::new(move |_, datagram| kind(datagram) == DATA && std::mem::take(&mut once));
    net.send(A, b"knock");
    net.run(5 * LATENCY);
    let b = &net.hosts[B];
    assert!(!b.endpoint.status(b.peer).unwrap().has_session);
    net.exchange();
}

#[test]
fn a_responder_with_something_to_say_does_not_wait_forever_for_the_confirmation() {
    let mut net = Network::new();
    net.lose = Box::new(|from, datagram| from == A && kind(datagram) == DATA);
    net.send(A, b"knock");
    net.run(5 * LATENCY);
    assert!(!net.send(B, b"an answer"));
    net.run(6 * SECOND);
    // It has begun a handshake of its own, in which it is the one who need not wait.
    assert_eq!(net.sent(B, INITIATION), 1);
    assert!(net.send(B, b"an answer"));
    net.run(2 * LATENCY);
    assert_eq!(net.hosts[A].packets.len(), 1);
}

#[test]
fn both_ends_at_the_same_moment_agree_and_lose_nothing() {
    for offset in [0, 1, 19, 20, 21, 39, 40, 41] {
        let mut net = Network::new();
        net.send(A, b"knock");
        net.run(offset * MILLISECOND);
        net.send(B, b"knock");
        net.run(10 * LATENCY);
        net.exchange();
        for host in &net.hosts {
            assert!(
                !host.refused.contains(&Refusal::Authentication),
                "offset {offset}"
            );
        }
        // And at their renewal: in the end one of them renews, and every packet arrives.
        let mut numbers = [0_u32; 2];
        net.hosts.iter_mut().for_each(|host| host.packets.clear());
        for _ in 0..130 * 20 {
            for from in [A, B] {
                assert!(net.send(from, &numbers[from].to_be_bytes()));
                numbers[from] += 1;
            }
            net.run(50 * MILLISECOND);
        }
        net.run(SECOND);
        for (at, other) in [(A, B), (B, A)] {
            assert_eq!(
                net.hosts[at].packets.len() as u32,
                numbers[other],
                "offset {offset}"
            );
        }
        assert!(
            net.handshakes(A) >= 2 && net.handshakes(A) <= 4,
            "{}",
            net.handshakes(A)
        );
    }
}

#[test]
fn initiations_are_five_seconds_apart_and_end_after_ninety() {
    let mut net = Network::new();
    net.lose = Box::new(|_, _| true);
    net.send(A, b"knock");
    net.run(200 * SECOND);
    let times = net.times(A, INITIATION);
    assert!((16..=19).contains(&times.len()), "{times:?}");
    for pair in times.windows(2) {
        let gap = pair[1].saturating_sub(pair[0]);
        assert!(
            gap >= 5 * SECOND && gap <= Duration::from_millis(5343),
            "{gap:?}"
        );
    }
    assert!(*times.last().unwrap() < 96 * SECOND);
    // New traffic begins anew.
    net.lose = Box::new(|_, _| false);
    net.connect(A);
    net.exchange();
}

#[test]
fn whoever_takes_its_traffic_elsewhere_is_tried_again_though_more_slowly() {
    let mut net = Network::with(
        |peer| peer.retry = Some(30 * SECOND),
        HandshakeLimits::default(),
    );
    net.lose = Box::new(|_, _| true);
    net.send(A, b"knock");
    net.run(100 * SECOND);
    let before = net.sent(A, INITIATION);
    net.run(300 * SECOND);
    let later = net.sent(A, INITIATION) - before;
    assert!((9..=10).contains(&later), "{later} in 300 s");
    net.lose = Box::new(|_, _| false);
    net.run(31 * SECOND);
    assert_eq!(net.handshakes(A), 1);
    net.exchange();
}

#[test]
fn unanswered_handshakes_are_told_of_until_one_is_answered_whatever_is_sent() {
    let mut net = Network::new();
    let status = |net: &Network| {
        let host = &net.hosts[A];
        host.endpoint.status(host.peer).unwrap()
    };
    assert_eq!(status(&net).handshaking, None);
    net.lose = Box::new(|_, _| true);
    let began = net.now;
    for _ in 0..200 {
        net.send(A, b"knock");
        net.run(SECOND);
        assert_eq!(status(&net).handshaking, Some(began));
    }
    // It has given up: that is no answer.
    net.run(200 * SECOND);
    assert_eq!(status(&net).handshaking, Some(began));
    net.lose = Box::new(|_, _| false);
    net.connect(A);
    assert_eq!(status(&net).handshaking, None);
}

#[test]
fn whatever_is_sent_or_received_brings_the_deadline_forward_without_a_poll() {
    let mut net = Network::new();
    net.connect(A);
    net.run(30 * SECOND);
    let due = |net: &Network, at: usize| {
        let deadline = net.hosts[at].endpoint.deadline().unwrap();
        deadline.saturating_duration_since(net.now)
    };
    assert!(due(&net, A) > 100 * SECOND && due(&net, B) > 100 * SECOND);
    assert!(net.send(A, b"data"));
    let data = net.flying.pop_back().unwrap();
    assert!(due(&net, A) <= Duration::from_millis(15_334), "deaf");
    net.deliver(&data);
    assert!(due(&net, B) <= 10 * SECOND, "passive keepalive");
    assert!(due(&net, B) > 9 * SECOND);
}

#[test]
fn with_a_persistent_keepalive_it_never_gives_up_and_needs_no_traffic() {
    let mut net = Network::with(
        |peer| peer.keepalive = Some(25 * SECOND),
        HandshakeLimits::default(),
    );
    net.lose = Box::new(|_, _| true);
    net.run(600 * SECOND);
    assert!(net.sent(A, INITIATION) > 100);
    net.lose = Box::new(|_, _| false);
    net.run(6 * SECOND);
    assert!(net.handshakes(A) > 0);
    net.exchange();
}

#[test]
fn an_idle_tunnel_with_persistent_keepalive_keeps_its_session() {
    let mut net = Network::with(
        |peer| peer.keepalive = Some(25 * SECOND),
        HandshakeLimits::default(),
    );
    net.run(SECOND);
    for _ in 0..720 {
        net.run(5 * SECOND);
        net.exchange_status();
    }
    assert!(net.handshakes(A) >= 29);
}

impl Network {
    fn exchange_status(&self) {
        for host in &self.hosts {
            assert!(host.endpoint.status(host.peer).unwrap().has_session);
        }
    }
}

#[test]
fn a_silent_receiver_says_that_it_hears() {
    let mut net = Network::new();
    net.connect(A);
    let before = net.hosts[A].keepalives;
    for _ in 0..40 {
        assert!(net.send(A, b"one way"));
        net.run(500 * MILLISECOND);
    }
    net.run(15 * SECOND);
    // 20 s of data are answered after 10 s each; no new handshake was needed.
    assert_eq!(net.hosts[A].keepalives - before, 2 + 1);
    assert_eq!(net.handshakes(A), 1);
    assert_eq!(net.sent(A, INITIATION), 1);
}

#[test]
fn a_peer_that_lost_its_session_is_found_out_within_sixteen_seconds() {
    let mut net = Network::new();
    net.connect(A);
    net.exchange();
    net.run(SECOND);
    net.restart(B);
    let began = net.now;
    while net.sent(A, INITIATION) == 1 {
        assert!(net.send(A, b"hello?"));
        net.run(100 * MILLISECOND);
        assert!(net.now - began < 16 * SECOND);
    }
    assert!(net.now - began >= 15 * SECOND);
    net.run(SECOND);
    assert_eq!(net.handshakes(A), 2);
    net.exchange();
}

#[test]
fn a_peer_that_restarts_and_calls_is_heard_at_once() {
    let mut net = Network::new();
    net.connect(A);
    net.exchange();
    net.restart(B);
    net.hosts[B].refused.clear();
    net.connect(B);
    net.exchange();
    assert_eq!(net.sent(A, INITIATION), 1);
}

#[test]
fn the_endpoint_moves_after_an_authenticated_packet_and_not_before() {
    let mut net = Network::new();
    net.connect(A);
    let old = net.hosts[A].address;
    let new = "198.51.100.7:7777".parse().unwrap();
    let known = |net: &Network| {
        net.hosts[B]
            .endpoint
            .status(net.hosts[B].peer)
            .unwrap()
            .endpoint
    };

    // Forged and replayed datagrams from elsewhere move nothing.
    assert!(net.send(A, b"first"));
    let first = net.flying.back().unwrap().clone();
    net.run(2 * LATENCY);
    let mut replayed = first.clone();
    replayed.from = new;
    net.deliver(&replayed);
    assert_eq!(net.hosts[B].refused, [Refusal::Replay]);
    let mut forged = first;
    forged.from = new;
    forged.datagram[8] = 200;
    net.deliver(&forged);
    assert_eq!(
        net.hosts[B].refused,
        [Refusal::Replay, Refusal::Authentication]
    );
    assert_eq!(known(&net), Some(old));

    net.hosts[A].address = new;
    assert!(net.send(A, b"from the new address"));
    net.run(2 * LATENCY);
    assert_eq!(known(&net), Some(new));
    net.exchange();
}

#[test]
fn an_old_initiation_that_is_played_after_a_restart_moves_nothing() {
    let mut net = Network::new();
    net.send(A, b"knock");
    let recorded = net.flying.front().unwrap().clone();
    net.run(5 * LATENCY);
    net.restart(B);
    let known = net.hosts[A].address;
    let mut replayed = recorded;
    replayed.from = "198.51.100.66:666".parse().unwrap();
    net.deliver(&replayed);
    let host = &net.hosts[B];
    let status = host.endpoint.status(host.peer).unwrap();
    assert_eq!(status.endpoint, Some(known));
    assert_eq!(status.last_received, None);
    assert!(!status.has_session && status.called.is_some());
    // Our own handshake goes where it always went, and is delayed by a second at most.
    net.send(B, b"knock");
    net.run(SECOND + 5 * LATENCY);
    net.exchange();
}

#[test]
fn old_initiations_that_are_played_all_the_time_do_not_keep_us_from_our_own() {
    let mut net = Network::new();
    let recorded = Rc::new(RefCell::new(Vec::new()));
    let all = Rc::clone(&recorded);
    net.lose = Box::new(move |from, datagram| {
        if from == A {
            all.borrow_mut().push(datagram.to_vec());
        }
        true
    });
    net.send(A, b"knock");
    net.run(60 * SECOND);
    assert!(recorded.borrow().len() > 8);
    net.restart(B);
    let before = net.sent(B, INITIATION);
    let [from, to] = [A, B].map(|at| net.hosts[at].address);
    for datagram in recorded.take() {
        let arrives = net.now;
        net.deliver(&Flying {
            arrives,
            from,
            to,
            datagram,
        });
        net.send(B, b"knock");
        net.run(SECOND / 4);
    }
    assert_eq!(net.sent(B, INITIATION) - before, 1);
}

#[test]
fn an_end_without_an_address_waits_to_be_called() {
    let mut net = Network::new();
    let key = PrivateKey::generate().unwrap();
    let now = net.now;
    let mut far = peer(&key, None);
    far.keepalive = Some(SECOND);
    let host = &mut net.hosts[B];
    let id = host.endpoint.add_peer(now, &far).unwrap();
    let mut out = Vec::new();
    for second in 0..100 {
        host.endpoint
            .poll(now + second * SECOND, &mut collect(&mut out));
    }
    assert!(out.is_empty());
    assert_eq!(host.endpoint.status(id).unwrap().endpoint, None);
}

#[test]
fn peers_are_added_once_and_only_with_keys_that_agree() {
    let mut net = Network::new();
    let now = net.now;
    let key = PrivateKey::generate().unwrap();
    let endpoint = &mut net.hosts[A].endpoint;
    let own = endpoint.public_key();
    let mut far = peer(&key, None);
    let id = endpoint.add_peer(now, &far).unwrap();
    assert_eq!(endpoint.add_peer(now, &far), None);
    endpoint.remove_peer(id);
    assert_eq!(endpoint.status(id), None);
    let again = endpoint.add_peer(now, &far).unwrap();
    assert_eq!(again, id, "the place is used again");
    far.public_key = own.0;
    assert_eq!(endpoint.add_peer(now, &far), None);
    far.public_key = [0; 32];
    assert_eq!(endpoint.add_peer(now, &far), None);
    endpoint.remove_peer(PeerId(999));
}

#[test]
fn peers_may_come_and_go_without_end_and_none_gets_what_was_for_another() {
    let mut net = Network::new();
    net.connect(A);
    assert!(net.send(A, b"for the old one"));
    let late = net.flying.pop_back().unwrap();
    let now = net.now;
    let known = net.hosts[B].peer;
    let endpoint = &mut net.hosts[B].endpoint;
    endpoint.remove_peer(known);
    let key = PrivateKey::generate().unwrap();
    // Each takes the place of the one before it, so there is no end to them.
    for _ in 0..1000 {
        let id = endpoint.add_peer(now, &peer(&key, None)).unwrap();
        assert_eq!(id, known);
        endpoint.remove_peer(id);
    }
    endpoint.add_peer(now, &peer(&key, None)).unwrap();
    net.deliver(&late);
    assert_eq!(net.hosts[B].refused, [Refusal::UnknownIndex]);
}

#[test]
fn an_endpoint_can_be_made_in_one_thread_and_used_in_another() {
    fn assert_send<T: Send>(_: &T) {}
    let net = Network::new();
    assert_send(&net.hosts[A].endpoint);
}

#[test]
fn an_initiation_that_is_handed_from_worker_to_worker_is_paid_for_once() {
    let mut net = Network::new();
    let now = net.now;
    // Workers of one gateway share key and limiter; the last knows the peer. There is one token.
    let limits = HandshakeLimits {
        source_burst: 1,
        total_burst: 1,
        ..HandshakeLimits::default()
    };
    let limiter = Arc::new(Limiter::new(now, limits).unwrap());
    let mut workers = [3, 5, 9]
        .map(|worker| Endpoint::new(net.keys[B].clone(), Arc::clone(&limiter), worker, clock()));
    let id = workers[2].add_peer(now, &peer(&net.keys[A], None)).unwrap();
    net.send(A, b"knock");
    let mut initiation = net.flying.pop_front().unwrap();
    let mut out = Vec::new();
    let read = workers[0].receive(
        now,
        initiation.from,
        &mut initiation.datagram,
        &mut collect(&mut out),
    );
    let Received::Foreign(call) = read else {
        panic!("{read:?}");
    };
    let Received::Foreign(call) = workers[1].answer(now, call, &mut collect(&mut out)) else {
        panic!("the second does not know it either");
    };
    let answered = workers[2].answer(now, call, &mut collect(&mut out));
    assert!(matches!(answered, Received::Control { peer: Some(peer) } if peer == id));
    // The response carries the worker's number in its sender index, and so does all data that follows.
    assert_eq!(out[0].1[7], 9);
    net.launch(B, out);
    net.run(2 * LATENCY);
    net.send(A, b"data");
    let data = &net.flying.back().unwrap().datagram;
    assert_eq!(worker_of(receiver_index(data).unwrap()), 9);
}

#[test]
fn the_worker_stands_in_every_datagram_that_has_a_receiver() {
    let mut net = Network::new();
    net.connect(A);
    net.exchange();
    net.send(A, b"one more");
    let flying = net.flying.back().unwrap();
    let index = receiver_index(&flying.datagram).unwrap();
    assert_eq!(worker_of(index), 0);
    assert_eq!(flying.datagram[7], worker_of(index));
}
