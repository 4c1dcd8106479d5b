//! What a comparison found, as `report.json` and `--json` give it.

use super::contestant::Kind;
use super::metric::{METRICS, Metric, limited_by_sender};
use super::statistic::{Statistic, times_better};
use serde::Serialize;
use std::collections::BTreeMap;

/// Everything.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Whether every contestant that took part went through every round.
    pub ok: bool,
    /// Why the comparison ended early, if it did.
    pub error: Option<String>,
    /// How it was done.
    pub setup: Setup,
    /// Every figure's name: what it means.
    pub metrics: BTreeMap<&'static str, Metric>,
    /// Who took part.
    pub contestants: Vec<Entry>,
    /// Who could not.
    pub missing: Vec<Missing>,
    /// vng against each peer of the same kind.
    pub ratios: Vec<Ratio>,
    /// Figures of which there is no ratio, and why.
    pub without_ratio: Vec<WithoutRatio>,
    /// How long it took, seconds.
    pub duration_s: f64,
}

/// How it was done.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Setup {
    /// Version of vng.
    pub version: String,
    /// How vng-lab, and the vng in it, was built: `release`, or `development`, whose figures say nothing.
    pub build: &'static str,
    /// The vng that ran.
    pub vng: String,
    /// The command line, without the program.
    pub command: Vec<String>,
    /// When it began, UTC.
    pub started: String,
    /// Kernel release.
    pub kernel: String,
    /// Model of the processors.
    pub processor: String,
    /// Processors that everything shares: gateways, traffic and the hosts' kernels.
    pub processors: usize,
    /// Load of the machine over the last minute, when it began.
    pub load_before: f64,
    /// Rounds asked for.
    pub rounds: u32,
    /// Seconds of each measurement.
    pub seconds: f64,
    /// What moved TCP.
    pub tcp_generator: String,
    /// Congestion control of both hosts.
    pub congestion_control: &'static str,
    /// MTU of the link between the hosts, without tags, bytes.
    pub link_mtu: u32,
    /// MTU of tunnels, bytes.
    pub tunnel_mtu: u32,
    /// Bytes of UDP payload of small and large packets; IP and UDP headers are 28 more.
    pub udp_payloads: [usize; 2],
}

/// A contestant that took part.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// Whether it is vng.
    pub ours: bool,
    /// What it is: for a peer, its command.
    pub description: String,
    /// What it says of its version.
    pub version: Option<String>,
    /// Its rounds.
    pub rounds: Vec<Found>,
    /// Its figures over all rounds.
    pub summary: BTreeMap<String, Statistic>,
}

/// What one contestant did in one round.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Found {
    /// The round, from 1 on.
    pub round: u32,
    /// Figures by name.
    pub figures: BTreeMap<String, f64>,
    /// Why figures are missing, if they are.
    pub error: Option<String>,
}

/// A contestant that could not take part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// One of ours against one peer, in one figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Which of ours.
    pub ours: String,
    /// Which peer.
    pub peer: String,
    /// Which figure.
    pub metric: String,
    /// How many times better ours is, of the rounds that both went through: ours / peer where more is
    /// better, peer / ours where less is. Above 1, ours is better.
    pub times_better: Statistic,
    /// Whether the sender was ours' limit in one of the rounds: then the true ratio is higher.
    pub at_least: bool,
}

/// A figure that is not held against a peer's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WithoutRatio {
    /// Which of ours.
    pub ours: String,
    /// Which peer.
    pub peer: String,
    /// Which figure.
    pub metric: String,
    /// Why not.
    pub reason: &'static str,
}

/// What a cell of the table of ratios has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Held<'a> {
    Ratio(&'a Ratio),
    /// The peer's figure is its sender's.
    SendersLimit,
}

/// Why there is no ratio to a peer that could have carried more than was sent to it.
const SENDERS_LIMIT: &str = "the sender was the peer's limit: it could carry more than was offered";

impl Report {
    /// Makes summaries and ratios out of the rounds.
    pub(super) fn conclude(&mut self) {
        self.metrics = METRICS.iter().map(|metric| (metric.key, *metric)).collect();
        for entry in &mut self.contestants {
            entry.summary = METRICS
                .iter()
                .filter_map(|metric| {
                    let values = entry.rounds.iter();
                    let values = values.filter_map(|round| round.figures.get(metric.key));
                    Some((metric.key.to_owned(), Statistic::of(values.copied())?))
                })
                .collect();
        }
        for ours in self.contestants.iter().filter(|entry| entry.ours) {
            let peers = self.contestants.iter();
            for peer in peers.filter(|peer| !peer.ours && peer.kind == ours.kind) {
                for metric in &METRICS {
                    match ratio(metric, ours, peer) {
                        Some(Ok(ratio)) => self.ratios.push(ratio),
                        Some(Err(without)) => self.without_ratio.push(without),
                        None => {}
                    }
                }
            }
        }
        let whole = |entry: &Entry| entry.rounds.iter().all(|round| round.error.is_none());
        self.ok = self.error.is_none() && self.contestants.iter().all(whole);
    }

    /// Whether anything of ours is held against this peer, or would be.
    pub(super) fn compares(&self, ours: &str, peer: &str) -> bool {
        METRICS
            .iter()
            .any(|metric| self.held(ours, peer, metric.key).is_some())
    }

