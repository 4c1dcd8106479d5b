//! A link's interface as control tells the workers of it, and who of them opens a socket on it when.
//!
//! All workers' sockets of a link form one fanout group, which the kernel binds to the interface of its first
//! member: while a socket of the interface before it is a member, nobody who comes with the next one is let in
//! (`fanout_add`: EINVAL). And it numbers the members as they come, which is to be the workers' order. So when
//! another interface has the link's name:
//!
//! 1. each worker closes its socket and says so ([`Opening::refresh`])
//! 2. once all have, the first opens its socket, then the next, each when the one before it has
//! 3. who cannot open it keeps its turn and tries again, after 10 ms at first and after 1 s at last
//! 4. a generation that comes meanwhile begins at 1; what was under way for the one before it changes nothing
//!
//! (`tests/loom` tries every order.)

use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::worker::bell::Bell;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a worker waits before it tries again to open a socket: doubled each time.
const FIRST_RETRY: Duration = Duration::from_millis(10);
/// And at the most.
const LAST_RETRY: Duration = Duration::from_secs(1);

/// What control knows of a link's interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkFacts {
    /// Counts up whenever the data socket must be opened anew: another interface has the link's name
    /// now, or has got it for the first time.
    pub generation: u32,
    /// Index of the interface; 0: there is none of that name, nothing can be sent or received.
    pub index: u32,
    /// MTU, bytes of the IP packet with the tags that stand in band; 0: not known.
    pub mtu: u32,
    /// Set up and with carrier.
    pub up: bool,
}

/// A link's interface, published by control to the workers. A worker compares the generation with the
/// one that its socket was opened for once a round (one load on the common way), and reads the
/// rest when it is told to look: control wakes every worker after each change.
#[derive(Debug, Default)]
pub struct LinkWord {
    generation: AtomicU32,
    index: AtomicU32,
    mtu: AtomicU32,
    up: AtomicBool,
    turn: AtomicU64,
}

/// What [`LinkWord`] has in its one word of turns.
#[derive(Clone, Copy)]
struct Turn {
    /// The newest that any worker has begun with.
    generation: u32,
    /// Workers without a socket of an older one.
    left: u16,
    /// Workers that have opened theirs, or found that there is nothing to open.
    opened: u16,
}

impl Turn {
    fn of(word: u64) -> Self {
        Self {
            generation: (word >> 32) as u32,
            left: (word >> 16) as u16,
            opened: word as u16,
        }
    }

    fn word(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.left) << 16 | u64::from(self.opened)
    }
}

impl LinkWord {
    /// Control: publishes what is so now. One writer.
    pub fn publish(&self, facts: LinkFacts) {
        self.index.store(facts.index, Ordering::Relaxed);
        self.mtu.store(facts.mtu, Ordering::Relaxed);
        self.up.store(facts.up, Ordering::Relaxed);
        // Last, and with release: who sees the new generation sees the index that belongs to it.
        self.generation.store(facts.generation, Ordering::Release);
    }

    /// Worker: what is so now.
    #[inline]
    pub fn read(&self) -> LinkFacts {
        LinkFacts {
            generation: self.generation.load(Ordering::Acquire),
            index: self.index.load(Ordering::Relaxed),
            mtu: self.mtu.load(Ordering::Relaxed),
            up: self.up.load(Ordering::Relaxed),
        }
    }

    /// Worker: has no socket of a generation before this one; to be said once. True if it was the last of
    /// `workers` to say so.
    fn leave(&self, generation: u32, workers: u16) -> bool {
        let step = |word| {
            let turn = Turn::of(word);
            if turn.generation == generation {
                let left = turn.left.saturating_add(1).min(workers);
                return Some(Turn { left, ..turn }.word());
            }
            // One that has been overtaken changes nothing.
            let is_newer = generation.wrapping_sub(turn.generation).cast_signed() > 0;
            is_newer.then(|| {
                // Before the first there were no sockets: workers that are still to be made need not leave.
                let left = if turn.generation == 0 { workers } else { 1 };
                let new = Turn {
                    generation,
                    left,
                    opened: 0,
                };
                new.word()
            })
        };
        let before = self
            .turn
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, step);
        before.is_ok_and(|before| {
            let after = step(before).map(Turn::of);
            after.is_some_and(|after| after.left == workers)
        })
    }

    /// Worker: whether it is the one to open its socket on this generation now.
    fn is_turn(&self, generation: u32, worker: u16, workers: u16) -> bool {
        let turn = Turn::of(self.turn.load(Ordering::Acquire));
        (turn.generation, turn.left, turn.opened) == (generation, workers, worker)
    }

    /// Worker: has opened its socket; true if that makes it the next one's turn, and false if another generation
    /// has begun meanwhile.
    fn take_turn(&self, generation: u32, worker: u16) -> bool {
        let step = |word| {
            let turn = Turn::of(word);
            let is_mine = (turn.generation, turn.opened) == (generation, worker);
            is_mine.then(|| {
                let opened = worker.saturating_add(1);
                Turn { opened, ..turn }.word()
            })
        };
        self.turn
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, step)
            .is_ok()
    }
}

