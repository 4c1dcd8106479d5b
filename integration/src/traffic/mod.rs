//! Traffic of our own, from plain sockets in the hosts' namespaces; no other program is needed.
//!
//! [`icmp`] asks who is there and which way it goes, [`bulk`] how much goes through, [`stream`] how many
//! packets, [`numbered`] what exactly is lost, doubled, out of order or late. [`iperf`] is another program.

pub mod bulk;
pub mod icmp;
pub mod iperf;
pub mod numbered;
pub mod stream;
