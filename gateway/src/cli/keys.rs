//! `vng keygen` and `vng pubkey`.

use super::Failure;
use super::output::{print, report};
use crate::config::file::unfinished_name;
use crate::config::key_file;
use crate::telemetry::log::complain;
use clap::Args;
use crypto::key::PrivateKey;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

#[derive(Debug, Args)]
pub(super) struct Keygen {
    /// The file to write the private key to, mode 0600
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(super) struct Pubkey {
    /// The private key's file; `-` reads the key from standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Makes a private key and prints its public key.
pub(super) fn keygen(arguments: &Keygen) -> Result<(), Failure> {
    let key = PrivateKey::generate().map_err(|error| Failure::System(error.to_string()))?;
    let mut text = Zeroizing::new(String::with_capacity(64));
    text.push_str(&key.to_base64());
    text.push('\n');
    let path = &arguments.output;
    if let Some(directory) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        && make_directory(directory)
            .map_err(|error| Failure::Work(format!("{}: {error}", directory.display())))?
    {
        complain(&format!("made the directory {}\n", directory.display()));
    }
    write_private(path, text.as_bytes(), arguments.force).map_err(|error| {
        let shown = path.display();
        match error.kind() {
            io::ErrorKind::AlreadyExists => Failure::Usage(format!(
                "{shown} is there already; --force replaces it, and the old key is lost"
            )),
            _ => Failure::Work(format!("{shown}: {error}")),
        }
    })?;
    let public = key.public_key();
    let done = format!(
        "{} has a new private key; its public key is {public}\n",
        path.display()
    );
    report(&format!("{public}\n"), &done)
}

/// Makes a directory and those above it, readable by all, as packages make theirs in /etc: what is secret in it
/// is secret by its own mode. Whether it was not there before.
pub(super) fn make_directory(path: &Path) -> io::Result<bool> {
    if path.is_dir() {
        return Ok(false);
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o755).create(path)?;
    Ok(true)
}

/// Writes a new file with mode 0600. With `replace`, a file of that name gives way in one step: a key
/// file is never half written, and its mode never that of the old file.
pub(super) fn write_private(path: &Path, text: &[u8], replace: bool) -> io::Result<()> {
    let target = if replace {
        // What a link leads to, a device or a pipe is somebody else's.
        if fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) {
            return Err(io::Error::other(
                "is no regular file, so it is not replaced",
            ));
        }
        let name = path.file_name().unwrap_or_default();
        path.with_file_name(unfinished_name(name).map_err(io::Error::other)?)
    } else {
        path.to_owned()
    };
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&target)?;
    let written = file
        .write_all(text)
        .and_then(|()| file.sync_all())
        .and_then(|()| {
            if replace {
                fs::rename(&target, path)
            } else {
                Ok(())
            }
        });
    if written.is_err() {
        let _ = fs::remove_file(&target);
    }
    written
}

/// Prints the public key of a private key.
pub(super) fn pubkey(arguments: &Pubkey) -> Result<(), Failure> {
    let path = &arguments.file;
    let key = if path.as_os_str() == "-" {
        let mut text = Zeroizing::new(String::new());
        io::stdin()
            .take(256)
            .read_to_string(&mut text)
            .map_err(|error| Failure::Work(format!("standard input: {error}")))?;
        PrivateKey::from_base64(&text)
            .map_err(|error| Failure::Usage(format!("standard input: {error}")))?
    } else {
        key_file::read::<PrivateKey>(path).map_err(|error| Failure::Usage(error.told(path)))?
    };
    print(&format!("{}\n", key.public_key()))
}
