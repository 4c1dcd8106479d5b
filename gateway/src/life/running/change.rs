//! How the running gateway is changed: reload, resize, revoke; one at a time, each on a thread that nothing else
//! waits for.
//!
//! 1. the file is read and checked; what cannot be changed as the gateway runs ends it here
//! 2. the plan, the tunnels and each worker's steps are made, aside
//! 3. workers take the steps that come before; if one cannot, all go back, and nothing has changed
//! 4. the forwarding state is replaced, then the kernel's routes, then what control watches
//! 5. workers take the steps that come after, and the replaced state is freed once they have moved on
//! 6. a line in the log says who asked, what has changed and how long it took
//!
//! A resize and `vng p2s` write the file: under its lock ([`crate::config::file`]), so that none undoes what
//! another has written. A resize keeps that lock until its file is in force, or has the old text again.

use super::{Current, Running};
use crate::build::assembly;
use crate::build::data_path::SPARE_PATHS;
use crate::config::file::Locked;
use crate::config::schema::Config;
use crate::config::{self, KeyFiles, Loaded, rule};
use crate::control::handle::Order;
use crate::life::resize;
use crate::pipeline::process::Forwarding;
use crate::plan::limit;
use crate::show::changes;
use crate::show::refusal::Refusal;
use crate::show::view::{ReloadReport, Resize, ResizeReport};
use crate::tunnels;
use crate::tunnels::keys::{Keys, KeysError};
use std::collections::HashSet;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a change waits for workers to let go of the state before. They do in their next round.
const LET_GO: Duration = Duration::from_millis(100);
/// How often it looks.
const PAUSE: Duration = Duration::from_micros(100);
/// How many changes the log names; the answer to who asked names all.
const LOGGED: usize = 8;

impl Running {
    /// SIGHUP: reloads on a thread of its own, so that the next signal is heard meanwhile. Nobody waits for an
    /// answer, so it goes to the log.
    pub(crate) fn reload_by_signal(self: &Arc<Self>) {
        if self.reload_waits.swap(true, Ordering::AcqRel) {
            // The one that waits has not read the file yet.
            return;
        }
        let running = Arc::clone(self);
        let thread = thread::Builder::new().name("reload".to_owned());
        let spawned = thread.spawn(move || {
            // Both kinds of answer are in the log.
            let _ = running.reload_for("signal");
        });
        if let Err(error) = spawned {
            self.reload_waits.store(false, Ordering::Release);
            tracing::error!(%error, "no thread for a reload: nothing changed");
        }
    }

