//! Captures: pcap and pcapng files, one IP packet at a time, with the capture's own clock.
//!
//! 1. the next record of the file, and when it was captured ([`mod@file`])
//! 2. off with the link's header and its frame check sequence: what is no IP packet is told apart, and what
//!    is of a link that is not read
//! 3. what the capture cut off is put back as zeros, and a length that an offload left out is filled in, so
//!    that lengths are right

mod file;

use file::{File, Frame, Link};
use std::fmt;
use std::io::Read;
use std::time::Duration;

/// The longest IP packet whose header can say its length: 40 bytes of IPv6 header and 65,535 behind it.
const LONGEST: usize = 65_575;
/// IPv6 alone, padded to the shortest Ethernet frame: 46 bytes. What is longer and says no length was
/// merged by an offload.
const SHORTEST: usize = 46;

/// What a record of the capture holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// An IP packet, or what claims to be one.
    Ip {
        /// Its bytes; where the capture cut it off, zeros in their place.
        bytes: Vec<u8>,
        /// How many of them were captured.
        captured: usize,
        /// Its length, bytes, where its header had none: an offload merged it (LSO), and it may be longer
        /// than a header can say (BIG TCP).
        merged: Option<u32>,
    },
    /// ARP, LLDP and the like.
    NotIp,
    /// A frame of a link that is not read, by its LINKTYPE_ value.
    Link(u16),
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
    /// All its packets are of a link type that is not read.
    Link(u16),
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
                "its link type is {link}; read are RAW (101, 12, 14), IPV4 (228), IPV6 (229), ETHERNET (1), \
                 LINUX_SLL (113), LINUX_SLL2 (276), NULL (0) and LOOP (108)"
            ),
            Self::CutOff => write!(formatter, "the file ends in the middle of a record"),
            Self::Damaged(what) => write!(formatter, "damaged: {what}"),
            Self::Unreadable(what) => write!(formatter, "{what}"),
        }
    }
}

/// How the frames of a link begin.
#[derive(Clone, Copy)]
enum Header {
    /// With the IP packet.
    None,
    /// With four bytes that name the address family, each system by its own numbers.
    Family,
    /// With so many bytes, in which the EtherType stands there.
    Ethertype { length: usize, at: usize },
}

impl Header {
    fn of(link: Link) -> Option<Self> {
        match link.kind {
            // DLT_RAW is 12 or 14 on some systems, and files have it by that number.
            101 | 12 | 14 | 228 | 229 => Some(Self::None),
            0 | 108 => Some(Self::Family),
            1 => Some(Self::Ethertype { length: 14, at: 12 }),
            113 => Some(Self::Ethertype { length: 16, at: 14 }),
            276 => Some(Self::Ethertype { length: 20, at: 0 }),
            _ => None,
        }
    }
}

/// A capture that is being read.
pub(super) struct Capture<R: Read>(File<R>);

impl<R: Read> Capture<R> {
    /// Begins to read.
    ///
    /// # Errors
    /// It is no capture, or one of packets none of which can be read.
    pub(super) fn new(source: R) -> Result<Self, CaptureError> {
        let file = File::open(source)?;
        match file.link() {
            Some(link) if Header::of(link).is_none() => Err(CaptureError::Link(link.kind)),
            _ => Ok(Self(file)),
        }
    }

    /// The next packet; `None` at the end.
    ///
    /// # Errors
    /// It cannot be read further.
    pub(super) fn next(&mut self) -> Result<Option<Record>, CaptureError> {
        let Some(frame) = self.0.next()? else {
            return Ok(None);
        };
        Ok(Some(Record {
            at: frame.at,
            content: content(frame),
        }))
    }
}

/// The IP packet behind the link's header, as long as it says.
fn content(mut frame: Frame) -> Content {
    let Some(header) = Header::of(frame.link) else {
        return Content::Link(frame.link.kind);
    };
    frame.original = frame.original.saturating_sub(frame.link.fcs.into());
    frame.data.truncate(frame.original as usize);
    let Some(ip) = ip(header, &frame.data) else {
        return Content::NotIp;
    };
    let captured = ip.len();
    let cut = frame.original as usize - frame.data.len();
    let on_link = captured + cut;
    let mut bytes = ip.to_vec();
    // What the header says, and the header that it does not count.
    let said = match ip {
        [first, _, high, low, ..] if first >> 4 == 4 => Some(([*high, *low], 0)),
        [first, _, _, _, high, low, ..] if first >> 4 == 6 => Some(([*high, *low], 40)),
        _ => None,
    };
    if said.is_some_and(|(said, _)| said == [0, 0]) && on_link > SHORTEST {
        return merged(bytes, on_link);
    }
    if cut > 0 {
        let length = said.map_or(captured, |(said, header)| {
            usize::from(u16::from_be_bytes(said)) + header
        });
        bytes.resize(length.clamp(captured, LONGEST.max(captured)), 0);
    }
    Content::Ip {
        bytes,
        captured,
        merged: None,
    }
}

/// A packet that says no length: it is as long as its frame.
fn merged(mut bytes: Vec<u8>, mut length: usize) -> Content {
    let is_v4 = bytes.first().is_some_and(|first| first >> 4 == 4);
    // BIG TCP says it in a jumbo payload option (RFC 2675), in a hop-by-hop header that is on no wire: next
    // header, length, option 0xc2 of four bytes.
    if let (Some(&[next, 0, 0xc2, 4]), Some(0)) = (
        bytes.get(40..44).and_then(<[u8]>::first_chunk),
        bytes.get(6),
    ) && !is_v4
        && bytes.len() >= 48
    {
        bytes.drain(40..48);
        length -= 8;
        if let Some(first) = bytes.get_mut(6) {
            *first = next;
        }
    }
    let captured = bytes.len().min(LONGEST);
    let whole = length.min(if is_v4 { 65_535 } else { LONGEST });
    bytes.resize(whole, 0);
    let field = if is_v4 {
        (2, whole)
    } else {
        (4, whole - 40.min(whole))
    };
    if let Some(place) = bytes.get_mut(field.0..field.0 + 2) {
        place.copy_from_slice(&(field.1 as u16).to_be_bytes());
    }
    if is_v4 {
        set_checksum(&mut bytes);
    }
    Content::Ip {
        captured: captured.min(whole),
        bytes,
        merged: Some(length as u32),
    }
}

/// Sets an IPv4 header's checksum (RFC 1071): its length has changed.
fn set_checksum(packet: &mut [u8]) {
    let words = usize::from(packet.first().copied().unwrap_or(0) & 0xf) * 2;
    let header = packet.chunks_exact(2).take(words).enumerate();
    let mut sum: u32 = header
        .filter(|(index, _)| *index != 5)
        .filter_map(|(_, word)| word.first_chunk())
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    if let Some(place) = packet.get_mut(10..12) {
        place.copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }
}

fn ip(header: Header, frame: &[u8]) -> Option<&[u8]> {
    const VLANS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
    let ethertype = |at: usize| {
        let bytes = frame.get(at..at.checked_add(2)?)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    };
    let (mut at, mut found) = match header {
        Header::None => return Some(frame),
        Header::Family => {
            let packet = frame.get(4..)?;
            let version = packet.first()? >> 4;
            return [4, 6].contains(&version).then_some(packet);
        }
        Header::Ethertype { length, at } => (length, ethertype(at)?),
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
