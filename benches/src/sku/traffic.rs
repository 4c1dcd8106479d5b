//! Packets as devices give them: headers and what is left to do. The payload is not here: it lies in the
//! worker's buffer already, since the copy into it is the kernel's work.

use gateway::device::offload::{Gso, GsoKind, HEADER_LEN, Offload, PartialChecksum};
use gateway::pipeline::checksum::{Sum, pseudo_header};
use routing::packet::{FlowKey, Version};
use serde::Serialize;

/// Flows that the packets belong to, in turn and in no order.
pub const FLOWS: usize = 10_000;

/// IPv4 and UDP header, bytes.
const UDP_HEADERS: u16 = 28;
/// IPv4 header, TCP header and its timestamps, bytes.
const TCP_HEADERS: u16 = 52;

/// What a load is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Size {
    /// 64 bytes.
    #[serde(rename = "64")]
    Small,
    /// Simple IMIX: 7 frames of 64 bytes, 4 of 594, 1 of 1,518.
    Imix,
    /// 1,250 bytes, at which Azure's tiers stop being bound by packets.
    #[serde(rename = "1250")]
    Middle,
    /// 1,400 bytes, what Azure's tunnels take.
    #[serde(rename = "1400")]
    Large,
}

impl Size {
    /// All of them, smallest first.
    pub const ALL: [Self; 4] = [Self::Small, Self::Imix, Self::Middle, Self::Large];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "64 B",
            Self::Imix => "IMIX",
            Self::Middle => "1,250 B",
            Self::Large => "1,400 B",
        }
    }

    /// Lengths of twelve IP packets, bytes, none above `mtu`. A frame of IMIX is 18 bytes longer than its
    /// packet (Ethernet header and checksum).
    fn lengths(self, mtu: u16) -> [u16; 12] {
        match self {
            Self::Small => [64; 12],
            Self::Imix => {
                let longest = mtu.min(1_500);
                [46, 576, 46, 46, 576, 46, longest, 46, 576, 46, 576, 46]
            }
            Self::Middle => [1_250; 12],
            Self::Large => [1_400; 12],
        }
    }
}

/// How packets come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// One by one: UDP, and whatever was routed to the gateway.
    Single,
    /// As super-packets of up to 64 KB: TCP of hosts with segmentation offload.
    Super,
}

/// One packet or super-packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    headers: [u8; TCP_HEADERS as usize],
    /// Its virtio-net header.
    pub virtio: [u8; HEADER_LEN],
    /// Length with payload, bytes.
    pub len: u16,
    /// Packets on the wire that it stands for.
    pub segments: u64,
    /// Bytes of those packets.
    pub bytes: u64,
}

impl Packet {
    /// Writes its headers to the front of a device's buffer.
    #[inline]
    pub fn lay(&self, buffer: &mut [u8]) {
        // Always as many bytes: payload is any bytes.
        if let Some(front) = buffer.get_mut(..self.headers.len()) {
            front.copy_from_slice(&self.headers);
        }
    }
}

/// One end of all flows.
#[derive(Clone, Copy, Debug)]
pub struct Net {
    /// First address.
    pub first: u32,
    /// How many addresses; every one is used by somebody.
    pub count: u32,
}

impl Net {
    fn at(self, place: u32) -> u32 {
        self.first + place % self.count.max(1)
    }
}

/// A packet of each flow, from hosts of `from` to hosts of `to`, none longer than `mtu` on the wire, behind
/// `l2_len` bytes of layer 2 header.
pub fn packets(
    [from, to]: [&[Net]; 2],
    size: Size,
    form: Form,
    mtu: u16,
    l2_len: u16,
) -> Vec<Packet> {
    let lengths = size.lengths(mtu);
    let mut words = Words::new();
    let pick = |nets: &[Net], word: u64| {
        let place = (word >> 8) as usize % nets.len().max(1);
        nets.get(place).map_or(0, |net| net.at((word >> 40) as u32))
    };
    let mut packet = |(flow, len): (usize, &u16)| {
        let (source, destination) = (pick(from, words.next()), pick(to, words.next()));
        let key = FlowKey {
            source: u128::from(source),
            destination: u128::from(destination),
            // Flows differ at least in this.
            source_port: 10_000 + flow as u16,
            destination_port: 443,
            protocol: if form == Form::Single { 17 } else { 6 },
            version: Version::V4,
        };
        match form {
            Form::Single => udp(&key, *len, l2_len),
            Form::Super => tcp(&key, *len, l2_len),
        }
    };
    (0..FLOWS)
        .zip(lengths.iter().cycle())
        .map(&mut packet)
        .collect()
}

/// A UDP packet as a host behind the TUN device gives it: its checksum partial.
fn udp(key: &FlowKey, len: u16, l2_len: u16) -> Packet {
    let transport_len = len - 20;
    let mut headers = ip_header(key, len);
    headers.extend(key.source_port.to_be_bytes());
    headers.extend(key.destination_port.to_be_bytes());
    headers.extend(transport_len.to_be_bytes());
    headers.extend(pseudo_header(key, u32::from(transport_len)).folded());
    let offload = Offload {
        checksum: Some(PartialChecksum {
            start: 20,
            offset: 6,
        }),
        ..Offload::default()
    };
    Packet {
        headers: padded(&headers),
        virtio: offload.encode(UDP_HEADERS, l2_len),
        len,
        segments: 1,
        bytes: u64::from(len),
    }
}

/// A TCP super-packet of as many segments of `len` bytes as fit.
fn tcp(key: &FlowKey, len: u16, l2_len: u16) -> Packet {
    let payload = len - TCP_HEADERS;
    let segments = (u16::MAX - TCP_HEADERS) / payload;
    let whole = TCP_HEADERS + segments * payload;
    let mut headers = ip_header(key, whole);
    headers.extend(key.source_port.to_be_bytes());
    headers.extend(key.destination_port.to_be_bytes());
    headers.extend([1, 2, 3, 4, 5, 6, 7, 8, 0x80, 0x10, 1, 0xf5]);
    headers.extend(pseudo_header(key, u32::from(whole) - 20).folded());
    headers.extend([0, 0, 1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
    let offload = Offload {
        checksum: Some(PartialChecksum {
            start: 20,
            offset: 16,
        }),
        gso: Some(Gso {
            kind: GsoKind::Tcp4,
            size: payload,
            ecn: false,
        }),
        checksum_valid: false,
    };
    Packet {
        headers: padded(&headers),
        virtio: offload.encode(TCP_HEADERS, l2_len),
        len: whole,
        segments: u64::from(segments),
        bytes: u64::from(segments) * u64::from(len),
    }
}

fn ip_header(key: &FlowKey, len: u16) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend(len.to_be_bytes());
    header.extend([0, 1, 0x40, 0, 64, key.protocol, 0, 0]);
    header.extend((key.source as u32).to_be_bytes());
    header.extend((key.destination as u32).to_be_bytes());
    let sum = Sum::of(&header).checksum();
    header.splice(10..12, sum);
    header
}

fn padded<const LEN: usize>(bytes: &[u8]) -> [u8; LEN] {
    let mut out = [0; LEN];
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = *from;
    }
    out
}

/// A fixed sequence of words (xorshift64).
#[derive(Debug)]
pub struct Words(u64);

impl Words {
    /// From its beginning.
    pub fn new() -> Self {
        Self::from_seed(0x9E37_79B9_7F4A_7C15)
    }

    /// Another one, from a number that is not 0.
    pub fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one.
    #[expect(
        clippy::should_implement_trait,
        reason = "it never ends, so it has no Option"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

impl Default for Words {
    fn default() -> Self {
        Self::new()
    }
}
