//! The provider's wire: two packet sockets and a thread that carries frames between them.
//!
//! ```text
//! gateway eth1 ===[ customer end ]  thread  [ provider end ]--- provider edge
//!              tagged as ordered                untagged
//! ```
//! 1. A frame is read from one end with its virtio-net header: a super-packet stays whole.
//! 2. Towards the provider its tags must be the circuit's, and are taken off; towards the customer the
//!    circuit's tags are put on. A frame with other tags is not the circuit's, and is dropped.
//! 3. Faults: silence, loss, duplication, delay, each direction for itself. The carrier stays up.
//! 4. It is written to the other end.
//!
//! Cutting the carrier is another fault: both ends are set down, and the neighbours lose their carrier.

use crate::error::Error;
use crate::fault::{Carried, Direction, Faults};
use crate::host::Host;
use crate::random::Random;
use gateway::device::SendError;
use gateway::device::event::{Poller, Waker};
use gateway::device::filter::Instruction;
use gateway::device::link::{LinkOptions, LinkSocket, MAX_FRAME};
use gateway::device::offload::{GsoKind, Offload};
use gateway::device::vlan::{CUSTOMER_TAG, ID_MASK, TAG_LEN, Tags};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
struct Shared {
    faults: [Faults; 2],
    carried: [Carried; 2],
    stop: AtomicBool,
}

/// One wire. It ends when it is dropped.
#[derive(Debug)]
pub struct Wire {
    host: Arc<Host>,
    ends: [String; 2],
    shared: Arc<Shared>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// Lays a wire on `host` between its links `customer`, where frames carry `tags`, and `provider`,
    /// where they carry none. The links exist and are up.
    ///
    /// # Errors
    /// [`Error::Device`] where a packet socket cannot be opened on one of the links (EPERM without CAP_NET_RAW,
    /// or no such link); [`Error::System`] where there is no `eventfd`, no `epoll` or no thread.
    pub fn lay(
        host: &Arc<Host>,
        customer: &str,
        provider: &str,
        tags: Tags,
    ) -> Result<Self, Error> {
        let open = |name: &str| LinkSocket::open(&LinkOptions::new(name, &EVERYTHING));
        let sockets = host.run(|| Ok::<_, Error>([open(customer)?, open(provider)?]))??;
        let waker = Arc::new(Waker::new().map_err(Error::system("wait for packets"))?);
        let shared = Arc::new(Shared::default());
        let carrier = Carrier {
            sockets,
            tags,
            shared: Arc::clone(&shared),
            waker: Arc::clone(&waker),
            delayed: [VecDeque::new(), VecDeque::new()],
            random: Random::new(0x9E37_79B9_7F4A_7C15),
        };
        // A poller stays on the thread that made it; whether it could be made is told here.
        let (tell, told) = channel();
        let thread = std::thread::Builder::new()
            .name(format!("wire-{customer}"))
            .spawn(move || match carrier.poller() {
                Ok(poller) => {
                    let _ = tell.send(Ok(()));
                    carrier.run(poller);
                }
                Err(error) => drop(tell.send(Err(error))),
            })
            .map_err(Error::system("start a thread"))?;
        let outcome = told
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the thread ended")));
        outcome.map_err(Error::system("wait for packets"))?;
        Ok(Self {
            host: Arc::clone(host),
            ends: [customer.to_owned(), provider.to_owned()],
            shared,
            waker,
            thread: Some(thread),
        })
    }

    /// The faults of one direction.
    pub fn faults(&self, direction: Direction) -> &Faults {
        let [to_provider, to_customer] = &self.shared.faults;
        match direction {
            Direction::ToProvider => to_provider,
            Direction::ToCustomer => to_customer,
        }
    }

    /// What one direction has carried.
    pub fn carried(&self, direction: Direction) -> &Carried {
        let [to_provider, to_customer] = &self.shared.carried;
        match direction {
            Direction::ToProvider => to_provider,
            Direction::ToCustomer => to_customer,
        }
    }

    /// Silences both directions, or lets both speak again; the carrier stays up.
    pub fn set_silent(&self, silent: bool) {
        for direction in Direction::BOTH {
            self.faults(direction).set_silent(silent);
        }
    }

