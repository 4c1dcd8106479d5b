//! IPv4 fragmentation (RFC 791, 3.2): a packet that is larger than its way out and may be cut.
//!
//! 1. the first fragment keeps all options; later ones those that say "copied"
//! 2. every fragment but the last carries a multiple of eight bytes
//! 3. a fragment is cut like a whole packet: its offset and its "more fragments" carry over

use super::checksum::Sum;
use super::field::{self, at, length};
use routing::packet::{Headers, Version};
use routing::reason::DropReason;

/// What a path does with fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FragmentPolicy {
    /// Forwards them, and fragments IPv4 packets that allow it.
    Forward,
    /// Drops them (ExpressRoute's default, as Azure's gateways do).
    Drop,
}

/// "More fragments" among the flags.
const MORE: u16 = 0x2000;
/// The fragment offset, in units of eight bytes.
const OFFSET: u16 = 0x1fff;

/// The fragments of a packet, one after the other, in a buffer of the caller's.
#[derive(Debug)]
pub struct Fragments<'a> {
    first: &'a [u8],
    later: LaterHeader,
    /// What no fragment has carried yet.
    payload: &'a [u8],
    mtu: usize,
    /// Flags and offset of the next fragment, with the flags that the packet had.
    flags_and_offset: u16,
    started: bool,
}

impl<'a> Fragments<'a> {
    /// The fragments of at most `mtu` bytes of this packet, whose transport checksum is complete
    /// ([`super::checksum::finish`]). One that fits is its own only fragment.
    ///
    /// # Errors
    /// `TooBig` if it is IPv6, says "don't fragment", or `mtu` does not hold eight bytes behind its
    /// header; `Malformed` if packet and headers do not belong together or an option's length is wrong.
    pub fn new(packet: &'a [u8], headers: &Headers, mtu: usize) -> Result<Self, DropReason> {
        if headers.key.version != Version::V4 || headers.dont_fragment {
            return Err(DropReason::TooBig);
        }
        let packet = packet
            .get(..headers.total_len as usize)
            .ok_or(DropReason::Malformed)?;
        let (first, payload) = packet
            .split_at_checked(usize::from(headers.transport))
            .filter(|(first, _)| (length::V4..=length::V4_MOST).contains(&first.len()))
            .ok_or(DropReason::Malformed)?;
        if packet.len() > mtu && mtu < first.len() + 8 {
            return Err(DropReason::TooBig);
        }
        let flags_and_offset = field::read(first, at::V4_FRAGMENT).ok_or(DropReason::Malformed)?;
        Ok(Self {
            first,
            later: LaterHeader::of(first).ok_or(DropReason::Malformed)?,
            payload,
            mtu,
            flags_and_offset: u16::from_be_bytes(flags_and_offset),
            started: false,
        })
    }

    /// Writes the next fragment to the front of `buffer` and gives its length in bytes; `None` after the
    /// last. If the rest does not fit `buffer` (`mtu` bytes always do), that is `TooBig`, and the end.
    pub fn next_into(&mut self, buffer: &mut [u8]) -> Option<Result<usize, DropReason>> {
        if self.started && self.payload.is_empty() {
            return None;
        }
        let written = self.write(buffer).ok_or(DropReason::TooBig);
        if written.is_err() {
            self.payload = &[];
        }
        self.started = true;
        Some(written)
    }

    fn write(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let header = if self.started {
            self.later.bytes()
        } else {
            self.first
        };
        let room = self.mtu.checked_sub(header.len())?;
        let len = if self.payload.len() <= room {
            self.payload.len()
        } else {
            room & !7
        };
        let (piece, rest) = self.payload.split_at_checked(len)?;

        let total = header.len() + len;
        let (to_header, to_payload) = buffer
            .get_mut(..total)?
            .split_at_mut_checked(header.len())?;
        to_header.copy_from_slice(header);
        to_payload.copy_from_slice(piece);
        let more = if rest.is_empty() { 0 } else { MORE };
        *field::edit(to_header, at::V4_LENGTH)? = u16::try_from(total).ok()?.to_be_bytes();
        *field::edit(to_header, at::V4_FRAGMENT)? = (self.flags_and_offset | more).to_be_bytes();
        *field::edit(to_header, at::V4_CHECKSUM)? = [0; 2];
        let sum = Sum::of(to_header);
        *field::edit(to_header, at::V4_CHECKSUM)? = sum.checksum();

        self.payload = rest;
        let offset = (self.flags_and_offset & OFFSET) + (len / 8) as u16;
        self.flags_and_offset = self.flags_and_offset & !OFFSET | offset & OFFSET;
        Some(total)
    }
}

/// The header of all fragments but the first.
#[derive(Debug)]
struct LaterHeader {
    bytes: [u8; length::V4_MOST],
    len: usize,
}

impl LaterHeader {
    /// Fixed part and the options with the "copied" bit (RFC 791, 3.1); `None` if an option's length is
    /// wrong.
    fn of(header: &[u8]) -> Option<Self> {
        const END: u8 = 0;
        const NO_OPERATION: u8 = 1;
        const COPIED: u8 = 0x80;

        let (fixed, mut options) = header.split_at_checked(length::V4)?;
        let mut later = Self {
            bytes: [0; length::V4_MOST],
            len: 0,
        };
        later.append(fixed)?;
        while let [kind, rest @ ..] = options {
            options = match *kind {
                END => break,
                NO_OPERATION => rest,
                kind => {
                    let len = usize::from(*rest.first()?);
                    let (option, rest) = options.split_at_checked(len).filter(|_| len >= 2)?;
                    if kind & COPIED != 0 {
                        later.append(option)?;
                    }
                    rest
                }
            };
        }
        // What is left of the last word stays zero: end of options.
        later.len = later.len.next_multiple_of(4);
        let [first, ..] = &mut later.bytes;
        *first = 0x40 | (later.len / 4) as u8;
        Some(later)
    }

    fn append(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len + bytes.len();
        self.bytes.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}
