//! Which tunnels there are, and how workers come from those of one configuration to those of the next while
//! packets move.
//!
//! 1. [`TunnelSet::new`], [`TunnelSet::after`]: the words of sites and clients; what stays the same keeps its own
//! 2. [`Steps::between`]: what each worker has to change, in the order in which it may be changed
//! 3. [`carry_out`]: the changes, a few at a time, until every worker has made them

pub(crate) mod keys;
pub(crate) mod underlay;

use crate::config::schema::{Config, HostPort, Vpn};
use crate::plan::{Origin, Plan};
use crate::tunnels::keys::Keys;
use crate::worker::change::{Change, MOST_CHANGES, Order, PortPlace};
use crate::worker::clients::ClientId;
use crate::worker::control_port::TunnelWord;
use crate::worker::handle::WorkerHandle;
use crate::worker::lane::{self, Lanes};
use crate::worker::ways::{self, Way};
use crypto::key::{PresharedKey, PrivateKey, PublicKey};
use crypto::tunnel::Peer;
use routing::path::PathId;
use routing::rib::OwnerId;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

/// How long a worker may take to make a few changes: it does so in its next round.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a site that has not answered for WireGuard's 90 s is tried again. Its path is down, so there is no
/// traffic that would ask for it; a thousand such sites cost a core 1 %.
const RETRY: Duration = Duration::from_secs(10);

/// What makes a site's tunnel another one when it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SiteFacts {
    /// Ours.
    own: Option<PublicKey>,
    public_key: [u8; 32],
    /// What its file holds, whatever it is called.
    preshared_key: Option<PresharedKey>,
    endpoint: Option<SocketAddr>,
    endpoint_host: Option<HostPort>,
    keepalive: Option<Duration>,
    lanes: u8,
    /// The circuit that carries it.
    over: Option<OwnerId>,
    /// Bytes of the inner packet.
    mtu: u16,
}

/// A site's tunnel.
#[derive(Clone, Debug)]
struct SiteTunnel {
    facts: SiteFacts,
    /// One a lane.
    words: Vec<Arc<TunnelWord>>,
}

/// What makes a client another one when it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ClientFacts {
    /// Ours.
    own: Option<PublicKey>,
    public_key: [u8; 32],
    /// What its file holds.
    preshared_key: Option<PresharedKey>,
    addresses: Vec<IpAddr>,
}

/// A client's tunnel.
#[derive(Clone, Debug)]
pub(crate) struct ClientTunnel {
    id: ClientId,
    facts: ClientFacts,
    pub(crate) word: Arc<TunnelWord>,
}

/// All tunnels of a configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct TunnelSet {
    sites: BTreeMap<PathId, SiteTunnel>,
    /// The path of all clients.
    clients_path: Option<PathId>,
    /// By name.
    clients: BTreeMap<String, ClientTunnel>,
    /// The id of the next client.
    next_client: u32,
    /// How many links come before the first tunnel's path.
    links: u16,
}

impl SiteTunnel {
    /// Whether it is the very same: the words are kept with a tunnel.
    fn is(&self, other: &Self) -> bool {
        let words = self.words.first().zip(other.words.first());
        words.is_some_and(|(a, b)| Arc::ptr_eq(a, b))
    }
}

impl SiteFacts {
    /// What of it is another, in words.
    fn differs(&self, new: &Self) -> String {
        differences(&[
            ("our key", self.own != new.own),
            ("its public key", self.public_key != new.public_key),
            ("its preshared key", self.preshared_key != new.preshared_key),
            ("its endpoint", self.endpoint != new.endpoint),
            ("its keepalive", self.keepalive != new.keepalive),
            ("its lanes", self.lanes != new.lanes),
            ("the circuit that carries it", self.over != new.over),
            ("its MTU", self.mtu != new.mtu),
        ])
    }
}

impl ClientFacts {
    /// What of it is another, in words.
    fn differs(&self, new: &Self) -> String {
        differences(&[
            ("our key", self.own != new.own),
            ("its public key", self.public_key != new.public_key),
            ("its preshared key", self.preshared_key != new.preshared_key),
            ("its addresses", self.addresses != new.addresses),
        ])
    }
}

fn differences(all: &[(&str, bool)]) -> String {
    let differ = all.iter().filter(|(_, differs)| *differs);
    let words: Vec<&str> = differ.map(|(what, _)| *what).collect();
    match words.as_slice() {
        [] => "the clients' path changed".to_owned(),
        words => format!("{} changed", words.join(", ")),
    }
}

impl TunnelSet {
    /// The tunnels that a gateway starts with.
    pub(crate) fn new(config: &Config, plan: &Plan, keys: &Keys) -> Self {
        Self::default().after(config, plan, keys)
    }

