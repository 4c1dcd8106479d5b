//! Classic BPF programs that share a link's frames out between its two packet sockets, so that each frame
//! is taken exactly once and a flood of data cannot push ARP out of its queue:
//!
//! | frame, with exactly the link's tags (of an untagged link: none, or a priority tag, VLAN 0) | socket |
//! |---|---|
//! | IPv4 to the link's MAC address | data |
//! | IPv6 to the link's MAC address, but neighbour discovery (ICMPv6 133 to 137, directly behind the IPv6 header) | data |
//! | neighbour discovery to the link's MAC address or a group | control |
//! | ARP to the link's MAC address or a group | control |
//!
//! All else is not the gateway's and neither socket gets it: other tags (what is meant for the link all the same is
//! taken note of, [`mistagged`]), other ethertypes, frames for other stations, IP to groups (MLD among it), what this machine itself
//! sends out of the interface, and frames that end before what is looked at.
//!
//! The kernel takes the outermost tag out of a frame before the filter sees it and hands it over beside it
//! (SKF_AD_VLAN_TAG_PRESENT, SKF_AD_VLAN_TAG, and SKF_AD_VLAN_TPID, Linux 4.1); the second tag stays at
//! offset 12. (linux/filter.h, Documentation/networking/filter.rst)

use super::vlan::{CUSTOMER_TAG, ID_MASK, SERVICE_TAG, TAG_LEN, Tags};
use std::net::IpAddr;

/// One instruction of a program.
pub use libc::sock_filter as Instruction;

const ETHERTYPE_IPV4: u32 = 0x0800;
const ETHERTYPE_IPV6: u32 = 0x86dd;
const ETHERTYPE_ARP: u32 = 0x0806;
const ICMPV6: u32 = 58;
/// Router solicitation to redirect (RFC 4861, 4).
const NDP_FIRST: u32 = 133;
const NDP_LAST: u32 = 137;
/// Where the ethertype is in an untagged frame, bytes.
const ETHERTYPE_AT: u32 = 12;

/// The program of a link's data socket. `mac` is the address that the link uses, its own or the interface's.
pub fn data(tags: Tags, mac: [u8; 6]) -> Vec<Instruction> {
    let mut program = Program::for_link(tags);
    let network = ETHERTYPE_AT + 2 + in_band(tags);
    program.require_station(mac);
    program.load_half(network - 2);
    program.accept_if(ETHERTYPE_IPV4);
    program.require(ETHERTYPE_IPV6);
    program.load_byte(network + 6);
    program.accept_unless(ICMPV6);
    program.load_byte(network + 40);
    program.reject_range(NDP_FIRST, NDP_LAST);
    program.accept()
}

/// The program of a link's control socket. `mac` as for [`data`].
pub fn control(tags: Tags, mac: [u8; 6]) -> Vec<Instruction> {
    let mut program = Program::for_link(tags);
    let network = ETHERTYPE_AT + 2 + in_band(tags);
    program.require_station_or_group(mac);
    program.load_half(network - 2);
    program.accept_if(ETHERTYPE_ARP);
    program.require(ETHERTYPE_IPV6);
    program.load_byte(network + 6);
    program.require(ICMPV6);
    program.load_byte(network + 40);
    program.require_range(NDP_FIRST, NDP_LAST);
    program.accept()
}

/// Bytes of a frame that [`mistagged`] lets through: what its tags and addresses can be read from.
pub const MISTAGGED_LEN: u32 = 64;

