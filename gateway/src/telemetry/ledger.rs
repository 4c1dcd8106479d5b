//! The packet ledger: every packet that came in went out, was dropped for a reason, or is held.
//!
//! `received = sent + dropped + change of held`, in packets as the wire carries them: a super-packet
//! counts its segments. Each thread that touches packets owns one [`Ledger`], writes it with plain
//! relaxed stores (it is the only writer) and shares it with readers, which sum over all ledgers.

use crate::telemetry::sequence::Sequence;
use routing::reason::DropReason;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// A port of the gateway in the ledger: index into [`Ledger`]'s port counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port(pub u16);

impl Port {
    /// The virtual network (TUN device).
    pub const VNET: Self = Self(0);
    /// The gateway's own host: packets it makes are received here, packets it takes are sent here.
    pub const LOCAL: Self = Self(1);
    /// Datagrams on the tunnel port that belong to no tunnel.
    pub const UNDERLAY: Self = Self(2);
    /// The port of the first path; path *i* has port `FIRST_PATH + i`.
    pub const FIRST_PATH: u16 = 3;

    /// The port of a path.
    pub const fn path(path: routing::path::PathId) -> Self {
        Self(Self::FIRST_PATH + path.0)
    }
}

/// Packets and bytes.
#[derive(Debug, Default)]
pub struct Count {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Count {
    /// Adds; only the owning thread may call it (load and store, no locked instruction).
    #[inline]
    pub fn add(&self, packets: u64, bytes: u64) {
        let new = self.packets.load(Ordering::Relaxed).wrapping_add(packets);
        self.packets.store(new, Ordering::Relaxed);
        let new = self.bytes.load(Ordering::Relaxed).wrapping_add(bytes);
        self.bytes.store(new, Ordering::Relaxed);
    }

