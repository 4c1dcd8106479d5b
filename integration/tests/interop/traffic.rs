//! What every way must carry.

use crate::program::announce;
use crate::stage::{Family, PATIENCE, Stage, host_address};
use gateway::worker::backlog::INTERVAL;
use integration::gateway::Gateway;
use integration::host::Host;
use integration::traffic::iperf;
use integration::traffic::numbered::{Judgement, Load, Run};
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// An iperf3 server on side 2, and the gateways between it and side 1.
pub(crate) struct Iperf<'a> {
    stage: &'a Stage,
    hosts: &'a [Arc<Host>; 2],
    gateways: &'a [Gateway],
    server: iperf::Iperf,
}

impl<'a> Iperf<'a> {
    pub(crate) fn new(
        stage: &'a Stage,
        hosts: &'a [Arc<Host>; 2],
        gateways: &'a [Gateway],
    ) -> Self {
        let [_, server] = hosts;
        let server = iperf::Iperf::start(&stage.spawner, server).unwrap();
        Self {
            stage,
            hosts,
            gateways,
            server,
        }
    }

    /// Runs the client on side 1 with these options; the `end` of its report.
    pub(crate) fn run(&self, family: Family, options: &[&str]) -> Value {
        let ([from, _], target) = (self.hosts, host_address(2, family));
        let limit = Duration::from_secs(40);
        let end = self
            .server
            .run(&self.stage.spawner, from, target, options, limit);
        end.unwrap_or_else(|error| panic!("{error}"))
    }

