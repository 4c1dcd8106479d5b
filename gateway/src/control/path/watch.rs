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
mod tests;
