//! Handshakes, behind data: screened as they come, and read a few at the end of each round.

use super::Tunnels;
use super::arrival::reason_of;
use super::outbox::Outbox;
use crate::device::sink::TrainSink;
use crypto::tunnel::{Call, Endpoint, Received};
use crypto::wireguard::INITIATION_LEN;
use routing::reason::DropReason;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Messages of handshakes that wait for the end of a round.
const MAX_HANDSHAKES: usize = 64;
/// How many of them a round has time for: half a millisecond.
const HANDSHAKES: usize = 2;
/// How many messages of handshakes are looked at in a round; and how many of them while more comes in than is
/// read, so that what is too much is thrown away at the least cost.
const SCREENED: usize = 64;
const SCREENED_BEHIND: usize = 4;
/// A handshake that waits for the end of the round.
enum Handshake {
    /// A message that has been let in.
    Message {
        source: SocketAddr,
        /// The address of this machine that it was sent to.
        local: Option<IpAddr>,
        bytes: [u8; INITIATION_LEN],
        length: usize,
    },
    /// A call that another worker has read.
    Call {
        call: Call,
        local: Option<IpAddr>,
        length: u64,
    },
}

impl Handshake {
    fn local(&self) -> Option<IpAddr> {
        match self {
            Self::Message { local, .. } | Self::Call { local, .. } => *local,
        }
    }
}

/// Those that wait, and how many more are looked at.
pub(super) struct Handshakes {
    waiting: VecDeque<Handshake>,
    /// Since when there has been one.
    since: Option<Instant>,
    /// Messages that may still be looked at in this round.
    screens: usize,
    /// More has come in than was read, for some rounds now.
    behind: bool,
    /// Calls for other workers, with the address that they were sent to and the length of their datagrams.
    foreign: VecDeque<(Call, Option<IpAddr>, u64)>,
}

impl Default for Handshakes {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            since: None,
            screens: SCREENED,
            behind: false,
            foreign: VecDeque::new(),
        }
    }
}

impl Handshakes {
    /// When the end of a round is wanted: at once, if some wait.
    #[inline]
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    fn keep(&mut self, now: Instant, handshake: Handshake) -> Result<(), DropReason> {
        if self.waiting.len() >= MAX_HANDSHAKES {
            return Err(DropReason::TunnelHandshakeRate);
        }
        self.waiting.push_back(handshake);
        self.since.get_or_insert(now);
        Ok(())
    }
}

impl<E: Endpoint, U: TrainSink> Tunnels<E, U> {
    /// Says whether more comes in than is read. Data that waits in the socket behind a flood of handshakes is
    /// reached the sooner the less each of them costs.
    #[inline]
    pub fn set_behind(&mut self, behind: bool) {
        self.handshakes.behind = behind;
    }

    /// Does what is cheap about a message of a handshake, and keeps it for the end of the round if it is let in.
    pub(super) fn screen(
        &mut self,
        now: Instant,
        (source, local): (SocketAddr, Option<IpAddr>),
        datagram: &[u8],
    ) {
        let Some(left) = self.handshakes.screens.checked_sub(1) else {
            self.refuse(DropReason::TunnelHandshakeRate, datagram.len() as u64);
            return;
        };
        self.handshakes.screens = left;
        let Self {
            endpoint,
            underlay,
            sites,
            ledger,
            ..
        } = self;
        let mut out = Outbox {
            underlay,
            sites,
            ledger,
            local,
        };
        let mut bytes = [0; INITIATION_LEN];
        let length = datagram.len();
        let kept = match endpoint.screen(now, source, datagram, &mut out) {
            Err(refusal) => Err(reason_of(refusal)),
            Ok(()) => match bytes.get_mut(..length) {
                None => Err(DropReason::TunnelMalformed),
                Some(room) => {
                    room.copy_from_slice(datagram);
                    let message = Handshake::Message {
                        source,
                        local,
                        bytes,
                        length,
                    };
                    self.handshakes.keep(now, message)
                }
            },
        };
        if let Err(reason) = kept {
            self.refuse(reason, length as u64);
        }
    }

    /// Takes a call that another worker has read; false if there are too many.
    pub fn take_call(
        &mut self,
        now: Instant,
        call: Call,
        local: Option<IpAddr>,
        length: u64,
    ) -> bool {
        let call = Handshake::Call {
            call,
            local,
            length,
        };
        self.handshakes.keep(now, call).is_ok()
    }

    /// The next call of nobody who is known here, the address that it was sent to, and the length of its
    /// datagram, which is not booked: for the next worker.
    #[inline]
    pub fn take_foreign(&mut self) -> Option<(Call, Option<IpAddr>, u64)> {
        self.handshakes.foreign.pop_front()
    }

    /// At the end of a round: a few of the handshakes that wait.
    #[inline]
    pub(super) fn shake_hands(&mut self, now: Instant) {
        self.handshakes.screens = if self.handshakes.behind {
            SCREENED_BEHIND
        } else {
            SCREENED
        };
        if self.handshakes.since.is_some() {
            self.shake_some(now);
        }
    }

    #[cold]
    fn shake_some(&mut self, now: Instant) {
        for _ in 0..HANDSHAKES {
            let Some(handshake) = self.handshakes.waiting.pop_front() else {
                break;
            };
            let Self {
                endpoint,
                underlay,
                sites,
                ledger,
                ..
            } = self;
            let local = handshake.local();
            let mut out = Outbox {
                underlay,
                sites,
                ledger,
                local,
            };
            match handshake {
                Handshake::Message {
                    source,
                    mut bytes,
                    length,
                    ..
                } => {
                    let datagram = bytes.get_mut(..length).unwrap_or_default();
                    let received = endpoint.shake_hands(now, source, datagram, &mut out);
                    self.conclude(now, received, (local, length as u64));
                }
                Handshake::Call { call, length, .. } => {
                    let received = endpoint.answer(now, call, &mut out);
                    self.conclude(now, received, (local, length));
                }
            }
        }
        // What is left has waited for this round already.
        if self.handshakes.waiting.is_empty() {
            self.handshakes.since = None;
        }
    }

    fn conclude(
        &mut self,
        now: Instant,
        received: Received<'_>,
        (local, length): (Option<IpAddr>, u64),
    ) {
        match received {
            Received::Foreign(call) if !self.is_last => {
                self.handshakes.foreign.push_back((call, local, length));
            }
            other => self.settle(now, &other, length),
        }
    }

    /// Drops those that still wait.
    pub(super) fn drop_handshakes(&mut self) {
        for handshake in std::mem::take(&mut self.handshakes.waiting) {
            let length = match handshake {
                Handshake::Message { length, .. } => length as u64,
                Handshake::Call { length, .. } => length,
            };
            self.refuse(DropReason::Shutdown, length);
        }
        for (_, _, length) in std::mem::take(&mut self.handshakes.foreign) {
            self.refuse(DropReason::Shutdown, length);
        }
    }
}

#[cfg(test)]
mod tests;
