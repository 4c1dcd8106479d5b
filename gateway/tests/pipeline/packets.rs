//! Packets built the slow and simple way, field by field and byte by byte, to hold the fast way against.

use gateway::device::offload::{Gso, GsoKind, Offload, PartialChecksum};
use proptest::prelude::*;
use routing::packet::Headers;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const ECE: u8 = 0x40;
pub(crate) const CWR: u8 = 0x80;

/// A TCP or UDP packet as its fields.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spec {
    pub(crate) v6: bool,
    pub(crate) protocol: u8,
    pub(crate) source: u8,
    pub(crate) source_port: u16,
    pub(crate) traffic_class: u8,
    pub(crate) flow_label: u32,
    pub(crate) hop_limit: u8,
    pub(crate) dont_fragment: bool,
    pub(crate) id: u16,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) urgent: u16,
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Spec {
    /// A TCP data segment over IPv4.
    pub(crate) fn tcp(payload: usize) -> Self {
        Self {
            v6: false,
            protocol: TCP,
            source: 1,
            source_port: 40_000,
            traffic_class: 0,
            flow_label: 0x12345,
            hop_limit: 64,
            dont_fragment: true,
            id: 7,
            sequence: 0xffff_f000,
            acknowledgement: 99,
            flags: ACK,
            window: 501,
            urgent: 0,
            options: vec![1, 1, 8, 10, 0, 1, 2, 3, 4, 5, 6, 7],
            payload: noise(payload),
        }
    }

    /// A UDP datagram over IPv4.
    pub(crate) fn udp(payload: usize) -> Self {
        Self {
            protocol: UDP,
            ..Self::tcp(payload)
        }
    }

    fn addresses(&self) -> Vec<u8> {
        let address = |last: u8| {
            let v6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
            if self.v6 {
                v6.to_vec()
            } else {
                vec![10, 1, 2, last]
            }
        };
        [address(self.source), address(200)].concat()
    }

    fn transport_header(&self, payload: usize) -> Vec<u8> {
        let mut header = [self.source_port.to_be_bytes(), 443u16.to_be_bytes()].concat();
        if self.protocol == UDP {
            header.extend(((8 + payload) as u16).to_be_bytes());
            header.extend([0, 0]);
            return header;
        }
        assert_eq!(self.options.len() % 4, 0);
        header.extend(self.sequence.to_be_bytes());
        header.extend(self.acknowledgement.to_be_bytes());
        header.push((((20 + self.options.len()) / 4) << 4) as u8);
        header.push(self.flags);
        header.extend(self.window.to_be_bytes());
        header.extend([0; 2]);
        header.extend(self.urgent.to_be_bytes());
        header.extend(&self.options);
        header
    }

    fn checksum_at(&self) -> usize {
        if self.protocol == TCP { 16 } else { 6 }
    }

    pub(crate) fn ip_header_len(&self) -> usize {
        if self.v6 { 40 } else { 20 }
    }

    pub(crate) fn header_len(&self) -> usize {
        self.ip_header_len() + self.transport_header(0).len()
    }

    fn ip_header(&self, rest: usize) -> Vec<u8> {
        let mut header = Vec::new();
        if self.v6 {
            let first = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label;
            header.extend(first.to_be_bytes());
            header.extend((rest as u16).to_be_bytes());
            header.extend([self.protocol, self.hop_limit]);
            header.extend(self.addresses());
            return header;
        }
        header.extend([0x45, self.traffic_class]);
        header.extend(((20 + rest) as u16).to_be_bytes());
        header.extend(self.id.to_be_bytes());
        header.extend([
            if self.dont_fragment { 0x40 } else { 0 },
            0,
            self.hop_limit,
            self.protocol,
        ]);
        header.extend([0, 0]);
        header.extend(self.addresses());
        let sum = !fold(slow_sum(&header));
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    fn pseudo_header(&self, len: usize) -> u64 {
        slow_sum(&self.addresses()) + u64::from(self.protocol) + len as u64
    }

    fn assemble(&self, checksum: impl Fn(u64, &[u8]) -> u16) -> Vec<u8> {
        let mut transport = self.transport_header(self.payload.len());
        transport.extend(&self.payload);
        let field = checksum(self.pseudo_header(transport.len()), &transport);
        let at = self.checksum_at();
        transport[at..at + 2].copy_from_slice(&field.to_be_bytes());
        let mut packet = self.ip_header(transport.len());
        packet.extend(transport);
        packet
    }

    /// The packet with all its checksums.
    pub(crate) fn build(&self) -> Vec<u8> {
        self.assemble(
            |pseudo_header, transport| match !fold(pseudo_header + slow_sum(transport)) {
                0 if self.protocol == UDP => 0xffff,
                sum => sum,
            },
        )
    }

    /// The packet with a partial transport checksum, as one packet (`size` 0) or to be cut.
    pub(crate) fn build_partial(&self, size: u16) -> (Vec<u8>, Offload) {
        let packet = self.assemble(|pseudo_header, _| fold(pseudo_header));
        let kind = match (self.protocol, self.v6) {
            (UDP, _) => GsoKind::Udp,
            (_, true) => GsoKind::Tcp6,
            (_, false) => GsoKind::Tcp4,
        };
        let offload = Offload {
            checksum: Some(PartialChecksum {
                start: self.ip_header_len() as u16,
                offset: self.checksum_at() as u16,
            }),
            gso: (size > 0).then_some(Gso {
                kind,
                size,
                ecn: false,
            }),
            checksum_valid: false,
        };
        (packet, offload)
    }

    /// What the wire carries of it: each segment built by itself.
    pub(crate) fn segments(&self, size: usize) -> Vec<Vec<u8>> {
        let count = self.payload.len().div_ceil(size).max(1);
        (0..count)
            .map(|index| {
                let mut segment = self.clone();
                let from = index * size;
                let to = self.payload.len().min(from + size);
                segment.payload = self.payload[from..to].to_vec();
                segment.id = self.id.wrapping_add(index as u16);
                segment.sequence = self.sequence.wrapping_add(from as u32);
                if index > 0 {
                    segment.flags &= !CWR;
                }
                if index + 1 < count {
                    segment.flags &= !(FIN | PSH);
                }
                segment.build()
            })
            .collect()
    }
}

/// Any packet without payload, flags drawn from `flags`.
pub(crate) fn any_header(flags: u8) -> impl Strategy<Value = Spec> {
    let ip = (
        any::<bool>(),
        any::<u8>(),
        0..1u32 << 20,
        1..=255u8,
        any::<bool>(),
        any::<u16>(),
    );
    let tcp = (
        any::<u32>(),
        any::<u32>(),
        any::<u8>(),
        any::<u16>(),
        0..=10usize,
    );
    (any::<bool>(), ip, tcp).prop_map(move |(tcp_not_udp, ip, tcp)| Spec {
        v6: ip.0,
        protocol: if tcp_not_udp { TCP } else { UDP },
        traffic_class: ip.1,
        flow_label: ip.2,
        hop_limit: ip.3,
        dont_fragment: ip.4,
        id: ip.5,
        sequence: tcp.0,
        acknowledgement: tcp.1,
        flags: ACK | tcp.2 & flags,
        window: tcp.3,
        options: vec![1; tcp.4 * 4],
        ..Spec::tcp(0)
    })
}

/// `len` bytes that look like nothing in particular.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 15) as u8)
        .collect()
}

/// The headers of a packet that is known to be well formed.
pub(crate) fn parse(packet: &[u8]) -> Headers {
    Headers::parse(packet).expect("a well-formed packet")
}

/// The sum of RFC 1071, 4.1, word by word.
pub(crate) fn slow_sum(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)))
        .sum()
}

pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}
