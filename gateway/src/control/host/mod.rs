//! The gateway as a host: it answers ping, and tells who knocks at a closed port so. A smoltcp interface
//! does the talking, one packet in and at most one out, without a socket of its own yet.
//!
//! 1. [`Host::handle`]: is it whole, and for one of the gateway's addresses?
//! 2. the rate limits: echo, and everything else (a closed port's answer, RFC 1812 4.3.2.8, RFC 4443 2.4)
//! 3. smoltcp makes the reply, from the address that was asked
//!
//! smoltcp holds 8 addresses at most, and a gateway with four circuits has more; so it runs with "any
//! IP" and the set of own addresses is kept here.

pub mod echo;

use crate::pipeline::rate::RateLimit;
use routing::packet::{Fragment, Headers, protocol};
use routing::reason::DropReason;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::wire::HardwareAddress;
use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Instant;

/// Protocol numbers of ICMP and ICMPv6.
const ICMP: [u8; 2] = [protocol::ICMP, protocol::ICMPV6];

/// Echo requests answered a second, and at once; one asker gets an eighth of either. Enough for
/// `ping -f`, a small part of a core.
const ECHO: (u32, u32) = (80_000, 8_000);

/// Answers of closed ports a second, and at once, shared out likewise: a traceroute asks 48 ports or so.
const CLOSED: (u32, u32) = (8_000, 512);

/// The gateway's own host.
pub struct Host {
    interface: Interface,
    sockets: SocketSet<'static>,
    wire: Wire,
    own: HashSet<IpAddr>,
    started: Instant,
    echo: RateLimit,
    closed: RateLimit,
}

impl Host {
    /// A host with these addresses.
    pub fn new(now: Instant, own: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut wire = Wire::default();
        let config = Config::new(HardwareAddress::Ip);
        let zero = smoltcp::time::Instant::ZERO;
        let mut interface = Interface::new(config, &mut wire, zero);
        interface.set_any_ip(true);
        Self {
            interface,
            sockets: SocketSet::new(Vec::new()),
            wire,
            own: own.into_iter().collect(),
            started: now,
            echo: RateLimit::new(ECHO.0, ECHO.1),
            closed: RateLimit::new(CLOSED.0, CLOSED.1),
        }
    }

    /// Gives it other addresses (reload).
    pub fn set_addresses(&mut self, own: impl IntoIterator<Item = IpAddr>) {
        self.own = own.into_iter().collect();
    }

    /// Whether `address` is the gateway's own.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }

    /// Takes one IP packet and gives the reply, if it calls for one. No reply and no error: it was
    /// taken, and there is nothing to say, or too much was said already.
    ///
    /// # Errors
    /// Why it cannot be taken: it cannot be read, is a fragment, or is for somebody else.
    pub fn handle(&mut self, now: Instant, packet: &[u8]) -> Result<Option<Vec<u8>>, DropReason> {
        let headers = Headers::parse(packet)?;
        if !self.own.contains(&headers.key.destination_address()) {
            return Err(DropReason::LocalUnreachable);
        }
        if headers.fragment != Fragment::Whole {
            return Err(DropReason::Fragment);
        }
        let limit = if ICMP.contains(&headers.key.protocol) {
            &mut self.echo
        } else {
            &mut self.closed
        };
        if !limit.allow(now, &headers.key) {
            return Ok(None);
        }
        let length = packet.len().min(headers.total_len as usize);
        let whole = packet.get(..length).ok_or(DropReason::Malformed)?;
        self.wire.incoming = Some(whole.to_vec());
        self.wire.outgoing = None;
        let elapsed = now.saturating_duration_since(self.started).as_micros();
        let time = smoltcp::time::Instant::from_micros(i64::try_from(elapsed).unwrap_or(i64::MAX));
        self.interface.poll(time, &mut self.wire, &mut self.sockets);
        self.wire.incoming = None;
        Ok(self.wire.outgoing.take())
    }
}

/// What smoltcp takes for its network device: room for one packet each way.
#[derive(Default)]
struct Wire {
    incoming: Option<Vec<u8>>,
    outgoing: Option<Vec<u8>>,
}

struct Incoming(Vec<u8>);

