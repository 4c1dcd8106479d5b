//! What a gateway must live through, and how it ends.

use crate::stage::{Family, Stage, Way, lay_link, tags_need};
use crate::traffic::{assert_carries, assert_pings, numbered, wait_until};
use integration::config::Tagging;
use integration::host::Host;
use integration::stage::wait_for;
use integration::traffic::numbered::Load;
use rustix::process::Signal;
use std::time::Duration;

#[test]
fn a_gateway_that_was_killed_leaves_no_device_and_starts_again_at_once() {
    for way in [Way::Tunnel(Family::V4), Way::Link(Tagging::Untagged, 1_500)] {
        let stage = Stage::new();
        let mut pair = stage.pair(way, ["", ""]);
        let gateway = &mut pair.gateways[0];
        gateway.signal(Signal::KILL).unwrap();
        assert_eq!(gateway.wait().unwrap(), None);
        assert!(gateway.socket().exists(), "the stale socket is the point");
        wait_until_gone(&pair.hosts[0]);
        pair.gateways[0].start().unwrap();
        assert_pings(&pair.hosts);
        pair.finish(&stage, &[]);
    }
}

#[test]
fn traffic_resumes_when_a_lost_interface_is_back() {
    for tagging in [Tagging::Untagged, Tagging::QinQ] {
        let stage = Stage::new();
        let pair = stage.pair(Way::Link(tagging, 1_500), ["", ""]);
        let load = Load {
            rate: 2_000,
            ..Load::default()
        };
        let run = numbered(&pair.hosts, Family::V4, load);
        wait_until(&run, Duration::from_millis(300));
        pair.hosts[0]
            .configure(|netlink| netlink.delete_link("eth1"))
            .unwrap();
        wait_until(&run, Duration::from_millis(800));
        lay_link(&pair.hosts, 1_500 + tags_need(tagging));
        pair.assert_reaches();
        drop(run.finish().unwrap());

        assert_carries(&pair.hosts, Family::V4, 1_000);
        pair.finish(&stage, &LOST_INTERFACE);
    }
}

/// Why packets are dropped while a link is gone.
const LOST_INTERFACE: [&str; 6] = [
    "interface_down",
    "no_path",
    "neighbor_unresolved",
    "neighbor_queue_full",
    "transmit_error",
    "spoofed_source",
];

#[test]
fn an_interrupt_or_a_request_to_end_leaves_nothing() {
    for signal in [Signal::INT, Signal::TERM] {
        let stage = Stage::new();
        let mut pair = stage.pair(Way::Tunnel(Family::V6), ["", ""]);
        let gateway = &mut pair.gateways[0];
        gateway.signal(signal).unwrap();
        let status = gateway.wait().unwrap();
        assert_eq!(status, Some(0), "{}", gateway.log());
        assert!(!gateway.socket().exists());
        wait_until_gone(&pair.hosts[0]);
    }
}

/// Waits until the device is gone, which the kernel may finish after the process.
fn wait_until_gone(host: &Host) {
    let link = || host.configure(|netlink| netlink.link("vng0"));
    wait_for("vng0 is gone", String::new, || link().unwrap().is_none());
}
