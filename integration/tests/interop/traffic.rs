//! What every way must carry.

use crate::program::announce;
use crate::stage::{Family, PATIENCE, Stage, host_address};
use integration::host::Host;
use integration::traffic::iperf;
use integration::traffic::numbered::{Judgement, Load, Run};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Echo requests between the hosts of both sides, small and large, both families: all are answered.
pub(crate) fn assert_pings(hosts: &[Arc<Host>; 2]) {
    for family in Family::BOTH {
        for (host, other) in hosts.iter().zip([2, 1]) {
            let target = host_address(other, family);
            assert!(
                host.reaches(target, PATIENCE).unwrap(),
                "{target} is not reached"
            );
            for payload in [8, 1_300] {
                let echoes = host.ping(target, 5, payload, PATIENCE).unwrap();
                assert_eq!((echoes.sent, echoes.received), (5, 5), "{target} {payload}");
            }
        }
    }
}

/// An iperf3 server on side 2.
pub(crate) struct Iperf<'a> {
    stage: &'a Stage,
    hosts: &'a [Arc<Host>; 2],
    server: iperf::Iperf,
}

impl<'a> Iperf<'a> {
    pub(crate) fn new(stage: &'a Stage, hosts: &'a [Arc<Host>; 2]) -> Self {
        let [_, server] = hosts;
        let server = iperf::Iperf::start(&stage.nursery, server).unwrap();
        Self {
            stage,
            hosts,
            server,
        }
    }

    /// Runs the client on side 1 with these options; the `end` of its report.
    pub(crate) fn run(&self, family: Family, options: &[&str]) -> Value {
        let ([from, _], target) = (self.hosts, host_address(2, family));
        let limit = Duration::from_secs(40);
        let end = self
            .server
            .run(&self.stage.nursery, from, target, options, limit);
        end.unwrap_or_else(|error| panic!("{error}"))
    }

    /// TCP: bytes arrive, and few are sent twice. More options as iperf3 has them.
    pub(crate) fn assert_tcp(&self, family: Family, options: &[&str]) {
        let full = || self.hosts.iter().map(overflown).sum::<u64>();
        let before = full();
        let end = self.run(family, &[&["-t", "2"], options].concat());
        let bytes = end["sum_received"]["bytes"].as_u64().unwrap();
        let again = end["sum_sent"]["retransmits"].as_u64().unwrap_or(0);
        assert!(bytes > 5_000_000, "{bytes} bytes in 2 s: {end:#}");
        // A queue that overflows once loses a window or two; a storm is a share of all that is sent. The
        // socket of a peer has the default buffer of 208 KB, no room for two super-packets; a device
        // without offloads queues 500 packets, less than a window.
        let (segments, overflown) = (bytes / 1_300, full() - before);
        assert!(
            again <= 200 + segments / 20 + 2 * overflown,
            "{again} of {segments} sent again, {overflown} found a full queue"
        );
    }

    /// UDP at 20 Mbit/s for 3 s: nothing is lost, but where the kernel had no room for it: a peer's socket
    /// holds 90 datagrams, which one pause of its process fills on a busy machine.
    pub(crate) fn assert_udp(&self, family: Family, options: &[&str]) {
        let full = || self.hosts.iter().map(overflown).sum::<u64>();
        let before = full();
        let udp = ["-u", "-b", "20M", "-l", "1200", "-t", "3"];
        let end = self.run(family, &[&udp[..], options].concat());
        let (packets, lost) = (&end["sum"]["packets"], &end["sum"]["lost_packets"]);
        assert!(packets.as_u64().unwrap() > 5_000, "{end:#}");
        let (lost, overflown) = (lost.as_u64().unwrap(), full() - before);
        assert!(
            lost <= overflown,
            "{lost} lost, {overflown} of them in a full queue: {end:#}"
        );
        if lost > 0 {
            announce(&format!(
                "UDP {options:?}: {lost} of {packets} found a queue of the kernel's full"
            ));
        }
    }
}

/// What the kernel of a host has dropped before a gateway or peer could read it, so far: datagrams that
/// found their socket full, and packets that found the queue of the virtual network's device full.
pub(crate) fn overflown(host: &Arc<Host>) -> u64 {
    let read = |name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap();
    let [v4, v6, devices] = host.run(|| ["snmp", "snmp6", "dev"].map(read)).unwrap();
    let number = |text: &str| text.trim().parse::<u64>().unwrap();
    let mut rows = v4.lines().filter(|line| line.starts_with("Udp: "));
    let [names, values] = [(); 2].map(|()| rows.next().unwrap().split_whitespace());
    let v4 = names.zip(values).find(|(name, _)| *name == "RcvbufErrors");
    let v6 = v6
        .lines()
        .find_map(|line| line.strip_prefix("Udp6RcvbufErrors"));
    // Eight columns of what was received, then bytes, packets, errors, drops of what was sent.
    let device = |line: &str| {
        let (name, columns) = line.split_once(':')?;
        ["vng0", "wg0"]
            .contains(&name.trim())
            .then(|| number(columns.split_whitespace().nth(11).unwrap()))
    };
    number(v4.unwrap().1) + number(v6.unwrap()) + devices.lines().filter_map(device).sum::<u64>()
}

/// Numbered packets between the hosts of both sides.
pub(crate) fn numbered(hosts: &[Arc<Host>; 2], family: Family, load: Load) -> Run {
    let [near, far] = hosts;
    let [from, to] = [1, 2].map(|n| host_address(n, family));
    Run::start((near, from), (far, to), load).unwrap()
}

/// Waits until a run is so old.
pub(crate) fn wait_until(run: &Run, age: Duration) {
    let left = age.saturating_sub(run.epoch().elapsed());
    std::thread::sleep(left);
}

/// Ends a run; what became of the packets of both directions.
pub(crate) fn judge(run: Run) -> [Judgement; 2] {
    let records = run.finish().unwrap();
    records.map(|record| {
        assert_eq!(
            record.refused, 0,
            "packets that the sender's own kernel would not take"
        );
        record.judge(0, u64::MAX)
    })
}

/// Sends at least so many numbered packets each way: each arrives once.
pub(crate) fn assert_carries(hosts: &[Arc<Host>; 2], family: Family, packets: u64) {
    let load = Load {
        rate: 2_000,
        flows: 1,
        ..Load::default()
    };
    // On a busy machine the sender itself is late: then it takes more than one round.
    let mut left = packets;
    while left > 0 {
        let run = numbered(hosts, family, load);
        wait_until(&run, Duration::from_millis(600));
        left = left.saturating_sub(assert_all_arrived(run, 1));
    }
}

/// Ends a run in which at least so many packets went each way: each arrived once. How many that
/// were, of the direction with fewer.
pub(crate) fn assert_all_arrived(run: Run, at_least: u64) -> u64 {
    let judgements = judge(run);
    for judgement in &judgements {
        assert!(judgement.sent >= at_least, "only {} sent", judgement.sent);
        assert_eq!(
            (judgement.lost, judgement.duplicated, judgement.reordered),
            (0, 0, 0),
            "of {} sent, outage {:?}",
            judgement.sent,
            judgement.outage
        );
    }
    judgements.iter().map(|there| there.sent).min().unwrap()
}
