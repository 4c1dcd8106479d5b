//! The record of a gateway's changes: a file of lines, locked while the gateway lives.
//!
//! ```text
//!   vng settings 1 NAMESPACE
//!   INDEX BEFORE VALUE SETTING        2 0 1 ipv4/conf/eth1/rp_filter
//! ```
//! The namespace is the kernel's cookie of it, which is given to no other until the machine starts anew
//! (SO_NETNS_COOKIE, Linux 5.14), or where there is none the number of its file.

use super::{index_of, parameter};
use crate::device::namespace::Namespace;
use rustix::fs::{FlockOperation, flock};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where records lie, whatever the configuration.
const DIRECTORY: &str = "/run/vng";

/// Begins the name of a record.
const PREFIX: &str = "settings-";

/// The first word of the first line.
const HEAD: &str = "vng settings 1";

/// Records are short: a link has three lines.
const LONGEST: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    index: u32,
    before: String,
    value: String,
    setting: String,
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let line = Self {
            index: words.next()?.parse().ok()?,
            before: words.next()?.to_owned(),
            value: words.next()?.to_owned(),
            setting: words.next()?.to_owned(),
        };
        // Whoever could write the file could write the parameter too; a damaged one must not lead elsewhere.
        let parts: Vec<_> = line.setting.split('/').collect();
        let sound = matches!(parts.as_slice(), ["ipv4" | "ipv6", "conf", interface, name]
            if ![".", ".."].contains(interface) && ["accept_ra", "rp_filter", "disable_ipv6"].contains(name));
        let number = |text: &str| text.parse::<i32>().is_ok();
        (sound && number(&line.before) && number(&line.value)).then_some(line)
    }
}

/// The record of this gateway.
#[derive(Debug)]
pub(super) struct Record {
    beside: PathBuf,
    file: Option<(PathBuf, File)>,
    lines: Vec<Line>,
}

impl Record {
    pub(super) fn new(beside: &Path) -> Self {
        Self {
            beside: beside.to_owned(),
            file: None,
            lines: Vec::new(),
        }
    }

    /// Writes down that a parameter of the interface of this index is about to go from `before` to `value`.
    /// If another gateway has set it already, what it was before that counts.
    pub(super) fn remember(
        &mut self,
        setting: &str,
        index: u32,
        before: &str,
        value: &str,
    ) -> io::Result<()> {
        let mut line = Line {
            index,
            before: before.to_owned(),
            value: value.to_owned(),
            setting: setting.to_owned(),
        };
        if before == value {
            let others = others(&self.directories(), self.path());
            let theirs = others
                .iter()
                .find(|l| (l.index, &l.setting) == (index, &line.setting));
            let Some(theirs) = theirs else {
                return Ok(());
            };
            line.before.clone_from(&theirs.before);
        }
        self.lines.retain(|known| known.setting != setting);
        self.lines.push(line);
        self.write()
    }

    /// The interface is gone, and its parameters with it.
    pub(super) fn forget(&mut self, setting: &str) {
        let before = self.lines.len();
        self.lines.retain(|line| line.setting != setting);
        if self.lines.len() != before
            && let Err(error) = self.write()
        {
            tracing::warn!(%error, "the record of changed settings could not be written");
        }
    }

    fn directories(&self) -> [PathBuf; 2] {
        [PathBuf::from(DIRECTORY), self.beside.clone()]
    }

    fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|(path, _)| path.as_path())
    }

    /// Writes the lines, through to the file system's memory: a killed process loses nothing of that.
    fn write(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            for directory in self.directories() {
                match open(&directory) {
                    Ok(opened) => {
                        self.file = Some(opened);
                        break;
                    }
                    Err(error) => last = error,
                }
            }
            if self.file.is_none() {
                return Err(last);
            }
        }
        let mut text = format!("{HEAD} {}\n", namespace()?);
        for line in &self.lines {
            let Line {
                index,
                before,
                value,
                setting,
            } = line;
            let _ = writeln!(text, "{index} {before} {value} {setting}");
        }
        let Some((_, file)) = &mut self.file else {
            return Ok(());
        };
        file.seek(SeekFrom::Start(0))?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Some((path, _)) = &self.file else {
            return;
        };
        // What another gateway needs as well stays until that one ends.
        let others = others(&self.directories(), Some(path));
        let needed = |line: &Line| {
            let same = |other: &Line| (other.index, &other.setting) == (line.index, &line.setting);
            others.iter().any(same)
        };
        for line in self.lines.iter().filter(|line| !needed(line)) {
            restore(line);
        }
        let _ = fs::remove_file(path);
    }
}

