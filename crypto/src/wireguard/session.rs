//! One session: two keys, two counters, and what is done to every packet.

use super::message::{self, TAG_LEN, Train};
use super::replay::Replay;
use super::timer::{
    REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES, REKEY_AFTER_TIME,
    REKEY_BEFORE_THE_END, REKEY_ON_RECEIVE_TIME,
};
use crate::key::KEY_LEN;
use crate::tunnel::Refusal;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use std::hint::black_box;
use std::time::Instant;

/// What both ends agreed on, from our side.
pub(super) struct Session {
    /// What the peer writes into its data messages.
    pub(super) local_index: u32,
    /// What we write into ours.
    remote_index: u32,
    sending: SessionKey,
    receiving: SessionKey,
    /// The counter of the next packet; never repeats, or the cipher is broken.
    counter: u64,
    replay: Replay,
    /// When the keys were derived.
    pub(super) established: Instant,
    /// When it ends.
    pub(super) expiry: Instant,
    /// Whether we began it.
    initiator: bool,
    /// When it is to be renewed: it is the initiator who does that. `None`: we are not.
    renewal: Option<Renewal>,
}

/// The age limits of a session as moments, so that a packet costs a comparison.
#[derive(Clone, Copy)]
struct Renewal {
    after_sending: Instant,
    after_receiving: Instant,
}

/// Which end of a handshake we were, with its keys.
pub(super) struct Agreement<'a> {
    pub(super) local_index: u32,
    pub(super) remote_index: u32,
    pub(super) sending: &'a [u8; KEY_LEN],
    pub(super) receiving: &'a [u8; KEY_LEN],
    pub(super) initiator: bool,
}

impl Session {
    /// `None` only if the cipher refuses a key of the right length.
    pub(super) fn new(now: Instant, agreement: &Agreement<'_>) -> Option<Box<Self>> {
        Some(Box::new(Self {
            local_index: agreement.local_index,
            remote_index: agreement.remote_index,
            sending: SessionKey::new(agreement.sending)?,
            receiving: SessionKey::new(agreement.receiving)?,
            counter: 0,
            replay: Replay::new(),
            established: now,
            expiry: now + REJECT_AFTER_TIME,
            initiator: agreement.initiator,
            renewal: agreement.initiator.then(|| Renewal {
                after_sending: now + REKEY_AFTER_TIME,
                after_receiving: now + REKEY_ON_RECEIVE_TIME,
            }),
        }))
    }

    /// Whether we began it.
    pub(super) fn is_ours(&self) -> bool {
        self.initiator
    }

    /// Renew it though the peer began it, should the peer not have done so shortly before it ends.
    pub(super) fn renew_before_the_end(&mut self) {
        let late = self.established + REKEY_BEFORE_THE_END;
        self.renewal = Some(Renewal {
            after_sending: late,
            after_receiving: late,
        });
    }

    #[inline]
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        now >= self.expiry
    }

    /// Whether `packets` more can be sealed now.
    #[inline]
    pub(super) fn can_seal(&self, now: Instant, packets: usize) -> bool {
        !self.is_expired(now)
            && REJECT_AFTER_MESSAGES.saturating_sub(self.counter) >= packets as u64
    }

    /// Whether it is to be renewed, now that something was sent.
    #[inline]
    pub(super) fn wants_renewal_after_sending(&self, now: Instant) -> bool {
        self.counter >= REKEY_AFTER_MESSAGES
            || self
                .renewal
                .is_some_and(|renewal| now >= renewal.after_sending)
    }

    /// Whether it is to be renewed, now that something was received.
    #[inline]
    pub(super) fn wants_renewal_after_receiving(&self, now: Instant) -> bool {
        self.renewal
            .is_some_and(|renewal| now >= renewal.after_receiving)
    }

    /// Seals every slot in place. [`Session::can_seal`] says whether that many packets are left.
    #[inline]
    pub(super) fn seal_train(&mut self, train: &mut Train) {
        for slot in train.slots_mut() {
            self.seal(slot);
        }
    }

    /// Seals one slot in place: header room, padded packet, tag room.
    #[inline]
    pub(super) fn seal(&mut self, slot: &mut [u8]) {
        let Some((header, body)) = slot.split_first_chunk_mut() else {
            return;
        };
        let Some((packet, tag_room)) = body.split_last_chunk_mut::<TAG_LEN>() else {
            return;
        };
        let counter = self.counter;
        self.counter = counter.wrapping_add(1);
        message::write_data_header(header, self.remote_index, counter);
        match self
            .sending
            .0
            .seal_in_place_separate_tag(nonce(counter), Aad::empty(), packet)
        {
            Ok(tag) => tag_room.copy_from_slice(tag.as_ref()),
            // Only beyond 256 GB. What was not sealed must not go out in the clear.
            Err(_) => packet.fill(0),
        }
    }

    /// Opens a data message in place and gives the packet with its padding. A counter is used up only by
    /// a message that authenticates.
    #[inline]
    pub(super) fn open<'a>(
        &mut self,
        counter: u64,
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], Refusal> {
        if counter >= REJECT_AFTER_MESSAGES || !self.replay.accepts(counter) {
            return Err(Refusal::Replay);
        }
        let packet = self
            .receiving
            .0
            .open_in_place(nonce(counter), Aad::empty(), sealed)
            .map_err(|_| Refusal::Authentication)?;
        self.replay.mark(counter);
        Ok(packet)
    }
}

