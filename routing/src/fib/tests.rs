use super::*;
use proptest::prelude::*;
use std::net::IpAddr;

fn scan(entries: &[(IpNet, u32)], address: IpAddr) -> u32 {
    entries
        .iter()
        .filter(|(net, _)| net.contains(&address))
        .max_by_key(|(net, _)| net.prefix_len())
        .map_or(0, |&(_, value)| value)
}

fn check(entries: &[(IpNet, u32)], probes: impl Iterator<Item = IpAddr>) {
    let fib = Fib::new(entries.iter().copied(), 0);
    let ends = entries.iter().flat_map(|(n, _)| {
        let step = |address: IpAddr, up: bool| match address {
            IpAddr::V4(a) if up => IpAddr::from(a.to_bits().wrapping_add(1).to_be_bytes()),
            IpAddr::V4(a) => IpAddr::from(a.to_bits().wrapping_sub(1).to_be_bytes()),
            IpAddr::V6(a) if up => IpAddr::from(a.to_bits().wrapping_add(1).to_be_bytes()),
            IpAddr::V6(a) => IpAddr::from(a.to_bits().wrapping_sub(1).to_be_bytes()),
        };
        let (first, last) = (n.network(), n.broadcast());
        [first, last, step(first, false), step(last, true)]
    });
    for address in ends.chain(probes) {
        let (version, bits) = crate::packet::address_bits(address);
        assert_eq!(fib.find(version, bits), scan(entries, address), "{address}");
    }
}

#[test]
fn an_empty_table_leads_to_nothing() {
    let fib = Fib::new([], 7);
    assert_eq!(fib.find(Version::V4, 0x0a00_0001), 7);
    assert_eq!(fib.find(Version::V6, u128::MAX), 7);
}

#[test]
fn of_two_entries_for_one_prefix_the_later_one_counts() {
    let net: IpNet = "10.0.0.0/8".parse().unwrap();
    let fib = Fib::new([(net, 1), (net, 2)], 0);
    assert_eq!(fib.find(Version::V4, 0x0a01_0203), 2);
}

#[test]
fn every_length_of_one_address_is_found() {
    for (address, bits) in [("10.77.200.13", 32), ("2001:db8:1:2:3:4:5:6", 128)] {
        let address: IpAddr = address.parse().unwrap();
        let entries: Vec<_> = (0..=bits)
            .map(|l| (IpNet::new(address, l).unwrap().trunc(), u32::from(l) + 1))
            .collect();
        check(&entries, std::iter::once(address));
    }
}

fn unique(mut entries: Vec<(IpNet, u32)>) -> Vec<(IpNet, u32)> {
    entries.sort_by_key(|e| e.0);
    entries.dedup_by_key(|e| e.0);
    entries
}

proptest! {
    // Few distinct high bits, so that prefixes nest.
    #[test]
    fn a_v4_lookup_agrees_with_a_linear_scan(
        list in proptest::collection::vec((0..4_u32, any::<u32>(), 0..=32_u8, 1..6_u32), 0..80),
        probes in proptest::collection::vec((0..4_u32, any::<u32>()), 50),
    ) {
        let address = |high: u32, low: u32| IpAddr::from(((high << 30) | (low & 0x03ff)| ((low & 0xf000) << 8)).to_be_bytes());
        let entries = list
            .iter()
            .map(|&(h, l, len, v)| (IpNet::new(address(h, l), len).unwrap().trunc(), v))
            .collect();
        check(&unique(entries), probes.iter().map(|&(h, l)| address(h, l)));
    }

    #[test]
    fn a_v6_lookup_agrees_with_a_linear_scan(
        list in proptest::collection::vec((0..4_u128, any::<u16>(), 0..=128_u8, 1..6_u32), 0..80),
        probes in proptest::collection::vec((0..4_u128, any::<u16>()), 50),
    ) {
        let address = |high: u128, low: u16| IpAddr::from(((high << 125) | (u128::from(low & 0xff) << 76) | u128::from(low >> 8)).to_be_bytes());
        let entries = list
            .iter()
            .map(|&(h, l, len, v)| (IpNet::new(address(h, l), len).unwrap().trunc(), v))
            .collect();
        check(&unique(entries), probes.iter().map(|&(h, l)| address(h, l)));
    }
}
