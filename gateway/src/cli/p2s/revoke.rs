//! `vng p2s revoke`.
//!
//! 1. the running gateway ends the client's session, whatever else the file may have changed to
//! 2. the configuration, without the client
//! 3. the running gateway reads it

use super::super::output::{print, print_json};
use super::super::{Failure, usual_socket};
use super::document::Document;
use super::{Running, Where, reload};
use crate::api::Request;
use crate::api::client::ClientError;
use crate::config::{self, KeyFiles, LoadError};
use crate::telemetry::log::complain;
use clap::Args;
use serde::Serialize;
use std::path::Path;

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
}

pub(super) fn run(arguments: &Revoke) -> Result<(), Failure> {
    let (name, file) = (&arguments.name, &arguments.gateway.config);
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
    if document.remove(name) {
        document.save().map_err(kept)?;
    } else if was_running != Some(true) {
        return Err(Failure::Usage(format!(
            "there is no client {name:?}; vng p2s list names them"
        )));
    } else {
        drop(document);
    }
    // 3. everything else
    let running = reload(&client);
    if arguments.json {
        print_json(&Revoked {
            name,
            config: &arguments.gateway.config,
            gateway: running.name(),
        })?;
    } else {
        let told = match &running {
            Running::Absent => "the gateway does not run",
            Running::Reloaded | Running::Refused(_) => "its session is dead",
        };
        print(&format!("{name} is revoked; {told}\n"))?;
    }
    if let Running::Refused(why) = running {
        complain(&format!(
            "the rest of the configuration is not in force:\n{}\n",
            why.trim_end()
        ));
    }
    Ok(())
}
