//! TUN devices, with the kernel's own TCP and UDP on their other side.
//!
//! ```text
//!   namespace one                this process                 namespace two
//!   10.9.0.1 -- TUN "v" -- read ... write -- TUN "v" -- 10.9.0.2
//!   fd09::1                                                   fd09::2
//! ```

use crate::lab::{PATIENCE, alone, ready, with_ipv6};
use crate::packet::{finished, packet, pattern};
use gateway::device::event::{Poller, Waker};
use gateway::device::interface::Interface;
use gateway::device::namespace::Namespace;
use gateway::device::netlink::Netlink;
use gateway::device::offload::{GsoKind, Offload};
use gateway::device::tun::{MAX_PACKET, Tun};
use gateway::device::udp::{ReceiveBatch, UdpOptions, UdpSocket};
use gateway::device::{DeviceError, ReceiveError, SendError};
use std::io::{IoSlice, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

/// Two namespaces with a TUN device each.
struct Wire {
    spaces: [Namespace; 2],
    tuns: [Tun; 2],
}

/// What went from the first device to the second.
#[derive(Debug, Default)]
struct Carried {
    packets: usize,
    longest: usize,
    tcp4: usize,
    tcp6: usize,
    udp: usize,
    partial: usize,
}

impl Wire {
    fn new(offload: bool) -> Self {
        Self::over(offload, || {})
    }

    /// The same, with `prepare` run in both namespaces before the devices are made.
    fn over(offload: bool, prepare: impl Fn() + Sync) -> Self {
        let spaces = [(); 2].map(|()| Namespace::new().unwrap());
        let tun = |which: usize| {
            let open = || {
                with_ipv6();
                prepare();
                let tun = Tun::create("v", 1500, 1, offload).unwrap();
                let mut netlink = Netlink::open().unwrap();
                for prefix in ["10.9.0.", "fd09::"] {
                    let host = which + 1;
                    let len = if prefix.contains(':') { 64 } else { 24 };
                    let address = format!("{prefix}{host}/{len}");
                    netlink.add_address("v", address.parse().unwrap()).unwrap();
                }
                tun
            };
            spaces[which].run(open).unwrap()
        };
        let tuns = [tun(0), tun(1)];
        Self { spaces, tuns }
    }

    /// Carries packets both ways until `done` is woken.
    fn carry(&self, done: &Waker) -> Carried {
        let [one, two] = self.tuns.each_ref().map(|tun| &tun.queues[0]);
        let mut poller = Poller::new().unwrap();
        poller.add(one, 0).unwrap();
        poller.add(two, 1).unwrap();
        poller.add(done, 2).unwrap();
        let mut carried = Carried::default();
        let mut buffer = vec![0; MAX_PACKET];
        loop {
            let ready: Vec<_> = poller.wait(None).unwrap().collect();
            if ready.contains(&2) {
                return carried;
            }
            for token in ready {
                let (from, to) = if token == 0 { (one, two) } else { (two, one) };
                while let Some((offload, len)) = from.read(&mut buffer).unwrap() {
                    if token == 0 {
                        carried.count(&offload, len);
                    }
                    let headers = if buffer[0] >> 4 == 4 { 20 } else { 40 };
                    let transport = if offload.gso.is_some_and(|g| g.kind == GsoKind::Udp) {
                        8
                    } else {
                        usize::from(buffer[headers + 12] >> 4) * 4
                    };
                    let hdr_len = headers + transport;
                    // In pieces, as it would be coalesced.
                    let parts: Vec<_> = buffer[..len].chunks(1000).map(IoSlice::new).collect();
                    match to.write(&offload, hdr_len as u16, &parts) {
                        // TCP mends what a full queue drops.
                        Ok(()) | Err(SendError::NoRoom) => {}
                        Err(error) => panic!("{error} for {len} bytes {offload:?}"),
                    }
                }
            }
        }
    }

    /// Carries packets while `work` runs with the two namespaces.
    fn during<T: Send>(&self, work: impl FnOnce(&[Namespace; 2]) -> T + Send) -> (T, Carried) {
        /// Ends the carrier even when `work` panics.
        struct Wake<'a>(&'a Waker);
        impl Drop for Wake<'_> {
            fn drop(&mut self) {
                self.0.wake();
            }
        }
        let done = Waker::new().unwrap();
        thread::scope(|scope| {
            let carrier = scope.spawn(|| self.carry(&done));
            let end = Wake(&done);
            let result = work(&self.spaces);
            drop(end);
            (result, carrier.join().unwrap())
        })
    }
}

