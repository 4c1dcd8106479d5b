use super::*;
use proptest::prelude::*;

const S: Duration = Duration::from_secs(1);
const PATH: PathId = PathId(3);

fn link(interface: Interface, neighbor: Reachability, verdict: Verdict) -> Evidence {
    Evidence {
        interface: Some(interface),
        neighbor: Some(neighbor),
        probe: Some(Probed {
            verdict,
            impaired: false,
            elsewhere: false,
        }),
        ..Evidence::default()
    }
}

fn good() -> Evidence {
    link(Interface::Up, Reachability::Resolved, Verdict::Pass)
}

fn no_carrier() -> Evidence {
    link(Interface::NoCarrier, Reachability::Resolved, Verdict::Pass)
}

fn started() -> (Health, Instant) {
    let now = Instant::now();
    (Health::new(now, PATH, S * 5), now)
}

fn tunnel(tunnel: Tunnel) -> Evidence {
    Evidence {
        tunnel: Some(tunnel),
        ..Evidence::default()
    }
}

#[test]
fn the_first_up_is_immediate_even_after_a_fault() {
    let (mut health, now) = started();
    assert_eq!(health.usability(), Usability::LastResort);
    let pending = link(Interface::Up, Reachability::Unknown, Verdict::Unknown);
    assert_eq!(health.update(now, pending), None);
    health.update(now, no_carrier());
    assert_eq!(health.usability(), Usability::None);
    let change = health.update(now + S, good()).unwrap();
    assert_eq!(
        change,
        StateChange {
            at: now + S,
            path: PATH,
            from: State::Down(Reason::NoCarrier),
            to: State::Up
        }
    );
}

#[test]
fn going_down_is_at_once_and_coming_back_waits_the_hold_down() {
    let (mut health, now) = started();
    health.update(now, good());
    assert!(health.update(now + S, no_carrier()).is_some());
    assert_eq!(health.usability(), Usability::None);
    health.update(now + S * 2, good());
    assert_eq!(health.state(), State::Holding);
    assert_eq!(health.usability(), Usability::LastResort);
    assert_eq!(health.deadline(), Some(now + S * 7));
    assert_eq!(health.update(now + S * 6, good()), None);
    assert!(health.update(now + S * 7, good()).is_some());
    assert_eq!(health.state(), State::Up);
    assert_eq!(health.deadline(), None);
}

#[test]
fn a_fault_during_the_hold_down_starts_it_again() {
    let (mut health, now) = started();
    health.update(now, good());
    health.update(now, no_carrier());
    health.update(now + S, good());
    health.update(now + S * 4, no_carrier());
    assert_eq!(health.usability(), Usability::None);
    health.update(now + S * 5, good());
    health.update(now + S * 9, good());
    assert_eq!(health.state(), State::Holding);
    health.update(now + S * 10, good());
    assert_eq!(health.state(), State::Up);
}

#[test]
fn lost_probes_during_the_hold_down_start_it_again() {
    let (mut health, now) = started();
    health.update(now, good());
    health.update(now, no_carrier());
    health.update(now + S, good());
    let mut impaired = good();
    impaired.probe = Some(Probed {
        verdict: Verdict::Pass,
        impaired: true,
        elsewhere: false,
    });
    health.update(now + S * 4, impaired);
    health.update(now + S * 6, good());
    assert_eq!(health.state(), State::Holding);
    assert_eq!(health.deadline(), Some(now + S * 9));
}

#[test]
fn the_lowest_fault_is_the_reason() {
    let (mut health, now) = started();
    let all = link(Interface::NoCarrier, Reachability::Failed, Verdict::Fail);
    health.update(now, all);
    assert_eq!(health.state(), State::Down(Reason::NoCarrier));
    health.update(
        now + S,
        link(Interface::Up, Reachability::Failed, Verdict::Fail),
    );
    assert_eq!(health.state(), State::Down(Reason::NeighborFailed));
    assert_eq!(health.since(), now, "the outage began with the first fault");
}

#[test]
fn a_path_that_is_down_stays_down_until_something_speaks_for_it() {
    let (mut health, now) = started();
    health.update(now, good());
    health.update(now, no_carrier());
    let pending = link(Interface::Up, Reachability::Unknown, Verdict::Unknown);
    health.update(now + S, pending);
    assert_eq!(health.state(), State::Down(Reason::NeighborPending));
}

#[test]
fn a_path_that_is_up_outlives_a_question_that_is_asked_again() {
    let (mut health, now) = started();
    health.update(now, good());
    let asking = link(Interface::Up, Reachability::Unknown, Verdict::Pass);
    assert_eq!(health.update(now + S, asking), None);
    assert_eq!(health.state(), State::Up);
}

