//! ICMP echo of both IP versions, written and read: what probes are made of (RFC 792; RFC 4443, 4.1).

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv4Packet, Ipv4Repr,
    Ipv6Packet, Ipv6Repr,
};
use std::net::IpAddr;

/// Hop limit of a request.
const HOP_LIMIT: u8 = 64;

/// An echo message without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Who sends it.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// Tells the askers of a host apart.
    pub identifier: u16,
    /// Tells the requests of an asker apart.
    pub sequence: u16,
}

/// The IP packet of a request, checksums complete. `None` if the two addresses are not of one version.
pub fn request(echo: &Echo, payload: &[u8]) -> Option<Box<[u8]>> {
    let checksums = ChecksumCapabilities::default();
    match (echo.source, echo.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let icmp = Icmpv4Repr::EchoRequest {
                ident: echo.identifier,
                seq_no: echo.sequence,
                data: payload,
            };
            let header = Ipv4Repr {
                src_addr: from,
                dst_addr: to,
                next_header: IpProtocol::Icmp,
                payload_len: icmp.buffer_len(),
                hop_limit: HOP_LIMIT,
            };
            let mut bytes = vec![0; header.buffer_len() + icmp.buffer_len()];
            let mut packet = Ipv4Packet::new_unchecked(&mut bytes[..]);
            header.emit(&mut packet, &checksums);
            let mut message = Icmpv4Packet::new_unchecked(packet.payload_mut());
            icmp.emit(&mut message, &checksums);
            Some(bytes.into())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let icmp = Icmpv6Repr::EchoRequest {
                ident: echo.identifier,
                seq_no: echo.sequence,
                data: payload,
            };
            let header = Ipv6Repr {
                src_addr: from,
                dst_addr: to,
                next_header: IpProtocol::Icmpv6,
                payload_len: icmp.buffer_len(),
                hop_limit: HOP_LIMIT,
            };
            let mut bytes = vec![0; header.buffer_len() + icmp.buffer_len()];
            let mut packet = Ipv6Packet::new_unchecked(&mut bytes[..]);
            header.emit(&mut packet);
            let mut message = Icmpv6Packet::new_unchecked(packet.payload_mut());
            icmp.emit(&from, &to, &mut message, &checksums);
            Some(bytes.into())
        }
        _ => None,
    }
}

/// Reads `packet` as an echo reply: whose, and its payload. `None` for anything else, and for a reply
/// whose lengths or checksums do not hold.
pub fn reply(packet: &[u8]) -> Option<(Echo, &[u8])> {
    let checksums = ChecksumCapabilities::default();
    match packet.first()? >> 4 {
        4 => {
            let ip = Ipv4Packet::new_checked(packet).ok()?;
            let header = Ipv4Repr::parse(&ip, &checksums).ok()?;
            let whole = !ip.more_frags() && ip.frag_offset() == 0;
            if header.next_header != IpProtocol::Icmp || !whole {
                return None;
            }
            let icmp = Icmpv4Packet::new_checked(ip.payload()).ok()?;
            match Icmpv4Repr::parse(&icmp, &checksums).ok()? {
                Icmpv4Repr::EchoReply {
                    ident,
                    seq_no,
                    data,
                } => Some((
                    Echo {
                        source: header.src_addr.into(),
                        destination: header.dst_addr.into(),
                        identifier: ident,
                        sequence: seq_no,
                    },
                    data,
                )),
                _ => None,
            }
        }
        6 => {
            let ip = Ipv6Packet::new_checked(packet).ok()?;
            let header = Ipv6Repr::parse(&ip).ok()?;
            if header.next_header != IpProtocol::Icmpv6 {
                return None;
            }
            let (from, to) = (header.src_addr, header.dst_addr);
            let icmp = Icmpv6Packet::new_checked(ip.payload()).ok()?;
            match Icmpv6Repr::parse(&from, &to, &icmp, &checksums).ok()? {
                Icmpv6Repr::EchoReply {
                    ident,
                    seq_no,
                    data,
                } => Some((
                    Echo {
                        source: from.into(),
                        destination: to.into(),
                        identifier: ident,
                        sequence: seq_no,
                    },
                    data,
                )),
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::host::Host;
    use proptest::prelude::*;
    use routing::packet::Headers;
    use std::time::Instant;

    fn echo(v6: bool) -> Echo {
        let parse = |a: &str| a.parse().unwrap();
        let (source, destination) = if v6 {
            (parse("fd00:1::4"), parse("fd00:2::1"))
        } else {
            (parse("10.1.255.4"), parse("10.2.0.1"))
        };
        Echo {
            source,
            destination,
            identifier: 0xabcd,
            sequence: 0x1234,
        }
    }

    #[test]
    fn a_request_is_a_packet_that_a_host_answers() {
        for v6 in [false, true] {
            let asked = echo(v6);
            let request = request(&asked, b"payload").unwrap();
            let headers = Headers::parse(&request).unwrap();
            assert_eq!(headers.key.source_address(), asked.source);
            let now = Instant::now();
            let mut host = Host::new(now, [asked.destination]);
            let answer = host.handle(now, &request).unwrap().unwrap();
            let (echo, payload) = reply(&answer).unwrap();
            assert_eq!((echo.identifier, echo.sequence), (0xabcd, 0x1234));
            assert_eq!(payload, b"payload");
            assert_eq!(reply(&request), None, "a request is no reply");
            for at in 0..answer.len() {
                let mut bad = answer.clone();
                bad[at] ^= 0x11;
                let still = reply(&bad).map(|(e, p)| (e, p.to_vec()));
                // What no checksum covers: IPv6's flow label, traffic class and hop limit.
                assert!(still.is_none() || v6 && at < 8, "byte {at}");
            }
        }
    }

    #[test]
    fn addresses_of_two_versions_have_no_packet() {
        let mixed = Echo {
            destination: echo(true).destination,
            ..echo(false)
        };
        assert_eq!(request(&mixed, b""), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = reply(&bytes);
        }
    }
}
