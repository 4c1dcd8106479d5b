//! Key files: there, private, and with a key inside; and keys that no handshake can use.

use super::{Rules, found};
use crate::config::key_file::{self, KeyFileError};
use crate::config::schema::Vpn;
use crypto::key::{PresharedKey, PrivateKey};
use std::path::Path;

pub(super) fn check(rules: &mut Rules) {
    let Some(vpn) = &rules.config.vpn else {
        return;
    };
    let key = "vpn.private_key_file";
    match key_file::read::<PrivateKey>(&vpn.private_key_file) {
        Err(error) => wrong(rules, key, &vpn.private_key_file, &error),
        Ok(private) => {
            let own = private.public_key();
            for (far, public_key, _) in far_ends(vpn) {
                if public_key == own.0 {
                    let words = found("this gateway's own public key")
                        .allowed("the public key of the other end")
                        .also(key, "the private key it belongs to");
                    rules.error(&format!("{far}.public_key"), "is our own", words);
                }
            }
        }
    }
    for (far, _, preshared_key_file) in far_ends(vpn) {
        if let Some(path) = preshared_key_file
            && let Err(error) = key_file::read::<PresharedKey>(path)
        {
            let key = format!("{far}.preshared_key_file");
            wrong(rules, &key, path, &error);
        }
    }
}

/// Sites and clients, each with its key in the file, its public key and its preshared key's file.
fn far_ends(vpn: &Vpn) -> impl Iterator<Item = (String, [u8; 32], Option<&Path>)> {
    let sites = vpn.sites.iter().enumerate().map(|(index, site)| {
        let file = site.preshared_key_file.as_deref();
        (format!("vpn.site[{index}]"), site.public_key, file)
    });
    let clients = vpn.point_to_site.iter().flat_map(|p| &p.clients);
    let clients = clients.enumerate().map(|(index, client)| {
        let key = format!("vpn.point_to_site.client[{index}]");
        (key, client.public_key, client.preshared_key_file.as_deref())
    });
    sites.chain(clients)
}

fn wrong(rules: &mut Rules, key: &str, path: &Path, error: &KeyFileError) {
    let shown = path.display();
    let words = found(format!("{shown}: {error}"));
    let (what, words) = match error {
        KeyFileError::Unreadable(error) => {
            let words = words.allowed("a key file that vng can read");
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            let words = match missing {
                true if key == "vpn.private_key_file" => {
                    words.help(format!("make one: vng keygen -o {shown}"))
                }
                true => words.help(format!(
                    "both ends share it; make one: (umask 077; wg genpsk >{shown})"
                )),
                false => words,
            };
            ("cannot be read", words)
        }
        KeyFileError::NotAFile => ("is not a key file", words.allowed("a regular file")),
        KeyFileError::Open(_) => (
            "is open to others",
            words
                .allowed("mode 0600 or 0400: nothing for group and others")
                .help(format!("chmod 600 {shown}")),
        ),
        KeyFileError::NotAKey(_) => (
            "does not hold a key",
            words.allowed("32 bytes in base64, as vng keygen and wg genkey write them"),
        ),
    };
    rules.error(key, what, words);
}
