//! TCP and UDP by iperf3, where it is installed: it has retransmissions and several flows in one process.

use crate::error::Error;
use crate::host::Host;
use crate::process::Spawner;
use crate::program::{self, Background};
use serde_json::Value;
use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A server on a host; it ends when it is dropped.
#[derive(Debug)]
pub struct Iperf {
    server: Background,
    runs: Cell<usize>,
}

impl Iperf {
    /// Starts the server on `host`.
    ///
    /// # Errors
    /// [`Error::System`] where iperf3 is not installed, or cannot be started.
    pub fn start(spawner: &Spawner, host: &Arc<Host>) -> Result<Self, Error> {
        let server = Background::start(spawner, host, &["iperf3", "-s", "--forceflush"])?;
        let runs = Cell::new(0);
        Ok(Self { server, runs })
    }

    /// Runs the client on `from` with these options, `limit` at the longest; the `end` of its report.
    ///
    /// # Errors
    /// [`Error::Unexpected`] where the server does not listen within 15 s, or iperf3 fails, is ended at `limit`
    /// or writes no report: with its own words; [`Error::System`] where it cannot be started;
    /// [`Error::Interrupted`] where the user wants to stop.
    pub fn run(
        &self,
        spawner: &Spawner,
        from: &Arc<Host>,
        target: IpAddr,
        options: &[&str],
        limit: Duration,
    ) -> Result<Value, Error> {
        // After each run the server closes its socket and opens it again.
        self.runs.set(self.runs.get() + 1);
        self.server.wait_for("Server listening", self.runs.get())?;
        let target = target.to_string();
        let words = [&["iperf3", "-J", "-c", &target][..], options].concat();
        let ended = program::run(spawner, from, limit, &words)?;
        let failed =
            |what: String| Error::unexpected(format!("a report of iperf3 {options:?}"), what);
        let mut report: Value = serde_json::from_str(&ended.out)
            .map_err(|error| failed(format!("{error}: {ended:?}")))?;
        if !ended.success || report.get("error").is_some() {
            let error = report.get("error").map(Value::to_string);
            return Err(failed(format!(
                "{} {}",
                error.unwrap_or_default(),
                ended.err
            )));
        }
        let end = report.get_mut("end").map(Value::take);
        end.ok_or_else(|| failed("one without an end".into()))
    }
}