    /// Takes the carrier from both neighbours, or gives it back.
    ///
    /// # Errors
    /// [`Error::Netlink`] where the kernel does not set one of the two ends up or down.
    pub fn set_carrier(&self, up: bool) -> Result<(), Error> {
        self.host
            .configure(|netlink| self.ends.iter().try_for_each(|end| netlink.set_up(end, up)))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A filter that takes every frame: one `BPF_RET | BPF_K` of the largest length (linux/filter.h).
pub const EVERYTHING: [Instruction; 1] = [Instruction {
    code: 6,
    jt: 0,
    jf: 0,
    k: u32::MAX,
}];

/// Frames taken from one end before the other has its turn.
const BURST: usize = 64;

/// How often the thread looks up without being woken: it bounds how late a delayed frame leaves.
const IDLE: Duration = Duration::from_millis(100);

/// A frame that is ready to be written.
struct Outgoing<'a> {
    offload: Offload,
    headers: u16,
    layer2: &'a [u8],
    packet: &'a [u8],
}

/// A frame that is held back.
struct Delayed {
    due: Instant,
    offload: Offload,
    headers: u16,
    layer2: Vec<u8>,
    packet: Vec<u8>,
}

/// The thread's side of a wire.
struct Carrier {
    sockets: [LinkSocket; 2],
    tags: Tags,
    shared: Arc<Shared>,
    waker: Arc<Waker>,
    /// By the end that they are written to.
    delayed: [VecDeque<Delayed>; 2],
    random: Random,
}

impl Carrier {
    fn poller(&self) -> io::Result<Poller> {
        let poller = Poller::new()?;
        let [first, second] = &self.sockets;
        poller.add(first, 0)?;
        poller.add(second, 1)?;
        poller.add(&*self.waker, 2)?;
        Ok(poller)
    }

    fn run(mut self, mut poller: Poller) {
        let mut buffer = vec![0; MAX_FRAME];
        let mut looked = Instant::now();
        while !self.shared.stop.load(Relaxed) {
            let now = Instant::now();
            if now.duration_since(looked) >= IDLE {
                looked = now;
                for (socket, carried) in self.sockets.iter().zip(&self.shared.carried) {
                    carried.overflowed.fetch_add(socket.kernel_drops(), Relaxed);
                }
            }
            self.release(now);
            let due = self
                .delayed
                .iter()
                .filter_map(|queue| queue.front())
                .map(|d| d.due)
                .min();
            let rest = due.map_or(IDLE, |due| due.saturating_duration_since(now).min(IDLE));
            let Ok(ready) = poller.wait(Some(rest)) else {
                return;
            };
            let mut ends = [false; 2];
            for token in ready {
                match ends.get_mut(token as usize) {
                    Some(end) => *end = true,
                    None => self.waker.clear(),
                }
            }
            for (from, _) in ends.iter().enumerate().filter(|(_, ready)| **ready) {
                for _ in 0..BURST {
                    if !self.carry(from, &mut buffer) {
                        break;
                    }
                }
            }
        }
    }

    /// Takes one frame from the end `from`; false if there is none.
    fn carry(&mut self, from: usize, buffer: &mut [u8]) -> bool {
        let Some(socket) = self.sockets.get(from) else {
            return false;
        };
        let frame = match socket.receive(buffer) {
            Ok(Some(frame)) => frame,
            Ok(None) => return false,
            // Down is said once; a frame too long for the buffer is lost. Either way: go on.
            Err(_) => return true,
        };
        let shared = Arc::clone(&self.shared);
        let (Some(faults), Some(carried)) = (shared.faults.get(from), shared.carried.get(from))
        else {
            return false;
        };
        let bytes = buffer.get(..frame.len).unwrap_or_default();
        let stripped = frame.stripped_tag;
        let mut layer2 = Vec::with_capacity(14 + 2 * TAG_LEN);
        let Some(split) = retag(self.tags, from == 0, stripped, bytes, &mut layer2) else {
            carried.foreign.fetch_add(1, Relaxed);
            return true;
        };
        let (_, packet) = bytes.split_at_checked(split).unwrap_or_default();
        let Some(offload) = Offload::decode(&frame.header, split as u16) else {
            carried.foreign.fetch_add(1, Relaxed);
            return true;
        };
        if faults.silent.load(Relaxed) || self.chance(faults.loss.load(Relaxed)) {
            carried.silenced.fetch_add(1, Relaxed);
            return true;
        }
        let headers = header_length(&offload, packet);
        let copies = 1 + usize::from(self.chance(faults.duplication.load(Relaxed)));
        let delay = faults.delay_us.load(Relaxed);
        let to = 1 - from;
        for _ in 0..copies {
            // While frames are held back, later ones queue behind them, so that order is kept.
            let queue = self
                .delayed
                .get_mut(to)
                .filter(|queue| delay > 0 || !queue.is_empty());
            if let Some(queue) = queue {
                queue.push_back(Delayed {
                    due: Instant::now() + Duration::from_micros(delay),
                    offload,
                    headers,
                    layer2: layer2.clone(),
                    packet: packet.to_vec(),
                });
            } else {
                let out = Outgoing {
                    offload,
                    headers,
                    layer2: &layer2,
                    packet,
                };
                self.write(to, &out);
            }
        }
        true
    }

