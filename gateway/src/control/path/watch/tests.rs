use super::*;
use crate::control::host::{Host, echo};
use crate::device::offload::Offload;
use crate::device::sink::TrainSink;
use crate::device::udp::{PeerPath, SendOutcome};
use crate::pipeline::checksum;
use crate::telemetry::ledger::Ledger;
use crate::worker::tunnels::{Tunnels, Underlay};
use crypto::key::PrivateKey;
use crypto::limiter::{HandshakeLimits, Limiter};
use crypto::tunnel::Peer;
use crypto::wireguard::Endpoint;
use routing::health::Reason;
use routing::packet::Headers;
use routing::path::Ingress;
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::SystemTime;
use zeroize::Zeroizing;

const MS: Duration = Duration::from_millis(1);
const SECRET: Secret = Secret([9; 8]);

fn site(now: Instant, path: u16) -> PathWatch {
    let word = TunnelWord::default();
    word.endpoint
        .store(Some(Arc::new("192.0.2.1:51820".parse().unwrap())));
    let setup = PathSetup {
        path: PathId(path),
        name: format!("site-{path}"),
        kind: PathKind::Vpn,
        worker: 0,
        link: None,
        tunnel: Some(Arc::new(word)),
        carriers: Vec::new(),
        probe: Some(ProbeSetup {
            target: Some("10.2.0.1".parse().unwrap()),
            settings: ProbeSettings::default(),
        }),
    };
    let own = ["10.1.255.4".parse().unwrap()];
    let tags = ((path, SECRET), (now, u64::from(path)));
    PathWatch::new(now, setup, MS * 5000, &own, tags.0, tags.1)
}

/// Counts the initiations that it is given, and answers none.
#[derive(Clone, Debug, Default)]
struct Silence(Rc<Cell<usize>>);

impl TrainSink for Silence {
    fn send_train_by(
        &self,
        _: &PeerPath,
        _: &SocketAddr,
        bytes: &[u8],
        _: usize,
        _: u8,
    ) -> SendOutcome {
        if bytes.first() == Some(&1) {
            self.0.set(self.0.get() + 1);
        }
        SendOutcome {
            sent: 1,
            ..SendOutcome::default()
        }
    }
}

/// A worker's tunnel to a site that is dead, with the engine that the program has.
struct OneTunnel {
    tunnels: Tunnels<Endpoint, Silence>,
    silence: Silence,
}

impl OneTunnel {
    fn new(started: Instant, word: Arc<TunnelWord>) -> Self {
        let limiter = Arc::new(Limiter::new(started, HandshakeLimits::default()).unwrap());
        let key = PrivateKey::generate().unwrap();
        let endpoint = Endpoint::new(key, limiter, 0, Arc::new(SystemTime::now));
        let silence = Silence::default();
        let underlay = Underlay {
            v4: Some(silence.clone()),
            v6: None,
        };
        let ledger = Arc::new(Ledger::new(8));
        let mut tunnels = Tunnels::new(endpoint, underlay, ledger, started, true);
        let peer = Peer {
            public_key: PrivateKey::generate().unwrap().public_key().0,
            preshared_key: Zeroizing::default(),
            endpoint: Some("192.0.2.1:51820".parse().unwrap()),
            keepalive: None,
            retry: Some(Duration::from_secs(5)),
            mtu: 1420,
        };
        assert!(tunnels.add(started, PathId(1), &peer, word));
        tunnels.publish(started);
        Self { tunnels, silence }
    }

    /// The end of a round.
    fn round(&mut self, now: Instant) {
        self.tunnels.flush(now);
        self.tunnels.poll(now);
        assert!(
            self.tunnels.deadline().is_none_or(|at| at > now),
            "it spins"
        );
    }