    /// Waits for its turn to change the gateway.
    fn turn(&self) -> Result<MutexGuard<'_, ()>, Refusal> {
        let turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.goes_on()?;
        Ok(turn)
    }

    /// Whether the gateway is not at its end.
    fn goes_on(&self) -> Result<(), Refusal> {
        if self.ending.load(Ordering::Acquire) || self.leaving().is_some() {
            return Err(Refusal::failed("nothing was changed: the gateway ends"));
        }
        Ok(())
    }

    pub(super) fn reload_for(&self, by: &str) -> Result<ReloadReport, Refusal> {
        let turn = self.turn();
        if by == "signal" {
            self.reload_waits.store(false, Ordering::Release);
        }
        let _turn = turn?;
        let began = Instant::now();
        let result = self.read_and_take();
        match &result {
            Ok(report) => log(by, "reload", began, &report.changed, &report.warnings),
            Err(refusal) => log_refusal(by, "reload", began, refusal),
        }
        result
    }

    fn read_and_take(&self) -> Result<ReloadReport, Refusal> {
        let mut loaded = config::load(&self.path, KeyFiles::Checked)
            .map_err(|error| Refusal::bad(error.to_string()))?;
        let current = self.current();
        keep_port(&current, &mut loaded.config);
        allow(&current, &loaded.config)?;
        self.take(&current, loaded)
    }

    pub(super) fn resize_for(&self, by: &str, wanted: &Resize) -> Result<ResizeReport, Refusal> {
        let _turn = self.turn()?;
        let began = Instant::now();
        let result = self.write_and_take(wanted);
        let what = format!("resize of {} to {}", wanted.gateway.section(), wanted.sku);
        match &result {
            Ok(report) if report.in_place => {
                log(by, &what, began, &report.changed, &report.warnings);
            }
            Ok(_) => tracing::info!(by, "{what}: the gateway ends, to be made anew"),
            Err(refusal) => log_refusal(by, &what, began, refusal),
        }
        result
    }

    fn write_and_take(&self, wanted: &Resize) -> Result<ResizeReport, Refusal> {
        let failed = |error| Refusal::failed(format!("{}: {error}", self.path.display()));
        let mut file = Locked::open(&self.path).map_err(failed)?;
        let before = file.text().map_err(failed)?;
        let text =
            resize::edited(&before, wanted).map_err(|error| Refusal::bad(error.to_string()))?;
        let directory = self.path.parent().unwrap_or(Path::new(""));
        let mut loaded = config::parse(&self.path, text.clone(), directory, KeyFiles::Checked)
            .map_err(|report| Refusal::bad(report.render(false)))?;
        let current = self.current();
        keep_port(&current, &mut loaded.config);
        let changes = resize::changes(&current.config, &loaded.config);
        let name = wanted.gateway.section();
        let change = changes.iter().find(|change| change.gateway == name);
        let mut report = ResizeReport {
            gateway: name.to_owned(),
            from: change.map_or(wanted.sku.clone(), |change| change.from.clone()),
            to: change.map_or(wanted.sku.clone(), |change| change.to.clone()),
            in_place: true,
            incarnation: self.incarnation,
            ..ResizeReport::default()
        };
        let anew = changes.iter().any(|change| change.obstacle.is_some()) && wanted.recreate;
        if !anew {
            allow(&current, &loaded.config)?;
        }
        let is_other = text != before;
        if is_other {
            file.replace(&text).map_err(failed)?;
        }
        if anew {
            let lost = self.loss(&current);
            report.in_place = false;
            report.lost = Some(lost);
            self.end_for(lost);
            return Ok(report);
        }
        match self.take(&current, loaded) {
            Ok(taken) => {
                (report.changed, report.warnings) = (taken.changed, taken.warnings);
                Ok(report)
            }
            Err(refusal) if is_other => {
                // The file says what is in force.
                let back = file.replace(&before);
                Err(match back {
                    Ok(()) => refusal,
                    Err(error) => Refusal::failed(format!(
                        "{}\n{} has the new SKU all the same: {error}",
                        refusal.message,
                        self.path.display()
                    )),
                })
            }
            Err(refusal) => Err(refusal),
        }
    }

    pub(super) fn revoke_for(&self, by: &str, client: &str) -> Result<bool, Refusal> {
        let _turn = self.turn()?;
        let began = Instant::now();
        let result = self.without(client);
        match &result {
            Ok(true) => {
                let changed = [format!("client {client}: taken away")];
                log(by, "revocation", began, &changed, &[]);
            }
            Ok(false) => {}
            Err(refusal) => log_refusal(by, "revocation", began, refusal),
        }
        result
    }

    /// Takes a client away until the file is read again.
    fn without(&self, client: &str) -> Result<bool, Refusal> {
        let current = self.current();
        let mut config = current.config.clone();
        let clients = config.vpn.as_mut().and_then(|v| v.point_to_site.as_mut());
        let Some(clients) = clients.map(|clients| &mut clients.clients) else {
            return Ok(false);
        };
        let before = clients.len();
        clients.retain(|one| one.name != client);
        if clients.len() == before {
            return Ok(false);
        }
        // Clients are no part of the forwarding state: the plan stays.
        let parts = Arc::new(current.parts.after(&config, &current.plan, &current.keys));
        let steps = parts.steps(&current.parts.tunnels, &config, None, self.workers.len());
        let changes = steps.into_iter().map(|steps| steps.before).collect();
        tunnels::carry_out(&self.workers, changes)
            .map_err(|error| Refusal::failed(error.to_string()))?;
        self.replace(Current {
            config,
            plan: current.plan.clone(),
            parts,
            keys: current.keys.clone(),
            generation: current.generation,
        });
        Ok(true)
    }

    fn replace(&self, next: Current) {
        let next = Arc::new(next);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, next);
        drop(current);
        // Freed here, without the lock.
        drop(before);
    }

    /// Takes a configuration that was allowed into force, or changes nothing.
    fn take(&self, current: &Current, loaded: Loaded) -> Result<ReloadReport, Refusal> {
        let new = loaded.config;
        let generation = current.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        let routes_only =
            current
                .plan
                .with_routes((&current.config, &new), generation, self.usability())?;
        let plan = match routes_only {
            Some(plan) => plan,
            None => current.plan.after(&new, generation, self.usability())?,
        };
        if plan.ports.len() > self.ledger_ports {
            return Err(Refusal::failed(format!(
                "nothing was changed, since this needs a restart:\n\
                 more than {SPARE_PATHS} sites have been added since the start"
            )));
        }
        let keys = Keys::read(&new).map_err(|error| Refusal::bad(error.to_string()))?;
        usable(&keys, current, &new).map_err(|error| Refusal::bad(error.to_string()))?;
        let parts = Arc::new(current.parts.after(&new, &plan, &keys));
        let mut changed = changes::changes(&current.config, &new);
        let name = |path: routing::path::PathId| {
            let path = plan.paths.get(usize::from(path.0));
            path.map(|path| path.name.clone()).unwrap_or_default()
        };
        changed.extend(parts.tunnels.changes(&current.parts.tunnels, name));
        let identity = current.keys.change(&keys);
        let is_other = identity.is_some();
        changed.extend(identity);
        if changed.is_empty() && current.config != new {
            changed.push("settings that change nothing of what runs".to_owned());
        }
        let mut report = ReloadReport {
            changed,
            needs_restart: Vec::new(),
            warnings: loaded.report.warnings_in_lines(),
        };
        let identity = current.keys.private_key().zip(keys.private_key());
        let identity = identity.filter(|_| is_other);
        let (mut before, mut after, mut undo) = (Vec::new(), Vec::new(), Vec::new());
        for steps in parts.steps(&current.parts.tunnels, &new, identity, self.workers.len()) {
            before.push(steps.before);
            after.push(steps.after);
            undo.push(steps.undo);
        }
        // Kernel routes to new prefixes last, those that are gone first: the kernel never sends what the
        // forwarding state does not know. New tunnels are there before routes lead to them, and those that
        // are gone stay as long as routes do.
        self.goes_on()?;
        if let Err(error) = tunnels::carry_out(&self.workers, before) {
            let back = tunnels::carry_out(&self.workers, undo);
            return Err(Refusal::failed(match back {
                Ok(()) => format!("nothing was changed: {error}"),
                Err(worse) => format!("{error}; and the way back failed too: {worse}"),
            }));
        }
        let make = |old: &Forwarding| {
            let limits = limit::limits(&new, &plan, self.workers.len(), old.limits.as_ref());
            let flows = limit::flows(&new, old.flows.as_ref());
            let hits = old.hits.following(&rule::kept(&current.config, &new));
            parts.forwarding(&new, &plan, (limits, flows), hits)
        };
        let kernel = || self.presence.want(assembly::wanted(&new, &plan));
        let watch = Order::Watch(Box::new(parts.watch(&new, &plan)));
        // Control may have judged a path between the plan and the store: it looks at all of them anew.
        let (replaced, kernel, is_told) =
            self.forwarding
                .replace(make, kernel, (&self.control.orders, watch));
        // What others have changed on the device is put right as well, and said.
        match kernel {
            Ok((done, conflicts)) => {
                report.changed.extend(done);
                report.warnings.extend(conflicts);
            }
            Err(error) => report.warnings.push(format!("kernel routes: {error}")),
        }
        if !is_told {
            report
                .warnings
                .push("control is busy: probes stay as they were".to_owned());
        }
        if let Err(error) = tunnels::carry_out(&self.workers, after) {
            report
                .warnings
                .push(format!("tunnels that are gone: {error}"));
        }
        self.replace(Current {
            config: new,
            plan,
            parts,
            keys,
            generation,
        });
        self.retire(replaced);
        Ok(report)
    }

    /// Frees a state that was replaced once no worker reads it any more, and those before it. Whoever lets go
    /// last frees it all, which for a million routes takes milliseconds: that shall be no worker.
    fn retire(&self, replaced: Arc<Forwarding>) {
        for worker in &self.workers {
            // One that sleeps would hold it until its next packet.
            worker.host.bell.ring();
        }
        let until = Instant::now() + LET_GO;
        while Arc::strong_count(&replaced) > 1 && Instant::now() < until {
            thread::sleep(PAUSE);
        }
        let mut retired = self.retired();
        retired.push(replaced);
        retired.retain(|state| Arc::strong_count(state) > 1);
    }
}

