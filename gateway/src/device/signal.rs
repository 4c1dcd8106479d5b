//! Signals as something to read: SIGINT, SIGTERM and SIGHUP come out of a descriptor that a thread sleeps
//! on beside its others, so no handler runs and nothing is interrupted (signalfd(2)).

use super::socket::check;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// A signal that the gateway answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: end cleanly.
    Interrupt,
    /// SIGTERM: end cleanly.
    Terminate,
    /// SIGHUP: read the configuration again.
    HangUp,
}

const SIGNALS: [(i32, Signal); 3] = [
    (libc::SIGINT, Signal::Interrupt),
    (libc::SIGTERM, Signal::Terminate),
    (libc::SIGHUP, Signal::HangUp),
];

/// The descriptor.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks the signals in this thread and all that it starts later, and opens the descriptor. Call it
    /// before the first thread starts: one that has them unblocked would be killed by them. SIGXFSZ is
    /// blocked too, and not read: a log file that has reached the limit of its size (`ulimit -f`) is then a
    /// write that fails with EFBIG.
    ///
    /// # Errors
    /// That of `pthread_sigmask`, or of `signalfd`: no descriptor is left (EMFILE, ENFILE); the signals stay blocked
    /// then.
    pub fn new() -> io::Result<Self> {
        // SAFETY: `sigset_t` is an array of integers, for which zeros are a value.
        let mut set: libc::sigset_t = unsafe { zeroed() };
        // SAFETY: `set` lives through the call.
        unsafe { libc::sigemptyset(&raw mut set) };
        for (number, _) in SIGNALS {
            // SAFETY: `set` is initialised and lives through the call.
            unsafe { libc::sigaddset(&raw mut set, number) };
        }
        let mut blocked = set;
        // SAFETY: `blocked` is initialised and lives through the call.
        unsafe { libc::sigaddset(&raw mut blocked, libc::SIGXFSZ) };
        // SAFETY: `blocked` is initialised and only read; the old mask is not asked for.
        let result = unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const blocked, std::ptr::null_mut())
        };
        if result != 0 {
            return Err(io::Error::from_raw_os_error(result));
        }
        // SAFETY: `set` is initialised and only read.
        let fd =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        check(fd as isize)?;
        // SAFETY: the descriptor is new, and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd })
    }

    /// The next signal that has come in; `None`: none waits.
    pub fn read(&self) -> Option<Signal> {
        // struct signalfd_siginfo begins with the signal's number (u32).
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        let len = rustix::io::read(&self.fd, &mut info).ok()?;
        let number = u32::from_ne_bytes(*info.get(..len)?.first_chunk()?).cast_signed();
        SIGNALS
            .iter()
            .find(|(n, _)| *n == number)
            .map(|(_, signal)| *signal)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_read_in_place_of_killing() {
        // On a thread of its own: the mask would stay with the test runner's.
        let test = || {
            let signals = Signals::new().unwrap();
            assert_eq!(signals.read(), None);
            for (number, signal) in SIGNALS {
                // SAFETY: it has no preconditions; the signal goes to this thread, where it is blocked.
                assert_eq!(unsafe { libc::raise(number) }, 0);
                assert_eq!(signals.read(), Some(signal));
            }
            assert_eq!(signals.read(), None);
        };
        std::thread::spawn(test).join().unwrap();
    }
}
