//! Facts of a network interface by name, and the few settings that a device needs before it can carry
//! packets (netdevice(7)). What happens to interfaces later comes through netlink.

use super::error::DeviceError;
use super::socket::check;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use std::ffi::{c_char, c_int, c_short};
use std::mem::zeroed;
use std::os::fd::{AsRawFd, OwnedFd};

/// An interface as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Index in this network namespace.
    pub index: u32,
    /// MTU: the largest layer 3 packet, bytes.
    pub mtu: u32,
    /// MAC address; zeros on a device that has none.
    pub mac: [u8; 6],
    /// Administratively up (IFF_UP).
    pub up: bool,
    /// Not known to be without carrier (IFF_RUNNING): true for a moment on a link that has just come up,
    /// before the kernel has looked.
    pub running: bool,
}

impl Interface {
    /// Looks `name` up.
    ///
    /// # Errors
    /// `NoInterface`, `BadName`, or what the kernel said.
    pub fn query(name: &str) -> Result<Self, DeviceError> {
        let requests = Requests::new(name)?;
        let index = requests.index()?;
        let flags = requests.flags()?;
        Ok(Self {
            name: name.to_owned(),
            index,
            mtu: requests.mtu()?,
            mac: requests.mac()?,
            up: flags & libc::IFF_UP != 0,
            running: flags & libc::IFF_RUNNING != 0,
        })
    }

    /// The name of the interface of this index, if there is one.
    pub fn name(index: u32) -> Option<String> {
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        );
        netdevice::index_to_name(&socket.ok()?, index).ok()
    }

    /// Sets the MTU of `name`, bytes.
    ///
    /// # Errors
    /// [`DeviceError::BadName`]; [`DeviceError::NoInterface`] (ENODEV, ENXIO); [`DeviceError::Permission`] without
    /// CAP_NET_ADMIN; [`DeviceError::Kernel`] with what SIOCSIFMTU said else, EINVAL for an MTU that the device
    /// cannot have.
    pub fn set_mtu(name: &str, mtu: u32) -> Result<(), DeviceError> {
        Requests::new(name)?.set_mtu(mtu)
    }

    /// Takes `name` up or down.
    ///
    /// # Errors
    /// [`DeviceError::BadName`]; [`DeviceError::NoInterface`] (ENODEV, ENXIO); [`DeviceError::Permission`] without
    /// CAP_NET_ADMIN; [`DeviceError::Kernel`] with what SIOCGIFFLAGS or SIOCSIFFLAGS said else.
    pub fn set_up(name: &str, up: bool) -> Result<(), DeviceError> {
        Requests::new(name)?.set_up(up)
    }
}

/// An interface name as `struct ifreq` takes it.
///
/// # Errors
/// `BadName` unless the kernel would take it as it is (`dev_valid_name`, and no `%`, which makes a pattern).
pub(super) fn request(name: &str) -> Result<libc::ifreq, DeviceError> {
    let bad = |c: char| matches!(c, '/' | ':' | '%' | '\0') || c.is_whitespace();
    if name.is_empty()
        || name.len() >= libc::IFNAMSIZ
        || [".", ".."].contains(&name)
        || name.contains(bad)
    {
        return Err(DeviceError::BadName {
            name: name.to_owned(),
        });
    }
    // SAFETY: all fields of `ifreq` are integers or a pointer, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        // c_char is signed on some machines and unsigned on others; the bits are what counts.
        *to = c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

/// A socket to ask through, and the question's subject.
struct Requests<'a> {
    name: &'a str,
    socket: OwnedFd,
    request: libc::ifreq,
}

impl<'a> Requests<'a> {
    fn new(name: &'a str) -> Result<Self, DeviceError> {
        let request = request(name)?;
        let attempt = || format!("ask about interface {name}");
        // Any family serves (netdevice(7)); AF_UNIX is there even without IP.
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|error| DeviceError::of(attempt(), error))?;
        Ok(Self {
            name,
            socket,
            request,
        })
    }

    fn index(&self) -> Result<u32, DeviceError> {
        netdevice::name_to_index(&self.socket, self.name)
            .map_err(|error| self.error("look up", error))
    }

    fn flags(&self) -> Result<c_int, DeviceError> {
        let answer = self.call(libc::SIOCGIFFLAGS, self.request, "read the flags of")?;
        // SAFETY: SIOCGIFFLAGS has written this member.
        Ok(c_int::from(unsafe { answer.ifr_ifru.ifru_flags }))
    }

    fn mtu(&self) -> Result<u32, DeviceError> {
        let answer = self.call(libc::SIOCGIFMTU, self.request, "read the MTU of")?;
        // SAFETY: SIOCGIFMTU has written this member.
        Ok(unsafe { answer.ifr_ifru.ifru_mtu }.cast_unsigned())
    }

    fn mac(&self) -> Result<[u8; 6], DeviceError> {
        let answer = self.call(libc::SIOCGIFHWADDR, self.request, "read the MAC address of")?;
        // SAFETY: SIOCGIFHWADDR has written this member.
        let data = unsafe { answer.ifr_ifru.ifru_hwaddr }.sa_data;
        let mut mac = [0; 6];
        for (to, from) in mac.iter_mut().zip(data) {
            *to = from as u8;
        }
        Ok(mac)
    }

    fn set_mtu(&self, mtu: u32) -> Result<(), DeviceError> {
        let mut request = self.request;
        request.ifr_ifru.ifru_mtu = c_int::try_from(mtu).unwrap_or(c_int::MAX);
        self.call(libc::SIOCSIFMTU, request, "set the MTU of")
            .map(drop)
    }

    fn set_up(&self, up: bool) -> Result<(), DeviceError> {
        let flags = self.flags()?;
        let wanted = if up {
            flags | libc::IFF_UP
        } else {
            flags & !libc::IFF_UP
        };
        let mut request = self.request;
        request.ifr_ifru.ifru_flags = wanted as c_short;
        self.call(libc::SIOCSIFFLAGS, request, "take up or down")
            .map(drop)
    }

    fn call(
        &self,
        code: libc::c_ulong,
        mut request: libc::ifreq,
        attempt: &str,
    ) -> Result<libc::ifreq, DeviceError> {
        // SAFETY: each SIOC code used here takes a pointer to one `ifreq`, which lives through the call.
        let result = unsafe {
            libc::ioctl(
                self.socket.as_raw_fd(),
                code as _,
                std::ptr::from_mut(&mut request),
            )
        };
        check(result as isize).map_err(|error| self.error(attempt, error))?;
        Ok(request)
    }

    fn error(&self, attempt: &str, error: Errno) -> DeviceError {
        match error {
            Errno::NODEV | Errno::NXIO => DeviceError::NoInterface {
                name: self.name.to_owned(),
            },
            error => DeviceError::of(format!("{attempt} interface {}", self.name), error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_and_a_stranger_is_not() {
        let loopback = Interface::query("lo").unwrap();
        assert_eq!(loopback.mac, [0; 6]);
        assert!(loopback.index > 0 && loopback.mtu >= 1500);
        assert!(matches!(
            Interface::query("vng-none"),
            Err(DeviceError::NoInterface { .. })
        ));
    }

    #[test]
    fn names_that_the_kernel_refuses_are_refused() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "tun%d",
            "a\0",
            "sixteen-bytes-xx",
        ] {
            assert!(
                matches!(Interface::query(name), Err(DeviceError::BadName { .. })),
                "{name:?}"
            );
        }
        assert!(request("fifteen-bytes-x").is_ok());
    }
}
