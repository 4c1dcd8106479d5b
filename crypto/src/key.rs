//! X25519 keys as people write them: 32 bytes in base64, the text form of `wg(8)`.
//!
//! Private and preshared keys are wiped when they are dropped and never printed by `Debug`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;
use std::str::FromStr;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

/// Length of every key in bytes.
pub const KEY_LEN: usize = 32;
/// Length of every key in base64, with its one `=` (RFC 4648, 4).
pub const KEY_TEXT_LEN: usize = 44;

/// Why a text is not a key, or a key could not be made. Never carries a part of the text: it may be secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// Not [`KEY_TEXT_LEN`] characters; the length found, in bytes, blanks around it not counted.
    Length(usize),
    /// A character that base64 does not have, or bits behind the last byte that are not zero.
    Encoding,
    /// The operating system gave no random bytes.
    Random,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(found) => write!(
                f,
                "a key is {KEY_LEN} bytes in base64, {KEY_TEXT_LEN} characters; found {found}"
            ),
            Self::Encoding => write!(f, "a key is {KEY_LEN} bytes in base64; this is not base64"),
            Self::Random => write!(f, "the system gave no random bytes"),
        }
    }
}

impl std::error::Error for KeyError {}

/// An X25519 private key, clamped when it is used (RFC 7748, 5).
#[derive(Clone)]
pub struct PrivateKey(Zeroizing<[u8; KEY_LEN]>);

impl PrivateKey {
    /// A new random key, clamped as `wg genkey` does.
    ///
    /// # Errors
    /// [`KeyError::Random`]: the operating system gave no random bytes.
    pub fn generate() -> Result<Self, KeyError> {
        let mut bytes = random_bytes()?;
        bytes[0] &= 0xf8;
        bytes[31] = (bytes[31] & 0x7f) | 0x40;
        Ok(Self(bytes))
    }

    /// Reads a key in base64; blanks and the line's end around it do not count.
    ///
    /// # Errors
    /// [`KeyError::Length`] unless it is [`KEY_TEXT_LEN`] bytes long, else [`KeyError::Encoding`] if it is not base64
    /// of [`KEY_LEN`] bytes.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }

    /// The key from its bytes. Any 32 bytes are a private key.
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The key in base64.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.as_bytes()))
    }

    /// The public key that belongs to it.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(x25519_dalek::PublicKey::from(&StaticSecret::from(*self.0)).to_bytes())
    }

    /// Whether a key agreement with `other` says anything at all: a point of small order gives zeros
    /// with every private key (RFC 7748, 6.1).
    pub fn agrees_with(&self, other: &PublicKey) -> bool {
        StaticSecret::from(*self.0)
            .diffie_hellman(&other.0.into())
            .was_contributory()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

impl FromStr for PrivateKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::from_base64(text)
    }
}

/// An X25519 public key; `Display` is base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; KEY_LEN]);

impl PublicKey {
    /// Reads a key in base64; blanks and the line's end around it do not count.
    ///
    /// # Errors
    /// As those of [`PrivateKey::from_base64`]. Whether a far end can have such a key is not asked here: see
    /// [`PrivateKey::agrees_with`].
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        decode(text).map(|bytes| Self(*bytes))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::from_base64(text)
    }
}

/// A symmetric key that both ends mix into their handshakes.
#[derive(Clone, PartialEq, Eq)]
pub struct PresharedKey(Zeroizing<[u8; KEY_LEN]>);

impl PresharedKey {
    /// A new random key.
    ///
    /// # Errors
    /// [`KeyError::Random`]: the operating system gave no random bytes.
    pub fn generate() -> Result<Self, KeyError> {
        random_bytes().map(Self)
    }

    /// Reads a key in base64; blanks and the line's end around it do not count.
    ///
    /// # Errors
    /// As those of [`PrivateKey::from_base64`].
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }

    /// The key in base64.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0.as_slice()))
    }

    /// The bytes, as [`crate::tunnel::Peer::preshared_key`] wants them.
    pub fn into_bytes(self) -> Zeroizing<[u8; KEY_LEN]> {
        self.0
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(..)")
    }
}

impl FromStr for PresharedKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::from_base64(text)
    }
}

