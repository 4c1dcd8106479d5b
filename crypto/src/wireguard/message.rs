//! All of WireGuard's wire formats and limits in one place (whitepaper, 5.4 and 6.1). All integers are
//! little endian.
//!
//! ```text
//! 1 initiation  | type 4 | sender 4 | Noise message 1: 108           | mac1 16 | mac2 16 |   148
//! 2 response    | type 4 | sender 4 | receiver 4 | Noise message 2: 48 | mac1 16 | mac2 16 |    92
//! 3 cookie      | type 4 | receiver 4 | nonce 24 | cookie 16 + tag 16 |                         64
//! 4 data        | type 4 | receiver 4 | counter 8 | packet, padded     | tag 16 |               >= 32
//! ```
//! The type is one byte and three reserved zeros, read here as one word.

use crate::train::{self, Layout};

/// Length of an initiation in bytes.
pub const INITIATION_LEN: usize = 148;
/// Length of a response in bytes.
pub const RESPONSE_LEN: usize = 92;
/// Length of a cookie reply in bytes.
pub const COOKIE_REPLY_LEN: usize = 64;
/// Bytes in front of the packet of a data message: type, receiver index and counter.
pub const DATA_HEADER_LEN: usize = 16;
/// Bytes behind it: the Poly1305 tag.
pub const TAG_LEN: usize = 16;
/// Length of a data message without its packet, and so of a keepalive, in bytes.
pub const DATA_OVERHEAD: usize = DATA_HEADER_LEN + TAG_LEN;
/// Packets are padded to a multiple of this (5.4.6), though never beyond the MTU.
pub const PADDING: usize = 16;

/// The layout of data messages.
#[derive(Clone, Copy, Debug)]
pub struct DataMessage;

impl Layout for DataMessage {
    const HEADER: usize = DATA_HEADER_LEN;
    const TAIL: usize = TAG_LEN;

    #[inline]
    fn sealed(len: usize, mtu: usize) -> usize {
        let aligned = len.next_multiple_of(PADDING);
        if aligned <= mtu {
            aligned
        } else if len < mtu {
            mtu
        } else {
            len
        }
    }
}

/// A train of data messages.
pub type Train = train::Train<DataMessage>;

/// Noise message 1: ephemeral 32, static 32 + 16, timestamp 12 + 16.
pub(super) const NOISE_INITIATION_LEN: usize = 108;
/// Noise message 2: ephemeral 32, empty payload 0 + 16.
pub(super) const NOISE_RESPONSE_LEN: usize = 48;
/// Length of mac1, of mac2 and of a cookie.
pub(super) const MAC_LEN: usize = 16;

/// Length of the nonce of a cookie reply.
pub(super) const COOKIE_NONCE_LEN: usize = 24;

const INITIATION: u32 = 1;
const RESPONSE: u32 = 2;
const COOKIE_REPLY: u32 = 3;
const DATA: u32 = 4;

/// Which of the four messages a datagram is, by its type and exact length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Initiation,
    Response,
    CookieReply,
    Data,
}

/// The kind of a datagram; `None` if it is no message of WireGuard's.
#[inline]
pub(super) fn kind(datagram: &[u8]) -> Option<Kind> {
    let (word, _) = datagram.split_first_chunk()?;
    match (u32::from_le_bytes(*word), datagram.len()) {
        (DATA, DATA_OVERHEAD..) => Some(Kind::Data),
        (INITIATION, INITIATION_LEN) => Some(Kind::Initiation),
        (RESPONSE, RESPONSE_LEN) => Some(Kind::Response),
        (COOKIE_REPLY, COOKIE_REPLY_LEN) => Some(Kind::CookieReply),
        _ => None,
    }
}

/// The receiver index of a datagram: it says which session, and so which worker, the datagram is for.
/// `None` for an initiation, which has none, and for what is no message.
#[inline]
pub fn receiver_index(datagram: &[u8]) -> Option<u32> {
    let at = match kind(datagram)? {
        Kind::Initiation => return None,
        Kind::Response => 8,
        Kind::CookieReply | Kind::Data => 4,
    };
    word_at(datagram, at)
}

