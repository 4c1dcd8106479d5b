//! Path groups: the paths of a route in tiers of preference, and the word that says which are in use.

use crate::health::Usability;
use crate::packet::Version;
use crate::path::{ActiveMembers, GroupId, MAX_MEMBERS, PathId};
use crate::rib::{NextHop, OwnerId, Ranked, RouteSource, Standing};
use crate::snapshot::{BuildError, Hop, Path, at_most};
use ipnet::IpNet;
use std::collections::HashMap;
use std::sync::Arc;

/// Paths in tiers of preference, and which of them are in use.
#[derive(Clone, Debug)]
pub struct Group {
    /// Every member, by tier.
    members: Box<[PathId]>,
    /// Members of each tier, as bits.
    tiers: Box<[u64]>,
    /// Whether packets take it whatever its paths' health.
    unconditional: bool,
    active: Arc<ActiveMembers>,
}

impl Group {
    /// Its members in order of preference.
    pub fn members(&self) -> &[PathId] {
        &self.members
    }

    /// For each tier its members as bits of the group's word; the first tier is preferred.
    pub fn tiers(&self) -> &[u64] {
        &self.tiers
    }

    /// The tier of a member.
    pub fn tier_of(&self, member: u8) -> Option<usize> {
        self.tiers.iter().position(|tier| tier >> member & 1 != 0)
    }

    /// The group's word.
    #[inline]
    pub fn active(&self) -> &Arc<ActiveMembers> {
        &self.active
    }

    /// What the word should be: the fully usable members of the best tier that has any, or else those
    /// that are usable as a last resort. A link's own subnet is tried whatever its health: its neighbour
    /// is asked and answered there, and a path that is down could not come up otherwise.
    pub fn word(&self, usability: impl Fn(PathId) -> Usability) -> u64 {
        let best = |least: Usability| {
            let mask = (0..MAX_MEMBERS)
                .zip(&*self.members)
                .filter(|&(_, &path)| self.unconditional || usability(path) >= least)
                .fold(0, |mask, (bit, _)| mask | 1 << bit);
            let words = self.tiers.iter().map(|tier| tier & mask);
            words.into_iter().find(|&word| word != 0)
        };
        best(Usability::Full)
            .or_else(|| best(Usability::LastResort))
            .unwrap_or(0)
    }

    /// Writes the word for this health of the paths; whether it changed.
    pub fn update(&self, usability: impl Fn(PathId) -> Usability) -> bool {
        let word = self.word(usability);
        let changed = self.active.load() != word;
        if changed {
            self.active.store(word);
        }
        changed
    }
}

/// Members by tier, and whether packets take them whatever their health: what makes two groups one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Plan {
    tiers: Vec<Vec<PathId>>,
    unconditional: bool,
}

impl Plan {
    /// A path stands once, where it stands best.
    fn new(tiers: Vec<Vec<PathId>>, unconditional: bool) -> Self {
        let mut seen = Vec::new();
        let mut once = |path: &PathId| {
            let is_new = !seen.contains(path);
            seen.extend(is_new.then_some(*path));
            is_new
        };
        let mut tiers = tiers;
        for tier in &mut tiers {
            tier.retain(&mut once);
        }
        tiers.retain(|tier| !tier.is_empty());
        Self {
            tiers,
            unconditional,
        }
    }
}

/// The path groups of a snapshot by what they hold; equal ones are one group.
#[derive(Clone, Debug)]
pub(crate) struct Groups {
    /// The paths of each owner that carry IPv4, and those that carry IPv6.
    of_owner: Vec<[Vec<PathId>; 2]>,
    ids: HashMap<Plan, GroupId>,
    /// The groups of next hops that stand alone, which most do: found without building tiers.
    alone: HashMap<Alone, GroupId>,
    plans: Vec<Plan>,
}

/// A next hop, the IP version, and whether packets take it whatever its paths' health.
type Alone = (NextHop, Version, bool);

/// Where candidates lead to, as far as it is known.
enum Lookup {
    Known(Hop),
    /// A group that is not there yet, and how it is found if it is that of one next hop.
    New(Plan, Option<Alone>),
}

impl Groups {
    /// A collection for these paths of this many owners.
    pub(crate) fn new(paths: &[Path], owners: usize) -> Self {
        let mut of_owner = vec![<[Vec<PathId>; 2]>::default(); owners];
        for (index, path) in paths.iter().enumerate() {
            if let Some([v4, v6]) = of_owner.get_mut(usize::from(path.owner.0)) {
                let id = PathId(index as u16);
                v4.extend(path.carries(Version::V4).then_some(id));
                v6.extend(path.carries(Version::V6).then_some(id));
            }
        }
        Self {
            of_owner,
            ids: HashMap::new(),
            alone: HashMap::new(),
            plans: Vec::new(),
        }
    }

