//! What a comparison found, as `report.json` and `--json` give it.

use super::contestant::Kind;
use super::metric::{METRICS, Metric};
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
}

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
        self.ratios = self
            .contestants
            .iter()
            .filter(|entry| entry.ours)
            .flat_map(|ours| {
                let peers = self.contestants.iter();
                let peers = peers.filter(|peer| !peer.ours && peer.kind == ours.kind);
                peers.flat_map(|peer| ratios(ours, peer))
            })
            .collect();
        let whole = |entry: &Entry| entry.rounds.iter().all(|round| round.error.is_none());
        self.ok = self.error.is_none() && self.contestants.iter().all(whole);
    }

    /// Contestants of one kind.
    pub(super) fn of(&self, kind: Kind) -> Vec<&Entry> {
        let entries = self.contestants.iter();
        entries.filter(|entry| entry.kind == kind).collect()
    }
}

fn ratios(ours: &Entry, peer: &Entry) -> Vec<Ratio> {
    let ratio = |metric: &Metric| {
        let better = metric.better?;
        let rounds = ours.rounds.iter().filter_map(|round| {
            let same = peer
                .rounds
                .iter()
                .find(|other| other.round == round.round)?;
            let own = round.figures.get(metric.key)?;
            times_better(better, *own, *same.figures.get(metric.key)?)
        });
        Some(Ratio {
            ours: ours.name.clone(),
            peer: peer.name.clone(),
            metric: metric.key.into(),
            times_better: Statistic::of(rounds)?,
        })
    };
    METRICS.iter().filter_map(ratio).collect()
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
}