    /// Sends the delayed frames whose time has come.
    fn release(&mut self, now: Instant) {
        for to in 0..self.delayed.len() {
            let waiting = |carrier: &mut Self| {
                let queue = carrier.delayed.get_mut(to)?;
                queue.pop_front_if(|d| d.due <= now)
            };
            while let Some(d) = waiting(self) {
                let out = Outgoing {
                    offload: d.offload,
                    headers: d.headers,
                    layer2: &d.layer2,
                    packet: &d.packet,
                };
                self.write(to, &out);
            }
        }
    }

    fn write(&self, to: usize, frame: &Outgoing<'_>) {
        let (Some(socket), Some(carried)) = (self.sockets.get(to), self.shared.carried.get(1 - to))
        else {
            return;
        };
        let deadline = Instant::now() + Duration::from_millis(20);
        let sent = loop {
            let parts = [IoSlice::new(frame.packet)];
            match socket.send(&frame.offload, frame.headers, frame.layer2, &parts) {
                // A full queue is the receiver being slow, not a fault of the wire: wait a little.
                Err(SendError::NoRoom) if Instant::now() < deadline => std::thread::yield_now(),
                other => break other.is_ok(),
            }
        };
        let counter = if sent {
            &carried.forwarded
        } else {
            &carried.refused
        };
        counter.fetch_add(1, Relaxed);
    }