    /// TCP: bytes arrive, each that the sender's device has given away comes out at the receiver's but for those that
    /// a counter accounts for, and in order. More options as iperf3 has them.
    ///
    /// What TCP sends again would say little: a sender whose process waits for a processor sends again what was never
    /// lost, and a queue of the kernel's that overflows costs a window. Bytes are counted where they go into the
    /// gateways' hands and where they leave them, so a busy machine changes nothing about what is asserted, and one
    /// packet in ten thousand that goes astray is seen.
    pub(crate) fn assert_tcp(&self, family: Family, options: &[&str]) {
        let [sender, receiver] = if options.contains(&"-R") {
            [1, 0]
        } else {
            [0, 1]
        };
        let books = || Books::read(self, family, sender, receiver);
        for attempt in 0..ATTEMPTS {
            let before = books();
            let window: &[&str] = if attempt == 0 { &[] } else { &NARROW };
            let end = self.run(family, &[&["-t", "2"], window, options].concat());
            let bytes = end["sum_received"]["bytes"].as_u64().unwrap();
            assert!(bytes > 5_000_000, "{bytes} bytes in 2 s: {end:#}");
            let deadline = Instant::now() + SETTLED;
            let passed = loop {
                let passed = books().since(&before);
                if passed.astray() <= 0 || Instant::now() > deadline {
                    break passed;
                }
                std::thread::sleep(SETTLED / 50);
            };
            // The socket of a peer has the default buffer of 208 KB, no room for two super-packets and their books. What
            // is lost there may be anything.
            if passed.overflown > 0 && attempt + 1 < ATTEMPTS {
                continue;
            }
            passed.assert_complete(2 * self.gateways.len());
            if passed.overflown > 0 {
                announce(&format!(
                    "TCP {options:?}: a queue of the kernel's was full: {passed:?}"
                ));
            }
            return;
        }
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

/// How often TCP is tried for a run in which no socket overflows.
const ATTEMPTS: usize = 4;
/// Options of iperf3 with which TCP has no more on its way than a socket's default buffer has room for.
const NARROW: [&str; 2] = ["-w", "64K"];
/// How long what is on its way at the end of a run may take to arrive.
const SETTLED: Duration = Duration::from_secs(1);
/// The longest packet that can be lost in one piece, bytes.
const LONGEST: i64 = 65_536;
/// Bytes by which headers that are longer than a segment's usually are may put the books out.
const ODD: i64 = 2_000;

/// Counts of one direction, all of which only grow.
#[derive(Debug)]
struct Books {
    /// Bytes behind the headers of TCP that the gateway or peer has read from the sender's device.
    given: i64,
    /// And that it has written to the receiver's device.
    taken: i64,
    /// And in the gateways' drop counters, in which there is little but this TCP.
    dropped: i64,
    /// Packets among them of which the loss told a sender to slow down.
    told: i64,
    /// Datagrams or packets, each perhaps a super-packet, that found a socket full.
    overflown: i64,
    /// Segments that the sender has found to have been overtaken.
    overtaken: i64,
    at: Instant,
}

impl Books {
    fn read(iperf: &Iperf<'_>, family: Family, sender: usize, receiver: usize) -> Self {
        // An IP header, TCP's, and its time stamps.
        let header = family.of([20, 40]) + 32;
        let payload = |at: usize, column: usize| {
            let row = device(&iperf.hosts[at]);
            row[column] - header * row[column + 1]
        };
        let mut books = Self {
            given: payload(sender, 8),
            taken: payload(receiver, 0),
            dropped: 0,
            told: 0,
            overflown: iperf.hosts.iter().map(sockets_full).sum(),
            overtaken: overtaken(&iperf.hosts[sender]),
            at: Instant::now(),
        };
        for gateway in iperf.gateways {
            let counters = iperf.stage.show(gateway, "counters");
            for (reason, sum) in counters["dropped"].as_object().unwrap() {
                let count = |what: &str| sum[what].as_i64().unwrap();
                books.dropped += count("bytes") - header * count("packets");
                if reason == "queue_delay" {
                    books.told += count("packets");
                }
            }
            // The device's are in front of what is counted here, the tunnels' sockets are counted above.
            let links = counters["kernel_drops"].as_object().unwrap().iter();
            let links = links.filter(|(port, _)| !["vnet", "underlay"].contains(&port.as_str()));
            books.overflown += links.map(|(_, count)| count.as_i64().unwrap()).sum::<i64>();
        }
        books
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            given: self.given - before.given,
            taken: self.taken - before.taken,
            dropped: self.dropped - before.dropped,
            told: self.told - before.told,
            overflown: self.overflown - before.overflown,
            overtaken: self.overtaken - before.overtaken,
            at: before.at,
        }
    }

    /// Bytes that no counter accounts for.
    fn astray(&self) -> i64 {
        self.given - self.taken - self.dropped - self.overflown * LONGEST
    }

    /// `queues`: how many the gateways read.
    fn assert_complete(&self, queues: usize) {
        // A packet that is no TCP, or no segment with data, was counted with the wrong headers.
        assert!(self.astray() < ODD, "bytes went astray: {self:?}");
        // A flow that moves to another lane may overtake itself once.
        assert!(self.overtaken <= 10, "out of order: {self:?}");
        // A queue that stands all the time is told of after `interval / sqrt(count)`, which adds up to twice the root
        // of the count.
        let intervals = self.at.elapsed().as_secs_f64() / INTERVAL.as_secs_f64();
        let most = queues as f64 * (intervals / 2.0).powi(2);
        assert!(
            self.told as f64 <= most,
            "more than CoDel's rhythm: {self:?}"
        );
    }
}

/// The row of the virtual network's device of a host in /proc/net/dev: what it has received and sent.
fn device(host: &Arc<Host>) -> Vec<i64> {
    device_of(host).unwrap()
}

fn device_of(host: &Arc<Host>) -> Option<Vec<i64>> {
    let table = proc_net(host, "dev");
    let row = table.lines().find_map(|line| {
        let (name, columns) = line.split_once(':')?;
        ["vng0", "wg0"].contains(&name.trim()).then_some(columns)
    });
    let columns = row?.split_whitespace();
    Some(columns.map(|column| column.parse().unwrap()).collect())
}

fn proc_net(host: &Arc<Host>, name: &str) -> String {
    let read = || std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
    host.run(read).unwrap().unwrap()
}

/// The sum of these columns of a row of a host's counters, which stand in pairs of rows.
fn counters(text: &str, row: &str, columns: &[&str]) -> i64 {
    let mut rows = text.lines().filter_map(|line| line.strip_prefix(row));
    let [names, values] = [(); 2].map(|()| rows.next().unwrap().split_whitespace());
    let known = names.zip(values).filter(|(name, _)| columns.contains(name));
    known.map(|(_, value)| value.parse::<i64>().unwrap()).sum()
}

fn overtaken(host: &Arc<Host>) -> i64 {
    let text = proc_net(host, "netstat");
    counters(&text, "TcpExt:", &["TCPSACKReorder", "TCPTSReorder"])
}

/// Datagrams that found their socket full.
fn sockets_full(host: &Arc<Host>) -> i64 {
    let v4 = counters(&proc_net(host, "snmp"), "Udp:", &["RcvbufErrors"]);
    let v6 = proc_net(host, "snmp6");
    let v6 = v6
        .lines()
        .find_map(|line| line.strip_prefix("Udp6RcvbufErrors"));
    v4 + v6.unwrap().trim().parse::<i64>().unwrap()
}

/// What the kernel of a host has dropped before a gateway or peer could read it, so far: datagrams that
/// found their socket full, and packets that found the queue of the virtual network's device full.
pub(crate) fn overflown(host: &Arc<Host>) -> u64 {
    // Of what was sent, the fourth of eight columns is drops.
    let drops = device_of(host).map_or(0, |row| row[11]);
    (sockets_full(host) + drops).unsigned_abs()
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
