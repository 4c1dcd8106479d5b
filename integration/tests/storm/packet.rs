//! Packets for a storm: built as they should be, then mutated, with checksums mended so that the damage
//! gets past the first check.

use gateway::device::offload::{Gso, GsoKind, Offload, PartialChecksum};
use gateway::pipeline::checksum::Sum;
use integration::random::Random;
use std::net::IpAddr;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Whom the packets claim to be from and for; three out of four are from and for these.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parties {
    /// Sources, as IPv4 and IPv6 side by side.
    pub(crate) from: &'static [(&'static str, &'static str)],
    /// Destinations.
    pub(crate) to: &'static [(&'static str, &'static str)],
}

/// Addresses that packets are from and for otherwise: of every side, the gateway's own, and those that are
/// nobody's.
const ANY: [(&str, &str); 16] = [
    ("10.1.0.10", "fd00:1::10"),
    ("10.1.255.4", "fd00:1:0:ff::4"),
    ("10.1.255.5", "fd00:1:0:ff::5"),
    ("10.2.0.10", "fd00:2::10"),
    ("10.2.255.4", "fd00:2:0:ff::4"),
    ("10.3.0.10", "fd00:3::10"),
    ("172.16.0.1", "fd00:16::1"),
    ("172.16.0.2", "fd00:16::2"),
    ("203.0.113.4", "2001:db8:1::4"),
    ("8.8.8.8", "2001:db8:8::8"),
    ("0.0.0.0", "::"),
    ("127.0.0.1", "::1"),
    ("224.0.0.1", "ff02::1"),
    ("255.255.255.255", "ff0e::1"),
    ("240.0.0.1", "::ffff:10.1.0.10"),
    ("169.254.1.1", "fe80::1"),
];

/// The addresses of one side, ready to be laid into headers.
struct Addresses {
    v4: Vec<[u8; 4]>,
    v6: Vec<[u8; 16]>,
}

impl Addresses {
    fn new(pairs: &[(&str, &str)]) -> Self {
        let mut all = Self {
            v4: Vec::new(),
            v6: Vec::new(),
        };
        for text in pairs.iter().flat_map(|&(v4, v6)| [v4, v6]) {
            match text.parse().unwrap() {
                IpAddr::V4(address) => all.v4.push(address.octets()),
                IpAddr::V6(address) => all.v6.push(address.octets()),
            }
        }
        all
    }
}

/// Makes packets.
pub(crate) struct Generator {
    /// Where all chance comes from.
    pub(crate) random: Random,
    /// 64 KB of noise, so that a payload is a copy.
    noise: Vec<u8>,
    from: Addresses,
    to: Addresses,
    any: Addresses,
    /// The sequence number of the flow whose segments come in order.
    sequence: u32,
}

impl Generator {
    /// A generator whose packets follow from `seed`.
    pub(crate) fn new(seed: u64, parties: Parties) -> Self {
        let mut random = Random::new(seed);
        let noise = (0..8192).flat_map(|_| random.next().to_ne_bytes());
        Self {
            noise: noise.collect(),
            random,
            from: Addresses::new(parties.from),
            to: Addresses::new(parties.to),
            any: Addresses::new(&ANY),
            sequence: 0,
        }
    }

    /// Some bytes that mean nothing; at most 64 KB.
    pub(crate) fn noise(&mut self, length: usize) -> &[u8] {
        let at = self.random.below(self.noise.len() - length + 1);
        &self.noise[at..at + length]
    }

    /// Lays a packet into `out` and says what it claims to have left to do. `room`: the most bytes of a
    /// packet that is no super-packet.
    pub(crate) fn packet(&mut self, out: &mut Vec<u8>, room: usize) -> Offload {
        out.clear();
        if self.random.one_in(16) {
            let length = self.random.below(room.min(200));
            let noise = self.noise(length);
            out.extend_from_slice(noise);
            if self.random.one_in(2)
                && let Some(first) = out.first_mut()
            {
                *first = *first & 0x0f | self.random.pick(&[0x40, 0x60]);
            }
            return Offload::default();
        }
        let v4 = self.random.one_in(2);
        let big = self.random.one_in(64);
        let kinds = [TCP, TCP, UDP, UDP, if v4 { ICMP } else { ICMPV6 }];
        let protocol = if !big && self.random.one_in(32) {
            self.random.next() as u8
        } else {
            self.random.pick(&kinds)
        };
        let transport = if v4 {
            self.v4(out, protocol)
        } else {
            self.v6(out, protocol)
        };
        let headers = transport + self.transport(out, protocol);
        let payload = match (big, self.random.one_in(16)) {
            (true, _) => self.random.below(60_000),
            (false, true) => self.random.below(room.saturating_sub(headers).max(1)),
            (false, false) => self.random.below(64),
        };
        let noise = self.noise(payload);
        out.extend_from_slice(noise);
        set_lengths(out, transport, v4);
        if !self.random.one_in(4) {
            sum_transport(out, transport, protocol, v4);
        }
        if self.random.one_in(2) {
            self.mutate(out);
        }
        if !self.random.one_in(8) {
            sum_header(out);
        }
        self.offload(big, transport, protocol, v4)
    }

