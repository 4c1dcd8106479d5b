//! One rtnetlink socket: a request goes out, its answer or acknowledgement comes back.

use super::raw::{self, Raw};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::fmt;
use std::io;

/// Room for one read: the kernel fills dumps in pieces of at most 32 KiB (NETLINK_MAX_RECVMSG_LEN).
const READ_ROOM: usize = 32 * 1024;

/// Why a request was not carried out.
#[derive(Debug)]
pub enum Error {
    /// The socket itself: what was tried, and the kernel's answer.
    Socket {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel refused a request.
    Refused {
        /// The request in words, with the names it was about.
        request: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There is no link of this name in the namespace.
    NoSuchLink(String),
    /// Not an interface name: 1 to 15 bytes, no `/`, no white space (`dev_valid_name` in the kernel).
    Name(String),
    /// An answer that could not be read.
    Malformed {
        /// What was expected.
        expected: &'static str,
        /// What is wrong with what came.
        found: String,
    },
    /// The kernel dropped notifications because they were not read in time (ENOBUFS): what is known of
    /// the links is stale and must be asked for again.
    Overrun,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket { action, source } => write!(f, "netlink: cannot {action}: {source}"),
            Self::Refused { request, source } => write!(f, "cannot {request}: {source}"),
            Self::NoSuchLink(name) => write!(f, "no interface is called {name:?}"),
            Self::Name(name) => write!(
                f,
                "{name:?} is not an interface name: expected 1 to 15 bytes without '/' or white space"
            ),
            Self::Malformed { expected, found } => {
                write!(f, "netlink: expected {expected}, found {found}")
            }
            Self::Overrun => {
                f.write_str("netlink: notifications were lost; the links must be read again")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Socket { source, .. } | Self::Refused { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl Error {
    /// Whether the kernel refused because the thing is there already (EEXIST).
    pub fn is_exists(&self) -> bool {
        self.is_refusal(&[rustix::io::Errno::EXIST])
    }

    /// Whether the kernel refused because the thing is not there (ESRCH for routes, ENODEV for links,
    /// EADDRNOTAVAIL for addresses), or no link has the name.
    pub fn is_absent(&self) -> bool {
        use rustix::io::Errno;
        matches!(self, Self::NoSuchLink(_))
            || self.is_refusal(&[Errno::SRCH, Errno::NODEV, Errno::ADDRNOTAVAIL])
    }

    fn is_refusal(&self, errors: &[rustix::io::Errno]) -> bool {
        matches!(self, Self::Refused { source, .. }
            if errors.iter().any(|e| source.raw_os_error() == Some(e.raw_os_error())))
    }
}

/// A connection to the kernel's rtnetlink in one network namespace.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl fmt::Debug for Netlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netlink")
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

impl Netlink {
    /// Opens a connection in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Socket`]: no netlink socket could be opened (no descriptor is left, or the kernel has no rtnetlink),
    /// bound or connected.
    pub fn open() -> Result<Self, Error> {
        let mut socket = open_socket()?;
        socket.bind_auto().map_err(|source| Error::Socket {
            action: "bind",
            source,
        })?;
        let kernel = SocketAddr::new(0, 0);
        socket.connect(&kernel).map_err(|source| Error::Socket {
            action: "connect",
            source,
        })?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(READ_ROOM),
        })
    }

    /// Sends a request that changes something and waits for its acknowledgement. `flags` are added to
    /// REQUEST and ACK; `describe` puts the request into words for the error.
    pub(super) fn change(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        describe: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        match self.collect(&mut |_| ())? {
            Ok(()) => Ok(()),
            Err(source) => Err(Error::Refused {
                request: describe(),
                source,
            }),
        }
    }

    /// Sends a request for one thing; gives the answers to `each`. The inner error is the kernel's.
    pub(super) fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        each: &mut dyn FnMut(RouteNetlinkMessage),
    ) -> Result<Result<(), io::Error>, Error> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK)?;
        self.collect(each)
    }

