//! What a link's own end of ARP and neighbour discovery does: it answers for the gateway's addresses,
//! keeps an entry for each configured next hop, and listens to nobody else.
//!
//! No socket and no clock: frames come in with [`Adjacency::receive`], frames to send and time come out
//! of [`Adjacency::poll`] and [`Adjacency::deadline`].

use crate::control::neighbor::discovery::{self, Frame, Message, Refusal};
use crate::control::neighbor::entry::{Heard, Mac, Neighbor, News};
use routing::health::Reachability;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Answers that wait to be sent. More than a burst of questions needs; the rest is dropped, and who
/// asked asks again.
const OUTBOX: usize = 64;

/// News that wait to be told; more only say the same again.
const NEWS: usize = 16;

/// How long a claim to an own address is remembered, and not told anew.
const CLAIM: Duration = Duration::from_mins(5);

/// Something about an address of the link that somebody should know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkNews {
    /// About a next hop.
    Neighbor(IpAddr, News),
    /// Another station, of this MAC address, claims an address of the gateway's own.
    Claimed(IpAddr, Mac),
}

/// What came in, by what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdjacencyCount {
    /// Questions for an own address that were answered.
    pub answered: u64,
    /// Messages of a configured next hop.
    pub heard: u64,
    /// Messages about or for others.
    pub strangers: u64,
    /// Messages that break the protocol's rules.
    pub refused: u64,
    /// Messages in which another station claims an own address.
    pub conflicts: u64,
    /// Answers dropped because too many waited.
    pub overflow: u64,
}

/// The neighbours of one link.
#[derive(Clone, Debug)]
pub struct Adjacency {
    mac: Mac,
    own: Vec<IpAddr>,
    neighbors: Vec<(IpAddr, Neighbor)>,
    outbox: VecDeque<Frame>,
    count: AdjacencyCount,
    /// Who claims which of the own addresses, and since when that was last said.
    claims: Vec<(IpAddr, Mac, Instant)>,
    news: Vec<LinkNews>,
}

impl Adjacency {
    /// A link whose end has `mac` and the addresses `own`, and that has these next hops; they are asked
    /// for `now`. A next hop without an own address of its IP version is never asked for.
    pub fn new(now: Instant, mac: Mac, own: Vec<IpAddr>, neighbors: Vec<IpAddr>) -> Self {
        let neighbors = neighbors.into_iter().map(|address| (address, None));
        Self::with_fixed(now, mac, own, neighbors)
    }

    /// The same, where some next hops have a MAC address that is given and never asked for.
    pub fn with_fixed(
        now: Instant,
        mac: Mac,
        own: Vec<IpAddr>,
        neighbors: impl IntoIterator<Item = (IpAddr, Option<Mac>)>,
    ) -> Self {
        let entry = |fixed: Option<Mac>| match fixed {
            Some(mac) => Neighbor::fixed(now, mac),
            None => Neighbor::new(now),
        };
        Self {
            mac,
            own,
            neighbors: neighbors
                .into_iter()
                .map(|(address, fixed)| (address, entry(fixed)))
                .collect(),
            outbox: VecDeque::new(),
            count: AdjacencyCount::default(),
            claims: Vec::new(),
            news: Vec::new(),
        }
    }

    /// Takes a frame's payload that came from `source`.
    pub fn receive(&mut self, now: Instant, source: Mac, ethertype: u16, payload: &[u8]) {
        match discovery::read(ethertype, payload) {
            Ok(Message::Solicitation {
                sender,
                mac,
                target,
                ..
            }) => {
                self.claimed(now, sender, mac);
                if let (Some(sender), Some(_)) = (sender, mac) {
                    let heard = Heard {
                        mac,
                        solicited: false,
                        replaces: true,
                    };
                    self.hear(now, sender, heard);
                }
                if self.own.contains(&target) {
                    let back = mac.unwrap_or(source);
                    if let Some(frame) = discovery::answer(self.mac, target, sender, back) {
                        self.count.answered += 1;
                        self.send(frame);
                    }
                }
            }
            Ok(Message::Advertisement {
                about,
                mac,
                answers,
                replaces,
            }) => {
                if self.claimed(now, Some(about), mac) {
                    return;
                }
                let heard = Heard {
                    mac,
                    solicited: answers.is_some_and(|asker| self.own.contains(&asker)),
                    replaces,
                };
                self.hear(now, about, heard);
            }
            Err(Refusal::Other) => self.count.strangers += 1,
            Err(_) => self.count.refused += 1,
        }
    }

