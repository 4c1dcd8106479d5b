//! The configuration file on disk: how it is read, and the one way in which it is changed.
//!
//! Several commands change the file (`vng resize`, `vng p2s add` and `revoke`), each by reading it, editing its
//! text and putting the new text in its place. So that none undoes another's change:
//! 1. [`Locked::open`] opens the file and locks it (flock(2)) until the value is dropped. A lock belongs to the
//!    inode: whoever waited for a file that has been replaced meanwhile opens the new one and locks that
//! 2. [`Locked::replace`] writes the new text beside it, under a name that nobody can guess and that must not be
//!    there (`O_EXCL`, which follows no symbolic link), private from the first moment, then with the old file's
//!    owner and mode; syncs it, renames it, and syncs the directory
//! 3. what a killed command left behind is taken away by the next one that has the lock
//!
//! A file that is a symbolic link stays one: the file that it leads to is replaced.

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, openat, renameat, unlinkat};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest file that is read, bytes: three million prefixes. The parser takes ten times that.
pub const LONGEST: u64 = 64 << 20;
/// How long a command waits for another that is changing the file.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it looks. flock(2) can wait by itself, but not for so long and no longer.
const PAUSE: Duration = Duration::from_millis(5);
/// Symbolic links that are followed to the file, as many as Linux follows.
const MOST_LINKS: usize = 40;
/// Ends the name of a file that is still being written.
const UNFINISHED: &str = ".unfinished";
/// Hexadecimal digits before that: 64 random bits.
const DIGITS: usize = 16;

/// Why the file could not be read or changed.
#[derive(Debug)]
pub enum FileError {
    /// The system refused.
    System(io::Error),
    /// It is no regular file: a pipe, a device, a directory; which of them.
    NotAFile(&'static str),
    /// It is longer than [`LONGEST`].
    TooLong,
    /// Another command has held the lock for as long as one is waited for.
    Busy,
    /// The new file could not be given to the old one's owner, who has this number.
    Owner(u32),
}

impl fmt::Display for FileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error) => write!(formatter, "{error}"),
            Self::NotAFile(what) => write!(
                formatter,
                "is {what}; a configuration is read from a regular file only"
            ),
            Self::TooLong => write!(
                formatter,
                "is longer than {} MB, the most that is read",
                LONGEST >> 20
            ),
            Self::Busy => write!(
                formatter,
                "another program has kept the file locked for {} s; nothing was changed, try again",
                PATIENCE.as_secs()
            ),
            Self::Owner(uid) => write!(
                formatter,
                "belongs to the user with id {uid}, and would not any more; nothing was changed, run the command \
                 as that user or as root"
            ),
        }
    }
}

impl std::error::Error for FileError {}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// The text of the file at `path`.
///
/// # Errors
/// See [`FileError`]: at once also for a pipe that nobody writes.
pub fn read(path: &Path) -> Result<String, FileError> {
    text_of(&open(path)?)
}

/// Opens a file that must be a regular one, without waiting for whoever writes a pipe.
fn open(path: &Path) -> Result<File, FileError> {
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        use std::os::unix::fs::FileTypeExt as _;
        let kind = about.file_type();
        return Err(FileError::NotAFile(if kind.is_dir() {
            "a directory"
        } else if kind.is_fifo() {
            "a pipe"
        } else {
            "a device"
        }));
    }
    if about.len() > LONGEST {
        return Err(FileError::TooLong);
    }
    Ok(file)
}

fn text_of(mut file: &File) -> Result<String, FileError> {
    let mut text = String::new();
    // It may grow while it is read.
    io::Read::take(&mut file, LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(FileError::TooLong);
    }
    Ok(text)
}

/// The configuration file, locked against every other command that would change it.
#[derive(Debug)]
pub struct Locked {
    file: File,
    /// The directory that the file is in; a path that leads through a descriptor may have no other name.
    directory: File,
    name: OsString,
}

impl Locked {
    /// Opens and locks the file, waiting for whoever is changing it.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let path = target(path);
        let until = Instant::now() + PATIENCE;
        let file = loop {
            let file = open(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => {
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(FileError::Busy),
                Err(error) => return Err(FileError::System(error.into())),
            }
            let (opened, there) = (file.metadata()?, fs::metadata(&path)?);
            if (opened.dev(), opened.ino()) == (there.dev(), there.ino()) {
                break file;
            }
        };
        let directory = directory_of(&path)?;
        let name = path.file_name().unwrap_or_default().to_owned();
        sweep(&directory, &path, &name);
        Ok(Self {
            file,
            directory,
            name,
        })
    }