/// Whether handshakes can use the keys of a configuration's sites and clients, of those that are not in use already:
/// each takes a key agreement to find out.
fn usable(keys: &Keys, current: &Current, new: &Config) -> Result<(), KeysError> {
    let all_are_new = keys.public_key() != current.keys.public_key();
    let in_use: HashSet<[u8; 32]> = if all_are_new {
        HashSet::new()
    } else {
        far_keys(&current.config).collect()
    };
    keys.agree(new, |key| in_use.contains(key))
}

fn far_keys(config: &Config) -> impl Iterator<Item = [u8; 32]> {
    let sites = config.sites().iter().map(|site| site.public_key);
    let clients = config.clients().iter().map(|client| client.public_key);
    sites.chain(clients)
}

/// Where the kernel is to choose the tunnels' port, it has chosen.
fn keep_port(current: &Current, new: &mut Config) {
    if let (Some(old), Some(new)) = (&current.config.vpn, &mut new.vpn)
        && new.listen_port == 0
    {
        new.listen_port = old.listen_port;
    }
}

/// Whether a configuration can come into force while the gateway runs.
fn allow(current: &Current, new: &Config) -> Result<(), Refusal> {
    let old = &current.config;
    let mut changes = resize::changes(old, new).into_iter();
    if let Some(change) = changes.find(|change| change.obstacle.is_some()) {
        return Err(Refusal::failed(change.refusal()));
    }
    let ports = (current.parts.most_lanes, current.parts.underlays.as_slice());
    let needs_restart = changes::needs_restart(old, new, ports);
    if needs_restart.is_empty() {
        return Ok(());
    }
    let lines = needs_restart.join("\n");
    Err(Refusal::failed(format!(
        "nothing was changed, since this needs a restart:\n{lines}"
    )))
}

/// The line in the log of a change that is in force; a few more say which, if they are few.
fn log(by: &str, what: &str, began: Instant, changed: &[String], warnings: &[String]) {
    let took_ms = milliseconds(began);
    let (changes, warned) = (changed.len(), warnings.len());
    tracing::info!(
        by,
        changes,
        warnings = warned,
        took_ms,
        "{what} is in force"
    );
    for line in changed.iter().take(LOGGED) {
        tracing::info!("changed: {line}");
    }
    if changes > LOGGED {
        tracing::info!("changed: and {} more", changes - LOGGED);
    }
    for line in warnings {
        tracing::warn!("{line}");
    }
}

fn log_refusal(by: &str, what: &str, began: Instant, refusal: &Refusal) {
    let took_ms = milliseconds(began);
    tracing::error!(by, took_ms, "{what} refused, and nothing changed");
    for line in refusal
        .message
        .lines()
        .filter(|line| !line.trim().is_empty())
    {
        tracing::error!("{line}");
    }
}

/// Since then, to a tenth.
fn milliseconds(began: Instant) -> f64 {
    (began.elapsed().as_secs_f64() * 1e4).round() / 10.0
}
