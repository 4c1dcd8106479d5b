//! The log on standard error, which nobody who reads it, or does not, can stop or hold up.
//!
//! 1. a line goes into a bounded queue; if there is no room it is counted as lost, and the caller goes on
//! 2. a thread of its own writes it, and may wait there for a pipe that is full or a terminal that was
//!    stopped (Ctrl-S)
//! 3. a line that cannot be written (a full disk, a reader that went away, a terminal that was closed) is
//!    counted as lost; once one can be written again, a line before it says how many were lost
//!
//! The end of the program waits for the queue a moment only ([`Log::flush`]).

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes that may wait to be written.
const ROOM: usize = 1 << 20;
/// The longest entry, bytes; a longer one is cut. The report of a configuration with errors can be long.
const LONGEST: usize = 64 << 10;
/// How long to wait for a standard error that somebody has made non-blocking and that has no room.
const NO_ROOM: Duration = Duration::from_millis(50);
/// How long the end of the program waits for what is still to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

static LOG: OnceLock<Log> = OnceLock::new();

/// Whether colour may be used on a stream: on a terminal that knows it, unless NO_COLOR is set (no-color.org).
pub fn colour(terminal: bool) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    terminal && !set("NO_COLOR") && !dumb
}

/// Sends what the program traces, and what it complains of, through a log from now on. Once a process.
///
/// # Errors
/// The system gives no thread.
pub fn start() -> io::Result<()> {
    if LOG.get().is_some() {
        return Ok(());
    }
    let log = Log::to(io::stderr())?;
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_ansi(colour(io::stderr().is_terminal()))
        .with_target(false)
        // What it says of itself would be printed with a macro that panics.
        .log_internal_errors(false);
    let _ = subscriber.try_init();
    let _ = LOG.set(log);
    Ok(())
}

/// Says `text`, one line or more, on standard error: through the log if there is one. What cannot be written
/// is lost; that ends nothing.
pub fn complain(text: &str) {
    if let Some(log) = LOG.get() {
        log.say(text.as_bytes());
    } else {
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

/// Waits until everything is written, but no longer than a moment.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.flush(LAST_WORDS);
    }
}

/// Says `text` on standard output without waiting for whoever reads it. That it cannot be written is a line
/// in the log.
pub fn announce(text: &'static str) {
    let write = move || {
        let mut stream = io::stdout().lock();
        let written = stream
            .write_all(text.as_bytes())
            .and_then(|()| stream.flush());
        if let Err(error) = written {
            let said = text.trim_end();
            tracing::warn!(%error, "{said:?} could not be written to standard output");
        }
    };
    let thread = std::thread::Builder::new().name("announce".to_owned());
    if let Err(error) = thread.spawn(write) {
        tracing::warn!(%error, "{:?} was not written to standard output", text.trim_end());
    }
}

/// A queue of lines and the thread that writes them.
#[derive(Clone, Debug)]
pub struct Log {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Box<[u8]>>,
    /// Of all entries.
    bytes: usize,
    /// Entries that nobody will see, and that this has not been said of yet.
    lost: u64,
    /// Whether the thread is writing one.
    busy: bool,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// Starts the thread, named `log`, that writes to `stream`. It ends with the process.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn to(stream: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let taken = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write(&taken, stream))?;
        Ok(Self { shared })
    }

    /// Has `entry` written, soon; it ends with its newline. Never waits.
    pub fn say(&self, entry: &[u8]) {
        let mut queue = self.shared.queue();
        let entry = shortened(entry);
        if queue.bytes + entry.len() > ROOM {
            queue.lost += 1;
            return;
        }
        queue.bytes += entry.len();
        queue.entries.push_back(entry);
        self.shared.filled.notify_one();
    }

    /// Waits until all is written or was found impossible to write; no longer than `patience`.
    pub fn flush(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut queue = self.shared.queue();
        while queue.busy || !queue.entries.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.written.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// An entry of bounded length.
fn shortened(entry: &[u8]) -> Box<[u8]> {
    match entry.get(..LONGEST) {
        Some(start) if entry.len() > LONGEST => {
            let cut = format!(" [{} bytes more]\n", entry.len() - LONGEST);
            [start, cut.as_bytes()].concat().into()
        }
        _ => entry.into(),
    }
}

/// Writes what comes, for ever.
fn write(shared: &Shared, mut stream: impl Write) {
    // Whether the last write ended within a line.
    let mut torn = false;
    let mut put = |bytes: &[u8]| {
        if torn {
            torn = write_all(&mut stream, b"\n").is_err();
        }
        let result = if torn {
            Err(0)
        } else {
            write_all(&mut stream, bytes)
        };
        torn |= result.is_err_and(|written| written > 0);
        result.is_ok()
    };
    loop {
        let (entry, lost) = {
            let mut queue = shared.queue();
            let entry = loop {
                if let Some(entry) = queue.entries.pop_front() {
                    break entry;
                }
                let waited = shared.filled.wait(queue);
                queue = waited.unwrap_or_else(PoisonError::into_inner);
            };
            queue.bytes -= entry.len();
            queue.busy = true;
            (entry, queue.lost)
        };
        let mut said = 0;
        if lost > 0 {
            let notice = format!(
                "{lost} line{} of this log {} lost: nothing could be written here\n",
                if lost == 1 { "" } else { "s" },
                if lost == 1 { "was" } else { "were" },
            );
            if put(notice.as_bytes()) {
                said = lost;
            }
        }
        let written = put(&entry);
        let mut queue = shared.queue();
        queue.lost = queue.lost - said + u64::from(!written);
        queue.busy = false;
        shared.written.notify_all();
    }
}

/// Writes all of `bytes`; the error is how many of them were written.
fn write_all(stream: &mut impl Write, bytes: &[u8]) -> Result<(), usize> {
    let mut written = 0;
    while let Some(left) = bytes.get(written..).filter(|left| !left.is_empty()) {
        match stream.write(left) {
            Ok(0) => return Err(written),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Others share the stream and have made it non-blocking. Only this thread waits.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(NO_ROOM);
            }
            Err(_) => return Err(written),
        }
    }
    Ok(())
}

