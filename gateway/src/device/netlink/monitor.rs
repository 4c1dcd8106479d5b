//! Links that change, as the kernel tells of them (multicast group RTMGRP_LINK).

use super::link::LinkState;
use super::socket::{Error, Netlink, messages, open_socket, receive};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Bit of RTNLGRP_LINK in the groups of a netlink address (`RTMGRP_LINK` in linux/rtnetlink.h).
const GROUP_LINK: u32 = 1;

/// What happened to a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkEvent {
    /// Interface index; a link that is removed and made again has a new one.
    pub index: u32,
    /// Name.
    pub name: String,
    /// What happened.
    pub kind: LinkChange,
}

/// What happened to a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// It is new or has changed, and looks like this now; not every notification brings a difference.
    Changed(LinkState),
    /// It is gone: deleted, or moved to another namespace.
    Removed,
}

/// A subscription to the link changes of the namespace in which it was opened.
pub struct Monitor {
    socket: Socket,
    query: Netlink,
    buffer: Vec<u8>,
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor")
            .field("query", &self.query)
            .finish_non_exhaustive()
    }
}

impl Monitor {
    /// Subscribes in the calling thread's network namespace. Changes from now on are told; ask
    /// [`Monitor::link`] for the state afterwards, and nothing falls between the two.
    ///
    /// # Errors
    /// [`Error::Socket`]: no netlink socket could be opened (no descriptor is left), or it could not be bound to the
    /// group of links.
    pub fn open() -> Result<Self, Error> {
        let mut socket = open_socket()?;
        let action = "subscribe to link changes";
        socket
            .bind(&SocketAddr::new(0, GROUP_LINK))
            .and_then(|()| socket.set_non_blocking(true))
            .map_err(|source| Error::Socket { action, source })?;
        Ok(Self {
            socket,
            query: Netlink::open()?,
            buffer: Vec::new(),
        })
    }

    /// What has happened since the last call, in order; does not wait.
    ///
    /// # Errors
    /// [`Error::Overrun`] if notifications were lost: read the links again with [`Monitor::link`].
    pub fn events(&mut self) -> Result<Vec<LinkEvent>, Error> {
        let mut events = Vec::new();
        loop {
            match receive(&self.socket, &mut self.buffer) {
                Ok(()) => {}
                Err(Error::Socket { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(events);
                }
                Err(error) => return Err(error),
            }
            for message in messages(&self.buffer) {
                // What cannot be read may be about any link: the same as a lost notification.
                let message = message.map_err(|_| Error::Overrun)?;
                if let NetlinkPayload::InnerMessage(inner) = message.payload {
                    events.extend(event(&inner));
                }
            }
        }
    }

    /// What the link called `name` looks like now.
    ///
    /// # Errors
    /// As those of [`Netlink::link`].
    pub fn link(&mut self, name: &str) -> Result<Option<LinkState>, Error> {
        self.query.link(name)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

pub(super) fn event(message: &RouteNetlinkMessage) -> Option<LinkEvent> {
    let own = |link: &&LinkMessage| link.header.interface_family == AddressFamily::Unspec;
    let (state, removed) = match message {
        // A bridge tells of its ports with the same message types and the family AF_BRIDGE, and IPv6 of
        // its parameters with AF_INET6; neither is about the link itself.
        RouteNetlinkMessage::NewLink(link) => (Some(link).filter(own)?, false),
        RouteNetlinkMessage::DelLink(link) => (Some(link).filter(own)?, true),
        _ => return None,
    };
    let state = LinkState::of(state)?;
    Some(LinkEvent {
        index: state.index,
        name: state.name.clone(),
        kind: if removed {
            LinkChange::Removed
        } else {
            LinkChange::Changed(state)
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::event::Poller;
    use crate::device::namespace::Namespace;
    use crate::device::netlink::VethEnd;
    use std::time::Duration;

    /// Waits until `wanted` has been told of.
    fn wait_for(monitor: &mut Monitor, wanted: impl Fn(&LinkEvent) -> bool) {
        let mut poller = Poller::new().unwrap();
        poller.add(&*monitor, 0).unwrap();
        loop {
            let ready = poller.wait(Some(Duration::from_secs(10))).unwrap().count();
            assert!(ready > 0, "no notification");
            if monitor.events().unwrap().iter().any(&wanted) {
                return;
            }
        }
    }

    #[test]
    fn carrier_and_removal_of_a_link_are_told() {
        let space = Namespace::new().unwrap();
        let mut monitor = space.run(Monitor::open).unwrap().unwrap();
        let mut netlink = space.run(Netlink::open).unwrap().unwrap();
        netlink
            .add_veth(VethEnd::here("a0"), VethEnd::here("b0"))
            .unwrap();
        netlink.set_up("a0", true).unwrap();
        netlink.set_up("b0", true).unwrap();
        let about = |name: &'static str, running: bool| {
            move |event: &LinkEvent| {
                event.name == name
                    && matches!(&event.kind, LinkChange::Changed(s) if s.admin_up && s.carrier == running)
            }
        };
        wait_for(&mut monitor, about("a0", true));
        netlink.set_up("b0", false).unwrap();
        wait_for(&mut monitor, about("a0", false));
        assert_eq!(monitor.link("a0").unwrap().map(|s| s.carrier), Some(false));
        netlink.delete_link("a0").unwrap();
        wait_for(&mut monitor, |e| {
            e.name == "a0" && e.kind == LinkChange::Removed
        });
        assert_eq!(monitor.link("a0").unwrap(), None);
    }

    #[test]
    fn lost_notifications_are_an_overrun_and_then_it_goes_on() {
        let space = Namespace::new().unwrap();
        let mut monitor = space.run(Monitor::open).unwrap().unwrap();
        let mut netlink = space.run(Netlink::open).unwrap().unwrap();
        netlink
            .add_veth(VethEnd::here("d0"), VethEnd::here("d1"))
            .unwrap();
        // Each change of MTU is one notification of over 1 KB; the default room is about 200 KB.
        for round in 0..2_000 {
            netlink.set_mtu("d0", 1400 + round % 100).unwrap();
        }
        let mut overrun = false;
        loop {
            match monitor.events() {
                Err(Error::Overrun) => overrun = true,
                Ok(_) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(overrun);
        netlink.set_mtu("d0", 1234).unwrap();
        wait_for(
            &mut monitor,
            |e| matches!(&e.kind, LinkChange::Changed(s) if s.mtu == 1234),
        );
    }
}
