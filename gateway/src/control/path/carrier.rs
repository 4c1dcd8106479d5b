//! Has the kernel tell of a lost carrier at once.
//!
//! The kernel tells of most carrier changes at once, but after each it lets up to a second pass before it
//! tells of the next one, on whatever interface and in whatever namespace (`linkwatch_nextevent`,
//! net/core/link_watch.c). The second of two links that are cut together would be found a second late.
//! A question about a link (RTM_GETLINK) has its pending change carried out first
//! (`linkwatch_sync_dev`, Linux 3.12), and the notification goes out with it. So a thread of its own asks
//! about every link for as long as the kernel may hold something back, and throws the answers away: what
//! matters is the notification, which control hears where it hears all others. It asks
//!
//! - after a change of any link that control hears of: all the time, until the kernel holds back no more
//! - after a lost probe: once. A change that nobody here saw (in another network namespace) may have the
//!   kernel hold back this one's carrier
//!
//! and sleeps otherwise. It is a thread of its own because a question waits for the kernel's configuration
//! lock (rtnl), which others may hold for long; control itself never waits for it.

use crate::device::event::{Poller, Waker};
use crate::device::netlink::Netlink;
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time between two rounds of questions after something has happened. One question costs about 10 us.
const ROUND: Duration = Duration::from_millis(2);

/// How long the kernel holds it back (HZ jiffies), with the time that a round may take.
const HELD_BACK: Duration = Duration::from_millis(1100);

/// What the asking thread and control share.
#[derive(Debug)]
pub(crate) struct Carrier {
    wanted: Mutex<Wanted>,
    stop: AtomicBool,
    waker: Waker,
}

#[derive(Clone, Debug, Default)]
struct Wanted {
    names: BTreeSet<String>,
    quick_until: Option<Instant>,
}

impl Carrier {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            wanted: Mutex::default(),
            stop: AtomicBool::new(false),
            waker: Waker::new()?,
        })
    }

    /// Has these interfaces asked about from now on.
    pub(crate) fn watch(&self, names: BTreeSet<String>) {
        self.wanted().names = names;
        self.waker.wake();
    }

    /// Asks once.
    pub(crate) fn nudge(&self) {
        self.waker.wake();
    }

    /// Something has happened to an interface: asks for as long as the kernel holds back.
    pub(crate) fn hurry(&self, now: Instant) {
        self.wanted().quick_until = Some(now + HELD_BACK);
        self.waker.wake();
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the asking thread.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Asks on this thread until it is stopped. `netlink` is of control's namespace.
    pub(crate) fn ask(&self, mut netlink: Netlink) -> io::Result<()> {
        let mut poller = Poller::new()?;
        poller.add(&self.waker, 0)?;
        while !self.stop.load(Ordering::Acquire) {
            // The lock is not held over a question.
            let Wanted { names, quick_until } = self.wanted().clone();
            for name in &names {
                // An interface that is gone, or a question that failed: control hears of the former.
                let _ = netlink.link(name);
            }
            let quick = quick_until.is_some_and(|until| Instant::now() < until);
            let pause = (quick && !names.is_empty()).then_some(ROUND);
            if poller.wait(pause)?.count() > 0 {
                self.waker.clear();
            }
        }
        Ok(())
    }
}
