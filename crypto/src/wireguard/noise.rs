//! What snow computes with: X25519 by x25519-dalek, BLAKE2s by blake2, ChaCha20-Poly1305 and randomness
//! by ring. snow's own X25519 does not wipe its private keys; this one does.

use crate::key::KEY_LEN;
use blake2::{Blake2s256, Digest};
use snow::Error;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, RingResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Gives snow the primitives of `25519_ChaChaPoly_BLAKE2s` and no others.
#[derive(Clone, Default)]
pub(super) struct Primitives {
    /// Spares what was computed before.
    pub(super) known: Option<Known>,
}

/// What is known of a static key pair before the handshake begins. Each spares a multiplication on the curve,
/// of four that an initiation takes: a gateway whose thousand sites do not answer writes 200 a second.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct Known {
    /// The public half.
    pub(super) public: [u8; KEY_LEN],
    /// What it agrees on with a peer's static key.
    pub(super) agreed: Option<Agreed>,
}

/// What two static keys agree on.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct Agreed {
    with: [u8; KEY_LEN],
    shared: [u8; KEY_LEN],
}

impl Agreed {
    /// Between a private key and a peer's public one; `None` if that says nothing (RFC 7748, 6.1).
    pub(super) fn between(private: &[u8; KEY_LEN], public: &[u8; KEY_LEN]) -> Option<Self> {
        let shared = StaticSecret::from(*private).diffie_hellman(&PublicKey::from(*public));
        shared.was_contributory().then(|| Self {
            with: *public,
            shared: shared.to_bytes(),
        })
    }
}

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        RingResolver.resolve_rng()
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(X25519::new(self.known.clone()))),
            DHChoice::Curve448 => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        match choice {
            HashChoice::Blake2s => Some(Box::new(Blake2s(Blake2s256::new()))),
            _ => None,
        }
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        RingResolver.resolve_cipher(choice)
    }
}

/// One key pair.
struct X25519 {
    private: StaticSecret,
    public: [u8; KEY_LEN],
    /// Of the key pair that is set; one that is generated is another.
    known: Option<Known>,
}

impl X25519 {
    fn new(known: Option<Known>) -> Self {
        Self {
            private: StaticSecret::from([0; KEY_LEN]),
            public: [0; KEY_LEN],
            known,
        }
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_LEN
    }

    fn priv_len(&self) -> usize {
        KEY_LEN
    }

    fn set(&mut self, private: &[u8]) {
        if let Ok(bytes) = <[u8; KEY_LEN]>::try_from(private) {
            // The old key is wiped where it stands.
            self.private = StaticSecret::from(bytes);
            self.public = match &self.known {
                Some(known) => known.public,
                None => PublicKey::from(&self.private).to_bytes(),
            };
        }
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), Error> {
        self.known = None;
        let mut private = [0; KEY_LEN];
        let filled = random.try_fill_bytes(&mut private);
        if filled.is_ok() {
            self.set(&private);
        }
        private.zeroize();
        filled
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.private.as_bytes()
    }

    /// Refuses a result of zeros (RFC 7748, 6.1), as Linux does.
    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let public: &[u8; KEY_LEN] = public.first_chunk().ok_or(Error::Dh)?;
        let out = out.first_chunk_mut().ok_or(Error::Dh)?;
        let agreed = self.known.as_ref().and_then(|known| known.agreed.as_ref());
        if let Some(agreed) = agreed.filter(|agreed| agreed.with == *public) {
            *out = agreed.shared;
            return Ok(());
        }
        let shared = self.private.diffie_hellman(&PublicKey::from(*public));
        if !shared.was_contributory() {
            return Err(Error::Dh);
        }
        *out = shared.to_bytes();
        Ok(())
    }
}

/// BLAKE2s with 32 bytes of output.
struct Blake2s(Blake2s256);

impl Hash for Blake2s {
    fn name(&self) -> &'static str {
        "BLAKE2s"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = Blake2s256::new();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let hash = std::mem::take(&mut self.0).finalize();
        out.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snow::Builder;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    /// The vector of `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s` in cacophony's published set
    /// (github.com/haskell-cryptography/cacophony, vectors/cacophony.txt).
    #[test]
    fn both_messages_are_those_of_the_published_vector() {
        let pattern = || "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s".parse().unwrap();
        let psk: [u8; 32] = *b"This is my Austrian perspective!";
        let initiator_static =
            hex("e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1");
        let initiator_ephemeral =
            hex("893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a");
        let responder_static =
            hex("4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893");
        let responder_ephemeral =
            hex("bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b");
        let responder_public =
            hex("31e0303fd6418d2f8c0e78b91f22e8caed0fbe48656dcf4767e4834f701b8f62");
        let mut initiator = Builder::with_resolver(pattern(), Box::new(Primitives::default()))
            .local_private_key(&initiator_static)
            .unwrap()
            .remote_public_key(&responder_public)
            .unwrap()
            .prologue(b"John Galt")
            .unwrap()
            .psk(2, &psk)
            .unwrap()
            .fixed_ephemeral_key_for_testing_only(&initiator_ephemeral)
            .build_initiator()
            .unwrap();
        let mut responder = Builder::with_resolver(pattern(), Box::new(Primitives::default()))
            .local_private_key(&responder_static)
            .unwrap()
            .prologue(b"John Galt")
            .unwrap()
            .fixed_ephemeral_key_for_testing_only(&responder_ephemeral)
            .build_responder()
            .unwrap();

        let (mut message, mut payload) = ([0; 200], [0; 200]);
        let length = initiator
            .write_message(b"Ludwig von Mises", &mut message)
            .unwrap();
        assert_eq!(
            message[..length],
            hex(concat!(
                "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944",
                "001e21de9f98ddd8e2ad57527207feb56253c9c94a9e496782ecfcb2a75fbcaf",
                "1b52948cc48daefe660c62119ab5000980c84831215f2441eba616548e832985",
                "464cf17e51ee93109008399a21f7e13f"
            ))
        );
        let read = responder
            .read_message(&message[..length], &mut payload)
            .unwrap();
        assert_eq!(payload[..read], *b"Ludwig von Mises");
        responder.set_psk(2, &psk).unwrap();
        let length = responder
            .write_message(b"Murray Rothbard", &mut message)
            .unwrap();
        assert_eq!(
            message[..length],
            hex(concat!(
                "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843",
                "cb765f2caef0751b8f007572dab0322217755c0632f365717edbf34d33e87a"
            ))
        );
        initiator
            .read_message(&message[..length], &mut payload)
            .unwrap();
        assert_eq!(
            initiator.get_handshake_hash(),
            hex("f5191b875290abcd41347ac3622d9679688a7e980229cb937ef748336cfde0e5")
        );
        assert_eq!(
            initiator.dangerously_get_raw_split(),
            responder.dangerously_get_raw_split()
        );
    }
}
