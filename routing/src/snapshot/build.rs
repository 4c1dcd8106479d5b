//! How a snapshot is made: owners, paths, routes and rules in, numbers out.

use super::{Action, BuildError, Owner, Path, Rule, RuleFacts, Snapshot, carried, facts};
use crate::fib::Fib;
use crate::group::Groups;
use crate::health::Usability;
use crate::packet::Version;
use crate::path::{PathId, PathKind};
use crate::policy::Policy;
use crate::prefix::PrefixSet;
use crate::rib::{Candidate, NextHop, OwnerId, Rib, RouteSource};
use crate::snapshot::Hop;
use crate::snapshot::MAX_PATHS;
use crate::snapshot::RuleAction;
use crate::snapshot::is_there;
use ipnet::IpNet;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

/// What a snapshot is built from; [`Builder::build`] adds system and connected routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Builder {
    /// Tells this snapshot from every other that a flow cache may have seen.
    pub generation: NonZeroU32,
    /// The gateway's own addresses.
    pub own_addresses: Vec<IpAddr>,
    /// The virtual network's prefixes.
    pub address_space: Vec<IpNet>,
    /// Further sources that packets from the virtual network may have.
    pub vnet_sources: Vec<IpNet>,
    /// Circuits, then sites; their place is their [`OwnerId`].
    pub owners: Vec<Owner>,
    /// ExpressRoute links, then tunnels; their place is their [`PathId`].
    pub paths: Vec<Path>,
    /// Addresses of the virtual appliances that routes lead to; their place is their [`ApplianceId`](crate::rib::ApplianceId).
    pub appliances: Vec<IpAddr>,
    /// User-defined, static, site and BGP routes.
    pub routes: Vec<Candidate>,
    /// The policy route table, in order.
    pub policy: Vec<Rule>,
    /// Whether packets may go from one circuit or site to another.
    pub branch_transit: bool,
    /// Circuits that tunnels are carried over.
    pub underlays: Vec<OwnerId>,
}

impl Builder {
    /// A builder for this generation with nothing in it.
    pub fn new(generation: NonZeroU32) -> Self {
        Self {
            generation,
            own_addresses: Vec::new(),
            address_space: Vec::new(),
            vnet_sources: Vec::new(),
            owners: Vec::new(),
            paths: Vec::new(),
            appliances: Vec::new(),
            routes: Vec::new(),
            policy: Vec::new(),
            branch_transit: false,
            underlays: Vec::new(),
        }
    }

    /// Builds the snapshot; `usability` is the paths' health now, so that no packet sees a wrong word.
    ///
    /// # Errors
    /// [`BuildError::TooMany`]: more paths, appliances, rules or groups than their numbers can tell apart, or more
    /// paths in one group than its word has bits. [`BuildError::Unknown`]: a path, route or rule names an owner, path
    /// or appliance that is not there.
    pub fn build(
        mut self,
        usability: impl Fn(PathId) -> Usability,
    ) -> Result<Snapshot, BuildError> {
        at_most("paths", MAX_PATHS, self.paths.len())?;
        at_most(
            "virtual appliances",
            usize::from(u16::MAX),
            self.appliances.len(),
        )?;
        at_most("policy rules", usize::from(u16::MAX), self.policy.len())?;
        let owner_kinds = self.owner_kinds()?;
        let vnet: PrefixSet = self.address_space.iter().copied().collect();
        let candidates = self.candidates()?;
        let rib = Rib::new(candidates, &vnet, |next_hop| match next_hop {
            NextHop::Owner(owner) => owner_kinds.get(usize::from(owner.0)).copied().flatten(),
            NextHop::Path(path) => self.paths.get(usize::from(path.0)).map(|p| p.kind),
            NextHop::Vnet | NextHop::Internet | NextHop::None | NextHop::Appliance(_) => None,
        });

        let mut groups = Groups::new(&self.paths, self.owners.len());
        let mut entries = Vec::new();
        for same in rib.routes() {
            if let Some(first) = same.first() {
                entries.push((first.candidate.prefix, groups.hop(same)?));
            }
        }
        let mut rules = Vec::with_capacity(self.policy.len());
        let mut matches = Vec::with_capacity(self.policy.len());
        for rule in self.policy {
            let action = match rule.action {
                Action::Route => RuleAction::Route,
                Action::Drop => RuleAction::Drop,
                Action::Reject => RuleAction::Reject,
                Action::Via(owners) => {
                    let known = |owner: &OwnerId| usize::from(owner.0) < self.owners.len();
                    if !owners.iter().all(known) {
                        return Err(BuildError::Unknown { by: rule.name });
                    }
                    RuleAction::Via {
                        v4: groups.via(&owners, Version::V4)?,
                        v6: groups.via(&owners, Version::V6)?,
                    }
                }
            };
            rules.push(RuleFacts {
                name: rule.name,
                action,
                set_dscp: rule.set_dscp.map(|dscp| dscp & 0x3F),
            });
            matches.push(rule.matches);
        }
        let mut underlays = Vec::with_capacity(self.underlays.len());
        for &owner in &self.underlays {
            let v4 = groups.via(&[owner], Version::V4)?;
            let v6 = groups.via(&[owner], Version::V6)?;
            underlays.push((owner, [v4, v6]));
        }
        let index = Arc::new(groups);
        let paths = facts(self.paths);
        let groups = index.groups(&[], |id| carried(&paths, &usability, id));
        let (own_v4, own_v6) = by_family(&self.own_addresses);
        Ok(Snapshot {
            generation: self.generation,
            own_v4,
            own_v6,
            vnet,
            vnet_sources: self
                .address_space
                .iter()
                .chain(&self.vnet_sources)
                .copied()
                .collect(),
            owners: self.owners.into(),
            paths,
            policy: Arc::new(Policy::new(&matches)),
            rules: rules.into(),
            fib: Fib::new(entries, Hop::Nowhere),
            rib,
            groups,
            index,
            appliances: self.appliances.into(),
            branch_transit: self.branch_transit,
            underlays: underlays.into(),
        })
    }