#[test]
fn one_family_without_neighbor_only_degrades() {
    let (mut health, now) = started();
    health.update(
        now,
        link(Interface::Up, Reachability::Partial, Verdict::Pass),
    );
    assert_eq!(health.state(), State::Degraded(Reason::NeighborPartial));
    assert_eq!(health.usability(), Usability::Full);
}

#[test]
fn a_tunnel_that_nobody_has_needed_is_usable() {
    let (mut health, now) = started();
    let idle = Tunnel {
        has_endpoint: true,
        ..Tunnel::default()
    };
    health.update(now, tunnel(idle));
    assert_eq!(health.state(), State::Idle);
    assert_eq!(health.usability(), Usability::Full);
}

#[test]
fn a_tunnel_whose_peer_never_called_is_down() {
    let (mut health, now) = started();
    health.update(now, tunnel(Tunnel::default()));
    assert_eq!(health.state(), State::Down(Reason::NoEndpoint));
}

#[test]
fn unanswered_handshakes_take_the_tunnel_down_after_fifteen_seconds() {
    let (mut health, now) = started();
    let calling = Tunnel {
        has_endpoint: true,
        handshaking: Some(now),
        ..Tunnel::default()
    };
    health.update(now, tunnel(calling));
    let deadline = health.deadline().unwrap();
    assert_eq!(deadline, now + HANDSHAKE_PATIENCE);
    assert_eq!(health.update(now + S * 14, tunnel(calling)), None);
    health.update(deadline, tunnel(calling));
    assert_eq!(health.state(), State::Down(Reason::HandshakeFailed));
    // However often packets have begun it anew, and also once WireGuard has given up: nobody answers.
    health.update(now + S * 300, tunnel(calling));
    assert_eq!(health.state(), State::Down(Reason::HandshakeFailed));
    assert_eq!(health.deadline(), None);
    let back = now + S * 301;
    let answered = Tunnel {
        handshaking: None,
        has_session: true,
        established: Some(back),
        received: Some(back),
        ..calling
    };
    health.update(back, tunnel(answered));
    assert_eq!(health.state(), State::Holding, "flows have moved away");
    health.update(back + S * 6, tunnel(answered));
    assert_eq!(health.state(), State::Up);
}

#[test]
fn a_site_that_calls_for_the_first_time_takes_packets_before_control_has_heard_of_its_session() {
    let (mut health, now) = started();
    health.update(now, tunnel(Tunnel::default()));
    let calling = Tunnel {
        called: Some(now + S),
        ..Tunnel::default()
    };
    health.update(now + S, tunnel(calling));
    assert_eq!(health.state(), State::Starting);
    assert_eq!(health.usability(), Usability::LastResort);
    // Nobody uses the session: an old call, played once more.
    assert_eq!(health.deadline(), Some(now + S + CALL_PATIENCE));
    health.update(now + S * 7, tunnel(calling));
    assert_eq!(health.state(), State::Down(Reason::NoEndpoint));

    let mut evidence = tunnel(Tunnel {
        has_session: true,
        has_endpoint: true,
        established: Some(now + S * 8),
        ..Tunnel::default()
    });
    evidence.probe = Some(Probed {
        verdict: Verdict::Unknown,
        impaired: false,
        elsewhere: false,
    });
    health.update(now + S * 8, evidence);
    assert_eq!(health.usability(), Usability::LastResort, "not tried yet");
}

#[test]
fn a_session_that_still_delivers_outlives_a_failing_rekey() {
    let (mut health, now) = started();
    let rekeying = Tunnel {
        has_session: true,
        has_endpoint: true,
        established: Some(now),
        received: Some(now + S * 134),
        handshaking: Some(now + S * 120),
        ..Tunnel::default()
    };
    health.update(now + S * 135, tunnel(rekeying));
    assert_eq!(health.state(), State::Degraded(Reason::HandshakeFailed));
    assert_eq!(health.deadline(), Some(now + S * 149));
    health.update(now + S * 149, tunnel(rekeying));
    assert_eq!(health.state(), State::Down(Reason::HandshakeFailed));
}

#[test]
fn an_old_session_is_none() {
    let (mut health, now) = started();
    let old = Tunnel {
        has_session: true,
        has_endpoint: true,
        established: Some(now),
        ..Tunnel::default()
    };
    health.update(now, tunnel(old));
    assert_eq!(health.state(), State::Up);
    assert_eq!(health.deadline(), Some(now + SESSION_LIFETIME));
    health.update(now + SESSION_LIFETIME, tunnel(old));
    assert_eq!(health.state(), State::Idle);
    assert_eq!(health.deadline(), None, "no deadline in the past");
}

