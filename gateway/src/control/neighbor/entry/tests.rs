use super::*;
use proptest::prelude::*;

const A: Mac = [2, 0, 0, 0, 0, 0xa];
const B: Mac = [2, 0, 0, 0, 0, 0xb];
const MS: Duration = Duration::from_millis(1);
const ANSWER: Heard = Heard {
    mac: Some(A),
    solicited: true,
    replaces: true,
};

/// Runs from deadline to deadline until `end` without an answer.
fn silence(neighbor: &mut Neighbor, start: Instant, end: Instant) -> Vec<(Duration, Solicit)> {
    let mut asked = Vec::new();
    while neighbor.deadline().unwrap() < end {
        let now = neighbor.deadline().unwrap();
        asked.extend(neighbor.poll(now).map(|s| (now - start, s)));
        assert!(neighbor.deadline().unwrap() > now);
    }
    asked
}

fn resolved(now: Instant) -> Neighbor {
    let mut neighbor = Neighbor::new(now);
    assert_eq!(neighbor.poll(now), Some(Solicit::Everybody));
    neighbor.heard(now, ANSWER);
    neighbor
}

#[test]
fn a_resolution_asks_quickly_fails_and_goes_on_asking() {
    let now = Instant::now();
    let mut neighbor = Neighbor::new(now);
    let asked = silence(&mut neighbor, now, now + MS * 20_000);
    let times: Vec<_> = asked.iter().map(|a| a.0.as_millis()).collect();
    assert_eq!(times, [0, 100, 400, 2400, 4400, 8400, 13400, 18400]);
    assert!(asked.iter().all(|a| a.1 == Solicit::Everybody));
    assert!(neighbor.is_failed() && !neighbor.is_resolved());
}

#[test]
fn an_answer_resolves_and_holds_for_thirty_seconds() {
    let now = Instant::now();
    let mut neighbor = resolved(now);
    assert_eq!(neighbor.state(), NeighborState::Reachable);
    assert_eq!(neighbor.mac(), Some(A));
    assert_eq!(neighbor.deadline().unwrap(), now + REACHABLE);
    assert_eq!(neighbor.poll(now + REACHABLE), Some(Solicit::Known(A)));
    assert_eq!(neighbor.state(), NeighborState::Probe);
    assert!(neighbor.is_resolved(), "in use while it is confirmed");
    neighbor.heard(now + REACHABLE, ANSWER);
    assert_eq!(neighbor.state(), NeighborState::Reachable);
}

#[test]
fn an_old_address_is_asked_twice_then_everybody_then_it_fails() {
    let now = Instant::now();
    let mut neighbor = resolved(now);
    let asked = silence(&mut neighbor, now, now + REACHABLE + MS * 3001);
    let expected = [
        (MS * 30_000, Solicit::Known(A)),
        (MS * 31_000, Solicit::Known(A)),
        (MS * 32_000, Solicit::Everybody),
    ];
    assert_eq!(asked, expected);
    assert!(neighbor.is_failed());
    assert_eq!(neighbor.mac(), None);
}

#[test]
fn an_unsolicited_address_is_used_but_proves_nothing() {
    let now = Instant::now();
    let mut neighbor = Neighbor::new(now);
    neighbor.heard(
        now,
        Heard {
            solicited: false,
            ..ANSWER
        },
    );
    assert_eq!(neighbor.mac(), Some(A));
    assert!(!neighbor.is_resolved());
    assert_eq!(neighbor.poll(now), Some(Solicit::Known(A)));
    neighbor.heard(now + MS, ANSWER);
    assert!(neighbor.is_resolved());
}

#[test]
fn an_answer_that_nobody_asked_for_proves_nothing() {
    let now = Instant::now();
    let mut neighbor = Neighbor::new(now);
    neighbor.heard(now, ANSWER);
    assert!(!neighbor.is_resolved());
    let later = now + MS * 20_000;
    let mut neighbor = resolved(now);
    neighbor.heard(
        later,
        Heard {
            mac: Some(B),
            ..ANSWER
        },
    );
    assert_eq!(neighbor.state(), NeighborState::Probe);
    assert_eq!(neighbor.last_confirmed(), Some(now));
}

#[test]
fn without_the_override_flag_a_known_address_stays_and_is_doubted() {
    let now = Instant::now();
    let mut neighbor = resolved(now);
    let meek = Heard {
        mac: Some(B),
        solicited: true,
        replaces: false,
    };
    neighbor.heard(now, meek);
    assert_eq!(neighbor.mac(), Some(A));
    assert_eq!(neighbor.poll(now), Some(Solicit::Known(A)));
}

