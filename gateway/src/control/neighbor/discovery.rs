//! The words of ARP (RFC 826) and of neighbour discovery (RFC 4861, 4.3 and 4.4), read and written.
//! What is read has been checked by section 7.1 of the RFC; the two protocols look the same from here on.

use crate::control::neighbor::entry::{Mac, Solicit};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv6Message, Icmpv6Packet, Icmpv6Repr,
    IpProtocol, Ipv6Address, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr,
    RawHardwareAddress,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Ethertype of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// Ethertype of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

const BROADCAST: Mac = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A frame to send, without its Ethernet header and tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Destination MAC address.
    pub destination: Mac,
    /// Ethertype of the payload.
    pub ethertype: u16,
    /// ARP packet or IPv6 packet.
    pub payload: Vec<u8>,
}

/// A message of either protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// "Who has `target`?"
    Solicitation {
        /// Who asks; `None` while he is finding out whether the address is free (RFC 4862 5.4, RFC 5227).
        sender: Option<IpAddr>,
        /// His MAC address, if he tells it.
        mac: Option<Mac>,
        /// What he asks for.
        target: IpAddr,
        /// The IPv6 destination, which must be the target or its multicast group; IPv4 has none.
        destination: Option<Ipv6Addr>,
    },
    /// "`about` is at `mac`."
    Advertisement {
        /// Whose address it is.
        about: IpAddr,
        /// Where it is.
        mac: Option<Mac>,
        /// Whom it answers; `None`: nobody, it is an announcement.
        answers: Option<IpAddr>,
        /// It replaces what was known.
        replaces: bool,
    },
}

/// Why a message is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Shorter than its lengths say, of other lengths than Ethernet and IP have, or a wrong checksum.
    Malformed,
    /// The hop limit is not 255: it may come from beyond the link (RFC 4861, 7.1).
    HopLimit,
    /// A MAC or IP address that no neighbour can have.
    Address,
    /// Neither a solicitation nor an advertisement; nothing is wrong with it.
    Other,
}

/// Reads the payload of a frame.
///
/// # Errors
/// Why it must be ignored.
pub fn read(ethertype: u16, payload: &[u8]) -> Result<Message, Refusal> {
    match ethertype {
        ETHERTYPE_ARP => read_arp(payload),
        ETHERTYPE_IPV6 => read_ndp(payload),
        _ => Err(Refusal::Other),
    }
}

/// "Who has `target`?", asked from `own` at `mac`. `None` if the two are not of one IP version.
pub fn solicitation(mac: Mac, own: IpAddr, target: IpAddr, to: Solicit) -> Option<Frame> {
    match (own, target) {
        (IpAddr::V4(own), IpAddr::V4(target)) => {
            let destination = match to {
                Solicit::Everybody => BROADCAST,
                Solicit::Known(mac) => mac,
            };
            let question = (ArpOperation::Request, [0; 6], target);
            Some(arp(destination, question, (mac, own)))
        }
        (IpAddr::V6(own), IpAddr::V6(target)) => {
            let (destination, address) = match to {
                Solicit::Everybody => {
                    let group = solicited_node(target);
                    (multicast_mac(group), group)
                }
                Solicit::Known(mac) => (mac, target),
            };
            let question = NdiscRepr::NeighborSolicit {
                target_addr: target,
                lladdr: Some(RawHardwareAddress::from_bytes(&mac)),
            };
            Some(ndp(destination, own, address, question))
        }
        _ => None,
    }
}

/// "`own` is at `mac`", in answer to `sender` at `sender_mac`; to everybody where the sender has no
/// address yet.
pub fn answer(mac: Mac, own: IpAddr, sender: Option<IpAddr>, sender_mac: Mac) -> Option<Frame> {
    match (own, sender) {
        (IpAddr::V4(own), None) => {
            let to = (ArpOperation::Reply, sender_mac, Ipv4Addr::UNSPECIFIED);
            Some(arp(sender_mac, to, (mac, own)))
        }
        (IpAddr::V4(own), Some(IpAddr::V4(sender))) => {
            let to = (ArpOperation::Reply, sender_mac, sender);
            Some(arp(sender_mac, to, (mac, own)))
        }
        (IpAddr::V6(own), None) => Some(advertisement(mac, own)),
        (IpAddr::V6(own), Some(IpAddr::V6(sender))) => {
            let flags = NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
            Some(ndp(sender_mac, own, sender, advert(mac, own, flags)))
        }
        _ => None,
    }
}

