//! What crosses over between workers: packets for another's tunnel, datagrams for another's session.

use super::Switch;
use crate::device::sink::Devices;
use crate::pipeline::forward::on_the_wire;
use crate::telemetry::ledger::{Port, Sum};
use crate::worker::handoff::{BATCHES, Batch, Cargo, Handed};
use crate::worker::packet::{Packet, Round};
use crate::worker::ways::Way;
use crypto::tunnel::Endpoint;
use routing::path::PathId;
use routing::reason::DropReason;
use std::time::Instant;

impl<E: Endpoint, D: Devices> Switch<E, D> {
    /// Lays a packet into the batch for the worker that owns its tunnel.
    #[inline]
    pub(super) fn cross(&mut self, worker: usize, path: PathId, packet: Packet<'_>) {
        let cargo = Cargo::Packet {
            path,
            headers: *packet.headers,
            offload: *packet.offload,
        };
        if self.exchange.lay(worker, packet.bytes, cargo) {
            self.ledger.hold(packet.tally().packets);
        } else {
            self.drop(DropReason::HandoverFull, packet);
        }
    }

    /// Offers calls of nobody who is known here to the next worker, which answers and books them.
    #[inline]
    pub fn hand_calls_on(&mut self) {
        while let Some((call, local, length)) = self.ports.tunnels.base_mut().take_foreign() {
            self.hand_on(Handed {
                place: None,
                call,
                local,
                length,
            });
        }
        for place in 0..self.ports.privates.len() {
            while let Some(private) = self.ports.privates.get_mut(place)
                && let Some((call, local, length)) = private.tunnels.take_foreign()
            {
                self.hand_on(Handed {
                    place: Some(place as u8),
                    call,
                    local,
                    length,
                });
            }
        }
    }

    #[cold]
    fn hand_on(&self, call: Handed) {
        if let Err(Handed { length, .. }) = self.exchange.offer(call) {
            self.drop_call(DropReason::HandoverFull, length);
        }
    }

    pub(super) fn drop_call(&self, reason: DropReason, length: u64) {
        self.ledger.received(Port::UNDERLAY, 1, length);
        self.ledger.dropped(reason, 1, length);
    }

    /// Sends every batch that is open. Called at the end of every round, which has this number.
    #[inline]
    pub fn send_parcels(&mut self, number: u64, now: Instant) {
        self.exchange.end_round(number, now);
    }

    /// Takes what other workers have for this one; true if there was something.
    #[inline]
    pub fn take_parcels(&mut self, round: Round<'_>) -> bool {
        let mut some = false;
        for index in 0..self.exchange.entrances() {
            while let Some(Handed {
                place,
                call,
                local,
                length,
            }) = self.exchange.take_call(index)
            {
                some = true;
                let taken = match place {
                    None => {
                        let tunnels = self.ports.tunnels.base_mut();
                        tunnels.take_call(round.now, call, local, length)
                    }
                    Some(place) => match self.ports.privates.get_mut(usize::from(place)) {
                        Some(private) => private.tunnels.take_call(round.now, call, local, length),
                        None => false,
                    },
                };
                if !taken {
                    self.drop_call(DropReason::TunnelHandshakeRate, length);
                }
            }
            // As many as there are now: what comes meanwhile waits for the next round.
            for _ in 0..BATCHES {
                let Some(mut batch) = self.exchange.take(index) else {
                    break;
                };
                some = true;
                batch.for_each_place(|buffer, place, cargo| {
                    self.unpack(round, buffer, place, cargo);
                });
                self.write_merged(round.now, batch.buffer());
                self.exchange.give_back(index, batch);
            }
        }
        some
    }

    pub(super) fn unpack(
        &mut self,
        round: Round<'_>,
        buffer: &mut [u8],
        (at, length): (usize, usize),
        cargo: &Cargo,
    ) {
        if let Cargo::Outer {
            place,
            source,
            class,
        } = cargo
        {
            let outer = (usize::from(*place), *source, *class);
            self.take_outer(round, outer, buffer, (at, length));
            return;
        }
        let Some(bytes) = buffer.get_mut(at..at + length) else {
            return;
        };
        match cargo {
            Cargo::Packet {
                path,
                headers,
                offload,
            } => {
                let packet = Packet {
                    bytes,
                    headers,
                    offload,
                };
                self.ledger.release(packet.tally().packets);
                match self.ports.ways.of(*path) {
                    Way::Tunnel(lanes) => {
                        self.send_by_lane(round.now, *path, lanes, packet);
                    }
                    Way::Private(place) => {
                        self.send_private(round.now, place, *path, packet);
                    }
                    // Whoever handed it over knew that the client is this worker's; if it has gone since, the
                    // tunnels say so.
                    Way::Clients => {
                        let Packet {
                            bytes,
                            headers,
                            offload,
                        } = packet;
                        let tunnels = self.ports.tunnels.base_mut();
                        tunnels.send(round.now, *path, bytes, headers, offload);
                    }
                    _ => self.drop(DropReason::NoPath, packet),
                }
            }
            Cargo::Outer { .. } => {}
        }
    }

    pub(super) fn drop_parcel(&self, batch: &mut Batch) {
        batch.for_each(|bytes, cargo| {
            let tally = match cargo {
                Cargo::Packet {
                    headers, offload, ..
                } => {
                    let tally = on_the_wire(headers, offload);
                    self.ledger.release(tally.packets);
                    tally
                }
                Cargo::Outer { .. } => {
                    let length = bytes.len() as u64;
                    self.ledger.received(Port::UNDERLAY, 1, length);
                    Sum {
                        packets: 1,
                        bytes: length,
                    }
                }
            };
            self.ledger
                .dropped(DropReason::Shutdown, tally.packets, tally.bytes);
        });
    }
}
