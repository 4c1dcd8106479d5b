//! The forwarding state: a group's word (`routing/src/path.rs`) and the state that a reload brings into force while
//! control judges (`control/force.rs`, all of it, with `worker/interface.rs`).
//!
//! Models of a few lines are the state, of one group and one path, and how paths are judged: the first member is
//! usable while its interface is as wide as at first.

use crate::control::force::{InForce, Judge, Orders, Steered};
use crate::device::event::Poller;
use crate::device::waker::Waker;
use crate::explore;
use crate::path::ActiveMembers;
use crate::sync::ArcSwap;
use crate::worker::interface::{LinkFacts, LinkWord};
use loom::sync::atomic::{AtomicU16, Ordering};
use loom::thread;
use routing::health::Usability;
use routing::path::PathId;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

/// Words of a group of two tiers: the first member while it is usable, else the second.
const FIRST: u64 = 0b01;
const SECOND: u64 = 0b10;
/// One after the other, so that control may hear of the second while it carries out the first.
const RELOADS: u32 = 2;

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

/// A state of one group, and the width of its first path.
struct Forwarding {
    word: ActiveMembers,
    mtu: AtomicU16,
    generation: u32,
}

impl Steered for Forwarding {
    type Fitted = ();

    fn switch(&self, usability: &[Usability]) -> usize {
        let word = word(usability[0]);
        let changed = self.word.load() != word;
        if changed {
            self.word.store(word);
        }
        usize::from(changed)
    }

    fn fit(&self, path: PathId, mtu: u16) -> Option<()> {
        assert_eq!(path, PathId(0));
        (self.mtu.swap(mtu, Ordering::Relaxed) != mtu).then_some(())
    }
}

fn word(first: Usability) -> u64 {
    if first == Usability::Full {
        FIRST
    } else {
        SECOND
    }
}

/// What the threads share.
struct Gateway {
    forwarding: InForce<Forwarding>,
    /// What control shows: the usability that it has judged.
    published: ArcSwap<Usability>,
    /// The interface, which control publishes to everybody.
    interface: LinkWord,
    orders: Orders<()>,
}

/// The control thread.
struct Control {
    gateway: Arc<Gateway>,
    facts: LinkFacts,
    judged: Usability,
    /// How many states it was told of.
    told: u32,
}

impl Judge for Control {
    type News = ();

    fn look(&mut self, _: Instant) -> Option<((), bool)> {
        let usability = if self.facts.mtu == 1500 {
            Usability::Full
        } else {
            Usability::None
        };
        let before = std::mem::replace(&mut self.judged, usability);
        (before != usability).then_some(((), true))
    }

    fn switch(&mut self) -> usize {
        self.gateway.forwarding.switch(&[self.judged])
    }

    fn fit(&mut self) {
        let mtu = self.facts.mtu as u16;
        let _ = self.gateway.forwarding.fit(PathId(0), mtu);
    }

    fn show(&mut self, _: Instant, _: Option<((), bool)>) {
        // Whoever sees it finds that the state in force has it already, or was made after it.
        let forwarding = self.gateway.forwarding.load();
        let is_untold = forwarding.generation > 1 + self.told;
        assert!(
            is_untold || forwarding.word.load() == word(self.judged),
            "shown before it was so"
        );
        self.gateway.published.swap(Arc::new(self.judged));
    }
}

impl Control {
    fn take_orders(&mut self, now: Instant) {
        let gateway = Arc::clone(&self.gateway);
        let done = gateway.orders.take_each(|()| {
            self.told += 1;
            self.follow(now);
            Ok::<_, Infallible>(())
        });
        assert_eq!(done, Ok(()));
    }

    /// Hears of an interface that has changed, before, between or after whatever it is told, and ends when it has
    /// been told of every state.
    fn run(&mut self, poller: &Poller) {
        let now = Instant::now();
        if poller.look() {
            self.take_orders(now);
        }
        self.facts = facts(1400);
        self.gateway.interface.publish(self.facts);
        self.judge(now);
        self.fit();
        while self.told < RELOADS {
            poller.sleep();
            self.take_orders(now);
        }
    }
}

fn facts(mtu: u32) -> LinkFacts {
    LinkFacts {
        generation: 1,
        index: 1,
        mtu,
        up: true,
    }
}

/// Reloads while an interface changes, which takes the first member out: when all is done, the state in force has
/// control's last word and width.
pub(crate) fn control_has_the_last_word() {
    explore(|| {
        let waker = Arc::new(Waker::new().unwrap());
        let poller = Poller::of_last();
        let gateway = Arc::new(Gateway {
            forwarding: InForce::new(Arc::new(ArcSwap::from_pointee(Forwarding {
                word: ActiveMembers::new(FIRST),
                mtu: AtomicU16::new(1500),
                generation: 1,
            }))),
            published: ArcSwap::from_pointee(Usability::Full),
            interface: LinkWord::default(),
            orders: Orders::new(2, waker),
        });
        gateway.interface.publish(facts(1500));
        let mut control = Control {
            gateway: Arc::clone(&gateway),
            facts: facts(1500),
            judged: Usability::Full,
            told: 0,
        };
        let control = thread::spawn(move || control.run(&poller));
        for generation in 1..=RELOADS {
            // As the program does: the plan with the health that is shown, the paths as wide as is published.
            let health = *gateway.published.load_full();
            let (replaced, (), told) = gateway.forwarding.replace(
                |before| Forwarding {
                    word: ActiveMembers::new(word(health)),
                    mtu: AtomicU16::new(gateway.interface.read().mtu as u16),
                    generation: before.generation + 1,
                },
                || {},
                (&gateway.orders, ()),
            );
            assert!(told && replaced.generation == generation);
        }
        control.join().unwrap();
        let forwarding = gateway.forwarding.load();
        assert_eq!(forwarding.generation, 1 + RELOADS);
        assert_eq!(
            forwarding.word.load(),
            SECOND,
            "the word of the state in force"
        );
        assert_eq!(forwarding.mtu.load(Ordering::Relaxed), 1400, "its MTU");
        assert_eq!(
            *gateway.published.load_full(),
            Usability::None,
            "what is shown"
        );
    });
}