fn decode(text: &str) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
    let text = text.trim();
    if text.len() != KEY_TEXT_LEN {
        return Err(KeyError::Length(text.len()));
    }
    // The decoder wants room for the '=' too: 44 characters are 33 bytes to its estimate.
    let mut room = Zeroizing::new([0; KEY_LEN + 1]);
    let length = STANDARD
        .decode_slice(text, room.as_mut_slice())
        .map_err(|_| KeyError::Encoding)?;
    match room.first_chunk::<KEY_LEN>() {
        Some(key) if length == KEY_LEN => Ok(Zeroizing::new(*key)),
        _ => Err(KeyError::Encoding),
    }
}

fn random_bytes() -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    SystemRandom::new()
        .fill(bytes.as_mut_slice())
        .map_err(|_| KeyError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> [u8; KEY_LEN] {
        let digits: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        digits.try_into().unwrap()
    }

    /// RFC 7748, 6.1: Bob's keys.
    #[test]
    fn the_public_key_is_that_of_the_rfc() {
        let bob = PrivateKey::from_bytes(bytes(
            "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        ));
        assert_eq!(
            bob.public_key().0,
            bytes("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
        );
    }

    /// What `wg pubkey` of wireguard-tools 1.0.20210914 says.
    #[test]
    fn the_public_key_is_that_of_wg_pubkey() {
        let key = PrivateKey::from_base64("2LQeeK0oE40FXc97FXK4z86CgIpg0YRo1kb0DEPYK2w=").unwrap();
        assert_eq!(
            key.public_key().to_string(),
            "JjfeqAPtPlZLqjIQtZjtNGB0LL2qNbDei9DX8r/IKWY="
        );
    }

    #[test]
    fn a_generated_key_is_clamped_and_survives_its_text() {
        let key = PrivateKey::generate().unwrap();
        assert_eq!(key.as_bytes()[0] & 7, 0);
        assert_eq!(key.as_bytes()[31] & 0xc0, 0x40);
        let text = key.to_base64();
        assert_eq!(text.len(), KEY_TEXT_LEN);
        let again = PrivateKey::from_base64(&format!(" {}\n", text.as_str())).unwrap();
        assert_eq!(again.as_bytes(), key.as_bytes());
        assert_eq!(again.public_key(), key.public_key());
        let public: PublicKey = key.public_key().to_string().parse().unwrap();
        assert_eq!(public, key.public_key());
    }

    #[test]
    fn what_is_no_key_is_refused_with_the_reason() {
        let text = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
        assert!(PublicKey::from_base64(text).is_ok());
        assert_eq!(PublicKey::from_base64(""), Err(KeyError::Length(0)));
        assert_eq!(
            PublicKey::from_base64(&text[1..]),
            Err(KeyError::Length(43))
        );
        assert_eq!(
            PublicKey::from_base64(&text.replace('x', "*")),
            Err(KeyError::Encoding)
        );
        // 44 characters of 33 bytes, and of 31.
        assert_eq!(
            PublicKey::from_base64(&text.replace('=', "A")),
            Err(KeyError::Encoding)
        );
        assert_eq!(
            PublicKey::from_base64(&text.replace("g=", "==")),
            Err(KeyError::Encoding)
        );
        // Bits set behind the 32nd byte.
        assert_eq!(
            PublicKey::from_base64(&text.replace("g=", "h=")),
            Err(KeyError::Encoding)
        );
    }

    #[test]
    fn a_point_of_small_order_agrees_with_nobody() {
        let key = PrivateKey::generate().unwrap();
        let mut one = [0; KEY_LEN];
        one[0] = 1;
        assert!(!key.agrees_with(&PublicKey([0; KEY_LEN])));
        assert!(!key.agrees_with(&PublicKey(one)));
        assert!(key.agrees_with(&PrivateKey::generate().unwrap().public_key()));
    }

    #[test]
    fn secrets_do_not_show_in_debug() {
        let key = PrivateKey::generate().unwrap();
        assert_eq!(format!("{key:?}"), "PrivateKey(..)");
        let preshared = PresharedKey::generate().unwrap();
        assert_eq!(format!("{preshared:?}"), "PresharedKey(..)");
    }
}
