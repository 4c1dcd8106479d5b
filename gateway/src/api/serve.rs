//! Who is served, in which order, and for how long.
//!
//! Lines, clients and their time are bounded, so that no client can make the gateway hold memory or keep others out.
//! Time counts from the last thing that a client has brought to its end, a request that is complete or an answer that
//! is taken; bytes by themselves keep no place. While all places are taken, the one that has brought nothing to its
//! end for longest gives way to who calls.

use super::changes::{Changes, ClientNumber};
use super::request::read;
use super::socket::Listening;
use super::{Gateway, Request, Response, Stop, answer, line};
use crate::show::refusal::Refusal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The longest request, bytes without its newline. The longest there is, `explain`, has 300.
pub const LONGEST_REQUEST: usize = 4_096;
/// Clients at a time.
pub const MOST_CLIENTS: usize = 32;
/// How long a client may take for a request, silence before it included.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client may not take its answer.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// How long a client has its place for sure: a command sends its request as soon as it is connected. As many as the
/// kernel's backlog holds before a caller are through in five times this.
pub(super) const GRACE: Duration = Duration::from_millis(20);
/// How long no caller is accepted while the system has no descriptor for one.
const DEAF: Duration = Duration::from_secs(1);
/// How often clients' time is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long a change that is nearly done is waited for at the end: whoever asked for another gateway gets his
/// answer from this one.
const LAST_ANSWER: Duration = Duration::from_millis(500);

/// One client and what is under way with it.
pub(super) struct Client {
    number: ClientNumber,
    /// Whether a change that it asked for is under way.
    waits: bool,
    stream: UnixStream,
    /// Whether it is this user's or root's: others, whom the socket's owner may let in, give way first.
    own: bool,
    /// Bytes of a request that is not complete.
    request: Vec<u8>,
    /// The answer, and how much of it has been taken.
    answer: Vec<u8>,
    taken: usize,
    /// When it last took some of an answer.
    took: Instant,
    /// When it came, or last brought something to its end.
    since: Instant,
    /// Whether it is to be forgotten once it has its answer.
    last: bool,
}

impl Client {
    pub(super) fn new(number: ClientNumber, stream: UnixStream, now: Instant) -> Self {
        let own = |uid: rustix::process::Uid| uid.is_root() || uid == rustix::process::geteuid();
        Self {
            number,
            waits: false,
            own: socket_peercred(&stream).is_ok_and(|peer| own(peer.uid)),
            stream,
            request: Vec::new(),
            answer: Vec::new(),
            taken: 0,
            took: now,
            since: now,
            last: false,
        }
    }

    fn has_answer(&self) -> bool {
        self.taken < self.answer.len()
    }

    /// Whether its time is up.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let (since, patience) = if self.has_answer() {
            (self.took, ANSWER_PATIENCE)
        } else {
            (self.since, PATIENCE)
        };
        now.saturating_duration_since(since) >= patience
    }
}

/// The client that has to go for another, if one has.
pub(super) fn idlest(clients: &[Client], now: Instant) -> Option<usize> {
    let may_go = |client: &Client| {
        // Who waits for a change is not the one that is silent.
        !client.waits && now.saturating_duration_since(client.since) >= GRACE
    };
    let clients = clients.iter().enumerate().filter(|(_, c)| may_go(c));
    let first = clients.min_by_key(|(_, c)| (c.own, c.has_answer(), c.since));
    first.map(|(index, _)| index)
}

/// Takes a client's place away for another, if one has to go.
fn make_room(clients: &mut Vec<Client>, now: Instant, changes: &Changes, gateway: &dyn Gateway) {
    while let Some(index) = idlest(clients, now) {
        let asks = clients.get_mut(index).is_some_and(|client| {
            // What it asked just now is answered all the same.
            step(client, now, changes, gateway) && (client.waits || client.since == now)
        });
        if !asks {
            clients.swap_remove(index);
            return;
        }
    }
}