#[test]
fn with_the_override_flag_a_new_address_is_taken_once_the_known_one_is_silent() {
    let now = Instant::now();
    let mut neighbor = resolved(now);
    let gratuitous = Heard {
        mac: Some(B),
        solicited: false,
        replaces: true,
    };
    let answer = Heard {
        mac: Some(B),
        ..ANSWER
    };
    // The known one is asked first, and its answer ends the matter; also an answer of the other does not help it.
    assert_eq!(neighbor.heard(now + MS, gratuitous), None);
    assert_eq!(neighbor.poll(now + MS), Some(Solicit::Known(A)));
    assert_eq!(neighbor.heard(now + MS * 2, answer), None);
    assert_eq!(neighbor.mac(), Some(A));
    let conflict = News::Conflict { used: A, other: B };
    assert_eq!(neighbor.heard(now + MS * 3, ANSWER), Some(conflict));
    assert_eq!(neighbor.state(), NeighborState::Reachable);
    // And its silence gives way.
    let later = now + MS * 20_000;
    assert_eq!(neighbor.heard(later, gratuitous), None);
    assert_eq!(neighbor.poll(later), Some(Solicit::Known(A)));
    assert_eq!(neighbor.poll(later + MS * 100), Some(Solicit::Everybody));
    let changed = News::Changed { from: A, to: B };
    assert_eq!(neighbor.heard(later + MS * 101, answer), Some(changed));
    assert_eq!(neighbor.mac(), Some(B));
}

#[test]
fn an_advertisement_without_an_address_confirms_the_known_one_only() {
    let now = Instant::now();
    let bare = Heard {
        mac: None,
        ..ANSWER
    };
    let mut neighbor = Neighbor::new(now);
    neighbor.poll(now);
    neighbor.heard(now, bare);
    assert_eq!(neighbor.state(), NeighborState::Incomplete);
    let mut neighbor = resolved(now);
    neighbor.poll(now + REACHABLE);
    neighbor.heard(now + REACHABLE, bare);
    assert_eq!(neighbor.state(), NeighborState::Reachable);
}

#[test]
fn a_waiting_packet_makes_a_failed_entry_ask_but_once_a_second() {
    let now = Instant::now();
    let mut neighbor = Neighbor::new(now);
    let end = now + MS * 9000;
    silence(&mut neighbor, now, end);
    neighbor.wanted(end);
    assert_eq!(neighbor.deadline().unwrap(), now + MS * 9400);
    assert!(neighbor.poll(now + MS * 9400).is_some());
    neighbor.wanted(now + MS * 9401);
    assert_eq!(neighbor.deadline().unwrap(), now + MS * 10_400);
}

#[test]
fn a_restart_asks_the_known_address_first_and_wants_proof() {
    let now = Instant::now();
    let mut neighbor = resolved(now);
    neighbor.restart(now + MS);
    assert!(!neighbor.is_resolved());
    let asked = silence(&mut neighbor, now + MS, now + MS * 1400);
    let expected = [
        (Duration::ZERO, Solicit::Known(A)),
        (MS * 100, Solicit::Known(A)),
        (MS * 400, Solicit::Everybody),
    ];
    assert_eq!(asked, expected);
}

#[test]
fn traffic_that_comes_back_spares_the_question() {
    let now = Instant::now();
    let mut neighbor = resolved(now);
    neighbor.confirmed(now + MS * 20_000);
    assert_eq!(neighbor.deadline().unwrap(), now + MS * 20_000 + REACHABLE);
    let mut unknown = Neighbor::new(now);
    unknown.confirmed(now);
    assert_eq!(unknown.state(), NeighborState::Incomplete);
}

#[test]
fn a_lost_probe_asks_the_known_address_and_then_everybody_at_once() {
    let now = Instant::now();
    let mut neighbor = resolved(now);
    let lost = now + MS * 5000;
    neighbor.doubted(lost);
    let asked = silence(&mut neighbor, lost, lost + MS * 2900);
    let expected = [
        (Duration::ZERO, Solicit::Known(A)),
        (MS * 100, Solicit::Everybody),
        (MS * 1000, Solicit::Everybody),
    ];
    assert_eq!(asked, expected);
    assert!(neighbor.is_resolved(), "in use while it is doubted");
    let answer = Heard {
        mac: Some(B),
        ..ANSWER
    };
    let changed = News::Changed { from: A, to: B };
    assert_eq!(neighbor.heard(lost + MS * 2900, answer), Some(changed));
    assert_eq!(neighbor.mac(), Some(B));
    assert_eq!(neighbor.previous(lost + MS * 2900).map(|p| p.0), Some(A));
}

