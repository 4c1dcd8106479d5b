use super::*;
use crate::config::{self, KeyFiles};
use crate::plan::PathPlan;
use crypto::key::PrivateKey;
use routing::health::Usability;
use std::fmt::Write as _;
use std::fs;
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt as _;

/// What a worker has: the ways, each site's peers by port, and clients.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    identity: Option<PublicKey>,
    ways: BTreeMap<PathId, String>,
    sites: BTreeMap<(PathId, String), ([u8; 32], [u8; 32])>,
    clients: BTreeMap<ClientId, ([u8; 32], Vec<IpAddr>)>,
}

impl Model {
    /// Makes a change as a worker does; false if its engine would refuse the key: each is there once.
    fn change(&mut self, change: &Change) -> bool {
        let known = |model: &Self, port: &str, key: [u8; 32]| {
            let mut sites = model.sites.iter();
            sites.any(|((_, of), (site, _))| of == port && *site == key)
                || port == "Socket(0)" && model.clients.values().any(|(client, _)| *client == key)
        };
        match change {
            Change::Way { path, way } => match way {
                // A path that nobody has named and one that leads nowhere are the same.
                Way::Nowhere => drop(self.ways.remove(path)),
                way => drop(self.ways.insert(*path, format!("{way:?}"))),
            },
            Change::Identity { private_key } => self.identity = Some(private_key.public_key()),
            Change::AddSite {
                port, path, peer, ..
            } => {
                let port = format!("{port:?}");
                if known(self, &port, peer.public_key) {
                    return false;
                }
                let keys = (peer.public_key, *peer.preshared_key);
                self.sites.insert((*path, port), keys);
            }
            Change::RemoveSite { path } => self.sites.retain(|(of, _), _| of != path),
            Change::AddClient {
                id,
                addresses,
                tunnel,
                ..
            } => {
                let Some((peer, _)) = tunnel else { return true };
                if known(self, "Socket(0)", peer.public_key) {
                    return false;
                }
                let client = (peer.public_key, addresses.clone());
                self.clients.insert(*id, client);
            }
            // Where a site is found makes it no other site.
            Change::MoveSite { .. } => {}
            Change::RemoveClient { id, .. } => drop(self.clients.remove(id)),
        }
        true
    }

    fn carry_out(&mut self, changes: &[Change]) -> bool {
        changes.iter().all(|one| self.change(one))
    }
}

/// A configuration in a directory of its own, with keys that tests replace.
struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        bench.write("own.key", &PrivateKey::generate().unwrap().to_base64());
        bench.write("shared.key", &PresharedKey::generate().unwrap().to_base64());
        bench
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// The tunnels of sites and clients with these names and keys, after those before.
    fn tunnels(
        &self,
        before: Option<&(Config, Plan, Keys, TunnelSet)>,
        sites: &[(&str, &PublicKey)],
        clients: &[(&str, &PublicKey)],
    ) -> (Config, Plan, Keys, TunnelSet) {
        let mut text =
            "[vnet]\nname = \"lab\"\naddress_space = \"10.1.0.0/16\"\naddress = \"10.1.0.4/27\"\n\
                        [vpn]\nsku = \"Unlimited\"\nprivate_key_file = \"own.key\"\n"
                .to_owned();
        for (number, (name, key)) in sites.iter().enumerate() {
            let _ = writeln!(
                text,
                "[[vpn.site]]\nname = \"{name}\"\npublic_key = \"{key}\"\nendpoint = \"192.0.2.{}:51820\"\n\
                 prefixes = \"10.{}.0.0/16\"\nlanes = {}\npreshared_key_file = \"shared.key\"",
                number + 1,
                number + 20,
                1 + number % 2,
            );
        }
        text.push_str("[vpn.point_to_site]\naddress_pool = \"172.31.0.0/24\"\n");
        for (name, key) in clients {
            let _ = writeln!(
                text,
                "[[vpn.point_to_site.client]]\nname = \"{name}\"\npublic_key = \"{key}\""
            );
        }
        let file = self.directory.path().join("vng.toml");
        let loaded = config::parse(&file, text, self.directory.path(), KeyFiles::Checked);
        let config = loaded
            .unwrap_or_else(|r| panic!("{}", r.render(false)))
            .config;
        let keys = Keys::read(&config).unwrap();
        let (generation, usable) = (NonZeroU32::MIN, |_: &PathPlan| Usability::Full);
        let (plan, set) = match before {
            None => {
                let plan = Plan::new(&config, generation, usable).unwrap();
                let set = TunnelSet::new(&config, &plan, &keys);
                (plan, set)
            }
            Some((_, old, _, before)) => {
                let plan = old.after(&config, generation, usable).unwrap();
                let set = before.after(&config, &plan, &keys);
                (plan, set)
            }
        };
        (config, plan, keys, set)
    }
}

