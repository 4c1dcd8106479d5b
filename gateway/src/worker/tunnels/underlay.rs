//! The UDP sockets under the tunnels.

use crate::device::SendError;
use crate::device::sink::TrainSink;
use crate::device::udp::{PeerPath, SendOutcome, UdpSocket};
use std::net::SocketAddr;

/// The UDP sockets that tunnels are carried over, one per family that is there.
#[derive(Debug)]
pub struct Underlay<U = UdpSocket> {
    /// IPv4.
    pub v4: Option<U>,
    /// IPv6.
    pub v6: Option<U>,
}

impl<U> Default for Underlay<U> {
    fn default() -> Self {
        Self { v4: None, v6: None }
    }
}

impl<U: TrainSink> Underlay<U> {
    pub(super) fn send(
        &self,
        (path, to): (&PeerPath, SocketAddr),
        bytes: &[u8],
        stride: usize,
        class: u8,
    ) -> SendOutcome {
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        match socket {
            Some(socket) => socket.send_train_by(path, &to, bytes, stride, class),
            None => SendOutcome {
                error: Some(SendError::Down),
                ..SendOutcome::default()
            },
        }
    }
}