#[test]
fn probes_have_the_say_over_an_idle_tunnel() {
    let (mut health, now) = started();
    let mut evidence = tunnel(Tunnel {
        has_endpoint: true,
        ..Tunnel::default()
    });
    for (verdict, state) in [
        (Verdict::Unknown, State::Starting),
        (Verdict::Fail, State::Down(Reason::ProbeFailed)),
        (Verdict::Pass, State::Up),
    ] {
        evidence.probe = Some(Probed {
            verdict,
            impaired: false,
            elsewhere: false,
        });
        health.update(now, evidence);
        assert_eq!(health.state(), state);
    }
}

#[test]
fn a_tunnel_is_down_while_its_circuit_is_and_comes_back_with_it() {
    let (mut health, now) = started();
    let mut evidence = tunnel(Tunnel {
        has_session: true,
        has_endpoint: true,
        established: Some(now),
        ..Tunnel::default()
    });
    evidence.circuit = Some(Usability::Full);
    health.update(now, evidence);
    assert_eq!(health.state(), State::Up);
    evidence.circuit = Some(Usability::None);
    health.update(now + S, evidence);
    assert_eq!(health.state(), State::Down(Reason::CircuitDown));
    // The circuit waits out its hold-down, and the tunnel beside it, not after it.
    evidence.circuit = Some(Usability::LastResort);
    health.update(now + S * 2, evidence);
    assert_eq!(health.state(), State::Holding);
    evidence.circuit = Some(Usability::Full);
    health.update(now + S * 7, evidence);
    assert_eq!(health.state(), State::Up);
}

#[test]
fn lost_answers_of_another_way_leave_a_path_in_use_and_say_so() {
    let lost = |elsewhere| Evidence {
        probe: Some(Probed {
            verdict: Verdict::Fail,
            impaired: true,
            elsewhere,
        }),
        ..Evidence::default()
    };
    let (mut health, now) = started();
    health.update(now, lost(true));
    assert_eq!(health.state(), State::Starting);
    health.update(now, Evidence::default());
    health.update(now + S, lost(true));
    let doubted = State::Degraded(Reason::AnswersElsewhere);
    assert_eq!(
        (health.state(), health.usability()),
        (doubted, Usability::Full)
    );
    health.update(now + S * 2, lost(false));
    assert_eq!(health.state(), State::Down(Reason::ProbeFailed));
    // What was down stays down.
    health.update(now + S * 3, lost(true));
    assert_eq!(health.usability(), Usability::None);
}

fn any_evidence(now: Instant) -> impl Strategy<Value = Evidence> {
    let interface = prop::sample::select(vec![
        None,
        Some(Interface::Up),
        Some(Interface::NoCarrier),
        Some(Interface::Gone),
    ]);
    let neighbor = prop::sample::select(vec![
        None,
        Some(Reachability::Unknown),
        Some(Reachability::Resolved),
        Some(Reachability::Failed),
    ]);
    let verdict = prop::sample::select(vec![
        None,
        Some(Verdict::Unknown),
        Some(Verdict::Pass),
        Some(Verdict::Fail),
    ]);
    let instant = move || prop::option::of((0_u32..400).prop_map(move |s| now + S * s));
    let tunnel = (
        any::<[bool; 3]>(),
        instant(),
        instant(),
        instant(),
        instant(),
    );
    (interface, neighbor, verdict, any::<bool>(), tunnel).prop_map(
        |(
            interface,
            neighbor,
            verdict,
            impaired,
            (has, established, received, handshaking, called),
        )| {
            Evidence {
                interface,
                neighbor,
                tunnel: has[0].then_some(Tunnel {
                    has_session: has[1],
                    has_endpoint: has[2],
                    established,
                    received,
                    handshaking,
                    called,
                }),
                probe: verdict.map(|verdict| Probed {
                    verdict,
                    impaired,
                    elsewhere: has[0] && has[1],
                }),
                circuit: has[2].then_some(Usability::Full),
                bfd: None,
                bgp: None,
            }
        },
    )
}

proptest! {
    #[test]
    fn bad_evidence_is_never_fully_usable_and_a_return_always_waits(
        steps in prop::collection::vec((1_u32..10, any_evidence(Instant::now())), 1..80)
    ) {
        let mut now = Instant::now();
        let mut health = Health::new(now, PATH, S * 5);
        let mut has_been_up = false;
        let mut left: Option<Instant> = None;
        for (wait, evidence) in steps {
            now += S * wait;
            health.update(now, evidence);
            prop_assert!(health.since() <= now);
            prop_assert!(health.deadline().is_none_or(|at| at > now));
            let full = health.usability() == Usability::Full;
            if let Judgement::Bad(reason) = judge(now, &evidence) {
                prop_assert_eq!(health.state(), State::Down(reason));
                left = has_been_up.then_some(now);
            } else if full {
                if let Some(left) = left.take() {
                    prop_assert!(now - left >= S * 5);
                }
                has_been_up = true;
            }
        }
    }
}
