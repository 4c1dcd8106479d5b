//! TCP in bulk: as many bytes as go through in a given time, counted where they arrive.

use crate::error::Error;
use crate::host::Host;
use crate::interrupt::{self, SLICE};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Bytes of one read or write: several super-packets.
const CHUNK: usize = 256 * 1024;
/// Nothing for so long is a failure, not slowness.
const SILENCE: Duration = Duration::from_secs(10);

/// What went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Throughput {
    /// Bytes of TCP payload that arrived.
    pub bytes: u64,
    /// From the first byte that arrived to the last, seconds.
    pub seconds: f64,
}

impl Throughput {
    /// Rate of TCP payload, 10^9 bits per second.
    pub fn gbps(&self) -> f64 {
        if self.seconds > 0.0 {
            self.bytes as f64 * 8.0 / self.seconds / 1e9
        } else {
            0.0
        }
    }
}

/// Sends as much as goes through from `from` to `to`, which has the address `target`, over one TCP
/// connection for `duration`.
///
/// # Errors
/// [`Error::System`], with both ends, where a socket cannot be bound, there is no connection within 10 s,
/// nothing moves for 10 s, the connection breaks, or the user wants to stop; also as of [`Host::run`].
pub fn send(
    from: &Host,
    to: &Host,
    target: IpAddr,
    duration: Duration,
) -> Result<Throughput, Error> {
    let action = || Error::system(format!("send in bulk from {} to {target}", from.name()));
    let any = SocketAddr::new(target, 0);
    let listener = to.run(|| TcpListener::bind(any))?.map_err(action())?;
    let at = listener.local_addr().map_err(action())?;
    std::thread::scope(|scope| {
        let receiver = scope.spawn(move || receive(&listener));
        let sent = from.run(|| transmit(at, duration))?;
        if sent.is_err() {
            // The receiver may wait for a connection that never came: give it one to end with.
            let _ = to.run(|| TcpStream::connect(at));
        }
        let received = receiver
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        sent.map_err(action())?;
        received.map_err(action())
    })
}

/// As [`send`], over so many connections at once: all bytes, in the time of the one that took longest.
///
/// # Errors
/// As of [`send`], of the first connection that failed.
pub fn send_flows(
    from: &Host,
    to: &Host,
    target: IpAddr,
    duration: Duration,
    flows: u16,
) -> Result<Throughput, Error> {
    std::thread::scope(|scope| {
        let flows: Vec<_> = (0..flows)
            .map(|_| scope.spawn(|| send(from, to, target, duration)))
            .collect();
        let mut all = Throughput::default();
        for flow in flows {
            let one = flow.join();
            let one = one.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            all.bytes += one.bytes;
            all.seconds = all.seconds.max(one.seconds);
        }
        Ok(all)
    })
}

fn transmit(to: SocketAddr, duration: Duration) -> io::Result<()> {
    let mut stream = connect(to)?;
    stream.set_write_timeout(Some(SLICE))?;
    let chunk = vec![0x5a; CHUNK];
    let end = Instant::now() + duration;
    while Instant::now() < end {
        patiently(|| stream.write(&chunk))?;
    }
    stream.shutdown(std::net::Shutdown::Write)
}

/// Connects on a thread of its own, which is left behind if the user wants to stop: nothing else ends a
/// `connect` whose answer does not come.
fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let (answer, answered) = channel();
    let begin = move || answer.send(TcpStream::connect_timeout(&to, SILENCE));
    let name = std::thread::Builder::new().name("connect".into());
    name.spawn(begin)?;
    loop {
        match answered.recv_timeout(SLICE) {
            Ok(connected) => return connected,
            Err(RecvTimeoutError::Timeout) => interrupt::check_io()?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(io::Error::other("the thread that connects has ended"));
            }
        }
    }
}

/// Reads or writes on a socket whose timeout is [`SLICE`], until something moves or [`SILENCE`] is over.
fn patiently(mut transfer: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    let deadline = Instant::now() + SILENCE;
    loop {
        interrupt::check_io()?;
        match transfer() {
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {}
            other => return other,
        }
    }
}

fn receive(listener: &TcpListener) -> io::Result<Throughput> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(SLICE))?;
    let mut buffer = vec![0; CHUNK];
    let mut throughput = Throughput::default();
    let mut first = None;
    loop {
        let length = patiently(|| stream.read(&mut buffer))?;
        let now = Instant::now();
        let first = *first.get_or_insert(now);
        if length == 0 {
            return Ok(throughput);
        }
        throughput.bytes += length as u64;
        throughput.seconds = now.duration_since(first).as_secs_f64();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::connect;

    #[test]
    fn bytes_arrive_and_a_missing_way_is_an_error() {
        let (a, b) = (Host::new("a").unwrap(), Host::new("b").unwrap());
        connect((&a, "eth0"), (&b, "eth0")).unwrap();
        a.address("eth0", &["10.0.0.1/24"]).unwrap();
        b.address("eth0", &["10.0.0.2/24", "10.9.0.1/24"]).unwrap();
        let target = "10.0.0.2".parse().unwrap();
        let through = send(&a, &b, target, Duration::from_millis(50)).unwrap();
        assert!(
            through.bytes >= CHUNK as u64 && through.gbps() > 0.0,
            "{through:?}"
        );
        let flows = send_flows(&a, &b, target, Duration::from_millis(50), 3).unwrap();
        assert!(flows.bytes >= 3 * CHUNK as u64, "{flows:?}");
        assert!(send(&a, &b, "10.9.0.1".parse().unwrap(), Duration::ZERO).is_err());
    }
}