/// "`own` is at `mac`", told to everybody unasked (RFC 5227 section 3, RFC 4861 7.2.6).
pub fn announcement(mac: Mac, own: IpAddr) -> Frame {
    match own {
        IpAddr::V4(own) => arp(BROADCAST, (ArpOperation::Request, [0; 6], own), (mac, own)),
        IpAddr::V6(own) => advertisement(mac, own),
    }
}

/// The multicast group that a solicitation for `address` goes to (RFC 4291, 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    let tail = [u16::from_be_bytes([0xff, a]), u16::from_be_bytes([b, c])];
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, tail[0], tail[1])
}

/// The MAC address of an IPv6 multicast group (RFC 2464, section 7).
pub fn multicast_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

fn read_arp(payload: &[u8]) -> Result<Message, Refusal> {
    let packet = ArpPacket::new_checked(payload).map_err(|_| Refusal::Malformed)?;
    // Refuses other hardware and protocol types and lengths.
    let repr = ArpRepr::parse(&packet).map_err(|_| Refusal::Malformed)?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr: sender,
        target_protocol_addr: target,
        ..
    } = repr
    else {
        return Err(Refusal::Other);
    };
    let mac = station(source_hardware_addr.0)?;
    let usable = |address: Ipv4Addr| !address.is_multicast() && !address.is_broadcast();
    if !usable(sender) || !usable(target) {
        return Err(Refusal::Address);
    }
    let known = (!sender.is_unspecified()).then_some(IpAddr::V4(sender));
    match operation {
        // An announcement may be either of the two (RFC 5227, section 3).
        ArpOperation::Request | ArpOperation::Reply if sender == target => {
            Ok(Message::Advertisement {
                about: known.ok_or(Refusal::Address)?,
                mac: Some(mac),
                answers: None,
                replaces: true,
            })
        }
        ArpOperation::Request => Ok(Message::Solicitation {
            sender: known,
            mac: Some(mac),
            target: IpAddr::V4(target),
            destination: None,
        }),
        ArpOperation::Reply => Ok(Message::Advertisement {
            about: known.ok_or(Refusal::Address)?,
            mac: Some(mac),
            answers: (!target.is_unspecified()).then_some(IpAddr::V4(target)),
            replaces: true,
        }),
        ArpOperation::Unknown(_) => Err(Refusal::Other),
    }
}

fn read_ndp(payload: &[u8]) -> Result<Message, Refusal> {
    let packet = Ipv6Packet::new_checked(payload).map_err(|_| Refusal::Malformed)?;
    if packet.version() != 6 {
        return Err(Refusal::Malformed);
    }
    if packet.next_header() != IpProtocol::Icmpv6 {
        return Err(Refusal::Other);
    }
    let (source, destination) = (packet.src_addr(), packet.dst_addr());
    let icmp = Icmpv6Packet::new_checked(packet.payload()).map_err(|_| Refusal::Malformed)?;
    if !matches!(
        icmp.msg_type(),
        Icmpv6Message::NeighborSolicit | Icmpv6Message::NeighborAdvert
    ) {
        return Err(Refusal::Other);
    }
    if packet.hop_limit() != 255 {
        return Err(Refusal::HopLimit);
    }
    // Verifies the checksum, the code, and the options' lengths.
    let repr = Icmpv6Repr::parse(
        &source,
        &destination,
        &icmp,
        &ChecksumCapabilities::default(),
    );
    if source.is_multicast() {
        return Err(Refusal::Address);
    }
    match repr {
        Ok(Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
            target_addr,
            lladdr,
        })) => {
            let group = solicited_node(target_addr);
            let mac = lladdr.map(link_layer_address).transpose()?;
            let unspecified = source.is_unspecified();
            let to_target = destination == group || destination == target_addr;
            let probe_is_fair = destination == group && mac.is_none();
            if target_addr.is_multicast() || !to_target || (unspecified && !probe_is_fair) {
                return Err(Refusal::Address);
            }
            Ok(Message::Solicitation {
                sender: (!unspecified).then_some(IpAddr::V6(source)),
                mac,
                target: IpAddr::V6(target_addr),
                destination: Some(destination),
            })
        }
        Ok(Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
            flags,
            target_addr,
            lladdr,
        })) => {
            let solicited = flags.contains(NdiscNeighborFlags::SOLICITED);
            let mac = lladdr.map(link_layer_address).transpose()?;
            let unfair = solicited && destination.is_multicast();
            if target_addr.is_multicast() || target_addr.is_unspecified() || unfair {
                return Err(Refusal::Address);
            }
            Ok(Message::Advertisement {
                about: IpAddr::V6(target_addr),
                mac,
                answers: solicited.then_some(IpAddr::V6(destination)),
                replaces: flags.contains(NdiscNeighborFlags::OVERRIDE),
            })
        }
        _ => Err(Refusal::Malformed),
    }
}