impl Carried {
    fn count(&mut self, offload: &Offload, len: usize) {
        self.packets += 1;
        self.longest = self.longest.max(len);
        match offload.gso.map(|gso| gso.kind) {
            Some(GsoKind::Tcp4) => self.tcp4 += 1,
            Some(GsoKind::Tcp6) => self.tcp6 += 1,
            Some(GsoKind::Udp) => self.udp += 1,
            None => self.partial += usize::from(offload.checksum.is_some()),
        }
    }
}

/// Sends `len` bytes over TCP from the first namespace to the second, and gives what arrived.
fn tcp(spaces: &[Namespace; 2], to: IpAddr, len: usize) -> Vec<u8> {
    let listener = spaces[1]
        .run(|| TcpListener::bind((to, 0)).unwrap())
        .unwrap();
    let address = listener.local_addr().unwrap();
    let connect = || TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    let mut stream = spaces[0].run(connect).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || stream.write_all(&pattern(len)).unwrap());
        let mut received = Vec::new();
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_to_end(&mut received).unwrap();
        received
    })
}

fn addresses() -> [IpAddr; 2] {
    ["10.9.0.2", "fd09::2"].map(|address| address.parse().unwrap())
}

#[test]
fn tcp_super_packets_pass_whole_from_one_device_to_another() {
    alone(|| {
        let wire = Wire::new(true);
        assert!(wire.tuns[0].vnet_header && wire.tuns[0].tso);
        for to in addresses() {
            let (received, carried) = wire.during(|spaces| tcp(spaces, to, 4_000_000));
            assert!(received == pattern(4_000_000));
            let super_packets = if to.is_ipv4() {
                carried.tcp4
            } else {
                carried.tcp6
            };
            assert!(super_packets > 0 && carried.longest > 10_000, "{carried:?}");
            assert!(
                carried.partial > 0,
                "a SYN has a partial checksum: {carried:?}"
            );
        }
    });
}

#[test]
fn udp_super_packets_pass_whole_where_the_kernel_has_them() {
    alone(|| {
        let wire = Wire::new(true);
        if !wire.tuns[0].uso {
            eprintln!("SKIPPED: no USO in this kernel (Linux 6.2 has it)");
            return;
        }
        for to in addresses() {
            // An IPv6 address takes a moment until it receives, and TCP has the patience for it.
            wire.during(|spaces| tcp(spaces, to, 1));
            let to = SocketAddr::new(to, 4000);
            let bytes = pattern(20 * 1300 + 5);
            let (received, carried) = wire.during(|spaces| {
                let bind = |at| move || UdpSocket::bind(at, UdpOptions::default()).unwrap();
                let receiver = spaces[1].run(bind(to)).unwrap();
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let sender = spaces[0].run(bind(any.parse().unwrap())).unwrap();
                assert_eq!(sender.send_train(&to, &bytes, 1300, 0x2c).sent, 21);
                let mut batch = ReceiveBatch::new(16);
                let mut received = Vec::new();
                while received.len() < bytes.len() {
                    ready(&receiver);
                    receiver.receive(&mut batch).unwrap();
                    for train in batch.trains() {
                        assert_eq!(train.traffic_class, 0x2c);
                        assert!(train.stride <= 1300);
                        received.extend_from_slice(train.bytes);
                    }
                }
                received
            });
            assert!(received == bytes);
            assert_eq!(carried.udp, 1, "{carried:?}");
            assert!(carried.longest > 26_000);
        }
    });
}

#[test]
fn without_offload_packets_are_finished_and_fit_the_mtu() {
    alone(|| {
        let wire = Wire::new(false);
        assert!(!wire.tuns[0].vnet_header && !wire.tuns[0].tso && !wire.tuns[0].uso);
        for to in addresses() {
            let (received, carried) = wire.during(|spaces| tcp(spaces, to, 200_000));
            assert!(received == pattern(200_000));
            assert_eq!((carried.tcp4, carried.tcp6, carried.partial), (0, 0, 0));
            assert!(carried.longest <= 1500, "{carried:?}");
        }
        let queue = &wire.tuns[0].queues[0];
        let unfinished = packet(GsoKind::Tcp4, false, b"x", 0);
        let parts = [IoSlice::new(&unfinished.bytes)];
        let result = queue.write(&unfinished.offload, 40, &parts);
        assert_eq!(result, Err(SendError::GsoRefused));
    });
}

