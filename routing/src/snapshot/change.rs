//! The next snapshot where only routes change.
//!
//! 1. The routing table copies the chunks that the changed prefixes are in, and ranks their candidates.
//! 2. A prefix that leads elsewhere now is moved; a group that nobody had yet is added behind the others.
//! 3. The forwarding table copies the nodes on the way to each moved prefix, or is built anew where that
//!    takes less.
//! 4. All else is shared: policy, paths, groups and their words.

use super::{BuildError, Hop, Snapshot, is_there};
use crate::fib::{Fib, Routes};
use crate::group::Groups;
use crate::health::Usability;
use crate::path::{PathId, PathKind};
use crate::rib::{Candidate, NextHop, Ranked, Ranking, Rib, RouteChange};
use ipnet::IpNet;
use std::num::NonZeroU32;
use std::sync::Arc;

/// The most prefixes that one change brings into the forwarding table one by one; with more of them it is
/// built anew, which takes less time.
const MOST_PATCHED: usize = 4_096;

impl Snapshot {
    /// The snapshot after these changes of routes, of this generation. Policy, paths, and the groups that
    /// there are stay, with their ids and words; a new group's word is made of this health of the paths.
    /// Groups that no route leads to any more stay until a snapshot is built whole.
    ///
    /// # Errors
    /// A route leads to what is not there, or there are more groups than fit.
    pub fn with_routes(
        &self,
        generation: NonZeroU32,
        changes: &[RouteChange],
        usability: impl Fn(PathId) -> Usability,
    ) -> Result<Self, BuildError> {
        for change in changes {
            if let RouteChange::Announce(candidate) = change {
                self.known(candidate)?;
            }
        }
        let kinds = self.owner_kinds();
        let ranking = Ranking {
            vnet: &self.vnet,
            kind: |next_hop| match next_hop {
                NextHop::Owner(owner) => kinds.get(usize::from(owner.0)).copied().flatten(),
                NextHop::Path(path) => self.path(path).map(|path| path.kind),
                NextHop::Vnet | NextHop::Internet | NextHop::None | NextHop::Appliance(_) => None,
            },
        };
        let (rib, touched) = self.rib.changed(changes, &ranking);
        let mut index = Arc::clone(&self.index);
        let mut moved = Vec::new();
        for prefix in touched {
            let old = self.active_hop(prefix);
            let new = match rib.active_prefix(prefix) {
                None => None,
                Some(same) => Some(match index.known(same) {
                    Some(hop) => hop,
                    None => Arc::make_mut(&mut index).hop(same)?,
                }),
            };
            moved.extend((old != new).then_some(prefix));
        }
        let routes = Hops {
            rib: &rib,
            index: &index,
        };
        let patched = (moved.len() <= MOST_PATCHED).then(|| self.fib.patched(&moved, &routes));
        let fib = patched.flatten().unwrap_or_else(|| routes.table());
        let groups = if index.len() == self.groups.len() {
            Arc::clone(&self.groups)
        } else {
            index.groups(&self.groups, self.usability(usability))
        };
        Ok(Self {
            generation,
            fib,
            rib,
            index,
            groups,
            ..self.clone()
        })
    }

    /// Where packets to exactly this prefix lead to, if it has a route.
    fn active_hop(&self, prefix: IpNet) -> Option<Hop> {
        self.index.known(self.rib.active_prefix(prefix)?)
    }

    /// What kind each owner is, by its paths; `None` for an owner without any.
    fn owner_kinds(&self) -> Vec<Option<PathKind>> {
        let mut kinds = vec![None; self.owners.len()];
        for path in self.paths() {
            if let Some(kind) = kinds.get_mut(usize::from(path.owner.0)) {
                *kind = Some(path.kind);
            }
        }
        kinds
    }

    /// Whether what a candidate leads to is there.
    fn known(&self, candidate: &Candidate) -> Result<(), BuildError> {
        let counts = [self.owners.len(), self.paths.len(), self.appliances.len()];
        is_there(candidate, counts)
    }
}

/// The routes of a table with where they lead to.
struct Hops<'a> {
    rib: &'a Rib,
    index: &'a Groups,
}

impl Hops<'_> {
    /// The whole forwarding table.
    fn table(&self) -> Fib<Hop> {
        let routes = self.rib.routes().filter_map(|same| self.hop(same));
        Fib::new(routes, Hop::Nowhere)
    }

    fn hop(&self, same: &[Ranked]) -> Option<(IpNet, Hop)> {
        Some((same.first()?.candidate.prefix, self.index.known(same)?))
    }
}

impl Routes<Hop> for Hops<'_> {
    fn inside(&self, prefix: IpNet) -> impl Iterator<Item = (IpNet, Hop)> {
        self.rib.inside(prefix).filter_map(|same| self.hop(same))
    }

    fn covering(&self, prefix: IpNet) -> Option<(IpNet, Hop)> {
        self.hop(self.rib.covering(prefix)?)
    }
}
