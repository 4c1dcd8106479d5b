//! The state in force, where a change of the gateway and control's judgement meet.
//!
//! Two threads write: whoever changes the gateway replaces the whole state, and control moves the groups' words and the
//! paths' widths in whichever state is in force. A new state is made of health and widths as they were a moment ago,
//! so control may have moved the state before it when it comes into force. What is told last is right all the same:
//!
//! 1. a new state is in force before control is told of it ([`InForce::replace`])
//! 2. an order lies in the queue before control is woken, and control forgets that it was woken before it looks
//!    into the queue ([`Orders`]): none is left behind
//! 3. who was told sets every word and width of the state in force anew, whether its judgement has changed or not
//!    ([`Judge::follow`])
//! 4. a word is stored before it is shown that it was ([`Judge::judge`])
//!
//! (`tests/loom` tries every order.)

use crate::device::waker::Waker;
use crate::sync::{ArcSwap, ArrayQueue};
use routing::health::Usability;
use routing::path::PathId;
use std::sync::Arc;
use std::time::Instant;

/// What control changes in a state as it stands.
pub(crate) trait Steered {
    /// What a link's width changes.
    type Fitted;

    /// Stores the groups' words for this usability of the paths, by [`PathId`]; how many changed.
    fn switch(&self, usability: &[Usability]) -> usize;

    /// Makes a path so wide; `None` if it is already, or is not known here.
    fn fit(&self, path: PathId, mtu: u16) -> Option<Self::Fitted>;
}

/// The state in force, which workers read.
#[derive(Debug)]
pub(crate) struct InForce<S>(Arc<ArcSwap<S>>);

impl<S> Clone for InForce<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> InForce<S> {
    /// That which stands there.
    pub(crate) fn new(state: Arc<ArcSwap<S>>) -> Self {
        Self(state)
    }

    /// The state in force now.
    pub(crate) fn load(&self) -> Arc<S> {
        self.0.load_full()
    }

    /// Brings a state into force that is made out of the one before, and then has control follow, with `between` in
    /// between. Gives the one before, which workers may still read, what `between` gives, and whether control was
    /// told.
    pub(crate) fn replace<O, T>(
        &self,
        make: impl FnOnce(&S) -> S,
        between: impl FnOnce() -> T,
        (orders, order): (&Orders<O>, O),
    ) -> (Arc<S>, T, bool) {
        let next = make(&self.load());
        let replaced = self.0.swap(Arc::new(next));
        let done = between();
        let told = orders.give(order);
        (replaced, done, told)
    }
}

impl<S: Steered> InForce<S> {
    /// As [`Steered::switch`], of the state in force now.
    pub(crate) fn switch(&self, usability: &[Usability]) -> usize {
        self.load().switch(usability)
    }

    /// As [`Steered::fit`], of the state in force now.
    pub(crate) fn fit(&self, path: PathId, mtu: u16) -> Option<S::Fitted> {
        self.load().fit(path, mtu)
    }
}

/// What control is told, and what wakes it.
#[derive(Debug)]
pub(crate) struct Orders<O> {
    queue: ArrayQueue<O>,
    waker: Arc<Waker>,
}

impl<O> Orders<O> {
    /// Room for so many that wait.
    pub(crate) fn new(room: usize, waker: Arc<Waker>) -> Self {
        Self {
            queue: ArrayQueue::new(room),
            waker,
        }
    }

    /// Tells control; false if too many orders wait.
    pub(crate) fn give(&self, order: O) -> bool {
        let given = self.queue.push(order).is_ok();
        self.waker.wake();
        given
    }

    /// Tells control in any case, in place of the oldest order if too many wait.
    pub(crate) fn insist(&self, order: O) {
        self.queue.force_push(order);
        self.waker.wake();
    }

    /// Control, woken: takes every order that waits.
    ///
    /// # Errors
    /// That of the first order that could not be carried out.
    pub(crate) fn take_each<E>(&self, mut each: impl FnMut(O) -> Result<(), E>) -> Result<(), E> {
        self.waker.clear();
        while let Some(order) = self.queue.pop() {
            each(order)?;
        }
        Ok(())
    }
}

/// Control's part.
pub(crate) trait Judge {
    /// What has become of paths.
    type News;

    /// Judges every path anew; `None` if nothing has changed, and otherwise whether flows may have to move.
    fn look(&mut self, now: Instant) -> Option<(Self::News, bool)>;

    /// Stores the groups' words of the state in force, as paths were judged last; how many changed.
    fn switch(&mut self) -> usize;

    /// Makes the paths of the state in force as wide as their interfaces are.
    fn fit(&mut self);

    /// Shows how paths were judged last; `news`, if there are any, with whether a word changed for them.
    fn show(&mut self, now: Instant, news: Option<(Self::News, bool)>);

    /// Something has become of a path.
    fn judge(&mut self, now: Instant) {
        if let Some((news, moves)) = self.look(now) {
            let switched = moves && self.switch() > 0;
            self.show(now, Some((news, switched)));
        }
    }

    /// Another state may be in force, made of what was so before the last judgement.
    fn follow(&mut self, now: Instant) {
        self.judge(now);
        self.switch();
        self.fit();
        self.show(now, None);
    }
}
