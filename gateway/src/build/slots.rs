//! The workers of a gateway before they run: who has which number, and what leads from one to another.

use crate::error::{RunError, SystemError};
use crate::telemetry::ledger::Ledger;
use crate::worker::bell::Bell;
use crate::worker::control_port::ControlPort;
use crate::worker::handoff::{Entrance, Exit, handoff};
use std::sync::Arc;

/// One worker's place.
pub(crate) struct WorkerSlot {
    /// Its number: of its TUN queue, of its sockets on each link and port, and in its receiver indices.
    pub(crate) number: usize,
    /// How many there are.
    pub(crate) count: usize,
    pub(crate) ledger: Arc<Ledger>,
    /// Between it and control.
    pub(crate) host: Arc<ControlPort>,
    /// To the others, by number; none to itself.
    pub(crate) exits: Vec<Option<Exit>>,
    /// From the others.
    pub(crate) entrances: Vec<Entrance>,
}

impl WorkerSlot {
    /// Whether no worker comes after it.
    pub(crate) fn is_last(&self) -> bool {
        self.number + 1 == self.count
    }
}

/// All bells, by worker.
pub(crate) fn bells(count: usize) -> Result<Arc<[Arc<Bell>]>, RunError> {
    let bells = (0..count).map(|_| Bell::new().map(Arc::new));
    bells
        .collect::<std::io::Result<_>>()
        .map_err(SystemError::kernel("make an eventfd"))
}

/// A place for each bell, with the ways between all of them; ledgers have this many ports.
pub(crate) fn slots(bells: &[Arc<Bell>], ports: usize) -> Vec<WorkerSlot> {
    let mut slots: Vec<WorkerSlot> = bells
        .iter()
        .enumerate()
        .map(|(number, bell)| WorkerSlot {
            number,
            count: bells.len(),
            ledger: Arc::new(Ledger::new(ports)),
            host: Arc::new(ControlPort::new(Arc::clone(bell))),
            exits: Vec::new(),
            entrances: Vec::new(),
        })
        .collect();
    for giver in 0..bells.len() {
        for (taker, bell) in bells.iter().enumerate() {
            let (exit, entrance) = if giver == taker {
                (None, None)
            } else {
                let (exit, entrance) = handoff(Arc::clone(bell));
                (Some(exit), Some(entrance))
            };
            if let Some(slot) = slots.get_mut(giver) {
                slot.exits.push(exit);
            }
            if let Some(slot) = slots.get_mut(taker) {
                slot.entrances.extend(entrance);
            }
        }
    }
    slots
}
