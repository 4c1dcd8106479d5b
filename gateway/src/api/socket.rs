//! The control socket's file: made so that there is no moment in which another user could connect, and so
//! that of two gateways one has it.
//!
//! 1. its directory is locked (flock(2)), so that two gateways that start at once look one after the other
//! 2. what stands there: nothing, a socket that nobody listens at, or something that stays
//! 3. bound under another name, with its mode from the first moment on: `unix_bind_bsd` takes the mode of the
//!    socket's inode, less the umask. Nobody can connect before it listens
//! 4. it takes its name, and the place of a stale one, in one step
//!
//! Somebody may remove it while the gateway runs: whoever cleans /run, or mounts something there. The kernel tells of
//! it (inotify(7)), and SIGHUP has it looked at too; then it is made again, with the mode and the owner that it had.
//! What has been put in its place is left alone, and looked at again later.

use super::BindError;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{CWD, FlockOperation, Mode, RenameFlags, fchmod, flock, renameat_with};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, lchown,
};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Callers that may wait to be accepted.
const BACKLOG: i32 = 128;
/// How long another gateway may take to place its socket. A stranger that holds the lock for longer, which
/// whoever can read the directory may, keeps nobody out.
const LOCK: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// How soon a socket that could not be made again is tried again: twice as long each time.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// The socket's file; dropped, it is removed, unless another has taken its place.
#[derive(Debug)]
struct Bound {
    path: PathBuf,
    identity: (u64, u64),
    access: Access,
}

/// Who may open the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Access {
    mode: u32,
    owner: (u32, u32),
}

impl Access {
    fn of(file: &fs::Metadata) -> Self {
        Self {
            mode: file.mode() & 0o7777,
            owner: (file.uid(), file.gid()),
        }
    }

    /// Gives a file this access, if it has another. The owner first: another owner takes mode bits away.
    fn give(self, path: &Path) -> io::Result<()> {
        let has = Self::of(&fs::symlink_metadata(path)?);
        if has.owner != self.owner {
            lchown(path, Some(self.owner.0), Some(self.owner.1))?;
        }
        if has != self {
            fs::set_permissions(path, fs::Permissions::from_mode(self.mode))?;
        }
        Ok(())
    }
}

/// The socket as it is served. The file goes before the listener does: as long as that holds its inode, no other
/// file is taken for it.
#[derive(Debug)]
pub(super) struct Listening {
    bound: Bound,
    listener: UnixListener,
    /// What tells of changes of the file; `None` where the kernel has no watch left.
    events: Option<OwnedFd>,
    missing: Option<Missing>,
}

/// The socket's file is not there, or was made anew just now.
#[derive(Debug)]
struct Missing {
    /// When it is looked at again.
    again: Instant,
    pause: Duration,
    said: String,
}

impl Listening {
    /// Makes the socket at `path`.
    ///
    /// # Errors
    /// See [`BindError`].
    pub(super) fn place(path: &Path) -> Result<Self, BindError> {
        let (listener, bound) = place(path, None)?;
        Ok(Self {
            bound,
            listener,
            events: None,
            missing: None,
        })
    }

