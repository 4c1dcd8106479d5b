//! Which session a packet is for.
//!
//! A packet that names a session of ours is that session's, wherever it came from (RFC 5880, section 6.3). One that
//! names none is a peer's that has not heard us: the link that it came by and its source say whose (RFC 5881,
//! section 3). Both count: the same address may be a neighbour on several links.

use super::packet::Packet;
use super::session::BfdSession;
use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroU32;

/// All sessions of one system. `P` names a peer without a discriminator: a link and an address.
#[derive(Debug)]
pub struct Sessions<P> {
    by_discriminator: HashMap<NonZeroU32, (P, BfdSession)>,
    by_peer: HashMap<P, NonZeroU32>,
}

impl<P> Default for Sessions<P> {
    fn default() -> Self {
        Self {
            by_discriminator: HashMap::new(),
            by_peer: HashMap::new(),
        }
    }
}

impl<P: Clone + Eq + Hash> Sessions<P> {
    /// Adds a session. False, and nothing is changed, if the peer or the discriminator has one.
    pub fn add(&mut self, peer: P, session: BfdSession) -> bool {
        let discriminator = session.discriminator();
        if self.by_peer.contains_key(&peer) || self.by_discriminator.contains_key(&discriminator) {
            return false;
        }
        self.by_peer.insert(peer.clone(), discriminator);
        self.by_discriminator.insert(discriminator, (peer, session));
        true
    }

    /// Takes a peer's session away.
    pub fn remove(&mut self, peer: &P) -> Option<BfdSession> {
        let discriminator = self.by_peer.remove(peer)?;
        self.by_discriminator
            .remove(&discriminator)
            .map(|(_, session)| session)
    }

    /// The session that a packet from `peer` is for. One that names a session of ours is only taken from that
    /// session's peer: a discriminator that was overheard is worth nothing on another link.
    pub fn find(&mut self, packet: &Packet, peer: &P) -> Option<&mut BfdSession> {
        let discriminator = match NonZeroU32::new(packet.your_discriminator) {
            Some(discriminator) => discriminator,
            None => *self.by_peer.get(peer)?,
        };
        let (owner, session) = self.by_discriminator.get_mut(&discriminator)?;
        (owner == peer).then_some(session)
    }

    /// A peer's session.
    pub fn of(&mut self, peer: &P) -> Option<&mut BfdSession> {
        let discriminator = self.by_peer.get(peer)?;
        self.by_discriminator
            .get_mut(discriminator)
            .map(|(_, session)| session)
    }

    /// All sessions with their peers.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&P, &mut BfdSession)> {
        self.by_discriminator
            .values_mut()
            .map(|(peer, session)| (&*peer, session))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bfd::packet::{Diagnostic, Section, State};
    use crate::bfd::session::{NEIGHBOR_TTL, Settings};
    use std::num::NonZeroU8;
    use std::time::Duration;

    fn session(number: u32) -> BfdSession {
        let settings = Settings {
            desired_min_tx: Duration::from_millis(10),
            required_min_rx: Duration::from_millis(10),
            detect_multiplier: NonZeroU8::MIN,
            passive: false,
            least_ttl: NEIGHBOR_TTL,
        };
        BfdSession::new(settings, NonZeroU32::new(number).unwrap(), None)
    }

    fn packet(yours: u32) -> Packet {
        Packet {
            diagnostic: Diagnostic::NONE,
            state: State::Down,
            poll: false,
            is_final: false,
            control_plane_independent: false,
            demand: false,
            detect_multiplier: 3,
            my_discriminator: 5,
            your_discriminator: yours,
            desired_min_tx: Duration::from_secs(1),
            required_min_rx: Duration::from_secs(1),
            required_min_echo_rx: Duration::ZERO,
            section: Section::None,
        }
    }

    #[test]
    fn lesson_19_one_address_on_two_links_is_two_peers() {
        let mut sessions = Sessions::default();
        assert!(sessions.add(("primary", "10.0.0.1"), session(1)));
        assert!(sessions.add(("secondary", "10.0.0.1"), session(2)));
        let mut number = |yours, link| {
            let found = sessions.find(&packet(yours), &(link, "10.0.0.1"));
            found.map(|session| session.discriminator().get())
        };
        assert_eq!(number(0, "primary"), Some(1));
        assert_eq!(number(0, "secondary"), Some(2));
        assert_eq!(number(2, "secondary"), Some(2));
        // A number that was overheard does not open another link's session.
        assert_eq!(number(2, "primary"), None);
        assert_eq!(number(3, "primary"), None);
        assert_eq!(number(0, "tertiary"), None);
    }

    #[test]
    fn a_peer_and_a_number_have_one_session() {
        let mut sessions = Sessions::default();
        assert!(sessions.add("a", session(1)));
        assert!(!sessions.add("a", session(2)));
        assert!(!sessions.add("b", session(1)));
        assert!(sessions.remove(&"a").is_some());
        assert!(sessions.add("b", session(1)));
        assert_eq!(sessions.iter_mut().count(), 1);
    }
}
