//! Is the next hop there, and at which MAC address? One entry of a neighbour cache, by the rules of
//! RFC 4861 section 7.3, for IPv6 and for IPv4 alike (ARP itself, RFC 826, has no such rules).
//!
//! ```text
//!                 answer                    30 s without a sign
//!   Incomplete ------------> Reachable ---------------------------> Probe
//!       |  ^                  ^   ^                                 |  |
//!       |  |                  |   +------------- answer ------------+  |
//!       |  |  restart         +--- answer ---+                         |
//!       |  |                                 |                         |
//!       +--+--- 3 requests unanswered ---> Failed <--- 3 unanswered ---+
//! ```
//!
//! Three things differ from a host's cache, because this entry is configured, there is one of it for
//! each IP version of a link, and the health of a path hangs on it:
//! - It does not wait for traffic: an entry that has grown old is probed at once, so STALE and DELAY of
//!   the RFC pass in no time, and a neighbour that is gone is found without a packet to lose.
//! - A probe that goes unanswered puts a known address in doubt: the neighbour may have another one, as after
//!   a change of equipment that nobody announced. It is asked at once, the known address first and everybody
//!   100 ms later, so that the new one is in use before a path is given up.
//! - A resolution begins with requests after 0, 100 and 400 ms and fails after 1.4 s, not after 3 s.
//! - It never ends: a failed entry asks again after 1, 2, 4, 5, 5 ... s.
//!
//! The last request to an old address goes to everybody: the neighbour may have a new one (RFC 7048).

use std::time::{Duration, Instant};

/// A MAC address.
pub type Mac = [u8; 6];

pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// How long an answer holds (REACHABLE_TIME, RFC 4861 section 10; not randomised: one asker a link).
pub const REACHABLE: Duration = Duration::from_secs(30);

/// Waits after the requests of a resolution that begins or begins again.
const QUICK: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
];

/// Waits after the requests to an address that has grown old (RETRANS_TIMER, RFC 4861 section 10).
const CALM: [Duration; 3] = [Duration::from_secs(1); 3];

/// Waits after the requests of an address that is in doubt. The second goes to everybody. It fails no sooner
/// than one that has grown old: one lost probe is no reason to give a neighbour up.
const DOUBT: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(900),
    Duration::from_secs(2),
];

/// How long it is remembered that two have answered for one address, and that the address was another.
const REMEMBERED: Duration = Duration::from_mins(5);

/// A change back within so long: both are alive.
const FLAP: Duration = Duration::from_mins(1);

/// The longest wait between two requests to a neighbour that does not answer.
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// The shortest (RFC 1122, 2.3.2.1: one request a second for each destination).
const SHORTEST_RETRY: Duration = Duration::from_secs(1);

/// Whom a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Solicit {
    /// Everybody: broadcast, or the solicited-node multicast group.
    Everybody,
    /// The address that was valid until now.
    Known(Mac),
}

/// A message in which the neighbour told its MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The address; `None` in an advertisement that leaves it out.
    pub mac: Option<Mac>,
    /// It answers a request of ours.
    pub solicited: bool,
    /// It replaces what is known (always so in ARP).
    pub replaces: bool,
}

/// What a message has told that somebody should know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The neighbour has another address now.
    Changed {
        /// Before.
        from: Mac,
        /// Now.
        to: Mac,
    },
    /// Two answer for the neighbour's address.
    Conflict {
        /// The one in use.
        used: Mac,
        /// The other.
        other: Mac,
    },
}

/// State of the entry, as `vng show neighbors` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighborState {
    /// Asked, not answered yet, no address known.
    Incomplete,
    /// Answered within the last 30 s.
    Reachable,
    /// The address is known and in use, and is being confirmed.
    Probe,
    /// Did not answer; asked again now and then.
    Failed,
    /// Given by the configuration, and never asked for.
    Static,
}

impl NeighborState {
    /// Name in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::Reachable => "reachable",
            Self::Probe => "probe",
            Self::Failed => "failed",
            Self::Static => "static",
        }
    }
}

/// The entry of one next hop.
#[derive(Clone, Debug)]
pub struct Neighbor {
    state: NeighborState,
    mac: Option<Mac>,
    /// Whether the neighbour has answered since the last restart or failure.
    proven: bool,
    confirmed: Option<Instant>,
    /// Requests since the state was entered.
    requests: u32,
    asked: Option<Instant>,
    /// When the next request is due, or the state ends.
    next: Instant,
    waits: [Duration; 3],
    /// The address before, and when it changed.
    previous: Option<(Mac, Instant)>,
    /// Another that answers for the same, and when it last did.
    rival: Option<(Mac, Instant)>,
    /// Who claims the address while the one that has it has not been asked, and since when.
    claimed: Option<(Mac, Instant)>,
    /// When the address in use has last answered a question.
    answered: Option<Instant>,
}