struct Outgoing<'a>(&'a mut Option<Vec<u8>>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let result = write(&mut packet);
        *self.0 = Some(packet);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.incoming.take()?;
        Some((Incoming(packet), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        // A reply is never longer than what it answers, and that has come through the path's MTU.
        capabilities.max_transmission_unit = 65_535;
        capabilities
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::host::echo::{self, Echo};
    use proptest::prelude::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{
        Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Icmpv6DstUnreachable, Icmpv6Packet,
        Icmpv6Repr, IpAddress, IpProtocol, IpRepr, Ipv4Packet, Ipv6Packet, TcpControl, TcpPacket,
        TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
    };
    use std::time::Duration;

    const PEER: [&str; 2] = ["10.2.0.9", "fd00:2::9"];
    const OWN: [&str; 4] = ["10.1.255.4", "fd00:1::4", "172.16.0.2", "fd00:16::2"];

    fn host() -> (Host, Instant) {
        let now = Instant::now();
        (Host::new(now, OWN.map(|a| a.parse().unwrap())), now)
    }

    fn pairs() -> impl Iterator<Item = (IpAddr, IpAddr)> {
        OWN.into_iter().map(|own| {
            let own: IpAddr = own.parse().unwrap();
            (PEER[usize::from(own.is_ipv6())].parse().unwrap(), own)
        })
    }

    /// An IP packet with a transport of this length, written by `emit`.
    fn packet(
        from: IpAddr,
        to: IpAddr,
        protocol: IpProtocol,
        length: usize,
        emit: impl FnOnce(&mut [u8], &IpAddress, &IpAddress),
    ) -> Vec<u8> {
        let (from, to) = (IpAddress::from(from), IpAddress::from(to));
        let header = IpRepr::new(from, to, protocol, length, 64);
        let mut bytes = vec![0; header.buffer_len()];
        header.emit(&mut bytes[..], &ChecksumCapabilities::default());
        let at = header.header_len();
        emit(&mut bytes[at..], &from, &to);
        bytes
    }

    fn udp(from: IpAddr, to: IpAddr) -> Vec<u8> {
        let repr = UdpRepr {
            src_port: 40_000,
            dst_port: 33_434,
        };
        let length = repr.header_len() + 12;
        packet(from, to, IpProtocol::Udp, length, |bytes, from, to| {
            repr.emit(
                &mut UdpPacket::new_unchecked(bytes),
                from,
                to,
                12,
                |payload| payload.fill(7),
                &ChecksumCapabilities::default(),
            );
        })
    }

    fn tcp_syn(from: IpAddr, to: IpAddr) -> Vec<u8> {
        let repr = TcpRepr {
            src_port: 40_000,
            dst_port: 179,
            control: TcpControl::Syn,
            seq_number: TcpSeqNumber(1000),
            ack_number: None,
            window_len: 64_000,
            window_scale: None,
            max_seg_size: Some(1400),
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        let length = repr.buffer_len();
        packet(from, to, IpProtocol::Tcp, length, |bytes, from, to| {
            let mut tcp = TcpPacket::new_unchecked(bytes);
            repr.emit(&mut tcp, from, to, &ChecksumCapabilities::default());
        })
    }

    #[test]
    fn ping_is_answered_from_the_address_that_was_asked() {
        let (mut host, now) = host();
        for (peer, own) in pairs() {
            let asked = Echo {
                source: peer,
                destination: own,
                identifier: 77,
                sequence: 5,
            };
            let request = echo::request(&asked, b"hello").unwrap();
            let reply = host.handle(now, &request).unwrap().unwrap();
            let (answer, payload) = echo::reply(&reply).unwrap();
            assert_eq!(
                answer,
                Echo {
                    source: own,
                    destination: peer,
                    ..asked
                }
            );
            assert_eq!(payload, b"hello");
        }
    }

    #[test]
    fn a_closed_udp_port_is_unreachable() {
        let (mut host, now) = host();
        for (peer, own) in pairs() {
            let reply = host.handle(now, &udp(peer, own)).unwrap().unwrap();
            let headers = Headers::parse(&reply).unwrap();
            assert_eq!(headers.key.source_address(), own);
            assert_eq!(headers.key.destination_address(), peer);
            let at = usize::from(headers.transport);
            // Type and code: destination unreachable, port (RFC 792; RFC 4443, 3.1).
            let expected = if own.is_ipv4() { [3, 3] } else { [1, 4] };
            assert_eq!(reply[at..at + 2], expected);
            let capabilities = ChecksumCapabilities::default();
            match (peer, own) {
                (IpAddr::V4(_), IpAddr::V4(_)) => {
                    let ip = Ipv4Packet::new_checked(&reply[..]).unwrap();
                    let icmp = Icmpv4Packet::new_checked(ip.payload()).unwrap();
                    let Ok(Icmpv4Repr::DstUnreachable { reason, .. }) =
                        Icmpv4Repr::parse(&icmp, &capabilities)
                    else {
                        panic!("{reply:?}");
                    };
                    assert_eq!(reason, Icmpv4DstUnreachable::PortUnreachable);
                }
                (IpAddr::V6(peer), IpAddr::V6(own)) => {
                    let ip = Ipv6Packet::new_checked(&reply[..]).unwrap();
                    let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
                    let Ok(Icmpv6Repr::DstUnreachable { reason, .. }) =
                        Icmpv6Repr::parse(&own, &peer, &icmp, &capabilities)
                    else {
                        panic!("{reply:?}");
                    };
                    assert_eq!(reason, Icmpv6DstUnreachable::PortUnreachable);
                }
                _ => unreachable!(),
            }
        }
    }

    #[test]
    fn a_closed_tcp_port_resets() {
        let (mut host, now) = host();
        for (peer, own) in pairs() {
            let reply = host.handle(now, &tcp_syn(peer, own)).unwrap().unwrap();
            let headers = Headers::parse(&reply).unwrap();
            assert_eq!(headers.key.source_address(), own);
            assert_eq!(
                (headers.key.source_port, headers.key.destination_port),
                (179, 40_000)
            );
            // RST and ACK of the SYN (RFC 9293, 3.10.7.1).
            assert_eq!(headers.tcp_flags, 0x14);
            let at = usize::from(headers.transport);
            let (from, to) = (IpAddress::from(own), IpAddress::from(peer));
            let tcp = TcpPacket::new_checked(&reply[at..]).unwrap();
            assert!(tcp.verify_checksum(&from, &to));
            assert_eq!(tcp.ack_number(), TcpSeqNumber(1001));
        }
    }

    #[test]
    fn packets_for_others_and_fragments_are_refused() {
        let (mut host, now) = host();
        let [peer, _] = PEER.map(|a| a.parse().unwrap());
        let other = udp(peer, "10.1.0.9".parse().unwrap());
        assert_eq!(host.handle(now, &other), Err(DropReason::LocalUnreachable));
        let mut fragment = udp(peer, OWN[0].parse().unwrap());
        let mut ip = Ipv4Packet::new_unchecked(&mut fragment[..]);
        ip.set_frag_offset(8);
        ip.set_dont_frag(false);
        ip.fill_checksum();
        assert_eq!(host.handle(now, &fragment), Err(DropReason::Fragment));
        assert_eq!(host.handle(now, &[]), Err(DropReason::Malformed));
    }

    #[test]
    fn an_echo_reply_and_a_reset_call_for_no_answer() {
        let (mut host, now) = host();
        for (peer, own) in pairs() {
            let asked = Echo {
                source: own,
                destination: peer,
                identifier: 1,
                sequence: 1,
            };
            let request = echo::request(&asked, b"").unwrap();
            let mut far = Host::new(now, [peer]);
            let reply = far.handle(now, &request).unwrap().unwrap();
            assert_eq!(host.handle(now, &reply), Ok(None));
            let reset = far.handle(now, &tcp_syn(own, peer)).unwrap().unwrap();
            assert_eq!(host.handle(now, &reset), Ok(None));
        }
    }

    #[test]
    fn a_scan_is_answered_within_the_limit() {
        let (mut host, now) = host();
        let (peer, own) = pairs().next().unwrap();
        let answers = |host: &mut Host, now| {
            let packet = udp(peer, own);
            (0..1000)
                .filter(|_| host.handle(now, &packet).unwrap().is_some())
                .count()
        };
        assert_eq!(answers(&mut host, now), 64);
        assert_eq!(answers(&mut host, now + Duration::from_millis(50)), 50);
        let asked = Echo {
            source: peer,
            destination: own,
            identifier: 1,
            sequence: 1,
        };
        let ping = echo::request(&asked, b"").unwrap();
        assert!(
            host.handle(now, &ping).unwrap().is_some(),
            "ping has its own"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_packets_never_panic_and_never_make_it_speak_for_others(
            v6 in any::<bool>(),
            protocol in prop::sample::select(vec![0_u8, 1, 2, 6, 17, 43, 44, 50, 51, 58, 60, 132]),
            payload in prop::collection::vec(any::<u8>(), 0..300),
            seal in any::<bool>(),
        ) {
            let (mut host, now) = host();
            let (peer, own) = pairs().nth(usize::from(v6)).unwrap();
            let length = payload.len();
            let bytes = packet(peer, own, protocol.into(), length, |bytes, from, to| {
                bytes.copy_from_slice(&payload);
                // With its checksum made good an ICMP message reaches deeper.
                if let (true, 58, 4.., IpAddress::Ipv6(from), IpAddress::Ipv6(to)) =
                    (seal, protocol, bytes.len(), from, to)
                {
                    Icmpv6Packet::new_unchecked(&mut *bytes).fill_checksum(from, to);
                }
                if let (true, 1, 4..) = (seal, protocol, bytes.len()) {
                    Icmpv4Packet::new_unchecked(bytes).fill_checksum();
                }
            });
            if let Ok(Some(reply)) = host.handle(now, &bytes) {
                let headers = Headers::parse(&reply).unwrap();
                prop_assert_eq!(headers.key.source_address(), own);
                prop_assert_eq!(headers.key.destination_address(), peer);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let (mut host, now) = host();
            let _ = host.handle(now, &bytes);
        }
    }
}
