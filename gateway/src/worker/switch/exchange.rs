//! The other workers, as one of them sees them: what is for a tunnel of another's crosses over, and comes in.

use crate::worker::handoff::{Batch, Cargo, Entrance, Exit, Handed};
use std::time::Instant;

/// The exits to the other workers and the entrances from them. There is no way from a worker to itself.
#[derive(Default)]
pub struct Exchange {
    /// By the worker's number; none to itself.
    exits: Vec<Option<Exit>>,
    entrances: Vec<Entrance>,
    /// Who is asked about handshakes of nobody who is known here.
    next: Option<usize>,
    /// Whether some exit's next packet shall tell its sender to slow down.
    tells: bool,
}

impl Exchange {
    /// Between workers with these exits, by number, and entrances. `next` is asked about handshakes of nobody who is
    /// known here.
    pub fn new(exits: Vec<Option<Exit>>, entrances: Vec<Entrance>, next: Option<usize>) -> Self {
        Self {
            exits,
            entrances,
            next,
            tells: false,
        }
    }

    /// Whether this is another worker's number.
    #[inline]
    pub(super) fn is_other(&self, worker: usize) -> bool {
        matches!(self.exits.get(worker), Some(Some(_)))
    }

    /// Lays something into the batch for another worker; false if there is no room.
    #[inline]
    pub(super) fn lay(&mut self, worker: usize, bytes: &[u8], cargo: Cargo) -> bool {
        let exit = self.exits.get_mut(worker).and_then(Option::as_mut);
        exit.is_some_and(|exit| exit.lay(bytes, cargo))
    }

    /// Sends every batch that is open, at the end of a round with this number.
    #[inline]
    pub(super) fn end_round(&mut self, number: u64, now: Instant) {
        self.tells = false;
        for exit in self.exits.iter_mut().flatten() {
            exit.end_round(number, now);
            self.tells |= exit.tell;
        }
    }

    /// Whether the next packet for some other worker shall tell its sender to slow down.
    #[inline]
    pub(super) fn tells(&self) -> bool {
        self.tells
    }

    /// Whether the next packet for this worker shall; it is this one.
    pub(super) fn take_tell(&mut self, worker: usize) -> bool {
        let exit = self.exits.get_mut(worker).and_then(Option::as_mut);
        exit.is_some_and(|exit| std::mem::take(&mut exit.tell))
    }

    /// Offers a call to the next worker; it is given back if there is none, or no room.
    pub(super) fn offer(&self, call: Handed) -> Result<(), Handed> {
        match self.next.and_then(|next| self.exits.get(next)?.as_ref()) {
            Some(exit) => exit.offer(call),
            None => Err(call),
        }
    }

    /// How many other workers there are whose batches come in.
    #[inline]
    pub(super) fn entrances(&self) -> usize {
        self.entrances.len()
    }

    /// The next batch from the worker at this place.
    #[inline]
    pub(super) fn take(&self, index: usize) -> Option<Batch> {
        self.entrances.get(index)?.take()
    }

    /// Gives a batch back to where it came from, empty.
    #[inline]
    pub(super) fn give_back(&self, index: usize, batch: Batch) {
        if let Some(entrance) = self.entrances.get(index) {
            entrance.give_back(batch);
        }
    }

    /// The next call from the worker at this place.
    #[inline]
    pub(super) fn take_call(&self, index: usize) -> Option<Handed> {
        self.entrances.get(index)?.take_call()
    }

    /// At the end: a batch that nobody has taken, from here or for here.
    pub(super) fn recall(&mut self) -> Option<Batch> {
        let mut exits = self.exits.iter_mut().flatten();
        let inside = self.entrances.iter().find_map(Entrance::take);
        inside.or_else(|| exits.find_map(Exit::recall))
    }

    /// At the end: a call that nobody has taken, from here or for here.
    pub(super) fn recall_call(&self) -> Option<Handed> {
        let inside = self.entrances.iter().find_map(Entrance::take_call);
        inside.or_else(|| self.exits.iter().flatten().find_map(Exit::recall_call))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::bell::Bell;
    use crate::worker::handoff::handoff;
    use std::sync::Arc;

    fn cargo() -> Cargo {
        Cargo::Outer {
            place: 0,
            source: ([192, 0, 2, 1], 1).into(),
            class: 0,
        }
    }

    /// Two workers, each with an exit to the other.
    fn pair() -> [Exchange; 2] {
        let way = || handoff(Arc::new(Bell::new().unwrap()));
        let ((to_one, from_zero), (to_zero, from_one)) = (way(), way());
        [
            Exchange::new(vec![None, Some(to_one)], vec![from_one], Some(1)),
            Exchange::new(vec![Some(to_zero), None], vec![from_zero], None),
        ]
    }

    #[test]
    fn what_is_laid_comes_in_at_the_end_of_the_round() {
        let [mut zero, one] = pair();
        assert!(zero.is_other(1) && !zero.is_other(0) && !zero.is_other(2));
        assert!(!zero.lay(0, b"to itself", cargo()));
        assert!(!zero.lay(2, b"to nobody", cargo()));
        assert!(zero.lay(1, b"to the other", cargo()));
        assert!(one.take(0).is_none(), "still open");
        zero.end_round(1, Instant::now());
        assert!(
            !zero.tells() && !zero.take_tell(1),
            "one packet is no queue"
        );
        let mut batch = one.take(0).unwrap();
        let mut found = Vec::new();
        batch.for_each(|bytes, _| found.push(bytes.to_vec()));
        assert_eq!(found, [b"to the other"]);
        one.give_back(0, batch);
        assert!(one.take(0).is_none());
    }

    #[test]
    fn at_the_end_nothing_stays_between_two_workers() {
        let [mut zero, mut one] = pair();
        let packet = b"on its way";
        assert!(zero.lay(1, packet, cargo()));
        zero.end_round(1, Instant::now());
        assert!(zero.lay(1, packet, cargo()));
        assert!(one.lay(0, packet, cargo()));
        one.end_round(1, Instant::now());
        // The one's batch that came in, then its own that nobody took: one sent and one open.
        let all = std::iter::from_fn(|| zero.recall()).count();
        assert_eq!(all, 3);
        assert!(one.recall().is_none() && one.recall_call().is_none());
    }
}
