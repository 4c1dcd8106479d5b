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
