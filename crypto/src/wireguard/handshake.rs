//! The handshake, `Noise_IKpsk2` (whitepaper, 5.4.2 and 5.4.3): two messages, one round trip.
//!
//! ```text
//! initiator                                        responder
//!   write_initiation: e, es, s, ss, timestamp ->   read_initiation: who it is and when
//!   read_response                           <- e, ee, se, psk   write_response, with that peer's psk
//!   sends with keys.0                                sends with keys.1
//! ```
//! The responder learns in message 1 who calls; the preshared key counts only in message 2.
//!
//! snow neither wipes its chaining key nor its preshared keys when dropped; [`Wiped`] writes a handshake
//! of zeros over the finished one. What the compiler moved over the stack is out of reach.

use super::message::{NOISE_INITIATION_LEN, NOISE_RESPONSE_LEN};
use super::noise::{Known, Primitives};
use super::timestamp::{TIMESTAMP_LEN, Timestamp};
use crate::key::{KEY_LEN, PrivateKey, PublicKey};
use snow::params::{
    BaseChoice, CipherChoice, DHChoice, HandshakeChoice, HandshakeModifier, HandshakeModifierList,
    HandshakePattern, HashChoice, NoiseParams,
};
use snow::{Builder, HandshakeState};
use std::hint::black_box;
use zeroize::{Zeroize, ZeroizeOnDrop};

const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
/// What stands behind [`PROLOGUE`] on a lane other than the first, and before the lane's number.
const LANE: &[u8] = b" vng lane ";
/// What a finished handshake is overwritten with: it needs no key pair, and so no curve arithmetic.
const BLANK: &str = "Noise_NNpsk2_25519_ChaChaPoly_BLAKE2s";
/// The place of the preshared key in `IKpsk2`.
const PSK_PLACE: u8 = 2;

/// The handshake failed: a key or a tag that does not hold, or no random bytes. It does not say which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HandshakeFailed;

impl From<snow::Error> for HandshakeFailed {
    fn from(_: snow::Error) -> Self {
        Self
    }
}

/// Both keys of a new session.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct TransportKeys {
    pub(super) initiator_to_responder: [u8; KEY_LEN],
    pub(super) responder_to_initiator: [u8; KEY_LEN],
}

/// Both patterns; their names are not parsed for every handshake.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    handshake: NoiseParams,
    blank: NoiseParams,
    /// What both ends take for granted: a handshake with one that takes another fails.
    prologue: Vec<u8>,
}

impl Pattern {
    /// WireGuard's on the first lane, 0. The lanes of a peer share its key, but not what each has seen of
    /// timestamps: an initiation of one lane must be worth nothing on another, or it could be played there.
    pub(super) fn new(lane: u8) -> Self {
        let params = |name: &str, pattern| {
            let modifiers = HandshakeModifierList {
                list: vec![HandshakeModifier::Psk(PSK_PLACE)],
            };
            NoiseParams::new(
                name.to_owned(),
                BaseChoice::Noise,
                HandshakeChoice { pattern, modifiers },
                DHChoice::Curve25519,
                CipherChoice::ChaChaPoly,
                HashChoice::Blake2s,
            )
        };
        Self {
            handshake: params(PATTERN, HandshakePattern::IK),
            blank: params(BLANK, HandshakePattern::NN),
            prologue: match lane {
                0 => PROLOGUE.to_vec(),
                lane => [PROLOGUE, LANE, &[lane]].concat(),
            },
        }
    }

    fn builder(&self, known: Option<Known>) -> Builder<'_> {
        Builder::with_resolver(self.handshake.clone(), Box::new(Primitives { known }))
    }
}

/// Our initiation, waiting for its response.
pub(super) struct Initiator(Wiped);

impl Initiator {
    /// Begins a handshake with the owner of `remote`: the state to keep and the message to send.
    pub(super) fn write_initiation(
        pattern: &Pattern,
        (local, known): (&PrivateKey, Option<Known>),
        remote: &PublicKey,
        preshared_key: &[u8; KEY_LEN],
        timestamp: &Timestamp,
    ) -> Result<(Self, [u8; NOISE_INITIATION_LEN]), HandshakeFailed> {
        let state = pattern
            .builder(known)
            .local_private_key(local.as_bytes())?
            .remote_public_key(&remote.0)?
            .psk(PSK_PLACE, preshared_key)?
            .prologue(&pattern.prologue)?
            .build_initiator()?;
        let mut state = Wiped::new(pattern, state);
        let mut message = [0; NOISE_INITIATION_LEN];
        let length = state.handshake.write_message(timestamp, &mut message)?;
        if length == NOISE_INITIATION_LEN {
            Ok((Self(state), message))
        } else {
            Err(HandshakeFailed)
        }
    }

