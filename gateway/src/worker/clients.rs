//! Point-to-site clients in the data path. All of them are one path: the route table leads to their pool, and
//! which client a packet is for is asked only here, by its destination.
//!
//! Out: the worker that has the client's tunnel, by address; there, its peer, by address.
//! In: a client may use no source but its own addresses.

use crate::pipeline::field::length;
use routing::packet::{FlowKey, Version, address_bits};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::IpAddr;

/// A client, for as long as it is in the configuration; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u32);

/// An address as a packet's headers have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    version: Version,
    bits: u128,
}

impl Address {
    /// Where a packet goes.
    #[inline]
    pub fn destination(key: &FlowKey) -> Self {
        Self {
            version: key.version,
            bits: key.destination,
        }
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        let (version, bits) = address_bits(address);
        Self { version, bits }
    }
}

/// Something for each address. The keys are the configuration's, so nobody outside can choose ones that collide.
pub type ByAddress<T> = HashMap<Address, T, BuildHasherDefault<AddressHasher>>;

/// Multiplies to 128 bits and folds the halves, for each word.
#[derive(Clone, Copy, Debug, Default)]
pub struct AddressHasher(u64);

impl AddressHasher {
    #[inline]
    fn fold(&mut self, word: u64) {
        // The first digits of pi's fraction: as many ones as zeros.
        let product = u128::from(self.0 ^ word ^ 0x243F_6A88_85A3_08D3)
            * u128::from(0x1319_8A2E_0370_7345_u64);
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.fold(byte.into());
        }
    }

    #[inline]
    fn write_isize(&mut self, n: isize) {
        // The version.
        self.0 ^= n as u64;
    }

    #[inline]
    fn write_u128(&mut self, n: u128) {
        self.fold((n >> 64) as u64);
        self.fold(n as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

/// The sources that a client may use: its addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    v4: Option<[u8; 4]>,
    v6: Option<[u8; 16]>,
}

impl Sources {
    /// Of a client with these addresses.
    pub fn of(addresses: &[IpAddr]) -> Self {
        let mut sources = Self::default();
        for address in addresses {
            match address {
                IpAddr::V4(v4) => sources.v4 = Some(v4.octets()),
                IpAddr::V6(v6) => sources.v6 = Some(v6.octets()),
            }
        }
        sources
    }

    /// Whether the client may send this packet: its length if so, and `None` if its source is another's. What is
    /// no IP packet is for the pipeline to refuse, and is as long as it is.
    #[inline]
    pub fn admit(&self, packet: &[u8]) -> Option<u64> {
        let word = |at: usize| match packet.get(at..at + 2) {
            Some(&[high, low]) => u64::from(u16::from_be_bytes([high, low])),
            _ => 0,
        };
        let all = packet.len() as u64;
        match packet.first().map_or(0, |first| first >> 4) {
            4 if packet.len() >= length::V4 => {
                let source = packet.get(12..16);
                (source == self.v4.as_ref().map(<[u8; 4]>::as_slice)).then(|| word(2).min(all))
            }
            6 if packet.len() >= length::V6 => {
                let source = packet.get(8..24);
                (source == self.v6.as_ref().map(<[u8; 16]>::as_slice))
                    .then(|| (word(4) + length::V6 as u64).min(all))
            }
            _ => Some(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_use_its_own_sources_only() {
        let sources = Sources::of(&["172.31.0.2".parse().unwrap(), "fd00:31::2".parse().unwrap()]);
        let mut v4 = vec![0; 32];
        (v4[0], v4[3]) = (0x45, 28);
        v4[12..16].copy_from_slice(&[172, 31, 0, 2]);
        assert_eq!(sources.admit(&v4), Some(28), "without its padding");
        v4[15] = 3;
        assert_eq!(sources.admit(&v4), None);

        let mut v6 = vec![0; 48];
        (v6[0], v6[5]) = (0x60, 8);
        v6[8..24].copy_from_slice(&"fd00:31::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
        assert_eq!(sources.admit(&v6), Some(48));
        assert_eq!(
            Sources::of(&["172.31.0.2".parse().unwrap()]).admit(&v6),
            None
        );
        assert_eq!(
            sources.admit(&[0x45; 8]),
            Some(8),
            "for the pipeline to refuse"
        );
    }

    #[test]
    fn addresses_of_a_pool_do_not_collide() {
        use std::hash::BuildHasher as _;
        let hasher = BuildHasherDefault::<AddressHasher>::default();
        let hashes = (0..65_536_u32).map(|n| {
            let address = IpAddr::from((0xAC1F_0000 + n).to_be_bytes());
            hasher.hash_one(Address::from(address)) as u16
        });
        let mut count = vec![0_u8; 65_536];
        for hash in hashes {
            count[usize::from(hash)] = count[usize::from(hash)].saturating_add(1);
        }
        assert!(count.iter().all(|&n| n < 16), "{:?}", count.iter().max());
    }
}
