//! The control socket: one JSON request a line, one JSON answer a line, on a Unix socket that only its
//! owner may open.
//!
//! One thread serves all clients. Lines, clients and their idle time are bounded, so that no client can
//! make the gateway hold memory or keep others out: who is silent gives way to who calls. The data path knows
//! nothing of it. What changes the gateway is done on another thread ([`changes`]), and its client waits for it.

mod changes;
pub mod client;
mod socket;

use crate::device::event::Waker;
use crate::show::refusal::Refusal;
use crate::show::view::{
    BgpView, CircuitView, ClientView, Counters, Explanation, Flows, NeighborView, PolicyView,
    Query, ReloadReport, Resize, ResizeReport, RouteFilter, RouteView, Status, TunnelView,
};
use changes::{Changes, ClientNumber};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use socket::Bound;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The longest request, bytes without its newline. The longest there is, `explain`, has 300.
pub const LONGEST_REQUEST: usize = 4_096;
/// Clients at a time.
pub const MOST_CLIENTS: usize = 32;
/// How long a client may be silent.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client may not take its answer.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// How long a client may be silent while another waits for its place.
const GRACE: Duration = Duration::from_secs(1);

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
    /// A worker did not obey.
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
    listener: UnixListener,
    socket: Bound,
}

impl Server {
    /// Binds `path` with mode 0600, makes its directory, and takes the place of a socket that a gateway
    /// left behind.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let (listener, socket) = socket::place(path)?;
        Ok(Self { listener, socket })
    }

    /// Serves on a thread of its own, named `api`, until the result is dropped.
    ///
    /// # Errors
    /// The system gives no thread or no event.
    pub fn serve(self, gateway: Arc<dyn Gateway>) -> io::Result<Serving> {
        let stop = Arc::new(Stop {
            waker: Waker::new()?,
            asked: AtomicBool::new(false),
        });
        let changes = Changes::start(Arc::clone(&gateway), Arc::clone(&stop))?;
        let seen = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("api".to_owned())
            .spawn(move || {
                run(
                    &self.listener,
                    &seen,
                    &changes,
                    gateway.as_ref(),
                    &self.socket,
                );
            })?;
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
}

/// A socket that is being served. Dropping it ends the thread and removes the socket.
#[derive(Debug)]
pub struct Serving {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
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

/// How long a change that is nearly done is waited for at the end: whoever asked for another gateway gets his
/// answer from this one.
const LAST_ANSWER: Duration = Duration::from_millis(500);

/// One client and what is under way with it.
struct Client {
    number: ClientNumber,
    /// Whether a change that it asked for is under way.
    waits: bool,
    stream: UnixStream,
    /// Bytes of a request that is not complete.
    request: Vec<u8>,
    /// The answer, and how much of it has been taken.
    answer: Vec<u8>,
    taken: usize,
    /// When it last did anything.
    heard: Instant,
    /// Whether it is to be forgotten once it has its answer.
    last: bool,
}

impl Client {
    fn new(number: ClientNumber, stream: UnixStream, now: Instant) -> Self {
        Self {
            number,
            waits: false,
            stream,
            request: Vec::new(),
            answer: Vec::new(),
            taken: 0,
            heard: now,
            last: false,
        }
    }

    fn has_answer(&self) -> bool {
        self.taken < self.answer.len()
    }

    fn idle(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard)
    }

    /// Whether it has been silent for too long.
    fn is_over(&self, now: Instant) -> bool {
        let patience = if self.has_answer() {
            ANSWER_PATIENCE
        } else {
            PATIENCE
        };
        self.idle(now) >= patience
    }
}

/// The client that is silent for longest, if it may have to go for another.
fn idlest(clients: &[Client], now: Instant) -> Option<usize> {
    // Who waits for a change is not the one that is silent.
    let clients = clients.iter().enumerate().filter(|(_, c)| !c.waits);
    let oldest = clients.min_by_key(|(_, c)| c.heard);
    oldest
        .filter(|(_, client)| client.idle(now) >= GRACE)
        .map(|(index, _)| index)
}

