//! Explain, an independent model and the data path agree: for random configurations, packets and health.
//!
//! The model is the reference's text as slow and plain code: it walks lists, knows no snapshot, no compiled
//! policy and no cache, and reads the same random choices that the configuration's text is written from. Which
//! of several equal paths a flow takes is the hash's business: the model says which may be taken, the two
//! others must name the same one.

mod draw;
mod model;

use draw::{packet, world};
use gateway::config::{self, KeyFiles};
use gateway::device::offload::Offload;
use gateway::pipeline::process::{Egress, Outcome, process};
use gateway::plan::Plan;
use gateway::plan::forwarding;
use gateway::show::clients::ClientSession;
use gateway::show::describe;
use gateway::show::health::PathHealth;
use gateway::show::view::{Explanation, MemberHealth};
use model::{Fate, PATHS, Packet};
use proptest::prelude::*;
use routing::cache::FlowCache;
use routing::health::Usability;
use routing::path::PathId;
use std::num::NonZeroU32;
use std::path::Path;

/// What the data path did: verdict, reason of a drop, path, and the DSCP that the packet left with.
type Done = (&'static str, Option<&'static str>, Option<usize>, u8);

fn done(outcome: &Outcome, bytes: &[u8]) -> Done {
    let class = if bytes[0] >> 4 == 4 {
        bytes[1]
    } else {
        bytes[0] << 4 | bytes[1] >> 4
    };
    match outcome {
        Outcome::Forward {
            to: Egress::Local, ..
        } => ("local", None, None, class >> 2),
        Outcome::Forward {
            to: Egress::Vnet, ..
        } => ("forward", None, None, class >> 2),
        Outcome::Forward {
            to: Egress::Path(path),
            ..
        } => ("forward", None, Some(usize::from(path.0)), class >> 2),
        Outcome::Drop { reason, .. } => ("drop", Some(reason.name()), None, class >> 2),
        Outcome::Fragment { .. } => panic!("it is short"),
    }
}

/// Whether a doing is what the model foresees.
fn is_foreseen(fate: &Fate, packet: &Packet, done: Done) -> bool {
    let dscp = |set: &Option<u8>| set.unwrap_or(packet.dscp) == done.3;
    match (fate, done) {
        (Fate::Local, ("local", ..))
        | (Fate::HairpinOrTransit(..), ("drop", Some("hairpin" | "branch_transit"), ..)) => true,
        (Fate::Vnet(set), ("forward", _, None, _)) => dscp(set),
        (
            Fate::Paths(paths, set) | Fate::HairpinOrTransit(paths, set),
            ("forward", _, Some(path), _),
        ) => paths.contains(&path) && dscp(set),
        (Fate::Drop(why), ("drop", Some(reason), ..)) => *why == reason,
        _ => false,
    }
}

/// Whether an explanation says what was done.
fn says(told: &Explanation, done: Done, packet: &Packet) -> bool {
    let path = done.2.map(|path| PATHS[path].0);
    let dscp = told.set_dscp.as_deref().and_then(|name| {
        // By name or number, as the command line reads it.
        name.parse()
            .ok()
            .or_else(|| (0..64_u8).find(|&number| gateway_dscp(number) == name))
    });
    told.verdict == done.0
        && done.1.is_none_or(|reason| told.reason == reason)
        && told.member.as_deref() == path
        && (told.verdict != "forward" || dscp.unwrap_or(packet.dscp) == done.3)
}

