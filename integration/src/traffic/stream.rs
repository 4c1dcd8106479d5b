//! One flow of UDP packets of one size, at a steady rate or as fast as they go, counted where they arrive.
//!
//! 1. The sender takes its packets, one datagram each, to the kernel in bursts of about 32 by `sendmmsg`,
//!    1 ms apart at the most and 100 us at the least. One that had to wait for a processor catches up, a few
//!    bursts at a time: all at once would be more than any queue on the way was made for.
//! 2. The receiver takes them by `recvmmsg`, without UDP_GRO, and counts those of this run.
//! 3. It ends when the sender has and nothing has come for a while. What the kernel dropped because the
//!    receiver's own socket was full is told apart from what was lost on the way.

use super::numbered::overflows;
use crate::error::Error;
use crate::host::Host;
use crate::interrupt;
use gateway::device::event::Poller;
use gateway::device::udp::{MAX_BATCH, ReceiveBatch, UdpOptions, UdpSocket};
use rustix::io::Errno;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg, sockopt};
use std::io::{self, IoSlice};
use std::net::{self, IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Bytes of UDP payload, at least 16.
    pub payload: usize,
    /// Packets per second; `None`: as fast as they go.
    pub rate: Option<u32>,
    /// For how long.
    pub duration: Duration,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Delivery {
    /// Packets that the sender's kernel took.
    pub sent: u64,
    /// Over so many seconds.
    pub send_seconds: f64,
    /// Packets that the receiver read.
    pub received: u64,
    /// From the first to the last of them, seconds.
    pub receive_seconds: f64,
    /// Packets that arrived at the receiver's host while its socket was full.
    pub overflowed: u64,
}

impl Delivery {
    /// Packets per second sent.
    pub fn offered(&self) -> f64 {
        rate(self.sent, self.send_seconds)
    }

    /// Packets that arrived at the receiver's host, whether or not the receiver had room for them.
    pub fn delivered_packets(&self) -> u64 {
        self.received + self.overflowed
    }

    /// Packets per second that arrived.
    pub fn delivered(&self) -> f64 {
        // The last packet ends the time and does not begin another interval; with thousands it is no matter.
        rate(self.delivered_packets(), self.receive_seconds)
    }

    /// The share of packets sent that did not arrive, 0 to 1.
    pub fn loss(&self) -> f64 {
        let lost = self.sent.saturating_sub(self.delivered_packets());
        lost as f64 / self.sent.max(1) as f64
    }
}

fn rate(packets: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        packets as f64 / seconds
    } else {
        0.0
    }
}

/// Packets of one `sendmmsg`, and of a burst.
const BURST: u32 = 32;
/// Bursts are so far apart at the least, and at the most.
const PACE: [Duration; 2] = [Duration::from_micros(100), Duration::from_millis(1)];
/// How many bursts a late sender sends at once.
const CATCH_UP: u32 = 3;
/// The receiver ends after so long without a packet.
const QUIET: Duration = Duration::from_millis(100);
/// And this long after the sender at the latest.
const STRAGGLERS: Duration = Duration::from_secs(2);
/// "vngS", and the number of the run.
const MAGIC: [u8; 4] = *b"vngS";
const HEAD: usize = 16;

/// Sends `load` from `from` to `to`, which has the address `target`.
///
/// # Errors
/// [`Error::Device`] where the receiving socket cannot be opened; [`Error::System`], with both ends, where the
/// sending one cannot be, `sendmmsg` or `recvmmsg` fails otherwise than by a full queue or an ICMP error, or the user wants to
/// stop; also as of [`Host::run`]. Loss is no error.
pub fn send(from: &Host, to: &Host, target: IpAddr, load: Load) -> Result<Delivery, Error> {
    static RUN: AtomicU64 = AtomicU64::new(1);
    let action = || Error::system(format!("send packets from {} to {target}", from.name()));
    let options = UdpOptions {
        offload: false,
        ..UdpOptions::default()
    };
    let inlet = to.run(|| UdpSocket::bind(SocketAddr::new(target, 0), options))??;
    let address = inlet.local_address().map_err(action())?;
    let outlet = from.run(|| outlet(address))?.map_err(action())?;
    let mut packet = vec![0; load.payload.max(HEAD)];
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&MAGIC);
    head[8..].copy_from_slice(&RUN.fetch_add(1, Relaxed).to_be_bytes());
    if let Some(start) = packet.first_chunk_mut() {
        *start = head;
    }

    let sent_all = AtomicBool::new(false);
    let mut delivery = Delivery::default();
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&inlet, &head, &sent_all));
        let sent = transmit(&outlet, &packet, load);
        sent_all.store(true, Relaxed);
        let received = receiver.join();
        (delivery.sent, delivery.send_seconds) = sent?;
        let received = received.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (delivery.received, delivery.receive_seconds) = received?;
        Ok(())
    })
    .map_err(action())?;
    // Read while the socket is still open.
    let port = address.port();
    delivery.overflowed = to.run(|| overflows(port..port.saturating_add(1)))?;
    Ok(delivery)
}

fn outlet(to: SocketAddr) -> io::Result<net::UdpSocket> {
    let any: IpAddr = match to.ip() {
        IpAddr::V4(_) => [0; 4].into(),
        IpAddr::V6(_) => [0_u16; 8].into(),
    };
    let socket = net::UdpSocket::bind((any, 0))?;
    let _ = sockopt::set_socket_send_buffer_size_force(&socket, 1 << 20);
    socket.connect(to)?;
    Ok(socket)
}