/// What has become of a worker's socket.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<E> {
    /// Nothing has changed.
    Same,
    /// It is closed, and will be opened in its turn.
    Closed,
    /// It is open, or there is no interface to open it on.
    Done {
        /// It could not be before.
        at_last: bool,
    },
    /// It could not be opened, for the first time; it will be tried again.
    Failed(E),
}

/// One worker's place among those that share a link.
#[derive(Debug)]
pub struct Opening {
    worker: u16,
    /// All workers', by number; none where there is one worker only.
    bells: Option<Arc<[Arc<Bell>]>>,
    /// The generation that it has begun with.
    generation: u32,
    /// Whether its socket on that is still to be opened.
    pending: bool,
    /// When it is tried again.
    retry: Option<Instant>,
    wait: Duration,
}

impl Opening {
    /// Of the worker of this number, which is alone or shares the link with those of these bells.
    pub fn new(worker: usize, bells: Option<Arc<[Arc<Bell>]>>) -> Self {
        Self {
            worker: worker as u16,
            bells,
            generation: 0,
            pending: false,
            retry: None,
            wait: FIRST_RETRY,
        }
    }

    /// Whether [`Opening::refresh`] has something to do, or may have.
    #[inline]
    pub fn is_behind(&self, word: &LinkWord) -> bool {
        self.pending || word.generation.load(Ordering::Acquire) != self.generation
    }

    /// The generation that it has begun with.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// When a socket that could not be opened is tried again.
    #[inline]
    pub fn retry(&self) -> Option<Instant> {
        self.retry
    }

    /// Closes the socket of an interface that is no more, and opens one on the interface that has its name now, if it
    /// is this worker's turn.
    pub fn refresh<S, E>(
        &mut self,
        word: &LinkWord,
        now: Instant,
        socket: &mut Option<S>,
        open: impl FnOnce() -> Result<S, E>,
    ) -> Opened<E> {
        let facts = word.read();
        let mut seen = Opened::Same;
        if facts.generation != self.generation {
            self.generation = facts.generation;
            self.pending = true;
            (self.retry, self.wait) = (None, FIRST_RETRY);
            *socket = None;
            seen = Opened::Closed;
            if word.leave(facts.generation, self.workers()) {
                self.ring(0);
            }
        }
        let is_early = self.retry.is_some_and(|retry| now < retry);
        if !self.pending || is_early || !word.is_turn(self.generation, self.worker, self.workers())
        {
            return seen;
        }
        if facts.index != 0 {
            match open() {
                Ok(opened) => *socket = Some(opened),
                Err(error) => {
                    let is_first = self.retry.is_none();
                    self.retry = Some(now + self.wait);
                    self.wait = (self.wait * 2).min(LAST_RETRY);
                    return if is_first {
                        Opened::Failed(error)
                    } else {
                        seen
                    };
                }
            }
        }
        self.pending = false;
        let at_last = self.retry.take().is_some();
        if word.take_turn(self.generation, self.worker) {
            self.ring(self.worker + 1);
        }
        Opened::Done { at_last }
    }

    fn workers(&self) -> u16 {
        self.bells.as_ref().map_or(1, |bells| bells.len() as u16)
    }

