//! Who sleeps is woken: `device/waker.rs` and, on it, `worker/bell.rs`.

use crate::device::event::Poller;
use crate::device::waker::Waker;
use crate::explore;
use crate::worker::bell::Bell;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use std::sync::Arc;

/// Two threads put something somewhere and wake. The sleeper clears, looks, and sleeps again until it has
/// seen both: a wake that is lost is a sleep without end.
pub(crate) fn a_waker_loses_no_wake() {
    explore(|| {
        let waker = Arc::new(Waker::new().unwrap());
        let poller = Poller::of_last();
        let places = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let givers = [0, 1].map(|giver| {
            let (waker, places) = (Arc::clone(&waker), Arc::clone(&places));
            thread::spawn(move || {
                places[giver].store(1, Ordering::Relaxed);
                waker.wake();
            })
        });
        while places
            .iter()
            .any(|place| place.load(Ordering::Relaxed) == 0)
        {
            poller.sleep();
            waker.clear();
        }
        for giver in givers {
            giver.join().unwrap();
        }
    });
}

/// Rounds of a worker as `worker/run.rs` has them, until `look` has found all there is.
pub(crate) fn work(bell: &Bell, poller: &Poller, mut look: impl FnMut() -> bool) {
    let mut told = poller.look();
    loop {
        bell.begin();
        if told {
            bell.clear();
        }
        if look() {
            return;
        }
        if bell.doze() {
            poller.sleep();
            told = true;
        } else {
            told = poller.look();
        }
    }
}

/// The same with bells, which wake a worker only if it sleeps.
pub(crate) fn a_worker_sleeps_through_no_ring() {
    explore(|| {
        let bell = Arc::new(Bell::new().unwrap());
        let poller = Poller::of_last();
        let places = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let givers = [0, 1].map(|giver| {
            let (bell, places) = (Arc::clone(&bell), Arc::clone(&places));
            thread::spawn(move || {
                places[giver].store(1, Ordering::Relaxed);
                bell.ring();
            })
        });
        let all = || {
            places
                .iter()
                .all(|place| place.load(Ordering::Relaxed) == 1)
        };
        work(&bell, &poller, all);
        for giver in givers {
            giver.join().unwrap();
        }
    });
}

/// A worker in the middle of its round is not woken, and goes into another round by itself.
pub(crate) fn a_worker_that_is_awake_costs_no_system_call() {
    explore(|| {
        let bell = Arc::new(Bell::new().unwrap());
        let poller = Poller::of_last();
        bell.begin();
        let givers = [(); 2].map(|()| {
            let bell = Arc::clone(&bell);
            thread::spawn(move || bell.ring())
        });
        for giver in givers {
            giver.join().unwrap();
        }
        assert!(!poller.look(), "it was awake");
        assert!(!bell.doze(), "it was rung");
    });
}
