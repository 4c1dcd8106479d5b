//! What the record of numbered packets and the gateways' events say about the fault and the repair.

use super::outcome::{ByDirection, Event, Latency, Timeline};
use super::{Demo, kind_of_path};
use crate::error::Error;
use crate::gateway::Gateway;
use crate::lab::CIRCUIT;
use crate::report::chart::number;
use crate::traffic::numbered::{Judgement, Record};
use gateway::api::{Request, What};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Width of the bins that arrivals are counted in.
const BIN: Duration = Duration::from_millis(50);
/// And around the fault.
const FINE_BIN: Duration = Duration::from_millis(10);
/// The directions, as in the report.
const DIRECTIONS: [&str; 2] = ["vnet_to_onprem", "onprem_to_vnet"];

impl Demo<'_> {
    /// Fills in what the record says about the fault at `cut` and the repair at `healed`.
    pub(super) fn judge(&mut self, records: &[Record; 2], cut: u64, healed: u64) {
        const SECOND: u64 = 1_000_000_000;
        let healed_ms = (healed - cut) as f64 / 1e6;
        let out = records
            .each_ref()
            .map(|r| r.judge(cut.saturating_sub(SECOND), healed));
        let back = records.each_ref().map(|r| r.judge(healed, u64::MAX));
        let sum =
            |judged: &[Judgement; 2], pick: fn(&Judgement) -> u64| judged.iter().map(pick).sum();
        let outage = |judged: &[Judgement; 2]| {
            let [there, back] = judged.each_ref().map(|j| j.outage.map_or(0.0, |o| o.ms()));
            ByDirection {
                vnet_to_onprem: there,
                onprem_to_vnet: back,
            }
        };

        let failover = &mut self.outcome.failover;
        failover.outage_ms = outage(&out);
        failover.sent = sum(&out, |j| j.sent);
        failover.lost = sum(&out, |j| j.lost);
        failover.duplicated = sum(&out, |j| j.duplicated);
        failover.reordered = sum(&out, |j| j.reordered);
        let events = &self.outcome.events;
        let ends = [
            ("gateway", &records[0], &out[0]),
            ("onprem-edge", &records[1], &out[1]),
        ];
        let [near, far] = ends.map(|(gateway, record, judged)| {
            let mut timeline = timeline(events, gateway, healed_ms);
            let switched = cut + (timeline.switched * 1e6) as u64;
            let first = judged.outage.map(|outage| outage.until);
            let first = first.or_else(|| first_sent_after(record, switched));
            timeline.first_packet = first.map_or(0.0, |at| (at as f64 - cut as f64) / 1e6);
            timeline
        });
        (failover.timeline_ms, failover.onprem_timeline_ms) = (near, far);

        let failback = &mut self.outcome.failback;
        let returned_ms = returned(events, healed_ms);
        failback.outage_ms = outage(&back);
        failback.sent = sum(&back, |j| j.sent);
        failback.lost = sum(&back, |j| j.lost);
        failback.duplicated = sum(&back, |j| j.duplicated);
        failback.reordered = sum(&back, |j| j.reordered);
        failback.returned_after_ms = returned_ms - healed_ms;
        failback.largest_gap_ms = ByDirection {
            vnet_to_onprem: back[0].largest_gap_ms,
            onprem_to_vnet: back[1].largest_gap_ms,
        };

        // Each phase without what happens at its edges.
        let margin = SECOND / 20;
        let resumed = out
            .iter()
            .filter_map(|j| j.outage)
            .map(|o| o.until)
            .max()
            .unwrap_or(cut);
        let returned_at = cut + (returned_ms * 1e6) as u64;
        for (phase, path, from, until) in [
            ("before", "expressroute", SECOND / 2, cut),
            ("during", "vpn", resumed + margin, healed),
            ("after", "expressroute", returned_at + margin, u64::MAX),
        ] {
            for (record, direction) in records.iter().zip(DIRECTIONS) {
                let judged = record.judge(from, until);
                self.outcome
                    .latency
                    .push(Latency::of(phase, direction, path, &judged));
            }
        }
        self.outcome.why_vpn_is_quicker = self.outcome.explain_quicker_vpn();
        self.draw(records, cut, healed_ms, returned_ms);
        let refused: u64 = records.iter().map(|record| record.refused).sum();
        let overflowed: u64 = records.iter().map(|record| record.overflowed).sum();
        let found = format!("{refused} not sent, {overflowed} dropped by full sockets");
        let kept_up = refused + overflowed == 0;
        self.check(
            "the measuring hosts themselves lose nothing",
            kept_up,
            found,
        );
        self.check_failover();
    }

    fn draw(&mut self, records: &[Record; 2], cut: u64, healed_ms: f64, returned_ms: f64) {
        let failover = &self.outcome.failover;
        let (near, far) = (failover.timeline_ms, failover.onprem_timeline_ms);
        let around = near.first_packet.max(far.first_packet).max(200.0) / 1e3;
        let series = &mut self.outcome.series;
        series.healed_s = healed_ms / 1e3;
        series.returned_s = returned_ms / 1e3;
        for (record, direction) in records.iter().zip(DIRECTIONS) {
            let zero = cut as f64 / 1e9;
            series
                .delivered
                .insert(direction.into(), record.rates(cut, BIN));
            let mut near = record.rates(cut, FINE_BIN);
            near.retain(|(x, _)| (-0.25 * around..1.5 * around).contains(x));
            series.delivered_near_fault.insert(direction.into(), near);
            series
                .latency_us
                .insert(direction.into(), medians(record, zero));
        }
    }

    fn check_failover(&mut self) {
        let paths = self.outcome.paths.clone();
        let sequence = [&paths.before, &paths.during, &paths.after];
        let expected = sequence == ["expressroute", "vpn", "expressroute"];
        let found = format!("{} → {} → {}", paths.before, paths.during, paths.after);
        self.check(
            "traffic goes over to the VPN and comes back",
            expected,
            found,
        );
        let (failover, failback) = (self.outcome.failover.clone(), self.outcome.failback.clone());
        let outage = failover.outage_ms;
        let worst = outage.vnet_to_onprem.max(outage.onprem_to_vnet);
        let found = format!(
            "{worst:.0} ms of outage, {} of {} lost",
            number(failover.lost as f64),
            number(failover.sent as f64),
        );
        let arrived = self.outcome.latency.iter().all(|l| l.packets > 0);
        self.check(
            "packets arrive before, during and after the fault",
            arrived,
            found,
        );
        let doubled = failover.duplicated + failback.duplicated;
        self.check(
            "no packet arrives twice",
            doubled == 0,
            format!("{doubled} did"),
        );
        let (lost, sent) = (number(failback.lost as f64), number(failback.sent as f64));
        let outside = &self.outcome.drops_outside;
        let place = |(place, packets): (&String, &u64)| format!("; {packets} dropped by {place}");
        let places: String = outside.iter().map(place).collect();
        let found = format!(
            "{lost} of {sent} lost{}",
            if failback.lost > 0 { &places } else { "" }
        );
        self.check("the way back loses nothing", failback.lost == 0, found);
    }
}

