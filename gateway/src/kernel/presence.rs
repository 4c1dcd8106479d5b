//! The kernel's side of the TUN device: it is up, has its MTU and name, `host_address`, and with
//! `host_routes` a route to each prefix that is reachable through the gateway.
//!
//! 1. [`Presence::establish`]: once everything that can fail is done, all of it is set
//! 2. [`Presence::look`]: what is missing is put back; what cannot be is a problem, which is shown
//! 3. [`Presence::want`]: a reload wants other routes
//! 4. dropped, it takes away what the device would not take with it: one that was there before stays
//!
//! Routes have a protocol number and a metric of their own: they replace nobody's, and are known again.

use super::conflict::{BY_KERNEL, Conflict, Survey};
use super::quarrel::Quarrel;
use crate::device::netlink::{Error, HostChange, LinkState, Netlink, ROUTE_PROTOCOL, RouteOrder};
use ipnet::IpNet;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Routes set or taken away at a time, after which others get the lock and the processor: some 20 ms.
const ROUND: usize = 2_048;

/// Routes in one request: their answers fit into the socket's buffer.
const BATCH: usize = 64;

/// Prefixes named one by one in a message.
const NAMED: usize = 8;

/// What is to be there.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// MTU of the device, bytes.
    pub mtu: u16,
    /// Addresses of the device.
    pub addresses: Vec<IpNet>,
    /// Routes through it.
    pub routes: Vec<IpNet>,
    /// Their metric.
    pub metric: u32,
    /// Whom the kernel sends tunnels' datagrams to, sorted.
    pub endpoints: Vec<IpAddr>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its name, for programs.
    pub reason: &'static str,
    /// What it is and what cures it, for people.
    pub detail: String,
}

/// How it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresenceView {
    /// Name of the device now.
    pub device: String,
    /// Routes that are set.
    pub routes: usize,
    /// What is not as it should be; empty: nothing.
    pub problems: Vec<Problem>,
}

/// What a look has found.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// What was put back or changed, one line each.
    pub(crate) done: Vec<String>,
    /// There is more to do at once.
    pub(crate) unfinished: bool,
    /// Look again then.
    pub(crate) again: Option<Instant>,
}

/// The kernel's side of the device.
#[derive(Debug)]
pub struct Presence {
    inner: Mutex<Inner>,
    view: Mutex<PresenceView>,
}

#[derive(Debug)]
struct Inner {
    netlink: Netlink,
    /// The name it was made with.
    device: String,
    index: u32,
    /// The device was there before, and stays.
    persistent: bool,
    wanted: Arc<Wanted>,
    set: HashSet<IpNet>,
    established: bool,
    /// Routes that are known to be missing or too many.
    to_add: VecDeque<IpNet>,
    to_delete: VecDeque<(IpNet, u32)>,
    /// Addresses without the route to their network that the kernel adds with them.
    networks: Vec<IpNet>,
    present: usize,
    conflicts: BTreeMap<IpNet, Conflict>,
    refused: BTreeMap<String, String>,
    quarrel: Quarrel,
}

impl Presence {
    /// Of the device of this name and index, in the calling thread's network namespace. Nothing is set yet.
    ///
    /// # Errors
    /// Netlink's.
    pub fn new(device: &str, index: u32, persistent: bool, wanted: Wanted) -> Result<Self, Error> {
        let inner = Inner {
            netlink: Netlink::open()?,
            device: device.to_owned(),
            index,
            persistent,
            set: wanted.routes.iter().copied().collect(),
            wanted: Arc::new(wanted),
            established: false,
            to_add: VecDeque::new(),
            to_delete: VecDeque::new(),
            networks: Vec::new(),
            present: 0,
            conflicts: BTreeMap::new(),
            refused: BTreeMap::new(),
            quarrel: Quarrel::default(),
        };
        let view = PresenceView {
            device: device.to_owned(),
            ..PresenceView::default()
        };
        Ok(Self {
            inner: Mutex::new(inner),
            view: Mutex::new(view),
        })
    }