/// The program of a socket that sees what is meant for a link but does not have its tags: frames to its MAC address,
/// where that is the link's own (`mac`), and questions for its addresses, ARP and neighbour solicitations. The far end
/// asks so with whatever tags it is configured for.
pub fn mistagged(tags: Tags, mac: Option<[u8; 6]>, own: &[IpAddr]) -> Vec<Instruction> {
    let mut tagged_so = Program::for_link(tags);
    if tags.count() < 2 {
        // A tag more would be in band.
        tagged_so.load_half(ETHERTYPE_AT);
        tagged_so.reject_if(u32::from(CUSTOMER_TAG));
        tagged_so.reject_if(u32::from(SERVICE_TAG));
    }
    let mut meant = Program(Vec::with_capacity(16));
    meant.load_beside(libc::SKF_AD_PKTTYPE);
    meant.jump(libc::BPF_JEQ, PACKET_OUTGOING, TO_REJECT, 0);
    if let Some(mac) = mac {
        let (high, low) = halves(mac);
        meant.accept_if_both((0, high), (4, low));
    }
    // Jumps are 8 bits long.
    for address in own.iter().take(8) {
        match address {
            IpAddr::V6(address) => {
                // ff02::1:ff00:0/104, the solicited-node group (RFC 4291, 2.7.1), as RFC 2464, 7 maps it.
                let [.., a, b, c] = address.octets();
                let (high, low) = halves([0x33, 0x33, 0xff, a, b, c]);
                meant.accept_if_both((0, high), (4, low));
            }
            IpAddr::V4(address) => {
                for network in [ETHERTYPE_AT + 2, ETHERTYPE_AT + 2 + TAG_LEN as u32] {
                    meant.load_half(network - 2);
                    meant.jump(libc::BPF_JEQ, ETHERTYPE_ARP, 0, 2);
                    // The target's protocol address (RFC 826).
                    meant.load_word(network + 24);
                    meant.accept_if(address.to_bits());
                }
            }
        }
    }
    // Those that have the link's tags end here; the others go on.
    let mut program = tagged_so.end(&[0], (0, 1));
    program.extend(meant.end(&[0, MISTAGGED_LEN], (1, 0)));
    program
}

/// A program that takes nothing.
pub fn nothing() -> Vec<Instruction> {
    vec![statement(libc::BPF_RET | libc::BPF_K, 0)]
}

/// Length of the tags that are still in the frame when the filter sees it.
fn in_band(tags: Tags) -> u32 {
    tags.len().saturating_sub(TAG_LEN) as u32
}

/// A program under construction. Its end is always "accept, reject", so a jump to either is known only
/// there: until then jumps carry the marks below.
struct Program(Vec<Instruction>);

/// Jump marks; real distances stay below, since no program here is near that long.
const TO_ACCEPT: u8 = 0xfe;
const TO_REJECT: u8 = 0xff;

impl Program {
    /// Begins with what both programs ask: not sent by this machine, and the link's tags.
    fn for_link(tags: Tags) -> Self {
        let mut program = Self(Vec::with_capacity(32));
        program.load_beside(libc::SKF_AD_PKTTYPE);
        program.jump(libc::BPF_JEQ, PACKET_OUTGOING, TO_REJECT, 0);
        program.load_beside(libc::SKF_AD_VLAN_TAG_PRESENT);
        let Some((kind, id)) = tags.outer() else {
            // None, or one that has a priority and no VLAN (802.1Q, 6.9): past the three instructions that look.
            program.jump(libc::BPF_JEQ, 0, 3, 0);
            program.load_beside(libc::SKF_AD_VLAN_TAG);
            program.require_id(0);
            return program;
        };
        program.jump(libc::BPF_JEQ, 0, TO_REJECT, 0);
        program.load_beside(libc::SKF_AD_VLAN_TPID);
        program.require(u32::from(kind));
        program.load_beside(libc::SKF_AD_VLAN_TAG);
        program.require_id(id);
        if let Some(id) = tags.inner() {
            program.load_half(ETHERTYPE_AT);
            program.require(u32::from(CUSTOMER_TAG));
            program.load_half(ETHERTYPE_AT + 2);
            program.require_id(id);
        }
        program
    }

    fn require_id(&mut self, id: u16) {
        self.0.push(statement(
            libc::BPF_ALU | libc::BPF_AND | libc::BPF_K,
            u32::from(ID_MASK),
        ));
        self.require(u32::from(id));
    }

    fn require_station(&mut self, mac: [u8; 6]) {
        let (high, low) = halves(mac);
        self.load_word(0);
        self.require(high);
        self.load_half(4);
        self.require(low);
    }

    fn require_station_or_group(&mut self, mac: [u8; 6]) {
        let (high, low) = halves(mac);
        self.load_byte(0);
        // The group bit (IEEE 802, 8.2): past the four instructions that compare the address.
        self.jump(libc::BPF_JSET, 1, 4, 0);
        self.load_word(0);
        self.require(high);
        self.load_half(4);
        self.require(low);
    }

