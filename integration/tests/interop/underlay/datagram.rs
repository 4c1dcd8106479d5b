//! Datagrams of a form that a tunnel or a router does something to.

use super::Underlay;
use crate::stage::{Family, Stage, Way, host_address};
use gateway::device::udp::{UdpOptions, UdpSocket as TrainSocket};
use integration::host::Host;
use integration::stage::wait_for;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Datagrams in one super-packet.
const DATAGRAMS: usize = 10;

/// Sends super-packets of datagrams that fill 1,500 bytes and may be cut; how many datagrams arrive.
fn arrivals(from: &Host, to: &Host, source: IpAddr, target: IpAddr) -> usize {
    let inlet = to.run(|| UdpSocket::bind((target, 0)).unwrap()).unwrap();
    inlet
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let at = inlet.local_addr().unwrap();
    let outlet = from
        .run(|| TrainSocket::bind(SocketAddr::new(source, 0), UdpOptions::default()).unwrap())
        .unwrap();
    let (bytes, mut buffer, mut arrived) = (vec![7; DATAGRAMS * 1_472], [0; 2_000], 0);
    for _ in 0..3 {
        let outcome = outlet.send_train(&at, &bytes, 1_472, 0);
        assert_eq!((outcome.sent, outcome.split), (DATAGRAMS, false));
        for _ in 0..DATAGRAMS {
            arrived += usize::from(matches!(inlet.recv(&mut buffer), Ok(1_472)));
        }
    }
    arrived
}

#[test]
fn super_packets_that_may_be_cut_arrive_as_through_a_linux_router() {
    let stage = Stage::new();
    let underlay = Underlay::new([1_500, 1_420]);
    let (near, far) = (underlay.near(), underlay.far());
    let ends = ["192.0.2.1", "198.51.100.2"].map(|end| end.parse().unwrap());
    let reference = arrivals(near, far, ends[0], ends[1]);

    let pair = stage.pair(Way::Tunnel(Family::V4), ["", ""]);
    let [from, to] = [1, 2].map(|n| host_address(n, Family::V4));
    let found = arrivals(&pair.hosts[0], &pair.hosts[1], from, to);
    println!(
        "a Linux router {reference}, vng {found} of {}",
        3 * DATAGRAMS
    );
    assert_eq!((reference, found), (3 * DATAGRAMS, 3 * DATAGRAMS));
    pair.finish(&stage, &[]);
}

#[test]
fn a_datagram_of_length_zero_is_counted() {
    let stage = Stage::new();
    let pair = stage.pair(Way::Tunnel(Family::V4), ["", ""]);
    let send = || {
        let socket = UdpSocket::bind("192.0.2.2:0").unwrap();
        for _ in 0..5 {
            socket.send_to(&[], "192.0.2.1:51820").unwrap();
        }
    };
    let malformed = || {
        let counters = stage.show(&pair.gateways[0], "counters");
        counters["dropped"]["tunnel_malformed"]["packets"]
            .as_u64()
            .unwrap_or(0)
    };
    let before = malformed();
    pair.hosts[1].run(send).unwrap();
    wait_for("all are counted", String::new, || malformed() >= before + 5);
    assert_eq!(malformed(), before + 5);
    pair.finish(&stage, &["tunnel_malformed"]);
}
