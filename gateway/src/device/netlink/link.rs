//! Links: what they look like, and making, changing and deleting them.

use super::socket::{Error, Netlink};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use std::os::fd::{AsRawFd, BorrowedFd};

/// What a link looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Interface index in its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Administratively up (IFF_UP).
    pub admin_up: bool,
    /// The layer below is up: a cable is in and the far end is up (IFF_LOWER_UP).
    pub carrier: bool,
    /// MTU, bytes of the layer 3 packet.
    pub mtu: u32,
    /// MAC address; `None` for a link without one (TUN).
    pub mac: Option<[u8; 6]>,
}

impl LinkState {
    /// Whether frames can go out: administratively up and with carrier.
    pub fn is_running(&self) -> bool {
        self.admin_up && self.carrier
    }

    /// Reads a link message; `None` if it has no name.
    pub(super) fn of(message: &LinkMessage) -> Option<Self> {
        let flags = message.header.flags;
        let mut state = Self {
            index: message.header.index,
            name: String::new(),
            admin_up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            mtu: 0,
            mac: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => state.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => state.mtu = *mtu,
                LinkAttribute::Address(bytes) => state.mac = bytes.as_slice().try_into().ok(),
                _ => {}
            }
        }
        (!state.name.is_empty()).then_some(state)
    }
}

/// One end of a new pair of virtual Ethernet links.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd<'a> {
    /// Name.
    pub name: &'a str,
    /// Network namespace it is put into; `None`: the connection's own.
    pub namespace: Option<BorrowedFd<'a>>,
}

impl<'a> VethEnd<'a> {
    /// An end in the connection's own namespace.
    pub fn here(name: &'a str) -> Self {
        Self {
            name,
            namespace: None,
        }
    }

    /// An end in another namespace.
    pub fn within(name: &'a str, namespace: BorrowedFd<'a>) -> Self {
        Self {
            name,
            namespace: Some(namespace),
        }
    }

    fn message(&self) -> Result<LinkMessage, Error> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(checked(self.name)?));
        if let Some(namespace) = self.namespace {
            message
                .attributes
                .push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
        }
        Ok(message)
    }
}

impl Netlink {
    /// All links of the namespace.
    ///
    /// # Errors
    /// [`Error::Refused`] by RTM_GETLINK; the connection's own: [`Error::Socket`], [`Error::Malformed`] or
    /// [`Error::Overrun`].
    pub fn links(&mut self) -> Result<Vec<LinkState>, Error> {
        let mut links = Vec::new();
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.dump(request, "list the links", &mut |answer| {
            if let RouteNetlinkMessage::NewLink(message) = answer {
                links.extend(LinkState::of(&message));
            }
        })?;
        Ok(links)
    }

    /// The link called `name`, if there is one.
    ///
    /// # Errors
    /// [`Error::Name`], and as those of [`Netlink::links`]; that there is none (ENODEV) is no error.
    pub fn link(&mut self, name: &str) -> Result<Option<LinkState>, Error> {
        self.look(name, LinkState::of)
    }

