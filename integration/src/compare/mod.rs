//! `vng-lab compare`: vng beside its peers, in the same place, in the same minutes.
//!
//! 1. [`contestant`]: who takes part. Who is not installed is said, and the others go on.
//! 2. Round after round, each contestant in turn gets an [`arena`] of its own: two hosts that it joins. So a
//!    slow minute of the machine meets all of them alike.
//! 3. [`measure`] makes the measurements; [`search`] finds the rate without loss; [`metric`] is the list of
//!    all figures.
//! 4. [`report`]: medians and ranges over the rounds, and ratios within each round ([`statistic`]), as JSON,
//!    table and page.
//!
//! Whatever fails, what was found until then is reported, and everything is taken down.

mod arena;
pub mod contestant;
mod html;
mod measure;
pub mod metric;
pub mod report;
mod search;
pub mod statistic;
mod terminal;

use crate::error::Error;
use crate::interrupt;
use crate::peer;
use crate::report::kernel;
use crate::report::terminal::Progress;
use arena::{Arena, CONGESTION_CONTROL, LINK_MTU, Vng};
use contestant::{Contestant, Peer, Setting, Variant};
use measure::{Round, SIZES, tcp_generator};
use metric::Measurement;
use report::{Entry, Found, Missing, Report, Setup};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What is compared, and how.
#[derive(Clone, Debug)]
pub struct CompareOptions {
    /// How often each contestant has its turn.
    pub rounds: u32,
    /// How long each measurement takes.
    pub duration: Duration,
    /// The contestants by name; empty: all.
    pub only: Vec<String>,
    /// What is measured; empty: everything.
    pub measure: Vec<Measurement>,
    /// Further peers.
    pub peers: Vec<Peer>,
    /// Settings of every vng.
    pub settings: Vec<Setting>,
    /// Further contestants: vng with settings.
    pub variants: Vec<Variant>,
    /// The `vng` to run; `None`: the one that is part of this program.
    pub vng: Option<PathBuf>,
    /// The program that becomes `vng` when [`crate::process::run_as_gateway`] runs in it; `None`: this one.
    pub program: Option<PathBuf>,
    /// The command line, for the report.
    pub command: Vec<String>,
}

impl Default for CompareOptions {
    fn default() -> Self {
        Self {
            rounds: 3,
            duration: Duration::from_secs(5),
            only: Vec::new(),
            measure: Vec::new(),
            peers: Vec::new(),
            settings: Vec::new(),
            variants: Vec::new(),
            vng: None,
            program: None,
            command: Vec::new(),
        }
    }
}

impl CompareOptions {
    /// Who takes part; an error says what is wrong with the names.
    ///
    /// # Errors
    /// Two contestants have one name, or [`CompareOptions::only`] has a name that is nobody's, in words: bad
    /// usage, exit status 2.
    pub fn contestants(&self) -> Result<Vec<Contestant>, String> {
        let all = contestant::all(&self.settings, &self.variants, &self.peers);
        let mut names = BTreeSet::new();
        if let Some(twice) = all.iter().find(|one| !names.insert(one.name.as_str())) {
            return Err(format!("{:?} is the name of two contestants", twice.name));
        }
        if let Some(unknown) = self.only.iter().find(|name| !names.contains(name.as_str())) {
            let names: Vec<_> = all.iter().map(|one| one.name.as_str()).collect();
            return Err(format!(
                "no contestant is called {unknown:?}: there are {}",
                names.join(", ")
            ));
        }
        let chosen = |one: &Contestant| self.only.is_empty() || self.only.contains(&one.name);
        Ok(all.into_iter().filter(chosen).collect())
    }
}

/// Compares `contestants`, which [`CompareOptions::contestants`] gave. Who wants to stop ([`interrupt`])
/// ends it early, cleanly, in the middle of a measurement.
pub fn run(options: &CompareOptions, contestants: &[Contestant]) -> Report {
    let begun = Instant::now();
    let mut comparison = Comparison {
        options,
        progress: Progress::new(),
        report: Report::default(),
    };
    let result = comparison.play(contestants);
    let mut report = comparison.report;
    report.error = result.err().map(|error| error.to_string());
    report.duration_s = begun.elapsed().as_secs_f64();
    report.conclude();
    report
}

/// Writes `report.json` and `report.html` into `directory`, which is made if it is not there.
///
/// # Errors
/// [`Error::System`] where `directory` cannot be made or one of the two files not written,
/// [`Error::Unexpected`] where the report cannot be put into JSON: the command has printed its tables by then,
/// and ends with status 1.
pub fn write_report(report: &Report, directory: &Path) -> Result<(), Error> {
    crate::report::write(report, &html::page(report), directory)
}

/// The tables for people.
pub fn summary(report: &Report) -> String {
    terminal::text(report)
}

struct Comparison<'a> {
    options: &'a CompareOptions,
    progress: Progress,
    report: Report,
}

