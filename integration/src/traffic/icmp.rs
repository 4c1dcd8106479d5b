//! Ping and traceroute over raw ICMP sockets (RFC 792, RFC 4443).

use crate::error::Error;
use crate::host::Host;
use crate::interrupt::{self, SLICE};
use gateway::device::event::Poller;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, ipproto, recvfrom,
    sendto, socket_with, sockopt,
};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// What came of a series of echo requests.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Echoes {
    /// Requests sent.
    pub sent: u32,
    /// Answered in time.
    pub received: u32,
    /// Round trips of the answered ones, microseconds, in order.
    pub round_trips_us: Vec<f64>,
}

impl Echoes {
    /// The median round trip, microseconds.
    pub fn median_us(&self) -> Option<f64> {
        self.quantile_us(0.5)
    }

    /// The round trip that this share of them does not exceed, microseconds.
    pub fn quantile_us(&self, share: f64) -> Option<f64> {
        let mut sorted = self.round_trips_us.clone();
        sorted.sort_by(f64::total_cmp);
        let at = (sorted.len() as f64 * share) as usize;
        sorted.get(at.min(sorted.len().saturating_sub(1))).copied()
    }
}

/// One hop of a route.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Hop {
    /// TTL or hop limit it was asked with.
    pub ttl: u8,
    /// Who answered; `None`: nobody in time.
    pub address: Option<IpAddr>,
    /// Round trip, microseconds.
    pub round_trip_us: Option<f64>,
    /// Whether it is the target itself.
    pub target: bool,
}

impl Host {
    /// Sends `count` echo requests of `payload` bytes to `target`, each once the one before has been
    /// answered or `patience` has passed.
    ///
    /// # Errors
    /// [`Error::System`], with both ends, where there is no raw socket (EPERM without CAP_NET_RAW), `sendto`
    /// finds no way to the target, or the user wants to stop. That nobody answers is no error.
    pub fn ping(
        &self,
        target: IpAddr,
        count: u32,
        payload: usize,
        patience: Duration,
    ) -> Result<Echoes, Error> {
        let count = 0..count;
        self.run(|| ping(target, count, payload, Duration::ZERO, patience))?
            .map_err(Error::system(format!("ping {target} from {}", self.name())))
    }

    /// Sends echo requests of 56 bytes to `target` for `duration`, one each `pace`, or later if the one
    /// before has not been answered until then; after a second it counts as lost.
    ///
    /// # Errors
    /// As of [`Self::ping`].
    pub fn ping_for(
        &self,
        target: IpAddr,
        duration: Duration,
        pace: Duration,
    ) -> Result<Echoes, Error> {
        let end = Instant::now() + duration;
        let count = (0..).take_while(|_| Instant::now() < end);
        self.run(|| ping(target, count, 56, pace, Duration::from_secs(1)))?
            .map_err(Error::system(format!("ping {target} from {}", self.name())))
    }

    /// Pings `target` until it answers or `patience` has passed; whether it has.
    ///
    /// # Errors
    /// As of [`Self::ping`].
    pub fn reaches(&self, target: IpAddr, patience: Duration) -> Result<bool, Error> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if self
                .ping(target, 1, 8, Duration::from_millis(100))?
                .received
                > 0
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The way to `target`: UDP packets with rising TTL, and who says that it ran out.
    ///
    /// # Errors
    /// [`Error::System`], with both ends, where there is no raw socket, no UDP socket that takes a TTL,
    /// `sendto` finds no way to the target, or the user wants to stop. A hop that does not answer is no error.
    pub fn trace(&self, target: IpAddr, patience: Duration) -> Result<Vec<Hop>, Error> {
        self.run(|| trace(target, patience))?
            .map_err(Error::system(format!(
                "trace the route to {target} from {}",
                self.name()
            )))
    }
}

/// The highest TTL that traceroute tries; no way in the lab has as many hops.
const MAX_HOPS: u8 = 16;
/// How often a hop is asked before it counts as silent.
const ATTEMPTS: u32 = 3;
/// Traceroute's traditional first port.
const FIRST_PORT: u16 = 33_434;

