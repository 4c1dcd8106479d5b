//! Open files: how many a gateway needs, held against the limit before anything is opened. A gateway that
//! meets the limit later loses a link for want of a socket, or cannot be asked anything any more.

use crate::api::MOST_CLIENTS;
use crate::config::schema::Config;
use crate::error::RunError;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fmt;

/// Standard streams, signals, the wakers of control, carrier, the API and the supervisor (7); what control,
/// carrier and the supervisor wait on (3); netlink: two of control's, one of carrier's (3); the control socket.
const FIXED: usize = 14;
/// A reload: the configuration, a key, netlink, a question about an interface; what the standard library opens
/// for a moment; and some that are inherited.
const SPARE: usize = 16;

/// Descriptors that a gateway of this configuration has open at most.
pub(crate) fn needed(config: &Config) -> usize {
    let workers = usize::from(config.control.workers);
    let circuits = config.circuits().iter();
    let links: usize = circuits.map(|circuit| circuit.links.len()).sum();
    let sites = config.sites().iter();
    let lanes = sites.map(|site| usize::from(site.lanes)).max().unwrap_or(1);
    // IPv4 and IPv6: of every worker on the base port, of one worker on that of each further lane.
    let sockets = match config.vpn {
        Some(_) => 2 * (workers + lanes.saturating_sub(1)),
        None => 0,
    };
    // With several workers each link, and the TUN device, has a program that shares flows out.
    let programs = if workers > 1 { links + 1 } else { 0 };
    // A worker: a queue of the TUN device, its bell, and what it waits on; a socket on each link, as control.
    FIXED + SPARE + MOST_CLIENTS + 3 * workers + links * (workers + 1) + sockets + programs
}

/// Raises the limit on open files as far as this process may, and holds what a gateway needs against it.
///
/// # Errors
/// It is not enough; says how many are.
pub(crate) fn allow(config: &Config) -> Result<(), RunError> {
    let needed = needed(config) as u64;
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    if allowed.is_some_and(|allowed| allowed < needed) {
        let allowed = allowed.unwrap_or_default();
        return Err(RunError::needed(TooFew { allowed, needed }));
    }
    Ok(())
}

/// The process may not have as many files open as the gateway needs.
#[derive(Debug)]
struct TooFew {
    allowed: u64,
    needed: u64,
}

impl fmt::Display for TooFew {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { allowed, needed } = self;
        write!(
            formatter,
            "this process may have {allowed} files open, and this gateway needs {needed}: \
             ulimit -n {needed}, or LimitNOFILE={needed} in its systemd unit"
        )
    }
}

impl std::error::Error for TooFew {}
