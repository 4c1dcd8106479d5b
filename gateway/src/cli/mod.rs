//! The command line: one module a command.
//!
//! Exit status: 0 done, 1 the work failed, 2 bad usage or configuration, 3 the system lacks what is
//! needed (said in one line, with the remedy).

mod check;
mod explain;
mod init;
mod keys;
mod output;
mod p2s;
mod reload;
mod replay;
mod resize;
mod show;

use crate::api::client::ClientError;
use crate::config::{self, LoadError};
use crate::device::standard::output_is_closed;
use crate::error::RunError;
use crate::life::supervisor;
use crate::telemetry::log::{complain, flush};
use clap::{Args, Parser, Subcommand};
use output::Style;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// vng, a virtual network gateway: routes a virtual network's packets over ExpressRoute links and
/// site-to-site VPN tunnels.
#[derive(Debug, Parser)]
#[command(name = "vng", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a directory with a private key and a first configuration, which runs as it is
    Init(init::Init),
    /// Run the gateway in the foreground (SIGTERM ends it, SIGHUP reloads)
    Run {
        /// The configuration file
        #[arg(short, long, value_name = "FILE", default_value = crate::config::DEFAULT_FILE)]
        config: PathBuf,
    },
    /// Validate a configuration and print its plan: interfaces, paths, routes, limits
    Check(check::Check),
    /// Make a private key, in a file that only its owner may read, and print its public key
    Keygen(keys::Keygen),
    /// Print the public key of a private key's file
    Pubkey(keys::Pubkey),
    /// Show what the running gateway knows and does
    Show(Show),
    /// Say what the gateway would do with a packet, and why
    Explain(explain::Explain),
    /// Put a capture through the pipeline of a configuration, offline
    Replay(replay::Replay),
    /// Make the running gateway read its configuration again
    Reload(reload::Reload),
    /// Give a gateway another SKU, in the configuration file too: in place where Azure's rules allow it
    Resize(resize::Resize),
    /// Point-to-site clients: add, list, revoke
    #[command(subcommand)]
    P2s(p2s::P2s),
}

#[derive(Debug, Args)]
struct Show {
    /// What to show
    #[command(subcommand)]
    what: show::View,
    #[command(flatten)]
    options: ShowOptions,
}

/// What every `vng show` takes, before or behind the word that says what to show.
#[derive(Debug, Args)]
struct ShowOptions {
    /// The gateway's control socket [default: that of -c, else $VNG_SOCKET, else /etc/vng/vng.toml's, else
    /// /run/vng/vng.sock]
    #[arg(short, long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// Show every column, however wide that is
    #[arg(long, global = true)]
    wide: bool,
    /// Repeat, every so many seconds
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
          value_parser = clap::value_parser!(u32).range(1..=86_400), global = true)]
    watch: Option<u32>,
}

/// The environment variable that names the control socket where no option does.
const SOCKET_VARIABLE: &str = "VNG_SOCKET";

/// The control socket that the environment names.
fn named_socket() -> Option<PathBuf> {
    let named = std::env::var_os(SOCKET_VARIABLE).filter(|named| !named.is_empty());
    named.map(PathBuf::from)
}

/// Where the running gateway listens if nobody says so: as the environment says, else the default configuration
/// file, if it is there and can be read.
fn usual_socket() -> PathBuf {
    named_socket()
        .or_else(|| config::socket_of(Path::new(config::DEFAULT_FILE)))
        .unwrap_or_else(|| config::read::DEFAULT_SOCKET.into())
}

/// Where the running gateway listens: what is named first, then what a file that is named says, then what is usual.
fn socket(named: Option<&PathBuf>, config: Option<&PathBuf>) -> Result<PathBuf, Failure> {
    match (named, config) {
        (Some(named), _) => Ok(named.clone()),
        (None, Some(file)) => Ok(config::socket_in(file)?),
        (None, None) => Ok(usual_socket()),
    }
}

/// Where the running gateway listens, for a command that asks it in any case.
#[derive(Debug, Args)]
struct Socket {
    /// The gateway's control socket [default: that of -c, else $VNG_SOCKET, else /etc/vng/vng.toml's, else
    /// /run/vng/vng.sock]
    #[arg(short, long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The gateway's configuration file, which names its control socket
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Socket {
    /// Its path.
    fn path(&self) -> Result<PathBuf, Failure> {
        socket(self.socket.as_ref(), self.config.as_ref())
    }
}

/// Why a command did not do its work.
#[derive(Debug)]
enum Failure {
    /// Said already, with this exit status.
    Said(u8),
    /// The work failed: 1.
    Work(String),
    /// Bad usage or configuration: 2.
    Usage(String),
    /// The system lacks what is needed: 3.
    System(String),
    /// Nobody reads the output any more: 0, silently, as other filters do.
    NobodyReads,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let said = error.to_string();
        match error {
            ClientError::NoGateway { .. } | ClientError::Forbidden { .. } => Self::System(said),
            ClientError::Refused(refusal) if refusal.status == 2 => Self::Usage(said),
            ClientError::Broken { .. } | ClientError::Strange { .. } | ClientError::Refused(_) => {
                Self::Work(said)
            }
        }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Unreadable { .. } => Self::Usage(error.to_string()),
            LoadError::Wrong(report) => {
                complain(&report.render(Style::of_stderr().colour));
                Self::Said(2)
            }
        }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Configuration(error) => error.into(),
            RunError::System(error) => Self::System(error.to_string()),
            RunError::Failed(error) => Self::Work(error.to_string()),
        }
    }
}

/// Runs `vng` with these arguments (the first is the program's name).
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version go to standard output with status 0, errors to standard error with 2.
            let status = error.exit_code().clamp(0, 2) as u8;
            let printed = match error.print() {
                Ok(()) if output_is_closed() => Err(rustix::io::Errno::BADF.into()),
                printed => printed,
            };
            return match printed {
                Err(refused) if status == 0 && refused.kind() != ErrorKind::BrokenPipe => {
                    complain(&format!("error: {}\n", output::unsaid(&refused)));
                    ExitCode::from(1)
                }
                _ => ExitCode::from(status),
            };
        }
    };
    let done = match arguments.command {
        Command::Run { config } => supervisor::run(&config).map_err(Failure::from),
        Command::Init(init) => init::run(&init),
        Command::Check(check) => check::run(&check),
        Command::Keygen(keygen) => keys::keygen(&keygen),
        Command::Pubkey(pubkey) => keys::pubkey(&pubkey),
        Command::Show(show) => show::run(&show),
        Command::Explain(explain) => explain::run(&explain),
        Command::Replay(replay) => replay::run(&replay),
        Command::Reload(reload) => reload::run(&reload),
        Command::Resize(resize) => resize::run(&resize),
        Command::P2s(p2s) => p2s::run(&p2s),
    };
    let (status, said) = match done {
        Ok(()) | Err(Failure::NobodyReads) => {
            flush();
            return ExitCode::SUCCESS;
        }
        Err(Failure::Said(status)) => {
            flush();
            return ExitCode::from(status);
        }
        Err(Failure::Work(said)) => (1, said),
        Err(Failure::Usage(said)) => (2, said),
        Err(Failure::System(said)) => (3, said),
    };
    // A report of the configuration that the gateway sends names its errors itself.
    let said = said.trim_end();
    if said.starts_with("error: ") {
        complain(&format!("{said}\n"));
    } else {
        complain(&format!("{} {said}\n", Style::of_stderr().red("error:")));
    }
    flush();
    ExitCode::from(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
