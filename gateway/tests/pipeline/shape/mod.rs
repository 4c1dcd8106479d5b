//! The shaper over a clock that the tests turn: what gets through at every tier of Azure's tables, by one
//! worker and by several that share the limits ([`tiers`]), what becomes of the packets that wait ([`queue`]), and how
//! TCP fares ([`transfer`]).

mod queue;
mod tiers;
mod transfer;

use crate::packets::{Spec, parse};
use gateway::device::offload::Offload;
use gateway::pipeline::process::Egress;
use gateway::pipeline::shape::{Limit, RateLimits, Rates, Release, Scope, Shaper};
use gateway::telemetry::ledger::{Ledger, Port, Sum, Totals};
use routing::packet::Headers;
use routing::path::Ingress;
use std::sync::Arc;
use std::time::Instant;

/// A packet to send, with what it is on the wire.
#[derive(Clone)]
struct Sample {
    bytes: Vec<u8>,
    headers: Headers,
    offload: Offload,
    tally: Sum,
}

impl Sample {
    fn new(bytes: Vec<u8>, offload: Offload) -> Self {
        let headers = parse(&bytes);
        let header = usize::from(headers.payload);
        let packets = offload.segments(bytes.len() - header);
        let tally = Sum {
            packets,
            bytes: bytes.len() as u64 + (packets - 1) * header as u64,
        };
        Self {
            bytes,
            headers,
            offload,
            tally,
        }
    }

    /// A UDP packet of so many bytes.
    fn plain(len: usize) -> Self {
        Self::new(Spec::udp(len - 28).build(), Offload::default())
    }

    /// 64 KB of TCP in segments of 1,368 bytes.
    fn super_packet() -> Self {
        let (bytes, offload) = Spec::tcp(64_000).build_partial(1_368);
        Self::new(bytes, offload)
    }
}

fn limit(name: &str, scope: Scope, rates: Rates) -> Limit {
    Limit {
        name: name.into(),
        scope,
        rates,
    }
}

fn rates(mbps: u64, packets: Option<u64>) -> Rates {
    Rates {
        bits_per_second: Some(mbps * 1_000_000),
        packets_per_second: packets,
    }
}

/// One gateway with a path for each tunnel, or one path if tunnels have no limit of their own.
fn limits(workers: usize, gateway: Rates, tunnel: Rates, tunnels: usize) -> Arc<RateLimits> {
    let mut all = vec![limit("gateway", Scope::Gateway, gateway)];
    let mut paths = Vec::new();
    for index in 0..tunnels {
        paths.push(vec![0, all.len()]);
        all.push(limit(&format!("tunnel {index}"), Scope::Tunnel, tunnel));
    }
    RateLimits::new(workers, &all, &paths, Instant::now(), None).unwrap()
}

/// A worker as far as the shaper sees it.
struct Worker {
    shaper: Shaper,
    ledger: Ledger,
}

impl Worker {
    fn new(now: Instant, limits: &Arc<RateLimits>) -> Self {
        Self {
            shaper: Shaper::new(now, Arc::clone(limits)),
            ledger: Ledger::new(3),
        }
    }

    /// One packet; true if it went at once.
    fn offer(&mut self, ingress: Ingress, to: Egress, packet: &Sample) -> bool {
        let Sum { packets, bytes } = packet.tally;
        self.ledger.received(Port::VNET, packets, bytes);
        let Some(lane) = self.shaper.admit(ingress, to, packet.tally) else {
            self.ledger.sent(Port::LOCAL, packets, bytes);
            return true;
        };
        let what = (Some(&packet.headers), &packet.offload, packet.tally);
        let pieces = std::iter::once(&packet.bytes[..]);
        self.shaper.wait(lane, to, pieces, what, &self.ledger);
        false
    }

    fn drain(&mut self, mut sent: impl FnMut(&Release<'_>)) {
        let ledger = &self.ledger;
        self.shaper.drain(ledger, |release| {
            ledger.sent(Port::LOCAL, release.tally.packets, release.tally.bytes);
            sent(&release);
        });
    }

    fn totals(&self) -> Totals {
        let names = ["vnet", "local", "underlay"].map(str::to_owned);
        Totals::of([&self.ledger], &names)
    }
}