    /// Packets and bytes so far.
    pub fn read(&self) -> Sum {
        Sum {
            packets: self.packets.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// Packets and bytes, as plain numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Sum {
    /// Packets as the wire carries them.
    pub packets: u64,
    /// Bytes of IP packets.
    pub bytes: u64,
}

impl std::ops::AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// The counters of one thread.
#[derive(Debug)]
pub struct Ledger {
    received: Box<[Count]>,
    sent: Box<[Count]>,
    dropped: Box<[Count]>,
    /// By port; no packets but calls, so beside the books.
    refused: Box<[AtomicU64]>,
    held: AtomicU64,
    /// The owner's rounds: in the middle of one packets are between two entries.
    round: Sequence,
}

impl Ledger {
    /// A ledger for this many ports, all zero.
    pub fn new(ports: usize) -> Self {
        let counts = |n: usize| (0..n).map(|_| Count::default()).collect();
        Self {
            received: counts(ports),
            sent: counts(ports),
            dropped: counts(DropReason::COUNT),
            refused: (0..ports).map(|_| AtomicU64::new(0)).collect(),
            held: AtomicU64::new(0),
            round: Sequence::default(),
        }
    }

    /// The owner begins a round: until [`Ledger::end`] a packet may stand in one column and not yet in
    /// the other, and readers wait for the end.
    #[inline]
    pub fn begin(&self) {
        self.round.begin();
    }

    /// The owner has ended its round: the books balance.
    #[inline]
    pub fn end(&self) {
        self.round.end();
    }

    /// Counts packets that came in at `port`.
    #[inline]
    pub fn received(&self, port: Port, packets: u64, bytes: u64) {
        if let Some(count) = self.received.get(usize::from(port.0)) {
            count.add(packets, bytes);
        }
    }

    /// Counts packets that went out at `port`.
    #[inline]
    pub fn sent(&self, port: Port, packets: u64, bytes: u64) {
        if let Some(count) = self.sent.get(usize::from(port.0)) {
            count.add(packets, bytes);
        }
    }

    /// Counts dropped packets.
    #[inline]
    pub fn dropped(&self, reason: DropReason, packets: u64, bytes: u64) {
        if let Some(count) = self.dropped.get(reason as usize) {
            count.add(packets, bytes);
        }
    }

    /// Counts a super-packet or train that the kernel would not take whole at `port`.
    #[cold]
    pub fn refused(&self, port: Port) {
        if let Some(count) = self.refused.get(usize::from(port.0)) {
            let new = count.load(Ordering::Relaxed).wrapping_add(1);
            count.store(new, Ordering::Relaxed);
        }
    }

    /// Packets put aside in this thread's queues (to be sent or dropped later).
    #[inline]
    pub fn hold(&self, packets: u64) {
        self.held.store(
            self.held.load(Ordering::Relaxed).wrapping_add(packets),
            Ordering::Relaxed,
        );
    }

    /// Packets taken out of this thread's queues. Those that another thread put there make this
    /// thread's own number wrap below zero; the sum over all threads is what counts.
    #[inline]
    pub fn release(&self, packets: u64) {
        self.held.store(
            self.held.load(Ordering::Relaxed).wrapping_sub(packets),
            Ordering::Relaxed,
        );
    }
}

/// The ledgers of all threads, added up; the JSON of `vng show counters`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Totals {
    /// By port name.
    pub received: BTreeMap<String, Sum>,
    /// By port name.
    pub sent: BTreeMap<String, Sum>,
    /// By reason; reasons without drops are left out.
    pub dropped: BTreeMap<String, Sum>,
    /// Packets in queues now.
    pub held: u64,
    /// By port name, where there were any: super-packets, trains and checksums that the kernel refused to
    /// finish, and that the gateway then sent packet by packet. None of them is lost by that.
    #[serde(default)]
    pub offload_refused: BTreeMap<String, u64>,
    /// Packets that a thread has taken from another which had been read before; there are none but under a load that
    /// never lets the books be read otherwise.
    #[serde(skip)]
    missing: u64,
}

/// How often the books are read anew where more packets seem to have left the queues than came.
const TRIES: usize = 100;

impl Totals {
    /// Adds up `ledgers`, whose ports have these names in order; each as it was between two rounds.
    ///
    /// The ledgers are read one after the other, while packets go from thread to thread. One whose giver was read
    /// before it was put there, and whose taker was read after, is missing from what is held, and if there are more
    /// such packets than packets in queues, the sum is below zero. Then the ledgers are read again, in the opposite
    /// order, in which the same traffic errs on the other side.
    pub fn of<'a>(ledgers: impl IntoIterator<Item = &'a Ledger>, names: &[String]) -> Self {
        let mut ledgers: Vec<_> = ledgers.into_iter().collect();
        let mut totals = Self::once(&ledgers, names);
        for _ in 0..TRIES {
            if totals.held.cast_signed() >= 0 {
                return totals;
            }
            ledgers.reverse();
            totals = Self::once(&ledgers, names);
        }
        let held = totals.held.cast_signed().min(0);
        if held < 0 {
            (totals.missing, totals.held) = (held.unsigned_abs(), 0);
        }
        totals
    }

