//! Parameters of a link's interface below `/proc/sys/net` that must be others while the gateway runs, and
//! what they were before.
//!
//! - With the interface's own MAC address on an untagged link, a packet socket is a tap: frames for that
//!   address the kernel also takes, and would route a second time where forwarding is on. Strict reverse path
//!   filtering (RFC 3704) drops them for IPv4, since the way back to their sources is not this interface; IPv6
//!   has no such filter, so the kernel's IPv6 is switched off there.
//! - On any untagged link the kernel hears what is sent to everybody, router advertisements among them, and
//!   would take a default route and an address from whoever sends one (RFC 4861, 6.3.4; RFC 6104). The link is
//!   the gateway's, not the host's: `accept_ra` goes to 0. Untagged frames beside a tagged link are the host's.
//!
//! What is changed is written into a file first, which a killed gateway leaves behind. It is locked while
//! its gateway lives (flock, which goes with the process, whatever way), so the next start of any
//! configuration knows which are left over, and puts back what they hold.

mod record;

pub(crate) use record::recover;

use crate::device::netlink::{LinkChange, LinkEvent};
use record::Record;
use std::fs;
use std::path::{Path, PathBuf};

/// A link, as far as it matters here.
#[derive(Clone, Debug)]
pub(crate) struct LinkNeeds {
    /// Interface.
    pub(crate) interface: String,
    /// The gateway uses the interface's own MAC address.
    pub(crate) shares_mac: bool,
}

impl LinkNeeds {
    /// Files below `/proc/sys/net`, and what they must hold.
    fn settings(&self) -> Vec<(String, &'static str)> {
        let of =
            |family: &str, setting: &str| format!("{family}/conf/{}/{setting}", self.interface);
        let mut all = vec![(of("ipv6", "accept_ra"), "0")];
        if self.shares_mac {
            all.push((of("ipv4", "rp_filter"), "1"));
            all.push((of("ipv6", "disable_ipv6"), "1"));
        }
        all
    }
}

/// The parameters of all links; dropped, it puts them back.
#[derive(Debug)]
pub(crate) struct Settings {
    needs: Vec<LinkNeeds>,
    record: Record,
    /// Index of each interface that has what it needs, in the order of `needs`.
    applied: Vec<u32>,
}

impl Settings {
    /// Sets what untagged links need. `beside`: the directory of the control socket, which holds the record
    /// where the program's own runtime directory cannot.
    pub(crate) fn apply(needs: Vec<LinkNeeds>, beside: &Path) -> Self {
        let mut settings = Self {
            applied: vec![0; needs.len()],
            needs,
            record: Record::new(beside),
        };
        for place in 0..settings.needs.len() {
            settings.set(place);
        }
        settings
    }

    /// An interface has come or changed: a new one of the same name begins with the system's defaults.
    pub(crate) fn link_is(&mut self, event: &LinkEvent) {
        for place in 0..self.needs.len() {
            let Some(known) = self.applied.get(place).copied() else {
                continue;
            };
            let own = self
                .needs
                .get(place)
                .is_some_and(|need| need.interface == event.name);
            match event.kind {
                LinkChange::Changed(_) if own && known != event.index => self.set(place),
                LinkChange::Removed if known == event.index => {
                    if let Some(slot) = self.applied.get_mut(place) {
                        *slot = 0;
                    }
                    let gone = self.needs.get(place).map(LinkNeeds::settings);
                    for (setting, _) in gone.into_iter().flatten() {
                        // Its parameters went with it.
                        self.record.forget(&setting);
                    }
                }
                _ => {}
            }
        }
    }

    fn set(&mut self, place: usize) {
        let Some(need) = self.needs.get(place) else {
            return;
        };
        let Some(index) = index_of(&need.interface) else {
            return;
        };
        for (setting, value) in need.settings() {
            let path = parameter(&setting);
            // Without IPv6 in the kernel there is no such file, and nothing to keep out.
            let Ok(before) = fs::read_to_string(&path) else {
                continue;
            };
            let before = before.trim();
            let written = self
                .record
                .remember(&setting, index, before, value)
                .and_then(|()| {
                    if before == value {
                        Ok(())
                    } else {
                        fs::write(&path, value)
                    }
                });
            match written {
                Ok(()) if before == value => {}
                Ok(()) => {
                    tracing::info!("net/{setting}: {before} to {value} while the gateway runs");
                }
                Err(error) => tracing::warn!(
                    "net/{setting} could not be set from {before} to {value}: {error}; {}",
                    consequence(&setting)
                ),
            }
        }
        if let Some(slot) = self.applied.get_mut(place) {
            *slot = index;
        }
    }
}

fn consequence(setting: &str) -> &'static str {
    if setting.ends_with("accept_ra") {
        "a router advertisement on that link may give this host a default route"
    } else {
        "the kernel may route this link's packets a second time"
    }
}

/// Index of an interface in the calling thread's network namespace.
fn index_of(interface: &str) -> Option<u32> {
    let found = crate::device::interface::Interface::query(interface);
    found.ok().map(|interface| interface.index)
}

/// The file of a parameter. `/proc/sys/net` shows the namespace of the thread that opens it.
fn parameter(setting: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(setting)
}
