//! Out to the virtual network and the links, merged or one by one.

use super::{Packet, Switch, VnetPort, Way};
use crate::device::offload::Offload;
use crate::device::sink::{Devices, PacketSink};
use crate::device::{MAX_PARTS, SendError};
use crate::pipeline::coalesce::{Coalescer, SuperPacket};
use crate::pipeline::egress::Egress;
use crate::pipeline::shape::Shaper;
use crate::telemetry::ledger::{Ledger, Port, Sum};
use crate::worker::link::{LinkPort, MAX_SEGMENT, each_segment, lay_down};
use crypto::tunnel::Endpoint;
use routing::packet::Headers;
use routing::path::{Ingress, PathId};
use std::io::IoSlice;
use std::time::Instant;

impl<E: Endpoint, D: Devices> Switch<E, D> {
    /// The merger of what goes from here to there, and the way of what it has merged; `None` where nothing
    /// is merged, since it could not go out so. A merger that is shaped has packets of one path at a time: others go out first.
    #[inline]
    pub(super) fn merged_way(
        &mut self,
        now: Instant,
        ingress: Ingress,
        to: Egress,
        batch: &[u8],
    ) -> Option<(&mut Coalescer, MergedWay<'_, D>)> {
        let ((Ingress::Path(path), Egress::Vnet) | (Ingress::Vnet, Egress::Path(path))) =
            (ingress, to)
        else {
            return None;
        };
        if to == Egress::Vnet {
            // What it cannot take merged would only be laid down and cut again.
            if !self.vnet.offload {
                return None;
            }
            if self.merging != path && self.shaper.is_some() {
                self.write_merged(now, batch);
                self.merging = path;
            }
            let target = Target::Vnet(&self.vnet);
            let way = MergedWay::<D> {
                target,
                ledger: &self.ledger,
                piece: &mut self.piece,
                shaper: self.shaper.as_deref_mut(),
                path,
            };
            return Some((&mut self.merge, way));
        }
        let Some(&Way::Link(index)) = self.ways.get(usize::from(path.0)) else {
            return None;
        };
        let (link, merge) = (self.links.get_mut(index)?, self.link_merges.get_mut(index)?);
        if !link.merges() {
            return None;
        }
        let way = MergedWay::<D> {
            target: Target::Link(link, now),
            ledger: &self.ledger,
            piece: &mut self.piece,
            shaper: self.shaper.as_deref_mut(),
            path,
        };
        Some((merge, way))
    }

    /// Writes everything of `batch` that is still being merged.
    #[inline]
    pub fn write_merged(&mut self, now: Instant, batch: &[u8]) {
        let mut way = MergedWay::<D> {
            target: Target::Vnet(&self.vnet),
            ledger: &self.ledger,
            piece: &mut self.piece,
            shaper: self.shaper.as_deref_mut(),
            path: self.merging,
        };
        self.merge.flush(batch, &mut |merged| way.send(&merged));
        for (link, merge) in self.links.iter_mut().zip(&mut self.link_merges) {
            if !merge.is_empty() {
                let mut way = MergedWay::<D> {
                    path: link.path(),
                    target: Target::Link(link, now),
                    ledger: &self.ledger,
                    piece: &mut self.piece,
                    shaper: self.shaper.as_deref_mut(),
                };
                merge.flush(batch, &mut |merged| way.send(&merged));
            }
        }
    }

    #[inline]
    pub(super) fn write_vnet(&mut self, packet: Packet<'_>) {
        let (vnet, ledger) = (&self.vnet, &self.ledger);
        let Packet {
            bytes,
            headers,
            offload,
        } = packet;
        let unaided = offload.gso.is_some() && !vnet.takes(offload)
            || offload.checksum.is_some() && !vnet.offload;
        let result = if unaided {
            Err(SendError::GsoRefused)
        } else {
            let parts = [IoSlice::new(bytes)];
            vnet.queue.write(offload, headers.payload, &parts)
        };
        let tally = packet.tally();
        match result {
            Ok(()) => ledger.sent(Port::VNET, tally.packets, tally.bytes),
            Err(SendError::GsoRefused) => {
                if !unaided {
                    ledger.refused(Port::VNET);
                }
                write_segments(vnet, ledger, &mut self.piece, packet);
            }
            Err(error) => ledger.dropped(error.reason(), tally.packets, tally.bytes),
        }
    }
}

