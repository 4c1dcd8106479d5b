//! WireGuard (<https://www.wireguard.com/papers/wireguard.pdf>), made for the packet path: the Noise
//! handshake is snow's, everything else is here. One [`Endpoint`] per worker, `&mut self`, no lock.
//!
//! A packet's way out, in trains:
//! 1. `endpoint`: the peer by its number.
//! 2. `keyring`: its session in use; none: `remote` sends an initiation and the packets wait outside.
//! 3. `session`: for each slot header, counter, seal in place.
//! 4. `timer`: an answer must come; after 120 s the initiator renews the session. `schedule`: whose is due.
//!
//! A datagram's way in:
//! 1. `message`: its kind, by type and exact length.
//! 2. `index`: data: the receiver index gives the peer, by one array access.
//! 3. `keyring`, `replay`, `session`: the session, the window, open in place, the window again.
//! 4. `remote`: the session's turn, then the peer's address, then the timers.
//!
//! A handshake message meets `mac` first, then the limiter, then `handshake` on snow with the
//! primitives of `noise` and the clock of `timestamp`. `local` is what all peers share.

mod endpoint;
mod handshake;
mod index;
mod keyring;
mod local;
mod mac;
mod message;
mod noise;
mod remote;
mod replay;
mod schedule;
mod session;
mod timer;
mod timestamp;

pub use endpoint::Endpoint;
pub use index::worker_of;
pub use message::{
    COOKIE_REPLY_LEN, DATA_HEADER_LEN, DATA_OVERHEAD, DataMessage, INITIATION_LEN, PADDING,
    RESPONSE_LEN, TAG_LEN, Train, receiver_index,
};
pub use timer::{
    CALL_INTERVAL, COOKIE_USE_TIME, DEAF_TIMEOUT, KEEPALIVE_TIMEOUT, MAX_JITTER,
    REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES, REKEY_AFTER_TIME,
    REKEY_ATTEMPT_TIME, REKEY_ON_RECEIVE_TIME, REKEY_TIMEOUT,
};
pub use timestamp::WallClock;
