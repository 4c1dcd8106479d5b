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
mod tests;
