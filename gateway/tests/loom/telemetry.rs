//! The ledger's sequence lock: `telemetry/sequence.rs`.

use crate::explore;
use crate::sequence::Sequence;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use std::sync::Arc;

/// Two rounds, in each of which a packet is received and sent; a reader never sees one without the other.
pub(crate) fn a_reader_sees_whole_rounds() {
    explore(|| {
        let books = Arc::new((
            Sequence::default(),
            AtomicUsize::new(0),
            AtomicUsize::new(0),
        ));
        let writer = {
            let books = Arc::clone(&books);
            thread::spawn(move || {
                let (round, received, sent) = &*books;
                for n in 1..=2 {
                    round.begin();
                    received.store(n, Ordering::Relaxed);
                    sent.store(n, Ordering::Relaxed);
                    round.end();
                }
            })
        };
        let (round, received, sent) = &*books;
        let (first, second) = round.consistently(|| {
            (
                received.load(Ordering::Relaxed),
                sent.load(Ordering::Relaxed),
            )
        });
        assert_eq!(first, second, "half a round");
        writer.join().unwrap();
        assert_eq!(received.load(Ordering::Relaxed), 2);
    });
}
