//! The control socket's file: made so that there is no moment in which another user could connect, and so
//! that of two gateways one has it.
//!
//! 1. its directory is locked (flock(2)), so that two gateways that start at once look one after the other
//! 2. what stands there: nothing, a socket that nobody listens at, or something that stays
//! 3. bound under another name, with its mode from the first moment on: `unix_bind_bsd` takes the mode of the
//!    socket's inode, less the umask. Nobody can connect before it listens
//! 4. it takes its name, and the place of a stale one, in one step

use super::BindError;
use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Callers that may wait to be accepted.
const BACKLOG: i32 = 128;
/// How long another gateway may take to place its socket. A stranger that holds the lock for longer, which
/// whoever can read the directory may, keeps nobody out.
const LOCK: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// The socket's file; dropped, it is removed, unless another has taken its place.
#[derive(Debug)]
pub(super) struct Bound {
    path: PathBuf,
    identity: (u64, u64),
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

/// Makes the socket at `path`, mode 0600, and its directory, mode 0755, where there is none.
pub(super) fn place(path: &Path) -> Result<(UnixListener, Bound), BindError> {
    let system = |error| BindError::System {
        socket: path.to_owned(),
        error,
    };
    let directory = match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    };
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o755);
    builder.create(directory).map_err(system)?;
    // 1.
    let _lock = locked(directory);
    // 2.
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) if is_served(path) => return Err(BindError::InUse(path.to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(system(error)),
    }
    // 3. A name of the same length, if it can be: a socket's path has at most 107 bytes.
    let fresh = directory.join(format!(".{}", std::process::id()));
    let _ = fs::remove_file(&fresh);
    let made = made(&fresh)
        // 4.
        .and_then(|listener| fs::rename(&fresh, path).map(|()| listener))
        .and_then(|listener| Ok((listener, fs::symlink_metadata(path)?)));
    match made {
        Ok((listener, file)) => Ok((
            listener,
            Bound {
                path: path.to_owned(),
                identity: identity(&file),
            },
        )),
        Err(error) => {
            let _ = fs::remove_file(&fresh);
            Err(system(error))
        }
    }
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