/// A MAC address that a station can have: neither a group's nor all zeros.
fn station(mac: Mac) -> Result<Mac, Refusal> {
    let [first, ..] = mac;
    if first & 1 == 1 || mac == [0; 6] {
        Err(Refusal::Address)
    } else {
        Ok(mac)
    }
}

fn link_layer_address(address: RawHardwareAddress) -> Result<Mac, Refusal> {
    station(Mac::try_from(address.as_bytes()).map_err(|_| Refusal::Malformed)?)
}

fn arp(
    destination: Mac,
    (operation, target_mac, target): (ArpOperation, Mac, Ipv4Addr),
    (mac, own): (Mac, Ipv4Addr),
) -> Frame {
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(mac),
        source_protocol_addr: own,
        target_hardware_addr: EthernetAddress(target_mac),
        target_protocol_addr: target,
    };
    let mut payload = vec![0; repr.buffer_len()];
    repr.emit(&mut ArpPacket::new_unchecked(&mut payload));
    Frame {
        destination,
        ethertype: ETHERTYPE_ARP,
        payload,
    }
}

fn advertisement(mac: Mac, own: Ipv6Addr) -> Frame {
    let message = advert(mac, own, NdiscNeighborFlags::OVERRIDE);
    ndp(multicast_mac(ALL_NODES), own, ALL_NODES, message)
}

fn advert(mac: Mac, own: Ipv6Addr, flags: NdiscNeighborFlags) -> NdiscRepr<'static> {
    NdiscRepr::NeighborAdvert {
        // The R flag too: vng forwards packets (RFC 4861, 4.4).
        flags: flags | NdiscNeighborFlags::ROUTER,
        target_addr: own,
        lladdr: Some(RawHardwareAddress::from_bytes(&mac)),
    }
}

