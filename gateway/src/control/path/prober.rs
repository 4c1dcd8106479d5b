//! The probes of one path on the wire: echo requests that are sent by way of that path and no other, and
//! the replies that are theirs.
//!
//! A reply is a probe's answer if addresses, identifier, sequence and payload are those of a request;
//! the payload holds a secret of this run, so that nobody off the path can keep it looking alive.
//!
//! The request takes the path that is probed. Its reply takes whatever way the far side's routes say,
//! often the way that is preferred now: [`PathProbe::returned_by`] tells, and silence then speaks
//! against either of the two.

use crate::control::host::echo::{self, Echo};
use ipnet::IpNet;
use routing::path::{Ingress, PathId};
use routing::probe::{ProbeSettings, Prober};
use std::net::IpAddr;
use std::time::Instant;

/// Begins every payload, for whoever looks at a capture.
const MAGIC: [u8; 8] = *b"vngprobe";

/// The secret of one run, drawn at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secret(pub [u8; 8]);

/// The probes of one path.
#[derive(Clone, Debug)]
pub struct PathProbe {
    source: IpAddr,
    target: IpAddr,
    identifier: u16,
    secret: Secret,
    prober: Prober,
    returned_by: Option<PathId>,
}

impl PathProbe {
    /// Probes `target` from `source`; the first request is due `now`.
    pub fn new(
        now: Instant,
        (source, target): (IpAddr, IpAddr),
        identifier: u16,
        secret: Secret,
        settings: ProbeSettings,
    ) -> Self {
        Self {
            source,
            target,
            identifier,
            secret,
            prober: Prober::new(now, settings),
            returned_by: None,
        }
    }

    /// The packet of the request that is due, if one is. Bring the replies that have come in first.
    pub fn poll(&mut self, now: Instant) -> Option<Box<[u8]>> {
        let request = self.prober.poll(now)?;
        let message = Echo {
            source: self.source,
            destination: self.target,
            identifier: self.identifier,
            sequence: request.sequence,
        };
        echo::request(&message, &self.payload())
    }

    /// Takes an echo reply. True if it answers an open request of this path.
    pub fn answered(
        &mut self,
        now: Instant,
        ingress: Ingress,
        reply: &Echo,
        payload: &[u8],
    ) -> bool {
        let ours = reply.identifier == self.identifier
            && reply.source == self.target
            && reply.destination == self.source
            && payload == self.payload();
        let answered = ours && self.prober.answered(now, reply.sequence);
        if answered {
            self.returned_by = match ingress {
                Ingress::Path(path) => Some(path),
                Ingress::Vnet | Ingress::Local => None,
            };
        }
        answered
    }

    /// The path that the last answer came in by.
    pub fn returned_by(&self) -> Option<PathId> {
        self.returned_by
    }

    /// Forgets it: paths may have other ids now.
    pub(crate) fn forget_way_back(&mut self) {
        self.returned_by = None;
    }

    /// Whom it asks.
    pub fn target(&self) -> IpAddr {
        self.target
    }

    /// Timing, verdict and counts.
    pub fn prober(&self) -> &Prober {
        &self.prober
    }

    /// Has the next request sent now: the path has just come into reach.
    pub fn hurry(&mut self, now: Instant) {
        self.prober.hurry(now);
    }

    fn payload(&self) -> [u8; 16] {
        let mut payload = [0; 16];
        let (magic, secret) = payload.split_at_mut(MAGIC.len());
        magic.copy_from_slice(&MAGIC);
        secret.copy_from_slice(&self.secret.0);
        payload
    }
}

