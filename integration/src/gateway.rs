//! A gateway of the lab: `vng run` as a process of its own, and questions to it.

use crate::error::Error;
use crate::host::Host;
use crate::process::{self, CHILD_OF, Spawner};
use crate::program;
use ::gateway::api::client::Client;
use ::gateway::api::{Request, What};
use ::gateway::show::view::{Counters, Explanation, Query, Status};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a gateway may take to say `ready`, and to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// Lines of output kept for when something goes wrong.
const LOG_LINES: usize = 40;

/// A gateway: configured, and running between [`start`](Gateway::start) and [`stop`](Gateway::stop).
#[derive(Debug)]
pub struct Gateway {
    host: Arc<Host>,
    spawner: Arc<Spawner>,
    program: PathBuf,
    /// Whether the program is `vng` itself, which does not know [`CHILD_OF`].
    plain: bool,
    config: PathBuf,
    socket: PathBuf,
    child: Option<Child>,
    /// They read what it writes.
    listeners: Vec<JoinHandle<()>>,
    log: Arc<Mutex<VecDeque<String>>>,
}

impl Gateway {
    /// A gateway on `host` with this configuration file and control socket. `program` becomes `vng` when
    /// [`crate::process::run_as_gateway`] runs in it.
    pub fn new(
        host: Arc<Host>,
        spawner: Arc<Spawner>,
        program: PathBuf,
        config: PathBuf,
        socket: PathBuf,
    ) -> Self {
        Self {
            host,
            spawner,
            program,
            plain: false,
            config,
            socket,
            child: None,
            listeners: Vec::new(),
            log: Arc::default(),
        }
    }

    /// The same with a program that is `vng` itself; util-linux's `setpriv` ties its life to the lab's.
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.plain = true;
        self
    }

    /// The same, started by this program, which becomes `vng` in the end.
    #[must_use]
    pub fn started_by(mut self, program: PathBuf) -> Self {
        self.program = program;
        self
    }

    /// The host it runs on.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Its configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Its control socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts it and waits until it says `ready`.
    ///
    /// # Errors
    /// [`Error::System`] where the program, or the `setpriv` in front of it, cannot be executed on the host, or
    /// there is no thread to read its output; [`Error::Gateway`], with its last lines, where it ends before it
    /// is `ready` or has not said so after 15 s. It is ended then.
    pub fn start(&mut self) -> Result<(), Error> {
        if self.child.is_some() {
            return Ok(());
        }
        let mut command = if self.plain {
            program::tied(&self.program)
        } else {
            let mut command = Command::new(&self.program);
            command.arg(CHILD_OF).arg(std::process::id().to_string());
            command
        };
        command.arg("run").arg("-c").arg(&self.config);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let action = || format!("start the gateway {}", self.host.name());
        let spawned = self.spawner.spawn(&self.host, command);
        let child = spawned.map_err(|e| Error::system(action())(e))?;
        // Owned by `self` from here on: whatever fails next, dropping it ends the process.
        let child = self.child.insert(child);
        let (said, ready) = channel();
        let log = Arc::clone(&self.log);
        let hear = move |line| hear(line, &log, &said);
        self.listeners = program::listen(child, self.host.name(), hear)
            .map_err(Error::system("start a thread"))?;
        self.wait_until_ready(&ready)
    }

    fn wait_until_ready(&mut self, ready: &Receiver<()>) -> Result<(), Error> {
        let found = match ready.recv_timeout(PATIENCE) {
            Ok(()) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => format!("not ready after {PATIENCE:?}"),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.as_mut().and_then(|child| child.wait().ok());
                status.map_or("ended before it was ready".into(), |s| {
                    format!("ended before it was ready, {s}")
                })
            }
        };
        let error = self.error(found);
        let _ = self.stop();
        Err(error)
    }

    /// Ends it and waits until it has ended. An error if it did not end cleanly by itself.
    ///
    /// # Errors
    /// [`Error::Gateway`], with its last lines, where it ended with another status than 0, by a signal, or did
    /// not end within 15 s of SIGTERM and was killed; [`Error::System`] where `pidfd_open`, the signal or
    /// `waitpid` fails.
    pub fn stop(&mut self) -> Result<(), Error> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let action = || format!("stop the gateway {}", self.host.name());
        let ended = process::stop(&mut child, PATIENCE).map_err(|e| Error::system(action())(e))?;
        self.hear_out();
        match ended {
            Some(0) => Ok(()),
            Some(status) => Err(self.error(format!("ended with status {status}"))),
            None => Err(self.error(format!("did not end within {PATIENCE:?} of SIGTERM"))),
        }
    }

    /// Sends it a signal, as `kill` does.
    ///
    /// # Errors
    /// [`Error::Gateway`] where it does not run, [`Error::System`] where `kill` fails.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        let Some(pid) = self.pid().and_then(|id| Pid::from_raw(id.cast_signed())) else {
            return Err(self.error("does not run".into()));
        };
        kill_process(pid, signal).map_err(Error::system(format!("signal {}", self.host.name())))
    }

    /// Waits until it has ended, and gives its exit status: `None` if a signal killed it.
    ///
    /// # Errors
    /// [`Error::Gateway`] where it does not run, [`Error::System`] where `waitpid` fails.
    pub fn wait(&mut self) -> Result<Option<i32>, Error> {
        let Some(mut child) = self.child.take() else {
            return Err(self.error("does not run".into()));
        };
        let status = child.wait();
        let status = status.map_err(Error::system(format!("wait for {}", self.host.name())))?;
        self.hear_out();
        Ok(status.code())
    }

    /// Waits until all that an ended gateway has written is read.
    fn hear_out(&mut self) {
        for listener in self.listeners.drain(..) {
            let _ = listener.join();
        }
    }

    /// Questions to it, from any thread.
    pub fn control(&self) -> Control {
        Control {
            name: self.host.name(),
            client: Client::new(&self.socket),
        }
    }

    /// The packet ledger, see [`Control::counters`].
    ///
    /// # Errors
    /// [`Error::Gateway`], as of [`Control::ask`].
    pub fn counters(&self) -> Result<Counters, Error> {
        self.control().counters()
    }

    /// What it wrote last.
    pub fn log(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn error(&self, found: String) -> Error {
        Error::Gateway {
            name: self.host.name().into(),
            found,
            log: self.log(),
        }
    }
}

