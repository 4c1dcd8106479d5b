//! What a worker sends to, as traits: the kernel's devices, or memory in their place, so that benches and
//! tests run the workers' own code without a system call.

use crate::device::SendError;
use crate::device::link::LinkSocket;
use crate::device::offload::Offload;
use crate::device::tun::TunQueue;
use crate::device::udp::{PeerPath, SendOutcome, UdpSocket};
use std::io::IoSlice;
use std::net::SocketAddr;

/// Takes packets for the virtual network.
pub trait PacketSink {
    /// As [`TunQueue::write`].
    ///
    /// # Errors
    /// [`SendError::GsoRefused`]: send it segment by segment with complete checksums. With any other the packet
    /// is lost: the device is down, has no room, or says an errno of its own.
    fn write(
        &self,
        offload: &Offload,
        hdr_len: u16,
        parts: &[IoSlice<'_>],
    ) -> Result<(), SendError>;
}

/// Takes frames for a link.
pub trait FrameSink {
    /// As [`LinkSocket::send`].
    ///
    /// # Errors
    /// [`SendError::GsoRefused`]: send it segment by segment with complete checksums. With any other the frame
    /// is lost: the interface is down or gone, has no room, or does not take one so long.
    fn send(
        &self,
        offload: &Offload,
        hdr_len: u16,
        layer2: &[u8],
        parts: &[IoSlice<'_>],
    ) -> Result<(), SendError>;
}

/// Takes trains of datagrams.
pub trait TrainSink {
    /// As [`UdpSocket::send_train_by`].
    fn send_train_by(
        &self,
        path: &PeerPath,
        to: &SocketAddr,
        bytes: &[u8],
        stride: usize,
        traffic_class: u8,
    ) -> SendOutcome;
}

/// Where one worker's packets go.
pub trait Devices {
    /// The virtual network.
    type Vnet: PacketSink;
    /// An ExpressRoute link.
    type Link: FrameSink;
    /// What tunnels are carried over.
    type Underlay: TrainSink;
}

/// The kernel's devices.
#[derive(Debug)]
pub struct Kernel;

impl Devices for Kernel {
    type Vnet = TunQueue;
    type Link = LinkSocket;
    type Underlay = UdpSocket;
}

impl PacketSink for TunQueue {
    #[inline]
    fn write(
        &self,
        offload: &Offload,
        hdr_len: u16,
        parts: &[IoSlice<'_>],
    ) -> Result<(), SendError> {
        self.write(offload, hdr_len, parts)
    }
}

impl FrameSink for LinkSocket {
    #[inline]
    fn send(
        &self,
        offload: &Offload,
        hdr_len: u16,
        layer2: &[u8],
        parts: &[IoSlice<'_>],
    ) -> Result<(), SendError> {
        self.send(offload, hdr_len, layer2, parts)
    }
}

impl TrainSink for UdpSocket {
    #[inline]
    fn send_train_by(
        &self,
        path: &PeerPath,
        to: &SocketAddr,
        bytes: &[u8],
        stride: usize,
        traffic_class: u8,
    ) -> SendOutcome {
        self.send_train_by(path, to, bytes, stride, traffic_class)
    }
}