/// What the tracing layer writes one event to.
#[derive(Debug)]
pub struct LogLine<'a>(&'a Log);

impl Write for LogLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.say(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        LogLine(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// A stream that takes nothing while it is told to fail, and waits for leave to write where it must.
    struct Stream {
        leave: Option<Receiver<()>>,
        fails: Arc<Mutex<bool>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stream {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(leave) = &self.leave {
                let _ = leave.recv();
            }
            if *self.fails.lock().unwrap() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Seen = (Log, Arc<Mutex<bool>>, Arc<Mutex<Vec<u8>>>);

    fn log(leave: Option<Receiver<()>>) -> Seen {
        let (fails, written) = (Arc::default(), Arc::default());
        let stream = Stream {
            leave,
            fails: Arc::clone(&fails),
            written: Arc::clone(&written),
        };
        (Log::to(stream).unwrap(), fails, written)
    }

    fn text(written: &Mutex<Vec<u8>>) -> String {
        String::from_utf8(written.lock().unwrap().clone()).unwrap()
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn what_could_not_be_written_is_said_when_it_can_be_again() {
        let (log, fails, written) = log(None);
        log.say(b"one\n");
        log.flush(LONG);
        *fails.lock().unwrap() = true;
        for _ in 0..3 {
            log.say(b"lost\n");
        }
        log.flush(LONG);
        *fails.lock().unwrap() = false;
        log.say(b"two\n");
        log.say(b"three\n");
        log.flush(LONG);
        assert_eq!(
            text(&written),
            "one\n3 lines of this log were lost: nothing could be written here\ntwo\nthree\n"
        );
    }

    #[test]
    fn a_stream_that_takes_nothing_holds_nobody_up() {
        let (leave, wait): (Sender<()>, _) = channel();
        let (log, _, written) = log(Some(wait));
        let line = [b'x'; 1 << 10];
        // Three times what there is room for: this would never end if one of them waited.
        for _ in 0..3 * ROOM / line.len() {
            log.say(&line);
        }
        log.flush(Duration::from_millis(1));
        assert_eq!(text(&written), "");
        // Whoever reads is back.
        drop(leave);
        log.flush(LONG);
        log.say(b"\nlast\n");
        log.flush(LONG);
        let text = text(&written);
        assert!(
            text.contains("lines of this log were lost"),
            "{}",
            text.len()
        );
        assert!(text.ends_with("\nlast\n"));
        assert!(text.len() <= ROOM + 2 * line.len() + 100, "{}", text.len());
    }

    #[test]
    fn an_entry_is_cut_where_it_is_too_long() {
        let (log, _, written) = log(None);
        log.say(&vec![b'y'; LONGEST + 7]);
        log.flush(LONG);
        let text = text(&written);
        assert!(text.ends_with("y [7 bytes more]\n"), "{}", text.len());
    }
}