    /// Reads the response. A forged one leaves the state as it was: the true one may still come.
    pub(super) fn read_response(
        &mut self,
        message: &[u8],
    ) -> Result<TransportKeys, HandshakeFailed> {
        let mut nothing = [0; NOISE_RESPONSE_LEN];
        match self.0.handshake.read_message(message, &mut nothing)? {
            0 => Ok(self.0.keys()),
            _ => Err(HandshakeFailed),
        }
    }
}

/// A peer's initiation that has been read; the response is still to be written.
pub(super) struct Responder(Wiped);

/// What an initiation says.
pub(super) struct Call {
    /// Whose it is. Proven by the static-static agreement in the message.
    pub(super) from: PublicKey,
    /// When it was written, by its writer's clock; an initiation not newer than the last is a replay.
    pub(super) timestamp: Timestamp,
}

impl Responder {
    /// Reads an initiation.
    pub(super) fn read_initiation(
        pattern: &Pattern,
        (local, known): (&PrivateKey, Option<Known>),
        message: &[u8],
    ) -> Result<(Self, Call), HandshakeFailed> {
        let state = pattern
            .builder(known)
            .local_private_key(local.as_bytes())?
            .prologue(&pattern.prologue)?
            .build_responder()?;
        let mut state = Wiped::new(pattern, state);
        let mut timestamp = [0; TIMESTAMP_LEN];
        let length = state.handshake.read_message(message, &mut timestamp)?;
        let from = state
            .handshake
            .get_remote_static()
            .and_then(|key| key.try_into().ok())
            .map(PublicKey);
        match from {
            Some(from) if length == TIMESTAMP_LEN => Ok((Self(state), Call { from, timestamp })),
            _ => Err(HandshakeFailed),
        }
    }

    /// Writes the response, and gives the session's keys.
    pub(super) fn write_response(
        mut self,
        preshared_key: &[u8; KEY_LEN],
    ) -> Result<(TransportKeys, [u8; NOISE_RESPONSE_LEN]), HandshakeFailed> {
        let state = &mut self.0;
        state.handshake.set_psk(PSK_PLACE as usize, preshared_key)?;
        let mut message = [0; NOISE_RESPONSE_LEN];
        let length = state.handshake.write_message(&[], &mut message)?;
        if length == NOISE_RESPONSE_LEN {
            Ok((state.keys(), message))
        } else {
            Err(HandshakeFailed)
        }
    }
}

/// A handshake of snow's that is overwritten when it is dropped.
struct Wiped {
    handshake: Box<HandshakeState>,
    blank: NoiseParams,
}

impl Wiped {
    fn new(pattern: &Pattern, handshake: HandshakeState) -> Self {
        Self {
            handshake: Box::new(handshake),
            blank: pattern.blank.clone(),
        }
    }

