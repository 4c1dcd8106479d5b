//! The control socket: one JSON request a line, one JSON answer a line, on a Unix socket that only its
//! owner may open.
//!
//! One thread serves all clients ([`serve`]), and keeps the socket's file where it belongs ([`socket`]). The data
//! path knows nothing of it. What changes the gateway is done on another thread ([`changes`]), and its client waits
//! for it.

mod changes;
pub mod client;
mod request;
mod serve;
mod socket;

use crate::device::event::Waker;
use crate::show::refusal::Refusal;
use crate::show::view::{
    BgpView, CircuitView, ClientView, Counters, Explanation, Flows, NeighborView, PolicyView,
    Query, ReloadReport, Resize, ResizeReport, RouteFilter, RouteView, Status, TunnelView,
};
use changes::Changes;
use serde::{Deserialize, Serialize};
use socket::Listening;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

pub use serve::{ANSWER_PATIENCE, LONGEST_REQUEST, MOST_CLIENTS, PATIENCE};

/// What `show` can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// The gateway at a glance: gateways, limits, paths and their health
    Status,
    /// The effective routes, with the losers and why
    Routes,
    /// The policy route table
    Policy,
    /// ExpressRoute circuits and their links
    Circuits,
    /// VPN tunnels
    Tunnels,
    /// Point-to-site clients
    Clients,
    /// Next hops and their MAC addresses
    Neighbors,
    /// BGP sessions
    Bgp,
    /// The flow table
    Flows,
    /// The packet ledger
    Counters,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// `{"command":"show","what":"counters"}`
    Show {
        /// What to show.
        what: What,
    },
    /// `{"command":"routes","filter":{"source":"bgp"}}`: those of the effective routes that are wanted
    Routes {
        /// Which.
        filter: RouteFilter,
    },
    /// `{"command":"explain","query":{...}}`
    Explain {
        /// The packet.
        query: Query,
    },
    /// `{"command":"reload"}`
    Reload,
    /// `{"command":"resize","resize":{...}}`
    Resize {
        /// The gateway and its new SKU.
        resize: Resize,
    },
    /// `{"command":"revoke","client":NAME}`: until the configuration is read again, which should not have it
    /// any more.
    Revoke {
        /// The client's name.
        client: String,
    },
}

