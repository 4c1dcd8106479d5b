//! A TCP flow that fills a gateway.

use super::{Sample, Worker, limits, rates};
use crate::packets::Spec;
use gateway::pipeline::process::Egress;
use gateway::pipeline::shape::Rates;
use routing::path::{Ingress, PathId};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::{Duration, Instant};

/// A TCP flow of a long transfer as a shaper sees it: a window that grows by a segment a round trip and shrinks to 0.7
/// of itself when a loss is heard of (RFC 9438, 4.6).
struct Transfer {
    window: f64,
    in_flight: u64,
    /// When what has been delivered or lost is heard of, nanoseconds: bytes, and whether they were lost.
    news: BinaryHeap<Reverse<(u64, u64, bool)>>,
    /// Losses of one window are one event.
    deaf_until: u64,
}

const SEGMENT: u64 = 1_368;
/// The round trip without any queue, nanoseconds.
const ROUND_TRIP: u64 = 300_000;

impl Transfer {
    fn hear(&mut self, now: u64) {
        while let Some(Reverse((at, bytes, lost))) = self.news.peek().copied()
            && at <= now
        {
            self.news.pop();
            self.in_flight -= bytes;
            if !lost {
                self.window += (SEGMENT * bytes) as f64 / self.window;
            } else if now >= self.deaf_until {
                self.window = (self.window * 0.7).max(2.0 * SEGMENT as f64);
                // Until what is under way now has come: the round trip, queue and all.
                self.deaf_until = now + 5_300_000;
            }
        }
    }
}

/// Lets a TCP flow fill a gateway of this rate for a second and a half. The share of the rate that got through, and how
/// long packets waited in the median, milliseconds; without the first half second.
fn transfer(mbps: u64) -> (f64, f64) {
    let rate = rates(mbps, None);
    let limits = limits(1, rate, Rates::default(), 1);
    let begin = Instant::now() + Duration::from_secs(1);
    let mut worker = Worker::new(begin, &limits);
    let mut flow = Transfer {
        window: 64_000.0,
        in_flight: 0,
        news: BinaryHeap::new(),
        deaf_until: 0,
    };
    let (step, warm, end) = (50_000, 500_000_000, 1_500_000_000);
    let mut samples = HashMap::new();
    let mut known = 0;
    let mut waiting = VecDeque::new();
    let (mut waits, mut through) = (Vec::new(), 0);
    let dropped = |worker: &Worker| {
        let sums = worker.totals().dropped;
        sums.values().map(|sum| sum.bytes).sum::<u64>()
    };
    let path = PathId(0);
    for now in (0..end).step_by(step) {
        flow.hear(now);
        let at = begin + Duration::from_nanos(now);
        assert!(!worker.shaper.begin(at, Some(&limits)));
        // As TSO: a millisecond of the rate at once, or what the window allows.
        let most = (mbps * 125).clamp(2 * SEGMENT, 62_928) / SEGMENT;
        loop {
            let room = (flow.window as u64).saturating_sub(flow.in_flight) / SEGMENT;
            let segments = room.min(most);
            if segments < most.min(2) {
                break;
            }
            let packet = samples.entry(segments).or_insert_with(|| {
                let spec = Spec::tcp((segments * SEGMENT) as usize);
                let (bytes, offload) = spec.build_partial(SEGMENT as u16);
                Sample::new(bytes, offload)
            });
            let payload = segments * SEGMENT;
            flow.in_flight += payload;
            let went = worker.offer(Ingress::Vnet, Egress::Path(path), packet);
            let each = packet.tally.bytes / segments;
            let now_known = if went { known } else { dropped(&worker) };
            let lost = (now_known - known) / each;
            known = now_known;
            if lost > 0 {
                let heard = now + ROUND_TRIP + 5_000_000;
                flow.news.push(Reverse((heard, lost * SEGMENT, true)));
            }
            if went {
                flow.news.push(Reverse((now + ROUND_TRIP, payload, false)));
                through += if now >= warm { packet.tally.bytes } else { 0 };
                waits.push(0);
            } else if segments > lost {
                waiting.push_back((now, segments - lost));
            }
        }
        let mut sent = 0;
        worker.drain(|release| sent += release.tally.packets);
        let now_known = dropped(&worker);
        let told = (now_known - known).div_ceil(SEGMENT + 100);
        known = now_known;
        if told > 0 {
            flow.news
                .push(Reverse((now + ROUND_TRIP, told * SEGMENT, true)));
        }
        if sent > 0 {
            flow.news
                .push(Reverse((now + ROUND_TRIP, sent * SEGMENT, false)));
            through += if now >= warm {
                sent * (SEGMENT + 52)
            } else {
                0
            };
        }
        let mut left = sent + told;
        while left > 0
            && let Some((since, segments)) = waiting.front_mut()
        {
            let taken = left.min(*segments);
            if now >= warm {
                waits.push(now - *since);
            }
            (left, *segments) = (left - taken, *segments - taken);
            if *segments == 0 {
                waiting.pop_front();
            }
        }
        assert_eq!(left, 0, "as many left as waited");
    }
    waits.sort_unstable();
    let seconds = (end - warm) as f64 / 1e9;
    let share = through as f64 * 8.0 / seconds / (mbps as f64 * 1e6);
    (share, waits[waits.len() / 2] as f64 / 1e6)
}

#[test]
fn tcp_fills_the_rate_and_leaves_the_queue_short() {
    for mbps in [500, 1_000, 2_000] {
        let (share, wait) = transfer(mbps);
        println!(
            "{mbps} Mbps: {:.1} % of it, {wait:.2} ms in the median",
            share * 100.0
        );
        assert!(share >= 0.97, "{mbps} Mbps: {share}");
        assert!(wait < 1.5, "{mbps} Mbps: {wait} ms");
    }
}