/// Questions to a running gateway, through its control socket.
#[derive(Clone, Debug)]
pub struct Control {
    name: &'static str,
    client: Client,
}

impl Control {
    /// The packet ledger: `vng show counters`.
    ///
    /// # Errors
    /// [`Error::Gateway`], as of [`Control::ask`].
    pub fn counters(&self) -> Result<Counters, Error> {
        self.ask(&Request::Show {
            what: What::Counters,
        })
    }

    /// The gateway at a glance: `vng show status`.
    ///
    /// # Errors
    /// [`Error::Gateway`], as of [`Control::ask`].
    pub fn status(&self) -> Result<Status, Error> {
        self.ask(&Request::Show { what: What::Status })
    }

    /// What the gateway would do with a UDP packet from its virtual network: `vng explain`.
    ///
    /// # Errors
    /// [`Error::Gateway`], as of [`Control::ask`].
    pub fn explain(&self, source: IpAddr, destination: IpAddr) -> Result<Explanation, Error> {
        let query = Query {
            from: "vnet".into(),
            source,
            destination,
            protocol: 17,
            source_port: 40_000,
            destination_port: 5_201,
            icmp_type: None,
            dscp: 0,
        };
        self.ask(&Request::Explain { query })
    }

    /// Any view.
    ///
    /// # Errors
    /// [`Error::Gateway`] with the words of the gateway's client ([`::gateway::api::client::ClientError`]):
    /// nobody listens at the socket, or only its owner may, the connection broke or was silent for too
    /// long, the answer is not a `T`, or the gateway refuses the question.
    pub fn ask<T: serde::de::DeserializeOwned>(&self, request: &Request) -> Result<T, Error> {
        self.client.view(request).map_err(|error| Error::Gateway {
            name: self.name.into(),
            found: error.to_string(),
            log: String::new(),
        })
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// Keeps what a gateway writes, and tells when it says `ready`.
fn hear(line: String, log: &Mutex<VecDeque<String>>, said: &Sender<()>) {
    if line.trim() == "ready" {
        let _ = said.send(());
    }
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    if log.len() == LOG_LINES {
        log.pop_front();
    }
    log.push_back(line);
}