    /// One packet for the site.
    fn send(&mut self, now: Instant) {
        let mut packet = [0; 28];
        (packet[0], packet[3], packet[8], packet[9]) = (0x45, 28, 64, 17);
        packet[12..20].copy_from_slice(&[10, 1, 0, 4, 10, 2, 0, 4]);
        packet[25] = 8;
        let sum = checksum::Sum::of(&packet[..20]).checksum();
        packet[10..12].copy_from_slice(&sum);
        let headers = Headers::parse(&packet).unwrap();
        let plain = Offload::default();
        self.tunnels.send(now, PathId(1), &packet, &headers, &plain);
        self.round(now);
    }

    fn initiations(&self) -> usize {
        self.silence.0.get()
    }
}

/// Sends what is due and brings the answers back by `way`, if there is one; then judges.
fn exchange(watch: &mut PathWatch, now: Instant, way: Option<u16>, doubt: bool) {
    if let (Some(request), Some(way)) = (watch.poll_probe(now), way) {
        let probe = watch.probe.as_mut().unwrap();
        let answer = Host::new(now, [probe.target()])
            .handle(now, &request)
            .unwrap()
            .unwrap();
        let (echo, payload) = echo::reply(&answer).unwrap();
        assert!(probe.answered(now, Ingress::Path(PathId(way)), &echo, payload));
    }
    watch.judge(now, |_| doubt, |_| Usability::Full);
}

#[test]
fn a_tunnel_is_starting_until_its_probe_is_answered() {
    let now = Instant::now();
    let mut watch = site(now, 1);
    exchange(&mut watch, now, None, false);
    assert_eq!(watch.health.state(), State::Starting);
    exchange(&mut watch, now + MS * 1000, Some(1), false);
    assert_eq!(watch.health.state(), State::Up);
}

#[test]
fn silence_takes_a_path_down_if_the_answers_came_by_it() {
    let now = Instant::now();
    let mut watch = site(now, 1);
    exchange(&mut watch, now, Some(1), true);
    for second in 1..5 {
        exchange(&mut watch, now + MS * 1000 * second, None, true);
    }
    assert_eq!(watch.health.state(), State::Down(Reason::ProbeFailed));
}

#[test]
fn silence_on_another_paths_way_back_does_not_take_a_path_down() {
    let now = Instant::now();
    let mut watch = site(now, 1);
    exchange(&mut watch, now, Some(0), false);
    for second in 1..10 {
        exchange(&mut watch, now + MS * 1000 * second, None, true);
        assert_eq!(watch.usability(), Usability::Full);
    }
    // Nor does it read as if it were well.
    let reason = watch.health.state().reason();
    assert_eq!(reason, Some(Reason::AnswersElsewhere));
    // The other way is fine again, and the silence is this path's own.
    exchange(&mut watch, now + MS * 10_000, None, false);
    assert_eq!(watch.health.state(), State::Down(Reason::ProbeFailed));
}

#[test]
fn two_paths_that_are_down_excused_each_other_for_ever() {
    let now = Instant::now();
    let mut watch = site(now, 1);
    exchange(&mut watch, now, Some(0), false);
    let mut failed = None;
    for second in 1..60 {
        let at = now + MS * 1000 * second;
        exchange(&mut watch, at, None, true);
        assert!(watch.deadline().is_some_and(|deadline| deadline > at));
        if watch.health.state() == State::Down(Reason::ProbeFailed) {
            failed.get_or_insert(second);
        }
    }
    assert_eq!(failed, Some(34), "30 s after the third lost probe");
}

#[test]
fn a_probe_is_not_handed_out_while_the_peer_is_not_known_but_is_lost() {
    let now = Instant::now();
    let mut watch = site(now, 1);
    let word = Arc::clone(watch.setup.tunnel.as_ref().unwrap());
    word.endpoint.store(None);
    for second in 0..4 {
        assert!(watch.poll_probe(now + MS * 1000 * second).is_none());
    }
    let prober = watch.probe.as_ref().unwrap().prober();
    assert_eq!(prober.count().lost, 3);
    // The peer calls: the next probe leaves at once, not with the next second.
    word.endpoint
        .store(Some(Arc::new("192.0.2.1:51820".parse().unwrap())));
    let called = now + MS * 3500;
    watch.hurry(called);
    assert!(watch.poll_probe(called).is_some());
}

