use super::*;
use crate::pipeline::checksum;
use crate::pipeline::split::Segments;

#[test]
fn a_train_becomes_a_super_packet_that_is_cut_into_its_datagrams_again() {
    let train: Vec<u8> = (0..3_000_u16).map(|n| n as u8).collect();
    for (own, to) in [
        ("10.1.255.4:51820", "10.200.0.1:4500"),
        ("[fd00:1::4]:51820", "[fd00:2::1]:4500"),
    ] {
        let (own, to): (SocketAddr, SocketAddr) = (own.parse().unwrap(), to.parse().unwrap());
        let outlet = Outlet::new(own);
        assert_eq!(
            outlet
                .send_train_by(&PeerPath::default(), &to, &train, 1_452, 0xb8)
                .sent,
            3
        );
        let outer = outlet.take().unwrap();
        let headers = Headers::parse(&outer.bytes).unwrap();
        assert_eq!((headers.traffic_class, source_of(&headers)), (0xb8, own));
        assert_eq!(headers.key.destination_port, 4_500);
        assert_eq!(outer.offload.gso.unwrap().size, 1_452);
        let mut cut = Segments::new(&outer.bytes, &headers, &outer.offload).unwrap();
        let mut room = vec![0; 2_048];
        let mut datagrams = Vec::new();
        while let Some(length) = cut.next_into(&mut room) {
            let packet = &room[..length.unwrap()];
            let headers = Headers::parse(packet).unwrap();
            assert!(checksum::verify(packet, &headers));
            datagrams.push(packet[usize::from(headers.payload)..].to_vec());
        }
        assert_eq!(
            datagrams.iter().map(Vec::len).collect::<Vec<_>>(),
            [1_452, 1_452, 96]
        );
        assert_eq!(datagrams.concat(), train);
        outlet.give_back(outer);

        // One datagram alone is a plain packet, whose checksum is still to be made.
        outlet.send_train_by(&PeerPath::default(), &to, &train[..148], 148, 0);
        let mut outer = outlet.take().unwrap();
        assert_eq!(outer.offload.gso, None);
        checksum::finish(&mut outer.bytes, outer.offload.checksum.unwrap()).unwrap();
        let headers = Headers::parse(&outer.bytes).unwrap();
        assert!(checksum::verify(&outer.bytes, &headers));
    }
}

#[test]
fn what_does_not_fit_is_refused_and_the_queue_is_bounded() {
    let outlet = Outlet::new("10.1.255.4:51820".parse().unwrap());
    let v6 = "[fd00::1]:1".parse().unwrap();
    assert_eq!(
        outlet
            .send_train_by(&PeerPath::default(), &v6, &[0; 32], 32, 0)
            .error,
        Some(SendError::TooBig)
    );
    let to = "10.200.0.1:51820".parse().unwrap();
    let long = vec![0; 65_508];
    assert_eq!(
        outlet
            .send_train_by(&PeerPath::default(), &to, &long, 1_452, 0)
            .error,
        Some(SendError::TooBig)
    );
    for _ in 0..MAX_READY {
        assert_eq!(
            outlet
                .send_train_by(&PeerPath::default(), &to, &[0; 32], 32, 0)
                .sent,
            1
        );
    }
    assert_eq!(
        outlet
            .send_train_by(&PeerPath::default(), &to, &[0; 32], 32, 0)
            .error,
        Some(SendError::NoRoom)
    );
}

#[test]
fn room_goes_back_to_the_outlet_that_it_came_from() {
    let [v4, v6] =
        ["10.1.255.4:51820", "[fd00:1::4]:51820"].map(|own| Outlet::new(own.parse().unwrap()));
    let outlets = [Some(&v4), Some(&v6)];
    let trains = |outlet: &Outlet, to: &str| {
        let to = to.parse().unwrap();
        for _ in 0..1_000 {
            for _ in 0..3 {
                let sent = outlet.send_train_by(&PeerPath::default(), &to, &[0; 3_000], 1_452, 0);
                assert_eq!(sent.sent, 3);
            }
            while let Some((place, outer)) = take_of(outlets) {
                give_back_to(outlets, place, outer);
            }
        }
        [&v4, &v6].map(|outlet| outlet.queue.borrow().spare.len())
    };
    assert_eq!(trains(&v6, "[fd00:2::1]:51820"), [0, 3], "over IPv6");
    assert_eq!(trains(&v4, "10.200.0.1:51820"), [3, 3], "and over IPv4");
}
