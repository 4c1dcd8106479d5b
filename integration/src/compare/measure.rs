//! What is measured of one contestant in one round.
//!
//! CPU time is that of each gateway's process over exactly the bytes or packets of the measurement, so
//! iperf3's `-O`, which leaves out bytes that CPU time was spent on, is not used. All traffic goes from the
//! near host to the far one over IPv4.

use super::arena::{Arena, CONGESTION_CONTROL, TARGET};
use super::metric::Measurement;
use super::search::{Trial, zero_loss};
use crate::error::Error;
use crate::process::cpu_seconds;
use crate::program;
use crate::traffic::bulk;
use crate::traffic::iperf::Iperf;
use crate::traffic::stream::{self, Delivery, Load};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// Figures by the keys of [`super::metric::METRICS`].
pub(super) type Figures = BTreeMap<String, f64>;

/// Bytes of UDP payload, small and large: 1,392 is the most that fits a tunnel with an MTU of 1,420.
pub(super) const SIZES: [usize; 2] = [64, 1_392];
/// Packets per second at which the CPU time of a packet is measured.
const FIXED_RATE: u32 = 30_000;
/// Time between echo requests: long enough for a gateway to fall asleep.
const PING_PACE: Duration = Duration::from_millis(10);
/// TCP runs so long before round trips under it are measured.
const WARM_UP: Duration = Duration::from_millis(500);

/// Measures. `told` is called before each measurement with what comes next; an error of it ends the round.
pub(super) struct Round<'a> {
    pub(super) arena: &'a Arena,
    /// How long each measurement takes.
    pub(super) duration: Duration,
    pub(super) told: &'a mut dyn FnMut(&str) -> Result<(), Error>,
    /// What has been found so far.
    pub(super) figures: &'a mut Figures,
}