    /// Packets that the kernel has dropped on their way out of the link called `name`, if there is one: of a TUN
    /// device those that its reader was too slow for. The kernel counts them as long as the link lives.
    ///
    /// # Errors
    /// As those of [`Netlink::link`].
    pub fn tx_dropped(&mut self, name: &str) -> Result<Option<u64>, Error> {
        self.look(name, |message| {
            message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    LinkAttribute::Stats64(stats) => Some(stats.tx_dropped),
                    _ => None,
                })
        })
    }

    /// Reads what the kernel says of the link called `name`.
    fn look<T>(
        &mut self,
        name: &str,
        read: impl Fn(&LinkMessage) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(checked(name)?));
        self.look_for(message, read, || format!("look for {name}"))
    }

    fn look_for<T>(
        &mut self,
        message: LinkMessage,
        read: impl Fn(&LinkMessage) -> Option<T>,
        describe: impl FnOnce() -> String,
    ) -> Result<Option<T>, Error> {
        let mut found = None;
        let outcome = self.ask(RouteNetlinkMessage::GetLink(message), &mut |answer| {
            if let RouteNetlinkMessage::NewLink(message) = answer {
                found = read(&message);
            }
        })?;
        match outcome {
            Ok(()) => Ok(found),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => {
                Ok(None)
            }
            Err(source) => Err(Error::Refused {
                request: describe(),
                source,
            }),
        }
    }

    /// The link of this index, if there is one.
    ///
    /// # Errors
    /// As those of [`Netlink::links`]; that there is none (ENODEV) is no error.
    pub fn link_at(&mut self, index: u32) -> Result<Option<LinkState>, Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.look_for(message, LinkState::of, || {
            format!("look for interface {index}")
        })
    }

    /// The index of the link called `name`.
    ///
    /// # Errors
    /// [`Error::NoSuchLink`], and as those of [`Netlink::link`].
    pub fn index(&mut self, name: &str) -> Result<u32, Error> {
        let link = self.link(name)?;
        Ok(link
            .ok_or_else(|| Error::NoSuchLink(name.to_owned()))?
            .index)
    }

    /// Makes a pair of virtual Ethernet links, both down.
    ///
    /// # Errors
    /// [`Error::Name`] of either end; [`Error::Refused`]: a name is taken ([`Error::is_exists`]), EPERM without
    /// CAP_NET_ADMIN, or EOPNOTSUPP on a kernel without veth; or the connection's own.
    pub fn add_veth(&mut self, end: VethEnd<'_>, peer: VethEnd<'_>) -> Result<(), Error> {
        let mut message = end.message()?;
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer.message()?))),
        ]));
        self.change(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
            || format!("make the veth pair {} and {}", end.name, peer.name),
        )
    }

    /// Deletes a link (of a veth pair: both ends).
    ///
    /// # Errors
    /// As those of [`Netlink::index`]; [`Error::Refused`]: EPERM without CAP_NET_ADMIN, EOPNOTSUPP for a link that
    /// cannot be deleted, such as a network card's.
    pub fn delete_link(&mut self, name: &str) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = self.index(name)?;
        self.change(RouteNetlinkMessage::DelLink(message), 0, || {
            format!("delete {name}")
        })
    }

    /// Sets a link up or down administratively.
    ///
    /// # Errors
    /// As those of [`Netlink::index`] and [`Netlink::set_up_at`].
    pub fn set_up(&mut self, name: &str, up: bool) -> Result<(), Error> {
        let index = self.index(name)?;
        self.set_flags(index, up, || {
            format!("set {name} {}", if up { "up" } else { "down" })
        })
    }

    /// The same for the link of this index.
    ///
    /// # Errors
    /// [`Error::Refused`] by RTM_SETLINK: there is none (ENODEV, [`Error::is_absent`]), EPERM without CAP_NET_ADMIN,
    /// or what its driver says; or the connection's own.
    pub fn set_up_at(&mut self, index: u32, up: bool) -> Result<(), Error> {
        self.set_flags(index, up, || {
            format!("set it {}", if up { "up" } else { "down" })
        })
    }

    fn set_flags(
        &mut self,
        index: u32,
        up: bool,
        describe: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up {
            LinkFlags::Up
        } else {
            LinkFlags::empty()
        };
        self.change(RouteNetlinkMessage::SetLink(message), 0, describe)
    }

    /// Sets a link's MTU, bytes of the layer 3 packet.
    ///
    /// # Errors
    /// As those of [`Netlink::index`] and [`Netlink::set_mtu_at`].
    pub fn set_mtu(&mut self, name: &str, mtu: u32) -> Result<(), Error> {
        self.set(name, LinkAttribute::Mtu(mtu), || {
            format!("set the MTU of {name} to {mtu}")
        })
    }

    /// Sets how many packets may wait in a link to be sent; for a TUN device: to be read. Unlike the ioctl
    /// SIOCSIFTXQLEN, which asks for CAP_NET_ADMIN outside of any user namespace (dev_ioctl), this is allowed to
    /// whoever may change the link.
    ///
    /// # Errors
    /// As those of [`Netlink::index`]; [`Error::Refused`] by RTM_SETLINK: EPERM without CAP_NET_ADMIN.
    pub fn set_queue_length(&mut self, name: &str, packets: u32) -> Result<(), Error> {
        self.set(name, LinkAttribute::TxQueueLen(packets), || {
            format!("set the queue length of {name} to {packets}")
        })
    }

    /// Sets the MTU of the link of this index.
    ///
    /// # Errors
    /// As those of [`Netlink::set_up_at`]; EINVAL for an MTU that the link cannot have.
    pub fn set_mtu_at(&mut self, index: u32, mtu: u32) -> Result<(), Error> {
        self.set_at(index, LinkAttribute::Mtu(mtu), || {
            format!("set the MTU to {mtu}")
        })
    }

    /// Sets a link's MAC address.
    ///
    /// # Errors
    /// As those of [`Netlink::index`]; [`Error::Refused`] by RTM_SETLINK: EPERM without CAP_NET_ADMIN, EOPNOTSUPP for
    /// a link without such an address (TUN), EADDRNOTAVAIL for an address that no single station can have.
    pub fn set_mac(&mut self, name: &str, mac: [u8; 6]) -> Result<(), Error> {
        self.set(name, LinkAttribute::Address(mac.to_vec()), || {
            let digits = mac.map(|byte| format!("{byte:02x}")).join(":");
            format!("set the MAC address of {name} to {digits}")
        })
    }

    /// Renames a link; it must be down.
    ///
    /// # Errors
    /// [`Error::Name`] of the new name, and as those of [`Netlink::index`] and [`Netlink::rename_at`].
    pub fn rename(&mut self, name: &str, new: &str) -> Result<(), Error> {
        let attribute = LinkAttribute::IfName(checked(new)?);
        self.set(name, attribute, || format!("rename {name} to {new}"))
    }

    /// Renames the link of this index; it must be down (up, it may be from Linux 6.2 on).
    ///
    /// # Errors
    /// [`Error::Name`]; [`Error::Refused`] as [`Netlink::set_up_at`], besides that the name is taken
    /// ([`Error::is_exists`]), or that it is up (EBUSY).
    pub fn rename_at(&mut self, index: u32, new: &str) -> Result<(), Error> {
        let attribute = LinkAttribute::IfName(checked(new)?);
        self.set_at(index, attribute, || format!("rename it to {new}"))
    }

    /// Moves a link into another network namespace; it arrives there down and without addresses.
    ///
    /// # Errors
    /// As those of [`Netlink::index`]; [`Error::Refused`] by RTM_SETLINK: EPERM without CAP_NET_ADMIN in both
    /// namespaces, EINVAL for a descriptor that is no network namespace's or a link that may not leave, EEXIST where
    /// its name is taken there.
    pub fn move_link(&mut self, name: &str, namespace: BorrowedFd<'_>) -> Result<(), Error> {
        let attribute = LinkAttribute::NetNsFd(namespace.as_raw_fd());
        self.set(name, attribute, || {
            format!("move {name} to another network namespace")
        })
    }

    fn set(
        &mut self,
        name: &str,
        attribute: LinkAttribute,
        describe: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        let index = self.index(name)?;
        self.set_at(index, attribute, describe)
    }

    fn set_at(
        &mut self,
        index: u32,
        attribute: LinkAttribute,
        describe: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(attribute);
        self.change(RouteNetlinkMessage::SetLink(message), 0, describe)
    }
}

