//! What becomes of the underlay while the gateway runs: the names of far ends, and how wide the routes to them are.
//!
//! A thread of its own, since the system's resolver may take as long as it likes:
//! 1. a site that has a name and no session: the name is resolved, and again with growing pauses while the site
//!    stays silent; each time the next of its addresses is tried, of whichever IP version
//! 2. every site: the MTU of the route to it is told to its worker, which counts what goes in fragments, and to
//!    people when it is too small for the tunnel
//! 3. with path MTU discovery the tunnel becomes as wide as its path, and inner senders are told so

use crate::config::schema::{Config, HostPort};
use crate::device::DeviceError;
use crate::device::udp::{RouteOptions, UdpOptions, UdpSocket, route_mtu};
use crate::pipeline::process::Carried;
use crate::worker::control_port::TunnelWord;
use routing::path::PathId;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How often routes are looked at. A route that becomes narrower costs nothing but a count until then.
const LOOK: Duration = Duration::from_secs(5);
/// The same with path MTU discovery, where what is too long is dropped until the tunnel follows.
const DISCOVER: Duration = Duration::from_millis(200);
/// The first pause between two questions for a name.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest; a resolver's answers are good for minutes.
const LAST_PAUSE: Duration = Duration::from_mins(5);
/// Ports of the kernel's choice that are tried: each is free for one IP version, and most for the other too.
const TRIES: usize = 16;
/// How long a session may stay unanswered before its far end counts as silent: the time after which WireGuard
/// itself begins to ask (KEEPALIVE_TIMEOUT + REKEY_TIMEOUT).
const SILENCE: Duration = Duration::from_secs(15);

/// A site's tunnel as it is looked after.
pub(crate) struct Watched {
    pub(crate) path: PathId,
    pub(crate) name: String,
    pub(crate) host: Option<HostPort>,
    /// Its first lane is the one that says where it is.
    pub(crate) lanes: Vec<Arc<TunnelWord>>,
    /// MTU that the configuration gives it, bytes of the inner packet.
    pub(crate) mtu: u16,
    /// The host's own network carries it, not a circuit.
    pub(crate) is_routed: bool,
}

/// What holds for all of them.
pub(crate) struct Terms {
    pub(crate) started: Instant,
    pub(crate) discovers: bool,
    /// IP versions that there are sockets for: IPv4, IPv6.
    pub(crate) families: [bool; 2],
    pub(crate) route: RouteOptions,
    /// Addresses that sockets are bound to.
    pub(crate) own: Vec<IpAddr>,
}

/// Whose sites they are: the running gateway.
pub(crate) trait Sites: Send + Sync {
    /// The sites' tunnels, to be looked after in the underlay, and what holds for all of them.
    fn watched(&self) -> (Vec<Watched>, Terms);
    /// Has the workers send what is for a site to this address, where its name has led.
    fn move_site(&self, path: PathId, name: &str, to: SocketAddr);
    /// Makes a tunnel so wide, bytes of the inner packet.
    fn set_mtu(&self, path: PathId, mtu: u16);
}

/// Has the kernel choose the tunnels' port, where the configuration leaves it to it: one that both IP versions have
/// free. All sockets are then bound to it, as to any other.
///
/// # Errors
/// See [`PortError`].
pub(crate) fn choose_port(config: &mut Config) -> Result<(), PortError> {
    let Some(vpn) = config.vpn.as_mut().filter(|vpn| vpn.listen_port == 0) else {
        return Ok(());
    };
    let bind =
        |any: IpAddr, port| UdpSocket::bind(SocketAddr::new(any, port), UdpOptions::default());
    for _ in 0..TRIES {
        let v4 = bind(Ipv4Addr::UNSPECIFIED.into(), 0).map_err(PortError::Device)?;
        let chosen = v4.local_address().map_err(PortError::Unknown)?;
        let v6 = bind(Ipv6Addr::UNSPECIFIED.into(), chosen.port());
        let in_use = matches!(&v6, Err(DeviceError::Address { error, .. }) if error.kind() == ErrorKind::AddrInUse);
        if !in_use {
            vpn.listen_port = chosen.port();
            tracing::info!(
                port = vpn.listen_port,
                "UDP port of the tunnels, the kernel's choice"
            );
            return Ok(());
        }
    }
    Err(PortError::NoneFree)
}

/// Why there is no port for the tunnels.
#[derive(Debug)]
pub(crate) enum PortError {
    /// The kernel gives none.
    Device(DeviceError),
    /// It does not say which it gave.
    Unknown(io::Error),
    /// None of [`TRIES`] was free for both IP versions.
    NoneFree,
}

