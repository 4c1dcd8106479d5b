//! The figures as people and programs read them: text, JSON, pictures.

use super::Failure;
use super::gateway::{CIRCUIT_ROUTES, RULES, SITE_ROUTES};
use super::rate::{Effort, Rate, Way};
use super::tier::{Row, Scope, rows};
use super::traffic::{FLOWS, Form, Size};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use integration::report::chart::{Chart, Line, Scale, number};
use serde::Serialize;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where and when it was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Model of the processor.
    pub processor: String,
    /// How many of its threads there are.
    pub cores: usize,
    /// Release of the kernel.
    pub kernel: String,
    /// Day, in UTC.
    pub date: String,
}

impl Machine {
    /// This one, today.
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let model = info.lines().find(|line| line.starts_with("model name"));
        let processor = model.and_then(|line| line.split_once(": "));
        Self {
            processor: processor
                .map_or("unknown", |(_, name)| name.trim())
                .to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            date: date(SystemTime::now()),
        }
    }
}

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where and when.
    pub machine: Machine,
    /// Samples of each rate.
    pub samples: usize,
    /// Packets of a sample at least.
    pub packets_per_sample: u64,
    /// What one core moves.
    pub rates: Vec<Rate>,
    /// Every SKU beside it.
    pub skus: Vec<Row>,
}

impl Report {
    /// These rates and what they mean.
    pub fn new(rates: Vec<Rate>, effort: Effort) -> Self {
        Self {
            machine: Machine::here(),
            samples: effort.samples,
            packets_per_sample: effort.packets,
            skus: rows(&rates),
            rates,
        }
    }

    /// What `cargo bench` ends with.
    pub fn text(&self) -> String {
        let Machine {
            processor,
            cores,
            kernel,
            date,
        } = &self.machine;
        let figures = [
            (
                "10 Gbps, 1,000,000 packets/s, ExpressRoute, 1,250 B and above",
                self.least(
                    10_000_000_000,
                    Scope::ExpressRoute,
                    &[Size::Middle, Size::Large],
                ),
            ),
            (
                "one tunnel of 2.3 Gbps, 220,000 packets/s, every size",
                self.least(2_300_000_000, Scope::Tunnel, &Size::ALL),
            ),
        ];
        let mut text = format!(
            "The whole pipeline in memory, CPU time of one core: {processor}, {cores} threads, Linux {kernel}, {date}\n\
             {} flows, {} routes, {RULES} rules; median of {} samples of {} packets\n\n{}\n\n\
             One core beside Azure's SKUs: packets one by one, the slower direction, cores at most 80 % busy\n\n{}\n\n",
            number(FLOWS as f64),
            number((CIRCUIT_ROUTES + SITE_ROUTES) as f64),
            self.samples,
            number(self.packets_per_sample as f64),
            self.rates_table(),
            self.sku_table(),
        );
        for (what, times) in figures {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{what}: one core has it {times:.1} times");
        }
        text
    }

    /// The least headroom of a tier at these sizes.
    fn least(&self, bits: u64, scope: Scope, sizes: &[Size]) -> f64 {
        let of = |row: &&Row| {
            row.tier.bits_per_second == bits && row.tier.scope == scope && sizes.contains(&row.size)
        };
        let rows = self.skus.iter().filter(of);
        rows.map(Row::headroom).fold(f64::INFINITY, f64::min)
    }

    fn rates_table(&self) -> Table {
        let head = [
            "way",
            "packets",
            "come",
            "IP bytes",
            "ns/packet",
            "fastest",
            "packets/s",
            "Gbps",
        ];
        let mut table = table(&head, 3);
        for rate in &self.rates {
            let form = match rate.form {
                Form::Single => "one by one",
                Form::Super => "as super-packets",
            };
            table.add_row([
                rate.way.name().to_owned(),
                rate.size.name().to_owned(),
                form.to_owned(),
                number(rate.packet_bytes.round()),
                format!("{:.1}", rate.nanoseconds),
                format!("{:.1}", rate.fastest_nanoseconds),
                number((rate.packets_per_second / 1e3).round() * 1e3),
                format!("{:.1}", rate.bits_per_second / 1e9),
            ]);
        }
        table
    }