/// Holds a name against the kernel's rules before it is sent: too long a name would be cut or refused
/// with a bare ERANGE.
fn checked(name: &str) -> Result<String, Error> {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0';
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(bad) {
        return Err(Error::Name(name.to_owned()));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::namespace::Namespace;
    use std::os::fd::AsFd;

    #[test]
    fn names_that_the_kernel_refuses_are_refused_here() {
        for name in ["", "sixteen-bytes-ab", "a/b", "a b", "..", "a:b"] {
            assert!(matches!(checked(name), Err(Error::Name(_))), "{name:?}");
        }
        assert!(checked("fifteen-bytes-a").is_ok());
    }

    #[test]
    fn links_are_made_changed_moved_and_deleted() {
        let here = Namespace::new().unwrap();
        let there = Namespace::new().unwrap();
        let mut far = there.run(Netlink::open).unwrap().unwrap();
        let mut near = here.run(Netlink::open).unwrap().unwrap();

        near.add_veth(VethEnd::here("a0"), VethEnd::within("b0", there.as_fd()))
            .unwrap();
        near.set_mtu("a0", 1508).unwrap();
        near.set_mac("a0", [2, 0, 0, 0, 0, 1]).unwrap();
        let a0 = near.link("a0").unwrap().unwrap();
        assert_eq!(
            (a0.mtu, a0.mac, a0.admin_up),
            (1508, Some([2, 0, 0, 0, 0, 1]), false)
        );
        assert!(near.link("b0").unwrap().is_none());

        near.set_up("a0", true).unwrap();
        assert!(!near.link("a0").unwrap().unwrap().is_running());
        far.set_up("b0", true).unwrap();
        assert!(near.link("a0").unwrap().unwrap().is_running());

        near.add_veth(VethEnd::here("c0"), VethEnd::here("d0"))
            .unwrap();
        near.rename("d0", "d1").unwrap();
        near.move_link("d1", there.as_fd()).unwrap();
        let mut names: Vec<_> = far.links().unwrap().into_iter().map(|l| l.name).collect();
        names.sort();
        assert_eq!(names, ["b0", "d1", "lo"]);

        far.delete_link("b0").unwrap();
        assert!(near.link("a0").unwrap().is_none());
        assert!(near.delete_link("a0").unwrap_err().is_absent());
        let taken = near.add_veth(VethEnd::here("lo"), VethEnd::here("e0"));
        assert!(taken.unwrap_err().is_exists());
    }
}
