//! `vng p2s revoke`.
//!
//! 1. the running gateway ends the client's session, whatever else the file may have changed to
//! 2. the configuration, without the client
//! 3. the client's files ([`super::leftovers`])
//! 4. the running gateway reads the configuration

use super::super::output::{json_text, report};
use super::super::{Failure, usual_socket};
use super::document::Document;
use super::leftovers::{self, Leftovers};
use super::{Running, Where, reload};
use crate::api::Request;
use crate::api::client::ClientError;
use crate::config::{self, KeyFiles, LoadError};
use crate::telemetry::log::complain;
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(in super::super) struct Revoke {
    /// The client's name
    name: String,
    #[command(flatten)]
    gateway: Where,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Revoked<'a> {
    name: &'a str,
    config: &'a Path,
    /// `reloaded`, `not running` or `refused`.
    gateway: &'a str,
    /// Its files that are gone.
    removed: &'a [PathBuf],
    /// Its files that are there still.
    left: &'a [PathBuf],
}

pub(super) fn run(arguments: &Revoke) -> Result<(), Failure> {
    let (name, file) = (&arguments.name, arguments.gateway.config());
    // The gateway is asked before the file is locked: for a resize it waits for that lock itself.
    // A mistake elsewhere in the file keeps nobody's session alive.
    let socket = match config::load(file, KeyFiles::Skipped) {
        Ok(loaded) => loaded.config.control.socket,
        Err(LoadError::Wrong(_)) => config::socket_of(file).unwrap_or_else(usual_socket),
        Err(error) => return Err(error.into()),
    };
    let client = arguments.gateway.client(&socket);
    let request = Request::Revoke {
        client: name.clone(),
    };
    // 1. the session
    let was_running = match client.view::<bool>(&request) {
        Ok(was_there) => Some(was_there),
        Err(ClientError::NoGateway { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    // 2. the configuration
    let kept = |failure| {
        if was_running == Some(true) {
            complain(&format!(
                "{name}'s session is dead, but the file still has {name}: the next reload or start lets it in again; \
                 mend the file and revoke it again\n"
            ));
        }
        failure
    };
    let mut document = Document::open(file).map_err(kept)?;
    let mut leftovers = Leftovers::default();
    if document.remove(name) {
        let config = document.loaded.config.clone();
        document.save().map_err(kept)?;
        // 3. its files
        let mut clients = config.clients().iter();
        if let Some(client) = clients.find(|client| client.name == *name) {
            leftovers = leftovers::remove(file, &config, client);
        }
    } else if was_running != Some(true) {
        return Err(Failure::Usage(format!(
            "there is no client {name:?}; vng p2s list names them"
        )));
    } else {
        drop(document);
    }
    // 4. everything else
    let running = reload(&client);
    let told = match &running {
        Running::Absent => "the gateway does not run",
        Running::Reloaded | Running::Refused(_) => "its session is dead",
    };
    let lines = [vec![format!("{name} is revoked; {told}")], leftovers.told].concat();
    let done = lines.join("\n") + "\n";
    let reported = if arguments.json {
        let revoked = json_text(&Revoked {
            name,
            config: file,
            gateway: running.name(),
            removed: &leftovers.removed,
            left: &leftovers.left,
        })?;
        report(&revoked, &done)
    } else {
        report(&done, &done)
    };
    if let Running::Refused(why) = running {
        complain(&format!(
            "the rest of the configuration is not in force:\n{}\n",
            why.trim_end()
        ));
    }
    reported
}
