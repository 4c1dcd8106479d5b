//! A WireGuard peer on one std socket that answers every ping which comes through the tunnel: to try the
//! engine by hand against another implementation. Timing is plain: one loop, 20 ms.
//!
//! `wireguard_echo PRIVATE_KEY LISTEN PEER_PUBLIC_KEY PEER_ENDPOINT|- SECONDS [SPEED]`
//!
//! Keys are base64. SPEED lets our clock run faster than the true one, so that renewals come soon: the
//! engine has no clock of its own. It prints one line for each change of the session.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crypto::key::{PrivateKey, PublicKey};
use crypto::limiter::{HandshakeLimits, Limiter};
use crypto::tunnel::{Endpoint as _, Peer, PeerId, Received};
use crypto::wireguard::Endpoint;
use crypto::wireguard::Train;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use zeroize::Zeroizing;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [
        private_key,
        listen,
        peer_key,
        peer_endpoint,
        seconds,
        rest @ ..,
    ] = arguments.as_slice()
    else {
        panic!("PRIVATE_KEY LISTEN PEER_PUBLIC_KEY PEER_ENDPOINT|- SECONDS [SPEED]");
    };
    let speed: u32 = rest.first().map_or(1, |speed| speed.parse().unwrap());
    let socket = UdpSocket::bind(listen).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();

    let began = Instant::now();
    let clock = || began + began.elapsed() * speed;
    let limiter = Arc::new(Limiter::new(began, HandshakeLimits::default()).unwrap());
    let key = PrivateKey::from_base64(private_key).unwrap();
    let mut endpoint = Endpoint::new(key, limiter, 0, Arc::new(SystemTime::now));
    let peer = endpoint
        .add_peer(
            began,
            &Peer {
                public_key: PublicKey::from_base64(peer_key).unwrap().0,
                preshared_key: Zeroizing::new([0; 32]),
                endpoint: peer_endpoint.parse().ok(),
                keepalive: Some(Duration::from_secs(25)),
                retry: None,
                mtu: 1420,
            },
        )
        .unwrap();
    let mut send = |_: Option<PeerId>, to: SocketAddr, datagram: &[u8]| {
        socket.send_to(datagram, to).unwrap();
    };

    let (mut answered, mut refused, mut handshakes) = (0_u64, 0_u64, 0);
    let mut buffer = vec![0; 65_536];
    let mut train = Train::new(1420);
    while began.elapsed() < Duration::from_secs(seconds.parse().unwrap()) {
        let received = socket.recv_from(&mut buffer);
        let now = clock();
        if let Ok((length, source)) = received {
            match endpoint.receive(now, source, &mut buffer[..length], &mut send) {
                Received::Packet { plaintext, .. } => {
                    if let Some(reply) = echo_reply(plaintext) {
                        train.clear(1420);
                        train.push(reply.len()).unwrap().copy_from_slice(reply);
                        if let Ok(to) = endpoint.seal(now, peer, &mut train, &mut send) {
                            socket.send_to(train.bytes(), to).unwrap();
                            answered += 1;
                        }
                    }
                }
                Received::Refused(reason) => {
                    refused += 1;
                    println!("refused {reason:?}, {length} bytes from {source}");
                }
                Received::Keepalive { .. } | Received::Control { .. } | Received::Foreign(_) => {}
            }
        }
        endpoint.poll(now, &mut send);
        let status = endpoint.status(peer).unwrap();
        if status.handshakes != handshakes {
            handshakes = status.handshakes;
            println!(
                "{:?}: session {handshakes} with {:?}",
                began.elapsed(),
                status.endpoint
            );
        }
    }
    println!("answered {answered}, refused {refused}, handshakes {handshakes}");
}

/// Makes an IPv4 echo request its reply, without the padding: addresses swapped, type 0, the checksum
/// raised by the difference of the type (RFC 1624). `None` if it is something else.
fn echo_reply(plaintext: &mut [u8]) -> Option<&mut [u8]> {
    let (head, _) = plaintext.split_first_chunk::<28>()?;
    let (version, protocol, kind) = (head[0], head[9], head[20]);
    if (version, protocol, kind) != (0x45, 1, 8) {
        return None;
    }
    let total = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let packet = plaintext.get_mut(..total)?;
    let head = packet.first_chunk_mut::<28>()?;
    let (source, destination) = head[12..20].split_at_mut(4);
    source.swap_with_slice(destination);
    head[20] = 0;
    let (sum, carry) = u16::from_be_bytes([head[22], head[23]]).overflowing_add(0x0800);
    let [high, low] = sum.wrapping_add(u16::from(carry)).to_be_bytes();
    (head[22], head[23]) = (high, low);
    Some(packet)
}
