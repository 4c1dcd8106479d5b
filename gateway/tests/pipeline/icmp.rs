use crate::packets::{Spec, any_header, fold, noise, parse, slow_sum};
use gateway::device::offload::Offload;
use gateway::pipeline::checksum::verify;
use gateway::pipeline::icmp::{Complaint, MAX_ERROR, build, may_answer};
use gateway::pipeline::rate::RateLimit;
use proptest::prelude::*;
use routing::packet::{Headers, protocol};
use std::net::IpAddr;
use std::time::{Duration, Instant};

fn ours(v6: bool) -> IpAddr {
    if v6 {
        "2001:db8::fe".parse().unwrap()
    } else {
        "10.9.9.9".parse().unwrap()
    }
}

fn answer(complaint: Complaint, packet: &[u8], offload: &Offload) -> Option<Vec<u8>> {
    let mut out = [0xcc; MAX_ERROR];
    let headers = parse(packet);
    let len = build(
        complaint,
        packet,
        &headers,
        offload,
        ours(packet[0] >> 4 == 6),
        &mut out,
    )?;
    Some(out[..len].to_vec())
}

proptest! {
    #[test]
    fn an_error_quotes_what_the_wire_would_have_carried(
        header in any_header(0xff), len in 0..5000usize, size in 0..3000u16, partial in any::<bool>(),
    ) {
        let spec = Spec { payload: noise(len), ..header };
        let (packet, offload) =
            if partial { spec.build_partial(size) } else { (spec.build(), Offload::default()) };
        let first = if partial && size > 0 {
            spec.segments(usize::from(size)).remove(0)
        } else {
            let mut packet = packet.clone();
            if let Some(partial) = offload.checksum {
                gateway::pipeline::checksum::finish(&mut packet, partial).unwrap();
            }
            packet
        };
        let error = answer(Complaint::TooBig { mtu: 1400 }, &packet, &offload).unwrap();
        let headers = parse(&error);
        prop_assert_eq!(headers.total_len as usize, error.len());
        prop_assert!(verify(&error, &headers));
        prop_assert_eq!(headers.key.source_address(), ours(spec.v6));
        prop_assert_eq!(headers.key.destination, parse(&packet).key.source);
        prop_assert_eq!(headers.traffic_class, 0xc0);
        let (head, limit) = if spec.v6 { (48, 1280) } else { (28, 576) };
        let quoted = first.len().min(limit - head);
        prop_assert_eq!(&error[head..], &first[..quoted]);
        prop_assert_eq!(&error[head - 4..head], &1400u32.to_be_bytes());
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        packet in prop::collection::vec(any::<u8>(), 0..100), room in 0..100usize, v6 in any::<bool>(),
    ) {
        let headers = Headers::parse(&packet).unwrap_or(parse(&Spec { v6, ..Spec::udp(0) }.build()));
        let mut out = [0; 100];
        build(Complaint::NoRoute, &packet, &headers, &Offload::default(), ours(v6), &mut out[..room]);
    }
}

#[test]
fn types_and_codes_are_those_of_the_rfcs() {
    let kinds = [
        (Complaint::TimeExceeded, (11, 0), (3, 0)),
        (Complaint::NoRoute, (3, 0), (1, 0)),
        (Complaint::Unreachable, (3, 1), (1, 3)),
        (Complaint::PortUnreachable, (3, 3), (1, 4)),
        (Complaint::Prohibited, (3, 13), (1, 1)),
        (Complaint::TooBig { mtu: 1400 }, (3, 4), (2, 0)),
    ];
    for (complaint, v4, v6) in kinds {
        let error = answer(complaint, &Spec::tcp(100).build(), &Offload::default()).unwrap();
        assert_eq!((error[20], error[21]), v4);
        let packet = Spec {
            v6: true,
            ..Spec::tcp(100)
        }
        .build();
        let error = answer(complaint, &packet, &Offload::default()).unwrap();
        assert_eq!((error[40], error[41]), v6);
    }
}

#[test]
fn an_error_is_not_answered() {
    for v6 in [false, true] {
        let packet = Spec {
            v6,
            ..Spec::tcp(100)
        }
        .build();
        let error = answer(Complaint::NoRoute, &packet, &Offload::default()).unwrap();
        assert!(!may_answer(&parse(&error)));
    }
}

