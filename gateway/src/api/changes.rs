//! Requests that change the gateway: reload, resize, revoke. They may take seconds, so they are done one after
//! the other on a thread of their own, and whoever only wants to see something is answered meanwhile.

use super::{Gateway, Request, Stop, answer};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// Which client asked.
pub(super) type ClientNumber = u64;

/// The other end of the thread. Dropped, the thread ends behind the change that it is at; nobody waits for it,
/// for the gateway must end also while a long one runs.
pub(super) struct Changes {
    asked: Sender<(ClientNumber, Request)>,
    answered: Receiver<(ClientNumber, Vec<u8>)>,
}

impl Changes {
    /// Starts the thread, named `change`. It wakes whoever serves the socket for each answer.
    pub(super) fn start(gateway: Arc<dyn Gateway>, stop: Arc<Stop>) -> io::Result<Self> {
        let (asked, requests) = channel::<(ClientNumber, Request)>();
        let (answers, answered) = channel();
        thread::Builder::new()
            .name("change".to_owned())
            .spawn(move || {
                for (client, request) in requests {
                    let line = answer(request, gateway.as_ref());
                    if answers.send((client, line)).is_err() {
                        return;
                    }
                    stop.waker.wake();
                }
            })?;
        Ok(Self { asked, answered })
    }

    /// Has a request done; false if there is nobody to do it.
    pub(super) fn ask(&self, client: ClientNumber, request: Request) -> bool {
        self.asked.send((client, request)).is_ok()
    }

    /// The next answer, if there is one.
    pub(super) fn next(&self) -> Option<(ClientNumber, Vec<u8>)> {
        self.answered.try_recv().ok()
    }

    /// The next answer, for which so long is waited.
    pub(super) fn wait(&self, patience: Duration) -> Option<(ClientNumber, Vec<u8>)> {
        self.answered.recv_timeout(patience).ok()
    }
}
