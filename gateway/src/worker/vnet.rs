//! The virtual network's port: packets and super-packets out to its device, whole where the device takes them so.

use crate::device::offload::{GsoKind, Offload};
use crate::device::sink::PacketSink;
use crate::device::tun::TunQueue;
use crate::device::{MAX_PARTS, SendError};
use crate::pipeline::coalesce::SuperPacket;
use crate::telemetry::ledger::{Ledger, Port};
use crate::worker::link::lay_down;
use crate::worker::packet::{MAX_SEGMENT, Packet};
use routing::packet::Headers;
use std::io::IoSlice;

/// The TUN queue with what it can take.
pub struct VnetPort<V = TunQueue> {
    /// The queue.
    pub queue: V,
    /// Whether it has a virtio-net header: TCP super-packets and partial checksums.
    pub offload: bool,
    /// Whether it takes UDP super-packets too (USO, Linux 6.2).
    pub uso: bool,
}

impl<V> VnetPort<V> {
    fn takes(&self, offload: &Offload) -> bool {
        self.offload && (self.uso || offload.gso.is_none_or(|gso| gso.kind != GsoKind::Udp))
    }
}

impl<V: PacketSink> VnetPort<V> {
    /// Writes a packet, or its segments one by one where the device does not take it whole; they are cut in `piece`.
    #[inline]
    pub(super) fn write(&self, packet: Packet<'_>, ledger: &Ledger, piece: &mut [u8]) {
        let Packet {
            bytes,
            headers,
            offload,
        } = packet;
        let unaided = offload.gso.is_some() && !self.takes(offload)
            || offload.checksum.is_some() && !self.offload;
        let result = if unaided {
            Err(SendError::GsoRefused)
        } else {
            let parts = [IoSlice::new(bytes)];
            self.queue.write(offload, headers.payload, &parts)
        };
        let tally = packet.tally();
        match result {
            Ok(()) => ledger.sent(Port::VNET, tally.packets, tally.bytes),
            Err(SendError::GsoRefused) => {
                if !unaided {
                    ledger.refused(Port::VNET);
                }
                self.write_segments(packet, ledger, piece);
            }
            Err(error) => ledger.dropped(error.reason(), tally.packets, tally.bytes),
        }
    }

    /// Writes one merged packet, or its parts one by one where the device refuses it.
    #[inline]
    pub(super) fn write_merged(&self, merged: &SuperPacket<'_>, ledger: &Ledger, piece: &mut [u8]) {
        let mut parts = [IoSlice::new(&[]); MAX_PARTS];
        let mut count = 0;
        for (part, slice) in parts.iter_mut().zip(merged.slices()) {
            *part = IoSlice::new(slice);
            count += 1;
        }
        let parts = parts.get(..count).unwrap_or_default();
        let (packets, bytes) = (merged.segments as u64, merged.wire_len() as u64);
        let header_len = merged.header.len() as u16;
        match self.queue.write(&merged.offload, header_len, parts) {
            Ok(()) => ledger.sent(Port::VNET, packets, bytes),
            Err(SendError::GsoRefused) => {
                if self.takes(&merged.offload) {
                    ledger.refused(Port::VNET);
                }
                // Lay it down in one piece, then cut it as if a device had merged it.
                let (whole, piece) = piece.split_at_mut(MAX_SEGMENT.min(piece.len()));
                let whole = lay_down(merged, whole);
                match Headers::parse(whole) {
                    Ok(headers) => {
                        let packet = Packet {
                            bytes: whole,
                            headers: &headers,
                            offload: &merged.offload,
                        };
                        self.write_segments(packet, ledger, piece);
                    }
                    Err(reason) => ledger.dropped(reason, packets, bytes),
                }
            }
            Err(error) => ledger.dropped(error.reason(), packets, bytes),
        }
    }

    /// Cuts a packet that the device does not take whole, and writes its segments.
    fn write_segments(&self, packet: Packet<'_>, ledger: &Ledger, piece: &mut [u8]) {
        packet.each_segment(piece, ledger, |segment| {
            let parts = [IoSlice::new(segment)];
            let length = segment.len() as u64;
            match self.queue.write(&Offload::default(), 0, &parts) {
                Ok(()) => ledger.sent(Port::VNET, 1, length),
                Err(error) => ledger.dropped(error.reason(), 1, length),
            }
        });
    }
}
