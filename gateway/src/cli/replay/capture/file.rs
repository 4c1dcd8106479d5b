//! The records of pcap and pcapng files: when, on what kind of link, and the frame's bytes.
//!
//! pcap: draft-ietf-opsawg-pcap. pcapng: draft-ietf-opsawg-pcapng, section 4. Names, comments and other texts
//! of a file are stepped over, whatever encoding they are in; a block of a kind that is not known is too.

use super::CaptureError;
use std::io::Read;
use std::time::Duration;

/// The longest record or block that is taken for one, bytes: libpcap's own limit of 256 KB and the largest
/// BIG TCP packet (512 KB, Linux 6.3) are well below.
const LONGEST: u32 = 16 << 20;
const NANOSECONDS: u128 = 1_000_000_000;

/// What kind of frames a link has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// LINKTYPE_ value (tcpdump.org/linktypes.html).
    pub(super) kind: u16,
    /// Bytes of the frame check sequence at the end of each frame.
    pub(super) fcs: u8,
}

impl Link {
    /// Of a pcap file's header: the link type in 16 bits; above it, if bit 26 (P) is set, the length of the
    /// frame check sequence in the upper four bits, in units of 16 bits.
    fn of_pcap(word: u32) -> Self {
        let units = if word & 1 << 26 == 0 { 0 } else { word >> 28 };
        Self {
            kind: word as u16,
            fcs: units as u8 * 2,
        }
    }
}

/// A frame.
#[derive(Debug)]
pub(super) struct Frame {
    /// When it was captured, from 1970.
    pub(super) at: Duration,
    pub(super) link: Link,
    /// Its length on the link, bytes.
    pub(super) original: u32,
    /// What was captured of it.
    pub(super) data: Vec<u8>,
}

/// A file that is being read.
pub(super) struct File<R> {
    source: R,
    format: Format,
}

enum Format {
    Pcap {
        order: Order,
        nanoseconds: bool,
        link: Link,
    },
    PcapNg {
        order: Order,
        interfaces: Vec<Interface>,
    },
}

/// A file has the byte order of the machine that wrote it.
#[derive(Clone, Copy)]
enum Order {
    Little,
    Big,
}

/// An interface of a pcapng section.
struct Interface {
    link: Link,
    /// The most that was captured of a frame; 0: all.
    limit: u32,
    /// if_tsresol: a power of ten, or with the highest bit one of two.
    resolution: u8,
    /// if_tsoffset, seconds.
    offset: i64,
}

impl<R: Read> File<R> {
    /// Reads a file's beginning.
    pub(super) fn open(mut source: R) -> Result<Self, CaptureError> {
        let magic = match read(&mut source, 4)? {
            magic if magic.is_empty() => return Err(CaptureError::Empty),
            magic => magic,
        };
        let (order, nanoseconds) = match *magic.as_slice() {
            [0x0a, 0x0d, 0x0d, 0x0a] => {
                let mut file = Self {
                    source,
                    format: Format::PcapNg {
                        order: Order::Little,
                        interfaces: Vec::new(),
                    },
                };
                file.section()?;
                return Ok(file);
            }
            [0xd4, 0xc3, 0xb2, 0xa1] => (Order::Little, false),
            [0x4d, 0x3c, 0xb2, 0xa1] => (Order::Little, true),
            [0xa1, 0xb2, 0xc3, 0xd4] => (Order::Big, false),
            [0xa1, 0xb2, 0x3c, 0x4d] => (Order::Big, true),
            _ => return Err(CaptureError::Format),
        };
        // Version, two words that nobody uses, the limit of a record, and the link type.
        let header = exactly(&mut source, 20)?;
        let link = Link::of_pcap(order.word(&header, 16).unwrap_or(0));
        let format = Format::Pcap {
            order,
            nanoseconds,
            link,
        };
        Ok(Self { source, format })
    }

    /// The link of all frames, where the file's header says it.
    pub(super) fn link(&self) -> Option<Link> {
        match self.format {
            Format::Pcap { link, .. } => Some(link),
            Format::PcapNg { .. } => None,
        }
    }

