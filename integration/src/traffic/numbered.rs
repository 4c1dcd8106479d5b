//! Numbered UDP packets at a steady rate, in both directions at once, with a record of each one: when it
//! was sent, and when it arrived.
//!
//! 1. The sender of a direction wakes at absolute deadlines, one millisecond apart, and sends what is due;
//!    packets go round its flows (source ports), so that both links of a circuit carry some.
//! 2. A packet carries its flow, its number in the flow, and its time of sending. All hosts of the lab
//!    share one clock, so the difference is the one-way latency.
//! 3. The receiver writes down what arrives, in order of arrival. Each flow has a socket of its own there,
//!    and what the kernel drops because a socket is full is told apart from what is lost on the way.
//! 4. Afterwards [`Record::judge`] looks at a window of sending time: what of it arrived, how, and when not.

use crate::error::Error;
use crate::host::Host;
use crate::interrupt;
use gateway::device::event::Poller;
use hdrhistogram::Histogram;
use rustix::net::sockopt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Packets per second in each direction, over all flows.
    pub rate: u32,
    /// Flows in each direction, at most 256.
    pub flows: u16,
    /// Bytes of UDP payload, at least 20.
    pub payload: usize,
}

impl Default for Load {
    /// 10,000 packets of 200 bytes (with IPv4 header) a second in eight flows.
    fn default() -> Self {
        Self {
            rate: 10_000,
            flows: 8,
            payload: 172,
        }
    }
}

/// One packet that arrived. Times are nanoseconds since the epoch of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When it arrived.
    pub at: u64,
    /// When it was sent.
    pub sent: u64,
    /// Its number in its flow.
    pub number: u32,
    /// Its flow.
    pub flow: u16,
}

/// All packets of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// By flow and number: when it was sent, nanoseconds since the epoch of the run.
    pub sent: Vec<Vec<u64>>,
    /// In order of arrival.
    pub arrivals: Vec<Arrival>,
    /// Packets that the sender's own kernel would not take; they have no number and are not in `sent`.
    pub refused: u64,
    /// Packets that arrived while the receiver's own socket was full; they count as lost.
    pub overflowed: u64,
}

/// An outage: the longest time in which a flow got nothing although packets of it were on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outage {
    /// Arrival of the last packet before it, nanoseconds since the epoch of the run.
    pub from: u64,
    /// Arrival of the first packet after it.
    pub until: u64,
}

impl Outage {
    /// How long, milliseconds.
    pub fn ms(&self) -> f64 {
        self.until.saturating_sub(self.from) as f64 / 1e6
    }
}

/// What became of the packets that were sent within a window of time.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// Sent.
    pub sent: u64,
    /// Arrived, each counted once.
    pub received: u64,
    /// Sent and never arrived.
    pub lost: u64,
    /// Copies beyond the first.
    pub duplicated: u64,
    /// Arrived after a later one of the same flow (RFC 4737, 3.3).
    pub reordered: u64,
    /// The longest interruption in which something was lost; `None` if nothing was.
    pub outage: Option<Outage>,
    /// The longest time between two arrivals of a flow, lost packets or not, milliseconds.
    pub largest_gap_ms: f64,
    /// One-way latencies, microseconds.
    pub latency: Histogram<u64>,
}

