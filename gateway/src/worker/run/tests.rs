use super::*;
use crate::device::tun::TunQueue;
use crate::device::udp::{UdpOptions, UdpSocket};
use crate::telemetry::ledger::Totals;
use crate::worker::backlog::INTERVAL;
use crate::worker::fixture;
use crate::worker::tunnels::Underlay;
use crate::worker::vnet::VnetPort;
use std::os::unix::net::UnixDatagram;

/// Packets of a round that nothing but the budget ends.
fn round(bytes: usize, gso_size: Option<u16>) -> usize {
    let mut budget = Budget::default();
    let before_the_last = (0..PACKETS).take_while(|_| budget.spend(bytes, gso_size));
    (before_the_last.count() + 1).min(PACKETS)
}

#[test]
fn a_round_is_bounded_by_packets_bytes_and_segments() {
    assert_eq!(round(64, None), PACKETS);
    assert_eq!(round(65_000, Some(1_448)), SUPER_PACKETS + 1);
    assert_eq!(round(65_000, Some(536)), SUPER_PACKETS + 1);
    assert_eq!(round(2_048, Some(1_024)), PACKETS);
    assert_eq!(round(65_000, Some(36)), 1, "1,806 datagrams");
    assert_eq!(round(1_000, Some(1)), 2);
}

/// A worker on a device that is a pair of sockets and on a UDP socket; the other end of the first.
fn worker(now: Instant) -> (Worker<crypto::wireguard::Endpoint>, UnixDatagram) {
    let (device, other) = UnixDatagram::pair().unwrap();
    device.set_nonblocking(true).unwrap();
    let vnet = VnetPort {
        queue: TunQueue::of(device.into()),
        offload: false,
        uso: false,
    };
    let any = "127.0.0.1:0".parse().unwrap();
    let underlay = Underlay {
        v4: Some(UdpSocket::bind(any, UdpOptions::default()).unwrap()),
        v6: None,
    };
    let shared = Shared {
        forwarding: Arc::new(ArcSwap::from_pointee(fixture::forwarding())),
        newest_flows: Window::default(),
        kernel_drops: Box::default(),
        stop: AtomicBool::new(false),
    };
    let switch = fixture::switch(vnet, underlay);
    let worker = Worker::new(switch, Arc::new(shared), Polling::Adaptive, now).unwrap();
    (worker, other)
}

#[test]
fn whoever_is_to_be_told_is_of_the_queue_that_stands() {
    let began = Instant::now();
    let (mut worker, other) = worker(began);
    let now = began + INTERVAL;
    let forwarding = fixture::forwarding();
    let round = Round {
        now,
        forwarding: &forwarding,
    };
    // The tunnel's socket has left something in every round, so the next packet of it is to tell its sender. But
    // there is none any more.
    worker.rounds = 7;
    worker.tunnel_backlogs[0].seen(7, began, false);
    worker.rounds = 8;
    assert!(worker.tunnel_backlogs[0].is_due(8, now), "a standing queue");
    worker.tunnel_backlogs[0] = Backlog::default();
    worker.tunnel_backlogs[0].seen(7, began, false);
    worker.receive_tunnels(round, 0);
    assert!(!worker.switch.tell, "another queue's packet would be lost");
    // The same of the device.
    worker.vnet_backlog.seen(7, began, false);
    worker.receive_vnet(round);
    assert!(!worker.switch.tell, "another queue's packet would be lost");
    // What comes next by another way is not lost for it.
    other
        .send(&fixture::tcp(1, 2, 1, b"from the device"))
        .unwrap();
    worker.receive_vnet(round);
    let totals = Totals::of([&*worker.switch.ledger], &[]);
    assert!(!totals.dropped.contains_key("queue_delay"), "{totals:?}");
}
