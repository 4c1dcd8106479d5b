//! A link's frames: the layer 2 header in front of what is sent, and the way past it in what is received.
//!
//! ```text
//! | destination | source | outer tag | inner tag | ethertype | IP packet |
//! 0             6        12          (0 or 4)    (0 or 4)
//! ```
//! Tags are sent in band. On receive the kernel has taken the outermost one out and hands it over beside
//! the frame ([`Frame::stripped_tag`]); the rest is in band. A tag with VLAN 0 says a priority and no VLAN (802.1Q,
//! 6.9): in front of everything else it is no tag, so an untagged link takes such frames.
//!
//! A tagged link does not, nor does it take one in front of its own tags. Who has a VLAN says the priority in that tag
//! (802.1Q, 9.6: one tag has both), so no station and no bridge sends the pair. To a bridge a frame whose outermost VLAN
//! is 0 belongs to its port's own VLAN (6.9.1), and the tag behind it is payload: taken for the link's, it would be a
//! way into a VLAN that the network has not let the sender into.

use crate::device::link::Frame;
use crate::device::offload::Offload;
use crate::device::vlan::{CUSTOMER_TAG, ID_MASK, SERVICE_TAG, TAG_LEN, Tags};
use routing::packet::Version;
use routing::reason::DropReason;
use std::ops::Range;

/// Ethertype of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// Ethertype of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// The longest layer 2 header: two addresses, two tags, the ethertype; bytes.
pub const MAX_HEADER: usize = ADDRESSES + 2 * TAG_LEN + 2;

const ADDRESSES: usize = 12;

/// How a link's frames look.
#[derive(Clone, Copy, Debug)]
pub struct Framing {
    tags: Tags,
    mac: [u8; 6],
    /// Everything but the destination and the ethertype, which each packet brings.
    template: Prefix,
}

/// A layer 2 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    bytes: [u8; MAX_HEADER],
    len: usize,
}

/// What lies behind a received frame's layer 2 header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Destination MAC address: the link's, or a group's.
    pub destination: [u8; 6],
    /// Source MAC address.
    pub source: [u8; 6],
    /// Ethertype behind the tags.
    pub ethertype: u16,
    /// Where the payload is in the buffer; padding of short frames is part of it.
    pub range: Range<usize>,
}

/// A received IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpPayload {
    /// By ethertype; the packet's own version field agrees.
    pub version: Version,
    /// Where the packet is in the buffer, never beyond the frame. Padding of short frames is part of it:
    /// the packet's own length ends it.
    pub range: Range<usize>,
    /// What is left to do for it; offsets from the start of the packet.
    pub offload: Offload,
}

impl Framing {
    /// Frames with these tags, from and to this MAC address.
    pub fn new(tags: Tags, mac: [u8; 6]) -> Self {
        let mut template = Prefix {
            bytes: [0; MAX_HEADER],
            len: 0,
        };
        template.push(&[0; 6]);
        template.push(&mac);
        for (kind, id) in tags.iter() {
            template.push(&kind.to_be_bytes());
            template.push(&id.to_be_bytes());
        }
        Self {
            tags,
            mac,
            template,
        }
    }

    /// The link's tags.
    pub fn tags(&self) -> Tags {
        self.tags
    }

    /// The link's MAC address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// The header of a frame to `destination`.
    #[inline]
    pub fn prefix(&self, destination: [u8; 6], ethertype: u16) -> Prefix {
        let mut prefix = self.template;
        for (to, from) in prefix.bytes.iter_mut().zip(destination) {
            *to = from;
        }
        prefix.push(&ethertype.to_be_bytes());
        prefix
    }

    /// The header of a frame with an IP packet to `destination`.
    #[inline]
    pub fn ip_prefix(&self, destination: [u8; 6], version: Version) -> Prefix {
        let ethertype = match version {
            Version::V4 => ETHERTYPE_IPV4,
            Version::V6 => ETHERTYPE_IPV6,
        };
        self.prefix(destination, ethertype)
    }