impl Round<'_> {
    /// Makes these measurements.
    pub(super) fn run(&mut self, measurements: &[Measurement]) -> Result<(), Error> {
        for measurement in measurements {
            match measurement {
                Measurement::Tcp => [1, 4].into_iter().try_for_each(|n| self.tcp(n))?,
                Measurement::Fixed => SIZES.into_iter().try_for_each(|n| self.fixed(n))?,
                Measurement::Udp => SIZES.into_iter().try_for_each(|n| self.udp(n))?,
                Measurement::Rtt => self.rtt()?,
            }
        }
        Ok(())
    }

    fn tcp(&mut self, flows: u16) -> Result<(), Error> {
        (self.told)(&format!("TCP, {flows} flows"))?;
        let spent = Spent::begin(self.arena);
        let moved = Moved::by_tcp(self.arena, flows, self.duration)?;
        let spent = spent.end(self.arena);
        let gigabytes = moved.bytes / 1e9;
        let name = |what: &str| format!("tcp_{flows}_{what}");
        self.note(&name("gbps"), moved.gbps);
        if let Some(retransmits) = moved.retransmits {
            self.note(&name("retransmits"), retransmits);
        }
        for (who, seconds) in ["sender", "receiver"].into_iter().zip(spent.processes) {
            if let Some(seconds) = seconds {
                self.note(&name(&format!("cpu_s_per_gb_{who}")), seconds / gigabytes);
            }
        }
        let machine = spent.machine / gigabytes;
        self.note(&name("machine_cpu_s_per_gb"), machine);
        Ok(())
    }

    fn fixed(&mut self, size: usize) -> Result<(), Error> {
        (self.told)(&format!("{FIXED_RATE} pps of {size} B"))?;
        let spent = Spent::begin(self.arena);
        let delivery = send(self.arena, size, Some(FIXED_RATE), self.duration)?;
        let spent = spent.end(self.arena);
        let packets = [delivery.sent, delivery.delivered_packets()];
        let who = ["sender", "receiver"].into_iter().zip(packets);
        for ((who, packets), seconds) in who.zip(spent.processes) {
            if let Some(seconds) = seconds {
                let us = seconds * 1e6 / packets as f64;
                self.note(&format!("fixed_{size}_cpu_us_{who}"), us);
            }
        }
        let percent = delivery.loss() * 100.0;
        self.note(&format!("fixed_{size}_loss_percent"), percent);
        Ok(())
    }

    fn udp(&mut self, size: usize) -> Result<(), Error> {
        let trial_time = (self.duration / 10).clamp(TRIAL[0], TRIAL[1]);
        let arena = self.arena;
        let found = zero_loss(|rate| {
            (self.told)(&format!("{size} B without loss, {rate} pps"))?;
            let delivery = send(arena, size, Some(rate), trial_time)?;
            Ok::<_, Error>(Trial {
                offered: delivery.offered(),
                loss: delivery.loss(),
            })
        })?;
        let name = |what: &str| format!("udp_{size}_{what}");
        self.note(&name("zero_loss_pps"), found.rate);
        let at_limit = f64::from(u8::from(found.sender_at_limit));
        self.note(&name("sender_at_limit"), at_limit);

        let overload_time = (self.duration / 2).clamp(OVERLOAD[0], OVERLOAD[1]);
        (self.told)(&format!("{size} B at twice that"))?;
        let twice = (found.rate * 2.0).max(1.0) as u32;
        let delivery = send(self.arena, size, Some(twice), overload_time)?;
        self.note(&name("double_pps"), delivery.delivered());
        self.note(&name("double_offered_pps"), delivery.offered());
        (self.told)(&format!("{size} B, flooded"))?;
        let delivery = send(self.arena, size, None, overload_time)?;
        self.note(&name("flood_pps"), delivery.delivered());
        self.note(&name("flood_offered_pps"), delivery.offered());
        Ok(())
    }

    fn rtt(&mut self) -> Result<(), Error> {
        (self.told)("round trips, idle")?;
        let [near, _] = &self.arena.hosts;
        let idle = near.ping_for(TARGET, self.duration, PING_PACE)?;
        (self.told)("round trips under one TCP flow")?;
        let loaded = std::thread::scope(|scope| {
            let length = self.duration + WARM_UP * 2;
            let arena = self.arena;
            let tcp = scope.spawn(move || Moved::by_tcp(arena, 1, length));
            std::thread::sleep(WARM_UP);
            let echoes = near.ping_for(TARGET, self.duration, PING_PACE);
            let tcp = tcp.join();
            tcp.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            echoes
        })?;
        let lost = [&idle, &loaded].map(|echoes| echoes.sent - echoes.received);
        for (name, echoes) in [("idle", idle), ("loaded", loaded)] {
            for (quantile, share) in [("median", 0.5), ("p99", 0.99)] {
                let us = echoes
                    .quantile_us(share)
                    .ok_or_else(|| Error::unexpected("answers to echo requests", "none"))?;
                self.note(&format!("rtt_{name}_{quantile}_us"), us);
            }
        }
        self.note("rtt_lost", f64::from(lost.iter().sum::<u32>()));
        Ok(())
    }

    fn note(&mut self, key: &str, value: f64) {
        // Divided by nothing: there is no figure then.
        if value.is_finite() {
            self.figures.insert(key.into(), value);
        }
    }
}

/// A trial of a rate is so long at the least, and at the most.
const TRIAL: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(500)];
/// A measurement under overload is so long at the least, and at the most.
const OVERLOAD: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(3)];

fn send(
    arena: &Arena,
    payload: usize,
    rate: Option<u32>,
    duration: Duration,
) -> Result<Delivery, Error> {
    let [near, far] = &arena.hosts;
    let load = Load {
        payload,
        rate,
        duration,
    };
    stream::send(near, far, TARGET, load)
}

/// What TCP moved.
#[derive(Clone, Copy, Debug)]
struct Moved {
    bytes: f64,
    gbps: f64,
    retransmits: Option<f64>,
}

