//! The command line's side of the control socket.

use crate::api::{Refusal, Request, Response};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// The same of what changes the gateway: it waits for changes before it, and for millions of routes.
const PATIENCE_FOR_CHANGES: Duration = Duration::from_mins(10);
/// The longest answer, bytes: a million routes.
const LONGEST_ANSWER: u64 = 512 << 20;

/// Asks the gateway that listens at one socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens at the socket.
    NoGateway {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket is another user's.
    Forbidden {
        /// The socket.
        socket: PathBuf,
    },
    /// The connection failed on the way.
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The gateway's answer makes no sense: another version, or no gateway at all.
    Strange {
        /// The socket.
        socket: PathBuf,
        /// What was wrong with it.
        error: serde_json::Error,
    },
    /// The gateway refused.
    Refused(Refusal),
}

impl std::fmt::Display for ClientError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoGateway { socket } => write!(
                formatter,
                "no gateway listens at {}; start one with vng run, or name its socket with -s",
                socket.display()
            ),
            Self::Forbidden { socket } => write!(
                formatter,
                "{} may be opened by its owner only; run vng as the user that runs the gateway",
                socket.display()
            ),
            // What a socket says whose time is up.
            Self::Broken { socket, error } if error.kind() == io::ErrorKind::WouldBlock => write!(
                formatter,
                "the gateway at {} has not answered in time; it goes on with what it was asked for, and its log \
                 says what came of it",
                socket.display()
            ),
            Self::Broken { socket, error } => {
                write!(formatter, "the gateway at {}: {error}", socket.display())
            }
            // What exactly is missing from it helps nobody: the error's source has it.
            Self::Strange { socket, .. } => write!(
                formatter,
                "what listens at {} does not answer as this version of vng does: restart the gateway if it is older \
                 than this command",
                socket.display()
            ),
            Self::Refused(refusal) => write!(formatter, "{}", refusal.message),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Broken { error, .. } => Some(error),
            Self::Strange { error, .. } => Some(error),
            Self::NoGateway { .. } | Self::Forbidden { .. } | Self::Refused(_) => None,
        }
    }
}

impl Client {
    /// A client of the gateway at `socket`; nothing is opened yet.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Asks once, over a connection of its own.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn ask(&self, request: &Request) -> Result<serde_json::Value, ClientError> {
        let mut line = serde_json::to_vec(request).map_err(|error| self.strange(error))?;
        line.push(b'\n');
        let patience = if request.is_change() {
            PATIENCE_FOR_CHANGES
        } else {
            PATIENCE
        };
        let answer = self.exchange(&line, patience)?;
        match serde_json::from_slice(&answer).map_err(|error| self.strange(error))? {
            Response::Ok(value) => Ok(value),
            Response::Error(refusal) => Err(ClientError::Refused(refusal)),
        }
    }

    /// Asks once for a view.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn view<T: serde::de::DeserializeOwned>(
        &self,
        request: &Request,
    ) -> Result<T, ClientError> {
        serde_json::from_value(self.ask(request)?).map_err(|error| self.strange(error))
    }

    fn exchange(&self, line: &[u8], patience: Duration) -> Result<Vec<u8>, ClientError> {
        let broken = |error| ClientError::Broken {
            socket: self.socket.clone(),
            error,
        };
        let mut stream = UnixStream::connect(&self.socket).map_err(|error| {
            let socket = self.socket.clone();
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NoGateway { socket }
                }
                io::ErrorKind::PermissionDenied => ClientError::Forbidden { socket },
                _ => broken(error),
            }
        })?;
        stream.set_read_timeout(Some(patience)).map_err(broken)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(broken)?;
        stream.write_all(line).map_err(broken)?;
        let mut answer = Vec::new();
        BufReader::new(stream.take(LONGEST_ANSWER))
            .read_until(b'\n', &mut answer)
            .map_err(broken)?;
        if answer.is_empty() {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(answer)
    }

    fn strange(&self, error: serde_json::Error) -> ClientError {
        ClientError::Strange {
            socket: self.socket.clone(),
            error,
        }
    }
}
