//! `vng show routes`: the effective routes, all or some of them, of the running gateway or of a file.

use super::explain::offline_plan;
use super::output::{Style, list, or_dash, table};
use super::{Failure, Show};
use crate::config::{self, KeyFiles};
use crate::control::api::{Request, What};
use crate::control::client::Client;
use crate::control::effective::{self, Wanted};
use crate::control::view::{RouteFilter, RouteView};
use clap::Args;
use clap::builder::PossibleValuesParser;
use ipnet::IpNet;
use routing::rib::RouteSource;
use serde_json::Value;
use std::path::PathBuf;

/// What only `vng show routes` takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of show routes")]
pub(super) struct Options {
    /// Only routes of this prefix, of those inside it and of those around it
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    prefix: Option<IpNet>,
    /// Only routes of this source
    #[arg(long, value_name = "SOURCE",
          value_parser = PossibleValuesParser::new(RouteSource::ALL.map(RouteSource::name)))]
    source: Option<String>,
    /// Only routes over this circuit, link (circuit/link) or site
    #[arg(long, value_name = "NAME")]
    path: Option<String>,
    /// The routes of this file, offline, with every path up
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["socket", "watch"])]
    config: Option<PathBuf>,
    /// Offline: take this circuit, link or site for down (may be repeated)
    #[arg(long, value_name = "PATH", requires = "config")]
    down: Vec<String>,
}

/// A prefix, or an address, which is a prefix of its whole length.
fn prefix(written: &str) -> Result<IpNet, String> {
    let prefix = written.parse::<IpNet>().ok();
    let address = || written.parse::<std::net::IpAddr>().ok().map(IpNet::from);
    let prefix = prefix.or_else(address);
    prefix
        .map(|prefix| prefix.trunc())
        .ok_or_else(|| "a prefix is an address and a length, such as 10.2.0.0/16".to_owned())
}

impl Options {
    fn filter(&self) -> RouteFilter {
        RouteFilter {
            prefix: self.prefix,
            source: self.source.clone(),
            path: self.path.clone(),
        }
    }

    fn is_used(&self) -> bool {
        self.config.is_some() || self.filter() != RouteFilter::default()
    }
}

/// What to ask the gateway for, or its answer if that is known without it: what is in a file.
pub(super) fn ask(arguments: &Show) -> Result<Value, Failure> {
    let options = &arguments.routes;
    let what = arguments.what;
    if what != What::Routes && options.is_used() {
        return Err(Failure::Usage(
            "--prefix, --source, --path and --config are of vng show routes".to_owned(),
        ));
    }
    if let Some(file) = &options.config {
        let config = config::load(file, KeyFiles::Skipped)?.config;
        let plan = offline_plan(&config, &options.down)?;
        let wanted = Wanted::new(&plan, &options.filter())
            .map_err(|refusal| Failure::Usage(refusal.message))?;
        return serde_json::to_value(effective::routes(&plan, &wanted))
            .map_err(|error| Failure::Work(error.to_string()));
    }
    let request = if options.is_used() {
        Request::Routes {
            filter: options.filter(),
        }
    } else {
        Request::Show { what }
    };
    Ok(Client::new(&arguments.gateway.socket).ask(&request)?)
}

/// The effective routes, as Azure's table.
pub(super) fn text(style: Style, routes: &[RouteView]) -> String {
    if routes.is_empty() {
        return "no such routes\n".to_owned();
    }
    let header = [
        "state",
        "source",
        "prefix",
        "next hop type",
        "next hop",
        "weight",
        "AS path",
        "carried by",
        "why",
    ];
    let row = |route: &RouteView| {
        [
            route.state.clone(),
            route.source.clone(),
            route.prefix.to_string(),
            route.next_hop_type.clone(),
            or_dash(route.next_hop.as_ref()),
            route.weight.to_string(),
            match route.source.as_str() {
                "bgp" => route.as_path_length.to_string(),
                _ => "-".to_owned(),
            },
            list(&route.paths),
            route.why.clone().unwrap_or_default(),
        ]
    };
    table(style, &header, routes.iter().map(row))
}