    /// What callers come to.
    pub(super) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// The next caller.
    pub(super) fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().map(|(stream, _)| stream)
    }

    /// What is ready once something has become of the file.
    pub(super) fn events(&self) -> Option<BorrowedFd<'_>> {
        self.events.as_ref().map(|events| events.as_fd())
    }

    /// How long until the file is to be looked at; `None`: until something becomes of it.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        let again = self.missing.as_ref().map(|missing| missing.again);
        again.map(|again| again.saturating_duration_since(now))
    }

    /// Whether the file is to be looked at.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.pause(now).is_some_and(|pause| pause.is_zero())
    }

    /// Has the kernel tell of the file and of its directory: what becomes of other files there wakes nobody.
    pub(super) fn watch(&mut self) {
        let watched = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).and_then(|fd| {
            let gone = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
            let file = gone | WatchFlags::ATTRIB | WatchFlags::DONT_FOLLOW;
            inotify::add_watch(&fd, &self.bound.path, file)?;
            inotify::add_watch(&fd, directory(&self.bound.path), gone)?;
            Ok(fd)
        });
        self.events = match watched {
            Ok(events) => Some(events),
            Err(Errno::NOENT) => None,
            Err(error) => {
                let error = io::Error::from(error);
                tracing::info!(%error, "a control socket that is removed is seen with SIGHUP only");
                None
            }
        };
    }

    /// Keeps in mind who may open the file, if it is there. Asked for each caller: several are let in behind one look.
    pub(super) fn remember(&mut self) {
        if let Ok(file) = fs::symlink_metadata(&self.bound.path)
            && identity(&file) == self.bound.identity
        {
            self.bound.access = Access::of(&file);
        }
    }

    /// Makes the file again if it is gone.
    pub(super) fn look(&mut self, now: Instant) {
        if let Some(events) = &self.events {
            let mut told = [0; 1_024];
            while rustix::io::read(events, &mut told).is_ok_and(|length| length > 0) {}
        }
        let path = &self.bound.path;
        let there = fs::symlink_metadata(path);
        if let Ok(file) = &there
            && identity(file) == self.bound.identity
        {
            self.bound.access = Access::of(file);
            self.missing = None;
            return;
        }
        match place(path, Some(self.bound.access)) {
            Ok((listener, bound)) => {
                tracing::warn!(
                    socket = %path.display(),
                    "the control socket was removed by somebody else; it is there again"
                );
                // The old listener outlives the old file's record: see above.
                self.bound = bound;
                self.listener = listener;
                self.watch();
                // It may have gone again before it was watched.
                self.missing = Some(Missing {
                    again: now + RETRY,
                    pause: RETRY,
                    said: String::new(),
                });
            }
            Err(error) => {
                let said = error.to_string();
                let last = self.missing.take();
                let pause = last
                    .as_ref()
                    .map_or(RETRY, |last| (last.pause * 2).min(LONGEST_RETRY));
                if last.is_none_or(|last| last.said != said) {
                    tracing::error!(
                        "the control socket is gone, and no command reaches this gateway: {said}; it is made again \
                         as soon as it can be"
                    );
                }
                self.missing = Some(Missing {
                    again: now + pause,
                    pause,
                    said,
                });
            }
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| identity(&file) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// The directory that a path is in.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    }
}

/// Makes the socket at `path`, mode 0600 or with the access it had, and its directory, mode 0755, where there is
/// none.
fn place(path: &Path, access: Option<Access>) -> Result<(UnixListener, Bound), BindError> {
    let system = |error| BindError::System {
        socket: path.to_owned(),
        error,
    };
    let directory = directory(path);
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o755);
    builder.create(directory).map_err(system)?;
    // 1.
    let _lock = locked(directory);
    // 2.
    let nothing = match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) if is_served(path) => return Err(BindError::InUse(path.to_owned())),
        Ok(_) => false,
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(system(error)),
    };
    // 3. A name of the same length, if it can be: a socket's path has at most 107 bytes.
    let fresh = directory.join(format!(".{}", std::process::id()));
    let _ = fs::remove_file(&fresh);
    let made = made(&fresh)
        .and_then(|listener| {
            access.map_or(Ok(()), |access| access.give(&fresh))?;
            Ok(listener)
        })
        // 4.
        .and_then(|listener| named(&fresh, path, nothing).map(|()| listener))
        .and_then(|listener| Ok((listener, fs::symlink_metadata(path)?)));
    match made {
        Ok((listener, file)) => Ok((
            listener,
            Bound {
                path: path.to_owned(),
                identity: identity(&file),
                access: Access::of(&file),
            },
        )),
        Err(error) => {
            let _ = fs::remove_file(&fresh);
            Err(system(error))
        }
    }
}

/// Gives a file its name. Where `nothing` stood, what has come there since is not replaced, if the filesystem can say so
/// (`RENAME_NOREPLACE`, rename(2)).
fn named(fresh: &Path, path: &Path, nothing: bool) -> io::Result<()> {
    if nothing {
        match renameat_with(CWD, fresh, CWD, path, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS) => {}
            done => return Ok(done?),
        }
    }
    fs::rename(fresh, path)
}

fn made(path: &Path) -> io::Result<UnixListener> {
    let socket = stream()?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn stream() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

/// Whether somebody listens at a socket. One whose backlog is full says EAGAIN, one that belongs to another
/// user EACCES: only a refusal means that nobody does.
fn is_served(path: &Path) -> bool {
    let connected = stream().and_then(|socket| {
        let address = SocketAddrUnix::new(path)?;
        Ok(connect(&socket, &address)?)
    });
    !connected.is_err_and(|error| {
        matches!(
            Errno::from_io_error(&error),
            Some(Errno::CONNREFUSED | Errno::NOENT)
        )
    })
}

/// The lock of a directory, until the answer is dropped; none if it cannot be had.
fn locked(directory: &Path) -> Option<fs::File> {
    let directory = fs::File::open(directory).ok()?;
    let until = Instant::now() + LOCK;
    loop {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(directory),
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < until => {
                std::thread::sleep(LOCK_RETRY);
            }
            Err(_) => return None,
        }
    }
}