fn place<'a>(worker: usize, identity: Option<(&'a PrivateKey, &'a PrivateKey)>) -> Place<'a> {
    Place {
        worker,
        workers: 2,
        most_lanes: 2,
        underlays: &[],
        identity,
    }
}

fn steps(
    old: &(Config, Plan, Keys, TunnelSet),
    new: &(Config, Plan, Keys, TunnelSet),
    worker: usize,
) -> Steps {
    let identity = old.2.private_key().zip(new.2.private_key());
    let identity = identity.filter(|_| old.2.public_key() != new.2.public_key());
    Steps::between(&old.3, &new.3, new.0.vpn.as_ref(), place(worker, identity))
}

fn keys<const N: usize>() -> [PublicKey; N] {
    [(); N].map(|()| PrivateKey::generate().unwrap().public_key())
}

/// Regression: a reload whose tunnels were refused by a worker left those that had been added, and every reload
/// after it failed: the keys were known already.
#[test]
fn a_change_that_ends_halfway_goes_back_to_where_it_began() {
    let bench = Bench::new();
    let [a, b, c, d, laptop, phone, tablet] = &keys();
    let old = bench.tunnels(
        None,
        &[("a", a), ("b", b), ("gone", c)],
        &[("laptop", laptop), ("phone", phone)],
    );
    // One site stays, one has another key, one goes and a new one gets its key; a client goes, one comes with the
    // key of the one that goes, and the other has new addresses.
    let same_key = |old: &_| {
        bench.tunnels(
            Some(old),
            &[("a", a), ("b", d), ("new", c)],
            &[("tablet", laptop), ("other", tablet)],
        )
    };
    let other_key = |old: &_| {
        bench.write("own.key", &PrivateKey::generate().unwrap().to_base64());
        same_key(old)
    };
    let news = [same_key(&old), other_key(&old)];
    for new in &news {
        for worker in 0..2 {
            let mut model = Model {
                identity: old.2.public_key(),
                ..Model::default()
            };
            let none = Steps::between(
                &TunnelSet::default(),
                &old.3,
                old.0.vpn.as_ref(),
                place(worker, None),
            );
            assert!(model.carry_out(&none.before));
            let first = model.clone();
            let all = steps(&old, new, worker).before.len();
            for done in 0..=all {
                let Steps { before, undo, .. } = steps(&old, new, worker);
                assert!(model.carry_out(&before[..done]), "{done}");
                assert!(model.carry_out(&undo), "the way back from {done} of {all}");
                assert_eq!(model, first, "{done} of {all}, worker {worker}");
            }
            // And now it succeeds.
            let Steps { before, after, .. } = steps(&old, new, worker);
            assert!(model.carry_out(&before) && model.carry_out(&after));
            let mut fresh = Model {
                identity: new.2.public_key(),
                ..Model::default()
            };
            let whole = Steps::between(
                &TunnelSet::default(),
                &new.3,
                new.0.vpn.as_ref(),
                place(worker, None),
            );
            assert!(fresh.carry_out(&whole.before));
            // What has gone keeps its way, to a tunnel that is not there.
            model.ways.retain(|path, _| fresh.ways.contains_key(path));
            assert_eq!(model, fresh);
        }
    }
}

/// Regression: what a key file holds was no part of what a reload compared, so a new key under an old name was
/// never used.
#[test]
fn a_new_key_in_an_old_file_makes_the_tunnels_anew_that_use_it() {
    let bench = Bench::new();
    let [a, laptop] = &keys();
    let old = bench.tunnels(None, &[("a", a)], &[("laptop", laptop)]);
    let again = |before: &_| bench.tunnels(Some(before), &[("a", a)], &[("laptop", laptop)]);
    let name = |_| "a".to_owned();
    let same = again(&old);
    assert_eq!(same.3.changes(&old.3, name), [""; 0]);
    bench.write("shared.key", &PresharedKey::generate().unwrap().to_base64());
    let shared = again(&same);
    assert_eq!(
        shared.3.changes(&same.3, name),
        ["site a: its tunnel begins anew, its preshared key changed"]
    );
    bench.write("own.key", &PrivateKey::generate().unwrap().to_base64());
    let own = again(&shared);
    assert_eq!(
        own.3.changes(&shared.3, name),
        [
            "site a: its tunnel begins anew, our key changed",
            "client laptop: its tunnel begins anew, our key changed"
        ]
    );
    let steps = steps(&shared, &own, 0);
    let place = |is: fn(&Change) -> bool| steps.before.iter().position(is).unwrap();
    let identity = place(|change| matches!(change, Change::Identity { .. }));
    assert!(place(|change| matches!(change, Change::RemoveSite { .. })) < identity);
    assert!(identity < place(|change| matches!(change, Change::AddSite { .. })));
}
