//! What one core moves, by CPU time of the thread: wall time of a shared machine measures the neighbours
//! too. A figure is the median of the samples; the fastest stands beside it.
//!
//! - ExpressRoute out: virtio-net header read, parse, decide, hop limit, ledger, shaper, next hop, layer 2
//!   header
//! - ExpressRoute in: tags and addresses, parse, decide, hop limit, ledger, shaper
//! - VPN out: as out, then split into a train with checksums, padded and sealed
//! - VPN in: opened, source check, decide, hop limit, ledger, coalesced over the batch with
//!   checksums, shaper
//!
//! The system calls of devices, and the kernel's copies in them, are left out.

use super::Failure;
use super::gateway::{
    Gateway, Laid, MTU, Moved, OUTER_TAG, TUNNEL_MTU, VNET, circuit_nets, from_vnet, pair,
    received_layer2, site_nets,
};
use super::traffic::{Form, Packet, Size, packets};
use crate::cpu_time::CpuTime;
use criterion::measurement::Measurement as _;
use gateway::device::link::Frame;
use gateway::worker::run::{ALIGNMENT, BYTES, PACKETS, next_batch};
use serde::Serialize;
use std::time::Duration;

/// A way through the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// From the virtual network to a link.
    ExpressRouteOut,
    /// From a link to the virtual network.
    ExpressRouteIn,
    /// From the virtual network into a tunnel.
    VpnOut,
    /// Out of a tunnel into the virtual network.
    VpnIn,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::ExpressRouteOut,
        Self::ExpressRouteIn,
        Self::VpnOut,
        Self::VpnIn,
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::ExpressRouteOut => "ExpressRoute out",
            Self::ExpressRouteIn => "ExpressRoute in",
            Self::VpnOut => "VPN out",
            Self::VpnIn => "VPN in",
        }
    }

    fn mtu(self) -> u16 {
        match self {
            Self::ExpressRouteOut | Self::ExpressRouteIn => MTU,
            Self::VpnOut | Self::VpnIn => TUNNEL_MTU,
        }
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Samples of each figure.
    pub samples: usize,
    /// Packets of a sample at least.
    pub packets: u64,
}

impl Effort {
    /// For figures that are written down: about half a minute.
    pub const FULL: Self = Self {
        samples: 31,
        packets: 40_000,
    };
    /// For a look: about five seconds.
    pub const QUICK: Self = Self {
        samples: 5,
        packets: 20_000,
    };
    /// For tests: the figures mean nothing.
    pub const TINY: Self = Self {
        samples: 1,
        packets: 1_000,
    };
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Rate {
    /// Which way.
    pub way: Way,
    /// What size.
    pub size: Size,
    /// One by one or as super-packets.
    pub form: Form,
    /// Mean length of an IP packet as the wire carries it, bytes.
    pub packet_bytes: f64,
    /// CPU time of a packet, nanoseconds: the median of the samples.
    pub nanoseconds: f64,
    /// That of the fastest sample.
    pub fastest_nanoseconds: f64,
    /// Packets per second of one core, from the median.
    pub packets_per_second: f64,
    /// Bits of IP packets per second of one core, from the median.
    pub bits_per_second: f64,
}

/// Packets that are sealed before the clock is read and they are opened: about one long receive batch.
const BATCH: u64 = 512;

/// Measures every way, size and form; `step` hears which is next.
///
/// # Errors
/// The gateway could not be set up, or dropped a packet: then there is nothing to report.
pub fn measure(
    effort: Effort,
    mut step: impl FnMut(Way, Size, Form),
) -> Result<Vec<Rate>, Failure> {
    let mut rates = Vec::new();
    for way in Way::ALL {
        for size in Size::ALL {
            for form in [Form::Single, Form::Super] {
                // A host has no reason to send small segments as a super-packet.
                if form == Form::Super && matches!(size, Size::Small | Size::Imix) {
                    continue;
                }
                step(way, size, form);
                rates.push(one(way, size, form, effort)?);
            }
        }
    }
    Ok(rates)
}

fn one(way: Way, size: Size, form: Form, effort: Effort) -> Result<Rate, Failure> {
    let mut pair = pair()?;
    let (circuit, site) = (circuit_nets(), site_nets());
    let [from, to] = match way {
        Way::ExpressRouteOut => [&[VNET][..], &circuit],
        Way::ExpressRouteIn => [&circuit[..], &[VNET]],
        Way::VpnOut => [&[VNET][..], &site],
        Way::VpnIn => [&site[..], &[VNET]],
    };
    let mut bench = Bench::new(way);
    let packets = packets([from, to], size, form, way.mtu(), bench.layer2 as u16);
    let mut stream = packets.iter().cycle();

    // Every flow has been seen before the first sample, so that the flow cache knows it.
    let all: u64 = packets.iter().map(|packet| packet.segments).sum();
    let warm = if form == Form::Single { 2 * all } else { all };
    bench.sample(&mut pair, &mut stream, warm.min(50 * effort.packets));
    let before = books(&pair)?;

    let mut samples = Vec::with_capacity(effort.samples);
    let mut moved = Moved::default();
    for _ in 0..effort.samples {
        let (time, sample) = bench.sample(&mut pair, &mut stream, effort.packets);
        samples.push(time.as_nanos() as f64 / sample.packets as f64);
        moved.packets += sample.packets;
        moved.bytes += sample.bytes;
    }
    let sent = books(&pair)? - before;
    if sent != moved.packets {
        return Err(format!(
            "{}, {}: {} packets went in, {sent} came out",
            way.name(),
            size.name(),
            moved.packets
        )
        .into());
    }

    samples.sort_by(f64::total_cmp);
    let at = |place: usize| samples.get(place).copied().unwrap_or(f64::NAN);
    let nanoseconds = at(samples.len() / 2);
    let packet_bytes = moved.bytes as f64 / moved.packets as f64;
    let packets_per_second = 1e9 / nanoseconds;
    Ok(Rate {
        way,
        size,
        form,
        packet_bytes,
        nanoseconds,
        fastest_nanoseconds: at(0),
        packets_per_second,
        bits_per_second: packets_per_second * packet_bytes * 8.0,
    })
}

/// What the first gateway has sent, if its books say that nothing else happened.
fn books([near, _]: &[Gateway; 2]) -> Result<u64, Failure> {
    let totals = near.totals();
    if !totals.dropped.is_empty() {
        return Err(format!("packets were dropped: {:?}", totals.dropped).into());
    }
    // The gateway's own, a handshake, are booked at its host.
    let own = |(name, _): &(&String, _)| *name != "local";
    let sent = totals.sent.iter().filter(own);
    Ok(sent.map(|(_, sum)| sum.packets).sum())
}

/// Buffers of one measurement.
struct Bench {
    way: Way,
    /// A device's buffer, as long as a worker's.
    buffer: Vec<u8>,
    /// Bytes of layer 2 header at its front.
    layer2: usize,
    /// Sealed trains on their way to the gateway that opens them.
    laid: Laid,
}

impl Bench {
    fn new(way: Way) -> Self {
        let mut buffer = match way {
            Way::ExpressRouteIn => received_layer2(),
            Way::ExpressRouteOut | Way::VpnOut | Way::VpnIn => Vec::new(),
        };
        let layer2 = buffer.len();
        // Bytes without a pattern that a checksum could profit from.
        let payload = 0..BYTES as u32 + 65_700;
        buffer.extend(payload.map(|index| (index.wrapping_mul(2_654_435_761) >> 15) as u8));
        Self {
            way,
            buffer,
            layer2,
            laid: Laid::default(),
        }
    }