    /// A segment of one TCP flow; most follow the one before, so that they can be merged.
    pub(crate) fn next_segment(&mut self, out: &mut Vec<u8>, payload: usize) {
        out.clear();
        let (from, to) = (self.from.v4[0], self.to.v4[0]);
        out.extend_from_slice(&[0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, TCP, 0, 0]);
        out.extend_from_slice(&from);
        out.extend_from_slice(&to);
        out.extend_from_slice(&[0x30, 0x39, 0x14, 0x51]);
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&[0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
        let noise = self.noise(payload);
        out.extend_from_slice(noise);
        self.sequence = self.sequence.wrapping_add(payload as u32);
        set_lengths(out, 20, true);
        sum_transport(out, 20, TCP, true);
        if self.random.one_in(8) {
            self.mutate(out);
        }
        sum_header(out);
    }

    /// Damages a packet in up to three places of its headers, or in its length.
    pub(crate) fn mutate(&mut self, bytes: &mut Vec<u8>) {
        if self.random.one_in(8) {
            bytes.truncate(self.random.below(bytes.len() + 1));
        } else if self.random.one_in(16) {
            let length = 1 + self.random.below(64);
            let noise = self.noise(length);
            bytes.extend_from_slice(noise);
        }
        for _ in 0..self.random.below(4) {
            let reach = bytes.len().min(80);
            if reach > 0 {
                let at = self.random.below(reach);
                bytes[at] = match self.random.below(4) {
                    0 => bytes[at] ^ 1 << self.random.below(8),
                    1 => self.random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
                    2 => bytes[at].wrapping_add(1),
                    _ => self.random.next() as u8,
                };
            }
        }
    }

    fn v4(&mut self, out: &mut Vec<u8>, protocol: u8) -> usize {
        let random = &mut self.random;
        let options = if random.one_in(8) {
            4 * random.below(11)
        } else {
            0
        };
        let [tos, id0, id1, ..] = random.next().to_ne_bytes();
        let fragment: u16 = match random.below(8) {
            0 => random.next() as u16,
            1 => 0x2000,
            2 => 0x2000 + random.below(200) as u16,
            3 | 4 => 0,
            _ => 0x4000,
        };
        let [f0, f1] = fragment.to_be_bytes();
        let ttl = random.pick(&[64, 64, 64, 255, 2, 1, 0]);
        let first = 0x45 + (options / 4) as u8;
        out.extend_from_slice(&[first, tos, 0, 0, id0, id1, f0, f1, ttl, protocol, 0, 0]);
        for side in [&self.from, &self.to] {
            let likely = if random.one_in(4) { &self.any } else { side };
            let mut address = random.pick(&likely.v4);
            if random.one_in(8) {
                // Another host of the same network.
                address[3] = random.next() as u8;
            }
            out.extend_from_slice(&address);
        }
        for _ in 0..options {
            out.push(random.pick(&[0, 1, 1, 2, 4, 7, 68, 131, 137, 255]));
        }
        20 + options
    }

    fn v6(&mut self, out: &mut Vec<u8>, protocol: u8) -> usize {
        let random = &mut self.random;
        let extensions = if random.one_in(8) { random.below(9) } else { 0 };
        let kinds = [0, 43, 44, 44, 51, 60, 60, 59, 135];
        let mut chain: Vec<u8> = (0..extensions).map(|_| random.pick(&kinds)).collect();
        chain.push(protocol);
        let [class, label, ..] = random.next().to_ne_bytes();
        let hops = random.pick(&[64, 64, 64, 255, 2, 1, 0]);
        out.extend_from_slice(&[
            0x60 | class >> 4,
            class << 4,
            label,
            0,
            0,
            0,
            chain[0],
            hops,
        ]);
        for side in [&self.from, &self.to] {
            let likely = if random.one_in(4) { &self.any } else { side };
            let mut address = random.pick(&likely.v6);
            if random.one_in(8) {
                address[15] = random.next() as u8;
            }
            out.extend_from_slice(&address);
        }
        for next in chain.windows(2) {
            let (kind, next) = (next[0], next[1]);
            let words = if kind == 44 { 0 } else { random.below(3) };
            let mut header = [0; 24];
            (header[0], header[1]) = (next, words as u8);
            let rest: u32 = if random.one_in(2) {
                0
            } else {
                random.next() as u32
            };
            header[2..6].copy_from_slice(&rest.to_be_bytes());
            out.extend_from_slice(&header[..8 + 8 * words]);
        }
        out.len()
    }

    /// Lays a transport header and gives its length.
    fn transport(&mut self, out: &mut Vec<u8>, protocol: u8) -> usize {
        let begin = out.len();
        let random = &mut self.random;
        let ports = [
            random.pick(&[12_345, 5201, 179, 53, 0, 65_535]),
            random.next() as u16,
        ];
        match protocol {
            TCP => {
                for port in ports {
                    out.extend_from_slice(&port.to_be_bytes());
                }
                out.extend_from_slice(&random.next().to_be_bytes());
                let flags = random.pick(&[0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0xff, 0]);
                let options: &[u8] = random.pick(&[
                    &[][..],
                    &[2, 4, 0x05, 0xb4],
                    &[2, 4, 0xff, 0xff, 1, 1, 4, 2],
                    &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
                    &[2, 0, 0, 0],
                    &[3, 200, 1, 2],
                    &[1, 1, 1, 2],
                ]);
                let words = (5 + options.len() / 4) as u8;
                out.extend_from_slice(&[words << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
                out.extend_from_slice(options);
            }
            UDP => {
                for port in ports {
                    out.extend_from_slice(&port.to_be_bytes());
                }
                out.extend_from_slice(&[0; 4]);
            }
            ICMP | ICMPV6 => {
                let kind =
                    random.pick(&[8, 0, 3, 5, 11, 12, 128, 129, 1, 2, 4, 133, 134, 135, 136]);
                let code = random.below(6) as u8;
                let [a, b, c, d, ..] = random.next().to_ne_bytes();
                out.extend_from_slice(&[kind, code, 0, 0, a, b, c, d]);
            }
            _ => {}
        }
        out.len() - begin
    }

    /// What a device would be told about the packet; mostly nothing, sometimes what is true, sometimes a lie.
    fn offload(&mut self, big: bool, transport: usize, protocol: u8, v4: bool) -> Offload {
        let random = &mut self.random;
        if !big && !random.one_in(32) {
            return Offload::default();
        }
        let lie = random.one_in(4);
        let kinds = [GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp];
        let kind = match (protocol, v4) {
            _ if lie => random.pick(&kinds),
            (TCP, true) => GsoKind::Tcp4,
            (TCP, false) => GsoKind::Tcp6,
            _ => GsoKind::Udp,
        };
        let gso = (big || random.one_in(4)).then(|| Gso {
            kind,
            // Tiny segments are rare: one packet of them is as much work as thousands.
            size: match random.below(256) {
                0 => 1,
                1 => 64,
                _ => random.pick(&[1400, 1448, 536, 1000, 9000, 65_535]),
            },
            ecn: random.one_in(16),
        });
        let offset = if kind == GsoKind::Udp { 6 } else { 16 };
        let truth = PartialChecksum {
            start: transport as u16,
            offset,
        };
        let checksum = match (lie, random.below(3)) {
            (true, 0) => PartialChecksum {
                start: random.below(1600) as u16,
                offset: random.below(64) as u16,
            },
            (true, 1) => PartialChecksum {
                start: random.below(60) as u16,
                offset,
            },
            _ => truth,
        };
        Offload {
            checksum: (!lie || !random.one_in(4)).then_some(checksum),
            gso,
            checksum_valid: false,
        }
    }
}

/// Sets the lengths of the IP header, and of UDP behind it, to what is there.
fn set_lengths(packet: &mut [u8], transport: usize, v4: bool) {
    let total = packet.len();
    if v4 {
        packet[2..4].copy_from_slice(&(total as u16).to_be_bytes());
    } else {
        packet[4..6].copy_from_slice(&((total - 40) as u16).to_be_bytes());
    }
    let protocol = if v4 { packet[9] } else { packet[6] };
    if protocol == UDP && total >= transport + 8 {
        let length = ((total - transport) as u16).to_be_bytes();
        packet[transport + 4..transport + 6].copy_from_slice(&length);
    }
}

/// Writes the transport checksum of a packet that is not damaged yet.
fn sum_transport(packet: &mut [u8], transport: usize, protocol: u8, v4: bool) {
    let offset = match protocol {
        TCP => 16,
        UDP => 6,
        ICMP | ICMPV6 => 2,
        _ => return,
    };
    let addresses = if v4 { 12..20 } else { 8..40 };
    let at = transport + offset;
    packet[at..at + 2].fill(0);
    let mut sum = Sum::of(&packet[transport..]);
    if protocol != ICMP {
        let length = (packet.len() - transport) as u32;
        sum =
            sum + Sum::of(&packet[addresses]) + Sum::word(u16::from(protocol)) + Sum::long(length);
    }
    let checksum = if protocol == UDP {
        sum.checksum_not_zero()
    } else {
        sum.checksum()
    };
    packet[at..at + 2].copy_from_slice(&checksum);
}

/// Mends the header checksum of an IPv4 packet, whatever else is wrong with it.
fn sum_header(packet: &mut [u8]) {
    let Some(&first) = packet.first() else { return };
    let length = usize::from(first & 0x0f) * 4;
    if first >> 4 == 4 && (20..=packet.len()).contains(&length) {
        packet[10..12].fill(0);
        let sum = Sum::of(&packet[..length]);
        packet[10..12].copy_from_slice(&sum.checksum());
    }
}

/// Writes both checksums of an ICMP message over IPv4 without options.
pub(crate) fn sum_echo(packet: &mut [u8]) {
    sum_transport(packet, 20, ICMP, true);
    sum_header(packet);
}
