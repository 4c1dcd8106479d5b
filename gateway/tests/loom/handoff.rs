//! The hand-over between workers: `worker/handoff.rs` with `worker/bell.rs`.

use crate::device::event::Poller;
use crate::explore;
use crate::wake::work;
use crate::worker::bell::Bell;
use crate::worker::handoff::{Cargo, Entrance, handoff};
use loom::thread;
use std::net::SocketAddr;
use std::sync::Arc;

fn cargo() -> Cargo {
    Cargo::Outer {
        place: 0,
        source: SocketAddr::from(([192, 0, 2, 1], 1)),
        class: 0,
    }
}

/// Takes all batches that are there, gives them back, and says what was in them.
fn take(entrance: &Entrance, found: &mut Vec<Vec<u8>>) {
    while let Some(mut batch) = entrance.take() {
        batch.for_each(|bytes, _| found.push(bytes.to_vec()));
        entrance.give_back(batch);
    }
}

/// Three packets in two batches. The taker sleeps whenever it may and ends when it has all of them: one
/// that is left behind is a sleep without end.
pub(crate) fn parcels_arrive_whole_and_in_order() {
    explore(|| {
        let bell = Arc::new(Bell::new().unwrap());
        let poller = Poller::of_last();
        let (mut exit, entrance) = handoff(Arc::clone(&bell));
        let giver = thread::spawn(move || {
            assert!(exit.lay(&[1], cargo()) && exit.lay(&[2, 2], cargo()));
            exit.send();
            assert!(exit.lay(&[3], cargo()));
            exit.send();
        });
        let mut found = Vec::new();
        work(&bell, &poller, || {
            take(&entrance, &mut found);
            found.len() == 3
        });
        assert_eq!(found, [vec![1], vec![2, 2], vec![3]]);
        giver.join().unwrap();
    });
}

/// The giver ends while the taker takes: each packet has exactly one of the two to account for it.
pub(crate) fn parcels_come_back() {
    explore(|| {
        let bell = Arc::new(Bell::new().unwrap());
        let _poller = Poller::of_last();
        let (mut exit, entrance) = handoff(bell);
        assert!(exit.lay(&[1], cargo()));
        exit.send();
        assert!(exit.lay(&[2], cargo()));
        exit.send();
        assert!(exit.lay(&[3], cargo()));
        let taker = thread::spawn(move || {
            let mut taken = Vec::new();
            if let Some(mut batch) = entrance.take() {
                batch.for_each(|bytes, _| taken.push(bytes[0]));
                entrance.give_back(batch);
            }
            taken
        });
        let mut recalled = Vec::new();
        while let Some(mut batch) = exit.recall() {
            batch.for_each(|bytes, _| recalled.push(bytes[0]));
        }
        let mut all = taker.join().unwrap();
        all.extend(recalled);
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3]);
    });
}