/// Where merged packets go.
enum Target<'a, D: Devices> {
    Vnet(&'a VnetPort<D::Vnet>),
    Link(&'a mut LinkPort<D::Link>, Instant),
}

/// The way of merged packets.
pub(super) struct MergedWay<'a, D: Devices> {
    target: Target<'a, D>,
    pub(super) ledger: &'a Ledger,
    piece: &'a mut [u8],
    shaper: Option<&'a mut Shaper>,
    /// The path that they came in by, or go out by.
    path: PathId,
}

impl<D: Devices> MergedWay<'_, D> {
    #[inline]
    pub(super) fn send(&mut self, merged: &SuperPacket<'_>) {
        if let Some(shaper) = &mut self.shaper {
            let tally = Sum {
                packets: merged.segments as u64,
                bytes: merged.wire_len() as u64,
            };
            let (from, to) = match self.target {
                Target::Vnet(_) => (Ingress::Path(self.path), Egress::Vnet),
                Target::Link(..) => (Ingress::Vnet, Egress::Path(self.path)),
            };
            if let Some(lane) = shaper.admit(from, to, tally) {
                let what = (None, &merged.offload, tally);
                shaper.wait(lane, to, merged.slices(), what, self.ledger);
                return;
            }
        }
        match &mut self.target {
            Target::Vnet(vnet) => write_merged(vnet, self.ledger, self.piece, merged),
            Target::Link(link, now) => link.send_merged(*now, merged),
        }
    }
}

/// Writes one merged packet, or its parts one by one where the device refuses it.
#[inline]
fn write_merged<V: PacketSink>(
    vnet: &VnetPort<V>,
    ledger: &Ledger,
    piece: &mut [u8],
    merged: &SuperPacket<'_>,
) {
    let mut parts = [IoSlice::new(&[]); MAX_PARTS];
    let mut count = 0;
    for (part, slice) in parts.iter_mut().zip(merged.slices()) {
        *part = IoSlice::new(slice);
        count += 1;
    }
    let parts = parts.get(..count).unwrap_or_default();
    let (packets, bytes) = (merged.segments as u64, merged.wire_len() as u64);
    let header_len = merged.header.len() as u16;
    match vnet.queue.write(&merged.offload, header_len, parts) {
        Ok(()) => ledger.sent(Port::VNET, packets, bytes),
        Err(SendError::GsoRefused) => {
            if vnet.takes(&merged.offload) {
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
                    write_segments(vnet, ledger, piece, packet);
                }
                Err(reason) => ledger.dropped(reason, packets, bytes),
            }
        }
        Err(error) => ledger.dropped(error.reason(), packets, bytes),
    }
}