    fn keys(&mut self) -> TransportKeys {
        let (initiator_to_responder, responder_to_initiator) =
            self.handshake.dangerously_get_raw_split();
        TransportKeys {
            initiator_to_responder,
            responder_to_initiator,
        }
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        let zeros = [0; KEY_LEN];
        let blank = Builder::with_resolver(self.blank.clone(), Box::new(Primitives::default()))
            .psk(PSK_PLACE, &zeros)
            .and_then(Builder::build_responder);
        if let Ok(blank) = blank {
            *self.handshake = blank;
            // Seen from outside, or the compiler may leave the overwriting out.
            black_box(&self.handshake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::noise::Agreed;
    use super::*;

    #[test]
    fn the_patterns_are_what_their_names_say() {
        let pattern = Pattern::new(0);
        assert_eq!(pattern.handshake, PATTERN.parse().unwrap());
        assert_eq!(pattern.blank, BLANK.parse().unwrap());
    }

    const PSK: [u8; 32] = [0x42; 32];
    const TIME: Timestamp = [7; TIMESTAMP_LEN];

    fn keys() -> (PrivateKey, PrivateKey) {
        (
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
        )
    }

    #[test]
    fn both_ends_derive_the_same_keys() {
        let pattern = Pattern::new(0);
        let (alice, bob) = keys();
        let (mut initiator, first) =
            Initiator::write_initiation(&pattern, (&alice, None), &bob.public_key(), &PSK, &TIME)
                .unwrap();
        let (responder, call) = Responder::read_initiation(&pattern, (&bob, None), &first).unwrap();
        assert_eq!(call.from, alice.public_key());
        assert_eq!(call.timestamp, TIME);
        let (theirs, second) = responder.write_response(&PSK).unwrap();
        let ours = initiator.read_response(&second).unwrap();
        assert_eq!(ours.initiator_to_responder, theirs.initiator_to_responder);
        assert_eq!(ours.responder_to_initiator, theirs.responder_to_initiator);
        assert_ne!(ours.initiator_to_responder, ours.responder_to_initiator);
    }

    /// What is known before spares arithmetic and changes nothing.
    #[test]
    fn both_ends_derive_the_same_keys_from_what_was_known_before() {
        let pattern = Pattern::new(0);
        let (alice, bob) = keys();
        let known = |own: &PrivateKey, other: &PrivateKey| {
            let (public, other) = (own.public_key().0, other.public_key().0);
            let agreed = Agreed::between(own.as_bytes(), &other);
            Some(Known { public, agreed })
        };
        let (mut initiator, first) = Initiator::write_initiation(
            &pattern,
            (&alice, known(&alice, &bob)),
            &bob.public_key(),
            &PSK,
            &TIME,
        )
        .unwrap();
        // The other end knows nothing.
        let (responder, call) = Responder::read_initiation(&pattern, (&bob, None), &first).unwrap();
        assert_eq!(call.from, alice.public_key());
        let (theirs, second) = responder.write_response(&PSK).unwrap();
        let ours = initiator.read_response(&second).unwrap();
        assert_eq!(ours.initiator_to_responder, theirs.initiator_to_responder);
        let (_, first) =
            Initiator::write_initiation(&pattern, (&alice, None), &bob.public_key(), &PSK, &TIME)
                .unwrap();
        let known = known(&bob, &alice);
        assert!(Responder::read_initiation(&pattern, (&bob, known), &first).is_ok());
    }

    #[test]
    fn a_forged_response_does_not_end_the_handshake() {
        let pattern = Pattern::new(0);
        let (alice, bob) = keys();
        let (mut initiator, first) =
            Initiator::write_initiation(&pattern, (&alice, None), &bob.public_key(), &PSK, &TIME)
                .unwrap();
        let (responder, _) = Responder::read_initiation(&pattern, (&bob, None), &first).unwrap();
        let (_, second) = responder.write_response(&PSK).unwrap();
        for bit in (0..second.len() * 8).step_by(7) {
            let mut forged = second;
            forged[bit / 8] ^= 1 << (bit % 8);
            // The curve does not see the topmost bit of the ephemeral, but the transcript does.
            assert!(initiator.read_response(&forged).is_err(), "bit {bit}");
        }
        assert!(initiator.read_response(&second).is_ok());
    }

    #[test]
    fn an_initiation_of_one_lane_is_worth_nothing_on_another() {
        let (alice, bob) = keys();
        for lane in [0, 1, 2] {
            let own = Pattern::new(lane);
            let (_, first) =
                Initiator::write_initiation(&own, (&alice, None), &bob.public_key(), &PSK, &TIME)
                    .unwrap();
            for other in [0, 1, 2] {
                let read = Responder::read_initiation(&Pattern::new(other), (&bob, None), &first);
                assert_eq!(read.is_ok(), lane == other, "{lane} read by {other}");
            }
        }
    }

    #[test]
    fn another_preshared_key_ends_in_failure() {
        let pattern = Pattern::new(0);
        let (alice, bob) = keys();
        let (mut initiator, first) =
            Initiator::write_initiation(&pattern, (&alice, None), &bob.public_key(), &PSK, &TIME)
                .unwrap();
        let (responder, _) = Responder::read_initiation(&pattern, (&bob, None), &first).unwrap();
        let (_, second) = responder.write_response(&[0; 32]).unwrap();
        assert!(initiator.read_response(&second).is_err());
    }

    #[test]
    fn every_bit_of_an_initiation_counts() {
        let pattern = Pattern::new(0);
        let (alice, bob) = keys();
        let (_, first) =
            Initiator::write_initiation(&pattern, (&alice, None), &bob.public_key(), &PSK, &TIME)
                .unwrap();
        for bit in (0..first.len() * 8).step_by(7) {
            let mut forged = first;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(
                Responder::read_initiation(&pattern, (&bob, None), &forged).is_err(),
                "bit {bit}"
            );
        }
    }
}
