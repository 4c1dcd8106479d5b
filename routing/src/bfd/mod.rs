//! Bidirectional Forwarding Detection: whether the far side of a path still forwards, in milliseconds.
//!
//! - [`packet`]: the control packet of RFC 5880, section 4: 24 bytes, or 52 with a keyed SHA1 section.
//! - [`authentication`]: signing and checking that section (RFC 5880, section 6.7.4).
//! - [`session`]: the state machine of one session, with its timers (RFC 5880, section 6.8).
//! - [`demultiplexer`]: which session a packet is for (RFC 5880, section 6.3; RFC 5881, section 3).
//!
//! Nothing here has a socket, a clock or randomness of its own: a driver hands in packets, the time and a
//! random number, and sleeps until [`session::BfdSession::deadline`]. The mode is asynchronous; the echo function and
//! the demand mode are not offered, and a peer that asks for demand mode gets what RFC 5880 says it must.

pub mod authentication;
pub mod demultiplexer;
pub mod packet;
pub mod session;
