//! What becomes of a packet: the one decision, which workers, benches and `vng explain` share.
//!
//! 1. Martians are dropped, but for a link's own link-local neighbours.
//! 2. The source must be one that the ingress may use: a site's or client's own, and of a circuit anything but the
//!    virtual network's and what is configured for others.
//! 3. The gateway's own addresses go to its host port.
//! 4. The first policy rule that matches sends the packet to its paths, drops it, or lets it go on.
//! 5. The longest prefix that holds the destination leads to the virtual network, nowhere, or a group.
//! 6. The flow's hash picks one of the group's active members.
//! 7. Nothing goes back to where it came from, and nothing from branch to branch without transit.
//!
//! What the gateway sends itself skips 2, 4 and 7: it may go anywhere.

use crate::group::Group;
use crate::packet::{FlowKey, Fragment, Headers, Version, is_martian};
use crate::path::{GroupId, Ingress, PathId, PathKind, pick_member};
use crate::policy::RuleId;
use crate::reason::DropReason;
use crate::rib::{Candidate, NextHop, OwnerId, RouteSource};
use crate::snapshot::{Hop, RuleAction, Snapshot};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To the virtual network.
    Vnet,
    /// To the gateway's own host port.
    Local,
    /// Out of this path.
    Path(PathId),
    /// Nowhere.
    Drop(DropReason),
}

/// What becomes of a packet, and what led there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What becomes of it.
    pub verdict: Verdict,
    /// The policy rule that matched, whatever its action.
    pub rule: Option<RuleId>,
    /// Whether the route table was asked; [`Snapshot::route_of`] says which route it answered with.
    pub is_routed: bool,
    /// The path group that rule or route led to.
    pub group: Option<GroupId>,
    /// The group's member that the flow takes (also if rules of transit then dropped it).
    pub member: Option<u8>,
    /// The DSCP that the packet leaves with, if the rule gives one; whoever forwards it writes it.
    pub set_dscp: Option<u8>,
}

impl Decision {
    const fn new(verdict: Verdict) -> Self {
        Self {
            verdict,
            rule: None,
            is_routed: false,
            group: None,
            member: None,
            set_dscp: None,
        }
    }

    const fn drop(self, reason: DropReason) -> Self {
        Self {
            verdict: Verdict::Drop(reason),
            ..self
        }
    }
}

/// What a decision depends on beyond the snapshot and the packet. The data path takes it as it is; what
/// would be otherwise is asked with the same steps under other circumstances.
pub(crate) trait Circumstances {
    /// The rule that decides about a packet.
    #[inline]
    fn rule(&self, snapshot: &Snapshot, ingress: Ingress, headers: &Headers) -> Option<RuleId> {
        snapshot.policy.first_match(ingress, headers)
    }

    /// The active members of a group.
    #[inline]
    fn active(&self, _snapshot: &Snapshot, group: &Group) -> u64 {
        group.active().load()
    }

    /// Whether packets may go from branch to branch.
    #[inline]
    fn branch_transit(&self, snapshot: &Snapshot) -> bool {
        snapshot.branch_transit()
    }
}

/// The circumstances that are.
struct AsItIs;

impl Circumstances for AsItIs {}

impl Snapshot {
    /// Decides about one packet.
    #[inline]
    pub fn decide(&self, ingress: Ingress, headers: &Headers) -> Decision {
        self.decide_keeping(ingress, headers, None)
    }

    /// Decides; a flow that was on the path `keep` stays there while that is an active member.
    pub(crate) fn decide_keeping(
        &self,
        ingress: Ingress,
        headers: &Headers,
        keep: Option<PathId>,
    ) -> Decision {
        self.decide_given(&AsItIs, ingress, headers, keep)
    }

