//! Encrypted tunnels as pure state machines: no sockets, no clock, no unsafe code. Input comes in by
//! calls, output goes out by calls, `now` is an argument.
//!
//! In the order in which a packet meets them:
//! - [`key`]: X25519 keys and their text form.
//! - [`limiter`]: who may make us do the costly part of a handshake.
//! - [`train`]: the slot layout of a train of datagrams that is sealed in place and sent by one system call.
//! - [`tunnel`]: the seam: what the gateway asks of an engine that seals, opens and shakes hands.
//! - [`wireguard`]: the engine: WireGuard, with the handshake on snow and the packets on ring.
//! - `boringtun`: a second engine on the boringtun crate, behind the feature of that name, for comparison.

#[cfg(feature = "boringtun")]
pub mod boringtun;
pub mod key;
mod keyed_hash;
pub mod limiter;
pub mod train;
pub mod tunnel;
pub mod wireguard;
