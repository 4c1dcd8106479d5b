//! What crosses over between workers: packets for another's tunnel, datagrams for another's session.

use super::{Packet, Round, Switch, Way};
use crate::device::sink::Devices;
use crate::telemetry::ledger::Port;
use crate::worker::crossing::{Cargo, Entrance, Handed, PARCELS, Parcel};
use crate::worker::link::Tally;
use crypto::tunnel::Endpoint;
use routing::path::PathId;
use routing::reason::DropReason;
use std::time::Instant;

impl<E: Endpoint, D: Devices> Switch<E, D> {
    /// Lays a packet into the parcel for the worker that owns its tunnel.
    #[inline]
    pub(super) fn cross(&mut self, worker: usize, path: PathId, packet: Packet<'_>) {
        let cargo = Cargo::Packet {
            path,
            headers: *packet.headers,
            offload: *packet.offload,
        };
        let exit = self.exits.get_mut(worker).and_then(Option::as_mut);
        if exit.is_some_and(|exit| exit.lay(packet.bytes, cargo)) {
            self.ledger.hold(packet.tally().packets);
        } else {
            self.drop(DropReason::HandoverFull, packet);
        }
    }

    /// Offers calls of nobody who is known here to the next worker, which answers and books them.
    #[inline]
    pub fn hand_calls_on(&mut self) {
        while let Some((call, local, length)) = self.tunnels.take_foreign() {
            self.hand_on(Handed {
                place: None,
                call,
                local,
                length,
            });
        }
        for place in 0..self.privates.len() {
            while let Some(private) = self.privates.get_mut(place)
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
        let exit = self.next.and_then(|next| self.exits.get(next)?.as_ref());
        let refused = match exit {
            Some(exit) => exit.offer(call).err(),
            None => Some(call),
        };
        if let Some(Handed { length, .. }) = refused {
            self.drop_call(DropReason::HandoverFull, length);
        }
    }

    pub(super) fn drop_call(&self, reason: DropReason, length: u64) {
        self.ledger.received(Port::UNDERLAY, 1, length);
        self.ledger.dropped(reason, 1, length);
    }

    /// Sends every parcel that is open. Called at the end of every round, which has this number.
    #[inline]
    pub fn send_parcels(&mut self, number: u64, now: Instant) {
        self.exit_tells = false;
        for exit in self.exits.iter_mut().flatten() {
            exit.end_round(number, now);
            self.exit_tells |= exit.tell;
        }
    }

    /// Takes what other workers have for this one; true if there was something.
    #[inline]
    pub fn take_parcels(&mut self, round: Round<'_>) -> bool {
        let mut some = false;
        for index in 0..self.entrances.len() {
            while let Some(Handed {
                place,
                call,
                local,
                length,
            }) = self.entrances.get(index).and_then(Entrance::take_call)
            {
                some = true;
                let taken = match place {
                    None => self.tunnels.take_call(round.now, call, local, length),
                    Some(place) => match self.privates.get_mut(usize::from(place)) {
                        Some(private) => private.tunnels.take_call(round.now, call, local, length),
                        None => false,
                    },
                };
                if !taken {
                    self.drop_call(DropReason::TunnelHandshakeRate, length);
                }
            }
            // As many as there are now: what comes meanwhile waits for the next round.
            for _ in 0..PARCELS {
                let Some(entrance) = self.entrances.get(index) else {
                    break;
                };
                let Some(mut parcel) = entrance.take() else {
                    break;
                };
                some = true;
                parcel.for_each_place(|buffer, place, cargo| {
                    self.unpack(round, buffer, place, cargo);
                });
                self.write_merged(round.now, parcel.buffer());
                if let Some(entrance) = self.entrances.get(index) {
                    entrance.give_back(parcel);
                }
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
                match self.ways.get(usize::from(path.0)) {
                    Some(&Way::Tunnel(lanes)) => {
                        self.send_by_lane(round.now, *path, lanes, packet);
                    }
                    Some(&Way::Private(place)) => {
                        self.send_private(round.now, place, *path, packet);
                    }
                    // Whoever handed it over knew that the client is this worker's; if it has gone since, the
                    // tunnels say so.
                    Some(Way::Clients) => {
                        let Packet {
                            bytes,
                            headers,
                            offload,
                        } = packet;
                        self.tunnels.send(round.now, *path, bytes, headers, offload);
                    }
                    _ => self.drop(DropReason::NoPath, packet),
                }
            }
            Cargo::Outer { .. } => {}
        }
    }

    pub(super) fn drop_parcel(&self, parcel: &mut Parcel) {
        parcel.for_each(|bytes, cargo| {
            let tally = match cargo {
                Cargo::Packet {
                    headers, offload, ..
                } => {
                    let tally = Tally::of(headers, offload);
                    self.ledger.release(tally.packets);
                    tally
                }
                Cargo::Outer { .. } => {
                    let length = bytes.len() as u64;
                    self.ledger.received(Port::UNDERLAY, 1, length);
                    Tally {
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
