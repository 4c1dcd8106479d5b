//! Links, addresses and routes that change, as the kernel tells of them: for whoever has set some of them
//! and wants to know what others do to them.

use super::monitor::LinkEvent;
use super::raw::{self, TableRoute};
use super::socket::{Error, open_socket, receive};
use super::table::MAIN_TABLE;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Bits of the groups in a netlink address (`RTMGRP_*` in linux/rtnetlink.h).
const LINK: u32 = 1;
const IPV4_ADDRESS: u32 = 0x10;
const IPV4_ROUTE: u32 = 0x40;
const IPV6_ADDRESS: u32 = 0x100;
const IPV6_ROUTE: u32 = 0x400;

/// Room for notifications, bytes: a table of 10,000 routes may be flushed at once before any are lost.
const ROOM: usize = 8 << 20;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;

/// Offset of the interface's index in `struct ifaddrmsg`.
const ADDRESS_INDEX: usize = 4;

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostChange {
    /// A link.
    Link(LinkEvent),
    /// An address of the interface of this index has come or gone.
    Address(u32),
    /// A route of the main table has come or gone.
    Route {
        /// Which.
        route: TableRoute,
        /// It has gone.
        removed: bool,
    },
}

/// A subscription in the namespace in which it was opened.
pub struct HostMonitor {
    socket: Socket,
    buffer: Vec<u8>,
}

impl fmt::Debug for HostMonitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostMonitor").finish_non_exhaustive()
    }
}

impl HostMonitor {
    /// Subscribes in the calling thread's network namespace; to routes only if `routes`: on a machine that
    /// speaks BGP they change all the time.
    ///
    /// # Errors
    /// [`Error::Socket`]: no netlink socket could be opened (no descriptor is left), or it could not be bound to the
    /// groups. A buffer smaller than wanted is no error.
    pub fn open(routes: bool) -> Result<Self, Error> {
        let mut socket = open_socket()?;
        let mut groups = LINK | IPV4_ADDRESS | IPV6_ADDRESS;
        if routes {
            groups |= IPV4_ROUTE | IPV6_ROUTE;
        }
        let action = "subscribe to changes of links, addresses and routes";
        socket
            .bind(&SocketAddr::new(0, groups))
            .and_then(|()| socket.set_non_blocking(true))
            .map_err(|source| Error::Socket { action, source })?;
        crate::device::socket::set_buffers(socket.as_fd(), ROOM, 0);
        Ok(Self {
            socket,
            buffer: Vec::new(),
        })
    }

    /// Gives what has happened since the last call to `each`, in order; does not wait.
    ///
    /// # Errors
    /// [`Error::Overrun`] if notifications were lost: everything must be looked at again.
    pub fn changes(&mut self, each: &mut dyn FnMut(HostChange)) -> Result<(), Error> {
        loop {
            match receive(&self.socket, &mut self.buffer) {
                Ok(()) => {}
                Err(Error::Socket { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            for message in raw::messages(&self.buffer) {
                let message = message.ok_or(Error::Overrun)?;
                match message.kind {
                    RTM_NEWROUTE | RTM_DELROUTE => {
                        if let Some(route) = raw::route(message.payload)
                            && route.table == MAIN_TABLE
                        {
                            let removed = message.kind == RTM_DELROUTE;
                            each(HostChange::Route { route, removed });
                        }
                    }
                    RTM_NEWADDR | RTM_DELADDR => {
                        if let Some(index) = raw::word(message.payload, ADDRESS_INDEX) {
                            each(HostChange::Address(index));
                        }
                    }
                    _ => {}
                }
            }
            // Links are few, and rarely change.
            if raw::messages(&self.buffer)
                .flatten()
                .any(|message| [RTM_NEWLINK, RTM_DELLINK].contains(&message.kind))
            {
                self.links(each)?;
            }
        }
    }

    fn links(&self, each: &mut dyn FnMut(HostChange)) -> Result<(), Error> {
        for message in super::socket::messages(&self.buffer) {
            // What cannot be read may be about any link: the same as a lost notification.
            let message: NetlinkMessage<RouteNetlinkMessage> =
                message.map_err(|_| Error::Overrun)?;
            if let NetlinkPayload::InnerMessage(inner) = message.payload
                && let Some(event) = super::monitor::event(&inner)
            {
                each(HostChange::Link(event));
            }
        }
        Ok(())
    }
}

impl AsFd for HostMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
