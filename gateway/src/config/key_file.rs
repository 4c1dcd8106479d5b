//! Files with a secret key: read only if nobody but their owner may.

use crypto::key::KeyError;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::str::FromStr;
use zeroize::Zeroizing;

/// A key is 44 characters; what is longer than this is not one.
const LONGEST: u64 = 256;

/// Why a key file gives no key.
#[derive(Debug)]
pub enum KeyFileError {
    /// The system does not let it be read.
    Unreadable(io::Error),
    /// A directory, a device, a pipe.
    NotAFile,
    /// Group or others may read or write it; its mode.
    Open(u32),
    /// Its text is not a key.
    NotAKey(KeyError),
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => match error.kind() {
                io::ErrorKind::NotFound => formatter.write_str("there is no such file"),
                io::ErrorKind::PermissionDenied => formatter.write_str("this user may not read it"),
                _ => write!(formatter, "{error}"),
            },
            Self::NotAFile => write!(formatter, "not a regular file"),
            Self::Open(mode) => write!(formatter, "mode {mode:04o}"),
            Self::NotAKey(error) => write!(formatter, "{error}"),
        }
    }
}

impl std::error::Error for KeyFileError {}

impl KeyFileError {
    /// What is wrong with the key file at `path`, in one line with what helps.
    pub fn told(&self, path: &Path) -> String {
        let shown = path.display();
        match self {
            Self::Unreadable(error) => match error.kind() {
                io::ErrorKind::NotFound => {
                    format!("{shown} is not there: vng keygen -o {shown} makes a private key")
                }
                io::ErrorKind::PermissionDenied => {
                    format!("{shown} may not be read by this user: be its owner or root")
                }
                _ => format!("{shown} cannot be read: {error}"),
            },
            Self::NotAFile => format!("{shown} is not a regular file, so it is no key file"),
            Self::Open(mode) => format!(
                "{shown} has mode {mode:04o}: others can use the key; chmod 600 {shown}, and make a new \
                 key if they may have"
            ),
            Self::NotAKey(error) => format!(
                "{shown} holds no key: {error}; a key is 32 bytes in base64, as vng keygen writes it"
            ),
        }
    }
}

/// Reads the key in the file at `path`: a private or a preshared one.
///
/// # Errors
/// See [`KeyFileError`]. A file that group or others may read, write or execute is refused.
pub fn read<K: FromStr<Err = KeyError>>(path: &Path) -> Result<K, KeyFileError> {
    // Without this flag the open of a pipe that nobody writes would never return.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)
        .map_err(KeyFileError::Unreadable)?;
    let about = file.metadata().map_err(KeyFileError::Unreadable)?;
    if !about.is_file() {
        return Err(KeyFileError::NotAFile);
    }
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Open(mode));
    }
    let mut text = Zeroizing::new(Vec::with_capacity(LONGEST as usize));
    file.take(LONGEST)
        .read_to_end(&mut text)
        .map_err(KeyFileError::Unreadable)?;
    std::str::from_utf8(&text)
        .map_err(|_| KeyFileError::NotAKey(KeyError::Encoding))?
        .parse()
        .map_err(KeyFileError::NotAKey)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::key::PrivateKey;
    use std::fs;

    #[test]
    fn only_a_private_file_with_a_key_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let read = || read::<PrivateKey>(&path);
        assert!(matches!(read(), Err(KeyFileError::Unreadable(_))));
        let key = PrivateKey::generate().unwrap();
        fs::write(&path, format!("{}\n", *key.to_base64())).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(read(), Err(KeyFileError::Open(m)) if m == mode));
        }
        for mode in [0o600, 0o400] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read().unwrap().public_key(), key.public_key());
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for text in ["", "short", &"x".repeat(44), &"A".repeat(10_000)] {
            fs::write(&path, text).unwrap();
            assert!(matches!(read(), Err(KeyFileError::NotAKey(_))), "{text}");
        }
    }

    #[test]
    fn a_directory_is_not_a_key_file() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(
            read::<PrivateKey>(directory.path()),
            Err(KeyFileError::NotAFile)
        ));
    }
}
