//! Sessions take turns: what is on its way is not lost, what is old is refused.

use crate::network::{
    A, B, DATA, INITIATION, LATENCY, MILLISECOND, Network, RESPONSE, SECOND, kind,
};
use crypto::tunnel::{Endpoint as _, Refusal};
use crypto::wireguard::Train;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// An hour of packets both ways: 1,000 a second around every renewal, 10 a second in between. Gives how many
/// were sent, received, and how many datagrams were refused.
fn hour(net: &mut Network) -> (u64, u64, usize) {
    let (mut sent, mut received) = (0_u64, 0_u64);
    let mut refused = 0;
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
            refused += std::mem::take(&mut host.refused).len();
            host.packets.clear();
        }
    }
    net.run(SECOND);
    received += net
        .hosts
        .iter()
        .map(|host| host.packets.len() as u64)
        .sum::<u64>();
    (sent, received, refused)
}

/// The end that stays the initiator when both begin, and the one that yields.
fn order(net: &Network) -> (usize, usize) {
    if net.keys[A].public_key() < net.keys[B].public_key() {
        (A, B)
    } else {
        (B, A)
    }
}

#[test]
fn an_hour_of_traffic_is_rekeyed_every_two_minutes_without_loss() {
    let mut net = Network::new();
    net.connect(A);
    let established = net.handshakes(A);
    let (sent, received, refused) = hour(&mut net);
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
fn after_a_simultaneous_start_every_renewal_dropped_what_was_on_its_way() {
    for offset in [0, 19] {
        let mut net = Network::new();
        let (first, second) = if offset == 0 { (A, B) } else { (B, A) };
        net.send(first, b"knock");
        net.run(offset * MILLISECOND);
        net.send(second, b"knock");
        net.run(5 * LATENCY);
        assert_eq!((net.sent(A, INITIATION), net.sent(B, INITIATION)), (1, 1));
        let (sent, received, refused) = hour(&mut net);
        assert_eq!((received, refused), (sent, 0), "offset {offset}");
        let (stays, yields) = order(&net);
        assert_eq!(net.sent(yields, INITIATION), 1, "it renews nothing");
        let initiations = net.sent(stays, INITIATION);
        assert!((30..=31).contains(&initiations), "{initiations}");
    }
}

/// The same sequence in every run: evenly spread numbers below `end`.
fn numbers(end: u32) -> impl FnMut() -> u32 {
    let mut state = 1_u64;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32 % end
    }
}

#[test]
fn after_a_simultaneous_start_late_datagrams_are_not_lost() {
    let mut net = Network::new();
    let mut draw = numbers(1200);
    // One in 20 is late, by up to 60 ms.
    net.delay = Box::new(move || match draw() {
        late @ 0..60 => late * MILLISECOND,
        _ => Duration::ZERO,
    });
    net.send(A, b"knock");
    net.send(B, b"knock");
    net.run(SECOND);
    let (sent, received, refused) = hour(&mut net);
    assert_eq!((received, refused), (sent, 0));
}

#[test]
fn after_a_simultaneous_start_only_the_path_loses() {
    let mut net = Network::new();
    let mut draw = numbers(50);
    let lost = Rc::new(Cell::new(0));
    let count = Rc::clone(&lost);
    // A keepalive is 32 bytes long.
    net.lose = Box::new(move |_, datagram| {
        let loses = draw() == 0;
        if loses && kind(datagram) == DATA && datagram.len() > 32 {
            count.set(count.get() + 1);
        }
        loses
    });
    for _ in 0..20 {
        net.send(A, b"knock");
        net.send(B, b"knock");
        net.run(SECOND);
    }
    net.hosts.iter_mut().for_each(|host| host.packets.clear());
    lost.set(0);
    let (sent, received, refused) = hour(&mut net);
    assert!(lost.get() > 0);
    assert_eq!((received + lost.get(), refused), (sent, 0));
}

