//! What would change a decision: the same steps, asked again with other health, without the policy rule, or
//! with branch transit. Nothing here is written by hand; every answer is a decision.
//!
//! 1. The path that the flow takes goes down; then the one that it takes instead; and so on, until nothing is
//!    left to go down.
//!    Where a circuit carries the path that the flow takes, that whole circuit goes down.
//! 2. Each path of the group that is not fully usable comes up, by itself, or the link that carries it does.
//! 3. The policy rule that decided is not there.
//! 4. Branch transit is on, where its being off is what drops the packet.

use crate::decide::{Circumstances, Decision, Verdict};
use crate::group::Group;
use crate::health::Usability;
use crate::packet::Headers;
use crate::path::{Ingress, PathId};
use crate::policy::RuleId;
use crate::reason::DropReason;
use crate::snapshot::Snapshot;

/// The longest chain of paths that go down one after the other.
const LONGEST: usize = 8;

/// One thing that might be otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Circumstance {
    /// These paths are down, in the order in which the flow would have taken them.
    Down(Vec<PathId>),
    /// This path is fully usable.
    Up(PathId),
    /// This policy rule is not there.
    WithoutRule(RuleId),
    /// Packets may go from branch to branch.
    BranchTransit,
}

/// A change and the decision that it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhatIf {
    /// What is otherwise.
    pub change: Circumstance,
    /// What would then be decided.
    pub decision: Decision,
}

impl Snapshot {
    /// What would change the decision about this packet, given the health of the paths now. Changes that
    /// leave it as it is are left out.
    pub fn what_if(
        &self,
        ingress: Ingress,
        headers: &Headers,
        usability: impl Fn(PathId) -> Usability,
    ) -> Vec<WhatIf> {
        let now = self.decide(ingress, headers);
        let ask = |change: Circumstance| {
            let assumed = Assumed {
                change: &change,
                usability: &usability,
            };
            let decision = self.decide_given(&assumed, ingress, headers, None);
            WhatIf { change, decision }
        };
        let mut found = Vec::new();

        // 1. one after the other goes down
        let (mut down, mut last) = (Vec::new(), now);
        while let Verdict::Path(path) = last.verdict
            && down.len() < LONGEST
            && !down.contains(&path)
        {
            down.push(path);
            let then = ask(Circumstance::Down(down.clone()));
            last = then.decision;
            found.push(then);
        }

        // and what carries it
        if let Verdict::Path(path) = now.verdict
            && let carriers @ [_, ..] = self.carriers(path)
        {
            found.push(ask(Circumstance::Down(carriers.to_vec())));
        }

        // 2. what is not usable comes up
        let group = now.group.and_then(|group| self.group(group));
        let members = group.map_or(&[][..], Group::members);
        let mut asked = Vec::new();
        for &path in members
            .iter()
            .flat_map(|path| [path].into_iter().chain(self.carriers(*path)))
        {
            if usability(path) != Usability::Full && !asked.contains(&path) {
                asked.push(path);
                found.push(ask(Circumstance::Up(path)));
            }
        }

        // 3. without the rule; 4. with transit
        found.extend(now.rule.map(|rule| ask(Circumstance::WithoutRule(rule))));
        if now.verdict == Verdict::Drop(DropReason::BranchTransit) {
            found.push(ask(Circumstance::BranchTransit));
        }
        found.retain(|one| !same(&one.decision, &now));
        found
    }
}

/// Whether two decisions come to the same for the packet.
fn same(a: &Decision, b: &Decision) -> bool {
    let dscp = |one: &Decision| match one.verdict {
        Verdict::Vnet | Verdict::Path(_) => one.set_dscp,
        Verdict::Local | Verdict::Drop(_) => None,
    };
    a.verdict == b.verdict && dscp(a) == dscp(b)
}

/// The circumstances with one change.
struct Assumed<'a, U> {
    change: &'a Circumstance,
    usability: &'a U,
}

