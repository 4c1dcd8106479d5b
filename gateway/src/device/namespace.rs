//! Network namespaces held by a descriptor: nothing is pinned in the file system, so a namespace and all
//! that is in it goes when its last descriptor, thread and process are gone, whatever way they went.

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread;

/// The calling thread's network namespace. `thread-self` (Linux 3.17), because `self` is the main
/// thread's, and namespaces are a thread's own.
const OWN: &str = "/proc/thread-self/ns/net";

/// From asm-generic/socket.h; libc does not have it for every target.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// A network namespace.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

impl Namespace {
    /// Makes a new one, with nothing in it but a loopback link that is down. The caller's thread stays
    /// where it is.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN in the user namespace (see [`enter_user_namespace`]).
    pub fn new() -> io::Result<Self> {
        // A thread of its own leaves the caller's namespace and ends; the descriptor keeps what it made.
        on_own_thread(|| {
            // SAFETY: NEWNET replaces this thread's network namespace only; no descriptor table, memory
            // or other state that another thread relies on is unshared.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            Self::current()
        })
    }

    /// The calling thread's own.
    ///
    /// # Errors
    /// As those of [`Namespace::open`]: ENOENT where `/proc` is not mounted.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new(OWN))
    }

    /// The one that a file of `/proc/PID/ns`, `/proc/PID/fd` or `/run/netns` stands for.
    ///
    /// # Errors
    /// What opening the file says. Any file that can be read will do here: that it is a namespace shows when it is
    /// entered.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(File::open(path)?.into()))
    }

    /// The one that `descriptor` stands for. That it is a network namespace shows when it is entered.
    pub fn from_descriptor(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// Moves the calling thread into it. Sockets and files opened before stay what they are; threads and
    /// processes started from here on begin in it.
    ///
    /// # Errors
    /// That of `setns`: EINVAL if the descriptor is not a network namespace's, EPERM without CAP_SYS_ADMIN in the
    /// user namespace that it belongs to and in the thread's own.
    pub fn enter(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(
            self.as_fd(),
            Some(LinkNameSpaceType::Network),
        )?)
    }

    /// Runs `work` in it, on a thread of its own, and waits for the result. What `work` opens may be
    /// used anywhere afterwards: a socket belongs to the namespace it was made in.
    ///
    /// # Errors
    /// As those of [`Namespace::enter`], or the system gives no thread (EAGAIN); `work` has not run then.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_own_thread(|| {
            self.enter()?;
            Ok(work())
        })
    }

    /// The kernel's number of the calling thread's own, which no other has until the machine starts anew
    /// (SO_NETNS_COOKIE, Linux 5.14).
    ///
    /// # Errors
    /// ENOPROTOOPT on an older kernel.
    pub fn cookie() -> io::Result<u64> {
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::DGRAM,
            None,
        )?;
        let mut cookie = 0_u64;
        let mut length = size_of::<u64>() as libc::socklen_t;
        // SAFETY: both pointers are to locals of the sizes given, which live through the call.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_NETNS_COOKIE,
                std::ptr::from_mut(&mut cookie).cast(),
                std::ptr::from_mut(&mut length),
            )
        };
        if result == 0 {
            Ok(cookie)
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// The number of its file, which another may have once this one is gone.
    ///
    /// # Errors
    /// That of `fstat`, which an open descriptor gives no cause for.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&self.0)?.st_ino)
    }

    /// A second descriptor of the same namespace.
    ///
    /// # Errors
    /// That of `fcntl` (F_DUPFD_CLOEXEC): no descriptor is left (EMFILE).
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes the process root of a user namespace of its own with a network and a mount namespace in it, so
/// that it may make further ones, links, TUN devices and file systems there without being root outside. The process must have only
/// its main thread yet (`man 7 user_namespaces`): call it first thing in `main`.
///
/// # Errors
/// EPERM or ENOSPC where the system does not allow user namespaces, EINVAL with more than one thread.
pub fn enter_user_namespace() -> io::Result<()> {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    // SAFETY: the kernel refuses NEWUSER to a process with more than one thread, so there is no other
    // thread to be surprised; no descriptor table is unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNET | UnshareFlags::NEWNS) }?;
    // Since Linux 3.19 gid_map may be written without privilege only once setgroups is denied.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {} 1", user.as_raw()))?;
    fs::write("/proc/self/gid_map", format!("0 {} 1", group.as_raw()))
}

/// Moves the process into the user namespace of process `pid`; for tools that join what another process
/// has made with [`enter_user_namespace`]. Nothing happens if it is the caller's own already.
///
/// # Errors
/// EINVAL with more than one thread, EPERM for a namespace that is not the caller's child.
pub fn join_user_namespace(pid: u32) -> io::Result<()> {
    let path = format!("/proc/{pid}/ns/user");
    if fs::read_link(&path)? == fs::read_link("/proc/self/ns/user")? {
        return Ok(());
    }
    let namespace = File::open(path)?;
    Ok(move_into_link_name_space(
        namespace.as_fd(),
        Some(LinkNameSpaceType::User),
    )?)
}

/// Runs `work` on a new thread and waits; a panic of it goes on in the caller.
fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("namespace".into())
            .spawn_scoped(scope, work)?;
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    fn link_names() -> Vec<String> {
        let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let rows = table.lines().skip(2);
        rows.filter_map(|row| Some(row.split_once(':')?.0.trim().to_owned()))
            .collect()
    }

    #[test]
    fn a_new_namespace_is_empty_and_the_caller_stays_outside() {
        let before = fs::read_link(OWN).unwrap();
        let space = Namespace::new().unwrap();
        assert_eq!(space.run(link_names).unwrap(), ["lo"]);
        assert_eq!(fs::read_link(OWN).unwrap(), before);
        assert_ne!(space.run(|| fs::read_link(OWN).unwrap()).unwrap(), before);
    }

    #[test]
    fn what_is_opened_inside_stays_inside() {
        let space = Namespace::new().unwrap();
        let other = space.try_clone().unwrap();
        let _first = space
            .run(|| UdpSocket::bind("0.0.0.0:5000").unwrap())
            .unwrap();
        let second = other.run(|| UdpSocket::bind("0.0.0.0:5000")).unwrap();
        assert!(second.is_err(), "the port is taken in that namespace");
        let elsewhere = Namespace::new().unwrap();
        assert!(
            elsewhere
                .run(|| UdpSocket::bind("0.0.0.0:5000"))
                .unwrap()
                .is_ok()
        );
    }

    #[test]
    fn something_else_than_a_namespace_is_refused() {
        let file = Namespace::open(Path::new("/dev/null")).unwrap();
        assert!(file.run(|| ()).is_err());
    }
}
