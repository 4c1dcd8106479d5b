//! When a tunnel's datagrams arrive at a host, and of which kind they are: a packet socket beside the program
//! that they are for.

use integration::host::Host;
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, eth, recv, socket_with, sockopt,
};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Length of a data message without a packet: a keepalive.
const KEEPALIVE: usize = 32;

/// What a datagram is (WireGuard whitepaper, 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Initiation,
    Keepalive,
    Data,
    Other,
}

impl Kind {
    fn of(datagram: &[u8]) -> Self {
        match datagram.first() {
            Some(1) => Self::Initiation,
            Some(4) if datagram.len() == KEEPALIVE => Self::Keepalive,
            Some(4) => Self::Data,
            _ => Self::Other,
        }
    }
}

/// A datagram: when it came, what it is, and the port that it was for.
type Seen = (Instant, Kind, u16);

/// A listener, until it is dropped.
pub(crate) struct Tap {
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    /// Listens to what comes to `host` from this address.
    pub(crate) fn start(host: &Host, from: Ipv4Addr) -> Self {
        let socket = host
            .run(|| {
                let (family, kind) = (AddressFamily::PACKET, SocketType::DGRAM);
                let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(eth::IP))?;
                let wait = Some(Duration::from_millis(100));
                sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, wait)?;
                Ok::<_, rustix::io::Errno>(socket)
            })
            .unwrap()
            .unwrap();
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let stop: Arc<AtomicBool> = Arc::default();
        let (all, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut packet = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, _)) = recv(&socket, &mut packet, RecvFlags::empty()) else {
                    continue;
                };
                // An IPv4 header without options, a UDP header, the datagram.
                let packet = &packet[..length.min(2048)];
                if packet.len() > 28 && packet[9] == 17 && packet[12..16] == from.octets() {
                    let port = u16::from_be_bytes([packet[22], packet[23]]);
                    let seen = (Instant::now(), Kind::of(&packet[28..]), port);
                    all.lock().unwrap().push(seen);
                }
            }
        });
        Self {
            seen,
            stop,
            thread: Some(thread),
        }
    }

    /// When datagrams of a kind came after `start`, in seconds from then.
    pub(crate) fn since(&self, start: Instant, kind: Kind) -> Vec<f64> {
        self.since_for(start, kind, |_| true)
    }

    /// The same of those for one port.
    pub(crate) fn since_for(
        &self,
        start: Instant,
        kind: Kind,
        port: impl Fn(u16) -> bool,
    ) -> Vec<f64> {
        let seen = self.seen.lock().unwrap();
        let after = seen
            .iter()
            .filter(|seen| seen.0 > start && seen.1 == kind && port(seen.2));
        after.map(|seen| (seen.0 - start).as_secs_f64()).collect()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
