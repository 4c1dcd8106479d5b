//! Faults under traffic: numbered packets both ways, and what they lived through.

use crate::harness::{World, address, balanced, calm, ends, of, options, status, until};
use gateway::show::view::Counters;
use integration::fault::Direction;
use integration::gateway::Gateway;
use integration::lab::{CIRCUIT, Fault, Lab, SITE};
use integration::traffic::numbered::{Load, Record, Run};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::time::Duration;

const MS: u64 = 1_000_000;
/// Both directions together make twice as many.
const LOAD: Load = Load {
    rate: 2_000,
    flows: 8,
    payload: 172,
};
const DIRECTIONS: [&str; 2] = ["vnet to onprem", "onprem to vnet"];

fn traffic(world: &World, load: Load) -> Run {
    let (vnet, onprem) = ends();
    let hosts = [world.host("vnet"), world.host("onprem")];
    Run::start((hosts[0], vnet), (hosts[1], onprem), load).unwrap()
}

/// Lets traffic flow.
fn pass(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Packets that a gateway has sent to paths whose names begin so.
fn sent_over(counters: &Counters, prefix: &str) -> u64 {
    let paths = counters.totals.sent.iter();
    let paths = paths.filter(|(name, _)| name.starts_with(prefix));
    paths.map(|(_, sum)| sum.packets).sum()
}

/// Cuts ExpressRoute under traffic and makes it whole again. Packets flow before, during and after, each
/// over the path that it should be; the way back loses and doubles nothing.
fn fail_over_and_back(name: &str, cut: impl FnOnce(&Lab), heal: impl FnOnce(&Lab)) {
    let world = World::start(&calm(), |_| ());
    let gateways = [
        (&world.lab.gateway, SITE, CIRCUIT),
        (&world.lab.edge, "azure", "er-azure"),
    ];
    let run = traffic(&world, LOAD);
    pass(300);
    world.wait_until_whole();
    let cut_at = run.now();
    cut(&world.lab);
    world.wait_for_members(SITE, "azure");
    let (switched, before) = (run.now(), gateways.map(|(g, ..)| balanced(g)));
    pass(500);
    let (healed, during) = (run.now(), gateways.map(|(g, ..)| balanced(g)));
    heal(&world.lab);
    world.wait_for_members("er-", "er-");
    let (returned, after) = (run.now(), gateways.map(|(g, ..)| balanced(g)));
    pass(500);
    let records = run.finish().unwrap();
    let end = gateways.map(|(g, ..)| balanced(g));

    for (index, record) in records.iter().enumerate() {
        let direction = DIRECTIONS[index];
        assert_eq!((record.refused, record.overflowed), (0, 0), "{direction}");
        let failover = record.judge(cut_at.saturating_sub(200 * MS), healed);
        let outage = failover.outage.map_or(0.0, |outage| outage.ms());
        println!(
            "{name}, {direction}: outage {outage:.1} ms, {} of {} lost",
            failover.lost, failover.sent
        );
        let calm = record.judge(0, cut_at.saturating_sub(200 * MS));
        let vpn = record.judge(switched, healed);
        let failback = record.judge(healed, u64::MAX);
        for (phase, judged) in [("before", calm), ("during", vpn), ("back", failback)] {
            println!(
                "  {phase}: {} sent, {} reordered",
                judged.sent, judged.reordered
            );
            assert!(judged.received > 0, "{direction}, {phase}: {judged:?}");
            assert_eq!(judged.lost, 0, "{direction}, {phase}: {judged:?}");
        }
        assert_eq!(record.judge(0, u64::MAX).duplicated, 0, "{direction}");
        // The gateway's own counters say the same of the path.
        let (_, site, circuit) = gateways[index];
        let over_vpn = sent_over(&during[index], site) - sent_over(&before[index], site);
        let carried = record.judge(switched, healed).sent;
        assert!(
            over_vpn >= carried / 2,
            "{over_vpn} of {carried} over {site}"
        );
        let over_circuit = sent_over(&end[index], circuit) - sent_over(&after[index], circuit);
        let carried = record.judge(returned, u64::MAX).sent;
        assert!(
            over_circuit >= carried / 2,
            "{over_circuit} of {carried} over {circuit}"
        );
    }
    for (gateway, ..) in gateways {
        print_events(gateway);
    }
    world.stop();
}

/// What a gateway noticed, by the times it noticed it at.
fn print_events(gateway: &Gateway) {
    let events = status(gateway).events;
    let first = events.first().map_or(0.0, |event| event.detected_unix_ms);
    for event in events {
        println!(
            "  {:8.1} ms {} {}: {} to {} {}",
            event.detected_unix_ms - first,
            gateway.host().name(),
            event.path,
            event.from,
            event.to,
            event.reason.unwrap_or_default()
        );
    }
}

#[test]
fn a_silent_circuit_fails_over_and_comes_back_without_loss() {
    fail_over_and_back(
        "silent",
        |lab| lab.fault(Fault::Silent).unwrap(),
        |lab| lab.heal(Fault::Silent).unwrap(),
    );
}

#[test]
fn a_lost_carrier_fails_over_and_comes_back_without_loss() {
    fail_over_and_back(
        "carrier",
        |lab| lab.fault(Fault::Carrier).unwrap(),
        |lab| lab.heal(Fault::Carrier).unwrap(),
    );
}

#[test]
fn silence_in_one_direction_moves_both() {
    for direction in Direction::BOTH {
        let set = |lab: &Lab, silent| {
            for wire in &lab.wires {
                wire.faults(direction).set_silent(silent);
            }
        };
        fail_over_and_back(
            &format!("silent {direction:?}"),
            |lab| set(lab, true),
            |lab| set(lab, false),
        );
    }
}

/// Flows of a record in which something sent in a window was lost.
fn hurt(record: &Record, from: u64, until: u64) -> BTreeSet<usize> {
    let flow = |index: usize| {
        let arrived: BTreeSet<u32> = record
            .arrivals
            .iter()
            .filter(|arrival| usize::from(arrival.flow) == index)
            .map(|arrival| arrival.number)
            .collect();
        let sent = record.sent[index].iter().enumerate();
        let mut window = sent.filter(|(_, sent)| (from..until).contains(sent));
        window.any(|(number, _)| !arrived.contains(&(number as u32)))
    };
    (0..record.sent.len())
        .filter(|&index| flow(index))
        .collect()
}

#[test]
fn one_lost_link_moves_its_own_flows_and_none_to_the_vpn() {
    const FLOWS: u16 = 64;
    let world = World::start(&calm(), |_| ());
    let [primary, secondary] = ["primary", "secondary"].map(|link| format!("{CIRCUIT}/{link}"));
    let members = || -> Vec<String> {
        let asked = (0..256).map(|port| {
            let flow =
                crate::harness::Datagram::new(("10.1.0.10", 40_000 + port), ("10.2.0.10", 5_201));
            flow.explain(&world.lab.gateway, "vnet").member.unwrap()
        });
        asked.collect()
    };
    let before = members();
    let on_primary = before.iter().filter(|&member| *member == primary).count();
    // 128 of 256 on average, with a standard deviation of 8.
    assert!((80..=176).contains(&on_primary), "{on_primary} of 256");

    let load = Load {
        flows: FLOWS,
        ..LOAD
    };
    let run = traffic(&world, load);
    pass(300);
    let start = balanced(&world.lab.gateway);
    let cut_at = run.now();
    world.lab.wires[0].set_silent(true);
    until("both ends have seen it", || {
        let states = [&world.lab.gateway, &world.lab.edge].map(|gateway| {
            let paths = status(gateway).paths;
            let found = paths
                .into_iter()
                .find(|path| path.name.ends_with("/primary"));
            found.unwrap().state
        });
        (states == ["down", "down"]).then_some(()).ok_or(states)
    });
    let switched = run.now();
    let (moved, middle) = (members(), balanced(&world.lab.gateway));
    assert!(moved.iter().all(|member| *member == secondary), "{moved:?}");
    pass(500);
    let (healed, end) = (run.now(), balanced(&world.lab.gateway));
    world.lab.wires[0].set_silent(false);
    until("the link is in use again", || {
        let found = members();
        (found == before).then_some(()).ok_or(found)
    });
    pass(300);
    let records = run.finish().unwrap();
    for (record, direction) in records.iter().zip(DIRECTIONS) {
        let hurt = hurt(record, cut_at.saturating_sub(100 * MS), switched);
        let outage = record.judge(cut_at.saturating_sub(200 * MS), healed).outage;
        println!(
            "one link, {direction}: {} of {FLOWS} flows moved, outage {:.1} ms",
            hurt.len(),
            outage.map_or(0.0, |outage| outage.ms())
        );
        // 32 of 64 on average, with a standard deviation of 4.
        assert!((12..=52).contains(&hurt.len()), "{direction}: {hurt:?}");
        for (from, until) in [(switched, healed), (healed, u64::MAX)] {
            let judged = record.judge(from, until);
            assert_eq!((judged.lost, judged.duplicated), (0, 0), "{judged:?}");
            assert!(judged.received > 0, "{judged:?}");
        }
    }
    // Nothing but probes went over the tunnel or the silent link: less than a flow in every hundred.
    let carried = records[0].judge(switched, healed).sent;
    let grown = |name: &str, from: &Counters, to: &Counters| {
        of(&to.totals.sent, name).packets - of(&from.totals.sent, name).packets
    };
    assert!(grown(SITE, &start, &end) < carried / 10);
    assert!(grown(&primary, &middle, &end) < carried / 10);
    assert!(grown(&secondary, &middle, &end) > carried / 2);
    world.stop();
}

/// Whether the namespace of a gateway has the device `vng0`.
fn has_device(gateway: &Gateway) -> bool {
    let read = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    gateway.host().run(read).unwrap().contains("vng0:")
}

#[test]
fn a_killed_gateway_leaves_nothing_and_traffic_resumes_with_the_next() {
    let mut world = World::start(&options(Duration::from_millis(100)), |_| ());
    let pid = world.lab.edge.pid().unwrap();
    assert!(has_device(&world.lab.edge));
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    assert!(world.lab.edge.stop().is_err(), "it was killed");
    assert!(!has_device(&world.lab.edge), "the device is left");
    let (vnet, onprem) = ends();
    until("no path is left", || {
        let told = world.lab.gateway.control().explain(vnet, onprem).unwrap();
        (told.reason == "no_path").then_some(()).ok_or(told.reason)
    });

    world.lab.edge.start().unwrap();
    world.wait_for_members("er-", "er-");
    let run = traffic(&world, LOAD);
    pass(300);
    // The tunnel is whole too: the next process has no session of the last one's.
    world.lab.fault(Fault::Silent).unwrap();
    world.wait_for_members(SITE, "azure");
    let switched = run.now();
    pass(300);
    for record in run.finish().unwrap() {
        let over_vpn = record.judge(switched, u64::MAX);
        assert!(over_vpn.received > 0, "{over_vpn:?}");
        assert_eq!((over_vpn.lost, over_vpn.duplicated), (0, 0), "{over_vpn:?}");
    }
    assert!(
        world
            .host("vnet")
            .reaches(address("10.3.0.10"), crate::harness::PATIENCE)
            .unwrap(),
        "the branch, which had no part in it"
    );
    world.assert_balance();
    let pids = world.lab.gateways().map(|gateway| gateway.pid().unwrap());
    world.stop();
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}
