//! The secret keys that are in force: what their files held when they were last read. A reload compares these
//! and not the files' names, so that a new key under an old name is seen.

use crate::config::key_file::{self, KeyFileError};
use crate::config::schema::Config;
use crypto::key::{PresharedKey, PrivateKey, PublicKey};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The keys of a VPN gateway; wiped when they are dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    own: Option<(PrivateKey, PublicKey)>,
    preshared: BTreeMap<PathBuf, PresharedKey>,
}

/// Why there are no keys to work with.
#[derive(Debug)]
pub(crate) enum KeysError {
    /// A key file gives no key.
    File {
        /// The file.
        file: PathBuf,
        /// Why it gives none.
        error: KeyFileError,
    },
    /// The names of sites and clients whose public keys are points of small order (RFC 7748, 6.1).
    Useless(Vec<String>),
}

impl fmt::Display for KeysError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, error } => write!(formatter, "{}: {error}", file.display()),
            Self::Useless(names) => write!(
                formatter,
                "no handshake can use the public keys of: {}; take those that `wg pubkey` gives at the far ends",
                names.join(", ")
            ),
        }
    }
}

impl std::error::Error for KeysError {}

impl Keys {
    /// Reads every key file that the configuration names.
    ///
    /// # Errors
    /// [`KeysError::File`]: a file gives no key.
    pub(crate) fn read(config: &Config) -> Result<Self, KeysError> {
        let Some(vpn) = &config.vpn else {
            return Ok(Self::default());
        };
        let of = |file: &Path| {
            let file = file.to_owned();
            move |error| KeysError::File { file, error }
        };
        let own = &vpn.private_key_file;
        let private: PrivateKey = key_file::read(own).map_err(of(own))?;
        let public = private.public_key();
        let sites = vpn.sites.iter().map(|site| &site.preshared_key_file);
        let clients = config.clients().iter();
        let files = sites.chain(clients.map(|client| &client.preshared_key_file));
        let mut preshared = BTreeMap::new();
        for file in files.flatten() {
            if !preshared.contains_key(file) {
                let key = key_file::read::<PresharedKey>(file).map_err(of(file))?;
                preshared.insert(file.clone(), key);
            }
        }
        Ok(Self {
            own: Some((private, public)),
            preshared,
        })
    }

    /// The gateway's private key; `None` without a VPN gateway.
    pub(crate) fn private_key(&self) -> Option<&PrivateKey> {
        self.own.as_ref().map(|(private, _)| private)
    }

    /// The public key that belongs to it.
    pub(crate) fn public_key(&self) -> Option<PublicKey> {
        self.own.as_ref().map(|(_, public)| *public)
    }

    /// The preshared key in this file.
    pub(crate) fn preshared_key(&self, file: Option<&Path>) -> Option<PresharedKey> {
        self.preshared.get(file?).cloned()
    }

    /// Whether a handshake can use the public key of every site and client of a configuration; those that are `proven`
    /// are not looked at, since each takes a key agreement.
    ///
    /// # Errors
    /// [`KeysError::Useless`]: of some none can.
    pub(crate) fn agree(
        &self,
        config: &Config,
        proven: impl Fn(&[u8; 32]) -> bool,
    ) -> Result<(), KeysError> {
        let Some(private) = self.private_key() else {
            return Ok(());
        };
        let sites = config.sites().iter();
        let sites = sites.map(|site| (&site.name, site.public_key));
        let clients = config.clients().iter();
        let all = sites.chain(clients.map(|client| (&client.name, client.public_key)));
        let useless = all.filter(|(_, key)| !proven(key) && !private.agrees_with(&PublicKey(*key)));
        let names: Vec<String> = useless.map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            Ok(())
        } else {
            Err(KeysError::Useless(names))
        }
    }

    /// What a reload says of another private key.
    pub(crate) fn change(&self, new: &Self) -> Option<String> {
        let (old, new) = (self.public_key()?, new.public_key()?);
        (old != new).then(|| {
            format!("the VPN gateway's private key changed: its public key is {new} now, all its tunnels begin anew")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, KeyFiles};
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_new_key_under_an_old_name_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        let private = || PrivateKey::generate().unwrap();
        let far = private().public_key();
        let text = format!(
            "[vnet]\nname = \"lab\"\naddress_space = \"10.1.0.0/16\"\naddress = \"10.1.0.4/27\"\n\
             [vpn]\nsku = \"VpnGw1\"\nprivate_key_file = \"own\"\n\
             [[vpn.site]]\nname = \"a\"\npublic_key = \"{far}\"\nendpoint = \"192.0.2.1:51820\"\n\
             prefixes = \"10.2.0.0/16\"\npreshared_key_file = \"shared\"\n"
        );
        let first = private();
        write("own", &first.to_base64());
        write("shared", &PresharedKey::generate().unwrap().to_base64());
        let file = directory.path().join("vng.toml");
        let loaded = config::parse(&file, text, directory.path(), KeyFiles::Checked).unwrap();
        let read = || Keys::read(&loaded.config).unwrap();
        let old = read();
        assert_eq!(old.public_key(), Some(first.public_key()));
        assert_eq!(old.change(&read()), None);
        let shared = loaded.config.vpn.as_ref().unwrap().sites[0]
            .preshared_key_file
            .clone();
        let of = |keys: &Keys| keys.preshared_key(shared.as_deref()).unwrap();
        assert!(of(&old) == of(&read()));
        write("shared", &PresharedKey::generate().unwrap().to_base64());
        assert!(of(&old) != of(&read()));
        let second = private();
        write("own", &second.to_base64());
        let said = old.change(&read()).unwrap();
        assert!(said.contains(&second.public_key().to_string()), "{said}");
        fs::remove_file(directory.path().join("shared")).unwrap();
        assert!(
            Keys::read(&loaded.config)
                .unwrap_err()
                .to_string()
                .contains("shared")
        );
    }
}
