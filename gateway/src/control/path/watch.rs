//! Everything that watches one path, and what it says: evidence for [`Health`].

use crate::control::path::link::{ControlLink, LinkSetup};
use crate::control::path::prober::{PathProbe, Secret, source_for};
use crate::control::published::{Claim, NeighborView, PathView, ProbeView};
use crate::worker::control_port::TunnelWord;
use routing::health::{Evidence, Health, Probed, State, StateChange, Tunnel, Usability};
use routing::path::{PathId, PathKind};
use routing::probe::{ProbeSettings, Verdict};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long silence says nothing of a path because its answers came back by another one that is in doubt: time
/// for the far end to find that out too and to answer by this one. After that, silence is silence.
const WAY_BACK: Duration = Duration::from_secs(30);

/// How a path is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeSetup {
    /// Whom to ask; `None`: the link's first next hop.
    pub target: Option<IpAddr>,
    /// Timing.
    pub settings: ProbeSettings,
}

/// What control must know of a path.
#[derive(Clone, Debug)]
pub struct PathSetup {
    /// Which path.
    pub path: PathId,
    /// Its name, `circuit/link` or the site's.
    pub name: String,
    /// Its kind.
    pub kind: PathKind,
    /// The worker that its probes go through: the tunnel's owner; any for a link.
    pub worker: usize,
    /// An ExpressRoute link.
    pub link: Option<LinkSetup>,
    /// A tunnel.
    pub tunnel: Option<Arc<TunnelWord>>,
    /// The links of the circuit that carries the tunnel; none: the host's own network does.
    pub carriers: Vec<PathId>,
    /// Probes, if there are any.
    pub probe: Option<ProbeSetup>,
}

impl PathSetup {
    /// Whether a path that is watched as `other` may go on being watched as it is, if under another id.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let link = match (&self.link, &other.link) {
            (Some(a), Some(b)) => a.is_same(b),
            (a, b) => a.is_none() && b.is_none(),
        };
        let word = |setup: &Self| setup.tunnel.as_ref().map(Arc::as_ptr);
        (&self.name, self.kind, self.probe) == (&other.name, other.kind, other.probe)
            && link
            && word(self) == word(other)
    }
}

/// One path under watch.
pub struct PathWatch {
    pub(crate) setup: PathSetup,
    pub(crate) health: Health,
    pub(crate) link: Option<ControlLink>,
    pub(crate) probe: Option<PathProbe>,
    started: Instant,
    was_reachable: bool,
    /// A probe was lost since this was last asked.
    lost: bool,
    /// Until when the probes' silence is put down to another path.
    excused: Option<Instant>,
}

impl PathWatch {
    /// Begins to watch a path. `addresses`: the gateway's own; `identifier`: of its echo requests;
    /// `started`: time zero of its tunnel word; `token`: its control socket's in the poller.
    pub fn new(
        now: Instant,
        setup: PathSetup,
        hold_down: Duration,
        addresses: &[IpAddr],
        (identifier, secret): (u16, Secret),
        (started, token): (Instant, u64),
    ) -> Self {
        let probe = setup.probe.and_then(|probe| {
            let (nets, next_hops) = setup.link.as_ref().map_or_else(Default::default, |link| {
                (link.address.clone(), link.next_hops())
            });
            let target = probe.target.or_else(|| next_hops.first().copied())?;
            let source = source_for(target, &nets, &next_hops, addresses)?;
            let ends = (source, target);
            // A link's next hop is still to be asked for its address, and a site may have to call: then the first
            // request goes out with the answer ([`PathWatch::hurry`]), and one is lost if none has come for an interval.
            let is_known = match (&setup.link, &setup.tunnel) {
                (Some(_), _) => false,
                (None, Some(tunnel)) => tunnel.endpoint.load().is_some(),
                (None, None) => true,
            };
            let wait = if is_known {
                Duration::ZERO
            } else {
                probe.settings.interval
            };
            Some(PathProbe::new(
                now + wait,
                ends,
                identifier,
                secret,
                probe.settings,
            ))
        });
        Self {
            health: Health::new(now, setup.path, hold_down),
            link: setup
                .link
                .clone()
                .map(|link| ControlLink::new(now, link, token)),
            probe,
            setup,
            started,
            was_reachable: false,
            lost: false,
            excused: None,
        }
    }

