//! What control shows: the state of every path and neighbour, and what has happened. Written by the
//! control thread alone when something changes and once a second, read by the API at any time.

use crate::control::neighbor::entry::{Mac, NeighborState};
use crate::control::path::mistagged::Seen;
use arc_swap::ArcSwap;
use routing::health::{Interface, Reachability, State, Tunnel, Usability};
use routing::path::{PathId, PathKind};
use routing::probe::{ProbeCount, Verdict};
use serde::Serialize;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Events kept; the oldest goes first. Half a day of a path that flaps once a minute, with both ends.
pub const EVENTS: usize = 1024;

/// The state of the paths and neighbours at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HealthView {
    /// Every path, in [`PathId`] order.
    pub paths: Vec<PathView>,
    /// Every configured next hop, in path order.
    pub neighbors: Vec<NeighborView>,
    /// Own addresses that others claim.
    pub claims: Vec<Claim>,
}

/// One path.
#[derive(Clone, Debug, PartialEq)]
pub struct PathView {
    /// Which.
    pub path: PathId,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: PathKind,
    /// Its state, with the reason.
    pub state: State,
    /// What flows may do with it.
    pub usability: Usability,
    /// Since when it has been in that state.
    pub since: Instant,
    /// The interface of an ExpressRoute link, and its state if netlink has told of it.
    pub interface: Option<(String, Option<Interface>)>,
    /// Its next hops together.
    pub neighbor: Option<Reachability>,
    /// Frames that came for the link with other VLAN tags, if any did.
    pub mistagged: Option<Seen>,
    /// What the tunnel says.
    pub tunnel: Option<Tunnel>,
    /// Its probes.
    pub probe: Option<ProbeView>,
}

/// The probes of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeView {
    /// Whom they ask.
    pub target: IpAddr,
    /// What they say.
    pub verdict: Verdict,
    /// Since when.
    pub since: Instant,
    /// Smoothed round trip.
    pub round_trip: Option<Duration>,
    /// Requests, answers and losses so far.
    pub count: ProbeCount,
    /// The path that the last answer came in by.
    pub returned_by: Option<PathId>,
}

/// One next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighborView {
    /// The link's path.
    pub path: PathId,
    /// The link's name.
    pub name: String,
    /// Its interface.
    pub interface: String,
    /// The next hop's address.
    pub address: IpAddr,
    /// Its MAC address, if known.
    pub mac: Option<Mac>,
    /// State of the entry.
    pub state: NeighborState,
    /// When it last proved that it is there.
    pub confirmed: Option<Instant>,
    /// The MAC address before, and when it changed, if that is not long ago.
    pub previous: Option<(Mac, Instant)>,
    /// Another MAC address that answers for it as well.
    pub conflict: Option<Mac>,
}

/// Another station speaks as an address of the gateway's own on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The link's name.
    pub name: String,
    /// The address.
    pub address: IpAddr,
    /// The other's MAC address.
    pub mac: Mac,
}

/// A path's change of state.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PathEvent {
    /// When it was detected: milliseconds since 1970.
    pub detected_unix_ms: f64,
    /// When new packets took the groups' new members: milliseconds since 1970. `None` if no group's
    /// choice depended on it.
    pub switched_unix_ms: Option<f64>,
    /// The path's name.
    pub path: String,
    /// Name of the state before.
    pub from: &'static str,
    /// Name of the state after.
    pub to: &'static str,
    /// Why it is degraded or down.
    pub reason: Option<&'static str>,
}

/// Where control shows it.
#[derive(Debug, Default)]
pub struct Published {
    view: ArcSwap<HealthView>,
    events: Mutex<VecDeque<PathEvent>>,
}

impl Published {
    /// The state now.
    pub fn view(&self) -> Arc<HealthView> {
        self.view.load_full()
    }

    /// What has happened, oldest first, at most [`EVENTS`].
    pub fn events(&self) -> Vec<PathEvent> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().cloned().collect()
    }

    /// Control: shows another state.
    pub(crate) fn show(&self, view: HealthView) {
        self.view.store(Arc::new(view));
    }

    /// Control: adds an event.
    pub(crate) fn record(&self, event: PathEvent) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() == EVENTS {
            events.pop_front();
        }
        events.push_back(event);
    }
}

/// Milliseconds since 1970 with microseconds behind the point.
pub(crate) fn unix_ms(time: SystemTime) -> f64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_event_goes_first() {
        let published = Published::default();
        for number in 0..EVENTS + 3 {
            published.record(PathEvent {
                detected_unix_ms: number as f64,
                switched_unix_ms: None,
                path: "er".into(),
                from: "up",
                to: "down",
                reason: Some("no_carrier"),
            });
        }
        let events = published.events();
        assert_eq!(events.len(), EVENTS);
        assert_eq!(events.first().map(|e| e.detected_unix_ms as u64), Some(3));
    }
}