/// Cuts a packet that the device does not take whole, and writes its segments.
fn write_segments<V: PacketSink>(
    vnet: &VnetPort<V>,
    ledger: &Ledger,
    piece: &mut [u8],
    packet: Packet<'_>,
) {
    let Packet {
        bytes,
        headers,
        offload,
    } = packet;
    each_segment(bytes, headers, offload, piece, ledger, |segment| {
        let parts = [IoSlice::new(segment)];
        let length = segment.len() as u64;
        match vnet.queue.write(&Offload::default(), 0, &parts) {
            Ok(()) => ledger.sent(Port::VNET, 1, length),
            Err(error) => ledger.dropped(error.reason(), 1, length),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::link::LinkSocket;
    use crate::device::offload::{Gso, GsoKind};
    use crate::device::udp::UdpSocket;
    use crate::telemetry::ledger::Totals;
    use crate::worker::fixture::{self, SITE, tcp};
    use crate::worker::switch::Round;
    use crate::worker::tunnels::Underlay;
    use std::cell::RefCell;

    /// A device in memory; what was written, and whether that was a super-packet.
    #[derive(Default)]
    struct Device(RefCell<Vec<(Vec<u8>, bool)>>);

    impl PacketSink for Device {
        fn write(&self, offload: &Offload, _: u16, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
            let bytes = parts.iter().flat_map(|part| part.to_vec()).collect();
            self.0.borrow_mut().push((bytes, offload.gso.is_some()));
            Ok(())
        }
    }

    struct Memory;

    impl Devices for Memory {
        type Vnet = Device;
        type Link = LinkSocket;
        type Underlay = UdpSocket;
    }

    /// Three segments of one flow in one batch from the site; what the virtual network's device has been given, and
    /// which of them had to stay where they lay.
    fn three_segments(offload: bool) -> (Vec<(Vec<u8>, bool)>, [bool; 3]) {
        let vnet = VnetPort {
            queue: Device::default(),
            offload,
            uso: offload,
        };
        let mut switch = fixture::switch::<Memory>(vnet, Underlay::default());
        let forwarding = fixture::forwarding();
        let round = Round {
            now: Instant::now(),
            forwarding: &forwarding,
        };
        let mut batch = Vec::new();
        let places = [1, 101, 201].map(|sequence| {
            let (at, packet) = (batch.len(), tcp(2, 1, sequence, &[7; 100]));
            batch.extend_from_slice(&packet);
            (at, packet.len())
        });
        let plain = Offload::default();
        let stays = places.map(|place| {
            switch.handle_batched(round, Ingress::Path(SITE), &mut batch, place, &plain)
        });
        switch.write_merged(round.now, &batch);
        (switch.vnet.queue.0.take(), stays)
    }

    #[test]
    fn a_device_with_offload_gets_a_flow_in_one_piece() {
        let (written, stays) = three_segments(true);
        let written: Vec<_> = written.iter().map(|(p, gso)| (p.len(), *gso)).collect();
        assert_eq!(written, [(40 + 300, true)]);
        assert_eq!(stays, [true; 3]);
    }

    #[test]
    fn for_a_device_without_offload_nothing_is_merged_to_be_cut_again() {
        let (written, stays) = three_segments(false);
        let written: Vec<_> = written.iter().map(|(p, gso)| (p.len(), *gso)).collect();
        assert_eq!(written, [(140, false); 3]);
        assert_eq!(stays, [false; 3], "copied once, and gone");
    }

    /// A guest may say any segment size. What became of a super-packet of 65,000 bytes: packets that were written, and
    /// the books.
    fn in_segments_of(size: u16) -> (usize, Totals) {
        let vnet = VnetPort {
            queue: Device::default(),
            offload: false,
            uso: false,
        };
        let mut switch = fixture::switch::<Memory>(vnet, Underlay::default());
        let forwarding = fixture::forwarding();
        let round = Round {
            now: Instant::now(),
            forwarding: &forwarding,
        };
        let mut packet = tcp(2, 1, 1, &[7; 65_000]);
        let gso = Gso {
            kind: GsoKind::Tcp4,
            size,
            ecn: false,
        };
        let offload = Offload {
            gso: Some(gso),
            ..Offload::default()
        };
        let place = (0, packet.len());
        switch.handle_batched(round, Ingress::Path(SITE), &mut packet, place, &offload);
        let ports = ["vnet", "local", "underlay", "site"].map(str::to_owned);
        let totals = Totals::of([&*switch.ledger], &ports);
        (switch.vnet.queue.0.take().len(), totals)
    }

    #[test]
    fn a_super_packet_of_a_byte_a_segment_is_one_drop() {
        let (written, totals) = in_segments_of(1);
        assert_eq!(written, 0);
        let [received, dropped] = [&totals.received, &totals.dropped]
            .map(|sums| sums.values().map(|sum| sum.packets).sum::<u64>());
        assert_eq!((received, dropped), (1, 1), "{totals:?}");
        assert_eq!(totals.dropped["too_many_segments"].packets, 1);
        // Up to what Linux makes of 64 KB at most it is none of our business.
        for size in [1_448, 36, 32] {
            let (written, totals) = in_segments_of(size);
            assert_eq!(written, 65_000_usize.div_ceil(size.into()), "{totals:?}");
        }
        assert_eq!(in_segments_of(31).0, 0);
    }
}
