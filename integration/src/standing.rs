//! A lab that is left standing: `vng-lab up`, `exec HOST CMD`, `down`.
//!
//! `up` starts one process in the background, the keeper, which holds the lab: its namespaces are the
//! keeper's descriptors, its gateways die with it. It holds a [`lock`], so there is one lab at most and
//! everybody knows its keeper; a state file says where each host's descriptor is, and the lab's own
//! directory has a copy of it. So there is nothing to clean up but the keeper and two files, whatever has
//! happened to them.

mod lock;

use crate::error::Error;
use crate::interrupt;
use crate::lab::{Lab, LabOptions};
use crate::process::{stat, stop_process};
use gateway::device::namespace::{Namespace, join_user_namespace};
use gateway::device::signal::Signals;
use lock::{Holder, Lock};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What is known of a standing lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// Process id of the keeper.
    pub keeper: u32,
    /// When it started, in clock ticks since boot: tells it from another process with its id.
    pub started: u64,
    /// Descriptor of each host's network namespace in the keeper.
    pub hosts: BTreeMap<String, i32>,
    /// Directory with configuration files and control sockets.
    pub directory: PathBuf,
}

/// What is left of a lab that is gone, and was removed.
pub type Leftovers = Vec<String>;

/// The name of the state's copy in the lab's directory.
const COPY: &str = "lab.json";
/// The directory in the lab's directory that has the program `vng`.
const PROGRAMS: &str = "bin";
/// The environment variable by which `vng` knows the control socket of the gateway it speaks to.
const SOCKET_VARIABLE: &str = "VNG_SOCKET";

impl State {
    /// The standing lab's state; `None` if none stands.
    ///
    /// # Errors
    /// [`Error::System`] where the lock's file cannot be opened or asked about; [`Error::Unexpected`] where a
    /// keeper has the lock and neither the state file nor the copy in its directory is its own: exit status 1,
    /// or 3 where the file is another user's.
    pub fn read() -> Result<Option<Self>, Error> {
        let path = state_file();
        let Some(keeper) = lock::holder(&lock_file()).map_err(lock_failed())? else {
            return Ok(None);
        };
        let read = || -> Result<Self, String> {
            let text = fs::read(&path).map_err(|error| error.to_string())?;
            serde_json::from_slice(&text).map_err(|error| format!("damaged: {error}"))
        };
        let ours = |state: &Self| {
            start_time(state.keeper) == Some(state.started)
                && keeper.0.is_none_or(|keeper| keeper == state.keeper)
        };
        let why = match read() {
            Ok(state) if ours(&state) => return Ok(Some(state)),
            Ok(state) => format!("of another lab, which process {} kept", state.keeper),
            Err(why) => why,
        };
        if let Some(state) = keeper.0.and_then(copy).filter(ours) {
            return Ok(Some(state));
        }
        // A lab that is being built has none yet.
        Err(Error::unexpected(
            format!(
                "the state of the lab that {keeper} keeps in {}",
                path.display()
            ),
            format!("{why}; if it is not just being built, `vng-lab down` removes it"),
        ))
    }

    /// The path of a gateway's control socket.
    pub fn socket(&self, gateway: &str) -> PathBuf {
        self.directory.join(format!("{gateway}.sock"))
    }

    /// The path of a gateway's configuration file.
    pub fn config(&self, gateway: &str) -> PathBuf {
        self.directory.join(format!("{gateway}.toml"))
    }
}

/// The copy of the state among the descriptors of a keeper, one of which is the lab's directory.
fn copy(keeper: u32) -> Option<State> {
    let descriptors = fs::read_dir(format!("/proc/{keeper}/fd")).ok()?;
    descriptors.flatten().find_map(|descriptor| {
        let text = fs::read(descriptor.path().join(COPY)).ok()?;
        serde_json::from_slice(&text).ok()
    })
}

fn lock_failed() -> impl FnOnce(std::io::Error) -> Error {
    Error::system(format!("lock {}", lock_file().display()))
}

fn stands_already(keeper: Holder) -> Error {
    let found = format!("the one that {keeper} keeps; `vng-lab down` removes it");
    Error::unexpected("no standing lab", found)
}

