//! `vng reload`.

use super::output::{self, json_text};
use super::{Failure, Socket};
use crate::api::Request;
use crate::api::client::Client;
use crate::show::view::ReloadReport;
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct Reload {
    #[command(flatten)]
    gateway: Socket,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Asks the running gateway to read its file again, and says what came of it.
pub(super) fn run(arguments: &Reload) -> Result<(), Failure> {
    let client = Client::new(&arguments.gateway.path()?);
    let report: ReloadReport = client.view(&Request::Reload)?;
    let done = text(&report);
    if arguments.json {
        return output::report(&json_text(&report)?, &done);
    }
    output::report(&done, &done)
}

fn text(report: &ReloadReport) -> String {
    let mut lines = Vec::new();
    if report.changed.is_empty() && report.needs_restart.is_empty() {
        lines.push("nothing changed".to_owned());
    }
    lines.extend(report.changed.iter().map(|line| format!("changed: {line}")));
    let restart = report.needs_restart.iter();
    lines.extend(restart.map(|line| format!("needs a restart: {line}")));
    let warnings = report.warnings.iter();
    lines.extend(warnings.map(|line| format!("warning: {line}")));
    lines.join("\n") + "\n"
}