fn ndp(destination: Mac, from: Ipv6Address, to: Ipv6Address, message: NdiscRepr<'_>) -> Frame {
    let icmp = Icmpv6Repr::Ndisc(message);
    let header = Ipv6Repr {
        src_addr: from,
        dst_addr: to,
        next_header: IpProtocol::Icmpv6,
        payload_len: icmp.buffer_len(),
        hop_limit: 255,
    };
    let mut payload = vec![0; header.buffer_len() + icmp.buffer_len()];
    let mut packet = Ipv6Packet::new_unchecked(&mut payload[..]);
    header.emit(&mut packet);
    icmp.emit(
        &from,
        &to,
        &mut Icmpv6Packet::new_unchecked(packet.payload_mut()),
        &ChecksumCapabilities::default(),
    );
    Frame {
        destination,
        ethertype: ETHERTYPE_IPV6,
        payload,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 1];
    const PEER: Mac = [2, 0, 0, 0, 0, 2];

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([172, 16, 0, last])
    }

    fn v6(last: u16) -> IpAddr {
        IpAddr::from([0xfd00, 0x16, 0, 0, 0, 0, 0, last])
    }

    fn read_frame(frame: &Frame) -> Result<Message, Refusal> {
        read(frame.ethertype, &frame.payload)
    }

    /// An advertisement or solicitation with its checksum made good again after a change.
    fn resealed(frame: &Frame, change: impl FnOnce(&mut [u8])) -> Result<Message, Refusal> {
        let mut payload = frame.payload.clone();
        change(&mut payload);
        let mut packet = Ipv6Packet::new_unchecked(&mut payload[..]);
        let (from, to) = (packet.src_addr(), packet.dst_addr());
        Icmpv6Packet::new_unchecked(packet.payload_mut()).fill_checksum(&from, &to);
        read(ETHERTYPE_IPV6, &payload)
    }

    #[test]
    fn a_question_reads_back_in_both_versions() {
        for (own, target) in [(v4(2), v4(1)), (v6(2), v6(1))] {
            for to in [Solicit::Everybody, Solicit::Known(PEER)] {
                let frame = solicitation(MAC, own, target, to).unwrap();
                if to == Solicit::Known(PEER) {
                    assert_eq!(frame.destination, PEER);
                } else {
                    assert_eq!(frame.destination[0] & 1, 1);
                }
                let Ok(Message::Solicitation {
                    sender,
                    mac,
                    target: asked,
                    ..
                }) = read_frame(&frame)
                else {
                    panic!("{frame:?}");
                };
                assert_eq!((sender, mac, asked), (Some(own), Some(MAC), target));
            }
        }
        assert_eq!(solicitation(MAC, v4(2), v6(1), Solicit::Everybody), None);
    }

    #[test]
    fn an_answer_reads_back_in_both_versions() {
        for (own, sender) in [(v4(2), v4(1)), (v6(2), v6(1))] {
            let frame = answer(MAC, own, Some(sender), PEER).unwrap();
            assert_eq!(frame.destination, PEER);
            let expected = Message::Advertisement {
                about: own,
                mac: Some(MAC),
                answers: Some(sender),
                replaces: true,
            };
            assert_eq!(read_frame(&frame), Ok(expected));
        }
    }

    #[test]
    fn an_announcement_answers_nobody() {
        for own in [v4(2), v6(2)] {
            let frame = announcement(MAC, own);
            let expected = Message::Advertisement {
                about: own,
                mac: Some(MAC),
                answers: None,
                replaces: true,
            };
            assert_eq!(read_frame(&frame), Ok(expected));
        }
    }

    #[test]
    fn the_group_of_an_address_is_the_one_of_rfc_4291() {
        let address: Ipv6Addr = "4037::01:800:200e:8c6c".parse().unwrap();
        let group: Ipv6Addr = "ff02::1:ff0e:8c6c".parse().unwrap();
        assert_eq!(solicited_node(address), group);
        assert_eq!(multicast_mac(group), [0x33, 0x33, 0xff, 0x0e, 0x8c, 0x6c]);
    }

    #[test]
    fn a_message_from_beyond_the_link_is_refused() {
        let mut frame = answer(MAC, v6(2), Some(v6(1)), PEER).unwrap();
        frame.payload[7] = 254;
        assert_eq!(read_frame(&frame), Err(Refusal::HopLimit));
    }

    #[test]
    fn a_wrong_checksum_or_code_is_refused() {
        let frame = answer(MAC, v6(2), Some(v6(1)), PEER).unwrap();
        let mut bad = frame.clone();
        bad.payload[50] ^= 1;
        assert_eq!(read_frame(&bad), Err(Refusal::Malformed));
        assert_eq!(resealed(&frame, |p| p[41] = 1), Err(Refusal::Malformed));
        assert!(resealed(&frame, |_| ()).is_ok());
    }

    #[test]
    fn an_option_without_length_is_refused() {
        let frame = answer(MAC, v6(2), Some(v6(1)), PEER).unwrap();
        assert_eq!(resealed(&frame, |p| p[65] = 0), Err(Refusal::Malformed));
        assert_eq!(resealed(&frame, |p| p[65] = 9), Err(Refusal::Malformed));
    }

    #[test]
    fn group_addresses_are_no_neighbors() {
        let frame = answer(MAC, v6(2), Some(v6(1)), PEER).unwrap();
        assert_eq!(resealed(&frame, |p| p[66] |= 1), Err(Refusal::Address));
        assert_eq!(
            resealed(&frame, |p| p[66..72].fill(0)),
            Err(Refusal::Address)
        );
        assert_eq!(resealed(&frame, |p| p[48] = 0xff), Err(Refusal::Address));
        let mut frame = answer(MAC, v4(2), Some(v4(1)), PEER).unwrap();
        frame.payload[8] |= 1;
        assert_eq!(read_frame(&frame), Err(Refusal::Address));
    }

    #[test]
    fn a_solicited_answer_to_a_group_is_refused() {
        let frame = announcement(MAC, v6(2));
        assert_eq!(resealed(&frame, |p| p[44] |= 0x40), Err(Refusal::Address));
    }

    #[test]
    fn a_question_from_nobody_must_go_to_the_group_without_a_mac() {
        let frame = solicitation(MAC, v6(2), v6(1), Solicit::Everybody).unwrap();
        assert_eq!(
            resealed(&frame, |p| p[8..24].fill(0)),
            Err(Refusal::Address),
            "it tells a MAC"
        );
        let mut probe = frame.clone();
        probe.payload.truncate(64);
        probe.payload[5] = 24;
        let read = resealed(&probe, |p| p[8..24].fill(0));
        assert!(
            matches!(
                read,
                Ok(Message::Solicitation {
                    sender: None,
                    mac: None,
                    ..
                })
            ),
            "{read:?}"
        );
        let elsewhere = resealed(&frame, |p| p[39] ^= 1);
        assert_eq!(elsewhere, Err(Refusal::Address), "not the target's group");
    }

    #[test]
    fn an_arp_probe_has_no_sender() {
        let mut frame = solicitation(MAC, v4(2), v4(1), Solicit::Everybody).unwrap();
        frame.payload[14..18].fill(0);
        let read = read_frame(&frame);
        assert!(
            matches!(read, Ok(Message::Solicitation { sender: None, .. })),
            "{read:?}"
        );
    }

    #[test]
    fn arp_of_other_hardware_is_refused() {
        let frame = solicitation(MAC, v4(2), v4(1), Solicit::Everybody).unwrap();
        for (at, value) in [(1, 6), (2, 0x86), (4, 8), (5, 16), (7, 8)] {
            let mut other = frame.clone();
            other.payload[at] = value;
            assert!(read_frame(&other).is_err(), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for ethertype in [ETHERTYPE_ARP, ETHERTYPE_IPV6, 0x0800] {
                let _ = read(ethertype, &bytes);
            }
        }

        #[test]
        fn changed_messages_never_panic_and_never_tell_a_group_mac(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            length in 0_usize..80,
            which in 0_usize..4,
        ) {
            let frame = match which {
                0 => solicitation(MAC, v6(2), v6(1), Solicit::Everybody).unwrap(),
                1 => answer(MAC, v6(2), Some(v6(1)), PEER).unwrap(),
                2 => solicitation(MAC, v4(2), v4(1), Solicit::Everybody).unwrap(),
                _ => answer(MAC, v4(2), Some(v4(1)), PEER).unwrap(),
            };
            let mut payload = frame.payload;
            for (index, value) in changes {
                let index = index.index(payload.len());
                payload[index] = value;
            }
            payload.truncate(length.max(44));
            if frame.ethertype == ETHERTYPE_IPV6 {
                let mut packet = Ipv6Packet::new_unchecked(&mut payload[..]);
                if packet.check_len().is_ok() {
                    let (from, to) = (packet.src_addr(), packet.dst_addr());
                    let mut icmp = Icmpv6Packet::new_unchecked(packet.payload_mut());
                    if icmp.check_len().is_ok() {
                        icmp.fill_checksum(&from, &to);
                    }
                }
            }
            if let Ok(Message::Solicitation { mac: Some(mac), .. }
                | Message::Advertisement { mac: Some(mac), .. }) = read(frame.ethertype, &payload)
            {
                prop_assert!(mac[0] & 1 == 0 && mac != [0; 6]);
            }
        }
    }
}
