//! What turns the routes of one plan into those of the next.

use crate::plan::difference::Difference;
use routing::rib::{Candidate, RouteChange};
use std::collections::{HashMap, HashSet};

/// What turns these routes into those. Of a route that stands there twice the later one counts.
pub(super) fn changes(old: &[Candidate], new: &[Candidate]) -> Vec<RouteChange> {
    let key = |one: &Candidate| (one.prefix, one.source, one.next_hop);
    let Difference {
        before,
        old,
        new,
        behind,
    } = Difference::between(old, new);
    let touched: HashSet<_> = old.iter().chain(new).map(key).collect();
    // One that differs may stand there elsewhere too: then its places decide.
    let front = before.iter().filter(|one| touched.contains(&key(one)));
    let back = behind.iter().filter(|one| touched.contains(&key(one)));
    let (front, back): (Vec<_>, Vec<_>) = (front.copied().collect(), back.copied().collect());
    changes_of(
        &[&front, old, &back].concat(),
        &[&front, new, &back].concat(),
    )
}

fn changes_of(old: &[Candidate], new: &[Candidate]) -> Vec<RouteChange> {
    let key = |one: &Candidate| (one.prefix, one.source, one.next_hop);
    let old: HashMap<_, _> = old.iter().map(|one| (key(one), one)).collect();
    let new: HashMap<_, _> = new.iter().map(|one| (key(one), one)).collect();
    let gone = old.keys().filter(|key| !new.contains_key(key));
    let gone = gone.map(|&(prefix, source, next_hop)| RouteChange::Withdraw {
        prefix,
        source,
        next_hop,
    });
    let come = new.iter().filter(|(key, one)| old.get(key) != Some(one));
    gone.chain(come.map(|(_, one)| RouteChange::Announce(**one)))
        .collect()
}
