//! Wakes a thread that sleeps, with as few system calls as can be.

use super::event::EventFd;
use crate::sync::atomic::{AtomicBool, Ordering};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Wakes a thread that sleeps in a [`Poller`](super::event::Poller). Many wakes before the sleeper looks cost
/// one system call. (`tests/loom` tries every order.)
#[derive(Debug)]
pub struct Waker {
    event: EventFd,
    pending: AtomicBool,
}

impl Waker {
    /// A waker that nobody has woken.
    ///
    /// # Errors
    /// That of `eventfd`: no descriptor is left (EMFILE, ENFILE).
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            event: EventFd::new()?,
            pending: AtomicBool::new(false),
        })
    }

    /// Wakes the sleeper, unless it has been woken and has not looked yet.
    pub fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            // The counter cannot overflow: at most one write stands between two `clear`s.
            self.event.add();
        }
    }

    /// Called by the sleeper before it looks at what it was woken for.
    pub fn clear(&self) {
        self.event.take();
        // Read and written in one step: a plain store could be seen after what the sleeper reads next, and
        // a wake that fell in between would be lost.
        self.pending.swap(false, Ordering::AcqRel);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
