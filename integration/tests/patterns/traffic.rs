//! UDP packets, and which way each of them went.

use crate::stage::{PATIENCE, World, balanced};
use gateway::api::Request;
use gateway::show::view::{Counters, Explanation};
use gateway::telemetry::ledger::Sum;
use integration::gateway::Gateway;
use integration::host::Host;
use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};

/// Bytes of a packet: more than all that probes and ICMP errors add up to while it is looked for.
pub(crate) const LENGTH: usize = 1_200;
/// Bytes of IPv4 and UDP header.
const HEADERS: usize = 28;
/// Where packets go to.
pub(crate) const PORT: u16 = 7_000;

/// A UDP packet of [`LENGTH`] bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
}

impl Packet {
    /// From the virtual network's host, with this source port.
    pub(crate) fn to(destination: &str, source_port: u16) -> Self {
        Self::between("10.1.0.4", destination, source_port)
    }

    pub(crate) fn between(source: &str, destination: &str, source_port: u16) -> Self {
        Self {
            source: SocketAddr::new(source.parse().unwrap(), source_port),
            destination: SocketAddr::new(destination.parse().unwrap(), PORT),
        }
    }

    /// Sends it from `host`.
    pub(crate) fn send(&self, host: &Host) {
        let payload = vec![0x5a; LENGTH - HEADERS];
        let send = || UdpSocket::bind(self.source)?.send_to(&payload, self.destination);
        assert_eq!(host.run(send).unwrap().unwrap(), payload.len());
    }

    /// What the gateway says it would do with it.
    pub(crate) fn explain(&self, gateway: &Gateway, from: &str) -> Explanation {
        let query = serde_json::json!({
            "from": from,
            "source": self.source.ip(),
            "destination": self.destination.ip(),
            "protocol": 17,
            "source_port": self.source.port(),
            "destination_port": self.destination.port(),
        });
        let request = Request::Explain {
            query: serde_json::from_value(query).unwrap(),
        };
        gateway.control().ask(&request).unwrap()
    }
}

/// A socket that packets may arrive at.
pub(crate) fn listen(host: &Host, address: &str) -> UdpSocket {
    let at = (address.parse::<std::net::IpAddr>().unwrap(), PORT);
    let socket = host.run(|| UdpSocket::bind(at).unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Waits for a packet.
pub(crate) fn assert_arrives(socket: &UdpSocket, packet: &Packet) {
    let (length, source) = socket.recv_from(&mut [0; 2048]).unwrap();
    assert_eq!((length + HEADERS, source), (LENGTH, packet.source));
}

/// Whole packets of [`LENGTH`] bytes that each port and each drop reason took between two readings: probes
/// and the like are too small to make up one in so short a time.
pub(crate) fn taken(before: &Counters, after: &Counters) -> BTreeMap<String, u64> {
    let (old, new) = (&before.totals, &after.totals);
    let columns = [(&old.sent, &new.sent), (&old.dropped, &new.dropped)];
    let grown = columns.into_iter().flat_map(|(old, new)| {
        new.iter().map(move |(name, sum)| {
            let before = old.get(name).copied().unwrap_or(Sum::default());
            (name.clone(), (sum.bytes - before.bytes) / LENGTH as u64)
        })
    });
    grown.filter(|(_, packets)| *packets > 0).collect()
}

impl World {
    /// Sends a packet from the virtual network to a host of `place`, and says which port of the gateway it
    /// took; it has arrived.
    pub(crate) fn path_of(&self, packet: Packet, place: &str) -> String {
        let inlet = listen(self.host(place), &packet.destination.ip().to_string());
        let before = balanced(&self.gateway);
        packet.send(self.host("gateway"));
        assert_arrives(&inlet, &packet);
        let taken = taken(&before, &balanced(&self.gateway));
        assert_eq!(
            taken.values().copied().collect::<Vec<_>>(),
            [1],
            "{taken:?}"
        );
        taken.into_keys().next().unwrap()
    }

    /// Sends a packet from `host` that the gateway drops, and says for what reason.
    pub(crate) fn fate_of(&self, packet: Packet, host: &str) -> String {
        let before = balanced(&self.gateway);
        packet.send(self.host(host));
        let taken = crate::stage::until("the packet is dropped", || {
            let taken = taken(&before, &balanced(&self.gateway));
            if taken.is_empty() { Err(()) } else { Ok(taken) }
        });
        assert_eq!(
            taken.values().copied().collect::<Vec<_>>(),
            [1],
            "{taken:?}"
        );
        taken.into_keys().next().unwrap()
    }
}
