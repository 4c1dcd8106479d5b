//! `vng show`: one table for each view.

mod connection;
mod flow;
pub(super) mod routes;
mod status;

use super::explain::offline_plan;
use super::output::{Style, json, print, print_json};
use super::{Failure, Show, socket};
use crate::api::client::Client;
use crate::api::{Request, What};
use crate::config::schema::Config;
use crate::config::{self, KeyFiles};
use crate::show::describe;
use crate::show::inspect;
use crate::show::view::ClientView;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, Subcommand};
use connection::{bgp, circuits, neighbors, tunnels};
pub(super) use connection::{clients, policy};
use flow::{counters, flows};
use serde::de::DeserializeOwned;
use serde_json::Value;
use status::status;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// What `vng show` shows.
#[derive(Debug, Subcommand)]
pub(super) enum View {
    /// The gateway at a glance: gateways, limits, paths and their health
    Status(At),
    /// The effective routes, with the losers and why; of a file, offline, with -c
    Routes(routes::Options),
    /// The policy route table; of a file, offline, with -c
    Policy(Offline),
    /// ExpressRoute circuits and their links
    Circuits(At),
    /// VPN tunnels
    Tunnels(At),
    /// Point-to-site clients; of a file, offline, with -c
    Clients(File),
    /// Next hops and their MAC addresses
    Neighbors(At),
    /// BGP sessions; of a file, offline, with -c
    Bgp(File),
    /// The flow table
    Flows(At),
    /// The packet ledger
    Counters(At),
}

/// The file of the gateway that is asked, where only a running one can answer.
#[derive(Debug, Args)]
pub(super) struct At {
    /// The gateway's configuration file, which names its control socket
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A file to answer from, and what to assume of its paths.
#[derive(Debug, Args)]
pub(super) struct Offline {
    #[command(flatten)]
    file: File,
    /// Offline: assume that this circuit, link or site is down (may be repeated)
    #[arg(long, value_name = "PATH", requires = "config")]
    down: Vec<String>,
}

/// A file to answer from.
#[derive(Debug, Args)]
pub(super) struct File {
    /// Answer from this file, offline, with every path up [default without FILE: /etc/vng/vng.toml]
    #[arg(short, long, value_name = "FILE", num_args = 0..=1,
          default_missing_value = crate::config::DEFAULT_FILE)]
    config: Option<PathBuf>,
}

impl View {
    fn what(&self) -> What {
        match self {
            Self::Status(_) => What::Status,
            Self::Routes(_) => What::Routes,
            Self::Policy(_) => What::Policy,
            Self::Circuits(_) => What::Circuits,
            Self::Tunnels(_) => What::Tunnels,
            Self::Clients(_) => What::Clients,
            Self::Neighbors(_) => What::Neighbors,
            Self::Bgp(_) => What::Bgp,
            Self::Flows(_) => What::Flows,
            Self::Counters(_) => What::Counters,
        }
    }

    /// The file that is to answer instead of the running gateway.
    fn file(&self) -> Option<&Path> {
        let file = match self {
            Self::Routes(options) => &options.offline.file,
            Self::Policy(offline) => &offline.file,
            Self::Clients(file) | Self::Bgp(file) => file,
            _ => return None,
        };
        file.config.as_deref()
    }

    /// The file of the gateway that is asked.
    fn at(&self) -> Option<&PathBuf> {
        match self {
            Self::Status(at)
            | Self::Circuits(at)
            | Self::Tunnels(at)
            | Self::Neighbors(at)
            | Self::Flows(at)
            | Self::Counters(at) => at.config.as_ref(),
            Self::Routes(_) | Self::Policy(_) | Self::Clients(_) | Self::Bgp(_) => None,
        }
    }

    /// The answer of a configuration, where no gateway needs to run for it.
    fn offline(&self, config: &Config) -> Result<Value, Failure> {
        match self {
            Self::Routes(options) => {
                json(&options.of(&offline_plan(config, &options.offline.down)?)?)
            }
            Self::Policy(offline) => {
                let plan = offline_plan(config, &offline.down)?;
                json(&describe::policy(config, &plan, &[]))
            }
            Self::Clients(_) => json(&configured_clients(config)),
            Self::Bgp(_) => json(&inspect::bgp(config)),
            _ => Ok(Value::Null),
        }
    }
}

/// The clients of a configuration, by name, without what only a running gateway knows.
pub(super) fn configured_clients(config: &Config) -> Vec<ClientView> {
    let vpn = config.vpn.as_ref();
    let clients = vpn.and_then(|vpn| vpn.point_to_site.as_ref());
    let clients = clients.into_iter().flat_map(|clients| &clients.clients);
    let view = clients.map(|client| ClientView {
        name: client.name.clone(),
        address: client.address.clone(),
        public_key: BASE64.encode(client.public_key),
        ..ClientView::default()
    });
    let mut views: Vec<ClientView> = view.collect();
    views.sort_by(|a, b| a.name.cmp(&b.name));
    views
}

/// Shows once, or again and again until it is interrupted.
pub(super) fn run(arguments: &Show) -> Result<(), Failure> {
    let options = &arguments.options;
    let style = Style::of_stdout().wide(options.wide);
    let what = arguments.what.what();
    if arguments.what.file().is_some() && (options.socket.is_some() || options.watch.is_some()) {
        return Err(Failure::Usage(
            "--config answers from a file; --socket and --watch are of a running gateway"
                .to_owned(),
        ));
    }
    loop {
        let value = ask(arguments)?;
        if options.json {
            match options.watch {
                // One line each, so that a reader can tell where one ends.
                Some(_) => print(&format!("{}\n", json(&value)?))?,
                None => print_json(&value)?,
            }
        } else {
            let text = text(style, what, value)?;
            let clear = options.watch.is_some() && style.terminal;
            print(&if clear {
                format!("\x1b[H\x1b[2J{text}")
            } else {
                text
            })?;
        }
        match options.watch {
            Some(seconds) => thread::sleep(Duration::from_secs(seconds.into())),
            None => return Ok(()),
        }
    }
}

/// The running gateway's answer, or that of a file.
fn ask(arguments: &Show) -> Result<Value, Failure> {
    if let Some(file) = arguments.what.file() {
        let config = config::load(file, KeyFiles::Skipped)?.config;
        return arguments.what.offline(&config);
    }
    let request = match &arguments.what {
        View::Routes(options) => options.request(),
        other => Request::Show { what: other.what() },
    };
    let socket = socket(arguments.options.socket.as_ref(), arguments.what.at())?;
    Ok(Client::new(&socket).ask(&request)?)
}

fn text(style: Style, what: What, value: Value) -> Result<String, Failure> {
    Ok(match what {
        What::Status => status(style, &view(value)?),
        What::Routes => routes::text(style, &view::<Vec<_>>(value)?),
        What::Policy => policy(style, &view::<Vec<_>>(value)?),
        What::Circuits => circuits(style, &view::<Vec<_>>(value)?),
        What::Tunnels => tunnels(style, &view::<Vec<_>>(value)?),
        What::Clients => clients(style, &view::<Vec<_>>(value)?),
        What::Neighbors => neighbors(style, &view::<Vec<_>>(value)?),
        What::Bgp => bgp(style, &view::<Vec<_>>(value)?),
        What::Flows => flows(style, &view(value)?),
        What::Counters => counters(style, &view(value)?),
    })
}

fn view<T: DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|_| {
        let said = "the gateway is of another version than this command; restart it";
        Failure::Work(said.to_owned())
    })
}