/// The nonce of a data message: 4 zeros and the counter (whitepaper, 5.4.6).
#[inline]
fn nonce(counter: u64) -> Nonce {
    let [c0, c1, c2, c3, c4, c5, c6, c7] = counter.to_le_bytes();
    Nonce::assume_unique_for_key([0, 0, 0, 0, c0, c1, c2, c3, c4, c5, c6, c7])
}

/// A key of ring's that is overwritten when it is dropped; ring itself does not.
struct SessionKey(LessSafeKey);

impl SessionKey {
    fn new(key: &[u8; KEY_LEN]) -> Option<Self> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).ok()?;
        Some(Self(LessSafeKey::new(key)))
    }
}

impl Drop for SessionKey {
    fn drop(&mut self) {
        if let Ok(zeros) = UnboundKey::new(&CHACHA20_POLY1305, &[0; KEY_LEN]) {
            self.0 = LessSafeKey::new(zeros);
            // Seen from outside, or the compiler may leave the overwriting out.
            black_box(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn pair(now: Instant) -> (Box<Session>, Box<Session>) {
        let keys = [[1; KEY_LEN], [2; KEY_LEN]];
        let ours = Agreement {
            local_index: 10,
            remote_index: 20,
            sending: &keys[0],
            receiving: &keys[1],
            initiator: true,
        };
        let theirs = Agreement {
            local_index: 20,
            remote_index: 10,
            sending: &keys[1],
            receiving: &keys[0],
            initiator: false,
        };
        (
            Session::new(now, &ours).unwrap(),
            Session::new(now, &theirs).unwrap(),
        )
    }

    fn sealed(session: &mut Session, packet: &[u8]) -> Vec<u8> {
        let mut slot = [&[0; 16], packet, &[0; 16]].concat();
        session.seal(&mut slot);
        slot
    }

    fn open(session: &mut Session, datagram: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut datagram = datagram.to_vec();
        let (_, counter, body) = message::split_data(&mut datagram).unwrap();
        session.open(counter, body).map(|packet| packet.to_vec())
    }

    #[test]
    fn a_packet_comes_out_once_and_only_whole() {
        let (mut ours, mut theirs) = pair(Instant::now());
        let datagram = sealed(&mut ours, b"one packet, sixteen");
        assert_eq!(message::receiver_index(&datagram), Some(20));
        for bit in 64..datagram.len() * 8 {
            let mut forged = datagram.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&mut theirs, &forged).is_err(), "bit {bit}");
        }
        assert_eq!(
            open(&mut theirs, &datagram).unwrap(),
            b"one packet, sixteen"
        );
        assert_eq!(open(&mut theirs, &datagram), Err(Refusal::Replay));
    }

    #[test]
    fn a_forgery_does_not_move_the_window() {
        let (mut ours, mut theirs) = pair(Instant::now());
        let datagram = sealed(&mut ours, b"");
        let mut forged = datagram.clone();
        forged[8..16].copy_from_slice(&1_000_000_u64.to_le_bytes());
        assert_eq!(open(&mut theirs, &forged), Err(Refusal::Authentication));
        assert_eq!(open(&mut theirs, &datagram), Ok(vec![]));
    }

    #[test]
    fn counters_end_before_they_wrap() {
        let now = Instant::now();
        let (mut ours, mut theirs) = pair(now);
        assert!(!ours.wants_renewal_after_sending(now));
        ours.counter = REKEY_AFTER_MESSAGES;
        assert!(ours.wants_renewal_after_sending(now));
        ours.counter = REJECT_AFTER_MESSAGES - 2;
        assert!(ours.can_seal(now, 2));
        assert!(!ours.can_seal(now, 3));
        assert!(open(&mut theirs, &sealed(&mut ours, b"")).is_ok());
        assert!(open(&mut theirs, &sealed(&mut ours, b"")).is_ok());
        assert!(!ours.can_seal(now, 1));
        assert_eq!(
            open(&mut theirs, &sealed(&mut ours, b"")),
            Err(Refusal::Replay)
        );
    }

    #[test]
    fn only_the_initiator_renews_by_age() {
        let now = Instant::now();
        let (ours, theirs) = pair(now);
        let at = |seconds| now + Duration::from_secs(seconds);
        assert!(!ours.wants_renewal_after_sending(at(119)));
        assert!(ours.wants_renewal_after_sending(at(120)));
        assert!(!theirs.wants_renewal_after_sending(at(179)));
        assert!(!ours.wants_renewal_after_receiving(at(164)));
        assert!(ours.wants_renewal_after_receiving(at(165)));
        assert!(ours.can_seal(at(179), 1));
        assert!(!ours.can_seal(at(180), 1));
    }
}
