//! Captures: pcap and pcapng files, one IP packet at a time, with the capture's own clock.
//!
//! 1. which of the two formats, by the first four bytes
//! 2. the next record, and when it was captured
//! 3. off with the link's header: what is no IP packet is told apart
//! 4. what the capture cut off is put back as zeros, so that lengths are right

use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError, TsResolution};
use std::fmt;
use std::io::{Cursor, Read};
use std::time::Duration;

/// The longest IP packet: 40 bytes of IPv6 header and 65,535 behind it.
const LONGEST: usize = 65_575;

/// What a record of the capture holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// An IP packet, or what claims to be one.
    Ip {
        /// Its bytes; where the capture cut it off, zeros in their place.
        bytes: Vec<u8>,
        /// How many of them were captured.
        captured: usize,
    },
    /// ARP, LLDP and the like.
    NotIp,
}

/// A record of the capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// When it was captured, from 1970.
    pub(super) at: Duration,
    /// What it holds.
    pub(super) content: Content,
}

/// Why a capture cannot be read, or not further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CaptureError {
    /// It has no byte.
    Empty,
    /// It begins as neither format does.
    Format,
    /// Its packets are of a link type that is not read.
    Link(String),
    /// It ends in the middle of a record.
    CutOff,
    /// A record that cannot be one.
    Damaged(String),
    /// The system does not give it.
    Unreadable(String),
}

impl fmt::Display for CaptureError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(formatter, "the file is empty"),
            Self::Format => write!(formatter, "neither a pcap nor a pcapng file"),
            Self::Link(link) => write!(
                formatter,
                "its link type is {link}; read are RAW, IPV4, IPV6, ETHERNET, LINUX_SLL and LINUX_SLL2"
            ),
            Self::CutOff => write!(formatter, "the file ends in the middle of a record"),
            Self::Damaged(what) => write!(formatter, "damaged: {what}"),
            Self::Unreadable(what) => write!(formatter, "{what}"),
        }
    }
}

impl From<PcapError> for CaptureError {
    fn from(error: PcapError) -> Self {
        match error {
            PcapError::IncompleteBuffer => Self::CutOff,
            PcapError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Self::CutOff
            }
            PcapError::IoError(error) => Self::Unreadable(error.to_string()),
            PcapError::InvalidField(what) => Self::Damaged(what.to_owned()),
            PcapError::InvalidInterfaceId(id) => Self::Damaged(format!(
                "a packet of interface {id}, which it does not have"
            )),
            PcapError::Utf8Error(_) | PcapError::FromUtf8Error(_) => {
                Self::Damaged("a text that is no UTF-8".to_owned())
            }
        }
    }
}

type Source<R> = std::io::Chain<Cursor<Vec<u8>>, R>;

enum Format<R: Read> {
    Pcap(PcapReader<Source<R>>),
    PcapNg(PcapNgReader<Source<R>>),
}

/// A capture that is being read.
pub(super) struct Capture<R: Read>(Format<R>);

impl<R: Read> Capture<R> {
    /// Begins to read.
    ///
    /// # Errors
    /// It is no capture, or one of packets that cannot be read.
    pub(super) fn new(mut source: R) -> Result<Self, CaptureError> {
        let mut magic = Vec::new();
        let unreadable = |error: std::io::Error| CaptureError::Unreadable(error.to_string());
        source
            .by_ref()
            .take(4)
            .read_to_end(&mut magic)
            .map_err(unreadable)?;
        let format = match magic.as_slice() {
            [] => return Err(CaptureError::Empty),
            [0x0a, 0x0d, 0x0d, 0x0a] => true,
            [0xa1, 0xb2, 0xc3, 0xd4]
            | [0xd4, 0xc3, 0xb2, 0xa1]
            | [0xa1, 0xb2, 0x3c, 0x4d]
            | [0x4d, 0x3c, 0xb2, 0xa1] => false,
            _ => return Err(CaptureError::Format),
        };
        let source = Cursor::new(magic).chain(source);
        if format {
            return Ok(Self(Format::PcapNg(PcapNgReader::new(source)?)));
        }
        let reader = PcapReader::new(source)?;
        supported(reader.header().datalink)?;
        Ok(Self(Format::Pcap(reader)))
    }

    /// The next packet; `None` at the end.
    ///
    /// # Errors
    /// It cannot be read further.
    pub(super) fn next(&mut self) -> Result<Option<Record>, CaptureError> {
        match &mut self.0 {
            Format::Pcap(reader) => {
                let header = reader.header();
                let Some(packet) = reader.next_raw_packet() else {
                    return Ok(None);
                };
                let packet = packet?;
                let fraction = match header.ts_resolution {
                    TsResolution::MicroSecond => Duration::from_micros(u64::from(packet.ts_frac)),
                    TsResolution::NanoSecond => Duration::from_nanos(u64::from(packet.ts_frac)),
                };
                let at = Duration::from_secs(u64::from(packet.ts_sec)) + fraction;
                let content = content(header.datalink, &packet.data, packet.orig_len);
                Ok(Some(Record { at, content }))
            }
            Format::PcapNg(reader) => next_block(reader),
        }
    }
}