    /// The tunnels after a reload.
    pub(crate) fn after(&self, config: &Config, plan: &Plan, keys: &Keys) -> Self {
        let mut next = Self {
            next_client: self.next_client,
            links: plan
                .paths
                .iter()
                .take_while(|path| matches!(path.origin, Origin::Link { .. }))
                .count() as u16,
            ..Self::default()
        };
        for path in plan.live() {
            if path.origin == Origin::PointToSite {
                next.clients_path = Some(path.id);
            }
            let (Some(site), Some(vpn)) = (path.site(config), &config.vpn) else {
                continue;
            };
            let facts = SiteFacts {
                own: keys.public_key(),
                public_key: site.public_key,
                preshared_key: keys.preshared_key(site.preshared_key_file.as_deref()),
                endpoint: site.endpoint,
                endpoint_host: site.endpoint_host.clone(),
                keepalive: site.keepalive,
                lanes: site.lanes.max(1),
                over: path.over,
                mtu: vpn.mtu_of(site),
            };
            let known = self.sites.get(&path.id);
            let tunnel = match known.filter(|known| known.facts == facts) {
                Some(known) => known.clone(),
                None => SiteTunnel {
                    words: (0..facts.lanes).map(|_| Arc::default()).collect(),
                    facts,
                },
            };
            next.sites.insert(path.id, tunnel);
        }
        for client in config.clients() {
            let facts = ClientFacts {
                own: keys.public_key(),
                public_key: client.public_key,
                preshared_key: keys.preshared_key(client.preshared_key_file.as_deref()),
                addresses: client.address.clone(),
            };
            let known = self.clients.get(&client.name);
            let same_path = self.clients_path == next.clients_path;
            let known = known.filter(|known| known.facts == facts && same_path);
            let tunnel = known.cloned().unwrap_or_else(|| {
                let id = ClientId(next.next_client);
                next.next_client = next.next_client.wrapping_add(1);
                ClientTunnel {
                    id,
                    facts,
                    word: Arc::default(),
                }
            });
            next.clients.insert(client.name.clone(), tunnel);
        }
        next
    }

    /// What a reload from the tunnels `old` to these says of each that comes, goes, or begins anew; `name` is
    /// that of a path.
    pub(crate) fn changes(&self, old: &Self, name: impl Fn(PathId) -> String) -> Vec<String> {
        let mut lines = Vec::new();
        for path in old
            .sites
            .keys()
            .filter(|path| !self.sites.contains_key(path))
        {
            lines.push(format!("site {}: taken away", name(*path)));
        }
        for (path, tunnel) in &self.sites {
            match old.sites.get(path) {
                None => lines.push(format!("site {}: added", name(*path))),
                Some(before) if !before.is(tunnel) => {
                    let why = before.facts.differs(&tunnel.facts);
                    let name = name(*path);
                    lines.push(format!("site {name}: its tunnel begins anew, {why}"));
                }
                Some(_) => {}
            }
        }
        for client in old
            .clients
            .keys()
            .filter(|one| !self.clients.contains_key(*one))
        {
            lines.push(format!("client {client}: taken away"));
        }
        for (client, tunnel) in &self.clients {
            match old.clients.get(client) {
                None => lines.push(format!("client {client}: added")),
                Some(before) if before.id != tunnel.id => {
                    let why = before.facts.differs(&tunnel.facts);
                    lines.push(format!("client {client}: its tunnel begins anew, {why}"));
                }
                Some(_) => {}
            }
        }
        lines
    }

    /// The words of a site's lanes; none for any other path.
    pub(crate) fn lanes(&self, path: PathId) -> &[Arc<TunnelWord>] {
        self.sites.get(&path).map_or(&[], |site| &site.words)
    }

    /// The words of all sites' lanes and of all clients.
    pub(crate) fn words(&self) -> impl Iterator<Item = &Arc<TunnelWord>> {
        let sites = self.sites.values().flat_map(|site| &site.words);
        sites.chain(self.clients.values().map(|client| &client.word))
    }

    /// A client, by its name.
    pub(crate) fn client(&self, name: &str) -> Option<&ClientTunnel> {
        self.clients.get(name)
    }

    /// What a worker has to do for a site that is at this address now, lane 0 of it.
    pub(crate) fn moved(&self, path: PathId, to: SocketAddr, place: Place<'_>) -> Vec<Change> {
        let Some(tunnel) = self.sites.get(&path) else {
            return Vec::new();
        };
        let owner = self.owner(path, place.workers);
        let (_, ports) = ports(&tunnel.facts, owner, place);
        let lanes = ports.into_iter();
        let moved = lanes.map(|(port, lane)| Change::MoveSite {
            port,
            path,
            endpoint: of_lane(to, lane),
        });
        moved.collect()
    }

