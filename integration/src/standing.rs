//! A lab that is left standing: `vng-lab up`, `exec HOST CMD`, `down`.
//!
//! `up` starts one process in the background, the keeper, which holds the lab: its namespaces are the
//! keeper's descriptors, its gateways die with it. A state file says who the keeper is and where each
//! host's descriptor is. So there is nothing to clean up but the keeper, whatever has happened to it.

use crate::error::Error;
use crate::lab::{Lab, LabOptions};
use crate::process::stop_process;
use gateway::device::namespace::{Namespace, join_user_namespace};
use gateway::device::signal::Signals;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
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

impl State {
    /// The standing lab's state; `None` if none stands.
    pub fn read() -> Result<Option<Self>, Error> {
        let path = state_file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::system(format!("read {}", path.display()))(error)),
        };
        let state: Self = serde_json::from_str(&text)
            .map_err(|error| Error::unexpected("the state of a lab", error.to_string()))?;
        // A keeper that was killed leaves its file; the lab went with it.
        Ok((start_time(state.keeper) == Some(state.started)).then_some(state))
    }

    /// The path of a gateway's control socket.
    pub fn socket(&self, gateway: &str) -> PathBuf {
        self.directory.join(format!("{gateway}.sock"))
    }
}

/// Starts a keeper with these arguments (the program's own, behind its name) and waits until its lab
/// stands.
pub fn up(arguments: &[OsString]) -> Result<State, Error> {
    if let Some(state) = State::read()? {
        let found = format!(
            "the one that process {} keeps; `vng-lab down` removes it",
            state.keeper
        );
        return Err(Error::unexpected("no standing lab", found));
    }
    let action = || Error::system("start the lab's keeper");
    let mut keeper = Command::new("/proc/self/exe")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // A group of its own: the terminal's Ctrl-C is not for it.
        .process_group(0)
        .spawn()
        .map_err(action())?;
    let said = keeper
        .stdout
        .take()
        .map(BufReader::new)
        .and_then(|out| out.lines().next());
    match said {
        Some(Ok(line)) if line == "ready" => {
            State::read()?.ok_or_else(|| Error::unexpected("a standing lab", "none"))
        }
        _ => {
            let status = keeper.wait().map_err(action())?;
            Err(Error::unexpected(
                "a standing lab",
                format!("a keeper that ended, {status}"),
            ))
        }
    }
}

/// The keeper: builds the lab, says `ready`, and holds it until it is told to end.
pub fn keep(options: &LabOptions, signals: &Signals) -> Result<(), Error> {
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
    let path = state_file();
    write_state(&path, &state).map_err(Error::system(format!("write {}", path.display())))?;
    println!("ready");
    let mut poller = gateway::device::event::Poller::new().map_err(Error::system("wait"))?;
    poller.add(signals, 0).map_err(Error::system("wait"))?;
    while signals.read().is_none() {
        poller
            .wait(None)
            .map_err(Error::system("wait"))?
            .for_each(drop);
    }
    let _ = fs::remove_file(&path);
    lab.stop()
}

/// Removes the standing lab; nothing happens if there is none. True if there was one.
pub fn down() -> Result<bool, Error> {
    let state = State::read()?;
    if let Some(state) = &state {
        stop_process(state.keeper, Duration::from_mins(1))
            .map_err(Error::system(format!("stop process {}", state.keeper)))?;
    }
    let path = state_file();
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::system(format!("remove {}", path.display()))(error))
        }
        _ => Ok(state.is_some()),
    }
}

/// Becomes `command`, run on a host of the standing lab; comes back only if that fails. `vng` is this
/// program's own and speaks to the host's gateway.
pub fn exec(host: &str, command: &[OsString]) -> Error {
    match prepare(host, command) {
        Ok(mut command) => Error::system("run the command")(command.exec()),
        Err(error) => error,
    }
}

fn prepare(host: &str, command: &[OsString]) -> Result<Command, Error> {
    let state = State::read()?
        .ok_or_else(|| Error::unexpected("a standing lab", "none: `vng-lab up` makes one"))?;
    let descriptor = state.hosts.get(host).ok_or_else(|| {
        let names: Vec<_> = state.hosts.keys().map(String::as_str).collect();
        Error::unexpected(format!("a host: one of {}", names.join(", ")), host)
    })?;
    let action = || Error::system(format!("enter {host}"));
    join_user_namespace(state.keeper).map_err(action())?;
    let path = format!("/proc/{}/fd/{descriptor}", state.keeper);
    let namespace = Namespace::open(Path::new(&path)).map_err(action())?;
    namespace.enter().map_err(action())?;
    let (program, rest) = command
        .split_first()
        .ok_or_else(|| Error::unexpected("a command", "none"))?;
    let run = if program == "vng" {
        let mut run = Command::new("/proc/self/exe");
        run.arg0("vng");
        let (verb, rest) = rest.split_first().unzip();
        run.args(verb);
        // A command for a running gateway means this host's, unless it says otherwise.
        let socket = state.socket(host);
        let asks = verb.is_some_and(|verb| ["show", "explain", "reload"].iter().any(|v| verb == v));
        let rest = rest.unwrap_or_default();
        let says = rest
            .iter()
            .any(|a| a == "-s" || a.as_encoded_bytes().starts_with(b"--socket"));
        if asks && !says && socket.exists() {
            run.arg("-s").arg(socket);
        }
        run.args(rest);
        run
    } else {
        let mut run = Command::new(program);
        run.args(rest);
        run
    };
    Ok(run)
}

/// `vng-lab.json` in the user's runtime directory; root's is /run.
fn state_file() -> PathBuf {
    let directory = if rustix::process::getuid().is_root() && !in_user_namespace() {
        None
    } else {
        std::env::var_os("XDG_RUNTIME_DIR")
    };
    Path::new(&directory.unwrap_or_else(|| "/run".into())).join("vng-lab.json")
}

/// Whether this process's ids are mapped, as they are for a user who is root of a namespace only.
fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_ascii_whitespace()
        .nth(1)
        .is_some_and(|outside| outside != "0")
}

fn write_state(path: &Path, state: &State) -> std::io::Result<()> {
    let text = serde_json::to_string_pretty(state)?;
    let aside = path.with_extension("json.new");
    let mut file = fs::File::create(&aside)?;
    file.write_all(text.as_bytes())?;
    fs::rename(aside, path)
}

/// When a process started, in clock ticks since boot (field 22 of `/proc/PID/stat`); `None` if there is
/// none, or it has ended.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    fields.nth(18)?.parse().ok().filter(|_| !ended)
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