    /// Rejects unless the accumulator is `value`.
    fn require(&mut self, value: u32) {
        self.jump(libc::BPF_JEQ, value, 0, TO_REJECT);
    }

    fn accept_if(&mut self, value: u32) {
        self.jump(libc::BPF_JEQ, value, TO_ACCEPT, 0);
    }

    fn accept_if_both(&mut self, word: (u32, u32), half: (u32, u32)) {
        self.load_word(word.0);
        self.jump(libc::BPF_JEQ, word.1, 0, 2);
        self.load_half(half.0);
        self.accept_if(half.1);
    }

    fn reject_if(&mut self, value: u32) {
        self.jump(libc::BPF_JEQ, value, TO_REJECT, 0);
    }

    fn accept_unless(&mut self, value: u32) {
        self.jump(libc::BPF_JEQ, value, 0, TO_ACCEPT);
    }

    fn require_range(&mut self, first: u32, last: u32) {
        self.jump(libc::BPF_JGE, first, 0, TO_REJECT);
        self.jump(libc::BPF_JGT, last, TO_REJECT, 0);
    }

    fn reject_range(&mut self, first: u32, last: u32) {
        self.jump(libc::BPF_JGE, first, 0, TO_ACCEPT);
        self.jump(libc::BPF_JGT, last, TO_ACCEPT, TO_REJECT);
    }

    fn load_beside(&mut self, what: i32) {
        let at = (libc::SKF_AD_OFF + what).cast_unsigned();
        self.0
            .push(statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at));
    }

    fn load_word(&mut self, at: u32) {
        self.0
            .push(statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at));
    }

    fn load_half(&mut self, at: u32) {
        self.0
            .push(statement(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, at));
    }

    fn load_byte(&mut self, at: u32) {
        self.0
            .push(statement(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, at));
    }

    fn jump(&mut self, condition: u32, value: u32, yes: u8, no: u8) {
        self.0.push(Instruction {
            code: (libc::BPF_JMP | condition | libc::BPF_K) as u16,
            jt: yes,
            jf: no,
            k: value,
        });
    }

    /// Ends the program: what falls through to here is accepted, whole.
    fn accept(self) -> Vec<Instruction> {
        self.end(&[u32::MAX, 0], (0, 1))
    }

    /// Ends the program with returns of so many bytes, the first of which is for what falls through, and lets the marks
    /// lead to these of them: accept, reject. One more than there are is what comes behind the program.
    fn end(mut self, returns: &[u32], (accept, reject): (usize, usize)) -> Vec<Instruction> {
        let end = self.0.len();
        for (at, instruction) in self.0.iter_mut().enumerate() {
            if u32::from(instruction.code) & 7 == libc::BPF_JMP {
                // A jump counts from the instruction behind it.
                let distance = end - at - 1;
                for target in [&mut instruction.jt, &mut instruction.jf] {
                    match *target {
                        TO_ACCEPT => *target = (distance + accept) as u8,
                        TO_REJECT => *target = (distance + reject) as u8,
                        _ => {}
                    }
                }
            }
        }
        let of_bytes = |&bytes: &u32| statement(libc::BPF_RET | libc::BPF_K, bytes);
        self.0.extend(returns.iter().map(of_bytes));
        self.0
    }
}

/// `pkt_type` of a frame that this machine sends (linux/if_packet.h).
const PACKET_OUTGOING: u32 = libc::PACKET_OUTGOING as u32;