/// The next block with a packet in it.
fn next_block<R: Read>(
    reader: &mut PcapNgReader<Source<R>>,
) -> Result<Option<Record>, CaptureError> {
    loop {
        let Some(block) = reader.next_block() else {
            return Ok(None);
        };
        let (interface, stamp, original, data) = match block?.into_owned() {
            Block::EnhancedPacket(packet) => (
                packet.interface_id as usize,
                // The crate gives the units of the interface's clock as if they were nanoseconds.
                packet.timestamp.as_nanos(),
                packet.original_len,
                packet.data,
            ),
            Block::Packet(packet) => (
                usize::from(packet.interface_id),
                u128::from(packet.timestamp),
                packet.original_len,
                packet.data,
            ),
            // It has no time: that of the start.
            Block::SimplePacket(packet) => (0, 0, packet.original_len, packet.data),
            _ => continue,
        };
        let Some(interface) = reader.interfaces().get(interface) else {
            let what = format!("a packet of interface {interface}, which it does not have");
            return Err(CaptureError::Damaged(what));
        };
        supported(interface.linktype)?;
        let data = data
            .get(..data.len().min(original as usize))
            .unwrap_or_default();
        return Ok(Some(Record {
            at: time(interface, stamp),
            content: content(interface.linktype, data, original),
        }));
    }
}

/// The time of a stamp on an interface's clock (the pcapng draft, 4.2: if_tsresol, if_tsoffset).
fn time(interface: &InterfaceDescriptionBlock<'_>, stamp: u128) -> Duration {
    const NANOSECONDS: u128 = 1_000_000_000;
    let (mut resolution, mut offset) = (6_u8, 0);
    for option in &interface.options {
        match option {
            InterfaceDescriptionOption::IfTsResol(given) => resolution = *given,
            InterfaceDescriptionOption::IfTsOffset(given) => offset = *given,
            _ => {}
        }
    }
    let exponent = u32::from(resolution & 0x7f);
    let nanoseconds = if resolution & 0x80 != 0 {
        stamp.saturating_mul(NANOSECONDS) >> exponent
    } else if exponent <= 9 {
        stamp.saturating_mul(10_u128.pow(9 - exponent))
    } else {
        10_u128
            .checked_pow(exponent - 9)
            .map_or(0, |unit| stamp / unit)
    };
    let seconds = u64::try_from(nanoseconds / NANOSECONDS).unwrap_or(u64::MAX);
    let rest = (nanoseconds % NANOSECONDS) as u32;
    Duration::new(seconds.saturating_add(offset), rest)
}

fn supported(link: DataLink) -> Result<(), CaptureError> {
    match link {
        DataLink::RAW
        | DataLink::IPV4
        | DataLink::IPV6
        | DataLink::ETHERNET
        | DataLink::LINUX_SLL
        | DataLink::LINUX_SLL2 => Ok(()),
        other => Err(CaptureError::Link(format!("{other:?}"))),
    }
}

/// The IP packet behind the link's header, as long as it says. `original` is the frame's length on the link.
fn content(link: DataLink, frame: &[u8], original: u32) -> Content {
    let Some(ip) = ip(link, frame) else {
        return Content::NotIp;
    };
    let captured = ip.len();
    let mut bytes = ip.to_vec();
    if frame.len() < original as usize {
        let length = match ip {
            [first, _, high, low, ..] if first >> 4 == 4 => {
                usize::from(u16::from_be_bytes([*high, *low]))
            }
            [first, _, _, _, high, low, ..] if first >> 4 == 6 => {
                40 + usize::from(u16::from_be_bytes([*high, *low]))
            }
            _ => captured,
        };
        bytes.resize(length.clamp(captured, LONGEST.max(captured)), 0);
    }
    Content::Ip { bytes, captured }
}

fn ip(link: DataLink, frame: &[u8]) -> Option<&[u8]> {
    const VLANS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
    let ethertype = |at: usize| {
        let bytes = frame.get(at..at.checked_add(2)?)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    };
    let (mut at, mut found) = match link {
        DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 => return Some(frame),
        DataLink::ETHERNET => (14, ethertype(12)?),
        DataLink::LINUX_SLL => (16, ethertype(14)?),
        DataLink::LINUX_SLL2 => (20, ethertype(0)?),
        _ => return None,
    };
    while VLANS.contains(&found) {
        found = ethertype(at + 2)?;
        at += 4;
    }
    matches!(found, 0x0800 | 0x86dd)
        .then(|| frame.get(at..))
        .flatten()
}

#[cfg(test)]
mod tests;
