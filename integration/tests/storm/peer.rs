//! The branch's end of its tunnel, played by the test: what is inside is up to us.

use crypto::key::{PrivateKey, PublicKey};
use crypto::limiter::{HandshakeLimits, Limiter};
use crypto::tunnel::{Endpoint as _, Peer, PeerId, Received};
use crypto::wireguard::Endpoint;
use crypto::wireguard::Train;
use gateway::device::event::Poller;
use gateway::device::udp::{ReceiveBatch, UdpOptions, UdpSocket};
use integration::lab::Lab;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use zeroize::Zeroizing;

/// Where the gateway's tunnels are.
pub(crate) const GATEWAY: &str = "203.0.113.4:51820";
/// MTU of the tunnel, bytes of the inner packet.
pub(crate) const MTU: usize = 1420;
/// Datagrams kept as material for others.
const MATERIAL: usize = 64;
/// No answer takes so long unless it never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// An endpoint that knows one peer: the gateway.
pub(crate) struct Branch {
    endpoint: Endpoint,
    gateway: PeerId,
    socket: UdpSocket,
    batch: ReceiveBatch,
    /// The datagrams of its own that it has sent, the first ones.
    pub(crate) sent: Vec<Vec<u8>>,
}

impl Branch {
    /// The lab's branch, with its key and its address; the branch's gateway does not run.
    pub(crate) fn new(lab: &Lab) -> Self {
        let socket = open(lab, "branch-edge", "192.0.2.10:51820");
        Self::with(lab, read_key(lab, "branch-edge"), socket)
    }

    /// Somebody whom the gateway does not know.
    pub(crate) fn stranger(lab: &Lab) -> Self {
        let socket = open(lab, "internet", "203.0.113.1:0");
        Self::with(lab, PrivateKey::generate().unwrap(), socket)
    }

    fn with(lab: &Lab, key: PrivateKey, socket: UdpSocket) -> Self {
        let now = Instant::now();
        let limiter = Arc::new(Limiter::new(now, HandshakeLimits::default()).unwrap());
        let mut endpoint = Endpoint::new(key, limiter, 0, Arc::new(SystemTime::now));
        let public_key: PublicKey = read_key(lab, "gateway").public_key();
        let peer = Peer {
            public_key: public_key.0,
            preshared_key: Zeroizing::new([0; 32]),
            endpoint: GATEWAY.parse().ok(),
            keepalive: None,
            retry: None,
            mtu: MTU as u16,
        };
        let gateway = endpoint.add_peer(now, &peer).unwrap();
        Self {
            endpoint,
            gateway,
            socket,
            batch: ReceiveBatch::new(8),
            sent: Vec::new(),
        }
    }

    /// Calls the gateway; does not wait for the answer.
    pub(crate) fn call(&mut self) {
        let mut train = Train::new(MTU);
        train.push(16).unwrap().fill(0);
        self.send(&mut train, 0);
    }

    /// Calls the gateway until there is a session.
    pub(crate) fn connect(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        self.call();
        while !self.endpoint.status(self.gateway).unwrap().has_session {
            assert!(Instant::now() < deadline, "no session");
            self.wait();
            self.listen();
        }
    }

    /// Seals and sends a train with this outer traffic class; false if there is no session at the moment.
    pub(crate) fn send(&mut self, train: &mut Train, class: u8) -> bool {
        let (socket, sent) = (&self.socket, &mut self.sent);
        let mut send = |to: SocketAddr, bytes: &[u8], stride: usize| {
            send_all(socket, to, bytes, stride, class);
            for datagram in bytes.chunks(stride.max(1)) {
                if sent.len() < MATERIAL {
                    sent.push(datagram.to_vec());
                }
            }
        };
        let mut transmit = |_: Option<PeerId>, to: SocketAddr, datagram: &[u8]| {
            send(to, datagram, datagram.len());
        };
        let sealed = self
            .endpoint
            .seal(Instant::now(), self.gateway, train, &mut transmit);
        let Ok(to) = sealed else { return false };
        send(to, train.bytes(), train.stride());
        true
    }

    /// Reads what has come, and lets the timers run. The inner packets go to `heard`.
    pub(crate) fn listen_to(&mut self, mut heard: impl FnMut(&[u8])) {
        let socket = &self.socket;
        let mut transmit = |_: Option<PeerId>, to: SocketAddr, datagram: &[u8]| {
            send_all(socket, to, datagram, datagram.len(), 0);
        };
        let now = Instant::now();
        while socket.receive(&mut self.batch).is_ok_and(|count| count > 0) {
            for train in self.batch.trains() {
                for datagram in train.bytes.chunks_mut(train.stride) {
                    let received =
                        self.endpoint
                            .receive(now, train.source, datagram, &mut transmit);
                    if let Received::Packet { plaintext, .. } = received {
                        heard(plaintext);
                    }
                }
            }
        }
        self.endpoint.poll(now, &mut transmit);
    }

    /// Reads what has come.
    pub(crate) fn listen(&mut self) {
        self.listen_to(|_| {});
    }

    /// Waits until something comes, at most 100 ms.
    pub(crate) fn wait(&self) {
        let mut poller = Poller::new().unwrap();
        poller.add(&self.socket, 0).unwrap();
        poller
            .wait(Some(Duration::from_millis(100)))
            .unwrap()
            .for_each(drop);
    }

    /// Sends `request` until a packet comes that `is_answer`; whether one did in time.
    pub(crate) fn ask(&mut self, request: &[u8], is_answer: impl Fn(&[u8]) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let mut train = Train::new(MTU);
            train.push(request.len()).unwrap().copy_from_slice(request);
            self.send(&mut train, 0);
            self.wait();
            let mut answered = false;
            self.listen_to(|packet| answered |= is_answer(packet));
            if answered {
                return true;
            }
        }
        false
    }
}

fn open(lab: &Lab, host: &str, address: &str) -> UdpSocket {
    let address = address.parse().unwrap();
    let open = || UdpSocket::bind(address, UdpOptions::default()).unwrap();
    lab.host(host).unwrap().run(open).unwrap()
}

/// Sends datagrams of `stride` bytes, however long the queue is full.
fn send_all(socket: &UdpSocket, to: SocketAddr, mut bytes: &[u8], stride: usize, class: u8) {
    let deadline = Instant::now() + PATIENCE;
    while !bytes.is_empty() {
        let outcome = socket.send_train(&to, bytes, stride, class);
        bytes = &bytes[bytes.len().min(outcome.sent * stride)..];
        assert!(bytes.is_empty() || Instant::now() < deadline, "{outcome:?}");
    }
}

fn read_key(lab: &Lab, name: &str) -> PrivateKey {
    let text = std::fs::read_to_string(lab.directory().join(format!("{name}.key"))).unwrap();
    PrivateKey::from_base64(text.trim()).unwrap()
}
