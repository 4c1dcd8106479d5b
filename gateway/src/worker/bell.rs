//! How a worker is told that something waits for it, without a system call while it is awake anyway.
//!
//! 1. whoever has put something into one of the worker's queues, or changed a word that it reads once a
//!    round, rings
//! 2. a worker that is awake takes note before it would sleep ([`Bell::doze`]) and runs another round
//! 3. only a worker that sleeps costs an eventfd write, and only the first ring of many

use crate::device::waker::Waker;
use crate::sync::atomic::{AtomicU8, Ordering};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// In a round that began after the last ring.
const AWAKE: u8 = 0;
/// Asleep, or about to be: the next ring must wake it.
const ASLEEP: u8 = 1;
/// Rung since its last round began.
const RUNG: u8 = 2;

/// The state of a worker as ringers see it. All steps are read-modify-write operations on one word, so they
/// have one order: a ring either comes before the worker's next look, which then sees what was put there, or
/// finds it asleep and wakes it. (`tests/loom` tries every order.)
#[derive(Debug, Default)]
pub struct Attention(AtomicU8);

impl Attention {
    /// Ringer: true if the worker sleeps and must be woken, which falls to this ringer alone.
    #[inline]
    pub fn ring(&self) -> bool {
        self.0.swap(RUNG, Ordering::AcqRel) == ASLEEP
    }

    /// Worker: begins a round; what was put there before any ring so far is seen by what it reads next.
    #[inline]
    pub fn begin(&self) {
        self.0.swap(AWAKE, Ordering::AcqRel);
    }

    /// Worker: true if it may sleep now; false if it has been rung since its round began.
    #[inline]
    pub fn doze(&self) -> bool {
        self.0
            .compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

/// A worker's bell.
#[derive(Debug)]
pub struct Bell {
    attention: Attention,
    waker: Waker,
}

impl Bell {
    /// A bell that nobody has rung.
    ///
    /// # Errors
    /// As those of [`Waker::new`].
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            attention: Attention::default(),
            waker: Waker::new()?,
        })
    }

    /// Rings: the worker will look at its queues and words once more before it sleeps.
    #[inline]
    pub fn ring(&self) {
        if self.attention.ring() {
            self.waker.wake();
        }
    }

    /// Worker: begins a round, in which it looks at everything that others put there.
    #[inline]
    pub fn begin(&self) {
        self.attention.begin();
    }

    /// Worker: true if it may sleep now.
    #[inline]
    pub fn doze(&self) -> bool {
        self.attention.doze()
    }

    /// Worker: after its poller has told of the bell.
    pub fn clear(&self) {
        self.waker.clear();
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waker.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::event::readable;

    #[test]
    fn only_a_sleeping_worker_is_woken_and_only_once() {
        let bell = Bell::new().unwrap();
        bell.begin();
        bell.ring();
        assert!(!readable(&bell), "it is awake");
        assert!(!bell.doze(), "it has been rung");
        bell.begin();
        assert!(bell.doze());
        bell.ring();
        bell.ring();
        assert!(readable(&bell));
        bell.clear();
        bell.begin();
        assert!(!readable(&bell));
        assert!(bell.doze());
    }
}
