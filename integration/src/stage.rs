//! What the stages of tests share: files, processes, gateways, and what `vng` says of them. The lab's commands have
//! nothing from here: what goes wrong here fails a test, by a panic.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::gateway::Gateway;
use crate::host::Host;
use crate::lab::Lab;
use crate::process::Spawner;
use crate::scratch::Scratch;
use crypto::key::PrivateKey;
use gateway::show::view::Counters;
use serde_json::Value;
use std::fmt::{Debug, Display};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long anything may take that is only waited for; a healthy machine needs a fraction of it.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Between two questions: often enough to see a failover, seldom enough to leave the processors to it.
const ASK_EVERY: Duration = Duration::from_millis(2);
/// The same where each is asked by a process of its own.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A test's turn, until it is dropped: tests of one program share its processors, and lost packets and probes
/// would tell of that only.
#[derive(Debug)]
pub struct Turn {
    _held: MutexGuard<'static, ()>,
}

impl Turn {
    /// Waits for it. A test that has failed has had its turn.
    pub fn take() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        Self {
            _held: TURN.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// Files and processes of one test. It goes last.
#[derive(Debug)]
pub struct Stage {
    /// Starts its processes.
    pub spawner: Arc<Spawner>,
    /// Has its files.
    pub scratch: Scratch,
    /// The program that is `vng`, under that name.
    pub vng: PathBuf,
}

impl Stage {
    /// An empty one. `program` becomes `vng` when [`crate::process::run_as_gateway`] runs in it, and
    /// `VNG_LAB_PROGRAM` names another build's, to see what a test says of it.
    ///
    /// # Panics
    /// The system gives no thread, no scratch directory, or no link in it.
    pub fn new(program: &str) -> Self {
        let scratch = Scratch::new().unwrap();
        let vng = scratch.path().join("vng");
        let other = std::env::var_os("VNG_LAB_PROGRAM");
        symlink(other.unwrap_or_else(|| program.into()), &vng).unwrap();
        let spawner = Arc::new(Spawner::new().unwrap());
        Self {
            spawner,
            scratch,
            vng,
        }
    }

    /// Another one that runs beside this one, with the same program: for scripts of one test that wait more than
    /// they compute.
    ///
    /// # Panics
    /// The system gives no thread or no scratch directory.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self {
            spawner: Arc::new(Spawner::new().unwrap()),
            scratch: Scratch::new().unwrap(),
            vng: self.vng.clone(),
        }
    }

    /// The control socket of the gateway of this name.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.scratch.path().join(format!("{name}.sock"))
    }

    /// The `[control]` table of that gateway, to which lines may be added.
    pub fn control(&self, name: &str) -> String {
        format!("[control]\nsocket = \"{}\"\n", self.socket(name).display())
    }

    /// Writes a private key to a file of its own; the file.
    ///
    /// # Panics
    /// The file cannot be written.
    pub fn key_file(&self, name: &str, key: &PrivateKey) -> PathBuf {
        let file = self.scratch.write(&format!("{name}.key"), &key.to_base64());
        file.unwrap()
    }

    /// A gateway on `host` with this configuration, whose socket is [`Self::socket`]; it does not run yet.
    ///
    /// # Panics
    /// The configuration file cannot be written.
    pub fn gateway_on(&self, host: &Arc<Host>, name: &str, text: &str) -> Gateway {
        let config = self.scratch.write(&format!("{name}.toml"), text).unwrap();
        let (host, spawner) = (Arc::clone(host), Arc::clone(&self.spawner));
        Gateway::new(host, spawner, self.vng.clone(), config, self.socket(name))
    }

    /// `vng` with these arguments, asked about this gateway.
    pub fn command(&self, gateway: &Gateway, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.vng);
        command
            .args(arguments)
            .arg("--socket")
            .arg(gateway.socket());
        command
    }

    /// Runs it; its standard output.
    ///
    /// # Panics
    /// It ends with another status than 0: with what it said. Or it cannot be executed.
    pub fn vng(&self, gateway: &Gateway, arguments: &[&str]) -> String {
        let output = self.command(gateway, arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "vng {arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// `vng show WHAT --json`.
    ///
    /// # Panics
    /// As of [`Self::vng`], or it prints something else than JSON.
    pub fn show(&self, gateway: &Gateway, what: &str) -> Value {
        serde_json::from_str(&self.vng(gateway, &["show", what, "--json"])).unwrap()
    }
}

/// Changes a gateway's configuration file; the gateway is not told.
///
/// # Panics
/// `change` changes nothing, or the file cannot be read or written.
pub fn edit(gateway: &Gateway, change: impl FnOnce(&str) -> String) {
    let text = fs::read_to_string(gateway.config()).unwrap();
    let edited = change(&text);
    assert_ne!(text, edited);
    fs::write(gateway.config(), edited).unwrap();
}

/// Changes the first `from` in it to `to`.
///
/// # Panics
/// As of [`edit`]: there is no `from`.
pub fn replace(gateway: &Gateway, from: &str, to: &str) {
    edit(gateway, |text| text.replacen(from, to, 1));
}

/// The text of one of the examples in `docs/examples`, without its ending.
///
/// # Panics
/// There is no such example.
pub fn example(name: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
    fs::read_to_string(directory.join(format!("{name}.toml"))).unwrap()
}

/// Asks until the answer is the expected one.
///
/// # Panics
/// It is not after [`PATIENCE`]: with the last one that was found instead.
pub fn until<T, E: Debug>(what: &str, mut ask: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(found) => {
                let left = Instant::now() < deadline;
                assert!(left, "not so: {what}; found {found:#?}");
            }
        }
        std::thread::sleep(ASK_EVERY);
    }
}

/// Waits until `holds`.
///
/// # Panics
/// It does not after [`PATIENCE`]: with `what` did not come, and what there is to `say`.
pub fn wait_for<S: Display>(what: &str, say: impl Fn() -> S, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}:\n{}", say());
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The members that the lab's gateway and edge send to each other over, or why over none.
///
/// # Panics
/// One of them does not answer.
pub fn members(lab: &Lab) -> [String; 2] {
    let ways = lab.ways().unwrap();
    ways.map(|told| told.member.unwrap_or(told.reason))
}

/// Waits until they send over members whose names begin so.
///
/// # Panics
/// As of [`until`] and [`members`].
pub fn wait_for_members(lab: &Lab, near: &str, far: &str) {
    until(&format!("members {near} and {far}"), || {
        let members = members(lab);
        let [there, back] = &members;
        let expected = there.starts_with(near) && back.starts_with(far);
        expected.then_some(()).ok_or(members)
    });
}

/// The counters of a gateway, once its ledger balances.
///
/// # Panics
/// As of [`settled`], or the gateway does not answer.
pub fn balanced(gateway: &Gateway) -> Counters {
    settled(|| gateway.counters().unwrap())
}

/// Counters that balance to the packet: the books of a gateway's threads are read one after the other while packets
/// go on, so one between two of them is waited for.
///
/// # Panics
/// They do not after [`PATIENCE`], or say that they do against their own sums.
pub fn settled(mut read: impl FnMut() -> Counters) -> Counters {
    until("the ledger balances", || {
        let counters = read();
        let difference = counters.totals.imbalance();
        assert_eq!(difference == 0, counters.balanced, "{counters:#?}");
        if counters.balanced {
            Ok(counters)
        } else {
            Err((difference, Box::new(counters)))
        }
    })
}