impl Record {
    /// Judges the packets that were sent from `from` to before `until`, nanoseconds since the epoch.
    pub fn judge(&self, from: u64, until: u64) -> Judgement {
        let within = |sent: u64| (from..until).contains(&sent);
        let sent = self
            .sent
            .iter()
            .flatten()
            .filter(|&&sent| within(sent))
            .count() as u64;
        let mut seen: Vec<Vec<bool>> = self
            .sent
            .iter()
            .map(|flow| vec![false; flow.len()])
            .collect();
        let mut last: Vec<Option<Arrival>> = vec![None; self.sent.len()];
        let latency = Histogram::new_with_bounds(1, BOUND_US, 3).or_else(|_| Histogram::new(3));
        let mut judgement = Judgement {
            sent,
            received: 0,
            lost: 0,
            duplicated: 0,
            reordered: 0,
            outage: None,
            largest_gap_ms: 0.0,
            latency: latency.unwrap_or_else(|_| unreachable!("three digits are allowed")),
        };
        for arrival in self.arrivals.iter().filter(|arrival| within(arrival.sent)) {
            let flow = usize::from(arrival.flow);
            let known = seen
                .get_mut(flow)
                .and_then(|f| f.get_mut(arrival.number as usize));
            let (Some(seen), Some(last)) = (known, last.get_mut(flow)) else {
                continue;
            };
            if std::mem::replace(seen, true) {
                judgement.duplicated += 1;
                continue;
            }
            judgement.received += 1;
            let us = arrival.at.saturating_sub(arrival.sent) / 1000;
            judgement.latency.saturating_record(us.clamp(1, BOUND_US));
            let Some(before) = *last else {
                *last = Some(*arrival);
                continue;
            };
            if arrival.number < before.number {
                judgement.reordered += 1;
                continue;
            }
            let gap = Outage {
                from: before.at,
                until: arrival.at,
            };
            judgement.largest_gap_ms = judgement.largest_gap_ms.max(gap.ms());
            let longest = judgement.outage.map_or(0.0, |outage| outage.ms());
            if arrival.number > before.number + 1 && gap.ms() > longest {
                judgement.outage = Some(gap);
            }
            *last = Some(*arrival);
        }
        judgement.lost = judgement.sent - judgement.received;
        if judgement.lost == 0 {
            // Numbers were skipped only because the missing ones came later, out of order.
            judgement.outage = None;
        }
        judgement
    }

    /// Packets per second that arrived, in full bins of `width` that begin at `origin` (nanoseconds since
    /// the epoch) and multiples of `width` from there, forwards and backwards: middle of the bin, in
    /// seconds from `origin` on, and rate.
    pub fn rates(&self, origin: u64, width: Duration) -> Vec<(f64, f64)> {
        let (nanos, seconds) = (width.as_nanos().max(1) as i64, width.as_secs_f64());
        let bin = |at: u64| (at.cast_signed() - origin.cast_signed()).div_euclid(nanos);
        let (Some(first), Some(last)) = (self.arrivals.first(), self.arrivals.last()) else {
            return Vec::new();
        };
        // The first and the last bin are not full.
        let (first, last) = (bin(first.at) + 1, bin(last.at));
        let mut counts = vec![0_u32; (last - first).max(0) as usize];
        for arrival in &self.arrivals {
            let index = usize::try_from(bin(arrival.at) - first).ok();
            if let Some(count) = index.and_then(|index| counts.get_mut(index)) {
                *count += 1;
            }
        }
        let middle = |index: usize| (first as f64 + index as f64 + 0.5) * seconds;
        counts
            .iter()
            .enumerate()
            .map(|(i, &n)| (middle(i), f64::from(n) / seconds))
            .collect()
    }
}

/// Packets on their way, in both directions between two hosts.
#[derive(Debug)]
pub struct Run {
    epoch: Instant,
    stop: Arc<AtomicBool>,
    directions: [Direction; 2],
}

#[derive(Debug)]
struct Direction {
    sender: JoinHandle<(Vec<Vec<u64>>, u64)>,
    receiver: JoinHandle<io::Result<(Vec<Arrival>, u64)>>,
    sent_all: Arc<AtomicBool>,
}

/// The port that packets of flow 0 go to; the others have the next ones.
const FIRST_PORT: u16 = 5_201;
/// Ports that are ours.
const MAX_FLOWS: u16 = 256;
const OUR_PORTS: Range<u16> = FIRST_PORT..FIRST_PORT + MAX_FLOWS;
/// How long a receiver waits for stragglers once the sender has ended.
const STRAGGLERS: Duration = Duration::from_millis(500);
/// Latencies above this count as this, microseconds.
const BOUND_US: u64 = 60_000_000;
/// "vngN": what tells our packets from others.
const MAGIC: [u8; 4] = *b"vngN";