/// What TCP is moved by.
pub(super) fn tcp_generator() -> String {
    match super::contestant::version("iperf3") {
        Some(version) => format!("{version}, -C {CONGESTION_CONTROL}"),
        None => "own (iperf3 is not installed)".into(),
    }
}

impl Moved {
    fn by_tcp(arena: &Arena, flows: u16, duration: Duration) -> Result<Self, Error> {
        let [near, far] = &arena.hosts;
        if program::find("iperf3").is_none() {
            let moved = bulk::send_flows(near, far, TARGET, duration, flows)?;
            return Ok(Self {
                bytes: moved.bytes as f64,
                gbps: moved.gbps(),
                retransmits: None,
            });
        }
        let server = Iperf::start(&arena.spawner, far)?;
        let (time, flows) = (duration.as_secs_f64().to_string(), flows.to_string());
        let options = ["-t", &time, "-P", &flows, "-C", CONGESTION_CONTROL];
        let limit = duration + Duration::from_secs(15);
        let end = server.run(&arena.spawner, near, TARGET, &options, limit)?;
        Self::reported(&end).ok_or_else(|| {
            let expected = "sum_received and sum_sent of iperf3";
            Error::unexpected(expected, end.to_string())
        })
    }

    fn reported(end: &Value) -> Option<Self> {
        let received = end.get("sum_received")?;
        Some(Self {
            bytes: received.get("bytes")?.as_f64()?,
            gbps: received.get("bits_per_second")?.as_f64()? / 1e9,
            retransmits: end.get("sum_sent")?.get("retransmits")?.as_f64(),
        })
    }
}

/// CPU time, seconds.
struct Spent {
    processes: [Option<f64>; 2],
    machine: f64,
}

impl Spent {
    fn begin(arena: &Arena) -> Self {
        Self {
            processes: arena
                .processes()
                .map(|pid| pid.map(|pid| cpu_seconds(Some(pid)))),
            machine: machine_seconds(),
        }
    }

    fn end(self, arena: &Arena) -> Self {
        let now = Self::begin(arena);
        let [sender, receiver] = now.processes;
        let [sender_before, receiver_before] = self.processes;
        let since = |now: Option<f64>, before: Option<f64>| Some(now? - before?);
        Self {
            processes: [
                since(sender, sender_before),
                since(receiver, receiver_before),
            ],
            machine: now.machine - self.machine,
        }
    }
}

/// CPU time that the whole machine has used, other programs' too, seconds: all of the first line of
/// `/proc/stat` but idle and waiting (fields 4 and 5), and what a hypervisor took (8 and later).
fn machine_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    busy_ticks(&stat) / rustix::param::clock_ticks_per_second() as f64
}

fn busy_ticks(stat: &str) -> f64 {
    let line = stat.lines().next().unwrap_or_default();
    let fields = line.split_ascii_whitespace().skip(1).take(7);
    let busy = fields
        .enumerate()
        .filter(|(index, _)| ![3, 4].contains(index));
    busy.filter_map(|(_, ticks)| ticks.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_busy_with_all_but_idling_and_waiting() {
        let stat = "cpu  10 20 30 4000 500 6 7 800 0 0\ncpu0 1 1 1 1\n";
        assert!((busy_ticks(stat) - 73.0).abs() < 1e-9);
        assert!(busy_ticks("").abs() < 1e-9);
        assert!(machine_seconds() > 0.0);
    }

    #[test]
    fn the_end_of_a_report_of_iperf3_is_read() {
        let end = serde_json::json!({
            "sum_sent": { "bytes": 1_100, "retransmits": 7 },
            "sum_received": { "bytes": 1_000, "bits_per_second": 2e9 },
        });
        let moved = Moved::reported(&end).unwrap();
        assert!((moved.bytes - 1_000.0).abs() < 1e-9 && (moved.gbps - 2.0).abs() < 1e-9);
        assert_eq!(moved.retransmits, Some(7.0));
        assert!(Moved::reported(&serde_json::json!({})).is_none());
    }
}
