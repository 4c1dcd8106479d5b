//! Congestion marks through a tunnel (RFC 6040, normal mode).

use super::forward;
use routing::packet::Headers;
use routing::reason::DropReason;

/// ECN bits of a traffic class (RFC 3168, 5).
pub const ECN: u8 = 0b11;
/// Not ECN-capable.
const NOT_ECT: u8 = 0b00;
/// ECN-capable, the codepoint of L4S (RFC 9331) among others.
const ECT_1: u8 = 0b01;
/// ECN-capable.
const ECT_0: u8 = 0b10;
/// Congestion experienced.
const CE: u8 = 0b11;

/// The outer header's traffic class for an inner packet: DSCP and ECN copied (RFC 6040, 4.1; RFC 2983,
/// uniform on the way in).
#[inline]
pub const fn outer_traffic_class(inner: u8) -> u8 {
    inner
}

/// The inner packet's traffic class once the outer header is off (RFC 6040, figure 4): its own DSCP,
/// and the ECN of both headers. `inner` again means that nothing is to be edited.
///
/// # Errors
/// `EcnIllegal`: the outer header says that a packet which is not ECN-capable met congestion, so its
/// sender can only learn of it by the loss.
#[inline]
pub const fn inner_traffic_class(inner: u8, outer: u8) -> Result<u8, DropReason> {
    let combined = match (inner & ECN, outer & ECN) {
        (NOT_ECT, CE) => return Err(DropReason::EcnIllegal),
        (ECT_0 | ECT_1, CE) => CE,
        (ECT_0, ECT_1) => ECT_1,
        (inner, _) => inner,
    };
    Ok(inner & !ECN | combined)
}

/// Puts the congestion mark of the outer header into an inner packet. Two marks of four can change it;
/// the packet is not even looked at for the others, which all packets of an ECN-capable flow have.
///
/// # Errors
/// `EcnIllegal`, see [`inner_traffic_class`]; or what makes the packet unreadable.
#[inline]
pub fn combine(packet: &mut [u8], outer: u8) -> Result<(), DropReason> {
    match outer & ECN {
        ECT_1 | CE => mark(packet, outer),
        _ => Ok(()),
    }
}

#[cold]
fn mark(packet: &mut [u8], outer: u8) -> Result<(), DropReason> {
    let headers = Headers::parse(packet)?;
    let class = inner_traffic_class(headers.traffic_class, outer)?;
    if class != headers.traffic_class {
        forward::set_traffic_class(packet, &headers, class);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decapsulation_follows_figure_4_of_rfc_6040() {
        let dropped = Err(DropReason::EcnIllegal);
        let table = [
            (NOT_ECT, [Ok(NOT_ECT), Ok(NOT_ECT), Ok(NOT_ECT), dropped]),
            (ECT_0, [Ok(ECT_0), Ok(ECT_0), Ok(ECT_1), Ok(CE)]),
            (ECT_1, [Ok(ECT_1), Ok(ECT_1), Ok(ECT_1), Ok(CE)]),
            (CE, [Ok(CE), Ok(CE), Ok(CE), Ok(CE)]),
        ];
        for (inner, row) in table {
            for (outer, expected) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(row) {
                assert_eq!(
                    inner_traffic_class(inner, outer),
                    expected,
                    "{inner:02b} in {outer:02b}"
                );
            }
        }
    }

    #[test]
    fn the_inner_dscp_stays_and_the_outer_one_is_copied() {
        assert_eq!(inner_traffic_class(0xb8 | ECT_0, 0x20 | CE), Ok(0xb8 | CE));
        assert_eq!(outer_traffic_class(0xb8 | ECT_1), 0xb8 | ECT_1);
    }

    #[test]
    fn only_two_outer_marks_can_change_a_packet() {
        for inner in 0..=CE {
            for outer in [NOT_ECT, ECT_0] {
                assert_eq!(inner_traffic_class(inner, outer), Ok(inner));
            }
        }
    }
}
