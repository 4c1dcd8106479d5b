//! Policy on the packet path: the DSCP that a rule gives, and the counters of each rule.

use crate::packets::{Spec, any_header, noise};
use gateway::config::{self, KeyFiles, schema::Config};
use gateway::device::offload::Offload;
use gateway::pipeline::icmp::{self, MAX_ERROR};
use gateway::pipeline::process::{Egress, Forwarding, Outcome, process};
use gateway::plan::Plan;
use gateway::plan::forwarding;
use gateway::telemetry::ledger::Sum;
use proptest::prelude::*;
use routing::cache::FlowCache;
use routing::health::Usability;
use routing::path::{Ingress, PathId};
use std::num::NonZeroU32;
use std::path::Path;

/// A virtual network that holds the senders of [`Spec`], and a site that holds their destination.
fn config(policy: &str) -> Config {
    let text = format!(
        "[vnet]\nname = \"lab\"\naddress_space = [\"10.1.2.0/25\", \"2001:db8::/121\"]\n\
         address = [\"10.1.2.100/27\"]\n\
         [vpn]\nsku = \"Unlimited\"\nprivate_key_file = \"vpn.key\"\n\
         [[vpn.site]]\nname = \"site\"\n\
         public_key = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"\n\
         prefixes = [\"10.1.2.128/25\", \"2001:db8::80/121\"]\n\
         probe = {{ target = \"10.1.2.200\" }}\n{policy}"
    );
    let loaded = config::parse(Path::new("test"), text, Path::new(""), KeyFiles::Skipped);
    loaded
        .unwrap_or_else(|report| panic!("{}", report.render(false)))
        .config
}

fn forwarding(config: &Config) -> Forwarding {
    let plan = Plan::new(config, NonZeroU32::MIN, |_| Usability::Full).unwrap();
    forwarding::offline(config, &plan)
}

fn rule(name: &str, matches: &str, action: &str) -> String {
    format!("[[policy]]\nname = \"{name}\"\nmatch = {matches}\naction = {action}\n")
}

proptest! {
    #[test]
    fn a_rule_sets_the_dscp_of_what_is_forwarded_and_nothing_else(
        header in any_header(0), len in 1..200usize, dscp in 0..64_u8, via in any::<bool>(), size in 0..3_u16,
    ) {
        let action = if via {
            format!("{{ via = \"site\", set_dscp = {dscp} }}")
        } else {
            format!("{{ set_dscp = {dscp} }}")
        };
        let forwarding = forwarding(&config(&rule("mark", "{ protocol = [\"tcp\", \"udp\"] }", &action)));
        let mut cache = FlowCache::new(16, 1);
        let spec = Spec { payload: noise(len), hop_limit: header.hop_limit.max(2), ..header };
        let expected = Spec {
            hop_limit: spec.hop_limit - 1,
            traffic_class: dscp << 2 | spec.traffic_class & 3,
            ..spec.clone()
        };
        // Once decided, once remembered; whole, with a checksum still to be made, and as a super-packet.
        let build = |spec: &Spec| match size {
            0 => (spec.build(), Offload::default()),
            size => spec.build_partial((size - 1) * 50),
        };
        for _ in 0..2 {
            let (mut packet, offload) = build(&spec);
            match process(&forwarding, &mut cache, Ingress::Vnet, &mut packet, &offload) {
                Outcome::Forward { to, headers } => {
                    prop_assert_eq!(to, Egress::Path(PathId(0)));
                    prop_assert_eq!(headers.traffic_class, expected.traffic_class);
                }
                other => prop_assert!(false, "{other:?}"),
            }
            prop_assert_eq!(packet, build(&expected).0);
        }
        prop_assert_eq!(cache.hits_and_misses(), (1, 1));
    }

    /// Packets of many flows, single and as super-packets, over four tables of which each follows the last:
    /// what every rule counted is what went by.
    #[test]
    fn each_rule_counts_every_packet_and_byte_that_it_decides(
        packets in prop::collection::vec((0..6_u16, 0..1_000usize, 0..300_u16, any::<bool>()), 1..300),
        workers in 1..3_usize,
    ) {
        let matches = |port: u16| format!("{{ source_port = {port} }}");
        let rules = [
            ("route", matches(0), "\"route\""),
            ("drop", matches(1), "\"drop\""),
            ("reject", matches(2), "\"reject\""),
            ("via", matches(3), "{ via = \"site\", set_dscp = 8 }"),
            ("all", "{ }".to_owned(), "\"route\""),
        ];
        // The same rules in another order after each reload, with one left out: none takes from another.
        let table = |turn: usize| -> String {
            let order = (0..4).map(|place| (place + turn) % 4).filter(|&place| place != 3 || turn != 2);
            order.chain([4]).map(|place| {
                let (name, matches, action) = &rules[place];
                rule(name, matches, action)
            }).collect()
        };
        let mut expected = [Sum::default(); 5];
        let mut caches: Vec<_> = (0..workers).map(|worker| FlowCache::new(64, 2).of_worker(worker)).collect();
        let mut hits = gateway::telemetry::hits::Hits::new(workers, 5);
        let mut names: Vec<&str> = rules.iter().map(|rule| rule.0).collect();
        for turn in 0..4 {
            let config = config(&table(turn));
            let new: Vec<&str> = config.policy.iter().map(|rule| rules.iter().find(|known| known.0 == rule.name).unwrap().0).collect();
            let kept: Vec<_> = new.iter().map(|name| names.iter().position(|known| known == name)).collect();
            if turn == 2 {
                // A rule that goes takes its counters along.
                expected[3] = Sum::default();
            }
            hits = hits.following(&kept);
            names = new;
            let plan = Plan::new(&config, NonZeroU32::new(turn as u32 + 1).unwrap(), |_| Usability::Full).unwrap();
            let forwarding = Forwarding { hits, ..forwarding::offline(&config, &plan) };
            for (index, &(port, len, size, v6)) in packets.iter().enumerate() {
                let spec = Spec { source_port: port, v6, payload: noise(len), ..Spec::tcp(0) };
                let (mut packet, offload) = if size < 20 { (spec.build(), Offload::default()) } else { spec.build_partial(size) };
                let cache = &mut caches[index % workers];
                process(&forwarding, cache, Ingress::Vnet, &mut packet, &offload);
                let rule = if port < 4 && (port != 3 || turn != 2) { usize::from(port) } else { 4 };
                let segments = if size < 20 { vec![spec.build()] } else { spec.segments(usize::from(size)) };
                expected[rule] += Sum {
                    packets: segments.len() as u64,
                    bytes: segments.iter().map(|segment| segment.len() as u64).sum(),
                };
            }
            hits = forwarding.hits;
            let sums = hits.read();
            for (name, sum) in names.iter().zip(sums) {
                let place = rules.iter().position(|rule| rule.0 == *name).unwrap();
                prop_assert_eq!(sum, expected[place], "{} after table {}", name, turn);
            }
        }
    }
}

#[test]
fn reject_says_administratively_prohibited_in_both_versions_and_drop_says_nothing() {
    let policy = rule("no", "{ source_port = 40000 }", "\"reject\"")
        + &rule("silent", "{ source_port = 40001 }", "\"drop\"");
    let forwarding = forwarding(&config(&policy));
    for (v6, expected) in [(false, [3, 13]), (true, [1, 1])] {
        for source_port in [40_000, 40_001] {
            let spec = Spec {
                v6,
                source_port,
                ..Spec::tcp(5)
            };
            let mut packet = spec.build();
            let plain = Offload::default();
            let mut cache = FlowCache::new(16, 1);
            let outcome = process(&forwarding, &mut cache, Ingress::Vnet, &mut packet, &plain);
            let Outcome::Drop {
                complaint,
                headers: Some(headers),
                ..
            } = outcome
            else {
                panic!("{outcome:?}");
            };
            assert_eq!(packet, spec.build(), "what is refused is not edited");
            let Some(complaint) = complaint else {
                assert_eq!(source_port, 40_001);
                continue;
            };
            let mut message = [0; MAX_ERROR];
            let from = if v6 { "2001:db8::1" } else { "10.1.2.100" };
            let length = icmp::build(
                complaint,
                &packet,
                &headers,
                &plain,
                from.parse().unwrap(),
                &mut message,
            );
            assert!(length.is_some());
            let icmp = if v6 { 40 } else { 20 };
            assert_eq!(message[icmp..icmp + 2], expected);
        }
    }
}