impl Run {
    /// Starts sending between `a` and `b`, hosts with these addresses.
    ///
    /// # Errors
    /// [`Error::System`] where a socket of one of the flows cannot be bound or connected on either host, or
    /// there are no threads.
    pub fn start(a: (&Host, IpAddr), b: (&Host, IpAddr), load: Load) -> Result<Self, Error> {
        let epoch = Instant::now();
        let stop = Arc::new(AtomicBool::new(false));
        let directions = [
            Direction::start(a, b, load, epoch, &stop)?,
            Direction::start(b, a, load, epoch, &stop)?,
        ];
        Ok(Self {
            epoch,
            stop,
            directions,
        })
    }

    /// When time began.
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// Nanoseconds since the epoch.
    pub fn now(&self) -> u64 {
        since(self.epoch)
    }

    /// Stops sending, waits for stragglers, and gives the records: from the first host to the second, and
    /// back.
    ///
    /// # Errors
    /// [`Error::System`] where a receiver's `epoll` or `recv` has failed, or `setns` did not let it into its host
    /// again, to read there what the kernel has dropped.
    pub fn finish(self) -> Result<[Record; 2], Error> {
        self.stop.store(true, Relaxed);
        let [there, back] = self.directions.map(Direction::finish);
        Ok([there?, back?])
    }
}

impl Direction {
    fn start(
        (from, source): (&Host, IpAddr),
        (to, target): (&Host, IpAddr),
        load: Load,
        epoch: Instant,
        stop: &Arc<AtomicBool>,
    ) -> Result<Self, Error> {
        let action = || Error::system(format!("send from {source} to {target}"));
        let ports = (0..load.flows.clamp(1, MAX_FLOWS)).map(|flow| FIRST_PORT + flow);
        let inlets: Vec<UdpSocket> = to
            .run(|| {
                let open = |port| inlet(SocketAddr::new(target, port));
                ports.clone().map(open).collect::<io::Result<_>>()
            })?
            .map_err(action())?;
        let outlets: Vec<UdpSocket> = from
            .run(|| {
                let open = |port| {
                    let socket = UdpSocket::bind((source, 0))?;
                    socket.connect((target, port))?;
                    Ok(socket)
                };
                ports.map(open).collect::<io::Result<_>>()
            })?
            .map_err(action())?;
        let sent_all = Arc::new(AtomicBool::new(false));
        let (stop, done, host) = (Arc::clone(stop), Arc::clone(&sent_all), to.namespace());
        let namespace = host.try_clone().map_err(action())?;
        let name = |what: &str| std::thread::Builder::new().name(what.to_owned());
        let receiver = name("receiver")
            .spawn(move || {
                let arrivals = receive(&inlets, epoch, &done)?;
                // Read while the sockets are still open.
                Ok((arrivals, namespace.run(|| overflows(OUR_PORTS))?))
            })
            .map_err(action())?;
        let sender = name("sender")
            .spawn(move || transmit(&outlets, load, epoch, &stop))
            .map_err(action())?;
        Ok(Self {
            sender,
            receiver,
            sent_all,
        })
    }

    fn finish(self) -> Result<Record, Error> {
        let sent = self.sender.join();
        self.sent_all.store(true, Relaxed);
        let received = self.receiver.join();
        let (sent, refused) = sent.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (arrivals, overflowed) = received
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .map_err(Error::system("receive numbered packets"))?;
        Ok(Record {
            sent,
            arrivals,
            refused,
            overflowed,
        })
    }
}

