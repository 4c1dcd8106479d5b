//! Who is compared: vng and its peers, each as a way to join two hosts.

use crate::config::Tagging;
use crate::peer;
use crate::program;
use crate::report::kernel;
use serde::Serialize;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

/// What kind of path a contestant is; only those of one kind are held against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An encrypted tunnel over one virtual Ethernet link.
    Tunnel,
    /// A private link, through two gateways in a row.
    ExpressRoute,
}

/// A contestant.
#[derive(Clone, Debug, PartialEq)]
pub struct Contestant {
    /// Its name in tables.
    pub name: String,
    /// What kind of path it is.
    pub kind: Kind,
    /// How it joins the hosts.
    pub(super) way: Way,
    /// Settings of vng beyond those of the lab.
    pub(super) settings: Vec<Setting>,
}

/// How two hosts are joined.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Way {
    /// vng's tunnel, over a link with or without UDP segmentation.
    Vng { udp_segmentation: bool },
    /// A peer's tunnel, made by this command.
    Peer { command: String },
    /// vng's ExpressRoute link with these tags.
    Link(Tagging),
    /// The kernel's forwarding.
    Kernel,
}

/// A setting of vng's configuration: `TABLE.KEY=VALUE`. The value is TOML; what is none is taken as text. In
/// a list of tables it is set in each of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    path: Vec<String>,
    value: toml::Value,
}

/// Another program as a tunnel: `NAME=COMMAND`. The command, as a shell takes it, makes a WireGuard device
/// named `{device}`, stays in the foreground and can be configured by `wg setconf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name in tables.
    pub name: String,
    /// The command.
    pub command: String,
}

/// vng with settings of its own, as a further contestant: `NAME=TABLE.KEY=VALUE,...`.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// Its name in tables.
    pub name: String,
    /// Its settings.
    pub settings: Vec<Setting>,
}

/// Everybody who can take part, in the order of the tables. `settings` are those of every vng.
pub(super) fn all(settings: &[Setting], variants: &[Variant], peers: &[Peer]) -> Vec<Contestant> {
    use Kind::{ExpressRoute, Tunnel};
    let one = |name: &str, kind, way: Way, more: &[Setting]| Contestant {
        name: name.into(),
        kind,
        way,
        settings: [settings, more].concat(),
    };
    let vng = |udp_segmentation| Way::Vng { udp_segmentation };
    let mut all = vec![
        one("vng", Tunnel, vng(true), &[]),
        one("vng-no-udp-gso", Tunnel, vng(false), &[]),
    ];
    for variant in variants {
        all.push(one(&variant.name, Tunnel, vng(true), &variant.settings));
    }
    let own = [
        ("wireguard-go", peer::WIREGUARD_GO.to_owned()),
        ("boringtun", peer::boringtun(None)),
    ];
    let others = peers
        .iter()
        .map(|peer| (peer.name.as_str(), peer.command.clone()));
    for (name, command) in own.into_iter().chain(others) {
        all.push(one(name, Tunnel, Way::Peer { command }, &[]));
    }
    for (name, tagging) in [
        ("expressroute", Tagging::Untagged),
        ("expressroute-qinq", Tagging::QinQ),
    ] {
        all.push(one(name, ExpressRoute, Way::Link(tagging), &[]));
    }
    all.push(one("kernel-forwarding", ExpressRoute, Way::Kernel, &[]));
    all
}

impl Contestant {
    /// Whether it is vng.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self.way, Way::Vng { .. } | Way::Link(_))
    }

    /// Programs that it needs and that are not installed.
    pub(super) fn missing(&self) -> Vec<&str> {
        let needed: Vec<&str> = match &self.way {
            Way::Vng {
                udp_segmentation: false,
            } => vec!["ethtool"],
            Way::Peer { command } => command
                .split_whitespace()
                .next()
                .into_iter()
                // What only a shell understands, or has a path, is for the shell to find.
                .filter(|word| word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'))
                .chain(["wg"])
                .collect(),
            Way::Vng { .. } | Way::Link(_) | Way::Kernel => Vec::new(),
        };
        let lacks = |name: &&str| program::find(name).is_none();
        needed.into_iter().filter(lacks).collect()
    }

    /// What it is, in words.
    pub(super) fn describe(&self) -> String {
        let settings: Vec<_> = self.settings.iter().map(ToString::to_string).collect();
        let settings = if settings.is_empty() || !self.is_ours() {
            String::new()
        } else {
            format!(", {}", settings.join(", "))
        };
        let what = match &self.way {
            Way::Vng {
                udp_segmentation: true,
            } => "vng's WireGuard tunnel".into(),
            Way::Vng {
                udp_segmentation: false,
            } => "vng's WireGuard tunnel, the link without UDP segmentation (the kernel cuts trains up)"
                .into(),
            Way::Peer { command } if self.name == "boringtun" => {
                format!("{command} (its default of 4 threads, which reorder a flow)")
            }
            Way::Peer { command } => command.clone(),
            Way::Link(tagging) => format!("two vng over an ExpressRoute link, {}", tagging.tags()),
            Way::Kernel => {
                "the kernel's forwarding through two namespaces, its CPU time is in the whole machine's"
                    .into()
            }
        };
        what + &settings
    }

    /// What it says of its version: the first line, if it is a program that is known to say one. `vng` is the
    /// one that runs, if it is another than this program.
    pub(super) fn version(&self, vng: Option<&Path>) -> Option<String> {
        match &self.way {
            Way::Peer { .. } => match self.name.as_str() {
                "wireguard-go" => version("wireguard-go"),
                "boringtun" => version("boringtun-cli"),
                _ => None,
            },
            Way::Kernel => Some(format!("Linux {}", kernel())),
            Way::Vng { .. } | Way::Link(_) => match vng {
                Some(program) => first_line(program),
                None => Some(format!("vng {}", env!("CARGO_PKG_VERSION"))),
            },
        }
    }
}