    /// A figure of ours against a peer's.
    pub(super) fn held(&self, ours: &str, peer: &str, metric: &str) -> Option<Held<'_>> {
        let same = |o: &str, p: &str, m: &str| (o, p, m) == (ours, peer, metric);
        let ratio = self.ratios.iter();
        let mut ratio = ratio.filter(|ratio| same(&ratio.ours, &ratio.peer, &ratio.metric));
        let mut without = self.without_ratio.iter();
        ratio.next().map(Held::Ratio).or_else(|| {
            let found = without.any(|w| same(&w.ours, &w.peer, &w.metric));
            found.then_some(Held::SendersLimit)
        })
    }

    /// Contestants of one kind.
    pub(super) fn of(&self, kind: Kind) -> Vec<&Entry> {
        let entries = self.contestants.iter();
        entries.filter(|entry| entry.kind == kind).collect()
    }
}

/// One of ours against one peer, of the rounds in which the peer's figure is its own.
fn ratio(metric: &Metric, ours: &Entry, peer: &Entry) -> Option<Result<Ratio, WithoutRatio>> {
    let better = metric.better?;
    let (mut at_least, mut left_out) = (false, false);
    let mut rounds = Vec::new();
    for round in &ours.rounds {
        let mut others = peer.rounds.iter();
        let same = others.find(|other| other.round == round.round);
        let values = same.and_then(|same| {
            let own = round.figures.get(metric.key)?;
            Some((*own, *same.figures.get(metric.key)?, &same.figures))
        });
        let Some((own, theirs, figures)) = values else {
            continue;
        };
        if limited_by_sender(metric.key, figures) {
            left_out = true;
            continue;
        }
        at_least |= limited_by_sender(metric.key, &round.figures);
        rounds.extend(times_better(better, own, theirs));
    }
    let (ours, peer, key) = (ours.name.clone(), peer.name.clone(), metric.key.to_owned());
    match Statistic::of(rounds) {
        Some(times_better) => Some(Ok(Ratio {
            ours,
            peer,
            metric: key,
            times_better,
            at_least,
        })),
        None if left_out => Some(Err(WithoutRatio {
            ours,
            peer,
            metric: key,
            reason: SENDERS_LIMIT,
        })),
        None => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An entry with these values of one figure in its rounds; `None`: the round failed.
    pub(in crate::compare) fn entry(
        name: &str,
        ours: bool,
        key: &str,
        values: &[Option<f64>],
    ) -> Entry {
        let found = |(round, value): (u32, &Option<f64>)| Found {
            round,
            figures: value.map(|value| (key.into(), value)).into_iter().collect(),
            error: value.is_none().then(|| "failed".into()),
        };
        Entry {
            name: name.into(),
            kind: Kind::Tunnel,
            ours,
            description: name.into(),
            version: None,
            rounds: (1..).zip(values).map(found).collect(),
            summary: BTreeMap::new(),
        }
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let key = "tcp_1_gbps";
        let mut report = Report {
            contestants: vec![
                entry("vng", true, key, &[Some(4.0), Some(5.0), None]),
                entry("peer", false, key, &[Some(1.0), Some(2.0), Some(100.0)]),
            ],
            ..Report::default()
        };
        report.conclude();
        assert!(!report.ok, "a round failed");
        let [ratio] = &report.ratios[..] else {
            panic!("{:?}", report.ratios)
        };
        let times = ratio.times_better;
        assert_eq!((times.rounds, times.min, times.max), (2, 2.5, 4.0));
        assert!((report.contestants[0].summary[key].median - 4.5).abs() < 1e-9);
    }

    #[test]
    fn kinds_are_not_held_against_each_other() {
        let key = "rtt_idle_median_us";
        let mut report = Report {
            contestants: vec![
                entry("vng", true, key, &[Some(200.0)]),
                Entry {
                    kind: Kind::ExpressRoute,
                    ..entry("kernel", false, key, &[Some(20.0)])
                },
            ],
            ..Report::default()
        };
        report.conclude();
        assert!(report.ok && report.ratios.is_empty());
    }

    /// "2.3 times better than the kernel's forwarding" was a sender that offered no more.
    #[test]
    fn a_peer_that_its_sender_limited_is_held_against_nobody() {
        let key = "udp_64_zero_loss_pps";
        let with = |mut entry: Entry, more: &[(&str, f64)]| {
            for (key, value) in more {
                for round in &mut entry.rounds {
                    round.figures.insert((*key).into(), *value);
                }
            }
            entry
        };
        let limit = [("udp_64_sender_at_limit", 1.0)];
        let ours = || entry("vng", true, key, &[Some(200.0), Some(220.0)]);
        let peer = || entry("kernel", false, key, &[Some(100.0), Some(100.0)]);
        let conclude = |ours: Entry, peer: Entry| {
            let mut report = Report {
                contestants: vec![ours, peer],
                ..Report::default()
            };
            report.conclude();
            report
        };
        let report = conclude(ours(), with(peer(), &limit));
        assert_eq!(report.ratios, []);
        let [without] = &report.without_ratio[..] else {
            panic!("{:?}", report.without_ratio)
        };
        assert_eq!((&*without.peer, &*without.metric), ("kernel", key));
        // Ours at its sender's limit is better than that at least.
        let report = conclude(with(ours(), &limit), peer());
        let [ratio] = &report.ratios[..] else {
            panic!("{:?}", report.ratios)
        };
        assert!(ratio.at_least && ratio.times_better.median > 2.0);
        assert_eq!(report.without_ratio, []);
        // Only the rounds in which it was so are left out.
        let mut some = peer();
        some.rounds[0].figures.insert(limit[0].0.into(), 1.0);
        let report = conclude(ours(), some);
        assert_eq!(report.ratios[0].times_better.rounds, 1);
        assert!(!report.ratios[0].at_least);
    }
}
