//! What a thread sleeps on: epoll, and an eventfd that another thread wakes it with.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

pub use super::waker::Waker;

/// The most descriptors that one wait tells of; the others come with the next.
const MAX_READY: usize = 64;

/// A set of descriptors, each with a token, level-triggered for reading (epoll, Linux 2.6).
pub struct Poller {
    epoll: OwnedFd,
    ready: Vec<u64>,
}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// That of `epoll_create1`: no descriptor is left (EMFILE, ENFILE).
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self {
            epoll,
            ready: Vec::with_capacity(MAX_READY),
        })
    }

    /// Watches `source` for reading under `token`.
    ///
    /// # Errors
    /// That of `epoll_ctl`: `source` is watched already (EEXIST), cannot be waited for (EPERM, a regular file), or
    /// the user watches too many descriptors (ENOSPC, `fs.epoll.max_user_watches`).
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
    ///
    /// # Errors
    /// That of `epoll_ctl`: `source` is not watched (ENOENT).
    pub fn remove(&self, source: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, source)?)
    }

    /// Waits until something is ready or `timeout` has passed (`None`: without limit) and gives the
    /// tokens. An interrupted wait gives none.
    ///
    /// # Errors
    /// That of `epoll_wait`: the set itself cannot be waited for. EINTR is an empty answer, no error.
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

/// A counter of the kernel's that can be slept on (eventfd, Linux 2.6.22).
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    /// At zero, nonblocking.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?))
    }

    /// Adds one: it can be read from now on.
    pub(crate) fn add(&self) {
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Sets it back to zero.
    pub(crate) fn take(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.0, &mut count);
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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