/// The sender's index in messages 1 and 2.
pub(super) fn sender_index(datagram: &[u8]) -> Option<u32> {
    word_at(datagram, 4)
}

fn word_at(datagram: &[u8], at: usize) -> Option<u32> {
    let (word, _) = datagram.get(at..)?.split_first_chunk()?;
    Some(u32::from_le_bytes(*word))
}

/// Receiver index and counter of a data message, and its ciphertext with tag.
#[inline]
pub(super) fn split_data(datagram: &mut [u8]) -> Option<(u32, u64, &mut [u8])> {
    let (header, sealed) = datagram.split_first_chunk_mut::<DATA_HEADER_LEN>()?;
    let [_, _, _, _, i0, i1, i2, i3, counter @ ..] = *header;
    Some((
        u32::from_le_bytes([i0, i1, i2, i3]),
        u64::from_le_bytes(counter),
        sealed,
    ))
}

/// Writes the header of a data message.
#[inline]
pub(super) fn write_data_header(header: &mut [u8; DATA_HEADER_LEN], receiver: u32, counter: u64) {
    let [r0, r1, r2, r3] = receiver.to_le_bytes();
    let [c0, c1, c2, c3, c4, c5, c6, c7] = counter.to_le_bytes();
    *header = [
        DATA as u8, 0, 0, 0, r0, r1, r2, r3, c0, c1, c2, c3, c4, c5, c6, c7,
    ];
}

/// Noise message 1 in an initiation.
pub(super) fn noise_of_initiation(datagram: &[u8]) -> Option<&[u8]> {
    datagram.get(8..8 + NOISE_INITIATION_LEN)
}

/// Noise message 2 in a response.
pub(super) fn noise_of_response(datagram: &[u8]) -> Option<&[u8]> {
    datagram.get(12..12 + NOISE_RESPONSE_LEN)
}

/// An initiation around its Noise message; the macs are zero and still to be written.
pub(super) fn initiation(sender: u32, noise: &[u8; NOISE_INITIATION_LEN]) -> [u8; INITIATION_LEN] {
    join([
        &INITIATION.to_le_bytes(),
        &sender.to_le_bytes(),
        noise.as_slice(),
    ])
}

/// A response around its Noise message; the macs are zero and still to be written.
pub(super) fn response(
    sender: u32,
    receiver: u32,
    noise: &[u8; NOISE_RESPONSE_LEN],
) -> [u8; RESPONSE_LEN] {
    join([
        &RESPONSE.to_le_bytes(),
        &sender.to_le_bytes(),
        &receiver.to_le_bytes(),
        noise.as_slice(),
    ])
}

/// A cookie reply.
pub(super) fn cookie_reply(
    receiver: u32,
    nonce: &[u8; COOKIE_NONCE_LEN],
    sealed: &[u8; 2 * MAC_LEN],
) -> [u8; COOKIE_REPLY_LEN] {
    join([
        &COOKIE_REPLY.to_le_bytes(),
        &receiver.to_le_bytes(),
        nonce.as_slice(),
        sealed.as_slice(),
    ])
}

/// Nonce and sealed cookie of a cookie reply.
pub(super) fn split_cookie_reply(
    datagram: &[u8],
) -> Option<(&[u8; COOKIE_NONCE_LEN], &[u8; 2 * MAC_LEN])> {
    let (nonce, sealed) = datagram.get(8..)?.split_first_chunk()?;
    Some((nonce, sealed.first_chunk()?))
}

/// What stands in front of both macs, in front of mac2, and the macs themselves, of message 1 or 2.
pub(super) struct Macs<'a> {
    /// What mac1 covers.
    pub(super) body: &'a [u8],
    /// What mac2 covers: the body and mac1.
    pub(super) body_and_mac1: &'a [u8],
    pub(super) mac1: &'a [u8; MAC_LEN],
    pub(super) mac2: &'a [u8; MAC_LEN],
}

