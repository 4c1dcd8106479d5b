//! A directory for configuration files, keys and control sockets that leaves nothing behind.

use crate::error::Error;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};
use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A directory that goes with the process, however the process ends: a tmpfs that is mounted nowhere
/// (fsmount, Linux 5.2) and reached through the descriptor that holds it. Where the kernel does not allow
/// one, a temporary directory that goes when this value is dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _keep: Keep,
}

#[derive(Debug)]
enum Keep {
    Detached { _mount: OwnedFd },
    Directory { _directory: tempfile::TempDir },
}

impl Scratch {
    /// Makes one, empty.
    ///
    /// # Errors
    /// [`Error::System`] where neither a detached tmpfs can be made nor a directory below the one for temporary
    /// files.
    pub fn new() -> Result<Self, Error> {
        if let Ok(mount) = detached() {
            // Not /proc/self: other processes, the gateways, use the path too.
            let path = format!("/proc/{}/fd/{}", std::process::id(), mount.as_raw_fd());
            return Ok(Self {
                path: path.into(),
                _keep: Keep::Detached { _mount: mount },
            });
        }
        let directory = tempfile::Builder::new()
            .prefix("vng-lab-")
            .tempdir()
            .map_err(Error::system("make a temporary directory"))?;
        let path = directory.path().to_owned();
        Ok(Self {
            path,
            _keep: Keep::Directory {
                _directory: directory,
            },
        })
    }

    /// Where it is, for every process of this machine that may look into this one.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file that only its owner can read, and gives its path.
    ///
    /// # Errors
    /// [`Error::System`] where the file cannot be opened, or its content not be written.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(content.as_bytes()))
            .map_err(Error::system(format!("write {name}")))?;
        Ok(path)
    }
}

fn detached() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "mode", "0700")?;
    fsconfig_create(&context)?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    #[test]
    fn files_are_private_and_sockets_can_be_bound_until_it_goes() {
        let scratch = Scratch::new().unwrap();
        let file = scratch.write("key", "secret").unwrap();
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), "secret");
        UnixListener::bind(scratch.path().join("socket")).unwrap();
        drop(scratch);
        assert!(fs::read_to_string(&file).is_err());
    }
}