    /// The next frame to send, if there is one; call it until there is none.
    pub fn poll(&mut self, now: Instant) -> Option<Frame> {
        if let Some(frame) = self.outbox.pop_front() {
            return Some(frame);
        }
        for (target, neighbor) in &mut self.neighbors {
            while neighbor.deadline().is_some_and(|next| next <= now) {
                let Some(to) = neighbor.poll(now) else {
                    continue;
                };
                let own = self.own.iter().find(|a| a.is_ipv4() == target.is_ipv4());
                let frame =
                    own.and_then(|&own| discovery::solicitation(self.mac, own, *target, to));
                if frame.is_some() {
                    return frame;
                }
            }
        }
        None
    }

    /// When [`Adjacency::poll`] has something to do; `None`: only after a frame has come in.
    pub fn deadline(&self) -> Option<Instant> {
        let deadlines = self.neighbors.iter().filter_map(|(_, n)| n.deadline());
        deadlines.min()
    }

    /// The link has come up, or its MAC address is another one: tells the gateway's addresses to
    /// everybody and has every next hop confirmed.
    pub fn restart(&mut self, now: Instant, mac: Mac) {
        self.mac = mac;
        self.outbox.clear();
        for (_, neighbor) in &mut self.neighbors {
            neighbor.restart(now);
        }
        for own in self.own.clone() {
            self.send(discovery::announcement(mac, own));
        }
    }

    /// A packet sent by way of this next hop was answered from beyond it.
    pub fn confirmed(&mut self, now: Instant, address: IpAddr) {
        if let Some(neighbor) = self.entry(address) {
            neighbor.confirmed(now);
        }
    }

    /// A probe by way of this link went unanswered: its next hops may have other addresses by now.
    pub fn doubted(&mut self, now: Instant) {
        for (_, neighbor) in &mut self.neighbors {
            neighbor.doubted(now);
        }
    }

    /// What has happened since the last call that somebody should know of.
    pub fn take_news(&mut self) -> Vec<LinkNews> {
        std::mem::take(&mut self.news)
    }

    /// Who lately claimed this address of the gateway's own.
    pub fn claimant(&self, now: Instant, own: IpAddr) -> Option<Mac> {
        let mut claims = self.claims.iter().rev();
        let claim =
            claims.find(|(a, _, at)| *a == own && now.saturating_duration_since(*at) < CLAIM);
        claim.map(|(_, mac, _)| *mac)
    }

    /// A worker has packets that wait for this next hop.
    pub fn wanted(&mut self, now: Instant, address: IpAddr) {
        if let Some(neighbor) = self.entry(address) {
            neighbor.wanted(now);
        }
    }

    /// What the entries say together; `None` for a link without next hops.
    pub fn reachability(&self) -> Option<Reachability> {
        let count =
            |holds: fn(&Neighbor) -> bool| self.neighbors.iter().filter(|(_, n)| holds(n)).count();
        let (all, resolved, failed) = (
            self.neighbors.len(),
            count(Neighbor::is_resolved),
            count(Neighbor::is_failed),
        );
        Some(match (resolved, failed) {
            _ if all == 0 => return None,
            (_, failed) if failed == all => Reachability::Failed,
            (resolved, _) if resolved == all => Reachability::Resolved,
            (1.., 1..) => Reachability::Partial,
            // One that has answered carries the link while another is still being asked for.
            (1.., 0) => Reachability::Resolved,
            (0, _) => Reachability::Unknown,
        })
    }