/// The macs at the end of message 1 or 2.
pub(super) fn macs(datagram: &[u8]) -> Option<Macs<'_>> {
    let (body_and_mac1, mac2) = datagram.split_last_chunk()?;
    let (body, mac1) = body_and_mac1.split_last_chunk()?;
    Some(Macs {
        body,
        body_and_mac1,
        mac1,
        mac2,
    })
}

/// The parts behind one another; what is left of `N` bytes stays zero.
fn join<const N: usize, const PARTS: usize>(parts: [&[u8]; PARTS]) -> [u8; N] {
    let mut message = [0; N];
    let bytes = parts.into_iter().flatten();
    message
        .iter_mut()
        .zip(bytes)
        .for_each(|(to, from)| *to = *from);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_stops_at_the_mtu() {
        let lengths = [(0, 0), (1, 16), (1408, 1408), (1419, 1420), (1420, 1420)];
        for (len, sealed) in lengths.into_iter().chain([(1500, 1500)]) {
            assert_eq!(DataMessage::sealed(len, 1420), sealed, "{len}");
        }
    }

    #[test]
    fn the_lengths_add_up() {
        assert_eq!(8 + NOISE_INITIATION_LEN + 2 * MAC_LEN, INITIATION_LEN);
        assert_eq!(12 + NOISE_RESPONSE_LEN + 2 * MAC_LEN, RESPONSE_LEN);
        assert_eq!(8 + COOKIE_NONCE_LEN + 2 * MAC_LEN, COOKIE_REPLY_LEN);
        assert_eq!(DATA_OVERHEAD, 32);
    }

    #[test]
    fn a_message_is_known_by_its_type_and_its_exact_length() {
        let of = |word: u32, len: usize| {
            let mut datagram = vec![0; len];
            datagram[..4].copy_from_slice(&word.to_le_bytes());
            kind(&datagram)
        };
        assert_eq!(of(1, 148), Some(Kind::Initiation));
        assert_eq!(of(2, 92), Some(Kind::Response));
        assert_eq!(of(3, 64), Some(Kind::CookieReply));
        assert_eq!(of(4, 32), Some(Kind::Data));
        assert_eq!(of(4, 1452), Some(Kind::Data));
        for (word, len) in [
            (0, 148),
            (1, 147),
            (1, 149),
            (2, 148),
            (3, 65),
            (4, 31),
            (5, 64),
            (0x0100_0004, 64),
        ] {
            assert_eq!(of(word, len), None, "type {word:#x}, {len} bytes");
        }
        assert_eq!(kind(&[4, 0, 0]), None);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let message = initiation(0x0102_0304, &[9; NOISE_INITIATION_LEN]);
        assert_eq!(message[..8], [1, 0, 0, 0, 4, 3, 2, 1]);
        assert_eq!(sender_index(&message), Some(0x0102_0304));
        assert_eq!(receiver_index(&message), None);
        assert_eq!(noise_of_initiation(&message), Some([9; 108].as_slice()));
        assert_eq!(macs(&message).unwrap().body.len(), 116);

        let message = response(5, 0xa000_0006, &[8; NOISE_RESPONSE_LEN]);
        assert_eq!(sender_index(&message), Some(5));
        assert_eq!(receiver_index(&message), Some(0xa000_0006));
        assert_eq!(noise_of_response(&message), Some([8; 48].as_slice()));
        assert_eq!(macs(&message).unwrap().body_and_mac1.len(), 76);

        let message = cookie_reply(7, &[1; 24], &[2; 32]);
        assert_eq!(receiver_index(&message), Some(7));
        assert_eq!(split_cookie_reply(&message), Some((&[1; 24], &[2; 32])));

        let mut message = [0; 40];
        write_data_header(message.first_chunk_mut().unwrap(), 0x0a0b_0c0d, 0x1122_3344);
        assert_eq!(receiver_index(&message), Some(0x0a0b_0c0d));
        let (receiver, counter, sealed) = split_data(&mut message).unwrap();
        assert_eq!(
            (receiver, counter, sealed.len()),
            (0x0a0b_0c0d, 0x1122_3344, 24)
        );
    }
}
