//! One TCP flow in super-packets of up to 64 KB: they stay whole on the way, and every segment that comes
//! out of them has the checksum that it should.

use crate::capture::{self, Capture};
use crate::program::present;
use crate::stage::{Family, Stage, Way};
use crate::traffic::Iperf;
use integration::config::Tagging;

#[test]
fn super_packets_over_a_tunnel() {
    bulk(Way::Tunnel(Family::V4));
}

#[test]
fn super_packets_over_an_untagged_link() {
    bulk(Way::Link(Tagging::Untagged, 1_500));
}

#[test]
fn super_packets_over_an_802_1q_link() {
    bulk(Way::Link(Tagging::Dot1q, 1_500));
}

#[test]
fn super_packets_over_a_qinq_link_with_outer_type_88a8() {
    bulk(Way::Link(Tagging::QinQ, 1_500));
}

#[test]
fn super_packets_over_a_qinq_link_with_outer_type_8100() {
    bulk(Way::Link(Tagging::QinQ8100, 1_500));
}

fn bulk(way: Way) {
    if !present(&[&["iperf3"][..], &capture::PROGRAMS].concat()) {
        return;
    }
    let stage = Stage::new();
    let wire = match way {
        Way::Tunnel(_) => "eth0",
        Way::Link(..) => "eth1",
    };

    // Whole super-packets end to end: the wire between two namespaces passes them as they are.
    let pair = stage.pair(way, ["", ""]);
    {
        let iperf = Iperf::new(&stage, &pair.hosts, &pair.gateways);
        let seen = Capture::start(&stage, &pair.hosts[1], wire, 2_000, 128, "");
        for family in Family::BOTH {
            iperf.assert_tcp(family, &[]);
            iperf.assert_tcp(family, &["-R"]);
        }
        let large = seen.finish().count("frame.len > 20000");
        assert!(large > 0, "no super-packet on {wire}");
    }
    // A tunnel's MTU is less than the device's: the first packets of a flow may have to learn it.
    pair.finish(&stage, &["too_big"]);

    // The receiver's device without offloads: every segment has a complete checksum, for tshark to judge.
    let pair = stage.pair(way, ["", "offload = false"]);
    {
        let iperf = Iperf::new(&stage, &pair.hosts, &pair.gateways);
        for family in Family::BOTH {
            for options in [&[][..], &["-R"]] {
                let seen = Capture::start(&stage, &pair.hosts[1], "vng0", 4_000, 65_535, "tcp");
                iperf.assert_tcp(family, options);
                let seen = seen.finish();
                let good = seen.count("tcp.checksum.status == 1");
                assert!(good > 3_000, "{good} segments with a good checksum");
                // 0xffff for 0 is right too, and what Linux itself writes (skb_checksum_help); tshark objects.
                let bad = "(tcp.checksum.status == 0 && tcp.checksum != 0xffff) || ip.checksum.status == 0";
                assert_eq!(seen.count(bad), 0, "{}", seen.describe(bad));
            }
        }
    }
    pair.finish(&stage, &["too_big"]);
}