    /// Sets everything. What of the machine's own stands against a route is a warning in the log.
    ///
    /// # Errors
    /// Netlink's, and an address that the kernel refuses.
    pub fn establish(&self) -> Result<(), Error> {
        let mut inner = self.inner();
        inner.established = true;
        inner.addresses(true)?;
        let mut look = inner.look(Instant::now(), true)?;
        while look.unfinished {
            look.unfinished = inner.some_routes()?;
        }
        self.publish(&mut inner);
        for (prefix, conflict) in &inner.conflicts {
            tracing::warn!("no kernel route to {prefix}: {conflict}");
        }
        Ok(())
    }

    /// Looks whether everything is there, and puts back what is not. `forced`: by order of a person, who
    /// ends a quarrel, and has a device taken up and its name given back.
    pub(crate) fn look(&self, now: Instant, forced: bool) -> Result<Look, Error> {
        let mut inner = self.inner();
        let mut look = inner.look(now, forced)?;
        if forced {
            while look.unfinished {
                look.unfinished = inner.some_routes()?;
            }
        }
        self.publish(&mut inner);
        Ok(look)
    }

    /// Goes on with the routes that the last look has found missing. True if there are more.
    pub(crate) fn go_on(&self) -> Result<bool, Error> {
        let mut inner = self.inner();
        let more = inner.some_routes()?;
        self.publish(&mut inner);
        Ok(more)
    }

    /// Other routes are wanted from now on: sets them. Gives what else was put right, and what stands
    /// against a route that was not wanted before.
    pub(crate) fn want(&self, wanted: Wanted) -> Result<(Vec<String>, Vec<String>), Error> {
        let before = {
            let mut inner = self.inner();
            inner.set = wanted.routes.iter().copied().collect();
            let gone = !inner.established;
            inner.wanted = Arc::new(wanted);
            if gone {
                return Ok((Vec::new(), Vec::new()));
            }
            inner.conflicts.keys().copied().collect::<HashSet<_>>()
        };
        let look = self.look(Instant::now(), true)?;
        let inner = self.inner();
        let new = inner.conflicts.iter().filter(|(p, _)| !before.contains(*p));
        let conflicts = new
            .map(|(prefix, conflict)| format!("no kernel route to {prefix}: {conflict}"))
            .collect();
        Ok((look.done, conflicts))
    }

    /// How it stands.
    pub fn view(&self) -> PresenceView {
        let view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.clone()
    }