impl Neighbor {
    /// An entry that begins to resolve `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            state: NeighborState::Incomplete,
            mac: None,
            proven: false,
            confirmed: None,
            requests: 0,
            asked: None,
            next: now,
            waits: QUICK,
            previous: None,
            rival: None,
            claimed: None,
            answered: None,
        }
    }

    /// An entry whose address is given, and holds whatever anybody says.
    pub fn fixed(now: Instant, mac: Mac) -> Self {
        Self {
            state: NeighborState::Static,
            mac: Some(mac),
            proven: true,
            ..Self::new(now)
        }
    }

    /// Gives the request that is due, if one is, and moves the entry on.
    pub fn poll(&mut self, now: Instant) -> Option<Solicit> {
        if self.deadline().is_none_or(|next| now < next) {
            return None;
        }
        match self.state {
            NeighborState::Reachable => self.begin_probe(now, CALM),
            NeighborState::Incomplete | NeighborState::Probe
                if self.requests as usize >= self.waits.len() =>
            {
                self.state = NeighborState::Failed;
                if let Some(mac) = self.mac {
                    // Who answers next may be somebody else.
                    self.previous = Some((mac, now));
                }
                (self.mac, self.proven, self.requests) = (None, false, 0);
            }
            _ => {}
        }
        let wait = if self.state == NeighborState::Failed {
            (SHORTEST_RETRY * (1 << self.requests.min(3))).min(LONGEST_RETRY)
        } else {
            let wait = self.waits.get(self.requests as usize).copied();
            wait.unwrap_or(SHORTEST_RETRY)
        };
        let failed_just_now = self.state == NeighborState::Failed && self.requests == 0;
        self.next = now + wait;
        self.requests = self.requests.saturating_add(1);
        if failed_just_now {
            return None;
        }
        self.asked = Some(now);
        Some(match self.mac {
            Some(mac) if self.requests <= self.alone() => Solicit::Known(mac),
            _ => Solicit::Everybody,
        })
    }

    /// Takes what the neighbour told (RFC 4861, 7.2.3 for requests, 7.2.5 for advertisements). The caller
    /// has checked that it is the configured neighbour's and well-formed.
    pub fn heard(&mut self, now: Instant, heard: Heard) -> Option<News> {
        // An answer to a question that nobody asked proves nothing.
        let solicited = heard.solicited && self.is_asking(now);
        let Some(known) = self.mac else {
            let mac = heard.mac?;
            let before = self.previous.filter(|(before, _)| *before != mac);
            self.mac = Some(mac);
            if solicited {
                self.answered = Some(now);
                self.confirm(now);
            } else {
                self.begin_probe(now, QUICK);
            }
            return before.map(|(from, _)| News::Changed { from, to: mac });
        };
        let other = heard.mac.filter(|&mac| mac != known);
        if let Some(mac) = other
            && self.state == NeighborState::Static
        {
            return self.rivalled(now, known, mac);
        }
        if other.is_some() && !heard.replaces {
            // 7.2.5: what is known stays, and is doubted.
            if self.state == NeighborState::Reachable {
                self.begin_probe(now, QUICK);
            }
            return None;
        }
        // Two answers to one question: the first holds, as with the kernel (locktime), or traffic would
        // change over with each question.
        let both = self.answered.is_some() && self.answered >= self.asked;
        if let Some(mac) = other
            && solicited
            && both
        {
            return self.rivalled(now, known, mac);
        }
        // A claim displaces nobody who is there: its own address is asked first, and only when it is silent and
        // everybody is asked does another's answer count. So a forged claim costs a question, and no packet.
        if let Some(mac) = other
            && self.proven
            && self.holds()
        {
            self.claimed = Some((mac, now));
            if self.state == NeighborState::Reachable {
                self.begin_probe(now, DOUBT);
            }
            return None;
        }
        let mut news = None;
        if other.is_none()
            && solicited
            && let Some((mac, at)) = self.claimed.take()
            && now.saturating_duration_since(at) < FLAP
        {
            news = self.rivalled(now, known, mac);
        }
        if let Some(mac) = other {
            self.claimed = None;
            let back = self
                .previous
                .is_some_and(|(before, at)| before == mac && now.duration_since(at) < FLAP);
            self.mac = Some(mac);
            self.previous = Some((known, now));
            self.answered = None;
            news = Some(News::Changed {
                from: known,
                to: mac,
            });
            if back {
                news = self.rivalled(now, mac, known).or(news);
            }
        }
        if solicited {
            self.answered = Some(now);
            self.confirm(now);
        } else if other.is_some() {
            self.begin_probe(now, QUICK);
        }
        news
    }

    /// Whether what is known counts for more than what others claim: it has answered, and everybody has not been
    /// asked since.
    fn holds(&self) -> bool {
        match self.state {
            NeighborState::Reachable => true,
            NeighborState::Probe => self.requests <= self.alone(),
            NeighborState::Incomplete | NeighborState::Failed | NeighborState::Static => false,
        }
    }

    /// How often the known address is asked by itself before everybody is: twice; in doubt, once.
    fn alone(&self) -> u32 {
        if self.waits == DOUBT { 1 } else { 2 }
    }

    /// Another answers for the same address; news if that is not known yet.
    fn rivalled(&mut self, now: Instant, used: Mac, other: Mac) -> Option<News> {
        let known = self.rival(now) == Some(other);
        self.rival = Some((other, now));
        (!known).then_some(News::Conflict { used, other })
    }

    /// A probe by way of the neighbour went unanswered: a known address is asked at once whether it is still
    /// the neighbour's, and one that is not known is asked for; neither more than once a second.
    pub fn doubted(&mut self, now: Instant) {
        let lately = self
            .asked
            .is_some_and(|asked| now.saturating_duration_since(asked) < SHORTEST_RETRY);
        match self.state {
            NeighborState::Reachable if !lately => self.begin_probe(now, DOUBT),
            NeighborState::Probe if self.waits == CALM => self.begin_probe(now, DOUBT),
            NeighborState::Failed => self.wanted(now),
            _ => {}
        }
    }

    /// Something sent to the neighbour has just come back from beyond it (RFC 4861, 7.3.1): its address
    /// is good for a while without asking. Nothing if no address is known.
    pub fn confirmed(&mut self, now: Instant) {
        if self.state == NeighborState::Static {
            self.confirmed = Some(now);
        } else if self.mac.is_some() {
            self.confirm(now);
        }
    }

    /// A worker has packets that wait for the address: a failed entry is asked again now, if the last
    /// time was a second ago.
    pub fn wanted(&mut self, now: Instant) {
        if self.state == NeighborState::Failed {
            let earliest = self.asked.map_or(now, |asked| asked + SHORTEST_RETRY);
            self.next = self.next.min(earliest.max(now));
        }
    }

    /// The link has come back or is another one: what is known may be used, and must be confirmed.
    pub fn restart(&mut self, now: Instant) {
        if self.state == NeighborState::Static {
            return;
        }
        self.proven = false;
        if self.mac.is_some() {
            self.begin_probe(now, QUICK);
        } else {
            self.state = NeighborState::Incomplete;
            (self.requests, self.next, self.waits) = (0, now, QUICK);
        }
    }

    /// When [`Neighbor::poll`] has something to do; `None`: never.
    pub fn deadline(&self) -> Option<Instant> {
        (self.state != NeighborState::Static).then_some(self.next)
    }

    /// The address before, and when it changed, if that is not long ago.
    pub fn previous(&self, now: Instant) -> Option<(Mac, Instant)> {
        let recent = |at: Instant| now.saturating_duration_since(at) < REMEMBERED;
        self.previous
            .filter(|&(before, at)| recent(at) && Some(before) != self.mac)
    }

    /// Another that answers for the same address, if it has lately.
    pub fn rival(&self, now: Instant) -> Option<Mac> {
        let recent = |at: Instant| now.saturating_duration_since(at) < REMEMBERED;
        let rival = self.rival.filter(|&(_, at)| recent(at));
        rival
            .map(|(mac, _)| mac)
            .filter(|mac| self.mac != Some(*mac))
    }

    /// State.
    pub fn state(&self) -> NeighborState {
        self.state
    }

    /// The address to send to; `None` while there is none.
    pub fn mac(&self) -> Option<Mac> {
        self.mac
    }

    /// When the neighbour last proved that it is there.
    pub fn last_confirmed(&self) -> Option<Instant> {
        self.confirmed
    }

    /// Whether the neighbour has answered and not stopped answering since.
    pub fn is_resolved(&self) -> bool {
        self.proven
    }

    /// Whether it has stopped answering, or never began.
    pub fn is_failed(&self) -> bool {
        self.state == NeighborState::Failed
    }

    fn is_asking(&self, now: Instant) -> bool {
        // An answer may take as long as the longest wait, after which it was asked again anyway.
        self.asked
            .is_some_and(|asked| now.saturating_duration_since(asked) <= LONGEST_RETRY)
    }

    fn confirm(&mut self, now: Instant) {
        self.state = NeighborState::Reachable;
        self.proven = true;
        self.confirmed = Some(now);
        self.requests = 0;
        self.next = now + REACHABLE;
    }

    fn begin_probe(&mut self, now: Instant, waits: [Duration; 3]) {
        self.state = NeighborState::Probe;
        (self.requests, self.next, self.waits) = (0, now, waits);
    }
}

#[cfg(test)]
mod tests;