    fn ring(&self, worker: u16) {
        let bells = self.bells.as_ref();
        if let Some(bell) = bells.and_then(|bells| bells.get(usize::from(worker)))
            && worker != self.worker
        {
            bell.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(generation: u32) -> LinkFacts {
        LinkFacts {
            generation,
            index: 17,
            mtu: 1508,
            up: true,
        }
    }

    /// Workers that share a link, each with its socket: the generation that it was opened on.
    fn workers(count: usize) -> Vec<(Opening, Option<u32>)> {
        let bells: Arc<[_]> = (0..count).map(|_| Arc::new(Bell::new().unwrap())).collect();
        let opening = |worker| (Opening::new(worker, Some(Arc::clone(&bells))), None);
        (0..count).map(opening).collect()
    }

    fn refresh(worker: &mut (Opening, Option<u32>), word: &LinkWord) -> Opened<()> {
        let generation = word.read().generation;
        let open = || Ok(generation);
        worker.0.refresh(word, Instant::now(), &mut worker.1, open)
    }

    #[test]
    fn a_link_word_gives_back_its_facts() {
        let word = LinkWord::default();
        assert_eq!(word.read(), LinkFacts::default());
        word.publish(facts(2));
        assert_eq!(word.read(), facts(2));
    }

    #[test]
    fn at_the_start_each_opens_as_it_is_made() {
        let (word, mut all) = (LinkWord::default(), workers(3));
        word.publish(facts(1));
        for worker in &mut all {
            assert_eq!(refresh(worker, &word), Opened::Done { at_last: false });
            assert!(!worker.0.is_behind(&word));
        }
    }

    #[test]
    fn all_leave_before_anyone_joins_and_they_join_in_order() {
        let (word, mut all) = (LinkWord::default(), workers(3));
        word.publish(facts(1));
        for worker in &mut all {
            assert_eq!(refresh(worker, &word), Opened::Done { at_last: false });
        }
        word.publish(facts(2));
        for n in [2, 0, 1] {
            assert_eq!(refresh(&mut all[n], &word), Opened::Closed, "{n}");
        }
        let order = [2, 1, 0, 2, 1, 2].map(|n| {
            let done = refresh(&mut all[n], &word) == Opened::Done { at_last: false };
            (n, done)
        });
        let expected = [
            (2, false),
            (1, false),
            (0, true),
            (2, false),
            (1, true),
            (2, true),
        ];
        assert_eq!(order, expected);
        assert!(all.iter().all(|worker| worker.1 == Some(2)));
    }

    #[test]
    fn who_cannot_open_tries_again_and_keeps_its_turn() {
        let (word, mut all) = (LinkWord::default(), workers(2));
        word.publish(facts(1));
        let mut now = Instant::now();
        let (opening, socket) = &mut all[0];
        let failed = opening.refresh(&word, now, socket, || Err("EMFILE"));
        assert_eq!(failed, Opened::Failed("EMFILE"));
        assert!(opening.is_behind(&word) && socket.is_none());
        for _ in 0..10 {
            let early =
                opening.refresh::<_, &str>(&word, now, socket, || panic!("before its time"));
            assert_eq!(early, Opened::Same);
            now = opening.retry().expect("it is to be tried again");
            let again = opening.refresh(&word, now, socket, || Err("EMFILE"));
            assert_eq!(again, Opened::Same, "said once");
        }
        assert!(
            opening
                .retry()
                .is_some_and(|retry| retry <= now + LAST_RETRY)
        );
        assert_eq!(refresh(&mut all[1], &word), Opened::Closed, "not its turn");
        let (opening, socket) = &mut all[0];
        let done = opening.refresh::<_, &str>(&word, now + LAST_RETRY, socket, || Ok(1));
        assert_eq!(done, Opened::Done { at_last: true });
        assert_eq!(opening.retry(), None);
        assert_eq!(refresh(&mut all[1], &word), Opened::Done { at_last: false });
    }

    #[test]
    fn what_was_under_way_for_an_older_generation_changes_nothing() {
        let (word, mut all) = (LinkWord::default(), workers(2));
        word.publish(facts(1));
        let [first, second] = &mut all[..] else {
            panic!("two")
        };
        // The first is about to open its socket when a newer interface comes, and the second hears of that first.
        let opened = first
            .0
            .refresh::<_, ()>(&word, Instant::now(), &mut first.1, || {
                word.publish(facts(2));
                assert_eq!(refresh(second, &word), Opened::Closed);
                Ok(1)
            });
        assert_eq!(opened, Opened::Done { at_last: false });
        assert_eq!(
            refresh(second, &word),
            Opened::Same,
            "the first is still there"
        );
        assert_eq!(refresh(first, &word), Opened::Done { at_last: false });
        assert_eq!(refresh(second, &word), Opened::Done { at_last: false });
        assert_eq!((first.1, second.1), (Some(2), Some(2)));
    }
}