pub(super) fn run(mut socket: Listening, stop: &Stop, changes: &Changes, gateway: &dyn Gateway) {
    let (mut clients, mut number) = (Vec::<Client>::new(), 0);
    // While the system has no descriptor for another client, none is accepted: the listener would stay ready.
    let mut deaf_until: Option<Instant> = None;
    let mut complained = false;
    // In this order: whatever becomes of the file is seen by one of them.
    socket.watch();
    socket.look(Instant::now());
    while !stop.asked.load(Ordering::Acquire) {
        let now = Instant::now();
        let deaf = deaf_until.is_some_and(|until| now < until);
        // While there is no room, callers wait in the kernel's backlog.
        let full = clients.len() >= MOST_CLIENTS && idlest(&clients, now).is_none();
        let listens = if deaf || full {
            PollFlags::empty()
        } else {
            PollFlags::IN
        };
        let mut set = vec![
            PollFd::new(&stop.waker, PollFlags::IN),
            PollFd::from_borrowed_fd(socket.listener(), listens),
        ];
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
        // The last, since there may be none.
        set.extend(
            socket
                .events()
                .map(|events| PollFd::from_borrowed_fd(events, PollFlags::IN)),
        );
        let pause = match (full, deaf, clients.is_empty()) {
            (true, ..) => Some(GRACE),
            (_, true, _) => Some(DEAF / 4),
            (_, _, false) => Some(LOOK),
            (false, false, true) => None,
        };
        // Nothing of this wakes a gateway that nobody asks anything and whose socket is there.
        let pause = pause.into_iter().chain(socket.pause(now)).min();
        let timeout = pause.map(|pause| Timespec {
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
        // Before any request, so that who is answered finds the socket's file as it was remembered.
        let file = ready.get(2 + clients.len()) == Some(&true);
        if stop.look.swap(false, Ordering::AcqRel) || file || socket.is_due(now) {
            socket.look(now);
        }
        let mut ready = ready.into_iter().skip(1);
        let caller = ready.next().unwrap_or(false);
        clients.retain_mut(|client| {
            let is_ready = ready.next().unwrap_or(false);
            if client.waits {
                (client.since, client.took) = (now, now);
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
        // All who wait, but no more than places: others are to have their turn.
        for _ in 0..MOST_CLIENTS {
            let full = clients.len() >= MOST_CLIENTS;
            if full && idlest(&clients, now).is_none() {
                break;
            }
            match socket.accept() {
                Ok(stream) if stream.set_nonblocking(true).is_ok() => {
                    socket.remember();
                    number += 1;
                    let mut client = Client::new(number, stream, now);
                    if full {
                        make_room(&mut clients, now, changes, gateway);
                    }
                    // It may have asked already.
                    if step(&mut client, now, changes, gateway) {
                        clients.push(client);
                    }
                    complained = false;
                }
                Ok(_) => {}
                Err(error) if waits(&error) => break,
                // It went away again.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // EMFILE, ENFILE, ENOMEM: who is silent makes room for who calls.
                Err(error) => {
                    deaf_until = Some(now + DEAF);
                    make_room(&mut clients, now, changes, gateway);
                    if !complained {
                        tracing::warn!(%error, "a caller at the control socket has to wait");
                        complained = true;
                    }
                    break;
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
    (client.waits, client.answer) = (false, line);
    (client.since, client.took) = (now, now);
    if !give(client, now) || !respond_to_all(client, now, changes, gateway) {
        clients.swap_remove(place);
    }
}

/// Moves one client on; `false`: it is done with.
pub(super) fn step(
    client: &mut Client,
    now: Instant,
    changes: &Changes,
    gateway: &dyn Gateway,
) -> bool {
    if client.has_answer() {
        if !give(client, now) {
            return false;
        }
    } else {
        let mut bytes = [0; LONGEST_REQUEST];
        match client.stream.read(&mut bytes) {
            Ok(0) => return false,
            Ok(length) => {
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
                client.took = now;
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
        (client.since, client.took) = (now, now);
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

/// Writes what the client takes of its answer; `false`: it is done with.
fn give(client: &mut Client, now: Instant) -> bool {
    while let Some(left) = client.answer.get(client.taken..).filter(|l| !l.is_empty()) {
        match client.stream.write(left) {
            Ok(0) => return false,
            Ok(length) => {
                client.taken += length;
                client.took = now;
            }
            Err(error) => return waits(&error),
        }
    }
    if client.taken > 0 {
        client.since = now;
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