/// Puts back what gateways that were killed have left changed in this network namespace. `beside`: the
/// directory of the control socket.
pub(crate) fn recover(beside: &Path) {
    let Ok(here) = namespace() else {
        return;
    };
    for path in records(&[PathBuf::from(DIRECTORY), beside.to_owned()]) {
        let Some((space, lines, locked)) = read(&path) else {
            continue;
        };
        let Some(_lock) = locked.filter(|_| space == here) else {
            continue;
        };
        for line in &lines {
            if restore(line) {
                tracing::info!(
                    "net/{} is {} again: a gateway that was killed had left it {}",
                    line.setting,
                    line.before,
                    line.value
                );
            }
        }
        let _ = fs::remove_file(&path);
    }
}

/// Puts a parameter back, unless somebody else has set it since, or the interface is another one. True if
/// that has changed it.
fn restore(line: &Line) -> bool {
    let interface = line.setting.split('/').nth(2).unwrap_or_default();
    if index_of(interface) != Some(line.index) || line.before == line.value {
        return false;
    }
    let path = parameter(&line.setting);
    let now = fs::read_to_string(&path).unwrap_or_default();
    now.trim() == line.value && fs::write(&path, &line.before).is_ok()
}

/// What the other gateways that live in this namespace have changed.
fn others(directories: &[PathBuf], own: Option<&Path>) -> Vec<Line> {
    let Ok(here) = namespace() else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    for path in records(directories) {
        if Some(path.as_path()) == own {
            continue;
        }
        // One that can be locked is a dead one's.
        if let Some((space, theirs, None)) = read(&path)
            && space == here
        {
            lines.extend(theirs);
        }
    }
    lines
}

/// The records in these directories.
fn records(directories: &[PathBuf]) -> Vec<PathBuf> {
    let mut found: Vec<_> = directories
        .iter()
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found.dedup();
    found
}

/// A record: the namespace, the lines, and the locked file if its gateway is dead.
fn read(path: &Path) -> Option<(String, Vec<Line>, Option<File>)> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    let about = file.metadata().ok()?;
    let own = about.is_file() && about.uid() == rustix::process::geteuid().as_raw();
    if !own {
        return None;
    }
    let mut text = String::new();
    (&file).take(LONGEST).read_to_string(&mut text).ok()?;
    let mut lines = text.lines();
    let space = lines.next()?.strip_prefix(HEAD)?.trim().to_owned();
    let lines = lines.filter_map(Line::parse).collect();
    let dead = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
    Some((space, lines, dead.then_some(file)))
}

