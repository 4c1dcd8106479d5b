//! What does not simply go on: senders that are told of a queue, fragments, ICMP errors.

use super::Switch;
use crate::device::offload::Offload;
use crate::device::sink::Devices;
use crate::pipeline::egress::Egress;
use crate::pipeline::fragment::Fragments;
use crate::pipeline::icmp::{self, Complaint};
use crate::pipeline::split::Segments;
use crate::pipeline::{ecn, forward};
use crate::telemetry::ledger::Port;
use crate::worker::packet::{MAX_SEGMENT, Packet, Round};
use crate::worker::ways::Way;
use crypto::tunnel::Endpoint;
use routing::packet::{Headers, protocol};
use routing::path::Ingress;
use routing::reason::DropReason;
use std::time::Instant;

impl<E: Endpoint, D: Devices> Switch<E, D> {
    /// Tells a packet's sender to slow down: marks the packet if the sender knows marks (RFC 3168), else
    /// drops it, or of a super-packet for a tunnel the first segment. True if nothing is left to do for it.
    #[cold]
    pub(super) fn tell_sender(
        &mut self,
        round: Round<'_>,
        port: Option<Port>,
        (to, headers): (Egress, &mut Headers),
        bytes: &mut [u8],
        offload: &Offload,
    ) -> bool {
        // Errors, pings and the like are no reason for a queue, and nobody would slow down.
        if !matches!(headers.key.protocol, protocol::TCP | protocol::UDP) {
            return false;
        }
        // Nor would who only acknowledges: the next packet with data is told.
        let is_bare = headers.total_len <= u32::from(headers.payload);
        if is_bare && headers.key.protocol == protocol::TCP {
            return false;
        }
        if self.tell {
            self.tell = false;
        } else {
            // It is another worker that is behind: only what is for that one tells.
            let Egress::Path(path) = to else {
                return false;
            };
            let Way::Owner(worker) = self.ports.ways.of(path) else {
                return false;
            };
            if !self.exchange.take_tell(worker) {
                return false;
            }
        }
        let class = headers.traffic_class;
        if let Ok(marked) = ecn::inner_traffic_class(class, ecn::ECN) {
            forward::set_traffic_class(bytes, headers, marked);
            headers.traffic_class = marked;
            return false;
        }
        let tally = forward::on_the_wire(headers, offload);
        if tally.packets > 1 && self.outflow.is_shaped() {
            // The rest of it would pass what waits for its rate; a queue that is full there tells as well.
            return false;
        }
        self.book(port, tally);
        let whole = bytes.get(..headers.total_len as usize).unwrap_or(bytes);
        let packet = (whole, &*headers, offload);
        let lost = if tally.packets > 1 && self.send_rest(round.now, to, packet) {
            (1, tally.bytes / tally.packets)
        } else {
            (tally.packets, tally.bytes)
        };
        self.ledger.dropped(DropReason::QueueDelay, lost.0, lost.1);
        true
    }

    /// Sends all segments but the first of a super-packet that is for a tunnel of this worker; false, and none is
    /// sent, if it is not.
    pub(super) fn send_rest(
        &mut self,
        now: Instant,
        to: Egress,
        packet: (&[u8], &Headers, &Offload),
    ) -> bool {
        let Egress::Path(path) = to else {
            return false;
        };
        match self.ports.ways.of(path) {
            Way::Tunnel(lanes) => {
                let Some(tunnels) = self.ports.tunnels.lane(now, path, lanes, packet.1) else {
                    return false;
                };
                tunnels.send_from(now, path, packet, 1);
                true
            }
            Way::Private(place) => {
                let Some(private) = self.ports.privates.get_mut(place) else {
                    return false;
                };
                private.tunnels.send_from(now, path, packet, 1);
                true
            }
            _ => false,
        }
    }

    /// Books a datagram of length zero, which is no message of any tunnel's.
    #[cold]
    pub(in crate::worker) fn drop_empty(&self) {
        self.ledger.received(Port::UNDERLAY, 1, 0);
        self.ledger.dropped(DropReason::TunnelMalformed, 1, 0);
    }

    /// Sends a packet in fragments, a super-packet segment by segment, as a router does. The gateway makes the
    /// fragments after the first of each: they are booked as received at its host port, so that the ledger
    /// balances.
    #[cold]
    pub(in crate::worker) fn fragment(
        &mut self,
        now: Instant,
        ingress: Ingress,
        to: Egress,
        packet: Packet<'_>,
        mtu: u16,
    ) {
        let mut room = std::mem::take(&mut self.scratch.piece);
        let (whole, piece) = room.split_at_mut(MAX_SEGMENT.min(room.len()));
        match Segments::new(packet.bytes, packet.headers, packet.offload) {
            Ok(mut segments) => {
                while let Some(length) = segments.next_into(whole) {
                    let segment = length.and_then(|n| whole.get(..n).ok_or(DropReason::TooBig));
                    let cut = segment.map_err(|reason| (reason, 0)).and_then(|segment| {
                        self.fragment_one((now, ingress, to), segment, piece, mtu)
                            .map_err(|reason| (reason, segment.len() as u64))
                    });
                    if let Err((reason, bytes)) = cut {
                        self.ledger.dropped(reason, 1, bytes);
                    }
                }
            }
            Err(reason) => self.drop(reason, packet),
        }
        self.scratch.piece = room;
    }

    /// Sends one packet, whose checksum is complete, in fragments that are made in `piece`. An error, if nothing
    /// of it was sent.
    fn fragment_one(
        &mut self,
        (now, ingress, to): (Instant, Ingress, Egress),
        packet: &[u8],
        piece: &mut [u8],
        mtu: u16,
    ) -> Result<(), DropReason> {
        let headers = Headers::parse(packet)?;
        let mut fragments = Fragments::new(packet, &headers, usize::from(mtu))?;
        let mut made = 0;
        while let Some(length) = fragments.next_into(piece) {
            let bytes = length.and_then(|n| piece.get(..n).ok_or(DropReason::TooBig));
            let parsed = bytes.and_then(|bytes| Ok((bytes, Headers::parse(bytes)?)));
            let (bytes, headers) = match parsed {
                Ok(parsed) => parsed,
                Err(reason) if made == 0 => return Err(reason),
                Err(_) => return Ok(()),
            };
            made += 1;
            if made > 1 {
                self.ledger.received(Port::LOCAL, 1, bytes.len() as u64);
            }
            let fragment = Packet {
                bytes,
                headers: &headers,
                offload: &Offload::default(),
            };
            // Fragments of one made here are not for the host: `to` is a way out.
            self.emit(now, ingress, to, fragment);
        }
        Ok(())
    }

    /// Tells the sender of a dropped packet, if it may be told and the rate limit allows it.
    #[cold]
    pub(super) fn complain(
        &mut self,
        round: Round<'_>,
        ingress: Ingress,
        packet: Packet<'_>,
        complaint: Complaint,
    ) {
        let Packet {
            bytes,
            headers,
            offload,
        } = packet;
        if ingress == Ingress::Local
            || !icmp::may_answer(headers)
            || !self.complaints.allow(round.now, &headers.key)
        {
            return;
        }
        let version = headers.key.version;
        let Some(source) = round.forwarding.source_for(ingress, version) else {
            return;
        };
        let mut message = std::mem::take(&mut self.scratch.message);
        let built = icmp::build(complaint, bytes, headers, offload, source, &mut message);
        if let Some(error) = built.and_then(|length| message.get_mut(..length)) {
            let plain = Offload::default();
            self.handle(round, Ingress::Local, Some(Port::LOCAL), error, &plain);
        }
        self.scratch.message = message;
    }
}
