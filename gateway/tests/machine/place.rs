//! A directory with a configuration, a namespace, and `vng` in both.

use gateway::api::client::Client;
use gateway::api::{Request, What};
use gateway::device::namespace::Namespace;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// No event takes so long unless it never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const VNG: &str = env!("CARGO_BIN_EXE_vng");

/// The smallest gateway: one worker, one site that calls.
pub(crate) const VPN: &str = r#"
[vpn]
sku              = "Unlimited"
private_key_file = "vpn.key"

[[vpn.site]]
name       = "shop"
public_key = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="
prefixes   = ["192.168.20.0/24"]
"#;

/// A directory and a namespace.
pub(crate) struct Place {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) space: Namespace,
}

impl Place {
    /// With the virtual network and `more` in `vng.toml`, and `control` in its control section.
    pub(crate) fn new(more: &str, control: &str) -> Self {
        let place = Self {
            directory: tempfile::tempdir().unwrap(),
            space: Namespace::new().unwrap(),
        };
        let made = place.vng(&["keygen", "-o", "vpn.key"]);
        assert!(made.status.success(), "{made:?}");
        place.configure(more, control);
        place
    }

    /// Writes `vng.toml`.
    pub(crate) fn configure(&self, more: &str, control: &str) {
        let socket = self.socket();
        let text = format!(
            r#"
[vnet]
name          = "test"
device        = "vng0"
address_space = ["10.1.0.0/16"]
address       = ["10.1.255.4/27"]
host_address  = ["10.1.0.4/16"]

[control]
socket = "{}"
{control}
{more}"#,
            socket.display()
        );
        fs::write(self.file("vng.toml"), text).unwrap();
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.file("vng.sock")
    }

    /// A command in the directory.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env("VNG", VNG)
            .stdin(Stdio::null());
        command
    }

    /// Runs `vng` to its end.
    pub(crate) fn vng(&self, arguments: &[&str]) -> Output {
        self.command(VNG, arguments).output().unwrap()
    }

    /// Starts a command in the namespace; `$VNG` is the program.
    pub(crate) fn start(&self, mut command: Command) -> Running {
        let child = self.space.run(|| command.spawn()).unwrap().unwrap();
        Running { child }
    }

    /// Starts a shell script in the namespace, with its output kept.
    pub(crate) fn shell(&self, script: &str) -> Running {
        let mut command = self.command("sh", &["-c", script]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.start(command)
    }

    /// Asks the gateway, once.
    pub(crate) fn ask(&self, what: What) -> Option<Value> {
        Client::new(&self.socket())
            .ask(&Request::Show { what })
            .ok()
    }

    /// Asks the gateway until it answers what `wanted` wants.
    pub(crate) fn wait_for(&self, what: What, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(what);
            if let Some(answer) = answer.clone().filter(&wanted) {
                return answer;
            }
            assert!(Instant::now() < until, "last answer: {answer:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the gateway answers in the end.
    pub(crate) fn is_served(&self) -> bool {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if self.ask(What::Status).is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Waits until the gateway answers.
    pub(crate) fn wait_until_served(&self) -> Value {
        self.wait_for(What::Status, |_| true)
    }
}

/// A process that does not outlive the test.
pub(crate) struct Running {
    pub(crate) child: Child,
}

impl Running {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed()).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for the line that it writes to standard output once all is there.
    pub(crate) fn wait_until_ready(&mut self) {
        let mut line = [0; 6];
        let out = self.child.stdout.as_mut().unwrap();
        out.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"ready\n");
    }

    /// Waits until it ends by itself; `None`: it does not.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// Waits for its end: its exit status, and what it wrote.
    pub(crate) fn end(mut self) -> (Option<i32>, String, String) {
        let status = self.ended().unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        if let Some(mut stream) = self.child.stdout.take() {
            stream.read_to_string(&mut out).unwrap();
        }
        if let Some(mut stream) = self.child.stderr.take() {
            stream.read_to_string(&mut err).unwrap();
        }
        (status.code(), out, err)
    }

    /// Asks it to end, as a service manager does.
    pub(crate) fn stop(self) -> (Option<i32>, String, String) {
        self.signal(Signal::TERM);
        self.end()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
