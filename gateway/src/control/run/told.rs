//! What control tells: events, and the state that is shown.

use super::Control;
use crate::control::force::Judge;
use crate::control::path::watch::PathWatch;
use crate::control::published::{HealthView, PathEvent, unix_ms};
use crate::control::run::SHOW;
use crate::telemetry::ledger::Port;
use routing::health::{Reason, StateChange, Usability};
use routing::reason::DropReason;
use std::time::{Instant, SystemTime};

impl Control {
    pub(super) fn record(&self, now: Instant, change: &StateChange, switched: bool) {
        let path = self.paths.iter().find(|p| p.setup.path == change.path);
        let name = path.map(|p| p.setup.name.clone()).unwrap_or_default();
        let wall = SystemTime::now();
        // The judgement came at `now`, the words were stored since.
        let detected = wall.checked_sub(now.elapsed()).unwrap_or(wall);
        let event = PathEvent {
            detected_unix_ms: unix_ms(detected),
            switched_unix_ms: switched.then(|| unix_ms(wall)),
            path: name,
            from: change.from.name(),
            to: change.to.name(),
            reason: change.to.reason().map(Reason::name),
        };
        let (path, from, to) = (&event.path, event.from, event.to);
        if from == to {
            // The same state for another reason: worth a line, and no change.
            let before = change.from.reason().map(Reason::name);
            tracing::info!(
                path,
                state = to,
                before,
                reason = event.reason,
                "another reason for its state"
            );
        } else if change.to.usability() == Usability::None {
            tracing::warn!(path, from, to, reason = event.reason, "path is down");
        } else {
            tracing::info!(path, from, to, reason = event.reason, "path has changed");
        }
        self.handle.published.record(event);
    }

    pub(super) fn is_to_show(&self, now: Instant) -> bool {
        self.shown.is_none_or(|shown| now >= shown + SHOW)
    }

    pub(super) fn show_sometimes(&mut self, now: Instant) {
        if self.is_to_show(now) {
            self.show(now, None);
        }
    }

    /// Books frames that came with other tags than their link's: of their packets nothing is known.
    pub(super) fn look_at_tags(&mut self) {
        for path in &mut self.paths {
            let Some(link) = &mut path.link else { continue };
            let (frames, is_first) = link.look_at_tags();
            if frames == 0 {
                continue;
            }
            self.ledger.received(Port::path(path.setup.path), frames, 0);
            self.ledger.dropped(DropReason::VlanTag, frames, 0);
            if let Some(seen) = link.mistagged().filter(|_| is_first) {
                let (path, own) = (&path.setup.name, link.setup().tags);
                let tags = &seen.tags;
                tracing::warn!(path, tags, "frames for it do not have its tags, {own}");
            }
        }
    }

    pub(super) fn show_state(&mut self, now: Instant) {
        self.shown = Some(now);
        self.handle.published.show(HealthView {
            paths: self.paths.iter().map(PathWatch::view).collect(),
            neighbors: self
                .paths
                .iter()
                .flat_map(|path| path.neighbor_views(now))
                .collect(),
            claims: self
                .paths
                .iter()
                .flat_map(|path| path.claims(now))
                .collect(),
        });
    }

    // ---- orders -------------------------------------------------------------------------------
}
