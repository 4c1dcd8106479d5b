//! A MAC address of the gateway's own on a link, so that the kernel's stack leaves the link's frames alone.

use ring::digest::{SHA256, digest};
use std::fmt::Write;
use std::net::IpAddr;

/// The MAC address of the link `circuit/link` on `interface` with these own addresses: locally administered,
/// unicast (IEEE 802, 8.4), the same each time that the gateway starts, so that neighbours need not learn a
/// new one. Two links differ even on one interface, and so do two gateways on one segment, since their
/// addresses do: 46 bits of a SHA-256.
pub fn own_mac(interface: &str, circuit: &str, link: &str, addresses: &[IpAddr]) -> [u8; 6] {
    let mut seed = format!("{interface}\0{circuit}\0{link}");
    for address in addresses {
        let _ = write!(seed, "\0{address}");
    }
    let digest = digest(&SHA256, seed.as_bytes());
    let mut mac = [0; 6];
    for (to, from) in mac.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    // Bit 1: locally administered; bit 0: group.
    mac[0] = mac[0] & !0b11 | 0b10;
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_mac_is_stable_local_and_unicast_and_differs_by_link() {
        let address: IpAddr = "172.16.0.2".parse().unwrap();
        let primary = own_mac("eth1", "er-sydney", "primary", &[address]);
        assert_eq!(primary, own_mac("eth1", "er-sydney", "primary", &[address]));
        assert_eq!(primary[0] & 3, 2);
        for other in [
            own_mac("eth2", "er-sydney", "primary", &[address]),
            own_mac("eth1", "er-sydney", "secondary", &[address]),
            own_mac(
                "eth1",
                "er-sydney",
                "primary",
                &["172.16.0.1".parse().unwrap()],
            ),
            own_mac("eth1", "er-sydney", "primary", &[]),
        ] {
            assert_ne!(primary, other);
        }
    }
}