/// Makes and locks the record of this process in a directory.
fn open(directory: &Path) -> io::Result<(PathBuf, File)> {
    if !directory.is_dir() {
        fs::DirBuilder::new().mode(0o755).create(directory)?;
    }
    let path = directory.join(format!("{PREFIX}{}-{}", std::process::id(), namespace()?));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(&path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok((path, file))
}

/// What tells the calling thread's network namespace from all others.
fn namespace() -> io::Result<String> {
    match Namespace::cookie() {
        Ok(cookie) => Ok(format!("cookie-{cookie}")),
        Err(_) => Ok(format!("inode-{}", Namespace::current()?.inode()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LinkNeeds, Settings};
    use super::*;
    use crate::device::netlink::{Netlink, VethEnd};

    fn need(shares_mac: bool) -> LinkNeeds {
        LinkNeeds {
            interface: "a0".to_owned(),
            shares_mac,
        }
    }

    fn value(setting: &str) -> String {
        let text = fs::read_to_string(parameter(setting)).unwrap();
        text.trim().to_owned()
    }

    fn state() -> [String; 3] {
        [
            "ipv6/conf/a0/accept_ra",
            "ipv4/conf/a0/rp_filter",
            "ipv6/conf/a0/disable_ipv6",
        ]
        .map(value)
    }

    /// Runs `work` in a namespace with the links a0 and b0, with a directory for records.
    fn on_a_machine(work: impl FnOnce(&Path, &mut Netlink) + Send) {
        let directory = tempfile::tempdir().unwrap();
        let space = Namespace::new().unwrap();
        let path = directory.path();
        space
            .run(|| {
                let mut netlink = Netlink::open().unwrap();
                let ends = (VethEnd::here("a0"), VethEnd::here("b0"));
                netlink.add_veth(ends.0, ends.1).unwrap();
                fs::write(parameter("ipv4/conf/a0/rp_filter"), "2").unwrap();
                work(path, &mut netlink);
            })
            .unwrap();
    }

    #[test]
    fn settings_come_back_at_the_end() {
        on_a_machine(|directory, _| {
            let before = state();
            let settings = Settings::apply(vec![need(true)], directory);
            assert_eq!(state(), ["0", "1", "1"]);
            drop(settings);
            assert_eq!(state(), before);
        });
    }

    #[test]
    fn the_next_start_puts_back_what_a_killed_gateway_left() {
        on_a_machine(|directory, _| {
            let before = state();
            let mut settings = Settings::apply(vec![need(true)], directory);
            // Killed: its lock goes, its record stays.
            settings.record.file = None;
            std::mem::forget(settings);
            // Somebody has set one of them since.
            fs::write(parameter("ipv4/conf/a0/rp_filter"), "0").unwrap();
            recover(directory);
            assert_eq!(state(), [before[0].as_str(), "0", before[2].as_str()]);
            fs::write(parameter("ipv4/conf/a0/rp_filter"), "1").unwrap();
            recover(directory);
            assert_eq!(value("ipv4/conf/a0/rp_filter"), "1", "the record is gone");
        });
    }

    #[test]
    fn the_living_are_left_alone_and_of_two_on_one_interface_the_last_restores() {
        on_a_machine(|directory, _| {
            let before = state();
            let first = Settings::apply(vec![need(false)], directory);
            recover(directory);
            assert_eq!(state()[0], "0", "a living gateway's");
            // One process has one record in a directory: this one's lies beside the socket.
            let second = Settings::apply(vec![need(false)], directory);
            drop(first);
            assert_eq!(state()[0], "0", "the second needs it");
            drop(second);
            assert_eq!(state(), before);
        });
    }

    #[test]
    fn a_new_interface_of_the_same_name_gets_them_too_and_nothing_of_the_old_ones() {
        on_a_machine(|directory, netlink| {
            let mut settings = Settings::apply(vec![need(true)], directory);
            let old = netlink.index("a0").unwrap();
            let event = |index, kind| crate::device::netlink::LinkEvent {
                index,
                name: "a0".to_owned(),
                kind,
            };
            netlink.delete_link("a0").unwrap();
            settings.link_is(&event(old, crate::device::netlink::LinkChange::Removed));
            let ends = (VethEnd::here("a0"), VethEnd::here("b0"));
            netlink.add_veth(ends.0, ends.1).unwrap();
            let before = state();
            let link = netlink.link("a0").unwrap().unwrap();
            let changed = crate::device::netlink::LinkChange::Changed(link.clone());
            settings.link_is(&event(link.index, changed));
            assert_eq!(state(), ["0", "1", "1"]);
            drop(settings);
            assert_eq!(state(), before);
        });
    }

    #[test]
    fn a_damaged_record_leads_nowhere_else() {
        for line in [
            "2 0 1 ipv4/conf/../../kernel/core_pattern",
            "2 0 1 kernel/conf/x/rp_filter",
            "2 x 1 ipv4/conf/a0/rp_filter",
            "2 0 1 ipv4/conf/../rp_filter",
            "2 0",
            "",
        ] {
            assert_eq!(Line::parse(line), None, "{line}");
        }
        assert!(Line::parse("2 0 1 ipv4/conf/a0/rp_filter").is_some());
    }
}