    /// The next frame; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, CaptureError> {
        match self.format {
            Format::Pcap {
                order,
                nanoseconds,
                link,
            } => self.record(order, nanoseconds, link),
            Format::PcapNg { .. } => self.block(),
        }
    }

    fn record(
        &mut self,
        order: Order,
        nanoseconds: bool,
        link: Link,
    ) -> Result<Option<Frame>, CaptureError> {
        let Some(header) = at_boundary(&mut self.source, 16)? else {
            return Ok(None);
        };
        let word = |at| order.word(&header, at).unwrap_or(0);
        let (seconds, fraction, length, original) = (word(0), word(4), word(8), word(12));
        if length > LONGEST {
            return Err(CaptureError::Damaged(format!("a record of {length} bytes")));
        }
        let fraction = if nanoseconds {
            Duration::from_nanos(u64::from(fraction))
        } else {
            Duration::from_micros(u64::from(fraction))
        };
        let data = exactly(&mut self.source, length)?;
        Ok(Some(Frame {
            at: Duration::from_secs(u64::from(seconds)) + fraction,
            link,
            original: original.max(length),
            data,
        }))
    }

    /// The rest of a section header block, behind its type: the byte order first, which its length is in.
    fn section(&mut self) -> Result<(), CaptureError> {
        let start = exactly(&mut self.source, 8)?;
        let found = match start.get(4..) {
            Some([0x4d, 0x3c, 0x2b, 0x1a]) => Order::Little,
            Some([0x1a, 0x2b, 0x3c, 0x4d]) => Order::Big,
            _ => {
                let what = "a section without its byte order".to_owned();
                return Err(CaptureError::Damaged(what));
            }
        };
        let length = found.word(&start, 0).unwrap_or(0);
        // Type, length and byte order are read already; the length stands at the end once more.
        body(&mut self.source, found, length, 12)?;
        self.format = Format::PcapNg {
            order: found,
            interfaces: Vec::new(),
        };
        Ok(())
    }

    fn block(&mut self) -> Result<Option<Frame>, CaptureError> {
        loop {
            let Some(kind) = at_boundary(&mut self.source, 4)? else {
                return Ok(None);
            };
            if kind == [0x0a, 0x0d, 0x0d, 0x0a] {
                self.section()?;
                continue;
            }
            let Format::PcapNg { order, interfaces } = &mut self.format else {
                return Ok(None);
            };
            let order = *order;
            let length = exactly(&mut self.source, 4)?;
            let length = order.word(&length, 0).unwrap_or(0);
            let body = body(&mut self.source, order, length, 8)?;
            match order.word(&kind, 0) {
                Some(1) => interfaces.push(Interface::read(order, &body)?),
                Some(2) => return packet(order, &body, interfaces, Layout::OLD).map(Some),
                Some(3) => return simple(order, &body, interfaces).map(Some),
                Some(6) => return packet(order, &body, interfaces, Layout::ENHANCED).map(Some),
                _ => {}
            }
        }
    }
}

impl Interface {
    fn read(order: Order, body: &[u8]) -> Result<Self, CaptureError> {
        let kind = order.half(body, 0).ok_or_else(|| short("an interface"))?;
        let mut interface = Self {
            link: Link { kind, fcs: 0 },
            limit: order.word(body, 4).unwrap_or(0),
            resolution: 6,
            offset: 0,
        };
        for (code, value) in options(order, body.get(8..).unwrap_or_default()) {
            match (code, value) {
                (9, [resolution, ..]) => interface.resolution = *resolution,
                (13, [fcs, ..]) => interface.link.fcs = *fcs,
                (14, value) => interface.offset = order.long(value).unwrap_or(0).cast_signed(),
                _ => {}
            }
        }
        Ok(interface)
    }

    /// The time of a stamp on the interface's clock.
    fn time(&self, stamp: u64) -> Duration {
        let (stamp, exponent) = (u128::from(stamp), u32::from(self.resolution & 0x7f));
        let nanoseconds = if self.resolution & 0x80 != 0 {
            stamp
                .saturating_mul(NANOSECONDS)
                .checked_shr(exponent)
                .unwrap_or(0)
        } else if exponent <= 9 {
            stamp.saturating_mul(10_u128.pow(9 - exponent))
        } else {
            10_u128
                .checked_pow(exponent - 9)
                .map_or(0, |unit| stamp / unit)
        };
        let seconds = u64::try_from(nanoseconds / NANOSECONDS).unwrap_or(u64::MAX);
        let rest = (nanoseconds % NANOSECONDS) as u32;
        Duration::new(seconds.saturating_add_signed(self.offset), rest)
    }
}

/// How long the interface's number is, which a packet block begins with; stamp, lengths and data follow at
/// the same places in both kinds.
#[derive(Clone, Copy)]
struct Layout {
    wide: bool,
}

impl Layout {
    const ENHANCED: Self = Self { wide: true };
    /// Packet blocks, which are obsolete: 16 bits and a count of drops.
    const OLD: Self = Self { wide: false };
}