#[test]
fn the_first_probe_waits_until_its_far_side_can_be_reached_but_not_for_ever() {
    let now = Instant::now();
    let link = |now| {
        let setup = PathSetup {
            tunnel: None,
            link: Some(LinkSetup {
                interface: "none".to_owned(),
                tags: crate::device::vlan::Tags::NONE,
                mac: Some([2; 6]),
                address: vec!["172.16.0.2/30".parse().unwrap()],
                neighbors: vec![("172.16.0.1".parse().unwrap(), Arc::default())],
                neighbor_mac: vec![None],
                word: Arc::default(),
            }),
            probe: Some(ProbeSetup {
                target: None,
                settings: ProbeSettings::default(),
            }),
            ..site(now, 1).setup
        };
        PathWatch::new(now, setup, MS, &[], (1, SECRET), (now, 1))
    };
    let count = |watch: &PathWatch| watch.probe.as_ref().unwrap().prober().count();
    // Nothing is sent, and so nothing lost, before the next hop has answered; nor is the thread kept awake.
    let mut watch = link(now);
    for ms in [0, 1, 999] {
        watch.hurry(now + MS * ms);
        assert!(watch.poll_probe(now + MS * ms).is_none());
    }
    assert_eq!(count(&watch).sent, 0);
    assert!(watch.probe.as_ref().unwrap().prober().deadline() > now);
    // A next hop that stays silent is no reason to wait longer.
    for ms in [1_000, 2_000, 3_000] {
        assert!(watch.poll_probe(now + MS * ms).is_none());
    }
    assert_eq!((count(&watch).sent, count(&watch).lost), (3, 2));
    // A site that has to call: the first request goes out as soon as it has.
    let own = ["10.1.255.4".parse().unwrap()];
    let setup = PathSetup {
        tunnel: Some(Arc::default()),
        ..site(now, 1).setup
    };
    let mut watch = PathWatch::new(now, setup, MS, &own, (1, SECRET), (now, 1));
    assert!(watch.poll_probe(now).is_none());
    let word = Arc::clone(watch.setup.tunnel.as_ref().unwrap());
    word.endpoint
        .store(Some(Arc::new("192.0.2.1:51820".parse().unwrap())));
    watch.hurry(now + MS * 5);
    assert!(watch.poll_probe(now + MS * 5).is_some());
    assert_eq!((count(&watch).sent, count(&watch).lost), (1, 0));
}

#[test]
fn a_dead_site_without_a_probe_goes_down_by_what_its_worker_says() {
    let started = Instant::now();
    let mut watch = site(started, 1);
    watch.probe = None;
    let word = Arc::clone(watch.setup.tunnel.as_ref().unwrap());
    let mut worker = OneTunnel::new(started, word);
    watch.judge(started, |_| false, |_| Usability::Full);
    assert_eq!(watch.health.state(), State::Idle);
    // Packets want it all the time, and each begins WireGuard's 90 s anew.
    let mut down = None;
    for second in 1..400 {
        let now = started + MS * 1000 * second;
        worker.send(now);
        watch.judge(now, |_| false, |_| Usability::Full);
        match (watch.health.state(), down) {
            (State::Down(Reason::HandshakeFailed), None) => down = Some(second),
            (State::Down(Reason::HandshakeFailed), _) | (State::Idle, None) => {}
            (state, _) => panic!("{state:?} after {second} s"),
        }
    }
    assert_eq!(down, Some(16), "15 s after the first initiation");
    // Nothing is sent to a path that is down: it is asked for all the same, now and then.
    let before = worker.initiations();
    for second in 400..600 {
        worker.round(started + MS * 1000 * second);
    }
    let tried = worker.initiations() - before;
    assert!((25..=37).contains(&tried), "{tried} in 200 s");
    watch.judge(started + MS * 600_000, |_| false, |_| Usability::Full);
    assert_eq!(watch.health.state(), State::Down(Reason::HandshakeFailed));
}
