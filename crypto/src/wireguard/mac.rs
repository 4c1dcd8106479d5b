//! mac1, mac2 and cookies (whitepaper, 5.3 and 5.4.4): what stands in front of the expensive part of a
//! handshake.
//!
//! mac1 shows that the sender knows the receiver's public key; whoever does not know it gets no answer.
//! mac2 shows that the sender lately received a cookie at the address it sends from.

use super::message::{self, COOKIE_NONCE_LEN, COOKIE_REPLY_LEN, MAC_LEN, Macs};
use crate::key::PublicKey;
use crate::keyed_hash::keyed_hash;
use blake2::{Blake2s256, Digest};
use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use subtle::ConstantTimeEq;

const LABEL_MAC1: &[u8; 8] = b"mac1----";
const LABEL_COOKIE: &[u8; 8] = b"cookie--";

pub(super) type Mac = [u8; MAC_LEN];

/// The keys that follow from one public key: its owner checks with them, others write with them.
#[derive(Clone, Debug)]
pub(super) struct MacKeys {
    mac1: [u8; 32],
    cookie: [u8; 32],
}

impl MacKeys {
    pub(super) fn of(public_key: &PublicKey) -> Self {
        let hash = |label: &[u8]| {
            Blake2s256::new()
                .chain_update(label)
                .chain_update(public_key.0)
                .finalize()
                .into()
        };
        Self {
            mac1: hash(LABEL_MAC1),
            cookie: hash(LABEL_COOKIE),
        }
    }

    /// Writes mac1 and, with a cookie, mac2 at the end of message 1 or 2; gives mac1.
    pub(super) fn write(&self, message: &mut [u8], cookie: Option<&Mac>) -> Mac {
        let Some((body_and_mac1, mac2)) = message.split_last_chunk_mut() else {
            return [0; MAC_LEN];
        };
        let mut written = [0; MAC_LEN];
        if let Some((body, mac1)) = body_and_mac1.split_last_chunk_mut() {
            written = keyed_hash(&self.mac1, &[body]);
            *mac1 = written;
        }
        *mac2 = cookie.map_or([0; MAC_LEN], |cookie| keyed_hash(cookie, &[body_and_mac1]));
        written
    }

    /// Whether mac1 is right, for a message to the owner of the keys.
    pub(super) fn mac1_holds(&self, macs: &Macs<'_>) -> bool {
        keyed_hash(&self.mac1, &[macs.body]).ct_eq(macs.mac1).into()
    }

    /// Seals a cookie for the sender of a message with this mac1. `None` only if the cipher refuses.
    pub(super) fn cookie_reply(
        &self,
        receiver: u32,
        nonce: &[u8; COOKIE_NONCE_LEN],
        mac1: &Mac,
        cookie: &Mac,
    ) -> Option<[u8; COOKIE_REPLY_LEN]> {
        let mut sealed = [0; 2 * MAC_LEN];
        let (text, tag) = sealed.split_at_mut(MAC_LEN);
        text.copy_from_slice(cookie);
        let written = self
            .cookie_cipher()
            .encrypt_in_place_detached(XNonce::from_slice(nonce), mac1, text)
            .ok()?;
        tag.copy_from_slice(&written);
        Some(message::cookie_reply(receiver, nonce, &sealed))
    }

    /// Opens a cookie reply to a message of ours that had this mac1; the keys are its sender's.
    pub(super) fn open_cookie_reply(&self, datagram: &[u8], mac1: &Mac) -> Option<Mac> {
        let (nonce, sealed) = message::split_cookie_reply(datagram)?;
        let (mut cookie, tag) = (*sealed.first_chunk()?, sealed.last_chunk::<MAC_LEN>()?);
        self.cookie_cipher()
            .decrypt_in_place_detached(
                XNonce::from_slice(nonce),
                mac1,
                &mut cookie,
                tag.as_slice().into(),
            )
            .ok()?;
        Some(cookie)
    }

    fn cookie_cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(Key::from_slice(&self.cookie))
    }
}

/// Whether mac2 is the one that `cookie` gives.
pub(super) fn mac2_holds(macs: &Macs<'_>, cookie: &Mac) -> bool {
    keyed_hash(cookie, &[macs.body_and_mac1])
        .ct_eq(macs.mac2)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    /// draft-irtf-cfrg-xchacha-03, A.3.1: the cipher behind a cookie is the published one.
    #[test]
    fn the_cipher_of_cookies_is_that_of_the_draft() {
        let key: Vec<u8> = (0x80..=0x9f).collect();
        let nonce: Vec<u8> = (0x40..=0x57).collect();
        let mut text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.".to_vec();
        let tag = XChaCha20Poly1305::new(Key::from_slice(&key))
            .encrypt_in_place_detached(
                XNonce::from_slice(&nonce),
                &hex("50515253c0c1c2c3c4c5c6c7"),
                &mut text,
            )
            .unwrap();
        assert_eq!(tag.to_vec(), hex("c0875924c1c7987947deafd8780acf49"));
        assert_eq!(text[..16], hex("bd6d179d3e83d43b9576579493c0e939"));
    }

    #[test]
    fn macs_hold_until_a_bit_changes() {
        let ours = MacKeys::of(&PublicKey([7; 32]));
        let cookie = [3; MAC_LEN];
        let mut message = [0x5a; message::RESPONSE_LEN];
        let mac1 = ours.write(&mut message, Some(&cookie));
        let macs = message::macs(&message).unwrap();
        assert_eq!(*macs.mac1, mac1);
        assert!(ours.mac1_holds(&macs));
        assert!(mac2_holds(&macs, &cookie));
        assert!(!mac2_holds(&macs, &[4; MAC_LEN]));
        assert!(!MacKeys::of(&PublicKey([8; 32])).mac1_holds(&macs));
        for bit in 0..(message.len() - MAC_LEN) * 8 {
            let mut forged = message;
            forged[bit / 8] ^= 1 << (bit % 8);
            let macs = message::macs(&forged).unwrap();
            assert!(!ours.mac1_holds(&macs), "bit {bit}");
            assert!(!mac2_holds(&macs, &cookie), "bit {bit}");
        }
    }

    #[test]
    fn without_a_cookie_mac2_is_zero() {
        let mut message = [0x5a; message::INITIATION_LEN];
        MacKeys::of(&PublicKey([7; 32])).write(&mut message, None);
        assert_eq!(*message::macs(&message).unwrap().mac2, [0; MAC_LEN]);
    }

    #[test]
    fn a_cookie_opens_only_for_the_message_that_asked() {
        let keys = MacKeys::of(&PublicKey([7; 32]));
        let cookie = [9; MAC_LEN];
        let reply = keys.cookie_reply(77, &[1; 24], &[2; 16], &cookie).unwrap();
        assert_eq!(keys.open_cookie_reply(&reply, &[2; 16]), Some(cookie));
        assert_eq!(keys.open_cookie_reply(&reply, &[3; 16]), None);
        for bit in 64..reply.len() * 8 {
            let mut forged = reply;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(keys.open_cookie_reply(&forged, &[2; 16]), None, "bit {bit}");
        }
    }
}