#[test]
fn an_echo_request_is_answered_and_a_redirect_is_not() {
    let mut headers = parse(&Spec::tcp(0).build());
    headers.key.protocol = protocol::ICMP;
    headers.key.destination_port = 8 << 8;
    assert!(may_answer(&headers));
    headers.key.destination_port = 5 << 8;
    assert!(!may_answer(&headers));
    let mut headers = parse(
        &Spec {
            v6: true,
            ..Spec::tcp(0)
        }
        .build(),
    );
    headers.key.protocol = protocol::ICMPV6;
    headers.key.destination_port = 128 << 8;
    assert!(may_answer(&headers));
    headers.key.destination_port = 137 << 8;
    assert!(!may_answer(&headers));
}

#[test]
fn nobody_and_everybody_are_not_answered() {
    let headers = parse(&Spec::tcp(0).build());
    let strange = [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "240.1.1.1",
    ];
    for address in strange {
        let address: std::net::Ipv4Addr = address.parse().unwrap();
        let mut from = headers;
        from.key.source = u128::from(address.to_bits());
        assert!(!may_answer(&from), "from {address}");
        let mut to = headers;
        to.key.destination = u128::from(address.to_bits());
        assert!(!may_answer(&to), "to {address}");
    }
    let headers = parse(
        &Spec {
            v6: true,
            ..Spec::tcp(0)
        }
        .build(),
    );
    for address in ["::", "::1", "ff02::1"] {
        let address: std::net::Ipv6Addr = address.parse().unwrap();
        let mut from = headers;
        from.key.source = address.to_bits();
        assert!(!may_answer(&from), "from {address}");
    }
}

#[test]
fn the_first_fragment_is_answered_and_a_later_one_is_not() {
    let mut packet = Spec {
        dont_fragment: false,
        ..Spec::udp(800)
    }
    .build();
    let mut cut = |flags: [u8; 2]| {
        packet[6..8].copy_from_slice(&flags);
        packet[10..12].fill(0);
        let sum = !fold(slow_sum(&packet[..20]));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        answer(Complaint::TimeExceeded, &packet, &Offload::default())
    };
    assert!(cut([0x20, 0]).is_some());
    assert!(cut([0x20, 10]).is_none());
}

#[test]
fn the_gateway_answers_in_the_family_of_the_packet() {
    let packet = Spec::tcp(100).build();
    let mut out = [0; MAX_ERROR];
    let headers = parse(&packet);
    let written = build(
        Complaint::NoRoute,
        &packet,
        &headers,
        &Offload::default(),
        ours(true),
        &mut out,
    );
    assert_eq!(written, None);
}

#[test]
fn errors_keep_to_their_rate() {
    let start = Instant::now();
    let keys: Vec<_> = (0..200)
        .map(|source| {
            parse(
                &Spec {
                    source,
                    ..Spec::tcp(0)
                }
                .build(),
            )
            .key
        })
        .collect();
    let mut limit = RateLimit::new(1000, 50);
    let sent = |limit: &mut RateLimit, now: Instant| {
        keys.iter().filter(|key| limit.allow(now, key)).count()
    };
    assert_eq!(sent(&mut limit, start), 50);
    assert_eq!(sent(&mut limit, start), 0);
    assert_eq!(sent(&mut limit, start + Duration::from_millis(10)), 10);
    assert_eq!(sent(&mut limit, start + Duration::from_mins(1)), 50);
}

#[test]
fn one_destination_does_not_use_up_the_errors_of_all() {
    let now = Instant::now();
    let key = |source| {
        parse(
            &Spec {
                source,
                ..Spec::tcp(0)
            }
            .build(),
        )
        .key
    };
    let mut limit = RateLimit::new(1000, 48);
    let greedy = (0..1000).filter(|_| limit.allow(now, &key(1))).count();
    assert_eq!(greedy, 6);
    assert!((2..=255).any(|other| limit.allow(now, &key(other))));
    assert!(limit.allow(now + Duration::from_millis(8), &key(1)));
}
