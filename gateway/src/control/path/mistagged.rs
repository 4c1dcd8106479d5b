//! Frames that are meant for a link and come with other VLAN tags than its own: the far end is configured for another
//! VLAN, or somebody in between has added a tag or taken one off. Neither of the link's two sockets takes them, so
//! without this nothing would tell them from silence.
//!
//! A socket of its own sees the first bytes of each ([`filter::mistagged`]). Nobody waits for it: it is looked at once
//! a second, and what does not fit into its few kilobytes is only counted, so a flood costs nothing beyond the filter.

use crate::device::filter::{self, MISTAGGED_LEN};
use crate::device::link::{Frame, LinkOptions, LinkSocket};
use crate::device::vlan::{CUSTOMER_TAG, ID_MASK, SERVICE_TAG, Tags};
use crate::device::{DeviceError, ReceiveError};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Frames that are read in one look; the rest is thrown away.
const FRAMES: usize = 16;
/// The socket's receive buffer, bytes; the kernel makes it 4.6 KB at least.
const BUFFER: usize = 16 << 10;

/// What has been seen of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Frames so far.
    pub frames: u64,
    /// The tags of the last ones that were read, outermost first, as `show circuits` says a link's: `untagged`,
    /// `VLAN 200`, `QinQ 100.20 (0x88a8)`.
    pub tags: String,
}

/// The socket of one link.
pub(crate) struct Mistagged {
    socket: LinkSocket,
}

impl Mistagged {
    /// Opens it on the link's interface. `mac`: the link's own address, if it has one.
    pub(crate) fn open(
        interface: &str,
        tags: Tags,
        mac: Option<[u8; 6]>,
        own: &[IpAddr],
    ) -> Result<Self, DeviceError> {
        let program = filter::mistagged(tags, mac, own);
        let socket = LinkSocket::open(&LinkOptions {
            offload: false,
            receive_buffer: BUFFER,
            send_buffer: 0,
            ..LinkOptions::new(interface, &program)
        })?;
        Ok(Self { socket })
    }

    /// Adds what has come since the last look; how many frames that is.
    pub(crate) fn look(&self, seen: &mut Seen) -> u64 {
        let new = self.socket.kernel_frames();
        if new == 0 {
            return 0;
        }
        seen.frames += new;
        let mut buffer = [0; MISTAGGED_LEN as usize];
        for _ in 0..FRAMES {
            match self.socket.receive(&mut buffer) {
                Ok(Some(frame)) => seen.tags = tags_of(&frame, &buffer),
                Err(ReceiveError::Malformed) => {}
                Ok(None) | Err(_) => break,
            }
        }
        new
    }
}

/// The tags of a frame, in words.
fn tags_of(frame: &Frame, bytes: &[u8]) -> String {
    const ETHERTYPE_AT: usize = 12;
    let bytes = bytes.get(..frame.len).unwrap_or(bytes);
    let half = |at: usize| {
        let field = bytes.get(at..)?.first_chunk()?;
        Some(u16::from_be_bytes(*field))
    };
    let is_tag = |kind: &u16| [CUSTOMER_TAG, SERVICE_TAG].contains(kind);
    let mut tags: Vec<_> = frame.stripped_tag.into_iter().collect();
    let mut at = ETHERTYPE_AT;
    while let Some(kind) = half(at).filter(is_tag)
        && let Some(control) = half(at + 2)
    {
        tags.push((kind, control));
        at += 4;
    }
    let ids: Vec<_> = tags.iter().map(|(_, control)| control & ID_MASK).collect();
    let kind = tags.first().map_or(CUSTOMER_TAG, |(kind, _)| *kind);
    match ids[..] {
        // A tag that the frame's end cuts off is one all the same.
        [] if half(ETHERTYPE_AT).is_some_and(|kind| is_tag(&kind)) => "a tag cut short".to_owned(),
        [] => "untagged".to_owned(),
        [id] if kind == CUSTOMER_TAG => format!("VLAN {id}"),
        [id] => format!("VLAN {id} ({kind:#06x})"),
        [0, inner] => format!("VLAN {inner} behind a priority tag"),
        [outer, inner] => format!("QinQ {outer}.{inner} ({kind:#06x})"),
        _ => format!("{} tags, the outermost VLAN {}", ids.len(), ids[0]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::offload::HEADER_LEN;

    #[test]
    fn tags_are_said_as_a_links_are() {
        let said = |stripped_tag, tags: &[(u16, u16)]| {
            let mut bytes = vec![0; 12];
            for (kind, control) in tags {
                bytes.extend([kind.to_be_bytes(), control.to_be_bytes()].concat());
            }
            bytes.extend([8, 6]);
            let frame = Frame {
                len: bytes.len(),
                header: [0; HEADER_LEN],
                packet_type: 1,
                stripped_tag,
            };
            tags_of(&frame, &bytes)
        };
        assert_eq!(said(None, &[]), "untagged");
        assert_eq!(said(Some((0x8100, 0xe0c8)), &[]), "VLAN 200");
        assert_eq!(said(None, &[(0x8100, 200)]), "VLAN 200");
        assert_eq!(said(Some((0x88a8, 100)), &[]), "VLAN 100 (0x88a8)");
        let qinq = Tags::new(&[100, 10], SERVICE_TAG).unwrap().to_string();
        assert_eq!(said(Some((0x88a8, 100)), &[(0x8100, 10)]), qinq);
        let priority = said(Some((0x8100, 0xe000)), &[(0x8100, 100)]);
        assert_eq!(priority, "VLAN 100 behind a priority tag");
        let three = said(Some((0x88a8, 1)), &[(0x8100, 2), (0x8100, 3)]);
        assert_eq!(three, "3 tags, the outermost VLAN 1");
    }
}
