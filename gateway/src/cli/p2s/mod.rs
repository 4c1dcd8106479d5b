//! `vng p2s`: point-to-site clients, made, listed and revoked.
//!
//! - [`add`]: a key pair and addresses for a new client, and its file ([`client_file`], [`staged`])
//! - [`list`], [`revoke`]; [`leftovers`]: what a revoked client leaves behind
//! - [`document`]: the configuration file, changed in place with its comments

mod add;
mod client_file;
mod document;
mod leftovers;
mod list;
mod revoke;
mod staged;

use super::{Failure, named_socket};
use crate::api::Request;
use crate::api::client::{Client, ClientError};
use crate::show::view::ReloadReport;
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

/// What `vng p2s` does.
#[derive(Debug, Subcommand)]
pub(super) enum P2s {
    /// Add a client: write its WireGuard file and put it into the configuration
    Add(add::Add),
    /// List the clients, with their sessions if the gateway runs
    List(list::List),
    /// Take a client away: its session ends at once
    Revoke(revoke::Revoke),
}

/// The configuration, and the gateway that runs on it.
#[derive(Debug, Args)]
struct Where {
    /// The gateway's configuration file [default: /etc/vng/vng.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The gateway's control socket, if it is another than the configuration's
    #[arg(short, long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(super) fn run(command: &P2s) -> Result<(), Failure> {
    match command {
        P2s::Add(add) => add::run(add),
        P2s::List(list) => list::run(list),
        P2s::Revoke(revoke) => revoke::run(revoke),
    }
}

impl Where {
    /// The configuration file.
    fn config(&self) -> &Path {
        let named = self.config.as_deref();
        named.unwrap_or(Path::new(crate::config::DEFAULT_FILE))
    }

    /// The running gateway's socket, where the file says `configured`. A file that was named comes before the
    /// environment, the usual one behind it.
    fn client(&self, configured: &Path) -> Client {
        let usual = self.config.is_none().then(named_socket).flatten();
        let named = self.socket.clone().or(usual);
        Client::new(named.as_deref().unwrap_or(configured))
    }
}

/// What became of the running gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Running {
    /// There is none: it will read the file when it starts.
    Absent,
    /// It has taken the file into force.
    Reloaded,
    /// It has not, and why.
    Refused(String),
}

impl Running {
    /// As JSON has it.
    fn name(&self) -> &'static str {
        match self {
            Self::Absent => "not running",
            Self::Reloaded => "reloaded",
            Self::Refused(_) => "refused",
        }
    }
}

/// Has the running gateway read its file again.
fn reload(client: &Client) -> Running {
    match client.view::<ReloadReport>(&Request::Reload) {
        Ok(_) => Running::Reloaded,
        Err(ClientError::NoGateway { .. }) => Running::Absent,
        Err(error) => Running::Refused(error.to_string()),
    }
}