    /// The decision, given these circumstances.
    #[inline]
    pub(crate) fn decide_given(
        &self,
        given: &impl Circumstances,
        ingress: Ingress,
        headers: &Headers,
        keep: Option<PathId>,
    ) -> Decision {
        let key = &headers.key;
        let mut decision = Decision::new(Verdict::Local);
        if is_martian(key) && !self.is_link_local_neighbor(ingress, key) {
            return decision.drop(DropReason::Martian);
        }
        if !self.may_use_source(ingress, key) {
            return decision.drop(DropReason::SpoofedSource);
        }
        if self.is_own(key.version, key.destination) {
            return match ingress {
                Ingress::Local => decision.drop(DropReason::Hairpin),
                Ingress::Vnet | Ingress::Path(_) => decision,
            };
        }
        // Asked first, needed last: while memory answers, the policy is gone through.
        let hop = self.fib.lookup(key);
        if ingress != Ingress::Local {
            decision.rule = given.rule(self, ingress, headers);
            let rule = decision.rule.map(|rule| self.rule_action(rule));
            decision.set_dscp = rule.and_then(|(_, dscp)| dscp);
            match rule.map(|(action, _)| action) {
                Some(RuleAction::Drop) => return decision.drop(DropReason::Policy),
                Some(RuleAction::Reject) => return decision.drop(DropReason::PolicyReject),
                Some(RuleAction::Via { v4, v6 }) => {
                    let group = match key.version {
                        Version::V4 => v4,
                        Version::V6 => v6,
                    };
                    return self.take_group(given, decision, group, ingress, headers, keep);
                }
                Some(RuleAction::Route) | None => {}
            }
        }
        decision.is_routed = true;
        match hop {
            Hop::Group(group) => self.take_group(given, decision, group, ingress, headers, keep),
            Hop::Vnet if ingress == Ingress::Vnet => decision.drop(DropReason::Hairpin),
            Hop::Vnet => Decision {
                verdict: Verdict::Vnet,
                ..decision
            },
            Hop::None => decision.drop(DropReason::RouteNone),
            Hop::Nowhere | Hop::Internet => decision.drop(DropReason::NoRoute),
        }
    }

    /// Whether a packet with link-local addresses stays on one link: between its neighbour and the
    /// gateway. Such links exist (169.254.0.0/16 and fe80::/10 as link addresses).
    #[cold]
    fn is_link_local_neighbor(&self, ingress: Ingress, key: &FlowKey) -> bool {
        match ingress {
            Ingress::Vnet => false,
            Ingress::Path(path) => {
                self.is_own(key.version, key.destination)
                    && self.is_on_link(path, key.version, key.source)
            }
            Ingress::Local => (0..self.paths().len())
                .any(|path| self.is_on_link(PathId(path as u16), key.version, key.destination)),
        }
    }

    /// Whether packets of this ingress may have this source.
    #[inline]
    fn may_use_source(&self, ingress: Ingress, key: &FlowKey) -> bool {
        let path = match ingress {
            Ingress::Local => return true,
            Ingress::Vnet => None,
            Ingress::Path(path) => match self.path(path) {
                Some(path) => Some(path),
                None => return false,
            },
        };
        if self.is_own(key.version, key.source) {
            return false;
        }
        match path {
            None => self.is_vnet_source(key),
            Some(path) => match path.kind {
                PathKind::ExpressRoute => {
                    !self.vnet().contains(key.version, key.source)
                        && !self.belongs_to_another(path.owner, key)
                }
                // A site may be the way to everything (0.0.0.0/0), and is still not the network itself.
                PathKind::Vpn => {
                    !self.vnet().contains(key.version, key.source)
                        && self.owner(path.owner).is_some_and(|site| {
                            site.allowed_sources.contains(key.version, key.source)
                        })
                }
            },
        }
    }

    /// Whether a source is, by what is configured, another circuit's, a site's or a client's, and not this circuit's too.
    /// What a circuit's links bring is not limited to its prefixes, as it comes from Azure's side of a peering; but it
    /// is not to pass for somebody else. Not looked at: what BGP has learned, and subnets of links, from which routers
    /// on any way may answer.
    #[inline]
    fn belongs_to_another(&self, circuit: OwnerId, key: &FlowKey) -> bool {
        match self.fib.find(key.version, key.source) {
            // No prefix holds it.
            Hop::Nowhere => false,
            // Answers to it go back there, or could.
            Hop::Group(group) if self.leads_to(group, circuit) => false,
            _ => self.is_configured_elsewhere(circuit, key),
        }
    }