/// How far apart bursts are at this rate.
fn pace(rate: u32) -> Duration {
    let [least, most] = PACE;
    Duration::from_secs_f64(f64::from(BURST) / f64::from(rate.max(1))).clamp(least, most)
}

fn transmit(outlet: &net::UdpSocket, packet: &[u8], load: Load) -> io::Result<(u64, f64)> {
    let data = [IoSlice::new(packet)];
    let mut control: Vec<_> = (0..BURST).map(|_| SendAncillaryBuffer::default()).collect();
    let mut messages: Vec<_> = control
        .iter_mut()
        .map(|control| MMsgHdr::new(&data, control))
        .collect();
    let start = Instant::now();
    let mut sent = 0_u64;
    let Some(rate) = load.rate else {
        while start.elapsed() < load.duration {
            interrupt::check_io()?;
            sent += burst(outlet, &mut messages, u64::from(BURST))?;
        }
        return Ok((sent, start.elapsed().as_secs_f64()));
    };
    let pace = pace(rate);
    let at_once = (f64::from(rate * CATCH_UP) * pace.as_secs_f64()).ceil() as u64;
    let mut next = start;
    loop {
        interrupt::check_io()?;
        let elapsed = start.elapsed().min(load.duration);
        let due = (f64::from(rate) * elapsed.as_secs_f64()) as u64;
        let behind = due.saturating_sub(sent).min(at_once.max(1));
        sent += burst(outlet, &mut messages, behind)?;
        if elapsed >= load.duration {
            // What was not sent in time is not offered: the rate says so.
            return Ok((sent, start.elapsed().as_secs_f64()));
        }
        next = (next + pace).max(Instant::now());
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// Sends so many packets.
fn burst(outlet: &net::UdpSocket, messages: &mut [MMsgHdr<'_>], count: u64) -> io::Result<u64> {
    let mut left = count;
    while left > 0 {
        let length = messages.len().min(left as usize);
        let some = messages.get_mut(..length).unwrap_or_default();
        match sendmmsg(outlet, some, SendFlags::empty()) {
            Ok(taken) => left -= (taken as u64).min(left),
            // The news of an earlier packet (an ICMP error), or a full queue: this one was not sent.
            Err(Errno::CONNREFUSED | Errno::INTR | Errno::NOBUFS | Errno::AGAIN) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(count - left)
}

fn receive(inlet: &UdpSocket, head: &[u8; HEAD], sent_all: &AtomicBool) -> io::Result<(u64, f64)> {
    let mut poller = Poller::new()?;
    poller.add(inlet, 0)?;
    let mut batch = ReceiveBatch::new(MAX_BATCH);
    let mut received = 0_u64;
    let mut times: Option<[Instant; 2]> = None;
    let mut sent_all_since: Option<Instant> = None;
    loop {
        let quiet = poller.wait(Some(QUIET))?.count() == 0;
        while inlet.receive(&mut batch)? > 0 {
            let now = Instant::now();
            let ours = batch.trains().filter(|train| train.bytes.starts_with(head));
            let ours = ours.count() as u64;
            if ours > 0 {
                received += ours;
                let [_, last] = times.get_or_insert([now; 2]);
                *last = now;
            }
        }
        if sent_all.load(Relaxed) {
            let since = *sent_all_since.get_or_insert_with(Instant::now);
            if quiet || since.elapsed() > STRAGGLERS || interrupt::pending() {
                let seconds = times.map_or(0.0, |[first, last]| (last - first).as_secs_f64());
                return Ok((received, seconds));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::connect;

    #[test]
    fn packets_are_counted_where_they_arrive() {
        let (a, b) = (Host::new("a").unwrap(), Host::new("b").unwrap());
        connect((&a, "eth0"), (&b, "eth0")).unwrap();
        a.address("eth0", &["10.0.0.1/24"]).unwrap();
        b.address("eth0", &["10.0.0.2/24"]).unwrap();
        let target = "10.0.0.2".parse().unwrap();
        assert!(a.reaches(target, Duration::from_secs(5)).unwrap());
        for (payload, rate) in [(64, Some(5_000)), (1_392, Some(5_000)), (64, None)] {
            let load = Load {
                payload,
                rate,
                duration: Duration::from_millis(200),
            };
            let delivery = send(&a, &b, target, load).unwrap();
            assert_eq!(delivery.delivered_packets(), delivery.sent, "{delivery:?}");
            assert!(delivery.offered() > 0.0 && delivery.delivered() > 0.0);
            let most = rate.map_or(u64::MAX, |rate| u64::from(rate) / 5);
            assert!((1..=most).contains(&delivery.sent), "{delivery:?}");
        }
    }

    #[test]
    fn what_does_not_arrive_is_lost_and_what_finds_the_socket_full_is_not() {
        let delivery = Delivery {
            sent: 1_000,
            send_seconds: 0.5,
            received: 890,
            receive_seconds: 0.25,
            overflowed: 10,
        };
        assert!((delivery.loss() - 0.1).abs() < 1e-9);
        assert!((delivery.offered() - 2_000.0).abs() < 1e-9);
        assert!((delivery.delivered() - 3_600.0).abs() < 1e-9);
        assert!(Delivery::default().loss().abs() < 1e-9);
    }

    #[test]
    fn bursts_are_of_about_32_packets_within_bounds() {
        let micros = [1_000, 30_000, 64_000, 1_000_000].map(|rate| pace(rate).as_micros());
        assert_eq!(micros, [1_000, 1_000, 500, 100]);
    }
}