    /// Reads a received frame that begins at the start of `buffer`.
    ///
    /// # Errors
    /// `VlanTag`: other tags than the link's, or in another order. `OtherStation`: neither for the link's
    /// MAC address nor for a group. `Malformed`: it ends within its header.
    #[inline]
    pub fn payload(&self, frame: &Frame, buffer: &[u8]) -> Result<Payload, DropReason> {
        let bytes = buffer.get(..frame.len).ok_or(DropReason::Malformed)?;
        let mut expected = self.tags.iter();
        let mut priority = self.tags.is_empty();
        let mut is_wrong = |kind, control: u16| {
            let id = control & ID_MASK;
            let is_priority = std::mem::take(&mut priority) && id == 0;
            !is_priority && expected.next() != Some((kind, id))
        };
        if let Some((kind, control)) = frame.stripped_tag
            && is_wrong(kind, control)
        {
            return Err(DropReason::VlanTag);
        }
        let mut at = ADDRESSES;
        let mut ethertype = half(bytes, at)?;
        while ethertype == CUSTOMER_TAG || ethertype == SERVICE_TAG {
            let control = half(bytes, at + 2)?;
            if is_wrong(ethertype, control) {
                return Err(DropReason::VlanTag);
            }
            at += TAG_LEN;
            ethertype = half(bytes, at)?;
        }
        if expected.next().is_some() {
            return Err(DropReason::VlanTag);
        }
        let destination = mac(bytes, 0)?;
        if destination != self.mac && destination[0] & 1 == 0 {
            return Err(DropReason::OtherStation);
        }
        Ok(Payload {
            destination,
            source: mac(bytes, 6)?,
            ethertype,
            range: at + 2..frame.len,
        })
    }

    /// Reads a received frame with an IP packet for the link's MAC address; it begins at the start of
    /// `buffer`.
    ///
    /// # Errors
    /// As [`payload`](Self::payload), and `OtherStation` for a group, `EtherType` for what is not IP, `NotIp`
    /// where ethertype and version field disagree, `Malformed` for an offload header that cannot be trusted.
    #[inline]
    pub fn ip(&self, frame: &Frame, buffer: &[u8]) -> Result<IpPayload, DropReason> {
        let payload = self.payload(frame, buffer)?;
        if payload.destination != self.mac {
            return Err(DropReason::OtherStation);
        }
        let (version, number) = match payload.ethertype {
            ETHERTYPE_IPV4 => (Version::V4, 4),
            ETHERTYPE_IPV6 => (Version::V6, 6),
            _ => return Err(DropReason::EtherType),
        };
        let first = buffer
            .get(payload.range.start)
            .filter(|_| !payload.range.is_empty());
        if first.ok_or(DropReason::Malformed)? >> 4 != number {
            return Err(DropReason::NotIp);
        }
        Ok(IpPayload {
            version,
            offload: Offload::decode(&frame.header, payload.range.start as u16)
                .ok_or(DropReason::Malformed)?,
            range: payload.range,
        })
    }
}

impl Prefix {
    /// Its bytes: 14, 18 or 22.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn push(&mut self, field: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(self.len).zip(field) {
            *to = *from;
        }
        self.len += field.len();
    }
}

#[inline]
fn half(bytes: &[u8], at: usize) -> Result<u16, DropReason> {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk);
    Ok(u16::from_be_bytes(*field.ok_or(DropReason::Malformed)?))
}