impl fmt::Display for PortError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => error.fmt(formatter),
            Self::Unknown(error) => write!(formatter, "the port is not known: {error}"),
            Self::NoneFree => formatter
                .write_str("no UDP port is free for both IPv4 and IPv6: give vpn.listen_port one"),
        }
    }
}

impl std::error::Error for PortError {}

/// Looks after the underlay of the gateway with these sites until the answer is dropped.
///
/// # Errors
/// No thread.
pub(crate) fn start<S: Sites + 'static>(gateway: &Arc<S>) -> io::Result<Sender<()>> {
    let (stop, stopped) = channel();
    let gateway = Arc::downgrade(gateway);
    // Nobody waits for its end: a resolver may hold it, and it holds nothing of the gateway's meanwhile.
    std::thread::Builder::new()
        .name("underlay".to_owned())
        .spawn(move || run(&gateway, &stopped))?;
    Ok(stop)
}

fn run<S: Sites>(gateway: &Weak<S>, stopped: &Receiver<()>) {
    let mut sites = BTreeMap::new();
    loop {
        let Some((watched, terms)) = gateway.upgrade().map(|gateway| gateway.watched()) else {
            return;
        };
        sites.retain(|name, _| watched.iter().any(|site| site.name == *name));
        let now = Instant::now();
        let mut pause = if terms.discovers { DISCOVER } else { LOOK };
        for site in &watched {
            let known: &mut Known = sites.entry(site.name.clone()).or_default();
            if let Some(to) = known.resolve(now, site, &terms) {
                tracing::info!(site = site.name, endpoint = %to, "name resolved");
                if let Some(gateway) = gateway.upgrade() {
                    gateway.move_site(site.path, &site.name, to);
                }
            }
            if let Some(due) = known.due {
                pause = pause.min(due.saturating_duration_since(now));
            }
            if site.is_routed {
                known.measure(site, &terms, gateway);
            }
        }
        match stopped.recv_timeout(pause.max(DISCOVER)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// What is known of one site.
#[derive(Default)]
struct Known {
    host: Option<HostPort>,
    /// When its name is resolved next.
    due: Option<Instant>,
    pause: Duration,
    /// Where it was last said to be.
    given: Option<SocketAddr>,
    failed: bool,
    /// The MTU that people were last told of, as the widest tunnel that fits.
    told: Option<u32>,
}

impl Known {
    /// Resolves the name of a site that is silent, if that is due. Where it is now, if that is somewhere else.
    fn resolve(&mut self, now: Instant, site: &Watched, terms: &Terms) -> Option<SocketAddr> {
        if self.host != site.host {
            *self = Self {
                host: site.host.clone(),
                ..Self::default()
            };
        }
        let host = site.host.as_ref()?;
        let word = site.lanes.first()?;
        if !is_silent(word, terms.started) {
            (self.due, self.pause) = (None, Duration::ZERO);
            return None;
        }
        // A session that is over has not failed yet: the first question is for a far end that has moved.
        if self.due.is_some_and(|due| now < due) {
            return None;
        }
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LAST_PAUSE);
        let answers = (host.host.as_str(), host.port).to_socket_addrs();
        self.due = Some(Instant::now() + self.pause);
        let answers: Vec<SocketAddr> = match answers {
            Ok(answers) => answers.filter(|to| terms.can_reach(*to, site)).collect(),
            Err(error) => {
                if !std::mem::replace(&mut self.failed, true) {
                    let name = &host.host;
                    tracing::warn!(site = site.name, name, %error, "name not resolved; tried again");
                }
                return None;
            }
        };
        self.failed = false;
        let to = next(&answers, self.given)?;
        self.given = Some(to);
        let is = word.endpoint.load().as_deref().copied();
        (is != Some(to)).then_some(to)
    }

    /// Asks how wide the route is, and tells whom it concerns.
    fn measure<S: Sites>(&mut self, site: &Watched, terms: &Terms, gateway: &Weak<S>) {
        let Some(word) = site.lanes.first() else {
            return;
        };
        let Some(endpoint) = word.endpoint.load().as_deref().copied() else {
            return;
        };
        let local = word.local.load().as_deref().copied();
        let mut own = terms.own.iter();
        let own = own.find(|own| own.is_ipv4() == endpoint.is_ipv4());
        let options = RouteOptions {
            local: local.or(own.copied()),
            ..terms.route
        };
        let Ok(mtu) = route_mtu(&endpoint, options) else {
            return;
        };
        for lane in &site.lanes {
            lane.path_mtu.store(mtu, Ordering::Relaxed);
        }
        let carried = Carried {
            path: site.path,
            links: Box::default(),
            mtu: site.mtu,
            overhead: if endpoint.is_ipv4() { 60 } else { 80 },
        };
        let narrowest = u16::try_from(mtu).unwrap_or(u16::MAX);
        let room = carried.room_over(narrowest);
        if terms.discovers
            && let Some(gateway) = gateway.upgrade()
        {
            gateway.set_mtu(site.path, room);
        }
        let narrow = (room < site.mtu).then_some(mtu);
        if std::mem::replace(&mut self.told, narrow) == narrow {
            return;
        }
        let (name, whole) = (
            &site.name,
            u32::from(site.mtu) + u32::from(carried.overhead),
        );
        match (narrow, terms.discovers) {
            (None, _) => tracing::info!(
                site = name,
                path_mtu = mtu,
                "the route takes the tunnel's packets whole"
            ),
            (Some(_), true) => tracing::info!(
                site = name,
                path_mtu = mtu,
                mtu = room,
                "the tunnel takes smaller packets, as its path does"
            ),
            (Some(_), false) => tracing::warn!(
                site = name,
                "the route to {endpoint} takes packets of {mtu} bytes, and those of the tunnel have up to \
                 {whole}: longer ones go in fragments; mtu = {} avoids it",
                mtu.saturating_sub(u32::from(carried.overhead))
            ),
        }
    }
}

impl Terms {
    fn can_reach(&self, to: SocketAddr, site: &Watched) -> bool {
        let [v4, v6] = self.families;
        !site.is_routed || if to.is_ipv4() { v4 } else { v6 }
    }
}

/// Whether nothing is heard of a far end: it has no session, or one that it does not answer on.
fn is_silent(word: &TunnelWord, started: Instant) -> bool {
    if !word.has_session.load(Ordering::Relaxed) {
        return true;
    }
    let since = word.handshaking.load(Ordering::Relaxed);
    let age = started
        .elapsed()
        .saturating_sub(Duration::from_millis(since));
    since != 0 && age > SILENCE
}

/// The address behind the one that was given last, if it is still among the answers; else the first.
fn next(answers: &[SocketAddr], given: Option<SocketAddr>) -> Option<SocketAddr> {
    let behind = given.and_then(|given| {
        let at = answers.iter().position(|answer| *answer == given)?;
        answers.get(at + 1)
    });
    behind.or_else(|| answers.first()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(host: &str, port: u16) -> (Watched, Terms) {
        let site = Watched {
            path: PathId(0),
            name: "onprem".to_owned(),
            host: Some(HostPort {
                host: host.to_owned(),
                port,
            }),
            lanes: vec![Arc::default()],
            mtu: 1_420,
            is_routed: true,
        };
        let terms = Terms {
            started: Instant::now(),
            discovers: false,
            families: [true; 2],
            route: RouteOptions::default(),
            own: Vec::new(),
        };
        (site, terms)
    }

    #[test]
    fn a_name_is_asked_for_again_with_pauses_until_there_is_a_session() {
        // What needs no resolver to be resolved.
        let (site, terms) = site("192.0.2.1", 51_820);
        let (mut known, now) = (Known::default(), Instant::now());
        let to = "192.0.2.1:51820".parse().unwrap();
        assert_eq!(known.resolve(now, &site, &terms), Some(to));
        assert_eq!(known.resolve(now, &site, &terms), None, "not due");
        let word = &site.lanes[0];
        word.endpoint.store(Some(Arc::new(to)));
        let later = now + FIRST_PAUSE * 2;
        assert_eq!(known.resolve(later, &site, &terms), None, "it is there");
        assert_eq!(known.pause, FIRST_PAUSE * 2);
        word.has_session.store(true, Ordering::Relaxed);
        assert_eq!(known.resolve(later, &site, &terms), None);
        assert_eq!(known.due, None);
        // It has roamed, and falls silent there.
        word.endpoint
            .store(Some(Arc::new("192.0.2.9:1".parse().unwrap())));
        assert_eq!(known.resolve(later, &site, &terms), None);
        word.has_session.store(false, Ordering::Relaxed);
        assert_eq!(known.resolve(later, &site, &terms), Some(to));
    }

    #[test]
    fn every_address_of_a_name_has_its_turn() {
        let answers: Vec<SocketAddr> = ["[2001:db8::1]:1", "192.0.2.1:1", "192.0.2.2:1"]
            .map(|to| to.parse().unwrap())
            .into();
        let mut given = None;
        let mut tried = Vec::new();
        for _ in 0..4 {
            given = next(&answers, given);
            tried.extend(given);
        }
        assert_eq!(tried, [answers[0], answers[1], answers[2], answers[0]]);
        assert_eq!(next(&[], given), None);
        assert_eq!(next(&answers[..1], Some(answers[2])), Some(answers[0]));
    }

    #[test]
    fn the_route_to_this_machine_is_as_wide_as_loopback() {
        let to = "127.0.0.1:9".parse().unwrap();
        assert!(route_mtu(&to, RouteOptions::default()).unwrap() >= 1_500);
    }
}
