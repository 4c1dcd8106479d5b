//! Reads a gateway's counters at a steady pace, while traffic runs.

use crate::error::Error;
use crate::gateway::Control;
use gateway::telemetry::ledger::Totals;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Counters, and when they were read, seconds since the epoch of the traffic.
type Sample = (f64, Totals);

/// A thread that samples until it is told to stop.
#[derive(Debug)]
pub(super) struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Sampler {
    pub(super) fn start(control: Control, epoch: Instant, pace: Duration) -> Result<Self, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("sampler".into())
            .spawn(move || {
                let mut samples = Vec::new();
                let mut next = Instant::now();
                while !told.load(Relaxed) {
                    // A reading that fails leaves a longer interval, not a wrong one.
                    if let Ok(counters) = control.counters() {
                        samples.push((epoch.elapsed().as_secs_f64(), counters.totals));
                    }
                    next = (next + pace).max(Instant::now());
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
                samples
            })
            .map_err(Error::system("start a thread"))?;
        Ok(Self { stop, thread })
    }

    /// Packets per second sent by port, in the middle of each interval; times are seconds from `zero` on,
    /// which is given in seconds since the epoch.
    pub(super) fn finish(self, zero: f64) -> BTreeMap<String, Vec<(f64, f64)>> {
        self.stop.store(true, Relaxed);
        let samples = self.thread.join().unwrap_or_default();
        rates(&samples, zero)
    }
}

fn rates(samples: &[Sample], zero: f64) -> BTreeMap<String, Vec<(f64, f64)>> {
    let mut rates: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for (first, second) in samples.iter().zip(samples.iter().skip(1)) {
        let seconds = second.0 - first.0;
        if seconds <= 0.0 {
            continue;
        }
        for (port, sum) in &second.1.sent {
            let before = first.1.sent.get(port).map_or(0, |sum| sum.packets);
            let packets = sum.packets.saturating_sub(before) as f64;
            let middle = f64::midpoint(first.0, second.0) - zero;
            rates
                .entry(port.clone())
                .or_default()
                .push((middle, packets / seconds));
        }
    }
    rates
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway::telemetry::ledger::Sum;

    #[test]
    fn rates_stand_between_the_samples_they_come_from() {
        let sample = |at: f64, packets: u64| {
            let mut totals = Totals::default();
            totals.sent.insert("vpn".into(), Sum { packets, bytes: 0 });
            (at, totals)
        };
        let rates = rates(&[sample(1.0, 100), sample(1.5, 600), sample(2.5, 600)], 1.0);
        assert_eq!(rates["vpn"], [(0.25, 1000.0), (1.0, 0.0)]);
    }
}
