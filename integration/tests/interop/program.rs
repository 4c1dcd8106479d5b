//! Other programs, run on a host of the test.

use crate::stage::Stage;
use integration::host::Host;
use integration::program;
pub(crate) use integration::program::{Background, Ended};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Whether all these programs are there. If not, says so where the test harness does not swallow it; where
/// every test has to run (`VNG_ALL_TESTS`, as in ./test) that is a failure.
pub(crate) fn present(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs
        .iter()
        .copied()
        .filter(|name| program::find(name).is_none())
        .collect();
    if !missing.is_empty() {
        let all = std::env::var_os("VNG_ALL_TESTS").is_some();
        assert!(!all, "not installed: {}", missing.join(", "));
        let test = std::thread::current();
        let test = test.name().unwrap_or("a test");
        announce(&format!(
            "SKIPPED {test}: not installed: {}; ./test installs them",
            missing.join(", ")
        ));
    }
    missing.is_empty()
}

/// A line on standard error, also from a test that passes: the harness only keeps back what macros print.
pub(crate) fn announce(line: &str) {
    let _ = writeln!(std::io::stderr(), "\n{line}");
}

/// Runs a program on `host` to its end, which comes after `limit` at the latest.
pub(crate) fn run(stage: &Stage, host: &Arc<Host>, limit: Duration, words: &[&str]) -> Ended {
    program::run(&stage.spawner, host, limit, words).unwrap()
}

/// Starts a program on `host` that runs until it is dropped; `words` begin with its name.
pub(crate) fn start(stage: &Stage, host: &Arc<Host>, words: &[&str]) -> Background {
    Background::start(&stage.spawner, host, words).unwrap()
}

/// A file's path as a word.
pub(crate) fn word(path: &Path) -> &str {
    path.to_str().unwrap()
}