    /// Sends a request for all there is; gives the answers to `each`.
    pub(super) fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        request: &'static str,
        each: &mut dyn FnMut(RouteNetlinkMessage),
    ) -> Result<(), Error> {
        self.send(message, NLM_F_REQUEST | NLM_F_DUMP)?;
        self.collect(each)?.map_err(|source| Error::Refused {
            request: request.to_owned(),
            source,
        })
    }

    /// The same with the answers as they lie there, of whatever kind.
    pub(super) fn dump_raw(
        &mut self,
        message: RouteNetlinkMessage,
        request: &'static str,
        each: &mut dyn FnMut(Raw<'_>),
    ) -> Result<(), Error> {
        self.send(message, NLM_F_REQUEST | NLM_F_DUMP)?;
        loop {
            receive(&self.socket, &mut self.buffer)?;
            for message in raw::messages(&self.buffer) {
                let message = message.ok_or_else(cut_off)?;
                if message.sequence != self.sequence {
                    continue;
                }
                match message.kind {
                    raw::DONE => return Ok(()),
                    raw::ERROR => {
                        return match raw::refusal(message.payload) {
                            None => Ok(()),
                            Some(source) => Err(Error::Refused {
                                request: request.to_owned(),
                                source,
                            }),
                        };
                    }
                    raw::OVERRUN => return Err(Error::Overrun),
                    _ => each(message),
                }
            }
        }
    }

    /// Sends requests that change something all at once and waits for their acknowledgements: what the
    /// kernel refused, in the requests' order. No more than its buffer has room for answers to.
    pub(super) fn change_all(
        &mut self,
        requests: impl Iterator<Item = RouteNetlinkMessage>,
        flags: u16,
    ) -> Result<Vec<Option<io::Error>>, Error> {
        let (first, mut bytes) = (self.sequence.wrapping_add(1), Vec::new());
        let mut answers = Vec::new();
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            append(
                &mut bytes,
                request,
                NLM_F_REQUEST | NLM_F_ACK | flags,
                self.sequence,
            );
            answers.push(None);
        }
        let mut missing = answers.len();
        if missing > 0 {
            self.send_bytes(&bytes)?;
        }
        while missing > 0 {
            receive(&self.socket, &mut self.buffer)?;
            for message in raw::messages(&self.buffer) {
                let message = message.ok_or_else(cut_off)?;
                let place = message.sequence.wrapping_sub(first) as usize;
                if message.kind == raw::ERROR
                    && let Some(answer) = answers.get_mut(place)
                {
                    *answer = raw::refusal(message.payload);
                    missing -= 1;
                }
            }
        }
        Ok(answers)
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        append(&mut bytes, message, flags, self.sequence);
        self.send_bytes(&bytes)
    }

    fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.socket
            .send(bytes, 0)
            .map(drop)
            .map_err(|source| Error::Socket {
                action: "send a request",
                source,
            })
    }

    /// Reads until the acknowledgement, the end of the dump or the refusal of the request last sent.
    /// Leftovers of an earlier, abandoned request are skipped by their sequence number.
    fn collect(
        &mut self,
        each: &mut dyn FnMut(RouteNetlinkMessage),
    ) -> Result<Result<(), io::Error>, Error> {
        loop {
            receive(&self.socket, &mut self.buffer)?;
            for message in messages(&self.buffer) {
                let message = message?;
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => each(inner),
                    NetlinkPayload::Error(error) => {
                        return Ok(error.code.map_or(Ok(()), |_| Err(error.to_io())));
                    }
                    NetlinkPayload::Done(_) => return Ok(Ok(())),
                    NetlinkPayload::Overrun(_) => return Err(Error::Overrun),
                    _ => {}
                }
            }
        }
    }
}

/// Puts a message behind those in `bytes`.
fn append(bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let begin = bytes.len().next_multiple_of(4);
    bytes.resize(begin + message.buffer_len(), 0);
    if let Some(room) = bytes.get_mut(begin..) {
        message.serialize(room);
    }
}

fn cut_off() -> Error {
    Error::Malformed {
        expected: "an rtnetlink message",
        found: "one that is cut off".to_owned(),
    }
}

/// A socket that is neither bound nor connected yet.
pub(super) fn open_socket() -> Result<Socket, Error> {
    Socket::new(NETLINK_ROUTE).map_err(|source| Error::Socket {
        action: "open a socket",
        source,
    })
}

/// Reads one datagram into `buffer`, replacing what was in it.
pub(super) fn receive(socket: &Socket, buffer: &mut Vec<u8>) -> Result<(), Error> {
    loop {
        buffer.clear();
        buffer.reserve(READ_ROOM);
        match socket.recv(buffer, 0) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) =>
            {
                return Err(Error::Overrun);
            }
            Err(source) => {
                return Err(Error::Socket {
                    action: "read",
                    source,
                });
            }
        }
    }
}

/// The messages of one datagram; ends after the first that cannot be read.
pub(super) fn messages(
    bytes: &[u8],
) -> impl Iterator<Item = Result<NetlinkMessage<RouteNetlinkMessage>, Error>> + '_ {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest);
        // Messages are aligned to 4 bytes (NLMSG_ALIGN); the last one may lack the padding.
        let length = message
            .as_ref()
            .map_or(rest.len(), |m| m.header.length as usize);
        rest = rest
            .get(length.next_multiple_of(4).max(4)..)
            .unwrap_or_default();
        Some(message.map_err(|error| Error::Malformed {
            expected: "an rtnetlink message",
            found: error.to_string(),
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truncated_answer_is_an_error_and_not_a_panic() {
        let mut found = messages(&[16, 0, 0, 0, 2, 0, 0]);
        assert!(matches!(found.next(), Some(Err(Error::Malformed { .. }))));
        assert!(found.next().is_none());
    }
}
