//! Sessions take turns: what is on its way is not lost, what is old is refused.

use crate::network::{A, B, INITIATION, LATENCY, MILLISECOND, Network, SECOND};
use crypto::train::Train;
use crypto::tunnel::{Endpoint as _, Refusal};

#[test]
fn an_hour_of_traffic_is_rekeyed_every_two_minutes_without_loss() {
    let mut net = Network::new();
    net.connect(A);
    let established = net.handshakes(A);
    let (mut sent, mut received) = (0_u64, 0_u64);
    let mut refused = 0;
    // 1,000 packets a second around every renewal, 10 a second in between.
    for second in 0..3600 {
        let busy = (second + 5) % 120 < 10;
        let (count, pause) = if busy {
            (1000, MILLISECOND)
        } else {
            (10, 100 * MILLISECOND)
        };
        for _ in 0..count {
            for from in [A, B] {
                assert!(net.send(from, &sent.to_be_bytes()), "at second {second}");
                sent += 1;
            }
            net.run(pause);
        }
        for host in &mut net.hosts {
            received += host.packets.len() as u64;
            refused += host.refused.len();
            host.packets.clear();
        }
    }
    net.run(SECOND);
    received += net
        .hosts
        .iter()
        .map(|host| host.packets.len() as u64)
        .sum::<u64>();
    assert_eq!(received, sent);
    assert_eq!(refused, 0);
    let renewed = net.handshakes(A) - established;
    assert!((29..=30).contains(&renewed), "{renewed} renewals");
    assert_eq!(net.handshakes(B), net.handshakes(A));
    assert_eq!(
        net.sent(B, INITIATION),
        0,
        "the initiator renews, and only it"
    );
    for pair in net.times(A, INITIATION).windows(2) {
        let age = pair[1].saturating_sub(pair[0]);
        assert!(age >= 120 * SECOND && age < 122 * SECOND, "{age:?}");
    }
}

#[test]
fn what_is_on_its_way_during_a_renewal_arrives_though_out_of_order() {
    let mut net = Network::new();
    net.connect(A);
    for round in 0..5 {
        net.run(120 * SECOND);
        // Sealed with the old session, and held back while the new one comes into use.
        let mut held = Vec::new();
        for from in [A, B] {
            for _ in 0..50 {
                assert!(net.send(from, &[round; 20]));
            }
            held.extend(
                net.flying
                    .drain(..)
                    .filter(|flying| flying.datagram[0] == 4),
            );
        }
        let renewed = net.handshakes(A);
        // The initiation was among what was sent; let the handshake run.
        net.run(SECOND);
        if net.handshakes(A) == renewed {
            net.send(A, b"once more");
            net.run(6 * SECOND);
        }
        assert_eq!(net.handshakes(A), renewed + 1);
        net.exchange();
        net.hosts.iter_mut().for_each(|host| host.packets.clear());
        for flying in held.iter().rev() {
            net.deliver(flying);
        }
        let arrived: usize = net.hosts.iter().map(|host| host.packets.len()).sum();
        assert_eq!(arrived, 100, "round {round}");
        // Once only.
        for flying in &held {
            net.deliver(flying);
        }
        assert_eq!(
            net.hosts
                .iter()
                .map(|host| host.packets.len())
                .sum::<usize>(),
            100
        );
    }
}

#[test]
fn an_expired_session_neither_seals_nor_opens() {
    let mut net = Network::new();
    net.connect(A);
    assert!(net.send(A, b"late"));
    let late = net.flying.pop_back().unwrap();
    net.lose = Box::new(|_, _| true);
    let status = |net: &Network, at: usize| {
        let host = &net.hosts[at];
        host.endpoint.status(host.peer).unwrap()
    };
    net.run(179 * SECOND);
    assert!(status(&net, B).has_session);
    net.run(2 * SECOND);
    assert!(!status(&net, A).has_session && !status(&net, B).has_session);
    net.deliver(&late);
    assert_eq!(net.hosts[B].refused.last(), Some(&Refusal::UnknownIndex));
    assert!(!net.send(A, b"no session"));
    assert!(!net.send(B, b"no session"));
}

#[test]
fn an_expired_session_does_not_open_though_no_timer_has_run() {
    let mut net = Network::new();
    net.connect(A);
    assert!(net.send(A, b"in time"));
    assert!(net.send(A, b"late"));
    let late = net.flying.pop_back().unwrap();
    let in_time = net.flying.pop_back().unwrap();
    net.now += 179 * SECOND;
    net.deliver(&in_time);
    assert_eq!(net.hosts[B].packets.len(), 1);
    net.now += 2 * SECOND;
    net.deliver(&late);
    assert_eq!(net.hosts[B].refused, [Refusal::UnknownIndex]);
}

#[test]
fn of_two_initiators_only_one_renews() {
    let mut net = Network::new();
    net.send(A, b"knock");
    net.send(B, b"knock");
    net.run(121 * SECOND);
    assert_eq!((net.sent(A, INITIATION), net.sent(B, INITIATION)), (1, 1));
    // Both sessions are old enough, each end began its own. A is first; B has answered by the time it sends.
    assert!(net.send(A, b"renews"));
    net.run(LATENCY + MILLISECOND);
    assert!(net.send(B, b"does not"));
    net.run(10 * SECOND);
    assert_eq!((net.sent(A, INITIATION), net.sent(B, INITIATION)), (2, 1));
    // From now on B is the responder.
    net.run(110 * SECOND);
    assert!(net.send(B, b"does not"));
    assert_eq!(net.sent(B, INITIATION), 1);
}

#[test]
fn an_initiator_that_hears_data_at_the_end_of_a_session_renews_at_once() {
    let mut net = Network::new();
    net.connect(A);
    net.run(166 * SECOND);
    assert!(net.send(B, b"are you there?"));
    net.run(SECOND);
    assert_eq!(net.handshakes(A), 2);
}

#[test]
fn a_receiver_renews_in_time_though_it_never_sends() {
    let mut net = Network::new();
    net.connect(A);
    // B began nothing, and only B sends: A, the initiator, must renew before 180 s.
    for _ in 0..300 {
        assert!(net.send(B, b"one way"));
        net.run(SECOND);
    }
    assert!(net.handshakes(A) >= 2);
    assert_eq!(net.hosts[A].packets.len(), 300);
}

#[test]
fn a_train_is_sealed_whole_and_opens_slot_by_slot() {
    let mut net = Network::new();
    net.connect(A);
    let mut train = Train::new(1420);
    for number in 0..45_u8 {
        train.push(1368).unwrap().fill(number);
    }
    train.push(77).unwrap().fill(99);
    // The last slots are too many for one datagram's size; the train says so itself.
    let slots = train.len();
    assert!(net.send_train(A, &mut train));
    net.run(2 * LATENCY);
    let packets = &net.hosts[B].packets;
    assert_eq!(packets.len(), slots);
    assert_eq!(packets[0].len(), 1376);
    assert!(packets[44][..1368].iter().all(|byte| *byte == 44));
    assert_eq!(packets[45].len(), 80);
    assert_eq!(packets[45][77..], [0; 3]);
}