    fn sku_table(&self) -> Table {
        let head = [
            "SKU",
            "packets",
            "bound by",
            "limit Gbps",
            "limit packets/s",
            "packets/s",
            "Gbps",
            "x bits",
            "x packets",
            "busy",
            "cores",
        ];
        let mut table = table(&head, 3);
        let mut before = None;
        for row in &self.skus {
            let tier = &row.tier;
            let name = match tier.scope {
                Scope::ExpressRoute | Scope::Vpn => tier.name.clone(),
                Scope::Tunnel => format!("tunnel of {}", tier.name),
            };
            // The limits of a tier stand in its first line.
            let first = before != Some(tier);
            before = Some(tier);
            let once = |text: String| if first { text } else { String::new() };
            let none = || "-".to_owned();
            table.add_row([
                once(name),
                row.size.name().to_owned(),
                row.bound.name().to_owned(),
                once(number(tier.bits_per_second as f64 / 1e9)),
                once(
                    tier.packets_per_second
                        .map_or_else(none, |limit| number(limit as f64)),
                ),
                number((row.core_packets_per_second / 1e3).round() * 1e3),
                format!("{:.1}", row.core_bits_per_second / 1e9),
                format!("{:.1}", row.headroom_bits),
                row.headroom_packets
                    .map_or_else(none, |times| format!("{times:.1}")),
                format!("{:.2}", row.cores_busy),
                row.cores.to_string(),
            ]);
        }
        table
    }

    /// Writes `table.txt`, `table.json` and the pictures into `directory`, which is made if it is not there.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, directory: &Path) -> Result<(), Failure> {
        fs::create_dir_all(directory)?;
        fs::write(directory.join("table.txt"), self.text())?;
        let json = serde_json::to_string_pretty(self)?;
        fs::write(directory.join("table.json"), json + "\n")?;
        fs::write(directory.join("rates.svg"), self.rates_picture())?;
        for (scope, name) in [
            (Scope::ExpressRoute, "headroom-expressroute.svg"),
            (Scope::Vpn, "headroom-vpn.svg"),
            (Scope::Tunnel, "headroom-tunnel.svg"),
        ] {
            fs::write(directory.join(name), self.headroom_picture(scope))?;
        }
        Ok(())
    }

    /// Packets per second of one core by size, above what two tiers allow.
    fn rates_picture(&self) -> String {
        let of_way = |way: Way| {
            let singles = self
                .rates
                .iter()
                .filter(move |rate| rate.way == way && rate.form == Form::Single);
            points(singles.map(|rate| (rate.packet_bytes, rate.packets_per_second / 1e3)))
        };
        let of_tier = |scope, bits| {
            let rows = self
                .skus
                .iter()
                .filter(move |row| row.tier.scope == scope && row.tier.bits_per_second == bits);
            points(rows.map(|row| (row.packet_bytes, row.allowed_packets_per_second / 1e3)))
        };
        let ways = Way::ALL
            .iter()
            .zip(CLASSES)
            .map(|(&way, class)| Curve::new(way.name(), class, of_way(way)));
        let tiers = [
            (
                "10 Gbps tier",
                "blue dashed",
                Scope::ExpressRoute,
                10_000_000_000,
            ),
            (
                "2.3 Gbps tunnel",
                "orange dashed",
                Scope::Tunnel,
                2_300_000_000,
            ),
        ];
        let tiers =
            tiers.map(|(name, class, scope, bits)| Curve::new(name, class, of_tier(scope, bits)));
        let lines: Vec<_> = ways.chain(tiers).collect();
        picture(
            "What one core moves in memory, and what two tiers allow",
            Scale::Linear(0.0, 1_500.0),
            "bytes of an IP packet",
            "thousand packets/s",
            &lines,
        )
    }

    /// How often one core has each tier of a scope, by size.
    fn headroom_picture(&self, scope: Scope) -> String {
        let rows = || self.skus.iter().filter(move |row| row.tier.scope == scope);
        let mut ticks: Vec<(f64, String)> = Vec::new();
        for row in rows().filter(|row| row.size == Size::Small) {
            // The first name says enough below a line.
            let name = row.tier.name.split(',').next().unwrap_or_default();
            ticks.push((ticks.len() as f64, name.to_owned()));
        }
        let of_size = |size: Size| {
            let rows = rows().filter(move |row| row.size == size);
            let places = rows.enumerate();
            places
                .map(|(place, row)| (place as f64, row.headroom()))
                .collect::<Vec<_>>()
        };
        let mut lines: Vec<_> = Size::ALL
            .iter()
            .zip(CLASSES)
            .enumerate()
            .map(|(nth, (&size, class))| {
                let curve = Curve::new(size.name(), class, of_size(size));
                curve.in_columns(nth, Size::ALL.len())
            })
            .collect();
        let last = ticks.len().saturating_sub(1) as f64;
        let once = vec![(-0.5, 1.0), (last + 0.5, 1.0)];
        lines.push(Curve::new("the tier", "orange dashed", once));
        picture(
            "How often one core in memory has what each tier allows",
            Scale::Named(-0.5, last + 0.5, ticks),
            "",
            "times the tier",
            &lines,
        )
    }
}