    /// What kind each owner is, by its paths; `None` for an owner without any.
    fn owner_kinds(&self) -> Result<Vec<Option<PathKind>>, BuildError> {
        let mut kinds = vec![None; self.owners.len()];
        for path in &self.paths {
            match kinds.get_mut(usize::from(path.owner.0)) {
                Some(kind) => *kind = Some(path.kind),
                None => {
                    return Err(BuildError::Unknown {
                        by: path.name.clone(),
                    });
                }
            }
        }
        Ok(kinds)
    }

    /// The given routes, with those that the gateway has by itself.
    fn candidates(&mut self) -> Result<Vec<Candidate>, BuildError> {
        let system = |prefix, next_hop| Candidate::new(prefix, RouteSource::System, next_hop);
        let mut candidates = std::mem::take(&mut self.routes);
        let counts = [self.owners.len(), self.paths.len(), self.appliances.len()];
        for one in &candidates {
            is_there(one, counts)?;
        }
        for &prefix in &self.address_space {
            candidates.push(system(prefix, NextHop::Vnet));
        }
        for (prefix, next_hop) in azure_defaults() {
            // A default for exactly a prefix of the virtual network gives way to it.
            if !self.address_space.iter().any(|own| own.trunc() == prefix) {
                candidates.push(system(prefix, next_hop));
            }
        }
        for (index, path) in self.paths.iter().enumerate() {
            for &subnet in &path.subnets {
                // Every link has fe80::/64; such addresses are reached by naming the link.
                if !matches!(subnet, IpNet::V6(net) if net.network().is_unicast_link_local()) {
                    let next_hop = NextHop::Path(PathId(index as u16));
                    candidates.push(Candidate::new(subnet, RouteSource::Connected, next_hop));
                }
            }
        }
        Ok(candidates)
    }
}

/// Azure's default system routes (docs/azure.md, section 2).
fn azure_defaults() -> [(IpNet, NextHop); 6] {
    let v4 = |octets: [u8; 4], length| IpNet::new_assert(IpAddr::from(octets), length);
    [
        (v4([0, 0, 0, 0], 0), NextHop::Internet),
        (v4([10, 0, 0, 0], 8), NextHop::None),
        (v4([172, 16, 0, 0], 12), NextHop::None),
        (v4([192, 168, 0, 0], 16), NextHop::None),
        (v4([100, 64, 0, 0], 10), NextHop::None),
        (
            IpNet::new_assert(IpAddr::from([0_u16; 8]), 0),
            NextHop::Internet,
        ),
    ]
}

pub(crate) fn at_most(what: &'static str, limit: usize, found: usize) -> Result<(), BuildError> {
    if found > limit {
        return Err(BuildError::TooMany { what, limit, found });
    }
    Ok(())
}

/// Own addresses, by family.
fn by_family(addresses: &[IpAddr]) -> (Arc<[u32]>, Arc<[u128]>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for &address in addresses {
        match address {
            IpAddr::V4(address) => v4.push(address.to_bits()),
            IpAddr::V6(address) => v6.push(address.to_bits()),
        }
    }
    (v4.into(), v6.into())
}
