//! Every figure that is measured: its name in the report, in words, its unit, and which way is better.

use serde::Serialize;

/// Which of two values is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// The greater one.
    More,
    /// The smaller one.
    Less,
}

/// What is measured together, and can be left out together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measurement {
    /// TCP with one flow and with four: rate, retransmissions, CPU time for the bytes moved.
    Tcp,
    /// 30,000 packets per second, small and large: CPU time of a packet.
    Fixed,
    /// The rate without loss, and what is delivered at twice that and when flooded, small and large.
    Udp,
    /// Round trips, idle and under one TCP flow.
    Rtt,
}

impl Measurement {
    /// All, in the order in which they are made.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Fixed, Self::Udp, Self::Rtt];
}

/// A figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Metric {
    /// Its name in `report.json`.
    #[serde(skip)]
    pub key: &'static str,
    /// In words.
    pub label: &'static str,
    /// Unit.
    pub unit: &'static str,
    /// Which way is better; `None`: it is there to understand the others.
    pub better: Option<Better>,
    /// Digits behind the point that mean something.
    #[serde(skip)]
    pub digits: usize,
    /// Whether it is drawn.
    #[serde(skip)]
    pub drawn: bool,
}

use Better::{Less, More};

/// All, in the order of the table.
pub const METRICS: [Metric; 31] = [
    drawn("tcp_1_gbps", "TCP, 1 flow", "Gbps", More, 2),
    plain("tcp_1_retransmits", "… sent again", "segments", None, 0),
    drawn(
        "tcp_1_cpu_s_per_gb_sender",
        "… CPU, sending gateway",
        "s/GB",
        Less,
        3,
    ),
    drawn(
        "tcp_1_cpu_s_per_gb_receiver",
        "… CPU, receiving gateway",
        "s/GB",
        Less,
        3,
    ),
    plain(
        "tcp_1_machine_cpu_s_per_gb",
        "… CPU, whole machine",
        "s/GB",
        Some(Less),
        3,
    ),
    drawn("tcp_4_gbps", "TCP, 4 flows", "Gbps", More, 2),
    plain("tcp_4_retransmits", "… sent again", "segments", None, 0),
    plain(
        "tcp_4_cpu_s_per_gb_sender",
        "… CPU, sending gateway",
        "s/GB",
        Some(Less),
        3,
    ),
    plain(
        "tcp_4_cpu_s_per_gb_receiver",
        "… CPU, receiving gateway",
        "s/GB",
        Some(Less),
        3,
    ),
    plain(
        "tcp_4_machine_cpu_s_per_gb",
        "… CPU, whole machine",
        "s/GB",
        Some(Less),
        3,
    ),
    drawn(
        "fixed_64_cpu_us_sender",
        "30,000 pps of 64 B: CPU, sending gateway",
        "µs/packet",
        Less,
        2,
    ),
    drawn(
        "fixed_64_cpu_us_receiver",
        "… CPU, receiving gateway",
        "µs/packet",
        Less,
        2,
    ),
    plain("fixed_64_loss_percent", "… lost", "%", None, 3),
    plain(
        "fixed_1392_cpu_us_sender",
        "30,000 pps of 1,392 B: CPU, sending gateway",
        "µs/packet",
        Some(Less),
        2,
    ),
    plain(
        "fixed_1392_cpu_us_receiver",
        "… CPU, receiving gateway",
        "µs/packet",
        Some(Less),
        2,
    ),
    plain("fixed_1392_loss_percent", "… lost", "%", None, 3),
    drawn(
        "udp_64_zero_loss_pps",
        "64 B, less than 0.1 % lost",
        "pps",
        More,
        0,
    ),
    plain(
        "udp_64_sender_at_limit",
        "… rounds in which the sender was the limit",
        "share",
        None,
        2,
    ),
    plain(
        "udp_64_double_pps",
        "… delivered when offered twice that",
        "pps",
        Some(More),
        0,
    ),
    drawn(
        "udp_64_flood_pps",
        "… delivered when flooded",
        "pps",
        More,
        0,
    ),
    plain(
        "udp_64_flood_offered_pps",
        "… offered when flooded",
        "pps",
        None,
        0,
    ),
    drawn(
        "udp_1392_zero_loss_pps",
        "1,392 B, less than 0.1 % lost",
        "pps",
        More,
        0,
    ),
    plain(
        "udp_1392_sender_at_limit",
        "… rounds in which the sender was the limit",
        "share",
        None,
        2,
    ),
    plain(
        "udp_1392_double_pps",
        "… delivered when offered twice that",
        "pps",
        Some(More),
        0,
    ),
    plain(
        "udp_1392_flood_pps",
        "… delivered when flooded",
        "pps",
        Some(More),
        0,
    ),
    plain(
        "udp_1392_flood_offered_pps",
        "… offered when flooded",
        "pps",
        None,
        0,
    ),
    drawn(
        "rtt_idle_median_us",
        "round trip, idle, median",
        "µs",
        Less,
        0,
    ),
    plain("rtt_idle_p99_us", "… p99", "µs", Some(Less), 0),
    drawn(
        "rtt_loaded_median_us",
        "round trip under one TCP flow, median",
        "µs",
        Less,
        0,
    ),
    drawn("rtt_loaded_p99_us", "… p99", "µs", Less, 0),
    plain(
        "rtt_lost",
        "echo requests without an answer",
        "requests",
        None,
        0,
    ),
];

const fn drawn(
    key: &'static str,
    label: &'static str,
    unit: &'static str,
    better: Better,
    digits: usize,
) -> Metric {
    Metric {
        drawn: true,
        ..plain(key, label, unit, Some(better), digits)
    }
}

const fn plain(
    key: &'static str,
    label: &'static str,
    unit: &'static str,
    better: Option<Better>,
    digits: usize,
) -> Metric {
    Metric {
        key,
        label,
        unit,
        better,
        digits,
        drawn: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_figure_has_a_name_of_its_own() {
        let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.key).collect();
        assert_eq!(names.len(), METRICS.len());
    }

    #[test]
    fn what_is_drawn_can_be_better() {
        assert!(METRICS.iter().all(|m| !m.drawn || m.better.is_some()));
    }
}
