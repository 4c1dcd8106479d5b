//! The user's wish to stop (SIGINT, SIGTERM, SIGHUP), as every part of the lab sees it.
//!
//! A terminal's Ctrl-C goes to the whole foreground process group. The lab's programs are in groups of
//! their own ([`crate::process::Spawner`]), so it reaches the lab alone, and what fails after it fails
//! because of it:
//!
//! 1. [`watch`] starts a thread that sleeps on the signals. The first one sets the mark that [`pending`]
//!    reads, kills every program that the lab has started, and wakes who waits in [`wait`].
//! 2. What the lab does in its own threads looks at the mark at least every [`SLICE`], and ends.
//! 3. Who does not end within [`GRACE`], or hears a second signal, is ended by the thread. Namespaces,
//!    devices and files are held by descriptors alone, and go with the process.
//!
//! Without [`watch`], as in tests, the mark is never set.

use crate::error::Error;
use gateway::device::event::{Poller, readable};
use gateway::device::signal::Signals;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long anything waits before it looks at the mark again.
pub const SLICE: Duration = Duration::from_millis(50);
/// How long the lab has to end and to write what it has found.
const GRACE: Duration = Duration::from_millis(850);
/// Exit status of a lab that was interrupted: the work was not done.
const STATUS: i32 = 1;

static PENDING: AtomicBool = AtomicBool::new(false);
static STATE: Mutex<State> = Mutex::new(State {
    programs: Vec::new(),
});
static SET: Condvar = Condvar::new();

struct State {
    /// Programs that the lab has started, some of which have ended.
    programs: Vec<OwnedFd>,
}

fn state() -> MutexGuard<'static, State> {
    // A list of descriptors is whole whatever a panicking holder left undone.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to watch the signals. Call it once, before any thread is started: signals are blocked in this
/// thread and those that it starts.
///
/// # Errors
/// [`Error::System`] where `signalfd` gives no descriptor or there is no thread to sleep on it.
pub fn watch() -> Result<(), Error> {
    let signals = Signals::new().map_err(Error::system("take signals"))?;
    std::thread::Builder::new()
        .name("interrupt".into())
        .spawn(move || {
            until_signal(&signals, None);
            begin();
            until_signal(&signals, Some(Instant::now() + GRACE));
            let _ = writeln!(io::stderr(), "vng-lab: interrupted");
            std::process::exit(STATUS);
        })
        .map_err(Error::system("start a thread"))?;
    Ok(())
}

/// Sleeps until a signal comes in, or until then.
fn until_signal(signals: &Signals, deadline: Option<Instant>) {
    // Without epoll nobody could be told of a signal: then wait in short steps.
    let mut poller = Poller::new().ok();
    if let Some(poller) = &poller {
        let _ = poller.add(signals, 0);
    }
    while signals.read().is_none() {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return;
        }
        match poller.as_mut() {
            Some(poller) => {
                let _ = poller.wait(left).map(|ready| ready.for_each(drop));
            }
            None => std::thread::sleep(SLICE),
        }
    }
}

fn begin() {
    let mut state = state();
    PENDING.store(true, Ordering::SeqCst);
    for program in state.programs.drain(..) {
        let _ = pidfd_send_signal(&program, Signal::KILL);
    }
    drop(state);
    SET.notify_all();
}

/// Puts a program that the lab has started among those that end when the user wants to stop.
pub(crate) fn register(id: u32) {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
    // One that has ended cannot be opened, and need not be ended.
    let Some(Ok(program)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
        return;
    };
    let mut state = state();
    if pending() {
        let _ = pidfd_send_signal(&program, Signal::KILL);
        return;
    }
    // A pidfd becomes readable when its process ends (Linux 5.3).
    state.programs.retain(|program| !readable(program));
    state.programs.push(program);
}

/// Whether the user wants to stop.
pub fn pending() -> bool {
    PENDING.load(Ordering::Relaxed)
}

/// An error if the user wants to stop.
///
/// # Errors
/// [`Error::Interrupted`], by which the lab ends with status 1.
pub fn check() -> Result<(), Error> {
    if pending() {
        Err(Error::Interrupted)
    } else {
        Ok(())
    }
}

/// The same where errors are those of I/O.
pub(crate) fn check_io() -> io::Result<()> {
    if pending() {
        Err(io::Error::other("interrupted"))
    } else {
        Ok(())
    }
}

/// Waits so long, or until the user wants to stop.
///
/// # Errors
/// [`Error::Interrupted`], as of [`check`].
pub fn wait(duration: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + duration;
    let mut state = state();
    loop {
        check()?;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let woken = SET.wait_timeout(state, left);
        state = woken.unwrap_or_else(PoisonError::into_inner).0;
    }
}