/// Starts a keeper with these arguments (the program's own, behind its name) and waits until its lab
/// stands; also what a lab that is gone had left. Who wants to stop before that ([`interrupt`]) leaves none.
///
/// # Errors
/// [`Error::Unexpected`] where a lab stands already, or the keeper ended without a word; [`Error::Told`] with
/// the keeper's own words and exit status where it says why there is no lab; [`Error::System`] where there is
/// no pipe, the keeper cannot be executed, or what is left cannot be removed; [`Error::Interrupted`]; also as
/// of [`State::read`].
pub fn up(arguments: &[OsString]) -> Result<(State, Leftovers), Error> {
    if let Some(keeper) = lock::holder(&lock_file()).map_err(lock_failed())? {
        return Err(stands_already(keeper));
    }
    let left = sweep()?;
    let action = || Error::system("start the lab's keeper");
    // One pipe for all that it says: it holds nothing of ours open, whose readers would wait for its end.
    let (reader, writer) = std::io::pipe().map_err(action())?;
    let complaints = writer.try_clone().map_err(action())?;
    let mut keeper = Command::new("/proc/self/exe")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(complaints)
        // A group of its own: the terminal's Ctrl-C is not for it.
        .process_group(0)
        .spawn()
        .map_err(action())?;
    interrupt::register(keeper.id());
    // Anything but `ready` is why there is no lab, in as many lines as it takes.
    let mut said = String::new();
    for line in BufReader::new(reader).lines().map_while(Result::ok) {
        if line == "ready" {
            let state =
                State::read()?.ok_or_else(|| Error::unexpected("a standing lab", "none"))?;
            return Ok((state, left));
        }
        said += &line;
        said.push('\n');
    }
    let status = keeper.wait().map_err(action())?;
    if interrupt::pending() {
        sweep()?;
    }
    interrupt::check()?;
    Err(match (status.code(), said.trim_end()) {
        (Some(code), why) if !why.is_empty() => Error::Told {
            status: u8::try_from(code).unwrap_or(1),
            said: why.into(),
        },
        _ => Error::unexpected(
            "a standing lab",
            format!("a keeper that ended without a word, {status}"),
        ),
    })
}

/// The keeper: builds the lab, says `ready`, and holds it until it is told to end. If nobody hears it say so,
/// the one who wanted the lab is gone, and so is the lab.
///
/// # Errors
/// [`Error::Unexpected`] where another keeper has the lock; as of [`Lab::new`] and of starting and stopping its
/// gateways; [`Error::System`] where the lock cannot be taken, a file of the lab not be written, or `epoll`
/// does not wait.
pub fn keep(options: &LabOptions, signals: &Signals) -> Result<(), Error> {
    let _lock = match Lock::take(&lock_file()).map_err(lock_failed())? {
        Ok(lock) => lock,
        Err(keeper) => return Err(stands_already(keeper)),
    };
    let mut lab = Lab::new(options)?;
    lab.start()?;
    let keeper = std::process::id();
    let state = State {
        keeper,
        started: start_time(keeper).unwrap_or(0),
        hosts: lab
            .hosts()
            .map(|h| (h.name().into(), h.namespace().as_fd().as_raw_fd()))
            .collect(),
        directory: lab.directory().to_owned(),
    };
    furnish(&state).map_err(Error::system("furnish the lab's directory"))?;
    let path = state_file();
    write_state(&path, &state).map_err(Error::system(format!("write {}", path.display())))?;
    let mut out = std::io::stdout();
    if writeln!(out, "ready").and_then(|()| out.flush()).is_ok() {
        let mut poller = gateway::device::event::Poller::new().map_err(Error::system("wait"))?;
        poller.add(signals, 0).map_err(Error::system("wait"))?;
        while signals.read().is_none() {
            poller
                .wait(None)
                .map_err(Error::system("wait"))?
                .for_each(drop);
        }
    }
    let _ = fs::remove_file(&path);
    lab.stop()
}

/// Puts into the lab's directory what its commands need: the copy of the state, and `vng` for PATH.
fn furnish(state: &State) -> std::io::Result<()> {
    write_state(&state.directory.join(COPY), state)?;
    let programs = state.directory.join(PROGRAMS);
    fs::create_dir(&programs)?;
    let own = format!("/proc/{}/exe", state.keeper);
    std::os::unix::fs::symlink(own, programs.join("vng"))
}

/// Removes the standing lab; nothing happens if there is none. Whether there was one, and what one that was
/// gone had left.
///
/// # Errors
/// [`Error::System`] where the lock's file cannot be opened or asked about, the keeper not be signalled, or a
/// file not be removed (exit status 3 where they are another user's); [`Error::Unexpected`] where the keeper is
/// of another process namespace and has no id here.
pub fn down() -> Result<(bool, Leftovers), Error> {
    let held = lock::holder(&lock_file()).map_err(lock_failed())?;
    if let Some(keeper) = held {
        let id = keeper.0.ok_or_else(|| {
            Error::unexpected("a keeper of this process namespace", keeper.to_string())
        })?;
        stop_process(id, Duration::from_mins(1))
            .map_err(Error::system(format!("stop {keeper}")))?;
    }
    let left = sweep()?;
    Ok((
        held.is_some(),
        if held.is_some() { Vec::new() } else { left },
    ))
}

/// Removes what a keeper that was killed has left: its files. Nothing happens while a lab stands.
fn sweep() -> Result<Leftovers, Error> {
    let path = state_file();
    let left = [&path, &lock_file()].map(|file| file.exists());
    if left == [false, false] {
        return Ok(Vec::new());
    }
    // Who has the lock is alone.
    let Ok(_lock) = Lock::take(&lock_file()).map_err(lock_failed())? else {
        return Ok(Vec::new());
    };
    let whole = fs::read(&path).map(|text| serde_json::from_slice::<State>(&text));
    let mut leftovers = Vec::new();
    if remove(&path)? {
        let path = path.display();
        leftovers.push(match whole {
            Ok(Ok(state)) => format!(
                "{path} of a lab whose keeper, process {}, is gone",
                state.keeper
            ),
            Ok(Err(error)) => format!("{path}, which was damaged ({error})"),
            Err(error) => format!("{path}, which could not be read ({error})"),
        });
    }
    Ok(leftovers)
}