    /// True with a probability of `share` / 2^32.
    fn chance(&mut self, share: u32) -> bool {
        share > 0 && (self.random.next() >> 32) as u32 <= share
    }
}

/// Builds the layer 2 header for the other side in `out` and says where the packet begins in `bytes`.
/// `None` if the frame's tags are not the circuit's, or it is too short.
fn retag(
    tags: Tags,
    tagged_side: bool,
    stripped: Option<(u16, u16)>,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Option<usize> {
    let addresses = bytes.get(..12)?;
    let half = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    out.clear();
    out.extend_from_slice(addresses);
    let mut at = 12;
    if tagged_side {
        let outer = stripped.map(|(kind, control)| (kind, control & ID_MASK));
        if outer != tags.outer() {
            return None;
        }
        if let Some(inner) = tags.inner() {
            if half(at)? != CUSTOMER_TAG || half(at + 2)? & ID_MASK != inner {
                return None;
            }
            at += TAG_LEN;
        }
    } else if stripped.is_some() {
        return None;
    } else {
        if let Some((kind, id)) = tags.outer() {
            out.extend_from_slice(&kind.to_be_bytes());
            out.extend_from_slice(&id.to_be_bytes());
        }
        if let Some(id) = tags.inner() {
            out.extend_from_slice(&CUSTOMER_TAG.to_be_bytes());
            out.extend_from_slice(&id.to_be_bytes());
        }
    }
    out.extend_from_slice(&half(at)?.to_be_bytes());
    Some(at + 2)
}

/// Length of the IP and transport headers of a super-packet, bytes; 0 for anything else.
fn header_length(offload: &Offload, packet: &[u8]) -> u16 {
    let (Some(gso), Some(checksum)) = (offload.gso, offload.checksum) else {
        return 0;
    };
    let transport = match gso.kind {
        GsoKind::Udp => 8,
        // The upper four bits of byte 12 count the TCP header in words (RFC 9293, 3.1).
        GsoKind::Tcp4 | GsoKind::Tcp6 => {
            let at = usize::from(checksum.start) + 12;
            packet.get(at).map_or(20, |byte| u16::from(byte >> 4) * 4)
        }
    };
    checksum.start.saturating_add(transport)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::connect;
    use crate::traffic::bulk;
    use crate::traffic::numbered::{Load, Run};
    use gateway::device::vlan::SERVICE_TAG;

    const ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

    fn frame(behind: &[u8]) -> Vec<u8> {
        [&ADDRESSES[..], behind].concat()
    }

    #[test]
    fn the_circuits_tags_go_on_and_come_off() {
        let tags = Tags::new(&[100, 10], SERVICE_TAG).unwrap();
        let mut out = Vec::new();
        let untagged = frame(&[0x08, 0, 0x45]);
        assert_eq!(retag(tags, false, None, &untagged, &mut out), Some(14));
        assert_eq!(out, frame(&[0x88, 0xa8, 0, 100, 0x81, 0, 0, 10, 8, 0]));

        // As the other end reads it: the kernel has taken the outer tag out, with priority bits set.
        let read = frame(&[0x81, 0, 0x60, 10, 8, 0, 0x45]);
        let stripped = Some((SERVICE_TAG, 0x2064));
        assert_eq!(retag(tags, true, stripped, &read, &mut out), Some(18));
        assert_eq!(out, frame(&[8, 0]));
    }

    #[test]
    fn frames_with_other_tags_are_not_the_circuits() {
        let tags = Tags::new(&[100, 10], SERVICE_TAG).unwrap();
        let mut out = Vec::new();
        let inner_11 = frame(&[0x81, 0, 0, 11, 8, 0, 0x45]);
        for (stripped, bytes) in [
            (None, frame(&[8, 0, 0x45])),
            (Some((CUSTOMER_TAG, 100)), frame(&[0x81, 0, 0, 10, 8, 0])),
            (Some((SERVICE_TAG, 101)), frame(&[0x81, 0, 0, 10, 8, 0])),
            (Some((SERVICE_TAG, 100)), inner_11),
            (Some((SERVICE_TAG, 100)), frame(&[0x81, 0, 0])),
        ] {
            assert_eq!(
                retag(tags, true, stripped, &bytes, &mut out),
                None,
                "{bytes:?}"
            );
        }
        assert_eq!(
            retag(
                Tags::NONE,
                false,
                Some((CUSTOMER_TAG, 1)),
                &frame(&[8, 0]),
                &mut out
            ),
            None
        );
    }

    /// Two hosts with an untagged wire between them.
    fn hosts_on_a_wire() -> (Host, Host, Wire) {
        let (a, b) = (Host::new("a").unwrap(), Host::new("b").unwrap());
        let middle = Arc::new(Host::new("wire").unwrap());
        for (host, end, address) in [(&a, "left", "10.0.0.1/24"), (&b, "right", "10.0.0.2/24")] {
            connect((host, "eth0"), (&middle, end)).unwrap();
            host.address("eth0", &[address]).unwrap();
            middle
                .configure(|netlink| netlink.set_up(end, true))
                .unwrap();
        }
        let wire = Wire::lay(&middle, "left", "right", Tags::NONE).unwrap();
        (a, b, wire)
    }

    #[test]
    fn super_packets_cross_whole_and_faults_do_as_they_are_told() {
        let (a, b, wire) = hosts_on_a_wire();
        let there = "10.0.0.2".parse().unwrap();
        let patience = Duration::from_secs(5);
        assert!(a.reaches(there, patience).unwrap());

        let bulk = bulk::send(&a, &b, there, Duration::from_millis(200)).unwrap();
        let frames = wire.carried(Direction::ToProvider).forwarded();
        assert!(
            bulk.bytes / frames > 3_000,
            "{} bytes in {frames} frames",
            bulk.bytes
        );

        let faults = wire.faults(Direction::ToCustomer);
        faults.set_delay(Duration::from_millis(20));
        let echoes = a.ping(there, 2, 8, patience).unwrap();
        assert!(echoes.median_us().unwrap() >= 20_000.0, "{echoes:?}");
        faults.clear();

        wire.set_silent(true);
        let echoes = a.ping(there, 2, 8, Duration::from_millis(20)).unwrap();
        assert_eq!(echoes.received, 0);
        assert!(wire.carried(Direction::ToProvider).silenced() >= 2);
        let carrier = |host: &Host| host.configure(|n| n.link("eth0")).unwrap().unwrap().carrier;
        assert!(carrier(&a) && carrier(&b));
        wire.set_silent(false);
        assert!(a.reaches(there, patience).unwrap());

        wire.set_carrier(false).unwrap();
        assert!(!carrier(&a) && !carrier(&b));
        wire.set_carrier(true).unwrap();
        assert!(carrier(&a) && carrier(&b));
        assert!(a.reaches(there, patience).unwrap());
    }

    #[test]
    fn duplication_and_loss_are_seen_by_the_receiver() {
        let (a, b, wire) = hosts_on_a_wire();
        let [from, to] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        assert!(a.reaches(to, Duration::from_secs(5)).unwrap());
        wire.faults(Direction::ToProvider).set_duplication(0.5);
        wire.faults(Direction::ToCustomer).set_loss(0.5);
        let load = Load {
            rate: 2_000,
            ..Load::default()
        };
        let run = Run::start((&a, from), (&b, to), load).unwrap();
        while run.now() < 200_000_000 {
            std::thread::yield_now();
        }
        let [there, back] = run
            .finish()
            .unwrap()
            .map(|record| record.judge(0, u64::MAX));
        assert_eq!((there.lost, back.duplicated), (0, 0));
        assert!(there.duplicated > there.sent / 4, "{there:?}");
        assert!(back.lost > back.sent / 4 && back.received > 0, "{back:?}");
    }
}
