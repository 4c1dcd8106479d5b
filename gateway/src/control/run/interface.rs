//! What control hears of interfaces and links.

use super::Control;
use crate::control::force::Judge;
use crate::control::neighbor::adjacency::LinkNews;
use crate::control::neighbor::entry::News;
use crate::control::neighbor::entry::mac_text;
use crate::control::path::link::ControlLink;
use crate::control::run::ControlError;
use crate::device::netlink::{self, LinkChange, LinkEvent, LinkState};
use std::time::Instant;

impl Control {
    pub(super) fn hear_interfaces(&mut self, now: Instant) -> Result<(), ControlError> {
        match self.monitor.events() {
            Ok(events) => {
                for event in &events {
                    self.hear_interface(now, event);
                }
                if !events.is_empty() {
                    self.carrier.hurry(now);
                }
            }
            Err(netlink::Error::Overrun) => self.read_interfaces(now)?,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    pub(super) fn hear_interface(&mut self, now: Instant, event: &LinkEvent) {
        for index in 0..self.paths.len() {
            let Some(link) = self.paths.get(index).and_then(|path| path.link.as_ref()) else {
                continue;
            };
            let is_its_name = link.setup().interface == event.name;
            let is_its_index = link.facts().index == event.index;
            match &event.kind {
                LinkChange::Changed(state) if is_its_name => {
                    self.interface_is(now, index, Some(state));
                }
                // Renamed: no interface has the link's name now.
                LinkChange::Changed(_) | LinkChange::Removed if is_its_index => {
                    self.interface_is(now, index, None);
                }
                LinkChange::Changed(_) | LinkChange::Removed => {}
            }
        }
    }

    /// Reads every link's interface anew: at start, after a reload, and when notifications were lost.
    pub(super) fn read_interfaces(&mut self, now: Instant) -> Result<(), ControlError> {
        for index in 0..self.paths.len() {
            let link = self.paths.get(index).and_then(|path| path.link.as_ref());
            let Some(name) = link.map(|link| link.setup().interface.clone()) else {
                continue;
            };
            let state = self.monitor.link(&name)?;
            self.interface_is(now, index, state.as_ref());
        }
        Ok(())
    }

    /// Tries again what could not be opened.
    pub(super) fn retry_interfaces(&mut self, now: Instant) {
        for index in 0..self.paths.len() {
            let link = self
                .paths
                .get_mut(index)
                .and_then(|path| path.link.as_mut());
            if let Some(state) = link.and_then(|link| link.to_retry(now)) {
                self.interface_is(now, index, Some(&state));
            }
        }
    }

    pub(super) fn interface_is(&mut self, now: Instant, index: usize, state: Option<&LinkState>) {
        let Some(path) = self.paths.get_mut(index) else {
            return;
        };
        let Some(link) = &mut path.link else { return };
        let changed = link.interface_is(now, state, &self.poller);
        let facts = link.facts();
        let id = path.setup.path;
        // The failover first.
        self.judge(now);
        if !matches!(changed, Ok(false)) {
            for port in &self.ports {
                port.bell.ring();
            }
            self.effects.link(id, facts);
        }
        if let Err(error) = changed {
            let name = self.paths.get(index).map(|path| path.setup.name.as_str());
            tracing::error!(path = name, "{error}");
        }
    }

    // ---- neighbours ---------------------------------------------------------------------------

    pub(super) fn hear_link(&mut self, now: Instant, token: u64, buffer: &mut [u8]) {
        let links = self.paths.iter_mut().filter_map(|path| path.link.as_mut());
        for link in links {
            if link.token() == token {
                link.receive(now, buffer);
            }
        }
        self.tell_news();
    }

    /// Addresses that have changed or that two claim: a line in the log each.
    pub(super) fn tell_news(&mut self) {
        for path in &mut self.paths {
            let (name, link) = (&path.setup.name, path.link.as_mut());
            for news in link.into_iter().flat_map(ControlLink::take_news) {
                match news {
                    LinkNews::Neighbor(address, News::Changed { from, to }) => tracing::warn!(
                        path = name,
                        neighbor = %address,
                        from = mac_text(from),
                        to = mac_text(to),
                        "the neighbor's MAC address has changed"
                    ),
                    LinkNews::Neighbor(address, News::Conflict { used, other }) => tracing::warn!(
                        path = name,
                        neighbor = %address,
                        used = mac_text(used),
                        other = mac_text(other),
                        "two stations answer for the neighbor's address; neighbor_mac says which is the right one"
                    ),
                    LinkNews::Claimed(address, mac) => tracing::warn!(
                        path = name,
                        address = %address,
                        by = mac_text(mac),
                        "another station claims an address of the gateway's own"
                    ),
                }
            }
        }
    }

    // ---- the gateway's own packets ------------------------------------------------------------
}
