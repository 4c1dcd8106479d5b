//! The thread that hears what others do to the kernel's side of the gateway, and sets it right.
//!
//! It sleeps until netlink tells of a change. It is a thread of its own because what it does waits for the
//! kernel's configuration lock (rtnl), which others may hold for long; control never waits for it.

use crate::control::published::{PathEvent, Published, unix_ms};
use crate::device::event::{Poller, Waker};
use crate::device::netlink::{Error, HostChange, HostMonitor};
use crate::kernel::presence::{Presence, PresenceView};
use crate::kernel::settings::Settings;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

const MONITOR: u64 = 0;
const WAKER: u64 = 1;

/// How long a change may be followed by others (a device that is taken down and up, a table that is
/// flushed) before it is looked at.
const SETTLE: Duration = Duration::from_millis(50);

/// And before it is tried again after the kernel could not be asked.
const RETRY: Duration = Duration::from_secs(1);

/// Name of the device's events among the paths'.
const VNET: &str = "vnet";

/// What the thread keeps.
pub(crate) struct Keeper {
    presence: Arc<Presence>,
    settings: Settings,
    monitor: HostMonitor,
    stop: Arc<Stop>,
}

/// Ends it.
#[derive(Debug)]
pub(crate) struct Stop {
    stop: AtomicBool,
    waker: Waker,
}

impl Stop {
    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl Keeper {
    /// Listens from now on, in the calling thread's network namespace. `settings` stay as long as it does.
    ///
    /// # Errors
    /// Netlink's.
    pub(crate) fn new(presence: &Arc<Presence>, settings: Settings) -> Result<Self, Error> {
        let waker = Waker::new().map_err(|source| Error::Socket {
            action: "make an eventfd",
            source,
        })?;
        Ok(Self {
            presence: Arc::clone(presence),
            settings,
            // A reload may turn host_routes on.
            monitor: HostMonitor::open(true)?,
            stop: Arc::new(Stop {
                stop: AtomicBool::new(false),
                waker,
            }),
        })
    }

    /// What ends the thread.
    pub(crate) fn handle(&self) -> Arc<Stop> {
        Arc::clone(&self.stop)
    }

    /// Keeps watch on this thread until it is told to stop.
    pub(crate) fn run(mut self, published: &Published) -> io::Result<()> {
        let mut poller = Poller::new()?;
        poller.add(&self.monitor, MONITOR)?;
        poller.add(&self.stop.waker, WAKER)?;
        let mut due: Option<Instant> = None;
        let mut shown = PresenceView::default();
        shown.device.clone_from(&self.presence.view().device);
        // Something may have changed between the start and the subscription.
        let mut next = Some(Instant::now());
        while !self.stop.stop.load(Ordering::Acquire) {
            due = match (due, next.take()) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
            let now = Instant::now();
            if due.is_some_and(|at| now >= at) {
                due = self.look(now);
            }
            tell(&mut shown, self.presence.view(), published);
            let pause = due.map(|at| at.saturating_duration_since(Instant::now()));
            let mut ready = [false; 2];
            for token in poller.wait(pause)? {
                if let Some(slot) = ready.get_mut(token as usize) {
                    *slot = true;
                }
            }
            let [monitor, waker] = ready;
            if waker {
                self.stop.waker.clear();
            }
            if monitor && self.hear() {
                next = Some(Instant::now() + SETTLE);
            }
        }
        Ok(())
    }

    /// Hears what has changed; true if it may concern the gateway.
    fn hear(&mut self) -> bool {
        let mut concerned = false;
        let (presence, settings) = (&self.presence, &mut self.settings);
        let heard = self.monitor.changes(&mut |change| {
            concerned |= presence.concerns(&change);
            if let HostChange::Link(event) = &change {
                settings.link_is(event);
            }
        });
        // What was lost may have been about anything.
        concerned || heard.is_err()
    }

    /// Sets right what is not; when to look again.
    fn look(&self, now: Instant) -> Option<Instant> {
        match self.presence.look(now, false) {
            Ok(look) => {
                for line in &look.done {
                    tracing::warn!("changed by another program, and put back: {line}");
                }
                let mut more = look.unfinished;
                while more && !self.stop.stop.load(Ordering::Acquire) {
                    more = self.presence.go_on().unwrap_or(false);
                }
                look.again
            }
            Err(error) => {
                tracing::warn!(%error, "the device could not be looked at");
                Some(now + RETRY)
            }
        }
    }
}

/// A line in the log and an event for each problem that has come or gone.
fn tell(shown: &mut PresenceView, now: PresenceView, published: &Published) {
    if *shown == now {
        return;
    }
    let state = |view: &PresenceView| {
        if view.problems.is_empty() {
            "up"
        } else {
            "degraded"
        }
    };
    for problem in &now.problems {
        if !shown.problems.contains(problem) && problem.reason != "route_conflict" {
            tracing::warn!(reason = problem.reason, "{}", problem.detail);
        }
    }
    let reasons = |view: &PresenceView| -> Vec<_> {
        view.problems.iter().map(|problem| problem.reason).collect()
    };
    if reasons(shown) != reasons(&now) {
        let (from, to) = (state(shown), state(&now));
        if from != to {
            tracing::info!(device = now.device, from, to, "the device has changed");
        }
        let wall = unix_ms(SystemTime::now());
        published.record(PathEvent {
            detected_unix_ms: wall,
            switched_unix_ms: None,
            path: VNET.to_owned(),
            from,
            to,
            reason: now.problems.first().map(|problem| problem.reason),
        });
    }
    *shown = now;
}
