//! Traffic of our own, from plain sockets in the hosts' namespaces; no other program is needed.
//!
//! [`icmp`] asks who is there and which way it goes, [`bulk`] how much goes through, [`numbered`] what
//! exactly is lost, doubled, out of order or late.

pub mod bulk;
pub mod icmp;
pub mod iperf;
pub mod numbered;
