//! Where a worker's packets go: what each path is to it, and which worker has which client.

use crate::worker::clients::{Address, ByAddress};
use crate::worker::lane::{Lanes, owned};
use routing::packet::FlowKey;
use routing::path::PathId;
use std::net::IpAddr;

/// What a path is in this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The link at this index.
    Link(usize),
    /// A tunnel, with these lanes of this worker.
    Tunnel(Lanes),
    /// A tunnel of this worker over a circuit: the place of its [`Private`](crate::worker::private::Private).
    Private(usize),
    /// A tunnel of which this worker has no lane, and the worker of this number has.
    Owner(usize),
    /// Clients, whose tunnels several workers have.
    Clients,
    /// Not known here.
    Nowhere,
}

/// What the site with so many lanes is to this worker; `owner`: the owner of its lane 0.
pub fn way(lanes: u8, owner: usize, worker: usize, workers: usize) -> Way {
    if lanes <= 1 {
        return if worker == owner {
            Way::Tunnel(Lanes::ONE)
        } else {
            Way::Owner(owner)
        };
    }
    let first = u8::from(worker != owner);
    let above = owned(worker, workers, lanes).count() as u8;
    match above + (1 - first) {
        0 => Way::Owner(worker % usize::from(lanes)),
        count => Way::Tunnel(Lanes { first, count }),
    }
}

/// All ways of a worker.
#[derive(Clone, Debug, Default)]
pub struct Ways {
    by_path: Vec<Way>,
    /// The worker that has the tunnel of each client, by the client's addresses.
    client_owners: ByAddress<usize>,
}

impl Ways {
    /// What a path is.
    #[inline]
    pub fn of(&self, path: PathId) -> Way {
        let way = self.by_path.get(usize::from(path.0));
        way.copied().unwrap_or(Way::Nowhere)
    }

    /// The path is this from now on.
    pub fn set(&mut self, path: PathId, way: Way) {
        let place = usize::from(path.0);
        if self.by_path.len() <= place {
            self.by_path.resize(place + 1, Way::Nowhere);
        }
        if let Some(slot) = self.by_path.get_mut(place) {
            *slot = way;
        }
    }

    /// The worker that has the client which a packet is for.
    #[inline]
    pub fn client_owner(&self, key: &FlowKey) -> Option<usize> {
        self.client_owners.get(&Address::destination(key)).copied()
    }

    /// The client with these addresses is this worker's.
    pub fn add_client(&mut self, addresses: Vec<IpAddr>, owner: usize) {
        for address in addresses {
            self.client_owners.insert(address.into(), owner);
        }
    }

    /// There is no client with these addresses any more.
    pub fn remove_client(&mut self, addresses: Vec<IpAddr>) {
        for address in addresses {
            self.client_owners.remove(&address.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which worker and lane a packet leaves by, that worker `worker` has for a site with so many lanes.
    fn lane_of(lanes: u8, (worker, workers): (usize, usize), hash: u64) -> (usize, u8) {
        match way(lanes, 0, worker, workers) {
            Way::Tunnel(own) => {
                let base = (worker == 0).then_some(0);
                // As assembled for a gateway with another site of 16 lanes: places do not depend on it.
                let row: Vec<u8> = if base.is_some() {
                    base.into_iter().chain(owned(worker, workers, 16)).collect()
                } else {
                    // Place 0 is the base port, which is not this site's here.
                    std::iter::once(u8::MAX)
                        .chain(owned(worker, workers, 16))
                        .collect()
                };
                (worker, row[own.place(|| hash << 32)])
            }
            Way::Owner(other) => {
                assert_ne!(other, worker);
                lane_of(lanes, (other, workers), hash)
            }
            other => unreachable!("{other:?} is no site"),
        }
    }

    #[test]
    fn every_lane_is_used_and_by_its_owner_alone() {
        for workers in 1..=8 {
            for lanes in 2..=16 {
                let mut used = [None; 16];
                for worker in 0..workers {
                    for hash in 0..16 {
                        let (owner, lane) = lane_of(lanes, (worker, workers), hash);
                        assert!(lane < lanes, "{workers} workers, {lanes} lanes: {lane}");
                        assert_eq!(owner, usize::from(lane) % workers);
                        let before = used[usize::from(lane)].replace(owner);
                        assert!(before.is_none_or(|before| before == owner));
                    }
                }
                let count = used.iter().flatten().count();
                assert_eq!(count, usize::from(lanes), "{workers} workers");
            }
        }
    }

    #[test]
    fn a_site_of_one_lane_has_one_owner() {
        assert_eq!(way(1, 2, 2, 3), Way::Tunnel(Lanes::ONE));
        assert_eq!(way(1, 2, 0, 3), Way::Owner(2));
    }

    #[test]
    fn a_path_that_nobody_spoke_of_leads_nowhere() {
        let mut ways = Ways::default();
        ways.set(PathId(2), Way::Link(1));
        let found = [0, 1, 2, 3].map(|path| ways.of(PathId(path)));
        assert_eq!(
            found,
            [Way::Nowhere, Way::Nowhere, Way::Link(1), Way::Nowhere]
        );
    }
}