impl Comparison<'_> {
    fn play(&mut self, contestants: &[Contestant]) -> Result<(), Error> {
        let vng = self.vng()?;
        self.report.setup = self.setup(&vng);
        let mut present = Vec::new();
        for one in contestants {
            let missing = one.missing();
            if missing.is_empty() {
                present.push(one);
                self.report.contestants.push(entry(one, &vng));
                continue;
            }
            let missing = Missing {
                name: one.name.clone(),
                reason: format!("not installed: {}", missing.join(", ")),
            };
            // Loudly, and before the time is spent.
            let (name, reason) = (&missing.name, &missing.reason);
            let _ = writeln!(std::io::stderr(), "  NOT COMPARED: {name}: {reason}");
            self.report.missing.push(missing);
        }
        for round in 1..=self.options.rounds {
            for (at, one) in present.iter().enumerate() {
                let (found, result) = self.turn(round, one, &vng);
                if let Some(entry) = self.report.contestants.get_mut(at) {
                    entry.rounds.push(found);
                }
                result?;
            }
        }
        Ok(())
    }

    /// One contestant in one round. What goes wrong with it is part of what is found; an error besides ends
    /// the whole comparison.
    fn turn(&mut self, round: u32, one: &Contestant, vng: &Vng) -> (Found, Result<(), Error>) {
        let Self {
            options, progress, ..
        } = self;
        let title = format!("round {round} of {}, {}", options.rounds, one.name);
        let mut found = Found {
            round,
            ..Found::default()
        };
        let told = &mut |what: &str| {
            progress.begin(&format!("{title}: {what}"));
            interrupt::check()
        };
        let measurements: &[Measurement] = match &options.measure[..] {
            [] => &Measurement::ALL,
            some => some,
        };
        let mut play = || {
            told("begins")?;
            let arena = Arena::raise(one, vng)?;
            let mut turn = Round {
                arena: &arena,
                duration: options.duration,
                told,
                figures: &mut found.figures,
            };
            turn.run(measurements)?;
            arena.stop()
        };
        let result = play();
        // What the programs fail by once they have been ended is no news.
        let result = interrupt::check().and(result);
        progress.begin(&title);
        found.error = result.as_ref().err().map(ToString::to_string);
        let summary = found.error.clone().unwrap_or_else(|| brief(&found));
        progress.end(found.error.is_none(), &summary);
        let result = match result {
            Err(Error::Interrupted) => Err(Error::Interrupted),
            // Without what the lab needs nobody can do better.
            Err(error) if error.is_lack() && one.is_ours() => Err(error),
            _ => Ok(()),
        };
        (found, result)
    }

    fn vng(&self) -> Result<Vng, Error> {
        if let Some(path) = &self.options.vng {
            let action = || Error::system(format!("use {} as vng", path.display()));
            let program = path.canonicalize().map_err(action())?;
            return Ok(Vng {
                program,
                plain: true,
            });
        }
        let own = || std::env::current_exe().map_err(Error::system("find this program"));
        let program = self.options.program.clone().map_or_else(own, Ok)?;
        Ok(Vng {
            program,
            plain: false,
        })
    }

    fn setup(&self, vng: &Vng) -> Setup {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let cpus = read("/proc/cpuinfo");
        let model = cpus.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            ["model name", "Processor"]
                .contains(&name.trim())
                .then(|| value.trim())
        });
        let load = read("/proc/loadavg");
        let load = load.split_ascii_whitespace().next();
        let development = cfg!(debug_assertions);
        Setup {
            version: env!("CARGO_PKG_VERSION").into(),
            build: if development {
                "development"
            } else {
                "release"
            },
            vng: if vng.plain {
                vng.program.display().to_string()
            } else {
                "the one in vng-lab".into()
            },
            command: self.options.command.clone(),
            started: utc(SystemTime::now()),
            kernel: kernel(),
            processor: model.unwrap_or("processors").into(),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            load_before: load.and_then(|load| load.parse().ok()).unwrap_or(0.0),
            rounds: self.options.rounds,
            seconds: self.options.duration.as_secs_f64(),
            tcp_generator: tcp_generator(),
            congestion_control: CONGESTION_CONTROL,
            link_mtu: LINK_MTU,
            tunnel_mtu: peer::MTU,
            udp_payloads: SIZES,
        }
    }
}

fn entry(one: &Contestant, vng: &Vng) -> Entry {
    Entry {
        name: one.name.clone(),
        kind: one.kind,
        ours: one.is_ours(),
        description: one.describe(),
        version: one.version(vng.plain.then_some(vng.program.as_path())),
        rounds: Vec::new(),
        summary: BTreeMap::new(),
    }
}

/// A few figures of a round, for the line of progress.
fn brief(found: &Found) -> String {
    let figure = |key: &str, digits: usize, unit: &str| {
        let value = found.figures.get(key)?;
        Some(format!("{} {unit}", terminal::rounded(*value, digits)))
    };
    [
        figure("tcp_1_gbps", 2, "Gbps"),
        figure("udp_64_zero_loss_pps", 0, "pps of 64 B"),
        figure("rtt_idle_median_us", 0, "µs"),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>()
    .join(", ")
}

/// A moment as RFC 3339 has it, UTC: years are counted from March on, so that the leap day is the last, and
/// 400 of them are 146,097 days.
fn utc(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // 0000-03-01 was 719,468 days before 1970-01-01.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = era * 400 + year + carry;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, text) in cases {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn names_choose_and_wrong_ones_are_told() {
        let named = |only: &[&str]| {
            let only = only.iter().map(ToString::to_string).collect();
            let options = CompareOptions {
                only,
                ..CompareOptions::default()
            };
            options.contestants()
        };
        assert!(named(&[]).unwrap().len() >= 7);
        let two = named(&["kernel-forwarding", "vng"]).unwrap();
        assert_eq!(two[0].name, "vng");
        assert_eq!(two.len(), 2);
        assert!(named(&["vmg"]).unwrap_err().contains("wireguard-go"));
        let twice = CompareOptions {
            peers: vec!["vng=mine {device}".parse().unwrap()],
            ..CompareOptions::default()
        };
        assert!(twice.contestants().is_err());
    }
}