    /// Moves at least `wanted` packets and gives the CPU time of the gateway that is measured, the first.
    fn sample<'a>(
        &mut self,
        [near, far]: &mut [Gateway; 2],
        stream: &mut impl Iterator<Item = &'a Packet>,
        wanted: u64,
    ) -> (Duration, Moved) {
        let (mut time, mut moved) = (Duration::ZERO, Moved::default());
        if self.way == Way::VpnIn {
            while moved.packets < wanted {
                self.seal(far, stream, &mut moved);
                let start = CpuTime.start();
                self.open(near);
                time += CpuTime.end(start);
            }
        } else {
            let start = CpuTime.start();
            while moved.packets < wanted {
                match self.way {
                    Way::ExpressRouteIn => self.take_link(near, stream, &mut moved),
                    _ => from_vnet(near, stream, &mut self.buffer, &mut moved),
                }
            }
            time = CpuTime.end(start);
        }
        (time, moved)
    }

    /// One round of frames from a link.
    fn take_link<'a>(
        &mut self,
        gateway: &mut Gateway,
        stream: &mut impl Iterator<Item = &'a Packet>,
        moved: &mut Moved,
    ) {
        gateway.round(|switch, round| {
            let (before, mut read, mut at) = (moved.packets, 0, 0);
            for packet in stream.take(PACKETS) {
                self.buffer.copy_within(..self.layer2, at);
                if let Some(ip) = self.buffer.get_mut(at + self.layer2..) {
                    packet.lay(ip);
                }
                let frame = Frame {
                    len: self.layer2 + usize::from(packet.len),
                    header: packet.virtio,
                    packet_type: 0,
                    stripped_tag: Some(OUTER_TAG),
                };
                if switch.handle_frame(round, 0, &frame, &mut self.buffer, at) {
                    at += frame.len.next_multiple_of(ALIGNMENT);
                }
                moved.add(packet);
                read += frame.len;
                if read >= BYTES {
                    break;
                }
            }
            switch.write_merged(round.now, &self.buffer);
            moved.packets - before
        });
    }

    /// The other gateway's part: as many rounds as it takes for [`BATCH`] packets.
    fn seal<'a>(
        &mut self,
        far: &mut Gateway,
        stream: &mut impl Iterator<Item = &'a Packet>,
        moved: &mut Moved,
    ) {
        far.keep(true);
        let until = moved.packets + BATCH;
        while moved.packets < until {
            from_vnet(far, stream, &mut self.buffer, moved);
        }
        far.take(&mut self.laid);
    }

    /// Opens all that has been sealed, in batches as long as a worker's.
    fn open(&mut self, near: &mut Gateway) {
        let Laid { bytes, trains } = &mut self.laid;
        let size = next_batch(trains.len(), bytes.len());
        for batch in trains.chunks(size) {
            near.round(|switch, round| {
                switch.handle_trains(round, 0, bytes, batch.iter().copied());
                let datagrams = batch.iter().map(|train| train.len.div_ceil(train.stride));
                datagrams.sum::<usize>() as u64
            });
        }
    }
}
