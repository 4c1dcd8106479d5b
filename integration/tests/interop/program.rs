//! Other programs, run on a host of the test. The kernel kills them when the test goes (PR_SET_PDEATHSIG,
//! by util-linux's `setpriv`), and none runs longer than it is given.

use crate::stage::Stage;
use integration::host::Host;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Whether all these programs are there. If not, says so where the test harness does not swallow it.
pub(crate) fn present(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs
        .iter()
        .copied()
        .filter(|name| find(name).is_none())
        .collect();
    if !missing.is_empty() {
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

/// The program of this name on PATH.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Debian keeps traceroute and others where only root's PATH looks.
    let also = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(also)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// What a program that has ended leaves.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Whether it ended with status 0.
    pub(crate) success: bool,
    /// Its standard output.
    pub(crate) out: String,
    /// Its standard error.
    pub(crate) err: String,
}

/// Runs a program on `host` to its end, which comes after `limit` at the latest.
pub(crate) fn run(stage: &Stage, host: &Arc<Host>, limit: Duration, words: &[&str]) -> Ended {
    let mut command = tied("timeout");
    command
        .args(["--kill-after=1", &limit.as_secs().max(1).to_string()])
        .args(["setpriv", "--pdeathsig", "KILL", "--"])
        .arg(find(words[0]).unwrap_or_else(|| panic!("{} is not installed", words[0])))
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = stage.nursery.spawn(host, command).unwrap();
    let output = child.wait_with_output().unwrap();
    Ended {
        success: output.status.success(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A program that runs until this value is dropped.
#[derive(Debug)]
pub(crate) struct Background {
    child: Child,
    said: Arc<Said>,
    listeners: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Said {
    text: Mutex<String>,
    more: Condvar,
}

impl Background {
    /// Starts a program on `host`; `words` begin with its name.
    pub(crate) fn start(stage: &Stage, host: &Arc<Host>, words: &[&str]) -> Self {
        let program = find(words[0]).unwrap_or_else(|| panic!("{} is not installed", words[0]));
        let mut command = tied(program);
        command
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = stage.nursery.spawn(host, command).unwrap();
        let said = Arc::<Said>::default();
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|out| Box::new(out) as _),
            child.stderr.take().map(|err| Box::new(err) as _),
        ];
        let listeners = outputs.into_iter().flatten().map(|output| {
            let said = Arc::clone(&said);
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let mut text = said.text.lock().unwrap();
                    text.push_str(&line);
                    text.push('\n');
                    said.more.notify_all();
                }
            })
        });
        let listeners = listeners.collect();
        Self {
            child,
            said,
            listeners,
        }
    }

    /// Its process id: `setpriv` becomes the program, so it is the program's own.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has written `text`, so many times.
    pub(crate) fn wait_for(&self, text: &str, times: usize) {
        let deadline = Instant::now() + Duration::from_secs(15);
        let mut said = self.said.text.lock().unwrap();
        while said.matches(text).count() < times {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited for {text:?}, found:\n{said}");
            said = self.said.more.wait_timeout(said, left).unwrap().0;
        }
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) -> bool {
        self.child.wait().unwrap().success()
    }

    /// What it has written.
    pub(crate) fn said(&self) -> String {
        self.said.text.lock().unwrap().clone()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for listener in self.listeners.drain(..) {
            let _ = listener.join();
        }
    }
}

/// A command that the kernel kills when the thread that starts it goes.
fn tied(program: impl Into<OsString>) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program.into());
    command
}

/// A file's path as a word.
pub(crate) fn word(path: &Path) -> &str {
    path.to_str().unwrap()
}