    /// The entries with their addresses, in configured order.
    pub fn entries(&self) -> impl Iterator<Item = (IpAddr, &Neighbor)> {
        self.neighbors.iter().map(|(address, n)| (*address, n))
    }

    /// What came in so far.
    pub fn count(&self) -> AdjacencyCount {
        self.count
    }

    /// The link's own MAC address.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    fn hear(&mut self, now: Instant, about: IpAddr, heard: Heard) {
        let own = heard.mac == Some(self.mac);
        match self.entry(about) {
            // Our own MAC comes back where a frame was mirrored to us; nobody lives there but us.
            Some(neighbor) if !own => {
                let news = neighbor.heard(now, heard);
                self.count.heard += 1;
                if let Some(news) = news {
                    self.tell(LinkNews::Neighbor(about, news));
                }
            }
            _ => self.count.strangers += 1,
        }
    }

    fn entry(&mut self, address: IpAddr) -> Option<&mut Neighbor> {
        let mut all = self.neighbors.iter_mut();
        all.find(|(a, _)| *a == address).map(|(_, n)| n)
    }

    /// Whether another station speaks as one of the gateway's own addresses; that is counted and told.
    fn claimed(&mut self, now: Instant, claimed: Option<IpAddr>, mac: Option<Mac>) -> bool {
        let own = claimed.filter(|address| self.own.contains(address));
        let (Some(address), Some(mac)) = (own, mac.filter(|mac| *mac != self.mac)) else {
            return false;
        };
        self.count.conflicts += 1;
        let known = self.claims.iter().any(|(a, m, at)| {
            (*a, *m) == (address, mac) && now.saturating_duration_since(*at) < CLAIM
        });
        if !known {
            self.claims
                .retain(|(a, _, at)| *a != address && now.saturating_duration_since(*at) < CLAIM);
            self.claims.push((address, mac, now));
            self.tell(LinkNews::Claimed(address, mac));
        }
        true
    }

    fn tell(&mut self, news: LinkNews) {
        if self.news.len() < NEWS {
            self.news.push(news);
        }
    }

    fn send(&mut self, frame: Frame) {
        if self.outbox.len() < OUTBOX {
            self.outbox.push_back(frame);
        } else {
            self.count.overflow += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::neighbor::discovery::{ETHERTYPE_ARP, ETHERTYPE_IPV6};
    use crate::control::neighbor::entry::{NeighborState, Solicit};
    use proptest::prelude::*;
    use std::time::Duration;

    const OWN: Mac = [2, 0, 0, 0, 0, 1];
    const PEER: Mac = [2, 0, 0, 0, 0, 2];
    const EVIL: Mac = [2, 0, 0, 0, 0, 0x66];

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([172, 16, 0, last])
    }

    fn v6(last: u16) -> IpAddr {
        IpAddr::from([0xfd00, 0x16, 0, 0, 0, 0, 0, last])
    }

    fn link(now: Instant) -> Adjacency {
        Adjacency::new(now, OWN, vec![v4(2), v6(2)], vec![v4(1), v6(1)])
    }

    /// The far end: the same machine with the addresses the other way round.
    fn far(now: Instant) -> Adjacency {
        Adjacency::new(now, PEER, vec![v4(1), v6(1)], vec![v4(2), v6(2)])
    }

    fn receive(adjacency: &mut Adjacency, now: Instant, source: Mac, frame: &Frame) {
        adjacency.receive(now, source, frame.ethertype, &frame.payload);
    }

    fn drain(adjacency: &mut Adjacency, now: Instant) -> Vec<Frame> {
        std::iter::from_fn(|| adjacency.poll(now)).collect()
    }

    fn resolved(now: Instant) -> Adjacency {
        let mut link = link(now);
        drain(&mut link, now);
        for own in [v4(1), v6(1)] {
            let asker = if own.is_ipv4() { v4(2) } else { v6(2) };
            let frame = discovery::answer(PEER, own, Some(asker), OWN).unwrap();
            receive(&mut link, now, PEER, &frame);
        }
        assert_eq!(link.reachability(), Some(Reachability::Resolved));
        link
    }

    fn macs(adjacency: &Adjacency) -> Vec<Option<Mac>> {
        adjacency.entries().map(|(_, n)| n.mac()).collect()
    }

    #[test]
    fn two_ends_find_each_other_in_both_versions() {
        let now = Instant::now();
        let (mut a, mut b) = (link(now), far(now));
        for _ in 0..4 {
            for frame in drain(&mut a, now) {
                receive(&mut b, now, OWN, &frame);
            }
            for frame in drain(&mut b, now) {
                receive(&mut a, now, PEER, &frame);
            }
        }
        for end in [&a, &b] {
            assert_eq!(end.reachability(), Some(Reachability::Resolved));
            assert!(
                end.entries()
                    .all(|(_, n)| n.state() == NeighborState::Reachable)
            );
        }
        assert_eq!(macs(&a), [Some(PEER); 2]);
        assert_eq!(macs(&b), [Some(OWN); 2]);
    }

    #[test]
    fn silence_fails_the_link_and_one_family_is_partial() {
        let now = Instant::now();
        let mut link = link(now);
        let end = now + Duration::from_secs(2);
        while link.deadline().unwrap() < end {
            let at = link.deadline().unwrap();
            drain(&mut link, at);
        }
        assert_eq!(link.reachability(), Some(Reachability::Failed));
        link.wanted(end, v4(1));
        drain(&mut link, end);
        let frame = discovery::answer(PEER, v4(1), Some(v4(2)), OWN).unwrap();
        receive(&mut link, end, PEER, &frame);
        assert_eq!(link.reachability(), Some(Reachability::Partial));
    }

    #[test]
    fn questions_for_own_addresses_are_answered_to_whoever_asks() {
        let now = Instant::now();
        let mut link = resolved(now);
        for (stranger, own) in [(v4(77), v4(2)), (v6(77), v6(2))] {
            let question =
                discovery::solicitation(EVIL, stranger, own, Solicit::Everybody).unwrap();
            receive(&mut link, now, EVIL, &question);
            let answers = drain(&mut link, now);
            assert_eq!(answers.len(), 1);
            assert_eq!(answers[0].destination, EVIL);
        }
        assert_eq!(macs(&link), [Some(PEER); 2], "and nobody is learnt");
        let other = discovery::solicitation(EVIL, v4(77), v4(3), Solicit::Everybody).unwrap();
        receive(&mut link, now, EVIL, &other);
        assert_eq!(drain(&mut link, now), []);
    }

    #[test]
    fn a_solicitation_without_a_mac_is_answered_to_the_frames_source() {
        let now = Instant::now();
        let mut link = link(now);
        drain(&mut link, now);
        let mut question =
            discovery::solicitation(PEER, v6(9), v6(2), Solicit::Known(OWN)).unwrap();
        // Without the option: a unicast solicitation may leave it out (RFC 4861, 4.3).
        question.payload.truncate(64);
        question.payload[5] = 24;
        let mut packet = smoltcp::wire::Ipv6Packet::new_unchecked(&mut question.payload[..]);
        let (from, to) = (packet.src_addr(), packet.dst_addr());
        smoltcp::wire::Icmpv6Packet::new_unchecked(packet.payload_mut()).fill_checksum(&from, &to);
        receive(&mut link, now, PEER, &question);
        assert_eq!(drain(&mut link, now)[0].destination, PEER);
    }

    #[test]
    fn the_neighbors_own_question_tells_its_address() {
        let now = Instant::now();
        let mut link = link(now);
        drain(&mut link, now);
        let question = discovery::solicitation(PEER, v4(1), v4(2), Solicit::Everybody).unwrap();
        receive(&mut link, now, PEER, &question);
        assert_eq!(macs(&link), [Some(PEER), None]);
    }

    #[test]
    fn a_gratuitous_announcement_has_the_neighbor_asked_and_displaces_nobody() {
        let now = Instant::now();
        let mut link = resolved(now);
        for address in [v4(1), v6(1)] {
            receive(
                &mut link,
                now,
                EVIL,
                &discovery::announcement(EVIL, address),
            );
        }
        assert_eq!(macs(&link), [Some(PEER); 2]);
        let asked = drain(&mut link, now);
        assert!(asked.iter().all(|frame| frame.destination == PEER));
        assert_eq!(asked.len(), 2);
    }

    #[test]
    fn strangers_and_claims_to_own_addresses_change_nothing() {
        let now = Instant::now();
        let mut link = resolved(now);
        for address in [v4(9), v6(9), v4(2), v6(2)] {
            receive(
                &mut link,
                now,
                EVIL,
                &discovery::announcement(EVIL, address),
            );
        }
        assert_eq!(macs(&link), [Some(PEER); 2]);
        assert_eq!(link.count().conflicts, 2);
        assert_eq!(drain(&mut link, now), []);
    }

    #[test]
    fn the_gateways_own_mac_is_not_a_neighbor() {
        let now = Instant::now();
        let mut link = resolved(now);
        receive(&mut link, now, OWN, &discovery::announcement(OWN, v4(1)));
        assert_eq!(macs(&link), [Some(PEER); 2]);
    }

    #[test]
    fn a_restart_announces_own_addresses_and_asks_again() {
        let now = Instant::now();
        let mut link = resolved(now);
        let other = [2, 0, 0, 0, 0, 9];
        link.restart(now, other);
        assert_eq!(link.reachability(), Some(Reachability::Unknown));
        let frames = drain(&mut link, now);
        assert_eq!(frames[0], discovery::announcement(other, v4(2)));
        assert_eq!(frames[1], discovery::announcement(other, v6(2)));
        assert_eq!(frames.len(), 4);
    }

    #[test]
    fn a_flood_of_questions_is_answered_within_bounds() {
        let now = Instant::now();
        let mut link = resolved(now);
        let question = discovery::solicitation(EVIL, v4(77), v4(2), Solicit::Everybody).unwrap();
        for _ in 0..1000 {
            receive(&mut link, now, EVIL, &question);
        }
        assert_eq!(drain(&mut link, now).len(), OUTBOX);
        assert_eq!(link.count().overflow, 1000 - OUTBOX as u64);
    }

    proptest! {
        #[test]
        fn arbitrary_frames_never_panic_and_never_move_the_neighbor(
            frames in prop::collection::vec(
                (any::<bool>(), prop::collection::vec(any::<u8>(), 0..120)), 0..20)
        ) {
            let now = Instant::now();
            let mut link = resolved(now);
            for (arp, payload) in frames {
                let ethertype = if arp { ETHERTYPE_ARP } else { ETHERTYPE_IPV6 };
                link.receive(now, EVIL, ethertype, &payload);
            }
            prop_assert_eq!(macs(&link), vec![Some(PEER); 2]);
        }

        #[test]
        fn only_messages_about_the_neighbor_itself_move_it(
            changes in prop::collection::vec((0_usize..28, any::<u8>()), 1..6),
            reply in any::<bool>(),
        ) {
            let now = Instant::now();
            let mut link = resolved(now);
            let mut frame = if reply {
                discovery::answer(EVIL, v4(50), Some(v4(2)), OWN).unwrap()
            } else {
                discovery::announcement(EVIL, v4(50))
            };
            for (at, value) in changes {
                frame.payload[at] = value;
            }
            let claims_neighbor = frame.payload[14..18] == [172, 16, 0, 1];
            receive(&mut link, now, EVIL, &frame);
            prop_assert!(claims_neighbor || macs(&link) == [Some(PEER); 2]);
        }
    }
}