    /// Whether a group has a path of this circuit or site.
    fn leads_to(&self, group: GroupId, owner: OwnerId) -> bool {
        let is_its = |path: &PathId| self.path(*path).is_some_and(|path| path.owner == owner);
        self.group(group)
            .is_some_and(|group| group.members().iter().any(is_its))
    }

    #[inline(never)]
    fn is_configured_elsewhere(&self, circuit: OwnerId, key: &FlowKey) -> bool {
        let owner = |next_hop| match next_hop {
            NextHop::Owner(owner) => Some(owner),
            NextHop::Path(path) => self.path(path).map(|path| path.owner),
            NextHop::Vnet | NextHop::Internet | NextHop::None | NextHop::Appliance(_) => None,
        };
        let mut is_anothers = false;
        for same in self.rib().holding(key.version, key.source) {
            for Candidate {
                prefix,
                source,
                next_hop,
                ..
            } in same.iter().map(|one| one.candidate)
            {
                match owner(next_hop) {
                    Some(owner) if owner == circuit => return false,
                    // Who is the way to everything has not everything.
                    Some(_) if prefix.prefix_len() > 0 => {
                        let dynamic = matches!(source, RouteSource::Bgp | RouteSource::Connected);
                        is_anothers |= !dynamic;
                    }
                    Some(_) | None => {}
                }
            }
        }
        is_anothers
    }

    /// Picks the group's member and holds it against the rules of transit.
    #[inline]
    fn take_group(
        &self,
        given: &impl Circumstances,
        mut decision: Decision,
        id: GroupId,
        ingress: Ingress,
        headers: &Headers,
        keep: Option<PathId>,
    ) -> Decision {
        decision.group = Some(id);
        let Some(group) = self.group(id) else {
            return decision.drop(DropReason::NoPath);
        };
        let mask = given.active(self, group);
        let kept = keep
            .and_then(|path| group.members().iter().position(|&member| member == path))
            .map(|member| member as u8)
            .filter(|member| mask >> member & 1 != 0);
        let member = kept.or_else(|| pick_member(mask, flow_hash(headers)));
        let path = member.and_then(|member| group.members().get(usize::from(member)));
        let Some(&path) = path else {
            return decision.drop(DropReason::NoPath);
        };
        decision.member = member;
        if let Ingress::Path(from) = ingress {
            let owner = |path| self.path(path).map(|path| path.owner);
            if owner(from) == owner(path) {
                let is_many = owner(path)
                    .and_then(|owner| self.owner(owner))
                    .is_some_and(|owner| owner.is_many);
                if !is_many || headers.key.source == headers.key.destination {
                    return decision.drop(DropReason::Hairpin);
                }
            }
            if !given.branch_transit(self) {
                return decision.drop(DropReason::BranchTransit);
            }
        }
        Decision {
            verdict: Verdict::Path(path),
            ..decision
        }
    }
}

/// Spreads flows over the members of a group. The same on every worker and in `vng explain`, so it has no
/// seed. Fragments show their ports only in the first, so their flows are told apart by addresses alone.
#[inline]
pub fn flow_hash(headers: &Headers) -> u64 {
    let key = &headers.key;
    let transport = if headers.fragment == Fragment::Whole {
        u64::from(key.source_port) << 24
            | u64::from(key.destination_port) << 8
            | u64::from(key.protocol)
    } else {
        0
    };
    // The constants are the first digits of pi's fraction: any with as many ones as zeros would do.
    let addresses = fold(
        (key.source >> 64) as u64 ^ (key.source as u64).rotate_left(32) ^ 0x243F_6A88_85A3_08D3,
        (key.destination >> 64) as u64
            ^ (key.destination as u64).rotate_left(32)
            ^ 0x1319_8A2E_0370_7345,
    );
    fold(addresses ^ transport, 0xA409_3822_299F_31D1)
}

/// Multiplies to 128 bits and folds the halves: mixes every bit of both into the result.
#[inline]
#[must_use]
pub fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
pub(crate) mod tests;
