//! A client's file while the configuration does not know the client yet.
//!
//! 1. [`Staged::write`]: the whole file beside its place, private, under a hidden name that nobody can guess
//! 2. the configuration gets the client: from here on there is one
//! 3. [`Staged::place`]: the file gets its name
//!
//! A command that is killed before step 2 leaves a hidden file and no client, one that is killed behind it a
//! client whose file is still hidden. [`left`] finds both, so that the same command again takes the one away
//! or brings the other to its end. A file that another command is writing is locked, and left alone.

use super::super::Failure;
use crate::config::file::{directory_of, is_unfinished, parent, unfinished_name};
use crate::config::key_file;
use crypto::key::{KEY_TEXT_LEN, PresharedKey, PrivateKey};
use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, RenameFlags, flock, open as open_file, openat,
    renameat_with, unlinkat,
};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The longest file of a client that is looked into, bytes.
const LONGEST: u64 = 64 << 10;

/// A client's file without its name. Dropped, it is taken away.
#[derive(Debug)]
pub(super) struct Staged {
    /// Holds the lock.
    _file: File,
    directory: File,
    name: OsString,
    to: PathBuf,
    keep: bool,
}

impl Staged {
    /// Writes the file that is to be at `to`, where nothing may be yet.
    pub(super) fn write(to: &Path, text: &str) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::Work(format!("{}: {error}", to.display()));
        if fs::symlink_metadata(to).is_ok() {
            return Err(taken(to, "-o"));
        }
        let name = to.file_name().unwrap_or_default();
        let name = unfinished_name(name).map_err(|error| Failure::Work(error.to_string()))?;
        let directory = directory_of(to).map_err(failed)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = openat(&directory, &name, flags | OFlags::CLOEXEC, mode)
            .map_err(|error| failed(error.into()))?;
        let mut file = File::from(file);
        let written = flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(io::Error::from)
            .and_then(|()| file.write_all(text.as_bytes()))
            .and_then(|()| file.sync_all());
        let staged = Self {
            _file: file,
            directory,
            name,
            to: to.to_owned(),
            keep: false,
        };
        written.map_err(failed)?;
        Ok(staged)
    }

    /// Gives the file its name, unless something has come there meanwhile. It stays in any case: its client is
    /// known, and nobody else has the key.
    pub(super) fn place(mut self) -> Result<(), Failure> {
        self.keep = true;
        let Self {
            directory,
            name,
            to,
            ..
        } = &self;
        let placed = renameat_with(
            directory,
            name,
            directory,
            to.file_name().unwrap_or_default(),
            RenameFlags::NOREPLACE,
        );
        placed
            .map_err(io::Error::from)
            .and_then(|()| directory.sync_all())
            .map_err(|error| {
                Failure::Work(format!(
                    "the client is added, but its file could not become {}: {error}; it is {}",
                    to.display(),
                    to.with_file_name(name).display()
                ))
            })
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.keep {
            let _ = unlinkat(&self.directory, &self.name, AtFlags::empty());
        }
    }
}

/// What to say where a file is in the way that this option names.
pub(super) fn taken(path: &Path, option: &str) -> Failure {
    Failure::Usage(format!(
        "{} is there already; name another file with {option}, or remove it",
        path.display()
    ))
}

/// A client's file that a killed command has left without its name.
#[derive(Debug)]
pub(super) struct Left {
    staged: Staged,
    pub(super) private_key: PrivateKey,
    preshared_key: Option<PresharedKey>,
}

/// The files that are left of commands that were to write `to`.
pub(super) fn left(to: &Path) -> Vec<Left> {
    let wanted = to.file_name().unwrap_or_default();
    let Ok(entries) = fs::read_dir(parent(to)) else {
        return Vec::new();
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    let of_file = names.filter(|name| is_unfinished(name, wanted));
    of_file.filter_map(|name| open(to, name)).collect()
}

/// What is in such a file; `None` if it is another's, or being written now.
fn open(to: &Path, name: OsString) -> Option<Left> {
    let directory = directory_of(to).ok()?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(&directory, &name, flags, Mode::empty()).ok()?);
    file.metadata().ok().filter(fs::Metadata::is_file)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    let mut text = Zeroizing::new(String::with_capacity(LONGEST as usize));
    (&file).take(LONGEST).read_to_string(&mut text).ok()?;
    // Without a whole key it was killed before it was written, and goes.
    let mut staged = Staged {
        _file: file,
        directory,
        name,
        to: to.to_owned(),
        keep: false,
    };
    let keys = Keys::of(&text)?;
    staged.keep = true;
    Some(Left {
        staged,
        private_key: keys.private_key,
        preshared_key: keys.preshared_key,
    })
}

/// The keys of a client's file.
pub(super) struct Keys {
    pub(super) private_key: PrivateKey,
    pub(super) preshared_key: Option<PresharedKey>,
}

impl Keys {
    fn of(text: &str) -> Option<Self> {
        let value = |key: &str| {
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix(key)?.trim().strip_prefix('='))?;
            Some(value.trim()).filter(|value| value.len() == KEY_TEXT_LEN)
        };
        Some(Self {
            private_key: value("PrivateKey").and_then(|key| key.parse().ok())?,
            preshared_key: value("PresharedKey").and_then(|key| key.parse().ok()),
        })
    }
}

/// The keys in the file at `path`; `None` if it is no client's file.
pub(super) fn keys_of(path: &Path) -> Option<Keys> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(open_file(path, flags, Mode::empty()).ok()?);
    file.metadata().ok().filter(fs::Metadata::is_file)?;
    let mut text = Zeroizing::new(String::with_capacity(LONGEST as usize));
    (&file).take(LONGEST).read_to_string(&mut text).ok()?;
    Keys::of(&text)
}

impl Left {
    /// Its client is known: the file gets its name.
    pub(super) fn place(self) -> Result<(), Failure> {
        if fs::symlink_metadata(&self.staged.to).is_ok() {
            return Err(taken(&self.staged.to, "-o"));
        }
        self.staged.place()
    }

    /// Its client is not known: the file goes, and with it the file of its preshared key, if it is the one.
    pub(super) fn discard(mut self, preshared_key_file: Option<&Path>) {
        self.staged.keep = false;
        let (Some(key), Some(file)) = (&self.preshared_key, preshared_key_file) else {
            return;
        };
        let found = key_file::read::<PresharedKey>(file);
        if found.is_ok_and(|found| found == *key) {
            let _ = fs::remove_file(file);
        }
    }
}