#[test]
fn a_persistent_device_does_not_keep_the_offloads_of_its_last_holder() {
    alone(|| {
        let wire = Wire::over(false, || {
            let add = ["tuntap", "add", "dev", "v", "mode", "tun"];
            assert!(Command::new("ip").args(add).status().unwrap().success());
            assert!(Tun::create("v", 1500, 1, true).unwrap().tso);
        });
        let (received, carried) = wire.during(|spaces| tcp(spaces, addresses()[0], 200_000));
        assert!(received == pattern(200_000));
        assert!(carried.longest <= 1500, "{carried:?}");
    });
}

#[test]
fn a_super_packet_that_the_kernel_does_not_take_is_refused_as_such() {
    alone(|| {
        let tun = Tun::create("v", 1500, 1, true).unwrap();
        let mut sent = packet(GsoKind::Tcp4, false, &pattern(9000), 1448);
        let queue = &tun.queues[0];
        let write = |offload: &Offload, hdr_len, bytes: &[u8]| {
            queue.write(offload, hdr_len, &[IoSlice::new(bytes)])
        };
        // Headers longer than the packet.
        let refused = write(&sent.offload, 60_000, &sent.bytes);
        assert_eq!(refused, Err(SendError::GsoRefused));
        // A checksum beyond the packet's end.
        sent.offload.checksum.as_mut().unwrap().start = 60_000;
        let refused = write(&sent.offload, 40, &sent.bytes);
        assert_eq!(refused, Err(SendError::GsoRefused));
        // The queue is none the worse for it.
        let plain = finished(GsoKind::Udp, false, b"x");
        assert_eq!(write(&plain.offload, 0, &plain.bytes), Ok(()));
    });
}

#[test]
fn a_device_that_is_down_or_gone_says_so() {
    alone(|| {
        let tun = Tun::create("v", 1500, 1, true).unwrap();
        let queue = &tun.queues[0];
        let sent = finished(GsoKind::Udp, false, b"x");
        let parts = [IoSlice::new(&sent.bytes)];
        let mut buffer = vec![0; MAX_PACKET];
        Interface::set_up("v", false).unwrap();
        assert_eq!(queue.write(&sent.offload, 0, &parts), Err(SendError::Down));
        assert_eq!(queue.read(&mut buffer), Ok(None));
        Interface::set_up("v", true).unwrap();
        assert_eq!(queue.write(&sent.offload, 0, &parts), Ok(()));
        Netlink::open().unwrap().delete_link("v").unwrap();
        ready(queue);
        assert_eq!(queue.read(&mut buffer), Err(ReceiveError::Down));
        assert_eq!(queue.write(&sent.offload, 0, &parts), Err(SendError::Down));
    });
}

#[test]
fn several_queues_are_one_device_and_it_goes_with_them() {
    alone(|| {
        let tun = Tun::create("v", 1400, 3, true).unwrap();
        assert_eq!(tun.queues.len(), 3);
        let found = Interface::query("v").unwrap();
        assert_eq!((found.index, found.mtu, found.up), (tun.index, 1400, true));
        let again = Tun::create("v", 1400, 3, true).unwrap_err();
        assert!(matches!(again, DeviceError::NameInUse { .. }), "{again}");
        drop(tun);
        assert!(Interface::query("v").is_err());
    });
}

#[test]
fn names_that_cannot_be_had_are_told_apart() {
    alone(|| {
        let _tun = Tun::create("v", 1500, 1, true).unwrap();
        let error = |name: &str| Tun::create(name, 1500, 1, true).unwrap_err();
        assert!(matches!(error("v"), DeviceError::NameInUse { .. }));
        assert!(matches!(error("lo"), DeviceError::NameInUse { .. }));
        assert!(matches!(error("a/b"), DeviceError::BadName { .. }));
        assert!(matches!(
            error("sixteen-bytes-xx"),
            DeviceError::BadName { .. }
        ));
    });
}