/// Names of IANA's registry that explanations print.
fn gateway_dscp(number: u8) -> &'static str {
    match number {
        0 => "cs0",
        1 => "le",
        8 => "cs1",
        10 => "af11",
        12 => "af12",
        14 => "af13",
        16 => "cs2",
        18 => "af21",
        20 => "af22",
        22 => "af23",
        24 => "cs3",
        26 => "af31",
        28 => "af32",
        30 => "af33",
        32 => "cs4",
        34 => "af41",
        36 => "af42",
        38 => "af43",
        40 => "cs5",
        44 => "voice-admit",
        46 => "ef",
        48 => "cs6",
        56 => "cs7",
        _ => "",
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn explain_the_model_and_the_data_path_agree(
        world in world(),
        packets in prop::collection::vec(packet(), 1..12),
        health in prop::collection::vec(any::<u8>(), 1..4),
    ) {
        let text = world.text();
        let loaded = config::parse(Path::new("test"), text.clone(), Path::new(""), KeyFiles::Skipped);
        let config = match loaded {
            Ok(loaded) => loaded.config,
            // Rules between values, such as a match that is of two IP versions: not the matter here.
            Err(report) => {
                prop_assume!(report.views().iter().all(|view| view.message.contains("can match no packet")
                    || view.message.contains("does not fit") || view.severity == config::Severity::Warning));
                return Ok(());
            }
        };
        let full = |health: u8| move |path: PathId| {
            if health >> path.0 & 1 != 0 { Usability::Full } else { Usability::None }
        };
        let first = full(health[0]);
        let plan = Plan::new(&config, NonZeroU32::MIN, |path| first(path.id)).unwrap();
        for (path, (name, _)) in plan.paths.iter().zip(PATHS) {
            prop_assert_eq!(path.name.as_str(), name);
        }
        let forwarding = forwarding::offline(&config, &plan);
        let mut cache = FlowCache::new(1024, 7);
        let mut before: Vec<Option<usize>> = vec![None; packets.len()];
        let mut expected_hits = vec![0; world.rules.len()];
        for &health in &health {
            plan.snapshot.update(full(health));
            for (packet, before) in packets.iter().zip(&mut before) {
                let (fate, rule) = world.fate(packet, health);
                let told = describe::explain(&config, &plan, &packet.query(), |path| Some(PathHealth {
                    told: MemberHealth::default(),
                    usability: full(health)(path),
                }), |_| ClientSession::Assumed).unwrap();
                prop_assert_eq!(told.policy, rule.map(|rule| format!("rule-{rule}")), "{:?}\n{}", packet, text);
                let told = describe::explain(&config, &plan, &packet.query(), |_| None, |_| ClientSession::Assumed).unwrap();

                // As a flow that nobody knows: the three agree.
                let mut bytes = packet.bytes();
                let outcome = process(&forwarding, &mut FlowCache::new(4, 1), packet.ingress(), &mut bytes, &Offload::default());
                let fresh = done(&outcome, &bytes);
                prop_assert!(is_foreseen(&fate, packet, fresh), "{:?} {:?} {:?}\n{}", packet, fate, fresh, text);
                prop_assert!(says(&told, fresh, packet), "{:?} {:?} {:?}\n{}", packet, told, fresh, text);
                if let Some(rule) = rule {
                    expected_hits[rule] += 1;
                }

                // As a flow of which the cache knows an earlier path: it stays there while it may.
                let mut last = None;
                for _ in 0..3 {
                    let mut bytes = packet.bytes();
                    let outcome = process(&forwarding, &mut cache, packet.ingress(), &mut bytes, &Offload::default());
                    let live = done(&outcome, &bytes);
                    prop_assert!(is_foreseen(&fate, packet, live), "{:?} {:?} {:?}\n{}", packet, fate, live, text);
                    if let (Fate::Paths(paths, _), Some(path)) = (&fate, *before)
                        && paths.contains(&path)
                    {
                        prop_assert_eq!(live.2, Some(path), "it left a path that it could keep");
                    }
                    prop_assert!(last.is_none_or(|last| last == live), "packets of one flow differ");
                    last = Some(live);
                    if let Some(rule) = rule {
                        expected_hits[rule] += 1;
                    }
                }
                *before = last.and_then(|last| last.2);
            }
        }
        let hits: Vec<u64> = forwarding.hits.read().iter().map(|sum| sum.packets).collect();
        prop_assert_eq!(hits, expected_hits);
    }
}
