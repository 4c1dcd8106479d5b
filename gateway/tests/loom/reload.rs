//! The forwarding state: a group's word (`routing/src/path.rs`) and the snapshot that a reload swaps while
//! control judges.
//!
//! The steps are those of `control/running.rs` (`reload`), `control/supervisor.rs` (`DataPlane`) and
//! `control/run.rs` (`judge`, `watch`); the word, the waker and the queue of orders are the program's.

use crate::device::event::Poller;
use crate::device::waker::Waker;
use crate::explore;
use crate::path::ActiveMembers;
use crate::swap::Swap;
use crate::sync::ArrayQueue;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use std::sync::Arc;

/// Words of a group of two tiers: the first member while it is usable, else the second.
const FIRST: u64 = 0b01;
const SECOND: u64 = 0b10;

/// Control moves a group twice. A worker sees words that were stored, later ones never before earlier ones,
/// and with all stores behind it the last.
pub(crate) fn a_word_is_one_of_those_stored() {
    explore(|| {
        let word = Arc::new(ActiveMembers::new(1));
        let control = {
            let word = Arc::clone(&word);
            thread::spawn(move || {
                word.store(2);
                word.store(4);
            })
        };
        let seen = [word.load(), word.load()];
        assert!(seen.iter().all(|seen| [1, 2, 4].contains(seen)), "{seen:?}");
        assert!(seen[0] <= seen[1], "{seen:?}");
        control.join().unwrap();
        assert_eq!(word.load(), 4);
    });
}

/// A snapshot of one group, and the MTU of its path's side.
struct Forwarding {
    word: ActiveMembers,
    mtu: AtomicUsize,
    generation: usize,
}

struct Gateway {
    forwarding: Swap<Forwarding>,
    /// What control shows: the word that follows from the health that it has judged.
    board: Swap<u64>,
    /// The interface's MTU, which control publishes to everybody (`LinkWord`).
    mtu: AtomicUsize,
    orders: ArrayQueue<()>,
    waker: Waker,
}

impl Gateway {
    /// Effects: the groups' words of the snapshot in force.
    fn switch(&self, word: u64) {
        let forwarding = self.forwarding.load();
        if forwarding.word.load() != word {
            forwarding.word.store(word);
        }
    }

    /// Effects: the path's MTU in the state in force.
    fn link(&self, mtu: usize) {
        self.forwarding.load().mtu.swap(mtu, Ordering::Relaxed);
    }

    /// Control obeys what it was told; whether there was something.
    fn obey(&self, word: u64, mtu: usize) -> bool {
        self.waker.clear();
        let mut some = false;
        while self.orders.pop().is_some() {
            self.switch(word);
            self.link(mtu);
            self.board.store(word);
            some = true;
        }
        some
    }

    /// Control: judges a path that has gone down and an interface that has changed, before, between or
    /// after whatever it is told, and ends when it has been told.
    fn control(&self, poller: &Poller) {
        let mut told = poller.look() && self.obey(FIRST, 1500);
        self.switch(SECOND);
        self.board.store(SECOND);
        self.mtu.store(1400, Ordering::Relaxed);
        self.link(1400);
        while !told {
            poller.sleep();
            told = self.obey(SECOND, 1400);
        }
    }

    /// Reload: a new snapshot with the health and the MTU as they are, stored; then control is told.
    fn reload(&self) {
        let word = *self.board.load();
        self.forwarding.store(Forwarding {
            word: ActiveMembers::new(word),
            mtu: AtomicUsize::new(self.mtu.load(Ordering::Relaxed)),
            generation: 2,
        });
        self.orders.push(()).unwrap();
        self.waker.wake();
    }
}

/// A reload while a path goes down and an interface's MTU changes: when both have ended, the state in force
/// has control's last word, and nothing was in force at any time whose word no one had judged.
pub(crate) fn control_has_the_last_word() {
    explore(|| {
        let gateway = Arc::new(Gateway {
            forwarding: Swap::new(Forwarding {
                word: ActiveMembers::new(FIRST),
                mtu: AtomicUsize::new(1500),
                generation: 1,
            }),
            board: Swap::new(FIRST),
            mtu: AtomicUsize::new(1500),
            orders: ArrayQueue::new(2),
            waker: Waker::new().unwrap(),
        });
        let poller = Poller::of_last();
        let control = {
            let gateway = Arc::clone(&gateway);
            thread::spawn(move || gateway.control(&poller))
        };
        gateway.reload();
        control.join().unwrap();
        let forwarding = gateway.forwarding.load();
        assert_eq!(forwarding.generation, 2);
        assert_eq!(
            forwarding.word.load(),
            SECOND,
            "the word of the snapshot in force"
        );
        assert_eq!(forwarding.mtu.load(Ordering::Relaxed), 1400, "its MTU");
    });
}