    /// Whether a change that the kernel tells of is about something that is wanted here.
    pub(crate) fn concerns(&self, change: &HostChange) -> bool {
        let inner = self.inner();
        match change {
            HostChange::Link(event) => event.index == inner.index || event.name == inner.device,
            HostChange::Address(index) => *index == inner.index,
            HostChange::Route { route, removed } => {
                let at_device = route.interface == inner.index;
                let own = route.protocol == ROUTE_PROTOCOL && at_device;
                if at_device && route.protocol == BY_KERNEL {
                    return *removed;
                }
                // Routes of the gateway's own come by its own hand only.
                inner.set.contains(&route.destination) && (*removed || !own)
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, inner: &mut Inner) {
        let link = inner.netlink.link_at(inner.index).ok().flatten();
        let view = inner.view(Instant::now(), link.as_ref());
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }
}

impl Inner {
    /// Whatever is not as it should be, and can be put right, is.
    fn look(&mut self, now: Instant, forced: bool) -> Result<Look, Error> {
        let mut look = Look::default();
        if !self.established {
            return Ok(look);
        }
        if forced {
            self.quarrel = Quarrel::default();
        }
        if !self.quarrel.allows(now) {
            look.again = self.quarrel.until;
            return Ok(look);
        }
        let Some(mut link) = self.netlink.link_at(self.index)? else {
            return Ok(look);
        };
        self.refused.clear();
        if link.name != self.device && forced {
            let renamed = self.netlink.rename_at(self.index, &self.device);
            let line = format!("{} is called {} again", link.name, self.device);
            if self.try_out(&mut look.done, line, renamed) {
                link.name.clone_from(&self.device);
            }
        }
        let mtu = u32::from(self.wanted.mtu);
        if link.mtu != mtu {
            let set = self.netlink.set_mtu_at(self.index, mtu);
            let line = format!("MTU of {}: {} back to {mtu}", link.name, link.mtu);
            self.try_out(&mut look.done, line, set);
        }
        if !link.admin_up && forced {
            let up = self.netlink.set_up_at(self.index, true);
            if self.try_out(&mut look.done, format!("{} is up again", link.name), up) {
                link.admin_up = true;
            }
        }
        if link.admin_up {
            let addresses = self.addresses(false)?;
            if !addresses.is_empty() {
                let names = addresses.join(", ");
                look.done.push(format!("addresses put back: {names}"));
            }
            let (missing, surplus) = self.survey()?;
            for address in std::mem::take(&mut self.networks) {
                let set = self.netlink.add_network_at(self.index, address);
                let line = format!("route to the network of {address}");
                self.try_out(&mut look.done, line, set);
            }
            if missing > 0 {
                let some: Vec<_> = self
                    .to_add
                    .iter()
                    .take(NAMED)
                    .map(IpNet::to_string)
                    .collect();
                let more = missing.saturating_sub(some.len());
                let more = if more > 0 {
                    format!(" and {more} more")
                } else {
                    String::new()
                };
                look.done
                    .push(format!("kernel routes set: {}{more}", some.join(", ")));
            }
            if surplus > 0 {
                look.done
                    .push(format!("kernel routes taken away: {surplus}"));
            }
            look.unfinished = self.some_routes()?;
        }
        if look.done.is_empty() && self.quarrel.until.is_some() {
            // It has rested, and what was put back last has stayed.
            self.quarrel = Quarrel::default();
        }
        if !look.done.is_empty() && !forced && self.quarrel.repaired(now) {
            look.again = self.quarrel.until;
        }
        Ok(look)
    }

    /// Notes what came of an attempt; true if it succeeded.
    fn try_out(
        &mut self,
        done: &mut Vec<String>,
        line: String,
        outcome: Result<(), Error>,
    ) -> bool {
        match outcome {
            Ok(()) => {
                done.push(line);
                true
            }
            Err(error) => {
                self.refused.insert(line, error.to_string());
                false
            }
        }
    }

    /// Adds the addresses that are missing, and names them. At the start a refusal is an error.
    fn addresses(&mut self, starting: bool) -> Result<Vec<String>, Error> {
        let mut added = Vec::new();
        if self.wanted.addresses.is_empty() {
            return Ok(added);
        }
        let present = self.netlink.addresses(self.index)?;
        let wanted = Arc::clone(&self.wanted);
        for address in wanted.addresses.iter().filter(|a| !present.contains(a)) {
            match self.netlink.add_address_at(self.index, *address) {
                Ok(()) => added.push(address.to_string()),
                Err(error) if starting => return Err(error),
                Err(error) => {
                    self.refused.insert(address.to_string(), error.to_string());
                }
            }
        }
        Ok(added)
    }

    /// Holds the main table against what is wanted; how many routes are missing, and how many too many.
    fn survey(&mut self) -> Result<(usize, usize), Error> {
        let wanted = Arc::clone(&self.wanted);
        let mut survey = Survey::default();
        // A device that was there before may have routes of a gateway that was killed.
        let none = wanted.routes.is_empty() && wanted.addresses.is_empty();
        if none && self.present == 0 && !self.persistent {
            return Ok((0, 0));
        }
        let (index, set) = (self.index, &self.set);
        self.netlink.main_table(&mut |route| {
            if route.interface == index && route.protocol == BY_KERNEL {
                survey.networks.insert(route.destination);
                return;
            }
            let own = route.protocol == ROUTE_PROTOCOL && route.interface == index;
            survey.take(route, own, set, &wanted.endpoints);
        })?;
        self.networks = wanted
            .addresses
            .iter()
            .filter(|address| address.prefix_len() < address.max_prefix_len())
            .filter(|address| !survey.networks.contains(&address.trunc()))
            .copied()
            .collect();
        let conflicts = survey.conflicts(set, &wanted.endpoints, wanted.metric);
        let is_right = |prefix: &IpNet| {
            survey.present.get(prefix) == Some(&wanted.metric) && !conflicts.contains_key(prefix)
        };
        let missing = wanted.routes.iter();
        self.to_add = missing
            .filter(|prefix| !is_right(prefix) && !conflicts.contains_key(*prefix))
            .copied()
            .collect();
        self.to_delete = survey
            .present
            .iter()
            .filter(|(prefix, _)| !(set.contains(*prefix) && is_right(prefix)))
            .map(|(prefix, metric)| (*prefix, *metric))
            .collect();
        self.present = survey.present.len();
        self.conflicts = conflicts;
        Ok((self.to_add.len(), self.to_delete.len()))
    }

    /// Sets and takes away a bounded number of routes. True if there are more.
    fn some_routes(&mut self) -> Result<bool, Error> {
        let metric = self.wanted.metric;
        let mut left = ROUND;
        while left > 0 && !self.to_delete.is_empty() {
            let old = self.to_delete.front().map_or(metric, |(_, metric)| *metric);
            // One request has one metric; there is more than one only after a reload that has changed it.
            let same = self
                .to_delete
                .iter()
                .take(BATCH)
                .take_while(|(_, metric)| *metric == old);
            let count = same.count();
            let batch: Vec<_> = self
                .to_delete
                .drain(..count)
                .map(|(prefix, _)| prefix)
                .collect();
            left = left.saturating_sub(batch.len());
            let place = (self.index, old);
            let answers = self
                .netlink
                .change_own_routes(RouteOrder::Delete, &batch, place)?;
            self.present = self.present.saturating_sub(answers.len());
        }
        while left > 0 && !self.to_add.is_empty() {
            let batch: Vec<_> = self.to_add.drain(..BATCH.min(self.to_add.len())).collect();
            left = left.saturating_sub(batch.len());
            let place = (self.index, metric);
            let answers = self
                .netlink
                .change_own_routes(RouteOrder::Add, &batch, place)?;
            for (prefix, answer) in batch.iter().zip(answers) {
                match answer {
                    None => self.present += 1,
                    Some(error) => {
                        self.refused
                            .insert(format!("route to {prefix}"), error.to_string());
                    }
                }
            }
        }
        Ok(!self.to_delete.is_empty() || !self.to_add.is_empty())
    }

    fn view(&self, now: Instant, link: Option<&LinkState>) -> PresenceView {
        let mut problems = Vec::new();
        let mut problem = |reason, detail| problems.push(Problem { reason, detail });
        let device = &self.device;
        match link {
            None => problem("device_gone", format!("the device {device} is gone")),
            Some(link) => {
                if link.name != *device {
                    let detail = format!(
                        "{device} was renamed to {}: it works on; vng reload renames it back",
                        link.name
                    );
                    problem("device_renamed", detail);
                }
                if !link.admin_up {
                    let detail = format!(
                        "somebody has taken {} down, and its routes with it: ip link set {} up, or vng reload",
                        link.name, link.name
                    );
                    problem("device_down", detail);
                }
            }
        }
        if !self.quarrel.allows(now) {
            let detail = format!(
                "another program takes away again and again what the gateway sets on {device}: it is left \
                 alone for a while; find out who does (ip monitor), then vng reload"
            );
            problem("contested", detail);
        }
        for (what, error) in self.refused.iter().take(NAMED) {
            problem("refused", format!("{what}: {error}"));
        }
        for (prefix, conflict) in self.conflicts.iter().take(NAMED) {
            problem(
                "route_conflict",
                format!("no kernel route to {prefix}: {conflict}"),
            );
        }
        if self.conflicts.len() > NAMED {
            let more = self.conflicts.len() - NAMED;
            problem(
                "route_conflict",
                format!("and {more} more prefixes likewise"),
            );
        }
        PresenceView {
            device: link.map_or_else(|| device.clone(), |link| link.name.clone()),
            routes: self.present,
            problems,
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !inner.established || !inner.persistent {
            // The device goes with its last descriptor, and all that is on it.
            return;
        }
        let wanted = Wanted {
            mtu: inner.wanted.mtu,
            ..Wanted::default()
        };
        let addresses = std::mem::replace(&mut inner.wanted, Arc::new(wanted));
        inner.set.clear();
        for address in &addresses.addresses {
            let _ = inner.netlink.delete_address_at(inner.index, *address);
        }
        if inner.survey().is_ok() {
            while inner.some_routes().unwrap_or(false) {}
        }
    }
}
