//! What an explanation says of the path group's members and of what would change the answer.

use crate::config::matches::dscp_name;
use crate::config::schema::Config;
use crate::plan::limit;
use crate::plan::{PathPlan, Plan};
use crate::show::health::PathHealth;
use crate::show::view::{FlowLimit, MemberView, WouldChange};
use routing::decide::{Decision, Verdict};
use routing::health::Usability;
use routing::packet::Headers;
use routing::path::{Ingress, PathId, PathKind};
use routing::what_if::{Circumstance, WhatIf};

/// The members of the group that a decision led to, in order of preference.
pub(super) fn members(
    plan: &Plan,
    decision: &Decision,
    health: &impl Fn(PathId) -> Option<PathHealth>,
) -> Vec<MemberView> {
    let group = decision.group.and_then(|group| plan.snapshot.group(group));
    let Some(group) = group else {
        return Vec::new();
    };
    let active = group.active().load();
    let in_use = (active != 0).then(|| group.tier_of(active.trailing_zeros() as u8));
    let member = |(member, &path): (u8, &PathId)| {
        let tier = group.tier_of(member);
        let taken = decision.member == Some(member) && matches!(decision.verdict, Verdict::Path(_));
        let role = match active >> (member & 63) & 1 {
            _ if taken => "taken",
            1 => "in use",
            _ if in_use.is_some_and(|in_use| in_use < tier) => "stands by",
            _ => "not usable",
        };
        let health = health(path);
        MemberView {
            path: name(plan, path),
            tier: tier.map_or(0, |tier| tier + 1),
            role: role.to_owned(),
            health: health.map(|health| health.told),
        }
    };
    (0..).zip(group.members()).map(member).collect()
}

/// What would change the answer: each is the gateway's own decision under other circumstances.
pub(super) fn would_change(
    plan: &Plan,
    ingress: Ingress,
    headers: &Headers,
    health: &impl Fn(PathId) -> Option<PathHealth>,
) -> Vec<WouldChange> {
    let usability = |path: PathId| health(path).map_or(Usability::None, |health| health.usability);
    let found = plan.snapshot.what_if(ingress, headers, usability);
    let view = |WhatIf { change, decision }: WhatIf| {
        let told = plan.snapshot.explain_decision(headers, &decision);
        WouldChange {
            change: words(plan, &change),
            set_dscp: dscp_of(&decision),
            verdict: told.verdict.to_owned(),
            reason: told.reason.to_owned(),
            path: told.path,
            member: told.member,
        }
    };
    found.into_iter().map(view).collect()
}

/// The limits of the gateways of these paths that a new flow must be within.
pub(super) fn flow_limits(config: &Config, paths: [Option<&PathPlan>; 2]) -> Vec<FlowLimit> {
    let mut all = Vec::new();
    for kind in [PathKind::ExpressRoute, PathKind::Vpn] {
        if !paths.iter().flatten().any(|path| path.kind == kind) {
            continue;
        }
        let (kind, sku, limits) = match kind {
            PathKind::ExpressRoute => {
                let sku = config.expressroute.as_ref().map_or("", |e| e.sku.as_str());
                ("ExpressRoute", sku, limit::expressroute_flows(config))
            }
            PathKind::Vpn => {
                let sku = config.vpn.as_ref().map_or("", |vpn| vpn.sku.as_str());
                ("Vpn", sku, limit::vpn_flows(config))
            }
        };
        if limits.flows.is_some() || limits.flows_per_second.is_some() {
            all.push(FlowLimit {
                kind: kind.to_owned(),
                name: sku.to_owned(),
                limit_flows: limits.flows,
                limit_new_flows_per_second: limits.flows_per_second,
            });
        }
    }
    all
}

/// The DSCP that the packet of a decision leaves with, if it leaves and a rule gives one.
pub(super) fn dscp_of(decision: &Decision) -> Option<String> {
    let leaves = matches!(decision.verdict, Verdict::Vnet | Verdict::Path(_));
    decision.set_dscp.filter(|_| leaves).map(dscp_name)
}

fn words(plan: &Plan, change: &Circumstance) -> String {
    match change {
        Circumstance::Down(down) => {
            let names: Vec<String> = down.iter().map(|&path| name(plan, path)).collect();
            match names.as_slice() {
                [one] => format!("{one} goes down"),
                [front @ .., last] => format!("{} and {last} are down", front.join(", ")),
                [] => String::new(),
            }
        }
        Circumstance::Up(path) => format!("{} is up", name(plan, *path)),
        Circumstance::WithoutRule(rule) => {
            let rule = plan.snapshot.rule_name(*rule).unwrap_or_default();
            format!("policy {rule} were not there")
        }
        Circumstance::BranchTransit => "failover.branch_transit were on".to_owned(),
    }
}

fn name(plan: &Plan, path: PathId) -> String {
    let path = plan.paths.get(usize::from(path.0));
    path.map_or_else(String::new, |path| path.name.clone())
}
