//! What VLAN tags cost of an interface's MTU when they are sent in band.

use crate::device::vlan::{CUSTOMER_TAG, TAG_LEN, Tags};

/// The largest IP packet that passes an interface of this MTU behind these tags, bytes, and if it is less
/// than the MTU, a line that says so with the remedy.
///
/// A packet socket takes frames of up to MTU + 14 bytes, and 4 more if the ethertype behind the addresses is
/// 0x8100 (`packet_extra_vlan_len_allowed`); an outer 0x88a8 has no such grace. A longer frame is refused
/// with EMSGSIZE, but a super-packet is not: without this bound, ping and the first segments pass and then
/// TCP stalls.
pub fn usable_mtu(link_mtu: u32, tags: Tags) -> (u16, Option<String>) {
    let grace = match tags.outer() {
        Some((CUSTOMER_TAG, _)) => TAG_LEN,
        _ => 0,
    };
    let cost = tags.len().saturating_sub(grace) as u32;
    let mtu = u16::try_from(link_mtu.saturating_sub(cost)).unwrap_or(u16::MAX);
    let warning = (cost > 0).then(|| {
        let needed = link_mtu.saturating_add(cost);
        format!(
            "an interface MTU of {link_mtu} leaves {mtu} bytes behind the tags {tags}; packets of {link_mtu} need an interface MTU of {needed}"
        )
    });
    (mtu, warning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::vlan::SERVICE_TAG;

    #[test]
    fn only_an_outer_8100_has_four_bytes_of_grace() {
        let mtu = |ids: &[u16], kind| usable_mtu(1500, Tags::new(ids, kind).unwrap());
        assert_eq!(mtu(&[], SERVICE_TAG), (1500, None));
        assert_eq!(mtu(&[10], SERVICE_TAG), (1500, None));
        assert_eq!(mtu(&[100, 10], CUSTOMER_TAG).0, 1496);
        let (inside, warning) = mtu(&[100, 10], SERVICE_TAG);
        assert_eq!(inside, 1492);
        assert!(warning.unwrap().contains("1508"));
        let qinq = Tags::new(&[100, 10], SERVICE_TAG).unwrap();
        assert_eq!(usable_mtu(1508, qinq).0, 1500);
        assert_eq!(usable_mtu(4, qinq).0, 0);
        assert_eq!(usable_mtu(65_536, Tags::NONE).0, u16::MAX);
    }
}
