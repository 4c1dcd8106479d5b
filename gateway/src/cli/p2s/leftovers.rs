//! What a client leaves behind that is revoked: its file, where it is looked for, and the file of its preshared key. Both
//! are worth nothing any more, and in the way when a client of that name is added again. Only what is the client's for
//! sure is removed.

use super::staged::{self, Keys};
use crate::config::file::parent;
use crate::config::key_file;
use crate::config::schema::{Client, Config};
use crypto::key::PresharedKey;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What has become of them.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    pub(super) removed: Vec<PathBuf>,
    pub(super) left: Vec<PathBuf>,
    /// The same in words.
    pub(super) told: Vec<String>,
}

/// Removes the files of a client that the configuration in `file`, which was `config`, does not have any more.
pub(super) fn remove(file: &Path, config: &Config, client: &Client) -> Leftovers {
    let mut leftovers = Leftovers::default();
    let name = format!("{}.conf", client.name);
    let mut preshared = None;
    // Where `vng p2s add` puts it, and where whoever names a place would.
    for path in [PathBuf::from(&name), parent(file).join(&name)] {
        let keys = staged::keys_of(&path);
        let Some(keys) = keys.filter(|keys| is_of(keys, client)) else {
            continue;
        };
        preshared = preshared.or(keys.preshared_key);
        leftovers.take(&path, "its file", fs::remove_file(&path));
    }
    if leftovers.told.is_empty() {
        let told = "its file, wherever it is, is worth nothing now: remove it";
        leftovers.told.push(told.to_owned());
    }
    let Some(path) = &client.preshared_key_file else {
        return leftovers;
    };
    if users(config, path) > 1 {
        return leftovers;
    }
    let there = key_file::read::<PresharedKey>(path).ok();
    match (there, preshared) {
        (Some(there), Some(its)) if there == its => {
            leftovers.take(path, "its preshared key", fs::remove_file(path));
        }
        // Somebody else may have made it, for more than this client.
        _ if path.exists() => {
            let shown = path.display();
            let told = format!("{shown} is left: nobody uses its preshared key any more");
            leftovers.told.push(told);
            leftovers.left.push(path.clone());
        }
        _ => {}
    }
    leftovers
}

fn is_of(keys: &Keys, client: &Client) -> bool {
    keys.private_key.public_key().0 == client.public_key
}

/// How many far ends use the preshared key in this file.
fn users(config: &Config, path: &Path) -> usize {
    let sites = config.sites().iter();
    let sites = sites.filter_map(|site| site.preshared_key_file.as_deref());
    let clients = config.clients().iter();
    let clients = clients.filter_map(|client| client.preshared_key_file.as_deref());
    sites.chain(clients).filter(|used| *used == path).count()
}

impl Leftovers {
    fn take(&mut self, path: &Path, what: &str, removed: io::Result<()>) {
        let shown = path.display();
        match removed {
            Ok(()) => {
                self.told.push(format!("removed {what} {shown}"));
                self.removed.push(path.to_owned());
            }
            Err(error) => {
                let told = format!("{what} {shown} could not be removed: {error}; remove it");
                self.told.push(told);
                self.left.push(path.to_owned());
            }
        }
    }
}
