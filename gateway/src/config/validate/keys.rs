//! Key files: there, private, and with a key inside.

use super::{Rules, Words, found};
use crate::config::value;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use zeroize::Zeroizing;

/// A key is 44 characters; what is longer than this is not read.
const LONGEST: u64 = 256;

pub(super) fn check(rules: &mut Rules) {
    let Some(vpn) = &rules.config.vpn else {
        return;
    };
    file(rules, "vpn.private_key_file", &vpn.private_key_file, true);
    for (index, site) in vpn.sites.iter().enumerate() {
        if let Some(path) = &site.preshared_key_file {
            file(
                rules,
                &format!("vpn.site[{index}].preshared_key_file"),
                path,
                false,
            );
        }
    }
}

fn file(rules: &mut Rules, key: &str, path: &Path, private: bool) {
    if !rules.sound(key) {
        return;
    }
    if let Err(wrong) = key_file(path, private) {
        let (what, words) = *wrong;
        rules.error(key, what, words);
    }
}

fn key_file(path: &Path, private: bool) -> Result<(), Box<(&'static str, Words)>> {
    let shown = path.display();
    let unreadable = |error: &std::io::Error| {
        let words = found(format!("{shown}: {error}")).allowed("a key file that vng can read");
        let words = match error.kind() {
            std::io::ErrorKind::NotFound if private => {
                words.help(format!("make one: vng keygen -o {shown}"))
            }
            _ => words,
        };
        Box::new(("cannot be read", words))
    };
    // A FIFO without a writer would block the open for ever.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)
        .map_err(|error| unreadable(&error))?;
    let about = file.metadata().map_err(|error| unreadable(&error))?;
    if !about.is_file() {
        let words = found(format!("{shown} is not a regular file")).allowed("a key file");
        return Err(Box::new(("is not a key file", words)));
    }
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let words = found(format!("{shown} has mode {mode:04o}"))
            .allowed("0600 or 0400: nothing for group and others")
            .help(format!("chmod 600 {shown}"));
        return Err(Box::new(("is open to others", words)));
    }
    let mut text = Zeroizing::new(String::new());
    let not_a_key = |what: String| {
        let words = found(format!("{shown}: {what}"))
            .allowed("32 bytes in base64 on one line, as vng keygen and wg genkey write them");
        Box::new(("does not hold a key", words))
    };
    match file.take(LONGEST).read_to_string(&mut text) {
        Ok(_) => value::key(text.trim_end())
            .map(|bytes| drop(Zeroizing::new(bytes)))
            .map_err(not_a_key),
        Err(_) => Err(not_a_key("found bytes that are not text".to_owned())),
    }
}