    /// Where the candidates of one prefix lead to; `None` if that group is not there yet.
    pub(crate) fn known(&self, same: &[Ranked]) -> Option<Hop> {
        match self.look_up(same) {
            Lookup::Known(hop) => Some(hop),
            Lookup::New(plan, _) => self.ids.get(&plan).map(|&group| Hop::Group(group)),
        }
    }

    /// Where the candidates of one prefix lead to.
    pub(crate) fn hop(&mut self, same: &[Ranked]) -> Result<Hop, BuildError> {
        let (plan, alone) = match self.look_up(same) {
            Lookup::Known(hop) => return Ok(hop),
            Lookup::New(plan, alone) => (plan, alone),
        };
        let group = self.add(plan)?;
        self.alone.extend(alone.map(|alone| (alone, group)));
        Ok(Hop::Group(group))
    }

    /// The group of a policy: one tier for each owner.
    pub(crate) fn via(
        &mut self,
        owners: &[OwnerId],
        version: Version,
    ) -> Result<GroupId, BuildError> {
        let tiers = owners
            .iter()
            .map(|&owner| self.paths(NextHop::Owner(owner), version))
            .collect();
        self.add(Plan::new(tiers, false))
    }

    /// The groups in the order of their ids: those that are there already, with their words, and behind
    /// them the new ones, with the words of this health.
    pub(crate) fn groups(
        &self,
        there: &[Group],
        usability: impl Fn(PathId) -> Usability,
    ) -> Arc<[Group]> {
        let group = |plan: &Plan| {
            let mut start = 0;
            let bits = |tier: &Vec<PathId>| {
                let bits = (start..start + tier.len()).fold(0, |bits, bit| bits | 1 << bit);
                start += tier.len();
                bits
            };
            let group = Group {
                members: plan.tiers.iter().flatten().copied().collect(),
                tiers: plan.tiers.iter().map(bits).collect(),
                unconditional: plan.unconditional,
                active: Arc::default(),
            };
            group.update(&usability);
            group
        };
        let new = self.plans.iter().skip(there.len()).map(group);
        there.iter().cloned().chain(new).collect()
    }

    /// How many groups there are.
    pub(crate) fn len(&self) -> usize {
        self.plans.len()
    }

    fn look_up(&self, same: &[Ranked]) -> Lookup {
        let Some(first) = same.first().map(|one| one.candidate) else {
            return Lookup::Known(Hop::Nowhere);
        };
        match first.next_hop {
            NextHop::Vnet | NextHop::Appliance(_) => return Lookup::Known(Hop::Vnet),
            NextHop::Internet => return Lookup::Known(Hop::Internet),
            NextHop::None => return Lookup::Known(Hop::None),
            NextHop::Owner(_) | NextHop::Path(_) => {}
        }
        let unconditional = first.source == RouteSource::Connected;
        let version = match first.prefix {
            IpNet::V4(_) => Version::V4,
            IpNet::V6(_) => Version::V6,
        };
        let alone = (first.next_hop, version, unconditional);
        let is_alone = same.len() == 1;
        if let (true, Some(&group)) = (is_alone, self.alone.get(&alone)) {
            return Lookup::Known(Hop::Group(group));
        }
        let mut tiers = Vec::new();
        for one in same {
            if one.standing == Standing::Active || one.standing.is_standby() {
                let tier = usize::from(one.tier);
                if tiers.len() <= tier {
                    tiers.resize(tier + 1, Vec::new());
                }
                if let Some(members) = tiers.get_mut(tier) {
                    members.extend(self.paths(one.candidate.next_hop, version));
                }
            }
        }
        let plan = Plan::new(tiers, unconditional);
        match self.ids.get(&plan) {
            Some(&group) if !is_alone => Lookup::Known(Hop::Group(group)),
            _ => Lookup::New(plan, is_alone.then_some(alone)),
        }
    }

    fn paths(&self, next_hop: NextHop, version: Version) -> Vec<PathId> {
        match next_hop {
            NextHop::Owner(owner) => match (self.of_owner.get(usize::from(owner.0)), version) {
                (Some([v4, _]), Version::V4) => v4.clone(),
                (Some([_, v6]), Version::V6) => v6.clone(),
                (None, _) => Vec::new(),
            },
            NextHop::Path(path) => vec![path],
            NextHop::Vnet | NextHop::Internet | NextHop::None | NextHop::Appliance(_) => Vec::new(),
        }
    }

    fn add(&mut self, plan: Plan) -> Result<GroupId, BuildError> {
        if let Some(&id) = self.ids.get(&plan) {
            return Ok(id);
        }
        let members = plan.tiers.iter().map(Vec::len).sum();
        at_most("paths in one group", MAX_MEMBERS, members)?;
        // One number stays free: the flow cache's "no group".
        at_most("path groups", usize::from(u16::MAX), self.plans.len() + 1)?;
        let id = GroupId(self.plans.len() as u16);
        self.plans.push(plan.clone());
        self.ids.insert(plan, id);
        Ok(id)
    }
}