impl Request {
    /// Whether the gateway is another afterwards: then it may take a while.
    pub(super) fn is_change(&self) -> bool {
        match self {
            Self::Reload | Self::Resize { .. } | Self::Revoke { .. } => true,
            Self::Show { .. } | Self::Routes { .. } | Self::Explain { .. } => false,
        }
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// `{"ok": ...}`: the view that was asked for.
    Ok(serde_json::Value),
    /// `{"error": {...}}`.
    Error(Refusal),
}

/// What the socket asks the running gateway. [`Gateway::reload`], [`Gateway::resize`] and [`Gateway::revoke`] are
/// called on a thread of their own, one at a time; all else on the API's thread, where none may block for long.
pub trait Gateway: Send + Sync {
    /// The gateway at a glance.
    fn status(&self) -> Status;
    /// The effective routes that the filter wants, active ones before those that lost to them.
    ///
    /// # Errors
    /// A source or a path that is not known.
    fn routes(&self, filter: &RouteFilter) -> Result<Vec<RouteView>, Refusal>;
    /// The policy route table in order.
    fn policy(&self) -> Vec<PolicyView>;
    /// ExpressRoute circuits in file order.
    fn circuits(&self) -> Vec<CircuitView>;
    /// Tunnels of sites.
    fn tunnels(&self) -> Vec<TunnelView>;
    /// Point-to-site clients, by name.
    fn clients(&self) -> Vec<ClientView>;
    /// Next hops of every link.
    fn neighbors(&self) -> Vec<NeighborView>;
    /// BGP sessions.
    fn bgp(&self) -> Vec<BgpView>;
    /// The flow table.
    fn flows(&self) -> Flows;
    /// The ledger of all threads.
    fn counters(&self) -> Counters;
    /// What would become of a packet.
    ///
    /// # Errors
    /// A name that is not known, or addresses of two IP versions.
    fn explain(&self, query: &Query) -> Result<Explanation, Refusal>;
    /// Reads the configuration again and takes what has changed into force.
    ///
    /// # Errors
    /// Everything that is wrong with the file, or why it could not be taken into force; the gateway runs
    /// on as before.
    fn reload(&self) -> Result<ReloadReport, Refusal>;
    /// Gives a gateway another SKU, in its configuration file too. Where it has to be made anew for that, it
    /// ends once this has been answered.
    ///
    /// # Errors
    /// A SKU that is unknown or too small, or that the gateway cannot take as it runs; nothing has changed.
    fn resize(&self, resize: &Resize) -> Result<ResizeReport, Refusal>;
    /// Takes a point-to-site client away: once this returns its session is dead. False if there is none of
    /// the name.
    ///
    /// # Errors
    /// A worker did not do what it was told.
    fn revoke(&self, client: &str) -> Result<bool, Refusal>;
}

/// Why there is no control socket.
#[derive(Debug)]
pub enum BindError {
    /// A gateway answers there already.
    InUse(PathBuf),
    /// Something that is no socket stands there.
    NotASocket(PathBuf),
    /// The system refused.
    System {
        /// The socket's path.
        socket: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

impl std::fmt::Display for BindError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InUse(socket) => write!(
                formatter,
                "a gateway listens at {} already; stop it, or set control.socket to another path",
                socket.display()
            ),
            Self::NotASocket(socket) => write!(
                formatter,
                "{} is there and is no socket; remove it, or set control.socket to another path",
                socket.display()
            ),
            Self::System { socket, error } => {
                write!(formatter, "control socket {}: {error}", socket.display())?;
                match error.kind() {
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                        formatter
                            .write_str("; set control.socket to a path where this user may write")
                    }
                    io::ErrorKind::InvalidFilename => {
                        formatter.write_str("; a socket's path has at most 107 bytes")
                    }
                    io::ErrorKind::NotADirectory => {
                        formatter.write_str("; set control.socket to a path in a directory")
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for BindError {}

/// A bound socket that nobody serves yet. Dropping it removes it.
#[derive(Debug)]
pub struct Server {
    socket: Listening,
}

impl Server {
    /// Binds `path` with mode 0600, makes its directory, and takes the place of a socket that a gateway
    /// left behind.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let socket = Listening::place(path)?;
        Ok(Self { socket })
    }

    /// Serves on a thread of its own, named `api`, until the result is dropped.
    ///
    /// # Errors
    /// The system gives no thread or no event.
    pub fn serve(self, gateway: Arc<dyn Gateway>) -> io::Result<Serving> {
        let stop = Arc::new(Stop {
            waker: Waker::new()?,
            asked: AtomicBool::new(false),
            look: AtomicBool::new(false),
        });
        let changes = Changes::start(Arc::clone(&gateway), Arc::clone(&stop))?;
        let seen = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("api".to_owned())
            .spawn(move || serve::run(self.socket, &seen, &changes, gateway.as_ref()))?;
        Ok(Serving {
            stop,
            thread: Some(thread),
        })
    }
}

#[derive(Debug)]
struct Stop {
    waker: Waker,
    asked: AtomicBool,
    /// Whether the socket's file is to be looked at.
    look: AtomicBool,
}

/// A socket that is being served. Dropping it ends the thread and removes the socket.
#[derive(Debug)]
pub struct Serving {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Has the socket's file looked at, and made again if it is gone: where the kernel does not say so.
    pub fn look(&self) {
        self.stop.look.store(true, Ordering::Release);
        self.stop.waker.wake();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.asked.store(true, Ordering::Release);
        self.stop.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An answer as the socket has it.
fn line(response: &Response) -> Vec<u8> {
    let mut line = serde_json::to_vec(response).unwrap_or_default();
    line.push(b'\n');
    line
}

/// The answer to one request, as the socket has it.
fn answer(request: Request, gateway: &dyn Gateway) -> Vec<u8> {
    line(&respond(request, gateway))
}

/// The answer to one request.
fn respond(request: Request, gateway: &dyn Gateway) -> Response {
    let value = match request {
        Request::Routes { filter } => match gateway.routes(&filter) {
            Ok(routes) => serde_json::to_value(routes),
            Err(refusal) => return Response::Error(refusal),
        },
        Request::Show { what } => match what {
            What::Status => serde_json::to_value(gateway.status()),
            What::Routes => match gateway.routes(&RouteFilter::default()) {
                Ok(routes) => serde_json::to_value(routes),
                Err(refusal) => return Response::Error(refusal),
            },
            What::Policy => serde_json::to_value(gateway.policy()),
            What::Circuits => serde_json::to_value(gateway.circuits()),
            What::Tunnels => serde_json::to_value(gateway.tunnels()),
            What::Clients => serde_json::to_value(gateway.clients()),
            What::Neighbors => serde_json::to_value(gateway.neighbors()),
            What::Bgp => serde_json::to_value(gateway.bgp()),
            What::Flows => serde_json::to_value(gateway.flows()),
            What::Counters => serde_json::to_value(gateway.counters()),
        },
        Request::Explain { query } => match gateway.explain(&query) {
            Ok(explanation) => serde_json::to_value(explanation),
            Err(refusal) => return Response::Error(refusal),
        },
        Request::Reload => match gateway.reload() {
            Ok(report) => serde_json::to_value(report),
            Err(refusal) => return Response::Error(refusal),
        },
        Request::Resize { resize } => match gateway.resize(&resize) {
            Ok(report) => serde_json::to_value(report),
            Err(refusal) => return Response::Error(refusal),
        },
        Request::Revoke { client } => match gateway.revoke(&client) {
            Ok(was_there) => serde_json::to_value(was_there),
            Err(refusal) => return Response::Error(refusal),
        },
    };
    match value {
        Ok(value) => Response::Ok(value),
        Err(error) => Response::Error(Refusal::failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests;
