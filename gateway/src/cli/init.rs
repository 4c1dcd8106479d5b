//! `vng init`: what a gateway needs before its first start, in one directory. What is there already stays.

use super::Failure;
use super::keys::{make_directory, write_private};
use super::output::{json_text, report};
use crate::config::key_file;
use clap::Args;
use crypto::key::PrivateKey;
use serde::Serialize;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The first configuration. It passes `vng check` and runs as it is.
const STARTER: &str = include_str!("init/starter.toml");

#[derive(Debug, Args)]
pub(super) struct Init {
    /// The directory for the configuration and its key
    #[arg(value_name = "DIR", default_value = crate::config::DEFAULT_DIRECTORY)]
    directory: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    /// The configuration file.
    config: PathBuf,
    /// The private key's file.
    private_key_file: PathBuf,
    /// The gateway's public key, base64: what the far ends need.
    public_key: String,
    /// Of both files and the directory, those that were not there before.
    made: Vec<PathBuf>,
}

/// Makes the directory, a private key and a first configuration.
pub(super) fn run(arguments: &Init) -> Result<(), Failure> {
    let directory = &arguments.directory;
    let mut made = Vec::new();
    if make_directory(directory).map_err(|error| cannot(directory, &error))? {
        made.push(directory.clone());
    }
    let key_file = directory.join("vpn.key");
    let public_key = key(&key_file, &mut made)?;
    let config = directory.join("vng.toml");
    match write_new(&config, STARTER) {
        Ok(()) => made.push(config.clone()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(cannot(&config, &error)),
    }
    let line = |path: &Path, what: &str| {
        let state = if made.iter().any(|new| new == path) {
            "made"
        } else {
            "kept"
        };
        format!("{state} {}: {what}\n", path.display())
    };
    let option = if directory == Path::new(crate::config::DEFAULT_DIRECTORY) {
        String::new()
    } else {
        format!(" -c {}", config.display())
    };
    let done = format!(
        "{}{}next: change it as you need, then vng check{option} and vng run{option}\n",
        line(
            &key_file,
            &format!("the private key; its public key is {public_key}")
        ),
        line(&config, "the configuration"),
    );
    if arguments.json {
        let shown = json_text(&Report {
            config,
            private_key_file: key_file,
            public_key,
            made,
        })?;
        return report(&shown, &done);
    }
    report(&done, &done)
}

/// The public key of the private key in this file, which is made if it is not there.
fn key(path: &Path, made: &mut Vec<PathBuf>) -> Result<String, Failure> {
    let new = PrivateKey::generate().map_err(|error| Failure::System(error.to_string()))?;
    let mut text = Zeroizing::new(String::with_capacity(64));
    text.push_str(&new.to_base64());
    text.push('\n');
    match write_private(path, text.as_bytes(), false) {
        Ok(()) => {
            made.push(path.to_owned());
            Ok(new.public_key().to_string())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let there = key_file::read::<PrivateKey>(path);
            let there = there.map_err(|error| Failure::Usage(error.told(path)))?;
            Ok(there.public_key().to_string())
        }
        Err(error) => Err(cannot(path, &error)),
    }
}

/// Writes a file that must not be there yet: nobody's work is overwritten, and no link is followed.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn cannot(path: &Path, error: &io::Error) -> Failure {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::System(format!(
            "{shown} cannot be made: {error}; be root, or name a directory of your own: vng init DIR"
        )),
        _ => Failure::Work(format!("{shown} cannot be made: {error}")),
    }
}
