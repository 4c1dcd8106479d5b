//! `vng show routes`: the effective routes, all or some of them, of the running gateway or of a file.

use super::Offline;
use crate::api::{Request, What};
use crate::cli::Failure;
use crate::cli::output::{Style, list, table};
use crate::plan::Plan;
use crate::show::effective::{self, Wanted};
use crate::show::view::{RouteFilter, RouteView};
use clap::Args;
use clap::builder::PossibleValuesParser;
use ipnet::IpNet;
use routing::rib::RouteSource;

/// What only `vng show routes` takes.
#[derive(Debug, Args)]
pub(in crate::cli) struct Options {
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
    #[command(flatten)]
    pub(super) offline: Offline,
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

    /// What to ask the running gateway for.
    pub(super) fn request(&self) -> Request {
        match self.filter() {
            filter if filter == RouteFilter::default() => Request::Show { what: What::Routes },
            filter => Request::Routes { filter },
        }
    }

    /// The routes of a plan that are asked for.
    pub(super) fn of(&self, plan: &Plan) -> Result<Vec<RouteView>, Failure> {
        let wanted = Wanted::new(plan, &self.filter());
        let wanted = wanted.map_err(|refusal| Failure::Usage(refusal.message))?;
        Ok(effective::routes(plan, &wanted))
    }
}

/// The effective routes, as Azure's table.
pub(in crate::cli) fn text(style: Style, routes: &[RouteView]) -> String {
    if routes.is_empty() {
        return "no such routes\n".to_owned();
    }
    let header = [
        "state",
        "source",
        "prefix",
        "+next hop type",
        "next hop",
        "+weight",
        "+AS path",
        if style.wide {
            "carried by"
        } else {
            "carried by, or why not"
        },
        "+why",
    ];
    let row = |route: &RouteView| {
        [
            route.state.clone(),
            route.source.clone(),
            route.prefix.to_string(),
            route.next_hop_type.clone(),
            match &route.next_hop {
                Some(next_hop) => next_hop.clone(),
                None if style.wide => "-".to_owned(),
                None => route.next_hop_type.clone(),
            },
            route.weight.to_string(),
            match route.source.as_str() {
                "bgp" => route.as_path_length.to_string(),
                _ => "-".to_owned(),
            },
            match &route.why {
                // A route on standby carries once its turn has come.
                Some(why) if !style.wide && route.paths.is_empty() => why.clone(),
                _ => carriers(style, route),
            },
            route.why.clone().unwrap_or_default(),
        ]
    };
    table(style, &header, routes.iter().map(row))
}

/// The paths that carry a route; the links of its circuit without the circuit's name, which stands beside them.
fn carriers(style: Style, route: &RouteView) -> String {
    let circuit = route.next_hop.as_ref().filter(|_| !style.wide);
    let link = |path: &String| {
        let link = circuit.and_then(|circuit| path.strip_prefix(circuit)?.strip_prefix('/'));
        link.unwrap_or(path).to_owned()
    };
    list(&route.paths.iter().map(link).collect::<Vec<_>>())
}