impl<U: Fn(PathId) -> Usability> Circumstances for Assumed<'_, U> {
    fn rule(&self, snapshot: &Snapshot, ingress: Ingress, headers: &Headers) -> Option<RuleId> {
        match *self.change {
            Circumstance::WithoutRule(rule) => snapshot.policy.next_match(rule, ingress, headers),
            _ => snapshot.policy.first_match(ingress, headers),
        }
    }

    fn active(&self, snapshot: &Snapshot, group: &Group) -> u64 {
        match self.change {
            Circumstance::Down(down) => group.word(snapshot.usability(|path| {
                if down.contains(&path) {
                    Usability::None
                } else {
                    (self.usability)(path)
                }
            })),
            Circumstance::Up(up) => group.word(snapshot.usability(|path| {
                if path == *up {
                    Usability::Full
                } else {
                    (self.usability)(path)
                }
            })),
            Circumstance::WithoutRule(_) | Circumstance::BranchTransit => group.active().load(),
        }
    }

    fn branch_transit(&self, snapshot: &Snapshot) -> bool {
        *self.change == Circumstance::BranchTransit || snapshot.branch_transit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::tests::{BRANCH, ONPREM, PRIMARY, SECONDARY, builder, full, headers, nets};
    use crate::policy::Match;
    use crate::rib::OwnerId;
    use crate::snapshot::{Action, Rule};
    use proptest::prelude::*;

    fn verdicts(found: &[WhatIf]) -> Vec<(Circumstance, Verdict)> {
        found
            .iter()
            .map(|one| (one.change.clone(), one.decision.verdict))
            .collect()
    }

    #[test]
    fn a_flow_over_expressroute_goes_to_the_other_link_then_to_the_site_then_nowhere() {
        let snapshot = builder().build(|_| full(true)).unwrap();
        let packet = headers("10.1.0.4", "10.2.0.1", 80);
        let Verdict::Path(first) = snapshot.decide(Ingress::Vnet, &packet).verdict else {
            panic!("it is forwarded");
        };
        let other = if first == PRIMARY { SECONDARY } else { PRIMARY };
        let found = snapshot.what_if(Ingress::Vnet, &packet, |_| full(true));
        assert_eq!(
            verdicts(&found),
            [
                (Circumstance::Down(vec![first]), Verdict::Path(other)),
                (
                    Circumstance::Down(vec![first, other]),
                    Verdict::Path(ONPREM)
                ),
                (
                    Circumstance::Down(vec![first, other, ONPREM]),
                    Verdict::Drop(DropReason::NoPath)
                ),
            ]
        );
    }

    #[test]
    fn a_path_that_comes_back_a_rule_and_transit_are_named_where_they_matter() {
        let mut builder = builder();
        builder.policy = vec![Rule {
            name: "over-branch".to_owned(),
            matches: Match {
                destination: nets(&["10.3.0.0/16"]),
                ..Match::default()
            },
            action: Action::Via(vec![OwnerId(3)]),
            set_dscp: Some(8),
        }];
        let health = |path| full(path != PRIMARY && path != SECONDARY);
        let snapshot = builder.build(health).unwrap();
        let during = snapshot.what_if(Ingress::Vnet, &headers("10.1.0.4", "10.2.0.1", 80), health);
        assert_eq!(
            verdicts(&during),
            [
                (
                    Circumstance::Down(vec![ONPREM]),
                    Verdict::Drop(DropReason::NoPath)
                ),
                (Circumstance::Up(PRIMARY), Verdict::Path(PRIMARY)),
                (Circumstance::Up(SECONDARY), Verdict::Path(SECONDARY)),
            ]
        );
        let ruled = snapshot.what_if(Ingress::Vnet, &headers("10.1.0.4", "10.3.0.1", 80), health);
        assert_eq!(
            verdicts(&ruled),
            [
                (
                    Circumstance::Down(vec![BRANCH]),
                    Verdict::Drop(DropReason::NoPath)
                ),
                (Circumstance::WithoutRule(RuleId(0)), Verdict::Path(ONPREM)),
            ]
        );
        let transit = snapshot.what_if(
            Ingress::Path(BRANCH),
            &headers("10.5.0.1", "10.2.0.1", 80),
            health,
        );
        assert_eq!(
            verdicts(&transit),
            [(Circumstance::BranchTransit, Verdict::Path(ONPREM))]
        );
    }

    #[test]
    fn a_tunnel_goes_down_with_the_circuit_that_carries_it() {
        let mut builder = builder();
        builder.underlays = vec![OwnerId(0)];
        builder.paths[usize::from(ONPREM.0)].over = Some(OwnerId(0));
        let snapshot = builder.build(|_| full(true)).unwrap();
        let both = headers("10.1.0.4", "10.2.0.1", 80);
        let Verdict::Path(first) = snapshot.decide(Ingress::Vnet, &both).verdict else {
            panic!("it is forwarded");
        };
        let other = if first == PRIMARY { SECONDARY } else { PRIMARY };
        // The last link takes the tunnel along: there is no failover to it.
        let found = snapshot.what_if(Ingress::Vnet, &both, |_| full(true));
        assert_eq!(
            verdicts(&found),
            [
                (Circumstance::Down(vec![first]), Verdict::Path(other)),
                (
                    Circumstance::Down(vec![first, other]),
                    Verdict::Drop(DropReason::NoPath)
                ),
            ]
        );
        let tunnelled = headers("10.1.0.4", "10.3.0.1", 80);
        let found = snapshot.what_if(Ingress::Vnet, &tunnelled, |_| full(true));
        let nowhere = Verdict::Drop(DropReason::NoPath);
        assert_eq!(
            verdicts(&found),
            [
                (Circumstance::Down(vec![ONPREM]), nowhere),
                (Circumstance::Down(vec![PRIMARY, SECONDARY]), nowhere),
            ]
        );
        // With one link the tunnel lives, with none it does not, and any link that returns brings it back.
        snapshot.update(|path| full(path != PRIMARY));
        assert_eq!(
            snapshot.decide(Ingress::Vnet, &tunnelled).verdict,
            Verdict::Path(ONPREM)
        );
        let cut = |path| full(path != PRIMARY && path != SECONDARY);
        snapshot.update(cut);
        for packet in [&both, &tunnelled] {
            assert_eq!(snapshot.decide(Ingress::Vnet, packet).verdict, nowhere);
        }
        let told = snapshot.explain(Ingress::Vnet, &tunnelled);
        let why = told.rejected.iter().find_map(|one| match one {
            crate::explain::Rejected::Path { path, why } if path == "onprem" => Some(why.as_str()),
            _ => None,
        });
        assert_eq!(why, Some("er-sydney, which carries it, is down"));
        let found = snapshot.what_if(Ingress::Vnet, &tunnelled, cut);
        assert_eq!(
            verdicts(&found),
            [
                (Circumstance::Up(PRIMARY), Verdict::Path(ONPREM)),
                (Circumstance::Up(SECONDARY), Verdict::Path(ONPREM)),
            ]
        );
    }

    proptest! {
        /// What is foretold is what a gateway decides that is built that way.
        #[test]
        fn what_is_foretold_is_what_then_comes(
            from in prop::sample::select(vec![Ingress::Vnet, Ingress::Path(PRIMARY), Ingress::Path(ONPREM)]),
            destination in prop::sample::select(vec!["10.1.0.9", "10.2.0.1", "10.3.0.1", "10.5.0.1", "8.8.8.8"]),
            port in 0..6_u16,
            health in any::<u8>(),
            actions in prop::collection::vec(0..4_usize, 0..4),
            transit in any::<bool>(),
            over in prop::option::of(0..2_u16),
        ) {
            let usability = |path: PathId| full(health >> path.0 & 1 != 0);
            let build = |without: Option<RuleId>, transit: bool, usability: &dyn Fn(PathId) -> Usability| {
                let mut builder = builder();
                builder.branch_transit = transit;
                builder.underlays = over.map(OwnerId).into_iter().collect();
                builder.paths[usize::from(ONPREM.0)].over = over.map(OwnerId);
                let rule = |(place, &action): (u16, &usize)| Rule {
                    name: format!("rule-{place}"),
                    matches: Match {
                        destination_port: vec![(place, place + 2)],
                        ..Match::default()
                    },
                    action: [
                        Action::Route,
                        Action::Drop,
                        Action::Reject,
                        Action::Via(vec![OwnerId(3), OwnerId(0)]),
                    ][action].clone(),
                    set_dscp: (place % 2 == 0).then_some(9),
                };
                builder.policy = (0..).zip(&actions).filter(|(place, _)| without != Some(RuleId(*place))).map(rule).collect();
                builder.build(usability).unwrap()
            };
            let source = match from {
                Ingress::Path(ONPREM) => "10.3.0.7",
                Ingress::Path(_) => "10.2.0.7",
                _ => "10.1.0.4",
            };
            let packet = headers(source, destination, port);
            let snapshot = build(None, transit, &usability);
            for one in snapshot.what_if(from, &packet, usability) {
                let then = match &one.change {
                    Circumstance::Down(down) => build(None, transit, &|path| {
                        if down.contains(&path) { Usability::None } else { usability(path) }
                    }),
                    Circumstance::Up(up) => build(None, transit, &|path| {
                        if path == *up { Usability::Full } else { usability(path) }
                    }),
                    Circumstance::WithoutRule(rule) => build(Some(*rule), transit, &usability),
                    Circumstance::BranchTransit => build(None, true, &usability),
                };
                let decided = then.decide(from, &packet);
                prop_assert_eq!(decided.verdict, one.decision.verdict, "{:?}", one.change);
                prop_assert_eq!(decided.set_dscp, one.decision.set_dscp);
                prop_assert!(!same(&decided, &snapshot.decide(from, &packet)));
            }
        }
    }
}