/// A packet each way every second; every one must find a session and arrive.
fn carries(net: &mut Network, seconds: usize, case: &str) {
    net.hosts.iter_mut().for_each(|host| host.packets.clear());
    for second in 0..seconds {
        for from in [A, B] {
            assert!(net.send(from, b"packet"), "{case}: {from} at {second}");
        }
        net.run(SECOND);
    }
    for host in &net.hosts {
        assert_eq!(host.packets.len(), seconds, "{case}");
    }
}

#[test]
fn after_a_simultaneous_start_one_end_renews_whatever_was_lost() {
    // Each bit loses one of the handshake's messages: by A and by B its initiation, its response, the
    // first packet.
    for lost in 0..64_u8 {
        let mut net = Network::new();
        let mut left = lost;
        net.lose = Box::new(move |from, datagram| {
            let message = match kind(datagram) {
                INITIATION => 0,
                RESPONSE => 1,
                DATA => 2,
                _ => return false,
            };
            let bit = 1 << (3 * from + message);
            let loses = left & bit != 0;
            left &= !bit;
            loses
        });
        let case = format!("{lost:06b}");
        for second in 0..20 {
            net.send(A, b"knock");
            net.send(B, b"knock");
            net.run(SECOND);
            assert!(second < 19 || net.flying.is_empty());
        }
        net.lose = Box::new(|_, _| false);
        let before = [A, B].map(|at| net.sent(at, INITIATION));
        carries(&mut net, 500, &case);
        let mut renewals = [A, B].map(|at| net.sent(at, INITIATION) - before[at]);
        renewals.sort_unstable();
        assert!(
            renewals[0] == 0 && (4..=5).contains(&renewals[1]),
            "{case}: {renewals:?}"
        );
    }
}

#[test]
fn datagrams_that_overtake_each_other_leave_no_session_without_renewal() {
    let mut net = Network::new();
    let (stays, yields) = order(&net);
    let only = |net: &mut Network| {
        assert_eq!(net.flying.len(), 1);
        net.flying.pop_back().unwrap()
    };
    net.send(stays, b"knock");
    let call = only(&mut net);
    net.send(yields, b"knock");
    let late_call = only(&mut net);
    net.deliver(&call);
    let response = only(&mut net);
    net.deliver(&response);
    let late_keepalive = only(&mut net);
    net.deliver(&late_call);
    let response = only(&mut net);
    net.deliver(&response);
    let keepalive = only(&mut net);
    // Each end moves to the session of the other.
    net.deliver(&keepalive);
    net.deliver(&late_keepalive);
    assert!(net.flying.is_empty());
    carries(&mut net, 500, "crossed");
    assert!(net.hosts.iter().all(|host| host.refused.is_empty()));
    let before = net.sent(yields, INITIATION);
    carries(&mut net, 500, "after the first renewal");
    assert_eq!(net.sent(yields, INITIATION), before);
}

#[test]
fn an_initiation_that_overtakes_the_packets_before_it_does_not_cost_them() {
    let mut net = Network::new();
    let mut once = true;
    net.lose = Box::new(move |_, datagram| kind(datagram) == DATA && std::mem::take(&mut once));
    // Its confirmation is lost: for B the session still waits.
    net.send(A, b"knock");
    net.run(121 * SECOND);
    assert!(net.send(A, b"renews"));
    let initiation = net
        .flying
        .iter()
        .position(|flying| kind(&flying.datagram) == INITIATION)
        .unwrap();
    let initiation = net.flying.remove(initiation).unwrap();
    net.deliver(&initiation);
    net.run(SECOND);
    assert_eq!(net.hosts[B].packets.len(), 1);
    assert!(net.hosts[B].refused.is_empty());
    net.exchange();
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
    let (stays, yields) = order(&net);
    let initiations = |net: &Network| (net.sent(stays, INITIATION), net.sent(yields, INITIATION));
    assert_eq!(initiations(&net), (1, 1));
    // Both have begun one, and both are old enough.
    assert!(net.send(yields, b"does not"));
    assert_eq!(initiations(&net), (1, 1));
    assert!(net.send(stays, b"renews"));
    net.run(10 * SECOND);
    assert_eq!(initiations(&net), (2, 1));
    net.run(110 * SECOND);
    assert!(net.send(yields, b"does not"));
    assert_eq!(initiations(&net), (2, 1));
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