fn run(
    listener: &UnixListener,
    stop: &Stop,
    changes: &Changes,
    gateway: &dyn Gateway,
    _socket: &Bound,
) {
    let (mut clients, mut number) = (Vec::<Client>::new(), 0);
    // While the system has no descriptor for another client, none is accepted: the listener would stay ready.
    let mut deaf_until: Option<Instant> = None;
    let mut complained = false;
    while !stop.asked.load(Ordering::Acquire) {
        let now = Instant::now();
        let deaf = deaf_until.is_some_and(|until| now < until);
        // While there is no room, callers wait in the kernel's backlog.
        let full = clients.len() >= MOST_CLIENTS && idlest(&clients, now).is_none();
        let mut set = vec![PollFd::new(&stop.waker, PollFlags::IN)];
        let listens = if deaf || full {
            PollFlags::empty()
        } else {
            PollFlags::IN
        };
        set.push(PollFd::new(listener, listens));
        for client in &clients {
            let wants = if client.waits {
                // That it goes away is told all the same.
                PollFlags::empty()
            } else if client.has_answer() {
                PollFlags::OUT
            } else {
                PollFlags::IN
            };
            set.push(PollFd::from_borrowed_fd(client.stream.as_fd(), wants));
        }
        let pause = if deaf || full { GRACE / 4 } else { GRACE };
        let timeout = (deaf || !clients.is_empty()).then_some(Timespec {
            tv_sec: pause.as_secs().cast_signed(),
            tv_nsec: pause.subsec_nanos().into(),
        });
        if let Err(error) = poll(&mut set, timeout.as_ref())
            && error != rustix::io::Errno::INTR
        {
            tracing::error!(%error, "the control socket is no longer served");
            return;
        }
        let ready: Vec<bool> = set.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(set);
        let now = Instant::now();
        if ready.first() == Some(&true) {
            stop.waker.clear();
        }
        let mut ready = ready.into_iter().skip(1);
        let caller = ready.next().unwrap_or(false);
        clients.retain_mut(|client| {
            let is_ready = ready.next().unwrap_or(false);
            if client.waits {
                client.heard = now;
                return !is_ready;
            }
            let alive = !is_ready || step(client, now, changes, gateway);
            alive && !client.is_over(now)
        });
        while let Some((of, line)) = changes.next() {
            done(&mut clients, of, line, changes, gateway);
        }
        if !caller {
            continue;
        }
        match listener.accept() {
            Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => {
                if clients.len() >= MOST_CLIENTS
                    && let Some(index) = idlest(&clients, now)
                {
                    clients.swap_remove(index);
                }
                number += 1;
                clients.push(Client::new(number, stream, now));
                complained = false;
            }
            Ok(_) => {}
            // It went away again.
            Err(error) if waits(&error) || error.kind() == io::ErrorKind::ConnectionAborted => {}
            // EMFILE, ENFILE, ENOMEM: who is silent makes room for who calls.
            Err(error) => {
                deaf_until = Some(now + GRACE);
                if let Some(index) = idlest(&clients, now) {
                    clients.swap_remove(index);
                }
                if !complained {
                    tracing::warn!(%error, "a caller at the control socket has to wait");
                    complained = true;
                }
            }
        }
    }
    while clients.iter().any(|client| client.waits) {
        let Some((of, line)) = changes.wait(LAST_ANSWER) else {
            return;
        };
        done(&mut clients, of, line, changes, gateway);
    }
}

/// Gives a client the answer that it waited for, and goes on with what it has asked since.
fn done(
    clients: &mut Vec<Client>,
    number: ClientNumber,
    line: Vec<u8>,
    changes: &Changes,
    gateway: &dyn Gateway,
) {
    let now = Instant::now();
    let Some(place) = clients.iter().position(|client| client.number == number) else {
        return;
    };
    let Some(client) = clients.get_mut(place) else {
        return;
    };
    (client.waits, client.answer, client.heard) = (false, line, now);
    if !give(client, now) || !respond_to_all(client, now, changes, gateway) {
        clients.swap_remove(place);
    }
}

/// Moves one client on; `false`: it is done with.
fn step(client: &mut Client, now: Instant, changes: &Changes, gateway: &dyn Gateway) -> bool {
    if client.has_answer() {
        if !give(client, now) {
            return false;
        }
    } else {
        let mut bytes = [0; LONGEST_REQUEST];
        match client.stream.read(&mut bytes) {
            Ok(0) => return false,
            Ok(length) => {
                client.heard = now;
                let bytes = bytes.get(..length).unwrap_or_default();
                client.request.extend_from_slice(bytes);
            }
            Err(error) => return waits(&error),
        }
    }
    respond_to_all(client, now, changes, gateway)
}

/// Answers what a client has asked; `false`: it is done with. Its next request waits until the answer before it is
/// taken.
fn respond_to_all(
    client: &mut Client,
    now: Instant,
    changes: &Changes,
    gateway: &dyn Gateway,
) -> bool {
    while !client.has_answer() && !client.waits {
        let request = match next_request(client) {
            None => return true,
            Some(Ok(request)) => request,
            Some(Err(refusal)) => {
                client.answer = line(&Response::Error(refusal));
                if !give(client, now) {
                    return false;
                }
                continue;
            }
        };
        if request.is_change() {
            client.waits = changes.ask(client.number, request);
            if !client.waits {
                return false;
            }
            continue;
        }
        client.answer = answer(request, gateway);
        if !give(client, now) {
            return false;
        }
    }
    true
}

/// The first complete request, if there is one.
fn next_request(client: &mut Client) -> Option<Result<Request, Refusal>> {
    let end = client.request.iter().position(|&byte| byte == b'\n');
    if end.unwrap_or(client.request.len()) > LONGEST_REQUEST {
        client.last = true;
        client.request.clear();
        let message = format!("a request has at most {LONGEST_REQUEST} bytes");
        return Some(Err(Refusal::bad(message)));
    }
    let rest = client.request.split_off(end? + 1);
    let line = std::mem::replace(&mut client.request, rest);
    Some(read(&line))
}

/// A request of one line.
fn read(line: &[u8]) -> Result<Request, Refusal> {
    let request = serde_json::from_slice(line);
    request.map_err(|error| Refusal::bad(format!("no such request: {error}")))
}

/// Writes what the client takes of its answer; `false`: it is done with.
fn give(client: &mut Client, now: Instant) -> bool {
    while let Some(left) = client.answer.get(client.taken..).filter(|l| !l.is_empty()) {
        match client.stream.write(left) {
            Ok(0) => return false,
            Ok(length) => {
                client.taken += length;
                client.heard = now;
            }
            Err(error) => return waits(&error),
        }
    }
    client.answer = Vec::new();
    client.taken = 0;
    !client.last
}

fn waits(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
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
