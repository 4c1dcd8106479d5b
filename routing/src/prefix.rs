//! Sets of prefixes: whether an address lies in any of them.
//!
//! A set is kept as sorted, disjoint ranges of addresses, so that membership is one binary search and
//! overlapping or repeated prefixes cost nothing.

use crate::packet::Version;
use ipnet::IpNet;
use std::sync::Arc;

/// An immutable set of addresses, given as prefixes of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixSet {
    v4: Arc<[(u32, u32)]>,
    v6: Arc<[(u128, u128)]>,
}

impl PrefixSet {
    /// Whether no address is in it.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether the address, as a flow key holds it, lies in a prefix of the set.
    #[inline]
    pub fn contains(&self, version: Version, address: u128) -> bool {
        match version {
            Version::V4 => range_of(&self.v4, address as u32).is_some(),
            Version::V6 => range_of(&self.v6, address).is_some(),
        }
    }

    /// Whether one prefix of the set holds all addresses from `first` to `last`.
    pub(crate) fn contains_range(&self, version: Version, first: u128, last: u128) -> bool {
        match version {
            Version::V4 => range_of(&self.v4, first as u32).is_some_and(|end| last as u32 <= end),
            Version::V6 => range_of(&self.v6, first).is_some_and(|end| last <= end),
        }
    }
}

impl FromIterator<IpNet> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(prefixes: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            match prefix {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Self {
            v4: disjoint(v4),
            v6: disjoint(v6),
        }
    }
}

/// The end of the range that holds `address`.
#[inline]
fn range_of<A: Copy + Ord>(ranges: &[(A, A)], address: A) -> Option<A> {
    let behind = ranges.partition_point(|&(first, _)| first <= address);
    let &(_, last) = ranges.get(behind.checked_sub(1)?)?;
    (address <= last).then_some(last)
}

/// Prefixes either nest or are apart, so a sorted range is inside the one kept before it, or behind it.
fn disjoint<A: Copy + Ord>(mut ranges: Vec<(A, A)>) -> Arc<[(A, A)]> {
    ranges.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    let mut kept: Vec<(A, A)> = Vec::with_capacity(ranges.len());
    for range in ranges {
        if kept.last().is_none_or(|&(_, last)| range.0 > last) {
            kept.push(range);
        }
    }
    kept.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::address_bits;
    use proptest::prelude::*;
    use std::net::IpAddr;

    #[test]
    fn an_empty_set_contains_nothing() {
        let set = PrefixSet::default();
        assert!(set.is_empty());
        assert!(!set.contains(Version::V4, 0));
        assert!(!set.contains(Version::V6, u128::MAX));
    }

    proptest! {
        #[test]
        fn a_set_contains_what_any_of_its_prefixes_contains(
            v4 in proptest::collection::vec((0..0x0100_0000_u32, 8..=32_u8), 0..12),
            v6 in proptest::collection::vec((any::<u8>(), 0..=128_u8), 0..12),
            probes in proptest::collection::vec((0..0x0100_0000_u32, any::<u8>()), 20),
        ) {
            let nets: Vec<IpNet> = v4
                .iter()
                .map(|&(a, l)| IpNet::new(IpAddr::from(a.to_be_bytes()), l).unwrap())
                .chain(v6.iter().map(|&(a, l)| {
                    IpNet::new(IpAddr::from((u128::from(a) << 118).to_be_bytes()), l).unwrap()
                }))
                .collect();
            let set: PrefixSet = nets.iter().copied().collect();
            let ends = nets.iter().flat_map(|n| [n.network(), n.broadcast()]);
            let random = probes.iter().flat_map(|&(a, b)| [
                IpAddr::from(a.to_be_bytes()),
                IpAddr::from((u128::from(b) << 118).to_be_bytes()),
            ]);
            for address in ends.chain(random) {
                let (version, bits) = address_bits(address);
                prop_assert_eq!(
                    set.contains(version, bits),
                    nets.iter().any(|n| n.contains(&address)),
                    "{}", address
                );
            }
        }
    }
}
