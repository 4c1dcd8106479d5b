//! The protocols between threads, in every order that loom can give their steps (with at most
//! [`PREEMPTIONS`] preemptions of a thread that could go on; CDSChecker and CHESS found that few defects
//! need more than two), and with every value that the memory model lets a relaxed load see.
//!
//! The files of the program are compiled in here a second time, with loom's atomics in place of the
//! standard library's (`crate::sync`). Not loom's, and therefore models of a few lines:
//! - [`sync::ArrayQueue`] stands for crossbeam's, [`sync::ArcSwap`] for arc-swap's: a lock, which is what both
//!   promise to look like. That they keep the promise is proved by their own projects.
//! - [`device::event::EventFd`] stands for the kernel's eventfd.
//!
//! `cargo test -p gateway --test loom`. There is no test harness, since the files' own tests must not
//! run here: each model is a line of output, and one that fails ends the program.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that fails fails its test"
)]
// What the program makes public is not all used here; and without a harness the files' own tests are left out,
// but not what they use.
#![allow(unreachable_pub, dead_code, unused_imports)]

mod control;
mod device;
mod handoff;
mod interface;
mod reload;
mod sync;
mod telemetry;
mod wake;
mod worker;

/// The words of path groups.
#[path = "../../../routing/src/path.rs"]
mod path;

/// The sequence lock of the ledger.
#[path = "../../src/telemetry/sequence.rs"]
mod sequence;

/// The most preemptions of a thread that could go on.
const PREEMPTIONS: usize = 3;

fn main() {
    let models: [(&str, fn()); 9] = [
        ("a waker loses no wake", wake::a_waker_loses_no_wake),
        (
            "a worker sleeps through no ring",
            wake::a_worker_sleeps_through_no_ring,
        ),
        (
            "a worker that is awake costs no system call",
            wake::a_worker_that_is_awake_costs_no_system_call,
        ),
        (
            "batches arrive whole, in order, and none is left behind",
            handoff::parcels_arrive_whole_and_in_order,
        ),
        (
            "what a giver may not send comes back to it",
            handoff::parcels_come_back,
        ),
        (
            "workers move to a link's next interface together",
            interface::workers_move_to_the_next_interface_together,
        ),
        (
            "a reader of the ledger sees whole rounds",
            telemetry::a_reader_sees_whole_rounds,
        ),
        (
            "a worker sees a group's words in their order, and no other",
            reload::a_word_is_one_of_those_stored,
        ),
        (
            "after a reload the words and the MTU are what control says",
            reload::control_has_the_last_word,
        ),
    ];
    for (name, model) in models {
        let started = std::time::Instant::now();
        model();
        println!(
            "loom: {name} ... ok, {:.1} s",
            started.elapsed().as_secs_f64()
        );
    }
}

/// Runs `model` in every order.
fn explore(model: impl Fn() + Sync + Send + 'static) {
    explore_within(PREEMPTIONS, model);
}

/// The same with at most so many preemptions.
fn explore_within(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}
