//! When to ask a path's far side for an echo, and what its answers and silences say about the path.
//!
//! [`Prober`] has no socket and no clock: [`Prober::poll`] says when a request is due,
//! [`Prober::answered`] takes its answer. A request that nobody answered in time is lost; `fail` losses
//! in a row make the verdict [`Verdict::Fail`], `pass` answers in a row make it [`Verdict::Pass`].
//!
//! A request is lost after `min(interval, max(interval / 4, 50 ms, 2 x smoothed round trip))`. With the
//! defaults (1 s, 3 in a row) and a round trip under 125 ms a far side that falls silent is found after
//! 3 x 1 s + 0.25 s at most; with an interval of 20 ms after 3 x 20 ms + 20 ms. A loss changes nothing
//! in when the next request goes out: a busy far side is not asked more often than a quick one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Requests that an answer can still be matched with. A request waits one interval at most, so one of
/// them is open at a time; the older ones let a late answer teach the round trip.
const REMEMBERED: usize = 16;

/// The shortest time after which a request is lost, unless the interval is shorter still: one delayed
/// acknowledgement or one scheduler round on a loaded host is not a failure.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(50);

/// The shortest interval that is kept; what is asked for below is raised to it.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

/// How a path is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeSettings {
    /// Time between two requests; at least 1 ms.
    pub interval: Duration,
    /// Requests lost in a row until the verdict is `Fail`; at least 1.
    pub fail: u32,
    /// Answers in a row until the verdict is `Pass` again; at least 1.
    pub pass: u32,
}

impl Default for ProbeSettings {
    /// One request a second, three in a row either way.
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            fail: 3,
            pass: 3,
        }
    }
}

/// What the probes say of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Too few answers and losses to say.
    Unknown,
    /// The far side answers.
    Pass,
    /// The far side is silent.
    Fail,
}

/// A request that is due now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Sequence number that its answer will carry.
    pub sequence: u16,
}

/// What became of the probes of a path so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeCount {
    /// Requests sent.
    pub sent: u64,
    /// Requests answered in time.
    pub answered: u64,
    /// Requests lost.
    pub lost: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Answered,
    Lost,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    sequence: u16,
    at: Instant,
    lost_at: Instant,
    fate: Fate,
}

/// The probes of one path.
#[derive(Clone, Debug)]
pub struct Prober {
    settings: ProbeSettings,
    next: Instant,
    sequence: u16,
    sent: VecDeque<Sent>,
    verdict: Verdict,
    since: Instant,
    answered_in_a_row: u32,
    lost_in_a_row: u32,
    impaired: bool,
    round_trip: Option<Duration>,
    count: ProbeCount,
}

impl Prober {
    /// A prober whose first request is due `now`.
    pub fn new(now: Instant, settings: ProbeSettings) -> Self {
        Self {
            settings: ProbeSettings {
                interval: settings.interval.max(SHORTEST_INTERVAL),
                fail: settings.fail.max(1),
                pass: settings.pass.max(1),
            },
            next: now,
            sequence: 0,
            sent: VecDeque::with_capacity(REMEMBERED),
            verdict: Verdict::Unknown,
            since: now,
            answered_in_a_row: 0,
            lost_in_a_row: 0,
            impaired: false,
            round_trip: None,
            count: ProbeCount::default(),
        }
    }