fn packet(
    order: Order,
    body: &[u8],
    interfaces: &[Interface],
    layout: Layout,
) -> Result<Frame, CaptureError> {
    let read = || {
        let number = if layout.wide {
            order.word(body, 0)?
        } else {
            u32::from(order.half(body, 0)?)
        };
        let stamp = u64::from(order.word(body, 4)?) << 32 | u64::from(order.word(body, 8)?);
        let captured = order.word(body, 12)?;
        let end = 20_usize.checked_add(captured as usize)?;
        let data = body.get(20..end)?;
        let rest = body.get(end.next_multiple_of(4)..).unwrap_or_default();
        Some((number, stamp, order.word(body, 16)?, data, rest))
    };
    let (number, stamp, original, data, rest) = read().ok_or_else(|| short("a packet"))?;
    let interface = of(interfaces, number)?;
    let mut link = interface.link;
    // epb_flags: bits 5 to 8 are the length of this packet's frame check sequence, if it is known.
    let flags = options(order, rest).find(|(code, _)| layout.wide && *code == 2);
    if let Some(flags) = flags.and_then(|(_, value)| order.word(value, 0)) {
        let fcs = (flags >> 5 & 0xf) as u8;
        link.fcs = if fcs > 0 { fcs } else { link.fcs };
    }
    Ok(Frame {
        at: interface.time(stamp),
        link,
        original: original.max(data.len() as u32),
        data: data.to_vec(),
    })
}

/// A simple packet block: of the first interface, and without a time, which is taken for that of the start.
fn simple(order: Order, body: &[u8], interfaces: &[Interface]) -> Result<Frame, CaptureError> {
    let interface = of(interfaces, 0)?;
    let original = order.word(body, 0).ok_or_else(|| short("a packet"))?;
    let limit = match interface.limit {
        0 => u32::MAX,
        limit => limit,
    };
    let data = body.get(4..).unwrap_or_default();
    let captured = data.len().min(original.min(limit) as usize);
    let data = data.get(..captured).unwrap_or_default();
    Ok(Frame {
        at: Duration::ZERO,
        link: interface.link,
        original,
        data: data.to_vec(),
    })
}

fn of(interfaces: &[Interface], number: u32) -> Result<&Interface, CaptureError> {
    interfaces.get(number as usize).ok_or_else(|| {
        let what = format!("a packet of interface {number}, which it does not have");
        CaptureError::Damaged(what)
    })
}

/// The options at the end of a block: code and value, each padded to four bytes; one that does not fit ends
/// them.
fn options(order: Order, mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (code, length) = (order.half(bytes, 0)?, usize::from(order.half(bytes, 2)?));
        let value = bytes.get(4..4 + length)?;
        bytes = bytes
            .get(4 + length.next_multiple_of(4)..)
            .unwrap_or_default();
        (code != 0).then_some((code, value))
    })
}

/// The rest of a block of this length, of which so much is read: without the length that ends it.
fn body<R: Read>(
    source: &mut R,
    order: Order,
    length: u32,
    read: u32,
) -> Result<Vec<u8>, CaptureError> {
    let rest = length.checked_sub(read).filter(|rest| *rest >= 4);
    let Some(rest) = rest.filter(|_| length <= LONGEST && length.is_multiple_of(4)) else {
        return Err(CaptureError::Damaged(format!("a block of {length} bytes")));
    };
    let mut body = exactly(source, rest)?;
    let end = body.len().saturating_sub(4);
    let again = order.word(&body, end);
    if again != Some(length) {
        let what = format!("a block of {length} bytes that ends with another length");
        return Err(CaptureError::Damaged(what));
    }
    body.truncate(end);
    Ok(body)
}

impl Order {
    fn half(self, bytes: &[u8], at: usize) -> Option<u16> {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        })
    }

    fn word(self, bytes: &[u8], at: usize) -> Option<u32> {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        })
    }

    fn long(self, bytes: &[u8]) -> Option<u64> {
        let bytes = *bytes.first_chunk()?;
        Some(match self {
            Self::Little => u64::from_le_bytes(bytes),
            Self::Big => u64::from_be_bytes(bytes),
        })
    }
}

fn short(what: &str) -> CaptureError {
    CaptureError::Damaged(format!("{what} that is too short"))
}

/// Up to so many bytes; fewer at the end of the file. Room is made as they come, not as they are announced.
fn read<R: Read>(source: &mut R, count: u32) -> Result<Vec<u8>, CaptureError> {
    let mut bytes = Vec::new();
    source
        .take(u64::from(count))
        .read_to_end(&mut bytes)
        .map_err(|error| CaptureError::Unreadable(error.to_string()))?;
    Ok(bytes)
}

/// So many bytes.
fn exactly<R: Read>(source: &mut R, count: u32) -> Result<Vec<u8>, CaptureError> {
    let bytes = read(source, count)?;
    if bytes.len() < count as usize {
        return Err(CaptureError::CutOff);
    }
    Ok(bytes)
}

/// So many bytes where a record begins: `None` if the file ends there.
fn at_boundary<R: Read>(source: &mut R, count: u32) -> Result<Option<Vec<u8>>, CaptureError> {
    let bytes = read(source, count)?;
    match bytes.len() {
        0 => Ok(None),
        length if length < count as usize => Err(CaptureError::CutOff),
        _ => Ok(Some(bytes)),
    }
}
