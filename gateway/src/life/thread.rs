//! A thread of the gateway, whose end ends the gateway.

use crate::device::event::Waker;
use crate::error::{Cause, RunError, SystemError};
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;

/// A thread that runs.
pub(crate) struct Thread {
    name: String,
    handle: JoinHandle<Result<(), Cause>>,
}

/// How a thread failed.
#[derive(Debug)]
pub(crate) struct ThreadError {
    name: String,
    /// `None`: it has panicked.
    cause: Option<Cause>,
}

impl fmt::Display for ThreadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Some(cause) => write!(formatter, "{}: {cause}", self.name),
            None => write!(formatter, "{} has panicked", self.name),
        }
    }
}

impl Error for ThreadError {}

impl Thread {
    /// Starts a thread of this name. `ended` is woken when it ends, for whatever reason.
    ///
    /// # Errors
    /// The system has no thread.
    pub(crate) fn spawn<E: Error + Send + Sync + 'static>(
        name: &str,
        ended: &Arc<Waker>,
        body: impl FnOnce() -> Result<(), E> + Send + 'static,
    ) -> Result<Self, RunError> {
        let ended = Arc::clone(ended);
        let handle = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let result = body();
                ended.wake();
                result.map_err(Cause::from)
            })
            .map_err(SystemError::kernel("start a thread"))?;
        Ok(Self {
            name: name.to_owned(),
            handle,
        })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It failed or panicked.
    pub(crate) fn join(self) -> Result<(), ThreadError> {
        let cause = match self.handle.join() {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(cause)) => Some(cause),
            Err(_) => None,
        };
        let name = self.name;
        Err(ThreadError { name, cause })
    }
}