fn ping(
    target: IpAddr,
    count: impl Iterator<Item = u32>,
    payload: usize,
    pace: Duration,
    patience: Duration,
) -> io::Result<Echoes> {
    static IDENTIFIER: AtomicU16 = AtomicU16::new(1);
    let identifier = IDENTIFIER.fetch_add(1, Ordering::Relaxed);
    let mut icmp = Icmp::open(target)?;
    let mut echoes = Echoes::default();
    for sequence in count {
        let sent = Instant::now();
        icmp.send_echo(target, identifier, sequence as u16, payload)?;
        echoes.sent += 1;
        let answered = icmp.wait(sent + patience, |source, message| {
            let expected = [identifier.to_be_bytes(), (sequence as u16).to_be_bytes()].concat();
            let reply = if target.is_ipv4() { 0 } else { 129 };
            (source == target
                && message.first() == Some(&reply)
                && message.get(4..8) == Some(&expected[..]))
            .then_some(())
        })?;
        if let Some((at, ())) = answered {
            echoes.received += 1;
            echoes
                .round_trips_us
                .push(at.duration_since(sent).as_secs_f64() * 1e6);
        }
        let left = (sent + pace).saturating_duration_since(Instant::now());
        if !left.is_zero() {
            std::thread::sleep(left);
        }
        interrupt::check_io()?;
    }
    Ok(echoes)
}

