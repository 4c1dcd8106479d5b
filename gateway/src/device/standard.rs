//! Whether the process has a standard output at all. One that whoever started it has closed is /dev/null by the time
//! `main` runs: Rust's runtime opens that in its place, so that no file gets its number. What is written there would
//! seem to be said.

use std::sync::atomic::{AtomicBool, Ordering};

static CLOSED: AtomicBool = AtomicBool::new(false);

/// Called by the C runtime before Rust's, as every constructor is.
#[used]
// SAFETY: the section holds pointers to functions that take what the C runtime gives (argc, argv, envp) or ignore it;
// this one does, and needs nothing that is set up later.
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    // SAFETY: F_GETFD takes no pointer, and only asks.
    if unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) } == -1 {
        CLOSED.store(true, Ordering::Relaxed);
    }
}

/// Whether standard output was closed when the process began.
pub fn output_is_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}
