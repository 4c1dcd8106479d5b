//! A packet on its way through a worker.

use crate::device::offload::Offload;
use crate::pipeline::forward::on_the_wire;
use crate::pipeline::process::Forwarding;
use crate::pipeline::split::Segments;
use crate::telemetry::ledger::{Ledger, Sum};
use routing::packet::Headers;
use routing::reason::DropReason;
use std::time::Instant;

/// The longest segment that can be cut out of a super-packet, bytes: 64 KB of IPv6 payload and its headers.
pub(crate) const MAX_SEGMENT: usize = 65_575;

/// What is the same for all packets of a round.
#[derive(Clone, Copy)]
pub struct Round<'a> {
    /// The clock, read once.
    pub now: Instant,
    /// The forwarding state, loaded once.
    pub forwarding: &'a Forwarding,
}

/// A packet that has been parsed and is as long as it says.
#[derive(Clone, Copy)]
pub(crate) struct Packet<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) headers: &'a Headers,
    pub(crate) offload: &'a Offload,
}

impl Packet<'_> {
    /// Packets and bytes as the wire carries them: a super-packet counts each segment with its headers.
    #[inline]
    pub(crate) fn tally(&self) -> Sum {
        on_the_wire(self.headers, self.offload)
    }

    /// Cuts it into what the wire carries, in `scratch`, and gives each segment to `send`. What cannot
    /// be cut is booked as dropped.
    pub(crate) fn each_segment(
        &self,
        scratch: &mut [u8],
        ledger: &Ledger,
        mut send: impl FnMut(&[u8]),
    ) {
        let mut left = self.tally();
        let mut cut = || -> Result<(), DropReason> {
            let mut segments = Segments::new(self.bytes, self.headers, self.offload)?;
            while let Some(length) = segments.next_into(scratch) {
                let segment = scratch.get(..length?).ok_or(DropReason::TooBig)?;
                send(segment);
                left.packets = left.packets.saturating_sub(1);
                left.bytes = left.bytes.saturating_sub(segment.len() as u64);
            }
            Ok(())
        };
        let reason = cut().err().unwrap_or(DropReason::Malformed);
        if left.packets > 0 {
            ledger.dropped(reason, left.packets, left.bytes);
        }
    }
}