fn trace(target: IpAddr, patience: Duration) -> io::Result<Vec<Hop>> {
    let mut icmp = Icmp::open(target)?;
    let any: SocketAddr = match target {
        IpAddr::V4(_) => ([0; 4], 0).into(),
        IpAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let mut hops = Vec::new();
    for ttl in 1..=MAX_HOPS {
        let mut hop = Hop {
            ttl,
            address: None,
            round_trip_us: None,
            target: false,
        };
        for attempt in 0..ATTEMPTS {
            let port = FIRST_PORT + u16::from(ttl) * ATTEMPTS as u16 + attempt as u16;
            let socket = UdpSocket::bind(any)?;
            match target {
                IpAddr::V4(_) => sockopt::set_ip_ttl(&socket, u32::from(ttl))?,
                IpAddr::V6(_) => sockopt::set_ipv6_unicast_hops(&socket, Some(ttl))?,
            }
            let sent = Instant::now();
            socket.send_to(&[0; 32], (target, port))?;
            let answer = icmp.wait(sent + patience, |source, message| {
                let (is_target, asked) = quoted_udp(target, message)?;
                (asked == port).then_some((source, is_target))
            })?;
            if let Some((at, (source, is_target))) = answer {
                hop.address = Some(source);
                hop.round_trip_us = Some(at.duration_since(sent).as_secs_f64() * 1e6);
                hop.target = is_target;
                break;
            }
        }
        let done = hop.target;
        hops.push(hop);
        if done {
            break;
        }
    }
    Ok(hops)
}

/// What an ICMP error says of a UDP packet to `target`: whether the target itself speaks (port
/// unreachable, rather than time exceeded), and the packet's destination port. `None` for anything else.
fn quoted_udp(target: IpAddr, message: &[u8]) -> Option<(bool, u16)> {
    let (kind, code) = (*message.first()?, *message.get(1)?);
    let quote = message.get(8..)?;
    let (is_target, destination, transport): (_, IpAddr, _) = if target.is_ipv4() {
        let is_target = match (kind, code) {
            (11, 0) => false,
            (3, 3) => true,
            _ => return None,
        };
        let length = usize::from(quote.first()? & 0x0f) * 4;
        let destination: [u8; 4] = *quote.get(16..)?.first_chunk()?;
        (is_target, destination.into(), quote.get(length..)?)
    } else {
        let is_target = match (kind, code) {
            (3, 0) => false,
            (1, 4) => true,
            _ => return None,
        };
        let destination: [u8; 16] = *quote.get(24..)?.first_chunk()?;
        (is_target, destination.into(), quote.get(40..)?)
    };
    let port = u16::from_be_bytes(*transport.get(2..)?.first_chunk()?);
    (destination == target).then_some((is_target, port))
}

/// A raw ICMP or ICMPv6 socket.
struct Icmp {
    socket: OwnedFd,
    poller: Poller,
    buffer: Vec<u8>,
    v4: bool,
}

impl Icmp {
    fn open(target: IpAddr) -> io::Result<Self> {
        let (family, protocol) = match target {
            IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
            IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::RAW, flags, Some(protocol))?;
        let poller = Poller::new()?;
        poller.add(&socket, 0)?;
        Ok(Self {
            socket,
            poller,
            buffer: vec![0; 65_536],
            v4: target.is_ipv4(),
        })
    }

    fn send_echo(
        &self,
        to: IpAddr,
        identifier: u16,
        sequence: u16,
        payload: usize,
    ) -> io::Result<()> {
        let mut message = vec![if self.v4 { 8 } else { 128 }, 0, 0, 0];
        message.extend_from_slice(&identifier.to_be_bytes());
        message.extend_from_slice(&sequence.to_be_bytes());
        message.extend((0..payload).map(|i| i as u8));
        if self.v4 {
            // The kernel fills in ICMPv6's checksum, which covers a pseudo-header, but not this one.
            let sum = checksum(&message).to_be_bytes();
            message.splice(2..4, sum);
        }
        sendto(
            &self.socket,
            &message,
            SendFlags::empty(),
            &SocketAddr::new(to, 0),
        )?;
        Ok(())
    }

    /// Reads messages until `wanted` takes one or the deadline has passed. Messages begin with the ICMP type.
    fn wait<T>(
        &mut self,
        deadline: Instant,
        wanted: impl Fn(IpAddr, &[u8]) -> Option<T>,
    ) -> io::Result<Option<(Instant, T)>> {
        loop {
            match recvfrom(&self.socket, &mut self.buffer, RecvFlags::empty()) {
                Ok((length, _, source)) => {
                    let at = Instant::now();
                    let packet = self.buffer.get(..length).unwrap_or_default();
                    let Some(source) = source.and_then(ip) else {
                        continue;
                    };
                    // A raw IPv4 socket gives the IP header too (raw(7)); an IPv6 one does not.
                    let header = match packet.first() {
                        Some(first) if self.v4 => usize::from(first & 0x0f) * 4,
                        _ => 0,
                    };
                    let message = packet.get(header..).unwrap_or_default();
                    if let Some(found) = wanted(source, message) {
                        return Ok(Some((at, found)));
                    }
                }
                Err(rustix::io::Errno::AGAIN) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    interrupt::check_io()?;
                    self.poller.wait(Some(left.min(SLICE)))?.for_each(drop);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn ip(address: SocketAddrAny) -> Option<IpAddr> {
    Some(SocketAddr::try_from(address).ok()?.ip())
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        let word = [
            pair.first().copied().unwrap_or(0),
            pair.get(1).copied().unwrap_or(0),
        ];
        sum += u32::from(u16::from_be_bytes(word));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::connect;

    #[test]
    fn ping_and_trace_cross_a_router() {
        let hosts = ["a", "router", "b"].map(|name| Host::new(name).unwrap());
        let [a, router, b] = &hosts;
        router.forward().unwrap();
        connect((a, "eth0"), (router, "left")).unwrap();
        connect((b, "eth0"), (router, "right")).unwrap();
        router
            .address("left", &["10.0.1.1/24", "fd00:1::1/64"])
            .unwrap();
        router
            .address("right", &["10.0.2.1/24", "fd00:2::1/64"])
            .unwrap();
        a.address("eth0", &["10.0.1.2/24", "fd00:1::2/64"]).unwrap();
        b.address("eth0", &["10.0.2.2/24", "fd00:2::2/64"]).unwrap();
        for (host, v4, v6) in [(a, "10.0.1.1", "fd00:1::1"), (b, "10.0.2.1", "fd00:2::1")] {
            host.route("0.0.0.0/0", v4).unwrap();
            host.route("::/0", v6).unwrap();
        }
        let patience = Duration::from_secs(5);
        for (target, hop) in [("10.0.2.2", "10.0.1.1"), ("fd00:2::2", "fd00:1::1")] {
            let target: IpAddr = target.parse().unwrap();
            assert!(a.reaches(target, patience).unwrap());
            let echoes = a.ping(target, 3, 1400, patience).unwrap();
            assert_eq!((echoes.sent, echoes.received), (3, 3));
            let hops: Vec<_> = a
                .trace(target, patience)
                .unwrap()
                .iter()
                .map(|h| h.address)
                .collect();
            assert_eq!(hops, [hop.parse().ok(), Some(target)]);
        }
        let nobody = a
            .ping("10.0.2.9".parse().unwrap(), 1, 8, Duration::from_millis(1))
            .unwrap();
        assert_eq!((nobody.sent, nobody.received), (1, 0));
        let (while_, pace) = (Duration::from_millis(50), Duration::from_millis(5));
        let paced = a
            .ping_for("10.0.2.2".parse().unwrap(), while_, pace)
            .unwrap();
        assert!((1..=11).contains(&paced.sent), "{paced:?}");
        assert_eq!(paced.received, paced.sent);
    }

    #[test]
    fn quantiles_are_of_the_sorted_round_trips() {
        let echoes = Echoes {
            round_trips_us: (1..=100).rev().map(f64::from).collect(),
            ..Echoes::default()
        };
        let found = [0.0, 0.5, 0.99, 1.0].map(|share| echoes.quantile_us(share));
        assert_eq!(found, [1.0, 51.0, 100.0, 100.0].map(Some));
        assert_eq!(Echoes::default().quantile_us(0.5), None);
    }

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        assert_eq!(
            checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2
        );
        assert_eq!(checksum(&[0xff]), 0x00ff);
    }
}
