//! Other programs, run on a host. The kernel kills them when the thread that starts them goes
//! (PR_SET_PDEATHSIG, by util-linux's `setpriv`), and none that is waited for runs longer than it is given.

use crate::error::Error;
use crate::host::Host;
use crate::interrupt::{self, SLICE};
use crate::process::Spawner;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a program may take to write what is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

/// The program of this name on PATH.
pub fn find(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path())
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// PATH, and where Debian keeps programs that only root's PATH has.
fn search_path() -> OsString {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let also = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let all = std::env::split_paths(&own).chain(also);
    std::env::join_paths(all).unwrap_or(own)
}

/// What a program that has ended leaves.
#[derive(Debug)]
pub struct Ended {
    /// Whether it ended with status 0.
    pub success: bool,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// Runs a program on `host` to its end, which comes after `limit` (whole seconds, at least 1) at the
/// latest; `words` begin with its name.
///
/// # Errors
/// [`Error::System`]: the program is not on PATH (said as such), `setpriv` cannot be executed, or its output
/// not be read. That it failed or was ended at its limit is [`Ended::success`].
pub fn run(
    spawner: &Spawner,
    host: &Arc<Host>,
    limit: Duration,
    words: &[&str],
) -> Result<Ended, Error> {
    let (program, arguments) = split(words)?;
    let mut command = tied("timeout");
    command
        .args(["--kill-after=1", &limit.as_secs().max(1).to_string()])
        .args(["setpriv", "--pdeathsig", "KILL", "--"])
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let action = || Error::system(format!("run {}", words.join(" ")));
    let child = spawner.spawn(host, command).map_err(action())?;
    let output = child.wait_with_output().map_err(action())?;
    Ok(Ended {
        success: output.status.success(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A program that runs until this value is dropped.
#[derive(Debug)]
pub struct Background {
    name: String,
    child: Child,
    said: Arc<Said>,
    listeners: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Said {
    text: Mutex<String>,
    more: Condvar,
}

impl Said {
    fn text(&self) -> MutexGuard<'_, String> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Background {
    /// Starts a program on `host`; `words` begin with its name.
    ///
    /// # Errors
    /// [`Error::System`]: the program is not on PATH (said as such), `setpriv` cannot be executed, or there is
    /// no thread to read its output.
    pub fn start(spawner: &Spawner, host: &Arc<Host>, words: &[&str]) -> Result<Self, Error> {
        let (program, arguments) = split(words)?;
        let action = || Error::system(format!("start {}", words.join(" ")));
        let mut command = tied(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = spawner.spawn(host, command).map_err(action())?;
        // Owned from here on: whatever fails next, dropping it ends the process.
        let mut background = Self {
            name: words.first().copied().unwrap_or_default().to_owned(),
            child,
            said: Arc::default(),
            listeners: Vec::new(),
        };
        let said = Arc::clone(&background.said);
        let hear = move |line: String| {
            let mut text = said.text();
            text.push_str(&line);
            text.push('\n');
            said.more.notify_all();
        };
        background.listeners =
            listen(&mut background.child, &background.name, hear).map_err(action())?;
        Ok(background)
    }

    /// Its process id: `setpriv` becomes the program, so it is the program's own.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has written `text`, so many times.
    ///
    /// # Errors
    /// [`Error::Unexpected`], with all that it has written, where the text has not come after 15 s;
    /// [`Error::Interrupted`] where the user wants to stop.
    pub fn wait_for(&self, text: &str, times: usize) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        let mut said = self.said.text();
        while said.matches(text).count() < times {
            interrupt::check()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::unexpected(
                    format!("{text:?} from {}", self.name),
                    said.clone(),
                ));
            }
            let more = self.said.more.wait_timeout(said, left.min(SLICE));
            said = more.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Waits until it has ended by itself; whether with status 0.
    ///
    /// # Errors
    /// [`Error::System`] where `waitpid` fails.
    pub fn wait(&mut self) -> Result<bool, Error> {
        let ended = self.child.wait();
        let ended = ended.map_err(Error::system(format!("wait for {}", self.name)))?;
        Ok(ended.success())
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// What it has written.
    pub fn said(&self) -> String {
        self.said.text().clone()
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

/// Threads that read what a child writes, to both outputs, line by line until they are closed.
pub(crate) fn listen(
    child: &mut Child,
    name: &str,
    hear: impl Fn(String) + Clone + Send + 'static,
) -> io::Result<Vec<JoinHandle<()>>> {
    let outputs: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|out| Box::new(out) as _),
        child.stderr.take().map(|err| Box::new(err) as _),
    ];
    let listener = |output| {
        let hear = hear.clone();
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        let thread = std::thread::Builder::new().name(format!("log-{name}"));
        thread.spawn(move || lines.for_each(hear))
    };
    outputs.into_iter().flatten().map(listener).collect()
}

fn split<'a, 'b>(words: &'a [&'b str]) -> Result<(PathBuf, &'a [&'b str]), Error> {
    let (name, arguments) = words.split_first().unwrap_or((&"", &[]));
    let program = find(name).ok_or_else(|| {
        let missing = io::Error::from(io::ErrorKind::NotFound);
        Error::system(format!("run {name}, which is not installed"))(missing)
    })?;
    Ok((program, arguments))
}

/// A command that the kernel kills when the thread that starts it goes.
pub(crate) fn tied(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program)
        .env("PATH", search_path());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_is_kept_and_a_missing_one_is_an_error() {
        let spawner = Spawner::new().unwrap();
        let host = Arc::new(Host::new("a").unwrap());
        let words = ["sh", "-c", "echo one; echo two >&2; exit 3"];
        let ended = run(&spawner, &host, PATIENCE, &words).unwrap();
        assert_eq!(
            (ended.success, ended.out.as_str(), ended.err.as_str()),
            (false, "one\n", "two\n")
        );
        let words = ["sh", "-c", "echo here; exec sleep 60"];
        let mut program = Background::start(&spawner, &host, &words).unwrap();
        program.wait_for("here", 1).unwrap();
        assert!(!program.has_ended());
        let pid = program.pid();
        drop(program);
        assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
        assert!(Background::start(&spawner, &host, &["no-such-program"]).is_err());
    }
}
