//! How packets cross over to the worker that owns their tunnel: whole batches, through bounded queues.
//!
//! 1. the worker that has decided about a packet lays it into the open batch for the owner ([`Exit::lay`])
//! 2. when that is full, and at the end of each round, the batch goes into the queue, and the owner's bell
//!    is rung once ([`Exit::send`])
//! 3. the owner takes batches, sends what is in them, and gives them back empty
//!
//! There are [`BATCHES`] batches each way between two workers, made at the start and never again. When all are
//! on their way, or [`MAX_QUEUED`] bytes are, packets are dropped and counted: the owner is behind, and a
//! longer queue would only make everything late. One queue has one writer and one reader, so a flow keeps its
//! order.

use crate::device::offload::Offload;
use crate::sync::ArrayQueue;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::worker::backlog::Backlog;
use crate::worker::bell::Bell;
use crypto::tunnel::Call;
use routing::packet::Headers;
use routing::path::PathId;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

/// Batches from one worker to another: rounds of small packets in as many milliseconds, while the owner is
/// kept from running. Only those that have been used take memory.
pub const BATCHES: usize = 64;
/// Bytes on their way from one worker to another, 4 ms at 4 Gbps.
pub const MAX_QUEUED: usize = 32 * 65_536;
/// Bytes that may be on their way without the queue being called a standing one.
const TARGET: usize = 4 * 65_536;
/// Calls on their way from one worker to another. A limiter has let each of them in.
const CALLS: usize = 64;
/// Bytes of one batch: the longest super-packet and a little.
const PARCEL_BYTES: usize = 66_048;
/// Packets of one batch.
const PARCEL_PACKETS: usize = 256;

/// What a piece of a batch is.
#[derive(Clone, Copy, Debug)]
pub enum Cargo {
    /// An IP packet that the pipeline has let pass, for a path of the receiver.
    Packet {
        /// Its way out.
        path: PathId,
        /// Its headers, parsed.
        headers: Headers,
        /// What is left to do for it.
        offload: Offload,
    },
    /// A datagram of a tunnel over a circuit, whose session is the receiver's. It is booked as come in.
    Outer {
        /// The place of the circuit's tunnels in each worker.
        place: u8,
        /// Who sent it.
        source: SocketAddr,
        /// Traffic class of the packet that it came in.
        class: u8,
    },
}

/// An initiation that the giver has read, of nobody whom it knows.
#[derive(Debug)]
pub struct Handed {
    /// The place of the circuit that it came over; `None`: it came to the UDP socket.
    pub place: Option<u8>,
    /// What it says.
    pub call: Call,
    /// The address of this machine that it was sent to, where that is known.
    pub local: Option<IpAddr>,
    /// Bytes of the datagram, which nobody has booked yet.
    pub length: u64,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    at: usize,
    len: usize,
    cargo: Cargo,
}

/// Some packets in one buffer.
#[derive(Debug)]
pub struct Batch {
    buffer: Box<[u8]>,
    used: usize,
    pieces: Vec<Piece>,
}

impl Batch {
    fn new() -> Self {
        Self {
            buffer: vec![0; PARCEL_BYTES].into_boxed_slice(),
            used: 0,
            pieces: Vec::with_capacity(PARCEL_PACKETS),
        }
    }

    /// Copies `bytes` in; false if there is no room.
    #[inline]
    fn lay(&mut self, bytes: &[u8], cargo: Cargo) -> bool {
        let (at, len) = (self.used, bytes.len());
        if self.pieces.len() == self.pieces.capacity() {
            return false;
        }
        let Some(room) = self.buffer.get_mut(at..at + len) else {
            return false;
        };
        room.copy_from_slice(bytes);
        self.pieces.push(Piece { at, len, cargo });
        self.used += len;
        true
    }

    fn clear(&mut self) {
        self.used = 0;
        self.pieces.clear();
    }

    /// Gives every packet to `each`, in the order in which they were laid.
    #[inline]
    pub fn for_each(&mut self, mut each: impl FnMut(&mut [u8], &Cargo)) {
        for piece in &self.pieces {
            if let Some(bytes) = self.buffer.get_mut(piece.at..piece.at + piece.len) {
                each(bytes, &piece.cargo);
            }
        }
    }

    /// Gives the whole buffer, and where in it each packet lies, to `each`, in the order in which they were laid.
    #[inline]
    pub fn for_each_place(&mut self, mut each: impl FnMut(&mut [u8], (usize, usize), &Cargo)) {
        for piece in &self.pieces {
            each(&mut self.buffer, (piece.at, piece.len), &piece.cargo);
        }
    }

    /// The buffer that the packets lie in.
    pub fn buffer(&self) -> &[u8] {
        &self.buffer
    }