    fn once(ledgers: &[&Ledger], names: &[String]) -> Self {
        let mut totals = Self::default();
        for ledger in ledgers {
            let read = |counts: &[Count]| counts.iter().map(Count::read).collect::<Vec<_>>();
            let (received, sent, dropped, held) = ledger.round.consistently(|| {
                (
                    read(&ledger.received),
                    read(&ledger.sent),
                    read(&ledger.dropped),
                    ledger.held.load(Ordering::Relaxed),
                )
            });
            for (counts, sums) in [(received, &mut totals.received), (sent, &mut totals.sent)] {
                for (count, name) in counts.into_iter().zip(names) {
                    *sums.entry(name.clone()).or_default() += count;
                }
            }
            for (sum, reason) in dropped.into_iter().zip(DropReason::ALL) {
                if sum != Sum::default() {
                    *totals.dropped.entry(reason.name().to_owned()).or_default() += sum;
                }
            }
            for (count, name) in ledger.refused.iter().zip(names) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    *totals.offload_refused.entry(name.clone()).or_default() += count;
                }
            }
            totals.held = totals.held.wrapping_add(held);
        }
        totals
    }

    /// `received - sent - dropped - held` in packets: 0 when the books balance.
    pub fn imbalance(&self) -> i64 {
        let packets = |sums: &BTreeMap<String, Sum>| sums.values().map(|s| s.packets).sum::<u64>();
        packets(&self.received)
            .wrapping_sub(packets(&self.sent))
            .wrapping_sub(packets(&self.dropped))
            .wrapping_sub(self.held)
            .wrapping_add(self.missing)
            .cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_never_below_zero_while_packets_go_from_thread_to_thread() {
        use crossbeam::queue::ArrayQueue;
        use std::sync::atomic::AtomicBool;

        let names = ["vnet", "local", "underlay"].map(str::to_owned);
        let (a, b) = (Ledger::new(3), Ledger::new(3));
        // Each gives the other what it has, in rounds as workers have them.
        let ways = [(); 2].map(|()| ArrayQueue::<()>::new(64));
        let done = AtomicBool::new(false);
        let worker = |own: &Ledger, to: &ArrayQueue<()>, from: &ArrayQueue<()>| {
            while !done.load(Ordering::Relaxed) {
                own.begin();
                for _ in 0..8 {
                    own.received(Port::VNET, 1, 64);
                    own.hold(1);
                    if to.push(()).is_err() {
                        own.release(1);
                        own.dropped(DropReason::HandoverFull, 1, 64);
                    }
                }
                while from.pop().is_some() {
                    own.release(1);
                    own.sent(Port::LOCAL, 1, 64);
                }
                own.end();
                std::thread::yield_now();
            }
        };
        std::thread::scope(|scope| {
            let (worker, [one, other]) = (&worker, &ways);
            let (a, b) = (&a, &b);
            scope.spawn(move || worker(a, one, other));
            scope.spawn(move || worker(b, other, one));
            let until = std::time::Instant::now() + std::time::Duration::from_secs(1);
            let mut highest = 0;
            while std::time::Instant::now() < until {
                highest = highest.max(Totals::of([a, b], &names).held);
            }
            done.store(true, Ordering::Relaxed);
            assert!(highest < u64::MAX / 2, "{highest}");
        });
    }

    #[test]
    fn a_packet_whose_giver_was_read_before_it_gave_is_not_held() {
        let (giver, taker) = (Ledger::new(3), Ledger::new(3));
        taker.release(1);
        taker.sent(Port::LOCAL, 1, 64);
        let names = ["vnet", "local", "underlay"].map(str::to_owned);
        let totals = Totals::of([&giver, &taker], &names);
        assert_eq!((totals.held, totals.imbalance()), (0, 0));
    }

    #[test]
    fn the_books_balance_over_two_threads() {
        let (a, b) = (Ledger::new(3), Ledger::new(3));
        a.received(Port::VNET, 47, 64_000);
        a.sent(Port::LOCAL, 40, 50_000);
        a.dropped(DropReason::Policy, 2, 2_000);
        a.hold(5);
        b.release(3);
        b.sent(Port::VNET, 3, 6_000);
        let names = ["vnet", "local", "underlay"].map(str::to_owned);
        let totals = Totals::of([&a, &b], &names);
        assert_eq!(totals.imbalance(), 0);
        assert_eq!(totals.held, 2);
        assert_eq!(
            totals.dropped["policy"],
            Sum {
                packets: 2,
                bytes: 2_000
            }
        );
        b.dropped(DropReason::NoRoute, 1, 1);
        assert_eq!(Totals::of([&a, &b], &names).imbalance(), -1);
    }
}