    /// Counts what is lost by `now`, then gives the request that is due, if one is. A caller that was
    /// late gets one request, not one for each interval that went by.
    ///
    /// Only this declares losses: bring the answers that have come in ([`Prober::answered`]) first, and
    /// a caller that was held up takes none of them for lost.
    pub fn poll(&mut self, now: Instant) -> Option<Request> {
        self.expire(now);
        if now < self.next {
            return None;
        }
        // On the beat while the caller keeps up with it.
        let on_the_beat = self.next + self.settings.interval;
        self.next = if on_the_beat > now {
            on_the_beat
        } else {
            now + self.settings.interval
        };
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        if self.sent.len() == REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent {
            sequence,
            at: now,
            lost_at: now + self.timeout(),
            fate: Fate::Open,
        });
        self.count.sent += 1;
        Some(Request { sequence })
    }

    /// Takes the answer to request `sequence`. True if that request was open; a second answer, one to a
    /// request never sent and one that came too late count for nothing (the last teaches the round trip).
    pub fn answered(&mut self, now: Instant, sequence: u16) -> bool {
        let Some(sent) = self.sent.iter_mut().find(|s| s.sequence == sequence) else {
            return false;
        };
        let fate = std::mem::replace(&mut sent.fate, Fate::Answered);
        if fate == Fate::Answered {
            return false;
        }
        let sample = now.saturating_duration_since(sent.at);
        // Weights of RFC 6298, section 2.
        self.round_trip = Some(
            self.round_trip
                .map_or(sample, |smoothed| smoothed / 8 * 7 + sample / 8),
        );
        if fate == Fate::Lost {
            return false;
        }
        self.count.answered += 1;
        self.lost_in_a_row = 0;
        self.answered_in_a_row = self.answered_in_a_row.saturating_add(1);
        // At the start one answer is enough: a gateway that has just been started carries traffic soon,
        // and what was lost before, while tunnels and neighbours were being set up, is no flaw.
        let enough =
            self.verdict == Verdict::Unknown || self.answered_in_a_row >= self.settings.pass;
        if enough {
            self.impaired = false;
            self.decide(now, Verdict::Pass);
        }
        true
    }

    /// Brings the next request forward to `now`: the path has just come into reach.
    pub fn hurry(&mut self, now: Instant) {
        self.next = self.next.min(now);
    }

    /// When [`Prober::poll`] has something to do next.
    pub fn deadline(&self) -> Instant {
        self.sent
            .iter()
            .filter(|sent| sent.fate == Fate::Open)
            .map(|sent| sent.lost_at)
            .fold(self.next, Instant::min)
    }

    /// What the probes say.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// When the verdict last changed.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Whether the verdict is `Pass` though a request was lost and fewer than `pass` answers in a row
    /// have come since.
    pub fn impaired(&self) -> bool {
        self.impaired && self.verdict == Verdict::Pass
    }

    /// Smoothed round trip; `None` before the first answer.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Requests, answers and losses so far.
    pub fn count(&self) -> ProbeCount {
        self.count
    }

    /// How it probes.
    pub fn settings(&self) -> ProbeSettings {
        self.settings
    }

    fn timeout(&self) -> Duration {
        let interval = self.settings.interval;
        let round_trip = self.round_trip.unwrap_or_default().min(interval);
        (interval / 4)
            .max(SHORTEST_TIMEOUT)
            .max(round_trip * 2)
            .min(interval)
    }

    fn expire(&mut self, now: Instant) {
        let lost = self
            .sent
            .iter_mut()
            .filter(|sent| sent.fate == Fate::Open && sent.lost_at <= now)
            .map(|sent| sent.fate = Fate::Lost)
            .count();
        if lost == 0 {
            return;
        }
        self.count.lost += lost as u64;
        self.answered_in_a_row = 0;
        self.impaired = true;
        self.lost_in_a_row = self.lost_in_a_row.saturating_add(lost as u32);
        if self.lost_in_a_row >= self.settings.fail {
            self.decide(now, Verdict::Fail);
        }
    }

    fn decide(&mut self, now: Instant, verdict: Verdict) {
        if self.verdict != verdict {
            (self.verdict, self.since) = (verdict, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn prober(interval_ms: u32, fail: u32, pass: u32) -> (Prober, Instant) {
        let start = Instant::now();
        let settings = ProbeSettings {
            interval: MS * interval_ms,
            fail,
            pass,
        };
        (Prober::new(start, settings), start)
    }

    /// Runs from one deadline to the next until `end`; `answer` says after how long a request sent at
    /// that time is answered.
    fn run(
        prober: &mut Prober,
        from: Instant,
        end: Instant,
        answer: impl Fn(Instant) -> Option<Duration>,
    ) -> Vec<Instant> {
        let (mut now, mut times) = (from, Vec::new());
        let mut answers: Vec<(Instant, u16)> = Vec::new();
        loop {
            answers.sort();
            while let Some(&(at, sequence)) = answers.first().filter(|a| a.0 <= now) {
                prober.answered(at, sequence);
                answers.remove(0);
            }
            if let Some(request) = prober.poll(now) {
                times.push(now);
                answers.extend(answer(now).map(|after| (now + after, request.sequence)));
            }
            answers.sort();
            let next = answers
                .first()
                .map_or(prober.deadline(), |a| a.0.min(prober.deadline()));
            if next >= end {
                return times;
            }
            assert!(next > now, "a deadline that does not move would spin");
            now = next;
        }
    }

    #[test]
    fn the_first_answer_passes_and_later_ones_must_be_enough_in_a_row() {
        let (mut prober, start) = prober(1000, 3, 3);
        run(&mut prober, start, start + MS * 10, |_| Some(MS * 2));
        assert_eq!(prober.verdict(), Verdict::Pass);
        assert_eq!(prober.since(), start + MS * 2);
        run(&mut prober, start + MS * 10, start + MS * 3500, |_| None);
        assert_eq!(prober.verdict(), Verdict::Fail);
        run(&mut prober, start + MS * 3500, start + MS * 5500, |_| {
            Some(MS)
        });
        assert_eq!(prober.verdict(), Verdict::Fail, "two answers are not three");
        run(&mut prober, start + MS * 5500, start + MS * 6500, |_| {
            Some(MS)
        });
        assert_eq!(prober.verdict(), Verdict::Pass);
        assert!(!prober.impaired());
    }

    #[test]
    fn what_was_lost_before_the_first_answer_is_no_flaw() {
        let (mut prober, start) = prober(1000, 3, 3);
        run(&mut prober, start, start + MS * 1500, |now| {
            (now > start).then_some(MS)
        });
        assert_eq!(prober.count().lost, 1);
        assert_eq!(prober.verdict(), Verdict::Pass);
        assert!(!prober.impaired());
    }

    #[test]
    fn a_silent_far_side_is_found_within_three_intervals_and_the_timeout() {
        for (interval, longest) in [(1000, 3400), (300, 1000), (100, 400), (20, 100)] {
            // The worst moment: right after a request that was still answered.
            let (mut prober, start) = prober(interval, 3, 3);
            let silent = start + MS * interval + MS;
            run(&mut prober, start, start + MS * 20_000, |now| {
                (now < silent).then_some(MS)
            });
            assert_eq!(prober.verdict(), Verdict::Fail);
            assert!(prober.since() - silent < MS * longest, "{interval}");
        }
    }

    #[test]
    fn a_loss_does_not_hurry_the_next_request() {
        let (mut prober, start) = prober(1000, 3, 3);
        let times = run(&mut prober, start, start + MS * 4999, |_| None);
        let expected: Vec<_> = (0..5).map(|i| start + MS * 1000 * i).collect();
        assert_eq!(times, expected);
    }

    #[test]
    fn losses_that_are_not_in_a_row_only_impair() {
        let (mut prober, start) = prober(1000, 3, 3);
        let third = |now: Instant| (now - start).as_secs().is_multiple_of(3).then_some(MS);
        run(&mut prober, start, start + MS * 30_500, third);
        assert_eq!(prober.verdict(), Verdict::Pass);
        assert!(prober.impaired());
        assert_eq!(prober.count().lost, 20);
        run(
            &mut prober,
            start + MS * 30_500,
            start + MS * 33_500,
            |_| Some(MS),
        );
        assert!(!prober.impaired());
    }

    #[test]
    fn a_late_answer_is_a_loss_but_teaches_the_round_trip() {
        let (mut prober, start) = prober(1000, 3, 3);
        run(&mut prober, start, start + MS * 20_000, |_| Some(MS * 400));
        assert_eq!(prober.count().lost, 1, "only the first came too late");
        assert_eq!(prober.verdict(), Verdict::Pass);
        assert_eq!(prober.round_trip(), Some(MS * 400));
    }

    #[test]
    fn a_caller_that_was_held_up_loses_no_answers_and_sends_no_burst() {
        let (mut prober, start) = prober(100, 1, 1);
        let request = prober.poll(start).unwrap();
        let late = start + MS * 5000;
        assert!(prober.answered(late, request.sequence));
        assert!(prober.poll(late).is_some());
        assert_eq!(prober.poll(late), None);
        assert_eq!(prober.count().lost, 0);
        assert!(prober.deadline() > late);
    }

    #[test]
    fn answers_count_once_and_strangers_never() {
        let (mut prober, start) = prober(1000, 3, 3);
        assert!(!prober.answered(start, 0));
        let request = prober.poll(start).unwrap();
        assert!(!prober.answered(start, request.sequence.wrapping_add(1)));
        assert!(prober.answered(start + MS, request.sequence));
        assert!(!prober.answered(start + MS * 2, request.sequence));
        assert_eq!(prober.count().answered, 1);
    }

    #[test]
    fn hurry_brings_the_next_request_forward_once() {
        let (mut prober, start) = prober(1000, 3, 3);
        prober.poll(start);
        prober.hurry(start + MS * 300);
        assert_eq!(prober.deadline(), start + MS * 250);
        assert!(prober.poll(start + MS * 300).is_some());
        assert_eq!(prober.poll(start + MS * 301), None);
    }

    proptest! {
        #[test]
        fn whatever_is_answered_the_books_hold(
            interval in 0_u32..2000,
            fail in 0_u32..5,
            pass in 0_u32..5,
            steps in prop::collection::vec((0_u32..3000, any::<u16>()), 0..200),
        ) {
            let (mut prober, mut now) = prober(interval, fail, pass);
            for (wait, sequence) in steps {
                now += MS * wait;
                prober.poll(now);
                prober.answered(now, sequence % 64);
                let count = prober.count();
                prop_assert!(count.answered + count.lost <= count.sent);
                prop_assert!(count.sent - count.answered - count.lost <= REMEMBERED as u64);
                prop_assert!(prober.since() <= now);
            }
        }
    }
}