    /// The worker that owns lane 0 of a site's tunnel: by its place among the paths, which no reload changes.
    pub(crate) fn owner(&self, path: PathId, workers: usize) -> usize {
        let place = path.0.saturating_sub(self.links);
        lane::owner(usize::from(place), self.lanes(path).len(), workers)
    }
}

/// What one worker has to change, in this order.
#[derive(Default)]
pub(crate) struct Steps {
    /// Before the forwarding state leads to what is new: what is gone of the clients, and what is new.
    pub(crate) before: Vec<Change>,
    /// Once it does not lead any more to what is gone.
    pub(crate) after: Vec<Change>,
    /// Instead of that, where `before` was not carried out, or not all of it: back to the tunnels that were.
    pub(crate) undo: Vec<Change>,
}

/// One worker's place among all, and the ports and engines that they have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) worker: usize,
    pub(crate) workers: usize,
    /// The most lanes that a site can have.
    pub(crate) most_lanes: u8,
    /// Circuits that can carry tunnels, in the order of the engines for them.
    pub(crate) underlays: &'a [OwnerId],
    /// Our private key before and now, where there was one and it is another.
    pub(crate) identity: Option<(&'a PrivateKey, &'a PrivateKey)>,
}

impl Steps {
    /// What a worker has to change on the way from `old` to the tunnels `new` of `config`.
    pub(crate) fn between(
        old: &TunnelSet,
        new: &TunnelSet,
        vpn: Option<&Vpn>,
        place: Place<'_>,
    ) -> Self {
        let (mut steps, mut added, mut again) = (Self::default(), Vec::new(), Vec::new());
        let Some(vpn) = vpn else {
            // No gateway had tunnels before without having one now: that needs a restart.
            return steps;
        };
        let mut new_keys = HashSet::new();
        for (&path, tunnel) in &new.sites {
            let before = old.sites.get(&path);
            if before.is_some_and(|before| before.is(tunnel)) {
                continue;
            }
            new_keys.insert(tunnel.facts.public_key);
            steps.undo.push(Change::RemoveSite { path });
            match before {
                Some(before) => {
                    steps.before.push(Change::RemoveSite { path });
                    add_site(old, path, before, place, &mut again);
                }
                None => steps.undo.push(Change::Way {
                    path,
                    way: Way::Nowhere,
                }),
            }
            add_site(new, path, tunnel, place, &mut added);
        }
        let is_known = |set: &TunnelSet, name: &String, client: &ClientTunnel| {
            set.clients
                .get(name)
                .is_some_and(|known| known.id == client.id)
        };
        if let Some(path) = new.clients_path {
            let way = match place.workers {
                1 => Way::Tunnel(Lanes::ONE),
                _ => Way::Clients,
            };
            if old.clients_path.is_none() {
                added.push(Change::Way { path, way });
                let way = Way::Nowhere;
                steps.undo.push(Change::Way { path, way });
            }
            let clients = new.clients.iter();
            for (_, client) in clients.filter(|(name, client)| !is_known(old, name, client)) {
                new_keys.insert(client.facts.public_key);
                added.push(add_client(client, path, vpn, place));
                steps.undo.push(client.removed());
            }
        }
        let gone = old.clients.iter();
        for (_, client) in gone.filter(|(name, client)| !is_known(new, name, client)) {
            steps.before.push(client.removed());
            if let Some(path) = old.clients_path {
                steps.undo.push(client.removed());
                again.push(add_client(client, path, vpn, place));
            }
        }
        for (&path, tunnel) in &old.sites {
            if new.sites.contains_key(&path) {
                continue;
            }
            // A key belongs to one tunnel at a time, and another identity of ours to none that were.
            if new_keys.contains(&tunnel.facts.public_key) || place.identity.is_some() {
                steps.before.push(Change::RemoveSite { path });
                steps.undo.push(Change::RemoveSite { path });
                add_site(old, path, tunnel, place, &mut again);
            } else {
                steps.after.push(Change::RemoveSite { path });
            }
        }
        if let Some((before, now)) = place.identity {
            let identity = |key: &PrivateKey| Change::Identity {
                private_key: key.clone(),
            };
            steps.before.push(identity(now));
            steps.undo.push(identity(before));
        }
        steps.before.append(&mut added);
        steps.undo.append(&mut again);
        steps
    }
}

impl ClientTunnel {
    fn removed(&self) -> Change {
        Change::RemoveClient {
            id: self.id,
            addresses: self.facts.addresses.clone(),
        }
    }
}