/// An empty table; columns from `numbers` on are aligned right.
fn table(head: &[&str], numbers: usize) -> Table {
    let mut table = Table::new();
    table.force_no_tty();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(head.iter().copied());
    for column in table.column_iter_mut().skip(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// In order of x.
fn points(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut points: Vec<_> = points.collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

/// Colours of the first four lines, as the reports' style has them.
const CLASSES: [&str; 4] = ["blue", "teal", "orange", "violet"];

/// A line of a picture.
struct Curve {
    name: &'static str,
    class: &'static str,
    points: Vec<(f64, f64)>,
    columns: Option<(usize, usize)>,
}

impl Curve {
    fn new(name: &'static str, class: &'static str, points: Vec<(f64, f64)>) -> Self {
        Self {
            name,
            class,
            points,
            columns: None,
        }
    }

    /// As bars, the nth of so many beside each other: what stands beside each other has no order.
    fn in_columns(self, nth: usize, of: usize) -> Self {
        Self {
            columns: Some((nth, of)),
            ..self
        }
    }
}

fn picture(label: &str, x: Scale, x_unit: &str, y_unit: &str, curves: &[Curve]) -> String {
    let values = || curves.iter().flat_map(|curve| &curve.points);
    let (least, most) = values().fold((f64::MAX, 1.0_f64), |(least, most), point| {
        (point.1.min(least), point.1.max(most))
    });
    let power = |exponent: f64| 10_f64.powf(exponent);
    let y = Scale::Log(power(least.log10().floor()), power(most.log10().ceil()));
    let lines = curves.iter().map(|curve| Line {
        name: curve.name,
        class: curve.class,
        points: &curve.points,
        joined: f64::INFINITY,
        columns: curve.columns,
    });
    Chart {
        label,
        x,
        y,
        x_unit,
        y_unit,
        lines: lines.collect(),
        marks: Vec::new(),
        shade: None,
    }
    .document()
}

/// A day as 2026-01-31, in UTC.
fn date(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (mut year, mut day) = (1970, seconds / 86_400);
    let is_leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    loop {
        let length = 365 + u64::from(is_leap(year));
        if day < length {
            break;
        }
        (year, day) = (year + 1, day - length);
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        (month, day) = (month + 1, day - length);
    }
    format!("{year}-{month:02}-{:02}", day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn days_have_dates() {
        let at = |seconds| date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01");
        assert_eq!(at(951_782_400), "2000-02-29");
        assert_eq!(at(1_798_761_599), "2026-12-31");
        assert_eq!(at(1_798_761_600), "2027-01-01");
    }
}