fn statement(code: u32, k: u32) -> Instruction {
    Instruction {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

/// The first four and the last two bytes of an address, as loads give them.
fn halves(mac: [u8; 6]) -> (u32, u32) {
    let bits = mac
        .iter()
        .fold(0_u64, |bits, &byte| bits << 8 | u64::from(byte));
    ((bits >> 16) as u32, u32::from(bits as u16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWN: [u8; 6] = [2, 0xab, 0xcd, 0, 0x80, 1];
    const OTHER: [u8; 6] = [2, 0xab, 0xcd, 0, 0x80, 2];
    const BROADCAST: [u8; 6] = [0xff; 6];
    const GROUP: [u8; 6] = [0x33, 0x33, 0xff, 0, 0, 1];

    /// A frame as a filter sees it: the outermost tag beside it.
    #[derive(Clone, Debug)]
    struct Seen {
        packet_type: u32,
        tag: Option<(u16, u16)>,
        bytes: Vec<u8>,
    }

    /// Runs a program as the kernel does (filter.rst): a load beyond the frame ends it with 0. Panics on
    /// what the kernel's checker would not take: a jump beyond the end, an unknown instruction.
    fn run(program: &[Instruction], frame: &Seen) -> u32 {
        let (mut accumulator, mut at) = (0_u32, 0);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            let (code, mut next) = (u32::from(code), at + 1);
            let jump = |holds: bool| next + usize::from(if holds { jt } else { jf });
            match code & 7 {
                libc::BPF_RET => return k,
                libc::BPF_LD => match load(code, k, frame) {
                    Some(value) => accumulator = value,
                    None => return 0,
                },
                libc::BPF_ALU if code & 0xf0 == libc::BPF_AND => accumulator &= k,
                libc::BPF_JMP => {
                    next = jump(match code & 0xf0 {
                        libc::BPF_JEQ => accumulator == k,
                        libc::BPF_JGT => accumulator > k,
                        libc::BPF_JGE => accumulator >= k,
                        libc::BPF_JSET => accumulator & k != 0,
                        other => panic!("jump {other:#x}"),
                    });
                }
                other => panic!("class {other}"),
            }
            at = next;
        }
    }

    fn load(code: u32, k: u32, frame: &Seen) -> Option<u32> {
        let beside = k
            .wrapping_sub(libc::SKF_AD_OFF.cast_unsigned())
            .cast_signed();
        match beside {
            libc::SKF_AD_PKTTYPE => return Some(frame.packet_type),
            libc::SKF_AD_VLAN_TAG_PRESENT => return Some(u32::from(frame.tag.is_some())),
            libc::SKF_AD_VLAN_TPID => return Some(frame.tag.map_or(0, |(kind, _)| kind.into())),
            libc::SKF_AD_VLAN_TAG => return Some(frame.tag.map_or(0, |(_, id)| id.into())),
            _ => {}
        }
        let size = match code & 0x18 {
            libc::BPF_W => 4,
            libc::BPF_H => 2,
            _ => 1,
        };
        let bytes = frame.bytes.get(k as usize..k as usize + size)?;
        Some(
            bytes
                .iter()
                .fold(0, |value, &byte| value << 8 | u32::from(byte)),
        )
    }

    /// Which of the two sockets take a frame.
    fn taken(tags: Tags, frame: &Seen) -> (bool, bool) {
        let whole = |verdict| match verdict {
            0 => false,
            u32::MAX => true,
            part => panic!("cut to {part} bytes"),
        };
        (
            whole(run(&data(tags, OWN), frame)),
            whole(run(&control(tags, OWN), frame)),
        )
    }

    fn frame(tags: &[(u16, u16)], destination: [u8; 6], ethertype: u16, payload: &[u8]) -> Seen {
        let mut bytes = [destination, OTHER].concat();
        for (kind, control) in tags.iter().skip(1) {
            bytes.extend([kind.to_be_bytes(), control.to_be_bytes()].concat());
        }
        bytes.extend(ethertype.to_be_bytes());
        bytes.extend(payload);
        Seen {
            packet_type: 3,
            tag: tags.first().copied(),
            bytes,
        }
    }

    fn ipv6(next_header: u8, first: u8) -> Vec<u8> {
        let mut packet = vec![0; 48];
        (packet[0], packet[6], packet[40]) = (0x60, next_header, first);
        packet
    }

    fn links() -> [Tags; 5] {
        [
            (&[][..], CUSTOMER_TAG),
            (&[100], CUSTOMER_TAG),
            (&[10], CUSTOMER_TAG),
            (&[100, 10], SERVICE_TAG),
            (&[100, 10], CUSTOMER_TAG),
        ]
        .map(|(ids, kind)| Tags::new(ids, kind).unwrap())
    }

    const DATA: (bool, bool) = (true, false);
    const CONTROL: (bool, bool) = (false, true);
    const NEITHER: (bool, bool) = (false, false);

    #[test]
    fn each_frame_of_the_link_goes_to_its_one_socket() {
        let ipv4 = [&[0x45, 0][..], &[0; 18]].concat();
        let table = [
            ("IPv4", OWN, 0x0800, ipv4.clone(), DATA),
            (
                "IPv4 to another station",
                OTHER,
                0x0800,
                ipv4.clone(),
                NEITHER,
            ),
            (
                "IPv4 multicast",
                [1, 0, 0x5e, 0, 0, 1],
                0x0800,
                ipv4.clone(),
                NEITHER,
            ),
            ("IPv4 broadcast", BROADCAST, 0x0800, ipv4, NEITHER),
            ("IPv6 TCP", OWN, 0x86dd, ipv6(6, 0), DATA),
            (
                "IPv6 TCP that looks like NDP",
                OWN,
                0x86dd,
                ipv6(6, 135),
                DATA,
            ),
            ("echo request", OWN, 0x86dd, ipv6(58, 128), DATA),
            ("echo reply", OWN, 0x86dd, ipv6(58, 129), DATA),
            ("MLD query, 132 and below", OWN, 0x86dd, ipv6(58, 132), DATA),
            ("router solicitation", OWN, 0x86dd, ipv6(58, 133), CONTROL),
            (
                "neighbour solicitation",
                GROUP,
                0x86dd,
                ipv6(58, 135),
                CONTROL,
            ),
            (
                "neighbour advertisement",
                OWN,
                0x86dd,
                ipv6(58, 136),
                CONTROL,
            ),
            ("redirect", OWN, 0x86dd, ipv6(58, 137), CONTROL),
            ("138 and above", OWN, 0x86dd, ipv6(58, 138), DATA),
            ("138 to a group", GROUP, 0x86dd, ipv6(58, 138), NEITHER),
            (
                "NDP to another station",
                OTHER,
                0x86dd,
                ipv6(58, 135),
                NEITHER,
            ),
            (
                "MLD behind hop-by-hop to a group",
                GROUP,
                0x86dd,
                ipv6(0, 58),
                NEITHER,
            ),
            ("hop-by-hop to us", OWN, 0x86dd, ipv6(0, 58), DATA),
            ("ARP request", BROADCAST, 0x0806, vec![0; 28], CONTROL),
            ("ARP reply", OWN, 0x0806, vec![0; 28], CONTROL),
            (
                "ARP to another station",
                OTHER,
                0x0806,
                vec![0; 28],
                NEITHER,
            ),
            (
                "LLDP",
                [1, 0x80, 0xc2, 0, 0, 14],
                0x88cc,
                vec![0; 46],
                NEITHER,
            ),
            (
                "EtherType of nobody to us",
                OWN,
                0x1234,
                vec![0; 46],
                NEITHER,
            ),
            (
                "ICMPv6 without its type",
                OWN,
                0x86dd,
                ipv6(58, 0)[..40].to_vec(),
                NEITHER,
            ),
        ];
        for tags in links() {
            let wire: Vec<_> = tags.iter().collect();
            for (name, destination, ethertype, payload, wanted) in &table {
                let mut seen = frame(&wire, *destination, *ethertype, payload);
                assert_eq!(taken(tags, &seen), *wanted, "{name} on {tags}");
                for packet_type in 0..=2 {
                    seen.packet_type = packet_type;
                    assert_eq!(taken(tags, &seen), *wanted, "{name} on {tags}");
                }
                seen.packet_type = 4;
                assert_eq!(taken(tags, &seen), NEITHER, "{name} sent from {tags}");
            }
        }
    }

    #[test]
    fn only_the_link_whose_tags_a_frame_has_takes_it() {
        let mut wires: Vec<Vec<(u16, u16)>> = links().map(|tags| tags.iter().collect()).to_vec();
        let strangers = [
            vec![(CUSTOMER_TAG, 0)],
            vec![(CUSTOMER_TAG, 101)],
            vec![(SERVICE_TAG, 100)],
            vec![(SERVICE_TAG, 100), (CUSTOMER_TAG, 11)],
            vec![(SERVICE_TAG, 101), (CUSTOMER_TAG, 10)],
            vec![(SERVICE_TAG, 100), (SERVICE_TAG, 10)],
            vec![(SERVICE_TAG, 10), (CUSTOMER_TAG, 100)],
            vec![(SERVICE_TAG, 100), (CUSTOMER_TAG, 10), (CUSTOMER_TAG, 7)],
        ];
        wires.extend(strangers);
        for (number, wire) in wires.iter().enumerate() {
            for (which, tags) in links().into_iter().enumerate() {
                let data = frame(wire, OWN, 0x0800, &[0x45; 20]);
                let arp = frame(wire, BROADCAST, 0x0806, &[0; 28]);
                let is_priority = wire[..] == [(CUSTOMER_TAG, 0)] && tags.is_empty();
                let own = number == which || is_priority;
                assert_eq!(taken(tags, &data), (own, false), "{wire:?} on {tags}");
                assert_eq!(taken(tags, &arp), (false, own), "{wire:?} on {tags}");
            }
        }
    }

    #[test]
    fn what_is_meant_for_a_link_and_has_other_tags_is_taken_note_of() {
        let wires: [&[(u16, u16)]; 9] = [
            &[],
            &[(CUSTOMER_TAG, 0xe000)],
            &[(CUSTOMER_TAG, 100)],
            &[(CUSTOMER_TAG, 200)],
            &[(SERVICE_TAG, 100)],
            &[(SERVICE_TAG, 100), (CUSTOMER_TAG, 10)],
            &[(CUSTOMER_TAG, 100), (CUSTOMER_TAG, 10)],
            &[(SERVICE_TAG, 100), (CUSTOMER_TAG, 11)],
            &[(SERVICE_TAG, 100), (SERVICE_TAG, 10)],
        ];
        let own: [IpAddr; 2] = ["172.16.0.2".parse().unwrap(), "fd16::2".parse().unwrap()];
        let question = |target: [u8; 4]| [&[0; 24][..], &target].concat();
        let solicited = [0x33, 0x33, 0xff, 0, 0, 2];
        for tags in links() {
            for wire in wires {
                let is_own = taken(tags, &frame(wire, OWN, 0x0800, &[0x45; 40])) == DATA;
                let noted = |mac, destination, ethertype, payload: &[u8]| {
                    let seen = frame(wire, destination, ethertype, payload);
                    let verdict = run(&mistagged(tags, mac, &own), &seen);
                    assert!([0, MISTAGGED_LEN].contains(&verdict));
                    verdict > 0
                };
                let what = format!("{wire:?} on {tags}");
                assert_eq!(
                    noted(Some(OWN), OWN, 0x0800, &[0x45; 40]),
                    !is_own,
                    "{what}"
                );
                // The interface's own address is also that of its other VLANs.
                assert!(!noted(None, OWN, 0x0800, &[0x45; 40]), "{what}");
                let ours = question([172, 16, 0, 2]);
                assert_eq!(noted(None, BROADCAST, 0x0806, &ours), !is_own, "{what}");
                let theirs = question([172, 16, 0, 3]);
                assert!(!noted(None, BROADCAST, 0x0806, &theirs), "{what}");
                let solicitation = ipv6(58, 135);
                assert_eq!(
                    noted(None, solicited, 0x86dd, &solicitation),
                    !is_own,
                    "{what}"
                );
                assert!(!noted(None, GROUP, 0x86dd, &solicitation), "{what}");
            }
        }
    }

    #[test]
    fn priority_bits_are_not_part_of_the_id() {
        let tags = Tags::new(&[100, 10], SERVICE_TAG).unwrap();
        // 100 and 10, with bits above.
        let wire = [(SERVICE_TAG, 0xf064), (CUSTOMER_TAG, 0xb00a)];
        assert_eq!(taken(tags, &frame(&wire, OWN, 0x0800, &[0x45; 20])), DATA);
    }

    proptest! {
        #[test]
        fn no_frame_is_taken_twice(
            packet_type in 0_u32..8,
            tag: Option<(u16, u16)>,
            mut bytes in proptest::collection::vec(any::<u8>(), 0..80),
            to_us: bool,
            ethertype in proptest::sample::select(vec![0x0800_u16, 0x0806, 0x86dd, 0x8100]),
            which in 0_usize..5,
        ) {
            if to_us && bytes.len() > 14 {
                bytes[..6].copy_from_slice(&OWN);
                bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
            }
            let seen = Seen { packet_type, tag, bytes };
            prop_assert_ne!(taken(links()[which], &seen), (true, true));
        }
    }
}