    /// Whether a probe over a link was lost since the last call.
    pub(crate) fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.lost) && self.link.is_some()
    }

    /// Goes on watching the path as it stands in a reloaded configuration: its state, its timers and what
    /// is known of its neighbours stay.
    pub(crate) fn go_on(&mut self, setup: PathSetup, hold_down: Duration) {
        self.health.go_on(setup.path, hold_down);
        if let Some(probe) = &mut self.probe {
            probe.forget_way_back();
        }
        self.setup = setup;
    }

    /// The packet of the probe that is due. A request that could not leave anyway is not handed out, and
    /// is lost all the same: no worker holds it for a next hop that may come.
    pub fn poll_probe(&mut self, now: Instant) -> Option<Box<[u8]>> {
        let reachable = self.is_reachable();
        let probe = self.probe.as_mut()?;
        let before = probe.prober().count().lost;
        let packet = probe.poll(now);
        if probe.prober().count().lost > before {
            // Before it is taken for the path's fault: is the next hop still where it was, and the carrier?
            self.lost = true;
            if let Some(link) = &mut self.link {
                link.doubted(now);
            }
        }
        packet.filter(|_| reachable)
    }

    /// Has a probe sent at once if the path has just come into reach.
    pub fn hurry(&mut self, now: Instant) {
        let reachable = self.is_reachable();
        if reachable
            && !self.was_reachable
            && let Some(probe) = &mut self.probe
        {
            probe.hurry(now);
        }
        self.was_reachable = reachable;
    }

    fn is_reachable(&self) -> bool {
        let Some(target) = self.probe.as_ref().map(PathProbe::target) else {
            return true;
        };
        let link = self.link.as_ref().is_none_or(|l| l.is_resolved(target));
        link && self
            .tunnel()
            .is_none_or(|t| t.has_endpoint || t.has_session)
    }

    /// Judges the path by all that is known of it now. `is_in_doubt` says whether something speaks
    /// against another path at this moment, `usability` what flows may do with the links that are judged
    /// already.
    pub fn judge(
        &mut self,
        now: Instant,
        is_in_doubt: impl Fn(PathId) -> bool,
        usability: impl Fn(PathId) -> Usability,
    ) -> Option<StateChange> {
        let carriers = self.setup.carriers.iter();
        let evidence = Evidence {
            interface: self.link.as_ref().and_then(ControlLink::interface),
            neighbor: self.link.as_ref().and_then(ControlLink::reachability),
            circuit: carriers.map(|&link| usability(link)).max(),
            tunnel: self.tunnel(),
            probe: self.probed(now, is_in_doubt),
            bfd: None,
            bgp: None,
        };
        self.health.update(now, evidence)
    }

    /// What the probes say. Where the answers came back by another path and that one is in doubt, their
    /// silence says nothing of this one: a VPN path whose answers return over ExpressRoute must not go
    /// down together with it. But not for ever, or two paths that are down would excuse each other.
    fn probed(&mut self, now: Instant, is_in_doubt: impl Fn(PathId) -> bool) -> Option<Probed> {
        self.excused = None;
        let probe = self.probe.as_ref()?;
        let prober = probe.prober();
        let other = probe.returned_by().filter(|&path| path != self.setup.path);
        let until = prober.since() + WAY_BACK;
        let elsewhere =
            prober.verdict() == Verdict::Fail && now < until && other.is_some_and(is_in_doubt);
        self.excused = elsewhere.then_some(until);
        Some(Probed {
            verdict: prober.verdict(),
            impaired: prober.impaired(),
            elsewhere,
        })
    }

    /// Whether something speaks against the path now, even if not enough to take it down.
    pub fn is_in_doubt(&self) -> bool {
        let fails = |p: &PathProbe| p.prober().verdict() != Verdict::Pass || p.prober().impaired();
        self.health.state() != State::Up
            || self.link.as_ref().is_some_and(|link| !link.is_up())
            || self.probe.as_ref().is_some_and(fails)
    }

    /// When something is to be done for the path; `None`: only when something is heard of it.
    pub fn deadline(&self) -> Option<Instant> {
        let link = self.link.as_ref().and_then(ControlLink::deadline);
        let probe = self.probe.as_ref().map(|probe| probe.prober().deadline());
        [link, probe, self.health.deadline(), self.excused]
            .into_iter()
            .flatten()
            .min()
    }

    /// What flows may do with it.
    pub fn usability(&self) -> Usability {
        self.health.usability()
    }

    fn tunnel(&self) -> Option<Tunnel> {
        let word = self.setup.tunnel.as_ref()?;
        let at = |milliseconds: u64| {
            let since = Duration::from_millis(milliseconds.checked_sub(1)?);
            self.started.checked_add(since)
        };
        Some(Tunnel {
            has_session: word.has_session.load(Ordering::Relaxed),
            has_endpoint: word.endpoint.load().is_some(),
            established: at(word.last_handshake.load(Ordering::Relaxed)),
            received: at(word.last_received.load(Ordering::Relaxed)),
            handshaking: at(word.handshaking.load(Ordering::Relaxed)),
            called: at(word.called.load(Ordering::Relaxed)),
        })
    }

    /// What is shown of the path.
    pub fn view(&self) -> PathView {
        PathView {
            path: self.setup.path,
            name: self.setup.name.clone(),
            kind: self.setup.kind,
            state: self.health.state(),
            usability: self.health.usability(),
            since: self.health.since(),
            interface: self
                .link
                .as_ref()
                .map(|link| (link.setup().interface.clone(), link.interface())),
            neighbor: self.link.as_ref().and_then(ControlLink::reachability),
            mistagged: self.link.as_ref().and_then(ControlLink::mistagged).cloned(),
            tunnel: self.tunnel(),
            probe: self.probe.as_ref().map(|probe| ProbeView {
                target: probe.target(),
                verdict: probe.prober().verdict(),
                since: probe.prober().since(),
                round_trip: probe.prober().round_trip(),
                count: probe.prober().count(),
                returned_by: probe.returned_by(),
            }),
        }
    }

    /// What is shown of its next hops.
    pub fn neighbor_views(&self, now: Instant) -> impl Iterator<Item = NeighborView> {
        let entries = self.link.iter().flat_map(|link| {
            let interface = &link.setup().interface;
            link.adjacency().entries().map(move |e| (interface, e))
        });
        entries.map(move |(interface, (address, entry))| NeighborView {
            path: self.setup.path,
            name: self.setup.name.clone(),
            interface: interface.clone(),
            address,
            mac: entry.mac(),
            state: entry.state(),
            confirmed: entry.last_confirmed(),
            previous: entry.previous(now),
            conflict: entry.rival(now),
        })
    }

    /// Who lately claimed which of the gateway's own addresses on the link.
    pub fn claims(&self, now: Instant) -> impl Iterator<Item = Claim> {
        let links = self.link.iter().flat_map(move |link| {
            let own = link.setup().own().into_iter();
            own.filter_map(move |own| Some((own, link.adjacency().claimant(now, own)?)))
        });
        links.map(|(address, mac)| Claim {
            name: self.setup.name.clone(),
            address,
            mac,
        })
    }
}

#[cfg(test)]
mod tests {
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
}
