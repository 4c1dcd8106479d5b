//! Tells systemd that the gateway is ready or stops (sd_notify(3)): one datagram, no library.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How long the service manager may take to have room.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sends `state` (`READY=1`, `STOPPING=1`, `RELOADING=1`) to the service manager, if there is one.
pub(crate) fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let bytes = path.as_encoded_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not hold the gateway up.
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.send_to_addr(state.as_bytes(), &address).map(|_| ())
    });
    if let Err(error) = sent {
        tracing::warn!(%error, "the service manager could not be told: {state}");
    }
}