/// What a gateway noticed (`events` of `vng show status --json`), with times from the fault on; what was
/// long before it left out.
pub(super) fn events(gateway: &Gateway, fault_unix_ms: f64) -> Result<Vec<Event>, Error> {
    let status: Value = gateway
        .control()
        .ask(&Request::Show { what: What::Status })?;
    let list = status.get("events").and_then(Value::as_array);
    let read = |event: &Value| {
        let text = |key: &str| event.get(key).and_then(Value::as_str).map(str::to_owned);
        let after = |key: &str| {
            event
                .get(key)
                .and_then(Value::as_f64)
                .map(|ms| ms - fault_unix_ms)
        };
        Some(Event {
            at_ms: after("detected_unix_ms")?,
            switched_ms: after("switched_unix_ms"),
            gateway: gateway.host().name().into(),
            path: text("path")?,
            from: text("from")?,
            to: text("to")?,
            reason: text("reason"),
        })
    };
    let events = list.into_iter().flatten().filter_map(read);
    Ok(events.filter(|event| event.at_ms >= 0.0).collect())
}

/// A gateway's failover: its last ExpressRoute link that went down before the repair.
fn timeline(events: &[Event], gateway: &str, healed_ms: f64) -> Timeline {
    let down = events.iter().rfind(|event| {
        event.gateway == gateway
            && kind_of_path(&event.path) == "expressroute"
            && event.to == "down"
            && event.at_ms <= healed_ms
    });
    let detected = down.map_or(0.0, |event| event.at_ms);
    let switched = down.and_then(|event| event.switched_ms).unwrap_or(detected);
    Timeline {
        fault: 0.0,
        detected,
        switched,
        first_packet: 0.0,
    }
}

/// Where nothing was lost: arrival of the first packet that was sent after a moment.
fn first_sent_after(record: &Record, moment: u64) -> Option<u64> {
    let after = record
        .arrivals
        .iter()
        .filter(|arrival| arrival.sent >= moment);
    after.map(|arrival| arrival.at).min()
}

/// When the gateway's flows took ExpressRoute again: its first link that came up after the repair.
fn returned(events: &[Event], healed_ms: f64) -> f64 {
    let up = events.iter().find(|event| {
        event.path.starts_with(CIRCUIT) && event.to == "up" && event.at_ms > healed_ms
    });
    up.map_or(healed_ms, |event| event.switched_ms.unwrap_or(event.at_ms))
}

/// Median one-way latency of what arrived in each bin; seconds from `zero` on, microseconds.
fn medians(record: &Record, zero: f64) -> Vec<(f64, f64)> {
    let width = BIN.as_nanos() as u64;
    let mut bins: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for arrival in &record.arrivals {
        let latency = arrival.at.saturating_sub(arrival.sent);
        bins.entry(arrival.at / width).or_default().push(latency);
    }
    let median = |(bin, mut latencies): (u64, Vec<u64>)| {
        latencies.sort_unstable();
        let middle = latencies.get(latencies.len() / 2).copied().unwrap_or(0);
        (
            (bin as f64 + 0.5) * BIN.as_secs_f64() - zero,
            middle as f64 / 1e3,
        )
    };
    // The first and the last bin are not full.
    bins.pop_first();
    bins.pop_last();
    bins.into_iter().map(median).collect()
}