fn transmit(
    outlets: &[UdpSocket],
    load: Load,
    epoch: Instant,
    stop: &AtomicBool,
) -> (Vec<Vec<u64>>, u64) {
    let mut sent: Vec<Vec<u64>> = vec![Vec::new(); outlets.len()];
    let mut packet = vec![0; load.payload.max(20)];
    let (start, mut refused, mut total) = (Instant::now(), 0, 0_u64);
    for tick in 1_u32.. {
        if stop.load(Relaxed) || interrupt::pending() {
            break;
        }
        let deadline = start + Duration::from_millis(1) * tick;
        let left = deadline.saturating_duration_since(Instant::now());
        std::thread::sleep(left.max(Duration::from_micros(500)));
        // A sender that had to wait for a processor catches up at no more than three times its rate: all
        // at once would be a burst that no queue on the way was made for.
        let due = u64::from(tick) * u64::from(load.rate) / 1000;
        let due = due.min(total + (3 * u64::from(load.rate) / 1000).max(1));
        while total < due {
            total += 1;
            let flow = (total % outlets.len() as u64) as usize;
            let (Some(outlet), Some(log)) = (outlets.get(flow), sent.get_mut(flow)) else {
                continue;
            };
            let now = since(epoch);
            write_packet(&mut packet, flow as u16, log.len() as u32, now);
            // An error may be the news of an earlier packet (an ICMP error); this one was not sent then.
            let taken = (0..3).any(|_| outlet.send(&packet).is_ok());
            if taken {
                log.push(now);
            } else {
                refused += 1;
            }
        }
    }
    (sent, refused)
}

/// A flow's receiving socket.
fn inlet(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    // 2 MB where that is allowed (CAP_NET_ADMIN outside of namespaces), else as much as is: a receiver
    // may have to wait for a processor.
    let _ = sockopt::set_socket_recv_buffer_size_force(&socket, 2 << 20)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, 2 << 20));
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn receive(
    inlets: &[UdpSocket],
    epoch: Instant,
    sent_all: &AtomicBool,
) -> io::Result<Vec<Arrival>> {
    let mut poller = Poller::new()?;
    for (token, inlet) in inlets.iter().enumerate() {
        poller.add(inlet, token as u64)?;
    }
    let mut arrivals = Vec::with_capacity(1 << 18);
    let mut buffer = [0; 2048];
    let mut last_call: Option<Instant> = None;
    loop {
        let ready = poller.wait(Some(Duration::from_millis(100)))?;
        for inlet in ready.filter_map(|token| inlets.get(token as usize)) {
            loop {
                let length = match inlet.recv(&mut buffer) {
                    Ok(length) => length,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                };
                let packet = buffer.get(..length).unwrap_or_default();
                arrivals.extend(read_packet(packet, since(epoch)));
            }
        }
        if sent_all.load(Relaxed) {
            let since = *last_call.get_or_insert_with(Instant::now);
            if since.elapsed() >= STRAGGLERS || interrupt::pending() {
                return Ok(arrivals);
            }
        }
    }
}

/// Packets that the kernel has dropped because a receiving socket on one of these ports of this namespace
/// was full: the last column of `/proc/net/udp`, by local port.
pub(super) fn overflows(ports: Range<u16>) -> u64 {
    let drops = |row: &str| {
        let mut fields = row.split_ascii_whitespace();
        let (_, port) = fields.nth(1)?.rsplit_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let ours = ports.contains(&port);
        fields.next_back()?.parse::<u64>().ok().filter(|_| ours)
    };
    ["udp", "udp6"]
        .map(|table| std::fs::read_to_string(format!("/proc/thread-self/net/{table}")))
        .iter()
        .flatten()
        .flat_map(|table| table.lines().skip(1))
        .filter_map(drops)
        .sum()
}

/// Magic, flow, padding, number, time of sending; all big-endian.
fn write_packet(packet: &mut [u8], flow: u16, number: u32, sent: u64) {
    let [f0, f1] = flow.to_be_bytes();
    let mut head = [0; 20];
    head[..4].copy_from_slice(&MAGIC);
    head[4..8].copy_from_slice(&[f0, f1, 0, 0]);
    head[8..12].copy_from_slice(&number.to_be_bytes());
    head[12..].copy_from_slice(&sent.to_be_bytes());
    if let Some(start) = packet.first_chunk_mut() {
        *start = head;
    }
}

