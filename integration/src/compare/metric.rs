//! Every figure that is measured: its name in the report, in words, its unit, and which way is better.

use serde::Serialize;
use std::collections::BTreeMap;

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
pub const METRICS: [Metric; 33] = [
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
    plain(
        "udp_64_double_offered_pps",
        "… offered then",
        "pps",
        None,
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
        "udp_1392_double_offered_pps",
        "… offered then",
        "pps",
        None,
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

/// Of what is sent, this share arrives where the path has room for more.
const ALL: f64 = 0.99;

/// Whether a figure of a round says what the sender could offer rather than what the path could carry: then
/// it is no more than a lower bound. The kernel's forwarding shows it: it works in the sender's own time, and
/// all that one sender can offer arrives.
pub(super) fn limited_by_sender(key: &str, figures: &BTreeMap<String, f64>) -> bool {
    let Some((size, what)) = key
        .strip_prefix("udp_")
        .and_then(|rest| rest.split_once('_'))
    else {
        return false;
    };
    let of = |what: &str| figures.get(&format!("udp_{size}_{what}")).copied();
    let arrived = |delivered: &str, offered: &str| {
        let (Some(delivered), Some(offered)) = (of(delivered), of(offered)) else {
            return false;
        };
        delivered >= ALL * offered
    };
    // Flooded, and still all of it arrived: nothing below that rate was the path's limit.
    let flood = arrived("flood_pps", "flood_offered_pps");
    match what {
        "flood_pps" => flood,
        "zero_loss_pps" => flood || of("sender_at_limit").is_some_and(|share| share > 0.0),
        "double_pps" => flood || arrived("double_pps", "double_offered_pps"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn figures(of: &[(&str, f64)]) -> BTreeMap<String, f64> {
        of.iter()
            .map(|(key, value)| ((*key).into(), *value))
            .collect()
    }

    #[test]
    fn every_figure_has_a_name_of_its_own() {
        let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.key).collect();
        assert_eq!(names.len(), METRICS.len());
    }

    #[test]
    fn what_is_drawn_can_be_better() {
        assert!(METRICS.iter().all(|m| !m.drawn || m.better.is_some()));
    }

    #[test]
    fn what_the_sender_could_offer_is_told_from_what_the_path_carried() {
        // As measured of the kernel's forwarding, and of a tunnel that loses two thirds of a flood.
        let kernel = figures(&[
            ("udp_64_zero_loss_pps", 306_000.0),
            ("udp_64_sender_at_limit", 0.0),
            ("udp_64_double_pps", 331_000.0),
            ("udp_64_double_offered_pps", 332_000.0),
            ("udp_64_flood_pps", 340_000.0),
            ("udp_64_flood_offered_pps", 341_000.0),
        ]);
        let tunnel = figures(&[
            ("udp_64_zero_loss_pps", 120_000.0),
            ("udp_64_sender_at_limit", 0.0),
            ("udp_64_double_pps", 150_000.0),
            ("udp_64_double_offered_pps", 239_000.0),
            ("udp_64_flood_pps", 140_000.0),
            ("udp_64_flood_offered_pps", 420_000.0),
        ]);
        for key in [
            "udp_64_zero_loss_pps",
            "udp_64_double_pps",
            "udp_64_flood_pps",
        ] {
            assert!(limited_by_sender(key, &kernel), "{key}");
            assert!(!limited_by_sender(key, &tunnel), "{key}");
        }
        let at_limit = figures(&[("udp_1392_sender_at_limit", 1.0)]);
        assert!(limited_by_sender("udp_1392_zero_loss_pps", &at_limit));
        assert!(!limited_by_sender("udp_64_zero_loss_pps", &at_limit));
        assert!(!limited_by_sender("tcp_1_gbps", &kernel));
    }
}