fn add_site(
    set: &TunnelSet,
    path: PathId,
    tunnel: &SiteTunnel,
    place: Place<'_>,
    changes: &mut Vec<Change>,
) {
    let SiteTunnel { facts, words } = tunnel;
    let (way, ports) = ports(facts, set.owner(path, place.workers), place);
    changes.push(Change::Way { path, way });
    for (port, lane) in ports {
        let Some(word) = words.get(usize::from(lane)) else {
            continue;
        };
        let endpoint = facts.endpoint.map(|to| of_lane(to, lane));
        let peer = Peer {
            public_key: facts.public_key,
            preshared_key: secret(facts.preshared_key.as_ref()),
            endpoint,
            keepalive: facts.keepalive,
            retry: Some(RETRY),
            mtu: facts.mtu,
        };
        let word = Arc::clone(word);
        changes.push(Change::AddSite {
            port,
            path,
            peer,
            word,
        });
    }
}

/// What a site is to a worker, and the ports of that worker which its lanes are on.
fn ports(facts: &SiteFacts, owner: usize, place: Place<'_>) -> (Way, Vec<(PortPlace, u8)>) {
    let Place {
        worker, workers, ..
    } = place;
    let over = facts.over.filter(|_| owner == worker);
    let over = over.and_then(|over| place.underlays.iter().position(|known| *known == over));
    let way = match over {
        Some(place) => Way::Private(place),
        None => ways::way(facts.lanes, owner, worker, workers),
    };
    let mut ports = Vec::new();
    if let Some(place) = over {
        ports.push((PortPlace::Private(place), 0));
    } else if facts.over.is_none() {
        ports.extend((owner == worker).then_some((PortPlace::Socket(0), 0)));
        let above = (1..).zip(lane::owned(worker, workers, place.most_lanes));
        ports.extend(above.map(|(place, lane)| (PortPlace::Socket(place), lane)));
    }
    (way, ports)
}

/// Where a lane of a site is whose lane 0 is at `to`.
fn of_lane(mut to: SocketAddr, lane: u8) -> SocketAddr {
    to.set_port(to.port().saturating_add(u16::from(lane)));
    to
}

fn add_client(client: &ClientTunnel, path: PathId, vpn: &Vpn, place: Place<'_>) -> Change {
    let ClientTunnel { id, facts, word } = client;
    let owner = id.0 as usize % place.workers.max(1);
    let tunnel = if owner == place.worker {
        let peer = Peer {
            public_key: facts.public_key,
            preshared_key: secret(facts.preshared_key.as_ref()),
            endpoint: None,
            keepalive: None,
            // A client calls when it is back.
            retry: None,
            mtu: vpn.mtu,
        };
        Some((peer, Arc::clone(word)))
    } else {
        None
    };
    Change::AddClient {
        id: *id,
        addresses: facts.addresses.clone(),
        owner,
        path,
        tunnel,
    }
}

/// A preshared key as the engine takes it: zeros stand for none.
fn secret(key: Option<&PresharedKey>) -> zeroize::Zeroizing<[u8; 32]> {
    key.cloned()
        .map(PresharedKey::into_bytes)
        .unwrap_or_default()
}

/// Why workers have not changed as they were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeError {
    /// A worker has not made the changes before these.
    Busy,
    /// A worker does not answer in [`PATIENCE`].
    Silent,
    /// So many tunnels were not taken: a public key is no usable key, or stands twice.
    Refused(usize),
}

impl fmt::Display for ChangeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => formatter.write_str("a worker has not made the changes before these"),
            Self::Silent => write!(formatter, "a worker does not answer within {PATIENCE:?}"),
            Self::Refused(1) => formatter.write_str(
                "a tunnel was not taken: its public key is no usable key, or stands twice",
            ),
            Self::Refused(count) => write!(
                formatter,
                "{count} tunnels were not taken: their public keys are no usable keys, or stand twice"
            ),
        }
    }
}

impl std::error::Error for ChangeError {}

/// Has every worker make its changes; workers that run are told, a few changes a round.
///
/// # Errors
/// See [`ChangeError`].
pub(crate) fn carry_out(
    workers: &[WorkerHandle],
    mut changes: Vec<Vec<Change>>,
) -> Result<(), ChangeError> {
    let mut refused = 0;
    loop {
        let mut answers: Vec<Receiver<Vec<usize>>> = Vec::new();
        for (worker, changes) in workers.iter().zip(&mut changes) {
            let rest = changes.split_off(changes.len().min(MOST_CHANGES));
            let changes = std::mem::replace(changes, rest);
            if changes.is_empty() {
                continue;
            }
            let (done, answer) = sync_channel(1);
            if worker.host.orders.push(Order { changes, done }).is_err() {
                return Err(ChangeError::Busy);
            }
            worker.host.bell.ring();
            answers.push(answer);
        }
        if answers.is_empty() {
            break;
        }
        for answer in answers {
            match answer.recv_timeout(PATIENCE) {
                Ok(places) => refused += places.len(),
                Err(_) => return Err(ChangeError::Silent),
            }
        }
    }
    match refused {
        0 => Ok(()),
        count => Err(ChangeError::Refused(count)),
    }
}

#[cfg(test)]
mod tests;