    /// How many packets there are, a super-packet being one.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

/// The two queues of one direction between two workers: batches with packets, and empty ones back.
#[derive(Debug)]
struct Lanes {
    full: ArrayQueue<Batch>,
    empty: ArrayQueue<Batch>,
    calls: ArrayQueue<Handed>,
    /// Bytes in `full`, as far as given back.
    queued: AtomicUsize,
}

/// The giving end: one worker's way to one other.
#[derive(Debug)]
pub struct Exit {
    lanes: Arc<Lanes>,
    bell: Arc<Bell>,
    open: Option<Batch>,
    backlog: Backlog,
    /// Whether the next packet that comes this way shall tell its sender to slow down.
    pub tell: bool,
}

/// The taking end: one other worker's way to this one.
#[derive(Debug)]
pub struct Entrance {
    lanes: Arc<Lanes>,
}

/// One direction between two workers; `bell` is the taker's.
pub fn handoff(bell: Arc<Bell>) -> (Exit, Entrance) {
    let lanes = Lanes {
        full: ArrayQueue::new(BATCHES),
        empty: ArrayQueue::new(BATCHES),
        calls: ArrayQueue::new(CALLS),
        queued: AtomicUsize::new(0),
    };
    for _ in 0..BATCHES {
        // There is room for all of them.
        let _ = lanes.empty.push(Batch::new());
    }
    let lanes = Arc::new(lanes);
    let exit = Exit {
        lanes: Arc::clone(&lanes),
        bell,
        open: None,
        backlog: Backlog::default(),
        tell: false,
    };
    (exit, Entrance { lanes })
}

impl Exit {
    /// Lays a packet into the open batch; false if the taker is behind and no batch is left (drop it).
    #[inline]
    pub fn lay(&mut self, bytes: &[u8], cargo: Cargo) -> bool {
        if let Some(open) = &mut self.open {
            if open.lay(bytes, cargo) {
                return true;
            }
            self.send();
        }
        if self.lanes.queued.load(Ordering::Relaxed) > MAX_QUEUED {
            return false;
        }
        let Some(mut fresh) = self.lanes.empty.pop() else {
            return false;
        };
        let laid = fresh.lay(bytes, cargo);
        self.open = Some(fresh);
        laid
    }

    /// At the end of a round: sends the open batch, and sees whether the queue stands.
    #[inline]
    pub fn end_round(&mut self, round: u64, now: Instant) {
        self.send();
        let short = self.lanes.queued.load(Ordering::Relaxed) < TARGET;
        self.backlog.seen(round, now, short);
        self.tell = !short && self.backlog.is_due(round + 1, now);
    }

    /// Sends the open batch, if there is one.
    #[inline]
    pub fn send(&mut self) {
        let Some(batch) = self.open.take() else {
            return;
        };
        self.lanes.queued.fetch_add(batch.used, Ordering::Relaxed);
        // As many places as batches: it is never full.
        if self.lanes.full.push(batch).is_ok() {
            self.bell.ring();
        }
    }

    /// Hands a call on at once; gives it back if the taker has too many.
    ///
    /// # Errors
    /// The call itself, where as many wait as the queue has places.
    pub fn offer(&self, call: Handed) -> Result<(), Handed> {
        self.lanes.calls.push(call)?;
        self.bell.ring();
        Ok(())
    }

    /// Takes back a call that the other side has not taken, when both have ended.
    pub fn recall_call(&self) -> Option<Handed> {
        self.lanes.calls.pop()
    }

    /// Takes back what the other side has not taken, when both have ended.
    pub fn recall(&mut self) -> Option<Batch> {
        self.open.take().or_else(|| self.lanes.full.pop())
    }
}

impl Entrance {
    /// The next batch, to be given back by [`Entrance::give_back`].
    #[inline]
    pub fn take(&self) -> Option<Batch> {
        self.lanes.full.pop()
    }

    /// The next call.
    #[inline]
    pub fn take_call(&self) -> Option<Handed> {
        self.lanes.calls.pop()
    }

    /// Gives a batch back.
    #[inline]
    pub fn give_back(&self, mut batch: Batch) {
        self.lanes.queued.fetch_sub(batch.used, Ordering::Relaxed);
        batch.clear();
        let _ = self.lanes.empty.push(batch);
    }

    /// Whether a batch waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.lanes.full.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(n: u16) -> Cargo {
        Cargo::Outer {
            place: 0,
            source: SocketAddr::from(([192, 0, 2, 1], n)),
            class: 0,
        }
    }

    #[test]
    fn packets_arrive_whole_and_in_order() {
        let bell = Arc::new(Bell::new().unwrap());
        let (mut exit, entrance) = handoff(bell);
        let packets: Vec<Vec<u8>> = (0..1_000_u16)
            .map(|n| vec![n as u8; usize::from(n % 300)])
            .collect();
        let mut arrived = Vec::new();
        let mut take_all = |entrance: &Entrance| {
            while let Some(mut batch) = entrance.take() {
                batch.for_each(|bytes, cargo| {
                    let Cargo::Outer { source, .. } = cargo else {
                        panic!("{cargo:?}")
                    };
                    arrived.push((source.port(), bytes.to_vec()));
                });
                entrance.give_back(batch);
            }
        };
        for (n, packet) in packets.iter().enumerate() {
            assert!(exit.lay(packet, datagram(n as u16)));
            if n % 97 == 0 {
                exit.send();
                take_all(&entrance);
            }
        }
        exit.send();
        take_all(&entrance);
        let expected: Vec<_> = (0..1_000).zip(packets).collect();
        assert_eq!(arrived, expected);
    }

    #[test]
    fn a_taker_that_is_behind_gets_no_more_than_the_parcels_hold() {
        let bell = Arc::new(Bell::new().unwrap());
        let (mut exit, entrance) = handoff(bell);
        let packet = vec![7; 60_000];
        let laid = (0..100).filter(|_| exit.lay(&packet, datagram(1))).count();
        // What is queued is looked at before another batch is opened.
        assert_eq!(laid, MAX_QUEUED / packet.len() + 1);
        for _ in 0..2 {
            let batch = entrance.take().unwrap();
            assert_eq!(batch.len(), 1);
            entrance.give_back(batch);
        }
        assert!(exit.lay(&packet, datagram(2)), "there is room again");

        while exit.lay(&[1], datagram(1)) {
            exit.send();
        }
        assert!(
            exit.lanes.empty.is_empty(),
            "small ones end with the batches"
        );
    }

    #[test]
    fn a_packet_longer_than_a_parcel_is_refused() {
        let (mut exit, _entrance) = handoff(Arc::new(Bell::new().unwrap()));
        assert!(!exit.lay(&vec![0; PARCEL_BYTES + 1], datagram(1)));
        assert!(exit.lay(&[1], datagram(1)));
    }
}