/// The gateway's address that `target` is probed from: the link's own one if the target is on the link
/// (in its subnet, or its next hop), else the first of the virtual network's with the target's version.
/// `None` if there is none of that version.
pub fn source_for(
    target: IpAddr,
    link: &[IpNet],
    neighbors: &[IpAddr],
    gateway: &[IpAddr],
) -> Option<IpAddr> {
    let version = |address: &IpAddr| address.is_ipv4() == target.is_ipv4();
    let next_hop = neighbors.contains(&target);
    let on_link = link
        .iter()
        .filter(|net| version(&net.addr()))
        .find(|net| next_hop || net.contains(&target));
    on_link
        .map(IpNet::addr)
        .or_else(|| gateway.iter().copied().find(version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::host::Host;
    use routing::probe::Verdict;
    use std::time::Duration;

    const SECRET: Secret = Secret([1, 2, 3, 4, 5, 6, 7, 8]);
    const PATH: PathId = PathId(2);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn probe(now: Instant, secret: Secret) -> PathProbe {
        let ends = (ip("10.1.255.4"), ip("10.2.0.1"));
        PathProbe::new(now, ends, 900, secret, ProbeSettings::default())
    }

    #[test]
    fn a_hosts_answer_passes_and_tells_the_way_it_came() {
        let now = Instant::now();
        let mut probe = probe(now, SECRET);
        let mut far = Host::new(now, [probe.target()]);
        let request = probe.poll(now).unwrap();
        assert!(probe.poll(now).is_none());
        let answer = far.handle(now, &request).unwrap().unwrap();
        let (echo, payload) = echo::reply(&answer).unwrap();
        let later = now + Duration::from_millis(3);
        assert!(probe.answered(later, Ingress::Path(PATH), &echo, payload));
        assert_eq!(probe.prober().verdict(), Verdict::Pass);
        assert_eq!(probe.prober().round_trip(), Some(later - now));
        assert_eq!(probe.returned_by(), Some(PATH));
        assert!(!probe.answered(later, Ingress::Path(PATH), &echo, payload));
    }

    #[test]
    fn an_answer_must_match_in_everything() {
        let now = Instant::now();
        let mut real = probe(now, SECRET);
        let request = real.poll(now).unwrap();
        let answer = Host::new(now, [real.target()])
            .handle(now, &request)
            .unwrap()
            .unwrap();
        let (echo, payload) = echo::reply(&answer).unwrap();
        let from = Ingress::Path(PATH);
        let stranger = ip("10.2.0.66");
        for wrong in [
            Echo {
                source: stranger,
                ..echo
            },
            Echo {
                destination: stranger,
                ..echo
            },
            Echo {
                identifier: 901,
                ..echo
            },
            Echo {
                sequence: 1,
                ..echo
            },
        ] {
            assert!(!real.answered(now, from, &wrong, payload), "{wrong:?}");
        }
        assert!(!real.answered(now, from, &echo, &payload[1..]));
        let mut other_run = probe(now, Secret([0; 8]));
        other_run.poll(now);
        assert!(!other_run.answered(now, from, &echo, payload));
        assert!(real.answered(now, from, &echo, payload));
    }

    #[test]
    fn the_source_is_the_links_for_what_is_on_the_link() {
        let link: Vec<IpNet> = ["172.16.0.2/30", "fd00:16::2/126"]
            .map(|n| n.parse().unwrap())
            .to_vec();
        let neighbors = [ip("172.16.0.1"), ip("fe80::1")];
        let gateway = [ip("10.1.255.4"), ip("fd00:1::4")];
        let source = |target: &str| source_for(ip(target), &link, &neighbors, &gateway);
        assert_eq!(source("172.16.0.1"), Some(ip("172.16.0.2")));
        assert_eq!(source("fd00:16::1"), Some(ip("fd00:16::2")));
        assert_eq!(source("fe80::1"), Some(ip("fd00:16::2")), "its next hop");
        assert_eq!(source("10.2.0.1"), Some(gateway[0]));
        assert_eq!(source("fd00:2::1"), Some(gateway[1]));
        assert_eq!(source_for(ip("fd00:2::1"), &[], &[], &gateway[..1]), None);
    }
}
