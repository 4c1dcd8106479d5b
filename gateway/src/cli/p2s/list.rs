//! `vng p2s list`.

use super::super::Failure;
use super::super::output::{Style, print, print_json};
use super::super::{named_socket, show, usual_socket};
use crate::api::client::{Client, ClientError};
use crate::api::{Request, What};
use crate::config::{self, KeyFiles};
use crate::show::view::ClientView;
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(in super::super) struct List {
    /// The gateway's configuration file: names its socket, and the clients while it does not run
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The gateway's control socket, if it is another than the configuration's
    #[arg(short, long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &List) -> Result<(), Failure> {
    let config = match &arguments.config {
        Some(file) => Some(config::load(file, KeyFiles::Skipped)?.config),
        // The usual file says what it can; nobody has asked for it.
        None if arguments.socket.is_none() => {
            let usual = config::load(Path::new(config::DEFAULT_FILE), KeyFiles::Skipped);
            usual.ok().map(|loaded| loaded.config)
        }
        None => None,
    };
    let configured = config
        .as_ref()
        .map(|config| config.control.socket.as_path());
    // The environment comes before the usual file, and behind one that was named.
    let usual = arguments.config.is_none().then(named_socket).flatten();
    let named = arguments.socket.clone().or(usual);
    let socket = named.as_deref().or(configured);
    let client = Client::new(&socket.map_or_else(usual_socket, Path::to_path_buf));
    let request = Request::Show {
        what: What::Clients,
    };
    let clients: Vec<ClientView> = match (client.view(&request), &config) {
        (Ok(clients), _) => clients,
        (Err(ClientError::NoGateway { .. }), Some(config)) => show::configured_clients(config),
        (Err(error), _) => return Err(error.into()),
    };
    if arguments.json {
        return print_json(&clients);
    }
    print(&show::clients(Style::of_stdout(), &clients))
}
