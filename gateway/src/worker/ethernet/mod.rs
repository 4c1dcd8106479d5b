//! The Ethernet side of an ExpressRoute link: its frames (`framing`), the MAC address it uses (`address`),
//! and how much of an IP packet its tags leave room for (`mtu`).

mod address;
mod framing;
mod mtu;

pub use address::own_mac;
pub use framing::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, Framing, IpPayload, MAX_HEADER, Payload, Prefix,
};
pub use mtu::usable_mtu;