#[test]
fn probes_that_go_on_being_lost_ask_once_a_second() {
    let now = Instant::now();
    let mut neighbor = resolved(now);
    let mut asked = 0;
    for tick in 0..100 {
        let at = now + MS * (2000 + tick * 100);
        neighbor.doubted(at);
        if neighbor.poll(at).is_some() {
            asked += 1;
            neighbor.heard(at, ANSWER);
        }
    }
    assert!((9..=11).contains(&asked), "{asked}");
    assert!(neighbor.is_resolved());
}

#[test]
fn a_neighbour_that_comes_back_with_another_address_is_news() {
    let now = Instant::now();
    let mut neighbor = resolved(now);
    silence(&mut neighbor, now, now + REACHABLE + MS * 5000);
    assert!(neighbor.is_failed());
    let at = now + REACHABLE + MS * 5000;
    let answer = Heard {
        mac: Some(B),
        ..ANSWER
    };
    let changed = News::Changed { from: A, to: B };
    assert_eq!(neighbor.heard(at, answer), Some(changed));
    let mut same = resolved(now);
    silence(&mut same, now, at);
    assert_eq!(same.heard(at, ANSWER), None);
}

#[test]
fn of_two_that_answer_the_first_holds_and_both_are_told() {
    let now = Instant::now();
    let mut neighbor = resolved(now);
    let second = Heard {
        mac: Some(B),
        ..ANSWER
    };
    let conflict = News::Conflict { used: A, other: B };
    assert_eq!(neighbor.heard(now + MS, second), Some(conflict));
    assert_eq!(neighbor.mac(), Some(A));
    assert_eq!(neighbor.rival(now + MS), Some(B));
    assert_eq!(neighbor.heard(now + MS * 2, second), None, "told once");
    assert_eq!(neighbor.rival(now + MS + REMEMBERED * 2), None);
}

#[test]
fn an_address_that_goes_to_and_fro_is_a_conflict() {
    let now = Instant::now();
    let mut neighbor = resolved(now);
    let announced = |mac| Heard {
        mac: Some(mac),
        solicited: false,
        replaces: true,
    };
    let changed = News::Changed { from: A, to: B };
    assert_eq!(neighbor.heard(now + MS, announced(B)), None);
    assert_eq!(neighbor.poll(now + MS), Some(Solicit::Known(A)));
    assert_eq!(neighbor.poll(now + MS * 101), Some(Solicit::Everybody));
    assert_eq!(neighbor.heard(now + MS * 102, announced(B)), Some(changed));
    // The one before comes back, and the one in use answers for itself.
    assert_eq!(neighbor.heard(now + MS * 103, announced(A)), None);
    assert_eq!(neighbor.poll(now + MS * 103), Some(Solicit::Known(B)));
    let answer = Heard {
        mac: Some(B),
        ..ANSWER
    };
    let conflict = News::Conflict { used: B, other: A };
    assert_eq!(neighbor.heard(now + MS * 104, answer), Some(conflict));
    assert_eq!(neighbor.rival(now + MS * 104), Some(A));
}

#[test]
fn a_given_address_holds_whatever_anybody_says() {
    let now = Instant::now();
    let mut neighbor = Neighbor::fixed(now, A);
    assert_eq!((neighbor.deadline(), neighbor.poll(now)), (None, None));
    let forged = Heard {
        mac: Some(B),
        ..ANSWER
    };
    let conflict = News::Conflict { used: A, other: B };
    assert_eq!(neighbor.heard(now, forged), Some(conflict));
    neighbor.doubted(now);
    neighbor.restart(now);
    neighbor.wanted(now);
    assert_eq!(neighbor.mac(), Some(A));
    assert_eq!(neighbor.state(), NeighborState::Static);
    assert!(neighbor.is_resolved() && !neighbor.is_failed());
}

proptest! {
    #[test]
    fn whatever_is_heard_the_clock_moves_on_and_proof_needs_a_question(
        steps in prop::collection::vec(
            (0_u32..40_000, any::<bool>(), any::<bool>(), prop::option::of(any::<bool>())),
            0..100,
        )
    ) {
        let mut now = Instant::now();
        let mut neighbor = Neighbor::new(now);
        let mut asked = None;
        for (wait, solicited, replaces, mac) in steps {
            now += MS * wait;
            if neighbor.poll(now).is_some() {
                asked = Some(now);
            }
            prop_assert!(neighbor.deadline().unwrap() > now);
            let before = neighbor.last_confirmed();
            let mac = mac.map(|b| if b { A } else { B });
            neighbor.heard(now, Heard { mac, solicited, replaces });
            if neighbor.last_confirmed() != before {
                prop_assert!(solicited);
                prop_assert!(asked.is_some_and(|at| now - at <= LONGEST_RETRY));
            }
        }
    }
}
