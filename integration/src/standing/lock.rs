//! That there is one standing lab at most: its keeper holds a lock for as long as it lives.
//!
//! A record lock (fcntl(2), F_SETLK) goes with the process that holds it, whatever way that goes, and the
//! kernel names its holder. So neither a file that a killed keeper left nor a damaged one can be taken for a
//! lab, and two that begin at once cannot both have it.

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;
use rustix::process::{Flock, FlockType, fcntl_getlk};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The process that holds the lock: its id, unless it is of another process namespace and has none here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder(pub(super) Option<u32>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(id) => write!(f, "process {id}"),
            None => f.write_str("a process of another namespace"),
        }
    }
}

impl Holder {
    /// Whether it has not ended; of one without an id nothing is known.
    fn lives(self) -> bool {
        self.0.is_none_or(|id| super::start_time(id).is_some())
    }
}

/// How long a process that is ending may take to let go.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether it has.
const PAUSE: Duration = Duration::from_millis(5);

/// The lock, held until this value is dropped; then its file is gone.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Takes the lock at `path`; the inner error is the process that has it.
    pub(super) fn take(path: &Path) -> io::Result<Result<Self, Holder>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)?;
            match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::AGAIN | Errno::ACCESS) => match holder_of(&file)? {
                    Some(holder) if holder.lives() || Instant::now() > deadline => {
                        return Ok(Err(holder));
                    }
                    // It is on its way out: the lock goes with its last thread.
                    Some(_) => {
                        std::thread::sleep(PAUSE);
                        continue;
                    }
                    // It went between the two questions.
                    None => continue,
                },
                Err(error) => return Err(error.into()),
            }
            // Whoever had it before may have removed the file after it was opened here: then this is the
            // lock of a file that nobody else finds.
            let here = fs::metadata(path).is_ok_and(|found| {
                file.metadata()
                    .is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()))
            });
            if here {
                let path = path.to_owned();
                return Ok(Ok(Self { path, _file: file }));
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is still held.
        let _ = fs::remove_file(&self.path);
    }
}

/// Who holds the lock at `path`, if anybody does. One that is ending keeps nothing any more.
pub(super) fn holder(path: &Path) -> io::Result<Option<Holder>> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => Ok(holder_of(&file)?.filter(|holder| holder.lives())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn holder_of(file: &File) -> io::Result<Option<Holder>> {
    let found = fcntl_getlk(file, &Flock::from(FlockType::WriteLock))?;
    Ok(found.map(|lock| {
        let pid = lock.pid.map(|pid| pid.as_raw_nonzero().get());
        Holder(pid.and_then(|pid| u32::try_from(pid).ok()))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    // Locks of one process do not exclude each other: the other one is a process of its own, this test
    // again, which waits until its standard input is closed.
    #[test]
    fn the_second_is_told_who_has_it_and_a_killed_one_has_it_no_more() {
        if let Some(path) = std::env::var_os("VNG_TEST_LOCK") {
            let _lock = Lock::take(Path::new(&path)).unwrap().unwrap();
            println!("\nheld");
            let _ = io::stdin().lines().count();
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        assert_eq!(holder(&path).unwrap(), None);
        let own = std::env::current_exe().unwrap();
        let name =
            "standing::lock::tests::the_second_is_told_who_has_it_and_a_killed_one_has_it_no_more";
        let start = || {
            let mut child = Command::new(&own)
                .args(["--exact", name, "--nocapture"])
                .env("VNG_TEST_LOCK", &path)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let out = BufReader::new(child.stdout.take().unwrap());
            let held = out.lines().any(|line| line.unwrap() == "held");
            assert!(held);
            child
        };
        let mut first = start();
        assert_eq!(holder(&path).unwrap(), Some(Holder(Some(first.id()))));
        assert_eq!(
            Lock::take(&path).unwrap().err(),
            Some(Holder(Some(first.id())))
        );
        first.kill().unwrap();
        first.wait().unwrap();
        assert!(path.exists(), "a killed one leaves its file");
        assert_eq!(holder(&path).unwrap(), None);
        let lock = Lock::take(&path).unwrap().unwrap();
        drop(lock);
        assert!(!path.exists());
    }
}
