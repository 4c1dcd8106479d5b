//! What is remembered of the way to one peer.

use super::switch::TrainSwitch;
use std::cell::Cell;
use std::net::IpAddr;

/// The way to one peer: the local address that its datagrams come to, and how long a datagram may be.
///
/// One thread uses it, so the cells cost nothing, and a train can be sent through a shared reference.
#[derive(Debug)]
pub struct PeerPath {
    local: Cell<Option<IpAddr>>,
    /// Handshakes asked for since the peer was last heard.
    asked: Cell<u8>,
    /// The longest datagram that is not known to be cut on its way, bytes of UDP payload.
    longest: Cell<usize>,
    /// Whether trains of longer ones are tried again.
    switch: TrainSwitch,
}

impl Default for PeerPath {
    fn default() -> Self {
        Self {
            local: Cell::new(None),
            asked: Cell::new(0),
            longest: Cell::new(usize::MAX),
            switch: TrainSwitch::default(),
        }
    }
}

impl PeerPath {
    /// A way that is known by a datagram that came to this local address.
    pub fn from(local: Option<IpAddr>) -> Self {
        Self {
            local: Cell::new(local),
            ..Self::default()
        }
    }

    /// The local address that datagrams leave from; `None`: the one that the route gives.
    #[inline]
    pub fn local(&self) -> Option<IpAddr> {
        self.local.get()
    }

    /// An authenticated datagram of the peer came to this address. Elsewhere than before, nothing else that is
    /// known of the way holds any more.
    #[inline]
    pub fn heard_at(&self, local: Option<IpAddr>) {
        self.asked.set(0);
        if local.is_some() && local != self.local.get() {
            self.forget();
            self.local.set(local);
        }
    }

    /// A handshake is asked for. A second one that nothing was heard between leaves by whatever address the route
    /// gives: the uplink of the old one may have failed (kernel WireGuard does the same).
    pub fn asks(&self) {
        let asked = self.asked.get().saturating_add(1);
        self.asked.set(asked);
        if asked > 1 {
            self.local.set(None);
        }
    }

    /// The address is not this machine's any more.
    pub(super) fn forget_local(&self) {
        self.local.set(None);
    }

    /// Forgets everything: the peer is somewhere else.
    pub fn forget(&self) {
        self.local.set(None);
        self.longest.set(usize::MAX);
        self.switch.reset();
    }

    /// The longest UDP payload that goes whole, as the route says; `usize::MAX`: any.
    pub fn set_longest(&self, longest: usize) {
        self.longest.set(longest);
    }

    /// Whether datagrams of this length are known to be cut on their way.
    #[inline]
    pub fn is_cut(&self, len: usize) -> bool {
        len > self.longest.get()
    }

    /// Whether a train of datagrams of this length is worth trying.
    #[inline]
    pub(super) fn takes_train(&self, stride: usize) -> bool {
        !self.is_cut(stride) || self.switch.ask()
    }

    /// The kernel would not cut a train of these datagrams, and has taken them one by one: they are too long
    /// for the route to go whole.
    pub(super) fn refused(&self, stride: usize) {
        let longest = stride.saturating_sub(1);
        self.longest.set(self.longest.get().min(longest));
        self.switch.refused();
    }

    /// The kernel has taken a train of these datagrams: they go whole.
    #[inline]
    pub(super) fn taken(&self, stride: usize) {
        if self.is_cut(stride) {
            self.longest.set(usize::MAX);
            self.switch.taken();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_holds_for_trains_of_that_length_and_ends_when_one_is_taken() {
        let path = PeerPath::default();
        assert!(path.takes_train(1_452) && !path.is_cut(1_452));
        path.refused(1_452);
        assert!(path.is_cut(1_452) && !path.takes_train(1_452));
        assert!(!path.is_cut(1_451) && path.takes_train(1_000));
        // Tried again after a while, and then for good.
        let tries = (0..100).filter(|_| path.takes_train(1_452)).count();
        assert_eq!(tries, 37, "63 pauses are left of 64");
        path.taken(1_452);
        assert!(!path.is_cut(1_452) && path.takes_train(1_452));
    }

    #[test]
    fn another_local_address_is_another_way() {
        let path = PeerPath::default();
        let [a, b] = ["192.0.2.1", "192.0.2.2"].map(|a| Some(a.parse().unwrap()));
        path.heard_at(a);
        path.set_longest(1_372);
        path.heard_at(a);
        path.heard_at(None);
        assert!(path.local() == a && path.is_cut(1_400));
        path.heard_at(b);
        assert!(path.local() == b && !path.is_cut(1_400));
    }

    #[test]
    fn a_handshake_that_is_asked_for_again_leaves_by_the_routes_address() {
        let path = PeerPath::default();
        let a = Some("192.0.2.1".parse().unwrap());
        for _ in 0..3 {
            path.heard_at(a);
            path.asks();
            assert_eq!(path.local(), a, "a session that is merely renewed stays");
        }
        path.asks();
        assert_eq!(path.local(), None);
    }
}