fn read_packet(packet: &[u8], at: u64) -> Option<Arrival> {
    let (magic, rest) = packet.split_first_chunk::<4>()?;
    let (flow, rest) = rest.split_first_chunk::<2>()?;
    let (number, rest) = rest.get(2..)?.split_first_chunk::<4>()?;
    let (sent, _) = rest.split_first_chunk::<8>()?;
    (*magic == MAGIC).then_some(Arrival {
        at,
        sent: u64::from_be_bytes(*sent),
        number: u32::from_be_bytes(*number),
        flow: u16::from_be_bytes(*flow),
    })
}

fn since(epoch: Instant) -> u64 {
    epoch.elapsed().as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::connect;

    const MS: u64 = 1_000_000;

    /// One flow, a packet each millisecond, which takes one to arrive; `order` of arrival by number.
    fn record(count: u64, order: &[u32]) -> Record {
        let arrival = |(at, &number): (usize, &u32)| Arrival {
            at: (u64::from(number).max(at as u64) + 1) * MS,
            sent: u64::from(number) * MS,
            number,
            flow: 0,
        };
        Record {
            sent: vec![(0..count).map(|n| n * MS).collect()],
            arrivals: order.iter().enumerate().map(arrival).collect(),
            refused: 0,
            overflowed: 0,
        }
    }

    #[test]
    fn an_outage_is_the_longest_gap_in_which_something_was_lost() {
        let judgement = record(20, &[0, 1, 2, 5, 6, 15, 16, 17, 18, 19]).judge(0, u64::MAX);
        assert_eq!(
            (judgement.sent, judgement.received, judgement.lost),
            (20, 10, 10)
        );
        assert_eq!(
            judgement.outage,
            Some(Outage {
                from: 7 * MS,
                until: 16 * MS
            })
        );
        assert_eq!((judgement.duplicated, judgement.reordered), (0, 0));
    }

    #[test]
    fn late_and_double_packets_are_neither_lost_nor_an_outage() {
        let judgement = record(6, &[0, 1, 3, 2, 2, 4, 5, 0]).judge(0, u64::MAX);
        assert_eq!(
            (judgement.lost, judgement.reordered, judgement.duplicated),
            (0, 1, 2)
        );
        assert_eq!(judgement.outage, None);
        assert!(judgement.largest_gap_ms >= 1.0);
    }

    #[test]
    fn a_window_is_of_sending_time() {
        let judgement = record(20, &[0, 1, 2, 10, 11, 12]).judge(10 * MS, 13 * MS);
        assert_eq!(
            (judgement.sent, judgement.received, judgement.outage),
            (3, 3, None)
        );
        // They arrive after 1, 2, 4, 5, 6 and 9 ms; the bins at both ends are not full.
        let rates = record(9, &[0, 1, 3, 4, 5, 8]).rates(4 * MS, Duration::from_millis(2));
        assert_eq!(rates, [(-0.001, 500.0), (0.001, 1000.0), (0.003, 500.0)]);
    }

    #[test]
    fn packets_cross_in_both_directions_with_nothing_lost() {
        let (a, b) = (Host::new("a").unwrap(), Host::new("b").unwrap());
        connect((&a, "eth0"), (&b, "eth0")).unwrap();
        a.address("eth0", &["10.0.0.1/24"]).unwrap();
        b.address("eth0", &["10.0.0.2/24"]).unwrap();
        let [from, to] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse::<IpAddr>().unwrap());
        assert!(a.reaches(to, Duration::from_secs(5)).unwrap());
        let load = Load {
            rate: 2_000,
            ..Load::default()
        };
        let run = Run::start((&a, from), (&b, to), load).unwrap();
        while run.now() < 100 * MS {
            std::thread::yield_now();
        }
        for record in run.finish().unwrap() {
            let judgement = record.judge(0, u64::MAX);
            assert!(judgement.sent >= 100, "{judgement:?}");
            assert_eq!(
                (judgement.lost, judgement.duplicated, record.refused),
                (0, 0, 0)
            );
            assert_eq!(judgement.latency.len(), judgement.received);
        }
    }
}
