//! `vng resize`.

use super::output::{self, json_text, thousands};
use super::{Failure, Socket};
use crate::api::client::{Client, ClientError};
use crate::api::{Request, What};
use crate::show::view::GatewayKind;
use crate::show::view::{self, ResizeReport, Status};
use clap::Args;
use std::thread;
use std::time::{Duration, Instant};

/// How long a gateway that is made anew may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is asked whether it is there.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, Args)]
pub(super) struct Resize {
    /// The gateway
    gateway: GatewayKind,
    /// Its new SKU
    sku: String,
    /// Generation of a VPN gateway's SKU
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=2))]
    generation: Option<u8>,
    /// Make the gateway anew where it cannot take the SKU as it runs: sessions, flows and what it has learned are lost
    #[arg(long)]
    recreate: bool,
    #[command(flatten)]
    at: Socket,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Asks the running gateway to take another SKU, and says what came of it.
pub(super) fn run(arguments: &Resize) -> Result<(), Failure> {
    let client = Client::new(&arguments.at.path()?);
    let begin = Instant::now();
    let mut report: ResizeReport = client.view(&Request::Resize {
        resize: view::Resize {
            gateway: arguments.gateway,
            sku: arguments.sku.clone(),
            generation: arguments.generation,
            recreate: arguments.recreate,
        },
    })?;
    let anew = if report.in_place {
        None
    } else {
        Some(wait(&client, report.incarnation)?)
    };
    report.took_ms = begin.elapsed().as_secs_f64() * 1e3;
    if let Some(status) = anew {
        report.incarnation = status.incarnation;
        if let Some(recreated) = status.recreated {
            report.outage_ms = recreated.outage_ms;
            report.lost = Some(recreated.lost);
        }
    }
    let done = text(&report);
    if arguments.json {
        return output::report(&json_text(&report)?, &done);
    }
    output::report(&done, &done)
}

/// Waits until the gateway is there again: as a later one than that of this number.
fn wait(client: &Client, last: u32) -> Result<Status, Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        let status = client.view::<Status>(&Request::Show { what: What::Status });
        match status {
            Ok(status) if status.incarnation > last => return Ok(status),
            Ok(_) | Err(ClientError::NoGateway { .. } | ClientError::Broken { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if Instant::now() >= until {
            let seconds = PATIENCE.as_secs();
            return Err(Failure::Work(format!(
                "the gateway has not come back within {seconds} s; its log says why"
            )));
        }
        thread::sleep(PAUSE);
    }
}

fn text(report: &ResizeReport) -> String {
    let (gateway, from, to) = (&report.gateway, &report.from, &report.to);
    let mut lines = Vec::new();
    if from == to {
        lines.push(format!("{gateway} is {to} already"));
    } else if report.in_place {
        lines.push(format!(
            "{gateway}: {from} to {to} in place, in {:.1} ms",
            report.took_ms
        ));
    } else {
        lines.push(format!(
            "{gateway}: {from} to {to}, made anew: ready after {:.0} ms, {:.0} ms of them without a data path",
            report.took_ms, report.outage_ms
        ));
    }
    if let Some(lost) = &report.lost {
        lines.push(format!(
            "lost: {} tunnel sessions, {} flows, {} neighbors, {} learned routes",
            thousands(lost.sessions),
            thousands(lost.flows),
            thousands(lost.neighbors),
            thousands(lost.routes)
        ));
    }
    lines.extend(report.changed.iter().map(|line| format!("changed: {line}")));
    let warnings = report.warnings.iter();
    lines.extend(warnings.map(|line| format!("warning: {line}")));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::view::Loss;

    #[test]
    fn what_was_lost_and_for_how_long_is_said() {
        let mut report = ResizeReport {
            gateway: "vpn".into(),
            from: "VpnGw1".into(),
            to: "Basic".into(),
            took_ms: 412.3,
            outage_ms: 87.6,
            lost: Some(Loss {
                sessions: 2,
                flows: 1_234,
                neighbors: 1,
                routes: 0,
            }),
            ..ResizeReport::default()
        };
        assert_eq!(
            text(&report),
            "vpn: VpnGw1 to Basic, made anew: ready after 412 ms, 88 ms of them without a data path\n\
             lost: 2 tunnel sessions, 1,234 flows, 1 neighbors, 0 learned routes\n"
        );
        report.lost = None;
        report.in_place = true;
        report.took_ms = 1.25;
        assert_eq!(text(&report), "vpn: VpnGw1 to Basic in place, in 1.2 ms\n");
        report.to = "VpnGw1".into();
        assert_eq!(text(&report), "vpn is VpnGw1 already\n");
    }
}
