//! A model of the kernel's eventfd: a counter under a lock that a thread can sleep on. Who sleeps and is
//! never woken is a deadlock, which loom reports.

use loom::sync::{Condvar, Mutex};
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

#[derive(Debug)]
struct Counter {
    count: Mutex<u64>,
    changed: Condvar,
}

/// The counter, as the program has it.
#[derive(Debug)]
pub(crate) struct EventFd(Arc<Counter>);

thread_local! {
    /// The last one made, until the model asks for it: all of loom's threads run on one of the system's.
    static LAST: RefCell<Option<Arc<Counter>>> = const { RefCell::new(None) };
}

impl EventFd {
    /// As the program's, which may fail.
    #[allow(clippy::unnecessary_wraps)]
    pub(crate) fn new() -> io::Result<Self> {
        let counter = Arc::new(Counter {
            count: Mutex::new(0),
            changed: Condvar::new(),
        });
        LAST.set(Some(Arc::clone(&counter)));
        Ok(Self(counter))
    }

    pub(crate) fn add(&self) {
        *self.0.count.lock().unwrap() += 1;
        self.0.changed.notify_one();
    }

    pub(crate) fn take(&self) {
        *self.0.count.lock().unwrap() = 0;
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        unreachable!("a model has no descriptor")
    }
}

/// What the sleeper's epoll knows of the counter.
pub(crate) struct Poller(Arc<Counter>);

impl Poller {
    /// Of the eventfd that was made last.
    pub(crate) fn of_last() -> Self {
        Self(LAST.take().expect("an eventfd has been made"))
    }

    /// Sleeps until it can be read.
    pub(crate) fn sleep(&self) {
        let mut count = self.0.count.lock().unwrap();
        while *count == 0 {
            count = self.0.changed.wait(count).unwrap();
        }
    }

    /// Whether it can be read now.
    pub(crate) fn look(&self) -> bool {
        *self.0.count.lock().unwrap() > 0
    }
}

/// For the files' own tests, which do not run here.
pub(crate) fn readable(_: impl AsFd) -> bool {
    unreachable!("a model has no descriptor")
}