    /// Its text.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn text(&self) -> Result<String, FileError> {
        (&self.file).rewind()?;
        text_of(&self.file)
    }

    /// Puts `text` in its place, with its owner and mode; the new file is locked as the old one was.
    ///
    /// # Errors
    /// See [`FileError`]; the old file is there as it was.
    pub fn replace(&mut self, text: &str) -> Result<(), FileError> {
        let old = self.file.metadata()?;
        let fresh = Unfinished::create(&self.directory, &self.name)?;
        let own = fresh.file.metadata()?;
        if (own.uid(), own.gid()) != (old.uid(), old.gid())
            && fchown(&fresh.file, Some(old.uid()), Some(old.gid())).is_err()
        {
            return Err(FileError::Owner(old.uid()));
        }
        (&fresh.file).write_all(text.as_bytes())?;
        // Behind the owner, whose change takes bits of the mode away.
        let mode = fs::Permissions::from_mode(old.mode() & 0o7777);
        fresh.file.set_permissions(mode)?;
        fresh.file.sync_all()?;
        // Before it has its name, so that nobody is quicker.
        flock(&fresh.file, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from)?;
        renameat(&self.directory, &fresh.name, &self.directory, &self.name)
            .map_err(io::Error::from)?;
        self.file = fresh.finished()?;
        self.directory.sync_all()?;
        Ok(())
    }
}

/// A file that is being written; dropped, it is taken away, unless it has got its name.
#[derive(Debug)]
struct Unfinished<'d> {
    file: File,
    directory: &'d File,
    name: OsString,
    finished: bool,
}

impl<'d> Unfinished<'d> {
    /// A new private file in this directory, to take the place of `name`.
    fn create(directory: &'d File, name: &OsStr) -> Result<Self, FileError> {
        let name = unfinished_name(name)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = openat(directory, &name, flags | OFlags::CLOEXEC, mode);
        Ok(Self {
            file: File::from(file.map_err(io::Error::from)?),
            directory,
            name,
            finished: false,
        })
    }

    /// It has its name: the same file, to be read.
    fn finished(mut self) -> io::Result<File> {
        self.finished = true;
        self.file.try_clone()
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.finished {
            let _ = unlinkat(self.directory, &self.name, AtFlags::empty());
        }
    }
}

/// A hidden name that nobody can guess, for a file that is to become `name`.
pub(crate) fn unfinished_name(name: &OsStr) -> Result<OsString, FileError> {
    use ring::rand::{SecureRandom as _, SystemRandom};
    let mut random = [0; 8];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| io::Error::other("the system gave no random bytes"))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{:016x}{UNFINISHED}", u64::from_ne_bytes(random)));
    Ok(hidden)
}

/// Whether this is a name of [`unfinished_name`] for `name`.
pub(crate) fn is_unfinished(found: &OsStr, name: &OsStr) -> bool {
    let inner = found
        .as_bytes()
        .strip_prefix(b".")
        .and_then(|rest| rest.strip_prefix(name.as_bytes()))
        .and_then(|rest| rest.strip_prefix(b"."))
        .and_then(|rest| rest.strip_suffix(UNFINISHED.as_bytes()));
    inner.is_some_and(|digits| digits.len() == DIGITS && digits.iter().all(u8::is_ascii_hexdigit))
}

/// Takes away what killed commands have left of this file: whoever has the lock is the only one who writes.
fn sweep(directory: &File, path: &Path, name: &OsStr) {
    let Ok(entries) = fs::read_dir(parent(path)) else {
        return;
    };
    for entry in entries.flatten() {
        if is_unfinished(&entry.file_name(), name) {
            let _ = unlinkat(directory, entry.file_name(), AtFlags::empty());
        }
    }
}

/// The directory of a path, to be synced: what is renamed in it is then there after a power failure.
pub(crate) fn directory_of(path: &Path) -> io::Result<File> {
    File::open(parent(path))
}

pub(crate) fn parent(path: &Path) -> &Path {
    let parent = path.parent().unwrap_or(Path::new(""));
    if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    }
}

/// The file that a path leads to: a symbolic link to it stays one. The path of the directory is left as it
/// is: it may lead through a descriptor to what has no other name.
fn target(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Ok(to) = fs::read_link(&path) else {
            break;
        };
        path = path.parent().unwrap_or(Path::new("")).join(to);
    }
    path
}

#[cfg(test)]
mod tests;
