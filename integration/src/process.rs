//! Child processes that never outlive the lab.
//!
//! The lab starts gateways as real processes by executing its own program again with the hidden first
//! argument [`CHILD_OF`]. The child first asks the kernel to be killed when its parent goes
//! (PR_SET_PDEATHSIG), then looks whether the parent has gone already, then becomes `vng`. The kernel
//! means the parent *thread*, hence the [`Spawner`]: one thread that lives as long as the lab and starts
//! all of its processes.

use crate::host::Host;
use crate::interrupt;
use gateway::device::event::Poller;
use rustix::process::{
    Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal,
    set_parent_process_death_signal,
};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The hidden first argument of a child; the second is the parent's process id.
pub const CHILD_OF: &str = "--child-of";

/// If `arguments` (the program's name first) are those of a child of the lab, ties its life to the
/// parent's and runs `vng` with the rest; the first thing in `main`, before any thread starts. So does a
/// program that is called `vng`, by a link. `None`: go on as the lab.
pub fn run_as_gateway(arguments: &[OsString]) -> Option<ExitCode> {
    let [name, rest @ ..] = arguments else {
        return None;
    };
    let called = std::path::Path::new(name).file_name().unwrap_or_default();
    let rest = match rest {
        [first, parent, rest @ ..] if first.as_os_str() == CHILD_OF => {
            let parent = parent
                .to_str()
                .and_then(|text| text.parse().ok())
                .and_then(Pid::from_raw);
            let tied = set_parent_process_death_signal(Some(Signal::KILL));
            if tied.is_err() || parent.is_none() || getppid() != parent {
                return Some(ExitCode::FAILURE);
            }
            rest
        }
        rest if called == "vng" => rest,
        _ => return None,
    };
    let name = OsString::from("vng");
    Some(gateway::cli::main(
        std::iter::once(name).chain(rest.iter().cloned()),
    ))
}

type Task = Box<dyn FnOnce() + Send>;

/// The thread that starts the lab's processes.
#[derive(Debug)]
pub struct Spawner {
    tasks: Option<Sender<Task>>,
    thread: Option<JoinHandle<()>>,
}

impl Spawner {
    /// Starts the thread.
    ///
    /// # Errors
    /// What `pthread_create` says: EAGAIN where the system gives no thread.
    pub fn new() -> io::Result<Self> {
        let (tasks, queue) = channel::<Task>();
        let thread = std::thread::Builder::new()
            .name("spawner".into())
            .spawn(move || queue.into_iter().for_each(|task| task()))?;
        Ok(Self {
            tasks: Some(tasks),
            thread: Some(thread),
        })
    }

    /// Starts a process on `host`.
    ///
    /// # Errors
    /// What `setns` says where the host cannot be entered, or `execve` where the program cannot be executed
    /// (ENOENT: it is not there); [`io::ErrorKind::Other`] where the spawner's thread has ended.
    pub fn spawn(&self, host: &Arc<Host>, mut command: Command) -> io::Result<Child> {
        let (answer, answered) = channel();
        let host = Arc::clone(host);
        let gone = || io::Error::other("the thread that starts processes has ended");
        let task: Task = Box::new(move || {
            // A process begins in the network namespace of the thread that starts it.
            // A group of its own: a terminal's Ctrl-C is for the lab, which ends its programs itself.
            command.process_group(0);
            let spawned = host.namespace().enter().and_then(|()| command.spawn());
            if let Ok(child) = &spawned {
                interrupt::register(child.id());
            }
            let _ = answer.send(spawned);
        });
        self.tasks
            .as_ref()
            .ok_or_else(gone)?
            .send(task)
            .map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())?
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Asks a child to end (SIGTERM) and, if it has not within `patience`, kills it. Gives its exit status
/// if it ended by itself.
pub(crate) fn stop(child: &mut Child, patience: Duration) -> io::Result<Option<i32>> {
    if let Some(status) = child.try_wait()? {
        return Ok(status.code());
    }
    let killed = !stop_process(child.id(), patience)?;
    let status = child.wait()?;
    Ok(if killed { None } else { status.code() })
}

/// Asks any process to end (SIGTERM) and, if it has not within `patience`, kills it. Whether it ended by
/// itself.
pub(crate) fn stop_process(id: u32, patience: Duration) -> io::Result<bool> {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let watch = pidfd_open(pid, PidfdFlags::empty())?;
    pidfd_send_signal(&watch, Signal::TERM)?;
    let mut poller = Poller::new()?;
    poller.add(&watch, 0)?;
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if poller.wait(Some(left))?.count() > 0 {
            return Ok(true);
        }
        if left.is_zero() {
            pidfd_send_signal(&watch, Signal::KILL)?;
            poller.wait(None)?.for_each(drop);
            return Ok(false);
        }
    }
}

/// What `/proc/PID/stat` says of a process behind its name, which may contain anything and ends with the last
/// parenthesis: state, parent and so on, from field 3 of proc_pid_stat(5) on. `None` if there is no such process.
pub fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some(fields.map(str::to_owned).collect())
}

/// All processes that a process has started, and those that they have.
pub fn descendants(of: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parents: Vec<(u32, u32)> = pids
        .filter_map(|pid| Some((pid, stat(pid)?.get(1)?.parse().ok()?)))
        .collect();
    let mut found = vec![of];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        let children = parents.iter().filter(|(_, of)| *of == parent);
        found.extend(children.map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// CPU time that a process has used, user and system, all of its threads; the kernel tells it in steps of 10 ms.
/// `None` if there is no such process.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = stat(pid)?;
    let ticks = |field: usize| stat.get(field)?.parse::<u64>().ok();
    let ticks = (ticks(11)? + ticks(12)?) as f64;
    Some(Duration::from_secs_f64(
        ticks / rustix::param::clock_ticks_per_second() as f64,
    ))
}

/// The same in seconds; 0 for a process that is not there.
pub(crate) fn cpu_seconds(pid: Option<u32>) -> f64 {
    pid.and_then(cpu_time)
        .map_or(0.0, |time| time.as_secs_f64())
}
