//! What a thread sleeps on: epoll, and an eventfd that another thread wakes it with.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The most descriptors that one wait tells of; the others come with the next.
const MAX_READY: usize = 64;

/// A set of descriptors, each with a token, level-triggered for reading (epoll, Linux 2.6).
pub struct Poller {
    epoll: OwnedFd,
    ready: Vec<u64>,
}

impl Poller {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self {
            epoll,
            ready: Vec::with_capacity(MAX_READY),
        })
    }

    /// Watches `source` for reading under `token`.
    pub fn add(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token);
        Ok(epoll::add(
            &self.epoll,
            source,
            data,
            epoll::EventFlags::IN,
        )?)
    }

    /// Stops watching `source`. A closed descriptor leaves the set by itself.
    pub fn remove(&self, source: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, source)?)
    }

    /// Waits until something is ready or `timeout` has passed (`None`: without limit) and gives the
    /// tokens. An interrupted wait gives none.
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
    ) -> io::Result<impl Iterator<Item = u64> + '_> {
        self.ready.clear();
        let timeout = timeout.map(|t| Timespec {
            tv_sec: t.as_secs().cast_signed(),
            tv_nsec: i64::from(t.subsec_nanos()),
        });
        let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; MAX_READY];
        match epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()) {
            Ok((ready, _)) => {
                let tokens = ready.iter().map(|event| event.data.u64());
                self.ready.extend(tokens);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.ready.iter().copied())
    }
}

/// Whether `source` can be read now.
pub fn readable(source: impl AsFd) -> bool {
    let mut set = [PollFd::new(&source, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut set, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Wakes a thread that sleeps in a [`Poller`]. Many wakes before the sleeper looks cost one system call.
#[derive(Debug)]
pub struct Waker {
    event: OwnedFd,
    pending: AtomicBool,
}

impl Waker {
    /// A waker that nobody has woken.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            event,
            pending: AtomicBool::new(false),
        })
    }

    /// Wakes the sleeper, unless it has been woken and has not looked yet.
    pub fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            // The counter cannot overflow: at most one write stands between two `clear`s.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }

    /// Called by the sleeper before it looks at what it was woken for.
    pub fn clear(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.event, &mut count);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waker_is_seen_once_and_again() {
        let waker = Waker::new().unwrap();
        let mut poller = Poller::new().unwrap();
        poller.add(&waker, 7).unwrap();
        let zero = Some(Duration::ZERO);
        assert_eq!(poller.wait(zero).unwrap().count(), 0);
        waker.wake();
        waker.wake();
        assert_eq!(poller.wait(zero).unwrap().collect::<Vec<_>>(), [7]);
        waker.clear();
        assert_eq!(poller.wait(zero).unwrap().count(), 0);
        waker.wake();
        assert!(readable(&waker));
    }
}