/// Becomes `command`, run on a host of the standing lab; comes back only if that fails. `vng` is this
/// program's own and speaks to the host's gateway.
pub fn exec(host: &str, command: &[OsString]) -> Error {
    match prepare(host, command) {
        Ok(mut command) => {
            let name = command.get_program().to_string_lossy().into_owned();
            Error::system(format!("run {name} on {host}"))(command.exec())
        }
        Err(error) => error,
    }
}

fn prepare(host: &str, command: &[OsString]) -> Result<Command, Error> {
    let state = State::read()?.ok_or(Error::NoLab)?;
    let descriptor = state.hosts.get(host).ok_or_else(|| {
        let names: Vec<_> = state.hosts.keys().map(String::as_str).collect();
        Error::Usage(format!(
            "expected a host: one of {}, found {host:?}",
            names.join(", ")
        ))
    })?;
    let action = || Error::system(format!("enter {host}"));
    join_user_namespace(state.keeper).map_err(action())?;
    let path = format!("/proc/{}/fd/{descriptor}", state.keeper);
    let namespace = Namespace::open(Path::new(&path)).map_err(action())?;
    namespace.enter().map_err(action())?;
    let (program, rest) = command
        .split_first()
        .ok_or_else(|| Error::Usage("expected a command, found none".into()))?;
    let mut run = if program == "vng" {
        let mut run = Command::new("/proc/self/exe");
        run.arg0("vng").args(rest);
        // The commands that work on a file mean this host's, unless they say otherwise.
        let config = state.config(host);
        let says = |word: &OsString| {
            let word = word.as_encoded_bytes();
            word.starts_with(b"-c")
                || word.starts_with(b"--config")
                || word == b"--help"
                || word == b"-h"
        };
        let verb = rest
            .first()
            .is_some_and(|verb| ["check", "p2s"].iter().any(|v| verb == v));
        if verb && config.exists() && !rest.iter().any(says) {
            run.arg("-c").arg(config);
        }
        run
    } else {
        let mut run = Command::new(program);
        run.args(rest);
        run
    };
    // For whatever runs there, a shell too: `vng` is found, and speaks to this host's gateway.
    let socket = state.socket(host);
    if socket.exists() {
        run.env(SOCKET_VARIABLE, socket);
    }
    let programs = state.directory.join(PROGRAMS);
    run.env(
        "PATH",
        first_of_path(&programs, std::env::var_os("PATH").as_deref()),
    );
    Ok(run)
}

/// PATH with one more directory, which comes first.
fn first_of_path(directory: &Path, path: Option<&OsStr>) -> OsString {
    let rest = path.map(std::env::split_paths).into_iter().flatten();
    let all = std::iter::once(directory.to_owned()).chain(rest);
    std::env::join_paths(all).unwrap_or_else(|_| directory.into())
}

/// A file of this name in the directory that `VNG_LAB_STATE` names, else in the user's runtime directory;
/// root's is /run.
fn runtime_file(name: &str) -> PathBuf {
    let given = std::env::var_os("VNG_LAB_STATE").filter(|directory| !directory.is_empty());
    let users = || {
        let is_root = rustix::process::getuid().is_root() && !in_user_namespace();
        let own = std::env::var_os("XDG_RUNTIME_DIR");
        own.filter(|_| !is_root)
    };
    let directory = given.or_else(users).unwrap_or_else(|| "/run".into());
    Path::new(&directory).join(name)
}

/// Where the state is.
fn state_file() -> PathBuf {
    runtime_file("vng-lab.json")
}

/// What the keeper locks.
fn lock_file() -> PathBuf {
    runtime_file("vng-lab.lock")
}

/// Whether this process's ids are mapped, as they are for a user who is root of a namespace only.
fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_ascii_whitespace()
        .nth(1)
        .is_some_and(|outside| outside != "0")
}

/// Writes the state aside and puts it in its place in one step: whoever reads it finds all of it.
fn write_state(path: &Path, state: &State) -> std::io::Result<()> {
    let text = serde_json::to_string_pretty(state)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut aside = tempfile::NamedTempFile::new_in(directory)?;
    aside.write_all(text.as_bytes())?;
    aside.persist(path)?;
    Ok(())
}

/// Removes a file; whether it was there.
fn remove(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::system(format!("remove {}", path.display()))(error)),
    }
}

/// When a process started, in clock ticks since boot (field 22 of `/proc/PID/stat`); `None` if there is
/// none, or it has ended.
fn start_time(pid: u32) -> Option<u64> {
    let stat = stat(pid)?;
    let ended = matches!(stat.first()?.as_str(), "Z" | "X");
    stat.get(19)?.parse().ok().filter(|_| !ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_id() {
        let own = start_time(std::process::id()).unwrap();
        assert!(own > 0);
        assert_eq!(start_time(0), None);
        assert!(start_time(1).unwrap() <= own);
    }
}
