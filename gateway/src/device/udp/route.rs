//! How wide the route to a far end is.

use super::InterfaceName;
use crate::device::socket::set_option;
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

/// What the choice of a route depends on besides where it leads.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouteOptions {
    /// The address that datagrams leave from; `None`: the route's own.
    pub local: Option<IpAddr>,
    /// The interface that the socket is bound to.
    pub interface: Option<InterfaceName>,
    /// The mark of the datagrams; 0: none.
    pub mark: u32,
}

/// The largest IP packet that the route to `to` takes, bytes, as far as the kernel knows: the interface's MTU, the
/// route's own, or what a router on the way has said. Nothing is sent.
///
/// # Errors
/// There is no route, or the socket cannot be made as the options say.
pub fn route_mtu(to: &SocketAddr, options: RouteOptions) -> io::Result<u32> {
    let family = if to.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let fd = socket.as_fd();
    if let Some(name) = options.interface {
        set_option(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, &name.0)?;
    }
    if options.mark != 0 {
        set_option(fd, libc::SOL_SOCKET, libc::SO_MARK, &options.mark)?;
    }
    if let Some(local) = options
        .local
        .filter(|local| local.is_ipv4() == to.is_ipv4())
    {
        bind(&socket, &SocketAddr::new(local, 0))?;
    }
    // A connected UDP socket has its route looked up, and sends nothing.
    connect(&socket, to)?;
    let mtu = if to.is_ipv4() {
        sockopt::ip_mtu(&socket)?
    } else {
        sockopt::ipv6_mtu(&socket)?
    };
    Ok(mtu)
}