/// The first line of `NAME --version`.
pub(super) fn version(name: &str) -> Option<String> {
    first_line(&program::find(name)?)
}

fn first_line(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output();
    let text = String::from_utf8_lossy(&output.ok()?.stdout).into_owned();
    text.lines().next().map(str::to_owned)
}

impl Setting {
    /// A text for a key of a table.
    pub fn new(table: &str, key: &str, value: impl Into<String>) -> Self {
        Self {
            path: [table, key].map(str::to_owned).into(),
            value: toml::Value::String(value.into()),
        }
    }

    /// Sets it in a configuration; an error says what stands in its way.
    pub(super) fn apply(&self, config: &mut toml::Table) -> Result<(), String> {
        let (key, tables) = self.path.split_last().ok_or("no key")?;
        set(config, tables, key, &self.value)
            .map_err(|at| format!("{self}: {at} is no table of the configuration"))
    }
}

fn set(
    table: &mut toml::Table,
    way: &[String],
    key: &str,
    value: &toml::Value,
) -> Result<(), String> {
    let Some((first, rest)) = way.split_first() else {
        table.insert(key.into(), value.clone());
        return Ok(());
    };
    let empty = || toml::Value::Table(toml::Table::new());
    match table.entry(first.clone()).or_insert_with(empty) {
        toml::Value::Table(next) => set(next, rest, key, value),
        toml::Value::Array(list) => list.iter_mut().try_for_each(|item| {
            let item = item.as_table_mut().ok_or_else(|| first.clone())?;
            set(item, rest, key, value)
        }),
        _ => Err(first.clone()),
    }
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.path.join("."), self.value)
    }
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected TABLE.KEY=VALUE, found {text:?}");
        let (path, value) = text.split_once('=').ok_or_else(expected)?;
        let path: Vec<String> = path.trim().split('.').map(str::to_owned).collect();
        if path.len() < 2 || path.iter().any(String::is_empty) {
            return Err(expected());
        }
        let value = format!("value = {value}")
            .parse::<toml::Table>()
            .ok()
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(|| toml::Value::String(value.trim().to_owned()));
        Ok(Self { path, value })
    }
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, command) = named(text, "COMMAND")?;
        if !command.contains(peer::PLACEHOLDER) {
            let placeholder = peer::PLACEHOLDER;
            return Err(format!("expected {placeholder} in the command {command:?}"));
        }
        Ok(Self {
            name,
            command: command.into(),
        })
    }
}

impl FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, settings) = named(text, "TABLE.KEY=VALUE,...")?;
        let settings = settings.split(',').map(str::parse);
        Ok(Self {
            name,
            settings: settings.collect::<Result<_, _>>()?,
        })
    }
}

/// `NAME=REST`.
fn named<'a>(text: &'a str, rest: &str) -> Result<(String, &'a str), String> {
    let expected = || format!("expected NAME={rest}, found {text:?}");
    let (name, rest) = text.split_once('=').ok_or_else(expected)?;
    let usable = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || rest.is_empty() || !name.chars().all(usable) {
        return Err(expected());
    }
    Ok((name.into(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_reaches_its_table_and_every_one_of_a_list() {
        let mut config: toml::Table =
            "[vpn]\nmtu = 1420\n[[vpn.site]]\na = 1\n[[vpn.site]]\na = 2\n"
                .parse()
                .unwrap();
        for text in ["vpn.mtu=1400", "control.mode=spin", "vpn.site.lanes=4"] {
            text.parse::<Setting>().unwrap().apply(&mut config).unwrap();
        }
        let expected: toml::Table = "control.mode = 'spin'\n[vpn]\nmtu = 1400\n\
             [[vpn.site]]\na = 1\nlanes = 4\n[[vpn.site]]\na = 2\nlanes = 4\n"
            .parse()
            .unwrap();
        assert_eq!(config, expected);
        let polling: Setting = "control.polling=spin".parse().unwrap();
        assert_eq!(polling, Setting::new("control", "polling", "spin"));
        let through_a_number: Setting = "vpn.mtu.x=1".parse().unwrap();
        assert!(through_a_number.apply(&mut config).is_err());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in ["", "vpn.mtu", "mtu=1", ".a=1", "a.=1"] {
            assert!(text.parse::<Setting>().is_err(), "{text}");
        }
        for text in ["", "name", "=x {device}", "a b=x {device}", "name=x wg0"] {
            assert!(text.parse::<Peer>().is_err(), "{text}");
        }
        assert!("fast=polling".parse::<Variant>().is_err());
        let fast: Variant = "fast=control.polling=spin,vpn.mtu=1400".parse().unwrap();
        assert_eq!((fast.name.as_str(), fast.settings.len()), ("fast", 2));
        let peer: Peer = "mine=FOO=1 mine -f {device}".parse().unwrap();
        assert_eq!(
            (peer.name.as_str(), peer.command.as_str()),
            ("mine", "FOO=1 mine -f {device}")
        );
    }

    #[test]
    fn a_missing_program_is_named() {
        let peers: [Peer; 1] = ["absent=no-such-program {device}".parse().unwrap()];
        let all = all(&[], &[], &peers);
        let absent = all.iter().find(|one| one.name == "absent").unwrap();
        assert!(absent.missing().contains(&"no-such-program"));
        assert!(!absent.is_ours() && all[0].is_ours());
    }
}
