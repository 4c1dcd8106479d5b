use super::*;
use crate::device::SendError;
use crate::device::link::LinkSocket;
use crate::device::offload::{Gso, GsoKind};
use crate::device::sink::PacketSink;
use crate::device::udp::UdpSocket;
use crate::telemetry::ledger::Totals;
use crate::worker::fixture::{self, SITE, tcp};
use crate::worker::tunnels::Underlay;
use crate::worker::vnet::VnetPort;
use std::cell::RefCell;
use std::io::IoSlice;

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
    let stays = places
        .map(|place| switch.handle_batched(round, Ingress::Path(SITE), &mut batch, place, &plain));
    switch.write_merged(round.now, &batch);
    (switch.ports.vnet.queue.0.take(), stays)
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
    let mut packet = tcp(2, 1, 1, &vec![7; 65_000]);
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
    (switch.ports.vnet.queue.0.take().len(), totals)
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