#[inline]
fn mac(bytes: &[u8], at: usize) -> Result<[u8; 6], DropReason> {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk);
    field.copied().ok_or(DropReason::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::offload::{HEADER_LEN, PartialChecksum};
    use proptest::prelude::*;

    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn links() -> [Framing; 4] {
        [
            (&[][..], 0x8100),
            (&[100], 0x8100),
            (&[100, 10], 0x88a8),
            (&[100, 10], 0x8100),
        ]
        .map(|(ids, kind)| Framing::new(Tags::new(ids, kind).unwrap(), OWN))
    }

    /// What `link` would receive of a packet that its peer sends with `sent`: the kernel takes the outermost
    /// tag out, unless `stripped` is false.
    fn received(sent: &Framing, packet: &[u8], stripped: bool) -> (Frame, Vec<u8>) {
        let mut bytes = sent.ip_prefix(OWN, Version::V4).bytes().to_vec();
        bytes[6..12].copy_from_slice(&PEER);
        bytes.extend(packet);
        let mut stripped_tag = None;
        if let (true, Some((kind, _))) = (stripped, sent.tags().outer()) {
            // Priority bits do not belong to the id.
            let control = u16::from_be_bytes([bytes[14], bytes[15]]) | 0xe000;
            stripped_tag = Some((kind, control));
            bytes.drain(12..16);
        }
        let frame = Frame {
            len: bytes.len(),
            header: [0; HEADER_LEN],
            packet_type: 3,
            stripped_tag,
        };
        (frame, bytes)
    }

    #[test]
    fn a_frame_comes_back_from_each_link_of_its_own_tags_and_from_no_other() {
        let packet = [0x45, 1, 2, 3];
        for (i, sent) in links().iter().enumerate() {
            for stripped in [true, false] {
                let (frame, bytes) = received(sent, &packet, stripped);
                for (j, link) in links().iter().enumerate() {
                    let result = link.ip(&frame, &bytes);
                    if i == j {
                        let ip = result.unwrap();
                        assert_eq!(bytes[ip.range], packet);
                        assert_eq!(ip.version, Version::V4);
                    } else {
                        assert_eq!(result, Err(DropReason::VlanTag), "{i} at {j}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_priority_tag_on_an_untagged_link_is_no_tag() {
        let packet = [0x45, 1, 2, 3];
        let [untagged, tagged, qinq, _] = links();
        let (mut frame, bytes) = received(&untagged, &packet, true);
        // VLAN 0 with priority 7, beside the frame and in band; either type.
        for kind in [CUSTOMER_TAG, SERVICE_TAG] {
            frame.stripped_tag = Some((kind, 0xe000));
            let ip = untagged.ip(&frame, &bytes).unwrap();
            assert_eq!(bytes[ip.range], packet);
            for link in [tagged, qinq] {
                assert_eq!(link.ip(&frame, &bytes), Err(DropReason::VlanTag));
            }
            let mut in_band = bytes.clone();
            in_band.splice(12..12, [kind.to_be_bytes(), [0xe0, 0]].concat());
            let whole = Frame {
                len: in_band.len(),
                stripped_tag: None,
                ..frame
            };
            let ip = untagged.ip(&whole, &in_band).unwrap();
            assert_eq!(in_band[ip.range], packet);
            // Two of them are one too many, and a priority in front of a VLAN does not take that away.
            let twice = Frame {
                stripped_tag: Some((kind, 0xe000)),
                ..whole
            };
            assert_eq!(untagged.ip(&twice, &in_band), Err(DropReason::VlanTag));
        }
        frame.stripped_tag = Some((CUSTOMER_TAG, 0));
        let (_, vlan) = received(&tagged, &packet, false);
        frame.len = vlan.len();
        assert_eq!(untagged.ip(&frame, &vlan), Err(DropReason::VlanTag));
        // Nor does one stand in front of a link's own tags, beside the frame or in band.
        for link in [tagged, qinq] {
            let (mut frame, mut bytes) = received(&link, &packet, false);
            frame.stripped_tag = None;
            assert!(link.ip(&frame, &bytes).is_ok());
            frame.stripped_tag = Some((CUSTOMER_TAG, 0xe000));
            assert_eq!(link.ip(&frame, &bytes), Err(DropReason::VlanTag));
            bytes.splice(12..12, [0x81, 0, 0xe0, 0]);
            (frame.len, frame.stripped_tag) = (bytes.len(), None);
            assert_eq!(link.ip(&frame, &bytes), Err(DropReason::VlanTag));
        }
    }

    #[test]
    fn a_header_is_14_18_or_22_bytes() {
        let lens = links().map(|link| link.prefix(PEER, 0x0806).bytes().len());
        assert_eq!(lens, [14, 18, 22, 22]);
        assert_eq!(
            links()[2].ip_prefix(PEER, Version::V6).bytes()[12..],
            [0x88, 0xa8, 0, 100, 0x81, 0, 0, 10, 0x86, 0xdd]
        );
    }

    #[test]
    fn checksum_offsets_shrink_by_the_header_as_received() {
        for link in links() {
            let (mut frame, bytes) = received(&link, &[0x45, 0], true);
            let offload = Offload {
                checksum: Some(PartialChecksum {
                    start: 20,
                    offset: 6,
                }),
                ..Offload::default()
            };
            let in_band = (bytes.len() - 2) as u16;
            frame.header = offload.encode(0, in_band);
            assert_eq!(link.ip(&frame, &bytes).unwrap().offload, offload);
            frame.header = offload.encode(0, 0);
            frame.header[6..8].copy_from_slice(&(in_band - 1).to_ne_bytes());
            assert_eq!(link.ip(&frame, &bytes), Err(DropReason::Malformed));
        }
    }

    #[test]
    fn frames_that_are_not_for_us_say_why() {
        let link = links()[0];
        let (frame, good) = received(&link, &[0x45, 0], true);
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            link.ip(&frame, &bytes)
        };
        assert_eq!(with(5, 9), Err(DropReason::OtherStation));
        assert_eq!(with(0, 0xff), Err(DropReason::OtherStation), "a group");
        assert_eq!(with(13, 6), Err(DropReason::EtherType), "ARP");
        assert_eq!(
            with(14, 0x65),
            Err(DropReason::NotIp),
            "IPv6 under IPv4's ethertype"
        );
        let mut group = good.clone();
        group[0] = 0xff;
        assert!(link.payload(&frame, &group).is_ok(), "control hears groups");
    }

    proptest! {
        #[test]
        fn no_frame_makes_it_look_beyond_the_frame(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            len in 0_usize..80,
            header: [u8; HEADER_LEN],
            stripped_tag: Option<(u16, u16)>,
            which in 0_usize..4,
        ) {
            let frame = Frame { len, header, packet_type: 0, stripped_tag };
            if let Ok(ip) = links()[which].ip(&frame, &bytes) {
                prop_assert!(ip.range.start < ip.range.end && ip.range.end <= len);
                prop_assert!(bytes.get(ip.range).is_some());
            }
        }
    }
}
