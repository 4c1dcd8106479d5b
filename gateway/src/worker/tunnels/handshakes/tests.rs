use super::*;
use crate::device::udp::{PeerPath, SendOutcome};
use crate::telemetry::ledger::{Ledger, Totals};
use crate::worker::tunnels::{Arrival, Underlay};
use crypto::key::{PrivateKey, PublicKey};
use crypto::limiter::{HandshakeLimits, Limiter};
use crypto::tunnel::{Peer, PeerId};
use crypto::wireguard;
use crypto::wireguard::Train;
use routing::path::PathId;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;
use zeroize::Zeroizing;

/// Keeps what is sent.
#[derive(Clone, Debug, Default)]
struct Sent(Rc<RefCell<Vec<Vec<u8>>>>);

impl TrainSink for Sent {
    fn send_train_by(
        &self,
        _: &PeerPath,
        _: &SocketAddr,
        bytes: &[u8],
        _: usize,
        _: u8,
    ) -> SendOutcome {
        self.0.borrow_mut().push(bytes.to_vec());
        SendOutcome {
            sent: 1,
            ..SendOutcome::default()
        }
    }
}

/// Somebody with a key of its own who wants to talk to `near`.
fn caller(now: Instant, key: PrivateKey, near: PublicKey) -> (wireguard::Endpoint, PeerId) {
    let limiter = Arc::new(Limiter::new(now, HandshakeLimits::default()).unwrap());
    let mut caller = wireguard::Endpoint::new(key, limiter, 0, Arc::new(SystemTime::now));
    let id = caller.add_peer(now, &peer(near, Some(address(1)))).unwrap();
    (caller, id)
}

fn peer(key: PublicKey, endpoint: Option<SocketAddr>) -> Peer {
    Peer {
        public_key: key.0,
        preshared_key: Zeroizing::default(),
        endpoint,
        keepalive: None,
        retry: None,
        mtu: 1420,
    }
}

fn address(n: u32) -> SocketAddr {
    (std::net::Ipv4Addr::from_bits(0xC612_0000 + n), 4500).into()
}

/// What a caller sends for a packet of this length, 0 for none.
fn call(now: Instant, (caller, id): &mut (wireguard::Endpoint, PeerId), length: usize) -> Vec<u8> {
    let mut train = Train::new(1420);
    if length > 0 {
        train.push(length).unwrap().fill(0x45);
    }
    let mut out = Vec::new();
    let mut own = |_: Option<PeerId>, _: SocketAddr, bytes: &[u8]| out = bytes.to_vec();
    match caller.seal(now, *id, &mut train, &mut own) {
        Ok(_) => train.bytes().to_vec(),
        Err(_) => out,
    }
}

#[test]
fn data_comes_before_handshakes_and_a_round_reads_few_of_them() {
    let now = Instant::now();
    let [near, far] = [(); 2].map(|()| PrivateKey::generate().unwrap());
    let near_key = near.public_key();
    let limits = HandshakeLimits {
        total_rate: 1000,
        total_burst: 1000,
        ..HandshakeLimits::default()
    };
    let limiter = Arc::new(Limiter::new(now, limits).unwrap());
    let engine = wireguard::Endpoint::new(near, limiter, 0, Arc::new(SystemTime::now));
    let sent = Sent::default();
    let underlay = Underlay {
        v4: Some(sent.clone()),
        v6: None,
    };
    let ledger = Arc::new(Ledger::new(8));
    let mut tunnels = Tunnels::new(engine, underlay, Arc::clone(&ledger), now, true);
    let site = peer(far.public_key(), None);
    assert!(tunnels.add(now, PathId(0), &site, Arc::default()));
    let mut far = caller(now, far, near_key);
    let mut initiation = call(now, &mut far, 0);
    tunnels.receive(now, (address(0), None), &mut initiation);
    tunnels.poll(now);
    let mut response = sent.0.borrow_mut().pop().unwrap();
    let mut confirmation = Vec::new();
    far.0.receive(
        now,
        address(1),
        &mut response,
        &mut |_: Option<PeerId>, _: SocketAddr, bytes: &[u8]| confirmation = bytes.to_vec(),
    );
    tunnels.receive(now, (address(0), None), &mut confirmation);
    tunnels.poll(now);

    // A stranger calls from many addresses, and what the site sends comes after that.
    let mut stranger = caller(now, PrivateKey::generate().unwrap(), near_key);
    let initiation = call(now, &mut stranger, 0);
    let flood = |tunnels: &mut Tunnels<wireguard::Endpoint, Sent>, from: u32, count: u32| {
        for n in from..from + count {
            tunnels.receive(now, (address(n), None), &mut initiation.clone());
        }
    };
    flood(&mut tunnels, 100, 200);
    let mut data = call(now, &mut far, 64);
    let arrival = tunnels.receive(now, (address(0), None), &mut data);
    assert!(
        matches!(arrival, Arrival::Packet(PathId(0), _)),
        "{arrival:?}"
    );
    let names = ["vnet", "local", "underlay", "site"].map(str::to_owned);
    let dropped = |reason: &str| {
        let totals = Totals::of([&*ledger], &names);
        totals.dropped.get(reason).map_or(0, |sum| sum.packets)
    };
    let too_many = 200 - SCREENED.min(MAX_HANDSHAKES) as u64;
    assert_eq!(dropped("tunnel_handshake_rate"), too_many);
    assert_eq!(dropped("tunnel_unknown_peer"), 0, "none was read so far");
    // Each round reads some of them, and wants another one.
    let mut rounds = 0;
    while tunnels.deadline().is_some_and(|at| at <= now) {
        tunnels.poll(now);
        rounds += 1;
        assert_eq!(dropped("tunnel_unknown_peer"), rounds * HANDSHAKES as u64);
    }
    assert_eq!(rounds, (MAX_HANDSHAKES / HANDSHAKES) as u64);

    // Where more comes in than is read, most is thrown away unread.
    tunnels.set_behind(true);
    tunnels.poll(now);
    flood(&mut tunnels, 1000, 50);
    let more = 50 - SCREENED_BEHIND as u64;
    assert_eq!(dropped("tunnel_handshake_rate"), too_many + more);
}
